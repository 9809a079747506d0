// Op tests made from manifests: every op x case x variant x types x choices x optional inputs x
// storage formats, on the CPU alone or on a GPU against the C implementations.
//
// One test is one small pipeline: a temporary folder gets a model file, a checkpoint with random
// weights in a storage format, and a pipeline of one step; the loader, the planner and the back
// ends do the rest as in a run. Memory is filled with 0xff (NaN) before the step, and looked at as
// a whole after it: an output must be written everywhere, and nothing else may be.
//
// Error of an element: |got - want| / max(1e-6, largest |want|), the largest one over its row (last
// axis) when that has 16 elements or more, else over the tensor. It may not exceed the manifest's
// tolerance for the type. Integers are equal unless the manifest gives them a tolerance, which then
// is an absolute difference. A value that is not finite is a failure.
//
// One thread uses a kt_op_check; the registry, GPU, compiler and pool are lent to it.
#ifndef KT_EXEC_OP_CHECK_H
#define KT_EXEC_OP_CHECK_H

#include "runtime/exec/cuda.h"

// Device memory that a kernel may touch.
typedef struct kt_op_check_region {
    uint64_t at, bytes;
    bool writable;
} kt_op_check_region;

// For devices that can tell when a kernel touches other memory: called before the kernels of each
// call of the tested step (an op's body has several) with the tensors of that call, to the byte,
// disjoint and in order; and with n = 0 after them. The device is idle both times.
typedef struct kt_op_check_watch {
    void (*tell)(void *ctx, const kt_op_check_region *regions, size_t n);
    void *ctx;
} kt_op_check_watch;

typedef struct kt_op_check_options {
    kt_registry *registry;
    const char *include;   // folder that holds ops/kt_cpu.h
    kt_gpu *gpu;           // NULL: C implementations alone, with properties that need no second one
    kt_compiler *compiler; // with gpu
    const char *const *only; // names of ops; n_only 0: all
    int n_only;
    uint64_t seed;
    // Plan dims in full; build dims and combinations of choices, each of which is a compilation,
    // sampled by the seed: each variant with each type and each storage, each value of each choice.
    bool quick;
    bool first; // an op stops at its first failure
    // Without gpu: the tests of a GPU of this architecture, which can be listed and built, not run.
    int arch;
    const kt_op_check_watch *watch; // may be NULL; with gpu
    volatile int *stop;
} kt_op_check_options;

// What came of one variant of an op, or of its body or C implementation.
typedef struct kt_op_check_part {
    const kt_variant *variant; // NULL: the body, or the C implementation
    int n_runs, n_failed;
    double worst[KT_DTYPE_COUNT];
} kt_op_check_part;

// What came of one op.
typedef struct kt_op_check_result {
    const kt_op *op;
    int n_runs;    // tests that ran
    int n_refused; // sampled sizes that a requirement somewhere below does not admit
    int n_failed;
    int n_builds; // kernels that its tests need and no op before it; known after _compile or
                  // _builds
    const kt_op_check_part *parts; // of those that ran
    int n_parts;
    double worst[KT_DTYPE_COUNT]; // largest error as a part of the tolerance, by type; 0: exact
    const char *none;             // not NULL: why there was nothing to test
    double ms;
} kt_op_check_result;

typedef struct kt_op_check kt_op_check;

// Reads the manifests and lists the tests. Mistakes (unknown ops, unknown generators, tolerances
// above the cap of their type without a reason) go to diag. Errors: EYAML, EFILE (no temporary
// folder).
kt_status kt_op_check_open(const kt_op_check_options *options, kt_op_check **out, kt_diag *diag,
    kt_err *err) KT_MUST_CHECK;
void kt_op_check_close(kt_op_check *check);      // removes the temporary folder; NULL is fine
int kt_op_check_count(const kt_op_check *check); // ops
const kt_op *kt_op_check_op(const kt_op_check *check, int i);
// Compiles the kernels of all tests for an architecture in one go (arch 0: that of the GPU), so
// that the tests find them in the compiler. What does not compile is reported by its tests.
kt_status kt_op_check_compile(kt_op_check *check, int arch, kt_err *err) KT_MUST_CHECK;
// What is listed: the number of tests in n_runs, that of kernels, `none`.
void kt_op_check_listed(const kt_op_check *check, int i, kt_op_check_result *out);
// Runs the tests of one op. `report` gets a few lines for each of the first failures.
kt_status kt_op_check_run(
    kt_op_check *check, int i, kt_op_check_result *out, kt_buf *report, kt_err *err) KT_MUST_CHECK;

// One build, for tests that compile and look: with a GPU those of all tests; without one those of
// the manifests' cases, each choice at least once.
typedef struct kt_op_check_build {
    const kt_op *op;
    const kt_variant *variant;
    kt_compile_request request;
    kt_geometry *most; // by launch of the variant: the largest of its tests, number by number
} kt_op_check_build;
// For an architecture (80, 89 ...). In the arena given. Errors: EYAML: a case that cannot be
// planned (without a GPU).
kt_status kt_op_check_builds(kt_op_check *check, kt_arena *arena, int arch, kt_op_check_build **out,
    int *n, kt_err *err) KT_MUST_CHECK;

#endif
