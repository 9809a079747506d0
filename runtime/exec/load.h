// Brings a model's weights into a back end: vectors as f32, linear weights through their prepare
// ops.
//
// Threads read, in the order of the files and ahead of the device; the calling thread alone talks
// to the back end. The same errors come whatever the threads do: those of the first bad piece.
#ifndef KT_EXEC_LOAD_H
#define KT_EXEC_LOAD_H

#include "runtime/exec/backend.h"

typedef struct kt_load_stats {
    int64_t bytes; // read from files
    int64_t upload_bytes;
    int64_t n_rounded; // numbers of bf16 and f32 tensors that f16 holds only as 0 or denormal
    // Tensors that lose by it: all their numbers are so small that what f16 rounds off a denormal
    // (2^-25) is more than what it rounds off the largest one.
    int n_faint;
    const kt_stored *faint; // one of them
    double faint_largest;   // its largest magnitude
    double ms;              // all of it
    int n_readers, n_pieces;
    double read_ms;      // the readers' own time, summed over them
    double waited_ms;    // the caller's, for pieces to be read
    double held_up_ms;   // the readers', for room, summed
    kt_load_times times; // the device's
} kt_load_stats;

// Errors: EFILE, EMODEL (a value that f16 cannot hold: tensor, index, value), EINTERRUPTED, and
// what the back end says.
kt_status kt_load_weights(
    kt_backend *backend, const volatile int *stop, kt_load_stats *stats, kt_err *err) KT_MUST_CHECK;
// "read 5.96 GB with 8 threads at 40.1 GB/s ..., bound by ...": one line, without its end.
void kt_load_stats_print(const kt_load_stats *stats, kt_buf *out);

#endif
