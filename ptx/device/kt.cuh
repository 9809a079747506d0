// What kernels may use of the machine: types, conversions, shared memory, barriers, warps, atomics,
// memory accesses with a hint, and numbers that come out the same on every GPU.
//
// Kernels touch the machine only through this file and mma.cuh: a host stand-in for the two runs
// the same .cu files on the CPU. Both may use threadIdx, blockIdx, blockDim and gridDim. Rules:
// collectives (kt_shfl_*, kt_ballot, mma, ldmatrix) are called by all 32 lanes of a warp, kt_sync
// by all threads of the block; no thread waits for another block.
#ifndef KT_DEVICE_KT_CUH
#define KT_DEVICE_KT_CUH

#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

#define KT_DEVICE    static __device__ __forceinline__
#define KT_UNROLL    _Pragma("unroll")
#define KT_NO_UNROLL _Pragma("unroll 1")

// ---- types: KT_<type variable> is one of these names

struct kt_f16 {
    uint16_t bits;
};
struct kt_bf16 {
    uint16_t bits;
};
typedef float kt_f32;
typedef int32_t kt_i32;
typedef uint32_t kt_u32;
typedef uint8_t kt_u8;
typedef int8_t kt_i8;

struct __align__(16) kt_u32x4 { // 16 bytes, moved at once
    uint32_t x, y, z, w;
};
struct __align__(8) kt_u32x2 {
    uint32_t x, y;
};
struct __align__(16) kt_f32x4 {
    float x, y, z, w;
};

KT_DEVICE uint32_t kt_bits(float v) {
    return __float_as_uint(v);
}
KT_DEVICE float kt_float(uint32_t bits) {
    return __uint_as_float(bits);
}

// ---- conversions, round to nearest even

KT_DEVICE kt_f16 kt_to_f16(float v) {
    kt_f16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(v));
    return h;
}
KT_DEVICE float kt_to_f32(kt_f16 h) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(h.bits));
    return v;
}
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

// Two f16 in a word each: a b + c, rounded once.
KT_DEVICE uint32_t kt_fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t v;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(c));
    return v;
}
// a & mask | bits in one instruction, which the compiler does not find when both are constants.
KT_DEVICE uint32_t kt_and_or(uint32_t a, uint32_t mask, uint32_t bits) {
    uint32_t v;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(v) : "r"(a), "r"(mask), "r"(bits));
    return v;
}
// Byte i of the result is byte (selector >> 4 i & 7) of a (0 to 3) and b (4 to 7).
KT_DEVICE uint32_t kt_permute(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t v;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(selector));
    return v;
}

// ---- shared memory

// The launch's dynamic shared memory as `type *name`, aligned to 16 bytes; once a kernel.
#define KT_SHARED_DYNAMIC(type, name)                                                              \
    extern __shared__ __align__(16) unsigned char kt_dynamic[];                                    \
    type *name = (type *)kt_dynamic
// An array of n numbers of the block.
#define KT_SHARED(type, name, n) __shared__ __align__(16) type name[n]

// ---- barriers, warps, atomics

KT_DEVICE int32_t kt_lane(void) {
    return (int32_t)(threadIdx.x & 31);
}
KT_DEVICE int32_t kt_warp(void) {
    return (int32_t)(threadIdx.x >> 5);
}

KT_DEVICE void kt_sync(void) {
    __syncthreads();
}
KT_DEVICE void kt_sync_warp(void) {
    __syncwarp();
}
// Writes before it are seen by other blocks before writes after it.
KT_DEVICE void kt_fence(void) {
    __threadfence();
}

KT_DEVICE float kt_shfl_xor(float v, int32_t mask) {
    return __shfl_xor_sync(~0u, v, mask);
}
KT_DEVICE uint32_t kt_shfl_xor(uint32_t v, int32_t mask) {
    return __shfl_xor_sync(~0u, v, mask);
}
KT_DEVICE uint64_t kt_shfl_xor(uint64_t v, int32_t mask) {
    return __shfl_xor_sync(~0u, v, mask);
}
KT_DEVICE float kt_shfl(float v, int32_t lane) {
    return __shfl_sync(~0u, v, lane);
}
KT_DEVICE uint32_t kt_shfl(uint32_t v, int32_t lane) {
    return __shfl_sync(~0u, v, lane);
}
KT_DEVICE uint32_t kt_ballot(bool v) {
    return __ballot_sync(~0u, v);
}
KT_DEVICE int32_t kt_popcount(uint32_t v) {
    return __popc(v);
}

// Global or shared memory; gives the value before. No atomics on floats: sums would depend on
// order.
KT_DEVICE uint32_t kt_atomic_add(uint32_t *at, uint32_t v) {
    return atomicAdd(at, v);
}

// ---- memory

// Read once and not again: keeps out of the L1 cache. Aligned to its size; not written in this
// launch.
KT_DEVICE kt_u32x4 kt_load_once16(const void *at) {
    kt_u32x4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
    return v;
}
KT_DEVICE kt_u32x2 kt_load_once8(const void *at) {
    kt_u32x2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "l"(at));
    return v;
}
KT_DEVICE uint32_t kt_load_once2(const void *at) {
    uint16_t v;
    asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(v) : "l"(at));
    return v;
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
// Written by another block of this launch.
KT_DEVICE float kt_load_shared_by_blocks(const float *at) {
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(at) : "memory");
    return v;
}

// ---- numbers

KT_DEVICE float kt_fma(float a, float b, float c) {
    return __fmaf_rn(a, b, c);
}
KT_DEVICE float kt_mul(float a, float b) {
    return __fmul_rn(a, b);
} // never joined to an fma
KT_DEVICE float kt_add(float a, float b) {
    return __fadd_rn(a, b);
}
KT_DEVICE float kt_div(float a, float b) {
    return __fdiv_rn(a, b);
}
KT_DEVICE double kt_mul(double a, double b) {
    return __dmul_rn(a, b);
}
KT_DEVICE float kt_round(float v) {
    return rintf(v);
} // halves to even
KT_DEVICE float kt_min(float a, float b) {
    return fminf(a, b);
}
KT_DEVICE float kt_max(float a, float b) {
    return fmaxf(a, b);
}
KT_DEVICE float kt_sqrt(float v) {
    return __fsqrt_rn(v);
}
KT_DEVICE float kt_exp(float v) {
    return expf(v);
}
KT_DEVICE float kt_exp2(float v) {
    return exp2f(v);
}
KT_DEVICE float kt_log(float v) {
    return logf(v);
}
KT_DEVICE float kt_pow(float a, float b) {
    return powf(a, b);
}
KT_DEVICE double kt_ceil(double v) {
    return ceil(v);
}

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
    double n = rint(v * 0.63661977236758134);
    kt_sin_cos_quarter((float)(v - n * 1.5707963267948966), (int32_t)n, sine, cosine);
}

#endif
