// The commands of the program: one function each, told apart by name in kotaro.c.
#ifndef KT_TOOLS_COMMAND_H
#define KT_TOOLS_COMMAND_H

#include "loader/diag.h"
#include "runtime/kotaro.h"

// argv[0] is the command's name. Returns the program's exit code.
int kt_cmd_run(int argc, char **argv);
int kt_cmd_check(int argc, char **argv);
int kt_cmd_explain(int argc, char **argv);
int kt_cmd_plan(int argc, char **argv);
int kt_cmd_ops(int argc, char **argv);
int kt_cmd_cache(int argc, char **argv);
int kt_cmd_warm(int argc, char **argv);
int kt_cmd_verify(int argc, char **argv);

extern volatile int kt_interrupted; // 1 after Ctrl-C

// What the options of all commands fill; each command has its own table of those it takes.
typedef struct kt_args {
    kt_options_run run;
    const char **positional; // in order; room for all of argv
    int n_positional;
    const char *ops[32];
    kt_setting settings[64];
    const char *dump_only[64]; // run
    bool json;                 // run, verify
    bool all, cpu;             // plan
    int arch, sms;             // plan
    const char *rule;          // explain
    const char *golden;        // verify
    int code;                  // see kt_args_read
} kt_args;

typedef struct kt_flag {
    const char *name;  // "--set"
    const char *value; // what its value is called in help; NULL: none
    const char *help;
    // Takes the value (NULL if the flag has none). Returns NULL or what is wrong.
    const char *(*take)(kt_args *args, const char *value);
} kt_flag;

// Reads argv by a table. false: the command ends with the exit code in args->code, for it printed
// the help that was asked for (0) or what is wrong (2). What it fills lives as long as argv and the
// program.
bool kt_args_read(
    kt_args *args, int argc, char **argv, const kt_flag *flags, size_t n_flags, const char *usage);
// Shared rows.
const char *kt_take_set(kt_args *args, const char *value);
const char *kt_take_model(kt_args *args, const char *value);
const char *kt_take_ops(kt_args *args, const char *value);
const char *kt_take_memory(kt_args *args, const char *value);
const char *kt_take_question(kt_args *args, const char *value);
const char *kt_take_device(kt_args *args, const char *value);
const char *kt_take_format(kt_args *args, const char *value); // text|json
const char *kt_take_quiet(kt_args *args, const char *value);

// Prints diagnostics (or a printed `report` of them, which may be NULL) and the error to stderr;
// returns the status' exit code.
int kt_report(kt_status status, const kt_buf *report, const kt_err *err);
int kt_report_diag(kt_status status, const kt_diag *diag, const kt_err *err);
// The same for a mistake on the command line.
int kt_usage(const char *fmt, ...) KT_PRINTF(1, 2);

// JSON of --format json: one object and a line break. Whatever the bytes, the line is valid JSON:
// what is not UTF-8 becomes U+FFFD.
void kt_json_text(kt_buf *out, kt_str text); // with quotes
void kt_json_result(kt_buf *out, const kt_result *result);
void kt_json_failure(kt_buf *out, const char *image, const kt_err *err);

#endif
