// The YAML subset: the tree, places, what is refused, bounds, and that reading takes linear time.
#include "loader/yaml.h"
#include "runtime/base/os.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const kt_node *parse(test_diag *f, const char *text) {
    return kt_yaml_parse(&f->arena, kt_str_from(text), "t.yaml", &f->diag);
}

static void tree(void **state) {
    test_diag *f = *state;
    const kt_node *root =
        parse(f, "a: one\nb: [x, 'y z', \"q\\n\"]\nc:\n  d: { e: 1, g: 2 }\n  h: |\n    text\n");
    assert_non_null(root);
    assert_int_equal(root->kind, KT_NODE_MAP);
    assert_int_equal(root->n, 3);
    assert_true(kt_str_is(root->pairs[0].value->text, "one"));
    assert_false(root->pairs[0].value->quoted);
    const kt_node *list = kt_node_find(root, "b")->value;
    assert_int_equal(list->n, 3);
    assert_true(list->items[1]->quoted);
    assert_true(kt_str_is(list->items[2]->text, "q\n"));
    assert_false(list->items[2]->exact);
    assert_true(list->items[0]->flow);
    const kt_node *c = kt_node_find(root, "c")->value;
    assert_true(kt_str_is(kt_node_find(kt_node_find(c, "d")->value, "g")->value->text, "2"));
    assert_true(kt_str_is(kt_node_find(c, "h")->value->text, "text\n"));
    assert_null(kt_node_find(root, "x"));
    assert_null(kt_node_find(list, "x"));
    assert_null(kt_node_find(NULL, "x"));
    assert_string_equal(kt_node_kind_name(list), "a list");
}

static void at(const kt_node *node, int line, int col, int width, bool exact) {
    assert_int_equal(node->at.line, line);
    assert_int_equal(node->at.col, col);
    assert_int_equal(node->at.width, width);
    assert_int_equal(node->exact, exact);
}

static void places(void **state) {
    test_diag *f = *state;
    const kt_node *root = parse(f, "\xef\xbb\xbfplain: f16[n, d]\nsingle: 'a b'\n\"日本\": "
                                   "\"語\"\r\nblock: >\n  x\nfold: one\n  two\nescape: 'it''s'\n");
    assert_non_null(root);
    at(root->pairs[0].value, 1, 8, 9, true); // a byte order mark is no column
    at(root->pairs[1].value, 2, 10, 3, true);
    at(root->pairs[2].value, 3, 8, 1, true); // characters, not bytes
    assert_int_equal(root->pairs[2].at.col, 2);
    at(root->pairs[3].value, 4, 8, 1, false);
    at(root->pairs[4].value, 6, 7, 1, false);
    at(root->pairs[5].value, 8, 9, 1, false);
    kt_place part = kt_place_part(root->pairs[0].value->at, root->pairs[0].value->text, 4, 5);
    assert_int_equal(part.col, 12);
    assert_int_equal(part.width, 1);
    part = kt_place_part(root->pairs[4].value->at, root->pairs[4].value->text, 4, 7);
    assert_int_equal(part.col, 7); // folded: only the start is known
}

static void refused(test_diag *f, const char *text, const char *part) {
    size_t before = f->diag.entries.n;
    if (parse(f, text) != NULL) fail_msg("accepted: %s", text);
    assert_true(f->diag.entries.n > before);
    const char *said = f->diag.entries.at[before].message;
    if (strstr(said, part) == NULL) fail_msg("says '%s', not '%s'", said, part);
}

static void refusals(void **state) {
    test_diag *f = *state;
    refused(f, "a: 1\nb: 2\na: 3\n", "key 'a' is given twice");
    refused(f, "a: &x 1\n", "anchors");
    refused(f, "a: *x\n", "anchors");
    refused(f, "a: &x [1]\n", "anchors");
    refused(f, "a: !!int 1\n", "tags");
    refused(f, "a: !x\n", "tags");
    refused(f, "<<: 1\n", "merge keys");
    refused(f, "a: 1\n---\nb: 1\n", "second document");
    refused(f, "a:\n", "has no value");
    refused(f, "{ a, b }\n", "has no value");
    refused(f, "- 1\n-\n", "an entry of this list");
    refused(f, ": 1\n", "a key is expected");
    refused(f, "?\n: 1\n", "a key is missing");
    refused(f, "? [a]\n: 1\n", "a key is a word");
    refused(f, "", "no content");
    refused(f, "# only\n", "no content");
    refused(f, "%TAG ! a\n---\na: 1\n", "directive");
    refused(f, "a: \x01\n", "control character");
    refused(f, "a: \xff\n", "not UTF-8");
    refused(f, "a: \xe2\x82\n", "not UTF-8");
    refused(f, "a: \xef\xbf\xbe\n", "does not allow");
    refused(f, "a: [1\nb: 2\n", "expected here");
    refused(f, "a: \"x\n", "never closed");
}

static void many_mistakes_in_one_run(void **state) {
    test_diag *f = *state;
    assert_null(parse(f, "a: 1\na: 2\nb: &x 3\nc:\nd: !t 4\n"));
    assert_int_equal(f->diag.n_errors, 4);
}

static void key_twice_in_a_long_map(void **state) {
    test_diag *f = *state;
    kt_buf text = {0};
    for (int i = 0; i < 40; i++) kt_buf_printf(&text, "k%d: 1\n", i);
    assert_non_null(parse(f, text.at));
    kt_buf_printf(&text, "k3: 1\nk39: 1\nk3: 1\n");
    assert_null(parse(f, text.at));
    assert_int_equal(f->diag.n_errors, 3);
    assert_string_equal(f->diag.entries.at[0].notes.at[0], "it is given first, at t.yaml:4:1");
    kt_buf_deinit(&text);
}

// Text of `n` times `unit` between two ends; the message that reading it gives, within two seconds.
static void bounded(test_diag *f, const char *lead, const char *unit, int n, const char *part) {
    kt_buf text = {0};
    kt_buf_printf(&text, "%s", lead);
    for (int i = 0; i < n; i++) kt_buf_add(&text, unit, strlen(unit));
    double start = kt_os_now_ms();
    size_t before = f->diag.entries.n;
    const kt_node *root = kt_yaml_parse(&f->arena, (kt_str){text.at, text.n}, "t.yaml", &f->diag);
    double took = kt_os_now_ms() - start;
    if (took > 4000) fail_msg("%d times '%s' takes %.0f ms", n, unit, took);
    if (part == NULL) {
        assert_non_null(root);
    } else {
        assert_null(root);
        if (strstr(f->diag.entries.at[before].message, part) == NULL)
            fail_msg("'%s' says '%s'", unit, f->diag.entries.at[before].message);
    }
    kt_buf_deinit(&text);
}

static void bounds_and_time(void **state) {
    test_diag *f = *state;
    bounded(f, "", "[", 100000, "deeper than 32");
    bounded(f, "", "{", 100000, "a key is a word");
    bounded(f, "", "- ", 100000, "deeper than 32");
    bounded(f, "", "? ", 100000, "a key is a word");
    bounded(f, "a: [", "1, ", 120000, "more than 100,000 values");
    bounded(f, "", "- 1\n", 120000, "more than 100,000 values");
    bounded(f, "x: ", "abcdefgh", 600000, "larger than 4 MiB");
    bounded(f, "x: ", "abcdefgh", 500000, NULL);
    bounded(f, "# ", "abcdefgh\n# ", 300000, "no content");
    bounded(f, "%", "TAG !a! b\n%", 100000, "directive");
    bounded(f, "x: {", "aé: 1, bé: 2, ", 1, "a value is missing");
    // One line of 45,000 values: places are found in one pass over it.
    kt_buf text = {0};
    for (int i = 0; i < 45000; i++) kt_buf_printf(&text, "%s\"é%d\": 1", i == 0 ? "{" : ", ", i);
    kt_buf_printf(&text, "}\n");
    double start = kt_os_now_ms();
    assert_non_null(kt_yaml_parse(&f->arena, (kt_str){text.at, text.n}, "t.yaml", &f->diag));
    assert_true(kt_os_now_ms() - start < 4000);
    kt_buf_deinit(&text);
}

static void print(test_diag *f, const char *want) {
    kt_buf out = {0};
    kt_diag_print(&f->diag, &out);
    assert_string_equal(out.at, want);
    kt_buf_deinit(&out);
}

static void diagnostics_are_sorted_and_cut(void **state) {
    test_diag *f = *state;
    const kt_node *root = parse(f, "\ta: 1\n");
    assert_null(root);
    kt_diag_init(&f->diag, &f->arena);
    root = parse(f, "a: 1\nbé: 画像 x\n");
    kt_place first = root->pairs[0].at, second = root->pairs[1].value->at;
    kt_diag_error(&f->diag, KT_RULE_VALUE, kt_place_part(second, root->pairs[1].value->text, 7, 8),
        "late\n%s", "x");
    kt_diag_note(&f->diag, "a note");
    kt_diag_warning(&f->diag, KT_RULE_FILE, (kt_place){0}, "from nowhere");
    kt_diag_error(&f->diag, KT_RULE_KEY, first, "early");
    kt_diag_error(&f->diag, KT_RULE_KEY, first, "early");
    print(f, "kotaro: warning: from nowhere [file]\n\n"
             "t.yaml:1:1: error: early [key]\n    1 | a: 1\n      | ^\n\n"
             "t.yaml:2:8: error: late x [value]\n    2 | bé: 画像 x\n      |          ^\n   note: "
             "a note\n");
    for (int i = 0; i < 5000; i++) kt_diag_error(&f->diag, KT_RULE_KEY, first, "number %d", i);
    kt_buf out = {0};
    kt_diag_print(&f->diag, &out);
    assert_non_null(strstr(out.at, "\nand 4982 more errors\n"));
    kt_buf_deinit(&out);
}

static void missing_file(void **state) {
    test_diag *f = *state;
    assert_null(kt_yaml_open(&f->arena, "/nonexistent/op.yaml", "op.yaml", &f->diag));
    assert_int_equal(f->diag.entries.at[0].rule, KT_RULE_FILE);
    assert_non_null(strstr(f->diag.entries.at[0].message, "/nonexistent/op.yaml"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_diag_open, test_diag_close)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(tree), TEST(places), TEST(refusals),
        TEST(many_mistakes_in_one_run), TEST(key_twice_in_a_long_map), TEST(bounds_and_time),
        TEST(diagnostics_are_sorted_and_cut), TEST(missing_file)};
    return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
