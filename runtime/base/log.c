#include "runtime/base/log.h"

#include "runtime/base/os.h"

#include <stdatomic.h>
#include <stdio.h>

enum { LINE_BYTES = 8192 };

static atomic_int log_level = KT_LOG_INFO;
static atomic_bool progress_shown;

void kt_log_set_level(kt_log_level level) {
    atomic_store(&log_level, (int)level);
}

kt_log_level kt_log_get_level(void) {
    return (kt_log_level)atomic_load(&log_level);
}

static void clear_progress(void) {
    if (atomic_exchange(&progress_shown, false)) fputs("\r\033[K", stderr);
}

// One write per message, so that lines of several threads do not mix.
static void put_line(const char *lead, const char *fmt, va_list args) KT_PRINTF(2, 0);
static void put_line(const char *lead, const char *fmt, va_list args) {
    char line[LINE_BYTES];
    size_t at = (size_t)snprintf(line, sizeof line, "%s", lead);
    int n = vsnprintf(line + at, sizeof line - at - 1, fmt, args);
    size_t end = n < 0 ? at : at + (size_t)n;
    if (end > sizeof line - 2) end = sizeof line - 2;
    line[end] = '\n';
    fflush(stdout);
    clear_progress();
    fwrite(line, 1, end + 1, stderr);
    fflush(stderr);
}

static void put_text(const char *lead, const char *fmt, ...) KT_PRINTF(2, 3);
static void put_text(const char *lead, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    put_line(lead, fmt, args);
    va_end(args);
}

void kt_log_error(const kt_err *err) {
    put_text("kotaro: error: ", "%s", err->text[0] == 0 ? kt_status_text(err->code) : err->text);
}

void kt_log_warn(const char *fmt, ...) {
    if (kt_log_get_level() < KT_LOG_WARN) return;
    va_list args;
    va_start(args, fmt);
    put_line("kotaro: warning: ", fmt, args);
    va_end(args);
}

void kt_log_info(const char *fmt, ...) {
    if (kt_log_get_level() < KT_LOG_INFO) return;
    va_list args;
    va_start(args, fmt);
    put_line("kotaro: ", fmt, args);
    va_end(args);
}

void kt_log_debug(const char *fmt, ...) {
    if (kt_log_get_level() < KT_LOG_DEBUG) return;
    va_list args;
    va_start(args, fmt);
    put_line("kotaro: debug: ", fmt, args);
    va_end(args);
}

// The prefix of s that fits in `columns` code points, in bytes.
static size_t fit(const char *s, size_t n, int columns) {
    int used = 0;
    for (size_t i = 0; i < n; i++) {
        if (((unsigned char)s[i] & 0xc0U) == 0x80U) continue;
        if (used == columns) return i;
        used++;
    }
    return n;
}

void kt_log_progress(const char *fmt, ...) {
    if (kt_log_get_level() < KT_LOG_INFO || !kt_os_is_terminal(stderr)) return;
    if (fmt == NULL) {
        clear_progress();
        fflush(stderr);
        return;
    }
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n < 0) return;
    size_t end = (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    end = fit(line, end, kt_os_terminal_columns() - 1);
    fprintf(stderr, "\r%.*s\033[K", (int)end, line);
    fflush(stderr);
    atomic_store(&progress_shown, true);
}
