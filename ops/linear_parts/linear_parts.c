// CPU implementation of linear_parts/op.yaml.
#include "ops/kt_cpu.h"

// First input of part p: the inputs are cut between groups of 64.
static int64_t first_input(int64_t p, int64_t s, int64_t k) {
    int64_t first = (k + 63) / 64 * p / s * 64;
    return first < k ? first : k;
}

static const char *run(const kt_cpu_call *call) {
    int64_t n = kt_cpu_dim(call, "n"), m = kt_cpu_dim(call, "m"), k = kt_cpu_dim(call, "k");
    int64_t s = kt_cpu_dim(call, "s");
    float scale = (float)kt_cpu_param(call, "scale");
    const float *b = kt_cpu_in(call, "b")->data; // f32[m] or NULL
    for (int64_t p = 0; p < s; p++) {
        int64_t from = first_input(p, s, k), to = first_input(p + 1, s, k);
        float *part = (float *)kt_cpu_in(call, "part")->data + p * n * m;
        const kt_cpu_product product = {
            .x = (const uint16_t *)kt_cpu_in(call, "x")->data + from,
            .w = (const uint16_t *)kt_cpu_in(call, "w")->data + from,
            .y = part,
            .n = n,
            .m = m,
            .k = to - from,
            .ldx = k,
            .ldw = k,
            .ldy = m,
        };
        call->host->matmul(call->host, &product);
        for (int64_t r = 0; r < n; r++)
            for (int64_t i = 0; i < m; i++)
                part[r * m + i] = part[r * m + i] * scale + (b && p == 0 ? b[i] : 0);
    }
    return NULL;
}

KT_CPU_OP("linear_parts", run)
