// Kernel of ops/read_sweep/op.yaml.
#include "reduce.cuh"

// A block owns 2048 pieces of 16 bytes, a thread 8 that are 256 apart, all on their way at once; x
// is aligned to 16 bytes. Shared memory: one number a warp.
extern "C" __global__ void __launch_bounds__(256)
    kt_read_sweep_flat(float *y, const float *x, int32_t n, int32_t b) {
    KT_SHARED(float, warps, 8);
    const int64_t first = (int64_t)blockIdx.x * 2048 + threadIdx.x;
    float most = -3.4e38f;
    KT_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        int64_t at = first + i * 256;
        if (at >= n) continue;
        kt_u32x4 v = kt_load_once16(x + 4 * at);
        most = kt_max(most, kt_max(kt_float(v.x), kt_float(v.y)));
        most = kt_max(most, kt_max(kt_float(v.z), kt_float(v.w)));
    }
    most = kt_warp_max(most);
    if (kt_lane() == 0) warps[kt_warp()] = most;
    kt_sync();
    if (threadIdx.x != 0 || (int32_t)blockIdx.x >= b) return;
    for (int32_t i = 1; i < 8; i++) most = kt_max(most, warps[i]);
    y[blockIdx.x] = most;
}
