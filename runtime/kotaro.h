// Kotaro as a library: open a pipeline with a model on a device, run pictures through it, read the
// answers.
//
//     kt_options_run options = {.pipeline = "pipelines/simple.yaml"};
//     kt_session *session;
//     kt_err err;
//     if (kt_session_open(&options, &session, NULL, &err) != KT_OK) { puts(err.text); ... }
//     kt_session_run(session, images, n_images, &events, &err);
//     kt_session_close(session);
//
// Opening does all the slow work: files, planning, compiling, weights. After it a session can run
// any number of times. One thread uses a session at a time; it starts threads of its own. Several
// sessions in one process are fine, each with its own copy of the weights. Nothing here prints
// results; messages for people (which device, warnings) go to stderr, and kt_log_set_level
// (runtime/base/log.h) makes them fewer. Texts are UTF-8. docs/library.md has a whole program.
#ifndef KT_KOTARO_H
#define KT_KOTARO_H

#include "runtime/base/str.h"

#define KT_VERSION "0.1.0"

// AUTO takes the GPU, or the CPU where no driver and no device is found (one line on stderr says
// why). A GPU that is there and fails is an error: nothing falls back silently.
typedef enum kt_device { KT_DEVICE_AUTO, KT_DEVICE_CUDA, KT_DEVICE_CPU } kt_device;

// A parameter of the pipeline and its value as text: {"language", "ja"}.
typedef struct kt_setting {
    const char *name, *value;
} kt_setting;

// All zero but `pipeline` is a good start. What the pointers point to must live as long as the
// session.
typedef struct kt_options_run {
    const char *pipeline; // a path; below the home folder if there is nothing at the path itself
    const char *model;    // folder or .gguf file, found like the pipeline; NULL: the pipeline's own
    const char *const *ops; // more folders of ops; one with a shipped op's name replaces it
    int n_ops;
    const kt_setting *settings; // in order: of two for one name the later one holds
    int n_settings;
    const char
        *question; // asked instead of the pipeline's items, as an item called "answer"; NULL: none
    kt_device device;
    int64_t max_tokens;   // caps every item; 0: no cap
    int64_t memory_limit; // bytes that may be used; 0: what the device has free, the machine's
                          // memory on the CPU
    bool greedy;          // temperature 0, whatever the settings say
    bool no_graph;        // kernels are launched one by one
    bool check_each;      // wait after every launch and name the one that failed; implies no_graph
    bool profile;         // time every op; slower, implies no_graph
    bool no_cache;        // neither read nor write the cache of compiled kernels
    bool no_blas;         // CPU: own matrix products also where OpenBLAS is installed
    bool several; // runs of more than one picture are to come: read one while another is computed
    bool with_picture; // runs with pictures are to come: refuse a pipeline that takes none before
                       // loading
    bool no_picture;   // runs without pictures are to come: refuse a pipeline that wants one before
                       // loading
    const char *dump; // folder for what stages and layers make, as .npy files; kernels are launched
                      // one by one then, and a run takes one picture at most; NULL: none
    const struct kt_dump_to
        *dump_to; // who gets it instead (runtime/exec/dump.h); NULL: the folder, if there is one
    const char *const *dump_only; // addresses of what is wanted, as there; none: see there
    int n_dump_only;
    int green_sms;      // > 0: on so many SMs only (to measure as a smaller card)
    const char *trace;  // file for one line per driver call; NULL: none
    volatile int *stop; // set to 1 by a signal handler or another thread: whatever runs ends
                        // with EINTERRUPTED; may be NULL
} kt_options_run;

typedef struct kt_result_item {
    kt_str name, title; // of the pipeline; the title in the chosen language
    kt_str text;        // valid UTF-8, without blanks at its ends
    bool cut;           // ended by the cap on its tokens, not by the model
    int64_t tokens; // made, the one that ended it included; mode joint: all are the first item's
} kt_result_item;

// Milliseconds. On a GPU those of stages are between marks in its stream.
typedef struct kt_result_ms {
    double load;    // of the session: model files and weights
    double prepare; // of the session: planning, compiling or loading kernels, memory, graphs
    double image;   // reading, decoding, cutting and uploading this picture (during another one's
                    // run, maybe)
    double vision;  // the stage of this name, and so on; 0 where a pipeline has none
    double prefill; // stages `prompt` and `prefill`: writing the prompt and reading it
    double decode;
    double total; // of this picture: image and all stages
} kt_result_ms;

typedef struct kt_result {
    const char *image;            // as given; NULL without one
    const char *pipeline, *model; // paths as they were found
    const char *device;           // "cpu", or the GPU's name
    const kt_result_item *items;  // in the pipeline's order
    int n_items;
    int64_t prompt_tokens;     // what all items share counts once
    int64_t completion_tokens; // of all items
    kt_result_ms ms;
} kt_result;

// What happens during kt_session_run, called on its thread; any may be NULL. `image` counts from 0.
// What a callback gets lives until it returns. For every picture in turn: text any number of times,
// then result or failed once; after an error that ends the run neither.
typedef struct kt_events {
    void *ctx; // handed to each
    // A piece of an item's text as soon as it is made: whole characters; an item's pieces, put
    // together, are its text in the result. Items are decoded together, so their pieces alternate.
    // Mode `joint` gives none, since only the whole answer can be taken apart.
    void (*text)(void *ctx, int image, int item, kt_str piece);
    void (*result)(void *ctx, int image, const kt_result *result);
    // This picture cannot be used (EFILE, EIMAGE, EPROMPT); the run goes on.
    void (*failed)(void *ctx, int image, const char *path, const kt_err *err);
} kt_events;

typedef struct kt_session kt_session;

// On failure *out is NULL. `report` (may be NULL) gets the diagnostics of YAML and model files,
// warnings included. Errors: EYAML (see report), EMODEL, EFORMAT, EFILE, EUSAGE; EDRIVER, EGPU;
// EMEMORY with the table of what needs how much; EOP, ECOMPILE; EINTERRUPTED.
kt_status kt_session_open(
    const kt_options_run *options, kt_session **out, kt_buf *report, kt_err *err) KT_MUST_CHECK;
void kt_session_close(kt_session *session); // NULL is fine

// Runs pictures one after the other (n 0, images NULL: one run of a pipeline that takes none).
// `events` may be NULL. KT_OK also when some pictures failed. Errors end the run: EUSAGE (pictures
// for a pipeline that takes none, or none for one that does), EGPU, EOP, EINTERRUPTED ...
kt_status kt_session_run(kt_session *session, const char *const *images, int n,
    const kt_events *events, kt_err *err) KT_MUST_CHECK;

bool kt_session_takes_picture(const kt_session *session);
int kt_session_items(const kt_session *session);
kt_str kt_session_item_title(const kt_session *session, int item); // in the chosen language
const char *kt_session_device(const kt_session *session);          // as in kt_result
// For people: what opening took and what was compiled; the profile of all runs so far.
void kt_session_print_times(const kt_session *session, kt_buf *out);
void kt_session_print_profile(const kt_session *session, kt_buf *out);

// The folder that holds ops/, pipelines/ and models/: KOTARO_HOME, beside the program, or one or
// two above it. NULL if none, or if KOTARO_HOME names another folder.
char *kt_home_folder(kt_arena *arena);
// A pipeline or model path as given, or below the home folder if there is nothing at the given
// place.
char *kt_home_find(kt_arena *arena, const char *path);

#endif
