// Inside the CUDA back end: what cuda.c and cuda_load.c share.
#ifndef KT_EXEC_CUDA_PARTS_H
#define KT_EXEC_CUDA_PARTS_H

#include "runtime/exec/cuda.h"
#include "runtime/gpu/graph.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/timer.h"

// One build, loaded: the kernels of its variant's launches, and what they take.
typedef struct kt_cuda_build {
    kt_gpu_module *module;
    const kt_gpu_kernel **kernels; // by launch
    uint32_t *shared;              // most dynamic shared memory of each launch
    kt_arg *args;
    int n_args;
} kt_cuda_build;

// A recorded step list.
typedef struct kt_cuda_recorded {
    const kt_step_list *list;
    int slot;
    kt_gpu_graph *graph;
} kt_cuda_recorded;

// Pinned copies of what a loop reads, written by the device after every step.
typedef struct kt_cuda_mirror {
    kt_gpu_pinned read, until;
} kt_cuda_mirror;

typedef struct kt_cuda_loading kt_cuda_loading; // cuda_load.c
typedef struct kt_cuda_host kt_cuda_host;

typedef struct kt_cuda {
    kt_backend base;
    kt_arena *arena;
    kt_cuda_options options;
    kt_gpu *gpu;
    kt_cuda_build *builds;
    kt_gpu_block weights, state, act, upload;
    kt_gpu_pinned host_weights;  // pinned, or the address of `kept` in its place
    kt_gpu_block kept;           // weights for host memory that the system would not pin
    kt_cuda_loading *loading;    // while weights are loaded
    kt_cuda_host *host;          // while pages are touched
    kt_dptr staging;             // of the prepare call that is made
    kt_gpu_uploader *ahead_ring; // copy stream, the second thread
    kt_cu_event ahead[KT_SLOTS];
    kt_gpu_timer *timer;
    kt_gpu_timer *stage_timer;
    int stage_mark[KT_MAX_STAGES][2];
    kt_cuda_mirror mirrors[KT_MAX_STAGES];
    KT_VEC(kt_cuda_recorded) graphs;
    kt_cuda_times times;
} kt_cuda;

// Where launches go: a stream, or a graph under construction.
typedef struct kt_cuda_sink {
    kt_cu_stream stream;
    kt_gpu_graph *graph; // NULL: the stream
} kt_cuda_sink;

// Launches of a call. `layout`: of a prepare call, whose staging tensors lie from c->staging on.
kt_status kt_cuda_emit_call(kt_cuda *c, const kt_cuda_sink *to, const kt_call *call,
    const int64_t *values, int slot, const kt_layout *layout, kt_err *err);

// ---- cuda_load.c

// Weights in host memory: begin has threads touch the pages, end pins them. Where the system does
// not pin so much they go to device memory, if there is room. Errors: EMEMORY.
void kt_cuda_host_begin(kt_cuda *c);
kt_status kt_cuda_host_end(kt_cuda *c, kt_err *err) KT_MUST_CHECK;
void kt_cuda_host_close(kt_cuda *c);

void kt_cuda_load_end(kt_cuda *c); // frees what is left of loading; NULL is fine
kt_status kt_cuda_load_open(
    kt_backend *backend, int64_t bytes, int n_readers, kt_load_room *room, kt_err *err);
kt_status kt_cuda_load_send(kt_backend *backend, const kt_load_piece *piece, kt_err *err);
kt_status kt_cuda_load_sent(kt_backend *backend, int slot, bool wait, bool *done, kt_err *err);
kt_status kt_cuda_load_prepare(kt_backend *backend, const kt_load_call *call, kt_err *err);
kt_status kt_cuda_load_leave(kt_backend *backend, int area, kt_err *err);
kt_status kt_cuda_load_close(kt_backend *backend, kt_load_times *times, kt_err *err);

#endif
