#include "tools/fabricate/fill.h"

#include "runtime/base/f16.h"

#include <string.h>

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
}

static uint64_t word_at(uint64_t key, int64_t i) {
    return mix(key + ((uint64_t)i + 1) * 0x9E3779B97F4A7C15U);
}

uint64_t kt_fill_key(uint64_t seed, kt_str name) {
    return mix(mix(seed + 0x9E3779B97F4A7C15U) ^ kt_str_hash(name));
}

// ---- the normal distribution

static double exp_minus(double x) { // e^-x for 0 <= x <= 16
    double small = x / 64, term = 1, sum = 1;
    for (int i = 1; i < 20; i++) {
        term *= -small / i;
        sum += term;
    }
    for (int i = 0; i < 6; i++) sum *= sum;
    return sum;
}

static double density(double z) {
    return 0.3989422804014326779 * exp_minus(z * z / 2);
}

// The part of the distribution between 0 and z >= 0. Source: Marsaglia 2004, Evaluating the normal
// distribution.
static double part_below(double z) {
    double term = z, sum = z;
    for (int i = 3; i < 200; i += 2) {
        term *= z * z / i;
        sum += term;
    }
    return sum * density(z);
}

const double *kt_fill_normals(kt_arena *arena) {
    double *out = KT_NEW_ARRAY(arena, double, KT_FILL_LEVELS);
    double z = 0, squares = 0;
    const int half = KT_FILL_LEVELS / 2;
    for (int i = 0; i < half; i++) { // Newton's method from the level before
        double part = (i + 0.5) / KT_FILL_LEVELS;
        for (int k = 0; k < 8; k++) z += (part - part_below(z)) / density(z);
        out[half + i] = z;
        squares += 2 * z * z;
    }
    double root = 1; // of the variance, which the missing tails make a little less than 1
    for (int k = 0; k < 30; k++) root = (root + squares / KT_FILL_LEVELS / root) / 2;
    for (int i = 0; i < half; i++) {
        out[half + i] /= root;
        out[half - 1 - i] = -out[half + i];
    }
    return out;
}

// ---- words

static uint64_t normals16(const kt_fill *fill, uint64_t r) {
    const uint16_t *t = fill->levels16;
    return (uint64_t)t[r & 4095] | (uint64_t)t[(r >> 16) & 4095] << 16 |
           (uint64_t)t[(r >> 32) & 4095] << 32 | (uint64_t)t[(r >> 48) & 4095] << 48;
}

static uint64_t two_floats(float a, float b) {
    uint32_t x, y;
    memcpy(&x, &a, 4);
    memcpy(&y, &b, 4);
    return (uint64_t)x | (uint64_t)y << 32;
}

static uint64_t uniforms(const kt_fill *fill, uint64_t r) {
    float step = (fill->high - fill->low) / 16777216.0F;
    return two_floats(
        fill->low + step * (float)(r & 0xFFFFFF), fill->low + step * (float)((r >> 32) & 0xFFFFFF));
}

// Equally likely codes would weigh 0.375 / 16 on average, for the code book has more above zero
// than below; thousands of inputs add that up. So 3 of 16 codes 15 (1.0) become 0 (-1.0), chosen by
// other codes of the word.
static uint64_t codes(uint64_t r) {
    uint64_t other = r >> 20 | r << 44;
    uint64_t full = r & r >> 1 & r >> 2 & r >> 3;
    uint64_t some = other & other >> 1 & (other >> 2 | other >> 3);
    return r ^ (full & some & 0x1111111111111111U) * 15;
}

static uint64_t make_word(const kt_fill *fill, int64_t i) {
    uint64_t r = word_at(fill->key, i);
    switch (fill->kind) {
    case KT_FILL_NORMAL16:
        return normals16(fill, r);
    case KT_FILL_NORMAL32:
        return two_floats(fill->levels32[r & 4095], fill->levels32[(r >> 32) & 4095]);
    case KT_FILL_NF4:
        return codes(r);
    case KT_FILL_UNIFORM:
        return uniforms(fill, r);
    case KT_FILL_FIXED:
    case KT_FILL_BYTES:
    case KT_FILL_Q4_0:
    case KT_FILL_Q4_K:
    case KT_FILL_Q6_K:
        break;
    }
    return r;
}

// Whole words from word i on. One loop for each of the large kinds, for speed.
static void make_words(const kt_fill *fill, int64_t i, char *out, size_t n_words) {
    uint64_t word;
    if (fill->kind == KT_FILL_NORMAL16) {
        for (size_t k = 0; k < n_words; k++) {
            word = normals16(fill, word_at(fill->key, i + (int64_t)k));
            memcpy(out + 8 * k, &word, 8);
        }
    } else if (fill->kind == KT_FILL_NF4) {
        for (size_t k = 0; k < n_words; k++) {
            word = codes(word_at(fill->key, i + (int64_t)k));
            memcpy(out + 8 * k, &word, 8);
        }
    } else {
        for (size_t k = 0; k < n_words; k++) {
            word = make_word(fill, i + (int64_t)k);
            memcpy(out + 8 * k, &word, 8);
        }
    }
}

static void make_fixed(const kt_fill *fill, int64_t at, char *out, size_t n) {
    const char *from = fill->fixed;
    for (size_t k = 0; k < n; k++) out[k] = from[(at + (int64_t)k) % fill->fixed_bytes];
}

// ---- blocks of GGML. Source: ggml-common.h in ggml-org/ggml (block_q4_0, block_q4_K, block_q6_K)

enum { MAX_BLOCK = 216 };

static int block_bytes(kt_fill_kind kind) {
    return kind == KT_FILL_Q4_0 ? 18 : kind == KT_FILL_Q4_K ? 144 : 210;
}

static void put_half(uint8_t *to, uint16_t half) {
    to[0] = (uint8_t)half;
    to[1] = (uint8_t)(half >> 8);
}

// Codes lean to one side of zero in each of these types: a random sign of the scale, or a minimum
// that equals the mean, takes that out.
static void make_block(const kt_fill *fill, int64_t index, uint8_t out[MAX_BLOCK]) {
    for (int i = 0; i < MAX_BLOCK / 8; i++) {
        uint64_t word = word_at(fill->key, index * 32 + i);
        memcpy(out + (size_t)i * 8, &word, 8);
    }
    uint64_t r = word_at(fill->key, index * 32 + 31);
    uint16_t d = fill->levels16[r & 4095];
    if (fill->kind == KT_FILL_Q4_0) {
        put_half(out, d ^ (uint16_t)(r >> 48 & 0x8000));
    } else if (fill->kind == KT_FILL_Q4_K) {
        put_half(out, d);
        put_half(out + 2, kt_f32_to_f16(7.5F * kt_f16_to_f32(d)));
        for (int i = 0; i < 4; i++) { // sub-blocks i and i + 4: scales of 32 to 63, equal minima
            uint8_t low = out[4 + i] | 32, high = out[12 + i] | 32;
            out[4 + i] = out[8 + i] = (uint8_t)((low & 63) | (high & 48) << 2);
            out[12 + i] = (uint8_t)((high & 15) * 17);
        }
    } else {
        for (int i = 192; i < 208; i++) { // scales of 32 to 63 with a sign
            uint8_t size = (uint8_t)(32 | (out[i] & 31));
            out[i] = out[i] & 128 ? (uint8_t)-size : size;
        }
        put_half(out + 208, d);
    }
}

static void make_blocks(const kt_fill *fill, int64_t at, uint8_t *out, size_t n) {
    int64_t size = block_bytes(fill->kind);
    while (n > 0) {
        uint8_t block[MAX_BLOCK];
        size_t skip = (size_t)(at % size), part = (size_t)size - skip;
        if (part > n) part = n;
        make_block(fill, at / size, block);
        memcpy(out, block + skip, part);
        at += (int64_t)part;
        out += part;
        n -= part;
    }
}

void kt_fill_at(const kt_fill *fill, int64_t at, void *out, size_t n) {
    char *to = out;
    if (fill->kind == KT_FILL_FIXED) {
        make_fixed(fill, at, to, n);
        return;
    }
    if (fill->kind >= KT_FILL_Q4_0) {
        make_blocks(fill, at, out, n);
        return;
    }
    int64_t word = at / 8;
    size_t skip = (size_t)(at % 8);
    if (skip > 0) { // the end of a word
        uint64_t bits = make_word(fill, word++);
        size_t part = 8 - skip < n ? 8 - skip : n;
        memcpy(to, (char *)&bits + skip, part);
        to += part;
        n -= part;
    }
    make_words(fill, word, to, n / 8);
    if (n % 8 > 0) {
        uint64_t bits = make_word(fill, word + (int64_t)(n / 8));
        memcpy(to + n / 8 * 8, &bits, n % 8);
    }
}
