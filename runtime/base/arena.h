// Bump arenas: memory that is released all at once.
//
// Four lifetimes exist: model, plan, run, tmp. An arena is passed in; nobody frees what came from
// one. Nothing in an arena owns a file, a handle or another arena. Host memory running out ends the
// program with a message. One thread at a time per arena. A zeroed kt_arena is ready for use.
#ifndef KT_BASE_ARENA_H
#define KT_BASE_ARENA_H

#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct kt_arena_block kt_arena_block;

typedef struct kt_arena {
    kt_arena_block *last; // newest block first
    size_t used_bytes;    // handed out in all blocks together
} kt_arena;

// A place to return to; everything allocated after it is released by kt_arena_reset.
typedef struct kt_arena_mark {
    kt_arena_block *block;
    size_t at;
    size_t used_bytes;
} kt_arena_mark;

void kt_arena_deinit(kt_arena *arena);
// Zeroed memory, aligned to 16 bytes. Never NULL (size 0 included).
void *kt_arena_alloc(kt_arena *arena, size_t size);
// n * size, checked for overflow.
void *kt_arena_array(kt_arena *arena, size_t n, size_t size);
char *kt_arena_printf(kt_arena *arena, const char *fmt, ...) KT_PRINTF(2, 3);
char *kt_arena_copy(kt_arena *arena, const char *bytes, size_t n); // with a 0 after the n bytes
kt_arena_mark kt_arena_get_mark(const kt_arena *arena);
void kt_arena_reset(kt_arena *arena, kt_arena_mark mark);

// Grows `ptr` (elements of `size` bytes, *cap of them) so that n + 1 fit. Returns the array.
void *kt_arena_grow(kt_arena *arena, void *ptr, size_t n, size_t *cap, size_t size);

#define KT_NEW(arena, type)          ((type *)kt_arena_alloc((arena), sizeof(type)))
#define KT_NEW_ARRAY(arena, type, n) ((type *)kt_arena_array((arena), (size_t)(n), sizeof(type)))

// A growable array inside an arena: KT_VEC(int) ids; KT_PUSH(arena, &ids, 7); ids.at[0], ids.n
#define KT_VEC(type)                                                                               \
    struct {                                                                                       \
        type *at;                                                                                  \
        size_t n, cap;                                                                             \
    }
#define KT_PUSH(arena, vec, value)                                                                 \
    ((vec)->at = kt_arena_grow((arena), (vec)->at, (vec)->n, &(vec)->cap, sizeof *(vec)->at),      \
        (vec)->at[(vec)->n++] = (value))

void kt_out_of_memory(size_t bytes) KT_NORETURN;

#endif
