// Wrong files and what is said about them, byte for byte.
//
// tests/bad holds, in any folder below it:
//   NAME.yaml beside NAME.err   a file of the kind that its 'kotaro:' line says (the table `kinds`)
//   NAME/op.yaml                an op, beside NAME/expected.err
//   NAME/a, maybe b and c       a registry with installed ops a and --ops folders b and c, beside
//   NAME/expected.err
// Run at the top of the tree. With KT_BLESS=1 the expectations are written instead: read each one
// before you commit it.
#include "loader/registry.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "tests/bad_pipelines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef void load(kt_arena *arena, const char *path, kt_diag *diag);

typedef struct kind_row {
    const char *name; // as in 'kotaro: NAME/1'
    load *run;        // NULL: nobody reads this kind yet, a file of it fails
} kind_row;

static void load_format(kt_arena *arena, const char *path, kt_diag *diag) {
    kt_format_open(arena, path, path, diag);
}

// A file that is no op as far as its first key says: what reading it as one says.
static void load_other(kt_arena *arena, const char *path, kt_diag *diag) {
    const kt_node *root = kt_yaml_open(arena, path, path, diag);
    if (root != NULL) kt_schema_kind(root, "op", diag);
}

static const kind_row kinds[] = {
    {"format", load_format},
    {"pipeline", bad_pipeline},
    {"model", bad_model},
};

// ---- the files

typedef struct bad_case {
    const char *path; // of the file, or of the folder
    const char *expected;
    load *run;
} bad_case;

typedef struct bad_cases {
    kt_arena arena;
    KT_VEC(bad_case) at;
} bad_cases;

static bool exists(kt_arena *arena, const char *folder, const char *name) {
    return kt_os_stat(kt_path_join(arena, folder, name)).kind != KT_PATH_NONE;
}

static void load_op(kt_arena *arena, const char *path, kt_diag *diag) {
    const kt_op *op = kt_op_open(arena, path, true, diag);
    if (op != NULL) kt_diag_error(diag, KT_RULE_FILE, (kt_place){0}, "the op was read");
}

static void load_registry(kt_arena *arena, const char *path, kt_diag *diag) {
    const char *folders[2] = {kt_path_join(arena, path, "b"), kt_path_join(arena, path, "c")};
    int n = exists(arena, path, "b") + exists(arena, path, "c");
    kt_registry *registry =
        kt_registry_open(arena, kt_path_join(arena, path, "a"), folders, n, diag);
    int n_ops;
    if (registry != NULL) kt_registry_all(registry, &n_ops, diag);
}

static load *loader_of(kt_arena *arena, const char *path) {
    kt_str text;
    kt_err err;
    if (kt_file_read(arena, path, 1 << 23, &text, &err) != KT_OK) return NULL;
    kt_str lead = KT_STR("kotaro: ");
    for (size_t i = 0; kt_str_starts(text, lead) && i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *line = kt_arena_printf(arena, "%s/", kinds[i].name);
        if (!kt_str_starts(kt_str_slice(text, lead.n, text.n), kt_str_from(line))) continue;
        if (kinds[i].run == NULL)
            fprintf(stderr, "%s: nobody reads a %s yet\n", path, kinds[i].name);
        return kinds[i].run;
    }
    return load_other;
}

static void add_case(bad_cases *cases, const char *path, const char *expected, load *run) {
    KT_PUSH(&cases->arena, &cases->at, ((bad_case){path, expected, run}));
}

static void list(bad_cases *cases, const char *folder) {
    kt_arena *arena = &cases->arena;
    int n;
    const kt_str *names = kt_os_list(arena, folder, &n);
    for (int i = 0; i < n; i++) {
        char *path = kt_path_join(arena, folder, kt_str_z(arena, names[i]));
        if (kt_os_stat(path).kind == KT_PATH_FOLDER) {
            const char *expected = kt_path_join(arena, path, "expected.err");
            if (exists(arena, path, "op.yaml")) {
                add_case(cases, path, expected, load_op);
            } else if (exists(arena, path, "a")) {
                add_case(cases, path, expected, load_registry);
            } else {
                list(cases, path);
            }
        } else if (kt_str_ends(names[i], KT_STR(".yaml"))) {
            const char *expected = kt_arena_printf(arena, "%.*s.err", (int)strlen(path) - 5, path);
            add_case(cases, path, expected, loader_of(arena, path));
        }
    }
}

// ---- running

static void bless(const char *path, kt_str text) {
    kt_err err;
    if (kt_os_write_atomic(path, text.at, text.n, &err) != KT_OK) fail_msg("%s", err.text);
}

static void says_what_is_expected(void **state) {
    const bad_case *now = *state;
    kt_arena arena = {0};
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    assert_non_null(now->run);
    now->run(&arena, now->path, &diag);
    kt_buf said = {0};
    kt_diag_print(&diag, &said);
    kt_str expected = KT_STR("");
    kt_err err;
    const char *wanted = kt_os_getenv("KT_BLESS");
    if (wanted != NULL && strcmp(wanted, "1") == 0) {
        bless(now->expected, (kt_str){said.at, said.n});
    } else if (kt_file_read(&arena, now->expected, 1 << 20, &expected, &err) != KT_OK) {
        fail_msg("%s", err.text);
    } else {
        assert_string_equal(said.at == NULL ? "" : said.at, kt_str_z(&arena, expected));
    }
    assert_true(diag.n_errors > 0);
    kt_buf_deinit(&said);
    kt_arena_deinit(&arena);
}

int main(void) {
    static bad_cases cases;
    kt_log_set_level(KT_LOG_QUIET);
    list(&cases, "tests/bad");
    if (cases.at.n == 0) {
        fprintf(stderr, "test_bad: no files in tests/bad; run it at the top of the tree\n");
        return 1;
    }
    struct CMUnitTest *tests = calloc(cases.at.n, sizeof *tests);
    if (tests == NULL) return 1;
    for (size_t i = 0; i < cases.at.n; i++)
        tests[i] = (struct CMUnitTest){
            cases.at.at[i].path, says_what_is_expected, NULL, NULL, &cases.at.at[i]};
    int failed = _cmocka_run_group_tests("bad", tests, cases.at.n, NULL, NULL);
    free(tests);
    kt_arena_deinit(&cases.arena);
    return failed;
}
