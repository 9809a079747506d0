// Kernels of ops/paged_attention/op.yaml.
#include "attention.cuh"
#include "segments.cuh"

enum {
    HEADS = KT_QD / KT_HD,
    GROUP = HEADS / KT_KVH, // heads that share keys and values
    QUERIES = 64,
    STRIDE = kt_attention_stride(KT_HD),
};

struct pages_of_row {
    const kt_f16 *pool;
    const int32_t *table;
    int32_t rows, width, pages, row, head; // head: of keys and values

    // Key (what 0) or value (what 1) at a position, NULL at or above `end`.
    __device__ __forceinline__ const kt_f16 *find(
        int32_t what, int32_t position, int32_t end) const {
        if (position >= end) return 0;
        int32_t page = kt_page_find(table, rows, width, pages, row, position);
        if (page < 0) return 0;
        int64_t block = ((int64_t)page * 2 + what) * KT_KVH + head;
        return pool + (block * KT_PAGE + position % KT_PAGE) * KT_HD;
    }
};

// log2 e: exp(x) as exp2
KT_DEVICE float log2_scale(void) {
    return 1.44269504f / kt_sqrt((float)KT_HD);
}

// A block owns 64 tokens of one segment in one head, a warp 16 of them. Segments take as many
// blocks as they need, in order; those left over end at once. Block i also clears tokens 64 i ..
// that are in no segment. Shared memory: 2 x 64 x (HD + 8) f16. q, pool, y aligned to 16 bytes.
extern "C" __global__ void __launch_bounds__(128) kt_paged_attention_tiles(kt_f16 *y,
    const kt_f16 *q, const int32_t *segments, const int32_t *table, const kt_f16 *pool, int32_t n,
    int32_t g, int32_t rows, int32_t width, int32_t pages) {
    KT_SHARED_DYNAMIC(kt_f16, shared);
    const int32_t head = (int32_t)blockIdx.y;
    const int32_t idle = (int32_t)(blockIdx.x * QUERIES + threadIdx.x);
    if (threadIdx.x < QUERIES && idle < n && kt_segment_find(segments, g, idle).row < 0) {
        for (int32_t i = 0; i < KT_HD; i++)
            y[(int64_t)idle * KT_QD + head * KT_HD + i] = kt_to_f16(0);
    }
    int32_t tile = (int32_t)blockIdx.x, segment = 0;
    for (; segment < g; segment++) {
        int32_t tiles = (int32_t)kt_ceil_div(kt_max(segments[4 * segment + 2], 0), QUERIES);
        if (tile < tiles) break;
        tile -= tiles;
    }
    if (segment >= g) return;

    const int32_t start = segments[4 * segment + 1], length = segments[4 * segment + 2];
    const int32_t first = segments[4 * segment + 3];
    const int32_t at = tile * QUERIES + kt_warp() * 16 + kt_lane() / 4; // in the segment
    const bool low = at < length && first + at < n, high = at + 8 < length && first + at + 8 < n;
    const kt_f16 *queries = q + (int64_t)(first + at) * KT_QD + head * KT_HD;
    kt_attention<KT_HD, KT_ATTENTION_KEYS> state;
    state.start(low ? queries : 0, high ? queries + 8 * KT_QD : 0);
    const pages_of_row kept = {
        pool, table, rows, width, pages, segments[4 * segment], head / GROUP};
    const int32_t end = start + kt_min((tile + 1) * QUERIES, length); // keys that any query needs
    kt_attention_run<KT_HD>(
        state, shared, (int32_t)kt_ceil_div(end, KT_ATTENTION_KEYS),
        [&](int32_t t, int32_t i) { return kept.find(0, t * KT_ATTENTION_KEYS + i, end); },
        [&](int32_t t, int32_t i) { return kept.find(1, t * KT_ATTENTION_KEYS + i, end); }, pool,
        start + at + 1, start + at + 9, log2_scale());
    kt_f16 *to = y + (int64_t)(first + at) * KT_QD + head * KT_HD;
    if (low) state.store(0, to);
    if (high) state.store(1, to + 8 * KT_QD);
}

#if defined(KT_CHUNKS)
// Up to 16 heads of one token, from `head`, over the keys of one chunk: a warp takes every fourth
// page. Leaves their unscaled sums in `partial` and (highest score, sum of probabilities) in
// `stats`.
KT_DEVICE void chunk_of_heads(float *partial, float *stats, const kt_f16 *q, int32_t n_heads,
    const pages_of_row &kept, int32_t first_page, int32_t end_page, int32_t limit, kt_f16 *shared,
    float *tops) {
    const int32_t lane = kt_lane(), warp = kt_warp();
    kt_f16 *keys = shared, *values = shared + KT_ATTENTION_KEYS * STRIDE;
    const kt_f16 *queries = q + lane / 4 * KT_HD;
    kt_attention<KT_HD, KT_PAGE> state;
    state.start(lane / 4 < n_heads ? queries : 0, lane / 4 + 8 < n_heads ? queries + 8 * KT_HD : 0);
    const int32_t end = kt_min(end_page * KT_PAGE, limit);
    KT_NO_UNROLL
    for (int32_t first = first_page * KT_PAGE; first < end; first += KT_ATTENTION_KEYS) {
        auto key = [&](int32_t i) { return kept.find(0, first + i, end); };
        auto value = [&](int32_t i) { return kept.find(1, first + i, end); };
        kt_attention_stage<KT_HD>(keys, key, kept.pool);
        kt_attention_stage<KT_HD>(values, value, kept.pool);
        kt_copy_commit();
        kt_copy_wait<0>();
        kt_sync();
        float s[KT_PAGE / 8][4];
        state.score(s, keys + warp * KT_PAGE * STRIDE);
        state.mask(s, first + warp * KT_PAGE, end, end);
        state.soften(s, log2_scale());
        state.add(s, values + warp * KT_PAGE * STRIDE);
        kt_sync();
    }
    state.finish();

    float *sums = (float *)shared; // [warp][16][hd] in the place of keys and values
    KT_UNROLL
    for (int32_t h = 0; h < 2; h++) {
        const int32_t row = warp * 16 + lane / 4 + 8 * h;
        KT_UNROLL
        for (int32_t j = 0; j < KT_HD / 8; j++) {
            sums[row * KT_HD + j * 8 + lane % 4 * 2] = state.o[j][2 * h];
            sums[row * KT_HD + j * 8 + lane % 4 * 2 + 1] = state.o[j][2 * h + 1];
        }
        if (lane % 4 > 0) continue; // all four have the same
        tops[2 * row] = state.top[h];
        tops[2 * row + 1] = state.sum[h];
    }
    kt_sync();
    for (int32_t i = (int32_t)threadIdx.x; i < n_heads * KT_HD; i += KT_ATTENTION_THREADS) {
        const int32_t head = i / KT_HD;
        float top = tops[2 * head], sum = 0, weighted = 0;
        KT_UNROLL
        for (int32_t w = 1; w < 4; w++) top = kt_max(top, tops[2 * (w * 16 + head)]);
        KT_UNROLL
        for (int32_t w = 0; w < 4; w++) {
            if (tops[2 * (w * 16 + head) + 1] <= 0) continue; // met no key
            float shrink = kt_exp2(tops[2 * (w * 16 + head)] - top);
            sum += shrink * tops[2 * (w * 16 + head) + 1];
            weighted += shrink * sums[(w * 16 + head) * KT_HD + i % KT_HD];
        }
        partial[i] = weighted;
        if (i % KT_HD > 0) continue;
        stats[2 * head] = top;
        stats[2 * head + 1] = sum;
    }
    kt_sync();
}

// A block owns one chunk of the pages of one token's row for the heads that share one head of keys
// and values; the last block of a token and such a head adds the chunks in their order. Shared
// memory: 2 x 64 x (HD + 8) f16, 520 bytes static.
extern "C" __global__ void __launch_bounds__(128)
    kt_paged_attention_rows(kt_f16 *y, const kt_f16 *q, const int32_t *segments,
        const int32_t *table, const kt_f16 *pool, float *partial, float *stats, uint32_t *done,
        int32_t n, int32_t g, int32_t rows, int32_t width, int32_t pages) {
    KT_SHARED_DYNAMIC(kt_f16, shared);
    KT_SHARED(float, tops, 4 * 16 * 2);
    KT_SHARED(uint32_t, before, 1);
    const int32_t chunk = (int32_t)blockIdx.x, kv = (int32_t)blockIdx.y,
                  token = (int32_t)blockIdx.z;
    const int64_t column = (int64_t)token * KT_QD + kv * GROUP * KT_HD;
    const kt_place place = kt_segment_find(segments, g, token);
    if (place.row < 0) { // stopped
        for (int32_t i = (int32_t)threadIdx.x; chunk == 0 && i < GROUP * KT_HD; i += 128)
            y[column + i] = kt_to_f16(0);
        return;
    }
    const pages_of_row kept = {pool, table, rows, width, pages, place.row, kv};
    const int32_t used = place.position / KT_PAGE + 1;
    const int32_t first = used * chunk / KT_CHUNKS, end = used * (chunk + 1) / KT_CHUNKS;
    const int64_t plane = (int64_t)n * KT_QD; // of one chunk
    float *my_stats = stats + (((int64_t)chunk * n + token) * HEADS + kv * GROUP) * 2;
    for (int32_t head = 0; head < GROUP; head += 16)
        chunk_of_heads(partial + chunk * plane + column + head * KT_HD, my_stats + 2 * head,
            q + column + head * KT_HD, kt_min(GROUP - head, 16), kept, first, end,
            place.position + 1, shared, tops);

    kt_fence();
    kt_sync();
    if (threadIdx.x == 0) *before = kt_atomic_add(done + token * KT_KVH + kv, 1);
    kt_sync();
    if (*before != KT_CHUNKS - 1) return;
    kt_fence();
    if (threadIdx.x == 0) done[token * KT_KVH + kv] = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < GROUP * KT_HD; i += 128) {
        const float *stat = stats + ((int64_t)token * HEADS + kv * GROUP + i / KT_HD) * 2;
        float top = kt_float(0xff800000u), sum = 0, weighted = 0;
        for (int32_t c = 0; c < KT_CHUNKS; c++)
            top = kt_max(top, kt_load_shared_by_blocks(stat + (int64_t)c * n * HEADS * 2));
        for (int32_t c = 0; c < KT_CHUNKS; c++) {
            float part = kt_load_shared_by_blocks(stat + (int64_t)c * n * HEADS * 2 + 1);
            if (part <= 0) continue; // no keys in this chunk
            float shrink =
                kt_exp2(kt_load_shared_by_blocks(stat + (int64_t)c * n * HEADS * 2) - top);
            sum += shrink * part;
            weighted += shrink * kt_load_shared_by_blocks(partial + c * plane + column + i);
        }
        y[column + i] = kt_to_f16(sum > 0 ? weighted / sum : 0);
    }
}
#endif
