// CPU implementation of unpack_f16/op.yaml. Values that f16 cannot hold become infinite here;
// loading refuses them.
#include "ops/kt_cpu.h"

struct values {
    const kt_cpu_host *host;
    const kt_cpu_tensor *in; // f16, bf16 or f32
    uint16_t *out;
};

static void values_run(void *ctx, int64_t begin, int64_t end) {
    const struct values *c = ctx;
    enum { CHUNK = 256 };
    float part[CHUNK];
    for (int64_t i = begin; i < end; i += CHUNK) {
        int64_t n = end - i < CHUNK ? end - i : CHUNK;
        if (strcmp(c->in->dtype, "bf16") == 0) {
            for (int64_t j = 0; j < n; j++) {
                uint32_t bits = (uint32_t)((const uint16_t *)c->in->data)[i + j] << 16;
                memcpy(&part[j], &bits, sizeof bits);
            }
        } else {
            memcpy(part, (const float *)c->in->data + i, sizeof(float) * (size_t)n);
        }
        c->host->f32_to_f16(part, c->out + i, (size_t)n);
    }
}

static const char *run(const kt_cpu_call *call) {
    int64_t size = kt_cpu_dim(call, "n") * kt_cpu_dim(call, "k");
    struct values c = {
        .host = call->host,
        .in = kt_cpu_in(call, "values"),
        .out = kt_cpu_in(call, "rows")->data,
    };
    if (strcmp(c.in->dtype, "f16") == 0)
        memcpy(c.out, c.in->data, sizeof(uint16_t) * (size_t)size);
    else
        call->host->parallel_for(call->host, size, 65536, values_run, &c);
    return NULL;
}

KT_CPU_OP("unpack_f16", run)
