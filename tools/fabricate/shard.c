#include "tools/fabricate/shard.h"

#include "runtime/base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 4 << 20 }; // of one write

// ---- order and headers

// Place of a type in a file. Source: safetensors, Dtype and prepare().
static int width_rank(const char *dtype) {
    static const char *const order[] = {"F32", "BF16", "F16", "U8"};
    int i = 0;
    while (i < 3 && strcmp(order[i], dtype) != 0) i++;
    return i;
}

static int by_place(const void *a, const void *b) {
    const kt_tensor *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    int rank = width_rank(x->dtype) - width_rank(y->dtype);
    return rank != 0 ? rank : kt_str_cmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    const kt_tensor *x = a, *y = b;
    return kt_str_cmp(x->name, y->name);
}

static void make_header(kt_shard *shard) {
    kt_buf *text = &shard->header;
    const char length[8] = {0};
    kt_buf_add(text, length, 8);
    kt_buf_printf(text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int64_t i = 0; i < shard->n; i++) {
        kt_tensor *t = &shard->tensors[i];
        t->at = shard->data_bytes;
        kt_buf_printf(
            text, ",\"%.*s\":{\"dtype\":\"%s\",\"shape\":[", KT_STR_ARG(t->name), t->dtype);
        for (int k = 0; k < t->rank; k++)
            kt_buf_printf(text, "%s%" PRId64, k ? "," : "", t->shape[k]);
        kt_buf_printf(
            text, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", t->at, t->at + t->bytes);
        shard->data_bytes += t->bytes;
    }
    kt_buf_printf(text, "}");
    while (text->n % 8 != 0) kt_buf_printf(text, " ");
    for (int i = 0; i < 8; i++) text->at[i] = (char)((uint64_t)(text->n - 8) >> (8 * i));
}

static void make_index(
    kt_arena *arena, const kt_tensors *tensors, const kt_shard *shards, kt_buf *index) {
    int64_t total = 0;
    kt_tensor *sorted = KT_NEW_ARRAY(arena, kt_tensor, tensors->n + 1);
    for (size_t i = 0; i < tensors->n; i++) {
        sorted[i] = tensors->at[i];
        total += tensors->at[i].bytes;
    }
    qsort(sorted, tensors->n, sizeof *sorted, by_name);
    kt_buf_printf(index,
        "{\n  \"metadata\": {\n    \"total_size\": %" PRId64 "\n  },\n  \"weight_map\": {\n",
        total);
    for (size_t i = 0; i < tensors->n; i++)
        kt_buf_printf(index, "    \"%.*s\": \"%s\"%s\n", KT_STR_ARG(sorted[i].name),
            shards[sorted[i].file].name, i + 1 < tensors->n ? "," : "");
    kt_buf_printf(index, "  }\n}\n");
}

int kt_shard_split(
    kt_arena *arena, kt_tensors *tensors, int64_t limit, kt_shard **shards, kt_buf *index) {
    int64_t filled = 0;
    int n = 0;
    for (size_t i = 0; i < tensors->n; i++) {
        if (i > 0 && filled + tensors->at[i].bytes > limit) {
            n++;
            filled = 0;
        }
        tensors->at[i].file = n;
        filled += tensors->at[i].bytes;
    }
    n++;
    qsort(tensors->at, tensors->n, sizeof *tensors->at, by_place);
    kt_shard *out = KT_NEW_ARRAY(arena, kt_shard, n);
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        out[i].tensors = &tensors->at[at];
        while (at < tensors->n && tensors->at[at].file == i) at++;
        out[i].n = &tensors->at[at] - out[i].tensors;
        if (n == 1)
            snprintf(out[i].name, sizeof out[i].name, "model.safetensors");
        else
            snprintf(out[i].name, sizeof out[i].name, "model-%05d-of-%05d.safetensors", i + 1, n);
        make_header(&out[i]);
    }
    if (n > 1) make_index(arena, tensors, out, index);
    *shards = out;
    return n;
}

// ---- writing

typedef struct job {
    const kt_shard *shard;
    kt_os_sink *sink;   // NULL: nothing is written
    kt_os_mutex *mutex; // guards what follows
    kt_status status;
    kt_err err; // the first one
} job;

// Fills out with bytes from .. to of the data.
static void make_bytes(const kt_shard *shard, int64_t from, int64_t to, char *out) {
    int64_t low = 0, high = shard->n; // the last tensor that begins at or before `from`
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (shard->tensors[middle].at <= from)
            low = middle;
        else
            high = middle;
    }
    const kt_tensor *last = &shard->tensors[shard->n];
    memset(out, 0, (size_t)(to - from));
    for (const kt_tensor *t = &shard->tensors[low]; t < last && t->at < to; t++) {
        if (t->at > from) {
            out += t->at - from;
            from = t->at;
        }
        int64_t end = t->at + t->bytes < to ? t->at + t->bytes : to;
        if (end <= from) continue;
        kt_fill_at(&t->fill, from - t->at, out, (size_t)(end - from));
        out += end - from;
        from = end;
    }
}

static bool failed(job *j) {
    kt_os_mutex_lock(j->mutex);
    bool yes = j->status != KT_OK;
    kt_os_mutex_unlock(j->mutex);
    return yes;
}

static void write_out(job *j, int64_t at, const char *bytes, int64_t n) {
    kt_err err;
    if (!j->sink) return;
    int64_t offset = (int64_t)j->shard->header.n + at;
    kt_status status = kt_os_write_at(j->sink, offset, bytes, (size_t)n, &err);
    if (status == KT_OK) return;
    kt_os_mutex_lock(j->mutex);
    if (j->status == KT_OK) j->err = err;
    j->status = status;
    kt_os_mutex_unlock(j->mutex);
}

static char *new_block(void) {
    char *block = malloc(BLOCK_BYTES);
    if (!block) kt_out_of_memory(BLOCK_BYTES);
    return block;
}

// Blocks begin .. end of the data.
static void write_blocks(void *ctx, int64_t begin, int64_t end) {
    job *j = ctx;
    char *block = new_block();
    for (int64_t i = begin; i < end && !failed(j); i++) {
        int64_t from = i * BLOCK_BYTES, to = from + BLOCK_BYTES;
        if (to > j->shard->data_bytes) to = j->shard->data_bytes;
        make_bytes(j->shard, from, to, block);
        write_out(j, from, block, to - from);
    }
    free(block);
}

static void write_small(job *j) {
    char *block = new_block();
    for (int64_t i = 0; i < j->shard->n; i++) {
        const kt_tensor *t = &j->shard->tensors[i];
        if (t->bytes > KT_SHARD_SMALL) continue;
        kt_fill_at(&t->fill, 0, block, (size_t)t->bytes);
        write_out(j, t->at, block, t->bytes);
    }
    free(block);
}

kt_status kt_shard_write(const kt_shard *shard, const kt_writing *how, kt_err *err) {
    job j = {.shard = shard, .mutex = kt_os_mutex_create()};
    kt_arena tmp = {0};
    int64_t header_bytes = (int64_t)shard->header.n;
    if (!how->measure)
        j.status = kt_os_create(kt_path_join(&tmp, how->folder, shard->name),
            header_bytes + shard->data_bytes, &j.sink, &j.err);
    if (j.status == KT_OK) {
        write_out(&j, -header_bytes, shard->header.at, header_bytes);
        if (how->sparse)
            write_small(&j);
        else
            kt_pool_for(how->pool, (shard->data_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES, 1,
                write_blocks, &j);
    }
    kt_err closing;
    kt_status closed = kt_os_sink_close(j.sink, &closing);
    *err = j.status == KT_OK ? closing : j.err;
    kt_os_mutex_free(j.mutex);
    kt_arena_deinit(&tmp);
    return j.status == KT_OK ? closed : j.status;
}
