// The closed table of host steps and their contracts, in the notation of ops. The program
// implements each by name (runtime/exec); `kotaro ops list --host` prints the table.
#ifndef KT_LOADER_HOST_H
#define KT_LOADER_HOST_H

#include "loader/param.h"
#include "loader/type.h"

typedef struct kt_host_port {
    kt_str name; // "to.size"
    kt_type type;
} kt_host_port;

typedef struct kt_host_step {
    kt_str name, doc;
    bool tokenizer; // needs the model's tokenizer
    const kt_param *params;
    int n_params;
    const kt_host_port *in;
    int n_in;
    const kt_host_port *inout;
    int n_inout;
    const kt_host_port *out;
    int n_out;
    const kt_str *decides;
    int n_decides; // sizes that this step chooses
} kt_host_step;

// The table, parsed once into the arena from the text in host.c (a bug in it is an assertion).
const kt_host_step *kt_host_table(kt_arena *arena, int *n);
const char *kt_host_text(kt_arena *arena); // the table as YAML

#endif
