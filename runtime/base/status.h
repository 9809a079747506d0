// Status codes and error values: how a function says that it failed, and why.
//
// A function that can fail returns kt_status and takes `kt_err *err` last. The place that finds the
// failure writes the message with KT_FAIL; callers may add a line with kt_err_note. A kt_err has a
// fixed size, belongs to the caller and never allocates. Mistakes in user-written YAML go to
// kt_diag (loader/diag.h) instead, which collects many. Any thread; one kt_err per thread.
#ifndef KT_BASE_STATUS_H
#define KT_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>

#if defined(__GNUC__)
#ifdef __MINGW32__
#define KT_PRINTF(fmt, args) __attribute__((format(gnu_printf, fmt, args)))
#else
#define KT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#endif
#define KT_MUST_CHECK __attribute__((warn_unused_result))
#define KT_NORETURN   __attribute__((noreturn))
#else
#define KT_PRINTF(fmt, args)
#define KT_MUST_CHECK
#define KT_NORETURN
#endif

// code, name in JSON, exit code of the program, default text
#define KT_STATUS_LIST(X)                                                                          \
    X(OK, "ok", 0, "ok")                                                                           \
    X(EUSAGE, "usage", 2, "wrong use of the command")                                              \
    X(EFILE, "file", 2, "a file cannot be read or written")                                        \
    X(EFORMAT, "format", 2, "a file does not hold what its format says")                           \
    X(EYAML, "yaml", 2, "a pipeline, op or model file has mistakes")                               \
    X(EMODEL, "model", 2, "the model folder does not fit the pipeline")                            \
    X(ECOMPILE, "compile", 2, "an op does not compile")                                            \
    X(EOP, "op", 2, "an op cannot be used")                                                        \
    X(EIMAGE, "image", 1, "a picture cannot be used")                                              \
    X(EPROMPT, "prompt", 1, "a prompt cannot be used")                                             \
    X(EDRIVER, "driver", 3, "the GPU or its driver cannot be used")                                \
    X(EGPU, "gpu", 3, "the GPU reported an error")                                                 \
    X(EMEMORY, "memory", 4, "it does not fit in memory")                                           \
    X(EINTERRUPTED, "interrupted", 130, "interrupted")

typedef enum kt_status {
#define KT_STATUS_ENUM(code, name, exit, text) KT_##code,
    KT_STATUS_LIST(KT_STATUS_ENUM)
#undef KT_STATUS_ENUM
        KT_STATUS_COUNT
} kt_status;

enum { KT_ERR_TEXT = 4096 };

// An error: its code and its message (first line the problem, further lines notes).
typedef struct kt_err {
    kt_status code;
    char text[KT_ERR_TEXT];
} kt_err;

const char *kt_status_name(kt_status code); // "image", as in JSON output
const char *kt_status_text(kt_status code);
int kt_status_exit(kt_status code); // exit code of the program

// Writes code and message, replacing what was there. Returns code.
kt_status kt_err_set(kt_err *err, kt_status code, const char *fmt, ...) KT_PRINTF(3, 4);
kt_status kt_err_setv(kt_err *err, kt_status code, const char *fmt, va_list args) KT_PRINTF(3, 0);
// Adds one line of context: "\nnote: ...". Silently cut when full.
void kt_err_note(kt_err *err, const char *fmt, ...) KT_PRINTF(2, 3);

#define KT_FAIL(err, code, ...) kt_err_set((err), (code), __VA_ARGS__)

// Returns early with the status of expr; only where nothing needs releasing.
#define KT_TRY(expr)                                                                               \
    do {                                                                                           \
        kt_status kt_try_status = (expr);                                                          \
        if (kt_try_status != KT_OK) return kt_try_status;                                          \
    } while (0)

// A broken invariant: a bug in Kotaro, never a user's mistake. On in every build.
#define KT_ASSERT(cond) ((cond) ? (void)0 : kt_assert_failed(#cond, __FILE__, __LINE__))
void kt_assert_failed(const char *cond, const char *file, int line) KT_NORETURN;

#endif
