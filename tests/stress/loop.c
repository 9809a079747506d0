// The N-th failure loop of tests/stress.sh: runs a command again and again, the first, second,
// third ... call of one kind failing, until nothing fails any more.
//
// usage: loop NAME VARIABLE=VALUE [OPTION...] -- COMMAND...
//   VARIABLE=VALUE     how a run is told what fails, @ being N: KOTARO_FAIL=error:@ (fail_files.c),
//                      KOTARO_EMU_FAIL=call:@ (the stand-ins for driver and NVRTC)
//   --answer FILE      what the command prints when nothing fails
//   --work DIR         folder for caches, temporary files, what runs say
//   --cache DIR        cache of compiled kernels that each run begins with; none: an empty one
//   --whole DIR        cache that has everything, to compare with
//   --first N, --last N, --jobs N, --seconds N (of one run)
//   --sample N,SEED    the first 20, N random ones, the last 5
//
// Each run must end by itself, with an exit code of runtime/base/status.h, one error that names
// what failed, nothing but the answer's beginning on stdout, no report of a sanitizer or of a
// stand-in, no temporary file, and a cache whose entries are those of --whole; where entries are
// missing a second run, undisturbed, must give the answer and compile those alone. A failure that
// did no harm (a cache that cannot be written) must give the answer. One line of TAP.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PATH = 768, MAX_JOBS = 16, MAX_SHOWN = 12, FIRST_SAMPLED = 20, LAST_SAMPLED = 5 };

typedef struct options {
    const char *name, *fault, *answer, *work, *cache, *whole;
    const char *library; // fail_files.c, of the variable LIBFAIL
    long first, last, seconds, sample;
    unsigned long seed;
    int jobs;
    char **command;
} options;

// Shared by the workers.
typedef struct totals {
    long n, errors, harmless, bad;
    long codes[256];
} totals;

typedef struct worker {
    const options *o;
    totals *sum; // its own
    char folder[MAX_PATH];
    char *answer;
    long n;   // what fails
    bool bad; // this one
} worker;

typedef struct outcome {
    int code, signal; // one of them; -1
    char *out, *err, *report, *emu, *nvrtc;
} outcome;

// ---- files

static void die(const char *what) {
    fprintf(stderr, "loop: %s: %s\n", what, strerror(errno));
    exit(2);
}

static long number(const char *text) {
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text) die(text);
    return n;
}

static char *read_file(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    char *text = malloc(1);
    size_t size = 0, room = 1;
    while (file != NULL && text != NULL) {
        if (size + 1 == room) {
            room = 2 * room + 4096;
            text = realloc(text, room);
            if (text == NULL) break;
        }
        size_t got = fread(text + size, 1, room - size - 1, file);
        if (got == 0) break;
        size += got;
    }
    if (file != NULL) fclose(file);
    if (text == NULL) die("memory");
    text[size] = 0;
    if (n != NULL) *n = size;
    return text;
}

static void copy_file(const char *from, const char *to) {
    size_t n;
    char *bytes = read_file(from, &n);
    FILE *file = fopen(to, "wb");
    if (file == NULL || fwrite(bytes, 1, n, file) != n || fclose(file) != 0) die(to);
    free(bytes);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void remove_all(const char *folder) {
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void join(char out[MAX_PATH], const char *folder, const char *name) {
    int n = snprintf(out, MAX_PATH, "%s/%s", folder, name);
    if (n < 0 || n >= MAX_PATH) die("a path too long");
}

// Where entries lie in a cache folder.
static void entries_of(char out[MAX_PATH], const char *cache) {
    join(out, cache, "cubin/v1");
}

static void make_cache(const char *cache, const char *from) {
    char folder[MAX_PATH], source[MAX_PATH], a[MAX_PATH], b[MAX_PATH];
    remove_all(cache);
    if (mkdir(cache, 0700) != 0) die(cache);
    if (from == NULL) return;
    join(folder, cache, "cubin");
    if (mkdir(folder, 0700) != 0) die(folder);
    entries_of(folder, cache);
    if (mkdir(folder, 0700) != 0) die(folder);
    entries_of(source, from);
    DIR *list = opendir(source);
    if (list == NULL) die(source);
    for (struct dirent *e = readdir(list); e != NULL; e = readdir(list)) {
        if (e->d_name[0] == '.') continue;
        join(a, source, e->d_name);
        join(b, folder, e->d_name);
        copy_file(a, b);
    }
    closedir(list);
}

// ---- one run

static void complain(worker *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(worker *w, const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!w->bad) w->sum->bad++;
    w->bad = true;
    if (w->sum->bad > MAX_SHOWN) return;
    printf("# %s, %ld: %s\n", w->o->name, w->n, text);
    fflush(stdout);
}

static void set_fault(const char *fault, long n) {
    char name[64], value[256];
    const char *equals = strchr(fault, '='), *at = strchr(fault, '@');
    if (equals == NULL || at == NULL) _exit(99); // read_options saw them
    (void)snprintf(name, sizeof name, "%.*s", (int)(equals - fault), fault);
    (void)snprintf(value, sizeof value, "%.*s%ld%s", (int)(at - equals - 1), equals + 1, n, at + 1);
    setenv(name, value, 1);
}

static void to_file(const char *folder, const char *name, int fd) {
    char path[MAX_PATH];
    join(path, folder, name);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || dup2(file, fd) < 0) _exit(99);
}

static bool of_files(const options *o) {
    return strncmp(o->fault, "KOTARO_FAIL=", 12) == 0;
}

// In the child. n < 0: nothing is to fail, and it tells more.
static void start(const worker *w, long n) {
    char path[MAX_PATH];
    join(path, w->folder, "cache");
    setenv("KOTARO_CACHE_DIR", path, 1);
    join(path, w->folder, "tmp");
    setenv("TMPDIR", path, 1);
    join(path, w->folder, "emu");
    setenv("KOTARO_EMU_REPORT", path, 1);
    join(path, w->folder, "report");
    setenv("KOTARO_FAIL_REPORT", path, 1);
    if (n >= 0) set_fault(w->o->fault, n);
    if (n >= 0 && of_files(w->o)) setenv("LD_PRELOAD", w->o->library, 1);
    to_file(w->folder, "out", STDOUT_FILENO);
    to_file(w->folder, "err", STDERR_FILENO);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0) _exit(99);
    alarm((unsigned)w->o->seconds); // survives exec, and ends what hangs
    char *args[64];
    int n_args = 0;
    while (n_args < 60 && w->o->command[n_args] != NULL) {
        args[n_args] = w->o->command[n_args];
        n_args++;
    }
    char verbose[] = "--verbose";
    if (n < 0) args[n_args++] = verbose;
    args[n_args] = NULL;
    execv(args[0], args);
    _exit(99);
}

static outcome run(const worker *w, long n) {
    const char *const stale[] = {"report", "emu", "emu.nvrtc"};
    char path[MAX_PATH];
    for (size_t i = 0; i < sizeof stale / sizeof stale[0]; i++) {
        join(path, w->folder, stale[i]);
        (void)unlink(path);
    }
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) start(w, n);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) die("waitpid");
    outcome out = {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
        .signal = WIFSIGNALED(status) ? WTERMSIG(status) : -1};
    char **const texts[] = {&out.out, &out.err, &out.report, &out.emu, &out.nvrtc};
    const char *const names[] = {"out", "err", "report", "emu", "emu.nvrtc"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        join(path, w->folder, names[i]);
        *texts[i] = read_file(path, NULL);
    }
    return out;
}

static void drop(outcome *out) {
    free(out->out);
    free(out->err);
    free(out->report);
    free(out->emu);
    free(out->nvrtc);
}

// ---- what is wrong with it

// Lines of errors. The one that sums up the mistakes of a file is not one of them.
static int count_errors(const char *text) {
    static const char lead[] = "kotaro: error: ";
    int n = 0, sums = 0;
    for (const char *at = text; at != NULL && *at != 0;) {
        const char *end = strchr(at, '\n');
        size_t size = end == NULL ? strlen(at) : (size_t)(end - at);
        bool error = strncmp(at, lead, sizeof lead - 1) == 0;
        bool sum = error && size > 12 && strncmp(at + size - 12, "has mistakes", 12) == 0;
        bool placed = !error && memmem(at, size, ": error: ", 9) != NULL;
        n += (error && !sum) || (placed && n == 0); // of located ones there may be several
        sums += sum;
        at = end == NULL ? NULL : end + 1;
    }
    return n == 0 ? sums + sums : n; // nothing to sum up
}

// The line that begins with `lead`; NULL: none.
static const char *find_line(const char *text, const char *lead) {
    for (const char *at = strstr(text, lead); at != NULL; at = strstr(at + 1, lead))
        if (at == text || at[-1] == '\n') return at;
    return NULL;
}

// The second, third ... word of the line that begins with `lead`; the last one runs to its end.
static bool find_word(const char *text, const char *lead, int index, bool last, char out[256]) {
    out[0] = 0;
    const char *at = find_line(text, lead);
    for (int i = 0; at != NULL && i < index; i++) {
        at = strpbrk(at, " \n");
        if (at == NULL || *at == '\n') return false;
        at++;
    }
    if (at == NULL) return false;
    (void)snprintf(out, 256, "%.*s", (int)strcspn(at, last ? "\n" : " \n"), at);
    return true;
}

// Who counts the calls that fail, and tells which one did: "fired NAME ...".
static const char *report_of(const worker *w, const outcome *run) {
    if (of_files(w->o)) return run->report;
    return strstr(w->o->fault, "nvrtc") != NULL ? run->nvrtc : run->emu;
}

static bool fired(const worker *w, const outcome *run) {
    return find_line(report_of(w, run), "fired ") != NULL;
}

// What the message has to name: the file, or the call; where several failed, one of them.
static void check_names(worker *w, const outcome *run) {
    const char *report = report_of(w, run);
    for (const char *at = report; (at = find_line(at, "fired ")) != NULL; at += 6) {
        char word[256];
        const char *name = word;
        (void)find_word(at, "fired ", of_files(w->o) ? 3 : 1, of_files(w->o), word);
        const char *slash = strrchr(word, '/');
        if (slash != NULL) name = slash + 1;
        if (*name == 0 || strstr(run->err, name) != NULL) return;
    }
    // Of a lack of memory what was to have it, of NVRTC the op.
    static const char *const as_good[] = {
        "the GPU has no room for '", "the system does not pin ", "NVRTC"};
    for (size_t i = 0; !of_files(w->o) && i < sizeof as_good / sizeof as_good[0]; i++)
        if (strstr(run->err, as_good[i]) != NULL) return;
    // A lost device is told by the first call whose result counts.
    if (strstr(w->o->fault, "sticky") != NULL && strstr(run->err, ", code 719)") != NULL) return;
    char what[256];
    (void)find_word(report, "fired ", 0, true, what);
    complain(w, "'%s', and the message does not name it: %.300s", what, run->err);
}

static void check_end(worker *w, const outcome *run) {
    static const char *const never[] = {"Sanitizer", "kotaro: bug", "runtime error:"};
    char what[256] = "";
    (void)find_word(report_of(w, run), "fired ", 0, true, what);
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        const char *at = strstr(run->err, never[i]);
        if (at != NULL) complain(w, "%s: %.700s", what, at);
    }
    if (run->signal == SIGALRM) complain(w, "%s: it hangs", what);
    if (run->signal >= 0)
        complain(w, "%s: ended by signal %d: %.300s", what, run->signal, run->err);
    if (run->signal >= 0) return;
    int n = count_errors(run->err);
    bool known = run->code >= 0 && run->code <= 4;
    if (!known) complain(w, "%s: exit code %d: %.300s", what, run->code, run->err);
    bool several = strstr(w->o->fault, "sticky") != NULL && n > 1; // files that cannot be read
    if (n != (run->code == 0 ? 0 : several ? n : 1))
        complain(w, "%s: exit code %d and %d errors: %.500s", what, run->code, n, run->err);
    if (run->code == 0 && strcmp(run->out, w->answer) != 0)
        complain(w, "%s: exit code 0 and another answer: %.300s", what, run->out);
    if (strncmp(run->out, w->answer, strlen(run->out)) != 0)
        complain(w, "%s: not the beginning of the answer: %.300s", what, run->out);
    if (run->code != 0 && n > 0) check_names(w, run);
}

static void check_tmp(worker *w) {
    char folder[MAX_PATH], path[MAX_PATH];
    join(folder, w->folder, "tmp");
    DIR *list = opendir(folder);
    if (list == NULL) die(folder);
    bool any = false;
    for (struct dirent *e = readdir(list); e != NULL; e = readdir(list)) {
        if (e->d_name[0] == '.') continue;
        complain(w, "left in TMPDIR: %s", e->d_name);
        any = true;
    }
    closedir(list);
    if (!any) return;
    remove_all(folder);
    join(path, w->folder, "tmp");
    if (mkdir(path, 0700) != 0) die(path);
}

// Compares the cache with the whole one. Returns how many kernels it lacks.
static int check_cache(worker *w) {
    char own[MAX_PATH], whole[MAX_PATH], path[MAX_PATH], cache[MAX_PATH];
    join(cache, w->folder, "cache");
    entries_of(own, cache);
    entries_of(whole, w->o->whole);
    DIR *list = opendir(own);
    int lacks = 0;
    for (struct dirent *e; list != NULL && (e = readdir(list)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        join(path, whole, e->d_name);
        if (access(path, F_OK) != 0) complain(w, "left in the cache: %s", e->d_name);
    }
    if (list != NULL) closedir(list);
    list = opendir(whole);
    if (list == NULL) die(whole);
    for (struct dirent *e = readdir(list); e != NULL; e = readdir(list)) {
        if (e->d_name[0] == '.') continue;
        size_t a, b;
        join(path, whole, e->d_name);
        char *expected = read_file(path, &a);
        join(path, own, e->d_name);
        bool there = access(path, F_OK) == 0;
        char *found = read_file(path, &b);
        if (!there)
            lacks += strstr(e->d_name, ".ktc") != NULL;
        else if (a != b || memcmp(expected, found, a) != 0)
            complain(w, "the cache's %s is damaged", e->d_name);
        free(expected);
        free(found);
    }
    closedir(list);
    return lacks;
}

// What the disturbed run left must serve the next one.
static void check_next(worker *w, int lacks) {
    outcome next = run(w, -1);
    char expected[64];
    (void)snprintf(expected, sizeof expected, " %d compiled", lacks);
    if (next.code != 0 || strcmp(next.out, w->answer) != 0)
        complain(w, "the next run fails: %.500s", next.err);
    else if (strstr(next.err, expected) == NULL)
        complain(w, "the next run does not say%s", expected);
    drop(&next);
    if (check_cache(w) != 0) complain(w, "the next run leaves the cache incomplete");
}

// Its counts at the end; a run that ended before the driver was opened has none.
static void check_stand_in(worker *w, const outcome *run) {
    static const char *const none[] = {"\nleaks ", "\nviolations "};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        const char *at = strstr(run->emu, none[i]);
        if (at == NULL || at[strlen(none[i])] == '0') continue;
        const char *what = strstr(run->err, "emu: ");
        complain(w, "the stand-in counts %.*s: %.300s", (int)strcspn(at + 1, "\n"), at + 1,
            what == NULL ? "" : what);
    }
}

// ---- the loop

// false: nothing failed any more.
static bool try_one(worker *w, long n, bool *fresh) {
    char cache[MAX_PATH];
    join(cache, w->folder, "cache");
    w->n = n;
    w->bad = false;
    if (!*fresh) make_cache(cache, w->o->cache);
    outcome out = run(w, n);
    bool hit = fired(w, &out);
    if (hit || out.code != 0) {
        w->sum->n++;
        w->sum->errors += out.code != 0;
        w->sum->harmless += out.code == 0;
        if (out.code >= 0) w->sum->codes[out.code & 255]++;
    }
    check_end(w, &out);
    if (!hit && out.code != 0) complain(w, "it fails, and nothing was made to: %.300s", out.err);
    check_stand_in(w, &out);
    check_tmp(w);
    *fresh = false;
    if (w->o->whole != NULL) {
        int lacks = check_cache(w);
        if (lacks > 0) check_next(w, lacks);
        *fresh = lacks == 0 && !w->bad && w->o->cache != NULL;
    }
    drop(&out);
    return hit;
}

static void prepare(worker *w, const options *o, int index) {
    char path[MAX_PATH], name[16];
    w->o = o;
    (void)snprintf(name, sizeof name, "%d", index);
    join(w->folder, o->work, name);
    (void)mkdir(o->work, 0700);
    remove_all(w->folder);
    if (mkdir(w->folder, 0700) != 0) die(w->folder);
    join(path, w->folder, "tmp");
    if (mkdir(path, 0700) != 0) die(path);
    w->answer = read_file(o->answer, NULL);
    if (w->answer[0] == 0) die("no answer to compare with");
}

static void walk(worker *w, int index) {
    bool fresh = false;
    for (long n = w->o->first + index; n <= w->o->last; n += w->o->jobs)
        if (!try_one(w, n, &fresh)) return;
}

// How many there are: those of a run in which nothing fails.
static long count_all(worker *w) {
    char cache[MAX_PATH], word[256];
    join(cache, w->folder, "cache");
    make_cache(cache, w->o->cache);
    outcome out = run(w, of_files(w->o) ? 0 : -1);
    const char *fault = strchr(w->o->fault, '=') + 1;
    char what[64] = "calls_that_can_fail ";
    if (of_files(w->o)) (void)snprintf(what, sizeof what, "calls ");
    if (strncmp(fault, "alloc", 5) == 0) (void)snprintf(what, sizeof what, "allocations ");
    if (strncmp(fault, "cu", 2) == 0)
        (void)snprintf(what, sizeof what, "calls.%.*s ", (int)strcspn(fault, ":"), fault);
    bool ok = out.code == 0 && find_word(report_of(w, &out), what, 1, false, word);
    long n = ok ? number(word) : 0;
    drop(&out);
    if (n == 0) die("no count of calls");
    return n;
}

static unsigned long next_random(unsigned long *state) {
    *state = *state * 6364136223846793005UL + 1442695040888963407UL;
    return *state >> 33;
}

// All of them where there are no more than that.
static void walk_sample(worker *w, int index) {
    long all = count_all(w), between = all - FIRST_SAMPLED - LAST_SAMPLED;
    unsigned long state = w->o->seed;
    bool whole = between <= w->o->sample, fresh = false;
    long n_all = whole ? all : FIRST_SAMPLED + w->o->sample + LAST_SAMPLED;
    if (index == 0) printf("# %s: of %ld, seed %lu\n", w->o->name, all, w->o->seed);
    for (long i = 0; i < n_all; i++) {
        long n = i + 1;
        if (!whole && i >= FIRST_SAMPLED)
            n = FIRST_SAMPLED + 1 + (long)(next_random(&state) % (unsigned long)between);
        if (!whole && i >= n_all - LAST_SAMPLED) n = all - (n_all - 1 - i);
        if (i % w->o->jobs == index) (void)try_one(w, n, &fresh);
    }
}

static options read_options(int argc, char **argv) {
    options o = {.first = 1, .last = 1000000, .seconds = 30, .jobs = 1};
    o.library = getenv("LIBFAIL");
    if (o.library == NULL) o.library = "";
    if (argc < 4) die("see the top of loop.c");
    o.name = argv[1];
    o.fault = argv[2];
    int i = 3;
    for (; i + 1 < argc && strcmp(argv[i], "--") != 0; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--answer") == 0)
            o.answer = value;
        else if (strcmp(name, "--work") == 0)
            o.work = value;
        else if (strcmp(name, "--cache") == 0)
            o.cache = value;
        else if (strcmp(name, "--whole") == 0)
            o.whole = value;
        else if (strcmp(name, "--first") == 0)
            o.first = number(value);
        else if (strcmp(name, "--last") == 0)
            o.last = number(value);
        else if (strcmp(name, "--jobs") == 0)
            o.jobs = (int)number(value);
        else if (strcmp(name, "--seconds") == 0)
            o.seconds = number(value);
        else if (strcmp(name, "--sample") == 0) {
            o.sample = number(value);
            const char *comma = strchr(value, ',');
            o.seed = comma == NULL ? 1 : (unsigned long)number(comma + 1);
        } else
            die(name);
    }
    o.command = argv + i + 1;
    bool ok = i + 1 < argc && strchr(o.fault, '=') != NULL && strchr(o.fault, '@') != NULL &&
              o.answer != NULL && o.work != NULL && o.jobs >= 1 && o.jobs <= MAX_JOBS &&
              (!of_files(&o) || o.library[0] != 0);
    if (!ok) die("see the top of loop.c");
    return o;
}

static void add_up(const totals *parts, int n, totals *sum) {
    for (int i = 0; i < n; i++) {
        sum->n += parts[i].n;
        sum->errors += parts[i].errors;
        sum->harmless += parts[i].harmless;
        sum->bad += parts[i].bad;
        for (int c = 0; c < 256; c++) sum->codes[c] += parts[i].codes[c];
    }
}

int main(int argc, char **argv) {
    options o = read_options(argc, argv);
    totals *parts = mmap(
        NULL, MAX_JOBS * sizeof *parts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (parts == MAP_FAILED) die("mmap");
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    pid_t pids[MAX_JOBS];
    for (int i = 0; i < o.jobs; i++) {
        pids[i] = fork();
        if (pids[i] < 0) die("fork");
        if (pids[i] > 0) continue;
        worker w = {.sum = &parts[i]};
        prepare(&w, &o, i);
        if (o.sample > 0)
            walk_sample(&w, i);
        else
            walk(&w, i);
        free(w.answer);
        exit(0);
    }
    bool ok = true;
    for (int i = 0; i < o.jobs; i++) {
        int status = 0;
        ok = waitpid(pids[i], &status, 0) == pids[i] && status == 0 && ok;
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    totals sum = {0};
    add_up(parts, o.jobs, &sum);
    ok = ok && sum.bad == 0 && sum.n > 0;
    printf("%s - %s: %ld failures, %ld with an error (exit codes", ok ? "ok" : "not ok", o.name,
        sum.n, sum.errors);
    for (int c = 1; c < 256; c++)
        if (sum.codes[c] > 0) printf(" %d: %ld", c, sum.codes[c]);
    printf("), %ld without harm, %ld wrong; %.1f s\n", sum.harmless, sum.bad,
        (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9);
    return ok ? 0 : 1;
}
