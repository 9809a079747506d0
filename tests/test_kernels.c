// Every op x variant x architecture through NVRTC: no warning, the parameters of the manifest, no
// spills that tests/data/ops/spills.txt does not explain, the limits of sm_89, and equal bytes when
// it is compiled again. What the kernels use is recorded in tests/data/ops/resources.txt, which
// must be what the pinned NVRTC gives; RESOURCES=write (`make resources`) writes it and looks at
// nothing else.
//
// NVRTC has to be there. Another one than the pinned (that of build/nvrtc) does all but the
// comparison with the record, which is then skipped.
#include "runtime/base/file.h"
#include "tests/kernel_checks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const spills_path = "tests/data/ops/spills.txt";
static const char *const resources_path = "tests/data/ops/resources.txt";
enum { SEED = 1, LIST_MAX = 1 << 20 };

static kt_arena arena;
static kt_op_check *check;
static kt_nvrtc_place nvrtc;
static kernel_spills spills;
static kernel_table table;
static bool pinned, writing, complete[KERNEL_ARCHS];

static void fail_if(kt_buf *wrong) {
    if (wrong->n > 0) fail_msg("\n%s", wrong->at);
    kt_buf_deinit(wrong);
}

static kt_op_check_build *get_builds(int arch, int *n) {
    kt_op_check_build *builds;
    kt_err err;
    if (kt_op_check_builds(check, &arena, arch, &builds, n, &err) != KT_OK)
        fail_msg("%s", err.text);
    assert_true(*n > 0);
    return builds;
}

static kt_compiler *open_compiler(bool no_cache) {
    kt_compiler_options options = {.headers = kt_device_headers, .no_cache = no_cache};
    kt_compiler *compiler;
    kt_err err;
    if (kt_compiler_open(&options, &compiler, &err) != KT_OK) fail_msg("%s", err.text);
    return compiler;
}

static kt_compile_result *compile(
    kt_compiler *compiler, const kt_compile_request *requests, int n) {
    kt_compile_result *results = KT_NEW_ARRAY(&arena, kt_compile_result, n);
    kt_err err;
    if (kt_compile(compiler, requests, n, results, &err) != KT_OK) {
        for (int i = 0; i < n; i++)
            if (results[i].log.n > 0) fail_msg("%s\n%.*s", err.text, KT_STR_ARG(results[i].log));
        fail_msg("%s", err.text);
    }
    return results;
}

static void kernels_compile(void **state) {
    int index = *(const int *)*state, arch = kernel_archs[index], n = 0;
    const kt_op_check_build *builds = get_builds(arch, &n);
    kt_compile_request *requests = KT_NEW_ARRAY(&arena, kt_compile_request, n);
    for (int i = 0; i < n; i++) requests[i] = builds[i].request;
    // From the cache, where an earlier process may have put it; then certainly by NVRTC.
    kt_compiler *kept = open_compiler(false), *fresh = open_compiler(true);
    const kt_compile_result *before = compile(kept, requests, n);
    const kt_compile_result *results = writing ? before : compile(fresh, requests, n);
    kt_buf wrong = {0};
    for (int i = 0; i < n && !writing; i++) {
        assert_true(
            results[i].from == KT_COMPILE_FROM_NVRTC || results[i].from == KT_COMPILE_FROM_BEFORE);
        kernel_check_build(&arena, &builds[i], &results[i], &spills, &wrong);
        kernel_check_same(&builds[i], &before[i], &results[i], &wrong);
    }
    for (int i = 0; i < n; i++) kernel_table_add(&table, &builds[i], &results[i]);
    printf("# sm_%d: %d builds; the first time, %d came from the cache\n", arch, n,
        kt_compiler_count(kept, KT_COMPILE_FROM_CACHE));
    kt_compiler_close(kept);
    kt_compiler_close(fresh);
    fail_if(&wrong);
    complete[index] = true;
}

// No variant of any op is left out: each has at least one build.
static void every_variant_is_built(void **state) {
    (void)state;
    int n = 0;
    const kt_op_check_build *builds = get_builds(89, &n);
    for (int i = 0; i < kt_op_check_count(check); i++) {
        const kt_op *op = kt_op_check_op(check, i);
        for (int v = 0; v < op->n_variants; v++) {
            bool found = false;
            for (int b = 0; b < n; b++) found = found || builds[b].variant == &op->variants[v];
            if (!found)
                fail_msg("no build of %.*s[%.*s]", KT_STR_ARG(op->name),
                    KT_STR_ARG(op->variants[v].name));
        }
    }
}

// The code tells sizes of parameters, not types: the compiler does. A build of each variant.
static void prototypes_are_the_manifests(void **state) {
    (void)state;
    int n = 0, n_requests = 0;
    const kt_op_check_build *builds = get_builds(89, &n);
    kt_compile_request *requests = KT_NEW_ARRAY(&arena, kt_compile_request, n);
    for (int i = 0; i < n; i++)
        if (i == 0 || builds[i].variant != builds[i - 1].variant)
            requests[n_requests++] = kernel_with_prototypes(&arena, &builds[i]);
    kt_compiler *compiler = open_compiler(false);
    compile(compiler, requests, n_requests);
    kt_compiler_close(compiler);
}

static void spill_list_is_needed(void **state) {
    (void)state;
    kt_buf wrong = {0};
    for (int i = 0; i < KERNEL_ARCHS; i++)
        if (!complete[i]) fail_msg("sm_%d has failed", kernel_archs[i]);
    if (!pinned || writing) skip();
    kernel_spills_unused(&spills, &wrong);
    fail_if(&wrong);
}

static void resources_are_as_recorded(void **state) {
    (void)state;
    kt_buf now = {0}, wrong = {0};
    kt_err err;
    kt_str recorded;
    for (int i = 0; i < KERNEL_ARCHS; i++)
        if (!complete[i]) fail_msg("sm_%d has failed", kernel_archs[i]);
    if (!pinned) skip();
    kernel_table_print(&table, &nvrtc.id, &now);
    if (writing) {
        if (kt_os_write_atomic(resources_path, now.at, now.n, &err) != KT_OK)
            fail_msg("%s", err.text);
        printf("# %s: written\n", resources_path);
    }
    if (kt_file_read(&arena, resources_path, LIST_MAX, &recorded, &err) != KT_OK)
        fail_msg("%s; make resources", err.text);
    kernel_table_compare(recorded, (kt_str){now.at, now.n}, &wrong);
    if (wrong.n > 0)
        fail_msg("%s is not what the kernels use now ('-' recorded, '+' now). Is it meant? then:\n"
                 "    make resources\n%s",
            resources_path, wrong.at);
    kt_buf_deinit(&now);
    kt_buf_deinit(&wrong);
}

static kt_status open_all(kt_diag *diag, kt_err *err) {
    const char *write = kt_os_getenv("RESOURCES");
    writing = write && strcmp(write, "write") == 0;
    KT_TRY(kt_nvrtc_find(&arena, &nvrtc, err));
    const char *own = kt_os_absolute(&arena, "build/nvrtc/");
    pinned = own && kt_str_starts(kt_str_from(nvrtc.library), kt_str_from(own));
    kt_registry *registry = kt_registry_open(&arena, "ops", NULL, 0, diag);
    if (!registry) return KT_FAIL(err, KT_EYAML, "the ops have mistakes");
    // The same kernels each time, so that there is something to compare with.
    kt_op_check_options options = {
        .registry = registry, .include = ".", .seed = SEED, .quick = true};
    KT_TRY(kt_op_check_open(&options, &check, diag, err));
    kt_str text;
    kt_buf wrong = {0};
    KT_TRY(kt_file_read(&arena, spills_path, LIST_MAX, &text, err));
    kernel_spills_read(&arena, spills_path, text, nvrtc.id.major, &spills, &wrong);
    kt_status status = wrong.n > 0 ? KT_FAIL(err, KT_EFORMAT, "%s", wrong.at) : KT_OK;
    kt_buf_deinit(&wrong);
    table.arena = &arena;
    return status;
}

static int run_all(void) {
    struct CMUnitTest tests[KERNEL_ARCHS + 4];
    int numbers[KERNEL_ARCHS], n = 0;
    const char *why =
        pinned ? "" : kt_arena_printf(&arena, " with the pinned NVRTC (this is %s)", nvrtc.library);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_variant_is_built);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(prototypes_are_the_manifests);
    for (int i = 0; i < KERNEL_ARCHS; i++) {
        numbers[i] = i;
        tests[n++] = (struct CMUnitTest){.test_func = kernels_compile,
            .initial_state = &numbers[i],
            .name = kt_arena_printf(&arena, "kernels_compile: sm_%d", kernel_archs[i])};
    }
    tests[n++] = (struct CMUnitTest){.test_func = spill_list_is_needed,
        .name = kt_arena_printf(&arena, "spill_list_is_needed%s", why)};
    tests[n++] = (struct CMUnitTest){.test_func = resources_are_as_recorded,
        .name = kt_arena_printf(&arena, "resources_are_as_recorded%s", why)};
    return _cmocka_run_group_tests("kernels", tests, (size_t)n, NULL, NULL);
}

int main(void) {
    kt_diag diag;
    kt_err err = {0};
    kt_buf text = {0};
    kt_diag_init(&diag, &arena);
    kt_status status = open_all(&diag, &err);
    kt_diag_print(&diag, &text);
    int failed = 1;
    if (status == KT_OK)
        failed = run_all();
    else
        printf("Bail out! %s\n%s", err.text, text.n ? text.at : "");
    kt_op_check_close(check);
    kt_buf_deinit(&text);
    kt_arena_deinit(&arena);
    return failed;
}
