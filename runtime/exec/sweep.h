// The read ceiling of a device: how many bytes a second a kernel that does nothing else reads.
//
// Measured with the op read_sweep, planned, compiled and launched as any other: on the CPU through
// its C implementation. Takes memory of its own and gives it back.
#ifndef KT_EXEC_SWEEP_H
#define KT_EXEC_SWEEP_H

#include "runtime/exec/cuda.h"

typedef struct kt_sweep {
    kt_registry *registry;
    kt_gpu *gpu;           // NULL: the CPU
    kt_compiler *compiler; // for the GPU
    kt_pool *pool;         // for the CPU
    const char *include;   // folder that holds ops/kt_cpu.h
    volatile int *stop;
} kt_sweep;

// The best of several sweeps, in bytes a second. Errors: EOP (no such op), EMEMORY (too little is
// free), ECOMPILE, EGPU.
kt_status kt_sweep_read(const kt_sweep *sweep, double *out, kt_err *err) KT_MUST_CHECK;

#endif
