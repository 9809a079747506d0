// A back end holds a plan's memory and runs its calls: `cpu` through C implementations, `cuda`
// through kernels.
//
// Both offer the same table, so that loading, host steps and the order of stages are written once.
// A back end is used by one thread, except `put_ahead` and `end_ahead`, which a second thread may
// call for the next picture's slot at the same time. All functions may return EINTERRUPTED when the
// stop flag is set. After an error, `wait` before host memory that was put is released.
#ifndef KT_EXEC_BACKEND_H
#define KT_EXEC_BACKEND_H

#include "runtime/base/pool.h"
#include "runtime/plan/plan.h"

typedef struct kt_backend kt_backend;

enum { KT_SLOTS = 2, KT_MAX_STAGES = 32 };

// ---- loading
//
// Weights come as images: the vectors' part of the weight block, and staging areas that are filled
// with parts of weights, prepared, and filled again. An image comes in pieces.

typedef enum kt_load_place { KT_LOAD_VECTORS, KT_LOAD_AREA } kt_load_place;

enum { KT_LOAD_AREAS = 3 };

// Room for pieces. Either they are read into slots, in turn, and sent from there; or the images are
// host memory, and they are read straight into it.
typedef struct kt_load_room {
    int n_areas; // used in turn
    int64_t area_bytes;
    char *slots; // n_slots of slot_bytes; NULL: straight
    int n_slots;
    int64_t slot_bytes;                   // of a piece at most
    char *vectors, *areas[KT_LOAD_AREAS]; // where slots is NULL
} kt_load_room;

// Areas of at most so many bytes, but one weight at least, in the block of the activations.
void kt_load_areas(const kt_plan *plan, int64_t most, kt_load_room *room);

typedef struct kt_load_piece {
    kt_load_place place;
    int area, slot;
    int64_t offset, bytes; // of the image
} kt_load_piece;

// One prepare call of a weight whose parts lie in an area, its staging tensors from `offset` on.
typedef struct kt_load_call {
    const kt_layout *layout;
    const kt_call *call;
    int area;
    int64_t offset;
} kt_load_call;

typedef struct kt_load_times { // of the device; 0 where there is none
    double pin_ms;             // making the slots
    double upload_ms, prepare_ms;
} kt_load_times;

// A stage that repeats until its `until` tensor is all zero, at most `most` times.
typedef struct kt_loop {
    const kt_stage *stage;
    const kt_step_list *list;
    const int64_t *values; // by plan dim
    int64_t most;
    // Called after every step with the contents of `read` and `until`; false ends the loop early.
    bool (*step)(void *ctx, const int32_t *read, const int32_t *until);
    void *ctx;
    int64_t steps; // out: how many steps were read
} kt_loop;

// Are the n numbers of `until` all zero?
bool kt_loop_ended(const int32_t *until, int64_t n);

// Which tensor, of which picture: slots differ for UPLOAD tensors of stages that run ahead.
typedef struct kt_backend_table {
    const char *name;
    void (*close)(kt_backend *backend); // NULL is fine
    // Copies host memory to the start of a tensor's place. Before the next run that reads it.
    kt_status (*put)(
        kt_backend *backend, int tensor, int slot, const void *from, int64_t bytes, kt_err *err);
    kt_status (*get)(
        kt_backend *backend, int tensor, int slot, void *to, int64_t bytes, kt_err *err); // waits
    // The same as put, on the copying side, from a second thread.
    kt_status (*put_ahead)(
        kt_backend *backend, int tensor, int slot, const void *from, int64_t bytes, kt_err *err);
    kt_status (*end_ahead)(
        kt_backend *backend, int slot, kt_err *err); // second thread: all is on its way
    kt_status (*await_ahead)(
        kt_backend *backend, int slot, kt_err *err); // main thread: later runs see it
    // Loading, in this order: open; the pieces of each image; prepare; leave; close. `bytes` will
    // come, read by n_readers threads.
    kt_status (*load_open)(
        kt_backend *backend, int64_t bytes, int n_readers, kt_load_room *room, kt_err *err);
    // Returns before the piece has arrived; its slot is busy until load_sent says done.
    kt_status (*load_send)(kt_backend *backend, const kt_load_piece *piece, kt_err *err);
    kt_status (*load_sent)(kt_backend *backend, int slot, bool wait, bool *done, kt_err *err);
    // After all pieces of the area that were sent before.
    kt_status (*load_prepare)(kt_backend *backend, const kt_load_call *call, kt_err *err);
    // The area's calls are all made: what is sent to it next comes after them.
    kt_status (*load_leave)(kt_backend *backend, int area, kt_err *err);
    kt_status (*load_close)(
        kt_backend *backend, kt_load_times *times, kt_err *err); // waits until all is in place
    // Runs calls in order. Returns before they are done on a GPU.
    kt_status (*run)(kt_backend *backend, const kt_plan_step *steps, int n, const int64_t *values,
        int slot, kt_err *err);
    kt_status (*loop)(kt_backend *backend, kt_loop *loop, int slot, kt_err *err);
    kt_status (*wait)(kt_backend *backend, kt_err *err);
    // Marks where a stage begins and ends; times are known after `wait`.
    kt_status (*mark)(kt_backend *backend, int stage, bool begin, kt_err *err);
    double (*stage_ms)(kt_backend *backend, int stage);
} kt_backend_table;

struct kt_backend {
    const kt_backend_table *table;
    const kt_plan *plan;
};

// One line of the profile: all calls of one op and variant in one stage. Bytes and operations are
// what the manifest's `cost` says, else the sizes of all tensors touched: upper bounds where the
// work depends on values (pages of a row that are not in use yet).
typedef struct kt_profile_row {
    int stage;
    const kt_call *call; // the first one
    int64_t n;
    double ms, flops, bytes;
} kt_profile_row;

typedef struct kt_profile {
    bool on;
    kt_arena *arena;
    KT_VEC(kt_profile_row) rows;
    double read_ceiling; // bytes a second, measured on this device; 0: not measured
} kt_profile;

void kt_profile_add(kt_profile *profile, const kt_plan *plan, const kt_call *call,
    const int64_t *values, double ms);
// For each stage a table of its ops, the slowest first, and their total.
void kt_profile_print(const kt_profile *profile, const kt_plan *plan, kt_buf *out);

typedef struct kt_cpu_options {
    kt_pool *pool;
    const char *include; // folder that holds ops/kt_cpu.h
    kt_profile *profile;
    bool no_blas;
    volatile int *stop;
} kt_cpu_options;

// Finds all C implementations (compiling those that are not in the program) and allocates all
// memory. Errors: EOP, ECOMPILE, EINTERRUPTED (see cpu_op.h).
kt_status kt_cpu_backend_open(kt_arena *arena, const kt_plan *plan, const kt_cpu_options *options,
    kt_backend **out, kt_err *err) KT_MUST_CHECK;

#endif
