// Files for positioned writes, and pages, of the system's layer (the rest of it: test_base.c).
#include "runtime/base/file.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE = 3 << 20, THREADS = 4 };

typedef struct writer {
    kt_os_sink *sink;
    int number;
    kt_status status;
} writer;

// The writer's quarter of the second megabyte, in small pieces.
static void write_quarter(void *ctx) {
    writer *w = ctx;
    char bytes[1 << 10];
    kt_err err;
    memset(bytes, 'a' + w->number, sizeof bytes);
    int64_t quarter = (1 << 20) / THREADS, begin = (1 << 20) + w->number * quarter;
    for (int64_t at = begin; at < begin + quarter && w->status == KT_OK;
         at += (int64_t)sizeof bytes)
        w->status = kt_os_write_at(w->sink, at, bytes, sizeof bytes, &err);
}

static char expected(int64_t at) {
    if (at == SIZE - 1) return 'z';
    if (at < 1 << 20 || at >= 2 << 20) return 0;
    return (char)('a' + (at - (1 << 20)) / ((1 << 20) / THREADS));
}

static void sink_writes_at_places(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_err err;
    const char *folder = test_folder(&arena), *path = kt_path_join(&arena, folder, "sink");
    test_write(path, "what was there", 14);
    kt_os_sink *sink;
    assert_int_equal(kt_os_create(path, SIZE, &sink, &err), KT_OK);
    writer writers[THREADS];
    kt_os_thread *threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        writers[i] = (writer){sink, i, KT_OK};
        threads[i] = kt_os_thread_start(write_quarter, &writers[i], 256 << 10);
        assert_non_null(threads[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        kt_os_thread_join(threads[i]);
        assert_int_equal(writers[i].status, KT_OK);
    }
    assert_int_equal(kt_os_write_at(sink, SIZE - 1, "z", 1, &err), KT_OK);
    assert_int_equal(kt_os_sink_close(sink, &err), KT_OK);
    kt_str got;
    assert_int_equal(kt_file_read(&arena, path, SIZE, &got, &err), KT_OK);
    assert_int_equal(got.n, SIZE);
    for (int64_t i = 0; i < SIZE; i++)
        if (got.at[i] != expected(i)) fail_msg("byte %lld", (long long)i);
    assert_int_equal(
        kt_os_create(kt_path_join(&arena, folder, "no/sink"), 1, &sink, &err), KT_EFILE);
    assert_null(sink);
    assert_non_null(strstr(err.text, "no/sink"));
    assert_int_equal(kt_os_sink_close(NULL, &err), KT_OK);
    test_remove(folder);
    kt_arena_deinit(&arena);
}

static void pages_are_zeroed(void **state) {
    (void)state;
    const size_t sizes[] = {1, 4097, (2 << 20) - 1, 2 << 20, (5 << 20) + 3};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        char *at = kt_os_pages(sizes[k]);
        assert_non_null(at);
        assert_int_equal((uintptr_t)at % (64 << 10), 0);
        for (size_t i = 0; i < sizes[k]; i++)
            if (at[i] != 0) fail_msg("byte %zu of %zu", i, sizes[k]);
        memset(at, 1, sizes[k]);
        kt_os_pages_free(at, sizes[k]);
    }
    assert_null(kt_os_pages(SIZE_MAX - 100));
    kt_os_pages_free(NULL, 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sink_writes_at_places),
        cmocka_unit_test(pages_are_zeroed),
    };
    return cmocka_run_group_tests_name("os", tests, NULL, NULL);
}
