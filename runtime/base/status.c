#include "runtime/base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct status_row {
    const char *name;
    int exit;
    const char *text;
} status_row;

static const status_row rows[] = {
#define STATUS_ROW(code, name, exit, text) {name, exit, text},
    KT_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

static const status_row *row_of(kt_status code) {
    KT_ASSERT((int)code >= 0 && code < KT_STATUS_COUNT);
    return &rows[code];
}

const char *kt_status_name(kt_status code) {
    return row_of(code)->name;
}

const char *kt_status_text(kt_status code) {
    return row_of(code)->text;
}

int kt_status_exit(kt_status code) {
    return row_of(code)->exit;
}

// A cut text must not end inside a UTF-8 character.
static void drop_partial_character(char *text, size_t n) {
    size_t start = n;
    while (start > 0 && n - start < 4 && ((unsigned char)text[start - 1] & 0xc0U) == 0x80U) start--;
    if (start == 0) return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xf0U ? 4 : lead >= 0xe0U ? 3 : lead >= 0xc0U ? 2 : 1;
    if (want > 1 && n - start + 1 < want) text[start - 1] = 0;
}

// Formats into the rest of err->text, from byte `at` on.
static void put(kt_err *err, size_t at, const char *fmt, va_list args) KT_PRINTF(3, 0);
static void put(kt_err *err, size_t at, const char *fmt, va_list args) {
    int n = vsnprintf(err->text + at, sizeof err->text - at, fmt, args);
    if (n < 0) {
        err->text[at] = 0;
    } else if ((size_t)n >= sizeof err->text - at) {
        drop_partial_character(err->text, sizeof err->text - 1);
    }
}

kt_status kt_err_setv(kt_err *err, kt_status code, const char *fmt, va_list args) {
    err->code = code;
    put(err, 0, fmt, args);
    return code;
}

kt_status kt_err_set(kt_err *err, kt_status code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    kt_err_setv(err, code, fmt, args);
    va_end(args);
    return code;
}

void kt_err_note(kt_err *err, const char *fmt, ...) {
    static const char lead[] = "\nnote: ";
    size_t at = strlen(err->text);
    if (at + sizeof lead >= sizeof err->text) return;
    memcpy(err->text + at, lead, sizeof lead);
    va_list args;
    va_start(args, fmt);
    put(err, at + sizeof lead - 1, fmt, args);
    va_end(args);
}

void kt_assert_failed(const char *cond, const char *file, int line) {
    fflush(stdout);
    fprintf(stderr, "kotaro: bug: '%s' does not hold (%s:%d)\n", cond, file, line);
    abort();
}
