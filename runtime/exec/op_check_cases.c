// Which tests an op gets: the cases of its manifest times all choices, awkward sizes of plan dims,
// and sampled build dims.
#include "runtime/exec/op_check_parts.h"

#include <inttypes.h>
#include <string.h>

enum {
    FULL_MAX = 64, // combinations of choices of one case and variant
    QUICK_MAX = 6,
    FULL_SAMPLES = 6, // of build dims, a variant
    QUICK_SAMPLES = 2,
    SAMPLE_TRIES = 64,
    SAMPLE_DIM_MAX = 1024
};

// Neighbours of the tiles that kernels are made of.
static const int64_t near_tiles[] = {0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129};
enum { N_SIZES = sizeof near_tiles / sizeof near_tiles[0] };

typedef struct lister {
    kt_arena *arena;
    const kt_op *op;
    bool cuda;
    kt_check_effort effort;
    kt_random random;
    kt_check_list *out;
} lister;

// ---- choices

// How many choices each axis has: type variables, choice parameters, optional inputs, storage.
enum { AXES_MAX = 24, OPTIONAL_ALL = 0, OPTIONAL_NONE = 1 };
typedef struct axes {
    int n, sizes[AXES_MAX];
} axes;

static void add_axis(axes *a, int size) {
    KT_ASSERT(a->n < AXES_MAX);
    a->sizes[a->n++] = size;
}

static void count_ports(const kt_op *op, int *optional, int *linear) {
    *optional = *linear = 0;
    for (int i = 0; i < op->n_ports; i++) {
        *optional += op->ports[i].type.optional;
        *linear += op->ports[i].type.base == KT_BASE_LINEAR;
    }
}

static axes choices(const kt_op *op) {
    axes a = {0};
    int optional, linear;
    count_ports(op, &optional, &linear);
    for (int i = 0; i < op->n_typevars; i++) add_axis(&a, op->typevars[i].n_choices);
    for (int i = 0; i < op->n_params; i++)
        if (op->params[i].kind == KT_PARAM_CHOICE) add_axis(&a, (int)op->params[i].n_choices);
    if (optional > 0) add_axis(&a, optional > 1 ? 3 : 2);        // all, none, some
    if (linear > 0) add_axis(&a, KT_STORE_COUNT + (linear > 1)); // each, a mixture
    return a;
}

static double number_near(lister *l, const kt_param *param, double usual, bool has_usual) {
    double x = has_usual ? usual * (0.5 + 1.5 * kt_random_unit(&l->random))
                         : 0.5 + kt_random_unit(&l->random);
    if (has_usual && kt_random_pick(&l->random, 0, 1)) x = usual;
    if (param->has_min && kt_random_pick(&l->random, 0, 5) == 0) x = param->min;
    if (param->has_min && x < param->min) x = param->min;
    if (param->has_max && x > param->max) x = param->max * kt_random_unit(&l->random);
    return x;
}

static kt_value number_of(lister *l, const kt_param *param) {
    kt_value usual = {0};
    bool has = param->default_value && kt_param_number(param, param->default_value, &usual);
    if (param->kind == KT_PARAM_BOOL) return kt_value_int(kt_random_pick(&l->random, 0, 1));
    if (param->kind == KT_PARAM_INT) {
        int64_t low = param->has_min ? (int64_t)param->min : 0;
        bool other = kt_random_pick(&l->random, 0, 1) == 1;
        return kt_value_int(other || !has ? low + kt_random_pick(&l->random, 0, 60) : usual.i);
    }
    double x = number_near(l, param, usual.r, has);
    return x == usual.r && has ? usual : kt_value_real(x);
}

static void choose_ports(lister *l, kt_check_case *c, int optional, int store) {
    for (int i = 0; i < l->op->n_ports; i++) {
        bool may_miss = l->op->ports[i].type.optional;
        bool some = kt_random_pick(&l->random, 0, 1) == 1;
        c->present[i] = !may_miss || optional == OPTIONAL_ALL || (optional > OPTIONAL_NONE && some);
        c->stores[i] = store < KT_STORE_COUNT
                           ? (kt_check_store)store
                           : (kt_check_store)kt_random_pick(&l->random, 0, KT_STORE_COUNT - 1);
    }
}

static void push(
    lister *l, const kt_variant *variant, const int64_t *dims, const int *chosen, bool sampled) {
    const kt_op *op = l->op;
    kt_check_case c = {.op = op, .variant = variant, .sampled = sampled};
    c.seed = kt_random_next(&l->random);
    c.dims = KT_NEW_ARRAY(l->arena, int64_t, op->n_dims);
    c.types = KT_NEW_ARRAY(l->arena, int, op->n_typevars);
    c.params = KT_NEW_ARRAY(l->arena, kt_value, op->n_params);
    c.present = KT_NEW_ARRAY(l->arena, bool, op->n_ports);
    c.stores = KT_NEW_ARRAY(l->arena, kt_check_store, op->n_ports);
    memcpy(c.dims, dims, sizeof *dims * (size_t)op->n_dims);
    int axis = 0, optional, linear;
    count_ports(op, &optional, &linear);
    for (int i = 0; i < op->n_typevars; i++) c.types[i] = chosen[axis++];
    for (int i = 0; i < op->n_params; i++)
        c.params[i] = op->params[i].kind == KT_PARAM_CHOICE ? kt_value_int(chosen[axis++])
                                                            : number_of(l, &op->params[i]);
    int which = optional > 0 ? chosen[axis++] : OPTIONAL_ALL;
    choose_ports(l, &c, which, linear > 0 ? chosen[axis] : 0);
    KT_PUSH(l->arena, &l->out->cases, c);
}

static void push_random(lister *l, const kt_variant *variant, const int64_t *dims) {
    axes a = choices(l->op);
    int chosen[AXES_MAX] = {0};
    for (int i = 0; i < a.n; i++) chosen[i] = (int)kt_random_pick(&l->random, 0, a.sizes[i] - 1);
    push(l, variant, dims, chosen, true);
}

// All combinations, or so many that each choice of each axis comes up about equally often.
static void push_all(lister *l, const kt_variant *variant, const int64_t *dims) {
    axes a = choices(l->op);
    int most = l->effort == KT_CHECK_FULL ? FULL_MAX : QUICK_MAX, chosen[AXES_MAX] = {0},
        product = 1, widest = 1;
    for (int i = 0; i < a.n; i++) {
        product = product > most ? product : product * a.sizes[i];
        if (a.sizes[i] > widest) widest = a.sizes[i];
    }
    if (most < widest) most = widest;
    bool all = product <= most;
    int64_t start[AXES_MAX] = {0};
    for (int i = 0; i < a.n; i++) start[i] = kt_random_pick(&l->random, 0, a.sizes[i] - 1);
    for (int k = 0; k < (all ? product : most); k++) {
        int rest = k;
        for (int i = 0; i < a.n; i++) {
            int round = k / a.sizes[i]; // a new start each round, so that axes of equal size part
            chosen[i] = all ? rest % a.sizes[i]
                            : (int)((start[i] + k + (int64_t)(i + 1) * round) % a.sizes[i]);
            rest /= a.sizes[i];
        }
        push(l, variant, dims, chosen, false);
    }
}

// ---- sizes

static const int64_t *case_dims(lister *l, const kt_op_case *from) {
    int64_t *dims = KT_NEW_ARRAY(l->arena, int64_t, l->op->n_dims);
    for (int i = 0; i < l->op->n_dims; i++) dims[i] = from->dims[i].i;
    return dims;
}

static bool fits(const lister *l, const kt_variant *variant, const int64_t *dims) {
    return !variant || kt_check_holds(l->op, variant->when, dims, variant);
}

// The dim alone; or, if the variant asks for it (n == g), with all plan dims of the same size.
static void push_size(
    lister *l, const kt_variant *variant, const int64_t *base, int dim, int64_t size) {
    int64_t dims[256];
    for (int together = 0; together < 2; together++) {
        for (int i = 0; i < l->op->n_dims; i++) {
            bool equal = base[i] == base[dim] && l->op->dims[i].binding == KT_BINDING_PLAN;
            dims[i] = i == dim || (together && equal) ? size : base[i];
        }
        if (!kt_check_repair(l->arena, l->op, dims) || !fits(l, variant, dims)) continue;
        push_random(l, variant, dims);
        return;
    }
}

static void push_sizes(lister *l, const kt_variant *variant, const int64_t *base) {
    for (int d = 0; d < l->op->n_dims; d++) {
        if (l->op->dims[d].binding != KT_BINDING_PLAN) continue;
        for (int i = 0; i < N_SIZES; i++) {
            bool small = near_tiles[i] <= 1;
            if (l->effort == KT_CHECK_QUICK && !small && kt_random_pick(&l->random, 0, 3) > 0)
                continue;
            push_size(l, variant, base, d, near_tiles[i]);
        }
    }
}

static int64_t sample_dim(lister *l, int64_t now) {
    static const int64_t steps[] = {1, 2, 4, 8, 16, 32, 64};
    int64_t step = steps[kt_random_pick(&l->random, 0, 6)], most = now + now / 2 + 8;
    if (most > SAMPLE_DIM_MAX) most = SAMPLE_DIM_MAX;
    if (step > most) step = 1;
    return step * kt_random_pick(&l->random, 1, most / step);
}

static void push_sample(lister *l, const kt_variant *variant, const int64_t *base) {
    int64_t dims[256];
    for (int t = 0; t < SAMPLE_TRIES; t++) {
        bool changed = false;
        for (int i = 0; i < l->op->n_dims; i++) {
            bool build = l->op->dims[i].binding == KT_BINDING_BUILD;
            bool change = build && kt_random_pick(&l->random, 0, 1) == 1;
            dims[i] = change ? sample_dim(l, base[i]) : base[i];
            changed = changed || dims[i] != base[i];
        }
        if (!changed || !kt_check_repair(l->arena, l->op, dims) || !fits(l, variant, dims))
            continue;
        push_random(l, variant, dims);
        return;
    }
}

static bool has_build_dims(const kt_op *op) {
    for (int i = 0; i < op->n_dims; i++)
        if (op->dims[i].binding == KT_BINDING_BUILD) return true;
    return false;
}

static void list_variant(lister *l, const kt_variant *variant) {
    const int64_t *base = NULL;
    for (int i = 0; i < l->op->n_cases; i++) {
        const int64_t *dims = case_dims(l, &l->op->cases[i]);
        if (!fits(l, variant, dims)) continue;
        push_all(l, variant, dims);
        if (!base) base = dims;
    }
    if (!base || l->effort == KT_CHECK_KERNELS) return;
    push_sizes(l, variant, base);
    int samples =
        has_build_dims(l->op) ? (l->effort == KT_CHECK_QUICK ? QUICK_SAMPLES : FULL_SAMPLES) : 0;
    for (int i = 0; i < samples; i++) push_sample(l, variant, base);
}

void kt_check_cases(kt_arena *arena, const kt_op *op, bool cuda, kt_check_effort effort,
    uint64_t seed, kt_check_list *out) {
    lister l = {arena, op, cuda, effort, {kt_random_mix(seed, kt_str_hash(op->name))}, out};
    KT_ASSERT(op->n_dims <= 256);
    if (!cuda || (op->n_body > 0 && effort > KT_CHECK_KERNELS)) list_variant(&l, NULL);
    for (int i = 0; cuda && i < op->n_variants; i++) list_variant(&l, &op->variants[i]);
}

void kt_check_describe(const kt_check_case *c, kt_buf *out) {
    const kt_op *op = c->op;
    kt_buf_str(out, op->name);
    if (c->variant)
        kt_buf_printf(out, "[%.*s]", KT_STR_ARG(c->variant->name));
    else if (op->n_body > 0)
        kt_buf_printf(out, "[body]");
    for (int i = 0; i < op->n_dims; i++)
        kt_buf_printf(
            out, "%s %.*s = %" PRId64, i ? "," : "", KT_STR_ARG(op->dims[i].name), c->dims[i]);
    for (int i = 0; i < op->n_typevars; i++)
        kt_buf_printf(out, ", %.*s = %s", KT_STR_ARG(op->typevars[i].name),
            kt_dtype_name(op->typevars[i].choices[c->types[i]]));
    for (int i = 0; i < op->n_params; i++) {
        const kt_param *param = &op->params[i];
        kt_buf_printf(out, ", %.*s = ", KT_STR_ARG(param->name));
        if (param->kind == KT_PARAM_CHOICE)
            kt_buf_str(out, param->choices[c->params[i].i]);
        else
            kt_buf_printf(out, "%g", c->params[i].r);
    }
    for (int i = 0; i < op->n_ports; i++) {
        kt_str name = op->ports[i].name;
        if (!c->present[i]) kt_buf_printf(out, ", no %.*s", KT_STR_ARG(name));
        if (c->present[i] && op->ports[i].type.base == KT_BASE_LINEAR)
            kt_buf_printf(out, ", %.*s in %s", KT_STR_ARG(name), kt_check_store_name(c->stores[i]));
    }
}
