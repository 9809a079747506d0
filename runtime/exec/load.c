#include "runtime/exec/load.h"

#include "runtime/base/log.h"
#include "runtime/exec/load_parts.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    READERS_MOST = 8,
    BYTES_A_READER = 8 << 20, // fewer are not worth a thread
    STACK_BYTES = 256 << 10,
};

// What the readers and the caller share. The caller alone calls the back end.
typedef struct loading {
    kt_backend *backend;
    const volatile int *stop;
    kt_load_stats *stats;
    kt_load_room room;
    kt_load_list list;
    kt_load_scan *scans; // by segment
    char *scratch;       // the caller's
    kt_os_thread *readers[READERS_MOST];
    kt_os_mutex *mutex; // guards what follows, and stats and scans while readers run
    kt_os_cond *room_made, *piece_read;
    unsigned char *is_read; // by chunk
    int n_chunks;
    int next;         // chunk that no reader has taken
    int n_sent;       // chunks that left their slots, or are leaving them
    int n_free;       // of these, gone: their slots are free
    int n_areas_done; // images that were prepared
    int bad;          // first chunk that could not be read; INT_MAX
    bool quit;
    kt_err why;
} loading;

static bool stopped(const loading *l) {
    return l->stop && *l->stop;
}

// ---- reading

static const kt_load_chunk *chunk_of(const loading *l, int number) {
    return &l->list.chunks.at[number];
}

static const kt_load_image *image_of(const loading *l, int number) {
    return &l->list.images.at[chunk_of(l, number)->image];
}

static char *place_of(const loading *l, int number) {
    const kt_load_image *image = image_of(l, number);
    if (l->room.slots) return l->room.slots + number % l->room.n_slots * l->room.slot_bytes;
    char *base = image->place == KT_LOAD_VECTORS ? l->room.vectors : l->room.areas[image->area];
    return base + chunk_of(l, number)->from;
}

// Is there room for this chunk? With the lock.
static bool has_room(const loading *l, int number) {
    if (l->room.slots) return number < l->n_free + l->room.n_slots;
    return image_of(l, number)->n_before < l->n_areas_done + l->room.n_areas;
}

static void add_scan(kt_load_scan *to, const kt_load_scan *from) {
    to->n_small += from->n_small;
    if (from->largest > to->largest) to->largest = from->largest;
}

// Reads one chunk and says so.
// NOLINTNEXTLINE(readability-non-const-parameter): the fill writes to it
static void read_chunk(loading *l, int number, char *scratch, kt_load_scan *scans) {
    kt_err err;
    const kt_load_chunk *chunk = chunk_of(l, number);
    memset(scans, 0, (size_t)chunk->n_segments * sizeof *scans);
    kt_load_fill fill = {.checkpoint = &l->backend->plan->model->checkpoint,
        .list = &l->list,
        .chunk = chunk,
        .to = place_of(l, number),
        .scratch = scratch,
        .scans = scans};
    double start = kt_os_now_ms();
    kt_status status = stopped(l) ? KT_FAIL(&err, KT_EINTERRUPTED, "interrupted")
                                  : kt_load_fill_chunk(&fill, &err);
    double end = kt_os_now_ms();
    kt_os_mutex_lock(l->mutex);
    l->stats->read_ms += end - start;
    l->stats->bytes += fill.bytes;
    for (int i = 0; i < chunk->n_segments; i++) add_scan(&l->scans[chunk->segment + i], &scans[i]);
    l->is_read[number] = 1;
    if (status != KT_OK && number < l->bad) {
        l->bad = number;
        l->why = err;
    }
    kt_os_cond_broadcast(l->piece_read);
    kt_os_mutex_unlock(l->mutex);
}

static kt_load_scan *new_scans(const loading *l) {
    int most = 1;
    for (int i = 0; i < l->n_chunks; i++)
        if (chunk_of(l, i)->n_segments > most) most = chunk_of(l, i)->n_segments;
    kt_load_scan *scans = malloc((size_t)most * sizeof *scans);
    if (!scans) kt_out_of_memory((size_t)most * sizeof *scans);
    return scans;
}

static char *new_scratch(void) {
    char *scratch = malloc(KT_LOAD_SCRATCH);
    if (!scratch) kt_out_of_memory(KT_LOAD_SCRATCH);
    return scratch;
}

// A chunk to read; -1: there is no more. Waits for room.
static int take_chunk(loading *l) {
    double start = kt_os_now_ms();
    kt_os_mutex_lock(l->mutex);
    while (!l->quit && l->next < l->n_chunks && l->next < l->bad && !has_room(l, l->next))
        kt_os_cond_wait(l->room_made, l->mutex);
    bool any = !l->quit && l->next < l->n_chunks && l->next < l->bad;
    int number = any ? l->next++ : -1;
    if (any) l->stats->held_up_ms += kt_os_now_ms() - start;
    kt_os_mutex_unlock(l->mutex);
    return number;
}

static void read_chunks(void *ctx) {
    loading *l = ctx;
    char *scratch = new_scratch();
    kt_load_scan *scans = new_scans(l);
    for (int number = take_chunk(l); number >= 0; number = take_chunk(l))
        read_chunk(l, number, scratch, scans);
    free(scans);
    free(scratch);
}

// ---- sending

// Frees the slots of pieces that have arrived; waits for the oldest one if asked to.
static kt_status free_slots(loading *l, bool wait, kt_err *err) {
    int n = l->n_free;
    while (n < l->n_sent) {
        bool done = false;
        KT_TRY(l->backend->table->load_sent(l->backend, n % l->room.n_slots, wait, &done, err));
        if (!done) break;
        wait = false;
        n++;
    }
    if (n == l->n_free) return KT_OK;
    kt_os_mutex_lock(l->mutex);
    l->n_free = n;
    kt_os_cond_broadcast(l->room_made);
    kt_os_mutex_unlock(l->mutex);
    return KT_OK;
}

static void wait_for_readers(loading *l, int number) {
    double start = kt_os_now_ms();
    kt_os_mutex_lock(l->mutex);
    while (!l->is_read[number] && l->bad > number) kt_os_cond_wait(l->piece_read, l->mutex);
    l->stats->waited_ms += kt_os_now_ms() - start;
    kt_os_mutex_unlock(l->mutex);
}

// Is the chunk there, or known to be bad? Then *status says which.
static bool is_read(loading *l, int number, kt_status *status, kt_err *err) {
    kt_os_mutex_lock(l->mutex);
    bool done = l->is_read[number];
    bool good = l->bad > number;
    if (!good) *err = l->why;
    kt_os_mutex_unlock(l->mutex);
    *status = good ? KT_OK : err->code;
    return done || !good;
}

// The chunk is in its place or slot, or could not be read.
static kt_status await_chunk(loading *l, int number, kt_err *err) {
    if (l->stats->n_readers == 0) {
        while (!has_room(l, number)) KT_TRY(free_slots(l, true, err));
        kt_load_scan *scans = new_scans(l);
        read_chunk(l, number, l->scratch, scans);
        free(scans);
    }
    kt_status status;
    while (!is_read(l, number, &status, err)) {
        if (l->n_free < l->n_sent)
            KT_TRY(free_slots(l, true, err)); // readers may wait for that
        else
            wait_for_readers(l, number);
    }
    return status;
}

static kt_status send_chunk(loading *l, int number, kt_err *err) {
    KT_TRY(await_chunk(l, number, err));
    if (!l->room.slots) return KT_OK;
    const kt_load_chunk *chunk = chunk_of(l, number);
    const kt_load_image *image = image_of(l, number);
    kt_load_piece piece = {
        image->place, image->area, number % l->room.n_slots, chunk->from, chunk->to - chunk->from};
    KT_TRY(l->backend->table->load_send(l->backend, &piece, err));
    l->stats->upload_bytes += piece.bytes;
    l->n_sent = number + 1;
    return free_slots(l, false, err);
}

static kt_status prepare_image(loading *l, const kt_load_image *image, kt_err *err) {
    const kt_backend_table *table = l->backend->table;
    if (image->place != KT_LOAD_AREA) return KT_OK;
    for (int i = image->first_step; i < image->first_step + image->n_steps; i++) {
        const kt_load_step *step = &l->list.steps.at[i];
        for (int n = 0; n < step->prepare->n_calls; n++) {
            kt_load_call call = {step->layout, &step->prepare->calls[n], image->area, step->offset};
            KT_TRY(table->load_prepare(l->backend, &call, err));
        }
    }
    KT_TRY(table->load_leave(l->backend, image->area, err));
    kt_os_mutex_lock(l->mutex);
    l->n_areas_done++;
    kt_os_cond_broadcast(l->room_made);
    kt_os_mutex_unlock(l->mutex);
    return KT_OK;
}

static kt_status load_images(loading *l, kt_err *err) {
    int n = (int)l->list.images.n;
    for (int i = 0; i < n; i++) {
        const kt_load_image *image = &l->list.images.at[i];
        kt_log_progress("loading weights: %d of %d", i + 1, n);
        for (int c = 0; c < image->n_chunks; c++) {
            if (stopped(l)) return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
            KT_TRY(send_chunk(l, image->first_chunk + c, err));
        }
        KT_TRY(prepare_image(l, image, err));
    }
    return KT_OK;
}

// ---- all of it

static int count_readers(int64_t bytes) {
    int most = kt_os_cpu_count() - 1; // the caller has work, too
    if (most > READERS_MOST) most = READERS_MOST;
    int64_t n = bytes / BYTES_A_READER;
    return n < most ? (int)n : most < 1 ? 1 : most;
}

static void start_readers(loading *l) {
    int n = l->stats->n_readers;
    l->stats->n_readers = 0;
    for (int i = 0; i < n; i++) {
        l->readers[i] = kt_os_thread_start(read_chunks, l, STACK_BYTES);
        if (!l->readers[i]) break; // fewer are slower, not wrong
        l->stats->n_readers++;
    }
}

static void end_readers(loading *l) {
    kt_os_mutex_lock(l->mutex);
    l->quit = true;
    kt_os_cond_broadcast(l->room_made);
    kt_os_mutex_unlock(l->mutex);
    for (int i = 0; i < l->stats->n_readers; i++) kt_os_thread_join(l->readers[i]);
}

// By stored tensor: what was found in its segments.
static void sum_up(loading *l) {
    const kt_checkpoint *checkpoint = &l->backend->plan->model->checkpoint;
    size_t n = (size_t)checkpoint->n_stored;
    kt_load_scan *by = KT_NEW_ARRAY(l->list.arena, kt_load_scan, n + 1);
    for (size_t i = 0; i < l->list.segments.n; i++) {
        const kt_load_segment *s = &l->list.segments.at[i];
        if (s->stored && s->f16 && s->stored->dtype != KT_DTYPE_F16)
            add_scan(&by[s->stored - checkpoint->stored], &l->scans[i]);
    }
    const double faint =
        1.0 / (1 << 13); // f16 rounds 2^-12 of a number off, at most 2^-25 of 2^-13
    for (size_t i = 0; i < n; i++) {
        l->stats->n_rounded += by[i].n_small;
        if (by[i].n_small == 0 || by[i].largest >= faint) continue;
        if (l->stats->n_faint++ > 0) continue;
        l->stats->faint = &checkpoint->stored[i];
        l->stats->faint_largest = by[i].largest;
    }
}

static kt_status load_all(loading *l, kt_err *err) {
    const kt_backend_table *table = l->backend->table;
    const kt_plan *plan = l->backend->plan;
    int64_t bytes = kt_load_bytes(plan);
    if (bytes == 0) return KT_OK; // op tests mostly
    l->stats->n_readers = count_readers(bytes);
    KT_TRY(table->load_open(l->backend, bytes, l->stats->n_readers, &l->room, err));
    kt_load_list_make(&l->list, plan, &l->room);
    l->n_chunks = l->stats->n_pieces = (int)l->list.chunks.n;
    l->is_read = KT_NEW_ARRAY(l->list.arena, unsigned char, l->n_chunks + 1);
    l->scans = KT_NEW_ARRAY(l->list.arena, kt_load_scan, l->list.segments.n + 1);
    for (int i = 0; i < plan->model->checkpoint.n_files; i++) {
        kt_os_file *file = plan->model->checkpoint.files[i].file;
        kt_os_will_read(file, 0, kt_os_size(file));
    }
    start_readers(l);
    kt_status status = load_images(l, err);
    end_readers(l);
    if (status != KT_OK) return status;
    sum_up(l);
    return table->load_close(l->backend, &l->stats->times, err);
}

kt_status kt_load_weights(
    kt_backend *backend, const volatile int *stop, kt_load_stats *stats, kt_err *err) {
    kt_arena arena = {0};
    loading l = {.backend = backend, .stop = stop, .stats = stats, .bad = INT_MAX};
    double start = kt_os_now_ms();
    *stats = (kt_load_stats){0};
    l.list.arena = &arena;
    l.scratch = new_scratch();
    l.mutex = kt_os_mutex_create();
    l.room_made = kt_os_cond_create();
    l.piece_read = kt_os_cond_create();
    kt_status status = load_all(&l, err);
    kt_os_cond_free(l.piece_read);
    kt_os_cond_free(l.room_made);
    kt_os_mutex_free(l.mutex);
    free(l.scratch);
    kt_arena_deinit(&arena);
    kt_log_progress(NULL);
    stats->ms = kt_os_now_ms() - start;
    return status;
}

// What the others waited for.
static const char *bound(const kt_load_stats *s) {
    double rest = s->ms - s->times.pin_ms;
    if (s->waited_ms > 0.5 * rest) return "reading";
    if (s->times.upload_ms > 0.8 * rest) return "the upload";
    if (s->times.prepare_ms > 0.8 * rest) return "the prepare kernels";
    return "no single part";
}

void kt_load_stats_print(const kt_load_stats *s, kt_buf *out) {
    double gb = (double)s->bytes / 1e9;
    kt_buf_printf(out, "weights: %.3f GB in %.0f ms", gb, s->ms);
    if (s->ms > 0) kt_buf_printf(out, " (%.1f GB/s)", gb / s->ms * 1e3);
    int n = s->n_readers > 0 ? s->n_readers : 1;
    kt_buf_printf(out, "; read by %d %s, busy %.0f ms each, held up %.0f ms", n,
        n == 1 ? "thread" : "threads", s->read_ms / n, s->held_up_ms / n);
    if (s->times.upload_ms > 0)
        kt_buf_printf(out, "; pinning %.0f ms, upload %.0f ms, repacking %.0f ms", s->times.pin_ms,
            s->times.upload_ms, s->times.prepare_ms);
    kt_buf_printf(out, "; bound by %s", bound(s));
}
