// From a picture's size to what a vision tower sees: the first fit, and the scheme that cuts views.
//
// Only sizes and indices are computed here; pixels are moved by the ops resize_image and patchify.
// A scheme has a name (the model file's `picture.scheme`) and parameters; nothing here knows a
// model.
//
//   minicpm_v   an overview and, if the picture is larger than side * side pixels, close-ups:
//               the picture is stretched to a grid of equal tiles. Position ids are fractions of
//               each axis put into `table` buckets, in the float arithmetic of the reference.
//   whole       one view of side x side pixels, stretched; position ids count the patches.
//               For towers with a fixed size: side / patch must be `table`.
//
// Rounding is Python's: round() is half to even, int() truncates; all in double. Any thread.
#ifndef KT_LOADER_PICTURE_H
#define KT_LOADER_PICTURE_H

#include "runtime/base/arena.h"
#include "runtime/base/status.h"
#include "runtime/base/str.h"

#include <stdbool.h>
#include <stdint.h>

// Size after the first resize: the longer side becomes `longest` if it is longer (nothing is
// enlarged), the other keeps the aspect: max(1, round half to even of other * longest / longer).
// longest 0 keeps the size.
void kt_picture_fit(int longest, int height, int width, int *out_height, int *out_width);

typedef enum kt_picture_scheme {
    KT_PICTURE_MINICPM_V,
    KT_PICTURE_WHOLE,
    KT_PICTURE_SCHEME_COUNT
} kt_picture_scheme;

const char *kt_picture_scheme_name(kt_picture_scheme scheme);
bool kt_picture_scheme_find(kt_str name, kt_picture_scheme *out);

typedef struct kt_picture_params {
    kt_picture_scheme scheme;
    int side;    // S, pixels; the views' area is about S * S
    int patch;   // P, pixels
    int slices;  // M, close-ups at most; 1: only the overview. The smaller of the user's and the
                 // model's
    int table;   // side of the square table of position embeddings
    int queries; // tokens that stand for one view
    float mean[3], std[3]; // of the channels, on the scale 0 .. 1
} kt_picture_params;

// All arrays live in the arena that was passed in.
typedef struct kt_picture_views {
    int n_targets;        // m: resized pictures that views are cut from
    int32_t (*target)[2]; // [m] height, width in pixels
    int64_t n_pixels;     // of all targets
    int n_views;
    int32_t (*from)[3];  // [views] target, top row, left column in pixels
    int32_t (*size)[2];  // [views] rows and columns of patches
    int32_t *offset;     // [views + 1] first patch of each view
    float (*level)[256]; // [3] value of each byte: (byte / 255 - mean) / std in f32
    int64_t n_patches;
    int32_t *position;     // [patches] row of the position table
    int64_t n_queried;     // views * queries
    int32_t *query_row;    // [queried] 0 .. queries - 1 for every view
    int32_t *query_offset; // [views + 1]
    int grid_cols,
        grid_rows; // of the close-ups; 0 and 0 without. Views are the overview, then row by row
} kt_picture_views;

// Views of a picture of height x width pixels. The targets are to be made with the bicubic filter.
// Errors: EIMAGE (no such size, or a shape too extreme for 32-bit sizes), EMODEL (parameters that
// do not fit together).
kt_status kt_picture_slice(const kt_picture_params *params, int height, int width, kt_arena *arena,
    kt_picture_views *out, kt_err *err) KT_MUST_CHECK;

// Position of each of n patches of an axis among `table` buckets, as the reference computes it in
// f32.
void kt_picture_buckets(int n, int table, int32_t *out);

#endif
