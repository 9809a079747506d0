// A launch from its checks to its end: its blocks one after another, again in other orders if asked
// for; what is wrong with it; signals that its kernel raises.
#include "tests/emu/core/core.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { SECONDS = 30, TICKS = 10 }; // of a block, if emu_options has none; in a second
enum { SIGNAL_STACK_BYTES = 64 << 10, MAX_EPOCH = (1 << 30) - (1 << 26) };

static emu_options options;
static uint64_t n_launches;

// The first failure.
static struct {
    bool is_set;
    char text[768];
    const void *pc; // in the kernel, NULL: not known
    emu_dim3 block, thread;
    bool has_thread;
} failure;

bool emu_failed(void) {
    return failure.is_set;
}

// ---- words

void emu_describe_thread(uint32_t index, char out[48]) {
    const emu_dim3 t = emu.fibres[index].thread;
    (void)snprintf(out, 48, "thread (%u, %u, %u)", (unsigned)t.x, (unsigned)t.y, (unsigned)t.z);
}

// Of a line that addr2line printed: "/x/matmul.cuh:12 (discriminator 3)" to "matmul.cuh:12".
static bool take_place(char *line, char out[160]) {
    static const char *const own[] = {"machine.cuh:", "mma.cuh:", "module.h:", "??:"};
    char *slash = strrchr(line, '/'), *name = slash != NULL ? slash + 1 : line;
    name[strcspn(name, " \n")] = 0;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (strncmp(name, own[i], strlen(own[i])) == 0) return false;
    (void)snprintf(out, 160, "%.150s", name);
    return out[0] != 0;
}

// A file that a child can open, with the module in it; -1: none.
static int module_file(void) {
    int file = emu.launch->file == NULL ? -1 : memfd_create("emu-place", 0);
    if (file < 0) return -1;
    const char *bytes = emu.launch->file;
    for (size_t done = 0; done < emu.launch->file_bytes;) {
        ssize_t n = write(file, bytes + done, emu.launch->file_bytes - done);
        if (n <= 0) break;
        done += (size_t)n;
    }
    return file;
}

// By binutils' addr2line; functions of machine.cuh count as their callers.
const char *emu_place_of(const void *pc) {
    static char out[160];
    out[0] = 0;
    Dl_info info;
    if (pc == NULL || dladdr(pc, &info) == 0 || info.dli_fname == NULL) return out;
    char command[4200], line[512];
    unsigned long at = (unsigned long)((uintptr_t)pc - (uintptr_t)info.dli_fbase) - 1;
    int file = module_file();
    if (file >= 0)
        (void)snprintf(command, sizeof command, "addr2line -i -e /proc/%ld/fd/%d 0x%lx 2>/dev/null",
            (long)getpid(), file, at);
    else
        (void)snprintf(
            command, sizeof command, "addr2line -i -e '%s' 0x%lx 2>/dev/null", info.dli_fname, at);
    FILE *from = popen(command, "r");
    bool found = false;
    while (from != NULL && fgets(line, sizeof line, from) != NULL)
        if (!found) found = take_place(line, out);
    if (from != NULL) (void)pclose(from);
    if (file >= 0) (void)close(file);
    return out;
}

static void note(const void *pc, const char *format, va_list values) {
    if (failure.is_set) return;
    failure.is_set = true;
    failure.pc = pc;
    failure.block = emu.state.block;
    failure.thread = emu.state.thread;
    failure.has_thread = emu.fibre != NULL;
    (void)vsnprintf(failure.text, sizeof failure.text, format, values);
}

void emu_note_failure(const char *format, ...) {
    va_list values;
    va_start(values, format);
    note(NULL, format, values);
    va_end(values);
}

void emu_fail(const char *format, ...) {
    va_list values;
    va_start(values, format);
    note(NULL, format, values);
    va_end(values);
    emu_stop();
}

void emu_fail_at(const void *pc, const char *format, ...) {
    va_list values;
    va_start(values, format);
    note(pc, format, values);
    va_end(values);
    emu_stop();
}

static const char *whole_message(void) {
    static char text[1200];
    const emu_dim3 b = failure.block, t = failure.thread;
    char thread[64] = "";
    if (failure.has_thread)
        (void)snprintf(thread, sizeof thread, ", thread (%u, %u, %u)", (unsigned)t.x, (unsigned)t.y,
            (unsigned)t.z);
    const char *place = emu_place_of(failure.pc);
    (void)snprintf(text, sizeof text, "%s, block (%u, %u, %u)%s%s%s: %s", emu.launch->kernel->name,
        (unsigned)b.x, (unsigned)b.y, (unsigned)b.z, thread, place[0] != 0 ? ", " : "", place,
        failure.text);
    return text;
}

// ---- signals

static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
enum { N_CAUGHT = sizeof caught / sizeof caught[0] };
static struct sigaction before[N_CAUGHT];
static stack_t stack_before;
static pthread_t runner; // the host's thread that runs the launch

static void on_signal(int number, siginfo_t *info, void *context) {
    // Not the kernel's fault, but of another thread, or our own: as if nobody had caught it.
    if (emu.fibre == NULL || !pthread_equal(pthread_self(), runner)) {
        for (int i = 0; i < N_CAUGHT; i++) sigaction(caught[i], &before[i], NULL);
        return;
    }
    const ucontext_t *at = context;
    const void *pc = emu_pointer((uintptr_t)at->uc_mcontext.gregs[REG_RIP] + 1);
    uintptr_t address = (uintptr_t)info->si_addr;
    if (number == SIGFPE) emu_fail_at(pc, "divides an integer by 0");
    if (number == SIGILL) emu_fail_at(pc, "reaches code that cannot be (SIGILL)");
    if (address < emu.stack && emu.stack - address <= EMU_STACK_BYTES)
        emu_fail_at(pc, "needs more than the %d bytes of stack a thread has", EMU_STACK_BYTES);
    if (number == SIGSEGV && info->si_code == SI_KERNEL)
        emu_fail_at(pc, "touches an address that is misaligned for a vector, or no address at all");
    char why[200];
    emu_map_explain(address, 1, why);
    emu_fail_at(pc, "touches %p: %s", info->si_addr, why);
}

// ---- kernels that do not end

static timer_t timer;
static bool has_timer;
static int ticks;            // since a block ended
static uint64_t blocks_then; // that had ended at the last tick

static int seconds(void) {
    return options.seconds > 0 ? options.seconds : SECONDS;
}

static bool is_in_module(uintptr_t pc) {
    struct dl_find_object found;
    return _dl_find_object(emu_pointer((uintptr_t)emu.launch->kernel->call), &found) == 0 &&
           pc >= (uintptr_t)found.dlfo_map_start && pc < (uintptr_t)found.dlfo_map_end;
}

// Stops a thread in the kernel's own code alone, as the emulator's cannot be left anywhere: else a
// later tick does, soon.
static void on_tick(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)info;
    const ucontext_t *at = context;
    uintptr_t pc = (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
    if (emu.counts.blocks != blocks_then) ticks = 0;
    blocks_then = emu.counts.blocks;
    if (++ticks <= seconds() * TICKS) return;
    const struct itimerspec soon = {{0, 1000000}, {0, 1000000}};
    (void)timer_settime(timer, 0, &soon, NULL);
    if (emu.fibre == NULL || !is_in_module(pc)) return;
    emu_fail_at(emu_pointer(pc + 1),
        "its block has run for %d seconds: a loop that never ends? (KOTARO_EMU_SECONDS)",
        seconds());
}

// Of this thread's own time, so that a busy machine makes no difference.
static void start_timer(void) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGXCPU};
    event._sigev_un._tid = gettid();
    const struct itimerspec each = {{0, 1000000000 / TICKS}, {0, 1000000000 / TICKS}};
    ticks = 0;
    has_timer = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0;
    if (has_timer) (void)timer_settime(timer, 0, &each, NULL);
}

static struct sigaction xcpu_before;

static void stop_timer(void) {
    if (has_timer) (void)timer_delete(timer);
    has_timer = false;
    sigaction(SIGXCPU, &xcpu_before, NULL);
}

static void catch_signals(void) {
    static unsigned char stack[SIGNAL_STACK_BYTES];
    runner = pthread_self();
    stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&own, &stack_before);
    struct sigaction action = {
        .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    for (int i = 0; i < N_CAUGHT; i++) sigaction(caught[i], &action, &before[i]);
    action.sa_sigaction = on_tick;
    action.sa_flags |= SA_RESTART;
    sigaction(SIGXCPU, &action, &xcpu_before);
    start_timer();
}

static void release_signals(void) {
    stop_timer();
    for (int i = 0; i < N_CAUGHT; i++) sigaction(caught[i], &before[i], NULL);
    stack_before.ss_flags &= ~SS_ONSTACK;
    sigaltstack(&stack_before, NULL);
}

// ---- runs

static uint64_t mix(uint64_t v) {
    v = (v ^ v >> 33) * UINT64_C(0xff51afd7ed558ccd);
    return v ^ v >> 33;
}

static void run_once(int run) {
    const emu_launch *launch = emu.launch;
    const emu_dim3 grid = launch->grid;
    uint64_t seed = options.seed == 0 ? 0 : mix(options.seed * 0x9e3779b97f4a7c15 + n_launches);
    uint64_t n = (uint64_t)grid.x * grid.y * grid.z;
    emu_sched_open(seed, run);
    emu_race_launch();
    emu.launch_epoch = emu.epoch + 1;
    for (uint64_t i = 0; i < n && !failure.is_set; i++) {
        uint64_t at = emu_block_at(i, n);
        emu.block_epoch = ++emu.epoch;
        emu.state.block = (emu_dim3){(uint32_t)(at % grid.x), (uint32_t)(at / grid.x % grid.y),
            (uint32_t)(at / grid.x / grid.y)};
        emu_shared_block();
        emu_block_run();
        if (!failure.is_set) emu_shared_block_close();
        emu.counts.blocks++;
    }
}

static void run_all(void) {
    int runs = emu.checked && options.orders > 1 ? options.orders : 1;
    emu.undo_epoch = emu.epoch + 1;
    if (runs > 1) emu_undo_open();
    run_once(0);
    for (int run = 1; run < runs && !failure.is_set; run++) {
        char why[256];
        emu_undo_take_back(run == 1);
        run_once(run);
        if (!failure.is_set && !emu_undo_same(why)) emu_note_failure("%s", why);
    }
    if (runs > 1) emu_undo_close();
}

static bool is_possible(const emu_launch *launch, const char **why) {
    static char text[256];
    const emu_dim3 b = launch->block, g = launch->grid;
    *why = text;
    if (b.x > EMU_MAX_THREADS || b.y > EMU_MAX_THREADS || b.z > EMU_MAX_THREADS ||
        (uint64_t)b.x * b.y * b.z > EMU_MAX_THREADS || b.x == 0 || b.y == 0 || b.z == 0 ||
        g.x == 0 || g.y == 0 || g.z == 0) {
        (void)snprintf(text, sizeof text, "%s: a launch of (%u, %u, %u) blocks of (%u, %u, %u)",
            launch->kernel->name, (unsigned)g.x, (unsigned)g.y, (unsigned)g.z, (unsigned)b.x,
            (unsigned)b.y, (unsigned)b.z);
        return false;
    }
    if (launch->shared_bytes > launch->shared_limit || launch->shared_limit > EMU_MAX_SHARED) {
        (void)snprintf(text, sizeof text, "%s: %u bytes of shared memory where %u are the most",
            launch->kernel->name, (unsigned)launch->shared_bytes,
            (unsigned)(launch->shared_limit > EMU_MAX_SHARED ? EMU_MAX_SHARED
                                                             : launch->shared_limit));
        return false;
    }
    *why = NULL;
    return true;
}

void emu_configure(const emu_options *wanted) {
    options = *wanted;
}

bool emu_run(const emu_launch *launch, const char **why) {
    if (!is_possible(launch, why)) return false;
    if (emu.epoch > MAX_EPOCH) { // stamps begin again
        emu_map_forget_stamps();
        emu_race_forget_shared();
        emu_race_forget_launches();
        emu.epoch = 0;
    }
    failure.is_set = false;
    emu.launch = launch;
    emu.checked = launch->module->checked;
    emu.state.block_dim = launch->block;
    emu.state.grid_dim = launch->grid;
    *launch->module->state = &emu.state;
    emu_shared_open();
    n_launches++;
    const uint32_t first_epoch = emu.epoch + 1;
    emu.counts.launches++;
    catch_signals();
    emu_map_poison();
    emu.running = true;
    run_all();
    emu.running = false;
    emu_map_unpoison();
    release_signals();
    emu_race_launched(n_launches, first_epoch, emu.epoch, launch->kernel->name);
    if (failure.is_set) *why = whole_message();
    emu.launch = NULL;
    return !failure.is_set;
}

uint64_t emu_last_launch(void) {
    return n_launches;
}

emu_counts emu_get_counts(void) {
    return emu.counts;
}
