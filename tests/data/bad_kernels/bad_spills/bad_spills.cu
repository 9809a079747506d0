// Kernel of op.yaml: wants more registers than a thread of 1024 has.
#include "kt.cuh"

extern "C" __global__ void __launch_bounds__(1024) kt_bad_spills_flat(float *y, const float *x, int32_t n) {
    float v[100];
    KT_UNROLL
    for (int32_t i = 0; i < 100; i++) v[i] = x[(int32_t)threadIdx.x + i * n];
    kt_sync();
    float sum = 0;
    KT_UNROLL
    for (int32_t i = 0; i < 100; i++) sum += v[99 - i] * v[i] + v[i] / (float)(n + i);
    y[threadIdx.x] = sum;
}
