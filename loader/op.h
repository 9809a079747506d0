// Op manifests: contract (types, dims, inputs, outputs, requirements), solutions (body, variants),
// checks. The grammar is docs/ops.md. Everything that needs no caller is checked while reading. A
// kt_op lives in the arena given and is never changed afterwards; any thread may read it.
#ifndef KT_LOADER_OP_H
#define KT_LOADER_OP_H

#include "loader/param.h"
#include "loader/type.h"

typedef struct kt_op kt_op;

typedef struct kt_op_typevar {
    kt_str name; // "T"
    kt_place at;
    const kt_dtype *choices; // the first one is the default
    int n_choices;
} kt_op_typevar;

typedef enum kt_binding { KT_BINDING_BUILD, KT_BINDING_PLAN } kt_binding;

typedef struct kt_op_dim {
    kt_str name;
    kt_place at;
    kt_binding binding;
    kt_str doc;
    int solved_by; // index of the port whose axis fixes it (required ports preferred), -1: the
                   // caller says
} kt_op_dim;

typedef enum kt_port_kind { KT_PORT_INPUT, KT_PORT_INOUT, KT_PORT_OUTPUT } kt_port_kind;

typedef struct kt_op_port {
    kt_str name; // "w.gate"
    kt_place at;
    kt_port_kind kind;
    kt_type type;
} kt_op_port;

typedef enum kt_order { KT_ORDER_NATURAL, KT_ORDER_HALVES, KT_ORDER_PAIRS } kt_order;

// Which prepared form of one or several weights a variant reads: one block of memory, one pointer.
typedef struct kt_op_layout {
    kt_str name;
    kt_place at;
    const int *of; // ports
    int n_of;
    kt_order order;
    const kt_str *as; // acceptable layouts, best first
    const kt_place *as_at;
    int n_as;
    bool host_memory; // memory: host
} kt_op_layout;

typedef struct kt_op_tune {
    kt_str name;
    kt_place at;
    const int64_t *values; // the first one is the untuned default
    int n_values;
} kt_op_tune;

typedef struct kt_op_memory { // scratch and counters
    kt_str name;
    kt_type type;
} kt_op_memory;

typedef struct kt_op_launch {
    kt_str name; // empty for `launch:`
    kt_place at;
    const kt_expr *grid[3]; // NULL: 1
    const kt_expr *block[3];
    const kt_expr *shared;  // NULL: 0
    const kt_expr *cluster; // NULL: none
    bool cooperative;
} kt_op_launch;

typedef struct kt_op_alias {
    int output, input;
} kt_op_alias; // ports

typedef struct kt_variant {
    kt_str name;
    kt_place at;
    const kt_expr *when; // NULL: always
    const kt_op_alias *aliases;
    int n_aliases;
    const kt_op_layout *layouts;
    int n_layouts;
    const kt_op_tune *tunes;
    int n_tunes;
    const kt_op_memory *scratch;
    int n_scratch;
    const kt_op_memory *counters;
    int n_counters;
    const kt_op_launch *launches;
    int n_launches;
} kt_variant;

// A name with its place, and one pair of a `in: { port: name }` map.
typedef struct kt_ref {
    kt_str text;
    kt_place at;
} kt_ref;
typedef struct kt_link {
    kt_ref port, name;
} kt_link;
typedef struct kt_given {
    kt_ref name;
    const kt_node *value;
} kt_given;

// A step as written, in a body or a pipeline: `{ op: x, in: .., out: .. }`, `host: x`, or `repeat:
// l`.
typedef struct kt_step kt_step;
struct kt_step {
    kt_place at;
    kt_ref op;     // empty if host or repeat
    kt_ref host;   // empty if op or repeat
    kt_ref repeat; // the index
    kt_ref id;     // may be empty
    const kt_link *in;
    int n_in;
    const kt_link *inout;
    int n_inout;
    const kt_link *out;
    int n_out;
    const kt_given *params;
    int n_params;
    kt_ref param_group; // `params: sampler`
    const kt_given *dims;
    int n_dims;
    const kt_given *types;
    int n_types;
    const kt_link *carry;
    int n_carry; // repeat
    const kt_link *yield_;
    int n_yield;
    const kt_step *steps;
    int n_steps;
};

typedef struct kt_op_case {
    kt_place at;
    const kt_value *dims;
} kt_op_case; // by dim index

typedef struct kt_op_tolerance {
    kt_dtype dtype;
    double value;
    kt_place at;
} kt_op_tolerance;

struct kt_op {
    kt_str name, doc, cite; // cite: the manifest's `source`
    const char *folder;     // its path
    const kt_source *source;
    kt_place at;
    bool shipped; // from the installed ops/, not from --ops
    const kt_op_typevar *typevars;
    int n_typevars;
    const kt_op_dim *dims;
    int n_dims;
    const kt_param *params;
    int n_params;
    const kt_op_port *ports;
    int n_ports; // inputs, inout, outputs, as declared
    int n_inputs, n_inout, n_outputs;
    const kt_expr *const *require;
    int n_require;
    const kt_expr *cost_flops, *cost_bytes; // NULL: not given
    const kt_step *body;
    int n_body; // 0: a primitive
    const kt_variant *variants;
    int n_variants;
    const kt_op_case *cases;
    int n_cases;
    const kt_op_tolerance *tolerances;
    int n_tolerances;
    kt_str tolerance_reason; // why a tolerance is above the cap of its type; empty: none
    const kt_given *generators;
    int n_generators;              // check: input name -> generator name (`segments: ragged`)
    const kt_ref *prepare_formats; // that the op makes the layout from
    int n_prepare_formats;         // 0: not a prepare op
    kt_str prepare_layout;
};

// Reads `folder`/op.yaml. NULL after reporting to diag. The folder's name must be the op's.
const kt_op *kt_op_open(kt_arena *arena, const char *folder, bool shipped, kt_diag *diag);
// The same from a tree that was read; `folder` must live as long as the arena.
const kt_op *kt_op_read(
    kt_arena *arena, const kt_node *root, const char *folder, bool shipped, kt_diag *diag);
// Reads the keys of one step (also used for pipelines); `in_body`: no host, repeat, id.
bool kt_step_parse(kt_arena *arena, const kt_node *map, bool in_body, kt_diag *diag, kt_step *out);

int kt_op_dim_find(const kt_op *op, kt_str name);   // index or -1
int kt_op_port_find(const kt_op *op, kt_str name);  // index or -1
int kt_op_param_find(const kt_op *op, kt_str name); // index or -1
int kt_op_typevar_find(const kt_op *op, kt_str name);
char kt_op_macro_char(char c); // of a manifest's name in a macro: upper case, '_' for a dot

// One parameter of a variant's kernel, by the rule: outputs, inout, inputs that are plain tensors,
// layouts, scratch, counters, plan dims, params (choices are macros, not parameters), each as
// declared.
typedef enum kt_arg_kind {
    KT_ARG_PORT,
    KT_ARG_LAYOUT,
    KT_ARG_SCRATCH,
    KT_ARG_COUNTER,
    KT_ARG_DIM,
    KT_ARG_PARAM
} kt_arg_kind;
typedef struct kt_arg {
    kt_arg_kind kind;
    int index; // of the port, layout, scratch, counter, dim or param
    int bytes; // 8 for pointers, 4 for dims (int32), ints (int32) and reals (f32)
    kt_str name;
} kt_arg;
// All arguments of a variant's kernels; every launch of the variant takes the same ones.
kt_arg *kt_op_args(kt_arena *arena, const kt_op *op, const kt_variant *variant, int *n);
// "kt_<op>_<variant>" or "kt_<op>_<variant>_<launch>".
char *kt_op_kernel_name(
    kt_arena *arena, const kt_op *op, const kt_variant *variant, const kt_op_launch *launch);
// The prototype as C++ text, for `kotaro ops show`.
void kt_op_print_prototype(const kt_op *op, const kt_variant *variant, kt_buf *out);

#endif
