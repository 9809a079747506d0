// Host steps that score texts: every token of a text goes through the model once, and of each it
// is asked how likely the next one was.
#include "runtime/exec/host_text.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

// The token after each one of a chunk; -1 after the last of a prompt, and where a picture follows.
static int32_t *following(kt_arena *arena, const kt_prompts *prompts, const kt_chunk *chunk) {
    int32_t *next = KT_NEW_ARRAY(arena, int32_t, chunk->n);
    for (int64_t g = 0; g < chunk->g; g++) {
        const int32_t *segment = chunk->segments + 4 * g; // row, start, length, first
        const kt_prompt *prompt = &prompts->at[segment[0]];
        for (int64_t i = 0; i < segment[2]; i++) {
            int64_t at = segment[1] + i + 1;
            next[segment[3] + i] = at < prompt->n ? prompt->ids[at] : -1;
        }
    }
    return next;
}

static void give_score(kt_host *host) {
    kt_arena *arena = &host->request->arena;
    int logp = kt_host_inout(host, "score.logp");
    int64_t n = kt_host_size(host, logp, 0) * kt_host_size(host, logp, 1);
    size_t bytes = (size_t)n * sizeof(int32_t);
    int32_t *best = KT_NEW_ARRAY(arena, int32_t, n);
    memset(best, 0xff, bytes); // -1: not computed
    kt_host_give(host, logp, KT_NEW_ARRAY(arena, float, n), (int64_t)bytes);
    kt_host_give(host, kt_host_inout(host, "score.best"), best, (int64_t)bytes);
}

kt_status kt_host_plan_score(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const kt_prompts *prompts = r->objects[kt_host_in(host, "prompt")];
    int table = kt_host_inout(host, "table"), next = kt_host_out(host, "chunk.next");
    int64_t room = kt_host_size(host, kt_host_inout(host, "score.logp"), 1);
    kt_rows rows;
    KT_TRY(kt_host_plan_prompts(host, prompts, NULL, &rows, err));
    for (int i = 0; i < prompts->n; i++) {
        r->prompt_tokens += prompts->at[i].n;
        if (prompts->at[i].n > room)
            return KT_FAIL(err, KT_EPROMPT,
                "text %d of %d has %" PRId64 " tokens, but a row of 'score' has room for %" PRId64,
                i + 1, prompts->n, prompts->at[i].n, room);
    }
    int64_t words = rows.rows * kt_host_size(host, table, 1);
    kt_host_give(host, table, rows.table, words * (int64_t)sizeof(int32_t));
    give_score(host);
    KT_TRY(kt_host_give_chunks(host, &rows, err));
    kt_blob *batches = KT_NEW_ARRAY(&r->arena, kt_blob, rows.n_chunks + 1);
    for (int64_t i = 0; i < rows.n_chunks; i++)
        batches[i] = (kt_blob){following(&r->arena, prompts, &rows.chunks[i]),
            rows.chunks[i].n * (int64_t)sizeof(int32_t)};
    r->batches[next] = (kt_batches){batches, (int)rows.n_chunks};
    return KT_OK;
}

// ---- what was found

typedef struct row {
    int64_t n;         // tokens
    const float *logp; // [n] of the token after each; 0 after the last
    const int32_t *best;
} row;

static void put_summary(const row *in, kt_buf *out) {
    double sum = 0;
    for (int64_t i = 0; i + 1 < in->n; i++) sum += (double)in->logp[i];
    kt_buf_printf(out, "%" PRId64 " tokens", in->n);
    if (in->n < 2) return; // nothing follows
    double mean = sum / (double)(in->n - 1);
    kt_buf_printf(out, ", mean log-probability %.4f, perplexity %.4g", mean, exp(-mean));
}

static void put_logp(const row *in, kt_buf *out) {
    for (int64_t i = 0; i + 1 < in->n; i++)
        kt_buf_printf(out, i ? " %.4f" : "%.4f", (double)in->logp[i]);
}

static void put_best(const row *in, kt_buf *out) {
    for (int64_t i = 0; i < in->n; i++)
        kt_buf_printf(out, i ? " %" PRId32 : "%" PRId32, in->best[i]);
}

typedef struct show_row {
    const char *name;
    void (*put)(const row *in, kt_buf *out);
} show_row;

static const show_row shows[] = {
    {"summary", put_summary},
    {"logp", put_logp},
    {"best", put_best},
};

static const show_row *find_show(kt_str name) {
    for (size_t i = 0; i < sizeof shows / sizeof shows[0]; i++)
        if (kt_str_is(name, shows[i].name)) return &shows[i];
    KT_ASSERT(false && "a choice of the contract");
    return NULL;
}

static kt_status get_state(kt_host *host, const char *port, void **out, kt_err *err) {
    kt_request *r = host->request;
    kt_backend *b = r->context->backend;
    int tensor = kt_host_in(host, port);
    int64_t n = kt_host_size(host, tensor, 0) * kt_host_size(host, tensor, 1);
    *out = KT_NEW_ARRAY(&r->arena, int32_t, n); // f32 and i32 are as wide
    return b->table->get(b, tensor, r->slot, *out, n * (int64_t)sizeof(int32_t), err);
}

static kt_status check_finite(const row *in, kt_err *err) {
    for (int64_t i = 0; i < in->n; i++)
        if (in->logp[i] <= -FLT_MAX || isnan(in->logp[i]))
            return KT_FAIL(err, KT_EOP,
                "the logits after token %" PRId64
                " hold numbers that are not finite; weights or kernels are broken",
                i);
    return KT_OK;
}

kt_status kt_host_read_score(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const kt_prompts *prompts = r->objects[kt_host_in(host, "prompt")];
    const show_row *show = find_show(kt_host_word(host, "show"));
    int64_t room = kt_host_size(host, kt_host_in(host, "logp"), 1);
    int n = r->context->n_items;
    void *logp, *best;
    KT_TRY(get_state(host, "logp", &logp, err));
    KT_TRY(get_state(host, "best", &best, err));
    KT_ASSERT(prompts->n == n);
    kt_answers *out = KT_NEW(&r->arena, kt_answers);
    *out = (kt_answers){KT_NEW_ARRAY(&r->arena, kt_answer, n), n};
    kt_buf text = {0};
    kt_status status = KT_OK;
    for (int i = 0; i < n && status == KT_OK; i++) {
        row in = {prompts->at[i].n, (float *)logp + i * room, (int32_t *)best + i * room};
        status = check_finite(&in, err);
        kt_buf_clear(&text);
        show->put(&in, &text);
        out->at[i].text = kt_str_copy(&r->arena, (kt_str){text.at, text.n});
    }
    kt_buf_deinit(&text);
    if (status == KT_OK) kt_host_give_answers(host, out);
    return status;
}
