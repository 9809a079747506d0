// Calls: records of one use of an op, their launch geometry and cost.
#include "runtime/plan/plan_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 1024, MAX_GRID_YZ = 65535 };

// ---- what expressions of a call see

static int64_t smem_limit(const kt_target *target) {
    int64_t most = target->smem_max > 0 ? target->smem_max : KT_PLAN_SMEM_MAX;
    return most < KT_PLAN_SMEM_MAX ? most : KT_PLAN_SMEM_MAX;
}

static bool call_find(const void *data, kt_str name, kt_value *out) {
    const kt_call_ctx *ctx = data;
    const kt_call *call = ctx->call;
    int dim = kt_op_dim_find(call->op, name);
    if (dim >= 0) {
        kt_axis axis = call->dims[dim];
        *out = kt_value_int(ctx->values ? kt_axis_value(axis, ctx->values) : axis.max);
        return true;
    }
    for (int i = 0; call->variant && call->tunes && i < call->variant->n_tunes; i++)
        if (kt_str_eq(call->variant->tunes[i].name, name)) {
            *out = kt_value_int(call->tunes[i]);
            return true;
        }
    int param = kt_op_param_find(call->op, name);
    if (param >= 0 && call->params) {
        *out = call->params[param];
        return true;
    }
    const struct {
        const char *name;
        int64_t value;
    } device[] = {{"sm_count", ctx->target->sm_count}, {"smem_max", smem_limit(ctx->target)},
        {"cc", ctx->target->cc}};
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++)
        if (kt_str_is(name, device[i].name)) {
            *out = kt_value_int(device[i].value);
            return true;
        }
    return false;
}

static const kt_str *call_names(const void *data, kt_arena *arena, size_t *n) {
    const kt_call_ctx *ctx = data;
    const kt_op *op = ctx->call->op;
    const kt_variant *variant = ctx->call->variant;
    int n_tunes = variant ? variant->n_tunes : 0;
    kt_str *out = KT_NEW_ARRAY(arena, kt_str, op->n_dims + n_tunes + 3);
    *n = 0;
    for (int i = 0; i < op->n_dims; i++) out[(*n)++] = op->dims[i].name;
    for (int i = 0; i < n_tunes; i++) out[(*n)++] = variant->tunes[i].name;
    out[(*n)++] = KT_STR("sm_count");
    out[(*n)++] = KT_STR("smem_max");
    out[(*n)++] = KT_STR("cc");
    return out;
}

kt_env kt_call_env(const kt_call_ctx *ctx) {
    return (kt_env){.ctx = ctx, .find = call_find, .names = call_names};
}

// ---- geometry

// 1 and the value of an expression that must be whole and at least `low`.
static bool geometry_value(const kt_expr *expr, const kt_env *env, int64_t low, int64_t *out) {
    kt_value value;
    if (!expr) return true;
    if (!kt_expr_compute(expr, env, &value) || value.is_real || value.i < low) return false;
    *out = value.i;
    return true;
}

static kt_status beyond(const kt_call *call, const kt_op_launch *launch, const kt_geometry *g,
    int64_t smem, kt_err *err) {
    kt_err_set(err, KT_EOP,
        "launch of '%.*s' leaves the limits: grid %" PRId64 " x %" PRId64 " x %" PRId64
        ", block %" PRId64 " x %" PRId64 " x %" PRId64 ", shared %" PRId64 " bytes of %" PRId64,
        KT_STR_ARG(call->op->name), g->grid[0], g->grid[1], g->grid[2], g->block[0], g->block[1],
        g->block[2], g->shared_bytes, smem);
    kt_err_note(err, "in %.*s, at %s:%d", KT_STR_ARG(call->address),
        launch->at.source ? launch->at.source->path : "(none)", launch->at.line);
    return KT_EOP;
}

kt_status kt_plan_geometry(const kt_plan *plan, const kt_call *call, int launch,
    const int64_t *values, kt_geometry *out, kt_err *err) {
    KT_ASSERT(call->variant && launch >= 0 && launch < call->variant->n_launches);
    const kt_op_launch *l = &call->variant->launches[launch];
    kt_call_ctx ctx = {&plan->target, call, values};
    kt_env env = kt_call_env(&ctx);
    *out = (kt_geometry){{1, 1, 1}, {1, 1, 1}, 0};
    bool ok = true;
    for (int i = 0; i < 3; i++) {
        ok = geometry_value(l->grid[i], &env, 0, &out->grid[i]) && ok;
        ok = geometry_value(l->block[i], &env, 1, &out->block[i]) && ok;
    }
    ok = geometry_value(l->shared, &env, 0, &out->shared_bytes) && ok;
    if (!ok)
        return KT_FAIL(err, KT_EOP, "the launch of '%.*s' at %s:%d cannot be computed",
            KT_STR_ARG(call->op->name), l->at.source ? l->at.source->path : "(none)", l->at.line);
    int64_t smem = smem_limit(&plan->target), threads = 1;
    for (int i = 0; i < 3; i++)
        if (!kt_mul(threads, out->block[i], &threads)) threads = INT64_MAX;
    if (threads > MAX_THREADS || out->shared_bytes > smem || out->grid[0] > INT32_MAX ||
        out->grid[1] > MAX_GRID_YZ || out->grid[2] > MAX_GRID_YZ)
        return beyond(call, l, out, smem, err);
    return KT_OK;
}

// ---- cost

static double tensor_bytes(const kt_plan *plan, int tensor, const int64_t *values) {
    if (tensor < 0) return 0;
    const kt_tensor *t = &plan->tensors[tensor];
    if (t->home == KT_HOME_LINEAR && t->weight >= 0) {
        int layout = plan->weight_layout[t->weight];
        if (layout < 0) return 0;
        const kt_layout *l = &plan->layouts[layout];
        int64_t rows = plan->model->weights[t->weight].shape[0];
        return (double)l->bytes * (double)rows / (double)l->rows;
    }
    return (double)(values ? kt_tensor_bytes(t, values) : t->bytes);
}

void kt_plan_cost(
    const kt_plan *plan, const kt_call *call, const int64_t *values, double *flops, double *bytes) {
    kt_call_ctx ctx = {&plan->target, call, values};
    kt_env env = kt_call_env(&ctx);
    kt_value value;
    *flops = 0;
    *bytes = 0;
    if (call->op->cost_flops && kt_expr_compute(call->op->cost_flops, &env, &value))
        *flops = value.r;
    if (call->op->cost_bytes) {
        if (kt_expr_compute(call->op->cost_bytes, &env, &value)) *bytes = value.r;
        return;
    }
    for (int i = 0; i < call->op->n_ports; i++) {
        double size = tensor_bytes(plan, call->ports[i], values);
        *bytes += call->op->ports[i].kind == KT_PORT_INOUT ? 2 * size : size;
    }
}

int64_t kt_tensor_bytes(const kt_tensor *tensor, const int64_t *values) {
    if (tensor->home == KT_HOME_LINEAR || tensor->home == KT_HOME_HOST) return 0;
    int64_t n = kt_dtype_bytes(tensor->dtype);
    for (int i = 0; i < tensor->rank; i++) n *= kt_axis_value(tensor->axis[i], values);
    return n;
}

// ---- making calls

static int *memory_tensors(kt_planner *p, const kt_call *call, const kt_op_memory *list, int n,
    kt_home home, const kt_bound *b) {
    int *out = KT_NEW_ARRAY(p->arena, int, n);
    kt_call_ctx ctx = {&p->target, call, NULL};
    kt_env env = kt_call_env(&ctx);
    for (int i = 0; i < n; i++) {
        kt_tensor t = {.home = home, .weight = -1, .stage = p->stage, .at = b->step->op.at};
        t.name = kt_str_from(kt_arena_printf(
            p->arena, "%.*s.%.*s", KT_STR_ARG(b->address), KT_STR_ARG(list[i].name)));
        t.rank = list[i].type.rank;
        t.dtype = list[i].type.base == KT_BASE_VAR
                      ? b->types[kt_op_typevar_find(b->op, list[i].type.var)]
                      : list[i].type.dtype;
        for (int a = 0; a < t.rank;
             a++) { // at the maxima: sizes of scratch never shrink as dims grow
            int64_t size = 0;
            if (!kt_expr_eval_int(
                    list[i].type.axis[a], &env, "the size of scratch", p->diag, &size))
                size = 0;
            t.axis[a] = kt_axis_fixed(size);
        }
        out[i] = kt_plan_tensor(p, &t);
    }
    return out;
}

kt_call *kt_plan_call(kt_planner *p, const kt_bound *b, const kt_variant *variant) {
    kt_call *call = KT_NEW(p->arena, kt_call);
    *call = (kt_call){.op = b->op, .variant = variant, .address = b->address, .at = b->step->op.at};
    call->dims = b->dims;
    call->params = b->params;
    call->types = b->types;
    call->ports = b->ports;
    call->build = -1;
    if (!variant) return call;
    int64_t *tunes = KT_NEW_ARRAY(p->arena, int64_t, variant->n_tunes);
    for (int i = 0; i < variant->n_tunes; i++) tunes[i] = variant->tunes[i].values[0];
    call->tunes = tunes;
    call->scratch = memory_tensors(p, call, variant->scratch, variant->n_scratch, KT_HOME_ACT, b);
    call->counters =
        memory_tensors(p, call, variant->counters, variant->n_counters, KT_HOME_COUNTER, b);
    return call;
}

// Counters of all calls share one region: each call finds it zero and leaves it zero.
static void place_counters(kt_planner *p, const kt_call *call) {
    int64_t at = 0;
    for (int i = 0; i < call->variant->n_counters; i++) {
        p->tensors.at[call->counters[i]].offset = at;
        int64_t bytes = p->tensors.at[call->counters[i]].bytes;
        at += (bytes + KT_PLAN_ALIGN - 1) / KT_PLAN_ALIGN * KT_PLAN_ALIGN;
    }
    if (at > p->counter_bytes) p->counter_bytes = at;
}

static bool check_launches(kt_planner *p, const kt_call *call) {
    kt_plan stub = {.target = p->target};
    for (int i = 0; i < call->variant->n_launches; i++) {
        kt_geometry g;
        kt_err err;
        if (kt_plan_geometry(&stub, call, i, NULL, &g, &err) == KT_OK) continue;
        char *note = strchr(err.text, '\n');
        if (note) *note = 0;
        kt_diag_error(p->diag, KT_RULE_VARIANT, call->variant->launches[i].at, "%s", err.text);
        kt_buf buf = {0};
        for (int d = 0; d < call->op->n_dims; d++) {
            kt_str name = call->op->dims[d].name;
            kt_buf_printf(
                &buf, "%s%.*s = %" PRId64, d ? ", " : "", KT_STR_ARG(name), call->dims[d].max);
        }
        kt_diag_note(p->diag, "at the maxima: %s", buf.n ? buf.at : "");
        kt_diag_note_at(p->diag, call->at, "used in %.*s", KT_STR_ARG(call->address));
        kt_buf_deinit(&buf);
        return false;
    }
    return true;
}

static void set_aliases(kt_planner *p, const kt_call *call) {
    for (int i = 0; i < call->variant->n_aliases; i++) {
        const kt_op_alias *alias = &call->variant->aliases[i];
        int out = call->ports[alias->output], in = call->ports[alias->input];
        int uses = 0;
        for (int k = 0; k < call->op->n_ports; k++) uses += call->ports[k] == in;
        if (out < 0 || in < 0 || uses > 1) continue;
        p->lives.at[p->lives.at[out].root].alias = p->lives.at[in].root;
        p->lives.at[p->lives.at[out].root].alias_time = p->time;
    }
}

static bool get_layouts(kt_planner *p, const kt_bound *b, kt_call *call) {
    const kt_variant *variant = call->variant;
    int *layouts = KT_NEW_ARRAY(p->arena, int, variant->n_layouts);
    for (int i = 0; i < variant->n_layouts; i++) {
        bool any = false;
        for (int k = 0; k < variant->layouts[i].n_of; k++)
            any = any || b->ports[variant->layouts[i].of[k]] >= 0;
        layouts[i] = any ? kt_layout_get(p, b, &variant->layouts[i], false) : -1;
        if (any && layouts[i] < 0) return false;
    }
    call->layouts = layouts;
    return true;
}

// The rows of f16 that a C implementation reads in place of each logical weight.
static bool get_rows(kt_planner *p, const kt_bound *b) {
    for (int i = 0; i < b->op->n_ports; i++) {
        if (b->ports[i] < 0 || p->tensors.at[b->ports[i]].home != KT_HOME_LINEAR) continue;
        if (kt_layout_rows(p, b, p->tensors.at[b->ports[i]].weight) < 0) return false;
    }
    return true;
}

bool kt_plan_emit(kt_planner *p, const kt_bound *b, const kt_variant *variant) {
    kt_call *call = kt_plan_call(p, b, variant);
    for (int i = 0; i < b->op->n_ports; i++) kt_plan_touch(p, b->ports[i]);
    if (variant) {
        if (!get_layouts(p, b, call) || !check_launches(p, call)) return false;
        for (int i = 0; i < variant->n_scratch; i++) kt_plan_touch(p, call->scratch[i]);
        place_counters(p, call);
        set_aliases(p, call);
        call->build = kt_plan_build(p, call);
    } else if (!get_rows(p, b)) {
        return false;
    }
    kt_plan_step step = {.call = call};
    kt_plan_push(p, step);
    return true;
}
