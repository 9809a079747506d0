// CPU implementation of sum_parts/op.yaml.
#include "ops/kt_cpu.h"

static const char *run(const kt_cpu_call *call) {
    int64_t size = kt_cpu_dim(call, "n") * kt_cpu_dim(call, "d"), s = kt_cpu_dim(call, "s");
    const float *x = kt_cpu_in(call, "x")->data, *part = kt_cpu_in(call, "part")->data;
    float *y = kt_cpu_in(call, "y")->data;
    for (int64_t i = 0; i < size; i++) {
        float sum = x[i];
        for (int64_t p = 0; p < s; p++) sum += part[p * size + i];
        y[i] = sum;
    }
    return NULL;
}

KT_CPU_OP("sum_parts", run)
