#include "runtime/exec/backend.h"

static kt_profile_row *find_row(kt_profile *profile, int stage, const kt_call *call) {
    for (size_t i = 0; i < profile->rows.n; i++) {
        kt_profile_row *row = &profile->rows.at[i];
        if (row->stage == stage && row->call->op == call->op && row->call->variant == call->variant)
            return row;
    }
    kt_profile_row new = {.stage = stage, .call = call};
    KT_PUSH(profile->arena, &profile->rows, new);
    return &profile->rows.at[profile->rows.n - 1];
}

// The stage of an address is what stands before its first '.' or '['.
static int stage_of(const kt_plan *plan, const kt_call *call) {
    for (int i = 0; i < plan->n_stages; i++) {
        kt_str name = plan->stages[i].name;
        if (kt_str_starts(call->address, name) && call->address.n > name.n &&
            (call->address.at[name.n] == '.' || call->address.at[name.n] == '['))
            return i;
    }
    return -1;
}

void kt_profile_add(kt_profile *profile, int stage, const kt_plan *plan, const kt_call *call,
    const int64_t *values, double ms) {
    if (stage < 0) stage = stage_of(plan, call);
    kt_profile_row *row = find_row(profile, stage, call);
    double flops, bytes;
    kt_plan_cost(plan, call, values, &flops, &bytes);
    row->n++;
    row->ms += ms;
    row->flops += flops;
    row->bytes += bytes;
}

static void print_row(const kt_profile *profile, const kt_profile_row *row, kt_buf *out) {
    const kt_call *call = row->call;
    double seconds = row->ms / 1e3;
    kt_buf name = {0};
    kt_buf_printf(&name, "%.*s", KT_STR_ARG(call->op->name));
    if (call->variant) kt_buf_printf(&name, "[%.*s]", KT_STR_ARG(call->variant->name));
    kt_buf_printf(out, "  %-32s %7d %10.3f ms %9.2f GB/s %9.2f GFLOP/s", name.at, (int)row->n,
        row->ms, row->bytes / seconds / 1e9, row->flops / seconds / 1e9);
    if (profile->read_ceiling > 0)
        kt_buf_printf(out, " %5.1f %%", 100 * row->bytes / seconds / profile->read_ceiling);
    kt_buf_printf(out, "\n");
    kt_buf_deinit(&name);
}

void kt_profile_print(const kt_profile *profile, const kt_plan *plan, kt_buf *out) {
    for (int stage = -1; stage < plan->n_stages; stage++) {
        double ms = 0;
        for (size_t i = 0; i < profile->rows.n; i++)
            if (profile->rows.at[i].stage == stage) ms += profile->rows.at[i].ms;
        if (ms == 0) continue;
        if (stage >= 0)
            kt_buf_printf(
                out, "%.*s: %.3f ms in its ops\n", KT_STR_ARG(plan->stages[stage].name), ms);
        for (size_t i = 0; i < profile->rows.n; i++)
            if (profile->rows.at[i].stage == stage) print_row(profile, &profile->rows.at[i], out);
    }
}
