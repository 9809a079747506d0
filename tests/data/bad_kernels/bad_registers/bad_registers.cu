// Kernel of op.yaml: takes more registers than 1024 threads can have.
#include "kt.cuh"

extern "C" __global__ void kt_bad_registers_flat(float *y, const float *x, int32_t n) {
    float v[100];
    KT_UNROLL
    for (int32_t i = 0; i < 100; i++) v[i] = x[(int32_t)threadIdx.x + i * n];
    kt_sync();
    float sum = 0;
    KT_UNROLL
    for (int32_t i = 0; i < 100; i++) sum += v[99 - i] * v[i] + v[i] / (float)(n + i);
    y[threadIdx.x] = sum;
}
