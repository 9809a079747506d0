// libnvrtc.so.13 for the tests: NVRTC's functions that ptx/nvrtc.c resolves, over the host's C++
// compiler. Any number of threads, each with programs of its own.
//
// It understands the options that the runtime gives and no others. There is no PTX, and the log has
// no report of the assembler: what a kernel uses of a GPU is not known here.
#include "tests/emu/nvrtc/build.h"
#include "tests/emu/nvrtc/count.h"
#include "tests/emu/nvrtc/elf.h"
#include "tests/emu/nvrtc/source.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { MAJOR = 13, MINOR = 0, MAX_HEADERS = 64, MAX_DEFINES = 512 };

typedef int (*flow_callback)(void *payload, void *reserved);

typedef struct file {
    char *name, *source;
} file;

typedef struct program {
    file files[MAX_HEADERS + 1]; // the source first
    int n_files;
    flow_callback stop;
    void *payload;
    text log, cubin;
} program;

typedef struct options {
    int sm;
    const char *defines[MAX_DEFINES];
    int n_defines;
} options;

// NOLINTBEGIN(readability-identifier-naming): NVIDIA's names
EXPORT nvrtc_result nvrtcVersion(int *major, int *minor);
EXPORT nvrtc_result nvrtcCreateProgram(program **out, const char *source, const char *name, int n,
    const char *const *sources, const char *const *names);
EXPORT nvrtc_result nvrtcDestroyProgram(program **which);
EXPORT nvrtc_result nvrtcCompileProgram(program *p, int n, const char *const *values);
EXPORT nvrtc_result nvrtcGetProgramLogSize(program *p, size_t *size);
EXPORT nvrtc_result nvrtcGetProgramLog(program *p, char *out);
EXPORT nvrtc_result nvrtcGetCUBINSize(program *p, size_t *size);
EXPORT nvrtc_result nvrtcGetCUBIN(program *p, char *out);
EXPORT nvrtc_result nvrtcGetPTXSize(program *p, size_t *size);
EXPORT nvrtc_result nvrtcGetPTX(program *p, char *out);
EXPORT nvrtc_result nvrtcSetFlowCallback(program *p, flow_callback stop, void *payload);
EXPORT const char *nvrtcGetErrorString(int code);
// NOLINTEND(readability-identifier-naming)

typedef struct error_row {
    int code;
    const char *name;
} error_row;

static const error_row errors[] = {
    {NVRTC_OK, "NVRTC_SUCCESS"},
    {NVRTC_OUT_OF_MEMORY, "NVRTC_ERROR_OUT_OF_MEMORY"},
    {NVRTC_INVALID_INPUT, "NVRTC_ERROR_INVALID_INPUT"},
    {NVRTC_INVALID_PROGRAM, "NVRTC_ERROR_INVALID_PROGRAM"},
    {NVRTC_INVALID_OPTION, "NVRTC_ERROR_INVALID_OPTION"},
    {NVRTC_COMPILATION, "NVRTC_ERROR_COMPILATION"},
    {NVRTC_BUILTINS, "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE"},
    {NVRTC_INTERNAL, "NVRTC_ERROR_INTERNAL_ERROR"},
    {NVRTC_CANCELLED, "NVRTC_ERROR_CANCELLED"},
};

const char *nvrtcGetErrorString(int code) {
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code == code) return errors[i].name;
    return "NVRTC_ERROR unknown";
}

nvrtc_result nvrtcVersion(int *major, int *minor) {
    nvrtc_result result = count_call(VERSION);
    if (result != NVRTC_OK) return result;
    *major = MAJOR;
    *minor = MINOR;
    return NVRTC_OK;
}

// ---- programs

static char *copy(const char *value) {
    char *out = strdup(value);
    if (out == NULL) abort();
    return out;
}

nvrtc_result nvrtcCreateProgram(program **out, const char *source, const char *name, int n,
    const char *const *sources, const char *const *names) {
    nvrtc_result result = count_call(CREATE);
    if (result != NVRTC_OK) return result;
    if (out == NULL || source == NULL || n < 0 || n > MAX_HEADERS) return NVRTC_INVALID_INPUT;
    for (int i = 0; i < n; i++) // they become files
        if (names[i][0] == 0 || names[i][0] == '.' || strchr(names[i], '/') != NULL)
            return NVRTC_INVALID_INPUT;
    program *p = take(sizeof *p);
    p->files[p->n_files++] = (file){copy(name == NULL ? "default_program" : name), copy(source)};
    for (int i = 0; i < n; i++) p->files[p->n_files++] = (file){copy(names[i]), copy(sources[i])};
    *out = p;
    return NVRTC_OK;
}

nvrtc_result nvrtcDestroyProgram(program **which) {
    (void)count_call(DESTROY);
    if (which == NULL || *which == NULL) return NVRTC_INVALID_PROGRAM;
    program *p = *which;
    for (int i = 0; i < p->n_files; i++) {
        free(p->files[i].name);
        free(p->files[i].source);
    }
    text_free(&p->log);
    text_free(&p->cubin);
    free(p);
    *which = NULL;
    return NVRTC_OK;
}

nvrtc_result nvrtcSetFlowCallback(program *p, flow_callback stop, void *payload) {
    nvrtc_result result = count_call(SET_FLOW);
    if (result != NVRTC_OK) return result;
    if (p == NULL) return NVRTC_INVALID_PROGRAM;
    p->stop = stop;
    p->payload = payload;
    return NVRTC_OK;
}

// ---- compiling

// Options without a meaning here.
static const char *const ignored_options[] = {
    "-std=c++17",
    "-default-device",
    "--no-source-include",
    "--ptxas-options=-v",
    "--ptxas-options=--warn-on-spills",
    "--no-cache",
    "--frandom-seed=kotaro",
};

typedef struct arch_row {
    const char *option;
    int sm;
} arch_row;

#define ARCH(sm)                                                                                   \
    { "--gpu-architecture=sm_" #sm, sm }
static const arch_row archs[] = {ARCH(75), ARCH(80), ARCH(86), ARCH(87), ARCH(89), ARCH(90),
    ARCH(100), ARCH(103), ARCH(120), ARCH(121)};

static bool is_ignored(const char *value) {
    for (size_t i = 0; i < sizeof ignored_options / sizeof ignored_options[0]; i++)
        if (strcmp(value, ignored_options[i]) == 0) return true;
    return false;
}

static bool read_option(const char *value, options *out) {
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (strcmp(value, archs[i].option) != 0) continue;
        out->sm = archs[i].sm;
        return true;
    }
    if (strncmp(value, "-D", 2) == 0 && value[2] != 0 && out->n_defines < MAX_DEFINES) {
        out->defines[out->n_defines++] = value;
        return true;
    }
    return is_ignored(value);
}

// The stand-in has these of its own, in device/ beside the library.
static bool is_replaced(const char *name) {
    return strcmp(name, "machine.cuh") == 0 || strcmp(name, "mma.cuh") == 0;
}

static nvrtc_result build_program(program *p, const options *o, emu_mode mode) {
    build_file files[MAX_HEADERS + 1] = {{.name = p->files[0].name}};
    text module = {0};
    int n = 1;
    text_print(&files[0].converted, "#include \"module.h\"");
    bool good = source_convert(p->files[0].name, p->files[0].source, &files[0].converted, &p->log);
    for (int i = 1; i < p->n_files; i++) {
        if (is_replaced(p->files[i].name)) continue;
        files[n].name = p->files[i].name;
        good = source_convert_header(
                   p->files[i].name, p->files[i].source, &files[n].converted, &p->log) &&
               good;
        n++;
    }
    const build what = {.mode = mode,
        .sm = o->sm,
        .defines = o->defines,
        .n_defines = o->n_defines,
        .files = files,
        .n_files = n,
        .stop = p->stop,
        .payload = p->payload};
    build_result built = good ? build_run(&what, &module, &p->log) : BUILD_FAILED;
    uint64_t stamp = built == BUILD_DONE ? emu_stamp(mode) : 0;
    nvrtc_result result = built == BUILD_STOPPED ? NVRTC_CANCELLED
                          : built == BUILD_DONE  ? NVRTC_OK
                                                 : NVRTC_COMPILATION;
    if (built == BUILD_DONE && !elf_write(&module, o->sm, mode, stamp, &p->cubin)) {
        text_print(&p->log, "%s: error: no kernel in it\n", p->files[0].name);
        result = NVRTC_COMPILATION;
    }
    for (int i = 0; i < n; i++) text_free(&files[i].converted);
    text_free(&module);
    return result;
}

nvrtc_result nvrtcCompileProgram(program *p, int n, const char *const *values) {
    nvrtc_result result = count_call(COMPILE);
    if (result != NVRTC_OK) return result;
    if (p == NULL) return NVRTC_INVALID_PROGRAM;
    text_free(&p->log);
    text_free(&p->cubin);
    options o = {.sm = 75};
    for (int i = 0; i < n; i++) {
        if (read_option(values[i], &o)) continue;
        text_print(&p->log, "nvrtc: error: invalid value or unknown option: '%s'\n", values[i]);
        return NVRTC_INVALID_OPTION;
    }
    emu_mode mode;
    const char *why;
    if (!emu_mode_get(&mode, &why)) {
        text_print(&p->log, "nvrtc: error: %s\n", why);
        return NVRTC_COMPILATION;
    }
    return build_program(p, &o, mode);
}

// ---- results

static nvrtc_result give_size(function which, const program *p, size_t n, size_t *size) {
    nvrtc_result result = count_call(which);
    if (result != NVRTC_OK) return result;
    if (p == NULL) return NVRTC_INVALID_PROGRAM;
    *size = n;
    return NVRTC_OK;
}

static nvrtc_result give(function which, const program *p, const char *bytes, size_t n, char *out) {
    nvrtc_result result = count_call(which);
    if (result != NVRTC_OK) return result;
    if (p == NULL) return NVRTC_INVALID_PROGRAM;
    if (n > 0) memcpy(out, bytes, n);
    return NVRTC_OK;
}

// With the 0 at its end.
nvrtc_result nvrtcGetProgramLogSize(program *p, size_t *size) {
    return give_size(LOG_SIZE, p, p == NULL ? 0 : p->log.n + 1, size);
}
nvrtc_result nvrtcGetProgramLog(program *p, char *out) {
    bool none = p == NULL || p->log.n == 0;
    return give(LOG, p, none ? "" : p->log.at, none ? 1 : p->log.n + 1, out);
}
nvrtc_result nvrtcGetCUBINSize(program *p, size_t *size) {
    return give_size(CUBIN_SIZE, p, p == NULL ? 0 : p->cubin.n, size);
}
nvrtc_result nvrtcGetCUBIN(program *p, char *out) {
    return give(CUBIN, p, p == NULL ? NULL : p->cubin.at, p == NULL ? 0 : p->cubin.n, out);
}
nvrtc_result nvrtcGetPTXSize(program *p, size_t *size) {
    return give_size(PTX_SIZE, p, 1, size);
}
nvrtc_result nvrtcGetPTX(program *p, char *out) {
    return give(PTX, p, "", 1, out);
}
