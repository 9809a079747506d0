// For the tests of the stand-in driver: cases that run in a process of their own each, because the
// stand-in reads its environment once and a lost device stays lost.
//
// The test program starts itself with the stand-ins in its environment and "--case NAME"; the case
// calls the driver's table directly. What it does wrong on purpose it forgives (emu_child_wrong),
// so that a process that ends well has no violation and no leak: KOTARO_EMU_STRICT sees to that.
#ifndef KT_TESTS_EMU_CHILD_H
#define KT_TESTS_EMU_CHILD_H

#include "runtime/gpu/driver.h"
#include "tests/emu/driver.h"

typedef struct emu_child_case {
    const char *name;
    void (*run)(void);          // returns, or ends the process
    const char *environment[4]; // "KOTARO_EMU_REPORT" alone: "report" in the tests' folder
    int exit_code;              // expected; EMU_CHILD_CRASH: by a signal or a sanitizer
    const char *say[3];         // texts that the process must print
} emu_child_case;

enum { EMU_CHILD_CRASH = -1 };

// The main of such a test program. cmocka's names of the cases are theirs.
int emu_child_main(int argc, char **argv, const char *group, const emu_child_case *cases, int n);

// ---- in a case

extern kt_driver *emu_d; // of emu_child_open or emu_child_driver

// What libcuda.so.1 exports for tests.
typedef struct emu_child_control {
    void (*get_counts)(emu_driver_counts *out);
    uint64_t (*calls)(const char *name);
    bool (*fail)(const char *failures);
    const char *(*complaint)(void);
    void (*forgive)(void);
    void (*lazy)(bool lazy);
} emu_child_control;
extern emu_child_control emu_ctl;

void emu_child_driver(void); // the driver alone
void emu_child_open(void);  // and the primary context of device 0, current, nothing begun by itself
void emu_child_close(void); // releases that context
uint64_t emu_child_count(size_t field); // of emu_driver_counts: EMU_COUNT(leaks)
#define EMU_COUNT(field) emu_child_count(offsetof(emu_driver_counts, field))

// Ends the process with a message.
void emu_child_stop(const char *file, int line, const char *fmt, ...) KT_PRINTF(3, 4);
void emu_child_code(const char *file, int line, const char *what, int got, int want);
// A call that must fail with `want` and a complaint that has `text` in it.
void emu_child_wrong(const char *file, int line, int got, int want, const char *text);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) emu_child_stop(__FILE__, __LINE__, "%s", #cond);                              \
    } while (0)
#define CODE(call, want)        emu_child_code(__FILE__, __LINE__, #call, (call), (want))
#define GOOD(call)              CODE(call, 0)
#define WRONG(call, want, text) emu_child_wrong(__FILE__, __LINE__, (call), (want), (text))

// ---- kernels

// Of one module, by name: kt_fill(p, n, v): p[i] = v; kt_times(p, v): p[0] *= v; kt_plus(p, v):
// p[0] += v; kt_copy(to, from, n); kt_small(p): __launch_bounds__(64); kt_wild(): writes nowhere;
// kt_shared_dynamic(p, n): n ints of dynamic shared memory.
kt_cu_library emu_child_library(int sm);
kt_cu_kernel emu_child_kernel(kt_cu_library library, const char *name);
kt_cu_function emu_child_function(kt_cu_library library, const char *name);
// The image itself, which is freed at the end of the process; from a cache of that name in the
// tests' folder, NULL: one for each mode.
const void *emu_child_image(int sm, const char *cache);
int emu_child_launch(
    kt_cu_stream stream, kt_cu_function function, unsigned blocks, unsigned threads, void **params);

#endif
