#include "loader/op_read.h"

static const kt_key variant_keys[] = {
    {"name", true, KT_KEY_SCALAR},
    {"when", false, KT_KEY_SCALAR},
    {"alias", false, KT_KEY_MAP},
    {"layouts", false, KT_KEY_MAP},
    {"tune", false, KT_KEY_MAP},
    {"scratch", false, KT_KEY_MAP},
    {"counters", false, KT_KEY_MAP},
    {"launch", false, KT_KEY_MAP},
    {"launches", false, KT_KEY_LIST},
};

static const kt_key layout_keys[] = {
    {"of", true, KT_KEY_SCALAR | KT_KEY_LIST},
    {"as", true, KT_KEY_SCALAR | KT_KEY_LIST},
    {"order", false, KT_KEY_SCALAR},
    {"memory", false, KT_KEY_SCALAR},
};

static const kt_key launch_keys[] = {
    {"grid", true, KT_KEY_SCALAR | KT_KEY_MAP}, {"block", true, KT_KEY_SCALAR | KT_KEY_MAP},
    {"shared", false, KT_KEY_SCALAR}, {"cluster", false, KT_KEY_SCALAR},
    {"cooperative", false, KT_KEY_SCALAR},
    {"name", true, KT_KEY_SCALAR}, // only in a list: the last row
};

static const kt_key axis_keys[] = {
    {"x", true, KT_KEY_SCALAR}, {"y", false, KT_KEY_SCALAR}, {"z", false, KT_KEY_SCALAR}};

static const char *const orders[] = {"natural", "halves", "pairs"}; // as kt_order

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

// A text or a list of texts as an array of nodes.
typedef struct texts {
    const kt_node *const *at;
    size_t n;
} texts;

static texts texts_of(kt_op_reader *r, const kt_pair *pair) {
    if (pair->value->kind == KT_NODE_SCALAR) {
        const kt_node **one = KT_NEW(r->arena, const kt_node *);
        one[0] = pair->value;
        return (texts){one, 1};
    }
    if (pair->value->kind == KT_NODE_MAP) return (texts){NULL, 0};
    if (pair->value->n == 0)
        kt_diag_error(
            r->diag, KT_RULE_KEY, pair->at, "'%.*s' is an empty list", KT_STR_ARG(pair->key));
    return (texts){pair->value->items, pair->value->n <= KT_OP_MAX_ENTRIES ? pair->value->n : 0};
}

// ---- alias

static bool same_axes(const kt_type *a, const kt_type *b) {
    if (a->base != b->base || a->dtype != b->dtype || !kt_str_eq(a->var, b->var) ||
        a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++) {
        if (!kt_str_eq(kt_expr_text(a->axis[i]), kt_expr_text(b->axis[i]))) return false;
    }
    return true;
}

static void near_ports(kt_op_reader *r, kt_str name, kt_port_kind kind, bool linear) {
    const kt_op *op = r->op;
    kt_str *known = KT_NEW_ARRAY(r->arena, kt_str, op->n_ports);
    size_t n = 0;
    for (int i = 0; i < op->n_ports; i++) {
        bool fits =
            op->ports[i].kind == kind && (!linear || op->ports[i].type.base == KT_BASE_LINEAR);
        if (fits) known[n++] = op->ports[i].name;
    }
    kt_diag_near(r->diag, name, known, n, true);
}

static int find_port(kt_op_reader *r, kt_str name, kt_port_kind kind) {
    int port = kt_op_port_find(r->op, name);
    return port >= 0 && r->op->ports[port].kind == kind ? port : -1;
}

static bool read_alias(kt_op_reader *r, const kt_pair *pair, kt_op_alias *out) {
    out->output = find_port(r, pair->key, KT_PORT_OUTPUT);
    if (out->output < 0) {
        kt_diag_error(r->diag, KT_RULE_NAME, pair->at, "'%.*s' is no output of this op",
            KT_STR_ARG(pair->key));
        near_ports(r, pair->key, KT_PORT_OUTPUT, false);
        kt_diag_note(
            r->diag, "alias: { output: input } lets the output take the memory of the input");
        return false;
    }
    const kt_node *value = pair->value;
    out->input = value->kind == KT_NODE_SCALAR ? find_port(r, value->text, KT_PORT_INPUT) : -1;
    if (out->input < 0) {
        kt_diag_error(r->diag, KT_RULE_NAME, value->at, "'%.*s' is no input of this op",
            KT_STR_ARG(value->text));
        near_ports(r, value->text, KT_PORT_INPUT, false);
        return false;
    }
    const kt_op_port *a = &r->op->ports[out->output], *b = &r->op->ports[out->input];
    if (b->type.optional)
        return kt_diag_error(r->diag, KT_RULE_TYPE, value->at,
            "'%.*s' may be absent, so '%.*s' cannot take its memory", KT_STR_ARG(b->name),
            KT_STR_ARG(a->name));
    if (same_axes(&a->type, &b->type)) return true;
    kt_diag_error(r->diag, KT_RULE_TYPE, pair->at,
        "'%.*s' is %.*s, '%.*s' is %.*s: they cannot share memory", KT_STR_ARG(a->name),
        KT_STR_ARG(a->type.text), KT_STR_ARG(b->name), KT_STR_ARG(b->type.text));
    kt_diag_note_at(r->diag, a->at, "'%.*s' is declared", KT_STR_ARG(a->name));
    kt_diag_note_at(r->diag, b->at, "'%.*s' is declared", KT_STR_ARG(b->name));
    return false;
}

static void read_aliases(kt_op_reader *r, const kt_node *map, kt_variant *v) {
    map = kt_op_section(r, map, "alias", KT_NODE_MAP);
    if (map == NULL) return;
    kt_op_alias *aliases = KT_NEW_ARRAY(r->arena, kt_op_alias, map->n);
    v->aliases = aliases;
    for (size_t i = 0; i < map->n; i++) {
        kt_op_alias *fresh = &aliases[v->n_aliases];
        if (!read_alias(r, &map->pairs[i], fresh)) continue;
        bool taken = false;
        for (int k = 0; k < v->n_aliases; k++) taken = taken || aliases[k].input == fresh->input;
        if (taken)
            kt_diag_error(r->diag, KT_RULE_NAME, map->pairs[i].value->at,
                "two outputs cannot take the memory of '%.*s'",
                KT_STR_ARG(r->op->ports[fresh->input].name));
        else
            v->n_aliases++;
    }
}

// ---- layouts

static void read_order(kt_op_reader *r, const kt_node *map, kt_op_layout *out) {
    const kt_node *node = kt_op_section(r, map, "order", KT_NODE_SCALAR);
    if (node == NULL) return;
    kt_str known[COUNT(orders)];
    for (size_t i = 0; i < COUNT(orders); i++) {
        known[i] = kt_str_from(orders[i]);
        if (!kt_str_eq(node->text, known[i])) continue;
        out->order = (kt_order)i;
        if (out->order != KT_ORDER_PAIRS || out->n_of == 2 || r->layout_bad) return;
        kt_diag_error(r->diag, KT_RULE_VALUE, node->at,
            "order 'pairs' takes two weights, layout '%.*s' has %d", KT_STR_ARG(out->name),
            out->n_of);
        return;
    }
    kt_diag_error(
        r->diag, KT_RULE_VALUE, node->at, "unknown order of rows '%.*s'", KT_STR_ARG(node->text));
    kt_diag_near(r->diag, node->text, known, COUNT(orders), true);
}

static void read_layout_memory(kt_op_reader *r, const kt_node *map, kt_op_layout *out) {
    const kt_node *node = kt_op_section(r, map, "memory", KT_NODE_SCALAR);
    if (node == NULL) return;
    out->host_memory = kt_str_is(node->text, "host");
    if (out->host_memory) return;
    kt_diag_error(
        r->diag, KT_RULE_VALUE, node->at, "unknown memory '%.*s'", KT_STR_ARG(node->text));
    kt_diag_note(
        r->diag, "write 'memory: host' to keep the weight in host memory, or leave the key out");
}

// The weights of one block of memory are of one width.
static void check_widths(kt_op_reader *r, const kt_op_layout *layout, kt_place at) {
    const kt_op_port *first = &r->op->ports[layout->of[0]];
    const kt_op_port *last = &r->op->ports[layout->of[layout->n_of - 1]];
    if (first->type.rank != 2 || last->type.rank != 2) return;
    bool rows = kt_str_eq(kt_expr_text(first->type.axis[0]), kt_expr_text(last->type.axis[0]));
    bool columns = kt_str_eq(kt_expr_text(first->type.axis[1]), kt_expr_text(last->type.axis[1]));
    if (columns && (rows || layout->order != KT_ORDER_PAIRS)) return;
    kt_diag_error(r->diag, KT_RULE_SHAPE, at,
        "'%.*s' is %.*s, '%.*s' is %.*s: they do not fit in one layout", KT_STR_ARG(first->name),
        KT_STR_ARG(first->type.text), KT_STR_ARG(last->name), KT_STR_ARG(last->type.text));
    kt_diag_note(r->diag, columns ? "order 'pairs' needs weights of one height"
                                  : "the weights of a layout have the same inputs");
}

static bool has_port(const int *ports, int n, int port) {
    for (int i = 0; i < n; i++) {
        if (ports[i] == port) return true;
    }
    return false;
}

// The linear inputs of the layout; `taken` has all ports that earlier layouts of the variant hold.
static void read_of(kt_op_reader *r, const kt_pair *pair, kt_op_layout *out, bool *taken) {
    texts names = texts_of(r, pair);
    int *of = KT_NEW_ARRAY(r->arena, int, names.n);
    out->of = of;
    for (size_t i = 0; i < names.n; i++) {
        const kt_node *name = names.at[i];
        int port = find_port(r, name->text, KT_PORT_INPUT);
        if (port < 0 || r->op->ports[port].type.base != KT_BASE_LINEAR) {
            r->layout_bad = true;
            kt_diag_error(r->diag, KT_RULE_NAME, name->at,
                "layout '%.*s' is of '%.*s', which is no linear input of this op",
                KT_STR_ARG(out->name), KT_STR_ARG(name->text));
            near_ports(r, name->text, KT_PORT_INPUT, true);
        } else if (taken[port] || has_port(of, out->n_of, port)) {
            kt_diag_error(r->diag, KT_RULE_NAME, name->at,
                "'%.*s' is in two layouts of this variant", KT_STR_ARG(name->text));
        } else {
            taken[port] = true;
            of[out->n_of++] = port;
            if (out->n_of > 1) check_widths(r, out, name->at);
        }
    }
}

static void read_as(kt_op_reader *r, const kt_pair *pair, kt_op_layout *out) {
    texts names = texts_of(r, pair);
    kt_str *as = KT_NEW_ARRAY(r->arena, kt_str, names.n);
    kt_place *as_at = KT_NEW_ARRAY(r->arena, kt_place, names.n);
    out->as = as;
    out->as_at = as_at;
    for (size_t i = 0; i < names.n; i++) {
        kt_str name;
        if (!kt_schema_name(names.at[i], "a layout", r->diag, &name)) continue;
        for (int k = 0; k < out->n_as; k++) {
            if (kt_str_eq(as[k], name))
                kt_diag_error(r->diag, KT_RULE_NAME, names.at[i]->at,
                    "layout '%.*s' is listed twice", KT_STR_ARG(name));
        }
        as_at[out->n_as] = names.at[i]->at;
        as[out->n_as++] = name;
    }
}

static void read_layout(kt_op_reader *r, const kt_pair *pair, kt_op_layout *out, bool *taken) {
    *out = (kt_op_layout){.name = pair->key, .at = pair->at};
    const char *what = kt_arena_printf(r->arena, "layout '%.*s'", KT_STR_ARG(pair->key));
    kt_schema_check(pair->value, what, layout_keys, COUNT(layout_keys), false, r->diag);
    const kt_pair *order = kt_node_find(pair->value, "order");
    // Known before the weights are compared; that it fits their number is checked after.
    if (order != NULL && kt_str_is(order->value->text, "pairs")) out->order = KT_ORDER_PAIRS;
    const kt_pair *of = kt_node_find(pair->value, "of"), *as = kt_node_find(pair->value, "as");
    if (of != NULL) read_of(r, of, out, taken);
    if (as != NULL) read_as(r, as, out);
    read_order(r, pair->value, out);
    read_layout_memory(r, pair->value, out);
}

static void check_weights_laid_out(kt_op_reader *r, const kt_variant *v, const bool *taken) {
    for (int i = 0; i < r->op->n_inputs; i++) {
        const kt_op_port *port = &r->op->ports[i];
        if (port->type.base != KT_BASE_LINEAR || taken[i]) continue;
        kt_diag_error(r->diag, KT_RULE_VARIANT, v->at, "variant '%.*s' names no layout for '%.*s'",
            KT_STR_ARG(v->name), KT_STR_ARG(port->name));
        kt_diag_note(r->diag,
            "add it under 'layouts', for instance w: { of: %.*s, as: [rows_f16] }",
            KT_STR_ARG(port->name));
        kt_diag_note_at(r->diag, port->at, "'%.*s' is declared", KT_STR_ARG(port->name));
    }
}

static void read_layouts(kt_op_reader *r, const kt_node *map, kt_variant *v) {
    bool *taken = KT_NEW_ARRAY(r->arena, bool, r->op->n_ports);
    r->layout_bad = false;
    const kt_node *list = kt_op_section(r, map, "layouts", KT_NODE_MAP);
    if (list != NULL) {
        kt_op_layout *layouts = KT_NEW_ARRAY(r->arena, kt_op_layout, list->n);
        v->layouts = layouts;
        for (size_t i = 0; i < list->n; i++) {
            if (!kt_op_plain_name(r, list->pairs[i].key, list->pairs[i].at, "a layout")) continue;
            read_layout(r, &list->pairs[i], &layouts[v->n_layouts++], taken);
        }
    }
    const kt_pair *pair = kt_node_find(map, "layouts");
    bool whole = (pair == NULL || list != NULL) && !r->layout_bad && r->types_known;
    if (whole) check_weights_laid_out(r, v, taken);
}

// ---- tuning values, scratch, counters

static void read_tune(kt_op_reader *r, const kt_pair *pair, kt_op_tune *out) {
    *out = (kt_op_tune){.name = pair->key, .at = pair->at};
    const kt_node *list = pair->value;
    if (list->kind != KT_NODE_LIST || list->n == 0 || list->n > KT_OP_MAX_ENTRIES) {
        r->names_known = false; // its name has no value
        kt_diag_error(r->diag, KT_RULE_KEY, list->at, "tune value '%.*s' is a list of integers",
            KT_STR_ARG(pair->key));
        kt_diag_note(r->diag, "write %.*s: [4, 2, 8]; the first one is used without tuning data",
            KT_STR_ARG(pair->key));
        return;
    }
    int64_t *values = KT_NEW_ARRAY(r->arena, int64_t, list->n);
    out->values = values;
    for (size_t i = 0; i < list->n; i++) {
        int64_t value;
        if (!kt_schema_int(list->items[i], "a tune value", r->diag, &value)) continue;
        if (value < 0 || value > INT32_MAX)
            kt_diag_error(r->diag, KT_RULE_VALUE, list->items[i]->at,
                "a tune value is at least 0 and fits in 32 bits");
        for (int k = 0; k < out->n_values; k++) {
            if (values[k] == value)
                kt_diag_error(
                    r->diag, KT_RULE_VALUE, list->items[i]->at, "this value is listed twice");
        }
        values[out->n_values++] = value;
    }
}

static void read_tunes(kt_op_reader *r, const kt_node *map, kt_variant *v) {
    map = kt_op_section(r, map, "tune", KT_NODE_MAP);
    if (map == NULL) return;
    kt_op_tune *tunes = KT_NEW_ARRAY(r->arena, kt_op_tune, map->n);
    v->tunes = tunes;
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        if (!kt_op_plain_name(r, pair->key, pair->at, "a tune value")) continue;
        int dim = kt_op_dim_find(r->op, pair->key);
        if (dim >= 0) {
            kt_diag_error(r->diag, KT_RULE_NAME, pair->at, "'%.*s' is a dim and a tune value",
                KT_STR_ARG(pair->key));
            kt_diag_note_at(r->diag, r->op->dims[dim].at, "the dim is declared");
        }
        read_tune(r, pair, &tunes[v->n_tunes++]);
    }
}

static bool read_memory(
    kt_op_reader *r, const kt_pair *pair, bool counter, const kt_variant *v, kt_op_memory *out) {
    const char *what = counter ? "a counter" : "scratch memory";
    *out = (kt_op_memory){.name = pair->key};
    if (!kt_op_plain_name(r, pair->key, pair->at, what)) return false;
    kt_str *vars = KT_NEW_ARRAY(r->arena, kt_str, r->op->n_typevars);
    for (int i = 0; i < r->op->n_typevars; i++) vars[i] = r->op->typevars[i].name;
    if (!kt_type_parse(r->arena, pair->value, vars, (size_t)r->op->n_typevars, r->diag, &out->type))
        return false;
    const kt_type *type = &out->type;
    bool plain = type->base == KT_BASE_DTYPE || type->base == KT_BASE_VAR;
    if (!plain || type->optional || type->each)
        return kt_diag_error(r->diag, KT_RULE_TYPE, type->at,
            "%s is a tensor such as f32[n, d], got '%.*s'", what, KT_STR_ARG(type->text));
    if (counter && (type->base != KT_BASE_DTYPE || type->dtype != KT_DTYPE_U32)) {
        kt_diag_error(r->diag, KT_RULE_TYPE, type->at, "a counter is of type u32, got '%.*s'",
            KT_STR_ARG(type->text));
        kt_diag_note(r->diag,
            "counters are zero at first and left zero; other memory belongs under 'scratch'");
    }
    for (int i = 0; i < type->rank; i++)
        kt_op_check_names(r, type->axis[i], kt_op_known(r, v, true), what);
    return true;
}

static const kt_op_memory *read_memories(
    kt_op_reader *r, const kt_node *map, bool counters, const kt_variant *v, int *n) {
    map = kt_op_section(r, map, counters ? "counters" : "scratch", KT_NODE_MAP);
    if (map == NULL) return NULL;
    kt_op_memory *out = KT_NEW_ARRAY(r->arena, kt_op_memory, map->n);
    for (size_t i = 0; i < map->n; i++) {
        if (read_memory(r, &map->pairs[i], counters, v, &out[*n])) (*n)++;
    }
    return out;
}

// ---- launches

static const kt_expr *read_launch_expr(kt_op_reader *r, const kt_node *node, const kt_variant *v) {
    const kt_expr *expr = kt_expr_node(r->arena, node, r->diag);
    kt_op_check_names(r, expr, kt_op_known(r, v, true), "a launch");
    return expr;
}

static const kt_expr *read_launch_key(
    kt_op_reader *r, const kt_node *map, const char *key, const kt_variant *v) {
    const kt_node *node = kt_op_section(r, map, key, KT_NODE_SCALAR);
    return node == NULL ? NULL : read_launch_expr(r, node, v);
}

static void read_axes(kt_op_reader *r, const kt_node *map, const char *key, const kt_variant *v,
    const kt_expr **out) {
    const kt_pair *pair = kt_node_find(map, key);
    if (pair == NULL) return;
    if (pair->value->kind == KT_NODE_LIST) {
        kt_diag_note(
            r->diag, "write one key a line: %s: then x: ..., y: ..., z: ... below it", key);
        return;
    }
    if (pair->value->kind == KT_NODE_SCALAR) {
        out[0] = read_launch_expr(r, pair->value, v);
        return;
    }
    kt_schema_check(pair->value, key, axis_keys, COUNT(axis_keys), false, r->diag);
    for (int i = 0; i < 3; i++) out[i] = read_launch_key(r, pair->value, axis_keys[i].name, v);
}

static void read_launch(
    kt_op_reader *r, const kt_node *map, bool in_list, const kt_variant *v, kt_op_launch *out) {
    *out = (kt_op_launch){.at = map->at};
    size_t n_keys = COUNT(launch_keys) - (in_list ? 0 : 1);
    kt_schema_check(map, "a launch", launch_keys, n_keys, false, r->diag);
    if (map->kind != KT_NODE_MAP) return;
    read_axes(r, map, "grid", v, out->grid);
    read_axes(r, map, "block", v, out->block);
    out->shared = read_launch_key(r, map, "shared", v);
    out->cluster = read_launch_key(r, map, "cluster", v);
    const kt_node *cooperative = kt_op_section(r, map, "cooperative", KT_NODE_SCALAR);
    if (cooperative != NULL) kt_schema_bool(cooperative, r->diag, &out->cooperative);
    const kt_node *name = kt_op_section(r, map, "name", KT_NODE_SCALAR);
    if (name == NULL || !in_list || !kt_op_plain_name(r, name->text, name->at, "a launch")) return;
    out->name = name->text;
    out->at = name->at;
}

static void read_launches(kt_op_reader *r, const kt_node *map, kt_variant *v) {
    const kt_pair *one = kt_node_find(map, "launch"), *many = kt_node_find(map, "launches");
    if ((one == NULL) == (many == NULL)) {
        kt_diag_error(r->diag, KT_RULE_KEY, v->at,
            one == NULL ? "variant '%.*s' has no 'launch'"
                        : "variant '%.*s' has both 'launch' and 'launches'",
            KT_STR_ARG(v->name));
        kt_diag_note(r->diag, "'launch' is one kernel, 'launches' a list of kernels with names");
        return;
    }
    const kt_node *list = kt_op_section(r, map, "launches", KT_NODE_LIST);
    size_t n = list == NULL ? 1 : list->n;
    kt_op_launch *launches = KT_NEW_ARRAY(r->arena, kt_op_launch, n);
    v->launches = launches;
    if (one != NULL && one->value->kind == KT_NODE_MAP)
        read_launch(r, one->value, false, v, &launches[v->n_launches++]);
    for (size_t i = 0; list != NULL && i < n; i++)
        read_launch(r, list->items[i], true, v, &launches[v->n_launches++]);
    if (list != NULL && n == 0)
        kt_diag_error(r->diag, KT_RULE_KEY, list->at, "'launches' is an empty list");
}

// ---- variants

static void read_variant(kt_op_reader *r, const kt_node *map, kt_variant *v) {
    *v = (kt_variant){.at = map->at};
    kt_schema_check(map, "a variant", variant_keys, COUNT(variant_keys), false, r->diag);
    if (map->kind != KT_NODE_MAP) return;
    const kt_node *name = kt_op_section(r, map, "name", KT_NODE_SCALAR);
    if (name != NULL && kt_op_plain_name(r, name->text, name->at, "a variant")) {
        v->name = name->text;
        v->at = name->at;
    }
    const kt_node *when = kt_op_section(r, map, "when", KT_NODE_SCALAR);
    if (when != NULL) v->when = kt_expr_node(r->arena, when, r->diag);
    kt_op_check_names(r, v->when, kt_op_known(r, NULL, true), "'when'");
    read_aliases(r, map, v);
    read_tunes(r, map, v);
    read_layouts(r, map, v);
    v->scratch = read_memories(r, map, false, v, &v->n_scratch);
    v->counters = read_memories(r, map, true, v, &v->n_counters);
    read_launches(r, map, v);
}

typedef struct kernel_name {
    const char *name;
    kt_place at;
} kernel_name;

// Two launches of one name would be one kernel ("rows_a" and launch "a" of "rows" included).
static void check_kernel_names(kt_op_reader *r) {
    KT_VEC(kernel_name) seen = {0};
    for (int i = 0; i < r->op->n_variants; i++) {
        const kt_variant *v = &r->op->variants[i];
        for (int k = 0; k < v->n_launches && v->name.n > 0; k++) {
            kernel_name now = {kt_op_kernel_name(r->arena, r->op, v, &v->launches[k]),
                v->launches[k].name.n > 0 ? v->launches[k].at : v->at};
            for (size_t m = 0; m < seen.n; m++) {
                if (!kt_str_is(kt_str_from(now.name), seen.at[m].name)) continue;
                kt_diag_error(
                    r->diag, KT_RULE_NAME, now.at, "two kernels are called '%s'", now.name);
                kt_diag_note_at(r->diag, seen.at[m].at, "the first one is named");
                break;
            }
            KT_PUSH(r->arena, &seen, now);
        }
    }
}

void kt_op_read_variants(kt_op_reader *r) {
    const kt_node *list = kt_op_section(r, r->root, "variants", KT_NODE_LIST);
    if (list == NULL) return;
    kt_variant *variants = KT_NEW_ARRAY(r->arena, kt_variant, list->n);
    r->op->variants = variants;
    for (size_t i = 0; i < list->n; i++)
        read_variant(r, list->items[i], &variants[r->op->n_variants++]);
    if (list->n == 0) kt_diag_error(r->diag, KT_RULE_KEY, list->at, "'variants' is an empty list");
    check_kernel_names(r);
}
