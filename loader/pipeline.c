#include "loader/pipeline.h"

#include "loader/beside.h"
#include "loader/pipeline_internal.h"
#include "runtime/base/file.h"

#include <inttypes.h>
#include <string.h>

static const kt_key file_keys[] = {
    {"kotaro", true, KT_KEY_SCALAR},
    {"name", true, KT_KEY_SCALAR},
    {"doc", true, KT_KEY_SCALAR},
    {"extends", false, KT_KEY_SCALAR},
    {"include", false, KT_KEY_LIST},
    {"params", false, KT_KEY_MAP},
    {"dims", false, KT_KEY_MAP},
    {"require", false, KT_KEY_LIST},
    {"state", false, KT_KEY_MAP},
    {"stages", false, KT_KEY_MAP},
    {"replace", false, KT_KEY_MAP},
    {"result", false, KT_KEY_SCALAR},
};
enum { N_FILE_KEYS = sizeof file_keys / sizeof file_keys[0] };

static const kt_key dim_keys[] = {
    {"max", true, KT_KEY_SCALAR},
    {"buckets", false, KT_KEY_LIST},
    {"doc", false, KT_KEY_SCALAR},
};
static const kt_key stage_keys[] = {
    {"steps", true, KT_KEY_LIST},
    {"graph", false, KT_KEY_SCALAR},
    {"loop", false, KT_KEY_MAP},
    {"each", false, KT_KEY_MAP},
};
static const kt_key loop_keys[] = {
    {"most", true, KT_KEY_SCALAR},
    {"until", true, KT_KEY_SCALAR},
    {"read", true, KT_KEY_SCALAR},
};

static bool is_file_key(kt_str name) {
    for (int i = 0; i < N_FILE_KEYS; i++)
        if (kt_str_is(name, file_keys[i].name)) return true;
    return false;
}

static const kt_node *value_of(const kt_node *map, const char *key) {
    const kt_pair *pair = kt_node_find(map, key);
    return pair ? pair->value : NULL;
}

// ---- params and their values

static kt_pipe_param *draft_param(kt_pipe_draft *draft, kt_str name) {
    for (size_t i = 0; i < draft->params.n; i++)
        if (kt_str_eq(draft->params.at[i].param.name, name)) return &draft->params.at[i];
    return NULL;
}

static const char *const kind_names[] = {
    "int", "f32", "bool", "string", "choice", "language", "text", "items", "image"};

static bool read_param(kt_pipe_draft *draft, const kt_pair *pair) {
    kt_str stem = kt_name_stem(pair->key);
    if (is_file_key(stem))
        return kt_diag_error(draft->diag, KT_RULE_NAME, pair->at,
            "'%.*s' is a key of the language, not a name for a parameter", KT_STR_ARG(stem));
    kt_pipe_param param = {0};
    if (!kt_param_parse(draft->arena, pair->key, pair->at, pair->value, draft->diag, &param.param))
        return false;
    kt_pipe_param *old = draft_param(draft, pair->key);
    if (!old) {
        KT_PUSH(draft->arena, &draft->params, param);
        return true;
    }
    if (old->param.kind != param.param.kind) {
        kt_diag_error(draft->diag, KT_RULE_TYPE, pair->at,
            "'%.*s' is of type %s in the base, got %s", KT_STR_ARG(pair->key),
            kind_names[old->param.kind], kind_names[param.param.kind]);
        kt_diag_note_at(draft->diag, old->param.at, "declared");
        return false;
    }
    *old = param;
    return true;
}

// What a top-level key may be: keys of the language, parameters, and stems of parameters.
static const kt_str *known_keys(kt_pipe_draft *draft, size_t *n) {
    KT_VEC(kt_str) names = {0};
    for (int i = 0; i < N_FILE_KEYS; i++)
        KT_PUSH(draft->arena, &names, kt_str_from(file_keys[i].name));
    for (size_t i = 0; i < draft->params.n; i++) {
        kt_str name = draft->params.at[i].param.name;
        KT_PUSH(draft->arena, &names, name);
        if (kt_name_stem(name).n != name.n) KT_PUSH(draft->arena, &names, kt_name_stem(name));
    }
    *n = names.n;
    return names.at;
}

static bool set_value(
    kt_pipe_draft *draft, kt_str name, kt_place at, const kt_node *value, int depth) {
    kt_pipe_param *param = draft_param(draft, name);
    if (param) {
        if (!kt_param_check(&param->param, value, draft->diag)) return false;
        param->value = value;
        return true;
    }
    bool group = false;
    for (size_t i = 0; i < draft->params.n && !group; i++) {
        kt_str member;
        group = kt_name_in_group(draft->params.at[i].param.name, name, &member) && member.n > 0;
    }
    if (group && value->kind == KT_NODE_MAP && depth < 4) {
        bool ok = true;
        for (size_t i = 0; i < value->n; i++) {
            const kt_pair *pair = &value->pairs[i];
            kt_str full = kt_str_from(kt_arena_printf(
                draft->arena, "%.*s.%.*s", KT_STR_ARG(name), KT_STR_ARG(pair->key)));
            ok = set_value(draft, full, pair->at, pair->value, depth + 1) && ok;
        }
        return ok;
    }
    kt_diag_error(draft->diag, KT_RULE_KEY, at,
        group ? "'%.*s' is a group of parameters: give it a map"
              : "'%.*s' is neither a key of a pipeline nor a parameter of it or its base",
        KT_STR_ARG(name));
    size_t n;
    const kt_str *known = known_keys(draft, &n);
    if (!group) kt_diag_near(draft->diag, name, known, n, false);
    return false;
}

// ---- dims, state, stages

static bool read_buckets(kt_pipe_draft *draft, const kt_node *list, kt_pipe_dim *dim) {
    int64_t *out = KT_NEW_ARRAY(draft->arena, int64_t, list->n);
    for (size_t i = 0; i < list->n; i++) {
        if (!kt_schema_int(list->items[i], "a bucket", draft->diag, &out[i])) return false;
        if (out[i] < 1 || (i > 0 && out[i] <= out[i - 1]))
            return kt_diag_error(draft->diag, KT_RULE_VALUE, list->items[i]->at,
                "buckets are positive and ascend, got %" PRId64, out[i]);
    }
    if (list->n == 0)
        return kt_diag_error(draft->diag, KT_RULE_VALUE, list->at, "the list of buckets is empty");
    dim->buckets = out;
    dim->n_buckets = (int)list->n;
    return true;
}

static bool read_dim(kt_pipe_draft *draft, const kt_pair *pair) {
    kt_pipe_dim dim = {.name = {pair->key, pair->at}};
    for (size_t i = 0; i < draft->dims.n; i++) {
        if (!kt_str_eq(draft->dims.at[i].name.text, pair->key)) continue;
        kt_diag_error(draft->diag, KT_RULE_EXTENDS, pair->at, "dim '%.*s' is already in the base",
            KT_STR_ARG(pair->key));
        kt_diag_note_at(draft->diag, draft->dims.at[i].name.at, "declared");
        return false;
    }
    const kt_node *value = pair->value;
    if (value->kind == KT_NODE_MAP) {
        if (!kt_schema_check(value, "a dim", dim_keys, 3, false, draft->diag)) return false;
        const kt_node *doc = value_of(value, "doc"), *buckets = value_of(value, "buckets");
        dim.max = kt_expr_node(draft->arena, value_of(value, "max"), draft->diag);
        if (doc) dim.doc = doc->text;
        if (buckets && !read_buckets(draft, buckets, &dim)) return false;
    } else {
        dim.fixed = kt_expr_node(draft->arena, value, draft->diag);
    }
    if (!dim.max && !dim.fixed) return false;
    KT_PUSH(draft->arena, &draft->dims, dim);
    return true;
}

static bool read_state(kt_pipe_draft *draft, const kt_pair *pair) {
    kt_pipe_state state = {.name = {pair->key, pair->at}};
    for (size_t i = 0; i < draft->state.n; i++) {
        if (!kt_str_eq(draft->state.at[i].name.text, pair->key)) continue;
        kt_diag_error(draft->diag, KT_RULE_EXTENDS, pair->at, "state '%.*s' is already in the base",
            KT_STR_ARG(pair->key));
        kt_diag_note_at(draft->diag, draft->state.at[i].name.at, "declared");
        return false;
    }
    if (!kt_type_parse(draft->arena, pair->value, NULL, 0, draft->diag, &state.type)) return false;
    if (state.type.base != KT_BASE_DTYPE || state.type.optional || state.type.each)
        return kt_diag_error(draft->diag, KT_RULE_TYPE, pair->value->at,
            "state is a plain tensor such as f16[n, d], got '%.*s'", KT_STR_ARG(state.type.text));
    KT_PUSH(draft->arena, &draft->state, state);
    return true;
}

static bool read_loop(kt_pipe_draft *draft, const kt_node *map, kt_pipe_stage *stage) {
    if (!kt_schema_check(map, "a loop", loop_keys, 3, false, draft->diag)) return false;
    stage->loop = true;
    stage->loop_most = kt_expr_node(draft->arena, value_of(map, "most"), draft->diag);
    const kt_node *until = value_of(map, "until"), *read = value_of(map, "read");
    stage->loop_until = (kt_ref){until->text, until->at};
    stage->loop_read = (kt_ref){read->text, read->at};
    return stage->loop_most != NULL;
}

static bool read_each(kt_pipe_draft *draft, const kt_node *map, kt_pipe_stage *stage) {
    kt_link *links = KT_NEW_ARRAY(draft->arena, kt_link, map->n);
    for (size_t i = 0; i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        if (pair->value->kind != KT_NODE_SCALAR)
            return kt_diag_error(draft->diag, KT_RULE_KEY, pair->value->at,
                "'%.*s' is the name of a list of batches, got %s", KT_STR_ARG(pair->key),
                kt_node_kind_name(pair->value));
        links[i].port = (kt_ref){pair->key, pair->at};
        links[i].name = (kt_ref){pair->value->text, pair->value->at};
    }
    stage->each = links;
    stage->n_each = (int)map->n;
    return true;
}

static bool read_steps(kt_pipe_draft *draft, const kt_node *list, kt_stage_draft *stage) {
    bool ok = true;
    for (size_t i = 0; i < list->n; i++) {
        kt_step step = {0};
        if (!kt_step_parse(draft->arena, list->items[i], false, draft->diag, &step)) {
            ok = false;
            continue;
        }
        for (size_t k = 0; step.id.text.n && k < stage->steps.n; k++)
            if (kt_str_eq(stage->steps.at[k].id.text, step.id.text))
                ok = kt_diag_error(draft->diag, KT_RULE_NAME, step.id.at,
                    "two steps of stage '%.*s' have the id '%.*s'",
                    KT_STR_ARG(stage->stage.name.text), KT_STR_ARG(step.id.text));
        KT_PUSH(draft->arena, &stage->steps, step);
    }
    return ok;
}

static bool read_stage(kt_pipe_draft *draft, const kt_pair *pair) {
    for (size_t i = 0; i < draft->stages.n; i++) {
        if (!kt_str_eq(draft->stages.at[i].stage.name.text, pair->key)) continue;
        kt_diag_error(draft->diag, KT_RULE_EXTENDS, pair->at,
            "stage '%.*s' is already in the base; change its steps by address, under 'replace'",
            KT_STR_ARG(pair->key));
        kt_diag_note_at(draft->diag, draft->stages.at[i].stage.name.at, "declared");
        return false;
    }
    const kt_node *map = pair->value;
    if (!kt_schema_check(map, "a stage", stage_keys, 4, false, draft->diag)) return false;
    kt_stage_draft draft_stage = {.stage = {.name = {pair->key, pair->at}}};
    kt_pipe_stage *stage = &draft_stage.stage;
    const kt_node *graph = value_of(map, "graph"), *loop = value_of(map, "loop");
    const kt_node *each = value_of(map, "each");
    bool ok = !graph || kt_schema_bool(graph, draft->diag, &stage->graph);
    if (loop) ok = read_loop(draft, loop, stage) && ok;
    if (each) ok = read_each(draft, each, stage) && ok;
    ok = read_steps(draft, value_of(map, "steps"), &draft_stage) && ok;
    KT_PUSH(draft->arena, &draft->stages, draft_stage);
    return ok;
}

// ---- one file and its bases

typedef bool (*read_pair)(kt_pipe_draft *draft, const kt_pair *pair);

static bool read_section(
    kt_pipe_draft *draft, const kt_node *root, const char *key, read_pair read) {
    const kt_node *map = value_of(root, key);
    bool ok = true;
    for (size_t i = 0; map && i < map->n; i++) ok = read(draft, &map->pairs[i]) && ok;
    return ok;
}

static bool read_include(kt_pipe_draft *draft, const kt_node *list, const char *path) {
    bool ok = true;
    for (size_t i = 0; list && i < list->n; i++) {
        const kt_node *item = list->items[i];
        if (item->kind != KT_NODE_SCALAR) {
            ok = kt_diag_error(draft->diag, KT_RULE_KEY, item->at,
                "'include' lists the paths of model files, got %s", kt_node_kind_name(item));
            continue;
        }
        const char *file = kt_beside(draft->arena, path, item->text);
        bool known = false;
        for (size_t k = 0; k < draft->model_files.n; k++)
            known = known || strcmp(draft->model_files.at[k], file) == 0;
        if (!known && !kt_os_may_be_file(file))
            ok = kt_beside_missing(draft->diag, item->at, file, "include");
        else if (!known)
            KT_PUSH(draft->arena, &draft->model_files, file);
    }
    return ok;
}

static bool read_file(kt_pipe_draft *draft, const char *path);

static bool read_base(kt_pipe_draft *draft, const kt_node *root, const char *path) {
    const kt_node *base = value_of(root, "extends");
    if (!base) return true;
    const char *file = kt_beside(draft->arena, path, base->text);
    for (int i = 0; i < draft->depth; i++)
        if (strcmp(draft->stack[i], file) == 0)
            return kt_diag_error(
                draft->diag, KT_RULE_EXTENDS, base->at, "'extends' goes in a circle to '%s'", file);
    if (draft->depth == KT_PIPE_DEPTH)
        return kt_diag_error(draft->diag, KT_RULE_EXTENDS, base->at,
            "'extends' goes deeper than %d files", KT_PIPE_DEPTH);
    if (!kt_os_may_be_file(file)) return kt_beside_missing(draft->diag, base->at, file, "extend");
    return read_file(draft, file);
}

static bool read_values(kt_pipe_draft *draft, const kt_node *root) {
    bool ok = true;
    for (size_t i = 0; i < root->n; i++) {
        const kt_pair *pair = &root->pairs[i];
        if (!is_file_key(pair->key))
            ok = set_value(draft, pair->key, pair->at, pair->value, 0) && ok;
    }
    return ok;
}

static bool read_require(kt_pipe_draft *draft, const kt_node *list) {
    bool ok = true;
    for (size_t i = 0; list && i < list->n; i++) {
        const kt_expr *expr = kt_expr_node(draft->arena, list->items[i], draft->diag);
        ok = ok && expr;
        // NOLINTNEXTLINE(bugprone-sizeof-expression): pointers
        if (expr) KT_PUSH(draft->arena, &draft->require, expr);
    }
    return ok;
}

static bool read_root(kt_pipe_draft *draft, const kt_node *root, const char *path) {
    if (!kt_schema_kind(root, "pipeline", draft->diag)) return false;
    if (!kt_schema_check(root, "a pipeline", file_keys, N_FILE_KEYS, true, draft->diag))
        return false;
    draft->stack[draft->depth++] = path;
    if (!read_base(draft, root, path)) return false;
    draft->out->name = value_of(root, "name")->text;
    draft->out->doc = value_of(root, "doc")->text;
    bool ok = read_section(draft, root, "params", read_param);
    ok = read_values(draft, root) && ok;
    ok = read_section(draft, root, "dims", read_dim) && ok;
    ok = read_section(draft, root, "state", read_state) && ok;
    ok = read_section(draft, root, "stages", read_stage) && ok;
    ok = read_include(draft, value_of(root, "include"), path) && ok;
    ok = read_require(draft, value_of(root, "require")) && ok;
    const kt_node *result = value_of(root, "result"), *replace = value_of(root, "replace");
    if (result) draft->out->result = (kt_ref){result->text, result->at};
    if (replace && ok) ok = kt_pipe_replace(draft, replace);
    return ok;
}

static bool read_file(kt_pipe_draft *draft, const char *path) {
    const kt_node *root = kt_yaml_open(draft->arena, path, path, draft->diag);
    return root && read_root(draft, root, path);
}

static void freeze(kt_pipe_draft *draft) {
    kt_pipeline *out = draft->out;
    kt_pipe_stage *stages = KT_NEW_ARRAY(draft->arena, kt_pipe_stage, draft->stages.n);
    for (size_t i = 0; i < draft->stages.n; i++) {
        kt_stage_draft *from = &draft->stages.at[i];
        stages[i] = from->stage;
        stages[i].steps = from->steps.at;
        stages[i].n_steps = (int)from->steps.n;
    }
    out->stages = stages;
    out->n_stages = (int)draft->stages.n;
    out->params = draft->params.at;
    out->n_params = (int)draft->params.n;
    out->dims = draft->dims.at;
    out->n_dims = (int)draft->dims.n;
    out->state = draft->state.at;
    out->n_state = (int)draft->state.n;
    out->require = draft->require.at;
    out->n_require = (int)draft->require.n;
    out->model_files = draft->model_files.at;
    out->n_model_files = (int)draft->model_files.n;
}

kt_pipeline *kt_pipeline_read(
    kt_arena *arena, const kt_node *root, const char *path, kt_diag *diag) {
    kt_pipeline *out = KT_NEW(arena, kt_pipeline);
    out->arena = arena;
    out->path = kt_arena_copy(arena, path, strlen(path));
    kt_pipe_draft draft = {.arena = arena, .diag = diag, .out = out};
    if (!read_root(&draft, root, out->path) || !kt_pipe_order(&draft)) return NULL;
    freeze(&draft);
    kt_pipe_set_languages(out);
    return out;
}

kt_pipeline *kt_pipeline_open(kt_arena *arena, const char *path, kt_diag *diag) {
    const kt_node *root = kt_yaml_open(arena, path, path, diag);
    return root ? kt_pipeline_read(arena, root, path, diag) : NULL;
}

// ---- values after reading

kt_pipe_param *kt_pipe_param_find(kt_pipeline *pipeline, kt_str name) {
    for (int i = 0; i < pipeline->n_params; i++)
        if (kt_str_eq(pipeline->params[i].param.name, name)) return &pipeline->params[i];
    return NULL;
}

const kt_pipe_param *kt_pipeline_param(const kt_pipeline *pipeline, kt_str name) {
    for (int i = 0; i < pipeline->n_params; i++)
        if (kt_str_eq(pipeline->params[i].param.name, name)) return &pipeline->params[i];
    return NULL;
}

const kt_node *kt_pipe_param_node(const kt_pipe_param *param) {
    return param->value ? param->value : param->param.default_value;
}

bool kt_pipeline_set(kt_pipeline *pipeline, kt_str name, kt_str value, kt_diag *diag) {
    kt_pipe_param *param = kt_pipe_param_find(pipeline, name);
    if (!param) {
        kt_str *known = KT_NEW_ARRAY(pipeline->arena, kt_str, pipeline->n_params);
        for (int i = 0; i < pipeline->n_params; i++) known[i] = pipeline->params[i].param.name;
        kt_place nowhere = {0};
        kt_diag_error(diag, KT_RULE_NAME, nowhere, "pipeline '%.*s' has no parameter '%.*s'",
            KT_STR_ARG(pipeline->name), KT_STR_ARG(name));
        kt_diag_near(diag, name, known, (size_t)pipeline->n_params, true);
        return false;
    }
    const kt_node *node = kt_param_scalar(pipeline->arena, value);
    if (!kt_param_check(&param->param, node, diag)) return false;
    param->value = node;
    kt_pipe_set_languages(pipeline);
    return true;
}

bool kt_pipeline_number(const kt_pipeline *pipeline, const char *name, kt_value *out) {
    const kt_pipe_param *param = kt_pipeline_param(pipeline, kt_str_from(name));
    const kt_node *node = param ? kt_pipe_param_node(param) : NULL;
    return node && kt_param_number(&param->param, node, out);
}

char *kt_pipeline_model(const kt_pipeline *pipeline, kt_arena *arena) {
    const kt_pipe_param *param = kt_pipeline_param(pipeline, KT_STR("model"));
    const kt_node *node = param ? kt_pipe_param_node(param) : NULL;
    if (!node || node->kind != KT_NODE_SCALAR || node->text.n == 0) return NULL;
    if (!node->at.source) return kt_str_z(arena, node->text);
    return kt_beside(arena, node->at.source->path, node->text);
}
