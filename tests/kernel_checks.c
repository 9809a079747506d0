#include "tests/kernel_checks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// Of sm_89, the smallest card that is supported, and (but for shared memory, of which others have
// more) of all. Source: CUDA C++ Programming Guide 12.8, tables of compute capabilities.
enum {
    SHARED_MAX = 99 * 1024, // of a block; of the 100 kB the system keeps 1
    THREADS_MAX = 1024,
    REGISTERS = 65536,
    REGISTER_UNIT = 8, // registers of a thread are given in eights, to warps in fours
    WARP_UNIT = 4,
    GRID_YZ_MAX = 65535,
};

const int kernel_archs[KERNEL_ARCHS] = {80, 86, 89, 90, 120};

// ---- texts

static kt_str next_line(kt_str *rest) {
    ptrdiff_t end = kt_str_find(*rest, '\n');
    kt_str line = end < 0 ? *rest : kt_str_slice(*rest, 0, (size_t)end);
    *rest = end < 0 ? KT_STR("") : kt_str_slice(*rest, (size_t)end + 1, rest->n);
    return line;
}

static kt_str next_word(kt_str *line) {
    *line = kt_str_trim(*line);
    ptrdiff_t space = kt_str_find(*line, ' ');
    kt_str word = space < 0 ? *line : kt_str_slice(*line, 0, (size_t)space);
    *line = kt_str_trim(kt_str_slice(*line, word.n, line->n));
    return word;
}

// " KT_A=1 KT_B=2", or nothing.
static const char *macros_of(kt_arena *arena, const kt_op_check_build *build) {
    const char *text = "";
    for (size_t i = 0; i < build->request.options->macros.n; i++) {
        const kt_option_macro *m = &build->request.options->macros.at[i];
        text = kt_arena_printf(arena, "%s %s=%s", text, m->name, m->value);
    }
    return text;
}

// ---- local memory

static kt_str next_part(kt_str *rest) { // of "a+b"
    ptrdiff_t plus = kt_str_find(*rest, '+');
    kt_str part = plus < 0 ? *rest : kt_str_slice(*rest, 0, (size_t)plus);
    *rest = plus < 0 ? KT_STR("") : kt_str_slice(*rest, (size_t)plus + 1, rest->n);
    return part;
}

static bool is_compiler(kt_str part) {
    return kt_str_starts(part, KT_STR("NVRTC="));
}

static bool is_for(kt_str macros, int major) {
    while (macros.n > 0) {
        kt_str part = next_part(&macros);
        int64_t wanted = 0;
        if (is_compiler(part) &&
            (!kt_str_to_i64(kt_str_slice(part, 6, part.n), &wanted) || wanted != major))
            return false;
    }
    return true;
}

void kernel_spills_read(
    kt_arena *arena, const char *path, kt_str text, int major, kernel_spills *out, kt_buf *wrong) {
    *out = (kernel_spills){.path = path};
    for (int number = 1; text.n > 0; number++) {
        kt_str line = kt_str_trim(next_line(&text));
        if (line.n == 0 || line.at[0] == '#') continue;
        kernel_spill one = {.line = number};
        one.op = next_word(&line);
        one.variant = next_word(&line);
        one.macros = next_word(&line);
        if (line.n == 0)
            kt_buf_printf(
                wrong, "%s:%d: a line has op, variant, macros and a reason\n", path, number);
        if (is_for(one.macros, major)) KT_PUSH(arena, &out->list, one);
    }
}

void kernel_spills_unused(const kernel_spills *spills, kt_buf *wrong) {
    for (size_t i = 0; i < spills->list.n; i++) {
        const kernel_spill *one = &spills->list.at[i];
        if (!one->needed)
            kt_buf_printf(wrong,
                "%s:%d: no build of %.*s %.*s %.*s uses local memory: remove the line\n",
                spills->path, one->line, KT_STR_ARG(one->op), KT_STR_ARG(one->variant),
                KT_STR_ARG(one->macros));
    }
}

static bool has_macro(const kt_op_check_build *build, kt_str part) {
    ptrdiff_t equals = kt_str_find(part, '=');
    if (equals < 0) return false;
    kt_str name = kt_str_slice(part, 0, (size_t)equals);
    kt_str value = kt_str_slice(part, (size_t)equals + 1, part.n);
    for (size_t i = 0; i < build->request.options->macros.n; i++) {
        const kt_option_macro *m = &build->request.options->macros.at[i];
        if (kt_str_is(name, m->name) && kt_str_is(value, m->value)) return true;
    }
    return false;
}

// "KT_A=1+KT_B=2": all of them.
static bool has_macros(const kt_op_check_build *build, kt_str macros) {
    while (macros.n > 0) {
        kt_str part = next_part(&macros);
        if (!is_compiler(part) && !has_macro(build, part)) return false;
    }
    return true;
}

static bool may_spill(const kt_op_check_build *build, kernel_spills *spills) {
    bool listed = false;
    for (size_t i = 0; i < spills->list.n; i++) {
        kernel_spill *one = &spills->list.at[i];
        if (!kt_str_eq(one->op, build->op->name) ||
            !kt_str_eq(one->variant, build->variant->name) || !has_macros(build, one->macros))
            continue;
        one->needed = true;
        listed = true;
    }
    return listed;
}

// ---- one build

// A kernel with its launch, and what messages say of it.
typedef struct seen {
    kt_arena *arena;
    const kt_op_check_build *build;
    const kt_cubin_kernel *kernel;
    const kt_geometry *most;
    const char *who; // "kt_add_flat on sm_89 with KT_D=8"
    kt_buf *wrong;
} seen;

static void look_at_params(const seen *s) {
    int n = 0;
    uint64_t at = 0;
    const kt_arg *args = kt_op_args(s->arena, s->build->op, s->build->variant, &n);
    if (n != s->kernel->n_params) {
        kt_buf_printf(s->wrong, "%s takes %d parameters, its manifest says %d\n", s->who,
            s->kernel->n_params, n);
        return;
    }
    for (int i = 0; i < n; i++) {
        const kt_cubin_param *param = &s->kernel->params[i];
        uint64_t bytes = (uint64_t)args[i].bytes;
        at = (at + bytes - 1) / bytes * bytes; // aligned to its size, as the runtime packs them
        if (param->size != bytes || param->offset != at) {
            kt_buf_printf(s->wrong,
                "%s has parameter %d ('%.*s') of %u bytes at %u, its manifest says %" PRIu64
                " at %" PRIu64 "\n",
                s->who, i, KT_STR_ARG(args[i].name), param->size, param->offset, bytes, at);
            return;
        }
        at += bytes;
    }
}

static void look_at_spills(const seen *s, kernel_spills *spills) {
    const kt_cubin_kernel *k = s->kernel;
    if (k->frame_bytes == 0 && k->spill_bytes <= 0) return;
    if (may_spill(s->build, spills)) return;
    kt_buf_printf(s->wrong, "%s uses local memory: a frame of %u bytes, %d bytes spilled\n", s->who,
        k->frame_bytes, k->spill_bytes);
}

static int64_t round_up(int64_t v, int64_t unit) {
    return (v + unit - 1) / unit * unit;
}

static void look_at_limits(const seen *s) {
    const kt_geometry *g = s->most;
    const kt_cubin_kernel *k = s->kernel;
    int64_t threads = g->block[0] * g->block[1] * g->block[2];
    int64_t warps = round_up((threads + 31) / 32, WARP_UNIT);
    int64_t registers = round_up(k->registers, REGISTER_UNIT) * warps * 32;
    int64_t shared = g->shared_bytes + (int64_t)k->shared_bytes;
    if (threads < 1)
        kt_buf_printf(s->wrong, "%s: no case launches it\n", s->who);
    else if (threads > THREADS_MAX)
        kt_buf_printf(s->wrong, "%s is launched with %" PRId64 " threads, a block has at most %d\n",
            s->who, threads, THREADS_MAX);
    else if (k->max_threads > 0 && threads > k->max_threads)
        kt_buf_printf(s->wrong,
            "%s is launched with %" PRId64 " threads, its __launch_bounds__ say %d\n", s->who,
            threads, k->max_threads);
    else if (registers > REGISTERS)
        kt_buf_printf(s->wrong,
            "%s takes %d registers a thread: %" PRId64 " for %" PRId64
            " threads, a block has at most %d; say __launch_bounds__\n",
            s->who, k->registers, registers, threads, REGISTERS);
    if (shared > SHARED_MAX)
        kt_buf_printf(s->wrong,
            "%s takes %u bytes of shared memory beside the %" PRId64
            " of its launch, a block of sm_89 has at most %d\n",
            s->who, k->shared_bytes, g->shared_bytes, SHARED_MAX);
    if (g->grid[0] > INT32_MAX || g->grid[1] > GRID_YZ_MAX || g->grid[2] > GRID_YZ_MAX)
        kt_buf_printf(s->wrong, "%s has a grid of %" PRId64 " x %" PRId64 " x %" PRId64 "\n",
            s->who, g->grid[0], g->grid[1], g->grid[2]);
}

// Spills are look_at_spills' business.
static void look_at_log(const char *who, kt_str log, kt_buf *wrong) {
    while (log.n > 0) {
        kt_str line = kt_str_trim(next_line(&log));
        bool spill = kt_str_find_text(line, "Registers are spilled") >= 0;
        if (line.n == 0 || spill || kt_str_starts(line, KT_STR("Remark: "))) continue;
        kt_buf_printf(wrong, "%s: %.*s\n", who, KT_STR_ARG(line));
    }
}

// Kernels of the file that the variant does not launch may be another variant's of the op.
static bool is_known(kt_arena *arena, const kt_op *op, const char *name) {
    for (int v = 0; v < op->n_variants; v++)
        for (int l = 0; l < op->variants[v].n_launches; l++) {
            const kt_variant *variant = &op->variants[v];
            if (strcmp(kt_op_kernel_name(arena, op, variant, &variant->launches[l]), name) == 0)
                return true;
        }
    return false;
}

void kernel_check_build(kt_arena *arena, const kt_op_check_build *build,
    const kt_compile_result *result, kernel_spills *spills, kt_buf *wrong) {
    const char *macros = macros_of(arena, build);
    const char *where = kt_arena_printf(
        arena, "on sm_%d%s%s", build->request.options->arch, macros[0] ? " with" : "", macros);
    const char *file = kt_arena_printf(arena, "%s %s", build->request.name, where);
    look_at_log(file, result->log, wrong);
    for (int i = 0; i < result->info->n_externals; i++)
        kt_buf_printf(
            wrong, "%s leaves '%s' for the driver to find\n", file, result->info->externals[i]);
    for (int i = 0; i < result->info->n_kernels; i++)
        if (!is_known(arena, build->op, result->info->kernels[i].name))
            kt_buf_printf(wrong, "%s has kernel '%s', which no variant has\n", file,
                result->info->kernels[i].name);
    for (int i = 0; i < build->variant->n_launches; i++) {
        const kt_op_launch *launch = &build->variant->launches[i];
        const char *name = kt_op_kernel_name(arena, build->op, build->variant, launch);
        seen s = {.arena = arena, .build = build, .most = &build->most[i], .wrong = wrong};
        s.kernel = kt_cubin_find(result->info, name);
        s.who = kt_arena_printf(arena, "%s %s", name, where);
        if (!s.kernel) {
            kt_buf_printf(wrong, "%s has no kernel '%s'\n", file, name);
            continue;
        }
        look_at_params(&s);
        look_at_spills(&s, spills);
        look_at_limits(&s);
    }
}

void kernel_check_same(const kt_op_check_build *build, const kt_compile_result *a,
    const kt_compile_result *b, kt_buf *wrong) {
    if (kt_str_eq(a->cubin, b->cubin)) return;
    size_t at = 0;
    while (at < a->cubin.n && at < b->cubin.n && a->cubin.at[at] == b->cubin.at[at]) at++;
    kt_buf_printf(wrong,
        "%s on sm_%d is not the same when compiled again: %zu (%s) and %zu (%s) bytes, equal up to "
        "byte %zu\n",
        build->request.name, build->request.options->arch, a->cubin.n,
        kt_compile_from_name(a->from), b->cubin.n, kt_compile_from_name(b->from), at);
}

kt_compile_request kernel_with_prototypes(kt_arena *arena, const kt_op_check_build *build) {
    kt_compile_request request = build->request;
    kt_buf text = {0};
    kt_buf_str(&text, request.source);
    kt_buf_printf(&text, "\n#line 1 \"the prototype of %s/op.yaml\"\n", build->op->folder);
    kt_op_print_prototype(build->op, build->variant, &text);
    request.source = kt_str_copy(arena, (kt_str){text.at, text.n});
    kt_buf_deinit(&text);
    return request;
}

// ---- the table

static kernel_row *find_row(kernel_table *table, const char *key) {
    for (size_t i = 0; i < table->rows.n; i++)
        if (strcmp(table->rows.at[i].key, key) == 0) return &table->rows.at[i];
    kernel_row row = {.key = key};
    memset(row.value, 0xff, sizeof row.value); // -1: no such build
    KT_PUSH(table->arena, &table->rows, row);
    return &table->rows.at[table->rows.n - 1];
}

void kernel_table_add(
    kernel_table *table, const kt_op_check_build *build, const kt_compile_result *result) {
    int arch = 0;
    while (kernel_archs[arch] != build->request.options->arch) arch++;
    for (int i = 0; i < build->variant->n_launches; i++) {
        const char *name = kt_op_kernel_name(
            table->arena, build->op, build->variant, &build->variant->launches[i]);
        const kt_cubin_kernel *k = kt_cubin_find(result->info, name);
        if (!k) continue;
        kernel_row *row = find_row(
            table, kt_arena_printf(table->arena, "%s%s", name, macros_of(table->arena, build)));
        row->value[0][arch] = k->registers;
        row->value[1][arch] = (int32_t)k->shared_bytes;
        row->value[2][arch] = (int32_t)k->frame_bytes;
        row->value[3][arch] = k->spill_bytes;
    }
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const kernel_row *)a)->key, ((const kernel_row *)b)->key);
}

// One number if all architectures have the same, and nothing if that is 0.
static void print_field(const char *name, const int32_t *values, kt_buf *out) {
    bool equal = true;
    for (int a = 1; a < KERNEL_ARCHS; a++) equal = equal && values[a] == values[0];
    if (equal && values[0] == 0) return;
    kt_buf_printf(out, ", %s", name);
    for (int a = 0; a < (equal ? 1 : KERNEL_ARCHS); a++)
        if (values[a] < 0)
            kt_buf_printf(out, " -");
        else
            kt_buf_printf(out, " %" PRId32, values[a]);
}

void kernel_table_print(kernel_table *table, const kt_nvrtc_id *id, kt_buf *out) {
    static const char *const names[KERNEL_FIELDS] = {"registers", "shared", "frame", "spilled"};
    kt_buf_printf(out,
        "# NVRTC %d.%d, files of %" PRId64 " and %" PRId64 " bytes. Made by: make resources\n"
        "# Each kernel and its macros: registers a thread; bytes of static shared memory, stack\n"
        "# frame and spills if not 0. One number, or those of sm_80, 86, 89, 90 and 120.\n",
        id->major, id->minor, id->library_bytes, id->builtins_bytes);
    if (table->rows.n > 0) qsort(table->rows.at, table->rows.n, sizeof *table->rows.at, by_key);
    for (size_t i = 0; i < table->rows.n; i++) {
        kt_buf_printf(out, "%s", table->rows.at[i].key);
        for (int f = 0; f < KERNEL_FIELDS; f++)
            print_field(names[f], table->rows.at[i].value[f], out);
        kt_buf_printf(out, "\n");
    }
}

static bool has_line(kt_str text, kt_str line) {
    while (text.n > 0)
        if (kt_str_eq(next_line(&text), line)) return true;
    return false;
}

static void only_in(kt_str text, kt_str other, char mark, kt_buf *wrong) {
    while (text.n > 0) {
        kt_str line = next_line(&text);
        if (!has_line(other, line)) kt_buf_printf(wrong, "%c %.*s\n", mark, KT_STR_ARG(line));
    }
}

void kernel_table_compare(kt_str want, kt_str got, kt_buf *wrong) {
    if (kt_str_eq(want, got)) return;
    size_t before = wrong->n;
    only_in(want, got, '-', wrong);
    only_in(got, want, '+', wrong);
    if (wrong->n == before) kt_buf_printf(wrong, "the same lines, in another order\n");
}
