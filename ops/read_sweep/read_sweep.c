// CPU implementation of read_sweep/op.yaml.
#include "ops/kt_cpu.h"

typedef struct sweep {
    const float *x;
    float *y;
    int64_t numbers; // a multiple of 4
} sweep;

enum { BLOCK = 4 * 2048, LANES = 16 };

static float largest(const float *x, int64_t n) {
    float most[LANES], out = x[0]; // so many at once, as a processor's vectors do
    for (int j = 0; j < LANES; j++) most[j] = x[0];
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
    for (; i < n; i++) out = x[i] > out ? x[i] : out;
    for (int j = 0; j < LANES; j++) out = most[j] > out ? most[j] : out;
    return out;
}

static void blocks(void *ctx, int64_t begin, int64_t end) {
    const sweep *s = ctx;
    for (int64_t b = begin; b < end; b++) {
        int64_t left = s->numbers - b * BLOCK;
        s->y[b] = largest(s->x + b * BLOCK, left < BLOCK ? left : BLOCK);
    }
}

static const char *run(const kt_cpu_call *call) {
    sweep s = {kt_cpu_in(call, "x")->data, kt_cpu_in(call, "y")->data, 4 * kt_cpu_dim(call, "n")};
    call->host->parallel_for(call->host, kt_cpu_dim(call, "b"), 8, blocks, &s);
    return NULL;
}

KT_CPU_OP("read_sweep", run)
