// The execution layer on the CPU with the model of the repository: host steps, loops, streams, the
// profile, JSON, and every error that a machine without a GPU can reach. No answer's text is
// expected.
#include "loader/json.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/session.h"
#include "tests/util.h"
#include "tools/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PIPELINE "pipelines/simple.yaml"
#define SCENE    "examples/scene.jpg"

enum { ITEMS = 3, RUNS = 4 };

// ---- what a run told

typedef struct told {
    kt_buf pieces[ITEMS], texts[ITEMS];
    int n_pieces, n_results, n_failed;
    kt_status failed[RUNS];
    char order[RUNS + 1]; // r or f, picture by picture
    kt_result last;
    kt_result_item items[ITEMS];
    volatile int *stop; // set at the first piece
} told;

static void on_text(void *ctx, int image, int item, kt_str piece) {
    told *t = ctx;
    (void)image;
    assert_true(item >= 0 && item < ITEMS);
    assert_true(kt_utf8_valid(piece));
    kt_buf_str(&t->pieces[item], piece);
    t->n_pieces++;
    if (t->stop) *t->stop = 1;
}

static void on_result(void *ctx, int image, const kt_result *result) {
    told *t = ctx;
    assert_int_equal(image, t->n_results + t->n_failed);
    assert_int_equal(result->n_items, ITEMS);
    t->order[t->n_results + t->n_failed] = 'r';
    t->n_results++;
    t->last = *result;
    for (int i = 0; i < ITEMS; i++) {
        t->items[i] = result->items[i];
        kt_buf_clear(&t->texts[i]);
        kt_buf_str(&t->texts[i], result->items[i].text);
    }
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    told *t = ctx;
    assert_int_equal(image, t->n_results + t->n_failed);
    assert_non_null(strstr(err->text, path));
    t->failed[t->n_failed] = err->code;
    t->order[t->n_results + t->n_failed] = 'f';
    t->n_failed++;
}

static kt_events events_of(told *t) {
    return (kt_events){t, on_text, on_result, on_failed};
}

static void forget(told *t) {
    for (int i = 0; i < ITEMS; i++) {
        kt_buf_deinit(&t->pieces[i]);
        kt_buf_deinit(&t->texts[i]);
    }
    *t = (told){0};
}

static kt_options_run usual(void) {
    return (kt_options_run){.pipeline = PIPELINE, .device = KT_DEVICE_CPU, .greedy = true};
}

static kt_session *open_session(const kt_options_run *options) {
    kt_session *session = NULL;
    kt_err err = {0};
    if (kt_session_open(options, &session, NULL, &err) != KT_OK) fail_msg("%s", err.text);
    return session;
}

// ---- host steps

static const kt_stage *find_stage(const kt_session *s, const char *name) {
    for (int i = 0; i < s->plan->n_stages; i++)
        if (kt_str_is(s->plan->stages[i].name, name)) return &s->plan->stages[i];
    fail_msg("no stage %s", name);
    return NULL;
}

static void run_host_steps(kt_request *r, const kt_stage *stage) {
    kt_err err = {0};
    for (int i = 0; i < stage->lists[0].n_steps; i++)
        if (stage->lists[0].steps[i].host &&
            kt_host_run(r, stage->lists[0].steps[i].host, &err) != KT_OK)
            fail_msg("%s", err.text);
}

static int find_tensor(const kt_session *s, const char *name) {
    for (int i = 0; i < s->plan->n_names; i++)
        if (kt_str_is(s->plan->names[i].name, name)) return s->plan->names[i].tensor;
    fail_msg("no tensor %s", name);
    return -1;
}

// The host copy of a tensor, of the size that the plan gives it now.
static const void *blob(const kt_request *r, const kt_session *s, const char *name) {
    int t = find_tensor(s, name);
    assert_non_null(r->blobs[t].data);
    assert_int_equal(r->blobs[t].bytes, kt_tensor_bytes(&s->plan->tensors[t], r->values));
    return r->blobs[t].data;
}

static int64_t dim(const kt_request *r, const kt_session *s, const char *name) {
    for (int i = 0; i < s->plan->n_dims; i++)
        if (kt_str_is(s->plan->dims[i].name, name)) return r->values[i];
    fail_msg("no dim %s", name);
    return 0;
}

static void exec_reads_and_cuts_a_picture(void **state) {
    (void)state;
    kt_setting small = {"image.longest", "100"};
    kt_options_run options = usual();
    options.settings = &small;
    options.n_settings = 1;
    kt_session *s = open_session(&options);
    kt_request *r = kt_request_open(&s->context, SCENE, 0);
    kt_image image = {0};
    kt_err err;
    assert_int_equal(kt_image_open(SCENE, NULL, true, &image, &err), KT_OK);
    run_host_steps(r, find_stage(s, "image"));
    const int32_t *size = blob(r, s, "image.size");
    assert_int_equal(size[0], image.height);
    assert_int_equal(size[1], image.width);
    assert_int_equal(dim(r, s, "photo"), (int64_t)image.height * image.width);
    assert_memory_equal(blob(r, s, "image.rgb"), image.rgb, (size_t)(3 * dim(r, s, "photo")));
    const int32_t *fit = blob(r, s, "image.fit.size"); // the longer side is 100 now
    assert_int_equal(fit[0] > fit[1] ? fit[0] : fit[1], 100);
    assert_int_equal(dim(r, s, "small"), fit[0] * fit[1]);
    const int32_t *offset = blob(r, s, "image.view.offset");
    const int32_t *view = blob(r, s, "image.view.size");
    int64_t views = dim(r, s, "views"), patches = 0;
    for (int64_t v = 0; v < views; v++) {
        assert_int_equal(offset[v], patches);
        patches += (int64_t)view[2 * v] * view[2 * v + 1];
    }
    assert_int_equal(offset[views], patches);
    assert_int_equal(dim(r, s, "patches"), patches);
    const float *level = blob(r, s, "image.view.level"); // (byte / 255 - mean) / std
    assert_true(level[0] < level[255]);
    kt_image_deinit(&image);
    kt_request_close(r);
    kt_session_close(s);
}

// A prompt holds the picture's rows in order, once.
static void check_prompt(const kt_prompt *prompt, int64_t rows) {
    int64_t next = 0;
    for (int64_t i = 0; i < prompt->n; i++)
        if (prompt->ids[i] < 0) assert_int_equal(prompt->ids[i], -1 - next++);
    assert_int_equal(next, rows);
}

static void check_chunks(const kt_request *r, const kt_session *s, const kt_prompts *prompts) {
    int ids = find_tensor(s, "prompt.chunk.ids"),
        segments = find_tensor(s, "prompt.chunk.segments");
    assert_true(r->n_batches > 0);
    int64_t tokens = 0, taken = 0;
    for (int i = 0; i < r->n_batches; i++) {
        const kt_blob *id = &r->batches[ids].at[i], *segment = &r->batches[segments].at[i];
        assert_int_equal(id->bytes, kt_tensor_bytes(&s->plan->tensors[ids], r->batch_values[i]));
        assert_int_equal(
            segment->bytes, kt_tensor_bytes(&s->plan->tensors[segments], r->batch_values[i]));
        tokens += id->bytes / 4;
        for (int64_t g = 0; g < segment->bytes / 16; g++)
            taken += ((const int32_t *)segment->data)[4 * g + 2];
    }
    assert_int_equal(tokens, taken);
    assert_int_equal(tokens, r->prompt_tokens - prompts->n); // all but the last of each
}

static void exec_writes_prompts_and_plans_rows(void **state) {
    (void)state;
    kt_options_run options = usual();
    options.max_tokens = 7;
    kt_session *s = open_session(&options);
    kt_request *r = kt_request_open(&s->context, SCENE, 0);
    run_host_steps(r, find_stage(s, "image"));
    run_host_steps(r, find_stage(s, "prompt"));
    const kt_prompts *prompts = kt_request_prompts(r);
    assert_int_equal(prompts->n, ITEMS);
    for (int i = 0; i < ITEMS; i++) check_prompt(&prompts->at[i], dim(r, s, "queried"));
    const int32_t *stop = blob(r, s, "prompt.stop");
    int64_t n_stop = s->plan->tensors[find_tensor(s, "prompt.stop")].bytes / 4;
    for (int64_t i = 0; i < n_stop; i++)
        assert_int_equal(stop[i], i < prompts->n_stop ? prompts->stop[i] : -1);
    assert_false(kt_chat_stops(prompts, -1));
    assert_true(kt_chat_stops(prompts, prompts->stop[0]));
    int64_t rows = dim(r, s, "rows");
    assert_int_equal(rows, 4); // the smallest bucket for three
    const int32_t *left = blob(r, s, "gen.left"), *segments = blob(r, s, "gen.segments");
    const int32_t *tokens = blob(r, s, "gen.tokens"), *next = blob(r, s, "gen.next");
    for (int i = 0; i < rows; i++) {
        assert_int_equal(left[i], i < ITEMS ? 7 : 0);
        assert_int_equal(segments[4 * i + 2], i < ITEMS ? 1 : 0);
        assert_int_equal(tokens[(ptrdiff_t)7 * i], -1);
        if (i >= ITEMS) continue;
        assert_int_equal(segments[4 * i + 1], prompts->at[i].n - 1);
        assert_int_equal(next[i], prompts->at[i].ids[prompts->at[i].n - 1]);
    }
    check_chunks(r, s, prompts);
    kt_request_close(r);
    kt_session_close(s);
}

// ---- loops and streams

static void exec_ends_items_by_length_or_by_themselves(void **state) {
    (void)state;
    static const int64_t caps[] = {1, 2, 5, 40};
    const char *images[] = {SCENE};
    for (size_t c = 0; c < sizeof caps / sizeof caps[0]; c++) {
        kt_options_run options = usual();
        options.max_tokens = caps[c];
        options.profile = c == 2;
        kt_session *s = open_session(&options);
        told t = {0};
        kt_events events = events_of(&t);
        kt_err err = {0};
        assert_int_equal(kt_session_run(s, images, 1, &events, &err), KT_OK);
        int64_t made = 0;
        for (int i = 0; i < ITEMS; i++) {
            assert_true(t.items[i].tokens >= 1 && t.items[i].tokens <= caps[c]);
            if (t.items[i].cut) assert_int_equal(t.items[i].tokens, caps[c]);
            made += t.items[i].tokens;
        }
        assert_int_equal(t.last.completion_tokens, made);
        const kt_result_ms *ms = &t.last.ms;
        assert_true(ms->load > 0 && ms->prepare > 0 && ms->image > 0 && ms->vision > 0);
        assert_true(ms->image + ms->vision + ms->prefill + ms->decode <= ms->total + 1);
        forget(&t);
        kt_session_close(s);
    }
}

// The pieces of each item are its text, whatever the model says; the same seed says the same.
static void exec_streams_what_it_returns(void **state) {
    (void)state;
    static const kt_setting hot[] = {
        {"sampler.temperature", "8"}, {"sampler.top_k", "0"}, {"sampler.top_p", "1"}};
    kt_setting settings[4] = {hot[0], hot[1], hot[2]};
    const char *images[] = {SCENE}, *seeds[] = {"1", "2", "3", "3"};
    kt_buf before = {0};
    for (int run = 0; run < 4; run++) {
        settings[3] = (kt_setting){"seed", seeds[run]};
        kt_options_run options = usual();
        options.greedy = false;
        options.settings = settings;
        options.n_settings = 4;
        options.max_tokens = 24;
        kt_session *s = open_session(&options);
        told t = {0};
        kt_events events = events_of(&t);
        kt_err err = {0};
        assert_int_equal(kt_session_run(s, images, 1, &events, &err), KT_OK);
        for (int i = 0; i < ITEMS; i++) {
            assert_int_equal(t.pieces[i].n, t.texts[i].n);
            if (t.texts[i].n > 0) assert_memory_equal(t.pieces[i].at, t.texts[i].at, t.texts[i].n);
        }
        kt_buf now = {0};
        for (int i = 0; i < ITEMS; i++) kt_buf_str(&now, (kt_str){t.texts[i].at, t.texts[i].n});
        bool same = kt_str_eq((kt_str){before.at, before.n}, (kt_str){now.at, now.n});
        if (run > 0) assert_true(same == (run == 3));
        kt_buf_deinit(&before);
        before = now;
        forget(&t);
        kt_session_close(s);
    }
    kt_buf_deinit(&before);
}

static void exec_goes_on_after_pictures_that_fail(void **state) {
    (void)state;
    const char *images[RUNS] = {"no/such.jpg", SCENE, "README.md", SCENE};
    for (int several = 0; several < 2; several++) {
        kt_options_run options = usual();
        options.max_tokens = 3;
        options.several = several == 1;
        kt_session *s = open_session(&options);
        told t = {0};
        kt_events events = events_of(&t);
        kt_err err = {0};
        assert_int_equal(kt_session_run(s, images, RUNS, &events, &err), KT_OK);
        assert_string_equal(t.order, "frfr");
        assert_int_equal(t.failed[0], KT_EFILE);
        assert_int_equal(t.failed[1], KT_EIMAGE);
        assert_int_equal(kt_session_run(s, images, RUNS, NULL, &err), KT_OK);
        forget(&t);
        kt_session_close(s);
    }
}

static void exec_stops_when_told(void **state) {
    (void)state;
    volatile int stop = 0;
    const char *images[] = {SCENE, SCENE};
    kt_options_run options = usual();
    options.stop = &stop;
    options.several = true;
    kt_session *s = open_session(&options);
    told t = {.stop = &stop};
    kt_events events = events_of(&t);
    kt_err err = {0};
    assert_int_equal(kt_session_run(s, images, 2, &events, &err), KT_EINTERRUPTED);
    assert_true(t.n_pieces > 0);
    assert_int_equal(t.n_results + t.n_failed, 0);
    stop = 0; // the session is as good as before
    t.stop = NULL;
    assert_int_equal(kt_session_run(s, images, 2, &events, &err), KT_OK);
    assert_int_equal(t.n_results, 2);
    forget(&t);
    kt_session_close(s);
    stop = 1;
    assert_int_equal(kt_session_open(&options, &s, NULL, &err), KT_EINTERRUPTED);
    assert_null(s);
}

// ---- the profile

static void exec_counts_calls_in_the_profile(void **state) {
    (void)state;
    const char *images[] = {SCENE};
    kt_options_run options = usual();
    options.profile = true;
    options.max_tokens = 6;
    kt_session *s = open_session(&options);
    told t = {0};
    kt_events events = events_of(&t);
    kt_err err = {0};
    assert_int_equal(kt_session_run(s, images, 1, &events, &err), KT_OK);
    int64_t steps = 0, samples = 0;
    double ms = 0;
    for (int i = 0; i < ITEMS; i++)
        if (t.items[i].tokens > steps) steps = t.items[i].tokens;
    for (size_t i = 0; i < s->profile.rows.n; i++) {
        const kt_profile_row *row = &s->profile.rows.at[i];
        assert_true(row->n > 0 && row->bytes > 0 && row->ms >= 0);
        ms += row->ms;
        if (kt_str_is(row->call->op->name, "sample")) samples += row->n;
    }
    assert_int_equal(samples, steps); // one step for all items at once
    assert_true(ms > 0 && ms <= t.last.ms.total);
    assert_true(s->profile.read_ceiling > 1e8 && s->profile.read_ceiling < 1e13);
    kt_buf out = {0};
    kt_session_print_profile(s, &out);
    static const char *const wanted[] = {"\n  vision ", "\n  decode ", "    sample ", "    total ",
        "  all ops, all pictures ", "reads of this device, measured: "};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        assert_non_null(strstr(out.at, wanted[i]));
    kt_buf_deinit(&out);
    forget(&t);
    kt_session_close(s);
}

// ---- JSON

static const kt_json *parsed(kt_arena *arena, const kt_buf *line) {
    kt_json_limits limits = {1 << 20, 8, 1000};
    const kt_json *root = NULL;
    kt_err err = {0};
    if (kt_json_parse(arena, (kt_str){line->at, line->n}, "line", limits, &root, &err) != KT_OK)
        fail_msg("%s in %.*s", err.text, (int)line->n, line->at);
    assert_int_equal(line->at[line->n - 1], '\n');
    for (size_t i = 0; i + 1 < line->n; i++) assert_true((unsigned char)line->at[i] >= 0x20);
    return root;
}

static void exec_prints_json_for_any_bytes(void **state) {
    (void)state;
    static const struct {
        kt_str in, out;
    } cases[] = {
        {{"", 0}, {"", 0}}, {{"a\"b\\c/", 6}, {"a\"b\\c/", 6}},
        {{"\b\f\n\r\t\x01\x1f\x7f", 8}, {"\b\f\n\r\t\x01\x1f\x7f", 8}},
        {{"\xe2\x80\xa8\xe2\x80\xa9", 6}, {"\xe2\x80\xa8\xe2\x80\xa9", 6}}, // U+2028, U+2029
        {{"\xf0\x9f\x8d\x8e", 4}, {"\xf0\x9f\x8d\x8e", 4}},
        {{"caf\xe9", 4}, {"caf\xef\xbf\xbd", 6}},                           // Latin-1
        {{"ab\xe3\x81", 4}, {"ab\xef\xbf\xbd\xef\xbf\xbd", 8}},             // cut short
        {{"\xed\xa0\x80", 3}, {"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 9}}, // a surrogate
        {{"\xc0\xaf", 2}, {"\xef\xbf\xbd\xef\xbf\xbd", 6}},                 // too long a form
    };
    kt_arena arena = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kt_result_item item = {cases[i].in, cases[i].in, cases[i].in, i % 2 == 1, 3};
        kt_result result = {
            .pipeline = "p", .model = "m\"", .device = "d", .items = &item, .n_items = 1};
        kt_buf line = {0};
        kt_json_result(&line, &result);
        const kt_json *root = parsed(&arena, &line);
        const kt_json *items = kt_json_find(root, KT_STR("items"));
        kt_str text, finish;
        assert_int_equal(items->n, 1);
        assert_true(kt_json_get_text(kt_json_find(items->as.items, KT_STR("text")), &text));
        assert_true(kt_str_eq(text, cases[i].out));
        assert_true(kt_json_get_text(kt_json_find(root, KT_STR("finish")), &finish));
        assert_true(kt_str_is(finish, i % 2 == 1 ? "length" : "stop"));
        assert_int_equal(kt_json_find(root, KT_STR("image"))->kind, KT_JSON_NULL);
        assert_int_equal(kt_json_find(root, KT_STR("ms"))->n, 7);
        kt_buf_deinit(&line);
    }
    kt_arena_deinit(&arena);
}

static void exec_prints_failures_as_json(void **state) {
    (void)state;
    kt_arena arena = {0};
    for (int code = 1; code < KT_STATUS_COUNT; code++) {
        kt_err err;
        kt_status status = KT_FAIL(&err, (kt_status)code, "line one \"%s\"", "\xff");
        kt_err_note(&err, "line two");
        assert_int_equal(status, code);
        kt_buf line = {0};
        kt_json_failure(&line, "a\xff.jpg", &err);
        const kt_json *error = kt_json_find(parsed(&arena, &line), KT_STR("error"));
        kt_str name, message;
        assert_true(kt_json_get_text(kt_json_find(error, KT_STR("code")), &name));
        assert_true(kt_str_is(name, kt_status_name((kt_status)code)));
        assert_true(kt_json_get_text(kt_json_find(error, KT_STR("message")), &message));
        assert_true(kt_str_is(message, "line one \"\xef\xbf\xbd\"\nnote: line two"));
        kt_buf_deinit(&line);
    }
    kt_arena_deinit(&arena);
}

// ---- errors

static void fails(const kt_options_run *options, kt_status code, const char *text) {
    kt_session *s = NULL;
    kt_err err = {0};
    kt_buf report = {0};
    kt_status status = kt_session_open(options, &s, &report, &err);
    if (status != code || s)
        fail_msg("%s, expected %s: %s", kt_status_name(status), kt_status_name(code), err.text);
    kt_buf_printf(&report, "%s", err.text);
    if (!strstr(report.at, text)) fail_msg("'%s' is not in: %s", text, report.at);
    kt_buf_deinit(&report);
}

static void exec_tells_what_is_wrong_when_opening(void **state) {
    (void)state;
    kt_options_run o = usual();
    o.pipeline = "no/such.yaml";
    fails(&o, KT_EYAML, "no/such.yaml");
    o = usual();
    o.model = "no/such";
    fails(&o, KT_EFILE, "no/such");
    o = usual();
    o.pipeline = "pipelines/chat_text.yaml";
    o.question = "why?";
    fails(&o, KT_EUSAGE, "--model");
    o = usual();
    o.no_picture = true;
    fails(&o, KT_EUSAGE, "looks at a picture");
    o = usual();
    o.memory_limit = 1 << 20;
    fails(&o, KT_EMEMORY, "1.0 MiB may be used");
    kt_setting wrong = {"nobody", "1"};
    o = usual();
    o.settings = &wrong;
    o.n_settings = 1;
    fails(&o, KT_EYAML, "nobody");
    o = usual();
    o.question = "\xff";
    kt_session *s = NULL;
    kt_err err = {0};
    if (kt_session_open(&o, &s, NULL, &err) == KT_OK) { // told with the picture, not by a crash
        const char *images[] = {SCENE};
        told t = {0};
        kt_events events = {.ctx = &t, .failed = on_failed};
        assert_int_equal(kt_session_run(s, images, 1, &events, &err), KT_OK);
        assert_int_equal(t.failed[0], KT_EPROMPT);
        assert_int_equal(kt_session_run(s, NULL, 0, &events, &err), KT_EUSAGE);
        kt_session_close(s);
    }
    if (kt_os_stat("/dev/nvidiactl").kind != KT_PATH_NONE) return;
    o = usual();
    o.device = KT_DEVICE_CUDA;
    fails(&o, KT_EDRIVER, "--device cpu");
}

static void copy_file(kt_arena *arena, const char *from, const char *to, const char *more) {
    kt_str text;
    kt_err err = {0};
    assert_int_equal(kt_file_read(arena, from, 1 << 20, &text, &err), KT_OK);
    const char *all = kt_arena_printf(arena, "%.*s%s", KT_STR_ARG(text), more);
    assert_int_equal(kt_os_write_atomic(to, all, strlen(all), &err), KT_OK);
}

static void exec_tells_what_is_wrong_with_ops(void **state) {
    (void)state;
    kt_arena arena = {0};
    const char *folder = test_folder(&arena);
    char *op = kt_path_join(&arena, folder, "sum_parts");
    char *manifest = kt_path_join(&arena, op, "op.yaml"),
         *c = kt_path_join(&arena, op, "sum_parts.c");
    assert_true(kt_os_mkdirs(op));
    const char *folders[] = {folder, folder};
    kt_options_run o = usual();
    o.ops = folders;
    o.n_ops = 1;
    copy_file(&arena, "ops/sum_parts/op.yaml", manifest, "");
    fails(&o, KT_EOP, "has no CPU implementation");
    copy_file(&arena, "ops/sum_parts/sum_parts.c", c, "#error planted\n");
    fails(&o, KT_ECOMPILE, "planted");
    copy_file(&arena, "ops/rope/rope.c", c, "");
    fails(&o, KT_EOP, "says that it is op 'rope'");
    o.n_ops = 2;
    fails(&o, KT_EYAML, "sum_parts");
    test_remove(folder);
    kt_arena_deinit(&arena);
}

int main(void) {
    kt_log_set_level(KT_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exec_reads_and_cuts_a_picture),
        cmocka_unit_test(exec_writes_prompts_and_plans_rows),
        cmocka_unit_test(exec_ends_items_by_length_or_by_themselves),
        cmocka_unit_test(exec_streams_what_it_returns),
        cmocka_unit_test(exec_goes_on_after_pictures_that_fail),
        cmocka_unit_test(exec_stops_when_told),
        cmocka_unit_test(exec_counts_calls_in_the_profile),
        cmocka_unit_test(exec_prints_json_for_any_bytes),
        cmocka_unit_test(exec_prints_failures_as_json),
        cmocka_unit_test(exec_tells_what_is_wrong_when_opening),
        cmocka_unit_test(exec_tells_what_is_wrong_with_ops),
    };
    return cmocka_run_group_tests_name("exec", tests, NULL, NULL);
}
