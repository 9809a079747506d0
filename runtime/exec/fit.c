#include "runtime/exec/fit.h"

#include <inttypes.h>

// What makes plans smaller, and the sizes to try, the largest first.
typedef struct smaller {
    const char *name;
    int64_t sizes[3];
} smaller;

static const smaller table[] = {
    {"context", {2048, 1024, 512}},
    {"chunk", {256, 128, 64}},
    {"image.longest", {512, 448, 336}},
    {"image.slices", {4, 2, 1}},
    {"max_new", {512, 128, 64}},
};

enum { N_SMALLER = sizeof table / sizeof table[0], N_SIZES = 3 };

// Is `size` less than what the pipeline has now? 0 is the picture's own size, the largest there is.
static bool is_less(const kt_session *s, const char *name, int64_t size) {
    kt_value now;
    if (!kt_pipeline_number(s->pipeline, name, &now)) return false;
    return now.i > size || (now.i == 0 && kt_str_is(kt_str_from(name), "image.longest"));
}

static bool set(kt_session *s, const char *name, int64_t size, kt_arena *arena) {
    kt_diag diag;
    kt_diag_init(&diag, arena);
    const char *text = kt_arena_printf(arena, "%" PRId64, size);
    return kt_pipeline_set(s->pipeline, kt_str_from(name), kt_str_from(text), &diag);
}

// Bytes of the plan with the settings as they are; -1: there is none.
static int64_t plan_bytes(kt_session *s, const kt_target *target, kt_arena *arena) {
    kt_plan *plan = NULL;
    kt_diag diag;
    kt_err err;
    kt_diag_init(&diag, arena);
    kt_plan_request request = {
        .registry = s->registry, .pipeline = s->pipeline, .model = &s->model, .target = *target};
    request.target.memory_bytes = 0;
    if (kt_plan_open(arena, &request, &plan, &diag, &err) != KT_OK || diag.n_errors > 0) return -1;
    return kt_plan_target_bytes(plan);
}

static void note(kt_err *err, const char *settings, int64_t bytes) {
    kt_err_note(err, "with %s it needs %.1f MiB", settings, (double)bytes / (1024.0 * 1024.0));
}

// The largest of the sizes with which it fits; true if one does. Else the smallest stays set.
static bool try_sizes(
    kt_session *s, const kt_target *target, const smaller *what, kt_arena *arena, kt_err *err) {
    for (int i = 0; i < N_SIZES; i++) {
        if (!is_less(s, what->name, what->sizes[i])) continue;
        if (!set(s, what->name, what->sizes[i], arena)) return false;
        int64_t bytes = plan_bytes(s, target, arena);
        if (bytes < 0 || bytes > target->memory_bytes) continue;
        note(err, kt_arena_printf(arena, "--set %s=%" PRId64, what->name, what->sizes[i]), bytes);
        return true;
    }
    return false;
}

static kt_pipe_param *param_of(kt_session *s, const char *name) {
    for (int i = 0; i < s->pipeline->n_params; i++)
        if (kt_str_is(s->pipeline->params[i].param.name, name)) return &s->pipeline->params[i];
    return NULL;
}

static bool try_together(kt_session *s, const kt_target *target, kt_arena *arena, kt_err *err) {
    kt_buf text = {0};
    for (int i = 0; i < N_SMALLER; i++) {
        int64_t size = table[i].sizes[N_SIZES - 1];
        if (!is_less(s, table[i].name, size) || !set(s, table[i].name, size, arena)) continue;
        kt_buf_printf(&text, "%s--set %s=%" PRId64, text.n ? " " : "", table[i].name, size);
    }
    int64_t bytes = text.n ? plan_bytes(s, target, arena) : -1;
    bool fits = bytes >= 0 && bytes <= target->memory_bytes;
    if (fits) note(err, text.at, bytes);
    kt_buf_deinit(&text);
    return fits;
}

void kt_fit_notes(kt_session *s, const kt_target *target, kt_err *err) {
    kt_arena arena = {0};
    const kt_node *values[N_SMALLER] = {0};
    bool any = false;
    for (int i = 0; i < N_SMALLER; i++) {
        kt_pipe_param *param = param_of(s, table[i].name);
        if (!param) continue;
        values[i] = param->value;
        any = try_sizes(s, target, &table[i], &arena, err) || any;
        param->value = values[i];
    }
    if (!any) any = try_together(s, target, &arena, err);
    for (int i = 0; i < N_SMALLER; i++) {
        kt_pipe_param *param = param_of(s, table[i].name);
        if (param) param->value = values[i];
    }
    if (!any)
        kt_err_note(err, "no smaller setting is enough: close other programs, or take a smaller "
                         "model or a 4-bit one");
    kt_arena_deinit(&arena);
}
