// Fibres, one for each thread of a block, on one thread of the host: each runs until it waits for
// others, then hands over to another lane of its warp, and when none can go on, back to the loop of
// emu_block_run, which takes another warp.
//
// Orders are drawn from the seed, the launch's number and the number of the run: lanes, warps and
// blocks forward, backward or shuffled; warps as far as they go, or interrupted at collectives. The
// seed 0 has everything forward.
#include "tests/emu/core/core.h"
#include "tests/emu/core/sanitizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GUARD_BYTES = 16 << 10, PAGE = 4096 };
typedef enum policy { FORWARD, BACKWARD, SHUFFLED, N_POLICIES } policy;

__extension__ typedef unsigned __int128 wide;

emu_now emu;

static emu_fibre fibres[EMU_MAX_THREADS];
static emu_warp warps[EMU_MAX_THREADS / EMU_WARP];
static void *loop_top; // of the loop's stack while a fibre runs
static uint32_t n_exited, n_at_barrier;
static emu_fibre *first_at_barrier;

static uint64_t random_state;
static policy lane_policy, warp_policy, block_policy;
static bool interrupts;
static uint32_t until_interrupt; // collectives
static uint64_t block_factor, block_offset;

// ---- AddressSanitizer, where it is

static const void *loop_stack; // its lowest byte
static size_t loop_stack_bytes;

// ---- switching

// Keeps the registers that a function must not change on the stack, `*top` being its end, and goes
// on where `to` was kept.
void emu_switch(void **top, void *to);
#if defined(__x86_64__)
__asm__(".text\n"
        ".hidden emu_switch\n"
        ".globl emu_switch\n"
        ".type emu_switch, @function\n"
        "emu_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size emu_switch, . - emu_switch\n");
enum { N_KEPT = 6 };
#else
#error "the emulator's fibres are written for x86-64"
#endif

static void enter(emu_fibre *to) {
    emu.fibre = to;
    emu.stack = (uintptr_t)to->stack;
    emu.state.thread = to->thread;
    emu_stamp_now();
    emu.counts.switches++;
}

static void tell_switch(const emu_fibre *to, void **fake) {
    if (to != NULL)
        emu_asan_switch(fake, to->stack, EMU_STACK_BYTES);
    else
        emu_asan_switch(fake, loop_stack, loop_stack_bytes);
}

// From a stack that `top` keeps to a fibre; NULL: the loop.
static void go(void **top, emu_fibre *to) {
    void *fake = NULL;
    if (emu_asan_switch != NULL) tell_switch(to, &fake);
    if (to != NULL) enter(to);
    emu_switch(top, to != NULL ? to->top : loop_top);
    if (emu_asan_switched != NULL) emu_asan_switched(fake, NULL, NULL);
}

// The lane that comes after a place of the order.
static emu_fibre *next_lane(const emu_warp *warp, uint32_t place) {
    uint32_t after = warp->ready & (uint32_t)(~UINT64_C(0) << (place + 1));
    return warp->order[__builtin_ctz(after != 0 ? after : warp->ready)];
}

// The running fibre cannot go on.
static void leave(emu_fibre *me) {
    emu_warp *warp = me->warp;
    go(&me->top, warp->ready != 0 ? next_lane(warp, me->place) : NULL);
}

static void wait_for(emu_fibre *me, emu_wait what, const char *file, int line) {
    me->wait = what;
    me->file = file;
    me->line = line;
    me->warp->ready &= ~(1u << me->place);
}

void emu_stop(void) {
    void *left;
    go(&left, NULL);
    __builtin_unreachable();
}

// Where a fibre begins.
static void begin(void) {
    if (emu_asan_switched != NULL) emu_asan_switched(NULL, &loop_stack, &loop_stack_bytes);
    emu.launch->kernel->call(emu.launch->params);
    emu_fibre *me = emu.fibre;
    emu_copies_check_exit(me);
    wait_for(me, EMU_EXITED, NULL, 0);
    n_exited++;
    leave(me);
    __builtin_unreachable();
}

// ---- meeting

static bool same_place(const char *file, int line, const char *other_file, int other_line) {
    return line == other_line && (file == other_file || strcmp(file, other_file) == 0);
}

static const char *base_name(const char *file) {
    const char *slash = strrchr(file, '/');
    return slash != NULL ? slash + 1 : file;
}

void emu_sync(const char *file, int line) {
    emu_fibre *me = emu.fibre;
    wait_for(me, EMU_AT_BARRIER, file, line);
    if (n_at_barrier++ == 0) first_at_barrier = me;
    const emu_fibre *first = first_at_barrier;
    if (!same_place(file, line, first->file, first->line)) {
        char other[48];
        emu_describe_thread(first->index, other);
        emu_fail("threads wait at different barriers: at %s:%d, and %s at %s:%d", base_name(file),
            line, other, base_name(first->file), first->line);
    }
    leave(me);
}

bool emu_collect(const char *what, const char *file, int line) {
    emu_fibre *me = emu.fibre;
    emu_warp *warp = me->warp;
    if (warp->n_waiting == 0) {
        warp->what = what;
        warp->file = file;
        warp->line = line;
    } else if (warp->what != what || !same_place(file, line, warp->file, warp->line)) {
        emu_fail("lanes of a warp diverge: %s at %s:%d, while others are at %s at %s:%d", what,
            base_name(file), line, warp->what, base_name(warp->file), warp->line);
    }
    if (++warp->n_waiting == EMU_WARP) return true;
    wait_for(me, EMU_AT_COLLECTIVE, file, line);
    leave(me);
    return false;
}

static uint64_t draw(void) { // splitmix64
    uint64_t v = random_state += UINT64_C(0x9e3779b97f4a7c15);
    v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
    return v ^ v >> 31;
}

void emu_collected(void) {
    emu_fibre *me = emu.fibre;
    emu_warp *warp = me->warp;
    warp->n_waiting = 0;
    warp->ready = ~0u; // 32 lanes were here
    if (!interrupts || --until_interrupt > 0) return;
    until_interrupt = 1 + (uint32_t)(draw() % 64);
    go(&me->top, NULL);
}

// ---- the loop

static void shuffle(uint32_t *order, uint32_t n, policy how) {
    for (uint32_t i = 0; i < n; i++) order[i] = how == BACKWARD ? n - 1 - i : i;
    for (uint32_t i = n; how == SHUFFLED && i > 1; i--) {
        uint32_t j = (uint32_t)(draw() % i), kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

// Stacks end at different places in their pages: or the lanes of a warp, which do the same, would
// all need the same few lines of the host's cache.
static void prepare(emu_fibre *fibre) {
    unsigned char *end = fibre->stack + EMU_STACK_BYTES - (fibre->index * 1088 & (PAGE - 1));
    uintptr_t *top = (uintptr_t *)(void *)end;
    *--top = 0; // begin's return address; it is entered with a stack of 16 n + 8
    *--top = (uintptr_t)begin;
    for (int i = 0; i < N_KEPT; i++) *--top = 0;
    fibre->top = top;
    fibre->wait = EMU_READY;
    fibre->sub = 0;
    fibre->fence = 0;
    emu_copies_clear(fibre);
    if (emu_asan_unpoison != NULL) emu_asan_unpoison(fibre->stack, EMU_STACK_BYTES);
}

static void prepare_block(void) {
    n_exited = n_at_barrier = 0;
    for (uint32_t i = 0; i < emu.n_warps; i++) {
        emu_warp *warp = &warps[i];
        uint32_t order[EMU_WARP] = {0};
        warp->n = emu.n_threads - i * EMU_WARP < EMU_WARP ? emu.n_threads - i * EMU_WARP : EMU_WARP;
        shuffle(order, warp->n, lane_policy);
        for (uint32_t j = 0; j < warp->n; j++) {
            emu_fibre *fibre = &fibres[i * EMU_WARP + order[j]];
            prepare(fibre);
            fibre->warp = warp;
            fibre->place = j;
            warp->order[j] = fibre;
        }
        warp->ready = warp->n == EMU_WARP ? ~0u : (1u << warp->n) - 1;
        warp->n_waiting = 0;
        warp->base = 0;
    }
}

// A warp that cannot go on, with lanes in a collective.
static void note_divergence(emu_warp *warp) {
    emu_fibre *waits = warp->order[0], *other = NULL;
    for (uint32_t i = 0; i < warp->n; i++) {
        if (warp->order[i]->wait == EMU_AT_COLLECTIVE) waits = warp->order[i];
        if (warp->order[i]->wait != EMU_AT_COLLECTIVE) other = warp->order[i];
    }
    char why[128], name[48];
    if (other != NULL) emu_describe_thread(other->index, name);
    if (other == NULL)
        (void)snprintf(why, sizeof why, "its warp has %u", (unsigned)warp->n);
    else if (other->wait == EMU_EXITED)
        (void)snprintf(why, sizeof why, "%s has ended", name);
    else
        (void)snprintf(why, sizeof why, "%s waits at the barrier %s:%d", name,
            base_name(other->file), other->line);
    enter(waits);
    emu_note_failure("waits for all 32 lanes in %s at %s:%d, but %s", warp->what,
        base_name(warp->file), warp->line, why);
}

// All threads wait at the barrier or have ended, which some may not.
static void open_barrier(void) {
    if (n_exited > 0) {
        uint32_t i = 0;
        while (fibres[i].wait != EMU_EXITED) i++;
        char name[48];
        emu_describe_thread(i, name);
        enter(first_at_barrier);
        emu_note_failure("waits at the barrier %s:%d, but %s has ended",
            base_name(first_at_barrier->file), first_at_barrier->line, name);
        return;
    }
    emu.epoch++; // later accesses have greater stamps, whatever their sub
    n_at_barrier = 0;
    for (uint32_t i = 0; i < emu.n_threads; i++) {
        fibres[i].wait = EMU_READY;
        fibres[i].sub = 0;
    }
    for (uint32_t i = 0; i < emu.n_warps; i++) {
        warps[i].ready = warps[i].n == EMU_WARP ? ~0u : (1u << warps[i].n) - 1;
        warps[i].base = 0;
    }
}

void emu_block_run(void) {
    prepare_block();
    uint32_t order[EMU_MAX_THREADS / EMU_WARP] = {0};
    shuffle(order, emu.n_warps, warp_policy);
    while (n_exited < emu.n_threads && !emu_failed()) {
        bool ran = false;
        for (uint32_t i = 0; i < emu.n_warps && !emu_failed(); i++) {
            emu_warp *warp = &warps[order[i]];
            if (warp->ready == 0) continue;
            ran = true;
            go(&loop_top, next_lane(warp, interrupts ? (uint32_t)(draw() % EMU_WARP) : 31));
            if (!emu_failed() && warp->ready == 0 && warp->n_waiting > 0) note_divergence(warp);
        }
        if (ran) continue;
        open_barrier();
        if (interrupts) shuffle(order, emu.n_warps, warp_policy);
    }
    emu.fibre = NULL;
}

// ---- a launch

static void make_stacks(uint32_t n) {
    static uint32_t n_made;
    for (; n_made < n; n_made++) {
        emu_fibre *fibre = &fibres[n_made];
        unsigned char *at = mmap(NULL, GUARD_BYTES + EMU_STACK_BYTES, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (at == MAP_FAILED || mprotect(at, GUARD_BYTES, PROT_NONE) != 0) {
            fprintf(stderr, "emu: no memory for the stack of a thread\n");
            abort();
        }
        fibre->stack = at + GUARD_BYTES;
        fibre->index = n_made;
    }
}

void emu_sched_open(uint64_t seed, int run) {
    const emu_dim3 dims = emu.launch->block;
    emu.n_threads = dims.x * dims.y * dims.z;
    emu.n_warps = (emu.n_threads + EMU_WARP - 1) / EMU_WARP;
    emu.warps = warps;
    emu.fibres = fibres;
    make_stacks(emu.n_threads);
    for (uint32_t i = 0; i < emu.n_threads; i++)
        fibres[i].thread = (emu_dim3){i % dims.x, i / dims.x % dims.y, i / dims.x / dims.y};

    random_state = seed;
    // Runs of one launch take policies in turn, so that each is another order.
    uint64_t v = seed == 0 ? 0 : draw();
    lane_policy = (policy)((v + (uint64_t)run) % N_POLICIES);
    warp_policy = (policy)((v / 3 + (uint64_t)run) % N_POLICIES);
    block_policy = (policy)((v / 9 + (uint64_t)run) % N_POLICIES);
    interrupts = (v / 27 + (uint64_t)run) % 2 == 1;
    until_interrupt = 1 + (uint32_t)(draw() % 64);
    block_factor = draw();
    block_offset = draw();
}

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

uint64_t emu_block_at(uint64_t i, uint64_t n) {
    if (block_policy == FORWARD) return i;
    if (block_policy == BACKWARD) return n - 1 - i;
    block_factor %= n; // i * factor + offset modulo n meets each once if they have no divisor
    while (common_divisor(block_factor, n) != 1) block_factor = (block_factor + 1) % n;
    return (uint64_t)(((wide)i * block_factor + block_offset) % n);
}
