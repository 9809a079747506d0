// Storage formats of weights (ops/formats/*.format.yaml): how the parts of one weight are found in
// a checkpoint.
#ifndef KT_LOADER_FORMAT_H
#define KT_LOADER_FORMAT_H

#include "loader/type.h"

typedef struct kt_format_part {
    kt_str name;
    kt_place at;
    kt_str tensor; // "$name.absmax"
    kt_type type;  // sizes in n, k and the format's values
} kt_format_part;

typedef struct kt_format_value {
    kt_str name;
    const kt_expr *expr;
} kt_format_value; // json(key)

typedef struct kt_format {
    kt_str name, doc;
    kt_place at;
    // A tensor name with $name; empty: the format of plain numbers; "ggml_type N".
    kt_str when;
    int ggml_type; // N of "ggml_type N", else -1
    const kt_str *also;
    int n_also;  // more tensors that must be stored, when `when` is a list
    kt_str json; // a tensor name with $name; empty: none
    const kt_str *typevars;
    const kt_dtype (*typevar_choices)[KT_DTYPE_COUNT];
    const int *n_typevar_choices;
    int n_typevars;
    const kt_format_value *values;
    int n_values;
    const kt_expr *const *require;
    int n_require;
    const kt_format_part *parts;
    int n_parts;
} kt_format;

const kt_format *kt_format_open(
    kt_arena *arena, const char *path, const char *shown, kt_diag *diag);
const kt_format_part *kt_format_part_find(const kt_format *format, kt_str name); // NULL if absent

#endif
