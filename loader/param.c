#include "loader/param.h"

#include <stdint.h>

typedef struct kind_row {
    const char *name, *what;
    bool number;
    int nodes; // kinds of a value's node
} kind_row;

// In the order of kt_param_kind.
static const kind_row kinds[] = {
    {"int", "an integer", true, KT_KEY_SCALAR},
    {"f32", "a number", true, KT_KEY_SCALAR},
    {"bool", "true or false", false, KT_KEY_SCALAR},
    {"string", "a text", false, KT_KEY_SCALAR},
    {"choice", "a choice", false, KT_KEY_SCALAR},
    {"language", "a language", false, KT_KEY_SCALAR},
    {"text", "a text, or a map from language to text", false, KT_KEY_SCALAR | KT_KEY_MAP},
    {"items", "a list of items", false, KT_KEY_LIST},
    {"image", "the path of a picture", false, KT_KEY_SCALAR},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };
_Static_assert((int)N_KINDS == (int)KT_PARAM_IMAGE + 1, "one row for each kind");

static const kt_key param_keys[] = {
    {"type", true, KT_KEY_SCALAR},
    {"default", false, 0},
    {"min", false, KT_KEY_SCALAR},
    {"max", false, KT_KEY_SCALAR},
    {"of", false, KT_KEY_LIST},
    {"doc", false, KT_KEY_SCALAR},
};

// ---- values

static bool check_range(const kt_param *param, const kt_node *value, double number, kt_diag *diag) {
    bool low = param->has_min && number < param->min;
    bool high = param->has_max && number > param->max;
    if (!low && !high) return true;
    return kt_diag_error(diag, KT_RULE_VALUE, value->at, "'%.*s' is %.*s, its %s is %g",
        KT_STR_ARG(param->name), KT_STR_ARG(value->text), low ? "minimum" : "maximum",
        low ? param->min : param->max);
}

static bool check_number(const kt_param *param, const kt_node *value, kt_diag *diag) {
    int64_t whole;
    double real;
    bool good = kt_str_to_f64(value->text, &real);
    if (param->kind == KT_PARAM_INT) good = kt_str_to_i64(value->text, &whole);
    if (!good)
        return kt_diag_error(diag, KT_RULE_VALUE, value->at, "'%.*s' is %s, got '%.*s'",
            KT_STR_ARG(param->name), kinds[param->kind].what, KT_STR_ARG(value->text));
    if (param->kind == KT_PARAM_INT && (whole < INT32_MIN || whole > INT32_MAX))
        return kt_diag_error(diag, KT_RULE_VALUE, value->at,
            "'%.*s' is %.*s, which does not fit in 32 bits", KT_STR_ARG(param->name),
            KT_STR_ARG(value->text));
    return check_range(param, value, real, diag);
}

static int choice_index(const kt_param *param, kt_str text) {
    for (size_t i = 0; i < param->n_choices; i++) {
        if (kt_str_eq(text, param->choices[i])) return (int)i;
    }
    return -1;
}

static bool node_fits(int nodes, const kt_node *value) {
    switch (value->kind) {
    case KT_NODE_SCALAR:
        return (nodes & KT_KEY_SCALAR) != 0;
    case KT_NODE_LIST:
        return (nodes & KT_KEY_LIST) != 0;
    case KT_NODE_MAP:
        return (nodes & KT_KEY_MAP) != 0;
    }
    return false;
}

bool kt_param_check(const kt_param *param, const kt_node *value, kt_diag *diag) {
    const kind_row *row = &kinds[param->kind];
    if (!node_fits(row->nodes, value))
        return kt_diag_error(diag, KT_RULE_VALUE, value->at, "'%.*s' is %s, got %s",
            KT_STR_ARG(param->name), row->what, kt_node_kind_name(value));
    bool ignored;
    switch (param->kind) {
    case KT_PARAM_INT:
    case KT_PARAM_F32:
        return check_number(param, value, diag);
    case KT_PARAM_BOOL:
        return kt_schema_bool(value, diag, &ignored);
    case KT_PARAM_CHOICE:
        if (choice_index(param, value->text) >= 0) return true;
        kt_diag_error(diag, KT_RULE_VALUE, value->at, "'%.*s' cannot be '%.*s'",
            KT_STR_ARG(param->name), KT_STR_ARG(value->text));
        kt_diag_near(diag, value->text, param->choices, param->n_choices, true);
        return false;
    case KT_PARAM_TEXT:
        for (size_t i = 0; value->kind == KT_NODE_MAP && i < value->n; i++) {
            const kt_node *text = value->pairs[i].value;
            if (text->kind != KT_NODE_SCALAR)
                return kt_diag_error(diag, KT_RULE_VALUE, text->at,
                    "'%.*s' in one language is a text, got %s", KT_STR_ARG(param->name),
                    kt_node_kind_name(text));
        }
        return true;
    case KT_PARAM_STRING:
    case KT_PARAM_LANGUAGE:
    case KT_PARAM_ITEMS:
    case KT_PARAM_IMAGE:
        return true;
    }
    return true;
}

bool kt_param_number(const kt_param *param, const kt_node *value, kt_value *out) {
    int64_t whole;
    double real;
    *out = kt_value_int(0);
    if (value->kind != KT_NODE_SCALAR) return false;
    switch (param->kind) {
    case KT_PARAM_INT:
        if (!kt_str_to_i64(value->text, &whole)) return false;
        *out = kt_value_int(whole);
        return true;
    case KT_PARAM_F32:
        if (!kt_str_to_f64(value->text, &real)) return false;
        *out = kt_value_real(real);
        return true;
    case KT_PARAM_BOOL:
        *out = kt_value_int(kt_str_is(value->text, "true") ? 1 : 0);
        return true;
    case KT_PARAM_CHOICE:
        *out = kt_value_int(choice_index(param, value->text));
        return out->i >= 0;
    case KT_PARAM_STRING:
    case KT_PARAM_LANGUAGE:
    case KT_PARAM_TEXT:
    case KT_PARAM_ITEMS:
    case KT_PARAM_IMAGE:
        return false;
    }
    return false;
}

const kt_node *kt_param_scalar(kt_arena *arena, kt_str text) {
    kt_node *node = KT_NEW(arena, kt_node);
    *node = (kt_node){.kind = KT_NODE_SCALAR, .text = kt_str_copy(arena, text)};
    return node;
}

// ---- declarations

static bool read_kind(const kt_node *type, kt_str name, kt_diag *diag, kt_param_kind *out) {
    kt_str known[N_KINDS];
    for (size_t i = 0; i < N_KINDS; i++) {
        known[i] = kt_str_from(kinds[i].name);
        if (!kt_str_eq(type->text, known[i])) continue;
        *out = (kt_param_kind)i;
        return true;
    }
    kt_diag_error(diag, KT_RULE_VALUE, type->at, "unknown type '%.*s' of parameter '%.*s'",
        KT_STR_ARG(type->text), KT_STR_ARG(name));
    kt_diag_near(diag, type->text, known, N_KINDS, true);
    return false;
}

static bool read_choices(kt_arena *arena, const kt_node *map, kt_diag *diag, kt_param *out) {
    const kt_pair *of = kt_node_find(map, "of");
    if (out->kind != KT_PARAM_CHOICE) {
        if (of == NULL) return true;
        return kt_diag_error(diag, KT_RULE_KEY, of->at, "'of' is for choices, '%.*s' is of type %s",
            KT_STR_ARG(out->name), kinds[out->kind].name);
    }
    if (of == NULL || of->value->n == 0) {
        kt_diag_error(diag, KT_RULE_KEY, of == NULL ? out->at : of->at,
            "the choices of '%.*s' are missing", KT_STR_ARG(out->name));
        kt_diag_note(diag, "write of: [first, second]");
        return false;
    }
    kt_str *choices = KT_NEW_ARRAY(arena, kt_str, of->value->n);
    out->choices = choices;
    for (size_t i = 0; i < of->value->n; i++) {
        const kt_node *item = of->value->items[i];
        if (!kt_schema_name(item, "a choice", diag, &choices[i])) return false;
        out->n_choices = i;
        if (choice_index(out, choices[i]) >= 0)
            return kt_diag_error(diag, KT_RULE_NAME, item->at, "choice '%.*s' is listed twice",
                KT_STR_ARG(choices[i]));
    }
    out->n_choices = of->value->n;
    return true;
}

static bool read_limit(
    const kt_node *map, const char *key, kt_diag *diag, kt_param *out, bool *has, double *limit) {
    const kt_pair *pair = kt_node_find(map, key);
    if (pair == NULL) return true;
    if (!kinds[out->kind].number)
        return kt_diag_error(diag, KT_RULE_KEY, pair->at,
            "'%s' is for numbers, '%.*s' is of type %s", key, KT_STR_ARG(out->name),
            kinds[out->kind].name);
    *has = kt_schema_real(pair->value, key, diag, limit);
    return *has;
}

bool kt_param_parse(
    kt_arena *arena, kt_str name, kt_place at, const kt_node *map, kt_diag *diag, kt_param *out) {
    *out = (kt_param){.name = name, .at = at};
    const char *what = kt_arena_printf(arena, "parameter '%.*s'", KT_STR_ARG(name));
    if (!kt_schema_check(
            map, what, param_keys, sizeof param_keys / sizeof param_keys[0], false, diag))
        return false;
    if (!read_kind(kt_node_find(map, "type")->value, name, diag, &out->kind)) return false;
    const kt_pair *doc = kt_node_find(map, "doc");
    if (doc != NULL) out->doc = doc->value->text;
    if (!read_choices(arena, map, diag, out)) return false;
    if (!read_limit(map, "min", diag, out, &out->has_min, &out->min)) return false;
    if (!read_limit(map, "max", diag, out, &out->has_max, &out->max)) return false;
    if (out->has_min && out->has_max && out->min > out->max)
        return kt_diag_error(diag, KT_RULE_VALUE, kt_node_find(map, "min")->value->at,
            "the minimum of '%.*s' is above its maximum", KT_STR_ARG(name));
    const kt_pair *value = kt_node_find(map, "default");
    if (value == NULL) return true;
    out->default_value = value->value;
    return kt_param_check(out, value->value, diag);
}
