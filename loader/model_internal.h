// Model files as written, before they meet a checkpoint.
#ifndef KT_LOADER_MODEL_INTERNAL_H
#define KT_LOADER_MODEL_INTERNAL_H

#include "loader/model.h"

typedef struct kt_const_decl { // d: config(hidden_size)
    kt_ref name;
    const kt_expr *expr;
} kt_const_decl;

typedef struct kt_weight_decl { // dec.$l.attn.q: linear[heads * hd, d]
    kt_ref family;
    kt_type type;
} kt_weight_decl;

// NAME | NAME rows a .. b | NAME transposed | NAME interleaved hd [if ARCHITECTURE ...]
typedef struct kt_tensor_ref {
    kt_str name;
    kt_place at;
    const kt_expr *from, *to; // NULL: all rows
    bool transposed;
    const kt_expr *interleaved; // NULL: rows are in the order of the weight
    kt_str architectures;       // words; empty: interleaved in any
} kt_tensor_ref;

typedef struct kt_tensors_decl { // of one weight: the first that exists
    kt_ref family;
    const kt_tensor_ref *refs;
    int n_refs;
} kt_tensors_decl;

typedef struct kt_expect_decl { // general.architecture: [qwen2, llama]
    kt_ref key;
    const kt_str *values;
    int n_values;
} kt_expect_decl;

// One source of one file.
typedef struct kt_source_decl {
    kt_ref name;
    kt_str when, tokenizer; // empty: not said
    const kt_str *files;
    int n_files;
    const kt_expect_decl *expects;
    int n_expects;
    const kt_const_decl *constants;
    int n_constants;
    const kt_tensors_decl *tensors;
    int n_tensors;
    const kt_ref *ignore;
    int n_ignore;
    const kt_str *prefix; // NULL: not said
    int n_prefix;
} kt_source_decl;

typedef struct kt_model_part { // one model file
    const char *path;
    const kt_node *root;
    const char *const *includes; // paths of the files that it includes itself
    size_t n_includes;
    kt_source_decl *sources;
    int n_sources;
} kt_model_part;

typedef struct kt_model_draft {
    kt_arena *arena;
    kt_diag *diag;
    KT_VEC(const char *) seen;       // paths
    KT_VEC(kt_model_part) parts;     // includes first
    KT_VEC(kt_const_decl) constants; // of the files, not of sources
    KT_VEC(kt_const_decl) index;     // l: layers
    KT_VEC(const kt_expr *) require;
    KT_VEC(kt_weight_decl) weights;
    kt_model_chat chat;
    kt_model_picture picture;
} kt_model_draft;

// One source over all files.
typedef struct kt_model_source {
    kt_ref name;
    kt_str when, tokenizer;
    KT_VEC(kt_str) files; // of all files together
    KT_VEC(kt_expect_decl) expects;
    KT_VEC(kt_const_decl) constants; // the files' own too
    KT_VEC(kt_tensors_decl) tensors;
    KT_VEC(kt_ref) ignore;
    const kt_str *prefix;
    int n_prefix;
} kt_model_source;

// model_read.c: reads a file and what it includes; the same file twice is read once.
bool kt_model_read(kt_model_draft *draft, const char *path, kt_place from);
// Puts the parts of the source called `name` together; reports files that lack it.
bool kt_model_join(kt_model_draft *draft, kt_str name, kt_model_source *out);

// model_source.c: where a model lies: its folder, and the file that was named, if one was.
typedef struct kt_model_place {
    const char *path, *folder;
    kt_str file; // in the folder; empty: the folder was named
} kt_model_place;
kt_status kt_model_find_place(
    kt_arena *arena, const char *path, kt_model_place *out, kt_err *err) KT_MUST_CHECK;
// The source of the draft that knows the place by `when`.
kt_status kt_model_choose(
    kt_model_draft *draft, const kt_model_place *place, kt_str *name, kt_err *err) KT_MUST_CHECK;
// Opens the checkpoint and what describes it: config, preprocessor, stop ids, path of the
// tokenizer.
kt_status kt_model_open_files(kt_model *model, const kt_model_source *source,
    const kt_model_place *place, kt_err *err) KT_MUST_CHECK;
// Reports what the source's `expect` does not find in the config.
bool kt_model_check_expects(
    const kt_model *model, kt_model_draft *draft, const kt_model_source *source);

// model_weights.c: finds every weight of the draft in model->checkpoint. Mistakes go to the diag;
// only reading the checkpoint can fail with err.
kt_status kt_model_bind(kt_model *model, kt_model_draft *draft, const kt_model_source *source,
    const kt_registry *registry, const kt_env *env, kt_err *err) KT_MUST_CHECK;

// `text` with $<index> replaced by a number. *found says whether it occurred.
kt_str kt_model_subst(kt_arena *arena, kt_str text, kt_str index, int64_t value, bool *found);
// The first $name in text, without the $; empty if there is none.
kt_str kt_model_placeholder(kt_str text);

#endif
