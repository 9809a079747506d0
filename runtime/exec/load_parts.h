// Inside loading: what load.c, load_list.c, load_read.c and load_values.c share.
//
// load_list.c turns a plan into images, cut into pieces. Reader threads fill pieces in order
// (load_read.c: from the file, row order, widening, a look at every number); the thread that loads
// sends them and starts the prepare calls of each image (load.c).
#ifndef KT_EXEC_LOAD_PARTS_H
#define KT_EXEC_LOAD_PARTS_H

#include "loader/gguf.h"
#include "runtime/exec/load.h"

// What a look at numbers found.
typedef struct kt_load_scan {
    int64_t n_small; // not 0 and below f16's normal range
    double largest;  // magnitude
} kt_load_scan;

// Numbers or bytes that follow each other in an image.
typedef struct kt_load_segment {
    int64_t at, bytes;       // in the image
    const kt_weight *weight; // NULL: from memory
    const kt_stored *stored;
    const void *memory;
    int64_t first;    // bytes: where the weight's rows begin in the tensor
    int64_t row;      // of the weight, the first one here
    int64_t row_size; // stored bytes of a row, of weights whose rows are in another order
    bool widen;       // to f32
    bool f16;         // the numbers will be f16: they must fit
    kt_load_scan scan;
} kt_load_segment;

// A piece of an image: bytes from .. to, in n segments from `segment` on.
typedef struct kt_load_chunk {
    int image, segment, n_segments;
    int64_t from, to;
} kt_load_chunk;

// One weight, or some of its rows, to prepare when its image is there.
typedef struct kt_load_step {
    const kt_layout *layout;
    const kt_prepare *prepare;
    int64_t offset; // of its staging tensors in the area
    int file;       // for the order
    int64_t file_offset;
} kt_load_step;

typedef struct kt_load_image {
    kt_load_place place;
    int area, n_before; // images that used areas before this one
    int first_chunk, n_chunks;
    int first_step, n_steps;
} kt_load_image;

typedef struct kt_load_list {
    kt_arena *arena;
    KT_VEC(kt_load_segment) segments;
    KT_VEC(kt_load_chunk) chunks;
    KT_VEC(kt_load_step) steps;
    KT_VEC(kt_load_image) images;
} kt_load_list;

// Bytes that will be read from files, about.
int64_t kt_load_bytes(const kt_plan *plan);
// The images of a plan for this room, in the order of the files; layouts in host memory come last.
void kt_load_list_make(kt_load_list *list, const kt_plan *plan, const kt_load_room *room);

enum { KT_LOAD_SCRATCH = 256 << 10 };

// A chunk to be written to `to`. `scratch` has KT_LOAD_SCRATCH bytes. What was found in each
// segment of the chunk is added to scans, in their order.
typedef struct kt_load_fill {
    const kt_checkpoint *checkpoint;
    const kt_load_list *list;
    const kt_load_chunk *chunk;
    char *to, *scratch;
    kt_load_scan *scans;
    int64_t bytes; // out: read from files
} kt_load_fill;
// Errors: EFILE, EMODEL (a number that f16 does not hold, or that is none: tensor, index, value),
// each naming the weight.
kt_status kt_load_fill_chunk(kt_load_fill *fill, kt_err *err) KT_MUST_CHECK;

// Looks at n numbers of a float type. f16: they will become f16. Returns the first that is not
// finite (or that f16 cannot hold), -1: all are fine. Adds to *scan for bf16 and f32 numbers.
int64_t kt_load_look(kt_dtype dtype, bool f16, const void *numbers, int64_t n, kt_load_scan *scan);
// Looks at the f16 numbers in blocks of GGML's: `n` bytes that begin `from` bytes into a tensor (or
// into a row, which begins with a block). Returns the block of the first that is not finite,
// counted from the one that `from` lies in, -1: all are fine. A number that the bytes do not hold
// whole is not looked at.
int64_t kt_load_look_blocks(
    const kt_gguf_halves *halves, int64_t from, const char *bytes, int64_t n);
// Numbers of a float type as f32.
void kt_load_widen(kt_dtype dtype, const void *in, float *out, int64_t n);

#endif
