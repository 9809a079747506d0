// Kernel of ops/attention/op.yaml.
#include "attention.cuh"

enum { HD = KT_D / KT_HEADS, QUERIES = 64 };

// A block owns 64 queries of one view in one head, a warp 16 of them. Views take as many blocks as
// they need, in order; those left over end at once. Shared memory: 2 x 64 x (HD + 8) f16. Tensors
// aligned to 16 bytes.
extern "C" __global__ void __launch_bounds__(128)
    kt_attention_tiles(kt_f16 *y, const kt_f16 *q, const kt_f16 *k, const kt_f16 *v,
        const int32_t *q_offset, const int32_t *k_offset, int32_t nq, int32_t nk, int32_t views) {
    KT_SHARED_DYNAMIC(kt_f16, shared);
    int32_t tile = (int32_t)blockIdx.x, view = 0;
    for (; view < views; view++) {
        int32_t tiles = (int32_t)kt_ceil_div(q_offset[view + 1] - q_offset[view], QUERIES);
        if (tile < tiles) break;
        tile -= tiles;
    }
    if (view >= views) return;

    const int32_t column = (int32_t)blockIdx.y * HD;
    const int32_t row = q_offset[view] + tile * QUERIES + kt_warp() * 16 + kt_lane() / 4;
    const int32_t end = kt_min(q_offset[view + 1], nq);
    const int32_t first_key = k_offset[view], keys = kt_min(k_offset[view + 1], nk) - first_key;
    const kt_f16 *queries = q + (int64_t)row * KT_D + column;
    kt_attention<HD, KT_ATTENTION_KEYS> state;
    state.start(row < end ? queries : 0, row + 8 < end ? queries + 8 * KT_D : 0);
    auto at = [&](const kt_f16 *from, int32_t t, int32_t i) {
        int32_t key = t * KT_ATTENTION_KEYS + i;
        return key < keys ? from + (int64_t)(first_key + key) * KT_D + column : (const kt_f16 *)0;
    };
    const float scale = 1.44269504f / kt_sqrt((float)HD); // log2 e: exp(x) as exp2
    kt_attention_run<HD>(
        state, shared, (int32_t)kt_ceil_div(kt_max(keys, 0), KT_ATTENTION_KEYS),
        [&](int32_t t, int32_t i) { return at(k, t, i); },
        [&](int32_t t, int32_t i) { return at(v, t, i); }, q, keys, keys, scale);
    kt_f16 *to = y + (int64_t)row * KT_D + column;
    if (row < end) state.store(0, to);
    if (row + 8 < end) state.store(1, to + 8 * KT_D);
}
