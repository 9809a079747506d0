// Blocks of GGML's quantised types, for the C files of ops: what ptx/device/ggml.cuh is for
// kernels, and the place to read how the types are stored. A type is told by the bytes of its
// block.
#ifndef KT_GGML_H
#define KT_GGML_H

#include "ops/kt_cpu.h"

// One block: weight i is code[i] * scale[i / 16] + min[i / 16] in f32, each operation rounded.
typedef struct kt_ggml_block {
    int8_t code[256];
    float scale[16], min[16];
} kt_ggml_block;

// Weights of a block.
static inline int64_t kt_ggml_weights(int64_t bytes) {
    return bytes < 144 ? 32 : 256;
}

static inline float kt_ggml_half(const kt_cpu_host *host, const uint8_t *at) {
    uint16_t bits = (uint16_t)(at[0] | at[1] << 8);
    float out;
    host->f16_to_f32(&bits, &out, 1);
    return out;
}

// Codes of Q4_0, Q4_1, Q5_0 and Q5_1.
static inline void kt_ggml_codes(const uint8_t *block, int64_t bytes, int8_t *out) {
    const uint8_t *low = block + bytes - 16, *high = bytes < 22 ? NULL : low - 4;
    int least = bytes == 18 ? -8 : bytes == 22 ? -16 : 0;
    for (int i = 0; i < 32; i++) {
        int code = low[i % 16] >> (i / 16 * 4) & 15;
        if (high) code |= (high[i / 8] >> (i % 8) & 1) << 4;
        out[i] = (int8_t)(code + least);
    }
}

// Q4_K, and Q5_K if there are high bits.
static inline void kt_ggml_k(
    const kt_cpu_host *host, const uint8_t *block, const uint8_t *high, kt_ggml_block *out) {
    const uint8_t *packed = block + 4, *codes = high ? high + 32 : block + 16;
    float d = kt_ggml_half(host, block), dmin = kt_ggml_half(host, block + 2);
    for (int64_t j = 0; j < 8; j++) {
        int scale = packed[j] & 63, min = packed[j + 4] & 63;
        if (j >= 4) {
            scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
            min = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
        }
        out->scale[2 * j] = out->scale[2 * j + 1] = d * (float)scale;
        out->min[2 * j] = out->min[2 * j + 1] = -(dmin * (float)min);
        for (int64_t l = 0; l < 32; l++) {
            int code = codes[j / 2 * 32 + l] >> (j % 2 * 4) & 15;
            if (high) code |= (high[l] >> j & 1) << 4;
            out->code[32 * j + l] = (int8_t)code;
        }
    }
}

static inline void kt_ggml_q6_k(const kt_cpu_host *host, const uint8_t *block, kt_ggml_block *out) {
    float d = kt_ggml_half(host, block + 208);
    for (int j = 0; j < 16; j++) {
        out->scale[j] = d * (float)(int8_t)block[192 + j];
        out->min[j] = 0;
    }
    for (int i = 0; i < 256; i++) {
        int half = i / 128, part = i / 32 % 4, l = i % 32;
        int low = block[64 * half + part % 2 * 32 + l] >> (part / 2 * 4) & 15;
        int high = block[128 + 32 * half + l] >> (2 * part) & 3;
        out->code[i] = (int8_t)((low | high << 4) - 32);
    }
}

// `bytes`: of the block, as ggml.cuh lists them.
static inline void kt_ggml_decode(
    const kt_cpu_host *host, const uint8_t *block, int64_t bytes, kt_ggml_block *out) {
    if (bytes == 144) {
        kt_ggml_k(host, block, NULL, out);
    } else if (bytes == 176) {
        kt_ggml_k(host, block, block + 16, out);
    } else if (bytes == 210) {
        kt_ggml_q6_k(host, block, out);
    } else {
        out->scale[0] = out->scale[1] = kt_ggml_half(host, block);
        int has_min = bytes == 20 || bytes == 24;
        out->min[0] = out->min[1] = has_min ? kt_ggml_half(host, block + 2) : 0;
        if (bytes == 34)
            memcpy(out->code, block + 2, 32);
        else
            kt_ggml_codes(block, bytes, out->code);
    }
}

// ---- for ops that make tiles

// How a layout stores codes: code - least in 0 and up; a weight is (stored - zero) * scale +
// minimum.
typedef struct kt_ggml_tiles {
    int least, zero;
    int64_t tile_bytes;
} kt_ggml_tiles;

// 64 columns of one row. Columns from k on, and rows that no weight has, are 0.
typedef struct kt_ggml_piece {
    int stored[64];
    float scale[4], min[4]; // of 16 columns each; the minimum is the layout's
} kt_ggml_piece;

// Columns first .. first + 63 of row r of the weight (-1: none).
static inline void kt_ggml_get_piece(const kt_cpu_call *call, const kt_ggml_tiles *layout,
    int64_t r, int64_t first, kt_ggml_piece *out) {
    int64_t k = kt_cpu_dim(call, "k"), b = kt_cpu_dim(call, "b"), bytes = kt_cpu_dim(call, "bytes");
    const uint8_t *blocks = kt_cpu_in(call, "blocks")->data;
    int64_t weights = kt_ggml_weights(bytes);
    float shift = (float)(layout->zero + layout->least);
    kt_ggml_block block;
    memset(out, 0, sizeof *out);
    for (int64_t c = 0; r >= 0 && c < 64 && first + c < k; c += 16) {
        int64_t at = first + c, i = at % weights;
        kt_ggml_decode(call->host, blocks + (r * b + at / weights) * bytes, bytes, &block);
        for (int64_t j = 0; j < 16; j++) out->stored[c + j] = block.code[i + j] - layout->least;
        out->scale[c / 16] = block.scale[i / 16];
        out->min[c / 16] = block.min[i / 16] + shift * block.scale[i / 16];
    }
}

static inline void kt_ggml_put_half(const kt_cpu_host *host, uint8_t *at, float v) {
    uint16_t bits;
    host->f32_to_f16(&v, &bits, 1);
    memcpy(at, &bits, sizeof bits);
}

// Writes one piece into its tile; `row` of the layout.
typedef void (*kt_ggml_put)(
    const kt_cpu_call *call, const kt_ggml_piece *piece, uint8_t *tile, int64_t row);

static inline void kt_ggml_put_row(
    const kt_cpu_call *call, const kt_ggml_tiles *layout, int64_t r, int64_t row, kt_ggml_put put) {
    uint8_t *tiles = kt_cpu_in(call, "tiles")->data;
    int64_t across = (kt_cpu_dim(call, "k") + 63) / 64;
    kt_ggml_piece piece;
    for (int64_t j = 0; j < across; j++) {
        kt_ggml_get_piece(call, layout, r, 64 * j, &piece);
        put(call, &piece, tiles + (row / 16 * across + j) * layout->tile_bytes, row);
    }
}

// All rows of an op with the inputs `blocks` and `to` and the output `tiles`.
static inline void kt_ggml_put_rows(
    const kt_cpu_call *call, const kt_ggml_tiles *layout, kt_ggml_put put) {
    const int32_t *to = kt_cpu_in(call, "to")->data;
    for (int64_t r = 0; r < kt_cpu_dim(call, "n"); r++)
        kt_ggml_put_row(call, layout, r, to[r], put);
    // Rows of other weights of the layout are theirs to write: only what nobody writes is cleared.
    for (int64_t row = kt_cpu_dim(call, "rows"); row % 16 != 0; row++)
        kt_ggml_put_row(call, layout, -1, row, put);
}

#endif
