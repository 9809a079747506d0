// A text that grows. Out of memory aborts: this is a test's library.
#ifndef EMU_NVRTC_TEXT_H
#define EMU_NVRTC_TEXT_H

#include "tests/emu/image.h"

typedef struct text {
    char *at; // 0-terminated once something was added; NULL before
    size_t n, capacity;
} text;

EMU_INTERNAL void text_add(text *to, const void *bytes, size_t n);
EMU_INTERNAL void text_print(text *to, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
EMU_INTERNAL void text_free(text *which); // may be used again

EMU_INTERNAL void *take(size_t bytes); // zeroed

#endif
