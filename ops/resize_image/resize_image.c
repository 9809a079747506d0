// CPU implementation of ops/resize_image/op.yaml.
#include "ops/kt_cpu.h"

#include <stdbool.h>

// Layout of to.taps: loader/resize.h.
enum { OFFSETS = 4, HALF = 1 << 21, FIXED_BITS = 22, ROWS_AT_ONCE = 8 };

// Coefficients of one axis of one target.
typedef struct axis {
    int32_t n, taps;
    const int32_t *first, *count, *weight; // [n], [n], [n, taps]
} axis;

typedef struct pass {
    axis of;
    const uint8_t *in; // [.., in_width, 3]
    uint8_t *out;
    int64_t in_width, out_width; // pixels of a row
    int64_t from;                // across: source row of the first row of `out`
    bool is_copy;                // across: the width does not change
} pass;

static axis axis_at(const int32_t *taps, int32_t start, int32_t n, int32_t k) {
    const int32_t *table = taps + start;
    return (axis){n, k, table, table + n, table + 2 * (int64_t)n};
}

static uint8_t to_byte(int32_t sum) {
    int32_t v = sum >> FIXED_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static bool is_identity(const axis *a, int64_t n) {
    if (a->n != n || a->taps != 1) return false;
    for (int32_t i = 0; i < a->n; i++)
        if (a->first[i] != i || a->weight[i] != 1 << FIXED_BITS) return false;
    return true;
}

// Horizontal: rows begin .. end of the middle picture.
static void run_across(void *ctx, int64_t begin, int64_t end) {
    const pass *p = ctx;
    for (int64_t row = begin; row < end; row++) {
        const uint8_t *in = p->in + 3 * p->in_width * (p->from + row);
        uint8_t *out = p->out + 3 * p->out_width * row;
        if (p->is_copy) {
            memcpy(out, in, 3 * (size_t)p->out_width);
            continue;
        }
        const int32_t *weight = p->of.weight;
        for (int32_t i = 0; i < p->of.n; i++, weight += p->of.taps, out += 3) {
            const uint8_t *x = in + 3 * (int64_t)p->of.first[i];
            int32_t r = HALF, g = HALF, b = HALF, count = p->of.count[i];
            for (int32_t k = 0; k < count; k++, x += 3) {
                r += weight[k] * x[0];
                g += weight[k] * x[1];
                b += weight[k] * x[2];
            }
            out[0] = to_byte(r);
            out[1] = to_byte(g);
            out[2] = to_byte(b);
        }
    }
}

enum { STRIP = 512 }; // samples summed at once; their sums stay in the first-level cache

static void add_strip(int32_t *sum, const uint8_t *in, int32_t weight, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += weight * in[i];
}

// Vertical: rows begin .. end of the target, from the middle picture that starts at source row
// `from`.
static void run_down(void *ctx, int64_t begin, int64_t end) {
    const pass *p = ctx;
    int64_t n = 3 * p->out_width;
    int32_t sum[STRIP];
    for (int64_t row = begin; row < end; row++) {
        const int32_t *weight = p->of.weight + row * p->of.taps;
        const uint8_t *in = p->in + n * (p->of.first[row] - p->from);
        uint8_t *out = p->out + n * row;
        for (int64_t at = 0; at < n; at += STRIP) {
            int64_t wide = n - at < STRIP ? n - at : STRIP;
            for (int64_t i = 0; i < wide; i++) sum[i] = HALF;
            for (int32_t k = 0; k < p->of.count[row]; k++)
                add_strip(sum, in + n * k + at, weight[k], wide);
            for (int64_t i = 0; i < wide; i++) out[at + i] = to_byte(sum[i]);
        }
    }
}

// One target: only the source rows that the vertical pass reads go through the horizontal one.
static const char *resize(const kt_cpu_host *host, const uint8_t *rgb, int64_t width,
    const axis *cols, const axis *rows, uint8_t *y) {
    int64_t from = rows->first[0], end = 0;
    for (int32_t i = 0; i < rows->n; i++) {
        if (rows->first[i] < from) from = rows->first[i];
        if (rows->first[i] + rows->count[i] > end) end = rows->first[i] + rows->count[i];
    }
    uint8_t *mid = malloc(3 * (size_t)(end - from) * (size_t)cols->n);
    if (mid == NULL) return "resize_image: out of memory";
    pass across = {*cols, rgb, mid, width, cols->n, from, is_identity(cols, width)};
    host->parallel_for(host, end - from, ROWS_AT_ONCE, run_across, &across);
    pass down = {*rows, mid, NULL, cols->n, cols->n, from, false};
    down.out = y;
    host->parallel_for(host, rows->n, ROWS_AT_ONCE, run_down, &down);
    free(mid);
    return NULL;
}

static const char *run(const kt_cpu_call *call) {
    const uint8_t *rgb = kt_cpu_in(call, "rgb")->data;      // [px, 3]
    const int32_t *size = kt_cpu_in(call, "size")->data;    // [1, 2]
    const int32_t *to = kt_cpu_in(call, "to.size")->data;   // [m, 2]
    const int32_t *taps = kt_cpu_in(call, "to.taps")->data; // [t]
    uint8_t *y = kt_cpu_in(call, "y")->data;                // [out, 3]
    int64_t m = kt_cpu_dim(call, "m");
    for (int64_t i = 0; i < m; i++, to += 2) {
        const int32_t *offset = taps + OFFSETS * i;
        axis cols = axis_at(taps, offset[0], to[1], offset[2]);
        axis rows = axis_at(taps, offset[1], to[0], offset[3]);
        const char *problem = resize(call->host, rgb, size[1], &cols, &rows, y);
        if (problem != NULL) return problem;
        y += 3 * (int64_t)to[0] * to[1];
    }
    return NULL;
}

KT_CPU_OP("resize_image", run)
