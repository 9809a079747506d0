// Every access to memory: what checked modules call for theirs (the compiler's names), and what the
// emulator itself does for kernels.
#include "tests/emu/core/core.h"

#include <stdio.h>
#include <string.h>

#include <dlfcn.h>

void emu_aligned(const void *at, size_t to, const void *pc) {
    if (((uintptr_t)at & (to - 1)) == 0) return;
    emu_fail_at(pc, "misaligned: %p is no multiple of %zu bytes", at, to);
}

static const char *verb(emu_kind kind) {
    switch (kind) {
    case EMU_READ:
    case EMU_READ_ONCE:
    case EMU_READ_BLOCKS:
        return "reads";
    case EMU_WRITE:
        return "writes";
    case EMU_ATOMIC:
        return "adds to";
    case EMU_COPY_BEGIN:
    case EMU_COPY_END:
        return "copies to";
    }
    return "";
}

// Constants of a module: tables that the compiler put there.
static bool is_constant(uintptr_t at, size_t n, emu_kind kind) {
    struct dl_find_object found;
    if (kind == EMU_WRITE || kind == EMU_ATOMIC) return false;
    if (_dl_find_object(emu_pointer((uintptr_t)emu.launch->kernel->call), &found) != 0)
        return false;
    uintptr_t from = (uintptr_t)found.dlfo_map_start, end = (uintptr_t)found.dlfo_map_end;
    return at >= from && at < end && n <= end - at;
}

static void access_shared(size_t offset, size_t n, emu_kind kind, const void *pc) {
    if (!emu_shared_has(offset, n)) {
        size_t start, bytes;
        emu_shared_array(offset, &start, &bytes);
        if (start == 0) emu_fail_at(pc, "%s %zu bytes in front of shared memory", verb(kind), n);
        emu_fail_at(pc, "%s %zu bytes of shared memory beyond the end of an array of %zu bytes",
            verb(kind), n, bytes);
    }
    emu_race_shared(offset, n, kind, pc);
}

static void access_global(uintptr_t at, size_t n, emu_kind kind, const void *pc) {
    const emu_span *span = emu_map_find(at, n);
    if (span == NULL) {
        if (is_constant(at, n, kind)) return;
        char why[200];
        emu_map_explain(at, n, why);
        emu_fail_at(pc, "%s %zu bytes at %p: %s", verb(kind), n, emu_pointer(at), why);
    }
    bool writes = kind == EMU_WRITE || kind == EMU_ATOMIC;
    if (writes && !span->writable)
        emu_fail_at(pc, "%s %zu bytes of an input, at %zu of '%s'", verb(kind), n,
            (size_t)(at - span->memory->at), span->memory->what);
    if (writes && emu_map_is_read_by_others(at, n))
        emu_fail_at(pc,
            "writes %zu bytes at %zu of '%s', where a copy of another stream reads, and no event "
            "orders the two",
            n, (size_t)(at - span->memory->at), span->memory->what);
    emu_race_global(span->memory, at, n, kind, pc);
    if (writes && emu_undo_on) emu_undo_save(span->memory, at, n);
}

void emu_access(const void *at, size_t n, emu_kind kind, const void *pc) {
    if (!emu.checked) return;
    if ((uintptr_t)at - emu.stack < EMU_STACK_BYTES) {
        if (kind == EMU_READ || kind == EMU_WRITE) return;
        emu_fail_at(pc, "%s its own stack, which no other thread may touch", verb(kind));
    }
    emu.counts.races_checked++;
    size_t offset = emu_shared_offset(at);
    if (offset != SIZE_MAX)
        access_shared(offset, n, kind, pc);
    else
        access_global((uintptr_t)at, n, kind, pc);
}

// ---- what kernels call

uint32_t emu_atomic_add(uint32_t *at, uint32_t v) {
    const void *pc = __builtin_return_address(0);
    emu_aligned(at, sizeof *at, pc);
    if (emu.checked) {
        if (emu_shared_offset(at) == SIZE_MAX) emu_race_atomic((uintptr_t)at);
        emu_access(at, sizeof *at, EMU_ATOMIC, pc);
    }
    uint32_t before = *at;
    *at = before + v;
    return before;
}

static void load(const void *at, size_t n, void *out, emu_kind kind, const void *pc) {
    emu_aligned(at, n, pc);
    if (emu_shared_offset(at) != SIZE_MAX)
        emu_fail_at(pc, "a load from global memory meets shared memory");
    emu_access(at, n, kind, pc);
    memcpy(out, at, n);
}

void emu_load_once(const void *at, size_t bytes, void *out) {
    load(at, bytes, out, EMU_READ_ONCE, __builtin_return_address(0));
}

void emu_load_shared_by_blocks(const void *at, size_t bytes, void *out) {
    load(at, bytes, out, EMU_READ_BLOCKS, __builtin_return_address(0));
}

// ---- what the compiler calls in checked modules (-fsanitize=thread)

#define ON_STACK(at) ((uintptr_t)(at)-emu.stack < EMU_STACK_BYTES)

#define ACCESS(name, n, kind)                                                                      \
    void emu_tsan_##name(void *at) __asm__("__tsan_" #name);                                       \
    void emu_tsan_##name(void *at) {                                                               \
        if (ON_STACK(at) || !emu.running) return;                                                  \
        if ((n) > 1) emu_aligned(at, n, __builtin_return_address(0));                              \
        emu_access(at, n, kind, __builtin_return_address(0));                                      \
    }
#define UNALIGNED(name, n, kind)                                                                   \
    void emu_tsan_##name(void *at) __asm__("__tsan_" #name);                                       \
    void emu_tsan_##name(void *at) {                                                               \
        if (ON_STACK(at) || !emu.running) return;                                                  \
        emu_access(at, n, kind, __builtin_return_address(0));                                      \
    }
#define RANGE(name, kind)                                                                          \
    void emu_tsan_##name(void *at, size_t n) __asm__("__tsan_" #name);                             \
    void emu_tsan_##name(void *at, size_t n) {                                                     \
        if (ON_STACK(at) || !emu.running || n == 0) return;                                        \
        emu_access(at, n, kind, __builtin_return_address(0));                                      \
    }

ACCESS(read1, 1, EMU_READ)
ACCESS(read2, 2, EMU_READ)
ACCESS(read4, 4, EMU_READ)
ACCESS(read8, 8, EMU_READ)
ACCESS(read16, 16, EMU_READ)
ACCESS(write1, 1, EMU_WRITE)
ACCESS(write2, 2, EMU_WRITE)
ACCESS(write4, 4, EMU_WRITE)
ACCESS(write8, 8, EMU_WRITE)
ACCESS(write16, 16, EMU_WRITE)
ACCESS(volatile_read1, 1, EMU_READ)
ACCESS(volatile_read2, 2, EMU_READ)
ACCESS(volatile_read4, 4, EMU_READ)
ACCESS(volatile_read8, 8, EMU_READ)
ACCESS(volatile_read16, 16, EMU_READ)
ACCESS(volatile_write1, 1, EMU_WRITE)
ACCESS(volatile_write2, 2, EMU_WRITE)
ACCESS(volatile_write4, 4, EMU_WRITE)
ACCESS(volatile_write8, 8, EMU_WRITE)
ACCESS(volatile_write16, 16, EMU_WRITE)
UNALIGNED(unaligned_read2, 2, EMU_READ)
UNALIGNED(unaligned_read4, 4, EMU_READ)
UNALIGNED(unaligned_read8, 8, EMU_READ)
UNALIGNED(unaligned_read16, 16, EMU_READ)
UNALIGNED(unaligned_write2, 2, EMU_WRITE)
UNALIGNED(unaligned_write4, 4, EMU_WRITE)
UNALIGNED(unaligned_write8, 8, EMU_WRITE)
UNALIGNED(unaligned_write16, 16, EMU_WRITE)
RANGE(read_range, EMU_READ)
RANGE(write_range, EMU_WRITE)

void emu_tsan_init(void) __asm__("__tsan_init");
void emu_tsan_init(void) {}

// ---- and for what is misaligned, beyond an array, shifted too far, converted to an integer that
// cannot hold it (-fsanitize=alignment,bounds,shift,float-cast-overflow). How they are called:
// libubsan, ubsan_handlers.h.

typedef struct place {
    const char *file;
    uint32_t line, column;
} place;

typedef struct type {
    uint16_t kind, info;
    char name[]; // in quotes
} type;

typedef struct misaligned {
    place at;
    const type *of;
    unsigned char log_alignment, check;
} misaligned;
void emu_misaligned(const misaligned *what, uintptr_t at) __asm__(
    "__ubsan_handle_type_mismatch_v1");
void emu_misaligned(const misaligned *what, uintptr_t at) {
    if (!emu.running) return;
    size_t align = (size_t)1 << what->log_alignment;
    emu_fail_at(__builtin_return_address(0), "misaligned: %p is no multiple of %zu bytes",
        emu_pointer(at), align);
}

typedef struct beyond {
    place at;
    const type *array, *index;
} beyond;
void emu_beyond_array(const beyond *what, uintptr_t index) __asm__("__ubsan_handle_out_of_bounds");
void emu_beyond_array(const beyond *what, uintptr_t index) {
    if (!emu.running) return;
    emu_fail_at(__builtin_return_address(0), "index %lld is beyond the end of an array %s",
        (long long)index, what->array->name);
}

typedef struct shifted {
    place at;
    const type *left, *right;
} shifted;
void emu_shifted_too_far(const shifted *what, uintptr_t left, uintptr_t right) __asm__(
    "__ubsan_handle_shift_out_of_bounds");
void emu_shifted_too_far(const shifted *what, uintptr_t left, uintptr_t right) {
    if (!emu.running) return;
    emu_fail_at(__builtin_return_address(0), "a number of type %s, %lld, is shifted by %lld bits",
        what->left->name, (long long)left, (long long)right);
}

// A GPU gives the nearest integer of the type (NaN: 0), this machine something else.
void emu_wide_cast(const void *what, uintptr_t from) __asm__("__ubsan_handle_float_cast_overflow");
void emu_wide_cast(const void *what, uintptr_t from) {
    (void)what;
    (void)from;
    if (!emu.running) return;
    emu_fail_at(__builtin_return_address(0),
        "converts a floating-point number to an integer type that cannot hold it");
}
