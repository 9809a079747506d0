#include "runtime/plan/plan.h"

#include "runtime/plan/plan_internal.h"

#include <inttypes.h>

// ---- names that all stages see

static void add_weights(kt_planner *p) {
    const kt_model *model = p->model;
    p->weight_layout = KT_NEW_ARRAY(p->arena, int, model->n_weights);
    for (int i = 0; i < model->n_weights; i++) {
        const kt_weight *w = &model->weights[i];
        p->weight_layout[i] = -1;
        kt_tensor t = {.name = w->name, .at = w->at, .weight = i, .stage = -1, .rank = w->rank};
        t.home = w->linear ? KT_HOME_LINEAR : KT_HOME_VECTOR;
        t.dtype = w->linear ? KT_DTYPE_F16 : KT_DTYPE_F32;
        for (int a = 0; a < w->rank; a++) t.axis[a] = kt_axis_fixed(w->shape[a]);
        kt_scope_entry entry = {.name = w->name, .at = w->at, .tensor = kt_plan_tensor(p, &t)};
        KT_PUSH(p->arena, &p->top.entries, entry);
    }
}

static bool add_state(kt_planner *p) {
    kt_symbols symbols = kt_pipe_symbols(p);
    bool ok = true;
    for (int i = 0; i < p->pipeline->n_state; i++) {
        const kt_pipe_state *state = &p->pipeline->state[i];
        kt_tensor t = {.name = state->name.text, .at = state->name.at, .weight = -1, .stage = -1};
        t.home = KT_HOME_STATE;
        t.dtype = state->type.dtype;
        t.rank = state->type.rank;
        bool sized = true;
        for (int a = 0; a < t.rank; a++)
            sized = kt_plan_size(
                        p, &symbols, state->type.axis[a], "the type of state", true, &t.axis[a]) &&
                    sized;
        ok = ok && sized;
        if (!sized) continue;
        t.offset = p->state_bytes;
        int made = kt_plan_tensor(p, &t);
        int64_t end;
        if (!kt_add(p->state_bytes, p->tensors.at[made].bytes + KT_PLAN_ALIGN - 1, &end))
            return false;
        p->state_bytes = end / KT_PLAN_ALIGN * KT_PLAN_ALIGN;
        ok = kt_scope_define(p, &p->top, state->name, made) && ok;
    }
    return ok;
}

static bool add_host_params(kt_planner *p) {
    bool ok = true;
    for (int i = 0; i < p->pipeline->n_params; i++) {
        const kt_param *param = &p->pipeline->params[i].param;
        kt_tensor t = {.name = param->name, .at = param->at, .weight = -1, .stage = -1};
        t.home = KT_HOME_HOST;
        if (param->kind == KT_PARAM_IMAGE)
            t.host = KT_HOST_TYPE_IMAGE;
        else if (param->kind == KT_PARAM_TEXT)
            t.host = KT_HOST_TYPE_TEXT;
        else if (param->kind == KT_PARAM_ITEMS)
            t.host = KT_HOST_TYPE_ITEMS;
        else
            continue;
        kt_ref name = {param->name, param->at};
        ok = kt_scope_define(p, &p->top, name, kt_plan_tensor(p, &t)) && ok;
    }
    return ok;
}

// ---- what nobody used

static bool check_names(kt_planner *p) {
    bool ok = true;
    kt_place last = {0};
    for (size_t i = 0; i < p->top.entries.n; i++) {
        const kt_scope_entry *entry = &p->top.entries.at[i];
        const kt_tensor *t = &p->tensors.at[entry->tensor];
        bool value = t->home == KT_HOME_HOST; // parameters, and what host steps tell each other
        bool again =
            entry->at.line == last.line && entry->at.source == last.source && t->weight >= 0;
        if (entry->used || entry->carried || value || again) continue;
        last = entry->at;
        bool state = t->home == KT_HOME_STATE && t->stage < 0;
        const char *what = t->weight >= 0 ? "weight " : state ? "state " : "";
        const char *made = t->weight >= 0 ? "bound" : state ? "declared" : "made";
        ok = kt_diag_error(p->diag, KT_RULE_NAME, entry->at, "%s'%.*s' is %s and never used", what,
            KT_STR_ARG(entry->name), made);
    }
    return ok;
}

static bool check_params_and_dims(kt_planner *p) {
    bool ok = true;
    for (int i = 0; i < p->pipeline->n_params; i++) {
        const kt_param *param = &p->pipeline->params[i].param;
        if (p->param_used[i] || kt_str_is(param->name, "model"))
            continue; // read by the program itself
        ok = kt_diag_error(p->diag, KT_RULE_NAME, param->at,
            "parameter '%.*s' is declared and never used", KT_STR_ARG(param->name));
    }
    for (int i = 0; i < p->pipeline->n_dims; i++) {
        const kt_pipe_dim *dim = &p->pipeline->dims[i];
        if (!dim->max || p->decided_by[i]) continue;
        ok = kt_diag_error(p->diag, KT_RULE_NAME, dim->name.at,
            "dim '%.*s' has a maximum, but no host step decides it", KT_STR_ARG(dim->name.text));
    }
    return ok;
}

static bool find_result(kt_planner *p) {
    kt_ref result = p->pipeline->result;
    kt_place nowhere = {0};
    if (!result.text.n)
        return kt_diag_error(p->diag, KT_RULE_KEY, nowhere, "pipeline '%.*s' has no 'result'",
            KT_STR_ARG(p->pipeline->name));
    int n;
    kt_member *members = kt_scope_group(p, &p->top, result, &n);
    if (n == 0) return false;
    if (n > 1 || members[0].name.n)
        return kt_diag_error(p->diag, KT_RULE_NAME, result.at, "the result '%.*s' is a group",
            KT_STR_ARG(result.text));
    p->plan->result = members[0].tensor;
    return true;
}

// ---- open

static bool bind_all(kt_planner *p) {
    if (!kt_plan_symbols(p)) return false;
    add_weights(p);
    bool ok = add_state(p) && add_host_params(p) && kt_plan_stages(p) && find_result(p);
    if (!ok || p->diag->n_errors) return false;
    ok = p->probe || check_names(p);
    return check_params_and_dims(p) && ok;
}

static void freeze(kt_planner *p) {
    kt_plan *plan = p->plan;
    plan->dims = p->dims.at;
    plan->n_dims = (int)p->dims.n;
    plan->tensors = p->tensors.at;
    plan->n_tensors = (int)p->tensors.n;
    plan->layouts = p->layouts.at;
    plan->n_layouts = (int)p->layouts.n;
    plan->weight_layout = p->weight_layout;
    plan->builds = p->builds.at;
    plan->n_builds = (int)p->builds.n;
    kt_plan_name *names = KT_NEW_ARRAY(p->arena, kt_plan_name, p->top.entries.n);
    for (size_t i = 0; i < p->top.entries.n; i++)
        names[i] = (kt_plan_name){p->top.entries.at[i].name, p->top.entries.at[i].tensor};
    plan->names = names;
    plan->n_names = (int)p->top.entries.n;
}

kt_status kt_plan_open(
    kt_arena *arena, const kt_plan_request *request, kt_plan **out, kt_diag *diag, kt_err *err) {
    kt_planner p = {.arena = arena, .diag = diag, .pipeline = request->pipeline};
    p.self = &p;
    p.registry = request->registry;
    p.model = request->model;
    p.target = request->target;
    p.probe = request->probe;
    p.bucket_dim = -1;
    p.stage = -1;
    p.host = kt_host_table(arena, &p.n_host);
    kt_table_init(&p.build_index, arena);
    kt_table_init(&p.proved, arena);
    p.plan = KT_NEW(arena, kt_plan);
    *p.plan = (kt_plan){.arena = arena, .target = request->target, .pipeline = request->pipeline};
    p.plan->model = request->model;
    p.plan->registry = request->registry;
    int before = diag->n_errors;
    if (!bind_all(&p) || diag->n_errors > before)
        return KT_FAIL(err, KT_EYAML, "pipeline '%s' has mistakes", request->pipeline->path);
    bool fits = kt_plan_place(&p, err);
    freeze(&p);
    if (!fits) return err->code;
    *out = p.plan;
    return KT_OK;
}
