// One op test on one back end: open the files, plan, run, look at all of the memory.
#include "runtime/exec/op_check_parts.h"

#include "runtime/base/file.h"
#include "runtime/exec/load.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// ---- from files to a plan

static void say_error(const kt_err *err, kt_buf *why) {
    kt_buf_printf(why, "    %s\n", err->text);
}

// Only a requirement or a launch limit stands against the sampled sizes.
static bool is_refusal(const kt_check_case *c, const kt_diag *diag) {
    for (size_t i = 0; i < diag->entries.n; i++) {
        const kt_diag_entry *e = &diag->entries.at[i];
        if (e->severity == KT_SEVERITY_ERROR && e->rule != KT_RULE_REQUIRE &&
            e->rule != KT_RULE_VARIANT)
            return false;
    }
    return c->sampled && diag->n_errors > 0;
}

static kt_status open_files(const kt_check_side *side, const kt_check_case *c, kt_check_opened *o,
    kt_diag *diag, kt_err *err) {
    const char *path = kt_path_join(&o->arena, side->folder, "pipeline.yaml");
    o->pipeline = kt_pipeline_open(&o->arena, path, diag);
    if (!o->pipeline) return KT_FAIL(err, KT_EYAML, "the test's pipeline has mistakes");
    if (!kt_check_has_linear(c)) return KT_OK;
    KT_TRY(kt_model_open(&o->arena, side->registry, o->pipeline->model_files,
        o->pipeline->n_model_files, side->folder, &o->model, diag, err));
    o->model_open = true;
    return KT_OK;
}

kt_check_end kt_check_plan(const kt_check_side *side, const kt_check_case *c,
    const kt_target *target, kt_check_opened *out, kt_buf *why) {
    kt_diag diag;
    kt_err err = {0};
    memset(out, 0, sizeof *out);
    kt_diag_init(&diag, &out->arena);
    out->target = *target;
    kt_plan_probe probe = {0};
    if (c->variant && target->cuda) probe.variant = c->variant->name;
    kt_status status = open_files(side, c, out, &diag, &err);
    kt_plan_request request = {.registry = side->registry,
        .pipeline = out->pipeline,
        .model = &out->model,
        .target = *target,
        .probe = &probe};
    if (status == KT_OK) status = kt_plan_open(&out->arena, &request, &out->plan, &diag, &err);
    if (status == KT_OK && diag.n_errors == 0) return KT_CHECK_RAN;
    if (is_refusal(c, &diag)) return KT_CHECK_REFUSED;
    say_error(&err, why);
    kt_diag_print(&diag, why);
    return KT_CHECK_BROKEN;
}

void kt_check_shut(kt_check_opened *opened) {
    if (opened->model_open) kt_model_close(&opened->model);
    kt_arena_deinit(&opened->arena);
    memset(opened, 0, sizeof *opened);
}

// ---- memory as a whole

// One block of the back end, from its first tensor to its end.
typedef struct region {
    int base; // the tensor that lies first; -1: there is none
    int64_t from, bytes;
    unsigned char *image; // as put there
    unsigned char *after; // as found after the run
    unsigned char *kind;  // by byte: what it belongs to
} region;

enum { GAP, KEPT, WRITTEN }; // between tensors; of a tensor that must stay; of one that may change

typedef struct run {
    const kt_check_side *side;
    kt_check_data *data;
    kt_check_opened *o;
    kt_backend *backend;
    kt_arena *arena;
    int *tensors; // by port; -1 linear or absent
    region state, act;
    kt_buf *why;
} run;

static bool in_region(const kt_tensor *t, bool state) {
    if (state) return t->home == KT_HOME_STATE || t->home == KT_HOME_COUNTER;
    return t->home == KT_HOME_ACT;
}

static region map_region(run *r, bool state) {
    const kt_plan *plan = r->o->plan;
    region out = {.base = -1};
    for (int i = 0; i < plan->n_tensors; i++) {
        const kt_tensor *t = &plan->tensors[i];
        if (!in_region(t, state)) continue;
        if (out.base < 0 || t->offset < plan->tensors[out.base].offset) out.base = i;
    }
    if (out.base < 0) return out;
    out.from = plan->tensors[out.base].offset;
    out.bytes = (state ? plan->bytes.state : plan->bytes.act) - out.from;
    if (out.bytes <= 0) out.base = -1;
    if (out.base < 0) return out;
    out.image = kt_arena_alloc(r->arena, (size_t)out.bytes);
    out.after = kt_arena_alloc(r->arena, (size_t)out.bytes);
    out.kind = kt_arena_alloc(r->arena, (size_t)out.bytes);
    memset(out.image, r->side->poison, (size_t)out.bytes);
    for (int i = 0; i < plan->n_tensors; i++) {
        const kt_tensor *t = &plan->tensors[i];
        if (!in_region(t, state) || t->bytes == 0) continue;
        memset(out.kind + (t->offset - out.from), state ? KEPT : WRITTEN, (size_t)t->bytes);
        if (t->home == KT_HOME_COUNTER)
            memset(out.image + (t->offset - out.from), 0, (size_t)t->bytes);
    }
    return out;
}

static int find_tensor(const kt_plan *plan, const char *name) {
    for (int i = 0; i < plan->n_names; i++)
        if (kt_str_is(plan->names[i].name, name)) return plan->names[i].tensor;
    return -1;
}

static void find_tensors(run *r) {
    const kt_check_case *c = r->data->of;
    r->tensors = KT_NEW_ARRAY(r->arena, int, c->op->n_ports + 1);
    for (int i = 0; i < c->op->n_ports; i++) {
        const char *name = kt_check_name(r->arena, c->op->ports[i].name);
        r->tensors[i] = -1;
        if (c->op->ports[i].type.base == KT_BASE_LINEAR || !c->present[i]) continue;
        if (c->op->ports[i].kind == KT_PORT_OUTPUT)
            name = kt_arena_printf(r->arena, "check.%s", name);
        r->tensors[i] = find_tensor(r->o->plan, name);
        KT_ASSERT(r->tensors[i] >= 0); // else it would go unchecked
    }
}

// An integer that a kernel forgets to write must not happen to be right. (Numbers are NaN before.)
static void make_differ(run *r, int port) {
    const kt_check_tensor *want = r->side->differ ? &r->side->differ[port] : NULL;
    const kt_tensor *t = &r->o->plan->tensors[r->tensors[port]];
    if (!want || !want->at || kt_dtype_is_float(t->dtype) || !in_region(t, false)) return;
    KT_ASSERT(r->act.image != NULL); // it has a tensor
    for (int64_t i = 0; i < t->bytes && i < want->bytes; i++)
        r->act.image[t->offset - r->act.from + i] =
            (unsigned char)~((const unsigned char *)want->at)[i];
}

// Inputs and inout into the image of the state block.
static void fill_image(run *r) {
    const kt_op *op = r->data->of->op;
    for (int i = 0; i < op->n_inputs + op->n_inout; i++) {
        const kt_check_tensor *t = &r->data->ports[i];
        if (r->tensors[i] < 0 || !t->at || t->bytes == 0) continue;
        KT_ASSERT(r->state.image && r->state.kind);
        int64_t at = r->o->plan->tensors[r->tensors[i]].offset - r->state.from;
        memcpy(r->state.image + at, t->at, (size_t)t->bytes);
        if (op->ports[i].kind == KT_PORT_INOUT)
            memset(r->state.kind + at, WRITTEN, (size_t)t->bytes);
    }
    for (int i = op->n_inputs + op->n_inout; i < op->n_ports; i++)
        if (r->tensors[i] >= 0) make_differ(r, i);
}

// ---- the run

static kt_status put(run *r, const region *to, kt_err *err) {
    if (to->base < 0) return KT_OK;
    return r->backend->table->put(r->backend, to->base, 0, to->image, to->bytes, err);
}

static kt_status get(run *r, const region *from, kt_err *err) {
    if (from->base < 0) return KT_OK;
    return r->backend->table->get(r->backend, from->base, 0, from->after, from->bytes, err);
}

// Call after call, each with what it may touch.
static kt_status run_watched(
    run *r, const kt_step_list *list, const kt_op_check_watch *watch, kt_err *err) {
    const kt_backend_table *table = r->backend->table;
    int64_t none = 0;
    kt_status status = table->wait(r->backend, err);
    for (int i = 0; i < list->n_steps && status == KT_OK; i++) {
        kt_check_watch(watch, r->backend, list->steps[i].call, &none);
        status = table->run(r->backend, &list->steps[i], 1, &none, 0, err);
        if (status == KT_OK) status = table->wait(r->backend, err);
    }
    watch->tell(watch->ctx, NULL, 0);
    return status;
}

static kt_status once(run *r, kt_err *err) {
    const kt_step_list *list = &r->o->plan->stages[0].lists[0];
    int64_t none = 0;
    KT_TRY(put(r, &r->state, err));
    KT_TRY(put(r, &r->act, err));
    const kt_op_check_watch *watch = r->side->gpu ? r->side->watch : NULL;
    if (watch)
        KT_TRY(run_watched(r, list, watch, err));
    else
        KT_TRY(r->backend->table->run(r->backend, list->steps, list->n_steps, &none, 0, err));
    KT_TRY(r->backend->table->wait(r->backend, err));
    KT_TRY(get(r, &r->state, err));
    return get(r, &r->act, err);
}

static void name_at(run *r, const region *of, bool state, int64_t at, kt_buf *out) {
    const kt_plan *plan = r->o->plan;
    const kt_tensor *before = NULL;
    for (int i = 0; i < plan->n_tensors; i++) {
        const kt_tensor *t = &plan->tensors[i];
        if (!in_region(t, state) || t->offset > at + of->from || t->bytes == 0) continue;
        if (!before || t->offset > before->offset) before = t;
    }
    if (!before) return;
    int64_t inside = at + of->from - before->offset;
    bool past = inside >= before->bytes;
    kt_buf_printf(out, "    wrote %s '%.*s', %" PRId64 " bytes %s\n", past ? "behind" : "to",
        KT_STR_ARG(before->name), past ? inside - before->bytes : inside,
        past ? "past its end" : "from its start, which is no output");
}

// Everything but outputs, inout and scratch is as it was.
static bool untouched(run *r, const region *of, bool state) {
    if (of->base < 0) return true;
    for (int64_t i = 0; i < of->bytes; i++) {
        if (of->kind[i] == WRITTEN || of->image[i] == of->after[i]) continue;
        name_at(r, of, state, i, r->why);
        return false;
    }
    return true;
}

static void copy_out(run *r, kt_check_tensor *out) {
    const kt_op *op = r->data->of->op;
    for (int i = op->n_inputs; i < op->n_ports; i++) {
        out[i] = r->data->ports[i];
        out[i].at = NULL;
        if (r->tensors[i] < 0) continue;
        const kt_tensor *t = &r->o->plan->tensors[r->tensors[i]];
        const region *from = in_region(t, true) ? &r->state : &r->act;
        out[i].at = kt_arena_alloc(r->arena, (size_t)out[i].bytes + 1);
        if (out[i].bytes == 0) continue; // it may lie in no block at all
        KT_ASSERT(from->after);
        memcpy(out[i].at, from->after + (t->offset - from->from), (size_t)out[i].bytes);
    }
}

static kt_status open_backend(run *r, kt_err *err) {
    const kt_check_side *side = r->side;
    kt_cpu_options cpu = {
        .pool = side->pool, .include = side->include, .no_blas = true, .stop = side->stop};
    kt_cuda_options cuda = {
        .gpu = side->gpu, .compiler = side->compiler, .slots = 1, .stop = side->stop};
    kt_arena *arena = &r->o->arena;
    if (side->gpu) return kt_cuda_backend_open(arena, r->o->plan, &cuda, &r->backend, err);
    return kt_cpu_backend_open(arena, r->o->plan, &cpu, &r->backend, err);
}

static kt_status run_all(run *r, kt_check_tensor *out, kt_err *err) {
    kt_load_stats stats;
    KT_TRY(open_backend(r, err));
    KT_TRY(kt_load_weights(r->backend, r->side->stop, &stats, err));
    r->state = map_region(r, true);
    r->act = map_region(r, false);
    find_tensors(r);
    fill_image(r);
    KT_TRY(once(r, err));
    copy_out(r, out);
    if (!untouched(r, &r->state, true) || !untouched(r, &r->act, false))
        return KT_FAIL(err, KT_EOP, "memory that is no output was changed");
    if (!r->side->twice) return KT_OK;
    kt_check_tensor *again = KT_NEW_ARRAY(r->arena, kt_check_tensor, r->data->of->op->n_ports);
    KT_TRY(once(r, err));
    copy_out(r, again);
    if (!kt_check_same(r->data->of->op, out, again, "a second run gives other bits", r->why))
        return KT_FAIL(err, KT_EOP, "two runs differ");
    return KT_OK;
}

static kt_target target_of(const kt_check_side *side) {
    if (!side->gpu) return (kt_target){0};
    const kt_gpu_info *info = &side->gpu->info;
    return (kt_target){.cuda = true,
        .cc = info->arch,
        .sm_count = info->sm_count,
        .smem_max = info->shared_optin_bytes};
}

kt_check_end kt_check_execute(const kt_check_side *side, kt_check_data *data, kt_arena *arena,
    kt_check_tensor *out, kt_buf *why) {
    kt_check_opened opened;
    kt_target target = target_of(side);
    kt_check_end end = kt_check_plan(side, data->of, &target, &opened, why);
    run r = {.side = side, .data = data, .o = &opened, .arena = arena, .why = why};
    kt_err err = {0};
    if (end == KT_CHECK_RAN && run_all(&r, out, &err) != KT_OK) {
        say_error(&err, why);
        end = KT_CHECK_BROKEN;
    }
    if (r.backend) r.backend->table->close(r.backend);
    kt_check_shut(&opened);
    return end;
}
