// Plans: the shipped pipelines on both targets, memory by simulation, sizes as symbols, layouts,
// builds. Above 700 lines, as all of it looks at the plans of one fixture.
#include "runtime/base/log.h"
#include "runtime/exec/load.h"
#include "runtime/plan/plan.h"
#include "tests/fabricate.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct fixture {
    kt_arena arena;
    kt_diag diag;
    kt_err err;
    kt_registry *registry;
    kt_pipeline *pipeline;
    kt_model model;
    kt_plan *plan;
    kt_status status;
} fixture;

static const kt_target cpu = {.cuda = false};
static const kt_target ada = {.cuda = true, .cc = 89, .sm_count = 24};
static const kt_target one_cpu = {.cuda = false, .slots = 1};
static const kt_target one_ada = {.cuda = true, .cc = 89, .sm_count = 24, .slots = 1};

static void show(const fixture *f) {
    kt_buf said = {0};
    kt_diag_print(&f->diag, &said);
    if (said.n) print_message("%s\n", said.at);
    if (f->status != KT_OK) print_message("%s\n", f->err.text);
    kt_buf_deinit(&said);
}

static void open_files(fixture *f, const char *pipeline, const char *folder) {
    static const char *const extra[] = {"tests/data/plan_ops"};
    *f = (fixture){0};
    kt_diag_init(&f->diag, &f->arena);
    f->registry = kt_registry_open(&f->arena, "ops", extra, 1, &f->diag);
    if (!f->registry) show(f);
    assert_non_null(f->registry);
    f->pipeline = kt_pipeline_open(&f->arena, pipeline, &f->diag);
    if (!f->pipeline) {
        show(f);
        fail();
        return;
    }
    f->status = kt_model_open(&f->arena, f->registry, f->pipeline->model_files,
        f->pipeline->n_model_files, folder, &f->model, &f->diag, &f->err);
    if (f->status != KT_OK) show(f);
    assert_int_equal(f->status, KT_OK);
}

static void make_plan(fixture *f, kt_target target) {
    kt_plan_request request = {
        .registry = f->registry, .pipeline = f->pipeline, .model = &f->model, .target = target};
    f->status = kt_plan_open(&f->arena, &request, &f->plan, &f->diag, &f->err);
}

static void open_plan(fixture *f, const char *pipeline, const char *folder, kt_target target) {
    open_files(f, pipeline, folder);
    make_plan(f, target);
    if (f->status != KT_OK) show(f);
    assert_int_equal(f->status, KT_OK);
}

static void close_plan(fixture *f) {
    kt_model_close(&f->model);
    kt_arena_deinit(&f->arena);
}

static const kt_stage *find_stage(const kt_plan *plan, const char *name) {
    for (int i = 0; i < plan->n_stages; i++)
        if (kt_str_is(plan->stages[i].name, name)) return &plan->stages[i];
    fail_msg("no stage '%s'", name);
    return NULL;
}

static const kt_call *find_call(const kt_step_list *list, const char *address) {
    for (int i = 0; i < list->n_steps; i++)
        if (list->steps[i].call && kt_str_is(list->steps[i].call->address, address))
            return list->steps[i].call;
    fail_msg("no call '%s'", address);
    return NULL;
}

// ---- memory by simulation: every byte of the activation block knows who wrote it last

typedef struct shadow {
    const kt_plan *plan;
    int *owner; // by unit of 256 bytes: hash of a name + 1
    int64_t units;
    int n_reads;
} shadow;

static int64_t unit_end(const kt_tensor *t) {
    return (t->offset + t->bytes + 255) / 256;
}

static int identity(const kt_tensor *t) {
    return (int)(kt_str_hash(t->name) & 0x3fffffff) + 1;
}

static bool is_act(const shadow *s, int tensor) {
    if (tensor < 0) return false;
    kt_home home = s->plan->tensors[tensor].home;
    return home == KT_HOME_ACT || (home == KT_HOME_UPLOAD && s->plan->target.slots == 1);
}

static void write_act(shadow *s, int tensor) {
    if (!is_act(s, tensor)) return;
    const kt_tensor *t = &s->plan->tensors[tensor];
    assert_int_equal(t->offset % 256, 0);
    assert_true(t->offset + t->bytes <= s->plan->bytes.act);
    for (int64_t u = t->offset / 256; u < unit_end(t); u++) s->owner[u] = identity(t);
}

static void read_act(shadow *s, int tensor, const kt_call *call) {
    if (!is_act(s, tensor)) return;
    const kt_tensor *t = &s->plan->tensors[tensor];
    s->n_reads++;
    for (int64_t u = t->offset / 256; u < unit_end(t); u++)
        if (s->owner[u] != identity(t))
            fail_msg("%.*s reads '%.*s', whose memory holds something else",
                KT_STR_ARG(call->address), KT_STR_ARG(t->name));
}

static bool overlap(const kt_tensor *a, const kt_tensor *b) {
    return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static bool may_take(const kt_call *call, int out, int in) {
    for (int i = 0; call->variant && i < call->variant->n_aliases; i++)
        if (call->variant->aliases[i].output == out && call->variant->aliases[i].input == in)
            return true;
    return false;
}

// Within one call: outputs and scratch lie apart from each other and from inputs, aliases excepted.
static void check_apart(const shadow *s, const kt_call *call) {
    const kt_tensor *all = s->plan->tensors;
    int n = call->op->n_ports, extra = call->variant ? call->variant->n_scratch : 0;
    for (int a = 0; a < n + extra; a++)
        for (int b = 0; b < a; b++) {
            int x = a < n ? call->ports[a] : call->scratch[a - n];
            int y = b < n ? call->ports[b] : call->scratch[b - n];
            bool a_in = a < n && call->op->ports[a].kind != KT_PORT_OUTPUT;
            bool b_in = b < n && call->op->ports[b].kind != KT_PORT_OUTPUT;
            if (!is_act(s, x) || !is_act(s, y) || (a_in && b_in) || !all[x].bytes || !all[y].bytes)
                continue;
            if (overlap(&all[x], &all[y]) && !(a < n && b < n && may_take(call, a, b)))
                fail_msg("'%.*s' and '%.*s' overlap in %.*s", KT_STR_ARG(all[x].name),
                    KT_STR_ARG(all[y].name), KT_STR_ARG(call->address));
        }
}

// What a host step uploads, batches excepted.
static void write_uploads(shadow *s, const kt_host_call *host) {
    const kt_tensor *all = s->plan->tensors;
    for (int i = 0; i < host->step->n_out; i++)
        if (host->out[i] >= 0 && !all[host->out[i]].each) write_act(s, host->out[i]);
}

static void run_list(shadow *s, const kt_step_list *list) {
    for (int i = 0; i < list->n_steps; i++) {
        const kt_call *call = list->steps[i].call;
        if (!call) write_uploads(s, list->steps[i].host);
        if (!call) continue;
        check_apart(s, call);
        for (int k = 0; k < call->op->n_ports; k++)
            if (call->op->ports[k].kind != KT_PORT_OUTPUT) read_act(s, call->ports[k], call);
        for (int k = 0; call->variant && k < call->variant->n_scratch; k++)
            write_act(s, call->scratch[k]);
        for (int k = 0; k < call->op->n_ports; k++)
            if (call->op->ports[k].kind == KT_PORT_OUTPUT) write_act(s, call->ports[k]);
    }
}

// Runs all stages as the executor would: loops and batches twice, each bucket on its own.
static void simulate(const kt_plan *plan) {
    shadow s = {.plan = plan, .units = plan->bytes.act / 256 + 1};
    int most = 1;
    for (int i = 0; i < plan->n_stages; i++)
        if (plan->stages[i].n_lists > most) most = plan->stages[i].n_lists;
    s.owner = calloc((size_t)s.units, sizeof *s.owner);
    assert_non_null(s.owner);
    for (int bucket = 0; bucket < most; bucket++) {
        for (int i = 0; i < plan->n_stages; i++)
            if (plan->stages[i].ahead) run_list(&s, &plan->stages[i].lists[0]);
        for (int i = 0; i < plan->n_stages; i++) {
            const kt_stage *stage = &plan->stages[i];
            if (stage->ahead) continue;
            const kt_step_list *list = &stage->lists[bucket < stage->n_lists ? bucket : 0];
            int times = stage->loop || stage->n_each ? 2 : 1;
            for (int t = 0; t < times; t++) {
                for (int e = 0; e < stage->n_each; e++) write_act(&s, stage->each[e]);
                run_list(&s, list);
            }
        }
    }
    assert_true(s.n_reads > 1);
    free(s.owner);
}

// Tensors of state and uploads have memory of their own; views lie inside it.
static void check_blocks(const kt_plan *plan) {
    const kt_home homes[] = {KT_HOME_STATE, KT_HOME_UPLOAD};
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < plan->n_tensors; i++) {
            const kt_tensor *a = &plan->tensors[i];
            if (a->home != homes[h]) continue;
            if (h && plan->target.slots == 1) continue; // among the activations
            int64_t end = h ? plan->bytes.upload : plan->bytes.state;
            assert_true(a->offset % 256 == 0 || a->offset + a->bytes <= end);
            assert_true(a->offset + a->bytes <= end);
            for (int k = 0; k < i; k++) {
                const kt_tensor *b = &plan->tensors[k];
                if (b->home != homes[h] || !overlap(a, b)) continue;
                bool inside =
                    b->offset <= a->offset && a->offset + a->bytes <= b->offset + b->bytes;
                bool around =
                    a->offset <= b->offset && b->offset + b->bytes <= a->offset + a->bytes;
                assert_true(inside || around); // one is a view of the other, or both of a third
            }
        }
}

// ---- weights

static int larger_end(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return x[0] < y[0] ? -1 : x[0] > y[0];
}

static void check_weight_blocks(const kt_plan *plan) {
    size_t n = 0;
    int64_t(*ranges)[2] =
        calloc((size_t)plan->n_layouts + (size_t)plan->model->n_weights, sizeof *ranges);
    assert_non_null(ranges);
    for (int i = 0; i < plan->n_layouts; i++) {
        const kt_layout *l = &plan->layouts[i];
        int64_t block = l->host_memory ? plan->bytes.host_weights : plan->bytes.weights;
        assert_true(l->bytes > 0 && l->offset % 256 == 0 && l->offset + l->bytes <= block);
        if (l->host_memory) continue;
        ranges[n][0] = l->offset;
        ranges[n++][1] = l->offset + l->bytes;
    }
    for (int i = 0; i < plan->model->n_weights; i++) {
        const kt_weight *w = &plan->model->weights[i];
        assert_int_equal(w->linear, plan->vector_offset[i] < 0);
        assert_int_equal(w->linear, plan->weight_layout[i] >= 0);
        if (w->linear) continue;
        ranges[n][0] = plan->vector_offset[i];
        ranges[n++][1] = plan->vector_offset[i] + 4 * w->shape[0];
    }
    qsort(ranges, n, sizeof *ranges, larger_end);
    for (size_t i = 1; i < n; i++) assert_true(ranges[i - 1][1] <= ranges[i][0]);
    free(ranges);
}

// Every row of every weight goes to a row of its own, and the calls of a prepare fit together.
static void check_prepares(const kt_plan *plan) {
    for (int i = 0; i < plan->n_layouts; i++) {
        const kt_layout *l = &plan->layouts[i];
        size_t rows = (size_t)((l->rows + 15) / 16 * 16 + 16);
        char *taken = calloc(rows, 1);
        assert_non_null(taken);
        for (int w = 0; w < l->n_prepares; w++) {
            const kt_prepare *p = &l->prepares[w];
            assert_true(p->row_from < p->row_to);
            assert_in_range(p->n_calls, 1, 2);
            assert_true(p->staging_bytes <= plan->bytes.staging);
            for (int k = 0; k < p->n_parts; k++) {
                const kt_tensor *t = &plan->tensors[p->part_tensors[k]];
                assert_int_equal(t->home, KT_HOME_STAGING);
                assert_true(t->offset % 256 == 0 && t->offset + t->bytes <= p->staging_bytes);
            }
            for (int64_t r = 0; p->to && r < p->row_to - p->row_from; r++) {
                assert_in_range(p->to[r], 0, rows - 1);
                assert_false(taken[p->to[r]]);
                taken[p->to[r]] = 1;
            }
            const kt_call *last = &p->calls[p->n_calls - 1];
            for (int k = 0; k < last->op->n_ports; k++) {
                if (last->op->ports[k].kind != KT_PORT_OUTPUT) continue;
                const kt_tensor *t = &plan->tensors[last->ports[k]];
                assert_int_equal(t->home, KT_HOME_LAYOUT);
                assert_true(t->offset + t->bytes <= l->bytes);
            }
        }
        free(taken);
    }
}

static void check_builds(const kt_plan *plan) {
    for (int i = 0; i < plan->n_builds; i++) {
        const kt_build *b = &plan->builds[i];
        for (int k = 1; k < b->n_defines; k++)
            assert_true(strcmp(b->defines[k - 1], b->defines[k]) < 0);
        for (int o = 0; o < i; o++) {
            const kt_build *c = &plan->builds[o];
            bool same = b->op == c->op && b->variant == c->variant && b->n_defines == c->n_defines;
            for (int k = 0; same && k < b->n_defines; k++)
                same = !strcmp(b->defines[k], c->defines[k]);
            assert_false(same);
        }
    }
}

static void check_plan(const kt_plan *plan) {
    simulate(plan);
    check_blocks(plan);
    check_weight_blocks(plan);
    check_prepares(plan);
    check_builds(plan);
}

// ---- the shipped pipelines

static const char *const shipped[] = {
    "pipelines/full.yaml", "pipelines/simple.yaml", "pipelines/tags.yaml"};

static void shipped_pipelines_plan_for_both_targets(void **state) {
    (void)state;
    fabricate("build/fake/plan/vision", &fake_vision);
    for (int i = 0; i < 6; i++) {
        fixture f;
        open_plan(&f, shipped[i / 2], "build/fake/plan/vision", i % 2 ? ada : cpu);
        check_plan(f.plan);
        assert_int_equal(f.plan->n_stages, 6);
        assert_int_equal(f.diag.n_warnings, 0);
        close_plan(&f);
    }
}

static void text_pipeline_plans_for_both_targets(void **state) {
    (void)state;
    fabricate("build/fake/plan/text", &fake_text);
    for (int i = 0; i < 2; i++) {
        fixture f;
        open_plan(&f, "pipelines/chat_text.yaml", "build/fake/plan/text", i ? ada : cpu);
        check_plan(f.plan);
        assert_int_equal(kt_model_weight(&f.model, KT_STR("head")) != NULL, 1); // tied
        assert_null(kt_model_weight(&f.model, KT_STR("dec.0.attn.q_bias")));
        close_plan(&f);
    }
}

static void embedded_model_plans(void **state) {
    (void)state;
    if (kt_os_stat("models/kotaro-tiny/model.safetensors").kind != KT_PATH_FILE) skip();
    fixture f;
    open_files(&f, "pipelines/full.yaml", "models/kotaro-tiny");
    char *named = kt_pipeline_model(f.pipeline, &f.arena);
    assert_string_equal(named, "models/kotaro-tiny");
    make_plan(&f, ada);
    if (f.status != KT_OK) show(&f);
    assert_int_equal(f.status, KT_OK);
    check_plan(f.plan);
    close_plan(&f);
}

static void random_geometries_plan(void **state) {
    (void)state;
    unsigned seed;
    kt_os_random(&seed, sizeof seed);
    for (unsigned i = 0; i < 3; i++) {
        fake_model model = fake_random(seed + i);
        print_message("# geometry of seed %u: d %d, f %d, heads %d/%d of %d, dv %d, nf4 %d\n",
            seed + i, model.d, model.f, model.heads, model.kv_heads, model.hd, model.dv, model.nf4);
        fabricate("build/fake/plan/random", &model);
        for (int t = 0; t < 2; t++) {
            fixture f;
            open_plan(&f, "pipelines/full.yaml", "build/fake/plan/random", t ? ada : cpu);
            check_plan(f.plan);
            close_plan(&f);
        }
    }
}

// ---- stages

static void stages_know_when_they_may_run_ahead(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "pipelines/full.yaml", "build/fake/plan/vision", cpu);
    static const char *const order[] = {"image", "prompt", "vision", "prefill", "decode", "answer"};
    for (int i = 0; i < 6; i++) {
        assert_true(kt_str_is(f.plan->stages[i].name, order[i]));
        assert_int_equal(f.plan->stages[i].ahead, i == 0);
        assert_int_equal(f.plan->stages[i].graph, i == 4);
        assert_int_equal(f.plan->stages[i].n_each, i == 3 ? 2 : 0);
    }
    const kt_stage *decode = find_stage(f.plan, "decode");
    assert_true(kt_str_is(f.plan->tensors[decode->loop_until].name, "gen.left"));
    assert_true(kt_str_is(f.plan->tensors[decode->loop_read].name, "gen.tokens"));
    assert_int_equal(decode->loop_most.max, 128);
    close_plan(&f);
}

// One picture at a time: what is uploaded lies among the activations, alive from the start where
// its stage runs ahead.
static void uploads_share_memory_with_activations(void **state) {
    (void)state;
    const kt_target targets[2][2] = {{cpu, one_cpu}, {ada, one_ada}};
    for (int i = 0; i < 2; i++) {
        fixture apart, shared;
        open_plan(&apart, "pipelines/full.yaml", "build/fake/plan/vision", targets[i][0]);
        open_plan(&shared, "pipelines/full.yaml", "build/fake/plan/vision", targets[i][1]);
        check_plan(shared.plan);
        assert_true(apart.plan->bytes.upload > 0);
        assert_int_equal(shared.plan->bytes.upload, 0);
        assert_true(kt_plan_target_bytes(shared.plan) <= kt_plan_target_bytes(apart.plan));
        close_plan(&apart);
        close_plan(&shared);
    }
}

static void buckets_fix_their_dim(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "pipelines/full.yaml", "build/fake/plan/vision", ada);
    const kt_stage *decode = find_stage(f.plan, "decode");
    const int64_t want[] = {1, 2, 4, 8};
    assert_int_equal(decode->n_lists, 4);
    assert_true(kt_str_is(f.plan->dims[decode->bucket_dim].name, "rows"));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(decode->lists[i].bucket, want[i]);
        const kt_call *embed = find_call(&decode->lists[i], "decode.0");
        const kt_tensor *ids =
            &f.plan->tensors[embed->ports[kt_op_port_find(embed->op, KT_STR("ids"))]];
        assert_int_equal(ids->axis[0].max, want[i]);
        assert_int_equal(ids->home, KT_HOME_STATE);
        for (int s = 0; s < decode->lists[i].n_steps; s++) {
            const kt_call *call = decode->lists[i].steps[s].call;
            for (int d = 0; d < call->op->n_dims; d++) assert_int_equal(call->dims[d].var, -1);
        }
    }
    const kt_call *attention = find_call(&decode->lists[2], "decode[l=1].0/1");
    assert_true(kt_str_is(attention->variant->name, "rows")); // n == g
    const kt_stage *prefill = find_stage(f.plan, "prefill");
    attention = find_call(&prefill->lists[0], "prefill[l=1].0/1");
    assert_false(kt_str_is(attention->variant->name, "rows"));
    close_plan(&f);
}

static void slices_of_state_lie_behind_each_other(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "pipelines/simple.yaml", "build/fake/plan/vision", cpu);
    const kt_stage *prefill = find_stage(f.plan, "prefill");
    int64_t offsets[2], bytes = 0;
    for (int l = 0; l < 2; l++) {
        char address[64];
        snprintf(address, sizeof address, "prefill[l=%d].0/0/7", l);
        const kt_call *append = find_call(&prefill->lists[0], address);
        const kt_tensor *pool =
            &f.plan->tensors[append->ports[kt_op_port_find(append->op, KT_STR("pool"))]];
        assert_int_equal(pool->rank, 5);
        offsets[l] = pool->offset;
        bytes = pool->bytes;
    }
    assert_int_equal(offsets[1] - offsets[0], bytes);
    close_plan(&f);
}

static void the_context_is_the_smaller_of_two(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "pipelines/simple.yaml", "build/fake/plan/vision", cpu);
    for (int i = 0; i < f.plan->n_tensors; i++)
        if (kt_str_is(f.plan->tensors[i].name, "table"))
            assert_int_equal(f.plan->tensors[i].axis[1].max, 512 / 16); // max_position_embeddings
    close_plan(&f);
}

// ---- sizes are symbols

static void conditions_see_symbols(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "tests/data/pipelines/two_sizes.yaml", "build/fake/plan/text", ada);
    const kt_step_list *list = &find_stage(f.plan, "sizes")->lists[0];
    assert_true(kt_str_is(find_call(list, "sizes.same")->variant->name, "same"));
    assert_true(kt_str_is(find_call(list, "sizes.apart")->variant->name, "large"));
    assert_true(kt_str_is(find_call(list, "sizes.varying")->variant->name, "any"));
    assert_true(kt_str_is(find_call(list, "sizes.few")->variant->name, "small"));
    close_plan(&f);
}

static void scratch_has_its_largest_size(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "tests/data/pipelines/two_sizes.yaml", "build/fake/plan/text", ada);
    const kt_call *call = find_call(&find_stage(f.plan, "sizes")->lists[0], "sizes.same");
    assert_int_equal(f.plan->tensors[call->scratch[0]].bytes, 4 * (2 * 16 + 3));
    const kt_tensor *counter = &f.plan->tensors[call->counters[0]];
    assert_int_equal(counter->home, KT_HOME_COUNTER);
    assert_true(counter->offset + counter->bytes <= f.plan->bytes.state);
    for (int i = 0; i < f.plan->n_tensors; i++)
        if (f.plan->tensors[i].home == KT_HOME_STATE)
            assert_true(f.plan->tensors[i].offset + f.plan->tensors[i].bytes <= counter->offset);
    close_plan(&f);
}

static void loops_keep_what_they_read(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        fixture f;
        open_plan(&f, "tests/data/pipelines/keeps.yaml", "build/fake/plan/text", i ? ada : cpu);
        simulate(f.plan);
        assert_int_equal(f.plan->bytes.act, (i ? 2 : 3) * 1280); // 5 rows of 64; aliases share
        close_plan(&f);
    }
}

static void launches_follow_the_request(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "pipelines/full.yaml", "build/fake/plan/vision", ada);
    const kt_call *embed = find_call(&find_stage(f.plan, "prefill")->lists[0], "prefill.embed");
    int64_t values[64];
    for (int i = 0; i < f.plan->n_dims; i++) values[i] = f.plan->dims[i].max;
    kt_geometry g;
    assert_int_equal(kt_plan_geometry(f.plan, embed, 0, values, &g, &f.err), KT_OK);
    assert_int_equal(g.grid[0], 512);
    for (int i = 0; i < f.plan->n_dims; i++)
        if (kt_str_is(f.plan->dims[i].name, "tokens")) values[i] = 37;
    assert_int_equal(kt_plan_geometry(f.plan, embed, 0, values, &g, &f.err), KT_OK);
    assert_int_equal(g.grid[0], 37);
    double flops, bytes, most, all;
    kt_plan_cost(f.plan, embed, values, &flops, &bytes);
    kt_plan_cost(f.plan, embed, NULL, &flops, &most);
    assert_true(bytes > 0 && bytes < most);
    const kt_call *down = find_call(&find_stage(f.plan, "decode")->lists[0], "decode[l=0].0/4");
    kt_plan_cost(f.plan, down, NULL, &flops, &all);
    assert_true(flops == 2.0 * 1 * 128 * 192); // one row, d outputs, f inputs
    close_plan(&f);
}

// ---- weights and builds

static void tiles_of_every_format(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "pipelines/full.yaml", "build/fake/plan/vision", ada);
    int64_t i;
    assert_true(kt_table_find(&f.model.by_name, KT_STR("dec.0.down"), &i));
    const kt_layout *nf4 = &f.plan->layouts[f.plan->weight_layout[i]];
    assert_true(kt_str_is(nf4->name, "tiles_lut4"));
    assert_int_equal(nf4->n_weights, 1);
    assert_int_equal(nf4->rows, 128);
    assert_true(kt_table_find(
        &f.model.by_name, KT_STR("vit.0.mlp.up"), &i)); // 144 columns: blocks straddle rows
    assert_true(kt_str_is(f.plan->layouts[f.plan->weight_layout[i]].name, "tiles_lut4_k16"));
    assert_true(kt_table_find(&f.model.by_name, KT_STR("embed"), &i));
    const kt_layout *embed = &f.plan->layouts[f.plan->weight_layout[i]];
    assert_true(embed->host_memory && kt_str_is(embed->name, "rows_f16"));
    assert_int_equal(embed->bytes, 160 * 128 * 2);
    close_plan(&f);
}

static void without_a_prepare_op_rows_are_unpacked_first(void **state) {
    (void)state;
    fake_model model = fake_vision;
    model.dv = 72 * 3; // 216 columns: no multiple of 16
    model.vis_heads = 3;
    fabricate("build/fake/plan/odd", &model);
    fixture f;
    open_plan(&f, "pipelines/full.yaml", "build/fake/plan/odd", ada);
    check_plan(f.plan);
    int64_t i;
    assert_true(kt_table_find(&f.model.by_name, KT_STR("vit.0.mlp.up"), &i));
    const kt_layout *l = &f.plan->layouts[f.plan->weight_layout[i]];
    assert_true(kt_str_is(l->name, "tiles_f16"));
    assert_int_equal(l->prepares[0].n_calls, 2);
    const kt_call *calls = l->prepares[0].calls;
    assert_true(kt_str_is(calls[0].op->name, "unpack_bnb"));
    assert_true(kt_str_is(calls[1].op->name, "tile_f16"));
    int values = calls[1].ports[kt_op_port_find(calls[1].op, KT_STR("values"))];
    assert_int_equal(values, calls[0].ports[kt_op_port_find(calls[0].op, KT_STR("rows"))]);
    assert_int_equal(f.plan->tensors[values].home, KT_HOME_STAGING);
    close_plan(&f);
}

// Bytes of a CPU back end's weights after loading, one tensor after another.
static char *loaded_weights(fixture *f, int64_t *bytes) {
    kt_cpu_options options = {.include = "."};
    kt_backend *backend;
    kt_load_stats stats;
    kt_buf out = {0};
    assert_int_equal(kt_cpu_backend_open(&f->arena, f->plan, &options, &backend, &f->err), KT_OK);
    assert_int_equal(kt_load_weights(backend, NULL, &stats, &f->err), KT_OK);
    for (int i = 0; i < f->plan->n_tensors; i++) {
        const kt_tensor *t = &f->plan->tensors[i];
        if (t->home != KT_HOME_LINEAR && t->home != KT_HOME_VECTOR) continue;
        int64_t n = t->home == KT_HOME_LINEAR ? 2 : 4;
        for (int a = 0; a < t->rank; a++) n *= t->axis[a].max;
        char *at = calloc(1, (size_t)n + 1);
        assert_non_null(at);
        assert_int_equal(backend->table->get(backend, i, 0, at, n, &f->err), KT_OK);
        kt_buf_str(&out, (kt_str){at, (size_t)n});
        free(at);
    }
    backend->table->close(backend);
    *bytes = (int64_t)out.n;
    return out.at;
}

// Weights prepared in ranges of rows are the same as those prepared whole.
static void rows_are_prepared_in_ranges(void **state) {
    (void)state;
    static const char *const folders[] = {"build/fake/plan/vision", "build/fake/plan/odd"};
    for (int i = 0; i < 2; i++) {
        fixture whole, parts, gpu;
        kt_target small = cpu, small_ada = ada;
        small.staged_bytes = small_ada.staged_bytes = 1 << 12;
        open_plan(&whole, "pipelines/full.yaml", folders[i], cpu);
        open_plan(&parts, "pipelines/full.yaml", folders[i], small);
        open_plan(&gpu, "pipelines/full.yaml", folders[i], small_ada);
        check_prepares(parts.plan);
        check_prepares(gpu.plan);
        int n_split[2] = {0, 0};
        for (int k = 0; k < parts.plan->n_layouts; k++)
            n_split[0] += parts.plan->layouts[k].n_prepares > parts.plan->layouts[k].n_weights;
        for (int k = 0; k < gpu.plan->n_layouts; k++)
            n_split[1] += gpu.plan->layouts[k].n_prepares > gpu.plan->layouts[k].n_weights;
        assert_true(n_split[0] > 2 && n_split[1] > 2);
        assert_true(parts.plan->bytes.staging < whole.plan->bytes.staging);
        int64_t n[2];
        char *a = loaded_weights(&whole, &n[0]), *b = loaded_weights(&parts, &n[1]);
        assert_int_equal(n[0], n[1]);
        assert_true(n[0] > 1000);
        assert_memory_equal(a, b, (size_t)n[0]);
        free(a);
        free(b);
        close_plan(&whole);
        close_plan(&parts);
        close_plan(&gpu);
    }
}

static void orders_of_rows(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "tests/data/pipelines/orders.yaml", "build/fake/plan/orders", ada);
    check_plan(f.plan);
    int64_t gate, up, q;
    assert_true(kt_table_find(&f.model.by_name, KT_STR("dec.1.mlp.gate"), &gate));
    assert_true(kt_table_find(&f.model.by_name, KT_STR("dec.1.mlp.up"), &up));
    assert_true(kt_table_find(&f.model.by_name, KT_STR("dec.1.attn.q"), &q));
    assert_int_equal(f.plan->weight_layout[gate], f.plan->weight_layout[up]);
    const kt_layout *pairs = &f.plan->layouts[f.plan->weight_layout[gate]];
    const kt_layout *halves = &f.plan->layouts[f.plan->weight_layout[q]];
    assert_int_equal(pairs->rows, 192);
    assert_int_equal(pairs->prepares[0].to[9], 17); // row 9 of gate: second group of 8, first half
    assert_int_equal(pairs->prepares[1].to[9], 25);
    assert_int_equal(
        halves->prepares[0].to[32 + 3], 32 + 3); // heads of 32: rows 3 and 19 lie 8 apart
    assert_int_equal(halves->prepares[0].to[32 + 19], 32 + 11);
    assert_int_equal(halves->prepares[0].to[32 + 8], 32 + 16);
    close_plan(&f);
}

// Two code books do not fit in one layout.
static void joint_weights_of_two_formats_are_unpacked(void **state) {
    (void)state;
    for (int two = 0; two < 2; two++) {
        fixture f;
        open_files(&f, "tests/data/pipelines/orders.yaml", "build/fake/plan/joint");
        kt_weight *up = (kt_weight *)kt_model_weight(&f.model, KT_STR("dec.1.mlp.up"));
        KT_ASSERT(up);
        assert_true(kt_str_is(up->format->name, "bnb_nf4"));
        if (two) up->format = kt_registry_format(f.registry, KT_STR("bnb_fp4"));
        make_plan(&f, ada);
        if (f.status != KT_OK) show(&f);
        assert_int_equal(f.status, KT_OK);
        const kt_layout *pair = &f.plan->layouts[f.plan->weight_layout[up - f.model.weights]];
        assert_int_equal(pair->n_weights, 2);
        assert_true(kt_str_is(pair->name, two ? "tiles_f16" : "tiles_lut4"));
        close_plan(&f);
    }
}

static void has_define(const kt_build *b, const char *define) {
    for (int i = 0; i < b->n_defines; i++)
        if (strcmp(b->defines[i], define) == 0) return;
    fail_msg("build of '%.*s' has no %s", KT_STR_ARG(b->op->name), define);
}

static void builds_say_what_kernels_see(void **state) {
    (void)state;
    fixture f;
    open_plan(&f, "pipelines/full.yaml", "build/fake/plan/vision", ada);
    const kt_call *up = find_call(&find_stage(f.plan, "vision")->lists[0], "vision[v=0].0/3/2");
    const kt_build *b = &f.plan->builds[up->build];
    has_define(b, "KT_K=144");
    has_define(b, "KT_M=288");
    has_define(b, "KT_Y=kt_f16");
    has_define(b, "KT_ACT=1");
    has_define(b, "KT_ACT_GELU_TANH=1");
    has_define(b, "KT_HAS_B=1");
    has_define(b, "KT_LAYOUT_W_TILES_LUT4_K16=1");
    const kt_call *again = find_call(&find_stage(f.plan, "vision")->lists[0], "vision[v=1].0/3/2");
    assert_int_equal(up->build, again->build);
    close_plan(&f);
}

// ---- limits

static void too_little_memory_says_what_is_needed(void **state) {
    (void)state;
    fixture f;
    open_files(&f, "pipelines/full.yaml", "build/fake/plan/vision");
    kt_target small = ada;
    small.memory_bytes = 1 << 20;
    make_plan(&f, small);
    assert_int_equal(f.status, KT_EMEMORY);
    static const char *const words[] = {"full", "weights", "state", "activations"};
    for (int i = 0; i < 4; i++) assert_non_null(strstr(f.err.text, words[i]));
    small.memory_bytes = (int64_t)1 << 33;
    make_plan(&f, small);
    assert_int_equal(f.status, KT_OK);
    close_plan(&f);
}

static void a_plan_prints(void **state) {
    (void)state;
    fixture f;
    kt_buf out = {0}, all = {0};
    open_plan(&f, "pipelines/full.yaml", "build/fake/plan/vision", ada);
    kt_plan_print(f.plan, false, &out);
    static const char *const words[] = {"stage decode, a graph", "the same for l = 1 .. 1",
        "rows = 8", "kt_paged_attention_rows", "pool f16[2, 32, 2, 1, 16, 64]", "in host memory",
        "tiles_lut4_k16"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strstr(out.at, words[i])) fail_msg("no '%s' in:\n%s", words[i], out.at);
    kt_plan_print(f.plan, true, &all);
    assert_true(all.n > out.n);
    assert_null(strstr(all.at, "the same for"));
    kt_buf_deinit(&out);
    kt_buf_deinit(&all);
    close_plan(&f);
}

static int setup(void **state) {
    (void)state;
    kt_log_set_level(KT_LOG_QUIET);
    fake_model orders = fake_text;
    orders.hd = 32;
    fabricate("build/fake/plan/vision", &fake_vision);
    fabricate("build/fake/plan/text", &fake_text);
    fabricate("build/fake/plan/orders", &orders);
    orders.nf4 = true;
    fabricate("build/fake/plan/joint", &orders);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_pipelines_plan_for_both_targets),
        cmocka_unit_test(text_pipeline_plans_for_both_targets),
        cmocka_unit_test(embedded_model_plans),
        cmocka_unit_test(random_geometries_plan),
        cmocka_unit_test(stages_know_when_they_may_run_ahead),
        cmocka_unit_test(uploads_share_memory_with_activations),
        cmocka_unit_test(buckets_fix_their_dim),
        cmocka_unit_test(slices_of_state_lie_behind_each_other),
        cmocka_unit_test(the_context_is_the_smaller_of_two),
        cmocka_unit_test(conditions_see_symbols),
        cmocka_unit_test(scratch_has_its_largest_size),
        cmocka_unit_test(loops_keep_what_they_read),
        cmocka_unit_test(launches_follow_the_request),
        cmocka_unit_test(tiles_of_every_format),
        cmocka_unit_test(without_a_prepare_op_rows_are_unpacked_first),
        cmocka_unit_test(rows_are_prepared_in_ranges),
        cmocka_unit_test(orders_of_rows),
        cmocka_unit_test(joint_weights_of_two_formats_are_unpacked),
        cmocka_unit_test(builds_say_what_kernels_see),
        cmocka_unit_test(too_little_memory_says_what_is_needed),
        cmocka_unit_test(a_plan_prints),
    };
    return cmocka_run_group_tests_name("plan", tests, setup, NULL);
}
