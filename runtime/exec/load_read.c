// Fills pieces of images: reads ranges of stored tensors, puts rows in order, widens vectors, looks
// at numbers.
#include "runtime/exec/load_parts.h"

#include <inttypes.h>
#include <string.h>

// One segment while a piece is filled.
typedef struct filling {
    kt_load_fill *fill;
    const kt_load_segment *s;
    kt_load_scan *scan;
    int64_t width, wide; // bytes of a number, stored and in the image
    kt_gguf_halves halves;
} filling;

static kt_status refuse(const filling *f, int64_t index, const void *number, kt_err *err) {
    const kt_stored *stored = f->s->stored;
    const char *path = f->fill->checkpoint->files[stored->file].path;
    float value;
    kt_load_widen(stored->dtype, number, &value, 1);
    if (value - value != 0) // infinite, or no number
        return KT_FAIL(err, KT_EMODEL,
            "%s: tensor '%.*s' holds %s at index %" PRId64
            "; the file is damaged, download it again",
            path, KT_STR_ARG(stored->name),
            value > 0   ? "infinity"
            : value < 0 ? "minus infinity"
                        : "no number",
            index);
    return KT_FAIL(err, KT_EMODEL,
        "%s: tensor '%.*s' holds %g at index %" PRId64
        ", which f16 cannot hold (largest 65504); this checkpoint needs a format that keeps it",
        path, KT_STR_ARG(stored->name), (double)value, index);
}

// Numbers in the scratch memory to their place.
static void put_numbers(const filling *f, char *out, int64_t n) {
    if (f->s->widen)
        kt_load_widen(f->s->stored->dtype, f->fill->scratch, (float *)(void *)out, n);
    else
        memcpy(out, f->fill->scratch, (size_t)(n * f->width));
}

// Looks at n numbers that begin at this index of the tensor, in runs of `run` that lie twice as far
// apart in it.
static kt_status look_at(
    filling *f, int64_t index, const char *numbers, int64_t n, int64_t run, kt_err *err) {
    int64_t bad = kt_load_look(f->s->stored->dtype, f->s->f16, numbers, n, f->scan);
    if (bad < 0) return KT_OK;
    return refuse(f, index + bad + bad / run * run, numbers + bad * f->width, err);
}

// The same for the scales of blocks: bytes that begin `from` bytes into the tensor, in runs of
// `run` bytes (whole blocks).
static kt_status look_at_blocks(
    const filling *f, int64_t from, const char *bytes, int64_t n, int64_t run, kt_err *err) {
    int64_t bad = kt_load_look_blocks(&f->halves, from, bytes, n);
    if (bad < 0) return KT_OK;
    const kt_stored *stored = f->s->stored;
    int64_t per_run = run / f->halves.block;
    int64_t block = from / f->halves.block + bad + bad / per_run * per_run;
    return KT_FAIL(err, KT_EMODEL,
        "%s: tensor '%.*s' has a scale that is no number, or infinite, in block %" PRId64
        " (%.*s); the file is damaged, download it again",
        f->fill->checkpoint->files[stored->file].path, KT_STR_ARG(stored->name), block,
        KT_STR_ARG(stored->type));
}

// Bytes of the tensor from `offset` within the weight's rows.
static kt_status read_raw(filling *f, int64_t offset, void *out, int64_t size, kt_err *err) {
    f->fill->bytes += size;
    return kt_checkpoint_read(
        f->fill->checkpoint, f->s->stored, f->s->first + offset, out, size, err);
}

// The same, and looks at numbers.
static kt_status read_bytes(filling *f, int64_t offset, char *out, int64_t size, kt_err *err) {
    bool plain = kt_dtype_is_float(f->s->stored->dtype);
    if (!plain && f->halves.n == 0) return read_raw(f, offset, out, size, err);
    int64_t most = KT_LOAD_SCRATCH; // what is looked at is still in the cache
    for (int64_t done = 0; done < size; done += most) {
        int64_t n = size - done < most ? size - done : most;
        KT_TRY(read_raw(f, offset + done, out + done, n, err));
        int64_t from = f->s->first + offset + done;
        KT_TRY(plain ? look_at(f, from / f->width, out + done, n / f->width, n, err)
                     : look_at_blocks(f, from, out + done, n, INT64_MAX, err));
    }
    return KT_OK;
}

// `size` image bytes from those stored at `offset`, in their order.
static kt_status read_plain(filling *f, int64_t offset, char *out, int64_t size, kt_err *err) {
    if (!f->s->widen) return read_bytes(f, offset, out, size, err);
    const int64_t most = KT_LOAD_SCRATCH / f->width, n = size / f->wide;
    for (int64_t done = 0; done < n; done += most) {
        int64_t count = n - done < most ? n - done : most;
        KT_TRY(read_bytes(f, offset + done * f->width, f->fill->scratch, count * f->width, err));
        put_numbers(f, out + done * f->wide, count);
    }
    return KT_OK;
}

// ---- heads stored for interleaved RoPE

static int64_t stored_row(const kt_weight *weight, int64_t row) {
    int64_t hd = weight->interleave, in = row % hd;
    return row - in + in % (hd / 2) * 2 + in / (hd / 2);
}

// Whole rows of one half of a head, which are every other stored row: all are read in one go.
static kt_status read_half(filling *f, int64_t row, int64_t rows, char *out, kt_err *err) {
    const int64_t in = f->s->row_size, stored = stored_row(f->s->weight, row) * in;
    char *scratch = f->fill->scratch;
    KT_TRY(read_raw(f, stored, scratch, (2 * rows - 1) * in, err));
    for (int64_t r = 1; r < rows; r++) memmove(scratch + r * in, scratch + 2 * r * in, (size_t)in);
    int64_t n = rows * in / f->width;
    int64_t from = f->s->first + stored;
    if (kt_dtype_is_float(f->s->stored->dtype))
        KT_TRY(look_at(f, from / f->width, scratch, n, in / f->width, err));
    else if (f->halves.n > 0)
        KT_TRY(look_at_blocks(f, from, scratch, rows * in, in, err));
    put_numbers(f, out, n);
    return KT_OK;
}

static kt_status read_interleaved(filling *f, int64_t from, char *out, int64_t size, kt_err *err) {
    const kt_weight *weight = f->s->weight;
    const int64_t in = f->s->row_size, row_size = in / f->width * f->wide;
    while (size > 0) {
        int64_t row = f->s->row + from / row_size, at = from % row_size, n = row_size - at;
        int64_t half = weight->interleave / 2, rows = half - row % half;
        if (rows > KT_LOAD_SCRATCH / in / 2) rows = KT_LOAD_SCRATCH / in / 2;
        if (rows > size / row_size) rows = size / row_size;
        if (at > 0 || rows < 1) { // a part of a row
            if (n > size) n = size;
            int64_t skip = at / f->wide * f->width;
            KT_TRY(read_plain(f, stored_row(weight, row) * in + skip, out, n, err));
        } else {
            KT_TRY(read_half(f, row, rows, out, err));
            n = rows * row_size;
        }
        from += n;
        out += n;
        size -= n;
    }
    return KT_OK;
}

// ---- weights [n, k] stored as [k, n]

// Of stored row c, the numbers that lie between two numbers of the segment: column c of some of the
// weight's rows.
static kt_status read_column(
    filling *f, int64_t c, const int64_t range[2], char *out, kt_err *err) {
    const int64_t n = f->s->weight->shape[0], k = f->s->weight->shape[1], w = f->width;
    const int64_t most = KT_LOAD_SCRATCH / w;
    char *scratch = f->fill->scratch;
    int64_t row = range[0] > c ? (range[0] - c + k - 1) / k : 0; // the first
    int64_t end = range[1] > c ? (range[1] - c + k - 1) / k : 0; // behind the last
    for (; row < end; row += most) {
        int64_t rows = end - row < most ? end - row : most;
        KT_TRY(read_bytes(f, (c * n + f->s->row + row) * w, scratch, rows * w, err));
        for (int64_t r = 0; r < rows; r++) {
            char *at = out + ((row + r) * k + c - range[0]) * f->wide;
            if (f->s->widen)
                kt_load_widen(f->s->stored->dtype, scratch + r * w, (float *)(void *)at, 1);
            else
                memcpy(at, scratch + r * w, (size_t)w);
        }
    }
    return KT_OK;
}

static kt_status read_turned(filling *f, int64_t from, char *out, int64_t size, kt_err *err) {
    const int64_t range[2] = {from / f->wide, (from + size) / f->wide};
    for (int64_t c = 0; c < f->s->weight->shape[1]; c++) KT_TRY(read_column(f, c, range, out, err));
    return KT_OK;
}

// ---- pieces

// Bytes `from` to `to` of a segment.
static kt_status fill_segment(filling *f, int64_t from, int64_t to, char *out, kt_err *err) {
    const kt_load_segment *s = f->s;
    if (s->memory) {
        memcpy(out, (const char *)s->memory + from, (size_t)(to - from));
        return KT_OK;
    }
    f->width = kt_dtype_bytes(s->stored->dtype);
    f->halves = kt_gguf_type_halves(s->stored->ggml_type);
    f->wide = s->widen ? (int64_t)sizeof(float) : f->width;
    const kt_weight *weight = s->weight;
    if (weight->transposed && weight->rank == 2) return read_turned(f, from, out, to - from, err);
    if (weight->interleave > 0) return read_interleaved(f, from, out, to - from, err);
    int64_t in = from / f->wide * f->width;
    return read_plain(f, s->row * s->row_size + in, out, to - from, err);
}

kt_status kt_load_fill_chunk(kt_load_fill *fill, kt_err *err) {
    const kt_load_chunk *chunk = fill->chunk;
    for (int i = 0; i < chunk->n_segments; i++) {
        const kt_load_segment *s = &fill->list->segments.at[chunk->segment + i];
        filling f = {.fill = fill, .s = s, .scan = &fill->scans[i]};
        int64_t from = chunk->from > s->at ? chunk->from : s->at;
        int64_t to = s->at + s->bytes < chunk->to ? s->at + s->bytes : chunk->to;
        kt_status status =
            fill_segment(&f, from - s->at, to - s->at, fill->to + (from - chunk->from), err);
        if (status == KT_OK) continue;
        if (s->weight) kt_err_note(err, "while loading weight '%.*s'", KT_STR_ARG(s->weight->name));
        return status;
    }
    return KT_OK;
}
