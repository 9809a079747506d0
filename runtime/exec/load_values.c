// Numbers on their way: every one is looked at, so the loops are plain enough for the compiler to
// make vectors of them.
#include "runtime/exec/load_parts.h"

#include "runtime/base/f16.h"

#include <string.h>

enum { BLOCK = 1024 }; // numbers between two looks at the result

// Bits of magnitudes. BEYOND: the least that rounds beyond f16's 65504; TINY: f16's least normal
// number, 2^-14.
enum {
    F16_INFINITE = 0x7c00,
    BF16_INFINITE = 0x7f80,
    BF16_BEYOND = 0x4780,
    BF16_TINY = 0x3880,
    F32_INFINITE = 0x7f800000,
    F32_BEYOND = 0x477ff000,
    F32_TINY = 0x38800000,
};

typedef struct seen {
    uint32_t n_small, largest;
} seen;

// Magnitudes are signed numbers here, which every processor can compare. `tiny` is at least 1, so
// that zeros are among those below it.
static seen look_16(const int16_t *at, int n, int16_t tiny) {
    int16_t small = 0, largest = 0;
    for (int i = 0; i < n; i++) {
        int16_t bits = (int16_t)(at[i] & 0x7fff);
        small = (int16_t)(small + (bits < tiny) - (bits == 0));
        if (bits > largest) largest = bits;
    }
    return (seen){(uint32_t)small, (uint32_t)largest};
}

static seen look_32(const int32_t *at, int n) {
    int32_t small = 0, largest = 0;
    for (int i = 0; i < n; i++) {
        int32_t bits = at[i] & 0x7fffffff;
        small += (bits < F32_TINY) - (bits == 0);
        if (bits > largest) largest = bits;
    }
    return (seen){(uint32_t)small, (uint32_t)largest};
}

static float f32_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// How one type of number is looked at.
typedef struct look {
    bool half;
    uint32_t limit, tiny;
} look;

static look look_of(kt_dtype dtype, bool f16) {
    if (dtype == KT_DTYPE_F32) return (look){false, f16 ? F32_BEYOND : F32_INFINITE, F32_TINY};
    if (dtype == KT_DTYPE_BF16) return (look){true, f16 ? BF16_BEYOND : BF16_INFINITE, BF16_TINY};
    return (look){true, F16_INFINITE, 1}; // none is small
}

int64_t kt_load_look(kt_dtype dtype, bool f16, const void *numbers, int64_t n, kt_load_scan *scan) {
    const look how = look_of(dtype, f16);
    const int16_t *halves = numbers;
    const int32_t *words = numbers;
    uint32_t largest = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int count = (int)(n - at < BLOCK ? n - at : BLOCK);
        seen found =
            how.half ? look_16(halves + at, count, (int16_t)how.tiny) : look_32(words + at, count);
        scan->n_small += found.n_small;
        if (found.largest > largest) largest = found.largest;
        if (found.largest < how.limit) continue;
        for (int64_t i = at;; i++) {
            uint32_t bits = (uint32_t)(how.half ? halves[i] & 0x7fff : words[i] & 0x7fffffff);
            if (bits >= how.limit) return i;
        }
    }
    double magnitude = dtype == KT_DTYPE_F16 ? (double)kt_f16_to_f32((uint16_t)largest)
                                             : (double)f32_of(how.half ? largest << 16 : largest);
    if (magnitude > scan->largest) scan->largest = magnitude;
    return -1;
}

int64_t kt_load_look_blocks(
    const kt_gguf_halves *halves, int64_t from, const char *bytes, int64_t n) {
    int64_t in = from % halves->block, first = -1;
    for (int i = 0; i < halves->n; i++) {
        int64_t at = halves->at[i] - in, block = 0;
        for (; at < 0; at += halves->block) block++;
        for (; at + 2 <= n; at += halves->block, block++) {
            uint16_t bits;
            memcpy(&bits, bytes + at, sizeof bits);
            if ((bits & F16_INFINITE) != F16_INFINITE) continue;
            if (first < 0 || block < first) first = block;
            break;
        }
    }
    return first;
}

void kt_load_widen(kt_dtype dtype, const void *in, float *out, int64_t n) {
    const uint16_t *half = in;
    if (dtype == KT_DTYPE_F32) memcpy(out, in, sizeof(float) * (size_t)n);
    if (dtype == KT_DTYPE_F16) kt_f16_to_f32_row(half, out, (size_t)n);
    if (dtype == KT_DTYPE_BF16)
        for (int64_t i = 0; i < n; i++) out[i] = kt_bf16_to_f32(half[i]);
}
