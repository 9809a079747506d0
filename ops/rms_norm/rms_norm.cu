// Kernel of ops/rms_norm/op.yaml.
#include "reduce.cuh"

// A block owns a row, a thread the groups of 4 columns that are a block apart. Shared memory: a
// float a warp. x and w aligned to 16 bytes, y to 8.
extern "C" __global__ void __launch_bounds__(KT_THREADS) kt_rms_norm_block_per_row(
    kt_f16 *y, const float *x, const float *w, int32_t n, float eps, float scale) {
    KT_SHARED_DYNAMIC(float, scratch);
    if ((int32_t)blockIdx.x >= n) return;
    const kt_f32x4 *from = (const kt_f32x4 *)(x + (int64_t)blockIdx.x * KT_D);
    kt_u32x2 *to = (kt_u32x2 *)(y + (int64_t)blockIdx.x * KT_D);
    float sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < KT_D / 4; i += KT_THREADS) {
        kt_f32x4 v = from[i];
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    const float inv_rms = 1.0f / kt_sqrt(kt_block_sum(sum, scratch) / KT_D + eps);
    for (int32_t i = (int32_t)threadIdx.x; i < KT_D / 4; i += KT_THREADS) {
        kt_f32x4 v = from[i], g = ((const kt_f32x4 *)w)[i];
        kt_u32x2 out = {kt_pack_f16(v.x * inv_rms * g.x * scale, v.y * inv_rms * g.y * scale),
            kt_pack_f16(v.z * inv_rms * g.z * scale, v.w * inv_rms * g.w * scale)};
        to[i] = out;
    }
}
