// Reading maps against a table of keys: unknown and missing keys, help, suggestions.
#ifndef KT_LOADER_SCHEMA_H
#define KT_LOADER_SCHEMA_H

#include "loader/yaml.h"

typedef struct kt_key {
    const char *name;
    bool required;
    int kinds; // bits: 1 scalar, 2 list, 4 map; 0 any
} kt_key;

enum { KT_KEY_SCALAR = 1, KT_KEY_LIST = 2, KT_KEY_MAP = 4 };

// Checks that `map` is a map that holds all required keys, none but the listed ones (unless
// `open`), each of an allowed kind.
bool kt_schema_check(
    const kt_node *map, const char *what, const kt_key *keys, size_t n, bool open, kt_diag *diag);
// The first key must be `kotaro: <kind>/1`; says what else the file is, or which version this
// program knows.
bool kt_schema_kind(const kt_node *root, const char *kind, kt_diag *diag);
bool kt_schema_bool(const kt_node *scalar, kt_diag *diag, bool *out); // true | false only
bool kt_schema_int(const kt_node *scalar, const char *what, kt_diag *diag, int64_t *out);
bool kt_schema_real(const kt_node *scalar, const char *what, kt_diag *diag, double *out);
bool kt_schema_name(const kt_node *scalar, const char *what, kt_diag *diag,
    kt_str *out); // [A-Za-z_][A-Za-z0-9_]*, dots allowed between parts

#endif
