#include "runtime/exec/verify.h"

#include "loader/npy.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 8192 };

// What a stage waits for: the tensor and the partial sums that belong to it, rows wanted only.
typedef struct held {
    kt_dtype dtype;
    int rank;
    int64_t shape[KT_MAX_RANK];
    int64_t sums;     // 1, or the first axis of partial sums
    int64_t n;        // elements of one sum
    const void *data; // sums after each other
    void *own;        // the same when it is a copy
} held;

typedef struct pair {
    held x, plus;
    bool has_x, has_plus;
} pair;

struct kt_verify {
    kt_arena *arena;
    const kt_golden *golden;
    kt_verdict *verdicts;
    pair *pairs;
    kt_dump_to to;
};

static void release(held *h) {
    free(h->own);
    h->own = NULL;
    h->data = NULL;
}

static const char *shape_text(kt_arena *arena, int rank, const int64_t *shape) {
    kt_buf text = {0};
    kt_npy_print_shape(rank, shape, &text);
    const char *out = kt_arena_copy(arena, text.at, text.n);
    kt_buf_deinit(&text);
    return out;
}

// ---- the rows that are wanted

// The tensor with its rows cut to what the stage compares; lent where nothing is cut out of its
// middle. Partial sums have their rows on the second axis. false: it has not that many rows.
static bool cut(
    const kt_golden_stage *s, const kt_dump_tensor *t, bool sums, bool copy, held *out) {
    int rows_axis = sums ? 1 : 0;
    *out = (held){.dtype = t->dtype, .rank = t->rank - rows_axis, .sums = 1, .n = 1};
    if (out->rank < 0 || (sums && t->rank < 1)) return false;
    if (sums) out->sums = t->shape[0];
    memcpy(out->shape, t->shape + rows_axis, sizeof(int64_t) * (size_t)out->rank);
    int64_t rows = out->rank > 0 ? out->shape[0] : 1;
    int64_t from = s->to < 0 ? 0 : s->from, to = s->to < 0 ? rows : s->to;
    if (to > rows || (s->to >= 0 && out->rank == 0)) return false;
    if (out->rank > 0) out->shape[0] = to - from;
    for (int i = 0; i < out->rank; i++) out->n *= out->shape[i];
    int64_t whole = out->sums > 0 ? t->n / out->sums : 0, word = kt_dtype_bytes(t->dtype);
    int64_t before = rows > 0 ? whole / rows * from : 0;
    const char *first = (const char *)t->data + before * word;
    bool gaps = out->sums > 1 && out->n != whole;
    out->data = first;
    if (!copy && !gaps) return true;
    char *own = malloc((size_t)(out->n * out->sums * word) + 1);
    if (!own) kt_out_of_memory((size_t)(out->n * out->sums * word));
    for (int64_t i = 0; i < out->sums && out->n > 0; i++)
        memcpy(own + i * out->n * word, first + i * whole * word, (size_t)(out->n * word));
    out->data = out->own = own;
    return true;
}

// ---- comparing

typedef struct sums {
    double difference, golden; // of squares
    int64_t worst;             // element; -1: none yet
} sums;

static void see(kt_verdict *v, sums *s, int64_t i, double got, double wanted) {
    double difference = fabs(got - wanted);
    bool finite = fabs(got) <= DBL_MAX && fabs(wanted) <= DBL_MAX; // not so for NaN
    if (got != wanted) v->n_different++;
    if (!finite) v->n_not_finite++;
    bool worse = finite ? v->n_not_finite == 0 && (s->worst < 0 || difference > v->largest)
                        : v->n_not_finite == 1;
    if (worse) {
        s->worst = i;
        v->got = got;
        v->wanted = wanted;
        v->largest = difference;
    }
    if (!finite) return;
    s->difference += difference * difference;
    s->golden += wanted * wanted;
}

static void place(
    const kt_golden_stage *stage, const kt_verdict *v, int64_t element, int64_t *out) {
    for (int i = v->rank - 1; i >= 0; i--) {
        out[i] = element % v->shape[i];
        element /= v->shape[i];
    }
    if (v->rank > 0 && stage->to >= 0) out[0] += stage->from;
}

// Elements `first` to `first + n` of what the run made, its partial sums added.
static void run_numbers(const pair *p, int64_t first, int64_t n, double *out, double *tmp) {
    int64_t word = kt_dtype_bytes(p->x.dtype);
    kt_npy_to_f64(p->x.dtype, (const char *)p->x.data + first * word, n, out);
    for (int64_t s = 0; p->has_plus && s < p->plus.sums; s++) {
        int64_t at = (s * p->plus.n + first) * kt_dtype_bytes(p->plus.dtype);
        kt_npy_to_f64(p->plus.dtype, (const char *)p->plus.data + at, n, tmp);
        for (int64_t i = 0; i < n; i++) out[i] += tmp[i];
    }
}

static kt_status compare_numbers(
    const kt_golden_stage *stage, const kt_npy *npy, const pair *p, kt_verdict *v, kt_err *err) {
    double got[CHUNK], wanted[CHUNK];
    sums s = {0, 0, -1};
    for (int64_t first = 0; first < v->n; first += CHUNK) {
        int64_t n = v->n - first < CHUNK ? v->n - first : CHUNK;
        run_numbers(p, first, n, got, wanted);
        KT_TRY(kt_npy_read_f64(npy, first, n, wanted, err));
        for (int64_t i = 0; i < n; i++) see(v, &s, first + i, got[i], wanted[i]);
    }
    if (s.worst >= 0) place(stage, v, s.worst, v->worst);
    double size = sqrt(s.golden), difference = sqrt(s.difference);
    v->relative = size > 0 ? difference / size : difference > 0 ? HUGE_VAL : 0;
    v->compared = true;
    bool near = stage->exact ? v->n_different == 0 : v->relative <= stage->relative;
    v->passed = near && v->n_not_finite == 0;
    return KT_OK;
}

static bool same_shape(int rank, const int64_t *shape, const kt_npy_head *head) {
    if (rank != head->rank) return false;
    return rank == 0 || memcmp(shape, head->shape, sizeof *shape * (size_t)rank) == 0;
}

static kt_status compare(kt_verify *verify, int index, const pair *p, kt_err *err) {
    const kt_golden_stage *stage = &verify->golden->stages[index];
    kt_verdict *v = &verify->verdicts[index];
    *v = (kt_verdict){.rank = p->x.rank, .n = p->x.n};
    memcpy(v->shape, p->x.shape, sizeof v->shape);
    if (p->has_plus && (p->plus.rank != p->x.rank || p->plus.n != p->x.n)) {
        v->problem = kt_arena_printf(verify->arena, "its 'plus' is partial sums of %s",
            shape_text(verify->arena, p->plus.rank, p->plus.shape));
        return KT_OK;
    }
    kt_npy npy;
    KT_TRY(kt_npy_open(stage->path, &npy, err));
    kt_status status = KT_OK;
    if (same_shape(v->rank, v->shape, &npy.head))
        status = compare_numbers(stage, &npy, p, v, err);
    else
        v->problem = kt_arena_printf(verify->arena, "the golden has the shape %s",
            shape_text(verify->arena, npy.head.rank, npy.head.shape));
    kt_npy_close(&npy);
    return status;
}

// ---- taking

static bool is_mine(const kt_golden_stage *s, kt_str address, const kt_dump_tensor *t) {
    return kt_str_eq(address, t->address) && s->batch == (t->index < 0 ? 0 : t->index);
}

static kt_status take_for(
    kt_verify *verify, int index, const kt_dump_tensor *t, bool is_plus, kt_err *err) {
    const kt_golden_stage *stage = &verify->golden->stages[index];
    pair *p = &verify->pairs[index];
    held *to = is_plus ? &p->plus : &p->x;
    bool waits = stage->plus.n > 0 && !(is_plus ? p->has_x : p->has_plus);
    release(to);
    if (!cut(stage, t, is_plus, waits, to)) {
        verify->verdicts[index].problem =
            kt_arena_printf(verify->arena, "'%.*s' has the shape %s, too few rows",
                KT_STR_ARG(t->address), shape_text(verify->arena, t->rank, t->shape));
        return KT_OK;
    }
    *(is_plus ? &p->has_plus : &p->has_x) = true;
    if (waits) return KT_OK;
    kt_status status = compare(verify, index, p, err);
    release(&p->x);
    release(&p->plus);
    p->has_x = p->has_plus = false;
    return status;
}

static kt_status take(void *ctx, const kt_dump_tensor *t, kt_err *err) {
    kt_verify *verify = ctx;
    for (int i = 0; i < verify->golden->n_stages; i++) {
        const kt_golden_stage *s = &verify->golden->stages[i];
        if (is_mine(s, s->address, t)) KT_TRY(take_for(verify, i, t, false, err));
        if (s->plus.n > 0 && is_mine(s, s->plus, t)) KT_TRY(take_for(verify, i, t, true, err));
    }
    return KT_OK;
}

kt_verify *kt_verify_new(kt_arena *arena, const kt_golden *golden) {
    kt_verify *v = KT_NEW(arena, kt_verify);
    v->arena = arena;
    v->golden = golden;
    v->verdicts = KT_NEW_ARRAY(arena, kt_verdict, golden->n_stages);
    v->pairs = KT_NEW_ARRAY(arena, pair, golden->n_stages);
    v->to = (kt_dump_to){v, take};
    for (int i = 0; i < golden->n_stages; i++) v->verdicts[i].problem = "the run never made it";
    return v;
}

void kt_verify_close(kt_verify *verify) {
    for (int i = 0; verify && i < verify->golden->n_stages; i++) {
        release(&verify->pairs[i].x);
        release(&verify->pairs[i].plus);
    }
}

const kt_dump_to *kt_verify_to(const kt_verify *verify) {
    return &verify->to;
}

const kt_verdict *kt_verify_verdicts(const kt_verify *verify) {
    return verify->verdicts;
}

bool kt_verify_passed(const kt_verify *verify) {
    for (int i = 0; i < verify->golden->n_stages; i++)
        if (!verify->verdicts[i].passed) return false;
    return true;
}
