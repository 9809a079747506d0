// One request: a picture (or none) on its way through the stages of a plan.
//
// Holds what host steps make: values of the varying dims, host copies of tensors, and objects that
// only host steps see. Lives in its own arena, is used by one thread at a time (the ahead stages of
// the next picture run on a second thread, on another request).
#ifndef KT_EXEC_REQUEST_H
#define KT_EXEC_REQUEST_H

#include "loader/chat.h"
#include "loader/image.h"
#include "runtime/exec/backend.h"

// What is the same for every request of a session.
typedef struct kt_context {
    const kt_plan *plan;
    kt_backend *backend;
    const kt_tokenizer *tokenizer;
    kt_chat_template chat;
    kt_picture_markup markup;
    const kt_pipe_item *items;
    int n_items;
    kt_str shared, system;   // empty: none; the model's own
    const int32_t *stop_ids; // tokens that end an answer besides those that the chat names
    int n_stop_ids;
    kt_pool *pool;
    volatile int *stop;
} kt_context;

typedef struct kt_blob {
    const void *data;
    int64_t bytes;
} kt_blob;

// The batches of an `each` tensor.
typedef struct kt_batches {
    kt_blob *at;
    int n;
} kt_batches;

// One finished item.
typedef struct kt_answer {
    kt_str name, title, text;
    bool cut;       // ended by its length, not by a stop token
    int64_t tokens; // made, stop token included
} kt_answer;

typedef struct kt_answers {
    kt_answer *at;
    int n;
} kt_answers;

typedef struct kt_request {
    const kt_context *context;
    kt_arena arena;
    const char *image_path; // NULL: none
    int slot;
    int64_t *values;        // by plan dim
    kt_blob *blobs;         // by tensor: host copies of what host steps made
    kt_batches *batches;    // by tensor: of `each` outputs
    int64_t **batch_values; // by batch: values of the dims it decides (all plan dims)
    int n_batches;
    void **objects; // by tensor: prompts, grid, answers
    kt_image image; // its pixels are lent to blobs
    int64_t prompt_tokens, completion_tokens;
} kt_request;

kt_request *kt_request_open(const kt_context *context, const char *image_path, int slot);
void kt_request_close(kt_request *request); // NULL is fine

// Runs one host step: fills values, blobs, batches and objects. Does not touch the back end, except
// that read_answers reads its inputs from it. Errors: EFILE, EIMAGE, EPROMPT (of this picture),
// EUSAGE (a picture is wanted and there is none), EMODEL, EOP (an op left what no sampler makes).
kt_status kt_host_run(kt_request *request, const kt_host_call *call, kt_err *err) KT_MUST_CHECK;

// For implementations (host_*.c).
typedef struct kt_host {
    kt_request *request;
    const kt_host_call *call;
} kt_host;

int kt_host_in(const kt_host *host, const char *port); // tensor, -1 absent
int kt_host_inout(const kt_host *host, const char *port);
int kt_host_out(const kt_host *host, const char *port);
int64_t kt_host_number(const kt_host *host, const char *param);
double kt_host_real(const kt_host *host, const char *param);
kt_str kt_host_word(const kt_host *host, const char *param);
// Sets a dim that the step decides. Errors: EIMAGE or EPROMPT (`code`) when it is above its
// maximum.
kt_status kt_host_decide(
    const kt_host *host, const char *dim, int64_t value, kt_status code, kt_err *err) KT_MUST_CHECK;
int64_t kt_host_max(const kt_host *host, const char *dim); // of a dim that the step decides
void kt_host_give(
    const kt_host *host, int tensor, const void *data, int64_t bytes); // lent; tensor -1 is fine
const void *kt_host_data(const kt_host *host, int tensor);             // host copy of an input
int64_t kt_host_size(const kt_host *host, int tensor, int axis);       // for the values so far

typedef kt_status (*kt_host_function)(kt_host *host, kt_err *err);
kt_status kt_host_read_image(kt_host *host, kt_err *err);
kt_status kt_host_fit_image(kt_host *host, kt_err *err);
kt_status kt_host_slice_image(kt_host *host, kt_err *err);
kt_status kt_host_write_prompt(kt_host *host, kt_err *err);
kt_status kt_host_write_text(kt_host *host, kt_err *err);
kt_status kt_host_write_ids(kt_host *host, kt_err *err);
kt_status kt_host_plan_rows(kt_host *host, kt_err *err);
kt_status kt_host_plan_score(kt_host *host, kt_err *err);
kt_status kt_host_read_answers(kt_host *host, kt_err *err);
kt_status kt_host_read_ids(kt_host *host, kt_err *err);
kt_status kt_host_read_score(kt_host *host, kt_err *err);

// What write_prompt made; NULL before it ran, or where no stage runs it.
const kt_prompts *kt_request_prompts(const kt_request *request);

#endif
