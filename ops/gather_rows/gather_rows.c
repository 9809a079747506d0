// CPU implementation of gather_rows/op.yaml.
#include "ops/kt_cpu.h"

static const char *run(const kt_cpu_call *call) {
    int64_t d = kt_cpu_dim(call, "d"), v = kt_cpu_dim(call, "v");
    const uint16_t *table = kt_cpu_in(call, "table")->data; // rows of f16
    const int32_t *ids = kt_cpu_in(call, "ids")->data;
    float *y = kt_cpu_in(call, "y")->data;
    for (int64_t i = 0; i < kt_cpu_dim(call, "n"); i++) {
        if (ids[i] < 0 || ids[i] >= v)
            memset(y + i * d, 0, sizeof(float) * (size_t)d);
        else
            call->host->f16_to_f32(table + ids[i] * d, y + i * d, (size_t)d);
    }
    return NULL;
}

KT_CPU_OP("gather_rows", run)
