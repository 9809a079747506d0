// Located diagnostics: mistakes in files that users write. Many are collected, then printed sorted.
//
//     file:line:col: error: message [rule]
//        37 |       grid: ceil_div(n, row)
//           |                         ^~~
//        note: did you mean 'rows'?
//
// A kt_diag owns nothing but what its arena holds. One thread at a time.
#ifndef KT_LOADER_DIAG_H
#define KT_LOADER_DIAG_H

#include "runtime/base/str.h"

// The text of one file that was read, with the starts of its lines.
typedef struct kt_source {
    const char *path; // as messages show it
    kt_str text;
    const size_t *line_starts;
    int n_lines;
} kt_source;

// A place in a file. line and col count from 1; col and width count characters. source NULL:
// nowhere (a default, the command line).
typedef struct kt_place {
    const kt_source *source;
    int line, col, width;
} kt_place;

// Rule names and a sentence each (`kotaro explain --rule NAME`).
#define KT_RULE_LIST(X)                                                                            \
    X(YAML, "yaml", "the file is not in the strict subset of YAML that Kotaro reads")              \
    X(KEY, "key", "a key is unknown, missing, given twice or of the wrong kind")                   \
    X(VALUE, "value", "a value is of the wrong type, out of range or not one of the choices")      \
    X(NAME, "name", "a name is unknown, defined twice or never used")                              \
    X(EXPR, "expr", "an expression cannot be read or computed")                                    \
    X(TYPE, "type", "a type cannot be read, or two types disagree")                                \
    X(SHAPE, "shape", "two sizes that must be equal are not")                                      \
    X(REQUIRE, "require", "a relation that a file states does not hold")                           \
    X(STEP, "step", "a step does not fit the contract of its op")                                  \
    X(STAGE, "stage", "a stage breaks a promise: graph, loop, each or order")                      \
    X(EXTENDS, "extends", "a file extends, includes or replaces something that is not there")      \
    X(WEIGHT, "weight", "weights and stored tensors do not match both ways")                       \
    X(CONFIG, "config", "the model folder's config.json does not give what the model file asks")   \
    X(VARIANT, "variant", "no variant of an op fits, or its launch leaves the limits")             \
    X(FILE, "file", "a file that another one names cannot be read")                                \
    X(LIMIT, "limit", "a bound on size or depth is exceeded")

typedef enum kt_rule {
#define KT_RULE_ENUM(code, name, text) KT_RULE_##code,
    KT_RULE_LIST(KT_RULE_ENUM)
#undef KT_RULE_ENUM
        KT_RULE_COUNT
} kt_rule;

typedef enum kt_severity { KT_SEVERITY_ERROR, KT_SEVERITY_WARNING } kt_severity;

typedef struct kt_diag_entry {
    kt_severity severity;
    kt_rule rule;
    kt_place at;
    const char *message;
    KT_VEC(const char *) notes;
} kt_diag_entry;

typedef struct kt_diag {
    kt_arena *arena;
    KT_VEC(kt_diag_entry) entries;
    int n_errors, n_warnings;
} kt_diag;

void kt_diag_init(kt_diag *diag, kt_arena *arena);
// Adds an error; later notes go to it. Returns false, so that a parser may `return
// kt_diag_error(...)`.
bool kt_diag_error(kt_diag *diag, kt_rule rule, kt_place at, const char *fmt, ...) KT_PRINTF(4, 5);
void kt_diag_warning(kt_diag *diag, kt_rule rule, kt_place at, const char *fmt, ...)
    KT_PRINTF(4, 5);
// A note to the last entry. The second form ends in ", at file:line:col".
void kt_diag_note(kt_diag *diag, const char *fmt, ...) KT_PRINTF(2, 3);
void kt_diag_note_at(kt_diag *diag, kt_place at, const char *fmt, ...) KT_PRINTF(3, 4);
// "did you mean 'a' or 'b'?" if something is near; with `list`, "expected one of: ..." (sorted, at
// most 20) too.
void kt_diag_near(kt_diag *diag, kt_str name, const kt_str *known, size_t n, bool list);
// Prints all, sorted by file and place, without repeats, at most 20 errors ("and 7 more").
void kt_diag_print(const kt_diag *diag, kt_buf *out);
// "file:line:col", or "(default)".
void kt_place_print(kt_place at, kt_buf *out);

const char *kt_rule_name(kt_rule rule);
const char *kt_rule_text(kt_rule rule);

// The place of the part [from, to) (bytes) of a one-line plain scalar that starts at `at`.
kt_place kt_place_part(kt_place at, kt_str text, size_t from, size_t to);

#endif
