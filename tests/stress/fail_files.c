// Makes one file call of a program fail, for tests/stress.sh: preloaded, it stands between the
// program and the C library.
//
// Calls are counted that come from the program's own code (its static libraries included); those of
// shared libraries and of the C library itself are passed on. KOTARO_FAIL=KIND:N says what happens
// to the N-th (0: nothing, count only):
//   error   it fails, with a reason that the system gives for such a call
//   sticky  so do all calls of that function from there on (a full disk, no more descriptors)
//   short   of the reads and writes alone: it moves half of what was asked for
//   end     of the reads alone: the file ends there
// KOTARO_FAIL_REPORT names a file, which gets a line "fired FUNCTION REASON PATH" for each such
// call and "calls COUNT" at the end. KOTARO_FAIL_IN=TEXT: only calls on paths with that in them
// count. Children of the program run without any of this.
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_FILES = 1024, MAX_PATH = 512 };

typedef enum mode { OFF, ERROR, STICKY, SHORT, END } mode;
static const char *const mode_names[] = {"", "error", "sticky", "short", "end"};

static uintptr_t program_start, program_end;
static mode chosen;
static long chosen_n;
static atomic_long n_calls;
static const char *_Atomic sticky; // the function that fails for good
static char report[MAX_PATH], inside[MAX_PATH];
static char paths[MAX_FILES][MAX_PATH]; // by descriptor

// ---- what is counted

static int find_program(struct dl_phdr_info *info, size_t size, void *ctx) {
    (void)size, (void)ctx;
    program_start = UINTPTR_MAX;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
        uintptr_t from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        uintptr_t to = from + info->dlpi_phdr[i].p_memsz;
        if (from < program_start) program_start = from;
        if (to > program_end) program_end = to;
    }
    return 1; // the first object is the program
}

__attribute__((constructor)) static void begin(void) {
    const char *what = getenv("KOTARO_FAIL"), *file = getenv("KOTARO_FAIL_REPORT");
    const char *colon = what == NULL ? NULL : strchr(what, ':');
    for (mode m = ERROR; colon != NULL && m <= END; m++)
        if (strncmp(what, mode_names[m], (size_t)(colon - what)) == 0) chosen = m;
    if (chosen == OFF || colon == NULL) return;
    chosen_n = strtol(colon + 1, NULL, 10);
    if (file != NULL) (void)snprintf(report, sizeof report, "%s", file);
    const char *only = getenv("KOTARO_FAIL_IN");
    if (only != NULL) (void)snprintf(inside, sizeof inside, "%s", only);
    unsetenv("KOTARO_FAIL");
    unsetenv("KOTARO_FAIL_REPORT");
    unsetenv("LD_PRELOAD");
    (void)dl_iterate_phdr(find_program, NULL);
}

// Straight to the system: everything else here may be one of ours.
static void tell(const char *line) {
    if (report[0] == 0) return;
    long fd =
        syscall(SYS_openat, AT_FDCWD, report, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) return;
    (void)!syscall(SYS_write, fd, line, strlen(line));
    (void)syscall(SYS_close, fd);
}

__attribute__((destructor)) static void end(void) {
    char line[64];
    (void)snprintf(line, sizeof line, "calls %ld\n", atomic_load(&n_calls));
    if (chosen != OFF) tell(line);
}

static bool counts(const void *caller, mode m) {
    uintptr_t at = (uintptr_t)caller;
    if (at < program_start || at >= program_end) return false;
    return m == chosen || (m == ERROR && chosen == STICKY);
}

// Does this call fail? Then errno is `reason`.
static bool fails(const void *caller, mode m, const char *function, const char *path, int reason) {
    if (!counts(caller, m) || strstr(path, inside) == NULL) return false;
    const char *broken = atomic_load(&sticky);
    bool now = atomic_fetch_add(&n_calls, 1) + 1 == chosen_n;
    if (now && chosen == STICKY) atomic_store(&sticky, function);
    bool again = broken != NULL && strcmp(broken, function) == 0;
    if (!now && !again) return false;
    char line[MAX_PATH + 128];
    (void)snprintf(line, sizeof line, "fired %s %s %s\n", function,
        m == SHORT || m == END ? mode_names[m] : strerrorname_np(reason), path);
    tell(line);
    errno = reason;
    return true;
}

static void note_path(int fd, const char *path) {
    if (fd >= 0 && fd < MAX_FILES) (void)snprintf(paths[fd], MAX_PATH, "%s", path);
}

static const char *path_of(int fd) {
    return fd >= 0 && fd < MAX_FILES ? paths[fd] : "";
}

typedef void (*function)(void);

static function find_next(const char *name) {
    void *object = dlsym(RTLD_NEXT, name);
    function out;
    memcpy(&out, &object, sizeof out);
    if (object == NULL) abort();
    return out;
}

// The C library's function of that name (or the sanitizer's).
#define NEXT(name)                    ((__typeof__(&(name)))find_next(#name))
#define CALLER                        __builtin_return_address(0)
#define FAILS(function, path, reason) fails(CALLER, ERROR, function, path, reason)
#define FAILS_AS(m, function, fd)     fails(CALLER, m, function, path_of(fd), 0)

// ---- opening

// A second reason for every other one that could be opened.
static int open_reason(int flags) {
    if ((flags & O_CREAT) != 0) return ENOSPC;
    return chosen_n % 2 == 0 ? EMFILE : EACCES;
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t rights = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (FAILS("open", path, open_reason(flags))) return -1;
    int fd = NEXT(open)(path, flags, rights);
    note_path(fd, path);
    return fd;
}

FILE *fopen(const char *path, const char *how) {
    if (FAILS("fopen", path, how[0] == 'r' ? EMFILE : ENOSPC)) return NULL;
    FILE *file = NEXT(fopen)(path, how);
    if (file != NULL) note_path(fileno(file), path);
    return file;
}

int close(int fd) {
    bool failed = FAILS("close", path_of(fd), EIO); // and it is closed all the same
    int out = NEXT(close)(fd);
    if (failed) errno = EIO;
    return failed ? -1 : out;
}

DIR *opendir(const char *path) {
    if (FAILS("opendir", path, EMFILE)) return NULL;
    DIR *folder = NEXT(opendir)(path);
    if (folder != NULL) note_path(dirfd(folder), path);
    return folder;
}

struct dirent *readdir(DIR *folder) {
    if (FAILS("readdir", path_of(dirfd(folder)), EIO)) return NULL;
    return NEXT(readdir)(folder);
}

int pipe2(int ends[2], int flags) {
    if (FAILS("pipe2", "", EMFILE)) return -1;
    return NEXT(pipe2)(ends, flags);
}

// ---- reading and writing

ssize_t read(int fd, void *to, size_t n) {
    if (FAILS("read", path_of(fd), EIO)) return -1;
    if (FAILS_AS(END, "read", fd)) return 0;
    if (n > 1 && FAILS_AS(SHORT, "read", fd)) n /= 2;
    return NEXT(read)(fd, to, n);
}

ssize_t pread(int fd, void *to, size_t n, off_t at) {
    if (FAILS("pread", path_of(fd), EIO)) return -1;
    if (FAILS_AS(END, "pread", fd)) return 0;
    if (n > 1 && FAILS_AS(SHORT, "pread", fd)) n /= 2;
    return NEXT(pread)(fd, to, n, at);
}

ssize_t write(int fd, const void *from, size_t n) {
    if (FAILS("write", path_of(fd), ENOSPC)) return -1;
    if (n > 1 && FAILS_AS(SHORT, "write", fd)) n /= 2;
    return NEXT(write)(fd, from, n);
}

ssize_t pwrite(int fd, const void *from, size_t n, off_t at) {
    if (FAILS("pwrite", path_of(fd), ENOSPC)) return -1;
    if (n > 1 && FAILS_AS(SHORT, "pwrite", fd)) n /= 2;
    return NEXT(pwrite)(fd, from, n, at);
}

int ftruncate(int fd, off_t size) {
    if (FAILS("ftruncate", path_of(fd), ENOSPC)) return -1;
    return NEXT(ftruncate)(fd, size);
}

size_t fread(void *to, size_t size, size_t n, FILE *file) {
    if (FAILS("fread", path_of(fileno(file)), EIO)) return 0;
    return NEXT(fread)(to, size, n, file);
}

// To stdout it fails when that is flushed.
size_t fwrite(const void *from, size_t size, size_t n, FILE *file) {
    bool own = file != stdout && file != stderr;
    if (own && FAILS("fwrite", path_of(fileno(file)), ENOSPC)) return 0;
    return NEXT(fwrite)(from, size, n, file);
}

// The stream must know that it failed: while it writes, its descriptor is a full disk.
static int flush_to_full(FILE *file) {
    int fd = fileno(file), kept = dup(fd), full = NEXT(open)("/dev/full", O_WRONLY | O_CLOEXEC);
    if (kept < 0 || full < 0 || dup2(full, fd) < 0) abort();
    int out = NEXT(fflush)(file);
    int reason = errno;
    if (dup2(kept, fd) < 0) abort();
    (void)NEXT(close)(kept);
    (void)NEXT(close)(full);
    errno = reason;
    return out;
}

int fflush(FILE *file) {
    // With nothing to write no disk is full.
    bool any = file != NULL && file != stderr && __fpending(file) > 0;
    if (any && FAILS("fflush", path_of(fileno(file)), ENOSPC)) return flush_to_full(file);
    return NEXT(fflush)(file);
}

int fclose(FILE *file) {
    const char *path = path_of(fileno(file));
    if (!FAILS("fclose", path, ENOSPC)) return NEXT(fclose)(file);
    (void)NEXT(fclose)(file);
    errno = ENOSPC;
    return EOF;
}

// ---- names

int stat(const char *path, struct stat *out) {
    if (FAILS("stat", path, EIO)) return -1;
    return NEXT(stat)(path, out);
}

int fstat(int fd, struct stat *out) {
    if (FAILS("fstat", path_of(fd), EIO)) return -1;
    return NEXT(fstat)(fd, out);
}

int rename(const char *from, const char *to) {
    if (FAILS("rename", to, ENOSPC)) return -1;
    return NEXT(rename)(from, to);
}

int unlink(const char *path) {
    if (FAILS("unlink", path, EACCES)) return -1;
    return NEXT(unlink)(path);
}

int remove(const char *path) {
    if (FAILS("remove", path, EACCES)) return -1;
    return NEXT(remove)(path);
}

int mkdir(const char *path, mode_t rights) {
    if (FAILS("mkdir", path, ENOSPC)) return -1;
    return NEXT(mkdir)(path, rights);
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    if (FAILS("utimensat", path, EACCES)) return -1;
    return NEXT(utimensat)(folder, path, times, flags);
}

ssize_t readlink(const char *path, char *out, size_t n) {
    // The program's own path: a message names what it would have been for.
    if (FAILS("readlink", "", EACCES)) return -1;
    return NEXT(readlink)(path, out, n);
}

char *getcwd(char *out, size_t n) {
    if (FAILS("getcwd", "", ENOENT)) return NULL;
    return NEXT(getcwd)(out, n);
}

// ---- what else the system may refuse

void *mmap(void *at, size_t n, int rights, int flags, int fd, off_t from) {
    if (FAILS("mmap", fd < 0 ? "" : path_of(fd), ENOMEM)) return MAP_FAILED;
    return NEXT(mmap)(at, n, rights, flags, fd, from);
}

void *dlopen(const char *path, int flags) {
    // A place where nothing is, so that dlerror has something to say.
    char nowhere[MAX_PATH + 16];
    if (path != NULL && FAILS("dlopen", path, EIO)) {
        (void)snprintf(nowhere, sizeof nowhere, "/nowhere/%s", path);
        path = nowhere;
    }
    return NEXT(dlopen)(path, flags);
}

int pthread_create(
    pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *), void *ctx) {
    if (FAILS("pthread_create", "", EAGAIN)) return EAGAIN;
    return NEXT(pthread_create)(out, attributes, run, ctx);
}

int posix_spawnp(pid_t *out, const char *file, const posix_spawn_file_actions_t *actions,
    const posix_spawnattr_t *attributes, char *const argv[], char *const environment[]) {
    if (FAILS("posix_spawnp", file, EAGAIN)) return EAGAIN;
    return NEXT(posix_spawnp)(out, file, actions, attributes, argv, environment);
}
