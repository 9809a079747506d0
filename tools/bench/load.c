// Process start to ready: runs the program some times over a model folder, and says what each part
// took and what share of this machine's own ceilings that is. Prints a table, then one line of
// JSON.
//
// usage: bench_load RUNS MODEL PROGRAM ARGUMENTS...     (the program says what took how long with
// --verbose; see runtime/exec/times.h)
#include "loader/json.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/gpu/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    RUNS_MOST = 100,
    PIECE = 2 << 20,
    SLOTS = 16,
    SWEEPS = 3,
    THREADS_MOST = 8,
    UPLOAD_PIECES = 512,
};

// What is shown, in order; `of` names the megabytes that the time is for.
typedef struct row {
    const char *name, *of, *label;
} row;

static const row rows[] = {
    {"ready", NULL, "process start to ready"},
    {"files", NULL, "files and settings"},
    {"driver", NULL, "driver, beside the files"},
    {"context", NULL, "context, beside the files"},
    {"device_wait", NULL, "waiting for both"},
    {"plan", NULL, "plan"},
    {"tokenizer_wait", NULL, "waiting for the tokenizer"},
    {"kernels", NULL, "kernels"},
    {"modules", NULL, "loading modules"},
    {"memory", NULL, "device and host memory"},
    {"graphs", NULL, "graphs"},
    {"weights", "weight_mb", "weights, all of it"},
    {"read", "weight_mb", "  reading, mean of a thread"},
    {"upload", "upload_mb", "  upload"},
    {"prepare", "upload_mb", "  repacking"},
    {"pin", NULL, "  pinning the ring"},
    {"waited", NULL, "  waiting for readers"},
    {"readers", NULL, "reader threads (a number)"},
    {"weight_mb", NULL, "weights read, MB"},
    {"upload_mb", NULL, "uploaded, MB"},
    {"plan_mb", NULL, "device memory by the plan, MB"},
    {"beside_mb", NULL, "modules and graphs, MB"},
    {"before_mb", NULL, "context and others, MB"},
};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

// ---- ceilings

typedef struct sweep {
    kt_os_file **files;
    int n_files, n_threads, thread;
    char *to; // SLOTS pieces of its own
    double bytes;
    bool failed;
} sweep;

static void read_share(void *ctx) {
    sweep *s = ctx;
    int64_t number = 0;
    for (int f = 0; f < s->n_files; f++) {
        int64_t size = kt_os_size(s->files[f]);
        for (int64_t at = 0; at < size; at += PIECE, number++) {
            if (number % s->n_threads != s->thread) continue;
            kt_err err;
            int64_t n = size - at < PIECE ? size - at : PIECE;
            char *to = s->to + number / s->n_threads % 2 * PIECE;
            s->failed = s->failed || kt_os_read_at(s->files[f], at, to, (size_t)n, &err) != KT_OK;
            s->bytes += (double)n;
        }
    }
}

// Bytes a second of the files' pages by so many threads, each with two pieces of memory.
// NOLINTNEXTLINE(readability-non-const-parameter): the threads write to it
static double read_ceiling(kt_os_file **files, int n_files, int n_threads, char *memory) {
    double best = 0;
    for (int r = 0; r < SWEEPS; r++) {
        sweep all[THREADS_MOST];
        kt_os_thread *threads[THREADS_MOST] = {0};
        double start = kt_os_now_ms(), bytes = 0;
        for (int i = 0; i < n_threads; i++) {
            all[i] =
                (sweep){files, n_files, n_threads, i, memory + (size_t)i * 2 * PIECE, 0, false};
            threads[i] = kt_os_thread_start(read_share, &all[i], 256 << 10);
            if (!threads[i]) read_share(&all[i]);
        }
        for (int i = 0; i < n_threads; i++) {
            if (threads[i]) kt_os_thread_join(threads[i]);
            bytes += all[i].failed ? 0 : all[i].bytes;
        }
        double rate = bytes / (kt_os_now_ms() - start) * 1e3;
        if (rate > best) best = rate;
    }
    return best;
}

static kt_status upload_ceiling(kt_gpu *gpu, const char *ring, double *out, kt_err *err) {
    kt_gpu_block block;
    KT_TRY(
        kt_gpu_alloc(gpu, "upload ceiling", KT_GPU_USE_OTHER, (size_t)SLOTS * PIECE, &block, err));
    for (int r = 0; r < SWEEPS; r++) {
        double start = kt_os_now_ms();
        for (size_t i = 0; i < UPLOAD_PIECES; i++)
            KT_TRY(kt_gpu_upload(gpu, gpu->copy, block.at + i % SLOTS * PIECE,
                ring + i % SLOTS * PIECE, PIECE, err));
        KT_TRY(kt_gpu_wait(gpu, gpu->copy, err));
        double rate = (double)UPLOAD_PIECES * PIECE / (kt_os_now_ms() - start) * 1e3;
        if (rate > *out) *out = rate;
    }
    return KT_OK;
}

typedef struct ceilings {
    double read, upload; // bytes a second; 0: not known
} ceilings;

static int open_files(kt_arena *arena, const char *folder, kt_os_file **files, int most) {
    int n = 0, n_open = 0;
    kt_str *names = kt_os_list(arena, folder, &n);
    for (int i = 0; i < n && n_open < most; i++) {
        kt_err err;
        bool weights =
            kt_str_ends(names[i], KT_STR(".safetensors")) || kt_str_ends(names[i], KT_STR(".gguf"));
        if (!weights) continue;
        const char *path = kt_path_join(arena, folder, kt_str_z(arena, names[i]));
        if (kt_os_open(path, &files[n_open], &err) == KT_OK) n_open++;
    }
    return n_open;
}

// Also brings the files into memory, where the runs find them.
static double measure_read(const char *folder) {
    kt_arena arena = {0};
    kt_os_file *files[64];
    int n = open_files(&arena, folder, files, 64), threads = kt_os_cpu_count() - 1;
    if (threads > THREADS_MOST) threads = THREADS_MOST;
    if (threads < 1) threads = 1;
    char *memory = kt_os_pages((size_t)SLOTS * PIECE);
    double rate = memory ? read_ceiling(files, n, threads, memory) : 0;
    kt_os_pages_free(memory, (size_t)SLOTS * PIECE);
    for (int i = 0; i < n; i++) kt_os_close(files[i]);
    kt_arena_deinit(&arena);
    return rate;
}

// After the runs: a process that has used the driver makes it start faster for others.
static double measure_upload(void) {
    kt_gpu *gpu = NULL;
    kt_gpu_pinned ring = {0};
    kt_err err;
    double rate = 0;
    if (kt_gpu_open(NULL, &gpu, &err) != KT_OK) return 0;
    if (kt_gpu_pin(gpu, "ring", (size_t)SLOTS * PIECE, &ring, &err) != KT_OK ||
        upload_ceiling(gpu, ring.at, &rate, &err) != KT_OK)
        kt_log_error(&err);
    kt_gpu_close(gpu);
    return rate;
}

// ---- runs

// One run's numbers; false if it failed.
static bool run_once(const char *const *argv, double *numbers) {
    static const char mark[] = "debug: opened ";
    kt_arena arena = {0};
    kt_buf out = {0};
    kt_err err = {0};
    double start = kt_os_now_ms(), clock = 0;
    int code = kt_os_run(argv, &out);
    const char *at = out.at ? strstr(out.at, mark) : NULL;
    const kt_json *json = NULL;
    kt_json_limits limits = {1 << 16, 4, 1000};
    if (at) {
        kt_str line = kt_str_from(at + sizeof mark - 1);
        ptrdiff_t end = kt_str_find(line, '\n');
        if (end >= 0) line.n = (size_t)end;
        if (kt_json_parse(&arena, line, "times", limits, &json, &err) != KT_OK) json = NULL;
    }
    bool ok = code == 0 && kt_json_get_real(kt_json_find(json, KT_STR("clock")), &clock);
    if (!ok) fprintf(stderr, "the run failed (code %d):\n%s\n", code, out.at ? out.at : "");
    for (int i = 0; ok && i < N_ROWS; i++) {
        numbers[i] = clock - start;
        if (i > 0)
            (void)kt_json_get_real(kt_json_find(json, kt_str_from(rows[i].name)), &numbers[i]);
    }
    kt_buf_deinit(&out);
    kt_arena_deinit(&arena);
    return ok;
}

static int compare(const void *a, const void *b) {
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static int find_row(const char *name) {
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, name) == 0) return i;
    return 0;
}

static double ceiling_of(const ceilings *c, const char *name) {
    if (strcmp(name, "weights") == 0 || strcmp(name, "read") == 0) return c->read;
    return strcmp(name, "upload") == 0 ? c->upload : 0;
}

// values: by row, sorted, n of each.
static void print(const double (*values)[RUNS_MOST], int n, const ceilings *c) {
    printf("%-34s %10s %10s %10s %12s %9s\n", "median of runs", "ms", "least", "most", "GB/s",
        "ceiling");
    for (int i = 0; i < N_ROWS; i++) {
        double median = values[i][n / 2];
        printf("%-34s %10.1f %10.1f %10.1f", rows[i].label, median, values[i][0], values[i][n - 1]);
        if (rows[i].of && median > 0) {
            double rate = values[find_row(rows[i].of)][n / 2] * 1e6 / median * 1e3;
            double ceiling = ceiling_of(c, rows[i].name);
            printf(" %12.2f", rate / 1e9);
            if (ceiling > 0) printf(" %8.0f%%", 100 * rate / ceiling);
        }
        printf("\n");
    }
    printf("ceilings here: page cache %.2f GB/s, pinned upload %.2f GB/s\n", c->read / 1e9,
        c->upload / 1e9);
    printf(
        "{\"runs\": %d, \"read_ceiling\": %.4g, \"upload_ceiling\": %.4g", n, c->read, c->upload);
    for (int i = 0; i < N_ROWS; i++) printf(", \"%s\": %.3f", rows[i].name, values[i][n / 2]);
    printf("}\n");
}

int main(int argc, char **argv) {
    static double values[N_ROWS][RUNS_MOST];
    int64_t runs = 0;
    if (argc < 4 || !kt_str_to_i64(kt_str_from(argv[1]), &runs) || runs < 1 || runs > RUNS_MOST) {
        fprintf(stderr, "usage: bench_load RUNS MODEL PROGRAM ARGUMENTS...\n");
        return 2;
    }
    int n = (int)runs;
    ceilings c = {.read = measure_read(argv[2])};
    double numbers[N_ROWS] = {0};
    for (int r = -1; r < n; r++) { // the first one may compile kernels
        if (!run_once((const char *const *)argv + 3, numbers)) return 1;
        for (int i = 0; r >= 0 && i < N_ROWS; i++) values[i][r] = numbers[i];
    }
    for (int i = 0; i < N_ROWS; i++) qsort(values[i], (size_t)n, sizeof values[i][0], compare);
    c.upload = measure_upload();
    print((const double(*)[RUNS_MOST])values, n, &c);
    return 0;
}
