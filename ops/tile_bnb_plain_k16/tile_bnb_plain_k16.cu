// Kernel of ops/tile_bnb_plain_k16/op.yaml.
#include "bnb.cuh"

// As kt_bnb_tile_k16 says.
extern "C" __global__ void __launch_bounds__(32) kt_tile_bnb_plain_k16_warp_per_tile(uint8_t *tiles,
    float *table, const uint8_t *codes, const float *absmax, const float *map, const int32_t *to,
    int32_t n, int32_t k, int32_t rows, int32_t c, int32_t b) {
    kt_bnb_plain scales = {absmax};
    kt_bnb_tile_k16(tiles, table, codes, map, to, n, k, rows, b, scales);
}
