// Kernel of ops/unpack_bnb_nf4_plain/op.yaml.
#include "bnb.cuh"

// A block owns 2048 weights, a thread 8 that follow each other (of one block of 64). No shared
// memory.
extern "C" __global__ void __launch_bounds__(256)
    kt_unpack_bnb_nf4_plain_flat(kt_f16 *rows, const uint8_t *codes, const float *absmax,
        const float *map, int32_t n, int32_t k, int32_t c, int32_t b) {
    int64_t end = (int64_t)n * k, first = (int64_t)blockIdx.x * 2048 + threadIdx.x * 8;
    if (first >= end) return;
    float scale = absmax[first / 64];
    KT_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        int64_t at = first + i;
        if (at < end) rows[at] = kt_to_f16(kt_mul(map[kt_bnb_code(codes, at)], scale));
    }
}
