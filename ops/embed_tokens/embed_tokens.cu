// Kernel of ops/embed_tokens/op.yaml.
#include "kt.cuh"

// A block owns a token; ids that neither the table nor the picture has give 0. table: rows_f16 in
// mapped host memory: each number is read once.
extern "C" __global__ void __launch_bounds__(128)
    kt_embed_tokens_block_per_row(float *x, float *part, const int32_t *ids, const kt_f16 *image,
        const uint8_t *table, int32_t n, int32_t m, int32_t s, float scale) {
    const int32_t token = (int32_t)blockIdx.x;
    if (token >= n) return;
    const int32_t id = ids[token];
    const kt_f16 *from = 0;
    const float by = id >= 0 ? scale : 1;
    if (id >= 0 && id < KT_V) from = (const kt_f16 *)table + (int64_t)id * KT_D;
#if KT_HAS_IMAGE
    if (id < 0 && -1 - id < m) from = image + (int64_t)(-1 - id) * KT_D;
#endif
    for (int32_t i = (int32_t)threadIdx.x; i < KT_D; i += 128) {
        x[(int64_t)token * KT_D + i] = from != 0 ? kt_to_f32(from[i]) * by : 0;
        for (int32_t p = 0; p < s; p++) part[((int64_t)p * n + token) * KT_D + i] = 0;
    }
}
