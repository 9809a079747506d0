// Do op tests find kernels that are wrong? Ops are written here, with a C implementation that is
// right and kernels that are not: in each dtype one that writes nothing, too little, too much, or
// what lies beside its input; bodies and fused variants that disagree; and, on the stand-in for a
// GPU, kernels that touch memory which is not theirs, each in a process of its own, as such a
// kernel ends the use of a device.
#include "runtime/base/file.h"
#include "tests/emu_watch.h"
#include "tests/util.h"

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
static const char *self;    // this program
static const char *missing; // why nothing can be tested
static uint64_t seed;

// ---- running an op of a folder

typedef struct outcome {
    kt_op_check_part parts[8];
    int n_parts, n_failed;
    kt_status status;
    kt_buf report; // and the error
} outcome;

static void run_op(const char *folder, const char *name, bool watch, outcome *out) {
    kt_diag diag;
    kt_err err = {0};
    kt_op_check *check = NULL;
    kt_op_check_result result = {0};
    const char *const folders[] = {folder}, *const only[] = {name};
    kt_diag_init(&diag, &arena);
    *out = (outcome){.status = KT_EYAML};
    kt_op_check_options options = {.registry = kt_registry_open(&arena, "ops", folders, 1, &diag),
        .include = ".",
        .gpu = gpu,
        .compiler = compiler,
        .only = only,
        .n_only = 1,
        .seed = seed,
        .quick = true,
        .watch = watch ? emu_watch_find() : NULL};
    if (options.registry) out->status = kt_op_check_open(&options, &check, &diag, &err);
    if (out->status == KT_OK) out->status = kt_op_check_run(check, 0, &result, &out->report, &err);
    kt_diag_print(&diag, &out->report);
    if (out->status != KT_OK) kt_buf_printf(&out->report, "%s\n", err.text);
    out->n_failed = result.n_failed;
    out->n_parts = result.n_parts;
    for (int i = 0; i < result.n_parts; i++) out->parts[i] = result.parts[i];
    kt_op_check_close(check);
}

static const kt_op_check_part *part_of(const outcome *from, const char *variant) {
    for (int i = 0; i < from->n_parts; i++) {
        const kt_variant *v = from->parts[i].variant;
        if (v ? kt_str_is(v->name, variant) : variant[0] == 0) return &from->parts[i];
    }
    fail_msg("'%s' did not run:\n%s", variant, from->report.n ? from->report.at : "");
    return NULL;
}

static void needs_a_device(void) {
    if (!missing) return;
    printf("# %s\n", missing);
    skip();
}

// ---- in each dtype

static const char *const reverse_c =
    "#include \"ops/kt_cpu.h\"\n#include <string.h>\n"
    "static const char *run(const kt_cpu_call *call) {\n"
    "    const char *x = kt_cpu_in(call, \"x\")->data;\n"
    "    char *y = kt_cpu_in(call, \"y\")->data;\n"
    "    int64_t n = kt_cpu_dim(call, \"n\");\n"
    "    for (int64_t i = 0; i < n; i++) memcpy(y + i * %d, x + (n - 1 - i) * %d, %d);\n"
    "    return NULL;\n}\nKT_CPU_OP(\"planted\", run)\n";

// Beside a tensor lies something only where it does not fill its last 16 bytes.
static const char *const reverse_cu =
    "#include \"kt.cuh\"\ntypedef uint%d_t T;\n"
    "#define GAP (n * (int32_t)sizeof(T) %% 16 != 0)\n"
    "KT_DEVICE int32_t index() { return (int32_t)(blockIdx.x * 64 + threadIdx.x); }\n"
    "extern \"C\" __global__ void kt_planted_right(T *y, const T *x, int32_t n) {\n"
    "    int32_t i = index();\n    if (i < n) y[i] = x[n - 1 - i];\n}\n"
    "extern \"C\" __global__ void kt_planted_nothing(T *y, const T *x, int32_t n) {\n"
    "    int32_t i = index();\n    if (i < -n) y[i] = x[n - 1 - i];\n}\n"
    "extern \"C\" __global__ void kt_planted_too_few(T *y, const T *x, int32_t n) {\n"
    "    int32_t i = index();\n    if (i < n - 1) y[i] = x[n - 1 - i];\n}\n"
    "extern \"C\" __global__ void kt_planted_too_many(T *y, const T *x, int32_t n) {\n"
    "    int32_t i = index();\n    if (i < n) y[i] = x[n - 1 - i];\n"
    "    if (i == n && GAP) y[i] = x[0];\n}\n"
    "extern \"C\" __global__ void kt_planted_beside(T *y, const T *x, int32_t n) {\n"
    "    int32_t i = index();\n    if (i < n) y[i] = x[n - 1 - i + (i == 0 && GAP)];\n}\n";

static void plant_reverse(const char *folder, kt_dtype dtype) {
    char *op = kt_path_join(&arena, folder, "planted");
    const char *name = kt_dtype_name(dtype);
    int bytes = (int)kt_dtype_bytes(dtype);
    char *tolerance = kt_arena_printf(&arena, "  tolerance: { %s: 0 }\n", name);
    kt_buf text = {0};
    kt_buf_printf(&text,
        "kotaro: op/1\nname: planted\ndoc: From last to first.\ndims:\n  n: plan, elements\n"
        "inputs:\n  x: %s[n]\noutputs:\n  y: %s[n]\nvariants:\n",
        name, name);
    static const char *const variants[] = {"right", "nothing", "too_few", "too_many", "beside"};
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++)
        kt_buf_printf(&text, "  - name: %s\n    launch:\n      grid: n / 64 + 1\n      block: 64\n",
            variants[i]);
    kt_buf_printf(&text, "check:\n%s%s  cases:\n    - { n: 50 }\n",
        kt_dtype_is_float(dtype) ? "" : "  x: bytes\n", tolerance);
    test_put(&arena, op, "op.yaml", text.at);
    test_put(&arena, op, "planted.c", kt_arena_printf(&arena, reverse_c, bytes, bytes, bytes));
    test_put(&arena, op, "planted.cu", kt_arena_printf(&arena, reverse_cu, 8 * bytes));
    kt_buf_deinit(&text);
}

static void found_in_each_dtype(void **state) {
    (void)state;
    needs_a_device();
    for (int t = 0; t < KT_DTYPE_COUNT; t++) {
        const char *folder = test_folder(&arena), *name = kt_dtype_name((kt_dtype)t);
        outcome out;
        plant_reverse(folder, (kt_dtype)t);
        run_op(folder, "planted", false, &out);
        if (out.status != KT_OK) fail_msg("%s: %s", name, out.report.at);
        const kt_op_check_part *right = part_of(&out, "right");
        if (right->n_failed > 0) fail_msg("%s: the right one fails:\n%s", name, out.report.at);
        assert_true(right->n_runs > 10);
        static const char *const always[] = {"nothing", "too_few"}; // but for n = 0
        for (int i = 0; i < 2; i++) {
            const kt_op_check_part *part = part_of(&out, always[i]);
            if (part->n_failed < part->n_runs - 1)
                fail_msg("%s, %s: found in %d of %d tests", name, always[i], part->n_failed,
                    part->n_runs);
        }
        if (part_of(&out, "too_many")->n_failed == 0) fail_msg("%s: too many, not found", name);
        if (part_of(&out, "beside")->n_failed == 0) fail_msg("%s: beside, not found", name);
        kt_buf_deinit(&out.report);
        test_remove(folder);
    }
}

// ---- bodies and fused variants

// Twice the input, and a composite of two of them with a kernel of its own: four times.
static void plant_pair(const char *folder, const char *step_factor, const char *fused_factor) {
    char *step = kt_path_join(&arena, folder, "twice");
    char *whole = kt_path_join(&arena, folder, "four");
    static const char *const head =
        "kotaro: op/1\nname: %s\ndoc: A multiple.\ndims:\n  n: plan, numbers\n"
        "inputs:\n  x: f32[n]\noutputs:\n  y: f32[n]\n%s"
        "variants:\n  - name: flat\n    launch:\n      grid: ceil_div(n, 64)\n      block: 64\n"
        "check:\n  tolerance: { f32: 1e-6 }\n  cases:\n    - { n: 100 }\n";
    static const char *const kernel =
        "#include \"kt.cuh\"\n"
        "extern \"C\" __global__ void kt_%s_flat(float *y, const float *x, int32_t n) {\n"
        "    int32_t i = (int32_t)(blockIdx.x * 64 + threadIdx.x);\n"
        "    if (i < n) y[i] = x[i] * %s;\n}\n";
    test_put(&arena, step, "op.yaml", kt_arena_printf(&arena, head, "twice", ""));
    test_put(&arena, whole, "op.yaml",
        kt_arena_printf(&arena, head, "four",
            "body:\n  - { op: twice, in: { x: x }, out: { y: h } }\n"
            "  - { op: twice, in: { x: h }, out: { y: y } }\n"));
    test_put(&arena, step, "twice.cu", kt_arena_printf(&arena, kernel, "twice", step_factor));
    test_put(&arena, whole, "four.cu", kt_arena_printf(&arena, kernel, "four", fused_factor));
    test_put(&arena, step, "twice.c",
        "#include \"ops/kt_cpu.h\"\nstatic const char *run(const kt_cpu_call *call) {\n"
        "    const float *x = kt_cpu_in(call, \"x\")->data;\n"
        "    float *y = kt_cpu_in(call, \"y\")->data;\n"
        "    for (int64_t i = 0; i < kt_cpu_dim(call, \"n\"); i++) y[i] = 2 * x[i];\n"
        "    return NULL;\n}\nKT_CPU_OP(\"twice\", run)\n");
}

static void run_pair(const char *step_factor, const char *fused_factor, outcome *out) {
    const char *folder = test_folder(&arena);
    plant_pair(folder, step_factor, fused_factor);
    run_op(folder, "four", false, out);
    if (out->status != KT_OK) fail_msg("%s", out->report.at);
    test_remove(folder);
}

static void body_and_variant_are_compared(void **state) {
    (void)state;
    needs_a_device();
    const char *says = "(expected is what the body gives on the same device)";
    outcome out;
    run_pair("2", "4", &out);
    if (out.n_failed > 0) fail_msg("%s", out.report.at);
    assert_true(part_of(&out, "")->n_runs > 5 && part_of(&out, "flat")->n_runs > 5);
    kt_buf_deinit(&out.report);

    run_pair("2", "4.001f", &out); // against the C implementation already
    assert_int_equal(part_of(&out, "")->n_failed, 0);
    assert_true(part_of(&out, "flat")->n_failed > 5);
    assert_null(strstr(out.report.at, says));
    kt_buf_deinit(&out.report);

    run_pair("2.001f", "4", &out); // the variant is right, but not the body's kernels
    assert_true(part_of(&out, "")->n_failed > 5);
    assert_true(part_of(&out, "flat")->n_failed > 5);
    assert_non_null(strstr(out.report.at, says));
    kt_buf_deinit(&out.report);
}

// ---- memory that is not the kernel's

typedef struct trespass {
    const char *name, *code;
    const char *expected; // of the message; NULL: the kernel is right
} trespass;

static const trespass trespasses[] = {
    {"nowhere", "if (i == 0 && n > 0) scratch[n - 1] = x[n - 1] + kt_to_f32(w[m * 8 - 1]);", NULL},
    {"beside_input", "if (i == 0) scratch[0] = x[n];", "read"},
    {"beside_output", "if (i == 0) y[n] = 1;", "write"},
    {"beside_scratch", "if (i == 0) scratch[n] = 1;", "write"},
    {"beside_weights", "if (i == 0) scratch[0] = kt_to_f32(w[m * 8]);", "read"},
    {"before_weights", "if (i == 0) scratch[0] = kt_to_f32(w[-1]);", "read"},
    {"into_input", "if (i == 0 && n > 0) ((float *)x)[n - 1] = 1;", "write"},
};
enum { N_TRESPASSES = sizeof trespasses / sizeof trespasses[0] };

static void plant_trespass(const char *folder, const trespass *t) {
    char *op = kt_path_join(&arena, folder, "planted");
    test_put(&arena, op, "op.yaml",
        "kotaro: op/1\nname: planted\ndoc: The input.\ndims:\n  n: plan, numbers\n"
        "  m: build, rows\ninputs:\n  x: f32[n]\n  w: linear[m, 8]\noutputs:\n  y: f32[n]\n"
        "variants:\n  - name: flat\n    layouts:\n      w: { of: w, as: [rows_f16] }\n"
        "    scratch:\n      scratch: f32[n]\n"
        "    launch:\n      grid: ceil_div(n, 64)\n      block: 64\n"
        "check:\n  tolerance: { f32: 0 }\n  cases:\n    - { n: 50, m: 3 }\n");
    test_put(&arena, op, "planted.c",
        "#include \"ops/kt_cpu.h\"\n#include <string.h>\n"
        "static const char *run(const kt_cpu_call *call) {\n"
        "    memcpy(kt_cpu_in(call, \"y\")->data, kt_cpu_in(call, \"x\")->data,\n"
        "        4 * (size_t)kt_cpu_dim(call, \"n\"));\n"
        "    return NULL;\n}\nKT_CPU_OP(\"planted\", run)\n");
    test_put(&arena, op, "planted.cu",
        kt_arena_printf(&arena,
            "#include \"kt.cuh\"\nextern \"C\" __global__ void kt_planted_flat(\n"
            "    float *y, const float *x, const kt_f16 *w, float *scratch, int32_t n) {\n"
            "    int32_t i = (int32_t)(blockIdx.x * 64 + threadIdx.x), m = KT_M;\n    (void)m;\n"
            "    if (i < n) y[i] = x[i];\n    %s\n}\n",
            t->code));
}

// In a child: prints what came of it.
static int run_trespass(const char *name) {
    for (int i = 0; i < N_TRESPASSES; i++) {
        if (strcmp(name, trespasses[i].name) != 0) continue;
        const char *folder = test_folder(&arena);
        outcome out;
        plant_trespass(folder, &trespasses[i]);
        run_op(folder, "planted", true, &out);
        printf("status %d, %d tests, %d failed\n%s", (int)out.status,
            out.n_parts > 0 ? out.parts[0].n_runs : 0, out.n_failed,
            out.report.n ? out.report.at : "");
        kt_buf_deinit(&out.report);
        test_remove(folder);
        return 0;
    }
    return 3;
}

static void memory_beside_tensors_is_watched(void **state) {
    (void)state;
    needs_a_device();
    const char *mode = kt_os_getenv("KOTARO_EMU");
    if (!emu_watch_find() || (mode && strcmp(mode, "checked") != 0)) skip(); // nobody would tell
    for (int i = 0; i < N_TRESPASSES; i++) {
        const trespass *t = &trespasses[i];
        const char *argv[] = {self, t->name, NULL};
        kt_buf out = {0};
        int code = kt_os_run(argv, &out);
        const char *text = out.n > 0 ? out.at : "";
        if (code != 0) fail_msg("%s: exit status %d\n%s", t->name, code, text);
        bool clean = strstr(text, ", 0 failed") && strstr(text, "status 0,");
        if (!t->expected && (!clean || strstr(text, ", 0 tests"))) fail_msg("%s", text);
        if (t->expected && clean) fail_msg("%s: not found\n%s", t->name, text);
        if (t->expected && !strstr(text, t->expected))
            fail_msg("%s: expected '%s' in\n%s", t->name, t->expected, text);
        kt_buf_deinit(&out);
    }
}

// ---- all

static void open_all(void) {
    kt_err err;
    kt_compiler_options options = {.headers = kt_device_headers};
    const char *argv[] = {"cc", "--version", NULL}, *text = kt_os_getenv("KOTARO_SEED");
    kt_buf out = {0};
    uint32_t drawn;
    int64_t given;
    if (kt_os_run(argv, &out) != 0) missing = "no C compiler, which ops from outside need";
    kt_buf_deinit(&out);
    if (!missing && kt_gpu_open(NULL, &gpu, &err) != KT_OK)
        missing = kt_arena_copy(&arena, err.text, strcspn(err.text, "\n"));
    if (!missing && kt_compiler_open(&options, &compiler, &err) != KT_OK)
        missing = kt_arena_copy(&arena, err.text, strcspn(err.text, "\n"));
    kt_os_random(&drawn, sizeof drawn);
    seed = text && kt_str_to_i64(kt_str_from(text), &given) ? (uint64_t)given : drawn;
}

int main(int argc, char **argv) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_in_each_dtype),
        cmocka_unit_test(body_and_variant_are_compared),
        cmocka_unit_test(memory_beside_tensors_is_watched),
    };
    self = argv[0];
    open_all();
    int failed = 0;
    if (argc > 1) {
        failed = missing ? 4 : run_trespass(argv[1]);
    } else {
        printf("# seed %" PRIu64 "\n", seed);
        failed = cmocka_run_group_tests_name("gpu_planted", tests, NULL, NULL);
    }
    kt_compiler_close(compiler);
    kt_gpu_close(gpu);
    kt_arena_deinit(&arena);
    return failed;
}
