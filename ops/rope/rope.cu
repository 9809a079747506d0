// Kernel of ops/rope/op.yaml.
#include "rotary.cuh"
#include "segments.cuh"

// A block owns a token; its threads first make the sines and cosines of the position, then turn the
// pairs. A token of no segment is copied. Static shared memory: hd floats. y may be x.
extern "C" __global__ void __launch_bounds__(128) kt_rope_block_per_token(
    kt_f16 *y, const kt_f16 *x, const int32_t *segments, int32_t n, int32_t g, float theta) {
    constexpr int32_t half = KT_HD / 2;
    KT_SHARED(float, turn, KT_HD); // cosines, sines
    const int32_t token = (int32_t)blockIdx.x;
    if (token >= n) return;
    kt_place place = kt_segment_find(segments, g, token);
    const int32_t position = place.row < 0 ? 0 : place.position;
    for (int32_t j = (int32_t)threadIdx.x; j < half; j += 128)
        kt_rotary<half>(position, j, theta, &turn[j], &turn[half + j]);
    kt_sync();
    for (int32_t i = (int32_t)threadIdx.x; i < KT_M / 2; i += 128) {
        int32_t head = i / half, j = i % half;
        int64_t at = (int64_t)token * KT_M + head * KT_HD + j;
        float a = kt_to_f32(x[at]), b = kt_to_f32(x[at + half]);
        y[at] = kt_to_f16(a * turn[j] - b * turn[half + j]);
        y[at + half] = kt_to_f16(b * turn[j] + a * turn[half + j]);
    }
}
