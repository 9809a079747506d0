// ptx/device/machine.cuh for a CPU: the same names with the same meanings, on the emulator.
// module.h is in front of it.
//
// Barriers and collectives take the place of their call as default arguments, for messages and
// because threads must meet at one place; give them none.
#ifndef KT_DEVICE_MACHINE_CUH
#define KT_DEVICE_MACHINE_CUH

#include "types.cuh"

#define KT_DEVICE static __device__ __forceinline__
#define KT_UNROLL
#define KT_NO_UNROLL

// Where a function is called.
#define EMU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// The running thread. In assembly, so that a checked module does not call the emulator for it.
#if defined(__x86_64__)
static inline uint32_t emu_load(const uint32_t &from) {
    uint32_t v;
    asm("movl %1, %0" : "=r"(v) : "m"(from));
    return v;
}
static inline const emu_state *emu_here() {
    emu_state *state;
    asm("movq %1, %0" : "=r"(state) : "m"(emu_current));
    return state;
}
static inline emu_dim3 emu_load(const emu_dim3 &from) {
    return {emu_load(from.x), emu_load(from.y), emu_load(from.z)};
}
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#define threadIdx (emu_load(emu_here()->thread))
#define blockIdx  (emu_load(emu_here()->block))
#define blockDim  (emu_load(emu_here()->block_dim))
#define gridDim   (emu_load(emu_here()->grid_dim))
#endif

KT_DEVICE uint32_t kt_bits(float v) {
    uint32_t bits;
    __builtin_memcpy(&bits, &v, 4);
    return bits;
}
KT_DEVICE float kt_float(uint32_t bits) {
    float v;
    __builtin_memcpy(&v, &bits, 4);
    return v;
}

// ---- conversions, round to nearest even

KT_DEVICE kt_f16 kt_to_f16(float v) {
    _Float16 value = (_Float16)v;
    kt_f16 h;
    __builtin_memcpy(&h, &value, 2);
    return (kt_bits(v) & 0x7fffffff) > 0x7f800000 ? kt_f16{0x7fff} : h; // a GPU has one NaN
}
KT_DEVICE float kt_to_f32(kt_f16 h) {
    _Float16 value;
    __builtin_memcpy(&value, &h, 2);
    return (float)value;
}
KT_DEVICE uint32_t kt_fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    return emu_fma_f16x2(a, b, c);
}
KT_DEVICE uint32_t kt_and_or(uint32_t a, uint32_t mask, uint32_t bits) {
    return (a & mask) | bits;
}
KT_DEVICE uint32_t kt_permute(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = (uint64_t)b << 32 | a;
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v |= (uint32_t)(both >> (8 * (selector >> 4 * i & 7)) & 0xff) << 8 * i;
    return v;
}

// ---- shared memory

#define KT_SHARED_DYNAMIC(type, name) type *name = (type *)emu_shared_dynamic()
#define KT_SHARED(type, name, n)                                                                   \
    static const char emu_key_##name = 0;                                                          \
    type(&name)[n] = *(type(*)[n])emu_shared(&emu_key_##name, sizeof(type[n]), 16)

// ---- barriers, warps, atomics

KT_DEVICE int32_t kt_lane(void) {
    return (int32_t)(threadIdx.x & 31);
}
KT_DEVICE int32_t kt_warp(void) {
    return (int32_t)(threadIdx.x >> 5);
}

KT_DEVICE void kt_sync(EMU_PLACE) {
    emu_sync(file, line);
}
KT_DEVICE void kt_sync_warp(EMU_PLACE) {
    emu_sync_warp(file, line);
}
KT_DEVICE void kt_fence(void) {
    emu_fence();
}

KT_DEVICE float kt_shfl_xor(float v, int32_t mask, EMU_PLACE) {
    return kt_float((uint32_t)emu_shuffle_xor(kt_bits(v), mask, file, line));
}
KT_DEVICE uint32_t kt_shfl_xor(uint32_t v, int32_t mask, EMU_PLACE) {
    return (uint32_t)emu_shuffle_xor(v, mask, file, line);
}
KT_DEVICE uint64_t kt_shfl_xor(uint64_t v, int32_t mask, EMU_PLACE) {
    return emu_shuffle_xor(v, mask, file, line);
}
KT_DEVICE float kt_shfl(float v, int32_t lane, EMU_PLACE) {
    return kt_float((uint32_t)emu_shuffle(kt_bits(v), lane, file, line));
}
KT_DEVICE uint32_t kt_shfl(uint32_t v, int32_t lane, EMU_PLACE) {
    return (uint32_t)emu_shuffle(v, lane, file, line);
}
KT_DEVICE uint32_t kt_ballot(bool v, EMU_PLACE) {
    return emu_ballot(v, file, line);
}
KT_DEVICE int32_t kt_popcount(uint32_t v) {
    return __builtin_popcount(v);
}

KT_DEVICE uint32_t kt_atomic_add(uint32_t *at, uint32_t v) {
    return emu_atomic_add(at, v);
}

// ---- memory

KT_DEVICE kt_u32x4 kt_load_once16(const void *at) {
    kt_u32x4 v;
    emu_load_once(at, 16, &v);
    return v;
}
KT_DEVICE kt_u32x2 kt_load_once8(const void *at) {
    kt_u32x2 v;
    emu_load_once(at, 8, &v);
    return v;
}
KT_DEVICE uint32_t kt_load_once2(const void *at) {
    uint16_t v;
    emu_load_once(at, 2, &v);
    return v;
}
KT_DEVICE float kt_load_shared_by_blocks(const float *at) {
    float v;
    emu_load_shared_by_blocks(at, 4, &v);
    return v;
}

// ---- numbers

KT_DEVICE float kt_fma(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
KT_DEVICE float kt_mul(float a, float b) {
    return a * b;
}
KT_DEVICE float kt_add(float a, float b) {
    return a + b;
}
KT_DEVICE float kt_div(float a, float b) {
    return a / b;
}
KT_DEVICE double kt_mul(double a, double b) {
    return a * b;
}
KT_DEVICE float kt_round(float v) {
    return __builtin_rintf(v);
}
KT_DEVICE double kt_round(double v) {
    return __builtin_rint(v);
}
// A NaN loses, -0 is below +0.
KT_DEVICE float kt_min(float a, float b) {
    if (a == b) return kt_bits(a) >> 31 ? a : b;
    return a < b || b != b ? a : b;
}
KT_DEVICE float kt_max(float a, float b) {
    if (a == b) return kt_bits(a) >> 31 ? b : a;
    return a > b || b != b ? a : b;
}
KT_DEVICE float kt_sqrt(float v) {
    return __builtin_sqrtf(v);
}
KT_DEVICE float kt_exp(float v) {
    return __builtin_expf(v);
}
KT_DEVICE float kt_exp2(float v) {
    return __builtin_exp2f(v);
}
KT_DEVICE float kt_log(float v) {
    return __builtin_logf(v);
}
KT_DEVICE float kt_pow(float a, float b) {
    return __builtin_powf(a, b);
}
KT_DEVICE double kt_ceil(double v) {
    return __builtin_ceil(v);
}

#endif
