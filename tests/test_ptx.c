// CUDA source to loadable code: options, cubins, cache, packs, NVRTC.
//
// NVRTC has to be there: its absence is a failure. The program starts itself as "test_ptx --child
// FOLDER" to be a second process.
#include "ptx/compile.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "tests/util.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <setjmp.h> // cmocka.h needs these four first

#include <cmocka.h>

static const char two_kernels[] =
    "#include \"kt_test.cuh\"\n"
    "struct big { int a[40]; };\n"
    "extern \"C\" __device__ void cudaGraphSetConditional(unsigned long long h, unsigned v);\n"
    "extern \"C\" __global__ void __launch_bounds__(256) kt_first(const float *x, float *y, int "
    "n,\n"
    "    char c, double d, big b) {\n"
    "    __shared__ float s[256];\n"
    "    s[threadIdx.x] = x[threadIdx.x] * KT_SCALE;\n"
    "    __syncthreads();\n"
    "    y[n + c] = s[255 - threadIdx.x] + (float)d + b.a[n & 3];\n"
    "}\n"
    "extern \"C\" __global__ void kt_second(unsigned long long h, int *p) {\n"
    "    int q[64], r = 0;\n"
    "    for (int i = 0; i < 64; i++) q[i] = p[i] * KT_D;\n"
    "    for (int i = 0; i < p[64]; i++) r += q[p[i] & 63];\n"
    "    p[0] = r;\n"
    "    if (r == 5) cudaGraphSetConditional(h, 1);\n"
    "}\n";
static const char small_source[] =
    "extern \"C\" __global__ void kt_small(int *p) { p[0] = KT_D; }\n";

static const kt_device_header test_headers[] = {
    {"kt_test.cuh", "#define KT_SCALE 2.0f\n", 22},
    {"a_other.cuh", "#define KT_OTHER 1\n", 19},
    {NULL, NULL, 0},
};

static kt_arena arena;
static const char *folder; // scratch, ours alone
static int n_folders;

static const char *fresh_folder(void) {
    const char *path = kt_arena_printf(&arena, "%s/%d", folder, n_folders++);
    assert_true(kt_os_mkdirs(path));
    return path;
}

static int run(const char *a, const char *b, const char *c) {
    const char *argv[] = {a, b, c, NULL};
    return kt_os_run(argv, NULL);
}

static kt_options options_for(int arch, int d) {
    kt_options options;
    kt_err err;
    kt_options_init(&options, &arena, arch);
    assert_int_equal(
        kt_options_define(&options, "KT_D", kt_arena_printf(&arena, "%d", d), &err), KT_OK);
    return options;
}

static void need_nvrtc(void) {
    kt_nvrtc_place place;
    kt_err err;
    if (kt_nvrtc_find(&arena, &place, &err) != KT_OK) fail_msg("%s", err.text);
}

static kt_compiler *open_compiler(const char *cache, const char *const *packs, int n_packs) {
    const kt_compiler_options options = {.headers = test_headers,
        .cache_folder = cache,
        .no_cache = cache == NULL,
        .packs = packs,
        .n_packs = n_packs};
    kt_compiler *compiler = NULL;
    kt_err err;
    if (kt_compiler_open(&options, &compiler, &err) != KT_OK) fail_msg("%s", err.text);
    return compiler;
}

// One source, compiled without cache or pack. The result lives as long as the returned compiler.
static kt_compiler *compile_one(
    const char *source, int arch, kt_compile_result *out, kt_status want, kt_err *err) {
    kt_compiler *compiler = open_compiler(NULL, NULL, 0);
    kt_options options = options_for(arch, 3);
    const kt_compile_request request = {"ops/test/test.cu", kt_str_from(source), &options};
    kt_status status = kt_compile(compiler, &request, 1, out, err);
    if (status != want) fail_msg("%s: %s", kt_status_name(status), status ? err->text : "");
    return compiler;
}

// ---- options

static void options_are_sorted_and_replaced(void **state) {
    (void)state;
    kt_err err;
    kt_options o;
    kt_options_init(&o, &arena, 89);
    assert_int_equal(kt_options_define(&o, "KT_ZED", "1", &err), KT_OK);
    assert_int_equal(kt_options_define(&o, "KT_A", "-5", &err), KT_OK);
    assert_int_equal(kt_options_define(&o, "KT_M", "float", &err), KT_OK);
    assert_int_equal(kt_options_define(&o, "KT_ZED", "2", &err), KT_OK);
    int n = 0;
    const char **list = kt_options_list(&o, &arena, 86, &n);
    const char *const want[] = {"--gpu-architecture=sm_86", "-std=c++17", "-default-device",
        "--no-source-include", "-DKT_OP_ABI=1", "-DKT_A=-5", "-DKT_M=float", "-DKT_ZED=2"};
    assert_int_equal(n, (int)(sizeof want / sizeof want[0]));
    for (int i = 0; i < n; i++) assert_string_equal(list[i], want[i]);
}

static void options_refuse_other_names(void **state) {
    (void)state;
    kt_err err;
    kt_options o;
    kt_options_init(&o, &arena, 89);
    assert_int_equal(kt_options_define(&o, "NDEBUG", "1", &err), KT_EOP);
    assert_int_equal(kt_options_define(&o, "KT_", "1", &err), KT_EOP);
    assert_int_equal(kt_options_define(&o, "KT_A -include=/etc/passwd", "1", &err), KT_EOP);
    assert_int_equal(kt_options_define(&o, "KT_A", "1\n#include", &err), KT_EOP);
    assert_int_equal(kt_options_define(&o, "KT_OP_ABI", "9", &err), KT_EOP);
    assert_int_equal(o.macros.n, 0);
}

// ---- cubins

static void check_first(const kt_cubin *cubin) {
    static const kt_cubin_param want[] = {{0, 8}, {8, 8}, {16, 4}, {20, 1}, {24, 8}, {32, 160}};
    const kt_cubin_kernel *k = kt_cubin_find(cubin, "kt_first");
    assert_non_null(k);
    assert_int_equal(k->n_params, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(k->params[i].offset, want[i].offset);
        assert_int_equal(k->params[i].size, want[i].size);
    }
    assert_int_equal(k->shared_bytes, 1024);
    assert_int_equal(k->max_threads, 256);
    assert_int_equal(k->frame_bytes, 0);
    assert_int_equal(k->spill_bytes, 0);
    assert_in_range(k->registers, 6, 64);
    assert_in_range(k->code_bytes, 100, 100000);
}

static void cubin_tells_what_the_compiler_told(void **state) {
    (void)state;
    need_nvrtc();
    static const int archs[] = {80, 86, 89, 90, 120};
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        kt_compile_result result;
        kt_err err;
        kt_compiler *compiler = compile_one(two_kernels, archs[i], &result, KT_OK, &err);
        assert_int_equal(result.from, KT_COMPILE_FROM_NVRTC);
        assert_int_equal(result.info->sm, archs[i]);
        assert_int_equal(result.info->n_kernels, 2);
        check_first(result.info);
        const kt_cubin_kernel *k = kt_cubin_find(result.info, "kt_second");
        assert_int_equal(k->n_params, 2);
        assert_int_equal(k->params[1].offset, 8);
        assert_int_equal(k->frame_bytes, 256); // int q[64]
        assert_int_equal(k->max_threads, 0);
        assert_int_equal(k->shared_bytes, 0);
        assert_int_equal(result.info->n_externals, 1);
        assert_string_equal(result.info->externals[0], "cudaGraphSetConditional");
        assert_null(kt_cubin_find(result.info, "kt_third"));
        kt_compiler_close(compiler);
    }
}

// The reader may accept a damaged file, but it never leaves the bytes it was given (the sanitizers
// watch).
static void cubin_survives_damage(void **state) {
    (void)state;
    need_nvrtc();
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = compile_one(two_kernels, 89, &result, KT_OK, &err);
    kt_str good = result.cubin;
    int n_accepted = 0;
    for (size_t n = 0; n < good.n; n++) {
        kt_arena tmp = {0};
        kt_cubin cubin;
        char *exact = malloc(n + 1); // so that reading past the end is seen
        assert_non_null(exact);
        char *start = exact + 1; // ends where the block ends
        memcpy(start, good.at, n);
        n_accepted += kt_cubin_read(&tmp, start, n, &cubin, &err) == KT_OK;
        free(exact);
        kt_arena_deinit(&tmp);
    }
    assert_int_equal(n_accepted, 0); // the section table is last in what NVRTC writes
    char *bytes = malloc(good.n + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < good.n; i++) {
        kt_arena tmp = {0};
        kt_cubin cubin;
        memcpy(bytes, good.at, good.n);
        bytes[i] = (char)(bytes[i] ^ (i % 3 == 0 ? 0xff : 1 << i % 8));
        kt_status status = kt_cubin_read(&tmp, bytes, good.n, &cubin, &err);
        assert_true(status == KT_OK || status == KT_EFORMAT);
        kt_arena_deinit(&tmp);
    }
    free(bytes);
    kt_compiler_close(compiler);
}

static void cubin_runs_on_equal_major_and_higher_minor(void **state) {
    (void)state;
    static const int rows[][3] = {{80, 86, 1}, {80, 89, 1}, {86, 89, 1}, {89, 86, 0}, {89, 90, 0},
        {90, 90, 1}, {90, 120, 0}, {120, 121, 1}, {87, 89, 0}, {87, 87, 1}, {86, 87, 1},
        {100, 103, 1}, {100, 120, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(kt_cubin_runs_on(rows[i][0], rows[i][1]), rows[i][2]);
}

// ---- key

static void key_names_everything(void **state) {
    (void)state;
    const char *const options[] = {"-a", "-b"};
    const kt_nvrtc_id tool = {12, 8, 100, 10};
    const kt_cache_inputs base = {KT_STR("source"), test_headers, options, 2, &tool};
    kt_hash keys[16];
    int n = 0;
    kt_cache_inputs other = base;
    keys[n++] = kt_cache_key(&base);
    other.source = KT_STR("sourcf");
    keys[n++] = kt_cache_key(&other);
    other = base;
    other.headers = NULL;
    keys[n++] = kt_cache_key(&other);
    const kt_device_header changed[] = {
        test_headers[0], {"a_other.cuh", "#define KT_OTHER 2\n", 19}, {0}};
    other.headers = changed;
    keys[n++] = kt_cache_key(&other);
    other = base;
    const char *const moved[] = {"-a-", "b"}; // the same bytes, divided elsewhere
    other.options = moved;
    keys[n++] = kt_cache_key(&other);
    const char *const turned[] = {"-b", "-a"};
    other.options = turned;
    keys[n++] = kt_cache_key(&other);
    other = base;
    other.tool = NULL;
    keys[n++] = kt_cache_key(&other);
    const kt_nvrtc_id tools[] = {
        {13, 8, 100, 10}, {12, 9, 100, 10}, {12, 8, 101, 10}, {12, 8, 100, 11}};
    for (size_t i = 0; i < 4; i++) {
        other.tool = &tools[i];
        keys[n++] = kt_cache_key(&other);
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) assert_memory_not_equal(&keys[i], &keys[j], sizeof(kt_hash));
    const kt_device_header turned_headers[] = {test_headers[1], test_headers[0], {0}};
    other = base;
    other.headers = turned_headers; // their order says nothing
    kt_hash same = kt_cache_key(&other);
    assert_memory_equal(&same, &keys[0], sizeof same);
}

// ---- cache

static kt_hash key_number(int i) {
    return kt_hash_bytes(&i, sizeof i);
}

static const char *path_of(const kt_cache *cache, kt_hash key) {
    char hex[65];
    kt_hash_hex(key, hex);
    return kt_arena_printf(&arena, "%s/%s.ktc", kt_cache_folder(cache), hex);
}

static void cache_gives_back_what_it_got(void **state) {
    (void)state;
    need_nvrtc();
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = compile_one(two_kernels, 89, &result, KT_OK, &err);
    kt_cache *cache = kt_cache_open(fresh_folder());
    assert_null(kt_cache_why_off(cache));
    kt_cache_entry entry = {result.cubin, *result.info}, got;
    kt_cubin_kernel kernels[2] = {result.info->kernels[0], result.info->kernels[1]};
    for (int i = 0; i < 2; i++)
        if (strcmp(kernels[i].name, "kt_second") == 0) kernels[i].spill_bytes = 123;
    entry.info.kernels = kernels;
    assert_false(kt_cache_get(cache, key_number(1), 89, &arena, &got));
    kt_cache_put(cache, key_number(1), &entry);
    assert_true(kt_cache_get(cache, key_number(1), 89, &arena, &got));
    assert_int_equal(got.cubin.n, entry.cubin.n);
    assert_memory_equal(got.cubin.at, entry.cubin.at, entry.cubin.n);
    assert_int_equal(kt_cubin_find(&got.info, "kt_second")->spill_bytes, 123);
    check_first(&got.info);
    assert_false(kt_cache_get(cache, key_number(1), 90, &arena, &got)); // another architecture
    assert_false(kt_cache_get(cache, key_number(2), 89, &arena, &got));
    kt_cache_put(cache, key_number(1), &entry); // over itself
    assert_int_equal(kt_cache_get_info(cache).n_files, 1);
    assert_int_equal(kt_cache_get_info(cache).n_other, 0);
    kt_cache_close(cache);
    kt_compiler_close(compiler);
}

static void count_bad(void *ctx, const char *file, const char *why) {
    (void)file;
    assert_true(strlen(why) > 0);
    ++*(int *)ctx;
}

// Any change of any byte, any length, another name: a miss, and never anything worse.
static void cache_takes_damage_for_a_miss(void **state) {
    (void)state;
    need_nvrtc();
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = compile_one(small_source, 89, &result, KT_OK, &err);
    kt_cache *cache = kt_cache_open(fresh_folder());
    const kt_cache_entry entry = {result.cubin, *result.info};
    kt_hash key = key_number(7);
    kt_cache_put(cache, key, &entry);
    const char *path = path_of(cache, key);
    kt_str good;
    assert_int_equal(kt_file_read(&arena, path, 1 << 20, &good, &err), KT_OK);
    char *bytes = malloc(good.n + 1);
    assert_non_null(bytes);
    kt_log_set_level(KT_LOG_WARN);
    for (size_t i = 0; i < good.n; i++) {
        kt_arena tmp = {0};
        kt_cache_entry got;
        memcpy(bytes, good.at, good.n);
        bytes[i] = (char)(bytes[i] ^ 1 << i % 8);
        test_write(path, bytes, good.n);
        if (kt_cache_get(cache, key, 89, &tmp, &got)) fail_msg("byte %zu may change", i);
        kt_arena_deinit(&tmp);
    }
    for (size_t n = 0; n <= good.n + 1; n++) {
        kt_arena tmp = {0};
        kt_cache_entry got;
        bool whole = n == good.n;
        if (n % 7 != 0 && n > 200 && n + 200 < good.n) continue;
        memcpy(bytes, good.at, good.n);
        bytes[good.n] = 0;
        test_write(path, bytes, n);
        if (kt_cache_get(cache, key, 89, &tmp, &got) != whole) fail_msg("length %zu", n);
        kt_arena_deinit(&tmp);
    }
    free(bytes);
    test_write(path, good.at, good.n);
    const char *renamed = path_of(cache, key_number(8));
    test_write(renamed, good.at, good.n);
    kt_cache_entry got;
    assert_true(kt_cache_get(cache, key, 89, &arena, &got));
    assert_false(kt_cache_get(cache, key_number(8), 89, &arena, &got));
    int n_bad = 0;
    assert_int_equal(kt_cache_verify(cache, false, count_bad, &n_bad).n_bad, 1);
    assert_int_equal(n_bad, 1);
    assert_int_equal(kt_cache_verify(cache, true, NULL, NULL).n_bad, 1);
    assert_int_equal(kt_cache_verify(cache, true, NULL, NULL).n_bad, 0);
    assert_int_equal(kt_cache_clear(cache), 1);
    assert_int_equal(kt_cache_get_info(cache).n_files, 0);
    kt_cache_close(cache);
    kt_compiler_close(compiler);
}

static void expect_off(const char *path) {
    kt_cache *cache = kt_cache_open(path);
    kt_cache_entry got;
    if (kt_cache_why_off(cache) == NULL) fail_msg("'%s' is used as a cache", path);
    assert_null(kt_cache_folder(cache));
    assert_false(kt_cache_get(cache, key_number(1), 89, &arena, &got));
    assert_int_equal(kt_cache_get_info(cache).n_files, 0);
    assert_int_equal(kt_cache_clear(cache), 0);
    kt_cache_close(cache);
}

static void cache_is_off_where_it_is_not_private(void **state) {
    (void)state;
    expect_off("/proc/kotaro"); // cannot be made
    const char *file = kt_arena_printf(&arena, "%s/file", fresh_folder());
    expect_off(test_write(file, "x", 1));
    const char *open = fresh_folder();
    assert_int_equal(run("chmod", "0777", open), 0);
    expect_off(open);
    const char *inner = fresh_folder(); // an open level below a private one
    kt_cache_close(kt_cache_open(inner));
    assert_int_equal(run("chmod", "0770", kt_arena_printf(&arena, "%s/cubin/v1", inner)), 0);
    expect_off(inner);
    const char *foreign = fresh_folder();
    if (run("chown", "65534", foreign) == 0) expect_off(foreign); // as root
    const char *real = fresh_folder();
    const char *link = kt_arena_printf(&arena, "%s/link", folder);
    const char *argv[] = {"ln", "-s", real, link, NULL};
    assert_int_equal(kt_os_run(argv, NULL), 0);
    expect_off(link);
}

static void cache_forgets_the_oldest(void **state) {
    (void)state;
    need_nvrtc();
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = compile_one(small_source, 89, &result, KT_OK, &err);
    kt_cache *cache = kt_cache_open(fresh_folder());
    kt_cache_entry entry = {result.cubin, *result.info}, got;
    for (int i = 0; i < 6; i++) {
        kt_cache_put(cache, key_number(i), &entry);
        if (i == 5) break; // one stays young
        const char *when = kt_arena_printf(&arena, "--date=%d hours ago", 10 - i);
        assert_int_equal(run("touch", when, path_of(cache, key_number(i))), 0);
    }
    const char *left = kt_arena_printf(&arena, "%s/x.0123.tmp", kt_cache_folder(cache));
    assert_int_equal(run("touch", "--date=3 days ago", left), 0);
    assert_int_equal(kt_cache_get_info(cache).n_other, 1);
    assert_int_equal(kt_cache_evict(cache, 4, INT64_MAX, false), 2);
    assert_int_equal(kt_cache_get_info(cache).n_other, 0);
    assert_false(kt_cache_get(cache, key_number(0), 89, &arena, &got));
    assert_false(kt_cache_get(cache, key_number(1), 89, &arena, &got));
    assert_true(kt_cache_get(cache, key_number(2), 89, &arena, &got));
    assert_int_equal(kt_cache_evict(cache, 0, 0, false), 3); // all but the young one
    assert_true(kt_cache_get(cache, key_number(5), 89, &arena, &got));
    assert_int_equal(kt_cache_evict(cache, 0, 0, true), 1);
    assert_int_equal(kt_cache_get_info(cache).n_files, 0);
    kt_cache_close(cache);
    kt_compiler_close(compiler);
}

static void cache_notes_use_once_a_day(void **state) {
    (void)state;
    need_nvrtc();
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = compile_one(small_source, 89, &result, KT_OK, &err);
    kt_cache *cache = kt_cache_open(fresh_folder());
    kt_cache_entry entry = {result.cubin, *result.info}, got;
    const char *path = path_of(cache, key_number(1));
    kt_cache_put(cache, key_number(1), &entry);
    assert_int_equal(run("touch", "--date=5 hours ago", path), 0);
    int64_t before = kt_os_stat(path).modified_s;
    assert_true(kt_cache_get(cache, key_number(1), 89, &arena, &got));
    assert_int_equal(kt_os_stat(path).modified_s, before);
    assert_int_equal(run("touch", "--date=2 days ago", path), 0);
    assert_true(kt_cache_get(cache, key_number(1), 89, &arena, &got));
    assert_true(kt_os_stat(path).modified_s > before);
    kt_cache_close(cache);
    kt_compiler_close(compiler);
}

// ---- packs

static kt_pack_item item_for(kt_compiler **compiler, const char *source, int arch) {
    kt_compile_result result;
    kt_err err;
    *compiler = compile_one(source, arch, &result, KT_OK, &err);
    kt_options options = options_for(arch, 3);
    kt_cache_inputs inputs = {.source = kt_str_from(source), .headers = test_headers};
    inputs.options = kt_options_list(&options, &arena, arch, &inputs.n_options);
    return (kt_pack_item){kt_cache_key(&inputs), {result.cubin, *result.info}};
}

static int found_sm(const kt_pack *pack, const char *source, int arch, int d) {
    kt_options options = options_for(arch, d);
    kt_cache_entry entry;
    if (!kt_pack_find(pack, kt_str_from(source), test_headers, &options, &arena, &entry)) return 0;
    check_first(&entry.info);
    return entry.info.sm;
}

static void pack_serves_exact_and_lower_minor(void **state) {
    (void)state;
    need_nvrtc();
    static const int archs[] = {80, 86, 90};
    kt_compiler *compilers[4];
    kt_pack_item items[4];
    kt_err err;
    for (int i = 0; i < 3; i++) items[i] = item_for(&compilers[i], two_kernels, archs[i]);
    items[3] = items[0]; // twice the same
    compilers[3] = NULL;
    const char *path = kt_arena_printf(&arena, "%s/all.ktpack", fresh_folder());
    assert_int_equal(kt_pack_write(path, "12.8.93", items, 4, &err), KT_OK);
    kt_pack *pack;
    assert_int_equal(kt_pack_open(path, &pack, &err), KT_OK);
    assert_int_equal(kt_pack_count(pack), 3);
    assert_int_equal(found_sm(pack, two_kernels, 80, 3), 80);
    assert_int_equal(found_sm(pack, two_kernels, 86, 3), 86);
    assert_int_equal(found_sm(pack, two_kernels, 89, 3), 86); // lower minor
    assert_int_equal(found_sm(pack, two_kernels, 90, 3), 90);
    assert_int_equal(found_sm(pack, two_kernels, 120, 3), 0);
    assert_int_equal(found_sm(pack, two_kernels, 89, 4), 0);  // another build
    assert_int_equal(found_sm(pack, small_source, 89, 3), 0); // another source
    kt_pack_close(pack);
    // The same through a folder, and through the compiler, which then loads nothing.
    const char *in = kt_path_folder(&arena, path);
    kt_compiler *compiler = open_compiler(NULL, &in, 1);
    kt_options options = options_for(89, 3);
    const kt_compile_request request = {"ops/test/test.cu", kt_str_from(two_kernels), &options};
    kt_compile_result result;
    assert_int_equal(kt_compile(compiler, &request, 1, &result, &err), KT_OK);
    assert_int_equal(result.from, KT_COMPILE_FROM_PACK);
    assert_int_equal(result.info->sm, 86);
    assert_false(kt_compiler_nvrtc_loaded(compiler));
    kt_compiler_close(compiler);
    for (int i = 0; i < 4; i++) kt_compiler_close(compilers[i]);
}

static void pack_refuses_damage(void **state) {
    (void)state;
    need_nvrtc();
    kt_compiler *compiler;
    const kt_pack_item item = item_for(&compiler, small_source, 89);
    const char *path = kt_arena_printf(&arena, "%s/one.ktpack", fresh_folder());
    kt_err err;
    assert_int_equal(kt_pack_write(path, "12.8", &item, 1, &err), KT_OK);
    kt_str good;
    assert_int_equal(kt_file_read(&arena, path, 1 << 20, &good, &err), KT_OK);
    char *bytes = malloc(good.n);
    assert_non_null(bytes);
    kt_log_set_level(KT_LOG_QUIET);
    for (size_t i = 0; i < good.n; i++) {
        kt_pack *pack = NULL;
        memcpy(bytes, good.at, good.n);
        bytes[i] = (char)(bytes[i] ^ 1 << i % 8);
        test_write(path, bytes, good.n);
        bool tool = i >= 16 && i < 48; // a text for people, nothing hangs on it
        if (kt_pack_open(path, &pack, &err) == KT_OK && !tool)
            if (found_sm(pack, small_source, 89, 3) != 0) fail_msg("byte %zu may change", i);
        kt_pack_close(pack);
    }
    for (size_t n = 0; n < good.n; n += n < 200 ? 1 : 13) {
        kt_pack *pack = NULL;
        test_write(path, good.at, n);
        if (kt_pack_open(path, &pack, &err) == KT_OK)
            if (found_sm(pack, small_source, 89, 3) != 0) fail_msg("length %zu", n);
        kt_pack_close(pack);
    }
    kt_log_set_level(KT_LOG_INFO);
    free(bytes);
    kt_compiler_close(compiler);
}

// ---- compiling

static void compile_says_where_the_mistake_is(void **state) {
    (void)state;
    need_nvrtc();
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler =
        compile_one("\n\nextern \"C\" __global__ void k(int *p) { p[0] = missing; }\n", 89, &result,
            KT_ECOMPILE, &err);
    assert_non_null(strstr(err.text, "ops/test/test.cu(3)"));
    assert_non_null(strstr(err.text, "missing"));
    assert_true(result.log.n > 0);
    assert_null(result.cubin.at);
    kt_compiler_close(compiler);
    // The assembler's line is one of the PTX, which the message shows.
    compiler =
        compile_one("extern \"C\" __global__ void k(int *p) { asm volatile(\"nosuch.b32 %0;\""
                    " :: \"r\"(p[0])); }\n",
            89, &result, KT_ECOMPILE, &err);
    assert_non_null(strstr(err.text, "of the PTX: "));
    assert_non_null(strstr(strstr(err.text, "of the PTX: "), "nosuch.b32"));
    kt_compiler_close(compiler);
}

static void compile_reads_no_file(void **state) {
    (void)state;
    need_nvrtc();
    kt_compile_result result;
    kt_err err;
    const char *name = kt_arena_printf(&arena, "kt_test_%d.cuh", kt_os_pid());
    test_write(name, "#define KT_FROM_DISK 1\n", 23); // in the current folder
    const char *source = kt_arena_printf(
        &arena, "#include \"%s\"\nextern \"C\" __global__ void k(int *p) { p[0] = 1; }\n", name);
    kt_compiler *compiler = compile_one(source, 89, &result, KT_ECOMPILE, &err);
    assert_true(kt_os_remove(name));
    assert_non_null(strstr(err.text, name));
    kt_compiler_close(compiler);
}

static void compile_gives_the_same_bytes(void **state) {
    (void)state;
    need_nvrtc();
    static const int archs[] = {89, 90};
    for (int i = 0; i < 2; i++) {
        kt_compile_result a, b;
        kt_err err;
        kt_compiler *one = compile_one(two_kernels, archs[i], &a, KT_OK, &err);
        kt_compiler *two = compile_one(two_kernels, archs[i], &b, KT_OK, &err);
        assert_int_equal(a.cubin.n, b.cubin.n);
        assert_memory_equal(a.cubin.at, b.cubin.at, a.cubin.n);
        kt_compiler_close(one);
        kt_compiler_close(two);
    }
}

static void compile_reports_spills_and_warnings(void **state) {
    (void)state;
    need_nvrtc();
    static const char source[] =
        "extern \"C\" __global__ void __launch_bounds__(1024) k(const float *x, float *y) {\n"
        "    float a[96]; int unused;\n"
        "#pragma unroll\n"
        "    for (int i = 0; i < 96; i++) a[i] = x[i * 1024 + threadIdx.x];\n"
        "    __syncthreads();\n"
        "#pragma unroll\n"
        "    for (int i = 0; i < 96; i++) y[threadIdx.x * 96 + i] = a[i] + a[i * 7 % 96] * 3;\n"
        "}\n";
    kt_compile_result result;
    kt_err err;
    kt_compiler *compiler = compile_one(source, 89, &result, KT_OK, &err);
    assert_true(result.info->kernels[0].spill_bytes > 0);
    char *log = kt_str_z(&arena, result.log);
    assert_non_null(strstr(log, "unused"));
    assert_non_null(strstr(log, "pill"));
    assert_null(strstr(log, "ptxas info"));
    kt_compiler_close(compiler);
    compiler = compile_one(two_kernels, 89, &result, KT_OK, &err);
    assert_int_equal(result.log.n, 0); // nothing to warn of
    kt_compiler_close(compiler);
}

static void usage_reads_both_wordings(void **state) {
    (void)state;
    kt_nvrtc_usage usage;
    static const char log[] =
        "ptxas info    : Compiling entry function 'kt_ab' for 'sm_89'\n"
        "ptxas info    : Function properties for helper\n"
        "    8 bytes stack frame, 9 bytes spill stores, 9 bytes spill loads\n"
        "ptxas info    : Function properties for kt_ab\n"
        "    16 bytes stack frame, 24 bytes spill stores, 32 bytes spill loads\n"
        "ptxas info    : Used 41 registers, used 1 barriers, 1024 bytes smem, 544 bytes cmem[0]\n"
        "ptxas info    : Compiling entry function 'kt_a' for 'sm_89'\n"
        "ptxas info    : Function properties for kt_a\n"
        "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 10 registers, used 0 barriers\n";
    assert_true(kt_nvrtc_read_usage(kt_str_from(log), KT_STR("kt_ab"), &usage));
    assert_int_equal(usage.stack_bytes, 16);
    assert_int_equal(usage.spill_store_bytes, 24);
    assert_int_equal(usage.spill_load_bytes, 32);
    assert_int_equal(usage.registers, 41);
    assert_int_equal(usage.shared_bytes, 1024);
    assert_true(kt_nvrtc_read_usage(kt_str_from(log), KT_STR("kt_a"), &usage));
    assert_int_equal(usage.registers, 10);
    assert_int_equal(usage.spill_load_bytes, 0);
    assert_false(kt_nvrtc_read_usage(kt_str_from(log), KT_STR("kt_abc"), &usage));
    assert_false(kt_nvrtc_read_usage(
        KT_STR("ptxas info    : Compiling entry function '"), KT_STR("kt_a"), &usage));
}

typedef struct seen {
    int n_calls, n_done, n_compiled, n;
    bool wrong;
} seen;

static void count_progress(void *ctx, const kt_compile_progress *progress) {
    seen *s = ctx;
    s->n_calls++; // on a compiling thread: nothing may fail here
    s->wrong = s->wrong || progress->n_done != s->n_done + 1 || progress->name == NULL;
    s->n_done = progress->n_done;
    s->n_compiled = progress->n_compiled;
    s->n = progress->n;
}

static void compile_does_equal_requests_once(void **state) {
    (void)state;
    need_nvrtc();
    seen told = {0};
    const char *cache = fresh_folder();
    const kt_compiler_options compiler_options = {.headers = test_headers,
        .cache_folder = cache,
        .n_threads = 3,
        .progress = count_progress,
        .progress_ctx = &told};
    kt_compiler *compiler;
    kt_err err;
    assert_int_equal(kt_compiler_open(&compiler_options, &compiler, &err), KT_OK);
    kt_options o[5];
    kt_compile_request requests[5];
    for (int i = 0; i < 5; i++) {
        o[i] = options_for(89, i % 3); // 0 1 2 0 1
        requests[i] = (kt_compile_request){"ops/small/small.cu", kt_str_from(small_source), &o[i]};
    }
    kt_compile_result results[5];
    assert_int_equal(kt_compile(compiler, requests, 5, results, &err), KT_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(results[i].from, i < 3 ? KT_COMPILE_FROM_NVRTC : KT_COMPILE_FROM_BEFORE);
        assert_ptr_equal(results[i].cubin.at, results[i % 3].cubin.at);
    }
    assert_memory_not_equal(results[0].cubin.at, results[1].cubin.at, results[0].cubin.n);
    assert_int_equal(told.n_calls, 3);
    assert_int_equal(told.n_compiled, 3);
    assert_int_equal(told.n, 3);
    assert_false(told.wrong);
    assert_int_equal(kt_compiler_count(compiler, KT_COMPILE_FROM_NVRTC), 3);
    assert_int_equal(kt_compile(compiler, requests, 1, results, &err), KT_OK);
    assert_int_equal(results[0].from, KT_COMPILE_FROM_BEFORE);
    kt_compile_result again;
    assert_int_equal(kt_compile_again(compiler, &requests[0], &again, &err), KT_OK);
    assert_int_equal(again.from, KT_COMPILE_FROM_NVRTC);
    assert_ptr_not_equal(again.cubin.at, results[0].cubin.at);
    assert_memory_equal(again.cubin.at, results[0].cubin.at, again.cubin.n);
    kt_compiler_close(compiler);
    compiler = open_compiler(cache, NULL, 0);
    assert_int_equal(kt_compile(compiler, requests, 5, results, &err), KT_OK);
    assert_int_equal(kt_compiler_count(compiler, KT_COMPILE_FROM_CACHE), 3);
    assert_false(kt_compiler_nvrtc_loaded(compiler));
    kt_compiler_close(compiler);
}

static void compile_repairs_a_damaged_entry(void **state) {
    (void)state;
    need_nvrtc();
    const char *cache = fresh_folder();
    kt_options options = options_for(89, 3);
    const kt_compile_request request = {"ops/test/test.cu", kt_str_from(small_source), &options};
    const int want[] = {KT_COMPILE_FROM_NVRTC, KT_COMPILE_FROM_NVRTC, KT_COMPILE_FROM_CACHE};
    for (int i = 0; i < 3; i++) {
        kt_compiler *compiler = open_compiler(cache, NULL, 0);
        kt_compile_result result;
        kt_err err;
        assert_int_equal(kt_compile(compiler, &request, 1, &result, &err), KT_OK);
        assert_int_equal(result.from, want[i]);
        const char *in = kt_cache_folder(kt_compiler_cache(compiler));
        int n = 0;
        const kt_str *names = kt_os_list(&arena, in, &n);
        for (int f = 0; f < n && i == 0; f++)
            if (kt_str_ends(names[f], KT_STR(".ktc")))
                test_write(kt_path_join(&arena, in, kt_str_z(&arena, names[f])), "damaged", 7);
        kt_compiler_close(compiler);
    }
}

static void compile_stops_when_asked(void **state) {
    (void)state;
    need_nvrtc();
    volatile int stop = 1;
    const kt_compiler_options options = {.headers = test_headers, .no_cache = true, .stop = &stop};
    kt_compiler *compiler;
    kt_err err;
    assert_int_equal(kt_compiler_open(&options, &compiler, &err), KT_OK);
    kt_options o = options_for(89, 3);
    const kt_compile_request request = {"ops/test/test.cu", kt_str_from(small_source), &o};
    kt_compile_result result;
    assert_int_equal(kt_compile(compiler, &request, 1, &result, &err), KT_EINTERRUPTED);
    assert_null(result.cubin.at);
    stop = 0;
    assert_int_equal(kt_compile(compiler, &request, 1, &result, &err), KT_OK);
    kt_compiler_close(compiler);
}

// ---- another process

// Compiles two builds through the cache in `cache`; prints where they came from. Exit status 0, or
// 1 with the error.
static int child(const char *cache) {
    kt_compiler *compiler = open_compiler(cache, NULL, 0);
    kt_options a = options_for(89, 3), b = options_for(90, 3);
    const kt_compile_request requests[] = {{"ops/test/test.cu", kt_str_from(two_kernels), &a},
        {"ops/test/test.cu", kt_str_from(two_kernels), &b}};
    kt_compile_result results[2];
    kt_err err;
    kt_status status = kt_compile(compiler, requests, 2, results, &err);
    if (status != KT_OK)
        (void)printf("%s\n", err.text);
    else
        (void)printf("from %s %s, loaded %d\n", kt_compile_from_name(results[0].from),
            kt_compile_from_name(results[1].from), kt_compiler_nvrtc_loaded(compiler));
    kt_compiler_close(compiler);
    return status == KT_OK ? 0 : 1;
}

typedef struct started {
    const char *cache, *nvrtc; // nvrtc: KOTARO_NVRTC for it
    kt_buf out;
    int code;
} started;

static void start_child(void *ctx) {
    started *s = ctx;
    kt_arena tmp = {0};
    const char *self = kt_os_executable(&tmp);
    const char *set =
        s->nvrtc == NULL ? "KOTARO_TEST=1" : kt_arena_printf(&tmp, "KOTARO_NVRTC=%s", s->nvrtc);
    const char *argv[] = {"env", set, self, "--child", s->cache, NULL};
    s->code = kt_os_run(argv, &s->out);
    kt_arena_deinit(&tmp);
}

static void two_processes_share_a_cache(void **state) {
    (void)state;
    need_nvrtc();
    const char *cache = fresh_folder();
    started s[2] = {{.cache = cache}, {.cache = cache}};
    kt_os_thread *threads[2];
    for (int i = 0; i < 2; i++) threads[i] = kt_os_thread_start(start_child, &s[i], 1 << 20);
    for (int i = 0; i < 2; i++) kt_os_thread_join(threads[i]);
    for (int i = 0; i < 2; i++)
        if (s[i].code != 0) fail_msg("%s", s[i].out.at);
    kt_cache *opened = kt_cache_open(cache);
    assert_int_equal(kt_cache_verify(opened, false, NULL, NULL).n_bad, 0);
    assert_int_equal(kt_cache_get_info(opened).n_files, 2);
    assert_int_equal(kt_cache_get_info(opened).n_other, 0);
    kt_cache_close(opened);
    for (int i = 0; i < 2; i++) kt_buf_deinit(&s[i].out);
}

static void cached_kernels_need_no_compiler(void **state) {
    (void)state;
    need_nvrtc();
    const char *cache = fresh_folder();
    started first = {.cache = cache};
    start_child(&first);
    assert_int_equal(first.code, 0);
    assert_string_equal(first.out.at, "from nvrtc nvrtc, loaded 1\n");
    started second = {.cache = cache, .nvrtc = "/nonexistent"};
    start_child(&second);
    if (second.code != 0) fail_msg("%s", second.out.at);
    assert_string_equal(second.out.at, "from cache cache, loaded 0\n");
    started third = {.cache = fresh_folder(), .nvrtc = "/nonexistent"};
    start_child(&third);
    assert_int_equal(third.code, 1);
    assert_non_null(strstr(third.out.at, "KOTARO_NVRTC is '/nonexistent'"));
    kt_buf_deinit(&first.out);
    kt_buf_deinit(&second.out);
    kt_buf_deinit(&third.out);
}

static int make_folder(void **state) {
    (void)state;
    folder = test_folder(&arena);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    test_remove(folder);
    kt_arena_deinit(&arena);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--child") == 0) {
        int code = child(argv[2]);
        kt_arena_deinit(&arena);
        return code;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_sorted_and_replaced),
        cmocka_unit_test(options_refuse_other_names),
        cmocka_unit_test(cubin_tells_what_the_compiler_told),
        cmocka_unit_test(cubin_survives_damage),
        cmocka_unit_test(cubin_runs_on_equal_major_and_higher_minor),
        cmocka_unit_test(key_names_everything),
        cmocka_unit_test(cache_gives_back_what_it_got),
        cmocka_unit_test(cache_takes_damage_for_a_miss),
        cmocka_unit_test(cache_is_off_where_it_is_not_private),
        cmocka_unit_test(cache_forgets_the_oldest),
        cmocka_unit_test(cache_notes_use_once_a_day),
        cmocka_unit_test(pack_serves_exact_and_lower_minor),
        cmocka_unit_test(pack_refuses_damage),
        cmocka_unit_test(compile_says_where_the_mistake_is),
        cmocka_unit_test(compile_reads_no_file),
        cmocka_unit_test(compile_gives_the_same_bytes),
        cmocka_unit_test(compile_reports_spills_and_warnings),
        cmocka_unit_test(usage_reads_both_wordings),
        cmocka_unit_test(compile_does_equal_requests_once),
        cmocka_unit_test(compile_repairs_a_damaged_entry),
        cmocka_unit_test(compile_stops_when_asked),
        cmocka_unit_test(two_processes_share_a_cache),
        cmocka_unit_test(cached_kernels_need_no_compiler),
    };
    return cmocka_run_group_tests_name("ptx", tests, make_folder, remove_folder);
}
