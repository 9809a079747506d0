// Kernel of ops/patchify/op.yaml.
#include "kt.cuh"

// A block owns one patch, a thread the values of its row that are a block apart. No shared memory;
// reads run along the picture's rows, writes along the patch's.
extern "C" __global__ void __launch_bounds__(128)
    kt_patchify_block_per_patch(kt_f16 *y, const uint8_t *rgb, const int32_t *target,
        const int32_t *view_from, const int32_t *view_size, const int32_t *view_offset,
        const float *view_level, int32_t px, int32_t m, int32_t views, int32_t n) {
    int32_t patch = (int32_t)blockIdx.x;
    if (patch >= n) return;
    int32_t view = 0;
    while (view + 1 < views && view_offset[view + 1] <= patch)
        view++;
    int32_t picture = view_from[3 * view];
    int64_t base = 0; // pixels of the pictures in front
    for (int32_t i = 0; i < picture; i++)
        base += (int64_t)target[2 * i] * target[2 * i + 1];
    int32_t width = target[2 * picture + 1], cols = view_size[2 * view + 1];
    int32_t at = patch - view_offset[view];
    int32_t top = view_from[3 * view + 1] + at / cols * KT_P;
    int32_t left = view_from[3 * view + 2] + at % cols * KT_P;
    const uint8_t *from = rgb + 3 * (base + (int64_t)top * width + left);
    kt_f16 *to = y + (int64_t)patch * (3 * KT_P * KT_P);
    for (int32_t i = (int32_t)threadIdx.x; i < 3 * KT_P * KT_P; i += 128) {
        int32_t channel = i / (KT_P * KT_P), row = i / KT_P % KT_P, col = i % KT_P;
        uint8_t byte = from[3 * ((int64_t)row * width + col) + channel];
        to[i] = kt_to_f16(view_level[256 * channel + byte]);
    }
}
