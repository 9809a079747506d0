// CPU implementation of append_kv/op.yaml.
#include "ops/kt_cpu.h"

static const char *run(const kt_cpu_call *call) {
    int64_t kd = kt_cpu_dim(call, "kd"), kvh = kt_cpu_dim(call, "kvh"), hd = kt_cpu_dim(call, "hd");
    int64_t width = kt_cpu_dim(call, "width");
    const int32_t *segments =
        kt_cpu_in(call, "segments")->data;                 // i32[g, 4] row, start, length, first
    const int32_t *table = kt_cpu_in(call, "table")->data; // i32[rows, width]
    const uint16_t *kv[2] = {kt_cpu_in(call, "k")->data, kt_cpu_in(call, "v")->data};
    uint16_t *pool = kt_cpu_in(call, "pool")->data; // f16[pages, 2, kvh, 16, hd]
    for (int64_t s = 0; s < kt_cpu_dim(call, "g"); s++) {
        const int32_t *seg = segments + 4 * s;
        for (int32_t i = 0; i < seg[2]; i++) {
            int64_t position = seg[1] + i, page = table[seg[0] * width + position / 16];
            for (int64_t w = 0; w < 2; w++)
                for (int64_t h = 0; h < kvh; h++)
                    memcpy(pool + (((page * 2 + w) * kvh + h) * 16 + position % 16) * hd,
                        kv[w] + (seg[3] + i) * kd + h * hd, sizeof(uint16_t) * (size_t)hd);
        }
    }
    return NULL;
}

KT_CPU_OP("append_kv", run)
