#include "loader/json.h"

#include "runtime/base/file.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

// ---- memory of the library
//
// The library makes one allocation a value and frees them one by one, which costs as much as the
// parse itself. So while a text is parsed its memory comes from an arena of this thread, and goes
// with it.

static _Thread_local kt_arena *parse_arena;

static void *json_alloc(size_t size) {
    return parse_arena == NULL ? malloc(size) : kt_arena_alloc(parse_arena, size);
}

static void json_release(void *ptr) {
    if (parse_arena == NULL) free(ptr);
}

// ---- limits, looked at before the library sees the text

typedef struct place {
    size_t line, column; // from 1; the column in bytes
} place;

static place place_of(kt_str text, size_t at) {
    place p = {1, 1};
    for (size_t i = 0; i < at && i < text.n; i++) {
        p.column++;
        if (text.at[i] == '\n') p = (place){p.line + 1, 1};
    }
    return p;
}

// Where the text passes a limit, and which; `why` is NULL when it passes none. Every value but the
// first has a ',', '[' or
// '{' of its own before it, so counting those bounds the values.
typedef struct excess {
    size_t at;
    const char *why;
    int64_t limit;
} excess;

static excess find_excess(kt_str text, kt_json_limits limits) {
    int depth = 0;
    int64_t values = 1;
    bool quoted = false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.at[i];
        if (quoted) {
            if (c == '\\') i++;
            if (c == '"') quoted = false;
            continue;
        }
        if (c == '"') quoted = true;
        if (c == ']' || c == '}') depth--;
        if (c == '[' || c == '{') depth++;
        if (depth > limits.depth)
            return (excess){i, "lists and objects are nested deeper than", limits.depth};
        if (c == ',' || c == '[' || c == '{') values++;
        if (values > limits.values) return (excess){i, "there are more values than", limits.values};
    }
    return (excess){text.n, NULL, 0};
}

// ---- the library's tree to ours

static kt_json convert(kt_arena *arena, json_t *from);

static size_t table_slots(size_t n) {
    enum { SMALL = 16 };
    if (n <= SMALL) return 0;
    size_t slots = 64;
    while (slots < 2 * n) slots *= 2;
    return slots;
}

static uint32_t *index_members(
    kt_arena *arena, const kt_json_member *members, size_t n, size_t n_slots) {
    uint32_t *slots = KT_NEW_ARRAY(arena, uint32_t, n_slots);
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)kt_str_hash(members[i].name) & (n_slots - 1);
        while (slots[at] != 0) at = (at + 1) & (n_slots - 1);
        slots[at] = (uint32_t)i + 1;
    }
    return slots;
}

static kt_json convert_object(kt_arena *arena, json_t *from) {
    size_t n = json_object_size(from);
    kt_json_member *members = KT_NEW_ARRAY(arena, kt_json_member, n);
    size_t i = 0;
    for (void *it = json_object_iter(from); it != NULL; it = json_object_iter_next(from, it)) {
        size_t length = json_object_iter_key_len(it);
        members[i].name = (kt_str){kt_arena_copy(arena, json_object_iter_key(it), length), length};
        members[i].value = convert(arena, json_object_iter_value(it));
        i++;
    }
    KT_ASSERT(i == n);
    kt_json_object *object = KT_NEW(arena, kt_json_object);
    object->members = members;
    object->n_slots = table_slots(n);
    if (object->n_slots > 0) object->slots = index_members(arena, members, n, object->n_slots);
    return (kt_json){.kind = KT_JSON_OBJECT, .n = n, .as.object = object};
}

static kt_json convert_list(kt_arena *arena, json_t *from) {
    size_t n = json_array_size(from);
    kt_json *items = KT_NEW_ARRAY(arena, kt_json, n);
    for (size_t i = 0; i < n; i++) items[i] = convert(arena, json_array_get(from, i));
    return (kt_json){.kind = KT_JSON_LIST, .n = n, .as.items = items};
}

// Recursion: at most as deep as the limit that the text was checked against.
static kt_json convert(kt_arena *arena, json_t *from) {
    switch (json_typeof(from)) {
    case JSON_OBJECT:
        return convert_object(arena, from);
    case JSON_ARRAY:
        return convert_list(arena, from);
    case JSON_STRING: {
        size_t n = json_string_length(from);
        kt_str text = {kt_arena_copy(arena, json_string_value(from), n), n};
        return (kt_json){.kind = KT_JSON_TEXT, .as.text = text};
    }
    case JSON_INTEGER:
        return (kt_json){.kind = KT_JSON_INT, .as.integer = (int64_t)json_integer_value(from)};
    case JSON_REAL:
        return (kt_json){.kind = KT_JSON_REAL, .as.real = json_real_value(from)};
    case JSON_TRUE:
    case JSON_FALSE:
        return (kt_json){.kind = KT_JSON_BOOL, .as.truth = json_is_true(from)};
    case JSON_NULL:
        break;
    }
    return (kt_json){.kind = KT_JSON_NULL};
}

// ---- public

kt_status kt_json_parse(kt_arena *arena, kt_str text, const char *name, kt_json_limits limits,
    const kt_json **out, kt_err *err) {
    if ((uint64_t)text.n > (uint64_t)limits.bytes) {
        return KT_FAIL(err, KT_EFORMAT, "%s: %zu bytes of JSON, at most %" PRId64 " are allowed",
            name, text.n, limits.bytes);
    }
    excess over = find_excess(text, limits);
    if (over.why != NULL) {
        place p = place_of(text, over.at);
        return KT_FAIL(err, KT_EFORMAT, "%s:%zu:%zu: %s %" PRId64, name, p.line, p.column, over.why,
            over.limit);
    }
    kt_arena tmp = {0};
    json_set_alloc_funcs(json_alloc, json_release);
    parse_arena = &tmp;
    json_error_t why;
    json_t *tree = json_loadb(
        text.at, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    kt_status status = KT_OK;
    if (tree == NULL) {
        status = KT_FAIL(err, KT_EFORMAT, "%s:%d:%d: %s", name, why.line > 0 ? why.line : 1,
            why.column > 0 ? why.column : 1, why.text);
    } else {
        kt_json *root = KT_NEW(arena, kt_json);
        *root = convert(arena, tree);
        *out = root;
    }
    kt_arena_deinit(&tmp); // with it the library's tree
    parse_arena = NULL;
    return status;
}

kt_status kt_json_read(
    kt_arena *arena, const char *path, kt_json_limits limits, const kt_json **out, kt_err *err) {
    kt_arena tmp = {0};
    kt_str text;
    kt_status status = kt_file_read(&tmp, path, limits.bytes, &text, err);
    if (status == KT_OK) status = kt_json_parse(arena, text, path, limits, out, err);
    kt_arena_deinit(&tmp);
    return status;
}

const kt_json *kt_json_find(const kt_json *object, kt_str name) {
    if (object == NULL || object->kind != KT_JSON_OBJECT) return NULL;
    const kt_json_object *in = object->as.object;
    if (in->slots == NULL) {
        for (size_t i = 0; i < object->n; i++) {
            if (kt_str_eq(in->members[i].name, name)) return &in->members[i].value;
        }
        return NULL;
    }
    size_t at = (size_t)kt_str_hash(name) & (in->n_slots - 1);
    while (in->slots[at] != 0) {
        const kt_json_member *member = &in->members[in->slots[at] - 1];
        if (kt_str_eq(member->name, name)) return &member->value;
        at = (at + 1) & (in->n_slots - 1);
    }
    return NULL;
}

const kt_json_member *kt_json_member_at(const kt_json *object, size_t i) {
    KT_ASSERT(object->kind == KT_JSON_OBJECT && i < object->n);
    return &object->as.object->members[i];
}

bool kt_json_get_text(const kt_json *value, kt_str *out) {
    if (value == NULL || value->kind != KT_JSON_TEXT) return false;
    *out = value->as.text;
    return true;
}

bool kt_json_get_int(const kt_json *value, int64_t *out) {
    if (value == NULL || value->kind != KT_JSON_INT) return false;
    *out = value->as.integer;
    return true;
}

bool kt_json_get_real(const kt_json *value, double *out) {
    if (value == NULL) return false;
    if (value->kind == KT_JSON_INT) {
        *out = (double)value->as.integer;
        return true;
    }
    if (value->kind != KT_JSON_REAL) return false;
    *out = value->as.real;
    return true;
}

bool kt_json_get_bool(const kt_json *value, bool *out) {
    if (value == NULL || value->kind != KT_JSON_BOOL) return false;
    *out = value->as.truth;
    return true;
}

const char *kt_json_describe(kt_arena *arena, const kt_json *value) {
    enum { SHOWN = 60 };
    if (value == NULL) return "nothing";
    switch (value->kind) {
    case KT_JSON_NULL:
        return "null";
    case KT_JSON_BOOL:
        return value->as.truth ? "true" : "false";
    case KT_JSON_INT:
        return kt_arena_printf(arena, "the number %" PRId64, value->as.integer);
    case KT_JSON_REAL:
        return kt_arena_printf(arena, "the number %g", value->as.real);
    case KT_JSON_TEXT: {
        kt_str text = value->as.text;
        bool cut = text.n > SHOWN;
        if (cut) text.n = SHOWN;
        return kt_arena_printf(arena, "the text '%.*s%s'", KT_STR_ARG(text), cut ? "..." : "");
    }
    case KT_JSON_LIST:
        return "a list";
    case KT_JSON_OBJECT:
        return "an object";
    }
    return "nothing";
}
