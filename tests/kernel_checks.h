// What is checked of compiled kernels without running them, and the table of what they use.
//
// Each function appends a line (or several) for each thing that is wrong. Texts and rows live in
// the arenas given.
#ifndef KT_TESTS_KERNEL_CHECKS_H
#define KT_TESTS_KERNEL_CHECKS_H

#include "runtime/exec/op_check.h"

enum { KERNEL_ARCHS = 5 };
extern const int kernel_archs[KERNEL_ARCHS];

// ---- local memory

// A list of the kernels that may use local memory, in which registers are spilled: a line has op,
// variant, macros of the build (joined by '+'), and the reason. '#' begins a comment. NVRTC=13
// among the macros: with compilers of that major version only.
typedef struct kernel_spill {
    int line;
    kt_str op, variant, macros;
    bool needed; // a build that matches uses local memory
} kernel_spill;
typedef struct kernel_spills {
    const char *path;
    KT_VEC(kernel_spill) list;
} kernel_spills;
// `major`: of the compiler; lines for others are left out.
void kernel_spills_read(
    kt_arena *arena, const char *path, kt_str text, int major, kernel_spills *out, kt_buf *wrong);
// After all builds of all architectures: lines that none of them needs.
void kernel_spills_unused(const kernel_spills *spills, kt_buf *wrong);

// ---- one build

// Compiled without a warning; its kernels are those of the variant, take the parameters of the
// manifest, leave nothing for the driver to find, use local memory only if listed, and fit with
// their launches on a card of sm_89. `result` comes from NVRTC: a cache keeps no warnings.
void kernel_check_build(kt_arena *arena, const kt_op_check_build *build,
    const kt_compile_result *result, kernel_spills *spills, kt_buf *wrong);
// Two compilations of one build.
void kernel_check_same(const kt_op_check_build *build, const kt_compile_result *a,
    const kt_compile_result *b, kt_buf *wrong);
// The build with the prototypes of the manifest after its source: compiles if these are the
// kernels' own.
kt_compile_request kernel_with_prototypes(kt_arena *arena, const kt_op_check_build *build);

// ---- the table

enum { KERNEL_FIELDS = 4 }; // registers a thread; bytes of shared memory, frame, spills
typedef struct kernel_row {
    const char *key; // kernel and macros
    int32_t value[KERNEL_FIELDS][KERNEL_ARCHS];
} kernel_row;
typedef struct kernel_table {
    kt_arena *arena;
    KT_VEC(kernel_row) rows;
} kernel_table;
void kernel_table_add(
    kernel_table *table, const kt_op_check_build *build, const kt_compile_result *result);
// Sorted; a line for each kernel and macros. The first lines say what made it.
void kernel_table_print(kernel_table *table, const kt_nvrtc_id *id, kt_buf *out);
// The lines that only one of the two texts has, as '-' and '+'.
void kernel_table_compare(kt_str want, kt_str got, kt_buf *wrong);

#endif
