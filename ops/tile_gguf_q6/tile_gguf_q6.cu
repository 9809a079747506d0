// Kernel of ops/tile_gguf_q6/op.yaml.
#include "ggml.cuh"
#include "tiles.cuh"

// A block is one warp: 64 columns of 16 rows of the weight, a lane two columns of each, 8 apart.
// Two lanes share a byte of high bits.
extern "C" __global__ void __launch_bounds__(32) kt_tile_gguf_q6_warp_per_tile(uint8_t *tiles,
    const uint8_t *blocks, const int32_t *to, int32_t n, int32_t k, int32_t rows, int32_t b) {
    typedef kt_ggml<KT_BYTES> ggml;
    constexpr int32_t least = KT_BYTES == 24 || KT_BYTES == 176 ? -16 : -32; // what is stored as 0
    const int32_t lane = kt_lane(), col = (int32_t)blockIdx.x * 64 + lane / 8 * 16 + lane % 8;
    kt_tile_each_row(to, n, rows, [&](int32_t r, int32_t row) {
        uint8_t *tile = tiles + kt_tile_number(row, col, k) * KT_TILE_Q6_BYTES;
        int32_t low = 0, high = 0;
        kt_ggml_scale s = {0, 0};
        if (r >= 0 && col < k) {
            const uint8_t *block = ggml::block(blocks, r, col, b);
            low = ggml::code(block, col % ggml::WEIGHTS) - least;
            high = ggml::code(block, col % ggml::WEIGHTS + 8) - least;
            s = ggml::scale(block, col % ggml::WEIGHTS);
            s.min = kt_add(s.min, kt_mul((float)(32 + least), s.scale));
        }
        uint32_t bits = (uint32_t)(low >> 4 | high >> 4 << 2);
        uint32_t next = kt_shfl_xor(bits, 8); // of columns col + 16, col + 24
        tile[kt_tile_q4_at(row, col)] = (uint8_t)((low & 15) | (high & 15) << 4);
        if (lane % 8 == 0)
            *(kt_f16 *)(tile + kt_tile_q6_scale_at(row, col)) = kt_to_f16(s.scale);
        if (lane % 16 >= 8) return;
        tile[kt_tile_q6_high_at(row, col)] = (uint8_t)(bits | next << 4);
        if (lane % 16 == 0)
            *(kt_f16 *)(tile + kt_tile_q6_min_at(row, col)) = kt_to_f16(s.min);
    });
}
