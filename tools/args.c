#include "tools/command.h"

#include "runtime/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

volatile int kt_interrupted;

static void print_help(const kt_flag *flags, size_t n, const char *usage) {
    printf("usage: %s\n\n", usage);
    for (size_t i = 0; i < n; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", flags[i].name, flags[i].value ? flags[i].value : "");
        printf("  %-24s %s\n", left, flags[i].help);
    }
}

static const kt_flag *find_flag(const kt_flag *flags, size_t n, kt_str name) {
    for (size_t i = 0; i < n; i++)
        if (kt_str_is(name, flags[i].name)) return &flags[i];
    return NULL;
}

static int unknown_flag(kt_str given, const kt_flag *flags, size_t n) {
    kt_str names[64], near[2];
    size_t count = n < 64 ? n : 64;
    for (size_t i = 0; i < count; i++) names[i] = kt_str_from(flags[i].name);
    kt_err err;
    kt_status status = KT_FAIL(&err, KT_EUSAGE, "unknown option '%.*s'", KT_STR_ARG(given));
    if (kt_str_near(given, names, count, near) > 0)
        kt_err_note(&err, "did you mean '%.*s'?", KT_STR_ARG(near[0]));
    kt_err_note(&err, "--help lists them all; a name that begins with '-' goes behind '--'");
    return kt_report(status, NULL, &err);
}

// One flag at argv[*i], as "--name value" or "--name=value".
static int read_flag(kt_args *args, int argc, char **argv, int *i, const kt_flag *flags, size_t n) {
    kt_str given = kt_str_from(argv[*i]);
    ptrdiff_t equals = kt_str_find(given, '=');
    kt_str name = equals >= 0 ? kt_str_slice(given, 0, (size_t)equals) : given;
    const kt_flag *flag = find_flag(flags, n, name);
    if (!flag) return unknown_flag(name, flags, n);
    const char *value = equals >= 0 ? argv[*i] + equals + 1 : NULL;
    if (!flag->value && value) return kt_usage("option '%s' takes no value", flag->name);
    if (flag->value && !value) {
        if (*i + 1 == argc)
            return kt_usage(
                "option '%s' needs a value: %s %s", flag->name, flag->name, flag->value);
        value = argv[++*i];
    }
    const char *wrong = flag->take(args, value);
    return wrong ? kt_usage("option '%s' with '%s': %s", flag->name, value ? value : "", wrong) : 0;
}

bool kt_args_read(
    kt_args *args, int argc, char **argv, const kt_flag *flags, size_t n_flags, const char *usage) {
    memset(args, 0, sizeof *args);
    args->run.ops = args->ops;
    args->run.settings = args->settings;
    args->run.stop = &kt_interrupted;
    args->positional = calloc((size_t)argc + 1, sizeof *args->positional);
    if (!args->positional) kt_out_of_memory((size_t)argc * sizeof *args->positional);
    bool only_names = false;
    for (int i = 1; i < argc; i++) {
        bool is_flag = argv[i][0] == '-' && argv[i][1] != 0 && !only_names;
        if (!is_flag) {
            args->positional[args->n_positional++] = argv[i];
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(flags, n_flags, usage);
            return false;
        } else if (strcmp(argv[i], "--") == 0) {
            only_names = true;
        } else {
            args->code = read_flag(args, argc, argv, &i, flags, n_flags);
            if (args->code != 0) return false;
        }
    }
    return true;
}

static const char *const not_utf8 = "it is not UTF-8";

const char *kt_take_set(kt_args *args, const char *value) {
    const char *equals = strchr(value, '=');
    if (!equals || equals == value) return "it has the form NAME=VALUE";
    if (!kt_utf8_valid(kt_str_from(value))) return not_utf8;
    if (args->run.n_settings == 64) return "at most 64 of these";
    size_t n = (size_t)(equals - value);
    char *name = malloc(n + 1); // as long as the program
    if (!name) kt_out_of_memory(n);
    memcpy(name, value, n);
    name[n] = 0;
    args->settings[args->run.n_settings++] = (kt_setting){name, equals + 1};
    return NULL;
}

const char *kt_take_model(kt_args *args, const char *value) {
    if (!*value) return "a model folder or a .gguf file";
    args->run.model = value;
    return NULL;
}

const char *kt_take_ops(kt_args *args, const char *value) {
    if (args->run.n_ops == 32) return "at most 32 of these";
    args->ops[args->run.n_ops++] = value;
    return NULL;
}

const char *kt_take_memory(kt_args *args, const char *value) {
    if (!kt_str_to_bytes(kt_str_from(value), &args->run.memory_limit) ||
        args->run.memory_limit <= 0)
        return "a size such as 8G, 512M or a number of bytes";
    return NULL;
}

// All of stdin, without the end of its last line; NULL and why if it is no text.
static const char *read_stdin(const char **why) {
    enum { MOST = 4 << 20 };
    static kt_buf text; // lives as long as the arguments
    char part[4096];
    size_t n;
    kt_buf_clear(&text);
    while ((n = fread(part, 1, sizeof part, stdin)) > 0 && text.n <= MOST)
        kt_buf_add(&text, part, n);
    *why = "stdin cannot be read, or holds more than 4 MB";
    if (ferror(stdin) || text.n > MOST) return NULL;
    while (text.n > 0 && (text.at[text.n - 1] == '\n' || text.at[text.n - 1] == '\r'))
        text.at[--text.n] = 0;
    if (text.n > 0 && memchr(text.at, 0, text.n)) {
        *why = "stdin holds a zero byte, which no text has";
        return NULL;
    }
    return text.n == 0 ? "" : text.at;
}

const char *kt_take_question(kt_args *args, const char *value) {
    if (strcmp(value, "-") == 0) {
        const char *why;
        value = read_stdin(&why);
        if (!value) return why;
        if (!*value) return "stdin holds no text";
    }
    if (!*value) return "the question is empty";
    if (!kt_utf8_valid(kt_str_from(value))) return not_utf8;
    args->run.question = value;
    return NULL;
}

const char *kt_take_device(kt_args *args, const char *value) {
    static const char *const names[] = {"auto", "cuda", "cpu"};
    for (int i = 0; i < 3; i++)
        if (strcmp(value, names[i]) == 0) {
            args->run.device = (kt_device)i;
            return NULL;
        }
    return "expected auto, cuda or cpu";
}

const char *kt_take_format(kt_args *args, const char *value) {
    if (strcmp(value, "text") != 0 && strcmp(value, "json") != 0) return "expected text or json";
    args->json = strcmp(value, "json") == 0;
    return NULL;
}

const char *kt_take_quiet(kt_args *args, const char *value) {
    (void)args, (void)value;
    kt_log_set_level(KT_LOG_WARN);
    return NULL;
}

int kt_report(kt_status status, const kt_buf *report, const kt_err *err) {
    kt_log_progress(NULL);
    if (report && report->n > 0) fputs(report->at, stderr);
    if (status != KT_OK) kt_log_error(err);
    return kt_status_exit(status);
}

int kt_report_diag(kt_status status, const kt_diag *diag, const kt_err *err) {
    kt_buf report = {0};
    kt_diag_print(diag, &report);
    int code = kt_report(status, &report, err);
    kt_buf_deinit(&report);
    return code;
}

int kt_usage(const char *fmt, ...) {
    kt_err err;
    va_list args;
    va_start(args, fmt);
    kt_status status = kt_err_setv(&err, KT_EUSAGE, fmt, args);
    va_end(args);
    return kt_report(status, NULL, &err);
}
