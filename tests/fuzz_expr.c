// Any bytes as an expression and as a type: a value or an error, the same with and without
// diagnostics.
#include "loader/expr.h"
#include "loader/type.h"
#include "tests/fuzz.h"

static bool find(const void *ctx, kt_str name, kt_value *out) {
    (void)ctx;
    if (name.n > 2) return false;
    static const int64_t values[] = {0, 1, -1, 64, INT64_MAX, INT64_MIN, 3037000500};
    *out = kt_value_int(values[kt_str_hash(name) % 7]);
    return true;
}

static int call(const void *ctx, kt_str function, kt_str key, kt_value *out) {
    (void)ctx;
    (void)function;
    *out = kt_value_real(0.5);
    return (int)(key.n % 3) - 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kt_arena arena = {0};
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    kt_str text = {(const char *)data, size};
    const kt_env env = {NULL, find, call, NULL};
    const kt_expr *expr = kt_expr_parse(&arena, text, (kt_place){0}, &diag);
    KT_ASSERT((expr == NULL) == (diag.n_errors > 0));
    kt_value a, b;
    if (expr != NULL) {
        bool good = kt_expr_eval(expr, &env, "a test", &diag, &a);
        KT_ASSERT(good == kt_expr_compute(expr, &env, &b));
        KT_ASSERT(good == (diag.n_errors == 0));
        KT_ASSERT(!good || (a.is_real == b.is_real && a.i == b.i && a.r <= b.r && a.r >= b.r));
        kt_str name;
        int64_t add;
        kt_expr_is_axis(expr, &name, &add);
    }
    kt_node node = {.kind = KT_NODE_SCALAR, .text = text};
    const kt_str vars[] = {{"T", 1}};
    kt_type type;
    int errors = diag.n_errors;
    bool good = kt_type_parse(&arena, &node, vars, 1, &diag, &type);
    KT_ASSERT(good == (diag.n_errors == errors));
    KT_ASSERT(!good || (type.rank >= 0 && type.rank <= KT_MAX_RANK));
    kt_buf out = {0};
    kt_diag_print(&diag, &out);
    kt_buf_deinit(&out);
    kt_arena_deinit(&arena);
    return 0;
}
