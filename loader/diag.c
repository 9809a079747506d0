#include "loader/diag.h"

#include <stdlib.h>
#include <string.h>

enum {
    SHOWN_ERRORS = 20,   // of each severity
    KEPT_ENTRIES = 1000, // beyond these only the counters grow
    SHOWN_NAMES = 20,
    MESSAGE_BYTES = 600,
    LINE_CHARS = 200 // longer lines are shown in part
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

// Text that a file brought may hold anything; a message is one line of printable characters.
static char printable(char c) {
    unsigned char code = (unsigned char)c;
    if (c == '\n' || c == '\r' || c == '\t') return ' ';
    if (code < 0x20 || code == 0x7f) return '?';
    return c;
}

// The formatted text on one line, of a bounded length.
static const char *format(kt_arena *arena, const char *fmt, va_list args) KT_PRINTF(2, 0);
static const char *format(kt_arena *arena, const char *fmt, va_list args) {
    kt_buf buf = {0};
    kt_buf_printfv(&buf, fmt, args);
    size_t n = buf.n;
    bool cut = n > MESSAGE_BYTES;
    if (cut) {
        n = MESSAGE_BYTES;
        while (n > 0 && ((unsigned char)buf.at[n] & 0xc0U) == 0x80U) n--;
    }
    for (size_t i = 0; i < n; i++) buf.at[i] = printable(buf.at[i]);
    const char *out = kt_arena_printf(arena, "%.*s%s", (int)n, buf.at, cut ? " ..." : "");
    kt_buf_deinit(&buf);
    return out;
}

static bool is_full(const kt_diag *diag) {
    return diag->n_errors + diag->n_warnings > KEPT_ENTRIES;
}

static void push(kt_diag *diag, kt_diag_entry entry, const char *fmt, va_list args) KT_PRINTF(3, 0);
static void push(kt_diag *diag, kt_diag_entry entry, const char *fmt, va_list args) {
    if (is_full(diag)) return;
    entry.message = format(diag->arena, fmt, args);
    KT_PUSH(diag->arena, &diag->entries, entry);
}

bool kt_diag_error(kt_diag *diag, kt_rule rule, kt_place at, const char *fmt, ...) {
    diag->n_errors++;
    va_list args;
    va_start(args, fmt);
    push(diag, (kt_diag_entry){.severity = KT_SEVERITY_ERROR, .rule = rule, .at = at}, fmt, args);
    va_end(args);
    return false;
}

void kt_diag_warning(kt_diag *diag, kt_rule rule, kt_place at, const char *fmt, ...) {
    diag->n_warnings++;
    va_list args;
    va_start(args, fmt);
    push(diag, (kt_diag_entry){.severity = KT_SEVERITY_WARNING, .rule = rule, .at = at}, fmt, args);
    va_end(args);
}

static void push_note(kt_diag *diag, const char *note) {
    if (is_full(diag) || diag->entries.n == 0) return;
    kt_diag_entry *entry = &diag->entries.at[diag->entries.n - 1];
    KT_PUSH(diag->arena, &entry->notes, note);
}

void kt_diag_note(kt_diag *diag, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    push_note(diag, format(diag->arena, fmt, args));
    va_end(args);
}

void kt_diag_note_at(kt_diag *diag, kt_place at, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    const char *text = format(diag->arena, fmt, args);
    va_end(args);
    kt_buf place = {0};
    kt_place_print(at, &place);
    push_note(diag, kt_arena_printf(diag->arena, "%s, at %s", text, place.at));
    kt_buf_deinit(&place);
}

static int compare_names(const void *a, const void *b) {
    return kt_str_cmp(*(const kt_str *)a, *(const kt_str *)b);
}

static void list_names(kt_diag *diag, const kt_str *known, size_t n, kt_buf *out) {
    kt_str *sorted = KT_NEW_ARRAY(diag->arena, kt_str, n);
    for (size_t i = 0; i < n; i++) sorted[i] = known[i];
    qsort(sorted, n, sizeof *sorted, compare_names);
    size_t shown = 0, left = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && kt_str_eq(sorted[i], sorted[i - 1])) continue;
        if (shown == SHOWN_NAMES) {
            left++;
            continue;
        }
        kt_buf_printf(
            out, "%s%.*s", shown == 0 ? "expected one of: " : ", ", KT_STR_ARG(sorted[i]));
        shown++;
    }
    if (left > 0) kt_buf_printf(out, " and %d more", (int)left);
}

void kt_diag_near(kt_diag *diag, kt_str name, const kt_str *known, size_t n, bool list) {
    kt_str guess[2];
    int found = kt_str_near(name, known, n, guess);
    if (found == 2 && kt_str_eq(guess[0], guess[1])) found = 1;
    kt_buf note = {0};
    if (found > 0) kt_buf_printf(&note, "did you mean '%.*s'", KT_STR_ARG(guess[0]));
    if (found > 1) kt_buf_printf(&note, " or '%.*s'", KT_STR_ARG(guess[1]));
    if (found > 0) kt_buf_printf(&note, "?");
    if (list && n > 0) {
        if (found > 0) kt_buf_printf(&note, " ");
        list_names(diag, known, n, &note);
    }
    if (note.n > 0) kt_diag_note(diag, "%s", note.at);
    kt_buf_deinit(&note);
}

// ---- printing

// Nowhere first, then by file, line and column; equal places in the order of reporting.
static int compare_places(const kt_diag_entry *a, const kt_diag_entry *b) {
    if (a->at.source == NULL || b->at.source == NULL)
        return (a->at.source != NULL) - (b->at.source != NULL);
    int order = strcmp(a->at.source->path, b->at.source->path);
    if (order != 0) return order;
    if (a->at.line != b->at.line) return a->at.line < b->at.line ? -1 : 1;
    if (a->at.col != b->at.col) return a->at.col < b->at.col ? -1 : 1;
    return 0;
}

static int compare_entries(const void *a, const void *b) {
    const kt_diag_entry *const *left = a, *const *right = b;
    int order = compare_places(*left, *right);
    if (order != 0) return order;
    return *left < *right ? -1 : *left > *right ? 1 : 0; // both point into one array
}

static bool is_repeat(const kt_diag_entry *a, const kt_diag_entry *b) {
    return compare_places(a, b) == 0 && a->rule == b->rule && a->severity == b->severity &&
           strcmp(a->message, b->message) == 0;
}

// Bytes of the character at text[i]; the text was checked to be UTF-8, or is cut off safely.
static size_t char_bytes(kt_str text, size_t i) {
    size_t end = i + 1;
    while (end < text.n && ((unsigned char)text.at[end] & 0xc0U) == 0x80U) end++;
    return end - i;
}

// Characters that terminals show two columns wide: the blocks of East Asian scripts and
// pictographs. source: Unicode Standard Annex 11, ranges W and F, rounded to blocks
static bool is_wide(kt_str c) {
    if (c.n < 3) return false;
    const unsigned char *b = (const unsigned char *)c.at;
    uint32_t code =
        c.n == 3 ? (uint32_t)(b[0] & 0x0fU) << 12 | (uint32_t)(b[1] & 0x3fU) << 6 | (b[2] & 0x3fU)
                 : (uint32_t)(b[0] & 0x07U) << 18 | (uint32_t)(b[1] & 0x3fU) << 12 |
                       (uint32_t)(b[2] & 0x3fU) << 6 | (b[3] & 0x3fU);
    static const uint32_t ranges[][2] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3},
        {0xf900, 0xfaff}, {0xfe30, 0xfe6f}, {0xff00, 0xff60}, {0xffe0, 0xffe6}, {0x1f300, 0x1faff},
        {0x20000, 0x3fffd}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
    }
    return false;
}

static kt_str line_text(kt_place at) {
    const kt_source *source = at.source;
    if (at.line < 1 || at.line > source->n_lines) return KT_STR("");
    size_t from = source->line_starts[at.line - 1];
    size_t to = at.line == source->n_lines ? source->text.n : source->line_starts[at.line];
    while (to > from && (source->text.at[to - 1] == '\n' || source->text.at[to - 1] == '\r')) to--;
    return kt_str_slice(source->text, from, to);
}

// The mark under one character: blank before the place, '^' at its start, '~' in the rest of it.
static void print_mark(kt_place at, int here, kt_str c, kt_buf *out) {
    char mark = '~';
    if (here < at.col) mark = ' ';
    if (here == at.col) mark = '^';
    if (here >= at.col + at.width && here > at.col) return;
    if (mark == ' ' && c.at[0] == '\t') mark = '\t';
    kt_buf_add(out, &mark, 1);
    if (is_wide(c)) kt_buf_add(out, mark == ' ' ? " " : "~", 1);
}

// The line and a caret under [col, col + width). A long line is shown around the caret.
static void print_line(kt_place at, kt_buf *out) {
    kt_str line = line_text(at);
    bool valid = kt_utf8_valid(line); // if not, characters are bytes
    int first = at.col > LINE_CHARS - 40 ? at.col - LINE_CHARS / 2 : 1;
    int last = first + LINE_CHARS - 1, col = 1;
    kt_buf marks = {0};
    kt_buf_printf(&marks, "%s", first > 1 ? "    " : "");
    kt_buf_printf(out, "%5d | %s", at.line, first > 1 ? "... " : "");
    size_t i = 0;
    while (i < line.n && col <= last) {
        size_t n = valid ? char_bytes(line, i) : 1;
        kt_str c = kt_str_slice(line, i, i + n);
        i += n;
        int here = col++;
        if (here < first) continue;
        char single = c.at[0];
        if (single != '\t') single = printable(single);
        if (!valid && (unsigned char)single >= 0x80U) single = '?';
        kt_buf_add(out, n > 1 ? c.at : &single, n);
        print_mark(at, here, c, &marks);
    }
    if (at.col >= col && at.col - col < LINE_CHARS) kt_buf_printf(&marks, "%*s^", at.col - col, "");
    kt_buf_printf(out, "%s\n      | %s\n", i < line.n ? " ..." : "", marks.at);
    kt_buf_deinit(&marks);
}

static void print_entry(const kt_diag_entry *entry, kt_buf *out) {
    if (entry->at.source != NULL) {
        kt_place_print(entry->at, out);
    } else {
        kt_buf_printf(out, "kotaro");
    }
    kt_buf_printf(out, ": %s: %s [%s]\n",
        entry->severity == KT_SEVERITY_ERROR ? "error" : "warning", entry->message,
        kt_rule_name(entry->rule));
    if (entry->at.source != NULL) print_line(entry->at, out);
    for (size_t i = 0; i < entry->notes.n; i++)
        kt_buf_printf(out, "   note: %s\n", entry->notes.at[i]);
}

void kt_diag_print(const kt_diag *diag, kt_buf *out) {
    size_t n = diag->entries.n;
    // NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers
    const kt_diag_entry **sorted = KT_NEW_ARRAY(diag->arena, const kt_diag_entry *, n);
    for (size_t i = 0; i < n; i++) sorted[i] = &diag->entries.at[i];
    qsort(sorted, n, sizeof(void *), compare_entries);
    int shown[2] = {0, 0}, repeats[2] = {0, 0};
    for (size_t i = 0; i < n; i++) {
        kt_severity severity = sorted[i]->severity;
        if (i > 0 && is_repeat(sorted[i], sorted[i - 1])) {
            repeats[severity]++;
            continue;
        }
        if (shown[severity] == SHOWN_ERRORS) continue;
        if (shown[0] + shown[1] > 0) kt_buf_printf(out, "\n");
        print_entry(sorted[i], out);
        shown[severity]++;
    }
    int more = diag->n_errors - shown[0] - repeats[0];
    if (more > 0) kt_buf_printf(out, "\nand %d more error%s\n", more, more == 1 ? "" : "s");
    more = diag->n_warnings - shown[1] - repeats[1];
    if (more > 0) kt_buf_printf(out, "\nand %d more warning%s\n", more, more == 1 ? "" : "s");
}
