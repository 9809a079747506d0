#include "loader/type.h"

static const char *const host_types[] = {
#define HOST_TYPE_NAME(code, name) name,
    KT_HOST_TYPE_LIST(HOST_TYPE_NAME)
#undef HOST_TYPE_NAME
};

typedef struct parser {
    kt_arena *arena;
    kt_diag *diag;
    const kt_str *vars;
    size_t n_vars;
    kt_type *out;
} parser;

static kt_place part(const parser *p, size_t from, size_t to) {
    return kt_place_part(p->out->at, p->out->text, from, to);
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

typedef struct foreign_row {
    const char *name, *ours;
} foreign_row;

static const foreign_row foreign[] = {
    {"float", "f32"},
    {"float32", "f32"},
    {"fp32", "f32"},
    {"half", "f16"},
    {"float16", "f16"},
    {"fp16", "f16"},
    {"bfloat16", "bf16"},
    {"int", "i32"},
    {"int32", "i32"},
    {"int64", "i64"},
    {"int16", "i16"},
    {"int8", "i8"},
    {"uint8", "u8"},
    {"byte", "u8"},
    {"uint16", "u16"},
    {"uint32", "u32"},
    {"weight", "linear"},
};

static bool unknown_base(const parser *p, kt_str name, kt_place at) {
    kt_diag_error(p->diag, KT_RULE_TYPE, at, "unknown type '%.*s'", KT_STR_ARG(name));
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        if (!kt_str_is(name, foreign[i].name)) continue;
        kt_diag_note(p->diag, "did you mean '%s'?", foreign[i].ours);
        return false;
    }
    size_t n = 0;
    kt_str *known = KT_NEW_ARRAY(p->arena, kt_str, p->n_vars + KT_DTYPE_COUNT + 1);
    for (size_t i = 0; i < p->n_vars; i++) known[n++] = p->vars[i];
    for (int i = 0; i < KT_DTYPE_COUNT; i++) known[n++] = kt_str_from(kt_dtype_name((kt_dtype)i));
    known[n++] = KT_STR("linear");
    kt_diag_near(p->diag, name, known, n, true);
    return false;
}

static bool read_base(parser *p, kt_str name, kt_place at) {
    kt_type *out = p->out;
    for (size_t i = 0; i < p->n_vars; i++) {
        if (!kt_str_eq(name, p->vars[i])) continue;
        out->base = KT_BASE_VAR;
        out->var = p->vars[i];
        return true;
    }
    out->base = KT_BASE_DTYPE;
    if (kt_dtype_find(name, &out->dtype)) return true;
    out->base = KT_BASE_LINEAR;
    if (kt_str_is(name, "linear")) return true;
    out->base = KT_BASE_HOST;
    for (int i = 0; i < KT_HOST_TYPE_COUNT; i++) {
        if (!kt_str_is(name, host_types[i])) continue;
        out->host = (kt_host_type)i;
        return true;
    }
    return unknown_base(p, name, at);
}

static bool add_axis(parser *p, size_t from, size_t to) {
    kt_type *out = p->out;
    kt_str axis = kt_str_slice(out->text, from, to);
    kt_str trimmed = kt_str_trim(axis);
    if (trimmed.n == 0)
        return kt_diag_error(p->diag, KT_RULE_TYPE, part(p, from, to), "an axis is empty");
    size_t start = from + (size_t)(trimmed.at - axis.at);
    kt_place at = part(p, start, start + trimmed.n);
    if (out->rank == KT_MAX_RANK)
        return kt_diag_error(p->diag, KT_RULE_TYPE, at, "a type has at most %d axes", KT_MAX_RANK);
    const kt_expr *expr = kt_expr_parse(p->arena, trimmed, at, p->diag);
    out->axis[out->rank++] = expr;
    return expr != NULL;
}

// text[open] is '['. Sets *end behind the matching ']'.
static bool read_axes(parser *p, size_t open, size_t *end) {
    kt_str text = p->out->text;
    size_t from = open + 1;
    int depth = 0;
    bool ok = true;
    for (size_t i = from; i < text.n; i++) {
        char c = text.at[i];
        depth += c == '(' ? 1 : c == ')' ? -1 : 0;
        bool last = c == ']';
        if (!last && (c != ',' || depth > 0)) continue;
        ok = add_axis(p, from, i) && ok;
        from = i + 1;
        *end = i + 1;
        if (last) return ok;
        if (!ok && p->out->rank == KT_MAX_RANK) return false;
    }
    return kt_diag_error(
        p->diag, KT_RULE_TYPE, part(p, open, open + 1), "this '[' is never closed");
}

static bool check_axes(const parser *p, kt_str base, kt_place at, bool brackets) {
    const kt_type *out = p->out;
    if (out->base == KT_BASE_HOST) {
        if (!brackets) return true;
        return kt_diag_error(p->diag, KT_RULE_TYPE, at, "'%.*s' has no axes", KT_STR_ARG(base));
    }
    if (!brackets) {
        kt_diag_error(p->diag, KT_RULE_TYPE, at, "'%.*s' needs its axes", KT_STR_ARG(base));
        kt_diag_note(p->diag, "write them in brackets: %.*s[n, d]", KT_STR_ARG(base));
        return false;
    }
    if (out->base == KT_BASE_LINEAR && out->rank != 2)
        return kt_diag_error(p->diag, KT_RULE_TYPE, out->at,
            "a linear has two axes, outputs and inputs, got %d", out->rank);
    return true;
}

static bool parse(parser *p) {
    kt_type *out = p->out;
    kt_str text = out->text;
    size_t i = 0;
    if (kt_str_starts(text, KT_STR("each "))) {
        out->each = true;
        for (i = 5; i < text.n && text.at[i] == ' ';) i++;
    }
    size_t from = i;
    while (i < text.n && is_word(text.at[i])) i++;
    kt_str base = kt_str_slice(text, from, i);
    kt_place at = part(p, from, i);
    if (base.n == 0) {
        kt_diag_error(p->diag, KT_RULE_TYPE, at, "'%.*s' is no type", KT_STR_ARG(text));
        kt_diag_note(p->diag, "a type is written f16[n, d], linear[n, k] or f32[n]?");
        return false;
    }
    bool ok = read_base(p, base, at);
    bool brackets = i < text.n && text.at[i] == '[';
    if (brackets) ok = read_axes(p, i, &i) && ok;
    if (ok) ok = check_axes(p, base, at, brackets);
    if (i < text.n && text.at[i] == '?') {
        out->optional = true;
        i++;
    }
    if (!ok || i == text.n) return ok;
    kt_diag_error(p->diag, KT_RULE_TYPE, part(p, i, text.n), "'%.*s' cannot follow a type",
        KT_STR_ARG(kt_str_slice(text, i, text.n)));
    return false;
}

bool kt_type_parse(kt_arena *arena, const kt_node *scalar, const kt_str *vars, size_t n_vars,
    kt_diag *diag, kt_type *out) {
    *out = (kt_type){.at = scalar->at};
    if (scalar->kind != KT_NODE_SCALAR)
        return kt_diag_error(diag, KT_RULE_KEY, scalar->at, "a type is expected here, got %s",
            kt_node_kind_name(scalar));
    if (scalar->text.n > 4096)
        return kt_diag_error(
            diag, KT_RULE_LIMIT, scalar->at, "the type is longer than 4,096 bytes");
    out->text = scalar->text;
    parser p = {arena, diag, vars, n_vars, out};
    return parse(&p);
}
