// Expressions of the YAML languages: integers (64 bit, overflow is an error) and reals.
//
// + - * / % (integer division floors), comparisons, and, or, not(x), ceil_div align_up min max
// select isqrt (of integers) sqrt (a real), `A else B` (B where a config key in A is missing), and
// calls config(key) preprocessor(key) json(key) rows(tensor) where the environment offers them.
// Bounded: 4,096 bytes, depth 64.
#ifndef KT_LOADER_EXPR_H
#define KT_LOADER_EXPR_H

#include "loader/diag.h"
#include "loader/value.h"
#include "loader/yaml.h"

typedef struct kt_expr kt_expr;

// What a call of config(key) finds. Only a missing key is what `else` is for.
enum { KT_CALL_NO_NUMBER = -2, KT_CALL_UNKNOWN = -1, KT_CALL_MISSING = 0, KT_CALL_FOUND = 1 };

// Where names get their values. `find` returns false for an unknown name. `call` (may be NULL)
// answers config(key) with a KT_CALL_. `names` (may be NULL) lists what is known.
typedef struct kt_env {
    const void *ctx;
    bool (*find)(const void *ctx, kt_str name, kt_value *out);
    int (*call)(const void *ctx, kt_str function, kt_str key, kt_value *out);
    const kt_str *(*names)(const void *ctx, kt_arena *arena, size_t *n);
} kt_env;

// NULL after reporting to diag.
const kt_expr *kt_expr_parse(kt_arena *arena, kt_str text, kt_place at, kt_diag *diag);
const kt_expr *kt_expr_node(
    kt_arena *arena, const kt_node *scalar, kt_diag *diag); // reports also a node that is no scalar

// Reports unknown names, division by zero, overflow, missing config keys at their place; `what`
// names the expression in messages ("a launch", "a requirement"). false after reporting.
bool kt_expr_eval(
    const kt_expr *expr, const kt_env *env, const char *what, kt_diag *diag, kt_value *out);
// As kt_expr_eval, where the result must be an integer.
bool kt_expr_eval_int(
    const kt_expr *expr, const kt_env *env, const char *what, kt_diag *diag, int64_t *out);
// Without diagnostics, for hot paths: false on any failure.
bool kt_expr_compute(const kt_expr *expr, const kt_env *env, kt_value *out);

kt_str kt_expr_text(const kt_expr *expr);
kt_place kt_expr_at(const kt_expr *expr);
// Calls visit once for every name in the expression, in order, repeats included.
void kt_expr_names(
    const kt_expr *expr, void (*visit)(void *ctx, kt_str name, kt_place at), void *ctx);
// The forms an axis of an input may have: a number; a name; name + number. false otherwise.
// *name is empty for a number, then *add is its value.
bool kt_expr_is_axis(const kt_expr *expr, kt_str *name, int64_t *add);

#endif
