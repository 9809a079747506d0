#include "runtime/exec/backend.h"

#include <inttypes.h>
#include <stdlib.h>

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
    KT_ASSERT(!"every call belongs to a stage");
    return -1;
}

void kt_profile_add(kt_profile *profile, const kt_plan *plan, const kt_call *call,
    const int64_t *values, double ms) {
    kt_profile_row *row = find_row(profile, stage_of(plan, call), call);
    double flops, bytes;
    kt_plan_cost(plan, call, values, &flops, &bytes);
    row->n++;
    row->ms += ms;
    row->flops += flops;
    row->bytes += bytes;
}

// ---- the tables

static int slowest_first(const void *a, const void *b) {
    const kt_profile_row *x = a, *y = b;
    return (x->ms < y->ms) - (x->ms > y->ms);
}

// 0: not known.
static double read_share(const kt_profile *profile, const kt_profile_row *row) {
    if (profile->read_ceiling <= 0 || row->ms <= 0) return 0;
    return row->bytes / (row->ms / 1e3) / profile->read_ceiling;
}

// `row` may be a total: then `name` says so, and what it has no call.
static void print_row(
    const kt_profile *profile, const char *name, const kt_profile_row *row, kt_buf *out) {
    double seconds = row->ms > 0 ? row->ms / 1e3 : 1e-9;
    kt_buf_printf(out, "  %-36s %7" PRId64 " %11.3f %11.3f %9.1f", name, row->n, row->ms,
        row->bytes / 1e6, row->bytes / seconds / 1e9);
    double share = read_share(profile, row);
    if (share > 1) // more than memory gives: out of a cache, or the cost is an upper bound
        kt_buf_printf(out, " %9s", "*");
    else if (share > 0)
        kt_buf_printf(out, " %8.1f%%", 100 * share);
    kt_buf_printf(out, " %9.1f\n", row->flops / seconds / 1e9);
}

static void add_row(kt_profile_row *total, const kt_profile_row *row) {
    total->n += row->n;
    total->ms += row->ms;
    total->flops += row->flops;
    total->bytes += row->bytes;
}

static void print_stage(
    const kt_profile *profile, int stage, kt_str name, kt_profile_row *all, kt_buf *out) {
    kt_profile_row total = {0};
    for (size_t i = 0; i < profile->rows.n; i++) {
        const kt_profile_row *row = &profile->rows.at[i];
        if (row->stage != stage) continue;
        if (total.n == 0)
            kt_buf_printf(out, "\n  %-36.*s %7s %11s %11s %9s%s %9s\n", KT_STR_ARG(name), "calls",
                "ms", "MB", "GB/s", profile->read_ceiling > 0 ? "  of reads" : "", "GFLOP/s");
        kt_buf label = {0};
        kt_buf_printf(&label, "  %.*s", KT_STR_ARG(row->call->op->name));
        if (row->call->variant)
            kt_buf_printf(&label, "[%.*s]", KT_STR_ARG(row->call->variant->name));
        print_row(profile, label.at, row, out);
        kt_buf_deinit(&label);
        add_row(&total, row);
    }
    if (total.n == 0) return;
    print_row(profile, "  total", &total, out);
    add_row(all, &total);
}

void kt_profile_print(const kt_profile *profile, const kt_plan *plan, kt_buf *out) {
    kt_profile sorted = *profile;
    sorted.rows.at = malloc(sizeof *sorted.rows.at * (profile->rows.n + 1));
    if (!sorted.rows.at) kt_out_of_memory(sizeof *sorted.rows.at * profile->rows.n);
    for (size_t i = 0; i < profile->rows.n; i++) sorted.rows.at[i] = profile->rows.at[i];
    qsort(sorted.rows.at, sorted.rows.n, sizeof *sorted.rows.at, slowest_first);
    if (profile->read_ceiling > 0)
        kt_buf_printf(
            out, "reads of this device, measured: %.1f GB/s\n", profile->read_ceiling / 1e9);
    kt_profile_row all = {0};
    for (int stage = 0; stage < plan->n_stages; stage++)
        print_stage(&sorted, stage, plan->stages[stage].name, &all, out);
    if (all.n > 0) {
        kt_buf_printf(out, "\n");
        print_row(&sorted, "all ops, all pictures", &all, out);
    }
    bool above = false;
    for (size_t i = 0; i < sorted.rows.n; i++)
        above = above || read_share(profile, &sorted.rows.at[i]) > 1;
    if (above)
        kt_buf_printf(out, "  * more than the memory reads: the bytes stay in a cache, or their "
                           "count is the upper "
                           "bound that the op's manifest gives\n");
    free(sorted.rows.at);
}
