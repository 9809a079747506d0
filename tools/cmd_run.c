// kotaro run: answers to stdout, everything else to stderr.
#include "runtime/base/log.h"
#include "runtime/base/os.h"
#include "tools/command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct output {
    const kt_session *session;
    bool json, quiet_stream;
    int n_images, n_failed;
    // text format: items appear in order; the first unfinished one as it is written
    kt_buf *pending; // by item
    int shown;       // item whose title is out
    int image;       // picture whose items are being shown; -1
    const char *const *paths;
} output;

static bool json_format;

static const char *take_format(kt_args *args, const char *value) {
    (void)args;
    if (strcmp(value, "text") != 0 && strcmp(value, "json") != 0) return "expected text or json";
    json_format = strcmp(value, "json") == 0;
    return NULL;
}

static const char *take_seed(kt_args *args, const char *value) {
    int64_t seed;
    if (!kt_str_to_i64(kt_str_from(value), &seed) || seed < 0) return "a number from 0";
    if (args->run.n_settings == 64) return "at most 64 settings";
    args->settings[args->run.n_settings++] = (kt_setting){"seed", value};
    return NULL;
}

static const char *take_max_tokens(kt_args *args, const char *value) {
    if (!kt_str_to_i64(kt_str_from(value), &args->run.max_tokens) || args->run.max_tokens < 1)
        return "a number from 1";
    return NULL;
}

static const char *take_trace(kt_args *args, const char *value) {
    args->run.trace = value;
    return NULL;
}

static const char *take_sms(kt_args *args, const char *value) {
    int64_t n;
    if (!kt_str_to_i64(kt_str_from(value), &n) || n < 1 || n > 1024) return "a number of SMs";
    args->run.green_sms = (int)n;
    return NULL;
}

#define KT_SWITCH(name, field)                                                                     \
    static const char *name(kt_args *args, const char *value) {                                    \
        (void)value;                                                                               \
        args->run.field = true;                                                                    \
        return NULL;                                                                               \
    }
KT_SWITCH(take_greedy, greedy)
KT_SWITCH(take_no_graph, no_graph)
KT_SWITCH(take_check_each, check_each)
KT_SWITCH(take_profile, profile)
KT_SWITCH(take_no_cache, no_cache)

static const char *take_verbose(kt_args *args, const char *value) {
    (void)args, (void)value;
    kt_log_set_level(KT_LOG_DEBUG);
    return NULL;
}

static const char *take_quiet(kt_args *args, const char *value) {
    (void)args, (void)value;
    kt_log_set_level(KT_LOG_WARN);
    return NULL;
}

static const kt_flag flags[] = {
    {"-p", "TEXT", "ask this instead of the pipeline's items", kt_take_question},
    {"--set", "NAME=VALUE", "set a parameter of the pipeline (language=ja)", kt_take_set},
    {"--model", "DIR", "model folder; without it the pipeline's own", kt_take_model},
    {"--ops", "DIR", "more ops; one with a shipped op's name replaces it", kt_take_ops},
    {"--device", "auto|cuda|cpu", "where to run", kt_take_device},
    {"--format", "text|json", "json: one object a line and picture", take_format},
    {"--greedy", NULL, "always the likeliest token (temperature 0)", take_greedy},
    {"--seed", "N", "of the random draws", take_seed},
    {"--max-tokens", "N", "cap on the tokens of every item", take_max_tokens},
    {"--no-graph", NULL, "launch kernels one by one", take_no_graph},
    {"--check-each", NULL, "wait after every launch and name the one that failed", take_check_each},
    {"--profile", NULL, "time every op; table on stderr", take_profile},
    {"--memory-limit", "SIZE", "refuse to use more (8G, 512M)", kt_take_memory},
    {"--no-cache", NULL, "neither read nor write the cache of compiled kernels", take_no_cache},
    {"--trace", "FILE", "one line for every driver call", take_trace},
    {"--sms", "N", "use only so many SMs of the GPU (to measure as a smaller one)", take_sms},
    {"--verbose", NULL, "say more on stderr", take_verbose},
    {"--quiet", NULL, "say only warnings and errors on stderr", take_quiet},
};

// ---- text

static void begin_image(output *o, int image) {
    if (o->image == image) return;
    o->image = image;
    o->shown = -1;
    for (int i = 0; i < kt_session_items(o->session); i++) kt_buf_clear(&o->pending[i]);
    if (o->n_images > 1) printf("%s== %s\n", image > 0 ? "\n" : "", o->paths[image]);
}

static void show_title(output *o, int item) {
    kt_str title = kt_session_item_title(o->session, item);
    o->shown = item;
    if (kt_session_items(o->session) > 1) printf("%.*s: ", KT_STR_ARG(title));
}

static kt_str left_trimmed(kt_str text) {
    while (text.n > 0 && strchr(" \t\r\n", text.at[0])) text = kt_str_slice(text, 1, text.n);
    return text;
}

// Text of the item that is being shown goes out at once, on a terminal; the rest waits for the
// result.
static void on_text(void *ctx, int image, int item, kt_str piece) {
    output *o = ctx;
    if (o->json || o->quiet_stream) return;
    begin_image(o, image);
    bool first = o->pending[item].n == 0;
    kt_buf_str(&o->pending[item], first ? left_trimmed(piece) : piece);
    if (item != 0) return;
    if (o->shown < 0) show_title(o, 0);
    kt_str out = first ? (kt_str){o->pending[0].at, o->pending[0].n} : piece;
    fwrite(out.at, 1, out.n, stdout);
    fflush(stdout);
}

static void text_result(output *o, int image, const kt_result *result) {
    begin_image(o, image);
    for (int i = 0; i < result->n_items; i++) {
        kt_str text = result->items[i].text;
        if (i == 0 && o->shown == 0) {
            printf("\n");
            continue;
        }
        show_title(o, i);
        printf("%.*s\n", KT_STR_ARG(text));
    }
    fflush(stdout);
}

// ---- json

static void json_items(kt_buf *out, const kt_result *result, bool *cut) {
    for (int i = 0; i < result->n_items; i++) {
        const kt_result_item *item = &result->items[i];
        kt_buf_printf(out, "%s{\"name\": ", i > 0 ? ", " : "");
        kt_json_text(out, item->name);
        kt_buf_printf(out, ", \"title\": ");
        kt_json_text(out, item->title);
        kt_buf_printf(out, ", \"text\": ");
        kt_json_text(out, item->text);
        kt_buf_printf(out, ", \"finish\": \"%s\"}", item->cut ? "length" : "stop");
        *cut = *cut || item->cut;
    }
}

static void json_field(kt_buf *out, const char *name, const char *text) {
    kt_buf_printf(out, "\"%s\": ", name);
    if (text)
        kt_json_text(out, kt_str_from(text));
    else
        kt_buf_printf(out, "null");
    kt_buf_printf(out, ", ");
}

static void json_result(const kt_result *result) {
    kt_buf out = {0};
    bool cut = false;
    const kt_result_ms *ms = &result->ms;
    kt_buf_printf(&out, "{");
    json_field(&out, "image", result->image);
    json_field(&out, "pipeline", result->pipeline);
    json_field(&out, "model", result->model);
    json_field(&out, "device", result->device);
    kt_buf_printf(&out, "\"items\": [");
    json_items(&out, result, &cut);
    kt_buf_printf(&out,
        "], \"tokens\": {\"prompt\": %" PRId64 ", \"completion\": %" PRId64
        "}, \"finish\": \"%s\", ",
        result->prompt_tokens, result->completion_tokens, cut ? "length" : "stop");
    kt_buf_printf(&out,
        "\"ms\": {\"load\": %.2f, \"prepare\": %.2f, \"image\": %.2f, \"vision\": %.2f, "
        "\"prefill\": %.2f, \"decode\": %.2f, \"total\": %.2f}}\n",
        ms->load, ms->prepare, ms->image, ms->vision, ms->prefill, ms->decode, ms->total);
    fwrite(out.at, 1, out.n, stdout);
    fflush(stdout);
    kt_buf_deinit(&out);
}

static void on_result(void *ctx, int image, const kt_result *result) {
    output *o = ctx;
    if (o->json)
        json_result(result);
    else
        text_result(o, image, result);
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    output *o = ctx;
    (void)image;
    o->n_failed++;
    if (!o->json) {
        kt_log_error(err);
        return;
    }
    kt_buf out = {0};
    kt_buf_printf(&out, "{");
    json_field(&out, "image", path);
    kt_buf_printf(&out, "\"error\": {\"code\": \"%s\", \"message\": ", kt_status_name(err->code));
    kt_json_text(&out, kt_str_from(err->text));
    kt_buf_printf(&out, "}}\n");
    fwrite(out.at, 1, out.n, stdout);
    fflush(stdout);
    kt_buf_deinit(&out);
}

// ---- the command

static int run_session(kt_session *session, const kt_args *args) {
    output o = {.session = session,
        .json = json_format,
        .quiet_stream = !kt_os_is_terminal(stdout),
        .n_images = args->n_positional - 1,
        .image = -1,
        .shown = -1,
        .paths = args->positional + 1};
    int n_items = kt_session_items(session);
    o.pending = calloc((size_t)n_items + 1, sizeof *o.pending);
    if (!o.pending) kt_out_of_memory(sizeof *o.pending);
    kt_events events = {&o, on_text, on_result, on_failed};
    kt_err err;
    kt_status status =
        kt_session_run(session, args->positional + 1, args->n_positional - 1, &events, &err);
    for (int i = 0; i < n_items; i++) kt_buf_deinit(&o.pending[i]);
    free(o.pending);
    if (status != KT_OK) return kt_report(status, NULL, &err);
    return o.n_failed > 0 ? 1 : 0;
}

static void print_report(const kt_session *session, bool profile) {
    kt_buf out = {0};
    if (profile || kt_log_get_level() >= KT_LOG_DEBUG) kt_session_print_times(session, &out);
    if (profile) kt_session_print_profile(session, &out);
    if (out.n > 0) fputs(out.at, stderr);
    kt_buf_deinit(&out);
}

int kt_cmd_run(int argc, char **argv) {
    static const char usage[] = "kotaro-run PIPELINE IMAGE... [-p TEXT] [options]";
    static kt_args args;
    int code = kt_args_read(&args, argc, argv, flags, sizeof flags / sizeof flags[0], usage);
    if (code != 0) return code == 1 ? 0 : 2;
    kt_err err;
    if (args.n_positional < 1)
        return kt_report(KT_FAIL(&err, KT_EUSAGE, "no pipeline given: %s", usage), NULL, &err);
    args.run.pipeline = args.positional[0];
    args.run.several = args.n_positional > 2;
    kt_session *session = NULL;
    kt_buf report = {0};
    kt_status status = kt_session_open(&args.run, &session, &report, &err);
    code = kt_report(status, &report, &err);
    kt_buf_deinit(&report);
    if (status != KT_OK) return code;
    code = run_session(session, &args);
    print_report(session, args.run.profile);
    kt_session_close(session);
    return code;
}
