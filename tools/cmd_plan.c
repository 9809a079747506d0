// kotaro plan PIPELINE: what would run, on a card that need not be there.
#include "runtime/exec/session.h"
#include "tools/command.h"

#include <stdio.h>

static const char *take_arch(kt_args *args, const char *value) {
    int64_t n;
    if (!kt_str_to_i64(kt_str_from(value), &n) || n < 75 || n > 999)
        return "expected 80, 86, 89, 90 or 120";
    args->arch = (int)n;
    return NULL;
}

static const char *take_sms(kt_args *args, const char *value) {
    int64_t n;
    if (!kt_str_to_i64(kt_str_from(value), &n) || n < 1 || n > 1024) return "a number of SMs";
    args->sms = (int)n;
    return NULL;
}

static const char *take_all(kt_args *args, const char *value) {
    (void)value;
    args->all = true;
    return NULL;
}

static const char *take_cpu(kt_args *args, const char *value) {
    (void)value;
    args->cpu = true;
    return NULL;
}

static const kt_flag flags[] = {
    {"--arch", "N", "compute capability (89)", take_arch},
    {"--sms", "N", "multiprocessors (24)", take_sms},
    {"--memory", "SIZE", "device memory that may be used, such as 8G", kt_take_memory},
    {"--cpu", NULL, "plan for the CPU back end", take_cpu},
    {"--all", NULL, "print every launch, not one of each run of equal layers", take_all},
    {"--set", "NAME=VALUE", "set a parameter of the pipeline", kt_take_set},
    {"--model", "DIR", "model folder or .gguf file; without it the pipeline's own", kt_take_model},
    {"--ops", "DIR", "more ops", kt_take_ops},
    {"-p", "TEXT", "ask this instead of the pipeline's items", kt_take_question},
};

static kt_status make_plan(kt_session *session, const kt_args *args, kt_diag *diag, kt_err *err) {
    kt_target target = {.cuda = !args->cpu,
        .cc = args->arch ? args->arch : 89,
        .sm_count = args->sms ? args->sms : 24,
        .smem_max = 101376,
        .memory_bytes = args->run.memory_limit,
        .slots = 1}; // one picture at a time
    KT_TRY(kt_session_read(session, diag, err));
    KT_TRY(kt_session_bind(session, diag, err));
    return kt_session_plan(session, &target, diag, err);
}

int kt_cmd_plan(int argc, char **argv) {
    static kt_args args;
    if (!kt_args_read(&args, argc, argv, flags, sizeof flags / sizeof flags[0],
            "kotaro plan PIPELINE [options]"))
        return args.code;
    if (args.n_positional != 1) return kt_usage("kotaro plan takes one pipeline");
    args.run.pipeline = args.positional[0];
    kt_session *session = kt_session_new(&args.run);
    kt_diag diag;
    kt_err err;
    kt_diag_init(&diag, &session->model_arena);
    kt_status status = make_plan(session, &args, &diag, &err);
    int code = kt_report_diag(status, &diag, &err);
    kt_buf out = {0};
    if (status == KT_OK) {
        kt_plan_print(session->plan, args.all, &out);
        fputs(out.at, stdout);
    }
    kt_buf_deinit(&out);
    kt_session_close(session);
    return code;
}
