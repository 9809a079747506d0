// Kernel of ops/silu_mul/op.yaml.
#include "kt.cuh"

// A block owns 1024 numbers, a thread 4 that are 256 apart.
extern "C" __global__ void __launch_bounds__(256)
    kt_silu_mul_flat(kt_f16 *y, const float *a, const float *b, int32_t n, float scale) {
    const int64_t end = (int64_t)n * KT_F, first = (int64_t)blockIdx.x * 1024 + threadIdx.x;
    KT_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        int64_t at = first + i * 256;
        if (at < end) y[at] = kt_to_f16(a[at] / (1.0f + kt_exp(-a[at])) * b[at] * scale);
    }
}
