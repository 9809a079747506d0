// The tokenizer against goldens of the reference library, and what it must refuse.
//
// KOTARO_TEST_TOKENIZER and KOTARO_TEST_TOKENIZER_GOLDENS name a real tokenizer.json and goldens
// for it (tests/reference/make_tokenizer_goldens.py); without them that test is skipped.
#include "loader/tokenizer.h"
#include "runtime/base/file.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

// ---- goldens

static int hex_digit(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static kt_str unhex(kt_arena *arena, kt_str hex) {
    char *out = kt_arena_alloc(arena, hex.n / 2 + 1);
    for (size_t i = 0; i + 1 < hex.n; i += 2)
        out[i / 2] = (char)(hex_digit(hex.at[i]) * 16 + hex_digit(hex.at[i + 1]));
    return (kt_str){out, hex.n / 2};
}

// Compares one line "s|p TAB hex TAB ids". Returns whether it agrees.
static bool check_line(const kt_tokenizer *tokenizer, kt_str line) {
    kt_arena arena = {0};
    size_t tab = (size_t)kt_str_find_last(line, '\t');
    kt_str text = unhex(&arena, kt_str_slice(line, 2, tab));
    kt_ids ids = {0};
    kt_err err = {0};
    kt_status status = kt_tokenizer_encode(tokenizer, &arena, text, line.at[0] == 's', &ids, &err);
    if (status != KT_OK) print_error("%s\n", err.text);
    kt_buf found = {0};
    for (size_t i = 0; i < ids.n; i++)
        kt_buf_printf(&found, "%s%d", i == 0 ? "" : " ", (int)ids.at[i]);
    kt_str wanted = kt_str_slice(line, tab + 1, line.n);
    bool same = status == KT_OK && kt_str_eq(wanted, (kt_str){found.at, found.n});
    if (!same) {
        print_error("%c '%.*s'\n wanted %.*s\n found  %.*s\n", line.at[0], KT_STR_ARG(text),
            KT_STR_ARG(wanted), (int)found.n, found.n > 0 ? found.at : "");
    }
    kt_buf_deinit(&found);
    kt_arena_deinit(&arena);
    return same;
}

// Returns how many lines disagree; prints the first few.
static size_t check_goldens(const kt_tokenizer *tokenizer, const char *path, size_t *lines) {
    kt_arena arena = {0};
    kt_str text;
    kt_err err = {0};
    assert_int_equal(kt_file_read(&arena, path, (int64_t)1 << 31, &text, &err), KT_OK);
    size_t wrong = 0;
    *lines = 0;
    while (text.n > 0 && wrong < 20) {
        const char *end = memchr(text.at, '\n', text.n);
        assert_non_null(end);
        size_t n = (size_t)(end - text.at);
        wrong += check_line(tokenizer, (kt_str){text.at, n}) ? 0 : 1;
        text = kt_str_slice(text, n + 1, text.n);
        ++*lines;
    }
    kt_arena_deinit(&arena);
    return wrong;
}

static void small_goldens_agree(void **state) {
    (void)state;
    size_t lines;
    assert_int_equal(check_goldens(test_small, "tests/data/small_tokenizer.goldens", &lines), 0);
    assert_true(lines > 600);
}

static void real_goldens_agree(void **state) {
    (void)state;
    const char *path = kt_os_getenv("KOTARO_TEST_TOKENIZER");
    const char *goldens = kt_os_getenv("KOTARO_TEST_TOKENIZER_GOLDENS");
    if (path == NULL || goldens == NULL) {
        print_message("no KOTARO_TEST_TOKENIZER and KOTARO_TEST_TOKENIZER_GOLDENS\n");
        skip();
    }
    kt_tokenizer *real = NULL;
    kt_err err = {0};
    double before = kt_os_now_ms();
    assert_int_equal(kt_tokenizer_open(path, &real, &err), KT_OK);
    double opened = kt_os_now_ms();
    size_t lines;
    size_t wrong = check_goldens(real, goldens, &lines);
    print_message("opened in %.0f ms; %lu texts in %.0f ms\n", opened - before,
        (unsigned long)lines, kt_os_now_ms() - opened);
    kt_tokenizer_close(real);
    assert_int_equal(wrong, 0);
}

// ---- behaviour

static kt_ids encode(kt_arena *arena, const char *text, bool special) {
    kt_ids ids = {0};
    kt_err err = {0};
    if (kt_tokenizer_encode(test_small, arena, kt_str_from(text), special, &ids, &err) != KT_OK)
        fail_msg("%s", err.text);
    return ids;
}

static int32_t id_of(const char *token) {
    int32_t id = -1;
    assert_true(kt_tokenizer_find(test_small, kt_str_from(token), &id));
    return id;
}

static void special_names_are_plain_unless_asked(void **state) {
    (void)state;
    kt_arena arena = {0};
    const char *text = "<|im_end|>";
    kt_ids asked = encode(&arena, text, true), plain = encode(&arena, text, false);
    assert_int_equal(asked.n, 1);
    assert_int_equal(asked.at[0], id_of(text));
    assert_true(kt_tokenizer_is_special(test_small, asked.at[0]));
    kt_buf back = {0};
    for (size_t i = 0; i < plain.n; i++) {
        assert_false(kt_tokenizer_is_special(test_small, plain.at[i]));
        kt_buf_str(&back, kt_tokenizer_bytes(test_small, plain.at[i]));
    }
    assert_true(kt_str_is((kt_str){back.at, back.n}, text));
    kt_buf_deinit(&back);
    kt_arena_deinit(&arena);
}

static void zones_decide_where_special_tokens_are(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_str text = KT_STR("<|im_start|>user\n<|im_end|> x<|im_end|>\n");
    kt_zone zones[] = {{17, true}, {12, false}, {5, true}, {6, true}};
    kt_ids ids = {0};
    kt_err err = {0};
    assert_int_equal(
        kt_tokenizer_encode_zones(test_small, &arena, text, zones, 4, &ids, &err), KT_OK);
    int found = 0;
    for (size_t i = 0; i < ids.n; i++)
        found += kt_tokenizer_is_special(test_small, ids.at[i]) ? 1 : 0;
    assert_int_equal(found, 2); // the last one crosses from one allowed zone to the next
    assert_int_equal(ids.at[0], id_of("<|im_start|>"));
    assert_int_equal(ids.at[ids.n - 2], id_of("<|im_end|>"));
    kt_arena_deinit(&arena);
}

static void a_special_token_never_reaches_into_a_users_zone(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_str text = KT_STR("<|im_end|>");
    for (size_t cut = 1; cut < text.n; cut++) {
        for (int first = 0; first < 2; first++) {
            kt_zone zones[] = {{cut, first == 1}, {text.n - cut, first == 0}};
            kt_ids ids = {0};
            kt_err err = {0};
            assert_int_equal(
                kt_tokenizer_encode_zones(test_small, &arena, text, zones, 2, &ids, &err), KT_OK);
            kt_ids plain = encode(&arena, "<|im_end|>", false);
            assert_int_equal(ids.n, plain.n);
            assert_memory_equal(ids.at, plain.at, ids.n * sizeof *ids.at);
        }
    }
    kt_arena_deinit(&arena);
}

static void zones_end_between_characters(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_zone zones[] = {{1, true}, {2, true}};
    kt_ids ids = {0};
    kt_err err = {0};
    assert_int_equal(
        kt_tokenizer_encode_zones(test_small, &arena, KT_STR("あ"), zones, 2, &ids, &err),
        KT_EPROMPT);
    assert_non_null(strstr(err.text, "inside a character, at byte 1"));
    kt_arena_deinit(&arena);
}

// Zones that allow nothing special must not change how plain text is encoded, wherever they are
// cut.
static void zones_do_not_cut_text(void **state) {
    (void)state;
    kt_arena arena = {0};
    const char *const texts[] = {"Look at the picture",
        "か\xE3\x82\x99\xE3\x81\x8C <cat> e\xCC\x81\xCC\x80", "a  \n b's 12"};
    for (size_t t = 0; t < sizeof texts / sizeof texts[0]; t++) {
        kt_str text = kt_str_from(texts[t]);
        kt_ids whole = encode(&arena, texts[t], true);
        for (size_t cut = 0; cut <= text.n; cut++) {
            if (cut < text.n && ((unsigned char)text.at[cut] & 0xC0) == 0x80) continue;
            kt_zone zones[] = {{cut, true}, {text.n - cut, false}};
            kt_ids ids = {0};
            kt_err err = {0};
            assert_int_equal(
                kt_tokenizer_encode_zones(test_small, &arena, text, zones, 2, &ids, &err), KT_OK);
            assert_int_equal(ids.n, whole.n);
            assert_memory_equal(ids.at, whole.at, ids.n * sizeof *ids.at);
        }
    }
    kt_arena_deinit(&arena);
}

static void invalid_text_is_refused_with_its_place(void **state) {
    (void)state;
    const struct {
        const char *text;
        const char *place;
    } cases[] = {{"ab\xFFz", "0xff at 2"}, {"\xE3\x81", "0xe3 at 0"},
        {"x\xED\xA0\x80", "0xed at 1"}, {"\xC0\x80", "0xc0 at 0"},
        {"あ\xF4\x90\x80\x80", "0xf4 at 3"}, {"a\x80", "0x80 at 1"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kt_arena arena = {0};
        kt_ids ids = {0};
        kt_err err = {0};
        kt_status status =
            kt_tokenizer_encode(test_small, &arena, kt_str_from(cases[i].text), true, &ids, &err);
        assert_int_equal(status, KT_EPROMPT);
        assert_non_null(strstr(err.text, cases[i].place));
        kt_arena_deinit(&arena);
    }
}

static void long_pieces_take_no_square_time(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    const char *const kinds[] = {
        "a", "ab", "\xE3\x81\xAE", " ", "\n", "<", "<|im_end|>", "e\xCC\x81"};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        kt_buf text = {0};
        while (text.n < N) kt_buf_printf(&text, "%s", kinds[k]);
        kt_arena arena = {0};
        double before = kt_os_now_ms();
        kt_ids ids = encode(&arena, text.at, true);
        double took = kt_os_now_ms() - before;
        assert_true(ids.n > 0);
        if (took > 20000) fail_msg("1 MB of '%s' took %.0f ms", kinds[k], took);
        kt_buf_deinit(&text);
        kt_arena_deinit(&arena);
    }
}

static void too_long_a_text_is_refused(void **state) {
    (void)state;
    kt_arena arena = {0};
    size_t n = KT_TOKENIZER_TEXT_MAX + 1;
    char *text = kt_arena_alloc(&arena, n + 1);
    memset(text, 'a', n);
    kt_ids ids = {0};
    kt_err err = {0};
    assert_int_equal(
        kt_tokenizer_encode(test_small, &arena, (kt_str){text, n}, true, &ids, &err), KT_EPROMPT);
    kt_arena_deinit(&arena);
}

// ---- what cannot be read

static void expect_refusal(const char *json, const char *message) {
    kt_tokenizer *tokenizer = NULL;
    kt_err err = {0};
    kt_status status = kt_tokenizer_parse(kt_str_from(json), "t.json", &tokenizer, &err);
    if (status != KT_EFORMAT) fail_msg("accepted: %s", json);
    if (strstr(err.text, message) == NULL) fail_msg("'%s' is not in '%s'", message, err.text);
}

#define MODEL                                                                                      \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define PRE   "\"pre_tokenizer\":" LEVEL
#define SPLIT(pattern, rest)                                                                       \
    "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","            \
    "\"pattern\":" pattern ",\"behavior\":" rest "}," LEVEL "]}," MODEL "}"

static void damaged_files_are_refused(void **state) {
    (void)state;
    const char *const cases[][2] = {
        {"", "t.json:1:1"},
        {"[]", "expected an object"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{" PRE "}", "model is nothing"},
        {"{" MODEL "}", "pre_tokenizer.type is nothing"},
        {"{" PRE ",\"model\":{\"type\":\"WordPiece\"}}", "'WordPiece'"},
        {"{" PRE ",\"model\":{\"vocab\":[]}}", "model.vocab is a list"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":-1}}}", "the number -1"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":99999999999}}}", "99999999999"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0,\"b\":0}}}", "of another token"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0}}}", "model.merges is nothing"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "model.merges[0]"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b c\"]}}", "model.merges[0]"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "model.merges[0]"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a z\"]}}", "'z' is not in"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":true}}",
            "byte_fallback"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "dropout"},
        {"{" PRE ",\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"w\"}}",
            "end_of_word"},
        {"{" PRE "," MODEL ",\"normalizer\":{\"type\":\"NFKC\"}}", "'NFKC'"},
        {"{" PRE "," MODEL ",\"decoder\":{\"type\":\"Metaspace\"}}", "'Metaspace'"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\"}," MODEL "}", "'Metaspace'"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"}," MODEL "}", "add_prefix_space"},
        {"{\"pre_tokenizer\":{\"type\":\"Digits\"}," MODEL "}", "no ByteLevel"},
        {SPLIT("{\"Regex\":\"a(\"}", "\"Isolated\""), "not understood"},
        {SPLIT("{\"Regex\":\"[a-z&&[^b]]\"}", "\"Isolated\""), "not supported"},
        {SPLIT("{\"Regex\":\"\\\\h\"}", "\"Isolated\""), "not supported"},
        {SPLIT("{\"Regex\":\"\\\\C\"}", "\"Isolated\""), "not understood"},
        {SPLIT("{\"Regex\":\"a\"}", "\"Removed\""), "'Removed'"},
        {SPLIT("{\"Glob\":\"a\"}", "\"Isolated\""), "pattern"},
        {SPLIT("{\"Regex\":\"\"}", "\"Isolated\""), "0 bytes"},
        {"{" PRE "," MODEL ",\"added_tokens\":[{\"id\":9}]}", "added_tokens[0]"},
        {"{" PRE "," MODEL ",\"added_tokens\":[{\"id\":-9,\"content\":\"x\"}]}", "added_tokens[0]"},
        {"{" PRE "," MODEL ",\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]}",
            "which is 'a' already"},
        {"{" PRE "," MODEL ",\"added_tokens\":[{\"id\":7,\"content\":\"x\",\"single_word\":true}]}",
            "single_word"},
        {"{" PRE "," MODEL
         ",\"added_tokens\":[{\"id\":7,\"content\":\"x\"},{\"id\":8,\"content\":\"x\"}]}",
            "twice"},
        {"{" PRE "," MODEL ",\"added_tokens\":[{\"id\":7,\"content\":\"ab\"}]}",
            "but 2 in model.vocab"},
        {"{" PRE "," MODEL ",\"added_tokens\":{}}", "added_tokens is an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refusal(cases[i][0], cases[i][1]);
}

static void a_byte_without_a_token_is_refused(void **state) {
    (void)state;
    kt_tokenizer *tokenizer = NULL;
    kt_err err = {0};
    assert_int_equal(
        kt_tokenizer_parse(KT_STR("{" PRE "," MODEL "}"), "t.json", &tokenizer, &err), KT_OK);
    kt_arena arena = {0};
    kt_ids ids = {0};
    assert_int_equal(kt_tokenizer_encode(tokenizer, &arena, KT_STR("ab"), true, &ids, &err), KT_OK);
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.at[0], 2);
    assert_int_equal(
        kt_tokenizer_encode(tokenizer, &arena, KT_STR("abc"), true, &ids, &err), KT_EPROMPT);
    assert_non_null(strstr(err.text, "0x63"));
    kt_arena_deinit(&arena);
    kt_tokenizer_close(tokenizer);
}

// How many ids a text has by a tokenizer of few tokens.
static size_t count_ids(const char *json, const char *text) {
    kt_tokenizer *tokenizer = NULL;
    kt_err err = {0};
    if (kt_tokenizer_parse(kt_str_from(json), "t.json", &tokenizer, &err) != KT_OK)
        fail_msg("%s", err.text);
    kt_arena arena = {0};
    kt_ids ids = {0};
    if (kt_tokenizer_encode(tokenizer, &arena, kt_str_from(text), true, &ids, &err) != KT_OK)
        fail_msg("%s", err.text);
    kt_arena_deinit(&arena);
    kt_tokenizer_close(tokenizer);
    return ids.n;
}

#define CUT_BY(pattern, model)                                                                     \
    "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","            \
    "\"pattern\":{"                                                                                \
    "\"Regex\":\"" pattern "\"},\"behavior\":\"Isolated\"}," LEVEL "]},\"model\":" model "}"
// The only merge joins "!" with the first byte of U+180E (E1 A0 8E), or of U+00E9 (C3 A9).
#define U180E                                                                                      \
    "{\"vocab\":{\"!\":0,\"\\u00e1\":1,\"\\u0142\":2,\"\\u0130\":3,\"!\\u00e1\":4},\"merges\":["   \
    "\"! \\u00e1\"]}"
#define U00E9                                                                                      \
    "{\"vocab\":{\"!\":0,\"\\u00c3\":1,\"\\u00a9\":2,\"!\\u00c3\":3},\"merges\":[\"! \\u00c3\"]}"

// U+180E is no white space, in a set and outside; U+00E9 is a word character.
static void classes_are_those_of_unicode(void **state) {
    (void)state;
    const char *space = "!\xE1\xA0\x8E", *word = "!\xC3\xA9";
    assert_int_equal(count_ids(CUT_BY("[^\\\\s]+", U180E), space), 3);
    assert_int_equal(count_ids(CUT_BY("\\\\s", U180E), space), 3);
    assert_int_equal(count_ids(CUT_BY("\\\\S+", U180E), space), 3);
    assert_int_equal(count_ids(CUT_BY("!", U180E), space), 4);
    assert_int_equal(count_ids(CUT_BY("\\\\w+", U00E9), word), 3);
    assert_int_equal(count_ids(CUT_BY("[x]", U00E9), word), 2);
}

// (a|aa)+[bc] takes exponential time on a run of a.
static void a_pattern_that_would_hang_is_stopped(void **state) {
    (void)state;
    kt_tokenizer *tokenizer = NULL;
    kt_err err = {0};
    kt_str json = KT_STR(SPLIT("{\"Regex\":\"(?:a|aa)+[bc]\"}", "\"Isolated\""));
    assert_int_equal(kt_tokenizer_parse(json, "t.json", &tokenizer, &err), KT_OK);
    kt_arena arena = {0};
    char text[101] = {0};
    memset(text, 'a', 100);
    kt_ids ids = {0};
    assert_int_equal(
        kt_tokenizer_encode(tokenizer, &arena, kt_str_from(text), true, &ids, &err), KT_EPROMPT);
    assert_non_null(strstr(err.text, "cannot be cut into pieces at byte 0"));
    kt_arena_deinit(&arena);
    kt_tokenizer_close(tokenizer);
}

static void a_sentencepiece_model_is_refused(void **state) {
    (void)state;
    kt_tokenizer *tokenizer = NULL;
    kt_err err = {0};
    assert_int_equal(kt_tokenizer_open("m/tokenizer.model", &tokenizer, &err), KT_EFORMAT);
    assert_non_null(strstr(err.text, "save a tokenizer.json"));
    assert_int_equal(kt_tokenizer_open("m/tokenizer.json", &tokenizer, &err), KT_EFILE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_goldens_agree),
        cmocka_unit_test(real_goldens_agree),
        cmocka_unit_test(special_names_are_plain_unless_asked),
        cmocka_unit_test(zones_decide_where_special_tokens_are),
        cmocka_unit_test(a_special_token_never_reaches_into_a_users_zone),
        cmocka_unit_test(zones_do_not_cut_text),
        cmocka_unit_test(zones_end_between_characters),
        cmocka_unit_test(invalid_text_is_refused_with_its_place),
        cmocka_unit_test(long_pieces_take_no_square_time),
        cmocka_unit_test(too_long_a_text_is_refused),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(a_byte_without_a_token_is_refused),
        cmocka_unit_test(classes_are_those_of_unicode),
        cmocka_unit_test(a_pattern_that_would_hang_is_stopped),
        cmocka_unit_test(a_sentencepiece_model_is_refused),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, test_small_open, test_small_close);
}
