// kotaro ops list | show NAME | check [NAME]...
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/op_check.h"
#include "runtime/exec/session.h"
#include "tools/command.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool list_host;

static const char *take_host(kt_args *args, const char *value) {
    (void)args, (void)value;
    list_host = true;
    return NULL;
}

static bool quick;
static bool seed_given;
static int64_t seed;

static const char *take_quick(kt_args *args, const char *value) {
    (void)args, (void)value;
    quick = true;
    return NULL;
}

static const char *take_seed(kt_args *args, const char *value) {
    (void)args;
    if (!kt_str_to_i64(kt_str_from(value), &seed) || seed < 0) return "a whole number, 0 or more";
    seed_given = true;
    return NULL;
}

static const kt_flag flags[] = {
    {"--ops", "DIR", "more ops", kt_take_ops},
    {"--device", "NAME", "check: auto, cuda or cpu (C implementations against themselves)",
        kt_take_device},
    {"--seed", "N", "check: repeat the tests of an earlier run", take_seed},
    {"--quick", NULL, "check: fewer kernels: build dims and choices sampled by the seed",
        take_quick},
    {"--host", NULL, "list: the host steps and their contracts", take_host},
};

static void list_op(const kt_op *op) {
    const char *form = op->n_body > 0 ? (op->n_variants > 0 ? "fused" : "body") : "primitive";
    printf("%-18.*s %-10s %.*s\n", KT_STR_ARG(op->name), form, KT_STR_ARG(op->doc));
}

static void print_ports(const kt_op *op, kt_port_kind kind, const char *title) {
    for (int i = 0; i < op->n_ports; i++)
        if (op->ports[i].kind == kind)
            printf("  %-7s %-16.*s %.*s\n", title, KT_STR_ARG(op->ports[i].name),
                KT_STR_ARG(op->ports[i].type.text));
}

static void show_op(const kt_op *op) {
    printf("%.*s: %.*s\n  in %s\n", KT_STR_ARG(op->name), KT_STR_ARG(op->doc), op->folder);
    print_ports(op, KT_PORT_INPUT, "input");
    print_ports(op, KT_PORT_INOUT, "inout");
    print_ports(op, KT_PORT_OUTPUT, "output");
    for (int i = 0; i < op->n_params; i++)
        printf("  param   %.*s\n", KT_STR_ARG(op->params[i].name));
    kt_buf out = {0};
    for (int i = 0; i < op->n_variants; i++) kt_op_print_prototype(op, &op->variants[i], &out);
    if (out.n > 0) printf("\n%s", out.at);
    kt_buf_deinit(&out);
}

static int with_registry(const kt_args *args, const char *what, const char *name) {
    kt_arena arena = {0};
    kt_diag diag;
    kt_err err = {0};
    kt_diag_init(&diag, &arena);
    const char *home;
    kt_status status = kt_home_get(&arena, &home, &err);
    if (status != KT_OK) return kt_report(status, NULL, &err);
    kt_registry *registry = kt_registry_open(
        &arena, kt_path_join(&arena, home, "ops"), args->run.ops, args->run.n_ops, &diag);
    if (registry && strcmp(what, "show") == 0) {
        kt_ref ref = {kt_str_from(name), {0}};
        const kt_op *op = kt_registry_op(registry, ref, &diag);
        if (op) show_op(op);
    } else if (registry) {
        int n = 0;
        const kt_op *const *ops = kt_registry_all(registry, &n, &diag);
        for (int i = 0; i < n; i++) list_op(ops[i]);
    }
    (void)kt_report_diag(KT_OK, &diag, &err);
    int code = diag.n_errors > 0 ? 2 : 0;
    kt_arena_deinit(&arena);
    return code;
}

// ---- check

typedef struct checker {
    kt_arena arena;
    kt_diag diag;
    kt_op_check_options options;
    kt_gpu *gpu;
    kt_compiler *compiler;
    kt_op_check *check;
} checker;

// A stand-in for the driver (tests/emu/emu.h) wants to know which memory each kernel may touch.
typedef void (*watch_function)(const kt_op_check_region *regions, size_t n);
static watch_function stand_in_watch;

static void tell_stand_in(void *ctx, const kt_op_check_region *regions, size_t n) {
    (void)ctx;
    stand_in_watch(regions, n);
}

static const kt_op_check_watch *find_watch(const kt_driver *driver) {
    static const kt_op_check_watch found = {tell_stand_in, NULL};
    kt_os_library *library = kt_os_library_open(driver->path, NULL); // the one that is open
    if (!library) return NULL;
    kt_os_function function = kt_os_library_function(library, "emu_watch");
    if (!function) {
        kt_os_library_close(library);
        return NULL;
    }
    memcpy(&stand_in_watch, &function, sizeof stand_in_watch);
    return &found; // the library stays open
}

static kt_status open_device(checker *c, const kt_args *args, const char *home, kt_err *err) {
    if (args->run.device == KT_DEVICE_CPU) return KT_OK;
    const kt_gpu_options each = {.check_each = true};
    kt_status status = kt_gpu_open(&each, &c->gpu, err);
    if (status == KT_EDRIVER && args->run.device == KT_DEVICE_AUTO) {
        kt_log_info("no GPU: C implementations are checked against themselves");
        return KT_OK;
    }
    KT_TRY(status);
    const char **packs = KT_NEW_ARRAY(&c->arena, const char *, 1);
    packs[0] = kt_path_join(&c->arena, home, "cubins");
    kt_compiler_options compiler = {.headers = kt_device_headers,
        .no_cache = args->run.no_cache,
        .packs = packs,
        .n_packs = 1,
        .stop = args->run.stop};
    c->options.gpu = c->gpu;
    c->options.watch = find_watch(c->gpu->driver);
    KT_TRY(kt_compiler_open(&compiler, &c->compiler, err));
    c->options.compiler = c->compiler;
    return KT_OK;
}

static kt_status open_check(checker *c, const kt_args *args, kt_err *err) {
    const char *home;
    KT_TRY(kt_home_get(&c->arena, &home, err));
    c->options.registry = kt_registry_open(
        &c->arena, kt_path_join(&c->arena, home, "ops"), args->run.ops, args->run.n_ops, &c->diag);
    if (!c->options.registry) return KT_FAIL(err, KT_EYAML, "the ops have mistakes");
    c->options.include = home;
    c->options.only = args->positional + 1;
    c->options.n_only = args->n_positional - 1;
    c->options.quick = quick;
    c->options.stop = args->run.stop;
    uint32_t drawn;
    kt_os_random(&drawn, sizeof drawn);
    c->options.seed = seed_given ? (uint64_t)seed : drawn;
    KT_TRY(open_device(c, args, home, err));
    KT_TRY(kt_op_check_open(&c->options, &c->check, &c->diag, err));
    printf("seed %" PRIu64 " on %s\n", c->options.seed,
        c->gpu ? c->gpu->info.name : "the CPU (C implementations against themselves)");
    return c->gpu ? kt_op_check_compile(c->check, 0, err) : KT_OK;
}

static void print_result(const kt_op_check_result *r) {
    const char *word = r->none ? "-" : r->n_failed > 0 ? "FAILED" : "ok";
    printf("%-18.*s %-6s ", KT_STR_ARG(r->op->name), word);
    if (r->none) {
        printf("%s\n", r->none);
        return;
    }
    printf("%4d tests", r->n_runs);
    if (r->n_builds > 0) printf(", %d kernels", r->n_builds);
    if (r->n_failed > 0) printf(", %d failed", r->n_failed);
    if (r->n_refused > 0) printf(", %d sizes not admitted", r->n_refused);
    for (int i = 0; i < KT_DTYPE_COUNT; i++)
        if (r->worst[i] > 0)
            printf(", %s %.2g of its tolerance", kt_dtype_name((kt_dtype)i), r->worst[i]);
    printf(", %.1f s\n", r->ms / 1e3);
}

static kt_status check_all(checker *c, int *failed, kt_err *err) {
    int n_runs = 0;
    for (int i = 0; i < kt_op_check_count(c->check); i++) {
        kt_op_check_result result;
        kt_buf report = {0};
        kt_status status = kt_op_check_run(c->check, i, &result, &report, err);
        if (status == KT_OK) print_result(&result);
        if (report.n > 0) fputs(report.at, stdout);
        kt_buf_deinit(&report);
        fflush(stdout);
        KT_TRY(status);
        n_runs += result.n_runs;
        *failed += result.n_failed;
    }
    printf("%d tests, %d failed\n", n_runs, *failed);
    return KT_OK;
}

static int check_ops(const kt_args *args) {
    checker c = {0};
    kt_err err = {0};
    int failed = 0;
    kt_diag_init(&c.diag, &c.arena);
    kt_status status = open_check(&c, args, &err);
    if (status == KT_OK) status = check_all(&c, &failed, &err);
    int code = kt_report_diag(status, &c.diag, &err);
    kt_op_check_close(c.check);
    kt_compiler_close(c.compiler);
    kt_gpu_close(c.gpu);
    kt_arena_deinit(&c.arena);
    return code == 0 && failed > 0 ? 1 : code;
}

int kt_cmd_ops(int argc, char **argv) {
    static kt_args args;
    if (!kt_args_read(&args, argc, argv, flags, sizeof flags / sizeof flags[0],
            "kotaro ops list [--host] | show NAME | check [NAME]... [options]"))
        return args.code;
    kt_err err;
    const char *what = args.n_positional > 0 ? args.positional[0] : "";
    if (strcmp(what, "list") == 0 && list_host) {
        kt_arena arena = {0};
        fputs(kt_host_text(&arena), stdout);
        kt_arena_deinit(&arena);
        return 0;
    }
    if (strcmp(what, "list") == 0 && args.n_positional == 1)
        return with_registry(&args, what, NULL);
    if (strcmp(what, "show") == 0 && args.n_positional == 2)
        return with_registry(&args, what, args.positional[1]);
    if (strcmp(what, "check") == 0) return check_ops(&args);
    return kt_report(
        KT_FAIL(&err, KT_EUSAGE,
            "expected: kotaro ops list, kotaro ops show NAME, or kotaro ops check [NAME]..."),
        NULL, &err);
}
