// Are two results the same, within what a manifest allows?
#include "runtime/exec/op_check_parts.h"

#include "runtime/base/f16.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { ROW_MIN = 16 }; // shorter rows are measured against their tensor

static double element(const kt_check_tensor *t, int64_t i) {
    switch (t->dtype) {
    case KT_DTYPE_F32:
        return (double)((const float *)t->at)[i];
    case KT_DTYPE_F16:
        return (double)kt_f16_to_f32(((const uint16_t *)t->at)[i]);
    case KT_DTYPE_BF16:
        return (double)kt_bf16_to_f32(((const uint16_t *)t->at)[i]);
    case KT_DTYPE_I64:
        return (double)((const int64_t *)t->at)[i];
    case KT_DTYPE_I32:
        return ((const int32_t *)t->at)[i];
    case KT_DTYPE_U32:
        return ((const uint32_t *)t->at)[i];
    case KT_DTYPE_I16:
        return ((const int16_t *)t->at)[i];
    case KT_DTYPE_U16:
        return ((const uint16_t *)t->at)[i];
    case KT_DTYPE_I8:
        return ((const int8_t *)t->at)[i];
    case KT_DTYPE_U8:
    case KT_DTYPE_F8E4M3: // by bits
    case KT_DTYPE_F8E5M2:
        return ((const uint8_t *)t->at)[i];
    case KT_DTYPE_COUNT:
        break;
    }
    return NAN;
}

static double tolerance_of(const kt_op *op, kt_dtype dtype) {
    for (int i = 0; i < op->n_tolerances; i++)
        if (op->tolerances[i].dtype == dtype) return op->tolerances[i].value;
    return 0;
}

// ---- caps

// Eight roundings to the type; f32: what two orders of adding some thousand numbers differ by. What
// passes through a narrower type on its way needs more, and says so.
double kt_check_cap(kt_dtype dtype) {
    if (dtype == KT_DTYPE_F16) return 4e-3;    // 8 * 2^-11
    if (dtype == KT_DTYPE_BF16) return 1.6e-2; // 8 * 2^-9
    if (dtype == KT_DTYPE_F32) return 1e-5;    // 168 * 2^-24
    return 0;
}

bool kt_check_tolerances(const kt_op *op, kt_diag *diag) {
    bool ok = true;
    for (int i = 0; i < op->n_tolerances; i++) {
        const kt_op_tolerance *t = &op->tolerances[i];
        if (t->value <= kt_check_cap(t->dtype) || op->tolerance_reason.n > 0) continue;
        ok = kt_diag_error(diag, KT_RULE_VALUE, t->at,
            "a tolerance of %g for %s is above the cap of %g", t->value, kt_dtype_name(t->dtype),
            kt_check_cap(t->dtype));
        kt_diag_note(diag, "say why under 'check', as 'reason'");
    }
    return ok;
}

// ---- comparing

static void place_of(const kt_check_tensor *t, int64_t i, kt_buf *out) {
    int64_t at[KT_MAX_RANK];
    for (int a = t->rank - 1; a >= 0; a--) {
        at[a] = i % t->shape[a];
        i /= t->shape[a];
    }
    kt_buf_printf(out, "[");
    for (int a = 0; a < t->rank; a++) kt_buf_printf(out, "%s%" PRId64, a ? ", " : "", at[a]);
    kt_buf_printf(out, "]");
}

static void shape_of(const kt_check_tensor *t, kt_buf *out) {
    kt_buf_printf(out, "%s[", kt_dtype_name(t->dtype));
    for (int a = 0; a < t->rank; a++) kt_buf_printf(out, "%s%" PRId64, a ? ", " : "", t->shape[a]);
    kt_buf_printf(out, "]");
}

typedef struct worst_place {
    int64_t at;   // -1: none
    int64_t n;    // elements beyond the tolerance
    double error; // as a part of the tolerance
} worst_place;

// The worst of one row (or of the whole tensor), and how many are too far off.
static void look(const kt_check_tensor *want, const kt_check_tensor *got, int64_t from, int64_t to,
    double tolerance, worst_place *worst) {
    bool real = kt_dtype_is_float(want->dtype);
    double scale = real ? 1e-6 : 1;
    for (int64_t i = from; real && i < to; i++) scale = fmax(scale, fabs(element(want, i)));
    for (int64_t i = from; i < to; i++) {
        double a = element(want, i), b = element(got, i), error = 0;
        bool finite = fabs(a) <= DBL_MAX && fabs(b) <= DBL_MAX; // not so for NaN
        if (!finite)
            error = INFINITY;
        else if (a != b)
            error = tolerance > 0 ? fabs(a - b) / scale / tolerance : (double)INFINITY;
        worst->n += error > 1;
        if (error <= worst->error && (worst->at >= 0 || error == 0)) continue;
        worst->error = error;
        worst->at = i;
    }
}

bool kt_check_compare(const kt_op *op, const kt_check_tensor *want, const kt_check_tensor *got,
    double *worst, kt_buf *why) {
    bool ok = true;
    for (int p = op->n_inputs; p < op->n_ports; p++) {
        const kt_check_tensor *a = &want[p], *b = &got[p];
        if (!a->at || !b->at) continue;
        worst_place found = {-1, 0, 0};
        double tolerance = tolerance_of(op, a->dtype);
        int64_t row =
            a->rank > 0 && a->shape[a->rank - 1] >= ROW_MIN ? a->shape[a->rank - 1] : a->n;
        for (int64_t i = 0; i < a->n; i += row) look(a, b, i, i + row, tolerance, &found);
        if (found.error > worst[a->dtype]) worst[a->dtype] = found.error;
        if (found.n == 0) continue;
        ok = false;
        kt_buf_printf(why, "    %.*s", KT_STR_ARG(op->ports[p].name));
        place_of(a, found.at, why);
        kt_buf_printf(why, " is %.9g, expected %.9g: ", element(b, found.at), element(a, found.at));
        kt_buf_printf(why, "%" PRId64 " of %" PRId64 " elements of ", found.n, a->n);
        shape_of(a, why);
        kt_buf_printf(
            why, " differ by more than %g, at worst %.3g times as much\n", tolerance, found.error);
    }
    return ok;
}

bool kt_check_same(const kt_op *op, const kt_check_tensor *a, const kt_check_tensor *b,
    const char *what, kt_buf *why) {
    for (int p = op->n_inputs; p < op->n_ports; p++) {
        if (!a[p].at || !b[p].at || memcmp(a[p].at, b[p].at, (size_t)a[p].bytes) == 0) continue;
        int64_t i = 0, width = kt_dtype_bytes(a[p].dtype);
        while (memcmp((char *)a[p].at + i * width, (char *)b[p].at + i * width, (size_t)width) == 0)
            i++;
        kt_buf_printf(why, "    %.*s", KT_STR_ARG(op->ports[p].name));
        place_of(&a[p], i, why);
        kt_buf_printf(why, " is %.9g, then %.9g: %s\n", element(&a[p], i), element(&b[p], i), what);
        return false;
    }
    return true;
}
