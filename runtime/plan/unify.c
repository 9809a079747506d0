// Binds one use of an op: names to ports, sizes to dims, types to type variables.
#include "runtime/plan/plan_internal.h"

#include "loader/pipeline_internal.h"

#include <inttypes.h>

enum { FROM_STEP = -1, FROM_NOTHING = -2 };

static const char *const section_names[] = {"input", "inout", "output"};

// ---- ports

static bool is_kind(const kt_op *op, int port, kt_port_kind kind) {
    return op->ports[port].kind == kind;
}

static void near_ports(kt_planner *p, const kt_op *op, kt_port_kind kind, kt_str name, bool list) {
    KT_VEC(kt_str) known = {0};
    for (int i = 0; i < op->n_ports; i++)
        if (is_kind(op, i, kind)) KT_PUSH(p->arena, &known, op->ports[i].name);
    kt_diag_near(p->diag, name, known.at, known.n, list);
}

static bool has_group(const kt_op *op, kt_port_kind kind, kt_str name) {
    kt_str member;
    for (int i = 0; i < op->n_ports; i++)
        if (is_kind(op, i, kind) && kt_name_in_group(op->ports[i].name, name, &member)) return true;
    return false;
}

// Does `name` stand for an input of the op around that may be absent, and is?
static bool absent_outside(const kt_outer *outer, kt_str name) {
    if (!outer) return false;
    int port = kt_op_port_find(outer->bound->op, name);
    return port >= 0 && outer->bound->op->ports[port].type.optional &&
           outer->bound->ports[port] < 0;
}

static bool bring(
    kt_planner *p, kt_bound *b, const kt_link *link, kt_port_kind kind, kt_member member) {
    const kt_op *op = b->op;
    kt_str full = link->port.text;
    if (member.name.n)
        full = kt_str_from(kt_arena_printf(
            p->arena, "%.*s.%.*s", KT_STR_ARG(link->port.text), KT_STR_ARG(member.name)));
    int port = kt_op_port_find(op, full);
    if (port < 0 || !is_kind(op, port, kind)) {
        kt_diag_error(p->diag, KT_RULE_STEP, link->name.at,
            "'%.*s' brings '%.*s', which '%.*s' does not take", KT_STR_ARG(link->name.text),
            KT_STR_ARG(full), KT_STR_ARG(op->name));
        near_ports(p, op, kind, full, true);
        return false;
    }
    if (b->ports[port] >= 0)
        return kt_diag_error(p->diag, KT_RULE_STEP, link->port.at,
            "%s '%.*s' of '%.*s' is given twice", section_names[kind], KT_STR_ARG(full),
            KT_STR_ARG(op->name));
    b->ports[port] = member.tensor;
    b->port_at[port] = link->name.at;
    return true;
}

static bool take_links(
    kt_planner *p, kt_bound *b, kt_scope *scope, const kt_outer *outer, kt_port_kind kind) {
    const kt_step *step = b->step;
    const kt_link *links = kind == KT_PORT_INPUT ? step->in : step->inout;
    int n_links = kind == KT_PORT_INPUT ? step->n_in : step->n_inout;
    bool ok = true;
    for (int i = 0; i < n_links; i++) {
        const kt_link *link = &links[i];
        if (!has_group(b->op, kind, link->port.text)) {
            ok = kt_diag_error(p->diag, KT_RULE_STEP, link->port.at, "op '%.*s' has no %s '%.*s'",
                KT_STR_ARG(b->op->name), section_names[kind], KT_STR_ARG(link->port.text));
            near_ports(p, b->op, kind, link->port.text, true);
            continue;
        }
        int port = kt_op_port_find(b->op, link->port.text);
        if (absent_outside(outer, link->name.text)) {
            if (port >= 0 && b->op->ports[port].type.optional) continue;
            ok = kt_diag_error(p->diag, KT_RULE_STEP, link->name.at,
                "'%.*s' may be absent, '%.*s' of '%.*s' may not", KT_STR_ARG(link->name.text),
                KT_STR_ARG(link->port.text), KT_STR_ARG(b->op->name));
            continue;
        }
        int n;
        kt_member *members = kt_scope_group(p, scope, link->name, &n);
        ok = ok && n > 0;
        for (int k = 0; k < n; k++) ok = bring(p, b, link, kind, members[k]) && ok;
    }
    return ok;
}

static bool check_missing(kt_planner *p, const kt_bound *b) {
    bool ok = true;
    for (int i = 0; i < b->op->n_ports; i++) {
        const kt_op_port *port = &b->op->ports[i];
        if (port->kind == KT_PORT_OUTPUT || b->ports[i] >= 0 || port->type.optional) continue;
        ok = kt_diag_error(p->diag, KT_RULE_STEP, b->step->op.at, "%s '%.*s' of '%.*s' is missing",
            section_names[port->kind], KT_STR_ARG(port->name), KT_STR_ARG(b->op->name));
        kt_diag_note_at(p->diag, port->at, "it is %.*s", KT_STR_ARG(port->type.text));
    }
    return ok;
}

// ---- types and dims

static bool mismatch(kt_planner *p, const kt_bound *b, int port) {
    const kt_op_port *want = &b->op->ports[port];
    const kt_tensor *got = &p->tensors.at[b->ports[port]];
    kt_diag_error(p->diag, KT_RULE_TYPE, b->port_at[port], "%s '%.*s' of '%.*s' is %.*s, got %s",
        section_names[want->kind], KT_STR_ARG(want->name), KT_STR_ARG(b->op->name),
        KT_STR_ARG(want->type.text), kt_plan_type_text(p, b->ports[port]));
    if (got->at.source)
        kt_diag_note_at(p->diag, got->at, "'%.*s' is declared", KT_STR_ARG(got->name));
    return false;
}

static bool bind_dtype(kt_planner *p, kt_bound *b, int port) {
    const kt_type *want = &b->op->ports[port].type;
    const kt_tensor *got = &p->tensors.at[b->ports[port]];
    if (want->base == KT_BASE_LINEAR || got->home == KT_HOME_LINEAR)
        return (want->base == KT_BASE_LINEAR && got->home == KT_HOME_LINEAR) ||
               mismatch(p, b, port);
    if (got->home == KT_HOME_HOST) return mismatch(p, b, port);
    if (want->base == KT_BASE_DTYPE) return want->dtype == got->dtype || mismatch(p, b, port);
    int var = kt_op_typevar_find(b->op, want->var);
    KT_ASSERT(var >= 0);
    const kt_op_typevar *v = &b->op->typevars[var];
    bool allowed = false;
    for (int i = 0; i < v->n_choices; i++) allowed = allowed || v->choices[i] == got->dtype;
    if (!allowed) return mismatch(p, b, port);
    if (b->type_known[var] && b->types[var] != got->dtype) {
        mismatch(p, b, port);
        kt_diag_note(p->diag, "%.*s = %s from another input", KT_STR_ARG(v->name),
            kt_dtype_name(b->types[var]));
        return false;
    }
    b->type_known[var] = true;
    b->types[var] = got->dtype;
    return true;
}

// The type as the contract says it, what came, and where each dim got its value.
static bool shape_error(kt_planner *p, const kt_bound *b, int port) {
    const kt_op_port *want = &b->op->ports[port];
    const kt_tensor *got = &p->tensors.at[b->ports[port]];
    kt_diag_error(p->diag, KT_RULE_SHAPE, b->port_at[port], "%s '%.*s' of '%.*s' is %.*s, got %s",
        section_names[want->kind], KT_STR_ARG(want->name), KT_STR_ARG(b->op->name),
        KT_STR_ARG(want->type.text), kt_plan_type_text(p, b->ports[port]));
    for (int i = 0; i < want->type.rank; i++) {
        kt_str name;
        int64_t add;
        if (!kt_expr_is_axis(want->type.axis[i], &name, &add) || name.n == 0) continue;
        int dim = kt_op_dim_find(b->op, name);
        int from = b->dim_from[dim];
        if (from == FROM_NOTHING || from == port) continue;
        kt_buf buf = {0};
        kt_axis_print(p, b->dims[dim], &buf);
        kt_str source = from >= 0 ? b->op->ports[from].name : KT_STR("dims");
        kt_diag_note_at(p->diag, b->dim_at[dim], "%.*s = %s from '%.*s'", KT_STR_ARG(name), buf.at,
            KT_STR_ARG(source));
        kt_buf_deinit(&buf);
    }
    if (got->at.source)
        kt_diag_note_at(p->diag, got->at, "'%.*s' is declared", KT_STR_ARG(got->name));
    return false;
}

static bool bind_axis(kt_planner *p, kt_bound *b, int port, int i) {
    kt_axis size = p->tensors.at[b->ports[port]].axis[i], value;
    kt_str name;
    int64_t add;
    bool form = kt_expr_is_axis(b->op->ports[port].type.axis[i], &name, &add);
    KT_ASSERT(form); // loader/op refuses others
    if (name.n == 0) return kt_axis_same(size, kt_axis_fixed(add)) || shape_error(p, b, port);
    int dim = kt_op_dim_find(b->op, name);
    KT_ASSERT(dim >= 0);
    if (!kt_axis_add(size, -add, &value)) return shape_error(p, b, port);
    if (b->dim_from[dim] != FROM_NOTHING)
        return kt_axis_same(b->dims[dim], value) || shape_error(p, b, port);
    b->dims[dim] = value;
    b->dim_from[dim] = port;
    b->dim_at[dim] = b->port_at[port];
    return true;
}

static bool bind_ports(kt_planner *p, kt_bound *b) {
    bool ok = true;
    for (int i = 0; i < b->op->n_ports; i++) {
        if (b->op->ports[i].kind == KT_PORT_OUTPUT || b->ports[i] < 0) continue;
        const kt_tensor *got = &p->tensors.at[b->ports[i]];
        if (!bind_dtype(p, b, i)) {
            ok = false;
            continue;
        }
        if (got->rank != b->op->ports[i].type.rank) {
            ok = mismatch(p, b, i);
            continue;
        }
        bool fits = true;
        for (int a = 0; fits && a < got->rank; a++) fits = bind_axis(p, b, i, a);
        ok = ok && fits;
    }
    return ok;
}

// What a step changes is no weight, which the next picture needs, and no other port of the step:
// kernels read and write through pointers of their own.
static bool check_changed(kt_planner *p, const kt_bound *b) {
    for (int i = 0; i < b->op->n_ports; i++) {
        if (!is_kind(b->op, i, KT_PORT_INOUT) || b->ports[i] < 0) continue;
        const kt_tensor *t = &p->tensors.at[b->ports[i]];
        kt_str name = b->op->ports[i].name;
        if (t->home == KT_HOME_VECTOR)
            return kt_diag_error(p->diag, KT_RULE_STEP, b->port_at[i],
                "'%.*s' is a weight, and '%.*s' changes its '%.*s'", KT_STR_ARG(t->name),
                KT_STR_ARG(b->op->name), KT_STR_ARG(name));
        for (int k = 0; k < b->op->n_ports; k++) {
            if (k == i || b->ports[k] != b->ports[i]) continue;
            return kt_diag_error(p->diag, KT_RULE_STEP, b->port_at[i],
                "'%.*s' changes its '%.*s' and gets the same tensor as '%.*s'",
                KT_STR_ARG(b->op->name), KT_STR_ARG(name), KT_STR_ARG(b->op->ports[k].name));
        }
    }
    return true;
}

static bool take_dims(kt_planner *p, kt_bound *b, const kt_symbols *symbols) {
    bool ok = true;
    kt_str *known = KT_NEW_ARRAY(p->arena, kt_str, b->op->n_dims);
    for (int i = 0; i < b->op->n_dims; i++) known[i] = b->op->dims[i].name;
    for (int i = 0; i < b->step->n_dims; i++) {
        const kt_given *given = &b->step->dims[i];
        int dim = kt_op_dim_find(b->op, given->name.text);
        if (dim < 0) {
            ok = kt_diag_error(p->diag, KT_RULE_STEP, given->name.at,
                "'%.*s' is no dim of op '%.*s'", KT_STR_ARG(given->name.text),
                KT_STR_ARG(b->op->name));
            kt_diag_near(p->diag, given->name.text, known, (size_t)b->op->n_dims, true);
            continue;
        }
        if (b->dim_from[dim] >= 0) {
            ok = kt_diag_error(p->diag, KT_RULE_STEP, given->name.at,
                "dim '%.*s' of '%.*s' is already fixed by '%.*s'", KT_STR_ARG(given->name.text),
                KT_STR_ARG(b->op->name), KT_STR_ARG(b->op->ports[b->dim_from[dim]].name));
            continue;
        }
        const kt_expr *expr = kt_expr_node(p->arena, given->value, p->diag);
        if (!expr || !kt_plan_size(p, symbols, expr, "a dim", true, &b->dims[dim])) {
            ok = false;
            continue;
        }
        b->dim_from[dim] = FROM_STEP;
        b->dim_at[dim] = given->name.at;
    }
    return ok;
}

static bool settle_dims(kt_planner *p, kt_bound *b) {
    bool ok = true;
    for (int i = 0; i < b->op->n_dims; i++) {
        const kt_op_dim *dim = &b->op->dims[i];
        if (b->dim_from[i] == FROM_NOTHING) {
            if (dim->solved_by >= 0 && b->op->ports[dim->solved_by].type.optional) {
                b->dims[i] = kt_axis_fixed(0);
                continue;
            }
            ok = kt_diag_error(p->diag, KT_RULE_STEP, b->step->op.at,
                "dim '%.*s' of '%.*s' is fixed by no input: give it under 'dims'",
                KT_STR_ARG(dim->name), KT_STR_ARG(b->op->name));
            kt_diag_note_at(
                p->diag, dim->at, "%.*s: %.*s", KT_STR_ARG(dim->name), KT_STR_ARG(dim->doc));
            continue;
        }
        if (b->dims[i].max > INT32_MAX) { // what a kernel's argument holds
            ok = kt_diag_error(p->diag, KT_RULE_LIMIT, b->dim_at[i],
                "dim '%.*s' of '%.*s' is %" PRId64 ", which does not fit in 32 bits",
                KT_STR_ARG(dim->name), KT_STR_ARG(b->op->name), b->dims[i].max);
            continue;
        }
        if (dim->binding != KT_BINDING_BUILD || b->dims[i].var < 0) continue;
        kt_buf buf = {0};
        kt_axis_print(p, b->dims[i], &buf);
        ok = kt_diag_error(p->diag, KT_RULE_SHAPE, b->dim_at[i],
            "dim '%.*s' of '%.*s' is bound when building, but '%s' changes from request to request",
            KT_STR_ARG(dim->name), KT_STR_ARG(b->op->name), buf.at);
        kt_diag_note_at(p->diag, dim->at, "the dim is declared");
        kt_buf_deinit(&buf);
    }
    return ok;
}

static bool settle_types(kt_planner *p, kt_bound *b) {
    bool ok = true;
    for (int i = 0; i < b->step->n_types; i++) {
        const kt_given *given = &b->step->types[i];
        int var = kt_op_typevar_find(b->op, given->name.text);
        kt_dtype dtype;
        if (var < 0) {
            ok = kt_diag_error(p->diag, KT_RULE_STEP, given->name.at,
                "'%.*s' is no type of op '%.*s'", KT_STR_ARG(given->name.text),
                KT_STR_ARG(b->op->name));
            continue;
        }
        const kt_op_typevar *v = &b->op->typevars[var];
        bool allowed =
            given->value->kind == KT_NODE_SCALAR && kt_dtype_find(given->value->text, &dtype);
        bool listed = false;
        kt_str *known = KT_NEW_ARRAY(p->arena, kt_str, v->n_choices);
        for (int k = 0; k < v->n_choices; k++) {
            known[k] = kt_str_from(kt_dtype_name(v->choices[k]));
            listed = listed || (allowed && v->choices[k] == dtype);
        }
        if (!listed || (b->type_known[var] && b->types[var] != dtype)) {
            ok = kt_diag_error(p->diag, KT_RULE_TYPE, given->value->at,
                "type '%.*s' of '%.*s' cannot be '%.*s'", KT_STR_ARG(v->name),
                KT_STR_ARG(b->op->name), KT_STR_ARG(given->value->text));
            kt_diag_near(p->diag, given->value->text, known, (size_t)v->n_choices, true);
            continue;
        }
        b->types[var] = dtype;
        b->type_known[var] = true;
    }
    for (int i = 0; i < b->op->n_typevars; i++)
        if (!b->type_known[i]) b->types[i] = b->op->typevars[i].choices[0];
    return ok;
}

static bool check_require(kt_planner *p, const kt_bound *b) {
    kt_symbols symbols = kt_bound_symbols(b);
    kt_env env = kt_symbols_env(&symbols);
    bool ok = true;
    for (int i = 0; i < b->op->n_require; i++) {
        const kt_expr *expr = b->op->require[i];
        kt_value holds;
        if (!kt_expr_eval(expr, &env, "a requirement", p->diag, &holds)) {
            ok = false;
            continue;
        }
        if (holds.r != 0) continue;
        ok = kt_diag_error(p->diag, KT_RULE_REQUIRE, b->step->op.at, "'%.*s' requires %.*s: %s",
            KT_STR_ARG(b->op->name), KT_STR_ARG(kt_expr_text(expr)),
            kt_plan_values_text(p, &symbols, expr));
        kt_diag_note_at(p->diag, kt_expr_at(expr), "required");
    }
    return ok;
}

bool kt_plan_bind(kt_planner *p, kt_bound *b, kt_scope *scope, const kt_outer *outer) {
    const kt_op *op = b->op;
    b->ports = KT_NEW_ARRAY(p->arena, int, op->n_ports);
    b->port_at = KT_NEW_ARRAY(p->arena, kt_place, op->n_ports);
    b->dims = KT_NEW_ARRAY(p->arena, kt_axis, op->n_dims);
    b->dim_from = KT_NEW_ARRAY(p->arena, int, op->n_dims);
    b->dim_at = KT_NEW_ARRAY(p->arena, kt_place, op->n_dims);
    b->types = KT_NEW_ARRAY(p->arena, kt_dtype, op->n_typevars);
    b->type_known = KT_NEW_ARRAY(p->arena, bool, op->n_typevars);
    for (int i = 0; i < op->n_ports; i++) b->ports[i] = -1;
    for (int i = 0; i < op->n_dims; i++) {
        b->dim_from[i] = FROM_NOTHING;
        b->dims[i] = kt_axis_fixed(0);
    }
    bool ok = take_links(p, b, scope, outer, KT_PORT_INPUT);
    ok = take_links(p, b, scope, outer, KT_PORT_INOUT) && ok;
    if (!ok || !check_missing(p, b) || !bind_ports(p, b) || !check_changed(p, b)) return false;
    kt_symbols symbols = outer ? kt_bound_symbols(outer->bound) : kt_pipe_symbols(p);
    ok = take_dims(p, b, &symbols) && settle_dims(p, b);
    ok = settle_types(p, b) && ok;
    return ok && check_require(p, b) && kt_plan_params(p, b, outer);
}
