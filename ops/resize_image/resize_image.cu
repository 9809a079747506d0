// Kernels of ops/resize_image/op.yaml.
#include "kt.cuh"

// to_taps: for each target 4 ints - start of its column table, start of its row table, taps per
// column, taps per row; a table for n outputs with k taps is first[n], count[n], weight[n][k].
enum { OFFSETS = 4, HALF = 1 << 21, FIXED_BITS = 22 };

static __device__ __forceinline__ uint8_t to_byte(int32_t sum) {
    int32_t v = sum >> FIXED_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

// One sample of an output pixel: taps that are `stride` bytes apart.
static __device__ __forceinline__ void sum_taps(
    const uint8_t *from, int64_t stride, const int32_t *weight, int32_t count, uint8_t *to) {
    int32_t r = HALF, g = HALF, b = HALF;
    for (int32_t i = 0; i < count; i++) {
        int32_t w = weight[i];
        const uint8_t *p = from + i * stride;
        r += w * p[0];
        g += w * p[1];
        b += w * p[2];
    }
    to[0] = to_byte(r);
    to[1] = to_byte(g);
    to[2] = to_byte(b);
}

// A block row (blockIdx.y) owns one target; a thread the pixels that are a grid apart of its middle
// picture u8[source height, target width, 3]. No shared memory; no alignment needed.
extern "C" __global__ void __launch_bounds__(256) kt_resize_image_two_pass_across(uint8_t *y,
    const uint8_t *rgb, const int32_t *size, const int32_t *to_size, const int32_t *to_taps,
    uint8_t *mid, int32_t px, int32_t m, int32_t t, int32_t out) {
    int32_t height = size[0], width = size[1], target = (int32_t)blockIdx.y;
    int64_t before = 0; // pixels of the middle pictures in front
    for (int32_t i = 0; i < target; i++)
        before += (int64_t)height * to_size[2 * i + 1];
    int32_t cols = to_size[2 * target + 1], taps = to_taps[OFFSETS * target + 2];
    const int32_t *first = to_taps + to_taps[OFFSETS * target];
    const int32_t *count = first + cols, *weight = count + cols;

    int64_t n = (int64_t)height * cols, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        int64_t row = i / cols;
        int32_t col = (int32_t)(i - row * cols);
        sum_taps(rgb + 3 * (row * width + first[col]), 3, weight + (int64_t)col * taps, count[col],
            mid + 3 * (before + i));
    }
}

// The same for the pixels of the target, from its middle picture.
extern "C" __global__ void __launch_bounds__(256) kt_resize_image_two_pass_down(uint8_t *y,
    const uint8_t *rgb, const int32_t *size, const int32_t *to_size, const int32_t *to_taps,
    uint8_t *mid, int32_t px, int32_t m, int32_t t, int32_t out) {
    int32_t height = size[0], target = (int32_t)blockIdx.y;
    int64_t before = 0, done = 0; // pixels of the middle pictures and of the targets in front
    for (int32_t i = 0; i < target; i++) {
        before += (int64_t)height * to_size[2 * i + 1];
        done += (int64_t)to_size[2 * i] * to_size[2 * i + 1];
    }
    int32_t rows = to_size[2 * target], cols = to_size[2 * target + 1];
    int32_t taps = to_taps[OFFSETS * target + 3];
    const int32_t *first = to_taps + to_taps[OFFSETS * target + 1];
    const int32_t *count = first + rows, *weight = count + rows;

    int64_t n = (int64_t)rows * cols, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        int32_t row = (int32_t)(i / cols);
        int64_t col = i - (int64_t)row * cols;
        sum_taps(mid + 3 * (before + (int64_t)first[row] * cols + col), 3 * (int64_t)cols,
            weight + (int64_t)row * taps, count[row], y + 3 * (done + i));
    }
}
