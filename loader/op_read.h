// What the parts of the manifest reader share: op.c (contract), op_variant.c (solutions),
// op_check.c (checks across keys). Nobody else includes this.
#ifndef KT_LOADER_OP_READ_H
#define KT_LOADER_OP_READ_H

#include "loader/op.h"

enum { KT_OP_MAX_ENTRIES = 128 }; // of every list and map of a manifest

typedef struct kt_op_reader {
    kt_arena *arena;
    kt_diag *diag;
    const kt_node *root;
    kt_op *op;
    kt_op_dim *dims;  // op->dims, still to be written
    bool types_known; // every type of a port could be read
    bool body_known;  // every step of the body could be read
    bool names_known; // no expression uses an unknown name
    bool dims_known;  // `dims` is a map
    bool keys_known;  // no key of the manifest is unknown
    bool layout_bad;  // a layout of the variant at hand names no weight
} kt_op_reader;

// A set of names that an expression may use, with the words for it.
typedef struct kt_op_names {
    const kt_str *at;
    size_t n;
} kt_op_names;

// root[key] if it is there and of this kind; reports too many entries. NULL otherwise.
const kt_node *kt_op_section(
    kt_op_reader *r, const kt_node *map, const char *key, kt_node_kind kind);
// A name without dots that is no word of expressions. Reports.
bool kt_op_plain_name(kt_op_reader *r, kt_str name, kt_place at, const char *what);
// Reports every name of `expr` that is not in `names`.
void kt_op_check_names(kt_op_reader *r, const kt_expr *expr, kt_op_names names, const char *what);
// The op's dims; with a variant its tune values; with `device` sm_count, smem_max, cc.
kt_op_names kt_op_known(kt_op_reader *r, const kt_variant *variant, bool device);

void kt_op_read_variants(kt_op_reader *r);
void kt_op_check_dims_used(kt_op_reader *r);
void kt_op_check_body(kt_op_reader *r);
void kt_op_check_macros(kt_op_reader *r);
void kt_op_check_prepare(kt_op_reader *r);
void kt_op_check_cases(kt_op_reader *r);

#endif
