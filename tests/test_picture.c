// Sizes and indices of views, against the reference's own arithmetic, and the op patchify on them.
#include "loader/picture.h"

#include "ops/kt_cpu.h"
#include "runtime/base/f16.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const kt_cpu_op *kt_cpu_query_patchify(int host_version); // as the program links it

static kt_picture_params params_of(int side, int patch, int slices) {
    return (kt_picture_params){.scheme = KT_PICTURE_MINICPM_V,
        .side = side,
        .patch = patch,
        .slices = slices,
        .table = 70,
        .queries = 64,
        .mean = {0.5f, 0.5f, 0.5f},
        .std = {0.5f, 0.5f, 0.5f}};
}

static void slice(
    const kt_picture_params *p, int height, int width, kt_arena *arena, kt_picture_views *v) {
    kt_err err = {0};
    if (kt_picture_slice(p, height, width, arena, v, &err) != KT_OK) fail_msg("%s", err.text);
}

// What holds for any views: they tile their targets, and the offsets add up.
static void check_views(const kt_picture_params *p, const kt_picture_views *v) {
    int64_t pixels = 0;
    for (int i = 0; i < v->n_targets; i++) pixels += (int64_t)v->target[i][0] * v->target[i][1];
    assert_int_equal(pixels, v->n_pixels);
    assert_int_equal(v->n_views, 1 + v->grid_cols * v->grid_rows);
    assert_int_equal(v->n_targets, v->grid_cols > 0 ? 2 : 1);
    assert_int_equal(v->offset[0], 0);
    assert_int_equal(v->offset[v->n_views], v->n_patches);
    assert_int_equal(v->n_patches * p->patch * p->patch, v->n_pixels);
    for (int i = 0; i < v->n_views; i++) {
        int rows = v->size[i][0], cols = v->size[i][1], target = i > 0;
        assert_int_equal(v->from[i][0], target);
        assert_int_equal(v->from[i][1], i == 0 ? 0 : (i - 1) / v->grid_cols * rows * p->patch);
        assert_int_equal(v->from[i][2], i == 0 ? 0 : (i - 1) % v->grid_cols * cols * p->patch);
        assert_true(v->from[i][1] + rows * p->patch <= v->target[target][0]);
        assert_true(v->from[i][2] + cols * p->patch <= v->target[target][1]);
        assert_int_equal(v->offset[i + 1] - v->offset[i], rows * cols);
        assert_int_equal(v->query_offset[i + 1], (i + 1) * p->queries);
    }
    assert_int_equal(v->n_queried, (int64_t)v->n_views * p->queries);
}

// A line of slices.txt: widths come before heights.
typedef struct golden {
    int side, patch, slices, width, height;
    int overview_width, overview_height, cols, rows, tile_width, tile_height;
} golden;

static int next_int(FILE *file, bool *has_ended) {
    char word[32], *end = NULL;
    *has_ended = fscanf(file, "%31s", word) != 1;
    if (*has_ended) return 0;
    long value = strtol(word, &end, 10);
    if (*end != '\0') fail_msg("'%s' is no number", word);
    return (int)value;
}

static bool read_golden(FILE *file, golden *g) {
    int *const to[] = {&g->side, &g->patch, &g->slices, &g->width, &g->height, &g->overview_width,
        &g->overview_height, &g->cols, &g->rows, &g->tile_width, &g->tile_height};
    bool has_ended = false;
    for (size_t i = 0; i < sizeof to / sizeof *to && !has_ended; i++)
        *to[i] = next_int(file, &has_ended);
    return !has_ended;
}

static void picture_slices_as_the_reference(void **state) {
    (void)state;
    FILE *file = fopen("tests/data/images/slices.txt", "rb");
    assert_non_null(file);
    kt_arena arena = {0};
    golden g;
    int n = 0;
    while (read_golden(file, &g)) {
        kt_arena_mark mark = kt_arena_get_mark(&arena);
        kt_picture_params p = params_of(g.side, g.patch, g.slices);
        kt_picture_views v;
        slice(&p, g.height, g.width, &arena, &v);
        check_views(&p, &v);
        bool is_equal = v.target[0][0] == g.overview_height && v.target[0][1] == g.overview_width &&
                        v.grid_cols == g.cols && v.grid_rows == g.rows;
        if (g.cols > 0)
            is_equal = is_equal && v.target[1][0] == g.tile_height * g.rows &&
                       v.target[1][1] == g.tile_width * g.cols &&
                       v.size[1][0] * g.patch == g.tile_height &&
                       v.size[1][1] * g.patch == g.tile_width;
        if (!is_equal) fail_msg("%d x %d, side %d, slices %d", g.width, g.height, g.side, g.slices);
        kt_arena_reset(&arena, mark);
        n++;
    }
    (void)fclose(file);
    kt_arena_deinit(&arena);
    print_message("%d pictures cut as the reference does\n", n);
    assert_true(n >= 500);
}

// Measured with the reference itself, side 448, patch 14, 9 slices.
static void picture_slices_known_sizes(void **state) {
    (void)state;
    static const struct {
        int width, height, overview[2], cols, rows, refined[2], views,
            patches; // sizes: width, height
    } known[] = {
        {512, 384, {518, 392}, 0, 0, {0, 0}, 1, 1036},
        {512, 512, {448, 448}, 1, 2, {630, 644}, 3, 3094},
        {640, 480, {518, 392}, 2, 1, {728, 546}, 3, 3064},
        {1024, 768, {518, 392}, 2, 2, {1036, 784}, 5, 5180},
        {1280, 720, {602, 336}, 3, 2, {1470, 812}, 7, 7122},
        {1344, 1344, {448, 448}, 3, 3, {1344, 1344}, 10, 10240},
        {1920, 1080, {602, 336}, 4, 2, {1680, 952}, 9, 9192},
        {1080, 1920, {336, 602}, 2, 4, {952, 1680}, 9, 9192},
        {4032, 3024, {518, 392}, 3, 3, {1554, 1176}, 10, 10360},
        {224, 224, {448, 448}, 0, 0, {0, 0}, 1, 1024},
    };
    kt_arena arena = {0};
    kt_picture_params p = params_of(448, 14, 9);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        kt_picture_views v;
        slice(&p, known[i].height, known[i].width, &arena, &v);
        assert_int_equal(v.target[0][1], known[i].overview[0]);
        assert_int_equal(v.target[0][0], known[i].overview[1]);
        assert_int_equal(v.grid_cols, known[i].cols);
        assert_int_equal(v.grid_rows, known[i].rows);
        assert_int_equal(v.n_views, known[i].views);
        assert_int_equal(v.n_patches, known[i].patches);
        if (known[i].cols == 0) continue;
        assert_int_equal(v.target[1][1], known[i].refined[0]);
        assert_int_equal(v.target[1][0], known[i].refined[1]);
    }
    // Half to even: 729 x 492 has tiles of 378 x 518, not 392 x 518; 300 x 2000 an overview of 12 x
    // 83 patches.
    kt_picture_views v;
    slice(&p, 492, 729, &arena, &v);
    assert_int_equal(v.size[1][1] * 14, 378);
    assert_int_equal(v.size[1][0] * 14, 518);
    slice(&p, 2000, 300, &arena, &v);
    assert_int_equal(v.size[0][0], 83);
    assert_int_equal(v.size[0][1], 12);
    kt_arena_deinit(&arena);
}

// PyTorch's own buckets (2.1 and 2.2): floor(70 i / n), and one lower at these entries alone, for n
// up to 120.
static void picture_buckets_equal_the_reference(void **state) {
    (void)state;
    static const struct {
        int n, i;
    } lower[] = {{25, 5}, {25, 10}, {25, 15}, {25, 20}, {49, 7}, {49, 14}, {49, 35}, {49, 42},
        {50, 5}, {50, 10}, {50, 15}, {50, 20}, {50, 30}, {50, 40}, {55, 11}, {55, 22}, {55, 33},
        {55, 44}, {58, 29}, {77, 55}, {82, 41}, {86, 43}, {94, 47}, {98, 7}, {98, 14}, {98, 35},
        {98, 42}, {98, 56}, {98, 70}, {98, 84}, {100, 10}, {100, 20}, {100, 30}, {100, 40},
        {100, 80}, {110, 11}, {110, 22}, {110, 33}, {110, 44}, {110, 66}, {110, 88}, {115, 23},
        {115, 46}, {115, 69}, {115, 92}};
    static const int of_25[] = {0, 2, 5, 8, 11, 13, 16, 19, 22, 25, 27, 30, 33, 36, 39, 41, 44, 47,
        50, 53, 55, 58, 61, 64, 67};
    int32_t got[120];
    size_t n_lower = 0;
    for (int n = 1; n <= 120; n++) {
        kt_picture_buckets(n, 70, got);
        for (int i = 0; i < n; i++) {
            bool is_lower = n_lower < sizeof lower / sizeof *lower && lower[n_lower].n == n &&
                            lower[n_lower].i == i;
            if (is_lower) n_lower++;
            if (got[i] != 70 * i / n - (is_lower ? 1 : 0))
                fail_msg("n %d, i %d: %d", n, i, (int)got[i]);
            if (n == 25) assert_int_equal(got[i], of_25[i]);
        }
    }
    assert_int_equal(n_lower, sizeof lower / sizeof *lower);
}

// All axes of 1 to 1024 patches against PyTorch's own answers (preprocess.py buckets): lines with n
// and index:bucket where the bucket is not floor(70 i / n).
static void picture_buckets_equal_pytorch(void **state) {
    (void)state;
    enum { MOST = 1024 };
    static int32_t wanted[MOST + 1][MOST], got[MOST];
    FILE *file = fopen("tests/data/buckets.txt", "rb");
    assert_non_null(file);
    for (int n = 1; n <= MOST; n++)
        for (int i = 0; i < n; i++) wanted[n][i] = 70 * i / n;
    char word[32];
    int n = 0, n_odd = 0;
    while (fscanf(file, "%31s", word) == 1) {
        char *colon = strchr(word, ':');
        if (!colon) {
            n = (int)strtol(word, NULL, 10);
            assert_true(n >= 1 && n <= MOST);
            continue;
        }
        int i = (int)strtol(word, NULL, 10);
        assert_true(i >= 0 && i < n);
        wanted[n][i] = (int32_t)strtol(colon + 1, NULL, 10);
        n_odd++;
    }
    (void)fclose(file);
    for (n = 1; n <= MOST; n++) {
        kt_picture_buckets(n, 70, got);
        for (int i = 0; i < n; i++)
            if (got[i] != wanted[n][i]) fail_msg("n %d, i %d: %d", n, i, (int)got[i]);
    }
    print_message("%d axes equal PyTorch's, %d entries of them are no floor\n", MOST, n_odd);
    assert_true(n_odd > 500);
}

static void picture_numbers_positions_and_queries(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_picture_params p = params_of(448, 14, 9);
    kt_picture_views v;
    slice(&p, 512, 512, &arena, &v); // 32 x 32, then two of 23 x 45
    assert_int_equal(v.position[0], 0);
    assert_int_equal(v.position[1], 2);
    assert_int_equal(v.position[32], 2 * 70);
    assert_int_equal(v.position[6 * 32 + 31], 13 * 70 + 67);
    assert_int_equal(v.position[1024], 0);
    assert_int_equal(v.position[1024 + 45], 3 * 70);
    assert_int_equal(v.position[1024 + 1035 + 45 + 44], 3 * 70 + 68);
    assert_int_equal(v.n_queried, 192);
    assert_int_equal(v.query_row[63], 63);
    assert_int_equal(v.query_row[64], 0);
    assert_int_equal(v.query_offset[3], 192);
    assert_true(v.level[0][0] == -1.0f && v.level[2][255] == 1.0f);
    assert_true(v.level[1][128] == (128.0f / 255.0f - 0.5f) / 0.5f);
    kt_arena_deinit(&arena);
}

static void picture_fit_keeps_the_aspect(void **state) {
    (void)state;
    static const int cases[][5] = {// longest, height, width, new height, new width
        {512, 3024, 4032, 384, 512}, {512, 384, 512, 384, 512}, {512, 100, 50, 100, 50},
        {0, 9000, 10, 9000, 10}, {512, 513, 512, 512, 511}, {512, 1, 2000, 1, 512},
        {512, 427, 640, 342, 512}, {512, 1024, 5, 512, 2}, {512, 1024, 7, 512, 4},
        {100, 200, 101, 100, 50}, {100, 200, 103, 100, 52}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int height = 0, width = 0;
        kt_picture_fit(cases[i][0], cases[i][1], cases[i][2], &height, &width);
        assert_int_equal(height, cases[i][3]);
        assert_int_equal(width, cases[i][4]);
    }
}

static void picture_refuses_bad_parameters(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_picture_views v;
    kt_err err = {0};
    kt_picture_params p = params_of(448, 0, 9);
    assert_int_equal(kt_picture_slice(&p, 10, 10, &arena, &v, &err), KT_EMODEL);
    p = params_of(448, 14, 0);
    assert_int_equal(kt_picture_slice(&p, 10, 10, &arena, &v, &err), KT_EMODEL);
    p = params_of(448, 14, 9);
    p.std[1] = 0.0f;
    assert_int_equal(kt_picture_slice(&p, 10, 10, &arena, &v, &err), KT_EMODEL);
    assert_non_null(strstr(err.text, "channel 1"));
    p = params_of(448, 14, 9);
    assert_int_equal(kt_picture_slice(&p, 0, 10, &arena, &v, &err), KT_EIMAGE);
    assert_int_equal(kt_picture_slice(&p, 10, 65536, &arena, &v, &err), KT_EIMAGE);
    p.scheme = KT_PICTURE_WHOLE;
    assert_int_equal(kt_picture_slice(&p, 10, 10, &arena, &v, &err), KT_EMODEL);
    kt_arena_deinit(&arena);
}

static void picture_takes_it_whole(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_picture_views v;
    kt_picture_params p = params_of(224, 14, 9);
    assert_true(kt_picture_scheme_find(KT_STR("whole"), &p.scheme));
    assert_false(kt_picture_scheme_find(KT_STR("half"), &p.scheme));
    p.table = 16;
    slice(&p, 300, 5000, &arena, &v);
    check_views(&p, &v);
    assert_int_equal(v.n_views, 1);
    assert_int_equal(v.target[0][0], 224);
    assert_int_equal(v.target[0][1], 224);
    for (int i = 0; i < 256; i++) assert_int_equal(v.position[i], i);
    kt_arena_deinit(&arena);
}

// Any size up to the largest side either is cut into views that hold together, or says why not.
static void picture_takes_any_size(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_err err = {0};
    uint32_t seed = 5;
    for (int round = 0; round < 400; round++) {
        seed = seed * 1664525u + 1013904223u;
        int width = 1 + (int)(seed >> 8) % (1 << round % 17),
            height = 1 + (int)(seed >> 20) % (1 << round % 11);
        if (width > 65535) width = 65535;
        kt_arena_mark mark = kt_arena_get_mark(&arena);
        kt_picture_params p =
            params_of(round % 3 == 0 ? 64 : 448, round % 2 == 0 ? 14 : 16, 1 + round % 9);
        kt_picture_views v;
        if (kt_picture_slice(&p, height, width, &arena, &v, &err) == KT_OK)
            check_views(&p, &v);
        else
            assert_non_null(strstr(err.text, "too long and thin"));
        kt_arena_reset(&arena, mark);
    }
    kt_arena_deinit(&arena);
}

static void run_serial(const kt_cpu_host *host, int64_t n, int64_t grain,
    void (*loop)(void *ctx, int64_t begin, int64_t end), void *ctx) {
    (void)host, (void)grain;
    loop(ctx, 0, n / 2); // two ranges: the second starts inside the views
    loop(ctx, n / 2, n);
}

// Each value of each patch, computed here from its place in its view.
static void check_patches(
    const kt_picture_params *p, const kt_picture_views *v, const uint8_t *rgb, const uint16_t *y) {
    int64_t at = 0, side = p->patch;
    for (int i = 0; i < v->n_views; i++) {
        const uint8_t *from = rgb;
        if (v->from[i][0] == 1) from += 3 * (int64_t)v->target[0][0] * v->target[0][1];
        int64_t width = v->target[v->from[i][0]][1], per_patch = 3 * side * side;
        for (int64_t j = 0; j < per_patch * v->size[i][0] * v->size[i][1]; j++, at++) {
            int64_t patch = j / per_patch, c = j / (side * side) % 3;
            int64_t row = v->from[i][1] + patch / v->size[i][1] * side + j / side % side;
            int64_t col = v->from[i][2] + patch % v->size[i][1] * side + j % side;
            float value = (float)from[3 * (row * width + col) + c] / 255.0f;
            if (y[at] != kt_f32_to_f16((value - p->mean[c]) / p->std[c]))
                fail_msg("view %d, value %d", i, (int)j);
        }
    }
    assert_int_equal(at, v->n_patches * 3 * side * side);
}

static void picture_lays_out_patches(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_picture_params p = params_of(64, 8, 6);
    p.mean[1] = 0.4f;
    p.std[2] = 0.25f;
    kt_picture_views v;
    slice(&p, 131, 190, &arena, &v);
    assert_true(v.n_views > 4);
    uint8_t *rgb = kt_arena_alloc(&arena, 3 * (size_t)v.n_pixels);
    for (int64_t i = 0; i < 3 * v.n_pixels; i++)
        rgb[i] = (uint8_t)(((uint64_t)i * 2654435761u) >> 13);
    int64_t row = 3 * (int64_t)p.patch * p.patch;
    uint16_t *y = KT_NEW_ARRAY(&arena, uint16_t, v.n_patches * row);
    const kt_cpu_tensor tensors[] = {
        {"rgb", "u8", rgb, 2, {v.n_pixels, 3}},
        {"target", "i32", v.target, 2, {v.n_targets, 2}},
        {"view.from", "i32", v.from, 2, {v.n_views, 3}},
        {"view.size", "i32", v.size, 2, {v.n_views, 2}},
        {"view.offset", "i32", v.offset, 1, {v.n_views + 1}},
        {"view.level", "f32", v.level, 2, {3, 256}},
        {"y", "f16", y, 2, {v.n_patches, row}},
    };
    const kt_cpu_number dims[] = {{"px", (double)v.n_pixels, NULL}, {"m", v.n_targets, NULL},
        {"views", v.n_views, NULL}, {"n", (double)v.n_patches, NULL}, {"p", p.patch, NULL}};
    kt_cpu_host host = {
        .version = KT_CPU_VERSION, .parallel_for = run_serial, .f32_to_f16 = kt_f32_to_f16_row};
    kt_cpu_call call = {&host, tensors, 7, dims, 5, NULL, 0};
    assert_null(kt_cpu_query_patchify(KT_CPU_VERSION)->run(&call));
    check_patches(&p, &v, rgb, y);
    kt_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(picture_slices_as_the_reference),
        cmocka_unit_test(picture_slices_known_sizes),
        cmocka_unit_test(picture_buckets_equal_the_reference),
        cmocka_unit_test(picture_buckets_equal_pytorch),
        cmocka_unit_test(picture_numbers_positions_and_queries),
        cmocka_unit_test(picture_fit_keeps_the_aspect),
        cmocka_unit_test(picture_refuses_bad_parameters),
        cmocka_unit_test(picture_takes_it_whole),
        cmocka_unit_test(picture_takes_any_size),
        cmocka_unit_test(picture_lays_out_patches),
    };
    return cmocka_run_group_tests_name("picture", tests, NULL, NULL);
}
