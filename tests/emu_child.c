#include "tests/emu_child.h"

#include "ptx/compile.h"
#include "runtime/base/file.h"
#include "tests/util.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h> // cmocka.h needs these four first

#include <cmocka.h>

kt_driver *emu_d;
emu_child_control emu_ctl;

static kt_arena arena; // as long as the process
static const char *self, *emu_folder, *scratch;

// ---- in a case

void emu_child_stop(const char *file, int line, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    (void)printf("%s:%d: ", file, line);
    (void)vprintf(fmt, args);
    (void)printf("\n");
    va_end(args);
    exit(1);
}

void emu_child_code(const char *file, int line, const char *what, int got, int want) {
    if (got != want)
        emu_child_stop(file, line, "%s gave %d, not %d; last complaint: %s", what, got, want,
            emu_ctl.complaint());
}

void emu_child_wrong(const char *file, int line, int got, int want, const char *text) {
    if (got != want || strstr(emu_ctl.complaint(), text) == NULL)
        emu_child_stop(file, line, "gave %d, not %d, and the complaint has no '%s': '%s'", got,
            want, text, emu_ctl.complaint());
    emu_ctl.forgive();
}

static void *find(kt_os_library *library, const char *name) {
    void *out;
    kt_os_function at = kt_os_library_function(library, name);
    if (at == NULL) emu_child_stop(__FILE__, __LINE__, "libcuda.so.1 has no %s", name);
    memcpy(&out, &at, sizeof out);
    return out;
}

static void find_controls(void) {
    kt_os_library *library = kt_os_library_open("libcuda.so.1", NULL);
    if (library == NULL) emu_child_stop(__FILE__, __LINE__, "no libcuda.so.1");
    const struct {
        const char *name;
        void *to;
    } rows[] = {
        {"emu_driver_get_counts", &emu_ctl.get_counts},
        {"emu_driver_calls", &emu_ctl.calls},
        {"emu_driver_fail", &emu_ctl.fail},
        {"emu_driver_complaint", &emu_ctl.complaint},
        {"emu_driver_forgive", &emu_ctl.forgive},
        {"emu_driver_lazy", &emu_ctl.lazy},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        void *at = find(library, rows[i].name);
        memcpy(rows[i].to, &at, sizeof at);
    }
}

void emu_child_driver(void) {
    kt_err err;
    find_controls();
    if (kt_driver_open(&emu_d, &err) != KT_OK) emu_child_stop(__FILE__, __LINE__, "%s", err.text);
}

void emu_child_open(void) {
    kt_cu_context context;
    emu_child_driver();
    emu_ctl.lazy(true);
    GOOD(emu_d->cuDevicePrimaryCtxRetain(&context, 0));
    GOOD(emu_d->cuCtxSetCurrent(context));
}

void emu_child_close(void) {
    GOOD(emu_d->cuCtxSetCurrent(NULL));
    GOOD(emu_d->cuDevicePrimaryCtxRelease(0));
}

uint64_t emu_child_count(size_t field) {
    emu_driver_counts counts;
    uint64_t out;
    emu_ctl.get_counts(&counts);
    memcpy(&out, (const char *)&counts + field, sizeof out);
    return out;
}

// ---- kernels

static const char source[] =
    "#include \"kt.cuh\"\n"
    "extern \"C\" __global__ void kt_fill(int *p, int n, int v) {\n"
    "    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);\n"
    "    if (i < n) p[i] = v;\n"
    "}\n"
    "extern \"C\" __global__ void kt_times(int *p, int v) { p[0] *= v; }\n"
    "extern \"C\" __global__ void kt_plus(int *p, int v) { p[0] += v; }\n"
    "extern \"C\" __global__ void kt_copy(int *to, const int *from, int n) {\n"
    "    for (int i = 0; i < n; i++) to[i] = from[i];\n"
    "}\n"
    "extern \"C\" __global__ void __launch_bounds__(64) kt_small(int *p) {\n"
    "    unsigned other = threadIdx.x + threadIdx.y + threadIdx.z;\n"
    "    other += blockIdx.x + blockIdx.y + blockIdx.z;\n"
    "    if (other == 0) p[0] = 1;\n"
    "}\n"
    "extern \"C\" __global__ void kt_wild() { *(volatile int *)(1ull << 40) = 1; }\n"
    "extern \"C\" __global__ void kt_shared_dynamic(int *p, int n) {\n"
    "    KT_SHARED_DYNAMIC(int, s);\n"
    "    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) s[i] = i;\n"
    "    kt_sync();\n"
    "    if (threadIdx.x == 0) p[0] = s[n - 1];\n"
    "}\n";

// Compiled once for all cases: the cache is in the tests' folder, one for each mode.
const void *emu_child_image(int sm, const char *cache) {
    const char *folder = kt_os_getenv("EMU_CHILD_FOLDER"), *mode = kt_os_getenv("KOTARO_EMU");
    if (cache == NULL) cache = mode == NULL ? "checked" : mode;
    if (folder == NULL) emu_child_stop(__FILE__, __LINE__, "EMU_CHILD_FOLDER is not set");
    const kt_compiler_options options = {.headers = kt_device_headers,
        .cache_folder = kt_arena_printf(&arena, "%s/cache.%s", folder, cache)};
    kt_compiler *compiler;
    kt_options *numbers = KT_NEW(&arena, kt_options);
    kt_options_init(numbers, &arena, sm);
    const kt_compile_request request = {"tests/emu_child.cu", kt_str_from(source), numbers};
    kt_compile_result *result = KT_NEW(&arena, kt_compile_result);
    kt_err err;
    if (kt_compiler_open(&options, &compiler, &err) != KT_OK ||
        kt_compile(compiler, &request, 1, result, &err) != KT_OK)
        emu_child_stop(__FILE__, __LINE__, "%s", err.text);
    void *copy = kt_arena_alloc(&arena, result->cubin.n);
    memcpy(copy, result->cubin.at, result->cubin.n);
    kt_compiler_close(compiler);
    return copy;
}

kt_cu_library emu_child_library(int sm) {
    kt_cu_library library;
    GOOD(emu_d->cuLibraryLoadData(
        &library, emu_child_image(sm, NULL), NULL, NULL, 0, NULL, NULL, 0));
    return library;
}

kt_cu_kernel emu_child_kernel(kt_cu_library library, const char *name) {
    kt_cu_kernel kernel;
    GOOD(emu_d->cuLibraryGetKernel(&kernel, library, name));
    return kernel;
}

kt_cu_function emu_child_function(kt_cu_library library, const char *name) {
    kt_cu_function function;
    GOOD(emu_d->cuKernelGetFunction(&function, emu_child_kernel(library, name)));
    return function;
}

int emu_child_launch(kt_cu_stream stream, kt_cu_function function, unsigned blocks,
    unsigned threads, void **params) {
    const kt_cu_launch_config config = {
        .grid = {blocks, 1, 1}, .block = {threads, 1, 1}, .stream = stream};
    return emu_d->cuLaunchKernelEx(&config, function, params, NULL);
}

// ---- the test program

static void run_case(void **state) {
    const emu_child_case *c = *state;
    const char *argv[16] = {"env", "-u", "KOTARO_EMU_FAIL", "-u", "KOTARO_EMU_DEVICE",
        kt_arena_printf(&arena, "LD_LIBRARY_PATH=%s", emu_folder),
        kt_arena_printf(&arena, "KOTARO_NVRTC=%s", emu_folder),
        kt_arena_printf(&arena, "EMU_CHILD_FOLDER=%s", scratch), "KOTARO_EMU_STRICT=1"};
    int n = 9;
    for (int i = 0; i < 4 && c->environment[i] != NULL; i++)
        argv[n++] = strcmp(c->environment[i], "KOTARO_EMU_REPORT") == 0
                        ? kt_arena_printf(&arena, "KOTARO_EMU_REPORT=%s/report", scratch)
                        : c->environment[i];
    argv[n++] = self;
    argv[n++] = "--case";
    argv[n] = c->name;
    kt_buf out = {0};
    int code = kt_os_run(argv, &out);
    kt_buf_add(&out, "", 1);
    bool crashed = code >= 128 || (code != 0 && strstr(out.at, "Sanitizer") != NULL);
    bool right = c->exit_code == EMU_CHILD_CRASH ? crashed : code == c->exit_code;
    if (!right) fail_msg("exit code %d, not %d:\n%s", code, c->exit_code, out.at);
    for (int i = 0; i < 3 && c->say[i] != NULL; i++)
        if (strstr(out.at, c->say[i]) == NULL)
            fail_msg("it does not say '%s', but:\n%s", c->say[i], out.at);
    kt_buf_deinit(&out);
}

static int run_child(const char *name, const emu_child_case *cases, int n) {
    for (int i = 0; i < n; i++) {
        if (strcmp(cases[i].name, name) != 0) continue;
        cases[i].run();
        kt_arena_deinit(&arena);
        return 0;
    }
    return 1;
}

int emu_child_main(int argc, char **argv, const char *group, const emu_child_case *cases, int n) {
    if (argc == 3 && strcmp(argv[1], "--case") == 0) return run_child(argv[2], cases, n);
    const char *build = kt_os_getenv("BUILD");
    self = kt_os_executable(&arena);
    emu_folder = kt_os_absolute(&arena, kt_path_join(&arena, build ? build : "build", "emu"));
    scratch = test_folder(&arena);
    struct CMUnitTest *tests = KT_NEW_ARRAY(&arena, struct CMUnitTest, n);
    for (int i = 0; i < n; i++) {
        union { // cmocka does not write to it
            const emu_child_case *in;
            void *out;
        } lend = {.in = &cases[i]};
        tests[i] = (struct CMUnitTest){cases[i].name, run_case, NULL, NULL, lend.out};
    }
    int code = _cmocka_run_group_tests(group, tests, (size_t)n, NULL, NULL);
    test_remove(scratch);
    kt_arena_deinit(&arena);
    return code;
}
