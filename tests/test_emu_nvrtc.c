// The stand-in for NVRTC (tests/emu): through the runtime's own compiler, cache and cubin reader.
//
// The program starts itself with the environment that the stand-in reads: once for the tests, and
// for some of them again ("--child"). Its temporary folder is one of its own, looked at at the end.
#include "ptx/compile.h"
#include "runtime/base/file.h"
#include "runtime/exec/op_check.h"
#include "tests/emu/image.h"
#include "tests/util.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h> // cmocka.h needs these four first

#include <cmocka.h>

#include "tests/emu/emu.h"

static kt_arena arena;
static const char *folder;    // scratch, ours alone
static const char *temporary; // TMPDIR
static int n_folders;

static const kt_device_header test_headers[] = {
    {"kt_test.cuh", "#define KT_SCALE 2\n", 19},
    {"wrong.cuh", "\nstatic int wrong(void) { return absent; }\n", 44},
    {"machine.cuh", "#error not the stand-in's\n", 27},
    {NULL, NULL, 0},
};

__attribute__((unused)) static const char *fresh_folder(void) {
    const char *path = kt_arena_printf(&arena, "%s/%d", folder, n_folders++);
    assert_true(kt_os_mkdirs(path));
    return path;
}

static int count_files(const char *path) {
    int n;
    (void)kt_os_list(&arena, path, &n);
    return n;
}

static kt_compiler *open_compiler(const char *cache, volatile int *stop, int n_threads) {
    const kt_compiler_options options = {.headers = test_headers,
        .cache_folder = cache,
        .no_cache = cache == NULL,
        .stop = stop,
        .n_threads = n_threads};
    kt_compiler *compiler = NULL;
    kt_err err;
    if (kt_compiler_open(&options, &compiler, &err) != KT_OK) fail_msg("%s", err.text);
    return compiler;
}

static kt_options options_for(int arch, const char *value) {
    kt_options options;
    kt_err err;
    kt_options_init(&options, &arena, arch);
    assert_int_equal(kt_options_define(&options, "KT_D", value, &err), KT_OK);
    return options;
}

// One source, compiled without a cache. The result lives as long as the returned compiler.
static kt_compiler *compile_one(
    const char *source, int arch, kt_compile_result *out, kt_status want, kt_err *err) {
    kt_compiler *compiler = open_compiler(NULL, NULL, 0);
    kt_options options = options_for(arch, "3");
    const kt_compile_request request = {"ops/test/test.cu", kt_str_from(source), &options};
    kt_status status = kt_compile(compiler, &request, 1, out, err);
    if (status != want) fail_msg("%s: %s", kt_status_name(status), status ? err->text : "");
    return compiler;
}

// ---- what comes out

static const char kernels[] =
    "#include \"kt_test.cuh\"\n"
    "enum { BLOCKS = KT_D > 2 ? 2 : 1 };\n"
    "#define KT_THREADS (64 * \\\n"
    "    KT_SCALE)\n"
    "struct big { int a[40]; };\n"
    "struct __align__(16) wide { double v[2]; };\n"
    "// __global__ void kt_comment(int *p) {}\n"
    "static const char *const text = \"__global__ asm /* \\\" //\";\n"
    "extern \"C\" __global__ void __launch_bounds__(KT_THREADS, /* blocks */ BLOCKS) kt_first(\n"
    "    int *out, char c, double d, const big b, short s, wide w, bool flag, long long n) {\n"
    "    if (threadIdx.x != 1 || blockIdx.y != 2 || blockDim.z != 3 || gridDim.x != 4) return;\n"
    "    out[0] = c + (int)d + b.a[0] + b.a[39] + s + (int)w.v[1] + flag + (int)n;\n"
    "    out[1] = __LINE__;\n"
    "}\n"
    "#if KT_D == 3\n"
    "extern \"C\" __global__ void kt_second(int *p) { p[0] = text[0] + __CUDA_ARCH__; }\n"
    "#else\n"
    "extern \"C\" __global__ void kt_second(int *p, int q) { p[0] = q; }\n"
    "extern \"C\" __global__ void kt_third(int *p) { p[0] = 1'000; }\n"
    "#endif\n"
    "extern \"C\" __global__ void kt_none(void) {}\n";

static void check_kernels(const kt_cubin *cubin) {
    static const kt_cubin_param want[] = {
        {0, 8}, {8, 1}, {16, 8}, {24, 160}, {184, 2}, {192, 16}, {208, 1}, {216, 8}};
    assert_int_equal(cubin->n_kernels, 3);
    assert_int_equal(cubin->abi, 8);
    assert_int_equal(cubin->n_externals, 0);
    assert_string_equal(cubin->tool, "");
    const kt_cubin_kernel *k = kt_cubin_find(cubin, "kt_first");
    assert_non_null(k);
    assert_int_equal(k->n_params, 8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(k->params[i].offset, want[i].offset);
        assert_int_equal(k->params[i].size, want[i].size);
    }
    assert_int_equal(k->max_threads, 128);
    assert_int_equal(k->registers, 0); // not known
    assert_int_equal(k->spill_bytes, -1);
    k = kt_cubin_find(cubin, "kt_second");
    assert_non_null(k);
    assert_int_equal(k->n_params, 1);
    assert_int_equal(k->max_threads, 0);
    k = kt_cubin_find(cubin, "kt_none");
    assert_non_null(k);
    assert_int_equal(k->n_params, 0);
}

static void a_kernel_compiles_for_every_architecture(void **state) {
    (void)state;
    static const int archs[] = {80, 86, 89, 90, 120};
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        kt_compile_result result;
        kt_err err;
        kt_compiler *compiler = compile_one(kernels, archs[i], &result, KT_OK, &err);
        assert_int_equal(result.from, KT_COMPILE_FROM_NVRTC);
        assert_int_equal(result.info->sm, archs[i]);
        assert_int_equal(result.log.n, 0);
        check_kernels(result.info);
        emu_image image;
        const char *why;
        if (!emu_image_read(result.cubin.at, &image, &why)) fail_msg("%s", why);
        assert_int_equal(image.sm, archs[i]);
        assert_int_equal(image.bytes, result.cubin.n);
        assert_true(image.origin.stamp != 0);
        kt_compiler_close(compiler);
    }
}

static int make_folder(void **state) {
    (void)state;
    temporary = kt_os_getenv("TMPDIR");
    folder = kt_path_folder(&arena, temporary);
    return 0;
}

static int leave_nothing(void **state) {
    (void)state;
    int n = count_files(temporary);
    if (n != 0) printf("# %d files are left in the temporary folder\n", n);
    kt_arena_deinit(&arena);
    return n;
}

// Runs this program again with the stand-in's environment, and prints what it prints.
static int start_tests(const char *self) {
    const char *build = kt_os_getenv("BUILD");
    const char *emu = kt_os_absolute(&arena, kt_path_join(&arena, build ? build : "build", "emu"));
    const char *scratch = test_folder(&arena);
    const char *tmp = kt_path_join(&arena, scratch, "tmp");
    if (!kt_os_mkdirs(tmp)) return 1;
    const char *argv[] = {"env", "-u", "KOTARO_EMU", "-u", "KOTARO_EMU_FAIL",
        kt_arena_printf(&arena, "KOTARO_NVRTC=%s", emu), kt_arena_printf(&arena, "TMPDIR=%s", tmp),
        self, "--tests", NULL};
    kt_buf out = {0};
    int code = kt_os_run(argv, &out);
    if (out.n > 0) (void)fwrite(out.at, 1, out.n, stdout);
    kt_buf_deinit(&out);
    test_remove(scratch);
    kt_arena_deinit(&arena);
    return code;
}

int main(int argc, char **argv) {
    if (argc < 2) return start_tests(kt_os_executable(&arena));
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_compiles_for_every_architecture),
    };
    return cmocka_run_group_tests_name("emu_nvrtc", tests, make_folder, leave_nothing);
}
