// Layouts of weights: which one a variant reads, and the prepare calls that make it.
#include "runtime/plan/plan_internal.h"

#include <inttypes.h>
#include <string.h>

static const kt_str rows_name = {"rows_f16", 8};
static const char *const order_names[] = {"natural", "halves", "pairs"};

static int64_t align(int64_t bytes) {
    return (bytes + KT_PLAN_ALIGN - 1) / KT_PLAN_ALIGN * KT_PLAN_ALIGN;
}

// ---- a prepare op bound to one weight

// What fixes the dims of a prepare op: sizes of the weight and of the layout, and the format's
// parts.
typedef struct source {
    const kt_format *format;
    const kt_value *values;     // by format value
    const kt_dtype *part_types; // by type variable of the format
    int64_t n, k, rows;
} source;

typedef struct bound_prepare {
    const kt_op *op;
    kt_axis *dims;
    kt_value *params;
    kt_dtype *types;
    int64_t *parts; // by port and axis: KT_MAX_RANK numbers a port
} bound_prepare;

static bool source_find(const void *ctx, kt_str name, kt_value *out) {
    const source *s = ctx;
    if (kt_str_is(name, "n") || kt_str_is(name, "k")) {
        *out = kt_value_int(kt_str_is(name, "n") ? s->n : s->k);
        return true;
    }
    for (int i = 0; s->values && i < s->format->n_values; i++)
        if (kt_str_eq(s->format->values[i].name, name)) {
            *out = s->values[i];
            return true;
        }
    return false;
}

static kt_dtype part_dtype(const source *s, const kt_format_part *part) {
    for (int v = 0; part->type.base == KT_BASE_VAR && v < s->format->n_typevars; v++)
        if (kt_str_eq(s->format->typevars[v], part->type.var)) return s->part_types[v];
    return part->type.dtype;
}

// Sizes of the axes of one port of a prepare op, from the format's part or from n (`to`).
static bool port_sizes(const source *s, const kt_op_port *port, int64_t *sizes) {
    const kt_format_part *part = kt_format_part_find(s->format, port->name);
    kt_env env = {.ctx = s, .find = source_find};
    if (!part) {
        sizes[0] = s->n;
        return kt_str_is(port->name, "to") && port->type.rank == 1;
    }
    if (part->type.rank != port->type.rank) return false;
    for (int a = 0; a < part->type.rank; a++) {
        kt_value value;
        if (!kt_expr_compute(part->type.axis[a], &env, &value) || value.is_real) return false;
        sizes[a] = value.i;
    }
    return true;
}

static bool solve_axis(bound_prepare *b, bool *known, const kt_expr *axis, int64_t size) {
    kt_str name;
    int64_t add;
    if (!kt_expr_is_axis(axis, &name, &add)) return false;
    if (name.n == 0) return size == add;
    int dim = kt_op_dim_find(b->op, name);
    if (dim < 0 || size < add) return false;
    if (known[dim]) return b->dims[dim].max == size - add;
    b->dims[dim] = kt_axis_fixed(size - add);
    known[dim] = true;
    return true;
}

static bool solve_types(bound_prepare *b, const source *s) {
    for (int v = 0; v < b->op->n_typevars; v++) b->types[v] = b->op->typevars[v].choices[0];
    for (int i = 0; i < b->op->n_ports; i++) {
        const kt_op_port *port = &b->op->ports[i];
        const kt_format_part *part = kt_format_part_find(s->format, port->name);
        if (port->type.base != KT_BASE_VAR || !part) continue;
        b->types[kt_op_typevar_find(b->op, port->type.var)] = part_dtype(s, part);
    }
    return true;
}

static bool requires_hold(kt_planner *p, const bound_prepare *b) {
    kt_call call = {.op = b->op, .dims = b->dims, .params = b->params};
    kt_call_ctx ctx = {&p->target, &call, NULL};
    kt_env env = kt_call_env(&ctx);
    for (int i = 0; i < b->op->n_require; i++) {
        kt_value value;
        if (!kt_expr_compute(b->op->require[i], &env, &value) || value.r == 0) return false;
    }
    return true;
}

// false if the op cannot take this weight.
static bool bind_prepare(kt_planner *p, const kt_op *op, const source *s, bound_prepare *b) {
    *b = (bound_prepare){.op = op};
    b->dims = KT_NEW_ARRAY(p->arena, kt_axis, op->n_dims);
    b->params = KT_NEW_ARRAY(p->arena, kt_value, op->n_params);
    b->types = KT_NEW_ARRAY(p->arena, kt_dtype, op->n_typevars);
    b->parts = KT_NEW_ARRAY(p->arena, int64_t, (size_t)op->n_ports * KT_MAX_RANK);
    bool *known = KT_NEW_ARRAY(p->arena, bool, op->n_dims);
    for (int i = 0; i < op->n_dims; i++) {
        kt_str name = op->dims[i].name;
        b->dims[i] = kt_axis_fixed(0);
        known[i] = kt_str_is(name, "n") || kt_str_is(name, "k") || kt_str_is(name, "rows");
        if (known[i])
            b->dims[i].max = kt_str_is(name, "n") ? s->n : kt_str_is(name, "k") ? s->k : s->rows;
    }
    for (int i = 0; i < op->n_ports; i++) {
        if (op->ports[i].kind == KT_PORT_OUTPUT) continue;
        int64_t *sizes = &b->parts[(size_t)i * KT_MAX_RANK];
        if (!port_sizes(s, &op->ports[i], sizes)) return false;
        for (int a = 0; a < op->ports[i].type.rank; a++)
            if (!solve_axis(b, known, op->ports[i].type.axis[a], sizes[a])) return false;
    }
    for (int i = 0; i < op->n_params; i++)
        for (int v = 0; v < s->format->n_values; v++)
            if (kt_str_eq(s->format->values[v].name, op->params[i].name))
                b->params[i] = s->values[v];
    return solve_types(b, s) && requires_hold(p, b);
}

// The outputs of a prepare op one after the other at multiples of 256 bytes; -1 if they cannot be
// computed. offsets and tensors by port (may be NULL).
static int64_t output_bytes(kt_planner *p, const bound_prepare *b, kt_tensor *tensors) {
    kt_call call = {.op = b->op, .dims = b->dims, .params = b->params};
    kt_call_ctx ctx = {&p->target, &call, NULL};
    kt_env env = kt_call_env(&ctx);
    int64_t at = 0;
    for (int i = 0; i < b->op->n_ports; i++) {
        const kt_op_port *port = &b->op->ports[i];
        if (port->kind != KT_PORT_OUTPUT) continue;
        kt_tensor t = {.home = KT_HOME_LAYOUT, .weight = -1, .stage = -1, .rank = port->type.rank};
        t.dtype = port->type.base == KT_BASE_VAR
                      ? b->types[kt_op_typevar_find(b->op, port->type.var)]
                      : port->type.dtype;
        int64_t bytes = kt_dtype_bytes(t.dtype);
        for (int a = 0; a < t.rank; a++) {
            kt_value value;
            if (!kt_expr_compute(port->type.axis[a], &env, &value) || value.is_real) return -1;
            t.axis[a] = kt_axis_fixed(value.i);
            if (!kt_mul(bytes, value.i, &bytes)) return -1;
        }
        t.offset = at;
        at = align(at + bytes);
        if (tensors) tensors[i] = t;
    }
    return at;
}

// ---- which layout

static const kt_format *plain_format(const kt_planner *p) {
    const kt_format *const *formats;
    int n = kt_registry_formats(p->registry, &formats);
    for (int i = 0; i < n; i++)
        if (formats[i]->when.n == 0 && formats[i]->n_parts == 1) return formats[i];
    return NULL;
}

static const kt_weight *weight_of(const kt_planner *p, const kt_bound *b, int port) {
    const kt_tensor *t = &p->tensors.at[b->ports[port]];
    KT_ASSERT(t->home == KT_HOME_LINEAR && t->weight >= 0);
    return &p->model->weights[t->weight];
}

static source weight_source(const kt_weight *w, int64_t rows) {
    return (source){w->format, w->values, w->part_types, w->shape[0], w->shape[1], rows};
}

static const kt_dtype f16_types[KT_DTYPE_COUNT] = {
    KT_DTYPE_F16, KT_DTYPE_F16, KT_DTYPE_F16, KT_DTYPE_F16};

static source f16_source(const kt_planner *p, const kt_weight *w, int64_t rows) {
    return (source){plain_format(p), NULL, f16_types, w->shape[0], w->shape[1], rows};
}

static bool can_prepare(kt_planner *p, const source *s, kt_str layout) {
    if (!s->format) return false;
    const kt_op *op = kt_registry_prepare(p->registry, s->format->name, layout);
    bound_prepare b;
    return op && bind_prepare(p, op, s, &b) && output_bytes(p, &b, NULL) >= 0;
}

// One weight, or several, on the way to one layout.
typedef struct wanted {
    const kt_weight **weights;
    int *indices;
    int n;
    int64_t rows;
    kt_str layout;
    bool unpacked;
    kt_order order;
    bool host_memory;
    int64_t hd; // of order halves
} wanted;

static void find_weights(kt_planner *p, const kt_bound *b, const kt_op_layout *layout, wanted *w) {
    w->weights = KT_NEW_ARRAY(p->arena, const kt_weight *, layout->n_of);
    w->indices = KT_NEW_ARRAY(p->arena, int, layout->n_of);
    for (int i = 0; i < layout->n_of; i++) {
        if (b->ports[layout->of[i]] < 0) continue;
        w->weights[w->n] = weight_of(p, b, layout->of[i]);
        w->indices[w->n] = p->tensors.at[b->ports[layout->of[i]]].weight;
        w->rows += w->weights[w->n]->shape[0];
        w->n++;
    }
    w->order = layout->order;
    w->host_memory = layout->host_memory;
}

// Can the op put the rows where the layout wants them? Without an input `to` it lays them out in
// the order that they have, and only rows_f16 is such that the next weight can go behind it.
static bool can_order(kt_planner *p, const source *s, kt_str layout, const wanted *w) {
    bool plain_rows = kt_str_eq(layout, rows_name);
    if (w->order == KT_ORDER_NATURAL && (w->n == 1 || plain_rows)) return true;
    const kt_op *op = kt_registry_prepare(p->registry, s->format->name, layout);
    return op && kt_op_port_find(op, KT_STR("to")) >= 0;
}

static void note_rows(void *ctx, kt_str name, kt_place at) {
    (void)at;
    bool *of_rows = ctx;
    *of_rows = *of_rows || kt_str_is(name, "n") || kt_str_is(name, "rows");
}

// Does the op write something that is not of rows, such as a code book? A layout has it once.
static bool has_tables(const kt_op *op) {
    for (int i = 0; i < op->n_ports; i++) {
        const kt_op_port *port = &op->ports[i];
        bool of_rows = port->kind != KT_PORT_OUTPUT;
        for (int a = 0; a < port->type.rank; a++)
            kt_expr_names(port->type.axis[a], note_rows, &of_rows);
        if (!of_rows) return true;
    }
    return false;
}

// Weights of two formats have different tables.
static bool can_join(kt_planner *p, const wanted *w, kt_str layout) {
    const kt_format *format = w->weights[0]->format;
    bool same = true;
    for (int i = 1; i < w->n; i++) same = same && w->weights[i]->format == format;
    return same || !has_tables(kt_registry_prepare(p->registry, format->name, layout));
}

static bool choose(kt_planner *p, const kt_op_layout *layout, wanted *w) {
    for (int unpacked = 0; unpacked < 2; unpacked++)
        for (int a = 0; a < layout->n_as; a++) {
            bool all = w->n > 0;
            for (int i = 0; all && i < w->n; i++) {
                source s = unpacked ? f16_source(p, w->weights[i], w->rows)
                                    : weight_source(w->weights[i], w->rows);
                source raw = weight_source(w->weights[i], w->weights[i]->shape[0]);
                all = can_prepare(p, &s, layout->as[a]) && can_order(p, &s, layout->as[a], w) &&
                      (!unpacked || can_prepare(p, &raw, rows_name));
            }
            if (!all || (!unpacked && !can_join(p, w, layout->as[a]))) continue;
            w->layout = layout->as[a];
            w->unpacked = unpacked;
            return true;
        }
    return false;
}

// ---- making a layout

// Row of the layout for each of these rows of the weight (number `which` of the layout).
static int32_t *row_order(kt_planner *p, const wanted *w, int which, int64_t first, int64_t end) {
    int64_t before = 0;
    int32_t *to = KT_NEW_ARRAY(p->arena, int32_t, end - first);
    for (int i = 0; i < which; i++) before += w->weights[i]->shape[0];
    for (int64_t r = first; r < end; r++) {
        int64_t row = before + r;
        if (w->order == KT_ORDER_HALVES) {
            int64_t half = w->hd / 2, in = r % w->hd;
            row = before + r - in + in % half / 8 * 16 + in / half * 8 + in % 8;
        } else if (w->order == KT_ORDER_PAIRS) {
            row = r / 8 * 16 + (int64_t)which * 8 + r % 8;
        }
        to[r - first] = (int32_t)row;
    }
    return to;
}

static int staging_tensor(kt_planner *p, const kt_weight *w, kt_str port, kt_dtype dtype, int rank,
    const int64_t *sizes, int64_t *at) {
    kt_tensor t = {
        .home = KT_HOME_STAGING, .weight = -1, .stage = -1, .rank = rank, .dtype = dtype};
    t.name =
        kt_str_from(kt_arena_printf(p->arena, "%.*s.%.*s", KT_STR_ARG(w->name), KT_STR_ARG(port)));
    t.at = w->at;
    for (int a = 0; a < rank; a++) t.axis[a] = kt_axis_fixed(sizes[a]);
    t.offset = *at;
    int made = kt_plan_tensor(p, &t);
    *at = align(*at + p->tensors.at[made].bytes);
    return made;
}

// NOLINTNEXTLINE(readability-non-const-parameter): the call keeps ports
static kt_call *make_call(kt_planner *p, const bound_prepare *b, const kt_weight *w, int *ports) {
    static const kt_step none;
    kt_bound bound = {.op = b->op, .step = &none, .ports = ports, .dims = b->dims};
    bound.address = kt_str_from(kt_arena_printf(p->arena, "load.%.*s", KT_STR_ARG(w->name)));
    bound.types = b->types;
    bound.params = b->params;
    const kt_variant *variant = p->target.cuda ? kt_plan_select(p, &bound, KT_STR("")) : NULL;
    if (p->target.cuda && !variant) {
        kt_diag_error(p->diag, KT_RULE_VARIANT, b->op->at,
            "no variant of '%.*s' can prepare '%.*s'", KT_STR_ARG(b->op->name),
            KT_STR_ARG(w->name));
        return NULL;
    }
    if (variant && (variant->n_scratch || variant->n_counters)) {
        kt_diag_error(
            p->diag, KT_RULE_VARIANT, variant->at, "an op that prepares weights has no scratch");
        return NULL;
    }
    kt_call *call = kt_plan_call(p, &bound, variant);
    call->at = w->at;
    if (variant) call->build = kt_plan_build(p, call);
    return call;
}

// The way of one weight: its staging tensors, and the calls.
typedef struct way {
    const wanted *w;
    const kt_weight *weight;
    int which;
    kt_prepare *prepare;
    KT_VEC(kt_call) calls;
    int64_t staging;
    int *part_tensors;
} way;

typedef KT_VEC(kt_prepare) prepare_list;

static void stage_parts(kt_planner *p, way *y, const source *s) {
    const kt_format *format = s->format;
    y->part_tensors = KT_NEW_ARRAY(p->arena, int, format->n_parts);
    kt_env env = {.ctx = s, .find = source_find};
    for (int i = 0; i < format->n_parts; i++) {
        const kt_format_part *part = &format->parts[i];
        int64_t sizes[KT_MAX_RANK] = {0};
        for (int a = 0; a < part->type.rank; a++) {
            kt_value value = kt_value_int(0);
            bool ok = kt_expr_compute(part->type.axis[a], &env, &value);
            KT_ASSERT(ok); // computed when the weight was bound
            sizes[a] = value.i;
        }
        y->part_tensors[i] = staging_tensor(
            p, y->weight, part->name, part_dtype(s, part), part->type.rank, sizes, &y->staging);
    }
    y->prepare->part_tensors = y->part_tensors;
    y->prepare->n_parts = format->n_parts;
}

// Adds the call of `op`. values_tensor >= 0: what its only part is (rows unpacked before).
static bool add_call(kt_planner *p, way *y, const kt_op *op, const source *s, int values_tensor,
    bool final, int *rows_tensor) {
    bound_prepare b;
    bool fits = bind_prepare(p, op, s, &b);
    KT_ASSERT(fits); // choose() has tried
    int *ports = KT_NEW_ARRAY(p->arena, int, op->n_ports);
    kt_tensor *outs = KT_NEW_ARRAY(p->arena, kt_tensor, op->n_ports);
    output_bytes(p, &b, outs);
    bool has_to = false;
    for (int i = 0; i < op->n_ports; i++) {
        const kt_op_port *port = &op->ports[i];
        const int64_t *sizes = &b.parts[(size_t)i * KT_MAX_RANK];
        const kt_format_part *part = kt_format_part_find(s->format, port->name);
        if (port->kind == KT_PORT_OUTPUT) {
            outs[i].at = y->weight->at;
            outs[i].name = kt_str_from(kt_arena_printf(
                p->arena, "%.*s.%.*s", KT_STR_ARG(y->weight->name), KT_STR_ARG(port->name)));
            if (!final) {
                outs[i].home = KT_HOME_STAGING;
                outs[i].offset += y->staging;
            }
            ports[i] = kt_plan_tensor(p, &outs[i]);
            *rows_tensor = ports[i];
        } else if (part) {
            ports[i] =
                values_tensor >= 0 ? values_tensor : y->part_tensors[part - s->format->parts];
        } else {
            has_to = true;
            ports[i] =
                staging_tensor(p, y->weight, port->name, KT_DTYPE_I32, 1, sizes, &y->staging);
            y->prepare->to_tensor = ports[i];
            y->prepare->to = row_order(p, y->w, y->which, y->prepare->row_from, y->prepare->row_to);
        }
    }
    if (!final) y->staging += output_bytes(p, &b, NULL);
    if (final && !has_to) { // rows as they are, behind those of the weights before
        int64_t before = y->prepare->row_from;
        for (int i = 0; i < y->which; i++) before += y->w->weights[i]->shape[0];
        p->tensors.at[*rows_tensor].offset = before * y->weight->shape[1] * 2;
    }
    kt_call *call = make_call(p, &b, y->weight, ports);
    if (!call) return false;
    KT_PUSH(p->arena, &y->calls, *call);
    return true;
}

// `out` has the rows.
static bool make_prepare(kt_planner *p, const wanted *w, int which, kt_prepare *out) {
    const kt_weight *weight = w->weights[which];
    out->weight = w->indices[which];
    out->to_tensor = -1;
    way y = {.w = w, .weight = weight, .which = which, .prepare = out};
    source raw = weight_source(weight, w->rows);
    raw.n = out->row_to - out->row_from;
    stage_parts(p, &y, &raw);
    int rows = -1;
    const kt_format *format = weight->format;
    KT_ASSERT(format); // of every linear weight
    bool plain = format == plain_format(p), two = w->unpacked && !plain;
    kt_str first = two ? rows_name : w->layout;
    const kt_op *op = kt_registry_prepare(p->registry, format->name, first);
    KT_ASSERT(op); // choose() has found it
    if (!add_call(p, &y, op, &raw, -1, !two, &rows)) return false;
    if (two) {
        source f16 = f16_source(p, weight, w->rows);
        f16.n = raw.n;
        KT_ASSERT(f16.format);
        op = kt_registry_prepare(p->registry, f16.format->name, w->layout);
        if (!add_call(p, &y, op, &f16, rows, true, &rows)) return false;
    }
    out->calls = y.calls.at;
    out->n_calls = (int)y.calls.n;
    out->staging_bytes = y.staging;
    return true;
}

// Has every part of the format rows as its first axis, so that some rows are a matrix of their own?
static bool has_rows(const kt_format *format) {
    for (int i = 0; i < format->n_parts; i++) {
        const kt_type *type = &format->parts[i].type;
        kt_str name;
        int64_t add;
        if (type->rank == 0 || !kt_expr_is_axis(type->axis[0], &name, &add)) return false;
        if (!kt_str_is(name, "n") || add != 0) return false;
    }
    return true;
}

// How many rows of a weight are prepared at once: all, or so few that their staging stays small
// where the ops can put them where they belong.
static int64_t rows_at_once(kt_planner *p, const wanted *w, int which) {
    const kt_weight *weight = w->weights[which];
    int64_t n = weight->shape[0], row = w->unpacked ? weight->shape[1] * 2 : 0;
    if (!weight->parts || !has_rows(weight->format) || n <= KT_PLAN_STAGED_ROWS) return n;
    for (int i = 0; i < weight->format->n_parts; i++) {
        const kt_stored *stored = weight->parts[i];
        row += stored->bytes / (weight->transposed ? n : stored->shape[0]) + 1;
    }
    int64_t most = p->target.staged_bytes > 0 ? p->target.staged_bytes : KT_PLAN_STAGED;
    int64_t rows = most / (row > 0 ? row : 1) / KT_PLAN_STAGED_ROWS * KT_PLAN_STAGED_ROWS;
    if (rows < KT_PLAN_STAGED_ROWS) rows = KT_PLAN_STAGED_ROWS;
    if (rows >= n) return n;
    const kt_op *op = kt_registry_prepare(
        p->registry, w->unpacked ? plain_format(p)->name : weight->format->name, w->layout);
    bool placed = kt_str_eq(w->layout, rows_name) || kt_op_port_find(op, KT_STR("to")) >= 0;
    for (int last = 0; last < 2; last++) { // also of the rest
        if (last && n % rows == 0) break;
        source raw = weight_source(weight, w->rows), f16 = f16_source(p, weight, w->rows);
        raw.n = f16.n = last ? n % rows : rows;
        placed = placed && can_prepare(p, &raw, w->unpacked ? rows_name : w->layout) &&
                 (!w->unpacked || can_prepare(p, &f16, w->layout));
    }
    return placed ? rows : n;
}

// All prepares of one weight, behind those in `list`.
static bool add_prepares(kt_planner *p, const wanted *w, int which, prepare_list *list) {
    int64_t n = w->weights[which]->shape[0], rows = rows_at_once(p, w, which);
    for (int64_t from = 0; from < n; from += rows) {
        kt_prepare prepare = {.row_from = from, .row_to = from + rows < n ? from + rows : n};
        if (!make_prepare(p, w, which, &prepare)) return false;
        KT_PUSH(p->arena, list, prepare);
    }
    return true;
}

static int64_t layout_bytes(kt_planner *p, const wanted *w) {
    int64_t most = 0, rows_bytes = 0;
    bool plain_rows = kt_str_eq(w->layout, rows_name);
    for (int i = 0; i < w->n; i++) {
        source s = w->unpacked ? f16_source(p, w->weights[i], w->rows)
                               : weight_source(w->weights[i], w->rows);
        const kt_op *op = kt_registry_prepare(p->registry, s.format->name, w->layout);
        bound_prepare b;
        if (!bind_prepare(p, op, &s, &b)) continue;
        int64_t bytes = output_bytes(p, &b, NULL);
        rows_bytes += w->weights[i]->shape[0] * w->weights[i]->shape[1] * 2;
        if (bytes > most) most = bytes;
    }
    return plain_rows ? align(rows_bytes) : most;
}

static int make_layout(kt_planner *p, const kt_bound *b, const wanted *w) {
    kt_layout out = {.name = w->layout, .order = w->order, .weights = w->indices};
    out.n_weights = w->n;
    out.host_memory = w->host_memory;
    out.rows = w->rows;
    out.bytes = layout_bytes(p, w);
    prepare_list prepares = {0};
    for (int i = 0; i < w->n; i++)
        if (!add_prepares(p, w, i, &prepares)) return -1;
    out.prepares = prepares.at;
    out.n_prepares = (int)prepares.n;
    KT_PUSH(p->arena, &p->layouts, out);
    kt_layout_use use = {b->op->name, b->step->op.at};
    KT_PUSH(p->arena, &p->layout_uses, use);
    int index = (int)p->layouts.n - 1;
    for (int i = 0; i < w->n; i++) p->weight_layout[w->indices[i]] = index;
    return index;
}

static bool same_layout(const kt_layout *old, const wanted *w) {
    bool same = kt_str_eq(old->name, w->layout) && old->order == w->order &&
                old->n_weights == w->n && old->host_memory == w->host_memory;
    for (int i = 0; same && i < w->n; i++) same = old->weights[i] == w->indices[i];
    return same;
}

static void layout_text(kt_buf *buf, kt_str name, kt_order order, int n, bool host) {
    kt_buf_printf(buf, "%.*s", KT_STR_ARG(name));
    if (order != KT_ORDER_NATURAL) kt_buf_printf(buf, " in order %s", order_names[order]);
    if (n > 1) kt_buf_printf(buf, " with %d weights in one", n);
    if (host) kt_buf_printf(buf, " in host memory");
}

static int disagree(kt_planner *p, const kt_bound *b, const wanted *w, int which, int old) {
    kt_buf mine = {0}, other = {0};
    const kt_layout *l = &p->layouts.at[old];
    layout_text(&mine, w->layout, w->order, w->n, w->host_memory);
    layout_text(&other, l->name, l->order, l->n_weights, l->host_memory);
    kt_diag_error(p->diag, KT_RULE_VARIANT, b->step->op.at,
        "weight '%.*s' is read as %s by '%.*s' and as %s by '%.*s'",
        KT_STR_ARG(w->weights[which]->name), mine.at, KT_STR_ARG(b->op->name), other.at,
        KT_STR_ARG(p->layout_uses.at[old].op));
    kt_diag_note_at(p->diag, p->layout_uses.at[old].at, "the other use");
    kt_diag_note(p->diag, "a weight has one layout in a plan");
    kt_buf_deinit(&mine);
    kt_buf_deinit(&other);
    return -1;
}

static int get(kt_planner *p, const kt_bound *b, const wanted *w) {
    for (int i = 0; i < w->n; i++) {
        int old = p->weight_layout[w->indices[i]];
        if (old < 0) continue;
        return same_layout(&p->layouts.at[old], w) ? old : disagree(p, b, w, i, old);
    }
    return make_layout(p, b, w);
}

static bool check_order(kt_planner *p, const kt_bound *b, const kt_op_layout *layout, wanted *w) {
    if (w->order == KT_ORDER_PAIRS)
        return (w->n == 2 && w->weights[0]->shape[0] == w->weights[1]->shape[0]) ||
               kt_diag_error(p->diag, KT_RULE_VARIANT, layout->at,
                   "order pairs is of two weights with the same number of rows");
    if (w->order != KT_ORDER_HALVES) return true;
    int hd = kt_op_dim_find(b->op, KT_STR("hd"));
    w->hd = hd >= 0 && b->dims[hd].var < 0 ? b->dims[hd].max : 0;
    if (w->hd <= 0 || w->hd % 16)
        return kt_diag_error(p->diag, KT_RULE_VARIANT, layout->at,
            "order halves needs a dim 'hd' of the op, a multiple of 16; it is %" PRId64, w->hd);
    for (int i = 0; i < w->n; i++)
        if (w->weights[i]->shape[0] % w->hd)
            return kt_diag_error(p->diag, KT_RULE_VARIANT, layout->at,
                "order halves: '%.*s' has %" PRId64 " rows, no multiple of hd = %" PRId64,
                KT_STR_ARG(w->weights[i]->name), w->weights[i]->shape[0], w->hd);
    return true;
}

int kt_layout_get(kt_planner *p, const kt_bound *b, const kt_op_layout *layout, bool probe) {
    wanted w = {0};
    find_weights(p, b, layout, &w);
    if (w.n == 0 && probe) return 0; // all absent
    if (!choose(p, layout, &w)) return -1;
    if (probe) return 0;
    if (!check_order(p, b, layout, &w)) return -1;
    return get(p, b, &w);
}

int kt_layout_rows(kt_planner *p, const kt_bound *b, int weight) {
    if (p->weight_layout[weight] >= 0) return p->weight_layout[weight];
    wanted w = {.n = 1, .layout = rows_name, .host_memory = true};
    w.weights = KT_NEW_ARRAY(p->arena, const kt_weight *, 1);
    w.indices = KT_NEW_ARRAY(p->arena, int, 1);
    w.weights[0] = &p->model->weights[weight];
    w.indices[0] = weight;
    w.rows = w.weights[0]->shape[0];
    source s = weight_source(w.weights[0], w.rows);
    if (!can_prepare(p, &s, rows_name)) {
        kt_diag_error(p->diag, KT_RULE_VARIANT, w.weights[0]->at,
            "weight '%.*s', stored as '%.*s', cannot be unpacked to rows_f16",
            KT_STR_ARG(w.weights[0]->name), KT_STR_ARG(w.weights[0]->format->name));
        kt_diag_note_at(p->diag, b->step->op.at, "'%.*s' reads it", KT_STR_ARG(b->op->name));
        return -1;
    }
    return make_layout(p, b, &w);
}
