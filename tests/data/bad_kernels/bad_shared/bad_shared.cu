// Kernel of op.yaml: takes 40 kB of shared memory beside the 60 kB of its launch.
#include "kt.cuh"

extern "C" __global__ void __launch_bounds__(128) kt_bad_shared_flat(float *y, const float *x, int32_t n) {
    KT_SHARED_DYNAMIC(float, more);
    KT_SHARED(float, own, 10240);
    own[threadIdx.x] = x[threadIdx.x];
    more[threadIdx.x] = x[n - 1];
    kt_sync();
    y[threadIdx.x] = own[127 - threadIdx.x] + more[127 - threadIdx.x];
}
