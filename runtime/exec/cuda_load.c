// Loading on the CUDA back end: pieces go from pinned slots over the copy stream to staging areas,
// which lie in the activations' block; prepare kernels follow on the compute stream. Events order
// the two; the host waits for slots only.
#include "runtime/exec/cuda_parts.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    SLOT_MOST = 2 << 20, // measured: less costs calls, more falls out of the processor's cache
    SLOT_LEAST = 64 << 10,
    SLOTS_A_READER = 2,
    SLOTS_LEAST = 4,
    AREA_MOST = 64 << 20,
    PAGE = 4096,
    TOUCHERS_MOST = 8,
    BYTES_A_TOUCHER = 32 << 20,
};

typedef struct moving {
    kt_cu_event begun, sent;
} moving;

// Prepare calls of one image, between two events.
typedef struct span {
    kt_cu_event begun, left;
} span;

struct kt_cuda_loading {
    kt_gpu_pinned ring;
    char *unpinned; // in its place where the system does not pin
    moving *slots;
    int n_slots;
    int64_t slot_bytes, area_bytes;
    kt_cu_event arrived;     // pieces of the image that is sent
    bool on_their_way;       // pieces were sent that no prepare call waited for yet
    int last[KT_LOAD_AREAS]; // span that used the area last, -1
    bool open;               // the last span is
    KT_VEC(span) spans;
    double pin_ms, upload_ms;
};

// ---- weights in host memory

typedef struct touching {
    char *at;
    size_t bytes;
    kt_os_thread *thread;
} touching;

struct kt_cuda_host {
    void *pages;
    touching parts[TOUCHERS_MOST];
    int n;
};

static void touch(void *ctx) {
    const touching *t = ctx;
    for (size_t i = 0; i < t->bytes; i += PAGE) ((volatile char *)t->at)[i] = 0;
}

void kt_cuda_host_begin(kt_cuda *c) {
    size_t bytes = (size_t)c->base.plan->bytes.host_weights;
    if (bytes < BYTES_A_TOUCHER) return;
    kt_cuda_host *h = KT_NEW(c->arena, kt_cuda_host);
    h->pages = kt_os_pages(bytes);
    if (!h->pages) return;
    size_t most = bytes / BYTES_A_TOUCHER;
    int cpus = kt_os_cpu_count();
    h->n = cpus < TOUCHERS_MOST ? cpus : TOUCHERS_MOST;
    if ((size_t)h->n > most) h->n = (int)most;
    size_t share = bytes / (size_t)h->n / PAGE * PAGE;
    for (int i = 0; i < h->n; i++) {
        touching *t = &h->parts[i];
        t->at = (char *)h->pages + share * (size_t)i;
        t->bytes = i + 1 < h->n ? share : bytes - share * (size_t)i;
        t->thread = kt_os_thread_start(touch, t, 64 << 10); // NULL: touched when pinned
    }
    c->host = h;
}

// The pages, all touched; NULL: there are none.
static void *end_touching(kt_cuda *c) {
    if (!c->host) return NULL;
    for (int i = 0; i < c->host->n; i++)
        if (c->host->parts[i].thread) kt_os_thread_join(c->host->parts[i].thread);
    void *pages = c->host->pages;
    c->host = NULL;
    return pages;
}

static kt_status keep_on_device(kt_cuda *c, int64_t bytes, kt_err *err) {
    int64_t most = c->base.plan->target.memory_bytes;
    if (most > 0 && kt_plan_target_bytes(c->base.plan) + bytes > most) return err->code;
    kt_err full;
    if (kt_gpu_alloc(c->gpu, "weights meant for host memory", KT_GPU_USE_WEIGHTS, (size_t)bytes,
            &c->kept, &full) != KT_OK)
        return err->code;
    kt_log_warn("the system does not pin %.2f GB of main memory: embedding rows go to GPU memory",
        (double)bytes / 1e9);
    c->host_weights.device = c->kept.at;
    return KT_OK;
}

kt_status kt_cuda_host_end(kt_cuda *c, kt_err *err) {
    int64_t bytes = c->base.plan->bytes.host_weights;
    const char *name = "weights in host memory";
    void *pages = end_touching(c);
    if (bytes == 0) return KT_OK;
    if (pages) {
        if (kt_gpu_pin_pages(c->gpu, name, pages, (size_t)bytes, &c->host_weights, err) == KT_OK)
            return KT_OK;
        kt_os_pages_free(pages, (size_t)bytes);
    }
    kt_status status = kt_gpu_pin(c->gpu, name, (size_t)bytes, &c->host_weights, err);
    return status == KT_EMEMORY ? keep_on_device(c, bytes, err) : status;
}

void kt_cuda_host_close(kt_cuda *c) {
    kt_os_pages_free(end_touching(c), (size_t)c->base.plan->bytes.host_weights);
    kt_gpu_unpin(c->gpu, &c->host_weights);
    kt_gpu_free(c->gpu, &c->kept);
}

// ---- opening

// A ring for so many readers; a smaller one, or memory that the driver copies itself, if the
// system does not pin as much.
static kt_status open_ring(kt_cuda *c, int64_t bytes, int n_readers, kt_err *err) {
    kt_cuda_loading *l = c->loading;
    l->slot_bytes = SLOT_MOST;
    l->n_slots = SLOTS_A_READER * n_readers;
    if (l->n_slots < SLOTS_LEAST) l->n_slots = SLOTS_LEAST;
    while (l->slot_bytes > SLOT_LEAST && l->slot_bytes * l->n_slots > bytes) l->slot_bytes /= 2;
    kt_status status = KT_EMEMORY;
    for (int tries = 0; status == KT_EMEMORY && tries < 4; tries++) {
        if (tries > 0 && l->n_slots > SLOTS_LEAST) l->n_slots = SLOTS_LEAST;
        if (tries > 1) l->slot_bytes = l->slot_bytes > SLOT_LEAST ? l->slot_bytes / 4 : SLOT_LEAST;
        status =
            kt_gpu_pin(c->gpu, "upload ring", (size_t)(l->slot_bytes * l->n_slots), &l->ring, err);
    }
    if (status != KT_EMEMORY) return status;
    kt_log_debug("%s; weights are read into memory that is not pinned", err->text);
    l->unpinned = malloc((size_t)(l->slot_bytes * l->n_slots));
    if (!l->unpinned) kt_out_of_memory((size_t)(l->slot_bytes * l->n_slots));
    return KT_OK;
}

static kt_status open_events(kt_cuda *c, kt_err *err) {
    kt_cuda_loading *l = c->loading;
    l->slots = KT_NEW_ARRAY(c->arena, moving, l->n_slots);
    for (int i = 0; i < l->n_slots; i++) {
        KT_TRY(kt_gpu_event_open(c->gpu, true, &l->slots[i].begun, err));
        KT_TRY(kt_gpu_event_open(c->gpu, true, &l->slots[i].sent, err));
    }
    for (int i = 0; i < KT_LOAD_AREAS; i++) l->last[i] = -1;
    KT_TRY(kt_gpu_event_open(c->gpu, false, &l->arrived, err));
    // What fills fresh blocks (poison) runs on the compute stream: uploads come after it.
    KT_TRY(kt_gpu_event_record(c->gpu, l->arrived, c->gpu->compute, err));
    return kt_gpu_stream_after(c->gpu, c->gpu->copy, l->arrived, err);
}

kt_status kt_cuda_load_open(
    kt_backend *backend, int64_t bytes, int n_readers, kt_load_room *room, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    double start = kt_os_now_ms();
    c->loading = KT_NEW(c->arena, kt_cuda_loading);
    kt_cuda_loading *l = c->loading;
    KT_TRY(open_ring(c, bytes, n_readers, err));
    KT_TRY(open_events(c, err));
    kt_load_areas(backend->plan, AREA_MOST, room);
    l->area_bytes = room->area_bytes;
    room->slots = l->unpinned ? l->unpinned : l->ring.at;
    room->n_slots = l->n_slots;
    room->slot_bytes = l->slot_bytes;
    l->pin_ms = kt_os_now_ms() - start;
    return KT_OK;
}

// ---- pieces and calls

static kt_dptr area_at(const kt_cuda *c, int area) {
    return c->act.at + (uint64_t)(area * c->loading->area_bytes);
}

kt_status kt_cuda_load_send(kt_backend *backend, const kt_load_piece *piece, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    kt_cuda_loading *l = c->loading;
    const moving *s = &l->slots[piece->slot];
    kt_dptr to = c->weights.at;
    if (piece->place == KT_LOAD_AREA) {
        to = area_at(c, piece->area);
        int last = l->last[piece->area];
        if (last >= 0) // its kernels read the area first
            KT_TRY(kt_gpu_stream_after(c->gpu, c->gpu->copy, l->spans.at[last].left, err));
        l->last[piece->area] = -1;
    }
    char *ring = l->unpinned ? l->unpinned : l->ring.at;
    KT_TRY(kt_gpu_event_record(c->gpu, s->begun, c->gpu->copy, err));
    KT_TRY(kt_gpu_upload(c->gpu, c->gpu->copy, to + (uint64_t)piece->offset,
        ring + piece->slot * l->slot_bytes, (size_t)piece->bytes, err));
    l->on_their_way = true;
    return kt_gpu_event_record(c->gpu, s->sent, c->gpu->copy, err);
}

kt_status kt_cuda_load_sent(kt_backend *backend, int slot, bool wait, bool *done, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    kt_cuda_loading *l = c->loading;
    double ms = 0;
    *done = true;
    if (wait)
        KT_TRY(kt_gpu_event_wait(c->gpu, l->slots[slot].sent, err));
    else
        KT_TRY(kt_gpu_event_done(c->gpu, l->slots[slot].sent, done, err));
    if (!*done) return KT_OK;
    KT_TRY(kt_gpu_event_ms(c->gpu, l->slots[slot].begun, l->slots[slot].sent, &ms, err));
    l->upload_ms += ms;
    return KT_OK;
}

static kt_status begin_span(kt_cuda *c, kt_err *err) {
    kt_cuda_loading *l = c->loading;
    span s = {0};
    KT_TRY(kt_gpu_event_open(c->gpu, true, &s.begun, err));
    KT_PUSH(c->arena, &l->spans, s);
    KT_TRY(kt_gpu_event_open(c->gpu, true, &l->spans.at[l->spans.n - 1].left, err));
    l->open = true;
    return kt_gpu_event_record(c->gpu, s.begun, c->gpu->compute, err);
}

kt_status kt_cuda_load_prepare(kt_backend *backend, const kt_load_call *call, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    kt_cuda_loading *l = c->loading;
    kt_cuda_sink to = {c->gpu->compute, NULL};
    if (l->on_their_way) {
        KT_TRY(kt_gpu_event_record(c->gpu, l->arrived, c->gpu->copy, err));
        KT_TRY(kt_gpu_stream_after(c->gpu, c->gpu->compute, l->arrived, err));
        l->on_their_way = false;
    }
    if (!l->open) KT_TRY(begin_span(c, err));
    c->staging = area_at(c, call->area) + (uint64_t)call->offset;
    return kt_cuda_emit_call(c, &to, call->call, NULL, 0, call->layout, err);
}

kt_status kt_cuda_load_leave(kt_backend *backend, int area, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    kt_cuda_loading *l = c->loading;
    if (!l->open) return KT_OK;
    l->open = false;
    l->last[area] = (int)l->spans.n - 1;
    return kt_gpu_event_record(c->gpu, l->spans.at[l->spans.n - 1].left, c->gpu->compute, err);
}

// ---- closing

kt_status kt_cuda_load_close(kt_backend *backend, kt_load_times *times, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    kt_cuda_loading *l = c->loading;
    KT_TRY(kt_gpu_wait(c->gpu, c->gpu->copy, err));
    KT_TRY(kt_gpu_wait(c->gpu, c->gpu->compute, err));
    *times = (kt_load_times){.pin_ms = l->pin_ms, .upload_ms = l->upload_ms};
    for (size_t i = 0; i < l->spans.n; i++) {
        double ms = 0;
        KT_TRY(kt_gpu_event_ms(c->gpu, l->spans.at[i].begun, l->spans.at[i].left, &ms, err));
        times->prepare_ms += ms;
    }
    kt_cuda_load_end(c);
    if (!c->gpu->options.poison || c->act.at == 0) return KT_OK;
    KT_TRY(kt_gpu_fill(c->gpu, c->gpu->compute, c->act.at, 0xff, c->act.size_bytes, err));
    return kt_gpu_wait(c->gpu, c->gpu->compute, err); // uploads lie there, and come another way
}

void kt_cuda_load_end(kt_cuda *c) {
    kt_cuda_loading *l = c->loading;
    if (!l) return;
    kt_err late; // after a failure: nothing may read the ring any more
    if (kt_gpu_wait(c->gpu, c->gpu->copy, &late) != KT_OK ||
        kt_gpu_wait(c->gpu, c->gpu->compute, &late) != KT_OK)
        kt_log_debug("%s", late.text);
    for (int i = 0; l->slots && i < l->n_slots; i++) {
        kt_gpu_event_close(c->gpu, l->slots[i].begun);
        kt_gpu_event_close(c->gpu, l->slots[i].sent);
    }
    for (size_t i = 0; i < l->spans.n; i++) {
        kt_gpu_event_close(c->gpu, l->spans.at[i].begun);
        kt_gpu_event_close(c->gpu, l->spans.at[i].left);
    }
    kt_gpu_event_close(c->gpu, l->arrived);
    kt_gpu_unpin(c->gpu, &l->ring);
    free(l->unpinned);
    c->loading = NULL;
}
