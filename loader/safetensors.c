#include "loader/safetensors.h"

#include "loader/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, NAME_MAX_BYTES = 1024, MAX_DEPTH = 8, MAX_VALUES = 4 << 20 };

#define AGAIN "the file is damaged or not a safetensors file; download it again"

typedef struct dtype_row {
    const char *name;
    kt_dtype dtype;
} dtype_row;

static const dtype_row dtypes[] = {
    {"F32", KT_DTYPE_F32},
    {"F16", KT_DTYPE_F16},
    {"BF16", KT_DTYPE_BF16},
    {"F8_E4M3", KT_DTYPE_F8E4M3},
    {"F8_E5M2", KT_DTYPE_F8E5M2},
    {"I64", KT_DTYPE_I64},
    {"I32", KT_DTYPE_I32},
    {"I16", KT_DTYPE_I16},
    {"I8", KT_DTYPE_I8},
    {"U32", KT_DTYPE_U32},
    {"U16", KT_DTYPE_U16},
    {"U8", KT_DTYPE_U8},
    {"BOOL", KT_DTYPE_U8},
};

enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

// One file's header while it is read.
typedef struct reader {
    kt_arena *arena;
    const char *path;
    int64_t data_at;    // where the tensors' bytes begin in the file
    int64_t data_bytes; // how many there are
    kt_err *err;
} reader;

// ---- one tensor

static kt_status check_name(const reader *in, kt_str name) {
    if (name.n == 0)
        return KT_FAIL(in->err, KT_EFORMAT, "%s: a tensor without a name; " AGAIN, in->path);
    if (name.n > NAME_MAX_BYTES) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: the name of tensor '%.*s...' has %zu bytes, at most %d are allowed; " AGAIN,
            in->path, 40, name.at, name.n, NAME_MAX_BYTES);
    }
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.at[i];
        if (c >= 0x20 && c != 0x7f) continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: the name of a tensor holds the control character 0x%02x at byte %zu; " AGAIN,
            in->path, c, i);
    }
    return KT_OK;
}

static kt_status read_dtype(const reader *in, const kt_json *entry, kt_stored *out) {
    const kt_json *value = kt_json_find(entry, KT_STR("dtype"));
    if (!kt_json_get_text(value, &out->type)) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s': 'dtype' is %s, expected a text such as 'BF16'; " AGAIN, in->path,
            KT_STR_ARG(out->name), kt_json_describe(in->arena, value));
    }
    for (int i = 0; i < N_DTYPES; i++) {
        if (!kt_str_is(out->type, dtypes[i].name)) continue;
        out->dtype = dtypes[i].dtype;
        return KT_OK;
    }
    kt_buf known = {0};
    for (int i = 0; i < N_DTYPES; i++)
        kt_buf_printf(&known, "%s%s", i == 0 ? "" : " ", dtypes[i].name);
    kt_status status = KT_FAIL(in->err, KT_EFORMAT,
        "%s: tensor '%.*s' has dtype %s, which Kotaro does not read (it reads %s); use a "
        "checkpoint saved in one of those",
        in->path, KT_STR_ARG(out->name), kt_json_describe(in->arena, value), known.at);
    kt_buf_deinit(&known);
    return status;
}

// Sets rank, shape and *bytes.
static kt_status read_shape(
    const reader *in, const kt_json *entry, kt_stored *out, int64_t *bytes) {
    const kt_json *list = kt_json_find(entry, KT_STR("shape"));
    if (list == NULL || list->kind != KT_JSON_LIST) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s': 'shape' is %s, expected a list; " AGAIN, in->path,
            KT_STR_ARG(out->name), kt_json_describe(in->arena, list));
    }
    if (list->n > KT_MAX_RANK) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s' has %zu dimensions, at most %d are supported", in->path,
            KT_STR_ARG(out->name), list->n, KT_MAX_RANK);
    }
    out->rank = (int)list->n;
    *bytes = kt_dtype_bytes(out->dtype);
    bool empty = false;
    for (size_t i = 0; i < list->n; i++) {
        int64_t length = 0;
        if (!kt_json_get_int(&list->as.items[i], &length) || length < 0) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: tensor '%.*s': dimension %zu of 'shape' is %s, expected a whole number from "
                "0; " AGAIN,
                in->path, KT_STR_ARG(out->name), i,
                kt_json_describe(in->arena, &list->as.items[i]));
        }
        out->shape[i] = length;
        empty = empty || length == 0;
        if (empty) continue;
        if (!kt_mul(*bytes, length, bytes)) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: tensor '%.*s': 'shape' makes more than 2^63 bytes (dimension %zu is %" PRId64
                "), the file has %" PRId64 "; " AGAIN,
                in->path, KT_STR_ARG(out->name), i, length, in->data_bytes);
        }
    }
    if (empty) *bytes = 0;
    return KT_OK;
}

static kt_status read_range(const reader *in, const kt_json *entry, kt_stored *out, int64_t bytes) {
    const kt_json *list = kt_json_find(entry, KT_STR("data_offsets"));
    int64_t begin = 0, end = 0;
    if (list == NULL || list->kind != KT_JSON_LIST || list->n != 2 ||
        !kt_json_get_int(&list->as.items[0], &begin) ||
        !kt_json_get_int(&list->as.items[1], &end)) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s': 'data_offsets' is %s, expected a list of two whole numbers; " AGAIN,
            in->path, KT_STR_ARG(out->name), kt_json_describe(in->arena, list));
    }
    if (begin < 0 || end < begin) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s' lies from byte %" PRId64 " to %" PRId64
            ", which is no range; " AGAIN,
            in->path, KT_STR_ARG(out->name), begin, end);
    }
    if (end > in->data_bytes) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s' ends at byte %" PRId64 " of the data, but the file ends at %" PRId64
            "; the download was cut short, download it again",
            in->path, KT_STR_ARG(out->name), end, in->data_bytes);
    }
    if (end - begin != bytes) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s' has %" PRId64
            " bytes in the file, but its shape and %.*s make %" PRId64 "; " AGAIN,
            in->path, KT_STR_ARG(out->name), end - begin, KT_STR_ARG(out->type), bytes);
    }
    out->offset = in->data_at + begin;
    out->bytes = bytes;
    return KT_OK;
}

static kt_status read_tensor(const reader *in, const kt_json_member *member, kt_stored *out) {
    KT_TRY(check_name(in, member->name));
    *out = (kt_stored){.name = member->name, .ggml_type = -1};
    const kt_json *entry = &member->value;
    if (entry->kind != KT_JSON_OBJECT) {
        return KT_FAIL(in->err, KT_EFORMAT, "%s: tensor '%.*s' is %s, expected an object; " AGAIN,
            in->path, KT_STR_ARG(out->name), kt_json_describe(in->arena, entry));
    }
    for (size_t i = 0; i < entry->n; i++) {
        kt_str key = kt_json_member_at(entry, i)->name;
        if (kt_str_is(key, "dtype") || kt_str_is(key, "shape") || kt_str_is(key, "data_offsets"))
            continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s' has the unknown member '%.*s'; " AGAIN, in->path,
            KT_STR_ARG(out->name), (int)(key.n < 60 ? key.n : 60), key.at);
    }
    int64_t bytes = 0;
    KT_TRY(read_dtype(in, entry, out));
    KT_TRY(read_shape(in, entry, out, &bytes));
    return read_range(in, entry, out, bytes);
}

// ---- all of them

static int by_offset(const void *a, const void *b) {
    const kt_stored *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return kt_str_cmp(x->name, y->name);
}

// The format wants every byte of the data area to belong to exactly one tensor.
static kt_status check_cover(const reader *in, const kt_stored *stored, int64_t n) {
    int64_t at = 0;
    kt_str before = {"", 0};
    for (int64_t i = 0; i < n; i++) {
        int64_t begin = stored[i].offset - in->data_at;
        if (begin < at) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: tensors '%.*s' and '%.*s' overlap: one ends at byte %" PRId64
                ", the other begins at %" PRId64 "; " AGAIN,
                in->path, KT_STR_ARG(before), KT_STR_ARG(stored[i].name), at, begin);
        }
        if (begin > at) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: bytes %" PRId64 " to %" PRId64
                " before tensor '%.*s' belong to no tensor; " AGAIN,
                in->path, at, begin, KT_STR_ARG(stored[i].name));
        }
        at = begin + stored[i].bytes;
        before = stored[i].name;
    }
    if (at == in->data_bytes) return KT_OK;
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: the tensors end at byte %" PRId64 " of the data, the file at %" PRId64 "; " AGAIN,
        in->path, at, in->data_bytes);
}

static kt_status check_metadata(const reader *in, const kt_json *value) {
    if (value->kind != KT_JSON_OBJECT) {
        return KT_FAIL(in->err, KT_EFORMAT, "%s: '__metadata__' is %s, expected an object; " AGAIN,
            in->path, kt_json_describe(in->arena, value));
    }
    for (size_t i = 0; i < value->n; i++) {
        const kt_json_member *member = kt_json_member_at(value, i);
        if (member->value.kind == KT_JSON_TEXT) continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: '%.*s' in '__metadata__' is %s, expected a text; " AGAIN, in->path,
            (int)(member->name.n < 60 ? member->name.n : 60), member->name.at,
            kt_json_describe(in->arena, &member->value));
    }
    return KT_OK;
}

kt_status kt_safetensors_parse(kt_arena *arena, kt_str header, const char *path, int64_t file_bytes,
    kt_stored **stored, int64_t *n, kt_err *err) {
    int64_t data_at = LENGTH_BYTES + (int64_t)header.n;
    reader in = {arena, path, data_at, file_bytes - data_at, err};
    if (in.data_bytes < 0) {
        return KT_FAIL(err, KT_EFORMAT,
            "%s: the header ends at byte %" PRId64 ", the file at %" PRId64 "; " AGAIN, path,
            data_at, file_bytes);
    }
    if (header.n == 0 || header.at[0] != '{') {
        return KT_FAIL(err, KT_EFORMAT, "%s: the header does not begin with '{'; " AGAIN, path);
    }
    kt_json_limits limits = {KT_SAFETENSORS_HEADER_MAX, MAX_DEPTH, MAX_VALUES};
    const char *name = kt_arena_printf(arena, "%s: header", path);
    const kt_json *root;
    kt_status status = kt_json_parse(arena, header, name, limits, &root, err);
    if (status != KT_OK) {
        kt_err_note(err, AGAIN);
        return status;
    }
    kt_stored *all = KT_NEW_ARRAY(arena, kt_stored, root->n);
    int64_t count = 0;
    for (size_t i = 0; i < root->n; i++) {
        const kt_json_member *member = kt_json_member_at(root, i);
        if (kt_str_is(member->name, "__metadata__"))
            KT_TRY(check_metadata(&in, &member->value));
        else
            KT_TRY(read_tensor(&in, member, &all[count++]));
    }
    if (count > 1) qsort(all, (size_t)count, sizeof *all, by_offset);
    KT_TRY(check_cover(&in, all, count));
    *stored = all;
    *n = count;
    return KT_OK;
}

// Eight letters are a length beyond any limit.
static bool is_text(const unsigned char raw[LENGTH_BYTES]) {
    for (int i = 0; i < LENGTH_BYTES; i++)
        if (raw[i] < 0x20 || raw[i] > 0x7e) return false;
    return true;
}

kt_status kt_safetensors_read(kt_arena *arena, const kt_checkpoint_file *file, int file_index,
    kt_stored **stored, int64_t *n, kt_err *err) {
    int64_t size = kt_os_size(file->file);
    if (size < LENGTH_BYTES) {
        return KT_FAIL(err, KT_EFORMAT,
            "%s: the file has %" PRId64 " bytes, a safetensors file has at least %d; " AGAIN,
            file->path, size, LENGTH_BYTES + 2);
    }
    unsigned char raw[LENGTH_BYTES];
    KT_TRY(kt_os_read_at(file->file, 0, raw, sizeof raw, err));
    uint64_t length = 0;
    for (int i = 0; i < LENGTH_BYTES; i++) length |= (uint64_t)raw[i] << (8 * i);
    if (is_text(raw)) {
        return KT_FAIL(err, KT_EFORMAT,
            "%s: the file is a text that begins with '%.8s', such as a Git LFS pointer or a web "
            "page in place of the weights; download it again",
            file->path, (const char *)raw);
    }
    if (length > KT_SAFETENSORS_HEADER_MAX) {
        return KT_FAIL(err, KT_EFORMAT,
            "%s: the header is said to have %" PRIu64 " bytes, at most %d are allowed; " AGAIN,
            file->path, length, KT_SAFETENSORS_HEADER_MAX);
    }
    if ((int64_t)length > size - LENGTH_BYTES) {
        return KT_FAIL(err, KT_EFORMAT,
            "%s: the header is said to have %" PRIu64 " bytes, but the file has %" PRId64
            " in all; the download was cut short, download it again",
            file->path, length, size);
    }
    char *text = kt_arena_alloc(arena, (size_t)length + 1);
    KT_TRY(kt_os_read_at(file->file, LENGTH_BYTES, text, (size_t)length, err));
    kt_str header = {text, (size_t)length};
    KT_TRY(kt_safetensors_parse(arena, header, file->path, size, stored, n, err));
    for (int64_t i = 0; i < *n; i++) (*stored)[i].file = file_index;
    return KT_OK;
}
