// CPU implementation of rms_norm/op.yaml.
#include "ops/kt_cpu.h"

#include <math.h>

struct rows {
    const kt_cpu_host *host;
    const float *x, *w; // f32[n, d], f32[d]
    uint16_t *y;        // f16[n, d]
    int64_t d;
    float eps, scale;
};

static void rows_run(void *ctx, int64_t begin, int64_t end) {
    const struct rows *c = ctx;
    float *row = kt_cpu_alloc(sizeof(float) * (size_t)c->d);
    for (int64_t r = begin; r < end; r++) {
        const float *x = c->x + r * c->d;
        double sum = 0;
        for (int64_t i = 0; i < c->d; i++) sum += (double)x[i] * (double)x[i];
        float inv_rms = (float)(1.0 / sqrt(sum / (double)c->d + (double)c->eps));
        for (int64_t i = 0; i < c->d; i++) row[i] = x[i] * inv_rms * c->w[i] * c->scale;
        c->host->f32_to_f16(row, c->y + r * c->d, (size_t)c->d);
    }
    free(row);
}

static const char *run(const kt_cpu_call *call) {
    struct rows c = {
        .host = call->host,
        .x = kt_cpu_in(call, "x")->data,
        .w = kt_cpu_in(call, "w")->data,
        .y = kt_cpu_in(call, "y")->data,
        .d = kt_cpu_dim(call, "d"),
        .eps = (float)kt_cpu_param(call, "eps"),
        .scale = (float)kt_cpu_param(call, "scale"),
    };
    call->host->parallel_for(call->host, kt_cpu_dim(call, "n"), 8, rows_run, &c);
    return NULL;
}

KT_CPU_OP("rms_norm", run)
