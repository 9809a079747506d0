// The CPU back end: every home is a block of host memory, every call a C function.
#include "runtime/exec/backend.h"
#include "runtime/exec/cpu_host.h"
#include "runtime/exec/cpu_op.h"

#include <stdlib.h>
#include <string.h>

// An op with its implementation and its names as C strings.
typedef struct cpu_op {
    const kt_op *op;
    const kt_cpu_op *run;
    const char **ports, **dims, **params;
} cpu_op;

typedef struct cpu {
    kt_backend base;
    kt_arena *arena;
    kt_arena run; // one call
    kt_cpu_options options;
    kt_cpu_host host;
    KT_VEC(cpu_op) ops;
    char *weights, *host_weights, *state, *act;
    char *staging; // of the prepare call that is made, in act
    int64_t area_bytes;
    char *upload[KT_SLOTS];
    double begin_ms[KT_MAX_STAGES], stage_ms[KT_MAX_STAGES];
} cpu;

static char *block(int64_t bytes) {
    char *at = calloc((size_t)bytes + 64, 1); // pages that are never touched cost nothing
    if (!at) kt_out_of_memory((size_t)bytes);
    return at;
}

static void cpu_close(kt_backend *backend) {
    cpu *c = (cpu *)backend;
    if (!c) return;
    free(c->weights);
    free(c->host_weights);
    free(c->state);
    free(c->act);
    for (int i = 0; i < KT_SLOTS; i++) free(c->upload[i]);
    kt_arena_deinit(&c->run);
}

static const char **names(kt_arena *arena, size_t n) {
    return KT_NEW_ARRAY(arena, const char *, n + 1);
}

static const cpu_op *get_op(const cpu *c, const kt_op *op) {
    for (size_t i = 0; i < c->ops.n; i++)
        if (c->ops.at[i].op == op) return &c->ops.at[i];
    KT_ASSERT(!"all ops of the plan were opened");
    return NULL;
}

static kt_status open_op(cpu *c, const kt_op *op, kt_err *err) {
    for (size_t i = 0; i < c->ops.n; i++)
        if (c->ops.at[i].op == op) return KT_OK;
    cpu_op found = {.op = op};
    KT_TRY(kt_cpu_op_find(op, c->options.include, &found.run, err));
    found.ports = names(c->arena, (size_t)op->n_ports);
    found.dims = names(c->arena, (size_t)op->n_dims);
    found.params = names(c->arena, (size_t)op->n_params);
    for (int i = 0; i < op->n_ports; i++) found.ports[i] = kt_str_z(c->arena, op->ports[i].name);
    for (int i = 0; i < op->n_dims; i++) found.dims[i] = kt_str_z(c->arena, op->dims[i].name);
    for (int i = 0; i < op->n_params; i++) found.params[i] = kt_str_z(c->arena, op->params[i].name);
    KT_PUSH(c->arena, &c->ops, found);
    return KT_OK;
}

static kt_status open_ops(cpu *c, kt_err *err) {
    const kt_plan *plan = c->base.plan;
    for (int s = 0; s < plan->n_stages; s++)
        for (int l = 0; l < plan->stages[s].n_lists; l++) {
            const kt_step_list *list = &plan->stages[s].lists[l];
            for (int i = 0; i < list->n_steps; i++)
                if (list->steps[i].call) KT_TRY(open_op(c, list->steps[i].call->op, err));
        }
    for (int i = 0; i < plan->n_layouts; i++)
        for (int w = 0; w < plan->layouts[i].n_prepares; w++) {
            const kt_prepare *prepare = &plan->layouts[i].prepares[w];
            for (int n = 0; n < prepare->n_calls; n++)
                KT_TRY(open_op(c, prepare->calls[n].op, err));
        }
    return KT_OK;
}

// Where a tensor lies. `layout`: of the prepare call that is running, else NULL.
static void *address(const cpu *c, int index, int slot, const kt_layout *layout) {
    const kt_plan *plan = c->base.plan;
    const kt_tensor *t = &plan->tensors[index];
    switch (t->home) {
    case KT_HOME_VECTOR:
        return c->weights + t->offset;
    case KT_HOME_LINEAR: {
        const kt_layout *of = &plan->layouts[plan->weight_layout[t->weight]];
        return (of->host_memory ? c->host_weights : c->weights) + of->offset + t->offset;
    }
    case KT_HOME_LAYOUT:
        return (layout->host_memory ? c->host_weights : c->weights) + layout->offset + t->offset;
    case KT_HOME_STAGING:
        return c->staging + t->offset;
    case KT_HOME_STATE:
    case KT_HOME_COUNTER:
        return c->state + t->offset;
    case KT_HOME_UPLOAD:
        if (plan->target.slots == 1) return c->act + t->offset;
        return c->upload[t->stage >= 0 && plan->stages[t->stage].ahead ? slot : 0] + t->offset;
    case KT_HOME_ACT:
        return c->act + t->offset;
    case KT_HOME_HOST:
        break;
    }
    return NULL;
}

static void fill_tensors(cpu *c, const cpu_op *op, const kt_call *call, const int64_t *values,
    int slot, const kt_layout *layout, kt_cpu_tensor *out) {
    for (int i = 0; i < op->op->n_ports; i++) {
        out[i].name = op->ports[i];
        int index = call->ports[i];
        if (index < 0) continue;
        const kt_tensor *t = &c->base.plan->tensors[index];
        out[i].dtype = kt_dtype_name(t->home == KT_HOME_LINEAR ? KT_DTYPE_F16 : t->dtype);
        out[i].data = address(c, index, slot, layout);
        out[i].rank = t->rank;
        for (int a = 0; a < t->rank; a++) out[i].shape[a] = kt_axis_value(t->axis[a], values);
    }
}

static void fill_numbers(kt_arena *arena, const cpu_op *op, const kt_call *call,
    const int64_t *values, kt_cpu_number *dims, kt_cpu_number *params) {
    for (int i = 0; i < op->op->n_dims; i++)
        dims[i] = (kt_cpu_number){op->dims[i], (double)kt_axis_value(call->dims[i], values), NULL};
    for (int i = 0; i < op->op->n_params; i++) {
        const kt_param *param = &op->op->params[i];
        params[i] = (kt_cpu_number){op->params[i], call->params[i].r, NULL};
        if (param->kind == KT_PARAM_CHOICE)
            params[i].text = kt_str_z(arena, param->choices[call->params[i].i]);
    }
}

static kt_status run_call(cpu *c, const kt_call *call, const int64_t *values, int slot,
    const kt_layout *layout, kt_err *err) {
    const cpu_op *op = get_op(c, call->op);
    kt_arena_mark mark = kt_arena_get_mark(&c->run);
    kt_cpu_tensor *tensors = KT_NEW_ARRAY(&c->run, kt_cpu_tensor, op->op->n_ports + 1);
    kt_cpu_number *dims = KT_NEW_ARRAY(&c->run, kt_cpu_number, op->op->n_dims + 1);
    kt_cpu_number *params = KT_NEW_ARRAY(&c->run, kt_cpu_number, op->op->n_params + 1);
    fill_tensors(c, op, call, values, slot, layout, tensors);
    fill_numbers(&c->run, op, call, values, dims, params);
    kt_cpu_call record = {
        &c->host, tensors, op->op->n_ports, dims, op->op->n_dims, params, op->op->n_params};
    const char *problem = op->run->run(&record);
    kt_arena_reset(&c->run, mark);
    if (!problem) return KT_OK;
    return KT_FAIL(err, KT_EOP, "op '%.*s' at %.*s: %s", KT_STR_ARG(call->op->name),
        KT_STR_ARG(call->address), problem);
}

static kt_status cpu_run(kt_backend *backend, const kt_plan_step *steps, int n,
    const int64_t *values, int slot, kt_err *err) {
    cpu *c = (cpu *)backend;
    for (int i = 0; i < n; i++) {
        if (c->options.stop && *c->options.stop)
            return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
        double start = kt_os_now_ms();
        KT_TRY(run_call(c, steps[i].call, values, slot, NULL, err));
        if (c->options.profile && c->options.profile->on)
            kt_profile_add(
                c->options.profile, backend->plan, steps[i].call, values, kt_os_now_ms() - start);
    }
    return KT_OK;
}

static kt_status cpu_loop(kt_backend *backend, kt_loop *loop, int slot, kt_err *err) {
    cpu *c = (cpu *)backend;
    const int32_t *read = address(c, loop->stage->loop_read, slot, NULL);
    const int32_t *until = address(c, loop->stage->loop_until, slot, NULL);
    const kt_tensor *t = &backend->plan->tensors[loop->stage->loop_until];
    int64_t n = kt_tensor_bytes(t, loop->values) / 4;
    for (loop->steps = 0; loop->steps < loop->most && !kt_loop_ended(until, n);) {
        KT_TRY(cpu_run(backend, loop->list->steps, loop->list->n_steps, loop->values, slot, err));
        loop->steps++;
        if (!loop->step(loop->ctx, read, until)) break;
    }
    return KT_OK;
}

static kt_status cpu_put(
    kt_backend *backend, int tensor, int slot, const void *from, int64_t bytes, kt_err *err) {
    (void)err;
    if (bytes > 0) memcpy(address((cpu *)backend, tensor, slot, NULL), from, (size_t)bytes);
    return KT_OK;
}

static kt_status cpu_get(
    kt_backend *backend, int tensor, int slot, void *to, int64_t bytes, kt_err *err) {
    (void)err;
    if (bytes > 0) memcpy(to, address((cpu *)backend, tensor, slot, NULL), (size_t)bytes);
    return KT_OK;
}

static kt_status cpu_ahead(kt_backend *backend, int slot, kt_err *err) {
    (void)backend, (void)slot, (void)err;
    return KT_OK;
}

// ---- loading: straight into the blocks

enum { AREA_MOST = 32 << 20, PIECE_MOST = 2 << 20 };

static kt_status cpu_load_open(
    kt_backend *backend, int64_t bytes, int n_readers, kt_load_room *room, kt_err *err) {
    (void)bytes, (void)n_readers, (void)err;
    cpu *c = (cpu *)backend;
    kt_load_areas(backend->plan, AREA_MOST, room);
    room->slot_bytes = PIECE_MOST;
    room->vectors = c->weights;
    for (int i = 0; i < room->n_areas; i++) room->areas[i] = c->act + i * room->area_bytes;
    c->area_bytes = room->area_bytes;
    return KT_OK;
}

static kt_status cpu_load_send(kt_backend *backend, const kt_load_piece *piece, kt_err *err) {
    (void)backend, (void)piece, (void)err; // it is there
    return KT_OK;
}

static kt_status cpu_load_sent(kt_backend *backend, int slot, bool wait, bool *done, kt_err *err) {
    (void)backend, (void)slot, (void)wait, (void)err;
    *done = true;
    return KT_OK;
}

static kt_status cpu_load_prepare(kt_backend *backend, const kt_load_call *call, kt_err *err) {
    cpu *c = (cpu *)backend;
    c->staging = c->act + call->area * c->area_bytes + call->offset;
    return run_call(c, call->call, NULL, 0, call->layout, err);
}

static kt_status cpu_load_leave(kt_backend *backend, int area, kt_err *err) {
    (void)backend, (void)area, (void)err;
    return KT_OK;
}

static kt_status cpu_load_close(kt_backend *backend, kt_load_times *times, kt_err *err) {
    (void)backend, (void)err;
    *times = (kt_load_times){0};
    return KT_OK;
}

static kt_status cpu_wait(kt_backend *backend, kt_err *err) {
    (void)backend, (void)err;
    return KT_OK;
}

static kt_status cpu_mark(kt_backend *backend, int stage, bool begin, kt_err *err) {
    (void)err;
    cpu *c = (cpu *)backend;
    if (begin)
        c->begin_ms[stage] = kt_os_now_ms();
    else
        c->stage_ms[stage] = kt_os_now_ms() - c->begin_ms[stage];
    return KT_OK;
}

static double cpu_stage_ms(kt_backend *backend, int stage) {
    return ((cpu *)backend)->stage_ms[stage];
}

static const kt_backend_table table = {
    .name = "cpu",
    .close = cpu_close,
    .put = cpu_put,
    .get = cpu_get,
    .put_ahead = cpu_put,
    .end_ahead = cpu_ahead,
    .await_ahead = cpu_ahead,
    .load_open = cpu_load_open,
    .load_send = cpu_load_send,
    .load_sent = cpu_load_sent,
    .load_prepare = cpu_load_prepare,
    .load_leave = cpu_load_leave,
    .load_close = cpu_load_close,
    .run = cpu_run,
    .loop = cpu_loop,
    .wait = cpu_wait,
    .mark = cpu_mark,
    .stage_ms = cpu_stage_ms,
};

kt_status kt_cpu_backend_open(kt_arena *arena, const kt_plan *plan, const kt_cpu_options *options,
    kt_backend **out, kt_err *err) {
    KT_ASSERT(plan->n_stages <= KT_MAX_STAGES);
    cpu *c = KT_NEW(arena, cpu);
    c->base = (kt_backend){&table, plan};
    c->arena = arena;
    c->options = *options;
    KT_TRY(open_ops(c, err));
    kt_cpu_host_init(&c->host, options->pool, !options->no_blas);
    c->weights = block(plan->bytes.weights);
    c->host_weights = block(plan->bytes.host_weights);
    c->state = block(plan->bytes.state);
    c->act = block(kt_plan_work_bytes(plan));
    for (int i = 0; i < KT_SLOTS; i++) c->upload[i] = block(plan->bytes.upload);
    *out = &c->base;
    return KT_OK;
}
