// The one function that compiles: packs, then the cache on disk, then NVRTC.
//
// A compiler remembers what it has given in this process, so that equal requests are done once.
// NVRTC is looked for when a pack does not have the kernel, and loaded when the cache does not have
// it either. One thread at a time; it starts its own.
#ifndef KT_PTX_COMPILE_H
#define KT_PTX_COMPILE_H

#include "ptx/cache.h"
#include "ptx/options.h"
#include "ptx/pack.h"

typedef struct kt_compile_request {
    const char *name;          // "ops/rms_norm/rms_norm.cu", for messages
    kt_str source;             // the file's text
    const kt_options *options; // with the architecture
} kt_compile_request;

typedef enum kt_compile_from {
    KT_COMPILE_FROM_PACK,
    KT_COMPILE_FROM_CACHE,
    KT_COMPILE_FROM_NVRTC,
    KT_COMPILE_FROM_BEFORE, // this process had it
} kt_compile_from;
const char *kt_compile_from_name(kt_compile_from from); // "pack", "cache", "nvrtc", "before"

typedef struct kt_compile_result {
    kt_str cubin;         // lives as long as the compiler
    const kt_cubin *info; // same
    kt_compile_from from;
    double ms;  // to find or to compile it
    kt_str log; // NVRTC's, when it compiled: warnings and resource use
} kt_compile_result;

typedef struct kt_compile_progress {
    int n, n_done, n_compiled; // requests in all; finished; of these compiled by NVRTC
    const char *name;          // of the one that has just finished
} kt_compile_progress;

typedef struct kt_compiler_options {
    const kt_device_header *headers; // usually kt_device_headers; NULL: none
    const char *cache_folder;        // NULL: the user's
    bool no_cache;                   // neither read nor write the cache on disk
    const char *const
        *packs; // files or folders, in order of preference; those that do not exist are left out
    int n_packs;
    int n_threads;      // 0: as many as the process has CPUs
    volatile int *stop; // may be NULL; 1 gives up
    void (*progress)(void *ctx,
        const kt_compile_progress *progress); // may be NULL; never from two threads at once
    void *progress_ctx;
} kt_compiler_options;

typedef struct kt_compiler kt_compiler;
// Errors: EFORMAT: a pack that exists is damaged.
kt_status kt_compiler_open(
    const kt_compiler_options *options, kt_compiler **out, kt_err *err) KT_MUST_CHECK;
void kt_compiler_close(kt_compiler *compiler); // NULL is fine
kt_cache *kt_compiler_cache(kt_compiler *compiler);

// Fills results[0 .. n). Errors: ECOMPILE (the first request that failed; its log in its result),
// EINTERRUPTED. On error the results of the other requests may be missing (cubin.at NULL).
kt_status kt_compile(kt_compiler *compiler, const kt_compile_request *requests, int n,
    kt_compile_result *results, kt_err *err) KT_MUST_CHECK;
// After the driver refused an image: compiles with NVRTC whatever pack, cache and memory say, and
// overwrites the cache.
kt_status kt_compile_again(kt_compiler *compiler, const kt_compile_request *request,
    kt_compile_result *result, kt_err *err) KT_MUST_CHECK;
// How many requests came from where, since open.
int kt_compiler_count(const kt_compiler *compiler, kt_compile_from from);
// Was the compiler's library opened by this process?
bool kt_compiler_nvrtc_loaded(const kt_compiler *compiler);

#endif
