#include "loader/expr.h"

#include "loader/expr_tree.h"

#include <stdio.h>
#include <string.h>

enum {
    MAX_BYTES = 4096,
    MAX_DEPTH = 64,  // of brackets
    MAX_HEIGHT = 256 // of the tree: the terms of a sum stand on top of each other
};

typedef struct operator_row {
    const char *text;
    kt_code op;
} operator_row;

typedef struct function_row {
    const char *name;
    kt_code op;
    int least, most; // arguments
} function_row;

static const function_row functions[] = {
    {"ceil_div", KT_CODE_CEIL_DIV, 2, 2},
    {"align_up", KT_CODE_ALIGN_UP, 2, 2},
    {"min", KT_CODE_MIN, 2, 16},
    {"max", KT_CODE_MAX, 2, 16},
    {"sqrt", KT_CODE_SQRT, 1, 1},
    {"select", KT_CODE_SELECT, 3, 3},
    {"not", KT_CODE_NOT, 1, 1},
    {"isqrt", KT_CODE_ISQRT, 1, 1},
};
enum { N_FUNCTIONS = sizeof functions / sizeof functions[0] };

static const char *const lookups[] = {"config", "preprocessor", "json", "rows"};
enum { N_LOOKUPS = sizeof lookups / sizeof lookups[0] };

// ---- tokens

typedef enum token_kind { TOKEN_END, TOKEN_NUMBER, TOKEN_NAME, TOKEN_SIGN } token_kind;

typedef struct token {
    token_kind kind;
    kt_str text;
    size_t from, to;
} token;

typedef struct parser {
    kt_arena *arena;
    kt_diag *diag;
    kt_str text;
    kt_place at;
    token now;
    int depth;
    bool failed;
    KT_VEC(kt_term) terms;
} parser;

typedef struct foreign_row {
    const char *text, *message;
} foreign_row;

// What authors bring from other languages.
static const foreign_row foreign[] = {
    {"?", "there is no '?:' here: write select(condition, a, b)"},
    {"!", "write not(x)"},
    {"&&", "write 'and'"},
    {"||", "write 'or'"},
    {"=", "write '=='"},
    {"^", "there is no power here: multiply"},
    {"[", "an expression has no brackets but ( )"},
    {"{", "a placeholder is written $x"},
    {"\"", "there are no texts here"},
    {"'", "there are no texts here"},
};

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c) || c == '$';
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static kt_place part(const parser *p, size_t from, size_t to) {
    return kt_place_part(p->at, p->text, from, to);
}

static size_t scan_number(kt_str s, size_t i) {
    while (i < s.n && is_digit(s.at[i])) i++;
    if (i < s.n && s.at[i] == '.') {
        for (i++; i < s.n && is_digit(s.at[i]);) i++;
    }
    if (i >= s.n || (s.at[i] != 'e' && s.at[i] != 'E')) return i;
    size_t digits = i + 1;
    if (digits < s.n && (s.at[digits] == '-' || s.at[digits] == '+')) digits++;
    if (digits >= s.n || !is_digit(s.at[digits])) return i;
    while (digits < s.n && is_digit(s.at[digits])) digits++;
    return digits;
}

static size_t scan_name(kt_str s, size_t i) {
    while (i < s.n && (is_word(s.at[i]) || (s.at[i] == '.' && i + 1 < s.n && is_word(s.at[i + 1]))))
        i++;
    return i;
}

static size_t scan_sign(kt_str s, size_t i) {
    static const char *const twos[] = {"==", "!=", "<=", ">="};
    for (size_t k = 0; k < 4; k++) {
        if (kt_str_starts(kt_str_slice(s, i, s.n), kt_str_from(twos[k]))) return i + 2;
    }
    return strchr("+-*/%<>(),", s.at[i]) != NULL ? i + 1 : i;
}

static void refuse_character(parser *p, size_t i) {
    p->failed = true;
    kt_str rest = kt_str_slice(p->text, i, p->text.n);
    size_t n = 1;
    while (n < rest.n && ((unsigned char)rest.at[n] & 0xc0U) == 0x80U) n++;
    const char *help = NULL;
    for (size_t k = 0; k < sizeof foreign / sizeof foreign[0] && help == NULL; k++) {
        if (!kt_str_starts(rest, kt_str_from(foreign[k].text))) continue;
        help = foreign[k].message;
        n = strlen(foreign[k].text);
    }
    kt_diag_error(p->diag, KT_RULE_EXPR, part(p, i, i + n), "'%.*s' cannot stand in an expression",
        (int)n, rest.at);
    if (help != NULL) kt_diag_note(p->diag, "%s", help);
}

static void next(parser *p) {
    kt_str s = p->text;
    size_t i = p->now.to;
    while (i < s.n && is_blank(s.at[i])) i++;
    p->now = (token){TOKEN_END, {s.at + i, 0}, i, i};
    if (i == s.n || p->failed) return;
    size_t to;
    if (is_digit(s.at[i])) {
        p->now.kind = TOKEN_NUMBER;
        to = scan_number(s, i);
    } else if (is_word(s.at[i])) {
        p->now.kind = TOKEN_NAME;
        to = scan_name(s, i);
    } else {
        p->now.kind = TOKEN_SIGN;
        to = scan_sign(s, i);
        if (to == i) {
            p->now.kind = TOKEN_END;
            refuse_character(p, i);
            return;
        }
    }
    p->now.to = to;
    p->now.text = kt_str_slice(s, i, to);
}

static bool at_word(const parser *p, const char *word) {
    return !p->failed && (p->now.kind == TOKEN_SIGN || p->now.kind == TOKEN_NAME) &&
           kt_str_is(p->now.text, word);
}

static bool take(parser *p, const char *word) {
    if (!at_word(p, word)) return false;
    next(p);
    return true;
}

// ---- parsing

static int fail(parser *p, kt_rule rule, size_t from, size_t to, const char *message) {
    if (!p->failed) kt_diag_error(p->diag, rule, part(p, from, to), "%s", message);
    p->failed = true;
    return -1;
}

static int add_term(parser *p, kt_term t) {
    if (p->failed) return -1;
    for (int i = 0; i < 3; i++) {
        if (t.arg[i] < 0) continue;
        const kt_term *child = &p->terms.at[t.arg[i]];
        if (child->height >= t.height) t.height = child->height + 1;
        if (child->from < t.from) t.from = child->from;
        if (child->to > t.to) t.to = child->to;
    }
    if (t.height > MAX_HEIGHT)
        return fail(p, KT_RULE_LIMIT, t.from, t.to, "the expression has too many terms");
    KT_PUSH(p->arena, &p->terms, t);
    return (int)p->terms.n - 1;
}

static int add_two(parser *p, kt_code op, int a, int b) {
    if (p->failed) return -1;
    return add_term(
        p, (kt_term){
               .op = op, .arg = {a, b, -1}, .from = p->terms.at[a].from, .to = p->terms.at[b].to});
}

static int parse_else(parser *p);

static int parse_number(parser *p) {
    token t = p->now;
    kt_term out = {.op = KT_CODE_NUMBER, .arg = {-1, -1, -1}, .from = t.from, .to = t.to};
    bool whole = true;
    for (size_t i = 0; i < t.text.n; i++) whole = whole && is_digit(t.text.at[i]);
    double real;
    if (whole && kt_str_to_i64(t.text, &out.value.i)) {
        out.value = kt_value_int(out.value.i);
    } else if (!whole && kt_str_to_f64(t.text, &real)) {
        out.value = kt_value_real(real);
    } else {
        return fail(p, KT_RULE_EXPR, t.from, t.to, "the number does not fit in 64 bits");
    }
    next(p);
    if (p->now.kind == TOKEN_NAME && p->now.from == t.to)
        return fail(p, KT_RULE_EXPR, t.from, p->now.to, "a name does not start with a digit");
    return add_term(p, out);
}

static void near_functions(parser *p, kt_str name) {
    kt_str known[N_FUNCTIONS + N_LOOKUPS];
    for (size_t i = 0; i < N_FUNCTIONS; i++) known[i] = kt_str_from(functions[i].name);
    for (size_t i = 0; i < N_LOOKUPS; i++) known[N_FUNCTIONS + i] = kt_str_from(lookups[i]);
    kt_diag_near(p->diag, name, known, N_FUNCTIONS + N_LOOKUPS, true);
}

static int want_close(parser *p, size_t open) {
    if (take(p, ")")) return 0;
    if (p->failed) return -1;
    if (p->now.kind == TOKEN_END)
        return fail(p, KT_RULE_EXPR, open, open + 1, "this '(' is never closed");
    return fail(p, KT_RULE_EXPR, p->now.from, p->now.to, "',' or ')' is expected here");
}

// After "config(": one key.
static int parse_lookup(parser *p, token name, size_t open) {
    token key = p->now;
    if (key.kind != TOKEN_NAME)
        return fail(p, KT_RULE_EXPR, key.from, key.to, "the name of a key is expected here");
    next(p);
    size_t to = p->now.to;
    if (want_close(p, open) < 0) return -1;
    return add_term(p, (kt_term){.op = KT_CODE_CALL,
                           .arg = {-1, -1, -1},
                           .from = name.from,
                           .to = to,
                           .name = name.text,
                           .key = key.text});
}

// min and max of several are folded from the left.
static int join_arguments(
    parser *p, const function_row *row, const int *args, int n, kt_term base) {
    base.op = row->op;
    if (row->most == row->least) {
        for (int i = 0; i < 3; i++) base.arg[i] = i < n ? args[i] : -1;
        return add_term(p, base);
    }
    int at = args[0];
    for (int i = 1; i < n && at >= 0; i++) {
        base.arg[0] = at;
        base.arg[1] = args[i];
        base.arg[2] = -1;
        at = add_term(p, base);
    }
    return at;
}

static int parse_call(parser *p, token name, size_t open) {
    for (size_t i = 0; i < N_LOOKUPS; i++) {
        if (kt_str_is(name.text, lookups[i])) return parse_lookup(p, name, open);
    }
    const function_row *row = NULL;
    for (size_t i = 0; i < N_FUNCTIONS; i++) {
        if (kt_str_is(name.text, functions[i].name)) row = &functions[i];
    }
    if (row == NULL) {
        p->failed = true;
        kt_diag_error(p->diag, KT_RULE_EXPR, part(p, name.from, name.to), "unknown function '%.*s'",
            KT_STR_ARG(name.text));
        near_functions(p, name.text);
        return -1;
    }
    int args[16], n = 0;
    do {
        int at = parse_else(p);
        if (at < 0) return -1;
        if (n < 16) args[n] = at;
        n++;
    } while (take(p, ","));
    size_t to = p->now.to;
    if (want_close(p, open) < 0) return -1;
    if (n < row->least || n > row->most) {
        p->failed = true;
        kt_diag_error(p->diag, KT_RULE_EXPR, part(p, name.from, to),
            "'%s' takes %d argument%s%s, got %d", row->name, row->least, row->least == 1 ? "" : "s",
            row->most > row->least ? " or more" : "", n);
        return -1;
    }
    return join_arguments(p, row, args, n, (kt_term){.from = name.from, .to = to});
}

static int parse_name(parser *p) {
    token name = p->now;
    static const char *const reserved[] = {"and", "or", "else"};
    for (size_t i = 0; i < 3; i++) {
        if (at_word(p, reserved[i]))
            return fail(p, KT_RULE_EXPR, name.from, name.to, "a value is missing before this word");
    }
    next(p);
    size_t open = p->now.from;
    if (take(p, "(")) return parse_call(p, name, open);
    if (kt_str_is(name.text, "not"))
        return fail(p, KT_RULE_EXPR, name.from, name.to, "'not' takes brackets: not(x)");
    return add_term(p, (kt_term){.op = KT_CODE_NAME,
                           .arg = {-1, -1, -1},
                           .from = name.from,
                           .to = name.to,
                           .name = name.text});
}

static int parse_unsigned(parser *p) {
    token t = p->now;
    if (p->failed) return -1;
    if (t.kind == TOKEN_NUMBER) return parse_number(p);
    if (t.kind == TOKEN_NAME) return parse_name(p);
    if (take(p, "(")) {
        int at = parse_else(p);
        if (at < 0 || want_close(p, t.from) < 0) return -1;
        return at;
    }
    return fail(p, KT_RULE_EXPR, t.from, t.to,
        t.kind == TOKEN_END ? "a value is missing at the end"
                            : "a value is missing before this sign");
}

static int parse_unit(parser *p) {
    size_t from = p->now.from;
    if (!take(p, "-")) return parse_unsigned(p);
    if (at_word(p, "-"))
        return fail(p, KT_RULE_EXPR, p->now.from, p->now.to, "two minus signs in a row");
    int at = parse_unsigned(p);
    if (at < 0) return -1;
    return add_term(
        p, (kt_term){
               .op = KT_CODE_NEGATE, .arg = {at, -1, -1}, .from = from, .to = p->terms.at[at].to});
}

static bool take_operator(parser *p, const operator_row *rows, size_t n, kt_code *op) {
    for (size_t i = 0; i < n; i++) {
        if (!take(p, rows[i].text)) continue;
        *op = rows[i].op;
        return true;
    }
    return false;
}

static const operator_row products[] = {
    {"*", KT_CODE_MULTIPLY}, {"/", KT_CODE_DIVIDE}, {"%", KT_CODE_MODULO}};
static const operator_row sums[] = {{"+", KT_CODE_ADD}, {"-", KT_CODE_SUBTRACT}};
static const operator_row comparisons[] = {{"==", KT_CODE_EQUAL}, {"!=", KT_CODE_UNEQUAL},
    {"<=", KT_CODE_LESS_EQUAL}, {">=", KT_CODE_GREATER_EQUAL}, {"<", KT_CODE_LESS},
    {">", KT_CODE_GREATER}};
static const operator_row ands[] = {{"and", KT_CODE_AND}};
static const operator_row ors[] = {{"or", KT_CODE_OR}};

typedef struct level {
    const operator_row *rows;
    size_t n;
    bool chain; // a - b - c
} level;

// From the weakest to the strongest.
static const level levels[] = {
    {ors, 1, true}, {ands, 1, true}, {comparisons, 6, false}, {sums, 2, true}, {products, 3, true}};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

static int parse_level(parser *p, size_t at_level) {
    if (at_level == N_LEVELS) return parse_unit(p);
    const level *l = &levels[at_level];
    int a = parse_level(p, at_level + 1);
    kt_code op;
    bool again = false;
    while (a >= 0) {
        token sign = p->now;
        if (!take_operator(p, l->rows, l->n, &op)) break;
        if (again && !l->chain)
            return fail(p, KT_RULE_EXPR, sign.from, sign.to,
                "comparisons cannot be chained: join two with 'and'");
        int b = parse_level(p, at_level + 1);
        if (b < 0) return -1;
        a = add_two(p, op, a, b);
        again = true;
    }
    return a;
}

static int parse_else(parser *p) {
    int depth = p->depth;
    if (++p->depth > MAX_DEPTH)
        return fail(
            p, KT_RULE_LIMIT, p->now.from, p->now.to, "the expression is nested deeper than 64");
    int a = parse_level(p, 0);
    if (a >= 0 && take(p, "else")) {
        int b = parse_else(p);
        a = b < 0 ? -1 : add_two(p, KT_CODE_ELSE, a, b);
    }
    p->depth = depth;
    return a;
}

const kt_expr *kt_expr_parse(kt_arena *arena, kt_str text, kt_place at, kt_diag *diag) {
    parser p = {.arena = arena, .diag = diag, .text = text, .at = at};
    if (text.n > MAX_BYTES) {
        kt_diag_error(diag, KT_RULE_LIMIT, at, "the expression is longer than 4,096 bytes");
        return NULL;
    }
    next(&p);
    if (!p.failed && p.now.kind == TOKEN_END) {
        kt_diag_error(diag, KT_RULE_EXPR, at, "the expression is empty");
        return NULL;
    }
    int root = parse_else(&p);
    if (!p.failed && p.now.kind != TOKEN_END) {
        p.failed = true;
        bool closes = kt_str_is(p.now.text, ")");
        kt_diag_error(diag, KT_RULE_EXPR, part(&p, p.now.from, p.now.to),
            closes ? "this '%.*s' closes nothing" : "'%.*s' is not expected here",
            KT_STR_ARG(p.now.text));
    }
    if (p.failed || root < 0) return NULL;
    kt_expr *expr = KT_NEW(arena, kt_expr);
    *expr = (kt_expr){text, at, p.terms.at, (int)p.terms.n, root};
    return expr;
}

const kt_expr *kt_expr_node(kt_arena *arena, const kt_node *scalar, kt_diag *diag) {
    if (scalar->kind != KT_NODE_SCALAR) {
        kt_diag_error(diag, KT_RULE_KEY, scalar->at, "an expression is expected here, got %s",
            kt_node_kind_name(scalar));
        return NULL;
    }
    const kt_expr *expr = kt_expr_parse(arena, scalar->text, scalar->at, diag);
    if (expr == NULL && scalar->flow && !scalar->quoted)
        kt_diag_note(diag, "inside { } and [ ] a comma ends the value: put quotes around an "
                           "expression that holds one");
    return expr;
}

kt_str kt_expr_text(const kt_expr *expr) {
    return expr->text;
}

kt_place kt_expr_at(const kt_expr *expr) {
    return expr->at;
}

void kt_expr_names(
    const kt_expr *expr, void (*visit)(void *ctx, kt_str name, kt_place at), void *ctx) {
    for (int i = 0; i < expr->n_terms; i++) {
        const kt_term *t = &expr->terms[i];
        if (t->op == KT_CODE_NAME)
            visit(ctx, t->name, kt_place_part(expr->at, expr->text, t->from, t->to));
    }
}

bool kt_expr_is_axis(const kt_expr *expr, kt_str *name, int64_t *add) {
    const kt_term *t = &expr->terms[expr->root];
    *name = KT_STR("");
    *add = 0;
    if (t->op == KT_CODE_NUMBER) {
        *add = t->value.i;
        return !t->value.is_real;
    }
    if (t->op == KT_CODE_NAME) {
        *name = t->name;
        return true;
    }
    if (t->op != KT_CODE_ADD) return false;
    const kt_term *a = &expr->terms[t->arg[0]], *b = &expr->terms[t->arg[1]];
    if (a->op != KT_CODE_NAME || b->op != KT_CODE_NUMBER || b->value.is_real) return false;
    *name = a->name;
    *add = b->value.i;
    return true;
}
