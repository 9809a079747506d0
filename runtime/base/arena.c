#include "runtime/base/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, BLOCK_BYTES = 64 * 1024 };

struct kt_arena_block {
    kt_arena_block *before;
    size_t size; // bytes of data
    size_t at;   // bytes handed out
    size_t pad;
};

_Static_assert(sizeof(kt_arena_block) % ALIGN == 0, "data after the header must stay aligned");

static unsigned char *data_of(kt_arena_block *block) {
    return (unsigned char *)(block + 1);
}

void kt_out_of_memory(size_t bytes) {
    fflush(stdout);
    fprintf(stderr, "kotaro: error: the machine has no memory for %llu more bytes\n",
        (unsigned long long)bytes);
    abort();
}

void kt_arena_deinit(kt_arena *arena) {
    kt_arena_reset(arena, (kt_arena_mark){NULL, 0, 0});
}

static kt_arena_block *push_block(kt_arena *arena, size_t size) {
    size_t want = size > BLOCK_BYTES ? size : BLOCK_BYTES;
    if (want > SIZE_MAX - sizeof(kt_arena_block)) kt_out_of_memory(want);
    kt_arena_block *block = malloc(sizeof *block + want);
    if (block == NULL) kt_out_of_memory(want);
    *block = (kt_arena_block){.before = arena->last, .size = want};
    arena->last = block;
    return block;
}

void *kt_arena_alloc(kt_arena *arena, size_t size) {
    if (size > SIZE_MAX - ALIGN) kt_out_of_memory(size);
    size_t take = size == 0 ? ALIGN : (size + ALIGN - 1) / ALIGN * ALIGN;
    kt_arena_block *block = arena->last;
    if (block == NULL || block->size - block->at < take) block = push_block(arena, take);
    void *out = data_of(block) + block->at;
    block->at += take;
    arena->used_bytes += take;
    memset(out, 0, take);
    return out;
}

void *kt_arena_array(kt_arena *arena, size_t n, size_t size) {
    if (size != 0 && n > SIZE_MAX / size) kt_out_of_memory(SIZE_MAX);
    return kt_arena_alloc(arena, n * size);
}

char *kt_arena_printf(kt_arena *arena, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    KT_ASSERT(n >= 0);
    char *out = kt_arena_alloc(arena, (size_t)n + 1);
    va_start(args, fmt);
    vsnprintf(out, (size_t)n + 1, fmt, args);
    va_end(args);
    return out;
}

char *kt_arena_copy(kt_arena *arena, const char *bytes, size_t n) {
    if (n == SIZE_MAX) kt_out_of_memory(n);
    char *out = kt_arena_alloc(arena, n + 1);
    if (n > 0) memcpy(out, bytes, n);
    return out;
}

kt_arena_mark kt_arena_get_mark(const kt_arena *arena) {
    return (kt_arena_mark){
        arena->last, arena->last == NULL ? 0 : arena->last->at, arena->used_bytes};
}

void kt_arena_reset(kt_arena *arena, kt_arena_mark mark) {
    while (arena->last != mark.block) {
        kt_arena_block *block = arena->last;
        KT_ASSERT(block != NULL); // else the mark is not from this arena, or older than a reset
        arena->last = block->before;
        free(block);
    }
    if (arena->last != NULL) {
        KT_ASSERT(mark.at <= arena->last->at);
        arena->last->at = mark.at;
    }
    arena->used_bytes = mark.used_bytes;
}

void *kt_arena_grow(kt_arena *arena, void *ptr, size_t n, size_t *cap, size_t size) {
    if (n < *cap) return ptr;
    size_t next = *cap < 8 ? 8 : *cap * 2;
    if (next <= n) next = n + 1;
    void *out = kt_arena_array(arena, next, size);
    if (n > 0) memcpy(out, ptr, n * size);
    *cap = next;
    return out;
}
