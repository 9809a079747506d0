// Reads golden.json.
#include "loader/json.h"
#include "loader/npy.h"
#include "runtime/base/file.h"
#include "runtime/exec/verify.h"

#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct reader {
    kt_arena *arena;
    const char *folder, *path;
    const kt_json *object;
    char where[160]; // "" or "stage 3 ('x'): "
    kt_err *err;
} reader;

static kt_status wrong(reader *r, const char *key, const char *expected, const kt_json *value) {
    return KT_FAIL(r->err, KT_EFORMAT, "%s: %s'%s' is %s, expected %s", r->path, r->where, key,
        kt_json_describe(r->arena, value), expected);
}

static const kt_json *find(const reader *r, const char *key) {
    const kt_json *value = kt_json_find(r->object, kt_str_from(key));
    return value && value->kind != KT_JSON_NULL ? value : NULL;
}

static kt_status get_text(reader *r, const char *key, bool wanted, kt_str *out) {
    const kt_json *value = find(r, key);
    *out = KT_STR("");
    if (!value && !wanted) return KT_OK;
    if (kt_json_get_text(value, out) && (out->n > 0 || !wanted) && !memchr(out->at, 0, out->n))
        return KT_OK;
    return wrong(r, key, "a text", value);
}

// NULL where there is none.
static kt_status get_z(reader *r, const char *key, const char **out) {
    kt_str text;
    KT_TRY(get_text(r, key, false, &text));
    *out = text.n > 0 ? kt_str_z(r->arena, text) : NULL;
    return KT_OK;
}

static kt_status get_path(reader *r, const char *key, const char **out) {
    KT_TRY(get_z(r, key, out));
    if (*out) *out = kt_path_join(r->arena, r->folder, *out);
    return KT_OK;
}

static kt_status get_count(reader *r, const char *key, int64_t *out) {
    const kt_json *value = find(r, key);
    if (!value) return KT_OK;
    if (kt_json_get_int(value, out) && *out >= 0) return KT_OK;
    return wrong(r, key, "a whole number, 0 or more", value);
}

static kt_status check_keys(reader *r, const char *const *known, size_t n) {
    kt_str names[16], near[2];
    for (size_t i = 0; i < n; i++) names[i] = kt_str_from(known[i]);
    for (size_t i = 0; i < r->object->n; i++) {
        kt_str key = kt_json_member_at(r->object, i)->name;
        size_t k = 0;
        while (k < n && !kt_str_eq(names[k], key)) k++;
        if (k < n) continue;
        KT_FAIL(r->err, KT_EFORMAT, "%s: %sunknown key '%.*s'", r->path, r->where, KT_STR_ARG(key));
        if (kt_str_near(key, names, n, near) > 0)
            kt_err_note(r->err, "did you mean '%.*s'?", KT_STR_ARG(near[0]));
        return KT_EFORMAT;
    }
    return KT_OK;
}

// ---- a stage

static kt_status get_kind(reader *r, kt_golden_stage *out) {
    kt_str kind;
    KT_TRY(get_text(r, "kind", true, &kind));
    out->exact = kt_str_is(kind, "exact");
    if (!out->exact && !kt_str_is(kind, "float"))
        return wrong(r, "kind", "\"float\" or \"exact\"", find(r, "kind"));
    if (out->exact) return get_text(r, "why", false, &out->why);
    const kt_json *relative = find(r, "relative");
    if (!kt_json_get_real(relative, &out->relative) || out->relative < 0 || out->relative > DBL_MAX)
        return wrong(r, "relative", "the tolerance, a number", relative);
    return get_text(r, "why", true, &out->why);
}

static kt_status get_rows(reader *r, kt_golden_stage *out) {
    const kt_json *rows = find(r, "rows");
    out->to = -1;
    if (!rows) return KT_OK;
    bool two = rows->kind == KT_JSON_LIST && rows->n == 2 &&
               kt_json_get_int(&rows->as.items[0], &out->from) &&
               kt_json_get_int(&rows->as.items[1], &out->to);
    if (two && out->from >= 0 && out->from < out->to) return KT_OK;
    return wrong(r, "rows", "[from, to]", rows);
}

static kt_status check_address(reader *r, const char *key, kt_str address) {
    if (kt_str_find(address, '*') < 0 && kt_str_find(address, '@') < 0) return KT_OK;
    return wrong(
        r, key, "one address, without '*' and '@' ('batch' gives the number)", find(r, key));
}

// The file must be there and make sense before a model is loaded for it.
static kt_status check_file(reader *r, const kt_golden_stage *stage) {
    kt_npy npy;
    kt_status status = kt_npy_open(stage->path, &npy, r->err);
    if (status != KT_OK) {
        kt_err_note(r->err, "the golden of stage '%.*s'", KT_STR_ARG(stage->name));
        return status;
    }
    int64_t rows = npy.head.rank > 0 ? npy.head.shape[0] : 1;
    kt_npy_close(&npy);
    if (stage->to < 0 || stage->to - stage->from == rows) return KT_OK;
    return KT_FAIL(r->err, KT_EFORMAT, "%s: %s'rows' are %" PRId64 ", and '%s' has %" PRId64,
        r->path, r->where, stage->to - stage->from, stage->path, rows);
}

static kt_status read_stage(reader *r, int number, kt_golden_stage *out) {
    static const char *const keys[] = {
        "name", "address", "plus", "file", "rows", "batch", "relative", "why", "kind"};
    snprintf(r->where, sizeof r->where, "stage %d: ", number);
    if (r->object->kind != KT_JSON_OBJECT)
        return KT_FAIL(r->err, KT_EFORMAT, "%s: stage %d is %s, expected an object", r->path,
            number, kt_json_describe(r->arena, r->object));
    KT_TRY(get_text(r, "name", true, &out->name));
    snprintf(r->where, sizeof r->where, "stage '%.*s': ", KT_STR_ARG(out->name));
    KT_TRY(check_keys(r, keys, sizeof keys / sizeof keys[0]));
    KT_TRY(get_text(r, "address", true, &out->address));
    KT_TRY(get_text(r, "plus", false, &out->plus));
    KT_TRY(check_address(r, "address", out->address));
    KT_TRY(check_address(r, "plus", out->plus));
    KT_TRY(get_count(r, "batch", &out->batch));
    KT_TRY(get_rows(r, out));
    KT_TRY(get_kind(r, out));
    KT_TRY(get_path(r, "file", &out->path));
    if (!out->path) return wrong(r, "file", "a .npy file", find(r, "file"));
    return check_file(r, out);
}

static kt_status read_stages(reader *r, const kt_json *list, kt_golden *out) {
    if (!list || list->kind != KT_JSON_LIST || list->n == 0)
        return wrong(r, "stages", "a list of stages", list);
    out->n_stages = (int)list->n;
    out->stages = KT_NEW_ARRAY(r->arena, kt_golden_stage, list->n);
    out->addresses = KT_NEW_ARRAY(r->arena, const char *, 2 * list->n);
    for (int i = 0; i < out->n_stages; i++) {
        kt_golden_stage *s = &out->stages[i];
        r->object = &list->as.items[i];
        KT_TRY(read_stage(r, i + 1, s));
        const kt_str names[2] = {s->address, s->plus};
        for (int k = 0; k < (s->plus.n > 0 ? 2 : 1); k++)
            out->addresses[out->n_addresses++] =
                kt_arena_printf(r->arena, "%.*s@%" PRId64, KT_STR_ARG(names[k]), s->batch);
    }
    return KT_OK;
}

// ---- the head

static kt_status setting_text(reader *r, const kt_json_member *member, const char **out) {
    const kt_json *value = &member->value;
    switch (value->kind) {
    case KT_JSON_TEXT:
        *out = kt_str_z(r->arena, value->as.text);
        return KT_OK;
    case KT_JSON_INT:
        *out = kt_arena_printf(r->arena, "%" PRId64, value->as.integer);
        return KT_OK;
    case KT_JSON_REAL:
        *out = kt_arena_printf(r->arena, "%.17g", value->as.real);
        return KT_OK;
    case KT_JSON_BOOL:
        *out = value->as.truth ? "true" : "false";
        return KT_OK;
    case KT_JSON_NULL:
    case KT_JSON_LIST:
    case KT_JSON_OBJECT:
        break;
    }
    return wrong(r, kt_str_z(r->arena, member->name), "a text or a number", value);
}

static kt_status read_settings(reader *r, kt_golden *out) {
    const kt_json *set = find(r, "set");
    if (!set) return KT_OK;
    if (set->kind != KT_JSON_OBJECT) return wrong(r, "set", "an object", set);
    out->n_settings = (int)set->n;
    out->settings = KT_NEW_ARRAY(r->arena, kt_setting, set->n + 1);
    for (int i = 0; i < out->n_settings; i++) {
        const kt_json_member *member = kt_json_member_at(set, (size_t)i);
        out->settings[i].name = kt_str_z(r->arena, member->name);
        KT_TRY(setting_text(r, member, &out->settings[i].value));
    }
    return KT_OK;
}

static kt_status read_head(reader *r, kt_golden *out) {
    static const char *const keys[] = {"kotaro", "doc", "pipeline", "model", "image", "question",
        "set", "greedy", "max_tokens", "stages"};
    kt_str mark;
    if (r->object->kind != KT_JSON_OBJECT)
        return KT_FAIL(r->err, KT_EFORMAT, "%s: it holds %s, expected an object", r->path,
            kt_json_describe(r->arena, r->object));
    KT_TRY(get_text(r, "kotaro", true, &mark));
    if (!kt_str_is(mark, "golden/1")) return wrong(r, "kotaro", "\"golden/1\"", find(r, "kotaro"));
    KT_TRY(check_keys(r, keys, sizeof keys / sizeof keys[0]));
    KT_TRY(get_text(r, "doc", false, &out->doc));
    KT_TRY(get_text(r, "pipeline", false, &out->pipeline));
    KT_TRY(get_path(r, "model", &out->model));
    KT_TRY(get_path(r, "image", &out->image));
    KT_TRY(get_z(r, "question", &out->question));
    KT_TRY(get_count(r, "max_tokens", &out->max_tokens));
    const kt_json *greedy = find(r, "greedy");
    if (greedy && !kt_json_get_bool(greedy, &out->greedy))
        return wrong(r, "greedy", "true or false", greedy);
    return read_settings(r, out);
}

kt_status kt_golden_read(kt_arena *arena, const char *folder, kt_golden *out, kt_err *err) {
    const kt_json_limits limits = {(int64_t)64 << 20, 8, 1000000};
    *out = (kt_golden){.folder = folder};
    reader r = {.arena = arena, .folder = folder, .err = err};
    r.path = kt_path_join(arena, folder, "golden.json");
    kt_status status = kt_json_read(arena, r.path, limits, &r.object, err);
    if (status == KT_EFORMAT) kt_err_note(err, "the file is damaged; make the golden again");
    KT_TRY(status);
    KT_TRY(read_head(&r, out));
    return read_stages(&r, find(&r, "stages"), out);
}
