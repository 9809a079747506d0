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
    uint16_t bits;
    float out;
    memcpy(&bits, at, sizeof bits);
    host->f16_to_f32(&bits, &out, 1);
    return out;
}

static inline void kt_ggml_q4(const uint8_t *codes, int least, int8_t *out) {
    for (int i = 0; i < 16; i++) {
        out[i] = (int8_t)((codes[i] & 15) + least);
        out[16 + i] = (int8_t)((codes[i] >> 4) + least);
    }
}

// Q4_K, and Q5_K if there are high bits.
static inline void kt_ggml_k(
    const kt_cpu_host *host, const uint8_t *block, const uint8_t *high, kt_ggml_block *out) {
    const uint8_t *packed = block + 4, *codes = high ? high + 32 : block + 16;
    float d = kt_ggml_half(host, block), dmin = kt_ggml_half(host, block + 2);
    for (int j = 0; j < 8; j++) {
        int scale = packed[j] & 63, min = packed[j + 4] & 63;
        if (j >= 4) {
            scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
            min = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
        }
        out->scale[2 * j] = out->scale[2 * j + 1] = d * (float)scale;
        out->min[2 * j] = out->min[2 * j + 1] = -(dmin * (float)min);
        for (int l = 0; l < 32; l++) {
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
        out->min[0] = out->min[1] = bytes == 20 ? kt_ggml_half(host, block + 2) : 0;
        if (bytes == 34)
            memcpy(out->code, block + 2, 32);
        else
            kt_ggml_q4(block + bytes - 16, bytes == 18 ? -8 : 0, out->code);
    }
}

#endif
