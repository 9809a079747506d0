#include "loader/schema.h"

#include <string.h>

typedef struct kind_row {
    const char *name, *what;
} kind_row;

static const kind_row kinds[] = {
    {"op", "an op"},
    {"format", "a storage format"},
    {"pipeline", "a pipeline"},
    {"model", "a model"},
    {"host", "a table of host steps"},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static const char *kinds_name(int bits) {
    switch (bits) {
    case KT_KEY_SCALAR:
        return "a text";
    case KT_KEY_LIST:
        return "a list";
    case KT_KEY_MAP:
        return "a map";
    case KT_KEY_SCALAR | KT_KEY_LIST:
        return "a text or a list";
    case KT_KEY_SCALAR | KT_KEY_MAP:
        return "a text or a map";
    default:
        return "a list or a map";
    }
}

static int kind_bit(const kt_node *node) {
    switch (node->kind) {
    case KT_NODE_SCALAR:
        return KT_KEY_SCALAR;
    case KT_NODE_LIST:
        return KT_KEY_LIST;
    case KT_NODE_MAP:
        return KT_KEY_MAP;
    }
    return 0;
}

static const kt_key *find_key(const kt_key *keys, size_t n, kt_str name) {
    for (size_t i = 0; i < n; i++) {
        if (kt_str_is(name, keys[i].name)) return &keys[i];
    }
    return NULL;
}

static void unknown_key(
    const kt_pair *pair, const char *what, const kt_key *keys, size_t n, kt_diag *diag) {
    kt_str *known = KT_NEW_ARRAY(diag->arena, kt_str, n);
    for (size_t i = 0; i < n; i++) known[i] = kt_str_from(keys[i].name);
    kt_diag_error(
        diag, KT_RULE_KEY, pair->at, "unknown key '%.*s' in %s", KT_STR_ARG(pair->key), what);
    kt_diag_near(diag, pair->key, known, n, true);
}

// Whether an unknown key of the map is most likely this one, misspelt.
static bool is_misspelt(const kt_node *map, const kt_key *keys, size_t n, kt_str name) {
    kt_str guess[2];
    for (size_t i = 0; i < map->n; i++) {
        if (find_key(keys, n, map->pairs[i].key) != NULL) continue;
        if (kt_str_near(map->pairs[i].key, &name, 1, guess) > 0) return true;
    }
    return false;
}

bool kt_schema_check(
    const kt_node *map, const char *what, const kt_key *keys, size_t n, bool open, kt_diag *diag) {
    if (map->kind != KT_NODE_MAP)
        return kt_diag_error(diag, KT_RULE_KEY, map->at, "%s is a map of keys, got %s", what,
            kt_node_kind_name(map));
    int errors = diag->n_errors;
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        const kt_key *key = find_key(keys, n, pair->key);
        if (key == NULL && !open) unknown_key(pair, what, keys, n, diag);
        if (key == NULL || key->kinds == 0 || (key->kinds & kind_bit(pair->value)) != 0) continue;
        kt_diag_error(diag, KT_RULE_KEY, pair->value->at, "'%s' of %s is %s, got %s", key->name,
            what, kinds_name(key->kinds), kt_node_kind_name(pair->value));
    }
    for (size_t i = 0; i < n; i++) {
        if (!keys[i].required || kt_node_find(map, keys[i].name) != NULL) continue;
        if (!open && is_misspelt(map, keys, n, kt_str_from(keys[i].name))) continue;
        kt_place at = map->n > 0 ? map->pairs[0].at : map->at;
        kt_diag_error(diag, KT_RULE_KEY, at, "%s needs the key '%s'", what, keys[i].name);
    }
    return diag->n_errors == errors;
}

static const kind_row *find_kind(kt_str name) {
    for (size_t i = 0; i < N_KINDS; i++) {
        if (kt_str_is(name, kinds[i].name)) return &kinds[i];
    }
    return NULL;
}

static const char *what_of(const char *kind) {
    const kind_row *row = find_kind(kt_str_from(kind));
    return row == NULL ? kind : row->what;
}

static bool bad_kind(const kt_node *value, const char *kind, kt_diag *diag) {
    kt_str text = value->text;
    ptrdiff_t slash = kt_str_find(text, '/');
    kt_str got = slash < 0 ? text : kt_str_slice(text, 0, (size_t)slash);
    kt_str version = slash < 0 ? KT_STR("") : kt_str_slice(text, (size_t)slash + 1, text.n);
    const kind_row *row = find_kind(got);
    int64_t number;
    if (row == NULL) {
        kt_diag_error(
            diag, KT_RULE_KEY, value->at, "unknown kind of file '%.*s'", KT_STR_ARG(text));
        kt_diag_note(diag, "%s starts with 'kotaro: %s/1'", what_of(kind), kind);
    } else if (strcmp(row->name, kind) != 0) {
        kt_diag_error(diag, KT_RULE_KEY, value->at, "this file is %s, where %s is expected",
            row->what, what_of(kind));
    } else if (!kt_str_to_i64(version, &number)) {
        kt_diag_error(
            diag, KT_RULE_KEY, value->at, "the version is missing, write 'kotaro: %s/1'", kind);
    } else {
        kt_diag_error(diag, KT_RULE_KEY, value->at, "this file is %s/%.*s, this program reads %s/1",
            kind, KT_STR_ARG(version), kind);
        kt_diag_note(diag, "a newer Kotaro may be needed");
    }
    return false;
}

bool kt_schema_kind(const kt_node *root, const char *kind, kt_diag *diag) {
    if (root->kind != KT_NODE_MAP)
        return kt_diag_error(diag, KT_RULE_KEY, root->at,
            "the file is a map of keys that starts with 'kotaro: %s/1', got %s", kind,
            kt_node_kind_name(root));
    const kt_pair *pair = kt_node_find(root, "kotaro");
    if (pair == NULL) {
        kt_place at = root->n > 0 ? root->pairs[0].at : root->at;
        return kt_diag_error(
            diag, KT_RULE_KEY, at, "the file does not start with 'kotaro: %s/1'", kind);
    }
    if (pair->value->kind != KT_NODE_SCALAR)
        return kt_diag_error(diag, KT_RULE_KEY, pair->value->at,
            "'kotaro' is a text such as %s/1, got %s", kind, kt_node_kind_name(pair->value));
    kt_str text = pair->value->text;
    bool good = text.n == strlen(kind) + 2 && kt_str_starts(text, kt_str_from(kind)) &&
                kt_str_ends(text, KT_STR("/1"));
    if (!good) return bad_kind(pair->value, kind, diag);
    if (pair != root->pairs)
        return kt_diag_error(diag, KT_RULE_KEY, pair->at, "'kotaro' is the first key of a file");
    return true;
}

static bool want_scalar(const kt_node *node, const char *what, kt_diag *diag) {
    if (node->kind == KT_NODE_SCALAR) return true;
    return kt_diag_error(
        diag, KT_RULE_KEY, node->at, "%s is a text, got %s", what, kt_node_kind_name(node));
}

bool kt_schema_bool(const kt_node *scalar, kt_diag *diag, bool *out) {
    if (!want_scalar(scalar, "true or false", diag)) return false;
    *out = kt_str_is(scalar->text, "true");
    if (*out || kt_str_is(scalar->text, "false")) return true;
    return kt_diag_error(
        diag, KT_RULE_VALUE, scalar->at, "'%.*s' is not true or false", KT_STR_ARG(scalar->text));
}

bool kt_schema_int(const kt_node *scalar, const char *what, kt_diag *diag, int64_t *out) {
    if (!want_scalar(scalar, what, diag)) return false;
    if (kt_str_to_i64(scalar->text, out)) return true;
    double real;
    bool number = kt_str_to_f64(scalar->text, &real);
    return kt_diag_error(diag, KT_RULE_VALUE, scalar->at, "%s is an integer%s, got '%.*s'", what,
        number ? " of 64 bits" : "", KT_STR_ARG(scalar->text));
}

bool kt_schema_real(const kt_node *scalar, const char *what, kt_diag *diag, double *out) {
    if (!want_scalar(scalar, what, diag)) return false;
    if (kt_str_to_f64(scalar->text, out)) return true;
    return kt_diag_error(diag, KT_RULE_VALUE, scalar->at, "%s is a number, got '%.*s'", what,
        KT_STR_ARG(scalar->text));
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool kt_schema_name(const kt_node *scalar, const char *what, kt_diag *diag, kt_str *out) {
    *out = KT_STR("");
    if (!want_scalar(scalar, what, diag)) return false;
    kt_str s = scalar->text;
    bool start = true;
    size_t i = 0;
    for (; i < s.n; i++) {
        char c = s.at[i];
        if (!is_letter(c) && (start || !((c >= '0' && c <= '9') || c == '.'))) break;
        start = c == '.';
    }
    if (s.n > 0 && i == s.n && !start && s.n <= 128) {
        *out = s;
        return true;
    }
    kt_diag_error(
        diag, KT_RULE_NAME, scalar->at, "%s cannot be called '%.*s'", what, KT_STR_ARG(s));
    kt_diag_note(
        diag, "a name is letters, digits and _, starts with no digit, and has at most 128 of them");
    return false;
}
