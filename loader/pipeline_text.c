// Texts of a pipeline: languages, items, and changes to them from the command line.
#include "loader/pipeline_internal.h"

#include <inttypes.h>

static const kt_key item_keys[] = {
    {"name", true, KT_KEY_SCALAR},
    {"ask", true, KT_KEY_SCALAR | KT_KEY_MAP},
    {"title", false, KT_KEY_SCALAR | KT_KEY_MAP},
    {"max_new", false, KT_KEY_SCALAR},
};

void kt_pipe_set_languages(kt_pipeline *pipeline) {
    const kt_pipe_param *shared = kt_pipeline_param(pipeline, KT_STR("shared"));
    const kt_node *node = shared ? kt_pipe_param_node(shared) : NULL;
    pipeline->languages = NULL;
    pipeline->n_languages = 0;
    if (!node || node->kind != KT_NODE_MAP) return;
    kt_str *names = KT_NEW_ARRAY(pipeline->arena, kt_str, node->n);
    for (size_t i = 0; i < node->n; i++) names[i] = node->pairs[i].key;
    pipeline->languages = names;
    pipeline->n_languages = (int)node->n;
}

// The chosen language and the place that chose it; empty if the pipeline has no such parameter.
static kt_str chosen_language(const kt_pipeline *pipeline, kt_place *at) {
    const kt_pipe_param *param = kt_pipeline_param(pipeline, KT_STR("language"));
    const kt_node *node = param ? kt_pipe_param_node(param) : NULL;
    if (!node || node->kind != KT_NODE_SCALAR) return (kt_str){"", 0};
    if (at) *at = node->at;
    return node->text;
}

static kt_str pick(const kt_node *text, kt_str language) {
    if (text->kind != KT_NODE_MAP) return text->text;
    const kt_pair *pair = kt_node_find_str(text, language);
    if (!pair && text->n > 0) pair = &text->pairs[0];
    return pair && pair->value->kind == KT_NODE_SCALAR ? pair->value->text : (kt_str){"", 0};
}

bool kt_pipeline_text(const kt_pipeline *pipeline, const char *name, kt_str *out) {
    const kt_pipe_param *param = kt_pipeline_param(pipeline, kt_str_from(name));
    const kt_node *node = param ? kt_pipe_param_node(param) : NULL;
    if (!node || node->kind == KT_NODE_LIST) return false;
    if (node->kind == KT_NODE_MAP && param->param.kind != KT_PARAM_TEXT) return false;
    *out = pick(node, chosen_language(pipeline, NULL));
    return true;
}

// Languages of one text against those of the pipeline; a warning where the chosen one is missing.
static bool check_text(const kt_pipeline *pipeline, const kt_node *text, const char *what,
    kt_str owner, kt_diag *diag) {
    if (text->kind == KT_NODE_SCALAR) return true;
    if (text->kind != KT_NODE_MAP || text->n == 0)
        return kt_diag_error(diag, KT_RULE_VALUE, text->at,
            "%s of '%.*s' is one string, or one for each language, got %s", what, KT_STR_ARG(owner),
            kt_node_kind_name(text));
    bool ok = true;
    for (size_t i = 0; i < text->n; i++) {
        const kt_pair *pair = &text->pairs[i];
        bool known = pipeline->n_languages == 0;
        for (int k = 0; k < pipeline->n_languages; k++)
            known = known || kt_str_eq(pipeline->languages[k], pair->key);
        if (!known) {
            ok = kt_diag_error(diag, KT_RULE_NAME, pair->at,
                "'%.*s' is no language of this pipeline", KT_STR_ARG(pair->key));
            kt_diag_near(diag, pair->key, pipeline->languages, (size_t)pipeline->n_languages, true);
            kt_diag_note(diag, "the languages of a pipeline are those of 'shared'");
        }
        if (pair->value->kind != KT_NODE_SCALAR)
            ok = kt_diag_error(diag, KT_RULE_VALUE, pair->value->at, "a text is a string, got %s",
                kt_node_kind_name(pair->value));
    }
    kt_str language = chosen_language(pipeline, NULL);
    if (ok && !kt_node_find_str(text, language)) {
        kt_str first = text->pairs[0].key;
        kt_diag_warning(diag, KT_RULE_VALUE, text->at, "%s of '%.*s' has no '%.*s'; '%.*s' is used",
            what, KT_STR_ARG(owner), KT_STR_ARG(language), KT_STR_ARG(first));
    }
    return ok;
}

static bool check_language(const kt_pipeline *pipeline, kt_diag *diag) {
    kt_place at = {0};
    kt_str language = chosen_language(pipeline, &at);
    if (pipeline->n_languages == 0) return true;
    for (int i = 0; i < pipeline->n_languages; i++)
        if (kt_str_eq(pipeline->languages[i], language)) return true;
    kt_diag_error(
        diag, KT_RULE_VALUE, at, "language '%.*s' is none of the pipeline's", KT_STR_ARG(language));
    kt_diag_near(diag, language, pipeline->languages, (size_t)pipeline->n_languages, true);
    kt_diag_note(diag, "the languages of a pipeline are those of 'shared'");
    return false;
}

static bool read_item(const kt_pipeline *pipeline, const kt_node *node, int64_t top, kt_diag *diag,
    kt_pipe_item *out) {
    if (!kt_schema_check(node, "an item", item_keys, 4, false, diag)) return false;
    const kt_node *name = kt_node_find(node, "name")->value,
                  *ask = kt_node_find(node, "ask")->value;
    const kt_pair *title = kt_node_find(node, "title"), *max_new = kt_node_find(node, "max_new");
    bool ok = kt_schema_name(name, "the name of an item", diag, &out->name);
    if (!ok) return false;
    ok = check_text(pipeline, ask, "'ask'", out->name, diag);
    if (title) ok = check_text(pipeline, title->value, "'title'", out->name, diag) && ok;
    out->max_new = -1;
    if (max_new) {
        if (!kt_schema_int(max_new->value, "'max_new'", diag, &out->max_new)) return false;
        if (out->max_new < 1 || (top > 0 && out->max_new > top))
            return kt_diag_error(diag, KT_RULE_VALUE, max_new->value->at,
                "item '%.*s' asks for %" PRId64 " tokens, expected 1 to %" PRId64
                " (the pipeline's 'max_new')",
                KT_STR_ARG(out->name), out->max_new, top);
    }
    if (!ok) return false;
    kt_str language = chosen_language(pipeline, NULL);
    out->ask = pick(ask, language);
    out->title = title ? pick(title->value, language) : out->name;
    return true;
}

bool kt_pipeline_items(
    const kt_pipeline *pipeline, kt_arena *arena, kt_diag *diag, kt_pipe_item **out, int *n) {
    const kt_pipe_param *param = kt_pipeline_param(pipeline, KT_STR("items"));
    const kt_node *list = param ? kt_pipe_param_node(param) : NULL;
    bool ok = true;
    *out = NULL;
    *n = 0;
    if (!check_language(pipeline, diag)) return false;
    for (int i = 0; i < pipeline->n_params; i++) {
        const kt_pipe_param *text = &pipeline->params[i];
        const kt_node *node = kt_pipe_param_node(text);
        if (text->param.kind == KT_PARAM_TEXT && node)
            ok = check_text(pipeline, node, "the text", text->param.name, diag) && ok;
    }
    if (!param) return ok;
    if (!list || list->kind != KT_NODE_LIST || list->n == 0) {
        kt_place nowhere = {0};
        kt_diag_error(diag, KT_RULE_VALUE, list ? list->at : nowhere,
            "pipeline '%.*s' has no items: nothing is asked", KT_STR_ARG(pipeline->name));
        kt_diag_note(diag, "list them under 'items', or ask one question with -p TEXT");
        return false;
    }
    kt_value top = kt_value_int(0);
    if (!kt_pipeline_number(pipeline, "max_new", &top)) top = kt_value_int(0);
    kt_pipe_item *items = KT_NEW_ARRAY(arena, kt_pipe_item, list->n);
    for (size_t i = 0; i < list->n; i++) {
        if (!read_item(pipeline, list->items[i], top.i, diag, &items[i])) {
            ok = false;
            continue;
        }
        for (size_t k = 0; k < i; k++) {
            if (!kt_str_eq(items[k].name, items[i].name)) continue;
            ok = kt_diag_error(diag, KT_RULE_NAME, kt_node_find(list->items[i], "name")->value->at,
                "two items are called '%.*s'", KT_STR_ARG(items[i].name));
            kt_diag_note_at(diag, list->items[k]->at, "the first one");
            break;
        }
    }
    *out = items;
    *n = (int)list->n;
    return ok;
}

// ---- from the command line

static const kt_node *new_map(kt_arena *arena, const kt_pair *pairs, size_t n) {
    kt_node *node = KT_NEW(arena, kt_node);
    node->kind = KT_NODE_MAP;
    node->pairs = pairs;
    node->n = n;
    return node;
}

bool kt_pipeline_ask(kt_pipeline *pipeline, kt_str question, kt_diag *diag) {
    kt_pipe_param *param = kt_pipe_param_find(pipeline, KT_STR("items"));
    kt_place nowhere = {0};
    if (!param || param->param.kind != KT_PARAM_ITEMS)
        return kt_diag_error(diag, KT_RULE_NAME, nowhere,
            "pipeline '%.*s' takes no questions: it has no parameter 'items'",
            KT_STR_ARG(pipeline->name));
    if (kt_str_trim(question).n == 0)
        return kt_diag_error(diag, KT_RULE_VALUE, nowhere, "the question is empty");
    kt_arena *arena = pipeline->arena;
    kt_pair *pairs = KT_NEW_ARRAY(arena, kt_pair, 2);
    pairs[0] = (kt_pair){KT_STR("name"), nowhere, kt_param_scalar(arena, KT_STR("answer"))};
    pairs[1] =
        (kt_pair){KT_STR("ask"), nowhere, kt_param_scalar(arena, kt_str_copy(arena, question))};
    const kt_node **items = KT_NEW_ARRAY(arena, const kt_node *, 1);
    items[0] = new_map(arena, pairs, 2);
    kt_node *list = KT_NEW(arena, kt_node);
    list->kind = KT_NODE_LIST;
    list->items = items;
    list->n = 1;
    param->value = list;
    return true;
}

static const kt_node *capped(kt_arena *arena, const kt_node *item, int64_t most) {
    const kt_pair *own = kt_node_find(item, "max_new");
    int64_t value;
    if (!own || own->value->kind != KT_NODE_SCALAR || !kt_str_to_i64(own->value->text, &value) ||
        value <= most)
        return item;
    kt_pair *pairs = KT_NEW_ARRAY(arena, kt_pair, item->n);
    for (size_t i = 0; i < item->n; i++) pairs[i] = item->pairs[i];
    pairs[own - item->pairs].value =
        kt_param_scalar(arena, kt_str_from(kt_arena_printf(arena, "%" PRId64, most)));
    kt_node *node = KT_NEW(arena, kt_node);
    *node = *item;
    node->pairs = pairs;
    return node;
}

void kt_pipeline_cap(kt_pipeline *pipeline, int64_t max_tokens) {
    kt_arena *arena = pipeline->arena;
    kt_pipe_param *max_new = kt_pipe_param_find(pipeline, KT_STR("max_new"));
    kt_pipe_param *items = kt_pipe_param_find(pipeline, KT_STR("items"));
    kt_value now;
    if (max_new && kt_pipeline_number(pipeline, "max_new", &now) && now.i > max_tokens)
        max_new->value =
            kt_param_scalar(arena, kt_str_from(kt_arena_printf(arena, "%" PRId64, max_tokens)));
    const kt_node *list = items ? kt_pipe_param_node(items) : NULL;
    if (!list || list->kind != KT_NODE_LIST) return;
    const kt_node **copies = KT_NEW_ARRAY(arena, const kt_node *, list->n);
    for (size_t i = 0; i < list->n; i++)
        copies[i] = list->items[i]->kind == KT_NODE_MAP ? capped(arena, list->items[i], max_tokens)
                                                        : list->items[i];
    kt_node *node = KT_NEW(arena, kt_node);
    *node = *list;
    node->items = copies;
    items->value = node;
}
