// The CUDA back end: every home is a block of device memory, every call a few kernel launches.
#ifndef KT_EXEC_CUDA_H
#define KT_EXEC_CUDA_H

#include "ptx/compile.h"
#include "runtime/exec/backend.h"
#include "runtime/gpu/device.h"

typedef struct kt_cuda_options {
    kt_gpu *gpu;           // lent
    kt_compiler *compiler; // lent
    bool graph;            // stages that ask for it are recorded and replayed
    kt_profile *profile;   // on: each call is timed, and nothing is replayed
    int slots;             // 1, or KT_SLOTS: the next picture is uploaded while one is computed
    volatile int *stop;
} kt_cuda_options;

typedef struct kt_cuda_times {
    double compile_ms, load_modules_ms, memory_ms, graph_ms;
    int n_builds, n_compiled, n_cached, n_packed;
} kt_cuda_times;

// Compiles what the plan needs, loads it, allocates all memory. Errors: ECOMPILE, EOP (a kernel
// whose parameters are not those of its manifest), EMEMORY, EGPU.
kt_status kt_cuda_backend_open(kt_arena *arena, const kt_plan *plan, const kt_cuda_options *options,
    kt_backend **out, kt_err *err) KT_MUST_CHECK;
kt_cuda_times kt_cuda_backend_times(const kt_backend *backend);
// Records every graph of the plan now instead of at first use.
kt_status kt_cuda_backend_record(kt_backend *backend, kt_err *err) KT_MUST_CHECK;

// Compile requests of a plan's builds for an architecture (also for packs). `sources` read from the
// ops' folders.
kt_status kt_cuda_requests(kt_arena *arena, const kt_plan *plan, int arch, kt_compile_request **out,
    kt_err *err) KT_MUST_CHECK;

// Compares a compiled build's kernels with what its manifest says they take. Errors: EOP naming
// kernel, parameter and both sizes. Needs no GPU.
kt_status kt_cuda_check_build(
    kt_arena *arena, const kt_build *build, const kt_cubin *cubin, kt_err *err) KT_MUST_CHECK;

#endif
