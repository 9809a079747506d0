// CPU implementation of tile_gguf_q8/op.yaml: the bytes of its comment, one by one.
#include "ops/kt_ggml.h"

static void put(const kt_cpu_call *call, const kt_ggml_piece *from, uint8_t *tile, int64_t row) {
    int64_t g = row % 8, h = row % 16 / 8;
    for (int64_t c = 0; c < 64; c++) {
        int64_t s = c / 16, u = c % 16 / 8, t = c % 8 / 2, e = c % 2;
        int64_t at = 512 * (c / 32) + (4 * g + t) * 16 + 8 * (s % 2) + 2 * (h + 2 * u) + e;
        tile[at] = (uint8_t)from->stored[c];
    }
    for (int64_t s = 0; s < 4; s += 2)
        kt_ggml_put_half(call->host, tile + 1024 + 8 * g + 2 * s + 2 * h, from->scale[s]);
}

static const char *run(const kt_cpu_call *call) {
    kt_ggml_tiles layout = {.least = -128, .zero = 128, .tile_bytes = 1088};
    kt_ggml_put_rows(call, &layout, put);
    return NULL;
}

KT_CPU_OP("tile_gguf_q8", run)
