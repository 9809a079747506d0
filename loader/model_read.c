// Model files: reading and the checks that need no checkpoint.
#include "loader/model_internal.h"

#include "loader/beside.h"
#include "loader/picture.h"
#include "runtime/base/os.h"

#include <inttypes.h>
#include <string.h>

static const kt_key file_keys[] = {
    {"kotaro", true, KT_KEY_SCALAR},
    {"name", true, KT_KEY_SCALAR},
    {"doc", true, KT_KEY_SCALAR},
    {"include", false, KT_KEY_LIST},
    {"index", false, KT_KEY_MAP},
    {"constants", false, KT_KEY_MAP},
    {"require", false, KT_KEY_LIST},
    {"weights", false, KT_KEY_MAP}, // of a file that includes others: only what it adds
    {"sources", false, KT_KEY_MAP},
    {"chat", false, KT_KEY_MAP},
    {"picture", false, KT_KEY_MAP},
};
static const kt_key source_keys[] = {
    {"when", false, KT_KEY_SCALAR},
    {"files", false, KT_KEY_SCALAR | KT_KEY_LIST},
    {"expect", false, KT_KEY_MAP},
    {"prefix", false, KT_KEY_LIST},
    {"tokenizer", false, KT_KEY_SCALAR},
    {"constants", false, KT_KEY_MAP},
    {"tensors", false, KT_KEY_MAP},
    {"ignore", false, KT_KEY_LIST},
};
static const kt_key chat_keys[] = {
    {"system", false, KT_KEY_SCALAR},
    {"user", true, KT_KEY_SCALAR},
    {"assistant", true, KT_KEY_SCALAR},
    {"answer", true, KT_KEY_SCALAR},
    {"default_system", false, KT_KEY_SCALAR},
    {"join", false, KT_KEY_SCALAR},
    {"stop", true, KT_KEY_LIST},
};
static const kt_key picture_keys[] = {
    {"scheme", true, KT_KEY_SCALAR},
    {"text", true, KT_KEY_SCALAR},
    {"token", true, KT_KEY_SCALAR},
    {"slice", false, KT_KEY_SCALAR},
    {"row", false, KT_KEY_SCALAR},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { MAX_INCLUDES = 16, N_CHAT_KEYS = COUNT(chat_keys) };

static const kt_node *value_of(const kt_node *map, const char *key) {
    const kt_pair *pair = kt_node_find(map, key);
    return pair ? pair->value : NULL;
}

static kt_str text_of(const kt_node *map, const char *key) {
    const kt_node *node = value_of(map, key);
    return node ? node->text : (kt_str){"", 0};
}

// ---- placeholders

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

kt_str kt_model_placeholder(kt_str text) {
    for (size_t i = 0; i < text.n; i++) {
        if (text.at[i] != '$') continue;
        size_t end = i + 1;
        while (end < text.n && is_word(text.at[end])) end++;
        return kt_str_slice(text, i + 1, end);
    }
    return (kt_str){"", 0};
}

kt_str kt_model_subst(kt_arena *arena, kt_str text, kt_str index, int64_t value, bool *found) {
    KT_VEC(char) out = {0};
    *found = false;
    for (size_t i = 0; i < text.n; i++) {
        kt_str rest = kt_str_slice(text, i, text.n);
        kt_str name = rest.at[0] == '$' ? kt_model_placeholder(rest) : (kt_str){"", 0};
        if (rest.at[0] != '$' || !kt_str_eq(name, index)) {
            KT_PUSH(arena, &out, text.at[i]);
            continue;
        }
        char digits[24];
        int n = snprintf(digits, sizeof digits, "%" PRId64, value);
        for (int k = 0; k < n; k++) KT_PUSH(arena, &out, digits[k]);
        i += index.n;
        *found = true;
    }
    return (kt_str){out.n ? out.at : "", out.n};
}

// ---- sources

static const kt_const_decl *read_constants(
    kt_model_draft *draft, const kt_node *map, int *n, bool *ok) {
    *n = map ? (int)map->n : 0;
    kt_const_decl *out = KT_NEW_ARRAY(draft->arena, kt_const_decl, *n);
    for (int i = 0; i < *n; i++) {
        out[i].name = (kt_ref){map->pairs[i].key, map->pairs[i].at};
        out[i].expr = kt_expr_node(draft->arena, map->pairs[i].value, draft->diag);
        *ok = *ok && out[i].expr;
    }
    return out;
}

static bool refuse_ref(kt_model_draft *draft, const kt_node *node) {
    kt_diag_error(draft->diag, KT_RULE_WEIGHT, node->at, "cannot read the tensor name '%.*s'",
        KT_STR_ARG(node->text));
    kt_diag_note(draft->diag,
        "NAME, NAME rows a .. b, NAME transposed, or NAME interleaved hd if ARCHITECTURE");
    return false;
}

static const kt_expr *parse_part(kt_model_draft *draft, const kt_node *node, kt_str text) {
    text = kt_str_trim(text);
    size_t from = (size_t)(text.at - node->text.at);
    kt_place at = node->exact ? kt_place_part(node->at, node->text, from, from + text.n) : node->at;
    return kt_expr_parse(draft->arena, text, at, draft->diag);
}

// "NAME", "NAME rows a .. b", "NAME transposed", or both; "NAME interleaved hd if llama".
static bool read_tensor_ref(kt_model_draft *draft, const kt_node *node, kt_tensor_ref *out) {
    if (node->kind != KT_NODE_SCALAR)
        return kt_diag_error(draft->diag, KT_RULE_WEIGHT, node->at,
            "a tensor is named by a text, got %s", kt_node_kind_name(node));
    kt_str text = kt_str_trim(node->text);
    out->at = node->at;
    if (kt_str_ends(text, KT_STR(" transposed"))) {
        out->transposed = true;
        text = kt_str_trim(kt_str_slice(text, 0, text.n - strlen(" transposed")));
    }
    ptrdiff_t space = kt_str_find(text, ' ');
    out->name = space < 0 ? text : kt_str_slice(text, 0, (size_t)space);
    if (out->name.n == 0)
        return kt_diag_error(
            draft->diag, KT_RULE_WEIGHT, node->at, "the name of a tensor is empty");
    if (space < 0) return true;
    kt_str rest = kt_str_trim(kt_str_slice(text, (size_t)space, text.n));
    kt_str rows = KT_STR("rows "), interleaved = KT_STR("interleaved ");
    ptrdiff_t dots = kt_str_find_text(rest, " .. ");
    if (kt_str_starts(rest, rows) && dots >= (ptrdiff_t)rows.n) {
        out->from = parse_part(draft, node, kt_str_slice(rest, rows.n, (size_t)dots));
        out->to = parse_part(draft, node, kt_str_slice(rest, (size_t)dots + 4, rest.n));
        return out->from && out->to;
    }
    if (!kt_str_starts(rest, interleaved) || out->transposed) return refuse_ref(draft, node);
    ptrdiff_t only = kt_str_find_text(rest, " if ");
    size_t end = only < 0 ? rest.n : (size_t)only;
    if (end < interleaved.n) return refuse_ref(draft, node);
    out->interleaved = parse_part(draft, node, kt_str_slice(rest, interleaved.n, end));
    if (only >= 0) out->architectures = kt_str_trim(kt_str_slice(rest, end + 4, rest.n));
    return out->interleaved != NULL;
}

static bool read_tensors(kt_model_draft *draft, const kt_node *map, kt_source_decl *source) {
    bool ok = true;
    kt_tensors_decl *out = KT_NEW_ARRAY(draft->arena, kt_tensors_decl, map ? map->n : 0);
    for (size_t i = 0; map && i < map->n; i++) {
        const kt_node *value = map->pairs[i].value;
        bool list = value->kind == KT_NODE_LIST;
        size_t n = list ? value->n : 1;
        kt_tensor_ref *refs = KT_NEW_ARRAY(draft->arena, kt_tensor_ref, n);
        for (size_t k = 0; k < n; k++)
            ok = read_tensor_ref(draft, list ? value->items[k] : value, &refs[k]) && ok;
        out[i] = (kt_tensors_decl){{map->pairs[i].key, map->pairs[i].at}, refs, (int)n};
        if (n == 0)
            ok =
                kt_diag_error(draft->diag, KT_RULE_WEIGHT, value->at, "the list of names is empty");
    }
    source->tensors = out;
    source->n_tensors = map ? (int)map->n : 0;
    return ok;
}

// Texts of a list, some of which may be empty, or the one of a scalar.
static const kt_str *read_texts(
    kt_model_draft *draft, const kt_node *node, bool empty, int *n, bool *ok) {
    bool list = node && node->kind == KT_NODE_LIST;
    *n = node == NULL ? 0 : list ? (int)node->n : 1;
    kt_str *out = KT_NEW_ARRAY(draft->arena, kt_str, *n);
    for (int i = 0; i < *n; i++) {
        const kt_node *item = list ? node->items[i] : node;
        out[i] = item->text;
        if (item->kind == KT_NODE_SCALAR && (item->text.n > 0 || (empty && list))) continue;
        *ok = kt_diag_error(draft->diag, KT_RULE_VALUE, item->at, "a text is expected here, got %s",
            kt_node_kind_name(item));
    }
    return out;
}

static void read_expects(kt_model_draft *draft, const kt_node *map, kt_source_decl *out, bool *ok) {
    int n = map ? (int)map->n : 0;
    kt_expect_decl *expects = KT_NEW_ARRAY(draft->arena, kt_expect_decl, n);
    for (int i = 0; i < n; i++) {
        expects[i].key = (kt_ref){map->pairs[i].key, map->pairs[i].at};
        expects[i].values =
            read_texts(draft, map->pairs[i].value, true, &expects[i].n_values, ok); // "": or absent
    }
    out->expects = expects;
    out->n_expects = n;
}

static bool read_source(kt_model_draft *draft, const kt_pair *pair, kt_source_decl *out) {
    const kt_node *map = pair->value;
    if (!kt_schema_check(map, "a source", source_keys, COUNT(source_keys), false, draft->diag))
        return false;
    bool ok = true;
    out->name = (kt_ref){pair->key, pair->at};
    out->when = text_of(map, "when");
    out->tokenizer = text_of(map, "tokenizer");
    out->files = read_texts(draft, value_of(map, "files"), false, &out->n_files, &ok);
    read_expects(draft, value_of(map, "expect"), out, &ok);
    out->constants = read_constants(draft, value_of(map, "constants"), &out->n_constants, &ok);
    ok = read_tensors(draft, value_of(map, "tensors"), out) && ok;
    const kt_node *ignore = value_of(map, "ignore"), *prefix = value_of(map, "prefix");
    kt_ref *globs = KT_NEW_ARRAY(draft->arena, kt_ref, ignore ? ignore->n : 0);
    for (size_t i = 0; ignore && i < ignore->n; i++)
        globs[i] = (kt_ref){ignore->items[i]->text, ignore->items[i]->at};
    out->ignore = globs;
    out->n_ignore = ignore ? (int)ignore->n : 0;
    if (!prefix) return ok;
    kt_str *texts = KT_NEW_ARRAY(draft->arena, kt_str, prefix->n);
    for (size_t i = 0; i < prefix->n; i++) texts[i] = prefix->items[i]->text;
    out->prefix = texts;
    out->n_prefix = (int)prefix->n;
    return ok;
}

static bool has_constant(const kt_source_decl *source, kt_str name) {
    for (int i = 0; i < source->n_constants; i++)
        if (kt_str_eq(source->constants[i].name.text, name)) return true;
    return false;
}

// Every source gives every constant, names every weight of the file, and nothing else.
static bool check_sources(
    kt_model_draft *draft, const kt_model_part *part, const kt_node *weights) {
    static const kt_node none = {.kind = KT_NODE_MAP};
    bool ok = true;
    if (!weights) weights = &none;
    kt_str *known = KT_NEW_ARRAY(draft->arena, kt_str, weights->n);
    for (size_t i = 0; i < weights->n; i++) known[i] = weights->pairs[i].key;
    for (int s = 0; s < part->n_sources; s++) {
        const kt_source_decl *source = &part->sources[s];
        for (int o = 0; o < part->n_sources; o++)
            for (int i = 0; i < part->sources[o].n_constants; i++) {
                const kt_const_decl *c = &part->sources[o].constants[i];
                if (has_constant(source, c->name.text)) continue;
                ok = kt_diag_error(draft->diag, KT_RULE_KEY, source->name.at,
                    "source '%.*s' gives no constant '%.*s'", KT_STR_ARG(source->name.text),
                    KT_STR_ARG(c->name.text));
                kt_diag_note_at(draft->diag, c->name.at, "another source does");
            }
        for (size_t i = 0; i < weights->n; i++) {
            bool found = false;
            for (int k = 0; k < source->n_tensors; k++)
                found = found || kt_str_eq(source->tensors[k].family.text, known[i]);
            if (found) continue;
            ok = kt_diag_error(draft->diag, KT_RULE_WEIGHT, source->name.at,
                "source '%.*s' names no tensor for weight '%.*s'", KT_STR_ARG(source->name.text),
                KT_STR_ARG(known[i]));
            kt_diag_note_at(draft->diag, weights->pairs[i].at, "the weight is declared");
        }
        for (int k = 0; k < source->n_tensors; k++) {
            const kt_ref *family = &source->tensors[k].family;
            if (kt_node_find_str(weights, family->text)) continue;
            ok = kt_diag_error(draft->diag, KT_RULE_WEIGHT, family->at,
                "source '%.*s' names a tensor for '%.*s', which is no weight",
                KT_STR_ARG(source->name.text), KT_STR_ARG(family->text));
            kt_diag_near(draft->diag, family->text, known, weights->n, false);
        }
    }
    return ok;
}

// ---- the rest of a file

static bool read_weights(kt_model_draft *draft, const kt_node *map) {
    bool ok = true;
    for (size_t i = 0; map && i < map->n; i++) {
        const kt_pair *pair = &map->pairs[i];
        kt_weight_decl decl = {.family = {pair->key, pair->at}};
        for (size_t k = 0; k < draft->weights.n; k++) {
            if (!kt_str_eq(draft->weights.at[k].family.text, pair->key)) continue;
            ok = kt_diag_error(draft->diag, KT_RULE_NAME, pair->at,
                "weight '%.*s' is declared twice", KT_STR_ARG(pair->key));
            kt_diag_note_at(draft->diag, draft->weights.at[k].family.at, "the first time");
        }
        if (!kt_type_parse(draft->arena, pair->value, NULL, 0, draft->diag, &decl.type)) {
            ok = false;
            continue;
        }
        bool vector = decl.type.base == KT_BASE_DTYPE && decl.type.dtype == KT_DTYPE_F32;
        bool linear = decl.type.base == KT_BASE_LINEAR && decl.type.rank == 2;
        if ((!vector && !linear) || decl.type.each)
            ok = kt_diag_error(draft->diag, KT_RULE_TYPE, pair->value->at,
                "a weight is linear[n, k] or f32[...], got '%.*s'", KT_STR_ARG(decl.type.text));
        KT_PUSH(draft->arena, &draft->weights, decl);
    }
    return ok;
}

static bool check_roles(kt_model_draft *draft, const kt_node *map) {
    static const char *const roles[] = {"system", "user", "assistant"};
    bool ok = true;
    for (int i = 0; i < 3; i++) {
        const kt_node *node = value_of(map, roles[i]);
        if (node && kt_str_find_text(node->text, "$text") < 0)
            ok = kt_diag_error(draft->diag, KT_RULE_VALUE, node->at,
                "the template of '%s' has no $text: the message has no place", roles[i]);
    }
    return ok;
}

// A text of a section; what an included file says stays where this one says nothing.
static void take_text(const kt_node *map, const char *key, kt_str *out) {
    const kt_node *node = value_of(map, key);
    if (node) *out = node->text;
}

static bool read_chat(kt_model_draft *draft, const kt_node *map) {
    kt_model_chat *chat = &draft->chat;
    kt_key keys[N_CHAT_KEYS];
    for (int i = 0; i < N_CHAT_KEYS; i++) {
        keys[i] = chat_keys[i];
        keys[i].required = keys[i].required && !chat->present;
    }
    if (!kt_schema_check(map, "chat", keys, N_CHAT_KEYS, false, draft->diag)) return false;
    chat->present = true;
    chat->at = map->at;
    take_text(map, "system", &chat->system);
    take_text(map, "user", &chat->user);
    take_text(map, "assistant", &chat->assistant);
    take_text(map, "answer", &chat->answer);
    take_text(map, "default_system", &chat->default_system);
    take_text(map, "join", &chat->join);
    const kt_node *stop = value_of(map, "stop");
    if (!stop) return check_roles(draft, map);
    kt_str *texts = KT_NEW_ARRAY(draft->arena, kt_str, stop->n);
    for (size_t i = 0; i < stop->n; i++) texts[i] = stop->items[i]->text;
    chat->stop = texts;
    chat->n_stop = (int)stop->n;
    return check_roles(draft, map);
}

static bool read_picture(kt_model_draft *draft, const kt_node *map) {
    if (!kt_schema_check(map, "picture", picture_keys, COUNT(picture_keys), false, draft->diag))
        return false;
    kt_model_picture *picture = &draft->picture;
    *picture = (kt_model_picture){.present = true, .at = map->at};
    picture->scheme = text_of(map, "scheme");
    picture->text = text_of(map, "text");
    picture->slice = text_of(map, "slice");
    picture->row = text_of(map, "row");
    picture->token = text_of(map, "token");
    kt_str known[KT_PICTURE_SCHEME_COUNT];
    for (int i = 0; i < KT_PICTURE_SCHEME_COUNT; i++) {
        known[i] = kt_str_from(kt_picture_scheme_name((kt_picture_scheme)i));
        if (kt_str_eq(known[i], picture->scheme)) return true;
    }
    kt_diag_error(draft->diag, KT_RULE_VALUE, value_of(map, "scheme")->at,
        "unknown slicing scheme '%.*s'", KT_STR_ARG(picture->scheme));
    kt_diag_near(draft->diag, picture->scheme, known, KT_PICTURE_SCHEME_COUNT, true);
    return false;
}

static bool read_facts(kt_model_draft *draft, const kt_node *root) {
    bool ok = true;
    int n;
    const kt_const_decl *list = read_constants(draft, value_of(root, "constants"), &n, &ok);
    for (int i = 0; i < n; i++) KT_PUSH(draft->arena, &draft->constants, list[i]);
    list = read_constants(draft, value_of(root, "index"), &n, &ok);
    for (int i = 0; i < n; i++) KT_PUSH(draft->arena, &draft->index, list[i]);
    const kt_node *require = value_of(root, "require");
    for (size_t i = 0; require && i < require->n; i++) {
        const kt_expr *expr = kt_expr_node(draft->arena, require->items[i], draft->diag);
        ok = ok && expr;
        // NOLINTNEXTLINE(bugprone-sizeof-expression): pointers
        if (expr) KT_PUSH(draft->arena, &draft->require, expr);
    }
    const kt_node *chat = value_of(root, "chat"), *picture = value_of(root, "picture");
    if (chat) ok = read_chat(draft, chat) && ok;
    if (picture) ok = read_picture(draft, picture) && ok;
    return ok;
}

static bool read_includes(kt_model_draft *draft, kt_model_part *part) {
    const kt_node *list = value_of(part->root, "include");
    bool ok = true;
    const char **paths = KT_NEW_ARRAY(draft->arena, const char *, list ? list->n : 0);
    part->includes = paths;
    for (size_t i = 0; list && i < list->n; i++) {
        const kt_node *item = list->items[i];
        const char *file = kt_beside(draft->arena, part->path, item->text);
        paths[part->n_includes++] = file;
        if (!kt_os_may_be_file(file))
            ok = kt_beside_missing(draft->diag, item->at, file, "include");
        else
            ok = kt_model_read(draft, file, item->at) && ok;
    }
    return ok;
}

bool kt_model_read(kt_model_draft *draft, const char *path, kt_place from) {
    for (size_t i = 0; i < draft->seen.n; i++)
        if (strcmp(draft->seen.at[i], path) == 0) return true; // read, or being read: a circle
    if (draft->seen.n == MAX_INCLUDES)
        return kt_diag_error(
            draft->diag, KT_RULE_LIMIT, from, "more than %d model files", MAX_INCLUDES);
    KT_PUSH(draft->arena, &draft->seen, path);
    const kt_node *root = kt_yaml_open(draft->arena, path, path, draft->diag);
    if (!root || !kt_schema_kind(root, "model", draft->diag)) return false;
    if (!kt_schema_check(root, "a model", file_keys, COUNT(file_keys), false, draft->diag))
        return false;
    kt_model_part part = {.path = path, .root = root};
    bool ok = read_includes(draft, &part), mine_ok = true;
    const kt_node *sources = value_of(root, "sources"), *weights = value_of(root, "weights");
    part.n_sources = sources ? (int)sources->n : 0;
    part.sources = KT_NEW_ARRAY(draft->arena, kt_source_decl, part.n_sources);
    for (int i = 0; i < part.n_sources; i++)
        mine_ok = read_source(draft, &sources->pairs[i], &part.sources[i]) && mine_ok;
    KT_PUSH(draft->arena, &draft->parts, part);
    ok = read_weights(draft, weights) && ok;
    if (mine_ok) ok = check_sources(draft, &part, weights) && ok;
    return read_facts(draft, root) && ok && mine_ok;
}

// ---- one source over all files

static size_t part_of(const kt_model_draft *draft, kt_place at) {
    size_t i = 0;
    while (i + 1 < draft->parts.n && draft->parts.at[i].root->at.source != at.source) i++;
    return i;
}

static bool includes_itself(const kt_model_part *part, const char *path) {
    for (size_t i = 0; i < part->n_includes; i++)
        if (strcmp(part->includes[i], path) == 0) return true;
    return false;
}

// Does a file include the other, itself or through others? In a circle both do.
static bool includes(const kt_model_draft *draft, size_t part, size_t other) {
    size_t reached[MAX_INCLUDES] = {part}, n = 1;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < draft->parts.n; k++) {
            if (!includes_itself(&draft->parts.at[reached[i]], draft->parts.at[k].path)) continue;
            if (k == other) return true;
            bool known = false;
            for (size_t r = 0; r < n; r++) known = known || reached[r] == k;
            if (!known) reached[n++] = k; // each part once, so at most MAX_INCLUDES
        }
    return false;
}

// A file may define a constant of a file that it includes again; its own holds.
static bool add_constant(kt_model_draft *draft, kt_model_source *out, kt_const_decl decl) {
    for (size_t i = 0; i < out->constants.n; i++) {
        if (!kt_str_eq(out->constants.at[i].name.text, decl.name.text)) continue;
        size_t now = part_of(draft, decl.name.at);
        size_t before = part_of(draft, out->constants.at[i].name.at);
        bool replaces = includes(draft, now, before);
        if (replaces) out->constants.at[i] = decl;
        if (replaces || includes(draft, before, now)) return true;
        kt_diag_error(draft->diag, KT_RULE_NAME, decl.name.at, "constant '%.*s' is defined twice",
            KT_STR_ARG(decl.name.text));
        kt_diag_note_at(draft->diag, out->constants.at[i].name.at, "the first time");
        return false;
    }
    KT_PUSH(draft->arena, &out->constants, decl);
    return true;
}

static void add_files(kt_model_draft *draft, const kt_source_decl *source, kt_model_source *out) {
    for (int i = 0; i < source->n_files; i++) {
        bool known = false;
        for (size_t k = 0; k < out->files.n; k++)
            known = known || kt_str_eq(out->files.at[k], source->files[i]);
        if (!known) KT_PUSH(draft->arena, &out->files, source->files[i]);
    }
}

// What an including file expects of a key holds.
static void add_expect(kt_model_draft *draft, kt_expect_decl decl, kt_model_source *out) {
    for (size_t i = 0; i < out->expects.n; i++) {
        if (!kt_str_eq(out->expects.at[i].key.text, decl.key.text)) continue;
        out->expects.at[i] = decl;
        return;
    }
    KT_PUSH(draft->arena, &out->expects, decl);
}

bool kt_model_join(kt_model_draft *draft, kt_str name, kt_model_source *out) {
    bool ok = true;
    for (size_t i = 0; i < draft->constants.n; i++)
        ok = add_constant(draft, out, draft->constants.at[i]) && ok;
    for (size_t p = 0; p < draft->parts.n; p++) { // what includes comes after what it includes
        const kt_model_part *part = &draft->parts.at[p];
        const kt_source_decl *source = NULL;
        for (int i = 0; i < part->n_sources; i++)
            if (kt_str_eq(part->sources[i].name.text, name)) source = &part->sources[i];
        if (!source && !value_of(part->root, "weights")) continue; // it adds nothing here
        if (!source) {
            const kt_node *sources = value_of(part->root, "sources");
            ok = kt_diag_error(draft->diag, KT_RULE_KEY, (sources ? sources : part->root)->at,
                "this file has no source '%.*s', another one has", KT_STR_ARG(name));
            continue;
        }
        out->name = source->name;
        for (int i = 0; i < source->n_constants; i++)
            ok = add_constant(draft, out, source->constants[i]) && ok;
        for (int i = 0; i < source->n_tensors; i++)
            KT_PUSH(draft->arena, &out->tensors, source->tensors[i]);
        for (int i = 0; i < source->n_ignore; i++)
            KT_PUSH(draft->arena, &out->ignore, source->ignore[i]);
        if (source->prefix) {
            out->prefix = source->prefix;
            out->n_prefix = source->n_prefix;
        }
        if (source->when.n) out->when = source->when;
        if (source->tokenizer.n) out->tokenizer = source->tokenizer;
        add_files(draft, source, out);
        for (int i = 0; i < source->n_expects; i++) add_expect(draft, source->expects[i], out);
    }
    return ok;
}
