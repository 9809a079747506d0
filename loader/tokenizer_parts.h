// The parts of a tokenizer: cutting (PCRE2), normal form (utf8proc), added tokens, merging. Only
// loader/tokenizer*.c includes this.
#ifndef KT_LOADER_TOKENIZER_PARTS_H
#define KT_LOADER_TOKENIZER_PARTS_H

#include "loader/json.h"
#include "loader/tokenizer.h"

// ---- cutting a text into pieces: tokenizer_cut.c

typedef struct kt_cutter kt_cutter;

// Where pieces end, ascending; the first begins at 0.
typedef struct kt_ends {
    size_t *at;
    size_t n, cap;
} kt_ends;

// Memory of the matcher for one call of encode. Zeroed is ready.
typedef struct kt_cut_memory {
    void *match, *context, *stack;
} kt_cut_memory;

// `pattern` is a regular expression of the file (Oniguruma's language), or a plain text when
// literal. `where` names it in messages. Errors: EFORMAT.
kt_status kt_cutter_open(
    kt_str pattern, bool literal, const char *where, kt_cutter **out, kt_err *err) KT_MUST_CHECK;
void kt_cutter_close(kt_cutter *cutter);
// Cuts each piece of `text` again: every match is a piece, and so is what lies between matches.
kt_status kt_cutter_cut(const kt_cutter *cutter, kt_cut_memory *memory, kt_arena *arena,
    kt_str text, const kt_ends *in, kt_ends *out, kt_err *err) KT_MUST_CHECK;
void kt_cut_memory_deinit(kt_cut_memory *memory);

// ---- normal form: tokenizer_nfc.c

// Normalisation form C of valid UTF-8: the text itself where nothing changes, else in the arena.
kt_str kt_nfc(kt_arena *arena, kt_str text);
// Bytes of white space that end or begin a text.
size_t kt_space_at_end(kt_str text);
size_t kt_space_at_start(kt_str text);

// ---- added tokens: tokenizer_added.c

typedef struct kt_added {
    kt_str text; // in normal form if it is looked for in normalised text
    int32_t id;
    bool special, normalized, lstrip, rstrip;
} kt_added;

// Tokens sorted by text, no two the same.
typedef struct kt_added_list {
    kt_added *at;
    size_t n, cap;
} kt_added_list;

// One match: bytes from .. to of a text are this token.
typedef struct kt_added_match {
    size_t from, to;
    int32_t id;
} kt_added_match;

// A text with zones: for finding what is special where.
typedef struct kt_zoned {
    kt_str text;
    const kt_zone *zones;
    size_t n_zones;
} kt_zoned;

typedef struct kt_added_matches {
    kt_added_match *at;
    size_t n, cap;
} kt_added_matches;

void kt_added_sort(kt_added_list *list);
// All matches from left to right, the longest at each place; special ones only where their zones
// allow it.
void kt_added_find(kt_arena *arena, const kt_added_list *list, kt_zoned in, kt_added_matches *out);

// ---- vocabulary and merges: tokenizer_bpe.c

enum { KT_BPE_ID_MAX = 1 << 24 };

typedef struct kt_bpe {
    int32_t size;         // highest id of the vocabulary + 1
    kt_str *bytes;        // [size] what each token stands for; .at NULL where an id is not in use
    int32_t byte_id[256]; // the token of one byte, or -1
    kt_table by_bytes;    // token by what it stands for
    bool ignore_merges;   // a piece that is a token as a whole is taken as it is
    int32_t unk;          // for a byte without a token; -1: none
    struct kt_merge *merges; // open addressing, [n_slots]
    size_t n_slots;
} kt_bpe;

// Memory and the cache of one call of encode. Zeroed is ready; lives in `arena`.
typedef struct kt_bpe_memory {
    kt_arena *arena;
    struct kt_symbol *symbols;
    size_t symbols_cap;
    struct kt_pair *heap;
    size_t heap_n, heap_cap;
    struct kt_seen *seen; // pieces seen before
} kt_bpe_memory;

// Tokens and merges as lists, in the order of ids and ranks.
typedef struct kt_bpe_lists {
    const kt_str *tokens; // [n_tokens] in the alphabet of bytes; .at NULL: no token has this id
    // [n_tokens] true: an added token, which stands for itself and is not found by its bytes
    const bool *added;
    int32_t n_tokens;
    const kt_str *merges; // "a b"
    size_t n_merges;
    bool ignore_merges;
} kt_bpe_lists;

// The same from lists, whose texts must stay until it returns. Errors: EFORMAT.
kt_status kt_bpe_open_lists(kt_arena *arena, const kt_bpe_lists *lists, const char *name,
    kt_bpe *out, kt_err *err) KT_MUST_CHECK;
// Reads the `model` object of a tokenizer.json. Errors: EFORMAT.
kt_status kt_bpe_open(kt_arena *arena, const kt_json *model, const char *name, kt_bpe *out,
    kt_err *err) KT_MUST_CHECK;
// Appends the ids of a piece. The piece must stay where it is until the memory is given up. Errors:
// EPROMPT.
kt_status kt_bpe_encode(const kt_bpe *bpe, kt_bpe_memory *memory, kt_str piece, kt_arena *arena,
    kt_ids *ids, kt_err *err) KT_MUST_CHECK;

// ---- a whole tokenizer from its parts: tokenizer.c

typedef struct kt_tokenizer_made {
    bool nfc;
    const char *const *patterns; // pieces are cut by one after the other
    int n_patterns;
    kt_bpe_lists lists;
    const kt_added *added;
    size_t n_added;
} kt_tokenizer_made;

// Errors: EFORMAT; `name` stands for the file.
kt_status kt_tokenizer_make(
    const kt_tokenizer_made *made, const char *name, kt_tokenizer **out, kt_err *err) KT_MUST_CHECK;

// The pattern of GPT-2, and what ByteLevel means by use_regex.
extern const char kt_gpt2_pattern[];

// ---- the tokenizer of a GGUF file: tokenizer_gguf.c

// Errors: EFILE, EFORMAT.
kt_status kt_tokenizer_open_gguf(const char *path, kt_tokenizer **out, kt_err *err) KT_MUST_CHECK;

#endif
