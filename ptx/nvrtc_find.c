#include "ptx/nvrtc.h"

#include "runtime/base/file.h"

#include <string.h>

// Names of the files. Source: the listing in NVIDIA's cuda.pathfinder (descriptor_catalog.py).
#ifdef _WIN32
#define LIBRARY_12 "nvrtc64_%d0_0.dll" // one name for all minors of a major
#define BUILTINS   "nvrtc-builtins64_%d%d.dll"
#define LIST_MARK  ';'
#else
#define LIBRARY_12 "libnvrtc.so.%d"
#define BUILTINS   "libnvrtc-builtins.so.%d.%d"
#define LIST_MARK  ':'
#endif

enum { NEWEST_MAJOR = 15, OLDEST_MAJOR = 12, NEWEST_MINOR = 12, MAX_FOLDERS = 128 };

// Where the files may lie below a folder that stands for an installation.
static const char *const places[] = {
    "",
    "nvrtc",
    "nvidia/cuda_nvrtc/lib", // the wheel of CUDA 12
    "nvidia/cu13/lib",       // the wheel of CUDA 13
    "nvidia/cuda_nvrtc/bin", // and on Windows
    "nvidia/cu13/bin/x86_64",
    "nvrtc/nvidia/cuda_nvrtc/lib",
    "nvrtc/nvidia/cu13/lib",
    "nvrtc/nvidia/cuda_nvrtc/bin",
    "nvrtc/nvidia/cu13/bin/x86_64",
    "lib64",
    "lib",
    "bin/x64",
    "bin",
};

#ifndef _WIN32
static const char *const system_folders[] = {
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
};
#endif

typedef struct search {
    kt_arena *arena;
    KT_VEC(const char *) tried; // folders, for the message
    kt_nvrtc_place place;
    bool found;
} search;

static bool is_file(const char *path, int64_t *size) {
    kt_path_info info = kt_os_stat(path);
    *size = info.size_bytes;
    return info.kind == KT_PATH_FILE;
}

// The newest library in `folder` that has its builtins beside it.
static void try_folder(search *s, const char *folder) {
    if (s->found || kt_os_stat(folder).kind != KT_PATH_FOLDER) return;
    if (s->tried.n < MAX_FOLDERS) KT_PUSH(s->arena, &s->tried, folder);
    for (int major = NEWEST_MAJOR; major >= OLDEST_MAJOR; major--) {
        int64_t size = 0, builtins_size = 0;
        const char *library = kt_arena_printf(s->arena, "%s/" LIBRARY_12, folder, major);
        if (!is_file(library, &size)) continue;
        for (int minor = NEWEST_MINOR; minor >= 0; minor--) {
            const char *builtins = kt_arena_printf(s->arena, "%s/" BUILTINS, folder, major, minor);
            if (!is_file(builtins, &builtins_size)) continue;
            s->place = (kt_nvrtc_place){kt_os_absolute(s->arena, library),
                kt_os_absolute(s->arena, builtins), {major, minor, size, builtins_size}};
            s->found = true;
            return;
        }
    }
}

static void try_install(search *s, const char *folder) {
    if (folder == NULL || folder[0] == 0) return;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        try_folder(s, places[i][0] == 0 ? folder : kt_path_join(s->arena, folder, places[i]));
}

// Folders of `parent` whose names begin with `start`, the last in order of names first.
static void try_children(search *s, const char *parent, const char *start, const char *below) {
    int n = 0;
    const kt_str *names = kt_os_list(s->arena, parent, &n);
    for (int i = n - 1; i >= 0; i--) {
        if (!kt_str_starts(names[i], kt_str_from(start))) continue;
        const char *folder = kt_path_join(s->arena, parent, kt_str_z(s->arena, names[i]));
        try_install(s, below[0] == 0 ? folder : kt_path_join(s->arena, folder, below));
    }
}

static void try_environment(search *s, const char *name) {
    const char *folder = kt_os_getenv(name);
    if (folder == NULL || folder[0] == 0) return;
    try_install(s, folder);
    try_children(s, kt_path_join(s->arena, folder, "lib"), "python3", "site-packages");
    try_install(s, kt_path_join(s->arena, folder, "Lib/site-packages")); // Windows
}

static void try_list(search *s, const char *name) {
    kt_str rest = kt_str_from(kt_os_getenv(name));
    while (rest.n > 0) {
        ptrdiff_t mark = kt_str_find(rest, LIST_MARK);
        kt_str folder = mark < 0 ? rest : kt_str_slice(rest, 0, (size_t)mark);
        const char *path = kt_str_z(s->arena, folder);
        if (kt_path_is_absolute(path)) try_folder(s, path); // never the current folder
        rest = mark < 0 ? KT_STR("") : kt_str_slice(rest, (size_t)mark + 1, rest.n);
    }
}

static void try_everything(search *s) {
    const char *program = kt_os_executable(s->arena);
    if (program != NULL) {
        const char *folder = kt_path_folder(s->arena, program);
        const char *parent = kt_path_folder(s->arena, folder);
        try_install(s, folder);
        try_install(s, parent);
        try_install(s, kt_path_join(s->arena, parent, "build"));
    }
    try_environment(s, "VIRTUAL_ENV");
    try_environment(s, "CONDA_PREFIX");
    try_install(s, kt_os_getenv("CUDA_PATH"));
    try_install(s, kt_os_getenv("CUDA_HOME"));
#ifndef _WIN32
    try_install(s, "/usr/local/cuda");
    try_children(s, "/usr/local", "cuda-", "");
    try_list(s, "LD_LIBRARY_PATH");
    for (size_t i = 0; i < sizeof system_folders / sizeof system_folders[0]; i++)
        try_folder(s, system_folders[i]);
#else
    try_list(s, "PATH");
#endif
}

kt_status kt_nvrtc_find(kt_arena *arena, kt_nvrtc_place *out, kt_err *err) {
    *out = (kt_nvrtc_place){0};
    search s = {.arena = arena};
    const char *configured = kt_os_getenv("KOTARO_NVRTC");
    if (configured != NULL && configured[0] != 0) {
        bool file = kt_os_stat(configured).kind == KT_PATH_FILE;
        try_install(&s, file ? kt_path_folder(arena, configured) : configured);
        if (!s.found)
            return KT_FAIL(err, KT_ECOMPILE,
                "KOTARO_NVRTC is '%s', but NVIDIA's run-time compiler (NVRTC with its builtins "
                "file) is not there",
                configured);
    } else {
        try_everything(&s);
    }
    if (s.found) {
        *out = s.place;
        return KT_OK;
    }
    kt_err_set(err, KT_ECOMPILE, "NVIDIA's run-time compiler (NVRTC) is not on this machine");
    for (size_t i = 0; i < s.tried.n && i < 8; i++) kt_err_note(err, "not in '%s'", s.tried.at[i]);
    kt_err_note(err,
        "install the CUDA toolkit or the Python package nvidia-cuda-nvrtc-cu12, or set "
        "KOTARO_NVRTC to the folder that has it");
    return KT_ECOMPILE;
}
