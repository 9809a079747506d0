// Handles with a kind and a generation, so that a wrong, stale or foreign one is known at once.
#include "tests/emu/driver/internal.h"

#include <stdlib.h>
#include <string.h>

// A handle is no address of this machine (bits 48 to 63 are neither all zero nor all one): whoever
// reads through it crashes.
enum { INDEX_BITS = 24, GENERATION_BITS = 20 };
static const uint64_t mark = (uint64_t)0xe5 << 56, mark_mask = (uint64_t)0xff << 56;

const char *const drv_kind_names[DRV_N_KINDS] = {"context", "stream", "event", "library", "kernel",
    "function", "graph", "graph node", "executable graph", "green context", "resource description"};

typedef struct slot {
    void *object; // NULL: closed
    drv_kind kind;
    uint32_t generation;
    uint32_t next_free;
} slot;

static slot *slots;
static uint32_t n_slots, cap, first_free; // 0: none; slot 0 is not used

static uint64_t encode(uint32_t index) {
    const slot *s = &slots[index];
    return mark | (uint64_t)s->kind << (INDEX_BITS + GENERATION_BITS) |
           (uint64_t)s->generation << INDEX_BITS | index;
}

static void *as_pointer(uint64_t value) {
    void *out;
    memcpy(&out, &value, sizeof out);
    return out;
}

static uint64_t as_number(const void *handle) {
    uint64_t out;
    memcpy(&out, &handle, sizeof out);
    return out;
}

void *drv_handle_open(drv_kind kind, void *object) {
    uint32_t index = first_free;
    if (index != 0) {
        first_free = slots[index].next_free;
    } else {
        if (n_slots == 0) n_slots = 1;
        if (n_slots >= cap) {
            cap = cap == 0 ? 1024 : cap * 2;
            slots = realloc(slots, cap * sizeof *slots);
            if (slots == NULL || cap > 1U << INDEX_BITS) abort();
        }
        index = n_slots++;
        slots[index] = (slot){0};
    }
    slots[index].object = object;
    slots[index].kind = kind;
    slots[index].generation = (slots[index].generation + 1) & ((1U << GENERATION_BITS) - 1);
    return as_pointer(encode(index));
}

static uint32_t index_of(uint64_t value) {
    return (uint32_t)value & ((1U << INDEX_BITS) - 1);
}

static void *object_of(drv_kind kind, const void *handle) {
    uint64_t value = as_number(handle);
    uint32_t index = index_of(value);
    if ((value & mark_mask) != mark || index == 0 || index >= n_slots) return NULL;
    const slot *s = &slots[index];
    return s->object != NULL && s->kind == kind && encode(index) == value ? s->object : NULL;
}

// Of a handle that is not what it should be.
static void complain(drv_kind kind, const void *handle) {
    uint64_t value = as_number(handle);
    const char *wanted = drv_kind_names[kind];
    uint64_t was = value >> (INDEX_BITS + GENERATION_BITS) & 0xf;
    if (value == 0) {
        drv_violation("NULL is no %s", wanted);
    } else if ((value & mark_mask) != mark || was >= DRV_N_KINDS || index_of(value) >= n_slots) {
        drv_violation("%p is no %s and no handle", handle, wanted);
    } else if (was != kind) {
        drv_violation("%p is a %s, not a %s", handle, drv_kind_names[was], wanted);
    } else {
        drv_violation("%p is a %s that exists no more", handle, wanted);
    }
}

void *drv_handle_find(drv_kind kind, const void *handle) {
    void *object = object_of(kind, handle);
    if (object == NULL) complain(kind, handle);
    return object;
}

void drv_handle_close(drv_kind kind, const void *handle) {
    if (object_of(kind, handle) == NULL) return;
    uint32_t index = index_of(as_number(handle));
    slots[index].object = NULL;
    slots[index].next_free = first_free;
    first_free = index;
}

void *drv_handle_peek(drv_kind kind, const void *handle) {
    return object_of(kind, handle);
}

void drv_handle_each(
    drv_kind kind, void (*visit)(void *handle, void *object, void *ctx), void *ctx) {
    for (uint32_t i = 1; i < n_slots; i++)
        if (slots[i].object != NULL && slots[i].kind == kind)
            visit(as_pointer(encode(i)), slots[i].object, ctx);
}
