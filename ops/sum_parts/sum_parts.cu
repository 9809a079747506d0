// Kernel of ops/sum_parts/op.yaml.
#include "kt.cuh"

// A block owns 1024 numbers, a thread 4 that are 256 apart. y may be x.
extern "C" __global__ void __launch_bounds__(256)
    kt_sum_parts_flat(float *y, const float *x, const float *part, int32_t n, int32_t s) {
    const int64_t end = (int64_t)n * KT_D, first = (int64_t)blockIdx.x * 1024 + threadIdx.x;
    KT_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        int64_t at = first + i * 256;
        if (at >= end) return;
        float sum = x[at];
        for (int32_t p = 0; p < s; p++) sum += part[p * end + at];
        y[at] = sum;
    }
}
