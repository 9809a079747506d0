// Coefficient tables for resizing pictures exactly as Pillow does: what the op resize_image reads.
//
// One picture is resized to several targets. For each axis of each target there is a table: for
// every output index the first source index, the number of taps, and their weights as integers of
// 22-bit fixed point. The op does the rest in integers, horizontal pass first, each pass rounded
// and clamped to 8 bit:
//     y = clamp((2^21 + sum of weight * x) >> 22, 0, 255)
// so two machines give the same bytes. An axis whose size does not change has one tap of 2^22 per
// index, which gives the same bytes back, as Pillow's skipped pass does.
//
// Layout of the i32[t] tensor `taps` for m targets (starts count ints from the tensor's own):
//     taps[4 * i + 0]   start of target i's column table (horizontal pass)
//     taps[4 * i + 1]   start of its row table (vertical pass)
//     taps[4 * i + 2]   taps per column, kc: the stride of the column weights
//     taps[4 * i + 3]   taps per row, kr
// and a table for n outputs with k taps per output, n * (2 + k) ints:
//     first[n]          first source index
//     count[n]          taps used, 1 .. k; first + count <= source size
//     weight[n][k]      row-major; 0 beyond count
// Column tables have n = target width, row tables n = target height; k differs between axes and
// targets. Tables lie behind the 4 * m offsets, target by target, columns before rows, without
// gaps.
//
// Any thread.
//
// Source: python-pillow, src/libImaging/Resample.c (precompute_coeffs, normalize_coeffs_8bpc),
// versions up to 12.1. From 12.2 on Pillow resizes some shapes vertically first: pictures more than
// 100 times as tall as wide that get shorter (12.2), many more that lose height (13.0). Doubles
// throughout, so Lanczos depends on the C library's sin in the last unit of a weight.
#ifndef KT_LOADER_RESIZE_H
#define KT_LOADER_RESIZE_H

#include "runtime/base/status.h"
#include "runtime/base/str.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum kt_resize_filter {
    KT_RESIZE_LANCZOS,
    KT_RESIZE_BICUBIC,
    KT_RESIZE_BILINEAR,
    KT_RESIZE_COUNT
} kt_resize_filter;

bool kt_resize_filter_find(kt_str name, kt_resize_filter *out);

// A resize of one picture to several sizes. All sizes at least 1.
typedef struct kt_resize_job {
    kt_resize_filter filter;
    int height, width;      // source
    int n_targets;          // m
    const int32_t (*to)[2]; // [m]: height, width
} kt_resize_job;

// How many ints the tables take: the t of `to.taps`. Errors: EIMAGE if that is beyond 32-bit
// offsets.
kt_status kt_resize_count(const kt_resize_job *job, int64_t *n_ints, kt_err *err) KT_MUST_CHECK;
// Fills taps[0 .. n_ints); the job must have passed kt_resize_count.
void kt_resize_taps(const kt_resize_job *job, int32_t *taps);

#endif
