// Token ids to text as they come: whole characters only.
//
// Bytes that begin a character are held back until it is complete; what can never become one is
// written as U+FFFD, one for each longest prefix of a character (the Unicode recommendation, and
// what the reference does). So the text pushed piece by piece equals the text of all ids at once.
// One thread at a time; the tokenizer is lent.
#ifndef KT_LOADER_DETOKENIZER_H
#define KT_LOADER_DETOKENIZER_H

#include "loader/tokenizer.h"

typedef struct kt_detokenizer {
    const kt_tokenizer *tokenizer;
    bool keep_special; // write special tokens as their names; else they are dropped
    uint8_t tail[4];   // the beginning of a character
    int n_tail;
} kt_detokenizer;

void kt_detokenizer_init(
    kt_detokenizer *detokenizer, const kt_tokenizer *tokenizer, bool keep_special);
// Appends the text that became complete (maybe none). An id that is not in use is dropped.
void kt_detokenizer_push(kt_detokenizer *detokenizer, int32_t id, kt_buf *out);
// The end: a character that was begun becomes U+FFFD. Ready for another text then.
void kt_detokenizer_flush(kt_detokenizer *detokenizer, kt_buf *out);

#endif
