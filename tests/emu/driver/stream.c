// Streams and events, and the device thread that does what is in the streams.
//
// Each stream has a lane: a queue, numbers of what was submitted and what is done. Work carries a
// clock: for each lane the number up to which everything comes before it (its own stream, events
// that the stream waited for, stream 0, what the host has seen done). It may begin when all of that
// is done; work that does not lie before it may be done at any moment, which is what the checks in
// `compare` are about.
#include "tests/emu/driver/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    HISTORY = 256,            // works of a lane that new work of other lanes is compared with
    QUIET_NS = 300000,        // the host has been quiet for so long: work goes on by itself
    AFTER_GRAPH_NS = 1000000, // the host gets so long to submit more when a graph has ended
    MAX_SPARE = 3,
};

typedef struct past {
    uint64_t seq;
    drv_clock clock;
    drv_access *accesses;
    int n;
    char name[96];
} past;

typedef struct lane {
    bool taken; // by a stream
    bool blocking;
    drv_context *context;
    drv_work *first, *last;
    uint64_t issued, done;
    drv_clock clock; // after the last work
    past history[HISTORY];
    unsigned n_history;
} lane;

typedef struct waiter {
    struct waiter *next;
    const drv_clock *clock; // NULL: credits
    int credits;            // pieces of work that it still waits for
    bool frugal;            // nothing but what is needed
    bool satisfied;
} waiter;

static lane lanes[DRV_MAX_STREAMS];
static waiter *waiters;
static uint64_t n_pending;
static bool running, quit, started;
static uint64_t graph_ended_ns;
static pthread_t thread;
static pthread_cond_t wake_device, wake_host = PTHREAD_COND_INITIALIZER;

void drv_device_wake(void) {
    if (started) (void)pthread_cond_signal(&wake_device);
}

void drv_clock_join(drv_clock *to, const drv_clock *from) {
    for (int i = 0; i < DRV_MAX_STREAMS; i++)
        if (to->at[i] < from->at[i]) to->at[i] = from->at[i];
}

bool drv_is_done(const drv_clock *clock) {
    for (int i = 0; i < DRV_MAX_STREAMS; i++)
        if (lanes[i].done < clock->at[i]) return false;
    return true;
}

bool drv_done_at(int index, uint64_t seq) {
    return lanes[index].done >= seq;
}

const drv_clock *drv_lane_clock(int index) {
    return &lanes[index].clock;
}

// ---- streams

drv_stream *drv_stream_open(drv_context *context, bool blocking) {
    int free_lane = 0;
    while (free_lane < DRV_MAX_STREAMS && (lanes[free_lane].taken || lanes[free_lane].first))
        free_lane++;
    if (free_lane == DRV_MAX_STREAMS) {
        drv_violation("the stand-in has no more than %d streams", DRV_MAX_STREAMS);
        return NULL;
    }
    lane *l = &lanes[free_lane];
    l->taken = true;
    l->blocking = blocking;
    l->context = context;
    memset(&l->clock, 0, sizeof l->clock);
    l->clock.at[free_lane] = l->issued;
    drv_stream *stream = drv_new(sizeof *stream);
    *stream = (drv_stream){NULL, context, free_lane, blocking};
    stream->handle = drv_handle_open(DRV_STREAM, stream);
    return stream;
}

// What is in it is still done.
void drv_stream_close(drv_stream *stream) {
    lanes[stream->lane].taken = false;
    if (stream->context->legacy == stream) stream->context->legacy = NULL;
    drv_handle_close(DRV_STREAM, stream->handle);
    free(stream);
}

drv_stream *drv_stream_find(kt_cu_stream handle) {
    if (handle != NULL) return drv_handle_find(DRV_STREAM, handle);
    if (drv_current_context->legacy == NULL)
        drv_current_context->legacy = drv_stream_open(drv_current_context, true);
    return drv_current_context->legacy;
}

static kt_cu_result open_stream(kt_cu_stream *out, unsigned flags) {
    if (flags > 1) {
        drv_violation("flags %u", flags);
        return DRV_INVALID_VALUE;
    }
    drv_stream *stream = drv_stream_open(drv_current_context, flags == 0);
    if (stream == NULL) return KT_CU_OUT_OF_MEMORY;
    *out = stream->handle;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuStreamCreate(kt_cu_stream *out, unsigned flags) {
    DRV_DO(cuStreamCreate, DRV_CURRENT, open_stream(out, flags));
}

static kt_cu_result close_stream(kt_cu_stream handle) {
    drv_stream *stream = drv_handle_find(DRV_STREAM, handle);
    if (stream == NULL) return DRV_INVALID_HANDLE;
    drv_stream_close(stream);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuStreamDestroy(kt_cu_stream stream) {
    DRV_DO(cuStreamDestroy, DRV_RELEASES, close_stream(stream));
}

// ---- submitting

drv_work *drv_work_new(drv_work_kind kind, const char *name) {
    drv_work *work = drv_new(sizeof *work);
    work->kind = kind;
    work->piece.kind = kind;
    (void)snprintf(work->name, sizeof work->name, "%s", name);
    return work;
}

static void free_work(drv_work *work) {
    if (work->kind != DRV_WORK_GRAPH && work->kind != DRV_WORK_RECORD) drv_piece_free(&work->piece);
    if (work->run != NULL) drv_graph_run_free(work->run);
    free(work->accesses);
    free(work);
}

// With the work of other lanes that has no place before it.
static void compare(const drv_work *work) {
    for (int i = 0; i < DRV_MAX_STREAMS; i++) {
        if (i == work->lane) continue;
        for (unsigned k = 0; k < lanes[i].n_history && k < HISTORY; k++) {
            const past *p = &lanes[i].history[k];
            if (p->seq <= work->clock.at[i]) continue;
            const drv_access *at = drv_clash(p->accesses, p->n, work->accesses, work->n_accesses);
            if (at == NULL) continue;
            char what[128];
            drv_memory_tell(at->at, what, sizeof what);
            drv_violation("'%s' and '%s' of another stream touch the same memory (%s), and no "
                          "event orders them",
                work->name, p->name, what);
            return;
        }
    }
}

static void remember(const drv_work *work) {
    if (work->n_accesses == 0) return;
    lane *l = &lanes[work->lane];
    past *p = &l->history[l->n_history++ % HISTORY];
    free(p->accesses);
    *p = (past){.seq = work->seq, .clock = work->clock, .n = work->n_accesses};
    p->accesses = drv_new((size_t)p->n * sizeof *p->accesses);
    memcpy(p->accesses, work->accesses, (size_t)p->n * sizeof *p->accesses);
    memcpy(p->name, work->name, sizeof p->name);
}

// Stream 0 comes after all blocking streams of its context and before what they get later.
static void join_legacy(const drv_stream *stream, drv_clock *clock) {
    const drv_stream *legacy = stream->context->legacy;
    if (!stream->blocking || legacy == NULL) return;
    for (int i = 0; i < DRV_MAX_STREAMS; i++)
        if (lanes[i].taken && lanes[i].blocking && lanes[i].context == stream->context &&
            (stream == legacy || i == legacy->lane))
            drv_clock_join(clock, &lanes[i].clock);
}

void drv_submit(drv_stream *stream, drv_work *work) {
    lane *l = &lanes[stream->lane];
    work->lane = stream->lane;
    work->seq = ++l->issued;
    join_legacy(stream, &l->clock);
    drv_clock_join(&l->clock, &drv.host);
    l->clock.at[stream->lane] = work->seq;
    work->clock = l->clock;
    if (l->last != NULL)
        l->last->next = work;
    else
        l->first = work;
    l->last = work;
    compare(work);
    remember(work);
    if (n_pending++ == 0) drv_device_wake(); // else it looks by itself before long
}

void drv_stream_join(drv_stream *stream, const drv_clock *clock) {
    drv_clock_join(&lanes[stream->lane].clock, clock);
}

void drv_each_pending(void (*visit)(const drv_work *work, void *ctx), void *ctx) {
    for (int i = 0; i < DRV_MAX_STREAMS; i++)
        for (const drv_work *w = lanes[i].first; w != NULL; w = w->next) visit(w, ctx);
}

// ---- waiting, on the host's threads

static void wait_as(const waiter *how) {
    waiter *w = drv_new(sizeof *w);
    *w = *how;
    w->next = waiters;
    waiters = w;
    drv_device_wake();
    while (!w->satisfied) (void)pthread_cond_wait(&wake_host, &drv.lock);
    free(w);
}

kt_cu_result drv_wait_for(const drv_clock *clock) {
    if (!drv_is_done(clock)) {
        waiter w = {.clock = clock, .frugal = drv_random() % 2 == 0};
        wait_as(&w);
    }
    drv_clock_join(&drv.host, clock);
    return drv.sticky;
}

kt_cu_result drv_wait_for_all(void) {
    drv_clock all = {{0}};
    for (int i = 0; i < DRV_MAX_STREAMS; i++) all.at[i] = lanes[i].issued;
    return drv_wait_for(&all);
}

void drv_work_a_little(void) {
    waiter w = {.credits = (int)(drv_random() % 3)};
    if (w.credits > 0 && n_pending > 0) wait_as(&w);
}

void drv_rest(void) {
    while (running) (void)pthread_cond_wait(&wake_host, &drv.lock);
}

// A copy, because work may be submitted while it is waited for.
static kt_cu_result synchronize(kt_cu_stream handle) {
    drv_stream *stream = drv_stream_find(handle);
    if (stream == NULL) return DRV_INVALID_HANDLE;
    drv_clock clock = lanes[stream->lane].clock;
    join_legacy(stream, &clock);
    return drv_wait_for(&clock);
}

kt_cu_result drv_api_cuStreamSynchronize(kt_cu_stream stream) {
    DRV_DO(cuStreamSynchronize, DRV_CURRENT, synchronize(stream));
}

static kt_cu_result ask(const drv_clock *clock) {
    if (!drv_is_done(clock)) drv_work_a_little();
    if (drv.sticky != KT_CU_SUCCESS) return drv.sticky;
    if (!drv_is_done(clock)) return KT_CU_NOT_READY;
    drv_clock_join(&drv.host, clock);
    return KT_CU_SUCCESS;
}

static kt_cu_result query(kt_cu_stream handle) {
    drv_stream *stream = drv_stream_find(handle);
    if (stream == NULL) return DRV_INVALID_HANDLE;
    drv_clock clock = lanes[stream->lane].clock;
    join_legacy(stream, &clock);
    return ask(&clock);
}

kt_cu_result drv_api_cuStreamQuery(kt_cu_stream stream) {
    DRV_DO(cuStreamQuery, DRV_CURRENT | DRV_ASKS, query(stream));
}

// ---- events

static kt_cu_result open_event(kt_cu_event *out, unsigned flags) {
    enum { BLOCKING = 1, NO_TIMING = 2 };
    if (flags > (BLOCKING | NO_TIMING)) {
        drv_violation("flags %u", flags);
        return DRV_INVALID_VALUE;
    }
    drv_event *event = drv_new(sizeof *event);
    event->context = drv_current_context;
    event->timed = (flags & NO_TIMING) == 0;
    *out = event->handle = drv_handle_open(DRV_EVENT, event);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuEventCreate(kt_cu_event *out, unsigned flags) {
    DRV_DO(cuEventCreate, DRV_CURRENT, open_event(out, flags));
}

static kt_cu_result close_event(kt_cu_event handle) {
    drv_event *event = drv_handle_find(DRV_EVENT, handle);
    if (event == NULL) return DRV_INVALID_HANDLE;
    drv_handle_close(DRV_EVENT, handle);
    free(event);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuEventDestroy(kt_cu_event event) {
    DRV_DO(cuEventDestroy, DRV_RELEASES, close_event(event));
}

static kt_cu_result record(kt_cu_event handle, kt_cu_stream to) {
    drv_event *event = drv_handle_find(DRV_EVENT, handle);
    drv_stream *stream = drv_stream_find(to);
    if (event == NULL || stream == NULL) return DRV_INVALID_HANDLE;
    if (event->context != stream->context) { // to wait for one of another context is fine
        drv_violation("the event and the stream are of different contexts");
        return DRV_INVALID_HANDLE;
    }
    drv_work *work = drv_work_new(DRV_WORK_RECORD, "an event");
    work->event = handle;
    drv_submit(stream, work);
    event->recorded = true;
    event->lane = work->lane;
    event->seq = work->seq;
    event->clock = work->clock;
    event->done_ns = 0;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuEventRecord(kt_cu_event event, kt_cu_stream stream) {
    DRV_DO(cuEventRecord, DRV_CURRENT, record(event, stream));
}

// An event that was never recorded holds nobody up.
static kt_cu_result stream_after(kt_cu_stream handle, kt_cu_event after, unsigned flags) {
    drv_stream *stream = drv_stream_find(handle);
    const drv_event *event = drv_handle_find(DRV_EVENT, after);
    if (event == NULL || stream == NULL) return DRV_INVALID_HANDLE;
    if (flags != 0) {
        drv_violation("flags %u", flags);
        return DRV_INVALID_VALUE;
    }
    if (event->recorded) drv_stream_join(stream, &event->clock);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuStreamWaitEvent(kt_cu_stream stream, kt_cu_event event, unsigned flags) {
    DRV_DO(cuStreamWaitEvent, DRV_CURRENT, stream_after(stream, event, flags));
}

static kt_cu_result query_event(kt_cu_event handle) {
    const drv_event *event = drv_handle_find(DRV_EVENT, handle);
    if (event == NULL) return DRV_INVALID_HANDLE;
    drv_clock clock = event->clock;
    return ask(&clock);
}

kt_cu_result drv_api_cuEventQuery(kt_cu_event event) {
    DRV_DO(cuEventQuery, DRV_CURRENT | DRV_ASKS, query_event(event));
}

static kt_cu_result await_event(kt_cu_event handle) {
    const drv_event *event = drv_handle_find(DRV_EVENT, handle);
    if (event == NULL) return DRV_INVALID_HANDLE;
    drv_clock clock = event->clock;
    return drv_wait_for(&clock);
}

kt_cu_result drv_api_cuEventSynchronize(kt_cu_event event) {
    DRV_DO(cuEventSynchronize, DRV_CURRENT, await_event(event));
}

static kt_cu_result elapsed(float *ms, kt_cu_event first, kt_cu_event second) {
    const drv_event *from = drv_handle_find(DRV_EVENT, first);
    const drv_event *to = drv_handle_find(DRV_EVENT, second);
    if (from == NULL || to == NULL) return DRV_INVALID_HANDLE;
    if (!from->timed || !to->timed || !from->recorded || !to->recorded) {
        drv_violation("an event that is not timed, or was never recorded");
        return DRV_INVALID_HANDLE;
    }
    if (from->done_ns == 0 || to->done_ns == 0) return KT_CU_NOT_READY;
    *ms = (float)(((double)to->done_ns - (double)from->done_ns) * 1e-6);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuEventElapsedTime(float *ms, kt_cu_event from, kt_cu_event to) {
    DRV_DO(cuEventElapsedTime, DRV_CURRENT, elapsed(ms, from, to));
}

// ---- the device thread

// The first work of a lane, when everything before it is done.
static bool is_ready(int index) {
    const drv_work *work = lanes[index].first;
    if (work == NULL) return false;
    for (int i = 0; i < DRV_MAX_STREAMS; i++)
        if (i != index && lanes[i].done < work->clock.at[i]) return false;
    return true;
}

static bool is_needed(int index) {
    for (const waiter *w = waiters; w != NULL; w = w->next)
        if (w->clock == NULL || !w->frugal || lanes[index].first->seq <= w->clock->at[index])
            return true;
    return waiters == NULL;
}

static drv_work *choose(void) {
    int ready[DRV_MAX_STREAMS], n = 0;
    for (int i = 0; i < DRV_MAX_STREAMS; i++)
        if (is_ready(i) && is_needed(i)) ready[n++] = i;
    if (n == 0) abort(); // work waits for earlier work only
    return lanes[ready[drv_random() % (uint64_t)n]].first;
}

static void retire(drv_work *work) {
    lane *l = &lanes[work->lane];
    l->first = work->next;
    if (l->first == NULL) l->last = NULL;
    l->done = work->seq;
    n_pending--;
    free_work(work);
}

static void drop_all(void) {
    for (int i = 0; i < DRV_MAX_STREAMS; i++)
        while (lanes[i].first != NULL) retire(lanes[i].first);
}

void drv_drop_all(void) {
    drv_rest();
    drop_all();
}

static void mark_event(const drv_work *work) {
    drv_event *event = drv_handle_peek(DRV_EVENT, work->event);
    if (event != NULL && event->lane == work->lane && event->seq == work->seq)
        event->done_ns = drv_now_ns();
}

static void add_region(const drv_access *access, emu_region **regions, size_t *n, size_t *room) {
    if (*n == *room) {
        *room = *room * 2 + 64;
        *regions = realloc(*regions, *room * sizeof **regions);
        if (*regions == NULL) abort();
    }
    (*regions)[(*n)++] = (emu_region){access->at, access->bytes, access->writes};
}

// Tells the emulator what copies and fills touch that may be done at any moment: those of other
// lanes, and of the same graph.
static void set_unordered(const drv_work *work, int node, const drv_piece *piece) {
    static emu_region *regions;
    static size_t room;
    drv_access beside[DRV_MOST_UNORDERED];
    size_t n = 0, n_beside = drv_order_look(work, node, piece, beside);
    for (size_t i = 0; i < n_beside; i++) add_region(&beside[i], &regions, &n, &room);
    for (int i = 0; i < DRV_MAX_STREAMS; i++)
        for (unsigned k = 0; i != work->lane && k < lanes[i].n_history && k < HISTORY; k++) {
            const past *p = &lanes[i].history[k];
            if (p->seq <= work->clock.at[i] || p->clock.at[work->lane] >= work->seq) continue;
            for (int a = 0; a < p->n; a++) add_region(&p->accesses[a], &regions, &n, &room);
        }
    emu_set_unordered(regions, n);
}

// Gives up the lock meanwhile. NULL: done; else what is wrong.
static const char *run_piece(
    const drv_work *work, int node, const drv_piece *piece, kt_cu_result *code) {
    drv_memory_show();
    set_unordered(work, node, piece);
    running = true;
    (void)pthread_mutex_unlock(&drv.lock);
    const char *why = drv_piece_run(piece, code);
    (void)pthread_mutex_lock(&drv.lock);
    running = false;
    drv_order_ran(work, node, piece);
    (void)pthread_cond_broadcast(&wake_host);
    return why;
}

// One piece.
static void carry_out(drv_work *work) {
    bool ended = true;
    const char *why = NULL;
    kt_cu_result code = DRV_LAUNCH_FAILED;
    if (work->kind == DRV_WORK_RECORD) {
        mark_event(work);
    } else if (work->kind == DRV_WORK_GRAPH) {
        int node = drv_graph_pick(work->run, drv_random()); // -1: of an empty graph
        if (node >= 0) {
            why = run_piece(work, node, drv_graph_piece(work->run, node), &code);
            ended = drv_graph_done(work->run, node);
        }
        if (ended) graph_ended_ns = drv_now_ns();
    } else {
        why = run_piece(work, -1, &work->piece, &code);
    }
    if (why != NULL) {
        drv_get_lost(code, why);
        drop_all();
    } else if (ended) {
        retire(work);
    }
}

// Has it what it waits for? Now and then a little more is done before it hears of that.
static bool has_enough(waiter *w) {
    if (n_pending == 0) return true;
    if (w->clock == NULL) return w->credits <= 0;
    if (!drv_is_done(w->clock)) return false;
    if (drv_random() % 4 == 0) w->credits = (int)(drv_random() % (MAX_SPARE + 1));
    w->clock = NULL;
    return w->credits <= 0;
}

static void satisfy(bool piece_done) {
    bool any = false;
    for (waiter **link = &waiters; *link != NULL;) {
        waiter *w = *link;
        if (piece_done && w->clock == NULL) w->credits--;
        w->satisfied = has_enough(w);
        any = any || w->satisfied;
        if (w->satisfied)
            *link = w->next;
        else
            link = &w->next;
    }
    if (any) (void)pthread_cond_broadcast(&wake_host);
}

// When work goes on although nobody waits for it.
static uint64_t idle_until(void) {
    uint64_t quiet = drv.last_call_ns + QUIET_NS, graph = graph_ended_ns + AFTER_GRAPH_NS;
    return quiet > graph ? quiet : graph;
}

// true: work on.
static bool wait_for_work(void) {
    if (waiters != NULL) return true;
    uint64_t until = idle_until();
    if (n_pending > 0 && !drv.quiet_host && drv_now_ns() >= until) return true;
    drv_memory_hide();
    if (n_pending == 0 || drv.quiet_host) {
        (void)pthread_cond_wait(&wake_device, &drv.lock);
    } else {
        const struct timespec at = {(time_t)(until / 1000000000U), (long)(until % 1000000000U)};
        (void)pthread_cond_timedwait(&wake_device, &drv.lock, &at);
    }
    return false;
}

static void *work_on(void *ctx) {
    (void)ctx;
    (void)pthread_mutex_lock(&drv.lock);
    drv_call_name = "the device";
    while (!quit) {
        satisfy(false);
        if (!wait_for_work() || n_pending == 0) continue;
        carry_out(choose());
        satisfy(true);
    }
    (void)pthread_mutex_unlock(&drv.lock);
    return NULL;
}

void drv_device_start(void) {
    if (started) return;
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&wake_device, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    started = pthread_create(&thread, NULL, work_on, NULL) == 0;
    if (!started) abort();
}

// At the end of the process: what is under way is finished, the rest is not begun.
void drv_device_stop(void) {
    (void)pthread_mutex_lock(&drv.lock);
    quit = true;
    bool join = started;
    drv_device_wake();
    (void)pthread_mutex_unlock(&drv.lock);
    if (join) (void)pthread_join(thread, NULL);
}
