// Kernel of ops/tile_gguf_q8/op.yaml.
#include "ggml.cuh"
#include "tiles.cuh"

// A block is one warp: 64 columns of 16 rows of the weight, a lane two columns of each.
extern "C" __global__ void __launch_bounds__(32) kt_tile_gguf_q8_warp_per_tile(uint8_t *tiles,
    const uint8_t *blocks, const int32_t *to, int32_t n, int32_t k, int32_t rows, int32_t b) {
    typedef kt_ggml<KT_BYTES> ggml;
    const int32_t lane = kt_lane(), col = (int32_t)blockIdx.x * 64 + lane * 2;
    kt_tile_each_row(to, n, rows, [&](int32_t r, int32_t row) {
        uint8_t *tile = tiles + kt_tile_number(row, col, k) * KT_TILE_Q8_BYTES;
        int32_t low = 0, high = 0;
        kt_ggml_scale s = {0, 0};
        if (r >= 0 && col < k) {
            const uint8_t *block = ggml::block(blocks, r, col, b);
            low = ggml::code(block, col % ggml::WEIGHTS) - ggml::LEAST;
            high = ggml::code(block, col % ggml::WEIGHTS + 1) - ggml::LEAST;
            s = ggml::scale(block, col % ggml::WEIGHTS);
        }
        *(uint16_t *)(tile + kt_tile_q8_at(row, col)) = (uint16_t)(low | high << 8);
        if (lane % 16 == 0) *(kt_f16 *)(tile + kt_tile_q8_scale_at(row, col)) = kt_to_f16(s.scale);
    });
}
