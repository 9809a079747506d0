// Kernel of ops/tile_bnb_nf4_k16/op.yaml.
#include "bnb.cuh"
#include "tiles.cuh"

// A block is one warp: 64 columns of 16 rows of the weight, a lane two columns of each. The very
// first block writes the table; blocks of the first rows clear what the layout has beyond its last
// row.
extern "C" __global__ void __launch_bounds__(32) kt_tile_bnb_nf4_k16_warp_per_tile(uint8_t *tiles,
    float *table, const uint8_t *codes, const uint8_t *absmax, const float *map,
    const float *nested_absmax, const float *nested_map, const int32_t *to, int32_t n, int32_t k,
    int32_t rows, int32_t c, int32_t b, int32_t b2, float offset) {
    const int32_t lane = kt_lane(), col = (int32_t)blockIdx.x * 64 + lane * 2;
    const int32_t first = (int32_t)blockIdx.y * 16;
    const kt_f16 zero = {0};
    for (int32_t r = first; r < kt_min(first + 16, n); r++) {
        int32_t row = to[r];
        uint8_t *tile = tiles + kt_tile_number(row, col, k) * KT_TILE_LUT4_K16_BYTES;
        int64_t at = (int64_t)r * k + col; // even
        tile[kt_tile_code_at(row, col)] = col < k ? kt_bnb_pair(codes, at) : 0;
        if (lane % 8 > 0) continue; // one lane for 16 columns
        kt_f16 *scale = (kt_f16 *)(tile + kt_tile_k16_scale_at(row, col));
        *scale = zero;
        if (col < k)
            *scale = kt_to_f16(kt_bnb_scale(at / 64, absmax, nested_absmax, nested_map, offset));
    }
    if (first > 0) return;
    for (int32_t row = rows; row % 16 != 0; row++) {
        uint8_t *tile = tiles + kt_tile_number(row, col, k) * KT_TILE_LUT4_K16_BYTES;
        tile[kt_tile_code_at(row, col)] = 0;
        if (lane % 8 == 0) *(kt_f16 *)(tile + kt_tile_k16_scale_at(row, col)) = zero;
    }
    if (blockIdx.x == 0 && lane < 16) table[lane] = map[lane];
}
