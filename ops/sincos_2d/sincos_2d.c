// CPU implementation of sincos_2d/op.yaml. The table is made in f32 as the reference makes it:
// omega[i] = 1 / 10000^(i / (d / 4)); [sin(column) | cos(column) | sin(row) | cos(row)], d / 4
// numbers each.
#include "ops/kt_cpu.h"

#include <math.h>

// Adds the table of one place to a row.
static void add_table(float *row, const float place[2], int64_t quarter) {
    for (int64_t j = 0; j < quarter; j++) {
        float omega = (float)(1.0 / pow(10000.0, (double)j / (double)quarter));
        for (int64_t axis = 0; axis < 2; axis++) {
            row[axis * 2 * quarter + j] += sinf(place[axis] * omega);
            row[axis * 2 * quarter + quarter + j] += cosf(place[axis] * omega);
        }
    }
}

static const char *run(const kt_cpu_call *call) {
    int64_t d = kt_cpu_dim(call, "d"), quarter = d / 4;
    const int32_t *size = kt_cpu_in(call, "size")->data;     // i32[views, 2] rows, columns
    const int32_t *offset = kt_cpu_in(call, "offset")->data; // i32[views + 1]
    const uint16_t *x = kt_cpu_in(call, "x")->data;
    uint16_t *y = kt_cpu_in(call, "y")->data;
    float *row = malloc(sizeof(float) * (size_t)d);
    if (!row) return "out of memory";
    for (int64_t view = 0; view < kt_cpu_dim(call, "views"); view++) {
        for (int64_t i = offset[view]; i < offset[view + 1]; i++) {
            int64_t patch = i - offset[view], columns = size[2 * view + 1], above = patch / columns;
            float place[2] = {(float)(patch - above * columns), (float)above};
            call->host->f16_to_f32(x + i * d, row, (size_t)d);
            add_table(row, place, quarter);
            call->host->f32_to_f16(row, y + i * d, (size_t)d);
        }
    }
    free(row);
    return NULL;
}

KT_CPU_OP("sincos_2d", run)
