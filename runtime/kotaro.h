// Kotaro as a library: open a pipeline with a model on a device, run pictures through it, read the
// answers.
//
// A session owns everything it opened. It is used by one thread; it starts its own. Texts that a
// callback gets live until the callback returns.
#ifndef KT_KOTARO_H
#define KT_KOTARO_H

#include "runtime/base/str.h"

#define KT_VERSION "0.1.0"

typedef enum kt_device { KT_DEVICE_AUTO, KT_DEVICE_CUDA, KT_DEVICE_CPU } kt_device;

typedef struct kt_setting {
    const char *name, *value; // --set NAME=VALUE
} kt_setting;

typedef struct kt_options_run {
    const char *pipeline;   // path
    const char *model;      // folder; NULL: the pipeline's own
    const char *const *ops; // --ops folders
    int n_ops;
    const kt_setting *settings;
    int n_settings;
    const char *question; // -p; NULL: the pipeline's items
    kt_device device;
    int64_t max_tokens;   // caps every item; 0: no cap
    int64_t memory_limit; // bytes; 0: what the device has free
    bool greedy;
    bool no_graph, check_each, profile, no_cache, no_blas;
    bool several;       // more than one picture will come
    int green_sms;      // > 0: on so many SMs only (to measure as a smaller card)
    const char *trace;  // file for one line per driver call; NULL: none
    volatile int *stop; // becomes 1 when the user interrupts; may be NULL
} kt_options_run;

typedef struct kt_result_item {
    kt_str name, title, text;
    bool cut; // by its length
    int64_t tokens;
} kt_result_item;

typedef struct kt_result_ms {
    double load, prepare; // of the session: model and weights; compiling and recording
    double image, vision, prefill, decode; // of this picture
    double total;
} kt_result_ms;

typedef struct kt_result {
    const char *image; // as given; NULL without one
    const char *pipeline, *model;
    const char *device; // "cpu", or the GPU's name
    const kt_result_item *items;
    int n_items;
    int64_t prompt_tokens, completion_tokens;
    kt_result_ms ms;
} kt_result;

// What happens during kt_session_run; any may be NULL.
typedef struct kt_events {
    void *ctx;
    void (*text)(void *ctx, int image, int item, kt_str piece); // as it comes (mode branches)
    void (*result)(void *ctx, int image, const kt_result *result);
    void (*failed)(
        void *ctx, int image, const char *path, const kt_err *err); // this picture; the run goes on
} kt_events;

typedef struct kt_session kt_session;

// Errors: EYAML with the diagnostics in `report`; EMODEL, EFORMAT, EFILE, EDRIVER, EMEMORY,
// ECOMPILE ... `report` also gets warnings; it may be NULL.
kt_status kt_session_open(
    const kt_options_run *options, kt_session **out, kt_buf *report, kt_err *err) KT_MUST_CHECK;
void kt_session_close(kt_session *session); // NULL is fine
// Runs pictures one after the other (n 0 with images NULL: one request without a picture). Returns
// KT_OK also when some failed (events.failed told); an error that ends the run is returned.
kt_status kt_session_run(kt_session *session, const char *const *images, int n,
    const kt_events *events, kt_err *err) KT_MUST_CHECK;
int kt_session_items(const kt_session *session);
kt_str kt_session_item_title(const kt_session *session, int item);
const char *kt_session_device(const kt_session *session);
// What opening took and what was compiled, and after a run the profile: for people.
void kt_session_print_times(const kt_session *session, kt_buf *out);
void kt_session_print_profile(const kt_session *session, kt_buf *out);

// The folder that holds ops/, pipelines/ and models/: KOTARO_HOME, beside the program, or one above
// it. NULL if none.
char *kt_home_folder(kt_arena *arena);
// A pipeline or model path as given, or below the home folder if there is nothing at the given
// place.
char *kt_home_find(kt_arena *arena, const char *path);

#endif
