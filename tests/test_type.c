// Types: dtypes, variables, linear, axes, optional, each, and where a mistake is.
#include "loader/type.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const kt_str vars[] = {{"T", 1}, {"Y", 1}};

static bool parse(test_diag *f, const char *text, kt_type *out) {
    const char *yaml = kt_arena_printf(&f->arena, "x: \"%s\"\n", text);
    const kt_node *root = kt_yaml_parse(&f->arena, kt_str_from(yaml), "t.yaml", &f->diag);
    assert_non_null(root);
    return kt_type_parse(&f->arena, root->pairs[0].value, vars, 2, &f->diag, out);
}

static void good_types(void **state) {
    test_diag *f = *state;
    kt_type t;
    assert_true(parse(f, "f16[n, d]", &t));
    assert_int_equal(t.base, KT_BASE_DTYPE);
    assert_int_equal(t.dtype, KT_DTYPE_F16);
    assert_int_equal(t.rank, 2);
    assert_true(kt_str_is(kt_expr_text(t.axis[1]), "d"));
    assert_false(t.optional);
    assert_true(parse(f, "linear[m, k]?", &t));
    assert_int_equal(t.base, KT_BASE_LINEAR);
    assert_true(t.optional);
    assert_true(parse(f, "Y[ceil_div(n, 2), max(a, b, c), 3]", &t));
    assert_int_equal(t.base, KT_BASE_VAR);
    assert_true(kt_str_is(t.var, "Y"));
    assert_int_equal(t.rank, 3);
    assert_true(kt_str_is(kt_expr_text(t.axis[1]), "max(a, b, c)"));
    assert_true(parse(f, "each i32[views + 1]", &t));
    assert_true(t.each);
    assert_int_equal(t.dtype, KT_DTYPE_I32);
    assert_true(parse(f, "items", &t));
    assert_int_equal(t.base, KT_BASE_HOST);
    assert_int_equal(t.host, KT_HOST_TYPE_ITEMS);
    assert_true(parse(f, "text?", &t));
    assert_true(t.optional);
    assert_true(parse(f, "u8[a,b,c,d,e,g]", &t));
    assert_int_equal(t.rank, KT_MAX_RANK);
    assert_int_equal(f->diag.n_errors, 0);
}

// The first message, its place and nothing more than one error.
static void fails(test_diag *f, const char *text, int col, int width, const char *part) {
    kt_type t;
    size_t before = f->diag.entries.n;
    if (parse(f, text, &t)) fail_msg("'%s' is accepted", text);
    if (f->diag.entries.n != before + 1)
        fail_msg("'%s' gives %d messages", text, (int)(f->diag.entries.n - before));
    const kt_diag_entry *said = &f->diag.entries.at[before];
    if (strstr(said->message, part) == NULL)
        fail_msg("'%s' says '%s', not '%s'", text, said->message, part);
    // Columns of the type's own text start at 5: x, colon, blank, quote.
    if (said->at.col - 4 != col || said->at.width != width)
        fail_msg("'%s': column %d width %d, not %d and %d", text, said->at.col - 4, said->at.width,
            col, width);
}

static void mistakes_and_their_places(void **state) {
    test_diag *f = *state;
    fails(f, "f61[n]", 1, 3, "unknown type 'f61'");
    fails(f, "float32[n]", 1, 7, "unknown type 'float32'");
    fails(f, "f16[n, d", 4, 1, "never closed");
    fails(f, "f16[n, ]", 7, 1, "an axis is empty");
    fails(f, "f16[]", 5, 1, "an axis is empty");
    fails(f, "f16[n, 2 *]", 11, 1, "missing at the end");
    fails(f, "f16[n, d +* 2]", 11, 1, "missing before this sign");
    fails(f, "f16", 1, 3, "needs its axes");
    fails(f, "linear[n]", 1, 9, "two axes");
    fails(f, "linear[a, b, c]", 1, 15, "two axes");
    fails(f, "items[n]", 1, 5, "has no axes");
    fails(f, "f16[n] of x", 7, 5, "cannot follow a type");
    fails(f, "f16[n]??", 8, 1, "cannot follow a type");
    fails(f, "[n]", 1, 1, "is no type");
    fails(f, "f16[a,b,c,d,e,g,h]", 17, 1, "at most 6 axes");
    fails(f, "f16[n, (d]", 8, 1, "never closed"); // the bracket inside swallows no ']'
}

static void not_a_text(void **state) {
    test_diag *f = *state;
    const kt_node *root = kt_yaml_parse(&f->arena, KT_STR("x: [f16]\n"), "t.yaml", &f->diag);
    kt_type t;
    assert_false(kt_type_parse(&f->arena, root->pairs[0].value, NULL, 0, &f->diag, &t));
    assert_string_equal(f->diag.entries.at[0].message, "a type is expected here, got a list");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_diag_open, test_diag_close)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(good_types), TEST(mistakes_and_their_places), TEST(not_a_text)};
    return cmocka_run_group_tests_name("type", tests, NULL, NULL);
}
