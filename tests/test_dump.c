// What a dump holds is what the run made: on the CPU, with the model of the repository, tensors are
// held against each other, against the answers and against the picture. Then folders and goldens,
// which need the same runs (hence one file).
#include "loader/image.h"
#include "loader/json.h"
#include "loader/npy.h"
#include "loader/resize.h"
#include "runtime/base/f16.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/session.h"
#include "runtime/exec/verify.h"
#include "tests/util.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PIPELINE "pipelines/simple.yaml"
#define SCENE    "examples/scene.jpg"

enum { ITEMS = 3, CAP = 4, LAYERS = 4, BLOCKS = 5, TENSORS = 512 };

static kt_arena arena;

// ---- a run that is looked at

typedef struct seen {
    kt_dump_tensor at[TENSORS];
    int n;
    kt_buf texts; // of the answers
    kt_status failed;
    kt_status end_with; // what the taker says
} seen;

static kt_status take(void *ctx, const kt_dump_tensor *t, kt_err *err) {
    seen *s = ctx;
    if (s->end_with != KT_OK) return KT_FAIL(err, s->end_with, "the disk is full");
    assert_true(s->n < TENSORS);
    kt_dump_tensor *copy = &s->at[s->n++];
    size_t bytes = (size_t)(t->n * kt_dtype_bytes(t->dtype));
    *copy = *t;
    copy->data = memcpy(kt_arena_alloc(&arena, bytes + 1), t->data ? t->data : "", bytes);
    copy->address = kt_str_copy(&arena, t->address); // the plan's, which goes with the session
    copy->stage = kt_str_copy(&arena, t->stage);
    copy->step = kt_str_copy(&arena, t->step);
    return KT_OK;
}

static void on_result(void *ctx, int image, const kt_result *result) {
    seen *s = ctx;
    (void)image;
    for (int i = 0; i < result->n_items; i++) {
        kt_buf_str(&s->texts, result->items[i].text);
        kt_buf_add(&s->texts, "\n", 1);
    }
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    seen *s = ctx;
    (void)image, (void)path;
    s->failed = err->code;
}

static const kt_setting plain[] = {
    {"sampler.repetition_penalty", "1"}, {"image.longest", "112"}}; // small: many runs

static kt_options_run usual(void) {
    return (kt_options_run){.pipeline = PIPELINE,
        .device = KT_DEVICE_CPU,
        .greedy = true,
        .max_tokens = CAP,
        .settings = plain,
        .n_settings = 2};
}

static kt_status run(const kt_options_run *options, const char *image, seen *s, kt_err *err) {
    kt_session *session = NULL;
    KT_TRY(kt_session_open(options, &session, NULL, err));
    kt_events events = {.ctx = s, .result = on_result, .failed = on_failed};
    kt_status status = kt_session_run(session, &image, image ? 1 : 0, &events, err);
    kt_session_close(session);
    return status;
}

// Looks at `only` (NULL-terminated; NULL: the usual ones).
static seen *look_with(kt_options_run options, const char *const *only) {
    seen *s = KT_NEW(&arena, seen);
    kt_dump_to to = {s, take};
    kt_err err = {0};
    options.dump_to = &to;
    options.dump_only = only;
    while (only && only[options.n_dump_only]) options.n_dump_only++;
    if (run(&options, SCENE, s, &err) != KT_OK) fail_msg("%s", err.text);
    assert_int_equal(s->failed, KT_OK);
    return s;
}

static seen *look(const char *const *only) {
    return look_with(usual(), only);
}

static const kt_dump_tensor *find(const seen *s, const char *address, int64_t index) {
    for (int i = 0; i < s->n; i++)
        if (kt_str_is(s->at[i].address, address) && s->at[i].index == index) return &s->at[i];
    return NULL;
}

static const kt_dump_tensor *get(const seen *s, const char *address, int64_t index) {
    const kt_dump_tensor *t = find(s, address, index);
    if (!t) fail_msg("no '%s', %" PRId64, address, index);
    return t;
}

static void same(const kt_dump_tensor *a, const kt_dump_tensor *b) {
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->data, b->data, (size_t)(a->n * kt_dtype_bytes(a->dtype)));
}

// ---- what is in it

// The likeliest token of every step is the token of the answer.
static void dump_logits_choose_the_answer(void **state) {
    (void)state;
    seen *s = look(NULL);
    const kt_dump_tensor *answers = get(s, "answer.answers", -1);
    assert_int_equal(answers->rank, 2);
    assert_int_equal(answers->shape[0], 4); // the bucket for three
    assert_int_equal(answers->shape[1], CAP);
    const int64_t cap = CAP;
    const int32_t *ids = answers->data;
    for (int64_t step = 0; step < CAP; step++) {
        const kt_dump_tensor *logits = get(s, "decode.logits", step);
        int64_t vocab = logits->shape[1];
        assert_int_equal(logits->dtype, KT_DTYPE_F32);
        for (int row = 0; row < ITEMS; row++) {
            const float *l = (const float *)logits->data + row * vocab;
            int64_t best = 0;
            for (int64_t i = 1; i < vocab; i++)
                if (l[i] > l[best]) best = i;
            if (ids[row * cap + step] >= 0) assert_int_equal(ids[row * cap + step], best);
        }
    }
    for (int i = 0; i < CAP; i++) assert_int_equal(ids[ITEMS * CAP + i], -1); // no fourth item
    assert_null(find(s, "decode.logits", CAP));
    kt_buf_deinit(&s->texts);
}

// Looking changes nothing, and what is dumped alone is what is dumped with all else.
static void dump_changes_nothing(void **state) {
    (void)state;
    seen *all = look(NULL), none = {0};
    kt_options_run options = usual();
    kt_err err = {0};
    assert_int_equal(run(&options, SCENE, &none, &err), KT_OK);
    assert_true(none.texts.n > ITEMS);
    assert_string_equal(all->texts.at, none.texts.at);
    static const kt_setting same_values[] = {
        {"sampler.repetition_penalty", "1"}, {"language", "en"}, {"image.longest", "112"}};
    static const char *const only[] = {
        "prefill[l=2].x1", "decode[l=3].p1@2", "vision.seen", "prompt.chunk.ids@0", NULL};
    options.settings = same_values;
    options.n_settings = 3;
    seen *some = look_with(options, only);
    assert_int_equal(some->n, 4);
    for (int i = 0; i < some->n; i++) {
        const kt_dump_tensor *t = &some->at[i];
        same(t, get(all, kt_str_z(&arena, t->address), t->index));
    }
    assert_non_null(find(some, "decode[l=3].p1", 2));
    kt_buf_deinit(&all->texts);
    kt_buf_deinit(&none.texts);
    kt_buf_deinit(&some->texts);
}

// A layer's input is the sum of what the layer before it made: fetched too late, the memory would
// hold something else already.
static void dump_layers_follow_each_other(void **state) {
    (void)state;
    static const char *const only[] = {"prefill[l=*].x1", "prefill[l=*].p1", "vision[v=*].x1",
        "vision[v=*].p1", "prefill[l=*].0/0/x_out", "vision[v=*].0/0/x_out", "vision.h", NULL};
    seen *s = look(only);
    int links = 0;
    for (int stage = 0; stage < 2; stage++) {
        const char *name = stage ? "vision[v" : "prefill[l";
        int64_t index = stage ? -1 : 0, layers = stage ? BLOCKS : LAYERS;
        for (int64_t l = 0; l + 1 < layers + stage; l++) { // the last block's sum is vision.h
            char x[64], p[64], next[64];
            snprintf(x, sizeof x, "%s=%" PRId64 "].x1", name, l);
            snprintf(p, sizeof p, "%s=%" PRId64 "].p1", name, l);
            snprintf(next, sizeof next, "%s=%" PRId64 "].0/0/x_out", name, l + 1);
            if (l + 1 == layers) snprintf(next, sizeof next, "vision.h");
            const kt_dump_tensor *sum = get(s, next, index);
            const float *a = get(s, x, index)->data, *b = get(s, p, index)->data, *c = sum->data;
            assert_int_equal(get(s, p, index)->shape[0], 1);
            for (int64_t i = 0; i < sum->n; i++) assert_true(a[i] + b[i] == c[i]);
            links++;
        }
    }
    assert_int_equal(links, LAYERS - 1 + BLOCKS);
    kt_buf_deinit(&s->texts);
}

// One axis of one pixel by the definition in loader/resize.h.
static uint8_t tap(const int32_t *table, int n, int k, int i, const uint8_t *x, int stride) {
    const int32_t *weight = table + (ptrdiff_t)2 * n + (ptrdiff_t)i * k;
    int64_t sum = 1 << 21;
    for (int t = 0; t < table[n + i]; t++)
        sum += (int64_t)weight[t] * x[(ptrdiff_t)(table[i] + t) * stride];
    sum >>= 22;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void dump_photo_is_the_resized_picture(void **state) {
    (void)state;
    static const char *const only[] = {"vision.photo", "image.rgb", "image.fit", NULL};
    seen *s = look(only);
    kt_image image;
    kt_err err = {0};
    assert_int_equal(kt_image_open(SCENE, NULL, true, &image, &err), KT_OK);
    const kt_dump_tensor *rgb = get(s, "image.rgb", -1), *photo = get(s, "vision.photo", -1);
    assert_int_equal(rgb->dtype, KT_DTYPE_U8);
    assert_int_equal(rgb->n, 3 * (int64_t)image.height * image.width);
    assert_memory_equal(rgb->data, image.rgb, (size_t)rgb->n);
    const int32_t(*to)[2] = (const int32_t(*)[2])get(s, "image.fit.size", -1)->data;
    int height = to[0][0], width = to[0][1];
    assert_true(width == 112 && height < image.height);
    kt_resize_job job = {KT_RESIZE_LANCZOS, image.height, image.width, 1, to};
    int64_t n;
    assert_int_equal(kt_resize_count(&job, &n, &err), KT_OK);
    int32_t *taps = KT_NEW_ARRAY(&arena, int32_t, n);
    kt_resize_taps(&job, taps);
    assert_int_equal(get(s, "image.fit.taps", -1)->n, n);
    uint8_t *middle = kt_arena_alloc(&arena, 3 * (size_t)image.height * (size_t)width);
    for (int y = 0; y < image.height; y++)
        for (int i = 0; i < 3 * width; i++)
            middle[y * 3 * width + i] = tap(taps + taps[0], width, taps[2], i / 3,
                image.rgb + (ptrdiff_t)y * 3 * image.width + i % 3, 3);
    assert_int_equal(photo->n, 3 * (int64_t)height * width);
    const uint8_t *out = photo->data;
    for (int y = 0; y < height; y++)
        for (int i = 0; i < 3 * width; i++)
            assert_int_equal(out[y * 3 * width + i],
                tap(taps + taps[1], height, taps[3], y, middle + i, 3 * width));
    kt_image_deinit(&image);
    kt_buf_deinit(&s->texts);
}

// More tokens than a chunk holds: all batches together are the prompt but its last token.
static void dump_numbers_batches(void **state) {
    (void)state;
    enum { CHUNK = 512 }; // of chat_text.yaml
    kt_buf question = {0};
    for (int i = 0; i < 1400; i++) kt_buf_printf(&question, "scene ");
    kt_options_run options = usual();
    options.question = question.at;
    options.max_tokens = 1;
    static const char *const only[] = {"prompt.prompt", "prompt.chunk.ids", "prefill.x0",
        "prompt.1.gen.next", "prompt.1.table", NULL};
    seen *s = look_with(options, only);
    const kt_dump_tensor *prompt = get(s, "prompt.prompt", -1);
    const kt_dump_tensor *next = get(s, "prompt.1.gen.next", -1);
    const int32_t *ids = prompt->data;
    int64_t at = 0, batches = 0;
    for (const kt_dump_tensor *t; (t = find(s, "prompt.chunk.ids", batches)) != NULL; batches++) {
        assert_memory_equal(t->data, ids + at, (size_t)t->n * sizeof *ids);
        const kt_dump_tensor *x = get(s, "prefill.x0", batches); // of this batch's size
        assert_true(x->rank == 2 && x->shape[0] == t->n);
        at += t->n;
    }
    assert_int_equal(at, prompt->n - 1);
    assert_true(at > CHUNK);
    assert_int_equal(batches, (at + CHUNK - 1) / CHUNK);
    assert_int_equal(((const int32_t *)next->data)[0], ids[at]);
    assert_int_equal(get(s, "prompt.1.table", -1)->dtype, KT_DTYPE_I32);
    kt_buf_deinit(&question);
    kt_buf_deinit(&s->texts);
}

// Sixteen bits become f32 without loss, and shapes are the request's, not the plan's.
static void dump_widens_floats(void **state) {
    (void)state;
    static const char *const only[] = {"vision.rows", "vision.seen", "image.view.level", NULL};
    seen *s = look(only);
    const kt_dump_tensor *rows = get(s, "vision.rows", -1);
    assert_int_equal(rows->made, KT_DTYPE_F16);
    assert_int_equal(rows->dtype, KT_DTYPE_F32);
    assert_int_equal(rows->shape[0], 64); // one view
    const float *x = rows->data;
    int alive = 0;
    for (int64_t i = 0; i < rows->n; i++) {
        assert_true(kt_f16_to_f32(kt_f32_to_f16(x[i])) == x[i]);
        alive += x[i] != 0;
    }
    assert_true(alive > rows->n / 2);
    assert_true(kt_str_is(rows->stage, "vision") && kt_str_is(rows->step, "vision.8/11"));
    kt_buf_deinit(&s->texts);
}

// ---- addresses

static void dump_takes_addresses(void **state) {
    (void)state;
    static const struct {
        const char *only[3];
        int n;
        const char *has; // one of them
        int64_t index;
    } cases[] = {
        {{"vision.photo"}, 1, "vision.photo", -1},
        {{"vision.photo@0"}, 1, "vision.photo", -1},
        {{"vision.0.photo"}, 1, "vision.0.photo", -1}, // by its step
        {{"vision.0"}, 1, "vision.photo", -1},         // a step: what it makes, by the best name
        {{"decode.logits"}, CAP, "decode.logits", 3},
        {{"decode.logits@2"}, 1, "decode.logits", 2},
        {{"decode.logits@2", "decode.logits@0"}, 2, "decode.logits", 0},
        {{"image.view"}, 4, "image.view.offset", -1},
        {{"prefill.x"}, 1, "prefill.x", 0}, // the last layer's, after the repeat
        {{"prefill.x", "prefill[l=3].x1"}, 2, "prefill[l=3].x1", 0},
        {{"prefill[l=*].x1"}, LAYERS, "prefill[l=1].x1", 0},
        {{"prefill[l=1].0/1"}, 1, "prefill[l=1].0/a", 0},
        {{"prefill[l=1].0/3/h"}, 1, "prefill[l=1].0/3/h", 0},
        {{"prefill[l=1].0/0/7"}, 1, "prefill[l=1].0/0/7.pool.1", 0}, // state that it changes
        {{"decode.choose.gen.left"}, CAP, "decode.choose.gen.left", 1},
        {{"answer"}, 1, "answer.answers", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        seen *s = look(cases[i].only);
        if (s->n != cases[i].n) fail_msg("'%s': %d", cases[i].only[0], s->n);
        assert_non_null(get(s, cases[i].has, cases[i].index));
        kt_buf_deinit(&s->texts);
    }
    // All below a layer, each tensor once, and nothing of another layer.
    static const char *const layer[] = {"prefill[l=1]", NULL};
    seen *s = look(layer);
    assert_true(s->n > 10);
    assert_non_null(find(s, "prefill[l=1].x1", 0));
    for (int i = 0; i < s->n; i++) {
        assert_true(kt_str_starts(s->at[i].address, KT_STR("prefill[l=1].")));
        for (int k = 0; k < i; k++) assert_false(kt_str_eq(s->at[i].address, s->at[k].address));
    }
    assert_null(find(s, "prefill[l=1].0/3/x_out", 0)); // it is x1
    kt_buf_deinit(&s->texts);
}

static void dump_refuses_unknown_addresses(void **state) {
    (void)state;
    static const struct {
        const char *address, *message;
    } cases[] = {{"decode.logitz", "did you mean 'decode.logits'"},
        {"prefill[l=9].x1", "'prefill[l=3].x1'"}, {"nowhere*", "plan"},
        {"vision.pho", "kotaro plan pipelines/simple.yaml --all"},
        {"dec.0.attn.q", "nothing in pipeline 'simple'"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kt_options_run options = usual();
        seen s = {0};
        kt_dump_to to = {&s, take};
        kt_err err = {0};
        options.dump_to = &to;
        options.dump_only = &cases[i].address;
        options.n_dump_only = 1;
        assert_int_equal(run(&options, SCENE, &s, &err), KT_EUSAGE);
        if (!strstr(err.text, cases[i].message)) fail_msg("%s", err.text);
        assert_non_null(strstr(err.text, cases[i].address));
    }
}

// An error of the taker ends the run, whatever its kind; one of the picture leaves no tensors.
static void dump_ends_with_its_taker(void **state) {
    (void)state;
    seen s = {.end_with = KT_EFILE};
    kt_dump_to to = {&s, take};
    kt_err err = {0};
    kt_options_run options = usual();
    options.dump_to = &to;
    assert_int_equal(run(&options, SCENE, &s, &err), KT_EFILE);
    assert_non_null(strstr(err.text, "the disk is full"));
    assert_int_equal(s.failed, KT_OK);
    s.end_with = KT_OK;
    assert_int_equal(run(&options, "nowhere.jpg", &s, &err), KT_OK);
    assert_int_equal(s.failed, KT_EFILE);
    assert_int_equal(s.n, 0);
    const char *two[] = {SCENE, SCENE};
    kt_session *session = NULL;
    assert_int_equal(kt_session_open(&options, &session, NULL, &err), KT_OK);
    assert_int_equal(kt_session_run(session, two, 2, NULL, &err), KT_EUSAGE);
    kt_session_close(session);
}

// ---- folders

static kt_status dump_to_folder(
    const char *folder, const char *only, const char *image, kt_err *err) {
    kt_options_run options = usual();
    seen s = {0};
    options.dump = folder;
    options.dump_only = &only;
    options.n_dump_only = only ? 1 : 0;
    kt_status status = run(&options, image, &s, err);
    kt_buf_deinit(&s.texts);
    return status == KT_OK ? s.failed : status;
}

static int count_files(const char *folder) {
    int n;
    kt_os_list(&arena, folder, &n);
    return n;
}

static const kt_json *member(const kt_json *object, const char *name) {
    const kt_json *found = kt_json_find(object, kt_str_from(name));
    if (!found) fail_msg("no '%s'", name);
    return found;
}

static void folder_holds_what_its_index_says(void **state) {
    (void)state;
    const char *folder = kt_path_join(&arena, test_folder(&arena), "a/b");
    kt_err err = {0};
    if (dump_to_folder(folder, NULL, SCENE, &err) != KT_OK) fail_msg("%s", err.text);
    const kt_json *index;
    const kt_json_limits limits = {1 << 20, 8, 100000};
    assert_int_equal(
        kt_json_read(&arena, kt_path_join(&arena, folder, "index.json"), limits, &index, &err),
        KT_OK);
    const kt_json *tensors = member(index, "tensors");
    seen *s = look(NULL);
    assert_int_equal(tensors->n, s->n);
    assert_int_equal(count_files(folder), s->n + 1);
    for (int i = 0; i < s->n; i++) {
        const kt_json *row = &tensors->as.items[i];
        const kt_dump_tensor *t = &s->at[i];
        char *address = kt_str_z(&arena, t->address);
        if (t->index >= 0) address = kt_arena_printf(&arena, "%s@%" PRId64, address, t->index);
        assert_true(kt_str_is(member(row, "address")->as.text, address));
        kt_str file = member(row, "file")->as.text;
        for (size_t c = 0; c < file.n; c++) assert_null(strchr("[]=/\\:*?\"<>| ", file.at[c]));
        kt_npy npy;
        const char *path = kt_path_join(&arena, folder, kt_str_z(&arena, file));
        if (kt_npy_open(path, &npy, &err) != KT_OK) fail_msg("%s", err.text);
        assert_int_equal(npy.head.dtype, t->dtype);
        assert_int_equal(npy.head.rank, t->rank);
        for (int a = 0; a < t->rank; a++) {
            assert_int_equal(npy.head.shape[a], t->shape[a]);
            assert_int_equal(member(row, "shape")->as.items[a].as.integer, t->shape[a]);
        }
        char *data = kt_arena_alloc(&arena, (size_t)npy.head.data_bytes + 1);
        assert_int_equal(kt_npy_read(&npy, 0, npy.head.n, data, &err), KT_OK);
        assert_memory_equal(data, t->data, (size_t)npy.head.data_bytes);
        kt_npy_close(&npy);
    }
    kt_buf_deinit(&s->texts);
    test_remove(kt_path_folder(&arena, kt_path_folder(&arena, folder)));
}

static void folder_loses_nothing(void **state) {
    (void)state;
    const char *folder = test_folder(&arena);
    kt_err err = {0};
    assert_int_equal(dump_to_folder(folder, "vision.photo", SCENE, &err), KT_OK);
    assert_int_equal(count_files(folder), 2);
    // Its own former dump goes, in whole; but only for a new one.
    assert_int_equal(dump_to_folder(folder, "vision", "nowhere.jpg", &err), KT_EFILE);
    assert_int_equal(dump_to_folder(folder, "nothing", SCENE, &err), KT_EUSAGE);
    assert_int_equal(count_files(folder), 2);
    assert_int_equal(dump_to_folder(folder, "decode.logits", SCENE, &err), KT_OK);
    assert_int_equal(count_files(folder), CAP + 1);
    // Anything else stays, and stops the dump before a model is loaded.
    const char *mine = test_put(&arena, folder, "vision.mine.npy", "mine");
    assert_int_equal(dump_to_folder(folder, "vision.photo", SCENE, &err), KT_EFILE);
    assert_non_null(strstr(err.text, "vision.mine.npy"));
    assert_int_equal(count_files(folder), CAP + 2);
    assert_int_equal(dump_to_folder(mine, "vision.photo", SCENE, &err), KT_EFILE);
    assert_non_null(strstr(err.text, "is no folder"));
    test_remove(mine);
    test_remove(kt_path_join(&arena, folder, "index.json")); // then nothing says what these are
    assert_int_equal(dump_to_folder(folder, "vision.photo", SCENE, &err), KT_EFILE);
    test_remove(folder);
}

// A session that runs twice leaves the second run's files, under the same names.
static void folder_holds_the_last_run(void **state) {
    (void)state;
    const char *folder = test_folder(&arena), *only = "vision.rows", *image = SCENE;
    const char *path = kt_path_join(&arena, folder, "vision.rows.npy");
    kt_options_run options = usual();
    kt_session *session = NULL;
    kt_err err = {0};
    options.dump = folder;
    options.dump_only = &only;
    options.n_dump_only = 1;
    assert_int_equal(kt_session_open(&options, &session, NULL, &err), KT_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(kt_session_run(session, &image, 1, NULL, &err), KT_OK);
        assert_int_equal(count_files(folder), 2);
        assert_int_equal(kt_os_stat(path).kind, KT_PATH_FILE);
        if (i == 0) test_write(path, "old", 3);
    }
    assert_true(kt_os_stat(path).size_bytes > 1000);
    kt_session_close(session);
    test_remove(folder);
}

// ---- goldens

// A golden of what a run made, written next to the test's other files.
static void write_golden(const char *folder, const char *stages) {
    test_put(&arena, folder, "golden.json",
        kt_arena_printf(&arena,
            "{\"kotaro\": \"golden/1\", \"model\": null, \"image\": null, \"question\": null, "
            "\"set\": {\"sampler.repetition_penalty\": 1, \"image.longest\": 112}, \"greedy\": "
            "true, \"max_tokens\": %d, "
            "\"stages\": [%s]}",
            CAP, stages));
}

// The rows `from` to `to` of a tensor, partial sums added, as a golden's file.
static void write_rows(const char *folder, const char *file, const kt_dump_tensor *x,
    const kt_dump_tensor *plus, int64_t from, int64_t to) {
    int64_t shape[KT_MAX_RANK], width = x->n / x->shape[0], word = kt_dtype_bytes(x->dtype);
    memcpy(shape, x->shape, sizeof shape);
    shape[0] = to - from;
    size_t bytes = (size_t)((to - from) * width * word);
    char *data = kt_arena_alloc(&arena, bytes);
    memcpy(data, (const char *)x->data + from * width * word, bytes);
    for (int64_t i = 0; plus && i < (to - from) * width; i++)
        for (int64_t s = 0; s < plus->shape[0]; s++)
            ((float *)(void *)data)[i] += ((const float *)plus->data)[s * x->n + from * width + i];
    kt_err err = {0};
    const char *path = kt_path_join(&arena, folder, file);
    assert_int_equal(kt_npy_write(path, x->dtype, x->rank, shape, data, &err), KT_OK);
}

#define STAGES                                                                                     \
    "{\"name\": \"photo\", \"address\": \"vision.photo\", \"file\": \"photo.npy\", "               \
    "\"kind\": \"exact\"}, "                                                                       \
    "{\"name\": \"layer 2\", \"address\": \"prefill[l=2].x1\", \"plus\": \"prefill[l=2].p1\", "    \
    "\"batch\": 0, \"rows\": [3, 11], \"file\": \"layer.npy\", \"kind\": \"float\", "              \
    "\"relative\": 1e-6, \"why\": \"the same sum in f32 and in f64\"}, "                           \
    "{\"name\": \"step 1\", \"address\": \"decode[l=0].x1\", \"plus\": \"decode[l=0].p1\", "       \
    "\"batch\": 1, \"rows\": [1, 3], \"file\": \"step.npy\", \"kind\": \"float\", "                \
    "\"relative\": 1e-6, \"why\": \"the same\"}, "                                                 \
    "{\"name\": \"logits\", \"address\": \"decode.logits\", \"batch\": 2, \"file\": "              \
    "\"logits.npy\", \"kind\": \"float\", \"relative\": 0, \"why\": \"the same run\"}"

enum { PHOTO, LAYER, STEP, LOGITS, N_STAGES };

static const char *make_golden(void) {
    static const char *const only[] = {"vision.photo", "prefill[l=2].x1", "prefill[l=2].p1",
        "decode[l=0].x1", "decode[l=0].p1", "decode.logits", NULL};
    const char *folder = test_folder(&arena);
    seen *s = look(only);
    const kt_dump_tensor *photo = get(s, "vision.photo", -1), *logits = get(s, "decode.logits", 2);
    write_rows(folder, "photo.npy", photo, NULL, 0, photo->shape[0]);
    write_rows(
        folder, "layer.npy", get(s, "prefill[l=2].x1", 0), get(s, "prefill[l=2].p1", 0), 3, 11);
    assert_int_equal(get(s, "decode[l=0].p1", 1)->shape[0], 3); // several sums with gaps between
    write_rows(folder, "step.npy", get(s, "decode[l=0].x1", 1), get(s, "decode[l=0].p1", 1), 1, 3);
    write_rows(folder, "logits.npy", logits, NULL, 0, logits->shape[0]);
    write_golden(folder, STAGES);
    kt_buf_deinit(&s->texts);
    return folder;
}

static const kt_verdict *verify(const char *folder, bool *passed) {
    kt_golden *golden = KT_NEW(&arena, kt_golden);
    kt_err err = {0};
    if (kt_golden_read(&arena, folder, golden, &err) != KT_OK) fail_msg("%s", err.text);
    kt_verify *v = kt_verify_new(&arena, golden);
    kt_options_run options = usual();
    seen s = {0};
    options.settings = golden->settings;
    options.n_settings = golden->n_settings;
    options.dump_to = kt_verify_to(v);
    options.dump_only = golden->addresses;
    options.n_dump_only = golden->n_addresses;
    if (run(&options, SCENE, &s, &err) != KT_OK) fail_msg("%s", err.text);
    kt_buf_deinit(&s.texts);
    kt_verify_close(v);
    *passed = kt_verify_passed(v);
    return kt_verify_verdicts(v);
}

// Changes element i of a golden's f32 file.
static void set_element(const char *folder, const char *file, int64_t i, float value) {
    kt_npy npy;
    kt_err err = {0};
    const char *path = kt_path_join(&arena, folder, file);
    assert_int_equal(kt_npy_open(path, &npy, &err), KT_OK);
    float *data = kt_arena_alloc(&arena, (size_t)npy.head.data_bytes);
    assert_int_equal(kt_npy_read(&npy, 0, npy.head.n, data, &err), KT_OK);
    kt_npy_close(&npy);
    data[i] = value;
    assert_int_equal(
        kt_npy_write(path, KT_DTYPE_F32, npy.head.rank, npy.head.shape, data, &err), KT_OK);
}

static void golden_of_a_run_agrees_with_it(void **state) {
    (void)state;
    const char *folder = make_golden();
    bool passed;
    const kt_verdict *v = verify(folder, &passed);
    assert_true(passed);
    for (int i = 0; i < N_STAGES; i++) assert_true(v[i].compared && v[i].passed);
    assert_int_equal(v[PHOTO].n_different, 0);
    assert_int_equal(v[LAYER].shape[0], 8);
    assert_int_equal(v[LAYER].rank, 2);
    assert_int_equal(v[STEP].shape[0], 2);
    assert_true(v[LOGITS].relative == 0 && v[LOGITS].n > 1000);
    test_remove(folder);
}

static void golden_with_one_element_changed_does_not(void **state) {
    (void)state;
    const char *folder = make_golden();
    bool passed;
    const kt_verdict *v = verify(folder, &passed);
    int64_t vocab = v[LOGITS].shape[1], width = v[LAYER].shape[1];
    set_element(folder, "logits.npy", vocab + 7, 99);
    set_element(folder, "layer.npy", 2 * width + 5, 1e6F);
    v = verify(folder, &passed);
    assert_false(passed);
    assert_true(v[PHOTO].passed && v[STEP].passed);
    assert_false(v[LOGITS].passed || v[LAYER].passed);
    assert_int_equal(v[LOGITS].n_different, 1);
    assert_true(v[LOGITS].worst[0] == 1 && v[LOGITS].worst[1] == 7 && v[LOGITS].wanted == 99);
    assert_true(v[LAYER].worst[0] == 3 + 2 && v[LAYER].worst[1] == 5); // in the whole tensor
    assert_true(fabs(v[LAYER].largest - 1e6) < 1e5 && v[LAYER].relative > 0.9);
    set_element(folder, "logits.npy", vocab + 7, nanf(""));
    v = verify(folder, &passed);
    assert_true(!passed && v[LOGITS].n_not_finite == 1 && v[LOGITS].worst[1] == 7);
    // As large as the tolerance lets it be.
    write_golden(folder,
        "{\"name\": \"logits\", \"address\": \"decode.logits\", \"batch\": 2, \"file\": "
        "\"logits.npy\", \"kind\": \"float\", \"relative\": 1e9, \"why\": \"anything\"}");
    (void)verify(folder, &passed);
    assert_false(passed); // but not what is no number
    set_element(folder, "logits.npy", vocab + 7, 99);
    v = verify(folder, &passed);
    assert_true(passed && v[0].n_different == 1);
    test_remove(folder);
}

static void golden_of_another_shape_does_not(void **state) {
    (void)state;
    const char *folder = make_golden();
    static const struct {
        const char *stage, *problem;
    } cases[] = {
        {"{\"name\": \"a\", \"address\": \"decode.logits\", \"batch\": 7, \"file\": "
         "\"logits.npy\", "
         "\"kind\": \"exact\"}",
            "never made"},
        {"{\"name\": \"b\", \"address\": \"decode[l=0].x1\", \"file\": \"logits.npy\", \"kind\": "
         "\"exact\"}",
            "the golden has the shape [4, "},
        {"{\"name\": \"c\", \"address\": \"decode[l=0].x1\", \"rows\": [3, 11], \"file\": "
         "\"layer.npy\", \"kind\": \"exact\"}",
            "too few rows"},
        {"{\"name\": \"d\", \"address\": \"image.view\", \"file\": \"photo.npy\", \"kind\": "
         "\"exact\"}",
            "never made"}, // four tensors have addresses below this
        {"{\"name\": \"e\", \"address\": \"prefill[l=1].x1\", \"plus\": \"decode[l=1].p1\", "
         "\"file\": \"layer.npy\", \"kind\": \"exact\"}",
            "partial sums of"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool passed;
        write_golden(folder, cases[i].stage);
        const kt_verdict *v = verify(folder, &passed);
        assert_false(passed || v[0].compared || v[0].passed);
        if (!v[0].problem || !strstr(v[0].problem, cases[i].problem))
            fail_msg("'%s' lacks '%s'", v[0].problem, cases[i].problem);
    }
    test_remove(folder);
}

static void golden_mistakes_have_places(void **state) {
    (void)state;
    const char *folder = make_golden();
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"[]", "expected an object"},
        {"{}", "'kotaro' is nothing"},
        {"{\"kotaro\": \"golden/2\", \"stages\": []}", "expected \"golden/1\""},
        {"{\"kotaro\": \"golden/1\", \"stages\": []}", "expected a list of stages"},
        {"{\"kotaro\": \"golden/1\", \"stage\": []}", "did you mean 'stages'"},
        {"{\"kotaro\": \"golden/1\", \"greedy\": 1, \"stages\": [{}]}", "true or false"},
        {"{\"kotaro\": \"golden/1\", \"set\": {\"a\": []}, \"stages\": [{}]}", "'a' is a list"},
        {"{\"kotaro\": \"golden/1\", \"max_tokens\": -1, \"stages\": [{}]}", "0 or more"},
        {"{\"kotaro\": \"golden/1\", \"stages\": [7]}", "stage 1 is the number 7"},
        {"{\"kotaro\": \"golden/1\", \"stages\": [{}]}", "stage 1: 'name'"},
#define STAGE(rest) "{\"kotaro\": \"golden/1\", \"stages\": [{\"name\": \"x\"" rest "}]}"
        {STAGE(""), "stage 'x': 'address'"},
        {STAGE(", \"adress\": 1"), "did you mean 'address'"},
        {STAGE(", \"address\": \"a*\""), "one address"},
        {STAGE(", \"address\": \"a@1\""), "'batch' gives the number"},
        {STAGE(", \"address\": \"a\", \"kind\": \"near\""), "\"float\" or \"exact\""},
        {STAGE(", \"address\": \"a\", \"kind\": \"float\""), "the tolerance"},
        {STAGE(", \"address\": \"a\", \"kind\": \"float\", \"relative\": -1"), "the tolerance"},
        {STAGE(", \"address\": \"a\", \"kind\": \"float\", \"relative\": 1"), "'why' is nothing"},
        {STAGE(", \"address\": \"a\", \"rows\": [3, 3]"), "[from, to]"},
        {STAGE(", \"address\": \"a\", \"rows\": 3"), "[from, to]"},
        {STAGE(", \"address\": \"a\", \"batch\": \"0\""), "0 or more"},
        {STAGE(", \"address\": \"a\", \"kind\": \"exact\""), "a .npy file"},
        {STAGE(", \"address\": \"a\", \"kind\": \"exact\", \"file\": \"none.npy\""), "none.npy"},
        {STAGE(", \"address\": \"a\", \"kind\": \"exact\", \"file\": \"golden.json\""),
            "no .npy file"},
        {STAGE(", \"address\": \"a\", \"kind\": \"exact\", \"rows\": [0, 3], \"file\": "
               "\"layer.npy\""),
            "'rows' are 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kt_golden golden;
        kt_err err = {0};
        test_put(&arena, folder, "golden.json", cases[i].json);
        kt_status status = kt_golden_read(&arena, folder, &golden, &err);
        if (status != KT_EFORMAT && status != KT_EFILE) fail_msg("%s: read", cases[i].json);
        if (!strstr(err.text, cases[i].message))
            fail_msg("'%s' lacks '%s'", err.text, cases[i].message);
        assert_non_null(strstr(err.text, folder)); // the file
    }
    test_remove(folder);
}

static int setup(void **state) {
    (void)state;
    kt_log_set_level(KT_LOG_QUIET);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    kt_arena_deinit(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dump_logits_choose_the_answer),
        cmocka_unit_test(dump_changes_nothing),
        cmocka_unit_test(dump_layers_follow_each_other),
        cmocka_unit_test(dump_photo_is_the_resized_picture),
        cmocka_unit_test(dump_numbers_batches),
        cmocka_unit_test(dump_widens_floats),
        cmocka_unit_test(dump_takes_addresses),
        cmocka_unit_test(dump_refuses_unknown_addresses),
        cmocka_unit_test(dump_ends_with_its_taker),
        cmocka_unit_test(folder_holds_what_its_index_says),
        cmocka_unit_test(folder_loses_nothing),
        cmocka_unit_test(folder_holds_the_last_run),
        cmocka_unit_test(golden_of_a_run_agrees_with_it),
        cmocka_unit_test(golden_with_one_element_changed_does_not),
        cmocka_unit_test(golden_of_another_shape_does_not),
        cmocka_unit_test(golden_mistakes_have_places),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
