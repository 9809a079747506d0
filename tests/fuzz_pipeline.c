// Any bytes as a pipeline: planned for both targets with a model of one constant, printed and
// explained, or errors that can be printed. Seeds: pipelines, tests/bad/pipeline,
// tests/data/pipelines. Run it at the top of the tree, where ops/ is.
#include "runtime/plan/plan.h"
#include "tests/fuzz.h"

static kt_registry *shared_registry(void) {
    static kt_arena arena;
    static kt_registry *registry;
    static const char *const folders[] = {"tests/data/bad_ops"};
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    if (!registry) registry = kt_registry_open(&arena, "ops", folders, 1, &diag);
    return registry;
}

static void plan(kt_arena *arena, kt_pipeline *pipeline, bool cuda, kt_diag *diag, kt_buf *out) {
    static const kt_str constant = {"d", 1}, index = {"l", 1};
    static const int64_t count = 2;
    const kt_value value = kt_value_int(64);
    kt_model model = {
        .arena = arena, .constant_names = &constant, .constants = &value, .n_constants = 1};
    model.index_names = &index;
    model.index_counts = &count;
    model.n_indexes = 1;
    kt_table_init(&model.by_name, arena);
    kt_plan_request request = {
        .registry = shared_registry(), .pipeline = pipeline, .model = &model};
    request.target = (kt_target){.cuda = cuda, .cc = 89, .sm_count = 24};
    kt_plan *made;
    kt_err err;
    if (request.registry && kt_plan_open(arena, &request, &made, diag, &err) == KT_OK)
        kt_plan_print(made, true, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kt_arena arena = {0};
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    kt_buf out = {0};
    const kt_node *root =
        kt_yaml_parse(&arena, (kt_str){(const char *)data, size}, "pipelines/fuzz.yaml", &diag);
    kt_pipeline *pipeline =
        root == NULL ? NULL : kt_pipeline_read(&arena, root, "pipelines/fuzz.yaml", &diag);
    KT_ASSERT(pipeline || diag.n_errors > 0);
    if (pipeline) {
        kt_pipe_item *items;
        int n;
        kt_pipeline_explain(pipeline, &out);
        kt_pipeline_items(pipeline, &arena, &diag, &items, &n);
        plan(&arena, pipeline, false, &diag, &out);
        plan(&arena, pipeline, true, &diag, &out);
    }
    kt_diag_print(&diag, &out);
    kt_buf_deinit(&out);
    kt_arena_deinit(&arena);
    return 0;
}
