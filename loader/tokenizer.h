// Text to token ids and back: byte-level BPE as a Hugging Face tokenizer.json, or a GGUF file,
// describes it.
//
// All comes from the file: vocabulary, merges, normaliser (NFC), the patterns that cut text into
// pieces, added tokens with their flags. A GGUF file names the patterns instead
// (tokenizer.ggml.pre): the names known are those of tokenizer_gguf.c. What is not supported is
// refused by name when the file is opened. A tokenizer does not change after that: several threads
// may use it. Text must be valid UTF-8. No token is added to what is encoded (the file's
// post-processor is not used: the chat template writes what a prompt needs).
#ifndef KT_LOADER_TOKENIZER_H
#define KT_LOADER_TOKENIZER_H

#include "runtime/base/str.h"

typedef struct kt_tokenizer kt_tokenizer;

// A growing list of token ids in an arena.
typedef struct kt_ids {
    int32_t *at;
    size_t n, cap;
} kt_ids;

// A stretch of text, and whether special tokens are looked for in it (the program's own markup) or
// not (a user's words).
typedef struct kt_zone {
    size_t bytes;
    bool special;
} kt_zone;

enum { KT_TOKENIZER_TEXT_MAX = 4 << 20 }; // bytes of one text

// Errors: EFILE; EFORMAT with the place in the file and what is not supported.
kt_status kt_tokenizer_open(const char *path, kt_tokenizer **out, kt_err *err) KT_MUST_CHECK;
// The same from memory; `name` stands for the file in messages. `json` is not kept.
kt_status kt_tokenizer_parse(
    kt_str json, const char *name, kt_tokenizer **out, kt_err *err) KT_MUST_CHECK;
void kt_tokenizer_close(kt_tokenizer *tokenizer); // NULL is fine

const char *kt_tokenizer_name(const kt_tokenizer *tokenizer); // of its file, as messages say it
int32_t kt_tokenizer_size(
    const kt_tokenizer *tokenizer); // highest id + 1; not every id below need be in use
// The id of a token by the text it stands for: an added token's content, or a vocabulary entry's
// decoded bytes.
bool kt_tokenizer_find(const kt_tokenizer *tokenizer, kt_str token, int32_t *id);
// The bytes a token stands for (part of a character perhaps); empty for an id that is not in use.
kt_str kt_tokenizer_bytes(const kt_tokenizer *tokenizer, int32_t id);
bool kt_tokenizer_is_special(const kt_tokenizer *tokenizer, int32_t id);
bool kt_tokenizer_is_added(const kt_tokenizer *tokenizer, int32_t id); // special or not

// Appends the ids of `text`. With allow_special false, the names of special tokens are plain text.
// Errors: EPROMPT (invalid UTF-8, with the byte offset; too long; a byte without a token).
kt_status kt_tokenizer_encode(const kt_tokenizer *tokenizer, kt_arena *arena, kt_str text,
    bool allow_special, kt_ids *ids, kt_err *err) KT_MUST_CHECK;
// The same for a text of several zones, which together cover it. The text is encoded as one whole
// (pieces and merges cross zones), but a special token is only found wholly inside neighbouring
// zones that allow it.
kt_status kt_tokenizer_encode_zones(const kt_tokenizer *tokenizer, kt_arena *arena, kt_str text,
    const kt_zone *zones, size_t n_zones, kt_ids *ids, kt_err *err) KT_MUST_CHECK;

// The first byte that does not belong to valid UTF-8, or text.n.
size_t kt_tokenizer_invalid_at(kt_str text);

#endif
