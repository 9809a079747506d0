#include "tests/bad_pipelines.h"

#include "runtime/plan/plan.h"
#include "tests/fabricate.h"

#include <string.h>

static const char text_folder[] = "build/fake/bad/text", vision_folder[] = "build/fake/bad/vision";

static void make_models(void) {
    static bool made;
    if (made) return;
    fake_model vision = fake_vision;
    vision.vocab = 80;
    fabricate(text_folder, &fake_text);
    fabricate(vision_folder, &vision);
    made = true;
}

static void add_error(const kt_err *err, kt_diag *diag) {
    if (diag->n_errors == 0) kt_diag_error(diag, KT_RULE_FILE, (kt_place){0}, "%s", err->text);
}

static kt_registry *open_registry(kt_arena *arena, kt_diag *diag) {
    static const char *const folders[] = {"tests/data/bad_ops"};
    return kt_registry_open(arena, "ops", folders, 1, diag);
}

// Plans for the CPU and then, if that went well, for a GPU.
static void plan(kt_arena *arena, kt_plan_request *request, kt_diag *diag) {
    const kt_target targets[] = {{.cuda = false}, {.cuda = true, .cc = 89, .sm_count = 24}};
    for (int i = 0; i < 2 && diag->n_errors == 0; i++) {
        kt_plan *made;
        kt_err err;
        request->target = targets[i];
        if (kt_plan_open(arena, request, &made, diag, &err) != KT_OK) add_error(&err, diag);
    }
}

void bad_pipeline(kt_arena *arena, const char *path, kt_diag *diag) {
    make_models();
    kt_registry *registry = open_registry(arena, diag);
    kt_pipeline *pipeline = registry ? kt_pipeline_open(arena, path, diag) : NULL;
    kt_pipe_item *items;
    int n;
    if (!pipeline || !kt_pipeline_items(pipeline, arena, diag, &items, &n)) return;
    bool vision = kt_pipeline_param(pipeline, KT_STR("image.file")) != NULL;
    kt_model model;
    kt_err err;
    kt_status status = kt_model_open(arena, registry, pipeline->model_files,
        pipeline->n_model_files, vision ? vision_folder : text_folder, &model, diag, &err);
    if (status != KT_OK) {
        add_error(&err, diag);
        return;
    }
    kt_plan_request request = {.registry = registry, .pipeline = pipeline, .model = &model};
    plan(arena, &request, diag);
    kt_model_close(&model);
}

void bad_model(kt_arena *arena, const char *path, kt_diag *diag) {
    make_models();
    kt_registry *registry = open_registry(arena, diag);
    if (!registry || !kt_model_check(arena, path, diag)) return;
    bool vision = strstr(path, "quantised") != NULL;
    const char *files[] = {path};
    kt_model model;
    kt_err err;
    kt_status status = kt_model_open(
        arena, registry, files, 1, vision ? vision_folder : text_folder, &model, diag, &err);
    if (status == KT_OK)
        kt_model_close(&model);
    else
        add_error(&err, diag);
}
