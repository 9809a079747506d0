// One GPU: its primary context, limits, two streams, events.
//
// A kt_gpu belongs to the caller of kt_gpu_open. One thread at a time uses it; another thread calls
// kt_gpu_attach once before its first call. The first sticky error marks the GPU as lost: every
// later call fails with that error, and the process cannot use the GPU again.
#ifndef KT_GPU_DEVICE_H
#define KT_GPU_DEVICE_H

#include "runtime/gpu/driver.h"

typedef struct kt_gpu_info {
    char name[128];
    int cc_major, cc_minor; // 8, 9
    int arch;               // 89
    int sm_count;           // of the green context when there is one
    int device_sm_count;    // of the whole device
    int max_threads;        // a block
    int shared_optin_bytes; // largest shared memory of a block
    bool kernel_timeout;    // the system resets the GPU when a kernel takes too long
    int64_t total_bytes;
    int driver_version; // 13000: CUDA 13.0
} kt_gpu_info;

typedef struct kt_gpu_options {
    int ordinal;     // which device
    int green_sms;   // > 0: run on so many SMs only (a stand-in for a small card)
    bool check_each; // wait after each launch and name the one that failed
    bool poison;     // fill new activation blocks with NaN bytes (0xff)
    bool spin;       // waiting spins instead of sleeping
    FILE *trace;     // one line per driver call, from before the context is made
} kt_gpu_options;

enum { KT_GPU_RECENT = 4 }; // launches remembered for messages

typedef struct kt_gpu_blocks kt_gpu_blocks; // the list of memory, memory.c

typedef struct kt_gpu {
    kt_driver *driver;
    kt_gpu_options options;
    kt_gpu_info info;
    kt_cu_device device;
    kt_cu_context context; // current on the opening thread
    kt_cu_context primary;
    kt_cu_green green;
    kt_cu_stream compute, copy; // non-blocking
    double init_ms;             // cuInit (0 if it was done before)
    double context_ms;          // primary context, streams
    kt_gpu_blocks *blocks;
    bool lost;
    kt_err loss;                    // why, when lost
    unsigned n_launches;            // launches and graph launches so far
    char recent[KT_GPU_RECENT][64]; // names of the last ones, by number modulo KT_GPU_RECENT
} kt_gpu;

// Opens the driver if needed. `options` may be NULL (device 0). Errors: EDRIVER, EMEMORY (context
// creation), EGPU.
kt_status kt_gpu_open(const kt_gpu_options *options, kt_gpu **out, kt_err *err) KT_MUST_CHECK;
void kt_gpu_close(kt_gpu *gpu); // frees all blocks that are left; NULL is fine
kt_status kt_gpu_attach(kt_gpu *gpu, kt_err *err) KT_MUST_CHECK; // this thread uses the GPU too
// Free and total bytes now. An estimate on Windows.
kt_status kt_gpu_memory(
    kt_gpu *gpu, int64_t *free_bytes, int64_t *total_bytes, kt_err *err) KT_MUST_CHECK;
// How many devices the driver has; 0 with a reason in err if it cannot be used.
int kt_gpu_count(kt_err *err);

kt_status kt_gpu_wait(
    kt_gpu *gpu, kt_cu_stream stream, kt_err *err) KT_MUST_CHECK; // until the stream is idle
kt_status kt_gpu_flush(
    kt_gpu *gpu, kt_cu_stream stream, kt_err *err) KT_MUST_CHECK; // starts batched work (Windows)

// Events: marks in a stream. `timed` ones can be used with timer.h.
kt_status kt_gpu_event_open(kt_gpu *gpu, bool timed, kt_cu_event *out, kt_err *err) KT_MUST_CHECK;
void kt_gpu_event_close(kt_gpu *gpu, kt_cu_event event); // NULL is fine
kt_status kt_gpu_event_record(
    kt_gpu *gpu, kt_cu_event event, kt_cu_stream stream, kt_err *err) KT_MUST_CHECK;
kt_status kt_gpu_event_wait(
    kt_gpu *gpu, kt_cu_event event, kt_err *err) KT_MUST_CHECK; // the host waits
kt_status kt_gpu_event_done(kt_gpu *gpu, kt_cu_event event, bool *done, kt_err *err) KT_MUST_CHECK;
// Milliseconds between two timed events that have both passed.
kt_status kt_gpu_event_ms(
    kt_gpu *gpu, kt_cu_event from, kt_cu_event to, double *ms, kt_err *err) KT_MUST_CHECK;
// What follows in `stream` waits for the event.
kt_status kt_gpu_stream_after(
    kt_gpu *gpu, kt_cu_stream stream, kt_cu_event event, kt_err *err) KT_MUST_CHECK;

// For launch.c and graph.c: keeps the name for the message of a later sticky error.
void kt_gpu_remember(kt_gpu *gpu, const char *name);
// For gpu/*.c: turns a code into a status and notices a lost GPU.
kt_status kt_gpu_check(
    kt_gpu *gpu, kt_cu_result code, const char *call, const char *doing, kt_err *err);
#define KT_GPU_DO(gpu, name, args, doing, err)                                                     \
    kt_gpu_check((gpu), KT_CU((gpu)->driver, name, args), #name, (doing), (err))

#endif
