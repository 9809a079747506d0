// The kinds of damage that tests/test_damage.c does to good checkpoints.
#ifndef KT_TESTS_DAMAGE_TABLE_H
#define KT_TESTS_DAMAGE_TABLE_H

#include <stdint.h>

enum { DAMAGE_EDITS = 3 };

typedef enum damage_verb {
    DAMAGE_NONE,
    DAMAGE_TEXT,   // in a text file: a becomes b
    DAMAGE_WRITE,  // a is the whole file
    DAMAGE_HEADER, // in a safetensors header: a becomes b
    DAMAGE_LENGTH, // the stored length of the header: n (m 1), or n more than it is (m 0)
    DAMAGE_CUT,    // to n bytes; n < 0: by so many
    DAMAGE_APPEND, // a, at the end
    DAMAGE_REMOVE,
    DAMAGE_FOLDER, // a folder takes its place
    DAMAGE_LINK,   // a link to a takes its place
    DAMAGE_MOVE,   // the range of tensor a begins n later and ends m later
    DAMAGE_PATCH,  // bytes b (hex) at byte n of tensor a
    DAMAGE_BYTES,  // bytes b (hex) at byte n of the file
    DAMAGE_RETEXT, // inside tensor a, "old|new" of one length
    DAMAGE_NEST,   // a becomes n lists within each other, in a header or a text
    DAMAGE_OTHER   // the file a of another base takes its place
} damage_verb;

typedef struct damage_edit {
    damage_verb verb;
    const char *file, *a, *b;
    int64_t n, m;
} damage_edit;

typedef struct damage_row {
    const char *name; // of the golden
    const char *what; // in words, for docs/notes/damage.md
    const char *base; // int4, bf16, gguf, or parts: bf16 in three files with an index
    damage_edit edits[DAMAGE_EDITS];
} damage_row;

extern const damage_row damage_rows[], harmless_rows[];
extern const int damage_n, harmless_n;

#endif
