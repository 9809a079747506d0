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

static const char *fresh_folder(void) {
    const char *path = kt_arena_printf(&arena, "%s/%d", folder, n_folders++);
    assert_true(kt_os_mkdirs(path));
    return path;
}

static int count_files(const char *path) {
    int n;
    (void)kt_os_list(&arena, path, &n);
    return n;
}

// NOLINTNEXTLINE(readability-non-const-parameter): the options' type
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

// A cut file is no cubin, wherever it was cut.
static void a_cut_image_is_refused(void **state) {
    (void)state;
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = compile_one(kernels, 89, &result, KT_OK, &err);
    for (size_t n = 0; n < result.cubin.n; n += n + 400 < result.cubin.n ? 61 : 1) {
        kt_arena tmp = {0};
        kt_cubin cubin;
        char *exact = malloc(n + 1); // so that the sanitizers see a read past its end
        assert_non_null(exact);
        memcpy(exact + 1, result.cubin.at, n);
        assert_int_equal(kt_cubin_read(&tmp, exact + 1, n, &cubin, &err), KT_EFORMAT);
        free(exact);
        kt_arena_deinit(&tmp);
    }
    kt_compiler_close(compiler);
}

// Equal sources give equal bytes, whatever folder they were compiled in.
static void the_same_bytes_each_time(void **state) {
    (void)state;
    kt_compile_result a, b;
    kt_err err;
    kt_compiler *one = compile_one(kernels, 89, &a, KT_OK, &err);
    kt_compiler *two = compile_one(kernels, 89, &b, KT_OK, &err);
    assert_int_equal(a.cubin.n, b.cubin.n);
    assert_memory_equal(a.cubin.at, b.cubin.at, a.cubin.n);
    kt_compiler_close(one);
    kt_compiler_close(two);
}

// ---- in a process of its own

static int child(const char *source) {
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = open_compiler(NULL, NULL, 1);
    kt_options options = options_for(89, "3");
    const kt_compile_request request = {"ops/test/test.cu", kt_str_from(source), &options};
    kt_status status = kt_compile(compiler, &request, 1, &result, &err);
    emu_image image;
    const char *why = "";
    if (status != KT_OK) {
        (void)printf("%s\n", err.text);
    } else if (!emu_image_read(result.cubin.at, &image, &why)) {
        (void)printf("%s\n", why);
        status = KT_EFORMAT;
    } else {
        (void)printf("%s %016llx\n", image.origin.mode, (unsigned long long)image.origin.stamp);
        const char *out = kt_os_getenv("KOTARO_TEST_OUT");
        if (out != NULL) test_write(out, image.module, image.module_bytes);
    }
    kt_compiler_close(compiler);
    return status == KT_OK ? 0 : 1;
}

// Compiles `kernels` in a process with two more variables ("A=b"). The output is in the arena;
// KOTARO_TEST_OUT gets the module.
static const char *run_child(const char *a, const char *b, int *code) {
    kt_buf out = {0};
    const char *argv[] = {"env", a, b, kt_os_executable(&arena), "--child", NULL};
    *code = kt_os_run(argv, &out);
    const char *text = out.n > 0 ? kt_arena_copy(&arena, out.at, out.n) : "";
    kt_buf_deinit(&out);
    return text;
}

// ---- what it does

// The module of a file, loaded into this program. It may call no emulator.
static const emu_module_table *load_module(const char *path, kt_os_library **library) {
    kt_buf text = {0};
    *library = kt_os_library_open(path, &text);
    if (*library == NULL) fail_msg("%s", text.n > 0 ? text.at : "?");
    kt_buf_deinit(&text);
    union {
        kt_os_function function;
        const emu_module_table *table;
    } found = {.function = kt_os_library_function(*library, "emu_module")};
    assert_non_null(found.table);
    assert_int_equal(found.table->abi, EMU_ABI);
    return found.table;
}

// Arguments come out of the parameter block as they went in, and #if chose the right kernels.
static void a_kernel_runs_with_its_arguments(void **state) {
    (void)state;
    const char *path = kt_path_join(&arena, fresh_folder(), "module.so");
    int code;
    const char *text =
        run_child("KOTARO_EMU=plain", kt_arena_printf(&arena, "KOTARO_TEST_OUT=%s", path), &code);
    if (code != 0) fail_msg("%s", text);
    kt_os_library *library;
    const emu_module_table *table = load_module(path, &library);
    assert_false(table->checked);
    assert_int_equal(table->n_kernels, 3);
    emu_state now = {.thread = {1, 0, 0}, .block = {0, 2, 0}};
    now.block_dim.z = 3;
    now.grid_dim.x = 4;
    *table->state = &now;
    int out[2] = {0, 0}, *at = out, b[40] = {0};
    _Alignas(16) char block[224];
    double d = 1000, w[2] = {-1, 30000};
    short s = 500;
    long long n = 7000000;
    memset(block, 0xff, sizeof block);
    b[0] = 100;
    b[39] = 200000;
    memcpy(block, &at, sizeof at);
    block[8] = 9;
    memcpy(block + 16, &d, sizeof d);
    memcpy(block + 24, b, sizeof b);
    memcpy(block + 184, &s, sizeof s);
    memcpy(block + 192, w, sizeof w);
    block[208] = 1;
    memcpy(block + 216, &n, sizeof n);
    const emu_kernel *first = &table->kernels[0];
    assert_string_equal(first->name, "kt_first");
    assert_int_equal(first->n_params, 8);
    assert_int_equal(first->params[7].offset, 216);
    assert_int_equal(first->max_threads, 128);
    assert_int_equal(first->min_blocks, 2);
    first->call(block);
    assert_int_equal(out[0], 9 + 1000 + 100 + 200000 + 500 + 30000 + 1 + 7000000);
    assert_int_equal(out[1], 13); // the line in the source
    now.block.y = 0;
    out[0] = 0;
    first->call(block);
    assert_int_equal(out[0], 0);
    assert_string_equal(table->kernels[1].name, "kt_second");
    table->kernels[1].call(&at);
    assert_int_equal(out[0], '_' + 890);
    kt_os_library_close(library);
}

// ---- compiling

// The other branch of #if.
static void conditions_choose_kernels(void **state) {
    (void)state;
    kt_compiler *compiler = open_compiler(NULL, NULL, 0);
    kt_options options = options_for(90, "2 + 2");
    const kt_compile_request request = {"ops/test/test.cu", kt_str_from(kernels), &options};
    kt_compile_result result;
    kt_err err;
    if (kt_compile(compiler, &request, 1, &result, &err) != KT_OK) fail_msg("%s", err.text);
    assert_int_equal(result.info->n_kernels, 4);
    assert_int_equal(kt_cubin_find(result.info, "kt_second")->n_params, 2);
    assert_non_null(kt_cubin_find(result.info, "kt_third"));
    kt_compiler_close(compiler);
}

static void the_cache_serves_the_next(void **state) {
    (void)state;
    const char *cache = fresh_folder();
    kt_options options = options_for(89, "3");
    const kt_compile_request request = {"ops/test/test.cu", kt_str_from(kernels), &options};
    for (int i = 0; i < 2; i++) {
        kt_compiler *compiler = open_compiler(cache, NULL, 0);
        kt_compile_result result;
        kt_err err;
        assert_int_equal(kt_compile(compiler, &request, 1, &result, &err), KT_OK);
        assert_int_equal(result.from, i == 0 ? KT_COMPILE_FROM_NVRTC : KT_COMPILE_FROM_CACHE);
        check_kernels(result.info);
        kt_compiler_close(compiler);
    }
}

// ---- mistakes

typedef struct mistake {
    const char *source;
    const char *place, *what; // in the message
} mistake;

#define KERNEL "extern \"C\" __global__ void k(int *p) { "
static const char only_kt[] = "kernels reach the machine only through kt.cuh";
static const mistake mistakes[] = {
    {"\n\n" KERNEL "p[0] = missing; }\n", "ops/test/test.cu(3): error: ", "missing"},
    {"#include \"wrong.cuh\"\n" KERNEL "}\n", "wrong.cuh(2): error: ", "absent"},
    {"/* a\n b */" KERNEL "asm(\"mov.u32 %0, %smid;\" : \"=r\"(p[0])); }\n",
        "ops/test/test.cu(2): error: 'asm'", only_kt},
    {"\n" KERNEL "__syncthreads(); }\n", "ops/test/test.cu(2): error: '__syncthreads'",
        "(machine.cuh, mma.cuh): kt_sync"},
    {"\n" KERNEL "__nanosleep(1); }\n", "ops/test/test.cu(2): error: '__nanosleep'", only_kt},
    {"\n" KERNEL "\n__shared__ int s[4]; }\n", "ops/test/test.cu(3): error: '__shared__'", only_kt},
    {KERNEL "atomicAdd(p, 1); }\n", "ops/test/test.cu(1): error: ", only_kt},
    {KERNEL "printf(\"x\"); }\n", "ops/test/test.cu(1): error: ", only_kt},
    {"#include <stdio.h>\n" KERNEL "}\n", "ops/test/test.cu(1): error: '<stdio.h>'",
        "cannot open source file"},
    {"#include \"no.cuh\"\n" KERNEL "}\n", "ops/test/test.cu(1): fatal error: ", "no.cuh"},
    {"#define MAKE(n) extern \"C\" __global__ void n(int *p) {}\nMAKE(k)\n",
        "ops/test/test.cu(1): error: '__global__'", "in a macro"},
    {"static int f(int i) { return i; }\n", "ops/test/test.cu: error: ", "no kernel"},
    {KERNEL "} /* open\n", "ops/test/test.cu(1): error: ", "unterminated comment"},
    {KERNEL, "ops/test/test.cu(1): error: ", "expected"},
    {"\n__global__", "ops/test/test.cu(2): error: ", "without the name"},
};

static void mistakes_are_told_with_their_place(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        const mistake *m = &mistakes[i];
        kt_compile_result result;
        kt_err err;
        kt_compiler *compiler = compile_one(m->source, 89, &result, KT_ECOMPILE, &err);
        if (strstr(err.text, m->place) == NULL || strstr(err.text, m->what) == NULL)
            fail_msg("'%s' and '%s' are not in:\n%s", m->place, m->what, err.text);
        assert_true(result.log.n > 0);
        assert_null(result.cubin.at);
        kt_compiler_close(compiler);
    }
}

// The current folder is not looked into, nor the stand-in's for other names.
static void no_other_file_is_read(void **state) {
    (void)state;
    const char *name = kt_arena_printf(&arena, "kt_test_%d.cuh", kt_os_pid());
    test_write(name, "#define KT_FROM_DISK 1\n", 23);
    const char *source = kt_arena_printf(&arena, "#include \"%s\"\n" KERNEL "}\n", name);
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = compile_one(source, 89, &result, KT_ECOMPILE, &err);
    assert_true(kt_os_remove(name));
    assert_non_null(strstr(err.text, name));
    kt_compiler_close(compiler);
}

static kt_nvrtc *open_nvrtc(void) {
    kt_nvrtc_place place;
    kt_nvrtc *nvrtc = NULL;
    kt_err err;
    if (kt_nvrtc_find(&arena, &place, &err) != KT_OK ||
        kt_nvrtc_open(&place, &nvrtc, &err) != KT_OK)
        fail_msg("%s", err.text);
    assert_int_equal(kt_nvrtc_get_id(nvrtc).major, 13);
    return nvrtc;
}

static void unknown_options_are_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"-O3", "--gpu-architecture=sm_88", "-D", "-lineinfo",
        "--gpu-architecture=compute_89", "-I/usr/include", "-fplugin=x.so", "@file", ""};
    kt_nvrtc *nvrtc = open_nvrtc();
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const kt_nvrtc_source source = {
            .name = "k.cu", .text = KT_STR(KERNEL "}\n"), .options = &wrong[i], .n_options = 1};
        kt_nvrtc_output output;
        kt_err err;
        assert_int_equal(kt_nvrtc_compile(nvrtc, &source, &arena, &output, &err), KT_ECOMPILE);
        assert_non_null(strstr(err.text, "NVRTC_ERROR_INVALID_OPTION"));
        assert_non_null(strstr(err.text, kt_arena_printf(&arena, "'%s'", wrong[i])));
    }
    kt_nvrtc_close(nvrtc);
}

// ---- threads and giving up

static void several_threads_compile_at_once(void **state) {
    (void)state;
    enum { N = 6 };
    kt_options options[N];
    kt_compile_request requests[N];
    kt_compile_result results[N];
    kt_compiler *compiler = open_compiler(NULL, NULL, 3);
    for (int i = 0; i < N; i++) {
        options[i] = options_for(89, kt_arena_printf(&arena, "%d", i % 3 == 0 ? 3 : 10 + i));
        const char *name = kt_arena_printf(&arena, "ops/test/%d.cu", i);
        requests[i] = (kt_compile_request){name, kt_str_from(kernels), &options[i]};
    }
    kt_err err;
    if (kt_compile(compiler, requests, N, results, &err) != KT_OK) fail_msg("%s", err.text);
    for (int i = 0; i < N; i++) {
        assert_int_equal(results[i].info->n_kernels, i % 3 == 0 ? 3 : 4);
        assert_non_null(kt_cubin_find(results[i].info, "kt_first"));
    }
    kt_compiler_close(compiler);
}

// Is there a process whose environment says that its temporary files go below our folder?
static bool has_children(void) {
    const char *want = kt_arena_printf(&arena, "TMPDIR=%s/kotaro-emu-", temporary);
    int n;
    kt_str *names = kt_os_list(&arena, "/proc", &n);
    bool found = false;
    char text[1 << 16];
    for (int i = 0; i < n && !found; i++) {
        const char *path = kt_arena_printf(&arena, "/proc/%.*s/environ", KT_STR_ARG(names[i]));
        FILE *file = names[i].at[0] > '9' ? NULL : kt_os_fopen(path, "rb");
        if (file == NULL) continue;
        size_t bytes = fread(text, 1, sizeof text, file);
        fclose(file);
        found = kt_str_find_text((kt_str){text, bytes}, want) >= 0;
    }
    return found;
}

typedef struct stopper {
    volatile int stop;
    bool saw_child;
} stopper;

static void stop_soon(void *ctx) {
    stopper *s = ctx;
    for (int i = 0; i < 2000 && !s->saw_child; i++) {
        s->saw_child = has_children();
        kt_os_sleep_us(1000);
    }
    kt_os_sleep_us(20000);
    s->stop = 1;
}

// Takes the compiler several seconds, if it is let.
static const char endless[] =
    "template <int a, int b> struct deep { static int f(int v) {\n"
    "    return deep<a - 1, b>::f(v + a) ^ deep<a - 1, b + 1>::f(v * b); } };\n"
    "template <int b> struct deep<0, b> { static int f(int v) { return v + b; } };\n" KERNEL
    "p[0] = deep<150, 0>::f(p[1]); }\n";

static void giving_up_leaves_nothing(void **state) {
    (void)state;
    stopper s = {0, false};
    kt_compiler *compiler = open_compiler(NULL, &s.stop, 2);
    kt_options options[2] = {options_for(89, "1"), options_for(90, "1")};
    kt_compile_request requests[2] = {{"ops/test/a.cu", kt_str_from(endless), &options[0]},
        {"ops/test/b.cu", kt_str_from(endless), &options[1]}};
    kt_compile_result results[2];
    kt_err err;
    kt_os_thread *thread = kt_os_thread_start(stop_soon, &s, 1 << 20);
    kt_status status = kt_compile(compiler, requests, 2, results, &err);
    kt_os_thread_join(thread);
    assert_true(s.saw_child);
    assert_int_equal(status, KT_EINTERRUPTED);
    assert_false(has_children());
    assert_int_equal(count_files(temporary), 0);
    kt_compiler_close(compiler);
}

// ---- modes, failures, counts

static void modes_are_in_the_image(void **state) {
    (void)state;
    int code;
    const char *checked = run_child("KOTARO_EMU=checked", "A=", &code);
    assert_int_equal(code, 0);
    assert_memory_equal(checked, "checked ", 8);
    assert_string_equal(run_child("KOTARO_EMU=", "A=", &code), checked);
    const char *plain = run_child("KOTARO_EMU=plain", "A=", &code);
    assert_int_equal(code, 0);
    assert_memory_equal(plain, "plain ", 6);
    assert_string_not_equal(strchr(checked, ' '), strchr(plain, ' '));
    const char *asan = run_child("KOTARO_EMU=asan", "A=", &code);
#if defined(__SANITIZE_ADDRESS__)
    if (code != 0) fail_msg("%s", asan);
    assert_memory_equal(asan, "asan ", 5);
#else
    assert_int_equal(code, 1);
    assert_non_null(strstr(asan, "not built with SAN=1"));
#endif
    const char *wrong = run_child("KOTARO_EMU=fast", "A=", &code);
    assert_int_equal(code, 1);
    assert_non_null(strstr(wrong, "none of checked, plain, asan"));
}

// Another device/module.h gives another stamp: the driver does not take old modules for new ones.
static void images_know_the_device_headers(void **state) {
    (void)state;
    const char *emu = kt_os_getenv("KOTARO_NVRTC");
    const char *copy = fresh_folder();
    kt_buf out = {0};
    const char *argv[] = {"cp", "-r", kt_arena_printf(&arena, "%s/.", emu), copy, NULL};
    assert_int_equal(kt_os_run(argv, &out), 0);
    kt_buf_deinit(&out);
    const char *variable = kt_arena_printf(&arena, "KOTARO_NVRTC=%s", copy);
    int code;
    const char *before = run_child(variable, "A=", &code);
    assert_int_equal(code, 0);
    assert_string_equal(run_child("B=", "A=", &code), before);
    test_put(&arena, copy, "device/another.h", "// nothing\n");
    assert_string_not_equal(run_child(variable, "A=", &code), before);
    assert_int_equal(code, 0);
}

// The n-th call fails, for every n until there is none left, and is told.
static void every_call_can_be_made_to_fail(void **state) {
    (void)state;
    enum { N_CALLS = 7 }; // version, create, compile, size of log, log, size of code, code
    int code;
    const char *text;
    for (int i = 1; i <= N_CALLS + 1; i++) {
        const char *rule =
            kt_arena_printf(&arena, "KOTARO_EMU_FAIL=cuInit:1,nvrtc:%d:out-of-memory", i);
        text = run_child(rule, "A=", &code);
        if (code != (i <= N_CALLS) || (strstr(text, "checked ") == text) == (i <= N_CALLS))
            fail_msg("call %d: exit status %d, %s", i, code, text);
    }
    text = run_child("KOTARO_EMU_FAIL=nvrtcCompileProgram:1", "A=", &code);
    assert_int_equal(code, 1);
    assert_non_null(strstr(text, "NVRTC_ERROR_INTERNAL_ERROR"));
    (void)run_child("KOTARO_EMU_FAIL=nvrtc:1:out-of-memory", "A=", &code);
    assert_int_equal(code, 1);
    text = run_child("KOTARO_EMU_FAIL=nvrtcCreateProgram:1:out-of-memory", "A=", &code);
    assert_non_null(strstr(text, "NVRTC_ERROR_OUT_OF_MEMORY"));
    (void)run_child("KOTARO_EMU_FAIL=nvrtcCompileProgram:2", "A=", &code);
    assert_int_equal(code, 0);
    text = run_child("KOTARO_EMU_FAIL=nvrtc:0", "A=", &code);
    assert_true(code != 0);
    assert_non_null(strstr(text, "KOTARO_EMU_FAIL has 'nvrtc:0'"));
}

static void calls_are_counted(void **state) {
    (void)state;
    const char *base = kt_path_join(&arena, fresh_folder(), "report");
    int code;
    (void)run_child(kt_arena_printf(&arena, "KOTARO_EMU_REPORT=%s", base), "A=", &code);
    assert_int_equal(code, 0);
    kt_str text;
    kt_err err;
    const char *path = kt_arena_printf(&arena, "%s.nvrtc", base);
    if (kt_file_read(&arena, path, 1 << 20, &text, &err) != KT_OK) fail_msg("%s", err.text);
    assert_true(kt_str_find_text(text, "nvrtcCompileProgram 1\n") >= 0);
    assert_true(kt_str_find_text(text, "nvrtcCreateProgram 1\n") >= 0);
    assert_true(kt_str_find_text(text, "nvrtcDestroyProgram 1\n") >= 0);
    assert_true(kt_str_find_text(text, "nvrtcGetPTX 0\n") >= 0);
}

// ---- the real kernels

enum { SEED = 1, N_SAMPLED = 24 };

// Some of the builds of the manifests' cases, at least one of each op, drawn by a seed.
static int draw_builds(const kt_op_check_build *builds, int n, kt_compile_request *out) {
    const char *text = kt_os_getenv("KOTARO_TEST_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : SEED;
    int n_out = 0;
    bool *taken = KT_NEW_ARRAY(&arena, bool, n);
    printf("# seed %llu, %d builds\n", (unsigned long long)seed, n);
    for (int i = 0; i < n; i++) { // one of each op: a random one of its run in the list
        int end = i + 1;
        while (end < n && builds[end].op == builds[i].op) end++;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        int at = i + (int)((seed >> 33) % (uint64_t)(end - i));
        taken[at] = true;
        out[n_out++] = builds[at].request;
        i = end - 1;
    }
    for (int i = 0; i < N_SAMPLED; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        int at = (int)((seed >> 33) % (uint64_t)n);
        if (!taken[at]) out[n_out++] = builds[at].request;
        taken[at] = true;
    }
    return n_out;
}

static void the_ops_compile(void **state) {
    (void)state;
    kt_diag diag;
    kt_err err;
    kt_diag_init(&diag, &arena);
    kt_registry *registry = kt_registry_open(&arena, "ops", NULL, 0, &diag);
    assert_non_null(registry);
    const kt_op_check_options options = {
        .registry = registry, .include = ".", .seed = SEED, .quick = true};
    kt_op_check *check;
    if (kt_op_check_open(&options, &check, &diag, &err) != KT_OK) fail_msg("%s", err.text);
    kt_op_check_build *builds;
    int n;
    if (kt_op_check_builds(check, &arena, 89, &builds, &n, &err) != KT_OK) fail_msg("%s", err.text);
    kt_compile_request *requests = KT_NEW_ARRAY(&arena, kt_compile_request, n);
    kt_compile_result *results = KT_NEW_ARRAY(&arena, kt_compile_result, n);
    int n_drawn = draw_builds(builds, n, requests);
    const kt_compiler_options compiler_options = {.headers = kt_device_headers, .no_cache = true};
    kt_compiler *compiler;
    assert_int_equal(kt_compiler_open(&compiler_options, &compiler, &err), KT_OK);
    double start = kt_os_now_ms();
    if (kt_compile(compiler, requests, n_drawn, results, &err) != KT_OK) fail_msg("%s", err.text);
    for (int i = 0; i < n_drawn; i++)
        if (results[i].log.n > 0)
            fail_msg("%s: %.*s", requests[i].name, KT_STR_ARG(results[i].log));
    printf("# %d compiled in %.1f s\n", n_drawn, (kt_os_now_ms() - start) / 1000);
    kt_compiler_close(compiler);
    kt_op_check_close(check);
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
    if (strcmp(argv[1], "--child") == 0) {
        int code = child(kernels);
        kt_arena_deinit(&arena);
        return code;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_compiles_for_every_architecture),
        cmocka_unit_test(a_cut_image_is_refused),
        cmocka_unit_test(the_same_bytes_each_time),
        cmocka_unit_test(a_kernel_runs_with_its_arguments),
        cmocka_unit_test(conditions_choose_kernels),
        cmocka_unit_test(the_cache_serves_the_next),
        cmocka_unit_test(mistakes_are_told_with_their_place),
        cmocka_unit_test(no_other_file_is_read),
        cmocka_unit_test(unknown_options_are_refused),
        cmocka_unit_test(several_threads_compile_at_once),
        cmocka_unit_test(giving_up_leaves_nothing),
        cmocka_unit_test(modes_are_in_the_image),
        cmocka_unit_test(images_know_the_device_headers),
        cmocka_unit_test(every_call_can_be_made_to_fail),
        cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(the_ops_compile),
    };
    return cmocka_run_group_tests_name("emu_nvrtc", tests, make_folder, leave_nothing);
}
