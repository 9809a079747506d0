// Resizing: coefficient tables of loader/resize.h through the op's C implementation, byte by byte
// as Pillow.
#include "loader/resize.h"

#include "ops/kt_cpu.h"
#include "runtime/base/hash.h"
#include "runtime/base/pool.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const kt_cpu_op *kt_cpu_query_resize_image(int host_version); // as the program links it

static void run_on_pool(const kt_cpu_host *host, int64_t n, int64_t grain,
    void (*loop)(void *ctx, int64_t begin, int64_t end), void *ctx) {
    kt_pool_for(host->pool, n, grain, loop, ctx);
}

// The same bytes as noise() in tests/reference/make_image_goldens.py.
static uint8_t noise_at(int width, int height, int64_t i) {
    uint32_t x =
        (uint32_t)((uint64_t)i * 2654435761u + (uint64_t)width * 40503u + (uint64_t)height);
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    return (uint8_t)x;
}

static uint8_t *make_pattern(const char *name, int width, int height) {
    uint8_t *rgb = malloc(3 * (size_t)width * (size_t)height);
    assert_non_null(rgb);
    bool is_noise = strcmp(name, "noise") == 0;
    int cells_wide = (width + 2) / 3, cells_high = (height + 2) / 3;
    for (int y = 0; y < height; y++)
        for (int i = 0; i < 3 * width; i++) {
            int64_t cell = ((int64_t)(y / 3) * cells_wide + i / 9) * 3 + i % 3;
            int64_t at = (int64_t)y * 3 * width + i;
            rgb[at] = is_noise ? noise_at(width, height, at)
                               : (uint8_t)((noise_at(cells_wide, cells_high, cell) >> 7) * 255);
        }
    return rgb;
}

// Resizes by tables and op. Returns the pixels of all targets one after another; the caller frees
// them.
static uint8_t *resize_all(const kt_resize_job *job, uint8_t *rgb) {
    kt_err err = {0};
    int64_t t = 0, out = 0, px = (int64_t)job->height * job->width;
    assert_int_equal(kt_resize_count(job, &t, &err), KT_OK);
    int32_t *taps = malloc((size_t)t * sizeof *taps);
    assert_non_null(taps);
    kt_resize_taps(job, taps);
    for (int i = 0; i < job->n_targets; i++) out += (int64_t)job->to[i][0] * job->to[i][1];
    uint8_t *y = malloc(1 + 3 * (size_t)out);
    assert_non_null(y);

    int32_t size[2] = {job->height, job->width};
    int32_t to[3][2];
    assert_true(job->n_targets <= 3);
    memcpy(to, job->to, (size_t)job->n_targets * sizeof *to);
    const kt_cpu_tensor tensors[] = {
        {"rgb", "u8", rgb, 2, {px, 3}},
        {"size", "i32", size, 2, {1, 2}},
        {"to.size", "i32", to, 2, {job->n_targets, 2}},
        {"to.taps", "i32", taps, 1, {t}},
        {"y", "u8", y, 2, {out, 3}},
    };
    const kt_cpu_number dims[] = {{"px", (double)px, NULL}, {"m", job->n_targets, NULL},
        {"t", (double)t, NULL}, {"out", (double)out, NULL}};
    kt_pool *pool = kt_pool_open(2);
    kt_cpu_host host = {.version = KT_CPU_VERSION, .parallel_for = run_on_pool, .pool = pool};
    kt_cpu_call call = {&host, tensors, 5, dims, 4, NULL, 0};
    assert_null(kt_cpu_query_resize_image(KT_CPU_VERSION)->run(&call));
    kt_pool_close(pool);
    free(taps);
    return y;
}

static void resize_equals_pillow(void **state) {
    (void)state;
    FILE *file = fopen("tests/data/images/resize.txt", "rb");
    assert_non_null(file);
    char filter[16], pattern[16], wanted[32], hex[65];
    int width = 0, height = 0, n_equal = 0, n_wrong = 0;
    int32_t to[1][2];
    while (fscanf(file, "%15s %15s", filter, pattern) == 2) {
        width = test_next_int(file);
        height = test_next_int(file);
        to[0][1] = test_next_int(file);
        to[0][0] = test_next_int(file);
        assert_int_equal(fscanf(file, "%31s", wanted), 1);
        kt_resize_job job = {KT_RESIZE_LANCZOS, height, width, 1, (const int32_t(*)[2])to};
        assert_true(kt_resize_filter_find(kt_str_from(filter), &job.filter));
        uint8_t *rgb = make_pattern(pattern, width, height), *y = resize_all(&job, rgb);
        kt_hash_hex(kt_hash_bytes(y, 3 * (size_t)to[0][0] * (size_t)to[0][1]), hex);
        if (strncmp(hex, wanted, 16) == 0) {
            n_equal++;
        } else {
            n_wrong++;
            print_error("%s %s %d x %d to %d x %d: other bytes than Pillow's\n", filter, pattern,
                width, height, (int)to[0][1], (int)to[0][0]);
        }
        free(rgb);
        free(y);
    }
    (void)fclose(file);
    print_message("%d resizes equal Pillow's bytes\n", n_equal);
    assert_int_equal(n_wrong, 0);
    assert_true(n_equal >= 3 * 60);
}

static void resize_makes_several_targets_as_one_each(void **state) {
    (void)state;
    const int32_t to[3][2] = {{40, 90}, {61, 47}, {9, 120}};
    uint8_t *rgb = make_pattern("edges", 90, 61);
    for (int f = 0; f < KT_RESIZE_COUNT; f++) {
        kt_resize_job all = {(kt_resize_filter)f, 61, 90, 3, to};
        uint8_t *y = resize_all(&all, rgb), *at = y;
        for (int i = 0; i < 3; i++) {
            kt_resize_job one = {(kt_resize_filter)f, 61, 90, 1, to + i};
            uint8_t *z = resize_all(&one, rgb);
            size_t n = 3 * (size_t)to[i][0] * (size_t)to[i][1];
            assert_memory_equal(at, z, n);
            at += n;
            free(z);
        }
        free(y);
    }
    free(rgb);
}

static void resize_keeps_a_size_that_does_not_change(void **state) {
    (void)state;
    const int32_t to[1][2] = {{30, 50}};
    kt_resize_job job = {KT_RESIZE_LANCZOS, 30, 50, 1, to};
    uint8_t *rgb = make_pattern("noise", 50, 30), *y = resize_all(&job, rgb);
    assert_memory_equal(y, rgb, 4500);
    int64_t t = 0;
    kt_err err = {0};
    assert_int_equal(kt_resize_count(&job, &t, &err), KT_OK);
    assert_int_equal(t, 4 + 3 * 50 + 3 * 30);
    free(rgb);
    free(y);
}

// The layout that the header promises, and windows that stay inside the source.
static void resize_tables_stay_inside(void **state) {
    (void)state;
    uint32_t seed = 7;
    for (int round = 0; round < 500; round++) {
        int number[6];
        for (int i = 0; i < 6; i++) {
            seed = seed * 1664525u + 1013904223u;
            number[i] = 1 + (int)(seed >> 16) % (round % 5 == 0 ? 9 : 700);
        }
        const int32_t to[2][2] = {{number[2], number[3]}, {number[4], number[5]}};
        kt_resize_job job = {(kt_resize_filter)(round % 3), number[0], number[1], 2, to};
        int64_t t = 0, next = 8;
        kt_err err = {0};
        assert_int_equal(kt_resize_count(&job, &t, &err), KT_OK);
        int32_t *taps = malloc((size_t)(t + 1) * sizeof *taps);
        assert_non_null(taps);
        taps[t] = -77;
        kt_resize_taps(&job, taps);
        for (int i = 0; i < 4; i++) { // columns and rows of both targets
            int32_t n = to[i / 2][1 - i % 2], source = i % 2 == 0 ? job.width : job.height;
            int32_t k = taps[4 * (i / 2) + 2 + i % 2];
            assert_int_equal(taps[4 * (i / 2) + i % 2], next);
            for (int32_t j = 0; j < n; j++) {
                int32_t first = taps[next + j], count = taps[next + n + j];
                assert_true(first >= 0 && count >= 1 && count <= k && first + count <= source);
            }
            next += (int64_t)n * (2 + k);
        }
        assert_int_equal(next, t);
        assert_int_equal(taps[t], -77);
        free(taps);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_equals_pillow),
        cmocka_unit_test(resize_makes_several_targets_as_one_each),
        cmocka_unit_test(resize_keeps_a_size_that_does_not_change),
        cmocka_unit_test(resize_tables_stay_inside),
    };
    return cmocka_run_group_tests_name("resize", tests, NULL, NULL);
}
