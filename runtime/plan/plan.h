// A plan: one pipeline, one model and one target, bound, expanded to a flat list of calls, with
// variants and weight layouts chosen and memory placed. Nothing here touches a GPU.
//
// Phases, each of which can be the last: bind - expand - select - place. Memory is placed once for
// the maxima of all dims; a request only gives the varying dims their values, and launch geometry
// follows. A plan lives in its arena, is immutable once open, and may be read by any thread.
#ifndef KT_PLAN_PLAN_H
#define KT_PLAN_PLAN_H

#include "loader/model.h"
#include "loader/pipeline.h"

// What is planned for.
typedef struct kt_target {
    // false: the CPU back end (C implementations, composites always through their bodies)
    bool cuda;
    int cc; // 89; as `cc` in expressions
    int sm_count;
    int64_t smem_max;     // bytes a block may have (opt-in); planning never exceeds 99 KB
    int64_t memory_bytes; // device memory that may be used; 0: no limit
    // Pictures that may be under way at once. 1: what host steps upload shares the activations'
    // memory. More: each has an upload block. 0: as 1, with an upload block.
    int slots;
    int64_t staged_bytes; // of a weight's rows that are prepared at once, about; 0: 32 MB
} kt_target;

// A dim of the pipeline whose value a host step decides for each request.
typedef struct kt_plan_dim {
    kt_str name;
    kt_place at;
    int64_t max;
    const int64_t *buckets;
    int n_buckets; // ascending; 0: none
} kt_plan_dim;

// A size: fixed (var < 0, value in max), or value of dims[var] + add (max: at the dim's maximum).
typedef struct kt_axis {
    int64_t max;
    int var;
    int64_t add;
} kt_axis;

typedef enum kt_home {
    KT_HOME_VECTOR,  // weight delivered in f32, in the weight block
    KT_HOME_LINEAR,  // logical weight: reached through a layout (CUDA) or as rows of f16 (CPU)
    KT_HOME_LAYOUT,  // a part of a prepared layout (only in prepare calls); offset: from the
                     // layout's start
    KT_HOME_STAGING, // checkpoint parts on their way (only in prepare calls)
    KT_HOME_STATE,   // outlives a request, in the state block
    KT_HOME_UPLOAD,  // made by a host step, in the upload block
    KT_HOME_ACT,     // activation or scratch, in the activation block
    KT_HOME_COUNTER, // zero between launches, in the state block
    KT_HOME_HOST     // image, text, items, prompt, grid, answers
} kt_home;

typedef struct kt_tensor {
    kt_str name; // address, as `kotaro plan` prints it: "vision[v=0].0.q"
    kt_place at;
    kt_home home;
    kt_dtype dtype;
    kt_host_type host; // KT_HOME_HOST
    int rank;
    kt_axis axis[KT_MAX_RANK];
    int64_t offset; // bytes from the start of its home's block (slices included)
    int64_t bytes;  // at the maxima
    int weight;     // VECTOR, LINEAR: index into model->weights; else -1
    bool each;      // UPLOAD: one per batch
    int stage;      // that makes it; -1
} kt_tensor;

// One weight, or several, prepared in one block for the kernels that read it.
typedef struct kt_layout {
    kt_str name; // "tiles_lut4"; "rows_f16" on the CPU
    kt_order order;
    const int *weights; // indices into model->weights
    int n_weights;
    bool host_memory; // in the host block (mapped on CUDA)
    int64_t rows;     // of the layout: those of all its weights
    int64_t bytes;
    int64_t offset;                    // in the weight block or the host block
    const struct kt_prepare *prepares; // of each weight one, or several with some of its rows each
    int n_prepares;
} kt_layout;

// How one weight, or a part of its rows, gets into its layout: [unpack to rows_f16, then] prepare.
typedef struct kt_prepare {
    int weight;
    int64_t row_from, row_to;
    const struct kt_call *calls; // one or two, in order
    int n_calls;
    const int *part_tensors; // STAGING tensor of each format part
    int n_parts;
    int to_tensor;     // STAGING tensor of `to` (row of the layout for each row), -1: not wanted
    const int32_t *to; // its contents
    int64_t staging_bytes; // of all STAGING tensors
} kt_prepare;

// One compilation: an op's variant for these types, build dims, tune values, choices, layouts and
// flags.
typedef struct kt_build {
    const kt_op *op;
    const kt_variant *variant;
    const char *const *defines; // "KT_D=256", sorted
    int n_defines;
} kt_build;

// One use of an op: one or several kernel launches, or one call of its C function.
typedef struct kt_call {
    const kt_op *op;
    const kt_variant *variant; // NULL on the CPU
    kt_str address;            // "prefill[l=3].0/2"
    kt_place at;               // the step in the pipeline or body
    const kt_axis *dims;       // by op dim
    const kt_value *params;    // by op param; a choice: its index
    const kt_dtype *types;     // by type variable
    const int64_t *tunes;      // by tune of the variant
    const int *ports;          // tensor by op port; -1 absent
    const int *layouts;        // layout by layout of the variant; -1: its weights are absent
    const int *scratch;        // tensors
    const int *counters;       // tensors
    int build;                 // index; -1 on the CPU
} kt_call;

// One use of a host step.
typedef struct kt_host_call {
    const kt_host_step *step;
    kt_str address;
    kt_place at;
    const int *in, *inout, *out; // tensors by port; -1 absent
    const int *dims; // by `decides`: index into plan dims; -1: the dim is fixed, its size is in the
                     // tensors
    // By param: numbers (choices and bools: index), or NULL and a text below.
    const kt_value *params;
    const kt_str *words; // texts by param: choice words, languages, strings
} kt_host_call;

typedef struct kt_plan_step {
    const kt_host_call *host; // one of the two is NULL
    const kt_call *call;
} kt_plan_step;

typedef enum kt_made_kind {
    KT_MADE_STEP, // by a step of the stage or of a repeat: "vision.rows", "prefill[l=3].x1"
    KT_MADE_LAST, // what a repeat carried, after it: another name of a tensor of the last round
    KT_MADE_BODY  // inside an op that is walked through its body: "prefill[l=3].0/q"
} kt_made_kind;

// A name that a step gives to what it makes, behind the stage, repeats and bodies it stands in. The
// same whether an op runs as a kernel of its own or through its body (names inside it but BODY).
typedef struct kt_plan_made {
    kt_str name;
    int tensor;
    kt_made_kind kind;
} kt_plan_made;

// The steps of a stage for one value of its bucketed dim (or the only list).
typedef struct kt_step_list {
    int64_t bucket; // 0: not bucketed
    const kt_plan_step *steps;
    int n_steps;
    const kt_plan_made *made; // in the order of the walk, what is inside a repeat first
    int n_made;
} kt_step_list;

typedef struct kt_stage {
    kt_str name;
    kt_place at;
    bool graph;
    bool ahead;     // touches no state and names no stage that does: may run for the next picture
                    // already
    int bucket_dim; // index of the bucketed dim; -1: none
    const kt_step_list *lists;
    int n_lists;
    bool loop;
    kt_axis loop_most;
    int loop_until, loop_read; // tensors
    const int *each;
    int n_each; // tensors whose batches it runs over; 0: once
} kt_stage;

// "stage.name" of what a stage makes; weights and state by their names.
typedef struct kt_plan_name {
    kt_str name;
    int tensor;
} kt_plan_name;

typedef struct kt_plan_bytes { // the memory table
    int64_t weights, host_weights, state, act;
    int64_t upload;  // of one picture; 0 where it lies in the activations' block
    int64_t staging; // of one weight on its way; lies in the activations' block
} kt_plan_bytes;

typedef struct kt_plan {
    kt_arena *arena;
    kt_target target;
    const kt_pipeline *pipeline;
    const kt_model *model;
    const kt_registry *registry;
    const kt_plan_dim *dims;
    int n_dims;
    const kt_tensor *tensors;
    int n_tensors;
    const kt_layout *layouts;
    int n_layouts;
    const int *weight_layout;     // by weight: its layout (linear), -1
    const int64_t *vector_offset; // by weight: offset in the weight block (f32 vectors), -1
    const kt_build *builds;
    int n_builds;
    const kt_stage *stages;
    int n_stages;
    int result; // tensor
    const kt_plan_name *names;
    int n_names;
    kt_plan_bytes bytes;
} kt_plan;

// For op tests: what a pipeline of one step is to use. Prepare ops may be steps then, and what a
// step makes stays in memory to the end of its stage, read or not.
typedef struct kt_plan_probe {
    kt_str variant; // of the step; empty: its body, or the first that fits
} kt_plan_probe;

typedef struct kt_plan_request {
    kt_registry *registry; // ops are read through it when first asked for
    kt_pipeline *pipeline;
    const kt_model *model;
    kt_target target;
    const kt_plan_probe *probe; // NULL: none
} kt_plan_request;

// Runs the phases. Mistakes go to diag; a plan that does not fit target.memory_bytes is KT_EMEMORY
// with the table and the remedy.
kt_status kt_plan_open(kt_arena *arena, const kt_plan_request *request, kt_plan **out,
    kt_diag *diag, kt_err *err) KT_MUST_CHECK;

// Of the block that activations and, before them, staging lie in.
int64_t kt_plan_work_bytes(const kt_plan *plan);
// Of the memory that the target allocates: on CUDA without what lies in host memory.
int64_t kt_plan_target_bytes(const kt_plan *plan);

// Size of an axis for the request's values (by plan dim).
int64_t kt_axis_value(kt_axis axis, const int64_t *values);
int64_t kt_tensor_bytes(const kt_tensor *tensor, const int64_t *values);

// Geometry of one launch of a call. Errors: EOP: it overflows or is beyond the limits.
typedef struct kt_geometry {
    int64_t grid[3], block[3], shared_bytes;
} kt_geometry;
kt_status kt_plan_geometry(const kt_plan *plan, const kt_call *call, int launch,
    const int64_t *values, kt_geometry *out, kt_err *err) KT_MUST_CHECK;
// flops and bytes of a call for these values (cost: of the manifest, else all tensors touched).
void kt_plan_cost(
    const kt_plan *plan, const kt_call *call, const int64_t *values, double *flops, double *bytes);

// `kotaro plan`: launches (at the maxima; runs of equal layers folded unless `all`), memory table,
// bytes per stage.
void kt_plan_print(const kt_plan *plan, bool all, kt_buf *out);
// What modules and graphs take besides, beyond the driver's context: 13 MB were measured with
// MiniCPM-V 2.6 on an H200 (docs/notes/loading.md), and drivers differ.
enum { KT_PLAN_BESIDE_MB = 32 };
// One line, without its end: the parts of the sum, and what may be used.
void kt_plan_print_sum(const kt_plan *plan, kt_buf *out);
// The memory table alone.
void kt_plan_print_memory(const kt_plan *plan, kt_buf *out);

#endif
