// `kotaro plan`: launches, costs and memory as text.
#include "runtime/plan/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 6, ADDRESS_COLUMN = 26, KERNEL_COLUMN = 44 };

// ---- numbers

static void add_bytes(kt_buf *out, double bytes) {
    if (bytes >= 1e9)
        kt_buf_printf(out, "%8.3f GB", bytes / 1e9);
    else if (bytes >= 1e6)
        kt_buf_printf(out, "%8.2f MB", bytes / 1e6);
    else
        kt_buf_printf(out, "%8.1f kB", bytes / 1e3);
}

static void add_flops(kt_buf *out, double flops) {
    if (flops >= 1e9)
        kt_buf_printf(out, "%9.2f GFLOP", flops / 1e9);
    else
        kt_buf_printf(out, "%9.2f MFLOP", flops / 1e6);
}

static void add_tensor(const kt_plan *plan, int index, kt_buf *out) {
    const kt_tensor *t = &plan->tensors[index];
    kt_buf_printf(out, "%s[", kt_dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) {
        const kt_axis *axis = &t->axis[i];
        if (i) kt_buf_printf(out, ", ");
        if (axis->var < 0) {
            kt_buf_printf(out, "%" PRId64, axis->max);
            continue;
        }
        kt_buf_str(out, plan->dims[axis->var].name);
        if (axis->add)
            kt_buf_printf(
                out, " %c %" PRId64, axis->add < 0 ? '-' : '+', (int64_t)llabs(axis->add));
    }
    kt_buf_printf(out, "]");
}

static const char *const host_names[] = {
#define HOST_NAME(code, name) name,
    KT_HOST_TYPE_LIST(HOST_NAME)
#undef HOST_NAME
};

// ---- steps

// Of an address such as "prefill[l=3].0/2": the index and its value; false if it has none.
static bool repeat_index(kt_str address, kt_str *name, int64_t *value) {
    ptrdiff_t open = kt_str_find(address, '['), equal = kt_str_find(address, '=');
    ptrdiff_t close = kt_str_find(address, ']');
    if (open < 0 || equal < open || close < equal) return false;
    *name = kt_str_slice(address, (size_t)open + 1, (size_t)equal);
    return kt_str_to_i64(kt_str_slice(address, (size_t)equal + 1, (size_t)close), value);
}

// What a step calls its output: address and this, with a dot between, is the tensor's address.
static void add_name(const kt_plan *plan, int tensor, kt_str address, kt_buf *out) {
    kt_str name = plan->tensors[tensor].name;
    kt_buf_str(out, kt_str_slice(name, address.n + 1, name.n));
    kt_buf_printf(out, " ");
}

// And what its stage or layer calls it, by which --dump-only takes it too. `list`: NULL for none.
static void add_made(const kt_step_list *list, int tensor, kt_buf *out) {
    for (int i = 0; list && i < list->n_made; i++)
        if (list->made[i].tensor == tensor && list->made[i].kind == KT_MADE_STEP)
            kt_buf_printf(out, " = %.*s", KT_STR_ARG(list->made[i].name));
}

static void print_outputs(
    const kt_plan *plan, const kt_call *call, const kt_step_list *list, kt_buf *out) {
    bool any = false;
    for (int i = 0; i < call->op->n_ports; i++) {
        if (call->op->ports[i].kind != KT_PORT_OUTPUT || call->ports[i] < 0) continue;
        kt_buf_printf(out, any ? ", " : " -> ");
        add_name(plan, call->ports[i], call->address, out);
        add_tensor(plan, call->ports[i], out);
        add_made(list, call->ports[i], out);
        any = true;
    }
    if (!any) kt_buf_printf(out, " -> state");
}

static void print_launch(const kt_plan *plan, const kt_call *call, int launch, kt_buf *out) {
    const kt_variant *v = call->variant;
    const kt_op_launch *l = &v->launches[launch];
    kt_geometry g;
    kt_err err;
    kt_buf name = {0}, grid = {0};
    kt_buf_printf(&name, "kt_%.*s_%.*s%s%.*s", KT_STR_ARG(call->op->name), KT_STR_ARG(v->name),
        l->name.n ? "_" : "", KT_STR_ARG(l->name));
    kt_buf_printf(
        out, "  %-*.*s %-*s", ADDRESS_COLUMN, KT_STR_ARG(call->address), KERNEL_COLUMN, name.at);
    int64_t *maxima = malloc(sizeof *maxima * (size_t)(plan->n_dims + 1));
    if (!maxima) kt_out_of_memory(sizeof *maxima);
    for (int i = 0; i < plan->n_dims; i++) maxima[i] = plan->dims[i].max;
    if (kt_plan_geometry(plan, call, launch, maxima, &g, &err) == KT_OK) {
        kt_buf_printf(&grid, "%" PRId64, g.grid[0]);
        int last = g.grid[2] > 1 ? 2 : g.grid[1] > 1 ? 1 : 0;
        for (int i = 1; i <= last; i++) kt_buf_printf(&grid, "x%" PRId64, g.grid[i]);
        kt_buf_printf(out, " grid %-13s block %-5" PRId64 " shared %-6" PRId64, grid.at,
            g.block[0] * g.block[1] * g.block[2], g.shared_bytes);
    }
    free(maxima);
    kt_buf_deinit(&name);
    kt_buf_deinit(&grid);
}

static void print_call(
    const kt_plan *plan, const kt_call *call, const kt_step_list *list, kt_buf *out) {
    if (!call->variant) {
        kt_buf_printf(out, "  %-*.*s %-*.*s", ADDRESS_COLUMN, KT_STR_ARG(call->address),
            KERNEL_COLUMN, KT_STR_ARG(call->op->name));
        print_outputs(plan, call, list, out);
        kt_buf_printf(out, "\n");
        return;
    }
    for (int i = 0; i < call->variant->n_launches; i++) {
        print_launch(plan, call, i, out);
        if (i + 1 == call->variant->n_launches) print_outputs(plan, call, list, out);
        kt_buf_printf(out, "\n");
    }
}

static void print_host(const kt_plan *plan, const kt_host_call *host, kt_buf *out) {
    kt_buf_printf(out, "  %-*.*s host %-*.*s", ADDRESS_COLUMN, KT_STR_ARG(host->address),
        KERNEL_COLUMN - 5, KT_STR_ARG(host->step->name));
    int n = 0;
    for (int i = 0; i < host->step->n_out; i++) {
        if (host->out[i] < 0) continue; // the pipeline leaves it out
        const kt_tensor *t = &plan->tensors[host->out[i]];
        kt_buf_printf(out, n++ ? ", " : " -> ");
        add_name(plan, host->out[i], host->address, out);
        if (t->home == KT_HOME_HOST)
            kt_buf_printf(out, "%s", host_names[t->host]);
        else
            add_tensor(plan, host->out[i], out);
    }
    kt_buf_printf(out, "\n");
}

static void print_steps(const kt_plan *plan, const kt_step_list *list, bool all, kt_buf *out) {
    kt_str folded = {"", 0};
    int64_t last = 0;
    for (int i = 0; i <= list->n_steps; i++) {
        kt_str name = {"", 0};
        int64_t value = 0;
        const kt_plan_step *step = i < list->n_steps ? &list->steps[i] : NULL;
        bool fold = step && !all && step->call &&
                    repeat_index(step->call->address, &name, &value) && value > 0;
        if (fold) {
            folded = name;
            last = value;
            continue;
        }
        if (folded.n)
            kt_buf_printf(
                out, "      ... the same for %.*s = 1 .. %" PRId64 "\n", KT_STR_ARG(folded), last);
        folded.n = 0;
        if (!step) break;
        if (step->call)
            print_call(plan, step->call, all ? list : NULL, out);
        else
            print_host(plan, step->host, out);
    }
}

static void print_cost(const kt_plan *plan, const kt_step_list *list, kt_buf *out) {
    double flops = 0, bytes = 0;
    int launches = 0;
    for (int i = 0; i < list->n_steps; i++) {
        const kt_call *call = list->steps[i].call;
        double f, b;
        if (!call) continue;
        launches += call->variant ? call->variant->n_launches : 1;
        kt_plan_cost(plan, call, NULL, &f, &b);
        flops += f;
        bytes += b;
    }
    if (launches == 0) return;
    kt_buf_printf(out, "  %d %s, ", launches, plan->target.cuda ? "launches" : "calls");
    add_flops(out, flops);
    kt_buf_printf(out, ", ");
    add_bytes(out, bytes);
    kt_buf_printf(out, " touched at most");
}

static void print_stage(const kt_plan *plan, const kt_stage *stage, bool all, kt_buf *out) {
    kt_buf_printf(out, "\nstage %.*s%s%s", KT_STR_ARG(stage->name), stage->graph ? ", a graph" : "",
        stage->ahead ? ", ahead of the picture before" : "");
    if (stage->n_each) kt_buf_printf(out, ", once for each batch");
    if (stage->loop) kt_buf_printf(out, ", at most %" PRId64 " times", stage->loop_most.max);
    const kt_step_list *shown = &stage->lists[stage->n_lists - 1];
    if (shown->bucket)
        kt_buf_printf(out, ", shown for %.*s = %" PRId64,
            KT_STR_ARG(plan->dims[stage->bucket_dim].name), shown->bucket);
    kt_buf_printf(out, "\n");
    print_steps(plan, shown, all, out);
    for (int i = 0; i < stage->n_lists; i++) {
        size_t before = out->n;
        print_cost(plan, &stage->lists[i], out);
        if (out->n == before) continue;
        if (stage->lists[i].bucket)
            kt_buf_printf(out, ", %.*s = %" PRId64, KT_STR_ARG(plan->dims[stage->bucket_dim].name),
                stage->lists[i].bucket);
        kt_buf_printf(out, "\n");
    }
}

void kt_plan_print(const kt_plan *plan, bool all, kt_buf *out) {
    kt_buf_printf(out, "pipeline %.*s, model %s, ", KT_STR_ARG(plan->pipeline->name),
        plan->model->path ? plan->model->path : "(none)");
    if (plan->target.cuda)
        kt_buf_printf(out, "sm_%d with %d SMs\n", plan->target.cc, plan->target.sm_count);
    else
        kt_buf_printf(out, "the CPU\n");
    for (int i = 0; i < plan->n_dims; i++)
        kt_buf_printf(out, "%s%.*s %" PRId64,
            i ? ", " : "sizes at most: ", KT_STR_ARG(plan->dims[i].name), plan->dims[i].max);
    if (plan->n_dims) kt_buf_printf(out, "\n");
    for (int i = 0; i < plan->n_stages; i++) print_stage(plan, &plan->stages[i], all, out);
    kt_buf_printf(out, "\n");
    kt_plan_print_memory(plan, out);
}

// ---- memory

// Weights of one storage format in one layout.
typedef struct weight_group {
    const kt_format *format;
    kt_str layout;
    bool host;
    int n;
    int64_t stored, bytes;
} weight_group;

static int64_t stored_bytes(const kt_weight *w) {
    int64_t sum = 0;
    int n = w->format ? w->format->n_parts : 1;
    for (int i = 0; w->parts && i < n; i++) {
        if (!w->parts[i]) continue;
        int64_t rows = w->parts[i]->shape[0];
        bool part = w->row_from >= 0 && rows > 0;
        sum += part ? w->parts[i]->bytes / rows * (w->row_to - w->row_from) : w->parts[i]->bytes;
    }
    return sum;
}

static void add_to_group(
    weight_group *groups, int *n, const kt_plan *plan, const kt_layout *layout, int index) {
    const kt_weight *w = &plan->model->weights[layout->weights[index]];
    int at = 0;
    while (at < *n && (groups[at].format != w->format || groups[at].host != layout->host_memory ||
                          !kt_str_eq(groups[at].layout, layout->name)))
        at++;
    if (at == *n)
        groups[(*n)++] = (weight_group){w->format, layout->name, layout->host_memory, 0, 0, 0};
    groups[at].n++;
    groups[at].stored += stored_bytes(w);
    groups[at].bytes += layout->bytes / layout->n_weights;
}

static void print_weights(const kt_plan *plan, kt_buf *out) {
    weight_group *groups = malloc(sizeof *groups * (size_t)(plan->model->n_weights + 1));
    if (!groups) kt_out_of_memory(sizeof *groups);
    int n = 0, vectors = 0;
    for (int i = 0; i < plan->n_layouts; i++)
        for (int w = 0; w < plan->layouts[i].n_weights; w++)
            add_to_group(groups, &n, plan, &plan->layouts[i], w);
    for (int i = 0; i < plan->model->n_weights; i++) vectors += plan->vector_offset[i] >= 0;
    for (int i = 0; i < n; i++) {
        add_bytes(out, (double)groups[i].bytes);
        kt_buf_printf(out, "  %d weights of %.*s as %.*s%s (", groups[i].n,
            KT_STR_ARG(groups[i].format->name), KT_STR_ARG(groups[i].layout),
            groups[i].host && plan->target.cuda ? " in host memory" : "");
        kt_buf_printf(out, "%.2f MB stored)\n", (double)groups[i].stored / 1e6);
    }
    kt_buf_printf(out, "             %d vectors\n", vectors);
    free(groups);
}

static int larger(const void *a, const void *b) {
    const kt_tensor *const *x = a, *const *y = b;
    if ((*x)->bytes != (*y)->bytes) return (*x)->bytes < (*y)->bytes ? 1 : -1;
    return kt_str_cmp((*x)->name, (*y)->name);
}

// Does a larger tensor of the same home, of the state, hold this one?
static bool is_view(const kt_plan *plan, const kt_tensor *t) {
    if (t->home != KT_HOME_STATE) return false;
    for (int i = 0; &plan->tensors[i] != t; i++) {
        const kt_tensor *o = &plan->tensors[i];
        if (o->home == t->home && o->offset <= t->offset &&
            t->offset + t->bytes <= o->offset + o->bytes)
            return true;
    }
    return false;
}

// Of one home or two.
static void print_largest(const kt_plan *plan, const int homes[2], kt_buf *out) {
    // NOLINTNEXTLINE(bugprone-sizeof-expression): pointers
    const kt_tensor **list = calloc((size_t)plan->n_tensors + 1, sizeof *list);
    if (!list) kt_out_of_memory((size_t)plan->n_tensors);
    size_t n = 0;
    for (int i = 0; i < plan->n_tensors; i++)
        if ((int)plan->tensors[i].home == homes[0] || (int)plan->tensors[i].home == homes[1])
            list[n++] = &plan->tensors[i];
    // NOLINTNEXTLINE(bugprone-sizeof-expression): pointers
    qsort(list, n, sizeof *list, larger);
    int shown = 0;
    for (size_t i = 0; i < n && shown < LARGEST; i++) {
        kt_str name;
        int64_t layer;
        if (repeat_index(list[i]->name, &name, &layer) && layer > 0) continue;
        if (is_view(plan, list[i])) continue;
        kt_buf_printf(out, "    ");
        add_bytes(out, (double)list[i]->bytes);
        kt_buf_printf(out, "  %.*s ", KT_STR_ARG(list[i]->name));
        add_tensor(plan, (int)(list[i] - plan->tensors), out);
        kt_buf_printf(out, "\n");
        shown++;
    }
    free(list);
}

void kt_plan_print_sum(const kt_plan *plan, kt_buf *out) {
    const kt_plan_bytes *b = &plan->bytes;
    int64_t slots = plan->target.slots > 1 ? plan->target.slots : 1;
    const struct {
        const char *name;
        int64_t bytes;
    } rows[] = {{"weights", b->weights}, {"state", b->state}, {"activations", b->act},
        {"uploads", b->upload * slots}, {"staging beyond", kt_plan_work_bytes(plan) - b->act},
        {"host weights", plan->target.cuda ? 0 : b->host_weights}};
    kt_buf_printf(out, "memory: ");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].bytes > 0)
            kt_buf_printf(
                out, "%s%s %.1f MB", i ? ", " : "", rows[i].name, (double)rows[i].bytes / 1e6);
    kt_buf_printf(out, "; %.1f MB in all", (double)kt_plan_target_bytes(plan) / 1e6);
    if (plan->target.memory_bytes > 0)
        kt_buf_printf(out, ", %.1f MB may be used", (double)plan->target.memory_bytes / 1e6);
    if (!plan->target.cuda) return;
    kt_buf_printf(out, "; beside it about %d MB for modules and graphs", KT_PLAN_BESIDE_MB);
    if (b->host_weights > 0)
        kt_buf_printf(out, ", %.1f MB of weights in main memory", (double)b->host_weights / 1e6);
}

void kt_plan_print_memory(const kt_plan *plan, kt_buf *out) {
    const kt_plan_bytes *b = &plan->bytes;
    bool shared = plan->target.slots == 1;
    int64_t slots = plan->target.slots > 1 ? plan->target.slots : 1;
    const struct {
        const char *name;
        int64_t bytes;
        int homes[2]; // whose largest tensors are listed, -1
    } rows[] = {{"weights", b->weights, {-1, -1}},
        {"weights in host memory", plan->target.cuda ? 0 : b->host_weights, {-1, -1}},
        {"state", b->state, {KT_HOME_STATE, -1}},
        {"uploads", b->upload * slots, {shared ? -1 : KT_HOME_UPLOAD, -1}},
        {shared ? "activations and uploads" : "activations", b->act,
            {KT_HOME_ACT, shared ? KT_HOME_UPLOAD : -1}},
        {"staging beyond the activations, while weights load", kt_plan_work_bytes(plan) - b->act,
            {-1, -1}}};
    kt_buf_printf(out, "memory at these sizes\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].bytes == 0) continue;
        add_bytes(out, (double)rows[i].bytes);
        kt_buf_printf(out, "  %s\n", rows[i].name);
        if (rows[i].homes[0] >= 0) print_largest(plan, rows[i].homes, out);
    }
    add_bytes(out, (double)kt_plan_target_bytes(plan));
    kt_buf_printf(out, "  in all%s\n", plan->target.cuda ? " on the device" : "");
    if (plan->target.cuda) {
        if (b->host_weights > 0) {
            add_bytes(out, (double)b->host_weights);
            kt_buf_printf(out, "  of weights in main memory\n");
        }
        kt_buf_printf(out,
            "             beside the sum: about %d MB for modules and graphs, and "
            "the driver's context\n",
            KT_PLAN_BESIDE_MB);
    }
    kt_buf_printf(out, "\nweights\n");
    print_weights(plan, out);
}
