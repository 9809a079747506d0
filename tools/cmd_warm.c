// kotaro warm PIPELINE...: compiles what the pipelines need, for this GPU or for others; --export
// writes a pack.
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/base/os.h"
#include "runtime/exec/session.h"
#include "tools/command.h"

#include <stdio.h>
#include <string.h>

enum { MAX_ARCHS = 16, MAX_MODELS = 8 };

static int archs[MAX_ARCHS], n_archs, sms = 24;
static const char *models[MAX_MODELS];
static int n_models;
static const char *export_path;

static const char *take_archs(kt_args *args, const char *value) {
    (void)args;
    kt_str rest = kt_str_from(value);
    while (rest.n > 0) {
        ptrdiff_t comma = kt_str_find(rest, ',');
        kt_str one = comma >= 0 ? kt_str_slice(rest, 0, (size_t)comma) : rest;
        int64_t n;
        if (!kt_str_to_i64(one, &n) || n < 75 || n > 999 || n_archs == MAX_ARCHS)
            return "a list such as 80,86,89,90,120";
        archs[n_archs++] = (int)n;
        rest = comma >= 0 ? kt_str_slice(rest, (size_t)comma + 1, rest.n) : KT_STR("");
    }
    return NULL;
}

static const char *take_sms(kt_args *args, const char *value) {
    (void)args;
    int64_t n;
    if (!kt_str_to_i64(kt_str_from(value), &n) || n < 1 || n > 1024) return "a number of SMs";
    sms = (int)n;
    return NULL;
}

static const char *take_model(kt_args *args, const char *value) {
    (void)args;
    if (!*value) return "a model folder or a .gguf file";
    if (n_models == MAX_MODELS) return "at most 8 of these";
    models[n_models++] = value;
    return NULL;
}

static const char *take_export(kt_args *args, const char *value) {
    (void)args;
    export_path = value;
    return NULL;
}

static const kt_flag flags[] = {
    {"--arch", "LIST", "compute capabilities; without it that of the GPU here", take_archs},
    {"--export", "FILE", "write a pack (.ktpack) to ship beside the program", take_export},
    {"--set", "NAME=VALUE", "set a parameter of the pipelines", kt_take_set},
    {"--model", "DIR", "model folder, several for each of them; without it the pipelines' own",
        take_model},
    {"--sms", "N", "multiprocessors of the cards (24)", take_sms},
    {"--ops", "DIR", "more ops", kt_take_ops},
};

// All that one command makes.
typedef struct warm {
    kt_arena arena;
    kt_compiler *compiler;
    KT_VEC(kt_pack_item) items;
    char tool[32];
} warm;

static kt_status add_items(
    warm *w, const kt_compile_request *requests, const kt_compile_result *results, int n) {
    for (int i = 0; i < n; i++) {
        int n_options = 0;
        const char **options =
            kt_options_list(requests[i].options, &w->arena, requests[i].options->arch, &n_options);
        kt_cache_inputs inputs = {requests[i].source, kt_device_headers, options, n_options, NULL};
        kt_pack_item item = {kt_cache_key(&inputs), {results[i].cubin, *results[i].info}};
        KT_PUSH(&w->arena, &w->items, item);
        if (results[i].info->tool[0]) memcpy(w->tool, results[i].info->tool, sizeof w->tool);
    }
    return KT_OK;
}

static kt_status warm_plan(warm *w, const kt_plan *plan, int arch, kt_err *err) {
    kt_compile_request *requests;
    KT_TRY(kt_cuda_requests(&w->arena, plan, arch, &requests, err));
    kt_compile_result *results = KT_NEW_ARRAY(&w->arena, kt_compile_result, plan->n_builds + 1);
    KT_TRY(kt_compile(w->compiler, requests, plan->n_builds, results, err));
    for (int i = 0; i < plan->n_builds; i++)
        KT_TRY(kt_cuda_check_build(&w->arena, &plan->builds[i], results[i].info, err));
    return export_path ? add_items(w, requests, results, plan->n_builds) : KT_OK;
}

// model NULL: the pipeline's own.
static kt_status warm_pipeline(
    warm *w, const kt_args *args, const char *path, const char *model, int arch, kt_err *err) {
    kt_session *session = kt_session_new(&args->run);
    session->options.pipeline = path;
    session->options.model = model;
    kt_diag diag;
    kt_diag_init(&diag, &session->model_arena);
    kt_target target = {.cuda = true, .cc = arch, .sm_count = sms, .smem_max = 101376};
    kt_status status = kt_session_read(session, &diag, err);
    if (status == KT_OK) status = kt_session_bind(session, &diag, err);
    if (status == KT_OK) status = kt_session_plan(session, &target, &diag, err);
    if (status == KT_OK) status = warm_plan(w, session->plan, arch, err);
    (void)kt_report_diag(KT_OK, &diag, err); // the error is the caller's to tell
    kt_session_close(session);
    return status;
}

static void show_progress(void *ctx, const kt_compile_progress *progress) {
    (void)ctx;
    kt_log_progress("compiling: %d of %d", progress->n_done, progress->n);
}

static kt_status find_arch(kt_err *err) {
    kt_gpu *gpu = NULL;
    if (n_archs > 0) return KT_OK;
    kt_status status = kt_gpu_open(NULL, &gpu, err);
    if (status != KT_OK) {
        kt_err_note(err, "or say which cards to compile for, as in --arch 89");
        return status;
    }
    archs[n_archs++] = gpu->info.arch;
    kt_gpu_close(gpu);
    return KT_OK;
}

// A pack holds what one compiler made, so nothing comes from the cache or from another pack.
static kt_status open_compiler(warm *w, kt_err *err) {
    const char *home = kt_home_folder(&w->arena);
    const char **packs = KT_NEW_ARRAY(&w->arena, const char *, 1);
    packs[0] = home ? kt_path_join(&w->arena, home, "cubins") : NULL;
    kt_compiler_options options = {.headers = kt_device_headers,
        .no_cache = export_path != NULL,
        .packs = packs,
        .n_packs = home && !export_path ? 1 : 0,
        .stop = &kt_interrupted,
        .progress = show_progress};
    return kt_compiler_open(&options, &w->compiler, err);
}

// Minutes of compiling must not end at a mistyped path.
static kt_status check_export(warm *w, kt_err *err) {
    if (!export_path) return KT_OK;
    const char *folder = kt_path_folder(&w->arena, export_path);
    if (kt_os_stat(export_path).kind == KT_PATH_FOLDER)
        return KT_FAIL(
            err, KT_EFILE, "'%s' is a folder; name a file for the pack in it", export_path);
    if (kt_os_stat(folder).kind == KT_PATH_FOLDER) return KT_OK;
    return KT_FAIL(err, KT_EFILE, "no folder '%s' for the pack '%s'", folder, export_path);
}

static kt_status warm_all(warm *w, const kt_args *args, kt_err *err) {
    KT_TRY(check_export(w, err));
    KT_TRY(find_arch(err));
    KT_TRY(open_compiler(w, err));
    for (int a = 0; a < n_archs; a++)
        for (int i = 0; i < args->n_positional; i++)
            for (int m = 0; m < n_models || m == 0; m++)
                KT_TRY(warm_pipeline(w, args, args->positional[i], models[m], archs[a], err));
    if (!export_path) return KT_OK;
    return kt_pack_write(export_path, w->tool, w->items.at, (int)w->items.n, err);
}

static void print_result(const warm *w, double ms) {
    int n[3];
    for (int i = 0; i < 3; i++) n[i] = kt_compiler_count(w->compiler, (kt_compile_from)i);
    printf("%d kernels for %d architecture%s in %.1f s", n[0] + n[1] + n[2], n_archs,
        n_archs == 1 ? "" : "s", ms / 1e3);
    if (export_path)
        printf(", written to %s\n", export_path);
    else
        printf(": %d in packs, %d in the cache, %d compiled\n", n[0], n[1], n[2]);
}

int kt_cmd_warm(int argc, char **argv) {
    static kt_args args;
    if (!kt_args_read(&args, argc, argv, flags, sizeof flags / sizeof flags[0],
            "kotaro warm PIPELINE... [options]"))
        return args.code;
    kt_err err;
    if (args.n_positional == 0)
        return kt_report(KT_FAIL(&err, KT_EUSAGE, "kotaro warm takes pipelines"), NULL, &err);
    warm w = {0};
    double start = kt_os_now_ms();
    kt_status status = warm_all(&w, &args, &err);
    int code = kt_report(status, NULL, &err);
    if (status == KT_OK) print_result(&w, kt_os_now_ms() - start);
    kt_compiler_close(w.compiler);
    kt_arena_deinit(&w.arena);
    return code;
}
