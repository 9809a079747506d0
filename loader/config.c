#include "loader/config.h"

#include "loader/json.h"

enum { MAX_BYTES = 64 << 20, MAX_DEPTH = 64, MAX_VALUES = 4 << 20 };

struct kt_config {
    const char *path;
    const kt_json *root;         // NULL: GGUF
    const kt_gguf *const *files; // of GGUF
    int n_files;
};

kt_status kt_config_open(kt_arena *arena, const char *path, const kt_config **out, kt_err *err) {
    kt_config *config = KT_NEW(arena, kt_config);
    kt_json_limits limits = {MAX_BYTES, MAX_DEPTH, MAX_VALUES};
    kt_status status = kt_json_read(arena, path, limits, &config->root, err);
    if (status == KT_EFORMAT) kt_err_note(err, "the file is damaged; download it again");
    KT_TRY(status);
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
static bool is_same(kt_value a, kt_value b) {
    return a.is_real == b.is_real && a.i == b.i && !(a.r < b.r) && !(a.r > b.r);
}

static bool number_of_list(const kt_json *list, kt_value *out) {
    kt_value first = {0};
    for (size_t i = 0; i < list->n; i++) {
        const kt_json *item = &list->as.items[i];
        kt_value next;
        if (item->kind == KT_JSON_BOOL || !number_of(item, &next)) return false;
        if (i == 0) first = next;
        if (!is_same(next, first)) return false;
    }
    *out = first;
    return list->n > 0;
}

// ---- GGUF

// The value at the key, or of KEY.length the list at KEY; *length says which.
static const kt_gguf_value *find_in(const kt_gguf *file, kt_str key, bool *length) {
    kt_buf full = {0};
    kt_str arch = {"", 0}, word = KT_STR("$arch"), end = KT_STR(".length");
    bool known = kt_gguf_text(kt_gguf_find(file, KT_STR("general.architecture")), &arch);
    if (kt_str_starts(key, word)) {
        kt_buf_str(&full, arch);
        key = kt_str_slice(key, word.n, key.n);
        if (!known) key = (kt_str){"", 0};
    }
    kt_buf_str(&full, key);
    kt_str name = {full.n > 0 ? full.at : "", full.n};
    const kt_gguf_value *value = kt_gguf_find(file, name);
    *length = value == NULL && kt_str_ends(name, end);
    if (*length) {
        value = kt_gguf_find(file, kt_str_slice(name, 0, name.n - end.n));
        if (value != NULL && value->kind != KT_GGUF_LIST) value = NULL;
    }
    kt_buf_deinit(&full);
    return value;
}

static const kt_gguf_value *find_gguf(const kt_config *config, kt_str key, bool *length) {
    for (int i = 0; i < config->n_files; i++) {
        const kt_gguf_value *value = find_in(config->files[i], key, length);
        if (value != NULL) return value;
    }
    return NULL;
}

static bool gguf_number(const kt_config *config, kt_str key, kt_value *out) {
    bool length;
    const kt_gguf_value *value = find_gguf(config, key, &length);
    if (value == NULL) return false;
    if (value->kind != KT_GGUF_LIST) return kt_gguf_number(value, out);
    if (length) {
        *out = kt_value_int(value->n);
        return true;
    }
    kt_value first = {0};
    kt_gguf_walk walk = kt_gguf_items(value);
    kt_gguf_value item;
    for (int64_t i = 0; kt_gguf_next(&walk, &item); i++) {
        kt_value next;
        if (!kt_gguf_number(&item, &next)) return false;
        if (i == 0) first = next;
        if (!is_same(next, first)) return false;
    }
    *out = first;
    return value->n > 0;
}

const kt_config *kt_config_from_gguf(kt_arena *arena, const kt_gguf *const *files, int n) {
    kt_config *config = KT_NEW(arena, kt_config);
    const char *path = n > 0 ? files[0]->path : "";
    for (int i = 1; i < n; i++) path = kt_arena_printf(arena, "%s, %s", path, files[i]->path);
    *config = (kt_config){path, NULL, files, n};
    return config;
}

// ---- both

bool kt_config_number(const kt_config *config, kt_str key, kt_value *out) {
    if (config->root == NULL) return gguf_number(config, key, out);
    const kt_json *value = lookup(config->root, key);
    if (value == NULL) return false;
    return value->kind == KT_JSON_LIST ? number_of_list(value, out) : number_of(value, out);
}

bool kt_config_no_number(const kt_config *config, kt_str key) {
    bool length, there;
    if (config->root == NULL) {
        there = find_gguf(config, key, &length) != NULL;
    } else {
        const kt_json *value = lookup(config->root, key);
        there = value != NULL && value->kind != KT_JSON_NULL;
    }
    kt_value number;
    return there && !kt_config_number(config, key, &number);
}

bool kt_config_text(const kt_config *config, kt_str key, kt_str *out) {
    bool length;
    if (config->root == NULL) return kt_gguf_text(find_gguf(config, key, &length), out);
    return kt_json_get_text(lookup(config->root, key), out);
}

void kt_config_integers(const kt_config *config, kt_str key, kt_arena *arena, kt_config_ids *out) {
    kt_value number;
    const kt_json *value = config->root == NULL ? NULL : lookup(config->root, key);
    bool list = value != NULL && value->kind == KT_JSON_LIST;
    for (size_t i = 0; list && i < value->n; i++) {
        int64_t item;
        if (kt_json_get_int(&value->as.items[i], &item)) KT_PUSH(arena, out, item);
    }
    if (!list && kt_config_number(config, key, &number) && !number.is_real)
        KT_PUSH(arena, out, number.i);
}

const char *kt_config_describe(const kt_config *config, kt_str key, kt_arena *arena) {
    bool length;
    if (config->root == NULL) return kt_gguf_describe(arena, find_gguf(config, key, &length));
    return kt_json_describe(arena, lookup(config->root, key));
}

const char *kt_config_path(const kt_config *config) {
    return config->path;
}
