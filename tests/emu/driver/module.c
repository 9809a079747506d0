// Libraries, their kernels, and launches.
#include "tests/emu/driver/internal.h"
#include "tests/emu/image.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ATTR_MAX_THREADS = 0,
    ATTR_SHARED = 1,
    ATTR_CONSTANT = 2,
    ATTR_LOCAL = 3,
    ATTR_REGISTERS = 4,
    ATTR_MAX_DYNAMIC_SHARED = 8,
    USUAL_SHARED = 48 << 10, // more needs cuKernelSetAttribute
    MAX_THREADS = 1024,
    MAX_THREADS_Z = 64,
    MAX_GRID_YZ = 65535,
};

// ---- loading

// Modules call functions of this library: it has to be visible to them, however it was opened.
static bool make_visible(void) {
    static bool done;
    Dl_info self;
    if (done) return true;
    if (dladdr(&drv, &self) == 0) return false;
    done = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL) != NULL;
    return done;
}

// A path of the file that was never used before: the loader takes files with one name for the same
// one, although the descriptor's number now means another file. Each bit of the library's number
// adds "/." or "//.".
static void unique_path(int file, uint64_t number, char *out, size_t n) {
    size_t at = (size_t)snprintf(out, n, "/proc/self/fd");
    for (; number > 0 && at + 4 < n; number >>= 1)
        at += (size_t)snprintf(out + at, n - at, "%s", (number & 1) != 0 ? "//." : "/.");
    (void)snprintf(out + at, n - at, "/%d", file);
}

static void open_module(const emu_image *image, drv_library *library) {
    int file = memfd_create("emu-module", MFD_CLOEXEC);
    if (file < 0) return;
    const char *bytes = image->module;
    size_t done = 0;
    while (done < image->module_bytes) {
        ssize_t n = write(file, bytes + done, image->module_bytes - done);
        if (n <= 0) break;
        done += (size_t)n;
    }
    char path[256];
    unique_path(file, library->number, path, sizeof path);
    void *loaded = done == image->module_bytes ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (loaded == NULL) drv_violation("the module cannot be opened: %s", dlerror());
    void *mapped = mmap(NULL, image->module_bytes, PROT_READ, MAP_PRIVATE, file, 0);
    library->file = mapped == MAP_FAILED ? NULL : mapped;
    library->file_bytes = image->module_bytes;
    library->loaded = loaded;
    (void)close(file);
}

static void make_kernels(drv_library *library) {
    library->n_kernels = library->table->n_kernels;
    library->kernels = drv_new((size_t)library->n_kernels * sizeof *library->kernels);
    for (int i = 0; i < library->n_kernels; i++) {
        drv_kernel_object *kernel = &library->kernels[i];
        *kernel = (drv_kernel_object){
            .library = library, .kernel = &library->table->kernels[i], .max_dynamic = USUAL_SHARED};
        kernel->handle = drv_handle_open(DRV_KERNEL, kernel);
    }
}

// As the real driver has it: the same major version, and not newer.
static bool fits(int sm) {
    return sm / 10 == drv.profile.cc_major && sm % 10 <= drv.profile.cc_minor;
}

static kt_cu_result load(kt_cu_library *out, const void *bytes) {
    static uint64_t n_loaded;
    emu_image image;
    const char *why = "";
    if (!emu_image_read(bytes, &image, &why) || !emu_image_is_current(&image, &why)) {
        (void)fprintf(stderr, "emu: an image is refused: %s\n", why);
        return DRV_INVALID_IMAGE;
    }
    if (!fits(image.sm)) return DRV_NO_BINARY;
    if (!make_visible()) return DRV_OPERATING_SYSTEM;
    drv_library *library = drv_new(sizeof *library);
    library->number = ++n_loaded;
    drv_rest(); // the emulator may be looking at what is loaded
    open_module(&image, library);
    if (library->loaded != NULL) library->table = dlsym(library->loaded, "emu_module");
    if (library->table == NULL || library->table->abi != EMU_ABI) {
        if (library->loaded != NULL) (void)dlclose(library->loaded);
        if (library->file != NULL) (void)munmap(library->file, library->file_bytes);
        free(library);
        return DRV_INVALID_IMAGE;
    }
    make_kernels(library);
    *out = library->handle = drv_handle_open(DRV_LIBRARY, library);
    return KT_CU_SUCCESS;
}

static bool has_options(unsigned n_jit, unsigned n) {
    if (n_jit + n == 0) return false;
    drv_violation("the stand-in takes no options");
    return true;
}

// NOLINTBEGIN(readability-non-const-parameter,readability-function-size): the driver's type
kt_cu_result drv_api_cuLibraryLoadData(kt_cu_library *out, const void *image, int *jit_options,
    void **jit_values, unsigned n_jit, int *options, void **values, unsigned n) {
    (void)jit_options;
    (void)jit_values;
    (void)options;
    (void)values;
    DRV_DO(cuLibraryLoadData, 0, has_options(n_jit, n) ? DRV_INVALID_VALUE : load(out, image));
}
// NOLINTEND(readability-non-const-parameter,readability-function-size)

typedef struct search {
    const drv_library *library;
    bool found;
} search;

static void look_for_library(const drv_work *work, void *ctx) {
    search *s = ctx;
    if (work->kind == DRV_WORK_KERNEL && work->piece.of.kernel->kernel->library == s->library)
        s->found = true;
    if (work->kind == DRV_WORK_GRAPH && drv_graph_run_has(work->run, s->library)) s->found = true;
}

static kt_cu_result unload(kt_cu_library handle) {
    drv_library *library = drv_handle_find(DRV_LIBRARY, handle);
    if (library == NULL) return DRV_INVALID_HANDLE;
    search s = {library, false};
    drv_each_pending(look_for_library, &s);
    if (s.found) {
        drv_violation("a kernel of the library is still pending");
        (void)drv_wait_for_all();
    }
    for (int i = 0; i < library->n_kernels; i++) {
        drv_kernel_object *kernel = &library->kernels[i];
        if (kernel->function != NULL) drv_handle_close(DRV_FUNCTION, kernel->function->handle);
        free(kernel->function);
        drv_handle_close(DRV_KERNEL, kernel->handle);
    }
    drv_rest();
    (void)dlclose(library->loaded);
    if (library->file != NULL) (void)munmap(library->file, library->file_bytes);
    drv_handle_close(DRV_LIBRARY, handle);
    free(library->kernels);
    free(library);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuLibraryUnload(kt_cu_library library) {
    DRV_DO(cuLibraryUnload, DRV_RELEASES, unload(library));
}

// ---- kernels

static kt_cu_result get_kernel(kt_cu_kernel *out, kt_cu_library handle, const char *name) {
    const drv_library *library = drv_handle_find(DRV_LIBRARY, handle);
    if (library == NULL) return DRV_INVALID_HANDLE;
    for (int i = 0; i < library->n_kernels; i++)
        if (strcmp(library->kernels[i].kernel->name, name) == 0) {
            *out = library->kernels[i].handle;
            return KT_CU_SUCCESS;
        }
    return DRV_NOT_FOUND;
}

kt_cu_result drv_api_cuLibraryGetKernel(
    kt_cu_kernel *out, kt_cu_library library, const char *name) {
    DRV_DO(cuLibraryGetKernel, 0, get_kernel(out, library, name));
}

static kt_cu_result get_function(kt_cu_function *out, kt_cu_kernel handle) {
    drv_kernel_object *kernel = drv_handle_find(DRV_KERNEL, handle);
    if (kernel == NULL) return DRV_INVALID_HANDLE;
    if (kernel->function == NULL) {
        kernel->function = drv_new(sizeof *kernel->function);
        kernel->function->kernel = kernel;
        kernel->function->handle = drv_handle_open(DRV_FUNCTION, kernel->function);
    }
    *out = kernel->function->handle;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuKernelGetFunction(kt_cu_function *out, kt_cu_kernel kernel) {
    DRV_DO(cuKernelGetFunction, DRV_CURRENT, get_function(out, kernel));
}

static kt_cu_result load_function(kt_cu_function function) {
    return drv_handle_find(DRV_FUNCTION, function) != NULL ? KT_CU_SUCCESS : DRV_INVALID_HANDLE;
}

kt_cu_result drv_api_cuFuncLoad(kt_cu_function function) {
    DRV_DO(cuFuncLoad, DRV_CURRENT, load_function(function));
}

static int most_threads(const drv_kernel_object *kernel) {
    int bound = kernel->kernel->max_threads;
    return bound > 0 && bound < MAX_THREADS ? bound : MAX_THREADS;
}

// Static shared memory and registers are not known here: 0. What a block takes in all is looked at
// when it runs.
static kt_cu_result get_attribute(
    int *out, int attribute, kt_cu_kernel handle, kt_cu_device device) {
    const drv_kernel_object *kernel = drv_handle_find(DRV_KERNEL, handle);
    if (kernel == NULL) return DRV_INVALID_HANDLE;
    if (device < 0 || device >= drv.profile.count) return DRV_INVALID_DEVICE;
    switch (attribute) {
    case ATTR_MAX_THREADS:
        *out = most_threads(kernel);
        return KT_CU_SUCCESS;
    case ATTR_SHARED:
    case ATTR_CONSTANT:
    case ATTR_LOCAL:
    case ATTR_REGISTERS:
        *out = 0;
        return KT_CU_SUCCESS;
    case ATTR_MAX_DYNAMIC_SHARED:
        *out = kernel->max_dynamic;
        return KT_CU_SUCCESS;
    default:
        drv_violation("the stand-in does not know attribute %d", attribute);
        return DRV_INVALID_VALUE;
    }
}

kt_cu_result drv_api_cuKernelGetAttribute(
    int *out, int attribute, kt_cu_kernel kernel, kt_cu_device device) {
    DRV_DO(cuKernelGetAttribute, 0, get_attribute(out, attribute, kernel, device));
}

static kt_cu_result set_attribute(
    int attribute, int value, kt_cu_kernel handle, kt_cu_device device) {
    drv_kernel_object *kernel = drv_handle_find(DRV_KERNEL, handle);
    if (kernel == NULL) return DRV_INVALID_HANDLE;
    if (device < 0 || device >= drv.profile.count) return DRV_INVALID_DEVICE;
    if (attribute != ATTR_MAX_DYNAMIC_SHARED || value < 0 || value > drv.profile.shared_optin) {
        drv_violation("attribute %d = %d (a block has at most %d bytes of shared memory)",
            attribute, value, drv.profile.shared_optin);
        return DRV_INVALID_VALUE;
    }
    kernel->max_dynamic = value;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuKernelSetAttribute(
    int attribute, int value, kt_cu_kernel kernel, kt_cu_device device) {
    DRV_DO(cuKernelSetAttribute, 0, set_attribute(attribute, value, kernel, device));
}

// An index beyond the last parameter is how one learns their number: no violation.
static kt_cu_result get_param(kt_cu_kernel handle, size_t index, size_t *offset, size_t *bytes) {
    const drv_kernel_object *kernel = drv_handle_find(DRV_KERNEL, handle);
    if (kernel == NULL) return DRV_INVALID_HANDLE;
    if (index >= (size_t)kernel->kernel->n_params) return DRV_INVALID_VALUE;
    *offset = kernel->kernel->params[index].offset;
    if (bytes != NULL) *bytes = kernel->kernel->params[index].size;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuKernelGetParamInfo(
    kt_cu_kernel kernel, size_t index, size_t *offset, size_t *bytes) {
    DRV_DO(cuKernelGetParamInfo, 0, get_param(kernel, index, offset, bytes));
}

// ---- launches

static kt_cu_result refuse(const drv_launch_request *r, kt_cu_result code, const char *why) {
    drv_violation("%s: kernel %s, grid %ux%ux%u, block %ux%ux%u, shared %u (at most %d)", why,
        r->kernel->kernel->name, r->grid[0], r->grid[1], r->grid[2], r->block[0], r->block[1],
        r->block[2], r->shared_bytes, r->kernel->max_dynamic);
    return code;
}

// Limits: CUDA programming guide, technical specifications by compute capability.
static kt_cu_result check_geometry(const drv_launch_request *r) {
    uint64_t threads = 1;
    for (int i = 0; i < 3; i++) {
        if (r->grid[i] == 0 || r->block[i] == 0)
            return refuse(r, DRV_INVALID_VALUE, "a grid or block with no extent");
        threads *= r->block[i] > MAX_THREADS ? MAX_THREADS + 1 : r->block[i];
    }
    if (r->grid[0] > INT32_MAX || r->grid[1] > MAX_GRID_YZ || r->grid[2] > MAX_GRID_YZ)
        return refuse(r, DRV_INVALID_VALUE, "a grid larger than the device allows");
    if (threads > MAX_THREADS || r->block[2] > MAX_THREADS_Z)
        return refuse(r, DRV_INVALID_VALUE, "a block larger than the device allows");
    if (threads > (uint64_t)most_threads(r->kernel))
        return refuse(r, DRV_OUT_OF_RESOURCES, "more threads than __launch_bounds__ says");
    if (r->shared_bytes > (unsigned)r->kernel->max_dynamic)
        return refuse(r, DRV_INVALID_VALUE, "more shared memory than the kernel was given");
    return KT_CU_SUCCESS;
}

kt_cu_result drv_launch_check(const drv_launch_request *r, drv_kernel_work **out) {
    kt_cu_result code = check_geometry(r);
    if (code != KT_CU_SUCCESS) return code;
    const emu_kernel *kernel = r->kernel->kernel;
    drv_kernel_work *work = drv_new(sizeof *work);
    for (int i = 0; i < kernel->n_params; i++) {
        size_t end = (size_t)kernel->params[i].offset + kernel->params[i].size;
        if (end > sizeof work->params || r->params == NULL || r->params[i] == NULL) {
            free(work);
            return refuse(r, DRV_INVALID_VALUE, "parameters are missing or too large");
        }
        memcpy(work->params + kernel->params[i].offset, r->params[i], kernel->params[i].size);
        if (work->params_bytes < end) work->params_bytes = end;
    }
    bool raised = r->kernel->max_dynamic > USUAL_SHARED;
    work->kernel = r->kernel;
    work->kernel_handle = r->kernel->handle;
    work->launch = (emu_launch){.module = r->kernel->library->table,
        .kernel = kernel,
        .grid = {r->grid[0], r->grid[1], r->grid[2]},
        .block = {r->block[0], r->block[1], r->block[2]},
        .shared_bytes = r->shared_bytes,
        .shared_limit = raised ? (uint32_t)drv.profile.shared_optin : USUAL_SHARED,
        .params = work->params,
        .file = r->kernel->library->file,
        .file_bytes = r->kernel->library->file_bytes};
    *out = work;
    return KT_CU_SUCCESS;
}

static kt_cu_result launch(
    const kt_cu_launch_config *config, kt_cu_function handle, void **params, void **extra) {
    const drv_function *function = drv_handle_find(DRV_FUNCTION, handle);
    drv_stream *stream = drv_stream_find(config->stream);
    if (function == NULL || stream == NULL) return DRV_INVALID_HANDLE;
    if (extra != NULL || config->n_attributes != 0) {
        drv_violation("the stand-in takes no attributes, and parameters one by one only");
        return DRV_NOT_SUPPORTED;
    }
    const drv_launch_request request = {
        function->kernel, config->grid, config->block, config->shared_bytes, params};
    drv_kernel_work *kernel;
    kt_cu_result code = drv_launch_check(&request, &kernel);
    if (code != KT_CU_SUCCESS) return code;
    drv.counts.kernel_launches++;
    drv_work *work = drv_work_new(DRV_WORK_KERNEL, function->kernel->kernel->name);
    work->piece.of.kernel = kernel;
    drv_submit(stream, work);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuLaunchKernelEx(
    const kt_cu_launch_config *config, kt_cu_function function, void **params, void **extra) {
    DRV_DO(cuLaunchKernelEx, DRV_CURRENT, launch(config, function, params, extra));
}
