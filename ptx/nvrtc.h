// NVIDIA's run-time compiler: found without loading it, loaded when something has to be compiled.
//
// kt_nvrtc_find looks for the library's files and tells their version and sizes (which are part of
// a cached kernel's key) from names alone. kt_nvrtc_open loads them. Compiling is safe from several
// threads, with stacks of KT_NVRTC_STACK bytes. Search order: the environment variable KOTARO_NVRTC
// (a file or folder; then nothing else is tried); beside our program (nvrtc/,
// nvrtc/nvidia/cuda_nvrtc/lib, ../lib, ...); VIRTUAL_ENV and CONDA_PREFIX; CUDA_PATH;
// /usr/local/cuda*; LD_LIBRARY_PATH or PATH and the system's library folders.
#ifndef KT_PTX_NVRTC_H
#define KT_PTX_NVRTC_H

#include "ptx/device_headers.h"
#include "runtime/base/arena.h"
#include "runtime/base/os.h"

enum { KT_NVRTC_STACK = 16 << 20 };

// Which compiler: what a kernel's key holds of it.
typedef struct kt_nvrtc_id {
    int major, minor;
    int64_t library_bytes, builtins_bytes;
} kt_nvrtc_id;

typedef struct kt_nvrtc_place {
    const char *library, *builtins; // full paths
    kt_nvrtc_id id;
} kt_nvrtc_place;

// Errors: ECOMPILE: not found, with the places tried and the remedy.
kt_status kt_nvrtc_find(kt_arena *arena, kt_nvrtc_place *out, kt_err *err) KT_MUST_CHECK;

typedef struct kt_nvrtc kt_nvrtc;
// Loads the builtins, then the library, and compares its version with the files' names. Errors:
// ECOMPILE.
kt_status kt_nvrtc_open(const kt_nvrtc_place *place, kt_nvrtc **out, kt_err *err) KT_MUST_CHECK;
void kt_nvrtc_close(kt_nvrtc *nvrtc); // NULL is fine; the library stays loaded
kt_nvrtc_id kt_nvrtc_get_id(const kt_nvrtc *nvrtc);

typedef struct kt_nvrtc_source {
    const char *name; // shown in messages: "ops/rms_norm/rms_norm.cu"
    kt_str text;
    const kt_device_header *headers; // ends with a NULL name; NULL: none
    const char *const *options;      // of kt_options_list
    int n_options;
    volatile int *stop; // not NULL: the compilation is given up when it becomes 1
} kt_nvrtc_source;

typedef struct kt_nvrtc_output {
    kt_str cubin; // in the arena
    kt_str log;   // warnings and the assembler's resource report, also after a failure
    double ms;
} kt_nvrtc_output;

// Errors: ECOMPILE with the first error of the log (file and line; for the assembler also the line
// of PTX); the whole log is in out->log. EINTERRUPTED.
kt_status kt_nvrtc_compile(kt_nvrtc *nvrtc, const kt_nvrtc_source *source, kt_arena *arena,
    kt_nvrtc_output *out, kt_err *err) KT_MUST_CHECK;

// What the assembler's report says of one kernel.
typedef struct kt_nvrtc_usage {
    int registers, stack_bytes, spill_store_bytes, spill_load_bytes, shared_bytes;
} kt_nvrtc_usage;
// false if the log has no report for that kernel.
bool kt_nvrtc_read_usage(kt_str log, kt_str kernel, kt_nvrtc_usage *out);

#endif
