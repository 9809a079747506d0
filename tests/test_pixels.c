// Pictures through the shipped pipeline, from the file to the patches: the bytes are Pillow's.
// tests/reference/preprocess.py makes the goldens, and compares thousands of other pictures.
#include "runtime/base/log.h"
#include "tests/probe.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void pixels_equal_pillow(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_err err = {0};
    probe_score score;
    const char *folder = test_folder(&arena);
    kt_status status = probe_goldens(KT_DEVICE_CPU, folder, &score, &err);
    test_remove(folder);
    if (status != KT_OK) fail_msg("%s", err.text);
    print_message("%d of %d pictures equal Pillow's bytes\n", score.equal, score.n);
    assert_int_equal(score.equal, score.n);
    assert_true(score.n >= 200);
    kt_arena_deinit(&arena);
}

int main(void) {
    kt_log_set_level(KT_LOG_WARN);
    const struct CMUnitTest tests[] = {cmocka_unit_test(pixels_equal_pillow)};
    return cmocka_run_group_tests_name("pixels", tests, NULL, NULL);
}
