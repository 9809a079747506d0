// Tensors of a plan, and the names by which steps reach them.
#include "runtime/plan/plan_internal.h"

#include "loader/model_internal.h"
#include "loader/pipeline_internal.h"

#include <inttypes.h>

static bool size_bytes(const kt_tensor *t, int64_t *out) {
    int64_t n = t->home == KT_HOME_LINEAR || t->home == KT_HOME_HOST ? 0 : kt_dtype_bytes(t->dtype);
    for (int i = 0; i < t->rank; i++)
        if (!kt_mul(n, t->axis[i].max, &n)) return false;
    *out = n;
    return n <= KT_PLAN_TENSOR_MAX;
}

int kt_plan_tensor(kt_planner *p, const kt_tensor *tensor) {
    kt_tensor copy = *tensor;
    kt_life life = {(int)p->tensors.n, 0, -1, -1, -1, -1};
    if (!size_bytes(&copy, &copy.bytes)) {
        kt_diag_error(p->diag, KT_RULE_LIMIT, copy.at, "'%.*s' is larger than any memory",
            KT_STR_ARG(copy.name));
        copy.bytes = 0;
    }
    KT_PUSH(p->arena, &p->tensors, copy);
    KT_PUSH(p->arena, &p->lives, life);
    return (int)p->tensors.n - 1;
}

int kt_plan_view(kt_planner *p, int tensor, const kt_tensor *view, int64_t delta) {
    int made = kt_plan_tensor(p, view);
    p->lives.at[made].root = p->lives.at[tensor].root;
    p->lives.at[made].delta = p->lives.at[tensor].delta + delta;
    return made;
}

// The tensor as a list for one bucket sees it: the bucketed dim has the bucket's value.
static int bucket_view(kt_planner *p, int tensor, kt_place at) {
    const kt_tensor *t = &p->tensors.at[tensor];
    bool touched = false;
    if (p->bucket_dim < 0) return tensor;
    for (int i = 0; i < t->rank; i++) {
        if (t->axis[i].var != p->bucket_dim) continue;
        touched = true;
        if (i == 0) continue;
        kt_diag_error(p->diag, KT_RULE_STAGE, at,
            "'%.*s' is %s: a dim with buckets can only be the first axis of what a graph reads",
            KT_STR_ARG(t->name), kt_plan_type_text(p, tensor));
        return tensor;
    }
    if (!touched) return tensor;
    if (tensor < p->n_views && p->views[tensor]) return p->views[tensor];
    kt_tensor view = *t;
    view.axis[0] = kt_axis_fixed(p->bucket + t->axis[0].add);
    int made = kt_plan_view(p, tensor, &view, 0);
    if (tensor < p->n_views) p->views[tensor] = made;
    return made;
}

kt_scope_entry *kt_scope_find(kt_scope *scope, kt_str name) {
    for (size_t i = 0; i < scope->entries.n; i++)
        if (kt_str_eq(scope->entries.at[i].name, name)) return &scope->entries.at[i];
    return NULL;
}

bool kt_scope_define(kt_planner *p, kt_scope *scope, kt_ref name, int tensor) {
    const kt_scope_entry *old = kt_scope_find(scope, name.text);
    if (old) {
        kt_diag_error(
            p->diag, KT_RULE_NAME, name.at, "'%.*s' is defined twice", KT_STR_ARG(name.text));
        if (old->at.source) kt_diag_note_at(p->diag, old->at, "the first time");
        return false;
    }
    kt_scope_entry entry = {.name = name.text, .at = name.at, .tensor = tensor};
    KT_PUSH(p->arena, &scope->entries, entry);
    return true;
}

kt_str kt_plan_subst(kt_planner *p, kt_str name) {
    for (int i = 0; i < p->n_indexes && kt_str_find(name, '$') >= 0; i++) {
        bool found;
        name = kt_model_subst(p->arena, name, p->indexes[i].name, p->indexes[i].value, &found);
    }
    return name;
}

static kt_member *find_group(kt_planner *p, kt_scope *scope, kt_str name, kt_place at, int *n) {
    for (; scope; scope = scope->parent) {
        KT_VEC(kt_member) out = {0};
        kt_scope_entry *exact = kt_scope_find(scope, name);
        for (size_t i = 0; i < scope->entries.n; i++) {
            kt_scope_entry *entry = &scope->entries.at[i];
            kt_member member;
            if (exact && entry != exact) continue;
            if (!kt_name_in_group(entry->name, name, &member.name)) continue;
            entry->used = true;
            if (entry->internal) {
                kt_diag_error(p->diag, KT_RULE_STAGE, at,
                    "'%.*s' is made in a graph stage with buckets and ends with it",
                    KT_STR_ARG(entry->name));
                kt_diag_note(p->diag, "let the stage write it to a tensor under 'state'");
                return NULL;
            }
            const kt_tensor *t = &p->tensors.at[entry->tensor];
            if (t->home == KT_HOME_HOST) kt_plan_use_param(p, entry->name);
            member.tensor = bucket_view(p, entry->tensor, at);
            KT_PUSH(p->arena, &out, member);
        }
        *n = (int)out.n;
        if (out.n) return out.at;
    }
    *n = 0;
    return NULL;
}

// state.$l with the index filled in: a slice of the first axis of a state tensor.
static kt_member *find_slice(kt_planner *p, kt_scope *scope, kt_ref raw, kt_str name, int *n) {
    *n = 0;
    ptrdiff_t dot = kt_str_find_last(name, '.'), raw_dot = kt_str_find_last(raw.text, '.');
    if (dot < 0 || raw_dot < 0 || raw.text.at[raw_dot + 1] != '$') return NULL;
    int64_t k;
    if (!kt_str_to_i64(kt_str_slice(name, (size_t)dot + 1, name.n), &k)) return NULL;
    int n_stem = 0;
    kt_member *stem = find_group(p, scope, kt_str_slice(name, 0, (size_t)dot), raw.at, &n_stem);
    if (n_stem != 1 || stem[0].name.n) return NULL;
    kt_tensor view = p->tensors.at[stem[0].tensor];
    if (view.home != KT_HOME_STATE || view.rank < 2) return NULL;
    const char *type = kt_plan_type_text(p, stem[0].tensor);
    if (k >= view.axis[0].max) {
        kt_diag_error(p->diag, KT_RULE_SHAPE, raw.at, "slice %" PRId64 " of '%.*s', which is %s", k,
            KT_STR_ARG(view.name), type);
        return NULL;
    }
    for (int i = 1; i < view.rank; i++)
        if (view.axis[i].var >= 0) {
            kt_diag_error(p->diag, KT_RULE_SHAPE, raw.at,
                "'%.*s' is %s: only state whose further axes are fixed can be sliced",
                KT_STR_ARG(view.name), type);
            return NULL;
        }
    int64_t bytes = view.bytes / view.axis[0].max;
    view.rank--;
    for (int i = 0; i < view.rank; i++) view.axis[i] = view.axis[i + 1];
    view.name = name;
    kt_member *out = KT_NEW(p->arena, kt_member);
    out->tensor = kt_plan_view(p, stem[0].tensor, &view, k * bytes);
    *n = 1;
    return out;
}

static void report_unknown(kt_planner *p, kt_scope *scope, kt_str name, kt_place at) {
    KT_VEC(kt_str) known = {0};
    for (const kt_scope *s = scope; s; s = s->parent)
        for (size_t i = 0; i < s->entries.n; i++) {
            kt_str full = s->entries.at[i].name;
            KT_PUSH(p->arena, &known, full);
            ptrdiff_t dot = kt_str_find_last(full, '.');
            if (dot > 0) KT_PUSH(p->arena, &known, kt_str_slice(full, 0, (size_t)dot));
        }
    kt_diag_error(p->diag, KT_RULE_NAME, at, "unknown name '%.*s'", KT_STR_ARG(name));
    kt_diag_near(p->diag, name, known.at, known.n, false);
}

kt_member *kt_scope_group(kt_planner *p, kt_scope *scope, kt_ref name, int *n) {
    kt_str full = kt_plan_subst(p, name.text);
    int before = p->diag->n_errors;
    kt_member *out = find_group(p, scope, full, name.at, n);
    if (out && p->diag->n_errors == before) return out;
    if (p->diag->n_errors == before) out = find_slice(p, scope, name, full, n);
    if (out && p->diag->n_errors == before) return out;
    if (p->diag->n_errors == before) report_unknown(p, scope, full, name.at);
    *n = 0;
    return NULL;
}
