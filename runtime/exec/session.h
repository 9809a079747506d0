// A session from the inside: what the inspection commands (check, plan, warm, ops) share with a
// run.
#ifndef KT_EXEC_SESSION_H
#define KT_EXEC_SESSION_H

#include "runtime/exec/cuda.h"
#include "runtime/exec/dump.h"
#include "runtime/exec/load.h"
#include "runtime/exec/request.h"
#include "runtime/kotaro.h"

struct kt_session {
    kt_arena model_arena, plan_arena;
    kt_options_run options;
    kt_registry *registry;
    kt_pipeline *pipeline;
    kt_model model;
    bool model_open;
    const char *model_path; // folder or .gguf file, as it was found
    kt_plan *plan;
    kt_tokenizer *tokenizer;
    kt_gpu *gpu;           // NULL on the CPU
    kt_compiler *compiler; // NULL on the CPU
    kt_backend *backend;
    kt_pool *pool;
    kt_context context;
    kt_profile profile;
    kt_load_stats load;
    kt_dump *dump; // NULL: nobody looks inside
    kt_dump_to dump_to;
    kt_dump_folder *dump_folder; // NULL: none
    FILE *trace;
    char device_name[160];
    kt_os_thread *device_thread; // opens the driver and the context; NULL: it is not under way
    kt_status device_status;     // of it
    kt_err device_err;
    kt_os_thread *tokenizer_thread; // NULL: it is not under way
    kt_status tokenizer_status;
    kt_err tokenizer_err;
    int64_t free_bytes; // of the device, when its context was there
    // All; files and weights; compile and record.
    double open_ms, load_ms, prepare_ms;
    // Of the opening: driver and context, on their thread; files; waiting for that thread;
    // planning; waiting for the tokenizer's thread.
    double device_ms, files_ms, device_wait_ms, plan_ms, tokenizer_wait_ms;
};

// kt_home_folder, or EFILE that says what to do.
kt_status kt_home_get(kt_arena *arena, const char **out, kt_err *err) KT_MUST_CHECK;

// A session that only has its options yet. kt_session_close ends it.
kt_session *kt_session_new(const kt_options_run *options);
// The phases of opening, in order; each needs the ones before. Diagnostics go to diag.
kt_status kt_session_read(
    kt_session *session, kt_diag *diag, kt_err *err) KT_MUST_CHECK; // registry, pipeline, settings
kt_status kt_session_bind(
    kt_session *session, kt_diag *diag, kt_err *err) KT_MUST_CHECK; // model folder, tokenizer
kt_status kt_session_plan(
    kt_session *session, const kt_target *target, kt_diag *diag, kt_err *err) KT_MUST_CHECK;
// Driver and context, or the CPU. Begun, another thread opens them while this one reads files; open
// waits for it.
void kt_session_device_begin(kt_session *session);
kt_status kt_session_device_open(kt_session *session, kt_err *err) KT_MUST_CHECK;
kt_status kt_session_target(
    kt_session *session, kt_target *out, kt_err *err) KT_MUST_CHECK; // of the open device
kt_status kt_session_start(
    kt_session *session, kt_err *err) KT_MUST_CHECK; // back end, weights, graphs
// A compiler with the packs beside the program and progress on the terminal.
kt_status kt_session_compiler(kt_session *session, kt_err *err) KT_MUST_CHECK;

#endif
