// Which device memory the kernels of a call may touch: the tensors that they are given.
#include "runtime/exec/cuda_parts.h"
#include "runtime/exec/op_check_parts.h"

#include <stdlib.h>

typedef struct watched {
    kt_arena arena;
    const kt_cuda *cuda;
    const int64_t *values;
    KT_VEC(kt_op_check_region) regions;
} watched;

static void add(watched *w, kt_dptr at, int64_t bytes, bool writable) {
    kt_op_check_region region = {at, (uint64_t)bytes, writable};
    if (bytes > 0) KT_PUSH(&w->arena, &w->regions, region);
}

static kt_dptr start_of(const kt_cuda *c, const kt_tensor *t) {
    switch (t->home) {
    case KT_HOME_VECTOR:
        return c->weights.at;
    case KT_HOME_STATE:
    case KT_HOME_COUNTER:
        return c->state.at;
    case KT_HOME_UPLOAD:
        return c->base.plan->target.slots == 1 ? c->act.at : c->upload.at;
    case KT_HOME_ACT:
        return c->act.at;
    case KT_HOME_LAYOUT:
    case KT_HOME_STAGING:
    case KT_HOME_LINEAR:
    case KT_HOME_HOST:
        break;
    }
    return 0;
}

static void add_tensor(watched *w, int index, bool writable) {
    if (index < 0) return; // an input that is absent
    const kt_tensor *t = &w->cuda->base.plan->tensors[index];
    kt_dptr start = start_of(w->cuda, t);
    if (start) add(w, start + (uint64_t)t->offset, kt_tensor_bytes(t, w->values), writable);
}

// The parts of a layout are what prepare ops make of it; between them are gaps.
static void add_layout(watched *w, int index) {
    if (index < 0) return;
    const kt_plan *plan = w->cuda->base.plan;
    const kt_layout *layout = &plan->layouts[index];
    kt_dptr start = layout->host_memory ? w->cuda->host_weights.device : w->cuda->weights.at;
    for (int i = 0; i < layout->n_prepares; i++) {
        const kt_prepare *prepare = &layout->prepares[i];
        const kt_call *last = &prepare->calls[prepare->n_calls - 1];
        for (int p = 0; p < last->op->n_ports; p++) {
            const kt_tensor *t = last->ports[p] >= 0 ? &plan->tensors[last->ports[p]] : NULL;
            if (!t || t->home != KT_HOME_LAYOUT) continue;
            add(w, start + (uint64_t)(layout->offset + t->offset), t->bytes, false);
        }
    }
}

static int compare_places(const void *a, const void *b) {
    const kt_op_check_region *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

// Disjoint ones in order: what may be written anywhere may be written.
static void make_disjoint(watched *w) {
    KT_VEC(kt_op_check_region) out = {0};
    size_t n = w->regions.n;
    uint64_t *edges = KT_NEW_ARRAY(&w->arena, uint64_t, 2 * n + 1);
    size_t n_edges = 0;
    if (n > 0) qsort(w->regions.at, n, sizeof *w->regions.at, compare_places);
    for (size_t i = 0; i < n; i++) {
        edges[n_edges++] = w->regions.at[i].at;
        edges[n_edges++] = w->regions.at[i].at + w->regions.at[i].bytes;
    }
    for (uint64_t at = n > 0 ? w->regions.at[0].at : 0;;) {
        uint64_t next = UINT64_MAX;
        bool in = false, writable = false;
        for (size_t i = 0; i < n_edges; i++)
            if (edges[i] > at && edges[i] < next) next = edges[i];
        if (n == 0 || next == UINT64_MAX) break;
        for (size_t i = 0; i < n; i++) {
            const kt_op_check_region *r = &w->regions.at[i];
            bool covers = r->at <= at && at < r->at + r->bytes;
            in = in || covers;
            writable = writable || (covers && r->writable);
        }
        kt_op_check_region piece = {at, next - at, writable};
        kt_op_check_region *before = out.n > 0 ? &out.at[out.n - 1] : NULL;
        bool joins = before && before->at + before->bytes == at && before->writable == writable;
        if (in && joins)
            before->bytes += piece.bytes;
        else if (in)
            KT_PUSH(&w->arena, &out, piece);
        at = next;
    }
    w->regions.at = out.at;
    w->regions.n = out.n;
}

void kt_check_watch(const kt_op_check_watch *watch, kt_backend *backend, const kt_call *call,
    const int64_t *values) {
    watched w = {.cuda = (const kt_cuda *)backend, .values = values};
    const kt_op *op = call->op;
    for (int i = 0; i < op->n_ports; i++)
        if (op->ports[i].type.base != KT_BASE_LINEAR)
            add_tensor(&w, call->ports[i], op->ports[i].kind != KT_PORT_INPUT);
    for (int i = 0; i < call->variant->n_layouts; i++) add_layout(&w, call->layouts[i]);
    for (int i = 0; i < call->variant->n_scratch; i++) add_tensor(&w, call->scratch[i], true);
    for (int i = 0; i < call->variant->n_counters; i++) add_tensor(&w, call->counters[i], true);
    make_disjoint(&w);
    kt_op_check_region none = {0};
    watch->tell(watch->ctx, w.regions.n > 0 ? w.regions.at : &none, w.regions.n);
    kt_arena_deinit(&w.arena);
}
