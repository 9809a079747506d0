// Kernels of ops/resize_image/op.yaml.
#include "kt.cuh"

// to_taps: for each target 4 ints - start of its column table, start of its row table, taps per
// column, taps per row; a table for n outputs with k taps is first[n], count[n], weight[n][k].
enum { OFFSETS = 4, HALF = 1 << 21, FIXED_BITS = 22 };

KT_DEVICE uint8_t to_byte(int32_t sum) {
    int32_t v = sum >> FIXED_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

// Weighted sums of one pixel's channels.
struct rgb_sum {
    int32_t r, g, b;
};

KT_DEVICE void add_tap(rgb_sum *sum, const uint8_t *p, int32_t weight) {
    sum->r += weight * p[0];
    sum->g += weight * p[1];
    sum->b += weight * p[2];
}

KT_DEVICE void put_pixel(uint8_t *to, rgb_sum sum) {
    to[0] = to_byte(sum.r);
    to[1] = to_byte(sum.g);
    to[2] = to_byte(sum.b);
}

// A pixel from taps that are `stride` bytes apart.
KT_DEVICE void put_taps(
    uint8_t *to, const uint8_t *from, int64_t stride, const int32_t *weight, int32_t count) {
    rgb_sum sum = {HALF, HALF, HALF};
    for (int32_t i = 0; i < count; i++)
        add_tap(&sum, from + i * stride, weight[i]);
    put_pixel(to, sum);
}

// Tables of one axis of one target.
struct axis {
    int32_t n, taps;
    const int32_t *first, *count, *weight;
};

KT_DEVICE axis axis_at(const int32_t *to_taps, int32_t target, int32_t which, int32_t n) {
    const int32_t *table = to_taps + to_taps[OFFSETS * target + which];
    return {n, to_taps[OFFSETS * target + 2 + which], table, table + n, table + 2 * (int64_t)n};
}

// Only a target that is narrower than the source has a middle picture, so that m source sizes hold
// them all. For the others a window has few columns, and the second kernel makes the middle pixels
// as it needs them.
KT_DEVICE bool has_middle(int32_t width, int32_t cols) {
    return cols < width;
}

// Pixels of the middle pictures in front of a target's.
KT_DEVICE int64_t middle_at(const int32_t *size, const int32_t *to_size, int32_t target) {
    int64_t before = 0;
    for (int32_t i = 0; i < target; i++)
        if (has_middle(size[1], to_size[2 * i + 1]))
            before += (int64_t)size[0] * to_size[2 * i + 1];
    return before;
}

// A block row (blockIdx.y) owns one target; a thread the pixels that are a grid apart of its middle
// picture u8[source height, target width, 3]. No shared memory; no alignment needed.
extern "C" __global__ void __launch_bounds__(256) kt_resize_image_two_pass_across(uint8_t *y,
    const uint8_t *rgb, const int32_t *size, const int32_t *to_size, const int32_t *to_taps,
    uint8_t *mid, int32_t px, int32_t m, int32_t t, int32_t out) {
    int32_t height = size[0], width = size[1], target = (int32_t)blockIdx.y;
    axis cols = axis_at(to_taps, target, 0, to_size[2 * target + 1]);
    if (!has_middle(width, cols.n)) return;
    mid += 3 * middle_at(size, to_size, target);

    int64_t n = (int64_t)height * cols.n, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        int64_t row = i / cols.n;
        int32_t col = (int32_t)(i - row * cols.n);
        put_taps(mid + 3 * i, rgb + 3 * (row * width + cols.first[col]), 3,
            cols.weight + (int64_t)col * cols.taps, cols.count[col]);
    }
}

// One output pixel straight from the source: each middle pixel is rounded to bytes first.
KT_DEVICE void put_direct(uint8_t *to, const uint8_t *rgb, int32_t width, const axis *cols,
    const axis *rows, int32_t row, int32_t col) {
    rgb_sum sum = {HALF, HALF, HALF};
    for (int32_t i = 0; i < rows->count[row]; i++) {
        uint8_t pixel[3];
        int64_t at = (int64_t)(rows->first[row] + i) * width + cols->first[col];
        put_taps(
            pixel, rgb + 3 * at, 3, cols->weight + (int64_t)col * cols->taps, cols->count[col]);
        add_tap(&sum, pixel, rows->weight[(int64_t)row * rows->taps + i]);
    }
    put_pixel(to, sum);
}

// A block row owns one target, a thread its pixels that are a grid apart.
extern "C" __global__ void __launch_bounds__(256) kt_resize_image_two_pass_down(uint8_t *y,
    const uint8_t *rgb, const int32_t *size, const int32_t *to_size, const int32_t *to_taps,
    uint8_t *mid, int32_t px, int32_t m, int32_t t, int32_t out) {
    int32_t width = size[1], target = (int32_t)blockIdx.y;
    axis cols = axis_at(to_taps, target, 0, to_size[2 * target + 1]);
    axis rows = axis_at(to_taps, target, 1, to_size[2 * target]);
    bool is_direct = !has_middle(width, cols.n);
    mid += 3 * middle_at(size, to_size, target);
    for (int32_t i = 0; i < target; i++)
        y += 3 * (int64_t)to_size[2 * i] * to_size[2 * i + 1];

    int64_t n = (int64_t)rows.n * cols.n, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        int32_t row = (int32_t)(i / cols.n), col = (int32_t)(i - (int64_t)row * cols.n);
        if (is_direct)
            put_direct(y + 3 * i, rgb, width, &cols, &rows, row, col);
        else
            put_taps(y + 3 * i, mid + 3 * ((int64_t)rows.first[row] * cols.n + col),
                3 * (int64_t)cols.n, rows.weight + (int64_t)row * rows.taps, rows.count[row]);
    }
}
