#include "loader/format.h"

#include "loader/schema.h"
#include "runtime/base/file.h"

#include <string.h>

static const kt_key format_keys[] = {
    {"kotaro", true, KT_KEY_SCALAR},
    {"name", true, KT_KEY_SCALAR},
    {"doc", true, KT_KEY_SCALAR},
    {"source", false, KT_KEY_SCALAR},
    {"types", false, KT_KEY_MAP},
    {"when", false, KT_KEY_SCALAR | KT_KEY_LIST},
    {"json", false, KT_KEY_SCALAR},
    {"values", false, KT_KEY_MAP},
    {"require", false, KT_KEY_LIST},
    {"parts", true, KT_KEY_MAP},
};

static const kt_key part_keys[] = {{"tensor", true, KT_KEY_SCALAR}, {"type", true, KT_KEY_SCALAR}};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { MAX_ENTRIES = 64 };

typedef struct reader {
    kt_arena *arena;
    kt_diag *diag;
    const kt_node *root;
    kt_format *format;
} reader;

static const kt_node *section(reader *r, const char *key, kt_node_kind kind) {
    const kt_pair *pair = kt_node_find(r->root, key);
    if (pair == NULL || pair->value->kind != kind) return NULL;
    if (pair->value->n <= MAX_ENTRIES) return pair->value;
    kt_diag_error(
        r->diag, KT_RULE_LIMIT, pair->at, "'%s' has more than %d entries", key, MAX_ENTRIES);
    return NULL;
}

static bool plain_name(reader *r, const kt_pair *pair, const char *what) {
    kt_node node = {.kind = KT_NODE_SCALAR, .at = pair->at, .text = pair->key};
    kt_str ignored;
    if (!kt_schema_name(&node, what, r->diag, &ignored)) return false;
    if (kt_str_find(pair->key, '.') < 0) return true;
    return kt_diag_error(r->diag, KT_RULE_NAME, pair->at,
        "%s cannot be called '%.*s': no dots here", what, KT_STR_ARG(pair->key));
}

static bool has_placeholder(kt_str text) {
    kt_str name = KT_STR("$name");
    for (size_t i = 0; i + name.n <= text.n; i++) {
        if (kt_str_starts(kt_str_slice(text, i, text.n), name)) return true;
    }
    return false;
}

static bool want_placeholder(reader *r, const kt_node *node, const char *what) {
    if (node->kind != KT_NODE_SCALAR)
        return kt_diag_error(r->diag, KT_RULE_KEY, node->at, "%s is the name of a tensor, got %s",
            what, kt_node_kind_name(node));
    if (has_placeholder(node->text)) return true;
    kt_diag_error(r->diag, KT_RULE_VALUE, node->at,
        "%s is the name of a tensor with $name in it, got '%.*s'", what, KT_STR_ARG(node->text));
    kt_diag_note(r->diag, "$name stands for the name that the model file gives the weight");
    return false;
}

static void read_head(reader *r, const char *path) {
    kt_format *f = r->format;
    const kt_node *name = section(r, "name", KT_NODE_SCALAR),
                  *doc = section(r, "doc", KT_NODE_SCALAR);
    f->at = name != NULL ? name->at : r->root->at;
    if (doc != NULL) f->doc = doc->text;
    if (name == NULL || !kt_schema_name(name, "a format", r->diag, &f->name)) return;
    kt_str file = kt_str_from(kt_path_name(path)), end = KT_STR(".format.yaml");
    bool same = kt_str_ends(file, end) && kt_str_eq(kt_str_slice(file, 0, file.n - end.n), f->name);
    if (same) return;
    kt_diag_error(r->diag, KT_RULE_NAME, name->at, "format '%.*s' lies in a file called '%.*s'",
        KT_STR_ARG(f->name), KT_STR_ARG(file));
    kt_diag_note(r->diag, "the file of a format is called %.*s.format.yaml", KT_STR_ARG(f->name));
}

// `when`: one mark, or a list of marks that must all be there.
static void read_when(reader *r) {
    const kt_pair *pair = kt_node_find(r->root, "when");
    if (pair == NULL) return;
    const kt_node *node = pair->value;
    if (node->kind == KT_NODE_SCALAR && kt_str_starts(node->text, KT_STR("ggml_type "))) {
        int64_t number;
        bool fits = kt_str_to_i64(kt_str_slice(node->text, 10, node->text.n), &number) &&
                    number >= 0 && number <= INT32_MAX;
        if (fits)
            r->format->ggml_type = (int)number;
        else
            kt_diag_error(r->diag, KT_RULE_VALUE, node->at,
                "'when' is 'ggml_type' and a number, got '%.*s'", KT_STR_ARG(node->text));
        r->format->when = node->text;
        return;
    }
    if (node->kind == KT_NODE_SCALAR) {
        if (want_placeholder(r, node, "'when'")) r->format->when = node->text;
        return;
    }
    const kt_node *list = section(r, "when", KT_NODE_LIST);
    if (list == NULL) return;
    if (list->n == 0) kt_diag_error(r->diag, KT_RULE_KEY, list->at, "'when' is an empty list");
    kt_str *also = KT_NEW_ARRAY(r->arena, kt_str, list->n);
    r->format->also = also;
    for (size_t i = 0; i < list->n; i++) {
        if (!want_placeholder(r, list->items[i], "'when'")) continue;
        if (i == 0) {
            r->format->when = list->items[i]->text;
        } else {
            also[r->format->n_also++] = list->items[i]->text;
        }
    }
}

static void read_typevars(reader *r) {
    const kt_node *map = section(r, "types", KT_NODE_MAP);
    if (map == NULL) return;
    kt_str *names = KT_NEW_ARRAY(r->arena, kt_str, map->n);
    int *counts = KT_NEW_ARRAY(r->arena, int, map->n);
    kt_dtype(*choices)[KT_DTYPE_COUNT] = kt_arena_array(r->arena, map->n, sizeof *choices);
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        if (!plain_name(r, pair, "a type")) continue;
        int at = r->format->n_typevars++;
        names[at] = pair->key;
        if (pair->value->kind != KT_NODE_LIST || pair->value->n == 0 ||
            pair->value->n > KT_DTYPE_COUNT) {
            kt_diag_error(r->diag, KT_RULE_KEY, pair->value->at,
                "type '%.*s' is a list of element types such as [f16, f32]", KT_STR_ARG(pair->key));
            continue;
        }
        for (size_t k = 0; k < pair->value->n; k++) {
            const kt_node *item = pair->value->items[k];
            if (item->kind == KT_NODE_SCALAR &&
                kt_dtype_find(item->text, &choices[at][counts[at]])) {
                counts[at]++;
            } else {
                kt_diag_error(r->diag, KT_RULE_TYPE, item->at, "'%.*s' is no element type",
                    KT_STR_ARG(item->text));
            }
        }
    }
    r->format->typevars = names;
    r->format->n_typevar_choices = counts;
    r->format->typevar_choices = (const kt_dtype(*)[KT_DTYPE_COUNT])choices;
}

// ---- values, requirements, parts

typedef struct name_check {
    reader *r;
    const char *what;
    bool values; // n, k and the values are known
} name_check;

static void check_name(void *ctx, kt_str name, kt_place at) {
    const name_check *check = ctx;
    const kt_format *f = check->r->format;
    kt_str known[MAX_ENTRIES + 2];
    size_t n = 0;
    if (check->values) {
        known[n++] = KT_STR("n");
        known[n++] = KT_STR("k");
        for (int i = 0; i < f->n_values; i++) known[n++] = f->values[i].name;
    }
    for (size_t i = 0; i < n; i++) {
        if (kt_str_eq(known[i], name)) return;
    }
    kt_diag_error(check->r->diag, KT_RULE_EXPR, at, "unknown name '%.*s' in %s", KT_STR_ARG(name),
        check->what);
    if (n > 0) {
        kt_diag_near(check->r->diag, name, known, n, true);
    } else {
        kt_diag_note(check->r->diag, "a value is a number or json(key)");
    }
}

static void check_names(reader *r, const kt_expr *expr, const char *what, bool values) {
    name_check check = {r, what, values};
    if (expr != NULL) kt_expr_names(expr, check_name, &check);
}

static void read_values(reader *r) {
    const kt_pair *json = kt_node_find(r->root, "json");
    const kt_node *map = section(r, "values", KT_NODE_MAP);
    if (json != NULL && json->value->kind == KT_NODE_SCALAR &&
        want_placeholder(r, json->value, "'json'"))
        r->format->json = json->value->text;
    if (map == NULL) return;
    if (json == NULL)
        kt_diag_error(r->diag, KT_RULE_KEY, kt_node_find(r->root, "values")->at,
            "'values' are read from a stored JSON, but 'json' names none");
    kt_format_value *values = KT_NEW_ARRAY(r->arena, kt_format_value, map->n);
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        if (!plain_name(r, pair, "a value")) continue;
        if (kt_str_is(pair->key, "n") || kt_str_is(pair->key, "k")) {
            kt_diag_error(r->diag, KT_RULE_NAME, pair->at, "'%.*s' is a size of the weight already",
                KT_STR_ARG(pair->key));
            continue;
        }
        const kt_expr *expr = kt_expr_node(r->arena, pair->value, r->diag);
        check_names(r, expr, "a value", false);
        values[r->format->n_values++] = (kt_format_value){pair->key, expr};
    }
    r->format->values = values;
}

static void read_require(reader *r) {
    const kt_node *list = section(r, "require", KT_NODE_LIST);
    if (list == NULL) return;
    const kt_expr **require = KT_NEW_ARRAY(r->arena, const kt_expr *, list->n);
    r->format->require = require;
    for (size_t i = 0; i < list->n; i++) {
        const kt_expr *expr = kt_expr_node(r->arena, list->items[i], r->diag);
        check_names(r, expr, "a requirement", true);
        if (expr != NULL) require[r->format->n_require++] = expr;
    }
}

static bool read_part(reader *r, const kt_pair *pair, kt_format_part *out) {
    *out = (kt_format_part){.name = pair->key, .at = pair->at};
    if (!plain_name(r, pair, "a part")) return false;
    const char *what = kt_arena_printf(r->arena, "part '%.*s'", KT_STR_ARG(pair->key));
    if (!kt_schema_check(pair->value, what, part_keys, COUNT(part_keys), false, r->diag))
        return false;
    const kt_node *tensor = kt_node_find(pair->value, "tensor")->value;
    if (want_placeholder(r, tensor, "'tensor'")) out->tensor = tensor->text;
    const kt_node *type = kt_node_find(pair->value, "type")->value;
    if (!kt_type_parse(r->arena, type, r->format->typevars, (size_t)r->format->n_typevars, r->diag,
            &out->type))
        return false;
    bool plain = out->type.base == KT_BASE_DTYPE || out->type.base == KT_BASE_VAR;
    if (!plain || out->type.optional || out->type.each)
        return kt_diag_error(r->diag, KT_RULE_TYPE, type->at,
            "a part is a stored tensor such as f32[n, k], got '%.*s'", KT_STR_ARG(type->text));
    for (int i = 0; i < out->type.rank; i++)
        check_names(r, out->type.axis[i], "the type of a part", true);
    return true;
}

static void read_parts(reader *r) {
    const kt_node *map = section(r, "parts", KT_NODE_MAP);
    if (map == NULL) return;
    if (map->n == 0) kt_diag_error(r->diag, KT_RULE_KEY, map->at, "'parts' is an empty map");
    kt_format_part *parts = KT_NEW_ARRAY(r->arena, kt_format_part, map->n);
    r->format->parts = parts;
    for (size_t i = 0; i < map->n; i++) {
        if (read_part(r, &map->pairs[i], &parts[r->format->n_parts])) r->format->n_parts++;
    }
}

const kt_format *kt_format_open(
    kt_arena *arena, const char *path, const char *shown, kt_diag *diag) {
    int errors = diag->n_errors;
    const kt_node *root = kt_yaml_open(arena, path, shown, diag);
    if (root == NULL || !kt_schema_kind(root, "format", diag)) return NULL;
    kt_format *format = KT_NEW(arena, kt_format);
    format->ggml_type = -1;
    reader own = {arena, diag, root, format}, *r = &own;
    kt_schema_check(root, "a format", format_keys, COUNT(format_keys), false, diag);
    read_head(r, path);
    read_when(r);
    read_typevars(r);
    read_values(r);
    read_require(r);
    read_parts(r);
    return diag->n_errors == errors ? format : NULL;
}

const kt_format_part *kt_format_part_find(const kt_format *format, kt_str name) {
    for (int i = 0; i < format->n_parts; i++)
        if (kt_str_eq(format->parts[i].name, name)) return &format->parts[i];
    return NULL;
}
