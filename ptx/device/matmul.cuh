// y[n, m] = x[n, k] W[m, k]^T on tensor cores with f32 sums: readers of the tiled layouts and two
// loops over the columns, for few rows of x and for many.
//
// Weights are the A operand (16 rows a tile), rows of x the 8 columns of B. A reader is a type with
//   strip                        where one lane reads a row of tiles
//   tile                         what it keeps of one tile between load and use
//   scale_steps                  0: numbers are weights; 1, 4: so many steps share a row's scale
//   fill(shared)                 makes tables (KT_MATMUL_TABLE bytes); the caller syncs
//   open(strip, row_tile)
//   load(tile, strip, group)     group: tile column, 64 columns of W
//   fragment(tile, step, a)      A operand of 16 columns
//   scale(tile, strip, step, s)  scales of rows g and g + 8 (if scale_steps > 0)
//
// A sink has put(row of x, row of W, value).
#ifndef KT_DEVICE_MATMUL_CUH
#define KT_DEVICE_MATMUL_CUH

#include "mma.cuh"
#include "tiles.cuh"

enum {
    KT_MATMUL_THREADS = 256,
    KT_MATMUL_WARPS = 8,
    KT_MATMUL_TABLE = 32768 + 1024, // bytes: byte -> two f16 in 32 copies, one a bank; scale book
    KT_ROWS_TILES = 4,              // row tiles of a block of the loop for few rows
    KT_ROWS_SLICE = 32,             // groups of x in shared memory at a time
    KT_TILES_X = 128,               // rows of x, and of W, of a block of the loop for many rows
    KT_TILES_STAGES = 3,
    KT_TILES_STAGE_BYTES = KT_TILES_X * 128,
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
        to.from = tiles + row_tile * (kt_ceil_div(K, 64) * KT_TILE_F16_BYTES) + kt_lane() * 16;
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
        uint32_t word = step == 0 ? codes.x : step == 1 ? codes.y : step == 2 ? codes.z : codes.w;
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
    static constexpr int32_t rows = M, cols = K, scale_steps = 1;
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
        codes.fragment(from.codes, step, a);
    }
    __device__ __forceinline__ void scale(
        const tile &from, const strip &, int32_t step, float s[2]) const {
        uint32_t pair = step == 0   ? from.scales.x
                        : step == 1 ? from.scales.y
                        : step == 2 ? from.scales.z
                                    : from.scales.w;
        s[0] = kt_low_f16(pair);
        s[1] = kt_high_f16(pair);
    }
};

// `steps` steps of a tile from step `first` on: fragments and scales.
template <int32_t steps, class Reader>
KT_DEVICE void kt_matmul_unpack(const Reader &w, const typename Reader::tile &tile,
    const typename Reader::strip &strip, int32_t first, uint32_t a[steps][4], float s[steps][2]) {
    KT_UNROLL
    for (int32_t i = 0; i < steps; i++) w.fragment(tile, first + i, a[i]);
    if constexpr (Reader::scale_steps > 0) {
        KT_UNROLL
        for (int32_t i = 0; i < steps; i += Reader::scale_steps)
            w.scale(tile, strip, first + i, s[i]);
    }
}

// acc[16, 8] += (these steps of a tile) (the same columns of 8 rows of x).
template <int32_t steps, class Reader>
KT_DEVICE void kt_matmul_steps(float acc[4], const uint32_t a[steps][4], const float s[steps][2],
    const uint32_t b[2 * steps]) {
    if constexpr (Reader::scale_steps == 0) {
        KT_UNROLL
        for (int32_t i = 0; i < steps; i++) kt_mma(acc, a[i], b[2 * i], b[2 * i + 1]);
    } else {
        KT_UNROLL
        for (int32_t first = 0; first < steps; first += Reader::scale_steps) {
            float sum[4] = {0, 0, 0, 0};
            KT_UNROLL
            for (int32_t i = first; i < first + Reader::scale_steps; i++)
                kt_mma(sum, a[i], b[2 * i], b[2 * i + 1]);
            KT_UNROLL
            for (int32_t i = 0; i < 4; i++) acc[i] = kt_fma(s[first][i / 2], sum[i], acc[i]);
        }
    }
}

// x[rows up to 8, groups first .. end) as B operands: 16 bytes a lane for each 32 columns.
template <int32_t K>
KT_DEVICE void kt_matmul_stage_rows(
    uint32_t *to, const kt_f16 *x, int32_t n, int32_t first, int32_t end) {
    for (int32_t i = (int32_t)threadIdx.x; i < (end - first) * 256; i += KT_MATMUL_THREADS) {
        int32_t word = i & 3, lane = i >> 2 & 31, row = lane >> 2;
        int32_t col = first * 64 + (i >> 7) * 32 + word * 8 + (lane & 3) * 2;
        uint32_t pair = 0;
        if (row < n && col < K) pair = *(const uint32_t *)(x + (int64_t)row * K + col);
        to[i] = pair;
    }
}

// Up to 8 rows of x; 64 rows of W from row 64 * block, groups [first, end). A warp has every eighth
// group; their sums are added in the order of the warps. Shared memory: KT_MATMUL_TABLE, then 1024
// bytes a group up to KT_ROWS_SLICE groups. K must be even.
template <class Reader, class Sink>
KT_DEVICE void kt_matmul_rows(Reader w, const kt_f16 *x, int32_t n, int32_t block, int32_t first,
    int32_t end, unsigned char *shared, Sink sink) {
    constexpr int32_t last_tile = (Reader::rows + 15) / 16 - 1;
    uint32_t *xs = (uint32_t *)(shared + KT_MATMUL_TABLE);
    const int32_t lane = kt_lane(), warp = kt_warp();
    float acc[KT_ROWS_TILES][4] = {};
    typename Reader::strip strip[KT_ROWS_TILES];
    typename Reader::tile next[KT_ROWS_TILES];

    int32_t group = first + warp;
    KT_UNROLL
    for (int32_t i = 0; i < KT_ROWS_TILES; i++) {
        w.open(strip[i], kt_min(block * KT_ROWS_TILES + i, last_tile));
        if (group < end) w.load(next[i], strip[i], group);
    }
    w.fill(shared);
    KT_NO_UNROLL
    for (int32_t slice = first; slice < end; slice += KT_ROWS_SLICE) {
        int32_t slice_end = kt_min(slice + KT_ROWS_SLICE, end);
        if (slice > first) kt_sync();
        kt_matmul_stage_rows<Reader::cols>(xs, x, n, slice, slice_end);
        kt_sync();
        KT_NO_UNROLL
        for (; group < slice_end; group += KT_MATMUL_WARPS) {
            typename Reader::tile tile[KT_ROWS_TILES];
            KT_UNROLL
            for (int32_t i = 0; i < KT_ROWS_TILES; i++) tile[i] = next[i];
            if (group + KT_MATMUL_WARPS < end) {
                KT_UNROLL
                for (int32_t i = 0; i < KT_ROWS_TILES; i++)
                    w.load(next[i], strip[i], group + KT_MATMUL_WARPS);
            }
            uint32_t b[8];
            KT_UNROLL
            for (int32_t half = 0; half < 2; half++) {
                kt_u32x4 v = ((const kt_u32x4 *)xs)[((group - slice) * 2 + half) * 32 + lane];
                b[4 * half] = v.x;
                b[4 * half + 1] = v.y;
                b[4 * half + 2] = v.z;
                b[4 * half + 3] = v.w;
            }
            KT_UNROLL
            for (int32_t i = 0; i < KT_ROWS_TILES; i++) {
                uint32_t a[4][4];
                float s[4][2];
                kt_matmul_unpack<4>(w, tile[i], strip[i], 0, a, s);
                kt_matmul_steps<4, Reader>(acc[i], a, s, b);
            }
        }
    }

    kt_sync(); // tables are done with: their place takes the sums [warp][row of x][row of W]
    float *sums = (float *)shared;
    KT_UNROLL
    for (int32_t i = 0; i < KT_ROWS_TILES; i++) {
        KT_UNROLL
        for (int32_t j = 0; j < 4; j++)
            sums[(warp * 8 + lane % 4 * 2 + j % 2) * 64 + i * 16 + lane / 4 + j / 2 * 8] =
                acc[i][j];
    }
    kt_sync();
    for (int32_t i = (int32_t)threadIdx.x; i < 8 * 64; i += KT_MATMUL_THREADS) {
        int32_t row = i / 64, m = block * 64 + i % 64;
        if (row >= n || m >= Reader::rows) continue;
        float sum = 0;
        KT_UNROLL
        for (int32_t j = 0; j < KT_MATMUL_WARPS; j++) sum += sums[(j * 8 + row) * 64 + i % 64];
        sink.put(row, m, sum);
    }
}

// 128 rows of x from row x0, 64 columns of one group, to one stage; 16-byte pieces are exchanged
// within a row so that ldmatrix meets no bank twice.
template <int32_t K>
KT_DEVICE void kt_matmul_stage_tile(
    unsigned char *to, const kt_f16 *x, int32_t n, int32_t x0, int32_t group) {
    KT_UNROLL
    for (int32_t i = 0; i < KT_TILES_X * 8 / KT_MATMUL_THREADS; i++) {
        int32_t at = (int32_t)threadIdx.x + i * KT_MATMUL_THREADS;
        int32_t row = at / 8, piece = at % 8, col = group * 64 + piece * 8;
        unsigned char *place = to + row * 128 + (piece ^ (row & 7)) * 16;
        int32_t left = x0 + row < n ? kt_min(kt_max(K - col, 0), 8) : 0;
        const kt_f16 *from = left > 0 ? x + (int64_t)(x0 + row) * K + col : x;
        if constexpr (K % 8 == 0) {
            kt_copy16(place, from, left * 2);
        } else {
            kt_copy8(place, from, kt_min(left, 4) * 2);
            kt_copy8(place + 8, left > 4 ? from + 4 : x, kt_max(left - 4, 0) * 2);
        }
    }
}

// 128 rows of x from row x0 and 128 rows of W from row w0 (a multiple of 128), groups [first, end).
// A warp has 32 rows of W and 64 of x. Shared memory: KT_MATMUL_TABLE and KT_TILES_STAGES stages. K
// must be a multiple of 4, x aligned to 16 bytes.
template <class Reader, class Sink>
KT_DEVICE void kt_matmul_tiles(Reader w, const kt_f16 *x, int32_t n, int32_t x0, int32_t w0,
    int32_t first, int32_t end, unsigned char *shared, Sink sink) {
    constexpr int32_t last_tile = (Reader::rows + 15) / 16 - 1;
    unsigned char *stages = shared + KT_MATMUL_TABLE;
    const int32_t lane = kt_lane(), warp = kt_warp();
    // steps whose fragments are held at a time: few registers, but a sum must reach its scale
    constexpr int32_t steps = Reader::scale_steps == 4 ? 4 : 2;
    const int32_t row_tile = w0 / 16 + warp % 4 * 2, x_first = warp / 4 * 64;
    float acc[2][8][4] = {};
    typename Reader::strip strip[2];
    typename Reader::tile next[2];

    KT_UNROLL
    for (int32_t i = 0; i < KT_TILES_STAGES - 1; i++) {
        if (first + i < end)
            kt_matmul_stage_tile<Reader::cols>(
                stages + i * KT_TILES_STAGE_BYTES, x, n, x0, first + i);
        kt_copy_commit();
    }
    KT_UNROLL
    for (int32_t i = 0; i < 2; i++) {
        w.open(strip[i], kt_min(row_tile + i, last_tile));
        if (first < end) w.load(next[i], strip[i], first);
    }
    w.fill(shared);
    int32_t stage = 0;
    KT_NO_UNROLL
    for (int32_t group = first; group < end; group++) {
        kt_copy_wait<KT_TILES_STAGES - 2>();
        kt_sync(); // this stage has arrived; the one before is done with
        int32_t ahead = group + KT_TILES_STAGES - 1;
        int32_t free_stage = stage == 0 ? KT_TILES_STAGES - 1 : stage - 1;
        if (ahead < end)
            kt_matmul_stage_tile<Reader::cols>(
                stages + free_stage * KT_TILES_STAGE_BYTES, x, n, x0, ahead);
        kt_copy_commit();

        typename Reader::tile tile[2];
        KT_UNROLL
        for (int32_t i = 0; i < 2; i++) tile[i] = next[i];
        if (group + 1 < end) {
            KT_UNROLL
            for (int32_t i = 0; i < 2; i++) w.load(next[i], strip[i], group + 1);
        }
        const unsigned char *xs = stages + stage * KT_TILES_STAGE_BYTES;
        KT_UNROLL
        for (int32_t step = 0; step < 4; step += steps) {
            kt_sync_warp(); // here and below: or loads are moved up so far that registers spill
            uint32_t a[2][steps][4];
            float s[2][steps][2];
            KT_UNROLL
            for (int32_t i = 0; i < 2; i++)
                kt_matmul_unpack<steps>(w, tile[i], strip[i], step, a[i], s[i]);
            KT_UNROLL
            for (int32_t j = 0; j < 8; j++) {
                kt_sync_warp();
                const unsigned char *row = xs + (x_first + j * 8 + lane % 8) * 128;
                uint32_t b[2 * steps];
                KT_UNROLL
                for (int32_t i = 0; i < steps; i += 2)
                    kt_ldmatrix4(b + 2 * i, row + (lane / 8 + 2 * (step + i) ^ (lane & 7)) * 16);
                KT_UNROLL
                for (int32_t i = 0; i < 2; i++)
                    kt_matmul_steps<steps, Reader>(acc[i][j], a[i], s[i], b);
            }
        }
        stage = stage == KT_TILES_STAGES - 1 ? 0 : stage + 1;
    }

    KT_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        kt_sync_warp(); // as above
        KT_UNROLL
        for (int32_t c = 0; c < 4; c++) {
            int32_t row = x0 + x_first + j * 8 + lane % 4 * 2 + c % 2;
            KT_UNROLL
            for (int32_t i = 0; i < 2; i++) {
                int32_t m = (row_tile + i) * 16 + lane / 4 + c / 2 * 8;
                if (row < n && m < Reader::rows) sink.put(row, m, acc[i][j][c]);
            }
        }
    }
}

#endif
