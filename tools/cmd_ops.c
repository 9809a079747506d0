// kotaro ops list | show NAME
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/session.h"
#include "tools/command.h"

#include <stdio.h>
#include <string.h>

static bool list_host;

static const char *take_host(kt_args *args, const char *value) {
    (void)args, (void)value;
    list_host = true;
    return NULL;
}

static const kt_flag flags[] = {
    {"--ops", "DIR", "more ops", kt_take_ops},
    {"--host", NULL, "list: the host steps and their contracts", take_host},
};

static void list_op(const kt_op *op) {
    const char *form = op->n_body > 0 ? (op->n_variants > 0 ? "fused" : "body") : "primitive";
    printf("%-18.*s %-10s %.*s\n", KT_STR_ARG(op->name), form, KT_STR_ARG(op->doc));
}

static void print_ports(const kt_op *op, kt_port_kind kind, const char *title) {
    for (int i = 0; i < op->n_ports; i++)
        if (op->ports[i].kind == kind)
            printf("  %-7s %-16.*s %.*s\n", title, KT_STR_ARG(op->ports[i].name),
                KT_STR_ARG(op->ports[i].type.text));
}

static void show_op(const kt_op *op) {
    printf("%.*s: %.*s\n  in %s\n", KT_STR_ARG(op->name), KT_STR_ARG(op->doc), op->folder);
    print_ports(op, KT_PORT_INPUT, "input");
    print_ports(op, KT_PORT_INOUT, "inout");
    print_ports(op, KT_PORT_OUTPUT, "output");
    for (int i = 0; i < op->n_params; i++)
        printf("  param   %.*s\n", KT_STR_ARG(op->params[i].name));
    kt_buf out = {0};
    for (int i = 0; i < op->n_variants; i++) kt_op_print_prototype(op, &op->variants[i], &out);
    if (out.n > 0) printf("\n%s", out.at);
    kt_buf_deinit(&out);
}

static int with_registry(const kt_args *args, const char *what, const char *name) {
    kt_arena arena = {0};
    kt_diag diag;
    kt_err err = {0};
    kt_diag_init(&diag, &arena);
    const char *home = kt_home_folder(&arena);
    if (!home)
        return kt_report(
            KT_FAIL(&err, KT_EFILE, "no ops/ folder found; set KOTARO_HOME"), NULL, &err);
    kt_registry *registry = kt_registry_open(
        &arena, kt_path_join(&arena, home, "ops"), args->run.ops, args->run.n_ops, &diag);
    if (registry && strcmp(what, "show") == 0) {
        kt_ref ref = {kt_str_from(name), {0}};
        const kt_op *op = kt_registry_op(registry, ref, &diag);
        if (op) show_op(op);
    } else if (registry) {
        int n = 0;
        const kt_op *const *ops = kt_registry_all(registry, &n, &diag);
        for (int i = 0; i < n; i++) list_op(ops[i]);
    }
    kt_buf report = {0};
    kt_diag_print(&diag, &report);
    if (report.n > 0) fputs(report.at, stderr);
    kt_buf_deinit(&report);
    int code = diag.n_errors > 0 ? 2 : 0;
    kt_arena_deinit(&arena);
    return code;
}

int kt_cmd_ops(int argc, char **argv) {
    static kt_args args;
    int code = kt_args_read(
        &args, argc, argv, flags, 2, "kotaro ops list [--host] | show NAME [--ops DIR]");
    if (code != 0) return code == 1 ? 0 : 2;
    kt_err err;
    const char *what = args.n_positional > 0 ? args.positional[0] : "";
    if (strcmp(what, "list") == 0 && list_host) {
        fputs(kt_host_text(), stdout);
        return 0;
    }
    if (strcmp(what, "list") == 0 && args.n_positional == 1)
        return with_registry(&args, what, NULL);
    if (strcmp(what, "show") == 0 && args.n_positional == 2)
        return with_registry(&args, what, args.positional[1]);
    return kt_report(
        KT_FAIL(&err, KT_EUSAGE, "expected: kotaro ops list, or kotaro ops show NAME"), NULL, &err);
}
