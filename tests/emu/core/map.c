// Memory that kernels may touch: the ranges that the driver maps, narrowed while emu_watch is on.
#include "tests/emu/core/core.h"
#include "tests/emu/core/sanitizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CACHED = 4 }; // spans found last, a power of 2

static emu_memory **memories; // by address
static size_t n_memories, memory_room;
static emu_region *regions; // watched, by address; n_regions 0: no watch
static size_t n_regions;
static emu_region *unordered; // with the launch, by address
static size_t n_unordered;
static emu_span *spans; // by address; made again when either changes
static size_t n_spans, span_room;
static bool is_stale = true;
static const emu_span *cached[CACHED];

static void *need(void *at) {
    if (at != NULL) return at;
    fprintf(stderr, "emu: out of memory\n");
    abort();
}

void *emu_pages_open(size_t bytes) {
    void *at = mmap(
        NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return need(at == MAP_FAILED ? NULL : at);
}

void emu_pages_close(void *pages, size_t bytes) {
    if (pages != NULL) munmap(pages, bytes);
}

// ---- what is mapped

static size_t first_behind(uintptr_t at) { // of the memories
    size_t low = 0, high = n_memories;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (memories[middle]->at > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void emu_map_add(const void *at, size_t bytes, const char *what) {
    if (n_memories == memory_room) {
        memory_room = memory_room * 2 + 64;
        memories = need(realloc(memories, memory_room * sizeof(emu_memory *)));
    }
    emu_memory *memory = need(calloc(1, sizeof *memory));
    memory->at = (uintptr_t)at;
    memory->end = (uintptr_t)at + bytes;
    (void)snprintf(memory->what, sizeof memory->what, "%s", what);
    size_t place = first_behind(memory->at);
    memmove(memories + place + 1, memories + place, (n_memories - place) * sizeof(emu_memory *));
    memories[place] = memory;
    n_memories++;
    is_stale = true;
}

void emu_map_remove(const void *at) {
    size_t place = first_behind((uintptr_t)at);
    if (place == 0 || memories[place - 1]->at != (uintptr_t)at) {
        fprintf(stderr, "emu: emu_map_remove of %p, which was not mapped\n", at);
        abort();
    }
    emu_memory *memory = memories[place - 1];
    emu_race_free(memory);
    emu_undo_free(memory);
    free(memory);
    n_memories--;
    memmove(
        memories + place - 1, memories + place, (n_memories - place + 1) * sizeof(emu_memory *));
    is_stale = true;
}

static int compare_regions(const void *a, const void *b) {
    const emu_region *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

void emu_watch(const emu_region *wanted, size_t n) {
    free(regions);
    regions = NULL;
    n_regions = n;
    is_stale = true;
    if (n == 0) return;
    regions = need(malloc(n * sizeof *regions));
    memcpy(regions, wanted, n * sizeof *regions);
    qsort(regions, n, sizeof *regions, compare_regions);
}

void emu_set_unordered(const emu_region *now, size_t n) {
    if (n == n_unordered && (n == 0 || memcmp(now, unordered, n * sizeof *now) == 0)) return;
    free(unordered);
    unordered = NULL;
    n_unordered = n;
    is_stale = true;
    if (n == 0) return;
    unordered = need(malloc(n * sizeof *unordered));
    memcpy(unordered, now, n * sizeof *unordered);
}

static const emu_region *find_unordered(uintptr_t at, size_t n, bool written) {
    for (size_t i = 0; i < n_unordered; i++) {
        const emu_region *r = &unordered[i];
        if (r->writable == written && r->at < at + n && at < r->at + r->bytes) return r;
    }
    return NULL;
}

bool emu_map_is_read_by_others(uintptr_t at, size_t n) {
    return n_unordered > 0 && find_unordered(at, n, false) != NULL;
}

// ---- what may be touched

static void add_whole(emu_memory *memory, uintptr_t at, uintptr_t end, bool writable) {
    if (at >= end) return;
    if (n_spans == span_room) {
        span_room = span_room * 2 + 64;
        spans = need(realloc(spans, span_room * sizeof *spans));
    }
    spans[n_spans++] = (emu_span){at, end, writable, memory};
}

// Without what others write.
static void add_span(emu_memory *memory, uintptr_t at, uintptr_t end, bool writable) {
    while (at < end) {
        uintptr_t to = end, next = end; // [at, to) is free of them, [to, next) is not
        for (size_t i = 0; i < n_unordered; i++) {
            const emu_region *r = &unordered[i];
            uintptr_t from = r->at > at ? r->at : at, behind = r->at + r->bytes;
            if (!r->writable || behind <= at || from >= to) continue;
            to = from;
            next = behind;
        }
        add_whole(memory, at, to, writable);
        at = next;
    }
}

static void make_spans(void) {
    n_spans = 0;
    size_t r = 0;
    for (size_t i = 0; i < n_memories; i++) {
        emu_memory *m = memories[i];
        if (n_regions == 0) add_span(m, m->at, m->end, true);
        while (r < n_regions && regions[r].at + regions[r].bytes <= m->at) r++;
        for (size_t j = r; j < n_regions && regions[j].at < m->end; j++) {
            uintptr_t at = regions[j].at, end = at + regions[j].bytes;
            add_span(m, at > m->at ? at : m->at, end < m->end ? end : m->end, regions[j].writable);
        }
    }
    for (int i = 0; i < CACHED; i++) cached[i] = NULL;
    is_stale = false;
}

// The last span that begins at or before `at`.
static const emu_span *span_before(uintptr_t at) {
    size_t low = 0, high = n_spans;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (spans[middle].at > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low == 0 ? NULL : &spans[low - 1];
}

const emu_span *emu_map_find(uintptr_t at, size_t n) {
    static unsigned next;
    if (is_stale) make_spans();
    for (int i = 0; i < CACHED; i++) {
        const emu_span *s = cached[i];
        if (s != NULL && at >= s->at && at < s->end && n <= s->end - at) return s;
    }
    const emu_span *s = span_before(at);
    if (s == NULL || at >= s->end || n > s->end - at) return NULL;
    cached[next++ % CACHED] = s;
    return s;
}

void emu_map_explain(uintptr_t at, size_t n, char out[200]) {
    size_t place = first_behind(at + n - 1);
    const emu_memory *m = place == 0 ? NULL : memories[place - 1];
    const emu_span *s = span_before(at + n - 1);
    const emu_region *other = find_unordered(at, n, true);
    if (other != NULL && m != NULL && at >= m->at && at + n <= m->end)
        (void)snprintf(out, 200,
            "at %" PRIuPTR " of '%s', where a copy or fill of another stream writes, and no event "
            "orders the two",
            at - m->at, m->what);
    else if (m == NULL || at >= m->end + 4096)
        (void)snprintf(out, 200, "no memory is there");
    else if (at + n > m->end)
        (void)snprintf(
            out, 200, "%" PRIuPTR " bytes behind the end of '%s'", at + n - m->end, m->what);
    else if (at < m->at)
        (void)snprintf(out, 200, "in front of '%s'", m->what);
    else if (s != NULL && at + n > s->end && at < s->end + 4096)
        (void)snprintf(out, 200,
            "%" PRIuPTR " bytes behind the end of a tensor of %" PRIuPTR " bytes that the op may "
            "touch, at %" PRIuPTR " of '%s'",
            at + n - s->end, s->end - s->at, s->at - m->at, m->what);
    else
        (void)snprintf(
            out, 200, "at %" PRIuPTR " of '%s', which the op may not touch", at - m->at, m->what);
}

emu_memory *emu_map_memory(uintptr_t at) {
    size_t place = first_behind(at);
    return place > 0 && at < memories[place - 1]->end ? memories[place - 1] : NULL;
}

void emu_map_forget_stamps(void) {
    for (size_t i = 0; i < n_memories; i++) {
        emu_race_free(memories[i]);
        emu_undo_free(memories[i]);
    }
}

void emu_map_poison(void) {
    if (emu_asan_poison == NULL || n_regions == 0 || emu.checked) return;
    if (is_stale) make_spans();
    for (size_t i = 0; i < n_memories; i++)
        emu_asan_poison(emu_pointer(memories[i]->at), memories[i]->end - memories[i]->at);
    for (size_t i = 0; i < n_spans; i++)
        emu_asan_unpoison(emu_pointer(spans[i].at), spans[i].end - spans[i].at);
}

void emu_map_unpoison(void) {
    if (emu_asan_unpoison == NULL || n_regions == 0 || emu.checked) return;
    for (size_t i = 0; i < n_memories; i++)
        emu_asan_unpoison(emu_pointer(memories[i]->at), memories[i]->end - memories[i]->at);
}
