#include "loader/model.h"

#include "loader/model_internal.h"
#include "runtime/base/file.h"

#include <inttypes.h>
#include <string.h>

enum { DEPTH_MAX = 32 };

// ---- constants

typedef enum const_state { CONST_NEW, CONST_BUSY, CONST_DONE } const_state;

// The constants of one source while they are computed, each when first asked for.
typedef struct constants {
    struct constants *self;
    const kt_model_source *source;
    const kt_model *model;
    kt_diag *diag;
    kt_arena *arena;
    kt_value *values;
    const_state *states;
    int depth;
    const kt_expr *asking;
    bool bad;
} constants;

static bool const_find(const void *ctx, kt_str name, kt_value *out);
static int const_call(const void *ctx, kt_str function, kt_str key, kt_value *out);
static const kt_str *const_names(const void *ctx, kt_arena *arena, size_t *n);

static kt_env const_env(constants *c) {
    return (kt_env){.ctx = c, .find = const_find, .call = const_call, .names = const_names};
}

// Says which files of the model folder the values in the message are from.
static void note_values(const kt_model *model, kt_diag *diag) {
    if (!model->config) return;
    const char *also = model->preprocessor ? kt_config_path(model->preprocessor) : NULL;
    kt_diag_note(diag, "the values come from '%s'%s%s%s", kt_config_path(model->config),
        also ? " and '" : "", also ? also : "", also ? "'" : "");
}

static void compute(constants *c, size_t i) {
    const kt_const_decl *decl = &c->source->constants.at[i];
    const kt_expr *outer = c->asking;
    c->states[i] = CONST_BUSY;
    c->asking = decl->expr;
    c->depth++;
    kt_env env = const_env(c);
    if (!kt_expr_eval(decl->expr, &env, "a constant", c->diag, &c->values[i])) {
        note_values(c->model, c->diag);
        kt_diag_note_at(c->diag, decl->name.at, "constant '%.*s'", KT_STR_ARG(decl->name.text));
        c->values[i] = kt_value_int(1);
        c->bad = true;
    }
    c->depth--;
    c->asking = outer;
    c->states[i] = CONST_DONE;
}

static bool const_find(const void *ctx, kt_str name, kt_value *out) {
    constants *c = ((const constants *)ctx)->self; // computed on demand behind a const interface
    for (size_t i = 0; i < c->source->constants.n; i++) {
        if (!kt_str_eq(c->source->constants.at[i].name.text, name)) continue;
        if (c->states[i] == CONST_NEW && c->depth < DEPTH_MAX) compute(c, i);
        if (c->states[i] != CONST_DONE) {
            kt_place at = c->asking ? kt_expr_at(c->asking) : c->source->constants.at[i].name.at;
            kt_diag_error(
                c->diag, KT_RULE_EXPR, at, "constant '%.*s' depends on itself", KT_STR_ARG(name));
            c->bad = true;
            *out = kt_value_int(1);
            return true;
        }
        *out = c->values[i];
        return true;
    }
    return false;
}

static int const_call(const void *ctx, kt_str function, kt_str key, kt_value *out) {
    const constants *c = ctx;
    bool main = kt_str_is(function, "config");
    if (kt_str_is(function, "rows")) {
        const kt_stored *stored = kt_checkpoint_find(&c->model->checkpoint, key);
        if (stored == NULL || stored->rank == 0) return KT_CALL_MISSING;
        *out = kt_value_int(stored->shape[0]);
        return KT_CALL_FOUND;
    }
    if (!main && !kt_str_is(function, "preprocessor")) return KT_CALL_UNKNOWN;
    const kt_config *config = main ? c->model->config : c->model->preprocessor;
    if (!config) return KT_CALL_MISSING;
    if (kt_config_number(config, key, out)) return KT_CALL_FOUND;
    return kt_config_no_number(config, key) ? KT_CALL_NO_NUMBER : KT_CALL_MISSING;
}

static const kt_str *const_names(const void *ctx, kt_arena *arena, size_t *n) {
    const constants *c = ctx;
    kt_str *out = KT_NEW_ARRAY(arena, kt_str, c->source->constants.n);
    for (size_t i = 0; i < c->source->constants.n; i++)
        out[i] = c->source->constants.at[i].name.text;
    *n = c->source->constants.n;
    return out;
}

// "d = 384, heads = 3" for the names of an expression.
typedef struct values_text {
    kt_buf buf;
    const kt_env *env;
} values_text;

static void add_value(void *ctx, kt_str name, kt_place at) {
    (void)at;
    values_text *t = ctx;
    kt_value v;
    if (!t->env->find(t->env->ctx, name, &v)) return;
    kt_buf_printf(&t->buf, t->buf.n ? ", %.*s = " : "%.*s = ", KT_STR_ARG(name));
    if (v.is_real)
        kt_buf_printf(&t->buf, "%g", v.r);
    else
        kt_buf_printf(&t->buf, "%" PRId64, v.i);
}

static bool check_require(const kt_model *model, kt_model_draft *draft, const kt_env *env) {
    bool ok = true;
    for (size_t i = 0; i < draft->require.n; i++) {
        const kt_expr *expr = draft->require.at[i];
        kt_value holds;
        if (!kt_expr_eval(expr, env, "a requirement", draft->diag, &holds)) {
            note_values(model, draft->diag);
            ok = false;
            continue;
        }
        if (holds.r != 0) continue;
        values_text text = {.env = env};
        kt_expr_names(expr, add_value, &text);
        ok = kt_diag_error(draft->diag, KT_RULE_REQUIRE, kt_expr_at(expr),
            "this checkpoint breaks %.*s: %s", KT_STR_ARG(kt_expr_text(expr)),
            text.buf.n ? text.buf.at : "it is false");
        note_values(model, draft->diag);
        kt_buf_deinit(&text.buf);
    }
    return ok;
}

static bool read_indexes(kt_model *model, kt_model_draft *draft, const kt_env *env) {
    size_t n = draft->index.n;
    kt_str *names = KT_NEW_ARRAY(model->arena, kt_str, n);
    int64_t *counts = KT_NEW_ARRAY(model->arena, int64_t, n);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        names[i] = draft->index.at[i].name.text;
        if (!kt_expr_eval_int(draft->index.at[i].expr, env, "an index", draft->diag, &counts[i])) {
            ok = false;
            continue;
        }
        if (counts[i] >= 1 && counts[i] <= 1000) continue;
        ok = kt_diag_error(draft->diag, KT_RULE_LIMIT, draft->index.at[i].name.at,
            "index '%.*s' counts to %" PRId64 ", expected 1 to 1000", KT_STR_ARG(names[i]),
            counts[i]);
        note_values(model, draft->diag);
    }
    model->index_names = names;
    model->index_counts = counts;
    model->n_indexes = (int)n;
    return ok;
}

// ---- open

static kt_status bad_yaml(const char *const *files, kt_err *err) {
    return KT_FAIL(err, KT_EYAML, "model file '%s' has mistakes", files[0]);
}

static void copy_facts(kt_model *model, kt_model_draft *draft) {
    model->chat = draft->chat;
    model->picture = draft->picture;
    const kt_source **files = KT_NEW_ARRAY(model->arena, const kt_source *, draft->parts.n);
    for (size_t i = 0; i < draft->parts.n; i++) files[i] = draft->parts.at[i].root->at.source;
    model->files = files;
    model->n_files = (int)draft->parts.n;
}

static kt_status misfit(const kt_model *model, const kt_model_draft *draft, kt_err *err) {
    kt_status status = KT_FAIL(err, KT_EMODEL, "model folder '%s' does not fit '%s'", model->folder,
        draft->parts.at[draft->parts.n - 1].path);
    kt_err_note(err, "it is damaged (download it again), or a model of another kind (choose a "
                     "pipeline for it)");
    return status;
}

static kt_status bind_all(kt_model *model, kt_model_draft *draft, const kt_model_source *source,
    const kt_registry *registry, kt_err *err) {
    constants c = {.source = source, .diag = draft->diag, .arena = model->arena};
    size_t n = source->constants.n;
    c.self = &c;
    c.model = model;
    c.values = KT_NEW_ARRAY(model->arena, kt_value, n);
    c.states = KT_NEW_ARRAY(model->arena, const_state, n);
    kt_str *names = KT_NEW_ARRAY(model->arena, kt_str, n);
    if (!kt_model_check_expects(model, draft, source)) return misfit(model, draft, err);
    for (size_t i = 0; i < n; i++) {
        names[i] = source->constants.at[i].name.text;
        if (c.states[i] == CONST_NEW) compute(&c, i);
    }
    model->constant_names = names;
    model->constants = c.values;
    model->n_constants = (int)n;
    kt_env env = const_env(&c);
    if (c.bad || !check_require(model, draft, &env) || !read_indexes(model, draft, &env))
        return misfit(model, draft, err);
    KT_TRY(kt_model_bind(model, draft, source, registry, &env, err));
    return draft->diag->n_errors ? misfit(model, draft, err) : KT_OK;
}

// NOLINTNEXTLINE(readability-function-size): parameters
kt_status kt_model_open(kt_arena *arena, const kt_registry *registry,
    const char *const *model_files, int n_files, const char *path, kt_model *out, kt_diag *diag,
    kt_err *err) {
    *out = (kt_model){.arena = arena};
    if (n_files < 1) return KT_FAIL(err, KT_EYAML, "the pipeline includes no model file");
    kt_model_draft draft = {.arena = arena, .diag = diag};
    kt_place nowhere = {0};
    kt_model_place place;
    bool ok = true;
    int before = diag->n_errors;
    for (int i = 0; i < n_files; i++) ok = kt_model_read(&draft, model_files[i], nowhere) && ok;
    if (!ok || diag->n_errors > before) return bad_yaml(model_files, err);
    kt_str name;
    KT_TRY(kt_model_find_place(arena, path, &place, err));
    out->path = place.path;
    out->folder = place.folder;
    KT_TRY(kt_model_choose(&draft, &place, &name, err));
    kt_model_source source = {0};
    if (!kt_model_join(&draft, name, &source)) return bad_yaml(model_files, err);
    copy_facts(out, &draft);
    kt_status status = kt_model_open_files(out, &source, &place, err);
    if (status == KT_OK) status = bind_all(out, &draft, &source, registry, err);
    if (status != KT_OK) kt_model_close(out);
    return status;
}

void kt_model_close(kt_model *model) {
    kt_checkpoint_close(&model->checkpoint);
}

bool kt_model_constant(const kt_model *model, kt_str name, kt_value *out) {
    for (int i = 0; i < model->n_constants; i++)
        if (kt_str_eq(model->constant_names[i], name)) {
            *out = model->constants[i];
            return true;
        }
    return false;
}

const kt_weight *kt_model_weight(const kt_model *model, kt_str name) {
    int64_t i;
    return kt_table_find(&model->by_name, name, &i) ? &model->weights[i] : NULL;
}

// ---- check without a checkpoint

typedef struct name_check {
    kt_model_draft *draft;
    kt_str *known;
    size_t n;
    const char *what;
    bool ok;
} name_check;

static void check_name(void *ctx, kt_str name, kt_place at) {
    name_check *c = ctx;
    for (size_t i = 0; i < c->n; i++)
        if (kt_str_eq(c->known[i], name)) return;
    c->ok = kt_diag_error(c->draft->diag, KT_RULE_NAME, at, "unknown constant '%.*s' in %s",
        KT_STR_ARG(name), c->what);
    kt_diag_near(c->draft->diag, name, c->known, c->n, false);
}

static bool check_source_names(kt_model_draft *draft, kt_str name) {
    kt_model_source source = {0};
    if (!kt_model_join(draft, name, &source)) return false;
    name_check c = {.draft = draft, .n = source.constants.n, .ok = true};
    c.known = KT_NEW_ARRAY(draft->arena, kt_str, c.n);
    for (size_t i = 0; i < c.n; i++) c.known[i] = source.constants.at[i].name.text;
    c.what = "a constant";
    for (size_t i = 0; i < c.n; i++) kt_expr_names(source.constants.at[i].expr, check_name, &c);
    c.what = "an index";
    for (size_t i = 0; i < draft->index.n; i++)
        kt_expr_names(draft->index.at[i].expr, check_name, &c);
    c.what = "a requirement";
    for (size_t i = 0; i < draft->require.n; i++)
        kt_expr_names(draft->require.at[i], check_name, &c);
    c.what = "the type of a weight";
    for (size_t i = 0; i < draft->weights.n; i++)
        for (int a = 0; a < draft->weights.at[i].type.rank; a++)
            kt_expr_names(draft->weights.at[i].type.axis[a], check_name, &c);
    c.what = "a row range or the width of a head";
    for (size_t i = 0; i < source.tensors.n; i++)
        for (int k = 0; k < source.tensors.at[i].n_refs; k++) {
            const kt_tensor_ref *ref = &source.tensors.at[i].refs[k];
            if (ref->from) kt_expr_names(ref->from, check_name, &c);
            if (ref->to) kt_expr_names(ref->to, check_name, &c);
            if (ref->interleaved) kt_expr_names(ref->interleaved, check_name, &c);
        }
    return c.ok;
}

static bool check_placeholders(kt_model_draft *draft) {
    bool ok = true;
    kt_str *known = KT_NEW_ARRAY(draft->arena, kt_str, draft->index.n);
    for (size_t i = 0; i < draft->index.n; i++) known[i] = draft->index.at[i].name.text;
    for (size_t i = 0; i < draft->weights.n; i++) {
        const kt_ref *family = &draft->weights.at[i].family;
        kt_str index = kt_model_placeholder(family->text);
        bool found = index.n == 0;
        for (size_t k = 0; k < draft->index.n; k++) found = found || kt_str_eq(known[k], index);
        if (found) continue;
        ok = kt_diag_error(
            draft->diag, KT_RULE_NAME, family->at, "unknown index '$%.*s'", KT_STR_ARG(index));
        kt_diag_near(draft->diag, index, known, draft->index.n, true);
    }
    return ok;
}

bool kt_model_check(kt_arena *arena, const char *path, kt_diag *diag) {
    kt_model_draft draft = {.arena = arena, .diag = diag};
    kt_place nowhere = {0};
    if (!kt_model_read(&draft, kt_arena_copy(arena, path, strlen(path)), nowhere)) return false;
    bool ok = check_placeholders(&draft);
    const kt_model_part *first = &draft.parts.at[0]; // the innermost
    for (int i = 0; i < first->n_sources; i++)
        ok = check_source_names(&draft, first->sources[i].name.text) && ok;
    return ok;
}
