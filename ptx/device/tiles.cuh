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
// tiles_q4: 4-bit codes [lane 32][step 4][e 2 of column 2 t + e][h 2 of row g + 8 h], a byte each
// with columns 0 .. 7 of the step in its low half and 8 .. 15 in its high half; then [g 8][half 2,
// of 32 columns][h 2]{scale, minimum} f16: 640 bytes a tile. A weight is (code - 8) * scale +
// minimum.
//
// tiles_q6: the low 4 bits of 6-bit codes as in tiles_q4; then their high 2 bits [lane 32][half
// 2][e 2][h 2], a byte each with columns 8 i .. 8 i + 7 of the half at bit 2 i; then scales [g
// 8][step 4][h 2] f16 and minima [g 8][half 2][h 2] f16: 960 bytes a tile. A weight is (code - 32)
// * scale + minimum.
//
// tiles_q8: 8-bit codes [half 2][lane 32][step of the half 2][register 4][2]; then scales [g
// 8][half 2][h 2] f16: 1088 bytes a tile. A weight is (code - 128) * scale.
//
// tiles_q4, q6 and q8 round a scale and a minimum to f16 when tiles are made, and the weight to f16
// when it is used. So a weight is off by at most 2^-11 (|product| + |minimum| + |weight|); what of
// these is below 2^-14 adds 2^-25 (a scale: times its code) instead. tiles_lut4_k16 rounds the
// book, the scale and the weight: 3 * 2^-11 |weight|.
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
    KT_TILE_Q4_BYTES = 640,
    KT_TILE_Q6_BYTES = 960,
    KT_TILE_Q8_BYTES = 1088,
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

// tiles_q4, tiles_q6: which byte of its tile has column col and, in its high half, col + 8 (col %
// 16 < 8).
KT_DEVICE int32_t kt_tile_q4_at(int32_t row, int32_t col) {
    return kt_tile_lane(row, col) * 16 + col % 64 / 16 * 4 + col % 2 * 2 + row % 16 / 8;
}
// tiles_q4: where the row's scale and minimum of 32 columns begin.
KT_DEVICE int32_t kt_tile_q4_scale_at(int32_t row, int32_t col) {
    return 512 + row % 8 * 16 + col % 64 / 32 * 8 + row % 16 / 8 * 4;
}
// tiles_q6: which byte of its tile has the high bits of columns col, col + 8, col + 16, col + 24
// (col % 32 < 8), two each from bit 0 on.
KT_DEVICE int32_t kt_tile_q6_high_at(int32_t row, int32_t col) {
    return 512 + kt_tile_lane(row, col) * 8 + col % 64 / 32 * 4 + col % 2 * 2 + row % 16 / 8;
}
KT_DEVICE int32_t kt_tile_q6_scale_at(int32_t row, int32_t col) {
    return 768 + row % 8 * 16 + col % 64 / 16 * 4 + row % 16 / 8 * 2;
}
KT_DEVICE int32_t kt_tile_q6_min_at(int32_t row, int32_t col) {
    return 896 + row % 8 * 8 + col % 64 / 32 * 4 + row % 16 / 8 * 2;
}
// tiles_q8: which byte of its tile.
KT_DEVICE int32_t kt_tile_q8_at(int32_t row, int32_t col) {
    return col % 64 / 32 * 512 + kt_tile_lane(row, col) * 16 + col % 32 / 16 * 8 +
           kt_tile_register(row, col) * 2 + col % 2;
}
KT_DEVICE int32_t kt_tile_q8_scale_at(int32_t row, int32_t col) {
    return 1024 + row % 8 * 8 + col % 64 / 32 * 4 + row % 16 / 8 * 2;
}

// The loop of an op that makes tiles, blockIdx.y counting 16 rows of the weight: put(r, row) for
// each of these rows r, row = to[r] of the layout. The blocks of the first rows also put(-1, row)
// for what the layout has beyond its last row: zeros.
template <class Put>
KT_DEVICE void kt_tile_each_row(const int32_t *to, int32_t n, int32_t rows, Put put) {
    const int32_t first = (int32_t)blockIdx.y * KT_TILE_ROWS;
    for (int32_t r = first; r < kt_min(first + KT_TILE_ROWS, n); r++) put(r, to[r]);
    if (first > 0) return;
    for (int32_t row = rows; row % KT_TILE_ROWS != 0; row++) put(-1, row);
}

#endif
