// What kernels are written with: types, conversions, the machine (machine.cuh), and numbers that
// come out the same on every GPU.
//
// Kernels touch the machine only through machine.cuh and mma.cuh; besides they may use threadIdx,
// blockIdx, blockDim and gridDim. Rules: collectives (kt_shfl_*, kt_ballot, mma, ldmatrix) are
// called by all 32 lanes of a warp, kt_sync by all threads of the block; no thread waits for
// another block.
#ifndef KT_DEVICE_KT_CUH
#define KT_DEVICE_KT_CUH

#include "machine.cuh"

KT_DEVICE float kt_to_f32(kt_bf16 h) {
    return kt_float((uint32_t)h.bits << 16);
}
KT_DEVICE float kt_to_f32(float v) {
    return v;
}

// A store of one number in the type of its tensor.
KT_DEVICE void kt_put(kt_f16 *at, float v) {
    *at = kt_to_f16(v);
}
KT_DEVICE void kt_put(float *at, float v) {
    *at = v;
}

// Two f16 in one word, the first in the low half.
KT_DEVICE uint32_t kt_pack_f16(float low, float high) {
    return (uint32_t)kt_to_f16(low).bits | (uint32_t)kt_to_f16(high).bits << 16;
}
KT_DEVICE float kt_low_f16(uint32_t pair) {
    kt_f16 h = {(uint16_t)(pair & 0xffff)};
    return kt_to_f32(h);
}
KT_DEVICE float kt_high_f16(uint32_t pair) {
    kt_f16 h = {(uint16_t)(pair >> 16)};
    return kt_to_f32(h);
}

// Numbers 4 i .. 4 i + 3, aligned.
KT_DEVICE kt_f32x4 kt_load4(const float *from, int32_t i) {
    return ((const kt_f32x4 *)from)[i];
}
KT_DEVICE kt_f32x4 kt_load4(const kt_f16 *from, int32_t i) {
    kt_u32x2 v = ((const kt_u32x2 *)from)[i];
    kt_f32x4 out = {kt_low_f16(v.x), kt_high_f16(v.x), kt_low_f16(v.y), kt_high_f16(v.y)};
    return out;
}

// ---- numbers

KT_DEVICE int32_t kt_min(int32_t a, int32_t b) {
    return a < b ? a : b;
}
KT_DEVICE int32_t kt_max(int32_t a, int32_t b) {
    return a > b ? a : b;
}
// constexpr: also for array sizes
static __device__ __forceinline__ constexpr int64_t kt_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static __device__ __forceinline__ constexpr int64_t kt_align_up(int64_t a, int64_t b) {
    return (a + b - 1) / b * b;
}

// Sine and cosine of r + quarter * pi / 2, |r| up to pi / 4, to about 1e-7.
KT_DEVICE void kt_sin_cos_quarter(float r, int32_t quarter, float *sine, float *cosine) {
    float q = r * r;
    float s =
        kt_fma(kt_fma(kt_fma(-1.95152959e-4f, q, 8.33216087e-3f), q, -1.66666546e-1f), q * r, r);
    float c = kt_fma(kt_fma(kt_fma(2.44331571e-5f, q, -1.38873162e-3f), q, 4.16666456e-2f), q * q,
        kt_fma(-0.5f, q, 1.0f));
    float a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -a : a;
    *cosine = (quarter + 1) & 2 ? -b : b;
}
// Of v, |v| up to 2^18. (The library's own need a stack frame, for far larger arguments.)
KT_DEVICE void kt_sin_cos(float v, float *sine, float *cosine) {
    float n = kt_round(v * 0.636619772f); // quarter turns; pi / 2 in three parts
    float r = kt_fma(n, -1.57079625e+0f, v);
    r = kt_fma(n, -7.54978942e-8f, r);
    r = kt_fma(n, -5.39030253e-15f, r);
    kt_sin_cos_quarter(r, (int32_t)n, sine, cosine);
}
KT_DEVICE void kt_sin_cos(double v, float *sine, float *cosine) {
    double n = kt_round(v * 0.63661977236758134);
    kt_sin_cos_quarter((float)(v - n * 1.5707963267948966), (int32_t)n, sine, cosine);
}

#endif
