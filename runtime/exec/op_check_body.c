// Do the ops inside a body take these sizes? What the planner would say, without files and weights,
// so that sizes can be searched.
#include "runtime/exec/op_check_parts.h"

#include <string.h>

enum { DEPTH_MAX = 8, UNKNOWN = -1 };

typedef struct shape {
    kt_str name; // of the tensor in the body
    int rank;
    int64_t at[KT_MAX_RANK];
} shape;

typedef struct walk {
    kt_arena *arena;
    kt_registry *registry;
    const kt_op *op; // whose body it is
    const int64_t *dims;
    KT_VEC(shape) shapes;
    int depth;
} walk;

static bool holds(walk *outer, const kt_op *op, const int64_t *dims);

static void add_shape(walk *w, kt_str name, const kt_op *op, int port, const int64_t *dims) {
    const kt_type *type = &op->ports[port].type;
    shape s = {.name = name, .rank = type->rank};
    for (int a = 0; a < type->rank; a++) {
        kt_value value;
        s.at[a] = kt_check_value(op, type->axis[a], dims, NULL, &value) ? value.i : UNKNOWN;
    }
    KT_PUSH(w->arena, &w->shapes, s);
}

static const shape *find_shape(const walk *w, kt_str name) {
    for (size_t i = 0; i < w->shapes.n; i++)
        if (kt_str_eq(w->shapes.at[i].name, name)) return &w->shapes.at[i];
    return NULL;
}

// The dims that an input's axes give; false: two axes disagree.
static bool solve(const kt_op *op, int port, const shape *from, int64_t *dims) {
    const kt_type *type = &op->ports[port].type;
    for (int a = 0; a < type->rank && from->rank == type->rank; a++) {
        kt_str name;
        int64_t add = 0;
        if (from->at[a] == UNKNOWN || !kt_expr_is_axis(type->axis[a], &name, &add)) continue;
        if (name.n == 0 && from->at[a] != add) return false;
        int dim = name.n > 0 ? kt_op_dim_find(op, name) : -1;
        if (dim < 0) continue;
        if (from->at[a] < add || (dims[dim] != UNKNOWN && dims[dim] != from->at[a] - add))
            return false;
        dims[dim] = from->at[a] - add;
    }
    return true;
}

// What the port of a step is called outside: by its own name, or as a member of a group.
static kt_str outer_name(walk *w, const kt_link *links, int n, kt_str port) {
    for (int i = 0; i < n; i++) {
        kt_str key = links[i].port.text, name = links[i].name.text;
        if (kt_str_eq(key, port)) return name;
        if (port.n <= key.n || !kt_str_starts(port, key) || port.at[key.n] != '.') continue;
        kt_str rest = kt_str_slice(port, key.n, port.n);
        return kt_str_from(
            kt_arena_printf(w->arena, "%.*s%.*s", KT_STR_ARG(name), KT_STR_ARG(rest)));
    }
    return (kt_str){0};
}

static bool take_inputs(walk *w, const kt_step *step, const kt_op *op, int64_t *dims) {
    for (int p = 0; p < op->n_inputs + op->n_inout; p++) {
        bool input = op->ports[p].kind == KT_PORT_INPUT;
        kt_str name = outer_name(w, input ? step->in : step->inout,
            input ? step->n_in : step->n_inout, op->ports[p].name);
        const shape *from = name.n > 0 ? find_shape(w, name) : NULL;
        if (from && !solve(op, p, from, dims)) return false;
    }
    return true;
}

static void take_dims(walk *w, const kt_step *step, const kt_op *op, int64_t *dims) {
    kt_diag quiet; // the manifest was read without mistakes
    kt_diag_init(&quiet, w->arena);
    for (int i = 0; i < step->n_dims; i++) {
        const kt_expr *expr = kt_expr_node(w->arena, step->dims[i].value, &quiet);
        int dim = kt_op_dim_find(op, step->dims[i].name.text);
        kt_value value;
        if (expr && dim >= 0 && kt_check_value(w->op, expr, w->dims, NULL, &value))
            dims[dim] = value.i;
    }
}

static bool step_holds(walk *w, const kt_step *step) {
    kt_diag quiet;
    kt_diag_init(&quiet, w->arena);
    const kt_op *op = kt_registry_op(w->registry, step->op, &quiet);
    if (!op) return false;
    int64_t *dims = KT_NEW_ARRAY(w->arena, int64_t, op->n_dims + 1);
    for (int i = 0; i < op->n_dims; i++) dims[i] = UNKNOWN;
    if (!take_inputs(w, step, op, dims)) return false;
    take_dims(w, step, op, dims);
    for (int i = 0; i < op->n_dims; i++)
        if (dims[i] == UNKNOWN) return true; // only the planner knows
    for (int p = op->n_inputs + op->n_inout; p < op->n_ports; p++) {
        kt_str name = outer_name(w, step->out, step->n_out, op->ports[p].name);
        if (name.n > 0) add_shape(w, name, op, p, dims);
    }
    return holds(w, op, dims);
}

static bool holds(walk *outer, const kt_op *op, const int64_t *dims) {
    for (int i = 0; i < op->n_require; i++)
        if (!kt_check_holds(op, op->require[i], dims, NULL)) return false;
    if (op->n_body == 0 || outer->depth == DEPTH_MAX) return true;
    walk w = {.arena = outer->arena,
        .registry = outer->registry,
        .op = op,
        .dims = dims,
        .depth = outer->depth + 1};
    for (int p = 0; p < op->n_inputs + op->n_inout; p++)
        add_shape(&w, op->ports[p].name, op, p, dims);
    for (int i = 0; i < op->n_body; i++)
        if (!step_holds(&w, &op->body[i])) return false;
    return true;
}

bool kt_check_body_holds(kt_registry *registry, const kt_op *op, const int64_t *dims) {
    if (!registry || op->n_body == 0) return true;
    kt_arena arena = {0};
    walk w = {.arena = &arena, .registry = registry};
    bool ok = holds(&w, op, dims);
    kt_arena_deinit(&arena);
    return ok;
}
