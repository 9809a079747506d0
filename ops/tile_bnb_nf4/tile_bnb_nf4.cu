// Kernel of ops/tile_bnb_nf4/op.yaml.
#include "bnb.cuh"
#include "tiles.cuh"

// A block is one warp: 64 columns of 16 rows of the weight, a lane two columns of each. Blocks of
// the first columns write the rows' records, the very first one the tables; blocks of the first
// rows clear what the layout has beyond its last row.
extern "C" __global__ void __launch_bounds__(32) kt_tile_bnb_nf4_warp_per_tile(uint8_t *tiles,
    float *scales, float *tables, const uint8_t *codes, const uint8_t *absmax, const float *map,
    const float *nested_absmax, const float *nested_map, const int32_t *to, int32_t n, int32_t k,
    int32_t rows, int32_t c, int32_t b, int32_t b2, float offset) {
    const int32_t lane = kt_lane(), group = (int32_t)blockIdx.x, col = group * 64 + lane * 2;
    const int32_t first = (int32_t)blockIdx.y * 16, record = 2 + kt_lut4_spans(k);
    for (int32_t r = first; r < kt_min(first + 16, n); r++) {
        int32_t row = to[r];
        int64_t block = (int64_t)r * (k / 64); // the row's first
        uint8_t *tile = tiles + kt_tile_number(row, col, k) * KT_TILE_LUT4_BYTES;
        tile[kt_tile_code_at(row, col)] = kt_bnb_pair(codes, (int64_t)r * k + col);
        if (lane == 0) tile[kt_tile_scale_code_at(row)] = absmax[block + group];
        if (group > 0) continue;
        for (int32_t i = lane; i < record; i += 32) {
            int64_t span = block / KT_LUT4_SPAN + i - 2;
            scales[(int64_t)row * record + i] = i == 0      ? (float)(block % KT_LUT4_SPAN)
                                                : i == 1    ? offset
                                                : span < b2 ? nested_absmax[span]
                                                            : 0;
        }
    }
    if (first > 0) return;
    for (int32_t row = rows; row % 16 != 0; row++) {
        uint8_t *tile = tiles + kt_tile_number(row, col, k) * KT_TILE_LUT4_BYTES;
        tile[kt_tile_code_at(row, col)] = 0;
        if (lane == 0) tile[kt_tile_scale_code_at(row)] = 0;
        for (int32_t i = lane; group == 0 && i < record; i += 32)
            scales[(int64_t)row * record + i] = 0;
    }
    if (group > 0) return;
    for (int32_t i = lane; i < 16 + 256; i += 32) tables[i] = i < 16 ? map[i] : nested_map[i - 16];
}
