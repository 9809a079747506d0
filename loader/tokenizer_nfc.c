// The only user of utf8proc.
#include "loader/tokenizer_parts.h"

#include <stdlib.h>
#include <utf8proc.h>

size_t kt_tokenizer_invalid_at(kt_str text) {
    size_t at = 0;
    while (at < text.n) {
        if ((unsigned char)text.at[at] < 0x80) {
            at++;
            continue;
        }
        utf8proc_int32_t code;
        utf8proc_ssize_t n = utf8proc_iterate(
            (const utf8proc_uint8_t *)text.at + at, (utf8proc_ssize_t)(text.n - at), &code);
        if (n < 0) break;
        at += (size_t)n;
    }
    return at;
}

// Characters below U+0300 neither decompose in form C nor combine with each other; they begin with
// a byte below 0xCC.
static bool is_plain(kt_str text) {
    for (size_t i = 0; i < text.n; i++) {
        if ((unsigned char)text.at[i] >= 0xCC) return false;
    }
    return true;
}

kt_str kt_nfc(kt_arena *arena, kt_str text) {
    if (is_plain(text)) return text;
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text.at, (utf8proc_ssize_t)text.n,
        &made, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n == UTF8PROC_ERROR_NOMEM) kt_out_of_memory(text.n);
    KT_ASSERT(n >= 0); // the text is valid UTF-8
    kt_str out = {kt_arena_copy(arena, (const char *)made, (size_t)n), (size_t)n};
    free(made);
    return out;
}

// ---- white space
//
// The property White_Space. Source: Unicode 15.0, PropList.txt.

static bool is_space(int32_t c) {
    if (c <= 0x20) return c == 0x20 || (c >= 0x09 && c <= 0x0D);
    if (c >= 0x2000 && c <= 0x200A) return true;
    return c == 0x85 || c == 0xA0 || c == 0x1680 || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static size_t char_at(kt_str text, size_t at, int32_t *code) {
    utf8proc_ssize_t n = utf8proc_iterate(
        (const utf8proc_uint8_t *)text.at + at, (utf8proc_ssize_t)(text.n - at), code);
    KT_ASSERT(n > 0);
    return (size_t)n;
}

size_t kt_space_at_start(kt_str text) {
    size_t at = 0;
    while (at < text.n) {
        int32_t code;
        size_t n = char_at(text, at, &code);
        if (!is_space(code)) break;
        at += n;
    }
    return at;
}

size_t kt_space_at_end(kt_str text) {
    size_t end = text.n;
    while (end > 0) {
        size_t at = end - 1;
        while (at > 0 && ((unsigned char)text.at[at] & 0xC0) == 0x80) at--;
        int32_t code;
        char_at(text, at, &code);
        if (!is_space(code)) break;
        end = at;
    }
    return text.n - end;
}
