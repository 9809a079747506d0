// kotaro run: answers to stdout, everything else to stderr.
#include "runtime/base/log.h"
#include "runtime/base/os.h"
#include "tools/command.h"

#include <stdio.h>
#include <string.h>

typedef struct output {
    const kt_session *session;
    bool json;
    bool stream; // text: the first item's answer as it is made (on a terminal)
    int n_images, n_failed;
    const char *const *paths;
    int image;      // whose heading is out; -1
    bool open_line; // what is made of the first item stands on a line that is not finished
    bool broken;    // stdout takes no more
} output;

static const char *take_seed(kt_args *args, const char *value) {
    int64_t seed;
    if (!kt_str_to_i64(kt_str_from(value), &seed) || seed < 0)
        return "expected a whole number, 0 or more";
    if (args->run.n_settings == 64) return "at most 64 settings";
    args->settings[args->run.n_settings++] = (kt_setting){"seed", value};
    return NULL;
}

static const char *take_max_tokens(kt_args *args, const char *value) {
    if (!kt_str_to_i64(kt_str_from(value), &args->run.max_tokens) || args->run.max_tokens < 1)
        return "expected a whole number, 1 or more";
    return NULL;
}

static const char *take_trace(kt_args *args, const char *value) {
    args->run.trace = value;
    return NULL;
}

static const char *take_dump(kt_args *args, const char *value) {
    if (!*value) return "a folder";
    args->run.dump = value;
    return NULL;
}

static const char *take_dump_only(kt_args *args, const char *value) {
    if (!*value) return "an address, as `kotaro plan --all` prints them";
    if (args->run.n_dump_only == 64) return "at most 64 of these";
    args->dump_only[args->run.n_dump_only++] = value;
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

static const kt_flag flags[] = {
    {"-p", "TEXT", "ask this instead of the pipeline's items; - reads it from stdin",
        kt_take_question},
    {"--set", "NAME=VALUE", "set a parameter of the pipeline (language=ja)", kt_take_set},
    {"--model", "DIR", "model folder or .gguf file; without it the pipeline's own", kt_take_model},
    {"--ops", "DIR", "more ops; one with a shipped op's name replaces it", kt_take_ops},
    {"--device", "auto|cuda|cpu", "where to run", kt_take_device},
    {"--format", "text|json", "json: one object a line and picture", kt_take_format},
    {"--greedy", NULL, "always the likeliest token (temperature 0)", take_greedy},
    {"--seed", "N", "of the random draws", take_seed},
    {"--max-tokens", "N", "cap on the tokens of every item", take_max_tokens},
    {"--no-graph", NULL, "launch kernels one by one", take_no_graph},
    {"--check-each", NULL, "wait after every launch and name the one that failed", take_check_each},
    {"--profile", NULL, "time every op; table on stderr", take_profile},
    {"--dump", "DIR", "write what stages and layers make as .npy files", take_dump},
    {"--dump-only", "ADDRESS", "only this: vision.photo, prefill[l=3].x1, decode.logits@0, *.x1",
        take_dump_only},
    {"--memory-limit", "SIZE", "refuse to use more (8G, 512M)", kt_take_memory},
    {"--no-cache", NULL, "neither read nor write the cache of compiled kernels", take_no_cache},
    {"--trace", "FILE", "one line for every driver call", take_trace},
    {"--sms", "N", "use only so many SMs of the GPU (to measure as a smaller one)", take_sms},
    {"--verbose", NULL, "say more on stderr", take_verbose},
    {"--quiet", NULL, "say only warnings and errors on stderr", kt_take_quiet},
};

// ---- text

// Everything goes out through here; a picture's lines are out before the next one is begun.
static void put(output *o, kt_str text) {
    if (o->broken) return;
    bool ok = fwrite(text.at, 1, text.n, stdout) == text.n && fflush(stdout) == 0;
    if (ok) return;
    o->broken = true;
    kt_interrupted = 1; // nobody reads what would be computed
}

static void put_z(output *o, const char *text) {
    put(o, kt_str_from(text));
}

static void begin_image(output *o, int image) {
    if (o->image == image) return;
    if (o->n_images > 1) {
        put_z(o, o->image >= 0 ? "\n== " : "== ");
        put_z(o, o->paths[image]);
        put_z(o, "\n");
    }
    o->image = image;
}

static void put_title(output *o, int item) {
    if (kt_session_items(o->session) == 1) return;
    put(o, kt_session_item_title(o->session, item));
    put_z(o, ": ");
}

static void end_line(output *o) {
    if (o->open_line) put_z(o, "\n");
    o->open_line = false;
}

// Items are decoded together: the first one's text goes out as it is made, the others' with the
// result.
static void on_text(void *ctx, int image, int item, kt_str piece) {
    output *o = ctx;
    if (!o->stream || item != 0) return;
    begin_image(o, image);
    if (!o->open_line) put_title(o, 0);
    o->open_line = true;
    put(o, piece);
}

static void text_result(output *o, int image, const kt_result *result) {
    begin_image(o, image);
    bool shown = o->open_line;
    end_line(o);
    for (int i = shown ? 1 : 0; i < result->n_items; i++) {
        put_title(o, i);
        put(o, result->items[i].text);
        put_z(o, "\n");
    }
}

// ---- both formats

static void on_result(void *ctx, int image, const kt_result *result) {
    output *o = ctx;
    if (!o->json) {
        text_result(o, image, result);
        return;
    }
    kt_buf out = {0};
    kt_json_result(&out, result);
    put(o, (kt_str){out.at, out.n});
    kt_buf_deinit(&out);
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    output *o = ctx;
    (void)image;
    o->n_failed++;
    end_line(o);
    if (!o->json) {
        kt_log_error(err);
        return;
    }
    kt_buf out = {0};
    kt_json_failure(&out, path, err);
    put(o, (kt_str){out.at, out.n});
    kt_buf_deinit(&out);
}

// ---- the command

static int run_session(kt_session *session, const kt_args *args) {
    output o = {.session = session,
        .json = args->json,
        .stream = !args->json && kt_os_is_terminal(stdout),
        .n_images = args->n_positional - 1,
        .image = -1,
        .paths = args->positional + 1};
    kt_events events = {&o, o.stream ? on_text : NULL, on_result, on_failed};
    kt_err err;
    kt_status status = kt_session_run(session, o.paths, o.n_images, &events, &err);
    end_line(&o);
    if (o.broken) status = KT_FAIL(&err, KT_EFILE, "the results cannot be written");
    if (status != KT_OK) return kt_report(status, NULL, &err);
    return o.n_failed > 0 ? 1 : 0;
}

static void print_report(const kt_session *session, bool profile) {
    kt_buf out = {0};
    if (profile && kt_log_get_level() < KT_LOG_DEBUG) // else it has been said
        kt_session_print_times(session, &out);
    if (profile) kt_session_print_profile(session, &out);
    if (out.n > 0) fputs(out.at, stderr);
    kt_buf_deinit(&out);
}

int kt_cmd_run(int argc, char **argv) {
    static const char usage[] = "kotaro-run PIPELINE IMAGE... [-p TEXT] [options]";
    static kt_args args;
    if (!kt_args_read(&args, argc, argv, flags, sizeof flags / sizeof flags[0], usage))
        return args.code;
    if (args.n_positional < 1) return kt_usage("no pipeline given: %s", usage);
    if (args.run.n_dump_only > 0 && !args.run.dump)
        return kt_usage("option '--dump-only' needs a folder: --dump DIR");
    if (args.run.dump && args.n_positional > 2)
        return kt_usage("a dump is of one picture, and %d are given", args.n_positional - 1);
    args.run.pipeline = args.positional[0];
    args.run.dump_only = args.dump_only;
    args.run.several = args.n_positional > 2;
    args.run.no_picture = args.n_positional == 1;
    args.run.with_picture = args.n_positional > 1;
    kt_err err;
    kt_session *session = NULL;
    kt_buf report = {0};
    kt_status status = kt_session_open(&args.run, &session, &report, &err);
    int code = kt_report(status, &report, &err);
    kt_buf_deinit(&report);
    if (status != KT_OK) return code;
    code = run_session(session, &args);
    print_report(session, args.run.profile);
    kt_session_close(session);
    return code;
}
