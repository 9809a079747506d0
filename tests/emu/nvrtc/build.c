#include "tests/emu/nvrtc/build.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 640, POLL_MS = 5, MAX_LOG = 1 << 20 };

typedef struct workplace {
    char folder[EMU_MAX_PATH / 2];
    char own[EMU_MAX_PATH]; // of the library
} workplace;

// ---- the folder

static void path_in(char out[EMU_MAX_PATH], const workplace *w, const char *name) {
    (void)snprintf(out, EMU_MAX_PATH, "%s/%s", w->folder, name);
}

static bool make_folder(workplace *w, text *log) {
    const char *parent = getenv("TMPDIR");
    if (parent == NULL || parent[0] == 0) parent = "/tmp";
    int n = snprintf(w->folder, sizeof w->folder, "%s/kotaro-emu-XXXXXX", parent);
    if (n > 0 && n < (int)sizeof w->folder && mkdtemp(w->folder) != NULL) return true;
    text_print(log, "error: no temporary folder in '%s': %s\n", parent, strerror(errno));
    w->folder[0] = 0;
    return false;
}

static void remove_folder(const workplace *w) {
    char path[EMU_MAX_PATH];
    DIR *list = opendir(w->folder);
    if (list == NULL) return;
    for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        path_in(path, w, entry->d_name);
        (void)unlink(path);
    }
    closedir(list);
    (void)rmdir(w->folder);
}

static bool write_file(const workplace *w, const build_file *file, const char *as, text *log) {
    char path[EMU_MAX_PATH];
    path_in(path, w, as);
    FILE *to = fopen(path, "wbe");
    bool good = to != NULL;
    if (good) good = fwrite(file->converted.at, 1, file->converted.n, to) == file->converted.n;
    if (to != NULL) good = fclose(to) == 0 && good;
    if (!good) text_print(log, "error: '%s' cannot be written: %s\n", path, strerror(errno));
    return good;
}

static bool read_file(const workplace *w, const char *name, text *out) {
    char path[EMU_MAX_PATH], bytes[16384];
    path_in(path, w, name);
    FILE *file = fopen(path, "rbe");
    if (file == NULL) return false;
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, file)) > 0) text_add(out, bytes, n);
    bool good = ferror(file) == 0 && out->n > 0;
    fclose(file);
    return good;
}

// ---- the compiler's messages

// "ops/x/x.cu:12:5: error: ..." becomes "ops/x/x.cu(12): error: ...".
static void convert_line(const char *line, size_t n, text *log) {
    static const char *const kinds[] = {" error: ", " fatal error: ", " warning: ", " note: "};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        const char *kind = memmem(line, n, kinds[k], strlen(kinds[k]));
        if (kind == NULL || kind == line || kind[-1] != ':') continue;
        const char *end = kind - 1, *number = end; // "12:5", or "12"
        while (number > line && (isdigit((unsigned char)number[-1]) || number[-1] == ':')) number--;
        if (number < end && number[0] == ':') number++;
        const char *name = strncmp(line, "./", 2) == 0 ? line + 2 : line;
        if (number - 1 <= name || number >= end) break;
        size_t digits = strspn(number, "0123456789");
        text_print(log, "%.*s(%.*s):%.*s", (int)(number - 1 - name), name, (int)digits, number,
            (int)(line + n - kind), kind);
        return;
    }
    text_add(log, line, n);
}

static void convert_log(const text *messages, const char *name, bool failed, text *log) {
    int n_errors = 0;
    bool of_machine = false;
    for (size_t at = 0; at < messages->n;) {
        const char *line = messages->at + at;
        const char *end = memchr(line, '\n', messages->n - at);
        size_t n = end == NULL ? messages->n - at : (size_t)(end - line) + 1;
        bool error = memmem(line, n, "error: ", 7) != NULL;
        n_errors += error;
        // A word that is nowhere declared: threadfence of CUDA, atomicAdd, printf ...
        of_machine = of_machine || (error && (memmem(line, n, "not declared", 12) != NULL ||
                                                 memmem(line, n, "no arguments to", 15) != NULL));
        convert_line(line, n, log);
        at += n;
    }
    if (of_machine)
        text_print(log, "note: kernels reach the machine only through kt.cuh (machine.cuh, "
                        "mma.cuh)\n");
    if (failed)
        text_print(log, "%d error%s detected in the compilation of \"%s\".\n", n_errors,
            n_errors == 1 ? "" : "s", name);
}

// ---- the compiler

typedef struct arguments {
    text bytes; // each with its 0
    size_t offsets[MAX_ARGUMENTS];
    char *at[MAX_ARGUMENTS]; // ends with NULL
    int n;
} arguments;

static void push(arguments *a, const char *value) {
    if (a->n + 1 >= MAX_ARGUMENTS) abort(); // the runtime gives 512 options at most
    a->offsets[a->n++] = a->bytes.n;
    text_add(&a->bytes, value, strlen(value) + 1);
}

static void push_pair(arguments *a, const char *option, const char *value, const char *end) {
    text line = {0};
    text_print(&line, "%s%s%s", option, value, end);
    push(a, line.at);
    text_free(&line);
}

static void make_arguments(const build *what, const workplace *w, arguments *a) {
    const char *compiler = getenv("KOTARO_EMU_CXX");
    push(a, compiler != NULL && compiler[0] != 0 ? compiler : "g++");
    for (int i = 0; emu_flags[i] != NULL; i++) push(a, emu_flags[i]);
    for (int i = 0; emu_modes[what->mode].flags[i] != NULL; i++)
        push(a, emu_modes[what->mode].flags[i]);
    push_pair(a, "-ffile-prefix-map=", w->folder, "=."); // equal bytes for equal sources
    push_pair(a, "-I", w->own, "/device");
    push(a, "-I.");
    char arch[32];
    (void)snprintf(arch, sizeof arch, "%d", what->sm * 10);
    push_pair(a, "-D__CUDA_ARCH__=", arch, "");
    for (int i = 0; i < what->n_defines; i++) push(a, what->defines[i]);
    push(a, "module.cc");
    push(a, "-o");
    push(a, "module.so");
    for (int i = 0; i < a->n; i++) a->at[i] = a->bytes.at + a->offsets[i];
}

// Our environment, but messages in English, and its temporary files in our folder.
static char **make_environment(const workplace *w) {
    size_t n = 0, kept = 0;
    while (environ[n] != NULL) n++;
    char **out = take((n + 3) * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        bool ours = strncmp(environ[i], "LC_ALL=", 7) == 0 ||
                    strncmp(environ[i], "TMPDIR=", 7) == 0 ||
                    strncmp(environ[i], "LD_PRELOAD=", 11) == 0;
        if (!ours) out[kept++] = environ[i];
    }
    text line = {0};
    text_print(&line, "TMPDIR=%s", w->folder);
    out[kept++] = line.at;
    line = (text){0};
    text_print(&line, "LC_ALL=C");
    out[kept] = line.at;
    return out;
}

static void free_environment(char **environment) {
    size_t n = 0;
    while (environment[n] != NULL) n++;
    free(environment[n - 1]);
    free(environment[n - 2]);
    free(environment);
}

// 0, or an error number.
static int start(const workplace *w, const arguments *a, int to, pid_t *child) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawnattr_init(&attributes);
    (void)posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    (void)posix_spawnattr_setpgroup(&attributes, 0);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &all);
    (void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_adddup2(&actions, to, 1);
    (void)posix_spawn_file_actions_adddup2(&actions, to, 2);
    (void)posix_spawn_file_actions_addchdir_np(&actions, w->folder);
    char **environment = make_environment(w);
    int code = posix_spawnp(child, a->at[0], &actions, &attributes, a->at, environment);
    free_environment(environment);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return code;
}

// Takes the messages until all that hold the pipe have ended. false: told to stop, all were killed.
static bool listen(const build *what, pid_t child, int from, text *messages) {
    bool stopped = false;
    for (;;) {
        char bytes[4096];
        struct pollfd ready = {.fd = from, .events = POLLIN};
        int code = poll(&ready, 1, what->stop == NULL || stopped ? -1 : POLL_MS);
        if (code > 0) {
            ssize_t n = read(from, bytes, sizeof bytes);
            if (n == 0 || (n < 0 && errno != EINTR)) return !stopped;
            if (n > 0 && messages->n < MAX_LOG) text_add(messages, bytes, (size_t)n);
        }
        if (stopped || what->stop == NULL || what->stop(what->payload, NULL) == 0) continue;
        (void)kill(-child, SIGKILL);
        stopped = true;
    }
}

static build_result compile(const build *what, const workplace *w, text *log) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        text_print(log, "error: no pipe: %s\n", strerror(errno));
        return BUILD_FAILED;
    }
    arguments a = {.n = 0};
    make_arguments(what, w, &a);
    pid_t child = 0;
    int code = start(w, &a, ends[1], &child), status = 0;
    (void)close(ends[1]);
    build_result result = BUILD_FAILED;
    if (code != 0) {
        text_print(log, "error: '%s' cannot be started: %s\n", a.at[0], strerror(code));
    } else {
        text messages = {0};
        bool whole = listen(what, child, ends[0], &messages);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
        bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        result = !whole ? BUILD_STOPPED : good ? BUILD_DONE : BUILD_FAILED;
        if (WIFSIGNALED(status) && whole)
            text_print(&messages, "error: '%s' ended by signal %d\n", a.at[0], WTERMSIG(status));
        convert_log(&messages, what->files[0].name, result == BUILD_FAILED, log);
        text_free(&messages);
    }
    (void)close(ends[0]);
    text_free(&a.bytes);
    return result;
}

build_result build_run(const build *what, text *module, text *log) {
    workplace w = {.folder = ""};
    if (what->stop != NULL && what->stop(what->payload, NULL) != 0) return BUILD_STOPPED;
    if (!emu_own_folder(w.own)) {
        text_print(log, "error: the stand-in does not find its own folder\n");
        return BUILD_FAILED;
    }
    if (!make_folder(&w, log)) return BUILD_FAILED;
    build_result result = BUILD_DONE;
    for (int i = 0; i < what->n_files && result == BUILD_DONE; i++)
        if (!write_file(&w, &what->files[i], i == 0 ? "module.cc" : what->files[i].name, log))
            result = BUILD_FAILED;
    if (result == BUILD_DONE) result = compile(what, &w, log);
    if (result == BUILD_DONE && !read_file(&w, "module.so", module)) {
        text_print(log, "error: the compiler made no module\n");
        result = BUILD_FAILED;
    }
    remove_folder(&w);
    return result;
}
