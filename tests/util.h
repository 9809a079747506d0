// What several tests need: a folder of one's own and files in it, an arena with diagnostics, the
// small tokenizer, goldens. What goes wrong here fails the test that runs.
#ifndef KT_TESTS_UTIL_H
#define KT_TESTS_UTIL_H

#include "loader/diag.h"
#include "loader/tokenizer.h"

#include <stdio.h>

// A new, empty folder that nobody else uses. The test removes it.
const char *test_folder(kt_arena *arena);
// A file, or a folder with all that is in it; a link itself.
void test_remove(const char *path);
// Writes a file, makes the folders that it lies in, and returns its path.
const char *test_write(const char *path, const void *bytes, size_t n);
// The same for a text and folder/name; the path is in the arena.
const char *test_put(kt_arena *arena, const char *folder, const char *name, const char *text);

// The state of a test that reads texts: cmocka_unit_test_setup_teardown(..., test_diag_open,
// test_diag_close).
typedef struct test_diag {
    kt_arena arena;
    kt_diag diag;
} test_diag;
int test_diag_open(void **state);
int test_diag_close(void **state);

// tests/data/small_tokenizer.json, from test_small_open to test_small_close.
extern kt_tokenizer *test_small;
int test_small_open(void **state);
int test_small_close(void **state);

// The next word of a file of goldens as a number.
int test_next_int(FILE *file);

#endif
