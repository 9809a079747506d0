#include "loader/chat.h"

#include <inttypes.h>
#include <string.h>

// ---- what a prompt is made of
//
// A prompt is a list of parts: the program's markup, the user's words, and views of the picture. It
// is built once and then either encoded or printed.

typedef enum part_kind { PART_MARKUP, PART_WORDS, PART_VIEW } part_kind;

typedef struct part {
    part_kind kind;
    kt_str text; // not of a view
} part;

typedef struct parts {
    part *at;
    size_t n, cap;
} parts;

typedef struct writer {
    kt_arena *arena;
    const kt_chat_template *chat;
    const kt_picture_markup *markup;
    const kt_chat_request *request;
    parts parts;
} writer;

static void add(writer *in, part_kind kind, kt_str text) {
    if (text.n == 0 && kind != PART_VIEW) return;
    KT_PUSH(in->arena, &in->parts, ((part){kind, text}));
}

static void add_number(writer *in, part_kind kind, int number, const char *after) {
    add(in, kind, kt_str_from(kt_arena_printf(in->arena, "%d%s", number, after)));
}

// ---- templates

// What a name in a template is replaced by.
typedef struct hole_row {
    const char *name; // "$text"
    void (*fill)(writer *in, const void *value);
} hole_row;

// Adds a template's text with its holes filled. Only the template is searched: what fills a hole is
// not.
static void fill(writer *in, kt_str text, const hole_row *holes, int n_holes, const void *value) {
    size_t from = 0;
    for (size_t at = 0; at < text.n;) {
        const hole_row *hole = NULL;
        for (int i = 0; i < n_holes && hole == NULL; i++) {
            kt_str rest = kt_str_slice(text, at, text.n);
            if (kt_str_starts(rest, kt_str_from(holes[i].name))) hole = &holes[i];
        }
        if (hole == NULL) {
            at++;
            continue;
        }
        add(in, PART_MARKUP, kt_str_slice(text, from, at));
        hole->fill(in, value);
        at += strlen(hole->name);
        from = at;
    }
    add(in, PART_MARKUP, kt_str_slice(text, from, text.n));
}

// ---- the picture

static void fill_view(writer *in, const void *value) {
    (void)value;
    add(in, PART_VIEW, (kt_str){"", 0});
}

static void fill_index(writer *in, const void *value) {
    (void)value;
    add_number(in, PART_MARKUP, in->request->grid->index, "");
}

static void fill_slices(writer *in, const void *value) {
    static const hole_row holes[] = {{"$view", fill_view}};
    (void)value;
    const kt_picture_grid *grid = in->request->grid;
    for (int row = 0; row < grid->rows; row++) {
        if (row > 0) add(in, PART_MARKUP, in->markup->row);
        for (int col = 0; col < grid->cols; col++) fill(in, in->markup->slice, holes, 1, NULL);
    }
}

static void add_picture(writer *in) {
    static const hole_row holes[] = {
        {"$index", fill_index}, {"$view", fill_view}, {"$slices", fill_slices}};
    fill(in, in->markup->text, holes, 3, NULL);
}

// ---- messages

static void fill_words(writer *in, const void *value) {
    add(in, PART_WORDS, *(const kt_str *)value);
}

// All questions, one a line, with their numbers; one alone has none.
static void add_all_asks(writer *in) {
    const kt_chat_request *request = in->request;
    for (int i = 0; i < request->n_asks; i++) {
        if (i > 0) add(in, PART_MARKUP, KT_STR("\n"));
        if (request->n_asks > 1) add_number(in, PART_WORDS, i + 1, ". ");
        add(in, PART_WORDS, request->asks[i]);
    }
}

// value: the index of the question, an int.
static void fill_user(writer *in, const void *value) {
    const kt_chat_request *request = in->request;
    int which = *(const int *)value;
    bool joined = false;
    if (request->grid != NULL) {
        add_picture(in);
        joined = true;
    }
    if (request->shared.n > 0) {
        if (joined) add(in, PART_MARKUP, in->chat->join);
        add(in, PART_WORDS, request->shared);
        joined = true;
    }
    bool alone = !request->joint || request->n_asks == 1;
    if (alone && request->asks[which].n == 0) return;
    if (joined) add(in, PART_MARKUP, in->chat->join);
    if (request->joint)
        add_all_asks(in);
    else
        add(in, PART_WORDS, request->asks[which]);
}

static void build(writer *in, int which) {
    static const hole_row words[] = {{"$text", fill_words}};
    static const hole_row user[] = {{"$text", fill_user}};
    in->parts = (parts){0};
    if (in->request->system.n > 0) {
        fill(in, in->chat->system, words, 1, &in->request->system);
    } else if (in->chat->default_system.n > 0) {
        fill(in, in->chat->system, words, 1, &in->chat->default_system);
    }
    fill(in, in->chat->user, user, 1, &which);
    add(in, PART_MARKUP, in->chat->answer);
}

// ---- checks

static bool holds(kt_str text, const char *hole) {
    return kt_str_find_text(text, hole) >= 0;
}

static kt_status check_words(const char *what, kt_str text, kt_err *err) {
    size_t at = kt_tokenizer_invalid_at(text);
    if (at == text.n) return KT_OK;
    return KT_FAIL(err, KT_EPROMPT, "%s is not valid UTF-8: byte 0x%02x at %zu; save it as UTF-8",
        what, (unsigned char)text.at[at], at);
}

static kt_status check_texts(const kt_chat_request *request, kt_err *err) {
    KT_TRY(check_words("the system text", request->system, err));
    KT_TRY(check_words("the shared text", request->shared, err));
    for (int i = 0; i < request->n_asks; i++) {
        kt_status status = check_words("a question", request->asks[i], err);
        if (status != KT_OK) {
            kt_err_note(err, "question %d of %d", i + 1, request->n_asks);
            return status;
        }
    }
    if (request->n_asks < 1) return KT_FAIL(err, KT_EPROMPT, "there is no question");
    return KT_OK;
}

static kt_status check_chat(
    const kt_chat_template *chat, const kt_chat_request *request, kt_err *err) {
    if (!holds(chat->user, "$text"))
        return KT_FAIL(err, KT_EMODEL, "the model file's chat.user has no $text");
    bool system = request->system.n > 0 || chat->default_system.n > 0;
    if (system && !holds(chat->system, "$text"))
        return KT_FAIL(err, KT_EMODEL, "the model file's chat.system has no $text");
    return KT_OK;
}

static kt_status check_grid(
    const kt_picture_markup *markup, const kt_picture_grid *grid, kt_err *err) {
    enum { MOST = 1 << 20 };
    if (markup == NULL || !holds(markup->text, "$view")) {
        return KT_FAIL(err, KT_EMODEL,
            "the model file's picture.text has no $view, so a picture cannot be shown to it");
    }
    bool none = grid->cols == 0 && grid->rows == 0;
    bool some = grid->cols > 0 && grid->rows > 0;
    KT_ASSERT(grid->queries > 0 && (none || some));
    KT_ASSERT((int64_t)grid->cols * grid->rows <= MOST / grid->queries);
    if (none) return KT_OK;
    if (holds(markup->text, "$slices") && holds(markup->slice, "$view")) return KT_OK;
    return KT_FAIL(err, KT_EMODEL,
        "the picture is cut into %d x %d slices, but the model file's picture.text has no $slices "
        "or picture.slice no $view",
        grid->cols, grid->rows);
}

static kt_status check(const kt_chat_template *chat, const kt_picture_markup *markup,
    const kt_chat_request *request, kt_err *err) {
    KT_TRY(check_texts(request, err));
    KT_TRY(check_chat(chat, request, err));
    return request->grid == NULL ? KT_OK : check_grid(markup, request->grid, err);
}

// A token that the reference writes for a query splits the text around it only if it is an added
// one.
static kt_status check_token(
    const kt_tokenizer *tokenizer, kt_str token, const char *what, kt_err *err) {
    int32_t id;
    if (kt_tokenizer_find(tokenizer, token, &id) && kt_tokenizer_is_added(tokenizer, id))
        return KT_OK;
    return KT_FAIL(err, KT_EMODEL,
        "the model file's %s names the token '%.*s', which is no added token of '%s'; tokenizer "
        "and model file are not for each other",
        what, KT_STR_ARG(token), kt_tokenizer_name(tokenizer));
}

// A template's markup: from `open` to `close` with neither blanks nor another beginning between.
// Without its token it would silently become plain text.
typedef struct markup_row {
    const char *what, *open, *close;
    kt_str text;
} markup_row;

static kt_status check_markup(const kt_tokenizer *tokenizer, const markup_row *row, kt_err *err) {
    kt_str rest = row->text, open = kt_str_from(row->open), close = kt_str_from(row->close);
    for (;;) {
        ptrdiff_t from = kt_str_find_text(rest, row->open);
        if (from < 0) return KT_OK;
        rest = kt_str_slice(rest, (size_t)from, rest.n);
        size_t n = open.n;
        while (n < rest.n && !kt_chat_blank(rest.at[n]) && rest.at[n] != '<' &&
               !kt_str_starts(kt_str_slice(rest, n, rest.n), close))
            n++;
        bool is_token = n > open.n && kt_str_starts(kt_str_slice(rest, n, rest.n), close);
        if (is_token) {
            n += close.n;
            KT_TRY(check_token(tokenizer, kt_str_slice(rest, 0, n), row->what, err));
        }
        rest = kt_str_slice(rest, n, rest.n);
    }
}

// In chat templates only <|name|> is surely markup: "<<SYS>>" and the like are text.
static kt_status check_tokens(const kt_tokenizer *tokenizer, const kt_chat_template *chat,
    const kt_picture_markup *markup, kt_err *err) {
    const markup_row rows[] = {
        {"chat.system", "<|", "|>", chat->system},
        {"chat.user", "<|", "|>", chat->user},
        {"chat.answer", "<|", "|>", chat->answer},
        {"picture.text", "<", ">", markup ? markup->text : KT_STR("")},
        {"picture.slice", "<", ">", markup ? markup->slice : KT_STR("")},
        {"picture.row", "<", ">", markup ? markup->row : KT_STR("")},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        KT_TRY(check_markup(tokenizer, &rows[i], err));
    return markup ? check_token(tokenizer, markup->token, "picture.token", err) : KT_OK;
}

// ---- encoding

typedef struct encoder {
    const kt_tokenizer *tokenizer;
    kt_arena *arena, *tmp;
    kt_buf text; // since the last view
    kt_zone *zones;
    size_t n_zones, zones_cap;
    kt_ids ids;
    int64_t picture_rows;
} encoder;

static kt_status encode_text(encoder *in, kt_err *err) {
    if (in->text.n == 0) return KT_OK;
    kt_str text = {in->text.at, in->text.n};
    kt_status status = kt_tokenizer_encode_zones(
        in->tokenizer, in->arena, text, in->zones, in->n_zones, &in->ids, err);
    kt_buf_clear(&in->text);
    in->n_zones = 0;
    return status;
}

static kt_status encode_parts(encoder *in, const parts *list, int queries, kt_err *err) {
    for (size_t i = 0; i < list->n; i++) {
        const part *next = &list->at[i];
        if (next->kind != PART_VIEW) {
            in->zones =
                kt_arena_grow(in->tmp, in->zones, in->n_zones, &in->zones_cap, sizeof *in->zones);
            in->zones[in->n_zones++] = (kt_zone){next->text.n, next->kind == PART_MARKUP};
            kt_buf_str(&in->text, next->text);
            continue;
        }
        KT_TRY(encode_text(in, err));
        for (int q = 0; q < queries; q++) {
            in->picture_rows++;
            KT_PUSH(in->arena, &in->ids, (int32_t)-in->picture_rows);
        }
    }
    return encode_text(in, err);
}

static kt_status write_one(kt_arena *arena, const kt_tokenizer *tokenizer, writer *from, int which,
    kt_prompts *out, kt_err *err) {
    build(from, which);
    int queries = from->request->grid == NULL ? 0 : from->request->grid->queries;
    encoder to = {.tokenizer = tokenizer, .arena = arena, .tmp = from->arena};
    kt_status status = encode_parts(&to, &from->parts, queries, err);
    kt_buf_deinit(&to.text);
    out->at[which] = (kt_prompt){to.ids.at, (int64_t)to.ids.n};
    out->picture_rows = to.picture_rows;
    return status;
}

static kt_status find_stops(kt_arena *arena, const kt_tokenizer *tokenizer,
    const kt_chat_template *chat, kt_prompts *out, kt_err *err) {
    int32_t *stop = KT_NEW_ARRAY(arena, int32_t, chat->n_stop);
    for (int i = 0; i < chat->n_stop; i++) {
        KT_TRY(check_token(tokenizer, chat->stop[i], "chat.stop", err));
        KT_ASSERT(kt_tokenizer_find(tokenizer, chat->stop[i], &stop[i]));
    }
    out->stop = stop;
    out->n_stop = chat->n_stop;
    return KT_OK;
}

kt_status kt_chat_write(kt_arena *arena, const kt_tokenizer *tokenizer,
    const kt_chat_template *chat, const kt_picture_markup *markup, const kt_chat_request *request,
    kt_prompts *out, kt_err *err) {
    *out = (kt_prompts){0};
    KT_TRY(check(chat, markup, request, err));
    KT_TRY(check_tokens(tokenizer, chat, request->grid ? markup : NULL, err));
    KT_TRY(find_stops(arena, tokenizer, chat, out, err));
    out->n = request->joint ? 1 : request->n_asks;
    out->at = KT_NEW_ARRAY(arena, kt_prompt, out->n);
    kt_arena tmp = {0};
    kt_status status = KT_OK;
    for (int i = 0; status == KT_OK && i < out->n; i++) {
        writer in = {&tmp, chat, markup, request, {0}};
        status = write_one(arena, tokenizer, &in, i, out, err);
    }
    kt_arena_deinit(&tmp);
    return status;
}

kt_status kt_chat_print(const kt_chat_template *chat, const kt_picture_markup *markup,
    const kt_chat_request *request, int which, kt_buf *out, kt_err *err) {
    KT_TRY(check(chat, markup, request, err));
    KT_ASSERT(which >= 0 && which < (request->joint ? 1 : request->n_asks));
    kt_arena tmp = {0};
    writer in = {&tmp, chat, markup, request, {0}};
    build(&in, which);
    for (size_t i = 0; i < in.parts.n; i++) {
        if (in.parts.at[i].kind != PART_VIEW)
            kt_buf_str(out, in.parts.at[i].text);
        else
            kt_buf_printf(out, "[%d x %.*s]", request->grid->queries, KT_STR_ARG(markup->token));
    }
    kt_arena_deinit(&tmp);
    return KT_OK;
}

bool kt_chat_stops(const kt_prompts *prompts, int32_t id) {
    for (int i = 0; i < prompts->n_stop; i++)
        if (prompts->stop[i] == id) return true;
    return false;
}

// ---- answers

bool kt_chat_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

kt_str kt_chat_trim(kt_str text) {
    while (text.n > 0 && kt_chat_blank(text.at[0])) text = kt_str_slice(text, 1, text.n);
    while (text.n > 0 && kt_chat_blank(text.at[text.n - 1])) text.n--;
    return text;
}

// Marks around a number that a model may write: Markdown, brackets.
static const char *const before_number[] = {" ", "\t", "*", "#", "(", "（", "「", "【"};
static const char *const after_number[] = {".", ")", ":", "．", "）", "：", "、", "】"};

enum {
    N_BEFORE = sizeof before_number / sizeof before_number[0],
    N_AFTER = sizeof after_number / sizeof after_number[0]
};

// Bytes of the first of `list` that `text` begins with, or 0.
static size_t starts_with_any(kt_str text, const char *const *list, int n) {
    for (int i = 0; i < n; i++) {
        kt_str mark = kt_str_from(list[i]);
        if (kt_str_starts(text, mark)) return mark.n;
    }
    return 0;
}

// A digit, plain or full-width, and its bytes; -1 if it is none.
static int digit_of(kt_str text, size_t *bytes) {
    if (text.n >= 1 && text.at[0] >= '0' && text.at[0] <= '9') {
        *bytes = 1;
        return text.at[0] - '0';
    }
    bool wide =
        text.n >= 3 && (unsigned char)text.at[0] == 0xEF && (unsigned char)text.at[1] == 0xBC;
    int digit = wide ? (unsigned char)text.at[2] - 0x90 : -1;
    *bytes = 3;
    return digit >= 0 && digit <= 9 ? digit : -1;
}

// The number that a line begins with, 0 if it begins with none; *at: where the text behind it
// starts.
static int number_of_line(kt_str line, size_t *at) {
    size_t i = 0, bytes;
    for (;;) {
        bytes = starts_with_any(kt_str_slice(line, i, line.n), before_number, N_BEFORE);
        if (bytes == 0) break;
        i += bytes;
    }
    int number = 0;
    for (int digits = 0; digits < 4; digits++) {
        int digit = digit_of(kt_str_slice(line, i, line.n), &bytes);
        if (digit < 0) break;
        number = number * 10 + digit;
        i += bytes;
    }
    size_t behind = starts_with_any(kt_str_slice(line, i, line.n), after_number, N_AFTER);
    if (number == 0 || behind == 0) return 0;
    i += behind;
    // "1.5 metres" is no number of an item; "**1.**" and "1.)" end with more marks.
    if (digit_of(kt_str_slice(line, i, line.n), &bytes) >= 0) return 0;
    while (i < line.n && line.at[i] == '*') i++;
    *at = i;
    return number;
}

int kt_chat_split(kt_str answer, int n, kt_str *answers) {
    for (int i = 0; i < n; i++) answers[i] = (kt_str){answer.at, 0};
    int found = 0, last = 0; // last: number of the item that is open, 0 none
    size_t begin = 0;
    for (size_t at = 0; n > 1 && at < answer.n;) {
        kt_str rest = kt_str_slice(answer, at, answer.n);
        ptrdiff_t newline = kt_str_find(rest, '\n');
        size_t length = newline < 0 ? rest.n : (size_t)newline;
        size_t behind = 0;
        int number = number_of_line(kt_str_slice(rest, 0, length), &behind);
        if (number > last && number <= n) {
            if (last > 0) answers[last - 1] = kt_chat_trim(kt_str_slice(answer, begin, at));
            begin = at + behind;
            last = number;
            found++;
        }
        at += length + 1;
    }
    if (last > 0) {
        answers[last - 1] = kt_chat_trim(kt_str_slice(answer, begin, answer.n));
        return found;
    }
    if (n > 0) answers[0] = kt_chat_trim(answer);
    return n > 0 ? 1 : 0;
}
