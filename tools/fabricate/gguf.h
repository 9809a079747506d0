// The same model as GGUF files: ggml-model-*.gguf with the text model and its tokenizer, and
// mmproj-model-f16.gguf with vision tower and resampler.
//
// Names, types and keys are those of openbmb/MiniCPM-V-2_6-gguf: 339 and 455 tensors. Rows that are
// no multiple of a type's block (in small models) are f16.
#ifndef KT_FABRICATE_GGUF_H
#define KT_FABRICATE_GGUF_H

#include "tools/fabricate/shard.h"

typedef enum kt_gguf_mix { KT_GGUF_Q4_K_M, KT_GGUF_Q4_0 } kt_gguf_mix;

typedef struct kt_gguf_source {
    const kt_geometry *geometry;
    kt_tensors tensors; // of kt_model_tensors, bf16
    kt_str tokenizer;   // a tokenizer.json
    kt_gguf_mix mix;
    uint64_t seed;
} kt_gguf_source;

// Two files, in the arena; each header is its owner's to release. Errors: EFORMAT (the tokenizer).
kt_status kt_gguf_files(
    kt_arena *arena, const kt_gguf_source *source, kt_shard files[2], kt_err *err) KT_MUST_CHECK;

#endif
