// CPU implementation of unpack_bnb_nf4_plain/op.yaml: code book times block scale, in f32, rounded
// once.
#include "ops/kt_cpu.h"

struct blocks {
    const kt_cpu_host *host;
    const uint8_t *codes; // two a byte, the first one in the high half
    const float *absmax;  // of a block of 64
    const float *map;
    uint16_t *rows;
    int64_t size; // n * k
};

static void blocks_run(void *ctx, int64_t begin, int64_t end) {
    const struct blocks *c = ctx;
    float part[64];
    for (int64_t block = begin; block < end; block++) {
        int64_t first = block * 64, n = c->size - first < 64 ? c->size - first : 64;
        for (int64_t i = 0; i < n; i++) {
            uint8_t pair = c->codes[(first + i) / 2];
            part[i] = c->map[i % 2 == 0 ? pair >> 4 : pair & 15] * c->absmax[block];
        }
        c->host->f32_to_f16(part, c->rows + first, (size_t)n);
    }
}

static const char *run(const kt_cpu_call *call) {
    struct blocks c = {
        .host = call->host,
        .codes = kt_cpu_in(call, "codes")->data,
        .absmax = kt_cpu_in(call, "absmax")->data,
        .map = kt_cpu_in(call, "map")->data,
        .rows = kt_cpu_in(call, "rows")->data,
        .size = kt_cpu_dim(call, "n") * kt_cpu_dim(call, "k"),
    };
    call->host->parallel_for(call->host, kt_cpu_dim(call, "b"), 256, blocks_run, &c);
    return NULL;
}

KT_CPU_OP("unpack_bnb_nf4_plain", run)
