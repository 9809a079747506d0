// What the bytes of a fabricated tensor are: numbers drawn from a seed, found by place.
//
// Word i (8 bytes) of a tensor is a function of the tensor's key and of i alone, so any range can
// be made by any thread in any order and the files are the same for any number of threads. No
// function of the mathematics library is used: the same bytes on every machine. About 3 GB/s a
// core, which is more than memory pages are handed out or a disk takes: writing is what bounds a
// run, so no GPU is used (--measure shows both).
#ifndef KT_FABRICATE_FILL_H
#define KT_FABRICATE_FILL_H

#include "runtime/base/arena.h"
#include "runtime/base/str.h"

enum { KT_FILL_LEVELS = 4096 }; // different values of a normal distribution

typedef enum kt_fill_kind {
    KT_FILL_FIXED,    // the bytes at `fixed`, again and again
    KT_FILL_NORMAL16, // 16-bit floats out of a table of levels
    KT_FILL_NORMAL32, // f32 out of a table of levels
    KT_FILL_BYTES,    // any byte equally often
    KT_FILL_NF4,      // pairs of codes; weights that mean 0
    KT_FILL_UNIFORM,  // f32 from low to high
    KT_FILL_Q4_0,     // blocks of GGML with a random scale each, out of a table of f16 levels
    KT_FILL_Q4_K,
    KT_FILL_Q6_K
} kt_fill_kind;

typedef struct kt_fill {
    kt_fill_kind kind;
    uint64_t key;
    const void *fixed;
    int64_t fixed_bytes;
    const uint16_t *levels16; // [KT_FILL_LEVELS]
    const float *levels32;
    float low, high;
} kt_fill;

// The key of a tensor. Source of the mixing function: Steele, Lea, Flood 2014, SplitMix64.
uint64_t kt_fill_key(uint64_t seed, kt_str name);
// KT_FILL_LEVELS equally likely values of a normal distribution, ascending, standard deviation 1.
const double *kt_fill_normals(kt_arena *arena);
// Writes bytes at .. at + n of the tensor to out.
void kt_fill_at(const kt_fill *fill, int64_t at, void *out, size_t n);

#endif
