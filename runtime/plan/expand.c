// Stages, repeats and bodies, walked down to a flat list of steps.
#include "runtime/plan/plan_internal.h"

#include "loader/pipeline_internal.h"

#include <inttypes.h>

void kt_plan_touch(kt_planner *p, int tensor) {
    if (tensor < 0) return;
    kt_life *life = &p->lives.at[p->lives.at[tensor].root];
    if (life->first < 0) life->first = p->time;
    life->last = p->time;
}

void kt_plan_push(kt_planner *p, kt_plan_step step) {
    KT_PUSH(p->arena, &p->steps, step);
    p->time++;
}

// ---- one use of an op

static kt_str join(kt_planner *p, kt_str a, const char *between, kt_str b) {
    return kt_str_from(
        kt_arena_printf(p->arena, "%.*s%s%.*s", KT_STR_ARG(a), between, KT_STR_ARG(b)));
}

// Entries of a scope from `from` on, as names of what the list makes.
static void record_made(
    kt_planner *p, const kt_scope *scope, size_t from, kt_str path, const char *between) {
    for (size_t i = from; i < scope->entries.n; i++) {
        const kt_scope_entry *entry = &scope->entries.at[i];
        kt_plan_made made = {.name = join(p, path, between, entry->name), .tensor = entry->tensor};
        if (*between == '/') made.kind = KT_MADE_BODY;
        if (entry->carried) made.kind = KT_MADE_LAST;
        KT_PUSH(p->arena, &p->made, made);
    }
}

static const kt_link *out_link(const kt_step *step, kt_str port) {
    for (int i = 0; i < step->n_out; i++)
        if (kt_str_eq(step->out[i].port.text, port)) return &step->out[i];
    return NULL;
}

static bool check_out_links(kt_planner *p, const kt_bound *b) {
    const kt_op *op = b->op;
    bool ok = true;
    KT_VEC(kt_str) known = {0};
    for (int i = 0; i < op->n_ports; i++)
        if (op->ports[i].kind == KT_PORT_OUTPUT) KT_PUSH(p->arena, &known, op->ports[i].name);
    for (int i = 0; i < b->step->n_out; i++) {
        const kt_ref *port = &b->step->out[i].port;
        int index = kt_op_port_find(op, port->text);
        if (index >= 0 && op->ports[index].kind == KT_PORT_OUTPUT) continue;
        ok = kt_diag_error(p->diag, KT_RULE_STEP, port->at, "op '%.*s' has no output '%.*s'",
            KT_STR_ARG(op->name), KT_STR_ARG(port->text));
        kt_diag_near(p->diag, port->text, known.at, known.n, true);
    }
    for (int i = 0; i < op->n_ports; i++) {
        if (op->ports[i].kind != KT_PORT_OUTPUT || out_link(b->step, op->ports[i].name)) continue;
        ok = kt_diag_error(p->diag, KT_RULE_STEP, b->step->op.at,
            "output '%.*s' of '%.*s' gets no name", KT_STR_ARG(op->ports[i].name),
            KT_STR_ARG(op->name));
    }
    return ok;
}

// The outputs as the contract says them, by port.
static bool output_tensors(kt_planner *p, const kt_bound *b, kt_tensor *out) {
    kt_symbols symbols = kt_bound_symbols(b);
    for (int i = 0; i < b->op->n_ports; i++) {
        const kt_op_port *port = &b->op->ports[i];
        if (port->kind != KT_PORT_OUTPUT) continue;
        const kt_link *link = out_link(b->step, port->name);
        kt_tensor *t = &out[i];
        *t = (kt_tensor){.home = KT_HOME_ACT, .weight = -1, .stage = p->stage};
        t->name = join(p, b->address, ".", link->name.text);
        t->at = link->name.at;
        t->rank = port->type.rank;
        t->dtype = port->type.base == KT_BASE_VAR
                       ? b->types[kt_op_typevar_find(b->op, port->type.var)]
                       : port->type.dtype;
        for (int a = 0; a < t->rank; a++)
            if (!kt_plan_size(
                    p, &symbols, port->type.axis[a], "the type of an output", true, &t->axis[a]))
                return false;
    }
    return true;
}

static bool same_type(const kt_tensor *a, const kt_tensor *b) {
    bool same = a->dtype == b->dtype && a->rank == b->rank && a->home == b->home;
    for (int i = 0; same && i < a->rank; i++) same = kt_axis_same(a->axis[i], b->axis[i]);
    return same;
}

static bool check_body_unused(kt_planner *p, const kt_bound *b, const kt_scope *inner) {
    int64_t seen;
    bool ok = true;
    if (kt_table_find(&p->proved, b->op->name, &seen)) return true;
    for (size_t i = 0; i < inner->entries.n; i++) {
        const kt_scope_entry *entry = &inner->entries.at[i];
        if (entry->used) continue;
        ok = kt_diag_error(p->diag, KT_RULE_NAME, entry->at,
            "'%.*s' in the body of '%.*s' is never used", KT_STR_ARG(entry->name),
            KT_STR_ARG(b->op->name));
    }
    if (ok) kt_table_set(&p->proved, b->op->name, 1);
    return ok;
}

static bool take_body_outputs(kt_planner *p, kt_bound *b, kt_scope *inner, const kt_tensor *want) {
    bool ok = true;
    for (int i = 0; i < b->op->n_ports; i++) {
        const kt_op_port *port = &b->op->ports[i];
        if (port->kind != KT_PORT_OUTPUT) continue;
        kt_scope_entry *entry = kt_scope_find(inner, port->name);
        if (!entry) {
            ok =
                kt_diag_error(p->diag, KT_RULE_STEP, port->at, "the body of '%.*s' makes no '%.*s'",
                    KT_STR_ARG(b->op->name), KT_STR_ARG(port->name));
            continue;
        }
        entry->used = true;
        b->ports[i] = entry->tensor;
        if (same_type(&p->tensors.at[entry->tensor], &want[i])) continue;
        int expected = kt_plan_tensor(p, &want[i]);
        ok = kt_diag_error(p->diag, KT_RULE_SHAPE, entry->at,
            "the body of '%.*s' makes '%.*s' as %s, the contract says %s", KT_STR_ARG(b->op->name),
            KT_STR_ARG(port->name), kt_plan_type_text(p, entry->tensor),
            kt_plan_type_text(p, expected));
        kt_diag_note_at(p->diag, port->at, "the contract");
        kt_diag_note_at(p->diag, b->step->op.at, "used");
    }
    return ok;
}

static bool walk_body(kt_planner *p, kt_bound *b, const kt_tensor *want, int depth) {
    kt_scope inner = {0};
    if (depth >= KT_PLAN_BODY_DEPTH)
        return kt_diag_error(p->diag, KT_RULE_LIMIT, b->step->op.at,
            "bodies of '%.*s' go deeper than %d ops: does it use itself?", KT_STR_ARG(b->op->name),
            KT_PLAN_BODY_DEPTH);
    for (int i = 0; i < b->op->n_ports; i++) {
        if (b->ports[i] < 0) continue;
        kt_scope_entry entry = {
            .name = b->op->ports[i].name, .at = b->op->ports[i].at, .tensor = b->ports[i]};
        KT_PUSH(p->arena, &inner.entries, entry);
    }
    kt_outer outer = {b, depth};
    size_t n_ports = inner.entries.n;
    for (int i = 0; i < b->op->n_body; i++) {
        kt_str number = kt_str_from(kt_arena_printf(p->arena, "%d", i));
        if (!kt_plan_op_step(p, &b->op->body[i], &inner, &outer, join(p, b->address, "/", number)))
            return false;
    }
    record_made(p, &inner, n_ports, b->address, "/");
    return take_body_outputs(p, b, &inner, want) && check_body_unused(p, b, &inner);
}

static bool no_variant(kt_planner *p, const kt_bound *b) {
    kt_buf buf = {0};
    for (int i = 0; i < b->op->n_dims; i++) {
        kt_buf_printf(&buf, i ? ", %.*s = " : "%.*s = ", KT_STR_ARG(b->op->dims[i].name));
        kt_axis_print(p, b->dims[i], &buf);
        if (b->dims[i].var >= 0) kt_buf_printf(&buf, " (at most %" PRId64 ")", b->dims[i].max);
    }
    kt_diag_error(p->diag, KT_RULE_VARIANT, b->step->op.at, "no variant of '%.*s' fits %s",
        KT_STR_ARG(b->op->name), buf.n ? buf.at : "");
    kt_diag_note_at(p->diag, b->op->at,
        "a variant needs a 'when' that holds for all smaller sizes "
        "too, and layouts that the weights' formats can be prepared to");
    kt_buf_deinit(&buf);
    return false;
}

static bool choose(kt_planner *p, kt_bound *b, const kt_tensor *want, int depth) {
    const kt_op *op = b->op;
    int before = p->diag->n_errors;
    bool probed = p->probe && depth == 0; // the step of an op test
    kt_str only = probed ? p->probe->variant : KT_STR("");
    bool body = probed && only.n == 0 && op->n_body > 0;
    const kt_variant *variant = p->target.cuda && !body ? kt_plan_select(p, b, only) : NULL;
    if (p->diag->n_errors > before) return false;
    if (!variant && op->n_body) return walk_body(p, b, want, depth);
    if (!variant && p->target.cuda) return no_variant(p, b);
    for (int i = 0; i < op->n_ports; i++)
        if (op->ports[i].kind == KT_PORT_OUTPUT) b->ports[i] = kt_plan_tensor(p, &want[i]);
    return kt_plan_emit(p, b, variant);
}

bool kt_plan_op_step(
    kt_planner *p, const kt_step *step, kt_scope *scope, const kt_outer *outer, kt_str address) {
    const kt_op *op = kt_registry_op(p->registry, step->op, p->diag);
    if (!op) return false;
    if (op->n_prepare_formats > 0 && !p->probe)
        return kt_diag_error(p->diag, KT_RULE_STEP, step->op.at,
            "op '%.*s' prepares weights and cannot be a step", KT_STR_ARG(op->name));
    kt_bound b = {.op = op, .step = step, .address = address};
    kt_tensor *want = KT_NEW_ARRAY(p->arena, kt_tensor, op->n_ports);
    if (!kt_plan_bind(p, &b, scope, outer) || !check_out_links(p, &b)) return false;
    if (!output_tensors(p, &b, want)) return false;
    if (!choose(p, &b, want, outer ? outer->depth + 1 : 0)) return false;
    bool ok = true;
    for (int i = 0; i < op->n_ports; i++) {
        if (op->ports[i].kind != KT_PORT_OUTPUT) continue;
        ok = kt_scope_define(p, scope, out_link(step, op->ports[i].name)->name, b.ports[i]) && ok;
    }
    return ok;
}

// ---- steps of a stage

static bool walk_steps(kt_planner *p, const kt_step *steps, int n, kt_scope *scope, kt_str path,
    const kt_pipe_stage *stage);

static int single(kt_planner *p, kt_scope *scope, kt_ref name) {
    int n;
    kt_member *members = kt_scope_group(p, scope, name, &n);
    if (n == 1 && members[0].name.n == 0) return members[0].tensor;
    if (n)
        kt_diag_error(p->diag, KT_RULE_STEP, name.at, "'%.*s' is a group, one tensor is expected",
            KT_STR_ARG(name.text));
    return -1;
}

static const kt_link *find_link(const kt_link *links, int n, kt_str port) {
    for (int i = 0; i < n; i++)
        if (kt_str_eq(links[i].port.text, port)) return &links[i];
    return NULL;
}

static bool check_carry(kt_planner *p, const kt_step *s) {
    bool ok = true;
    for (int i = 0; i < s->n_carry; i++)
        if (!find_link(s->yield_, s->n_yield, s->carry[i].port.text))
            ok = kt_diag_error(p->diag, KT_RULE_STEP, s->carry[i].port.at,
                "'%.*s' is carried and never yielded", KT_STR_ARG(s->carry[i].port.text));
    for (int i = 0; i < s->n_yield; i++)
        if (!find_link(s->carry, s->n_carry, s->yield_[i].port.text))
            ok = kt_diag_error(p->diag, KT_RULE_STEP, s->yield_[i].port.at,
                "'%.*s' is yielded and never carried", KT_STR_ARG(s->yield_[i].port.text));
    return ok;
}

static bool repeat_count(kt_planner *p, const kt_step *s, int64_t *count) {
    for (int i = 0; i < p->model->n_indexes; i++)
        if (kt_str_eq(p->model->index_names[i], s->repeat.text)) {
            *count = p->model->index_counts[i];
            return true;
        }
    kt_diag_error(p->diag, KT_RULE_NAME, s->repeat.at, "'%.*s' is no index of the model",
        KT_STR_ARG(s->repeat.text));
    kt_diag_near(p->diag, s->repeat.text, p->model->index_names, (size_t)p->model->n_indexes, true);
    return false;
}

static bool next_carried(kt_planner *p, const kt_step *s, kt_scope *inner, int *now) {
    bool ok = true;
    for (int i = 0; i < s->n_carry; i++) {
        const kt_link *yield = find_link(s->yield_, s->n_yield, s->carry[i].port.text);
        int next = single(p, inner, yield->name);
        if (next < 0) return false;
        if (!same_type(&p->tensors.at[next], &p->tensors.at[now[i]]))
            ok = kt_diag_error(p->diag, KT_RULE_SHAPE, yield->name.at,
                "'%.*s' is carried as %s, yielded as %s", KT_STR_ARG(s->carry[i].port.text),
                kt_plan_type_text(p, now[i]), kt_plan_type_text(p, next));
        now[i] = next;
    }
    return ok;
}

static bool check_unused(kt_planner *p, const kt_scope *scope, const char *where) {
    bool ok = true;
    for (size_t i = 0; i < scope->entries.n; i++) {
        const kt_scope_entry *entry = &scope->entries.at[i];
        if (entry->used || entry->carried) continue;
        ok = kt_diag_error(p->diag, KT_RULE_NAME, entry->at, "'%.*s' is made in %s and never used",
            KT_STR_ARG(entry->name), where);
    }
    return ok;
}

static bool walk_repeat(
    kt_planner *p, const kt_step *s, kt_scope *scope, kt_str path, const kt_pipe_stage *stage) {
    int64_t count;
    if (!repeat_count(p, s, &count) || !check_carry(p, s)) return false;
    if (p->n_indexes == KT_PLAN_REPEAT_DEPTH)
        return kt_diag_error(p->diag, KT_RULE_LIMIT, s->repeat.at, "repeats go deeper than %d",
            KT_PLAN_REPEAT_DEPTH);
    for (int i = 0; i < p->n_indexes; i++)
        if (kt_str_eq(p->indexes[i].name, s->repeat.text))
            return kt_diag_error(p->diag, KT_RULE_STEP, s->repeat.at,
                "a repeat over '%.*s' stands in another one over it: $%.*s would mean two numbers",
                KT_STR_ARG(s->repeat.text), KT_STR_ARG(s->repeat.text));
    int *now = KT_NEW_ARRAY(p->arena, int, s->n_carry);
    for (int i = 0; i < s->n_carry; i++) {
        now[i] = single(p, scope, s->carry[i].name);
        if (now[i] < 0) return false;
    }
    for (int64_t k = 0; k < count; k++) {
        kt_scope inner = {.parent = scope};
        for (int i = 0; i < s->n_carry; i++) {
            kt_scope_entry entry = {
                .name = s->carry[i].port.text, .at = s->carry[i].port.at, .tensor = now[i]};
            KT_PUSH(p->arena, &inner.entries, entry);
        }
        p->indexes[p->n_indexes++] = (kt_index){s->repeat.text, k};
        kt_str here = kt_str_from(kt_arena_printf(
            p->arena, "%.*s[%.*s=%" PRId64 "]", KT_STR_ARG(path), KT_STR_ARG(s->repeat.text), k));
        bool ok = walk_steps(p, s->steps, s->n_steps, &inner, here, stage);
        p->n_indexes--;
        if (ok) record_made(p, &inner, (size_t)s->n_carry, here, ".");
        ok = ok && next_carried(p, s, &inner, now) && check_unused(p, &inner, "a repeat");
        if (!ok) return false;
    }
    for (int i = 0; i < s->n_carry; i++) {
        if (!kt_scope_define(p, scope, s->carry[i].port, now[i])) return false;
        scope->entries.at[scope->entries.n - 1].carried = true;
    }
    return true;
}

static bool walk_steps(kt_planner *p, const kt_step *steps, int n, kt_scope *scope, kt_str path,
    const kt_pipe_stage *stage) {
    bool ok = true;
    for (int i = 0; i < n; i++) {
        const kt_step *s = &steps[i];
        if (s->repeat.text.n) {
            ok = walk_repeat(p, s, scope, path, stage) && ok;
            continue;
        }
        kt_str last = s->id.text.n ? s->id.text : kt_str_from(kt_arena_printf(p->arena, "%d", i));
        kt_str address = join(p, path, ".", last);
        if (!s->host.text.n)
            ok = kt_plan_op_step(p, s, scope, NULL, address) && ok;
        else if (stage->graph)
            ok = kt_diag_error(p->diag, KT_RULE_STAGE, s->host.at,
                "stage '%.*s' is a graph and cannot hold the host step '%.*s'",
                KT_STR_ARG(stage->name.text), KT_STR_ARG(s->host.text));
        else
            ok = kt_plan_host_step(p, s, scope, address) && ok;
        if (!ok) return false; // what follows would only repeat the mistake
    }
    return ok;
}

// ---- which dim with buckets a stage touches

typedef struct touched {
    kt_planner *p;
    kt_symbols symbols;
    bool *dims; // by plan dim
} touched;

static void touch_symbol(void *ctx, kt_str name, kt_place at) {
    (void)at;
    touched *t = ctx;
    kt_symbol symbol;
    if (t->symbols.find(t->symbols.ctx, name, &symbol) && symbol.axis.var >= 0)
        t->dims[symbol.axis.var] = true;
}

static void touch_name(touched *t, kt_str name) {
    ptrdiff_t dollar = kt_str_find(name, '$');
    if (dollar > 0) name = kt_str_slice(name, 0, (size_t)dollar - 1);
    kt_str member;
    for (size_t i = 0; i < t->p->top.entries.n; i++) {
        const kt_scope_entry *entry = &t->p->top.entries.at[i];
        if (!kt_name_in_group(entry->name, name, &member)) continue;
        const kt_tensor *tensor = &t->p->tensors.at[entry->tensor];
        for (int a = 0; a < tensor->rank; a++)
            if (tensor->axis[a].var >= 0) t->dims[tensor->axis[a].var] = true;
    }
}

static void touch_steps(touched *t, const kt_step *steps, int n) {
    for (int i = 0; i < n; i++) {
        const kt_step *s = &steps[i];
        for (int k = 0; k < s->n_in; k++) touch_name(t, s->in[k].name.text);
        for (int k = 0; k < s->n_inout; k++) touch_name(t, s->inout[k].name.text);
        for (int k = 0; k < s->n_carry; k++) touch_name(t, s->carry[k].name.text);
        for (int k = 0; k < s->n_dims; k++) {
            const kt_expr *expr = kt_expr_node(t->p->arena, s->dims[k].value, t->p->diag);
            if (expr) kt_expr_names(expr, touch_symbol, t);
        }
        touch_steps(t, s->steps, s->n_steps);
    }
}

// The dim with buckets that the graph stage touches; -1 none, -2 after reporting two.
static int bucket_of(kt_planner *p, const kt_pipe_stage *stage) {
    if (!stage->graph) return -1;
    touched t = {.p = p, .symbols = kt_pipe_symbols(p)};
    t.dims = KT_NEW_ARRAY(p->arena, bool, p->dims.n + 1);
    touch_steps(&t, stage->steps, stage->n_steps);
    int found = -1;
    for (size_t i = 0; i < p->dims.n; i++) {
        if (!t.dims[i] || !p->dims.at[i].n_buckets) continue;
        if (found >= 0) {
            kt_diag_error(p->diag, KT_RULE_STAGE, stage->name.at,
                "graph stage '%.*s' touches two dims with buckets, '%.*s' and '%.*s'",
                KT_STR_ARG(stage->name.text), KT_STR_ARG(p->dims.at[found].name),
                KT_STR_ARG(p->dims.at[i].name));
            return -2;
        }
        found = (int)i;
    }
    return found;
}

// ---- stages

static bool take_each(kt_planner *p, const kt_pipe_stage *ps, kt_scope *scope, kt_stage *out) {
    KT_VEC(int) tensors = {0};
    for (int i = 0; i < ps->n_each; i++) {
        int n;
        kt_member *members = kt_scope_group(p, &p->top, ps->each[i].name, &n);
        if (n == 0) return false;
        for (int k = 0; k < n; k++) {
            if (!p->tensors.at[members[k].tensor].each)
                return kt_diag_error(p->diag, KT_RULE_STAGE, ps->each[i].name.at,
                    "'%.*s' is one value, not a list of batches",
                    KT_STR_ARG(ps->each[i].name.text));
            kt_ref name = ps->each[i].port;
            if (members[k].name.n) name.text = join(p, name.text, ".", members[k].name);
            if (!kt_scope_define(p, scope, name, members[k].tensor)) return false;
            scope->entries.at[scope->entries.n - 1].used = true;
            KT_PUSH(p->arena, &tensors, members[k].tensor);
        }
    }
    out->each = tensors.at;
    out->n_each = (int)tensors.n;
    return true;
}

static bool take_loop(kt_planner *p, const kt_pipe_stage *ps, kt_stage *out) {
    kt_symbols symbols = kt_pipe_symbols(p);
    out->loop = true;
    out->loop_until = single(p, &p->top, ps->loop_until);
    out->loop_read = single(p, &p->top, ps->loop_read);
    if (out->loop_until < 0 || out->loop_read < 0) return false;
    if (!kt_plan_size(p, &symbols, ps->loop_most, "a loop", true, &out->loop_most)) return false;
    const int tensors[] = {out->loop_until, out->loop_read};
    const kt_ref *names[] = {&ps->loop_until, &ps->loop_read};
    for (int i = 0; i < 2; i++) {
        const kt_tensor *t = &p->tensors.at[tensors[i]];
        if (t->home == KT_HOME_STATE && t->dtype == KT_DTYPE_I32) continue;
        return kt_diag_error(p->diag, KT_RULE_STAGE, names[i]->at,
            "a loop watches state of i32, '%.*s' is %s", KT_STR_ARG(names[i]->text),
            kt_plan_type_text(p, tensors[i]));
    }
    return true;
}

static bool graph_varies(kt_planner *p, const kt_pipe_stage *ps, kt_str what, kt_axis size) {
    const kt_plan_dim *dim = &p->dims.at[size.var];
    kt_diag_error(p->diag, KT_RULE_STAGE, ps->name.at,
        "stage '%.*s' is a graph, but '%.*s' has the size '%.*s', which changes from "
        "request to request",
        KT_STR_ARG(ps->name.text), KT_STR_ARG(what), KT_STR_ARG(dim->name));
    kt_diag_note_at(p->diag, dim->at, "the dim is declared; give it buckets, or make it fixed");
    return false;
}

// A graph is replayed as recorded: nothing in it may change its size from request to request.
static bool check_graph(kt_planner *p, const kt_pipe_stage *ps) {
    for (size_t i = 0; i < p->steps.n; i++) {
        const kt_call *call = p->steps.at[i].call;
        if (!call) continue;
        for (int k = 0; k < call->op->n_ports; k++) {
            if (call->ports[k] < 0) continue;
            const kt_tensor *t = &p->tensors.at[call->ports[k]];
            for (int a = 0; a < t->rank; a++)
                if (t->axis[a].var >= 0) return graph_varies(p, ps, t->name, t->axis[a]);
        }
        for (int d = 0; d < call->op->n_dims; d++) // a size that the step gives, in no tensor
            if (call->dims[d].var >= 0)
                return graph_varies(
                    p, ps, join(p, call->address, ".", call->op->dims[d].name), call->dims[d]);
    }
    return true;
}

static bool check_batch(
    kt_planner *p, const kt_pipe_stage *ps, const kt_stage *stage, int tensor, kt_place at) {
    bool mine = tensor < 0 || !p->tensors.at[tensor].each;
    for (int i = 0; i < stage->n_each; i++) mine = mine || stage->each[i] == tensor;
    if (mine) return true;
    kt_diag_error(p->diag, KT_RULE_STAGE, at,
        "'%.*s' is a list of batches, and stage '%.*s' does not run over it",
        KT_STR_ARG(p->tensors.at[tensor].name), KT_STR_ARG(ps->name.text));
    kt_diag_note(p->diag, "name it under 'each' of the stage");
    return false;
}

// Batches are uploaded for the stages that run over them: elsewhere there would be nothing to read.
static bool check_batches(kt_planner *p, const kt_pipe_stage *ps, const kt_stage *stage) {
    for (size_t i = 0; i < p->steps.n; i++) {
        const kt_call *call = p->steps.at[i].call;
        const kt_host_call *host = p->steps.at[i].host;
        for (int k = 0; call && k < call->op->n_ports; k++)
            if (!check_batch(p, ps, stage, call->ports[k], call->at)) return false;
        for (int k = 0; host && k < host->step->n_in; k++)
            if (!check_batch(p, ps, stage, host->in[k], host->at)) return false;
    }
    return true;
}

static void export_names(
    kt_planner *p, const kt_pipe_stage *ps, const kt_scope *scope, bool internal) {
    for (size_t i = 0; i < scope->entries.n; i++) {
        kt_scope_entry entry = scope->entries.at[i];
        if (p->tensors.at[entry.tensor].each && entry.used && ps->n_each) continue;
        entry.name = join(p, ps->name.text, ".", entry.name);
        entry.internal = internal;
        KT_PUSH(p->arena, &p->top.entries, entry);
    }
}

static bool one_list(
    kt_planner *p, const kt_pipe_stage *ps, kt_stage *out, kt_step_list *list, bool last) {
    kt_scope scope = {.parent = &p->top};
    p->steps.at = NULL;
    p->steps.n = p->steps.cap = 0;
    p->made.at = NULL;
    p->made.n = p->made.cap = 0;
    if (!take_each(p, ps, &scope, out)) return false;
    size_t n_each = scope.entries.n;
    if (!walk_steps(p, ps->steps, ps->n_steps, &scope, ps->name.text, ps)) return false;
    record_made(p, &scope, n_each, ps->name.text, ".");
    for (size_t i = 0; p->probe && i < scope.entries.n; i++)
        kt_plan_touch(p, scope.entries.at[i].tensor);
    if (!check_batches(p, ps, out)) return false;
    if (ps->graph && !check_graph(p, ps)) return false;
    list->steps = p->steps.at;
    list->n_steps = (int)p->steps.n;
    list->made = p->made.at;
    list->n_made = (int)p->made.n;
    p->bucket_dim = -1;
    if (last) export_names(p, ps, &scope, list->bucket > 0);
    return true;
}

// What a stage that runs more than once reads from outside must outlive all of its runs.
static void keep_inputs(kt_planner *p, int from) {
    for (size_t i = 0; i < p->lives.n; i++) {
        kt_life *life = &p->lives.at[i];
        if (life->first >= 0 && life->first < from && life->last >= from) life->last = p->time - 1;
    }
}

static bool is_ahead(const kt_planner *p, const kt_stage *stages, const kt_stage *stage) {
    for (int i = 0; i < stage->lists[0].n_steps; i++) {
        const kt_host_call *host = stage->lists[0].steps[i].host;
        if (!host || host->step->n_inout) return false;
        for (int k = 0; k < host->step->n_in; k++) {
            if (host->in[k] < 0) continue;
            const kt_tensor *t = &p->tensors.at[host->in[k]];
            if (t->home == KT_HOME_STATE) return false;
            if (t->stage >= 0 && &stages[t->stage] != stage && !stages[t->stage].ahead)
                return false;
        }
    }
    return stage->n_each == 0;
}

static bool walk_stage(kt_planner *p, int index, kt_stage *stages) {
    const kt_pipe_stage *ps = &p->pipeline->stages[index];
    kt_stage *out = &stages[index];
    *out = (kt_stage){.name = ps->name.text, .at = ps->name.at, .graph = ps->graph};
    out->loop_until = out->loop_read = -1;
    out->bucket_dim = bucket_of(p, ps);
    if (out->bucket_dim == -2) return false;
    if (ps->loop && !take_loop(p, ps, out)) return false;
    const kt_plan_dim *dim = out->bucket_dim >= 0 ? &p->dims.at[out->bucket_dim] : NULL;
    int n = dim ? dim->n_buckets : 1, from = p->time;
    kt_step_list *lists = KT_NEW_ARRAY(p->arena, kt_step_list, n);
    p->stage = index;
    for (int i = 0; i < n; i++) {
        if (dim) {
            lists[i].bucket = p->bucket = dim->buckets[i];
            p->bucket_dim = out->bucket_dim;
            p->n_views = (int)p->tensors.n;
            p->views = KT_NEW_ARRAY(p->arena, int, p->n_views);
        }
        bool ok = one_list(p, ps, out, &lists[i], i == n - 1);
        p->bucket_dim = -1;
        if (!ok) return false;
    }
    out->lists = lists;
    out->n_lists = n;
    if (out->loop || out->n_each || n > 1) keep_inputs(p, from);
    out->ahead = is_ahead(p, stages, out);
    return true;
}

bool kt_plan_stages(kt_planner *p) {
    int n = p->pipeline->n_stages;
    kt_stage *stages = KT_NEW_ARRAY(p->arena, kt_stage, n);
    for (int i = 0; i < n; i++)
        if (!walk_stage(p, i, stages)) return false;
    p->plan->stages = stages;
    p->plan->n_stages = n;
    return true;
}
