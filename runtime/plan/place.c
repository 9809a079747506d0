// Places every tensor in its home's block. Activations share memory when they are never live
// together.
#include "runtime/plan/plan_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int64_t align(int64_t bytes) {
    return (bytes + KT_PLAN_ALIGN - 1) / KT_PLAN_ALIGN * KT_PLAN_ALIGN;
}

// ---- activations

// One piece of activation memory: a tensor, or several that take each other's place.
typedef struct piece {
    int tensor;
    int64_t bytes, offset;
    int first, last;
} piece;

static bool shares_uploads(const kt_planner *p) {
    return p->target.slots == 1;
}

static bool is_act_root(const kt_planner *p, size_t i) {
    const kt_life *life = &p->lives.at[i];
    kt_home home = p->tensors.at[i].home;
    if (home != KT_HOME_ACT && !(home == KT_HOME_UPLOAD && shares_uploads(p))) return false;
    return life->root == (int)i && life->first >= 0;
}

// When its memory is first written. Stages that run ahead do so before all others.
static int first_written(const kt_planner *p, size_t i) {
    const kt_tensor *t = &p->tensors.at[i];
    bool ahead = t->home == KT_HOME_UPLOAD && t->stage >= 0 && p->plan->stages[t->stage].ahead;
    return ahead ? 0 : p->lives.at[i].first;
}

// An output may take the memory of an input that dies in the same step and has the same size.
static bool may_alias(const kt_planner *p, size_t i) {
    const kt_life *out = &p->lives.at[i];
    if (out->alias < 0 || out->first != out->alias_time) return false;
    const kt_life *in = &p->lives.at[out->alias];
    return is_act_root(p, (size_t)out->alias) && in->last == out->alias_time &&
           p->tensors.at[out->alias].bytes == p->tensors.at[i].bytes;
}

static int compare_pieces(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

static int compare_offsets(const void *a, const void *b) {
    const piece *const *x = a, *const *y = b;
    if ((*x)->offset != (*y)->offset) return (*x)->offset < (*y)->offset ? -1 : 1;
    return 0;
}

// The lowest gap among the pieces that live at the same time.
static int64_t first_fit(
    const piece *pieces, size_t n_placed, const piece *fresh, const piece **busy) {
    size_t n = 0;
    for (size_t i = 0; i < n_placed; i++)
        if (pieces[i].first <= fresh->last && fresh->first <= pieces[i].last)
            busy[n++] = &pieces[i];
    // NOLINTNEXTLINE(bugprone-sizeof-expression): pointers
    qsort(busy, n, sizeof *busy, compare_offsets);
    int64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (at + fresh->bytes <= busy[i]->offset) break;
        int64_t end = align(busy[i]->offset + busy[i]->bytes);
        if (end > at) at = end;
    }
    return at;
}

static int64_t place_acts(kt_planner *p) {
    size_t n = p->tensors.n;
    int *owner = KT_NEW_ARRAY(p->arena, int, n);
    piece *pieces = KT_NEW_ARRAY(p->arena, piece, n);
    const piece **busy = KT_NEW_ARRAY(p->arena, const piece *, n);
    for (size_t i = 0; i < n; i++) owner[i] = -1;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) { // inputs are made before outputs
        if (!is_act_root(p, i)) continue;
        int mine = may_alias(p, i) ? owner[p->lives.at[i].alias] : -1;
        if (mine < 0) {
            mine = (int)count++;
            pieces[mine] = (piece){(int)i, p->tensors.at[i].bytes, 0, first_written(p, i), 0};
        }
        owner[i] = mine;
        if (p->lives.at[i].last > pieces[mine].last) pieces[mine].last = p->lives.at[i].last;
    }
    for (size_t i = 0; i < count; i++) pieces[i].bytes = pieces[i].bytes ? pieces[i].bytes : 1;
    piece *sorted = KT_NEW_ARRAY(p->arena, piece, count + 1);
    if (count) memcpy(sorted, pieces, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_pieces);
    int64_t top = 0;
    for (size_t i = 0; i < count; i++) {
        sorted[i].offset = first_fit(sorted, i, &sorted[i], busy);
        p->tensors.at[sorted[i].tensor].offset = sorted[i].offset;
        int64_t end = align(sorted[i].offset + sorted[i].bytes);
        if (end > top) top = end;
    }
    for (size_t i = 0; i < n; i++)
        if (owner[i] >= 0) p->tensors.at[i].offset = p->tensors.at[pieces[owner[i]].tensor].offset;
    return top;
}

// ---- the other blocks

static int64_t place_uploads(kt_planner *p) {
    int64_t at = 0;
    for (size_t i = 0; i < p->tensors.n; i++) {
        if (p->tensors.at[i].home != KT_HOME_UPLOAD || p->lives.at[i].root != (int)i) continue;
        p->tensors.at[i].offset = at;
        at = align(at + p->tensors.at[i].bytes);
    }
    return at;
}

static void place_counters(kt_planner *p) {
    for (size_t i = 0; i < p->tensors.n; i++)
        if (p->tensors.at[i].home == KT_HOME_COUNTER) p->tensors.at[i].offset += p->state_bytes;
}

static void place_views(kt_planner *p) {
    for (size_t i = 0; i < p->tensors.n; i++) {
        const kt_life *life = &p->lives.at[i];
        if (life->root == (int)i) continue;
        p->tensors.at[i].offset = p->tensors.at[life->root].offset + life->delta;
    }
}

static void place_weights(kt_planner *p, kt_plan_bytes *bytes) {
    const kt_model *model = p->model;
    int64_t *vectors = KT_NEW_ARRAY(p->arena, int64_t, model->n_weights);
    for (int i = 0; i < model->n_weights; i++) {
        vectors[i] = -1;
        if (model->weights[i].linear) continue;
        int64_t n = 4;
        for (int a = 0; a < model->weights[i].rank; a++) n *= model->weights[i].shape[a];
        vectors[i] = bytes->weights;
        bytes->weights = align(bytes->weights + n);
    }
    for (size_t i = 0; i < p->layouts.n; i++) {
        kt_layout *layout = &p->layouts.at[i];
        int64_t *block = layout->host_memory ? &bytes->host_weights : &bytes->weights;
        layout->offset = *block;
        *block = align(*block + layout->bytes);
        for (int w = 0; w < layout->n_prepares; w++)
            if (layout->prepares[w].staging_bytes > bytes->staging)
                bytes->staging = layout->prepares[w].staging_bytes;
    }
    for (size_t i = 0; i < p->tensors.n; i++) {
        kt_tensor *t = &p->tensors.at[i];
        if (t->home == KT_HOME_VECTOR) t->offset = vectors[t->weight];
    }
    p->plan->vector_offset = vectors;
}

// ---- does it fit

static double mib(int64_t bytes) {
    return (double)bytes / (1024.0 * 1024.0);
}

// The table; which settings would do is for those to say who can plan again.
static kt_status too_large(const kt_planner *p, const kt_plan_bytes *b, int64_t sum, kt_err *err) {
    int64_t slots = p->target.slots > 1 ? p->target.slots : 1;
    kt_err_set(err, KT_EMEMORY, "pipeline '%.*s' needs %.1f MiB of memory, %.1f MiB may be used",
        KT_STR_ARG(p->pipeline->name), mib(sum), mib(p->target.memory_bytes));
    kt_err_note(err, "weights      %10.1f MiB", mib(b->weights));
    if (!p->target.cuda) kt_err_note(err, "host weights %10.1f MiB", mib(b->host_weights));
    kt_err_note(err, "state        %10.1f MiB", mib(b->state));
    kt_err_note(err, "activations  %10.1f MiB", mib(b->act));
    if (b->upload > 0) kt_err_note(err, "uploads      %10.1f MiB", mib(b->upload * slots));
    if (b->staging > b->act)
        kt_err_note(err, "staging      %10.1f MiB   beyond the activations, while weights load",
            mib(b->staging - b->act));
    return KT_EMEMORY;
}

int64_t kt_plan_work_bytes(const kt_plan *plan) {
    const kt_plan_bytes *b = &plan->bytes;
    return b->act > b->staging ? b->act : b->staging;
}

int64_t kt_plan_target_bytes(const kt_plan *plan) {
    const kt_plan_bytes *b = &plan->bytes;
    int64_t slots = plan->target.slots > 1 ? plan->target.slots : 1;
    int64_t sum = b->weights + b->state + b->upload * slots + kt_plan_work_bytes(plan);
    return plan->target.cuda ? sum : sum + b->host_weights;
}

bool kt_plan_place(kt_planner *p, kt_err *err) {
    kt_plan_bytes bytes = {0};
    place_weights(p, &bytes);
    p->state_bytes = align(p->state_bytes);
    place_counters(p);
    bytes.state = p->state_bytes + p->counter_bytes;
    bytes.upload = shares_uploads(p) ? 0 : place_uploads(p);
    bytes.act = place_acts(p);
    place_views(p);
    p->plan->bytes = bytes;
    int64_t sum = kt_plan_target_bytes(p->plan);
    if (p->target.memory_bytes <= 0 || sum <= p->target.memory_bytes) return true;
    return too_large(p, &bytes, sum, err) == KT_OK;
}
