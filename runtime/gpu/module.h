// Compiled code on the device: a library of kernels from a verified cubin.
//
// Each kernel's parameters (count, sizes) are compared with what the caller is going to pack, so a
// manifest that disagrees with its kernel is refused here and not found in wrong numbers later. A
// module must outlive every launch and graph that uses it.
#ifndef KT_GPU_MODULE_H
#define KT_GPU_MODULE_H

#include "runtime/gpu/device.h"

enum { KT_GPU_MAX_PARAMS = 64 };

typedef struct kt_gpu_module kt_gpu_module;

typedef struct kt_gpu_kernel {
    kt_cu_kernel kernel;
    kt_cu_function function; // in the context of the GPU
    char name[128];
    int n_params;
    uint32_t param_offset[KT_GPU_MAX_PARAMS]; // in the parameter block, bytes
    uint32_t param_bytes[KT_GPU_MAX_PARAMS];
    int registers, max_threads;
    uint32_t static_shared_bytes, max_dynamic_shared_bytes;
} kt_gpu_kernel;

// What the caller will pass, one row per parameter in order.
typedef struct kt_gpu_param {
    const char *name;
    uint32_t size_bytes;
} kt_gpu_param;

// Loads a cubin image (copied; `name` is for messages). The image is checked first: the driver
// takes no length. Errors: ECOMPILE: damaged, for another GPU, or refused by the driver (compile it
// again, once); EGPU.
kt_status kt_gpu_module_open(kt_gpu *gpu, const char *name, const void *image, size_t image_bytes,
    kt_gpu_module **out, kt_err *err) KT_MUST_CHECK;
void kt_gpu_module_close(kt_gpu_module *module); // NULL is fine

// Finds a kernel and makes it ready to launch (code on the device, shared memory limit raised to
// `dynamic_shared_bytes`). `expected` may be NULL with n_expected -1: no comparison. The result is
// owned by the module. Errors: EOP naming kernel, parameter and both sizes; EGPU.
kt_status kt_gpu_module_kernel(kt_gpu_module *module, const char *kernel,
    const kt_gpu_param *expected, int n_expected, uint32_t dynamic_shared_bytes,
    const kt_gpu_kernel **out, kt_err *err) KT_MUST_CHECK;

#endif
