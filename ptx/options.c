#include "ptx/options.h"

#include <ctype.h>
#include <string.h>

static const char *const fixed_options[] = {
    "-std=c++17",
    "-default-device",     // functions without a mark are device code
    "--no-source-include", // an include never reads the current folder
};

void kt_options_init(kt_options *options, kt_arena *arena, int arch) {
    *options = (kt_options){.arena = arena, .arch = arch};
}

static bool is_macro_name(const char *name) {
    if (strncmp(name, "KT_", 3) != 0 || name[3] == 0) return false;
    for (const char *at = name; *at != 0; at++)
        if (!isalnum((unsigned char)*at) && *at != '_') return false;
    return true;
}

kt_status kt_options_define(kt_options *options, const char *name, const char *value, kt_err *err) {
    if (!is_macro_name(name))
        return KT_FAIL(
            err, KT_EOP, "'%s' is not a macro for an op: KT_ and letters, digits, '_'", name);
    if (strpbrk(value, "\r\n") != NULL)
        return KT_FAIL(err, KT_EOP, "the value of macro '%s' has a line break", name);
    if (strcmp(name, "KT_OP_ABI") == 0)
        return KT_FAIL(err, KT_EOP, "macro 'KT_OP_ABI' is Kotaro's own");
    const char *kept = kt_arena_copy(options->arena, value, strlen(value));
    size_t at = 0;
    while (at < options->macros.n && strcmp(options->macros.at[at].name, name) < 0) at++;
    if (at < options->macros.n && strcmp(options->macros.at[at].name, name) == 0) {
        options->macros.at[at].value = kept;
        return KT_OK;
    }
    const kt_option_macro macro = {kt_arena_copy(options->arena, name, strlen(name)), kept};
    KT_PUSH(options->arena, &options->macros, macro);
    kt_option_macro *rows = options->macros.at;
    memmove(rows + at + 1, rows + at, (options->macros.n - 1 - at) * sizeof *rows);
    rows[at] = macro;
    return KT_OK;
}

const char **kt_options_list(const kt_options *options, kt_arena *arena, int arch, int *n) {
    size_t n_fixed = sizeof fixed_options / sizeof fixed_options[0];
    const char **list = kt_arena_array(arena, options->macros.n + n_fixed + 2, sizeof *list);
    int at = 0;
    list[at++] = kt_arena_printf(arena, "--gpu-architecture=sm_%d", arch);
    for (size_t i = 0; i < n_fixed; i++) list[at++] = fixed_options[i];
    list[at++] = kt_arena_printf(arena, "-DKT_OP_ABI=%d", KT_OP_ABI);
    for (size_t i = 0; i < options->macros.n; i++)
        list[at++] = kt_arena_printf(
            arena, "-D%s=%s", options->macros.at[i].name, options->macros.at[i].value);
    *n = at;
    return list;
}
