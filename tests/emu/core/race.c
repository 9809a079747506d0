// Who touched what, and what orders it: races, in shared and in global memory, and reads of shared
// memory that nobody wrote.
//
// A stamp says when a thread did something:
//
//   bits 34 .. 63  epoch: counts blocks and their barriers, over all launches
//   bits 14 .. 33  sub: counts, in an epoch, what else orders a thread (emu_sync_warp, kt_fence)
//   bits  4 .. 13  the thread's index in its block
//   bits  0 ..  3  how many threads, flags
//
// For each 4 bytes a cell keeps the stamp of the last write and of the last reads (for each byte,
// from the first access on that is no multiple of 4 bytes). Two accesses, one of them a write, are
// ordered if they are the same thread's, or a barrier of their block lies between, or an
// emu_sync_warp of their warp. Other collectives order no memory. Accesses of two blocks are
// ordered by a hand-over only:
//
//   the first block: accesses, kt_fence by the same thread (or barrier, kt_fence by another), then
//   kt_atomic_add by the fence's thread or after a barrier;
//   the second: kt_atomic_add of the same number, then kt_fence by the thread (or a barrier, and
//   kt_fence by this or by the adding thread), then accesses. It reads what others wrote by
//   kt_load_shared_by_blocks.
//
// Additions do not race with each other. Copies that are under way collide with everything. Blocks
// run one after another, so of two accesses the later one finds the earlier one's stamp, whatever
// the order would be on a GPU. Not seen: a hand-over through a third block at another place; that a
// write comes behind reads of several blocks is always an error.
//
// Stamps of earlier launches say whether one that nothing orders with this launch (the driver knows
// which those are) touched the same memory; such a launch could as well run now.
#include "tests/emu/core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EPOCH = 34, SUB = 14, THREAD = 4, THREADS_MASK = 1023 };
enum { // bits 0 and 1
    ONE,
    MANY_IN_WARP, // in one sub; the stamp is that of the last
    MANY_IN_BLOCK,
    MANY_BLOCKS,
    MANY = 3,
};
enum { ATOMIC = 4, IN_FLIGHT = 8, SPLIT = 12 }; // of a write
enum { OTHERS = 4 };                            // of a read: an unordered launch read it, too

struct emu_cell {
    emu_stamp write, read;
};

typedef enum verdict {
    FINE,
    AFTER_WRITE,
    AFTER_READ,
    AFTER_ATOMIC,
    UNDER_WAY,
    NEVER_WRITTEN,
    WRITTEN_BY_LAUNCH,
    NEEDS_LOAD,
} verdict;

// ---- hand-overs

typedef struct handover {
    uintptr_t at;
    uint32_t first_epoch, last_epoch; // of the block
    uint32_t fenced;                  // accesses of epochs below it are handed over,
    emu_stamp *of_thread;             // and each thread's up to these
} handover;

typedef struct taken {
    size_t which;
    emu_stamp when; // and by whom
} taken;

static handover *handovers;
static size_t n_handovers, handover_room;
static taken *takens; // by the running block
static size_t n_takens, taken_room;
static uint32_t takens_of; // its first epoch
static bool fenced;        // some thread of the running block; meaningful if fenced_in is its epoch
static uint32_t fenced_in;

static void *grow(void *at, size_t *room, size_t n, size_t size) {
    if (n < *room) return at;
    *room = *room * 2 + 16;
    void *out = realloc(at, *room * size);
    if (out == NULL) abort();
    return out;
}

static uint32_t thread_of(emu_stamp s) {
    return (uint32_t)(s >> THREAD) & THREADS_MASK;
}

void emu_race_launch(void) {
    for (size_t i = 0; i < n_handovers; i++) free(handovers[i].of_thread);
    n_handovers = n_takens = 0;
    takens_of = fenced_in = 0;
}

void emu_fence(void) {
    emu_fibre *me = emu.fibre;
    me->fence = emu.stamp;
    if (me->sub >= EMU_MAX_SUB)
        emu_fail("more than %d fences between two barriers of the block", EMU_MAX_SUB);
    me->sub++;
    emu_stamp_now();
    fenced = true;
    fenced_in = emu.block_epoch;
}

void emu_race_atomic(uintptr_t at) {
    emu_fibre *me = emu.fibre;
    if (takens_of != emu.block_epoch) {
        n_takens = 0;
        takens_of = emu.block_epoch;
    }
    for (size_t i = 0; i < n_handovers; i++) {
        if (handovers[i].at != at || handovers[i].first_epoch == emu.block_epoch) continue;
        takens = grow(takens, &taken_room, n_takens, sizeof *takens);
        takens[n_takens++] = (taken){i, emu.stamp};
    }
    if (!fenced || fenced_in != emu.block_epoch) return;
    handover h = {at, emu.block_epoch, emu.epoch, 0, NULL};
    h.of_thread = calloc(emu.n_threads, sizeof *h.of_thread);
    if (h.of_thread == NULL) abort();
    for (uint32_t i = 0; i < emu.n_threads; i++) {
        const emu_fibre *other = &emu.fibres[i];
        uint32_t epoch = (uint32_t)(other->fence >> EPOCH);
        if (other->fence == 0 || (other != me && epoch == emu.epoch)) continue;
        h.of_thread[i] = other->fence;
        if (epoch > h.fenced) h.fenced = epoch;
    }
    handovers = grow(handovers, &handover_room, n_handovers, sizeof *handovers);
    handovers[n_handovers++] = h;
}

// Whether what a hand-over brings is in order with the running thread's accesses.
static bool has_taken(const taken *t) {
    const emu_fibre *me = emu.fibre, *by = &emu.fibres[thread_of(t->when)];
    uint32_t epoch = (uint32_t)(t->when >> EPOCH);
    if (by == me) return me->fence >> SUB >= t->when >> SUB && me->fence != 0;
    if (epoch < (uint32_t)(me->fence >> EPOCH)) return true;
    return by->fence != 0 && by->fence >> SUB >= t->when >> SUB &&
           (uint32_t)(by->fence >> EPOCH) < emu.epoch;
}

// Whether another block's access was handed over to the running thread.
static bool is_handed_over(emu_stamp s) {
    if (takens_of != emu.block_epoch) return false;
    uint32_t epoch = (uint32_t)(s >> EPOCH);
    for (size_t i = 0; i < n_takens; i++) {
        const handover *h = &handovers[takens[i].which];
        if (epoch < h->first_epoch || epoch > h->last_epoch) continue;
        bool whole = epoch < h->fenced;
        if ((s & MANY) == ONE && s >> SUB <= h->of_thread[thread_of(s)] >> SUB) whole = true;
        if (whole && has_taken(&takens[i])) return true;
    }
    return false;
}

// ---- earlier launches

enum { LAUNCHED = 1024 }; // launches that are remembered

typedef struct launched {
    uint64_t number;
    emu_stamp from, end;
    char kernel[64];
} launched;

static launched earlier[LAUNCHED];          // by number modulo LAUNCHED
static const launched *unordered[LAUNCHED]; // with what runs now
static size_t n_unordered;

void emu_race_launched(uint64_t number, uint32_t first, uint32_t last, const char *kernel) {
    launched *l = &earlier[number % LAUNCHED];
    *l = (launched){number, (emu_stamp)first << EPOCH, (emu_stamp)(last + 1) << EPOCH, ""};
    (void)snprintf(l->kernel, sizeof l->kernel, "%s", kernel);
    n_unordered = 0;
}

void emu_set_unordered_launches(const uint64_t *numbers, size_t n) {
    n_unordered = 0;
    for (size_t i = 0; i < n && n_unordered < LAUNCHED; i++) {
        const launched *l = &earlier[numbers[i] % LAUNCHED];
        if (l->number == numbers[i]) unordered[n_unordered++] = l;
    }
}

static const launched *reader; // the last one whose stamp made room for OTHERS

static const launched *unordered_of(emu_stamp s) {
    for (size_t i = 0; i < n_unordered; i++)
        if (s >= unordered[i]->from && s < unordered[i]->end) return unordered[i];
    return NULL;
}

// ---- cells

// The least stamp of the running block.
static inline emu_stamp own_block(void) {
    return (emu_stamp)emu.block_epoch << EPOCH;
}

// Whether what has a stamp of this launch comes before what the running thread does now.
static inline bool is_before(emu_stamp s) {
    uint32_t epoch = (uint32_t)(s >> EPOCH);
    if ((s & MANY) == MANY_BLOCKS) return false;
    if (epoch < emu.epoch) return epoch >= emu.block_epoch || is_handed_over(s);
    uint32_t thread = thread_of(s), me = thread_of(emu.stamp);
    if ((s & MANY) == ONE && thread == me) return true;
    if ((s & MANY) == MANY_IN_BLOCK || thread / EMU_WARP != me / EMU_WARP) return false;
    return (uint32_t)(s >> SUB & 0xfffff) < emu.fibre->warp->base;
}

// The stamp of an earlier access and the running thread's, neither before the other.
static inline emu_stamp join(emu_stamp s) {
    uint32_t epoch = (uint32_t)(s >> EPOCH);
    if ((s & MANY) == MANY_BLOCKS || epoch < emu.block_epoch) return emu.stamp | MANY_BLOCKS;
    if ((s & MANY) <= MANY_IN_WARP && thread_of(s) / EMU_WARP == thread_of(emu.stamp) / EMU_WARP) {
        emu_stamp last = s >> SUB > emu.stamp >> SUB ? s & ~(emu_stamp)SPLIT : emu.stamp;
        return last | MANY_IN_WARP;
    }
    return emu.stamp | MANY_IN_BLOCK;
}

// What of a read's stamp stays in the next one's.
static emu_stamp others_of(emu_stamp read, emu_stamp first) {
    if (read >= first) return read & OTHERS;
    const launched *l = unordered_of(read);
    if (l == NULL) return 0;
    reader = l;
    return OTHERS;
}

static verdict after(emu_stamp write) {
    return (write & ATOMIC) != 0 ? AFTER_ATOMIC : AFTER_WRITE;
}

static inline __attribute__((always_inline)) verdict read_cell(
    emu_cell *c, emu_stamp first, emu_kind kind, bool shared) {
    emu_stamp w = c->write;
    // It read this before, and nothing has happened since; but perhaps in another way.
    if (c->read == emu.stamp && kind == EMU_READ && (w < first || w >= own_block())) return FINE;
    if (w >= first) {
        if ((w & IN_FLIGHT) != 0) return UNDER_WAY;
        if (kind == EMU_READ_ONCE) return WRITTEN_BY_LAUNCH;
        if (w != emu.stamp && !is_before(w)) return after(w);
        if (kind == EMU_READ && (uint32_t)(w >> EPOCH) < emu.block_epoch) return NEEDS_LOAD;
    } else if (shared) {
        return NEVER_WRITTEN;
    }
    emu_stamp r = c->read;
    c->read = r < first || is_before(r) ? emu.stamp : join(r);
    if (n_unordered > 0) c->read |= others_of(r, first);
    return FINE;
}

static inline __attribute__((always_inline)) verdict write_cell(emu_cell *c, emu_stamp first) {
    emu_stamp w = c->write, r = c->read;
    if (w == emu.stamp) return FINE;
    if (w >= first) {
        if ((w & IN_FLIGHT) != 0) return UNDER_WAY;
        if (!is_before(w)) return after(w);
    }
    if (r >= first && !is_before(r)) return AFTER_READ;
    c->write = emu.stamp;
    return FINE;
}

static verdict add_cell(emu_cell *c, emu_stamp first, bool shared) {
    emu_stamp w = c->write, r = c->read;
    if (r >= first && !is_before(r)) return AFTER_READ;
    if (w < first) {
        if (shared) return NEVER_WRITTEN;
    } else {
        if ((w & IN_FLIGHT) != 0) return UNDER_WAY;
        if (!is_before(w)) {
            if ((w & ATOMIC) == 0) return AFTER_WRITE;
            // Another block's addition comes before this one: one of them sees the other.
            if ((uint32_t)(w >> EPOCH) >= emu.block_epoch) {
                c->write = join(w) | ATOMIC;
                return FINE;
            }
        }
    }
    c->write = emu.stamp | ATOMIC;
    return FINE;
}

static inline __attribute__((always_inline)) verdict touch(
    emu_cell *c, emu_stamp first, emu_kind kind, bool shared) {
    verdict v;
    switch (kind) {
    case EMU_READ:
    case EMU_READ_ONCE:
    case EMU_READ_BLOCKS:
        return read_cell(c, first, kind, shared);
    case EMU_WRITE:
        return write_cell(c, first);
    case EMU_ATOMIC:
        return add_cell(c, first, shared);
    case EMU_COPY_BEGIN:
        v = write_cell(c, first);
        c->write = emu.stamp | IN_FLIGHT;
        c->read = 0;
        return v;
    case EMU_COPY_END:
        c->write = emu.stamp;
        c->read = 0;
        return FINE;
    }
    return FINE;
}

// Cells of memory, and what is wrong with an access to them.
typedef struct cells {
    emu_cell *words, *bytes;
    emu_stamp first; // older ones are nobody's
    bool shared;
    emu_stamp what; // the earlier access, and where
    size_t at;
} cells;

// Whether the bytes have cells of their own. Those of earlier launches are forgotten, but for reads
// that nothing orders with this one.
static inline bool is_split(cells *all, size_t word) {
    emu_cell *c = &all->words[word];
    if ((c->write & SPLIT) != SPLIT) return false;
    if (c->write >= all->first) return true;
    *c = (emu_cell){0, 0};
    for (size_t i = word * 4; n_unordered > 0 && i < word * 4 + 4; i++)
        if (unordered_of(all->bytes[i].read) != NULL) c->read = all->bytes[i].read;
    return false;
}

// The word's cell is given to each of its bytes.
static void split_cell(cells *all, size_t word) {
    emu_cell *c = &all->words[word];
    for (size_t i = 0; i < 4; i++) all->bytes[word * 4 + i] = *c;
    *c = (emu_cell){(emu_stamp)emu.epoch << EPOCH | SPLIT, 0};
}

static inline __attribute__((always_inline)) verdict touch_each(
    cells *all, size_t offset, size_t n, emu_kind kind) {
    for (size_t i = offset; i < offset + n;) {
        emu_cell *c = &all->words[i / 4];
        bool split = is_split(all, i / 4);
        if (!split && (i % 4 != 0 || offset + n - i < 4)) {
            split_cell(all, i / 4);
            split = true;
        }
        if (split) c = &all->bytes[i];
        const emu_cell was = *c;
        verdict v = touch(c, all->first, kind, all->shared);
        if (v != FINE) {
            all->what = v == AFTER_READ ? was.read : was.write;
            all->at = i;
            return v;
        }
        i += split ? 1 : 4;
    }
    return FINE;
}

// Compiled for the frequent kinds apart: most of a launch's time is spent here.
static inline verdict touch_all(cells *all, size_t offset, size_t n, emu_kind kind) {
    if (kind == EMU_READ) return touch_each(all, offset, n, EMU_READ);
    if (kind == EMU_WRITE) return touch_each(all, offset, n, EMU_WRITE);
    return touch_each(all, offset, n, kind);
}

// ---- accesses after those of other launches

// The unordered launch that wrote one of the bytes, or if `writes` read it; NULL: none.
static const launched *find_unordered(
    const emu_memory *memory, uintptr_t at, size_t n, bool writes, bool *wrote) {
    uintptr_t base = memory->at & ~(uintptr_t)15;
    for (size_t i = at - base; i < at - base + n; i++) {
        const emu_cell *c = &memory->cells[i / 4];
        bool split = (c->write & SPLIT) == SPLIT;
        if (split) c = &memory->byte_cells[i];
        const launched *l = unordered_of(c->write);
        *wrote = l != NULL;
        if (l == NULL && writes) l = unordered_of(c->read);
        bool here = c->read >= (emu_stamp)emu.launch_epoch << EPOCH;
        if (l == NULL && writes && here && (c->read & OTHERS) != 0) l = reader;
        if (l != NULL) return l;
        if (!split) i |= 3; // the bytes of a word have one cell
    }
    return NULL;
}

bool emu_has_touched(
    const uint64_t *numbers, size_t n, uint64_t at, uint64_t bytes, bool writes, char who[128]) {
    const emu_memory *memory = emu_map_memory(at);
    if (memory == NULL || memory->cells == NULL || at + bytes > memory->end) return false;
    bool wrote = false;
    emu_set_unordered_launches(numbers, n);
    const launched *l = find_unordered(memory, at, bytes, writes, &wrote);
    n_unordered = 0;
    if (l != NULL) (void)snprintf(who, 128, "%s %s", l->kernel, wrote ? "wrote" : "read");
    return l != NULL;
}

// ---- words

static const char *deed(emu_kind kind) {
    switch (kind) {
    case EMU_READ:
    case EMU_READ_ONCE:
    case EMU_READ_BLOCKS:
        return "read";
    case EMU_WRITE:
        return "write";
    case EMU_ATOMIC:
        return "atomic addition";
    case EMU_COPY_BEGIN:
    case EMU_COPY_END:
        return "asynchronous copy";
    }
    return "";
}

static void name_thread(emu_stamp s, char out[96]) {
    char thread[48];
    if ((s & MANY) != ONE) {
        (void)snprintf(out, 96, "several threads");
        return;
    }
    emu_describe_thread(thread_of(s), thread);
    bool other = (uint32_t)(s >> EPOCH) < emu.block_epoch;
    (void)snprintf(out, 96, "%s%s", thread, other ? " of another block" : "");
}

static void fail_race(
    verdict v, emu_stamp s, emu_kind kind, const char *where, size_t at, const void *pc) {
    char who[96];
    name_thread(s, who);
    bool blocks = (uint32_t)(s >> EPOCH) < emu.block_epoch || (s & MANY) == MANY_BLOCKS;
    const char *between = blocks ? "with no hand-over between (kt_fence, kt_atomic_add, kt_fence)"
                                 : "with no barrier between";
    switch (v) {
    case FINE:
        return;
    case AFTER_WRITE:
        emu_fail_at(pc, "race: %s of byte %zu of %s, which %s wrote %s", deed(kind), at, where, who,
            between);
    case AFTER_READ:
        emu_fail_at(pc, "race: %s of byte %zu of %s, which %s read %s", deed(kind), at, where, who,
            between);
    case AFTER_ATOMIC:
        emu_fail_at(pc, "race: %s of byte %zu of %s, to which %s added %s", deed(kind), at, where,
            who, between);
    case UNDER_WAY:
        emu_fail_at(pc,
            "race: %s of byte %zu of %s, to which an asynchronous copy of %s is under way",
            deed(kind), at, where, who);
    case NEVER_WRITTEN:
        emu_fail_at(
            pc, "uninitialised: %s of byte %zu of %s, which nobody wrote", deed(kind), at, where);
    case WRITTEN_BY_LAUNCH:
        emu_fail_at(
            pc, "kt_load_once of byte %zu of %s, which %s wrote in this launch", at, where, who);
    case NEEDS_LOAD:
        emu_fail_at(pc,
            "plain read of byte %zu of %s, which %s wrote: kt_load_shared_by_blocks is needed", at,
            where, who);
    }
}

// ---- shared memory

static emu_cell *shared_cells, *shared_byte_cells;

void emu_race_forget_shared(void) {
    emu_pages_close(shared_cells, (emu_shared_area() / 4 + 1) * sizeof *shared_cells);
    emu_pages_close(shared_byte_cells, (emu_shared_area() + 4) * sizeof *shared_cells);
    shared_cells = shared_byte_cells = NULL;
}

void emu_race_forget_launches(void) {
    memset(earlier, 0, sizeof earlier);
}

void emu_race_shared(size_t offset, size_t n, emu_kind kind, const void *pc) {
    if (shared_cells == NULL) {
        shared_cells = emu_pages_open((emu_shared_area() / 4 + 1) * sizeof *shared_cells);
        shared_byte_cells = emu_pages_open((emu_shared_area() + 4) * sizeof *shared_cells);
    }
    cells all = {shared_cells, shared_byte_cells, (emu_stamp)emu.block_epoch << EPOCH, true, 0, 0};
    verdict v = touch_all(&all, offset, n, kind);
    if (v == FINE) return;
    char where[64];
    size_t start, bytes;
    emu_shared_array(all.at, &start, &bytes);
    (void)snprintf(where, sizeof where, "shared memory (an array of %zu)", bytes);
    fail_race(v, all.what, kind, where, all.at - start, pc);
}

// ---- global memory

static size_t n_bytes(const emu_memory *memory) { // 16 more for an end that is no multiple of 4
    return memory->end - (memory->at & ~(uintptr_t)15) + 16;
}

void emu_race_free(emu_memory *memory) {
    emu_pages_close(memory->cells, n_bytes(memory) / 4 * sizeof(emu_cell));
    emu_pages_close(memory->byte_cells, n_bytes(memory) * sizeof(emu_cell));
    memory->cells = memory->byte_cells = NULL;
}

void emu_race_global(
    emu_memory *memory, uintptr_t address, size_t n, emu_kind kind, const void *pc) {
    if (memory->cells == NULL) {
        memory->cells = emu_pages_open(n_bytes(memory) / 4 * sizeof(emu_cell));
        memory->byte_cells = emu_pages_open(n_bytes(memory) * sizeof(emu_cell));
    }
    bool wrote = false, writes = kind == EMU_WRITE || kind == EMU_ATOMIC;
    const launched *other =
        n_unordered == 0 ? NULL : find_unordered(memory, address, n, writes, &wrote);
    if (other != NULL)
        emu_fail_at(pc, "%s at %zu of '%s', which %s %s, and no event or edge orders the two",
            deed(kind), (size_t)(address - memory->at), memory->what, other->kernel,
            wrote ? "wrote" : "read");
    cells all = {
        memory->cells, memory->byte_cells, (emu_stamp)emu.launch_epoch << EPOCH, false, 0, 0};
    uintptr_t base = memory->at & ~(uintptr_t)15;
    verdict v = touch_all(&all, address - base, n, kind);
    if (v != FINE) fail_race(v, all.what, kind, memory->what, all.at - (memory->at - base), pc);
}
