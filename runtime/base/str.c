#include "runtime/base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- views

kt_str kt_str_from(const char *text) {
    return text == NULL ? (kt_str){"", 0} : (kt_str){text, strlen(text)};
}

kt_str kt_str_slice(kt_str s, size_t from, size_t to) {
    KT_ASSERT(from <= to && to <= s.n);
    return (kt_str){s.at + from, to - from};
}

bool kt_str_eq(kt_str a, kt_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.at, b.at, a.n) == 0);
}

bool kt_str_is(kt_str a, const char *b) {
    return kt_str_eq(a, kt_str_from(b));
}

int kt_str_cmp(kt_str a, kt_str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n == 0 ? 0 : memcmp(a.at, b.at, n);
    if (order != 0) return order;
    return a.n < b.n ? -1 : a.n > b.n ? 1 : 0;
}

bool kt_str_starts(kt_str s, kt_str prefix) {
    return s.n >= prefix.n && kt_str_eq(kt_str_slice(s, 0, prefix.n), prefix);
}

bool kt_str_ends(kt_str s, kt_str suffix) {
    return s.n >= suffix.n && kt_str_eq(kt_str_slice(s, s.n - suffix.n, s.n), suffix);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

kt_str kt_str_trim(kt_str s) {
    while (s.n > 0 && is_blank(s.at[0])) s = kt_str_slice(s, 1, s.n);
    while (s.n > 0 && is_blank(s.at[s.n - 1])) s.n--;
    return s;
}

ptrdiff_t kt_str_find(kt_str s, char c) {
    const char *hit = s.n == 0 ? NULL : memchr(s.at, c, s.n);
    return hit == NULL ? -1 : hit - s.at;
}

ptrdiff_t kt_str_find_last(kt_str s, char c) {
    for (size_t i = s.n; i > 0; i--) {
        if (s.at[i - 1] == c) return (ptrdiff_t)i - 1;
    }
    return -1;
}

ptrdiff_t kt_str_find_text(kt_str s, const char *text) {
    size_t n = strlen(text);
    for (size_t i = 0; i + n <= s.n; i++)
        if (memcmp(s.at + i, text, n) == 0) return (ptrdiff_t)i;
    return -1;
}

char *kt_str_z(kt_arena *arena, kt_str s) {
    return kt_arena_copy(arena, s.at, s.n);
}

kt_str kt_str_copy(kt_arena *arena, kt_str s) {
    return (kt_str){kt_arena_copy(arena, s.at, s.n), s.n};
}

// FNV-1a, 64 bits. source: draft-eastlake-fnv, section 2
uint64_t kt_str_hash(kt_str s) {
    uint64_t hash = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < s.n; i++) {
        hash ^= (unsigned char)s.at[i];
        hash *= 0x100000001b3ULL;
    }
    return hash;
}

// Only the newest '*' is ever retried: an earlier one gains nothing from taking more.
bool kt_str_match(kt_str pattern, kt_str s) {
    size_t p = 0, i = 0, star = SIZE_MAX, star_i = 0;
    while (i < s.n) {
        if (p < pattern.n && pattern.at[p] == '*') {
            star = p++;
            star_i = i;
        } else if (p < pattern.n && pattern.at[p] == s.at[i]) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++star_i;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.at[p] == '*') p++;
    return p == pattern.n;
}

// ---- numbers

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool kt_str_to_i64(kt_str s, int64_t *out) {
    bool negative = s.n > 0 && s.at[0] == '-';
    size_t i = s.n > 0 && (s.at[0] == '-' || s.at[0] == '+') ? 1 : 0;
    if (i == s.n) return false;
    uint64_t limit = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    uint64_t value = 0;
    for (; i < s.n; i++) {
        if (!is_digit(s.at[i])) return false;
        uint64_t digit = (uint64_t)(s.at[i] - '0');
        if (value > (limit - digit) / 10) return false;
        value = value * 10 + digit;
    }
    if (!negative) {
        *out = (int64_t)value;
    } else {
        *out = value == limit ? INT64_MIN : -(int64_t)value;
    }
    return true;
}

// Digits with an optional point and exponent: no hexadecimal, no "inf", no blanks, which strtod
// would take.
static bool is_decimal(kt_str s) {
    size_t i = s.n > 0 && (s.at[0] == '-' || s.at[0] == '+') ? 1 : 0;
    size_t digits = 0;
    for (; i < s.n && is_digit(s.at[i]); i++) digits++;
    if (i < s.n && s.at[i] == '.') {
        for (i++; i < s.n && is_digit(s.at[i]); i++) digits++;
    }
    if (digits == 0) return false;
    if (i < s.n && (s.at[i] == 'e' || s.at[i] == 'E')) {
        i++;
        if (i < s.n && (s.at[i] == '-' || s.at[i] == '+')) i++;
        if (i == s.n) return false;
        while (i < s.n && is_digit(s.at[i])) i++;
    }
    return i == s.n;
}

bool kt_str_to_f64(kt_str s, double *out) {
    char text[128];
    if (s.n >= sizeof text || !is_decimal(s)) return false;
    memcpy(text, s.at, s.n);
    text[s.n] = 0;
    char *end;
    double value = strtod(text, &end);
    bool finite =
        value - value == 0.0; // too large gives infinity; too small rounds to a tiny value
    if (*end != 0 || !finite) return false;
    *out = value;
    return true;
}

bool kt_str_to_bytes(kt_str s, int64_t *out) {
    int shift = 0;
    if (s.n > 0) {
        char unit = s.at[s.n - 1];
        if (unit == 'K' || unit == 'k') shift = 10;
        if (unit == 'M' || unit == 'm') shift = 20;
        if (unit == 'G' || unit == 'g') shift = 30;
        if (unit == 'T' || unit == 't') shift = 40;
    }
    if (shift > 0) s.n--;
    int64_t whole;
    if (kt_str_to_i64(s, &whole)) return kt_mul(whole, (int64_t)1 << shift, out);
    double value;
    if (shift == 0 || !kt_str_to_f64(s, &value)) return false;
    value *= (double)((int64_t)1 << shift);
    if (value < 0.0 || value >= 9.2e18) return false;
    *out = (int64_t)value;
    return true;
}

bool kt_mul(int64_t a, int64_t b, int64_t *out) {
    if (a < 0 || b < 0 || (b != 0 && a > INT64_MAX / b)) return false;
    *out = a * b;
    return true;
}

bool kt_add(int64_t a, int64_t b, int64_t *out) {
    if (a < 0 || b < 0 || a > INT64_MAX - b) return false;
    *out = a + b;
    return true;
}

// ---- UTF-8

// Bytes of the well-formed character at s.at[i], or 0. source: the Unicode Standard 15, table 3-7
static size_t utf8_length(kt_str s, size_t i) {
    unsigned char lead = (unsigned char)s.at[i];
    if (lead < 0x80U) return 1;
    size_t n = lead >= 0xf0U ? 4 : lead >= 0xe0U ? 3 : 2;
    if (lead < 0xc2U || lead > 0xf4U || s.n - i < n) return 0;
    unsigned char second = (unsigned char)s.at[i + 1];
    unsigned char low = lead == 0xe0U ? 0xa0U : lead == 0xf0U ? 0x90U : 0x80U;
    unsigned char high = lead == 0xedU ? 0x9fU : lead == 0xf4U ? 0x8fU : 0xbfU;
    if (second < low || second > high) return 0;
    for (size_t k = 2; k < n; k++) {
        if (((unsigned char)s.at[i + k] & 0xc0U) != 0x80U) return 0;
    }
    return n;
}

size_t kt_utf8_count(kt_str s) {
    size_t count = 0;
    for (size_t i = 0; i < s.n; count++) {
        size_t n = utf8_length(s, i);
        i += n == 0 ? 1 : n;
    }
    return count;
}

bool kt_utf8_valid(kt_str s) {
    for (size_t i = 0; i < s.n;) {
        size_t n = utf8_length(s, i);
        if (n == 0) return false;
        i += n;
    }
    return true;
}

// ---- suggestions

static int min_int(int a, int b) {
    return a < b ? a : b;
}

// Optimal string alignment: insert, delete, replace, swap of neighbours cost 1 each.
int kt_str_distance(kt_str a, kt_str b, int limit) {
    enum { MAX = 64 };
    size_t gap = a.n > b.n ? a.n - b.n : b.n - a.n;
    if (limit < 0 || gap > (size_t)limit) return limit + 1;
    if (a.n > MAX || b.n > MAX) return kt_str_eq(a, b) ? 0 : limit + 1;
    int rows[3][MAX + 1];
    int *two_ago = rows[0], *one_ago = rows[1], *now = rows[2];
    for (size_t j = 0; j <= b.n; j++) one_ago[j] = (int)j;
    for (size_t i = 1; i <= a.n; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= b.n; j++) {
            int replace = one_ago[j - 1] + (a.at[i - 1] == b.at[j - 1] ? 0 : 1);
            now[j] = min_int(replace, 1 + min_int(one_ago[j], now[j - 1]));
            bool swapped =
                i > 1 && j > 1 && a.at[i - 1] == b.at[j - 2] && a.at[i - 2] == b.at[j - 1];
            if (swapped) now[j] = min_int(now[j], two_ago[j - 2] + 1);
        }
        int *spare = two_ago;
        two_ago = one_ago;
        one_ago = now;
        now = spare;
    }
    return min_int(one_ago[b.n], limit + 1);
}

int kt_str_near(kt_str name, const kt_str *known, size_t n, kt_str out[2]) {
    int limit = name.n <= 3 ? 1 : name.n <= 7 ? 2 : 3;
    int score[2] = {limit + 1, limit + 1};
    int found = 0;
    for (size_t i = 0; i < n; i++) {
        int d = kt_str_distance(name, known[i], limit);
        // A beginning that was typed so far is a good guess, however long the rest is.
        bool prefix = name.n >= 3 && kt_str_starts(known[i], name);
        if (prefix && d > 1) d = 1;
        if (d > limit || d >= (int)known[i].n)
            continue; // a distance of the whole name says nothing
        if (d < score[0]) {
            score[1] = score[0];
            out[1] = out[0];
            score[0] = d;
            out[0] = known[i];
        } else if (d < score[1]) {
            score[1] = d;
            out[1] = known[i];
        } else {
            continue;
        }
        found = min_int(found + 1, 2);
    }
    return found;
}

// ---- text buffer

static void reserve(kt_buf *buf, size_t more) {
    if (more >= SIZE_MAX / 2 - buf->n) kt_out_of_memory(more);
    size_t need = buf->n + more + 1;
    if (need <= buf->cap) return;
    size_t cap = buf->cap < 64 ? 64 : buf->cap * 2;
    if (cap < need) cap = need;
    char *at = realloc(buf->at, cap);
    if (at == NULL) kt_out_of_memory(cap);
    buf->at = at;
    buf->cap = cap;
}

void kt_buf_deinit(kt_buf *buf) {
    free(buf->at);
    *buf = (kt_buf){0};
}

void kt_buf_clear(kt_buf *buf) {
    buf->n = 0;
    if (buf->at != NULL) buf->at[0] = 0;
}

void kt_buf_add(kt_buf *buf, const void *bytes, size_t n) {
    reserve(buf, n);
    if (n > 0) memcpy(buf->at + buf->n, bytes, n);
    buf->n += n;
    buf->at[buf->n] = 0;
}

void kt_buf_str(kt_buf *buf, kt_str s) {
    kt_buf_add(buf, s.at, s.n);
}

void kt_buf_printfv(kt_buf *buf, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    KT_ASSERT(n >= 0);
    reserve(buf, (size_t)n);
    vsnprintf(buf->at + buf->n, (size_t)n + 1, fmt, again);
    va_end(again);
    buf->n += (size_t)n;
}

void kt_buf_printf(kt_buf *buf, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    kt_buf_printfv(buf, fmt, args);
    va_end(args);
}

// ---- table

struct kt_table_slot {
    kt_str name; // at == NULL: empty
    int64_t value;
};

void kt_table_init(kt_table *table, kt_arena *arena) {
    *table = (kt_table){.arena = arena};
}

// The slot that holds `name`, or the empty one where it belongs. cap is a power of two and never
// full.
static struct kt_table_slot *slot_of(const kt_table *table, kt_str name) {
    size_t at = (size_t)kt_str_hash(name) & (table->cap - 1);
    while (table->slots[at].name.at != NULL && !kt_str_eq(table->slots[at].name, name))
        at = (at + 1) & (table->cap - 1);
    return &table->slots[at];
}

static void widen(kt_table *table) {
    kt_table old = *table;
    table->cap = old.cap == 0 ? 16 : old.cap * 2;
    table->slots = KT_NEW_ARRAY(table->arena, struct kt_table_slot, table->cap);
    for (size_t i = 0; i < old.cap; i++) {
        if (old.slots[i].name.at != NULL) *slot_of(table, old.slots[i].name) = old.slots[i];
    }
}

void kt_table_set(kt_table *table, kt_str name, int64_t value) {
    if ((table->n + 1) * 4 > table->cap * 3) widen(table);
    struct kt_table_slot *slot = slot_of(table, name);
    if (slot->name.at == NULL) {
        slot->name = name.at == NULL ? (kt_str){"", 0} : name;
        table->n++;
    }
    slot->value = value;
}

bool kt_table_find(const kt_table *table, kt_str name, int64_t *out) {
    if (table->cap == 0) return false;
    const struct kt_table_slot *slot = slot_of(table, name);
    if (slot->name.at == NULL) return false;
    *out = slot->value;
    return true;
}
