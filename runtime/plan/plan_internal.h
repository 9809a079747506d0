// A plan while it is being made: what the files of runtime/plan share.
//
// Sizes are symbolic. A kt_axis is a number, or the value of one varying dim of the pipeline plus a
// number; two axes are equal only if they are the same symbol. Conditions are computed at the dims'
// maxima, and once more at smaller sizes where one choice has to serve them all.
#ifndef KT_PLAN_INTERNAL_H
#define KT_PLAN_INTERNAL_H

#include "runtime/plan/plan.h"

// Bytes of one tensor: sums over all of them stay far from 2^63.
#define KT_PLAN_TENSOR_MAX ((int64_t)1 << 44)

enum {
    KT_PLAN_ALIGN = 256,          // bytes, of tensors in their blocks
    KT_PLAN_SMEM_MAX = 99 * 1024, // of a block, on every card planned for
    KT_PLAN_STAGED = 32 << 20,    // bytes of a weight's rows that are prepared at once, about
    KT_PLAN_STAGED_ROWS = 16,     // which are so many or a multiple
    KT_PLAN_BODY_DEPTH = 8,       // of composites within composites
    KT_PLAN_REPEAT_DEPTH = 4,
};

// What a name in an expression stands for.
typedef struct kt_symbol {
    kt_axis axis;   // of an integer
    kt_value value; // at the maxima
} kt_symbol;

typedef struct kt_symbols {
    const void *ctx;
    bool (*find)(const void *ctx, kt_str name, kt_symbol *out);
    const kt_str *(*names)(const void *ctx, kt_arena *arena, size_t *n);
} kt_symbols;

// One name of the pipeline: a constant of the model, a numeric parameter, a dim.
typedef struct kt_pipe_symbol {
    kt_str name;
    kt_place at;
    kt_symbol symbol;
    int param; // index into pipeline->params, -1
    int dim;   // index into pipeline->dims, -1
} kt_pipe_symbol;

typedef struct kt_scope_entry {
    kt_str name;
    kt_place at;
    int tensor;
    bool used;
    bool carried;  // the last value of a repeat: may stay unused
    bool internal; // made in a graph stage with buckets: not to be read from outside
    bool optional; // nothing is lost if nobody uses it: weights of `?`, parameters
} kt_scope_entry;

typedef struct kt_scope {
    struct kt_scope *parent;
    KT_VEC(kt_scope_entry) entries;
} kt_scope;

typedef struct kt_member {
    kt_str name; // after the dot; empty: the whole name
    int tensor;
} kt_member;

// Lifetime of a tensor that owns memory, and its place relative to the one that does.
typedef struct kt_life {
    int root;        // the tensor whose memory this one lies in (itself, or what it is a view of)
    int64_t delta;   // bytes from the root's start
    int first, last; // times; -1: never touched
    int alias;       // root of the input whose memory it takes, -1
    int alias_time;
} kt_life;

typedef struct kt_layout_use { // who asked for a layout first
    kt_str op;
    kt_place at;
} kt_layout_use;

typedef struct kt_index {
    kt_str name;
    int64_t value;
} kt_index;

typedef struct kt_planner {
    struct kt_planner *self; // for symbol tables, whose context is const
    kt_arena *arena;
    kt_diag *diag;
    kt_registry *registry;
    const kt_pipeline *pipeline;
    const kt_model *model;
    kt_target target;
    const kt_plan_probe *probe; // NULL: none
    kt_plan *plan;
    const kt_host_step *host;
    int n_host;

    KT_VEC(kt_pipe_symbol) symbols;
    bool *param_used; // by pipeline param
    int *decided_by;  // by pipeline dim: host step + 1
    int *dim_index;   // by pipeline dim: plan dim or -1
    KT_VEC(kt_plan_dim) dims;
    KT_VEC(kt_tensor) tensors;
    KT_VEC(kt_life) lives;
    KT_VEC(kt_layout) layouts;
    KT_VEC(kt_layout_use) layout_uses;
    int *weight_layout;
    KT_VEC(kt_build) builds;
    kt_table build_index;
    kt_table proved; // ops whose bodies were walked

    kt_scope top;
    KT_VEC(kt_plan_step) steps; // of the list being made
    KT_VEC(kt_plan_made) made;  // in it
    int time;                   // counts steps over all lists
    int stage;                  // being made
    kt_index indexes[KT_PLAN_REPEAT_DEPTH];
    int n_indexes;
    int bucket_dim; // plan dim that is fixed now, -1
    int64_t bucket;
    int *views; // by tensor: its view in this bucket, 0: none yet
    int n_views;
    int64_t counter_bytes;
    int64_t state_bytes;
} kt_planner;

// One use of an op while it is bound.
typedef struct kt_bound {
    const kt_op *op;
    const kt_step *step;
    kt_str address;
    int *ports;        // by port: tensor or -1
    kt_place *port_at; // where the caller names it
    kt_axis *dims;
    int *dim_from; // port that fixed the dim; -1: the step; -2: nothing yet
    kt_place *dim_at;
    kt_dtype *types;
    bool *type_known;
    kt_value *params;
} kt_bound;

// Where a body stands: the op around it and what its names mean. NULL: a step of the pipeline.
typedef struct kt_outer {
    const kt_bound *bound;
    int depth;
} kt_outer;

// ---- symbols.c

bool kt_plan_symbols(kt_planner *p);
kt_symbols kt_pipe_symbols(kt_planner *p);
kt_symbols kt_bound_symbols(const kt_bound *bound);
// A size. exact: over varying dims only `name` and `name + number`; else the value at the maxima.
bool kt_plan_size(kt_planner *p, const kt_symbols *symbols, const kt_expr *expr, const char *what,
    bool exact, kt_axis *out);
// A number that no varying dim may enter.
bool kt_plan_number(
    kt_planner *p, const kt_symbols *symbols, const kt_expr *expr, const char *what, kt_value *out);
// An environment for expressions at the maxima.
kt_env kt_symbols_env(const kt_symbols *symbols);
bool kt_axis_same(kt_axis a, kt_axis b);
kt_axis kt_axis_fixed(int64_t value);
bool kt_axis_add(kt_axis axis, int64_t add, kt_axis *out);
void kt_axis_print(const kt_planner *p, kt_axis axis, kt_buf *out);
const char *kt_plan_type_text(kt_planner *p, int tensor); // "f16[tokens, 384]"
// "n = tokens (at most 1024), d = 384" for the names of an expression.
const char *kt_plan_values_text(kt_planner *p, const kt_symbols *symbols, const kt_expr *expr);
void kt_plan_use_param(kt_planner *p, kt_str name);

// ---- scope.c

int kt_plan_tensor(kt_planner *p, const kt_tensor *tensor); // adds it, with its bytes computed
int kt_plan_view(kt_planner *p, int tensor, const kt_tensor *view, int64_t delta);
kt_scope_entry *kt_scope_find(kt_scope *scope, kt_str name);
bool kt_scope_define(kt_planner *p, kt_scope *scope, kt_ref name, int tensor);
// The members that `name` stands for, $indexes filled in; reports unknown names. n = 0: failed.
kt_member *kt_scope_group(kt_planner *p, kt_scope *scope, kt_ref name, int *n);
kt_str kt_plan_subst(kt_planner *p, kt_str name);

// ---- unify.c, params.c

// Fills bound: ports, dims, types, params. outer: the body around the step.
bool kt_plan_bind(kt_planner *p, kt_bound *bound, kt_scope *scope, const kt_outer *outer);
bool kt_plan_params(kt_planner *p, kt_bound *bound, const kt_outer *outer);
bool kt_plan_host_params(
    kt_planner *p, const kt_step *step, const kt_host_step *host, kt_host_call *call);

// ---- expand.c, hostcall.c

bool kt_plan_stages(kt_planner *p);
bool kt_plan_op_step(
    kt_planner *p, const kt_step *step, kt_scope *scope, const kt_outer *outer, kt_str address);
bool kt_plan_host_step(kt_planner *p, const kt_step *step, kt_scope *scope, kt_str address);
void kt_plan_touch(kt_planner *p, int tensor); // used by the step that is added next
void kt_plan_push(kt_planner *p, kt_plan_step step);

// ---- call.c, select.c, layout.c

// What expressions of a call see: dims, parameters, tune values, sm_count, smem_max, cc.
typedef struct kt_call_ctx {
    const kt_target *target;
    const kt_call *call;
    const int64_t *values; // by plan dim; NULL: the maxima
} kt_call_ctx;
kt_env kt_call_env(const kt_call_ctx *ctx);

// A call of a bound op, with scratch (home ACT), counters and build; no lifetimes, no layouts yet.
kt_call *kt_plan_call(kt_planner *p, const kt_bound *bound, const kt_variant *variant);
// The same as a step of the list: layouts, lifetimes, limits of its launches checked.
bool kt_plan_emit(kt_planner *p, const kt_bound *bound, const kt_variant *variant);
// The first variant that serves these sizes and formats; NULL if none does.
// `only`: the one with this name; empty: any.
const kt_variant *kt_plan_select(kt_planner *p, const kt_bound *bound, kt_str only);
int kt_plan_build(kt_planner *p, const kt_call *call);

// Index of the layout; -1 after reporting a disagreement. Nothing is made if `probe`: then 0 or -1.
int kt_layout_get(kt_planner *p, const kt_bound *bound, const kt_op_layout *layout, bool probe);
// rows_f16 of one weight in host memory, for the C implementations; -1 after reporting.
int kt_layout_rows(kt_planner *p, const kt_bound *bound, int weight);

// ---- place.c

bool kt_plan_place(kt_planner *p, kt_err *err);

#endif
