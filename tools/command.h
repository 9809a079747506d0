// The commands of the program: one function each, told apart by name in kotaro.c.
#ifndef KT_TOOLS_COMMAND_H
#define KT_TOOLS_COMMAND_H

#include "runtime/kotaro.h"

// argv[0] is the command's name. Returns the program's exit code.
int kt_cmd_run(int argc, char **argv);
int kt_cmd_check(int argc, char **argv);
int kt_cmd_explain(int argc, char **argv);
int kt_cmd_plan(int argc, char **argv);
int kt_cmd_ops(int argc, char **argv);
int kt_cmd_cache(int argc, char **argv);
int kt_cmd_warm(int argc, char **argv);

extern volatile int kt_interrupted;

// Options that several commands share. `read_common` takes one of them off the list; 0: not one of
// these.
typedef struct kt_args {
    kt_options_run run;
    const char *positional[256];
    int n_positional;
    const char *ops[32];
    kt_setting settings[64];
    // of plan and warm
    int arch, sms;
    bool all;
} kt_args;

typedef struct kt_flag {
    const char *name;  // "--set"
    const char *value; // what its value is called in help; NULL: none
    const char *help;
    // Takes the value (NULL if the flag has none). Returns NULL or what is wrong.
    const char *(*take)(kt_args *args, const char *value);
} kt_flag;

// Reads argv by a table; prints help for --help (returns 1), reports what is wrong (returns 2),
// else 0.
int kt_args_read(
    kt_args *args, int argc, char **argv, const kt_flag *flags, size_t n_flags, const char *usage);
// Shared rows.
const char *kt_take_set(kt_args *args, const char *value);
const char *kt_take_model(kt_args *args, const char *value);
const char *kt_take_ops(kt_args *args, const char *value);
const char *kt_take_memory(kt_args *args, const char *value);
const char *kt_take_question(kt_args *args, const char *value);
const char *kt_take_device(kt_args *args, const char *value);

// Prints diagnostics and the error to stderr; returns the exit code of the status.
int kt_report(kt_status status, const kt_buf *report, const kt_err *err);
void kt_json_text(kt_buf *out, kt_str text); // with quotes

#endif
