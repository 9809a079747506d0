// CPU implementation of layer_norm/op.yaml.
#include "ops/kt_cpu.h"

#include <math.h>

struct rows {
    const kt_cpu_host *host;
    const kt_cpu_tensor *x; // f32 or f16 [n, d]
    const float *w, *b;     // f32[d]
    uint16_t *y;            // f16[n, d]
    int64_t d;
    double eps;
};

static void rows_run(void *ctx, int64_t begin, int64_t end) {
    const struct rows *c = ctx;
    float *row = kt_cpu_alloc(sizeof(float) * (size_t)c->d);
    for (int64_t r = begin; r < end; r++) {
        if (strcmp(c->x->dtype, "f16") == 0)
            c->host->f16_to_f32((const uint16_t *)c->x->data + r * c->d, row, (size_t)c->d);
        else
            memcpy(row, (const float *)c->x->data + r * c->d, sizeof(float) * (size_t)c->d);
        double mean = 0, square = 0;
        for (int64_t i = 0; i < c->d; i++) mean += (double)row[i];
        mean /= (double)c->d;
        for (int64_t i = 0; i < c->d; i++) {
            double off = (double)row[i] - mean;
            square += off * off;
        }
        double scale = 1.0 / sqrt(square / (double)c->d + c->eps);
        for (int64_t i = 0; i < c->d; i++)
            row[i] = (float)(((double)row[i] - mean) * scale) * c->w[i] + c->b[i];
        c->host->f32_to_f16(row, c->y + r * c->d, (size_t)c->d);
    }
    free(row);
}

static const char *run(const kt_cpu_call *call) {
    struct rows c = {
        .host = call->host,
        .x = kt_cpu_in(call, "x"),
        .w = kt_cpu_in(call, "w")->data,
        .b = kt_cpu_in(call, "b")->data,
        .y = kt_cpu_in(call, "y")->data,
        .d = kt_cpu_dim(call, "d"),
        .eps = kt_cpu_param(call, "eps"),
    };
    call->host->parallel_for(call->host, kt_cpu_dim(call, "n"), 8, rows_run, &c);
    return NULL;
}

KT_CPU_OP("layer_norm", run)
