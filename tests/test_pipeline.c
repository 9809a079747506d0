// Pipelines: extends, values, texts and languages, the order of stages, explain; and the host
// table.
#include "loader/beside.h"
#include "loader/pipeline.h"
#include "runtime/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    kt_arena arena;
    kt_diag diag;
    kt_pipeline *p;
} fixture;

static void open_pipeline(fixture *f, const char *path) {
    *f = (fixture){0};
    kt_diag_init(&f->diag, &f->arena);
    f->p = kt_pipeline_open(&f->arena, path, &f->diag);
    if (!f->p) {
        kt_buf said = {0};
        kt_diag_print(&f->diag, &said);
        print_message("%s", said.at);
        kt_buf_deinit(&said);
    }
    assert_non_null(f->p);
}

static void close_pipeline(fixture *f) {
    kt_arena_deinit(&f->arena);
}

static double number(const fixture *f, const char *name) {
    kt_value value;
    assert_true(kt_pipeline_number(f->p, name, &value));
    return value.r;
}

static kt_str text(const fixture *f, const char *name) {
    kt_str out;
    assert_true(kt_pipeline_text(f->p, name, &out));
    return out;
}

static int items(fixture *f, kt_pipe_item **out) {
    int n;
    assert_true(kt_pipeline_items(f->p, &f->arena, &f->diag, out, &n));
    return n;
}

// What an error says after the place.
static void says(fixture *f, const char *message) {
    kt_buf said = {0};
    kt_diag_print(&f->diag, &said);
    if (!said.at || !strstr(said.at, message))
        fail_msg("no '%s' in '%s'", message, said.at ? said.at : "");
    kt_buf_deinit(&said);
}

static void values_of_the_child_win(void **state) {
    (void)state;
    fixture f;
    open_pipeline(&f, "pipelines/full.yaml");
    assert_true(number(&f, "sampler.temperature") == 0.3);
    assert_true(number(&f, "sampler.repetition_penalty") == 1.2);
    assert_true(number(&f, "max_new") == 128);
    assert_true(number(&f, "context") == 4096);
    assert_true(kt_str_is(text(&f, "mode"), "branches"));
    assert_true(kt_str_is(text(&f, "image.filter"), "lanczos"));
    assert_true(kt_str_is(f.p->name, "full"));
    assert_int_equal(f.p->n_model_files, 2);
    assert_string_equal(f.p->model_files[0], "pipelines/qwen2.model.yaml");
    assert_string_equal(f.p->model_files[1], "pipelines/minicpm_v.model.yaml");
    kt_value none;
    assert_false(kt_pipeline_number(f.p, "nothing", &none));
    close_pipeline(&f);
}

static void a_model_is_relative_to_the_file_that_names_it(void **state) {
    (void)state;
    fixture f;
    open_pipeline(&f, "pipelines/simple.yaml");
    assert_string_equal(kt_pipeline_model(f.p, &f.arena), "models/kotaro-tiny");
    assert_true(kt_pipeline_set(f.p, KT_STR("model"), KT_STR("elsewhere/m"), &f.diag));
    assert_string_equal(kt_pipeline_model(f.p, &f.arena), "elsewhere/m");
    close_pipeline(&f);
    open_pipeline(&f, "pipelines/chat_text.yaml");
    assert_null(kt_pipeline_model(f.p, &f.arena));
    close_pipeline(&f);
}

static void steps_are_replaced_by_address(void **state) {
    (void)state;
    fixture f;
    open_pipeline(&f, "pipelines/full.yaml");
    static const char *const order[] = {"image", "prompt", "vision", "prefill", "decode", "answer"};
    assert_int_equal(f.p->n_stages, 6);
    for (int i = 0; i < 6; i++) assert_true(kt_str_is(f.p->stages[i].name.text, order[i]));
    const kt_step *write = &f.p->stages[1].steps[0], *embed = &f.p->stages[3].steps[0];
    assert_int_equal(write->n_in, 3); // grid too
    assert_true(kt_str_is(write->id.text, "write"));
    assert_int_equal(embed->n_in, 3); // image too
    assert_string_equal(embed->at.source->path, "pipelines/analyze.base.yaml");
    assert_string_equal(f.p->stages[4].steps[0].at.source->path, "pipelines/chat_text.yaml");
    close_pipeline(&f);
}

static void a_list_inserts_and_an_empty_one_removes(void **state) {
    (void)state;
    fixture f;
    open_pipeline(&f, "tests/data/pipelines/replaced.yaml");
    const kt_pipe_stage *write = &f.p->stages[1];
    assert_int_equal(write->n_steps, 3); // two for the first, none for the inserted one, the second
    assert_int_equal(write->steps[0].id.text.n, 0);
    assert_true(kt_str_is(write->steps[1].id.text, "first"));
    assert_true(kt_str_is(write->steps[2].id.text, "second"));
    close_pipeline(&f);
}

static void a_repeat_makes_what_it_carries(void **state) {
    (void)state;
    fixture f;
    open_pipeline(&f, "tests/data/pipelines/replaced_by_repeat.yaml");
    assert_int_equal(f.p->stages[1].n_steps, 2);
    assert_true(kt_str_is(f.p->stages[1].steps[0].repeat.text, "l"));
    close_pipeline(&f);
}

static void the_command_line_sets_values(void **state) {
    (void)state;
    fixture f;
    open_pipeline(&f, "pipelines/full.yaml");
    assert_true(kt_pipeline_set(f.p, KT_STR("sampler.top_p"), KT_STR("0.25"), &f.diag));
    assert_true(number(&f, "sampler.top_p") == 0.25);
    assert_false(kt_pipeline_set(f.p, KT_STR("sampler.top_p"), KT_STR("2"), &f.diag));
    assert_true(number(&f, "sampler.top_p") == 0.25);
    says(&f, "'sampler.top_p' is 2");
    assert_false(kt_pipeline_set(f.p, KT_STR("sampler.topp"), KT_STR("1"), &f.diag));
    says(&f, "did you mean 'sampler.top_p' or 'sampler.top_k'?");
    assert_false(kt_pipeline_set(f.p, KT_STR("mode"), KT_STR("both"), &f.diag));
    assert_false(kt_pipeline_set(f.p, KT_STR("items"), KT_STR("what"), &f.diag));
    close_pipeline(&f);
}

static void texts_follow_the_language(void **state) {
    (void)state;
    fixture f;
    kt_pipe_item *list;
    open_pipeline(&f, "pipelines/full.yaml");
    assert_int_equal(f.p->n_languages, 2);
    assert_int_equal(items(&f, &list), 4);
    assert_true(kt_str_is(list[0].title, "Subject"));
    assert_true(kt_str_is(list[3].name, "caption"));
    assert_int_equal(list[3].max_new, 128);
    kt_str english = text(&f, "shared");
    assert_true(kt_pipeline_set(f.p, KT_STR("language"), KT_STR("ja"), &f.diag));
    assert_int_equal(items(&f, &list), 4);
    assert_true(kt_str_is(list[0].title, "被写体"));
    assert_false(kt_str_eq(text(&f, "shared"), english));
    assert_int_equal(f.diag.n_warnings, 0);
    assert_true(kt_pipeline_set(f.p, KT_STR("language"), KT_STR("fr"), &f.diag));
    int n;
    assert_false(kt_pipeline_items(f.p, &f.arena, &f.diag, &list, &n));
    says(&f, "expected one of: en, ja");
    close_pipeline(&f);
}

static void a_missing_language_falls_back_with_a_warning(void **state) {
    (void)state;
    fixture f;
    kt_pipe_item *list;
    open_pipeline(&f, "tests/data/pipelines/half_translated.yaml");
    assert_int_equal(items(&f, &list), 2);
    assert_int_equal(f.diag.n_errors, 0);
    assert_int_equal(f.diag.n_warnings, 2);
    says(&f, "'ask' of 'scene' has no 'ja'; 'en' is used");
    assert_true(kt_str_is(list[0].ask, "What is there?"));
    assert_true(kt_str_is(list[0].title, "場面"));
    assert_true(kt_str_is(list[1].title, "mood")); // none given: the name
    assert_int_equal(list[1].max_new, -1);
    close_pipeline(&f);
}

static void one_question_replaces_the_items(void **state) {
    (void)state;
    fixture f;
    kt_pipe_item *list;
    open_pipeline(&f, "pipelines/chat_text.yaml");
    int n;
    assert_false(kt_pipeline_items(f.p, &f.arena, &f.diag, &list, &n));
    says(&f, "-p TEXT");
    assert_false(kt_pipeline_ask(f.p, KT_STR("  "), &f.diag));
    assert_true(kt_pipeline_ask(f.p, KT_STR("What, and why?"), &f.diag));
    assert_int_equal(items(&f, &list), 1);
    assert_true(kt_str_is(list[0].name, "answer"));
    assert_true(kt_str_is(list[0].ask, "What, and why?"));
    close_pipeline(&f);
}

static void a_cap_holds_for_all_items(void **state) {
    (void)state;
    fixture f;
    kt_pipe_item *list;
    open_pipeline(&f, "pipelines/full.yaml");
    kt_pipeline_cap(f.p, 100);
    assert_true(number(&f, "max_new") == 100);
    assert_int_equal(items(&f, &list), 4);
    assert_int_equal(list[0].max_new, 96);
    assert_int_equal(list[3].max_new, 100);
    kt_pipeline_cap(f.p, 500);
    assert_true(number(&f, "max_new") == 100);
    close_pipeline(&f);
}

static void explain_gives_every_line_a_place(void **state) {
    (void)state;
    fixture f;
    kt_buf out = {0};
    open_pipeline(&f, "pipelines/full.yaml");
    assert_true(kt_pipeline_set(f.p, KT_STR("seed"), KT_STR("7"), &f.diag));
    kt_pipeline_explain(f.p, &out);
    static const char *const want[] = {"temperature: 0.3", "# pipelines/full.yaml:", "seed: 7",
        "# command line", "decoder_layer", "# pipelines/chat_text.yaml:", "gen.rng: u32[rows, 4]",
        "replace", "buckets: [1, 2, 4, 8]", "carry: { x: x0, part: p0 }", "result: answer.answers"};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        bool found = strstr(out.at, want[i]) != NULL;
        if (found == (strcmp(want[i], "replace") == 0)) // replaced steps stand in their places
            fail_msg("'%s' in:\n%s", want[i], out.at);
    }
    kt_buf_deinit(&out);
    close_pipeline(&f);
}

static void host_table_is_complete(void **state) {
    (void)state;
    kt_arena arena = {0};
    int n;
    const kt_host_step *table = kt_host_table(&arena, &n);
    assert_int_equal(n, 11);
    const kt_host_step *slice = &table[2];
    assert_true(kt_str_is(slice->name, "slice_image"));
    assert_int_equal(slice->n_params, 7);
    assert_int_equal(slice->n_out, 10);
    assert_int_equal(slice->n_decides, 6);
    assert_true(slice->out[9].type.base == KT_BASE_HOST);
    assert_true(table[3].tokenizer && !table[5].tokenizer);
    const kt_host_step *rows = &table[6];
    assert_int_equal(rows->n_inout, 8);
    assert_true(rows->out[0].type.each);
    for (int i = 0; i < n; i++) {
        assert_true(table[i].doc.n > 0);
        assert_non_null(strstr(kt_host_text(&arena), kt_str_z(&arena, table[i].name)));
    }
    kt_arena_deinit(&arena);
}

static void paths_fold(void **state) {
    (void)state;
    static const char *const rows[][3] = {{"pipelines/a.yaml", "../models/m", "models/m"},
        {"a.yaml", "b.yaml", "b.yaml"}, {"a.yaml", "../b.yaml", "../b.yaml"},
        {"x/y/a.yaml", "../../../b", "../b"}, {"/x/a.yaml", "../../b", "/../b"},
        {"/x/a.yaml", "./b//c/", "/x/b/c"}, {"x/a.yaml", "/tmp/b", "/tmp/b"},
        {"x/a.yaml", "..", "."}, {"../x/a.yaml", "../b", "../b"}};
    kt_arena arena = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *got = kt_beside(&arena, rows[i][0], kt_str_from(rows[i][1]));
        if (*got == 0) got = kt_arena_printf(&arena, ".");
        assert_string_equal(got, rows[i][2]);
    }
    kt_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_the_child_win),
        cmocka_unit_test(a_model_is_relative_to_the_file_that_names_it),
        cmocka_unit_test(steps_are_replaced_by_address),
        cmocka_unit_test(a_list_inserts_and_an_empty_one_removes),
        cmocka_unit_test(a_repeat_makes_what_it_carries),
        cmocka_unit_test(the_command_line_sets_values),
        cmocka_unit_test(texts_follow_the_language),
        cmocka_unit_test(a_missing_language_falls_back_with_a_warning),
        cmocka_unit_test(one_question_replaces_the_items),
        cmocka_unit_test(a_cap_holds_for_all_items),
        cmocka_unit_test(explain_gives_every_line_a_place),
        cmocka_unit_test(host_table_is_complete),
        cmocka_unit_test(paths_fold),
    };
    kt_log_set_level(KT_LOG_QUIET);
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
