#include "tools/fabricate/gguf.h"

#include "loader/json.h"
#include "runtime/base/f16.h"

#include <inttypes.h>
#include <string.h>

enum { ALIGNMENT = 32, TYPE_NORMAL = 1, TYPE_CONTROL = 3 };
enum { KIND_U32 = 4, KIND_I32 = 5, KIND_F32 = 6, KIND_BOOL = 7, KIND_TEXT = 8, KIND_LIST = 9 };

// ---- the header while it grows

typedef struct header {
    kt_buf keys;
    uint64_t n_keys;
} header;

static void put_u32(kt_buf *out, uint32_t value) {
    char bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = (char)(value >> (8 * i));
    kt_buf_add(out, bytes, 4);
}

static void put_u64(kt_buf *out, uint64_t value) {
    put_u32(out, (uint32_t)value);
    put_u32(out, (uint32_t)(value >> 32));
}

static void put_text(kt_buf *out, kt_str text) {
    put_u64(out, text.n);
    kt_buf_str(out, text);
}

static void put_f32(kt_buf *out, double value) {
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, 4);
    put_u32(out, bits);
}

static void key(header *h, const char *name, uint32_t kind) {
    put_text(&h->keys, kt_str_from(name));
    put_u32(&h->keys, kind);
    h->n_keys++;
}

static void key_text(header *h, const char *name, const char *text) {
    key(h, name, KIND_TEXT);
    put_text(&h->keys, kt_str_from(text));
}

static void key_u32(header *h, const char *name, int64_t value) {
    key(h, name, KIND_U32);
    put_u32(&h->keys, (uint32_t)value);
}

static void key_f32(header *h, const char *name, double value) {
    key(h, name, KIND_F32);
    put_f32(&h->keys, value);
}

static void key_bool(header *h, const char *name, bool value) {
    const char byte = value ? 1 : 0;
    key(h, name, KIND_BOOL);
    kt_buf_add(&h->keys, &byte, 1);
}

static void key_list(header *h, const char *name, uint32_t kind, uint64_t n) {
    key(h, name, KIND_LIST);
    put_u32(&h->keys, kind);
    put_u64(&h->keys, n);
}

static void key_thrice(header *h, const char *name, double value) {
    key_list(h, name, KIND_F32, 3);
    for (int i = 0; i < 3; i++) put_f32(&h->keys, value);
}

// ---- types

typedef struct type_row {
    const char *name;
    uint32_t number;
    int64_t block, bytes;
    kt_fill_kind kind;
    double size; // of the numbers where the scale is 1
} type_row;

static const type_row types[] = {
    {"F32", 0, 1, 4, KT_FILL_NORMAL32, 1}, {"F16", 1, 1, 2, KT_FILL_NORMAL16, 1},
    {"Q4_0", 2, 32, 18, KT_FILL_Q4_0, 4.637}, // root of the mean of (q - 8)^2, q from 0 to 15
    {"Q4_K", 12, 256, 144, KT_FILL_Q4_K, 48.39 * 4.610}, // scales of 32 to 63, (q - 7.5)^2
    {"Q6_K", 14, 256, 210, KT_FILL_Q6_K, 48.39 * 18.48}, // the same, (q - 32)^2, q from 0 to 63
};
enum { F32, F16, Q4_0, Q4_K, Q6_K };

typedef struct maker {
    kt_arena *arena;
    const kt_gguf_source *source;
    const double *normals;
    kt_tensors out;
} maker;

static const void *levels_of(maker *m, const type_row *type, double mean, double std) {
    uint16_t *halves = KT_NEW_ARRAY(m->arena, uint16_t, KT_FILL_LEVELS);
    float *floats = KT_NEW_ARRAY(m->arena, float, KT_FILL_LEVELS);
    bool blocks = type->block > 1; // then levels are scales: near one size, above 0
    for (int i = 0; i < KT_FILL_LEVELS; i++) {
        double value =
            blocks ? std / type->size * (1 + 0.15 * m->normals[i]) : mean + std * m->normals[i];
        floats[i] = (float)value;
        halves[i] = kt_f32_to_f16((float)value);
    }
    return type->kind == KT_FILL_NORMAL32 ? (const void *)floats : (const void *)halves;
}

static void add(maker *m, const char *name, const kt_tensor *from, int64_t rows, int type) {
    int64_t columns = from->shape[from->rank - 1];
    if (columns % types[type].block != 0) type = F16;
    const type_row *row = &types[type];
    kt_tensor t = {.name = kt_str_copy(m->arena, kt_str_from(name)), .dtype = row->name};
    t.rank = from->rank;
    t.bytes = row->bytes;
    memcpy(t.shape, from->shape, sizeof t.shape);
    if (rows > 0) t.shape[0] = rows;
    for (int i = 0; i < t.rank; i++) t.bytes *= t.shape[i];
    t.bytes /= row->block;
    t.fill.kind = row->kind;
    t.fill.key = kt_fill_key(m->source->seed, t.name);
    const void *levels = levels_of(m, row, from->mean, from->std);
    if (row->kind == KT_FILL_NORMAL32)
        t.fill.levels32 = levels;
    else
        t.fill.levels16 = levels;
    KT_PUSH(m->arena, &m->out, t);
}

// ---- names

static const char *const names[][2] = {{"model.embed_tokens.", "token_embd."},
    {"model.norm.", "output_norm."}, {"lm_head.", "output."}, {"self_attn.q_proj.", "attn_q."},
    {"self_attn.k_proj.", "attn_k."}, {"self_attn.v_proj.", "attn_v."},
    {"self_attn.o_proj.", "attn_output."}, {"mlp.gate_proj.", "ffn_gate."},
    {"mlp.up_proj.", "ffn_up."}, {"mlp.down_proj.", "ffn_down."},
    {"input_layernorm.", "attn_norm."}, {"post_attention_layernorm.", "ffn_norm."},
    {"embeddings.patch_embedding.", "patch_embd."},
    {"embeddings.position_embedding.", "position_embd."}, {"post_layernorm.", "post_ln."},
    {"layer_norm1.", "ln1."}, {"layer_norm2.", "ln2."}, {"self_attn.out_proj.", "attn_out."},
    // The converter has these two the wrong way round.
    {"mlp.fc1.", "ffn_down."}, {"mlp.fc2.", "ffn_up."}, {"kv_proj.", "kv."},
    {"attn.out_proj.", "attn.out."}};

static kt_str renamed(kt_str rest) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (kt_str_starts(rest, kt_str_from(names[i][0]))) return kt_str_from(names[i][1]);
    return KT_STR("");
}

// Splits "llm.model.layers.3.mlp.up_proj.weight" into 3 and "mlp.up_proj.weight"; -1 without a
// layer.
static int64_t layer_of(kt_str *name) {
    ptrdiff_t at = kt_str_find_text(*name, "layers.");
    int64_t layer = -1;
    if (at < 0) return -1;
    kt_str rest = kt_str_slice(*name, (size_t)at + 7, name->n);
    ptrdiff_t dot = kt_str_find(rest, '.');
    KT_ASSERT(dot > 0 && kt_str_to_i64(kt_str_slice(rest, 0, (size_t)dot), &layer));
    *name = kt_str_slice(rest, (size_t)dot + 1, rest.n);
    return layer;
}

static const char *name_of(maker *m, const char *stem, int64_t layer, kt_str rest) {
    kt_str to = renamed(rest);
    ptrdiff_t dot = kt_str_find_last(rest, '.');
    kt_str end = kt_str_slice(rest, (size_t)dot + 1, rest.n); // weight, bias
    if (to.n == 0) return kt_arena_printf(m->arena, "%s%.*s", stem, KT_STR_ARG(rest));
    if (layer < 0)
        return kt_arena_printf(m->arena, "%s%.*s%.*s", stem, KT_STR_ARG(to), KT_STR_ARG(end));
    return kt_arena_printf(
        m->arena, "%sblk.%" PRId64 ".%.*s%.*s", stem, layer, KT_STR_ARG(to), KT_STR_ARG(end));
}

// ---- the text model

// llama.cpp gives some layers more bits. Source: src/llama-quant.cpp in ggml-org/llama.cpp,
// use_more_bits.
static int type_of(const maker *m, kt_str rest, int64_t layer, bool head) {
    int64_t n = m->source->geometry->layers;
    if (head) return Q6_K;
    if (m->source->mix == KT_GGUF_Q4_0) return Q4_0;
    bool wide = kt_str_starts(rest, KT_STR("self_attn.v_proj")) ||
                kt_str_starts(rest, KT_STR("mlp.down_proj"));
    bool more = layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
    return wide && more ? Q6_K : Q4_K;
}

static void add_text(maker *m) {
    for (size_t i = 0; i < m->source->tensors.n; i++) {
        const kt_tensor *t = &m->source->tensors.at[i];
        kt_str rest = t->name;
        if (!kt_str_starts(rest, KT_STR("llm."))) continue;
        rest = kt_str_slice(rest, 4, rest.n);
        int64_t layer = layer_of(&rest);
        bool head = kt_str_starts(rest, KT_STR("lm_head"));
        const char *name = name_of(m, "", layer, rest);
        add(m, name, t, 0, t->rank == 1 ? F32 : type_of(m, rest, layer, head));
    }
}

// ---- vision and resampler

static void add_in_proj(maker *m, const kt_tensor *t, const char *end, int64_t d) {
    static const char *const parts[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) {
        const char *name = kt_arena_printf(m->arena, "resampler.attn.%s.%s", parts[i], end);
        add(m, name, t, d, t->rank == 1 ? F32 : F16);
    }
}

static void add_vision(maker *m) {
    const kt_geometry *g = m->source->geometry;
    for (size_t i = 0; i < m->source->tensors.n; i++) {
        const kt_tensor *t = &m->source->tensors.at[i];
        kt_str rest = t->name;
        bool vision = kt_str_starts(rest, KT_STR("vpm."));
        int type = t->rank == 1 || kt_str_is(rest, "resampler.query") ? F32 : F16;
        if (kt_str_starts(rest, KT_STR("llm."))) continue;
        if (kt_str_starts(rest, KT_STR("resampler.attn.in_proj_"))) {
            add_in_proj(m, t, t->rank == 1 ? "bias" : "weight", g->d);
        } else if (kt_str_is(rest, "resampler.proj")) {
            add(m, "resampler.proj.weight", t, 0, F16);
        } else if (vision) {
            rest = kt_str_slice(rest, 4, rest.n);
            int64_t layer = layer_of(&rest);
            add(m, name_of(m, "v.", layer, rest), t, 0, type);
        } else {
            rest = kt_str_slice(rest, 10, rest.n);
            add(m, name_of(m, "resampler.", -1, rest), t, 0, type);
        }
    }
    int64_t places =
        g->vis_side / g->patch; // a table of sines in the real file, which nobody reads
    kt_tensor table = {.rank = 2, .shape = {places * places, g->d}, .std = 0.7};
    add(m, "resampler.pos_embed_k", &table, 0, F32);
}

// ---- keys

static void add_text_keys(header *h, const kt_gguf_source *s) {
    const kt_geometry *g = s->geometry;
    key_text(h, "general.architecture", "qwen2");
    key_text(h, "general.name", "fabricated");
    key_u32(h, "qwen2.block_count", g->layers);
    key_u32(h, "qwen2.context_length", g->context);
    key_u32(h, "qwen2.embedding_length", g->d);
    key_u32(h, "qwen2.feed_forward_length", g->f);
    key_u32(h, "qwen2.attention.head_count", g->heads);
    key_u32(h, "qwen2.attention.head_count_kv", g->kv_heads);
    key_f32(h, "qwen2.rope.freq_base", g->theta);
    key_f32(h, "qwen2.attention.layer_norm_rms_epsilon", g->eps);
    key_u32(h, "general.file_type", s->mix == KT_GGUF_Q4_0 ? 2 : 15);
}

static void add_vision_keys(header *h, const kt_geometry *g) {
    key_text(h, "general.architecture", "clip");
    key_bool(h, "clip.has_text_encoder", false);
    key_bool(h, "clip.has_vision_encoder", true);
    key_bool(h, "clip.has_minicpmv_projector", true);
    key_u32(h, "general.file_type", 1);
    key_text(h, "general.description", "image encoder for MiniCPM-V");
    key_text(h, "clip.projector_type", "resampler");
    key(h, "clip.minicpmv_version", KIND_I32);
    put_u32(&h->keys, 3);
    key_u32(h, "clip.vision.image_size", g->side);
    key_u32(h, "clip.vision.patch_size", g->patch);
    key_u32(h, "clip.vision.embedding_length", g->dv);
    key_u32(h, "clip.vision.feed_forward_length", g->fv);
    key_u32(h, "clip.vision.projection_dim", 0);
    key_u32(h, "clip.vision.attention.head_count", g->vis_heads);
    key_f32(h, "clip.vision.attention.layer_norm_epsilon", 1e-6);
    key_u32(h, "clip.vision.block_count", g->vis_layers);
    key_thrice(h, "clip.vision.image_mean", 0.5);
    key_thrice(h, "clip.vision.image_std", 0.5);
    key_bool(h, "clip.use_gelu", true);
}

static kt_status add_tokenizer(kt_arena *arena, header *h, const kt_gguf_source *s, kt_err *err) {
    const kt_json_limits limits = {.bytes = 64 << 20, .depth = 32, .values = 4 << 20};
    const kt_json *root;
    int64_t n = s->geometry->vocab, id;
    kt_str text;
    KT_TRY(kt_json_parse(arena, s->tokenizer, "tokenizer.json", limits, &root, err));
    const kt_json *model = kt_json_find(root, KT_STR("model"));
    const kt_json *vocab = kt_json_find(model, KT_STR("vocab"));
    const kt_json *merges = kt_json_find(model, KT_STR("merges"));
    const kt_json *added = kt_json_find(root, KT_STR("added_tokens"));
    if (!vocab || !merges || merges->kind != KT_JSON_LIST || !added || added->kind != KT_JSON_LIST)
        return KT_FAIL(err, KT_EFORMAT, "tokenizer.json: no vocabulary, merges or added tokens");
    kt_str *tokens = KT_NEW_ARRAY(arena, kt_str, n);
    uint32_t *kinds = KT_NEW_ARRAY(arena, uint32_t, n);
    for (int64_t i = 0; i < n; i++) {
        tokens[i] = kt_str_from(kt_arena_printf(arena, "[PAD%" PRId64 "]", i));
        kinds[i] = TYPE_CONTROL;
    }
    for (size_t i = 0; i < vocab->n; i++) {
        const kt_json_member *member = kt_json_member_at(vocab, i);
        if (!kt_json_get_int(&member->value, &id) || id < 0 || id >= n) continue;
        tokens[id] = member->name;
        kinds[id] = TYPE_NORMAL;
    }
    for (size_t i = 0; i < added->n; i++) {
        const kt_json *token = &added->as.items[i];
        if (!kt_json_get_int(kt_json_find(token, KT_STR("id")), &id) || id < 0 || id >= n) continue;
        if (!kt_json_get_text(kt_json_find(token, KT_STR("content")), &tokens[id])) continue;
        kinds[id] = TYPE_CONTROL;
    }
    key_text(h, "tokenizer.ggml.model", "gpt2");
    key_text(h, "tokenizer.ggml.pre", "qwen2");
    key_list(h, "tokenizer.ggml.tokens", KIND_TEXT, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) put_text(&h->keys, tokens[i]);
    key_list(h, "tokenizer.ggml.token_type", KIND_I32, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) put_u32(&h->keys, kinds[i]);
    key_list(h, "tokenizer.ggml.merges", KIND_TEXT, merges->n);
    for (size_t i = 0; i < merges->n; i++) {
        text = KT_STR("");
        kt_json_get_text(&merges->as.items[i], &text);
        put_text(&h->keys, text);
    }
    key_u32(h, "tokenizer.ggml.bos_token_id", n - 22);
    key_u32(h, "tokenizer.ggml.eos_token_id", n - 21);
    for (int64_t i = 0; i < n; i++)
        if (kt_str_is(tokens[i], "<unk>")) key_u32(h, "tokenizer.ggml.unknown_token_id", i);
    key_u32(h, "tokenizer.ggml.padding_token_id", 0);
    key_text(h, "tokenizer.chat_template",
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
        "'<|im_start|>assistant\\n' }}{% endif %}");
    key_u32(h, "general.quantization_version", 2);
    return KT_OK;
}

// ---- files

static void finish(maker *m, header *h, const char *name, kt_shard *out) {
    *out = (kt_shard){.tensors = m->out.at, .n = (int64_t)m->out.n};
    snprintf(out->name, sizeof out->name, "%s", name);
    kt_buf *text = &out->header;
    kt_buf_add(text, "GGUF", 4);
    put_u32(text, 3);
    put_u64(text, m->out.n);
    put_u64(text, h->n_keys);
    kt_buf_add(text, h->keys.at, h->keys.n);
    for (size_t i = 0; i < m->out.n; i++) {
        kt_tensor *t = &m->out.at[i];
        t->at = out->data_bytes;
        out->data_bytes += (t->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        put_text(text, t->name);
        put_u32(text, (uint32_t)t->rank);
        for (int a = t->rank - 1; a >= 0; a--) put_u64(text, (uint64_t)t->shape[a]);
        uint32_t number = 0;
        for (size_t k = 0; k < sizeof types / sizeof *types; k++)
            if (strcmp(types[k].name, t->dtype) == 0) number = types[k].number;
        put_u32(text, number);
        put_u64(text, (uint64_t)t->at);
    }
    const char zero = 0;
    while (text->n % ALIGNMENT != 0) kt_buf_add(text, &zero, 1);
    kt_buf_deinit(&h->keys);
}

kt_status kt_gguf_files(
    kt_arena *arena, const kt_gguf_source *source, kt_shard files[2], kt_err *err) {
    header text = {0}, vision = {0};
    maker m = {.arena = arena, .source = source, .normals = kt_fill_normals(arena)};
    add_text_keys(&text, source);
    kt_status status = add_tokenizer(arena, &text, source, err);
    if (status != KT_OK) {
        kt_buf_deinit(&text.keys);
        return status;
    }
    bool k_quants = source->mix == KT_GGUF_Q4_K_M;
    add_text(&m);
    finish(&m, &text, k_quants ? "ggml-model-Q4_K_M.gguf" : "ggml-model-Q4_0.gguf", &files[0]);
    maker v = {.arena = arena, .source = source, .normals = m.normals};
    add_vision_keys(&vision, source->geometry);
    add_vision(&v);
    finish(&v, &vision, "mmproj-model-f16.gguf", &files[1]);
    return KT_OK;
}
