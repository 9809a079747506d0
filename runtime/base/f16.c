#include "runtime/base/f16.h"

#include <string.h>

#if (defined(__x86_64__) && defined(__GNUC__))
#define HAVE_F16C 1
#include <immintrin.h>
#else
#define HAVE_F16C 0
#endif

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Format: IEEE 754 binary16, 1 sign, 5 exponent (bias 15), 10 fraction bits.
float kt_f16_to_f32(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000U) << 16;
    uint32_t exponent = (bits >> 10) & 0x1fU;
    uint32_t fraction = bits & 0x3ffU;
    if (exponent == 31) { // infinity, or a NaN made quiet as the hardware does
        uint32_t quiet = fraction != 0 ? 0x400000U : 0;
        return float_of(sign | 0x7f800000U | quiet | (fraction << 13));
    }
    if (exponent == 0) { // zero or denormal: fraction * 2^-24, exact in f32
        float value = (float)fraction * 0x1p-24F;
        return float_of(sign | bits_of(value));
    }
    return float_of(sign | ((exponent + 112) << 23) | (fraction << 13));
}

uint16_t kt_f32_to_f16(float value) {
    uint32_t bits = bits_of(value);
    uint32_t sign = (bits >> 16) & 0x8000U;
    uint32_t size = bits & 0x7fffffffU;
    if (size > 0x7f800000U) return (uint16_t)(sign | 0x7e00U | ((size >> 13) & 0x3ffU)); // NaN
    if (size >= 0x477ff000U) return (uint16_t)(sign | 0x7c00U); // 65520 and up round to infinity
    if (size < 0x38800000U) {
        // Below 2^-14 the result is a multiple of 2^-24. Adding 0.5 puts that unit in the last
        // place of an f32, so the addition itself rounds to nearest even.
        float shifted = float_of(size) + 0.5F;
        return (uint16_t)(sign | (bits_of(shifted) - 0x3f000000U));
    }
    uint32_t odd = (size >> 13) & 1U;
    uint32_t rounded = size + 0xfffU + odd - (112U << 23);
    return (uint16_t)(sign | (rounded >> 13));
}

float kt_bf16_to_f32(uint16_t bits) {
    return float_of((uint32_t)bits << 16);
}

uint16_t kt_f32_to_bf16(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return (uint16_t)((bits >> 16) | 0x40U); // NaN, quiet
    uint32_t odd = (bits >> 16) & 1U;
    return (uint16_t)((bits + 0x7fffU + odd) >> 16);
}

#if HAVE_F16C
// Whole groups of 8; returns how many elements were done.
__attribute__((target("avx,f16c"))) static size_t widen_f16c(
    const uint16_t *in, float *out, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i half = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(half));
    }
    return i;
}

__attribute__((target("avx,f16c"))) static size_t narrow_f16c(
    const float *in, uint16_t *out, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(out + i), half);
    }
    return i;
}

// Every processor with AVX2 has F16C; clang 14 has no name for F16C itself.
static int have_f16c(void) {
    return __builtin_cpu_supports("avx2");
}
#endif

void kt_f16_to_f32_row(const uint16_t *in, float *out, size_t n) {
    size_t i = 0;
#if HAVE_F16C
    if (have_f16c()) i = widen_f16c(in, out, n);
#endif
    for (; i < n; i++) out[i] = kt_f16_to_f32(in[i]);
}

void kt_f32_to_f16_row(const float *in, uint16_t *out, size_t n) {
    size_t i = 0;
#if HAVE_F16C
    if (have_f16c()) i = narrow_f16c(in, out, n);
#endif
    for (; i < n; i++) out[i] = kt_f32_to_f16(in[i]);
}
