#include "runtime/exec/sweep.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    CPU_MB = 256,  // beyond the caches
    GPU_MB = 1024, // long enough that the start of a kernel does not count
    LEAST_MB = 128,
    SWEEPS = 6, // the first one warms up
    PIECE = 16,
    BLOCK_PIECES = 2048
};

// A plan of one call, with all that it points to.
typedef struct sweep_plan {
    kt_plan plan;
    kt_tensor tensors[2]; // x, y
    kt_axis dims[2];      // n, b
    int ports[2];
    kt_call call;
    kt_build build;
    kt_plan_step step;
    kt_step_list list;
    kt_stage stage;
} sweep_plan;

static kt_axis fixed(int64_t size) {
    return (kt_axis){.max = size, .var = -1};
}

static kt_tensor numbers(const char *name, int64_t rows, int64_t columns, int64_t offset) {
    return (kt_tensor){.name = kt_str_from(name),
        .home = KT_HOME_ACT,
        .dtype = KT_DTYPE_F32,
        .rank = columns > 0 ? 2 : 1,
        .axis = {fixed(rows), fixed(columns)},
        .offset = offset,
        .bytes = rows * (columns > 0 ? columns : 1) * (int64_t)sizeof(float),
        .weight = -1};
}

static void fill_plan(sweep_plan *p, const kt_sweep *sweep, const kt_op *op, int64_t bytes) {
    int64_t n = bytes / PIECE, b = (n + BLOCK_PIECES - 1) / BLOCK_PIECES;
    const kt_variant *variant = sweep->gpu ? &op->variants[0] : NULL;
    memset(p, 0, sizeof *p);
    p->tensors[0] = numbers("x", n, PIECE / (int64_t)sizeof(float), 0);
    p->tensors[1] = numbers("y", b, 0, bytes);
    p->dims[0] = fixed(n);
    p->dims[1] = fixed(b);
    p->ports[0] = 0;
    p->ports[1] = 1;
    p->call = (kt_call){.op = op,
        .variant = variant,
        .address = op->name,
        .dims = p->dims,
        .ports = p->ports,
        .build = variant ? 0 : -1};
    p->build = (kt_build){.op = op, .variant = variant};
    p->step.call = &p->call;
    p->list = (kt_step_list){.steps = &p->step, .n_steps = 1};
    p->stage = (kt_stage){.name = op->name,
        .bucket_dim = -1,
        .lists = &p->list,
        .n_lists = 1,
        .loop_until = -1,
        .loop_read = -1};
    p->plan = (kt_plan){.tensors = p->tensors,
        .n_tensors = 2,
        .builds = &p->build,
        .n_builds = variant ? 1 : 0,
        .stages = &p->stage,
        .n_stages = 1,
        .result = -1,
        .bytes = {.act = bytes + p->tensors[1].bytes}};
    if (!sweep->gpu) return;
    const kt_gpu_info *info = &sweep->gpu->info;
    p->plan.target = (kt_target){.cuda = true,
        .cc = info->arch,
        .sm_count = info->sm_count,
        .smem_max = info->shared_optin_bytes};
}

// Memory that was never written may be one page of zeros, many times over.
static kt_status write_all(kt_backend *backend, int64_t bytes, kt_err *err) {
    char *from = malloc((size_t)bytes);
    if (!from) kt_out_of_memory((size_t)bytes);
    memset(from, 1, (size_t)bytes);
    kt_status status = backend->table->put(backend, 0, 0, from, bytes, err);
    free(from);
    return status;
}

static kt_status measure(kt_backend *backend, const kt_step_list *list, double *ms, kt_err *err) {
    const kt_backend_table *table = backend->table;
    int64_t none = 0;
    *ms = 0;
    for (int i = 0; i < SWEEPS; i++) {
        KT_TRY(table->mark(backend, 0, true, err));
        KT_TRY(table->run(backend, list->steps, list->n_steps, &none, 0, err));
        KT_TRY(table->mark(backend, 0, false, err));
        KT_TRY(table->wait(backend, err));
        double now = table->stage_ms(backend, 0);
        if (i > 0 && (*ms == 0 || now < *ms)) *ms = now;
    }
    return KT_OK;
}

static kt_status choose_size(const kt_sweep *sweep, int64_t *bytes, kt_err *err) {
    *bytes = (int64_t)CPU_MB << 20;
    if (!sweep->gpu) return KT_OK;
    int64_t room = 0, total = 0, most = (int64_t)GPU_MB << 20;
    KT_TRY(kt_gpu_memory(sweep->gpu, &room, &total, err));
    const int64_t block = (int64_t)PIECE * BLOCK_PIECES;
    *bytes = room / 2 < most ? room / 2 / block * block : most;
    if (*bytes >= (int64_t)LEAST_MB << 20) return KT_OK;
    return KT_FAIL(err, KT_EMEMORY, "only %" PRId64 " MB of GPU memory are free", room >> 20);
}

static kt_status open_backend(
    const kt_sweep *sweep, kt_arena *arena, const kt_plan *plan, kt_backend **out, kt_err *err) {
    kt_cpu_options cpu = {.pool = sweep->pool, .include = sweep->include, .stop = sweep->stop};
    kt_cuda_options cuda = {
        .gpu = sweep->gpu, .compiler = sweep->compiler, .slots = 1, .stop = sweep->stop};
    if (sweep->gpu) return kt_cuda_backend_open(arena, plan, &cuda, out, err);
    return kt_cpu_backend_open(arena, plan, &cpu, out, err);
}

static const kt_op *find_op(const kt_sweep *sweep, kt_arena *arena) {
    kt_diag diag;
    kt_diag_init(&diag, arena);
    kt_ref name = {KT_STR("read_sweep"), {0}};
    const kt_op *op = kt_registry_op(sweep->registry, name, &diag);
    bool plain = op && op->n_ports == 2 && op->n_dims == 2 && op->n_params == 0 &&
                 op->n_typevars == 0 && op->n_variants > 0; // --ops may hold another one
    if (!plain) return NULL;
    const kt_variant *v = &op->variants[0];
    return v->n_layouts + v->n_tunes + v->n_scratch + v->n_counters == 0 ? op : NULL;
}

kt_status kt_sweep_read(const kt_sweep *sweep, double *out, kt_err *err) {
    kt_arena arena = {0};
    kt_backend *backend = NULL;
    sweep_plan *p = KT_NEW(&arena, sweep_plan);
    int64_t bytes = 0;
    double ms = 0;
    *out = 0;
    const kt_op *op = find_op(sweep, &arena);
    kt_status status =
        op ? KT_OK : KT_FAIL(err, KT_EOP, "the op 'read_sweep' is missing from ops/");
    if (status == KT_OK) status = choose_size(sweep, &bytes, err);
    if (status == KT_OK) {
        fill_plan(p, sweep, op, bytes);
        status = open_backend(sweep, &arena, &p->plan, &backend, err);
    }
    if (status == KT_OK && !sweep->gpu) status = write_all(backend, bytes, err);
    if (status == KT_OK) status = measure(backend, &p->list, &ms, err);
    if (status == KT_OK && ms > 0) *out = (double)bytes / (ms / 1e3);
    if (backend) backend->table->close(backend);
    kt_arena_deinit(&arena);
    return status;
}
