// Kernel of ops/append_kv/op.yaml.
#include "segments.cuh"

// A block owns a token, a thread numbers that are a block apart. Tokens of no segment, and
// positions that the table has no page for, are left out.
extern "C" __global__ void __launch_bounds__(128) kt_append_kv_block_per_token(kt_f16 *pool,
    const kt_f16 *k, const kt_f16 *v, const int32_t *segments, const int32_t *table, int32_t n,
    int32_t g, int32_t rows, int32_t width, int32_t pages) {
    const int32_t token = (int32_t)blockIdx.x;
    if (token >= n) return;
    const kt_place place = kt_segment_find(segments, g, token);
    const int32_t page = kt_page_find(table, rows, width, pages, place.row, place.position);
    if (page < 0) return;
    const int64_t from = (int64_t)token * KT_KD;
    for (int32_t i = (int32_t)threadIdx.x; i < KT_KD; i += 128) {
        int32_t head = i / KT_HD, at = place.position % KT_PAGE * KT_HD + i % KT_HD;
        pool[((int64_t)page * 2 * KT_KVH + head) * (KT_PAGE * KT_HD) + at] = k[from + i];
        pool[(((int64_t)page * 2 + 1) * KT_KVH + head) * (KT_PAGE * KT_HD) + at] = v[from + i];
    }
}
