#include "loader/config.h"
#include "tools/fabricate/model.h"

#include <inttypes.h>

static const kt_geometry minicpm_v_2_6 = {.d = 3584,
    .layers = 28,
    .f = 18944,
    .heads = 28,
    .kv_heads = 4,
    .vocab = 151666,
    .context = 32768,
    .queries = 64,
    .side = 448,
    .max_slices = 9,
    .dv = 1152,
    .vis_layers = 27,
    .fv = 4304,
    .vis_heads = 16,
    .vis_side = 980,
    .patch = 14,
    .theta = 1e6,
    .eps = 1e-6};

// Every product of sizes stays far below 2^63.
enum { MAX_SIZE = 1 << 20 };

static kt_status take(
    const kt_config *config, const char *key, int64_t low, int64_t *out, kt_err *err) {
    kt_value value;
    if (!kt_config_number(config, kt_str_from(key), &value)) return KT_OK;
    if (value.is_real || value.i < low || value.i > MAX_SIZE) {
        return KT_FAIL(err, KT_EFORMAT,
            "%s: '%s' is %g, expected an integer from %" PRId64 " to %d", kt_config_path(config),
            key, value.r, low, MAX_SIZE);
    }
    *out = value.i;
    return KT_OK;
}

static kt_status check(const kt_geometry *g, const char *path, kt_err *err) {
    if (g->d % g->heads != 0 || g->heads % g->kv_heads != 0 || g->dv % g->vis_heads != 0)
        return KT_FAIL(
            err, KT_EFORMAT, "%s: heads must divide the widths, and KV heads the heads", path);
    if (g->vis_side % g->patch != 0)
        return KT_FAIL(
            err, KT_EFORMAT, "%s: patch_size does not divide the tower's image_size", path);
    return KT_OK;
}

kt_status kt_geometry_read(kt_arena *arena, const char *path, kt_geometry *out, kt_err *err) {
    const kt_config *config = NULL;
    *out = minicpm_v_2_6;
    if (!path) return KT_OK;
    KT_TRY(kt_config_open(arena, path, &config, err));
    const struct {
        const char *key;
        int64_t *to, low;
    } rows[] = {{"hidden_size", &out->d, 1}, {"num_hidden_layers", &out->layers, 0},
        {"intermediate_size", &out->f, 1}, {"num_attention_heads", &out->heads, 1},
        {"num_key_value_heads", &out->kv_heads, 1}, {"vocab_size", &out->vocab, 300},
        {"max_position_embeddings", &out->context, 1}, {"query_num", &out->queries, 1},
        {"image_size", &out->side, 1}, {"slice_config.max_slice_nums", &out->max_slices, 1},
        {"vision_config.hidden_size", &out->dv, 1},
        {"vision_config.num_hidden_layers", &out->vis_layers, 0},
        {"vision_config.intermediate_size", &out->fv, 1},
        {"vision_config.num_attention_heads", &out->vis_heads, 1},
        {"vision_config.image_size", &out->vis_side, 1},
        {"vision_config.patch_size", &out->patch, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        KT_TRY(take(config, rows[i].key, rows[i].low, rows[i].to, err));
    kt_value value;
    if (kt_config_number(config, KT_STR("rope_theta"), &value)) out->theta = value.r;
    if (kt_config_number(config, KT_STR("rms_norm_eps"), &value)) out->eps = value.r;
    return check(out, path, err);
}

void kt_geometry_print(const kt_geometry *g, bool int4, kt_buf *out) {
    kt_buf_printf(out,
        "{\n  \"architectures\": [\"MiniCPMV\"],\n  \"model_type\": \"minicpmv\",\n"
        "  \"version\": 2.6,\n  \"torch_dtype\": \"bfloat16\",\n"
        "  \"transformers_version\": \"4.40.0\",\n"
        "  \"hidden_size\": %" PRId64 ",\n  \"num_hidden_layers\": %" PRId64 ",\n"
        "  \"intermediate_size\": %" PRId64 ",\n  \"num_attention_heads\": %" PRId64 ",\n"
        "  \"num_key_value_heads\": %" PRId64 ",\n  \"vocab_size\": %" PRId64 ",\n"
        "  \"max_position_embeddings\": %" PRId64 ",\n  \"hidden_act\": \"silu\",\n"
        "  \"rms_norm_eps\": %g,\n  \"rope_theta\": %.1f,\n  \"tie_word_embeddings\": false,\n"
        "  \"use_sliding_window\": false,\n  \"sliding_window\": 131072,\n",
        g->d, g->layers, g->f, g->heads, g->kv_heads, g->vocab, g->context, g->eps, g->theta);
    kt_buf_printf(out,
        "  \"query_num\": %" PRId64 ",\n  \"image_size\": %" PRId64 ",\n  \"patch_size\": %" PRId64
        ",\n  \"batch_vision_input\": true,\n  \"drop_vision_last_layer\": false,\n"
        "  \"slice_mode\": true,\n  \"slice_config\": {\n    \"max_slice_nums\": %" PRId64
        ",\n    \"patch_size\": %" PRId64 ",\n    \"model_type\": \"minicpmv\"\n  },\n"
        "  \"vision_config\": {\n    \"hidden_size\": %" PRId64 ",\n    \"image_size\": %" PRId64
        ",\n    \"intermediate_size\": %" PRId64 ",\n    \"model_type\": \"siglip\",\n"
        "    \"num_attention_heads\": %" PRId64 ",\n    \"num_hidden_layers\": %" PRId64
        ",\n    \"patch_size\": %" PRId64 "\n  },\n",
        g->queries, g->side, g->patch, g->max_slices, g->patch, g->dv, g->vis_side, g->fv,
        g->vis_heads, g->vis_layers, g->patch);
    if (int4)
        kt_buf_printf(out,
            "  \"quantization_config\": {\n    \"quant_method\": \"bitsandbytes\",\n"
            "    \"load_in_4bit\": true,\n    \"load_in_8bit\": false,\n"
            "    \"bnb_4bit_quant_type\": \"nf4\",\n    \"bnb_4bit_use_double_quant\": true,\n"
            "    \"bnb_4bit_quant_storage\": \"uint8\",\n"
            "    \"bnb_4bit_compute_dtype\": \"bfloat16\",\n"
            "    \"llm_int8_skip_modules\": [\"out_proj\", \"kv_proj\", \"lm_head\"],\n"
            "    \"llm_int8_threshold\": 6.0\n  },\n");
    kt_buf_printf(out, "  \"bos_token_id\": %" PRId64 ",\n  \"eos_token_id\": %" PRId64 "\n}\n",
        g->vocab - 23, g->vocab - 21);
}
