// Loading: images of weights against what a plain reader makes of the same file, at sizes where
// every row and number meets the end of a piece; threads, errors and interruption.
#include "runtime/base/f16.h"
#include "runtime/base/file.h"
#include "runtime/exec/load_parts.h"
#include "tests/util.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h> // cmocka.h needs these four first

#include <cmocka.h>

enum { MOST = 16 };

// A model of hand-made weights in one file, and a plan that wants them.
typedef struct rig {
    kt_arena arena;
    kt_plan plan;
    kt_model model;
    kt_stored stored[MOST];
    kt_weight weights[MOST];
    const kt_stored *parts[MOST];
    kt_format plain, blocks;
    kt_tensor tensors[MOST];
    kt_layout layouts[MOST];
    kt_prepare prepares[MOST];
    kt_call calls[MOST];
    int part_tensors[MOST];
    int64_t vector_offset[MOST];
    int64_t vector_end;
    kt_checkpoint_file file;
    char *bytes; // of the file
    int64_t size;
    const char *path;
} rig;

static rig *rig_open(void **state) {
    (void)state;
    rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->bytes = calloc(1, 1 << 20);
    assert_non_null(r->bytes);
    r->plain.n_parts = r->blocks.n_parts = 1;
    r->blocks.when = KT_STR("ggml_type 2");
    r->plan = (kt_plan){.arena = &r->arena, .model = &r->model};
    r->plan.tensors = r->tensors;
    r->plan.layouts = r->layouts;
    r->plan.vector_offset = r->vector_offset;
    r->model.weights = r->weights;
    r->model.checkpoint.stored = r->stored;
    r->model.checkpoint.files = &r->file;
    r->model.checkpoint.n_files = 1;
    return r;
}

static void rig_close(rig *r) {
    kt_os_close(r->file.file);
    if (r->path) test_remove(kt_path_folder(&r->arena, r->path));
    kt_arena_deinit(&r->arena);
    free(r->bytes);
    free(r);
}

// Numbers that differ and are exact in every type.
static void put_number(kt_dtype dtype, char *at, int64_t i) {
    float value = (float)(i % 251 - 125);
    uint16_t half = dtype == KT_DTYPE_BF16 ? kt_f32_to_bf16(value) : kt_f32_to_f16(value);
    if (dtype == KT_DTYPE_F32)
        memcpy(at, &value, sizeof value);
    else if (dtype == KT_DTYPE_U8)
        *at = (char)(i * 7 + i / 256);
    else
        memcpy(at, &half, sizeof half);
}

// A stored tensor of rows x row numbers, and a weight over it (changed by the caller).
static kt_weight *add(rig *r, const char *name, kt_dtype dtype, int64_t rows, int64_t row) {
    int i = r->model.n_weights++;
    int64_t width = kt_dtype_bytes(dtype);
    kt_stored *s = &r->stored[i];
    *s = (kt_stored){.name = kt_str_from(name), .dtype = dtype, .rank = 2, .shape = {rows, row}};
    s->offset = r->size;
    s->bytes = rows * row * width;
    for (int64_t k = 0; k < rows * row; k++)
        put_number(dtype, r->bytes + r->size + k * width, k + (int64_t)31 * i);
    r->size += s->bytes;
    r->model.checkpoint.n_stored++;
    r->parts[i] = s;
    r->vector_offset[i] = -1;
    kt_weight *w = &r->weights[i];
    *w = (kt_weight){.name = s->name, .linear = true, .rank = 2, .shape = {rows, row}};
    w->format = dtype == KT_DTYPE_U8 ? &r->blocks : &r->plain;
    w->parts = &r->parts[i];
    w->row_from = w->row_to = -1;
    return w;
}

static void vector(rig *r, kt_weight *w) {
    w->linear = false;
    r->vector_offset[w - r->weights] = r->vector_end;
    int64_t n = 4;
    for (int a = 0; a < w->rank; a++) n *= w->shape[a];
    r->vector_end += (n + 255) / 256 * 256;
}

// A prepare of rows from .. to of the weight, whose part has `bytes`.
static void prepare(rig *r, const kt_weight *w, int64_t from, int64_t to, int64_t bytes) {
    int i = r->plan.n_layouts++;
    r->tensors[i] = (kt_tensor){.home = KT_HOME_STAGING, .bytes = bytes};
    r->part_tensors[i] = i;
    r->prepares[i] = (kt_prepare){.weight = (int)(w - r->weights),
        .row_from = from,
        .row_to = to,
        .part_tensors = &r->part_tensors[i],
        .n_parts = 1,
        .to_tensor = -1,
        .calls = &r->calls[i],
        .n_calls = 1,
        .staging_bytes = bytes};
    r->layouts[i] = (kt_layout){.prepares = &r->prepares[i], .n_prepares = 1};
    if (bytes > r->plan.bytes.staging) r->plan.bytes.staging = bytes;
}

static void write_file(rig *r) {
    kt_err err;
    r->path = kt_path_join(&r->arena, test_folder(&r->arena), "weights.bin");
    assert_int_equal(kt_os_write_atomic(r->path, r->bytes, (size_t)r->size, &err), KT_OK);
    r->file.path = r->path;
    assert_int_equal(kt_os_open(r->path, &r->file.file, &err), KT_OK);
}

// ---- what the images must be

static float number_of(const rig *r, const kt_stored *s, int64_t i) {
    float value;
    kt_load_widen(s->dtype, r->bytes + s->offset + i * kt_dtype_bytes(s->dtype), &value, 1);
    return value;
}

// Index in the stored tensor of number c of the weight's row.
static int64_t stored_index(const kt_weight *w, int64_t row, int64_t c, int64_t k) {
    int64_t base = w->row_from > 0 ? w->row_from * k : 0;
    if (w->transposed && w->rank == 2) return base + c * w->shape[0] + row;
    if (w->interleave == 0) return base + row * k + c;
    int64_t hd = w->interleave, in = row % hd, p = in / (hd / 2), j = in % (hd / 2);
    return base + (row - in + 2 * j + p) * k + c;
}

static void check_vectors(const rig *r, const char *image) {
    for (int i = 0; i < r->model.n_weights; i++) {
        const kt_weight *w = &r->weights[i];
        if (r->vector_offset[i] < 0) continue;
        int64_t k = w->rank == 2 ? w->shape[1] : 1;
        for (int64_t n = 0; n < w->shape[0] * k; n++) {
            float got;
            memcpy(&got, image + r->vector_offset[i] + n * 4, 4);
            float want = number_of(r, w->parts[0], stored_index(w, n / k, n % k, k));
            if (got != want) fail_msg("%s[%d]", w->name.at, (int)n);
        }
    }
}

static void check_part(const rig *r, const kt_prepare *p, const char *at) {
    const kt_weight *w = &r->weights[p->weight];
    const kt_stored *s = w->parts[0];
    int64_t width = kt_dtype_bytes(s->dtype), bytes = r->tensors[p->part_tensors[0]].bytes;
    int64_t k = bytes / width / (p->row_to - p->row_from);
    for (int64_t n = 0; n < bytes / width; n++) {
        int64_t from = stored_index(w, p->row_from + n / k, n % k, k);
        if (memcmp(at + n * width, r->bytes + s->offset + from * width, (size_t)width) != 0)
            fail_msg("%s, row %d, column %d", w->name.at, (int)(p->row_from + n / k), (int)(n % k));
    }
}

// ---- a back end that looks at what it is given

typedef struct looker {
    kt_backend base;
    rig *r;
    kt_load_room room;
    char *image[KT_LOAD_AREAS + 1]; // of the areas, of the vectors
    int sent[64];                   // by slot: pieces under way
    int n_prepared, n_sent, n_closed;
    volatile int *stop; // set after some pieces
    int stop_after;
    bool straight;
} looker;

static kt_status look_open(
    kt_backend *backend, int64_t bytes, int n_readers, kt_load_room *room, kt_err *err) {
    (void)bytes, (void)n_readers, (void)err;
    looker *l = (looker *)backend;
    *room = l->room;
    return KT_OK;
}

static kt_status look_send(kt_backend *backend, const kt_load_piece *piece, kt_err *err) {
    (void)err;
    looker *l = (looker *)backend;
    assert_int_equal(l->sent[piece->slot], 0);
    l->sent[piece->slot] = 1;
    char *to = l->image[piece->place == KT_LOAD_VECTORS ? KT_LOAD_AREAS : piece->area];
    memcpy(
        to + piece->offset, l->room.slots + piece->slot * l->room.slot_bytes, (size_t)piece->bytes);
    if (++l->n_sent == l->stop_after) *l->stop = 1;
    return KT_OK;
}

static kt_status look_sent(kt_backend *backend, int slot, bool wait, bool *done, kt_err *err) {
    (void)err;
    looker *l = (looker *)backend;
    *done = wait || slot % 2; // some take longer
    if (!*done) return KT_OK;
    l->sent[slot] = 0;
    memset(l->room.slots + slot * l->room.slot_bytes, 0xee, (size_t)l->room.slot_bytes);
    return KT_OK;
}

static kt_status look_prepare(kt_backend *backend, const kt_load_call *call, kt_err *err) {
    (void)err;
    looker *l = (looker *)backend;
    l->n_prepared++;
    check_part(l->r, call->layout->prepares, l->image[call->area] + call->offset);
    return KT_OK;
}

static kt_status look_leave(kt_backend *backend, int area, kt_err *err) {
    (void)err;
    looker *l = (looker *)backend;
    memset(l->image[area], 0xdd, (size_t)l->room.area_bytes);
    return KT_OK;
}

static kt_status look_close(kt_backend *backend, kt_load_times *times, kt_err *err) {
    (void)err;
    ((looker *)backend)->n_closed++;
    *times = (kt_load_times){0};
    return KT_OK;
}

static const kt_backend_table look_table = {.name = "looker",
    .load_open = look_open,
    .load_send = look_send,
    .load_sent = look_sent,
    .load_prepare = look_prepare,
    .load_leave = look_leave,
    .load_close = look_close};

static looker look_at(rig *r, int64_t piece, int slots, int areas, int64_t area_bytes) {
    looker l = {.base = {&look_table, &r->plan}, .r = r, .straight = slots == 0};
    if (area_bytes < r->plan.bytes.staging) area_bytes = r->plan.bytes.staging;
    area_bytes = (area_bytes + 255) / 256 * 256;
    l.room = (kt_load_room){
        .n_areas = areas, .area_bytes = area_bytes, .n_slots = slots, .slot_bytes = piece};
    for (int i = 0; i <= KT_LOAD_AREAS; i++) {
        size_t bytes = (size_t)(i < KT_LOAD_AREAS ? area_bytes : r->vector_end) + 1;
        l.image[i] = calloc(1, bytes);
        assert_non_null(l.image[i]);
        if (l.straight && i < KT_LOAD_AREAS) l.room.areas[i] = l.image[i];
    }
    if (l.straight) l.room.vectors = l.image[KT_LOAD_AREAS];
    if (!l.straight) l.room.slots = calloc((size_t)slots, (size_t)piece);
    return l;
}

static void look_end(looker *l) {
    for (int i = 0; i <= KT_LOAD_AREAS; i++) free(l->image[i]);
    free(l->room.slots);
}

// ---- tests

// One of everything: plain, some rows of a tensor, rows in ranges, turned, interleaved, blocks.
static void fill(rig *r) {
    vector(r, add(r, "vector.bf16", KT_DTYPE_BF16, 301, 1));
    kt_weight *w = add(r, "vector.f16.rows", KT_DTYPE_F16, 90, 1);
    w->row_from = 30, w->row_to = 60, w->shape[0] = 30;
    vector(r, w);
    w = add(r, "vector.f32.interleaved", KT_DTYPE_F32, 96, 1);
    w->rank = 1, w->interleave = 32;
    vector(r, w);
    w = add(r, "vector.turned", KT_DTYPE_BF16, 7, 45);
    w->transposed = true, w->shape[0] = 45, w->shape[1] = 7;
    vector(r, w);
    w = add(r, "plain.f16", KT_DTYPE_F16, 70, 33);
    prepare(r, w, 0, 70, w->parts[0]->bytes);
    w = add(r, "plain.bf16", KT_DTYPE_BF16, 100, 24);
    prepare(r, w, 0, 48, INT64_C(48) * 48);
    prepare(r, w, 48, 96, INT64_C(48) * 48);
    prepare(r, w, 96, 100, INT64_C(4) * 48);
    w = add(r, "rows.f32", KT_DTYPE_F32, 60, 20);
    w->row_from = 20, w->row_to = 40, w->shape[0] = 20;
    prepare(r, w, 0, 16, INT64_C(16) * 80);
    prepare(r, w, 16, 20, INT64_C(4) * 80);
    w = add(r, "turned.bf16", KT_DTYPE_BF16, 37, 50);
    w->transposed = true, w->shape[0] = 50, w->shape[1] = 37;
    prepare(r, w, 0, 32, INT64_C(32) * 37 * 2);
    prepare(r, w, 32, 50, INT64_C(18) * 37 * 2);
    w = add(r, "interleaved.f16", KT_DTYPE_F16, 96, 21);
    w->interleave = 16;
    prepare(r, w, 0, 48, INT64_C(48) * 42);
    prepare(r, w, 48, 96, INT64_C(48) * 42);
    w = add(r, "interleaved.blocks", KT_DTYPE_U8, 64, 36);
    w->interleave = 32;
    prepare(r, w, 0, 64, INT64_C(64) * 36);
    write_file(r);
}

static void load_makes_the_same_images_at_all_sizes(void **state) {
    rig *r = rig_open(state);
    fill(r);
    const int64_t pieces[] = {256, 512, 1024, 4096, 1 << 16};
    const int64_t areas[] = {0, 4096, 1 << 16};
    for (int p = 0; p < 5; p++)
        for (int a = 0; a < 3; a++)
            for (int slots = 0; slots < 6; slots += slots ? 3 : 2) {
                looker l = look_at(r, pieces[p], slots, 1 + (p + a) % KT_LOAD_AREAS, areas[a]);
                kt_load_stats stats;
                kt_err err;
                assert_int_equal(kt_load_weights(&l.base, NULL, &stats, &err), KT_OK);
                assert_int_equal(l.n_prepared, r->plan.n_layouts);
                assert_int_equal(l.n_closed, 1);
                assert_int_equal(stats.n_rounded, 0);
                check_vectors(r, l.image[KT_LOAD_AREAS]);
                look_end(&l);
            }
    rig_close(r);
}

// As many bytes as make several readers.
static void fill_large(rig *r, int64_t rows) {
    free(r->bytes);
    r->bytes = calloc(1, (size_t)rows * 2048 + 64);
    assert_non_null(r->bytes);
    kt_weight *w = add(r, "large", KT_DTYPE_BF16, rows, 1024);
    for (int64_t from = 0; from < rows; from += rows / 8)
        prepare(r, w, from, from + rows / 8, rows / 8 * 2048);
}

static kt_status load_large(rig *r, int slots, volatile int *stop, int stop_after, kt_err *err) {
    looker l = look_at(r, 1 << 16, slots, 2, 0);
    kt_load_stats stats;
    l.stop = stop;
    l.stop_after = stop_after;
    kt_status status = kt_load_weights(&l.base, stop, &stats, err);
    if (status == KT_OK) {
        assert_int_equal(l.n_prepared, r->plan.n_layouts);
        assert_int_equal(stats.bytes, r->size);
    }
    if (stop_after) assert_true(l.n_sent < stats.n_pieces);
    look_end(&l);
    return status;
}

static void load_with_threads_is_the_same(void **state) {
    rig *r = rig_open(state);
    fill_large(r, 16384);
    write_file(r);
    kt_err err;
    assert_int_equal(load_large(r, 5, NULL, 0, &err), KT_OK);
    assert_int_equal(load_large(r, 0, NULL, 0, &err), KT_OK);
    rig_close(r);
}

static void load_stops_when_asked(void **state) {
    rig *r = rig_open(state);
    fill_large(r, 16384);
    write_file(r);
    volatile int stop = 0;
    kt_err err;
    assert_int_equal(load_large(r, 5, &stop, 9, &err), KT_EINTERRUPTED);
    stop = 1;
    assert_int_equal(load_large(r, 0, &stop, 0, &err), KT_EINTERRUPTED);
    rig_close(r);
}

// The first of several damages is told, whichever thread meets which.
static void load_tells_the_first_bad_number(void **state) {
    rig *r = rig_open(state);
    fill_large(r, 16384);
    const int64_t bad[] = {3000001, 3000002, 5000000, 12345678};
    for (int i = 0; i < 4; i++) {
        uint16_t huge = kt_f32_to_bf16(1e6F * (float)(i + 1));
        memcpy(r->bytes + 2 * bad[i], &huge, 2);
    }
    write_file(r);
    for (int i = 0; i < 3; i++) {
        kt_err err;
        assert_int_equal(load_large(r, i ? 5 : 0, NULL, 0, &err), KT_EMODEL);
        assert_non_null(
            strstr(err.text, "tensor 'large' holds 999424 at index 3000001, which f16"));
        assert_non_null(strstr(err.text, "while loading weight 'large'"));
    }
    rig_close(r);
}

// A scale of GGML's blocks that is no number, in rows as stored and interleaved.
static void load_looks_at_scales(void **state) {
    const struct { int type, at; } types[] = {{2, 0}, {8, 0}, {7, 2}, {12, 2}, {14, 208}};
    enum { ROWS = 64, BLOCKS = 2 };
    const int64_t bad[] = {-1, 0, 1, 6, 63, 127};
    for (int t = 0; t < 5; t++)
        for (int b = 0; b < 6; b++)
            for (int i = 0; i < 4; i++) {
                rig *r = rig_open(state);
                const kt_gguf_halves halves = kt_gguf_type_halves(types[t].type);
                kt_weight *w = add(r, "scales", KT_DTYPE_U8, ROWS, (int64_t)BLOCKS * halves.block);
                r->stored[0].ggml_type = types[t].type;
                r->stored[0].type = kt_str_from(kt_gguf_type_name(types[t].type));
                w->interleave = i % 2 ? 16 : 0;
                memset(r->bytes, 0xbb, (size_t)r->size); // as f16: -0.97
                const uint16_t nan = 0x7e00;
                if (bad[b] >= 0) memcpy(r->bytes + bad[b] * halves.block + types[t].at, &nan, 2);
                prepare(r, w, 0, ROWS, r->size);
                write_file(r);
                looker l = look_at(r, i < 2 ? 256 : 4096, 3, 1, 0);
                kt_load_stats stats;
                kt_err err = {0};
                kt_status status = kt_load_weights(&l.base, NULL, &stats, &err);
                const char *says = kt_arena_printf(
                    &r->arena, "in block %d (%s)", (int)bad[b], r->stored[0].type.at);
                assert_int_equal(status, bad[b] < 0 ? KT_OK : KT_EMODEL);
                if (bad[b] >= 0 && !strstr(err.text, says)) fail_msg("%s: %s", says, err.text);
                look_end(&l);
                rig_close(r);
            }
}

// A file that becomes shorter while it is read.
static void load_says_that_a_file_ends_early(void **state) {
    rig *r = rig_open(state);
    fill_large(r, 16384);
    write_file(r);
    FILE *file = kt_os_fopen(r->path, "wb"); // the same file, now empty
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    kt_err err;
    assert_int_equal(load_large(r, 5, NULL, 0, &err), KT_EFILE);
    assert_non_null(strstr(err.text, "ends"));
    assert_non_null(strstr(err.text, "while loading weight 'large'"));
    rig_close(r);
}

// ---- numbers

static void looking_finds_what_does_not_fit(void **state) {
    (void)state;
    const struct {
        kt_dtype dtype;
        bool f16;
        float value;
        bool bad;
    } rows[] = {{KT_DTYPE_BF16, true, 65280.0F, false}, {KT_DTYPE_BF16, true, -65536.0F, true},
        {KT_DTYPE_BF16, false, 1e30F, false}, {KT_DTYPE_BF16, false, INFINITY, true},
        {KT_DTYPE_F32, true, 65519.0F, false}, {KT_DTYPE_F32, true, 65520.0F, true},
        {KT_DTYPE_F32, false, 3e38F, false}, {KT_DTYPE_F32, false, -NAN, true},
        {KT_DTYPE_F16, true, -65504.0F, false}, {KT_DTYPE_F16, false, INFINITY, true}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int64_t at = 0; at < 3000; at += 613) {
            float wide[3000] = {0};
            uint16_t half[3000] = {0};
            wide[at] = rows[i].value;
            half[at] = rows[i].dtype == KT_DTYPE_BF16 ? kt_f32_to_bf16(rows[i].value)
                                                      : kt_f32_to_f16(rows[i].value);
            const void *numbers = rows[i].dtype == KT_DTYPE_F32 ? (void *)wide : (void *)half;
            kt_load_scan scan = {0};
            int64_t found = kt_load_look(rows[i].dtype, rows[i].f16, numbers, 3000, &scan);
            assert_int_equal(found, rows[i].bad ? at : -1);
            if (!rows[i].bad && rows[i].dtype == KT_DTYPE_F32)
                assert_true(scan.largest == (double)fabsf(rows[i].value));
        }
}

// Wherever the bytes begin and end.
static void looking_finds_scales(void **state) {
    (void)state;
    enum { BLOCK = 210, AT = 208, BAD = 3, ALL = 5 * BLOCK };
    const kt_gguf_halves halves = kt_gguf_type_halves(14);
    char bytes[ALL] = {0};
    bytes[BAD * BLOCK + AT + 1] = 0x7c; // infinity
    for (int from = 0; from < ALL; from++)
        for (int to = from; to <= ALL; to += 7) {
            bool held = from <= BAD * BLOCK + AT && to >= BAD * BLOCK + AT + 2;
            int64_t found = kt_load_look_blocks(&halves, from, bytes + from, to - from);
            assert_int_equal(found, held ? BAD - from / BLOCK : -1);
        }
}

static void looking_counts_small_numbers(void **state) {
    (void)state;
    float wide[2500] = {0};
    uint16_t half[2500];
    for (int i = 0; i < 2500; i++) {
        if (i % 3 == 0) wide[i] = -6.2e-5F; // normal: not below 2^-14 = 6.1035e-5
        if (i % 3 == 1) wide[i] = 6.0e-5F;
        half[i] = kt_f32_to_bf16(wide[i]);
    }
    kt_load_scan a = {0}, b = {0};
    assert_int_equal(kt_load_look(KT_DTYPE_F32, true, wide, 2500, &a), -1);
    assert_int_equal(kt_load_look(KT_DTYPE_BF16, true, half, 2500, &b), -1);
    assert_int_equal(a.n_small, 833);
    assert_int_equal(b.n_small, 833);
    assert_true(a.largest == (double)6.2e-5F);
}

// A tensor of tiny numbers is told of; one that only has some is not.
static void load_tells_of_faint_tensors(void **state) {
    rig *r = rig_open(state);
    kt_weight *w = add(r, "faint", KT_DTYPE_BF16, 20, 8);
    prepare(r, w, 0, 20, w->parts[0]->bytes);
    w = add(r, "fine", KT_DTYPE_F32, 20, 8);
    prepare(r, w, 0, 20, w->parts[0]->bytes);
    for (int i = 0; i < 160; i++) {
        uint16_t bits = kt_f32_to_bf16(1e-5F);
        memcpy(r->bytes + (ptrdiff_t)2 * i, &bits, 2);
    }
    float small = 1e-6F;
    memcpy(r->bytes + r->stored[1].offset + 12, &small, 4);
    write_file(r);
    looker l = look_at(r, 1024, 2, 1, 0);
    kt_load_stats stats;
    kt_err err;
    assert_int_equal(kt_load_weights(&l.base, NULL, &stats, &err), KT_OK);
    assert_int_equal(stats.n_rounded, 161);
    assert_int_equal(stats.n_faint, 1);
    assert_ptr_equal(stats.faint, &r->stored[0]);
    look_end(&l);
    rig_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_makes_the_same_images_at_all_sizes),
        cmocka_unit_test(load_with_threads_is_the_same),
        cmocka_unit_test(load_stops_when_asked),
        cmocka_unit_test(load_tells_the_first_bad_number),
        cmocka_unit_test(load_looks_at_scales),
        cmocka_unit_test(load_says_that_a_file_ends_early),
        cmocka_unit_test(looking_finds_what_does_not_fit),
        cmocka_unit_test(looking_finds_scales),
        cmocka_unit_test(looking_counts_small_numbers),
        cmocka_unit_test(load_tells_of_faint_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
