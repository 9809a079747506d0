// Declared parameters of ops, host steps and pipelines, and values for them.
#ifndef KT_LOADER_PARAM_H
#define KT_LOADER_PARAM_H

#include "loader/schema.h"
#include "loader/value.h"

typedef enum kt_param_kind {
    KT_PARAM_INT,
    KT_PARAM_F32,
    KT_PARAM_BOOL,
    KT_PARAM_STRING,
    KT_PARAM_CHOICE,
    KT_PARAM_LANGUAGE,
    KT_PARAM_TEXT,  // one string, or a map from language to string
    KT_PARAM_ITEMS, // list of { name, ask, title?, max_new? }
    KT_PARAM_IMAGE
} kt_param_kind;

typedef struct kt_param {
    kt_str name;
    kt_place at;
    kt_param_kind kind;
    const kt_node *default_value; // NULL: a value is required
    bool has_min, has_max;
    double min, max;
    const kt_str *choices; // KT_PARAM_CHOICE
    size_t n_choices;
    kt_str doc;
} kt_param;

// Reads `{ type: f32, default: 1e-6, min: 0, ... }`.
bool kt_param_parse(
    kt_arena *arena, kt_str name, kt_place at, const kt_node *map, kt_diag *diag, kt_param *out);
// Checks a value's form and range for the parameter (numbers, choices, bools, strings; text, items
// and image by kind of node).
bool kt_param_check(const kt_param *param, const kt_node *value, kt_diag *diag);
// The number of a value already checked: ints, reals, bools (0/1), choices (index).
bool kt_param_number(const kt_param *param, const kt_node *value, kt_value *out);
// A scalar node as if written on the command line (`--set name=text`).
const kt_node *kt_param_scalar(kt_arena *arena, kt_str text);

#endif
