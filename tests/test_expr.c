// Expressions: values, precedence, errors and their places.
#include "loader/expr.h"
#include "tests/util.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static bool find(const void *ctx, kt_str name, kt_value *out) {
    static const struct {
        const char *name;
        int64_t value;
    } known[] = {{"n", 5}, {"d", 64}, {"rows", 4}, {"w.q", 7}, {"$l", 2}, {"big", INT64_MAX},
        {"low", INT64_MIN}, {"zero", 0}};
    (void)ctx;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (kt_str_is(name, known[i].name)) {
            *out = kt_value_int(known[i].value);
            return true;
        }
    }
    return false;
}

static int call(const void *ctx, kt_str function, kt_str key, kt_value *out) {
    (void)ctx;
    if (!kt_str_is(function, "config")) return -1;
    if (!kt_str_is(key, "hidden_size")) return 0;
    *out = kt_value_int(3584);
    return 1;
}

static const kt_str known_names[] = {{"n", 1}, {"d", 1}, {"rows", 4}};
static const kt_str *names(const void *ctx, kt_arena *arena, size_t *n) {
    (void)ctx;
    (void)arena;
    *n = 3;
    return known_names;
}

static const kt_env env = {NULL, find, call, names};

static bool compute(test_diag *f, const char *text, kt_value *out) {
    const kt_expr *expr = kt_expr_parse(&f->arena, kt_str_from(text), (kt_place){0}, &f->diag);
    return expr != NULL && kt_expr_eval(expr, &env, "a test", &f->diag, out);
}

static void is_int(test_diag *f, const char *text, int64_t want) {
    kt_value v = {0};
    if (!compute(f, text, &v)) fail_msg("'%s' fails", text);
    if (v.is_real || v.i != want) fail_msg("'%s' is %" PRId64 ", not %" PRId64, text, v.i, want);
    assert_true(fabs(v.r - (double)want) <= 0); // the real beside it
}

static void is_real(test_diag *f, const char *text, double want) {
    kt_value v = {0};
    if (!compute(f, text, &v)) fail_msg("'%s' fails", text);
    assert_true(v.is_real);
    assert_true(fabs(v.r - want) <= 1e-15 * fabs(want));
}

// The last message holds `part`.
static void fails(test_diag *f, const char *text, const char *part) {
    kt_value v;
    size_t before = f->diag.entries.n;
    if (compute(f, text, &v)) fail_msg("'%s' is accepted", text);
    if (f->diag.entries.n != before + 1)
        fail_msg("'%s' gives %d messages", text, (int)(f->diag.entries.n - before));
    const char *said = f->diag.entries.at[before].message;
    if (strstr(said, part) == NULL) fail_msg("'%s' says '%s', not '%s'", text, said, part);
}

static void values(void **state) {
    test_diag *f = *state;
    is_int(f, "1 + 2 * 3", 7);
    is_int(f, "(1 + 2) * 3", 9);
    is_int(f, "10 - 3 - 2", 5);
    is_int(f, "2 * n + d / rows", 26);
    is_int(f, "-n + 7", 2);
    is_int(f, "3 - -2", 5);
    is_int(f, "w.q * $l", 14);
    is_int(f, " n ", 5);
    is_int(f, "9223372036854775807", INT64_MAX);
    is_real(f, "1e-6", 1e-6);
    is_real(f, "n / 2.0", 2.5);
    is_real(f, "1.5 * rows", 6.0);
}

static void division_floors(void **state) {
    test_diag *f = *state;
    is_int(f, "7 / 2", 3);
    is_int(f, "-7 / 2", -4);
    is_int(f, "7 / -2", -4);
    is_int(f, "-7 % 2", 1);
    is_int(f, "7 % -2", -1);
    is_int(f, "-8 / 2", -4);
    is_int(f, "8 % low", INT64_MIN + 8);
    is_int(f, "8 / low", -1);
    is_int(f, "ceil_div(-8, low)", 1);
    is_int(f, "low % 3", 1);
    is_int(f, "ceil_div(7, 2)", 4);
    is_int(f, "isqrt(0)", 0);
    is_int(f, "isqrt(4899)", 69);
    is_int(f, "isqrt(4900)", 70);
    is_int(f, "isqrt(9223372036854775807)", 3037000499);
    is_int(f, "ceil_div(8, 2)", 4);
    is_int(f, "ceil_div(-7, 2)", -3);
    is_int(f, "ceil_div(0, 2)", 0);
    is_int(f, "align_up(65, 64)", 128);
    is_int(f, "align_up(64, 64)", 64);
}

static void logic(void **state) {
    test_diag *f = *state;
    is_int(f, "n == 5 and d == 64", 1);
    is_int(f, "n == 4 or d == 64", 1);
    is_int(f, "1 or 0 and 0", 1); // 'and' binds first
    is_int(f, "not(n == 5)", 0);
    is_int(f, "n <= 5", 1);
    is_int(f, "n < 5", 0);
    is_int(f, "n != 4", 1);
    is_int(f, "1.5 > 1", 1);
    is_int(f, "min(n, d, 3)", 3);
    is_int(f, "max(n, d, 3)", 64);
    is_int(f, "select(n > 4, 10, 20)", 10);
    is_int(f, "sqrt(n * n) == n", 1);
    is_int(f, "sqrt(2) * sqrt(2) > 1.9999999 and sqrt(2.0) < 1.4142136", 1);
}

static void only_the_needed_side_is_computed(void **state) {
    test_diag *f = *state;
    is_int(f, "select(zero == 0, 1, n / zero)", 1);
    is_int(f, "zero != 0 and n / zero > 1", 0);
    is_int(f, "zero == 0 or n / zero > 1", 1);
}

static void lookups(void **state) {
    test_diag *f = *state;
    is_int(f, "config(hidden_size) / 28", 128);
    is_int(f, "config(missing) else 8", 8);
    is_int(f, "config(missing) + 1 else config(hidden_size)", 3584);
    is_int(f, "config(hidden_size) else n / zero", 3584);
    is_int(f, "2 * (config(a) else config(b) else 3)", 6);
    fails(f, "config(missing)", "there is no key 'missing' in config");
    fails(f, "json(x)", "'json(...)' cannot be used in a test");
    fails(f, "config(3)", "the name of a key");
}

static void overflow_is_an_error(void **state) {
    test_diag *f = *state;
    static const char *const texts[] = {"big + 1", "low - 1", "big * 2", "low * -1", "-low",
        "low / -1", "low % -1", "0 - low", "align_up(big, 64)", "big - low",
        "3037000500 * 3037000500", "low * big"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        fails(f, texts[i], "does not fit in 64 bits");
    is_int(f, "low + big", -1);
    is_int(f, "big - 1 + 1", INT64_MAX);
    is_int(f, "-1 - big", INT64_MIN);
    is_int(f, "low - low", 0);
    is_int(f, "low * 1", INT64_MIN);
    fails(f, "9223372036854775808", "does not fit");
    fails(f, "1e400", "does not fit");
    fails(f, "1e300 * 1e300", "no finite number");
}

static void mistakes(void **state) {
    test_diag *f = *state;
    fails(f, "n / zero", "division by zero");
    fails(f, "n % zero", "division by zero");
    fails(f, "ceil_div(n, zero)", "division by zero");
    fails(f, "1.0 / zero", "division by zero");
    fails(f, "1.5 % 2", "needs integers");
    fails(f, "row + 1", "unknown name 'row' in a test");
    fails(f, "", "empty");
    fails(f, "   ", "empty");
    fails(f, "1 +", "missing at the end");
    fails(f, "* 2", "missing before this sign");
    fails(f, "(1 + 2", "never closed");
    fails(f, "1 + 2)", "closes nothing");
    fails(f, "n d", "'d' is not expected here");
    fails(f, "n < d < 3", "chained");
    fails(f, "4x", "does not start with a digit");
    fails(f, "ceildiv(1, 2)", "unknown function 'ceildiv'");
    fails(f, "ceil_div(1)", "takes 2 arguments, got 1");
    fails(f, "min(1)", "takes 2 arguments or more");
    fails(f, "sqrt(0 - n)", "negative");
    fails(f, "select(1, 2)", "takes 3 arguments");
    fails(f, "not n", "takes brackets");
    fails(f, "and 1", "missing before this word");
    fails(f, "a ? b : c", "'?' cannot stand");
    fails(f, "!a", "'!' cannot stand");
    fails(f, "max(1, 2,)", "missing before this sign");
}

static void bounds(void **state) {
    test_diag *f = *state;
    char text[8192];
    memset(text, 0, sizeof text);
    for (int i = 0; i < 60; i++) text[i] = '(';
    text[60] = '1';
    for (int i = 61; i < 121; i++) text[i] = ')';
    is_int(f, text, 1);
    memset(text, '(', 200);
    text[200] = 0;
    fails(f, text, "nested deeper than 64");
    for (size_t i = 0; i < 2000; i++) memcpy(text + 2 * i, "1+", 2);
    text[4001 - 2] = 0;
    fails(f, text, "too many terms");
    memset(text, ' ', 5000);
    text[5000] = 0;
    fails(f, text, "longer than 4,096 bytes");
}

static void place_is_the_word(void **state) {
    test_diag *f = *state;
    const char *yaml = "grid: ceil_div(n, row)\n";
    const kt_node *root = kt_yaml_parse(&f->arena, kt_str_from(yaml), "x.yaml", &f->diag);
    assert_non_null(root);
    const kt_expr *expr = kt_expr_node(&f->arena, root->pairs[0].value, &f->diag);
    assert_non_null(expr);
    kt_value v;
    assert_false(kt_expr_eval(expr, &env, "an expression", &f->diag, &v));
    kt_buf out = {0};
    kt_diag_print(&f->diag, &out);
    assert_string_equal(out.at, "x.yaml:1:19: error: unknown name 'row' in an expression [expr]\n"
                                "    1 | grid: ceil_div(n, row)\n"
                                "      |                   ^~~\n"
                                "   note: did you mean 'rows'? expected one of: d, n, rows\n");
    kt_buf_deinit(&out);
}

static void collect(void *ctx, kt_str name, kt_place at) {
    (void)at;
    kt_buf_printf(ctx, "%.*s ", KT_STR_ARG(name));
}

static void names_in_order(void **state) {
    test_diag *f = *state;
    const kt_expr *expr = kt_expr_parse(
        &f->arena, KT_STR("a + max(b.c, $d * a) - config(key) else e"), (kt_place){0}, &f->diag);
    assert_non_null(expr);
    kt_buf out = {0};
    kt_expr_names(expr, collect, &out);
    assert_string_equal(out.at, "a b.c $d a e ");
    kt_buf_deinit(&out);
}

static void axes(void **state) {
    test_diag *f = *state;
    static const struct {
        const char *text, *name;
        int64_t add;
        bool axis;
    } rows[] = {{"n", "n", 0, true}, {"16", "", 16, true}, {"views + 1", "views", 1, true},
        {"1 + views", "", 0, false}, {"n * 2", "", 0, false}, {"n + m", "", 0, false},
        {"2.5", "", 0, false}, {"n - 1", "", 0, false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const kt_expr *expr =
            kt_expr_parse(&f->arena, kt_str_from(rows[i].text), (kt_place){0}, &f->diag);
        assert_non_null(expr);
        kt_str name;
        int64_t add;
        assert_int_equal(kt_expr_is_axis(expr, &name, &add), rows[i].axis);
        if (!rows[i].axis) continue;
        assert_true(kt_str_is(name, rows[i].name));
        assert_int_equal(add, rows[i].add);
    }
}

static void computing_is_silent(void **state) {
    test_diag *f = *state;
    kt_value v;
    const kt_expr *expr = kt_expr_parse(&f->arena, KT_STR("n / zero"), (kt_place){0}, &f->diag);
    assert_false(kt_expr_compute(expr, &env, &v));
    assert_int_equal(f->diag.entries.n, 0);
    int64_t whole;
    expr = kt_expr_parse(&f->arena, KT_STR("n / 2.0"), (kt_place){0}, &f->diag);
    assert_false(kt_expr_eval_int(expr, &env, "a size", &f->diag, &whole));
    assert_non_null(strstr(f->diag.entries.at[0].message, "an integer is needed in a size"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_diag_open, test_diag_close)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(values), TEST(division_floors), TEST(logic),
        TEST(only_the_needed_side_is_computed), TEST(lookups), TEST(overflow_is_an_error),
        TEST(mistakes), TEST(bounds), TEST(place_is_the_word), TEST(names_in_order), TEST(axes),
        TEST(computing_is_silent)};
    return cmocka_run_group_tests_name("expr", tests, NULL, NULL);
}
