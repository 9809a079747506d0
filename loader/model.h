// Model files (model/1) bound to one model: constants from config.json or from the metadata of GGUF
// files, weights found in the checkpoint.
#ifndef KT_LOADER_MODEL_H
#define KT_LOADER_MODEL_H

#include "loader/checkpoint.h"
#include "loader/config.h"
#include "loader/registry.h"

// What stands for one message of each role; $text is the message. From `chat:`; empty strings where
// absent.
typedef struct kt_model_chat {
    bool present;
    kt_str system, user, assistant, answer, default_system, join;
    const kt_str *stop;
    int n_stop;
    kt_place at;
} kt_model_chat;

// How a picture is cut and what stands for it in a prompt. From `picture:`.
typedef struct kt_model_picture {
    bool present;
    kt_str scheme;                  // a name that kt_picture_scheme_find knows
    kt_str text, slice, row, token; // $index $view $slices
    kt_place at;
} kt_model_picture;

// One weight found in the checkpoint.
typedef struct kt_weight {
    kt_str name; // "dec.3.attn.q"
    kt_place at; // where the model file declares it
    bool linear; // linear[n, k], else f32[n...] delivered in f32
    int rank;
    int64_t shape[KT_MAX_RANK];    // n, k of a linear weight
    const kt_format *format;       // linear: its storage format
    const kt_stored *const *parts; // by format part (f32: one, the tensor itself)
    const kt_value *values;        // by format value (offset ...)
    kt_dtype *part_types;          // by type variable of the format
    int64_t row_from, row_to;      // of the stored tensor; -1, -1: all of it
    bool transposed;               // stored as [k, n]
    // Width hd of a head whose rows are stored for interleaved RoPE, 0: none. Row h * hd + 2 j + p
    // of the stored tensor (of its rows row_from .. row_to) is row h * hd + p * hd / 2 + j of the
    // weight, p = 0, 1; hd divides the rows and is even. Each part of such a weight has rows of
    // whole bytes.
    int64_t interleave;
} kt_weight;

typedef struct kt_model {
    kt_arena *arena;
    const char *path; // as named: the folder, or a file in it
    const char *folder;
    kt_checkpoint checkpoint;
    const kt_config *config, *preprocessor; // may be NULL
    const int64_t *stop_ids; // tokens that end an answer, as the model's folder or file says
    int n_stop_ids;
    kt_model_chat chat;
    kt_model_picture picture;
    const char *tokenizer_path; // a tokenizer.json or a .gguf; NULL: no source names one
    const kt_str *constant_names;
    const kt_value *constants;
    int n_constants;
    const kt_str *index_names;
    const int64_t *index_counts;
    int n_indexes; // repeat: l
    const kt_weight *weights;
    int n_weights;
    kt_table by_name; // weight name -> index
    const kt_source *const *files;
    int n_files;
} kt_model;

// Opens the model in a folder, or a .gguf file and what belongs to it in its folder, by the source
// of the model files that recognises it (`when`). Mistakes in the YAML, and disagreements between
// YAML and checkpoint, go to diag (located in the model file, with file and tensor named); a folder
// or file that cannot be opened, or is damaged, goes to err.
kt_status kt_model_open(kt_arena *arena, const kt_registry *registry,
    const char *const *model_files, int n_files, const char *path, kt_model *out, kt_diag *diag,
    kt_err *err) KT_MUST_CHECK;
void kt_model_close(kt_model *model);
bool kt_model_constant(const kt_model *model, kt_str name, kt_value *out);
const kt_weight *kt_model_weight(const kt_model *model, kt_str name);

// Checks model files alone, with no checkpoint (`kotaro check FILE`).
bool kt_model_check(kt_arena *arena, const char *path, kt_diag *diag);

#endif
