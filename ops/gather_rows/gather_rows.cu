// Kernel of ops/gather_rows/op.yaml.
#include "kt.cuh"

// A block owns a row of y; ids outside the table give 0. table: rows_f16.
extern "C" __global__ void __launch_bounds__(128)
    kt_gather_rows_block_per_row(float *y, const int32_t *ids, const uint8_t *table, int32_t n) {
    if ((int32_t)blockIdx.x >= n) return;
    const int32_t id = ids[blockIdx.x];
    const bool known = id >= 0 && id < KT_V;
    const kt_f16 *from = (const kt_f16 *)table + (int64_t)(known ? id : 0) * KT_D;
    float *to = y + (int64_t)blockIdx.x * KT_D;
    for (int32_t i = (int32_t)threadIdx.x; i < KT_D; i += 128)
        to[i] = known ? kt_to_f32(from[i]) : 0;
}
