#include "runtime/gpu/graph.h"

#include "runtime/base/os.h"
#include "runtime/gpu/memory_list.h"

#include <stdlib.h>
#include <string.h>

typedef struct graph_node {
    kt_cu_node node;
    const char *name;
} graph_node;

struct kt_gpu_graph {
    kt_gpu *gpu;
    const char *name;
    kt_arena arena;
    kt_cu_graph graph;
    kt_cu_exec exec;
    KT_VEC(graph_node) nodes;
    kt_cu_node *after; // what the node being added comes after
    size_t n_after;
    kt_graph_info info;
    double started_ms;
};

kt_status kt_gpu_graph_open(kt_gpu *gpu, const char *name, kt_gpu_graph **out, kt_err *err) {
    *out = NULL;
    kt_gpu_graph *graph = kt_gpu_new(sizeof *graph);
    graph->gpu = gpu;
    graph->started_ms = kt_os_now_ms();
    graph->name = kt_arena_copy(&graph->arena, name, strlen(name));
    kt_status status = KT_GPU_DO(gpu, cuGraphCreate, (&graph->graph, 0), "making a graph", err);
    if (status != KT_OK) {
        kt_gpu_graph_close(graph);
        return status;
    }
    *out = graph;
    return KT_OK;
}

void kt_gpu_graph_close(kt_gpu_graph *graph) {
    if (graph == NULL) return;
    if (graph->exec != NULL) (void)KT_CU(graph->gpu->driver, cuGraphExecDestroy, (graph->exec));
    if (graph->graph != NULL) (void)KT_CU(graph->gpu->driver, cuGraphDestroy, (graph->graph));
    kt_arena_deinit(&graph->arena);
    free(graph);
}

// Collects the driver's nodes of `after` in graph->after.
static void collect(kt_gpu_graph *graph, const kt_graph_after *after) {
    KT_ASSERT(graph->exec == NULL); // finished graphs do not grow
    size_t n = graph->nodes.n;
    const int last[] = {(int)n - 1};
    const kt_graph_after chain = {last, n > 0};
    if (after == NULL) after = &chain;
    graph->after = KT_NEW_ARRAY(&graph->arena, kt_cu_node, after->n + 1);
    graph->n_after = (size_t)after->n;
    for (int i = 0; i < after->n; i++) {
        KT_ASSERT(after->nodes[i] >= 0 && (size_t)after->nodes[i] < n);
        graph->after[i] = graph->nodes.at[after->nodes[i]].node;
    }
}

static kt_status added(kt_gpu_graph *graph, kt_cu_result code, const char *call, kt_cu_node made,
    const char *name, kt_err *err) {
    char doing[256];
    if (code != KT_CU_SUCCESS) {
        (void)snprintf(doing, sizeof doing, "adding '%s' to graph '%s'", name, graph->name);
        return kt_gpu_check(graph->gpu, code, call, doing, err);
    }
    const graph_node one = {made, kt_arena_copy(&graph->arena, name, strlen(name))};
    KT_PUSH(&graph->arena, &graph->nodes, one);
    graph->info.n_nodes = (int)graph->nodes.n;
    return KT_OK;
}

static void tell(const kt_gpu_graph *graph, int *node) {
    if (node != NULL) *node = graph->info.n_nodes - 1;
}

kt_status kt_gpu_graph_kernel(kt_gpu_graph *graph, const kt_launch *launch,
    const kt_graph_after *after, int *node, kt_err *err) {
    void *params[KT_GPU_MAX_PARAMS];
    KT_TRY(kt_launch_prepare(graph->gpu, launch, params, err));
    collect(graph, after);
    const kt_cu_kernel_node config = {
        .function = launch->kernel->function,
        .grid = {launch->grid[0], launch->grid[1], launch->grid[2]},
        .block = {launch->block[0], launch->block[1], launch->block[2]},
        .shared_bytes = launch->shared_bytes,
        .params = params,
    };
    kt_cu_node made = NULL;
    const char *name = launch->name == NULL ? launch->kernel->name : launch->name;
    kt_cu_result code = KT_CUF(graph->gpu->driver, cuGraphAddKernelNode,
        (&made, graph->graph, graph->after, graph->n_after, &config), "kernel=%s name=%s",
        launch->kernel->name, name);
    KT_TRY(added(graph, code, "cuGraphAddKernelNode", made, name, err));
    graph->info.n_kernels++;
    tell(graph, node);
    return KT_OK;
}

static kt_status add_copy(kt_gpu_graph *graph, kt_cu_copy_side to, kt_cu_copy_side from,
    size_t bytes, const kt_graph_after *after, kt_err *err) {
    collect(graph, after);
    kt_cu_copy_node config = {
        .from = from, .to = to, .width_bytes = bytes, .height = 1, .depth = 1};
    config.from.pitch = config.to.pitch = bytes;
    config.from.height = config.to.height = 1;
    kt_cu_node made = NULL;
    kt_cu_result code = KT_CUF(graph->gpu->driver, cuGraphAddMemcpyNode,
        (&made, graph->graph, graph->after, graph->n_after, &config, graph->gpu->context),
        "bytes=%zu", bytes);
    KT_TRY(added(graph, code, "cuGraphAddMemcpyNode", made, "copy", err));
    graph->info.n_copies++;
    return KT_OK;
}

static kt_cu_copy_side on_device(kt_dptr at) {
    return (kt_cu_copy_side){.type = KT_CU_MEMORY_DEVICE, .device = at};
}

static kt_cu_copy_side on_host(const void *at) {
    return (kt_cu_copy_side){.type = KT_CU_MEMORY_HOST, .host = at};
}

kt_status kt_gpu_graph_download(kt_gpu_graph *graph, void *to_pinned, kt_dptr from, size_t bytes,
    const kt_graph_after *after, int *node, kt_err *err) {
    KT_TRY(add_copy(graph, on_host(to_pinned), on_device(from), bytes, after, err));
    tell(graph, node);
    return KT_OK;
}

kt_status kt_gpu_graph_upload(kt_gpu_graph *graph, kt_dptr to, const void *from_pinned,
    size_t bytes, const kt_graph_after *after, int *node, kt_err *err) {
    KT_TRY(add_copy(graph, on_device(to), on_host(from_pinned), bytes, after, err));
    tell(graph, node);
    return KT_OK;
}

kt_status kt_gpu_graph_copy(kt_gpu_graph *graph, kt_dptr to, kt_dptr from, size_t bytes,
    const kt_graph_after *after, int *node, kt_err *err) {
    KT_TRY(add_copy(graph, on_device(to), on_device(from), bytes, after, err));
    tell(graph, node);
    return KT_OK;
}

kt_status kt_gpu_graph_fill(kt_gpu_graph *graph, kt_dptr to, unsigned char value, size_t bytes,
    const kt_graph_after *after, int *node, kt_err *err) {
    collect(graph, after);
    const kt_cu_memset_node config = {
        .to = to, .pitch = bytes, .value = value, .element_bytes = 1, .width = bytes, .height = 1};
    kt_cu_node made = NULL;
    kt_cu_result code = KT_CUF(graph->gpu->driver, cuGraphAddMemsetNode,
        (&made, graph->graph, graph->after, graph->n_after, &config, graph->gpu->context),
        "bytes=%zu value=%u", bytes, (unsigned)value);
    KT_TRY(added(graph, code, "cuGraphAddMemsetNode", made, "fill", err));
    tell(graph, node);
    return KT_OK;
}

static const char *failed_node(const kt_gpu_graph *graph, kt_cu_node failed) {
    for (size_t i = 0; i < graph->nodes.n; i++)
        if (graph->nodes.at[i].node == failed) return graph->nodes.at[i].name;
    return NULL;
}

kt_status kt_gpu_graph_finish(kt_gpu_graph *graph, kt_err *err) {
    kt_gpu *gpu = graph->gpu;
    double start = kt_os_now_ms();
    graph->info.build_ms = start - graph->started_ms;
    kt_cu_instantiate params = {0};
    kt_cu_result code =
        KT_CUF(gpu->driver, cuGraphInstantiateWithParams, (&graph->exec, graph->graph, &params),
            "nodes=%d name=%s", graph->info.n_nodes, graph->name);
    if (code != KT_CU_SUCCESS) {
        graph->exec = NULL;
        char doing[256];
        (void)snprintf(doing, sizeof doing, "making graph '%s' executable", graph->name);
        kt_status status = kt_gpu_check(gpu, code, "cuGraphInstantiateWithParams", doing, err);
        const char *name = params.failed == NULL ? NULL : failed_node(graph, params.failed);
        if (name != NULL) kt_err_note(err, "at node '%s' (reason %d)", name, params.result);
        return status;
    }
    double made = kt_os_now_ms();
    graph->info.instantiate_ms = made - start;
    KT_TRY(KT_GPU_DO(gpu, cuGraphUpload, (graph->exec, gpu->compute), "uploading a graph", err));
    KT_TRY(kt_gpu_wait(gpu, gpu->compute, err));
    graph->info.upload_ms = kt_os_now_ms() - made;
    return KT_OK;
}

kt_status kt_gpu_graph_launch(kt_gpu_graph *graph, kt_cu_stream stream, kt_err *err) {
    KT_ASSERT(graph->exec != NULL);
    kt_gpu_remember(graph->gpu, graph->name);
    KT_TRY(kt_gpu_check(graph->gpu,
        KT_CUF(graph->gpu->driver, cuGraphLaunch, (graph->exec, stream), "name=%s", graph->name),
        "cuGraphLaunch", "launching a graph", err));
    if (!graph->gpu->options.check_each) return KT_OK;
    kt_status status = kt_gpu_wait(graph->gpu, stream, err);
    if (status != KT_OK) kt_err_note(err, "in graph '%s'", graph->name);
    return status;
}

kt_graph_info kt_gpu_graph_info(const kt_gpu_graph *graph) {
    return graph->info;
}
