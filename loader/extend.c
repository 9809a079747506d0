// Changes that a derived pipeline makes to the steps of its base, and the order of stages.
#include "loader/pipeline_internal.h"

#include <string.h>

// ---- replace

static bool names_contain(const kt_step *steps, size_t n, kt_str name) {
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < steps[i].n_out; k++)
            if (kt_str_eq(steps[i].out[k].name.text, name)) return true;
        for (int k = 0; k < steps[i].n_carry; k++) // behind a repeat: its last value
            if (kt_str_eq(steps[i].carry[k].port.text, name)) return true;
    }
    return false;
}

static kt_stage_draft *find_stage(kt_pipe_draft *draft, const kt_pair *pair, kt_str stage) {
    kt_str *known = KT_NEW_ARRAY(draft->arena, kt_str, draft->stages.n);
    for (size_t i = 0; i < draft->stages.n; i++) {
        known[i] = draft->stages.at[i].stage.name.text;
        if (kt_str_eq(known[i], stage)) return &draft->stages.at[i];
    }
    kt_diag_error(
        draft->diag, KT_RULE_EXTENDS, pair->at, "no stage '%.*s' to change", KT_STR_ARG(stage));
    kt_diag_near(draft->diag, stage, known, draft->stages.n, true);
    return NULL;
}

static kt_step *find_step(
    kt_pipe_draft *draft, const kt_pair *pair, kt_stage_draft *stage, kt_str id) {
    KT_VEC(kt_str) known = {0};
    for (size_t i = 0; i < stage->steps.n; i++) {
        kt_str mine = stage->steps.at[i].id.text;
        if (mine.n == 0) continue;
        if (kt_str_eq(mine, id)) return &stage->steps.at[i];
        KT_PUSH(draft->arena, &known, mine);
    }
    kt_diag_error(draft->diag, KT_RULE_EXTENDS, pair->at,
        "stage '%.*s' has no step with the id '%.*s'", KT_STR_ARG(stage->stage.name.text),
        KT_STR_ARG(id));
    kt_diag_near(draft->diag, id, known.at, known.n, true);
    return NULL;
}

static bool parse_new(kt_pipe_draft *draft, const kt_node *value, kt_step **out, size_t *n) {
    bool list = value->kind == KT_NODE_LIST, ok = true;
    *n = list ? value->n : 1;
    *out = KT_NEW_ARRAY(draft->arena, kt_step, *n);
    for (size_t i = 0; i < *n; i++)
        ok = kt_step_parse(
                 draft->arena, list ? value->items[i] : value, false, draft->diag, &(*out)[i]) &&
             ok;
    return ok;
}

static bool replace_one(kt_pipe_draft *draft, const kt_pair *pair) {
    ptrdiff_t dot = kt_str_find(pair->key, '.');
    if (dot < 0)
        return kt_diag_error(draft->diag, KT_RULE_EXTENDS, pair->at,
            "'%.*s' is no address of a step: stage.id is expected", KT_STR_ARG(pair->key));
    kt_str name = kt_str_slice(pair->key, 0, (size_t)dot);
    kt_stage_draft *stage = find_stage(draft, pair, name);
    if (!stage) return false;
    kt_step *old =
        find_step(draft, pair, stage, kt_str_slice(pair->key, (size_t)dot + 1, pair->key.n));
    if (!old) return false;
    kt_step *fresh;
    size_t n;
    if (!parse_new(draft, pair->value, &fresh, &n)) return false;
    for (int i = 0; i < old->n_out; i++)
        if (!names_contain(fresh, n, old->out[i].name.text)) {
            kt_diag_error(draft->diag, KT_RULE_EXTENDS, pair->at,
                "the replacement of '%.*s' no longer makes '%.*s'", KT_STR_ARG(pair->key),
                KT_STR_ARG(old->out[i].name.text));
            kt_diag_note_at(draft->diag, old->out[i].name.at, "made by the old step");
            return false;
        }
    if (n > 0 && fresh[n - 1].id.text.n == 0) fresh[n - 1].id = old->id;
    size_t at = (size_t)(old - stage->steps.at), total = stage->steps.n - 1 + n;
    kt_step *steps = KT_NEW_ARRAY(draft->arena, kt_step, total);
    memcpy(steps, stage->steps.at, at * sizeof *steps);
    if (n) memcpy(steps + at, fresh, n * sizeof *steps);
    memcpy(steps + at + n, stage->steps.at + at + 1, (stage->steps.n - at - 1) * sizeof *steps);
    stage->steps.at = steps;
    stage->steps.n = stage->steps.cap = total;
    return true;
}

bool kt_pipe_replace(kt_pipe_draft *draft, const kt_node *map) {
    bool ok = true;
    for (size_t i = 0; i < map->n; i++) ok = replace_one(draft, &map->pairs[i]) && ok;
    return ok;
}

// ---- order: by data, and by file order between stages that touch the same state

enum { TOUCHES = 1, CHANGES = 2, NAMES = 4 };

// relation[stage][root]: what a stage does with a state group (roots 0 .. n_state) or a stage
// (then).
typedef struct uses {
    kt_pipe_draft *draft;
    size_t n; // stages
    uint8_t *state, *stages;
} uses;

static void add_use(uses *u, size_t stage, kt_str name, bool changes) {
    kt_str stem = kt_name_stem(name);
    for (size_t i = 0; i < u->draft->state.n; i++)
        if (kt_str_eq(kt_name_stem(u->draft->state.at[i].name.text), stem))
            u->state[stage * u->draft->state.n + i] |=
                (uint8_t)(changes ? TOUCHES | CHANGES : TOUCHES);
    for (size_t i = 0; i < u->n; i++)
        if (i != stage && kt_str_eq(u->draft->stages.at[i].stage.name.text, stem))
            u->stages[stage * u->n + i] |= NAMES;
}

static void add_steps(uses *u, size_t stage, const kt_step *steps, int n) {
    for (int i = 0; i < n; i++) {
        const kt_step *s = &steps[i];
        for (int k = 0; k < s->n_in; k++) add_use(u, stage, s->in[k].name.text, false);
        for (int k = 0; k < s->n_inout; k++) add_use(u, stage, s->inout[k].name.text, true);
        for (int k = 0; k < s->n_carry; k++) add_use(u, stage, s->carry[k].name.text, false);
        if (s->n_steps) add_steps(u, stage, s->steps, s->n_steps);
    }
}

static bool conflict(const uses *u, size_t a, size_t b) {
    size_t n = u->draft->state.n;
    for (size_t i = 0; i < n; i++) {
        int both = u->state[a * n + i] | u->state[b * n + i];
        if (u->state[a * n + i] && u->state[b * n + i] && (both & CHANGES)) return true;
    }
    return false;
}

static bool ready(const uses *u, const bool *done, size_t stage) {
    for (size_t i = 0; i < u->n; i++) {
        if (done[i] || i == stage) continue;
        if (u->stages[stage * u->n + i]) return false;
        if (i < stage && conflict(u, i, stage)) return false;
    }
    return true;
}

bool kt_pipe_order(kt_pipe_draft *draft) {
    size_t n = draft->stages.n;
    uses u = {.draft = draft, .n = n};
    u.state = KT_NEW_ARRAY(draft->arena, uint8_t, n * draft->state.n + 1);
    u.stages = KT_NEW_ARRAY(draft->arena, uint8_t, n * n + 1);
    for (size_t i = 0; i < n; i++) {
        const kt_stage_draft *stage = &draft->stages.at[i];
        add_steps(&u, i, stage->steps.at, (int)stage->steps.n);
        for (int k = 0; k < stage->stage.n_each; k++)
            add_use(&u, i, stage->stage.each[k].name.text, false);
    }
    bool *done = KT_NEW_ARRAY(draft->arena, bool, n + 1);
    kt_stage_draft *sorted = KT_NEW_ARRAY(draft->arena, kt_stage_draft, n);
    for (size_t made = 0; made < n; made++) {
        size_t next = 0;
        while (next < n && (done[next] || !ready(&u, done, next))) next++;
        if (next == n) {
            size_t stuck = 0;
            while (done[stuck]) stuck++;
            return kt_diag_error(draft->diag, KT_RULE_STAGE, draft->stages.at[stuck].stage.name.at,
                "stages wait for each other in a circle, '%.*s' among them",
                KT_STR_ARG(draft->stages.at[stuck].stage.name.text));
        }
        done[next] = true;
        sorted[made] = draft->stages.at[next];
    }
    draft->stages.at = sorted;
    return true;
}
