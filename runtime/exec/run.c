// Runs requests through a session: ahead stages on a second thread, the others in order.
#include "loader/detokenizer.h"
#include "runtime/exec/session.h"

#include <inttypes.h>
#include <string.h>

// ---- streaming: what a loop has made so far, as text

// A row whose text is given out while it is made. The pieces of a row, put together, are the text
// of its item: blanks at both ends are left out, so blanks are held until something follows them.
typedef struct stream_row {
    kt_detokenizer detokenizer;
    int64_t seen; // tokens taken
    bool begun;
    kt_buf blanks;
} stream_row;

typedef struct stream {
    kt_session *session;
    const kt_events *events;
    int image;
    int64_t most;              // tokens between the rows of what the loop reads
    const kt_prompts *prompts; // for their stop tokens
    stream_row *rows;          // of the items
    int n_rows;                // 0: nothing is given out
    kt_buf piece;
} stream;

static void give_piece(stream *s, int item) {
    stream_row *row = &s->rows[item];
    size_t from = 0, to = s->piece.n;
    while (!row->begun && from < to && kt_chat_blank(s->piece.at[from])) from++;
    while (to > from && kt_chat_blank(s->piece.at[to - 1])) to--;
    if (to > from) {
        if (row->blanks.n > 0)
            s->events->text(
                s->events->ctx, s->image, item, (kt_str){row->blanks.at, row->blanks.n});
        s->events->text(s->events->ctx, s->image, item, (kt_str){s->piece.at + from, to - from});
        kt_buf_clear(&row->blanks);
        row->begun = true;
    }
    if (row->begun && s->piece.n > to) kt_buf_add(&row->blanks, s->piece.at + to, s->piece.n - to);
    kt_buf_clear(&s->piece);
}

static bool interrupted(const kt_session *s) {
    return s->options.stop && *s->options.stop;
}

static bool stream_step(void *ctx, const int32_t *read, const int32_t *until) {
    stream *s = ctx;
    (void)until;
    for (int i = 0; i < s->n_rows; i++) {
        stream_row *row = &s->rows[i];
        const int32_t *ids = read + i * s->most;
        for (; row->seen < s->most && ids[row->seen] >= 0; row->seen++)
            if (!kt_chat_stops(s->prompts, ids[row->seen]))
                kt_detokenizer_push(&row->detokenizer, ids[row->seen], &s->piece);
        if (s->piece.n > 0) give_piece(s, i);
    }
    return !interrupted(s->session);
}

static void open_stream(stream *s, kt_request *r, const kt_stage *stage) {
    const kt_tensor *read = &s->session->plan->tensors[stage->loop_read];
    s->prompts = kt_request_prompts(r);
    s->most = kt_axis_value(read->axis[1], r->values);
    bool branches = s->prompts && s->prompts->n == r->context->n_items;
    bool texts = s->events->text && r->context->tokenizer; // ids alone are no text
    s->n_rows = texts && branches ? r->context->n_items : 0;
    s->rows = KT_NEW_ARRAY(&r->arena, stream_row, s->n_rows);
    for (int i = 0; i < s->n_rows; i++)
        kt_detokenizer_init(&s->rows[i].detokenizer, r->context->tokenizer, false);
}

// `complete`: the loop came to its end, so a character that was begun stays as it is.
static void close_stream(stream *s, bool complete) {
    for (int i = 0; i < s->n_rows; i++) {
        if (complete) kt_detokenizer_flush(&s->rows[i].detokenizer, &s->piece);
        if (s->piece.n > 0) give_piece(s, i);
        kt_buf_deinit(&s->rows[i].blanks);
    }
    kt_buf_deinit(&s->piece);
    s->n_rows = 0;
}

// ---- stages

// A dim that is a plain number in the pipeline is not the host step's to decide; then what the step
// made may not fit.
static kt_status check_size(const kt_request *r, const kt_host_call *call, int tensor,
    const kt_blob *blob, const int64_t *values, kt_err *err) {
    const kt_tensor *t = &r->context->plan->tensors[tensor];
    int64_t want = kt_tensor_bytes(t, values);
    if (blob->bytes == want) return KT_OK;
    return KT_FAIL(err, KT_EYAML,
        "host step '%.*s' at %.*s makes %" PRId64 " bytes of '%.*s', which has %" PRId64
        "; give its dims a 'max' and let the step decide them",
        KT_STR_ARG(call->step->name), KT_STR_ARG(call->address), blob->bytes, KT_STR_ARG(t->name),
        want);
}

static kt_status put_output(
    kt_request *r, const kt_host_call *call, int tensor, bool ahead, kt_err *err) {
    kt_backend *b = r->context->backend;
    const kt_batches *batches = &r->batches[tensor];
    for (int i = 0; i < batches->n; i++) // those are put one by one, when their turn comes
        KT_TRY(check_size(r, call, tensor, &batches->at[i], r->batch_values[i], err));
    const kt_blob *blob = &r->blobs[tensor];
    if (!blob->data) return KT_OK;
    KT_TRY(check_size(r, call, tensor, blob, r->values, err));
    return (ahead ? b->table->put_ahead : b->table->put)(
        b, tensor, r->slot, blob->data, blob->bytes, err);
}

static kt_status put_outputs(kt_request *r, const kt_host_call *call, bool ahead, kt_err *err) {
    const int *lists[2] = {call->out, call->inout};
    const int counts[2] = {call->step->n_out, call->step->n_inout};
    for (int l = 0; l < 2; l++)
        for (int i = 0; i < counts[l]; i++) {
            int t = lists[l][i];
            if (t >= 0 && r->context->plan->tensors[t].home != KT_HOME_HOST)
                KT_TRY(put_output(r, call, t, ahead, err));
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

// One pass through a list.
typedef struct pass {
    const kt_step_list *list;
    const int64_t *values; // by plan dim
    int64_t index;         // of the batch or the loop's step; -1: there is one
    kt_dump *dump;         // NULL: nobody looks
} pass;

// Where the steps from `from` on that go in one go end: before a host step, behind one to look at.
static int find_end(const pass *p, int from) {
    int end = from;
    while (end < p->list->n_steps && p->list->steps[end].call) {
        end++;
        if (p->dump && kt_dump_wants(p->dump, p->list, end - 1)) break;
    }
    return end;
}

static kt_status run_host(kt_request *r, const kt_host_call *call, bool ahead, kt_err *err) {
    KT_TRY(kt_host_run(r, call, err));
    return put_outputs(r, call, ahead, err);
}

// Host steps one by one; op steps between them in one go.
static kt_status run_steps(kt_request *r, const pass *p, kt_err *err) {
    kt_backend *b = r->context->backend;
    for (int i = 0; i < p->list->n_steps;) {
        const kt_host_call *host = p->list->steps[i].host;
        int end = host ? i + 1 : find_end(p, i);
        if (host)
            KT_TRY(run_host(r, host, false, err));
        else
            KT_TRY(b->table->run(b, p->list->steps + i, end - i, p->values, r->slot, err));
        if (p->dump) KT_TRY(kt_dump_step(p->dump, r, p->list, end - 1, p->values, p->index, err));
        i = end;
    }
    return KT_OK;
}

static kt_status run_once(kt_session *s, kt_request *r, const kt_stage *stage, kt_err *err) {
    pass p = {choose_list(stage, r->values), r->values, -1, s->dump};
    return run_steps(r, &p, err);
}

static kt_status run_batches(kt_session *s, kt_request *r, const kt_stage *stage, kt_err *err) {
    kt_backend *b = r->context->backend;
    for (int batch = 0; batch < r->n_batches; batch++) {
        const int64_t *values = r->batch_values[batch];
        for (int i = 0; i < stage->n_each; i++) {
            const kt_batches *of = &r->batches[stage->each[i]];
            KT_ASSERT(of->n == r->n_batches);
            KT_TRY(b->table->put(
                b, stage->each[i], r->slot, of->at[batch].data, of->at[batch].bytes, err));
        }
        pass p = {choose_list(stage, values), values, batch, s->dump};
        KT_TRY(run_steps(r, &p, err));
    }
    return KT_OK;
}

// The back end's loop, step by step, for those who look at what a step makes.
static kt_status run_loop_slowly(kt_session *s, kt_request *r, kt_loop *loop, kt_err *err) {
    const kt_backend_table *table = s->backend->table;
    const int tensors[2] = {loop->stage->loop_read, loop->stage->loop_until};
    int64_t bytes[2];
    int32_t *at[2];
    for (int i = 0; i < 2; i++) {
        bytes[i] = kt_tensor_bytes(&s->plan->tensors[tensors[i]], loop->values);
        at[i] = kt_arena_alloc(&r->arena, (size_t)bytes[i]);
    }
    KT_TRY(table->get(s->backend, tensors[1], r->slot, at[1], bytes[1], err));
    while (loop->steps < loop->most && !kt_loop_ended(at[1], bytes[1] / 4)) {
        pass p = {loop->list, loop->values, loop->steps, s->dump};
        KT_TRY(run_steps(r, &p, err));
        for (int i = 0; i < 2; i++)
            KT_TRY(table->get(s->backend, tensors[i], r->slot, at[i], bytes[i], err));
        loop->steps++;
        if (!loop->step(loop->ctx, at[0], at[1])) break;
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
    kt_status status = s->dump ? run_loop_slowly(s, r, &loop, err)
                               : s->backend->table->loop(s->backend, &loop, r->slot, err);
    close_stream(out, status == KT_OK && !interrupted(s));
    return status;
}

static kt_status run_stage(kt_session *s, kt_request *r, int index, stream *out, kt_err *err) {
    const kt_stage *stage = &s->plan->stages[index];
    const kt_backend_table *table = s->backend->table;
    if (interrupted(s)) return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
    KT_TRY(table->mark(s->backend, index, true, err));
    if (stage->loop)
        KT_TRY(run_loop(s, r, stage, out, err));
    else if (stage->n_each > 0)
        KT_TRY(run_batches(s, r, stage, err));
    else
        KT_TRY(run_once(s, r, stage, err));
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
    for (int i = 0; i < plan->n_stages; i++) {
        const kt_step_list *list = &plan->stages[i].lists[0]; // of host steps alone
        for (int k = 0; plan->stages[i].ahead && k < list->n_steps; k++)
            KT_TRY(run_host(a->request, list->steps[k].host, true, &a->err));
    }
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
    if (!a->thread) ahead_run(a); // the system gives no thread: now, then
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
    kt_request *r = a->request;
    const kt_answers *answers = r->objects[s->plan->result];
    if (!answers || !events->result) return;
    kt_result_item *items = KT_NEW_ARRAY(&r->arena, kt_result_item, answers->n);
    for (int i = 0; i < answers->n; i++) {
        const kt_answer *from = &answers->at[i];
        items[i] = (kt_result_item){from->name, from->title, from->text, from->cut, from->tokens};
    }
    kt_result result = {.image = r->image_path,
        .pipeline = s->pipeline->path,
        .model = s->model_path,
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

// What the ahead stages made; they ran on another thread.
static kt_status dump_ahead(kt_session *s, kt_request *r, kt_err *err) {
    for (int i = 0; s->dump && i < s->plan->n_stages; i++) {
        const kt_step_list *list = &s->plan->stages[i].lists[0];
        for (int k = 0; s->plan->stages[i].ahead && k < list->n_steps; k++)
            KT_TRY(kt_dump_step(s->dump, r, list, k, r->values, -1, err));
    }
    return KT_OK;
}

static kt_status run_one(kt_session *s, ahead *a, const kt_events *events, int image, kt_err *err) {
    double start = kt_os_now_ms();
    stream out = {.session = s, .events = events, .image = image};
    KT_TRY(s->backend->table->await_ahead(s->backend, a->request->slot, err));
    KT_TRY(dump_ahead(s, a->request, err));
    for (int i = 0; i < s->plan->n_stages; i++)
        if (!s->plan->stages[i].ahead) KT_TRY(run_stage(s, a->request, i, &out, err));
    KT_TRY(s->backend->table->wait(s->backend, err));
    if (interrupted(s)) return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
    give_result(s, a, events, image, start);
    return KT_OK;
}

// Errors that belong to one picture; all others end the run.
static bool is_of_picture(kt_status status) {
    return status == KT_EIMAGE || status == KT_EPROMPT || status == KT_EFILE;
}

// One picture, from the join of its ahead stages to its result. Returns an error that ends the run.
static kt_status finish_one(
    kt_session *s, ahead *a, const kt_events *events, int image, kt_err *err) {
    const char *path = a->request->image_path;
    kt_status status = a->status;
    if (status == KT_OK) {
        status = run_one(s, a, events, image, err);
    } else {
        *err = a->err;
    }
    if (status != KT_OK) { // the device may still read what belongs to the request
        kt_err ignored;
        (void)s->backend->table->wait(s->backend, &ignored);
        bool say = path && status != KT_EINTERRUPTED && !strstr(err->text, path);
        if (say) kt_err_note(err, "the picture is '%s'", path);
    }
    bool dump_failed = s->dump && kt_dump_failed(s->dump);
    if (!is_of_picture(status) || dump_failed) return status;
    if (events->failed) events->failed(events->ctx, image, path, err);
    return KT_OK;
}

static kt_status check_images(const kt_session *s, int n, kt_err *err) {
    bool takes = kt_session_takes_picture(s);
    if (n == 0 && takes)
        return KT_FAIL(err, KT_EUSAGE, "pipeline '%.*s' looks at a picture, and none is given",
            KT_STR_ARG(s->pipeline->name));
    if (n > 0 && !takes)
        return KT_FAIL(err, KT_EUSAGE, "pipeline '%.*s' looks at no picture, and %d %s given",
            KT_STR_ARG(s->pipeline->name), n, n == 1 ? "is" : "are");
    if (n > 1 && s->dump)
        return KT_FAIL(err, KT_EUSAGE, "a dump is of one picture, and %d are given", n);
    return KT_OK;
}

static kt_status end_dump(const kt_session *s, kt_status status, kt_err *err) {
    kt_err late;
    if (!s->dump) return status;
    if (status == KT_OK) kt_dump_warn(s->dump);
    if (!s->dump_folder) return status;
    kt_status ended = kt_dump_folder_end(s->dump_folder, s->plan, status == KT_OK ? err : &late);
    return status == KT_OK ? ended : status;
}

kt_status kt_session_run(
    kt_session *s, const char *const *images, int n, const kt_events *events, kt_err *err) {
    static const kt_events none = {0};
    int count = n > 0 ? n : 1;
    ahead jobs[KT_SLOTS] = {0};
    if (!events) events = &none;
    KT_TRY(check_images(s, n, err));
    kt_status status = KT_OK;
    ahead_start(&jobs[0], s, n > 0 ? images[0] : NULL, 0);
    for (int i = 0; i < count && status == KT_OK; i++) {
        ahead *a = &jobs[i % KT_SLOTS], *next = &jobs[(i + 1) % KT_SLOTS];
        ahead_join(a);
        bool more = i + 1 < count;
        if (more && s->options.several) ahead_start(next, s, images[i + 1], (i + 1) % KT_SLOTS);
        status = finish_one(s, a, events, i, err);
        kt_request_close(a->request);
        a->request = NULL;
        if (more && !s->options.several && status == KT_OK)
            ahead_start(next, s, images[i + 1], (i + 1) % KT_SLOTS);
    }
    for (int i = 0; i < KT_SLOTS; i++) {
        ahead_join(&jobs[i]);
        kt_request_close(jobs[i].request);
    }
    return end_dump(s, status, err);
}
