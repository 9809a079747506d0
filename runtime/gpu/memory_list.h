// Inside runtime/gpu: what device.c and memory.c share.
#ifndef KT_GPU_MEMORY_LIST_H
#define KT_GPU_MEMORY_LIST_H

#include "runtime/gpu/device.h"

// Frees every block and pinned range that is left.
void kt_gpu_free_all(kt_gpu *gpu);
// Zeroed host memory for a handle, to be given back with free(). Never NULL.
void *kt_gpu_new(size_t bytes);

#endif
