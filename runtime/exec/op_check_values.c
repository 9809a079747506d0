// Numbers for op tests: from a seed, by type, or by the generator that the manifest names.
#include "runtime/exec/op_check_parts.h"

#include "runtime/base/f16.h"

#include <math.h>
#include <string.h>

// ---- random numbers

uint64_t kt_random_next(kt_random *random) { // source: Steele et al. 2014, SplitMix64
    uint64_t z = random->state += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

uint64_t kt_random_mix(uint64_t a, uint64_t b) {
    kt_random random = {a * 0x9e3779b97f4a7c15U ^ b};
    kt_random_next(&random);
    return kt_random_next(&random);
}

int64_t kt_random_pick(kt_random *random, int64_t low, int64_t high) {
    if (high <= low) return low;
    return low + (int64_t)(kt_random_next(random) % (uint64_t)(high - low + 1));
}

double kt_random_unit(kt_random *random) {
    return (double)(kt_random_next(random) >> 11) * 0x1p-53;
}

double kt_random_normal(kt_random *random) { // sum of uniforms: bounded by 6, good enough for tests
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t bits = kt_random_next(random);
        for (int k = 0; k < 4; k++, bits >>= 16) sum += (double)(bits & 0xffff) * 0x1p-16;
    }
    return sum - 6;
}

// ---- expressions over the sizes of a test

typedef struct size_env {
    const kt_op *op;
    const int64_t *dims;
    const kt_variant *variant;
} size_env;

// Of the smallest card that is supported, as far as a test's sizes depend on the device.
static bool find_device(kt_str name, kt_value *out) {
    static const struct {
        const char *name;
        int64_t value;
    } rows[] = {{"sm_count", 24}, {"smem_max", 101376}, {"cc", 89}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!kt_str_is(name, rows[i].name)) continue;
        *out = kt_value_int(rows[i].value);
        return true;
    }
    return false;
}

static bool find_size(const void *ctx, kt_str name, kt_value *out) {
    const size_env *env = ctx;
    int dim = kt_op_dim_find(env->op, name);
    if (dim >= 0) {
        *out = kt_value_int(env->dims[dim]);
        return true;
    }
    for (int i = 0; env->variant && i < env->variant->n_tunes; i++)
        if (kt_str_eq(env->variant->tunes[i].name, name)) {
            *out = kt_value_int(env->variant->tunes[i].values[0]);
            return true;
        }
    return find_device(name, out);
}

bool kt_check_value(const kt_op *op, const kt_expr *expr, const int64_t *dims,
    const kt_variant *tunes, kt_value *out) {
    size_env values = {op, dims, tunes};
    kt_env env = {.ctx = &values, .find = find_size};
    return kt_expr_compute(expr, &env, out);
}

bool kt_check_holds(
    const kt_op *op, const kt_expr *expr, const int64_t *dims, const kt_variant *tunes) {
    kt_value value;
    return !expr || (kt_check_value(op, expr, dims, tunes, &value) && value.r != 0);
}

static bool size_of(const kt_check_case *c, const kt_expr *expr, int64_t *out) {
    kt_value value;
    if (!kt_check_value(c->op, expr, c->dims, NULL, &value) || value.is_real || value.i < 0)
        return false;
    *out = value.i;
    return true;
}

// `dim == expression`: gives the dim the expression's value.
static bool repair_one(kt_arena *arena, const kt_op *op, const kt_expr *expr, int64_t *dims) {
    kt_str text = kt_expr_text(expr);
    ptrdiff_t equals = kt_str_find(text, '=');
    if (equals <= 0 || text.at[equals + 1] != '=') return false;
    int dim = kt_op_dim_find(op, kt_str_trim(kt_str_slice(text, 0, (size_t)equals)));
    if (dim < 0) return false;
    kt_diag diag;
    kt_diag_init(&diag, arena);
    kt_str right = kt_str_trim(kt_str_slice(text, (size_t)equals + 2, text.n));
    const kt_expr *value = kt_expr_parse(arena, right, kt_expr_at(expr), &diag);
    kt_value result;
    if (!value || !kt_check_value(op, value, dims, NULL, &result) || result.is_real || result.i < 0)
        return false;
    dims[dim] = result.i;
    return true;
}

bool kt_check_repair(kt_arena *arena, const kt_op *op, int64_t *dims) {
    for (int round = 0; round < 4; round++) {
        bool ok = true;
        for (int i = 0; i < op->n_require; i++) {
            if (kt_check_holds(op, op->require[i], dims, NULL)) continue;
            ok = false;
            if (!repair_one(arena, op, op->require[i], dims)) return false;
        }
        if (ok) return true;
    }
    return false;
}

// ---- generators

const kt_given *kt_check_generator(const kt_op *op, int port) {
    kt_str name = op->ports[port].name;
    for (int i = 0; i < op->n_generators; i++) {
        kt_str key = op->generators[i].name.text;
        bool group = name.n > key.n && kt_str_starts(name, key) && name.at[key.n] == '.';
        if (group || kt_str_eq(name, key)) return &op->generators[i];
    }
    return NULL;
}

bool kt_check_uses(const kt_op *op, const char *word) {
    for (int i = 0; i < op->n_generators; i++)
        if (kt_str_is(op->generators[i].value->text, word)) return true;
    return false;
}

static bool needs_generator(const kt_type *type) {
    if (type->base != KT_BASE_DTYPE) return false;
    switch (type->dtype) {
    case KT_DTYPE_I64:
    case KT_DTYPE_I32:
    case KT_DTYPE_I16:
    case KT_DTYPE_I8:
    case KT_DTYPE_U32:
    case KT_DTYPE_U16:
        return true;
    case KT_DTYPE_U8: // any byte will do
    case KT_DTYPE_F32:
    case KT_DTYPE_F16:
    case KT_DTYPE_BF16:
    case KT_DTYPE_F8E4M3:
    case KT_DTYPE_F8E5M2:
    case KT_DTYPE_COUNT:
        break;
    }
    return false;
}

bool kt_check_known_generators(const kt_op *op, kt_diag *diag) {
    int n;
    const kt_str *words = kt_check_words(diag->arena, &n);
    bool ok = true;
    for (int i = 0; i < op->n_generators; i++) {
        kt_str word = op->generators[i].value->text;
        bool known = false;
        for (int k = 0; k < n; k++) known = known || kt_str_eq(words[k], word);
        if (known) continue;
        ok = kt_diag_error(diag, KT_RULE_VALUE, op->generators[i].value->at,
            "op tests have no generator '%.*s'", KT_STR_ARG(word));
        kt_diag_near(diag, word, words, (size_t)n, true);
    }
    for (int i = 0; op->n_cases > 0 && i < op->n_inputs + op->n_inout; i++) {
        const kt_op_port *port = &op->ports[i];
        if (!needs_generator(&port->type) || kt_check_generator(op, i)) continue;
        ok = kt_diag_error(diag, KT_RULE_KEY, port->at,
            "'%.*s' holds integers, and 'check' names no generator for it", KT_STR_ARG(port->name));
        kt_diag_near(diag, port->name, words, (size_t)n, true);
    }
    return ok;
}

// ---- values

static void fill_floats(kt_check_tensor *t, kt_random *random, double scale) {
    for (int64_t i = 0; i < t->n; i++) {
        float x = (float)(kt_random_normal(random) * scale);
        if (t->dtype == KT_DTYPE_F32) ((float *)t->at)[i] = x;
        if (t->dtype == KT_DTYPE_F16) ((uint16_t *)t->at)[i] = kt_f32_to_f16(x);
        if (t->dtype == KT_DTYPE_BF16) ((uint16_t *)t->at)[i] = kt_f32_to_bf16(x);
    }
}

static void fill_plain(kt_check_tensor *t, kt_random *random) {
    switch (t->dtype) {
    case KT_DTYPE_F32:
    case KT_DTYPE_F16:
    case KT_DTYPE_BF16:
        fill_floats(t, random, 1);
        return;
    case KT_DTYPE_F8E4M3:
    case KT_DTYPE_F8E5M2: // magnitudes up to 1
        for (int64_t i = 0; i < t->n; i++)
            ((uint8_t *)t->at)[i] = (uint8_t)(kt_random_next(random) & 0xb7);
        return;
    case KT_DTYPE_I64:
    case KT_DTYPE_I32:
    case KT_DTYPE_I16:
    case KT_DTYPE_I8:
    case KT_DTYPE_U32:
    case KT_DTYPE_U16:
    case KT_DTYPE_U8:
        for (int64_t i = 0; i < t->bytes; i++)
            ((uint8_t *)t->at)[i] = (uint8_t)kt_random_next(random);
        return;
    case KT_DTYPE_COUNT:
        break;
    }
}

static bool shape_port(kt_check_data *data, int port) {
    const kt_check_case *c = data->of;
    const kt_type *type = &c->op->ports[port].type;
    kt_check_tensor *t = &data->ports[port];
    int var = type->base == KT_BASE_VAR ? kt_op_typevar_find(c->op, type->var) : -1;
    t->dtype = var >= 0 ? c->op->typevars[var].choices[c->types[var]] : type->dtype;
    t->rank = type->rank;
    t->n = 1;
    for (int a = 0; a < type->rank; a++) {
        if (!size_of(c, type->axis[a], &t->shape[a])) return false;
        if (!kt_mul(t->n, t->shape[a], &t->n) || t->n > 64 << 20) return false;
    }
    t->bytes = type->base == KT_BASE_LINEAR ? 0 : t->n * kt_dtype_bytes(t->dtype);
    return true;
}

bool kt_check_make(kt_arena *arena, kt_check_case *c, kt_check_data *out) {
    const kt_op *op = c->op;
    *out = (kt_check_data){.arena = arena, .of = c, .random = {c->seed}};
    out->ports = KT_NEW_ARRAY(arena, kt_check_tensor, op->n_ports);
    kt_check_scene_dims(out);
    for (int i = 0; i < op->n_dims; i++) { // sizes that only an absent input has
        int port = op->dims[i].solved_by;
        if (port >= 0 && op->ports[port].type.optional && !c->present[port]) c->dims[i] = 0;
    }
    if (!kt_check_repair(arena, op, c->dims)) return false;
    for (int i = 0; i < op->n_ports; i++)
        if (!shape_port(out, i)) return false;
    for (int i = 0; i < op->n_inputs + op->n_inout; i++) {
        kt_check_tensor *t = &out->ports[i];
        if (!c->present[i] || op->ports[i].type.base == KT_BASE_LINEAR) continue;
        t->at = kt_arena_alloc(arena, (size_t)t->bytes + 1);
        fill_plain(t, &out->random);
        const kt_given *generator = kt_check_generator(op, i);
        if (generator) kt_check_scene_fill(out, i, generator->value->text);
    }
    return true;
}
