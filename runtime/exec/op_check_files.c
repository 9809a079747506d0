// The files of one op test: a model file, a checkpoint in its storage formats, a pipeline of one
// step.
#include "runtime/exec/op_check_parts.h"

#include "runtime/base/f16.h"
#include "runtime/base/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// How each storage is made.
typedef struct store_row {
    const char *name;
    int block;   // of bitsandbytes; 0: another storage
    bool nested; // its scales
    bool fp4;
    kt_check_ggml ggml;     // bytes 0: another storage
    kt_check_store smaller; // where the block of ggml does not fit
} store_row;

static const store_row stores[KT_STORE_COUNT] = {
    [KT_STORE_F16] = {"f16"},
    [KT_STORE_BF16] = {"bf16"},
    [KT_STORE_F32] = {"f32"},
    [KT_STORE_NF4] = {"bnb_nf4", 64, true, false},
    [KT_STORE_NF4_PLAIN] = {"bnb_nf4_plain", 64, false, false},
    [KT_STORE_FP4] = {"bnb_fp4", 128, true, true},
    [KT_STORE_FP4_PLAIN] = {"bnb_fp4_plain", 256, false, true},
    [KT_STORE_Q4_0] = {"gguf_q4_0", .ggml = {2, 18, 32}, .smaller = KT_STORE_F16},
    [KT_STORE_Q4_1] = {"gguf_q4_1", .ggml = {3, 20, 32}, .smaller = KT_STORE_F16},
    [KT_STORE_Q5_0] = {"gguf_q5_0", .ggml = {6, 22, 32}, .smaller = KT_STORE_F16},
    [KT_STORE_Q5_1] = {"gguf_q5_1", .ggml = {7, 24, 32}, .smaller = KT_STORE_F16},
    [KT_STORE_Q8_0] = {"gguf_q8_0", .ggml = {8, 34, 32}, .smaller = KT_STORE_F16},
    [KT_STORE_Q4_K] = {"gguf_q4_k", .ggml = {12, 144, 256}, .smaller = KT_STORE_Q4_1},
    [KT_STORE_Q5_K] = {"gguf_q5_k", .ggml = {13, 176, 256}, .smaller = KT_STORE_Q8_0},
    [KT_STORE_Q6_K] = {"gguf_q6_k", .ggml = {14, 210, 256}, .smaller = KT_STORE_Q8_0},
};

const char *kt_check_store_name(kt_check_store store) {
    return stores[store].name;
}

kt_check_store kt_check_store_fits(kt_check_store store, int64_t k) {
    while (stores[store].ggml.bytes > 0 && k % stores[store].ggml.weights != 0)
        store = stores[store].smaller;
    return store;
}

static bool is_linear(const kt_op *op, int port) {
    return op->ports[port].type.base == KT_BASE_LINEAR;
}

bool kt_check_has_linear(const kt_check_case *c) {
    for (int i = 0; i < c->op->n_ports; i++)
        if (is_linear(c->op, i) && c->present[i]) return true;
    return false;
}

char *kt_check_name(kt_arena *arena, kt_str port) {
    char *out = kt_arena_printf(arena, "its_%.*s", KT_STR_ARG(port));
    for (char *c = out; *c; c++)
        if (*c == '.') *c = '_';
    return out;
}

// ---- a safetensors file

typedef struct writer {
    kt_arena *arena;
    kt_buf header, data;
    kt_check_gguf gguf;
    kt_random random;
} writer;

static void add_tensor(writer *w, const char *name, const char *dtype, const int64_t *shape,
    int rank, const void *bytes, size_t n) {
    kt_buf_printf(&w->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", w->header.n > 1 ? "," : "",
        name, dtype);
    for (int i = 0; i < rank; i++) kt_buf_printf(&w->header, "%s%" PRId64, i ? "," : "", shape[i]);
    kt_buf_printf(&w->header, "],\"data_offsets\":[%zu,%zu]}", w->data.n, w->data.n + n);
    kt_buf_add(&w->data, bytes, n);
}

static void add_plain(writer *w, const char *name, kt_check_store store, const float *values,
    const int64_t shape[2]) {
    size_t n = (size_t)(shape[0] * shape[1]);
    if (store == KT_STORE_F32) {
        add_tensor(w, name, "F32", shape, 2, values, 4 * n);
        return;
    }
    uint16_t *half = KT_NEW_ARRAY(w->arena, uint16_t, n + 1);
    for (size_t i = 0; i < n; i++)
        half[i] = store == KT_STORE_F16 ? kt_f32_to_f16(values[i]) : kt_f32_to_bf16(values[i]);
    add_tensor(w, name, store == KT_STORE_F16 ? "F16" : "BF16", shape, 2, half, 2 * n);
}

// ---- NF4 and FP4 as bitsandbytes stores them
// source: bitsandbytes, functional.py: get_4bit_type, create_dynamic_map, quantize_4bit

enum { NESTED = 256 };

static const float nf4_map[16] = {-1.0F, -0.6961928F, -0.5250731F, -0.3949175F, -0.2844414F,
    -0.1847734F, -0.0910500F, 0.0F, 0.0795803F, 0.1609302F, 0.2461123F, 0.3379152F, 0.4407098F,
    0.5626170F, 0.7229568F, 1.0F};

static const float fp4_map[16] = {0.0F, 0.0052083F, 0.6666667F, 1.0F, 0.3333333F, 0.5F, 0.1666667F,
    0.25F, 0.0F, -0.0052083F, -0.6666667F, -1.0F, -0.3333333F, -0.5F, -0.1666667F, -0.25F};

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

// Signed, 7 exponent bits at most, 8 bits in all: 127 magnitudes of either sign, 0 and 1.
static void dynamic_map(float map[NESTED]) {
    int n = 0;
    for (int e = 0; e < 7; e++) {
        int steps = 1 << e;
        for (int i = 0; i < steps; i++) {
            double low = 0.1 + 0.9 * i / steps, high = 0.1 + 0.9 * (i + 1) / steps;
            float value = (float)(pow(10, e - 6) * (low + high) / 2);
            map[n++] = value;
            map[n++] = -value;
        }
    }
    map[n++] = 0;
    map[n++] = 1;
    KT_ASSERT(n == NESTED);
    qsort(map, NESTED, sizeof *map, compare_floats);
}

static uint8_t nearest(const float *map, int n, float x) {
    int low = 0, high = n - 1;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        *(map[mid] <= x ? &low : &high) = mid;
    }
    return (uint8_t)(x - map[low] <= map[high] - x ? low : high);
}

// The same for a book in any order.
static uint8_t nearest_of(const float *map, int n, float x) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (fabsf(map[i] - x) < fabsf(map[best] - x)) best = i;
    return (uint8_t)best;
}

typedef struct quantised {
    const store_row *store;
    const float *book;
    uint8_t *codes, *absmax;
    float *scales, *nested; // absmax as numbers; absmax of absmax
    float map[NESTED], offset;
    int64_t n, blocks, nested_blocks;
} quantised;

static void nest_scales(quantised *q) {
    double sum = 0;
    for (int64_t b = 0; b < q->blocks; b++) sum += (double)q->scales[b];
    q->offset = q->blocks > 0 ? (float)(sum / (double)q->blocks) : 0;
    for (int64_t b = 0; b < q->blocks; b++) {
        float *most = &q->nested[b / NESTED], x = fabsf(q->scales[b] - q->offset);
        if (x > *most) *most = x;
    }
    for (int64_t b = 0; b < q->blocks; b++) {
        float most = q->nested[b / NESTED];
        q->absmax[b] = nearest(q->map, NESTED, most > 0 ? (q->scales[b] - q->offset) / most : 0);
    }
}

static void quantize(writer *w, const float *values, quantised *q) {
    int64_t block = q->store->block;
    q->blocks = (q->n + block - 1) / block;
    q->nested_blocks = (q->blocks + NESTED - 1) / NESTED;
    q->codes = KT_NEW_ARRAY(w->arena, uint8_t, (q->n + 1) / 2 + 1);
    q->absmax = KT_NEW_ARRAY(w->arena, uint8_t, q->blocks + 1);
    q->scales = KT_NEW_ARRAY(w->arena, float, q->blocks + 1);
    q->nested = KT_NEW_ARRAY(w->arena, float, q->nested_blocks + 1);
    dynamic_map(q->map);
    for (int64_t i = 0; i < q->n; i++)
        if (fabsf(values[i]) > q->scales[i / block]) q->scales[i / block] = fabsf(values[i]);
    for (int64_t i = 0; i < q->n; i++) {
        float scale = q->scales[i / block];
        uint8_t code = nearest_of(q->book, 16, scale > 0 ? values[i] / scale : 0);
        q->codes[i / 2] |= (uint8_t)(i % 2 == 0 ? code << 4 : code);
    }
    nest_scales(q);
}

static const char *part(writer *w, const char *name, const char *suffix) {
    return kt_arena_printf(w->arena, "%s.%s", name, suffix);
}

static void add_state(writer *w, const char *name, const store_row *store, const int64_t shape[2],
    const char *nested) {
    const char *type = store->fp4 ? "fp4" : "nf4";
    char *json = kt_arena_printf(w->arena,
        "{\"quant_type\": \"%s\", \"blocksize\": %d, \"dtype\": \"bfloat16\", \"shape\": [%" PRId64
        ", %" PRId64 "]%s}",
        type, store->block, shape[0], shape[1], nested);
    int64_t length = (int64_t)strlen(json);
    char *suffix = kt_arena_printf(w->arena, "quant_state.bitsandbytes__%s", type);
    add_tensor(w, part(w, name, suffix), "U8", &length, 1, json, (size_t)length);
}

static void add_bnb(writer *w, const char *name, const store_row *store, const float *values,
    const int64_t shape[2]) {
    quantised q = {
        .store = store, .n = shape[0] * shape[1], .book = store->fp4 ? fp4_map : nf4_map};
    quantize(w, values, &q);
    int64_t codes[2] = {(q.n + 1) / 2, 1}, map = 16, nested_map = NESTED;
    add_tensor(w, name, "U8", codes, 2, q.codes, (size_t)codes[0]);
    add_tensor(w, part(w, name, "quant_map"), "F32", &map, 1, q.book, sizeof nf4_map);
    if (!store->nested) {
        add_tensor(w, part(w, name, "absmax"), "F32", &q.blocks, 1, q.scales, 4 * (size_t)q.blocks);
        add_state(w, name, store, shape, "");
        return;
    }
    add_tensor(w, part(w, name, "absmax"), "U8", &q.blocks, 1, q.absmax, (size_t)q.blocks);
    add_tensor(w, part(w, name, "nested_absmax"), "F32", &q.nested_blocks, 1, q.nested,
        4 * (size_t)q.nested_blocks);
    add_tensor(w, part(w, name, "nested_quant_map"), "F32", &nested_map, 1, q.map, sizeof q.map);
    add_state(w, name, store, shape,
        kt_arena_printf(w->arena,
            ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": %.9g",
            (double)q.offset));
}

// Weights that keep the size of what goes through them.
static void add_weight(writer *w, const kt_check_data *data, int port) {
    const kt_check_tensor *t = &data->ports[port];
    char *name = kt_check_name(w->arena, data->of->op->ports[port].name);
    float *values = KT_NEW_ARRAY(w->arena, float, t->n + 1);
    double scale = 1 / sqrt((double)(t->shape[1] > 0 ? t->shape[1] : 1));
    for (int64_t i = 0; i < t->n; i++) values[i] = (float)(kt_random_normal(&w->random) * scale);
    name = kt_arena_printf(w->arena, "%s.weight", name);
    kt_check_store store = kt_check_store_fits(data->of->stores[port], t->shape[1]);
    if (stores[store].block > 0)
        add_bnb(w, name, &stores[store], values, t->shape);
    else if (stores[store].ggml.bytes > 0)
        kt_check_gguf_add(&w->gguf, w->arena, name, &stores[store].ggml, values, t->shape);
    else
        add_plain(w, name, store, values, t->shape);
}

static kt_status write_text(kt_arena *arena, const char *folder, const char *name,
    const void *bytes, size_t n, kt_err *err) {
    const char *path = kt_path_join(arena, folder, name);
    FILE *file = kt_os_fopen(path, "wb"); // no rename: nobody else reads this folder
    bool ok = file && fwrite(bytes, 1, n, file) == n;
    if (file) ok = fclose(file) == 0 && ok;
    return ok ? KT_OK : KT_FAIL(err, KT_EFILE, "'%s' cannot be written", path);
}

static kt_status write_checkpoint(
    kt_arena *arena, const char *folder, const kt_check_data *data, kt_err *err) {
    writer w = {.arena = arena, .random = {kt_random_mix(data->of->seed, 7)}};
    const int64_t one[2] = {1, 32};
    float spare[32] = {0};
    kt_buf_printf(&w.header, "{");
    add_tensor(&w, "spare.a", "F32", one, 2, spare, sizeof spare); // no file is without a tensor
    kt_check_gguf_add(&w.gguf, arena, "spare.b", &stores[KT_STORE_Q8_0].ggml, spare, one);
    for (int i = 0; i < data->of->op->n_ports; i++)
        if (is_linear(data->of->op, i) && data->of->present[i]) add_weight(&w, data, i);
    kt_buf_printf(&w.header, "}");
    while (w.header.n % 8 != 0) kt_buf_printf(&w.header, " ");
    kt_buf file = {0};
    uint64_t size = w.header.n;
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(size >> (8 * i));
    kt_buf_add(&file, length, 8);
    kt_buf_add(&file, w.header.at, w.header.n);
    if (w.data.n > 0) kt_buf_add(&file, w.data.at, w.data.n);
    kt_status status = write_text(arena, folder, "model.safetensors", file.at, file.n, err);
    kt_buf_clear(&file);
    kt_check_gguf_print(&w.gguf, &file);
    if (status == KT_OK) status = write_text(arena, folder, "model.gguf", file.at, file.n, err);
    kt_check_gguf_deinit(&w.gguf);
    kt_buf_deinit(&w.header);
    kt_buf_deinit(&w.data);
    kt_buf_deinit(&file);
    return status;
}

// ---- model.yaml, config.json

// An axis of a linear port: a number, or a constant (plus a number).
static void print_axis(kt_arena *arena, const kt_expr *axis, kt_buf *out) {
    kt_str name;
    int64_t add;
    if (!kt_expr_is_axis(axis, &name, &add) || name.n == 0) {
        kt_buf_printf(out, "%" PRId64, add);
        return;
    }
    kt_buf_printf(out, "%s", kt_check_name(arena, name));
    if (add != 0) kt_buf_printf(out, " + %" PRId64, add);
}

static void print_model(kt_arena *arena, const kt_check_case *c, kt_buf *out) {
    kt_buf_printf(out, "kotaro: model/1\nname: check\ndoc: Weights of one op.\nweights:\n");
    for (int i = 0; i < c->op->n_ports; i++) {
        if (!is_linear(c->op, i) || !c->present[i]) continue;
        const kt_type *type = &c->op->ports[i].type;
        kt_buf_printf(out, "  %s: linear[", kt_check_name(arena, c->op->ports[i].name));
        print_axis(arena, type->axis[0], out);
        kt_buf_printf(out, ", ");
        print_axis(arena, type->axis[1], out);
        kt_buf_printf(out, "]\n");
    }
    kt_buf_printf(out,
        "sources:\n  hf:\n    when: config.json\n    files: [\"*.safetensors\", \"*.gguf\"]\n"
        "    ignore: [spare.a, spare.b]\n    constants:\n");
    for (int i = 0; i < c->op->n_dims; i++) {
        char *name = kt_check_name(arena, c->op->dims[i].name);
        kt_buf_printf(out, "      %s: config(%s)\n", name, name);
    }
    kt_buf_printf(out, "    tensors:\n");
    for (int i = 0; i < c->op->n_ports; i++) {
        if (!is_linear(c->op, i) || !c->present[i]) continue;
        char *name = kt_check_name(arena, c->op->ports[i].name);
        kt_buf_printf(out, "      %s: %s.weight\n", name, name);
    }
}

static void print_config(kt_arena *arena, const kt_check_case *c, kt_buf *out) {
    kt_buf_printf(out, "{");
    for (int i = 0; i < c->op->n_dims; i++)
        kt_buf_printf(out, "%s\"%s\": %" PRId64, i ? ", " : "",
            kt_check_name(arena, c->op->dims[i].name), c->dims[i]);
    kt_buf_printf(out, "}\n");
}

// ---- pipeline.yaml

static void print_state(kt_arena *arena, const kt_check_data *data, kt_buf *out) {
    const kt_op *op = data->of->op;
    bool any = false;
    for (int i = 0; i < op->n_inputs + op->n_inout; i++) {
        const kt_check_tensor *t = &data->ports[i];
        if (is_linear(op, i) || !data->of->present[i]) continue;
        if (!any) kt_buf_printf(out, "state:\n");
        any = true;
        kt_buf_printf(
            out, "  %s: %s[", kt_check_name(arena, op->ports[i].name), kt_dtype_name(t->dtype));
        for (int a = 0; a < t->rank; a++)
            kt_buf_printf(out, "%s%" PRId64, a ? ", " : "", t->shape[a]);
        kt_buf_printf(out, "]\n");
    }
}

static void print_links(
    kt_arena *arena, const kt_check_case *c, kt_port_kind kind, const char *key, kt_buf *out) {
    bool any = false;
    for (int i = 0; i < c->op->n_ports; i++) {
        const kt_op_port *port = &c->op->ports[i];
        if (port->kind != kind || !c->present[i]) continue;
        if (!any) kt_buf_printf(out, "        %s:\n", key);
        any = true;
        kt_buf_printf(
            out, "          %.*s: %s\n", KT_STR_ARG(port->name), kt_check_name(arena, port->name));
    }
}

static void print_number(kt_value value, kt_buf *out) {
    if (value.is_real)
        kt_buf_printf(out, "%.9g\n", value.r);
    else
        kt_buf_printf(out, "%" PRId64 "\n", value.i);
}

static void print_choices(const kt_check_case *c, kt_buf *out) {
    const kt_op *op = c->op;
    bool any = false;
    for (int i = 0; i < op->n_dims; i++) {
        if (op->dims[i].solved_by >= 0) continue; // an input says it
        kt_buf_printf(out, "%s          %.*s: %" PRId64 "\n", any ? "" : "        dims:\n",
            KT_STR_ARG(op->dims[i].name), c->dims[i]);
        any = true;
    }
    for (int i = 0; i < op->n_typevars; i++)
        kt_buf_printf(out, "%s          %.*s: %s\n", i ? "" : "        types:\n",
            KT_STR_ARG(op->typevars[i].name), kt_dtype_name(op->typevars[i].choices[c->types[i]]));
    for (int i = 0; i < op->n_params; i++) {
        const kt_param *param = &op->params[i];
        kt_buf_printf(
            out, "%s          %.*s: ", i ? "" : "        params:\n", KT_STR_ARG(param->name));
        if (param->kind == KT_PARAM_CHOICE)
            kt_buf_printf(out, "%.*s\n", KT_STR_ARG(param->choices[c->params[i].i]));
        else
            print_number(c->params[i], out);
    }
}

// The first output, or what the step changes.
static int result_port(const kt_op *op) {
    for (int i = 0; i < op->n_ports; i++)
        if (op->ports[i].kind == KT_PORT_OUTPUT) return i;
    return op->n_inputs;
}

static void print_pipeline(kt_arena *arena, const kt_check_data *data, kt_buf *out) {
    const kt_check_case *c = data->of;
    kt_buf_printf(out, "kotaro: pipeline/1\nname: check\ndoc: One op.\n");
    if (kt_check_has_linear(c)) kt_buf_printf(out, "include: [model.yaml]\n");
    print_state(arena, data, out);
    kt_buf_printf(
        out, "stages:\n  check:\n    steps:\n      - op: %.*s\n", KT_STR_ARG(c->op->name));
    print_links(arena, c, KT_PORT_INPUT, "in", out);
    print_links(arena, c, KT_PORT_INOUT, "inout", out);
    print_links(arena, c, KT_PORT_OUTPUT, "out", out);
    print_choices(c, out);
    int port = result_port(c->op);
    bool made = c->op->ports[port].kind == KT_PORT_OUTPUT;
    kt_buf_printf(
        out, "result: %s%s\n", made ? "check." : "", kt_check_name(arena, c->op->ports[port].name));
}

kt_status kt_check_write(const char *folder, const kt_check_data *data, kt_err *err) {
    kt_arena arena = {0};
    kt_buf text = {0};
    print_pipeline(&arena, data, &text);
    kt_status status = write_text(&arena, folder, "pipeline.yaml", text.at, text.n, err);
    if (status == KT_OK && kt_check_has_linear(data->of)) {
        kt_buf_clear(&text);
        print_model(&arena, data->of, &text);
        status = write_text(&arena, folder, "model.yaml", text.at, text.n, err);
        kt_buf_clear(&text);
        print_config(&arena, data->of, &text);
        if (status == KT_OK)
            status = write_text(&arena, folder, "config.json", text.at, text.n, err);
        if (status == KT_OK) status = write_checkpoint(&arena, folder, data, err);
    }
    kt_buf_deinit(&text);
    kt_arena_deinit(&arena);
    return status;
}
