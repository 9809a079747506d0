// Checks of a manifest that look at several of its keys: names, body, prepare, cases and launch
// limits.
#include "loader/op_read.h"

#include <inttypes.h>
#include <stdio.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

// ---- dims

typedef struct use_mark {
    const kt_op *op;
    bool *used; // by dim
} use_mark;

static void mark_name(void *ctx, kt_str name, kt_place at) {
    const use_mark *mark = ctx;
    (void)at;
    int dim = kt_op_dim_find(mark->op, name);
    if (dim >= 0) mark->used[dim] = true;
}

static void mark_expr(use_mark *mark, const kt_expr *expr) {
    if (expr != NULL) kt_expr_names(expr, mark_name, mark);
}

static void mark_types(use_mark *mark, const kt_op_memory *memory, int n) {
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < memory[i].type.rank; k++) mark_expr(mark, memory[i].type.axis[k]);
    }
}

static void mark_variant(use_mark *mark, const kt_variant *v) {
    mark_expr(mark, v->when);
    mark_types(mark, v->scratch, v->n_scratch);
    mark_types(mark, v->counters, v->n_counters);
    for (int i = 0; i < v->n_launches; i++) {
        const kt_op_launch *l = &v->launches[i];
        for (int k = 0; k < 3; k++) {
            mark_expr(mark, l->grid[k]);
            mark_expr(mark, l->block[k]);
        }
        mark_expr(mark, l->shared);
        mark_expr(mark, l->cluster);
    }
}

static void mark_body(kt_op_reader *r, use_mark *mark) {
    kt_diag quiet;
    kt_diag_init(&quiet, r->arena); // the values are checked with the body
    for (int i = 0; i < r->op->n_body; i++) {
        const kt_step *step = &r->op->body[i];
        for (int k = 0; k < step->n_dims; k++)
            mark_expr(mark, kt_expr_node(r->arena, step->dims[k].value, &quiet));
        for (int k = 0; k < step->n_params; k++)
            mark_expr(mark, kt_expr_node(r->arena, step->params[k].value, &quiet));
    }
}

void kt_op_check_dims_used(kt_op_reader *r) {
    const kt_op *op = r->op;
    if (!r->types_known || !r->body_known) return;
    use_mark mark = {op, KT_NEW_ARRAY(r->arena, bool, op->n_dims)};
    for (int i = 0; i < op->n_ports; i++) {
        for (int k = 0; k < op->ports[i].type.rank; k++)
            mark_expr(&mark, op->ports[i].type.axis[k]);
    }
    for (int i = 0; i < op->n_require; i++) mark_expr(&mark, op->require[i]);
    for (int i = 0; i < op->n_variants; i++) mark_variant(&mark, &op->variants[i]);
    mark_body(r, &mark);
    for (int i = 0; i < op->n_dims; i++) {
        if (!mark.used[i])
            kt_diag_error(r->diag, KT_RULE_NAME, op->dims[i].at, "dim '%.*s' is never used",
                KT_STR_ARG(op->dims[i].name));
    }
}

// ---- body

typedef struct body_name {
    kt_str name;
    kt_place at;
    int port; // -1: made in the body
    bool used;
} body_name;

typedef struct body {
    kt_op_reader *r;
    KT_VEC(body_name) names;
    bool unknown; // a step uses a name that nothing makes
} body;

static bool is_member(kt_str whole, kt_str group) {
    return whole.n > group.n && kt_str_starts(whole, group) && whole.at[group.n] == '.';
}

// Marks what `ref` names: a tensor, a group, or a member of a group that a step made as one name.
static bool use_name(body *b, const kt_ref *ref) {
    bool found = false;
    for (size_t i = 0; i < b->names.n; i++) {
        body_name *name = &b->names.at[i];
        bool hit = kt_str_eq(name->name, ref->text) || is_member(name->name, ref->text) ||
                   (name->port < 0 && is_member(ref->text, name->name));
        name->used = name->used || hit;
        found = found || hit;
    }
    if (found) return true;
    b->unknown = true;
    kt_diag_error(b->r->diag, KT_RULE_NAME, ref->at, "unknown name '%.*s' in the body",
        KT_STR_ARG(ref->text));
    kt_str *known = KT_NEW_ARRAY(b->r->arena, kt_str, b->names.n);
    for (size_t i = 0; i < b->names.n; i++) known[i] = b->names.at[i].name;
    kt_diag_near(b->r->diag, ref->text, known, b->names.n, true);
    return false;
}

static void make_name(body *b, const kt_ref *ref) {
    int port = kt_op_port_find(b->r->op, ref->text);
    if (port >= 0 && b->r->op->ports[port].kind != KT_PORT_OUTPUT) {
        kt_diag_error(b->r->diag, KT_RULE_NAME, ref->at,
            "'%.*s' is an input of the op, a step cannot make it", KT_STR_ARG(ref->text));
        return;
    }
    for (size_t i = 0; i < b->names.n; i++) {
        if (!kt_str_eq(b->names.at[i].name, ref->text)) continue;
        kt_diag_error(b->r->diag, KT_RULE_NAME, ref->at, "'%.*s' is made twice in the body",
            KT_STR_ARG(ref->text));
        kt_diag_note_at(b->r->diag, b->names.at[i].at, "it is made first");
        return;
    }
    body_name name = {ref->text, ref->at, -1, port >= 0};
    KT_PUSH(b->r->arena, &b->names, name);
}

static void change_name(body *b, const kt_ref *ref) {
    if (!use_name(b, ref)) return;
    int port = kt_op_port_find(b->r->op, ref->text);
    if (port < 0 || b->r->op->ports[port].kind != KT_PORT_INPUT) return;
    kt_diag_error(b->r->diag, KT_RULE_STEP, ref->at,
        "'%.*s' is an input of the op, a step cannot change it", KT_STR_ARG(ref->text));
    kt_diag_note_at(b->r->diag, b->r->op->ports[port].at,
        "what an op changes belongs under 'inout'; this is declared");
}

static void check_step_values(body *b, const kt_step *step) {
    kt_op_reader *r = b->r;
    kt_op_names dims = kt_op_known(r, NULL, false);
    kt_str *known = KT_NEW_ARRAY(r->arena, kt_str, dims.n + (size_t)r->op->n_params);
    for (size_t i = 0; i < dims.n; i++) known[i] = dims.at[i];
    for (int i = 0; i < r->op->n_params; i++) known[dims.n + (size_t)i] = r->op->params[i].name;
    kt_op_names names = {known, dims.n + (size_t)r->op->n_params};
    for (int i = 0; i < step->n_dims; i++)
        kt_op_check_names(
            r, kt_expr_node(r->arena, step->dims[i].value, r->diag), names, "a dim of a step");
    for (int i = 0; i < step->n_types; i++) {
        const kt_node *value = step->types[i].value;
        kt_dtype dtype;
        if (kt_dtype_find(value->text, &dtype) || kt_op_typevar_find(r->op, value->text) >= 0)
            continue;
        kt_diag_error(
            r->diag, KT_RULE_TYPE, value->at, "'%.*s' is no element type", KT_STR_ARG(value->text));
        kt_str types[KT_DTYPE_COUNT];
        for (int k = 0; k < KT_DTYPE_COUNT; k++) types[k] = kt_str_from(kt_dtype_name((kt_dtype)k));
        kt_diag_near(r->diag, value->text, types, KT_DTYPE_COUNT, true);
    }
}

static void check_step(body *b, const kt_step *step) {
    if (step->op.text.n > 0 && kt_str_eq(step->op.text, b->r->op->name))
        kt_diag_error(b->r->diag, KT_RULE_STEP, step->op.at, "op '%.*s' uses itself in its body",
            KT_STR_ARG(step->op.text));
    for (int i = 0; i < step->n_in; i++) use_name(b, &step->in[i].name);
    for (int i = 0; i < step->n_inout; i++) change_name(b, &step->inout[i].name);
    check_step_values(b, step);
    for (int i = 0; i < step->n_out; i++) make_name(b, &step->out[i].name);
}

// The parameters stand in as the dims of an op, so that the same marks count their uses.
static void check_params_used(kt_op_reader *r) {
    const kt_op *op = r->op;
    kt_op_dim *names = KT_NEW_ARRAY(r->arena, kt_op_dim, op->n_params);
    for (int i = 0; i < op->n_params; i++) names[i] = (kt_op_dim){.name = op->params[i].name};
    kt_op stand_in = {
        .dims = names, .n_dims = op->n_params, .body = op->body, .n_body = op->n_body};
    use_mark mark = {&stand_in, KT_NEW_ARRAY(r->arena, bool, op->n_params)};
    mark_body(r, &mark);
    for (int i = 0; i < op->n_params; i++) {
        if (mark.used[i]) continue;
        kt_diag_error(r->diag, KT_RULE_NAME, op->params[i].at,
            "parameter '%.*s' is never used in the body", KT_STR_ARG(op->params[i].name));
    }
}

static bool is_made(const body *b, kt_str output) {
    for (size_t i = 0; i < b->names.n; i++) {
        const body_name *name = &b->names.at[i];
        if (name->port < 0 && (kt_str_eq(name->name, output) || is_member(output, name->name)))
            return true;
    }
    return false;
}

static void check_outputs_made(kt_op_reader *r, const body *b) {
    for (int i = 0; i < r->op->n_ports; i++) {
        const kt_op_port *port = &r->op->ports[i];
        if (port->kind != KT_PORT_OUTPUT || is_made(b, port->name)) continue;
        kt_diag_error(
            r->diag, KT_RULE_NAME, port->at, "the body makes no '%.*s'", KT_STR_ARG(port->name));
        kt_diag_note(r->diag, "a step makes it with out: { ...: %.*s }", KT_STR_ARG(port->name));
    }
}

void kt_op_check_body(kt_op_reader *r) {
    if (r->op->n_body == 0) return;
    body b = {.r = r};
    for (int i = 0; i < r->op->n_ports; i++) {
        const kt_op_port *port = &r->op->ports[i];
        body_name name = {port->name, port->at, i, false};
        if (port->kind != KT_PORT_OUTPUT) KT_PUSH(r->arena, &b.names, name);
    }
    for (int i = 0; i < r->op->n_body; i++) check_step(&b, &r->op->body[i]);
    if (!r->body_known) return;
    check_outputs_made(r, &b);
    check_params_used(r);
    for (size_t i = 0; i < b.names.n; i++) {
        const body_name *name = &b.names.at[i];
        if (name->used || b.unknown) continue;
        kt_diag_error(r->diag, KT_RULE_NAME, name->at,
            name->port < 0 ? "'%.*s' is made in the body and never used"
                           : "'%.*s' is never used in the body",
            KT_STR_ARG(name->name));
    }
}

// ---- macros

typedef struct macro {
    kt_str name;
    kt_place at;
    int variant; // -1: of all
} macro;

static bool same_macro(kt_str a, kt_str b) {
    if (a.n != b.n) return false;
    for (size_t i = 0; i < a.n; i++) {
        if (kt_op_macro_char(a.at[i]) != kt_op_macro_char(b.at[i])) return false;
    }
    return true;
}

typedef KT_VEC(macro) macro_list;

static void add_macro(kt_op_reader *r, macro_list *list, macro m) {
    for (size_t i = 0; i < list->n; i++) {
        const macro *before = &list->at[i];
        bool together = before->variant < 0 || m.variant < 0 || before->variant == m.variant;
        if (!together || !same_macro(before->name, m.name)) continue;
        char *name = kt_str_z(r->arena, m.name);
        for (char *c = name; *c != 0; c++) *c = kt_op_macro_char(*c);
        kt_diag_error(r->diag, KT_RULE_NAME, m.at, "'%.*s' and '%.*s' are both the macro KT_%s",
            KT_STR_ARG(before->name), KT_STR_ARG(m.name), name);
        kt_diag_note_at(r->diag, before->at, "'%.*s' is declared", KT_STR_ARG(before->name));
        return;
    }
    KT_PUSH(r->arena, list, m);
}

void kt_op_check_macros(kt_op_reader *r) {
    const kt_op *op = r->op;
    macro_list list = {0};
    for (int i = 0; i < op->n_typevars; i++)
        add_macro(r, &list, (macro){op->typevars[i].name, op->typevars[i].at, -1});
    for (int i = 0; i < op->n_dims; i++) {
        if (op->dims[i].binding == KT_BINDING_BUILD)
            add_macro(r, &list, (macro){op->dims[i].name, op->dims[i].at, -1});
    }
    for (int i = 0; i < op->n_params; i++) {
        if (op->params[i].kind == KT_PARAM_CHOICE)
            add_macro(r, &list, (macro){op->params[i].name, op->params[i].at, -1});
    }
    for (int i = 0; i < op->n_variants; i++) {
        const kt_variant *v = &op->variants[i];
        for (int k = 0; k < v->n_tunes; k++)
            add_macro(r, &list, (macro){v->tunes[k].name, v->tunes[k].at, i});
    }
}

// ---- prepare

static bool is_axis_of(const kt_type *type, int axis, const char *name) {
    return type->rank > axis && kt_str_is(kt_expr_text(type->axis[axis]), name);
}

static void check_prepare_rows(kt_op_reader *r) {
    const kt_op *op = r->op;
    const kt_op_port *out = op->n_outputs == 1 ? &op->ports[op->n_ports - 1] : NULL;
    bool good = out != NULL && out->type.base == KT_BASE_DTYPE && out->type.dtype == KT_DTYPE_F16 &&
                out->type.rank == 2 && is_axis_of(&out->type, 0, "n") &&
                is_axis_of(&out->type, 1, "k");
    if (good || !r->types_known) return;
    kt_diag_error(r->diag, KT_RULE_TYPE, out == NULL ? op->at : out->type.at,
        "the layout rows_f16 is one output of type f16[n, k]");
}

void kt_op_check_prepare(kt_op_reader *r) {
    const kt_op *op = r->op;
    if (op->n_prepare_formats == 0 || op->prepare_layout.n == 0) return;
    for (int i = 0; i < op->n_ports; i++) {
        const kt_op_port *port = &op->ports[i];
        if (port->type.base == KT_BASE_LINEAR) {
            kt_diag_error(r->diag, KT_RULE_TYPE, port->type.at,
                "a prepare op takes the parts of its format, not a linear");
        } else if (port->kind == KT_PORT_INOUT || port->type.optional) {
            kt_diag_error(r->diag, KT_RULE_TYPE, port->at,
                "a prepare op takes all of its parts and changes none of them");
        }
    }
    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "n" : "k";
        if (kt_op_dim_find(op, kt_str_from(name)) >= 0) continue;
        kt_diag_error(r->diag, KT_RULE_NAME, op->at,
            "a prepare op has a dim '%s', the %s of the weight", name, i == 0 ? "rows" : "columns");
    }
    for (int i = 0; i < op->n_dims; i++) {
        kt_str name = op->dims[i].name;
        bool given = kt_str_is(name, "n") || kt_str_is(name, "k") || kt_str_is(name, "rows");
        if (given || op->dims[i].solved_by >= 0 || !r->types_known) continue;
        kt_diag_error(
            r->diag, KT_RULE_NAME, op->dims[i].at, "no part fixes dim '%.*s'", KT_STR_ARG(name));
        kt_diag_note(
            r->diag, "known without a part are n and k of the weight and rows of the layout");
    }
    if (kt_str_is(op->prepare_layout, "rows_f16")) check_prepare_rows(r);
}
