// CPU implementation of paged_attention/op.yaml. A token at position p of its row sees the
// positions 0 .. p.
#include "ops/kt_cpu.h"

#include <math.h>

struct tokens {
    const kt_cpu_call *call;
    const uint16_t *q, *pool; // f16[n, qd], f16[pages, 2, kvh, 16, hd]
    const int32_t *segments, *table;
    uint16_t *y; // f16[n, qd]
    int64_t qd, kvh, hd, width, g;
};

// Running softmax state of one query head.
struct state {
    float top, sum;
    float *out; // f32[hd]
};

static void one_key(struct state *s, float score, const float *v, int64_t hd) {
    if (score > s->top) {
        float old = expf(s->top - score);
        s->sum *= old;
        for (int64_t i = 0; i < hd; i++) s->out[i] *= old;
        s->top = score;
    }
    float p = expf(score - s->top);
    s->sum += p;
    for (int64_t i = 0; i < hd; i++) s->out[i] += p * v[i];
}

// All query heads of one KV head, for the token in place `i` of the batch.
static void group(const struct tokens *c, const int32_t *seg, int64_t i, int64_t kv, float *tmp) {
    const kt_cpu_host *host = c->call->host;
    int64_t hd = c->hd, heads = c->qd / (c->kvh * hd), position = seg[1] + (i - seg[3]);
    float *k = tmp, *v = k + 16 * hd, *q = v + 16 * hd, *out = q + heads * hd;
    struct state *state = kt_cpu_alloc(sizeof *state * (size_t)heads);
    host->f16_to_f32(c->q + i * c->qd + kv * heads * hd, q, (size_t)(heads * hd));
    memset(out, 0, sizeof(float) * (size_t)(heads * hd));
    for (int64_t h = 0; h < heads; h++) state[h] = (struct state){-INFINITY, 0, out + h * hd};
    for (int64_t t = 0; t <= position; t += 16) {
        int64_t page = c->table[seg[0] * c->width + t / 16];
        int64_t keys = position + 1 - t < 16 ? position + 1 - t : 16;
        const uint16_t *base = c->pool + ((page * 2) * c->kvh + kv) * 16 * hd;
        host->f16_to_f32(base, k, (size_t)(keys * hd));
        host->f16_to_f32(base + c->kvh * 16 * hd, v, (size_t)(keys * hd));
        for (int64_t h = 0; h < heads; h++)
            for (int64_t j = 0; j < keys; j++)
                one_key(&state[h], kt_cpu_dot(q + h * hd, k + j * hd, hd) / sqrtf((float)hd),
                    v + j * hd, hd);
    }
    for (int64_t h = 0; h < heads; h++)
        for (int64_t x = 0; x < hd; x++) out[h * hd + x] /= state[h].sum;
    host->f32_to_f16(out, c->y + i * c->qd + kv * heads * hd, (size_t)(heads * hd));
    free(state);
}

static void tokens_run(void *ctx, int64_t begin, int64_t end) {
    const struct tokens *c = ctx;
    float *tmp = kt_cpu_alloc(sizeof(float) * (size_t)(32 * c->hd + 2 * c->qd));
    for (int64_t i = begin; i < end; i++) {
        const int32_t *seg = NULL;
        for (int64_t s = 0; s < c->g && !seg; s++) {
            const int32_t *at = c->segments + 4 * s;
            if (i >= at[3] && i < at[3] + at[2]) seg = at;
        }
        if (!seg) { // a stopped row: its output is written all the same
            memset(c->y + i * c->qd, 0, sizeof(uint16_t) * (size_t)c->qd);
            continue;
        }
        for (int64_t kv = 0; kv < c->kvh; kv++) group(c, seg, i, kv, tmp);
    }
    free(tmp);
}

static const char *run(const kt_cpu_call *call) {
    struct tokens c = {
        .call = call,
        .q = kt_cpu_in(call, "q")->data,
        .pool = kt_cpu_in(call, "pool")->data,
        .segments = kt_cpu_in(call, "segments")->data,
        .table = kt_cpu_in(call, "table")->data,
        .y = kt_cpu_in(call, "y")->data,
        .qd = kt_cpu_dim(call, "qd"),
        .kvh = kt_cpu_dim(call, "kvh"),
        .hd = kt_cpu_dim(call, "hd"),
        .width = kt_cpu_dim(call, "width"),
        .g = kt_cpu_dim(call, "g"),
    };
    call->host->parallel_for(call->host, kt_cpu_dim(call, "n"), 1, tokens_run, &c);
    return NULL;
}

KT_CPU_OP("paged_attention", run)
