// Binds one use of a host step: like an op's, against the closed table.
#include "runtime/plan/plan_internal.h"

#include "loader/pipeline_internal.h"

#include <inttypes.h>

// Sizes of a host step by name.
typedef struct host_dim {
    kt_str name;
    kt_axis axis;
    kt_place at;
} host_dim;

typedef struct host_bound {
    const kt_host_step *host;
    const kt_step *step;
    kt_str address;
    KT_VEC(host_dim) dims;
    int *in, *inout, *out, *decides;
} host_bound;

static bool host_find(const void *ctx, kt_str name, kt_symbol *out) {
    const host_bound *b = ctx;
    for (size_t i = 0; i < b->dims.n; i++) {
        if (!kt_str_eq(b->dims.at[i].name, name)) continue;
        out->axis = b->dims.at[i].axis;
        out->value = kt_value_int(out->axis.max);
        return true;
    }
    return false;
}

// ---- sizes that the step decides

static int pipe_dim(const kt_planner *p, kt_str name) {
    for (int i = 0; i < p->pipeline->n_dims; i++)
        if (kt_str_eq(p->pipeline->dims[i].name.text, name)) return i;
    return -1;
}

static int decided_index(const kt_host_step *host, kt_str name) {
    for (int i = 0; i < host->n_decides; i++)
        if (kt_str_eq(host->decides[i], name)) return i;
    return -1;
}

static bool take_dim(kt_planner *p, host_bound *b, const kt_given *given) {
    int mine = decided_index(b->host, given->name.text);
    if (mine < 0) {
        kt_diag_error(p->diag, KT_RULE_STEP, given->name.at, "host step '%.*s' decides no '%.*s'",
            KT_STR_ARG(b->host->name), KT_STR_ARG(given->name.text));
        kt_diag_near(p->diag, given->name.text, b->host->decides, (size_t)b->host->n_decides, true);
        return false;
    }
    kt_str name = given->value->kind == KT_NODE_SCALAR ? given->value->text : (kt_str){"", 0};
    int dim = pipe_dim(p, name);
    if (dim < 0) {
        kt_str *known = KT_NEW_ARRAY(p->arena, kt_str, p->pipeline->n_dims);
        for (int i = 0; i < p->pipeline->n_dims; i++) known[i] = p->pipeline->dims[i].name.text;
        kt_diag_error(p->diag, KT_RULE_NAME, given->value->at, "'%.*s' is no dim of the pipeline",
            KT_STR_ARG(name));
        kt_diag_near(p->diag, name, known, (size_t)p->pipeline->n_dims, true);
        return false;
    }
    int host = (int)(b->host - p->host) + 1;
    if (p->decided_by[dim]) { // what is sized by it would change under its readers
        kt_str other = p->host[p->decided_by[dim] - 1].name;
        return kt_diag_error(p->diag, KT_RULE_STEP, given->value->at,
            "dim '%.*s' is decided by '%.*s' already", KT_STR_ARG(name), KT_STR_ARG(other));
    }
    p->decided_by[dim] = host;
    kt_symbols symbols = kt_pipe_symbols(p);
    kt_symbol symbol;
    bool found = symbols.find(symbols.ctx, name, &symbol);
    KT_ASSERT(found);
    b->decides[mine] = p->dim_index[dim];
    host_dim size = {b->host->decides[mine], symbol.axis, given->value->at};
    KT_PUSH(p->arena, &b->dims, size);
    return true;
}

static bool has_axis(const kt_type *type, kt_str dim) {
    for (int i = 0; i < type->rank; i++) {
        kt_str name;
        int64_t add;
        if (kt_expr_is_axis(type->axis[i], &name, &add) && kt_str_eq(name, dim)) return true;
    }
    return false;
}

static bool is_linked(const host_bound *b, kt_str port) {
    for (int i = 0; i < b->step->n_out; i++)
        if (kt_str_eq(b->step->out[i].port.text, port)) return true;
    return false;
}

// Is the size only that of outputs which this step leaves out?
static bool of_absent_outputs(const host_bound *b, kt_str dim) {
    bool absent = false;
    for (int i = 0; i < b->host->n_out; i++) {
        const kt_host_port *port = &b->host->out[i];
        if (!has_axis(&port->type, dim)) continue;
        if (!port->type.optional || is_linked(b, port->name)) return false;
        absent = true;
    }
    return absent;
}

static bool take_dims(kt_planner *p, host_bound *b) {
    bool ok = true;
    for (int i = 0; i < b->host->n_decides; i++) b->decides[i] = -1;
    for (int i = 0; i < b->step->n_dims; i++) ok = take_dim(p, b, &b->step->dims[i]) && ok;
    for (int i = 0; ok && i < b->host->n_decides; i++) {
        kt_symbol symbol;
        if (host_find(b, b->host->decides[i], &symbol)) continue;
        if (of_absent_outputs(b, b->host->decides[i])) continue;
        ok = kt_diag_error(p->diag, KT_RULE_STEP, b->step->host.at,
            "host step '%.*s' decides '%.*s': say under 'dims' which dim of the pipeline that is",
            KT_STR_ARG(b->host->name), KT_STR_ARG(b->host->decides[i]));
    }
    return ok;
}

// ---- inputs

static bool mismatch(
    kt_planner *p, const host_bound *b, const kt_host_port *port, int tensor, kt_place at) {
    kt_diag_error(p->diag, KT_RULE_TYPE, at, "'%.*s' of host step '%.*s' is %.*s, got %s",
        KT_STR_ARG(port->name), KT_STR_ARG(b->host->name), KT_STR_ARG(port->type.text),
        kt_plan_type_text(p, tensor));
    const kt_tensor *got = &p->tensors.at[tensor];
    if (got->at.source)
        kt_diag_note_at(p->diag, got->at, "'%.*s' is declared", KT_STR_ARG(got->name));
    return false;
}

static bool bind_axis(
    kt_planner *p, host_bound *b, const kt_expr *expr, kt_axis size, kt_place at) {
    kt_str name;
    int64_t add;
    bool form = kt_expr_is_axis(expr, &name, &add);
    KT_ASSERT(form);
    if (name.n == 0) return kt_axis_same(size, kt_axis_fixed(add));
    kt_axis value;
    kt_symbol symbol;
    if (!kt_axis_add(size, -add, &value)) return false;
    if (host_find(b, name, &symbol)) return kt_axis_same(symbol.axis, value);
    host_dim dim = {name, value, at};
    KT_PUSH(p->arena, &b->dims, dim);
    return true;
}

static bool bind_port(
    kt_planner *p, host_bound *b, const kt_host_port *port, int tensor, kt_place at) {
    const kt_tensor *got = &p->tensors.at[tensor];
    bool host = port->type.base == KT_BASE_HOST;
    if (host != (got->home == KT_HOME_HOST)) return mismatch(p, b, port, tensor, at);
    if (host) return port->type.host == got->host || mismatch(p, b, port, tensor, at);
    if (got->home == KT_HOME_LINEAR || port->type.dtype != got->dtype ||
        port->type.rank != got->rank)
        return mismatch(p, b, port, tensor, at);
    for (int i = 0; i < got->rank; i++)
        if (!bind_axis(p, b, port->type.axis[i], got->axis[i], at))
            return mismatch(p, b, port, tensor, at);
    return true;
}

static int find_port(const kt_host_port *ports, int n, kt_str name) {
    for (int i = 0; i < n; i++)
        if (kt_str_eq(ports[i].name, name)) return i;
    return -1;
}

static const kt_str *port_names(kt_planner *p, const kt_host_port *ports, int n) {
    kt_str *out = KT_NEW_ARRAY(p->arena, kt_str, n);
    for (int i = 0; i < n; i++) out[i] = ports[i].name;
    return out;
}

// One section of the step, `in` or `inout`.
typedef struct section {
    const char *what;
    const kt_link *links;
    int n_links;
    const kt_host_port *ports;
    int n_ports;
    int *tensors;
} section;

static bool take_links(kt_planner *p, host_bound *b, kt_scope *scope, const section *s) {
    bool ok = true;
    for (int i = 0; i < s->n_ports; i++) s->tensors[i] = -1;
    for (int i = 0; i < s->n_links; i++) {
        const kt_link *link = &s->links[i];
        int n;
        kt_member *members = kt_scope_group(p, scope, link->name, &n);
        ok = ok && n > 0;
        for (int k = 0; k < n; k++) {
            kt_str full = link->port.text;
            if (members[k].name.n)
                full = kt_str_from(kt_arena_printf(
                    p->arena, "%.*s.%.*s", KT_STR_ARG(full), KT_STR_ARG(members[k].name)));
            int port = find_port(s->ports, s->n_ports, full);
            if (port < 0) {
                ok = kt_diag_error(p->diag, KT_RULE_STEP, link->name.at,
                    "'%.*s' brings '%.*s', which host step '%.*s' does not take",
                    KT_STR_ARG(link->name.text), KT_STR_ARG(full), KT_STR_ARG(b->host->name));
                kt_diag_near(
                    p->diag, full, port_names(p, s->ports, s->n_ports), (size_t)s->n_ports, true);
                continue;
            }
            s->tensors[port] = members[k].tensor;
            ok = bind_port(p, b, &s->ports[port], members[k].tensor, link->name.at) && ok;
        }
    }
    for (int i = 0; ok && i < s->n_ports; i++)
        if (s->tensors[i] < 0 && !s->ports[i].type.optional)
            ok = kt_diag_error(p->diag, KT_RULE_STEP, b->step->host.at,
                "%s '%.*s' of host step '%.*s' is missing", s->what, KT_STR_ARG(s->ports[i].name),
                KT_STR_ARG(b->host->name));
    return ok;
}

// ---- outputs

static bool make_output(
    kt_planner *p, host_bound *b, kt_scope *scope, int port, const kt_link *link, kt_str member) {
    const kt_host_port *out = &b->host->out[port];
    kt_ref name = link->name;
    if (member.n)
        name.text = kt_str_from(kt_arena_printf(
            p->arena, "%.*s.%.*s", KT_STR_ARG(link->name.text), KT_STR_ARG(member)));
    kt_tensor t = {.at = name.at, .weight = -1, .stage = p->stage, .rank = out->type.rank};
    t.name = kt_str_from(
        kt_arena_printf(p->arena, "%.*s.%.*s", KT_STR_ARG(b->address), KT_STR_ARG(name.text)));
    t.each = out->type.each;
    t.dtype = out->type.dtype;
    t.host = out->type.host;
    t.home = out->type.base == KT_BASE_HOST ? KT_HOME_HOST : KT_HOME_UPLOAD;
    kt_symbols symbols = {.ctx = b, .find = host_find};
    for (int i = 0; i < t.rank; i++)
        if (!kt_plan_size(
                p, &symbols, out->type.axis[i], "the type of an output", true, &t.axis[i]))
            return false;
    b->out[port] = kt_plan_tensor(p, &t);
    return kt_scope_define(p, scope, name, b->out[port]);
}

static bool make_outputs(kt_planner *p, host_bound *b, kt_scope *scope) {
    const kt_host_step *host = b->host;
    bool ok = true;
    for (int i = 0; i < host->n_out; i++) b->out[i] = -1;
    for (int i = 0; i < b->step->n_out; i++) {
        const kt_link *link = &b->step->out[i];
        bool any = false;
        for (int k = 0; k < host->n_out; k++) {
            kt_str member;
            if (!kt_name_in_group(host->out[k].name, link->port.text, &member)) continue;
            any = true;
            ok = make_output(p, b, scope, k, link, member) && ok;
        }
        if (any) continue;
        ok = kt_diag_error(p->diag, KT_RULE_STEP, link->port.at,
            "host step '%.*s' has no output '%.*s'", KT_STR_ARG(host->name),
            KT_STR_ARG(link->port.text));
        kt_diag_near(p->diag, link->port.text, port_names(p, host->out, host->n_out),
            (size_t)host->n_out, true);
    }
    for (int i = 0; ok && i < host->n_out; i++)
        if (b->out[i] < 0 && !host->out[i].type.optional)
            ok = kt_diag_error(p->diag, KT_RULE_STEP, b->step->host.at,
                "output '%.*s' of host step '%.*s' gets no name", KT_STR_ARG(host->out[i].name),
                KT_STR_ARG(host->name));
    return ok;
}

static const kt_host_step *find_host(kt_planner *p, kt_ref name) {
    kt_str *known = KT_NEW_ARRAY(p->arena, kt_str, p->n_host);
    for (int i = 0; i < p->n_host; i++) {
        known[i] = p->host[i].name;
        if (kt_str_eq(known[i], name.text)) return &p->host[i];
    }
    kt_diag_error(
        p->diag, KT_RULE_NAME, name.at, "unknown host step '%.*s'", KT_STR_ARG(name.text));
    kt_diag_near(p->diag, name.text, known, (size_t)p->n_host, true);
    return NULL;
}

bool kt_plan_host_step(kt_planner *p, const kt_step *step, kt_scope *scope, kt_str address) {
    const kt_host_step *host = find_host(p, step->host);
    if (!host) return false;
    host_bound b = {.host = host, .step = step, .address = address};
    b.in = KT_NEW_ARRAY(p->arena, int, host->n_in);
    b.inout = KT_NEW_ARRAY(p->arena, int, host->n_inout);
    b.out = KT_NEW_ARRAY(p->arena, int, host->n_out);
    b.decides = KT_NEW_ARRAY(p->arena, int, host->n_decides);
    section in = {"input", step->in, step->n_in, host->in, host->n_in, b.in};
    section inout = {"inout", step->inout, step->n_inout, host->inout, host->n_inout, b.inout};
    kt_host_call *call = KT_NEW(p->arena, kt_host_call);
    bool ok = take_dims(p, &b);
    ok = kt_plan_host_params(p, step, host, call) && ok;
    ok = ok && take_links(p, &b, scope, &in) && take_links(p, &b, scope, &inout) &&
         make_outputs(p, &b, scope);
    if (!ok) return false;
    call->step = host;
    call->address = address;
    call->at = step->host.at;
    call->in = b.in;
    call->inout = b.inout;
    call->out = b.out;
    call->dims = b.decides;
    for (int i = 0; i < host->n_in; i++) kt_plan_touch(p, b.in[i]);
    for (int i = 0; i < host->n_inout; i++) kt_plan_touch(p, b.inout[i]);
    for (int i = 0; i < host->n_out; i++) kt_plan_touch(p, b.out[i]);
    kt_plan_step made = {.host = call};
    kt_plan_push(p, made);
    return true;
}
