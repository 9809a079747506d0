// What the tests of a GPU have in them, which is listed here without one: each dim at its sizes,
// each variant with each type and storage, empty members and shared pages, few kernels. The sizes
// are written to $BUILD/op_sizes.txt. The seed is new in each run, and printed; KOTARO_SEED
// repeats.
#include "runtime/base/file.h"
#include "runtime/exec/op_check_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <inttypes.h>

#include <cmocka.h>

enum { ARCH = 89, KERNELS_MOST = 600, SEEDS = 12, DIMS_MAX = 64, PAGE = 16 };

static kt_arena arena;
static kt_registry *registry;
static const kt_op *const *ops;
static int n_ops;
static uint64_t seed;

static void list(const kt_op *op, kt_check_effort effort, uint64_t of_seed, kt_check_list *out) {
    kt_check_request request = {
        .op = op, .cuda = true, .effort = effort, .seed = of_seed, .registry = registry};
    memset(out, 0, sizeof *out);
    kt_check_cases(&arena, &request, out);
}

static bool has_tests(const kt_op *op) {
    return op->n_cases > 0 && (op->n_variants > 0 || op->n_body > 0);
}

// Makes the values of a test; sizes may change. The arena is the caller's.
static bool make(kt_arena *own, const kt_check_case *from, kt_check_case *c, kt_check_data *data) {
    *c = *from;
    c->dims = KT_NEW_ARRAY(own, int64_t, c->op->n_dims);
    memcpy(c->dims, from->dims, sizeof *c->dims * (size_t)c->op->n_dims);
    return kt_check_make(own, c, data);
}

// ---- sizes

typedef struct size_set {
    KT_VEC(int64_t) at;
} size_set;

static bool has(const size_set *set, int64_t size) {
    for (size_t i = 0; i < set->at.n; i++)
        if (set->at.at[i] == size) return true;
    return false;
}

static void add(size_set *set, int64_t size) {
    if (!has(set, size)) KT_PUSH(&arena, &set->at, size);
}

static int compare_sizes(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_sizes(FILE *to, const kt_op *op, int dim, size_set *set) {
    bool build = op->dims[dim].binding == KT_BINDING_BUILD;
    fprintf(to, "%-18.*s %-8.*s %-5s", KT_STR_ARG(op->name), KT_STR_ARG(op->dims[dim].name),
        build ? "build" : "plan");
    if (set->at.n > 0) qsort(set->at.at, set->at.n, sizeof *set->at.at, compare_sizes);
    for (size_t i = 0; i < set->at.n; i++) fprintf(to, " %" PRId64, set->at.at[i]);
    fprintf(to, "\n");
}

static void collect_sizes(const kt_op *op, kt_check_effort effort, uint64_t of_seed, size_set *to) {
    kt_check_list all;
    list(op, effort, of_seed, &all);
    for (size_t i = 0; i < all.cases.n; i++) {
        kt_arena own = {0};
        kt_check_case c;
        kt_check_data data;
        if (make(&own, &all.cases.at[i], &c, &data))
            for (int d = 0; d < op->n_dims; d++) add(&to[d], c.dims[d]);
        kt_arena_deinit(&own);
    }
}

static void base_of(const kt_op *op, int64_t *base) {
    for (int i = 0; i < op->n_dims; i++) base[i] = op->cases[0].dims[i].i;
}

// Does the dim follow from others: by a requirement, or as the values of an input are made?
static bool follows(const kt_op *op, int dim) {
    static const char *const made[][2] = {{"resize_plan", "px"}, {"resize_plan", "out"},
        {"resize_plan", "t"}, {"views", "px"}, {"queries", "m"}, {"rows", "rows"}};
    kt_check_search search = {.arena = &arena, .op = op, .registry = registry};
    int64_t base[DIMS_MAX], dims[DIMS_MAX];
    base_of(op, base);
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
        if (kt_check_uses(op, made[i][0]) && kt_str_is(op->dims[dim].name, made[i][1])) return true;
    for (int64_t more = 1; more <= 64; more++)
        if (kt_check_set(&search, base, dim, base[dim] + more, dims)) return false;
    return true;
}

static void expect_sizes(const kt_op *op, int dim, const size_set *set) {
    static const int64_t wanted[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};
    kt_check_search search = {.arena = &arena, .op = op, .registry = registry};
    int64_t base[DIMS_MAX], dims[DIMS_MAX];
    base_of(op, base);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (kt_check_set(&search, base, dim, wanted[i], dims) && !has(set, wanted[i]))
            fail_msg("%.*s is never run with %.*s = %" PRId64 ", seed %" PRIu64,
                KT_STR_ARG(op->name), KT_STR_ARG(op->dims[dim].name), wanted[i], seed);
}

static void plan_dims_are_tried_in_full(void **state) {
    (void)state;
    const char *build = kt_os_getenv("BUILD");
    FILE *table = kt_os_fopen(kt_path_join(&arena, build ? build : "build", "op_sizes.txt"), "w");
    assert_non_null(table);
    for (int o = 0; o < n_ops; o++) {
        const kt_op *op = ops[o];
        size_set sets[DIMS_MAX];
        memset(sets, 0, sizeof sets);
        if (!has_tests(op)) continue;
        collect_sizes(op, KT_CHECK_QUICK, seed, sets);
        for (int d = 0; d < op->n_dims; d++) {
            print_sizes(table, op, d, &sets[d]);
            bool plan = op->dims[d].binding == KT_BINDING_PLAN;
            // A body's own ops are tried around every tile.
            if (plan && op->n_variants > 0 && !follows(op, d)) expect_sizes(op, d, &sets[d]);
            if (plan && sets[d].at.n < (follows(op, d) ? 3 : 4))
                fail_msg("%.*s is run with %d sizes of %.*s", KT_STR_ARG(op->name),
                    (int)sets[d].at.n, KT_STR_ARG(op->dims[d].name));
        }
    }
    fclose(table);
}

// A full run has all sizes around tiles; some quick runs together have several.
static void build_dims_are_sampled(void **state) {
    (void)state;
    for (int o = 0; o < n_ops; o++) {
        const kt_op *op = ops[o];
        size_set full[DIMS_MAX], quick[DIMS_MAX];
        memset(full, 0, sizeof full);
        memset(quick, 0, sizeof quick);
        if (!has_tests(op) || op->n_variants == 0) continue;
        for (int k = 0; k <= SEEDS; k++) {
            kt_check_list some;
            list(op, k == SEEDS ? KT_CHECK_FULL : KT_CHECK_QUICK, seed + (uint64_t)k, &some);
            for (size_t i = 0; i < some.cases.n; i++)
                for (int d = 0; d < op->n_dims; d++)
                    add(k == SEEDS ? &full[d] : &quick[d], some.cases.at[i].dims[d]);
        }
        for (int d = 0; d < op->n_dims; d++) {
            if (op->dims[d].binding != KT_BINDING_BUILD || follows(op, d)) continue;
            if (full[d].at.n < 3 || quick[d].at.n < 2)
                fail_msg("%.*s, %.*s: %d sizes in full, %d in %d quick runs, seed %" PRIu64,
                    KT_STR_ARG(op->name), KT_STR_ARG(op->dims[d].name), (int)full[d].at.n,
                    (int)quick[d].at.n, SEEDS, seed);
        }
    }
}

// A search that must find what can be worked out by hand.
static void smallest_sizes_are_found(void **state) {
    (void)state;
    static const struct {
        const char *op, *dim;
        int64_t size;
    } known[] = {{"paged_attention", "hd", 8}, {"paged_attention", "qd", 8}, {"rms_norm", "d", 8},
        {"linear", "k", 8}, {"linear", "m", 1}, {"linear_parts", "k", 4}, {"rope", "hd", 2},
        {"tile_bnb", "k", 64}, {"tile_bnb", "c", 32}, {"tile_bnb_k16", "k", 16},
        {"tile_gguf_q4", "k", 32}, {"sample", "words", 1}, {"attention", "heads", 1},
        {"attention", "d", 8}, {"norm_qkv_rope", "hd", 2}, {"norm_qkv_rope", "kd", 2},
        {"decoder_layer", "hd", 8}, {"decoder_layer", "qd", 8}, {"decoder_layer", "kd", 8},
        {"decoder_layer", "d", 8}, {"decoder_layer", "f", 4}, {"vit_layer", "d", 8}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        kt_diag diag;
        kt_diag_init(&diag, &arena);
        kt_ref name = {.text = kt_str_from(known[i].op)};
        const kt_op *op = kt_registry_op(registry, name, &diag);
        assert_non_null(op);
        int dim = kt_op_dim_find(op, kt_str_from(known[i].dim));
        assert_true(dim >= 0);
        int64_t base[DIMS_MAX], least[DIMS_MAX];
        kt_check_search search = {.arena = &arena, .op = op, .registry = registry};
        base_of(op, base);
        kt_check_smallest(&search, base, least);
        if (least[dim] != known[i].size)
            fail_msg("%s: the smallest %s is %" PRId64 ", expected %" PRId64, known[i].op,
                known[i].dim, least[dim], known[i].size);
    }
}

// ---- choices

// What the weights are stored as; -1: not all alike.
static int store_of(const kt_check_case *c) {
    int store = -2;
    for (int i = 0; i < c->op->n_ports; i++) {
        const kt_type *type = &c->op->ports[i].type;
        kt_value k;
        if (type->base != KT_BASE_LINEAR || !c->present[i]) continue;
        assert_true(kt_check_value(c->op, type->axis[1], c->dims, NULL, &k));
        int now = (int)kt_check_store_fits(c->stores[i], k.i);
        store = store == -2 || store == now ? now : -1;
    }
    return store;
}

static bool has_choice(
    const kt_check_list *all, const kt_variant *v, int type, int choice, int store) {
    for (size_t i = 0; i < all->cases.n; i++) {
        const kt_check_case *c = &all->cases.at[i];
        if (c->variant != v || (type >= 0 && c->types[type] != choice)) continue;
        if (store < 0 || store_of(c) == store) return true;
    }
    return false;
}

static void expect_choices(const kt_op *op, const kt_variant *v, const kt_check_list *all) {
    bool linear = v->n_layouts > 0;
    for (int t = op->n_typevars > 0 ? 0 : -1; t < op->n_typevars; t++)
        for (int choice = 0; choice < (t < 0 ? 1 : op->typevars[t].n_choices); choice++)
            for (int store = linear ? 0 : -1; store < (linear ? KT_STORE_COUNT : 0); store++)
                if (!has_choice(all, v, t, choice, store))
                    fail_msg("%.*s[%.*s] is not run with type %d and %s, seed %" PRIu64,
                        KT_STR_ARG(op->name), KT_STR_ARG(v->name), choice,
                        store < 0 ? "-" : kt_check_store_name((kt_check_store)store), seed);
    for (int p = 0; p < op->n_params; p++)
        for (int choice = 0; choice < (int)op->params[p].n_choices; choice++) {
            bool found = op->params[p].kind != KT_PARAM_CHOICE;
            for (size_t i = 0; i < all->cases.n; i++)
                found = found ||
                        (all->cases.at[i].variant == v && all->cases.at[i].params[p].i == choice);
            assert_true(found);
        }
    for (int p = 0; p < op->n_ports; p++) {
        bool with = false, without = !op->ports[p].type.optional;
        for (size_t i = 0; i < all->cases.n; i++) {
            if (all->cases.at[i].variant != v) continue;
            with = with || all->cases.at[i].present[p];
            without = without || !all->cases.at[i].present[p];
        }
        assert_true(with && without);
    }
}

static void variants_get_every_type_and_storage(void **state) {
    (void)state;
    for (int o = 0; o < n_ops; o++)
        for (int k = 0; k < SEEDS; k++) {
            kt_check_list all;
            if (!has_tests(ops[o])) continue;
            list(ops[o], KT_CHECK_QUICK, seed + (uint64_t)k, &all);
            for (int v = 0; v < ops[o]->n_variants; v++)
                expect_choices(ops[o], &ops[o]->variants[v], &all);
        }
}

// ---- forms

static const int32_t *ints_of(const kt_check_data *data, const char *word, int *port) {
    const kt_op *op = data->of->op;
    for (*port = 0; *port < op->n_ports; ++*port) {
        const kt_given *generator = kt_check_generator(op, *port);
        kt_str name = op->ports[*port].name;
        bool offset = name.n >= 6 && kt_str_is(kt_str_slice(name, name.n - 6, name.n), "offset");
        if (!generator || !kt_str_is(generator->value->text, word)) continue;
        if (strcmp(word, "views") != 0 || offset) return data->ports[*port].at;
    }
    return NULL;
}

// How long the members of the batch are; returns how many there are.
static int64_t members(const kt_check_data *data, int64_t *lengths, int64_t most) {
    int port;
    const int32_t *segments = ints_of(data, "ragged", &port);
    int64_t n = segments ? data->ports[port].shape[0] : 0;
    for (int64_t i = 0; i < n && i < most; i++) lengths[i] = segments[4 * i + 2];
    if (segments) return n;
    const int32_t *offsets = ints_of(data, "offsets", &port);
    if (!offsets) offsets = ints_of(data, "views", &port);
    if (!offsets) return 0;
    n = data->ports[port].shape[0] - 1;
    for (int64_t i = 0; i < n && i < most; i++) lengths[i] = offsets[i + 1] - offsets[i];
    return n;
}

// Do two rows that are read in this test have a page in common, before where they are written?
static bool shares_pages(const kt_check_data *data) {
    int at_segments, at_table;
    const int32_t *segments = ints_of(data, "ragged", &at_segments);
    const int32_t *table = ints_of(data, "pages", &at_table);
    int64_t g = data->ports[at_segments].shape[0], width = data->ports[at_table].shape[1];
    for (int64_t a = 0; a < g; a++)
        for (int64_t b = 0; b < a; b++) {
            const int32_t *x = segments + 4 * a, *y = segments + 4 * b;
            bool both = x[2] > 0 && y[2] > 0 && x[0] != y[0] && x[1] >= PAGE && y[1] >= PAGE;
            if (both && table[x[0] * width] == table[y[0] * width]) return true;
        }
    return false;
}

typedef struct form_count {
    int empty[KT_FORM_COUNT], shared, permuted;
} form_count;

static void look_at_form(const kt_check_data *data, form_count *n) {
    int64_t lengths[16] = {0};
    int64_t count = members(data, lengths, 16), place = -1;
    kt_check_form form = data->of->form;
    bool any = false;
    if (form == KT_FORM_EMPTY_FIRST) place = 0;
    if (form == KT_FORM_EMPTY_MIDDLE) place = count / 2;
    if (form == KT_FORM_EMPTY_LAST) place = count - 1;
    for (int64_t i = 0; i < count && i < 16; i++) any = any || lengths[i] > 0;
    if (form == KT_FORM_SHARED) n->shared += shares_pages(data);
    if (place < 0 || count < 3 || count > 16) return;
    assert_int_equal(lengths[place], 0);
    n->empty[form] += any;
}

static void look_at_pages(const kt_check_data *data, form_count *n) {
    int port;
    const int32_t *table = ints_of(data, "pages", &port);
    int64_t pages = table ? data->ports[port].n : 0;
    bool falls = false;
    for (int64_t i = 1; i < pages; i++) falls = falls || table[i] < table[i - 1];
    n->permuted += falls;
}

static void look_at_case(kt_check_case *of, form_count *n) {
    kt_arena own = {0};
    kt_check_case c;
    kt_check_data data;
    if (of->form != KT_FORM_ANY && make(&own, of, &c, &data)) {
        look_at_form(&data, n);
        look_at_pages(&data, n);
    }
    kt_arena_deinit(&own);
}

static void ragged_batches_have_empty_members(void **state) {
    (void)state;
    for (int o = 0; o < n_ops; o++) {
        const kt_op *op = ops[o];
        form_count n = {{0}, 0, 0};
        bool ragged = kt_check_uses(op, "ragged") || kt_check_uses(op, "offsets") ||
                      kt_check_uses(op, "views");
        for (int k = 0; ragged && has_tests(op) && k < SEEDS; k++) {
            kt_check_list all;
            list(op, KT_CHECK_QUICK, seed + (uint64_t)k, &all);
            for (size_t i = 0; i < all.cases.n; i++) look_at_case(&all.cases.at[i], &n);
        }
        if (!ragged || !has_tests(op)) continue;
        // Now and then the pool has no room for the others.
        for (int form = KT_FORM_EMPTY_FIRST; form <= KT_FORM_EMPTY_LAST; form++)
            if (n.empty[form] < SEEDS / 2)
                fail_msg("%.*s: %s in %d of %d runs, seed %" PRIu64, KT_STR_ARG(op->name),
                    kt_check_form_name((kt_check_form)form), n.empty[form], SEEDS, seed);
        if (kt_check_uses(op, "pages") && (n.shared < SEEDS / 2 || n.permuted < SEEDS / 2))
            fail_msg("%.*s: pages shared in %d, permuted in %d of %d runs, seed %" PRIu64,
                KT_STR_ARG(op->name), n.shared, n.permuted, SEEDS, seed);
    }
}

// ---- kernels

static void kernels_stay_few(void **state) {
    (void)state;
    kt_op_check *check;
    kt_op_check_build *builds;
    kt_diag diag;
    kt_err err;
    int n = 0, n_tests = 0;
    kt_diag_init(&diag, &arena);
    kt_op_check_options options = {
        .registry = registry, .include = ".", .seed = seed, .quick = true, .arch = ARCH};
    if (kt_op_check_open(&options, &check, &diag, &err) != KT_OK) fail_msg("%s", err.text);
    if (kt_op_check_builds(check, &arena, ARCH, &builds, &n, &err) != KT_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < kt_op_check_count(check); i++) {
        kt_op_check_result r;
        kt_op_check_listed(check, i, &r);
        n_tests += r.n_runs;
        printf("# %-18.*s %4d tests %4d kernels\n", KT_STR_ARG(r.op->name), r.n_runs, r.n_builds);
    }
    printf("# %d tests, %d kernels\n", n_tests, n);
    assert_true(n > 100 && n_tests > 1000);
    assert_true(n <= KERNELS_MOST); // compiling them is a large part of a run without a GPU
    kt_op_check_close(check);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_dims_are_tried_in_full),
        cmocka_unit_test(build_dims_are_sampled),
        cmocka_unit_test(smallest_sizes_are_found),
        cmocka_unit_test(variants_get_every_type_and_storage),
        cmocka_unit_test(ragged_batches_have_empty_members),
        cmocka_unit_test(kernels_stay_few),
    };
    kt_diag diag;
    uint32_t drawn;
    int64_t given;
    const char *text = kt_os_getenv("KOTARO_SEED");
    kt_os_random(&drawn, sizeof drawn);
    seed = text && kt_str_to_i64(kt_str_from(text), &given) ? (uint64_t)given : drawn;
    printf("# seed %" PRIu64 "\n", seed);
    kt_diag_init(&diag, &arena);
    registry = kt_registry_open(&arena, "ops", NULL, 0, &diag);
    if (registry) ops = kt_registry_all(registry, &n_ops, &diag);
    int failed = n_ops > 0 ? cmocka_run_group_tests_name("op_list", tests, NULL, NULL) : 1;
    kt_arena_deinit(&arena);
    return failed;
}
