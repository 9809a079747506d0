#include "tests/util.h"

#include "runtime/base/file.h"
#include "runtime/base/os.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// ---- files

const char *test_folder(kt_arena *arena) {
    uint64_t name;
    kt_os_random(&name, sizeof name);
    char *folder =
        kt_arena_printf(arena, "%s/kotaro-test-%016" PRIx64, kt_os_temp_folder(arena), name);
    assert_true(kt_os_private_folder(folder));
    return folder;
}

void test_remove(const char *path) {
    if (kt_os_remove(path)) return;
    kt_arena arena = {0};
    int n;
    kt_str *names = kt_os_list(&arena, path, &n);
    for (int i = 0; i < n; i++) test_remove(kt_path_join(&arena, path, kt_str_z(&arena, names[i])));
    kt_arena_deinit(&arena);
    assert_true(n < 0 || kt_os_remove(path));
}

const char *test_write(const char *path, const void *bytes, size_t n) {
    kt_arena arena = {0};
    kt_err err = {0};
    assert_true(kt_os_mkdirs(kt_path_folder(&arena, path)));
    kt_arena_deinit(&arena);
    if (kt_os_write_atomic(path, bytes, n, &err) != KT_OK) fail_msg("%s", err.text);
    return path;
}

const char *test_put(kt_arena *arena, const char *folder, const char *name, const char *text) {
    return test_write(kt_path_join(arena, folder, name), text, strlen(text));
}

// ---- states

int test_diag_open(void **state) {
    test_diag *t = calloc(1, sizeof *t);
    if (t == NULL) return -1;
    kt_diag_init(&t->diag, &t->arena);
    *state = t;
    return 0;
}

int test_diag_close(void **state) {
    test_diag *t = *state;
    kt_arena_deinit(&t->arena);
    free(t);
    return 0;
}

kt_tokenizer *test_small;

int test_small_open(void **state) {
    (void)state;
    kt_err err = {0};
    if (kt_tokenizer_open("tests/data/small_tokenizer.json", &test_small, &err) == KT_OK) return 0;
    print_error("%s\n", err.text);
    return 1;
}

int test_small_close(void **state) {
    (void)state;
    kt_tokenizer_close(test_small);
    return 0;
}

// ---- goldens

int test_next_int(FILE *file) {
    char word[32], *end = NULL;
    if (fscanf(file, "%31s", word) != 1) fail_msg("the goldens end early");
    long value = strtol(word, &end, 10);
    if (*end != '\0') fail_msg("'%s' is no number", word);
    return (int)value;
}
