// Graphs of explicit nodes, and executable graphs made of them.
#include "tests/emu/driver/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct node {
    void *handle;
    drv_piece piece; // an executable graph has a copy
    int *after;      // indices of nodes of the graph
    int n_after;
} node;

typedef struct node_list {
    void *handle;
    node *nodes;
    int n, cap;
} node_list;

// Handles of nodes lead here.
typedef struct node_place {
    node_list *graph;
    int index;
} node_place;

struct drv_exec {
    void *handle; // NULL: destroyed, but launches are pending
    int uses;     // the handle, and each launch that is pending
    node *nodes;
    int n;
    uint64_t *before; // bits, a row for each node: the nodes that come before it
    bool launched;
    int lane; // of the last launch
    uint64_t seq;
    drv_clock clock;
    uint64_t kernel_launches, graph_changes; // at that time
};

struct drv_graph_run {
    drv_exec *exec;
    int *waits_for; // by node: so many of its predecessors are not done
    int *ready, n_ready;
    int left;
};

// ---- making

static kt_cu_result open_graph(kt_cu_graph *out, unsigned flags) {
    if (flags != 0) {
        drv_violation("flags %u", flags);
        return DRV_INVALID_VALUE;
    }
    node_list *g = drv_new(sizeof *g);
    *out = g->handle = drv_handle_open(DRV_GRAPH, g);
    drv.graph_changes++;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGraphCreate(kt_cu_graph *out, unsigned flags) {
    DRV_DO(cuGraphCreate, 0, open_graph(out, flags));
}

static void free_nodes(node *nodes, int n) {
    for (int i = 0; i < n; i++) {
        drv_piece_free(&nodes[i].piece);
        free(nodes[i].after);
    }
    free(nodes);
}

static kt_cu_result close_graph(kt_cu_graph handle) {
    node_list *g = drv_handle_find(DRV_GRAPH, handle);
    if (g == NULL) return DRV_INVALID_HANDLE;
    for (int i = 0; i < g->n; i++) {
        free(drv_handle_peek(DRV_NODE, g->nodes[i].handle));
        drv_handle_close(DRV_NODE, g->nodes[i].handle);
    }
    free_nodes(g->nodes, g->n);
    drv_handle_close(DRV_GRAPH, handle);
    free(g);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGraphDestroy(kt_cu_graph graph) {
    DRV_DO(cuGraphDestroy, DRV_RELEASES, close_graph(graph));
}

// What a new node comes after, as indices; NULL after a violation.
static int *find_after(const node_list *g, const kt_cu_node *after, size_t n) {
    int *out = drv_new((n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const node_place *place = drv_handle_find(DRV_NODE, after[i]);
        bool mine = place != NULL && place->graph == g;
        if (place != NULL && !mine) drv_violation("a node of another graph");
        for (size_t k = 0; mine && k < i; k++)
            if (out[k] == place->index) {
                drv_violation("a node is named twice");
                mine = false;
            }
        if (!mine) {
            free(out);
            return NULL;
        }
        out[i] = place->index;
    }
    return out;
}

static kt_cu_result add(kt_cu_node *out, kt_cu_graph handle, const kt_cu_node *after, size_t n,
    const drv_piece *piece) {
    node_list *g = drv_handle_find(DRV_GRAPH, handle);
    int *indices = g == NULL ? NULL : find_after(g, after, n);
    if (indices == NULL) return g == NULL ? DRV_INVALID_HANDLE : DRV_INVALID_VALUE;
    if (g->n == g->cap) {
        g->cap = g->cap == 0 ? 64 : g->cap * 2;
        g->nodes = realloc(g->nodes, (size_t)g->cap * sizeof *g->nodes);
        if (g->nodes == NULL) abort();
    }
    node_place *place = drv_new(sizeof *place);
    *place = (node_place){g, g->n};
    node *new = &g->nodes[g->n++];
    *new = (node){.piece = *piece, .after = indices, .n_after = (int)n};
    *out = new->handle = drv_handle_open(DRV_NODE, place);
    drv.graph_changes++;
    return KT_CU_SUCCESS;
}

// ---- nodes

static drv_kernel_object *kernel_of(const kt_cu_kernel_node *params) {
    if (params->function == NULL) return drv_handle_find(DRV_KERNEL, params->kernel);
    const drv_function *function = drv_handle_find(DRV_FUNCTION, params->function);
    return function == NULL ? NULL : function->kernel;
}

static kt_cu_result add_kernel(kt_cu_node *out, kt_cu_graph handle, const kt_cu_node *after,
    size_t n, const kt_cu_kernel_node *params) {
    drv_kernel_object *kernel = kernel_of(params);
    if (kernel == NULL) return DRV_INVALID_HANDLE;
    if (params->extra != NULL) {
        drv_violation("the stand-in takes parameters one by one only");
        return DRV_NOT_SUPPORTED;
    }
    drv_piece piece = {.kind = DRV_WORK_KERNEL};
    const drv_launch_request request = {
        kernel, params->grid, params->block, params->shared_bytes, params->params};
    kt_cu_result code = drv_launch_check(&request, &piece.of.kernel);
    if (code == KT_CU_SUCCESS) code = add(out, handle, after, n, &piece);
    if (code != KT_CU_SUCCESS) drv_piece_free(&piece);
    return code;
}

kt_cu_result drv_api_cuGraphAddKernelNode(kt_cu_node *out, kt_cu_graph graph,
    const kt_cu_node *after, size_t n, const kt_cu_kernel_node *params) {
    DRV_DO(cuGraphAddKernelNode, DRV_CURRENT, add_kernel(out, graph, after, n, params));
}

// false: more than a plain row of bytes.
static bool get_side(const kt_cu_copy_side *side, uint64_t *at, bool *host) {
    *host = side->type == KT_CU_MEMORY_HOST;
    *at = *host ? (uint64_t)(uintptr_t)side->host : side->device;
    return (*host || side->type == KT_CU_MEMORY_DEVICE) && side->x_bytes == 0 && side->y == 0 &&
           side->z == 0 && side->lod == 0;
}

static kt_cu_result add_copy(kt_cu_node *out, kt_cu_graph handle, const kt_cu_node *after, size_t n,
    const kt_cu_copy_node *params) {
    drv_piece piece = {.kind = DRV_WORK_COPY};
    drv_copy_work *copy = &piece.of.copy;
    copy->bytes = params->width_bytes;
    if (!get_side(&params->from, &copy->from, &copy->from_host) ||
        !get_side(&params->to, &copy->to, &copy->to_host) || params->height != 1 ||
        params->depth != 1 || copy->bytes == 0) {
        drv_violation("the stand-in copies rows of bytes only");
        return DRV_INVALID_VALUE;
    }
    kt_cu_result code = drv_copy_check(copy);
    return code == KT_CU_SUCCESS ? add(out, handle, after, n, &piece) : code;
}

// The context of a node: the graph runs in the stream's, so it is looked at only.
static kt_cu_result check_context(kt_cu_context context) {
    if (context == NULL || drv_handle_find(DRV_CONTEXT, context) != NULL) return KT_CU_SUCCESS;
    return DRV_INVALID_CONTEXT;
}

static kt_cu_result first_of(kt_cu_result a, kt_cu_result b) {
    return a != KT_CU_SUCCESS ? a : b;
}

kt_cu_result drv_api_cuGraphAddMemcpyNode(kt_cu_node *out, kt_cu_graph graph,
    const kt_cu_node *after, size_t n, const kt_cu_copy_node *params, kt_cu_context context) {
    DRV_DO(cuGraphAddMemcpyNode, 0,
        first_of(check_context(context), add_copy(out, graph, after, n, params)));
}

static kt_cu_result add_fill(kt_cu_node *out, kt_cu_graph handle, const kt_cu_node *after, size_t n,
    const kt_cu_memset_node *params) {
    drv_piece piece = {.kind = DRV_WORK_FILL};
    drv_fill_work *fill = &piece.of.fill;
    *fill = (drv_fill_work){params->to, params->width, params->value, params->element_bytes};
    if (params->height != 1 || params->width == 0 ||
        (params->element_bytes != 1 && params->element_bytes != 2 && params->element_bytes != 4)) {
        drv_violation("the stand-in fills rows of 1, 2 or 4 bytes each only");
        return DRV_INVALID_VALUE;
    }
    kt_cu_result code = drv_fill_check(fill);
    return code == KT_CU_SUCCESS ? add(out, handle, after, n, &piece) : code;
}

kt_cu_result drv_api_cuGraphAddMemsetNode(kt_cu_node *out, kt_cu_graph graph,
    const kt_cu_node *after, size_t n, const kt_cu_memset_node *params, kt_cu_context context) {
    DRV_DO(cuGraphAddMemsetNode, 0,
        first_of(check_context(context), add_fill(out, graph, after, n, params)));
}

// ---- executable graphs

static size_t row_words(int n) {
    return (size_t)n / 64 + 1;
}

// A node is added after those that it comes after.
static uint64_t *find_before(const node *nodes, int n) {
    size_t words = row_words(n);
    uint64_t *rows = drv_new((size_t)n * words * sizeof *rows);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < nodes[i].n_after; k++) {
            const int from = nodes[i].after[k];
            uint64_t *row = rows + (size_t)i * words;
            for (size_t w = 0; w < words; w++) row[w] |= rows[(size_t)from * words + w];
            row[from / 64] |= UINT64_C(1) << (from % 64);
        }
    return rows;
}

// Does node `to` come after `from`, if need be through others?
static bool comes_after(const drv_exec *exec, int to, int from) {
    return (exec->before[(size_t)to * row_words(exec->n) + (size_t)from / 64] >> (from % 64) & 1) !=
           0;
}

// Copies and fills of one graph that touch the same memory and that no edge orders.
static void compare_nodes(const drv_exec *exec) {
    for (int i = 0; i < exec->n; i++)
        for (int k = 0; k < i; k++) {
            drv_access a[DRV_MAX_ACCESSES], b[DRV_MAX_ACCESSES];
            int n_a = drv_piece_accesses(&exec->nodes[i].piece, a);
            int n_b = n_a == 0 ? 0 : drv_piece_accesses(&exec->nodes[k].piece, b);
            if (drv_clash(a, n_a, b, n_b) == NULL || comes_after(exec, i, k)) continue;
            drv_violation("nodes %d and %d touch the same memory, and no edge orders them", k, i);
            return;
        }
}

static void copy_node(const node *from, node *to) {
    *to = *from;
    to->after = drv_new(((size_t)from->n_after + 1) * sizeof *to->after);
    memcpy(to->after, from->after, (size_t)from->n_after * sizeof *to->after);
    if (from->piece.kind != DRV_WORK_KERNEL) return;
    drv_kernel_work *work = drv_new(sizeof *work);
    *work = *from->piece.of.kernel;
    work->launch.params = work->params;
    to->piece.of.kernel = work;
}

static kt_cu_result instantiate(kt_cu_exec *out, kt_cu_graph handle, kt_cu_instantiate *params) {
    const node_list *g = drv_handle_find(DRV_GRAPH, handle);
    if (g == NULL) return DRV_INVALID_HANDLE;
    params->failed = NULL;
    params->result = 0;
    if (params->flags != 0) {
        drv_violation("flags %" PRIu64, params->flags);
        return DRV_INVALID_VALUE;
    }
    drv_exec *exec = drv_new(sizeof *exec);
    exec->uses = 1;
    exec->n = g->n;
    exec->nodes = drv_new(((size_t)g->n + 1) * sizeof *exec->nodes);
    for (int i = 0; i < g->n; i++) copy_node(&g->nodes[i], &exec->nodes[i]);
    exec->before = find_before(exec->nodes, exec->n);
    compare_nodes(exec);
    *out = exec->handle = drv_handle_open(DRV_EXEC, exec);
    drv.graph_changes++;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGraphInstantiateWithParams(
    kt_cu_exec *out, kt_cu_graph graph, kt_cu_instantiate *params) {
    DRV_DO(cuGraphInstantiateWithParams, DRV_CURRENT, instantiate(out, graph, params));
}

static void drop_exec(drv_exec *exec) {
    if (--exec->uses > 0) return;
    free_nodes(exec->nodes, exec->n);
    free(exec->before);
    free(exec);
}

// Launches that are pending go on.
static kt_cu_result close_exec(kt_cu_exec handle) {
    drv_exec *exec = drv_handle_find(DRV_EXEC, handle);
    if (exec == NULL) return DRV_INVALID_HANDLE;
    drv_handle_close(DRV_EXEC, handle);
    exec->handle = NULL;
    drop_exec(exec);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGraphExecDestroy(kt_cu_exec exec) {
    DRV_DO(cuGraphExecDestroy, DRV_RELEASES, close_exec(exec));
}

static kt_cu_result upload(kt_cu_exec handle, kt_cu_stream stream) {
    if (drv_handle_find(DRV_EXEC, handle) == NULL || drv_stream_find(stream) == NULL)
        return DRV_INVALID_HANDLE;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGraphUpload(kt_cu_exec exec, kt_cu_stream stream) {
    DRV_DO(cuGraphUpload, DRV_CURRENT, upload(exec, stream));
}

// ---- launches

// What was there when the graph was made may be gone.
static kt_cu_result check_nodes(const drv_exec *exec) {
    for (int i = 0; i < exec->n; i++) {
        const drv_piece *piece = &exec->nodes[i].piece;
        kt_cu_result code = KT_CU_SUCCESS;
        if (piece->kind == DRV_WORK_COPY) code = drv_copy_check(&piece->of.copy);
        if (piece->kind == DRV_WORK_FILL) code = drv_fill_check(&piece->of.fill);
        if (piece->kind == DRV_WORK_KERNEL &&
            drv_handle_find(DRV_KERNEL, piece->of.kernel->kernel_handle) == NULL)
            code = DRV_INVALID_HANDLE;
        if (code != KT_CU_SUCCESS) return code;
    }
    return KT_CU_SUCCESS;
}

static drv_work *work_of(drv_exec *exec) {
    char name[96];
    (void)snprintf(name, sizeof name, "graph of %d nodes", exec->n);
    drv_work *work = drv_work_new(DRV_WORK_GRAPH, name);
    drv_graph_run *run = work->run = drv_new(sizeof *run);
    size_t room = (size_t)exec->n + 1;
    run->exec = exec;
    run->left = exec->n;
    run->waits_for = drv_new(room * sizeof *run->waits_for);
    run->ready = drv_new(room * sizeof *run->ready);
    work->accesses = drv_new(room * DRV_MAX_ACCESSES * sizeof *work->accesses);
    for (int i = 0; i < exec->n; i++) {
        run->waits_for[i] = exec->nodes[i].n_after;
        if (run->waits_for[i] == 0) run->ready[run->n_ready++] = i;
        work->n_accesses +=
            drv_piece_accesses(&exec->nodes[i].piece, work->accesses + work->n_accesses);
    }
    exec->uses++;
    return work;
}

// Is this the next step of a loop? Then the host has not waited for the one before.
static void count_step(const drv_exec *exec) {
    emu_driver_counts *c = &drv.counts;
    c->graph_launches++;
    if (!exec->launched || drv.host.at[exec->lane] >= exec->seq) return;
    c->steps++;
    c->kernel_launches_between_steps += c->kernel_launches - exec->kernel_launches;
    c->graph_changes_between_steps += drv.graph_changes - exec->graph_changes;
    c->steps_submitted_ahead += !drv_done_at(exec->lane, exec->seq);
}

static kt_cu_result launch(kt_cu_exec handle, kt_cu_stream to) {
    drv_exec *exec = drv_handle_find(DRV_EXEC, handle);
    drv_stream *stream = drv_stream_find(to);
    if (exec == NULL || stream == NULL) return DRV_INVALID_HANDLE;
    kt_cu_result code = check_nodes(exec);
    if (code != KT_CU_SUCCESS) return code;
    count_step(exec);
    bool beside = exec->launched && exec->lane != stream->lane && !drv_is_done(&exec->clock);
    if (beside && drv_lane_clock(stream->lane)->at[exec->lane] < exec->seq)
        drv_violation("the graph is pending in another stream, and no event orders them");
    drv_work *work = work_of(exec);
    if (exec->launched) drv_stream_join(stream, &exec->clock); // one launch at a time
    drv_submit(stream, work);
    exec->launched = true;
    exec->lane = work->lane;
    exec->seq = work->seq;
    exec->clock = work->clock;
    exec->kernel_launches = drv.counts.kernel_launches;
    exec->graph_changes = drv.graph_changes;
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGraphLaunch(kt_cu_exec exec, kt_cu_stream stream) {
    DRV_DO(cuGraphLaunch, DRV_CURRENT, launch(exec, stream));
}

// ---- running, on the device thread

int drv_graph_pick(drv_graph_run *run, uint64_t dice) {
    if (run->left == 0) return -1;
    int pick = (int)(dice % (uint64_t)run->n_ready), index = run->ready[pick];
    run->ready[pick] = run->ready[--run->n_ready];
    return index;
}

const drv_piece *drv_graph_piece(const drv_graph_run *run, int index) {
    return &run->exec->nodes[index].piece;
}

bool drv_graph_is_before(const drv_graph_run *run, int index, int other) {
    return comes_after(run->exec, other, index);
}

bool drv_graph_done(drv_graph_run *run, int done) {
    for (int i = 0; i < run->exec->n; i++) {
        const node *to = &run->exec->nodes[i];
        for (int k = 0; k < to->n_after; k++)
            if (to->after[k] == done && --run->waits_for[i] == 0) run->ready[run->n_ready++] = i;
    }
    return --run->left == 0;
}

bool drv_graph_run_uses(const drv_graph_run *run, uint64_t at, uint64_t bytes) {
    for (int i = 0; i < run->exec->n; i++)
        if (drv_piece_uses(&run->exec->nodes[i].piece, at, bytes)) return true;
    return false;
}

bool drv_graph_run_has(const drv_graph_run *run, const drv_library *library) {
    for (int i = 0; i < run->exec->n; i++) {
        const drv_piece *piece = &run->exec->nodes[i].piece;
        if (piece->kind == DRV_WORK_KERNEL && piece->of.kernel->kernel->library == library)
            return true;
    }
    return false;
}

void drv_graph_run_free(drv_graph_run *run) {
    drop_exec(run->exec);
    free(run->waits_for);
    free(run->ready);
    free(run);
}
