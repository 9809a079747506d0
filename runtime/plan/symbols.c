// Names in expressions: constants, parameters and dims of the pipeline, and sizes made of them.
#include "runtime/plan/plan_internal.h"

#include <inttypes.h>

// ---- axes

kt_axis kt_axis_fixed(int64_t value) {
    return (kt_axis){.max = value, .var = -1};
}

bool kt_axis_same(kt_axis a, kt_axis b) {
    if (a.var != b.var) return false;
    return a.var < 0 ? a.max == b.max : a.add == b.add;
}

bool kt_axis_add(kt_axis axis, int64_t add, kt_axis *out) {
    *out = axis;
    if (axis.max < 0) return false; // a constant of the model can be anything
    if (add >= 0 ? axis.max > INT64_MAX - add : axis.max + add < 0) return false;
    out->max += add;
    if (axis.var >= 0) out->add += add;
    return true;
}

int64_t kt_axis_value(kt_axis axis, const int64_t *values) {
    return axis.var < 0 ? axis.max : values[axis.var] + axis.add;
}

void kt_axis_print(const kt_planner *p, kt_axis axis, kt_buf *out) {
    if (axis.var < 0) {
        kt_buf_printf(out, "%" PRId64, axis.max);
        return;
    }
    kt_buf_str(out, p->dims.at[axis.var].name);
    if (axis.add > 0) kt_buf_printf(out, " + %" PRId64, axis.add);
    if (axis.add < 0) kt_buf_printf(out, " - %" PRId64, -axis.add);
}

static const char *const host_names[] = {
#define HOST_NAME(code, name) name,
    KT_HOST_TYPE_LIST(HOST_NAME)
#undef HOST_NAME
};

const char *kt_plan_type_text(kt_planner *p, int tensor) {
    const kt_tensor *t = &p->tensors.at[tensor];
    if (t->home == KT_HOME_HOST) return host_names[t->host];
    kt_buf buf = {0};
    kt_buf_printf(&buf, "%s[", t->home == KT_HOME_LINEAR ? "linear" : kt_dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) {
        if (i) kt_buf_printf(&buf, ", ");
        kt_axis_print(p, t->axis[i], &buf);
    }
    kt_buf_printf(&buf, "]");
    char *out = kt_arena_copy(p->arena, buf.at, buf.n);
    kt_buf_deinit(&buf);
    return out;
}

// ---- expressions over symbols

static bool env_find(const void *ctx, kt_str name, kt_value *out) {
    const kt_symbols *symbols = ctx;
    kt_symbol symbol;
    if (!symbols->find(symbols->ctx, name, &symbol)) return false;
    *out = symbol.value;
    return true;
}

static const kt_str *env_names(const void *ctx, kt_arena *arena, size_t *n) {
    const kt_symbols *symbols = ctx;
    *n = 0;
    return symbols->names ? symbols->names(symbols->ctx, arena, n) : NULL;
}

kt_env kt_symbols_env(const kt_symbols *symbols) {
    return (kt_env){.ctx = symbols, .find = env_find, .names = env_names};
}

typedef struct varying {
    const kt_symbols *symbols;
    kt_str name; // the first varying name
} varying;

static void look_varying(void *ctx, kt_str name, kt_place at) {
    (void)at;
    varying *v = ctx;
    kt_symbol symbol;
    if (v->name.n == 0 && v->symbols->find(v->symbols->ctx, name, &symbol) && symbol.axis.var >= 0)
        v->name = name;
}

bool kt_plan_size(kt_planner *p, const kt_symbols *symbols, const kt_expr *expr, const char *what,
    bool exact, kt_axis *out) {
    kt_str name;
    int64_t add;
    kt_symbol symbol;
    bool simple = kt_expr_is_axis(expr, &name, &add);
    bool known = simple && name.n && symbols->find(symbols->ctx, name, &symbol);
    if (known && !symbol.value.is_real) {
        if (kt_axis_add(symbol.axis, add, out)) return true;
        return kt_diag_error(
            p->diag, KT_RULE_EXPR, kt_expr_at(expr), "a size overflows or falls below 0");
    }
    varying v = {.symbols = symbols, .name = {"", 0}};
    kt_expr_names(expr, look_varying, &v);
    if (v.name.n && exact) {
        kt_str text = kt_expr_text(expr);
        kt_diag_error(p->diag, KT_RULE_SHAPE, kt_expr_at(expr),
            "the size '%.*s' in %s is no name and no name + number, and '%.*s' varies",
            KT_STR_ARG(text), what, KT_STR_ARG(v.name));
        kt_diag_note(p->diag, "give it a dim of its own, or compute it from sizes that are fixed");
        return false;
    }
    kt_env env = kt_symbols_env(symbols);
    int64_t size;
    if (!kt_expr_eval_int(expr, &env, what, p->diag, &size)) return false;
    if (size < 0)
        return kt_diag_error(
            p->diag, KT_RULE_SHAPE, kt_expr_at(expr), "a size in %s is %" PRId64, what, size);
    *out = kt_axis_fixed(size);
    return true;
}

bool kt_plan_number(kt_planner *p, const kt_symbols *symbols, const kt_expr *expr, const char *what,
    kt_value *out) {
    varying v = {.symbols = symbols, .name = {"", 0}};
    kt_expr_names(expr, look_varying, &v);
    if (v.name.n) {
        kt_diag_error(p->diag, KT_RULE_VALUE, kt_expr_at(expr),
            "'%.*s' changes from request to request and cannot be in %s", KT_STR_ARG(v.name), what);
        kt_diag_note(p->diag, "pass it as a size, or keep it in a tensor");
        return false;
    }
    kt_env env = kt_symbols_env(symbols);
    return kt_expr_eval(expr, &env, what, p->diag, out);
}

typedef struct value_list {
    kt_planner *p;
    const kt_symbols *symbols;
    kt_buf buf;
    KT_VEC(kt_str) seen;
} value_list;

static void add_value(void *ctx, kt_str name, kt_place at) {
    (void)at;
    value_list *list = ctx;
    kt_symbol symbol;
    for (size_t i = 0; i < list->seen.n; i++)
        if (kt_str_eq(list->seen.at[i], name)) return;
    if (!list->symbols->find(list->symbols->ctx, name, &symbol)) return;
    KT_PUSH(list->p->arena, &list->seen, name);
    kt_buf_printf(&list->buf, list->buf.n ? ", %.*s = " : "%.*s = ", KT_STR_ARG(name));
    if (symbol.value.is_real) {
        kt_buf_printf(&list->buf, "%g", symbol.value.r);
        return;
    }
    kt_axis_print(list->p, symbol.axis, &list->buf);
    if (symbol.axis.var >= 0) kt_buf_printf(&list->buf, " (at most %" PRId64 ")", symbol.axis.max);
}

const char *kt_plan_values_text(kt_planner *p, const kt_symbols *symbols, const kt_expr *expr) {
    value_list list = {.p = p, .symbols = symbols};
    kt_expr_names(expr, add_value, &list);
    char *out = kt_arena_copy(p->arena, list.buf.n ? list.buf.at : "", list.buf.n);
    kt_buf_deinit(&list.buf);
    return out;
}

// ---- symbols of a bound op: its dims, then its numeric parameters

static bool bound_find(const void *ctx, kt_str name, kt_symbol *out) {
    const kt_bound *bound = ctx;
    int dim = kt_op_dim_find(bound->op, name), param = kt_op_param_find(bound->op, name);
    if (dim >= 0) {
        out->axis = bound->dims[dim];
        out->value = kt_value_int(bound->dims[dim].max);
        return true;
    }
    if (param < 0 || !bound->params) return false;
    out->value = bound->params[param];
    out->axis = kt_axis_fixed(out->value.is_real ? 0 : out->value.i);
    return true;
}

static const kt_str *bound_names(const void *ctx, kt_arena *arena, size_t *n) {
    const kt_bound *bound = ctx;
    kt_str *out = KT_NEW_ARRAY(arena, kt_str, bound->op->n_dims + bound->op->n_params);
    *n = 0;
    for (int i = 0; i < bound->op->n_dims; i++) out[(*n)++] = bound->op->dims[i].name;
    for (int i = 0; i < bound->op->n_params; i++) out[(*n)++] = bound->op->params[i].name;
    return out;
}

kt_symbols kt_bound_symbols(const kt_bound *bound) {
    return (kt_symbols){.ctx = bound, .find = bound_find, .names = bound_names};
}

// ---- symbols of the pipeline

static void use_symbol(kt_planner *p, const kt_pipe_symbol *s) {
    if (s->param >= 0) p->param_used[s->param] = true;
}

static bool pipe_find(const void *ctx, kt_str name, kt_symbol *out) {
    const kt_planner *shown = ctx;
    kt_planner *p = shown->self; // marks parameters as used
    for (size_t i = 0; i < p->symbols.n; i++) {
        if (!kt_str_eq(p->symbols.at[i].name, name)) continue;
        use_symbol(p, &p->symbols.at[i]);
        *out = p->symbols.at[i].symbol;
        if (p->bucket_dim < 0 || out->axis.var != p->bucket_dim) return true;
        out->axis = kt_axis_fixed(p->bucket);
        out->value = kt_value_int(p->bucket);
        return true;
    }
    return false;
}

static const kt_str *pipe_names(const void *ctx, kt_arena *arena, size_t *n) {
    const kt_planner *p = ctx;
    kt_str *out = KT_NEW_ARRAY(arena, kt_str, p->symbols.n);
    for (size_t i = 0; i < p->symbols.n; i++) out[i] = p->symbols.at[i].name;
    *n = p->symbols.n;
    return out;
}

kt_symbols kt_pipe_symbols(kt_planner *p) {
    return (kt_symbols){.ctx = p, .find = pipe_find, .names = pipe_names};
}

void kt_plan_use_param(kt_planner *p, kt_str name) {
    for (int i = 0; i < p->pipeline->n_params; i++)
        if (kt_str_eq(p->pipeline->params[i].param.name, name)) p->param_used[i] = true;
}

static bool add_symbol(kt_planner *p, kt_pipe_symbol symbol) {
    for (size_t i = 0; i < p->symbols.n; i++) {
        const kt_pipe_symbol *old = &p->symbols.at[i];
        if (!kt_str_eq(old->name, symbol.name)) continue;
        kt_diag_error(p->diag, KT_RULE_NAME, symbol.at, "'%.*s' is a %s and also a %s",
            KT_STR_ARG(symbol.name), symbol.dim >= 0 ? "dim" : "parameter",
            old->dim >= 0     ? "dim"
            : old->param >= 0 ? "parameter"
                              : "constant of the model");
        if (old->at.source) kt_diag_note_at(p->diag, old->at, "the other one");
        return false;
    }
    KT_PUSH(p->arena, &p->symbols, symbol);
    return true;
}

static kt_symbol fixed_symbol(kt_value value) {
    return (kt_symbol){kt_axis_fixed(value.is_real ? 0 : value.i), value};
}

static bool add_constants_and_params(kt_planner *p) {
    for (int i = 0; p->model && i < p->model->n_constants; i++) {
        kt_pipe_symbol s = {.name = p->model->constant_names[i], .param = -1, .dim = -1};
        s.symbol = fixed_symbol(p->model->constants[i]);
        if (!add_symbol(p, s)) return false;
    }
    bool ok = true;
    for (int i = 0; i < p->pipeline->n_params; i++) {
        const kt_pipe_param *param = &p->pipeline->params[i];
        kt_param_kind kind = param->param.kind;
        const kt_node *node = param->value ? param->value : param->param.default_value;
        bool number = kind == KT_PARAM_INT || kind == KT_PARAM_F32 || kind == KT_PARAM_BOOL;
        if (!number) continue;
        kt_value value;
        if (!node || !kt_param_number(&param->param, node, &value)) {
            ok = kt_diag_error(p->diag, KT_RULE_VALUE, param->param.at,
                "parameter '%.*s' has no value", KT_STR_ARG(param->param.name));
            continue;
        }
        kt_pipe_symbol s = {param->param.name, param->param.at, fixed_symbol(value), i, -1};
        ok = add_symbol(p, s) && ok;
    }
    return ok;
}

// The first fixed dim in an expression that could not be computed yet.
typedef struct circle {
    const kt_pipeline *pipe;
    const bool *done;
    const kt_pipe_dim *open;
} circle;

static void look_open(void *ctx, kt_str name, kt_place at) {
    (void)at;
    circle *c = ctx;
    for (int i = 0; !c->open && i < c->pipe->n_dims; i++)
        if (c->pipe->dims[i].fixed && !c->done[i] && kt_str_eq(c->pipe->dims[i].name.text, name))
            c->open = &c->pipe->dims[i];
}

// Fixed dims may use each other in any order: computed until nothing changes.
static bool add_fixed_dims(kt_planner *p) {
    const kt_pipeline *pipe = p->pipeline;
    bool *done = KT_NEW_ARRAY(p->arena, bool, pipe->n_dims + 1);
    kt_symbols symbols = kt_pipe_symbols(p);
    kt_env env = kt_symbols_env(&symbols);
    int left = 0;
    for (int i = 0; i < pipe->n_dims; i++) left += pipe->dims[i].fixed != NULL;
    for (bool moved = true; moved && left;) {
        moved = false;
        for (int i = 0; i < pipe->n_dims; i++) {
            const kt_pipe_dim *dim = &pipe->dims[i];
            kt_value value;
            if (!dim->fixed || done[i] || !kt_expr_compute(dim->fixed, &env, &value)) continue;
            if (value.is_real || value.i < 0)
                return kt_diag_error(p->diag, KT_RULE_VALUE, kt_expr_at(dim->fixed),
                    "dim '%.*s' is %g, expected a whole number from 0", KT_STR_ARG(dim->name.text),
                    value.r);
            kt_pipe_symbol s = {dim->name.text, dim->name.at, fixed_symbol(value), -1, i};
            if (!add_symbol(p, s)) return false;
            done[i] = moved = true;
            left--;
        }
    }
    for (int i = 0; left && i < pipe->n_dims; i++) {
        kt_value value;
        circle c = {pipe, done, NULL};
        if (!pipe->dims[i].fixed || done[i]) continue;
        kt_expr_names(pipe->dims[i].fixed, look_open, &c);
        if (c.open)
            return kt_diag_error(p->diag, KT_RULE_EXPR, kt_expr_at(pipe->dims[i].fixed),
                "dim '%.*s' depends on '%.*s', and that on it", KT_STR_ARG(pipe->dims[i].name.text),
                KT_STR_ARG(c.open->name.text));
        if (!kt_expr_eval(pipe->dims[i].fixed, &env, "a dim", p->diag, &value)) return false;
    }
    return true;
}

static bool clip_buckets(kt_planner *p, const kt_pipe_dim *dim, kt_plan_dim *out) {
    int64_t *buckets = KT_NEW_ARRAY(p->arena, int64_t, dim->n_buckets + 1);
    for (int i = 0; i < dim->n_buckets; i++)
        if (dim->buckets[i] < out->max) buckets[out->n_buckets++] = dim->buckets[i];
    if (dim->n_buckets) buckets[out->n_buckets++] = out->max;
    out->buckets = buckets;
    return true;
}

static bool add_varying_dims(kt_planner *p) {
    const kt_pipeline *pipe = p->pipeline;
    kt_symbols symbols = kt_pipe_symbols(p);
    kt_env env = kt_symbols_env(&symbols);
    p->dim_index = KT_NEW_ARRAY(p->arena, int, pipe->n_dims + 1);
    p->decided_by = KT_NEW_ARRAY(p->arena, int, pipe->n_dims + 1);
    size_t fixed = p->symbols.n;
    bool ok = true;
    KT_VEC(kt_pipe_symbol) fresh = {0};
    for (int i = 0; i < pipe->n_dims; i++) {
        const kt_pipe_dim *dim = &pipe->dims[i];
        p->dim_index[i] = -1;
        if (!dim->max) continue;
        kt_plan_dim out = {.name = dim->name.text, .at = dim->name.at};
        if (!kt_expr_eval_int(dim->max, &env, "a maximum", p->diag, &out.max)) {
            ok = false;
            continue;
        }
        if (out.max < 1 || out.max > INT32_MAX) {
            ok = kt_diag_error(p->diag, KT_RULE_LIMIT, kt_expr_at(dim->max),
                "the maximum of dim '%.*s' is %" PRId64 ", expected 1 to %d",
                KT_STR_ARG(dim->name.text), out.max, INT32_MAX);
            continue;
        }
        clip_buckets(p, dim, &out);
        KT_PUSH(p->arena, &p->dims, out);
        p->dim_index[i] = (int)p->dims.n - 1;
        kt_pipe_symbol s = {.name = dim->name.text, .at = dim->name.at, .param = -1, .dim = i};
        s.symbol.axis = (kt_axis){out.max, p->dim_index[i], 0};
        s.symbol.value = kt_value_int(out.max);
        KT_PUSH(p->arena, &fresh, s);
    }
    KT_ASSERT(p->symbols.n == fixed); // maxima see no varying dim
    for (size_t i = 0; i < fresh.n; i++) ok = add_symbol(p, fresh.at[i]) && ok;
    return ok;
}

static bool check_require(kt_planner *p) {
    kt_symbols symbols = kt_pipe_symbols(p);
    kt_env env = kt_symbols_env(&symbols);
    bool ok = true;
    for (int i = 0; i < p->pipeline->n_require; i++) {
        const kt_expr *expr = p->pipeline->require[i];
        kt_value holds;
        if (!kt_expr_eval(expr, &env, "a requirement", p->diag, &holds))
            ok = false;
        else if (holds.r == 0)
            ok = kt_diag_error(p->diag, KT_RULE_REQUIRE, kt_expr_at(expr), "%.*s does not hold: %s",
                KT_STR_ARG(kt_expr_text(expr)), kt_plan_values_text(p, &symbols, expr));
    }
    return ok;
}

bool kt_plan_symbols(kt_planner *p) {
    p->param_used = KT_NEW_ARRAY(p->arena, bool, p->pipeline->n_params + 1);
    return add_constants_and_params(p) && add_fixed_dims(p) && add_varying_dims(p) &&
           check_require(p);
}
