// Kernel of ops/unpack_f16/op.yaml.
#include "kt.cuh"

// A block owns 2048 numbers, a thread 8 that are 256 apart.
extern "C" __global__ void __launch_bounds__(256)
    kt_unpack_f16_flat(kt_f16 *rows, const KT_T *values, int32_t n, int32_t k) {
    int64_t end = (int64_t)n * k, first = (int64_t)blockIdx.x * 2048 + threadIdx.x;
    KT_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        int64_t at = first + i * 256;
        if (at < end) rows[at] = kt_to_f16(kt_to_f32(values[at]));
    }
}
