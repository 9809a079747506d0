#include "ptx/compile.h"

#include "runtime/base/log.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 64 };

// One kernel file that this process has, or is about to have. Lives as long as the compiler.
typedef struct record {
    struct record *next;
    kt_hash id; // of source, headers and options, whatever the compiler
    kt_arena arena;
    kt_cache_entry entry;
    kt_compile_from from;
    kt_str log;
    double ms;
    bool done, reported;
    kt_status status;
    kt_err *err;                       // in the arena; only when it failed
    const kt_compile_request *request; // during the call that made it
} record;

struct kt_compiler {
    kt_compiler_options options;
    kt_arena arena;
    kt_pack **packs;
    int n_packs;
    kt_cache *cache;
    record *records;
    kt_nvrtc_place place; // library NULL: not found
    kt_err place_err;     // why not
    bool looked;          // for the place
    kt_nvrtc *nvrtc;      // NULL: not loaded
    int counts[4];        // by kt_compile_from
};

static const char *const from_names[] = {"pack", "cache", "nvrtc", "before"};

const char *kt_compile_from_name(kt_compile_from from) {
    return from_names[from];
}

// ---- open and close

static kt_status open_packs(kt_compiler *compiler, kt_err *err) {
    const kt_compiler_options *options = &compiler->options;
    compiler->packs = KT_NEW_ARRAY(&compiler->arena, kt_pack *, options->n_packs);
    for (int i = 0; i < options->n_packs; i++) {
        if (kt_os_stat(options->packs[i]).kind == KT_PATH_NONE) continue;
        KT_TRY(kt_pack_open(options->packs[i], &compiler->packs[compiler->n_packs], err));
        compiler->n_packs++;
    }
    return KT_OK;
}

kt_status kt_compiler_open(const kt_compiler_options *options, kt_compiler **out, kt_err *err) {
    *out = NULL;
    kt_compiler *compiler = calloc(1, sizeof *compiler);
    if (compiler == NULL) kt_out_of_memory(sizeof *compiler);
    compiler->options = *options;
    kt_status status = open_packs(compiler, err);
    if (status != KT_OK) {
        kt_compiler_close(compiler);
        return status;
    }
    if (!options->no_cache) {
        compiler->cache = kt_cache_open(options->cache_folder);
        const char *why = kt_cache_why_off(compiler->cache);
        if (why != NULL) kt_log_warn("compiled kernels are not kept: %s", why);
    }
    *out = compiler;
    return KT_OK;
}

static void free_record(record *one) {
    kt_arena_deinit(&one->arena);
    free(one);
}

void kt_compiler_close(kt_compiler *compiler) {
    if (compiler == NULL) return;
    while (compiler->records != NULL) {
        record *one = compiler->records;
        compiler->records = one->next;
        free_record(one);
    }
    for (int i = 0; i < compiler->n_packs; i++) kt_pack_close(compiler->packs[i]);
    kt_cache_close(compiler->cache);
    kt_nvrtc_close(compiler->nvrtc);
    kt_arena_deinit(&compiler->arena);
    free(compiler);
}

kt_cache *kt_compiler_cache(kt_compiler *compiler) {
    return compiler->cache;
}

int kt_compiler_count(const kt_compiler *compiler, kt_compile_from from) {
    return compiler->counts[from];
}

bool kt_compiler_nvrtc_loaded(const kt_compiler *compiler) {
    return compiler->nvrtc != NULL;
}

// ---- which compiler

static bool look_for_nvrtc(kt_compiler *compiler) {
    if (!compiler->looked) {
        compiler->looked = true;
        if (kt_nvrtc_find(&compiler->arena, &compiler->place, &compiler->place_err) != KT_OK)
            compiler->place.library = NULL;
    }
    return compiler->place.library != NULL;
}

// The compiler that keys are made for: the one that is there, else the one used last on this
// machine.
static bool get_tool(kt_compiler *compiler, kt_nvrtc_id *out) {
    if (look_for_nvrtc(compiler)) {
        *out = compiler->place.id;
        return true;
    }
    return compiler->cache != NULL && kt_cache_get_tool(compiler->cache, out);
}

static kt_status open_nvrtc(kt_compiler *compiler, kt_err *err) {
    if (compiler->nvrtc != NULL) return KT_OK;
    if (!look_for_nvrtc(compiler)) {
        *err = compiler->place_err;
        return err->code;
    }
    return kt_nvrtc_open(&compiler->place, &compiler->nvrtc, err);
}

static kt_hash make_key(
    const kt_compiler *compiler, const kt_compile_request *request, const kt_nvrtc_id *tool) {
    kt_arena tmp = {0};
    kt_cache_inputs inputs = {
        .source = request->source, .headers = compiler->options.headers, .tool = tool};
    inputs.options =
        kt_options_list(request->options, &tmp, request->options->arch, &inputs.n_options);
    kt_hash key = kt_cache_key(&inputs);
    kt_arena_deinit(&tmp);
    return key;
}

// ---- records

static record *find_record(const kt_compiler *compiler, kt_hash id) {
    for (record *one = compiler->records; one != NULL; one = one->next)
        if (memcmp(one->id.bytes, id.bytes, sizeof id.bytes) == 0) return one;
    return NULL;
}

static record *add_record(kt_compiler *compiler, kt_hash id, const kt_compile_request *request) {
    record *one = calloc(1, sizeof *one);
    if (one == NULL) kt_out_of_memory(sizeof *one);
    one->id = id;
    one->request = request;
    one->log = KT_STR("");
    one->next = compiler->records;
    compiler->records = one;
    return one;
}

// A request that failed is asked anew the next time.
static void drop_failed(kt_compiler *compiler) {
    for (record **link = &compiler->records; *link != NULL;) {
        record *one = *link;
        if (one->done && one->status == KT_OK) {
            link = &one->next;
            continue;
        }
        *link = one->next;
        free_record(one);
    }
}

static bool from_pack(kt_compiler *compiler, record *one) {
    const kt_compile_request *r = one->request;
    for (int i = 0; i < compiler->n_packs && !one->done; i++)
        one->done = kt_pack_find(compiler->packs[i], r->source, compiler->options.headers,
            r->options, &one->arena, &one->entry);
    one->from = KT_COMPILE_FROM_PACK;
    return one->done;
}

static bool from_cache(kt_compiler *compiler, record *one) {
    kt_nvrtc_id tool;
    if (compiler->cache == NULL || kt_cache_folder(compiler->cache) == NULL ||
        !get_tool(compiler, &tool))
        return false;
    one->done = kt_cache_get(compiler->cache, make_key(compiler, one->request, &tool),
        one->request->options->arch, &one->arena, &one->entry);
    one->from = KT_COMPILE_FROM_CACHE;
    return one->done;
}

// ---- NVRTC

// The log without the assembler's report, which is in the entry: warnings, or nothing.
static kt_str keep_warnings(kt_arena *arena, kt_str log) {
    kt_buf kept = {0};
    while (log.n > 0) {
        ptrdiff_t end = kt_str_find(log, '\n');
        size_t n = end < 0 ? log.n : (size_t)end + 1;
        kt_str line = kt_str_slice(log, 0, n);
        bool report = kt_str_starts(line, KT_STR("ptxas info")) ||
                      kt_str_starts(line, KT_STR("ptxas         ."));
        bool blank = line.n == 1 && (kept.n == 0 || n == log.n);
        if (!report && !blank) kt_buf_str(&kept, line);
        log = kt_str_slice(log, n, log.n);
    }
    kt_str out = {kt_arena_copy(arena, kept.at == NULL ? "" : kept.at, kept.n), kept.n};
    kt_buf_deinit(&kept);
    return out;
}

// Makes an entry of what NVRTC gave: reads the cubin, and takes the spills from the log.
static kt_status take_output(record *one, const kt_nvrtc_output *output, kt_err *err) {
    kt_cache_entry *entry = &one->entry;
    entry->cubin = output->cubin;
    KT_TRY(kt_cubin_read(&one->arena, output->cubin.at, output->cubin.n, &entry->info, err));
    size_t n = (size_t)entry->info.n_kernels;
    kt_cubin_kernel *kernels = kt_arena_array(&one->arena, n, sizeof *kernels);
    memcpy(kernels, entry->info.kernels, n * sizeof *kernels);
    for (size_t i = 0; i < n; i++) {
        kt_nvrtc_usage usage;
        if (kt_nvrtc_read_usage(output->log, kt_str_from(kernels[i].name), &usage))
            kernels[i].spill_bytes = usage.spill_store_bytes + usage.spill_load_bytes;
    }
    entry->info.kernels = kernels;
    if (entry->info.sm != one->request->options->arch)
        return KT_FAIL(err, KT_ECOMPILE, "NVRTC made code for sm_%d, sm_%d was asked for",
            entry->info.sm, one->request->options->arch);
    one->log = keep_warnings(&one->arena, output->log);
    return KT_OK;
}

static kt_status run_nvrtc(kt_compiler *compiler, record *one, kt_err *err) {
    const kt_compile_request *request = one->request;
    kt_nvrtc_source source = {.name = request->name,
        .text = request->source,
        .headers = compiler->options.headers,
        .stop = compiler->options.stop};
    source.options =
        kt_options_list(request->options, &one->arena, request->options->arch, &source.n_options);
    kt_nvrtc_output output;
    kt_status status = kt_nvrtc_compile(compiler->nvrtc, &source, &one->arena, &output, err);
    if (status == KT_OK)
        status = take_output(one, &output, err);
    else
        one->log = output.log;
    one->from = KT_COMPILE_FROM_NVRTC;
    one->ms = output.ms;
    return status;
}

// Several threads take records from one list. The mutex guards everything below it.
typedef struct work {
    kt_compiler *compiler;
    record **records;
    int n;
    kt_os_mutex *mutex;
    int next;
    bool failed;
    kt_compile_progress *progress;
} work;

static void tell(const kt_compiler *compiler, kt_compile_progress *progress, const record *one) {
    progress->n_done++;
    progress->n_compiled += one->from == KT_COMPILE_FROM_NVRTC;
    progress->name = one->request->name;
    if (compiler->options.progress != NULL)
        compiler->options.progress(compiler->options.progress_ctx, progress);
}

static bool stopped(const kt_compiler *compiler) {
    return compiler->options.stop != NULL && *compiler->options.stop != 0;
}

static void finish(work *w, record *one, kt_status status, const kt_err *err) {
    kt_compiler *compiler = w->compiler;
    one->done = true;
    one->status = status;
    if (status != KT_OK) {
        one->err = KT_NEW(&one->arena, kt_err);
        *one->err = *err;
        w->failed = true;
        return;
    }
    tell(compiler, w->progress, one);
    if (compiler->cache == NULL) return;
    kt_nvrtc_id tool = kt_nvrtc_get_id(compiler->nvrtc);
    kt_cache_put(compiler->cache, make_key(compiler, one->request, &tool), &one->entry);
}

static void work_on(void *ctx) {
    work *w = ctx;
    kt_err err;
    kt_os_mutex_lock(w->mutex);
    while (w->next < w->n && !w->failed && !stopped(w->compiler)) {
        record *one = w->records[w->next++];
        kt_os_mutex_unlock(w->mutex);
        kt_status status = run_nvrtc(w->compiler, one, &err);
        kt_os_mutex_lock(w->mutex);
        finish(w, one, status, &err);
    }
    kt_os_mutex_unlock(w->mutex);
}

static kt_status compile_records(
    kt_compiler *compiler, record **records, int n, kt_compile_progress *progress, kt_err *err) {
    kt_status status = open_nvrtc(compiler, err);
    if (status != KT_OK) {
        kt_err_note(err,
            "it is needed to compile '%s'%s for sm_%d: neither a pack nor the cache "
            "has this build",
            records[0]->request->name, n > 1 ? " and others" : "",
            records[0]->request->options->arch);
        return status;
    }
    if (compiler->cache != NULL) {
        kt_nvrtc_id tool = kt_nvrtc_get_id(compiler->nvrtc);
        kt_cache_put_tool(compiler->cache, &tool);
    }
    int n_threads =
        compiler->options.n_threads > 0 ? compiler->options.n_threads : kt_os_cpu_count();
    if (n_threads > n) n_threads = n;
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    work w = {.compiler = compiler, .records = records, .n = n, .progress = progress};
    w.mutex = kt_os_mutex_create();
    kt_os_thread *threads[MAX_THREADS];
    // Also for one: the compiler wants more stack than a main thread may have.
    int n_started = 0;
    for (int i = 0; i < n_threads; i++) {
        threads[i] = kt_os_thread_start(work_on, &w, KT_NVRTC_STACK);
        n_started += threads[i] != NULL;
    }
    for (int i = 0; i < n_threads; i++) kt_os_thread_join(threads[i]);
    kt_os_mutex_free(w.mutex);
    if (n_started > 0) return KT_OK;
    return KT_FAIL(err, KT_ECOMPILE,
        "'%s' cannot be compiled: the system starts no thread with a stack of %d MB",
        records[0]->request->name, KT_NVRTC_STACK >> 20);
}

// ---- the function

static void give(kt_compiler *compiler, record *one, kt_compile_result *out) {
    kt_compile_from from = one->reported ? KT_COMPILE_FROM_BEFORE : one->from;
    one->reported = true;
    compiler->counts[from]++;
    *out = (kt_compile_result){.cubin = one->entry.cubin,
        .info = &one->entry.info,
        .from = from,
        .ms = from == KT_COMPILE_FROM_BEFORE ? 0 : one->ms,
        .log = one->log};
}

static kt_status collect(kt_compiler *compiler, record *const *of_request, int n,
    kt_compile_result *results, kt_err *err) {
    kt_status status = KT_OK;
    for (int i = 0; i < n; i++) {
        record *one = of_request[i];
        results[i] = (kt_compile_result){.log = KT_STR("")};
        if (one->done && one->status == KT_OK) {
            give(compiler, one, &results[i]);
            continue;
        }
        if (one->err != NULL) {
            results[i].log =
                (kt_str){kt_arena_copy(&compiler->arena, one->log.at, one->log.n), one->log.n};
            if (status == KT_OK) *err = *one->err;
            if (status == KT_OK) status = err->code;
        }
    }
    if (status == KT_OK && stopped(compiler))
        status = KT_FAIL(err, KT_EINTERRUPTED, "compiling was given up");
    return status;
}

kt_status kt_compile(kt_compiler *compiler, const kt_compile_request *requests, int n,
    kt_compile_result *results, kt_err *err) {
    kt_arena tmp = {0};
    record **of_request = kt_arena_array(&tmp, (size_t)n + 1, sizeof(record *));
    record **missing = kt_arena_array(&tmp, (size_t)n + 1, sizeof(record *));
    int n_missing = 0;
    kt_compile_progress progress = {.n = n};
    for (int i = 0; i < n; i++) {
        double start = kt_os_now_ms();
        kt_hash id = make_key(compiler, &requests[i], NULL);
        record *one = find_record(compiler, id);
        of_request[i] = one;
        if (one != NULL) {
            progress.n--; // no work of its own
            continue;
        }
        of_request[i] = one = add_record(compiler, id, &requests[i]);
        if (from_pack(compiler, one) || from_cache(compiler, one)) {
            one->ms = kt_os_now_ms() - start;
            tell(compiler, &progress, one);
        } else {
            missing[n_missing++] = one;
        }
    }
    kt_status status = KT_OK;
    if (n_missing > 0) status = compile_records(compiler, missing, n_missing, &progress, err);
    kt_err why;
    kt_status collected = collect(compiler, of_request, n, results, &why);
    if (status == KT_OK && collected != KT_OK) {
        status = collected;
        *err = why;
    }
    if (status != KT_OK) drop_failed(compiler);
    kt_arena_deinit(&tmp);
    return status;
}

kt_status kt_compile_again(kt_compiler *compiler, const kt_compile_request *request,
    kt_compile_result *result, kt_err *err) {
    *result = (kt_compile_result){.log = KT_STR("")};
    kt_hash id = make_key(compiler, request, NULL);
    record *old = find_record(compiler, id);
    record *one = add_record(compiler, id, request); // found before the old one from now on
    kt_compile_progress progress = {.n = 1};
    kt_status status = compile_records(compiler, &one, 1, &progress, err);
    if (status == KT_OK) status = collect(compiler, &one, 1, result, err);
    if (status != KT_OK) {
        drop_failed(compiler);
    } else if (old != NULL) {
        memset(&old->id, 0, sizeof old->id); // its bytes are still lent out
    }
    return status;
}
