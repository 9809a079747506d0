// config.json and its neighbours: numbers and texts by dotted key. Lives in the arena it was read
// into; any thread.
#ifndef KT_LOADER_CONFIG_H
#define KT_LOADER_CONFIG_H

#include "loader/value.h"
#include "runtime/base/str.h"

typedef struct kt_config kt_config;

// Reads a JSON object into the arena. Limits: 64 MiB, depth 64, no duplicate keys. Errors: EFILE
// when it cannot be read, EFORMAT with file, line and column.
kt_status kt_config_open(
    kt_arena *arena, const char *path, const kt_config **out, kt_err *err) KT_MUST_CHECK;
// The number or boolean (0, 1) at "a.b.c", or the number that a list holds throughout ([0.5, 0.5,
// 0.5]); false if there is none (null included).
bool kt_config_number(const kt_config *config, kt_str key, kt_value *out);
// Is there a value at the key that is neither null nor a number in the sense above?
bool kt_config_no_number(const kt_config *config, kt_str key);
bool kt_config_text(const kt_config *config, kt_str key, kt_str *out);
const char *kt_config_path(const kt_config *config);

#endif
