// The program: finds the command and runs it. Under the name kotaro-run it is `kotaro run`.
#include "runtime/base/file.h"
#include "tools/command.h"

#include <stdio.h>
#include <string.h>

typedef struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} command;

static const command commands[] = {
    {"run", "run a pipeline on pictures: kotaro run pipelines/full.yaml img.jpg", kt_cmd_run},
    {"check", "check pipelines, ops and model files", kt_cmd_check},
    {"explain", "print a pipeline as resolved, each line with its origin", kt_cmd_explain},
    {"plan", "print launches, memory and bytes of a pipeline; needs no GPU", kt_cmd_plan},
    {"verify", "run what a golden folder says and compare it stage by stage", kt_cmd_verify},
    {"ops", "list ops, show one, check kernels against their C implementations", kt_cmd_ops},
    {"warm", "compile a pipeline's kernels ahead of time; --export makes a pack", kt_cmd_warm},
    {"cache", "info, clear or verify the cache of compiled kernels", kt_cmd_cache},
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_usage(FILE *out) {
    fprintf(out, "usage: kotaro COMMAND ...\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n  kotaro COMMAND --help tells more; kotaro --version\n");
}

static int unknown_command(const char *name) {
    kt_str known[N_COMMANDS], near[2];
    kt_err err;
    for (int i = 0; i < N_COMMANDS; i++) known[i] = kt_str_from(commands[i].name);
    kt_status status = KT_FAIL(&err, KT_EUSAGE, "unknown command '%s'", name);
    if (kt_str_near(kt_str_from(name), known, N_COMMANDS, near) > 0)
        kt_err_note(&err, "did you mean '%.*s'?", KT_STR_ARG(near[0]));
    if (strchr(name, '.')) kt_err_note(&err, "to run a pipeline: kotaro run %s IMAGE...", name);
    int code = kt_report(status, NULL, &err);
    print_usage(stderr);
    return code;
}

static bool is_run_name(const char *path) {
    kt_str name = kt_str_from(kt_path_name(path));
    return kt_str_starts(name, KT_STR("kotaro-run"));
}

static int run_command(int argc, char **argv) {
    bool version = argc > 1 && strcmp(argv[1], "--version") == 0;
    if (argc > 0 && is_run_name(argv[0]) && !version) return kt_cmd_run(argc, argv);
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    if (version) {
        printf("kotaro %s\n", KT_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    return unknown_command(argv[1]);
}

int main(int argc, char **argv) {
    kt_os_setup_console();
    kt_os_catch_interrupt(&kt_interrupted);
    int code = run_command(argc, argv);
    kt_err err;
    bool lost = fflush(stdout) != 0 || ferror(stdout); // a full disk
    if (!lost || code != 0) return code;
    return kt_report(KT_FAIL(&err, KT_EFILE, "the results cannot be written"), NULL, &err);
}
