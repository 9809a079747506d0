#include "runtime/exec/load.h"

#include "runtime/base/f16.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// What all of loading shares.
typedef struct loading {
    kt_backend *backend;
    const volatile int *stop;
    kt_load_stats *stats;
} loading;

// One stored tensor, or a range of its rows, or its transposed form, as a source of bytes.
typedef struct part {
    const loading *load;
    const kt_stored *stored;
    int64_t first_byte; // of the row range
    const char *turned; // transposed copy; NULL: straight from the file
    bool check;         // values must fit f16
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
            p->load->stats->n_rounded += magnitude != 0;
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
    const loading *load = p->load;
    if (load->stop && *load->stop) return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
    if (p->turned)
        memcpy(out, p->turned + offset, size);
    else
        KT_TRY(kt_checkpoint_read(&load->backend->plan->model->checkpoint, p->stored,
            p->first_byte + offset, out, (int64_t)size, err));
    load->stats->bytes += (int64_t)size;
    return p->check ? check_values(p, offset, out, size, err) : KT_OK;
}

static void transpose(const char *in, char *out, int64_t rows, int64_t columns, size_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            memcpy(out + (size_t)(c * rows + r) * width, in + (size_t)(r * columns + c) * width,
                width);
}

// Numbers of a weight in the order of the file, from the heap.
static kt_status read_numbers(
    const loading *load, const kt_weight *weight, void **out, int64_t *bytes, kt_err *err) {
    const kt_stored *stored = weight->parts[0];
    int64_t n = 1, first = 0;
    for (int a = 0; a < weight->rank; a++) n *= weight->shape[a];
    *bytes = n * kt_dtype_bytes(stored->dtype);
    if (weight->row_from >= 0) first = weight->row_from * (stored->bytes / stored->shape[0]);
    *out = malloc((size_t)*bytes + 1);
    if (!*out) kt_out_of_memory((size_t)*bytes);
    return kt_checkpoint_read(
        &load->backend->plan->model->checkpoint, stored, first, *out, *bytes, err);
}

// A weight [n, k] that is stored as [k, n]: reads it whole and turns it.
static kt_status read_turned(
    const loading *load, const kt_weight *weight, void **out, int64_t *bytes, kt_err *err) {
    void *raw = NULL;
    kt_status status = read_numbers(load, weight, &raw, bytes, err);
    *out = malloc((size_t)*bytes + 1);
    if (!*out) kt_out_of_memory((size_t)*bytes);
    if (status == KT_OK && weight->rank == 2)
        transpose(raw, *out, weight->shape[1], weight->shape[0],
            (size_t)kt_dtype_bytes(weight->parts[0]->dtype));
    else if (status == KT_OK)
        memcpy(*out, raw, (size_t)*bytes); // one axis has no order
    free(raw);
    return status;
}

static bool is_wide(const kt_stored *stored) {
    return stored->dtype == KT_DTYPE_BF16 || stored->dtype == KT_DTYPE_F32;
}

static kt_status put_part(const loading *load, const kt_weight *weight, const kt_stored *stored,
    int tensor, kt_err *err) {
    kt_backend *b = load->backend;
    bool plain = weight->format->n_parts == 1 && weight->format->when.n == 0;
    part p = {.load = load, .stored = stored, .check = plain && is_wide(stored)};
    if (weight->row_from >= 0) p.first_byte = weight->row_from * (stored->bytes / stored->shape[0]);
    void *turned = NULL;
    int64_t bytes = 0;
    kt_status status = KT_OK;
    if (weight->transposed) status = read_turned(load, weight, &turned, &bytes, err);
    p.turned = turned;
    if (status == KT_OK)
        status = b->table->put_part(b, tensor, b->plan->tensors[tensor].bytes, read_part, &p, err);
    free(turned);
    return status;
}

static kt_status put_parts(const loading *load, const kt_prepare *prepare, kt_err *err) {
    const kt_weight *weight = &load->backend->plan->model->weights[prepare->weight];
    for (int i = 0; i < prepare->n_parts; i++) {
        kt_status status = put_part(load, weight, weight->parts[i], prepare->part_tensors[i], err);
        if (status == KT_OK) continue;
        if (status != KT_EINTERRUPTED)
            kt_err_note(err, "while loading weight '%.*s'", KT_STR_ARG(weight->name));
        return status;
    }
    return KT_OK;
}

static kt_status prepare_weight(
    const loading *load, const kt_layout *layout, const kt_prepare *prepare, kt_err *err) {
    kt_backend *backend = load->backend;
    KT_TRY(put_parts(load, prepare, err));
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

static kt_status load_vector(const loading *load, int index, kt_err *err) {
    kt_backend *b = load->backend;
    const kt_weight *weight = &b->plan->model->weights[index];
    kt_dtype dtype = weight->parts[0]->dtype;
    void *raw = NULL;
    int64_t bytes = 0;
    kt_status status = weight->transposed ? read_turned(load, weight, &raw, &bytes, err)
                                          : read_numbers(load, weight, &raw, &bytes, err);
    int64_t n = bytes / kt_dtype_bytes(dtype);
    float *wide = malloc(sizeof(float) * (size_t)n + 1);
    if (!wide) kt_out_of_memory(sizeof(float) * (size_t)n);
    if (status == KT_OK) {
        widen(dtype, raw, wide, n);
        status = b->table->put_vector(
            b, b->plan->vector_offset[index], wide, n * (int64_t)sizeof(float), err);
    }
    load->stats->bytes += bytes;
    free(raw);
    free(wide);
    return status;
}

static kt_status load_all(const loading *load, kt_err *err) {
    const kt_plan *plan = load->backend->plan;
    for (int i = 0; i < plan->model->n_weights; i++)
        if (plan->vector_offset[i] >= 0) KT_TRY(load_vector(load, i, err));
    for (int i = 0; i < plan->n_layouts; i++) {
        kt_log_progress("loading weights: %d of %d", i + 1, plan->n_layouts);
        const kt_layout *layout = &plan->layouts[i];
        for (int w = 0; w < layout->n_weights; w++)
            KT_TRY(prepare_weight(load, layout, &layout->prepares[w], err));
    }
    return load->backend->table->loaded(load->backend, err);
}

kt_status kt_load_weights(
    kt_backend *backend, const volatile int *stop, kt_load_stats *stats, kt_err *err) {
    loading load = {backend, stop, stats};
    double start = kt_os_now_ms();
    *stats = (kt_load_stats){0};
    kt_status status = load_all(&load, err);
    kt_log_progress(NULL);
    stats->ms = kt_os_now_ms() - start;
    return status;
}
