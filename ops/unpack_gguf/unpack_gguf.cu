// Kernel of ops/unpack_gguf/op.yaml.
#include "ggml.cuh"

// A block owns 2048 weights, a thread 8 that follow each other (of one block of the format). No
// shared memory; rows are aligned to 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
    kt_unpack_gguf_flat(kt_f16 *rows, const uint8_t *blocks, int32_t n, int32_t k, int32_t b) {
    typedef kt_ggml<KT_BYTES> ggml;
    int64_t end = (int64_t)n * k, first = (int64_t)blockIdx.x * 2048 + threadIdx.x * 8;
    if (first >= end) return;
    const uint8_t *block = blocks + first / ggml::WEIGHTS * KT_BYTES;
    const int32_t at = (int32_t)(first % ggml::WEIGHTS);
    const kt_ggml_scale s = ggml::scale(block, at);
    float w[8];
    KT_UNROLL
    for (int32_t i = 0; i < 8; i++)
        w[i] = kt_add(kt_mul((float)ggml::code(block, at + i), s.scale), s.min);
    kt_u32x4 out = {kt_pack_f16(w[0], w[1]), kt_pack_f16(w[2], w[3]), kt_pack_f16(w[4], w[5]),
        kt_pack_f16(w[6], w[7])};
    *(kt_u32x4 *)(rows + first) = out;
}
