#ifndef _WIN32
// For pipe2, sched_getaffinity, dlinfo, environ.
#define _GNU_SOURCE // NOLINT(bugprone-reserved-identifier,readability-identifier-naming)
#endif
#include "runtime/base/os.h"
#ifndef _WIN32

#include "runtime/base/file.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// ---- files

struct kt_os_file {
    int fd;
    int64_t size;
    char path[]; // for messages
};

static kt_path_kind kind_of(mode_t mode) {
    if (S_ISREG(mode)) return KT_PATH_FILE;
    return S_ISDIR(mode) ? KT_PATH_FOLDER : KT_PATH_OTHER;
}

kt_path_info kt_os_stat(const char *path) {
    struct stat st;
    if (stat(path, &st) == 0)
        return (kt_path_info){kind_of(st.st_mode), (int64_t)st.st_size, (int64_t)st.st_mtime};
    bool none = errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG;
    return (kt_path_info){.kind = none ? KT_PATH_NONE : KT_PATH_UNKNOWN};
}

bool kt_os_may_be_file(const char *path) {
    kt_path_kind kind = kt_os_stat(path).kind;
    return kind == KT_PATH_FILE || kind == KT_PATH_UNKNOWN;
}

kt_status kt_os_open(const char *path, kt_os_file **out, kt_err *err) {
    *out = NULL;
    struct stat st;
    // Opening a pipe would wait for its writer.
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return KT_FAIL(err, KT_EFILE, "cannot open '%s': it is not a file", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return KT_FAIL(err, KT_EFILE, "cannot open '%s': %s", path, strerror(errno));
    bool known = fstat(fd, &st) == 0;
    if (!known || !S_ISREG(st.st_mode)) {
        const char *why = known ? "it is not a file" : strerror(errno);
        close(fd);
        return KT_FAIL(err, KT_EFILE, "cannot open '%s': %s", path, why);
    }
    size_t n = strlen(path) + 1;
    kt_os_file *file = malloc(sizeof *file + n);
    if (file == NULL) kt_out_of_memory(sizeof *file + n);
    file->fd = fd;
    file->size = (int64_t)st.st_size;
    memcpy(file->path, path, n);
    *out = file;
    return KT_OK;
}

void kt_os_close(kt_os_file *file) {
    if (file == NULL) return;
    close(file->fd);
    free(file);
}

int64_t kt_os_size(const kt_os_file *file) {
    return file->size;
}

kt_status kt_os_read_at(kt_os_file *file, int64_t offset, void *out, size_t size, kt_err *err) {
    char *to = out;
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(file->fd, to + done, size - done, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            return KT_FAIL(err, KT_EFILE, "cannot read '%s': %s", file->path, strerror(errno));
        }
        if (n == 0) {
            return KT_FAIL(err, KT_EFILE, "cannot read '%s': it ends %zu bytes too early",
                file->path, size - done);
        }
        done += (size_t)n;
    }
    return KT_OK;
}

struct kt_os_sink {
    int fd;
    char path[]; // for messages
};

kt_status kt_os_create(const char *path, int64_t size, kt_os_sink **out, kt_err *err) {
    *out = NULL;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) {
        int why = errno;
        if (fd >= 0) close(fd);
        return KT_FAIL(err, KT_EFILE, "cannot create '%s': %s", path, strerror(why));
    }
    size_t n = strlen(path) + 1;
    kt_os_sink *sink = malloc(sizeof *sink + n);
    if (sink == NULL) kt_out_of_memory(sizeof *sink + n);
    sink->fd = fd;
    memcpy(sink->path, path, n);
    *out = sink;
    return KT_OK;
}

kt_status kt_os_write_at(
    kt_os_sink *sink, int64_t offset, const void *bytes, size_t size, kt_err *err) {
    const char *from = bytes;
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(sink->fd, from + done, size - done, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            return KT_FAIL(err, KT_EFILE, "cannot write '%s': %s", sink->path, strerror(errno));
        }
        done += (size_t)n;
    }
    return KT_OK;
}

kt_status kt_os_sink_close(kt_os_sink *sink, kt_err *err) {
    if (sink == NULL) return KT_OK;
    kt_status status = KT_OK;
    if (close(sink->fd) != 0) {
        status = KT_FAIL(err, KT_EFILE, "cannot write '%s': %s", sink->path, strerror(errno));
    }
    free(sink);
    return status;
}

void kt_os_will_read(kt_os_file *file, int64_t offset, int64_t size_bytes) {
    (void)posix_fadvise(file->fd, (off_t)offset, (off_t)size_bytes, POSIX_FADV_SEQUENTIAL);
}

FILE *kt_os_fopen(const char *path, const char *mode) {
    return fopen(path, mode);
}

static bool is_folder(const char *path) {
    return kt_os_stat(path).kind == KT_PATH_FOLDER;
}

bool kt_os_mkdirs(const char *path) {
    if (path[0] == 0) return false;
    size_t n = strlen(path);
    char *part = malloc(n + 1);
    if (part == NULL) kt_out_of_memory(n);
    bool ok = true;
    for (size_t i = 1; i <= n && ok; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        ok = mkdir(part, 0700) == 0 || is_folder(part);
    }
    free(part);
    return ok;
}

bool kt_os_private_folder(const char *path) {
    if (!kt_os_mkdirs(path)) return false;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return false;
    struct stat st;
    bool ok =
        fstat(fd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
    close(fd);
    return ok;
}

static bool write_all(int fd, const char *bytes, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        done += (size_t)n;
    }
    return true;
}

kt_status kt_os_write_atomic(const char *path, const void *bytes, size_t size, kt_err *err) {
    kt_arena tmp = {0};
    uint64_t salt;
    kt_os_random(&salt, sizeof salt);
    const char *temp = kt_arena_printf(&tmp, "%s.%016llx.tmp", path, (unsigned long long)salt);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && write_all(fd, bytes, size);
    int why = errno;
    if (fd >= 0 && close(fd) != 0 && ok) {
        why = errno;
        ok = false;
    }
    if (ok && rename(temp, path) != 0) {
        why = errno;
        ok = false;
    }
    if (fd >= 0 && !ok) unlink(temp);
    kt_arena_deinit(&tmp);
    return ok ? KT_OK : KT_FAIL(err, KT_EFILE, "cannot write '%s': %s", path, strerror(why));
}

bool kt_os_remove(const char *path) {
    return remove(path) == 0;
}

bool kt_os_touch(const char *path) {
    return utimensat(AT_FDCWD, path, NULL, 0) == 0;
}

static int by_bytes(const void *a, const void *b) {
    return kt_str_cmp(*(const kt_str *)a, *(const kt_str *)b);
}

kt_str *kt_os_list(kt_arena *arena, const char *folder, int *n) {
    *n = -1;
    DIR *dir = opendir(folder);
    if (dir == NULL) return NULL;
    KT_VEC(kt_str) names = {0};
    for (;;) {
        errno = 0; // tells the end from a failure
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) break;
        kt_str name = kt_str_from(entry->d_name);
        if (kt_str_is(name, ".") || kt_str_is(name, "..")) continue;
        KT_PUSH(arena, &names, kt_str_copy(arena, name));
    }
    bool whole = errno == 0;
    closedir(dir);
    if (!whole) return NULL;
    if (names.n > 1) qsort(names.at, names.n, sizeof *names.at, by_bytes);
    *n = (int)names.n;
    return names.at;
}

char *kt_os_absolute(kt_arena *arena, const char *path) {
    while (path[0] == '.' && path[1] == '/') path += 2;
    if (kt_path_is_absolute(path)) return kt_arena_copy(arena, path, strlen(path));
    char *here = getcwd(NULL, 0); // glibc allocates
    if (here == NULL) return kt_arena_copy(arena, path, strlen(path));
    bool self = path[0] == 0 || strcmp(path, ".") == 0;
    char *out = self ? kt_arena_copy(arena, here, strlen(here)) : kt_path_join(arena, here, path);
    free(here);
    return out;
}

char *kt_os_executable(kt_arena *arena) {
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    if (n <= 0 || (size_t)n >= sizeof path) return NULL;
    return kt_arena_copy(arena, path, (size_t)n);
}

char *kt_os_cache_folder(kt_arena *arena) {
    const char *own = kt_os_getenv("KOTARO_CACHE_DIR");
    if (own != NULL && own[0] != 0) return kt_os_absolute(arena, own);
    const char *xdg = kt_os_getenv("XDG_CACHE_HOME"); // the XDG rules: relative paths are ignored
    if (xdg != NULL && xdg[0] == '/') return kt_path_join(arena, xdg, "kotaro");
    const char *home = kt_os_getenv("HOME");
    if (home == NULL || home[0] != '/') return NULL;
    return kt_path_join(arena, home, ".cache/kotaro");
}

char *kt_os_temp_folder(kt_arena *arena) {
    const char *own = kt_os_getenv("TMPDIR");
    const char *folder = own != NULL && own[0] == '/' ? own : "/tmp";
    return kt_arena_copy(arena, folder, strlen(folder));
}

// ---- environment, terminal, time

const char *kt_os_getenv(const char *name) {
    return getenv(name);
}

bool kt_os_is_terminal(FILE *stream) {
    return isatty(fileno(stream)) == 1;
}

int kt_os_terminal_columns(void) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

int kt_os_cpu_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN); // more CPUs than the set holds
    return n < 1 ? 1 : (int)n;
}

int64_t kt_os_memory_bytes(void) {
    return (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
}

double kt_os_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

void kt_os_sleep_us(int64_t us) {
    if (us <= 0) return;
    struct timespec rest = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) continue;
}

int kt_os_pid(void) {
    return (int)getpid();
}

void kt_os_random(void *out, size_t n) {
    unsigned char *to = out;
    for (size_t done = 0; done < n;) {
        ssize_t got = getrandom(to + done, n - done, 0);
        if (got < 0 && errno == EINTR) continue;
        KT_ASSERT(
            got > 0); // the only other failures are a bad buffer and a kernel from before 2014
        done += (size_t)got;
    }
}

static volatile int *interrupt_flag; // a signal handler has no other way to its data

static void on_interrupt(int signal_number) {
    if (interrupt_flag != NULL && *interrupt_flag == 0) {
        *interrupt_flag = 1;
        return;
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void kt_os_catch_interrupt(volatile int *flag) {
    interrupt_flag = flag;
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void kt_os_setup_console(void) {
    // UTF-8 already.
}

// ---- programs

static void drain(int fd, kt_buf *out) {
    char part[4096];
    for (;;) {
        ssize_t n = read(fd, part, sizeof part);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        if (out != NULL) kt_buf_add(out, part, (size_t)n);
    }
}

static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int kt_os_run(const char *const *argv, kt_buf *out) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    pid_t pid;
    // posix_spawnp promises not to write to argv; its type predates const.
    char *const *args;
    memcpy(&args, &argv, sizeof args);
    int failed = posix_spawnp(&pid, argv[0], &actions, NULL, args, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failed == 0) drain(ends[0], out);
    close(ends[0]);
    return failed == 0 ? wait_for(pid) : -1;
}

// ---- memory

enum { LARGE_PAGE = 2 << 20 };

// Maps one large page more than asked for and gives back what lies outside the boundaries.
void *kt_os_pages(size_t size_bytes) {
    size_t size = (size_bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    if (size < size_bytes || size > SIZE_MAX - LARGE_PAGE) return NULL;
    char *raw =
        mmap(NULL, size + LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return NULL;
    size_t before = (LARGE_PAGE - (uintptr_t)raw % LARGE_PAGE) % LARGE_PAGE;
    if (before > 0) (void)munmap(raw, before);
    if (before < LARGE_PAGE) (void)munmap(raw + before + size, LARGE_PAGE - before);
#ifdef MADV_HUGEPAGE
    (void)madvise(raw + before, size, MADV_HUGEPAGE);
#endif
    return raw + before;
}

void kt_os_pages_free(void *at, size_t size_bytes) {
    if (at == NULL) return;
    (void)munmap(at, (size_bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE);
}

// ---- shared libraries

kt_os_library *kt_os_library_open(const char *path, kt_buf *why) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL && why != NULL) {
        const char *reason = dlerror();
        kt_buf_str(why, kt_str_from(reason == NULL ? "unknown reason" : reason));
    }
    return handle;
}

void kt_os_library_close(kt_os_library *library) {
    if (library != NULL) dlclose(library);
}

bool kt_os_library_path(kt_os_library *library, char *out, size_t n) {
    struct link_map *map = NULL;
    out[0] = 0;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0 || map == NULL) return false;
    (void)snprintf(out, n, "%s", map->l_name);
    return out[0] != 0;
}

kt_os_function kt_os_library_function(kt_os_library *library, const char *symbol) {
    void *object = dlsym(library, symbol);
    kt_os_function function;
    _Static_assert(sizeof function == sizeof object, "POSIX asks for it");
    memcpy(&function, &object, sizeof function);
    return function;
}

// ---- threads

struct kt_os_thread {
    pthread_t id;
    void (*run)(void *ctx);
    void *ctx;
};

struct kt_os_mutex {
    pthread_mutex_t native;
};

struct kt_os_cond {
    pthread_cond_t native;
};

static void *new_zeroed(size_t size) {
    void *out = calloc(1, size);
    if (out == NULL) kt_out_of_memory(size);
    return out;
}

static void *enter_thread(void *arg) {
    const kt_os_thread *thread = arg;
    thread->run(thread->ctx);
    return NULL;
}

kt_os_thread *kt_os_thread_start(void (*run)(void *ctx), void *ctx, size_t stack_bytes) {
    kt_os_thread *thread = new_zeroed(sizeof *thread);
    thread->run = run;
    thread->ctx = ctx;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    size_t least = (size_t)PTHREAD_STACK_MIN;
    if (stack_bytes > 0) {
        size_t rounded = (stack_bytes + 0xffff) & ~(size_t)0xffff;
        pthread_attr_setstacksize(&attr, rounded < least ? least : rounded);
    }
    // Signals are for the main thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread->id, &attr, enter_thread, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (failed == 0) return thread;
    free(thread);
    return NULL;
}

void kt_os_thread_join(kt_os_thread *thread) {
    if (thread == NULL) return;
    pthread_join(thread->id, NULL);
    free(thread);
}

kt_os_mutex *kt_os_mutex_create(void) {
    kt_os_mutex *mutex = new_zeroed(sizeof *mutex);
    pthread_mutex_init(&mutex->native, NULL);
    return mutex;
}

void kt_os_mutex_free(kt_os_mutex *mutex) {
    if (mutex == NULL) return;
    pthread_mutex_destroy(&mutex->native);
    free(mutex);
}

void kt_os_mutex_lock(kt_os_mutex *mutex) {
    pthread_mutex_lock(&mutex->native);
}

void kt_os_mutex_unlock(kt_os_mutex *mutex) {
    pthread_mutex_unlock(&mutex->native);
}

kt_os_cond *kt_os_cond_create(void) {
    kt_os_cond *cond = new_zeroed(sizeof *cond);
    pthread_cond_init(&cond->native, NULL);
    return cond;
}

void kt_os_cond_free(kt_os_cond *cond) {
    if (cond == NULL) return;
    pthread_cond_destroy(&cond->native);
    free(cond);
}

void kt_os_cond_wait(kt_os_cond *cond, kt_os_mutex *mutex) {
    pthread_cond_wait(&cond->native, &mutex->native);
}

void kt_os_cond_broadcast(kt_os_cond *cond) {
    pthread_cond_broadcast(&cond->native);
}

#endif
