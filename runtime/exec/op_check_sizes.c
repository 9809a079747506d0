// Which sizes a dim is tried at: around the tiles of kernels, and the smallest that are admitted.
#include "runtime/exec/op_check_parts.h"

#include <string.h>

enum {
    DIMS_MAX = 256,
    STEP_MAX = 4096, // how far a dim grows to find where a launch changes
    NEAR = 128,      // how far from a tile an admitted size is looked for
    ROUNDS = 4
};

// Tiles that no launch shows: mma's 8 and 16, a warp's lanes, keys and columns taken at once.
static const int64_t tiles[] = {8, 16, 32, 64, 128};
enum { N_TILES = sizeof tiles / sizeof tiles[0] };

// ---- setting one dim

typedef enum along { ALONE, EQUAL, IN_PROPORTION, ALONG_COUNT } along;

static int64_t follow(
    const kt_check_search *s, const int64_t *base, int dim, int64_t size, int i, along how) {
    const kt_op_dim *dims = s->op->dims;
    bool same = dims[i].binding == dims[dim].binding;
    bool plan = dims[dim].binding == KT_BINDING_PLAN;
    if (how == EQUAL && same && plan && base[i] == base[dim]) return size;
    bool multiple = base[dim] > 0 && base[i] % base[dim] == 0 && size <= 2 * base[dim];
    if (how == IN_PROPORTION && same && !plan && multiple) return base[i] / base[dim] * size;
    return base[i];
}

bool kt_check_set(
    const kt_check_search *s, const int64_t *base, int dim, int64_t size, int64_t *dims) {
    for (int how = ALONE; how < ALONG_COUNT; how++) {
        for (int i = 0; i < s->op->n_dims; i++)
            dims[i] = i == dim ? size : follow(s, base, dim, size, i, (along)how);
        if (!kt_check_repair(s->arena, s->op, dims) || dims[dim] != size) continue;
        if (s->variant && !kt_check_holds(s->op, s->variant->when, dims, s->variant)) continue;
        if (kt_check_body_holds(s->registry, s->op, dims)) return true;
    }
    return false;
}

// ---- tiles

static void add_size(kt_arena *arena, kt_check_sizes *to, int64_t size) {
    for (size_t i = 0; i < to->at.n; i++)
        if (to->at.at[i] == size) return;
    KT_PUSH(arena, &to->at, size);
    for (size_t i = to->at.n - 1; i > 0 && to->at.at[i - 1] > size; i--) {
        to->at.at[i] = to->at.at[i - 1];
        to->at.at[i - 1] = size;
    }
}

typedef struct probe {
    const kt_check_search *search;
    const int64_t *base;
    int dim;
    const kt_expr *expr;
} probe;

static bool probe_at(const probe *p, int64_t size, kt_value *out) {
    int64_t dims[DIMS_MAX];
    memcpy(dims, p->base, sizeof *dims * (size_t)p->search->op->n_dims);
    dims[p->dim] = size;
    (void)kt_check_repair(p->search->arena, p->search->op, dims); // a grid of dims that follow
    return kt_check_value(p->search->op, p->expr, dims, p->search->variant, out);
}

// The last size before the expression first changes as the dim grows from 1; 0: it does not. Once
// changed it stays so.
static int64_t step_of(
    const kt_check_search *s, const int64_t *base, int dim, const kt_expr *expr) {
    probe p = {s, base, dim, expr};
    kt_value first, value;
    int64_t same = 1, other = 2;
    if (!expr || !probe_at(&p, 1, &first)) return 0;
    for (;; other *= 2) {
        if (other > STEP_MAX || !probe_at(&p, other, &value)) return 0;
        if (value.r != first.r) break;
        same = other;
    }
    while (other - same > 1) {
        int64_t middle = (same + other) / 2;
        if (!probe_at(&p, middle, &value)) return 0;
        *(value.r == first.r ? &same : &other) = middle;
    }
    return same;
}

void kt_check_tiles_of(
    const kt_check_search *s, const int64_t *base, int dim, kt_check_sizes *out) {
    for (int i = 0; i < N_TILES; i++) add_size(s->arena, out, tiles[i]);
    if (!s->variant) return;
    int64_t step = step_of(s, base, dim, s->variant->when);
    if (step > 0) add_size(s->arena, out, step);
    for (int i = 0; i < s->variant->n_launches; i++)
        for (int axis = 0; axis < 3; axis++) {
            step = step_of(s, base, dim, s->variant->launches[i].grid[axis]);
            if (step > 0) add_size(s->arena, out, step);
        }
}

// The admitted size that is nearest to `from` on one side of it; -1: none is near.
static int64_t nearest(const kt_check_search *s, const int64_t *base, int dim, int64_t from,
    int direction, int64_t *dims) {
    for (int64_t size = from; size > 0 && size - from < NEAR && from - size < NEAR;
         size += direction)
        if (kt_check_set(s, base, dim, size, dims)) return size;
    return -1;
}

void kt_check_around(
    const kt_check_search *s, const int64_t *base, int dim, int64_t tile, kt_check_sizes *out) {
    int64_t dims[DIMS_MAX];
    int64_t below = nearest(s, base, dim, tile - 1, -1, dims);
    int64_t at = nearest(s, base, dim, tile, 1, dims);
    int64_t above = at > 0 ? nearest(s, base, dim, at + 1, 1, dims) : -1;
    if (below > 0) add_size(s->arena, out, below);
    if (at > 0) add_size(s->arena, out, at);
    if (above > 0) add_size(s->arena, out, above);
}

void kt_check_sizes_of(
    const kt_check_search *s, const int64_t *base, int dim, kt_check_sizes *out) {
    int64_t dims[DIMS_MAX];
    kt_check_sizes around = {0};
    int64_t first = s->op->dims[dim].binding == KT_BINDING_PLAN ? 0 : 1;
    for (int64_t size = first; size <= 1; size++)
        if (kt_check_set(s, base, dim, size, dims)) add_size(s->arena, out, size);
    kt_check_tiles_of(s, base, dim, &around);
    for (size_t i = 0; i < around.at.n; i++) kt_check_around(s, base, dim, around.at.at[i], out);
}

// ---- the smallest

static bool lower(const kt_check_search *s, int dim, int64_t *dims) {
    int64_t with[DIMS_MAX];
    for (int64_t size = 1; size < dims[dim]; size++) {
        if (!kt_check_set(s, dims, dim, size, with)) continue;
        memcpy(dims, with, sizeof *dims * (size_t)s->op->n_dims);
        return true;
    }
    return false;
}

void kt_check_smallest(const kt_check_search *s, const int64_t *base, int64_t *dims) {
    memcpy(dims, base, sizeof *dims * (size_t)s->op->n_dims);
    for (int round = 0; round < ROUNDS; round++) {
        bool changed = false;
        for (int i = 0; i < s->op->n_dims; i++) changed = lower(s, i, dims) || changed;
        if (!changed) return;
    }
}
