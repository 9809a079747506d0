// The tensor core's arithmetic, modelled: products are exact, a sum of c and 16 of them is in
// double (53 bits: more than a GPU keeps), rounded once to f32. A GPU's own order and width of sums
// is not documented; tolerances must hold with either.
#include "tests/emu/core/core.h"

#include <string.h>

typedef double row8 __attribute__((vector_size(64)));

#if defined(__F16C__)
#include <immintrin.h>
static float to_float(uint16_t bits) {
    return _cvtsh_ss(bits);
}
static uint32_t to_half(float v) {
    return _cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT);
}
static void to_floats(float *out, const uint16_t *bits, int n) { // n: a multiple of 8
    for (int i = 0; i < n; i += 8)
        _mm256_storeu_ps(
            out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(bits + i))));
}
#else
static float to_float(uint16_t bits) {
    uint32_t sign = (uint32_t)bits >> 15 << 31, exponent = bits >> 10 & 31, rest = bits & 1023;
    if (exponent == 0) return (sign != 0 ? -1.0f : 1.0f) * (float)rest / 16777216.0f;
    uint32_t out = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | rest << 13;
    float v;
    memcpy(&v, &out, sizeof v);
    return v;
}
static uint32_t to_half(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return sign | 0x7e00;
    if (rest >= 0x477ff000) return sign | 0x7c00;                  // 65520
    int shift = rest >= 0x38800000 ? 13 : 126 - (int)(rest >> 23); // bits that are lost
    if (shift > 24) return sign;
    uint32_t from = shift == 13 ? rest - 0x38000000 : (rest & 0x7fffff) | 0x800000;
    uint32_t half = UINT32_C(1) << (shift - 1), lost = from & (2 * half - 1);
    uint32_t out = from >> shift;
    return sign | (out + (lost > half || (lost == half && (out & 1) != 0)));
}
static void to_floats(float *out, const uint16_t *bits, int n) {
    for (int i = 0; i < n; i++) out[i] = to_float(bits[i]);
}
#endif

// c[16, 8] += a[16, 16] b[16, 8]; what a lane holds of them: ptx/device/mma.cuh.
void emu_mma_compute(emu_warp *warp) {
    uint16_t a_bits[16][16], b_bits[16][8];
    float a[16][16], b[16][8];
    row8 sum[16];
    for (int l = 0; l < EMU_WARP; l++) {
        const int g = l / 4, t = l % 4 * 2;
        const uint32_t *from = warp->in.mma.a[l];
        memcpy(&a_bits[g][t], &from[0], 4);
        memcpy(&a_bits[g + 8][t], &from[1], 4);
        memcpy(&a_bits[g][t + 8], &from[2], 4);
        memcpy(&a_bits[g + 8][t + 8], &from[3], 4);
        for (int i = 0; i < 2; i++) {
            b_bits[t + 8 * i][g] = (uint16_t)warp->in.mma.b[l][i];
            b_bits[t + 8 * i + 1][g] = (uint16_t)(warp->in.mma.b[l][i] >> 16);
        }
        const float *c = warp->in.mma.c[l];
        sum[g][t] = (double)c[0];
        sum[g][t + 1] = (double)c[1];
        sum[g + 8][t] = (double)c[2];
        sum[g + 8][t + 1] = (double)c[3];
    }
    to_floats(a[0], a_bits[0], 16 * 16);
    to_floats(b[0], b_bits[0], 16 * 8);
    row8 columns[16];
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++) columns[k][j] = (double)b[k][j];
    for (int i = 0; i < 16; i++) {
        row8 v = sum[i];
        for (int k = 0; k < 16; k++) v += (double)a[i][k] * columns[k];
        sum[i] = v;
    }
    for (int l = 0; l < EMU_WARP; l++) {
        const int g = l / 4, t = l % 4 * 2;
        float *c = warp->out.c[l];
        c[0] = (float)sum[g][t];
        c[1] = (float)sum[g][t + 1];
        c[2] = (float)sum[g + 8][t];
        c[3] = (float)sum[g + 8][t + 1];
    }
}

// A double holds a product of two f16 (22 bits), and its sum with a third f16 whenever that sum is
// near the middle between two f16: then their exponents are close. So the first rounding does not
// change the second, nor does a step through f32 whose last bit says that something was lost.
static uint32_t fma_f16(float a, float b, float c) {
    double v = (double)a * (double)b + (double)c;
    if (v != v) return 0x7fff; // a GPU has one NaN
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    double lost = v - (double)f; // an infinite f loses nothing
    if (lost != 0 && (bits & 0x7f800000) != 0x7f800000) {
        if ((lost < 0) != (bits >> 31 != 0)) bits--; // towards 0
        bits |= 1;
        memcpy(&f, &bits, sizeof f);
    }
    return to_half(f);
}

uint32_t emu_fma_f16x2(uint32_t a, uint32_t b, uint32_t c) {
    float low[3], high[3];
    const uint32_t from[3] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        low[i] = to_float((uint16_t)from[i]);
        high[i] = to_float((uint16_t)(from[i] >> 16));
    }
    return fma_f16(low[0], low[1], low[2]) | fma_f16(high[0], high[1], high[2]) << 16;
}
