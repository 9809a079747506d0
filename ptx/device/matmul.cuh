// y[n, m] = x[n, k] W[m, k]^T on tensor cores with f32 sums: two loops over the columns, for few
// rows of x and for many. Weights are the A operand (16 rows a tile), rows of x the 8 columns of B.
// What reads the weights is a reader (readers.cuh). A sink has put(row of x, row of W, value).
#ifndef KT_DEVICE_MATMUL_CUH
#define KT_DEVICE_MATMUL_CUH

#include "mma.cuh"
#include "readers.cuh"

enum {
    KT_MATMUL_WARPS = 8,
    KT_ROWS_TILES = 4,  // row tiles of a block of the loop for few rows
    KT_ROWS_SLICE = 32, // groups of x in shared memory at a time
    KT_TILES_X = 128,   // rows of x, and of W, of a block of the loop for many rows
    KT_TILES_STAGES = 3,
    KT_TILES_STAGE_BYTES = KT_TILES_X * 128,
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
