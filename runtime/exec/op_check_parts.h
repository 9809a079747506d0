// What the files of the op tests share. Nobody else includes this, but tests of the tests.
#ifndef KT_EXEC_OP_CHECK_PARTS_H
#define KT_EXEC_OP_CHECK_PARTS_H

#include "runtime/exec/op_check.h"

// Numbers from a seed (splitmix64): the same on every machine.
typedef struct kt_random {
    uint64_t state;
} kt_random;
uint64_t kt_random_next(kt_random *random);
int64_t kt_random_pick(kt_random *random, int64_t low, int64_t high); // both included
double kt_random_unit(kt_random *random);                             // 0 <= x < 1
double kt_random_normal(kt_random *random);
uint64_t kt_random_mix(uint64_t a, uint64_t b); // a seed of two

// How a linear weight is stored.
typedef enum kt_check_store {
    KT_STORE_F16,
    KT_STORE_BF16,
    KT_STORE_F32,
    KT_STORE_NF4,
    KT_STORE_NF4_PLAIN, // scales of f32, not nested
    KT_STORE_FP4,       // blocks of 128
    KT_STORE_FP4_PLAIN, // blocks of 256
    // In a GGUF file. Where k is no multiple of a type's block, a type with smaller blocks, or f16.
    KT_STORE_Q4_0,
    KT_STORE_Q4_1,
    KT_STORE_Q5_0,
    KT_STORE_Q5_1,
    KT_STORE_Q8_0,
    KT_STORE_Q4_K,
    KT_STORE_Q5_K,
    KT_STORE_Q6_K,
    KT_STORE_COUNT
} kt_check_store;
const char *kt_check_store_name(kt_check_store store);
// What a weight with k inputs is stored as when `store` is asked for.
kt_check_store kt_check_store_fits(kt_check_store store, int64_t k);

// What the values of a test must contain; else chance decides.
typedef enum kt_check_form {
    KT_FORM_ANY,
    KT_FORM_EMPTY_FIRST, // ragged batches: which member is empty
    KT_FORM_EMPTY_MIDDLE,
    KT_FORM_EMPTY_LAST,
    KT_FORM_SHARED, // page tables: rows that read the same pages
    KT_FORM_COUNT
} kt_check_form;
const char *kt_check_form_name(kt_check_form form);

// One test.
typedef struct kt_check_case {
    const kt_op *op;
    const kt_variant *variant; // NULL: the body, or the C implementation
    int64_t *dims;             // by dim
    int *types;                // by type variable: index of its choice
    kt_value *params;          // by param; a choice: its index
    bool *present;             // by port
    kt_check_store *stores;    // by port; of linear ones
    uint64_t seed;             // of its numbers
    bool sampled;              // sizes that no manifest gives: a requirement may refuse them
    int dim;                   // whose size is tried; -1: none
    kt_check_form form;
} kt_check_case;

// The values of one port.
typedef struct kt_check_tensor {
    kt_dtype dtype;
    int rank;
    int64_t shape[KT_MAX_RANK];
    int64_t n, bytes;
    void *at; // NULL: absent or linear
} kt_check_tensor;

typedef struct kt_check_scene kt_check_scene;

// One test while its inputs are made.
typedef struct kt_check_data {
    kt_arena *arena;
    kt_check_case *of;
    kt_check_tensor *ports; // by port; outputs have a shape and no data
    kt_random random;
    kt_check_scene *scene;
} kt_check_data;

// ---- op_check_values.c

// Puts generated sizes into the dims (a page table's, a resize's tables ...). Then the values of
// all inputs.
bool kt_check_known_generators(const kt_op *op, kt_diag *diag); // reports unknown words
bool kt_check_make(kt_arena *arena, kt_check_case *c, kt_check_data *out);
// Makes violated requirements of the form `dim == expression` hold; false if another one does not.
bool kt_check_repair(kt_arena *arena, const kt_op *op, int64_t *dims);
// The value of an expression over dims, the first values of `tunes` (may be NULL) and the device's
// names (those of the smallest card). false: it has none.
bool kt_check_value(const kt_op *op, const kt_expr *expr, const int64_t *dims,
    const kt_variant *tunes, kt_value *out);
bool kt_check_holds( // NULL holds
    const kt_op *op, const kt_expr *expr, const int64_t *dims, const kt_variant *tunes);
const kt_given *kt_check_generator(const kt_op *op, int port); // NULL: plain numbers

// ---- op_check_scene.c: values that depend on each other

void kt_check_scene_dims(kt_check_data *data); // before shapes are known: may change dims
// Fills the port by its generator.
void kt_check_scene_fill(kt_check_data *data, int port, kt_str word);
const kt_str *kt_check_words(kt_arena *arena, int *n);

bool kt_check_uses(const kt_op *op, const char *word); // does an input have this generator?

// ---- op_check_cases.c

typedef struct kt_check_list {
    KT_VEC(kt_check_case) cases;
} kt_check_list;
typedef enum kt_check_effort {
    KT_CHECK_KERNELS, // the manifests' cases of ops with kernels, each choice at least once
    KT_CHECK_QUICK,   // plan dims in full; build dims and combinations of choices sampled
    KT_CHECK_FULL
} kt_check_effort;
typedef struct kt_check_request {
    const kt_op *op;
    bool cuda;
    kt_check_effort effort;
    uint64_t seed;
    kt_registry *registry; // where the ops of a body are; NULL: their requirements are not asked
} kt_check_request;
void kt_check_cases(kt_arena *arena, const kt_check_request *request, kt_check_list *out);
void kt_check_describe(const kt_check_case *c, kt_buf *out);

// ---- op_check_sizes.c: which sizes a dim is tried at

typedef struct kt_check_sizes {
    KT_VEC(int64_t) at; // ascending
} kt_check_sizes;
typedef struct kt_check_search {
    kt_arena *arena;
    const kt_op *op;
    const kt_variant *variant; // NULL: none
    kt_registry *registry;     // as in kt_check_request
} kt_check_search;

// Sets a dim, alone or with others that must go along: those a requirement gives, plan dims that
// were equal to it (n == g), build dims that were multiples of it. false: no such sizes.
bool kt_check_set(
    const kt_check_search *search, const int64_t *base, int dim, int64_t size, int64_t *dims);
// Those of all kernels, and where `when` or the grid of a launch first changes as the dim grows.
void kt_check_tiles_of(
    const kt_check_search *search, const int64_t *base, int dim, kt_check_sizes *out);
// tile - 1, tile, tile + 1; where those are not admitted, the nearest that are.
void kt_check_around(
    const kt_check_search *search, const int64_t *base, int dim, int64_t tile, kt_check_sizes *out);
// 0 (plan dims), 1, and around each tile. Nothing for a dim that follows from others.
void kt_check_sizes_of(
    const kt_check_search *search, const int64_t *base, int dim, kt_check_sizes *out);
// The smallest sizes: every dim as small as the others let it be, none below 1.
void kt_check_smallest(const kt_check_search *search, const int64_t *base, int64_t *dims);

// ---- op_check_files.c

// Writes model.yaml, config.json, model.safetensors (if the op has linear inputs) and
// pipeline.yaml.
kt_status kt_check_write(const char *folder, const kt_check_data *data, kt_err *err) KT_MUST_CHECK;
bool kt_check_has_linear(const kt_check_case *c);
char *kt_check_name(kt_arena *arena, kt_str port); // of the port's tensor in the files

// ---- op_check_gguf.c

typedef struct kt_check_ggml {
    int number, bytes, weights; // of the type; of a block
} kt_check_ggml;
typedef struct kt_check_gguf { // a GGUF file that is being made; starts as zero
    int n;
    kt_buf table, data;
} kt_check_gguf;

// shape[1] is a multiple of the type's weights.
void kt_check_gguf_add(kt_check_gguf *file, kt_arena *arena, const char *name,
    const kt_check_ggml *type, const float *values, const int64_t shape[2]);
void kt_check_gguf_print(const kt_check_gguf *file, kt_buf *out); // appends the whole file
void kt_check_gguf_deinit(kt_check_gguf *file);

// ---- op_check_run.c

typedef struct kt_check_side { // one back end
    kt_registry *registry;
    const char *include, *folder;
    kt_gpu *gpu; // NULL: the CPU
    kt_compiler *compiler;
    kt_pool *pool;
    unsigned char poison;
    bool twice;                     // run again and compare bits
    const kt_check_tensor *differ;  // by port: integers that outputs must not hold before; or NULL
    const kt_op_check_watch *watch; // NULL: none
    volatile int *stop;
} kt_check_side;

typedef enum kt_check_end {
    KT_CHECK_RAN,
    KT_CHECK_REFUSED, // a requirement does not admit the sizes
    KT_CHECK_BROKEN   // did not plan, compile, launch, or wrote where it must not: `why`
} kt_check_end;

typedef struct kt_check_opened {
    kt_arena arena;
    kt_pipeline *pipeline;
    kt_model model;
    bool model_open;
    kt_plan *plan;
    kt_target target;
} kt_check_opened;

// Opens the files of `folder` and plans. kt_check_shut also after a failure.
kt_check_end kt_check_plan(const kt_check_side *side, const kt_check_case *c,
    const kt_target *target, kt_check_opened *out, kt_buf *why);
void kt_check_shut(kt_check_opened *opened);
// Plans and runs; outputs and inout into `out` (by port, memory from the arena).
kt_check_end kt_check_execute(const kt_check_side *side, kt_check_data *data, kt_arena *arena,
    kt_check_tensor *out, kt_buf *why);

// ---- op_check_launch.c

// Raises each number of most[launch of the build's variant] to that of the plan's calls, at the
// maxima. Errors: EOP: a launch beyond the limits.
kt_status kt_check_most(
    const kt_plan *plan, int build, kt_geometry *most, kt_err *err) KT_MUST_CHECK;

// ---- op_check_body.c

// registry NULL: true.
bool kt_check_body_holds(kt_registry *registry, const kt_op *op, const int64_t *dims);

// ---- op_check_watch.c

// Tells the watcher what the kernels of a call may touch: the tensors they are given, to the byte.
void kt_check_watch(const kt_op_check_watch *watch, kt_backend *backend, const kt_call *call,
    const int64_t *values);

// ---- op_check_compare.c

// false after a description of the worst element. worst: by type, largest error / tolerance.
bool kt_check_compare(const kt_op *op, const kt_check_tensor *want, const kt_check_tensor *got,
    double *worst, kt_buf *why);
bool kt_check_same(const kt_op *op, const kt_check_tensor *a, const kt_check_tensor *b,
    const char *what, kt_buf *why);
double kt_check_cap(kt_dtype dtype);                      // of a tolerance without a reason
bool kt_check_tolerances(const kt_op *op, kt_diag *diag); // above caps without one: reported

#endif
