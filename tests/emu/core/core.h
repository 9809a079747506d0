// The emulator's own parts, for each other. All of it works for one launch at a time.
//
//   launch.c   a launch from its checks to its end; errors; signals
//   sched.c    fibres, one a CUDA thread; which runs next; barriers
//   warp.c     collectives of a warp           mma.c    their arithmetic
//   shared.c   a block's shared memory         async.c  cp.async
//   map.c      memory that kernels may touch   undo.c   a launch's writes taken back
//   race.c     who touched what, and what orders it
//   access.c   every access: what checked modules and the parts above come to
#ifndef EMU_CORE_H
#define EMU_CORE_H

#include "tests/emu/emu.h"

#include <string.h>

#pragma GCC visibility push(hidden)

enum {
    EMU_WARP = 32,
    EMU_MAX_THREADS = 1024,
    EMU_STACK_BYTES = 128 << 10,
    EMU_MAX_SUB = (1 << 20) - 2, // of a stamp
    EMU_MAX_SHARED = 256 << 10,  // bytes of a block: more than any GPU has
};

// ---- sched.c

typedef enum emu_wait { EMU_READY, EMU_AT_BARRIER, EMU_AT_COLLECTIVE, EMU_EXITED } emu_wait;

// When something happened, as race.c says.
typedef uint64_t emu_stamp;

typedef struct emu_copies emu_copies;

typedef struct emu_fibre {
    void *top; // of its stack while it waits
    unsigned char *stack;
    emu_dim3 thread;
    uint32_t index; // in the block
    uint32_t sub;   // its part of a stamp
    emu_wait wait;
    const char *file; // where it waits
    int line;
    struct emu_warp *warp;
    uint32_t place;  // in its warp's order
    emu_stamp fence; // of its last kt_fence, 0: none
    emu_copies *copies;
} emu_fibre;

typedef struct emu_warp {
    emu_fibre *order[EMU_WARP]; // in which its lanes run
    uint32_t n;                 // lanes
    uint32_t ready;             // a bit for each place in the order
    uint32_t n_waiting;         // lanes in the collective
    uint32_t base;              // parts of stamps below it were before the last emu_sync_warp
    const char *what;           // the collective: its name, compared by address
    const char *file;
    int line;
    // By lane. The first lanes that go on bring to the next collective before the others have
    // taken, so these are two.
    union {
        struct {
            float c[EMU_WARP][4];
            uint32_t a[EMU_WARP][4], b[EMU_WARP][2];
        } mma;
        const void *row[EMU_WARP];
        struct {
            uint64_t v[EMU_WARP];
            int32_t from[EMU_WARP];
        } lanes;
    } in;
    union {
        float c[EMU_WARP][4];
        uint32_t matrix[EMU_WARP][4];
        uint64_t v[EMU_WARP];
    } out;
} emu_warp;

// What runs now.
typedef struct emu_now {
    uintptr_t stack; // the running fibre's
    emu_fibre *fibre;
    emu_stamp stamp; // the running fibre's
    emu_state state;
    bool running, checked;
    uint32_t epoch;        // counts the blocks and their barriers; of the stamps
    uint32_t launch_epoch; // the first one of this launch,
    uint32_t block_epoch;  // of this block
    uint32_t undo_epoch;   // what undo.c knows a launch by
    uint32_t n_threads, n_warps;
    emu_warp *warps;
    emu_fibre *fibres; // by index
    const emu_launch *launch;
    emu_counts counts;
} emu_now;
extern emu_now emu;

void emu_sched_open(uint64_t seed, int run);   // for a launch: makes fibres, chooses orders
void emu_block_run(void);                      // the block of emu.state
uint64_t emu_block_at(uint64_t i, uint64_t n); // which block runs as the i-th of n
void emu_stop(void) __attribute__((noreturn)); // leaves the fibre; emu_block_run returns
// The running fibre joins a collective; true: it is the last one, and computes for all. The others
// come back when that one has called emu_collected.
bool emu_collect(const char *what, const char *file, int line);
void emu_collected(void);
// Recomputes the running fibre's stamp.
static inline void emu_stamp_now(void) {
    emu.stamp =
        (emu_stamp)emu.epoch << 34 | (emu_stamp)emu.fibre->sub << 14 | emu.fibre->index << 4;
}

// ---- launch.c

bool emu_failed(void);
// The first failure of a launch counts. It is that of the thread emu.state tells.
void emu_note_failure(const char *format, ...) __attribute__((format(printf, 1, 2)));
// As emu_fail, at the place in the kernel that `pc` returns to.
void emu_fail_at(const void *pc, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));
const char *emu_place_of(const void *pc); // "file.cuh:12", "" if unknown; in static storage
void emu_describe_thread(uint32_t index, char out[48]);

// ---- access.c

typedef enum emu_kind {
    EMU_READ,
    EMU_WRITE,
    EMU_ATOMIC,
    EMU_READ_ONCE,   // of what the launch does not write
    EMU_READ_BLOCKS, // also of what other blocks wrote
    EMU_COPY_BEGIN,  // cp.async to shared memory
    EMU_COPY_END,
} emu_kind;
// The running fibre touches n bytes: allowed, aligned, initialised, not in a race? Fails or
// returns. Unchecked modules: only what costs nothing.
void emu_access(const void *at, size_t n, emu_kind kind, const void *pc);
void emu_aligned(const void *at, size_t to, const void *pc);
static inline void *emu_pointer(uintptr_t at) {
    void *out;
    memcpy(&out, &at, sizeof out);
    return out;
}

// ---- shared.c

void emu_shared_open(void);        // for a launch
void emu_shared_block(void);       // new, poisoned
void emu_shared_block_close(void); // looks whether the surroundings are whole
// Offset of `at` in the area of shared memory; SIZE_MAX: not in it.
size_t emu_shared_offset(const void *at);
bool emu_shared_has(size_t offset, size_t n); // bytes of one array
size_t emu_shared_area(void);                 // bytes of the area
void emu_shared_array(size_t offset, size_t *start, size_t *bytes);

// ---- map.c

typedef struct emu_cell emu_cell;

// A range that was given to emu_map_add.
typedef struct emu_memory {
    uintptr_t at, end;
    char what[64];                // for messages
    emu_cell *cells, *byte_cells; // race.c; NULL until needed
    uint32_t *saved;              // undo.c: for each page, the epoch of the launch that saved it
} emu_memory;

// Part of a memory that kernels may touch now.
typedef struct emu_span {
    uintptr_t at, end;
    bool writable;
    emu_memory *memory;
} emu_span;

// The span that holds all n bytes, or NULL.
const emu_span *emu_map_find(uintptr_t at, size_t n);
bool emu_map_is_read_by_others(uintptr_t at, size_t n); // emu_set_unordered
// What is wrong with n bytes that emu_map_find did not find, for a message.
void emu_map_explain(uintptr_t at, size_t n, char out[200]);
void emu_map_forget_stamps(void);         // stamps begin again at 0
emu_memory *emu_map_memory(uintptr_t at); // NULL: not mapped
// For kernels in a process with the address sanitizer: what they may not touch is poisoned.
void emu_map_poison(void);
void emu_map_unpoison(void);
// Lazily committed, zero; ends the program if there is none. Freed by emu_pages_close.
void *emu_pages_open(size_t bytes);
void emu_pages_close(void *pages, size_t bytes);

// ---- async.c

void emu_copies_check_exit(emu_fibre *fibre); // none may be left
void emu_copies_clear(emu_fibre *fibre);

// ---- race.c

void emu_race_shared(size_t offset, size_t n, emu_kind kind, const void *pc);
void emu_race_global(emu_memory *memory, uintptr_t at, size_t n, emu_kind kind, const void *pc);
void emu_race_atomic(uintptr_t at); // before the access: what it takes over from other blocks
void emu_race_free(emu_memory *memory);
void emu_race_forget_shared(void);
void emu_race_launch(void); // forgets the last launch's hand-overs
// Epochs of a launch that has ended, and its kernel; forgets the launches set as unordered.
void emu_race_forget_launches(void);
void emu_race_launched(uint64_t number, uint32_t first, uint32_t last, const char *kernel);

// ---- undo.c

extern bool emu_undo_on;
void emu_undo_open(void);
void emu_undo_save(emu_memory *memory, uintptr_t at, size_t n); // before a write
void emu_undo_take_back(
    bool keep); // all that was saved; keep: what was written is the first result
// Whether what is there now equals the first result. Else the first difference.
bool emu_undo_same(char why[256]);
void emu_undo_close(void);
void emu_undo_free(emu_memory *memory);

// ---- mma.c

void emu_mma_compute(emu_warp *warp);

#pragma GCC visibility pop
#endif
