// kotaro cache info | clear | verify
#include "ptx/cache.h"
#include "tools/command.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void print_bad(void *ctx, const char *file, const char *why) {
    (void)ctx;
    printf("%s: %s\n", file, why);
}

static void print_info(const kt_cache *cache, kt_cache_info info) {
    printf("%s\n%d kernels, %.1f MB, %d damaged, %d left-over files\n", kt_cache_folder(cache),
        info.n_files, (double)info.bytes / 1e6, info.n_bad, info.n_other);
}

int kt_cmd_cache(int argc, char **argv) {
    static kt_args args;
    if (!kt_args_read(&args, argc, argv, NULL, 0, "kotaro cache info | clear | verify"))
        return args.code;
    const char *what = args.n_positional == 1 ? args.positional[0] : "";
    bool known =
        strcmp(what, "info") == 0 || strcmp(what, "clear") == 0 || strcmp(what, "verify") == 0;
    if (!known) return kt_usage("expected one of: kotaro cache info, clear, verify");
    kt_cache *cache = kt_cache_open(NULL);
    if (!kt_cache_folder(cache)) {
        kt_err err;
        kt_status status = KT_FAIL(&err, KT_EFILE, "the cache is off: %s", kt_cache_why_off(cache));
        kt_cache_close(cache);
        return kt_report(status, NULL, &err);
    }
    if (strcmp(what, "clear") == 0)
        printf("%d kernels deleted from %s\n", kt_cache_clear(cache), kt_cache_folder(cache));
    else if (strcmp(what, "verify") == 0)
        print_info(cache, kt_cache_verify(cache, true, print_bad, NULL));
    else
        print_info(cache, kt_cache_get_info(cache));
    kt_cache_close(cache);
    return 0;
}
