// Which tests an op gets: the cases of its manifest times choices, members that are empty, and
// sizes of every dim. In QUICK the tests share their kernels: what changes the values of plan dims
// and inputs takes the build dims and choices of a test that is there anyhow.
#include "runtime/exec/op_check_parts.h"

#include <inttypes.h>
#include <string.h>

enum {
    FULL_MAX = 64,  // combinations of choices of one case and variant
    QUICK_MAX = 64, // combinations of types and storages of one variant
    KERNELS_MAX = 6,
    FULL_SAMPLES = 6, // of build dims, a variant
    FULL_SMALLEST = 3,
    SAMPLE_TRIES = 64,
    SAMPLE_DIM_MAX = 1024,
    DIMS_MAX = 256
};

// How many choices each axis has: type variables, choice parameters, optional inputs, storage.
enum { AXES_MAX = 24, OPTIONAL_ALL = 0, OPTIONAL_NONE = 1 };
typedef struct axes {
    int n, sizes[AXES_MAX];
    bool major[AXES_MAX]; // each combination of these, in QUICK too: types and storages
    int optional, store;  // the axes of optional inputs and of storages; -1: there are none
} axes;

// Dims and choices that a test has: others of the same need no kernel that is not there.
typedef struct row {
    const int64_t *dims;
    int chosen[AXES_MAX];
} row;

typedef struct lister {
    kt_arena *arena;
    const kt_check_request *request;
    const kt_op *op;
    const kt_variant *variant;
    kt_random random;
    kt_check_list *out;
    axes axes;
    KT_VEC(row) rows; // of the variant
    size_t next_row;
    int dim; // of the tests that are listed now
    kt_check_form form;
    bool sampled;
} lister;

static bool is_body(const lister *l) {
    return l->request->cuda && !l->variant;
}

static bool is_quick(const lister *l) {
    return l->request->effort == KT_CHECK_QUICK;
}

// ---- choices

static void add_axis(axes *a, int size, bool major) {
    KT_ASSERT(a->n < AXES_MAX);
    a->major[a->n] = major;
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
    axes a = {.optional = -1, .store = -1};
    int optional, linear;
    count_ports(op, &optional, &linear);
    for (int i = 0; i < op->n_typevars; i++) add_axis(&a, op->typevars[i].n_choices, true);
    for (int i = 0; i < op->n_params; i++)
        if (op->params[i].kind == KT_PARAM_CHOICE)
            add_axis(&a, (int)op->params[i].n_choices, false);
    if (optional > 0) a.optional = a.n;
    if (optional > 0) add_axis(&a, optional > 1 ? 3 : 2, false); // all, none, some
    if (linear > 0) a.store = a.n;
    if (linear > 0) add_axis(&a, KT_STORE_COUNT + (linear > 1), true); // each, a mixture
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

// `store`: of all linear ports; or KT_STORE_COUNT + n: a mixture of them, from the n-th on.
static void choose_ports(lister *l, kt_check_case *c, int optional, int store) {
    enum { STRIDE = 7 }; // has no factor in common with KT_STORE_COUNT
    for (int i = 0; i < l->op->n_ports; i++) {
        bool may_miss = l->op->ports[i].type.optional;
        bool some = kt_random_pick(&l->random, 0, 1) == 1;
        c->present[i] = !may_miss || optional == OPTIONAL_ALL || (optional > OPTIONAL_NONE && some);
        c->stores[i] = (kt_check_store)(store % KT_STORE_COUNT);
        bool linear = l->op->ports[i].type.base == KT_BASE_LINEAR;
        if (linear && store >= KT_STORE_COUNT) store += STRIDE;
    }
}

static void push(lister *l, const int64_t *dims, const int *chosen) {
    const kt_op *op = l->op;
    kt_check_case c = {
        .op = op, .variant = l->variant, .sampled = l->sampled, .dim = l->dim, .form = l->form};
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

static void push_row(lister *l, const int64_t *dims, const int *chosen) {
    row r = {.dims = dims};
    memcpy(r.chosen, chosen, sizeof r.chosen);
    KT_PUSH(l->arena, &l->rows, r);
    push(l, dims, chosen);
}

// A mixture of storages begins anywhere.
static void begin_mixture(lister *l, int *chosen) {
    if (l->axes.store >= 0 && chosen[l->axes.store] == KT_STORE_COUNT)
        chosen[l->axes.store] += (int)kt_random_pick(&l->random, 0, KT_STORE_COUNT - 1);
}

static void choose_any(lister *l, int *chosen) {
    for (int i = 0; i < l->axes.n; i++)
        chosen[i] = (int)kt_random_pick(&l->random, 0, l->axes.sizes[i] - 1);
    begin_mixture(l, chosen);
}

// ---- combinations of choices

// The k-th combination of the axes: all of `all`'s, the others in turn.
static void choose(const axes *a, const bool *all, const int64_t *start, int k, int *chosen) {
    int rest = k;
    for (int i = 0; i < a->n; i++) {
        int round = k / a->sizes[i]; // a new start each round, so that axes of equal size part
        int64_t turn = start[i] + k + (int64_t)(i + 1) * round;
        chosen[i] = all[i] ? (int)((start[i] + rest) % a->sizes[i]) : (int)(turn % a->sizes[i]);
        if (all[i]) rest /= a->sizes[i];
    }
}

// How many combinations of the axes in `all`; above `most`: how many there must be to have each
// choice of each axis once, and `all` becomes empty.
static int count_choices(const axes *a, bool *all, int most) {
    int product = 1, widest = 1;
    for (int i = 0; i < a->n; i++) {
        if (all[i] && product <= most) product *= a->sizes[i];
        if (a->sizes[i] > widest) widest = a->sizes[i];
    }
    if (product > most) memset(all, 0, AXES_MAX * sizeof *all);
    if (product > most) return most > widest ? most : widest;
    return product > widest ? product : widest;
}

static void draw_start(lister *l, int64_t *start) {
    for (int i = 0; i < l->axes.n; i++)
        start[i] = kt_random_pick(&l->random, 0, l->axes.sizes[i] - 1);
}

// One case with all combinations, or so many that each choice of each axis comes up about equally
// often.
static void push_all(lister *l, const int64_t *dims) {
    int64_t start[AXES_MAX] = {0};
    bool all[AXES_MAX];
    int chosen[AXES_MAX] = {0};
    memset(all, true, sizeof all);
    int most = l->request->effort == KT_CHECK_FULL ? FULL_MAX : KERNELS_MAX;
    int n = count_choices(&l->axes, all, most);
    draw_start(l, start);
    for (int k = 0; k < n; k++) {
        choose(&l->axes, all, start, k, chosen);
        begin_mixture(l, chosen);
        push_row(l, dims, chosen);
    }
}

// Does every linear input get the storage that is asked for?
static bool stores_fit(const lister *l, const int64_t *dims, const int *chosen) {
    if (l->axes.store < 0 || chosen[l->axes.store] >= KT_STORE_COUNT) return true;
    kt_check_store store = (kt_check_store)chosen[l->axes.store];
    for (int i = 0; i < l->op->n_ports; i++) {
        const kt_type *type = &l->op->ports[i].type;
        kt_value k;
        if (type->base != KT_BASE_LINEAR) continue;
        if (!kt_check_value(l->op, type->axis[1], dims, NULL, &k)) return false;
        if (kt_check_store_fits(store, k.i) != store) return false;
    }
    return true;
}

typedef struct case_list {
    KT_VEC(const int64_t *) at;
} case_list;

// Each combination of types and storages in one of the cases, each case at least once.
static void push_spread(lister *l, const case_list *cases) {
    int64_t start[AXES_MAX] = {0};
    bool all[AXES_MAX];
    int chosen[AXES_MAX] = {0}, n_cases = (int)cases->at.n;
    memcpy(all, l->axes.major, sizeof all);
    int n = count_choices(&l->axes, all, QUICK_MAX);
    if (n < n_cases) n = n_cases;
    draw_start(l, start);
    for (int k = 0; k < n; k++) {
        choose(&l->axes, all, start, k, chosen);
        begin_mixture(l, chosen);
        for (int i = 0; i < n_cases; i++) {
            const int64_t *dims = cases->at.at[(k + i) % n_cases];
            if (!stores_fit(l, dims, chosen)) continue;
            push_row(l, dims, chosen);
            break;
        }
    }
}

// A body is other ops, which are tested with every storage: a mixture shows each of them once.
static void push_mixtures(lister *l, const case_list *cases) {
    int64_t start[AXES_MAX] = {0};
    bool all[AXES_MAX] = {false};
    int chosen[AXES_MAX] = {0}, n_cases = (int)cases->at.n, optional, linear;
    count_ports(l->op, &optional, &linear);
    axes a = l->axes;
    if (a.store >= 0) a.sizes[a.store] = 1;
    int n = count_choices(&a, all, 1);
    if (linear > 0 && n < (KT_STORE_COUNT + linear - 1) / linear)
        n = (KT_STORE_COUNT + linear - 1) / linear;
    if (n < n_cases) n = n_cases;
    draw_start(l, start);
    int64_t first = kt_random_pick(&l->random, 0, KT_STORE_COUNT - 1);
    for (int k = 0; k < n; k++) {
        choose(&a, all, start, k, chosen);
        if (a.store >= 0) // 7: the stride of choose_ports
            chosen[a.store] =
                KT_STORE_COUNT + (int)((first + (int64_t)7 * k * linear) % KT_STORE_COUNT);
        push_row(l, cases->at.at[k % n_cases], chosen);
    }
}

// ---- sizes

static const int64_t *case_dims(lister *l, const kt_op_case *from) {
    int64_t *dims = KT_NEW_ARRAY(l->arena, int64_t, l->op->n_dims);
    for (int i = 0; i < l->op->n_dims; i++) dims[i] = from->dims[i].i;
    return dims;
}

static bool fits(const lister *l, const int64_t *dims) {
    return !l->variant || kt_check_holds(l->op, l->variant->when, dims, l->variant);
}

static kt_check_search search_of(const lister *l) {
    return (kt_check_search){
        .arena = l->arena, .op = l->op, .variant = l->variant, .registry = l->request->registry};
}

// Does the row have the input that gives the dim its size?
static bool has_dim(const lister *l, const row *r, int dim) {
    int port = l->op->dims[dim].solved_by;
    if (port < 0 || !l->op->ports[port].type.optional) return true;
    return r->chosen[l->axes.optional] == OPTIONAL_ALL;
}

// With the size in the sizes and choices of one of the rows.
static bool push_size(lister *l, int dim, int64_t size) {
    int64_t dims[DIMS_MAX];
    kt_check_search search = search_of(l);
    for (size_t i = 0; i < l->rows.n; i++) {
        const row *r = &l->rows.at[l->next_row++ % l->rows.n];
        if (!has_dim(l, r, dim) || !kt_check_set(&search, r->dims, dim, size, dims)) continue;
        l->dim = dim;
        push(l, dims, r->chosen);
        l->dim = -1;
        return true;
    }
    return false;
}

// Sizes of a dim at the row's other sizes. A body has no tiles of its own: one of those of all
// kernels will do, in QUICK.
static kt_check_sizes sizes_of(lister *l, const kt_check_search *search, const row *r, int dim) {
    kt_check_sizes out = {0}, tiles = {0};
    if (!is_quick(l) || !is_body(l)) {
        kt_check_sizes_of(search, r->dims, dim, &out);
        return out;
    }
    int64_t dims[DIMS_MAX];
    int64_t first = l->op->dims[dim].binding == KT_BINDING_PLAN ? 0 : 1;
    for (int64_t size = first; size <= 1; size++)
        if (kt_check_set(search, r->dims, dim, size, dims)) KT_PUSH(l->arena, &out.at, size);
    kt_check_tiles_of(search, r->dims, dim, &tiles);
    int64_t which = kt_random_pick(&l->random, 0, (int64_t)tiles.at.n - 1);
    kt_check_around(search, r->dims, dim, tiles.at.at[which], &out);
    return out;
}

static void push_plan_sizes(lister *l) {
    kt_check_search search = search_of(l);
    for (int d = 0; d < l->op->n_dims; d++) {
        if (l->op->dims[d].binding != KT_BINDING_PLAN) continue;
        kt_check_sizes sizes = sizes_of(l, &search, &l->rows.at[0], d);
        for (size_t i = 0; i < sizes.at.n; i++) (void)push_size(l, d, sizes.at.at[i]);
    }
}

// The smallest sizes of all dims; and of build dims alone, with kernels that are the same.
static void push_smallest(lister *l) {
    const row *r = &l->rows.at[(size_t)kt_random_pick(&l->random, 0, (int64_t)l->rows.n - 1)];
    kt_check_search search = search_of(l);
    int64_t least[DIMS_MAX], dims[DIMS_MAX];
    int chosen[AXES_MAX] = {0};
    kt_check_smallest(&search, r->dims, least);
    bool small = false;
    for (int i = 0; i < l->op->n_dims; i++) {
        bool build = l->op->dims[i].binding == KT_BINDING_BUILD;
        dims[i] = build ? least[i] : r->dims[i];
        small = small || (build && dims[i] != r->dims[i]);
    }
    for (int k = 0; k < (is_quick(l) || !small ? 1 : FULL_SMALLEST); k++) {
        if (small)
            choose_any(l, chosen);
        else
            memcpy(chosen, r->chosen, sizeof chosen);
        push(l, least, chosen);
        if (small && kt_check_repair(l->arena, l->op, dims) && fits(l, dims)) push(l, dims, chosen);
    }
}

// Build dims around tiles: all of them, or one.
static void push_build_sizes(lister *l) {
    int chosen[AXES_MAX] = {0}, n = 0, which[DIMS_MAX];
    const row *r = &l->rows.at[(size_t)kt_random_pick(&l->random, 0, (int64_t)l->rows.n - 1)];
    kt_check_search search = search_of(l);
    for (int d = 0; d < l->op->n_dims; d++)
        if (l->op->dims[d].binding == KT_BINDING_BUILD) which[n++] = d;
    int only = is_quick(l) ? which[kt_random_pick(&l->random, 0, n - 1)] : -1;
    for (int i = 0; i < n; i++) {
        if (only >= 0 && which[i] != only) continue;
        kt_check_sizes sizes = sizes_of(l, &search, r, which[i]);
        int64_t one = kt_random_pick(&l->random, 0, (int64_t)sizes.at.n - 1);
        for (size_t k = 0; k < sizes.at.n; k++) {
            int64_t dims[DIMS_MAX];
            if (only >= 0 && (int64_t)k != one) continue;
            if (!kt_check_set(&search, r->dims, which[i], sizes.at.at[k], dims)) continue;
            choose_any(l, chosen);
            l->dim = which[i];
            push(l, dims, chosen);
            l->dim = -1;
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

static void push_sample(lister *l, const int64_t *base) {
    int64_t dims[DIMS_MAX];
    int chosen[AXES_MAX] = {0};
    for (int t = 0; t < SAMPLE_TRIES; t++) {
        bool changed = false;
        for (int i = 0; i < l->op->n_dims; i++) {
            bool build = l->op->dims[i].binding == KT_BINDING_BUILD;
            bool change = build && kt_random_pick(&l->random, 0, 1) == 1;
            dims[i] = change ? sample_dim(l, base[i]) : base[i];
            changed = changed || dims[i] != base[i];
        }
        if (!changed || !kt_check_repair(l->arena, l->op, dims) || !fits(l, dims)) continue;
        if (!kt_check_body_holds(l->request->registry, l->op, dims)) continue;
        choose_any(l, chosen);
        push(l, dims, chosen);
        return;
    }
}

// ---- forms

const char *kt_check_form_name(kt_check_form form) {
    static const char *const names[KT_FORM_COUNT] = {
        "any", "empty at first", "empty in the middle", "empty at last", "shared pages"};
    return names[form];
}

// So many members that first, middle and last are three, and rows for more of them than one; sizes
// that are larger stay.
static void push_form(lister *l, kt_check_form form) {
    static const struct {
        const char *dim;
        int64_t least;
    } wanted[] = {{"g", 4}, {"views", 4}, {"rows", 2}, {"width", 4}, {"pages", 12}, {"n", 9},
        {"nq", 9}, {"nk", 9}};
    kt_check_search search = search_of(l);
    const row *r = &l->rows.at[l->next_row++ % l->rows.n];
    int64_t dims[DIMS_MAX], with[DIMS_MAX];
    size_t bytes = sizeof *dims * (size_t)l->op->n_dims;
    memcpy(dims, r->dims, bytes);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        int dim = kt_op_dim_find(l->op, kt_str_from(wanted[i].dim));
        if (dim < 0 || dims[dim] >= wanted[i].least) continue;
        if (kt_check_set(&search, dims, dim, wanted[i].least, with)) memcpy(dims, with, bytes);
    }
    l->form = form;
    push(l, dims, r->chosen);
    l->form = KT_FORM_ANY;
}

static void push_forms(lister *l) {
    bool ragged = kt_check_uses(l->op, "ragged") || kt_check_uses(l->op, "offsets") ||
                  kt_check_uses(l->op, "views");
    for (int form = KT_FORM_EMPTY_FIRST; ragged && form <= KT_FORM_EMPTY_LAST; form++)
        push_form(l, (kt_check_form)form);
    if (kt_check_uses(l->op, "pages")) push_form(l, KT_FORM_SHARED);
}

// ---- the list

static bool has_build_dims(const kt_op *op) {
    for (int i = 0; i < op->n_dims; i++)
        if (op->dims[i].binding == KT_BINDING_BUILD) return true;
    return false;
}

static void list_rows(lister *l, const case_list *cases) {
    for (size_t i = 0; !is_quick(l) && i < cases->at.n; i++) push_all(l, cases->at.at[i]);
    if (!is_quick(l)) return;
    if (is_body(l))
        push_mixtures(l, cases);
    else
        push_spread(l, cases);
}

static void list_variant(lister *l, const kt_variant *variant) {
    case_list cases = {0};
    l->variant = variant;
    l->sampled = false;
    l->next_row = 0;
    memset(&l->rows, 0, sizeof l->rows);
    for (int i = 0; i < l->op->n_cases; i++) {
        const int64_t *dims = case_dims(l, &l->op->cases[i]);
        if (fits(l, dims)) KT_PUSH(l->arena, &cases.at, dims);
    }
    if (cases.at.n == 0) return;
    list_rows(l, &cases);
    if (l->request->effort == KT_CHECK_KERNELS || l->rows.n == 0) return;
    l->sampled = true;
    push_forms(l);
    push_plan_sizes(l);
    push_smallest(l);
    if (!has_build_dims(l->op)) return;
    push_build_sizes(l);
    int samples = is_quick(l) ? !is_body(l) : FULL_SAMPLES;
    for (int i = 0; i < samples; i++) push_sample(l, cases.at.at[0]);
}

void kt_check_cases(kt_arena *arena, const kt_check_request *request, kt_check_list *out) {
    const kt_op *op = request->op;
    lister l = {.arena = arena,
        .request = request,
        .op = op,
        .random = {kt_random_mix(request->seed, kt_str_hash(op->name))},
        .out = out,
        .axes = choices(op),
        .dim = -1};
    KT_ASSERT(op->n_dims <= DIMS_MAX);
    bool body = op->n_body > 0 && request->effort > KT_CHECK_KERNELS;
    if (!request->cuda || body) list_variant(&l, NULL);
    for (int i = 0; request->cuda && i < op->n_variants; i++) list_variant(&l, &op->variants[i]);
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
    if (c->form != KT_FORM_ANY) kt_buf_printf(out, ", %s", kt_check_form_name(c->form));
    for (int i = 0; i < op->n_ports; i++) {
        kt_str name = op->ports[i].name;
        if (!c->present[i]) kt_buf_printf(out, ", no %.*s", KT_STR_ARG(name));
        if (c->present[i] && op->ports[i].type.base == KT_BASE_LINEAR)
            kt_buf_printf(out, ", %.*s in %s", KT_STR_ARG(name), kt_check_store_name(c->stores[i]));
    }
}
