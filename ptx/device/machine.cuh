// What of the machine kernels may use: rounding, shared memory, barriers, warps, atomics, memory
// accesses with a hint. This file and mma.cuh are all that is written for a GPU: tests/emu/device
// has two of the same names and contents for a CPU, with which the tests run the same kernels.
#ifndef KT_DEVICE_MACHINE_CUH
#define KT_DEVICE_MACHINE_CUH

#include "types.cuh"

#define KT_DEVICE    static __device__ __forceinline__
#define KT_UNROLL    _Pragma("unroll")
#define KT_NO_UNROLL _Pragma("unroll 1")

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
KT_DEVICE double kt_round(double v) {
    return rint(v);
}
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

#endif
