// kotaro check FILE... and kotaro explain FILE.
#include "runtime/base/file.h"
#include "runtime/exec/session.h"
#include "tools/command.h"

#include <stdio.h>
#include <string.h>

static const kt_flag flags[] = {
    {"--set", "NAME=VALUE", "set a parameter of the pipeline", kt_take_set},
    {"--model", "DIR", "model folder or .gguf file to check against; without it the pipeline's own",
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

// Binds and plans for the CPU and for a card of the first user's kind; a pipeline without a model
// is read alone.
static kt_status check_pipeline(kt_session *session, kt_diag *diag, kt_err *err) {
    static const kt_target targets[] = {
        {.cuda = false}, {.cuda = true, .cc = 89, .sm_count = 24, .smem_max = 101376}};
    KT_TRY(kt_session_read(session, diag, err));
    if (!session->options.model && !kt_pipeline_model(session->pipeline, &session->model_arena))
        return KT_OK;
    KT_TRY(kt_session_bind(session, diag, err));
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        KT_TRY(kt_session_plan(session, &targets[i], diag, err));
    return KT_OK;
}

// What is no YAML file of Kotaro's, with what checks it.
static kt_status check_kind(kt_arena *arena, const char *path, kt_err *err) {
    kt_path_kind kind = kt_os_stat(path).kind;
    const char *manifest = kt_path_join(arena, path, "op.yaml");
    kt_str name = kt_str_from(path);
    bool gguf = kind == KT_PATH_FILE && kt_str_ends(name, KT_STR(".gguf"));
    bool part = kind == KT_PATH_FILE && kt_str_ends(name, KT_STR(".safetensors"));
    bool folder = kind == KT_PATH_FOLDER && kt_os_stat(manifest).kind == KT_PATH_NONE;
    if (folder)
        KT_FAIL(err, KT_EFILE, "the folder '%s' is no op: it has no 'op.yaml'", path);
    else if (gguf || part)
        KT_FAIL(err, KT_EFILE, "'%s' is no YAML: it holds weights", path);
    else
        return KT_OK;
    kt_err_note(err,
        "a model is checked with its pipeline, as in kotaro check pipelines/full.yaml --model %s",
        part ? kt_path_folder(arena, path) : path);
    return KT_EFILE;
}

static int check_file(const kt_args *args, const char *given) {
    kt_session *session = kt_session_new(&args->run);
    kt_arena *arena = &session->model_arena;
    kt_diag diag;
    kt_err err;
    kt_status status = KT_OK;
    kt_diag_init(&diag, arena);
    const char *path = kt_home_find(arena, given);
    status = check_kind(arena, path, &err);
    if (status != KT_OK) {
        kt_session_close(session);
        return kt_report(status, NULL, &err);
    }
    if (kt_os_stat(path).kind == KT_PATH_FOLDER) path = kt_path_join(arena, path, "op.yaml");
    const kt_node *root = kt_yaml_open(arena, path, path, &diag);
    kt_str kind = root ? kind_of(root) : KT_STR("");
    session->options.pipeline = path;
    if (root && kt_str_is(kind, "op") && strcmp(kt_path_name(path), "op.yaml") != 0)
        kt_diag_error(&diag, KT_RULE_FILE, root->at,
            "the manifest of an op is called 'op.yaml' and lies in a folder with the op's name");
    else if (kt_str_is(kind, "op"))
        kt_op_open(arena, kt_path_folder(arena, path), true, &diag);
    else if (kt_str_is(kind, "model"))
        (void)kt_model_check(arena, path, &diag);
    else if (kt_str_is(kind, "format"))
        kt_format_open(arena, path, path, &diag);
    else if (root)
        status = check_pipeline(session, &diag, &err);
    if (diag.n_errors > 0) status = KT_OK; // they say it all
    int code = kt_report_diag(status, &diag, &err);
    if (diag.n_errors > 0) code = 2;
    if (code == 0) printf("%s: ok\n", given);
    kt_session_close(session);
    return code;
}

int kt_cmd_check(int argc, char **argv) {
    static kt_args args;
    if (!kt_args_read(&args, argc, argv, flags, N_FLAGS, "kotaro check FILE... [options]"))
        return args.code;
    int code = 0;
    if (args.n_positional == 0) return kt_usage("no file given: kotaro check FILE...");
    for (int i = 0; i < args.n_positional; i++) {
        int one = check_file(&args, args.positional[i]);
        if (one > code) code = one;
    }
    return code;
}

static const char *take_rule(kt_args *args, const char *value) {
    args->rule = value;
    return NULL;
}

static int explain_rule(const char *rule) {
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
    if (!kt_args_read(&args, argc, argv, explain_flags, 4, "kotaro explain PIPELINE [options]"))
        return args.code;
    if (args.rule) return explain_rule(args.rule);
    if (args.n_positional != 1) return kt_usage("kotaro explain takes one pipeline");
    args.run.pipeline = args.positional[0];
    kt_session *session = kt_session_new(&args.run);
    kt_diag diag;
    kt_err err;
    kt_diag_init(&diag, &session->model_arena);
    kt_status status = kt_session_read(session, &diag, &err);
    int code = kt_report_diag(status, &diag, &err);
    kt_buf out = {0};
    if (status == KT_OK) {
        kt_pipeline_explain(session->pipeline, &out);
        fputs(out.at, stdout);
    }
    kt_buf_deinit(&out);
    kt_session_close(session);
    return code;
}
