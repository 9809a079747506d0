// CPU implementation of tile_bnb_nf4_k16/op.yaml: the bytes of its comment, one by one.
#include "ops/kt_cpu.h"

typedef struct source {
    const kt_cpu_call *call;
    const uint8_t *codes, *absmax;
    const float *nested_absmax, *nested_map;
    float offset;
    int64_t k;
} source;

// The byte of a tile that holds columns `c` and c + 1 (c even) of a row.
static int64_t code_at(int64_t row, int64_t c) {
    return (4 * (row % 8) + c % 8 / 2) * 16 + 4 * (c % 64 / 16) + row % 16 / 8 + 2 * (c % 16 / 8);
}

static int64_t scale_at(int64_t row, int64_t c) {
    return 512 + 2 * (8 * (row % 8) + 2 * (c % 64 / 16) + row % 16 / 8);
}

// Row r of the weight (-1: none) into row `row` of the layout.
static void put_row(const source *s, uint8_t *tiles, int64_t r, int64_t row) {
    int64_t across = (s->k + 63) / 64;
    for (int64_t c = 0; c < across * 64; c += 2) {
        uint8_t *tile = tiles + (row / 16 * across + c / 64) * 640;
        int inside = r >= 0 && c < s->k;
        uint8_t pair = inside ? s->codes[(r * s->k + c) / 2] : 0;
        tile[code_at(row, c)] = (uint8_t)(pair >> 4 | pair << 4);
        if (c % 16 != 0) continue;
        int64_t block = (r * s->k + c) / 64;
        float scale =
            inside ? s->nested_map[s->absmax[block]] * s->nested_absmax[block / 256] + s->offset
                   : 0;
        uint16_t half;
        s->call->host->f32_to_f16(&scale, &half, 1);
        memcpy(tile + scale_at(row, c), &half, sizeof half);
    }
}

static const char *run(const kt_cpu_call *call) {
    const source s = {
        .call = call,
        .codes = kt_cpu_in(call, "codes")->data,
        .absmax = kt_cpu_in(call, "absmax")->data,
        .nested_absmax = kt_cpu_in(call, "nested_absmax")->data,
        .nested_map = kt_cpu_in(call, "nested_map")->data,
        .offset = (float)kt_cpu_param(call, "offset"),
        .k = kt_cpu_dim(call, "k"),
    };
    const int32_t *to = kt_cpu_in(call, "to")->data;
    uint8_t *tiles = kt_cpu_in(call, "tiles")->data;
    for (int64_t r = 0; r < kt_cpu_dim(call, "n"); r++) put_row(&s, tiles, r, to[r]);
    for (int64_t row = kt_cpu_dim(call, "rows"); row % 16 != 0; row++) put_row(&s, tiles, -1, row);
    memcpy(kt_cpu_in(call, "table")->data, kt_cpu_in(call, "map")->data, 16 * sizeof(float));
    return NULL;
}

KT_CPU_OP("tile_bnb_nf4_k16", run)
