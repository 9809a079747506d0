// kotaro verify PIPELINE --golden DIR: runs what a golden folder says and compares stage by stage.
#include "loader/npy.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/verify.h"
#include "tools/command.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *take_golden(kt_args *args, const char *value) {
    if (!*value) return "a folder";
    args->golden = value;
    return NULL;
}

static const kt_flag flags[] = {
    {"--golden", "DIR", "folder with golden.json: what to run, and what is right", take_golden},
    {"--model", "DIR", "model folder or .gguf file; without it the golden's, or the pipeline's",
        kt_take_model},
    {"--device", "auto|cuda|cpu", "where to run", kt_take_device},
    {"--set", "NAME=VALUE", "set a parameter, over what the golden sets", kt_take_set},
    {"--ops", "DIR", "more ops; one with a shipped op's name replaces it", kt_take_ops},
    {"--memory-limit", "SIZE", "refuse to use more (8G, 512M)", kt_take_memory},
    {"--format", "text|json", "json: one object", kt_take_format},
    {"--quiet", NULL, "say only warnings and errors on stderr", kt_take_quiet},
};

// ---- text

typedef struct report {
    const kt_golden *golden;
    const kt_verify *verify;
    const char *pipeline, *device;
} report;

static void print_place(const kt_verdict *v, kt_buf *out) {
    kt_buf_printf(out, "at ");
    kt_npy_print_shape(v->rank, v->worst, out);
}

enum { COLUMN_MOST = 40 };

static int longest_name(const kt_golden *g) {
    size_t most = 0;
    for (int i = 0; i < g->n_stages; i++)
        if (g->stages[i].name.n > most) most = g->stages[i].name.n;
    return most > COLUMN_MOST ? COLUMN_MOST : (int)most;
}

static int longest_address(const kt_golden *g) {
    size_t most = 0;
    for (int i = 0; i < g->n_addresses; i++)
        if (strlen(g->addresses[i]) > most) most = strlen(g->addresses[i]);
    return most > COLUMN_MOST ? COLUMN_MOST : (int)most;
}

static void print_numbers(const kt_golden_stage *s, const kt_verdict *v, kt_buf *out) {
    if (v->n_not_finite > 0) {
        kt_buf_printf(out, "%" PRId64 " not finite, the first (%g, golden %g) ", v->n_not_finite,
            v->got, v->wanted);
        print_place(v, out);
        return;
    }
    if (s->exact)
        kt_buf_printf(out, "%" PRId64 " of %" PRId64 " differ", v->n_different, v->n);
    else
        kt_buf_printf(out, "relative %.2e of %.2e", v->relative, s->relative);
    if (s->exact && v->n_different == 0) return;
    kt_buf_printf(out, ", largest %.2e ", v->largest);
    if (v->n == 0) return;
    print_place(v, out);
    kt_buf_printf(out, " (%.9g, golden %.9g)", v->got, v->wanted);
}

static void print_text(const report *r, kt_buf *out) {
    int names = longest_name(r->golden), addresses = longest_address(r->golden), n = 0;
    for (int i = 0; i < r->golden->n_stages; i++) {
        const kt_golden_stage *s = &r->golden->stages[i];
        const kt_verdict *v = &kt_verify_verdicts(r->verify)[i];
        n += v->passed;
        char address[COLUMN_MOST + 1];
        snprintf(address, sizeof address, "%.*s", KT_STR_ARG(s->address));
        if (s->batch > 0)
            snprintf(address, sizeof address, "%.*s@%" PRId64, KT_STR_ARG(s->address), s->batch);
        kt_buf_printf(out, "%-5s %-*.*s  %-*s ", v->passed ? "ok" : "FAIL", names,
            KT_STR_ARG(s->name), addresses, address);
        if (v->compared || v->rank > 0) kt_npy_print_shape(v->rank, v->shape, out);
        kt_buf_printf(out, " ");
        if (v->compared)
            print_numbers(s, v, out);
        else
            kt_buf_printf(out, "%s", v->problem);
        if (s->why.n > 0) kt_buf_printf(out, "; %.*s", KT_STR_ARG(s->why));
        kt_buf_printf(out, "\n");
    }
    kt_buf_printf(out, "%d of %d stages agree with '%s' on %s\n", n, r->golden->n_stages,
        r->golden->folder, r->device);
}

// ---- json

static void add_text(kt_buf *out, const char *key, kt_str text) {
    kt_buf_printf(out, "\"%s\": ", key);
    kt_json_text(out, text);
    kt_buf_printf(out, ", ");
}

static void add_real(kt_buf *out, const char *key, double value) {
    if (fabs(value) <= DBL_MAX)
        kt_buf_printf(out, "\"%s\": %.9g, ", key, value);
    else
        kt_buf_printf(out, "\"%s\": null, ", key);
}

static void add_numbers(const kt_golden_stage *s, const kt_verdict *v, kt_buf *out) {
    kt_buf_printf(out, "\"shape\": ");
    kt_npy_print_shape(v->rank, v->shape, out);
    kt_buf_printf(out,
        ", \"elements\": %" PRId64 ", \"different\": %" PRId64 ", \"not_finite\": %" PRId64 ", ",
        v->n, v->n_different, v->n_not_finite);
    add_real(out, "largest", v->largest);
    add_real(out, "relative", v->relative);
    if (!s->exact) add_real(out, "tolerance", s->relative);
    if (v->n > 0) {
        kt_buf_printf(out, "\"worst\": ");
        kt_npy_print_shape(v->rank, v->worst, out);
        kt_buf_printf(out, ", ");
        add_real(out, "got", v->got);
        add_real(out, "golden", v->wanted);
    }
}

static void print_json(const report *r, kt_buf *out) {
    kt_buf_printf(out, "{");
    add_text(out, "pipeline", kt_str_from(r->pipeline));
    add_text(out, "golden", kt_str_from(r->golden->folder));
    add_text(out, "device", kt_str_from(r->device));
    kt_buf_printf(
        out, "\"passed\": %s, \"stages\": [", kt_verify_passed(r->verify) ? "true" : "false");
    for (int i = 0; i < r->golden->n_stages; i++) {
        const kt_golden_stage *s = &r->golden->stages[i];
        const kt_verdict *v = &kt_verify_verdicts(r->verify)[i];
        kt_buf_printf(out, i ? ", {" : "{");
        add_text(out, "name", s->name);
        add_text(out, "address", s->address);
        kt_buf_printf(out, "\"batch\": %" PRId64 ", ", s->batch);
        add_text(out, "why", s->why);
        if (v->compared) add_numbers(s, v, out);
        if (v->problem) add_text(out, "problem", kt_str_from(v->problem));
        kt_buf_printf(out, "\"kind\": \"%s\", \"passed\": %s}", s->exact ? "exact" : "float",
            v->passed ? "true" : "false");
    }
    kt_buf_printf(out, "]}\n");
}

// ---- the command

// What the golden says, under what the command line says.
static void set_options(kt_args *args, kt_arena *arena, const kt_golden *g) {
    kt_options_run *o = &args->run;
    kt_setting *all = KT_NEW_ARRAY(arena, kt_setting, g->n_settings + o->n_settings + 1);
    if (g->n_settings > 0) memcpy(all, g->settings, sizeof *all * (size_t)g->n_settings);
    if (o->n_settings > 0)
        memcpy(all + g->n_settings, o->settings, sizeof *all * (size_t)o->n_settings);
    o->settings = all;
    o->n_settings += g->n_settings;
    if (!o->model) o->model = g->model;
    o->question = g->question;
    o->greedy = g->greedy;
    o->max_tokens = g->max_tokens;
    o->no_picture = !g->image;
    o->dump_only = g->addresses;
    o->n_dump_only = g->n_addresses;
}

// Another pipeline may have the same stages and other settings: that is for its user to judge.
static void check_pipeline(const char *path, const kt_golden *g) {
    const char *name = kt_path_name(path);
    if (g->pipeline.n > 0 && !kt_str_is(g->pipeline, name))
        kt_log_warn("'%s' was made for pipeline '%.*s', this is '%s'", g->folder,
            KT_STR_ARG(g->pipeline), name);
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    (void)image, (void)path;
    *(kt_err *)ctx = *err;
}

// Exit codes: 0 all agree, 1 some do not, else as any run's; a golden that cannot be run is 2.
static int compare(kt_args *args, const kt_golden *g, const kt_verify *verify) {
    kt_session *session = NULL;
    kt_err err = {0}, failed = {0};
    kt_buf out = {0};
    kt_status status = kt_session_open(&args->run, &session, &out, &err);
    int code = kt_report(status, &out, &err);
    kt_buf_clear(&out);
    if (status == KT_OK) {
        kt_events events = {.ctx = &failed, .failed = on_failed};
        status = kt_session_run(session, &g->image, g->image ? 1 : 0, &events, &err);
        if (status == KT_OK && failed.code != KT_OK) {
            err = failed;
            status = failed.code;
        }
        code = kt_report(status, NULL, &err);
    }
    if (status == KT_OK) {
        report r = {.golden = g,
            .verify = verify,
            .pipeline = args->run.pipeline,
            .device = kt_session_device(session)};
        (args->json ? print_json : print_text)(&r, &out);
        fputs(out.at, stdout);
        code = kt_verify_passed(verify) ? 0 : 1;
    } else if (code == 1) {
        code = 2;
    }
    kt_buf_deinit(&out);
    kt_session_close(session);
    return code;
}

int kt_cmd_verify(int argc, char **argv) {
    static kt_args args;
    if (!kt_args_read(&args, argc, argv, flags, sizeof flags / sizeof flags[0],
            "kotaro verify PIPELINE --golden DIR [options]"))
        return args.code;
    if (args.n_positional != 1) return kt_usage("kotaro verify takes one pipeline");
    if (!args.golden) return kt_usage("kotaro verify needs --golden DIR");
    args.run.pipeline = args.positional[0];
    kt_arena arena = {0};
    kt_golden golden;
    kt_err err;
    kt_status status = kt_golden_read(&arena, args.golden, &golden, &err);
    int code = kt_report(status, NULL, &err);
    if (status == KT_OK) {
        kt_verify *verify = kt_verify_new(&arena, &golden);
        check_pipeline(args.run.pipeline, &golden);
        set_options(&args, &arena, &golden);
        args.run.dump_to = kt_verify_to(verify);
        code = compare(&args, &golden, verify);
        kt_verify_close(verify);
    }
    kt_arena_deinit(&arena);
    return code;
}
