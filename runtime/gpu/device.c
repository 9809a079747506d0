#include "runtime/gpu/device.h"

#include "runtime/base/os.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/memory_list.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCHED_SPIN = 1,
    SCHED_BLOCKING = 4,
    STREAM_NON_BLOCKING = 1,
    EVENT_BLOCKING = 1,
    EVENT_NO_TIMING = 2,
    GREEN_DEFAULT_STREAM = 1,
    RESOURCE_SM = 1,
};

static const double spin_ms = 1.0; // an event is polled for so long before the host sleeps

void *kt_gpu_new(size_t bytes) {
    void *at = calloc(1, bytes);
    if (at == NULL) kt_out_of_memory(bytes);
    return at;
}

kt_status kt_gpu_check(
    kt_gpu *gpu, kt_cu_result code, const char *call, const char *doing, kt_err *err) {
    if (code == KT_CU_SUCCESS) return KT_OK;
    if (gpu->lost) {
        *err = gpu->loss;
        return err->code;
    }
    kt_status status = kt_driver_check(gpu->driver, code, call, doing, err);
    if (!kt_driver_error_is_sticky(code)) return status;
    kt_err_note(err, "the GPU cannot be used by this process any more");
    for (int i = 0; i < KT_GPU_RECENT && i < (int)gpu->n_launches; i++)
        kt_err_note(err, "%s %s", i == 0 ? "last submitted:" : "before it:",
            gpu->recent[(gpu->n_launches - 1 - (unsigned)i) % KT_GPU_RECENT]);
    if (gpu->n_launches > 0 && !gpu->options.check_each)
        kt_err_note(err, "run with --check-each to learn which one failed");
    gpu->lost = true;
    gpu->loss = *err;
    return status;
}

static kt_status get_attributes(kt_gpu *gpu, kt_err *err) {
    kt_gpu_info *info = &gpu->info;
    int timeout = 0;
    const struct {
        int attribute, *to;
    } rows[] = {
        {KT_CU_ATTR_CC_MAJOR, &info->cc_major},
        {KT_CU_ATTR_CC_MINOR, &info->cc_minor},
        {KT_CU_ATTR_SM_COUNT, &info->device_sm_count},
        {KT_CU_ATTR_MAX_THREADS_PER_BLOCK, &info->max_threads},
        {KT_CU_ATTR_SHARED_OPTIN, &info->shared_optin_bytes},
        {KT_CU_ATTR_KERNEL_TIMEOUT, &timeout},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        KT_TRY(kt_gpu_check(gpu,
            KT_CUF(gpu->driver, cuDeviceGetAttribute, (rows[i].to, rows[i].attribute, gpu->device),
                "attribute=%d", rows[i].attribute),
            "cuDeviceGetAttribute", "asking the GPU for its limits", err));
    KT_TRY(KT_GPU_DO(gpu, cuDeviceGetName, (info->name, (int)sizeof info->name, gpu->device),
        "asking the GPU for its name", err));
    size_t total = 0;
    KT_TRY(KT_GPU_DO(
        gpu, cuDeviceTotalMem, (&total, gpu->device), "asking the GPU for its memory", err));
    info->total_bytes = (int64_t)total;
    info->arch = info->cc_major * 10 + info->cc_minor;
    info->sm_count = info->device_sm_count;
    info->kernel_timeout = timeout != 0;
    info->driver_version = gpu->driver->version;
    if (info->cc_major < 8)
        return KT_FAIL(err, KT_EDRIVER,
            "%s has compute capability %d.%d; Kotaro needs 8.0 (RTX 30 series, A100) or later",
            info->name, info->cc_major, info->cc_minor);
    return KT_OK;
}

// Makes a context on some of the SMs current in place of the primary one.
static kt_status open_green(kt_gpu *gpu, kt_err *err) {
    kt_driver *d = gpu->driver;
    if (d->cuDeviceGetDevResource == NULL || d->cuDevSmResourceSplitByCount == NULL ||
        d->cuDevResourceGenerateDesc == NULL || d->cuGreenCtxCreate == NULL ||
        d->cuGreenCtxStreamCreate == NULL || d->cuCtxFromGreenCtx == NULL)
        return KT_FAIL(err, KT_EDRIVER, "running on some SMs only needs a driver of CUDA 12.5");
    const char *doing = "taking a share of the GPU";
    kt_cu_resource all = {0}, part = {0}, rest = {0};
    unsigned n_groups = 1;
    kt_cu_desc desc = NULL;
    KT_TRY(KT_GPU_DO(gpu, cuDeviceGetDevResource, (gpu->device, &all, RESOURCE_SM), doing, err));
    if (gpu->options.green_sms > gpu->info.device_sm_count)
        return KT_FAIL(err, KT_EUSAGE, "%d SMs were asked for, %s has %d", gpu->options.green_sms,
            gpu->info.name, gpu->info.device_sm_count);
    KT_TRY(KT_GPU_DO(gpu, cuDevSmResourceSplitByCount,
        (&part, &n_groups, &all, &rest, 0, (unsigned)gpu->options.green_sms), doing, err));
    KT_TRY(KT_GPU_DO(gpu, cuDevResourceGenerateDesc, (&desc, &part, 1), doing, err));
    KT_TRY(KT_GPU_DO(
        gpu, cuGreenCtxCreate, (&gpu->green, desc, gpu->device, GREEN_DEFAULT_STREAM), doing, err));
    KT_TRY(KT_GPU_DO(gpu, cuCtxFromGreenCtx, (&gpu->context, gpu->green), doing, err));
    gpu->info.sm_count = (int)part.of.sm.sm_count;
    return KT_OK;
}

static kt_status open_stream(kt_gpu *gpu, kt_cu_stream *out, kt_err *err) {
    if (gpu->green != NULL)
        return KT_GPU_DO(gpu, cuGreenCtxStreamCreate, (out, gpu->green, STREAM_NON_BLOCKING, 0),
            "making a stream", err);
    return KT_GPU_DO(gpu, cuStreamCreate, (out, STREAM_NON_BLOCKING), "making a stream", err);
}

static kt_status open_context(kt_gpu *gpu, kt_err *err) {
    kt_driver *d = gpu->driver;
    unsigned flags = gpu->options.spin ? SCHED_SPIN : SCHED_BLOCKING;
    if (d->cuDevicePrimaryCtxSetFlags != NULL) // refused when the context is active already: fine
        (void)KT_CUF(d, cuDevicePrimaryCtxSetFlags, (gpu->device, flags), "flags=%u", flags);
    const char *doing = "making a context on the GPU";
    KT_TRY(KT_GPU_DO(gpu, cuDevicePrimaryCtxRetain, (&gpu->primary, gpu->device), doing, err));
    gpu->context = gpu->primary;
    KT_TRY(KT_GPU_DO(gpu, cuCtxSetCurrent, (gpu->context), doing, err));
    if (gpu->options.green_sms > 0) {
        KT_TRY(open_green(gpu, err));
        KT_TRY(KT_GPU_DO(gpu, cuCtxSetCurrent, (gpu->context), doing, err));
    }
    KT_TRY(open_stream(gpu, &gpu->compute, err));
    return open_stream(gpu, &gpu->copy, err);
}

static kt_status open_all(kt_gpu *gpu, kt_err *err) {
    KT_TRY(kt_driver_open(&gpu->driver, err));
    if (gpu->driver->n_opened == 1) gpu->init_ms = gpu->driver->init_ms;
    if (gpu->options.trace != NULL) kt_driver_trace(gpu->driver, gpu->options.trace);
    int n = 0;
    KT_TRY(KT_GPU_DO(gpu, cuDeviceGetCount, (&n), "counting GPUs", err));
    if (gpu->options.ordinal < 0 || gpu->options.ordinal >= n)
        return KT_FAIL(err, KT_EDRIVER, "there is no GPU %d: the driver sees %d of them%s",
            gpu->options.ordinal, n, n == 0 ? "; check CUDA_VISIBLE_DEVICES" : ", counted from 0");
    KT_TRY(
        KT_GPU_DO(gpu, cuDeviceGet, (&gpu->device, gpu->options.ordinal), "choosing a GPU", err));
    KT_TRY(get_attributes(gpu, err));
    double start = kt_os_now_ms();
    kt_status status = open_context(gpu, err);
    gpu->context_ms = kt_os_now_ms() - start;
    return status;
}

kt_status kt_gpu_open(const kt_gpu_options *options, kt_gpu **out, kt_err *err) {
    *out = NULL;
    kt_gpu *gpu = kt_gpu_new(sizeof *gpu);
    if (options != NULL) gpu->options = *options;
    kt_status status = open_all(gpu, err);
    if (status != KT_OK) {
        // An unfit device is the driver's business as long as nothing has run.
        if (status == KT_EGPU) status = err->code = KT_EDRIVER;
        kt_gpu_close(gpu);
        return status;
    }
    *out = gpu;
    return KT_OK;
}

void kt_gpu_close(kt_gpu *gpu) {
    if (gpu == NULL) return;
    kt_driver *d = gpu->driver;
    if (gpu->context != NULL) { // this thread may not have used it before
        (void)KT_CU(d, cuCtxSetCurrent, (gpu->context));
        (void)KT_CU(d, cuCtxSynchronize, ());
    }
    kt_gpu_free_all(gpu);
    if (gpu->compute != NULL) (void)KT_CU(d, cuStreamDestroy, (gpu->compute));
    if (gpu->copy != NULL) (void)KT_CU(d, cuStreamDestroy, (gpu->copy));
    if (gpu->primary != NULL) (void)KT_CU(d, cuCtxSetCurrent, (NULL));
    if (gpu->green != NULL) (void)KT_CU(d, cuGreenCtxDestroy, (gpu->green));
    if (gpu->primary != NULL) (void)KT_CU(d, cuDevicePrimaryCtxRelease, (gpu->device));
    free(gpu);
}

void kt_gpu_remember(kt_gpu *gpu, const char *name) {
    char *to = gpu->recent[gpu->n_launches++ % KT_GPU_RECENT];
    size_t n = strlen(name);
    if (n >= sizeof gpu->recent[0]) n = sizeof gpu->recent[0] - 1;
    memcpy(to, name, n);
    to[n] = 0;
}

kt_status kt_gpu_attach(kt_gpu *gpu, kt_err *err) {
    return KT_GPU_DO(gpu, cuCtxSetCurrent, (gpu->context), "using the GPU from a thread", err);
}

kt_status kt_gpu_memory(kt_gpu *gpu, int64_t *free_bytes, int64_t *total_bytes, kt_err *err) {
    size_t free_now = 0, total = 0;
    *free_bytes = *total_bytes = 0;
    KT_TRY(KT_GPU_DO(gpu, cuMemGetInfo, (&free_now, &total), "asking for free memory", err));
    *free_bytes = (int64_t)free_now;
    *total_bytes = (int64_t)total;
    return KT_OK;
}

int kt_gpu_count(kt_err *err) {
    kt_driver *driver;
    int n = 0;
    if (kt_driver_open(&driver, err) != KT_OK) return 0;
    if (kt_driver_check(driver, KT_CU(driver, cuDeviceGetCount, (&n)), "cuDeviceGetCount",
            "counting GPUs", err) != KT_OK)
        return 0;
    if (n == 0) kt_err_set(err, KT_EDRIVER, "the driver shows no GPU");
    return n;
}

kt_status kt_gpu_wait(kt_gpu *gpu, kt_cu_stream stream, kt_err *err) {
    return KT_GPU_DO(gpu, cuStreamSynchronize, (stream), "waiting for the GPU", err);
}

kt_status kt_gpu_flush(kt_gpu *gpu, kt_cu_stream stream, kt_err *err) {
    kt_cu_result code = KT_CU(gpu->driver, cuStreamQuery, (stream));
    if (code == KT_CU_NOT_READY) return KT_OK;
    return kt_gpu_check(gpu, code, "cuStreamQuery", "starting work on the GPU", err);
}

kt_status kt_gpu_event_open(kt_gpu *gpu, bool timed, kt_cu_event *out, kt_err *err) {
    unsigned flags = (timed ? 0U : EVENT_NO_TIMING) | (gpu->options.spin ? 0U : EVENT_BLOCKING);
    *out = NULL;
    return KT_GPU_DO(gpu, cuEventCreate, (out, flags), "making an event", err);
}

void kt_gpu_event_close(kt_gpu *gpu, kt_cu_event event) {
    if (event != NULL) (void)KT_CU(gpu->driver, cuEventDestroy, (event));
}

kt_status kt_gpu_event_record(kt_gpu *gpu, kt_cu_event event, kt_cu_stream stream, kt_err *err) {
    return KT_GPU_DO(gpu, cuEventRecord, (event, stream), "marking a stream", err);
}

kt_status kt_gpu_event_done(kt_gpu *gpu, kt_cu_event event, bool *done, kt_err *err) {
    kt_cu_result code = KT_CU(gpu->driver, cuEventQuery, (event));
    *done = code == KT_CU_SUCCESS;
    if (code == KT_CU_NOT_READY) return KT_OK;
    return kt_gpu_check(gpu, code, "cuEventQuery", "asking for a mark", err);
}

kt_status kt_gpu_event_wait(kt_gpu *gpu, kt_cu_event event, kt_err *err) {
    double start = kt_os_now_ms();
    bool done = false;
    while (!done && kt_os_now_ms() - start < spin_ms)
        KT_TRY(kt_gpu_event_done(gpu, event, &done, err));
    if (done) return KT_OK;
    return KT_GPU_DO(gpu, cuEventSynchronize, (event), "waiting for the GPU", err);
}

kt_status kt_gpu_event_ms(kt_gpu *gpu, kt_cu_event from, kt_cu_event to, double *ms, kt_err *err) {
    float passed = 0;
    KT_TRY(KT_GPU_DO(gpu, cuEventElapsedTime, (&passed, from, to), "reading a time", err));
    *ms = (double)passed;
    return KT_OK;
}

kt_status kt_gpu_stream_after(kt_gpu *gpu, kt_cu_stream stream, kt_cu_event event, kt_err *err) {
    return KT_GPU_DO(gpu, cuStreamWaitEvent, (stream, event, 0), "ordering two streams", err);
}
