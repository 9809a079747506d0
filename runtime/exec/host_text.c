// Host steps that write prompts, lay them out as rows, and read answers.
#include "runtime/exec/host_text.h"
#include "loader/detokenizer.h"
#include "loader/rows.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <string.h>

static bool is_joint(const kt_host *host) {
    return kt_str_is(kt_host_word(host, "mode"), "joint");
}

// Adds the model's own stop tokens to those that the chat names.
static void add_stops(kt_request *r, kt_prompts *prompts) {
    const kt_context *c = r->context;
    int32_t *all = KT_NEW_ARRAY(&r->arena, int32_t, prompts->n_stop + c->n_stop_ids);
    for (int i = 0; i < prompts->n_stop; i++) all[i] = prompts->stop[i];
    prompts->stop = all;
    for (int i = 0; i < c->n_stop_ids; i++)
        if (!kt_chat_stops(prompts, c->stop_ids[i])) all[prompts->n_stop++] = c->stop_ids[i];
}

kt_status kt_host_give_prompts(kt_host *host, kt_prompts *prompts, kt_err *err) {
    kt_request *r = host->request;
    int stop = kt_host_out(host, "stop");
    add_stops(r, prompts);
    r->objects[kt_host_out(host, "prompt")] = prompts;
    KT_TRY(kt_host_decide(host, "r", prompts->n, KT_EPROMPT, err));
    if (stop < 0) return KT_OK;
    KT_TRY(kt_host_decide(host, "k", prompts->n_stop, KT_EMODEL, err));
    int64_t room = kt_host_size(host, stop, 0);
    if (prompts->n_stop > room)
        return KT_FAIL(err, KT_EMODEL, "the model has %d stop tokens, the pipeline takes %" PRId64,
            prompts->n_stop, room);
    int32_t *ids = KT_NEW_ARRAY(&r->arena, int32_t, room);
    for (int64_t i = 0; i < room; i++) ids[i] = i < prompts->n_stop ? prompts->stop[i] : -1;
    kt_host_give(host, stop, ids, room * (int64_t)sizeof *ids);
    return KT_OK;
}

kt_status kt_host_write_prompt(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const kt_context *c = r->context;
    int grid = kt_host_in(host, "grid");
    kt_str *asks = KT_NEW_ARRAY(&r->arena, kt_str, c->n_items + 1);
    for (int i = 0; i < c->n_items; i++) asks[i] = c->items[i].ask;
    kt_chat_request request = {.system = c->system,
        .shared = c->shared,
        .asks = asks,
        .n_asks = c->n_items,
        .joint = is_joint(host),
        .grid = grid >= 0 ? r->objects[grid] : NULL};
    kt_prompts *prompts = KT_NEW(&r->arena, kt_prompts);
    KT_TRY(kt_chat_write(&r->arena, c->tokenizer, &c->chat, &c->markup, &request, prompts, err));
    return kt_host_give_prompts(host, prompts, err);
}

// New tokens of each row: what its item asks for, else the pipeline's.
static int32_t *row_limits(kt_host *host, int n_prompts) {
    kt_request *r = host->request;
    int64_t most = kt_host_number(host, "max_new");
    int32_t *out = KT_NEW_ARRAY(&r->arena, int32_t, n_prompts + 1);
    for (int i = 0; i < n_prompts; i++) {
        int64_t own = n_prompts == r->context->n_items ? r->context->items[i].max_new : -1;
        out[i] = (int32_t)(own >= 0 && own < most ? own : most);
    }
    return out;
}

// Counts the tokens of the prompts as the user sees them: the shared part once.
static void count_tokens(kt_request *r, const kt_prompts *prompts, int64_t prefix) {
    r->prompt_tokens = prefix;
    for (int i = 0; i < prompts->n; i++) r->prompt_tokens += prompts->at[i].n - prefix;
}

static void give_state(kt_host *host, const char *port, const void *data, size_t bytes) {
    kt_host_give(host, kt_host_inout(host, port), data, (int64_t)bytes);
}

static void give_rows(kt_host *host, const kt_rows *rows) {
    kt_arena *arena = &host->request->arena;
    size_t n = (size_t)rows->rows, word = sizeof(int32_t);
    size_t width = (size_t)kt_host_size(host, kt_host_inout(host, "table"), 1);
    size_t most = (size_t)kt_host_size(host, kt_host_inout(host, "gen.tokens"), 1);
    size_t words = (size_t)kt_host_size(host, kt_host_inout(host, "gen.seen"), 1);
    int32_t *tokens = KT_NEW_ARRAY(arena, int32_t, n * most);
    memset(tokens, 0xff, n * most * word); // -1: not made yet
    uint32_t *rng = KT_NEW_ARRAY(arena, uint32_t, n * 4);
    uint64_t seed = (uint64_t)kt_host_number(host, "seed");
    for (size_t i = 0; i < n; i++) { // key: the seed; counter: its second word is the row
        rng[4 * i] = (uint32_t)seed;
        rng[4 * i + 1] = (uint32_t)(seed >> 32);
        rng[4 * i + 3] = (uint32_t)i;
    }
    give_state(host, "table", rows->table, n * width * word);
    give_state(host, "gen.next", rows->next, n * word);
    give_state(host, "gen.segments", rows->segments, n * 4 * word);
    give_state(host, "gen.left", rows->left, n * word);
    give_state(host, "gen.made", rows->made, n * word);
    give_state(host, "gen.tokens", tokens, n * most * word);
    give_state(host, "gen.seen", KT_NEW_ARRAY(arena, uint32_t, n * words), n * words * word);
    give_state(host, "gen.rng", rng, n * 4 * word);
}

kt_status kt_host_give_chunks(kt_host *host, const kt_rows *rows, kt_err *err) {
    kt_request *r = host->request;
    int ids = kt_host_out(host, "chunk.ids"), segments = kt_host_out(host, "chunk.segments");
    size_t n = (size_t)rows->n_chunks;
    kt_blob *id_batches = KT_NEW_ARRAY(&r->arena, kt_blob, n + 1);
    kt_blob *segment_batches = KT_NEW_ARRAY(&r->arena, kt_blob, n + 1);
    r->batch_values = KT_NEW_ARRAY(&r->arena, int64_t *, n + 1);
    r->n_batches = (int)n;
    for (size_t i = 0; i < n; i++) {
        const kt_chunk *chunk = &rows->chunks[i];
        KT_TRY(kt_host_decide(host, "n", chunk->n, KT_EPROMPT, err));
        KT_TRY(kt_host_decide(host, "g", chunk->g, KT_EPROMPT, err));
        size_t bytes = sizeof(int64_t) * (size_t)r->context->plan->n_dims;
        r->batch_values[i] = kt_arena_alloc(&r->arena, bytes);
        memcpy(r->batch_values[i], r->values, bytes);
        id_batches[i] = (kt_blob){chunk->ids, chunk->n * (int64_t)sizeof(int32_t)};
        segment_batches[i] = (kt_blob){chunk->segments, chunk->g * 4 * (int64_t)sizeof(int32_t)};
    }
    r->batches[ids] = (kt_batches){id_batches, (int)n};
    r->batches[segments] = (kt_batches){segment_batches, (int)n};
    return KT_OK;
}

kt_status kt_host_plan_prompts(
    kt_host *host, const kt_prompts *prompts, const int32_t *max_new, kt_rows *out, kt_err *err) {
    int table = kt_host_inout(host, "table");
    kt_arena *arena = &host->request->arena;
    kt_rows_limits limits = {.page_tokens = KT_PAGE_TOKENS,
        .pages = kt_host_size(host, table, 1),
        .context = kt_host_size(host, table, 1) * KT_PAGE_TOKENS,
        .rows = (int)kt_host_size(host, table, 0),
        .width = kt_host_size(host, table, 1),
        .chunk_tokens = kt_host_max(host, "n"),
        .chunk_segments = kt_host_max(host, "g"),
        .whole = !max_new};
    if (!max_new) max_new = KT_NEW_ARRAY(arena, int32_t, prompts->n);
    kt_status status = kt_rows_plan(arena, prompts->at, max_new, prompts->n, &limits, out, err);
    if (status != KT_OK)
        kt_err_note(err, "the limit is the pipeline's 'context', at most what the model takes");
    return status;
}

kt_status kt_host_plan_rows(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const kt_prompts *prompts = r->objects[kt_host_in(host, "prompt")];
    kt_rows rows;
    KT_TRY(kt_host_plan_prompts(host, prompts, row_limits(host, prompts->n), &rows, err));
    count_tokens(r, prompts, rows.prefix);
    give_rows(host, &rows);
    return kt_host_give_chunks(host, &rows, err);
}

// ---- answers

static kt_answer read_row(
    kt_request *r, const kt_prompts *prompts, const int32_t *ids, int32_t made) {
    kt_answer answer = {.tokens = made, .cut = true};
    int32_t n = made;
    if (made > 0 && prompts && kt_chat_stops(prompts, ids[made - 1])) {
        answer.cut = false;
        n--;
    }
    kt_detokenizer detokenizer;
    kt_detokenizer_init(&detokenizer, r->context->tokenizer, false);
    kt_buf text = {0};
    for (int32_t i = 0; i < n; i++) kt_detokenizer_push(&detokenizer, ids[i], &text);
    kt_detokenizer_flush(&detokenizer, &text);
    answer.text = kt_str_copy(&r->arena, kt_chat_trim((kt_str){text.at, text.n}));
    kt_buf_deinit(&text);
    return answer;
}

static void split_joint(kt_request *r, kt_answer whole, kt_answers *out) {
    const kt_context *c = r->context;
    kt_str *texts = KT_NEW_ARRAY(&r->arena, kt_str, c->n_items + 1);
    int found = kt_chat_split(whole.text, c->n_items, texts);
    if (found < c->n_items)
        kt_log_warn(
            "the answer holds %d of %d numbered items; the others are empty", found, c->n_items);
    for (int i = 0; i < c->n_items; i++) {
        out->at[i] = whole;
        out->at[i].text = texts[i];
        out->at[i].tokens = i == 0 ? whole.tokens : 0;
    }
}

// An op from elsewhere may have left anything.
kt_status kt_host_get_tokens(kt_host *host, int32_t **ids, int32_t **counts, kt_err *err) {
    kt_request *r = host->request;
    kt_backend *b = r->context->backend;
    int tokens = kt_host_in(host, "tokens"), made = kt_host_in(host, "made");
    int64_t rows = kt_host_size(host, made, 0), most = kt_host_size(host, tokens, 1);
    int64_t word = sizeof(int32_t);
    *ids = KT_NEW_ARRAY(&r->arena, int32_t, rows * most);
    *counts = KT_NEW_ARRAY(&r->arena, int32_t, rows);
    KT_TRY(b->table->get(b, tokens, r->slot, *ids, rows * most * word, err));
    KT_TRY(b->table->get(b, made, r->slot, *counts, rows * word, err));
    for (int64_t i = 0; i < rows; i++)
        if ((*counts)[i] < 0 || (*counts)[i] > most)
            return KT_FAIL(err, KT_EOP,
                "the sampling op says that row %" PRId64 " made %" PRId32
                " tokens; there is room for %" PRId64,
                i, (*counts)[i], most);
    return KT_OK;
}

void kt_host_give_answers(kt_host *host, kt_answers *answers) {
    const kt_context *c = host->request->context;
    for (int i = 0; i < c->n_items; i++) {
        answers->at[i].name = c->items[i].name;
        answers->at[i].title = c->items[i].title;
    }
    host->request->objects[kt_host_out(host, "answers")] = answers;
}

kt_status kt_host_read_answers(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const kt_context *c = r->context;
    int64_t rows = kt_host_size(host, kt_host_in(host, "made"), 0);
    int64_t most = kt_host_size(host, kt_host_in(host, "tokens"), 1);
    int32_t *ids, *counts;
    KT_TRY(kt_host_get_tokens(host, &ids, &counts, err));
    const kt_prompts *prompts = kt_request_prompts(r);
    kt_answers *out = KT_NEW(&r->arena, kt_answers);
    out->n = c->n_items;
    out->at = KT_NEW_ARRAY(&r->arena, kt_answer, c->n_items + 1);
    for (int64_t i = 0; i < rows; i++) r->completion_tokens += counts[i];
    if (is_joint(host))
        split_joint(r, read_row(r, prompts, ids, counts[0]), out);
    else
        for (int i = 0; i < c->n_items; i++)
            out->at[i] = read_row(r, prompts, ids + i * most, counts[i]);
    kt_host_give_answers(host, out);
    return KT_OK;
}
