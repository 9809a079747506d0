// Types as written: `f16[n, d]`, `linear[n, k]?`, `T[n]`, `each i32[n]`, or a host type such as
// `items`.
#ifndef KT_LOADER_TYPE_H
#define KT_LOADER_TYPE_H

#include "loader/expr.h"
#include "runtime/base/dtype.h"

typedef enum kt_base {
    KT_BASE_DTYPE,  // f16 and the like
    KT_BASE_LINEAR, // a logical weight in any storage format
    KT_BASE_VAR,    // a type variable of an op
    KT_BASE_HOST    // image text items prompt grid answers: values that only host steps see
} kt_base;

#define KT_HOST_TYPE_LIST(X)                                                                       \
    X(IMAGE, "image")                                                                              \
    X(TEXT, "text") X(ITEMS, "items") X(PROMPT, "prompt") X(GRID, "grid") X(ANSWERS, "answers")

typedef enum kt_host_type {
#define KT_HOST_TYPE_ENUM(code, name) KT_HOST_TYPE_##code,
    KT_HOST_TYPE_LIST(KT_HOST_TYPE_ENUM)
#undef KT_HOST_TYPE_ENUM
        KT_HOST_TYPE_COUNT
} kt_host_type;

typedef struct kt_type {
    kt_base base;
    kt_dtype dtype;    // KT_BASE_DTYPE
    kt_host_type host; // KT_BASE_HOST
    kt_str var;        // KT_BASE_VAR
    int rank;
    const kt_expr *axis[KT_MAX_RANK];
    bool optional; // trailing ?
    bool each;     // one per batch
    kt_str text;
    kt_place at;
} kt_type;

// `vars`: names of type variables that are allowed. Reports and returns false.
bool kt_type_parse(kt_arena *arena, const kt_node *scalar, const kt_str *vars, size_t n_vars,
    kt_diag *diag, kt_type *out);

#endif
