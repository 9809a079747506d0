// The manifest's `check:`: tolerances, cases and generators; every case is held against the
// requirements, the types and the launch limits of sm_89.
#include "loader/op_read.h"

#include <inttypes.h>
#include <stdio.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const kt_key check_keys[] = {{"tolerance", true, KT_KEY_MAP}, {"cases", true, KT_KEY_LIST},
    {"reason", false, KT_KEY_SCALAR}}; // of a tolerance above the cap

// source: CUDA C++ Programming Guide, technical specifications of compute capability 8.9
enum {
    SM89_SHARED_BYTES = 99 * 1024,
    SM89_THREADS = 1024,
    SM89_BLOCK_Z = 64,
    SM89_GRID_YZ = 65535,
    SM89_SMS = 24, // the smallest card that the launches are meant for
    SM89 = 89
};

// ---- reading

// false if one is of an unknown type.
static bool read_tolerances(kt_op_reader *r, const kt_node *map) {
    kt_op_tolerance *tolerances = KT_NEW_ARRAY(r->arena, kt_op_tolerance, map->n);
    bool known_all = true;
    r->op->tolerances = tolerances;
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        kt_op_tolerance now = {.at = pair->at};
        if (!kt_dtype_find(pair->key, &now.dtype)) {
            kt_str known[KT_DTYPE_COUNT];
            for (int k = 0; k < KT_DTYPE_COUNT; k++)
                known[k] = kt_str_from(kt_dtype_name((kt_dtype)k));
            kt_diag_error(r->diag, KT_RULE_TYPE, pair->at, "'%.*s' is no element type",
                KT_STR_ARG(pair->key));
            kt_diag_near(r->diag, pair->key, known, KT_DTYPE_COUNT, true);
            known_all = false;
            continue;
        }
        if (!kt_schema_real(pair->value, "a tolerance", r->diag, &now.value)) continue;
        if (now.value < 0)
            kt_diag_error(r->diag, KT_RULE_VALUE, pair->value->at, "a tolerance is at least 0");
        tolerances[r->op->n_tolerances++] = now;
    }
    return known_all;
}

static bool has_tolerance(const kt_op *op, kt_dtype dtype) {
    for (int i = 0; i < op->n_tolerances; i++) {
        if (op->tolerances[i].dtype == dtype) return true;
    }
    return false;
}

static bool is_float(kt_dtype dtype) {
    return dtype == KT_DTYPE_F32 || dtype == KT_DTYPE_F16 || dtype == KT_DTYPE_BF16 ||
           dtype == KT_DTYPE_F8E4M3 || dtype == KT_DTYPE_F8E5M2;
}

static void want_tolerance(kt_op_reader *r, const kt_op_port *port, kt_dtype dtype, kt_place at) {
    if (!is_float(dtype) || has_tolerance(r->op, dtype)) return;
    kt_diag_error(
        r->diag, KT_RULE_KEY, at, "'tolerance' has no value for %s", kt_dtype_name(dtype));
    kt_diag_note_at(r->diag, port->at, "'%.*s' of that type is declared", KT_STR_ARG(port->name));
    kt_op_tolerance *more = KT_NEW_ARRAY(r->arena, kt_op_tolerance, r->op->n_tolerances + 1);
    for (int i = 0; i < r->op->n_tolerances; i++) more[i] = r->op->tolerances[i];
    more[r->op->n_tolerances++] = (kt_op_tolerance){.dtype = dtype, .at = at}; // said once
    r->op->tolerances = more;
}

// Floats that the op writes need a tolerance; integers are equal unless one is given.
static void check_tolerances(kt_op_reader *r, kt_place at) {
    for (int i = r->op->n_inputs; i < r->op->n_ports; i++) {
        const kt_op_port *port = &r->op->ports[i];
        if (port->type.base == KT_BASE_DTYPE && port->type.text.n > 0)
            want_tolerance(r, port, port->type.dtype, at);
        int var = port->type.base == KT_BASE_VAR ? kt_op_typevar_find(r->op, port->type.var) : -1;
        for (int k = 0; var >= 0 && k < r->op->typevars[var].n_choices; k++)
            want_tolerance(r, port, r->op->typevars[var].choices[k], at);
    }
}

static bool names_input(const kt_op *op, kt_str name) {
    for (int i = 0; i < op->n_inputs + op->n_inout; i++) {
        kt_str port = op->ports[i].name;
        bool group = port.n > name.n && kt_str_starts(port, name) && port.at[name.n] == '.';
        if (group || kt_str_eq(port, name)) return true;
    }
    return false;
}

static void unknown_generator(kt_op_reader *r, const kt_pair *pair) {
    const kt_op *op = r->op;
    kt_str *known = KT_NEW_ARRAY(r->arena, kt_str, (size_t)op->n_ports + 2);
    size_t n = 0;
    known[n++] = KT_STR("tolerance");
    known[n++] = KT_STR("cases");
    for (int i = 0; i < op->n_inputs + op->n_inout; i++) known[n++] = op->ports[i].name;
    kt_diag_error(r->diag, KT_RULE_KEY, pair->at, "'%.*s' in 'check' is no input of this op",
        KT_STR_ARG(pair->key));
    kt_diag_near(r->diag, pair->key, known, n, true);
    kt_diag_note(
        r->diag, "an input's key names what its test values are, such as segments: ragged");
}

static void read_generators(kt_op_reader *r, const kt_node *map) {
    kt_given *generators = KT_NEW_ARRAY(r->arena, kt_given, map->n);
    r->op->generators = generators;
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        if (kt_str_is(pair->key, "tolerance") || kt_str_is(pair->key, "cases")) continue;
        if (kt_str_is(pair->key, "reason")) {
            r->op->tolerance_reason = pair->value->text;
            continue;
        }
        kt_str word;
        if (!names_input(r->op, pair->key)) {
            unknown_generator(r, pair);
        } else if (kt_schema_name(pair->value, "a generator", r->diag, &word)) {
            generators[r->op->n_generators++] = (kt_given){{pair->key, pair->at}, pair->value};
        }
    }
}

// ---- cases

typedef struct case_env {
    const kt_op *op;
    const kt_value *dims;
    const kt_variant *variant; // NULL: no tune values
} case_env;

static bool find_value(const void *ctx, kt_str name, kt_value *out) {
    const case_env *env = ctx;
    int dim = kt_op_dim_find(env->op, name);
    if (dim >= 0) {
        *out = env->dims[dim];
        return true;
    }
    for (int i = 0; env->variant != NULL && i < env->variant->n_tunes; i++) {
        const kt_op_tune *tune = &env->variant->tunes[i];
        if (!kt_str_eq(name, tune->name) || tune->n_values == 0) continue;
        *out = kt_value_int(tune->values[0]);
        return true;
    }
    static const struct {
        const char *name;
        int64_t value;
    } device[] = {{"sm_count", SM89_SMS}, {"smem_max", SM89_SHARED_BYTES}, {"cc", SM89}};
    for (size_t i = 0; i < COUNT(device); i++) {
        if (!kt_str_is(name, device[i].name)) continue;
        *out = kt_value_int(device[i].value);
        return true;
    }
    return false;
}

static bool read_case_dim(kt_op_reader *r, const kt_pair *pair, kt_value *dims) {
    int dim = kt_op_dim_find(r->op, pair->key);
    if (dim < 0 && !r->dims_known) return false;
    if (dim < 0) {
        kt_op_names known = kt_op_known(r, NULL, false);
        kt_diag_error(r->diag, KT_RULE_NAME, pair->at,
            "a case sets '%.*s', which is no dim of this op", KT_STR_ARG(pair->key));
        kt_diag_near(r->diag, pair->key, known.at, known.n, true);
        return false;
    }
    int64_t value;
    if (!kt_schema_int(pair->value, "a dim of a case", r->diag, &value)) return false;
    if (value < 0 || value > INT32_MAX)
        return kt_diag_error(
            r->diag, KT_RULE_VALUE, pair->value->at, "a dim is at least 0 and fits in 32 bits");
    dims[dim] = kt_value_int(value);
    return true;
}

static bool read_case(kt_op_reader *r, const kt_node *map, kt_op_case *out) {
    kt_value *dims = KT_NEW_ARRAY(r->arena, kt_value, r->op->n_dims);
    *out = (kt_op_case){map->at, dims};
    if (map->kind != KT_NODE_MAP)
        return kt_diag_error(r->diag, KT_RULE_KEY, map->at,
            "a case is a map of dims such as { n: 4, d: 64 }, got %s", kt_node_kind_name(map));
    bool good = true;
    for (size_t i = 0; i < map->n; i++) good = read_case_dim(r, &map->pairs[i], dims) && good;
    for (int i = 0; i < r->op->n_dims; i++) {
        if (kt_node_find_str(map, r->op->dims[i].name) != NULL) continue;
        good = kt_diag_error(r->diag, KT_RULE_KEY, map->at, "a case leaves dim '%.*s' open",
            KT_STR_ARG(r->op->dims[i].name));
    }
    return good;
}

typedef struct value_list {
    const case_env *env;
    kt_buf *out;
} value_list;

static void add_value(kt_str name, kt_value value, kt_buf *out) {
    kt_buf_printf(out, "%s%.*s = %" PRId64, out->n > 0 ? ", " : "", KT_STR_ARG(name), value.i);
}

static void add_named_value(void *ctx, kt_str name, kt_place at) {
    const value_list *list = ctx;
    kt_value value;
    (void)at;
    if (find_value(list->env, name, &value)) add_value(name, value, list->out);
}

// A note with the values of all dims and tune values, and where the case is.
static void note_symbols(kt_op_reader *r, const case_env *env, kt_place at) {
    kt_buf out = {0};
    for (int i = 0; i < env->op->n_dims; i++) add_value(env->op->dims[i].name, env->dims[i], &out);
    for (int i = 0; env->variant != NULL && i < env->variant->n_tunes; i++) {
        kt_value value;
        if (find_value(env, env->variant->tunes[i].name, &value))
            add_value(env->variant->tunes[i].name, value, &out);
    }
    if (out.n > 0) kt_diag_note_at(r->diag, at, "%s in the case", out.at);
    kt_buf_deinit(&out);
}

static bool check_requirements(kt_op_reader *r, const kt_op_case *c, const kt_env *env) {
    bool good = true;
    for (int i = 0; i < r->op->n_require; i++) {
        const kt_expr *expr = r->op->require[i];
        kt_value value;
        if (!kt_expr_eval(expr, env, "a requirement", r->diag, &value)) {
            note_symbols(r, env->ctx, c->at);
            return false;
        }
        if (value.r != 0) continue;
        good = kt_diag_error(r->diag, KT_RULE_REQUIRE, c->at,
            "this case breaks the requirement '%.*s'", KT_STR_ARG(kt_expr_text(expr)));
        kt_buf out = {0};
        value_list list = {env->ctx, &out};
        kt_expr_names(expr, add_named_value, &list);
        if (out.n > 0) kt_diag_note(r->diag, "%s", out.at);
        kt_buf_deinit(&out);
        kt_diag_note_at(r->diag, kt_expr_at(expr), "it is stated");
    }
    return good;
}

static bool check_shape(kt_op_reader *r, const kt_type *type, kt_place where, const kt_env *env) {
    for (int i = 0; i < type->rank; i++) {
        int64_t size;
        bool good = kt_expr_eval_int(type->axis[i], env, "a type", r->diag, &size);
        if (good && size >= 0) continue;
        if (good)
            kt_diag_error(
                r->diag, KT_RULE_SHAPE, kt_expr_at(type->axis[i]), "this axis is %" PRId64, size);
        note_symbols(r, env->ctx, where);
        return false;
    }
    return true;
}

// ---- launches

typedef struct launch_check {
    kt_op_reader *r;
    const kt_op_case *now;
    const kt_env *env;
    const char *kernel;
    bool good;
} launch_check;

static int64_t launch_value(launch_check *c, const kt_expr *expr, int64_t absent) {
    int64_t value = absent;
    if (expr == NULL || !c->good) return absent;
    if (kt_expr_eval_int(expr, c->env, "a launch", c->r->diag, &value)) return value;
    note_symbols(c->r, c->env->ctx, c->now->at);
    c->good = false;
    return absent;
}

static void refuse_launch(launch_check *c, const kt_expr *expr, const char *what) {
    kt_diag_error(c->r->diag, KT_RULE_VARIANT, kt_expr_at(expr),
        "launch of '%s' leaves the limits of sm_89: %s", c->kernel, what);
    note_symbols(c->r, c->env->ctx, c->now->at);
    c->good = false;
}

static void check_grid(launch_check *c, const kt_op_launch *l) {
    static const char axes[] = "xyz";
    for (int i = 0; i < 3 && c->good; i++) {
        int64_t size = launch_value(c, l->grid[i], 1), most = i == 0 ? INT32_MAX : SM89_GRID_YZ;
        if (size >= 0 && size <= most) continue;
        refuse_launch(c, l->grid[i],
            kt_arena_printf(
                c->r->arena, "grid %c is %" PRId64 ", from 0 to %" PRId64, axes[i], size, most));
    }
}

static void check_block(launch_check *c, const kt_op_launch *l) {
    int64_t threads = 1;
    for (int i = 0; i < 3 && c->good; i++) {
        int64_t size = launch_value(c, l->block[i], 1), most = i == 2 ? SM89_BLOCK_Z : SM89_THREADS;
        if (!c->good) return;
        if (size >= 1 && size <= most && threads * size <= SM89_THREADS) {
            threads *= size;
            continue;
        }
        refuse_launch(c, l->block[i],
            kt_arena_printf(c->r->arena, "%" PRId64 " threads a block, from 1 to %" PRId64,
                size >= 1 && size <= most ? threads * size : size, most));
    }
}

static bool check_launch(launch_check *c, const kt_op_launch *l) {
    check_grid(c, l);
    check_block(c, l);
    int64_t shared = launch_value(c, l->shared, 0);
    if (c->good && (shared < 0 || shared > SM89_SHARED_BYTES))
        refuse_launch(c, l->shared,
            kt_arena_printf(c->r->arena, "%" PRId64 " bytes of shared memory a block, at most %d",
                shared, SM89_SHARED_BYTES));
    int64_t cluster = launch_value(c, l->cluster, 1);
    if (c->good && (cluster < 1 || cluster > 8))
        refuse_launch(c, l->cluster,
            kt_arena_printf(c->r->arena, "a cluster of %" PRId64 " blocks, from 1 to 8", cluster));
    return c->good;
}

// Returns false once something was said about the variant, so that further cases do not repeat it.
static bool check_variant(
    kt_op_reader *r, const kt_variant *v, const kt_op_case *now, bool *reached) {
    case_env values = {r->op, now->dims, NULL};
    kt_env env = {.ctx = &values, .find = find_value};
    kt_value when = kt_value_int(1);
    if (v->when != NULL && !kt_expr_eval(v->when, &env, "'when'", r->diag, &when)) {
        note_symbols(r, &values, now->at);
        *reached = true;
        return false;
    }
    if (when.r == 0) return true;
    *reached = true;
    values.variant = v;
    for (int i = 0; i < v->n_scratch; i++) {
        if (!check_shape(r, &v->scratch[i].type, now->at, &env)) return false;
    }
    for (int i = 0; i < v->n_counters; i++) {
        if (!check_shape(r, &v->counters[i].type, now->at, &env)) return false;
    }
    bool good = true;
    for (int i = 0; i < v->n_launches; i++) {
        launch_check c = {
            r, now, &env, kt_op_kernel_name(r->arena, r->op, v, &v->launches[i]), true};
        good = check_launch(&c, &v->launches[i]) && good;
    }
    return good;
}

static void check_variants(kt_op_reader *r) {
    const kt_op *op = r->op;
    for (int i = 0; i < op->n_variants; i++) {
        const kt_variant *v = &op->variants[i];
        bool good = true, reached = false;
        for (int k = 0; k < op->n_cases && good; k++)
            good = check_variant(r, v, &op->cases[k], &reached);
        if (reached || op->n_cases == 0) continue;
        kt_diag_error(r->diag, KT_RULE_VARIANT, v->at, "no case of 'check' reaches variant '%.*s'",
            KT_STR_ARG(v->name));
        if (v->when != NULL)
            kt_diag_note(r->diag, "add a case where %.*s, or the kernel is never tested",
                KT_STR_ARG(kt_expr_text(v->when)));
    }
}

static void check_case(kt_op_reader *r, const kt_op_case *now, bool *shapes) {
    case_env values = {r->op, now->dims, NULL};
    kt_env env = {.ctx = &values, .find = find_value};
    if (!check_requirements(r, now, &env)) return;
    for (int i = 0; i < r->op->n_ports && *shapes; i++)
        *shapes = check_shape(r, &r->op->ports[i].type, now->at, &env);
}

static void read_cases(kt_op_reader *r, const kt_node *list) {
    kt_op_case *cases = KT_NEW_ARRAY(r->arena, kt_op_case, list->n);
    r->op->cases = cases;
    if (list->n == 0) kt_diag_error(r->diag, KT_RULE_KEY, list->at, "'cases' is an empty list");
    for (size_t i = 0; i < list->n; i++) {
        if (read_case(r, list->items[i], &cases[r->op->n_cases])) r->op->n_cases++;
    }
}

void kt_op_check_cases(kt_op_reader *r) {
    const kt_node *map = kt_op_section(r, r->root, "check", KT_NODE_MAP);
    if (map == NULL) return;
    kt_schema_check(map, "'check'", check_keys, COUNT(check_keys), true, r->diag);
    read_generators(r, map);
    const kt_node *tolerance = kt_op_section(r, map, "tolerance", KT_NODE_MAP);
    const kt_node *cases = kt_op_section(r, map, "cases", KT_NODE_LIST);
    if (tolerance != NULL && read_tolerances(r, tolerance) && r->types_known)
        check_tolerances(r, kt_node_find(map, "tolerance")->at);
    if (cases != NULL) read_cases(r, cases);
    // With unknown names in the file every case would say them again.
    if (r->names_known) {
        bool shapes = true;
        for (int i = 0; i < r->op->n_cases; i++) check_case(r, &r->op->cases[i], &shapes);
        if (r->op->n_cases == (int)(cases == NULL ? 0 : cases->n)) check_variants(r);
    }
}
