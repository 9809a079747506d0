// Where a model lies, which source of the model files knows it, and the files that it is made of.
#include "loader/model_internal.h"
#include "runtime/base/file.h"

#include <string.h>

#define GGUF_ENDING ".gguf"

kt_status kt_model_find_place(kt_arena *arena, const char *path, kt_model_place *out, kt_err *err) {
    kt_path_info info = kt_os_stat(path);
    *out = (kt_model_place){kt_arena_copy(arena, path, strlen(path)), NULL, {"", 0}};
    out->folder = out->path;
    if (info.kind == KT_PATH_FOLDER) return KT_OK;
    if (info.kind == KT_PATH_NONE)
        return KT_FAIL(err, KT_EFILE, "no model folder or file '%s'", path);
    if (info.kind == KT_PATH_UNKNOWN)
        return KT_FAIL(err, KT_EFILE, "model folder or file '%s' cannot be read", path);
    if (info.kind == KT_PATH_FILE && kt_str_ends(kt_str_from(path), KT_STR(GGUF_ENDING))) {
        out->folder = kt_path_folder(arena, path);
        out->file = kt_str_from(kt_path_name(out->path));
        return KT_OK;
    }
    return KT_FAIL(err, KT_EFILE,
        "'%s' is no folder: a model is the folder as downloaded, or a .gguf file", path);
}

// ---- which source

typedef struct folder_list {
    const kt_str *names;
    int n;
} folder_list;

static bool holds(const folder_list *list, kt_str pattern) {
    for (int i = 0; i < list->n; i++)
        if (kt_checkpoint_match(pattern, list->names[i])) return true;
    return false;
}

static kt_str no_source(
    kt_model_draft *draft, const kt_model_place *place, const folder_list *list, kt_err *err) {
    kt_buf expected = {0};
    for (size_t p = 0; p < draft->parts.n; p++)
        for (int s = 0; s < draft->parts.at[p].n_sources; s++) {
            kt_str when = draft->parts.at[p].sources[s].when;
            if (when.n > 0)
                kt_buf_printf(&expected, expected.n ? " or '%.*s'" : "'%.*s'", KT_STR_ARG(when));
        }
    bool file = place->file.n > 0;
    kt_err_set(err, KT_EMODEL, "'%s' is no model %s that '%s' knows: it %s %s", place->path,
        file ? "file" : "folder", draft->parts.at[draft->parts.n - 1].path,
        file ? "is no" : "has no", expected.n ? expected.at : "mark of a source");
    if (!file)
        kt_err_note(err,
            list->n == 0 ? "the folder is empty" : "it holds %d files or folders, '%.*s' first",
            list->n, list->n ? (int)list->names[0].n : 0, list->n ? list->names[0].at : "");
    kt_buf_deinit(&expected);
    return (kt_str){"", 0};
}

// The files of a source, over all model files, are all there.
static bool is_complete(
    const kt_model_draft *draft, const folder_list *list, const kt_source_decl *like) {
    for (size_t p = 0; p < draft->parts.n; p++)
        for (int s = 0; s < draft->parts.at[p].n_sources; s++) {
            const kt_source_decl *source = &draft->parts.at[p].sources[s];
            if (!kt_str_eq(source->name.text, like->name.text)) continue;
            for (int i = 0; i < source->n_files; i++)
                if (!holds(list, source->files[i])) return false;
        }
    return true;
}

// The first source whose mark is there and whose files are; else the first whose mark is.
kt_status kt_model_choose(
    kt_model_draft *draft, const kt_model_place *place, kt_str *name, kt_err *err) {
    folder_list all = {0}, marks;
    all.names = kt_os_list(draft->arena, place->folder, &all.n);
    if (all.n < 0) return KT_FAIL(err, KT_EFILE, "model folder '%s' cannot be read", place->folder);
    marks = place->file.n > 0 ? (folder_list){&place->file, 1} : all;
    *name = (kt_str){"", 0};
    for (size_t p = 0; p < draft->parts.n; p++)
        for (int s = 0; s < draft->parts.at[p].n_sources; s++) {
            const kt_source_decl *source = &draft->parts.at[p].sources[s];
            if (source->when.n == 0 || !holds(&marks, source->when)) continue;
            if (name->n == 0) *name = source->name.text;
            if (!is_complete(draft, &all, source)) continue;
            *name = source->name.text;
            return KT_OK;
        }
    if (name->n > 0) return KT_OK;
    *name = no_source(draft, place, &all, err);
    return KT_EMODEL;
}

// ---- opening

static const char *const gguf_stops[] = {
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};

static kt_status open_json(kt_model *model, const char *name, const kt_config **out, kt_err *err) {
    const char *path = kt_path_join(model->arena, model->folder, name);
    *out = NULL;
    if (kt_os_stat(path).kind == KT_PATH_NONE) return KT_OK;
    return kt_config_open(model->arena, path, out, err);
}

// Adds the token ids of a key. Errors: EFORMAT (the key is there and holds something else).
static kt_status take_ids(
    kt_model *model, const kt_config *config, kt_config_ids *ids, kt_err *err) {
    kt_str key = KT_STR("eos_token_id");
    size_t before = ids->n;
    if (!config) return KT_OK;
    kt_config_integers(config, key, model->arena, ids);
    if (ids->n > before || !kt_config_no_number(config, key)) return KT_OK;
    return KT_FAIL(err, KT_EFORMAT,
        "%s: 'eos_token_id' is %s, expected a token id or a list of ids", kt_config_path(config),
        kt_config_describe(config, key, model->arena));
}

static kt_status open_configs(kt_model *model, kt_err *err) {
    KT_TRY(open_json(model, "config.json", &model->config, err));
    KT_TRY(open_json(model, "preprocessor_config.json", &model->preprocessor, err));
    const kt_config *generation;
    KT_TRY(open_json(model, "generation_config.json", &generation, err));
    kt_config_ids ids = {0};
    KT_TRY(take_ids(model, generation, &ids, err));
    if (ids.n == 0) KT_TRY(take_ids(model, model->config, &ids, err));
    model->stop_ids = ids.at;
    model->n_stop_ids = (int)ids.n;
    return KT_OK;
}

static void take_gguf(kt_model *model) {
    const kt_checkpoint *checkpoint = &model->checkpoint;
    const kt_gguf **files = KT_NEW_ARRAY(model->arena, const kt_gguf *, checkpoint->n_files);
    int n = 0;
    for (int i = 0; i < checkpoint->n_files; i++)
        if (checkpoint->files[i].gguf) files[n++] = checkpoint->files[i].gguf;
    model->config = kt_config_from_gguf(model->arena, files, n);
    kt_config_ids ids = {0};
    for (int i = 0; i < 2; i++)
        kt_config_integers(model->config, kt_str_from(gguf_stops[i]), model->arena, &ids);
    model->stop_ids = ids.at;
    model->n_stop_ids = (int)ids.n;
}

kt_status kt_model_open_files(
    kt_model *model, const kt_model_source *source, const kt_model_place *place, kt_err *err) {
    kt_str usual = KT_STR("*.safetensors");
    kt_checkpoint_wanted wanted = {place->folder, &usual, 1, place->file};
    if (source->files.n > 0) {
        wanted.patterns = source->files.at;
        wanted.n_patterns = (int)source->files.n;
    }
    bool own = kt_str_find_text(wanted.patterns[0], GGUF_ENDING) >= 0; // it describes itself
    if (!own) KT_TRY(open_configs(model, err));
    KT_TRY(kt_checkpoint_open_files(model->arena, &wanted, &model->checkpoint, err));
    if (own) take_gguf(model);
    if (kt_str_is(source->tokenizer, "gguf")) {
        model->tokenizer_path = model->checkpoint.files[0].path;
    } else if (source->tokenizer.n > 0) {
        model->tokenizer_path =
            kt_path_join(model->arena, model->folder, kt_str_z(model->arena, source->tokenizer));
    }
    return KT_OK;
}

// ---- what the config must say

static bool is_expected(const kt_config *config, const kt_expect_decl *expect) {
    kt_str text;
    kt_value number;
    bool has_text = kt_config_text(config, expect->key.text, &text);
    bool has_number = !has_text && kt_config_number(config, expect->key.text, &number);
    bool absent = !has_number && !kt_config_no_number(config, expect->key.text);
    for (int i = 0; i < expect->n_values; i++) {
        double wanted;
        if (absent && expect->values[i].n == 0) return true;
        if (has_text && kt_str_eq(text, expect->values[i])) return true;
        if (!has_number || !kt_str_to_f64(expect->values[i], &wanted)) continue;
        if (number.r >= wanted && number.r <= wanted) return true;
    }
    return false;
}

bool kt_model_check_expects(
    const kt_model *model, kt_model_draft *draft, const kt_model_source *source) {
    bool ok = true;
    for (size_t i = 0; i < source->expects.n; i++) {
        const kt_expect_decl *expect = &source->expects.at[i];
        if (model->config && is_expected(model->config, expect)) continue;
        kt_buf list = {0};
        for (int k = 0; k < expect->n_values; k++)
            if (expect->values[k].n > 0)
                kt_buf_printf(
                    &list, "%s%.*s", list.n == 0 ? "" : " or ", KT_STR_ARG(expect->values[k]));
        ok = kt_diag_error(draft->diag, KT_RULE_REQUIRE, expect->key.at,
            "'%.*s' is %s, this model file is for %s", KT_STR_ARG(expect->key.text),
            model->config ? kt_config_describe(model->config, expect->key.text, draft->arena)
                          : "nothing",
            list.n ? list.at : "nothing");
        if (model->config)
            kt_diag_note(draft->diag, "the value comes from '%s'", kt_config_path(model->config));
        kt_diag_note(draft->diag, "it is another kind of model: use a pipeline made for it");
        kt_buf_deinit(&list);
    }
    return ok;
}
