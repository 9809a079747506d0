// CPU implementation of linear/op.yaml: the product in f32, then bias and activation row by row.
#include "ops/kt_cpu.h"

#include <math.h>

struct finish {
    const kt_cpu_host *host;
    float *sum;     // f32[n, m]; for a result in f32 this is the result
    const float *b; // f32[m] or NULL
    uint16_t *y;    // f16[n, m] or NULL
    int64_t m;
    int gelu;
};

static float gelu_tanh(float x) {
    return 0.5F * x * (1.0F + tanhf(0.7978845608028654F * (x + 0.044715F * x * x * x)));
}

static void finish_run(void *ctx, int64_t begin, int64_t end) {
    const struct finish *c = ctx;
    for (int64_t r = begin; r < end; r++) {
        float *row = c->sum + r * c->m;
        if (c->b)
            for (int64_t i = 0; i < c->m; i++) row[i] += c->b[i];
        if (c->gelu)
            for (int64_t i = 0; i < c->m; i++) row[i] = gelu_tanh(row[i]);
        if (c->y) c->host->f32_to_f16(row, c->y + r * c->m, (size_t)c->m);
    }
}

static const char *run(const kt_cpu_call *call) {
    int64_t n = kt_cpu_dim(call, "n"), m = kt_cpu_dim(call, "m"), k = kt_cpu_dim(call, "k");
    const kt_cpu_tensor *y = kt_cpu_in(call, "y");
    int half = strcmp(y->dtype, "f16") == 0;
    float *sum = half ? malloc(sizeof(float) * (size_t)(n * m) + 1) : y->data;
    if (!sum) return "out of memory";
    const kt_cpu_product product = {
        .x = kt_cpu_in(call, "x")->data,
        .w = kt_cpu_in(call, "w")->data,
        .y = sum,
        .n = n,
        .m = m,
        .k = k,
        .ldx = k,
        .ldw = k,
        .ldy = m,
    };
    call->host->matmul(call->host, &product);
    struct finish c = {
        .host = call->host,
        .sum = sum,
        .b = kt_cpu_in(call, "b")->data,
        .y = half ? y->data : NULL,
        .m = m,
        .gelu = strcmp(kt_cpu_choice(call, "act"), "gelu_tanh") == 0,
    };
    call->host->parallel_for(call->host, n, 4, finish_run, &c);
    if (half) free(sum);
    return NULL;
}

KT_CPU_OP("linear", run)
