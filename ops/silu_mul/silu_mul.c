// CPU implementation of silu_mul/op.yaml.
#include "ops/kt_cpu.h"

#include <math.h>

struct gate {
    const kt_cpu_host *host;
    const float *a, *b; // f32[n, f]
    uint16_t *y;        // f16[n, f]
    float scale;
};

static void gate_run(void *ctx, int64_t begin, int64_t end) {
    const struct gate *c = ctx;
    enum { CHUNK = 256 };
    float part[CHUNK];
    for (int64_t i = begin; i < end; i += CHUNK) {
        int64_t n = end - i < CHUNK ? end - i : CHUNK;
        for (int64_t j = 0; j < n; j++) {
            float a = c->a[i + j];
            part[j] = a / (1.0F + expf(-a)) * c->b[i + j] * c->scale;
        }
        c->host->f32_to_f16(part, c->y + i, (size_t)n);
    }
}

static const char *run(const kt_cpu_call *call) {
    struct gate c = {
        .host = call->host,
        .a = kt_cpu_in(call, "a")->data,
        .b = kt_cpu_in(call, "b")->data,
        .y = kt_cpu_in(call, "y")->data,
        .scale = (float)kt_cpu_param(call, "scale"),
    };
    int64_t size = kt_cpu_dim(call, "n") * kt_cpu_dim(call, "f");
    call->host->parallel_for(call->host, size, 8192, gate_run, &c);
    return NULL;
}

KT_CPU_OP("silu_mul", run)
