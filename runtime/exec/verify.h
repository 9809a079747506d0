// Does a run make what a reference made? A golden folder says what to run and holds the tensors.
//
// golden.json:
//   { "kotaro": "golden/1", "doc": "what made it", "pipeline": "file name", or "",
//     "model": "folder, relative to this one", "image": "file", "question": "text", each or null,
//     "set": {"name": "value"}, "greedy": true, "max_tokens": 4,
//     "stages": [ { "name": "decoder layer 3", "address": "prefill[l=3].x1", "file": "dec3.npy",
//                   "kind": "float", "relative": 2e-3, "why": "where the tolerance comes from",
//                   "plus": "prefill[l=3].p1", "rows": [0, 16], "batch": 0 },
//                 { "name": "prompt", "address": "prompt.chunk.ids", "file": "ids.npy",
//                   "kind": "exact" } ] }
// Addresses are those of dump.h. `plus` (partial sums [s, n, d], summed over s and added), `rows`
// (from and to, of the tensor's first axis) and `batch` (the number behind @; 0) may be left out.
// Only what a golden names is fetched, and its file is read in pieces beside it.
#ifndef KT_EXEC_VERIFY_H
#define KT_EXEC_VERIFY_H

#include "runtime/exec/dump.h"
#include "runtime/kotaro.h"

typedef struct kt_golden_stage {
    kt_str name, address, plus, why; // plus empty: none
    const char *path;                // of the .npy file
    bool exact;
    double relative;  // tolerance of ||run - golden|| / ||golden||
    int64_t from, to; // rows; to -1: all
    int64_t batch;
} kt_golden_stage;

typedef struct kt_golden {
    const char *folder;
    kt_str doc, pipeline;                 // empty: not said
    const char *model, *image, *question; // paths joined with the folder; NULL: none
    kt_setting *settings;
    int n_settings;
    bool greedy;
    int64_t max_tokens; // 0: not said
    kt_golden_stage *stages;
    int n_stages;
    const char **addresses; // for kt_options_run.dump_only
    int n_addresses;
} kt_golden;

// Errors: EFILE, EFORMAT with the stage and the key; the .npy files' headers are read too.
kt_status kt_golden_read(
    kt_arena *arena, const char *folder, kt_golden *out, kt_err *err) KT_MUST_CHECK;

// How one stage came out.
typedef struct kt_verdict {
    bool compared; // false: `problem` says why not
    bool passed;
    const char *problem; // NULL: none
    int rank;
    int64_t shape[KT_MAX_RANK]; // of what was compared
    int64_t n, n_different, n_not_finite;
    double largest;             // |run - golden|
    double relative;            // ||run - golden|| / ||golden||
    int64_t worst[KT_MAX_RANK]; // where the largest is (or the first that is not finite), in the
                                // run's whole tensor
    double got, wanted;         // there
} kt_verdict;

typedef struct kt_verify kt_verify;

// Both must live as long. kt_verify_to goes to kt_options_run.dump_to; after the run the verdicts
// are there, one a stage.
kt_verify *kt_verify_new(kt_arena *arena, const kt_golden *golden);
void kt_verify_close(kt_verify *verify); // NULL is fine
const kt_dump_to *kt_verify_to(const kt_verify *verify);
const kt_verdict *kt_verify_verdicts(const kt_verify *verify);
bool kt_verify_passed(const kt_verify *verify); // all stages

#endif
