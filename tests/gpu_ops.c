// Every op's kernels on a GPU, or on the stand-in for one, against the C implementations: the whole
// of `kotaro ops check`, one test an op. On the stand-in each kernel may touch its tensors only.
//
// Environment: KOTARO_SEED repeats a run; KOTARO_QUICK=1 samples build dims and choices; KOTARO_OPS
// names the ops (separated by spaces); KOTARO_SHARD=i/n takes the i-th of n parts of them, about
// equal in time; KOTARO_FIRST=1 stops an op at its first failure and compiles each kernel when a
// test needs it; KOTARO_OPS_TABLE=file gets a line for each variant: tests, errors as parts of the
// tolerances.
#include "tests/emu_watch.h"

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
static int n_tests, n_kernels;
static FILE *table;

static void print_worst(FILE *to, const double *worst) {
    for (int t = 0; t < KT_DTYPE_COUNT; t++)
        if (worst[t] > 0) fprintf(to, ", %s %.2g", kt_dtype_name((kt_dtype)t), worst[t]);
}

static void tabulate(const kt_op_check_result *r) {
    for (int i = 0; table && i < r->n_parts; i++) {
        const kt_op_check_part *part = &r->parts[i];
        kt_str name = part->variant ? part->variant->name : KT_STR("(body)");
        fprintf(table, "%-18.*s %-16.*s %5d tests", KT_STR_ARG(r->op->name), KT_STR_ARG(name),
            part->n_runs);
        print_worst(table, part->worst);
        fprintf(table, "\n");
        fflush(table);
    }
}

static void kernels_match(void **state) {
    int i = *(int *)*state;
    kt_op_check_result result;
    kt_buf report = {0};
    kt_err err;
    if (kt_op_check_run(check, i, &result, &report, &err) != KT_OK)
        fail_msg("%s\nseed %" PRIu64 "\n%s", err.text, seed, report.n ? report.at : "");
    if (result.n_failed > 0)
        fail_msg("%d of %d tests failed, seed %" PRIu64 "\n%s", result.n_failed, result.n_runs,
            seed, report.at);
    n_tests += result.n_runs;
    n_kernels += result.n_builds;
    printf("# %.*s: %d tests, %d kernels", KT_STR_ARG(result.op->name), result.n_runs,
        result.n_builds);
    if (result.n_refused > 0) printf(", %d sizes not admitted", result.n_refused);
    print_worst(stdout, result.worst);
    printf("; %.1f s\n", result.ms / 1e3);
    tabulate(&result);
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

// ---- shards

// Seconds under the stand-in where they are more than one or two, kernels included.
static double weight_of(kt_str name) {
    static const struct {
        const char *op;
        double seconds;
    } rows[] = {{"paged_attention", 52}, {"linear_parts", 47}, {"decoder_layer", 32},
        {"linear", 27}, {"resampler", 21}, {"vit_layer", 20}, {"resize_image", 17}, {"sample", 13},
        {"norm_qkv_rope", 13}, {"lm_head", 11}, {"norm_swiglu", 8}, {"norm_mlp", 7},
        {"attention", 6}, {"embed_tokens", 6}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (kt_str_is(name, rows[i].op)) return rows[i].seconds;
    return 1.5;
}

// The heaviest of what is left goes to the part that has least.
static void take_shard(kt_op_check_options *o, int mine, int n_shards) {
    KT_VEC(const char *) kept = {0};
    double *load = KT_NEW_ARRAY(&arena, double, n_shards);
    bool *done = KT_NEW_ARRAY(&arena, bool, o->n_only);
    for (int round = 0; round < o->n_only; round++) {
        int next = -1, least = 0;
        for (int i = 0; i < o->n_only; i++)
            if (!done[i] && (next < 0 || weight_of(kt_str_from(o->only[i])) >
                                             weight_of(kt_str_from(o->only[next]))))
                next = i;
        for (int k = 1; k < n_shards; k++)
            if (load[k] < load[least]) least = k;
        done[next] = true;
        load[least] += weight_of(kt_str_from(o->only[next]));
        if (least == mine) KT_PUSH(&arena, &kept, o->only[next]);
    }
    o->only = kept.at;
    o->n_only = (int)kept.n;
}

// "2/3"
static bool read_shard(const char *text, int *mine, int *n_shards) {
    kt_str all = kt_str_from(text);
    ptrdiff_t slash = kt_str_find(all, '/');
    int64_t first, second;
    if (slash < 0 || !kt_str_to_i64(kt_str_slice(all, 0, (size_t)slash), &first) ||
        !kt_str_to_i64(kt_str_slice(all, (size_t)slash + 1, all.n), &second))
        return false;
    *mine = (int)first;
    *n_shards = (int)second;
    return 1 <= first && first <= second && second <= 99;
}

static kt_status choose_ops(kt_op_check_options *o, kt_diag *diag, kt_err *err) {
    int mine = 1, n_shards = 1, n = 0;
    const char *shard = kt_os_getenv("KOTARO_SHARD");
    if (shard && !read_shard(shard, &mine, &n_shards))
        return KT_FAIL(err, KT_EUSAGE, "KOTARO_SHARD is '%s', expected 1/2 and the like", shard);
    o->only = words(kt_os_getenv("KOTARO_OPS"), &o->n_only);
    if (!shard) return KT_OK;
    const kt_op *const *all = kt_registry_all(o->registry, &n, diag);
    const char **names = KT_NEW_ARRAY(&arena, const char *, n);
    for (int i = 0; i < n; i++) names[i] = kt_str_z(&arena, all[i]->name);
    if (o->n_only == 0) o->only = names;
    if (o->n_only == 0) o->n_only = n;
    take_shard(o, mine - 1, n_shards);
    if (o->n_only > 0) return KT_OK;
    return KT_FAIL(err, KT_EUSAGE, "KOTARO_SHARD=%s has no ops in it", shard);
}

// ---- all

static kt_status open_table(kt_err *err) {
    const char *path = kt_os_getenv("KOTARO_OPS_TABLE");
    if (path) table = kt_os_fopen(path, "w");
    return path && !table ? KT_FAIL(err, KT_EFILE, "'%s' cannot be written", path) : KT_OK;
}

static void read_seed(void) {
    uint32_t drawn;
    int64_t given;
    kt_os_random(&drawn, sizeof drawn);
    const char *text = kt_os_getenv("KOTARO_SEED");
    seed = text && kt_str_to_i64(kt_str_from(text), &given) ? (uint64_t)given : drawn;
}

static kt_status open_all(kt_diag *diag, kt_err *err) {
    kt_compiler_options options = {.headers = kt_device_headers};
    KT_TRY(kt_compiler_open(&options, &compiler, err));
    kt_registry *registry = kt_registry_open(&arena, "ops", NULL, 0, diag);
    if (!registry) return KT_FAIL(err, KT_EYAML, "the ops have mistakes");
    read_seed();
    kt_op_check_options check_options = {.registry = registry,
        .include = ".",
        .gpu = gpu,
        .compiler = compiler,
        .seed = seed,
        .quick = kt_os_getenv("KOTARO_QUICK") != NULL,
        .first = kt_os_getenv("KOTARO_FIRST") != NULL,
        .watch = emu_watch_find()};
    KT_TRY(choose_ops(&check_options, diag, err));
    KT_TRY(open_table(err));
    KT_TRY(kt_op_check_open(&check_options, &check, diag, err));
    double start = kt_os_now_ms();
    printf("# seed %" PRIu64 " on %s, memory %s\n", seed, gpu->info.name,
        check_options.watch ? "watched" : "not watched");
    if (check_options.first) return KT_OK;
    KT_TRY(kt_op_check_compile(check, 0, err));
    printf("# kernels in %.1f s (%d compiled, %d cached)\n", (kt_os_now_ms() - start) / 1e3,
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
    int failed = _cmocka_run_group_tests("gpu_ops", tests, (size_t)n, NULL, NULL);
    if (!missing) printf("# %d tests, %d kernels, seed %" PRIu64 "\n", n_tests, n_kernels, seed);
    return failed;
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
    if (table) fclose(table);
    kt_op_check_close(check);
    kt_compiler_close(compiler);
    kt_gpu_close(gpu);
    kt_arena_deinit(&arena);
    return failed;
}
