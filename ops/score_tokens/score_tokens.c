// CPU implementation of score_tokens/op.yaml.
#include "ops/kt_cpu.h"

#include <float.h>
#include <math.h>

static float value(float x) {
    return isnan(x) ? -FLT_MAX : x;
}

static int32_t best_of(const float *logits, int64_t v) {
    int32_t best = 0;
    for (int64_t i = 1; i < v; i++)
        if (value(logits[i]) > value(logits[best])) best = (int32_t)i;
    return best;
}

static float logp_of(const float *logits, int64_t v, int32_t best, int32_t next) {
    float top = logits[best], sum = 0;
    for (int64_t i = 0; i < v; i++) {
        if (!(fabsf(logits[i]) <= FLT_MAX)) return -FLT_MAX;
        sum += expf(logits[i] - top);
    }
    return next >= 0 && next < v ? logits[next] - top - logf(sum) : 0;
}

typedef struct job {
    const kt_cpu_call *call;
    int64_t v, rows, room, n_segments;
} job;

static void tokens(void *ctx, int64_t begin, int64_t end) {
    const job *j = ctx;
    const float *logits = kt_cpu_in(j->call, "logits")->data;
    const int32_t *next = kt_cpu_in(j->call, "next")->data;
    const int32_t *segments = kt_cpu_in(j->call, "segments")->data; // row, start, length, first
    float *logp = kt_cpu_in(j->call, "score.logp")->data;
    int32_t *best = kt_cpu_in(j->call, "score.best")->data;
    for (int64_t i = begin; i < end; i++) {
        for (int64_t s = 0; s < j->n_segments; s++) {
            const int32_t *seg = segments + 4 * s;
            int64_t behind = i - seg[3], row = seg[0], position = seg[1] + behind;
            if (behind < 0 || behind >= seg[2]) continue;
            if (row < 0 || row >= j->rows || position < 0 || position >= j->room) break;
            int64_t at = row * j->room + position;
            best[at] = best_of(logits + i * j->v, j->v);
            logp[at] = logp_of(logits + i * j->v, j->v, best[at], next[i]);
            break;
        }
    }
}

static const char *run(const kt_cpu_call *call) {
    job j = {call, kt_cpu_dim(call, "v"), kt_cpu_dim(call, "rows"), kt_cpu_dim(call, "room"),
        kt_cpu_dim(call, "g")};
    call->host->parallel_for(call->host, kt_cpu_dim(call, "n"), 1, tokens, &j);
    return NULL;
}

KT_CPU_OP("score_tokens", run)
