// Kernel of op.yaml: has a kernel that no variant names.
#include "kt.cuh"

extern "C" __global__ void __launch_bounds__(128) kt_bad_extra_flat(float *y, const float *x, int32_t n) {
    int32_t i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] = x[i];
}

extern "C" __global__ void __launch_bounds__(128) kt_bad_extra_left_over(float *y, const float *x, int32_t n) {
    int32_t i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] = x[i];
}
