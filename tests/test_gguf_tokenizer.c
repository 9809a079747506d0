// Tokenizers of GGUF files: equal to those of tokenizer.json, cut by the patterns they name,
// refused.
#include "loader/tokenizer.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "tests/gguf_file.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void check_ids(const kt_tokenizer *a, const kt_tokenizer *b, kt_str text, bool special) {
    kt_arena arena = {0};
    kt_ids x = {0}, y = {0};
    kt_err err;
    assert_int_equal(kt_tokenizer_encode(a, &arena, text, special, &x, &err), KT_OK);
    assert_int_equal(kt_tokenizer_encode(b, &arena, text, special, &y, &err), KT_OK);
    if (x.n != y.n || (x.n > 0 && memcmp(x.at, y.at, x.n * sizeof *x.at) != 0))
        fail_msg("'%.*s'", KT_STR_ARG(text));
    kt_arena_deinit(&arena);
}

static int hex(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

// The texts of the goldens: lines of s or p, hex, ids. Tokens that strip white space are left out:
// GGUF does not say that they do.
static int check_texts(const kt_tokenizer *a, const kt_tokenizer *b, const char *path) {
    kt_arena arena = {0};
    kt_err err;
    kt_str file;
    assert_int_equal(kt_file_read(&arena, path, 16 << 20, &file, &err), KT_OK);
    int n = 0;
    while (file.n > 0) {
        ptrdiff_t newline = kt_str_find(file, '\n');
        assert_true(newline > 0);
        kt_str line = kt_str_slice(file, 0, (size_t)newline);
        file = kt_str_slice(file, (size_t)newline + 1, file.n);
        kt_str code = kt_str_slice(line, 2, line.n);
        code = kt_str_slice(code, 0, (size_t)kt_str_find(code, '\t'));
        kt_buf text = {0};
        for (size_t i = 0; i + 1 < code.n; i += 2) {
            char byte = (char)(hex(code.at[i]) * 16 + hex(code.at[i + 1]));
            kt_buf_add(&text, &byte, 1);
        }
        kt_str bytes = {text.n > 0 ? text.at : "", text.n};
        if (kt_str_find_text(bytes, "TAG_") < 0 && kt_str_find_text(bytes, "ねこ") < 0) {
            check_ids(a, b, bytes, line.at[0] == 's');
            n++;
        }
        kt_buf_deinit(&text);
    }
    kt_arena_deinit(&arena);
    return n;
}

static kt_tokenizer *open_tokenizer(const char *path) {
    kt_tokenizer *out = NULL;
    kt_err err;
    if (kt_tokenizer_open(path, &out, &err) != KT_OK) fail_msg("%s", err.text);
    return out;
}

static void a_tokenizer_is_the_one_of_its_json(void **state) {
    (void)state;
    gguf_file f;
    gguf_init(&f);
    gguf_add_tokenizer(&f, "tests/data/small_tokenizer.json", "qwen2");
    kt_tokenizer *made = open_tokenizer(gguf_write(&f, "build/fake/gguf/small.gguf"));
    gguf_deinit(&f);
    assert_true(check_texts(made, test_small, "tests/data/small_tokenizer.goldens") > 500);
    assert_int_equal(kt_tokenizer_size(made), kt_tokenizer_size(test_small));
    for (int32_t i = 0; i < kt_tokenizer_size(made); i++) {
        assert_true(kt_str_eq(kt_tokenizer_bytes(made, i), kt_tokenizer_bytes(test_small, i)));
        assert_int_equal(kt_tokenizer_is_special(made, i), kt_tokenizer_is_special(test_small, i));
        assert_int_equal(kt_tokenizer_is_added(made, i), kt_tokenizer_is_added(test_small, i));
    }
    kt_tokenizer_close(made);
}

// A tokenizer whose tokens are all strings within a few texts, and merges all ways to make them.
typedef struct strings {
    kt_arena arena;
    KT_VEC(kt_str) tokens;
    KT_VEC(kt_str) merges;
} strings;

static bool inside_character(kt_str text, size_t at) {
    return at < text.n && ((unsigned char)text.at[at] & 0xC0) == 0x80;
}

static void add_string(strings *s, kt_str token) {
    for (size_t k = 0; k < s->tokens.n; k++)
        if (kt_str_eq(s->tokens.at[k], token)) return;
    KT_PUSH(&s->arena, &s->tokens, token);
    for (size_t cut = 1; cut < token.n; cut++) {
        if (inside_character(token, cut)) continue;
        kt_str left = kt_str_slice(token, 0, cut), right = kt_str_slice(token, cut, token.n);
        char *merge = kt_arena_printf(&s->arena, "%.*s %.*s", KT_STR_ARG(left), KT_STR_ARG(right));
        KT_PUSH(&s->arena, &s->merges, kt_str_from(merge));
    }
}

static void add_strings(strings *s, kt_str text) {
    for (size_t from = 0; from < text.n; from++)
        for (size_t to = from + 1; to <= text.n; to++)
            if (!inside_character(text, from) && !inside_character(text, to))
                add_string(s, kt_str_slice(text, from, to));
}

// What each name of patterns cuts apart: a piece becomes one token.
static void patterns_have_names(void **state) {
    (void)state;
    static const char *const texts[] = {"12345",
        "\xC4\xA0"
        "12",
        "it's", "IT'S"};
    static const struct {
        const char *pre, *text;
        size_t n; // pieces
    } rows[] = {
        {"qwen2", "12345", 5},
        {"smollm", "12345", 5},
        {"gpt-2", "12345", 1},
        {"llama-bpe", "12345", 2},
        {"default", "12345", 2},
        {"smollm", " 12", 3},
        {"gpt-2", " 12", 1},
        {"qwen2", "it's", 2},
        {"gpt-2", "IT'S", 3},
        {"llama-bpe", "IT'S", 2},
    };
    strings s = {0};
    for (int i = 0; i < 4; i++) add_strings(&s, kt_str_from(texts[i]));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gguf_file f;
        gguf_init(&f);
        gguf_key_text(&f, "tokenizer.ggml.model", KT_STR("gpt2"));
        gguf_key_text(&f, "tokenizer.ggml.pre", kt_str_from(rows[i].pre));
        gguf_key_texts(&f, "tokenizer.ggml.tokens", s.tokens.at, s.tokens.n);
        gguf_key_texts(&f, "tokenizer.ggml.merges", s.merges.at, s.merges.n);
        kt_tokenizer *made = open_tokenizer(gguf_write(&f, "build/fake/gguf/pre.gguf"));
        kt_ids ids = {0};
        kt_err err;
        kt_str text = kt_str_from(rows[i].text);
        if (kt_tokenizer_encode(made, &s.arena, text, false, &ids, &err) != KT_OK)
            fail_msg("%s", err.text);
        if (ids.n != rows[i].n)
            fail_msg("%s: '%s' has %zu pieces", rows[i].pre, rows[i].text, ids.n);
        kt_tokenizer_close(made);
        gguf_deinit(&f);
    }
    kt_arena_deinit(&s.arena);
}

static void other_tokenizers_are_refused(void **state) {
    (void)state;
    const kt_str tokens[] = {KT_STR("a"), KT_STR("b"), KT_STR("ab")};
    const kt_str twice[] = {KT_STR("a"), KT_STR("b"), KT_STR("a")};
    const kt_str merge[] = {KT_STR("a b")}, bad_merge[] = {KT_STR("a c")},
                 no_merge[] = {KT_STR("ab")};
    const int32_t types[] = {1, 1, 1}, odd[] = {1, 7, 1};
    static const struct {
        const char *model, *pre;
        int what; // 1: no tokens, 2: twice, 3: bad merge, 4: no pair, 5: two types, 6: odd type
        const char *says;
    } rows[] = {
        {"llama", "default", 0,
            "'tokenizer.ggml.model' is the text 'llama', which is not supported"},
        {"bert", "default", 0, "'tokenizer.ggml.model' is the text 'bert', which is not supported"},
        {"gpt2", "deepseek-llm", 0,
            "'tokenizer.ggml.pre' is the text 'deepseek-llm', which is not"},
        {"gpt2", "qwen2", 1, "'tokenizer.ggml.tokens' is nothing, which is not supported"},
        {"gpt2", "qwen2", 2, "tokenizer.ggml.tokens[2] is 'a', and so is token 0"},
        {"gpt2", "qwen2", 3, "tokenizer.ggml.merges[0] ('a' and 'c'): 'c' is not in"},
        {"gpt2", "qwen2", 4, "tokenizer.ggml.merges[0] is 'ab', expected \"a b\""},
        {"gpt2", "qwen2", 5, "there are 3 tokens in 'tokenizer.ggml.tokens' and 2 types"},
        {"gpt2", "qwen2", 6, "'tokenizer.ggml.token_type'[1] is 7, expected 1 to 6"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        gguf_file f;
        int what = rows[i].what;
        gguf_init(&f);
        gguf_key_text(&f, "tokenizer.ggml.model", kt_str_from(rows[i].model));
        gguf_key_text(&f, "tokenizer.ggml.pre", kt_str_from(rows[i].pre));
        if (what != 1) gguf_key_texts(&f, "tokenizer.ggml.tokens", what == 2 ? twice : tokens, 3);
        gguf_key_i32s(&f, "tokenizer.ggml.token_type", what == 6 ? odd : types, what == 5 ? 2 : 3);
        gguf_key_texts(&f, "tokenizer.ggml.merges",
            what == 3   ? bad_merge
            : what == 4 ? no_merge
                        : merge,
            1);
        kt_tokenizer *made = NULL;
        kt_err err;
        const char *path = gguf_write(&f, "build/fake/gguf/bad.gguf");
        kt_status status = kt_tokenizer_open(path, &made, &err);
        if (status != KT_EFORMAT || !strstr(err.text, rows[i].says)) fail_msg("%s", err.text);
        gguf_deinit(&f);
    }
}

int main(void) {
    kt_log_set_level(KT_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_tokenizer_is_the_one_of_its_json, test_small_open, test_small_close),
        cmocka_unit_test(patterns_have_names),
        cmocka_unit_test(other_tokenizers_are_refused),
    };
    return cmocka_run_group_tests_name("gguf_tokenizer", tests, NULL, NULL);
}
