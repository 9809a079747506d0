#include "runtime/exec/op_check_parts.h"

#include "runtime/base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { REPORTED = 4 }; // failures of a variant that are told in full

typedef struct checked_op {
    const kt_op *op;
    kt_check_list list;
    int n_builds; // that no op before it needs
} checked_op;

struct kt_op_check {
    kt_arena arena;
    kt_op_check_options options;
    const char *folder;
    kt_pool *pool;
    KT_VEC(checked_op) ops;
    kt_buf last; // why the last reported test failed
};

// ---- opening

static kt_check_side side_of(const kt_op_check *check) {
    const kt_op_check_options *o = &check->options;
    return (kt_check_side){.registry = o->registry,
        .include = o->include,
        .folder = check->folder,
        .pool = check->pool,
        .poison = 0xff,
        .stop = o->stop};
}

static bool wanted(const kt_op_check_options *o, kt_str name) {
    for (int i = 0; i < o->n_only; i++)
        if (kt_str_is(name, o->only[i])) return true;
    return o->n_only == 0;
}

static void check_names(const kt_op_check_options *o, kt_diag *diag) {
    for (int i = 0; i < o->n_only; i++) {
        kt_ref ref = {kt_str_from(o->only[i]), {0}};
        (void)kt_registry_op(o->registry, ref, diag);
    }
}

static kt_status make_folder(kt_op_check *check, kt_err *err) {
    const char *temp = kt_os_temp_folder(&check->arena);
    uint64_t name;
    kt_os_random(&name, sizeof name);
    check->folder = kt_path_join(
        &check->arena, temp, kt_arena_printf(&check->arena, "kotaro-%016" PRIx64, name));
    if (!kt_os_private_folder(check->folder))
        return KT_FAIL(err, KT_EFILE, "the folder '%s' cannot be made", check->folder);
    return KT_OK;
}

static bool for_gpu(const kt_op_check *check) {
    return check->options.gpu != NULL || check->options.arch > 0;
}

static kt_target target_of(const kt_op_check *check, int arch) {
    const kt_gpu *gpu = check->options.gpu;
    kt_target target = {.cuda = true, .cc = arch, .sm_count = 24, .smem_max = 101376};
    if (gpu) target.sm_count = gpu->info.sm_count;
    if (gpu) target.smem_max = gpu->info.shared_optin_bytes;
    return target;
}

static void list_op(kt_op_check *check, checked_op *op) {
    kt_check_request request = {.op = op->op,
        .cuda = for_gpu(check),
        .effort = check->options.quick ? KT_CHECK_QUICK : KT_CHECK_FULL,
        .seed = check->options.seed,
        .registry = check->options.registry};
    kt_check_cases(&check->arena, &request, &op->list);
}

kt_status kt_op_check_open(
    const kt_op_check_options *options, kt_op_check **out, kt_diag *diag, kt_err *err) {
    check_names(options, diag);
    int n = 0;
    const kt_op *const *all = kt_registry_all(options->registry, &n, diag);
    kt_op_check *check = calloc(1, sizeof *check);
    if (!check) kt_out_of_memory(sizeof *check);
    check->options = *options;
    for (int i = 0; i < n; i++) {
        if (!wanted(options, all[i]->name)) continue;
        (void)kt_check_known_generators(all[i], diag);
        (void)kt_check_tolerances(all[i], diag);
        checked_op op = {.op = all[i]};
        KT_PUSH(&check->arena, &check->ops, op);
    }
    kt_status status = diag->n_errors > 0 ? KT_FAIL(err, KT_EYAML, "the manifests have mistakes")
                                          : make_folder(check, err);
    if (status != KT_OK) {
        kt_op_check_close(check);
        return status;
    }
    for (size_t i = 0; i < check->ops.n; i++) list_op(check, &check->ops.at[i]);
    // More threads than one also on a machine of one CPU: their number must not show.
    check->pool = kt_pool_open(options->gpu || kt_os_cpu_count() > 3 ? 0 : 3);
    *out = check;
    return KT_OK;
}

void kt_op_check_close(kt_op_check *check) {
    if (!check) return;
    int n = 0;
    kt_str *names = check->folder ? kt_os_list(&check->arena, check->folder, &n) : NULL;
    for (int i = 0; i < n; i++)
        kt_os_remove(kt_path_join(&check->arena, check->folder, kt_str_z(&check->arena, names[i])));
    if (check->folder) kt_os_remove(check->folder);
    kt_pool_close(check->pool);
    kt_buf_deinit(&check->last);
    kt_arena_deinit(&check->arena);
    free(check);
}

int kt_op_check_count(const kt_op_check *check) {
    return (int)check->ops.n;
}

const kt_op *kt_op_check_op(const kt_op_check *check, int i) {
    return check->ops.at[i].op;
}

// ---- builds

typedef struct collector {
    kt_op_check *check;
    kt_arena *arena;
    int arch;
    bool strict; // a case that cannot be planned is an error
    kt_table seen;
    KT_VEC(kt_op_check_build) builds;
} collector;

static kt_status collect_plan(collector *c, const kt_plan *plan, kt_err *err) {
    for (int i = 0; i < plan->n_builds; i++) {
        const kt_build *build = &plan->builds[i];
        kt_buf key = {0};
        kt_buf_printf(
            &key, "%.*s %.*s", KT_STR_ARG(build->op->name), KT_STR_ARG(build->variant->name));
        for (int k = 0; k < build->n_defines; k++) kt_buf_printf(&key, " %s", build->defines[k]);
        int64_t known;
        kt_str name = kt_str_copy(c->arena, (kt_str){key.at, key.n});
        kt_buf_deinit(&key);
        if (kt_table_find(&c->seen, name, &known)) {
            KT_TRY(kt_check_most(plan, i, c->builds.at[known].most, err));
            continue;
        }
        kt_table_set(&c->seen, name, (int64_t)c->builds.n);
        kt_plan one = *plan;
        one.builds = build;
        one.n_builds = 1;
        kt_compile_request *request;
        KT_TRY(kt_cuda_requests(c->arena, &one, c->arch, &request, err));
        kt_op_check_build made = {build->op, build->variant, request[0],
            KT_NEW_ARRAY(c->arena, kt_geometry, build->variant->n_launches)};
        KT_TRY(kt_check_most(plan, i, made.most, err));
        KT_PUSH(c->arena, &c->builds, made);
    }
    return KT_OK;
}

// Unless strict, a case that cannot be planned says so when it runs.
static kt_status collect_case(collector *c, const kt_check_case *from, kt_err *err) {
    kt_check_side side = side_of(c->check);
    kt_target target = target_of(c->check, c->arch);
    kt_arena arena = {0};
    kt_check_data data;
    kt_check_case now = *from;
    now.dims = KT_NEW_ARRAY(&arena, int64_t, from->op->n_dims);
    memcpy(now.dims, from->dims, sizeof *now.dims * (size_t)from->op->n_dims);
    kt_status status = KT_OK;
    if (kt_check_make(&arena, &now, &data)) {
        kt_check_opened opened;
        kt_buf why = {0};
        status = kt_check_write(side.folder, &data, err);
        if (status == KT_OK) {
            kt_check_end end = kt_check_plan(&side, &now, &target, &opened, &why);
            if (end == KT_CHECK_RAN) status = collect_plan(c, opened.plan, err);
            if (end == KT_CHECK_BROKEN && c->strict)
                status = KT_FAIL(err, KT_EYAML, "a test of '%.*s' cannot be planned:\n%s",
                    KT_STR_ARG(now.op->name), why.n ? why.at : "");
            kt_check_shut(&opened);
        }
        kt_buf_deinit(&why);
    }
    kt_arena_deinit(&arena);
    return status;
}

static kt_status collect_op(collector *c, const checked_op *op, kt_err *err) {
    for (size_t k = 0; k < op->list.cases.n; k++)
        KT_TRY(collect_case(c, &op->list.cases.at[k], err));
    return KT_OK;
}

static kt_status collect(collector *c, kt_err *err) {
    kt_table_init(&c->seen, c->arena);
    for (size_t i = 0; i < c->check->ops.n; i++) {
        if (for_gpu(c->check)) {
            size_t before = c->builds.n;
            KT_TRY(collect_op(c, &c->check->ops.at[i], err));
            c->check->ops.at[i].n_builds = (int)(c->builds.n - before);
            continue;
        }
        // Tests of C implementations name no variants: a few of a GPU are listed for this.
        const kt_op_check_options *o = &c->check->options;
        checked_op listed = {.op = c->check->ops.at[i].op};
        kt_check_request request = {
            .op = listed.op, .cuda = true, .effort = KT_CHECK_KERNELS, .seed = o->seed};
        kt_check_cases(c->arena, &request, &listed.list);
        KT_TRY(collect_op(c, &listed, err));
    }
    return KT_OK;
}

kt_status kt_op_check_builds(
    kt_op_check *check, kt_arena *arena, int arch, kt_op_check_build **out, int *n, kt_err *err) {
    collector c = {.check = check, .arena = arena, .arch = arch, .strict = !for_gpu(check)};
    KT_TRY(collect(&c, err));
    *out = c.builds.at;
    *n = (int)c.builds.n;
    return KT_OK;
}

kt_status kt_op_check_compile(kt_op_check *check, int arch, kt_err *err) {
    KT_ASSERT(check->options.compiler != NULL);
    kt_arena arena = {0};
    kt_op_check_build *builds;
    int n = 0;
    if (arch == 0) arch = check->options.gpu->info.arch;
    kt_status status = kt_op_check_builds(check, &arena, arch, &builds, &n, err);
    if (status == KT_OK && n > 0) {
        kt_compile_request *requests = KT_NEW_ARRAY(&arena, kt_compile_request, n);
        kt_compile_result *results = KT_NEW_ARRAY(&arena, kt_compile_result, n);
        for (int i = 0; i < n; i++) requests[i] = builds[i].request;
        status = kt_compile(check->options.compiler, requests, n, results, err);
        if (status == KT_ECOMPILE) status = KT_OK; // its tests say so
    }
    kt_arena_deinit(&arena);
    return status;
}

// ---- running

// The C implementation against itself: other poison, one thread instead of all, a second run.
static kt_check_end run_alone(
    kt_op_check *check, kt_check_data *data, kt_arena *arena, double *worst, kt_buf *why) {
    const kt_op *op = data->of->op;
    kt_check_tensor *a = KT_NEW_ARRAY(arena, kt_check_tensor, op->n_ports);
    kt_check_tensor *b = KT_NEW_ARRAY(arena, kt_check_tensor, op->n_ports);
    kt_check_side side = side_of(check);
    side.twice = true;
    kt_check_end end = kt_check_execute(&side, data, arena, a, why);
    if (end != KT_CHECK_RAN) return end;
    side.pool = NULL;
    side.twice = false;
    side.poison = 0x55;
    end = kt_check_execute(&side, data, arena, b, why);
    if (end != KT_CHECK_RAN) return KT_CHECK_BROKEN;
    const char *what = "one thread, or other memory before the run, gives other bits";
    if (!kt_check_same(op, a, b, what, why)) return KT_CHECK_BROKEN;
    return kt_check_compare(op, a, a, worst, why) ? KT_CHECK_RAN : KT_CHECK_BROKEN; // finite?
}

typedef struct test { // one that is run
    kt_op_check *check;
    kt_check_data *data;
    kt_arena *arena;
    double *worst; // by type
    kt_buf *why;
} test;

// The kernels of the body, where those of a variant just ran: held against each other.
static kt_check_end run_body(
    const test *t, const kt_check_side *gpu, const kt_check_tensor *got, double *worst) {
    const kt_op *op = t->data->of->op;
    kt_check_tensor *body = KT_NEW_ARRAY(t->arena, kt_check_tensor, op->n_ports);
    kt_check_case without = *t->data->of;
    kt_check_data data = *t->data;
    without.variant = NULL;
    data.of = &without;
    kt_check_end end = kt_check_execute(gpu, &data, t->arena, body, t->why);
    if (end == KT_CHECK_REFUSED) return KT_CHECK_RAN; // the body asks for more than the variant
    if (end == KT_CHECK_RAN && kt_check_compare(op, body, got, worst, t->why)) return end;
    kt_buf_printf(t->why, "    (expected is what the body gives on the same device)\n");
    return KT_CHECK_BROKEN;
}

static kt_check_end run_pair(const test *t) {
    const kt_op *op = t->data->of->op;
    const kt_op_check_options *o = &t->check->options;
    kt_check_tensor *want = KT_NEW_ARRAY(t->arena, kt_check_tensor, op->n_ports);
    kt_check_tensor *got = KT_NEW_ARRAY(t->arena, kt_check_tensor, op->n_ports);
    kt_check_side side = side_of(t->check);
    side.poison = 0xee;
    kt_check_end end = kt_check_execute(&side, t->data, t->arena, want, t->why);
    if (end != KT_CHECK_RAN) return end;
    side.poison = 0xff;
    side.gpu = o->gpu;
    side.compiler = o->compiler;
    side.watch = o->watch;
    side.differ = want;
    side.twice = !o->quick;
    end = kt_check_execute(&side, t->data, t->arena, got, t->why);
    if (end != KT_CHECK_RAN) return end;
    if (!kt_check_compare(op, want, got, t->worst, t->why)) return KT_CHECK_BROKEN;
    side.twice = false;
    return t->data->of->variant && op->n_body > 0 ? run_body(t, &side, got, t->worst) : end;
}

static kt_check_end run_case(kt_op_check *check, const kt_check_case *from, double *worst,
    kt_buf *describe, kt_buf *why, kt_err *err) {
    kt_arena arena = {0};
    kt_check_case now = *from; // its sizes may change while its inputs are made
    kt_check_data data;
    now.dims = KT_NEW_ARRAY(&arena, int64_t, from->op->n_dims);
    memcpy(now.dims, from->dims, sizeof *now.dims * (size_t)from->op->n_dims);
    kt_check_end end = KT_CHECK_REFUSED;
    bool made = kt_check_make(&arena, &now, &data);
    if (made && now.variant && !kt_check_holds(now.op, now.variant->when, now.dims, now.variant))
        made = false;
    if (!made && !now.sampled) {
        kt_buf_printf(why, "    the sizes of the case cannot be made\n");
        end = KT_CHECK_BROKEN;
    }
    kt_check_describe(&now, describe);
    if (made) {
        if (kt_check_write(check->folder, &data, err) != KT_OK)
            end = KT_CHECK_BROKEN;
        else if (check->options.gpu)
            end = run_pair(&(test){check, &data, &arena, worst, why});
        else
            end = run_alone(check, &data, &arena, worst, why);
    }
    kt_arena_deinit(&arena);
    return end;
}

static const char *nothing_to_do(const kt_op_check *check, const checked_op *op) {
    if (op->op->n_cases == 0) return "its manifest has no 'check'";
    if (for_gpu(check) && op->op->n_variants == 0 && op->op->n_body == 0) return "no variants";
    return op->list.cases.n == 0 ? "no case fits a variant" : NULL;
}

void kt_op_check_listed(const kt_op_check *check, int i, kt_op_check_result *out) {
    const checked_op *op = &check->ops.at[i];
    *out = (kt_op_check_result){.op = op->op,
        .n_runs = (int)op->list.cases.n,
        .n_builds = op->n_builds,
        .none = nothing_to_do(check, op)};
}

static kt_op_check_part *part_of(kt_op_check *check, kt_op_check_result *out, const kt_variant *v) {
    kt_op_check_part *parts = (kt_op_check_part *)out->parts;
    if (!parts) parts = KT_NEW_ARRAY(&check->arena, kt_op_check_part, out->op->n_variants + 1);
    out->parts = parts;
    for (int i = 0; i < out->n_parts; i++)
        if (parts[i].variant == v) return &parts[i];
    parts[out->n_parts].variant = v;
    return &parts[out->n_parts++];
}

// Returns how many of the variant's failed up to now.
static int count_case(kt_op_check *check, kt_op_check_result *out, const kt_check_case *c,
    kt_check_end end, const double *worst) {
    out->n_runs += end != KT_CHECK_REFUSED;
    out->n_refused += end == KT_CHECK_REFUSED;
    out->n_failed += end == KT_CHECK_BROKEN;
    if (end == KT_CHECK_REFUSED) return 0;
    kt_op_check_part *part = part_of(check, out, c->variant);
    part->n_runs++;
    part->n_failed += end == KT_CHECK_BROKEN;
    for (int t = 0; t < KT_DTYPE_COUNT; t++) {
        if (worst[t] > part->worst[t]) part->worst[t] = worst[t];
        if (worst[t] > out->worst[t]) out->worst[t] = worst[t];
    }
    return part->n_failed;
}

kt_status kt_op_check_run(
    kt_op_check *check, int i, kt_op_check_result *out, kt_buf *report, kt_err *err) {
    checked_op *op = &check->ops.at[i];
    double start = kt_os_now_ms();
    KT_ASSERT(check->options.gpu || check->options.arch == 0); // a GPU that is not there
    *out = (kt_op_check_result){
        .op = op->op, .none = nothing_to_do(check, op), .n_builds = op->n_builds};
    *err = (kt_err){0};
    kt_buf_clear(&check->last);
    for (size_t k = 0; k < op->list.cases.n; k++) {
        const kt_check_case *c = &op->list.cases.at[k];
        if (check->options.stop && *check->options.stop)
            return KT_FAIL(err, KT_EINTERRUPTED, "interrupted");
        kt_buf describe = {0}, why = {0};
        double worst[KT_DTYPE_COUNT] = {0};
        kt_check_end end = run_case(check, c, worst, &describe, &why, err);
        int n_failed = count_case(check, out, c, end, worst);
        if (end == KT_CHECK_BROKEN && n_failed <= REPORTED) {
            const char *text = why.n ? why.at : "";
            bool again = check->last.n > 0 && strcmp(check->last.at, text) == 0;
            kt_buf_printf(report, "  %s\n%s", describe.at, again ? "    the same\n" : text);
            kt_buf_clear(&check->last);
            kt_buf_printf(&check->last, "%s", text);
        }
        kt_buf_deinit(&describe);
        kt_buf_deinit(&why);
        if (err->code != KT_OK) return err->code; // the folder
        if (out->n_failed > 0 && check->options.first) break;
        if (check->options.gpu && check->options.gpu->lost) {
            *err = check->options.gpu->loss;
            return err->code;
        }
    }
    out->ms = kt_os_now_ms() - start;
    return KT_OK;
}
