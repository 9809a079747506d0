#include "runtime/exec/cuda_parts.h"

#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { AHEAD_RING = 1 << 20 };
enum {
    PARAM_BYTES = 4096,
    SPINS = 4096,
    STALL_MS = 1000,      // a step that takes longer may have failed: ask the driver
    STALL_TIMEOUT_MS = 2, // where the system resets the GPU it may also hold work back: push it
};

// ---- addresses

static int64_t slot_offset(const kt_cuda *c, const kt_tensor *t, int slot) {
    const kt_plan *plan = c->base.plan;
    bool ahead = t->stage >= 0 && plan->stages[t->stage].ahead;
    return ahead && c->options.slots > 1 ? slot * plan->bytes.upload : 0;
}

static kt_dptr layout_address(const kt_cuda *c, const kt_layout *layout) {
    return (layout->host_memory ? c->host_weights.device : c->weights.at) +
           (uint64_t)layout->offset;
}

// `layout`: of the prepare call that is running, else NULL.
static kt_dptr address(const kt_cuda *c, int index, int slot, const kt_layout *layout) {
    const kt_tensor *t = &c->base.plan->tensors[index];
    uint64_t offset = (uint64_t)t->offset;
    switch (t->home) {
    case KT_HOME_VECTOR:
        return c->weights.at + offset;
    case KT_HOME_LAYOUT:
        KT_ASSERT(layout); // of a prepare call
        return layout_address(c, layout) + offset;
    case KT_HOME_STAGING:
        return c->staging + offset;
    case KT_HOME_STATE:
    case KT_HOME_COUNTER:
        return c->state.at + offset;
    case KT_HOME_UPLOAD:
        if (c->base.plan->target.slots == 1) return c->act.at + offset;
        return c->upload.at + offset + (uint64_t)slot_offset(c, t, slot);
    case KT_HOME_ACT:
        return c->act.at + offset;
    case KT_HOME_LINEAR:
    case KT_HOME_HOST:
        break;
    }
    KT_ASSERT(false && "a kernel takes this tensor by pointer");
    return 0;
}

// ---- launches

static void pack_arg(const kt_cuda *c, const kt_call *call, const kt_arg *arg,
    const int64_t *values, int slot, const kt_layout *layout, void *out) {
    uint64_t pointer = 0;
    int32_t number = 0;
    float real = 0;
    switch (arg->kind) {
    case KT_ARG_PORT:
        if (call->ports[arg->index] >= 0)
            pointer = address(c, call->ports[arg->index], slot, layout);
        memcpy(out, &pointer, sizeof pointer);
        return;
    case KT_ARG_LAYOUT:
        pointer = layout_address(c, &c->base.plan->layouts[call->layouts[arg->index]]);
        memcpy(out, &pointer, sizeof pointer);
        return;
    case KT_ARG_SCRATCH:
        pointer = address(c, call->scratch[arg->index], slot, layout);
        memcpy(out, &pointer, sizeof pointer);
        return;
    case KT_ARG_COUNTER:
        pointer = address(c, call->counters[arg->index], slot, layout);
        memcpy(out, &pointer, sizeof pointer);
        return;
    case KT_ARG_DIM:
        number = (int32_t)kt_axis_value(call->dims[arg->index], values);
        memcpy(out, &number, sizeof number);
        return;
    case KT_ARG_PARAM:
        number = (int32_t)call->params[arg->index].i;
        real = (float)call->params[arg->index].r;
        if (call->op->params[arg->index].kind == KT_PARAM_F32)
            memcpy(out, &real, sizeof real);
        else
            memcpy(out, &number, sizeof number);
        return;
    }
}

static kt_status emit(kt_cuda *c, const kt_cuda_sink *to, const kt_launch *launch, kt_err *err) {
    if (to->graph) return kt_gpu_graph_kernel(to->graph, launch, NULL, NULL, err);
    return kt_gpu_launch(c->gpu, to->stream, launch, err);
}

// `part` has the kernel and its parameters; name and geometry are added.
static kt_status emit_launch(kt_cuda *c, const kt_cuda_sink *to, const kt_call *call, int number,
    const int64_t *values, const kt_launch *part, kt_err *err) {
    kt_launch launch = *part;
    kt_geometry g;
    KT_TRY(kt_plan_geometry(c->base.plan, call, number, values, &g, err));
    launch.shared_bytes = (uint32_t)g.shared_bytes;
    for (int i = 0; i < 3; i++) {
        if (g.grid[i] == 0) return KT_OK; // nothing to compute
        launch.grid[i] = (uint32_t)g.grid[i];
        launch.block[i] = (uint32_t)g.block[i];
    }
    char name[192];
    snprintf(name, sizeof name, "%.*s: %.*s[%.*s]", KT_STR_ARG(call->address),
        KT_STR_ARG(call->op->name), KT_STR_ARG(call->variant->name));
    launch.name = name;
    return emit(c, to, &launch, err);
}

kt_status kt_cuda_emit_call(kt_cuda *c, const kt_cuda_sink *to, const kt_call *call,
    const int64_t *values, int slot, const kt_layout *layout, kt_err *err) {
    const kt_cuda_build *build = &c->builds[call->build];
    for (int i = 0; i < call->variant->n_launches; i++) {
        const kt_gpu_kernel *kernel = build->kernels[i];
        unsigned char params[PARAM_BYTES] = {0};
        size_t end = 0;
        for (int a = 0; a < build->n_args; a++) {
            end = kernel->param_offset[a] + kernel->param_bytes[a];
            if (end > sizeof params)
                return KT_FAIL(err, KT_EOP, "kernel '%s' takes more than %d bytes of parameters",
                    kernel->name, PARAM_BYTES);
            pack_arg(
                c, call, &build->args[a], values, slot, layout, params + kernel->param_offset[a]);
        }
        kt_launch part = {
            .kernel = kernel, .params = params, .params_bytes = end, .n_params = build->n_args};
        KT_TRY(emit_launch(c, to, call, i, values, &part, err));
    }
    return KT_OK;
}

static kt_status profile_call(
    kt_cuda *c, const kt_call *call, const int64_t *values, int slot, kt_err *err) {
    kt_cuda_sink to = {c->gpu->compute, NULL};
    double ms = 0;
    kt_gpu_timer_reset(c->timer);
    KT_TRY(kt_gpu_timer_mark(c->timer, c->gpu->compute, NULL, err));
    KT_TRY(kt_cuda_emit_call(c, &to, call, values, slot, NULL, err));
    KT_TRY(kt_gpu_timer_mark(c->timer, c->gpu->compute, NULL, err));
    KT_TRY(kt_gpu_timer_ms(c->timer, 0, 1, &ms, err));
    kt_profile_add(c->options.profile, c->base.plan, call, values, ms);
    return KT_OK;
}

static bool profiling(const kt_cuda *c) {
    return c->options.profile && c->options.profile->on;
}

static kt_status cuda_run(kt_backend *backend, const kt_plan_step *steps, int n,
    const int64_t *values, int slot, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    kt_cuda_sink to = {c->gpu->compute, NULL};
    for (int i = 0; i < n; i++) {
        if (c->options.stop && *c->options.stop)
            return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
        if (profiling(c))
            KT_TRY(profile_call(c, steps[i].call, values, slot, err));
        else
            KT_TRY(kt_cuda_emit_call(c, &to, steps[i].call, values, slot, NULL, err));
    }
    return KT_OK;
}

// ---- loops: graph replays submitted ahead of their results

static kt_status emit_downloads(
    kt_cuda *c, const kt_cuda_sink *to, const kt_stage *stage, const int64_t *values, kt_err *err) {
    const kt_plan *plan = c->base.plan;
    kt_cuda_mirror *m = &c->mirrors[stage - plan->stages];
    const int tensors[2] = {
        stage->loop_read, stage->loop_until}; // `until` tells that `read` is there
    void *const hosts[2] = {m->read.at, m->until.at};
    for (int i = 0; i < 2; i++) {
        size_t bytes = (size_t)kt_tensor_bytes(&plan->tensors[tensors[i]], values);
        kt_dptr from = address(c, tensors[i], 0, NULL);
        if (to->graph)
            KT_TRY(kt_gpu_graph_download(to->graph, hosts[i], from, bytes, NULL, NULL, err));
        else
            KT_TRY(kt_gpu_download(c->gpu, to->stream, hosts[i], from, bytes, err));
    }
    return KT_OK;
}

static kt_status record(kt_cuda *c, const kt_stage *stage, const kt_step_list *list,
    const int64_t *values, int slot, kt_gpu_graph **out, kt_err *err) {
    for (size_t i = 0; i < c->graphs.n; i++)
        if (c->graphs.at[i].list == list && c->graphs.at[i].slot == slot) {
            *out = c->graphs.at[i].graph;
            return KT_OK;
        }
    double start = kt_os_now_ms();
    kt_cuda_recorded new = {list, slot, NULL};
    char *name =
        kt_arena_printf(c->arena, "%.*s[%" PRId64 "]", KT_STR_ARG(stage->name), list->bucket);
    KT_TRY(kt_gpu_graph_open(c->gpu, name, &new.graph, err));
    KT_PUSH(c->arena, &c->graphs, new);
    kt_cuda_sink to = {NULL, new.graph};
    for (int i = 0; i < list->n_steps; i++)
        KT_TRY(kt_cuda_emit_call(c, &to, list->steps[i].call, values, slot, NULL, err));
    if (stage->loop) KT_TRY(emit_downloads(c, &to, stage, values, err));
    KT_TRY(kt_gpu_graph_finish(new.graph, err));
    c->times.graph_ms += kt_os_now_ms() - start;
    *out = new.graph;
    return KT_OK;
}

// One step of a loop, submitted.
static kt_status submit(
    kt_cuda *c, const kt_loop *loop, kt_gpu_graph *graph, int slot, kt_err *err) {
    if (graph) return kt_gpu_graph_launch(graph, c->gpu->compute, err);
    kt_cuda_sink to = {c->gpu->compute, NULL};
    KT_TRY(cuda_run(&c->base, loop->list->steps, loop->list->n_steps, loop->values, slot, err));
    return emit_downloads(c, &to, loop->stage, loop->values, err);
}

// Has the step with this number arrived in the mirror: every row has its token or has stopped.
static bool arrived(const volatile int32_t *read, const volatile int32_t *until, int64_t rows,
    int64_t most, int64_t step) {
    for (int64_t r = 0; r < rows; r++)
        if (until[r] != 0 && read[r * most + step] < 0) return false;
    return true;
}

static kt_status await_step(
    kt_cuda *c, const kt_cuda_mirror *m, int64_t rows, int64_t most, int64_t step, kt_err *err) {
    double start = kt_os_now_ms();
    double patience = c->gpu->info.kernel_timeout ? STALL_TIMEOUT_MS : STALL_MS;
    for (int64_t spin = 0; !arrived(m->read.at, m->until.at, rows, most, step); spin++) {
        if (spin < SPINS) continue;
        if (c->options.stop && *c->options.stop)
            return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
        kt_os_sleep_us(20);
        if (kt_os_now_ms() - start < patience) continue;
        KT_TRY(kt_gpu_flush(c->gpu, c->gpu->compute, err)); // a kernel that failed shows here
        start = kt_os_now_ms();
    }
    return KT_OK;
}

static kt_status run_steps(kt_cuda *c, kt_loop *loop, kt_gpu_graph *graph, int slot, kt_err *err) {
    const kt_plan *plan = c->base.plan;
    const kt_cuda_mirror *m = &c->mirrors[loop->stage - plan->stages];
    int64_t rows = kt_tensor_bytes(&plan->tensors[loop->stage->loop_until], loop->values) / 4;
    int64_t most = kt_axis_value(plan->tensors[loop->stage->loop_read].axis[1], loop->values);
    int64_t submitted = 0;
    for (loop->steps = 0; loop->steps < loop->most && !kt_loop_ended(m->until.at, rows);
         loop->steps++) {
        for (; submitted < loop->most && submitted < loop->steps + 2; submitted++)
            KT_TRY(submit(c, loop, graph, slot, err));
        KT_TRY(await_step(c, m, rows, most, loop->steps, err));
        if (!loop->step(loop->ctx, m->read.at, m->until.at)) break;
    }
    return KT_OK;
}

// Does a call of the list read what a host step of another stage uploads to the picture's slot?
static bool uses_slot(const kt_cuda *c, const kt_step_list *list) {
    const kt_plan *plan = c->base.plan;
    for (int i = 0; i < list->n_steps; i++) {
        const kt_call *call = list->steps[i].call;
        for (int p = 0; call && p < call->op->n_ports; p++) {
            const kt_tensor *t = call->ports[p] >= 0 ? &plan->tensors[call->ports[p]] : NULL;
            if (t && t->home == KT_HOME_UPLOAD && slot_offset(c, t, 1) != 0) return true;
        }
    }
    return false;
}

static kt_status cuda_loop(kt_backend *backend, kt_loop *loop, int slot, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    kt_gpu_graph *graph = NULL;
    int which = uses_slot(c, loop->list) ? slot : 0;
    if (loop->stage->graph && c->options.graph && !profiling(c))
        KT_TRY(record(c, loop->stage, loop->list, loop->values, which, &graph, err));
    kt_status status = run_steps(c, loop, graph, slot, err);
    kt_err late; // steps may be under way: past the end, or because the loop was left
    kt_status waited = kt_gpu_wait(c->gpu, c->gpu->compute, status == KT_OK ? err : &late);
    return status == KT_OK ? waited : status;
}

// One graph for each slot that the list tells apart.
static kt_status record_slots(kt_cuda *c, const kt_stage *stage, const kt_step_list *list,
    const int64_t *values, kt_err *err) {
    int slots = uses_slot(c, list) ? c->options.slots : 1;
    for (int slot = 0; slot < slots; slot++) {
        kt_gpu_graph *graph;
        KT_TRY(record(c, stage, list, values, slot, &graph, err));
    }
    return KT_OK;
}

kt_status kt_cuda_backend_record(kt_backend *backend, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    if (!c->options.graph || profiling(c)) return KT_OK;
    const kt_plan *plan = backend->plan;
    int64_t *values = KT_NEW_ARRAY(c->arena, int64_t, plan->n_dims + 1);
    for (int s = 0; s < plan->n_stages; s++) {
        const kt_stage *stage = &plan->stages[s];
        for (int i = 0; stage->graph && i < stage->n_lists; i++) {
            const kt_step_list *list = &stage->lists[i];
            for (int d = 0; d < plan->n_dims; d++) values[d] = plan->dims[d].max;
            if (stage->bucket_dim >= 0) values[stage->bucket_dim] = list->bucket;
            KT_TRY(record_slots(c, stage, list, values, err));
        }
    }
    return KT_OK;
}

// ---- memory

static bool same_place(const kt_plan *plan, int a, int b) {
    const kt_tensor *x = &plan->tensors[a], *y = &plan->tensors[b];
    return x->home == y->home && x->offset == y->offset;
}

// What a loop will read starts as what the host put there.
static void put_mirror(kt_cuda *c, int tensor, const void *from, size_t bytes) {
    const kt_plan *plan = c->base.plan;
    for (int i = 0; i < plan->n_stages; i++) {
        const kt_stage *stage = &plan->stages[i];
        if (!stage->loop) continue;
        kt_cuda_mirror *m = &c->mirrors[i];
        if (same_place(plan, tensor, stage->loop_read) && bytes <= m->read.size_bytes)
            memcpy(m->read.at, from, bytes);
        if (same_place(plan, tensor, stage->loop_until) && bytes <= m->until.size_bytes)
            memcpy(m->until.at, from, bytes);
    }
}

static kt_status cuda_put(
    kt_backend *backend, int tensor, int slot, const void *from, int64_t bytes, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    if (bytes == 0) return KT_OK;
    put_mirror(c, tensor, from, (size_t)bytes);
    return kt_gpu_upload(
        c->gpu, c->gpu->compute, address(c, tensor, slot, NULL), from, (size_t)bytes, err);
}

static kt_status cuda_get(
    kt_backend *backend, int tensor, int slot, void *to, int64_t bytes, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    if (bytes == 0) return KT_OK;
    KT_TRY(kt_gpu_wait(c->gpu, c->gpu->compute, err));
    return kt_gpu_read(c->gpu, to, address(c, tensor, slot, NULL), (size_t)bytes, err);
}

static kt_status cuda_put_ahead(
    kt_backend *backend, int tensor, int slot, const void *from, int64_t bytes, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    if (bytes == 0) return KT_OK;
    KT_TRY(kt_gpu_attach(c->gpu, err));
    return kt_gpu_uploader_put(
        c->ahead_ring, address(c, tensor, slot, NULL), from, (size_t)bytes, err);
}

static kt_status cuda_end_ahead(kt_backend *backend, int slot, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    KT_TRY(kt_gpu_attach(c->gpu, err));
    return kt_gpu_event_record(c->gpu, c->ahead[slot], c->gpu->copy, err);
}

static kt_status cuda_await_ahead(kt_backend *backend, int slot, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    return kt_gpu_stream_after(c->gpu, c->gpu->compute, c->ahead[slot], err);
}

static kt_status cuda_wait(kt_backend *backend, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    return kt_gpu_wait(c->gpu, c->gpu->compute, err);
}

// ---- times of stages

static kt_status cuda_mark(kt_backend *backend, int stage, bool begin, kt_err *err) {
    kt_cuda *c = (kt_cuda *)backend;
    if (begin && c->stage_mark[stage][0] >= 0) { // another picture
        kt_gpu_timer_reset(c->stage_timer);
        memset(c->stage_mark, -1, sizeof c->stage_mark);
    }
    int *mark = &c->stage_mark[stage][begin ? 0 : 1];
    return kt_gpu_timer_mark(c->stage_timer, c->gpu->compute, mark, err);
}

static double cuda_stage_ms(kt_backend *backend, int stage) {
    kt_cuda *c = (kt_cuda *)backend;
    const int *mark = c->stage_mark[stage];
    double ms = 0;
    kt_err err;
    if (mark[0] < 0 || mark[1] < 0) return 0;
    return kt_gpu_timer_ms(c->stage_timer, mark[0], mark[1], &ms, &err) == KT_OK ? ms : 0;
}

static void cuda_close(kt_backend *backend) {
    kt_cuda *c = (kt_cuda *)backend;
    if (!c) return;
    kt_cuda_load_end(c);
    kt_gpu_uploader_close(c->ahead_ring);
    for (size_t i = 0; i < c->graphs.n; i++) kt_gpu_graph_close(c->graphs.at[i].graph);
    for (int i = 0; i < KT_SLOTS; i++) kt_gpu_event_close(c->gpu, c->ahead[i]);
    kt_gpu_timer_close(c->timer);
    kt_gpu_timer_close(c->stage_timer);
    for (int i = 0; i < KT_MAX_STAGES; i++) {
        kt_gpu_unpin(c->gpu, &c->mirrors[i].read);
        kt_gpu_unpin(c->gpu, &c->mirrors[i].until);
    }
    kt_cuda_host_close(c);
    kt_gpu_block *blocks[] = {&c->weights, &c->state, &c->act, &c->upload};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) kt_gpu_free(c->gpu, blocks[i]);
    for (int i = 0; c->builds && i < backend->plan->n_builds; i++)
        kt_gpu_module_close(c->builds[i].module);
}

// ---- opening: compile, load, allocate

// The most shared memory that any call of each build asks for, launch by launch.
static kt_status most_shared(kt_cuda *c, const kt_call *call, const int64_t *maxima, kt_err *err) {
    kt_cuda_build *build = &c->builds[call->build];
    for (int i = 0; i < call->variant->n_launches; i++) {
        kt_geometry g;
        KT_TRY(kt_plan_geometry(c->base.plan, call, i, maxima, &g, err));
        if ((int64_t)build->shared[i] < g.shared_bytes) build->shared[i] = (uint32_t)g.shared_bytes;
    }
    return KT_OK;
}

static kt_status each_call(kt_cuda *c, const int64_t *maxima, kt_err *err) {
    const kt_plan *plan = c->base.plan;
    for (int s = 0; s < plan->n_stages; s++)
        for (int l = 0; l < plan->stages[s].n_lists; l++) {
            const kt_step_list *list = &plan->stages[s].lists[l];
            for (int i = 0; i < list->n_steps; i++)
                if (list->steps[i].call) KT_TRY(most_shared(c, list->steps[i].call, maxima, err));
        }
    for (int i = 0; i < plan->n_layouts; i++)
        for (int w = 0; w < plan->layouts[i].n_prepares; w++) {
            const kt_prepare *prepare = &plan->layouts[i].prepares[w];
            for (int n = 0; n < prepare->n_calls; n++)
                KT_TRY(most_shared(c, &prepare->calls[n], maxima, err));
        }
    return KT_OK;
}

static kt_status load_kernels(kt_cuda *c, int index, kt_err *err) {
    const kt_build *build = &c->base.plan->builds[index];
    kt_cuda_build *to = &c->builds[index];
    kt_gpu_param *expected = KT_NEW_ARRAY(c->arena, kt_gpu_param, to->n_args + 1);
    for (int i = 0; i < to->n_args; i++)
        expected[i] =
            (kt_gpu_param){kt_str_z(c->arena, to->args[i].name), (uint32_t)to->args[i].bytes};
    for (int i = 0; i < build->variant->n_launches; i++) {
        char *name =
            kt_op_kernel_name(c->arena, build->op, build->variant, &build->variant->launches[i]);
        kt_status status = kt_gpu_module_kernel(
            to->module, name, expected, to->n_args, to->shared[i], &to->kernels[i], err);
        if (status == KT_OK) continue;
        kt_err_note(err, "op '%.*s' in '%s', variant '%.*s'", KT_STR_ARG(build->op->name),
            build->op->folder, KT_STR_ARG(build->variant->name));
        return status;
    }
    return KT_OK;
}

// Loads a build's code; what the driver refuses is compiled again, once.
static kt_status load_module(kt_cuda *c, int index, const kt_compile_request *request,
    kt_compile_result *result, kt_err *err) {
    kt_cuda_build *to = &c->builds[index];
    kt_status status = kt_gpu_module_open(
        c->gpu, request->name, result->cubin.at, result->cubin.n, &to->module, err);
    if (status == KT_ECOMPILE) {
        kt_log_warn("%s: the driver refused the stored code; compiling it again", request->name);
        KT_TRY(kt_compile_again(c->options.compiler, request, result, err));
        status = kt_gpu_module_open(
            c->gpu, request->name, result->cubin.at, result->cubin.n, &to->module, err);
    }
    if (status != KT_OK) return status;
    return load_kernels(c, index, err);
}

static kt_status load_builds(kt_cuda *c, kt_err *err) {
    const kt_plan *plan = c->base.plan;
    kt_compile_request *requests;
    KT_TRY(kt_cuda_requests(c->arena, plan, c->gpu->info.arch, &requests, err));
    kt_compile_result *results = KT_NEW_ARRAY(c->arena, kt_compile_result, plan->n_builds + 1);
    double start = kt_os_now_ms();
    KT_TRY(kt_compile(c->options.compiler, requests, plan->n_builds, results, err));
    c->times.compile_ms = kt_os_now_ms() - start;
    c->times.n_builds = plan->n_builds;
    for (int i = 0; i < plan->n_builds; i++) {
        c->times.n_compiled += results[i].from == KT_COMPILE_FROM_NVRTC;
        c->times.n_cached += results[i].from == KT_COMPILE_FROM_CACHE;
        c->times.n_packed += results[i].from == KT_COMPILE_FROM_PACK;
    }
    for (int i = 0; i < plan->n_builds; i++)
        KT_TRY(kt_cuda_check_build(c->arena, &plan->builds[i], results[i].info, err));
    for (int i = 0; i < plan->n_builds; i++)
        KT_TRY(load_module(c, i, &requests[i], &results[i], err));
    c->times.load_modules_ms = kt_os_now_ms() - start - c->times.compile_ms;
    return KT_OK;
}

static kt_status open_builds(kt_cuda *c, kt_err *err) {
    const kt_plan *plan = c->base.plan;
    c->builds = KT_NEW_ARRAY(c->arena, kt_cuda_build, plan->n_builds + 1);
    for (int i = 0; i < plan->n_builds; i++) {
        const kt_build *build = &plan->builds[i];
        c->builds[i].kernels =
            KT_NEW_ARRAY(c->arena, const kt_gpu_kernel *, build->variant->n_launches);
        c->builds[i].shared = KT_NEW_ARRAY(c->arena, uint32_t, build->variant->n_launches);
        c->builds[i].args = kt_op_args(c->arena, build->op, build->variant, &c->builds[i].n_args);
    }
    int64_t *maxima = KT_NEW_ARRAY(c->arena, int64_t, plan->n_dims + 1);
    for (int d = 0; d < plan->n_dims; d++) maxima[d] = plan->dims[d].max;
    KT_TRY(each_call(c, maxima, err));
    return load_builds(c, err);
}

static kt_status open_memory(kt_cuda *c, kt_err *err) {
    const kt_plan *plan = c->base.plan;
    const kt_plan_bytes *bytes = &plan->bytes;
    size_t upload = (size_t)(bytes->upload * c->options.slots);
    KT_TRY(kt_gpu_alloc(
        c->gpu, "weights", KT_GPU_USE_WEIGHTS, (size_t)bytes->weights, &c->weights, err));
    KT_TRY(kt_gpu_alloc(c->gpu, "state", KT_GPU_USE_STATE, (size_t)bytes->state, &c->state, err));
    size_t work = (size_t)kt_plan_work_bytes(plan);
    KT_TRY(kt_gpu_alloc(c->gpu, "activations", KT_GPU_USE_ACTIVATIONS, work, &c->act, err));
    KT_TRY(kt_gpu_alloc(c->gpu, "uploads", KT_GPU_USE_OTHER, upload, &c->upload, err));
    KT_TRY(kt_cuda_host_end(c, err));
    if (bytes->state > 0)
        KT_TRY(kt_gpu_fill(c->gpu, c->gpu->compute, c->state.at, 0, (size_t)bytes->state, err));
    for (int i = 0; i < plan->n_stages; i++) {
        const kt_stage *stage = &plan->stages[i];
        if (!stage->loop) continue;
        KT_TRY(kt_gpu_pin(c->gpu, "results of a loop",
            (size_t)plan->tensors[stage->loop_read].bytes, &c->mirrors[i].read, err));
        KT_TRY(kt_gpu_pin(c->gpu, "results of a loop",
            (size_t)plan->tensors[stage->loop_until].bytes, &c->mirrors[i].until, err));
    }
    return KT_OK;
}

// Pinned memory takes milliseconds to get: now, not with the first picture.
static kt_status open_ring(kt_cuda *c, kt_err *err) {
    bool any = false;
    for (int i = 0; i < c->base.plan->n_stages; i++) any = any || c->base.plan->stages[i].ahead;
    if (!any) return KT_OK;
    return kt_gpu_uploader_open(c->gpu, c->gpu->copy, AHEAD_RING, &c->ahead_ring, err);
}

static kt_status open_timers(kt_cuda *c, kt_err *err) {
    for (int i = 0; i < KT_SLOTS; i++) KT_TRY(kt_gpu_event_open(c->gpu, false, &c->ahead[i], err));
    memset(c->stage_mark, -1, sizeof c->stage_mark);
    KT_TRY(kt_gpu_timer_open(c->gpu, 2, &c->timer, err));
    return kt_gpu_timer_open(c->gpu, 2 * KT_MAX_STAGES, &c->stage_timer, err);
}

static const kt_backend_table table = {
    .name = "cuda",
    .close = cuda_close,
    .put = cuda_put,
    .get = cuda_get,
    .put_ahead = cuda_put_ahead,
    .end_ahead = cuda_end_ahead,
    .await_ahead = cuda_await_ahead,
    .load_open = kt_cuda_load_open,
    .load_send = kt_cuda_load_send,
    .load_sent = kt_cuda_load_sent,
    .load_prepare = kt_cuda_load_prepare,
    .load_leave = kt_cuda_load_leave,
    .load_close = kt_cuda_load_close,
    .run = cuda_run,
    .loop = cuda_loop,
    .wait = cuda_wait,
    .mark = cuda_mark,
    .stage_ms = cuda_stage_ms,
};

kt_status kt_cuda_backend_open(kt_arena *arena, const kt_plan *plan, const kt_cuda_options *options,
    kt_backend **out, kt_err *err) {
    KT_ASSERT(plan->n_stages <= KT_MAX_STAGES);
    kt_cuda *c = KT_NEW(arena, kt_cuda);
    c->base = (kt_backend){&table, plan};
    c->arena = arena;
    c->options = *options;
    c->gpu = options->gpu;
    kt_cuda_host_begin(c); // beside the modules
    kt_status status = open_builds(c, err);
    double built = kt_os_now_ms();
    if (status == KT_OK) status = open_memory(c, err);
    c->times.memory_ms = kt_os_now_ms() - built;
    if (status == KT_OK) status = open_ring(c, err);
    if (status == KT_OK) status = open_timers(c, err);
    if (status != KT_OK) {
        cuda_close(&c->base);
        return status;
    }
    *out = &c->base;
    return KT_OK;
}

kt_cuda_times kt_cuda_backend_times(const kt_backend *backend) {
    return ((const kt_cuda *)backend)->times;
}
