// Violations, leaks, and the report at the end.
#include "tests/emu/driver/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_LINES = 40 };
static char complaint[1024];
static int n_lines;

static void tell(const char *what, const char *format, va_list args) {
    int n = snprintf(complaint, sizeof complaint, "%s: ", what);
    (void)vsnprintf(complaint + n, sizeof complaint - (size_t)n, format, args);
    if (n_lines < MOST_LINES) (void)fprintf(stderr, "emu: %s\n", complaint);
    if (++n_lines == MOST_LINES) (void)fprintf(stderr, "emu: and so on\n");
}

void drv_violation(const char *format, ...) {
    va_list args;
    va_start(args, format);
    drv.counts.violations++;
    tell(drv_call_name, format, args);
    va_end(args);
}

void drv_leak(const char *format, ...) {
    va_list args;
    va_start(args, format);
    drv.counts.leaks++;
    tell("never released", format, args);
    va_end(args);
}

// ---- what is alive

static void count_one(void *handle, void *object, void *ctx) {
    (void)handle;
    (void)object;
    ++*(uint64_t *)ctx;
}

static const drv_kind owned[] = {
    DRV_STREAM, DRV_EVENT, DRV_LIBRARY, DRV_GRAPH, DRV_EXEC, DRV_GREEN};

static uint64_t count_alive(void) {
    uint64_t n = drv.primary != NULL ? (uint64_t)drv.primary->refs : 0;
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        drv_handle_each(owned[i], count_one, &n);
    return n + drv_memory_count();
}

static void leak_one(void *handle, void *object, void *ctx) {
    (void)object;
    drv_leak("%s %p", (const char *)ctx, handle);
}

static void list_leaks(void) {
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s", drv_kind_names[owned[i]]);
        drv_handle_each(owned[i], leak_one, name);
    }
    drv_memory_leaks();
    if (drv.primary != NULL) drv_leak("the primary context (%d times retained)", drv.primary->refs);
}

// ---- for test programs

#define EXPORT __attribute__((visibility("default")))

EXPORT void emu_driver_get_counts(emu_driver_counts *out) {
    (void)pthread_mutex_lock(&drv.lock);
    *out = drv.counts;
    out->alive = count_alive();
    (void)pthread_mutex_unlock(&drv.lock);
}

EXPORT uint64_t emu_driver_calls(const char *name) {
    for (int i = 0; i < DRV_N_CALLS; i++)
        if (strcmp(name, drv_call_names[i]) == 0) return drv.calls[i];
    return 0;
}

EXPORT const char *emu_driver_complaint(void) {
    return complaint;
}

EXPORT void emu_driver_forgive(void) {
    drv.counts.violations = drv.counts.leaks = 0;
    complaint[0] = 0;
    n_lines = 0;
}

EXPORT void emu_driver_lazy(bool lazy) {
    (void)pthread_mutex_lock(&drv.lock);
    drv.quiet_host = lazy;
    drv_device_wake();
    (void)pthread_mutex_unlock(&drv.lock);
}

// ---- at the end

static void write_report(FILE *out) {
    const emu_driver_counts *c = &drv.counts;
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"calls", c->calls},
        {"calls_that_can_fail", drv.calls_that_can_fail},
        {"allocations", drv.allocations},
        {"kernel_launches", c->kernel_launches},
        {"graph_launches", c->graph_launches},
        {"copies", c->copies},
        {"fills", c->fills},
        {"kernels_run", c->kernels_run},
        {"steps", c->steps},
        {"kernel_launches_between_steps", c->kernel_launches_between_steps},
        {"graph_changes_between_steps", c->graph_changes_between_steps},
        {"steps_submitted_ahead", c->steps_submitted_ahead},
        {"device_bytes_most", c->device_bytes_most},
        {"failures_fired", c->failures_fired},
        {"lost", (uint64_t)drv.sticky},
        {"leaks", c->leaks},
        {"violations", c->violations},
    };
    emu_counts core = emu_get_counts();
    if (drv.fired != NULL) (void)fprintf(out, "fired %s\n", drv.fired);
    (void)fprintf(out, "process %d %s\n", drv.pid, program_invocation_short_name);
    for (int i = 0; i < DRV_N_CALLS; i++)
        if (drv.calls[i] > 0)
            (void)fprintf(out, "calls.%s %" PRIu64 "\n", drv_call_names[i], drv.calls[i]);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        (void)fprintf(out, "%s %" PRIu64 "\n", rows[i].name, rows[i].value);
    (void)fprintf(out, "blocks %" PRIu64 "\nswitches %" PRIu64 "\nraces_checked %" PRIu64 "\n",
        core.blocks, core.switches, core.races_checked);
}

// One write, so that processes that end together do not mix their lines.
static void append_report(const char *path) {
    char *text = NULL;
    size_t n = 0;
    FILE *memory = open_memstream(&text, &n), *file = fopen(path, "a");
    if (memory != NULL) {
        write_report(memory);
        (void)fclose(memory);
    }
    if (file == NULL || text == NULL || fwrite(text, 1, n, file) != n)
        (void)fprintf(stderr, "emu: cannot write the report '%s'\n", path);
    if (file != NULL) (void)fclose(file);
    free(text);
}

void drv_report_at_exit(void) {
    if ((int)getpid() != drv.pid) return; // a fork that did not exec
    drv_device_stop();
    (void)pthread_mutex_lock(&drv.lock);
    drv_call_name = "exit";
    list_leaks();
    const char *path = getenv("KOTARO_EMU_REPORT");
    if (path != NULL && *path != 0) append_report(path);
    bool bad = drv.counts.leaks + drv.counts.violations > 0 && getenv("KOTARO_EMU_STRICT") != NULL;
    (void)pthread_mutex_unlock(&drv.lock);
    if (!bad) return;
    (void)fprintf(stderr, "emu: %" PRIu64 " leaks, %" PRIu64 " violations\n", drv.counts.leaks,
        drv.counts.violations);
    (void)fflush(NULL);
    _exit(EMU_STRICT_EXIT);
}
