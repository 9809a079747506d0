// CPU implementation of attention/op.yaml: every query of a view against all keys of the view, head
// by head.
#include "ops/kt_cpu.h"

#include <math.h>

struct heads {
    const kt_cpu_call *call;
    const uint16_t *q, *k, *v;          // f16[nq, d], f16[nk, d]
    const int32_t *q_offset, *k_offset; // i32[views + 1]
    uint16_t *y;                        // f16[nq, d]
    int64_t d, hd, heads;
};

// One query of hd numbers against n keys; k, v and score are f32.
static void query(const float *q, const float *k, const float *v, float *score, float *out,
    int64_t n, int64_t hd) {
    float top = -INFINITY, sum = 0, scale = 1.0F / sqrtf((float)hd);
    for (int64_t j = 0; j < n; j++) {
        score[j] = kt_cpu_dot(q, k + j * hd, hd) * scale;
        if (score[j] > top) top = score[j];
    }
    memset(out, 0, sizeof(float) * (size_t)hd);
    for (int64_t j = 0; j < n; j++) {
        float p = expf(score[j] - top);
        sum += p;
        for (int64_t i = 0; i < hd; i++) out[i] += p * v[j * hd + i];
    }
    for (int64_t i = 0; i < hd; i++) out[i] /= sum;
}

// One head of one view.
static void head(const struct heads *c, int64_t view, int64_t h) {
    const kt_cpu_host *host = c->call->host;
    int64_t k0 = c->k_offset[view], n = c->k_offset[view + 1] - k0;
    float *k = kt_cpu_alloc(sizeof(float) * (size_t)(n * c->hd * 2 + n + 2 * c->hd + 1));
    float *v = k + n * c->hd, *score = v + n * c->hd, *q = score + n, *out = q + c->hd;
    for (int64_t j = 0; j < n; j++) {
        host->f16_to_f32(c->k + (k0 + j) * c->d + h * c->hd, k + j * c->hd, (size_t)c->hd);
        host->f16_to_f32(c->v + (k0 + j) * c->d + h * c->hd, v + j * c->hd, (size_t)c->hd);
    }
    for (int64_t i = c->q_offset[view]; i < c->q_offset[view + 1]; i++) {
        host->f16_to_f32(c->q + i * c->d + h * c->hd, q, (size_t)c->hd);
        if (n > 0)
            query(q, k, v, score, out, n, c->hd);
        else
            memset(out, 0, sizeof(float) * (size_t)c->hd);
        host->f32_to_f16(out, c->y + i * c->d + h * c->hd, (size_t)c->hd);
    }
    free(k);
}

static void heads_run(void *ctx, int64_t begin, int64_t end) {
    const struct heads *c = ctx;
    for (int64_t i = begin; i < end; i++) head(c, i / c->heads, i % c->heads);
}

static const char *run(const kt_cpu_call *call) {
    struct heads c = {
        .call = call,
        .q = kt_cpu_in(call, "q")->data,
        .k = kt_cpu_in(call, "k")->data,
        .v = kt_cpu_in(call, "v")->data,
        .q_offset = kt_cpu_in(call, "q_offset")->data,
        .k_offset = kt_cpu_in(call, "k_offset")->data,
        .y = kt_cpu_in(call, "y")->data,
        .d = kt_cpu_dim(call, "d"),
        .heads = kt_cpu_dim(call, "heads"),
    };
    c.hd = c.d / c.heads;
    call->host->parallel_for(call->host, kt_cpu_dim(call, "views") * c.heads, 1, heads_run, &c);
    return NULL;
}

KT_CPU_OP("attention", run)
