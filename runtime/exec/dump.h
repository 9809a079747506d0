// Looking inside a run: what stages and layers make, handed out the moment it is made.
//
// Calls run one by one then, and each chosen tensor is fetched right behind the call that made it,
// since activations share memory. A tensor has an address: the name that its step gives it behind
// the stage and the repeats it stands in ("vision.photo", "prefill[l=3].x1"), or inside an op that
// runs through its body ("prefill[l=3].0/q"), or the address of the step that makes it, as `kotaro
// plan --all` prints it, and the output's name ("prefill[l=3].0/0/2.q0"). State that a step changes
// is the step's address and the state's name ("decode.choose.gen.left", "prompt.1.table"). A stage
// that runs several times adds @0, @1 ...: its batches, or the steps of its loop.
//
// One thread, that of the run. kt_dump lives in its arena; what it hands out lives until the taker
// returns.
#ifndef KT_EXEC_DUMP_H
#define KT_EXEC_DUMP_H

#include "runtime/exec/request.h"

// One tensor, with the sizes of this request.
typedef struct kt_dump_tensor {
    kt_str address;     // without @
    int64_t index;      // of the batch or the loop's step; -1: the stage runs once
    kt_str stage, step; // the stage's name, the step's address
    kt_dtype made;      // as the step makes it
    kt_dtype dtype;     // as it is here: floats f32, integers as they are, eight-bit floats u8
    int rank;
    int64_t shape[KT_MAX_RANK];
    int64_t n; // elements
    const void *data;
} kt_dump_tensor;

// Who gets the tensors.
typedef struct kt_dump_to {
    void *ctx;
    kt_status (*take)(void *ctx, const kt_dump_tensor *tensor, kt_err *err);
} kt_dump_to;

typedef struct kt_dump kt_dump;

// `only`: addresses with or without @, names of which some are prefixes ("prefill[l=3]": all below
// it), or with '*' for any run of characters; none: what stages and layers make and what host steps
// leave in state. `to` must live as long. Errors: EUSAGE for one that nothing in the plan has, with
// names like it.
kt_status kt_dump_open(kt_arena *arena, const kt_plan *plan, const char *const *only, int n_only,
    const kt_dump_to *to, kt_dump **out, kt_err *err) KT_MUST_CHECK;
void kt_dump_close(kt_dump *dump); // NULL is fine
// Does something that this step makes go out?
bool kt_dump_wants(const kt_dump *dump, const kt_step_list *list, int step);
// Hands out what the step just made. `index` as above; values: by plan dim. Errors: those of the
// back end and of the taker.
kt_status kt_dump_step(kt_dump *dump, kt_request *request, const kt_step_list *list, int step,
    const int64_t *values, int64_t index, kt_err *err) KT_MUST_CHECK;
// Did the taker end the run?
bool kt_dump_failed(const kt_dump *dump);
// At the end of a run: says which of `only` named something that was never made (step 7 of 5).
void kt_dump_warn(const kt_dump *dump);

// ---- to a folder

typedef struct kt_dump_folder kt_dump_folder;

// One .npy file a tensor, called by its address with '-' for each of [ ] = / , and index.json. The
// folder is made if there is none. One that holds a former dump and nothing else has its files
// replaced, once there is something to write; any other that is not empty is refused. Errors:
// EFILE.
kt_status kt_dump_folder_open(
    kt_arena *arena, const char *path, kt_dump_folder **out, kt_err *err) KT_MUST_CHECK;
kt_dump_to kt_dump_folder_to(kt_dump_folder *folder);
// Writes index.json and says how much there is; a later run replaces it all. Errors: EFILE; then
// what was written is gone.
kt_status kt_dump_folder_end(
    kt_dump_folder *folder, const kt_plan *plan, kt_err *err) KT_MUST_CHECK;

#endif
