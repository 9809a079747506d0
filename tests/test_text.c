// Text models by YAML alone: Qwen2's, Llama's and MiniCPM's layers at several geometries with
// random weights, on token ids, against the same model computed here in double precision, written
// from its definition and sharing no code with the program. The seed is new in each run, and
// printed; KOTARO_SEED repeats one. DEVICE=cuda: on a GPU.
#include "runtime/base/log.h"
#include "runtime/base/os.h"
#include "runtime/kotaro.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <inttypes.h>
#include <math.h>

#include <cmocka.h>

enum { PROMPT = 37, NEW = 12, MOST = PROMPT + NEW, TENSORS = 64 };

// Differences of log-probabilities. Activations are f16 between the ops: each op rounds by at most
// 2^-11, a layer has 7 such roundings one after the other (norm, q/k/v, attention, norm, product of
// the gate), errors of different elements are independent, and logits are a few units:
// 4 * 2^-11 * sqrt(7 * 3 layers) = 0.009; 3 times that for the worst of 37 tokens.
#define TOLERANCE 0.027

typedef struct geometry {
    const char *name;
    int d, layers, f, heads, kv_heads, hd, vocab;
    bool bias, tied;
    double theta, eps;
    double embed, depth; // scale_emb, scale_depth; 0: not in config.json
    int base;            // dim_model_base
} geometry;

static const geometry geometries[] = {
    {"minicpm", 128, 3, 192, 8, 8, 16, 211, false, false, 1e4, 1e-5, 12, 1.4, 32},
    {"minicpm: groups of heads, wider than the model", 64, 2, 136, 6, 2, 48, 97, false, true, 1e5,
        1e-6, 7, 0.9, 64},
    {"minicpm: one layer", 192, 1, 320, 3, 1, 64, 303, false, false, 1e4, 1e-5, 3.5, 2.2, 80},
    {"llama", 64, 3, 176, 4, 2, 32, 127, false, true, 1e4, 1e-5, 0, 0, 0},
    {"qwen2", 192, 2, 264, 7, 1, 32, 199, true, false, 1e6, 1e-6, 0, 0, 0},
};
enum { N_GEOMETRIES = sizeof geometries / sizeof geometries[0] };

static uint64_t state_of_random;

static double uniform(void) { // -1 to 1. source: Steele et al. 2014, splitmix64
    uint64_t z = state_of_random += 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    z ^= z >> 31;
    return (double)(z >> 11) / (double)(1ULL << 52) - 1;
}

// ---- a checkpoint

typedef struct tensor {
    char name[96];
    int rows, columns; // columns 0: a vector
    float *at;
} tensor;

typedef struct model {
    const geometry *g;
    tensor tensors[TENSORS];
    int n;
    double embed, residual, head; // scales
} model;

static int count(const tensor *t) {
    return t->rows * (t->columns ? t->columns : 1);
}

// Numbers that f16 holds exactly, uniform around `middle`.
static void add(model *m, const char *name, int rows, int columns, double middle, double width) {
    assert_true(m->n < TENSORS);
    tensor *t = &m->tensors[m->n++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->columns = columns;
    t->at = test_malloc(sizeof(float) * (size_t)count(t));
    for (int i = 0; i < count(t); i++)
        t->at[i] = (float)(rint((middle + width * uniform()) * 1024) / 1024);
}

static void add_linear(model *m, int layer, const char *name, int rows, int columns, bool bias) {
    char full[96];
    snprintf(full, sizeof full, "model.layers.%d.%s.weight", layer, name);
    add(m, full, rows, columns, 0, 2 / sqrt(columns));
    snprintf(full, sizeof full, "model.layers.%d.%s.bias", layer, name);
    if (bias) add(m, full, rows, 0, 0, 0.5);
}

static void add_norm(model *m, int layer, const char *name) {
    char full[96];
    snprintf(full, sizeof full, "model.layers.%d.%s.weight", layer, name);
    add(m, full, m->g->d, 0, 1, 0.25);
}

static void make_model(model *m, const geometry *g) {
    *m = (model){.g = g, .embed = 1, .residual = 1, .head = 1};
    add(m, "model.embed_tokens.weight", g->vocab, g->d, 0, g->tied ? 0.3 : 1);
    for (int l = 0; l < g->layers; l++) {
        add_norm(m, l, "input_layernorm");
        add_linear(m, l, "self_attn.q_proj", g->heads * g->hd, g->d, g->bias);
        add_linear(m, l, "self_attn.k_proj", g->kv_heads * g->hd, g->d, g->bias);
        add_linear(m, l, "self_attn.v_proj", g->kv_heads * g->hd, g->d, g->bias);
        add_linear(m, l, "self_attn.o_proj", g->d, g->heads * g->hd, false);
        add_norm(m, l, "post_attention_layernorm");
        add_linear(m, l, "mlp.gate_proj", g->f, g->d, false);
        add_linear(m, l, "mlp.up_proj", g->f, g->d, false);
        add_linear(m, l, "mlp.down_proj", g->d, g->f, false);
    }
    add(m, "model.norm.weight", g->d, 0, 1, 0.25);
    double width = 4 / sqrt(g->d); // logits of a few units, whatever the scale before the head
    if (g->base) width *= (double)g->d / g->base;
    if (!g->tied) add(m, "lm_head.weight", g->vocab, g->d, 0, width);
    if (!g->base) return;
    m->embed = g->embed;
    m->residual = g->depth / sqrt(g->layers);
    m->head = (double)g->base / g->d;
}

static void free_model(model *m) {
    for (int i = 0; i < m->n; i++) test_free(m->tensors[i].at);
}

static void put_config(kt_arena *arena, const char *folder, const geometry *g) {
    kt_buf out = {0};
    kt_buf_printf(&out,
        "{\"hidden_size\": %d, \"num_hidden_layers\": %d, \"intermediate_size\": %d, "
        "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, "
        "\"vocab_size\": %d, \"rms_norm_eps\": %g, \"rope_theta\": %g, "
        "\"max_position_embeddings\": 256",
        g->d, g->layers, g->f, g->heads, g->kv_heads, g->hd, g->vocab, g->eps, g->theta);
    if (g->base)
        kt_buf_printf(&out, ", \"scale_emb\": %g, \"scale_depth\": %g, \"dim_model_base\": %d",
            g->embed, g->depth, g->base);
    kt_buf_printf(&out, "}\n");
    test_put(arena, folder, "config.json", out.at);
    kt_buf_deinit(&out);
}

static void put_weights(kt_arena *arena, const char *folder, const model *m) {
    kt_buf file = {0}, header = {0};
    size_t end = 0;
    for (int i = 0; i < m->n; i++) {
        const tensor *t = &m->tensors[i];
        size_t from = end;
        end += sizeof(float) * (size_t)count(t);
        kt_buf_printf(&header, "%s\"%s\": {\"dtype\": \"F32\", \"shape\": [%d", i ? ", " : "{",
            t->name, t->rows);
        if (t->columns) kt_buf_printf(&header, ", %d", t->columns);
        kt_buf_printf(&header, "], \"data_offsets\": [%zu, %zu]}", from, end);
    }
    kt_buf_printf(&header, "}");
    while (header.n % 8) kt_buf_printf(&header, " ");
    uint64_t length = header.n; // little-endian, like the machine
    kt_buf_add(&file, (const char *)&length, sizeof length);
    kt_buf_add(&file, header.at, header.n);
    for (int i = 0; i < m->n; i++)
        kt_buf_add(
            &file, (const char *)m->tensors[i].at, sizeof(float) * (size_t)count(&m->tensors[i]));
    test_write(kt_arena_printf(arena, "%s/model.safetensors", folder), file.at, file.n);
    kt_buf_deinit(&file);
    kt_buf_deinit(&header);
}

// ---- the model in double precision

static const tensor *find(const model *m, const char *name) {
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->tensors[i].name, name) == 0) return &m->tensors[i];
    return NULL;
}

static const tensor *of_layer(const model *m, int layer, const char *name, const char *what) {
    char full[96];
    snprintf(full, sizeof full, "model.layers.%d.%s.%s", layer, name, what);
    return find(m, full);
}

// Where row `i` of rows of `width` numbers begins.
static size_t cell(int i, int width) {
    return (size_t)i * (size_t)width;
}

// y[rows] = W x + b
static void product(const tensor *w, const tensor *b, const double *x, double *y) {
    for (int r = 0; r < w->rows; r++) {
        y[r] = b ? (double)b->at[r] : 0;
        for (int c = 0; c < w->columns; c++)
            y[r] += (double)w->at[(size_t)r * (size_t)w->columns + (size_t)c] * x[c];
    }
}

static void project(const model *m, int layer, const char *name, const double *x, double *y) {
    product(of_layer(m, layer, name, "weight"), of_layer(m, layer, name, "bias"), x, y);
}

static void norm(const model *m, const tensor *w, const double *x, double *y) {
    double sum = 0;
    for (int i = 0; i < m->g->d; i++) sum += x[i] * x[i];
    double by = 1 / sqrt(sum / m->g->d + m->g->eps);
    for (int i = 0; i < m->g->d; i++) y[i] = x[i] * by * (double)w->at[i];
}

// Pairs j and j + hd/2 turn by position * theta^(-2 j / hd).
static void turn(const geometry *g, int heads, int position, double *x) {
    for (int h = 0; h < heads; h++)
        for (int j = 0; j < g->hd / 2; j++) {
            double angle = position * pow(g->theta, -2.0 * j / g->hd);
            double *a = x + cell(h, g->hd) + j, *b = a + g->hd / 2, keep = *a;
            *a = keep * cos(angle) - *b * sin(angle);
            *b = *b * cos(angle) + keep * sin(angle);
        }
}

// q[heads * hd] of token n - 1 over k, v[n][kv_heads * hd]; the result takes the place of q.
static void attend(const geometry *g, double *q, const double *k, const double *v, int n) {
    int kd = g->kv_heads * g->hd;
    for (int h = 0; h < g->heads; h++) {
        int own = h / (g->heads / g->kv_heads) * g->hd;
        double w[MOST], sum = 0, out[128] = {0};
        for (int t = 0; t < n; t++) {
            double dot = 0;
            for (int i = 0; i < g->hd; i++) dot += q[h * g->hd + i] * k[t * kd + own + i];
            w[t] = exp(dot / sqrt(g->hd));
            sum += w[t];
        }
        for (int t = 0; t < n; t++)
            for (int i = 0; i < g->hd; i++) out[i] += w[t] / sum * v[t * kd + own + i];
        memcpy(q + cell(h, g->hd), out, sizeof(double) * (size_t)g->hd);
    }
}

static void feed_forward(const model *m, int layer, const double *h, double *y) {
    double a[512] = {0}, b[512] = {0};
    project(m, layer, "mlp.gate_proj", h, a);
    project(m, layer, "mlp.up_proj", h, b);
    for (int i = 0; i < m->g->f; i++) a[i] = a[i] / (1 + exp(-a[i])) * b[i];
    project(m, layer, "mlp.down_proj", a, y);
}

// One layer for tokens 0 .. n - 1, x[n][d] changed in place.
static void layer_of(const model *m, int layer, double *x, int n) {
    const geometry *g = m->g;
    int kd = g->kv_heads * g->hd;
    double *k = test_malloc(sizeof(double) * (size_t)(2 * n * kd)), *v = k + cell(n, kd);
    double h[512] = {0}, q[512] = {0}, y[512] = {0};
    for (int t = 0; t < n; t++) {
        double *own = x + cell(t, g->d);
        norm(m, of_layer(m, layer, "input_layernorm", "weight"), own, h);
        project(m, layer, "self_attn.q_proj", h, q);
        project(m, layer, "self_attn.k_proj", h, k + cell(t, kd));
        project(m, layer, "self_attn.v_proj", h, v + cell(t, kd));
        turn(g, g->heads, t, q);
        turn(g, g->kv_heads, t, k + cell(t, kd));
        attend(g, q, k, v, t + 1);
        project(m, layer, "self_attn.o_proj", q, y);
        for (int i = 0; i < g->d; i++) own[i] += m->residual * y[i];
        norm(m, of_layer(m, layer, "post_attention_layernorm", "weight"), own, h);
        feed_forward(m, layer, h, y);
        for (int i = 0; i < g->d; i++) own[i] += m->residual * y[i];
    }
    test_free(k);
}

// Logits [n][vocab] of every token; to be freed.
static double *logits_of(const model *m, const int *ids, int n) {
    const geometry *g = m->g;
    const tensor *table = find(m, "model.embed_tokens.weight"), *head = find(m, "lm_head.weight");
    double *x = test_malloc(sizeof(double) * (size_t)(n * g->d));
    double *logits = test_malloc(sizeof(double) * (size_t)(n * g->vocab)), h[512];
    for (int t = 0; t < n; t++)
        for (int i = 0; i < g->d; i++)
            x[t * g->d + i] = m->embed * (double)table->at[ids[t] * g->d + i];
    for (int l = 0; l < g->layers; l++) layer_of(m, l, x, n);
    for (int t = 0; t < n; t++) {
        norm(m, find(m, "model.norm.weight"), x + cell(t, g->d), h);
        for (int i = 0; i < g->d; i++) h[i] *= m->head;
        product(head ? head : table, NULL, h, logits + cell(t, g->vocab));
    }
    test_free(x);
    return logits;
}

static double logp_of(const double *logits, int vocab, int id) {
    double sum = 0;
    for (int i = 0; i < vocab; i++) sum += exp(logits[i] - logits[id]);
    return -log(sum);
}

// ---- the program

typedef struct answer {
    kt_buf text;
    int n_failed;
} answer;

static void on_result(void *ctx, int image, const kt_result *result) {
    answer *a = ctx;
    (void)image;
    assert_int_equal(result->n_items, 1);
    kt_buf_str(&a->text, result->items[0].text);
}

static void on_failed(void *ctx, int image, const char *path, const kt_err *err) {
    answer *a = ctx;
    (void)image, (void)path;
    kt_buf_printf(&a->text, "%s", err->text);
    a->n_failed++;
}

static void list_of(const int *ids, int n, kt_buf *out) {
    kt_buf_clear(out);
    for (int i = 0; i < n; i++) kt_buf_printf(out, "%d ", ids[i]);
}

static kt_status ask(kt_options_run options, const char *folder, answer *out, kt_err *err) {
    kt_session *session = NULL;
    kt_buf report = {0};
    options.model = folder;
    const char *device = kt_os_getenv("DEVICE");
    options.device = device && strcmp(device, "cuda") == 0 ? KT_DEVICE_CUDA : KT_DEVICE_CPU;
    options.greedy = strstr(options.pipeline, "score") == NULL;
    kt_status status = kt_session_open(&options, &session, &report, err);
    kt_events events = {.ctx = out, .result = on_result, .failed = on_failed};
    kt_buf_clear(&out->text);
    out->n_failed = 0;
    if (status == KT_OK) status = kt_session_run(session, NULL, 0, &events, err);
    if (status != KT_OK && report.n > 0) kt_err_note(err, "%s", report.at);
    kt_buf_deinit(&report);
    kt_session_close(session);
    return status;
}

static void asked(kt_options_run options, const char *folder, answer *out) {
    kt_err err;
    if (ask(options, folder, out, &err) != KT_OK) fail_msg("%s", err.text);
    if (out->n_failed > 0) fail_msg("%s", out->text.at);
}

static int next_id(char **at) {
    char *end;
    long id = strtol(*at, &end, 10);
    assert_true(end != *at);
    *at = end;
    return (int)id;
}

// ---- tests

// The log-probability of each token after those before it, by the program and from the definition;
// returns the greatest difference.
static double worst_difference(const model *m, const int *ids, const char *text) {
    double *logits = logits_of(m, ids, PROMPT), worst = 0;
    const char *at = text;
    for (int t = 0; t + 1 < PROMPT; t++) {
        double want = logp_of(logits + cell(t, m->g->vocab), m->g->vocab, ids[t + 1]);
        char *end;
        double got = strtod(at, &end);
        assert_true(end != at);
        at = end;
        worst = fmax(worst, fabs(got - want));
    }
    test_free(logits);
    return worst;
}

static void compare_scores(model *m, const char *folder, const int *ids) {
    static const kt_setting show[] = {{"show", "logp"}, {"chunk", "16"}};
    kt_buf list = {0};
    answer a = {0};
    list_of(ids, PROMPT, &list);
    kt_options_run options = {.pipeline = m->g->base ? "tests/data/pipelines/minicpm_score.yaml"
                                                     : "pipelines/score_ids.yaml",
        .question = list.at,
        .settings = show,
        .n_settings = 2};
    asked(options, folder, &a);
    double worst = worst_difference(m, ids, a.text.at);
    printf("# %s: log-probabilities differ by %.5f at most, %.3f allowed\n", m->g->name, worst,
        TOLERANCE);
    assert_true(worst <= TOLERANCE);
    // Each scale is seen: without it the definition is far from the program.
    double *const scales[] = {&m->embed, &m->residual, &m->head};
    for (int i = 0; m->g->base && i < 3; i++) {
        double keep = *scales[i];
        if (keep == 1) continue;
        *scales[i] = 1;
        assert_true(worst_difference(m, ids, a.text.at) > 4 * TOLERANCE);
        *scales[i] = keep;
    }
    kt_buf_deinit(&a.text);
    kt_buf_deinit(&list);
}

// Greedy tokens: each is the likeliest by the definition, or so near to it that rounding decides.
static void compare_tokens(const model *m, const char *folder, const int *prompt) {
    int ids[MOST];
    kt_buf list = {0};
    answer a = {0};
    list_of(prompt, PROMPT, &list);
    kt_options_run options = {
        .pipeline = m->g->base ? "pipelines/minicpm_ids.yaml" : "pipelines/ids.yaml",
        .question = list.at,
        .max_tokens = NEW};
    asked(options, folder, &a);
    memcpy(ids, prompt, PROMPT * sizeof *ids);
    char *at = a.text.at;
    for (int i = 0; i < NEW; i++) ids[PROMPT + i] = next_id(&at);
    double *logits = logits_of(m, ids, MOST - 1);
    for (int t = PROMPT - 1; t < MOST - 1; t++) {
        const double *own = logits + cell(t, m->g->vocab);
        double top = own[0];
        for (int i = 1; i < m->g->vocab; i++) top = fmax(top, own[i]);
        if (top - own[ids[t + 1]] > 2 * TOLERANCE)
            fail_msg("token %d is %d, %.3f below the likeliest", t + 1, ids[t + 1],
                top - own[ids[t + 1]]);
    }
    test_free(logits);
    kt_buf_deinit(&a.text);
    kt_buf_deinit(&list);
}

static void model_is_its_definition(void **state) {
    const geometry *g = &geometries[*(int *)*state];
    kt_arena arena = {0};
    model m;
    int ids[PROMPT];
    const char *folder = test_folder(&arena);
    make_model(&m, g);
    put_config(&arena, folder, g);
    put_weights(&arena, folder, &m);
    for (int i = 0; i < PROMPT; i++) ids[i] = (int)((uniform() + 1) / 2 * g->vocab);
    compare_scores(&m, folder, ids);
    compare_tokens(&m, folder, ids);
    free_model(&m);
    test_remove(folder);
    kt_arena_deinit(&arena);
}

// A folder without a tokenizer is enough for ids; the model's own stop token ends an answer; ids
// that are none are refused.
static void lists_of_ids_are_checked(void **state) {
    (void)state;
    static const struct {
        const char *list, *message;
    } rows[] = {
        {"1 x 3", "'x' at character 3"},
        {"1 2.5", "'2.5' at character 3 is no token id"},
        {"1, 2, 127", "token id 127 at character 7 is beyond the vocabulary; ids of this model are "
                      "0 to 126"},
        {"-1", "token id -1 at character 1"},
        {"99999999999999999999", "at character 1 is no token id"},
        {",\n,", "there is no token id"},
        {"1 2 3", NULL},
        {"1,2\n 3\t", NULL},
    };
    kt_arena arena = {0};
    model m;
    answer a = {0};
    char *end;
    kt_err err;
    const geometry *g = &geometries[3];
    const char *folder = test_folder(&arena);
    make_model(&m, g);
    put_config(&arena, folder, g);
    put_weights(&arena, folder, &m);
    kt_options_run options = {.pipeline = "pipelines/ids.yaml", .max_tokens = 3};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        options.question = rows[i].list;
        assert_int_equal(ask(options, folder, &a, &err), KT_OK);
        assert_int_equal(a.n_failed, rows[i].message ? 1 : 0);
        if (rows[i].message && !strstr(a.text.at, rows[i].message))
            fail_msg("'%s': %s", rows[i].list, a.text.at);
    }
    int first = (int)strtol(a.text.at, &end, 10);
    assert_true(*end == ' '); // three tokens were made
    char text[64];
    snprintf(text, sizeof text, "{\"eos_token_id\": [%d]}", first);
    test_put(&arena, folder, "generation_config.json", text);
    asked(options, folder, &a);
    assert_int_equal(a.text.n, 0); // it stops at once
    test_put(&arena, folder, "generation_config.json", "{\"eos_token_id\": 127}");
    assert_int_equal(ask(options, folder, &a, &err), KT_EMODEL);
    assert_non_null(strstr(err.text, "token 127 ends an answer"));
    kt_buf_deinit(&a.text);
    free_model(&m);
    test_remove(folder);
    kt_arena_deinit(&arena);
}

int main(void) {
    struct CMUnitTest tests[N_GEOMETRIES + 1] = {cmocka_unit_test(lists_of_ids_are_checked)};
    int numbers[N_GEOMETRIES];
    int64_t given;
    uint32_t drawn;
    kt_os_random(&drawn, sizeof drawn);
    const char *text = kt_os_getenv("KOTARO_SEED");
    state_of_random = text && kt_str_to_i64(kt_str_from(text), &given) ? (uint64_t)given : drawn;
    printf("# seed %" PRIu64 "\n", state_of_random);
    kt_log_set_level(KT_LOG_WARN);
    for (int i = 0; i < N_GEOMETRIES; i++) {
        numbers[i] = i;
        tests[i + 1] = (struct CMUnitTest){.test_func = model_is_its_definition,
            .initial_state = &numbers[i],
            .name = geometries[i].name};
    }
    return _cmocka_run_group_tests("text", tests, N_GEOMETRIES + 1, NULL, NULL);
}
