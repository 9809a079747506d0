// The small files beside a fabricated checkpoint: tokenizer, generation and preprocessor settings.
#ifndef KT_FABRICATE_WORDS_H
#define KT_FABRICATE_WORDS_H

#include "tools/fabricate/model.h"

enum { KT_WORDS_SPECIAL = 23 }; // named tokens at the end of the vocabulary

// tokenizer.json from a folder with vocab.json, merges.txt and tokenizer_config.json of the Qwen2
// kind (its own tokenizer.json, where it has one, is taken as it is). Errors: EFILE, EFORMAT.
kt_status kt_words_compose(
    kt_arena *arena, const char *folder, kt_buf *out, kt_err *err) KT_MUST_CHECK;
// tokenizer.json of `vocab` entries: the 256 bytes as in Qwen2, invented words of two-letter
// syllables with their merges, and the markup of MiniCPM-V 2.6 at its places (with its vocabulary
// of 151,666: at its ids).
void kt_words_invent(int64_t vocab, kt_buf *out);
void kt_words_generation(const kt_geometry *geometry, kt_buf *out);   // generation_config.json
void kt_words_preprocessor(const kt_geometry *geometry, kt_buf *out); // preprocessor_config.json

#endif
