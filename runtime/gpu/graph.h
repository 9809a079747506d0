// CUDA graphs from launch records: explicit kernel, copy and fill nodes, built once and replayed as
// they are.
//
// No stream capture and no updates: what changes between replays is device state. A graph is built
// and launched by one thread; the modules, blocks and pinned memory it names must outlive it.
#ifndef KT_GPU_GRAPH_H
#define KT_GPU_GRAPH_H

#include "runtime/gpu/launch.h"
#include "runtime/gpu/memory.h"

typedef struct kt_gpu_graph kt_gpu_graph;

// What a node comes after. `nodes` are numbers returned by earlier calls. A NULL kt_graph_after:
// after the node before it (a chain). n == 0: at once.
typedef struct kt_graph_after {
    const int *nodes;
    int n;
} kt_graph_after;

kt_status kt_gpu_graph_open(
    kt_gpu *gpu, const char *name, kt_gpu_graph **out, kt_err *err) KT_MUST_CHECK;
void kt_gpu_graph_close(kt_gpu_graph *graph); // NULL is fine; it must not be running

// Each adds a node; *node (may be NULL) gets its number, counted from 0. Parameters are copied.
kt_status kt_gpu_graph_kernel(kt_gpu_graph *graph, const kt_launch *launch,
    const kt_graph_after *after, int *node, kt_err *err) KT_MUST_CHECK;
kt_status kt_gpu_graph_download(kt_gpu_graph *graph, void *to_pinned, kt_dptr from, size_t bytes,
    const kt_graph_after *after, int *node, kt_err *err) KT_MUST_CHECK;
kt_status kt_gpu_graph_upload(kt_gpu_graph *graph, kt_dptr to, const void *from_pinned,
    size_t bytes, const kt_graph_after *after, int *node, kt_err *err) KT_MUST_CHECK;
kt_status kt_gpu_graph_copy(kt_gpu_graph *graph, kt_dptr to, kt_dptr from, size_t bytes,
    const kt_graph_after *after, int *node, kt_err *err) KT_MUST_CHECK;
kt_status kt_gpu_graph_fill(kt_gpu_graph *graph, kt_dptr to, unsigned char value, size_t bytes,
    const kt_graph_after *after, int *node, kt_err *err) KT_MUST_CHECK;

// Makes it executable and sends it to the device, so that the first launch costs what the others
// do. Nothing can be added after. Errors: EGPU naming the node that the driver refused.
kt_status kt_gpu_graph_finish(kt_gpu_graph *graph, kt_err *err) KT_MUST_CHECK;
// One driver call. One launch of a graph runs at a time: those on one stream follow each other.
kt_status kt_gpu_graph_launch(kt_gpu_graph *graph, kt_cu_stream stream, kt_err *err) KT_MUST_CHECK;

typedef struct kt_graph_info {
    int n_nodes, n_kernels, n_copies;
    double build_ms, instantiate_ms, upload_ms;
} kt_graph_info;
kt_graph_info kt_gpu_graph_info(const kt_gpu_graph *graph);

#endif
