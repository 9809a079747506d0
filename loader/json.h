// JSON as a small read-only tree. The only module that knows the JSON library (jansson).
//
// A tree lives in the arena it was parsed into, texts included; nothing needs closing. Objects keep
// the order of the file; looking up a member is quick also in objects of 150,000 members. Duplicate
// member names are refused, texts are valid UTF-8, integers fit int64_t (others are refused, not
// rounded). Any thread.
#ifndef KT_LOADER_JSON_H
#define KT_LOADER_JSON_H

#include "runtime/base/str.h"

typedef enum kt_json_kind {
    KT_JSON_NULL,
    KT_JSON_BOOL,
    KT_JSON_INT,
    KT_JSON_REAL,
    KT_JSON_TEXT,
    KT_JSON_LIST,
    KT_JSON_OBJECT
} kt_json_kind;

typedef struct kt_json kt_json;
typedef struct kt_json_member kt_json_member;

struct kt_json {
    kt_json_kind kind;
    size_t n; // of a list or an object
    union {
        bool truth;
        int64_t integer;
        double real;
        kt_str text;
        const kt_json *items;
        const struct kt_json_object *object;
    } as;
};

struct kt_json_member {
    kt_str name;
    kt_json value;
};

// n members in file order, and for large objects a table by name (slots hold index + 1; n_slots is
// a power of two).
typedef struct kt_json_object {
    const kt_json_member *members;
    const uint32_t *slots; // NULL: search one by one
    size_t n_slots;
} kt_json_object;

typedef struct kt_json_limits {
    int64_t bytes;  // of the text
    int depth;      // of lists and objects within each other
    int64_t values; // in all; bounds the memory, about 150 bytes each while parsing
} kt_json_limits;

// Parses one value. `name` stands for the text in messages ("config.json"). Errors: EFORMAT as
// "name:line:column: what".
kt_status kt_json_parse(kt_arena *arena, kt_str text, const char *name, kt_json_limits limits,
    const kt_json **out, kt_err *err) KT_MUST_CHECK;
// The same for a file. Errors: EFILE when it cannot be read, EFORMAT.
kt_status kt_json_read(kt_arena *arena, const char *path, kt_json_limits limits,
    const kt_json **out, kt_err *err) KT_MUST_CHECK;

// The member of an object; NULL if there is none or `object` is NULL or no object.
const kt_json *kt_json_find(const kt_json *object, kt_str name);
// The i-th member of an object, i < n.
const kt_json_member *kt_json_member_at(const kt_json *object, size_t i);
// False (and *out as it was) unless the value has that kind; NULL is no value. A real takes
// integers too.
bool kt_json_get_text(const kt_json *value, kt_str *out);
bool kt_json_get_int(const kt_json *value, int64_t *out);
bool kt_json_get_real(const kt_json *value, double *out);
bool kt_json_get_bool(const kt_json *value, bool *out);
// "a list", "the number 3", "the text 'x'" ... for messages. NULL gives "nothing". Written to the
// arena.
const char *kt_json_describe(kt_arena *arena, const kt_json *value);

#endif
