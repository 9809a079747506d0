// Kernel of ops/sincos_2d/op.yaml.
#include "segments.cuh"

// A block owns a patch, a thread numbers that are a block apart. Quarters of the width: sine and
// cosine of column * w, sine and cosine of row * w; w = 10000^(-i / (d / 4)).
extern "C" __global__ void __launch_bounds__(256) kt_sincos_2d_block_per_row(kt_f16 *y,
    const kt_f16 *x, const int32_t *size, const int32_t *offset, int32_t n, int32_t views) {
    constexpr int32_t quarter = KT_D / 4;
    const int32_t patch = (int32_t)blockIdx.x;
    if (patch >= n) return;
    const int32_t view = kt_view_find(offset, views, patch);
    const int32_t at = patch - offset[view], cols = kt_max(size[2 * view + 1], 1);
    const float row = (float)(at / cols), col = (float)(at % cols);
    const kt_f16 *from = x + (int64_t)patch * KT_D;
    kt_f16 *to = y + (int64_t)patch * KT_D;
    for (int32_t i = (int32_t)threadIdx.x; i < quarter; i += 256) {
        float w = 1.0f / kt_pow(10000.0f, (float)i / quarter);
        float p[4];
        kt_sin_cos(col * w, &p[0], &p[1]);
        kt_sin_cos(row * w, &p[2], &p[3]);
        KT_UNROLL
        for (int32_t j = 0; j < 4; j++)
            to[j * quarter + i] = kt_to_f16(kt_to_f32(from[j * quarter + i]) + p[j]);
    }
}
