// Any bytes as JSON: a tree that can be walked, or an error with a place.
#include "loader/json.h"
#include "tests/fuzz.h"

#include <string.h>

static size_t walk(kt_arena *arena, const kt_json *value) {
    size_t n = strlen(kt_json_describe(arena, value));
    for (size_t i = 0; value->kind == KT_JSON_LIST && i < value->n; i++)
        n += walk(arena, &value->as.items[i]);
    for (size_t i = 0; value->kind == KT_JSON_OBJECT && i < value->n; i++) {
        const kt_json_member *member = kt_json_member_at(value, i);
        KT_ASSERT(kt_json_find(value, member->name) == &member->value);
        n += walk(arena, &member->value);
    }
    if (value->kind == KT_JSON_TEXT) KT_ASSERT(kt_utf8_valid(value->as.text));
    return n;
}

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kt_arena arena = {0};
    kt_err err = {0};
    const kt_json *root = NULL;
    kt_json_limits limits = {1 << 20, 32, 1 << 16};
    kt_str text = {(const char *)data, size};
    if (kt_json_parse(&arena, text, "fuzz", limits, &root, &err) == KT_OK)
        walk(&arena, root);
    else
        KT_ASSERT(strncmp(err.text, "fuzz:", 5) == 0);
    kt_arena_deinit(&arena);
    return 0;
}
