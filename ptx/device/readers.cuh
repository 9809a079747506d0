// Readers of the tiled layouts (tiles.cuh) for matrix products (matmul.cuh): weights as A operands
// of mma.m16n8k16. A reader is a type with
//   strip                        where one lane reads a row of tiles
//   tile                         what it keeps of one tile between load and use
//   scale_steps                  0: numbers are weights; 4: so many steps share a row's scale
//   fill(shared)                 makes tables (KT_MATMUL_TABLE bytes); the caller syncs
//   open(strip, row_tile)
//   load(tile, strip, group)     group: tile column, 64 columns of W
//   fragment(tile, step, a)      A operand of 16 columns
//   scale(tile, strip, step, s)  scales of rows g and g + 8 (if scale_steps > 0)
#ifndef KT_DEVICE_READERS_CUH
#define KT_DEVICE_READERS_CUH

#include "tiles.cuh"

enum {
    KT_MATMUL_THREADS = 256,
    KT_MATMUL_TABLE = 32768 + 1024, // bytes: byte -> two f16 in 32 copies, one a bank; scale book
};

template <int32_t M, int32_t K> struct kt_reader_f16 {
    struct strip {
        const uint8_t *from;
    };
    struct tile {
        kt_u32x4 step[4];
    };
    static constexpr int32_t rows = M, cols = K, scale_steps = 0;
    const uint8_t *tiles;

    __device__ __forceinline__ explicit kt_reader_f16(const uint8_t *block) : tiles(block) {}
    __device__ __forceinline__ void fill(unsigned char *) {}
    __device__ __forceinline__ void open(strip &to, int32_t row_tile) const {
        to.from =
            tiles + (int64_t)row_tile * (kt_ceil_div(K, 64) * KT_TILE_F16_BYTES) + kt_lane() * 16;
    }
    __device__ __forceinline__ void load(tile &to, const strip &at, int32_t group) const {
        const uint8_t *from = at.from + (int64_t)group * KT_TILE_F16_BYTES;
        KT_UNROLL
        for (int32_t s = 0; s < 4; s++) to.step[s] = kt_load_once16(from + s * 512);
    }
    __device__ __forceinline__ void fragment(const tile &from, int32_t step, uint32_t a[4]) const {
        a[0] = from.step[step].x;
        a[1] = from.step[step].y;
        a[2] = from.step[step].z;
        a[3] = from.step[step].w;
    }
};

KT_DEVICE uint32_t kt_word(const kt_u32x4 &v, int32_t i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
// Both f16 are the low, the high one of a pair.
KT_DEVICE uint32_t kt_both_low(uint32_t pair) {
    return kt_permute(pair, 0, 0x1010);
}
KT_DEVICE uint32_t kt_both_high(uint32_t pair) {
    return kt_permute(pair, 0, 0x3232);
}

// Codes of 4 bits through a table in shared memory: what both lut4 readers have in common. Entry b
// of lane l, two f16, is word 32 b + l: no two lanes meet in a bank.
struct kt_codes {
    const unsigned char *table;

    __device__ __forceinline__ void fill(unsigned char *shared, const float *map) {
        for (int32_t i = (int32_t)threadIdx.x; i < 8192; i += KT_MATMUL_THREADS) {
            int32_t b = i / 32;
            ((uint32_t *)shared)[i] = kt_pack_f16(map[b & 15], map[b >> 4]);
        }
        table = shared;
    }
    __device__ __forceinline__ uint32_t look(uint32_t byte_times_128) const {
        return *(const uint32_t *)(table + (byte_times_128 & 0x7f80 | (uint32_t)kt_lane() * 4));
    }
    __device__ __forceinline__ void fragment(
        const kt_u32x4 &codes, int32_t step, uint32_t a[4]) const {
        uint32_t word = kt_word(codes, step);
        a[0] = look(word << 7);
        a[1] = look(word >> 1);
        a[2] = look(word >> 9);
        a[3] = look(word >> 17);
    }
};

template <int32_t M, int32_t K> struct kt_reader_lut4 {
    static_assert(K % 64 == 0, "this layout holds multiples of 64 columns");
    struct strip {
        const uint8_t *codes, *scale_codes;
        const float *spans; // second-level scales of row g; those of row g + 8 are 8 records on
        int32_t phase[2];
        float offset[2];
    };
    struct tile {
        kt_u32x4 codes;
        uint32_t scale_codes; // of rows g, g + 8
        float span[2];
    };
    static constexpr int32_t rows = M, cols = K, scale_steps = 4;
    static constexpr int32_t groups = K / 64, row_tiles = (M + 15) / 16;
    static constexpr int32_t record = 2 + kt_lut4_spans(K);
    const uint8_t *tiles;
    const float *row_records, *tables, *book;
    kt_codes codes;

    __device__ __forceinline__ explicit kt_reader_lut4(const uint8_t *block) : tiles(block) {
        constexpr int64_t at_rows =
            kt_align_up((int64_t)row_tiles * groups * KT_TILE_LUT4_BYTES, KT_PART_ALIGN);
        constexpr int64_t at_tables =
            at_rows + kt_align_up((int64_t)row_tiles * 16 * record * 4, KT_PART_ALIGN);
        row_records = (const float *)(block + at_rows);
        tables = (const float *)(block + at_tables);
    }
    __device__ __forceinline__ void fill(unsigned char *shared) {
        codes.fill(shared, tables);
        float *to = (float *)(shared + 32768);
        for (int32_t i = (int32_t)threadIdx.x; i < 256; i += KT_MATMUL_THREADS)
            to[i] = tables[16 + i];
        book = to;
    }
    __device__ __forceinline__ void open(strip &to, int32_t row_tile) const {
        const uint8_t *from = tiles + (int64_t)row_tile * (groups * KT_TILE_LUT4_BYTES);
        to.codes = from + kt_lane() * 16;
        to.scale_codes = from + KT_TILE_CODES_BYTES + kt_lane() / 4 * 2;
        to.spans = row_records + (row_tile * 16 + kt_lane() / 4) * record + 2;
        KT_UNROLL
        for (int32_t h = 0; h < 2; h++) {
            to.phase[h] = (int32_t)to.spans[h * 8 * record - 2];
            to.offset[h] = to.spans[h * 8 * record - 1];
        }
    }
    __device__ __forceinline__ void load(tile &to, const strip &at, int32_t group) const {
        to.codes = kt_load_once16(at.codes + (int64_t)group * KT_TILE_LUT4_BYTES);
        to.scale_codes = kt_load_once2(at.scale_codes + (int64_t)group * KT_TILE_LUT4_BYTES);
        KT_UNROLL
        for (int32_t h = 0; h < 2; h++)
            to.span[h] = at.spans[h * 8 * record + ((uint32_t)(at.phase[h] + group) >> 8)];
    }
    __device__ __forceinline__ void fragment(const tile &from, int32_t step, uint32_t a[4]) const {
        codes.fragment(from.codes, step, a);
    }
    __device__ __forceinline__ void scale(
        const tile &from, const strip &at, int32_t, float s[2]) const {
        s[0] = kt_fma(book[from.scale_codes & 255], from.span[0], at.offset[0]);
        s[1] = kt_fma(book[from.scale_codes >> 8], from.span[1], at.offset[1]);
    }
};

template <int32_t M, int32_t K> struct kt_reader_lut4_k16 {
    static_assert(K % 16 == 0, "this layout holds multiples of 16 columns");
    struct strip {
        const uint8_t *codes, *scales;
    };
    struct tile {
        kt_u32x4 codes, scales;
    };
    static constexpr int32_t rows = M, cols = K, scale_steps = 0;
    static constexpr int32_t groups = (K + 63) / 64, row_tiles = (M + 15) / 16;
    const uint8_t *tiles;
    const float *map;
    kt_codes codes;

    __device__ __forceinline__ explicit kt_reader_lut4_k16(const uint8_t *block) : tiles(block) {
        constexpr int64_t at_map =
            kt_align_up((int64_t)row_tiles * groups * KT_TILE_LUT4_K16_BYTES, KT_PART_ALIGN);
        map = (const float *)(block + at_map);
    }
    __device__ __forceinline__ void fill(unsigned char *shared) { codes.fill(shared, map); }
    __device__ __forceinline__ void open(strip &to, int32_t row_tile) const {
        const uint8_t *from = tiles + (int64_t)row_tile * (groups * KT_TILE_LUT4_K16_BYTES);
        to.codes = from + kt_lane() * 16;
        to.scales = from + KT_TILE_CODES_BYTES + kt_lane() / 4 * 16;
    }
    __device__ __forceinline__ void load(tile &to, const strip &at, int32_t group) const {
        to.codes = kt_load_once16(at.codes + (int64_t)group * KT_TILE_LUT4_K16_BYTES);
        to.scales = kt_load_once16(at.scales + (int64_t)group * KT_TILE_LUT4_K16_BYTES);
    }
    __device__ __forceinline__ void fragment(const tile &from, int32_t step, uint32_t a[4]) const {
        const uint32_t scales = kt_word(from.scales, step);
        codes.fragment(from.codes, step, a);
        KT_UNROLL
        for (int32_t i = 0; i < 4; i++)
            a[i] = kt_fma_f16x2(a[i], i % 2 ? kt_both_high(scales) : kt_both_low(scales), 0);
    }
};

// Codes of tiles_q4 and the low bits of those of tiles_q6 as two f16 1024 + code; 1024 + 16 code
// for the columns 8 .. 15 of a step (u 1). h: row g + 8 h.
KT_DEVICE uint32_t kt_codes_q4(uint32_t word, int32_t h, int32_t u) {
    return kt_and_or(h ? word >> 8 : word, u ? 0x00f000f0 : 0x000f000f, 0x64006400);
}
// tiles_q4, tiles_q6 and tiles_q8: as in tiles_lut4_k16 the fragment is the weights themselves,
// rounded to f16. Pairs of f16 below: 0x3c00 is 1, 0x2c00 1 / 16.

template <int32_t M, int32_t K> struct kt_reader_q4 {
    struct strip {
        const uint8_t *codes, *scales;
    };
    struct tile {
        kt_u32x4 codes, scales; // scales: a half's rows g, g + 8 follow each other
    };
    static constexpr int32_t rows = M, cols = K, scale_steps = 0;
    const uint8_t *tiles;

    __device__ __forceinline__ explicit kt_reader_q4(const uint8_t *block) : tiles(block) {}
    __device__ __forceinline__ void fill(unsigned char *) {}
    __device__ __forceinline__ void open(strip &to, int32_t row_tile) const {
        const uint8_t *from = tiles + (int64_t)row_tile * (kt_ceil_div(K, 64) * KT_TILE_Q4_BYTES);
        to.codes = from + kt_lane() * 16;
        to.scales = from + kt_tile_q4_scale_at(kt_lane() / 4, 0);
    }
    __device__ __forceinline__ void load(tile &to, const strip &at, int32_t group) const {
        to.codes = kt_load_once16(at.codes + (int64_t)group * KT_TILE_Q4_BYTES);
        to.scales = kt_load_once16(at.scales + (int64_t)group * KT_TILE_Q4_BYTES);
    }
    __device__ __forceinline__ void fragment(const tile &from, int32_t step, uint32_t a[4]) const {
        const uint32_t word = kt_word(from.codes, step);
        KT_UNROLL
        for (int32_t h = 0; h < 2; h++) {
            uint32_t pair = kt_word(from.scales, step / 2 * 2 + h);
            uint32_t s = kt_both_low(pair), m = kt_both_high(pair);
            uint32_t low = kt_fma_f16x2(kt_codes_q4(word, h, 0), 0x3c003c00, 0xe408e408); // - 1024
            uint32_t high =
                kt_fma_f16x2(kt_codes_q4(word, h, 1), 0x2c002c00, 0xd480d480); // - 64 - 8
            a[h] = kt_fma_f16x2(low, s, m);
            a[2 + h] = kt_fma_f16x2(high, s, m);
        }
    }
};

template <int32_t M, int32_t K> struct kt_reader_q6 {
    struct strip {
        const uint8_t *codes, *high, *scales, *mins;
    };
    struct tile {
        kt_u32x4 codes, scales; // scales: a word a step, row g low
        kt_u32x2 high, mins;    // a word a half
    };
    static constexpr int32_t rows = M, cols = K, scale_steps = 0;
    const uint8_t *tiles;

    __device__ __forceinline__ explicit kt_reader_q6(const uint8_t *block) : tiles(block) {}
    __device__ __forceinline__ void fill(unsigned char *) {}
    __device__ __forceinline__ void open(strip &to, int32_t row_tile) const {
        const uint8_t *from = tiles + (int64_t)row_tile * (kt_ceil_div(K, 64) * KT_TILE_Q6_BYTES);
        to.codes = from + kt_lane() * 16;
        to.high = from + KT_TILE_CODES_BYTES + kt_lane() * 8;
        to.scales = from + kt_tile_q6_scale_at(kt_lane() / 4, 0);
        to.mins = from + kt_tile_q6_min_at(kt_lane() / 4, 0);
    }
    __device__ __forceinline__ void load(tile &to, const strip &at, int32_t group) const {
        const int64_t skip = (int64_t)group * KT_TILE_Q6_BYTES;
        to.codes = kt_load_once16(at.codes + skip);
        to.scales = kt_load_once16(at.scales + skip);
        to.high = kt_load_once8(at.high + skip);
        to.mins = kt_load_once8(at.mins + skip);
    }
    __device__ __forceinline__ void fragment(const tile &from, int32_t step, uint32_t a[4]) const {
        const uint32_t word = kt_word(from.codes, step);
        const uint32_t bits = step < 2 ? from.high.x : from.high.y;
        const uint32_t scales = kt_word(from.scales, step);
        const uint32_t mins = step < 2 ? from.mins.x : from.mins.y;
        KT_UNROLL
        for (int32_t h = 0; h < 2; h++) {
            uint32_t s = h ? kt_both_high(scales) : kt_both_low(scales);
            uint32_t m = h ? kt_both_high(mins) : kt_both_low(mins);
            // High bits on top of the low ones: from bit 4 (step % 2) + 2 u of byte h to 4 + 4 u.
            uint32_t low =
                kt_and_or(up(bits, 4 - step % 2 * 4 - 8 * h), 0x00300030, kt_codes_q4(word, h, 0));
            uint32_t high =
                kt_and_or(up(bits, 6 - step % 2 * 4 - 8 * h), 0x03000300, kt_codes_q4(word, h, 1));
            low = kt_fma_f16x2(low, 0x3c003c00, 0xe420e420);   // - 1024 - 32
            high = kt_fma_f16x2(high, 0x2c002c00, 0xd600d600); // - 64 - 32
            a[h] = kt_fma_f16x2(low, s, m);
            a[2 + h] = kt_fma_f16x2(high, s, m);
        }
    }
    static __device__ __forceinline__ uint32_t up(uint32_t v, int32_t bits) {
        return bits >= 0 ? v << bits : v >> -bits;
    }
};

template <int32_t M, int32_t K> struct kt_reader_q8 {
    struct strip {
        const uint8_t *codes, *scales;
    };
    struct tile {
        kt_u32x4 codes[2]; // by half
        kt_u32x2 scales;   // a word a half, row g low
    };
    static constexpr int32_t rows = M, cols = K, scale_steps = 0;
    const uint8_t *tiles;

    __device__ __forceinline__ explicit kt_reader_q8(const uint8_t *block) : tiles(block) {}
    __device__ __forceinline__ void fill(unsigned char *) {}
    __device__ __forceinline__ void open(strip &to, int32_t row_tile) const {
        const uint8_t *from = tiles + (int64_t)row_tile * (kt_ceil_div(K, 64) * KT_TILE_Q8_BYTES);
        to.codes = from + kt_lane() * 16;
        to.scales = from + kt_tile_q8_scale_at(kt_lane() / 4, 0);
    }
    __device__ __forceinline__ void load(tile &to, const strip &at, int32_t group) const {
        const int64_t skip = (int64_t)group * KT_TILE_Q8_BYTES;
        to.codes[0] = kt_load_once16(at.codes + skip);
        to.codes[1] = kt_load_once16(at.codes + skip + 512);
        to.scales = kt_load_once8(at.scales + skip);
    }
    __device__ __forceinline__ void fragment(const tile &from, int32_t step, uint32_t a[4]) const {
        const uint32_t scales = step < 2 ? from.scales.x : from.scales.y;
        KT_UNROLL
        for (int32_t i = 0; i < 4; i++) {
            uint32_t word = kt_word(from.codes[step / 2], step % 2 * 2 + i / 2);
            uint32_t v = kt_permute(word, 0x64646464, i % 2 ? 0x4342 : 0x4140); // 1024 + code
            v = kt_fma_f16x2(v, 0x3c003c00, 0xe480e480);                        // - 1024 - 128
            a[i] = kt_fma_f16x2(v, i % 2 ? kt_both_high(scales) : kt_both_low(scales), 0);
        }
    }
};

// KT_READER_W: the template for the layout that this build has the input `w` in; not defined where
// there is none, or another input of weights.
#if KT_LAYOUT_W_TILES_LUT4
#define KT_READER_W kt_reader_lut4
#elif KT_LAYOUT_W_TILES_LUT4_K16
#define KT_READER_W kt_reader_lut4_k16
#elif KT_LAYOUT_W_TILES_Q4
#define KT_READER_W kt_reader_q4
#elif KT_LAYOUT_W_TILES_Q6
#define KT_READER_W kt_reader_q6
#elif KT_LAYOUT_W_TILES_Q8
#define KT_READER_W kt_reader_q8
#elif KT_LAYOUT_W_TILES_F16
#define KT_READER_W kt_reader_f16
#endif

#endif
