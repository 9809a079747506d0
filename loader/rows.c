#include "loader/rows.h"

#include <inttypes.h>
#include <string.h>

typedef struct planner {
    kt_arena *arena;
    const kt_prompt *prompts;
    const int32_t *max_new;
    int n;
    const kt_rows_limits *limits;
    kt_rows *out;
    kt_err *err;
} planner;

static int64_t pages_for(int64_t tokens, int64_t page) {
    return (tokens + page - 1) / page;
}

// ---- the shared prefix

static int64_t common_tokens(const kt_prompt *a, const kt_prompt *b) {
    int64_t n = a->n < b->n ? a->n : b->n;
    int64_t i = 0;
    while (i < n && a->ids[i] == b->ids[i]) i++;
    return i;
}

// In whole pages, with a token of every row outside; 0 for one row, which has nobody to share with.
static int64_t find_prefix(const planner *in) {
    if (in->n < 2 || in->limits->whole) return 0;
    int64_t prefix = in->prompts[0].n - 1;
    for (int r = 1; r < in->n; r++) {
        int64_t same = common_tokens(&in->prompts[0], &in->prompts[r]);
        int64_t most = in->prompts[r].n - 1;
        if (same < prefix) prefix = same;
        if (most < prefix) prefix = most;
    }
    return prefix / in->limits->page_tokens * in->limits->page_tokens;
}

// ---- pages

static kt_status check_row(const planner *in, int row) {
    int64_t prompt = in->prompts[row].n, fresh = in->max_new[row];
    KT_ASSERT(prompt >= 1 && fresh >= (in->limits->whole ? 0 : 1));
    if (prompt + fresh > in->limits->context) {
        return KT_FAIL(in->err, KT_EPROMPT,
            "prompt %d of %d has %" PRId64 " tokens and may make %" PRId64
            " more, but the model takes %" PRId64
            " in all; shorten the texts or set a lower max_new",
            row + 1, in->n, prompt, fresh, in->limits->context);
    }
    int64_t pages = pages_for(prompt + fresh, in->limits->page_tokens);
    if (pages <= in->limits->width) return KT_OK;
    return KT_FAIL(in->err, KT_EPROMPT,
        "prompt %d of %d needs %" PRId64 " pages of %d tokens, but a row has room for %" PRId64
        "; shorten the texts, set a lower max_new or a higher context",
        row + 1, in->n, pages, in->limits->page_tokens, in->limits->width);
}

static kt_status count_pages(planner *in) {
    int64_t page = in->limits->page_tokens;
    int64_t shared = in->out->prefix / page, total = shared;
    for (int r = 0; r < in->n; r++)
        total += pages_for(in->prompts[r].n + in->max_new[r], page) - shared;
    in->out->pages = total;
    if (total <= in->limits->pages) return KT_OK;
    return KT_FAIL(in->err, KT_EPROMPT,
        "%d prompts need %" PRId64 " pages of %" PRId64
        " tokens together, but the pool has %" PRId64 " (%" PRId64
        " tokens); ask fewer items at a time, set a lower max_new or a higher context",
        in->n, total, page, in->limits->pages, in->limits->pages * page);
}

static int32_t next_page(const planner *in, int64_t *used) {
    int64_t i = (*used)++;
    return in->limits->page_order == NULL ? (int32_t)i : in->limits->page_order[i];
}

static void fill_table(planner *in) {
    int64_t page = in->limits->page_tokens, width = in->limits->width, used = 0;
    int64_t shared = in->out->prefix / page;
    in->out->table = KT_NEW_ARRAY(in->arena, int32_t, (int64_t)in->limits->rows * width);
    for (int64_t i = 0; i < shared; i++) in->out->table[i] = next_page(in, &used);
    for (int r = 0; r < in->n; r++) {
        int32_t *row = in->out->table + r * width;
        if (r > 0 && shared > 0) memcpy(row, in->out->table, (size_t)shared * sizeof *row);
        int64_t own = pages_for(in->prompts[r].n + in->max_new[r], page);
        for (int64_t i = shared; i < own; i++) row[i] = next_page(in, &used);
    }
    KT_ASSERT(used == in->out->pages);
}

// ---- prefill chunks

typedef struct chunk_list {
    kt_chunk *at;
    size_t n, cap;
} chunk_list;

// The chunk with room for another segment; a new one when the last is full.
static kt_chunk *chunk_with_room(planner *in, chunk_list *list) {
    const kt_rows_limits *limits = in->limits;
    kt_chunk *last = list->n == 0 ? NULL : &list->at[list->n - 1];
    if (last != NULL && last->n < limits->chunk_tokens && last->g < limits->chunk_segments)
        return last;
    kt_chunk fresh = {.ids = KT_NEW_ARRAY(in->arena, int32_t, limits->chunk_tokens),
        .segments = KT_NEW_ARRAY(in->arena, int32_t, 4 * limits->chunk_segments)};
    KT_PUSH(in->arena, list, fresh);
    return &list->at[list->n - 1];
}

// Row 0 brings the prefix; it comes first, so no later row meets keys that are not there yet.
static void fill_chunks(planner *in) {
    chunk_list list = {0};
    for (int r = 0; r < in->n; r++) {
        const kt_prompt *prompt = &in->prompts[r];
        int64_t end = in->limits->whole ? prompt->n : prompt->n - 1;
        for (int64_t at = r == 0 ? 0 : in->out->prefix; at < end;) {
            kt_chunk *chunk = chunk_with_room(in, &list);
            int64_t room = in->limits->chunk_tokens - chunk->n;
            int64_t length = end - at < room ? end - at : room;
            const int32_t segment[4] = {
                (int32_t)r, (int32_t)at, (int32_t)length, (int32_t)chunk->n};
            memcpy(chunk->segments + 4 * chunk->g, segment, sizeof segment);
            memcpy(chunk->ids + chunk->n, prompt->ids + at, (size_t)length * sizeof *chunk->ids);
            chunk->g++;
            chunk->n += length;
            at += length;
        }
    }
    in->out->chunks = list.at;
    in->out->n_chunks = (int64_t)list.n;
}

// ---- the start of decoding

static void fill_start(planner *in) {
    kt_rows *out = in->out;
    int rows = in->limits->rows;
    out->next = KT_NEW_ARRAY(in->arena, int32_t, rows);
    out->segments = KT_NEW_ARRAY(in->arena, int32_t, 4 * (int64_t)rows);
    out->left = KT_NEW_ARRAY(in->arena, int32_t, rows);
    out->made = KT_NEW_ARRAY(in->arena, int32_t, rows);
    for (int r = 0; r < rows; r++) {
        bool used = r < in->n;
        int64_t last = used ? in->prompts[r].n - 1 : 0;
        const int32_t segment[4] = {(int32_t)r, (int32_t)last, used ? 1 : 0, (int32_t)r};
        memcpy(out->segments + 4 * (int64_t)r, segment, sizeof segment);
        out->next[r] = used ? in->prompts[r].ids[last] : 0;
        out->left[r] = used ? in->max_new[r] : 0;
    }
}

kt_status kt_rows_plan(kt_arena *arena, const kt_prompt *prompts, const int32_t *max_new, int n,
    const kt_rows_limits *limits, kt_rows *out, kt_err *err) {
    KT_ASSERT(n >= 1 && limits->page_tokens >= 1 && limits->pages <= INT32_MAX);
    KT_ASSERT(limits->chunk_tokens >= 1 && limits->chunk_segments >= 1 && limits->width >= 1);
    *out = (kt_rows){.rows = limits->rows};
    planner in = {arena, prompts, max_new, n, limits, out, err};
    if (n > limits->rows) {
        return KT_FAIL(err, KT_EPROMPT,
            "%d prompts at a time, but the pipeline has %d rows; ask fewer items or raise 'rows'",
            n, limits->rows);
    }
    for (int r = 0; r < n; r++) KT_TRY(check_row(&in, r));
    out->prefix = find_prefix(&in);
    KT_TRY(count_pages(&in));
    fill_table(&in);
    fill_chunks(&in);
    fill_start(&in);
    return KT_OK;
}
