// Models in GGUF files: found, chosen and refused; twins of safetensors checkpoints answer the
// same.
#include "loader/model.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/dump.h"
#include "runtime/kotaro.h"
#include "tests/fabricate.h"
#include "tests/gguf_file.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// ---- models

typedef struct opened {
    kt_arena arena;
    kt_diag diag;
    kt_err err;
    kt_model model;
    kt_status status;
} opened;

static void open_model(opened *o, const char *file, const char *path) {
    *o = (opened){0};
    kt_diag_init(&o->diag, &o->arena);
    kt_registry *registry = kt_registry_open(&o->arena, "ops", NULL, 0, &o->diag);
    assert_non_null(registry);
    o->status = kt_model_open(&o->arena, registry, &file, 1, path, &o->model, &o->diag, &o->err);
}

static void close_model(opened *o) {
    if (o->status == KT_OK) kt_model_close(&o->model);
    kt_arena_deinit(&o->arena);
}

static void must_open(opened *o, const char *file, const char *path) {
    open_model(o, file, path);
    if (o->status == KT_OK) return;
    kt_buf said = {0};
    kt_diag_print(&o->diag, &said);
    fail_msg("%s\n%s", o->err.text, said.n > 0 ? said.at : "");
}

static void must_refuse(const char *file, const char *path, const char *says) {
    opened o;
    open_model(&o, file, path);
    kt_buf said = {0};
    kt_diag_print(&o.diag, &said);
    kt_buf_printf(&said, "%s", o.status == KT_OK ? "no error" : o.err.text);
    if (o.status == KT_OK || !strstr(said.at, says))
        fail_msg("%s: no '%s' in: %s", path, says, said.at);
    kt_buf_deinit(&said);
    close_model(&o);
}

#define TEXT_MODEL   "pipelines/qwen2.model.yaml"
#define VISION_MODEL "pipelines/minicpm_v.model.yaml"

static const kt_weight *weight(const opened *o, const char *name) {
    const kt_weight *w = kt_model_weight(&o->model, kt_str_from(name));
    if (!w) fail_msg("no weight '%s'", name);
    return w;
}

static int64_t constant(const opened *o, const char *name) {
    kt_value value;
    assert_true(kt_model_constant(&o->model, kt_str_from(name), &value));
    return value.i;
}

// A pair with as many layers as MiniCPM-V 2.6 has, and as many tensors.
static fake_model deep(void) {
    fake_model m = fake_vision;
    m.layers = 28;
    m.vis_layers = 27;
    m.nf4 = false;
    m.prefix = "llm.";
    return m;
}

static void a_pair_of_files_is_one_model(void **state) {
    (void)state;
    const fake_model m = deep();
    const gguf_twin twin = {.architecture = "qwen2"};
    opened o;
    fabricate("build/fake/gguf/deep_hf", &m);
    test_remove("build/fake/gguf/deep");
    fabricate_gguf("build/fake/gguf/deep_hf", "build/fake/gguf/deep", &m, &twin);
    must_open(&o, VISION_MODEL, "build/fake/gguf/deep");
    assert_int_equal(o.model.checkpoint.n_files, 2);
    assert_int_equal(o.model.checkpoint.n_stored, 339 + 455);
    assert_int_equal(constant(&o, "layers"), 28);
    assert_int_equal(constant(&o, "vis_layers"), 27);
    assert_int_equal(constant(&o, "places"), m.places);
    assert_int_equal(constant(&o, "queries"), m.queries);
    assert_int_equal(constant(&o, "vocab"), m.vocab);
    assert_int_equal(constant(&o, "side"), m.side);
    assert_string_equal(o.model.tokenizer_path, "build/fake/gguf/deep/text.gguf");
    const kt_weight *up = weight(&o, "vit.26.mlp.up"), *proj = weight(&o, "res.proj");
    assert_true(kt_str_is(up->parts[0]->name, "v.blk.26.ffn_down.weight"));
    assert_false(proj->transposed);
    assert_int_equal(weight(&o, "dec.3.attn.q")->interleave, 0);
    assert_true(kt_str_is(weight(&o, "vis.patch")->parts[0]->name, "v.patch_embd.weight"));
    close_model(&o);
    must_open(
        &o, TEXT_MODEL, "build/fake/gguf/deep"); // the text model alone: the mmproj is left out
    assert_int_equal(o.model.checkpoint.n_stored, 339);
    close_model(&o);
}

static void only_llama_files_are_interleaved(void **state) {
    (void)state;
    fake_model m = fake_text;
    m.bias = true;
    gguf_twin twin = {.architecture = "llama"};
    opened o;
    fabricate("build/fake/gguf/llama_hf", &m);
    fabricate_gguf("build/fake/gguf/llama_hf", "build/fake/gguf/llama", &m, &twin);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/llama");
    assert_int_equal(weight(&o, "dec.1.attn.q")->interleave, m.hd);
    assert_int_equal(weight(&o, "dec.1.attn.k_bias")->interleave, m.hd);
    assert_int_equal(weight(&o, "dec.1.attn.v")->interleave, 0);
    assert_ptr_equal(weight(&o, "head")->parts[0], weight(&o, "embed")->parts[0]); // tied
    close_model(&o);
    twin.architecture = "qwen3";
    fabricate_gguf("build/fake/gguf/llama_hf", "build/fake/gguf/other", &m, &twin);
    must_refuse(TEXT_MODEL, "build/fake/gguf/other",
        "'general.architecture' is the text 'qwen3', this model file is for qwen2 or llama");
}

// Both ways of naming the two matrices of the mmproj's MLP.
static void names_of_the_mlp_are_told_by_shape(void **state) {
    (void)state;
    fake_model m = fake_vision;
    m.nf4 = false;
    const gguf_twin twin = {.architecture = "qwen2", .new_names = true};
    opened o;
    fabricate("build/fake/gguf/new_hf", &m);
    fabricate_gguf("build/fake/gguf/new_hf", "build/fake/gguf/new", &m, &twin);
    must_open(&o, VISION_MODEL, "build/fake/gguf/new");
    assert_true(kt_str_is(weight(&o, "vit.0.mlp.up")->parts[0]->name, "v.blk.0.ffn_up.weight"));
    assert_true(kt_str_is(weight(&o, "vit.0.mlp.up_bias")->parts[0]->name, "v.blk.0.ffn_up.bias"));
    assert_true(kt_str_is(weight(&o, "vit.0.down")->parts[0]->name, "v.blk.0.ffn_down.weight"));
    close_model(&o);
}

// Changes bytes of a file, `skip` behind a text.
static void patch(const char *path, const char *text, size_t skip, const char *with, size_t n) {
    kt_arena arena = {0};
    kt_str bytes;
    kt_err err;
    assert_int_equal(kt_file_read(&arena, path, 64 << 20, &bytes, &err), KT_OK);
    ptrdiff_t at = kt_str_find_text(bytes, text);
    assert_true(at > 0);
    char *changed = kt_arena_copy(&arena, bytes.at, bytes.n);
    memcpy(changed + at + skip, with, n);
    test_write(path, changed, bytes.n);
    kt_arena_deinit(&arena);
}

static void other_projectors_are_refused(void **state) {
    (void)state;
    fake_model m = fake_vision;
    m.nf4 = false;
    const gguf_twin twin = {.architecture = "qwen2"};
    fabricate("build/fake/gguf/other_hf", &m);
    fabricate_gguf("build/fake/gguf/other_hf", "build/fake/gguf/projector", &m, &twin);
    patch("build/fake/gguf/projector/mmproj.gguf", "clip.minicpmv_version", 21 + 4, "\x05", 1);
    must_refuse(VISION_MODEL, "build/fake/gguf/projector",
        "'clip.minicpmv_version' is the number 5, this model file is for 3");
}

static void copy_file(const char *from, const char *to) {
    kt_arena arena = {0};
    kt_str bytes;
    kt_err err;
    assert_int_equal(kt_file_read(&arena, from, 64 << 20, &bytes, &err), KT_OK);
    test_write(to, bytes.at, bytes.n);
    kt_arena_deinit(&arena);
}

#define MANY "build/fake/gguf/many/"

static void files_are_chosen(void **state) {
    (void)state;
    fake_model m = fake_vision;
    m.nf4 = false;
    const gguf_twin twin = {
        .architecture = "qwen2", .text = "model-Q8_0.gguf", .mmproj = "model-mmproj-f16.gguf"};
    opened o;
    fabricate("build/fake/gguf/many_hf", &m);
    test_remove("build/fake/gguf/many");
    fabricate_gguf("build/fake/gguf/many_hf", "build/fake/gguf/many", &m, &twin);
    must_open(&o, VISION_MODEL, MANY "model-Q8_0.gguf");
    assert_string_equal(o.model.folder, "build/fake/gguf/many");
    assert_string_equal(o.model.checkpoint.files[1].path, MANY "model-mmproj-f16.gguf");
    close_model(&o);
    copy_file(MANY "model-Q8_0.gguf", MANY "model-Q4_0.gguf");
    must_refuse(VISION_MODEL, "build/fake/gguf/many",
        "several files of 'build/fake/gguf/many' match '*.gguf not *mmproj*', and one is to be "
        "taken: model-Q4_0.gguf, model-Q8_0.gguf; name the file of the model, as in --model "
        "build/fake/gguf/many/model-Q4_0.gguf");
    must_open(&o, VISION_MODEL, MANY "model-Q4_0.gguf");
    assert_string_equal(o.model.checkpoint.files[0].path, MANY "model-Q4_0.gguf");
    close_model(&o);
    must_refuse(TEXT_MODEL, MANY "model-mmproj-f16.gguf", "several files");
    test_remove(MANY "model-Q4_0.gguf");
    must_refuse(TEXT_MODEL, MANY "model-mmproj-f16.gguf",
        "is no file that this pipeline's model file takes");
    must_open(&o, VISION_MODEL, MANY "model-mmproj-f16.gguf"); // the other one is beside it
    close_model(&o);
    test_remove(MANY "model-mmproj-f16.gguf");
    must_refuse(VISION_MODEL, MANY "model-Q8_0.gguf",
        "no file of 'build/fake/gguf/many' matches '*mmproj*.gguf'; there is model-Q8_0.gguf");
    test_write(MANY "notes.txt", "no model", 8);
    must_refuse(VISION_MODEL, MANY "notes.txt", "a model is the folder as downloaded, or a .gguf");
}

// A folder with config.json but without safetensors is no folder of the hub's.
static void a_config_does_not_hide_gguf(void **state) {
    (void)state;
    fake_model m = fake_text;
    const gguf_twin twin = {.architecture = "qwen2"};
    opened o;
    fabricate("build/fake/gguf/both_hf", &m);
    test_remove("build/fake/gguf/both");
    fabricate_gguf("build/fake/gguf/both_hf", "build/fake/gguf/both", &m, &twin);
    copy_file("build/fake/gguf/both_hf/config.json", "build/fake/gguf/both/config.json");
    must_open(&o, TEXT_MODEL, "build/fake/gguf/both");
    assert_non_null(o.model.checkpoint.files[0].gguf);
    close_model(&o);
    copy_file(
        "build/fake/gguf/both_hf/model.safetensors", "build/fake/gguf/both/model.safetensors");
    must_open(&o, TEXT_MODEL, "build/fake/gguf/both");
    assert_null(o.model.checkpoint.files[0].gguf);
    close_model(&o);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/both/text.gguf"); // named, so it is taken
    assert_non_null(o.model.checkpoint.files[0].gguf);
    close_model(&o);
}

static void stop_tokens_are_found(void **state) {
    (void)state;
    fake_model m = fake_text;
    const gguf_twin twin = {.architecture = "qwen2", .eos = 5};
    opened o;
    test_remove("build/fake/gguf/stop_hf");
    fabricate("build/fake/gguf/stop_hf", &m);
    fabricate_gguf("build/fake/gguf/stop_hf", "build/fake/gguf/stop", &m, &twin);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/stop");
    assert_int_equal(o.model.n_stop_ids, 1);
    assert_int_equal(o.model.stop_ids[0], 5);
    close_model(&o);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/stop_hf");
    assert_int_equal(o.model.n_stop_ids, 0);
    test_put(&o.arena, "build/fake/gguf/stop_hf", "generation_config.json",
        "{\"eos_token_id\": [7, 3]}");
    close_model(&o);
    must_open(&o, TEXT_MODEL, "build/fake/gguf/stop_hf");
    assert_int_equal(o.model.n_stop_ids, 2);
    assert_true(o.model.stop_ids[0] == 7 && o.model.stop_ids[1] == 3);
    close_model(&o);
}

// Changes the text file of a small model and opens it.
static void refuse_text_file(
    const char *text, size_t skip, const char *with, size_t n, const char *says) {
    fake_model m = fake_text;
    const gguf_twin twin = {.architecture = "qwen2"};
    fabricate("build/fake/gguf/odd_hf", &m);
    fabricate_gguf("build/fake/gguf/odd_hf", "build/fake/gguf/odd", &m, &twin);
    patch("build/fake/gguf/odd/text.gguf", text, skip, with, n);
    must_refuse(TEXT_MODEL, "build/fake/gguf/odd", says);
}

static void models_that_do_not_fit_are_refused(void **state) {
    (void)state;
    refuse_text_file("blk.0.attn_k.weight", 0, "blk.0.attn_z.weight", 19,
        "weight 'dec.0.attn.k': no tensor 'blk.0.attn_k.weight' in the checkpoint");
    refuse_text_file("qwen2.attention.head_count_kv", 8, "attention.head_count_xx", 21,
        "weight 'dec.0.attn.k' is linear[64, 64], 'blk.0.attn_k.weight' is [32, 64]");
    refuse_text_file("qwen2.embedding_length", 6, "embedding_lengtz", 16,
        "there is no key '$arch.embedding_length' in config");
    refuse_text_file("blk.1.ffn_norm.weight", 21 + 4 + 8, "\x1a\0\0\0", 4,
        "weight 'dec.1.mlp.norm': 'blk.1.ffn_norm.weight' holds I32, expected f32, f16 or bf16");
}

static void types_without_a_format_are_named(void **state) {
    (void)state;
    const fake_model m = fake_text;
    const int64_t shape[] = {m.vocab, 256};
    gguf_file f;
    kt_str tokens[80];
    for (int i = 0; i < 80; i++) tokens[i] = KT_STR("t");
    gguf_init(&f);
    gguf_key_text(&f, "general.architecture", KT_STR("qwen2"));
    static const char *const keys[] = {"block_count", "attention.head_count", "context_length",
        "feed_forward_length", "attention.key_length"};
    static const uint32_t values[] = {1, 2, 512, 256, 128};
    for (int i = 0; i < 5; i++) {
        char key[64];
        snprintf(key, sizeof key, "qwen2.%s", keys[i]);
        gguf_key_u32(&f, key, values[i]);
    }
    gguf_key_u32(&f, "qwen2.embedding_length", 256);
    gguf_key_f32(&f, "qwen2.attention.layer_norm_rms_epsilon", 1e-6F);
    gguf_key_texts(&f, "tokenizer.ggml.tokens", tokens, 80);
    static const char zeros[80 * 84];
    gguf_tensor(&f, "token_embd.weight", GGUF_Q2_K, shape, 2, zeros, sizeof zeros);
    gguf_write(&f, "build/fake/gguf/q2/q2.gguf");
    gguf_deinit(&f);
    must_refuse(TEXT_MODEL, "build/fake/gguf/q2",
        "weight 'embed': 'token_embd.weight' holds Q2_K, for which no format is installed");
    must_refuse(
        TEXT_MODEL, "build/fake/gguf/q2", "download the model in another type (F16, BF16, ");
    must_refuse(TEXT_MODEL, "build/fake/gguf/q2", "'when: ggml_type 10'");
}

// ---- answers

enum { MOST_TENSORS = 4096 };

// What a run makes: a number for each tensor that its layers hand on, and the answer.
typedef struct made {
    uint64_t sums[MOST_TENSORS];
    int n;
    kt_buf text;
    int64_t tokens;
    bool lively; // some numbers differ
} made;

static kt_status take(void *ctx, const kt_dump_tensor *tensor, kt_err *err) {
    made *m = ctx;
    if (m->n == MOST_TENSORS) return KT_FAIL(err, KT_EUSAGE, "too many tensors");
    size_t bytes = (size_t)(tensor->n * kt_dtype_bytes(tensor->dtype));
    kt_str data = {tensor->data, bytes};
    m->sums[m->n++] = kt_str_hash(data) ^ kt_str_hash(tensor->address);
    if (kt_str_find_text(tensor->address, "logits") < 0) return KT_OK;
    const float *logits = tensor->data;
    for (int64_t i = 1; i < tensor->n; i++) m->lively = m->lively || logits[i] != logits[0];
    return KT_OK;
}

static void on_result(void *ctx, int image, const kt_result *result) {
    made *m = ctx;
    (void)image;
    for (int i = 0; i < result->n_items; i++) {
        kt_buf_str(&m->text, result->items[i].text);
        m->tokens += result->items[i].tokens;
    }
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    (void)ctx, (void)image;
    fail_msg("%s: %s", path ? path : "", err->text);
}

static made *run(const char *pipeline, const char *model, const char *picture) {
    made *m = calloc(1, sizeof *m);
    assert_non_null(m);
    const kt_dump_to to = {m, take};
    kt_options_run options = {.pipeline = pipeline,
        .model = model,
        .question = "What is this?",
        .device = KT_DEVICE_CPU,
        .max_tokens = 6,
        .greedy = true,
        .dump_to = &to};
    kt_session *session = NULL;
    kt_buf report = {0};
    kt_err err;
    if (kt_session_open(&options, &session, &report, &err) != KT_OK)
        fail_msg("%s\n%s", err.text, report.n > 0 ? report.at : "");
    const kt_events events = {.ctx = m, .result = on_result, .failed = on_failed};
    if (kt_session_run(session, &picture, picture ? 1 : 0, &events, &err) != KT_OK)
        fail_msg("%s", err.text);
    kt_session_close(session);
    kt_buf_deinit(&report);
    return m;
}

static void same_answers(
    const char *pipeline, const char *hf, const char *gguf, const char *picture) {
    made *a = run(pipeline, hf, picture), *b = run(pipeline, gguf, picture);
    assert_true(a->n > 10 && a->lively && a->tokens > 0);
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++)
        if (a->sums[i] != b->sums[i]) fail_msg("%s: tensor %d of %d differs", gguf, i, a->n);
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->text.n, b->text.n);
    assert_true(a->text.n == 0 || memcmp(a->text.at, b->text.at, a->text.n) == 0);
    kt_buf_deinit(&a->text);
    kt_buf_deinit(&b->text);
    free(a);
    free(b);
}

static fake_model lively_text(void) {
    fake_model m = fake_text;
    m.d = 128;
    m.f = 192;
    m.heads = 4;
    m.kv_heads = 2;
    m.vocab = 500;
    m.seed = 7;
    m.tokenizer = "tests/data/small_tokenizer.json";
    return m;
}

static void a_text_twin(const fake_model *m, const gguf_twin *twin) {
    test_remove("build/fake/gguf/twin");
    fabricate("build/fake/gguf/twin_hf", m);
    fabricate_gguf("build/fake/gguf/twin_hf", "build/fake/gguf/twin", m, twin);
    same_answers("pipelines/chat.yaml", "build/fake/gguf/twin_hf", "build/fake/gguf/twin", NULL);
}

static void a_qwen2_twin_answers_the_same(void **state) {
    (void)state;
    const gguf_twin twin = {.architecture = "qwen2"};
    fake_model m = lively_text();
    m.bias = true;
    m.tied = false;
    a_text_twin(&m, &twin);
    m.wide = true;
    a_text_twin(&m, &twin);
}

static void a_llama_twin_answers_the_same(void **state) {
    (void)state;
    const gguf_twin twin = {.architecture = "llama"};
    fake_model m = lively_text();
    a_text_twin(&m, &twin);
    m.bias = true;
    m.wide = true;
    a_text_twin(&m, &twin);
}

// Matrices in blocks of eight bits, which hold the twin's numbers exactly.
static void a_quantised_twin_answers_the_same(void **state) {
    (void)state;
    const gguf_twin qwen2 = {.architecture = "qwen2", .q8 = true};
    const gguf_twin llama = {.architecture = "llama", .q8 = true};
    fake_model m = lively_text();
    m.grid = true;
    a_text_twin(&m, &qwen2);
    a_text_twin(&m, &llama);
}

static void a_pair_answers_the_same(void **state) {
    (void)state;
    const gguf_twin twin = {.architecture = "qwen2"};
    fake_model m = fake_vision;
    m.nf4 = false;
    m.vocab = 500;
    m.max_slices = 9; // what a GGUF pair has
    m.seed = 11;
    m.tokenizer = "tests/data/small_tokenizer.json";
    test_remove("build/fake/gguf/pair");
    fabricate("build/fake/gguf/pair_hf", &m);
    fabricate_gguf("build/fake/gguf/pair_hf", "build/fake/gguf/pair", &m, &twin);
    same_answers("pipelines/simple.yaml", "build/fake/gguf/pair_hf", "build/fake/gguf/pair",
        "examples/scene.jpg");
}

int main(void) {
    kt_log_set_level(KT_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pair_of_files_is_one_model),
        cmocka_unit_test(only_llama_files_are_interleaved),
        cmocka_unit_test(names_of_the_mlp_are_told_by_shape),
        cmocka_unit_test(other_projectors_are_refused),
        cmocka_unit_test(files_are_chosen),
        cmocka_unit_test(a_config_does_not_hide_gguf),
        cmocka_unit_test(stop_tokens_are_found),
        cmocka_unit_test(models_that_do_not_fit_are_refused),
        cmocka_unit_test(types_without_a_format_are_named),
        cmocka_unit_test(a_qwen2_twin_answers_the_same),
        cmocka_unit_test(a_llama_twin_answers_the_same),
        cmocka_unit_test(a_quantised_twin_answers_the_same),
        cmocka_unit_test(a_pair_answers_the_same),
    };
    return cmocka_run_group_tests_name("gguf_model", tests, NULL, NULL);
}
