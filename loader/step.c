#include "loader/op.h"

static const kt_key op_keys[] = {
    {"op", true, KT_KEY_SCALAR},
    {"id", false, KT_KEY_SCALAR},
    {"in", false, KT_KEY_MAP},
    {"inout", false, KT_KEY_MAP},
    {"out", false, KT_KEY_MAP},
    {"params", false, KT_KEY_SCALAR | KT_KEY_MAP},
    {"dims", false, KT_KEY_MAP},
    {"types", false, KT_KEY_MAP},
};

static const kt_key body_keys[] = {
    {"op", true, KT_KEY_SCALAR},
    {"in", false, KT_KEY_MAP},
    {"inout", false, KT_KEY_MAP},
    {"out", false, KT_KEY_MAP},
    {"params", false, KT_KEY_MAP},
    {"dims", false, KT_KEY_MAP},
    {"types", false, KT_KEY_MAP},
};

static const kt_key host_keys[] = {
    {"host", true, KT_KEY_SCALAR},
    {"id", false, KT_KEY_SCALAR},
    {"in", false, KT_KEY_MAP},
    {"inout", false, KT_KEY_MAP},
    {"out", false, KT_KEY_MAP},
    {"params", false, KT_KEY_SCALAR | KT_KEY_MAP},
    {"dims", false, KT_KEY_MAP},
};

static const kt_key repeat_keys[] = {
    {"repeat", true, KT_KEY_SCALAR},
    {"id", false, KT_KEY_SCALAR},
    {"carry", true, KT_KEY_MAP},
    {"steps", true, KT_KEY_LIST},
    {"yield", true, KT_KEY_MAP},
};

enum { MAX_LINKS = 512 };

typedef struct reader {
    kt_arena *arena;
    kt_diag *diag;
    const kt_node *map;
} reader;

static bool is_ref_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || c == '.';
}

// A name, dotted or with placeholders: "h", "w.attn", "dec.$l".
static bool read_ref(reader *r, const kt_node *node, const char *what, kt_ref *out) {
    *out = (kt_ref){node->text, node->at};
    if (node->kind != KT_NODE_SCALAR)
        return kt_diag_error(
            r->diag, KT_RULE_KEY, node->at, "%s is a name, got %s", what, kt_node_kind_name(node));
    kt_str text = node->text;
    bool good = text.n > 0 && text.at[0] != '.' && text.at[text.n - 1] != '.';
    for (size_t i = 0; i < text.n; i++) good = good && is_ref_char(text.at[i]);
    if (good) return true;
    kt_diag_error(
        r->diag, KT_RULE_NAME, node->at, "%s cannot be called '%.*s'", what, KT_STR_ARG(text));
    kt_diag_note(r->diag,
        "a name is letters, digits, _, $ and dots; a value is computed in a step of its own");
    return false;
}

// The value of an optional key if it is of the kind that the schema has checked.
static const kt_node *section(const reader *r, const char *key, kt_node_kind kind) {
    const kt_pair *pair = kt_node_find(r->map, key);
    return pair != NULL && pair->value->kind == kind ? pair->value : NULL;
}

static bool fits(reader *r, const kt_node *map, const char *key) {
    if (map->n <= MAX_LINKS) return true;
    return kt_diag_error(
        r->diag, KT_RULE_LIMIT, map->at, "'%s' has more than %d entries", key, MAX_LINKS);
}

static const kt_link *read_links(reader *r, const char *key, int *n) {
    const kt_node *map = section(r, key, KT_NODE_MAP);
    *n = 0;
    if (map == NULL || !fits(r, map, key)) return NULL;
    kt_link *links = KT_NEW_ARRAY(r->arena, kt_link, map->n);
    for (size_t i = 0; i < map->n; i++) {
        kt_link link = {.port = {map->pairs[i].key, map->pairs[i].at}};
        if (read_ref(r, map->pairs[i].value, "a tensor", &link.name)) links[(*n)++] = link;
    }
    return links;
}

static const kt_given *read_given(reader *r, const char *key, bool scalars, int *n) {
    const kt_node *map = section(r, key, KT_NODE_MAP);
    *n = 0;
    if (map == NULL || !fits(r, map, key)) return NULL;
    kt_given *given = KT_NEW_ARRAY(r->arena, kt_given, map->n);
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        if (scalars && pair->value->kind != KT_NODE_SCALAR) {
            kt_diag_error(r->diag, KT_RULE_KEY, pair->value->at, "'%.*s' in '%s' is a text, got %s",
                KT_STR_ARG(pair->key), key, kt_node_kind_name(pair->value));
            continue;
        }
        given[(*n)++] = (kt_given){{pair->key, pair->at}, pair->value};
    }
    return given;
}

static void read_name(reader *r, const char *key, const char *what, kt_ref *out) {
    const kt_node *node = section(r, key, KT_NODE_SCALAR);
    if (node == NULL) return;
    kt_str ignored;
    if (kt_schema_name(node, what, r->diag, &ignored)) *out = (kt_ref){node->text, node->at};
}

static void read_call(reader *r, kt_step *out) {
    out->in = read_links(r, "in", &out->n_in);
    out->inout = read_links(r, "inout", &out->n_inout);
    out->out = read_links(r, "out", &out->n_out);
    out->params = read_given(r, "params", false, &out->n_params);
    out->dims = read_given(r, "dims", true, &out->n_dims);
    out->types = read_given(r, "types", true, &out->n_types);
    const kt_node *group = section(r, "params", KT_NODE_SCALAR);
    if (group != NULL) read_ref(r, group, "a group of parameters", &out->param_group);
}

static bool has_link(const kt_link *links, int n, kt_str port) {
    for (int i = 0; i < n; i++) {
        if (kt_str_eq(links[i].port.text, port)) return true;
    }
    return false;
}

static void compare_carried(reader *r, const kt_step *step) {
    for (int i = 0; i < step->n_carry; i++) {
        const kt_ref *name = &step->carry[i].port;
        if (!has_link(step->yield_, step->n_yield, name->text))
            kt_diag_error(r->diag, KT_RULE_STEP, name->at, "'%.*s' is carried but not yielded",
                KT_STR_ARG(name->text));
    }
    for (int i = 0; i < step->n_yield; i++) {
        const kt_ref *name = &step->yield_[i].port;
        if (!has_link(step->carry, step->n_carry, name->text))
            kt_diag_error(r->diag, KT_RULE_STEP, name->at, "'%.*s' is yielded but not carried",
                KT_STR_ARG(name->text));
    }
}

static void read_repeat(reader *r, kt_step *out) {
    out->carry = read_links(r, "carry", &out->n_carry);
    out->yield_ = read_links(r, "yield", &out->n_yield);
    if (section(r, "carry", KT_NODE_MAP) != NULL && section(r, "yield", KT_NODE_MAP) != NULL)
        compare_carried(r, out);
    const kt_node *list = section(r, "steps", KT_NODE_LIST);
    if (list == NULL) return;
    kt_step *steps = KT_NEW_ARRAY(r->arena, kt_step, list->n);
    for (size_t i = 0; i < list->n; i++) {
        if (kt_step_parse(r->arena, list->items[i], false, r->diag, &steps[out->n_steps]))
            out->n_steps++;
    }
    out->steps = steps;
    if (list->n == 0) kt_diag_error(r->diag, KT_RULE_STEP, list->at, "the repeat has no steps");
}

#define CHECK(keys, what)                                                                          \
    kt_schema_check(r->map, (what), (keys), sizeof(keys) / sizeof((keys)[0]), false, r->diag)

static bool check_keys(reader *r, bool in_body) {
    static const char *const forms[] = {"op", "host", "repeat"};
    const kt_pair *found = NULL;
    for (size_t i = 0; i < 3; i++) {
        const kt_pair *pair = kt_node_find(r->map, forms[i]);
        if (pair == NULL) continue;
        if (found != NULL)
            return kt_diag_error(r->diag, KT_RULE_STEP, pair->at,
                "a step is one of 'op', 'host' and 'repeat', this one has also '%.*s'",
                KT_STR_ARG(found->key));
        found = pair;
    }
    kt_place at = r->map->n > 0 ? r->map->pairs[0].at : r->map->at;
    if (in_body && found != NULL && !kt_str_is(found->key, "op"))
        return kt_diag_error(r->diag, KT_RULE_STEP, found->at,
            "the body of an op holds ops only, no '%.*s'", KT_STR_ARG(found->key));
    if (in_body) return CHECK(body_keys, "a step of a body");
    if (found == NULL)
        return kt_diag_error(r->diag, KT_RULE_STEP, at, "a step needs 'op', 'host' or 'repeat'");
    if (kt_str_is(found->key, "op")) return CHECK(op_keys, "a step with 'op'");
    if (kt_str_is(found->key, "host")) return CHECK(host_keys, "a step with 'host'");
    return CHECK(repeat_keys, "a repeat");
}

bool kt_step_parse(kt_arena *arena, const kt_node *map, bool in_body, kt_diag *diag, kt_step *out) {
    *out = (kt_step){.at = map->at};
    int errors = diag->n_errors;
    reader own = {arena, diag, map}, *r = &own;
    if (map->kind != KT_NODE_MAP)
        return kt_diag_error(
            diag, KT_RULE_STEP, map->at, "a step is a map, got %s", kt_node_kind_name(map));
    check_keys(r, in_body);
    read_name(r, "op", "an op", &out->op);
    read_name(r, "host", "a host step", &out->host);
    read_name(r, "id", "a step", &out->id);
    read_name(r, "repeat", "an index", &out->repeat);
    if (out->repeat.text.n > 0) {
        read_repeat(r, out);
    } else {
        read_call(r, out);
    }
    return diag->n_errors == errors;
}
