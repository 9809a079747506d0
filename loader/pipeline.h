// Pipeline files (pipeline/1): params, dims, state, stages; with `extends`, `include` and `replace`
// resolved.
#ifndef KT_LOADER_PIPELINE_H
#define KT_LOADER_PIPELINE_H

#include "loader/host.h"
#include "loader/op.h"

typedef struct kt_pipe_param {
    kt_param param;
    const kt_node *value; // NULL: the default, or none yet
} kt_pipe_param;

typedef struct kt_pipe_dim {
    kt_ref name;
    const kt_expr *fixed; // an expression: the same for every request
    const kt_expr *max;   // else: decided by a host step, placed for this
    const int64_t *buckets;
    int n_buckets;
    kt_str doc;
} kt_pipe_dim;

typedef struct kt_pipe_state {
    kt_ref name; // "gen.next"
    kt_type type;
} kt_pipe_state;

typedef struct kt_pipe_stage {
    kt_ref name;
    bool graph;
    const kt_link *each;
    int n_each; // name: list
    bool loop;
    const kt_expr *loop_most;
    kt_ref loop_until, loop_read;
    const kt_step *steps;
    int n_steps;
} kt_pipe_stage;

// One item of `items` in the chosen language.
typedef struct kt_pipe_item {
    kt_str name, title, ask;
    int64_t max_new; // -1: the pipeline's
} kt_pipe_item;

typedef struct kt_pipeline {
    kt_arena *arena;
    kt_str name, doc;
    const char *path;
    const char *const *model_files;
    int n_model_files; // in order of inclusion, each once
    kt_pipe_param *params;
    int n_params;
    const kt_pipe_dim *dims;
    int n_dims;
    const kt_pipe_state *state;
    int n_state;
    const kt_expr *const *require;
    int n_require;
    const kt_pipe_stage *stages;
    int n_stages; // in order of execution
    kt_ref result;
    const kt_str *languages;
    int n_languages; // those of `shared`; none: any
} kt_pipeline;

// Reads path and its bases. NULL after reporting. Ops are not looked at yet.
kt_pipeline *kt_pipeline_open(kt_arena *arena, const char *path, kt_diag *diag);
// The same from a tree that was read; `path` is where its bases and models are looked for.
kt_pipeline *kt_pipeline_read(
    kt_arena *arena, const kt_node *root, const char *path, kt_diag *diag);
// `--set NAME=VALUE`, -p and the like. Reports unknown names and bad values (place: the command
// line).
bool kt_pipeline_set(kt_pipeline *pipeline, kt_str name, kt_str value, kt_diag *diag);
// -p TEXT: replaces items by one called "answer".
bool kt_pipeline_ask(kt_pipeline *pipeline, kt_str question, kt_diag *diag);
// Caps max_new of the pipeline and of every item.
void kt_pipeline_cap(kt_pipeline *pipeline, int64_t max_tokens);
const kt_pipe_param *kt_pipeline_param(const kt_pipeline *pipeline, kt_str name);
// The number or word of a parameter, default included. false if it has no value.
bool kt_pipeline_number(const kt_pipeline *pipeline, const char *name, kt_value *out);
bool kt_pipeline_text(const kt_pipeline *pipeline, const char *name,
    kt_str *out); // string, choice, language, or text in the chosen language
// The items in the chosen language, defaults filled in; reports what is wrong with them.
bool kt_pipeline_items(
    const kt_pipeline *pipeline, kt_arena *arena, kt_diag *diag, kt_pipe_item **out, int *n);
// The model folder that the pipeline names (`model:`), relative to the file that says so; NULL if
// none.
char *kt_pipeline_model(const kt_pipeline *pipeline, kt_arena *arena);
// The resolved pipeline, each line with the place it came from.
void kt_pipeline_explain(const kt_pipeline *pipeline, kt_buf *out);

#endif
