#include "tools/fabricate/model.h"

#include "runtime/base/f16.h"

#include <inttypes.h>
#include <string.h>

// ---- NF4. Source: bitsandbytes, functional.py (get_4bit_type, create_dynamic_map)

static const float nf4_book[16] = {-1.0F, -0.6961928009986877F, -0.5250730514526367F,
    -0.39491748809814453F, -0.28444138169288635F, -0.18477343022823334F, -0.09105003625154495F,
    0.0F, 0.07958029955625534F, 0.16093020141124725F, 0.24611230194568634F, 0.33791524171829224F,
    0.44070982933044434F, 0.5626170039176941F, 0.7229568362236023F, 1.0F};

enum { BLOCK = 64, NESTED_BLOCK = 256 };

// The map of 8-bit numbers: for each of 7 decades the midpoints of equal steps, their negatives, 0
// and 1.
static const float *dynamic_map(kt_arena *arena) {
    float *map = KT_NEW_ARRAY(arena, float, 256);
    double decade = 1e-6;
    int at = 128;
    for (int e = 0; e < 7; e++, decade *= 10) {
        for (int i = 0; i < 1 << e; i++) {
            double low = 0.1 + 0.9 * i / (1 << e), high = 0.1 + 0.9 * (i + 1) / (1 << e);
            map[at++] = (float)(decade * (low + high) / 2);
        }
    }
    map[127] = 0;
    map[255] = 1;
    for (int i = 0; i < 127; i++) map[126 - i] = -map[128 + i];
    return map;
}

// ---- making tensors

typedef struct maker {
    kt_arena *arena;
    const kt_geometry *g;
    bool int4;
    uint64_t seed;
    const double *normals;
    const float *map;   // dynamic_map
    double map_squares; // mean square of it
    double book_squares;
    double branch; // standard deviation that a residual branch adds, text and vision
    double vis_branch;
    struct {
        double mean, std;
        const uint16_t *levels;
    } tables[64]; // of bf16 levels made so far
    int n_tables;
    kt_tensors out;
} maker;

static double root_of(double x) {
    double root = 1;
    for (int i = 0; i < 60; i++) root = (root + x / root) / 2;
    return root;
}

static const uint16_t *levels_of(maker *m, double mean, double std) {
    for (int i = 0; i < m->n_tables; i++)
        if (m->tables[i].mean == mean && m->tables[i].std == std) return m->tables[i].levels;
    uint16_t *levels = KT_NEW_ARRAY(m->arena, uint16_t, KT_FILL_LEVELS);
    for (int i = 0; i < KT_FILL_LEVELS; i++)
        levels[i] = kt_f32_to_bf16((float)(mean + std * m->normals[i]));
    KT_ASSERT(m->n_tables < 64);
    m->tables[m->n_tables].mean = mean;
    m->tables[m->n_tables].std = std;
    m->tables[m->n_tables++].levels = levels;
    return levels;
}

static kt_tensor *add(maker *m, kt_str name, const char *dtype, int rank, const int64_t *shape) {
    kt_tensor t = {.name = name, .dtype = dtype, .rank = rank};
    t.bytes = dtype[0] == 'F' ? 4 : dtype[0] == 'B' ? 2 : 1;
    for (int i = 0; i < rank; i++) {
        t.shape[i] = shape[i];
        t.bytes *= shape[i];
    }
    t.fill.key = kt_fill_key(m->seed, name);
    KT_PUSH(m->arena, &m->out, t);
    return &m->out.at[m->out.n - 1];
}

static void add_normal(
    maker *m, kt_str name, int rank, const int64_t *shape, double mean, double std) {
    kt_tensor *t = add(m, name, "BF16", rank, shape);
    t->fill.kind = KT_FILL_NORMAL16;
    t->fill.levels16 = levels_of(m, mean, std);
    t->mean = mean;
    t->std = std;
}

static kt_str join(maker *m, kt_str stem, const char *rest) {
    return kt_str_from(kt_arena_printf(m->arena, "%.*s%s", KT_STR_ARG(stem), rest));
}

static void add_vector(maker *m, kt_str name, int64_t n, double mean, double std) {
    add_normal(m, name, 1, &n, mean, std);
}

static void add_matrix(maker *m, kt_str name, int64_t n, int64_t k, double std) {
    const int64_t shape[] = {n, k};
    add_normal(m, name, 2, shape, 0, std);
}

static kt_tensor *add_bytes(
    maker *m, kt_str name, const char *dtype, int64_t n, const void *bytes) {
    kt_tensor *t = add(m, name, dtype, 1, &n);
    t->fill.kind = KT_FILL_FIXED;
    t->fill.fixed = bytes;
    t->fill.fixed_bytes = t->bytes;
    return t;
}

// A matrix [n, k] in four bits. Scales are offset + map[code] * nested with nested from 0.45 to 0.7
// of the offset, so from 0.3 to 1.7 of it.
static void add_nf4(maker *m, kt_str name, int64_t n, int64_t k, double std) {
    const double low = 0.45, high = 0.7;
    double nested_squares = (high * high * high - low * low * low) / (3 * (high - low));
    double size = root_of(m->book_squares * (1 + nested_squares * m->map_squares));
    float offset = (float)(std / size);
    int64_t codes[] = {(n * k + 1) / 2, 1}, blocks = (n * k + BLOCK - 1) / BLOCK;
    int64_t nested = (blocks + NESTED_BLOCK - 1) / NESTED_BLOCK;
    add(m, name, "U8", 2, codes)->fill.kind = KT_FILL_NF4;
    add(m, join(m, name, ".absmax"), "U8", 1, &blocks)->fill.kind = KT_FILL_BYTES;
    add_bytes(m, join(m, name, ".quant_map"), "F32", 16, nf4_book);
    kt_tensor *t = add(m, join(m, name, ".nested_absmax"), "F32", 1, &nested);
    t->fill.kind = KT_FILL_UNIFORM;
    t->fill.low = (float)(low * (double)offset);
    t->fill.high = (float)(high * (double)offset);
    add_bytes(m, join(m, name, ".nested_quant_map"), "F32", 256, m->map);
    const char *state = kt_arena_printf(m->arena,
        "{\"quant_type\": \"nf4\", \"blocksize\": %d, \"dtype\": \"bfloat16\", \"shape\": [%" PRId64
        ", %" PRId64 "], \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", "
        "\"nested_offset\": %.17g}",
        BLOCK, n, k, NESTED_BLOCK, (double)offset);
    add_bytes(
        m, join(m, name, ".quant_state.bitsandbytes__nf4"), "U8", (int64_t)strlen(state), state);
}

// stem.weight [n, k] whose outputs are `gain` times as large as its inputs.
static void add_linear(maker *m, kt_str stem, int64_t n, int64_t k, double gain) {
    add_matrix(m, join(m, stem, ".weight"), n, k, gain / root_of((double)k));
}

static void add_quantised(maker *m, kt_str stem, int64_t n, int64_t k, double gain) {
    if (m->int4)
        add_nf4(m, join(m, stem, ".weight"), n, k, gain / root_of((double)k));
    else
        add_linear(m, stem, n, k, gain);
}

static void add_bias(maker *m, kt_str stem, int64_t n) {
    add_vector(m, join(m, stem, ".bias"), n, 0, 0.05);
}

static void add_norm(maker *m, kt_str stem, int64_t n, bool bias) {
    add_vector(m, join(m, stem, ".weight"), n, 1, 0.1);
    if (bias) add_bias(m, stem, n);
}

// ---- the model. Gains of the branches' last matrices undo what comes before them: averaged values
// are about half as large as one, silu(g) * u is 0.6 and gelu 0.65 of their inputs.

static const double query_gain = 1.2; // scores with a standard deviation of 1.4

static void add_text_layer(maker *m, int64_t i) {
    const kt_geometry *g = m->g;
    int64_t kv = g->d / g->heads * g->kv_heads;
    kt_str p = kt_str_from(kt_arena_printf(m->arena, "llm.model.layers.%" PRId64 ".", i));
    kt_str q = join(m, p, "self_attn.q_proj"), k = join(m, p, "self_attn.k_proj");
    kt_str v = join(m, p, "self_attn.v_proj");
    add_quantised(m, q, g->d, g->d, query_gain);
    add_bias(m, q, g->d);
    add_quantised(m, k, kv, g->d, query_gain);
    add_bias(m, k, kv);
    add_quantised(m, v, kv, g->d, 1);
    add_bias(m, v, kv);
    add_quantised(m, join(m, p, "self_attn.o_proj"), g->d, g->d, m->branch / 0.5);
    add_quantised(m, join(m, p, "mlp.gate_proj"), g->f, g->d, 1);
    add_quantised(m, join(m, p, "mlp.up_proj"), g->f, g->d, 1);
    add_quantised(m, join(m, p, "mlp.down_proj"), g->d, g->f, m->branch / 0.6);
    add_norm(m, join(m, p, "input_layernorm"), g->d, false);
    add_norm(m, join(m, p, "post_attention_layernorm"), g->d, false);
}

static void add_vision_layer(maker *m, int64_t i) {
    const kt_geometry *g = m->g;
    kt_str p = kt_str_from(kt_arena_printf(m->arena, "vpm.encoder.layers.%" PRId64 ".", i));
    const struct {
        const char *name;
        double gain;
    } rows[] = {{"self_attn.k_proj", query_gain}, {"self_attn.v_proj", 1},
        {"self_attn.q_proj", query_gain}};
    for (int r = 0; r < 3; r++) {
        kt_str stem = join(m, p, rows[r].name);
        add_quantised(m, stem, g->dv, g->dv, rows[r].gain);
        add_bias(m, stem, g->dv);
    }
    kt_str out = join(m, p, "self_attn.out_proj");
    add_linear(m, out, g->dv, g->dv, m->vis_branch / 0.5);
    add_bias(m, out, g->dv);
    add_norm(m, join(m, p, "layer_norm1"), g->dv, true);
    kt_str fc1 = join(m, p, "mlp.fc1"), fc2 = join(m, p, "mlp.fc2");
    add_quantised(m, fc1, g->fv, g->dv, 1);
    add_bias(m, fc1, g->fv);
    add_quantised(m, fc2, g->dv, g->fv, m->vis_branch / 0.65);
    add_bias(m, fc2, g->dv);
    add_norm(m, join(m, p, "layer_norm2"), g->dv, true);
}

static void add_vision(maker *m) {
    const kt_geometry *g = m->g;
    const int64_t patch[] = {g->dv, 3, g->patch, g->patch};
    int64_t places = g->vis_side / g->patch;
    kt_str stem = KT_STR("vpm.embeddings.patch_embedding");
    add_normal(
        m, join(m, stem, ".weight"), 4, patch, 0, 2 / root_of((double)(3 * g->patch * g->patch)));
    add_bias(m, stem, g->dv);
    add_matrix(m, KT_STR("vpm.embeddings.position_embedding.weight"), places * places, g->dv, 0.3);
    for (int64_t i = 0; i < g->vis_layers; i++) add_vision_layer(m, i);
    add_norm(m, KT_STR("vpm.post_layernorm"), g->dv, true);
}

static void add_resampler(maker *m) {
    const kt_geometry *g = m->g;
    double unit = 1 / root_of((double)g->d);
    add_matrix(m, KT_STR("resampler.query"), g->queries, g->d, 1);
    add_matrix(m, KT_STR("resampler.proj"), g->d, g->d, unit);
    add_linear(m, KT_STR("resampler.kv_proj"), g->d, g->dv, 1);
    add_matrix(m, KT_STR("resampler.attn.in_proj_weight"), 3 * g->d, g->d, query_gain * unit);
    add_vector(m, KT_STR("resampler.attn.in_proj_bias"), 3 * g->d, 0, 0.05);
    add_linear(m, KT_STR("resampler.attn.out_proj"), g->d, g->d, 1);
    add_bias(m, KT_STR("resampler.attn.out_proj"), g->d);
    add_norm(m, KT_STR("resampler.ln_q"), g->d, true);
    add_norm(m, KT_STR("resampler.ln_kv"), g->d, true);
    add_norm(m, KT_STR("resampler.ln_post"), g->d, true);
}

kt_tensors kt_model_tensors(
    kt_arena *arena, const kt_geometry *geometry, bool int4, uint64_t seed) {
    maker m = {.arena = arena, .g = geometry, .int4 = int4, .seed = seed};
    m.normals = kt_fill_normals(arena);
    m.map = dynamic_map(arena);
    for (int i = 0; i < 256; i++) m.map_squares += (double)m.map[i] * (double)m.map[i] / 256;
    for (int i = 0; i < 16; i++) m.book_squares += (double)nf4_book[i] * (double)nf4_book[i] / 16;
    m.branch = root_of(3.0 / (double)(2 * geometry->layers + 1));
    m.vis_branch = root_of(3.0 / (double)(2 * geometry->vis_layers + 1));
    add_matrix(&m, KT_STR("llm.model.embed_tokens.weight"), geometry->vocab, geometry->d, 1);
    for (int64_t i = 0; i < geometry->layers; i++) add_text_layer(&m, i);
    add_norm(&m, KT_STR("llm.model.norm"), geometry->d, false);
    add_linear(&m, KT_STR("llm.lm_head"), geometry->vocab, geometry->d, 3);
    add_vision(&m);
    add_resampler(&m);
    return m.out;
}
