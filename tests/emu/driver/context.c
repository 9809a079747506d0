// The device, its primary context, and shares of it.
#include "tests/emu/driver/internal.h"

#include <stdlib.h>
#include <string.h>

static bool is_device(kt_cu_device device) {
    if (device >= 0 && device < drv.profile.count) return true;
    drv_violation("there is no device %d", device);
    return false;
}

static kt_cu_result get_device(kt_cu_device *out, int ordinal) {
    if (ordinal < 0 || ordinal >= drv.profile.count) return DRV_INVALID_DEVICE;
    *out = ordinal;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDeviceGet(kt_cu_device *out, int ordinal) {
    DRV_DO(cuDeviceGet, 0, get_device(out, ordinal));
}

static kt_cu_result count(int *out) {
    *out = drv.profile.count;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDeviceGetCount(int *out) {
    DRV_DO(cuDeviceGetCount, 0, count(out));
}

static kt_cu_result get_name(char *out, int n, kt_cu_device device) {
    if (!is_device(device) || n <= 0) return DRV_INVALID_DEVICE;
    size_t have = strlen(drv.profile.title), room = (size_t)n - 1;
    if (have > room) have = room;
    memcpy(out, drv.profile.title, have);
    out[have] = 0;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDeviceGetName(char *out, int n, kt_cu_device device) {
    DRV_DO(cuDeviceGetName, 0, get_name(out, n, device));
}

static kt_cu_result get_attribute(int *out, int attribute, kt_cu_device device) {
    const drv_profile *p = &drv.profile;
    const struct {
        int attribute, value;
    } rows[] = {
        {KT_CU_ATTR_MAX_THREADS_PER_BLOCK, 1024},
        {KT_CU_ATTR_SM_COUNT, p->sms},
        {KT_CU_ATTR_KERNEL_TIMEOUT, p->timeout},
        {KT_CU_ATTR_CC_MAJOR, p->cc_major},
        {KT_CU_ATTR_CC_MINOR, p->cc_minor},
        {KT_CU_ATTR_SHARED_OPTIN, p->shared_optin},
    };
    if (!is_device(device)) return DRV_INVALID_DEVICE;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].attribute != attribute) continue;
        *out = rows[i].value;
        return KT_CU_SUCCESS;
    }
    drv_violation("the stand-in does not know attribute %d", attribute);
    return DRV_INVALID_VALUE;
}

kt_cu_result drv_api_cuDeviceGetAttribute(int *out, int attribute, kt_cu_device device) {
    DRV_DO(cuDeviceGetAttribute, 0, get_attribute(out, attribute, device));
}

static kt_cu_result get_total(size_t *bytes, kt_cu_device device) {
    if (!is_device(device)) return DRV_INVALID_DEVICE;
    *bytes = drv.profile.memory;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDeviceTotalMem(size_t *bytes, kt_cu_device device) {
    DRV_DO(cuDeviceTotalMem, 0, get_total(bytes, device));
}

// ---- contexts

static void close_stream_of(void *handle, void *object, void *ctx) {
    drv_stream *stream = object;
    if (stream->context != ctx) return;
    if (stream->handle != NULL && stream != stream->context->legacy)
        drv_leak("stream %p, at the end of its context", handle);
    drv_stream_close(stream);
}

static void close_event_of(void *handle, void *object, void *ctx) {
    drv_event *event = object;
    if (event->context != ctx) return;
    drv_leak("event %p, at the end of its context", handle);
    drv_handle_close(DRV_EVENT, handle);
    free(event);
}

// Everything in a context goes with it; what had to be released before leaks.
static void empty(drv_context *context) {
    (void)drv_wait_for_all();
    drv_handle_each(DRV_STREAM, close_stream_of, context);
    drv_handle_each(DRV_EVENT, close_event_of, context);
    drv_memory_release_of(context);
}

static kt_cu_result retain(kt_cu_context *out, kt_cu_device device) {
    if (!is_device(device)) return DRV_INVALID_DEVICE;
    if (drv.primary == NULL) {
        drv.primary = drv_new(sizeof *drv.primary);
        drv.primary->handle = drv_handle_open(DRV_CONTEXT, drv.primary);
        drv_device_start();
    }
    drv.primary->refs++;
    *out = drv.primary->handle;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDevicePrimaryCtxRetain(kt_cu_context *out, kt_cu_device device) {
    DRV_DO(cuDevicePrimaryCtxRetain, 0, retain(out, device));
}

static kt_cu_result release(kt_cu_device device) {
    if (!is_device(device)) return DRV_INVALID_DEVICE;
    if (drv.primary == NULL) {
        drv_violation("the primary context is not retained");
        return DRV_INVALID_CONTEXT;
    }
    if (--drv.primary->refs > 0) return KT_CU_SUCCESS;
    empty(drv.primary);
    if (drv_current_context == drv.primary) drv_current_context = NULL;
    drv_handle_close(DRV_CONTEXT, drv.primary->handle);
    free(drv.primary);
    drv.primary = NULL;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDevicePrimaryCtxRelease(kt_cu_device device) {
    DRV_DO(cuDevicePrimaryCtxRelease, DRV_RELEASES, release(device));
}

static kt_cu_result set_flags(kt_cu_device device, unsigned flags) {
    if (!is_device(device)) return DRV_INVALID_DEVICE;
    return flags > 0x1f ? DRV_INVALID_VALUE : KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDevicePrimaryCtxSetFlags(kt_cu_device device, unsigned flags) {
    DRV_DO(cuDevicePrimaryCtxSetFlags, 0, set_flags(device, flags));
}

static kt_cu_result set_current(kt_cu_context context) {
    if (context == NULL) {
        drv_current_context = NULL;
        return KT_CU_SUCCESS;
    }
    drv_context *found = drv_handle_find(DRV_CONTEXT, context);
    if (found == NULL) return DRV_INVALID_CONTEXT;
    drv_current_context = found;
    drv_current_handle = context;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuCtxSetCurrent(kt_cu_context context) {
    DRV_DO(cuCtxSetCurrent, context == NULL ? DRV_RELEASES : 0, set_current(context));
}

kt_cu_result drv_api_cuCtxSynchronize(void) {
    DRV_DO(cuCtxSynchronize, DRV_CURRENT, drv_wait_for_all());
}

// ---- shares of the device

enum { RESOURCE_SM = 1 };

// A description of resources: how many SMs.
typedef struct description {
    int sms;
} description;

static kt_cu_result get_resource(kt_cu_device device, kt_cu_resource *out, int type) {
    if (!is_device(device)) return DRV_INVALID_DEVICE;
    if (type != RESOURCE_SM) return DRV_NOT_SUPPORTED;
    *out = (kt_cu_resource){.type = RESOURCE_SM};
    out->of.sm.sm_count = (unsigned)drv.profile.sms;
    out->of.sm.min_partition = (unsigned)drv.profile.sm_least;
    out->of.sm.alignment = (unsigned)drv.profile.sm_share;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDeviceGetDevResource(kt_cu_device device, kt_cu_resource *out, int type) {
    DRV_DO(cuDeviceGetDevResource, 0, get_resource(device, out, type));
}

static kt_cu_result split(kt_cu_resource *out, unsigned *n_groups, const kt_cu_resource *in,
    kt_cu_resource *rest, unsigned min_count) {
    if (in->type != RESOURCE_SM || n_groups == NULL || in->of.sm.sm_count == 0) {
        drv_violation("this is no resource of SMs");
        return DRV_INVALID_VALUE;
    }
    unsigned share = (unsigned)drv.profile.sm_share, least = (unsigned)drv.profile.sm_least;
    unsigned each = ((min_count < least ? least : min_count) + share - 1) / share * share;
    unsigned most = in->of.sm.sm_count / each;
    if (*n_groups > most) *n_groups = most;
    if (most == 0) return DRV_INVALID_VALUE;
    for (unsigned i = 0; out != NULL && i < *n_groups; i++) {
        out[i] = *in;
        out[i].of.sm.sm_count = each;
    }
    if (rest == NULL) return KT_CU_SUCCESS;
    *rest = *in;
    rest->of.sm.sm_count = in->of.sm.sm_count - each * *n_groups;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDevSmResourceSplitByCount(kt_cu_resource *out, unsigned *n_groups,
    const kt_cu_resource *in, kt_cu_resource *rest, unsigned flags, unsigned min_count) {
    (void)flags;
    DRV_DO(cuDevSmResourceSplitByCount, 0, split(out, n_groups, in, rest, min_count));
}

static kt_cu_result describe(kt_cu_desc *out, const kt_cu_resource *resources, unsigned n) {
    description *d = drv_new(sizeof *d); // nothing releases one: it stays as long as the process
    for (unsigned i = 0; i < n; i++)
        if (resources[i].type == RESOURCE_SM) d->sms += (int)resources[i].of.sm.sm_count;
    if (d->sms <= 0 || d->sms > drv.profile.sms) {
        drv_violation("%d SMs of a device that has %d", d->sms, drv.profile.sms);
        free(d);
        return DRV_INVALID_VALUE;
    }
    *out = drv_handle_open(DRV_DESC, d);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuDevResourceGenerateDesc(
    kt_cu_desc *out, kt_cu_resource *resources, unsigned n) {
    DRV_DO(cuDevResourceGenerateDesc, 0, describe(out, resources, n));
}

static kt_cu_result open_green(
    kt_cu_green *out, kt_cu_desc desc, kt_cu_device device, unsigned flags) {
    const description *d = drv_handle_find(DRV_DESC, desc);
    if (d == NULL) return DRV_INVALID_HANDLE;
    if (!is_device(device)) return DRV_INVALID_DEVICE;
    if (flags != 1) { // CU_GREEN_CTX_DEFAULT_STREAM, the only one and required
        drv_violation("flags %u", flags);
        return DRV_INVALID_VALUE;
    }
    drv_green *green = drv_new(sizeof *green);
    green->sms = d->sms;
    green->context.green = green;
    green->context.refs = 1;
    green->handle = drv_handle_open(DRV_GREEN, green);
    green->context.handle = drv_handle_open(DRV_CONTEXT, &green->context);
    *out = green->handle;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGreenCtxCreate(
    kt_cu_green *out, kt_cu_desc desc, kt_cu_device device, unsigned flags) {
    DRV_DO(cuGreenCtxCreate, 0, open_green(out, desc, device, flags));
}

static kt_cu_result close_green(kt_cu_green handle) {
    drv_green *green = drv_handle_find(DRV_GREEN, handle);
    if (green == NULL) return DRV_INVALID_HANDLE;
    empty(&green->context);
    if (drv_current_context == &green->context) drv_current_context = NULL;
    drv_handle_close(DRV_CONTEXT, green->context.handle);
    drv_handle_close(DRV_GREEN, handle);
    free(green);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGreenCtxDestroy(kt_cu_green green) {
    DRV_DO(cuGreenCtxDestroy, DRV_RELEASES, close_green(green));
}

static kt_cu_result open_green_stream(
    kt_cu_stream *out, kt_cu_green handle, unsigned flags, int priority) {
    (void)priority;
    drv_green *green = drv_handle_find(DRV_GREEN, handle);
    if (green == NULL) return DRV_INVALID_HANDLE;
    if (flags != 1) { // CU_STREAM_NON_BLOCKING, required
        drv_violation("flags %u", flags);
        return DRV_INVALID_VALUE;
    }
    drv_stream *stream = drv_stream_open(&green->context, false);
    if (stream == NULL) return KT_CU_OUT_OF_MEMORY;
    *out = stream->handle;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGreenCtxStreamCreate(
    kt_cu_stream *out, kt_cu_green green, unsigned flags, int priority) {
    DRV_DO(cuGreenCtxStreamCreate, 0, open_green_stream(out, green, flags, priority));
}

static kt_cu_result context_of(kt_cu_context *out, kt_cu_green handle) {
    drv_green *green = drv_handle_find(DRV_GREEN, handle);
    if (green == NULL) return DRV_INVALID_HANDLE;
    *out = green->context.handle;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuCtxFromGreenCtx(kt_cu_context *out, kt_cu_green green) {
    DRV_DO(cuCtxFromGreenCtx, 0, context_of(out, green));
}
