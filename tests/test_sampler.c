// The sampler's C implementation: 100,000 draws against the exact distribution, computed here in
// doubles; greedy choice with ties and broken logits; how a row moves on and stops.
#include "runtime/exec/cpu_host.h"
#include "runtime/exec/cpu_op.h"
#include "runtime/exec/op_check_parts.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { V = 50, WORDS = 2, MOST = 4, STOPS = 2, ROWS = 100, CALLS = 1000 };

typedef struct settings {
    double temperature, top_p, penalty;
    int top_k;
} settings;

// Inputs and state of ROWS rows.
typedef struct batch {
    float logits[ROWS * V];
    int32_t stop[STOPS];
    int32_t next[ROWS], segments[ROWS * 4], left[ROWS], made[ROWS], tokens[ROWS * MOST];
    uint32_t seen[ROWS * WORDS], rng[ROWS * 4];
} batch;

static const kt_cpu_op *op;
static kt_cpu_host host;

static int open_op(void **state) {
    (void)state;
    static kt_arena arena;
    kt_diag diag;
    kt_err err = {0};
    kt_diag_init(&diag, &arena);
    kt_registry *registry = kt_registry_open(&arena, "ops", NULL, 0, &diag);
    const kt_op *manifest =
        registry ? kt_registry_op(registry, (kt_ref){.text = KT_STR("sample")}, &diag) : NULL;
    kt_cpu_host_init(&host, NULL, false);
    return manifest && kt_cpu_op_find(manifest, ".", &op, &err) == KT_OK ? 0 : -1;
}

static batch *new_batch(uint64_t seed) {
    batch *b = calloc(1, sizeof *b);
    assert_non_null(b);
    kt_random random = {seed};
    for (int i = 0; i < V; i++) b->logits[i] = (float)(2 * kt_random_normal(&random));
    for (int r = 0; r < ROWS; r++) {
        memcpy(b->logits + (ptrdiff_t)r * V, b->logits, V * sizeof(float));
        int32_t *segment = b->segments + (ptrdiff_t)4 * r;
        segment[0] = segment[3] = r;
        segment[2] = 1;
        b->left[r] = 3;
        for (int k = 0; k < 2; k++) b->rng[4 * r + k] = (uint32_t)kt_random_next(&random);
    }
    for (int i = 0; i < STOPS; i++) b->stop[i] = -1;
    for (int i = 0; i < ROWS * MOST; i++) b->tokens[i] = -1;
    return b;
}

static void sample(batch *b, int rows, const settings *s) {
    kt_cpu_tensor tensors[] = {
        {"logits", "f32", b->logits, 2, {rows, V}},
        {"stop", "i32", b->stop, 1, {STOPS}},
        {"gen.next", "i32", b->next, 1, {rows}},
        {"gen.segments", "i32", b->segments, 2, {rows, 4}},
        {"gen.left", "i32", b->left, 1, {rows}},
        {"gen.made", "i32", b->made, 1, {rows}},
        {"gen.tokens", "i32", b->tokens, 2, {rows, MOST}},
        {"gen.seen", "u32", b->seen, 2, {rows, WORDS}},
        {"gen.rng", "u32", b->rng, 2, {rows, 4}},
    };
    kt_cpu_number dims[] = {{"rows", rows, NULL}, {"v", V, NULL}, {"k", STOPS, NULL},
        {"most", MOST, NULL}, {"words", WORDS, NULL}};
    kt_cpu_number params[] = {{"temperature", s->temperature, NULL}, {"top_k", s->top_k, NULL},
        {"top_p", s->top_p, NULL}, {"repetition_penalty", s->penalty, NULL}};
    kt_cpu_call call = {&host, tensors, 9, dims, 5, params, 4};
    assert_null(op->run(&call));
}

// ---- the distribution

typedef struct ranked {
    double z;
    int id;
} ranked;

static int by_rank(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->z != y->z) return x->z > y->z ? -1 : 1;
    return x->id - y->id;
}

// Penalty, temperature, top-k, top-p, softmax of what stays.
static void exact(const batch *b, const settings *s, double out[V]) {
    ranked order[V];
    for (int i = 0; i < V; i++) {
        double x = (double)b->logits[i];
        bool seen = b->seen[i / 32] >> (i % 32) & 1;
        if (seen) x = x > 0 ? x / s->penalty : x * s->penalty;
        order[i] = (ranked){x / s->temperature, i};
        out[i] = 0;
    }
    qsort(order, V, sizeof *order, by_rank);
    int n = s->top_k > 0 && s->top_k < V ? s->top_k : V;
    double sum = 0, before = 0, kept = 0;
    for (int i = 0; i < n; i++) sum += exp(order[i].z - order[0].z);
    for (int i = 0; i < n; i++) {
        double w = exp(order[i].z - order[0].z);
        if (i > 0 && s->top_p < 1 && before >= s->top_p * sum) break;
        out[order[i].id] = w;
        kept += w;
        before += w;
    }
    for (int i = 0; i < V; i++) out[i] /= kept;
}

static void draw(batch *b, const settings *s, int64_t counts[V]) {
    batch start = *b;
    for (int i = 0; i < V; i++) counts[i] = 0;
    for (int c = 0; c < CALLS; c++) {
        sample(b, ROWS, s);
        for (int r = 0; r < ROWS; r++) counts[b->next[r]]++;
        uint32_t rng[ROWS * 4]; // only the generators go on
        memcpy(rng, b->rng, sizeof rng);
        *b = start;
        memcpy(b->rng, rng, sizeof rng);
    }
}

// Chi-square over its degrees of freedom, rare tokens taken together; infinite if an impossible one
// came. Far beyond 5 standard deviations above 1 the counts are not from the distribution.
static double distance(const int64_t counts[V], const double p[V]) {
    double chi = 0, rest = 0, n = (double)ROWS * CALLS;
    int64_t rest_count = 0;
    int bins = 0;
    for (int i = 0; i < V; i++) {
        double expected = p[i] * n, d = (double)counts[i] - expected;
        if (expected == 0 && counts[i] > 0) return HUGE_VAL;
        if (expected < 10) {
            rest += expected;
            rest_count += counts[i];
            continue;
        }
        chi += d * d / expected;
        bins++;
    }
    if (rest > 0) chi += ((double)rest_count - rest) * ((double)rest_count - rest) / rest;
    double freedom = bins - (rest > 0 ? 0 : 1);
    return (chi - freedom) / sqrt(2 * freedom);
}

enum { DEVIATIONS = 6 };

static const settings kinds[] = {{1, 1, 1, 0}, {0.7, 0.9, 1.3, 20}, {1.5, 0.6, 1, 0}};

static void draws_follow_the_distribution(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        batch *b = new_batch(100 + k);
        int64_t counts[V];
        double p[V];
        for (int r = 0; r < ROWS; r++) b->seen[(ptrdiff_t)r * WORDS] = 0x5a5a1234;
        exact(b, &kinds[k], p);
        draw(b, &kinds[k], counts);
        double off = distance(counts, p);
        printf("# setting %zu: %.2f deviations\n", k, off);
        if (!(off < DEVIATIONS)) fail_msg("setting %zu is %g deviations off", k, off);
        free(b);
    }
}

// The comparison above tells distributions apart that are close.
static void another_distribution_shows(void **state) {
    (void)state;
    const settings asked = {1, 1, 1, 0};
    const settings others[] = {
        {1.05, 1, 1, 0}, {1, 0.98, 1, 0}, {1, 1, 1.05, 0}, {1, 1, 1, V - 12}};
    batch *b = new_batch(7);
    int64_t counts[V];
    for (int r = 0; r < ROWS; r++) b->seen[(ptrdiff_t)r * WORDS] = 0x5a5a1234;
    draw(b, &asked, counts);
    for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
        double p[V];
        exact(b, &others[k], p);
        if (distance(counts, p) < 2 * DEVIATIONS) fail_msg("difference %zu is not seen", k);
    }
    free(b);
}

static void rows_and_steps_draw_differently(void **state) {
    (void)state;
    const settings s = {1, 1, 1, 0};
    batch *b = new_batch(9);
    int32_t first[ROWS];
    sample(b, ROWS, &s);
    memcpy(first, b->next, sizeof first);
    int other_row = 0, other_step = 0;
    for (int r = 0; r < ROWS; r++) {
        b->segments[4 * r + 2] = 1;
        assert_int_equal(b->rng[4 * r + 2], 1);
    }
    sample(b, ROWS, &s);
    for (int r = 0; r < ROWS; r++) {
        other_row += first[r] != first[0];
        other_step += b->next[r] != first[r];
    }
    assert_true(other_row > ROWS / 4);
    assert_true(other_step > ROWS / 4);
    free(b);
}

// ---- greedy

static int32_t greedy(batch *b, double penalty) {
    const settings s = {0, 1, penalty, 0};
    b->segments[2] = 1;
    sample(b, 1, &s);
    return b->next[0];
}

static void greedy_takes_the_first_of_equals(void **state) {
    (void)state;
    batch *b = new_batch(11);
    b->logits[17] = b->logits[31] = b->logits[44] = 50;
    assert_int_equal(greedy(b, 1), 17);
    assert_int_equal(greedy(b, 1.5), 31); // 17 has been made
    for (int i = 0; i < V; i++) b->logits[i] = i % 2 ? 0.0F : -0.0F;
    assert_int_equal(greedy(b, 1), 0); // the zeros are equal
    free(b);
}

static void greedy_survives_broken_logits(void **state) {
    (void)state;
    batch *b = new_batch(12);
    b->logits[3] = NAN;
    b->logits[20] = 60;
    assert_int_equal(greedy(b, 1), 20);
    b->logits[5] = INFINITY;
    assert_int_equal(greedy(b, 1), 5);
    for (int i = 0; i < V; i++) b->logits[i] = NAN;
    assert_int_equal(greedy(b, 1), 0);
    for (int i = 0; i < V; i++) b->logits[i] = -INFINITY;
    b->logits[30] = -1e30F;
    assert_int_equal(greedy(b, 1), 30);
    free(b);
}

static void draws_survive_broken_logits(void **state) {
    (void)state;
    const settings s = {0.5, 0.9, 1.1, 5};
    batch *b = new_batch(13);
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < V; i++) b->logits[r * V + i] = r % 2 ? NAN : -INFINITY;
        if (r % 3 == 0) b->logits[r * V + 8] = 1;
        if (r % 5 == 0) b->logits[r * V + 9] = INFINITY;
    }
    sample(b, ROWS, &s);
    for (int r = 0; r < ROWS; r++) {
        if (r % 5 == 0)
            assert_int_equal(b->next[r], 9);
        else if (r % 3 == 0)
            assert_int_equal(b->next[r], 8);
        else
            assert_in_range(b->next[r], 0, 4); // all are equal: the first top_k
    }
    free(b);
}

// ---- rows move on

static void rows_move_on_and_stop(void **state) {
    (void)state;
    batch *b = new_batch(14);
    b->logits[17] = 50;
    b->segments[1] = 100;
    assert_int_equal(greedy(b, 1), 17);
    assert_int_equal(b->segments[1], 101);
    assert_int_equal(b->segments[2], 1);
    assert_int_equal(b->left[0], 2);
    assert_int_equal(b->made[0], 1);
    assert_int_equal(b->tokens[0], 17);
    assert_int_equal(b->seen[0], 1U << 17);
    b->stop[1] = 17;
    greedy(b, 1);
    assert_int_equal(b->left[0], 0); // a stop id is written, and ends the row
    assert_int_equal(b->segments[2], 0);
    assert_int_equal(b->made[0], 2);
    batch before = *b;
    const settings s = {0, 1, 1, 0};
    sample(b, 1, &s); // a stopped row is left alone
    assert_memory_equal(b, &before, sizeof before);
    b->stop[1] = -1;
    b->made[0] = MOST;
    b->left[0] = 1;
    memset(b->tokens, 0, sizeof b->tokens);
    greedy(b, 1);
    assert_int_equal(b->made[0], MOST); // full: nothing is written
    assert_int_equal(b->tokens[MOST - 1], 0);
    assert_int_equal(b->tokens[MOST], 0);
    assert_int_equal(b->segments[2], 0); // and the last token ends it
    free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(another_distribution_shows),
        cmocka_unit_test(rows_and_steps_draw_differently),
        cmocka_unit_test(greedy_takes_the_first_of_equals),
        cmocka_unit_test(greedy_survives_broken_logits),
        cmocka_unit_test(draws_survive_broken_logits),
        cmocka_unit_test(rows_move_on_and_stop),
    };
    return cmocka_run_group_tests_name("sampler", tests, open_op, NULL);
}
