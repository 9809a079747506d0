// A block's shared memory: the dynamic array, then static ones as they are met, each of its exact
// size with forbidden bytes around it, in an area between forbidden pages. Blocks find poison.
#include "tests/emu/core/core.h"
#include "tests/emu/core/sanitizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GAP = 256, PAGE = 4096, MAX_ARRAYS = 32, POISON = 0xff, GUARD = 0xa5 };
enum { AREA = EMU_MAX_SHARED + (MAX_ARRAYS + 1) * 2 * GAP };

typedef struct array {
    const void *key; // NULL: the dynamic one
    size_t at, bytes;
} array;

static unsigned char *area;
static array arrays[MAX_ARRAYS];
static int n_arrays;
static size_t used; // bytes of the area
static int last;    // the array that was found last

static void forbid(size_t from, size_t to) {
    memset(area + from, GUARD, to - from);
    if (emu_asan_poison != NULL) emu_asan_poison(area + from, to - from);
}

static void unforbid(size_t from, size_t to) {
    if (emu_asan_unpoison != NULL) emu_asan_unpoison(area + from, to - from);
}

// An array behind the others, aligned to `align` and no more.
static array *add(const void *key, size_t bytes, size_t align) {
    size_t at = (used + GAP + 2 * align - 1) / (2 * align) * (2 * align) + align;
    array *a = &arrays[n_arrays++];
    *a = (array){key, at, bytes};
    unforbid(used, at + bytes + GAP);
    memset(area + at, POISON, bytes);
    forbid(used, at);
    used = at + bytes;
    forbid(used, used + GAP);
    return a;
}

void emu_shared_open(void) {
    if (area != NULL) return;
    size_t bytes = ((size_t)AREA + PAGE - 1) / PAGE * PAGE;
    unsigned char *at = mmap(NULL, bytes + 2 * (size_t)PAGE, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED || mprotect(at, PAGE, PROT_NONE) != 0 ||
        mprotect(at + PAGE + bytes, PAGE, PROT_NONE) != 0) {
        fprintf(stderr, "emu: no memory for shared memory\n");
        abort();
    }
    area = at + PAGE;
}

void emu_shared_block(void) {
    n_arrays = 0;
    used = 0;
    last = 0;
    add(NULL, emu.launch->shared_bytes, 16);
}

static bool is_whole(size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (area[i] != GUARD) return false;
    return true;
}

void emu_shared_block_close(void) {
    size_t end = 0;
    unforbid(0, used + GAP);
    for (int i = 0; i <= n_arrays; i++) {
        size_t next = i < n_arrays ? arrays[i].at : used + GAP;
        if (!is_whole(end, next))
            emu_note_failure("bytes around an array of shared memory were overwritten (%s %zu "
                             "bytes)",
                i == 0 ? "in front of that of" : "behind that of",
                arrays[i == 0 ? 0 : i - 1].bytes);
        if (i < n_arrays) end = next + arrays[i].bytes;
    }
}

void *emu_shared_dynamic(void) {
    return area + arrays[0].at;
}

void *emu_shared(const void *key, size_t bytes, size_t align) {
    size_t sum = bytes;
    for (int i = 0; i < n_arrays; i++) {
        if (arrays[i].key == key && i > 0) return area + arrays[i].at;
        sum += arrays[i].bytes;
    }
    if (sum > emu.launch->shared_limit)
        emu_fail("%zu bytes of shared memory, static and dynamic, where a block may have %u", sum,
            (unsigned)emu.launch->shared_limit);
    if (n_arrays == MAX_ARRAYS) emu_fail("more than %d arrays of shared memory", MAX_ARRAYS - 1);
    return area + add(key, bytes, align)->at;
}

size_t emu_shared_offset(const void *at) {
    size_t offset = (size_t)((uintptr_t)at - (uintptr_t)area);
    return offset < (size_t)AREA ? offset : SIZE_MAX;
}

bool emu_shared_has(size_t offset, size_t n) {
    const array *a = &arrays[last];
    if (offset - a->at < a->bytes) return n <= a->bytes - (offset - a->at);
    for (int i = 0; i < n_arrays; i++) {
        a = &arrays[i];
        if (offset - a->at >= a->bytes) continue;
        last = i;
        return n <= a->bytes - (offset - a->at);
    }
    return false;
}

size_t emu_shared_area(void) {
    return AREA;
}

void emu_shared_array(size_t offset, size_t *start, size_t *bytes) {
    *start = *bytes = 0;
    for (int i = 0; i < n_arrays; i++) {
        if (offset < arrays[i].at) continue;
        *start = arrays[i].at;
        *bytes = arrays[i].bytes;
    }
}
