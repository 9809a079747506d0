// CPU implementation of tile_gguf_q6/op.yaml: the bytes of its comment, one by one.
#include "ops/kt_ggml.h"

static void put(const kt_cpu_call *call, const kt_ggml_piece *from, uint8_t *tile, int64_t row) {
    int64_t g = row % 8, h = row % 16 / 8;
    for (int64_t c = 0; c < 64; c++) {
        int64_t s = c / 16, u = c % 16 / 8, t = c % 8 / 2, e = c % 2, i = c % 32 / 8;
        int code = from->stored[c];
        uint8_t *low = tile + (4 * g + t) * 16 + 4 * s + 2 * e + h;
        uint8_t *high = tile + 512 + (4 * g + t) * 8 + 4 * (c / 32) + 2 * e + h;
        *low = (uint8_t)(u ? (*low & 15) | code << 4 : (*low & 0xf0) | (code & 15));
        *high = (uint8_t)((*high & ~(3 << 2 * i)) | code >> 4 << 2 * i);
    }
    for (int64_t s = 0; s < 4; s++)
        kt_ggml_put_half(call->host, tile + 768 + 16 * g + 4 * s + 2 * h, from->scale[s]);
    for (int64_t s = 0; s < 4; s += 2)
        kt_ggml_put_half(call->host, tile + 896 + 8 * g + 2 * s + 2 * h, from->min[s]);
}

static const char *run(const kt_cpu_call *call) {
    int64_t bytes = kt_cpu_dim(call, "bytes");
    kt_ggml_tiles layout = {
        .least = bytes == 24 || bytes == 176 ? -16 : -32, .zero = 32, .tile_bytes = 960};
    kt_ggml_put_rows(call, &layout, put);
    return NULL;
}

KT_CPU_OP("tile_gguf_q6", run)
