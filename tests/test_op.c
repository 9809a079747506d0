// Manifests that are right: what is read from them, the kernel's parameters by rule, and the
// registry.
#include "loader/registry.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    kt_arena arena;
    kt_diag diag;
    const char *folder; // of this test's own ops
} fixture;

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return -1;
    kt_diag_init(&f->diag, &f->arena);
    kt_log_set_level(KT_LOG_QUIET);
    f->folder = test_folder(&f->arena);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    test_remove(f->folder);
    kt_arena_deinit(&f->arena);
    free(f);
    return 0;
}

static void expect_clean(fixture *f) {
    kt_buf out = {0};
    kt_diag_print(&f->diag, &out);
    if (f->diag.n_errors > 0) fail_msg("%s", out.at);
    kt_buf_deinit(&out);
}

static const char full_op[] =
    "kotaro: op/1\n"
    "name: scale\n"
    "doc: Everything a manifest can say.\n"
    "source: nobody\n"
    "types:\n  T: [f16, f32]\n"
    "dims:\n  n: plan, rows\n  d: build, columns\n  m: plan\n  s: plan, parts, of which there are "
    "few\n"
    "params:\n  eps: { type: f32, default: 1e-6, min: 0 }\n  act: { type: choice, of: [none, "
    "gelu], default: none }\n"
    "  top: { type: int, min: 1 }\n"
    "inputs:\n  x: T[n, d]\n  w.a: linear[m, d]\n  w.b: linear[m, d]\n  b: f32[m]?\n  offset: "
    "i32[n + 1]\n"
    "inout:\n  pool.k: f16[n, 2, 16]\n"
    "outputs:\n  y: T[n, d]\n  part: f32[s, n, ceil_div(m, 2)]\n"
    "require:\n  - d % 8 == 0\n"
    "cost:\n  flops: 2 * n * m * d\n"
    "variants:\n"
    "  - name: rows\n    when: n <= 8 and cc >= 80\n    alias: { y: x }\n"
    "    layouts:\n      ab: { of: [w.a, w.b], order: pairs, as: [tiles_lut4, tiles_f16], memory: "
    "host }\n"
    "    tune:\n      chunks: [8, 4]\n"
    "    scratch:\n      h: T[n, d]\n    counters:\n      done: u32[n]\n"
    "    launches:\n      - name: one\n        grid: chunks\n        block: 64\n"
    "      - name: two\n        grid:\n          x: n\n          y: ceil_div(m, 128)\n        "
    "block: 32 * chunks\n"
    "        shared: min(smem_max, 4096)\n        cooperative: true\n"
    "check:\n  offset: offsets\n  w: weights\n  tolerance: { f16: 2e-3, f32: 1e-5 }\n  cases:\n    "
    "- { n: 3, d: 64, m: 16, s: 0 }\n";

static void everything_is_read(void **state) {
    fixture *f = *state;
    test_put(&f->arena, f->folder, "full/scale/op.yaml", full_op);
    const kt_op *op =
        kt_op_open(&f->arena, kt_path_join(&f->arena, f->folder, "full/scale/"), true, &f->diag);
    expect_clean(f);
    assert_non_null(op);
    assert_true(op->shipped);
    assert_true(kt_str_is(op->cite, "nobody"));
    assert_int_equal(op->n_typevars, 1);
    assert_int_equal(op->typevars[0].choices[1], KT_DTYPE_F32);
    assert_int_equal(op->n_dims, 4);
    assert_int_equal(op->dims[1].binding, KT_BINDING_BUILD);
    assert_true(kt_str_is(op->dims[3].doc, "parts, of which there are few"));
    assert_int_equal(op->dims[0].solved_by, 0);
    assert_int_equal(
        op->dims[2].solved_by, kt_op_port_find(op, KT_STR("w.a"))); // not the optional b
    assert_int_equal(op->dims[3].solved_by, -1);
    assert_int_equal(op->n_inputs, 5);
    assert_int_equal(op->n_inout, 1);
    assert_int_equal(op->n_outputs, 2);
    assert_int_equal(op->ports[5].kind, KT_PORT_INOUT);
    assert_int_equal(op->n_require, 1);
    assert_non_null(op->cost_flops);
    assert_null(op->cost_bytes);
    assert_int_equal(kt_op_param_find(op, KT_STR("top")), 2);
    assert_int_equal(kt_op_typevar_find(op, KT_STR("U")), -1);
    assert_int_equal(op->n_generators, 2);
    assert_true(kt_str_is(op->generators[1].value->text, "weights"));
    assert_int_equal(op->cases[0].dims[1].i, 64);
    assert_int_equal(op->n_tolerances, 2);
}

static void variant_is_read(void **state) {
    fixture *f = *state;
    test_put(&f->arena, f->folder, "full/scale/op.yaml", full_op);
    const kt_op *op =
        kt_op_open(&f->arena, kt_path_join(&f->arena, f->folder, "full/scale"), false, &f->diag);
    expect_clean(f);
    const kt_variant *v = &op->variants[0];
    assert_true(kt_str_is(v->name, "rows"));
    assert_non_null(v->when);
    assert_int_equal(v->aliases[0].input, 0);
    assert_int_equal(v->layouts[0].n_of, 2);
    assert_int_equal(v->layouts[0].order, KT_ORDER_PAIRS);
    assert_true(v->layouts[0].host_memory);
    assert_true(kt_str_is(v->layouts[0].as[1], "tiles_f16"));
    assert_int_equal(v->tunes[0].values[1], 4);
    assert_int_equal(v->n_launches, 2);
    assert_null(v->launches[0].grid[1]);
    assert_non_null(v->launches[1].grid[1]);
    assert_true(v->launches[1].cooperative);
    assert_null(v->launches[0].shared);
}

// outputs, inout, plain inputs, layouts, scratch, counters, plan dims, params but choices
static void kernel_parameters_by_rule(void **state) {
    fixture *f = *state;
    test_put(&f->arena, f->folder, "full/scale/op.yaml", full_op);
    const kt_op *op =
        kt_op_open(&f->arena, kt_path_join(&f->arena, f->folder, "full/scale"), true, &f->diag);
    expect_clean(f);
    int n;
    const kt_arg *args = kt_op_args(&f->arena, op, &op->variants[0], &n);
    static const char *const want[] = {
        "y", "part", "pool.k", "x", "b", "offset", "ab", "h", "done", "n", "m", "s", "eps", "top"};
    assert_int_equal(n, 14);
    for (int i = 0; i < n; i++) {
        assert_true(kt_str_is(args[i].name, want[i]));
        assert_int_equal(args[i].bytes, i < 9 ? 8 : 4);
    }
    kt_buf out = {0};
    kt_op_print_prototype(op, &op->variants[0], &out);
    assert_string_equal(out.at,
        "extern \"C\" __global__ void kt_scale_rows_one(KT_T *y, float *part, kt_f16 *pool_k, "
        "const KT_T *x, const float *b, "
        "const int32_t *offset, const uint8_t *ab, KT_T *h, uint32_t *done, int32_t n, int32_t m, "
        "int32_t s, float eps, int32_t top);\n"
        "extern \"C\" __global__ void kt_scale_rows_two(KT_T *y, float *part, kt_f16 *pool_k, "
        "const KT_T *x, const float *b, "
        "const int32_t *offset, const uint8_t *ab, KT_T *h, uint32_t *done, int32_t n, int32_t m, "
        "int32_t s, float eps, int32_t top);\n");
    kt_buf_deinit(&out);
}

static void shipped_ops_are_right(void **state) {
    fixture *f = *state;
    kt_registry *registry = kt_registry_open(&f->arena, "ops", NULL, 0, &f->diag);
    expect_clean(f);
    int n;
    const kt_op *const *all = kt_registry_all(registry, &n, &f->diag);
    expect_clean(f);
    assert_true(n >= 29);
    for (int i = 1; i < n; i++) assert_true(kt_str_cmp(all[i - 1]->name, all[i]->name) < 0);
    assert_non_null(kt_registry_format(registry, KT_STR("bnb_nf4")));
    assert_null(kt_registry_format(registry, KT_STR("bnb_nf5")));
    const kt_op *op = kt_registry_prepare(registry, KT_STR("f16"), KT_STR("rows_f16"));
    assert_non_null(op);
    assert_true(kt_str_is(op->name, "unpack_f16"));
    assert_null(kt_registry_prepare(registry, KT_STR("f16"), KT_STR("tiles_lut4")));
    assert_true(kt_registry_layout_known(registry, KT_STR("tiles_lut4")));
    assert_false(kt_registry_layout_known(registry, KT_STR("tiles_lut5")));
    const kt_format *const *formats;
    int n_formats = kt_registry_formats(registry, &formats);
    for (int i = 1; i < n_formats; i++) // the plain one last, so that the first that fits is right
        assert_true(formats[i - 1]->when.n > 0);
}

// Every example in docs/ops.md that is a whole op or format is one.
static void examples_of_the_manual(void **state) {
    fixture *f = *state;
    kt_str text;
    kt_err err;
    assert_int_equal(kt_file_read(&f->arena, "docs/ops.md", 1 << 20, &text, &err), KT_OK);
    kt_str fence = KT_STR("```yaml\nkotaro: ");
    int n = 0;
    for (size_t i = 0; i + fence.n < text.n; i++) {
        if (!kt_str_starts(kt_str_slice(text, i, text.n), fence)) continue;
        size_t from = i + 8, to = from;
        while (to + 4 < text.n && !kt_str_starts(kt_str_slice(text, to, text.n), KT_STR("\n```")))
            to++;
        char *example = kt_str_z(&f->arena, kt_str_slice(text, from, to + 1));
        const kt_node *root =
            kt_yaml_parse(&f->arena, kt_str_from(example), "docs/ops.md", &f->diag);
        expect_clean(f);
        const char *name = kt_str_z(&f->arena, kt_node_find(root, "name")->value->text);
        if (kt_str_starts(kt_str_from(example), KT_STR("kotaro: op"))) {
            assert_true(
                kt_op_read(&f->arena, root, name, true, &f->diag) != NULL || f->diag.n_errors > 0);
        } else {
            const char *path = test_put(
                &f->arena, f->folder, kt_arena_printf(&f->arena, "%s.format.yaml", name), example);
            kt_format_open(&f->arena, path, path, &f->diag);
            kt_os_remove(path);
        }
        expect_clean(f);
        n++;
    }
    assert_int_equal(n, 3);
}

static void own_op_replaces_shipped_one(void **state) {
    fixture *f = *state;
    test_put(&f->arena, f->folder, "own/sum_parts/op.yaml",
        "kotaro: op/1\nname: sum_parts\ndoc: Another sum.\ndims:\n  n: plan\ninputs:\n  x: "
        "f32[n]\noutputs:\n  y: f32[n]\n"
        "variants:\n  - name: flat\n    launch:\n      grid: n\n      block: 32\n"
        "check:\n  tolerance: { f32: 0 }\n  cases:\n    - { n: 3 }\n");
    const char *own = kt_path_join(&f->arena, f->folder, "own");
    kt_registry *registry = kt_registry_open(&f->arena, "ops", &own, 1, &f->diag);
    assert_non_null(registry);
    const kt_op *op = kt_registry_op(registry, (kt_ref){KT_STR("sum_parts"), {0}}, &f->diag);
    assert_non_null(op);
    assert_false(op->shipped);
    assert_int_equal(op->n_dims, 1);
    assert_ptr_equal(
        op, kt_registry_op(registry, (kt_ref){KT_STR("sum_parts"), {0}}, &f->diag)); // read once
    assert_null(kt_registry_op(registry, (kt_ref){KT_STR("sum_part"), {0}}, &f->diag));
    assert_string_equal(f->diag.entries.at[0].message, "unknown op 'sum_part'");
    assert_string_equal(f->diag.entries.at[0].notes.at[0], "did you mean 'sum_parts'?");
}

static void steps_of_pipelines(void **state) {
    fixture *f = *state;
    const kt_node *root = kt_yaml_parse(&f->arena,
        KT_STR("repeat: l\ncarry: { x: x0 }\nyield: { x: x1 }\nsteps:\n"
               "  - { id: a, op: layer, in: { x: x, w: dec.$l }, inout: { pool: pool.$l }, out: { "
               "y: x1 }, params: sampler, dims: { s: 3 } }\n"
               "  - { host: read_image, in: { file: image } }\n"),
        "p.yaml", &f->diag);
    kt_step step;
    assert_true(kt_step_parse(&f->arena, root, false, &f->diag, &step));
    assert_true(kt_str_is(step.repeat.text, "l"));
    assert_int_equal(step.n_steps, 2);
    assert_true(kt_str_is(step.steps[0].in[1].name.text, "dec.$l"));
    assert_true(kt_str_is(step.steps[0].param_group.text, "sampler"));
    assert_true(kt_str_is(step.steps[1].host.text, "read_image"));
    assert_false(kt_step_parse(&f->arena, root, true, &f->diag, &step));
    static const char *const wrong[] = {"{ in: { x: x } }", "{ op: a, host: b }",
        "{ op: a, in: { x: [y] } }", "{ op: a, in: { x: 'a b' } }",
        "{ repeat: l, carry: { x: a }, yield: { y: b }, steps: [{ op: a }] }",
        "{ op: a, params: [x] }", "[op]", "{ repeat: l, carry: {}, yield: {}, steps: [] }"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int before = f->diag.n_errors;
        root = kt_yaml_parse(&f->arena, kt_str_from(wrong[i]), "w.yaml", &f->diag);
        assert_non_null(root);
        if (kt_step_parse(&f->arena, root, false, &f->diag, &step))
            fail_msg("accepted: %s", wrong[i]);
        assert_true(f->diag.n_errors > before);
    }
}

static void parameters_have_values(void **state) {
    fixture *f = *state;
    const kt_node *map = kt_yaml_parse(
        &f->arena, KT_STR("{ type: choice, of: [a, b], default: b }"), "p.yaml", &f->diag);
    kt_param p;
    kt_value v;
    assert_true(kt_param_parse(&f->arena, KT_STR("c"), (kt_place){0}, map, &f->diag, &p));
    assert_true(kt_param_number(&p, p.default_value, &v));
    assert_int_equal(v.i, 1);
    assert_false(kt_param_check(&p, kt_param_scalar(&f->arena, KT_STR("d")), &f->diag));
    map = kt_yaml_parse(&f->arena, KT_STR("{ type: f32, min: 0, max: 1 }"), "p.yaml", &f->diag);
    assert_true(kt_param_parse(&f->arena, KT_STR("top_p"), (kt_place){0}, map, &f->diag, &p));
    assert_true(kt_param_check(&p, kt_param_scalar(&f->arena, KT_STR("0.8")), &f->diag));
    assert_false(kt_param_check(&p, kt_param_scalar(&f->arena, KT_STR("1.8")), &f->diag));
    assert_string_equal(
        f->diag.entries.at[f->diag.entries.n - 1].message, "'top_p' is 1.8, its maximum is 1");
    assert_false(kt_param_check(&p, kt_param_scalar(&f->arena, KT_STR("nan")), &f->diag));
    map = kt_yaml_parse(&f->arena, KT_STR("{ type: text }"), "p.yaml", &f->diag);
    assert_true(kt_param_parse(&f->arena, KT_STR("shared"), (kt_place){0}, map, &f->diag, &p));
    assert_true(kt_param_check(
        &p, kt_yaml_parse(&f->arena, KT_STR("{ en: x, ja: y }"), "v.yaml", &f->diag), &f->diag));
    assert_false(kt_param_check(
        &p, kt_yaml_parse(&f->arena, KT_STR("{ en: [x] }"), "v.yaml", &f->diag), &f->diag));
    assert_false(kt_param_number(&p, kt_param_scalar(&f->arena, KT_STR("x")), &v));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(everything_is_read), TEST(variant_is_read),
        TEST(kernel_parameters_by_rule), TEST(shipped_ops_are_right), TEST(examples_of_the_manual),
        TEST(own_op_replaces_shipped_one), TEST(steps_of_pipelines), TEST(parameters_have_values)};
    return cmocka_run_group_tests_name("op", tests, NULL, NULL);
}
