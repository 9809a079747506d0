#include "loader/registry.h"

#include "loader/registry_parts.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 32 }; // of bodies in bodies

static const kt_place nowhere;

// ---- listing folders

static kt_registry_entry *find_entry(const kt_registry *registry, kt_str name) {
    for (size_t i = 0; i < registry->entries.n; i++) {
        if (kt_str_eq(registry->entries.at[i].name, name)) return &registry->entries.at[i];
    }
    return NULL;
}

static bool add_op(
    kt_registry *registry, kt_str name, const char *folder, int from, kt_diag *diag) {
    kt_registry_entry now = {.name = name, .folder = folder, .from = from};
    kt_registry_entry *before = find_entry(registry, name);
    if (before == NULL) {
        KT_PUSH(registry->arena, &registry->entries, now);
        return true;
    }
    if (before->from > 0) {
        kt_diag_error(diag, KT_RULE_NAME, nowhere,
            "op '%.*s' is in two --ops folders: '%s' and '%s'", KT_STR_ARG(name), before->folder,
            folder);
        kt_diag_note(diag, "rename one of them, or leave one folder out");
        return false;
    }
    kt_log_info("op '%.*s' in '%s' replaces the shipped one", KT_STR_ARG(name), folder);
    *before = now;
    return true;
}

static bool add_format(
    kt_registry *registry, kt_str name, const char *path, int from, kt_diag *diag) {
    kt_registry_file now = {name, path, from};
    for (size_t i = 0; i < registry->files.n; i++) {
        kt_registry_file *before = &registry->files.at[i];
        if (!kt_str_eq(before->name, name)) continue;
        if (before->from > 0) {
            kt_diag_error(diag, KT_RULE_NAME, nowhere,
                "format '%.*s' is in two --ops folders: '%s' and '%s'", KT_STR_ARG(name),
                before->path, path);
            kt_diag_note(diag, "rename one of them, or leave one folder out");
            return false;
        }
        kt_log_info("format '%.*s' in '%s' replaces the shipped one", KT_STR_ARG(name), path);
        *before = now;
        return true;
    }
    KT_PUSH(registry->arena, &registry->files, now);
    return true;
}

static bool list_formats(kt_registry *registry, const char *folder, int from, kt_diag *diag) {
    int n;
    const kt_str *names = kt_os_list(registry->arena, folder, &n);
    if (n < 0)
        return kt_diag_error(
            diag, KT_RULE_FILE, nowhere, "the folder of formats '%s' cannot be read", folder);
    kt_str end = KT_STR(".format.yaml");
    bool good = true;
    for (int i = 0; i < n; i++) {
        if (!kt_str_ends(names[i], end) || names[i].n == end.n) continue;
        const char *path =
            kt_path_join(registry->arena, folder, kt_str_z(registry->arena, names[i]));
        good =
            add_format(registry, kt_str_slice(names[i], 0, names[i].n - end.n), path, from, diag) &&
            good;
    }
    return good;
}

static bool list_folder(kt_registry *registry, const char *folder, int from, kt_diag *diag) {
    int n;
    const kt_str *names = kt_os_list(registry->arena, folder, &n);
    if (n < 0)
        return kt_diag_error(
            diag, KT_RULE_FILE, nowhere, "the folder of ops '%s' cannot be read", folder);
    if (kt_os_stat(kt_path_join(registry->arena, folder, "op.yaml")).kind == KT_PATH_FILE) {
        kt_diag_error(diag, KT_RULE_FILE, nowhere, "'%s' is the folder of one op", folder);
        kt_diag_note(diag, "--ops takes the folder in which such folders lie");
        return false;
    }
    bool good = true;
    for (int i = 0; i < n; i++) {
        const char *path =
            kt_path_join(registry->arena, folder, kt_str_z(registry->arena, names[i]));
        if (names[i].at[0] == '.') continue;
        kt_path_kind kind = kt_os_stat(path).kind;
        if (kind == KT_PATH_UNKNOWN)
            good = kt_diag_error(diag, KT_RULE_FILE, nowhere, "'%s' cannot be read", path);
        if (kind != KT_PATH_FOLDER) continue;
        if (kt_str_is(names[i], "formats")) {
            good = list_formats(registry, path, from, diag) && good;
        } else if (kt_os_may_be_file(kt_path_join(registry->arena, path, "op.yaml"))) {
            good = add_op(registry, names[i], path, from, diag) && good;
        } else {
            KT_PUSH(registry->arena, &registry->skipped, path);
        }
    }
    return good;
}

static int compare_entries(const void *a, const void *b) {
    const kt_registry_entry *left = a, *right = b;
    return kt_str_cmp(left->name, right->name);
}

// ---- reading

static int marks_of(const kt_format *format) {
    return format->when.n == 0 ? 0 : 1 + format->n_also;
}

static int compare_formats(const void *a, const void *b) {
    const kt_format *left = *(const kt_format *const *)a, *right = *(const kt_format *const *)b;
    if (marks_of(left) != marks_of(right)) return marks_of(left) > marks_of(right) ? -1 : 1;
    return kt_str_cmp(left->name, right->name);
}

static bool read_formats(kt_registry *registry, kt_diag *diag) {
    bool good = true;
    for (size_t i = 0; i < registry->files.n; i++) {
        const char *path = registry->files.at[i].path;
        const kt_format *format = kt_format_open(registry->arena, path, path, diag);
        good = good && format != NULL;
        // NOLINTNEXTLINE(bugprone-sizeof-expression): pointers
        if (format != NULL) KT_PUSH(registry->arena, &registry->formats, format);
    }
    if (registry->formats.n == 0) return good;
    qsort(registry->formats.at, registry->formats.n, sizeof(void *), compare_formats);
    return good;
}

// Whether the manifest has the key `prepare`. One with mistakes has none; they are reported when it
// is asked for. false: its file cannot be read, and nobody knows whether it would be asked for.
static bool find_prepare(const char *folder, bool *found, kt_diag *diag) {
    kt_arena tmp = {0};
    kt_diag quiet;
    kt_diag_init(&quiet, &tmp);
    const char *path = kt_path_join(&tmp, folder, "op.yaml");
    const kt_node *root = kt_yaml_open(&tmp, path, path, &quiet);
    *found = kt_node_find(root, "prepare") != NULL;
    bool good = true;
    for (size_t i = 0; root == NULL && i < quiet.entries.n; i++)
        if (quiet.entries.at[i].rule == KT_RULE_FILE)
            good = kt_diag_error(diag, KT_RULE_FILE, nowhere, "%s", quiet.entries.at[i].message);
    kt_arena_deinit(&tmp);
    return good;
}

static bool read_prepares(kt_registry *registry, kt_diag *diag) {
    bool good = true;
    for (size_t i = 0; i < registry->entries.n; i++) {
        kt_registry_entry *entry = &registry->entries.at[i];
        bool prepare;
        good = find_prepare(entry->folder, &prepare, diag) && good;
        if (!prepare) continue;
        entry->op = kt_op_open(registry->arena, entry->folder, entry->from == 0, diag);
        entry->state = entry->op == NULL ? KT_REGISTRY_BAD : KT_REGISTRY_READ;
        good = good && entry->op != NULL;
        // NOLINTNEXTLINE(bugprone-sizeof-expression): pointers
        if (entry->op != NULL) KT_PUSH(registry->arena, &registry->prepares, entry->op);
    }
    return good;
}

kt_registry *kt_registry_open(kt_arena *arena, const char *installed, const char *const *folders,
    int n_folders, kt_diag *diag) {
    kt_registry *registry = KT_NEW(arena, kt_registry);
    registry->arena = arena;
    bool good = list_folder(registry, installed, 0, diag);
    for (int i = 0; i < n_folders; i++)
        good = list_folder(registry, folders[i], i + 1, diag) && good;
    if (registry->entries.n > 0)
        qsort(registry->entries.at, registry->entries.n, sizeof registry->entries.at[0],
            compare_entries);
    good = read_formats(registry, diag) && good;
    good = read_prepares(registry, diag) && good;
    if (!good || !kt_registry_check(registry, diag)) return NULL;
    return registry;
}

static const kt_op *get_op(
    kt_registry *registry, kt_registry_entry *entry, kt_place at, kt_diag *diag);

// The ops of the body must be there and readable, and none of them may come back to this one.
static bool read_body_ops(kt_registry *registry, const kt_op *op, kt_diag *diag) {
    bool good = true;
    for (int i = 0; i < op->n_body; i++)
        good = kt_registry_op(registry, op->body[i].op, diag) != NULL && good;
    return good;
}

static const kt_op *read_op(kt_registry *registry, kt_registry_entry *entry, kt_diag *diag) {
    entry->state = KT_REGISTRY_READING;
    registry->depth++;
    const kt_op *op = kt_op_open(registry->arena, entry->folder, entry->from == 0, diag);
    bool good = op != NULL && kt_registry_check_layouts(registry, op, diag);
    if (op != NULL) good = read_body_ops(registry, op, diag) && good;
    registry->depth--;
    entry->op = good ? op : NULL;
    entry->state = good ? KT_REGISTRY_READ : KT_REGISTRY_BAD;
    return entry->op;
}

static const kt_op *get_op(
    kt_registry *registry, kt_registry_entry *entry, kt_place at, kt_diag *diag) {
    switch (entry->state) {
    case KT_REGISTRY_READ:
        return entry->op;
    case KT_REGISTRY_BAD:
        if (diag->n_errors == 0)
            kt_diag_error(diag, KT_RULE_NAME, at,
                "op '%.*s' cannot be used: its manifest has mistakes", KT_STR_ARG(entry->name));
        return NULL;
    case KT_REGISTRY_READING:
        kt_diag_error(diag, KT_RULE_STEP, at, "the body of op '%.*s' comes back to itself",
            KT_STR_ARG(entry->name));
        return NULL;
    case KT_REGISTRY_UNREAD:
        break;
    }
    if (registry->depth < MAX_DEPTH) return read_op(registry, entry, diag);
    kt_diag_error(diag, KT_RULE_LIMIT, at, "bodies are nested deeper than %d", MAX_DEPTH);
    return NULL;
}

const kt_op *kt_registry_op(kt_registry *registry, kt_ref name, kt_diag *diag) {
    kt_registry_entry *entry = find_entry(registry, name.text);
    if (entry != NULL) return get_op(registry, entry, name.at, diag);
    size_t n = registry->entries.n;
    kt_str *known = KT_NEW_ARRAY(diag->arena, kt_str, n);
    for (size_t i = 0; i < n; i++) known[i] = registry->entries.at[i].name;
    kt_diag_error(diag, KT_RULE_NAME, name.at, "unknown op '%.*s'", KT_STR_ARG(name.text));
    kt_diag_near(diag, name.text, known, n, false);
    kt_diag_note(diag, "'kotaro ops list' lists all ops; --ops adds a folder of your own");
    return NULL;
}

const kt_op *const *kt_registry_all(kt_registry *registry, int *n, kt_diag *diag) {
    const kt_op **all = KT_NEW_ARRAY(registry->arena, const kt_op *, registry->entries.n);
    *n = 0;
    for (size_t i = 0; i < registry->entries.n; i++) {
        const kt_op *op = get_op(registry, &registry->entries.at[i], nowhere, diag);
        if (op != NULL) all[(*n)++] = op;
    }
    for (size_t i = 0; i < registry->skipped.n; i++)
        kt_diag_warning(diag, KT_RULE_FILE, nowhere, "folder '%s' has no op.yaml and is skipped",
            registry->skipped.at[i]);
    return all;
}

int kt_registry_formats(const kt_registry *registry, const kt_format *const **out) {
    *out = registry->formats.at;
    return (int)registry->formats.n;
}

const kt_format *kt_registry_format(const kt_registry *registry, kt_str name) {
    for (size_t i = 0; i < registry->formats.n; i++) {
        if (kt_str_eq(registry->formats.at[i]->name, name)) return registry->formats.at[i];
    }
    return NULL;
}

const kt_op *kt_registry_prepare(const kt_registry *registry, kt_str format, kt_str layout) {
    for (size_t i = 0; i < registry->prepares.n; i++) {
        const kt_op *op = registry->prepares.at[i];
        if (!kt_str_eq(op->prepare_layout, layout)) continue;
        for (int f = 0; f < op->n_prepare_formats; f++)
            if (kt_str_eq(op->prepare_formats[f].text, format)) return op;
    }
    return NULL;
}

bool kt_registry_layout_known(const kt_registry *registry, kt_str layout) {
    for (size_t i = 0; i < registry->prepares.n; i++) {
        if (kt_str_eq(registry->prepares.at[i]->prepare_layout, layout)) return true;
    }
    return false;
}
