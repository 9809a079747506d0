// CPU implementation of linear_parts/op.yaml. How a product is split into partial sums is free as
// long as they add up: part 0 holds all of it here, the others are zero.
#include "ops/kt_cpu.h"

static const char *run(const kt_cpu_call *call) {
    int64_t n = kt_cpu_dim(call, "n"), m = kt_cpu_dim(call, "m"), k = kt_cpu_dim(call, "k");
    int64_t s = kt_cpu_dim(call, "s");
    float scale = (float)kt_cpu_param(call, "scale");
    float *part = kt_cpu_in(call, "part")->data; // f32[s, n, m]
    const float *b = kt_cpu_in(call, "b")->data; // f32[m] or NULL
    call->host->matmul(
        call->host, kt_cpu_in(call, "x")->data, kt_cpu_in(call, "w")->data, part, n, m, k, m);
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < m; i++) part[r * m + i] = part[r * m + i] * scale + (b ? b[i] : 0);
    memset(part + n * m, 0, sizeof(float) * (size_t)((s - 1) * n * m));
    return NULL;
}

KT_CPU_OP("linear_parts", run)
