// Which variant of an op serves a call, and what it is compiled with.
#include "runtime/plan/plan_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// ---- variants

static bool holds(const kt_expr *when, const kt_call_ctx *ctx) {
    kt_env env = kt_call_env(ctx);
    kt_value value;
    return kt_expr_compute(when, &env, &value) && value.r != 0;
}

// A condition must hold at the maxima and, as one choice serves all smaller sizes, also where each
// varying dim is 1 or one less than its maximum: `n == g` is only true of one symbol, `n > 8` of
// none.
static bool holds_everywhere(kt_planner *p, const kt_call *call) {
    const kt_expr *when = call->variant->when;
    kt_call_ctx ctx = {&p->target, call, NULL};
    if (!when) return true;
    if (!holds(when, &ctx)) return false;
    size_t n = p->dims.n;
    int64_t *values = KT_NEW_ARRAY(p->arena, int64_t, n + 1);
    ctx.values = values;
    for (size_t i = 0; i < n; i++) values[i] = p->dims.at[i].max;
    for (size_t i = 0; i < n; i++) {
        bool used = false;
        for (int d = 0; d < call->op->n_dims; d++) used = used || call->dims[d].var == (int)i;
        if (!used) continue;
        int64_t max = values[i], tries[] = {1, max > 1 ? max - 1 : 1};
        for (int t = 0; t < 2; t++) {
            values[i] = tries[t];
            if (!holds(when, &ctx)) return false;
        }
        values[i] = max;
    }
    return true;
}

static bool layouts_fit(kt_planner *p, const kt_bound *b, const kt_variant *variant) {
    for (int i = 0; i < variant->n_layouts; i++)
        if (kt_layout_get(p, b, &variant->layouts[i], true) < 0) return false;
    return true;
}

const kt_variant *kt_plan_select(kt_planner *p, const kt_bound *b, kt_str only) {
    for (int i = 0; i < b->op->n_variants; i++) {
        const kt_variant *variant = &b->op->variants[i];
        if (only.n && !kt_str_eq(variant->name, only)) continue;
        kt_call call = {.op = b->op, .variant = variant, .dims = b->dims, .params = b->params};
        int64_t *tunes = KT_NEW_ARRAY(p->arena, int64_t, variant->n_tunes);
        for (int t = 0; t < variant->n_tunes; t++) tunes[t] = variant->tunes[t].values[0];
        call.tunes = tunes;
        if (holds_everywhere(p, &call) && layouts_fit(p, b, variant)) return variant;
    }
    return NULL;
}

// ---- builds

typedef struct define_list {
    kt_arena *arena;
    KT_VEC(const char *) items;
} define_list;

static const char *upper(kt_arena *arena, kt_str name) {
    char *out = kt_arena_copy(arena, name.at, name.n);
    for (size_t i = 0; i < name.n; i++) out[i] = kt_op_macro_char(out[i]);
    return out;
}

static void add_number(define_list *d, kt_str name, int64_t value) {
    KT_PUSH(d->arena, &d->items,
        kt_arena_printf(d->arena, "KT_%s=%" PRId64, upper(d->arena, name), value));
}

static void add_flag(define_list *d, const char *prefix, kt_str a, kt_str b, int value) {
    const char *left = upper(d->arena, a), *right = upper(d->arena, b);
    KT_PUSH(d->arena, &d->items,
        kt_arena_printf(d->arena, "KT_%s%s%s%s=%d", prefix, left, b.n ? "_" : "", right, value));
}

static int compare(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void collect(kt_planner *p, const kt_call *call, define_list *d) {
    const kt_op *op = call->op;
    static const kt_str none = {"", 0};
    for (int i = 0; i < op->n_dims; i++)
        if (op->dims[i].binding == KT_BINDING_BUILD)
            add_number(d, op->dims[i].name, call->dims[i].max);
    for (int i = 0; i < op->n_typevars; i++)
        KT_PUSH(d->arena, &d->items,
            kt_arena_printf(d->arena, "KT_%s=kt_%s", upper(d->arena, op->typevars[i].name),
                kt_dtype_name(call->types[i])));
    for (int i = 0; i < call->variant->n_tunes; i++)
        add_number(d, call->variant->tunes[i].name, call->tunes[i]);
    for (int i = 0; i < op->n_params; i++) {
        if (op->params[i].kind != KT_PARAM_CHOICE) continue;
        int64_t chosen = call->params[i].i;
        add_number(d, op->params[i].name, chosen);
        add_flag(d, "", op->params[i].name, op->params[i].choices[chosen], 1);
    }
    for (int i = 0; i < op->n_ports; i++)
        if (op->ports[i].type.optional)
            add_flag(d, "HAS_", op->ports[i].name, none, call->ports[i] >= 0);
    for (int i = 0; i < call->variant->n_layouts; i++) {
        if (call->layouts[i] < 0) continue;
        add_flag(
            d, "LAYOUT_", call->variant->layouts[i].name, p->layouts.at[call->layouts[i]].name, 1);
    }
}

int kt_plan_build(kt_planner *p, const kt_call *call) {
    define_list d = {.arena = p->arena};
    collect(p, call, &d);
    if (d.items.n) qsort(d.items.at, d.items.n, sizeof *d.items.at, compare);
    kt_buf key = {0};
    kt_buf_printf(&key, "%s %.*s", call->op->folder, KT_STR_ARG(call->variant->name));
    for (size_t i = 0; i < d.items.n; i++) kt_buf_printf(&key, " %s", d.items.at[i]);
    int64_t found;
    kt_str name = {key.at, key.n};
    if (!kt_table_find(&p->build_index, name, &found)) {
        kt_build build = {call->op, call->variant, d.items.at, (int)d.items.n};
        KT_PUSH(p->arena, &p->builds, build);
        found = (int64_t)p->builds.n - 1;
        kt_table_set(&p->build_index, kt_str_copy(p->arena, name), found);
    }
    kt_buf_deinit(&key);
    return (int)found;
}
