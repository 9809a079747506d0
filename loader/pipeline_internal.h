// What the files of the pipeline module share: a pipeline while it is being read.
#ifndef KT_LOADER_PIPELINE_INTERNAL_H
#define KT_LOADER_PIPELINE_INTERNAL_H

#include "loader/pipeline.h"

enum { KT_PIPE_DEPTH = 4 }; // files in a chain of 'extends'

// A stage whose steps may still be replaced.
typedef struct kt_stage_draft {
    kt_pipe_stage stage;
    KT_VEC(kt_step) steps;
} kt_stage_draft;

typedef struct kt_pipe_draft {
    kt_arena *arena;
    kt_diag *diag;
    kt_pipeline *out;
    KT_VEC(kt_pipe_param) params;
    KT_VEC(kt_pipe_dim) dims;
    KT_VEC(kt_pipe_state) state;
    KT_VEC(const kt_expr *) require;
    KT_VEC(const char *) model_files;
    KT_VEC(kt_stage_draft) stages;
    const char *stack[KT_PIPE_DEPTH];
    int depth;
} kt_pipe_draft;

// extend.c: applies `replace:`; puts the stages in the order of execution.
bool kt_pipe_replace(kt_pipe_draft *draft, const kt_node *map);
bool kt_pipe_order(kt_pipe_draft *draft);

// pipeline.c
kt_pipe_param *kt_pipe_param_find(kt_pipeline *pipeline, kt_str name);
const kt_node *kt_pipe_param_node(const kt_pipe_param *param); // its value or default; NULL

// pipeline_text.c: sets pipeline->languages from `shared`.
void kt_pipe_set_languages(kt_pipeline *pipeline);

// The stem of a dotted name: "gen" of "gen.next".
static inline kt_str kt_name_stem(kt_str name) {
    ptrdiff_t dot = kt_str_find(name, '.');
    return dot < 0 ? name : kt_str_slice(name, 0, (size_t)dot);
}

// Is `name` called `stem` or "<stem>.<something>"? *member gets what follows the dot (empty if
// nothing).
static inline bool kt_name_in_group(kt_str name, kt_str stem, kt_str *member) {
    if (!kt_str_starts(name, stem)) return false;
    if (name.n == stem.n) {
        *member = (kt_str){name.at + name.n, 0};
        return true;
    }
    if (name.at[stem.n] != '.') return false;
    *member = kt_str_slice(name, stem.n + 1, name.n);
    return true;
}

#endif
