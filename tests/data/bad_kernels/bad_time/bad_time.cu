// Kernel of op.yaml: is different every second.
#include "kt.cuh"

extern "C" __global__ void __launch_bounds__(128) kt_bad_time_flat(float *y, const float *x, int32_t n) {
    y[threadIdx.x] = x[threadIdx.x] + (float)(__TIME__[7] + n);
}
