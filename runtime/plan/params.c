// Values for the parameters of ops and host steps.
#include "runtime/plan/plan_internal.h"

#include "loader/pipeline_internal.h"

#include <inttypes.h>

// One value as a step gives it, and who takes it.
typedef struct giving {
    const kt_param *param;
    kt_str who; // the op or host step
    const kt_node *node;
    kt_str ref; // `params: group`: the pipeline's parameter itself
    kt_place at;
    const kt_symbols *symbols;
    const kt_outer *outer;
} giving;

static bool in_range(kt_planner *p, const giving *g, kt_value value) {
    const kt_param *param = g->param;
    if (param->kind == KT_PARAM_INT && (value.i < INT32_MIN || value.i > INT32_MAX))
        return kt_diag_error(p->diag, KT_RULE_VALUE, g->at,
            "'%.*s' of '%.*s' is %" PRId64 ", which does not fit in 32 bits",
            KT_STR_ARG(param->name), KT_STR_ARG(g->who), value.i);
    bool low = param->has_min && value.r < param->min,
         high = param->has_max && value.r > param->max;
    if (!low && !high) return true;
    kt_diag_error(p->diag, KT_RULE_VALUE, g->at, "'%.*s' of '%.*s' is %g, %s %g",
        KT_STR_ARG(param->name), KT_STR_ARG(g->who), value.r, low ? "minimum" : "maximum",
        low ? param->min : param->max);
    kt_diag_note_at(p->diag, param->at, "the parameter is declared");
    return false;
}

static bool take_number(kt_planner *p, const giving *g, kt_value *out) {
    const kt_param *param = g->param;
    if (g->ref.n) {
        kt_symbol symbol;
        if (!g->symbols->find(g->symbols->ctx, g->ref, &symbol))
            return kt_diag_error(p->diag, KT_RULE_VALUE, g->at,
                "'%.*s' of '%.*s' is a number, '%.*s' is none", KT_STR_ARG(param->name),
                KT_STR_ARG(g->who), KT_STR_ARG(g->ref));
        *out = symbol.value;
    } else {
        KT_ASSERT(g->node); // a value or a reference
        bool word = g->node->kind == KT_NODE_SCALAR &&
                    (kt_str_is(g->node->text, "true") || kt_str_is(g->node->text, "false"));
        if (param->kind == KT_PARAM_BOOL && word) {
            *out = kt_value_int(kt_str_is(g->node->text, "true"));
            return true;
        }
        const kt_expr *expr = kt_expr_node(p->arena, g->node, p->diag);
        if (!expr || !kt_plan_number(p, g->symbols, expr, "a parameter", out)) return false;
    }
    if (param->kind != KT_PARAM_F32 && out->is_real)
        return kt_diag_error(p->diag, KT_RULE_VALUE, g->at,
            "'%.*s' of '%.*s' is a whole number, got %g", KT_STR_ARG(param->name),
            KT_STR_ARG(g->who), out->r);
    return in_range(p, g, *out);
}

// The pipeline's parameter that a text names, if it is of a kind that has words.
static const kt_pipe_param *named_param(kt_planner *p, kt_str name) {
    const kt_pipe_param *param = kt_pipeline_param(p->pipeline, name);
    if (!param) return NULL;
    kt_param_kind kind = param->param.kind;
    bool words = kind == KT_PARAM_CHOICE || kind == KT_PARAM_LANGUAGE || kind == KT_PARAM_STRING;
    return words ? param : NULL;
}

static bool take_word(kt_planner *p, const giving *g, kt_value *out, kt_str *word) {
    const kt_param *param = g->param;
    kt_str text = g->ref;
    if (!g->ref.n) {
        KT_ASSERT(g->node); // a value or a reference
        if (g->node->kind != KT_NODE_SCALAR)
            return kt_diag_error(p->diag, KT_RULE_VALUE, g->at,
                "'%.*s' of '%.*s' is a word, got %s", KT_STR_ARG(param->name), KT_STR_ARG(g->who),
                kt_node_kind_name(g->node));
        text = g->node->text;
    }
    const kt_pipe_param *source = g->outer ? NULL : named_param(p, text);
    int passed = g->outer ? kt_op_param_find(g->outer->bound->op, text) : -1;
    if (source) {
        const kt_node *node = kt_pipe_param_node(source);
        kt_plan_use_param(p, text);
        if (!node || node->kind != KT_NODE_SCALAR)
            return kt_diag_error(
                p->diag, KT_RULE_VALUE, g->at, "parameter '%.*s' has no value", KT_STR_ARG(text));
        text = node->text;
    } else if (passed >= 0 && g->outer->bound->op->params[passed].kind == KT_PARAM_CHOICE) {
        int64_t i = g->outer->bound->params[passed].i;
        text = g->outer->bound->op->params[passed].choices[i];
    }
    *word = text;
    if (param->kind != KT_PARAM_CHOICE) return true;
    for (size_t i = 0; i < param->n_choices; i++)
        if (kt_str_eq(param->choices[i], text)) {
            *out = kt_value_int((int64_t)i);
            return true;
        }
    kt_diag_error(p->diag, KT_RULE_VALUE, g->at, "'%.*s' of '%.*s' cannot be '%.*s'",
        KT_STR_ARG(param->name), KT_STR_ARG(g->who), KT_STR_ARG(text));
    kt_diag_near(p->diag, text, param->choices, param->n_choices, true);
    return false;
}

static bool is_number(kt_param_kind kind) {
    return kind == KT_PARAM_INT || kind == KT_PARAM_F32 || kind == KT_PARAM_BOOL;
}

static bool take(kt_planner *p, const giving *g, kt_value *value, kt_str *word) {
    return is_number(g->param->kind) ? take_number(p, g, value) : take_word(p, g, value, word);
}

// Who takes parameters, and where the values go.
typedef struct taker {
    kt_str who;
    kt_place at;
    const kt_param *params;
    int n_params;
    kt_value *values;
    kt_str *words;
    bool *given;
} taker;

static int find_param(const taker *t, kt_str name) {
    for (int i = 0; i < t->n_params; i++)
        if (kt_str_eq(t->params[i].name, name)) return i;
    return -1;
}

static bool unknown_param(kt_planner *p, const taker *t, kt_str name, kt_place at) {
    kt_str *known = KT_NEW_ARRAY(p->arena, kt_str, t->n_params);
    for (int i = 0; i < t->n_params; i++) known[i] = t->params[i].name;
    kt_diag_error(p->diag, KT_RULE_STEP, at, "'%.*s' has no parameter '%.*s'", KT_STR_ARG(t->who),
        KT_STR_ARG(name));
    kt_diag_near(p->diag, name, known, (size_t)t->n_params, true);
    return false;
}

static bool give_one(kt_planner *p, taker *t, giving g, kt_str name, kt_place name_at) {
    int i = find_param(t, name);
    if (i < 0) return unknown_param(p, t, name, name_at);
    g.param = &t->params[i];
    g.who = t->who;
    t->given[i] = true;
    return take(p, &g, &t->values[i], &t->words[i]);
}

// `params: sampler` gives every parameter called sampler.<name>.
static bool give_group(kt_planner *p, taker *t, kt_ref group, giving g) {
    bool ok = true, any = false;
    for (int i = 0; i < p->pipeline->n_params; i++) {
        const kt_pipe_param *param = &p->pipeline->params[i];
        kt_str member;
        if (!kt_name_in_group(param->param.name, group.text, &member) || !member.n) continue;
        any = true;
        g.ref = param->param.name;
        g.at = group.at;
        kt_plan_use_param(p, param->param.name);
        int before = p->diag->n_errors;
        if (give_one(p, t, g, member, group.at)) continue;
        ok = false;
        if (p->diag->n_errors > before)
            kt_diag_note_at(
                p->diag, param->param.at, "'%.*s' is declared", KT_STR_ARG(param->param.name));
    }
    if (!any)
        ok = kt_diag_error(p->diag, KT_RULE_NAME, group.at,
            "no parameters are called '%.*s.<name>'", KT_STR_ARG(group.text));
    return ok;
}

static bool give_all(kt_planner *p, const kt_step *step, taker *t, const kt_outer *outer) {
    kt_symbols symbols = outer ? kt_bound_symbols(outer->bound) : kt_pipe_symbols(p);
    giving base = {.symbols = &symbols, .outer = outer};
    bool ok = true;
    t->given = KT_NEW_ARRAY(p->arena, bool, t->n_params);
    t->words = KT_NEW_ARRAY(p->arena, kt_str, t->n_params);
    t->values = KT_NEW_ARRAY(p->arena, kt_value, t->n_params);
    if (step->param_group.text.n) ok = give_group(p, t, step->param_group, base);
    for (int i = 0; i < step->n_params; i++) {
        giving g = base;
        g.node = step->params[i].value;
        g.at = g.node->at;
        ok = give_one(p, t, g, step->params[i].name.text, step->params[i].name.at) && ok;
    }
    for (int i = 0; i < t->n_params; i++) {
        if (t->given[i]) continue;
        const kt_node *node = t->params[i].default_value;
        if (!node) {
            ok = kt_diag_error(p->diag, KT_RULE_STEP, t->at,
                "parameter '%.*s' of '%.*s' has no value", KT_STR_ARG(t->params[i].name),
                KT_STR_ARG(t->who));
            kt_diag_note_at(p->diag, t->params[i].at, "it has no default");
            continue;
        }
        if (kt_param_number(&t->params[i], node, &t->values[i])) {
            if (t->params[i].kind == KT_PARAM_CHOICE) t->words[i] = node->text;
            continue;
        }
        if (node->kind == KT_NODE_SCALAR) t->words[i] = node->text;
    }
    return ok;
}

bool kt_plan_params(kt_planner *p, kt_bound *b, const kt_outer *outer) {
    taker t = {.who = b->op->name, .at = b->step->op.at, .params = b->op->params};
    t.n_params = b->op->n_params;
    bool ok = give_all(p, b->step, &t, outer);
    b->params = t.values;
    return ok;
}

bool kt_plan_host_params(
    kt_planner *p, const kt_step *step, const kt_host_step *host, kt_host_call *call) {
    taker t = {.who = host->name, .at = step->host.at, .params = host->params};
    t.n_params = host->n_params;
    bool ok = give_all(p, step, &t, NULL);
    call->params = t.values;
    call->words = t.words;
    return ok;
}
