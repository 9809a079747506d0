// The tree behind kt_expr: shared by expr.c (reading) and expr_eval.c (computing), by nobody else.
#ifndef KT_LOADER_EXPR_TREE_H
#define KT_LOADER_EXPR_TREE_H

#include "loader/expr.h"

typedef enum kt_code {
    KT_CODE_NUMBER,
    KT_CODE_NAME,
    KT_CODE_CALL, // config(key)
    KT_CODE_NEGATE,
    KT_CODE_SQRT,
    KT_CODE_NOT,
    KT_CODE_ISQRT, // isqrt: the largest integer whose square is not above
    KT_CODE_ADD,
    KT_CODE_SUBTRACT,
    KT_CODE_MULTIPLY,
    KT_CODE_DIVIDE,
    KT_CODE_MODULO,
    KT_CODE_EQUAL,
    KT_CODE_UNEQUAL,
    KT_CODE_LESS,
    KT_CODE_GREATER,
    KT_CODE_LESS_EQUAL,
    KT_CODE_GREATER_EQUAL,
    KT_CODE_AND,
    KT_CODE_OR,
    KT_CODE_CEIL_DIV,
    KT_CODE_ALIGN_UP,
    KT_CODE_MIN,
    KT_CODE_MAX,
    KT_CODE_SELECT,
    KT_CODE_ELSE
} kt_code;

typedef struct kt_term {
    kt_code op;
    int arg[3]; // terms
    int height;
    size_t from, to;  // bytes of the text
    kt_value value;   // KT_CODE_NUMBER
    kt_str name, key; // KT_CODE_NAME; KT_CODE_CALL
} kt_term;

struct kt_expr {
    kt_str text;
    kt_place at;
    const kt_term *terms; // children before parents, names in the order of the text
    int n_terms, root;
};

#endif
