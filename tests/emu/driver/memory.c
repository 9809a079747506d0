// Device memory and pinned host memory.
//
// Device memory is mapped from a file of poison, copied on write: as much of it as the device has
// can be allocated, and only what is written takes room here. A forbidden page lies before it and
// one behind its end (rounded up to 256 bytes); freed memory stays forbidden.
#include "tests/emu/driver/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    ALIGN = 256,
    CHARGE_LEAST = 512,      // bytes that an allocation takes at least
    PIECE = 16 << 20,        // of the file of poison, mapped again and again
    HIDDEN_MOST = 256 << 20, // larger blocks are not hidden from the host: it would take too long
    GRANULE = 2 << 20,       // larger blocks take whole ones of the device's memory
    N_FREED = 1024,          // remembered for messages, and kept forbidden
};

typedef struct block {
    struct block *next;
    drv_memory_kind kind;
    bool registered; // pinned, but the caller's
    uint64_t at, bytes, charge;
    char *map; // with the forbidden pages
    size_t map_bytes;
    const drv_context *context;
    uint64_t number;
    char what[64];
} block;

typedef struct freed {
    uint64_t at, bytes, number;
    char *map;
    size_t map_bytes;
} freed;

static block *blocks;
static uint64_t n_made;
static freed freed_blocks[N_FREED];
static uint64_t n_freed;
static int poison_file = -1;
static size_t poison_bytes; // of the file
static bool hidden;

static uint64_t up(uint64_t n, uint64_t to) {
    return (n + to - 1) / to * to;
}

static uint64_t number_of(const void *at) {
    return (uint64_t)(uintptr_t)at;
}

// ---- finding

static block *block_at(uint64_t at) { // that has the address
    for (block *b = blocks; b != NULL; b = b->next)
        if (at >= b->at && at - b->at < b->bytes) return b;
    return NULL;
}

bool drv_memory_has(drv_memory_kind kind, uint64_t at, uint64_t bytes) {
    const block *b = block_at(at);
    return b != NULL && b->kind == kind && bytes <= b->bytes - (at - b->at);
}

bool drv_memory_touches_device(uint64_t at, uint64_t bytes) {
    for (const block *b = blocks; b != NULL; b = b->next)
        if (b->kind == DRV_DEVICE_MEMORY && at < number_of(b->map) + b->map_bytes &&
            number_of(b->map) < at + bytes)
            return true;
    for (int i = 0; i < N_FREED; i++) {
        const freed *f = &freed_blocks[i];
        if (f->map != NULL && at < number_of(f->map) + f->map_bytes &&
            number_of(f->map) < at + bytes)
            return true;
    }
    return false;
}

void drv_memory_tell(uint64_t at, char *out, size_t n) {
    const block *b = block_at(at);
    if (b != NULL) {
        (void)snprintf(out, n, "byte %" PRIu64 " of %s", at - b->at, b->what);
        return;
    }
    for (b = blocks; b != NULL; b = b->next)
        if (at >= b->at + b->bytes && at - b->at - b->bytes < PAGE) {
            (void)snprintf(
                out, n, "%" PRIu64 " bytes behind the end of %s", at - b->at - b->bytes, b->what);
            return;
        }
    for (uint64_t i = 0; i < N_FREED && i < n_freed; i++) {
        const freed *f = &freed_blocks[(n_freed - 1 - i) % N_FREED];
        if (at < f->at || at - f->at >= f->bytes) continue;
        (void)snprintf(out, n, "byte %" PRIu64 " of device memory %" PRIu64 ", which was freed",
            at - f->at, f->number);
        return;
    }
    (void)snprintf(out, n, "memory that the device does not know");
}

// ---- mapping

static bool have_poison(size_t bytes) {
    static unsigned char page[PAGE];
    if (poison_file < 0) {
        poison_file = memfd_create("emu-poison", MFD_CLOEXEC);
        memset(page, (int)drv.profile.poison, sizeof page);
    }
    if (poison_file < 0) return false;
    while (poison_bytes < bytes && poison_bytes < PIECE) {
        if (write(poison_file, page, PAGE) != PAGE) return false;
        poison_bytes += PAGE;
    }
    return true;
}

// Forbidden pages around so many usable ones full of poison. The usable ones begin at *map + PAGE.
static bool map_poison(size_t bytes, int protection, char **map) {
    if (!have_poison(bytes)) return false;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    *map = mmap(NULL, bytes + (size_t)2 * PAGE, PROT_NONE, flags, -1, 0);
    if (*map == MAP_FAILED) return false;
    for (size_t done = 0; done < bytes;) {
        size_t n = bytes - done < PIECE ? bytes - done : PIECE;
        void *piece = mmap(*map + PAGE + done, n, protection,
            MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, poison_file, 0);
        if (piece == MAP_FAILED) {
            (void)munmap(*map, bytes + (size_t)2 * PAGE);
            return false;
        }
        done += n;
    }
    return true;
}

static block *new_block(drv_memory_kind kind, const char *name, uint64_t at, uint64_t bytes) {
    block *b = drv_new(sizeof *b);
    b->kind = kind;
    b->at = at;
    b->bytes = bytes;
    b->context = drv_current_context;
    b->number = ++n_made;
    (void)snprintf(
        b->what, sizeof b->what, "%s %" PRIu64 " (%" PRIu64 " bytes)", name, b->number, bytes);
    b->next = blocks;
    blocks = b;
    drv_rest();
    void *address;
    memcpy(&address, &at, sizeof address);
    emu_map_add(address, bytes, b->what);
    return b;
}

static void drop_block(block *b) {
    block **link = &blocks;
    while (*link != b) link = &(*link)->next;
    *link = b->next;
    drv_rest();
    void *address;
    memcpy(&address, &b->at, sizeof address);
    emu_map_remove(address);
    free(b);
}

static int protection_now(void) {
    return hidden ? PROT_NONE : PROT_READ | PROT_WRITE;
}

static void protect_all(int protection) {
    for (const block *b = blocks; b != NULL; b = b->next)
        if (b->kind == DRV_DEVICE_MEMORY && b->map_bytes <= HIDDEN_MOST)
            (void)mprotect(b->map + PAGE, b->map_bytes - (size_t)2 * PAGE, protection);
}

void drv_memory_hide(void) {
    if (!hidden) protect_all(PROT_NONE);
    hidden = true;
}

void drv_memory_show(void) {
    if (hidden) protect_all(PROT_READ | PROT_WRITE);
    hidden = false;
}

// ---- device memory

static kt_cu_result alloc(kt_dptr *out, size_t bytes) {
    if (bytes == 0) {
        drv_violation("0 bytes");
        return DRV_INVALID_VALUE;
    }
    uint64_t charge = bytes > GRANULE ? up(bytes, GRANULE) : up(bytes, CHARGE_LEAST);
    if (bytes > (uint64_t)1 << 46 || charge > drv.profile.free - drv.counts.device_bytes)
        return KT_CU_OUT_OF_MEMORY;
    size_t inner = up(bytes, ALIGN), pages = up(inner, PAGE);
    bool small = pages + (size_t)2 * PAGE <= HIDDEN_MOST;
    char *map;
    drv_rest(); // hiding is the device thread's business while it works
    if (!map_poison(pages, small ? protection_now() : PROT_READ | PROT_WRITE, &map))
        return KT_CU_OUT_OF_MEMORY;
    block *b =
        new_block(DRV_DEVICE_MEMORY, "device memory", number_of(map + PAGE + pages - inner), bytes);
    b->charge = charge;
    b->map = map;
    b->map_bytes = pages + (size_t)2 * PAGE;
    // Its content was somebody else's: with poison, nothing can rely on it.
    drv.counts.device_bytes += charge;
    if (drv.counts.device_bytes > drv.counts.device_bytes_most)
        drv.counts.device_bytes_most = drv.counts.device_bytes;
    *out = b->at;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemAlloc(kt_dptr *out, size_t bytes) {
    DRV_DO(cuMemAlloc, DRV_CURRENT | DRV_ALLOCATES, alloc(out, bytes));
}

static void release_device(block *b) {
    freed *f = &freed_blocks[n_freed++ % N_FREED];
    if (f->map != NULL) (void)munmap(f->map, f->map_bytes);
    *f = (freed){b->at, b->bytes, b->number, b->map, b->map_bytes};
    drv.counts.device_bytes -= b->charge;
    drop_block(b);
    (void)mmap(f->map, f->map_bytes, PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static block *find_exactly(drv_memory_kind kind, bool registered, uint64_t at) {
    block *b = block_at(at);
    if (b != NULL && b->kind == kind && b->registered == registered && b->at == at) return b;
    char what[128];
    drv_memory_tell(at, what, sizeof what);
    drv_violation("0x%" PRIx64 " is not what such a call gave (%s)", at, what);
    return NULL;
}

static kt_cu_result free_device(kt_dptr at) {
    block *b = find_exactly(DRV_DEVICE_MEMORY, false, at);
    if (b == NULL) return DRV_INVALID_VALUE;
    kt_cu_result code = drv_wait_for_all(); // as the real one
    release_device(b);
    return code;
}

kt_cu_result drv_api_cuMemFree(kt_dptr at) {
    DRV_DO(cuMemFree, DRV_CURRENT | DRV_RELEASES, free_device(at));
}

static kt_cu_result get_info(size_t *free_bytes, size_t *total_bytes) {
    uint64_t free_now = drv.profile.promised > 0 ? drv.profile.promised : drv.profile.free;
    uint64_t used = drv.counts.device_bytes;
    *free_bytes = free_now > used ? free_now - used : 0;
    *total_bytes = drv.profile.memory;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    DRV_DO(cuMemGetInfo, DRV_CURRENT, get_info(free_bytes, total_bytes));
}

// ---- pinned memory

enum { KNOWN_FLAGS = 7 }; // portable, mapped, write-combined or input/output

static kt_cu_result alloc_host(void **out, size_t bytes, unsigned flags) {
    if (bytes == 0 || flags > KNOWN_FLAGS) {
        drv_violation("%zu bytes, flags %u", bytes, flags);
        return DRV_INVALID_VALUE;
    }
    size_t inner = up(bytes, ALIGN), pages = up(inner, PAGE);
    char *map;
    if (!map_poison(pages, PROT_READ | PROT_WRITE, &map)) return KT_CU_OUT_OF_MEMORY;
    block *b =
        new_block(DRV_PINNED_MEMORY, "pinned memory", number_of(map + PAGE + pages - inner), bytes);
    b->map = map;
    b->map_bytes = pages + (size_t)2 * PAGE;
    drv.counts.pinned_bytes += bytes;
    *out = map + PAGE + pages - inner;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemHostAlloc(void **out, size_t bytes, unsigned flags) {
    DRV_DO(cuMemHostAlloc, DRV_CURRENT | DRV_ALLOCATES, alloc_host(out, bytes, flags));
}

typedef struct user {
    uint64_t at, bytes;
    bool found;
    char name[128];
} user;

static void look_for_use(const drv_work *work, void *ctx) {
    user *u = ctx;
    bool uses = work->kind == DRV_WORK_GRAPH ? drv_graph_run_uses(work->run, u->at, u->bytes)
                                             : drv_piece_uses(&work->piece, u->at, u->bytes);
    if (!uses || u->found) return;
    u->found = true;
    (void)snprintf(u->name, sizeof u->name, "%s", work->name);
}

// The real driver may or may not wait: what is under way must be over before.
static void release_host(block *b) {
    user u = {.at = b->at, .bytes = b->bytes};
    drv_each_pending(look_for_use, &u);
    if (u.found && drv.sticky != KT_CU_SUCCESS)
        (void)drv_wait_for_all(); // a lost device has dropped it
    else if (u.found)
        drv_violation("%s is still used by work that is pending: %s", b->what, u.name);
    (void)drv_wait_for_all();
    char *map = b->map;
    size_t map_bytes = b->map_bytes;
    drv.counts.pinned_bytes -= b->bytes;
    drop_block(b);
    if (map != NULL) (void)munmap(map, map_bytes);
}

static kt_cu_result free_host(const void *at) {
    block *b = find_exactly(DRV_PINNED_MEMORY, false, number_of(at));
    if (b == NULL) return DRV_INVALID_VALUE;
    release_host(b);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemFreeHost(void *at) {
    DRV_DO(cuMemFreeHost, DRV_CURRENT | DRV_RELEASES, free_host(at));
}

static bool is_mapped(const void *at, size_t bytes) {
    uint64_t first = number_of(at) / PAGE * PAGE, end = up(number_of(at) + bytes, PAGE);
    unsigned char seen[4096];
    for (uint64_t page = first; page < end;) {
        uint64_t n = end - page < sizeof seen * PAGE ? end - page : sizeof seen * PAGE;
        void *address;
        memcpy(&address, &page, sizeof address);
        if (mincore(address, n, seen) != 0) return false;
        page += n;
    }
    return true;
}

static kt_cu_result register_host(void *at, size_t bytes, unsigned flags) {
    uint64_t from = number_of(at);
    if (bytes == 0 || flags > KNOWN_FLAGS || drv_memory_touches_device(from, bytes) ||
        !is_mapped(at, bytes)) {
        drv_violation("%zu bytes at %p, flags %u: no host memory", bytes, at, flags);
        return DRV_INVALID_VALUE;
    }
    for (const block *b = blocks; b != NULL; b = b->next)
        if (from < b->at + b->bytes && b->at < from + bytes) {
            drv_violation("%s is pinned already", b->what);
            return DRV_REGISTERED_ALREADY;
        }
    block *b = new_block(DRV_PINNED_MEMORY, "registered memory", from, bytes);
    b->registered = true;
    drv.counts.pinned_bytes += bytes;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemHostRegister(void *at, size_t bytes, unsigned flags) {
    DRV_DO(cuMemHostRegister, DRV_CURRENT | DRV_ALLOCATES, register_host(at, bytes, flags));
}

static kt_cu_result unregister_host(const void *at) {
    block *b = find_exactly(DRV_PINNED_MEMORY, true, number_of(at));
    if (b == NULL) return DRV_NOT_REGISTERED;
    release_host(b);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemHostUnregister(void *at) {
    DRV_DO(cuMemHostUnregister, DRV_CURRENT | DRV_RELEASES, unregister_host(at));
}

static kt_cu_result get_pointer(kt_dptr *out, const void *at, unsigned flags) {
    const block *b = block_at(number_of(at));
    if (b == NULL || b->kind != DRV_PINNED_MEMORY || flags != 0) {
        drv_violation("%p is not pinned memory", at);
        return DRV_INVALID_VALUE;
    }
    *out = number_of(at);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemHostGetDevicePointer(kt_dptr *out, void *at, unsigned flags) {
    DRV_DO(cuMemHostGetDevicePointer, DRV_CURRENT, get_pointer(out, at, flags));
}

// ---- the end

// Pinned memory is portable: it goes with the primary context only.
void drv_memory_release_of(const drv_context *context) {
    for (block *b = blocks, *next; b != NULL; b = next) {
        next = b->next;
        if (b->context != context && context->green != NULL) continue;
        drv_leak("%s, at the end of its context", b->what);
        if (b->kind == DRV_DEVICE_MEMORY)
            release_device(b);
        else
            drop_block(b);
    }
}

void drv_memory_leaks(void) {
    for (const block *b = blocks; b != NULL; b = b->next) drv_leak("%s", b->what);
}

uint64_t drv_memory_count(void) {
    uint64_t n = 0;
    for (const block *b = blocks; b != NULL; b = b->next) n++;
    return n;
}
