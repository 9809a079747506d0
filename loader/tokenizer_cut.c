// The only user of PCRE2.
#include "loader/tokenizer_parts.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

struct kt_cutter {
    pcre2_code *code;
};

// Limits of one match: far above what a tokenizer's pattern needs, far below what hangs a program.
enum {
    MATCH_LIMIT = 10 * 1000 * 1000,
    HEAP_LIMIT_KIB = 256 * 1024,
    STACK_MIN = 32 << 10,
    STACK_MAX = 4 << 20
};

// ---- from Oniguruma's language to PCRE2's
//
// The two agree on what tokenizers use but for white space: PCRE2's \s also takes U+180E, so it is
// written as the property. Sets within sets and && mean something else to PCRE2 without an error,
// and so are refused.

typedef struct rewriter {
    kt_str from;
    size_t at;
    bool in_set;
    kt_buf *to;
    const char *why; // what is not supported
} rewriter;

// The character after the one at `at`; 0 at the end.
static char peek(const rewriter *in) {
    if (in->at + 1 >= in->from.n) return '\0';
    return in->from.at[in->at + 1];
}

static void rewrite_escape(rewriter *in) {
    char next = peek(in);
    switch (next) {
    case 's':
        kt_buf_printf(in->to, "\\p{White_Space}");
        break;
    case 'S':
        kt_buf_printf(in->to, "\\P{White_Space}");
        break;
    case 'h':
    case 'H':
        in->why = "\\h, a hexadecimal digit there,";
        break;
    case '\0':
        kt_buf_add(in->to, "\\", 1);
        in->at++;
        return;
    default:
        kt_buf_add(in->to, in->from.at + in->at, 2);
    }
    in->at += 2;
}

static void rewrite_in_set(rewriter *in) {
    char c = in->from.at[in->at];
    char next = peek(in);
    if (c == '&' && next == '&') in->why = "&& in a set";
    if (c == '[' && next != ':') in->why = "a set within a set";
    if (c == '[' && next == ':') {
        kt_buf_add(in->to, "[:", 2);
        in->at += 2;
        while (in->at < in->from.n && in->from.at[in->at] != ']')
            kt_buf_add(in->to, &in->from.at[in->at++], 1);
        if (in->at == in->from.n) return;
    } else if (c == ']') {
        in->in_set = false;
    }
    kt_buf_add(in->to, &in->from.at[in->at++], 1);
}

static void open_set(rewriter *in) {
    in->in_set = true;
    kt_buf_add(in->to, &in->from.at[in->at++], 1);
    if (in->at < in->from.n && in->from.at[in->at] == '^')
        kt_buf_add(in->to, &in->from.at[in->at++], 1);
    // A ] that comes first stands for itself.
    if (in->at < in->from.n && in->from.at[in->at] == ']')
        kt_buf_add(in->to, &in->from.at[in->at++], 1);
}

static const char *rewrite(kt_str pattern, kt_buf *to) {
    rewriter in = {.from = pattern, .to = to};
    kt_buf_add(to, "", 0);
    while (in.at < pattern.n && in.why == NULL) {
        char c = pattern.at[in.at];
        if (c == '\\')
            rewrite_escape(&in);
        else if (in.in_set)
            rewrite_in_set(&in);
        else if (c == '[')
            open_set(&in);
        else
            kt_buf_add(to, &pattern.at[in.at++], 1);
    }
    return in.why;
}

// ---- public

static kt_status compile(
    kt_str pattern, uint32_t options, const char *where, kt_cutter **out, kt_err *err) {
    int why = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern.at, pattern.n, options, &why, &at, NULL);
    if (code == NULL) {
        PCRE2_UCHAR text[200] = {0};
        pcre2_get_error_message(why, text, sizeof text);
        return KT_FAIL(err, KT_EFORMAT, "%s: the pattern '%.*s' is not understood: %s (byte %zu)",
            where, KT_STR_ARG(pattern), (const char *)text, (size_t)at);
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); // without it matching is slower, not different
    kt_cutter *cutter = malloc(sizeof *cutter);
    if (cutter == NULL) kt_out_of_memory(sizeof *cutter);
    cutter->code = code;
    *out = cutter;
    return KT_OK;
}

kt_status kt_cutter_open(
    kt_str pattern, bool literal, const char *where, kt_cutter **out, kt_err *err) {
    enum { MAX_PATTERN = 16 << 10 };
    if (pattern.n == 0 || pattern.n > MAX_PATTERN) {
        return KT_FAIL(err, KT_EFORMAT, "%s: the pattern has %zu bytes, expected 1 to %d", where,
            pattern.n, MAX_PATTERN);
    }
    if (literal) return compile(pattern, PCRE2_UTF | PCRE2_LITERAL, where, out, err);
    kt_buf text = {0};
    const char *why = rewrite(pattern, &text);
    kt_status status;
    if (why != NULL) {
        status = KT_FAIL(err, KT_EFORMAT, "%s: the pattern '%.*s' uses %s which is not supported",
            where, KT_STR_ARG(pattern), why);
    } else {
        // ^ and $ stand for every line in Oniguruma's (Ruby's) language.
        uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
        status = compile((kt_str){text.at, text.n}, options, where, out, err);
    }
    kt_buf_deinit(&text);
    return status;
}

void kt_cutter_close(kt_cutter *cutter) {
    if (cutter == NULL) return;
    pcre2_code_free(cutter->code);
    free(cutter);
}

static void make_memory(kt_cut_memory *memory) {
    if (memory->match != NULL) return;
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    memory->match = pcre2_match_data_create(1, NULL); // only where the whole match lies
    if (memory->match == NULL || context == NULL) kt_out_of_memory(sizeof(void *));
    memory->context = context;
    memory->stack =
        pcre2_jit_stack_create(STACK_MIN, STACK_MAX, NULL); // NULL: the small built-in one
    pcre2_set_match_limit(context, MATCH_LIMIT);
    pcre2_set_heap_limit(context, HEAP_LIMIT_KIB);
    if (memory->stack != NULL) pcre2_jit_stack_assign(context, NULL, memory->stack);
}

static kt_status cut_piece(const kt_cutter *cutter, kt_cut_memory *memory, kt_arena *arena,
    kt_str piece, size_t base, kt_ends *out, kt_err *err) {
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(memory->match);
    size_t done = 0; // everything before has its end in `out`
    for (size_t from = 0; from < piece.n;) {
        int n = pcre2_match(cutter->code, (PCRE2_SPTR)piece.at, piece.n, from,
            PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, memory->match, memory->context);
        if (n == PCRE2_ERROR_NOMATCH) break;
        if (n < 0 || found[1] <= found[0]) {
            PCRE2_UCHAR text[200] = {0};
            pcre2_get_error_message(n, text, sizeof text);
            return KT_FAIL(err, KT_EPROMPT,
                "the text cannot be cut into pieces at byte %zu: %s; shorten it", base + from,
                (const char *)text);
        }
        if (found[0] > done) KT_PUSH(arena, out, base + found[0]);
        KT_PUSH(arena, out, base + found[1]);
        done = from = found[1];
    }
    if (done < piece.n) KT_PUSH(arena, out, base + piece.n);
    return KT_OK;
}

kt_status kt_cutter_cut(const kt_cutter *cutter, kt_cut_memory *memory, kt_arena *arena,
    kt_str text, const kt_ends *in, kt_ends *out, kt_err *err) {
    make_memory(memory);
    size_t from = 0;
    for (size_t i = 0; i < in->n; i++) {
        kt_str piece = kt_str_slice(text, from, in->at[i]);
        KT_TRY(cut_piece(cutter, memory, arena, piece, from, out, err));
        from = in->at[i];
    }
    return KT_OK;
}

void kt_cut_memory_deinit(kt_cut_memory *memory) {
    pcre2_jit_stack_free(memory->stack);
    pcre2_match_context_free(memory->context);
    pcre2_match_data_free(memory->match);
    *memory = (kt_cut_memory){0};
}
