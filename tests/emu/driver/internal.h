// What the files of the stand-in driver share.
//
//   api.c      entry points, the lock, counting, injected failures
//   profile.c  the device that is played
//   handle.c   tables of handles with generations
//   context.c  device, contexts, green contexts
//   memory.c   device and pinned memory
//   stream.c   streams, events, the device thread that does the work
//   order.c    what has run without an order
//   work.c     copies, fills: checked when submitted, carried out
//   module.c   libraries, kernels, launches
//   graph.c    graphs
//   report.c   violations, leaks, counts
//
// One lock guards everything (drv.lock). Functions named emu_* expect it held unless they say
// otherwise. The device thread gives it up while it carries something out (drv.running).
#ifndef DRV_DRIVER_INTERNAL_H
#define DRV_DRIVER_INTERNAL_H

#include "runtime/gpu/driver.h"
#include "tests/emu/driver.h"
#include "tests/emu/emu.h"

#include <pthread.h>

#pragma GCC visibility push(hidden)

enum {
    DRV_INVALID_VALUE = 1,
    DRV_NOT_INITIALIZED = 3,
    DRV_NO_DEVICE = 100,
    DRV_INVALID_DEVICE = 101,
    DRV_INVALID_IMAGE = 200,
    DRV_INVALID_CONTEXT = 201,
    DRV_NO_BINARY = 209,
    DRV_OPERATING_SYSTEM = 304,
    DRV_INVALID_HANDLE = 400,
    DRV_NOT_FOUND = 500,
    DRV_ILLEGAL_ADDRESS = 700,
    DRV_OUT_OF_RESOURCES = 701,
    DRV_DESTROYED_CONTEXT = 709,
    DRV_REGISTERED_ALREADY = 712,
    DRV_NOT_REGISTERED = 713,
    DRV_LAUNCH_FAILED = 719,
    DRV_NOT_SUPPORTED = 801,
};

// Our functions: drv_api_cuInit and so on, as KT_DRIVER_LIST has them.
// NOLINTNEXTLINE(bugprone-macro-parentheses): a declaration
#define DRV_DECLARE(need, name, version, params) kt_cu_result KT_CU_API drv_api_##name params;
KT_DRIVER_LIST(DRV_DECLARE)
#undef DRV_DECLARE

#define DRV_NUMBER(need, name, version, params) DRV_CALL_##name,
typedef enum drv_call { KT_DRIVER_LIST(DRV_NUMBER) DRV_N_CALLS } drv_call;
#undef DRV_NUMBER
extern const char *const drv_call_names[DRV_N_CALLS];

// ---- entering and leaving

enum {
    DRV_BEFORE_INIT = 1, // may be called before cuInit
    DRV_CURRENT = 2,     // needs a current context
    DRV_RELEASES = 4,    // is carried out although it fails
    DRV_ASKS = 8,        // a query: not one of the "call:N"
    DRV_ALLOCATES = 16,  // one of the "alloc:N"
    DRV_LATE = 32,       // reports the sticky error after it has done its part
};

kt_cu_result drv_enter(drv_call call, unsigned flags); // takes the lock, whatever it returns
kt_cu_result drv_leave(kt_cu_result code);

// The body of an entry point: `expr` gives its code.
#define DRV_DO(name, flags, expr)                                                                  \
    do {                                                                                           \
        kt_cu_result before = drv_enter(DRV_CALL_##name, (flags)), now = KT_CU_SUCCESS;            \
        if (before == KT_CU_SUCCESS || ((flags)&DRV_RELEASES) != 0) now = (expr);                  \
        return drv_leave(before != KT_CU_SUCCESS ? before : now);                                  \
    } while (0)

// ---- the device

typedef struct drv_profile {
    const char *name, *title;
    int cc_major, cc_minor, sms;
    uint64_t memory, free, promised; // bytes; promised 0: as free
    int shared_optin;
    int sm_share, sm_least; // green contexts come in multiples of sm_share, at least sm_least
    int driver, count, timeout;
    unsigned poison;
    const char *missing; // names with + between
} drv_profile;

// Exits with a message if `text` is not understood.
void drv_profile_read(const char *text, drv_profile *out);
bool drv_profile_lacks(const drv_profile *profile, const char *name);

// ---- handles

typedef enum drv_kind {
    DRV_CONTEXT,
    DRV_STREAM,
    DRV_EVENT,
    DRV_LIBRARY,
    DRV_KERNEL,
    DRV_FUNCTION,
    DRV_GRAPH,
    DRV_NODE,
    DRV_EXEC,
    DRV_GREEN,
    DRV_DESC,
    DRV_N_KINDS
} drv_kind;
extern const char *const drv_kind_names[DRV_N_KINDS];

// A new handle for `object`: an address that nobody can read.
void *drv_handle_open(drv_kind kind, void *object);
// The object; NULL after a violation that says what the handle is.
void *drv_handle_find(drv_kind kind, const void *handle);
// The same without a violation.
void *drv_handle_peek(drv_kind kind, const void *handle);
void drv_handle_close(drv_kind kind, const void *handle);
// Calls `visit` for every living handle of a kind.
void drv_handle_each(
    drv_kind kind, void (*visit)(void *handle, void *object, void *ctx), void *ctx);

// ---- objects

enum { DRV_MAX_STREAMS = 64 };

// What has happened: for each lane, the number of its last work.
typedef struct drv_clock {
    uint64_t at[DRV_MAX_STREAMS];
} drv_clock;
void drv_clock_join(drv_clock *to, const drv_clock *from);

typedef struct drv_green drv_green;
typedef struct drv_stream drv_stream;

typedef struct drv_context {
    void *handle;
    int refs;
    drv_green *green;    // NULL: the primary one
    drv_stream *legacy;  // stream 0, made when first used
    uint64_t generation; // for messages
} drv_context;

struct drv_green {
    void *handle;
    int sms;
    drv_context context;
};

struct drv_stream {
    void *handle;
    drv_context *context;
    int lane;
    bool blocking; // ordered with stream 0
};

typedef struct drv_event {
    void *handle;
    drv_context *context;
    bool timed, recorded;
    int lane;
    uint64_t seq; // of the last record, in its lane
    drv_clock clock;
    uint64_t done_ns; // 0: not yet
} drv_event;

typedef struct drv_library drv_library;
typedef struct drv_function drv_function;

typedef struct drv_kernel_object {
    void *handle;
    drv_library *library;
    const emu_kernel *kernel;
    int max_dynamic;        // bytes, as cuKernelSetAttribute left it
    drv_function *function; // NULL: not asked for yet
} drv_kernel_object;

struct drv_function {
    void *handle;
    drv_kernel_object *kernel;
};

struct drv_library {
    void *handle;
    void *loaded; // of dlopen
    void *file;   // the same, mapped; NULL: that failed
    size_t file_bytes;
    const emu_module_table *table;
    drv_kernel_object *kernels;
    int n_kernels;
    uint64_t number;
};

// ---- work

typedef enum drv_work_kind {
    DRV_WORK_COPY,
    DRV_WORK_FILL,
    DRV_WORK_KERNEL,
    DRV_WORK_RECORD,
    DRV_WORK_GRAPH
} drv_work_kind;

typedef struct drv_access {
    uint64_t at, bytes;
    bool writes;
} drv_access;

typedef struct drv_copy_work {
    uint64_t to, from;
    size_t bytes;
    void *taken; // what `from` had at the call, when it is memory that is not pinned
    bool to_host, from_host;
} drv_copy_work;

typedef struct drv_fill_work {
    uint64_t to;
    size_t n; // elements
    unsigned value, element_bytes;
} drv_fill_work;

typedef struct drv_kernel_work {
    drv_kernel_object *kernel;
    void *kernel_handle; // the kernel of an executable graph may be gone
    emu_launch launch;
    size_t params_bytes;
    _Alignas(16) unsigned char params[4096];
} drv_kernel_work;

// One copy, fill or kernel: alone, or a node of a graph.
typedef struct drv_piece {
    drv_work_kind kind;
    union {
        drv_copy_work copy;
        drv_fill_work fill;
        drv_kernel_work *kernel; // malloc
    } of;
} drv_piece;

enum { DRV_MAX_ACCESSES = 2 };
int drv_piece_accesses(const drv_piece *piece, drv_access out[DRV_MAX_ACCESSES]);
// The first one of b that touches what one of a touches, when one of the two writes; or NULL.
const drv_access *drv_clash(const drv_access *a, int n_a, const drv_access *b, int n_b);
// Does the piece touch this memory, or get its address?
bool drv_piece_uses(const drv_piece *piece, uint64_t at, uint64_t bytes);
// Carries it out. Without the lock. NULL: done; else what is wrong, *code says with which code.
const char *drv_piece_run(const drv_piece *piece, kt_cu_result *code);
void drv_piece_free(drv_piece *piece);

typedef struct drv_exec drv_exec;
typedef struct drv_graph_run drv_graph_run;

typedef struct drv_work {
    struct drv_work *next;
    drv_work_kind kind;
    int lane;
    uint64_t seq;
    drv_clock clock; // after it
    drv_piece piece;
    void *event; // DRV_WORK_RECORD: the handle, which may be gone by then
    drv_graph_run *run;
    drv_access *accesses; // malloc
    int n_accesses;
    char name[96]; // for messages
} drv_work;

// ---- stream.c

// Queues it, gives it its place in the order, compares it with what is not ordered before it.
void drv_submit(drv_stream *stream, drv_work *work);
drv_work *drv_work_new(drv_work_kind kind, const char *name);
// The stream of a handle, stream 0 included; NULL after a violation.
drv_stream *drv_stream_find(kt_cu_stream handle);
// What is submitted to it later comes after this too.
void drv_stream_join(drv_stream *stream, const drv_clock *clock);
drv_stream *drv_stream_open(drv_context *context, bool blocking); // NULL: too many
void drv_stream_close(drv_stream *stream);
// Until all this is done. Gives the sticky code.
kt_cu_result drv_wait_for(const drv_clock *clock);
kt_cu_result drv_wait_for_all(void);
bool drv_is_done(const drv_clock *clock);
// A little work, if there is any.
void drv_work_a_little(void);
// Until nothing is being carried out, for what must not change beside it. Work may be pending.
void drv_rest(void);
// Ends what is being carried out and drops the rest, as a device does that gets lost.
void drv_drop_all(void);
bool drv_done_at(int lane, uint64_t seq);
// Calls `visit` for all pending work.
void drv_each_pending(void (*visit)(const drv_work *work, void *ctx), void *ctx);
const drv_clock *drv_lane_clock(int lane); // after its last work
void drv_device_wake(void);                // there may be something to do now
void drv_device_start(void);
void drv_device_stop(void);

// ---- order.c

enum { DRV_MOST_UNORDERED = 256 };
// Before a piece of the work is carried out. Gives what copies and fills of the same graph touched
// that nothing orders with it, and tells the emulator of kernels. -1: no node of a graph.
size_t drv_order_look(
    const drv_work *work, int node, const drv_piece *piece, drv_access out[DRV_MOST_UNORDERED]);
void drv_order_ran(const drv_work *work, int node, const drv_piece *piece); // after it

// ---- memory.c

typedef enum drv_memory_kind { DRV_DEVICE_MEMORY, DRV_PINNED_MEMORY } drv_memory_kind;
// true: [at, at + bytes) lies in one living block of this kind.
bool drv_memory_has(drv_memory_kind kind, uint64_t at, uint64_t bytes);
// Does it touch device memory, alive or freed?
bool drv_memory_touches_device(uint64_t at, uint64_t bytes);
// What lies at an address, for messages: "device memory 3 (4096 bytes)".
void drv_memory_tell(uint64_t at, char *out, size_t n);
// The host must not, or the device may, touch device memory.
void drv_memory_hide(void);
void drv_memory_show(void);
void drv_memory_release_of(const drv_context *context); // what is left of it leaks
void drv_memory_leaks(void);
uint64_t drv_memory_count(void); // living blocks

// ---- module.c, graph.c

// Looks at a launch as cuLaunchKernelEx does and fills `out`.
typedef struct drv_launch_request {
    drv_kernel_object *kernel;
    const unsigned *grid, *block;
    unsigned shared_bytes;
    void **params;
} drv_launch_request;
kt_cu_result drv_launch_check(const drv_launch_request *request, drv_kernel_work **out);
// Copies and fills: INVALID_VALUE after a violation if they touch what they may not.
kt_cu_result drv_copy_check(const drv_copy_work *copy);
kt_cu_result drv_fill_check(const drv_fill_work *fill);
// A node, drawn among those that may come next; -1: none is left.
int drv_graph_pick(drv_graph_run *run, uint64_t dice);
const drv_piece *drv_graph_piece(const drv_graph_run *run, int node);
bool drv_graph_done(drv_graph_run *run, int node); // true: it was the last one
bool drv_graph_is_before(const drv_graph_run *run, int node, int other);
void drv_graph_run_free(drv_graph_run *run);
bool drv_graph_run_has(const drv_graph_run *run, const drv_library *library);
bool drv_graph_run_uses(const drv_graph_run *run, uint64_t at, uint64_t bytes);

// ---- report.c

void drv_violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
void drv_leak(const char *format, ...) __attribute__((format(printf, 1, 2)));
void drv_report_at_exit(void); // takes the lock itself

// ---- the whole

typedef struct drv_all {
    pthread_mutex_t lock;
    bool initialised;
    int pid;
    drv_profile profile;
    drv_context *primary; // NULL: not retained
    bool quiet_host;      // emu_driver_lazy
    kt_cu_result sticky;  // 0: all is well
    drv_clock host;       // what the host knows to be done
    uint64_t last_call_ns;
    emu_driver_counts counts;
    uint64_t calls[DRV_N_CALLS];
    uint64_t graph_changes;
    uint64_t calls_that_can_fail, allocations; // what KOTARO_EMU_FAIL counts
    const char *fired;                         // the last call that it made fail; NULL: none
} drv_all;
extern drv_all drv;
extern _Thread_local const char *drv_call_name;        // that this thread is in
extern _Thread_local drv_context *drv_current_context; // may be gone: drv_enter looks at
extern _Thread_local void *drv_current_handle;         // this

void drv_get_lost(kt_cu_result code, const char *why); // the first one is told and stays
uint64_t drv_now_ns(void);
uint64_t drv_random(void);
void *drv_new(size_t bytes); // zeroed, never NULL

#pragma GCC visibility pop
#endif
