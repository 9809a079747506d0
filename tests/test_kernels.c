// Every op x variant x architecture through NVRTC: it compiles without a warning, takes the
// parameters of its manifest, and spills nothing unless tests/data/ops/spills.txt says why it may.
// What each kernel uses is written to $BUILD/resources.txt. Skipped only where there is no NVRTC
// and KOTARO_NO_NVRTC_OK is set.
#include "runtime/base/file.h"
#include "runtime/exec/op_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <inttypes.h>

#include <cmocka.h>

static const int archs[] = {80, 86, 89, 90, 120};
enum { N_ARCHS = sizeof archs / sizeof archs[0], SEED = 1 };

static kt_arena arena;
static kt_op_check *check;
static kt_compiler *compiler;
static kt_str spills; // the list: op, variant, macros, reason
static FILE *table;

static bool have_nvrtc(void) {
    kt_nvrtc_place place;
    kt_err err;
    if (kt_nvrtc_find(&arena, &place, &err) == KT_OK) return true;
    if (kt_os_getenv("KOTARO_NO_NVRTC_OK") == NULL) fail_msg("%s", err.text);
    printf("# no NVRTC\n");
    return false;
}

static kt_str next_word(kt_str *line) {
    *line = kt_str_trim(*line);
    ptrdiff_t space = kt_str_find(*line, ' ');
    kt_str word = space < 0 ? *line : kt_str_slice(*line, 0, (size_t)space);
    *line = kt_str_slice(*line, word.n, line->n);
    return word;
}

static void defines_of(const kt_op_check_build *b, kt_buf *out) {
    for (size_t i = 0; i < b->request.options->macros.n; i++) {
        const kt_option_macro *m = &b->request.options->macros.at[i];
        kt_buf_printf(out, "%s%s=%s", i ? " " : "", m->name, m->value);
    }
}

// "KT_A=1+KT_B=2": all of them.
static bool has_macros(const kt_op_check_build *b, kt_str text) {
    ptrdiff_t plus = kt_str_find(text, '+');
    if (plus >= 0)
        return has_macros(b, kt_str_slice(text, 0, (size_t)plus)) &&
               has_macros(b, kt_str_slice(text, (size_t)plus + 1, text.n));
    for (size_t i = 0; i < b->request.options->macros.n; i++) {
        const kt_option_macro *m = &b->request.options->macros.at[i];
        if (kt_str_is(text, kt_arena_printf(&arena, "%s=%s", m->name, m->value))) return true;
    }
    return false;
}

// Is there a line "op variant KT_NAME=value+... why it may", with a reason in it?
static bool may_spill(const kt_op_check_build *b) {
    kt_str rest = spills;
    while (rest.n > 0) {
        ptrdiff_t end = kt_str_find(rest, '\n');
        kt_str line = end < 0 ? rest : kt_str_slice(rest, 0, (size_t)end);
        rest = end < 0 ? KT_STR("") : kt_str_slice(rest, (size_t)end + 1, rest.n);
        kt_str op = next_word(&line), variant = next_word(&line), macros = next_word(&line);
        if (kt_str_eq(op, b->op->name) && kt_str_eq(variant, b->variant->name) &&
            has_macros(b, macros) && kt_str_trim(line).n > 0)
            return true;
    }
    return false;
}

static void look_at_params(const kt_op_check_build *b, const kt_cubin_kernel *kernel) {
    int n;
    const kt_arg *args = kt_op_args(&arena, b->op, b->variant, &n);
    if (n != kernel->n_params)
        fail_msg("%s takes %d parameters, its manifest says %d", kernel->name, kernel->n_params, n);
    for (int i = 0; i < n; i++)
        if ((uint32_t)args[i].bytes != kernel->params[i].size)
            fail_msg("parameter %d ('%.*s') of %s has %u bytes, its manifest says %d", i,
                KT_STR_ARG(args[i].name), kernel->name, kernel->params[i].size, args[i].bytes);
}

static void look_at_kernel(const kt_op_check_build *b, const kt_op_launch *launch,
    const kt_compile_result *result, int arch, kt_buf *wrong) {
    char *name = kt_op_kernel_name(&arena, b->op, b->variant, launch);
    const kt_cubin_kernel *kernel = kt_cubin_find(result->info, name);
    kt_buf defines = {0};
    defines_of(b, &defines);
    if (!kernel) {
        fail_msg("%s has no kernel '%s'", b->request.name, name);
        return;
    }
    look_at_params(b, kernel);
    fprintf(table, "%-44s sm_%-3d %3d registers %6u shared %5u frame %5d spilled %7u code  %s\n",
        name, arch, kernel->registers, kernel->shared_bytes, kernel->frame_bytes,
        kernel->spill_bytes, kernel->code_bytes, defines.at);
    bool spilled = kernel->spill_bytes > 0 || (kernel->spill_bytes < 0 && kernel->frame_bytes > 0);
    if (spilled && !may_spill(b))
        kt_buf_printf(wrong, "%s spills on sm_%d: %d bytes, a frame of %u, with %s\n", name, arch,
            kernel->spill_bytes, kernel->frame_bytes, defines.at);
    kt_buf_deinit(&defines);
}

static void kernels_compile(void **state) {
    int arch = *(const int *)*state, n = 0;
    kt_op_check_build *builds;
    kt_err err;
    if (!have_nvrtc()) skip();
    if (kt_op_check_builds(check, &arena, arch, &builds, &n, &err) != KT_OK)
        fail_msg("%s", err.text);
    assert_true(n > 0);
    kt_compile_request *requests = KT_NEW_ARRAY(&arena, kt_compile_request, n);
    kt_compile_result *results = KT_NEW_ARRAY(&arena, kt_compile_result, n);
    for (int i = 0; i < n; i++) requests[i] = builds[i].request;
    if (kt_compile(compiler, requests, n, results, &err) != KT_OK) fail_msg("%s", err.text);
    kt_buf wrong = {0};
    for (int i = 0; i < n; i++)
        for (int l = 0; l < builds[i].variant->n_launches; l++)
            look_at_kernel(&builds[i], &builds[i].variant->launches[l], &results[i], arch, &wrong);
    if (wrong.n > 0) fail_msg("%s", wrong.at);
    kt_buf_deinit(&wrong);
    printf("# sm_%d: %d builds\n", arch, n);
}

// No variant of any op is left out: each has at least one build.
static void every_variant_is_built(void **state) {
    (void)state;
    kt_op_check_build *builds;
    int n = 0;
    kt_err err;
    if (kt_op_check_builds(check, &arena, 89, &builds, &n, &err) != KT_OK) fail_msg("%s", err.text);
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

static kt_status open_all(kt_diag *diag, kt_err *err) {
    kt_registry *registry = kt_registry_open(&arena, "ops", NULL, 0, diag);
    if (!registry) return KT_FAIL(err, KT_EYAML, "the ops have mistakes");
    // The same kernels each time, so that the cache serves the next run.
    kt_op_check_options options = {
        .registry = registry, .include = ".", .seed = SEED, .quick = true};
    KT_TRY(kt_op_check_open(&options, &check, diag, err));
    kt_compiler_options compiler_options = {.headers = kt_device_headers};
    KT_TRY(kt_compiler_open(&compiler_options, &compiler, err));
    const char *list = "tests/data/ops/spills.txt";
    if (kt_os_stat(list).kind == KT_PATH_FILE)
        KT_TRY(kt_file_read(&arena, list, 1 << 20, &spills, err));
    const char *build = kt_os_getenv("BUILD");
    char *path = kt_path_join(&arena, build ? build : "build", "resources.txt");
    table = kt_os_fopen(path, "w");
    return table ? KT_OK : KT_FAIL(err, KT_EFILE, "'%s' cannot be written", path);
}

int main(void) {
    struct CMUnitTest tests[N_ARCHS + 1] = {cmocka_unit_test(every_variant_is_built)};
    int numbers[N_ARCHS];
    kt_diag diag;
    kt_err err = {0};
    kt_buf text = {0};
    kt_diag_init(&diag, &arena);
    kt_status status = open_all(&diag, &err);
    kt_diag_print(&diag, &text);
    if (status != KT_OK) {
        printf("Bail out! %s\n%s", err.text, text.n ? text.at : "");
        return 1;
    }
    for (int i = 0; i < N_ARCHS; i++) {
        numbers[i] = archs[i];
        tests[i + 1] = (struct CMUnitTest){.test_func = kernels_compile,
            .initial_state = &numbers[i],
            .name = kt_arena_printf(&arena, "kernels_compile: sm_%d", archs[i])};
    }
    int failed = _cmocka_run_group_tests("kernels", tests, N_ARCHS + 1, NULL, NULL);
    fclose(table);
    kt_op_check_close(check);
    kt_compiler_close(compiler);
    kt_buf_deinit(&text);
    kt_arena_deinit(&arena);
    return failed;
}
