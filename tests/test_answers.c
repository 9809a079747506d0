// The shipped model answers truly, on the CPU: the example picture in every item, and the pictures
// of tests/data/scenes (which nobody chose, two of them with nothing that it knows) with a floor.
// What is true stands beside the pictures; wording is the model's grammar, so texts are compared
// whole.
#include "loader/json.h"
#include "runtime/kotaro.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

// Pipelines and the place of their items among the seven texts of a picture.
static const struct {
    const char *path;
    int first, n;
} asked[] = {{"pipelines/full.yaml", 0, 4}, {"pipelines/simple.yaml", 4, 3}};
static const char *const languages[] = {"en", "ja"};

enum { FLOOR_PERCENT = 90, MAX_PICTURES = 64 };

typedef struct score {
    const kt_json *truths[MAX_PICTURES]; // by picture: its `texts`
    const char *paths[MAX_PICTURES];
    int n_pictures;
    int first, n, language; // of the session that runs
    int told, right;
} score;

static kt_arena arena;

static const kt_json *member(const kt_json *object, const char *name) {
    const kt_json *found = kt_json_find(object, kt_str_from(name));
    assert_non_null(found);
    return found;
}

static void on_result(void *ctx, int image, const kt_result *result) {
    score *s = ctx;
    const kt_json *texts = member(s->truths[image], languages[s->language]);
    assert_int_equal(result->n_items, s->n);
    for (int i = 0; i < s->n; i++) {
        kt_str truth = texts->as.items[s->first + i].as.text, text = result->items[i].text;
        s->told++;
        if (kt_str_eq(text, truth))
            s->right++;
        else
            printf("# %s, %s: '%.*s', true is '%.*s'\n", result->image, languages[s->language],
                KT_STR_ARG(text), KT_STR_ARG(truth));
    }
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    (void)ctx, (void)image;
    fail_msg("%s: %s", path, err->text);
}

static void ask(score *s, int pipeline, int language) {
    kt_setting setting = {"language", languages[language]};
    kt_options_run options = {.pipeline = asked[pipeline].path,
        .device = KT_DEVICE_CPU,
        .greedy = true,
        .several = s->n_pictures > 1,
        .settings = &setting,
        .n_settings = 1};
    kt_session *session = NULL;
    kt_err err;
    if (kt_session_open(&options, &session, NULL, &err) != KT_OK) fail_msg("%s", err.text);
    s->first = asked[pipeline].first;
    s->n = asked[pipeline].n;
    s->language = language;
    kt_events events = {.ctx = s, .result = on_result, .failed = on_failed};
    if (kt_session_run(session, s->paths, s->n_pictures, &events, &err) != KT_OK)
        fail_msg("%s", err.text);
    kt_session_close(session);
}

static void ask_all(score *s) {
    for (int p = 0; p < 2; p++)
        for (int l = 0; l < 2; l++) ask(s, p, l);
    printf("# %d of %d texts are true word for word\n", s->right, s->told);
    assert_int_equal(s->told, 14 * s->n_pictures);
}

static const kt_json *read_truth(const char *path) {
    kt_err err;
    const kt_json *root = NULL;
    const kt_json_limits limits = {1 << 20, 16, 10000};
    if (kt_json_read(&arena, path, limits, &root, &err) != KT_OK) fail_msg("%s", err.text);
    return root;
}

static void the_example_is_described_truly(void **state) {
    (void)state;
    score s = {.n_pictures = 1};
    s.paths[0] = "examples/scene.jpg";
    s.truths[0] = member(read_truth("examples/scene.json"), "texts");
    ask_all(&s);
    assert_int_equal(s.right, s.told);
}

static void unseen_pictures_are_described_truly(void **state) {
    (void)state;
    score s = {0};
    const kt_json *pictures = member(read_truth("tests/data/scenes/truth.json"), "pictures");
    for (size_t i = 0; i < pictures->n && s.n_pictures < MAX_PICTURES; i++) {
        const kt_json *picture = &pictures->as.items[i];
        s.paths[s.n_pictures] = kt_arena_printf(
            &arena, "tests/data/scenes/%.*s", KT_STR_ARG(member(picture, "file")->as.text));
        s.truths[s.n_pictures++] = member(picture, "texts");
    }
    assert_true(s.n_pictures >= 12);
    ask_all(&s);
    assert_true(s.right * 100 >= s.told * FLOOR_PERCENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_described_truly),
        cmocka_unit_test(unseen_pictures_are_described_truly),
    };
    int failed = cmocka_run_group_tests_name("answers", tests, NULL, NULL);
    kt_arena_deinit(&arena);
    return failed;
}
