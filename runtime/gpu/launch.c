#include "runtime/gpu/launch.h"

#include <string.h>

void kt_launch_print(const kt_launch *launch, char *out, size_t n) {
    (void)snprintf(out, n, "%s: kernel %s, grid %ux%ux%u, block %ux%ux%u, shared %u",
        launch->name == NULL ? "launch" : launch->name,
        launch->kernel == NULL ? "?" : launch->kernel->name, launch->grid[0], launch->grid[1],
        launch->grid[2], launch->block[0], launch->block[1], launch->block[2],
        launch->shared_bytes);
}

static kt_status contradiction(const kt_launch *launch, const char *what, kt_err *err) {
    char text[384];
    kt_launch_print(launch, text, sizeof text);
    return KT_FAIL(err, KT_EOP, "%s\nnote: in %s", what, text);
}

kt_status kt_launch_prepare(
    const kt_gpu *gpu, const kt_launch *launch, void *params[KT_GPU_MAX_PARAMS], kt_err *err) {
    const kt_gpu_kernel *kernel = launch->kernel;
    if (kernel == NULL) return contradiction(launch, "a launch without a kernel", err);
    uint64_t threads = 1;
    bool zero = false;
    for (int i = 0; i < 3; i++) {
        threads *= launch->block[i] > 1024 ? 1025 : launch->block[i];
        zero = zero || launch->grid[i] == 0 || launch->block[i] == 0;
    }
    if (zero) return contradiction(launch, "a grid or block with no extent", err);
    if (launch->grid[0] > INT32_MAX || launch->grid[1] > 65535 || launch->grid[2] > 65535)
        return contradiction(launch, "a grid larger than the GPU allows", err);
    int most = kernel->max_threads > 0 ? kernel->max_threads : gpu->info.max_threads;
    if (threads > (uint64_t)most || launch->block[2] > 64)
        return contradiction(launch, "a block with more threads than the kernel allows", err);
    if (launch->shared_bytes > kernel->max_dynamic_shared_bytes)
        return contradiction(launch, "more shared memory than the kernel was prepared for", err);
    if (launch->n_params != kernel->n_params)
        return contradiction(launch, "another number of parameters than the kernel has", err);
    for (int i = 0; i < launch->n_params; i++) {
        size_t at = launch->param_at != NULL ? launch->param_at[i] : kernel->param_offset[i];
        if (at > launch->params_bytes || kernel->param_bytes[i] > launch->params_bytes - at)
            return contradiction(launch, "parameters beyond the packed bytes", err);
        union {
            const void *in;
            void *out;
        } lend = {.in = (const char *)launch->params + at}; // the driver reads only
        params[i] = lend.out;
    }
    return KT_OK;
}

kt_status kt_gpu_launch(kt_gpu *gpu, kt_cu_stream stream, const kt_launch *launch, kt_err *err) {
    void *params[KT_GPU_MAX_PARAMS];
    KT_TRY(kt_launch_prepare(gpu, launch, params, err));
    const char *name = launch->name == NULL ? launch->kernel->name : launch->name;
    kt_gpu_remember(gpu, name);
    const kt_cu_launch_config config = {
        .grid = {launch->grid[0], launch->grid[1], launch->grid[2]},
        .block = {launch->block[0], launch->block[1], launch->block[2]},
        .shared_bytes = launch->shared_bytes,
        .stream = stream,
    };
    kt_cu_result code =
        KT_CUF(gpu->driver, cuLaunchKernelEx, (&config, launch->kernel->function, params, NULL),
            "kernel=%s grid=%ux%ux%u block=%ux%ux%u shared=%u name=%s", launch->kernel->name,
            config.grid[0], config.grid[1], config.grid[2], config.block[0], config.block[1],
            config.block[2], config.shared_bytes, name);
    const char *call = "cuLaunchKernelEx";
    if (code == KT_CU_SUCCESS && gpu->options.check_each) {
        code = KT_CU(gpu->driver, cuStreamSynchronize, (stream));
        call = "cuStreamSynchronize";
    }
    if (code == KT_CU_SUCCESS) return KT_OK;
    bool lost = gpu->lost;
    kt_status status = kt_gpu_check(gpu, code, call, "launching a kernel", err);
    if (!lost) {
        char text[384];
        kt_launch_print(launch, text, sizeof text);
        kt_err_note(err, "in %s", text);
        if (gpu->lost) gpu->loss = *err;
    }
    return status;
}
