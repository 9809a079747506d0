// The header of a .gguf file: metadata by key and the table of tensors, versions 2 and 3,
// little-endian.
//
// Everything is checked before it is believed: counts and lengths against what is left of the file,
// types, nesting of lists (at most 4), names, duplicate keys and tensors, block sizes, the
// alignment, ranges inside the file that neither overlap nor leave a hole (bytes behind the last
// tensor are nobody's, and allowed). The header has at most 128 MiB; it is read once and stays in
// the arena, which texts and lists point into. Any thread.
//
// A tensor's axes, stored fastest first, become [rows, columns]; of a quantised type
// [rows, columns / block, bytes of a block] of u8. Numbers and blocks of types are those of ggml.
// Source: docs/gguf.md and the type table of ggml in ggml-org/ggml.
#ifndef KT_LOADER_GGUF_H
#define KT_LOADER_GGUF_H

#include "loader/checkpoint.h"
#include "loader/value.h"

typedef enum kt_gguf_kind {
    KT_GGUF_U8,
    KT_GGUF_I8,
    KT_GGUF_U16,
    KT_GGUF_I16,
    KT_GGUF_U32,
    KT_GGUF_I32,
    KT_GGUF_F32,
    KT_GGUF_BOOL,
    KT_GGUF_TEXT,
    KT_GGUF_LIST,
    KT_GGUF_U64,
    KT_GGUF_I64,
    KT_GGUF_F64,
    KT_GGUF_KIND_COUNT
} kt_gguf_kind;

typedef struct kt_gguf_value {
    kt_gguf_kind kind;
    kt_gguf_kind item_kind; // of a list
    int64_t n;              // of a list: items
    const char *at;         // the number; the length of a text; the first item of a list
} kt_gguf_value;

typedef struct kt_gguf_key {
    kt_str name;
    kt_gguf_value value;
} kt_gguf_key;

typedef struct kt_gguf {
    const char *path;
    const kt_gguf_key *keys; // in the order of the file
    int n_keys;
    kt_table by_name; // key -> index
} kt_gguf;

enum { KT_GGUF_HEADER_MAX = 128 << 20 }; // bytes

// Reads the header of an open file into the arena. *stored gets the tensors in order of offset,
// `file` = file_index. Errors: EFILE (reading), EFORMAT (file, place, both values, remedy).
kt_status kt_gguf_read(kt_arena *arena, const kt_checkpoint_file *file, int file_index,
    const kt_gguf **out, kt_stored **stored, int64_t *n, kt_err *err) KT_MUST_CHECK;
// What the first bytes of a file say.
typedef struct kt_gguf_header {
    kt_gguf gguf;
    kt_stored *stored; // in order of offset
    int64_t n;
    bool more; // the header goes on behind the bytes: EFORMAT, and nothing else is set
} kt_gguf_header;
// The same from the first bytes of the file at `path`, which has `file_bytes`. `bytes` must stay.
// For kt_gguf_read and tests.
kt_status kt_gguf_parse(kt_arena *arena, kt_str bytes, int64_t file_bytes, const char *path,
    kt_gguf_header *out, kt_err *err) KT_MUST_CHECK;

const kt_gguf_value *kt_gguf_find(const kt_gguf *gguf, kt_str key); // NULL if absent
// False (and *out as it was) unless the value has that kind; NULL is no value. A number is also a
// truth (0, 1), and not one beyond int64_t.
bool kt_gguf_number(const kt_gguf_value *value, kt_value *out);
bool kt_gguf_text(const kt_gguf_value *value, kt_str *out);
// "a list of 3", "the number 3", "the text 'x'" ... for messages. NULL gives "nothing".
const char *kt_gguf_describe(kt_arena *arena, const kt_gguf_value *value);

// The items of a list one after the other: kt_gguf_walk walk = kt_gguf_items(list); while
// (kt_gguf_next(&walk, &item)) ... No items if it is no list.
typedef struct kt_gguf_walk {
    kt_gguf_kind kind;
    int64_t left;
    const char *at;
} kt_gguf_walk;
kt_gguf_walk kt_gguf_items(const kt_gguf_value *list);
bool kt_gguf_next(kt_gguf_walk *walk, kt_gguf_value *item);

// The name of a type of tensors ("Q4_K"); NULL for a number that is not known.
const char *kt_gguf_type_name(int ggml_type);
// Numbers that one block of the type holds (1 for plain numbers); 0 for a number not known.
int kt_gguf_type_block(int ggml_type);

// What a block of a type holds in f16: scales and minima.
typedef struct kt_gguf_halves {
    int block; // bytes
    int n;     // 0: plain numbers, or a type that no shipped format reads
    int at[2]; // bytes from the start of the block, even
} kt_gguf_halves;
kt_gguf_halves kt_gguf_type_halves(int ggml_type);

#endif
