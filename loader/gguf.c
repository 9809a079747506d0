#include "loader/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    AXES_MAX = 4, // of a tensor, in the file
    NEST_MAX = 4, // lists within each other
    NAME_MAX_BYTES = 1024,
    TENSORS_MAX = 100 * 1000,
    KEYS_MAX = 100 * 1000,
    ALIGNMENT = 32, // where the file does not say it
    ALIGNMENT_MAX = 1 << 16,
    LEAST_KEY_BYTES = 8 + 1 + 4 + 1,
    LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
};

#define AGAIN "the file is damaged or not a GGUF file; download it again"

// ---- types of tensors

typedef struct type_row {
    int number;
    const char *name;
    int block, bytes; // numbers in a block, and its size
    kt_dtype dtype;   // u8: blocks
} type_row;

static const type_row types[] = {
    {0, "F32", 1, 4, KT_DTYPE_F32},
    {1, "F16", 1, 2, KT_DTYPE_F16},
    {2, "Q4_0", 32, 18, KT_DTYPE_U8},
    {3, "Q4_1", 32, 20, KT_DTYPE_U8},
    {6, "Q5_0", 32, 22, KT_DTYPE_U8},
    {7, "Q5_1", 32, 24, KT_DTYPE_U8},
    {8, "Q8_0", 32, 34, KT_DTYPE_U8},
    {9, "Q8_1", 32, 36, KT_DTYPE_U8},
    {10, "Q2_K", 256, 84, KT_DTYPE_U8},
    {11, "Q3_K", 256, 110, KT_DTYPE_U8},
    {12, "Q4_K", 256, 144, KT_DTYPE_U8},
    {13, "Q5_K", 256, 176, KT_DTYPE_U8},
    {14, "Q6_K", 256, 210, KT_DTYPE_U8},
    {15, "Q8_K", 256, 292, KT_DTYPE_U8},
    {16, "IQ2_XXS", 256, 66, KT_DTYPE_U8},
    {17, "IQ2_XS", 256, 74, KT_DTYPE_U8},
    {18, "IQ3_XXS", 256, 98, KT_DTYPE_U8},
    {19, "IQ1_S", 256, 50, KT_DTYPE_U8},
    {20, "IQ4_NL", 32, 18, KT_DTYPE_U8},
    {21, "IQ3_S", 256, 110, KT_DTYPE_U8},
    {22, "IQ2_S", 256, 82, KT_DTYPE_U8},
    {23, "IQ4_XS", 256, 136, KT_DTYPE_U8},
    {24, "I8", 1, 1, KT_DTYPE_I8},
    {25, "I16", 1, 2, KT_DTYPE_I16},
    {26, "I32", 1, 4, KT_DTYPE_I32},
    {27, "I64", 1, 8, KT_DTYPE_I64},
    {28, "F64", 1, 8, KT_DTYPE_U8},
    {29, "IQ1_M", 256, 56, KT_DTYPE_U8},
    {30, "BF16", 1, 2, KT_DTYPE_BF16},
    {34, "TQ1_0", 256, 54, KT_DTYPE_U8},
    {35, "TQ2_0", 256, 66, KT_DTYPE_U8},
    {39, "MXFP4", 32, 17, KT_DTYPE_U8},
};

static const type_row *find_type(int64_t number) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].number == number) return &types[i];
    }
    return NULL;
}

const char *kt_gguf_type_name(int ggml_type) {
    const type_row *type = find_type(ggml_type);
    return type == NULL ? NULL : type->name;
}

int kt_gguf_type_block(int ggml_type) {
    const type_row *type = find_type(ggml_type);
    return type == NULL ? 0 : type->block;
}

// Source: src/ggml-common.h (block_*) in ggml-org/ggml.
static const struct {
    int number, n, at[2];
} halves[] = {
    {2, 1, {0}},
    {3, 2, {0, 2}},
    {6, 1, {0}},
    {7, 2, {0, 2}},
    {8, 1, {0}},
    {12, 2, {0, 2}},
    {13, 2, {0, 2}},
    {14, 1, {208}},
};

kt_gguf_halves kt_gguf_type_halves(int ggml_type) {
    for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++) {
        if (halves[i].number != ggml_type) continue;
        int bytes = find_type(ggml_type)->bytes;
        return (kt_gguf_halves){bytes, halves[i].n, {halves[i].at[0], halves[i].at[1]}};
    }
    return (kt_gguf_halves){0};
}

// ---- kinds of metadata

typedef struct kind_row {
    const char *name;
    int bytes; // 0: it varies
} kind_row;

static const kind_row kinds[KT_GGUF_KIND_COUNT] = {
    [KT_GGUF_U8] = {"u8", 1},
    [KT_GGUF_I8] = {"i8", 1},
    [KT_GGUF_U16] = {"u16", 2},
    [KT_GGUF_I16] = {"i16", 2},
    [KT_GGUF_U32] = {"u32", 4},
    [KT_GGUF_I32] = {"i32", 4},
    [KT_GGUF_F32] = {"f32", 4},
    [KT_GGUF_BOOL] = {"bool", 1},
    [KT_GGUF_TEXT] = {"text", 0},
    [KT_GGUF_LIST] = {"list", 0},
    [KT_GGUF_U64] = {"u64", 8},
    [KT_GGUF_I64] = {"i64", 8},
    [KT_GGUF_F64] = {"f64", 8},
};

static uint64_t load(const char *at, int bytes) {
    uint64_t out = 0;
    for (int i = 0; i < bytes; i++) out |= (uint64_t)(unsigned char)at[i] << (8 * i);
    return out;
}

// ---- reading

typedef struct reader {
    kt_arena *arena;
    kt_str bytes; // what is there of the header
    int64_t file_bytes;
    int64_t at;
    const char *path;
    bool more; // the header goes on behind `bytes`
    kt_err *err;
} reader;

// Are `n` bytes there? `what` is what they belong to.
static kt_status need(reader *in, uint64_t n, const char *what) {
    uint64_t left = (uint64_t)(in->file_bytes - in->at);
    if (n > left) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: %s at byte %" PRId64 " takes %" PRIu64 " bytes, but the file ends at %" PRId64
            "; the download was cut short, download it again",
            in->path, what, in->at, n, in->file_bytes);
    }
    if (n <= (uint64_t)in->bytes.n - (uint64_t)in->at) return KT_OK;
    in->more = true;
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: %s at byte %" PRId64 " takes %" PRIu64
        " bytes, so the header has more than the %d that are allowed; " AGAIN,
        in->path, what, in->at, n, KT_GGUF_HEADER_MAX);
}

static kt_status read_number(reader *in, int bytes, const char *what, uint64_t *out) {
    KT_TRY(need(in, (uint64_t)bytes, what));
    *out = load(in->bytes.at + in->at, bytes);
    in->at += bytes;
    return KT_OK;
}

static kt_status read_text(reader *in, const char *what, kt_str *out) {
    uint64_t n;
    KT_TRY(read_number(in, 8, what, &n));
    KT_TRY(need(in, n, what));
    *out = (kt_str){in->bytes.at + in->at, (size_t)n};
    in->at += (int64_t)n;
    return KT_OK;
}

// A name of a key or a tensor: short, and printable.
static kt_status read_name(reader *in, const char *what, kt_str *out) {
    int64_t at = in->at;
    KT_TRY(read_text(in, what, out));
    if (out->n == 0 || out->n > NAME_MAX_BYTES) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: %s at byte %" PRId64 " has %zu bytes, expected 1 to %d; " AGAIN, in->path, what,
            at, out->n, NAME_MAX_BYTES);
    }
    bool plain = kt_utf8_valid(*out);
    for (size_t i = 0; i < out->n; i++) {
        unsigned char c = (unsigned char)out->at[i];
        plain = plain && c >= 0x20 && c != 0x7f;
    }
    if (plain) return KT_OK;
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: %s at byte %" PRId64 " has characters that no name has; " AGAIN, in->path, what, at);
}

// ---- metadata

static kt_status read_kind(reader *in, kt_str key, kt_gguf_kind *out) {
    uint64_t kind;
    int64_t at = in->at;
    KT_TRY(read_number(in, 4, "the type of a value", &kind));
    *out = (kt_gguf_kind)(kind < KT_GGUF_KIND_COUNT ? kind : 0);
    if (kind < KT_GGUF_KIND_COUNT) return KT_OK;
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: key '%.*s', byte %" PRId64 ": %" PRIu64
        " is no type of values, expected 0 to %d; " AGAIN,
        in->path, KT_STR_ARG(key), at, kind, KT_GGUF_KIND_COUNT - 1);
}

static kt_status check_truths(const reader *in, kt_str key, const char *at, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if ((unsigned char)at[i] <= 1) continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: key '%.*s' has the truth value %d, expected 0 or 1; " AGAIN, in->path,
            KT_STR_ARG(key), (unsigned char)at[i]);
    }
    return KT_OK;
}

static kt_status read_value(reader *in, kt_str key, int depth, kt_gguf_value *out);

// The items of a list, one after the other; in->at is at the first.
static kt_status pass_items(reader *in, kt_str key, int depth, const kt_gguf_value *list) {
    int width = kinds[list->item_kind].bytes;
    uint64_t n = (uint64_t)list->n;
    if (width > 0) {
        KT_TRY(need(in, n * (uint64_t)width, "a list"));
        if (list->item_kind == KT_GGUF_BOOL) KT_TRY(check_truths(in, key, list->at, list->n));
        in->at += list->n * width;
        return KT_OK;
    }
    kt_gguf_value item = {.kind = list->item_kind};
    for (int64_t i = 0; i < list->n; i++) KT_TRY(read_value(in, key, depth, &item));
    return KT_OK;
}

static kt_status read_list(reader *in, kt_str key, int depth, kt_gguf_value *out) {
    if (depth == NEST_MAX) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: key '%.*s': lists within each other deeper than %d; " AGAIN, in->path,
            KT_STR_ARG(key), NEST_MAX);
    }
    uint64_t n;
    KT_TRY(read_kind(in, key, &out->item_kind));
    KT_TRY(read_number(in, 8, "the length of a list", &n));
    int least = kinds[out->item_kind].bytes > 0 ? kinds[out->item_kind].bytes : 8;
    uint64_t left = (uint64_t)(in->file_bytes - in->at);
    if (n > left / (uint64_t)least) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: key '%.*s': a list of %" PRIu64 " items of %s does not fit in the %" PRIu64
            " bytes that are left of the file; the download was cut short, or the file is damaged; "
            "download it again",
            in->path, KT_STR_ARG(key), n, kinds[out->item_kind].name, left);
    }
    out->n = (int64_t)n;
    out->at = in->bytes.at + in->at;
    return pass_items(in, key, depth + 1, out);
}

// The value of out->kind at in->at.
static kt_status read_value(reader *in, kt_str key, int depth, kt_gguf_value *out) {
    out->at = in->bytes.at + in->at;
    if (out->kind == KT_GGUF_LIST) return read_list(in, key, depth, out);
    if (out->kind == KT_GGUF_TEXT) {
        kt_str text;
        return read_text(in, "a text", &text);
    }
    uint64_t number;
    KT_TRY(read_number(in, kinds[out->kind].bytes, "a number", &number));
    return out->kind == KT_GGUF_BOOL ? check_truths(in, key, out->at, 1) : KT_OK;
}

static kt_status read_keys(reader *in, int n, kt_gguf *out) {
    KT_VEC(kt_gguf_key) keys = {0};
    kt_table_init(&out->by_name, in->arena);
    for (int i = 0; i < n; i++) {
        kt_gguf_key key = {0};
        KT_TRY(read_name(in, "the name of a key", &key.name));
        int64_t before;
        if (kt_table_find(&out->by_name, key.name, &before)) {
            return KT_FAIL(in->err, KT_EFORMAT, "%s: key '%.*s' is there twice; " AGAIN, in->path,
                KT_STR_ARG(key.name));
        }
        KT_TRY(read_kind(in, key.name, &key.value.kind));
        kt_status status = read_value(in, key.name, 0, &key.value);
        if (status != KT_OK) {
            kt_err_note(in->err, "key '%.*s'", KT_STR_ARG(key.name));
            return status;
        }
        kt_table_set(&out->by_name, key.name, i);
        KT_PUSH(in->arena, &keys, key);
    }
    out->keys = keys.at;
    out->n_keys = n;
    return KT_OK;
}

// ---- tensors

static kt_status read_axes(reader *in, kt_str name, kt_stored *out) {
    uint64_t rank;
    KT_TRY(read_number(in, 4, "the number of axes of a tensor", &rank));
    if (rank < 1 || rank > AXES_MAX) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s' has %" PRIu64 " axes, expected 1 to %d; " AGAIN, in->path,
            KT_STR_ARG(name), rank, AXES_MAX);
    }
    out->rank = (int)rank;
    for (int i = 0; i < out->rank; i++) {
        uint64_t size;
        KT_TRY(read_number(in, 8, "an axis of a tensor", &size));
        if (size < 1 || size > INT64_MAX) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: axis %d of tensor '%.*s' is %" PRIu64 ", expected at least 1; " AGAIN,
                in->path, i, KT_STR_ARG(name), size);
        }
        out->shape[out->rank - 1 - i] = (int64_t)size;
    }
    return KT_OK;
}

static kt_status read_type(reader *in, kt_stored *out) {
    uint64_t number;
    KT_TRY(read_number(in, 4, "the type of a tensor", &number));
    const type_row *type = find_type(number > INT32_MAX ? -1 : (int64_t)number);
    if (type == NULL) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s' has the type %" PRIu64
            " of ggml, which is not known here (removed, or newer than this program); download the "
            "model in another type, such as Q4_K_M or Q8_0",
            in->path, KT_STR_ARG(out->name), number);
    }
    out->ggml_type = type->number;
    out->type = kt_str_from(type->name);
    out->dtype = type->dtype;
    int64_t *columns = &out->shape[out->rank - 1];
    if (*columns % type->block != 0) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: tensor '%.*s' has rows of %" PRId64 " numbers, which blocks of %d (%s) do not "
            "fill; " AGAIN,
            in->path, KT_STR_ARG(out->name), *columns, type->block, type->name);
    }
    out->bytes = type->bytes;
    for (int i = 0; i < out->rank; i++) {
        int64_t size = i == out->rank - 1 ? *columns / type->block : out->shape[i];
        if (kt_mul(out->bytes, size, &out->bytes)) continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: the size of tensor '%.*s' does not fit in 64 bits; " AGAIN, in->path,
            KT_STR_ARG(out->name));
    }
    if (type->dtype != KT_DTYPE_U8) return KT_OK;
    *columns /= type->block;
    out->shape[out->rank++] = type->bytes;
    return KT_OK;
}

static kt_status read_tensor(reader *in, kt_table *names, int64_t index, kt_stored *out) {
    uint64_t offset;
    *out = (kt_stored){0};
    KT_TRY(read_name(in, "the name of a tensor", &out->name));
    int64_t before;
    if (kt_table_find(names, out->name, &before)) {
        return KT_FAIL(in->err, KT_EFORMAT, "%s: tensor '%.*s' is there twice; " AGAIN, in->path,
            KT_STR_ARG(out->name));
    }
    kt_table_set(names, out->name, index);
    KT_TRY(read_axes(in, out->name, out));
    KT_TRY(read_type(in, out));
    KT_TRY(read_number(in, 8, "the place of a tensor", &offset));
    if (offset <= (uint64_t)in->file_bytes) {
        out->offset = (int64_t)offset; // of the data, until they are placed
        return KT_OK;
    }
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: tensor '%.*s' begins at byte %" PRIu64 " of the data, but the file has %" PRId64
        " in all; the download was cut short, download it again",
        in->path, KT_STR_ARG(out->name), offset, in->file_bytes);
}

static int by_offset(const void *a, const void *b) {
    const kt_stored *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return kt_str_cmp(x->name, y->name);
}

// The tensors lie one after the other, each at the next multiple of the alignment.
static kt_status place(const reader *in, kt_stored *all, int64_t n, int64_t alignment) {
    int64_t data_at = (in->at + alignment - 1) / alignment * alignment, at = 0;
    kt_str before = KT_STR("the header");
    if (n > 1) qsort(all, (size_t)n, sizeof *all, by_offset);
    for (int64_t i = 0; i < n; i++) {
        kt_stored *stored = &all[i];
        int64_t begin = stored->offset, end;
        if (!kt_add(data_at + begin, stored->bytes, &end) || end > in->file_bytes) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: tensor '%.*s' has %" PRId64 " bytes from byte %" PRId64
                ", but the file ends at %" PRId64 "; the download was cut short, download it again",
                in->path, KT_STR_ARG(stored->name), stored->bytes, data_at + begin, in->file_bytes);
        }
        if (begin % alignment != 0) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: tensor '%.*s' begins at byte %" PRId64
                " of the data, which is no multiple of the alignment %" PRId64 "; " AGAIN,
                in->path, KT_STR_ARG(stored->name), begin, alignment);
        }
        if (begin < at) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: tensors '%.*s' and '%.*s' overlap: one ends at byte %" PRId64
                " of the data, the other begins at %" PRId64 "; " AGAIN,
                in->path, KT_STR_ARG(before), KT_STR_ARG(stored->name), at, begin);
        }
        if (begin - at >= alignment) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: bytes %" PRId64 " to %" PRId64
                " of the data before tensor '%.*s' belong to no tensor; " AGAIN,
                in->path, at, begin, KT_STR_ARG(stored->name));
        }
        stored->offset = data_at + begin;
        at = begin + stored->bytes;
        before = stored->name;
    }
    return KT_OK;
}

// ---- the whole header

static kt_status read_count(reader *in, const char *what, int most, int least_bytes, int64_t *out) {
    uint64_t n;
    KT_TRY(read_number(in, 8, what, &n));
    uint64_t left = (uint64_t)(in->file_bytes - in->at);
    *out = (int64_t)n;
    if (n <= (uint64_t)most && n <= left / (uint64_t)least_bytes) return KT_OK;
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: %s is %" PRIu64 ", which does not fit in the %" PRIu64
        " bytes that are left of the file, or is more than %d; " AGAIN,
        in->path, what, n, left, most);
}

static kt_status read_version(reader *in) {
    uint64_t magic, version;
    KT_TRY(read_number(in, 4, "the mark of the format", &magic));
    if (memcmp(in->bytes.at, "GGUF", 4) != 0) {
        return KT_FAIL(
            in->err, KT_EFORMAT, "%s: the file does not begin with 'GGUF'; " AGAIN, in->path);
    }
    KT_TRY(read_number(in, 4, "the version", &version));
    if (version == 2 || version == 3) return KT_OK;
    if (version == 1) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: version 1 of GGUF is not read, 2 and 3 are; download a newer file of the model",
            in->path);
    }
    if (version != 0 && version % (1U << 24) == 0) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: the file is big-endian, only little-endian ones are read; download that of the "
            "model for x86 or ARM",
            in->path);
    }
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: version %" PRIu64
        " of GGUF is not known, 2 and 3 are read; download the model in one of these, or a newer "
        "Kotaro",
        in->path, version);
}

static kt_status read_alignment(const reader *in, const kt_gguf *gguf, int64_t *out) {
    const kt_gguf_value *value = kt_gguf_find(gguf, KT_STR("general.alignment"));
    *out = ALIGNMENT;
    if (value == NULL) return KT_OK;
    kt_value number = {0};
    bool whole = kt_gguf_number(value, &number) && !number.is_real;
    *out = number.i;
    if (whole && *out >= 1 && *out <= ALIGNMENT_MAX && (*out & (*out - 1)) == 0) return KT_OK;
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: 'general.alignment' is %s, expected a power of two up to %d; " AGAIN, in->path,
        kt_gguf_describe(in->arena, value), ALIGNMENT_MAX);
}

// A file of several parts has its tensors in the others.
static kt_status check_whole(const reader *in, const kt_gguf *gguf) {
    kt_value parts;
    if (!kt_gguf_number(kt_gguf_find(gguf, KT_STR("split.count")), &parts)) return KT_OK;
    if (parts.is_real || parts.i <= 1) return KT_OK;
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: this is one of %" PRId64
        " parts of a model, only whole files are read; join them with 'llama-gguf-split --merge', "
        "or download the model in one file",
        in->path, parts.i);
}

static kt_status read_table(reader *in, int64_t n, kt_gguf_header *out) {
    kt_table names;
    kt_table_init(&names, in->arena);
    out->stored = KT_NEW_ARRAY(in->arena, kt_stored, n);
    out->n = n;
    for (int64_t i = 0; i < n; i++) KT_TRY(read_tensor(in, &names, i, &out->stored[i]));
    return KT_OK;
}

kt_status kt_gguf_parse(kt_arena *arena, kt_str bytes, int64_t file_bytes, const char *path,
    kt_gguf_header *out, kt_err *err) {
    reader in = {arena, bytes, file_bytes, 0, path, false, err};
    int64_t n_tensors = 0, n_keys = 0, alignment;
    *out = (kt_gguf_header){.gguf.path = path};
    kt_status status = read_version(&in);
    if (status == KT_OK)
        status =
            read_count(&in, "the number of tensors", TENSORS_MAX, LEAST_TENSOR_BYTES, &n_tensors);
    if (status == KT_OK)
        status = read_count(&in, "the number of keys", KEYS_MAX, LEAST_KEY_BYTES, &n_keys);
    if (status == KT_OK) status = read_keys(&in, (int)n_keys, &out->gguf);
    if (status == KT_OK) status = read_table(&in, n_tensors, out);
    out->more = in.more;
    KT_TRY(status);
    KT_TRY(read_alignment(&in, &out->gguf, &alignment));
    KT_TRY(check_whole(&in, &out->gguf));
    return place(&in, out->stored, n_tensors, alignment);
}

kt_status kt_gguf_read(kt_arena *arena, const kt_checkpoint_file *file, int file_index,
    const kt_gguf **out, kt_stored **stored, int64_t *n, kt_err *err) {
    // How long the header is, nobody says: most are in the second of these.
    static const int sizes[] = {1 << 20, 16 << 20, KT_GGUF_HEADER_MAX};
    int64_t file_bytes = kt_os_size(file->file);
    kt_gguf_header header = {.more = true};
    kt_status status = KT_OK;
    for (int i = 0; header.more && i < 3; i++) {
        kt_arena_mark mark = kt_arena_get_mark(arena);
        size_t size = (size_t)(file_bytes < sizes[i] ? file_bytes : sizes[i]);
        char *bytes = kt_arena_alloc(arena, size + 1);
        KT_TRY(kt_os_read_at(file->file, 0, bytes, size, err));
        status = kt_gguf_parse(arena, (kt_str){bytes, size}, file_bytes, file->path, &header, err);
        if (header.more && i < 2) kt_arena_reset(arena, mark);
    }
    KT_TRY(status);
    for (int64_t i = 0; i < header.n; i++) header.stored[i].file = file_index;
    kt_gguf *gguf = KT_NEW(arena, kt_gguf);
    *gguf = header.gguf;
    *out = gguf;
    *stored = header.stored;
    *n = header.n;
    return KT_OK;
}

// ---- values

const kt_gguf_value *kt_gguf_find(const kt_gguf *gguf, kt_str key) {
    int64_t i;
    return kt_table_find(&gguf->by_name, key, &i) ? &gguf->keys[i].value : NULL;
}

static int64_t load_signed(const char *at, int bytes) {
    uint64_t raw = load(at, bytes), sign = (uint64_t)1 << (8 * bytes - 1);
    return (int64_t)((raw ^ sign) - sign);
}

static double load_real(const char *at, int bytes) {
    uint64_t raw = load(at, bytes);
    uint32_t half = (uint32_t)raw;
    float narrow;
    double wide;
    memcpy(&narrow, &half, sizeof narrow);
    memcpy(&wide, &raw, sizeof wide);
    return bytes == 4 ? (double)narrow : wide;
}

bool kt_gguf_number(const kt_gguf_value *value, kt_value *out) {
    if (value == NULL) return false;
    int bytes = kinds[value->kind].bytes;
    switch (value->kind) {
    case KT_GGUF_U8:
    case KT_GGUF_U16:
    case KT_GGUF_U32:
    case KT_GGUF_U64:
    case KT_GGUF_BOOL: {
        uint64_t raw = load(value->at, bytes);
        if (raw > INT64_MAX) return false;
        *out = kt_value_int((int64_t)raw);
        return true;
    }
    case KT_GGUF_I8:
    case KT_GGUF_I16:
    case KT_GGUF_I32:
    case KT_GGUF_I64:
        *out = kt_value_int(load_signed(value->at, bytes));
        return true;
    case KT_GGUF_F32:
    case KT_GGUF_F64: {
        double real = load_real(value->at, bytes);
        bool finite = real - real == 0; // neither infinite nor NaN
        if (finite) *out = kt_value_real(real);
        return finite;
    }
    case KT_GGUF_TEXT:
    case KT_GGUF_LIST:
    case KT_GGUF_KIND_COUNT:
        break;
    }
    return false;
}

bool kt_gguf_text(const kt_gguf_value *value, kt_str *out) {
    if (value == NULL || value->kind != KT_GGUF_TEXT) return false;
    *out = (kt_str){value->at + 8, (size_t)load(value->at, 8)};
    return true;
}

const char *kt_gguf_describe(kt_arena *arena, const kt_gguf_value *value) {
    kt_str text;
    kt_value number;
    if (value == NULL) return "nothing";
    if (kt_gguf_text(value, &text))
        return kt_arena_printf(arena, "the text '%.*s'", (int)(text.n < 60 ? text.n : 60), text.at);
    if (value->kind == KT_GGUF_LIST)
        return kt_arena_printf(
            arena, "a list of %" PRId64 " of %s", value->n, kinds[value->item_kind].name);
    if (!kt_gguf_number(value, &number))
        return kt_arena_printf(arena, "a %s beyond all use", kinds[value->kind].name);
    if (number.is_real) return kt_arena_printf(arena, "the number %g", number.r);
    return kt_arena_printf(arena, "the number %" PRId64, number.i);
}

kt_gguf_walk kt_gguf_items(const kt_gguf_value *list) {
    if (list == NULL || list->kind != KT_GGUF_LIST) return (kt_gguf_walk){0};
    return (kt_gguf_walk){list->item_kind, list->n, list->at};
}

// Bytes of a value whose header has been checked.
static size_t size_of(const kt_gguf_value *value) {
    if (value->kind == KT_GGUF_TEXT) return 8 + (size_t)load(value->at, 8);
    if (value->kind != KT_GGUF_LIST) return (size_t)kinds[value->kind].bytes;
    kt_gguf_walk walk = kt_gguf_items(value); // at most NEST_MAX deep
    kt_gguf_value item;
    while (kt_gguf_next(&walk, &item)) {
    }
    return (size_t)(walk.at - value->at) + 12;
}

bool kt_gguf_next(kt_gguf_walk *walk, kt_gguf_value *item) {
    if (walk->left == 0) return false;
    walk->left--;
    *item = (kt_gguf_value){.kind = walk->kind, .at = walk->at};
    if (walk->kind == KT_GGUF_LIST) {
        item->item_kind = (kt_gguf_kind)load(walk->at, 4);
        item->n = (int64_t)load(walk->at + 4, 8);
        item->at = walk->at + 12;
    }
    walk->at += size_of(item);
    return true;
}
