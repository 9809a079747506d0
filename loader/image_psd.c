// Photoshop files: the merged picture behind the layers. Source: Adobe Photoshop File Formats
// Specification, sections "File Header" and "Image Data".
#include "loader/image_parts.h"

#include "runtime/base/os.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 26, MAX_CHANNELS = 56, GREY = 1, RGB = 3 };

typedef struct psd {
    const uint8_t *at;
    size_t n, pos;
    int channels, depth, mode;
    int64_t height, width;
} psd;

static uint32_t big(const uint8_t *p, int bytes) {
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++) v = v << 8 | p[i];
    return v;
}

// The next n bytes, or NULL if there are fewer.
static const uint8_t *take(psd *f, size_t n) {
    if (n > f->n - f->pos) return NULL;
    f->pos += n;
    return f->at + f->pos - n;
}

static kt_status read_head(kt_image_job *job, psd *f) {
    const uint8_t *p = take(f, HEAD_BYTES);
    if (p == NULL) return kt_image_cut(job);
    if (big(p + 4, 2) != 1)
        return KT_FAIL(job->err, KT_EIMAGE,
            "'%s' is a large-document PSD (PSB), which is not read; save it as PNG",
            job->source.name);
    f->channels = (int)big(p + 12, 2);
    f->height = big(p + 14, 4);
    f->width = big(p + 18, 4);
    f->depth = (int)big(p + 22, 2);
    f->mode = (int)big(p + 24, 2);
    if (f->channels < 1 || f->channels > MAX_CHANNELS)
        return kt_image_broken(job, "it has no channels, or far too many");
    bool known = (f->mode == GREY || (f->mode == RGB && f->channels >= 3)) &&
                 (f->depth == 8 || f->depth == 16);
    if (known) return KT_OK;
    return KT_FAIL(job->err, KT_EIMAGE,
        "'%s' is a PSD of colour mode %d with %d channels of %d bit; RGB and grey of 8 or 16 bit "
        "are read; save it as PNG",
        job->source.name, f->mode, f->channels, f->depth);
}

// One row of a channel, packed, to `bytes` plain bytes. false if it holds more or fewer.
static bool unpack_row(const uint8_t *in, size_t n, uint8_t *out, size_t bytes) {
    size_t from = 0, to = 0;
    while (from < n) {
        int code = in[from++]; // below 128: code + 1 bytes follow; above: a byte 257 - code times
        size_t run = code < 128 ? (size_t)code + 1 : 257 - (size_t)code;
        if (code == 128) continue;
        if (run > bytes - to) return false;
        if (code < 128) {
            if (run > n - from) return false;
            memcpy(out + to, in + from, run);
            from += run;
        } else {
            if (from == n) return false;
            memset(out + to, in[from++], run);
        }
        to += run;
    }
    return to == bytes;
}

// The high byte of each sample goes to one channel of the picture, or, if grey, to all.
static void put_row(const psd *f, const uint8_t *row, int channel, uint8_t *rgb) {
    int step = f->depth / 8;
    for (int64_t x = 0; x < f->width; x++)
        for (int c = 0; c < 3; c++)
            if (f->mode == GREY || c == channel) rgb[3 * x + c] = row[x * step];
}

// `counts`: the table of packed bytes by channel and row, NULL if the data is plain.
static kt_status read_rows(kt_image_job *job, psd *f, const uint8_t *counts, uint8_t *row) {
    size_t bytes = (size_t)f->width * (size_t)(f->depth / 8);
    int wanted = f->mode == GREY ? 1 : 3; // those behind, alpha among them, must only be there
    for (int channel = 0; channel < f->channels; channel++)
        for (int64_t y = 0; y < f->height; y++) {
            size_t n = counts ? big(counts + 2 * (channel * f->height + y), 2) : bytes;
            const uint8_t *in = take(f, n);
            if (in == NULL) return kt_image_cut(job);
            if (channel >= wanted) continue;
            if (counts && !unpack_row(in, n, row, bytes))
                return kt_image_broken(job, "a packed row does not have the picture's width");
            put_row(f, counts ? row : in, channel, job->out->rgb + 3 * y * f->width);
        }
    return KT_OK;
}

kt_status kt_image_read_psd(kt_image_job *job) {
    psd f = {.at = job->source.at, .n = job->source.n};
    KT_TRY(read_head(job, &f));
    for (int section = 0; section < 3; section++) { // palette, resources, layers
        const uint8_t *size = take(&f, 4);
        if (size == NULL || take(&f, big(size, 4)) == NULL) return kt_image_cut(job);
    }
    const uint8_t *kind = take(&f, 2);
    if (kind == NULL) return kt_image_cut(job);
    int packing = (int)big(kind, 2);
    if (packing > 1)
        return KT_FAIL(job->err, KT_EIMAGE,
            "'%s' is a PSD with compression %d, which is not read; save it as PNG",
            job->source.name, packing);
    KT_TRY(kt_image_alloc(job, f.height, f.width));
    const uint8_t *counts = NULL;
    if (packing == 1) {
        counts = take(&f, 2 * (size_t)f.channels * (size_t)f.height);
        if (counts == NULL) return kt_image_cut(job);
    }
    size_t bytes = (size_t)f.width * (size_t)(f.depth / 8);
    uint8_t *row = malloc(bytes + 1);
    if (row == NULL) kt_out_of_memory(bytes);
    kt_status status = read_rows(job, &f, counts, row);
    free(row);
    return status;
}
