// Weights of a model file against the stored tensors of a checkpoint, complete both ways.
#include "loader/model_internal.h"

#include "loader/gguf.h"
#include "loader/json.h"

#include <inttypes.h>
#include <string.h>

enum { JSON_BYTES = 1 << 16, SHOWN_UNBOUND = 5 };

// Which rows of a stored tensor a weight takes.
typedef struct claim {
    int weight;
    int64_t from, to; // -1, -1: all
    struct claim *next;
} claim;

typedef struct binder {
    kt_arena *arena;
    kt_diag *diag;
    kt_model *model;
    kt_model_draft *draft;
    const kt_model_source *source;
    const kt_env *env;
    const kt_format *const *formats;
    int n_formats;
    KT_VEC(kt_weight) weights;
    claim **claims;      // by stored tensor
    int64_t layer;       // the value of the family's index
    kt_str architecture; // general.architecture, of GGUF
} binder;

// ---- shapes

// May neighbouring stored axes be read as one?
static bool merges(const int64_t *have, int n_have, const int64_t *want, int n_want) {
    int at = 0;
    for (int i = 0; i < n_want; i++) {
        int64_t n = 1;
        while (at < n_have && n < want[i])
            if (!kt_mul(n, have[at++], &n)) return false;
        if (n != want[i]) return false;
    }
    while (at < n_have)
        if (have[at++] != 1) return false;
    return true;
}

static const char *shape_text(kt_arena *arena, const int64_t *shape, int rank) {
    kt_buf buf = {0};
    kt_buf_printf(&buf, "[");
    for (int i = 0; i < rank; i++) kt_buf_printf(&buf, "%s%" PRId64, i ? ", " : "", shape[i]);
    kt_buf_printf(&buf, "]");
    char *out = kt_arena_copy(arena, buf.at, buf.n);
    kt_buf_deinit(&buf);
    return out;
}

// ---- formats

// Names in a format: n, k and its values; json(key) in the stored text.
typedef struct format_env {
    const kt_format *format;
    const kt_value *values;
    int n_values;
    int64_t n, k;
    const kt_json *json;
    const kt_stored *stored; // what holds it
} format_env;

static bool format_find(const void *ctx, kt_str name, kt_value *out) {
    const format_env *e = ctx;
    if (kt_str_is(name, "n") || kt_str_is(name, "k")) {
        *out = kt_value_int(kt_str_is(name, "n") ? e->n : e->k);
        return true;
    }
    for (int i = 0; i < e->n_values; i++)
        if (kt_str_eq(e->format->values[i].name, name)) {
            *out = e->values[i];
            return true;
        }
    return false;
}

// The member `key` of the object, or with "key.3" item 3 of the list that is its member.
static const kt_json *json_at(const kt_json *object, kt_str key) {
    int64_t i;
    ptrdiff_t dot = kt_str_find_last(key, '.');
    if (dot < 0) return kt_json_find(object, key);
    const kt_json *list = kt_json_find(object, kt_str_slice(key, 0, (size_t)dot));
    bool number = kt_str_to_i64(kt_str_slice(key, (size_t)dot + 1, key.n), &i);
    if (!number || i < 0 || !list || list->kind != KT_JSON_LIST || (size_t)i >= list->n)
        return NULL;
    return &list->as.items[i];
}

static int format_call(const void *ctx, kt_str function, kt_str key, kt_value *out) {
    const format_env *e = ctx;
    if (!kt_str_is(function, "json")) return KT_CALL_UNKNOWN;
    const kt_json *value = json_at(e->json, key);
    int64_t i;
    double r;
    if (kt_json_get_int(value, &i))
        *out = kt_value_int(i);
    else if (kt_json_get_real(value, &r))
        *out = kt_value_real(r);
    else
        return KT_CALL_MISSING;
    return KT_CALL_FOUND;
}

static kt_str stored_name(kt_arena *arena, kt_str pattern, kt_str base) {
    for (size_t i = 0; i + 5 <= pattern.n; i++)
        if (memcmp(pattern.at + i, "$name", 5) == 0)
            return kt_str_from(kt_arena_printf(arena, "%.*s%.*s%.*s", (int)i, pattern.at,
                KT_STR_ARG(base), (int)(pattern.n - i - 5), pattern.at + i + 5));
    return pattern;
}

static bool is_stored(const binder *b, kt_str pattern, kt_str base) {
    return kt_checkpoint_find(&b->model->checkpoint, stored_name(b->arena, pattern, base)) != NULL;
}

// Reports a type of GGUF that no format reads.
static void refuse_type(binder *b, const kt_stored *stored, const kt_weight *w) {
    kt_buf known = {0};
    for (int i = 0; i < b->n_formats; i++) {
        const char *name = kt_gguf_type_name(b->formats[i]->ggml_type);
        if (name) kt_buf_printf(&known, "%s%s", known.n ? ", " : "", name);
    }
    kt_diag_error(b->diag, KT_RULE_WEIGHT, w->at,
        "weight '%.*s': '%.*s' holds %.*s, for which no format is installed", KT_STR_ARG(w->name),
        KT_STR_ARG(stored->name), KT_STR_ARG(stored->type));
    kt_diag_note(b->diag,
        "download the model in another type (F16, BF16%s%s), or add a format with 'when: ggml_type "
        "%d'",
        known.n ? ", " : "", known.n ? known.at : "", stored->ggml_type);
    kt_buf_deinit(&known);
}

// The format of the tensor's type in GGUF; else that whose marks are stored beside it, else the one
// of plain numbers. NULL after reporting.
static const kt_format *find_format(
    binder *b, kt_str base, const kt_stored *stored, const kt_weight *w) {
    const kt_format *plain = NULL;
    bool blocks = stored->ggml_type >= 0 && !kt_dtype_is_float(stored->dtype);
    for (int i = 0; i < b->n_formats; i++) {
        const kt_format *format = b->formats[i];
        if (blocks && format->ggml_type == stored->ggml_type) return format;
        if (format->when.n == 0) plain = format;
        if (kt_str_find(format->when, '$') < 0) continue;
        if (!is_stored(b, format->when, base)) continue;
        bool all = true;
        for (int k = 0; k < format->n_also; k++) all = all && is_stored(b, format->also[k], base);
        if (all) return format;
    }
    if (blocks) {
        refuse_type(b, stored, w);
        return NULL;
    }
    if (!plain)
        kt_diag_error(b->diag, KT_RULE_WEIGHT, w->at, "no format of plain numbers is installed");
    return plain;
}

static void claim_rows(binder *b, const kt_stored *stored, int weight, int64_t from, int64_t to) {
    claim *c = KT_NEW(b->arena, claim);
    claim **list = &b->claims[stored - b->model->checkpoint.stored];
    *c = (claim){weight, from, to, *list};
    *list = c;
}

static kt_status read_json(
    binder *b, kt_str base, format_env *env, int weight, bool *ok, kt_err *err) {
    kt_str name = stored_name(b->arena, env->format->json, base);
    const kt_stored *stored = kt_checkpoint_find(&b->model->checkpoint, name);
    if (!stored)
        return KT_FAIL(err, KT_EMODEL,
            "tensor '%.*s' of format '%.*s' needs '%.*s', which is not in '%s'", KT_STR_ARG(base),
            KT_STR_ARG(env->format->name), KT_STR_ARG(name), b->model->folder);
    if (stored->bytes > JSON_BYTES)
        return KT_FAIL(err, KT_EMODEL,
            "tensor '%.*s' has %" PRId64 " bytes of JSON, at most %d are read", KT_STR_ARG(name),
            stored->bytes, JSON_BYTES);
    char *text = kt_arena_alloc(b->arena, (size_t)stored->bytes + 1);
    KT_TRY(kt_checkpoint_read(&b->model->checkpoint, stored, 0, text, stored->bytes, err));
    kt_json_limits limits = {JSON_BYTES, 8, 1000};
    env->stored = stored;
    const char *file = b->model->checkpoint.files[stored->file].path;
    const char *where = kt_arena_printf(b->arena, "%s: tensor '%.*s'", file, KT_STR_ARG(name));
    kt_str json = {text, (size_t)stored->bytes};
    kt_status status = kt_json_parse(b->arena, json, where, limits, &env->json, err);
    if (status != KT_OK) {
        kt_err_note(err, "the file is damaged; download it again");
        return status;
    }
    claim_rows(b, stored, weight, -1, -1);
    *ok = true;
    return KT_OK;
}

// Says where a tensor of the message is.
static void note_file(binder *b, const kt_stored *stored) {
    kt_diag_note(b->diag, "tensor '%.*s' is in '%s'", KT_STR_ARG(stored->name),
        b->model->checkpoint.files[stored->file].path);
}

static bool part_dtype(binder *b, const kt_format *format, const kt_format_part *part,
    const kt_stored *stored, kt_weight *w) {
    if (part->type.base == KT_BASE_DTYPE && part->type.dtype == stored->dtype) return true;
    if (part->type.base == KT_BASE_VAR)
        for (int v = 0; v < format->n_typevars; v++) {
            if (!kt_str_eq(format->typevars[v], part->type.var)) continue;
            for (int i = 0; i < format->n_typevar_choices[v]; i++)
                if (format->typevar_choices[v][i] == stored->dtype) {
                    w->part_types[v] = stored->dtype;
                    return true;
                }
        }
    kt_diag_error(b->diag, KT_RULE_WEIGHT, w->at,
        "weight '%.*s': tensor '%.*s' holds %s, part '%.*s' of format '%.*s' is %.*s",
        KT_STR_ARG(w->name), KT_STR_ARG(stored->name), kt_dtype_name(stored->dtype),
        KT_STR_ARG(part->name), KT_STR_ARG(format->name), KT_STR_ARG(part->type.text));
    note_file(b, stored);
    kt_diag_note_at(b->diag, part->at, "the part is declared");
    return false;
}

// The parts of a weight that is stored whole in a format of more than plain numbers.
static bool bind_parts(binder *b, kt_str base, kt_weight *w, const format_env *fe, int index) {
    const kt_format *format = w->format;
    kt_env env = {.ctx = fe, .find = format_find, .call = format_call};
    const kt_stored **parts = KT_NEW_ARRAY(b->arena, const kt_stored *, format->n_parts);
    for (int i = 0; i < format->n_parts; i++) {
        const kt_format_part *part = &format->parts[i];
        kt_str name = stored_name(b->arena, part->tensor, base);
        const kt_stored *stored = kt_checkpoint_find(&b->model->checkpoint, name);
        if (!stored) {
            kt_diag_error(b->diag, KT_RULE_WEIGHT, w->at,
                "weight '%.*s' is stored as '%.*s', but its part '%.*s' is not in the checkpoint",
                KT_STR_ARG(w->name), KT_STR_ARG(format->name), KT_STR_ARG(name));
            note_file(b, kt_checkpoint_find(&b->model->checkpoint, base));
            return false;
        }
        int64_t want[KT_MAX_RANK] = {0};
        for (int a = 0; a < part->type.rank; a++)
            if (!kt_expr_eval_int(
                    part->type.axis[a], &env, "a part of a format", b->diag, &want[a]))
                return false;
        if (!part_dtype(b, format, part, stored, w)) return false;
        if (!merges(stored->shape, stored->rank, want, part->type.rank)) {
            kt_diag_error(b->diag, KT_RULE_SHAPE, w->at,
                "weight '%.*s': part '%.*s' is %s, '%.*s' is %s", KT_STR_ARG(w->name),
                KT_STR_ARG(part->name), shape_text(b->arena, want, part->type.rank),
                KT_STR_ARG(name), shape_text(b->arena, stored->shape, stored->rank));
            note_file(b, stored);
            kt_diag_note(b->diag, "linear%s in format '%.*s'", shape_text(b->arena, w->shape, 2),
                KT_STR_ARG(format->name));
            return false;
        }
        parts[i] = stored;
        claim_rows(b, stored, index, -1, -1);
    }
    w->parts = parts;
    return true;
}

static bool bind_format(binder *b, kt_str base, kt_weight *w, const kt_tensor_ref *ref, int index,
    kt_status *status, kt_err *err) {
    const kt_format *format = w->format;
    if (ref->from || ref->transposed)
        return kt_diag_error(b->diag, KT_RULE_WEIGHT, ref->at,
            "'%.*s' is stored as '%.*s': only plain numbers can be split or transposed",
            KT_STR_ARG(base), KT_STR_ARG(format->name));
    format_env fe = {.format = format, .n = w->shape[0], .k = w->shape[1]};
    kt_env env = {.ctx = &fe, .find = format_find, .call = format_call};
    bool ok = true;
    if (format->json.n) *status = read_json(b, base, &fe, index, &ok, err);
    if (*status != KT_OK) return false;
    kt_value *values = KT_NEW_ARRAY(b->arena, kt_value, format->n_values);
    fe.values = values;
    for (int i = 0; ok && i < format->n_values; i++) {
        ok = kt_expr_eval(format->values[i].expr, &env, "a value of a format", b->diag, &values[i]);
        if (!ok && fe.stored) note_file(b, fe.stored);
        fe.n_values = i + 1;
    }
    for (int i = 0; ok && i < format->n_require; i++) {
        kt_value holds;
        ok = kt_expr_eval(format->require[i], &env, "a requirement", b->diag, &holds);
        if (!ok || holds.r != 0) continue;
        kt_str text = kt_expr_text(format->require[i]);
        ok = kt_diag_error(b->diag, KT_RULE_REQUIRE, kt_expr_at(format->require[i]),
            "format '%.*s' requires %.*s, which '%.*s' breaks", KT_STR_ARG(format->name),
            KT_STR_ARG(text), KT_STR_ARG(base));
        if (fe.stored) note_file(b, fe.stored);
        kt_diag_note_at(b->diag, w->at, "weight '%.*s'", KT_STR_ARG(w->name));
    }
    w->values = values;
    return ok && bind_parts(b, base, w, &fe, index);
}

// ---- plain numbers and vectors

// The rows [from, to) that the weight takes; false after reporting.
static bool row_range(binder *b, const kt_tensor_ref *ref, const kt_stored *stored, kt_weight *w) {
    w->row_from = w->row_to = -1;
    if (!ref->from) return true;
    if (!kt_expr_eval_int(ref->from, b->env, "a row range", b->diag, &w->row_from) ||
        !kt_expr_eval_int(ref->to, b->env, "a row range", b->diag, &w->row_to))
        return false;
    int64_t rows = stored->rank ? stored->shape[0] : 1;
    if (0 <= w->row_from && w->row_from < w->row_to && w->row_to <= rows) return true;
    return kt_diag_error(b->diag, KT_RULE_WEIGHT, ref->at,
        "rows %" PRId64 " .. %" PRId64 " of '%.*s', which has %" PRId64, w->row_from, w->row_to,
        KT_STR_ARG(stored->name), rows);
}

static bool bind_plain(
    binder *b, const kt_stored *stored, const kt_tensor_ref *ref, kt_weight *w, int index) {
    int64_t have[KT_MAX_RANK], turned[KT_MAX_RANK];
    int rank = stored->rank;
    if (!row_range(b, ref, stored, w)) return false;
    memcpy(have, stored->shape, sizeof have);
    if (w->row_from >= 0) have[0] = w->row_to - w->row_from;
    for (int i = 0; i < rank; i++) turned[i] = have[rank - 1 - i];
    if (ref->transposed) memcpy(have, turned, sizeof have);
    w->transposed = ref->transposed;
    if (!merges(have, rank, w->shape, w->rank)) {
        for (int i = 0; i < rank; i++) turned[i] = have[rank - 1 - i];
        bool swapped =
            rank == w->rank && memcmp(turned, w->shape, (size_t)rank * sizeof *have) == 0;
        kt_diag_error(b->diag, KT_RULE_SHAPE, w->at, "weight '%.*s' is %s%s, '%.*s' is %s%s",
            KT_STR_ARG(w->name), w->linear ? "linear" : "f32",
            shape_text(b->arena, w->shape, w->rank), KT_STR_ARG(stored->name),
            shape_text(b->arena, have, rank), swapped ? "; its two axes look swapped" : "");
        note_file(b, stored);
        kt_diag_note_at(b->diag, ref->at, "the tensor is named");
        return false;
    }
    if (!kt_dtype_is_float(stored->dtype)) {
        kt_str type =
            stored->ggml_type < 0 ? kt_str_from(kt_dtype_name(stored->dtype)) : stored->type;
        kt_diag_error(b->diag, KT_RULE_WEIGHT, w->at,
            "weight '%.*s': '%.*s' holds %.*s, expected f32, f16 or bf16", KT_STR_ARG(w->name),
            KT_STR_ARG(stored->name), KT_STR_ARG(type));
        note_file(b, stored);
        return false;
    }
    const kt_stored **parts = KT_NEW_ARRAY(b->arena, const kt_stored *, 1);
    parts[0] = stored;
    w->parts = parts;
    const kt_format *format = w->format; // NULL: a vector
    if (format) {
        if (format->n_parts != 1 || !part_dtype(b, format, &format->parts[0], stored, w))
            return format->n_parts == 1
                       ? false
                       : kt_diag_error(b->diag, KT_RULE_WEIGHT, w->at,
                             "the format of plain numbers has %d parts", format->n_parts);
    }
    claim_rows(b, stored, index, w->row_from, w->row_to);
    return true;
}

// ---- one weight

// Can the tensor be the weight, by its shape? Rows and blocks that are not understood always can.
static bool fits(const kt_stored *stored, const kt_tensor_ref *ref, const kt_weight *w) {
    int64_t have[KT_MAX_RANK], turned[KT_MAX_RANK];
    int rank = stored->rank;
    memcpy(have, stored->shape, sizeof have);
    if (ref->from || rank == 0) return true;
    if (!kt_dtype_is_float(stored->dtype)) {
        if (stored->ggml_type < 0 || rank < 2) return true;
        rank--; // bytes of a block
        if (!kt_mul(have[rank - 1], kt_gguf_type_block(stored->ggml_type), &have[rank - 1]))
            return false;
    }
    for (int i = 0; i < rank; i++) turned[i] = have[rank - 1 - i];
    return merges(ref->transposed ? turned : have, rank, w->shape, w->rank);
}

// Of the alternatives, with each prefix tried, the first that exists and fits, else the first that
// exists. `base` gets the full name.
static const kt_tensor_ref *find_ref(binder *b, const kt_tensors_decl *decl, kt_str index,
    int64_t at, const kt_weight *w, kt_str *base) {
    static const kt_str none = {"", 0};
    const kt_str *prefix = b->source->prefix ? b->source->prefix : &none;
    int n_prefix = b->source->prefix ? b->source->n_prefix : 1;
    const kt_tensor_ref *first = NULL;
    for (int i = 0; i < decl->n_refs; i++)
        for (int p = 0; p < n_prefix; p++) {
            bool found;
            kt_str name = kt_model_subst(b->arena, decl->refs[i].name, index, at, &found);
            kt_str full = kt_str_from(
                kt_arena_printf(b->arena, "%.*s%.*s", KT_STR_ARG(prefix[p]), KT_STR_ARG(name)));
            const kt_stored *stored = kt_checkpoint_find(&b->model->checkpoint, full);
            bool good = stored && fits(stored, &decl->refs[i], w);
            if (!stored || (first && !good)) continue;
            first = &decl->refs[i];
            *base = full;
            if (good) return first;
        }
    return first;
}

// Is `word` one of the words of `list`?
static bool has_word(kt_str list, kt_str word) {
    while (list.n > 0) {
        ptrdiff_t space = kt_str_find(list, ' ');
        size_t end = space < 0 ? list.n : (size_t)space;
        if (kt_str_eq(kt_str_slice(list, 0, end), word)) return true;
        list = kt_str_trim(kt_str_slice(list, end, list.n));
    }
    return false;
}

// Rows that the model's architecture stores in another order.
static bool bind_interleave(binder *b, const kt_tensor_ref *ref, kt_weight *w) {
    int64_t hd;
    w->interleave = 0;
    if (!ref->interleaved) return true;
    if (ref->architectures.n > 0 && !has_word(ref->architectures, b->architecture)) return true;
    if (!kt_expr_eval_int(ref->interleaved, b->env, "the width of a head", b->diag, &hd))
        return false;
    if (hd < 2 || hd % 2 != 0 || w->shape[0] % hd != 0)
        return kt_diag_error(b->diag, KT_RULE_SHAPE, ref->at,
            "weight '%.*s' has %" PRId64 " rows, which are no heads of an even width %" PRId64,
            KT_STR_ARG(w->name), w->shape[0], hd);
    w->interleave = hd;
    if (!w->format || w->format->n_parts == 1) return true;
    return kt_diag_error(b->diag, KT_RULE_WEIGHT, ref->at,
        "weight '%.*s' is stored as '%.*s': only rows in one part can be interleaved",
        KT_STR_ARG(w->name), KT_STR_ARG(w->format->name));
}

// A stored tensor belongs to one weight, unless rows divide it or a list of names led here.
static bool check_claims(binder *b, const kt_stored *stored, const kt_tensors_decl *decl,
    const kt_tensor_ref *ref, int index) {
    const kt_weight *w = &b->weights.at[index];
    if (decl->n_refs > 1 && ref != &decl->refs[0]) return true;
    for (const claim *c = b->claims[stored - b->model->checkpoint.stored]; c; c = c->next) {
        bool apart =
            w->row_from >= 0 && c->from >= 0 && (w->row_to <= c->from || w->row_from >= c->to);
        if (c->weight == index || apart) continue;
        kt_diag_error(b->diag, KT_RULE_WEIGHT, ref->at,
            "tensor '%.*s' is bound twice, to '%.*s' and to '%.*s'", KT_STR_ARG(stored->name),
            KT_STR_ARG(b->weights.at[c->weight].name), KT_STR_ARG(w->name));
        return false;
    }
    return true;
}

static bool report_missing(
    binder *b, const kt_tensors_decl *decl, const kt_weight *w, kt_str index, int64_t at) {
    bool found;
    const kt_checkpoint *checkpoint = &b->model->checkpoint;
    kt_str name = kt_model_subst(b->arena, decl->refs[0].name, index, at, &found);
    kt_diag_error(b->diag, KT_RULE_WEIGHT, decl->refs[0].at,
        "weight '%.*s': no tensor '%.*s' in the checkpoint", KT_STR_ARG(w->name), KT_STR_ARG(name));
    kt_str *known = KT_NEW_ARRAY(b->arena, kt_str, checkpoint->n_stored);
    for (int64_t i = 0; i < checkpoint->n_stored; i++) known[i] = checkpoint->stored[i].name;
    kt_diag_near(b->diag, name, known, (size_t)checkpoint->n_stored, false);
    kt_diag_note(b->diag, "the checkpoint is '%s'", b->model->folder);
    return false;
}

static bool bind_weight(binder *b, const kt_weight_decl *decl, const kt_tensors_decl *tensors,
    const kt_weight *shape, kt_status *status, kt_err *err) {
    kt_weight w = *shape;
    kt_str base;
    kt_str index = kt_model_placeholder(decl->family.text);
    int64_t at = b->layer;
    w.row_from = w.row_to = -1;
    const kt_tensor_ref *ref = find_ref(b, tensors, index, at, &w, &base);
    if (!ref) return decl->type.optional || report_missing(b, tensors, &w, index, at);
    const kt_stored *stored = kt_checkpoint_find(&b->model->checkpoint, base);
    bool ok;
    KT_PUSH(b->arena, &b->weights, w);
    int mine = (int)b->weights.n - 1;
    kt_weight *out = &b->weights.at[mine];
    out->format = w.linear ? find_format(b, base, stored, out) : NULL;
    if (w.linear && !out->format) return false;
    if (!bind_interleave(b, ref, out)) return false;
    if (w.linear) out->part_types = KT_NEW_ARRAY(b->arena, kt_dtype, out->format->n_typevars);
    ok = w.linear && out->format->when.n ? bind_format(b, base, out, ref, mine, status, err)
                                         : bind_plain(b, stored, ref, out, mine);
    KT_ASSERT(w.shape[0] > 0); // bind_family
    if (ok && out->interleave > 0 && stored->bytes % w.shape[0] != 0)
        ok = kt_diag_error(b->diag, KT_RULE_WEIGHT, ref->at,
            "rows of '%.*s' are no whole bytes, and cannot be interleaved", KT_STR_ARG(base));
    return ok && check_claims(b, stored, tensors, ref, mine);
}

static const kt_tensors_decl *find_tensors(const binder *b, kt_str family) {
    for (size_t i = 0; i < b->source->tensors.n; i++)
        if (kt_str_eq(b->source->tensors.at[i].family.text, family))
            return &b->source->tensors.at[i];
    return NULL;
}

// All weights of one family, up to the first mistake.
static bool bind_family(binder *b, const kt_weight_decl *decl, kt_status *status, kt_err *err) {
    kt_str index = kt_model_placeholder(decl->family.text);
    int64_t count = 1;
    if (index.n) {
        int found = -1;
        for (int i = 0; i < b->model->n_indexes; i++)
            if (kt_str_eq(b->model->index_names[i], index)) found = i;
        if (found < 0) {
            kt_diag_error(
                b->diag, KT_RULE_NAME, decl->family.at, "unknown index '$%.*s'", KT_STR_ARG(index));
            kt_diag_near(b->diag, index, b->model->index_names, (size_t)b->model->n_indexes, true);
            return false;
        }
        count = b->model->index_counts[found];
    }
    kt_weight w = {.at = decl->family.at, .linear = decl->type.base == KT_BASE_LINEAR};
    w.rank = decl->type.rank;
    for (int i = 0; i < w.rank; i++) {
        if (!kt_expr_eval_int(
                decl->type.axis[i], b->env, "the type of a weight", b->diag, &w.shape[i]))
            return false;
        if (w.shape[i] < 1)
            return kt_diag_error(b->diag, KT_RULE_SHAPE, kt_expr_at(decl->type.axis[i]),
                "an axis of weight '%.*s' is %" PRId64, KT_STR_ARG(decl->family.text), w.shape[i]);
    }
    const kt_tensors_decl *tensors = find_tensors(b, decl->family.text);
    KT_ASSERT(tensors);
    for (int64_t i = 0; i < count; i++) {
        bool found;
        w.name = kt_model_subst(b->arena, decl->family.text, index, i, &found);
        b->layer = i;
        if (!bind_weight(b, decl, tensors, &w, status, err)) return false;
    }
    return true;
}

// ---- stored tensors that nobody took

static bool ignored(const binder *b, kt_str name) {
    static const kt_str none = {"", 0};
    const kt_str *prefix = b->source->prefix ? b->source->prefix : &none;
    int n_prefix = b->source->prefix ? b->source->n_prefix : 1;
    for (size_t i = 0; i < b->source->ignore.n; i++)
        for (int p = 0; p < n_prefix; p++)
            if (kt_str_starts(name, prefix[p]) &&
                kt_str_match(b->source->ignore.at[i].text, kt_str_slice(name, prefix[p].n, name.n)))
                return true;
    return false;
}

static void check_stored(binder *b) {
    const kt_checkpoint *checkpoint = &b->model->checkpoint;
    int unbound = 0;
    for (int64_t i = 0; i < checkpoint->n_stored; i++) {
        const kt_stored *stored = &checkpoint->stored[i];
        int64_t rows = 0;
        bool split = b->claims[i] != NULL;
        for (const claim *c = b->claims[i]; c; c = c->next) {
            split = split && c->from >= 0;
            rows += c->to - c->from;
        }
        if (split && rows < stored->shape[0])
            kt_diag_error(b->diag, KT_RULE_WEIGHT, b->source->name.at,
                "rows of '%.*s' are bound in part only: %" PRId64 " of %" PRId64,
                KT_STR_ARG(stored->name), rows, stored->shape[0]);
        if (b->claims[i] || ignored(b, stored->name)) continue;
        if (unbound++ >= SHOWN_UNBOUND) continue;
        kt_diag_error(b->diag, KT_RULE_WEIGHT, b->source->name.at,
            "tensor '%.*s' is bound by no weight and not ignored", KT_STR_ARG(stored->name));
        note_file(b, stored);
    }
    if (unbound > SHOWN_UNBOUND)
        kt_diag_note(b->diag, "and %d more tensors", unbound - SHOWN_UNBOUND);
}

kt_status kt_model_bind(kt_model *model, kt_model_draft *draft, const kt_model_source *source,
    const kt_registry *registry, const kt_env *env, kt_err *err) {
    binder b = {.arena = draft->arena, .diag = draft->diag, .model = model, .draft = draft};
    b.source = source;
    b.env = env;
    b.n_formats = kt_registry_formats(registry, &b.formats);
    if (!model->config ||
        !kt_config_text(model->config, KT_STR("general.architecture"), &b.architecture))
        b.architecture = (kt_str){"", 0};
    b.claims = KT_NEW_ARRAY(b.arena, claim *, model->checkpoint.n_stored);
    bool ok = true;
    for (size_t i = 0; i < draft->weights.n; i++) {
        kt_status status = KT_OK;
        ok = bind_family(&b, &draft->weights.at[i], &status, err) && ok;
        KT_TRY(status);
    }
    if (ok) check_stored(&b);
    model->weights = b.weights.at;
    model->n_weights = (int)b.weights.n;
    kt_table_init(&model->by_name, model->arena);
    for (int i = 0; i < model->n_weights; i++)
        kt_table_set(&model->by_name, model->weights[i].name, i);
    return KT_OK;
}
