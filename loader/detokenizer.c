#include "loader/detokenizer.h"

#include <string.h>

// The bytes that may come second after a first byte, and how many bytes the character has (0: none
// begins so). Source: Unicode 15.0, table 3-7, well-formed UTF-8 byte sequences.
typedef struct lead {
    int bytes;
    uint8_t low, high;
} lead;

static lead lead_of(uint8_t c) {
    if (c < 0x80) return (lead){1, 0, 0};
    if (c < 0xC2) return (lead){0, 0, 0};
    if (c < 0xE0) return (lead){2, 0x80, 0xBF};
    if (c == 0xE0) return (lead){3, 0xA0, 0xBF};
    if (c == 0xED) return (lead){3, 0x80, 0x9F};
    if (c < 0xF0) return (lead){3, 0x80, 0xBF};
    if (c == 0xF0) return (lead){4, 0x90, 0xBF};
    if (c < 0xF4) return (lead){4, 0x80, 0xBF};
    if (c == 0xF4) return (lead){4, 0x80, 0x8F};
    return (lead){0, 0, 0};
}

static void add_replacement(kt_buf *out) {
    kt_buf_add(out, "\xEF\xBF\xBD", 3);
}

// Whether `c` goes on with the character begun in the tail.
static bool continues(const kt_detokenizer *in, uint8_t c) {
    lead first = lead_of(in->tail[0]);
    if (in->n_tail == 1) return c >= first.low && c <= first.high;
    return c >= 0x80 && c <= 0xBF;
}

static void push_byte(kt_detokenizer *in, uint8_t c, kt_buf *out) {
    if (in->n_tail > 0 && !continues(in, c)) {
        add_replacement(out);
        in->n_tail = 0;
    }
    if (in->n_tail == 0) {
        int bytes = lead_of(c).bytes;
        if (bytes == 0) add_replacement(out);
        if (bytes == 1) kt_buf_add(out, &c, 1);
        if (bytes < 2) return;
    }
    in->tail[in->n_tail++] = c;
    if (in->n_tail < lead_of(in->tail[0]).bytes) return;
    kt_buf_add(out, in->tail, (size_t)in->n_tail);
    in->n_tail = 0;
}

void kt_detokenizer_init(
    kt_detokenizer *detokenizer, const kt_tokenizer *tokenizer, bool keep_special) {
    *detokenizer = (kt_detokenizer){.tokenizer = tokenizer, .keep_special = keep_special};
}

void kt_detokenizer_push(kt_detokenizer *detokenizer, int32_t id, kt_buf *out) {
    if (!detokenizer->keep_special && kt_tokenizer_is_special(detokenizer->tokenizer, id)) return;
    kt_str bytes = kt_tokenizer_bytes(detokenizer->tokenizer, id);
    for (size_t i = 0; i < bytes.n; i++) push_byte(detokenizer, (uint8_t)bytes.at[i], out);
}

void kt_detokenizer_flush(kt_detokenizer *detokenizer, kt_buf *out) {
    if (detokenizer->n_tail > 0) add_replacement(out);
    detokenizer->n_tail = 0;
}
