// Weights of op tests in GGML's types: blocks that hold given numbers as well as they can, and the
// GGUF file around them. Scales of the K types are small integers times a power of two, so that f16
// holds every product of them.
#include "runtime/exec/op_check_parts.h"

#include "runtime/base/f16.h"

#include <math.h>
#include <string.h>

// ---- blocks
// source: ggml, src/ggml-common.h (block_*)

static void put_half(uint8_t *at, double v) {
    uint16_t bits = kt_f32_to_f16((float)v);
    memcpy(at, &bits, sizeof bits);
}

static double get_half(const uint8_t *at) {
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return (double)kt_f16_to_f32(bits);
}

static int whole(double v, int low, int high) {
    double x = nearbyint(v);
    if (!(x > low)) return low; // NaN too
    return x < high ? (int)x : high;
}

static void range_of(const float *v, int n, double *low, double *high) {
    *low = *high = (double)v[0];
    for (int i = 1; i < n; i++) {
        *low = fmin(*low, (double)v[i]);
        *high = fmax(*high, (double)v[i]);
    }
}

// The least power of two that is not below v; of 0 a small one.
static double power_of_two(double v) {
    return v > 0 ? fmax(exp2(ceil(log2(v))), 0x1p-14) : 0x1p-14;
}

static void make_q8_0(const float *v, uint8_t *block) {
    double low, high;
    range_of(v, 32, &low, &high);
    put_half(block, fmax(-low, high) / 127);
    double d = get_half(block);
    for (int i = 0; i < 32; i++)
        block[2 + i] = (uint8_t)(d > 0 ? whole((double)v[i] / d, -128, 127) : 0);
}

// Q4_0 (bytes 18), Q4_1 (20), Q5_0 (22) and Q5_1 (24).
static void make_q4(const float *v, int bytes, uint8_t *block) {
    double low, high, min;
    bool has_min = bytes == 20 || bytes == 24;
    int top = bytes < 22 ? 15 : 31, middle = (top + 1) / 2;
    range_of(v, 32, &low, &high);
    put_half(block, has_min ? (high - low) / top : fmax(-low / middle, high / (middle - 1)));
    double d = get_half(block);
    if (has_min) put_half(block + 2, low);
    min = has_min ? get_half(block + 2) : -middle * d;
    for (int i = 0; i < 32; i++) {
        int q = d > 0 ? whole(((double)v[i] - min) / d, 0, top) : 0;
        block[bytes - 16 + i % 16] |= (uint8_t)((q & 15) << i / 16 * 4);
        if (bytes >= 22) block[bytes - 20 + i / 8] |= (uint8_t)(q >> 4 << i % 8);
    }
}

// Six bits each of 8 scales and 8 minima.
static void pack_scales(const int *scales, const int *mins, uint8_t *packed) {
    for (int j = 0; j < 4; j++) {
        packed[j] = (uint8_t)(scales[j] | scales[j + 4] >> 4 << 6);
        packed[j + 4] = (uint8_t)(mins[j] | mins[j + 4] >> 4 << 6);
        packed[j + 8] = (uint8_t)((scales[j + 4] & 15) | (mins[j + 4] & 15) << 4);
    }
}

// Q4_K (bits 4) and Q5_K (5).
static void make_k(const float *v, int bits, uint8_t *block) {
    double low[8], high[8], most = 0, least = 0;
    int scales[8], mins[8], top = (1 << bits) - 1;
    uint8_t *codes = block + (bits == 5 ? 48 : 16);
    for (int j = 0; j < 8; j++) {
        range_of(v + 32 * (ptrdiff_t)j, 32, &low[j], &high[j]);
        low[j] = fmin(low[j], 0);
        most = fmax(most, (high[j] - low[j]) / top);
        least = fmax(least, -low[j]);
    }
    double d = power_of_two(most / 63), dmin = power_of_two(least / 63);
    put_half(block, d);
    put_half(block + 2, dmin);
    for (int j = 0; j < 8; j++) {
        scales[j] = whole((high[j] - low[j]) / top / d, 1, 63);
        mins[j] = whole(-low[j] / dmin, 0, 63);
        for (int l = 0; l < 32; l++) {
            int q = whole(((double)v[32 * j + l] + dmin * mins[j]) / (d * scales[j]), 0, top);
            codes[j / 2 * 32 + l] |= (uint8_t)((q & 15) << j % 2 * 4);
            if (bits == 5) block[16 + l] |= (uint8_t)(q >> 4 << j);
        }
    }
    pack_scales(scales, mins, block + 4);
}

static void make_q6_k(const float *v, uint8_t *block) {
    double top[16], most = 0, low, high;
    for (int j = 0; j < 16; j++) {
        range_of(v + 16 * (ptrdiff_t)j, 16, &low, &high);
        top[j] = fmax(-low, high) / 31;
        most = fmax(most, top[j]);
    }
    double d = power_of_two(most / 127);
    put_half(block + 208, d);
    for (int j = 0; j < 16; j++) { // every other one negative
        int scale = whole(top[j] / d, 1, 127);
        block[192 + j] = (uint8_t)(j % 2 ? -scale : scale);
    }
    for (int i = 0; i < 256; i++) {
        int half = i / 128, part = i / 32 % 4, l = i % 32;
        int q = whole((double)v[i] / (d * (int8_t)block[192 + i / 16]), -32, 31) + 32;
        block[64 * half + part % 2 * 32 + l] |= (uint8_t)((q & 15) << part / 2 * 4);
        block[128 + 32 * half + l] |= (uint8_t)(q >> 4 << 2 * part);
    }
}

static void make_block(const kt_check_ggml *type, const float *v, uint8_t *block) {
    memset(block, 0, (size_t)type->bytes);
    switch (type->bytes) {
    case 34:
        make_q8_0(v, block);
        return;
    case 144:
        make_k(v, 4, block);
        return;
    case 176:
        make_k(v, 5, block);
        return;
    case 210:
        make_q6_k(v, block);
        return;
    default:
        make_q4(v, type->bytes, block);
        return;
    }
}

// ---- the file
// source: docs/gguf.md of ggml-org/ggml, version 3

enum { ALIGN = 32 };

static void add_number(kt_buf *out, uint64_t v, int bytes) {
    unsigned char little[8];
    for (int i = 0; i < 8; i++) little[i] = (unsigned char)(v >> (8 * i));
    kt_buf_add(out, little, (size_t)bytes);
}

static void add_text(kt_buf *out, const char *text) {
    add_number(out, strlen(text), 8);
    kt_buf_add(out, text, strlen(text));
}

static void pad(kt_buf *out) {
    while (out->n % ALIGN != 0) kt_buf_add(out, "", 1);
}

void kt_check_gguf_add(kt_check_gguf *file, kt_arena *arena, const char *name,
    const kt_check_ggml *type, const float *values, const int64_t shape[2]) {
    add_text(&file->table, name);
    add_number(&file->table, 2, 4);
    add_number(&file->table, (uint64_t)shape[1], 8); // the fastest axis first
    add_number(&file->table, (uint64_t)shape[0], 8);
    add_number(&file->table, (uint64_t)type->number, 4);
    add_number(&file->table, file->data.n, 8);
    file->n++;
    uint8_t *block = kt_arena_alloc(arena, (size_t)type->bytes);
    for (int64_t i = 0; i < shape[0] * shape[1]; i += type->weights) {
        make_block(type, values + i, block);
        kt_buf_add(&file->data, block, (size_t)type->bytes);
    }
    pad(&file->data);
}

void kt_check_gguf_print(const kt_check_gguf *file, kt_buf *out) {
    kt_buf_add(out, "GGUF", 4);
    add_number(out, 3, 4);
    add_number(out, (uint64_t)file->n, 8);
    add_number(out, 1, 8); // one key
    add_text(out, "general.architecture");
    add_number(out, 8, 4); // a text
    add_text(out, "check");
    if (file->table.n > 0) kt_buf_add(out, file->table.at, file->table.n);
    pad(out);
    if (file->data.n > 0) kt_buf_add(out, file->data.at, file->data.n);
}

void kt_check_gguf_deinit(kt_check_gguf *file) {
    kt_buf_deinit(&file->table);
    kt_buf_deinit(&file->data);
}
