// CPU implementation of unpack_gguf/op.yaml: block by block in f32, rounded once more to f16.
#include "ops/kt_ggml.h"

struct blocks {
    const kt_cpu_host *host;
    const uint8_t *blocks;
    int64_t bytes, weights; // of a block
    uint16_t *rows;
};

static void blocks_run(void *ctx, int64_t begin, int64_t end) {
    const struct blocks *c = ctx;
    kt_ggml_block block;
    float part[256];
    for (int64_t b = begin; b < end; b++) {
        kt_ggml_decode(c->host, c->blocks + b * c->bytes, c->bytes, &block);
        for (int64_t i = 0; i < c->weights; i++)
            part[i] = (float)block.code[i] * block.scale[i / 16] + block.min[i / 16];
        c->host->f32_to_f16(part, c->rows + b * c->weights, (size_t)c->weights);
    }
}

static const char *run(const kt_cpu_call *call) {
    int64_t bytes = kt_cpu_dim(call, "bytes");
    struct blocks c = {
        .host = call->host,
        .blocks = kt_cpu_in(call, "blocks")->data,
        .bytes = bytes,
        .weights = kt_ggml_weights(bytes),
        .rows = kt_cpu_in(call, "rows")->data,
    };
    int64_t n = kt_cpu_dim(call, "n") * kt_cpu_dim(call, "b");
    call->host->parallel_for(call->host, n, 65536 / c.weights, blocks_run, &c);
    return NULL;
}

KT_CPU_OP("unpack_gguf", run)
