#include "runtime/exec/load.h"

#include "runtime/base/f16.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// One stored tensor, or a range of its rows, or its transposed form, as a source of bytes.
typedef struct part {
    const kt_checkpoint *checkpoint;
    const kt_stored *stored;
    int64_t first_byte; // of the row range
    const char *turned; // transposed copy; NULL: straight from the file
    bool check;         // values must fit f16
    kt_load_stats *stats;
} part;

static kt_status refuse(const part *p, int64_t index, double value, kt_err *err) {
    return KT_FAIL(err, KT_EMODEL,
        "tensor '%.*s' holds %g at index %" PRId64
        ", which f16 cannot hold (largest 65504); this checkpoint needs a format that keeps it",
        KT_STR_ARG(p->stored->name), value, index);
}

// Looks at bf16 or f32 values on their way: too large is an error, too small is counted.
static kt_status check_values(part *p, int64_t offset, const char *at, size_t size, kt_err *err) {
    size_t width = (size_t)kt_dtype_bytes(p->stored->dtype);
    bool half = p->stored->dtype == KT_DTYPE_BF16;
    for (size_t i = 0; i + width <= size; i += width) {
        uint32_t bits = 0;
        memcpy((char *)&bits + (half ? 2 : 0), at + i, width);
        uint32_t magnitude = bits & 0x7fffffffU;
        if (magnitude < 0x38800000U) { // 2^-14, the smallest normal f16
            p->stats->n_rounded += magnitude != 0;
        } else if (magnitude >= 0x477ff000U) { // rounds beyond 65504
            float value;
            memcpy(&value, &bits, sizeof value);
            return refuse(p, (offset + (int64_t)i) / (int64_t)width, (double)value, err);
        }
    }
    return KT_OK;
}

static kt_status read_part(void *ctx, int64_t offset, void *out, size_t size, kt_err *err) {
    part *p = ctx;
    if (p->turned)
        memcpy(out, p->turned + offset, size);
    else
        KT_TRY(kt_checkpoint_read(
            p->checkpoint, p->stored, p->first_byte + offset, out, (int64_t)size, err));
    p->stats->bytes += (int64_t)size;
    return p->check ? check_values(p, offset, out, size, err) : KT_OK;
}

static void transpose(const char *in, char *out, int64_t rows, int64_t columns, size_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            memcpy(out + (size_t)(c * rows + r) * width, in + (size_t)(r * columns + c) * width,
                width);
}

// A weight stored as [k, n]: reads it whole and turns it.
static kt_status turn(const kt_weight *weight, part *p, char **owned, kt_err *err) {
    char *raw = malloc((size_t)p->stored->bytes + 1);
    *owned = malloc((size_t)p->stored->bytes + 1);
    if (!raw || !*owned) kt_out_of_memory((size_t)p->stored->bytes);
    kt_status status = kt_checkpoint_read(p->checkpoint, p->stored, 0, raw, p->stored->bytes, err);
    if (status == KT_OK)
        transpose(raw, *owned, weight->shape[1], weight->shape[0],
            (size_t)kt_dtype_bytes(p->stored->dtype));
    free(raw);
    p->turned = *owned;
    return status;
}

static int64_t row_bytes(const kt_stored *stored) {
    return stored->shape[0] > 0 ? stored->bytes / stored->shape[0] : 0;
}

static bool is_wide(const kt_stored *stored) {
    return stored->dtype == KT_DTYPE_BF16 || stored->dtype == KT_DTYPE_F32;
}

static kt_status put_parts(
    kt_backend *backend, const kt_prepare *prepare, kt_load_stats *stats, kt_err *err) {
    const kt_plan *plan = backend->plan;
    const kt_weight *weight = &plan->model->weights[prepare->weight];
    bool plain = weight->format->n_parts == 1 && weight->format->when.n == 0;
    for (int i = 0; i < prepare->n_parts; i++) {
        part p = {&plan->model->checkpoint, weight->parts[i], 0, NULL, false, stats};
        char *owned = NULL;
        p.check = plain && is_wide(p.stored);
        if (weight->row_from >= 0) p.first_byte = weight->row_from * row_bytes(p.stored);
        kt_status status = KT_OK;
        if (weight->transposed) status = turn(weight, &p, &owned, err);
        int tensor = prepare->part_tensors[i];
        if (status == KT_OK)
            status = backend->table->put_part(
                backend, tensor, plan->tensors[tensor].bytes, read_part, &p, err);
        free(owned);
        if (status != KT_OK) {
            kt_err_note(err, "while loading weight '%.*s'", KT_STR_ARG(weight->name));
            return status;
        }
    }
    return KT_OK;
}

static kt_status prepare_weight(kt_backend *backend, const kt_layout *layout,
    const kt_prepare *prepare, kt_load_stats *stats, kt_err *err) {
    KT_TRY(put_parts(backend, prepare, stats, err));
    if (prepare->to_tensor >= 0) {
        const kt_tensor *to = &backend->plan->tensors[prepare->to_tensor];
        KT_TRY(backend->table->put(backend, prepare->to_tensor, 0, prepare->to, to->bytes, err));
    }
    for (int i = 0; i < prepare->n_calls; i++)
        KT_TRY(backend->table->prepare(backend, layout, &prepare->calls[i], err));
    return KT_OK;
}

static void widen(kt_dtype dtype, const void *in, float *out, int64_t n) {
    const uint16_t *half = in;
    if (dtype == KT_DTYPE_F32) memcpy(out, in, sizeof(float) * (size_t)n);
    if (dtype == KT_DTYPE_F16) kt_f16_to_f32_row(half, out, (size_t)n);
    if (dtype == KT_DTYPE_BF16)
        for (int64_t i = 0; i < n; i++) out[i] = kt_bf16_to_f32(half[i]);
}

static kt_status load_vector(kt_backend *backend, int index, kt_load_stats *stats, kt_err *err) {
    const kt_plan *plan = backend->plan;
    const kt_weight *weight = &plan->model->weights[index];
    const kt_stored *stored = weight->parts[0];
    int64_t n = 1;
    for (int a = 0; a < weight->rank; a++) n *= weight->shape[a];
    int64_t bytes = n * kt_dtype_bytes(stored->dtype);
    int64_t first = weight->row_from >= 0 ? weight->row_from * row_bytes(stored) : 0;
    void *raw = malloc((size_t)bytes + 1);
    float *wide = malloc(sizeof(float) * (size_t)n + 1);
    if (!raw || !wide) kt_out_of_memory((size_t)bytes);
    kt_status status = kt_checkpoint_read(&plan->model->checkpoint, stored, first, raw, bytes, err);
    if (status == KT_OK) {
        widen(stored->dtype, raw, wide, n);
        status = backend->table->put_vector(
            backend, plan->vector_offset[index], wide, n * (int64_t)sizeof(float), err);
    }
    stats->bytes += bytes;
    free(raw);
    free(wide);
    return status;
}

kt_status kt_load_weights(
    kt_backend *backend, const volatile int *stop, kt_load_stats *stats, kt_err *err) {
    const kt_plan *plan = backend->plan;
    double start = kt_os_now_ms();
    *stats = (kt_load_stats){0};
    for (int i = 0; i < plan->model->n_weights; i++)
        if (plan->vector_offset[i] >= 0) KT_TRY(load_vector(backend, i, stats, err));
    for (int i = 0; i < plan->n_layouts; i++) {
        if (stop && *stop) return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
        kt_log_progress("loading weights: %d of %d", i + 1, plan->n_layouts);
        const kt_layout *layout = &plan->layouts[i];
        for (int w = 0; w < layout->n_weights; w++)
            KT_TRY(prepare_weight(backend, layout, &layout->prepares[w], stats, err));
    }
    kt_log_progress(NULL);
    KT_TRY(backend->table->loaded(backend, err));
    stats->ms = kt_os_now_ms() - start;
    return KT_OK;
}
