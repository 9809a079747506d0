// CPU implementation of tile_f16/op.yaml: the order of its comment, number by number.
#include "ops/kt_cpu.h"

static uint16_t number(const kt_cpu_call *call, const kt_cpu_tensor *values, int64_t at) {
    uint16_t half;
    float wide;
    if (strcmp(values->dtype, "f16") == 0) return ((const uint16_t *)values->data)[at];
    if (strcmp(values->dtype, "bf16") == 0) {
        uint32_t bits = (uint32_t)((const uint16_t *)values->data)[at] << 16;
        memcpy(&wide, &bits, sizeof wide);
    } else {
        wide = ((const float *)values->data)[at];
    }
    call->host->f32_to_f16(&wide, &half, 1);
    return half;
}

// Row r of the weight (-1: none) into row `row` of the layout.
static void put_row(const kt_cpu_call *call, int64_t r, int64_t row) {
    const kt_cpu_tensor *values = kt_cpu_in(call, "values");
    uint16_t *tiles = kt_cpu_in(call, "tiles")->data;
    int64_t k = kt_cpu_dim(call, "k"), across = (k + 63) / 64, g = row % 8, h = row % 16 / 8;
    for (int64_t column = 0; column < across * 64; column++) {
        int64_t c = column % 64, s = c / 16, u = c % 16 / 8, t = c % 8 / 2, e = c % 2;
        int64_t at = 256 * s + 8 * (4 * g + t) + 2 * (h + 2 * u) + e;
        tiles[(row / 16 * across + column / 64) * 1024 + at] =
            r >= 0 && column < k ? number(call, values, r * k + column) : 0;
    }
}

static const char *run(const kt_cpu_call *call) {
    const int32_t *to = kt_cpu_in(call, "to")->data;
    for (int64_t r = 0; r < kt_cpu_dim(call, "n"); r++) put_row(call, r, to[r]);
    // Rows of other weights of the layout are theirs to write: only what nobody writes is cleared.
    for (int64_t row = kt_cpu_dim(call, "rows"); row % 16 != 0; row++) put_row(call, -1, row);
    return NULL;
}

KT_CPU_OP("tile_f16", run)
