#include "runtime/base/file.h"

#include <inttypes.h>
#include <string.h>

kt_status kt_file_read(
    kt_arena *arena, const char *path, int64_t max_bytes, kt_str *out, kt_err *err) {
    *out = (kt_str){"", 0};
    kt_os_file *file;
    KT_TRY(kt_os_open(path, &file, err));
    kt_status status = KT_OK;
    int64_t size = kt_os_size(file);
    if (size > max_bytes) {
        status = KT_FAIL(err, KT_EFORMAT,
            "'%s' is larger than allowed here (%" PRId64 " bytes, at most %" PRId64 ")", path, size,
            max_bytes);
    } else {
        char *bytes = kt_arena_alloc(arena, (size_t)size + 1);
        status = kt_os_read_at(file, 0, bytes, (size_t)size, err);
        if (status == KT_OK) *out = (kt_str){bytes, (size_t)size};
    }
    kt_os_close(file);
    return status;
}

bool kt_path_is_absolute(const char *path) {
    if (path[0] == '/') return true;
#ifdef _WIN32
    bool letter = (path[0] >= 'a' && path[0] <= 'z') || (path[0] >= 'A' && path[0] <= 'Z');
    return path[0] == '\\' || (letter && path[1] == ':' && (path[2] == '/' || path[2] == '\\'));
#else
    return false;
#endif
}

char *kt_path_join(kt_arena *arena, const char *folder, const char *name) {
    size_t n = strlen(folder);
    if (n == 0 || kt_path_is_absolute(name)) return kt_arena_copy(arena, name, strlen(name));
    const char *separator = folder[n - 1] == '/' ? "" : "/";
    return kt_arena_printf(arena, "%s%s%s", folder, separator, name);
}

// After the last separator; on Windows a user may have typed '\'.
const char *kt_path_name(const char *path) {
    const char *name = path;
    for (const char *at = path; *at != 0; at++) {
        if (*at == '/') name = at + 1;
#ifdef _WIN32
        if (*at == '\\') name = at + 1;
#endif
    }
    return name;
}

char *kt_path_folder(kt_arena *arena, const char *path) {
    size_t n = (size_t)(kt_path_name(path) - path);
    if (n == 0) return kt_arena_copy(arena, ".", 1);
    while (n > 1 && path[n - 1] == '/') n--;
    return kt_arena_copy(arena, path, n);
}
