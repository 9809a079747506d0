// A dump as a folder of .npy files.
#include "loader/json.h"
#include "loader/npy.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/exec/dump.h"

#include <inttypes.h>
#include <string.h>

#define INDEX_NAME "index.json"
#define INDEX_MARK "dump/1"

typedef struct record {
    kt_str address, file, stage, step;
    int64_t index;
    kt_dtype made, dtype;
    int rank;
    int64_t shape[KT_MAX_RANK];
} record;

struct kt_dump_folder {
    kt_arena *arena;
    const char *path;
    kt_str *old; // files of a former dump, its index among them
    int n_old;
    bool begun;
    KT_VEC(record) records;
    kt_table files; // by name in lower case
    int64_t bytes;
};

// ---- the folder as it is

// The list of tensors in the index of a former dump; NULL if there is none. `why` is set where the
// index cannot be read.
static const kt_json *former_tensors(kt_dump_folder *f, kt_err *why) {
    const kt_json_limits limits = {(int64_t)256 << 20, 8, 10000000};
    const kt_json *root = NULL;
    kt_str mark;
    const char *path = kt_path_join(f->arena, f->path, INDEX_NAME);
    if (!kt_os_may_be_file(path)) return NULL;
    if (kt_json_read(f->arena, path, limits, &root, why) != KT_OK) return NULL;
    if (!kt_json_get_text(kt_json_find(root, KT_STR("kotaro")), &mark)) return NULL;
    const kt_json *tensors = kt_json_find(root, KT_STR("tensors"));
    bool ours = kt_str_is(mark, INDEX_MARK) && tensors && tensors->kind == KT_JSON_LIST;
    return ours ? tensors : NULL;
}

// The files of a former dump, its index among them; none where there is no such index.
static void list_former(kt_dump_folder *f, kt_table *out, kt_err *why) {
    kt_table_init(out, f->arena);
    const kt_json *tensors = f->n_old > 0 ? former_tensors(f, why) : NULL;
    if (tensors) kt_table_set(out, KT_STR(INDEX_NAME), 1);
    for (size_t i = 0; tensors && i < tensors->n; i++) {
        kt_str file;
        if (kt_json_get_text(kt_json_find(&tensors->as.items[i], KT_STR("file")), &file))
            kt_table_set(out, file, 1);
    }
}

static kt_status check_files(kt_dump_folder *f, kt_err *err) {
    kt_table former;
    kt_err why = {KT_OK, ""};
    list_former(f, &former, &why);
    for (int i = 0; i < f->n_old; i++) {
        int64_t ours;
        if (kt_table_find(&former, f->old[i], &ours)) continue;
        KT_FAIL(err, KT_EFILE, "the folder '%s' holds '%.*s', which is no part of a former dump",
            f->path, KT_STR_ARG(f->old[i]));
        if (why.code != KT_OK) kt_err_note(err, "%s", why.text);
        kt_err_note(err, "name a new folder, or empty this one: a dump replaces nothing else");
        return KT_EFILE;
    }
    return KT_OK;
}

kt_status kt_dump_folder_open(
    kt_arena *arena, const char *path, kt_dump_folder **out, kt_err *err) {
    kt_dump_folder *f = KT_NEW(arena, kt_dump_folder);
    *f = (kt_dump_folder){.arena = arena, .path = path};
    kt_table_init(&f->files, arena);
    kt_path_kind kind = kt_os_stat(path).kind;
    if (kind != KT_PATH_NONE && kind != KT_PATH_FOLDER)
        return KT_FAIL(err, KT_EFILE, "'%s' is no folder", path);
    if (!kt_os_mkdirs(path)) return KT_FAIL(err, KT_EFILE, "the folder '%s' cannot be made", path);
    f->old = kt_os_list(arena, path, &f->n_old);
    if (f->n_old < 0) return KT_FAIL(err, KT_EFILE, "the folder '%s' cannot be read", path);
    KT_TRY(check_files(f, err));
    *out = f;
    return KT_OK;
}

static kt_status remove_former(const kt_dump_folder *f, bool index, kt_err *err) {
    for (int i = 0; i < f->n_old; i++) {
        if (kt_str_is(f->old[i], INDEX_NAME) != index) continue;
        const char *path = kt_path_join(f->arena, f->path, kt_str_z(f->arena, f->old[i]));
        if (!kt_os_remove(path)) return KT_FAIL(err, KT_EFILE, "'%s' cannot be replaced", path);
    }
    return KT_OK;
}

// Now that there is something new, the former files go; the index last, as it says whose they are.
static kt_status begin(kt_dump_folder *f, kt_err *err) {
    if (f->begun) return KT_OK;
    f->begun = true;
    KT_TRY(remove_former(f, false, err));
    return remove_former(f, true, err);
}

// ---- files

// Not yet taken, also where capitals are the same letters.
static bool claim(kt_dump_folder *f, const char *name) {
    kt_str key = kt_str_copy(f->arena, kt_str_from(name));
    char *at = kt_arena_copy(f->arena, key.at, key.n);
    for (size_t i = 0; i < key.n; i++)
        if (at[i] >= 'A' && at[i] <= 'Z') at[i] |= 0x20;
    key.at = at;
    int64_t seen;
    if (kt_table_find(&f->files, key, &seen)) return false;
    kt_table_set(&f->files, key, 1);
    return true;
}

static char *file_name(kt_dump_folder *f, kt_str address, int64_t index) {
    char *base = kt_arena_copy(f->arena, address.at, address.n);
    for (char *c = base; *c; c++)
        if (strchr("[]=/", *c)) *c = '-';
    if (index >= 0) base = kt_arena_printf(f->arena, "%s@%" PRId64, base, index);
    char *name = kt_arena_printf(f->arena, "%s.npy", base);
    for (int i = 2; !claim(f, name); i++) name = kt_arena_printf(f->arena, "%s-%d.npy", base, i);
    return name;
}

static kt_status take(void *ctx, const kt_dump_tensor *t, kt_err *err) {
    kt_dump_folder *f = ctx;
    KT_TRY(begin(f, err));
    const char *name = file_name(f, t->address, t->index);
    record r = {.address = t->address,
        .file = kt_str_from(name),
        .stage = t->stage,
        .step = t->step,
        .index = t->index,
        .made = t->made,
        .dtype = t->dtype,
        .rank = t->rank};
    memcpy(r.shape, t->shape, sizeof r.shape);
    KT_PUSH(f->arena, &f->records, r);
    f->bytes += t->n * kt_dtype_bytes(t->dtype);
    const char *path = kt_path_join(f->arena, f->path, name);
    return kt_npy_write(path, t->dtype, t->rank, t->shape, t->data, err);
}

kt_dump_to kt_dump_folder_to(kt_dump_folder *folder) {
    return (kt_dump_to){folder, take};
}

// ---- the index; all names in it are of letters, digits and signs that JSON has no need to escape

static void print_record(const record *r, bool first, kt_buf *out) {
    kt_buf_printf(out, "%s\n  {\"address\": \"%.*s", first ? "" : ",", KT_STR_ARG(r->address));
    if (r->index >= 0) kt_buf_printf(out, "@%" PRId64, r->index);
    kt_buf_printf(out, "\", \"file\": \"%.*s\", \"dtype\": \"%s\", \"made\": \"%s\", \"shape\": ",
        KT_STR_ARG(r->file), kt_dtype_name(r->dtype), kt_dtype_name(r->made));
    kt_npy_print_shape(r->rank, r->shape, out);
    kt_buf_printf(out, ", \"stage\": \"%.*s\", \"step\": \"%.*s\"}", KT_STR_ARG(r->stage),
        KT_STR_ARG(r->step));
}

static kt_status write_index(const kt_dump_folder *f, const kt_plan *plan, kt_err *err) {
    kt_buf out = {0};
    kt_buf_printf(&out,
        "{\"kotaro\": \"" INDEX_MARK "\", \"pipeline\": \"%.*s\", \"backend\": \"%s\", "
        "\"tensors\": [",
        KT_STR_ARG(plan->pipeline->name), plan->target.cuda ? "cuda" : "cpu");
    for (size_t i = 0; i < f->records.n; i++) print_record(&f->records.at[i], i == 0, &out);
    kt_buf_printf(&out, "\n]}\n");
    const char *path = kt_path_join(f->arena, f->path, INDEX_NAME);
    FILE *file = kt_os_fopen(path, "wb");
    bool ok = file && fwrite(out.at, 1, out.n, file) == out.n;
    if (file) ok = fclose(file) == 0 && ok;
    kt_buf_deinit(&out);
    return ok ? KT_OK : KT_FAIL(err, KT_EFILE, "'%s' cannot be written", path);
}

// Without an index a next dump would not know them as one.
static void remove_written(const kt_dump_folder *f) {
    for (size_t i = 0; i < f->records.n; i++)
        (void)kt_os_remove(
            kt_path_join(f->arena, f->path, kt_str_z(f->arena, f->records.at[i].file)));
    (void)kt_os_remove(kt_path_join(f->arena, f->path, INDEX_NAME));
}

// What was written is a former dump to the next run.
static void age(kt_dump_folder *f) {
    f->old = KT_NEW_ARRAY(f->arena, kt_str, f->records.n + 1);
    f->n_old = 0;
    for (size_t i = 0; i < f->records.n; i++) f->old[f->n_old++] = f->records.at[i].file;
    f->old[f->n_old++] = KT_STR(INDEX_NAME);
    f->records.n = 0;
    f->bytes = 0;
    f->begun = false;
    kt_table_init(&f->files, f->arena);
}

kt_status kt_dump_folder_end(kt_dump_folder *folder, const kt_plan *plan, kt_err *err) {
    if (folder->records.n == 0) return KT_OK; // a former dump stays as it was
    kt_status status = write_index(folder, plan, err);
    if (status != KT_OK) {
        remove_written(folder);
        return status;
    }
    kt_log_info("%zu tensors, %.2f MB, are in '%s'", folder->records.n, (double)folder->bytes / 1e6,
        folder->path);
    age(folder);
    return KT_OK;
}
