// Kernel of ops/layer_norm/op.yaml.
#include "reduce.cuh"

// A block owns a row, a thread the groups of 4 columns that are a block apart; mean first, then the
// variance around it. Shared memory: two floats a warp. Tensors aligned to 16 bytes.
extern "C" __global__ void __launch_bounds__(KT_THREADS) kt_layer_norm_block_per_row(
    kt_f16 *y, const KT_T *x, const float *w, const float *b, int32_t n, float eps) {
    KT_SHARED_DYNAMIC(float, scratch);
    if ((int32_t)blockIdx.x >= n) return;
    const KT_T *from = x + (int64_t)blockIdx.x * KT_D;
    kt_u32x2 *to = (kt_u32x2 *)(y + (int64_t)blockIdx.x * KT_D);
    float sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < KT_D / 4; i += KT_THREADS) {
        kt_f32x4 v = kt_load4(from, i);
        sum += v.x + v.y + (v.z + v.w);
    }
    const float mean = kt_block_sum(sum, scratch) / KT_D;
    sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < KT_D / 4; i += KT_THREADS) {
        kt_f32x4 v = kt_load4(from, i);
        float p = v.x - mean, q = v.y - mean, r = v.z - mean, s = v.w - mean;
        sum += p * p + q * q + (r * r + s * s);
    }
    const float scale = 1.0f / kt_sqrt(kt_block_sum(sum, scratch + KT_THREADS / 32) / KT_D + eps);
    for (int32_t i = (int32_t)threadIdx.x; i < KT_D / 4; i += KT_THREADS) {
        kt_f32x4 v = kt_load4(from, i), g = kt_load4(w, i), h = kt_load4(b, i);
        kt_u32x2 out = {
            kt_pack_f16((v.x - mean) * scale * g.x + h.x, (v.y - mean) * scale * g.y + h.y),
            kt_pack_f16((v.z - mean) * scale * g.z + h.z, (v.w - mean) * scale * g.w + h.w)};
        to[i] = out;
    }
}
