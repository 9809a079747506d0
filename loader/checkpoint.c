#include "loader/checkpoint.h"

#include "loader/gguf.h"
#include "loader/json.h"
#include "loader/safetensors.h"
#include "runtime/base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// The reader of each kind of file, by the end of its name.
typedef struct kind_row {
    const char *ending;
    bool one; // a pattern takes one file
    kt_status (*read)(kt_arena *arena, kt_checkpoint_file *file, int file_index, kt_stored **stored,
        int64_t *n, kt_err *err);
} kind_row;

static kt_status read_safetensors(kt_arena *arena, kt_checkpoint_file *file, int file_index,
    kt_stored **stored, int64_t *n, kt_err *err) {
    return kt_safetensors_read(arena, file, file_index, stored, n, err);
}

static kt_status read_gguf(kt_arena *arena, kt_checkpoint_file *file, int file_index,
    kt_stored **stored, int64_t *n, kt_err *err) {
    return kt_gguf_read(arena, file, file_index, &file->gguf, stored, n, err);
}

static const kind_row kinds[] = {
    {".safetensors", false, read_safetensors},
    {".gguf", true, read_gguf},
};

enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

#define INDEX_ENDING ".index.json"
#define INDEX_USUAL  "model.safetensors.index.json"
#define INDEX_REMEDY                                                                               \
    "index and files are not of one download: download the folder again, or remove the index to "  \
    "read all files"

// Names of files in a folder, in an arena.
typedef struct names {
    kt_str *at;
    size_t n, cap;
} names;

typedef struct opener {
    kt_arena *arena;
    kt_checkpoint *out;
    const kt_checkpoint_wanted *wanted;
    const kt_json *weight_map; // NULL without an index
    const char *index;         // its path
    kt_err *err;
} opener;

// ---- which files

static bool listed(const names *list, kt_str name) {
    for (size_t i = 0; i < list->n; i++) {
        if (kt_str_eq(list->at[i], name)) return true;
    }
    return false;
}

// "a, b, c" of a folder, cut after a dozen.
static const char *shown(kt_arena *arena, const kt_str *list, int n) {
    enum { SHOWN = 12 };
    kt_buf buf = {0};
    kt_buf_printf(&buf, "%s", n == 0 ? "nothing" : "");
    for (int i = 0; i < n && i < SHOWN; i++)
        kt_buf_printf(&buf, "%s%.*s", i == 0 ? "" : ", ", KT_STR_ARG(list[i]));
    if (n > SHOWN) kt_buf_printf(&buf, " and %d more", n - SHOWN);
    const char *text = kt_arena_copy(arena, buf.at, buf.n);
    kt_buf_deinit(&buf);
    return text;
}

// A name that stays inside the folder.
static bool is_plain_name(kt_str name) {
    if (name.n == 0 || name.at[0] == '.') return false;
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.at[i];
        if (c < 0x20 || c == '/' || c == '\\' || c == ':') return false;
    }
    return true;
}

static kt_status files_of_index(opener *in, names *files) {
    enum { MAX_BYTES = 64 << 20, MAX_DEPTH = 8, MAX_VALUES = 2 << 20 };
    kt_json_limits limits = {MAX_BYTES, MAX_DEPTH, MAX_VALUES};
    const kt_json *root;
    kt_status status = kt_json_read(in->arena, in->index, limits, &root, in->err);
    if (status == KT_EFORMAT) kt_err_note(in->err, "the file is damaged; download it again");
    KT_TRY(status);
    in->weight_map = kt_json_find(root, KT_STR("weight_map"));
    if (in->weight_map == NULL || in->weight_map->kind != KT_JSON_OBJECT) {
        return KT_FAIL(in->err, KT_EFORMAT, "%s: 'weight_map' is %s, expected an object", in->index,
            kt_json_describe(in->arena, in->weight_map));
    }
    for (size_t i = 0; i < in->weight_map->n; i++) {
        const kt_json_member *member = kt_json_member_at(in->weight_map, i);
        kt_str file;
        if (!kt_json_get_text(&member->value, &file) || !is_plain_name(file)) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: the file of tensor '%.*s' is %s, expected the name of a file in this folder",
                in->index, (int)(member->name.n < 200 ? member->name.n : 200), member->name.at,
                kt_json_describe(in->arena, &member->value));
        }
        // Tensors mostly come file by file, so the last one is the likely one.
        bool same = files->n > 0 && kt_str_eq(files->at[files->n - 1], file);
        if (!same && !listed(files, file)) KT_PUSH(in->arena, files, file);
        if (files->n > 1000) {
            return KT_FAIL(in->err, KT_EFORMAT, "%s: it names more than 1000 files", in->index);
        }
    }
    return KT_OK;
}

// The index for a pattern: PATTERN.index.json, the usual name first. Empty when there is none.
static kt_str find_index(kt_arena *arena, kt_str pattern, const kt_str *list, int n) {
    if (kt_str_find(pattern, '*') < 0) return (kt_str){"", 0};
    kt_str wanted = kt_str_from(kt_arena_printf(arena, "%.*s" INDEX_ENDING, KT_STR_ARG(pattern)));
    kt_str found = {"", 0};
    for (int i = 0; i < n; i++) {
        if (!kt_str_match(wanted, list[i])) continue;
        if (kt_str_is(list[i], INDEX_USUAL)) return list[i];
        if (found.n == 0) found = list[i];
    }
    return found;
}

// The part of a pattern before " not ", and the one behind it, which may be empty.
static void split_pattern(kt_str pattern, kt_str *take, kt_str *leave) {
    ptrdiff_t at = kt_str_find_text(pattern, " not ");
    *take = kt_str_trim(kt_str_slice(pattern, 0, at < 0 ? pattern.n : (size_t)at));
    *leave = at < 0 ? (kt_str){"", 0} : kt_str_slice(pattern, (size_t)at + 5, pattern.n);
    *leave = kt_str_trim(*leave);
}

bool kt_checkpoint_match(kt_str pattern, kt_str name) {
    kt_str take, leave;
    split_pattern(pattern, &take, &leave);
    return kt_str_match(take, name) && (leave.n == 0 || !kt_str_match(leave, name));
}

static const kind_row *kind_of(kt_str name) {
    for (int i = 0; i < N_KINDS; i++) {
        if (kt_str_ends(name, kt_str_from(kinds[i].ending))) return &kinds[i];
    }
    return NULL;
}

// Of `files` from `first` on, which match the pattern, the one that is meant.
static kt_status choose_one(opener *in, kt_str pattern, size_t first, names *files) {
    for (size_t i = first; i < files->n; i++) {
        if (!kt_str_eq(files->at[i], in->wanted->file)) continue;
        files->at[first] = files->at[i];
        files->n = first + 1;
    }
    if (files->n <= first + 1) return KT_OK;
    return KT_FAIL(in->err, KT_EFILE,
        "several files of '%s' match '%.*s', and one is to be taken: %s; name the file of the "
        "model, as in --model %s/%.*s, and leave one of each other kind in the folder",
        in->out->folder, KT_STR_ARG(pattern),
        shown(in->arena, files->at + first, (int)(files->n - first)), in->out->folder,
        KT_STR_ARG(files->at[first]));
}

static kt_status choose_files(opener *in, kt_str pattern, const names *list, names *files) {
    const char *folder = in->out->folder;
    kt_str take, leave;
    split_pattern(pattern, &take, &leave);
    const kind_row *kind = kind_of(take);
    kt_str index = find_index(in->arena, take, list->at, (int)list->n);
    size_t first = files->n;
    if (index.n > 0) {
        in->index = kt_path_join(in->arena, folder, kt_str_z(in->arena, index));
        KT_TRY(files_of_index(in, files));
    } else {
        for (size_t i = 0; i < list->n; i++) {
            if (kt_checkpoint_match(pattern, list->at[i]) && !listed(files, list->at[i]))
                KT_PUSH(in->arena, files, list->at[i]);
        }
    }
    if (kind != NULL && kind->one) KT_TRY(choose_one(in, pattern, first, files));
    if (files->n > first) return KT_OK;
    return KT_FAIL(in->err, KT_EFILE, "no file of '%s' matches '%.*s'; there is %s", folder,
        KT_STR_ARG(pattern), shown(in->arena, list->at, (int)list->n));
}

static kt_status choose_all(opener *in, names *files) {
    const kt_checkpoint_wanted *wanted = in->wanted;
    int n;
    kt_str *found = kt_os_list(in->arena, wanted->folder, &n);
    if (n < 0)
        return KT_FAIL(in->err, KT_EFILE, "'%s' is not a folder that can be read", in->out->folder);
    names list = {found, (size_t)n, (size_t)n};
    for (int i = 0; i < wanted->n_patterns; i++)
        KT_TRY(choose_files(in, wanted->patterns[i], &list, files));
    if (wanted->file.n == 0 || listed(files, wanted->file)) return KT_OK;
    return KT_FAIL(in->err, KT_EFILE,
        "'%.*s' in '%s' is no file that this pipeline's model file takes; name another one",
        KT_STR_ARG(wanted->file), in->out->folder);
}

// ---- what is in them

// The tensors of one file against the index: each must be named there, with this file.
static kt_status check_named(opener *in, kt_str file, const kt_stored *stored, int64_t n) {
    for (int64_t i = 0; in->weight_map != NULL && i < n; i++) {
        const kt_json *named = kt_json_find(in->weight_map, stored[i].name);
        if (named == NULL) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: file '%.*s' holds the tensor '%.*s', which the index does not "
                "name; " INDEX_REMEDY,
                in->index, KT_STR_ARG(file), KT_STR_ARG(stored[i].name));
        }
        if (!kt_str_eq(named->as.text, file)) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: tensor '%.*s' is in file '%.*s', but the index says '%.*s'; " INDEX_REMEDY,
                in->index, KT_STR_ARG(stored[i].name), KT_STR_ARG(file),
                KT_STR_ARG(named->as.text));
        }
    }
    return KT_OK;
}

static kt_status open_one(opener *in, kt_str name, kt_stored **stored, int64_t *n) {
    const kind_row *kind = kind_of(name);
    if (kind == NULL) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "'%.*s' in '%s' is of no kind that Kotaro reads; it reads .safetensors and "
            ".gguf",
            KT_STR_ARG(name), in->out->folder);
    }
    kt_checkpoint_file *file = &in->out->files[in->out->n_files];
    file->path = kt_path_join(in->arena, in->out->folder, kt_str_z(in->arena, name));
    kt_status status = kt_os_open(file->path, &file->file, in->err);
    if (status != KT_OK) {
        if (in->index != NULL)
            kt_err_note(in->err, "'%s' names this file; download it too", in->index);
        return status;
    }
    in->out->n_files++;
    KT_TRY(kind->read(in->arena, file, in->out->n_files - 1, stored, n, in->err));
    return check_named(in, name, *stored, *n);
}

static int by_name(const void *a, const void *b) {
    const kt_stored *x = a, *y = b;
    return kt_str_cmp(x->name, y->name);
}

static kt_status check_unique(opener *in) {
    const kt_checkpoint *all = in->out;
    for (int64_t i = 1; i < all->n_stored; i++) {
        const kt_stored *a = &all->stored[i - 1], *b = &all->stored[i];
        if (!kt_str_eq(a->name, b->name)) continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "tensor '%.*s' is in both '%s' and '%s'; leave only the files of one checkpoint in the "
            "folder, or add its index",
            KT_STR_ARG(a->name), all->files[a->file].path, all->files[b->file].path);
    }
    return KT_OK;
}

static kt_status check_complete(opener *in) {
    for (size_t i = 0; in->weight_map != NULL && i < in->weight_map->n; i++) {
        const kt_json_member *member = kt_json_member_at(in->weight_map, i);
        if (kt_checkpoint_find(in->out, member->name) != NULL) continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: the index says that tensor '%.*s' is in file '%.*s', but it is not; " INDEX_REMEDY,
            in->index, (int)(member->name.n < 200 ? member->name.n : 200), member->name.at,
            KT_STR_ARG(member->value.as.text));
    }
    return KT_OK;
}

static kt_status open_all(opener *in, const names *files) {
    kt_checkpoint *out = in->out;
    out->files = KT_NEW_ARRAY(in->arena, kt_checkpoint_file, files->n);
    kt_stored **parts = KT_NEW_ARRAY(in->arena, kt_stored *, files->n);
    int64_t *counts = KT_NEW_ARRAY(in->arena, int64_t, files->n);
    for (size_t i = 0; i < files->n; i++) {
        KT_TRY(open_one(in, files->at[i], &parts[i], &counts[i]));
        out->n_stored += counts[i];
    }
    out->stored = KT_NEW_ARRAY(in->arena, kt_stored, out->n_stored);
    int64_t at = 0;
    for (size_t i = 0; i < files->n; i++) {
        for (int64_t j = 0; j < counts[i]; j++) {
            out->bytes += parts[i][j].bytes; // within the files' sizes, so no overflow
            out->stored[at++] = parts[i][j];
        }
    }
    if (at > 1) qsort(out->stored, (size_t)at, sizeof *out->stored, by_name);
    KT_TRY(check_unique(in));
    return check_complete(in);
}

// ---- public

kt_status kt_checkpoint_open_files(
    kt_arena *arena, const kt_checkpoint_wanted *wanted, kt_checkpoint *out, kt_err *err) {
    *out = (kt_checkpoint){.arena = arena};
    out->folder = kt_arena_copy(arena, wanted->folder, strlen(wanted->folder));
    opener in = {.arena = arena, .out = out, .wanted = wanted, .err = err};
    names files = {0};
    kt_status status = choose_all(&in, &files);
    if (status == KT_OK) status = open_all(&in, &files);
    if (status != KT_OK) kt_checkpoint_close(out);
    return status;
}

kt_status kt_checkpoint_open(
    kt_arena *arena, const char *folder, kt_str pattern, kt_checkpoint *out, kt_err *err) {
    kt_checkpoint_wanted wanted = {.folder = folder, .patterns = &pattern, .n_patterns = 1};
    return kt_checkpoint_open_files(arena, &wanted, out, err);
}

void kt_checkpoint_close(kt_checkpoint *checkpoint) {
    for (int i = 0; i < checkpoint->n_files; i++) kt_os_close(checkpoint->files[i].file);
    *checkpoint = (kt_checkpoint){0};
}

const kt_stored *kt_checkpoint_find(const kt_checkpoint *checkpoint, kt_str name) {
    int64_t from = 0, to = checkpoint->n_stored;
    while (from < to) {
        int64_t middle = from + (to - from) / 2;
        int order = kt_str_cmp(name, checkpoint->stored[middle].name);
        if (order == 0) return &checkpoint->stored[middle];
        if (order < 0)
            to = middle;
        else
            from = middle + 1;
    }
    return NULL;
}

kt_status kt_checkpoint_read(const kt_checkpoint *checkpoint, const kt_stored *stored,
    int64_t offset, void *out, int64_t size, kt_err *err) {
    const kt_checkpoint_file *file = &checkpoint->files[stored->file];
    if (offset < 0 || size < 0 || offset > stored->bytes || size > stored->bytes - offset) {
        return KT_FAIL(err, KT_EFORMAT,
            "%s: bytes %" PRId64 " to %" PRId64 " of tensor '%.*s' are wanted, it has %" PRId64,
            file->path, offset, offset + size, KT_STR_ARG(stored->name), stored->bytes);
    }
    kt_status status = kt_os_read_at(file->file, stored->offset + offset, out, (size_t)size, err);
    if (status != KT_OK) kt_err_note(err, "tensor '%.*s'", KT_STR_ARG(stored->name));
    return status;
}
