// cp.async: copies are recorded, and done when their thread waits for them, as late as can be.
// Until then the destination holds poison, and nobody may touch it.
#include "tests/emu/core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COPIES = 1024, MAX_GROUPS = 64 };

typedef struct copy {
    void *to;
    const void *from;
    int size, bytes;
    const void *pc;
    unsigned char was[16]; // what is copied, when the copy began
} copy;

// A thread's copies that are under way, oldest first.
struct emu_copies {
    copy of[MAX_COPIES];
    int n;
    int ends[MAX_GROUPS]; // of closed groups
    int n_groups;
};

static emu_copies *own(void) {
    emu_fibre *fibre = emu.fibre;
    if (fibre->copies == NULL) fibre->copies = emu_pages_open(sizeof *fibre->copies);
    return fibre->copies;
}

void emu_copy(void *shared, const void *global, int size, int bytes) {
    const void *pc = __builtin_return_address(0);
    emu_aligned(shared, (size_t)size, pc);
    emu_aligned(global, (size_t)size, pc);
    if (bytes < 0 || bytes > size)
        emu_fail_at(pc, "an asynchronous copy of %d bytes into %d", bytes, size);
    size_t offset = emu_shared_offset(shared);
    if (offset == SIZE_MAX || !emu_shared_has(offset, (size_t)size))
        emu_fail_at(pc,
            "an asynchronous copy of %d bytes to %p, which are not in one array of shared memory",
            size, shared);
    if (emu_shared_offset(global) != SIZE_MAX)
        emu_fail_at(pc, "an asynchronous copy from shared memory");
    if (bytes > 0) emu_access(global, (size_t)bytes, EMU_READ, pc);
    emu_access(shared, (size_t)size, EMU_COPY_BEGIN, pc);
    emu_copies *copies = own();
    if (copies->n == MAX_COPIES)
        emu_fail_at(pc, "more than %d asynchronous copies of one thread are under way", MAX_COPIES);
    copy *c = &copies->of[copies->n++];
    *c = (copy){.to = shared, .from = global, .size = size, .bytes = bytes, .pc = pc};
    memcpy(c->was, global, (size_t)bytes);
    memset(shared, 0xff, (size_t)size);
}

void emu_copy_commit(void) {
    emu_copies *copies = own();
    if (copies->n_groups == MAX_GROUPS)
        emu_fail_at(__builtin_return_address(0),
            "more than %d groups of asynchronous copies of one thread are under way", MAX_GROUPS);
    copies->ends[copies->n_groups++] = copies->n;
}

void emu_copy_wait(int newest) {
    const void *pc = __builtin_return_address(0);
    emu_copies *copies = own();
    int n = copies->n_groups - newest;
    if (n <= 0) return;
    int end = copies->ends[n - 1];
    for (int i = 0; i < end; i++) {
        const copy *c = &copies->of[i];
        emu_access(c->to, (size_t)c->size, EMU_COPY_END, pc);
        if (memcmp(c->was, c->from, (size_t)c->bytes) != 0)
            emu_fail_at(c->pc, "the source of an asynchronous copy was written while it is under "
                               "way");
        memset(c->to, 0, (size_t)c->size);
        memcpy(c->to, c->from, (size_t)c->bytes);
    }
    copies->n -= end;
    memmove(copies->of, copies->of + end, (size_t)copies->n * sizeof copies->of[0]);
    copies->n_groups -= n;
    for (int i = 0; i < copies->n_groups; i++) copies->ends[i] = copies->ends[i + n] - end;
}

void emu_copies_check_exit(emu_fibre *fibre) {
    const emu_copies *copies = fibre->copies;
    if (copies == NULL || copies->n == 0) return;
    bool open = copies->n_groups == 0 || copies->ends[copies->n_groups - 1] < copies->n;
    emu_fail_at(copies->of[copies->n - 1].pc,
        "the thread ends while its asynchronous copies are under way (%s)",
        open ? "they were not even committed" : "it never waited for them");
}

void emu_copies_clear(emu_fibre *fibre) {
    if (fibre->copies == NULL) return;
    fibre->copies->n = 0;
    fibre->copies->n_groups = 0;
}
