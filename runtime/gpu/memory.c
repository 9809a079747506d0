#include "runtime/gpu/memory.h"

#include "runtime/base/log.h"
#include "runtime/base/os.h"
#include "runtime/gpu/memory_list.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    HOST_PORTABLE = 1,
    HOST_MAPPED = 2,
    N_SLOTS = 3,
    SLOT_ALIGN = 256,
    PAGES_LEAST = 1 << 20, // less than this is taken from the driver, whole pages are not worth it
};

static const int64_t mb = 1 << 20;

// One allocation: device memory, or pinned host memory (then `host` is set), the driver's or ours.
typedef struct item {
    struct item *next;
    kt_dptr at;
    void *host;
    size_t bytes;
    bool pages; // `host` is of kt_os_pages
} item;

struct kt_gpu_blocks {
    item *first;
    int64_t device_bytes;
};

static void remember(kt_gpu *gpu, const item *what) {
    if (gpu->blocks == NULL) gpu->blocks = kt_gpu_new(sizeof *gpu->blocks);
    item *one = kt_gpu_new(sizeof *one);
    *one = *what;
    one->next = gpu->blocks->first;
    gpu->blocks->first = one;
    if (one->host == NULL) gpu->blocks->device_bytes += (int64_t)one->bytes;
}

static void release(kt_gpu *gpu, item *one) {
    if (one->pages) {
        (void)KT_CUF(gpu->driver, cuMemHostUnregister, (one->host), "bytes=%zu", one->bytes);
        kt_os_pages_free(one->host, one->bytes);
    } else if (one->host != NULL) {
        (void)KT_CUF(gpu->driver, cuMemFreeHost, (one->host), "bytes=%zu", one->bytes);
    } else {
        (void)KT_CUF(gpu->driver, cuMemFree, (one->at), "bytes=%zu", one->bytes);
        gpu->blocks->device_bytes -= (int64_t)one->bytes;
    }
    free(one);
}

static void forget(kt_gpu *gpu, kt_dptr at, const void *host) {
    if (gpu->blocks == NULL) return;
    for (item **link = &gpu->blocks->first; *link != NULL; link = &(*link)->next) {
        item *one = *link;
        if (one->host != host || (host == NULL && one->at != at)) continue;
        *link = one->next;
        release(gpu, one);
        return;
    }
}

void kt_gpu_free_all(kt_gpu *gpu) {
    if (gpu->blocks == NULL) return;
    while (gpu->blocks->first != NULL) {
        item *one = gpu->blocks->first;
        gpu->blocks->first = one->next;
        release(gpu, one);
    }
    free(gpu->blocks);
    gpu->blocks = NULL;
}

int64_t kt_gpu_allocated_bytes(const kt_gpu *gpu) {
    return gpu->blocks == NULL ? 0 : gpu->blocks->device_bytes;
}

// What is left to the desktop and the driver. Beyond it Windows and WSL move blocks to main memory
// without an error, and everything runs ten times slower.
static int64_t reserve_bytes(const kt_gpu *gpu) {
#ifdef _WIN32
    (void)gpu;
    return 600 * mb;
#else
    return strstr(gpu->driver->path, "/wsl/") != NULL ? 600 * mb : 200 * mb;
#endif
}

static double gib(int64_t bytes) {
    return (double)bytes / (1024.0 * 1024.0 * 1024.0);
}

static kt_status refuse(
    const char *name, size_t bytes, int64_t free_now, int64_t total, kt_err *err) {
    return KT_FAIL(err, KT_EMEMORY,
        "the GPU has no room for '%s': it needs %.2f GiB, %.2f of %.2f GiB are free\nnote: close "
        "other programs that use the GPU, lower the pipeline's maxima (context, items, views), or "
        "use a smaller or more strongly quantised model",
        name, gib((int64_t)bytes), gib(free_now), gib(total));
}

kt_status kt_gpu_alloc(
    kt_gpu *gpu, const char *name, kt_gpu_use use, size_t bytes, kt_gpu_block *out, kt_err *err) {
    *out = (kt_gpu_block){0};
    (void)snprintf(out->name, sizeof out->name, "%s", name);
    if (bytes == 0) return KT_OK;
    int64_t free_now = 0, total = 0;
    KT_TRY(kt_gpu_memory(gpu, &free_now, &total, err));
    bool large = (int64_t)bytes >= 16 * mb;
    if (bytes > (size_t)INT64_MAX || (int64_t)bytes > free_now - (large ? reserve_bytes(gpu) : 0))
        return refuse(name, bytes, free_now, total, err);
    kt_dptr at = 0;
    kt_cu_result code =
        KT_CUF(gpu->driver, cuMemAlloc, (&at, bytes), "bytes=%zu block=%s", bytes, name);
    if (code == KT_CU_OUT_OF_MEMORY) return refuse(name, bytes, free_now, total, err);
    KT_TRY(kt_gpu_check(gpu, code, "cuMemAlloc", "allocating GPU memory", err));
    remember(gpu, &(item){.at = at, .bytes = bytes});
    out->at = at;
    out->size_bytes = bytes;
    if (use != KT_GPU_USE_ACTIVATIONS || !gpu->options.poison) return KT_OK;
    kt_status status = kt_gpu_fill(gpu, gpu->compute, at, 0xff, bytes, err);
    if (status != KT_OK) kt_gpu_free(gpu, out);
    return status;
}

void kt_gpu_free(kt_gpu *gpu, kt_gpu_block *block) {
    if (block->at != 0) forget(gpu, block->at, NULL);
    *block = (kt_gpu_block){0};
}

static kt_status map_pinned(kt_gpu *gpu, void *at, size_t bytes, kt_gpu_pinned *out, kt_err *err) {
    *out = (kt_gpu_pinned){at, 0, bytes};
    return KT_GPU_DO(
        gpu, cuMemHostGetDevicePointer, (&out->device, at, 0), "mapping pinned memory", err);
}

static kt_status no_pinning(const char *name, size_t bytes, kt_err *err) {
    return KT_FAIL(err, KT_EMEMORY,
        "the system does not pin %zu bytes of main memory for '%s'\nnote: close other programs "
        "that use the GPU; Windows and WSL allow little of it",
        bytes, name);
}

kt_status kt_gpu_pin_pages(
    kt_gpu *gpu, const char *name, void *pages, size_t bytes, kt_gpu_pinned *out, kt_err *err) {
    *out = (kt_gpu_pinned){0};
    if (gpu->driver->cuMemHostRegister == NULL || gpu->driver->cuMemHostUnregister == NULL)
        return no_pinning(name, bytes, err);
    kt_cu_result code = KT_CUF(gpu->driver, cuMemHostRegister,
        (pages, bytes, HOST_PORTABLE | HOST_MAPPED), "bytes=%zu block=%s", bytes, name);
    if (kt_driver_error_is_sticky(code))
        return kt_gpu_check(gpu, code, "cuMemHostRegister", "pinning main memory", err);
    if (code != KT_CU_SUCCESS) return no_pinning(name, bytes, err);
    kt_status status = map_pinned(gpu, pages, bytes, out, err);
    if (status == KT_OK) {
        remember(gpu, &(item){.host = pages, .bytes = bytes, .pages = true});
        return KT_OK;
    }
    (void)KT_CUF(gpu->driver, cuMemHostUnregister, (pages), "bytes=%zu", bytes);
    *out = (kt_gpu_pinned){0};
    return status;
}

// The driver's own allocation takes some 0.4 ms a megabyte; our pages take a third of that.
static bool pin_own_pages(kt_gpu *gpu, const char *name, size_t bytes, kt_gpu_pinned *out) {
    if (bytes < PAGES_LEAST) return false;
    kt_err err;
    void *pages = kt_os_pages(bytes);
    if (pages == NULL) return false;
    if (kt_gpu_pin_pages(gpu, name, pages, bytes, out, &err) == KT_OK) return true;
    kt_os_pages_free(pages, bytes);
    return false;
}

kt_status kt_gpu_pin(kt_gpu *gpu, const char *name, size_t bytes, kt_gpu_pinned *out, kt_err *err) {
    *out = (kt_gpu_pinned){0};
    if (bytes == 0 || pin_own_pages(gpu, name, bytes, out)) return KT_OK;
    void *at = NULL;
    kt_cu_result code = KT_CUF(gpu->driver, cuMemHostAlloc,
        (&at, bytes, HOST_PORTABLE | HOST_MAPPED), "bytes=%zu block=%s", bytes, name);
    if (code == KT_CU_OUT_OF_MEMORY) return no_pinning(name, bytes, err);
    KT_TRY(kt_gpu_check(gpu, code, "cuMemHostAlloc", "pinning main memory", err));
    memset(at, 0, bytes);
    remember(gpu, &(item){.host = at, .bytes = bytes});
    kt_status status = map_pinned(gpu, at, bytes, out, err);
    if (status != KT_OK) kt_gpu_unpin(gpu, out);
    return status;
}

void kt_gpu_unpin(kt_gpu *gpu, kt_gpu_pinned *pinned) {
    if (pinned->at != NULL) forget(gpu, 0, pinned->at);
    *pinned = (kt_gpu_pinned){0};
}

kt_status kt_gpu_upload(
    kt_gpu *gpu, kt_cu_stream stream, kt_dptr to, const void *from, size_t bytes, kt_err *err) {
    if (bytes == 0) return KT_OK;
    return kt_gpu_check(gpu,
        KT_CUF(gpu->driver, cuMemcpyHtoDAsync, (to, from, bytes, stream), "bytes=%zu", bytes),
        "cuMemcpyHtoDAsync", "copying to the GPU", err);
}

kt_status kt_gpu_download(
    kt_gpu *gpu, kt_cu_stream stream, void *to, kt_dptr from, size_t bytes, kt_err *err) {
    if (bytes == 0) return KT_OK;
    return kt_gpu_check(gpu,
        KT_CUF(gpu->driver, cuMemcpyDtoHAsync, (to, from, bytes, stream), "bytes=%zu", bytes),
        "cuMemcpyDtoHAsync", "copying from the GPU", err);
}

kt_status kt_gpu_fill(
    kt_gpu *gpu, kt_cu_stream stream, kt_dptr to, unsigned char value, size_t bytes, kt_err *err) {
    if (bytes == 0) return KT_OK;
    return kt_gpu_check(gpu,
        KT_CUF(gpu->driver, cuMemsetD8Async, (to, value, bytes, stream), "bytes=%zu value=%u",
            bytes, (unsigned)value),
        "cuMemsetD8Async", "filling GPU memory", err);
}

kt_status kt_gpu_read(kt_gpu *gpu, void *to, kt_dptr from, size_t bytes, kt_err *err) {
    KT_TRY(kt_gpu_wait(gpu, gpu->copy, err)); // what either stream still writes arrives first
    KT_TRY(kt_gpu_download(gpu, gpu->compute, to, from, bytes, err));
    return kt_gpu_wait(gpu, gpu->compute, err);
}

kt_status kt_gpu_write(kt_gpu *gpu, kt_dptr to, const void *from, size_t bytes, kt_err *err) {
    KT_TRY(kt_gpu_upload(gpu, gpu->compute, to, from, bytes, err));
    return kt_gpu_wait(gpu, gpu->compute, err);
}

// ---- the ring

typedef struct slot {
    kt_cu_event sent; // after the last copy out of it
    bool busy;        // that event was recorded and not waited for
} slot;

struct kt_gpu_uploader {
    kt_gpu *gpu;
    kt_cu_stream stream;
    kt_gpu_pinned pinned; // N_SLOTS slots
    size_t slot_bytes;
    slot slots[N_SLOTS];
    int current;
    size_t used; // of the current slot
};

static kt_status pin_ring(kt_gpu_uploader *uploader, size_t slot_bytes, kt_err *err) {
    const size_t sizes[] = {slot_bytes, (size_t)(16 * mb), (size_t)(8 * mb), (size_t)mb};
    kt_status status = KT_EMEMORY;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && status == KT_EMEMORY; i++) {
        if (i > 0 && sizes[i] >= sizes[0]) continue;
        size_t bytes = (sizes[i] + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
        status = kt_gpu_pin(uploader->gpu, "upload ring", bytes * N_SLOTS, &uploader->pinned, err);
        uploader->slot_bytes = bytes;
    }
    return status;
}

kt_status kt_gpu_uploader_open(
    kt_gpu *gpu, kt_cu_stream stream, size_t slot_bytes, kt_gpu_uploader **out, kt_err *err) {
    *out = NULL;
    kt_gpu_uploader *uploader = kt_gpu_new(sizeof *uploader);
    uploader->gpu = gpu;
    uploader->stream = stream;
    kt_status status = pin_ring(uploader, slot_bytes, err);
    for (int i = 0; i < N_SLOTS && status == KT_OK; i++)
        status = kt_gpu_event_open(gpu, false, &uploader->slots[i].sent, err);
    if (status != KT_OK) {
        kt_gpu_uploader_close(uploader);
        return status;
    }
    *out = uploader;
    return KT_OK;
}

void kt_gpu_uploader_close(kt_gpu_uploader *uploader) {
    if (uploader == NULL) return;
    kt_err late; // whoever waits for the stream hears of it too
    if (kt_gpu_uploader_wait(uploader, &late) != KT_OK) kt_log_debug("%s", late.text);
    for (int i = 0; i < N_SLOTS; i++) kt_gpu_event_close(uploader->gpu, uploader->slots[i].sent);
    kt_gpu_unpin(uploader->gpu, &uploader->pinned);
    free(uploader);
}

static kt_status wait_slot(kt_gpu_uploader *uploader, slot *one, kt_err *err) {
    if (!one->busy) return KT_OK;
    one->busy = false;
    return kt_gpu_event_wait(uploader->gpu, one->sent, err);
}

// Room for `bytes`, at most a slot, in the current slot or the next one once that is free.
static kt_status reserve(kt_gpu_uploader *uploader, size_t bytes, char **out, kt_err *err) {
    if (bytes > uploader->slot_bytes - uploader->used) {
        int next = (uploader->current + 1) % N_SLOTS;
        KT_TRY(wait_slot(uploader, &uploader->slots[next], err));
        uploader->current = next;
        uploader->used = 0;
    }
    *out = (char *)uploader->pinned.at + (size_t)uploader->current * uploader->slot_bytes +
           uploader->used;
    uploader->used += (bytes + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
    return KT_OK;
}

kt_status kt_gpu_uploader_put(
    kt_gpu_uploader *uploader, kt_dptr to, const void *from, size_t bytes, kt_err *err) {
    for (size_t done = 0; done < bytes;) {
        size_t n = bytes - done < uploader->slot_bytes ? bytes - done : uploader->slot_bytes;
        char *piece;
        KT_TRY(reserve(uploader, n, &piece, err));
        memcpy(piece, (const char *)from + done, n);
        KT_TRY(kt_gpu_upload(uploader->gpu, uploader->stream, to + done, piece, n, err));
        slot *one = &uploader->slots[uploader->current];
        one->busy = true;
        KT_TRY(kt_gpu_event_record(uploader->gpu, one->sent, uploader->stream, err));
        done += n;
    }
    return KT_OK;
}

kt_status kt_gpu_uploader_wait(kt_gpu_uploader *uploader, kt_err *err) {
    for (int i = 0; i < N_SLOTS; i++) KT_TRY(wait_slot(uploader, &uploader->slots[i], err));
    return KT_OK;
}
