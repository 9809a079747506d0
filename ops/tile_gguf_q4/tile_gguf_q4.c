// CPU implementation of tile_gguf_q4/op.yaml: the bytes of its comment, one by one.
#include "ops/kt_ggml.h"

static void put(const kt_cpu_call *call, const kt_ggml_piece *from, uint8_t *tile, int64_t row) {
    int64_t g = row % 8, h = row % 16 / 8;
    for (int64_t c = 0; c < 64; c++) {
        int64_t s = c / 16, u = c % 16 / 8, t = c % 8 / 2, e = c % 2;
        uint8_t *byte = tile + (4 * g + t) * 16 + 4 * s + 2 * e + h;
        *byte =
            (uint8_t)(u ? (*byte & 15) | from->stored[c] << 4 : (*byte & 0xf0) | from->stored[c]);
    }
    for (int64_t s = 0; s < 4; s += 2) {
        uint8_t *at = tile + 512 + 16 * g + 4 * s + 4 * h;
        kt_ggml_put_half(call->host, at, from->scale[s]);
        kt_ggml_put_half(call->host, at + 2, from->min[s]);
    }
}

static const char *run(const kt_cpu_call *call) {
    int q4_0 = kt_cpu_dim(call, "bytes") == 18;
    kt_ggml_tiles layout = {.least = q4_0 ? -8 : 0, .zero = 8, .tile_bytes = 640};
    kt_ggml_put_rows(call, &layout, put);
    return NULL;
}

KT_CPU_OP("tile_gguf_q4", run)
