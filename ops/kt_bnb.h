// Weights of 4 bits as bitsandbytes stores them, for the C files of ops: what ptx/device/bnb.cuh is
// for kernels.
#ifndef KT_BNB_H
#define KT_BNB_H

#include "ops/kt_cpu.h"

// A weight [n, k], flattened: two codes a byte, the first one in the high half; a scale for each
// block. Blocks have 64 << i weights, the smallest i that makes so many blocks.
typedef struct kt_bnb {
    const kt_cpu_host *host;
    const uint8_t *codes;
    const float *map;   // [16]
    const float *plain; // [blocks]; NULL: scales are nested
    const uint8_t *absmax;
    const float *nested_absmax, *nested_map;
    float offset;
    int64_t size, block, blocks; // weights in all, in a block; blocks
} kt_bnb;

static inline kt_bnb kt_bnb_of(const kt_cpu_call *call, int nested) {
    const void *absmax = kt_cpu_in(call, "absmax")->data;
    kt_bnb w = {
        .host = call->host,
        .codes = kt_cpu_in(call, "codes")->data,
        .map = kt_cpu_in(call, "map")->data,
        .plain = nested ? NULL : absmax,
        .absmax = nested ? absmax : NULL,
        .size = kt_cpu_dim(call, "n") * kt_cpu_dim(call, "k"),
        .block = 64,
        .blocks = kt_cpu_dim(call, "b"),
    };
    if (nested) {
        w.nested_absmax = kt_cpu_in(call, "nested_absmax")->data;
        w.nested_map = kt_cpu_in(call, "nested_map")->data;
        w.offset = (float)kt_cpu_param(call, "offset");
    }
    while (w.block < 4096 && (w.size + w.block - 1) / w.block > w.blocks) w.block *= 2;
    return w;
}

static inline float kt_bnb_scale(const kt_bnb *w, int64_t block) {
    if (w->plain) return w->plain[block];
    float nested = w->nested_map[w->absmax[block]] * w->nested_absmax[block / 256];
    return nested + w->offset;
}

static inline int kt_bnb_code(const kt_bnb *w, int64_t at) {
    return at % 2 == 0 ? w->codes[at / 2] >> 4 : w->codes[at / 2] & 15;
}

// ---- to rows of f16: code book times scale, in f32, rounded once

struct kt_bnb_rows {
    const kt_bnb *w;
    uint16_t *rows;
};

static inline void kt_bnb_unpack_run(void *ctx, int64_t begin, int64_t end) { // pieces of 64
    const struct kt_bnb_rows *c = ctx;
    float part[64];
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i * 64, n = c->w->size - first < 64 ? c->w->size - first : 64;
        float scale = kt_bnb_scale(c->w, first / c->w->block);
        for (int64_t j = 0; j < n; j++) part[j] = c->w->map[kt_bnb_code(c->w, first + j)] * scale;
        c->w->host->f32_to_f16(part, c->rows + first, (size_t)n);
    }
}

static inline const char *kt_bnb_unpack(const kt_cpu_call *call, int nested) {
    kt_bnb w = kt_bnb_of(call, nested);
    struct kt_bnb_rows c = {&w, kt_cpu_in(call, "rows")->data};
    call->host->parallel_for(call->host, (w.size + 63) / 64, 256, kt_bnb_unpack_run, &c);
    return NULL;
}

// ---- to tiles_lut4_k16

// Row r of the weight (-1: none) into row `row` of the layout.
static inline void kt_bnb_put_row(
    const kt_bnb *w, int64_t k, uint8_t *tiles, int64_t r, int64_t row) {
    int64_t across = (k + 63) / 64, g = row % 8, h = row % 16 / 8;
    for (int64_t c = 0; c < across * 64; c += 2) {
        uint8_t *tile = tiles + (row / 16 * across + c / 64) * 640;
        int64_t at = r * k + c, s = c % 64 / 16, t = c % 8 / 2, u = c % 16 / 8;
        int inside = r >= 0 && c < k;
        int pair = inside ? kt_bnb_code(w, at) | kt_bnb_code(w, at + 1) << 4 : 0;
        tile[(4 * g + t) * 16 + 4 * s + h + 2 * u] = (uint8_t)pair;
        if (c % 16 != 0) continue;
        float scale = inside ? kt_bnb_scale(w, at / w->block) : 0;
        uint16_t half;
        w->host->f32_to_f16(&scale, &half, 1);
        memcpy(tile + 512 + 2 * (8 * g + 2 * s + h), &half, sizeof half);
    }
}

static inline const char *kt_bnb_tile_k16(const kt_cpu_call *call, int nested) {
    kt_bnb w = kt_bnb_of(call, nested);
    int64_t k = kt_cpu_dim(call, "k");
    const int32_t *to = kt_cpu_in(call, "to")->data;
    uint8_t *tiles = kt_cpu_in(call, "tiles")->data;
    for (int64_t r = 0; r < kt_cpu_dim(call, "n"); r++) kt_bnb_put_row(&w, k, tiles, r, to[r]);
    for (int64_t row = kt_cpu_dim(call, "rows"); row % 16 != 0; row++)
        kt_bnb_put_row(&w, k, tiles, -1, row);
    memcpy(kt_cpu_in(call, "table")->data, w.map, 16 * sizeof(float));
    return NULL;
}

#endif
