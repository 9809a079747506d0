// kotaro check FILE... and kotaro explain FILE.
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/session.h"
#include "tools/command.h"

#include <stdio.h>
#include <string.h>

static const kt_flag flags[] = {
    {"--set", "NAME=VALUE", "set a parameter of the pipeline", kt_take_set},
    {"--model", "DIR", "model folder to check against; without it the pipeline's own",
        kt_take_model},
    {"--ops", "DIR", "more ops", kt_take_ops},
    {"-p", "TEXT", "ask this instead of the pipeline's items", kt_take_question},
};
enum { N_FLAGS = sizeof flags / sizeof flags[0] };

// The word after `kotaro:` decides how a file is checked.
static kt_str kind_of(const kt_node *root) {
    const kt_pair *first = kt_node_find(root, "kotaro");
    if (!first || first->value->kind != KT_NODE_SCALAR) return KT_STR("");
    kt_str kind = first->value->text;
    ptrdiff_t slash = kt_str_find(kind, '/');
    return slash >= 0 ? kt_str_slice(kind, 0, (size_t)slash) : kind;
}

// Binds and plans for the CPU and for a card of the first user's kind.
static void check_pipeline(const kt_options_run *options, kt_diag *diag, kt_err *err) {
    static const kt_target targets[] = {
        {.cuda = false}, {.cuda = true, .cc = 89, .sm_count = 24, .smem_max = 101376}};
    kt_session session = {.options = *options};
    kt_status status = kt_session_read(&session, diag, err);
    const char *model = status == KT_OK && !options->model
                            ? kt_pipeline_model(session.pipeline, &session.model_arena)
                            : options->model;
    if (status == KT_OK && model) status = kt_session_bind(&session, diag, err);
    for (int i = 0; i < 2 && status == KT_OK && model; i++)
        status = kt_session_plan(&session, &targets[i], diag, err);
    if (session.model_open) kt_model_close(&session.model);
    kt_tokenizer_close(session.tokenizer);
    if (status == KT_OK) err->code = KT_OK;
}

// `session` arenas must outlive diag; they are leaked to the end of the command on purpose.
static int check_file(const kt_args *args, const char *path) {
    kt_arena arena = {0};
    kt_diag diag;
    kt_err err = {0};
    kt_diag_init(&diag, &arena);
    const kt_node *root = kt_yaml_open(&arena, path, path, &diag);
    kt_str kind = root ? kind_of(root) : KT_STR("");
    const char *home = kt_home_folder(&arena);
    kt_options_run options = args->run;
    options.pipeline = path;
    if (kt_str_is(kind, "op"))
        kt_op_open(&arena, kt_path_folder(&arena, path), true, &diag);
    else if (kt_str_is(kind, "model"))
        (void)kt_model_check(&arena, path, &diag);
    else if (kt_str_is(kind, "format"))
        kt_format_open(&arena, path, path, &diag);
    else if (root && home)
        check_pipeline(&options, &diag, &err);
    kt_buf report = {0};
    kt_diag_print(&diag, &report);
    if (report.n > 0) fputs(report.at, stderr);
    kt_buf_deinit(&report);
    if (diag.n_errors > 0) return 2;
    if (err.code != KT_OK) return kt_report(err.code, NULL, &err);
    printf("%s: ok\n", path);
    return 0;
}

int kt_cmd_check(int argc, char **argv) {
    static kt_args args;
    int code = kt_args_read(&args, argc, argv, flags, N_FLAGS, "kotaro check FILE... [options]");
    if (code != 0) return code == 1 ? 0 : 2;
    kt_err err;
    if (args.n_positional == 0)
        return kt_report(
            KT_FAIL(&err, KT_EUSAGE, "no file given: kotaro check FILE..."), NULL, &err);
    for (int i = 0; i < args.n_positional; i++) {
        int one = check_file(&args, args.positional[i]);
        if (one > code) code = one;
    }
    return code;
}

static const char *rule;

static const char *take_rule(kt_args *args, const char *value) {
    (void)args;
    rule = value;
    return NULL;
}

static int explain_rule(void) {
    for (int i = 0; i < KT_RULE_COUNT; i++)
        if (strcmp(kt_rule_name((kt_rule)i), rule) == 0) {
            printf("[%s] %s\n", rule, kt_rule_text((kt_rule)i));
            return 0;
        }
    kt_err err;
    kt_status status = KT_FAIL(&err, KT_EUSAGE, "unknown rule '%s'", rule);
    for (int i = 0; i < KT_RULE_COUNT; i++) kt_err_note(&err, "[%s]", kt_rule_name((kt_rule)i));
    return kt_report(status, NULL, &err);
}

int kt_cmd_explain(int argc, char **argv) {
    static const kt_flag explain_flags[] = {
        {"--set", "NAME=VALUE", "set a parameter of the pipeline", kt_take_set},
        {"--ops", "DIR", "more ops", kt_take_ops},
        {"-p", "TEXT", "ask this instead of the pipeline's items", kt_take_question},
        {"--rule", "NAME", "say what a rule in brackets means", take_rule},
    };
    static kt_args args;
    int code =
        kt_args_read(&args, argc, argv, explain_flags, 4, "kotaro explain PIPELINE [options]");
    if (code != 0) return code == 1 ? 0 : 2;
    if (rule) return explain_rule();
    kt_err err;
    if (args.n_positional != 1)
        return kt_report(KT_FAIL(&err, KT_EUSAGE, "kotaro explain takes one pipeline"), NULL, &err);
    args.run.pipeline = args.positional[0];
    kt_session session = {.options = args.run};
    kt_diag diag;
    kt_diag_init(&diag, &session.model_arena);
    kt_status status = kt_session_read(&session, &diag, &err);
    kt_buf out = {0};
    kt_diag_print(&diag, &out);
    if (out.n > 0) fputs(out.at, stderr);
    kt_buf_clear(&out);
    if (status == KT_OK) {
        kt_pipeline_explain(session.pipeline, &out);
        fputs(out.at, stdout);
    }
    kt_buf_deinit(&out);
    kt_arena_deinit(&session.model_arena);
    return status == KT_OK ? 0 : kt_report(status, NULL, &err);
}
