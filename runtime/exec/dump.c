#include "runtime/exec/dump.h"

#include "runtime/base/f16.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <string.h>

// A name for something that a step makes or changes.
typedef struct target {
    kt_str name;
    int tensor;
    int step;   // in its list
    bool plain; // goes out where no address is asked for
} target;

typedef KT_VEC(target) target_list;

// What is chosen of one step list, in the order of its steps.
typedef struct chosen {
    const kt_step_list *list;
    kt_str stage;
    target_list targets;
    int *first; // by step, and one more: its first target
} chosen;

typedef struct pattern {
    kt_str text;   // without @
    int64_t index; // -1: all
    bool glob;
    bool made;
} pattern;

struct kt_dump {
    const kt_plan *plan;
    const kt_dump_to *to;
    pattern *patterns;
    int n_patterns;
    KT_VEC(chosen) lists;
    kt_arena tmp; // one tensor
    bool failed;
};

// ---- what there is

static void add_name(kt_arena *arena, target_list *out, target t) {
    if (t.step >= 0) KT_PUSH(arena, out, t);
}

static kt_str state_name(kt_arena *arena, kt_str address, kt_str state) {
    return kt_str_from(kt_arena_printf(arena, "%.*s.%.*s", KT_STR_ARG(address), KT_STR_ARG(state)));
}

// Can it be shown: numbers, prompts, grids and answers.
static bool shown(const kt_tensor *t) {
    if (t->home != KT_HOME_HOST) return true;
    return t->host == KT_HOST_TYPE_PROMPT || t->host == KT_HOST_TYPE_GRID ||
           t->host == KT_HOST_TYPE_ANSWERS;
}

static void call_outputs(const kt_call *call, int step, int *maker) {
    for (int k = 0; k < call->op->n_ports; k++)
        if (call->op->ports[k].kind == KT_PORT_OUTPUT && call->ports[k] >= 0)
            maker[call->ports[k]] = step;
}

static void host_outputs(const kt_host_call *call, int step, int *maker) {
    for (int k = 0; k < call->step->n_out; k++)
        if (call->out[k] >= 0) maker[call->out[k]] = step;
}

// By tensor: the step of the list that makes it, -1.
static int *find_makers(kt_arena *arena, const kt_plan *plan, const kt_step_list *list) {
    int *maker = KT_NEW_ARRAY(arena, int, plan->n_tensors + 1);
    for (int i = 0; i < plan->n_tensors; i++) maker[i] = -1;
    for (int i = 0; i < list->n_steps; i++) {
        if (list->steps[i].call)
            call_outputs(list->steps[i].call, i, maker);
        else
            host_outputs(list->steps[i].host, i, maker);
    }
    return maker;
}

static void add_state(
    kt_arena *arena, const kt_plan *plan, const kt_plan_step *step, int index, target_list *out) {
    const kt_call *call = step->call;
    const kt_host_call *host = step->host;
    for (int k = 0; call && k < call->op->n_ports; k++) {
        if (call->op->ports[k].kind != KT_PORT_INOUT || call->ports[k] < 0) continue;
        kt_str name = state_name(arena, call->address, plan->tensors[call->ports[k]].name);
        add_name(arena, out, (target){name, call->ports[k], index, false});
    }
    for (int k = 0; host && k < host->step->n_inout; k++) {
        if (host->inout[k] < 0) continue;
        kt_str name = state_name(arena, host->address, plan->tensors[host->inout[k]].name);
        add_name(arena, out, (target){name, host->inout[k], index, true});
    }
}

// Everything that has a name, the best names of a tensor first: the shortest way to it. Bodies are
// walked inside out.
static target_list name_all(kt_arena *arena, const kt_plan *plan, const kt_step_list *list) {
    static const kt_made_kind kinds[] = {KT_MADE_STEP, KT_MADE_BODY, KT_MADE_LAST};
    target_list out = {0};
    int *maker = find_makers(arena, plan, list);
    for (int k = 0; k < 3; k++)
        for (int i = list->n_made - 1; i >= 0; i--) {
            const kt_plan_made *made = &list->made[i];
            if (made->kind != kinds[k] || !shown(&plan->tensors[made->tensor])) continue;
            add_name(arena, &out, (target){made->name, made->tensor, maker[made->tensor], k == 0});
        }
    for (int i = 0; i < plan->n_tensors; i++)
        if (shown(&plan->tensors[i]))
            add_name(arena, &out, (target){plan->tensors[i].name, i, maker[i], false});
    for (int i = 0; i < list->n_steps; i++) add_state(arena, plan, &list->steps[i], i, &out);
    return out;
}

// ---- what is asked for

static bool ends_name(char c) {
    return c == '.' || c == '/' || c == '[';
}

static bool matches_exactly(const pattern *p, kt_str name) {
    return !p->glob && kt_str_eq(p->text, name);
}

static bool matches(const pattern *p, kt_str name) {
    if (p->glob) return kt_str_match(p->text, name);
    return kt_str_starts(name, p->text) && (name.n == p->text.n || ends_name(name.at[p->text.n]));
}

static pattern read_pattern(const char *text) {
    pattern p = {.text = kt_str_from(text), .index = -1};
    ptrdiff_t at = kt_str_find_last(p.text, '@');
    int64_t index;
    if (at > 0 && kt_str_to_i64(kt_str_slice(p.text, (size_t)at + 1, p.text.n), &index) &&
        index >= 0) {
        p.index = index;
        p.text = kt_str_slice(p.text, 0, (size_t)at);
    }
    p.glob = kt_str_find(p.text, '*') >= 0;
    return p;
}

static bool any_exactly(const kt_dump *d, kt_str name) {
    for (int i = 0; i < d->n_patterns; i++)
        if (matches_exactly(&d->patterns[i], name)) return true;
    return false;
}

static kt_str step_address(const kt_plan_step *step) {
    return step->call ? step->call->address : step->host->address;
}

// By its name, or because all that its step makes is asked for.
static bool matches_target(const pattern *p, kt_str name, kt_str step) {
    return matches(p, name) || (!p->glob && matches(p, step));
}

static bool any_matches(const kt_dump *d, kt_str name, kt_str step) {
    for (int i = 0; i < d->n_patterns; i++)
        if (matches_target(&d->patterns[i], name, step)) return true;
    return false;
}

// A tensor goes out under each name that is asked for as it is, and else under its best one.
static void choose(kt_arena *arena, kt_dump *d, chosen *c, const target_list *all) {
    bool *taken = KT_NEW_ARRAY(arena, bool, d->plan->n_tensors + 1);
    bool *keep = KT_NEW_ARRAY(arena, bool, all->n + 1);
    for (size_t i = 0; i < all->n; i++) {
        const target *t = &all->at[i];
        bool state = d->plan->tensors[t->tensor].home == KT_HOME_STATE; // changed by many steps
        keep[i] = d->n_patterns == 0 ? t->plain : any_exactly(d, t->name);
        if (keep[i] && !state) taken[t->tensor] = true;
    }
    for (size_t i = 0; d->n_patterns > 0 && i < all->n; i++) {
        const target *t = &all->at[i];
        kt_str step = step_address(&c->list->steps[t->step]);
        if (keep[i] || taken[t->tensor] || !any_matches(d, t->name, step)) continue;
        bool state = d->plan->tensors[t->tensor].home == KT_HOME_STATE;
        keep[i] = true;
        if (!state) taken[t->tensor] = true;
    }
    c->first = KT_NEW_ARRAY(arena, int, c->list->n_steps + 1);
    for (int s = 0; s < c->list->n_steps; s++) {
        c->first[s] = (int)c->targets.n;
        for (size_t i = 0; i < all->n; i++)
            if (keep[i] && all->at[i].step == s) KT_PUSH(arena, &c->targets, all->at[i]);
    }
    c->first[c->list->n_steps] = (int)c->targets.n;
}

// ---- addresses that nothing has

typedef KT_VEC(kt_str) name_list;

// Each once: the lists of a stage with buckets have the same ones.
static void add_names(kt_arena *arena, kt_table *seen, const target_list *all, name_list *out) {
    for (size_t i = 0; i < all->n; i++) {
        int64_t there;
        if (kt_table_find(seen, all->at[i].name, &there)) continue;
        kt_table_set(seen, all->at[i].name, 1);
        KT_PUSH(arena, out, all->at[i].name);
    }
}

static bool is_known(const pattern *p, const name_list *names) {
    for (size_t i = 0; i < names->n; i++)
        if (matches(p, names->at[i])) return true;
    return false;
}

static kt_status unknown(const kt_dump *d, const pattern *p, const name_list *names, kt_err *err) {
    kt_str near[2];
    KT_FAIL(err, KT_EUSAGE, "nothing in pipeline '%.*s' has the address '%.*s'",
        KT_STR_ARG(d->plan->pipeline->name), KT_STR_ARG(p->text));
    int n = p->glob ? 0 : kt_str_near(p->text, names->at, names->n, near);
    if (n == 1) kt_err_note(err, "did you mean '%.*s'?", KT_STR_ARG(near[0]));
    if (n == 2)
        kt_err_note(
            err, "did you mean '%.*s' or '%.*s'?", KT_STR_ARG(near[0]), KT_STR_ARG(near[1]));
    kt_err_note(
        err, "'kotaro plan %s --all' lists the steps and what they make", d->plan->pipeline->path);
    return KT_EUSAGE;
}

static kt_status check_patterns(const kt_dump *d, const name_list *names, kt_err *err) {
    for (int i = 0; i < d->n_patterns; i++)
        if (!is_known(&d->patterns[i], names)) return unknown(d, &d->patterns[i], names, err);
    return KT_OK;
}

kt_status kt_dump_open(kt_arena *arena, const kt_plan *plan, const char *const *only, int n_only,
    const kt_dump_to *to, kt_dump **out, kt_err *err) {
    kt_dump *d = KT_NEW(arena, kt_dump);
    *d = (kt_dump){.plan = plan, .to = to, .n_patterns = n_only};
    d->patterns = KT_NEW_ARRAY(arena, pattern, n_only + 1);
    for (int i = 0; i < n_only; i++) d->patterns[i] = read_pattern(only[i]);
    name_list names = {0};
    kt_table seen;
    kt_table_init(&seen, arena);
    for (int s = 0; s < plan->n_stages; s++)
        for (int l = 0; l < plan->stages[s].n_lists; l++) {
            chosen c = {.list = &plan->stages[s].lists[l], .stage = plan->stages[s].name};
            target_list all = name_all(arena, plan, c.list);
            add_names(arena, &seen, &all, &names);
            choose(arena, d, &c, &all);
            KT_PUSH(arena, &d->lists, c);
        }
    KT_TRY(check_patterns(d, &names, err));
    *out = d;
    return KT_OK;
}

void kt_dump_close(kt_dump *dump) {
    if (dump) kt_arena_deinit(&dump->tmp);
}

static const chosen *find_list(const kt_dump *d, const kt_step_list *list) {
    for (size_t i = 0; i < d->lists.n; i++)
        if (d->lists.at[i].list == list) return &d->lists.at[i];
    KT_ASSERT(false && "a list of the plan");
    return NULL;
}

bool kt_dump_wants(const kt_dump *dump, const kt_step_list *list, int step) {
    const chosen *c = find_list(dump, list);
    return c->first[step] < c->first[step + 1];
}

// ---- fetching

// Sixteen-bit floats become f32, which holds them all.
static const void *widen(kt_arena *arena, const kt_tensor *t, const void *raw, int64_t n) {
    if (t->dtype != KT_DTYPE_F16 && t->dtype != KT_DTYPE_BF16) return raw;
    const uint16_t *in = raw;
    float *out = KT_NEW_ARRAY(arena, float, n);
    if (t->dtype == KT_DTYPE_F16) kt_f16_to_f32_row(in, out, (size_t)n);
    for (int64_t i = 0; t->dtype == KT_DTYPE_BF16 && i < n; i++) out[i] = kt_bf16_to_f32(in[i]);
    return out;
}

static kt_dtype wide_dtype(kt_dtype dtype) {
    if (dtype == KT_DTYPE_F16 || dtype == KT_DTYPE_BF16) return KT_DTYPE_F32;
    bool eight_bits = dtype == KT_DTYPE_F8E4M3 || dtype == KT_DTYPE_F8E5M2;
    return eight_bits ? KT_DTYPE_U8 : dtype;
}

static void set_shape(kt_dump_tensor *out, const kt_tensor *t, const int64_t *values) {
    out->made = t->dtype;
    out->dtype = wide_dtype(t->dtype);
    out->rank = t->rank;
    out->n = 1;
    for (int a = 0; a < t->rank; a++) {
        out->shape[a] = kt_axis_value(t->axis[a], values);
        out->n *= out->shape[a];
    }
}

static void set_table(kt_dump_tensor *out, int64_t rows, int64_t columns, const int32_t *data) {
    out->made = out->dtype = KT_DTYPE_I32;
    out->rank = 2;
    out->shape[0] = rows;
    out->shape[1] = columns;
    out->n = rows * columns;
    out->data = data;
}

// Rows of different lengths, filled up with -1... which no row holds at its end: tokens are ids or
// rows of the picture's features, and those stand within a prompt.
static int32_t *open_table(kt_arena *arena, int64_t n) {
    int32_t *table = KT_NEW_ARRAY(arena, int32_t, n + 1);
    for (int64_t i = 0; i < n; i++) table[i] = -1;
    return table;
}

static void fetch_prompts(kt_dump *d, const kt_prompts *prompts, kt_dump_tensor *out) {
    int64_t longest = 0;
    for (int i = 0; i < prompts->n; i++)
        if (prompts->at[i].n > longest) longest = prompts->at[i].n;
    int32_t *table = open_table(&d->tmp, prompts->n * longest);
    for (int i = 0; i < prompts->n; i++)
        memcpy(table + i * longest, prompts->at[i].ids, (size_t)prompts->at[i].n * sizeof *table);
    set_table(out, prompts->n, longest, table);
}

// The ids behind the answers, of each row as many as it made: the inputs `tokens` and `made` of the
// step that reads them.
static kt_status fetch_answers(kt_dump *d, kt_request *r, const kt_host_call *call,
    const int64_t *values, kt_dump_tensor *out, kt_err *err) {
    kt_backend *b = r->context->backend;
    int tokens = -1, made = -1;
    for (int i = 0; i < call->step->n_in; i++) {
        if (kt_str_is(call->step->in[i].name, "tokens")) tokens = call->in[i];
        if (kt_str_is(call->step->in[i].name, "made")) made = call->in[i];
    }
    if (tokens < 0 || made < 0) {
        set_table(out, 0, 0, NULL);
        return KT_OK;
    }
    int64_t rows = kt_axis_value(d->plan->tensors[tokens].axis[0], values), longest = 0;
    int64_t most = kt_axis_value(d->plan->tensors[tokens].axis[1], values), word = 4;
    int32_t *ids = KT_NEW_ARRAY(&d->tmp, int32_t, rows * most + 1);
    int32_t *counts = KT_NEW_ARRAY(&d->tmp, int32_t, rows + 1);
    KT_TRY(b->table->get(b, tokens, r->slot, ids, rows * most * word, err));
    KT_TRY(b->table->get(b, made, r->slot, counts, rows * word, err));
    for (int64_t i = 0; i < rows; i++) {
        if (counts[i] < 0 || counts[i] > most) counts[i] = 0; // the step refuses such an op
        if (counts[i] > longest) longest = counts[i];
    }
    int32_t *table = open_table(&d->tmp, rows * longest);
    for (int64_t i = 0; i < rows; i++)
        memcpy(table + i * longest, ids + i * most, (size_t)(counts[i] * word));
    set_table(out, rows, longest, table);
    return KT_OK;
}

static void fetch_grid(kt_dump *d, const kt_picture_grid *grid, kt_dump_tensor *out) {
    int32_t *numbers = KT_NEW_ARRAY(&d->tmp, int32_t, 3);
    numbers[0] = grid->cols;
    numbers[1] = grid->rows;
    numbers[2] = grid->queries;
    set_table(out, 1, 3, numbers);
}

static kt_status fetch_object(kt_dump *d, kt_request *r, int tensor, const kt_host_call *call,
    const int64_t *values, kt_dump_tensor *out, kt_err *err) {
    const void *object = r->objects[tensor];
    kt_host_type type = d->plan->tensors[tensor].host;
    set_table(out, 0, 0, NULL);
    if (!object) return KT_OK;
    if (type == KT_HOST_TYPE_PROMPT) fetch_prompts(d, object, out);
    if (type == KT_HOST_TYPE_GRID) fetch_grid(d, object, out);
    if (type == KT_HOST_TYPE_ANSWERS) return fetch_answers(d, r, call, values, out, err);
    return KT_OK;
}

static kt_status fetch_device(kt_dump *d, kt_request *r, int tensor, const int64_t *values,
    kt_dump_tensor *out, kt_err *err) {
    kt_backend *b = r->context->backend;
    const kt_tensor *t = &d->plan->tensors[tensor];
    set_shape(out, t, values);
    int64_t bytes = kt_tensor_bytes(t, values);
    void *raw = kt_arena_alloc(&d->tmp, (size_t)bytes);
    KT_TRY(b->table->get(b, tensor, r->slot, raw, bytes, err));
    out->data = widen(&d->tmp, t, raw, out->n);
    return KT_OK;
}

// ---- handing out

// Is this one of what was asked for, with its index?
static bool asked(kt_dump *d, kt_str name, kt_str step, int64_t index) {
    bool any = d->n_patterns == 0;
    for (int i = 0; i < d->n_patterns; i++) {
        pattern *p = &d->patterns[i];
        if (!matches_target(p, name, step)) continue;
        if (p->index >= 0 && p->index != (index < 0 ? 0 : index)) continue;
        p->made = any = true;
    }
    return any;
}

static kt_status give(kt_dump *d, const kt_dump_tensor *tensor, kt_err *err) {
    kt_status status = d->to->take(d->to->ctx, tensor, err);
    if (status != KT_OK) d->failed = true;
    return status;
}

// Batches that a host step made: they go to the device one by one, later.
static kt_status give_batches(
    kt_dump *d, kt_request *r, int tensor, kt_dump_tensor *out, kt_err *err) {
    const kt_tensor *t = &d->plan->tensors[tensor];
    const kt_batches *batches = &r->batches[tensor];
    for (int i = 0; i < batches->n; i++) {
        out->index = i;
        if (!asked(d, out->address, out->step, i)) continue;
        set_shape(out, t, r->batch_values[i]);
        out->data = widen(&d->tmp, t, batches->at[i].data, out->n);
        KT_TRY(give(d, out, err));
    }
    return KT_OK;
}

static kt_status give_target(kt_dump *d, kt_request *r, const target *t, const kt_plan_step *step,
    const int64_t *values, kt_dump_tensor *out, kt_err *err) {
    const kt_tensor *tensor = &d->plan->tensors[t->tensor];
    out->address = t->name;
    if (tensor->each) return give_batches(d, r, t->tensor, out, err);
    if (!asked(d, t->name, out->step, out->index)) return KT_OK;
    if (tensor->home == KT_HOME_HOST)
        KT_TRY(fetch_object(d, r, t->tensor, step->host, values, out, err));
    else
        KT_TRY(fetch_device(d, r, t->tensor, values, out, err));
    if (tensor->home == KT_HOME_HOST && !out->data) return KT_OK; // answers without tokens
    return give(d, out, err);
}

kt_status kt_dump_step(kt_dump *dump, kt_request *request, const kt_step_list *list, int step,
    const int64_t *values, int64_t index, kt_err *err) {
    const chosen *c = find_list(dump, list);
    const kt_plan_step *made = &list->steps[step];
    for (int i = c->first[step]; i < c->first[step + 1]; i++) {
        kt_dump_tensor out = {.index = index, .stage = c->stage, .step = step_address(made)};
        kt_arena_mark mark = kt_arena_get_mark(&dump->tmp);
        kt_status status = give_target(dump, request, &c->targets.at[i], made, values, &out, err);
        kt_arena_reset(&dump->tmp, mark);
        if (status != KT_OK) return status;
    }
    return KT_OK;
}

bool kt_dump_failed(const kt_dump *dump) {
    return dump->failed;
}

void kt_dump_warn(const kt_dump *dump) {
    for (int i = 0; i < dump->n_patterns; i++) {
        const pattern *p = &dump->patterns[i];
        if (p->made) continue;
        if (p->index >= 0)
            kt_log_warn("'%.*s@%" PRId64 "' was never made: its stage ran fewer times",
                KT_STR_ARG(p->text), p->index);
        else
            kt_log_warn("'%.*s' was never made", KT_STR_ARG(p->text));
    }
}
