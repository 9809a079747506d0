#include "loader/npy.h"

#include "runtime/base/f16.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAGIC_BYTES = 6, CHUNK = 16384 };

static const char magic[MAGIC_BYTES] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

// NumPy's names without the byte order.
static const struct {
    const char *name;
    kt_dtype dtype;
} types[] = {
    {"f4", KT_DTYPE_F32},
    {"f2", KT_DTYPE_F16},
    {"i8", KT_DTYPE_I64},
    {"i4", KT_DTYPE_I32},
    {"i2", KT_DTYPE_I16},
    {"i1", KT_DTYPE_I8},
    {"u4", KT_DTYPE_U32},
    {"u2", KT_DTYPE_U16},
    {"u1", KT_DTYPE_U8},
};

enum { N_TYPES = sizeof types / sizeof types[0] };

static const char *type_name(kt_dtype dtype) {
    for (int i = 0; i < N_TYPES; i++)
        if (types[i].dtype == dtype) return types[i].name;
    return NULL;
}

bool kt_npy_holds(kt_dtype dtype) {
    return type_name(dtype) != NULL;
}

void kt_npy_print_shape(int rank, const int64_t *shape, kt_buf *out) {
    kt_buf_printf(out, "[");
    for (int i = 0; i < rank; i++) kt_buf_printf(out, "%s%" PRId64, i ? ", " : "", shape[i]);
    kt_buf_printf(out, "]");
}

// ---- the header: a dictionary as Python writes it

typedef struct reader {
    kt_str text;
    size_t at;
    const char *name;
    kt_err *err;
} reader;

static kt_status broken(const reader *r, const char *what) {
    return KT_FAIL(
        r->err, KT_EFORMAT, "%s: %s at byte %zu of its header", r->name, what, r->at + 1);
}

static char peek(const reader *r) {
    if (r->at >= r->text.n) return 0;
    return r->text.at[r->at];
}

static void skip_blanks(reader *r) {
    while (peek(r) == ' ' || peek(r) == '\n' || peek(r) == '\t') r->at++;
}

static kt_status take(reader *r, char c) {
    char what[32];
    snprintf(what, sizeof what, "a '%c' is missing", c);
    skip_blanks(r);
    if (peek(r) != c) return broken(r, what);
    r->at++;
    skip_blanks(r);
    return KT_OK;
}

static kt_status take_text(reader *r, kt_str *out) {
    char quote = peek(r);
    if (quote != '\'' && quote != '"') return broken(r, "a text in quotes is missing");
    size_t from = ++r->at;
    while (peek(r) && peek(r) != quote) r->at++;
    if (!peek(r)) return broken(r, "a text never ends");
    *out = kt_str_slice(r->text, from, r->at);
    r->at++;
    return KT_OK;
}

static kt_status take_word(reader *r, kt_str *out) {
    size_t from = r->at;
    while ((peek(r) >= 'a' && peek(r) <= 'z') || (peek(r) >= 'A' && peek(r) <= 'Z')) r->at++;
    *out = kt_str_slice(r->text, from, r->at);
    return KT_OK;
}

static kt_status take_size(reader *r, int64_t *out) {
    size_t from = r->at;
    while (peek(r) >= '0' && peek(r) <= '9') r->at++;
    if (r->at == from) return broken(r, "a size is missing");
    if (!kt_str_to_i64(kt_str_slice(r->text, from, r->at), out))
        return broken(r, "a size is too large");
    return KT_OK;
}

static kt_status take_shape(reader *r, kt_npy_head *out) {
    KT_TRY(take(r, '('));
    while (peek(r) != ')') {
        if (out->rank == KT_MAX_RANK)
            return KT_FAIL(
                r->err, KT_EFORMAT, "%s: more than %d axes are not read", r->name, KT_MAX_RANK);
        KT_TRY(take_size(r, &out->shape[out->rank++]));
        skip_blanks(r);
        if (peek(r) != ')') KT_TRY(take(r, ','));
    }
    r->at++;
    return KT_OK;
}

static kt_status take_dtype(reader *r, kt_npy_head *out) {
    kt_str text;
    if (peek(r) == '[')
        return KT_FAIL(r->err, KT_EFORMAT,
            "%s: records with named fields are not read; save each field as a file of its own",
            r->name);
    KT_TRY(take_text(r, &text));
    bool little = text.n > 0 && text.at[0] == '<';
    kt_str kind = kt_str_slice(text, text.n > 0 ? 1 : 0, text.n);
    for (int i = 0; i < N_TYPES; i++) {
        if (!kt_str_is(kind, types[i].name)) continue;
        out->dtype = types[i].dtype;
        if (little || kt_dtype_bytes(out->dtype) == 1) return KT_OK;
        return KT_FAIL(r->err, KT_EFORMAT,
            "%s: the numbers are '%.*s', and only little-endian ones are read; save "
            "array.astype('<%s')",
            r->name, KT_STR_ARG(text), types[i].name);
    }
    return KT_FAIL(r->err, KT_EFORMAT,
        "%s: numbers of type '%.*s' are not read; save float32, float16, int64, int32, int16, "
        "int8, uint32, uint16 or uint8",
        r->name, KT_STR_ARG(text));
}

static kt_status take_order(reader *r) {
    kt_str word;
    KT_TRY(take_word(r, &word));
    if (kt_str_is(word, "False")) return KT_OK;
    if (!kt_str_is(word, "True")) return broken(r, "True or False is missing");
    return KT_FAIL(r->err, KT_EFORMAT,
        "%s: its order is Fortran's (columns first); save numpy.ascontiguousarray(array)", r->name);
}

static kt_status take_dictionary(reader *r, kt_npy_head *out) {
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    bool seen[3] = {false};
    KT_TRY(take(r, '{'));
    while (peek(r) != '}') {
        kt_str key = KT_STR("");
        KT_TRY(take_text(r, &key));
        int which = 0;
        while (which < 3 && !kt_str_is(key, keys[which])) which++;
        if (which == 3) return broken(r, "an unknown key");
        if (seen[which]) return broken(r, "a key stands twice");
        seen[which] = true;
        KT_TRY(take(r, ':'));
        if (which == 0) KT_TRY(take_dtype(r, out));
        if (which == 1) KT_TRY(take_order(r));
        if (which == 2) KT_TRY(take_shape(r, out));
        skip_blanks(r);
        if (peek(r) != '}') KT_TRY(take(r, ','));
    }
    r->at++;
    skip_blanks(r);
    if (r->at != r->text.n) return broken(r, "something follows the dictionary");
    for (int i = 0; i < 3; i++)
        if (!seen[i])
            return KT_FAIL(r->err, KT_EFORMAT, "%s: its header lacks '%s'", r->name, keys[i]);
    return KT_OK;
}

static kt_status check_sizes(const char *name, int64_t file_bytes, kt_npy_head *out, kt_err *err) {
    out->n = 1;
    bool fits = true;
    for (int i = 0; i < out->rank; i++) fits = fits && kt_mul(out->n, out->shape[i], &out->n);
    fits = fits && kt_mul(out->n, kt_dtype_bytes(out->dtype), &out->data_bytes);
    if (!fits) return KT_FAIL(err, KT_EFORMAT, "%s: its shape is larger than any memory", name);
    int64_t there = file_bytes - out->data_at;
    if (there == out->data_bytes) return KT_OK;
    return KT_FAIL(err, KT_EFORMAT,
        "%s: its header tells of %" PRId64 " bytes of numbers, and %" PRId64
        " follow; the file is %s",
        name, out->data_bytes, there, there < out->data_bytes ? "cut short" : "damaged");
}

kt_status kt_npy_parse(
    kt_str start, int64_t file_bytes, const char *name, kt_npy_head *out, kt_err *err) {
    *out = (kt_npy_head){0};
    const unsigned char *at = (const unsigned char *)start.at;
    if (start.n < MAGIC_BYTES + 4 || memcmp(start.at, magic, MAGIC_BYTES) != 0)
        return KT_FAIL(err, KT_EFORMAT, "%s: this is no .npy file", name);
    int version = at[MAGIC_BYTES];
    if (version != 1 && version != 2)
        return KT_FAIL(err, KT_EFORMAT, "%s: version %d of the format is not read, only 1 and 2",
            name, version);
    size_t fixed = version == 1 ? MAGIC_BYTES + 4 : MAGIC_BYTES + 6;
    if (start.n < fixed) return KT_FAIL(err, KT_EFORMAT, "%s: the header is cut short", name);
    size_t length = at[8] | (size_t)at[9] << 8;
    if (version == 2) length |= (size_t)at[10] << 16 | (size_t)at[11] << 24;
    if (length > KT_NPY_HEADER_MAX - 12)
        return KT_FAIL(err, KT_EFORMAT,
            "%s: its header claims %zu bytes, more than the %d that are read", name, length,
            KT_NPY_HEADER_MAX - 12);
    if (start.n - fixed < length)
        return KT_FAIL(err, KT_EFORMAT, "%s: the header is cut short", name);
    out->data_at = (int64_t)(fixed + length);
    reader r = {kt_str_slice(start, fixed, fixed + length), 0, name, err};
    KT_TRY(take_dictionary(&r, out));
    return check_sizes(name, file_bytes, out, err);
}

// ---- reading

static kt_status read_head(kt_npy *npy, kt_err *err) {
    int64_t size = kt_os_size(npy->file);
    size_t n = size < KT_NPY_HEADER_MAX ? (size_t)size : KT_NPY_HEADER_MAX;
    char *start = malloc(n + 1);
    if (!start) kt_out_of_memory(n);
    kt_status status = kt_os_read_at(npy->file, 0, start, n, err);
    if (status == KT_OK)
        status = kt_npy_parse((kt_str){start, n}, size, npy->path, &npy->head, err);
    free(start);
    return status;
}

kt_status kt_npy_open(const char *path, kt_npy *out, kt_err *err) {
    *out = (kt_npy){.path = path};
    KT_TRY(kt_os_open(path, &out->file, err));
    kt_status status = read_head(out, err);
    if (status != KT_OK) kt_npy_close(out);
    return status;
}

void kt_npy_close(kt_npy *npy) {
    if (npy->file) kt_os_close(npy->file);
    npy->file = NULL;
}

kt_status kt_npy_read(const kt_npy *npy, int64_t first, int64_t n, void *out, kt_err *err) {
    KT_ASSERT(first >= 0 && n >= 0 && first <= npy->head.n - n);
    int64_t word = kt_dtype_bytes(npy->head.dtype);
    return kt_os_read_at(npy->file, npy->head.data_at + first * word, out, (size_t)(n * word), err);
}

static double number(kt_dtype dtype, const void *from, int64_t i) {
    switch (dtype) {
    case KT_DTYPE_F32:
        return (double)((const float *)from)[i];
    case KT_DTYPE_F16:
        return (double)kt_f16_to_f32(((const uint16_t *)from)[i]);
    case KT_DTYPE_I64:
        return (double)((const int64_t *)from)[i];
    case KT_DTYPE_I32:
        return (double)((const int32_t *)from)[i];
    case KT_DTYPE_I16:
        return (double)((const int16_t *)from)[i];
    case KT_DTYPE_I8:
        return (double)((const int8_t *)from)[i];
    case KT_DTYPE_U32:
        return (double)((const uint32_t *)from)[i];
    case KT_DTYPE_U16:
        return (double)((const uint16_t *)from)[i];
    case KT_DTYPE_U8:
        return (double)((const uint8_t *)from)[i];
    case KT_DTYPE_BF16:
    case KT_DTYPE_F8E4M3:
    case KT_DTYPE_F8E5M2:
    case KT_DTYPE_COUNT:
        break;
    }
    KT_ASSERT(false && "a .npy file holds this type");
    return 0;
}

void kt_npy_to_f64(kt_dtype dtype, const void *from, int64_t n, double *out) {
    for (int64_t i = 0; i < n; i++) out[i] = number(dtype, from, i);
}

kt_status kt_npy_read_f64(const kt_npy *npy, int64_t first, int64_t n, double *out, kt_err *err) {
    int64_t buffer[CHUNK]; // aligned for every type
    for (int64_t done = 0; done < n;) {
        int64_t take_n = n - done < CHUNK ? n - done : CHUNK;
        KT_TRY(kt_npy_read(npy, first + done, take_n, buffer, err));
        kt_npy_to_f64(npy->head.dtype, buffer, take_n, out + done);
        done += take_n;
    }
    return KT_OK;
}

// ---- writing

static void write_head(kt_dtype dtype, int rank, const int64_t *shape, kt_buf *out) {
    kt_buf_printf(out, "{'descr': '%s%s', 'fortran_order': False, 'shape': (",
        kt_dtype_bytes(dtype) == 1 ? "|" : "<", type_name(dtype));
    for (int i = 0; i < rank; i++)
        kt_buf_printf(
            out, "%s%" PRId64 "%s", i ? " " : "", shape[i], rank == 1 || i + 1 < rank ? "," : "");
    kt_buf_printf(out, "), }");
    while ((MAGIC_BYTES + 4 + out->n + 1) % 64 != 0) kt_buf_add(out, " ", 1);
    kt_buf_add(out, "\n", 1);
}

static bool write_all(FILE *file, const kt_buf *head, const void *data, size_t bytes) {
    const unsigned char fixed[4] = {
        1, 0, (unsigned char)(head->n & 255), (unsigned char)(head->n >> 8)};
    return fwrite(magic, 1, MAGIC_BYTES, file) == MAGIC_BYTES && fwrite(fixed, 1, 4, file) == 4 &&
           fwrite(head->at, 1, head->n, file) == head->n &&
           (bytes == 0 || fwrite(data, 1, bytes, file) == bytes);
}

kt_status kt_npy_write(const char *path, kt_dtype dtype, int rank, const int64_t *shape,
    const void *data, kt_err *err) {
    KT_ASSERT(kt_npy_holds(dtype) && rank <= KT_MAX_RANK);
    size_t bytes = (size_t)kt_dtype_bytes(dtype);
    for (int i = 0; i < rank; i++) bytes *= (size_t)shape[i];
    FILE *file = kt_os_fopen(path, "wb");
    if (!file) return KT_FAIL(err, KT_EFILE, "'%s' cannot be written: %s", path, strerror(errno));
    kt_buf head = {0};
    write_head(dtype, rank, shape, &head);
    bool ok = write_all(file, &head, data, bytes);
    ok = fclose(file) == 0 && ok;
    kt_buf_deinit(&head);
    if (ok) return KT_OK;
    return KT_FAIL(err, KT_EFILE, "'%s' cannot be written: is the disk full?", path);
}
