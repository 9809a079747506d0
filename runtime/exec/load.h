// Brings a model's weights into a back end: vectors as f32, linear weights through their prepare
// ops.
#ifndef KT_EXEC_LOAD_H
#define KT_EXEC_LOAD_H

#include "runtime/exec/backend.h"

typedef struct kt_load_stats {
    int64_t bytes;     // read from files
    int64_t n_rounded; // values of bf16 and f32 tensors that f16 holds only as 0 or denormal
    double ms;
} kt_load_stats;

// Errors: EFILE, EMODEL (a value that f16 cannot hold: tensor, index, value), and what the back end
// says.
kt_status kt_load_weights(
    kt_backend *backend, const volatile int *stop, kt_load_stats *stats, kt_err *err) KT_MUST_CHECK;

#endif
