// CPU implementation of rope/op.yaml. Angles in double: at position 30,000 an f32 angle is off by
// 0.002.
#include "ops/kt_cpu.h"

#include <math.h>

static void rotate(const float *in, float *out, const double *turn, int64_t hd) {
    for (int64_t j = 0; j < hd / 2; j++) {
        float c = (float)cos(turn[j]), s = (float)sin(turn[j]);
        out[j] = in[j] * c - in[j + hd / 2] * s;
        out[j + hd / 2] = in[j + hd / 2] * c + in[j] * s;
    }
}

static void token(const kt_cpu_call *call, int64_t i, int64_t position, float *in, double *turn) {
    int64_t m = kt_cpu_dim(call, "m"), hd = kt_cpu_dim(call, "hd");
    double theta = kt_cpu_param(call, "theta");
    const uint16_t *x = (const uint16_t *)kt_cpu_in(call, "x")->data + i * m;
    uint16_t *y = (uint16_t *)kt_cpu_in(call, "y")->data + i * m;
    float *out = in + m;
    call->host->f16_to_f32(x, in, (size_t)m);
    for (int64_t j = 0; j < hd / 2; j++)
        turn[j] = (double)position * pow(theta, -2.0 * (double)j / (double)hd);
    for (int64_t h = 0; h < m; h += hd) rotate(in + h, out + h, turn, hd);
    call->host->f32_to_f16(out, y, (size_t)m);
}

static const char *run(const kt_cpu_call *call) {
    int64_t n = kt_cpu_dim(call, "n"), m = kt_cpu_dim(call, "m"), hd = kt_cpu_dim(call, "hd");
    int64_t g = kt_cpu_dim(call, "g");
    const int32_t *segments =
        kt_cpu_in(call, "segments")->data; // i32[g, 4] row, start, length, first
    float *rows = kt_cpu_alloc(sizeof(float) * (size_t)(2 * m));
    double *turn = kt_cpu_alloc(sizeof(double) * (size_t)hd);
    // Tokens of no segment (a stopped row) keep the rule that outputs are written: they are copied.
    memcpy(
        kt_cpu_in(call, "y")->data, kt_cpu_in(call, "x")->data, sizeof(uint16_t) * (size_t)(n * m));
    for (int64_t s = 0; s < g; s++)
        for (int32_t i = 0; i < segments[4 * s + 2]; i++)
            token(call, segments[4 * s + 3] + i, segments[4 * s + 1] + i, rows, turn);
    free(turn);
    free(rows);
    return NULL;
}

KT_CPU_OP("rope", run)
