// String views, checked arithmetic, edit distance, and a growable text buffer.
//
// A kt_str points into a file's text or an arena and owns nothing. It is not 0-terminated; print it
// with "%.*s" and KT_STR_ARG. Any thread.
#ifndef KT_BASE_STR_H
#define KT_BASE_STR_H

#include "runtime/base/arena.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kt_str {
    const char *at;
    size_t n; // bytes
} kt_str;

#define KT_STR(literal) ((kt_str){(literal), sizeof(literal) - 1})
#define KT_STR_ARG(s)   (int)(s).n, (s).at // for "%.*s"

kt_str kt_str_from(const char *text); // NULL gives the empty string
kt_str kt_str_slice(kt_str s, size_t from, size_t to);
bool kt_str_eq(kt_str a, kt_str b);
bool kt_str_is(kt_str a, const char *b);
int kt_str_cmp(kt_str a, kt_str b); // by bytes
bool kt_str_starts(kt_str s, kt_str prefix);
bool kt_str_ends(kt_str s, kt_str suffix);
kt_str kt_str_trim(kt_str s);                           // spaces and tabs
ptrdiff_t kt_str_find(kt_str s, char c);                // index or -1
ptrdiff_t kt_str_find_last(kt_str s, char c);           // index or -1
ptrdiff_t kt_str_find_text(kt_str s, const char *text); // index or -1
char *kt_str_z(kt_arena *arena, kt_str s);              // 0-terminated copy
kt_str kt_str_copy(kt_arena *arena, kt_str s);
uint64_t kt_str_hash(kt_str s);
bool kt_str_match(kt_str pattern, kt_str s); // '*' stands for any run of bytes
// The whole of s as a number; false if it is none or does not fit.
bool kt_str_to_i64(kt_str s, int64_t *out);
bool kt_str_to_f64(kt_str s, double *out);
// "8G", "512M", "64K", "1.5G" or plain bytes; powers of 1024.
bool kt_str_to_bytes(kt_str s, int64_t *out);
// Characters (code points) of UTF-8; malformed bytes count one each.
size_t kt_utf8_count(kt_str s);
bool kt_utf8_valid(kt_str s);

// Edit distance, at most `limit` + 1.
int kt_str_distance(kt_str a, kt_str b, int limit);
// At most two of `known` that look like `name` ("did you mean"), best first. Returns how many.
int kt_str_near(kt_str name, const kt_str *known, size_t n, kt_str out[2]);

// false on overflow or a negative operand.
bool kt_mul(int64_t a, int64_t b, int64_t *out);
bool kt_add(int64_t a, int64_t b, int64_t *out);

// Growable text on the heap; always 0-terminated once written. A zeroed kt_buf is ready for use.
typedef struct kt_buf {
    char *at;
    size_t n, cap;
} kt_buf;

void kt_buf_deinit(kt_buf *buf);
void kt_buf_clear(kt_buf *buf);
void kt_buf_add(kt_buf *buf, const void *bytes, size_t n);
void kt_buf_str(kt_buf *buf, kt_str s);
void kt_buf_printf(kt_buf *buf, const char *fmt, ...) KT_PRINTF(2, 3);
void kt_buf_printfv(kt_buf *buf, const char *fmt, va_list args) KT_PRINTF(2, 0);

// A table from names to int values (open addressing, grows in its arena).
typedef struct kt_table {
    kt_arena *arena;
    struct kt_table_slot *slots;
    size_t n, cap;
} kt_table;

void kt_table_init(kt_table *table, kt_arena *arena);
void kt_table_set(kt_table *table, kt_str name, int64_t value); // replaces
bool kt_table_find(const kt_table *table, kt_str name, int64_t *out);

#endif
