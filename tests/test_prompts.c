// Prompts as the shipped pipeline writes them, token for token, with the small tokenizer. A case of
// tests/data/prompts.txt is "LONGEST SLICES MODE", then the line that probe_prompts takes; for each
// prompt follows "= TOKENS HASH", the first 16 digits of the SHA-256 of the ids with blanks
// between. tests/reference/prompts.py makes it and compares more, also with the real tokenizer.
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "tests/probe.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static kt_arena arena;
static kt_session *session;
static char settings_now[64];

// A session for "LONGEST SLICES MODE", the last one if they are the same.
static void open_for(const char *folder, const char *words) {
    char *end;
    kt_err err = {0};
    if (session && strcmp(words, settings_now) == 0) return;
    kt_session_close(session);
    snprintf(settings_now, sizeof settings_now, "%s", words);
    probe_settings settings = {.folder = folder, .device = KT_DEVICE_CPU, .filter = "lanczos"};
    settings.longest = (int)strtol(words, &end, 10);
    settings.slices = (int)strtol(end, &end, 10);
    settings.joint = strcmp(end, " joint") == 0;
    if (probe_open(&settings, &session, &err) != KT_OK) fail_msg("%s", err.text);
}

// "TOKENS HASH" of a line of ids.
static const char *sum_of(kt_str ids) {
    char hex[65];
    int n = 1;
    for (size_t i = 0; i < ids.n; i++) n += ids.at[i] == ' ';
    kt_hash_hex(kt_hash_bytes(ids.at, ids.n), hex);
    return kt_arena_printf(&arena, "%d %.16s", n, hex);
}

// The next line of text, without its end.
static kt_str next_line(kt_str *text) {
    ptrdiff_t end = kt_str_find(*text, '\n');
    size_t n = end < 0 ? text->n : (size_t)end;
    kt_str line = kt_str_slice(*text, 0, n);
    *text = kt_str_slice(*text, n < text->n ? n + 1 : n, text->n);
    return line;
}

// Runs one case; reads its sums from `text`. Returns how many prompts were compared.
static int check_case(const char *folder, char *line, kt_str *text) {
    kt_buf out = {0};
    kt_err err = {0};
    char *tab = strchr(line, '\t');
    assert_non_null(tab);
    *tab = '\0';
    open_for(folder, line);
    const char *said = kt_arena_printf(&arena, "%s", tab + 1);
    if (probe_prompts(session, tab + 1, &out, &err) != KT_OK) fail_msg("%s: %s", said, err.text);
    kt_str made = {out.at, out.n};
    int n = 0;
    for (; made.n > 0; n++) {
        const char *sum = sum_of(next_line(&made));
        kt_str wanted = next_line(text);
        if (!kt_str_starts(wanted, KT_STR("= ")) ||
            !kt_str_is(kt_str_slice(wanted, 2, wanted.n), sum))
            fail_msg("%s: prompt %d is '%s', wanted '%.*s'", said, n, sum, KT_STR_ARG(wanted));
    }
    kt_buf_deinit(&out);
    return n;
}

static void prompts_equal_the_reference(void **state) {
    (void)state;
    kt_str text = {0};
    kt_err err = {0};
    const char *folder = test_folder(&arena);
    if (probe_folder(folder, "tests/data/small_tokenizer.json", 512, &err) != KT_OK ||
        kt_file_read(&arena, "tests/data/prompts.txt", 1 << 20, &text, &err) != KT_OK)
        fail_msg("%s", err.text);
    int n = 0;
    while (text.n > 0) n += check_case(folder, kt_str_z(&arena, next_line(&text)), &text);
    kt_session_close(session);
    test_remove(folder);
    print_message("%d prompts equal the reference's\n", n);
    assert_true(n >= 80);
    kt_arena_deinit(&arena);
}

int main(void) {
    kt_log_set_level(KT_LOG_WARN);
    const struct CMUnitTest tests[] = {cmocka_unit_test(prompts_equal_the_reference)};
    return cmocka_run_group_tests_name("prompts", tests, NULL, NULL);
}
