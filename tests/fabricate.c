#include "tests/fabricate.h"

#include "runtime/base/f16.h"
#include "runtime/base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const fake_model fake_text = {.d = 64,
    .layers = 2,
    .f = 96,
    .heads = 2,
    .kv_heads = 1,
    .hd = 32,
    .vocab = 80,
    .tied = true,
    .prefix = ""};

const fake_model fake_vision = {.d = 128,
    .layers = 2,
    .f = 192,
    .heads = 2,
    .kv_heads = 1,
    .hd = 64,
    .vocab = 160,
    .bias = true,
    .dv = 144,
    .fv = 288,
    .vis_heads = 2,
    .vis_layers = 2,
    .places = 8,
    .side = 56,
    .patch = 14,
    .queries = 6,
    .max_slices = 1,
    .nf4 = true,
    .prefix = "llm."};

static unsigned next(unsigned *state) {
    *state = *state * 1664525U + 1013904223U;
    return *state >> 8;
}

static int between(unsigned *state, int low, int high) {
    return low + (int)(next(state) % (unsigned)(high - low + 1));
}

fake_model fake_random(unsigned seed) {
    unsigned s = seed;
    fake_model m = {.bias = next(&s) & 1U, .tied = next(&s) & 1U, .nf4 = next(&s) & 1U};
    m.d = 128 * between(&s, 1, 3);
    m.layers = between(&s, 1, 3);
    m.f = 32 * between(&s, 5, 17);
    m.hd = 16 * between(&s, 2, 6);
    m.kv_heads = between(&s, 1, 3);
    m.heads = m.kv_heads * between(&s, 1, 4);
    m.vocab = between(&s, 101, 399);
    m.vis_heads = between(&s, 1, 4);
    m.dv = 72 * m.vis_heads;
    m.fv = 16 * between(&s, 11, 40);
    m.vis_layers = between(&s, 1, 4);
    m.places = between(&s, 5, 20);
    m.patch = 14;
    m.side = 14 * between(&s, 3, 9);
    m.queries = between(&s, 3, 20);
    m.max_slices = between(&s, 1, 9);
    m.prefix = next(&s) & 1U ? "llm." : "";
    return m;
}

static const char quant_state[] =
    "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", "
    "\"nested_blocksize\": 256, \"nested_offset\": 0.25}";

// The header while it grows, and the data behind it: zeros, but for the texts.
typedef struct writer {
    const fake_model *model;
    kt_buf header, data;
    unsigned state; // of the numbers
} writer;

// Numbers that keep what they multiply at its size: near 1 for norms, small for biases, and such
// that a row of a matrix has the length 1.
static void add_numbers(writer *w, const char *name, const int64_t *shape, int rank, int64_t n) {
    const char *end = strrchr(name, '.');
    bool norm = rank == 1 && end && strcmp(end, ".weight") == 0;
    double row = 1;
    for (int i = 1; i < rank; i++) row *= (double)shape[i];
    double scale = rank > 1 ? sqrt(3 / row) : norm ? 0.2 : 0.05;
    for (int64_t i = 0; i < n; i++) {
        double unit = (double)next(&w->state) / (1 << 23) - 1;
        float value = (float)((norm ? 1 : 0) + scale * unit);
        if (w->model->grid && rank > 1) {
            double step = exp2(floor(log2(scale / 127)));
            value = (float)(step * (i % 32 == 0 ? 127 : floor(127 * unit)));
        }
        uint16_t half = kt_f32_to_f16(value);
        if (w->model->wide)
            kt_buf_add(&w->data, &value, sizeof value);
        else
            kt_buf_add(&w->data, &half, sizeof half);
    }
}

static void put_part(writer *w, const char *name, const char *dtype, int width,
    const int64_t *shape, int rank, const char *text) {
    int64_t bytes = width;
    if (w->model->drop && strcmp(name, w->model->drop) == 0) return;
    kt_buf_printf(&w->header, "%s\"%s\": {\"dtype\": \"%s\", \"shape\": [",
        w->header.n > 1 ? ", " : "", name, dtype);
    for (int i = 0; i < rank; i++) {
        kt_buf_printf(&w->header, "%s%" PRId64, i ? ", " : "", shape[i]);
        bytes *= shape[i];
    }
    kt_buf_printf(
        &w->header, "], \"data_offsets\": [%zu, %zu]}", w->data.n, w->data.n + (size_t)bytes);
    if (text) {
        kt_buf_add(&w->data, text, (size_t)bytes);
        return;
    }
    if (w->model->seed) {
        add_numbers(w, name, shape, rank, bytes / width);
        return;
    }
    char *zeros = calloc(1, (size_t)bytes + 1);
    if (!zeros) abort();
    kt_buf_add(&w->data, zeros, (size_t)bytes);
    free(zeros);
}

static void put_shape(writer *w, const char *name, const int64_t *shape, int rank) {
    bool wide = w->model->wide;
    put_part(w, name, wide ? "F32" : "F16", wide ? 4 : 2, shape, rank, NULL);
}

static void put(writer *w, const char *name, int rank, int64_t a, int64_t b) {
    const int64_t shape[] = {a, b};
    put_shape(w, name, shape, rank);
}

static void put_vector(writer *w, const char *name, int64_t n) {
    put(w, name, 1, n, 0);
}

// A matrix that bitsandbytes stores in four bits where the model is quantised.
static void put_linear(writer *w, const char *name, int64_t n, int64_t k) {
    char part[256];
    if (!w->model->nf4) {
        put(w, name, 2, n, k);
        return;
    }
    int64_t blocks = (n * k + 63) / 64, nested = (blocks + 255) / 256;
    const int64_t codes[] = {(n * k + 1) / 2, 1}, map[] = {16}, nested_map[] = {256};
    const int64_t state[] = {(int64_t)sizeof quant_state - 1};
    put_part(w, name, "U8", 1, codes, 2, NULL);
    snprintf(part, sizeof part, "%s.absmax", name);
    put_part(w, part, "U8", 1, &blocks, 1, NULL);
    snprintf(part, sizeof part, "%s.quant_map", name);
    put_part(w, part, "F32", 4, map, 1, NULL);
    snprintf(part, sizeof part, "%s.nested_absmax", name);
    put_part(w, part, "F32", 4, &nested, 1, NULL);
    snprintf(part, sizeof part, "%s.nested_quant_map", name);
    put_part(w, part, "F32", 4, nested_map, 1, NULL);
    snprintf(part, sizeof part, "%s.quant_state.bitsandbytes__nf4", name);
    put_part(w, part, "U8", 1, state, 1, quant_state);
}

static const char *name_of(
    char *buf, size_t size, const char *prefix, int layer, const char *rest) {
    if (layer < 0)
        snprintf(buf, size, "%s%s", prefix, rest);
    else
        snprintf(buf, size, "%slayers.%d.%s", prefix, layer, rest);
    return buf;
}

static void put_text(writer *w) {
    const fake_model *m = w->model;
    char p[64], n[192];
    snprintf(p, sizeof p, "%smodel.", m->prefix);
    int64_t q = (int64_t)m->hd * m->heads, kv = (int64_t)m->hd * m->kv_heads;
    put(w, name_of(n, sizeof n, p, -1, "embed_tokens.weight"), 2, m->vocab, m->d);
    for (int i = 0; i < m->layers; i++) {
        put_linear(w, name_of(n, sizeof n, p, i, "self_attn.q_proj.weight"), q, m->d);
        put_linear(w, name_of(n, sizeof n, p, i, "self_attn.k_proj.weight"), kv, m->d);
        put_linear(w, name_of(n, sizeof n, p, i, "self_attn.v_proj.weight"), kv, m->d);
        if (m->bias) {
            put_vector(w, name_of(n, sizeof n, p, i, "self_attn.q_proj.bias"), q);
            put_vector(w, name_of(n, sizeof n, p, i, "self_attn.k_proj.bias"), kv);
            put_vector(w, name_of(n, sizeof n, p, i, "self_attn.v_proj.bias"), kv);
        }
        put_linear(w, name_of(n, sizeof n, p, i, "self_attn.o_proj.weight"), m->d, q);
        put_linear(w, name_of(n, sizeof n, p, i, "mlp.gate_proj.weight"), m->f, m->d);
        put_linear(w, name_of(n, sizeof n, p, i, "mlp.up_proj.weight"), m->f, m->d);
        put_linear(w, name_of(n, sizeof n, p, i, "mlp.down_proj.weight"), m->d, m->f);
        put_vector(w, name_of(n, sizeof n, p, i, "input_layernorm.weight"), m->d);
        put_vector(w, name_of(n, sizeof n, p, i, "post_attention_layernorm.weight"), m->d);
    }
    put_vector(w, name_of(n, sizeof n, p, -1, "norm.weight"), m->d);
    if (!m->tied) put(w, name_of(n, sizeof n, m->prefix, -1, "lm_head.weight"), 2, m->vocab, m->d);
}

static void put_both(writer *w, const char *stem, int64_t n) {
    char name[192];
    snprintf(name, sizeof name, "%s.weight", stem);
    put_vector(w, name, n);
    snprintf(name, sizeof name, "%s.bias", stem);
    put_vector(w, name, n);
}

static void put_vision_layer(writer *w, int layer) {
    const fake_model *m = w->model;
    static const char *const square[] = {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    char n[192], stem[160];
    const char *p = "vpm.encoder.";
    put_both(w, name_of(n, sizeof n, p, layer, "layer_norm1"), m->dv);
    put_both(w, name_of(n, sizeof n, p, layer, "layer_norm2"), m->dv);
    for (int i = 0; i < 3; i++) {
        snprintf(stem, sizeof stem, "%s.weight", square[i]);
        put_linear(w, name_of(n, sizeof n, p, layer, stem), m->dv, m->dv);
        snprintf(stem, sizeof stem, "%s.bias", square[i]);
        put_vector(w, name_of(n, sizeof n, p, layer, stem), m->dv);
    }
    put(w, name_of(n, sizeof n, p, layer, "self_attn.out_proj.weight"), 2, m->dv, m->dv);
    put_vector(w, name_of(n, sizeof n, p, layer, "self_attn.out_proj.bias"), m->dv);
    put_linear(w, name_of(n, sizeof n, p, layer, "mlp.fc1.weight"), m->fv, m->dv);
    put_vector(w, name_of(n, sizeof n, p, layer, "mlp.fc1.bias"), m->fv);
    put_linear(w, name_of(n, sizeof n, p, layer, "mlp.fc2.weight"), m->dv, m->fv);
    put_vector(w, name_of(n, sizeof n, p, layer, "mlp.fc2.bias"), m->dv);
}

static void put_vision(writer *w) {
    const fake_model *m = w->model;
    const int64_t patch[] = {m->dv, 3, m->patch, m->patch};
    put_shape(w, "vpm.embeddings.patch_embedding.weight", patch, 4);
    put_vector(w, "vpm.embeddings.patch_embedding.bias", m->dv);
    put(w, "vpm.embeddings.position_embedding.weight", 2, (int64_t)m->places * m->places, m->dv);
    for (int i = 0; i < m->vis_layers; i++) put_vision_layer(w, i);
    put_both(w, "vpm.post_layernorm", m->dv);
    put_both(w, "resampler.ln_q", m->d);
    put_both(w, "resampler.ln_kv", m->d);
    put_both(w, "resampler.ln_post", m->d);
    put(w, "resampler.query", 2, m->queries, m->d);
    put(w, "resampler.kv_proj.weight", 2, m->d, m->dv);
    put(w, "resampler.attn.in_proj_weight", 2, 3 * (int64_t)m->d, m->d);
    put_vector(w, "resampler.attn.in_proj_bias", 3 * (int64_t)m->d);
    put(w, "resampler.attn.out_proj.weight", 2, m->d, m->d);
    put_vector(w, "resampler.attn.out_proj.bias", m->d);
    put(w, "resampler.proj", 2, m->d, m->d);
}

static void add_config(const fake_model *m, kt_buf *out) {
    kt_buf_printf(out,
        "{\n  \"model_type\": \"fake\",\n  \"hidden_size\": %d,\n  \"num_hidden_layers\": %d,\n  "
        "\"intermediate_size\": %d,\n"
        "  \"num_attention_heads\": %d,\n  \"num_key_value_heads\": %d,\n  \"head_dim\": %d,\n"
        "  \"vocab_size\": %d,\n  \"rms_norm_eps\": 1e-06,\n  \"rope_theta\": 10000.0,\n"
        "  \"max_position_embeddings\": 512",
        m->d, m->layers, m->f, m->heads, m->kv_heads, m->hd, m->vocab);
    if (m->dv)
        kt_buf_printf(out,
            ",\n  \"query_num\": %d,\n  \"image_size\": %d,\n  \"drop_vision_last_layer\": false,\n"
            "  \"slice_config\": {\"max_slice_nums\": %d},\n"
            "  \"vision_config\": {\"hidden_size\": %d, \"intermediate_size\": %d, "
            "\"num_attention_heads\": %d, \"num_hidden_layers\": %d, \"image_size\": %d, "
            "\"patch_size\": %d}",
            m->queries, m->side, m->max_slices, m->dv, m->fv, m->vis_heads, m->vis_layers,
            m->places * m->patch, m->patch);
    kt_buf_printf(out, "\n}\n");
}

static void write_file(const char *folder, const char *name, const kt_buf *bytes) {
    char path[1024];
    kt_err err;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (kt_os_write_atomic(path, bytes->at, bytes->n, &err) == KT_OK) return;
    fprintf(stderr, "fabricate: %s\n", err.text);
    exit(1);
}

static void copy_tokenizer(const char *folder, const char *path) {
    kt_arena arena = {0};
    kt_str text;
    kt_err err;
    if (kt_file_read(&arena, path, 64 << 20, &text, &err) != KT_OK) {
        fprintf(stderr, "fabricate: %s\n", err.text);
        exit(1);
    }
    kt_buf bytes = {0};
    kt_buf_str(&bytes, text);
    write_file(folder, "tokenizer.json", &bytes);
    kt_buf_deinit(&bytes);
    kt_arena_deinit(&arena);
}

void fabricate(const char *folder, const fake_model *model) {
    writer w = {.model = model, .state = model->seed};
    kt_buf file = {0}, config = {0};
    if (!kt_os_mkdirs(folder)) {
        fprintf(stderr, "fabricate: no folder '%s'\n", folder);
        exit(1);
    }
    kt_buf_printf(&w.header, "{");
    put_text(&w);
    if (model->dv) put_vision(&w);
    if (model->extra) put_vector(&w, model->extra, 3);
    kt_buf_printf(&w.header, "}");
    while (w.header.n % 8) kt_buf_printf(&w.header, " ");
    uint64_t length = w.header.n;
    uint8_t head[8];
    for (int i = 0; i < 8; i++) head[i] = (uint8_t)(length >> (8 * i));
    kt_buf_add(&file, head, 8);
    kt_buf_add(&file, w.header.at, w.header.n);
    kt_buf_add(&file, w.data.at, w.data.n);
    write_file(folder, "model.safetensors", &file);
    add_config(model, &config);
    write_file(folder, "config.json", &config);
    if (model->tokenizer) copy_tokenizer(folder, model->tokenizer);
    kt_buf_deinit(&w.header);
    kt_buf_deinit(&w.data);
    kt_buf_deinit(&file);
    kt_buf_deinit(&config);
}
