// Fabricated folders as GGUF files, as the converters of llama.cpp would write them: names, order
// of rows, transposed and split tensors, f32 for what has one axis. Source: convert_hf_to_gguf.py
// and the MiniCPM-V scripts in ggml-org/llama.cpp.
#include "loader/checkpoint.h"
#include "loader/json.h"
#include "runtime/base/f16.h"
#include "tests/fabricate.h"
#include "tests/gguf_file.h"
#include "tests/util.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct twin_writer {
    kt_arena arena;
    kt_checkpoint from;
    const fake_model *model;
    const gguf_twin *twin;
    gguf_file file;
} twin_writer;

typedef enum how { HOW_SAME, HOW_QUERY, HOW_KEY, HOW_TURNED } how;

typedef struct name_row {
    const char *hf, *gguf; // % is the layer
    how how;
} name_row;

static const name_row text_rows[] = {
    {"model.embed_tokens.weight", "token_embd.weight", HOW_SAME},
    {"model.norm.weight", "output_norm.weight", HOW_SAME},
    {"lm_head.weight", "output.weight", HOW_SAME},
};

static const name_row layer_rows[] = {
    {"model.layers.%.input_layernorm.weight", "blk.%.attn_norm.weight", HOW_SAME},
    {"model.layers.%.post_attention_layernorm.weight", "blk.%.ffn_norm.weight", HOW_SAME},
    {"model.layers.%.self_attn.q_proj.weight", "blk.%.attn_q.weight", HOW_QUERY},
    {"model.layers.%.self_attn.q_proj.bias", "blk.%.attn_q.bias", HOW_QUERY},
    {"model.layers.%.self_attn.k_proj.weight", "blk.%.attn_k.weight", HOW_KEY},
    {"model.layers.%.self_attn.k_proj.bias", "blk.%.attn_k.bias", HOW_KEY},
    {"model.layers.%.self_attn.v_proj.weight", "blk.%.attn_v.weight", HOW_SAME},
    {"model.layers.%.self_attn.v_proj.bias", "blk.%.attn_v.bias", HOW_SAME},
    {"model.layers.%.self_attn.o_proj.weight", "blk.%.attn_output.weight", HOW_SAME},
    {"model.layers.%.mlp.gate_proj.weight", "blk.%.ffn_gate.weight", HOW_SAME},
    {"model.layers.%.mlp.up_proj.weight", "blk.%.ffn_up.weight", HOW_SAME},
    {"model.layers.%.mlp.down_proj.weight", "blk.%.ffn_down.weight", HOW_SAME},
};

static const name_row vision_rows[] = {
    {"vpm.embeddings.patch_embedding.weight", "v.patch_embd.weight", HOW_SAME},
    {"vpm.embeddings.patch_embedding.bias", "v.patch_embd.bias", HOW_SAME},
    {"vpm.embeddings.position_embedding.weight", "v.position_embd.weight", HOW_SAME},
    {"vpm.post_layernorm.weight", "v.post_ln.weight", HOW_SAME},
    {"vpm.post_layernorm.bias", "v.post_ln.bias", HOW_SAME},
    {"resampler.query", "resampler.query", HOW_SAME},
    {"resampler.proj", "resampler.proj.weight", HOW_TURNED},
    {"resampler.kv_proj.weight", "resampler.kv.weight", HOW_SAME},
    {"resampler.attn.out_proj.weight", "resampler.attn.out.weight", HOW_SAME},
    {"resampler.attn.out_proj.bias", "resampler.attn.out.bias", HOW_SAME},
    {"resampler.ln_q.weight", "resampler.ln_q.weight", HOW_SAME},
    {"resampler.ln_q.bias", "resampler.ln_q.bias", HOW_SAME},
    {"resampler.ln_kv.weight", "resampler.ln_kv.weight", HOW_SAME},
    {"resampler.ln_kv.bias", "resampler.ln_kv.bias", HOW_SAME},
    {"resampler.ln_post.weight", "resampler.ln_post.weight", HOW_SAME},
    {"resampler.ln_post.bias", "resampler.ln_post.bias", HOW_SAME},
};

#define VISION_LAYER "vpm.encoder.layers.%."
static const name_row vision_layer_rows[] = {
    {VISION_LAYER "layer_norm1.weight", "v.blk.%.ln1.weight", HOW_SAME},
    {VISION_LAYER "layer_norm1.bias", "v.blk.%.ln1.bias", HOW_SAME},
    {VISION_LAYER "layer_norm2.weight", "v.blk.%.ln2.weight", HOW_SAME},
    {VISION_LAYER "layer_norm2.bias", "v.blk.%.ln2.bias", HOW_SAME},
    {VISION_LAYER "self_attn.q_proj.weight", "v.blk.%.attn_q.weight", HOW_SAME},
    {VISION_LAYER "self_attn.q_proj.bias", "v.blk.%.attn_q.bias", HOW_SAME},
    {VISION_LAYER "self_attn.k_proj.weight", "v.blk.%.attn_k.weight", HOW_SAME},
    {VISION_LAYER "self_attn.k_proj.bias", "v.blk.%.attn_k.bias", HOW_SAME},
    {VISION_LAYER "self_attn.v_proj.weight", "v.blk.%.attn_v.weight", HOW_SAME},
    {VISION_LAYER "self_attn.v_proj.bias", "v.blk.%.attn_v.bias", HOW_SAME},
    {VISION_LAYER "self_attn.out_proj.weight", "v.blk.%.attn_out.weight", HOW_SAME},
    {VISION_LAYER "self_attn.out_proj.bias", "v.blk.%.attn_out.bias", HOW_SAME},
};

// The older converters name the two matrices of the MLP the wrong way round.
static const name_row mlp_rows[2][4] = {
    {
        {VISION_LAYER "mlp.fc1.weight", "v.blk.%.ffn_down.weight", HOW_SAME},
        {VISION_LAYER "mlp.fc1.bias", "v.blk.%.ffn_down.bias", HOW_SAME},
        {VISION_LAYER "mlp.fc2.weight", "v.blk.%.ffn_up.weight", HOW_SAME},
        {VISION_LAYER "mlp.fc2.bias", "v.blk.%.ffn_up.bias", HOW_SAME},
    },
    {
        {VISION_LAYER "mlp.fc1.weight", "v.blk.%.ffn_up.weight", HOW_SAME},
        {VISION_LAYER "mlp.fc1.bias", "v.blk.%.ffn_up.bias", HOW_SAME},
        {VISION_LAYER "mlp.fc2.weight", "v.blk.%.ffn_down.weight", HOW_SAME},
        {VISION_LAYER "mlp.fc2.bias", "v.blk.%.ffn_down.bias", HOW_SAME},
    },
};

#define N(rows) ((int)(sizeof(rows) / sizeof((rows)[0])))

// ---- one tensor

static char *layer_name(kt_arena *arena, const char *prefix, const char *name, int layer) {
    const char *mark = strchr(name, '%');
    if (!mark) return kt_arena_printf(arena, "%s%s", prefix, name);
    return kt_arena_printf(arena, "%s%.*s%d%s", prefix, (int)(mark - name), name, layer, mark + 1);
}

// Row r of the file is row of_row of the weight.
static int64_t of_row(int64_t r, int64_t hd) {
    int64_t in = r % hd;
    return r - in + in % 2 * (hd / 2) + in / 2;
}

static void put_q8(twin_writer *w, const char *name, const int64_t *shape, int rank,
    const float *numbers, int64_t n) {
    kt_buf blocks = {0};
    for (int64_t b = 0; b < n; b += 32) {
        float most = 0;
        for (int i = 0; i < 32; i++) most = fmaxf(most, fabsf(numbers[b + i]));
        uint16_t scale = kt_f32_to_f16(most / 127);
        float d = kt_f16_to_f32(scale);
        kt_buf_add(&blocks, &scale, 2);
        for (int i = 0; i < 32; i++) {
            float q = d > 0 ? roundf(numbers[b + i] / d) : 0;
            int8_t code = (int8_t)fmaxf(-127, fminf(127, q));
            kt_buf_add(&blocks, &code, 1);
        }
    }
    gguf_tensor(&w->file, name, GGUF_Q8_0, shape, rank, blocks.at, blocks.n);
    kt_buf_deinit(&blocks);
}

// Numbers in f32 as the converters would store them: matrices in the type of the checkpoint.
static void put_numbers(twin_writer *w, const char *name, const int64_t *shape, int rank,
    const float *numbers, int64_t n) {
    bool text = strncmp(name, "v.", 2) != 0 && strncmp(name, "resampler", 9) != 0;
    if (w->twin->q8 && text && rank == 2 && shape[1] % 32 == 0) {
        put_q8(w, name, shape, rank, numbers, n);
        return;
    }
    if (w->model->wide || rank == 1) {
        gguf_tensor(&w->file, name, GGUF_F32, shape, rank, numbers, (size_t)n * 4);
        return;
    }
    uint16_t *half = KT_NEW_ARRAY(&w->arena, uint16_t, n);
    kt_f32_to_f16_row(numbers, half, (size_t)n);
    gguf_tensor(&w->file, name, GGUF_F16, shape, rank, half, (size_t)n * 2);
}

static float *read_numbers(twin_writer *w, const kt_stored *stored, int64_t *n) {
    kt_err err;
    *n = stored->bytes / kt_dtype_bytes(stored->dtype);
    char *raw = kt_arena_alloc(&w->arena, (size_t)stored->bytes);
    float *out = KT_NEW_ARRAY(&w->arena, float, *n);
    if (kt_checkpoint_read(&w->from, stored, 0, raw, stored->bytes, &err) != KT_OK)
        fail_msg("%s", err.text);
    if (stored->dtype == KT_DTYPE_F32)
        memcpy(out, raw, (size_t)stored->bytes);
    else
        kt_f16_to_f32_row((const uint16_t *)raw, out, (size_t)*n);
    return out;
}

static void put_row(twin_writer *w, const char *prefix, const name_row *row, int layer) {
    kt_str hf = kt_str_from(layer_name(&w->arena, prefix, row->hf, layer));
    const kt_stored *stored = kt_checkpoint_find(&w->from, hf);
    if (!stored) return; // biases, a head of its own
    int64_t n, k;
    float *in = read_numbers(w, stored, &n);
    float *out = KT_NEW_ARRAY(&w->arena, float, n);
    k = n / stored->shape[0];
    bool turn_rows = strcmp(w->twin->architecture, "llama") == 0 &&
                     (row->how == HOW_QUERY || row->how == HOW_KEY);
    for (int64_t r = 0; r < stored->shape[0]; r++)
        for (int64_t c = 0; c < k; c++) {
            int64_t from = r * k + c;
            if (turn_rows) from = of_row(r, w->model->hd) * k + c;
            if (row->how == HOW_TURNED) from = c * stored->shape[0] + r;
            out[r * k + c] = in[from];
        }
    put_numbers(
        w, layer_name(&w->arena, "", row->gguf, layer), stored->shape, stored->rank, out, n);
}

static void put_rows(twin_writer *w, const char *prefix, const name_row *rows, int n, int layer) {
    for (int i = 0; i < n; i++) put_row(w, prefix, &rows[i], layer);
}

// The three matrices that the resampler's in_proj holds.
static void put_projections(twin_writer *w) {
    static const char *const names[] = {"q", "k", "v"};
    static const char *const ends[] = {"weight", "bias"};
    for (int e = 0; e < 2; e++) {
        char *name = kt_arena_printf(&w->arena, "resampler.attn.in_proj_%s", ends[e]);
        const kt_stored *stored = kt_checkpoint_find(&w->from, kt_str_from(name));
        assert_non_null(stored);
        int64_t n, shape[2] = {stored->shape[0] / 3, stored->shape[1]};
        const float *numbers = read_numbers(w, stored, &n);
        for (int i = 0; i < 3; i++) {
            name = kt_arena_printf(&w->arena, "resampler.attn.%s.%s", names[i], ends[e]);
            put_numbers(w, name, shape, stored->rank, numbers + i * (n / 3), n / 3);
        }
    }
}

// ---- keys

static void put_key(twin_writer *w, const char *format, int value) {
    gguf_key_u32(&w->file, kt_arena_printf(&w->arena, "%s.%s", w->twin->architecture, format),
        (uint32_t)value);
}

static void put_text_keys(twin_writer *w) {
    const fake_model *m = w->model;
    const char *arch = w->twin->architecture;
    gguf_key_text(&w->file, "general.architecture", kt_str_from(arch));
    put_key(w, "block_count", m->layers);
    put_key(w, "context_length", 512);
    put_key(w, "embedding_length", m->d);
    put_key(w, "feed_forward_length", m->f);
    put_key(w, "attention.head_count", m->heads);
    put_key(w, "attention.head_count_kv", m->kv_heads);
    if (m->hd * m->heads != m->d) put_key(w, "attention.key_length", m->hd);
    gguf_key_f32(&w->file, kt_arena_printf(&w->arena, "%s.rope.freq_base", arch), 10000);
    gguf_key_f32(
        &w->file, kt_arena_printf(&w->arena, "%s.attention.layer_norm_rms_epsilon", arch), 1e-6F);
}

static void put_vision_keys(twin_writer *w) {
    static const float half[] = {0.5F, 0.5F, 0.5F};
    const fake_model *m = w->model;
    gguf_file *f = &w->file;
    gguf_key_text(f, "general.architecture", KT_STR("clip"));
    gguf_key_bool(f, "clip.has_vision_encoder", true);
    gguf_key_text(f, "clip.projector_type", KT_STR("resampler"));
    gguf_key_u32(f, "clip.minicpmv_version", 3);
    gguf_key_u32(f, "clip.vision.image_size", (uint32_t)m->side);
    gguf_key_u32(f, "clip.vision.patch_size", (uint32_t)m->patch);
    gguf_key_u32(f, "clip.vision.embedding_length", (uint32_t)m->dv);
    gguf_key_u32(f, "clip.vision.feed_forward_length", (uint32_t)m->fv);
    gguf_key_u32(f, "clip.vision.attention.head_count", (uint32_t)m->vis_heads);
    gguf_key_f32(f, "clip.vision.attention.layer_norm_epsilon", 1e-6F);
    gguf_key_u32(f, "clip.vision.block_count", (uint32_t)m->vis_layers);
    gguf_key_f32s(f, "clip.vision.image_mean", half, 3);
    gguf_key_f32s(f, "clip.vision.image_std", half, 3);
}

// Tokens that stand for nothing, for a model without a tokenizer.
static void put_plain_tokens(twin_writer *w) {
    kt_str *tokens = KT_NEW_ARRAY(&w->arena, kt_str, w->model->vocab);
    for (int i = 0; i < w->model->vocab; i++)
        tokens[i] = kt_str_from(kt_arena_printf(&w->arena, "t%d", i));
    gguf_key_texts(&w->file, "tokenizer.ggml.tokens", tokens, (size_t)w->model->vocab);
}

void gguf_add_tokenizer(gguf_file *f, const char *path, const char *pre) {
    kt_arena arena = {0};
    const kt_json *root, *model;
    const kt_json_limits limits = {64 << 20, 32, 4 << 20};
    kt_err err;
    if (kt_json_read(&arena, path, limits, &root, &err) != KT_OK) fail_msg("%s", err.text);
    model = kt_json_find(root, KT_STR("model"));
    const kt_json *vocab = kt_json_find(model, KT_STR("vocab"));
    const kt_json *added = kt_json_find(root, KT_STR("added_tokens"));
    const kt_json *merges = kt_json_find(model, KT_STR("merges"));
    size_t n = vocab->n + added->n; // no id is missing
    kt_str *tokens = KT_NEW_ARRAY(&arena, kt_str, n);
    int32_t *types = KT_NEW_ARRAY(&arena, int32_t, n);
    for (size_t i = 0; i < vocab->n; i++) {
        const kt_json_member *member = kt_json_member_at(vocab, i);
        assert_true(member->value.as.integer < (int64_t)n);
        tokens[member->value.as.integer] = member->name;
        types[member->value.as.integer] = 1;
    }
    for (size_t i = 0; i < added->n; i++) {
        bool special = kt_json_find(&added->as.items[i], KT_STR("special"))->as.truth;
        int64_t id = kt_json_find(&added->as.items[i], KT_STR("id"))->as.integer;
        assert_true(id < (int64_t)n);
        tokens[id] = kt_json_find(&added->as.items[i], KT_STR("content"))->as.text;
        types[id] = special ? 3 : 4;
    }
    kt_str *rules = KT_NEW_ARRAY(&arena, kt_str, merges->n);
    for (size_t i = 0; i < merges->n; i++) {
        const kt_json *merge = &merges->as.items[i];
        rules[i] = merge->kind == KT_JSON_TEXT ? merge->as.text
                                               : kt_str_from(kt_arena_printf(&arena, "%.*s %.*s",
                                                     KT_STR_ARG(merge->as.items[0].as.text),
                                                     KT_STR_ARG(merge->as.items[1].as.text)));
    }
    gguf_key_text(f, "tokenizer.ggml.model", KT_STR("gpt2"));
    gguf_key_text(f, "tokenizer.ggml.pre", kt_str_from(pre));
    gguf_key_texts(f, "tokenizer.ggml.tokens", tokens, n);
    gguf_key_i32s(f, "tokenizer.ggml.token_type", types, n);
    gguf_key_texts(f, "tokenizer.ggml.merges", rules, merges->n);
    kt_arena_deinit(&arena);
}

// ---- the two files

static void write_text(twin_writer *w, const char *from, const char *to) {
    const fake_model *m = w->model;
    const char *tokenizer = kt_arena_printf(&w->arena, "%s/tokenizer.json", from);
    gguf_init(&w->file);
    put_text_keys(w);
    if (w->twin->eos > 0) gguf_key_u32(&w->file, "tokenizer.ggml.eos_token_id", w->twin->eos);
    if (m->tokenizer)
        gguf_add_tokenizer(&w->file, tokenizer, "qwen2");
    else
        put_plain_tokens(w);
    put_rows(w, m->prefix, text_rows, N(text_rows), 0);
    for (int i = 0; i < m->layers; i++) put_rows(w, m->prefix, layer_rows, N(layer_rows), i);
    gguf_write(&w->file,
        kt_arena_printf(&w->arena, "%s/%s", to, w->twin->text ? w->twin->text : "text.gguf"));
    gguf_deinit(&w->file);
}

static void write_vision(twin_writer *w, const char *to) {
    const fake_model *m = w->model;
    const int64_t keys[] = {(int64_t)m->places * m->places, m->d};
    gguf_init(&w->file);
    put_vision_keys(w);
    put_rows(w, "", vision_rows, N(vision_rows), 0);
    put_projections(w);
    for (int i = 0; i < m->vis_layers; i++) {
        put_rows(w, "", vision_layer_rows, N(vision_layer_rows), i);
        put_rows(w, "", mlp_rows[w->twin->new_names ? 1 : 0], 4, i);
    }
    // A table that the converter makes of the places; nobody needs it.
    float *table = KT_NEW_ARRAY(&w->arena, float, keys[0] * keys[1]);
    gguf_tensor(&w->file, "resampler.pos_embed_k", GGUF_F32, keys, 2, table,
        (size_t)(keys[0] * keys[1]) * sizeof *table);
    gguf_write(&w->file,
        kt_arena_printf(&w->arena, "%s/%s", to, w->twin->mmproj ? w->twin->mmproj : "mmproj.gguf"));
    gguf_deinit(&w->file);
}

void fabricate_gguf(
    const char *from, const char *to, const fake_model *model, const gguf_twin *twin) {
    twin_writer w = {.model = model, .twin = twin};
    kt_err err;
    assert_false(model->nf4);
    if (kt_checkpoint_open(&w.arena, from, KT_STR("*.safetensors"), &w.from, &err) != KT_OK)
        fail_msg("%s", err.text);
    write_text(&w, from, to);
    if (model->dv) write_vision(&w, to);
    kt_checkpoint_close(&w.from);
    kt_arena_deinit(&w.arena);
}
