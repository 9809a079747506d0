// Reads a cubin (an ELF file with code for one GPU architecture) without any NVIDIA tool.
//
// Bounded: no byte outside `bytes` is read, whatever it holds; meant to be fuzzed. The driver takes
// no length when it loads an image, so nothing reaches it that kt_cubin_read has not accepted. Any
// thread.
#ifndef KT_PTX_CUBIN_H
#define KT_PTX_CUBIN_H

#include "runtime/base/arena.h"
#include "runtime/base/str.h"

typedef struct kt_cubin_param {
    uint32_t offset, size; // bytes in the parameter block
} kt_cubin_param;

typedef struct kt_cubin_kernel {
    const char *name;
    const kt_cubin_param *params; // by ordinal
    int n_params;
    int registers;
    int max_threads; // of __launch_bounds__; 0: none given
    int barriers;
    uint32_t shared_bytes; // static
    uint32_t frame_bytes;  // local memory frame of a thread: arrays and spills together
    uint32_t stack_bytes;  // least stack
    uint32_t code_bytes;
    int32_t spill_bytes; // from the compiler's report, not in the file: -1 unknown
} kt_cubin_kernel;

typedef struct kt_cubin {
    int sm;                         // 89
    int abi;                        // 7: compilers before 13, 8: from 13.0
    const kt_cubin_kernel *kernels; // in the order of their sections
    int n_kernels;
    const char *const *externals; // functions left for the driver to resolve
    int n_externals;
    char tool[32]; // "V13.0.88"; empty: not noted
} kt_cubin;

enum { KT_CUBIN_MAX_BYTES = 256 << 20, KT_CUBIN_MAX_PARAMS = 256 };

// Names are copied to the arena. Errors: EFORMAT.
kt_status kt_cubin_read(
    kt_arena *arena, const void *bytes, size_t n, kt_cubin *out, kt_err *err) KT_MUST_CHECK;
const kt_cubin_kernel *kt_cubin_find(const kt_cubin *cubin, const char *kernel); // NULL if absent
// May code for `sm` run on a device of `device_sm`: same major, minor not below.
bool kt_cubin_runs_on(int sm, int device_sm);

#endif
