// Device memory in named blocks, pinned host memory, copies, and the ring that uploads go through.
//
// kt_gpu_alloc is the only call in Kotaro that allocates device memory: one weight block per model,
// one state and one activation block per plan; tensors are offsets into them. Blocks are freed by
// kt_gpu_free or by kt_gpu_close. Copies are asynchronous: the caller keeps host memory alive until
// the stream has passed them.
#ifndef KT_GPU_MEMORY_H
#define KT_GPU_MEMORY_H

#include "runtime/gpu/device.h"

typedef enum kt_gpu_use {
    KT_GPU_USE_WEIGHTS,
    KT_GPU_USE_STATE,
    KT_GPU_USE_ACTIVATIONS,
    KT_GPU_USE_OTHER
} kt_gpu_use;

typedef struct kt_gpu_block {
    kt_dptr at; // aligned to 256 bytes at least
    size_t size_bytes;
    char name[48];
} kt_gpu_block;

// Errors: EMEMORY with what, how much, how much was free and the remedy. A size of 0 gives at == 0.
// With options.poison, activation blocks are filled with 0xff on the compute stream.
kt_status kt_gpu_alloc(kt_gpu *gpu, const char *name, kt_gpu_use use, size_t bytes,
    kt_gpu_block *out, kt_err *err) KT_MUST_CHECK;
void kt_gpu_free(kt_gpu *gpu, kt_gpu_block *block); // zeroes *block; a zeroed block is fine
int64_t kt_gpu_allocated_bytes(const kt_gpu *gpu);

// Host memory that the device reaches directly. `device` is its address there (mapped).
typedef struct kt_gpu_pinned {
    void *at;
    kt_dptr device;
    size_t size_bytes;
} kt_gpu_pinned;

// Zeroed. Errors: EMEMORY.
kt_status kt_gpu_pin(
    kt_gpu *gpu, const char *name, size_t bytes, kt_gpu_pinned *out, kt_err *err) KT_MUST_CHECK;
// Pins memory of kt_os_pages(bytes), which the caller's threads may have touched before: that is
// the larger part of the time. On success the pages belong to *out, else they stay the caller's.
// Errors: EMEMORY: they cannot be pinned.
kt_status kt_gpu_pin_pages(kt_gpu *gpu, const char *name, void *pages, size_t bytes,
    kt_gpu_pinned *out, kt_err *err) KT_MUST_CHECK;
void kt_gpu_unpin(kt_gpu *gpu, kt_gpu_pinned *pinned);

// Asynchronous on `stream` when the host side is pinned; else the driver may wait.
kt_status kt_gpu_upload(kt_gpu *gpu, kt_cu_stream stream, kt_dptr to, const void *from,
    size_t bytes, kt_err *err) KT_MUST_CHECK;
kt_status kt_gpu_download(kt_gpu *gpu, kt_cu_stream stream, void *to, kt_dptr from, size_t bytes,
    kt_err *err) KT_MUST_CHECK;
kt_status kt_gpu_fill(kt_gpu *gpu, kt_cu_stream stream, kt_dptr to, unsigned char value,
    size_t bytes, kt_err *err) KT_MUST_CHECK;
// Copy and wait; for tests and tools.
kt_status kt_gpu_read(kt_gpu *gpu, void *to, kt_dptr from, size_t bytes, kt_err *err) KT_MUST_CHECK;
kt_status kt_gpu_write(
    kt_gpu *gpu, kt_dptr to, const void *from, size_t bytes, kt_err *err) KT_MUST_CHECK;

// A ring of pinned slots: the host fills one while others are on their way. One thread at a time.
typedef struct kt_gpu_uploader kt_gpu_uploader;

// Three slots of `slot_bytes` (16, 8 or 1 MB where that is less and the system does not pin more).
// Copies go to `stream`.
kt_status kt_gpu_uploader_open(kt_gpu *gpu, kt_cu_stream stream, size_t slot_bytes,
    kt_gpu_uploader **out, kt_err *err) KT_MUST_CHECK;
void kt_gpu_uploader_close(kt_gpu_uploader *uploader); // waits for what is under way; NULL is fine
// Copies from host memory; `from` may be reused at once.
kt_status kt_gpu_uploader_put(kt_gpu_uploader *uploader, kt_dptr to, const void *from, size_t bytes,
    kt_err *err) KT_MUST_CHECK;
// Waits until everything has arrived.
kt_status kt_gpu_uploader_wait(kt_gpu_uploader *uploader, kt_err *err) KT_MUST_CHECK;

#endif
