// Every op's kernels on a real GPU against the C implementations: the whole of `kotaro ops check`,
// one test an op. Environment: KOTARO_SEED repeats a run, KOTARO_QUICK=1 takes fewer combinations,
// KOTARO_OPS names the ops (separated by spaces), KOTARO_FIRST=1 stops an op at its first failure
// and compiles each kernel when a test needs it.
#include "runtime/exec/op_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <inttypes.h>

#include <cmocka.h>

static kt_arena arena;
static kt_gpu *gpu;
static kt_compiler *compiler;
static kt_op_check *check;
static const char *missing; // why there is no GPU
static uint64_t seed;

static void kernels_match(void **state) {
    int i = *(int *)*state;
    kt_op_check_result result;
    kt_buf report = {0};
    kt_err err;
    if (kt_op_check_run(check, i, &result, &report, &err) != KT_OK) fail_msg("%s", err.text);
    if (result.n_failed > 0)
        fail_msg("%d of %d tests failed, seed %" PRIu64 "\n%s", result.n_failed, result.n_runs,
            seed, report.at);
    printf("# %.*s: %d tests", KT_STR_ARG(result.op->name), result.n_runs);
    for (int t = 0; t < KT_DTYPE_COUNT; t++)
        if (result.worst[t] > 0)
            printf(", %s %.2g of its tolerance", kt_dtype_name((kt_dtype)t), result.worst[t]);
    printf(", %.1f s\n", result.ms / 1e3);
    if (result.none) fail_msg("nothing to test: %s", result.none);
    assert_true(result.n_runs > 0);
    kt_buf_deinit(&report);
}

static void needs_a_gpu(void **state) {
    (void)state;
    printf("# %s\n", missing);
    skip();
}

static const char *const *words(const char *text, int *n) {
    KT_VEC(const char *) out = {0};
    while (text && *text) {
        size_t length = strcspn(text, " ");
        if (length > 0) KT_PUSH(&arena, &out, kt_arena_copy(&arena, text, length));
        text += length + (text[length] == ' ');
    }
    *n = (int)out.n;
    return out.at;
}

static kt_status open_all(kt_diag *diag, kt_err *err) {
    kt_compiler_options options = {.headers = kt_device_headers};
    KT_TRY(kt_compiler_open(&options, &compiler, err));
    kt_registry *registry = kt_registry_open(&arena, "ops", NULL, 0, diag);
    if (!registry) return KT_FAIL(err, KT_EYAML, "the ops have mistakes");
    uint32_t drawn;
    int64_t given;
    kt_os_random(&drawn, sizeof drawn);
    const char *text = kt_os_getenv("KOTARO_SEED");
    seed = text && kt_str_to_i64(kt_str_from(text), &given) ? (uint64_t)given : drawn;
    kt_op_check_options check_options = {.registry = registry,
        .include = ".",
        .gpu = gpu,
        .compiler = compiler,
        .seed = seed,
        .quick = kt_os_getenv("KOTARO_QUICK") != NULL,
        .first = kt_os_getenv("KOTARO_FIRST") != NULL};
    check_options.only = words(kt_os_getenv("KOTARO_OPS"), &check_options.n_only);
    KT_TRY(kt_op_check_open(&check_options, &check, diag, err));
    double start = kt_os_now_ms();
    if (!check_options.first) KT_TRY(kt_op_check_compile(check, 0, err));
    printf("# seed %" PRIu64 " on %s; kernels in %.1f s (%d compiled, %d cached)\n", seed,
        gpu->info.name, (kt_os_now_ms() - start) / 1e3,
        kt_compiler_count(compiler, KT_COMPILE_FROM_NVRTC),
        kt_compiler_count(compiler, KT_COMPILE_FROM_CACHE));
    return KT_OK;
}

static int run_group(void) {
    int n = missing ? 1 : kt_op_check_count(check);
    struct CMUnitTest *tests = KT_NEW_ARRAY(&arena, struct CMUnitTest, n);
    int *numbers = KT_NEW_ARRAY(&arena, int, n);
    for (int i = 0; i < n && !missing; i++) {
        kt_str name = kt_op_check_op(check, i)->name;
        numbers[i] = i;
        tests[i] = (struct CMUnitTest){.test_func = kernels_match,
            .initial_state = &numbers[i],
            .name = kt_arena_printf(&arena, "kernels_match: %.*s", KT_STR_ARG(name))};
    }
    if (missing)
        tests[0] = (struct CMUnitTest){.test_func = needs_a_gpu, .name = "kernels_match: no GPU"};
    return _cmocka_run_group_tests("gpu_ops", tests, (size_t)n, NULL, NULL);
}

int main(void) {
    kt_err err = {0};
    kt_diag diag;
    kt_buf text = {0};
    kt_diag_init(&diag, &arena);
    int failed = 0;
    kt_status status = kt_gpu_open(NULL, &gpu, &err);
    if (status == KT_EDRIVER)
        missing = kt_arena_copy(&arena, err.text, strcspn(err.text, "\n"));
    else if (status == KT_OK)
        status = open_all(&diag, &err);
    kt_diag_print(&diag, &text);
    if (status == KT_OK || missing) {
        failed = run_group();
    } else {
        printf("Bail out! %s\n%s", err.text, text.n ? text.at : "");
        failed = 1;
    }
    kt_buf_deinit(&text);
    kt_op_check_close(check);
    kt_compiler_close(compiler);
    kt_gpu_close(gpu);
    kt_arena_deinit(&arena);
    return failed;
}
