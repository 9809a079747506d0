// Op tests that need no GPU: every C implementation against itself (all memory looked at, one
// thread and many, two runs), what a page table and chunks must not change, and that planted
// mistakes are found. The seed is new in each run, and printed; KOTARO_SEED repeats one.
#include "runtime/base/file.h"
#include "runtime/exec/op_check_parts.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <inttypes.h>

#include <cmocka.h>

static kt_arena arena;
static kt_registry *registry;
static uint64_t seed;

static void read_seed(void) {
    uint32_t drawn;
    int64_t given;
    kt_os_random(&drawn, sizeof drawn);
    const char *text = kt_os_getenv("KOTARO_SEED");
    seed = text && kt_str_to_i64(kt_str_from(text), &given) ? (uint64_t)given : drawn;
    printf("# seed %" PRIu64 "\n", seed);
}

static void open_registry(void) {
    kt_diag diag;
    kt_buf text = {0};
    kt_diag_init(&diag, &arena);
    registry = kt_registry_open(&arena, "ops", NULL, 0, &diag);
    kt_diag_print(&diag, &text);
    if (!registry) printf("# %s\n", text.at);
    kt_buf_deinit(&text);
}

// ---- all ops

static kt_op_check *all_ops;

static void c_implementation_holds(void **state) {
    int i = *(int *)*state;
    kt_op_check_result result;
    kt_buf report = {0};
    kt_err err;
    if (kt_op_check_run(all_ops, i, &result, &report, &err) != KT_OK) fail_msg("%s", err.text);
    if (result.n_failed > 0)
        fail_msg("%d of %d tests failed, seed %" PRIu64 "\n%s", result.n_failed, result.n_runs,
            seed, report.at);
    if (result.none) fail_msg("nothing to test: %s", result.none);
    assert_true(result.n_runs > 0);
    kt_buf_deinit(&report);
}

// ---- one case, by hand

typedef struct hand {
    kt_check_case c;
    kt_check_data data;
    kt_check_tensor *out;
    const char *folder;
} hand;

typedef struct size {
    const char *dim;
    int64_t value;
} size;

static const kt_op *find_op(const char *name) {
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    const kt_op *op = kt_registry_op(registry, (kt_ref){.text = kt_str_from(name)}, &diag);
    assert_non_null(op);
    return op;
}

static int port_of(const hand *h, const char *name) {
    int port = kt_op_port_find(h->c.op, kt_str_from(name));
    assert_true(port >= 0);
    return port;
}

static void set_size(hand *h, const char *dim, int64_t value) {
    int i = kt_op_dim_find(h->c.op, kt_str_from(dim));
    assert_true(i >= 0);
    h->c.dims[i] = value;
}

// The op's first case with these sizes instead; weights are the same for the same seed.
static void open_hand(hand *h, const char *name, const size *sizes, int n_sizes, uint64_t of_seed) {
    const kt_op *op = find_op(name);
    kt_check_list list = {0};
    kt_check_request request = {.op = op, .effort = KT_CHECK_QUICK, .seed = of_seed};
    kt_check_cases(&arena, &request, &list);
    assert_true(list.cases.n > 0);
    *h = (hand){.c = list.cases.at[0], .folder = test_folder(&arena)};
    h->c.seed = of_seed;
    for (int i = 0; i < op->n_ports; i++) {
        h->c.present[i] = true;
        h->c.stores[i] = KT_STORE_NF4;
    }
    for (int i = 0; i < n_sizes; i++) set_size(h, sizes[i].dim, sizes[i].value);
    assert_true(kt_check_make(&arena, &h->c, &h->data));
}

static void run_hand(hand *h) {
    kt_err err = {0};
    kt_buf why = {0};
    kt_check_side side = {
        .registry = registry, .include = ".", .folder = h->folder, .poison = 0xff};
    if (kt_check_write(h->folder, &h->data, &err) != KT_OK) fail_msg("%s", err.text);
    h->out = KT_NEW_ARRAY(&arena, kt_check_tensor, h->c.op->n_ports);
    if (kt_check_execute(&side, &h->data, &arena, h->out, &why) != KT_CHECK_RAN)
        fail_msg("%s", why.at);
    kt_buf_deinit(&why);
    test_remove(h->folder);
}

static void *values(const hand *h, const char *port) {
    return h->data.ports[port_of(h, port)].at;
}

static kt_check_tensor *made(const hand *h, const char *port) {
    return &h->out[port_of(h, port)];
}

static void assert_same(const hand *a, const hand *b, const char *port) {
    const kt_check_tensor *x = made(a, port), *y = made(b, port);
    assert_int_equal(x->bytes, y->bytes);
    assert_memory_equal(x->at, y->at, (size_t)x->bytes);
}

// ---- pages

// The same pool with its pages elsewhere, and a table that says so.
static void move_pages(hand *h, const int32_t *to) {
    kt_check_tensor *pool = &h->data.ports[port_of(h, "pool")];
    kt_check_tensor *table = &h->data.ports[port_of(h, "table")];
    int64_t n = pool->shape[0];
    size_t page = (size_t)(pool->bytes / n);
    char *moved = kt_arena_alloc(&arena, (size_t)pool->bytes);
    for (int64_t i = 0; i < n; i++)
        memcpy(moved + (size_t)to[i] * page, (char *)pool->at + (size_t)i * page, page);
    pool->at = moved;
    int32_t *entries = table->at;
    for (int64_t i = 0; i < table->n; i++) entries[i] = to[entries[i]];
}

static int32_t *shuffled(int64_t n, kt_random *random) {
    int32_t *out = KT_NEW_ARRAY(&arena, int32_t, n);
    for (int64_t i = 0; i < n; i++) out[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = kt_random_pick(random, 0, i);
        int32_t t = out[i];
        out[i] = out[k];
        out[k] = t;
    }
    return out;
}

static void pages_may_lie_anywhere(void **state) {
    (void)state;
    static const char *const ops[] = {"paged_attention", "decoder_layer"};
    kt_random random = {seed};
    for (int i = 0; i < 6; i++) {
        hand a, b;
        uint64_t now = kt_random_next(&random);
        open_hand(&a, ops[i % 2], NULL, 0, now);
        open_hand(&b, ops[i % 2], NULL, 0, now);
        int64_t n = a.data.ports[port_of(&a, "pool")].shape[0];
        int32_t *to = shuffled(n, &random);
        move_pages(&b, to);
        run_hand(&a);
        run_hand(&b);
        if (i % 2 == 0) {
            assert_same(&a, &b, "y");
            continue;
        }
        assert_same(&a, &b, "x_out");
        assert_same(&a, &b, "part_out");
        size_t page = (size_t)(made(&a, "pool")->bytes / n);
        for (int64_t p = 0; p < n; p++)
            assert_memory_equal((char *)made(&a, "pool")->at + (size_t)p * page,
                (char *)made(&b, "pool")->at + (size_t)to[p] * page, page);
    }
}

// ---- chunks

enum { CHUNK_TOKENS = 29, CHUNK_D = 128, CHUNK_S = 1 };

static const size chunk_sizes[] = {{"n", CHUNK_TOKENS}, {"s", CHUNK_S}, {"d", CHUNK_D}, {"g", 1},
    {"rows", 1}, {"width", 5}, {"pages", 9}};

static void one_segment(hand *h, int32_t start, int32_t length) {
    const int32_t segment[4] = {0, start, length, 0};
    memcpy(values(h, "segments"), segment, sizeof segment);
}

// Tokens from .. to of `whole` as a chunk of their own, after what is in `pool`.
static void run_chunk(
    hand *out, const hand *whole, uint64_t of_seed, int64_t from, int64_t to, const void *pool) {
    open_hand(out, "decoder_layer", chunk_sizes, 7, of_seed);
    set_size(out, "n", to - from);
    kt_check_data fresh;
    assert_true(kt_check_make(&arena, &out->c, &fresh));
    out->data = fresh;
    const int32_t *segment = values(whole, "segments");
    one_segment(out, segment[1] + (int32_t)from, (int32_t)(to - from));
    size_t row = CHUNK_D * sizeof(float);
    memcpy(values(out, "x"), (char *)values(whole, "x") + (size_t)from * row,
        (size_t)(to - from) * row);
    memcpy(values(out, "part"), (char *)values(whole, "part") + (size_t)from * row,
        (size_t)(to - from) * row);
    static const char *const same[] = {
        "table", "w.attn.norm", "w.attn.q_bias", "w.attn.k_bias", "w.attn.v_bias", "w.mlp.norm"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        memcpy(values(out, same[i]), values(whole, same[i]),
            (size_t)whole->data.ports[port_of(whole, same[i])].bytes);
    memcpy(values(out, "pool"), pool, (size_t)whole->data.ports[port_of(whole, "pool")].bytes);
    for (int i = 0; i < out->c.op->n_params; i++) out->c.params[i] = whole->c.params[i];
    run_hand(out);
}

static void assert_rows(const hand *whole, const hand *chunk, const char *port, int64_t from) {
    const kt_check_tensor *t = made(chunk, port);
    const char *all = made(whole, port)->at;
    size_t row = CHUNK_D * sizeof(float);
    assert_memory_equal(all + (size_t)from * row, t->at, (size_t)t->bytes);
}

static void chunks_give_what_the_whole_gives(void **state) {
    (void)state;
    kt_random random = {kt_random_mix(seed, 1)};
    for (int i = 0; i < 4; i++) {
        hand whole, first, second;
        uint64_t now = kt_random_next(&random);
        int64_t cut = kt_random_pick(&random, 1, CHUNK_TOKENS - 1);
        open_hand(&whole, "decoder_layer", chunk_sizes, 7, now);
        one_segment(&whole, (int32_t)kt_random_pick(&random, 0, 40), CHUNK_TOKENS);
        int32_t *order = shuffled(9, &random);
        memcpy(values(&whole, "table"), order, 5 * sizeof *order);
        run_hand(&whole);
        run_chunk(&first, &whole, now, 0, cut, values(&whole, "pool"));
        run_chunk(&second, &whole, now, cut, CHUNK_TOKENS, made(&first, "pool")->at);
        assert_rows(&whole, &first, "x_out", 0);
        assert_rows(&whole, &second, "x_out", cut);
        assert_rows(&whole, &first, "part_out", 0);
        assert_rows(&whole, &second, "part_out", cut);
        assert_same(&whole, &second, "pool");
    }
}

// ---- planted mistakes

static const char *const manifest_head =
    "kotaro: op/1\nname: planted\ndoc: Twice the input.\ndims:\n  n: plan, numbers\n"
    "inputs:\n  x: f32[n]\noutputs:\n  y: f32[n]\n"
    "variants:\n  - name: flat\n    launch:\n      grid: ceil_div(n, 256)\n      block: 256\n";
static const char *const good_check =
    "check:\n  tolerance: { f32: 1e-6 }\n  cases:\n    - { n: 100 }\n";

// Opens the check of an op `planted` with this end of its manifest and this body of its loop.
static kt_status open_planted(
    const char *folder, const char *check, const char *body, kt_op_check **out, kt_buf *report) {
    char *op = kt_path_join(&arena, folder, "planted");
    test_put(&arena, op, "op.yaml", kt_arena_printf(&arena, "%s%s", manifest_head, check));
    test_put(&arena, op, "planted.c",
        kt_arena_printf(&arena,
            "#include \"ops/kt_cpu.h\"\nstatic const char *run(const kt_cpu_call *call) {\n"
            "const float *x = kt_cpu_in(call, \"x\")->data; (void)x;\n"
            "float *y = kt_cpu_in(call, \"y\")->data; static int calls; calls++;\n"
            "int64_t n = kt_cpu_dim(call, \"n\");\nfor (int64_t i = 0; i < n; i++) { %s }\n"
            "return NULL; }\nKT_CPU_OP(\"planted\", run)\n",
            body));
    static const char *const only[] = {"planted"};
    const char *const folders[] = {folder};
    kt_diag diag;
    kt_err err = {0};
    kt_diag_init(&diag, &arena);
    kt_registry *with = kt_registry_open(&arena, "ops", folders, 1, &diag);
    kt_status status = KT_EYAML;
    *out = NULL;
    kt_op_check_options options = {
        .registry = with, .include = ".", .only = only, .n_only = 1, .seed = seed, .quick = true};
    if (with) status = kt_op_check_open(&options, out, &diag, &err);
    kt_diag_print(&diag, report);
    return status;
}

static void expect_planted(const char *body, const char *expected) {
    const char *folder = test_folder(&arena);
    kt_op_check *check;
    kt_buf report = {0};
    kt_op_check_result result;
    kt_err err;
    if (open_planted(folder, good_check, body, &check, &report) != KT_OK) fail_msg("%s", report.at);
    if (kt_op_check_run(check, 0, &result, &report, &err) != KT_OK) fail_msg("%s", err.text);
    if (!expected && result.n_failed > 0) fail_msg("%s", report.at);
    if (expected && result.n_failed == 0) fail_msg("not found: %s", body);
    if (expected && !strstr(report.at, expected))
        fail_msg("expected '%s', got\n%s", expected, report.at);
    kt_op_check_close(check);
    kt_buf_deinit(&report);
    test_remove(folder);
}

static void planted_mistakes_are_found(void **state) {
    (void)state;
    const char *argv[] = {"cc", "--version", NULL};
    kt_buf out = {0};
    if (kt_os_run(argv, &out) != 0) skip(); // an op from outside is compiled here
    kt_buf_deinit(&out);
    expect_planted("y[i] = 2 * x[i];", NULL);
    expect_planted("if (i != n / 2) y[i] = 2 * x[i];", "other memory before the run");
    expect_planted("y[i] = 2 * x[i]; y[n] = 0;", "behind 'check.0.its_y'");
    expect_planted("y[i] = 2 * x[i]; ((float *)x)[i] = 0;", "is no output");
    expect_planted("y[i] = 2 * x[i] + (float)calls;", "a second run gives other bits");
    expect_planted("y[i] = x[i] / 0.0F;", "elements of f32");
}

static void expect_refused(const char *check, const char *expected) {
    const char *folder = test_folder(&arena);
    kt_op_check *opened;
    kt_buf report = {0};
    assert_int_not_equal(open_planted(folder, check, "y[i] = 2 * x[i];", &opened, &report), KT_OK);
    if (!strstr(report.at, expected)) fail_msg("expected '%s', got\n%s", expected, report.at);
    kt_buf_deinit(&report);
    test_remove(folder);
}

static void manifests_are_held_to_account(void **state) {
    (void)state;
    expect_refused("check:\n  x: raged\n  tolerance: { f32: 1e-6 }\n  cases:\n    - { n: 100 }\n",
        "op tests have no generator 'raged'");
    expect_refused("check:\n  tolerance: { f32: 0.1 }\n  cases:\n    - { n: 100 }\n",
        "above the cap of 1e-05");
    kt_op_check *check;
    kt_buf report = {0};
    const char *folder = test_folder(&arena);
    const char *reasoned =
        "check:\n  reason: it is rough\n  tolerance: { f32: 0.1 }\n  cases:\n    - { n: 100 }\n";
    if (open_planted(folder, reasoned, "y[i] = 2 * x[i];", &check, &report) != KT_OK)
        fail_msg("%s", report.at);
    kt_op_check_close(check);
    kt_buf_deinit(&report);
    test_remove(folder);
}

// What is above the cap of its type is listed, so that another one is seen by whoever reads a
// change.
static void tolerances_above_caps_are_listed(void **state) {
    (void)state;
    kt_buf above = {0};
    kt_str listed;
    kt_err err;
    for (int i = 0; i < kt_op_check_count(all_ops); i++) {
        const kt_op *op = kt_op_check_op(all_ops, i);
        for (int t = 0; t < op->n_tolerances; t++) {
            if (op->tolerances[t].value <= kt_check_cap(op->tolerances[t].dtype)) continue;
            assert_true(op->tolerance_reason.n > 20);
            kt_buf_printf(&above, "%.*s %s %g: %.*s\n", KT_STR_ARG(op->name),
                kt_dtype_name(op->tolerances[t].dtype), op->tolerances[t].value,
                KT_STR_ARG(op->tolerance_reason));
        }
    }
    if (kt_file_read(&arena, "tests/data/ops/tolerances.txt", 1 << 20, &listed, &err) != KT_OK)
        fail_msg("%s", err.text);
    if (!kt_str_is(listed, above.at))
        fail_msg("tests/data/ops/tolerances.txt is not what the manifests say:\n%s", above.at);
    kt_buf_deinit(&above);
}

// ---- the list

static int open_all(void) {
    kt_diag diag;
    kt_err err = {0};
    kt_buf text = {0};
    kt_diag_init(&diag, &arena);
    kt_op_check_options options = {.registry = registry, .include = ".", .seed = seed};
    kt_status status = kt_op_check_open(&options, &all_ops, &diag, &err);
    kt_diag_print(&diag, &text);
    if (status != KT_OK) fprintf(stderr, "%s\n%s", err.text, text.n ? text.at : "");
    kt_buf_deinit(&text);
    return status == KT_OK ? 0 : 1;
}

int main(void) {
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(pages_may_lie_anywhere),
        cmocka_unit_test(chunks_give_what_the_whole_gives),
        cmocka_unit_test(planted_mistakes_are_found),
        cmocka_unit_test(manifests_are_held_to_account),
        cmocka_unit_test(tolerances_above_caps_are_listed),
    };
    enum { N_OTHERS = sizeof others / sizeof others[0] };
    read_seed();
    open_registry();
    if (!registry || open_all() != 0) return 1;
    int n = kt_op_check_count(all_ops);
    struct CMUnitTest *tests = KT_NEW_ARRAY(&arena, struct CMUnitTest, n + N_OTHERS);
    int *numbers = KT_NEW_ARRAY(&arena, int, n);
    for (int i = 0; i < n; i++) {
        kt_str name = kt_op_check_op(all_ops, i)->name;
        numbers[i] = i;
        tests[i] = (struct CMUnitTest){.test_func = c_implementation_holds,
            .initial_state = &numbers[i],
            .name = kt_arena_printf(&arena, "c_implementation_holds: %.*s", KT_STR_ARG(name))};
    }
    memcpy(tests + n, others, sizeof others);
    int failed = _cmocka_run_group_tests("ops", tests, (size_t)n + N_OTHERS, NULL, NULL);
    kt_op_check_close(all_ops);
    kt_arena_deinit(&arena);
    return failed;
}
