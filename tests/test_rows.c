// Rows, pages and chunks: properties over random prompts, and the refusals.
#include "loader/rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAGE = 16, MAX_ROWS = 8, WIDTH = 64 };

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static int pick(uint32_t *state, int low, int high) {
    return low + (int)(next_random(state) % (uint32_t)(high - low + 1));
}

typedef struct scene {
    kt_arena arena;
    kt_prompt prompts[MAX_ROWS];
    int32_t max_new[MAX_ROWS];
    int n;
    kt_rows_limits limits;
    kt_rows rows;
    kt_err err;
} scene;

// Prompts that share a random beginning and then differ (mostly).
static void make_prompts(scene *in, uint32_t *random) {
    in->n = pick(random, 1, MAX_ROWS);
    int shared = pick(random, 0, 3) == 0 ? 0 : pick(random, 0, 120);
    int32_t common[120];
    for (int i = 0; i < shared; i++) common[i] = pick(random, -20, 400);
    for (int r = 0; r < in->n; r++) {
        int n = shared + pick(random, 0, 60);
        if (pick(random, 0, 9) == 0) n = pick(random, 1, 20);
        if (n == 0) n = 1;
        int32_t *ids = KT_NEW_ARRAY(&in->arena, int32_t, n);
        for (int i = 0; i < n; i++) ids[i] = i < shared ? common[i] : pick(random, 0, 3);
        in->prompts[r] = (kt_prompt){ids, n};
        in->max_new[r] = pick(random, 1, 100);
    }
}

static void make_scene(scene *in, uint32_t seed, bool permute) {
    uint32_t random = seed * 2654435761u + 1;
    *in = (scene){0};
    make_prompts(in, &random);
    in->limits = (kt_rows_limits){.page_tokens = PAGE,
        .pages = 400,
        .context = 1024,
        .rows = pick(&random, in->n, MAX_ROWS),
        .width = WIDTH,
        .chunk_tokens = pick(&random, 1, 200),
        .chunk_segments = pick(&random, 1, 12)};
    if (!permute) return;
    int32_t *order = KT_NEW_ARRAY(&in->arena, int32_t, in->limits.pages);
    for (int32_t i = 0; i < in->limits.pages; i++) order[i] = i;
    for (int i = (int)in->limits.pages - 1; i > 0; i--) {
        int j = pick(&random, 0, i);
        int32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    in->limits.page_order = order;
}

static void plan(scene *in) {
    kt_status status =
        kt_rows_plan(&in->arena, in->prompts, in->max_new, in->n, &in->limits, &in->rows, &in->err);
    if (status != KT_OK) fail_msg("%s", in->err.text);
}

static int32_t page_of(const scene *in, int row, int64_t position) {
    return in->rows.table[row * in->limits.width + position / PAGE];
}

// Runs the chunks as a device would: a cache of ids by page and place in it, and who wrote each.
// Attention of a token is checked by comparing every earlier id of its row with what the cache
// holds.
typedef struct cache {
    int32_t *ids;   // [pages, PAGE]
    int32_t *owner; // [pages] row + 1
    int *writes;    // [pages, PAGE]
} cache;

static cache make_cache(scene *in) {
    int64_t n = in->limits.pages;
    return (cache){KT_NEW_ARRAY(&in->arena, int32_t, n * PAGE),
        KT_NEW_ARRAY(&in->arena, int32_t, n), KT_NEW_ARRAY(&in->arena, int, n *PAGE)};
}

static void append(const scene *in, cache *to, const int32_t *segment, const int32_t *ids) {
    int row = segment[0];
    for (int i = 0; i < segment[2]; i++) {
        int64_t position = segment[1] + i;
        int64_t page = page_of(in, row, position);
        assert_in_range(page, 0, in->limits.pages - 1);
        assert_true(to->owner[page] == 0 || to->owner[page] == row + 1);
        to->owner[page] = row + 1;
        to->ids[page * PAGE + position % PAGE] = ids[segment[3] + i];
        to->writes[page * PAGE + position % PAGE]++;
    }
}

static void check_sees(const scene *in, const cache *from, int row, int64_t positions) {
    for (int64_t p = 0; p < positions; p++) {
        int64_t page = page_of(in, row, p);
        assert_int_equal(from->writes[page * PAGE + p % PAGE], 1);
        assert_int_equal(from->ids[page * PAGE + p % PAGE], in->prompts[row].ids[p]);
    }
}

static void check_chunks(scene *in, cache *to) {
    for (int64_t c = 0; c < in->rows.n_chunks; c++) {
        const kt_chunk *chunk = &in->rows.chunks[c];
        assert_in_range(chunk->n, 1, in->limits.chunk_tokens);
        assert_in_range(chunk->g, 1, in->limits.chunk_segments);
        int64_t covered = 0;
        for (int64_t g = 0; g < chunk->g; g++) {
            const int32_t *segment = chunk->segments + 4 * g;
            assert_in_range(segment[0], 0, in->n - 1);
            assert_true(segment[2] >= 1);
            assert_int_equal(segment[3], covered);
            covered += segment[2];
            append(in, to, segment, chunk->ids);
        }
        assert_int_equal(covered, chunk->n);
        for (int64_t g = 0; g < chunk->g; g++) {
            const int32_t *segment = chunk->segments + 4 * g;
            check_sees(in, to, segment[0], segment[1] + segment[2]);
        }
    }
}

static void check_start(const scene *in, const cache *to) {
    for (int r = 0; r < in->limits.rows; r++) {
        const int32_t *segment = in->rows.segments + 4 * (int64_t)r;
        assert_int_equal(segment[0], r);
        assert_int_equal(segment[3], r);
        assert_int_equal(in->rows.made[r], 0);
        if (r >= in->n) {
            assert_int_equal(segment[2], 0);
            assert_int_equal(in->rows.left[r], 0);
            continue;
        }
        const kt_prompt *prompt = &in->prompts[r];
        assert_int_equal(segment[1], prompt->n - 1);
        assert_int_equal(segment[2], 1);
        assert_int_equal(in->rows.next[r], prompt->ids[prompt->n - 1]);
        assert_int_equal(in->rows.left[r], in->max_new[r]);
        check_sees(in, to, r, prompt->n - 1);
    }
}

// Decoding: every row writes its last prompt token and all but the last of its new ones, only to
// pages of its own.
static void check_decode(const scene *in, cache *to) {
    for (int r = 0; r < in->n; r++) {
        for (int i = 0; i < in->max_new[r]; i++) {
            const int32_t segment[4] = {r, (int32_t)(in->prompts[r].n - 1 + i), 1, 0};
            append(in, to, segment, &in->rows.next[r]);
        }
    }
    for (int64_t i = 0; i < in->limits.pages * PAGE; i++) assert_true(to->writes[i] <= 1);
}

// The prefix is the longest one in whole pages that leaves a token of each row.
static void check_prefix(const scene *in) {
    int64_t prefix = in->rows.prefix, same = 0;
    assert_int_equal(prefix % PAGE, 0);
    for (bool equal = in->n > 1; equal; same += equal ? 1 : 0) {
        for (int r = 0; r < in->n && equal; r++)
            equal =
                same + 1 < in->prompts[r].n && in->prompts[r].ids[same] == in->prompts[0].ids[same];
    }
    assert_int_equal(prefix, same / PAGE * PAGE);
}

static void check_scene(uint32_t seed, bool permute) {
    scene in;
    make_scene(&in, seed, permute);
    plan(&in);
    cache to = make_cache(&in);
    check_prefix(&in);
    check_chunks(&in, &to);
    check_start(&in, &to);
    check_decode(&in, &to);
    int64_t total = 0;
    for (int64_t c = 0; c < in.rows.n_chunks; c++) total += in.rows.chunks[c].n;
    int64_t wanted = in.rows.prefix;
    for (int r = 0; r < in.n; r++) wanted += in.prompts[r].n - 1 - in.rows.prefix;
    assert_int_equal(total, wanted); // the prefix once, each other token once
    kt_arena_deinit(&in.arena);
}

static void random_prompts_are_planned_right(void **state) {
    (void)state;
    for (uint32_t seed = 0; seed < 3000; seed++) check_scene(seed, seed % 2 == 1);
}

// ---- chosen cases

static const int32_t forty[40] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
    20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40};

static kt_rows_limits usual(void) {
    return (kt_rows_limits){.page_tokens = PAGE,
        .pages = 32,
        .context = 512,
        .rows = 4,
        .width = 32,
        .chunk_tokens = 128,
        .chunk_segments = 16};
}

static kt_rows plan_equal(kt_arena *arena, int64_t length, int n, int32_t max_new) {
    kt_prompt prompts[4];
    int32_t fresh[4];
    for (int r = 0; r < n; r++) {
        prompts[r] = (kt_prompt){forty, length};
        fresh[r] = max_new;
    }
    kt_rows_limits limits = usual();
    kt_rows rows;
    kt_err err = {0};
    if (kt_rows_plan(arena, prompts, fresh, n, &limits, &rows, &err) != KT_OK)
        fail_msg("%s", err.text);
    return rows;
}

static void equal_prompts_keep_a_token_of_their_own(void **state) {
    (void)state;
    kt_arena arena = {0};
    assert_int_equal(plan_equal(&arena, 40, 3, 8).prefix, 32);
    assert_int_equal(plan_equal(&arena, 32, 3, 8).prefix, 16);
    assert_int_equal(plan_equal(&arena, 33, 3, 8).prefix, 32);
    assert_int_equal(plan_equal(&arena, 16, 3, 8).prefix, 0);
    assert_int_equal(plan_equal(&arena, 40, 1, 8).prefix, 0);
    kt_arena_deinit(&arena);
}

static void a_prompt_of_one_token_needs_no_prefill(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_rows rows = plan_equal(&arena, 1, 2, 5);
    assert_int_equal(rows.n_chunks, 0);
    assert_int_equal(rows.segments[1], 0);
    assert_int_equal(rows.next[1], 1);
    kt_arena_deinit(&arena);
}

static void four_prompts_fit_one_chunk(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_rows rows = plan_equal(&arena, 40, 4, 5);
    assert_int_equal(rows.n_chunks, 1);
    assert_int_equal(rows.chunks[0].g, 4);
    const int32_t wanted[] = {0, 0, 39, 0, 1, 32, 7, 39, 2, 32, 7, 46, 3, 32, 7, 53};
    assert_memory_equal(rows.chunks[0].segments, wanted, sizeof wanted);
    assert_int_equal(rows.pages, 2 + 4 * 1);
    kt_arena_deinit(&arena);
}

static void expect_refusal(kt_rows_limits limits, int n, int32_t max_new, const char *message) {
    kt_arena arena = {0};
    kt_prompt prompts[4];
    int32_t fresh[4];
    for (int r = 0; r < n; r++) {
        prompts[r] = (kt_prompt){forty, 40};
        fresh[r] = max_new;
    }
    kt_rows rows;
    kt_err err = {0};
    assert_int_equal(kt_rows_plan(&arena, prompts, fresh, n, &limits, &rows, &err), KT_EPROMPT);
    assert_string_equal(err.text, message);
    kt_arena_deinit(&arena);
}

static void what_does_not_fit_is_refused_with_numbers(void **state) {
    (void)state;
    kt_rows_limits limits = usual();
    limits.context = 60;
    expect_refusal(limits, 2, 21,
        "prompt 1 of 2 has 40 tokens and may make 21 more, but the model takes 60 in all; shorten "
        "the texts or set a lower max_new");
    limits = usual();
    limits.width = 3;
    expect_refusal(limits, 1, 9,
        "prompt 1 of 1 needs 4 pages of 16 tokens, but a row has room for 3; shorten the texts, "
        "set a lower max_new or a higher context");
    limits = usual();
    limits.pages = 7;
    expect_refusal(limits, 4, 40,
        "4 prompts need 14 pages of 16 tokens together, but the pool has 7 (112 tokens); ask fewer "
        "items at a time, set a lower max_new or a higher context");
    limits = usual();
    limits.rows = 2;
    expect_refusal(limits, 3, 1,
        "3 prompts at a time, but the pipeline has 2 rows; ask fewer items or raise 'rows'");
}

static void the_pool_may_be_used_up_exactly(void **state) {
    (void)state;
    kt_arena arena = {0};
    kt_prompt prompt = {forty, 40};
    int32_t fresh = 24;
    kt_rows_limits limits = usual();
    limits.context = 64;
    limits.pages = limits.width = 4;
    kt_rows rows;
    kt_err err = {0};
    assert_int_equal(kt_rows_plan(&arena, &prompt, &fresh, 1, &limits, &rows, &err), KT_OK);
    assert_int_equal(rows.pages, 4);
    kt_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_prompts_are_planned_right),
        cmocka_unit_test(equal_prompts_keep_a_token_of_their_own),
        cmocka_unit_test(a_prompt_of_one_token_needs_no_prefill),
        cmocka_unit_test(four_prompts_fit_one_chunk),
        cmocka_unit_test(what_does_not_fit_is_refused_with_numbers),
        cmocka_unit_test(the_pool_may_be_used_up_exactly),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
