// Any bytes as a cubin and as the payload of a cache entry: read, or refused with a reason.
#include "ptx/cache.h"
#include "tests/fuzz.h"

#include <string.h>

static size_t walk(const kt_cubin *cubin) {
    size_t n = strlen(cubin->tool);
    KT_ASSERT(cubin->n_kernels > 0 && cubin->sm >= 50);
    for (int i = 0; i < cubin->n_kernels; i++) {
        const kt_cubin_kernel *kernel = &cubin->kernels[i];
        KT_ASSERT(kernel->n_params <= KT_CUBIN_MAX_PARAMS && kernel->max_threads <= 1024);
        n += strlen(kernel->name);
        for (int p = 0; p < kernel->n_params; p++) KT_ASSERT(kernel->params[p].size > 0);
    }
    for (int i = 0; i < cubin->n_externals; i++) n += strlen(cubin->externals[i]);
    return n;
}

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kt_arena arena = {0};
    kt_err err = {0};
    kt_cubin cubin;
    kt_cache_entry entry;
    if (kt_cubin_read(&arena, data, size, &cubin, &err) == KT_OK)
        walk(&cubin);
    else
        KT_ASSERT(err.code == KT_EFORMAT && err.text[0] != 0);
    if (kt_cache_decode(&arena, (kt_str){(const char *)data, size}, &entry, &err) == KT_OK)
        walk(&entry.info);
    kt_arena_deinit(&arena);
    return 0;
}
