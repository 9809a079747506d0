#include "runtime/gpu/module.h"

#include "ptx/cubin.h"
#include "runtime/gpu/memory_list.h"

#include <stdlib.h>
#include <string.h>

enum {
    ATTR_MAX_THREADS = 0,
    ATTR_SHARED = 1,
    ATTR_REGISTERS = 4,
    ATTR_MAX_DYNAMIC_SHARED = 8,
};

typedef struct loaded {
    struct loaded *next;
    kt_gpu_kernel kernel;
} loaded;

struct kt_gpu_module {
    kt_gpu *gpu;
    char *name;
    kt_arena arena;
    kt_cubin info; // in the arena
    kt_cu_library library;
    loaded *kernels;
};

static kt_status load(kt_gpu_module *module, const void *image, size_t image_bytes, kt_err *err) {
    kt_gpu *gpu = module->gpu;
    if (kt_cubin_read(&module->arena, image, image_bytes, &module->info, err) != KT_OK) {
        err->code = KT_ECOMPILE;
        kt_err_note(err, "in the compiled code of '%s'", module->name);
        return KT_ECOMPILE;
    }
    if (!kt_cubin_runs_on(module->info.sm, gpu->info.arch))
        return KT_FAIL(err, KT_ECOMPILE, "the code of '%s' is for sm_%d, the GPU (%s) is sm_%d",
            module->name, module->info.sm, gpu->info.name, gpu->info.arch);
    kt_cu_result code = KT_CUF(gpu->driver, cuLibraryLoadData,
        (&module->library, image, NULL, NULL, 0, NULL, NULL, 0), "bytes=%zu name=%s", image_bytes,
        module->name);
    char doing[256];
    (void)snprintf(doing, sizeof doing, "loading the code of '%s'", module->name);
    return kt_gpu_check(gpu, code, "cuLibraryLoadData", doing, err);
}

kt_status kt_gpu_module_open(kt_gpu *gpu, const char *name, const void *image, size_t image_bytes,
    kt_gpu_module **out, kt_err *err) {
    *out = NULL;
    kt_gpu_module *module = kt_gpu_new(sizeof *module);
    module->gpu = gpu;
    module->name = kt_gpu_new(strlen(name) + 1);
    memcpy(module->name, name, strlen(name));
    kt_status status = load(module, image, image_bytes, err); // the driver copies the image
    if (status != KT_OK) {
        kt_gpu_module_close(module);
        return status;
    }
    *out = module;
    return KT_OK;
}

void kt_gpu_module_close(kt_gpu_module *module) {
    if (module == NULL) return;
    if (module->library != NULL)
        (void)KT_CU(module->gpu->driver, cuLibraryUnload, (module->library));
    while (module->kernels != NULL) {
        loaded *one = module->kernels;
        module->kernels = one->next;
        free(one);
    }
    kt_arena_deinit(&module->arena);
    free(module->name);
    free(module);
}

// Offsets and sizes of the parameters: the driver's word where it gives it, else the file's.
static kt_status get_params(kt_gpu_module *module, kt_gpu_kernel *kernel, kt_err *err) {
    const kt_cubin_kernel *file = kt_cubin_find(&module->info, kernel->name);
    kt_driver *d = module->gpu->driver;
    KT_ASSERT(file != NULL);
    kernel->n_params = file->n_params;
    if (kernel->n_params > KT_GPU_MAX_PARAMS)
        return KT_FAIL(err, KT_EOP, "kernel '%s' takes %d parameters, at most %d are allowed",
            kernel->name, kernel->n_params, KT_GPU_MAX_PARAMS);
    for (int i = 0; i < kernel->n_params; i++) {
        size_t offset = file->params[i].offset, bytes = file->params[i].size;
        if (d->cuKernelGetParamInfo != NULL)
            KT_TRY(kt_gpu_check(module->gpu,
                KT_CUF(d, cuKernelGetParamInfo, (kernel->kernel, (size_t)i, &offset, &bytes),
                    "kernel=%s index=%d", kernel->name, i),
                "cuKernelGetParamInfo", "asking for a kernel's parameters", err));
        kernel->param_offset[i] = (uint32_t)offset;
        kernel->param_bytes[i] = (uint32_t)bytes;
    }
    return KT_OK;
}

static kt_status compare(const kt_gpu_module *module, const kt_gpu_kernel *kernel,
    const kt_gpu_param *expected, int n, kt_err *err) {
    for (int i = 0; i < n && i < kernel->n_params; i++) {
        if (kernel->param_bytes[i] == expected[i].size_bytes) continue;
        return KT_FAIL(err, KT_EOP,
            "kernel '%s' of '%s' takes parameter %d, '%s', as %u bytes, but its op passes %u",
            kernel->name, module->name, i + 1, expected[i].name, kernel->param_bytes[i],
            expected[i].size_bytes);
    }
    if (n == kernel->n_params) return KT_OK;
    kt_err_set(err, KT_EOP, "kernel '%s' of '%s' takes %d parameters, but its op passes %d",
        kernel->name, module->name, kernel->n_params, n);
    if (n > kernel->n_params)
        kt_err_note(err, "'%s' is the first without a parameter (%u bytes)",
            expected[kernel->n_params].name, expected[kernel->n_params].size_bytes);
    else
        kt_err_note(
            err, "nothing is passed for parameter %d of %u bytes", n + 1, kernel->param_bytes[n]);
    return KT_EOP;
}

static kt_status get_attribute(
    kt_gpu_module *module, kt_cu_kernel kernel, int attribute, int *out, kt_err *err) {
    return kt_gpu_check(module->gpu,
        KT_CUF(module->gpu->driver, cuKernelGetAttribute,
            (out, attribute, kernel, module->gpu->device), "attribute=%d", attribute),
        "cuKernelGetAttribute", "asking a kernel for its limits", err);
}

static kt_status find_kernel(kt_gpu_module *module, kt_gpu_kernel *kernel, kt_err *err) {
    kt_gpu *gpu = module->gpu;
    const char *doing = "preparing a kernel";
    if (kt_cubin_find(&module->info, kernel->name) == NULL) {
        kt_err_set(err, KT_EOP, "the code of '%s' has no kernel '%s'", module->name, kernel->name);
        for (int i = 0; i < module->info.n_kernels && i < 8; i++)
            kt_err_note(err, "it has '%s'", module->info.kernels[i].name);
        return KT_EOP;
    }
    KT_TRY(kt_gpu_check(gpu,
        KT_CUF(gpu->driver, cuLibraryGetKernel, (&kernel->kernel, module->library, kernel->name),
            "name=%s", kernel->name),
        "cuLibraryGetKernel", doing, err));
    KT_TRY(get_params(module, kernel, err));
    // The code is brought to the device now: doing it at the first launch would wait for the
    // device.
    KT_TRY(KT_GPU_DO(gpu, cuKernelGetFunction, (&kernel->function, kernel->kernel), doing, err));
    if (gpu->driver->cuFuncLoad != NULL)
        KT_TRY(KT_GPU_DO(gpu, cuFuncLoad, (kernel->function), doing, err));
    int shared = 0;
    KT_TRY(get_attribute(module, kernel->kernel, ATTR_MAX_THREADS, &kernel->max_threads, err));
    KT_TRY(get_attribute(module, kernel->kernel, ATTR_REGISTERS, &kernel->registers, err));
    KT_TRY(get_attribute(module, kernel->kernel, ATTR_SHARED, &shared, err));
    kernel->static_shared_bytes = (uint32_t)shared;
    return KT_OK;
}

static kt_status raise_shared(
    kt_gpu_module *module, kt_gpu_kernel *kernel, uint32_t bytes, kt_err *err) {
    if (bytes <= kernel->max_dynamic_shared_bytes) return KT_OK;
    kt_gpu *gpu = module->gpu;
    uint64_t all = (uint64_t)bytes + kernel->static_shared_bytes;
    if (all > (uint64_t)gpu->info.shared_optin_bytes)
        return KT_FAIL(err, KT_EOP,
            "kernel '%s' of '%s' needs %u + %u bytes of shared memory a block, %s gives %d",
            kernel->name, module->name, kernel->static_shared_bytes, bytes, gpu->info.name,
            gpu->info.shared_optin_bytes);
    KT_TRY(kt_gpu_check(gpu,
        KT_CUF(gpu->driver, cuKernelSetAttribute,
            (ATTR_MAX_DYNAMIC_SHARED, (int)bytes, kernel->kernel, gpu->device),
            "kernel=%s max_dynamic_shared=%u", kernel->name, bytes),
        "cuKernelSetAttribute", "raising a kernel's shared memory", err));
    kernel->max_dynamic_shared_bytes = bytes;
    return KT_OK;
}

kt_status kt_gpu_module_kernel(kt_gpu_module *module, const char *kernel,
    const kt_gpu_param *expected, int n_expected, uint32_t dynamic_shared_bytes,
    const kt_gpu_kernel **out, kt_err *err) {
    *out = NULL;
    loaded *one = module->kernels;
    while (one != NULL && strcmp(one->kernel.name, kernel) != 0) one = one->next;
    if (one == NULL) {
        one = kt_gpu_new(sizeof *one);
        kt_status status = KT_OK;
        if (strlen(kernel) >= sizeof one->kernel.name)
            status = KT_FAIL(err, KT_EOP, "the name of kernel '%.60s...' is too long", kernel);
        memcpy(one->kernel.name, kernel, status == KT_OK ? strlen(kernel) : 0);
        if (status == KT_OK) status = find_kernel(module, &one->kernel, err);
        if (status != KT_OK) {
            free(one);
            return status;
        }
        one->next = module->kernels;
        module->kernels = one;
    }
    if (n_expected >= 0) KT_TRY(compare(module, &one->kernel, expected, n_expected, err));
    KT_TRY(raise_shared(module, &one->kernel, dynamic_shared_bytes, err));
    *out = &one->kernel;
    return KT_OK;
}
