// Kernel of ops/unpack_bnb_nf4/op.yaml.
#include "bnb.cuh"

// A block owns 2048 weights, a thread 8 that follow each other (of one block of 64).
extern "C" __global__ void __launch_bounds__(256) kt_unpack_bnb_nf4_flat(kt_f16 *rows,
    const uint8_t *codes, const uint8_t *absmax, const float *map, const float *nested_absmax,
    const float *nested_map, int32_t n, int32_t k, int32_t c, int32_t b, int32_t b2, float offset) {
    int64_t end = (int64_t)n * k, first = (int64_t)blockIdx.x * 2048 + threadIdx.x * 8;
    if (first >= end) return;
    float scale = kt_bnb_scale(first / 64, absmax, nested_absmax, nested_map, offset);
    KT_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        int64_t at = first + i;
        if (at < end) rows[at] = kt_to_f16(kt_mul(map[kt_bnb_code(codes, at)], scale));
    }
}
