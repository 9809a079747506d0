// Runs the shipped pipeline up to a step and looks at what it made: pictures cut as MiniCPM-V 2.6
// cuts them, prompts as it writes them. The model folder is fabricated: the real side, patch,
// table, slices and queries, all weights zero and small.
//
// Functions return a status and an error text, so that programs without cmocka can use them.
#ifndef KT_TESTS_PROBE_H
#define KT_TESTS_PROBE_H

#include "runtime/exec/session.h"

// Makes `folder`: a model of 2.6's picture constants with a copy of the tokenizer.json at
// `tokenizer` and `vocab` tokens.
kt_status probe_folder(const char *folder, const char *tokenizer, int vocab, kt_err *err);

typedef struct probe_settings {
    const char *folder;
    kt_device device;
    int longest;
    const char *filter; // of the first resize
    int slices;
    bool joint;
} probe_settings;

kt_status probe_open(const probe_settings *settings, kt_session **out, kt_err *err);

// One request on its way. probe_start, then runs and gets, then probe_end.
typedef struct probe {
    kt_session *session;
    kt_request *request;
    int stage, step; // what comes next
} probe;

// picture NULL: the caller gives a size with probe_size.
void probe_start(probe *probe, kt_session *session, const char *picture);
void probe_size(probe *probe, int height, int width);
// Runs on, one step at a time, until the tensor `until` ("vision.pixels") was made: its bytes are
// still there.
kt_status probe_run(probe *probe, const char *until, kt_err *err);
void probe_end(probe *probe);

int probe_find(const kt_session *session, const char *name); // the tensor; it must exist

// A tensor that was made, as it is on the device. The bytes are the request's.
typedef struct probe_tensor {
    const void *data;
    int64_t bytes;
} probe_tensor;

kt_status probe_get(probe *probe, const char *name, probe_tensor *out, kt_err *err);

// What the preprocessing of one picture makes.
typedef struct probe_picture {
    int64_t views, targets, patches;
    int32_t target[2][2]; // height, width
    char photo[65], pixels[65],
        cells[65]; // SHA-256: u8 after the first resize, u8 of all targets, f16 patches
} probe_picture;

// dump: NULL, or a file that gets the u8 pixels of all targets.
kt_status probe_pixels(
    kt_session *session, const char *path, const char *dump, probe_picture *out, kt_err *err);

// The prompts that the pipeline writes, a line of ids each (picture rows are -1, -2, ...). `line`:
// width, height (0, 0: no picture), shared text and questions with tabs between; in them "\n",
// "\t", "\r" and a doubled backslash stand for themselves. It is changed.
kt_status probe_prompts(kt_session *session, char *line, kt_buf *out, kt_err *err);

// A picture of our own as a TGA file. kind: "noise", "edges" (blocks of 3 x 3 pixels, channels 0 or
// 255), "waves" (slow ramps). The same bytes as tests/reference/preprocess.py makes.
typedef struct probe_pattern {
    const char *kind;
    uint32_t seed;
    int width, height;
} probe_pattern;

kt_status probe_write(const char *path, const probe_pattern *pattern, kt_err *err);

// Runs every line of tests/data/pixels.txt: LONGEST FILTER SLICES KIND SEED WIDTH HEIGHT VIEWS
// PATCHES and the first 16 digits of the SHA-256 of photo, pixels and cells as Pillow makes them.
// Says on stdout which differ.
typedef struct probe_score {
    int n, equal;
} probe_score;

// `folder` gets the model and the pictures.
kt_status probe_goldens(kt_device device, const char *folder, probe_score *out, kt_err *err);

#endif
