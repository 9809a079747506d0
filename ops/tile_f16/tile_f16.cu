// Kernel of ops/tile_f16/op.yaml.
#include "tiles.cuh"

// A block is one warp: 64 columns of 16 rows of the weight, a lane two columns of each.
extern "C" __global__ void __launch_bounds__(32) kt_tile_f16_warp_per_tile(
    kt_f16 *tiles, const KT_T *values, const int32_t *to, int32_t n, int32_t k, int32_t rows) {
    const int32_t col = (int32_t)blockIdx.x * 64 + kt_lane() * 2;
    kt_tile_each_row(to, n, rows, [&](int32_t r, int32_t row) {
        const KT_T *from = values + (int64_t)r * k;
        float low = r >= 0 && col < k ? kt_to_f32(from[col]) : 0;
        float high = r >= 0 && col + 1 < k ? kt_to_f32(from[col + 1]) : 0;
        *(uint32_t *)(tiles + kt_tile_number(row, col, k) * 1024 + kt_tile_f16_at(row, col)) =
            kt_pack_f16(low, high);
    });
}
