// Models: constants, sources, and weights found in fabricated checkpoints.
#include "loader/model.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "tests/fabricate.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    kt_arena arena;
    kt_diag diag;
    kt_err err;
    kt_registry *registry;
    kt_model model;
    kt_status status;
} fixture;

static const char folder_made[] = "build/fake/model";

static void try_made(fixture *f, const char *file) {
    *f = (fixture){0};
    kt_diag_init(&f->diag, &f->arena);
    f->registry = kt_registry_open(&f->arena, "ops", NULL, 0, &f->diag);
    assert_non_null(f->registry);
    f->status =
        kt_model_open(&f->arena, f->registry, &file, 1, folder_made, &f->model, &f->diag, &f->err);
}

static void try_model(fixture *f, const char *file, const fake_model *fake) {
    fabricate(folder_made, fake);
    try_made(f, file);
}

static void says(const fixture *f, const char *message) {
    kt_buf said = {0};
    kt_diag_print(&f->diag, &said);
    if (!said.at || !strstr(said.at, message))
        fail_msg("no '%s' in '%s'", message, said.at ? said.at : "");
    kt_buf_deinit(&said);
}

static void open_model(fixture *f, const char *file, const fake_model *fake) {
    try_model(f, file, fake);
    if (f->status != KT_OK) {
        print_message("%s\n", f->err.text);
        says(f, "nothing");
    }
}

static void close_model(fixture *f) {
    if (f->status == KT_OK) kt_model_close(&f->model);
    kt_arena_deinit(&f->arena);
}

static int64_t constant(const fixture *f, const char *name) {
    kt_value value;
    assert_true(kt_model_constant(&f->model, kt_str_from(name), &value));
    return value.i;
}

static const kt_weight *weight(const fixture *f, const char *name) {
    const kt_weight *w = kt_model_weight(&f->model, kt_str_from(name));
    if (!w) fail_msg("no weight '%s'", name);
    return w;
}

static void constants_come_from_the_config(void **state) {
    (void)state;
    fixture f;
    open_model(&f, "pipelines/minicpm_v.model.yaml", &fake_vision);
    assert_int_equal(constant(&f, "d"), 128);
    assert_int_equal(constant(&f, "places"), 8);     // a quotient of two keys
    assert_int_equal(constant(&f, "vis_layers"), 2); // minus a boolean
    assert_int_equal(constant(&f, "patch_len"), 588);
    assert_int_equal(constant(&f, "side"), 56); // the first key is missing: image_size
    assert_int_equal(constant(&f, "max_slices"), 1);
    kt_value mean;
    assert_true(kt_model_constant(&f.model, KT_STR("mean"), &mean));
    assert_true(mean.r == 0.5); // no preprocessor_config.json: the value after 'else'
    assert_int_equal(f.model.n_indexes, 2);
    assert_string_equal(f.model.tokenizer_path, "build/fake/model/tokenizer.json");
    assert_true(f.model.chat.present && f.model.chat.n_stop == 2);
    assert_true(kt_str_is(f.model.picture.scheme, "minicpm_v"));
    close_model(&f);
}

static void weights_know_their_format(void **state) {
    (void)state;
    fixture f;
    open_model(&f, "pipelines/minicpm_v.model.yaml", &fake_vision);
    const kt_weight *q = weight(&f, "dec.1.attn.q");
    assert_true(q->linear && kt_str_is(q->format->name, "bnb_nf4"));
    assert_int_equal(q->shape[0], 128);
    assert_int_equal(q->shape[1], 128);
    int offset = -1;
    for (int i = 0; i < q->format->n_values; i++)
        if (kt_str_is(q->format->values[i].name, "offset")) offset = i;
    assert_true(offset >= 0 && q->values[offset].r == 0.25);
    assert_true(kt_str_is(q->parts[0]->name, "llm.model.layers.1.self_attn.q_proj.weight"));
    const kt_weight *o = weight(&f, "vit.0.o");
    assert_true(kt_str_is(o->format->name, "f16"));
    assert_int_equal(o->part_types[0], KT_DTYPE_F16);
    const kt_weight *norm = weight(&f, "norm");
    assert_false(norm->linear);
    assert_null(norm->format);
    assert_int_equal(norm->parts[0]->dtype, KT_DTYPE_F16);
    close_model(&f);
}

static void tensors_are_split_merged_and_transposed(void **state) {
    (void)state;
    fixture f;
    open_model(&f, "pipelines/minicpm_v.model.yaml", &fake_vision);
    const kt_weight *patch = weight(&f, "vis.patch");
    assert_int_equal(patch->shape[1], 588); // [144, 3, 14, 14] read as [144, 588]
    assert_int_equal(patch->parts[0]->rank, 4);
    const kt_weight *k = weight(&f, "res.k"), *bias = weight(&f, "res.k_bias");
    assert_int_equal(k->row_from, 128);
    assert_int_equal(k->row_to, 256);
    assert_int_equal(bias->row_from, 128);
    assert_ptr_equal(k->parts[0], weight(&f, "res.v")->parts[0]);
    assert_int_equal(k->shape[0], 128);
    assert_false(k->transposed);
    assert_true(weight(&f, "res.proj")->transposed);
    assert_int_equal(weight(&f, "res.proj")->row_from, -1);
    close_model(&f);
}

static void optional_and_tied_weights(void **state) {
    (void)state;
    fixture f;
    fake_model with_bias = fake_text;
    open_model(&f, "pipelines/qwen2.model.yaml", &fake_text);
    assert_null(kt_model_weight(&f.model, KT_STR("dec.0.attn.q_bias")));
    assert_ptr_equal(weight(&f, "head")->parts[0], weight(&f, "embed")->parts[0]);
    close_model(&f);
    with_bias.bias = true;
    with_bias.tied = false;
    open_model(&f, "pipelines/qwen2.model.yaml", &with_bias);
    assert_int_equal(weight(&f, "dec.1.attn.k_bias")->shape[0], 32);
    assert_ptr_not_equal(weight(&f, "head")->parts[0], weight(&f, "embed")->parts[0]);
    close_model(&f);
}

static void every_layer_is_counted(void **state) {
    (void)state;
    fixture f;
    open_model(&f, "pipelines/qwen2.model.yaml", &fake_text);
    assert_int_equal(f.model.n_weights, 3 + 2 * 9);
    for (int i = 0; i < f.model.n_weights; i++) {
        int64_t index;
        assert_true(kt_table_find(&f.model.by_name, f.model.weights[i].name, &index));
        assert_int_equal(index, i);
    }
    close_model(&f);
}

static void a_tensor_left_out_is_named(void **state) {
    (void)state;
    fixture f;
    fake_model fake = fake_text;
    fake.drop = "model.layers.1.mlp.up_proj.weight";
    try_model(&f, "pipelines/qwen2.model.yaml", &fake);
    assert_int_equal(f.status, KT_EMODEL);
    says(&f, "weight 'dec.1.mlp.up': no tensor 'model.layers.1.mlp.up_proj.weight'");
    close_model(&f);
    fake = fake_vision;
    fake.drop = "llm.model.layers.0.mlp.up_proj.weight.nested_quant_map";
    try_model(&f, "pipelines/minicpm_v.model.yaml", &fake);
    assert_int_equal(f.status, KT_EMODEL);
    says(&f, "its part 'llm.model.layers.0.mlp.up_proj.weight.nested_quant_map' is not in the "
             "checkpoint");
    close_model(&f);
}

static void a_tensor_too_many_is_named(void **state) {
    (void)state;
    fixture f;
    fake_model fake = fake_text;
    fake.extra = "model.layers.0.self_attn.rotary_emb.inv_freq"; // ignored by the model file
    open_model(&f, "pipelines/qwen2.model.yaml", &fake);
    close_model(&f);
    fake.extra = "model.adapter";
    try_model(&f, "pipelines/qwen2.model.yaml", &fake);
    assert_int_equal(f.status, KT_EMODEL);
    says(&f, "tensor 'model.adapter' is bound by no weight and not ignored");
    close_model(&f);
}

// Angles that are stretched in any way, and a base under either of its keys.
static void stretched_rope_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *config, *says; // NULL: it is taken
        double theta;
    } rows[] = {
        {"\"rope_scaling\": null", NULL, 10000},
        {"\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500000}", NULL, 500000},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 1}", NULL, 10000},
        {"\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}", "rope_factor = 4", 0},
        {"\"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8}", "rope_factor = 8", 0},
        {"\"rope_scaling\": {\"long_factor\": [1.0, 1.5]}", "'rope_scaling.long_factor'", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fixture f;
        kt_arena arena = {0};
        kt_str config;
        kt_err err;
        fabricate(folder_made, &fake_text);
        const char *path = kt_path_join(&arena, folder_made, "config.json");
        assert_int_equal(kt_file_read(&arena, path, 1 << 20, &config, &err), KT_OK);
        const char *theta = "\"rope_theta\": 10000.0,";
        ptrdiff_t at = kt_str_find_text(config, theta);
        assert_true(at > 0);
        kt_str rest = kt_str_slice(config, (size_t)at + strlen(theta), config.n);
        const char *text = kt_arena_printf(
            &arena, "%.*s%s,%.*s", (int)at, config.at, rows[i].config, KT_STR_ARG(rest));
        test_write(path, text, strlen(text));
        try_made(&f, "pipelines/qwen2.model.yaml");
        if (rows[i].says) {
            assert_int_equal(f.status, KT_EMODEL);
            says(&f, rows[i].says);
        } else {
            assert_int_equal(f.status, KT_OK);
            kt_value value;
            assert_true(kt_model_constant(&f.model, KT_STR("theta"), &value));
            assert_true(value.r == rows[i].theta);
        }
        close_model(&f);
        kt_arena_deinit(&arena);
    }
}

static void other_folders_are_refused(void **state) {
    (void)state;
    fixture f = {0};
    kt_diag_init(&f.diag, &f.arena);
    f.registry = kt_registry_open(&f.arena, "ops", NULL, 0, &f.diag);
    const char *file = "pipelines/qwen2.model.yaml";
    static const char *const rows[][2] = {{"build/no_such_folder", "no model folder or file"},
        {"pipelines/full.yaml", "is no folder"}, {"pipelines", "it has no 'config.json'"}};
    for (int i = 0; i < 3; i++) {
        kt_status status =
            kt_model_open(&f.arena, f.registry, &file, 1, rows[i][0], &f.model, &f.diag, &f.err);
        assert_true(status == (i < 2 ? KT_EFILE : KT_EMODEL));
        assert_non_null(strstr(f.err.text, rows[i][1]));
    }
    kt_arena_deinit(&f.arena);
}

static void shipped_model_files_check_alone(void **state) {
    (void)state;
    static const char *const files[] = {
        "pipelines/qwen2.model.yaml", "pipelines/minicpm_v.model.yaml"};
    for (int i = 0; i < 2; i++) {
        kt_arena arena = {0};
        kt_diag diag;
        kt_diag_init(&diag, &arena);
        assert_true(kt_model_check(&arena, files[i], &diag));
        assert_int_equal(diag.n_errors + diag.n_warnings, 0);
        kt_arena_deinit(&arena);
    }
}

// Files that include each other in every way are walked once each.
static void circles_of_files_end(void **state) {
    (void)state;
    enum { FILES = 10 };
    kt_arena arena = {0};
    kt_buf all = {0};
    for (int i = 0; i < FILES; i++) kt_buf_printf(&all, "%sc%d.yaml", i ? ", " : "", i);
    for (int i = 0; i < FILES + 3; i++) {
        const char *const names[] = {"first", "second", "root"};
        const char *name = i < FILES ? kt_arena_printf(&arena, "c%d", i) : names[i - FILES];
        const char *includes = i == FILES       ? ""
                               : i == FILES + 2 ? "first.yaml, second.yaml"
                                                : all.at;
        bool defines = i == FILES || i == FILES + 1;
        const char *text = kt_arena_printf(&arena,
            "kotaro: model/1\nname: %s\ndoc: One of a circle.\ninclude: [%s]\n%ssources: { hf: { "
            "when: config.json } }\n",
            name, includes, defines ? "constants: { d: 64 }\n" : "");
        test_put(&arena, "build/fake/circle", kt_arena_printf(&arena, "%s.yaml", name), text);
    }
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    kt_buf said = {0};
    assert_false(kt_model_check(&arena, "build/fake/circle/root.yaml", &diag));
    kt_diag_print(&diag, &said);
    if (!strstr(said.at, "constant 'd' is defined twice")) fail_msg("%s", said.at);
    kt_buf_deinit(&said);
    kt_buf_deinit(&all);
    kt_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constants_come_from_the_config),
        cmocka_unit_test(weights_know_their_format),
        cmocka_unit_test(tensors_are_split_merged_and_transposed),
        cmocka_unit_test(optional_and_tied_weights),
        cmocka_unit_test(every_layer_is_counted),
        cmocka_unit_test(a_tensor_left_out_is_named),
        cmocka_unit_test(a_tensor_too_many_is_named),
        cmocka_unit_test(stretched_rope_is_refused),
        cmocka_unit_test(other_folders_are_refused),
        cmocka_unit_test(shipped_model_files_check_alone),
        cmocka_unit_test(circles_of_files_end),
    };
    kt_log_set_level(KT_LOG_QUIET);
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
