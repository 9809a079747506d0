#include "loader/config.h"

#include "loader/json.h"

enum { MAX_BYTES = 64 << 20, MAX_DEPTH = 64, MAX_VALUES = 4 << 20 };

struct kt_config {
    const char *path;
    const kt_json *root;
};

kt_status kt_config_open(kt_arena *arena, const char *path, const kt_config **out, kt_err *err) {
    kt_config *config = KT_NEW(arena, kt_config);
    kt_json_limits limits = {MAX_BYTES, MAX_DEPTH, MAX_VALUES};
    KT_TRY(kt_json_read(arena, path, limits, &config->root, err));
    if (config->root->kind != KT_JSON_OBJECT) {
        return KT_FAIL(err, KT_EFORMAT, "%s:1:1: expected an object, found %s", path,
            kt_json_describe(arena, config->root));
    }
    config->path = kt_arena_printf(arena, "%s", path);
    *out = config;
    return KT_OK;
}

// The value at a dotted key. A member whose own name has dots is found too: the longest name that
// fits is taken first.
static const kt_json *lookup(const kt_json *at, kt_str key) {
    const kt_json *whole = kt_json_find(at, key);
    if (whole != NULL) return whole;
    for (size_t i = key.n; i > 0; i--) {
        if (key.at[i - 1] != '.') continue;
        const kt_json *inner = kt_json_find(at, kt_str_slice(key, 0, i - 1));
        if (inner != NULL && inner->kind == KT_JSON_OBJECT)
            return lookup(inner, kt_str_slice(key, i, key.n));
    }
    return NULL;
}

static bool number_of(const kt_json *value, kt_value *out) {
    switch (value->kind) {
    case KT_JSON_INT:
        *out = kt_value_int(value->as.integer);
        return true;
    case KT_JSON_REAL:
        *out = kt_value_real(value->as.real);
        return true;
    case KT_JSON_BOOL:
        *out = kt_value_int(value->as.truth ? 1 : 0);
        return true;
    case KT_JSON_NULL:
    case KT_JSON_TEXT:
    case KT_JSON_LIST:
    case KT_JSON_OBJECT:
        break;
    }
    return false;
}

// A list of one and the same number, such as norm_mean [0.5, 0.5, 0.5], counts as that number.
static bool number_of_list(const kt_json *list, kt_value *out) {
    if (list->n == 0) return false;
    kt_value first = {0};
    for (size_t i = 0; i < list->n; i++) {
        const kt_json *item = &list->as.items[i];
        kt_value next;
        if (item->kind == KT_JSON_BOOL || !number_of(item, &next)) return false;
        if (i == 0) first = next;
        if (next.is_real != first.is_real || next.i != first.i) return false;
        if (next.r < first.r || next.r > first.r) return false;
    }
    *out = first;
    return true;
}

bool kt_config_number(const kt_config *config, kt_str key, kt_value *out) {
    const kt_json *value = lookup(config->root, key);
    if (value == NULL) return false;
    return value->kind == KT_JSON_LIST ? number_of_list(value, out) : number_of(value, out);
}

bool kt_config_no_number(const kt_config *config, kt_str key) {
    const kt_json *value = lookup(config->root, key);
    kt_value number;
    return value && value->kind != KT_JSON_NULL && !kt_config_number(config, key, &number);
}

bool kt_config_text(const kt_config *config, kt_str key, kt_str *out) {
    return kt_json_get_text(lookup(config->root, key), out);
}

const char *kt_config_path(const kt_config *config) {
    return config->path;
}
