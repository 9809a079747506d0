// Blocks of GGML's quantised types as GGUF files store them: W[n, k] in rows of k / WEIGHTS blocks.
// A type is told by the bytes of its block:
//
//   Q4_0   18   f16 d; 16 bytes: weight i in the low half of byte i, weight 16 + i in the high one
//   Q4_1   20   f16 d, m; the same 16 bytes
//   Q5_0   22   f16 d; 4 bytes: bit i is bit 4 of weight i; 16 bytes as in Q4_0
//   Q5_1   24   f16 d, m; the same
//   Q8_0   34   f16 d; 32 signed bytes
//   Q4_K  144   f16 d, dmin; 12 bytes of 6-bit scales and minima of 8 blocks of 32; 4 x 32 bytes:
//               weight 64 c + l in the low half of byte l of part c, weight 64 c + 32 + l in the
//               high one
//   Q5_K  176   as Q4_K with 32 bytes before the codes: bit j of byte l is bit 4 of weight 32 j + l
//   Q6_K  210   two halves of 128 weights: 64 bytes of low bits each, then 32 bytes of high bits
//               each; 16 signed scales; f16 d
//
// A weight is code * scale + min in f32, each operation rounded; 16 weights from a multiple of 16
// on have one scale and one minimum. Codes lie in 0 .. 15 (Q4_1, Q4_K), 0 .. 31 (Q5_1, Q5_K), -8 ..
// 7 (Q4_0), -32 .. 31 (Q6_K) and -128 .. 127 (Q8_0). source: ggml, src/ggml-common.h (block_*) and
// src/ggml-quants.c (dequantize_row_*)
#ifndef KT_DEVICE_GGML_CUH
#define KT_DEVICE_GGML_CUH

#include "kt.cuh"

struct kt_ggml_scale {
    float scale, min;
};

template <int32_t BYTES> struct kt_ggml {
    static_assert(BYTES == 18 || BYTES == 20 || BYTES == 22 || BYTES == 24 || BYTES == 34 ||
                      BYTES == 144 || BYTES == 176 || BYTES == 210,
        "no type has blocks of so many bytes");
    static constexpr bool is_k = BYTES == 144 || BYTES == 176; // Q4_K, Q5_K
    static constexpr int32_t WEIGHTS = BYTES < 144 ? 32 : 256;
    // Smallest code.
    static constexpr int32_t LEAST = BYTES == 18    ? -8
                                     : BYTES == 22  ? -16
                                     : BYTES == 34  ? -128
                                     : BYTES == 210 ? -32
                                                    : 0;

    // The block of W[row, col]; b blocks a row.
    static __device__ __forceinline__ const uint8_t *block(
        const uint8_t *blocks, int32_t row, int32_t col, int32_t b) {
        return blocks + ((int64_t)row * b + col / WEIGHTS) * BYTES;
    }
    static __device__ __forceinline__ float half(const uint8_t *at) {
        return kt_to_f32(*(const kt_f16 *)at);
    }
    // Of weight i of the block.
    static __device__ __forceinline__ int32_t code(const uint8_t *block, int32_t i) {
        if constexpr (BYTES == 34) return (int8_t)block[2 + i];
        if constexpr (BYTES < 34) {
            int32_t low = block[BYTES - 16 + i % 16] >> (i / 16 * 4) & 15;
            if constexpr (BYTES < 22) return low + LEAST;
            return (low | (block[BYTES - 20 + i / 8] >> (i % 8) & 1) << 4) + LEAST;
        }
        if constexpr (is_k) {
            int32_t low = block[BYTES - 128 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
            if constexpr (BYTES == 144) return low;
            return low | (block[16 + i % 32] >> (i / 32) & 1) << 4;
        }
        int32_t half = i / 128, part = i / 32 % 4, l = i % 32;
        int32_t low = block[64 * half + part % 2 * 32 + l] >> (part / 2 * 4) & 15;
        return (low | (block[128 + 32 * half + l] >> (2 * part) & 3) << 4) + LEAST;
    }
    // Of the 16 weights that weight i is of.
    static __device__ __forceinline__ kt_ggml_scale scale(const uint8_t *block, int32_t i) {
        kt_ggml_scale out = {0, 0};
        if constexpr (BYTES < 144) {
            out.scale = half(block);
            if constexpr (BYTES == 20 || BYTES == 24) out.min = half(block + 2);
        } else if constexpr (is_k) {
            const uint8_t *packed = block + 4;
            int32_t j = i / 32, scale = packed[j], min = packed[j + 4];
            if (j < 4) {
                scale &= 63;
                min &= 63;
            } else { // low bits in byte j + 4, high bits on top of bytes j - 4 and j
                scale = (min & 15) | packed[j - 4] >> 6 << 4;
                min = min >> 4 | packed[j] >> 6 << 4;
            }
            out.scale = kt_mul(half(block), (float)scale);
            out.min = -kt_mul(half(block + 2), (float)min);
        } else {
            out.scale = kt_mul(half(block + 208), (float)(int8_t)block[192 + i / 16]);
        }
        return out;
    }
};

#endif
