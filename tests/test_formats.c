// What becomes of each GGML type on a GPU: its layout, and how many bytes that takes. One model
// holds them all, as files of mixed types do, and each weight keeps a layout of its own.
#include "loader/pipeline.h"
#include "runtime/base/log.h"
#include "runtime/plan/plan.h"
#include "tests/gguf_file.h"
#include "tests/util.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { D = 256, F = 512, VOCAB = 288, HEADS = 4 };

// One matrix of the model. `tile`: bytes of 16 x 64 weights in the layout.
typedef struct row {
    const char *stored, *weight;
    int64_t n, k;
    uint32_t type;
    int64_t block, bytes; // weights and bytes of a block of the type
    const char *layout;
    int64_t tile;
} row;

static const row rows[] = {
    {"blk.0.attn_q.weight", "dec.0.attn.q", D, D, 12, 256, 144, "tiles_q4", 640},
    {"blk.0.attn_k.weight", "dec.0.attn.k", D, D, 13, 256, 176, "tiles_q6", 960},
    {"blk.0.attn_v.weight", "dec.0.attn.v", D, D, 14, 256, 210, "tiles_q6", 960},
    {"blk.0.attn_output.weight", "dec.0.o", D, D, 8, 32, 34, "tiles_q8", 1088},
    {"blk.0.ffn_gate.weight", "dec.0.mlp.gate", F, D, 2, 32, 18, "tiles_q4", 640},
    {"blk.0.ffn_up.weight", "dec.0.mlp.up", F, D, 3, 32, 20, "tiles_q4", 640},
    {"blk.0.ffn_down.weight", "dec.0.down", D, F, 6, 32, 22, "tiles_q6", 960},
    {"output.weight", "head", VOCAB, D, 7, 32, 24, "tiles_q6", 960},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static void add_tensor(gguf_file *f, const char *name, uint32_t type, int64_t n, int64_t k,
    int64_t bytes) { // n 0: a vector
    void *zeros = calloc((size_t)bytes, 1);
    assert_non_null(zeros);
    const int64_t shape[2] = {n > 0 ? n : k, k};
    gguf_tensor(f, name, type, shape, n > 0 ? 2 : 1, zeros, (size_t)bytes);
    free(zeros);
}

static void write_model(const char *path) {
    static const char *const norms[] = {
        "output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"};
    gguf_file f;
    gguf_init(&f);
    gguf_key_text(&f, "general.architecture", KT_STR("qwen2"));
    gguf_key_u32(&f, "qwen2.embedding_length", D);
    gguf_key_u32(&f, "qwen2.block_count", 1);
    gguf_key_u32(&f, "qwen2.feed_forward_length", F);
    gguf_key_u32(&f, "qwen2.attention.head_count", HEADS);
    gguf_key_u32(&f, "qwen2.context_length", 2048);
    gguf_key_f32(&f, "qwen2.attention.layer_norm_rms_epsilon", 1e-6F);
    add_tensor(&f, "token_embd.weight", 12, VOCAB, D, (int64_t)VOCAB * D / 256 * 144);
    for (int i = 0; i < 3; i++) add_tensor(&f, norms[i], GGUF_F32, 0, D, (int64_t)D * 4);
    for (int i = 0; i < N_ROWS; i++)
        add_tensor(&f, rows[i].stored, rows[i].type, rows[i].n, rows[i].k,
            rows[i].n * rows[i].k / rows[i].block * rows[i].bytes);
    gguf_write(&f, path);
    gguf_deinit(&f);
}

static void check_layout(const kt_plan *plan, const kt_model *model, const row *r) {
    int64_t i;
    assert_true(kt_table_find(&model->by_name, kt_str_from(r->weight), &i));
    const kt_layout *layout = &plan->layouts[plan->weight_layout[i]];
    if (!kt_str_is(layout->name, r->layout))
        fail_msg("%s is read as %.*s, not as %s", r->weight, KT_STR_ARG(layout->name), r->layout);
    assert_int_equal(layout->n_weights, 1);
    int64_t tiles = (r->n + 15) / 16 * ((r->k + 63) / 64);
    assert_int_equal(layout->bytes, (tiles * r->tile + 255) / 256 * 256);
    assert_int_equal(layout->prepares[0].n_calls, 1); // not by way of f16
}

static void types_keep_their_size(void **state) {
    test_diag *t = *state;
    kt_err err = {0};
    const char *folder = test_folder(&t->arena);
    const char *path = kt_arena_printf(&t->arena, "%s/mixed.gguf", folder);
    write_model(path);
    kt_registry *registry = kt_registry_open(&t->arena, "ops", NULL, 0, &t->diag);
    kt_pipeline *pipeline = kt_pipeline_open(&t->arena, "pipelines/ids.yaml", &t->diag);
    assert_true(registry && pipeline);
    kt_model model = {0};
    if (kt_model_open(&t->arena, registry, pipeline->model_files, pipeline->n_model_files, path,
            &model, &t->diag, &err) != KT_OK)
        fail_msg("%s", err.text);
    kt_plan_request request = {.registry = registry,
        .pipeline = pipeline,
        .model = &model,
        .target = {.cuda = true, .cc = 89, .sm_count = 24}};
    kt_plan *plan;
    if (kt_plan_open(&t->arena, &request, &plan, &t->diag, &err) != KT_OK) fail_msg("%s", err.text);
    for (int i = 0; i < N_ROWS; i++) check_layout(plan, &model, &rows[i]);
    kt_model_close(&model);
    test_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(types_keep_their_size, test_diag_open, test_diag_close)};
    kt_log_set_level(KT_LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
