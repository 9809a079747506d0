// A launch's writes taken back: pages are kept before their first write, so that the launch can be
// run again from the same memory, and both results compared.
#include "tests/emu/core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096 };

typedef struct page {
    emu_memory *memory;
    unsigned char *at;
    size_t n;
    unsigned char *before;
    unsigned char *after; // of the first run; NULL: it did not write here
} page;

bool emu_undo_on;
static page *pages;
static size_t n_pages, page_room;

static unsigned char *copy_of(const unsigned char *at, size_t n) {
    unsigned char *out = malloc(n);
    if (out == NULL) abort();
    memcpy(out, at, n);
    return out;
}

static size_t saved_bytes(const emu_memory *memory) {
    return ((memory->end - memory->at) / PAGE + 1) * sizeof *memory->saved;
}

void emu_undo_free(emu_memory *memory) {
    emu_pages_close(memory->saved, saved_bytes(memory));
    memory->saved = NULL;
}

void emu_undo_open(void) {
    emu_undo_on = true;
}

void emu_undo_save(emu_memory *memory, uintptr_t at, size_t n) {
    if (memory->saved == NULL) memory->saved = emu_pages_open(saved_bytes(memory));
    for (size_t i = (at - memory->at) / PAGE; i <= (at + n - 1 - memory->at) / PAGE; i++) {
        if (memory->saved[i] == emu.undo_epoch) continue;
        memory->saved[i] = emu.undo_epoch;
        if (n_pages == page_room) {
            page_room = page_room * 2 + 64;
            pages = realloc(pages, page_room * sizeof *pages);
            if (pages == NULL) abort();
        }
        uintptr_t start = memory->at + i * PAGE;
        size_t bytes = memory->end - start < PAGE ? memory->end - start : PAGE;
        unsigned char *from = emu_pointer(start);
        pages[n_pages++] = (page){memory, from, bytes, copy_of(from, bytes), NULL};
    }
}

void emu_undo_take_back(bool keep) {
    for (size_t i = 0; i < n_pages; i++) {
        page *p = &pages[i];
        if (keep) p->after = copy_of(p->at, p->n);
        memcpy(p->at, p->before, p->n);
    }
}

bool emu_undo_same(char why[256]) {
    for (size_t i = 0; i < n_pages; i++) {
        const page *p = &pages[i];
        const unsigned char *want = p->after != NULL ? p->after : p->before;
        if (memcmp(p->at, want, p->n) == 0) continue;
        size_t j = 0;
        while (p->at[j] == want[j]) j++;
        (void)snprintf(why, 256,
            "the result depends on the order of threads: byte %zu of '%s' is %02x in one and %02x "
            "in another",
            (size_t)((uintptr_t)p->at - p->memory->at) + j, p->memory->what, want[j], p->at[j]);
        return false;
    }
    return true;
}

void emu_undo_close(void) {
    emu_undo_on = false;
    for (size_t i = 0; i < n_pages; i++) {
        free(pages[i].before);
        free(pages[i].after);
    }
    n_pages = 0;
}
