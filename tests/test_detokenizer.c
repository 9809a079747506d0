// Ids to text: whole characters only, and the same text however it is cut.
#include "loader/detokenizer.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static kt_ids encode(kt_arena *arena, const char *text) {
    kt_ids ids = {0};
    kt_err err = {0};
    assert_int_equal(
        kt_tokenizer_encode(test_small, arena, kt_str_from(text), true, &ids, &err), KT_OK);
    return ids;
}

static void what_was_encoded_comes_back(void **state) {
    (void)state;
    const char *const texts[] = {
        "Hello, world\n", "日本語で簡潔に", "👨\xE2\x80\x8D👩\xE2\x80\x8D👧", "é ü ß", ""};
    for (size_t t = 0; t < sizeof texts / sizeof texts[0]; t++) {
        kt_arena arena = {0};
        kt_ids ids = encode(&arena, texts[t]);
        kt_detokenizer detokenizer;
        kt_detokenizer_init(&detokenizer, test_small, false);
        kt_buf text = {0};
        kt_buf_str(&text, (kt_str){"", 0});
        for (size_t i = 0; i < ids.n; i++) {
            kt_detokenizer_push(&detokenizer, ids.at[i], &text);
            assert_true(kt_utf8_valid((kt_str){text.at, text.n})); // never half a character
        }
        kt_detokenizer_flush(&detokenizer, &text);
        assert_true(kt_str_is((kt_str){text.at, text.n}, texts[t]));
        kt_buf_deinit(&text);
        kt_arena_deinit(&arena);
    }
}

// The token of one byte, by way of the vocabulary.
static int32_t byte_token(unsigned char byte) {
    char text = (char)byte;
    int32_t id;
    assert_true(kt_tokenizer_find(test_small, (kt_str){&text, 1}, &id));
    return id;
}

static void expect(const char *bytes, size_t n, const char *before_end, const char *wanted) {
    kt_detokenizer detokenizer;
    kt_detokenizer_init(&detokenizer, test_small, false);
    kt_buf text = {0};
    kt_buf_printf(&text, "%s", "");
    for (size_t i = 0; i < n; i++)
        kt_detokenizer_push(&detokenizer, byte_token((unsigned char)bytes[i]), &text);
    assert_true(kt_str_is((kt_str){text.at, text.n}, before_end));
    kt_detokenizer_flush(&detokenizer, &text);
    assert_true(kt_str_is((kt_str){text.at, text.n}, wanted));
    kt_detokenizer_flush(&detokenizer, &text);
    assert_true(kt_str_is((kt_str){text.at, text.n}, wanted));
    kt_buf_deinit(&text);
}

#define U "\xEF\xBF\xBD"

// The same replacements as Unicode's table 3-8 and Rust's from_utf8_lossy.
static void broken_characters_become_replacements(void **state) {
    (void)state;
    expect("\xE3\x81", 2, "", U);
    expect("a\xF0\x9F\x98", 4, "a", "a" U);
    expect("\xE3z", 2, U "z", U "z");
    expect("\xE3\x81\xE3\x81\x82", 5, U "あ", U "あ");
    expect("\xC0\x80", 2, U U, U U);
    expect("\xED\xA0\x80", 3, U U U, U U U);
    expect("\xF0\x80\x80\x80", 4, U U U U, U U U U);
    expect("\xF4\x90\x80\x80", 4, U U U U, U U U U);
    expect("\x80\xBF\xFF\xFE", 4, U U U U, U U U U);
    expect("a\xF1\x80\x80\xE1\x80\xC2"
           "b\x80"
           "c\x80\xBF"
           "d",
        13, "a" U U U "b" U "c" U U "d", "a" U U U "b" U "c" U U "d");
    expect("\xF0\x9F\x98\x80", 4, "\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80");
}

static void special_tokens_are_dropped_or_kept(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_ids ids = encode(&arena, "<|im_start|>a<cat><|im_end|>");
    for (int keep = 0; keep < 2; keep++) {
        kt_detokenizer detokenizer;
        kt_detokenizer_init(&detokenizer, test_small, keep == 1);
        kt_buf text = {0};
        for (size_t i = 0; i < ids.n; i++) kt_detokenizer_push(&detokenizer, ids.at[i], &text);
        kt_detokenizer_push(&detokenizer, -1, &text);
        kt_detokenizer_push(&detokenizer, 1 << 30, &text);
        kt_detokenizer_flush(&detokenizer, &text);
        assert_string_equal(text.at, keep == 1 ? "<|im_start|>a<cat><|im_end|>" : "a<cat>");
        kt_buf_deinit(&text);
    }
    kt_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_encoded_comes_back),
        cmocka_unit_test(broken_characters_become_replacements),
        cmocka_unit_test(special_tokens_are_dropped_or_kept),
    };
    return cmocka_run_group_tests_name("detokenizer", tests, test_small_open, test_small_close);
}
