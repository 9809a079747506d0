#include "loader/expr_tree.h"

#include <math.h>

typedef enum outcome { OUTCOME_OK, OUTCOME_FAILED, OUTCOME_MISSING } outcome;

typedef struct evaluation {
    const kt_expr *expr;
    const kt_env *env;
    const char *what;
    kt_diag *diag;          // NULL: silent
    const kt_term *missing; // the lookup whose key is not there
} evaluation;

static kt_place term_place(const evaluation *e, const kt_term *t) {
    return kt_place_part(e->expr->at, e->expr->text, t->from, t->to);
}

static outcome say(const evaluation *e, const kt_term *t, const char *message) {
    if (e->diag != NULL)
        kt_diag_error(e->diag, KT_RULE_EXPR, term_place(e, t), "%s in %s", message, e->what);
    return OUTCOME_FAILED;
}

static outcome overflow(const evaluation *e, const kt_term *t) {
    return say(e, t, "the result does not fit in 64 bits");
}

static bool add_fits(int64_t a, int64_t b) {
    return b >= 0 ? a <= INT64_MAX - b : a >= INT64_MIN - b;
}

static bool multiply_fits(int64_t a, int64_t b) {
    if (a == 0 || b == 0) return true;
    if (a == -1) return b != INT64_MIN;
    if (b == -1) return a != INT64_MIN;
    if ((a > 0) == (b > 0)) return a > 0 ? a <= INT64_MAX / b : a >= INT64_MAX / b;
    return a > 0 ? b >= INT64_MIN / a : a >= INT64_MIN / b;
}

// a / b, a % b, ceil_div, align_up of integers.
static outcome divide(const evaluation *e, const kt_term *t, int64_t a, int64_t b, int64_t *out) {
    if (b == 0) return say(e, &e->expr->terms[t->arg[1]], "division by zero");
    if (a == INT64_MIN && b == -1) return overflow(e, t);
    int64_t quotient = a / b, rest = a % b; // towards 0: the rest has the sign of a
    bool below = rest != 0 && (rest < 0) != (b < 0);
    int64_t floor = below ? quotient - 1 : quotient;
    int64_t ceil = rest != 0 && !below ? quotient + 1 : quotient;
    if (below) rest += b;
    *out = t->op == KT_CODE_DIVIDE ? floor : t->op == KT_CODE_MODULO ? rest : ceil;
    if (t->op != KT_CODE_ALIGN_UP) return OUTCOME_OK;
    if (!multiply_fits(ceil, b)) return overflow(e, t);
    *out = ceil * b;
    return OUTCOME_OK;
}

static bool compare(kt_code op, int order) {
    switch (op) {
    case KT_CODE_EQUAL:
        return order == 0;
    case KT_CODE_UNEQUAL:
        return order != 0;
    case KT_CODE_LESS:
        return order < 0;
    case KT_CODE_GREATER:
        return order > 0;
    case KT_CODE_LESS_EQUAL:
        return order <= 0;
    default:
        return order >= 0;
    }
}

static outcome whole_two(
    const evaluation *e, const kt_term *t, int64_t a, int64_t b, kt_value *out) {
    int64_t c = 0;
    switch (t->op) {
    case KT_CODE_ADD:
        if (!add_fits(a, b)) return overflow(e, t);
        c = a + b;
        break;
    case KT_CODE_SUBTRACT:
        if (b == INT64_MIN ? a >= 0 : !add_fits(a, -b)) return overflow(e, t);
        c = a - b;
        break;
    case KT_CODE_MULTIPLY:
        if (!multiply_fits(a, b)) return overflow(e, t);
        c = a * b;
        break;
    case KT_CODE_MIN:
        c = a < b ? a : b;
        break;
    case KT_CODE_MAX:
        c = a > b ? a : b;
        break;
    case KT_CODE_DIVIDE:
    case KT_CODE_MODULO:
    case KT_CODE_CEIL_DIV:
    case KT_CODE_ALIGN_UP: {
        outcome o = divide(e, t, a, b, &c);
        if (o != OUTCOME_OK) return o;
        break;
    }
    default:
        c = compare(t->op, a < b ? -1 : a > b ? 1 : 0) ? 1 : 0;
        break;
    }
    *out = kt_value_int(c);
    return OUTCOME_OK;
}

static outcome real_two(const evaluation *e, const kt_term *t, double a, double b, kt_value *out) {
    double c = 0;
    switch (t->op) {
    case KT_CODE_ADD:
        c = a + b;
        break;
    case KT_CODE_SUBTRACT:
        c = a - b;
        break;
    case KT_CODE_MULTIPLY:
        c = a * b;
        break;
    case KT_CODE_MIN:
        c = a < b ? a : b;
        break;
    case KT_CODE_MAX:
        c = a > b ? a : b;
        break;
    case KT_CODE_DIVIDE:
        if (b == 0) return say(e, &e->expr->terms[t->arg[1]], "division by zero");
        c = a / b;
        break;
    case KT_CODE_MODULO:
    case KT_CODE_CEIL_DIV:
    case KT_CODE_ALIGN_UP:
        return say(e, t, "this needs integers, got a real");
    default:
        *out = kt_value_int(compare(t->op, a < b ? -1 : a > b ? 1 : 0) ? 1 : 0);
        return OUTCOME_OK;
    }
    bool finite = c - c == 0; // neither infinite nor NaN
    if (!finite) return say(e, t, "the result is no finite number");
    *out = kt_value_real(c);
    return OUTCOME_OK;
}

static bool truth(kt_value v) {
    return v.is_real ? v.r != 0 : v.i != 0;
}

static outcome unknown_name(const evaluation *e, const kt_term *t) {
    if (e->diag == NULL) return OUTCOME_FAILED;
    kt_diag_error(e->diag, KT_RULE_EXPR, term_place(e, t), "unknown name '%.*s' in %s",
        KT_STR_ARG(t->name), e->what);
    size_t n = 0;
    const kt_str *known =
        e->env->names == NULL ? NULL : e->env->names(e->env->ctx, e->diag->arena, &n);
    if (n > 0) kt_diag_near(e->diag, t->name, known, n, true);
    return OUTCOME_FAILED;
}

static outcome look_up(evaluation *e, const kt_term *t, kt_value *out) {
    int found = e->env->call == NULL ? -1 : e->env->call(e->env->ctx, t->name, t->key, out);
    if (found > 0) return OUTCOME_OK;
    if (found == 0) {
        e->missing = t;
        return OUTCOME_MISSING;
    }
    if (e->diag != NULL && found == KT_CALL_NO_NUMBER)
        kt_diag_error(e->diag, KT_RULE_CONFIG, term_place(e, t),
            "the key '%.*s' in %.*s holds no number, and no list of one number", KT_STR_ARG(t->key),
            KT_STR_ARG(t->name));
    else if (e->diag != NULL)
        kt_diag_error(e->diag, KT_RULE_EXPR, term_place(e, t), "'%.*s(...)' cannot be used in %s",
            KT_STR_ARG(t->name), e->what);
    return OUTCOME_FAILED;
}

static outcome evaluate(evaluation *e, int at, kt_value *out);

// and, or, select, else: only the side that is needed.
static outcome evaluate_lazy(evaluation *e, const kt_term *t, kt_value *out) {
    kt_value a;
    outcome o = evaluate(e, t->arg[0], &a);
    if (t->op == KT_CODE_ELSE) {
        if (o == OUTCOME_MISSING) return evaluate(e, t->arg[1], out);
        *out = a;
        return o;
    }
    if (o != OUTCOME_OK) return o;
    if (t->op == KT_CODE_SELECT) return evaluate(e, truth(a) ? t->arg[1] : t->arg[2], out);
    if (truth(a) == (t->op == KT_CODE_OR)) {
        *out = kt_value_int(t->op == KT_CODE_OR ? 1 : 0);
        return OUTCOME_OK;
    }
    o = evaluate(e, t->arg[1], &a);
    if (o == OUTCOME_OK) *out = kt_value_int(truth(a) ? 1 : 0);
    return o;
}

// The largest integer whose square is at most a.
static int64_t root_of(int64_t a) {
    int64_t low = 0, high = 3037000500; // the first whose square does not fit
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (middle * middle <= a)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static outcome evaluate_one(evaluation *e, const kt_term *t, kt_value *out) {
    kt_value a;
    outcome o = evaluate(e, t->arg[0], &a);
    if (o != OUTCOME_OK) return o;
    if (t->op == KT_CODE_SQRT) {
        if (a.r < 0) return say(e, t, "there is no square root of a negative number");
        *out = kt_value_real(sqrt(a.r));
    } else if (t->op == KT_CODE_NOT) {
        *out = kt_value_int(truth(a) ? 0 : 1);
    } else if (t->op == KT_CODE_ISQRT) {
        if (a.is_real) return say(e, t, "this needs integers, got a real");
        if (a.i < 0) return say(e, t, "there is no square root of a negative number");
        *out = kt_value_int(root_of(a.i));
    } else if (a.is_real) {
        *out = kt_value_real(-a.r);
    } else if (a.i == INT64_MIN) {
        return overflow(e, t);
    } else {
        *out = kt_value_int(-a.i);
    }
    return OUTCOME_OK;
}

static outcome evaluate(evaluation *e, int at, kt_value *out) {
    const kt_term *t = &e->expr->terms[at];
    *out = kt_value_int(0);
    switch (t->op) {
    case KT_CODE_NUMBER:
        *out = t->value;
        return OUTCOME_OK;
    case KT_CODE_NAME:
        return e->env->find != NULL && e->env->find(e->env->ctx, t->name, out) ? OUTCOME_OK
                                                                               : unknown_name(e, t);
    case KT_CODE_CALL:
        return look_up(e, t, out);
    case KT_CODE_SQRT:
    case KT_CODE_NEGATE:
    case KT_CODE_NOT:
    case KT_CODE_ISQRT:
        return evaluate_one(e, t, out);
    case KT_CODE_AND:
    case KT_CODE_OR:
    case KT_CODE_SELECT:
    case KT_CODE_ELSE:
        return evaluate_lazy(e, t, out);
    default:
        break;
    }
    kt_value a, b;
    outcome o = evaluate(e, t->arg[0], &a);
    if (o == OUTCOME_OK) o = evaluate(e, t->arg[1], &b);
    if (o != OUTCOME_OK) return o;
    return a.is_real || b.is_real ? real_two(e, t, a.r, b.r, out) : whole_two(e, t, a.i, b.i, out);
}

static const kt_env no_env;

bool kt_expr_eval(
    const kt_expr *expr, const kt_env *env, const char *what, kt_diag *diag, kt_value *out) {
    evaluation e = {.expr = expr, .env = env == NULL ? &no_env : env, .what = what, .diag = diag};
    outcome o = evaluate(&e, expr->root, out);
    if (o == OUTCOME_MISSING && diag != NULL) {
        kt_str function = e.missing->name, key = e.missing->key;
        bool tensor = kt_str_is(function, "rows");
        kt_diag_error(diag, KT_RULE_CONFIG, term_place(&e, e.missing),
            "there is no %s '%.*s' in %.*s", tensor ? "tensor" : "key", KT_STR_ARG(key),
            KT_STR_ARG(tensor ? KT_STR("the checkpoint") : function));
        kt_diag_note(diag, "a value for this case can follow: %.*s(%.*s) else 1",
            KT_STR_ARG(function), KT_STR_ARG(key));
    }
    return o == OUTCOME_OK;
}

bool kt_expr_eval_int(
    const kt_expr *expr, const kt_env *env, const char *what, kt_diag *diag, int64_t *out) {
    kt_value value;
    if (!kt_expr_eval(expr, env, what, diag, &value)) return false;
    if (value.is_real && diag != NULL)
        return kt_diag_error(
            diag, KT_RULE_EXPR, expr->at, "an integer is needed in %s, got %g", what, value.r);
    *out = value.i;
    return !value.is_real;
}

bool kt_expr_compute(const kt_expr *expr, const kt_env *env, kt_value *out) {
    return kt_expr_eval(expr, env, "", NULL, out);
}
