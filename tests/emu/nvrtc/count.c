#include "tests/emu/nvrtc/count.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[N_FUNCTIONS] = {
    [VERSION] = "nvrtcVersion",
    [CREATE] = "nvrtcCreateProgram",
    [COMPILE] = "nvrtcCompileProgram",
    [LOG_SIZE] = "nvrtcGetProgramLogSize",
    [LOG] = "nvrtcGetProgramLog",
    [CUBIN_SIZE] = "nvrtcGetCUBINSize",
    [CUBIN] = "nvrtcGetCUBIN",
    [PTX_SIZE] = "nvrtcGetPTXSize",
    [PTX] = "nvrtcGetPTX",
    [SET_FLOW] = "nvrtcSetFlowCallback",
    [DESTROY] = "nvrtcDestroyProgram",
};

typedef struct code_row {
    const char *name;
    nvrtc_result code;
} code_row;

static const code_row codes[] = {
    {"out-of-memory", NVRTC_OUT_OF_MEMORY},
    {"invalid-input", NVRTC_INVALID_INPUT},
    {"compilation", NVRTC_COMPILATION},
    {"builtins", NVRTC_BUILTINS},
    {"internal", NVRTC_INTERNAL},
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long counts[N_FUNCTIONS], total; // total: of calls that can fail
static const char *fired;               // the last function that was made to fail

static void wrong_rule(const char *rule, size_t n) {
    (void)fprintf(
        stderr, "emu: KOTARO_EMU_FAIL has '%.*s': expected nvrtc:N or nvrtc:N:", (int)n, rule);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        (void)fprintf(stderr, "%s%s", i > 0 ? "|" : "", codes[i].name);
    (void)fprintf(stderr, "\n");
    abort();
}

// What the rule "NAME:N[:CODE]" says of this call.
static nvrtc_result apply(const char *rule, size_t n, function which) {
    size_t name = strcspn(rule, ":,");
    bool all = name == 5 && memcmp(rule, "nvrtc", 5) == 0;
    bool own = name == strlen(names[which]) && memcmp(rule, names[which], name) == 0;
    if (!all && !own) return NVRTC_OK;
    if (name >= n) wrong_rule(rule, n);
    char *end;
    long wanted = strtol(rule + name + 1, &end, 10);
    size_t left = n - (size_t)(end - rule);
    if (wanted <= 0 || (left > 0 && end[0] != ':')) wrong_rule(rule, n);
    if (wanted != (all ? total : counts[which])) return NVRTC_OK;
    if (left == 0) return NVRTC_INTERNAL;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strlen(codes[i].name) == left - 1 && memcmp(end + 1, codes[i].name, left - 1) == 0)
            return codes[i].code;
    wrong_rule(rule, n);
    return NVRTC_OK;
}

nvrtc_result count_call(function which) {
    const char *rules = getenv("KOTARO_EMU_FAIL");
    nvrtc_result result = NVRTC_OK;
    pthread_mutex_lock(&mutex);
    counts[which]++;
    if (which != DESTROY) {
        total++;
        for (const char *at = rules; at != NULL && *at != 0 && result == NVRTC_OK;) {
            size_t n = strcspn(at, ",");
            result = apply(at, n, which);
            at += at[n] == ',' ? n + 1 : n;
        }
        if (result != NVRTC_OK) fired = names[which];
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

__attribute__((destructor)) static void report(void) {
    const char *base = getenv("KOTARO_EMU_REPORT");
    char path[EMU_MAX_PATH];
    if (base == NULL || base[0] == 0) return;
    int n = snprintf(path, sizeof path, "%s.nvrtc", base);
    FILE *file = n > 0 && n < (int)sizeof path ? fopen(path, "a") : NULL;
    if (file == NULL) {
        (void)fprintf(stderr, "emu: '%s.nvrtc' cannot be written\n", base);
        return;
    }
    for (int i = 0; i < N_FUNCTIONS; i++) (void)fprintf(file, "%s %ld\n", names[i], counts[i]);
    (void)fprintf(file, "calls_that_can_fail %ld\n", total);
    if (fired != NULL) (void)fprintf(file, "fired %s\n", fired);
    (void)fclose(file);
}
