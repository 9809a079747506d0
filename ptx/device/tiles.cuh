// Where a weight's numbers lie in the tiled layouts: the one definition that prepare ops write by
// and matrix products read by.
//
// A tile is 16 rows x 64 columns of a weight W[rows, cols], cut into 4 steps of 16 columns; tiles
// of 16 rows lie one after the other along the columns. Inside, numbers lie as the A operand of
// mma.m16n8k16 wants them (kt_mma in mma.cuh), lane l = 4 g + t:
//
//   register i of step s, lane l:  row g + 8 (i % 2), columns 16 s + 8 (i / 2) + 2 t and the next
//
// tiles_f16: [step 4][lane 32][register 4][2] f16, 2048 bytes a tile.
//
// tiles_lut4: codes [lane 32][step 4][register 4], a byte each with the even column in its low
// half, then 16 scale codes, that of row g + 8 h at 2 g + h: 528 bytes a tile. After the tiles f32
// [rows up to 16][2 + spans], a record {phase, offset, scales} for each row; then f32 [16 + 256],
// code book and scale book. In tile column j the scale of a row is
//   book[scale code] * scales[(phase + j) / 256] + offset
//
// tiles_lut4_k16: codes as before, then scales [g 8][step 4][h 2] f16 of row g + 8 h: 640 bytes a
// tile. After the tiles f32 [16], the code book.
//
// Each part of a layout starts at a multiple of 256 bytes. Rows and columns beyond the weight are 0
// (codes 0 with scale 0).
#ifndef KT_DEVICE_TILES_CUH
#define KT_DEVICE_TILES_CUH

#include "kt.cuh"

enum {
    KT_TILE_ROWS = 16,
    KT_TILE_COLS = 64,
    KT_TILE_F16_BYTES = 2048,
    KT_TILE_CODES_BYTES = 512,
    KT_TILE_LUT4_BYTES = 528,
    KT_TILE_LUT4_K16_BYTES = 640,
    KT_PART_ALIGN = 256, // bytes, of the parts of a layout
    KT_LUT4_BLOCK = 64,  // columns with one scale
    KT_LUT4_SPAN = 256,  // scales with one second-level scale
};

// Second-level scales that one row can touch, whatever the phase of its first block.
static __device__ __forceinline__ constexpr int32_t kt_lut4_spans(int32_t cols) {
    return (cols / KT_LUT4_BLOCK + KT_LUT4_SPAN - 2) / KT_LUT4_SPAN + 1;
}

KT_DEVICE int64_t kt_tile_number(int32_t row, int32_t col, int32_t cols) {
    return (int64_t)(row / KT_TILE_ROWS) * kt_ceil_div(cols, KT_TILE_COLS) + col / KT_TILE_COLS;
}

// Lane and register that hold (row, col) of a tile in its step.
KT_DEVICE int32_t kt_tile_lane(int32_t row, int32_t col) {
    return row % 8 * 4 + col % 8 / 2;
}
KT_DEVICE int32_t kt_tile_register(int32_t row, int32_t col) {
    return row % 16 / 8 + col % 16 / 8 * 2;
}

// tiles_f16: which f16 of its tile.
KT_DEVICE int32_t kt_tile_f16_at(int32_t row, int32_t col) {
    return col % 64 / 16 * 256 + kt_tile_lane(row, col) * 8 + kt_tile_register(row, col) * 2 +
           col % 2;
}
// tiles_lut4*: which byte of its tile; column col is its low half if even.
KT_DEVICE int32_t kt_tile_code_at(int32_t row, int32_t col) {
    return kt_tile_lane(row, col) * 16 + col % 64 / 16 * 4 + kt_tile_register(row, col);
}
// tiles_lut4: which byte of its tile is the row's scale code.
KT_DEVICE int32_t kt_tile_scale_code_at(int32_t row) {
    return KT_TILE_CODES_BYTES + row % 8 * 2 + row % 16 / 8;
}
// tiles_lut4_k16: which byte of its tile is where the scale of the row's step begins.
KT_DEVICE int32_t kt_tile_k16_scale_at(int32_t row, int32_t col) {
    return KT_TILE_CODES_BYTES + (row % 8 * 8 + col % 64 / 16 * 2 + row % 16 / 8) * 2;
}

#endif
