#include "runtime/exec/request.h"

#include <inttypes.h>
#include <stdlib.h>

typedef struct host_row {
    const char *name;
    kt_host_function run;
} host_row;

static const host_row rows[] = {
    {"read_image", kt_host_read_image},
    {"fit_image", kt_host_fit_image},
    {"slice_image", kt_host_slice_image},
    {"write_prompt", kt_host_write_prompt},
    {"write_text", kt_host_write_text},
    {"write_ids", kt_host_write_ids},
    {"plan_rows", kt_host_plan_rows},
    {"plan_score", kt_host_plan_score},
    {"read_answers", kt_host_read_answers},
    {"read_ids", kt_host_read_ids},
    {"read_score", kt_host_read_score},
};

static const host_row *find_row(kt_str name) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (kt_str_is(name, rows[i].name)) return &rows[i];
    return NULL;
}

kt_request *kt_request_open(const kt_context *context, const char *image_path, int slot) {
    const kt_plan *plan = context->plan;
    kt_request *r = calloc(1, sizeof *r);
    if (!r) kt_out_of_memory(sizeof *r);
    r->context = context;
    r->image_path = image_path;
    r->slot = slot;
    r->values = KT_NEW_ARRAY(&r->arena, int64_t, plan->n_dims + 1);
    for (int i = 0; i < plan->n_dims; i++) r->values[i] = 0;
    r->blobs = KT_NEW_ARRAY(&r->arena, kt_blob, plan->n_tensors + 1);
    r->batches = KT_NEW_ARRAY(&r->arena, kt_batches, plan->n_tensors + 1);
    r->objects = KT_NEW_ARRAY(&r->arena, void *, plan->n_tensors + 1);
    return r;
}

void kt_request_close(kt_request *request) {
    if (!request) return;
    kt_image_deinit(&request->image);
    kt_arena_deinit(&request->arena);
    free(request);
}

kt_status kt_host_run(kt_request *request, const kt_host_call *call, kt_err *err) {
    const host_row *row = find_row(call->step->name);
    KT_ASSERT(row != NULL);
    kt_host host = {request, call};
    return row->run(&host, err);
}

const kt_prompts *kt_request_prompts(const kt_request *request) {
    const kt_plan *plan = request->context->plan;
    for (int i = 0; i < plan->n_tensors; i++) {
        const kt_tensor *t = &plan->tensors[i];
        if (t->home == KT_HOME_HOST && t->host == KT_HOST_TYPE_PROMPT && request->objects[i])
            return request->objects[i];
    }
    return NULL;
}

static int find_port(const kt_host_port *ports, int n, const int *tensors, const char *name) {
    for (int i = 0; i < n; i++)
        if (kt_str_is(ports[i].name, name)) return tensors[i];
    KT_ASSERT(false && "a host step asks for a port of its contract");
    return -1;
}

int kt_host_in(const kt_host *host, const char *port) {
    return find_port(host->call->step->in, host->call->step->n_in, host->call->in, port);
}

int kt_host_inout(const kt_host *host, const char *port) {
    return find_port(host->call->step->inout, host->call->step->n_inout, host->call->inout, port);
}

int kt_host_out(const kt_host *host, const char *port) {
    return find_port(host->call->step->out, host->call->step->n_out, host->call->out, port);
}

static int find_param(const kt_host *host, const char *name) {
    for (int i = 0; i < host->call->step->n_params; i++)
        if (kt_str_is(host->call->step->params[i].name, name)) return i;
    KT_ASSERT(false && "a host step asks for a parameter of its contract");
    return -1;
}

int64_t kt_host_number(const kt_host *host, const char *param) {
    return host->call->params[find_param(host, param)].i;
}

double kt_host_real(const kt_host *host, const char *param) {
    return host->call->params[find_param(host, param)].r;
}

kt_str kt_host_word(const kt_host *host, const char *param) {
    return host->call->words[find_param(host, param)];
}

static int find_dim(const kt_host *host, const char *name) {
    for (int i = 0; i < host->call->step->n_decides; i++)
        if (kt_str_is(host->call->step->decides[i], name)) return host->call->dims[i];
    KT_ASSERT(false && "a host step decides a dim of its contract");
    return -1;
}

int64_t kt_host_max(const kt_host *host, const char *dim) {
    int index = find_dim(host, dim);
    return index < 0 ? INT64_MAX : host->request->context->plan->dims[index].max;
}

kt_status kt_host_decide(
    const kt_host *host, const char *dim, int64_t value, kt_status code, kt_err *err) {
    int index = find_dim(host, dim);
    if (index < 0) return KT_OK; // a fixed size
    const kt_plan_dim *d = &host->request->context->plan->dims[index];
    if (value > d->max)
        return KT_FAIL(err, code,
            "this needs %" PRId64 " '%.*s', and the pipeline allows at most %" PRId64
            "; raise the dim's maximum or lower what asks for it",
            value, KT_STR_ARG(d->name), d->max);
    int bucket = 0; // the smallest one that holds the value
    while (bucket < d->n_buckets && d->buckets[bucket] < value) bucket++;
    host->request->values[index] = bucket < d->n_buckets ? d->buckets[bucket] : value;
    return KT_OK;
}

void kt_host_give(const kt_host *host, int tensor, const void *data, int64_t bytes) {
    if (tensor >= 0) host->request->blobs[tensor] = (kt_blob){data, bytes};
}

const void *kt_host_data(const kt_host *host, int tensor) {
    KT_ASSERT(tensor >= 0 && host->request->blobs[tensor].data != NULL);
    return host->request->blobs[tensor].data;
}

int64_t kt_host_size(const kt_host *host, int tensor, int axis) {
    const kt_tensor *t = &host->request->context->plan->tensors[tensor];
    return kt_axis_value(t->axis[axis], host->request->values);
}
