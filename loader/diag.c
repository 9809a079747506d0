#include "loader/diag.h"

#include <stdlib.h>
#include <string.h>

enum {
    SHOWN_ERRORS = 20,   // of each severity
    KEPT_ENTRIES = 1000, // beyond these only the counters grow
    SHOWN_NAMES = 20,
    MESSAGE_BYTES = 600,
    LINE_CHARS = 200, // longer lines are shown in part
    TAB_COLUMNS = 1   // a tab is kept as a tab in both lines
};

typedef struct rule_row {
    const char *name, *text;
} rule_row;

static const rule_row rules[] = {
#define RULE_ROW(code, name, text) {name, text},
    KT_RULE_LIST(RULE_ROW)
#undef RULE_ROW
};

const char *kt_rule_name(kt_rule rule) {
    KT_ASSERT((int)rule >= 0 && rule < KT_RULE_COUNT);
    return rules[rule].name;
}

const char *kt_rule_text(kt_rule rule) {
    KT_ASSERT((int)rule >= 0 && rule < KT_RULE_COUNT);
    return rules[rule].text;
}

// ---- places

kt_place kt_place_part(kt_place at, kt_str text, size_t from, size_t to) {
    KT_ASSERT(from <= to && to <= text.n);
    // Only a scalar that stands in the file as it is read is as wide as its text.
    if (at.source == NULL || (size_t)at.width != kt_utf8_count(text)) return at;
    size_t width = kt_utf8_count(kt_str_slice(text, from, to));
    at.col += (int)kt_utf8_count(kt_str_slice(text, 0, from));
    at.width = width == 0 ? 1 : (int)width;
    return at;
}

void kt_place_print(kt_place at, kt_buf *out) {
    if (at.source == NULL) {
        kt_buf_printf(out, "(default)");
    } else {
        kt_buf_printf(out, "%s:%d:%d", at.source->path, at.line, at.col);
    }
}

// ---- collecting

void kt_diag_init(kt_diag *diag, kt_arena *arena) {
    *diag = (kt_diag){.arena = arena};
}

// The formatted text on one line, of a bounded length.
static const char *format(kt_arena *arena, const char *fmt, va_list args) KT_PRINTF(2, 0);
static const char *format(kt_arena *arena, const char *fmt, va_list args) {
    kt_buf buf = {0};
    kt_buf_printfv(&buf, fmt, args);
    size_t n = buf.n;
    if (n > MESSAGE_BYTES) {
        n = MESSAGE_BYTES;
        while (n > 0 && ((unsigned char)buf.at[n] & 0xc0U) == 0x80U) n--;
        kt_buf_clear(&buf);
        buf.n = n;
        kt_buf_printf(&buf, " ...");
        n = buf.n;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)buf.at[i];
        if (c == '\n' || c == '\r' || c == '\t') buf.at[i] = ' ';
        else if (c < 0x20 || c == 0x7f) buf.at[i] = '?';
    }
    const char *out = kt_arena_copy(arena, buf.at, n);
    kt_buf_deinit(&buf);
    return out;
}

static void push(kt_diag *diag, kt_severity severity, kt_rule rule, kt_place at, const char *message) {
    if (diag->entries.n >= KEPT_ENTRIES) {
        return;
    }
    kt_diag_entry entry = {.severity = severity, .rule = rule, .at = at, .message = message};
    KT_PUSH(diag->arena, &diag->entries, entry);
}

bool kt_diag_error(kt_diag *diag, kt_rule rule, kt_place at, const char *fmt, ...) {
    diag->n_errors++;
    va_list args;
    va_start(args, fmt);
    if (diag->entries.n < KEPT_ENTRIES)
        push(diag, KT_SEVERITY_ERROR, rule, at, format(diag->arena, fmt, args));
    va_end(args);
    return false;
}

void kt_diag_warning(kt_diag *diag, kt_rule rule, kt_place at, const char *fmt, ...) {
    diag->n_warnings++;
    va_list args;
    va_start(args, fmt);
    if (diag->entries.n < KEPT_ENTRIES)
        push(diag, KT_SEVERITY_WARNING, rule, at, format(diag->arena, fmt, args));
    va_end(args);
}
