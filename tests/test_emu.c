// The emulator (tests/emu/core): kernels that are wrong in one way each (tests/emu/probes/wrong.cu)
// are found, whatever the order of threads, and right ones are not.
//
// The program starts itself for each way of compiling kernels: "checked", "plain", and with the
// sanitizers "asan", which starts it for each wrong kernel ("asan NAME").
#include "ptx/compile.h"
#include "ptx/device_headers.h"
#include "runtime/base/file.h"
#include "tests/emu/image.h"
#include "tests/util.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h> // cmocka.h needs these four first

#include <cmocka.h>

#include "tests/emu/emu.h"

enum { WORDS = 1024, SEEDS = 6 };

// ---- the kernels

static kt_arena arena;
static kt_os_library *library;
static const emu_module_table *module;
static const char *folder;

static const emu_module_table *load(kt_str cubin) {
    emu_image image;
    const char *why;
    if (!emu_image_read(cubin.at, &image, &why)) fail_msg("%s", why);
    const char *path = kt_path_join(&arena, folder, "module.so");
    test_write(path, image.module, image.module_bytes);
    kt_buf text = {0};
    library = kt_os_library_open(path, &text);
    if (library == NULL) fail_msg("%s", text.n > 0 ? text.at : "?");
    kt_buf_deinit(&text);
    union {
        kt_os_function function;
        const emu_module_table *table;
    } found = {.function = kt_os_library_function(library, "emu_module")};
    assert_non_null(found.table);
    return found.table;
}

static int open_module(void **state) {
    (void)state;
    folder = test_folder(&arena);
    kt_str source;
    kt_err err;
    assert_int_equal(
        kt_file_read(&arena, "tests/emu/probes/wrong.cu", 1 << 20, &source, &err), KT_OK);
    const kt_compiler_options how = {.headers = kt_device_headers, .no_cache = true};
    kt_compiler *compiler = NULL;
    if (kt_compiler_open(&how, &compiler, &err) != KT_OK) fail_msg("%s", err.text);
    kt_options options;
    kt_options_init(&options, &arena, 89);
    const kt_compile_request request = {"tests/emu/probes/wrong.cu", source, &options};
    kt_compile_result result;
    if (kt_compile(compiler, &request, 1, &result, &err) != KT_OK) fail_msg("%s", err.text);
    module = load(result.cubin);
    kt_compiler_close(compiler);
    return 0;
}

static int close_module(void **state) {
    (void)state;
    kt_os_library_close(library);
    test_remove(folder);
    kt_arena_deinit(&arena);
    return 0;
}

// ---- running one

typedef struct probe {
    const char *name; // of the kernel, without kt_
    int blocks, threads, shared;
    int orders;
    const char *what; // in the message; NULL: the kernel is right
} probe;

// More is mapped than kernels may touch.
static _Alignas(256) struct {
    uint32_t y[WORDS], behind_y[64], x[WORDS], behind_x[64], ticket[4], behind_ticket[64];
} memory;
static uint32_t *const y = memory.y, *const x = memory.x, *const ticket = memory.ticket;

static void map_all(void) {
    for (uint32_t i = 0; i < WORDS; i++) x[i] = i * 3;
    memset(memory.y, 0xff, sizeof memory.y);
    memset(memory.ticket, 0, sizeof memory.ticket);
    emu_map_add(&memory, sizeof memory, "memory");
    const emu_region regions[] = {{(uintptr_t)x, sizeof memory.x, false},
        {(uintptr_t)y, sizeof memory.y, true}, {(uintptr_t)ticket, sizeof memory.ticket, true}};
    emu_watch(regions, 3);
}

static void unmap_all(void) {
    emu_watch(NULL, 0);
    emu_map_remove(&memory);
}

static const emu_kernel *find(const char *name) {
    for (int i = 0; i < module->n_kernels; i++)
        if (strcmp(module->kernels[i].name + 3, name) == 0) return &module->kernels[i];
    fail_msg("no kernel kt_%s", name);
    return NULL;
}

static int seconds; // that a block may take

// NULL if it ran to its end, else what was said.
static const char *run(const probe *p, uint64_t seed) {
    const struct {
        uint32_t *y;
        const uint32_t *x;
        uint32_t *ticket;
    } params = {y, x, ticket};
    const emu_options options = {.seed = seed, .orders = p->orders, .seconds = seconds};
    const emu_launch launch = {.module = module,
        .kernel = find(p->name),
        .grid = {(uint32_t)p->blocks, 1, 1},
        .block = {(uint32_t)p->threads, 1, 1},
        .shared_bytes = (uint32_t)p->shared,
        .shared_limit = 99 << 10,
        .params = &params};
    const char *why = NULL;
    emu_configure(&options);
    map_all();
    bool good = emu_run(&launch, &why);
    unmap_all();
    return good ? NULL : why;
}

static void check(const probe *p, uint64_t seed) {
    const char *why = run(p, seed);
    if (p->what == NULL && why != NULL) fail_msg("kt_%s, seed %d: %s", p->name, (int)seed, why);
    if (p->what == NULL) return;
    if (why == NULL) fail_msg("kt_%s, seed %d: nothing was found", p->name, (int)seed);
    if (strstr(why, p->what) == NULL)
        fail_msg("kt_%s, seed %d: no '%s' in: %s", p->name, (int)seed, p->what, why);
    // who and where
    if (strncmp(why, "kt_", 3) != 0 || strstr(why, ", block (") == NULL) fail_msg("%s", why);
}

static void check_all(const probe *probes, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (uint64_t seed = 0; seed < SEEDS; seed++) check(&probes[i], seed);
}

#define N(array) (sizeof(array) / sizeof(array)[0])

// ---- checked kernels

static void right_kernels_pass(void **state) {
    (void)state;
    static const probe probes[] = {
        {"good_reverse", 3, 128, 512, 3, NULL},
        {"good_bytes", 1, 64, 64, 3, NULL},
        {"good_warp", 1, 128, 512, 3, NULL},
        {"good_atomic", 1, 128, 512, 3, NULL},
        {"good_shuffles", 1, 64, 0, 3, NULL},
        {"good_copies", 1, 64, 2048, 3, NULL},
        {"good_global", 3, 64, 0, 3, NULL},
        {"good_ticket", 4, 64, 0, 3, NULL},
        {"good_mma", 1, 32, 768, 3, NULL},
        {"good_numbers", 1, 32, 0, 3, NULL},
    };
    check_all(probes, N(probes));
}

static void races_in_shared_memory_are_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"no_barrier", 1, 128, 512, 1, " of shared memory (an array of 512)"}, // race, or unwritten
        {"no_second_barrier", 1, 64, 256, 1, "with no barrier between"},
        {"two_writers", 1, 64, 128, 1, "race: write"},
        {"byte_race", 1, 64, 64, 1, " of shared memory (an array of 64)"},
        {"no_sync_warp", 1, 32, 128, 1, "race: "},
        {"no_second_sync_warp", 1, 64, 256, 1, "race: "},
        {"atomic_and_plain", 1, 64, 4, 1, "race: "},
    };
    check_all(probes, N(probes));
}

static void barriers_that_not_all_reach_are_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"barrier_in_branch", 1, 128, 0, 1, "has ended"},
        {"two_barriers", 1, 64, 0, 1, "different barriers: at wrong.cu:"},
        {"barrier_after_return", 2, 64, 0, 1, "but thread (5, 0, 0) has ended"},
        {"good_reverse", 2, 96, 384, 1, NULL},
    };
    check_all(probes, N(probes));
}

static void wrong_shared_memory_is_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"uninitialised", 2, 64, 256, 1,
            "uninitialised: read of byte 12 of shared memory (an "
            "array of 256)"},
        {"last_blocks_memory", 3, 64, 256, 1, "uninitialised: "},
        {"dynamic_overflow", 1, 64, 256, 1, "beyond the end of an array of 256 bytes"},
        {"static_overflow", 1, 64, 0, 1, "index 63 is beyond the end of an array"},
        {"static_overflow_by_pointer", 1, 64, 0, 1, "beyond the end of an array"},
        {"much_shared", 1, 64, 0, 1, "120000 bytes of shared memory"},
    };
    check_all(probes, N(probes));
}

static void diverging_warps_are_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"half_a_warp", 1, 32, 0, 1, "in mma at wrong.cu:"},
        {"two_collectives", 1, 64, 0, 1, "diverge: "},
        {"barrier_and_collective", 1, 64, 0, 1, "waits at the barrier wrong.cu:"},
        {"good_shuffles", 1, 40, 0, 1, "its warp has 8"},
        {"wild_mask", 1, 32, 0, 1, "the mask 32"},
    };
    check_all(probes, N(probes));
}

static void wrong_copies_are_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"weak_wait", 1, 64, 2048, 1, "asynchronous copy of thread ("},
        {"no_commit", 1, 64, 1024, 1, "asynchronous copy of thread ("},
        {"no_commit_at_end", 1, 64, 1024, 1, "not even committed"},
        {"no_wait", 1, 64, 1024, 1, "never waited for them"},
        {"barrier_before_wait", 1, 64, 1024, 1, "byte "},
        {"stage_too_early", 1, 64, 1024, 1, "race: "},
        {"long_copy", 1, 64, 1024, 1, "copy of 20 bytes into 16"},
        {"copy_to_global", 1, 64, 0, 1, "not in one array of shared memory"},
        {"copy_changes", 1, 64, 512, 1, "source of an asynchronous copy was written"},
        {"copy_beyond", 1, 64, 1024, 1, "behind the end of a tensor"},
        {"good_copies", 1, 64, 2044, 1, "not in one array of shared memory"},
    };
    check_all(probes, N(probes));
}

static void wrong_addresses_are_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"overrun", 1, 64, 0, 1, "4 bytes behind the end of a tensor of 4096 bytes"},
        {"overrun_read", 1, 64, 0, 1, "reads 4 bytes at "},
        {"before_begin", 1, 64, 0, 1, "no memory is there"},
        {"write_input", 1, 64, 0, 1, "of an input, at "},
        {"wild", 1, 64, 0, 1, "no memory is there"},
        {"null", 1, 64, 0, 1, ": no memory is there"},
        {"misaligned_vector", 1, 64, 0, 1, "misaligned: "},
        {"misaligned_word", 1, 64, 0, 1, "no multiple of 4 bytes"},
        {"misaligned_once", 1, 64, 0, 1, "no multiple of 16 bytes"},
        {"misaligned_matrix", 1, 32, 2048, 1, "no multiple of 16 bytes"},
        {"matrix_beyond", 1, 32, 2044, 1, "of shared memory"},
        {"others_stack", 1, 64, 512, 1, "no memory is there"},
        {"deep", 1, 32, 0, 1, "bytes of stack"},
        {"divide", 1, 32, 0, 1, "divides an integer by 0"},
        {"own_array", 1, 32, 0, 1, "index 4 is beyond the end of an array"},
        {"shift", 1, 32, 0, 1, "is shifted by "},
    };
    check_all(probes, N(probes));
}

// What this machine makes of these is not what a GPU does.
static void what_a_gpu_does_otherwise_is_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"wide_cast", 1, 64, 0, 1, "an integer type that cannot hold it"},
        {"cast_nan", 1, 64, 0, 1, "an integer type that cannot hold it"},
    };
    check_all(probes, N(probes));
}

static void races_in_global_memory_are_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"blocks_write_one", 2, 64, 0, 1, "of another block wrote with no hand-over between"},
        {"threads_write_one", 1, 64, 0, 1, "with no barrier between"},
        {"blocks_read_written", 2, 64, 0, 1, "of another block"},
        {"once_of_written", 1, 64, 0, 1, "kt_load_once of byte "},
        {"once_after_read", 1, 64, 0, 1, "kt_load_once of byte "},
        {"ticket_no_fence", 4, 64, 0, 1, "with no hand-over between"},
        {"ticket_no_barrier", 4, 64, 0, 1, "race: "},
        {"ticket_no_second_fence", 4, 64, 0, 1, "with no hand-over between"},
        {"ticket_plain_load", 4, 64, 0, 1, "kt_load_shared_by_blocks is needed"},
        {"ticket_two_loads", 4, 64, 0, 1, "kt_load_shared_by_blocks is needed"},
    };
    check_all(probes, N(probes));
}

// Not with each seed: if the block that reads happens to be first, others are found later, or it
// reads nothing.
static void some_races_need_some_orders(void **state) {
    (void)state;
    static const probe own = {"own_tickets", 4, 64, 0, 1, "race: "};
    int found = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const char *why = run(&own, seed);
        found += why != NULL && strstr(why, own.what) != NULL;
    }
    assert_true(found >= SEEDS / 2);
}

static void results_that_depend_on_the_order_are_found(void **state) {
    (void)state;
    static const probe probes[] = {
        {"order", 2, 64, 0, 2, "depends on the order of threads: byte "},
        {"order", 2, 64, 0, 1, NULL}, // one order shows nothing
        {"good_atomic", 1, 128, 4, 4, NULL},
    };
    check_all(probes, N(probes));
    // what the runs leave is one run's result
    const probe good = {"good_reverse", 1, 64, 256, 3, NULL};
    check(&good, 1);
    for (uint32_t i = 0; i < 64; i++) assert_int_equal(y[i], (63 - i) * 3);
    for (uint32_t i = 64; i < WORDS; i++) assert_int_equal(y[i], 0xffffffff);
}

static void a_kernel_that_does_not_end_is_stopped(void **state) {
    (void)state;
    static const probe probes[] = {
        {"endless", 2, 64, 0, 1, NULL},
        {"endless_barriers", 1, 64, 0, 1, NULL},
    };
    seconds = 1;
    for (size_t i = 0; i < N(probes); i++) {
        const char *why = run(&probes[i], i);
        assert_non_null(why);
        if (!strstr(why, "has run for 1 seconds") || !strstr(why, "wrong.cu:")) fail_msg("%s", why);
    }
    seconds = 0;
    const probe good = {"good_reverse", 1, 64, 256, 1, NULL};
    check(&good, 1);
}

static void messages_name_kernel_thread_and_place(void **state) {
    (void)state;
    static const probe p = {"misaligned_once", 1, 64, 0, 1, NULL};
    const char *why = run(&p, 0);
    assert_non_null(why);
    const char *start = "kt_misaligned_once, block (0, 0, 0), thread (1, 0, 0), wrong.cu:";
    if (strncmp(why, start, strlen(start)) != 0) fail_msg("%s", why);
}

static void impossible_launches_are_refused(void **state) {
    (void)state;
    static const probe probes[] = {
        {"good_reverse", 1, 1025, 512, 1, NULL},
        {"good_reverse", 0, 64, 512, 1, NULL},
        {"good_reverse", 1, 64, 100 << 10, 1, NULL},
    };
    for (size_t i = 0; i < N(probes); i++) assert_non_null(run(&probes[i], 0));
}

// ---- numbers

static float to_f32(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static void matrices_multiply(void **state) {
    (void)state;
    static const probe p = {"good_mma", 1, 32, 768, 2, NULL};
    // x[i] = 3 i as a word: two f16, of which the high one is 0 for small i and the low one tiny
    check(&p, 3);
    const uint16_t *h = (const uint16_t *)x;
    double a[16][16], b[16][8];
    for (int i = 0; i < 384; i++) {
        // f16 of small bit patterns: multiples of 2^-24 up to 2^-14, then normal
        int exponent = h[i] >> 10;
        double v = exponent == 0 ? h[i] / 16777216.0
                                 : (1024 + (h[i] & 1023)) / 16777216.0 * (1 << (exponent - 1));
        if (i < 256)
            a[i / 16][i % 16] = v;
        else
            b[(i - 256) / 8][i % 8] = v;
    }
    for (int r = 0; r < 16; r++) {
        for (int c = 0; c < 8; c++) {
            double sum = 0.5;
            for (int k = 0; k < 16; k++) sum += a[r][k] * b[k][c];
            assert_true(to_f32(y[r * 8 + c]) == (float)sum);
        }
    }
}

static void numbers_come_out_right(void **state) {
    (void)state;
    static const probe p = {"good_numbers", 1, 32, 0, 1, NULL};
    check(&p, 0);
    assert_int_equal(y[0], 0x77005522); // bytes 7, 0, 5, 2
    assert_int_equal(y[1], 0x0f000f01);
    // (1 + 2^-10)^2 + 1 = 2 + 2^-9 + 2^-20: 2.00195 (spacing 2^-9); 1 + 2^-24: 1
    assert_int_equal(y[2], 0x3c004001);
    assert_int_equal(y[3], 0x80000000);
    assert_int_equal(y[4], 0);
    assert_int_equal(y[5], 0x40000000);
    assert_int_equal(y[6], 42);
    assert_int_equal(y[7], 0x7c00);
    assert_int_equal(y[8], 0);
    assert_int_equal(y[9], 0xb3800000); // -2^-24
    assert_int_equal(y[10], 8);
    assert_int_equal(y[11], 0x28800000); // 2^-46
    assert_int_equal(y[12], 9);
    assert_int_equal(y[13], 19);
    assert_int_equal(y[14], 0x7fff);
    assert_int_equal(y[15], 0x7fff7fff);
}

// ---- plain kernels: what is found at no cost

static void plain_kernels_find_less(void **state) {
    (void)state;
    static const probe probes[] = {
        {"good_reverse", 3, 128, 512, 1, NULL},
        {"good_copies", 1, 64, 2048, 1, NULL},
        {"good_ticket", 4, 64, 0, 1, NULL},
        {"good_mma", 1, 32, 768, 1, NULL},
        {"barrier_in_branch", 1, 128, 0, 1, "has ended"},
        {"two_barriers", 1, 64, 0, 1, "different barriers"},
        {"half_a_warp", 1, 32, 0, 1, "in mma at wrong.cu:"},
        {"two_collectives", 1, 64, 0, 1, "diverge: "},
        {"no_commit_at_end", 1, 64, 1024, 1, "not even committed"},
        {"no_wait", 1, 64, 1024, 1, "never waited"},
        {"long_copy", 1, 64, 1024, 1, "copy of 20 bytes into 16"},
        {"copy_to_global", 1, 64, 0, 1, "not in one array of shared memory"},
        {"dynamic_overflow", 1, 64, 256, 1, "overwritten"},
        {"static_overflow", 1, 64, 0, 1, "overwritten"},
        {"much_shared", 1, 64, 0, 1, "120000 bytes"},
        {"wild", 1, 64, 0, 1, "no memory is there"},
        {"null", 1, 64, 0, 1, "no memory is there"},
        {"misaligned_once", 1, 64, 0, 1, "misaligned"},
        {"misaligned_matrix", 1, 32, 2048, 1, "misaligned"},
        {"deep", 1, 32, 0, 1, "bytes of stack"},
        {"divide", 1, 32, 0, 1, "divides an integer by 0"},
    };
    assert_false(module->checked);
    check_all(probes, N(probes));
    // Poison where the copy has not been done.
    const probe weak = {"weak_wait", 1, 64, 2048, 1, NULL};
    check(&weak, 0);
    assert_int_equal(y[0], 0xffffffff);
}

// ---- kernels with the sanitizers in them, which end the program

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN true
#else
#define HAS_ASAN false
#endif

static const probe asan_probes[] = {
    {"good_reverse", 3, 128, 512, 1, NULL},
    {"good_copies", 1, 64, 2048, 1, NULL},
    {"good_ticket", 4, 64, 0, 1, NULL},
    {"good_mma", 1, 32, 768, 1, NULL},
    {"half_a_warp", 1, 32, 0, 1, "in mma at wrong.cu:"},
    {"dynamic_overflow", 1, 64, 256, 1, "AddressSanitizer"},
    {"static_overflow", 1, 64, 0, 1, "out of bounds"},
    {"overrun", 1, 64, 0, 1, "AddressSanitizer"},
    {"overrun_read", 1, 64, 0, 1, "AddressSanitizer"},
    {"misaligned_vector", 1, 64, 0, 1, "misaligned address"},
};

static int run_asan_probe(const char *name) {
    void *state = NULL;
    open_module(&state);
    for (size_t i = 0; i < N(asan_probes); i++) {
        if (strcmp(asan_probes[i].name, name) != 0) continue;
        const char *why = run(&asan_probes[i], 1);
        (void)printf("%s\n", why != NULL ? why : "nothing was found");
    }
    return close_module(&state);
}

static void sanitizers_find_wrong_addresses(void **state) {
    (void)state;
    for (size_t i = 0; i < N(asan_probes); i++) {
        const probe *p = &asan_probes[i];
        const char *argv[] = {kt_os_executable(&arena), "asan", p->name, NULL};
        kt_buf out = {0};
        (void)kt_os_run(argv, &out);
        const char *text = out.n > 0 ? kt_arena_copy(&arena, out.at, out.n) : "";
        kt_buf_deinit(&out);
        if (strstr(text, p->what != NULL ? p->what : "nothing was found") == NULL)
            fail_msg("kt_%s: %s", p->name, text);
    }
}

// ---- starting

static int start(const char *self, const char *mode) {
    const char *build = kt_os_getenv("BUILD");
    const char *emu = kt_os_absolute(&arena, kt_path_join(&arena, build ? build : "build", "emu"));
    const char *argv[] = {"env", "-u", "KOTARO_EMU_FAIL",
        kt_arena_printf(&arena, "KOTARO_NVRTC=%s", emu),
        kt_arena_printf(&arena, "KOTARO_EMU=%s", mode), self, mode, NULL};
    kt_buf out = {0};
    int code = kt_os_run(argv, &out);
    if (out.n > 0) (void)fwrite(out.at, 1, out.n, stdout);
    kt_buf_deinit(&out);
    return code;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        const char *self = kt_os_executable(&arena);
        int failed = start(self, "checked") != 0;
        failed += start(self, "plain") != 0;
        if (HAS_ASAN) failed += start(self, "asan") != 0;
        kt_arena_deinit(&arena);
        return failed != 0;
    }
    if (argc > 2) return run_asan_probe(argv[2]);
    const struct CMUnitTest checked[] = {
        cmocka_unit_test(right_kernels_pass),
        cmocka_unit_test(races_in_shared_memory_are_found),
        cmocka_unit_test(barriers_that_not_all_reach_are_found),
        cmocka_unit_test(wrong_shared_memory_is_found),
        cmocka_unit_test(diverging_warps_are_found),
        cmocka_unit_test(wrong_copies_are_found),
        cmocka_unit_test(wrong_addresses_are_found),
        cmocka_unit_test(what_a_gpu_does_otherwise_is_found),
        cmocka_unit_test(races_in_global_memory_are_found),
        cmocka_unit_test(some_races_need_some_orders),
        cmocka_unit_test(results_that_depend_on_the_order_are_found),
        cmocka_unit_test(a_kernel_that_does_not_end_is_stopped),
        cmocka_unit_test(messages_name_kernel_thread_and_place),
        cmocka_unit_test(impossible_launches_are_refused),
        cmocka_unit_test(matrices_multiply),
        cmocka_unit_test(numbers_come_out_right),
    };
    const struct CMUnitTest plain[] = {cmocka_unit_test(plain_kernels_find_less)};
    const struct CMUnitTest asan[] = {cmocka_unit_test(sanitizers_find_wrong_addresses)};
    if (strcmp(argv[1], "asan") == 0)
        return cmocka_run_group_tests_name("emu_asan", asan, NULL, NULL);
    return strcmp(argv[1], "plain") == 0
               ? cmocka_run_group_tests_name("emu_plain", plain, open_module, close_module)
               : cmocka_run_group_tests_name("emu", checked, open_module, close_module);
}
