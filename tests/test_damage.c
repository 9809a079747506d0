// Damaged checkpoints: what the program says to each kind, and that it says it before it takes much
// memory and without a crash. The messages are goldens in tests/damage; DAMAGE_UPDATE=1 writes them
// and the table docs/notes/damage.md anew.
#include "runtime/base/file.h"
#include "runtime/base/os.h"
#include "tests/damage_table.h"
#include "tests/util.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// Address space of the program under test: far below what the sizes in damaged headers ask for.
#if defined(__SANITIZE_ADDRESS__)
static const char limited[] = "exec \"$@\""; // the sanitizers reserve terabytes
#else
static const char limited[] = "ulimit -v 600000; exec \"$@\"";
#endif

enum { MAX_FILE = 64 << 20 };

static kt_arena arena; // of all tests
static const char *root;
static const char *program;

// ---- files

static kt_str slurp(const char *path) {
    kt_str text = {"", 0};
    kt_err err = {0};
    if (kt_file_read(&arena, path, MAX_FILE, &text, &err) != KT_OK) fail_msg("%s", err.text);
    return text;
}

static const char *in_folder(const char *folder, const char *name) {
    return kt_path_join(&arena, folder, name);
}

static void run_ok(const char *const *argv) {
    kt_buf out = {0};
    int code = kt_os_run(argv, &out);
    if (code != 0) fail_msg("%s ends with %d: %s", argv[0], code, out.n ? out.at : "");
    kt_buf_deinit(&out);
}

static void copy_folder(const char *from, const char *to) {
    int n;
    kt_str *names = kt_os_list(&arena, from, &n);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        const char *name = kt_str_z(&arena, names[i]);
        kt_str bytes = slurp(in_folder(from, name));
        test_write(in_folder(to, name), bytes.at, bytes.n);
    }
}

// ---- edits

// The only place where `wanted` stands.
static size_t find_once(kt_str text, const char *wanted) {
    ptrdiff_t at = kt_str_find_text(text, wanted);
    if (at < 0) fail_msg("no '%s' to damage", wanted);
    kt_str rest = kt_str_slice(text, (size_t)at + 1, text.n);
    if (kt_str_find_text(rest, wanted) >= 0) fail_msg("'%s' stands there twice", wanted);
    return (size_t)at;
}

static kt_str replaced(kt_str text, const char *old, const char *new) {
    size_t at = find_once(text, old);
    kt_buf out = {0};
    kt_buf_add(&out, text.at, at);
    kt_buf_str(&out, kt_str_from(new));
    kt_buf_str(&out, kt_str_slice(text, at + strlen(old), text.n));
    kt_str kept = kt_str_copy(&arena, (kt_str){out.at, out.n});
    kt_buf_deinit(&out);
    return kept;
}

static uint64_t length_of(kt_str file) {
    uint64_t length = 0;
    for (int i = 0; i < 8; i++) length |= (uint64_t)(unsigned char)file.at[i] << (8 * i);
    return length;
}

static void write_length(char *to, uint64_t length) {
    for (int i = 0; i < 8; i++) to[i] = (char)(length >> (8 * i));
}

static kt_str header_of(kt_str file) {
    return kt_str_slice(file, 8, 8 + (size_t)length_of(file));
}

static void put_header(const char *path, kt_str file, kt_str header) {
    kt_str data = kt_str_slice(file, 8 + (size_t)length_of(file), file.n);
    char *out = kt_arena_alloc(&arena, 8 + header.n + data.n + 1);
    write_length(out, header.n);
    memcpy(out + 8, header.at, header.n);
    memcpy(out + 8 + header.n, data.at, data.n);
    test_write(path, out, 8 + header.n + data.n);
}

// Where the two numbers of a tensor's data_offsets stand in the header, and what they are.
static void find_range(kt_str header, const char *tensor, size_t at[2], int64_t range[2]) {
    const char *name = kt_arena_printf(&arena, "\"%s\":{", tensor);
    size_t begin = find_once(header, name);
    kt_str rest = kt_str_slice(header, begin, header.n);
    ptrdiff_t offsets = kt_str_find_text(rest, "\"data_offsets\":[");
    assert_true(offsets >= 0);
    at[0] = begin + (size_t)offsets + strlen("\"data_offsets\":[");
    char *end;
    range[0] = strtoll(header.at + at[0], &end, 10);
    range[1] = strtoll(end + 1, &end, 10);
    at[1] = (size_t)(end - header.at);
}

static void move_tensor(const char *path, const damage_edit *e) {
    kt_str file = slurp(path), header = header_of(file);
    size_t at[2];
    int64_t range[2];
    find_range(header, e->a, at, range);
    const char *text = kt_arena_printf(&arena, "%.*s%" PRId64 ",%" PRId64 "%.*s", (int)at[0],
        header.at, range[0] + e->n, range[1] + e->m, (int)(header.n - at[1]), header.at + at[1]);
    put_header(path, file, kt_str_from(text));
}

// Writes bytes (hex) at this place of the file.
static void patch(const char *path, size_t at, const char *hex) {
    kt_str file = slurp(path);
    char *bytes = kt_arena_copy(&arena, file.at, file.n);
    assert_true(at + strlen(hex) / 2 <= file.n);
    for (; hex[0] && hex[1]; hex += 2, at++) {
        const char digits[3] = {hex[0], hex[1], 0};
        bytes[at] = (char)strtol(digits, NULL, 16);
    }
    test_write(path, bytes, file.n);
}

// The same e->n bytes behind the start of a tensor.
static void patch_tensor(const char *path, const damage_edit *e) {
    kt_str file = slurp(path);
    size_t at[2];
    int64_t range[2];
    find_range(header_of(file), e->a, at, range);
    patch(path, (size_t)(8 + (int64_t)length_of(file) + range[0] + e->n), e->b);
}

// Replaces text of the same length inside a tensor.
static void retext_tensor(const char *path, const damage_edit *e) {
    kt_str file = slurp(path);
    size_t at[2];
    int64_t range[2];
    find_range(header_of(file), e->a, at, range);
    char *bytes = kt_arena_copy(&arena, file.at, file.n);
    char *data = bytes + 8 + length_of(file) + range[0];
    const char *comma = strchr(e->b, '|'); // old|new
    size_t n = (size_t)(comma - e->b);
    assert_int_equal(strlen(comma + 1), n);
    const char *old = kt_arena_copy(&arena, e->b, n);
    size_t place = find_once((kt_str){data, (size_t)(range[1] - range[0])}, old);
    memcpy(data + place, comma + 1, n);
    test_write(path, bytes, file.n);
}

static void cut(const char *path, int64_t n) {
    kt_str file = slurp(path);
    test_write(path, file.at, n >= 0 ? (size_t)n : file.n - (size_t)-n);
}

static void append(const char *path, const char *text) {
    kt_str file = slurp(path);
    kt_buf out = {0};
    kt_buf_str(&out, file);
    kt_buf_str(&out, kt_str_from(text));
    test_write(path, out.at, out.n);
    kt_buf_deinit(&out);
}

static void nest(const char *path, const damage_edit *e) {
    kt_buf text = {0};
    for (int64_t i = 0; i < e->n; i++) kt_buf_printf(&text, "[");
    for (int64_t i = 0; i < e->n; i++) kt_buf_printf(&text, "]");
    const char *deep = kt_arena_copy(&arena, text.at, text.n);
    kt_buf_deinit(&text);
    kt_str file = slurp(path);
    if (!kt_str_ends(kt_str_from(path), KT_STR(".safetensors"))) {
        kt_str out = replaced(file, e->a, deep);
        test_write(path, out.at, out.n);
        return;
    }
    put_header(path, file, replaced(header_of(file), e->a, deep));
}

static void apply(const char *folder, const damage_edit *e) {
    const char *path = in_folder(folder, e->file ? e->file : "");
    kt_str text;
    switch (e->verb) {
    case DAMAGE_NONE:
        return;
    case DAMAGE_TEXT:
        text = replaced(slurp(path), e->a, e->b);
        test_write(path, text.at, text.n);
        return;
    case DAMAGE_WRITE:
        test_write(path, e->a, strlen(e->a));
        return;
    case DAMAGE_HEADER:
        text = slurp(path);
        put_header(path, text, replaced(header_of(text), e->a, e->b));
        return;
    case DAMAGE_LENGTH: {
        char *bytes = kt_arena_copy(&arena, slurp(path).at, slurp(path).n);
        text = slurp(path);
        write_length(bytes, e->m ? (uint64_t)e->n : length_of(text) + (uint64_t)e->n);
        test_write(path, bytes, text.n);
        return;
    }
    case DAMAGE_CUT:
        cut(path, e->n);
        return;
    case DAMAGE_APPEND:
        append(path, e->a);
        return;
    case DAMAGE_REMOVE:
        test_remove(path);
        return;
    case DAMAGE_FOLDER:
        test_remove(path);
        assert_true(kt_os_mkdirs(path));
        return;
    case DAMAGE_LINK: {
        test_remove(path);
        const char *const argv[] = {"ln", "-s", e->a, path, NULL};
        run_ok(argv);
        return;
    }
    case DAMAGE_MOVE:
        move_tensor(path, e);
        return;
    case DAMAGE_PATCH:
        patch_tensor(path, e);
        return;
    case DAMAGE_BYTES:
        patch(path, (size_t)e->n, e->b);
        return;
    case DAMAGE_RETEXT:
        retext_tensor(path, e);
        return;
    case DAMAGE_NEST:
        nest(path, e);
        return;
    case DAMAGE_OTHER:
        text = slurp(kt_arena_printf(&arena, "%s/%s", root, e->a));
        test_write(path, text.at, text.n);
        return;
    }
}

// ---- running

// What the program says, with the folder's name taken out; its exit code goes first.
static kt_str say(const char *folder) {
    const char *const argv[] = {"sh", "-c", limited, "sh", program, "run", "pipelines/simple.yaml",
        "examples/scene.jpg", "--device", "cpu", "--greedy", "--max-tokens", "2", "--model", folder,
        NULL};
    kt_buf out = {0}, clean = {0};
    int code = kt_os_run(argv, &out);
    kt_buf_printf(&clean, "exit %d\n", code);
    kt_str rest = {out.at, out.n};
    for (;;) {
        ptrdiff_t at = out.n ? kt_str_find_text(rest, folder) : -1;
        if (at < 0) break;
        kt_buf_printf(&clean, "%.*sMODEL", (int)at, rest.at);
        rest = kt_str_slice(rest, (size_t)at + strlen(folder), rest.n);
    }
    kt_buf_str(&clean, rest);
    kt_str text = kt_str_copy(&arena, (kt_str){clean.at, clean.n});
    kt_buf_deinit(&out);
    kt_buf_deinit(&clean);
    return text;
}

// What of it is kept as a golden: the exit code, the first message with its notes, and the line
// that ends the program. Places in our own YAML lose line and column, which edits move.
static kt_str essence(kt_str text) {
    kt_buf out = {0};
    kt_str home = {kt_os_absolute(&arena, "."), 0};
    home.n = strlen(home.at);
    int n_errors = 0;
    bool ended = false; // by the program's own line; its notes follow
    for (bool first = true; text.n > 0; first = false) {
        ptrdiff_t end = kt_str_find(text, '\n');
        kt_str line = end < 0 ? text : kt_str_slice(text, 0, (size_t)end);
        text = end < 0 ? KT_STR("") : kt_str_slice(text, (size_t)end + 1, text.n);
        bool last = kt_str_starts(line, KT_STR("kotaro: "));
        bool error = kt_str_find_text(line, ": error: ") >= 0;
        bool note = kt_str_starts(kt_str_trim(line), KT_STR("note: "));
        n_errors += error;
        ended = ended || last;
        if (!first && !last && !(n_errors <= 1 && error) && !((n_errors <= 1 || ended) && note))
            continue;
        const char *at = line.at;
        ptrdiff_t found = kt_str_find_text(line, home.at);
        if (found >= 0 && home.n > 1) {
            kt_buf_add(&out, at, (size_t)found);
            at += (size_t)found + home.n + 1;
        }
        kt_str rest = {at, line.n - (size_t)(at - line.at)};
        ptrdiff_t yaml = kt_str_find_text(rest, ".yaml:");
        if (yaml >= 0) {
            kt_buf_add(&out, rest.at, (size_t)yaml + 5);
            rest = kt_str_slice(rest, (size_t)yaml + 5, rest.n);
            while (rest.n > 1 && (rest.at[0] == ':' || (rest.at[0] >= '0' && rest.at[0] <= '9')) &&
                   rest.at[1] != ' ')
                rest = kt_str_slice(rest, 1, rest.n);
            if (rest.n > 0 && rest.at[0] >= '0' && rest.at[0] <= '9')
                rest = kt_str_slice(rest, 1, rest.n);
        }
        kt_buf_printf(&out, "%.*s\n", KT_STR_ARG(rest));
    }
    kt_str kept = kt_str_copy(&arena, (kt_str){out.at, out.n});
    kt_buf_deinit(&out);
    return kept;
}

static kt_str damaged(const damage_row *row) {
    const char *from = in_folder(root, row->base);
    const char *folder = in_folder(root, "model");
    copy_folder(from, folder);
    for (int i = 0; i < DAMAGE_EDITS; i++) apply(folder, &row->edits[i]);
    kt_str text = say(folder);
    test_remove(folder);
    return text;
}

static const char *golden_of(const damage_row *row) {
    return kt_arena_printf(&arena, "tests/damage/%s.err", row->name);
}

static bool updating(void) {
    return kt_os_getenv("DAMAGE_UPDATE") != NULL;
}

// ---- tests

static void every_damage_has_its_message(void **state) {
    (void)state;
    int bad = 0;
    for (int i = 0; i < damage_n; i++) {
        kt_arena_mark mark = kt_arena_get_mark(&arena);
        const damage_row *row = &damage_rows[i];
        kt_str got = essence(damaged(row));
        bool error = kt_str_find_text(got, "error: ") >= 0;
        if (!kt_str_starts(got, KT_STR("exit 2\n")) || !error) {
            print_error(
                "%s: not refused as a file with mistakes: %.*s", row->name, KT_STR_ARG(got));
            bad++;
        } else if (updating()) {
            test_write(golden_of(row), got.at, got.n);
        } else {
            kt_str want = slurp(golden_of(row));
            if (!kt_str_eq(got, want)) {
                print_error(
                    "%s says\n%.*sexpected\n%.*s", row->name, KT_STR_ARG(got), KT_STR_ARG(want));
                bad++;
            }
        }
        kt_arena_reset(&arena, mark);
    }
    assert_int_equal(bad, 0);
}

// Undamaged, each base answers: otherwise the table would show nothing.
static void the_bases_are_good(void **state) {
    (void)state;
    static const char *const bases[] = {"int4", "bf16", "parts", "gguf"};
    for (int i = 0; i < 4; i++) {
        damage_row row = {.name = bases[i], .base = bases[i]};
        kt_str got = damaged(&row);
        if (!kt_str_starts(got, KT_STR("exit 0\n"))) fail_msg("%.*s", KT_STR_ARG(got));
    }
}

static void harmless_oddities_change_nothing(void **state) {
    (void)state;
    for (int i = 0; i < harmless_n; i++) {
        const damage_row *row = &harmless_rows[i];
        kt_str good = damaged(&(damage_row){.name = "good", .base = row->base});
        kt_str got = damaged(row);
        if (!kt_str_eq(got, good)) fail_msg("%s: %.*s", row->name, KT_STR_ARG(got));
    }
}

// The first message of what was said, without its place and the final summary.
static kt_str main_line(kt_str text) {
    ptrdiff_t at = kt_str_find_text(text, "error: ");
    kt_str rest = kt_str_slice(text, (size_t)at + 7, text.n);
    ptrdiff_t end = kt_str_find(rest, '\n');
    return end < 0 ? rest : kt_str_slice(rest, 0, (size_t)end);
}

static void add_cell(kt_buf *out, kt_str text) {
    for (size_t i = 0; i < text.n; i++) {
        if (text.at[i] == '|' || text.at[i] == '<' || text.at[i] == '*' || text.at[i] == '_')
            kt_buf_printf(out, "\\");
        kt_buf_add(out, &text.at[i], 1);
    }
}

static void the_notes_show_the_messages(void **state) {
    (void)state;
    const char *path = "docs/notes/damage.md";
    kt_buf out = {0};
    kt_buf_printf(&out,
        "# Damaged checkpoints\n\nWhat Kotaro says to %d kinds of damage; made by "
        "tests/test_damage.c (DAMAGE_UPDATE=1). Each ends the program with exit code 2, within "
        "600 MB of address space. MODEL is the model folder; where a weight is named, the message "
        "goes on with the line of the model file (tests/damage/NAME.err has all of it).\n\n"
        "| damage | message |\n|---|---|\n",
        damage_n);
    for (int i = 0; i < damage_n; i++) {
        kt_buf_printf(&out, "| %s | ", damage_rows[i].what);
        add_cell(&out, main_line(slurp(golden_of(&damage_rows[i]))));
        kt_buf_printf(&out, " |\n");
    }
    if (updating()) test_write(path, out.at, out.n);
    kt_str have = slurp(path);
    bool same = kt_str_eq(have, (kt_str){out.at, out.n});
    kt_buf_deinit(&out);
    assert_true(same);
}

static void the_table_is_large_and_its_names_differ(void **state) {
    (void)state;
    assert_true(damage_n >= 40);
    for (int i = 0; i < damage_n; i++)
        for (int k = i + 1; k < damage_n; k++)
            assert_string_not_equal(damage_rows[i].name, damage_rows[k].name);
}

static void make_base(const char *name, const char *model, const char *shard) {
    const char *build = kt_os_getenv("BUILD");
    const char *fabricate = kt_arena_printf(&arena, "%s/fabricate", build ? build : "build");
    const char *const argv[] = {fabricate, "--model", model, "--config", "tests/damage/config.json",
        "--out", in_folder(root, name), "--shard", shard, "--seed", "1", NULL};
    run_ok(argv);
}

static int open_all(void **state) {
    (void)state;
    const char *build = kt_os_getenv("BUILD");
    program = kt_arena_printf(&arena, "%s/kotaro", build ? build : "build");
    root = test_folder(&arena);
    make_base("int4", "int4", "1G");
    make_base("bf16", "bf16", "1G");
    make_base("parts", "bf16", "900000");
    make_base("gguf", "gguf-q4_0", "1G");
    return 0;
}

static int close_all(void **state) {
    (void)state;
    test_remove(root);
    kt_arena_deinit(&arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bases_are_good),
        cmocka_unit_test(the_table_is_large_and_its_names_differ),
        cmocka_unit_test(harmless_oddities_change_nothing),
        cmocka_unit_test(every_damage_has_its_message),
        cmocka_unit_test(the_notes_show_the_messages),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
