// The tensors of a fabricated MiniCPM-V 2.6 checkpoint: names, types, shapes, order, and what they
// are filled with. Geometry and names are those of openbmb/MiniCPM-V-2_6 and -2_6-int4.
//
// Numbers are drawn so that a forward pass stays lively: projections keep the size of what they
// read, the 2 * layers residual branches together add three times the variance of the embedding,
// and logits have a standard deviation of 3. Norm weights, biases and scales vary, so a wrong index
// changes the result.
#ifndef KT_FABRICATE_MODEL_H
#define KT_FABRICATE_MODEL_H

#include "runtime/base/os.h"
#include "tools/fabricate/fill.h"

// Numbers of config.json, by its names.
typedef struct kt_geometry {
    int64_t d, layers, f, heads, kv_heads, vocab, context;
    int64_t queries, side, max_slices;
    int64_t dv, vis_layers, fv, vis_heads, vis_side, patch;
    double theta, eps;
} kt_geometry;

typedef struct kt_tensor {
    kt_str name;
    const char *dtype; // as safetensors names it
    int rank;
    int64_t shape[4];
    int64_t bytes;
    kt_fill fill;
    double mean, std; // of its numbers, where they are a normal distribution
    int file;         // which shard
    int64_t at;       // offset in the data of its file
} kt_tensor;

typedef KT_VEC(kt_tensor) kt_tensors;

// MiniCPM-V 2.6; with a path, numbers found in that config.json replace it. Errors: EFILE, EFORMAT
// (also for sizes that no model can have).
kt_status kt_geometry_read(
    kt_arena *arena, const char *path, kt_geometry *out, kt_err *err) KT_MUST_CHECK;
// config.json with these numbers; int4 adds the quantization_config.
void kt_geometry_print(const kt_geometry *geometry, bool int4, kt_buf *out);
// All tensors in the order of the model's state dict, not yet placed in files.
kt_tensors kt_model_tensors(kt_arena *arena, const kt_geometry *geometry, bool int4, uint64_t seed);

#endif
