// CPU implementation of tile_bnb/op.yaml: the bytes of its comment, one by one.
#include "ops/kt_cpu.h"

static void clear_row(uint8_t *tiles, float *scales, int64_t row, int64_t across, int64_t record) {
    int64_t g = row % 8, h = row % 16 / 8;
    for (int64_t j = 0; j < across; j++) {
        uint8_t *tile = tiles + (row / 16 * across + j) * 528;
        for (int64_t t = 0; t < 4; t++)
            for (int64_t s = 0; s < 4; s++)
                for (int64_t u = 0; u < 2; u++) tile[(4 * g + t) * 16 + 4 * s + h + 2 * u] = 0;
        tile[512 + 2 * g + h] = 0;
    }
    memset(scales + row * record, 0, sizeof(float) * (size_t)record);
}

static void put_code(uint8_t *tiles, int64_t row, int64_t column, int64_t across, uint8_t code) {
    int64_t c = column % 64, g = row % 8, h = row % 16 / 8;
    int64_t s = c / 16, u = c % 16 / 8, t = c % 8 / 2, e = c % 2;
    uint8_t *byte =
        tiles + (row / 16 * across + column / 64) * 528 + (4 * g + t) * 16 + 4 * s + h + 2 * u;
    *byte = (uint8_t)(e ? (*byte & 15) | code << 4 : (*byte & 0xf0) | code);
}

static const char *run(const kt_cpu_call *call) {
    int64_t n = kt_cpu_dim(call, "n"), k = kt_cpu_dim(call, "k"), rows = kt_cpu_dim(call, "rows");
    int64_t b2 = kt_cpu_dim(call, "b2"), across = k / 64, record = 2 + (across + 254) / 256 + 1;
    const uint8_t *codes = kt_cpu_in(call, "codes")->data,
                  *absmax = kt_cpu_in(call, "absmax")->data;
    const float *nested = kt_cpu_in(call, "nested_absmax")->data;
    const int32_t *to = kt_cpu_in(call, "to")->data;
    uint8_t *tiles = kt_cpu_in(call, "tiles")->data;
    float *scales = kt_cpu_in(call, "scales")->data, *tables = kt_cpu_in(call, "tables")->data;
    for (int64_t row = rows; row % 16 != 0; row++) clear_row(tiles, scales, row, across, record);
    for (int64_t r = 0; r < n; r++) {
        int64_t row = to[r], block = r * across;
        for (int64_t i = 0; i < k; i++) {
            uint8_t pair = codes[(r * k + i) / 2];
            put_code(tiles, row, i, across, (r * k + i) % 2 == 0 ? pair >> 4 : pair & 15);
        }
        for (int64_t j = 0; j < across; j++)
            tiles[(row / 16 * across + j) * 528 + 512 + 2 * (row % 8) + row % 16 / 8] =
                absmax[block + j];
        scales[row * record] = (float)(block % 256);
        scales[row * record + 1] = (float)kt_cpu_param(call, "offset");
        for (int64_t i = 2; i < record; i++)
            scales[row * record + i] = block / 256 + i - 2 < b2 ? nested[block / 256 + i - 2] : 0;
    }
    memcpy(tables, kt_cpu_in(call, "map")->data, 16 * sizeof(float));
    memcpy(tables + 16, kt_cpu_in(call, "nested_map")->data, 256 * sizeof(float));
    return NULL;
}

KT_CPU_OP("tile_bnb", run)
