#include "tests/emu/nvrtc/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *take(size_t bytes) {
    void *at = calloc(1, bytes == 0 ? 1 : bytes);
    if (at == NULL) abort();
    return at;
}

void text_add(text *to, const void *bytes, size_t n) {
    if (to->n + n + 1 > to->capacity) {
        to->capacity = (to->n + n + 1) * 2;
        to->at = realloc(to->at, to->capacity);
        if (to->at == NULL) abort();
    }
    if (n > 0) memcpy(to->at + to->n, bytes, n);
    to->n += n;
    to->at[to->n] = 0;
}

void text_print(text *to, const char *format, ...) {
    char *line = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&line, format, args);
    va_end(args);
    if (n < 0) abort();
    text_add(to, line, (size_t)n);
    free(line);
}

void text_free(text *which) {
    free(which->at);
    *which = (text){0};
}
