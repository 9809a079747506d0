#include "ptx/nvrtc.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct program *nvrtc_program; // the library's handle
typedef int (*flow_callback)(void *payload, void *reserved);

enum {
    NVRTC_COMPILATION = 6,
    NVRTC_BUILTINS = 7,
    NVRTC_CANCELLED = 16,
    MAX_OPTIONS = 512,
    MAX_QUOTE = 2400, // bytes of a log in an error message
};

// Our own declarations. Source: the public interface of NVRTC 12.8.
#define NVRTC_LIST(X)                                                                              \
    X(nvrtcVersion, (int *major, int *minor))                                                      \
    X(nvrtcCreateProgram, (nvrtc_program * out, const char *text, const char *name, int n,         \
                              const char *const *texts, const char *const *names))                 \
    X(nvrtcDestroyProgram, (nvrtc_program * program))                                              \
    X(nvrtcCompileProgram, (nvrtc_program program, int n, const char *const *options))             \
    X(nvrtcGetProgramLogSize, (nvrtc_program program, size_t * size))                              \
    X(nvrtcGetProgramLog, (nvrtc_program program, char *out))                                      \
    X(nvrtcGetCUBINSize, (nvrtc_program program, size_t * size))                                   \
    X(nvrtcGetCUBIN, (nvrtc_program program, char *out))                                           \
    X(nvrtcGetPTXSize, (nvrtc_program program, size_t * size))                                     \
    X(nvrtcGetPTX, (nvrtc_program program, char *out))

struct kt_nvrtc {
#define FIELD(name, params) int(*name) params; // NOLINT(bugprone-macro-parentheses)
    NVRTC_LIST(FIELD)
#undef FIELD
    const char *(*nvrtcGetErrorString)(int code);
    int (*nvrtcSetFlowCallback)(
        nvrtc_program program, flow_callback call, void *payload); // may be NULL
    kt_nvrtc_id id;
};

typedef struct row {
    const char *name;
    size_t field;
} row;

#define ROW(name, params) {#name, offsetof(kt_nvrtc, name)},
static const row rows[] = {
    NVRTC_LIST(ROW){"nvrtcGetErrorString", offsetof(kt_nvrtc, nvrtcGetErrorString)},
    {"nvrtcSetFlowCallback", offsetof(kt_nvrtc, nvrtcSetFlowCallback)}, // optional: the last
};
#undef ROW

// Options that do not change the code, and from which version the compiler knows them (it refuses
// what it does not know).
typedef struct extra_option {
    int major, minor;
    const char *text;
} extra_option;

static const extra_option extra_options[] = {
    {12, 0, "--ptxas-options=-v"}, // registers, stack and spills of each kernel in the log
    {12, 0, "--ptxas-options=--warn-on-spills"},
    {12, 9, "--no-cache"},            // the driver's cache: it would start CUDA inside this process
    {13, 0, "--frandom-seed=kotaro"}, // equal bytes for equal sources, whatever the process
};

static bool at_least(const kt_nvrtc_id *id, int major, int minor) {
    return id->major > major || (id->major == major && id->minor >= minor);
}

static kt_status resolve(kt_nvrtc *nvrtc, kt_os_library *library, const char *path, kt_err *err) {
    size_t n = sizeof rows / sizeof rows[0];
    for (size_t i = 0; i < n; i++) {
        kt_os_function function = kt_os_library_function(library, rows[i].name);
        if (function == NULL && i + 1 < n)
            return KT_FAIL(
                err, KT_ECOMPILE, "'%s' lacks %s: not a usable NVRTC", path, rows[i].name);
        memcpy((char *)nvrtc + rows[i].field, &function, sizeof function);
    }
    return KT_OK;
}

static kt_status load(const kt_nvrtc_place *place, kt_nvrtc *nvrtc, kt_err *err) {
    kt_buf why = {0};
    // The builtins first and by full path: NVRTC itself looks for them by bare name and takes
    // whatever the loader finds.
    const char *const files[] = {place->builtins, place->library};
    kt_os_library *library = NULL;
    for (size_t i = 0; i < 2; i++) {
        library = kt_os_library_open(files[i], &why);
        if (library != NULL) continue;
        kt_status status = KT_FAIL(
            err, KT_ECOMPILE, "'%s' cannot be opened: %s", files[i], why.n > 0 ? why.at : "");
        kt_buf_deinit(&why);
        return status;
    }
    kt_buf_deinit(&why);
    KT_TRY(resolve(nvrtc, library, place->library, err));
    KT_ASSERT(nvrtc->nvrtcVersion != NULL);
    int major = 0, minor = 0, code = nvrtc->nvrtcVersion(&major, &minor);
    if (code != 0)
        return KT_FAIL(err, KT_ECOMPILE, "'%s' cannot be used: nvrtcVersion: %s", place->library,
            nvrtc->nvrtcGetErrorString(code));
    if (major != place->id.major || minor != place->id.minor)
        return KT_FAIL(err, KT_ECOMPILE,
            "'%s' is NVRTC %d.%d, but the builtins file beside it is of %d.%d", place->library,
            major, minor, place->id.major, place->id.minor);
    nvrtc->id = place->id;
    return KT_OK;
}

kt_status kt_nvrtc_open(const kt_nvrtc_place *place, kt_nvrtc **out, kt_err *err) {
    *out = NULL;
    kt_nvrtc *nvrtc = calloc(1, sizeof *nvrtc);
    if (nvrtc == NULL) kt_out_of_memory(sizeof *nvrtc);
    kt_status status = load(place, nvrtc, err);
    if (status != KT_OK) {
        kt_nvrtc_close(nvrtc);
        return status;
    }
    *out = nvrtc;
    return KT_OK;
}

void kt_nvrtc_close(kt_nvrtc *nvrtc) {
    free(nvrtc);
}

kt_nvrtc_id kt_nvrtc_get_id(const kt_nvrtc *nvrtc) {
    return nvrtc->id;
}

// ---- logs

static bool next_line(kt_str *rest, kt_str *line) {
    if (rest->n == 0) return false;
    ptrdiff_t end = kt_str_find(*rest, '\n');
    size_t n = end < 0 ? rest->n : (size_t)end;
    *line = kt_str_slice(*rest, 0, n);
    *rest = kt_str_slice(*rest, end < 0 ? n : n + 1, rest->n);
    if (line->n > 0 && line->at[line->n - 1] == '\r') line->n--;
    return true;
}

// The number that stands before `what` in the line: "0 bytes spill stores".
static bool number_before(kt_str line, const char *what, int *out) {
    ptrdiff_t at = kt_str_find_text(line, what);
    ptrdiff_t start = at;
    while (start > 0 && isdigit((unsigned char)line.at[start - 1])) start--;
    int64_t value;
    if (at <= 0 || start == at ||
        !kt_str_to_i64(kt_str_slice(line, (size_t)start, (size_t)at), &value) || value > INT32_MAX)
        return false;
    *out = (int)value;
    return true;
}

// Does the line end in 'name', or have it before " for"?
static bool names_kernel(kt_str line, const char *mark, kt_str kernel) {
    ptrdiff_t at = kt_str_find_text(line, mark);
    if (at < 0) return false;
    kt_str rest = kt_str_slice(line, (size_t)at + strlen(mark), line.n);
    if (rest.n > 0 && rest.at[0] == '\'') rest = kt_str_slice(rest, 1, rest.n);
    if (!kt_str_starts(rest, kernel)) return false;
    return rest.n == kernel.n || rest.at[kernel.n] == '\'' || rest.at[kernel.n] == ' ';
}

bool kt_nvrtc_read_usage(kt_str log, kt_str kernel, kt_nvrtc_usage *out) {
    *out = (kt_nvrtc_usage){0};
    kt_str line;
    bool inside = false, own = false, found = false;
    while (next_line(&log, &line)) {
        if (kt_str_find_text(line, "Compiling entry function ") >= 0) {
            if (found) return true;
            inside = names_kernel(line, "Compiling entry function ", kernel);
        }
        if (kt_str_find_text(line, "Function properties for ") >= 0)
            own = names_kernel(line, "Function properties for ", kernel);
        if (!inside) continue;
        if (own && number_before(line, " bytes stack frame", &out->stack_bytes)) {
            found = number_before(line, " bytes spill stores", &out->spill_store_bytes) &&
                    number_before(line, " bytes spill loads", &out->spill_load_bytes);
            own = false;
        }
        (void)number_before(line, " registers", &out->registers);
        (void)number_before(line, " bytes smem", &out->shared_bytes);
    }
    return found;
}

// ---- compiling

// Gives the library's code; what cannot be had is empty.
static int get_text(kt_arena *arena, nvrtc_program program,
    int (*size_of)(nvrtc_program program, size_t *size),
    int (*get)(nvrtc_program program, char *out), kt_str *out) {
    size_t n = 0;
    *out = KT_STR("");
    int code = size_of(program, &n);
    if (code != 0 || n == 0) return code;
    char *text = kt_arena_alloc(arena, n + 1);
    code = get(program, text);
    if (code == 0) *out = (kt_str){text, n};
    return code;
}

// "ptxas application ptx input, line 55; error : ..." is a line of the PTX, which the user has not
// seen.
static void note_ptx_line(
    kt_nvrtc *nvrtc, nvrtc_program program, kt_str message, kt_arena *arena, kt_err *err) {
    static const char mark[] = "ptx input, line ";
    ptrdiff_t at = kt_str_find_text(message, mark);
    if (at < 0) return;
    kt_str rest = kt_str_slice(message, (size_t)at + sizeof mark - 1, message.n);
    size_t digits = 0;
    while (digits < rest.n && isdigit((unsigned char)rest.at[digits])) digits++;
    int64_t wanted;
    if (!kt_str_to_i64(kt_str_slice(rest, 0, digits), &wanted)) return;
    kt_str ptx, line;
    if (get_text(arena, program, nvrtc->nvrtcGetPTXSize, nvrtc->nvrtcGetPTX, &ptx) != 0) return;
    for (int64_t i = 1; next_line(&ptx, &line); i++)
        if (i == wanted)
            kt_err_note(err, "line %d of the PTX: %.*s", (int)i, KT_STR_ARG(kt_str_trim(line)));
}

// The part of a log that an error message shows: from the first error on.
static kt_str first_error(kt_str log) {
    kt_str rest = log, line;
    while (next_line(&rest, &line)) {
        bool error = kt_str_find_text(line, "error") >= 0 || kt_str_find_text(line, "fatal") >= 0;
        if (!error) continue;
        size_t from = (size_t)(line.at - log.at);
        return kt_str_slice(log, from, from + MAX_QUOTE < log.n ? from + MAX_QUOTE : log.n);
    }
    return kt_str_slice(log, 0, log.n < MAX_QUOTE ? log.n : MAX_QUOTE);
}

static kt_status explain(kt_nvrtc *nvrtc, nvrtc_program program, int code,
    const kt_nvrtc_source *source, const kt_nvrtc_output *out, kt_arena *arena, kt_err *err) {
    if (code == NVRTC_CANCELLED && source->stop != NULL && *source->stop != 0)
        return KT_FAIL(err, KT_EINTERRUPTED, "compiling '%s' was given up", source->name);
    kt_str quote = first_error(out->log);
    while (quote.n > 0 && isspace((unsigned char)quote.at[quote.n - 1])) quote.n--;
    kt_err_set(err, KT_ECOMPILE, "'%s' does not compile (%s)%s%.*s", source->name,
        nvrtc->nvrtcGetErrorString(code), quote.n > 0 ? ":\n" : "", KT_STR_ARG(quote));
    if (code == NVRTC_BUILTINS)
        kt_err_note(err, "NVRTC does not find its builtins file: reinstall it as a whole");
    note_ptx_line(nvrtc, program, quote, arena, err);
    return KT_ECOMPILE;
}

static int ask_to_stop(void *payload, void *reserved) {
    (void)reserved;
    volatile int *stop = payload;
    return *stop != 0 ? 1 : 0;
}

static nvrtc_program create(
    kt_nvrtc *nvrtc, const kt_nvrtc_source *source, kt_arena *arena, int *code) {
    int n = 0;
    while (source->headers != NULL && source->headers[n].name != NULL) n++;
    const char **texts = kt_arena_array(arena, (size_t)n + 1, sizeof *texts);
    const char **names = kt_arena_array(arena, (size_t)n + 1, sizeof *names);
    for (int i = 0; i < n; i++) {
        texts[i] = source->headers[i].text;
        names[i] = source->headers[i].name;
    }
    nvrtc_program program = NULL;
    *code = nvrtc->nvrtcCreateProgram(
        &program, kt_str_z(arena, source->text), source->name, n, texts, names);
    return *code == 0 ? program : NULL;
}

// The given options, then those that only concern this compiler.
static const char **all_options(
    const kt_nvrtc *nvrtc, const kt_nvrtc_source *source, kt_arena *arena, int *n) {
    size_t n_extra = sizeof extra_options / sizeof extra_options[0];
    const char **options =
        kt_arena_array(arena, (size_t)source->n_options + n_extra, sizeof *options);
    *n = 0;
    for (int i = 0; i < source->n_options; i++) options[(*n)++] = source->options[i];
    for (size_t i = 0; i < n_extra; i++)
        if (at_least(&nvrtc->id, extra_options[i].major, extra_options[i].minor))
            options[(*n)++] = extra_options[i].text;
    return options;
}

kt_status kt_nvrtc_compile(kt_nvrtc *nvrtc, const kt_nvrtc_source *source, kt_arena *arena,
    kt_nvrtc_output *out, kt_err *err) {
    *out = (kt_nvrtc_output){KT_STR(""), KT_STR(""), 0};
    if (source->n_options > MAX_OPTIONS)
        return KT_FAIL(
            err, KT_ECOMPILE, "'%s' has more than %d options", source->name, MAX_OPTIONS);
    double start = kt_os_now_ms();
    int code = 0, n = 0;
    nvrtc_program program = create(nvrtc, source, arena, &code);
    if (program == NULL)
        return KT_FAIL(err, KT_ECOMPILE, "'%s' cannot be given to NVRTC: %s", source->name,
            nvrtc->nvrtcGetErrorString(code));
    if (nvrtc->nvrtcSetFlowCallback != NULL && source->stop != NULL) {
        union {
            volatile int *flag;
            void *payload;
        } stop = {.flag = source->stop};
        (void)nvrtc->nvrtcSetFlowCallback(program, ask_to_stop, stop.payload);
    }
    const char **options = all_options(nvrtc, source, arena, &n);
    code = nvrtc->nvrtcCompileProgram(program, n, options);
    int log_code = get_text(
        arena, program, nvrtc->nvrtcGetProgramLogSize, nvrtc->nvrtcGetProgramLog, &out->log);
    if (out->log.n > 0 && out->log.at[out->log.n - 1] == 0) out->log.n--; // the size has the 0
    kt_status status = KT_OK;
    if (code != 0) {
        status = explain(nvrtc, program, code, source, out, arena, err);
    } else {
        code =
            get_text(arena, program, nvrtc->nvrtcGetCUBINSize, nvrtc->nvrtcGetCUBIN, &out->cubin);
        if (code == 0) code = log_code; // a kernel whose spills nobody knows is not kept
        if (code != 0 || out->cubin.n == 0)
            status = KT_FAIL(err, KT_ECOMPILE, "NVRTC gave no code or no log for '%s': %s",
                source->name, nvrtc->nvrtcGetErrorString(code));
    }
    (void)nvrtc->nvrtcDestroyProgram(&program);
    out->ms = kt_os_now_ms() - start;
    return status;
}
