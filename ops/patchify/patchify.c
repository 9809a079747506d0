// CPU implementation of ops/patchify/op.yaml.
#include "ops/kt_cpu.h"

typedef struct job {
    const uint8_t *rgb;     // [px, 3]
    const int32_t *target;  // [m, 2]
    const int32_t *from;    // [views, 3]
    const int32_t *size;    // [views, 2]
    const int32_t *offset;  // [views + 1]
    uint16_t level[3][256]; // f16
    uint16_t *y;            // [n, 3 * p * p]
    int64_t views, p;
} job;

static void cut(const job *j, const uint8_t *from, int64_t stride, uint16_t *to) {
    for (int64_t channel = 0; channel < 3; channel++)
        for (int64_t row = 0; row < j->p; row++) {
            const uint8_t *x = from + row * stride + channel;
            for (int64_t col = 0; col < j->p; col++) *to++ = j->level[channel][x[3 * col]];
        }
}

// Patches begin .. end of all views.
static void run_patches(void *ctx, int64_t begin, int64_t end) {
    const job *j = ctx;
    int64_t view = 0;
    for (int64_t patch = begin; patch < end; patch++) {
        while (view + 1 < j->views && j->offset[view + 1] <= patch) view++;
        const int32_t *from = j->from + 3 * view;
        int64_t base = 0; // pixels of the pictures in front
        for (int64_t i = 0; i < from[0]; i++)
            base += (int64_t)j->target[2 * i] * j->target[2 * i + 1];
        int64_t width = j->target[2 * (int64_t)from[0] + 1], at = patch - j->offset[view];
        int64_t cols = j->size[2 * view + 1];
        int64_t top = from[1] + at / cols * j->p, left = from[2] + at % cols * j->p;
        cut(j, j->rgb + 3 * (base + top * width + left), 3 * width, j->y + patch * 3 * j->p * j->p);
    }
}

static const char *run(const kt_cpu_call *call) {
    job j = {
        .rgb = kt_cpu_in(call, "rgb")->data,
        .target = kt_cpu_in(call, "target")->data,
        .from = kt_cpu_in(call, "view.from")->data,
        .size = kt_cpu_in(call, "view.size")->data,
        .offset = kt_cpu_in(call, "view.offset")->data,
        .y = kt_cpu_in(call, "y")->data,
        .views = kt_cpu_dim(call, "views"),
        .p = kt_cpu_dim(call, "p"),
    };
    const float *level = kt_cpu_in(call, "view.level")->data; // [3, 256]
    for (int64_t c = 0; c < 3; c++) call->host->f32_to_f16(level + 256 * c, j.level[c], 256);
    call->host->parallel_for(call->host, kt_cpu_dim(call, "n"), 32, run_patches, &j);
    return NULL;
}

KT_CPU_OP("patchify", run)
