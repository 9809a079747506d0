// 4-bit weights as bitsandbytes stores them: W[n, k] flattened, two codes a byte, the first in the
// high half; a scale for each block of weights. Scales are plain f32, or nested: an 8-bit code
// each, and a scale of scales for each span of 256 blocks.
#ifndef KT_DEVICE_BNB_CUH
#define KT_DEVICE_BNB_CUH

#include "tiles.cuh"

// Scales of blocks.
struct kt_bnb_plain {
    const float *absmax;

    __device__ __forceinline__ float operator()(int64_t block) const { return absmax[block]; }
};
struct kt_bnb_nested {
    const uint8_t *absmax;
    const float *nested_absmax, *nested_map;
    float offset;

    // Two roundings, as bitsandbytes does it.
    __device__ __forceinline__ float operator()(int64_t block) const {
        return kt_add(kt_mul(nested_map[absmax[block]], nested_absmax[block / 256]), offset);
    }
};

// Blocks have 64, 128 .. 4096 weights, the fewest that make b of them: 6 .. 12, bits to shift by.
KT_DEVICE int32_t kt_bnb_shift(int32_t n, int32_t k, int32_t b) {
    int32_t shift = 6;
    while (shift < 12 && ((int64_t)n * k - 1 >> shift) >= b) shift++;
    return shift;
}

KT_DEVICE int32_t kt_bnb_code(const uint8_t *codes, int64_t at) {
    return at % 2 == 0 ? codes[at / 2] >> 4 : codes[at / 2] & 15;
}

// Codes `at` (even) and at + 1 in one byte as tiles hold them: the even one in the low half.
KT_DEVICE uint8_t kt_bnb_pair(const uint8_t *codes, int64_t at) {
    uint8_t byte = codes[at / 2];
    return (uint8_t)(byte >> 4 | byte << 4);
}

// To rows of f16. A block of threads owns 2048 weights, a thread 8 that follow each other (of one
// block of the format).
template <class Scales>
KT_DEVICE void kt_bnb_unpack(kt_f16 *rows, const uint8_t *codes, const float *map, int32_t n,
    int32_t k, int32_t b, Scales scales) {
    int64_t end = (int64_t)n * k, first = (int64_t)blockIdx.x * 2048 + threadIdx.x * 8;
    if (first >= end) return;
    float scale = scales(first >> kt_bnb_shift(n, k, b));
    KT_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        int64_t at = first + i;
        if (at < end) rows[at] = kt_to_f16(kt_mul(map[kt_bnb_code(codes, at)], scale));
    }
}

// To tiles_lut4_k16. A block is one warp: 64 columns of 16 rows of the weight, a lane two columns
// of each. The very first block writes the table.
template <class Scales>
KT_DEVICE void kt_bnb_tile_k16(uint8_t *tiles, float *table, const uint8_t *codes, const float *map,
    const int32_t *to, int32_t n, int32_t k, int32_t rows, int32_t b, Scales scales) {
    const int32_t lane = kt_lane(), col = (int32_t)blockIdx.x * 64 + lane * 2;
    const int32_t shift = kt_bnb_shift(n, k, b);
    kt_tile_each_row(to, n, rows, [&](int32_t r, int32_t row) {
        uint8_t *tile = tiles + kt_tile_number(row, col, k) * KT_TILE_LUT4_K16_BYTES;
        int64_t at = (int64_t)r * k + col; // even
        bool inside = r >= 0 && col < k;
        tile[kt_tile_code_at(row, col)] = inside ? kt_bnb_pair(codes, at) : 0;
        if (lane % 8 == 0) // one lane for 16 columns
            *(kt_f16 *)(tile + kt_tile_k16_scale_at(row, col)) =
                kt_to_f16(inside ? scales(at >> shift) : 0);
    });
    if (blockIdx.x == 0 && blockIdx.y == 0 && lane < 16) table[lane] = map[lane];
}

#endif
