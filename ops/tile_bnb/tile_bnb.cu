// Kernel of ops/tile_bnb/op.yaml.
#include "bnb.cuh"

// A block is one warp: 64 columns of 16 rows of the weight, a lane two columns of each. Blocks of
// the first columns write the rows' records, the very first one the tables.
extern "C" __global__ void __launch_bounds__(32) kt_tile_bnb_warp_per_tile(uint8_t *tiles,
    float *scales, float *tables, const uint8_t *codes, const uint8_t *absmax, const float *map,
    const float *nested_absmax, const float *nested_map, const int32_t *to, int32_t n, int32_t k,
    int32_t rows, int32_t c, int32_t b, int32_t b2, float offset) {
    const int32_t lane = kt_lane(), group = (int32_t)blockIdx.x, col = group * 64 + lane * 2;
    const int32_t record = 2 + kt_lut4_spans(k);
    kt_tile_each_row(to, n, rows, [&](int32_t r, int32_t row) {
        int64_t block = (int64_t)r * (k / 64); // the row's first
        uint8_t *tile = tiles + kt_tile_number(row, col, k) * KT_TILE_LUT4_BYTES;
        bool inside = r >= 0;
        tile[kt_tile_code_at(row, col)] = inside ? kt_bnb_pair(codes, (int64_t)r * k + col) : 0;
        if (lane == 0) tile[kt_tile_scale_code_at(row)] = inside ? absmax[block + group] : 0;
        for (int32_t i = lane; group == 0 && i < record; i += 32) {
            int64_t span = block / KT_LUT4_SPAN + i - 2;
            float v = i == 0 ? (float)(block % KT_LUT4_SPAN) : i == 1 ? offset : 0;
            if (inside && i >= 2 && span < b2) v = nested_absmax[span];
            scales[(int64_t)row * record + i] = inside ? v : 0;
        }
    });
    if (group > 0 || blockIdx.y > 0) return;
    for (int32_t i = lane; i < 16 + 256; i += 32) tables[i] = i < 16 ? map[i] : nested_map[i - 16];
}
