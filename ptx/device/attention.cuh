// Attention of 16 queries, held by a warp, over keys and values that pass through shared memory:
// scores and sums in f32, probabilities in f16, softmax on the fly. source: Dao 2023, arXiv
// 2307.08691, algorithm 1
#ifndef KT_DEVICE_ATTENTION_CUH
#define KT_DEVICE_ATTENTION_CUH

#include "mma.cuh"

enum {
    KT_ATTENTION_THREADS = 128,
    KT_ATTENTION_KEYS = 64, // of a tile in shared memory
};

// f16 of a row of a tile in shared memory: an odd number of 16-byte pieces, so that ldmatrix meets
// no bank twice.
static __device__ __forceinline__ constexpr int32_t kt_attention_stride(int32_t hd) {
    return hd / 8 % 2 == 1 ? hd : hd + 8;
}

// HD: head width, a multiple of 8. KEYS: keys taken at a time, a multiple of 16. A lane has rows g
// and g + 8 of the queries (g = lane / 4): index 0 and 1 below.
template <int32_t HD, int32_t KEYS> struct kt_attention {
    static constexpr int32_t steps = (HD + 15) / 16, pieces = HD / 8;
    static constexpr int32_t stride = kt_attention_stride(HD);
    uint32_t q[steps][4];
    float o[pieces][4]; // as C of kt_mma: 8 columns each
    float top[2];       // highest score so far, in units of log2
    float sum[2]; // of the probabilities relative to it, of this lane's columns until finish()

    // low, high: the lane's two queries; NULL gives 0.
    __device__ __forceinline__ void start(const kt_f16 *low, const kt_f16 *high) {
        KT_UNROLL
        for (int32_t s = 0; s < steps; s++) {
            KT_UNROLL
            for (int32_t i = 0; i < 4; i++) {
                const kt_f16 *row = i % 2 == 0 ? low : high;
                const bool inside = s * 16 + i / 2 * 8 < HD;
                q[s][i] = 0;
                if (inside && row != 0)
                    q[s][i] = *(const uint32_t *)(row + s * 16 + i / 2 * 8 + kt_lane() % 4 * 2);
            }
        }
        KT_UNROLL
        for (int32_t j = 0; j < pieces; j++) o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0;
        top[0] = top[1] = kt_float(0xff800000u);
        sum[0] = sum[1] = 0;
    }

    // s[j]: scores of keys 8 j .. of `keys` (rows of `stride` f16) as C of kt_mma.
    __device__ __forceinline__ void score(float s[KEYS / 8][4], const kt_f16 *keys) const {
        const int32_t lane = kt_lane();
        KT_UNROLL
        for (int32_t j = 0; j < KEYS / 8; j++) {
            const kt_f16 *row = keys + (j * 8 + lane % 8) * stride;
            s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
            KT_UNROLL
            for (int32_t first = 0; first < pieces; first += 4) {
                uint32_t b[4];
                // pieces beyond the head meet queries that are 0
                kt_ldmatrix4(b, row + kt_min(first + lane / 8, pieces - 1) * 8);
                kt_mma(s[j], q[first / 2], b[0], b[1]);
                if (first + 2 < pieces) kt_mma(s[j], q[first / 2 + 1], b[2], b[3]);
            }
        }
    }

    // Keys from `first` on; those at or above the row's limit do not count.
    __device__ __forceinline__ static void mask(
        float s[KEYS / 8][4], int32_t first, int32_t limit_low, int32_t limit_high) {
        KT_UNROLL
        for (int32_t j = 0; j < KEYS / 8; j++) {
            KT_UNROLL
            for (int32_t c = 0; c < 4; c++) {
                int32_t key = first + j * 8 + kt_lane() % 4 * 2 + c % 2;
                if (key >= (c < 2 ? limit_low : limit_high)) s[j][c] = kt_float(0xff800000u);
            }
        }
    }

    // Scores (times `scale` in units of log2) become probabilities; earlier sums are brought in
    // line.
    __device__ __forceinline__ void soften(float s[KEYS / 8][4], float scale) {
        KT_UNROLL
        for (int32_t h = 0; h < 2; h++) {
            float high = kt_float(0xff800000u);
            KT_UNROLL
            for (int32_t j = 0; j < KEYS / 8; j++)
                high = kt_max(high, kt_max(s[j][2 * h], s[j][2 * h + 1]));
            high = kt_max(high, kt_shfl_xor(high, 1));
            high = kt_max(high, kt_shfl_xor(high, 2));
            high = kt_max(top[h], high * scale);
            const float base = high == kt_float(0xff800000u) ? 0 : high; // no key yet
            const float shrink = kt_exp2(top[h] - base);
            top[h] = high;
            sum[h] *= shrink;
            KT_UNROLL
            for (int32_t j = 0; j < pieces; j++) {
                o[j][2 * h] *= shrink;
                o[j][2 * h + 1] *= shrink;
            }
            KT_UNROLL
            for (int32_t j = 0; j < KEYS / 8; j++) {
                KT_UNROLL
                for (int32_t c = 2 * h; c < 2 * h + 2; c++) {
                    s[j][c] = kt_exp2(kt_fma(s[j][c], scale, -base));
                    sum[h] += s[j][c];
                }
            }
        }
    }

    // o += probabilities x `values` (rows of `stride` f16).
    __device__ __forceinline__ void add(const float s[KEYS / 8][4], const kt_f16 *values) {
        const int32_t lane = kt_lane();
        KT_UNROLL
        for (int32_t k = 0; k < KEYS / 16; k++) {
            const uint32_t p[4] = {kt_pack_f16(s[2 * k][0], s[2 * k][1]),
                kt_pack_f16(s[2 * k][2], s[2 * k][3]),
                kt_pack_f16(s[2 * k + 1][0], s[2 * k + 1][1]),
                kt_pack_f16(s[2 * k + 1][2], s[2 * k + 1][3])};
            const kt_f16 *row = values + (k * 16 + lane % 16) * stride;
            KT_UNROLL
            for (int32_t j = 0; j < pieces; j += 2) {
                uint32_t b[4];
                kt_ldmatrix4_transposed(b, row + kt_min(j + lane / 16, pieces - 1) * 8);
                kt_mma(o[j], p, b[0], b[1]);
                if (j + 1 < pieces) kt_mma(o[j + 1], p, b[2], b[3]);
            }
        }
    }

    // Sums over all columns, in every lane of the row.
    __device__ __forceinline__ void finish() {
        KT_UNROLL
        for (int32_t h = 0; h < 2; h++) {
            sum[h] += kt_shfl_xor(sum[h], 1);
            sum[h] += kt_shfl_xor(sum[h], 2);
        }
    }

    // o / sum of row h to `to`; a row that met no key gives 0.
    __device__ __forceinline__ void store(int32_t h, kt_f16 *to) const {
        const float scale = sum[h] > 0 ? 1.0f / sum[h] : 0;
        KT_UNROLL
        for (int32_t j = 0; j < pieces; j++)
            *(uint32_t *)(to + j * 8 + kt_lane() % 4 * 2) =
                kt_pack_f16(o[j][2 * h] * scale, o[j][2 * h + 1] * scale);
    }
};

// 64 rows of HD numbers to shared memory in the background; source(i) is row i or NULL, which gives
// 0. `safe`: any address in global memory that may be read.
template <int32_t HD, class Source>
KT_DEVICE void kt_attention_stage(kt_f16 *to, const Source &source, const kt_f16 *safe) {
    constexpr int32_t pieces = HD / 8, stride = kt_attention_stride(HD);
    for (int32_t i = (int32_t)threadIdx.x; i < KT_ATTENTION_KEYS * pieces;
         i += KT_ATTENTION_THREADS) {
        int32_t row = i / pieces, piece = i % pieces;
        const kt_f16 *from = source(row);
        kt_copy16(
            to + row * stride + piece * 8, from != 0 ? from + piece * 8 : safe, from != 0 ? 16 : 0);
    }
}

// A block's warps, each with its own 16 queries, over all tiles of 64 keys: n_tiles of them. key(t,
// i), value(t, i): row i of tile t. Keys at or above the rows' limits do not count. Shared memory:
// two tiles.
template <int32_t HD, class Key, class Value>
KT_DEVICE void kt_attention_run(kt_attention<HD, KT_ATTENTION_KEYS> &state, kt_f16 *shared,
    int32_t n_tiles, const Key &key, const Value &value, const kt_f16 *safe, int32_t limit_low,
    int32_t limit_high, float scale) {
    kt_f16 *keys = shared, *values = shared + KT_ATTENTION_KEYS * kt_attention_stride(HD);
    if (n_tiles > 0)
        kt_attention_stage<HD>(
            keys, [&](int32_t i) { return key(0, i); }, safe);
    kt_copy_commit();
    KT_NO_UNROLL
    for (int32_t t = 0; t < n_tiles; t++) {
        kt_attention_stage<HD>(
            values, [&](int32_t i) { return value(t, i); }, safe);
        kt_copy_commit();
        kt_copy_wait<1>();
        kt_sync(); // keys of this tile are there
        float s[KT_ATTENTION_KEYS / 8][4];
        state.score(s, keys);
        kt_sync(); // and done with
        if (t + 1 < n_tiles)
            kt_attention_stage<HD>(
                keys, [&](int32_t i) { return key(t + 1, i); }, safe);
        kt_copy_commit();
        state.mask(s, t * KT_ATTENTION_KEYS, limit_low, limit_high);
        state.soften(s, scale);
        kt_copy_wait<1>();
        kt_sync(); // values are there
        state.add(s, values);
        kt_sync();
    }
    state.finish();
}

#endif
