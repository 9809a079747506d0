// The launch record, and the one function that launches a kernel outside a graph.
//
// The same record becomes a graph node (graph.h). It lends everything: kernel, parameter bytes and
// texts stay the caller's and are read during the call only.
#ifndef KT_GPU_LAUNCH_H
#define KT_GPU_LAUNCH_H

#include "runtime/gpu/module.h"

typedef struct kt_launch {
    const kt_gpu_kernel *kernel;
    uint32_t grid[3], block[3]; // x, y, z; none 0
    uint32_t shared_bytes;      // dynamic
    const void *params;         // packed bytes of all parameters
    size_t params_bytes;
    // Where each parameter starts in `params`; NULL: at the kernel's own offsets.
    const uint32_t *param_at;
    int n_params;     // as the kernel has
    const char *name; // what it does, for messages: "decode layer 3: rms_norm[rows]"
} kt_launch;

// Errors: EOP: the record contradicts the kernel or the device's limits; EGPU: the launch failed,
// or (with options.check_each) the kernel did, or an earlier one.
kt_status kt_gpu_launch(
    kt_gpu *gpu, kt_cu_stream stream, const kt_launch *launch, kt_err *err) KT_MUST_CHECK;

// Checks a record against its kernel and the device, and writes the pointer to each parameter. Used
// by both the plain launch and graph nodes.
kt_status kt_launch_prepare(const kt_gpu *gpu, const kt_launch *launch,
    void *params[KT_GPU_MAX_PARAMS], kt_err *err) KT_MUST_CHECK;
// "rms_norm[rows]: kernel kt_rms_norm_rows, grid 3x1x1, block 256x1x1, shared 0", at most n bytes
// with the 0.
void kt_launch_print(const kt_launch *launch, char *out, size_t n);

#endif
