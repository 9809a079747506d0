// Host steps for texts as they are and for lists of token ids.
#include "runtime/exec/host_text.h"

#include <inttypes.h>
#include <string.h>

static kt_prompts *new_prompts(kt_request *r) {
    kt_prompts *prompts = KT_NEW(&r->arena, kt_prompts);
    prompts->n = r->context->n_items;
    prompts->at = KT_NEW_ARRAY(&r->arena, kt_prompt, prompts->n);
    return prompts;
}

static kt_status name_item(kt_status status, const kt_context *c, int item, kt_err *err) {
    if (status != KT_OK) kt_err_note(err, "item '%.*s'", KT_STR_ARG(c->items[item].name));
    return status;
}

// ---- texts

// One text: the markup `before`, where tokens have their names, then words, where they have not.
static kt_status encode(kt_request *r, kt_str before, kt_str words, kt_prompt *out, kt_err *err) {
    const kt_context *c = r->context;
    const kt_zone zones[] = {
        {before.n, true}, {c->shared.n, false}, {words.n, false}}; // in this order
    kt_buf text = {0};
    kt_ids ids = {0};
    kt_buf_str(&text, before);
    kt_buf_str(&text, c->shared);
    kt_buf_str(&text, words);
    kt_status status = kt_tokenizer_encode_zones(
        c->tokenizer, &r->arena, (kt_str){text.at, text.n}, zones, 3, &ids, err);
    kt_buf_deinit(&text);
    *out = (kt_prompt){ids.at, (int64_t)ids.n};
    if (status == KT_OK && ids.n == 0) return KT_FAIL(err, KT_EPROMPT, "the text is empty");
    return status;
}

kt_status kt_host_write_text(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const kt_context *c = r->context;
    kt_prompts *prompts = new_prompts(r);
    kt_str before = kt_host_word(host, "before");
    for (int i = 0; i < c->n_items; i++)
        KT_TRY(name_item(encode(r, before, c->items[i].ask, &prompts->at[i], err), c, i, err));
    return kt_host_give_prompts(host, prompts, err);
}

// ---- ids

static bool is_between(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ',';
}

// Appends the ids of a list: numbers below `vocab` with blanks, ends of lines or commas between.
static kt_status read_list(kt_arena *arena, kt_str text, int64_t vocab, kt_ids *out, kt_err *err) {
    for (size_t at = 0; at < text.n;) {
        if (is_between(text.at[at])) {
            at++;
            continue;
        }
        size_t end = at;
        while (end < text.n && !is_between(text.at[end])) end++;
        kt_str word = kt_str_slice(text, at, end);
        int64_t id;
        if (!kt_str_to_i64(word, &id)) {
            if (word.n > 40) word.n = 40;
            return KT_FAIL(err, KT_EPROMPT,
                "'%.*s' at character %zu is no token id; expected numbers with blanks between, "
                "such as 1 34 567",
                KT_STR_ARG(word), at + 1);
        }
        if (id < 0 || id >= vocab)
            return KT_FAIL(err, KT_EPROMPT,
                "token id %" PRId64 " at character %zu is beyond the vocabulary; ids of this model "
                "are 0 to %" PRId64,
                id, at + 1, vocab - 1);
        KT_PUSH(arena, out, (int32_t)id);
        at = end;
    }
    return KT_OK;
}

static kt_status read_ids(kt_request *r, kt_str text, int64_t vocab, kt_prompt *out, kt_err *err) {
    kt_ids ids = {0};
    KT_TRY(read_list(&r->arena, r->context->shared, vocab, &ids, err));
    KT_TRY(read_list(&r->arena, text, vocab, &ids, err));
    if (ids.n == 0)
        return KT_FAIL(err, KT_EPROMPT, "there is no token id; expected numbers such as 1 34 567");
    *out = (kt_prompt){ids.at, (int64_t)ids.n};
    return KT_OK;
}

kt_status kt_host_write_ids(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const kt_context *c = r->context;
    kt_prompts *prompts = new_prompts(r);
    int64_t vocab = kt_host_number(host, "vocab");
    for (int i = 0; i < c->n_items; i++)
        KT_TRY(name_item(read_ids(r, c->items[i].ask, vocab, &prompts->at[i], err), c, i, err));
    return kt_host_give_prompts(host, prompts, err);
}

kt_status kt_host_read_ids(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const kt_prompts *prompts = kt_request_prompts(r);
    int n = r->context->n_items;
    int64_t most = kt_host_size(host, kt_host_in(host, "tokens"), 1);
    int32_t *ids, *counts;
    KT_TRY(kt_host_get_tokens(host, &ids, &counts, err));
    kt_answers *out = KT_NEW(&r->arena, kt_answers);
    *out = (kt_answers){KT_NEW_ARRAY(&r->arena, kt_answer, n), n};
    kt_buf text = {0};
    for (int i = 0; i < n; i++) {
        const int32_t *row = ids + i * most;
        int32_t made = counts[i];
        bool stopped = made > 0 && prompts && kt_chat_stops(prompts, row[made - 1]);
        kt_buf_clear(&text);
        for (int32_t k = 0; k < made - stopped; k++)
            kt_buf_printf(&text, k ? " %" PRId32 : "%" PRId32, row[k]);
        out->at[i] = (kt_answer){.cut = !stopped, .tokens = made};
        out->at[i].text = kt_str_copy(&r->arena, (kt_str){text.at, text.n});
        r->completion_tokens += made;
    }
    kt_buf_deinit(&text);
    kt_host_give_answers(host, out);
    return KT_OK;
}
