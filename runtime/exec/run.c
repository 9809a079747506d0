// Runs requests through a session: ahead stages on a second thread, the others in order.
#include "runtime/base/log.h"
#include "runtime/exec/session.h"

#include <string.h>

// ---- streaming: what a loop has made so far, as text

typedef struct stream {
    kt_session *session;
    const kt_events *events;
    int image;
    int n; // rows that are items; 0: nothing is streamed
    int64_t most;
    kt_detokenizer *detokenizers;
    int64_t *seen; // tokens given out
    const kt_prompts *prompts;
    kt_buf piece;
} stream;

static bool is_stop(const kt_prompts *prompts, int32_t id) {
    for (int i = 0; i < prompts->n_stop; i++)
        if (prompts->stop[i] == id) return true;
    return false;
}

static bool stream_step(void *ctx, const int32_t *read, const int32_t *until) {
    stream *s = ctx;
    (void)until;
    for (int row = 0; row < s->n; row++) {
        const int32_t *ids = read + row * s->most;
        kt_buf_clear(&s->piece);
        for (; s->seen[row] < s->most && ids[s->seen[row]] >= 0; s->seen[row]++)
            if (!is_stop(s->prompts, ids[s->seen[row]]))
                kt_detokenizer_push(&s->detokenizers[row], ids[s->seen[row]], &s->piece);
        if (s->piece.n > 0)
            s->events->text(s->events->ctx, s->image, row, (kt_str){s->piece.at, s->piece.n});
    }
    return !(s->session->options.stop && *s->session->options.stop);
}

static const kt_prompts *find_prompts(const kt_request *r) {
    const kt_plan *plan = r->context->plan;
    for (int i = 0; i < plan->n_tensors; i++)
        if (plan->tensors[i].home == KT_HOME_HOST && plan->tensors[i].host == KT_HOST_TYPE_PROMPT &&
            r->objects[i])
            return r->objects[i];
    return NULL;
}

static void open_stream(stream *s, kt_request *r, const kt_stage *stage) {
    s->prompts = find_prompts(r);
    s->most = s->session->plan->tensors[stage->loop_read].axis[1].max;
    bool branches = s->prompts && s->prompts->n == r->context->n_items;
    s->n = s->events->text && branches ? r->context->n_items : 0;
    s->detokenizers = KT_NEW_ARRAY(&r->arena, kt_detokenizer, s->n + 1);
    s->seen = KT_NEW_ARRAY(&r->arena, int64_t, s->n + 1);
    for (int i = 0; i < s->n; i++)
        kt_detokenizer_init(&s->detokenizers[i], r->context->tokenizer, false);
}

// ---- stages

static kt_status put_outputs(kt_request *r, const kt_host_call *call, bool ahead, kt_err *err) {
    const kt_plan *plan = r->context->plan;
    kt_backend *b = r->context->backend;
    const int *lists[2] = {call->out, call->inout};
    const int counts[2] = {call->step->n_out, call->step->n_inout};
    for (int l = 0; l < 2; l++)
        for (int i = 0; i < counts[l]; i++) {
            int t = lists[l][i];
            if (t < 0 || plan->tensors[t].home == KT_HOME_HOST || !r->blobs[t].data) continue;
            if (plan->tensors[t].each) continue;
            KT_TRY((ahead ? b->table->put_ahead : b->table->put)(
                b, t, r->slot, r->blobs[t].data, r->blobs[t].bytes, err));
        }
    return KT_OK;
}

static const kt_step_list *choose_list(const kt_stage *stage, const int64_t *values) {
    if (stage->bucket_dim < 0) return &stage->lists[0];
    for (int i = 0; i < stage->n_lists; i++)
        if (stage->lists[i].bucket == values[stage->bucket_dim]) return &stage->lists[i];
    KT_ASSERT(false && "every bucket has its list");
    return NULL;
}

// Host steps one by one; op steps between them in one go.
static kt_status run_steps(
    kt_request *r, const kt_step_list *list, const int64_t *values, bool ahead, kt_err *err) {
    kt_backend *b = r->context->backend;
    for (int i = 0; i < list->n_steps;) {
        if (list->steps[i].host) {
            KT_TRY(kt_host_run(r, list->steps[i].host, err));
            KT_TRY(put_outputs(r, list->steps[i].host, ahead, err));
            i++;
            continue;
        }
        int end = i;
        while (end < list->n_steps && list->steps[end].call) end++;
        KT_TRY(b->table->run(b, list->steps + i, end - i, values, r->slot, err));
        i = end;
    }
    return KT_OK;
}

static kt_status run_batches(kt_request *r, const kt_stage *stage, kt_err *err) {
    kt_backend *b = r->context->backend;
    for (int batch = 0; batch < r->n_batches; batch++) {
        const int64_t *values = r->batch_values[batch];
        for (int i = 0; i < stage->n_each; i++) {
            const kt_batches *of = &r->batches[stage->each[i]];
            KT_ASSERT(of->n == r->n_batches);
            KT_TRY(b->table->put(
                b, stage->each[i], r->slot, of->at[batch].data, of->at[batch].bytes, err));
        }
        KT_TRY(run_steps(r, choose_list(stage, values), values, false, err));
    }
    return KT_OK;
}

static kt_status run_loop(
    kt_session *s, kt_request *r, const kt_stage *stage, stream *out, kt_err *err) {
    open_stream(out, r, stage);
    kt_loop loop = {.stage = stage,
        .list = choose_list(stage, r->values),
        .values = r->values,
        .most = kt_axis_value(stage->loop_most, r->values),
        .step = stream_step,
        .ctx = out};
    kt_status status = s->backend->table->loop(s->backend, &loop, r->slot, err);
    kt_buf_deinit(&out->piece);
    if (status == KT_OK && s->options.stop && *s->options.stop)
        return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
    return status;
}

static kt_status run_stage(kt_session *s, kt_request *r, int index, stream *out, kt_err *err) {
    const kt_stage *stage = &s->plan->stages[index];
    const kt_backend_table *table = s->backend->table;
    KT_TRY(table->mark(s->backend, index, true, err));
    if (stage->loop)
        KT_TRY(run_loop(s, r, stage, out, err));
    else if (stage->n_each > 0)
        KT_TRY(run_batches(r, stage, err));
    else
        KT_TRY(run_steps(r, choose_list(stage, r->values), r->values, false, err));
    return table->mark(s->backend, index, false, err);
}

// ---- the next picture, on a second thread

typedef struct ahead {
    kt_session *session;
    kt_request *request;
    kt_os_thread *thread;
    kt_status status;
    kt_err err;
    double ms;
} ahead;

static kt_status ahead_stages(ahead *a) {
    const kt_plan *plan = a->session->plan;
    for (int i = 0; i < plan->n_stages; i++)
        if (plan->stages[i].ahead)
            KT_TRY(run_steps(
                a->request, &plan->stages[i].lists[0], a->request->values, true, &a->err));
    kt_backend *b = a->session->backend;
    return b->table->end_ahead(b, a->request->slot, &a->err);
}

static void ahead_run(void *ctx) {
    ahead *a = ctx;
    double start = kt_os_now_ms();
    a->status = ahead_stages(a);
    a->ms = kt_os_now_ms() - start;
}

static void ahead_start(ahead *a, kt_session *s, const char *image, int slot) {
    *a = (ahead){.session = s, .request = kt_request_open(&s->context, image, slot)};
    a->thread = kt_os_thread_start(ahead_run, a, (size_t)8 << 20);
}

static void ahead_join(ahead *a) {
    if (a->thread) kt_os_thread_join(a->thread);
    a->thread = NULL;
}

// ---- one request

static double stage_ms(const kt_session *s, const char *name) {
    for (int i = 0; i < s->plan->n_stages; i++)
        if (kt_str_is(s->plan->stages[i].name, name) && !s->plan->stages[i].ahead)
            return s->backend->table->stage_ms(s->backend, i);
    return 0;
}

static void give_result(
    kt_session *s, const ahead *a, const kt_events *events, int image, double start) {
    const kt_request *r = a->request;
    const kt_answers *answers = r->objects[s->plan->result];
    if (!answers || !events->result) return;
    kt_result_item *items = KT_NEW_ARRAY(&a->request->arena, kt_result_item, answers->n + 1);
    for (int i = 0; i < answers->n; i++) {
        const kt_answer *from = &answers->at[i];
        items[i] = (kt_result_item){from->name, from->title, from->text, from->cut, from->tokens};
    }
    kt_result result = {.image = r->image_path,
        .pipeline = s->pipeline->path,
        .model = s->model.folder,
        .device = s->device_name,
        .items = items,
        .n_items = answers->n,
        .prompt_tokens = r->prompt_tokens,
        .completion_tokens = r->completion_tokens,
        .ms = {.load = s->load_ms,
            .prepare = s->prepare_ms,
            .image = a->ms,
            .vision = stage_ms(s, "vision"),
            .prefill = stage_ms(s, "prompt") + stage_ms(s, "prefill"),
            .decode = stage_ms(s, "decode"),
            .total = kt_os_now_ms() - start + a->ms}};
    events->result(events->ctx, image, &result);
}

static kt_status run_one(kt_session *s, ahead *a, const kt_events *events, int image, kt_err *err) {
    double start = kt_os_now_ms();
    stream out = {.session = s, .events = events, .image = image};
    KT_TRY(s->backend->table->await_ahead(s->backend, a->request->slot, err));
    for (int i = 0; i < s->plan->n_stages; i++)
        if (!s->plan->stages[i].ahead) KT_TRY(run_stage(s, a->request, i, &out, err));
    KT_TRY(s->backend->table->wait(s->backend, err));
    give_result(s, a, events, image, start);
    return KT_OK;
}

// Errors that belong to one picture; all others end the run.
static bool is_of_picture(kt_status status) {
    return status == KT_EIMAGE || status == KT_EPROMPT || status == KT_EFILE;
}

kt_status kt_session_run(
    kt_session *s, const char *const *images, int n, const kt_events *events, kt_err *err) {
    int count = n > 0 ? n : 1;
    ahead jobs[KT_SLOTS] = {0};
    kt_status status = KT_OK;
    ahead_start(&jobs[0], s, n > 0 ? images[0] : NULL, 0);
    for (int i = 0; i < count && status == KT_OK; i++) {
        ahead *a = &jobs[i % KT_SLOTS];
        ahead_join(a);
        if (i + 1 < count)
            ahead_start(&jobs[(i + 1) % KT_SLOTS], s, images[i + 1], (i + 1) % KT_SLOTS);
        status = a->status;
        if (status != KT_OK)
            *err = a->err;
        else
            status = run_one(s, a, events, i, err);
        if (is_of_picture(status)) {
            if (events->failed) events->failed(events->ctx, i, a->request->image_path, err);
            status = KT_OK;
        }
        kt_request_close(a->request);
        a->request = NULL;
    }
    for (int i = 0; i < KT_SLOTS; i++) {
        ahead_join(&jobs[i]);
        kt_request_close(jobs[i].request);
    }
    return status;
}
