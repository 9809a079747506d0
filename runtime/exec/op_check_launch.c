// How large the launches of a plan's builds are, without a GPU.
#include "runtime/exec/op_check_parts.h"

typedef struct walk {
    const kt_plan *plan;
    int build;
    const int64_t *maxima; // by plan dim
    kt_geometry *most;     // by launch
} walk;

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static kt_status look_at_call(walk *w, const kt_call *call, kt_err *err) {
    if (!call || call->build != w->build) return KT_OK;
    for (int i = 0; i < call->variant->n_launches; i++) {
        kt_geometry g;
        KT_TRY(kt_plan_geometry(w->plan, call, i, w->maxima, &g, err));
        for (int axis = 0; axis < 3; axis++) {
            w->most[i].grid[axis] = larger(w->most[i].grid[axis], g.grid[axis]);
            w->most[i].block[axis] = larger(w->most[i].block[axis], g.block[axis]);
        }
        w->most[i].shared_bytes = larger(w->most[i].shared_bytes, g.shared_bytes);
    }
    return KT_OK;
}

static kt_status look_at_layout(walk *w, const kt_layout *layout, kt_err *err) {
    for (int i = 0; i < layout->n_prepares; i++)
        for (int c = 0; c < layout->prepares[i].n_calls; c++)
            KT_TRY(look_at_call(w, &layout->prepares[i].calls[c], err));
    return KT_OK;
}

static kt_status look_at_list(walk *w, const kt_step_list *list, kt_err *err) {
    for (int i = 0; i < list->n_steps; i++) KT_TRY(look_at_call(w, list->steps[i].call, err));
    return KT_OK;
}

kt_status kt_check_most(const kt_plan *plan, int build, kt_geometry *most, kt_err *err) {
    kt_arena tmp = {0};
    int64_t *maxima = KT_NEW_ARRAY(&tmp, int64_t, plan->n_dims + 1);
    for (int d = 0; d < plan->n_dims; d++) maxima[d] = plan->dims[d].max;
    walk w = {plan, build, maxima, most};
    kt_status status = KT_OK;
    for (int i = 0; i < plan->n_layouts && status == KT_OK; i++)
        status = look_at_layout(&w, &plan->layouts[i], err);
    for (int s = 0; s < plan->n_stages; s++)
        for (int l = 0; l < plan->stages[s].n_lists && status == KT_OK; l++)
            status = look_at_list(&w, &plan->stages[s].lists[l], err);
    kt_arena_deinit(&tmp);
    return status;
}
