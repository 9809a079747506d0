// JSON and config.json: values, places of mistakes, limits.
#include "loader/config.h"
#include "loader/json.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const kt_json_limits roomy = {1 << 20, 64, 100000};

static const kt_json *parse(kt_arena *arena, const char *text) {
    const kt_json *root = NULL;
    kt_err err = {0};
    if (kt_json_parse(arena, kt_str_from(text), "t.json", roomy, &root, &err) != KT_OK)
        fail_msg("%s", err.text);
    return root;
}

static void values_have_their_kinds(void **state) {
    (void)state;
    kt_arena arena = {0};
    const kt_json *root = parse(&arena,
        "{\"i\": -9223372036854775808, \"r\": 1.5, \"t\": \"a\\u00e9\\ud83d\\ude00\\u0000b\", "
        "\"b\": true, \"n\": null, \"l\": [1, [2], {}], \"big\": 16000000000}");
    int64_t i = 0;
    double r = 0;
    bool b = false;
    kt_str t;
    assert_true(kt_json_get_int(kt_json_find(root, KT_STR("i")), &i));
    assert_true(i == INT64_MIN);
    assert_true(kt_json_get_int(kt_json_find(root, KT_STR("big")), &i));
    assert_true(i == 16000000000);
    assert_true(kt_json_get_real(kt_json_find(root, KT_STR("r")), &r));
    assert_true(r > 1.4 && r < 1.6);
    assert_false(kt_json_get_int(kt_json_find(root, KT_STR("r")), &i));
    assert_true(kt_json_get_bool(kt_json_find(root, KT_STR("b")), &b) && b);
    assert_true(kt_json_get_text(kt_json_find(root, KT_STR("t")), &t));
    assert_int_equal(t.n, 9);
    assert_memory_equal(t.at, "a\xC3\xA9\xF0\x9F\x98\x80\0b", 9);
    const kt_json *list = kt_json_find(root, KT_STR("l"));
    assert_int_equal(list->n, 3);
    assert_int_equal(list->as.items[1].as.items[0].as.integer, 2);
    assert_int_equal(kt_json_find(root, KT_STR("n"))->kind, KT_JSON_NULL);
    assert_null(kt_json_find(root, KT_STR("I")));
    assert_null(kt_json_find(NULL, KT_STR("i")));
    assert_string_equal(kt_json_describe(&arena, list), "a list");
    kt_arena_deinit(&arena);
}

static void large_objects_are_searched_by_name(void **state) {
    (void)state;
    enum { N = 5000 };
    kt_arena arena = {0};
    kt_buf text = {0};
    kt_buf_printf(&text, "{");
    for (int i = 0; i < N; i++) kt_buf_printf(&text, "%s\"name%d\": %d", i == 0 ? "" : ",", i, i);
    kt_buf_printf(&text, "}");
    const kt_json *root = parse(&arena, text.at);
    for (int i = 0; i < N; i++) {
        int64_t value;
        kt_str name = kt_str_from(kt_arena_printf(&arena, "name%d", i));
        assert_true(kt_json_get_int(kt_json_find(root, name), &value));
        assert_int_equal(value, i);
        assert_true(kt_str_eq(kt_json_member_at(root, (size_t)i)->name, name)); // file order
    }
    assert_null(kt_json_find(root, KT_STR("name5000")));
    kt_buf_deinit(&text);
    kt_arena_deinit(&arena);
}

static void mistakes_have_a_place(void **state) {
    (void)state;
    const char *const cases[][2] = {
        {"", "t.json:1:1: "},
        {"{\"a\": 1,\n \"a\": 2}", "t.json:2:4: duplicate object key"},
        {"[1,\n2,\n  x]", "t.json:3:3: "},
        {"{\"a\" 1}", "t.json:1:"},
        {"[1] 2", "t.json:1:5: "},
        {"[1e999]", "real number overflow"},
        {"[9223372036854775808]", "too big integer"},
        {"[\"\xFF\"]", "t.json:1:"},
        {"[\"\\ud800\"]", "t.json:1:"},
        {"[NaN]", "t.json:1:"},
        {"[01]", "t.json:1:"},
        {"// no\n1", "t.json:1:"},
        {"{\"a\\u0000b\": 1}", "NUL"},
        {"[1,]", "t.json:1:"},
        {"\xEF\xBB\xBF{}", "t.json:1:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kt_arena arena = {0};
        const kt_json *root = NULL;
        kt_err err = {0};
        kt_status status =
            kt_json_parse(&arena, kt_str_from(cases[i][0]), "t.json", roomy, &root, &err);
        assert_int_equal(status, KT_EFORMAT);
        if (strstr(err.text, cases[i][1]) == NULL)
            fail_msg("'%s' is not in '%s'", cases[i][1], err.text);
        kt_arena_deinit(&arena);
    }
}

static void expect_limit(const char *text, kt_json_limits limits, const char *message) {
    kt_arena arena = {0};
    const kt_json *root = NULL;
    kt_err err = {0};
    kt_status status = kt_json_parse(&arena, kt_str_from(text), "t.json", limits, &root, &err);
    assert_int_equal(status, message == NULL ? KT_OK : KT_EFORMAT);
    if (message != NULL) assert_string_equal(err.text, message);
    kt_arena_deinit(&arena);
}

static void limits_hold(void **state) {
    (void)state;
    expect_limit("[[1]]", (kt_json_limits){5, 2, 3}, NULL);
    expect_limit(
        "[[1]]", (kt_json_limits){4, 2, 3}, "t.json: 5 bytes of JSON, at most 4 are allowed");
    expect_limit("[\n [1]]", (kt_json_limits){9, 1, 9},
        "t.json:2:2: lists and objects are nested deeper than 1");
    expect_limit(
        "[1,2,\n3]", (kt_json_limits){9, 1, 3}, "t.json:1:5: there are more values than 3");
    expect_limit("[\"[[[,,,\\\"[[\"]", (kt_json_limits){99, 1, 2}, NULL); // in a text they are text
    kt_buf deep = {0};
    for (int i = 0; i < 200000; i++) kt_buf_add(&deep, "[", 1);
    expect_limit(deep.at, roomy, "t.json:1:65: lists and objects are nested deeper than 64");
    kt_buf_deinit(&deep);
}

// ---- config.json

static const kt_config *open_config(kt_arena *arena, const char *text) {
    const char *folder = test_folder(arena);
    const char *path = test_put(arena, folder, "config.json", text);
    kt_err err = {0};
    const kt_config *config = NULL;
    kt_status status = kt_config_open(arena, path, &config, &err);
    test_remove(folder);
    if (status != KT_OK) fail_msg("%s", err.text);
    return config;
}

static void config_finds_by_dotted_key(void **state) {
    (void)state;
    kt_arena arena = {0};
    const kt_config *config = open_config(&arena,
        "{\"hidden_size\": 3584, \"rope_theta\": 1e6, \"drop\": true, \"none\": null, \"a.b\": 7, "
        "\"vision_config\": {\"patch_size\": 14, \"a.c\": {\"d\": 5}}, \"norm_mean\": [0.5, 0.5, "
        "0.5], "
        "\"mixed\": [0.5, 0.25], \"words\": [\"x\"], \"empty\": [], \"name\": \"qwen2\"}");
    const struct {
        const char *key;
        bool found, real;
        double value;
    } cases[] = {{"hidden_size", true, false, 3584}, {"rope_theta", true, true, 1e6},
        {"drop", true, false, 1}, {"none", false, false, 0}, {"a.b", true, false, 7},
        {"vision_config.patch_size", true, false, 14}, {"vision_config.a.c.d", true, false, 5},
        {"vision_config", false, false, 0}, {"norm_mean", true, true, 0.5},
        {"mixed", false, false, 0}, {"words", false, false, 0}, {"empty", false, false, 0},
        {"name", false, false, 0}, {"", false, false, 0}, {".", false, false, 0},
        {"vision_config.", false, false, 0}, {"vision_config.nothing", false, false, 0}};
    static const char *const no_numbers[] = {"vision_config", "mixed", "words", "empty", "name"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kt_value value = {0};
        bool found = kt_config_number(config, kt_str_from(cases[i].key), &value);
        if (found != cases[i].found) fail_msg("'%s'", cases[i].key);
        bool other = false;
        for (int k = 0; k < 5; k++) other = other || strcmp(cases[i].key, no_numbers[k]) == 0;
        assert_int_equal(kt_config_no_number(config, kt_str_from(cases[i].key)), other);
        if (!found) continue;
        assert_int_equal(value.is_real, cases[i].real);
        assert_true(value.r >= cases[i].value && value.r <= cases[i].value);
    }
    kt_str text;
    assert_true(kt_config_text(config, KT_STR("name"), &text));
    assert_true(kt_str_is(text, "qwen2"));
    assert_false(kt_config_text(config, KT_STR("drop"), &text));
    kt_arena_deinit(&arena);
}

static void config_refuses_what_is_no_object(void **state) {
    (void)state;
    kt_arena arena = {0};
    const kt_config *config = NULL;
    kt_err err = {0};
    assert_int_equal(kt_config_open(&arena, "no/such/config.json", &config, &err), KT_EFILE);
    assert_non_null(strstr(err.text, "no/such/config.json"));
    const char *folder = test_folder(&arena);
    const char *path = test_put(&arena, folder, "config.json", "[1]");
    assert_int_equal(kt_config_open(&arena, path, &config, &err), KT_EFORMAT);
    assert_non_null(strstr(err.text, "expected an object, found a list"));
    test_remove(folder);
    kt_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_have_their_kinds),
        cmocka_unit_test(large_objects_are_searched_by_name),
        cmocka_unit_test(mistakes_have_a_place),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(config_finds_by_dotted_key),
        cmocka_unit_test(config_refuses_what_is_no_object),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
