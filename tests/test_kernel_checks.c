// The checks of tests/kernel_checks.h find what they are for: the ops of tests/data/bad_kernels,
// each wrong in one way, through NVRTC.
#include "tests/kernel_checks.h"

#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ARCH = 89, MAX_WRONG = 3 };

typedef struct bad {
    const char *op;
    const char *wrong[MAX_WRONG]; // the start of each line that is to be found, and no other
} bad;

static const bad bads[] = {
    {"bad_warns",
        {"ops/bad_warns/bad_warns.cu on sm_89: ops/bad_warns/bad_warns.cu(5): warning #177-D: "
         "variable \"forgotten\" was declared but never referenced",
            "ops/bad_warns/bad_warns.cu on sm_89: int32_t forgotten = n + 1;",
            "ops/bad_warns/bad_warns.cu on sm_89: ^"}},
    {"bad_spills", {"kt_bad_spills_flat on sm_89 uses local memory: a frame of "}},
    {"bad_frame", {"kt_bad_frame_flat on sm_89 uses local memory: a frame of 256 bytes, 0 bytes "
                   "spilled"}},
    {"bad_registers", {"kt_bad_registers_flat on sm_89 takes "}},
    {"bad_shared", {"kt_bad_shared_flat on sm_89 takes 40960 bytes of shared memory beside the "
                    "61440 of its launch, a block of sm_89 has at most 101376"}},
    {"bad_bounds", {"kt_bad_bounds_flat on sm_89 is launched with 256 threads, its "
                    "__launch_bounds__ say 128"}},
    {"bad_external",
        {"ops/bad_external/bad_external.cu on sm_89 leaves 'vprintf' for the driver to find",
            "kt_bad_external_flat on sm_89 uses local memory: a frame of 8 bytes, 0 bytes "
            "spilled"}}, // its arguments
    {"bad_missing",
        {"ops/bad_missing/bad_missing.cu on sm_89 has kernel 'kt_bad_missing_rows', which no "
         "variant has",
            "ops/bad_missing/bad_missing.cu on sm_89 has no kernel 'kt_bad_missing_flat'"}},
    {"bad_extra", {"ops/bad_extra/bad_extra.cu on sm_89 has kernel 'kt_bad_extra_left_over', which "
                   "no variant has"}},
    {"bad_fewer", {"kt_bad_fewer_flat on sm_89 takes 2 parameters, its manifest says 3"}},
    {"bad_wider", {"kt_bad_wider_flat on sm_89 has parameter 2 ('n') of 8 bytes at 16, its "
                   "manifest says 4 at 16"}},
    {"bad_type", {NULL}}, // the prototype shows it
    {"bad_time", {NULL}}, // a second compilation shows it
};
enum { N_BADS = sizeof bads / sizeof bads[0] };

static kt_arena arena;
static kt_registry *registry;
static kt_compiler *compiler; // without a cache

// The only build of an op.
static kt_op_check_build build_of(const char *op, kt_err *err) {
    const char *const names[] = {op};
    kt_op_check_options options = {
        .registry = registry, .include = ".", .only = names, .n_only = 1, .seed = 1, .quick = true};
    kt_op_check *check;
    kt_op_check_build *builds = NULL;
    kt_diag diag;
    int n = 0;
    kt_diag_init(&diag, &arena);
    if (kt_op_check_open(&options, &check, &diag, err) != KT_OK) {
        kt_buf text = {0};
        kt_diag_print(&diag, &text);
        fail_msg("%s: %s", err->text, text.n ? text.at : "");
    }
    kt_status status = kt_op_check_builds(check, &arena, ARCH, &builds, &n, err);
    kt_op_check_close(check);
    if (status != KT_OK) fail_msg("%s: %s", op, err->text);
    assert_int_equal(n, 1);
    return builds[0];
}

static kt_status compile(
    const kt_compile_request *request, kt_compile_result *result, kt_err *err) {
    return kt_compile(compiler, request, 1, result, err);
}

static kt_str next_line(kt_str *rest) {
    ptrdiff_t end = kt_str_find(*rest, '\n');
    kt_str line = kt_str_slice(*rest, 0, end < 0 ? rest->n : (size_t)end);
    *rest = kt_str_slice(*rest, line.n + 1, rest->n);
    return line;
}

static void expect_lines(const char *op, const char *const *wanted, kt_buf *wrong) {
    kt_str rest = {wrong->at, wrong->n};
    for (int i = 0; i < MAX_WRONG && wanted[i]; i++) {
        kt_str line = next_line(&rest);
        if (!kt_str_starts(line, kt_str_from(wanted[i])))
            fail_msg("%s: '%s' was to be found, not\n%s", op, wanted[i], wrong->n ? wrong->at : "");
    }
    if (rest.n > 0) fail_msg("%s: this besides was found:\n%.*s", op, KT_STR_ARG(rest));
    kt_buf_deinit(wrong);
}

static void each_is_found(void **state) {
    (void)state;
    kernel_spills none = {.path = "none"};
    for (int i = 0; i < N_BADS; i++) {
        kt_err err;
        kt_buf wrong = {0};
        kt_compile_result result;
        kt_op_check_build build = build_of(bads[i].op, &err);
        build.request.name = kt_arena_printf(&arena, "ops/%s/%s.cu", bads[i].op, bads[i].op);
        if (compile(&build.request, &result, &err) != KT_OK) fail_msg("%s", err.text);
        kernel_check_build(&arena, &build, &result, &none, &wrong);
        expect_lines(bads[i].op, bads[i].wrong, &wrong);
    }
}

// Manifests that ask for these are refused (tests/bad/ops); a tune value or a new size may not be.
static void launches_beyond_the_limits_are_found(void **state) {
    (void)state;
    static const struct {
        kt_geometry most;
        const char *wrong;
    } launches[] = {
        {{{1, 1, 1}, {1100, 1, 1}, 0},
            "kt_bad_time_flat on sm_89 is launched with 1100 threads, a block has at most 1024\n"},
        {{{1, 1, 1}, {64, 2, 2}, 0},
            "kt_bad_time_flat on sm_89 is launched with 256 threads, its __launch_bounds__ say "
            "128\n"},
        {{{1, 1, 1}, {128, 1, 1}, 101377},
            "kt_bad_time_flat on sm_89 takes 0 bytes of shared memory beside the 101377 of its "
            "launch, a block of sm_89 has at most 101376\n"},
        {{{1, 65536, 1}, {128, 1, 1}, 101376},
            "kt_bad_time_flat on sm_89 has a grid of 1 x 65536 x 1\n"},
        {{{0, 0, 0}, {0, 0, 0}, 0}, "kt_bad_time_flat on sm_89: no case launches it\n"},
    };
    kernel_spills none = {.path = "none"};
    kt_err err;
    kt_compile_result result;
    kt_op_check_build build = build_of("bad_time", &err);
    if (compile(&build.request, &result, &err) != KT_OK) fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof launches / sizeof launches[0]; i++) {
        kt_buf wrong = {0};
        build.most[0] = launches[i].most;
        kernel_check_build(&arena, &build, &result, &none, &wrong);
        assert_non_null(wrong.at);
        assert_string_equal(wrong.at, launches[i].wrong);
        kt_buf_deinit(&wrong);
    }
}

static void what_does_not_compile_says_where(void **state) {
    (void)state;
    kt_err err;
    kt_compile_result result;
    kt_op_check_build build = build_of("bad_breaks", &err);
    assert_int_equal(compile(&build.request, &result, &err), KT_ECOMPILE);
    assert_non_null(strstr(err.text, "bad_breaks.cu(5): error: expected an expression"));
}

static void another_prototype_does_not_compile(void **state) {
    (void)state;
    kt_err err;
    kt_compile_result result;
    kt_op_check_build build = build_of("bad_type", &err);
    kt_compile_request request = kernel_with_prototypes(&arena, &build);
    assert_int_equal(compile(&request, &result, &err), KT_ECOMPILE);
    assert_non_null(strstr(err.text, "prototype of tests/data/bad_kernels/bad_type/op.yaml(1): "));
    assert_non_null(strstr(err.text, "kt_bad_type_flat"));
    build = build_of("bad_time", &err); // its parameters are right
    request = kernel_with_prototypes(&arena, &build);
    if (compile(&request, &result, &err) != KT_OK) fail_msg("%s", err.text);
}

static void another_second_gives_other_bytes(void **state) {
    (void)state;
    kt_err err;
    kt_buf wrong = {0};
    kt_compile_result a, b;
    kt_op_check_build build = build_of("bad_warns", &err);
    if (kt_compile_again(compiler, &build.request, &a, &err) != KT_OK) fail_msg("%s", err.text);
    if (kt_compile_again(compiler, &build.request, &b, &err) != KT_OK) fail_msg("%s", err.text);
    kernel_check_same(&build, &a, &b, &wrong);
    assert_int_equal(wrong.n, 0);
    build = build_of("bad_time", &err);
    if (kt_compile_again(compiler, &build.request, &a, &err) != KT_OK) fail_msg("%s", err.text);
    kt_os_sleep_us(1100000);
    if (kt_compile_again(compiler, &build.request, &b, &err) != KT_OK) fail_msg("%s", err.text);
    kernel_check_same(&build, &a, &b, &wrong);
    assert_non_null(strstr(wrong.at, "bad_time.cu on sm_89 is not the same when compiled again: "));
    kt_buf_deinit(&wrong);
}

static void listed_spills_are_needed_and_explained(void **state) {
    (void)state;
    kt_err err;
    kt_buf wrong = {0};
    kt_compile_result result;
    kernel_spills spills;
    kt_str list = KT_STR("# comment\nbad_spills flat NVRTC=12 for 12\nbad_spills flat NVRTC=13 for "
                         "13\nbad_spills flat KT_D=8 no such macro\nbad_time flat NVRTC=12\n");
    kernel_spills_read(&arena, "list", list, 12, &spills, &wrong);
    assert_string_equal(wrong.at, "list:5: a line has op, variant, macros and a reason\n");
    assert_int_equal(spills.list.n, 3);
    kt_buf_deinit(&wrong);
    kt_op_check_build build = build_of("bad_spills", &err);
    if (compile(&build.request, &result, &err) != KT_OK) fail_msg("%s", err.text);
    kernel_check_build(&arena, &build, &result, &spills, &wrong);
    assert_int_equal(wrong.n, 0);
    kernel_spills_unused(&spills, &wrong);
    assert_string_equal(wrong.at,
        "list:4: no build of bad_spills flat KT_D=8 uses local memory: remove the line\n"
        "list:5: no build of bad_time flat NVRTC=12 uses local memory: remove the line\n");
    kt_buf_deinit(&wrong);
}

static void table_shows_a_change(void **state) {
    (void)state;
    kt_err err;
    kt_buf text = {0}, wrong = {0};
    kt_nvrtc_id id = {12, 8, 1000, 10};
    kernel_table table = {.arena = &arena};
    const char *const ops[] = {"bad_wider", "bad_frame"};
    for (int i = 0; i < 2; i++) {
        kt_op_check_build build = build_of(ops[i], &err);
        kt_compile_result result;
        if (compile(&build.request, &result, &err) != KT_OK) fail_msg("%s", err.text);
        kernel_table_add(&table, &build, &result);
    }
    for (int a = 0; a < KERNEL_ARCHS; a++) table.rows.at[0].value[0][a] = 10 + (a == 4);
    for (int a = 0; a < KERNEL_ARCHS; a++) table.rows.at[1].value[0][a] = 20;
    kernel_table_print(&table, &id, &text);
    static const char want[] =
        "# NVRTC 12.8, files of 1000 and 10 bytes. Made by: make resources\n"
        "# Each kernel and its macros: registers a thread; bytes of static shared memory, stack\n"
        "# frame and spills if not 0. One number, or those of sm_80, 86, 89, 90 and 120.\n"
        "kt_bad_frame_flat, registers 20, shared - - 0 - -, frame - - 256 - -, spilled - - 0 - -\n"
        "kt_bad_wider_flat, registers 10 10 10 10 11, shared - - 0 - -, frame - - 0 - -, spilled "
        "- - 0 - -\n";
    assert_string_equal(text.at, want);
    kernel_table_compare((kt_str){text.at, text.n}, KT_STR("a\nb\n"), &wrong);
    assert_true(wrong.n > text.n);
    kt_buf_deinit(&wrong);
    kernel_table_compare(KT_STR("a\nb\nc\n"), KT_STR("a\nB\nc\n"), &wrong);
    assert_string_equal(wrong.at, "- b\n+ B\n");
    kt_buf_deinit(&wrong);
    kernel_table_compare(KT_STR("a\nb\n"), KT_STR("b\na\n"), &wrong);
    assert_string_equal(wrong.at, "the same lines, in another order\n");
    kt_buf_deinit(&wrong);
    kernel_table_compare((kt_str){text.at, text.n}, (kt_str){text.at, text.n}, &wrong);
    assert_int_equal(wrong.n, 0);
    kt_buf_deinit(&text);
}

static int set_up(void **state) {
    (void)state;
    static const char *const folders[] = {"tests/data/bad_kernels"};
    static const kt_compiler_options options = {.headers = kt_device_headers, .no_cache = true};
    kt_diag diag;
    kt_err err;
    kt_diag_init(&diag, &arena);
    registry = kt_registry_open(&arena, "ops", folders, 1, &diag);
    return registry && kt_compiler_open(&options, &compiler, &err) == KT_OK ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    kt_compiler_close(compiler);
    kt_arena_deinit(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_found),
        cmocka_unit_test(launches_beyond_the_limits_are_found),
        cmocka_unit_test(what_does_not_compile_says_where),
        cmocka_unit_test(another_prototype_does_not_compile),
        cmocka_unit_test(another_second_gives_other_bytes),
        cmocka_unit_test(listed_spills_are_needed_and_explained),
        cmocka_unit_test(table_shows_a_change),
    };
    return cmocka_run_group_tests_name("kernel_checks", tests, set_up, tear_down);
}
