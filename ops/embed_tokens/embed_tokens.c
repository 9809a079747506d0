// CPU implementation of embed_tokens/op.yaml.
#include "ops/kt_cpu.h"

static const char *run(const kt_cpu_call *call) {
    int64_t d = kt_cpu_dim(call, "d"), v = kt_cpu_dim(call, "v"), m = kt_cpu_dim(call, "m");
    int64_t n = kt_cpu_dim(call, "n"), s = kt_cpu_dim(call, "s");
    const uint16_t *table = kt_cpu_in(call, "table")->data; // rows of f16
    const uint16_t *image = kt_cpu_in(call, "image")->data; // f16[m, d] or NULL
    const int32_t *ids = kt_cpu_in(call, "ids")->data;
    float scale = (float)kt_cpu_param(call, "scale");
    float *x = kt_cpu_in(call, "x")->data;
    for (int64_t i = 0; i < n; i++) {
        int64_t picture = -1 - (int64_t)ids[i];
        if (ids[i] >= v || (ids[i] < 0 && (!image || picture >= m))) {
            // NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): only the image may be absent
            memset(x + i * d, 0, sizeof(float) * (size_t)d);
            continue;
        }
        const uint16_t *row = ids[i] < 0 ? image + picture * d : table + ids[i] * d;
        call->host->f16_to_f32(row, x + i * d, (size_t)d);
        for (int64_t k = 0; ids[i] >= 0 && k < d; k++) x[i * d + k] *= scale;
    }
    memset(kt_cpu_in(call, "part")->data, 0, sizeof(float) * (size_t)(s * n * d));
    return NULL;
}

KT_CPU_OP("embed_tokens", run)
