#include "loader/beside.h"

#include "runtime/base/file.h"

#include <string.h>

// Drops "." and folds "a/..", in place.
static void fold(char *path) {
    char *out = path, *in = path;
    char *floor = path; // what stands before it cannot be folded away
    if (*in == '/') floor = out = ++in;
    while (*in) {
        size_t n = strcspn(in, "/");
        bool up = n == 2 && in[0] == '.' && in[1] == '.', skip = n == 0 || (n == 1 && in[0] == '.');
        if (up && out > floor) {
            out--; // the '/' behind the last part
            while (out > floor && out[-1] != '/') out--;
        } else if (!skip) {
            memmove(out, in, n);
            out[n] = '/';
            out += n + 1;
            if (up) floor = out;
        }
        in += n;
        while (*in == '/') in++;
    }
    if (out > path && out[-1] == '/' && out - 1 > path) out--;
    *out = 0;
}

char *kt_beside(kt_arena *arena, const char *file, kt_str name) {
    const char *folder = kt_path_folder(arena, file);
    const char *text = kt_str_z(arena, name);
    bool here = strcmp(folder, ".") == 0;
    const char *joined = here ? text : kt_path_join(arena, folder, text);
    size_t n = strlen(joined);
    char *out = kt_arena_alloc(arena, n + 2); // fold() may write a '/' behind the last part
    memcpy(out, joined, n + 1);
    fold(out);
    return out;
}

bool kt_beside_missing(kt_diag *diag, kt_place at, const char *path, const char *what) {
    (void)kt_diag_error(diag, KT_RULE_FILE, at, "no file '%s' to %s", path, what);
    kt_diag_note(diag, "a path is relative to the file that says it; from another folder name a "
                       "shipped file by its whole path");
    return false;
}
