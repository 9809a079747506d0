// Angles of the rotary position embedding.
#ifndef KT_DEVICE_ROTARY_CUH
#define KT_DEVICE_ROTARY_CUH

#include "kt.cuh"

// v^n, n below 2^bits, in few multiplications.
template <int32_t bits> KT_DEVICE double kt_power(double v, int32_t n) {
    double power = 1;
    KT_UNROLL
    for (int32_t i = 0; i < bits; i++) {
        if (n >> i & 1) power *= v;
        v *= v;
    }
    return power;
}

// Cosine and sine of position * theta^(-pair / half), pair below half <= 1024. An angle in f32
// would be off by 0.002 at position 30,000; a double power is slow: so one step of Newton's method
// refines the root of x^half = 1 / theta, and the rest are multiplications (about 40 in f64).
template <int32_t half>
KT_DEVICE void kt_rotary(int32_t position, int32_t pair, float theta, float *cosine, float *sine) {
    double root = (double)kt_pow(theta, -1.0f / half);
    root += root * (1 - kt_power<11>(root, half) * (double)theta) * (1.0 / half);
    kt_sin_cos(position * kt_power<11>(root, pair), sine, cosine);
}

#endif
