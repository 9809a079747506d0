// config.json and its neighbours, or the metadata of GGUF files: numbers and texts by dotted key.
// Lives in the arena it was read into; any thread.
#ifndef KT_LOADER_CONFIG_H
#define KT_LOADER_CONFIG_H

#include "loader/gguf.h"
#include "loader/value.h"
#include "runtime/base/str.h"

typedef struct kt_config kt_config;

// Reads a JSON object into the arena. Limits: 64 MiB, depth 64, no duplicate keys. Errors: EFILE
// when it cannot be read, EFORMAT with file, line and column.
kt_status kt_config_open(
    kt_arena *arena, const char *path, const kt_config **out, kt_err *err) KT_MUST_CHECK;
// The metadata of `n` files as one: a key is looked for in one after the other. $arch in a key is
// the file's general.architecture, and KEY.length is the length of the list at KEY.
const kt_config *kt_config_from_gguf(kt_arena *arena, const kt_gguf *const *files, int n);
// The number or boolean (0, 1) at "a.b.c", or the number that a list holds throughout ([0.5, 0.5,
// 0.5]); false if there is none (null included).
bool kt_config_number(const kt_config *config, kt_str key, kt_value *out);
// Is there a value at the key that is neither null nor a number in the sense above?
bool kt_config_no_number(const kt_config *config, kt_str key);
bool kt_config_text(const kt_config *config, kt_str key, kt_str *out);
// Appends the integer, or the list of integers, at the key; nothing if there is none.
typedef KT_VEC(int64_t) kt_config_ids;
void kt_config_integers(const kt_config *config, kt_str key, kt_arena *arena, kt_config_ids *out);
// The text or number at the key, for messages: "the text 'x'", "nothing" ...
const char *kt_config_describe(const kt_config *config, kt_str key, kt_arena *arena);
const char *kt_config_path(const kt_config *config); // of several files: with commas

#endif
