#include "ptx/cache.h"

#include "runtime/base/file.h"
#include "runtime/base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// An entry file: magic and version (8 bytes), key (32), payload's length (8), payload's SHA-256
// (32), payload. The payload: records of {u32 tag, u32 size, bytes}, one per kernel, the last one
// the cubin. Numbers little-endian.
enum {
    FORMAT_VERSION = 1,
    HEADER_BYTES = 80,
    MAX_ENTRY_BYTES = 64 << 20,
    TAG_KERNEL = 1,
    TAG_CUBIN = 2,
    KERNEL_NUMBERS = 8, // before the parameters: see encode_kernel
    MAX_FILES = 2000,
    HOUR_S = 3600,
    DAY_S = 24 * 3600,
    N_RETRIES = 2, // of an open that another process stands in the way of
};

static const int64_t max_cache_bytes = 256 << 20;
static const char magic[4] = {'K', 'T', 'C', '1'};

struct kt_cache {
    kt_arena arena;
    const char *folder; // NULL: off
    const char *why_off;
    bool evicted; // once per process
    bool warned;  // that a kernel could not be written
};

// ---- key

static int by_name(const void *a, const void *b) {
    const kt_device_header *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static void hash_headers(kt_hasher *hasher, const kt_device_header *headers) {
    size_t n = 0;
    while (headers != NULL && headers[n].name != NULL) n++;
    kt_arena tmp = {0};
    const kt_device_header **sorted = KT_NEW_ARRAY(&tmp, const kt_device_header *, n + 1);
    for (size_t i = 0; i < n; i++) sorted[i] = &headers[i];
    qsort(sorted, n, sizeof(const kt_device_header *), by_name);
    for (size_t i = 0; i < n; i++) {
        kt_hasher_field(hasher, sorted[i]->name, strlen(sorted[i]->name));
        kt_hasher_field(hasher, sorted[i]->text, sorted[i]->size);
    }
    kt_arena_deinit(&tmp);
}

static void hash_number(kt_hasher *hasher, int64_t number) {
    char text[24];
    int n = snprintf(text, sizeof text, "%" PRId64, number);
    kt_hasher_field(hasher, text, (size_t)n);
}

kt_hash kt_cache_key(const kt_cache_inputs *inputs) {
    kt_hasher *hasher = kt_hasher_open();
    kt_hasher_field(hasher, inputs->tool == NULL ? "KTP1" : "KTC1", 4);
    hash_number(hasher, KT_OP_ABI);
    kt_hasher_field(hasher, inputs->source.at, inputs->source.n);
    hash_headers(hasher, inputs->headers);
    for (int i = 0; i < inputs->n_options; i++)
        kt_hasher_field(hasher, inputs->options[i], strlen(inputs->options[i]));
    if (inputs->tool != NULL) {
        hash_number(hasher, inputs->tool->major);
        hash_number(hasher, inputs->tool->minor);
        hash_number(hasher, inputs->tool->library_bytes);
        hash_number(hasher, inputs->tool->builtins_bytes);
    }
    return kt_hasher_close(hasher);
}

// ---- payload

static void put32(unsigned char *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (unsigned char)(value >> 8 * i);
}

static uint32_t get32(const unsigned char *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void add32(kt_buf *buf, uint32_t value) {
    unsigned char bytes[4];
    put32(bytes, value);
    kt_buf_add(buf, bytes, sizeof bytes);
}

static void encode_kernel(kt_buf *out, const kt_cubin_kernel *k) {
    size_t name = strlen(k->name);
    add32(out, TAG_KERNEL);
    add32(out, (uint32_t)(4 * (KERNEL_NUMBERS + 2 * k->n_params) + (int)name));
    add32(out, (uint32_t)k->registers);
    add32(out, k->shared_bytes);
    add32(out, k->frame_bytes);
    add32(out, k->stack_bytes);
    add32(out, (uint32_t)k->max_threads);
    add32(out, (uint32_t)k->barriers);
    add32(out, (uint32_t)k->spill_bytes);
    add32(out, (uint32_t)k->n_params);
    for (int i = 0; i < k->n_params; i++) {
        add32(out, k->params[i].offset);
        add32(out, k->params[i].size);
    }
    kt_buf_add(out, k->name, name);
}

kt_str kt_cache_encode(kt_arena *arena, const kt_cache_entry *entry) {
    kt_buf out = {0};
    for (int i = 0; i < entry->info.n_kernels; i++) encode_kernel(&out, &entry->info.kernels[i]);
    add32(&out, TAG_CUBIN);
    add32(&out, (uint32_t)entry->cubin.n);
    kt_buf_add(&out, entry->cubin.at, entry->cubin.n);
    kt_str payload = {kt_arena_copy(arena, out.at, out.n), out.n};
    kt_buf_deinit(&out);
    return payload;
}

// Takes what only the record knows, the spill bytes, and compares the rest with the cubin.
static kt_status decode_kernel(kt_str record, kt_cubin_kernel *kernels, int n, kt_err *err) {
    const unsigned char *p = (const unsigned char *)record.at;
    if (record.n < (size_t)4 * KERNEL_NUMBERS)
        return KT_FAIL(err, KT_EFORMAT, "a kernel cut short");
    uint32_t n_params = get32(p + 28);
    size_t head = 4 * (KERNEL_NUMBERS + 2 * (size_t)n_params);
    if (n_params > KT_CUBIN_MAX_PARAMS || record.n < head)
        return KT_FAIL(err, KT_EFORMAT, "a kernel cut short");
    kt_str name = {record.at + head, record.n - head};
    for (int i = 0; i < n; i++) {
        if (!kt_str_is(name, kernels[i].name)) continue;
        if (get32(p) != (uint32_t)kernels[i].registers || n_params != (uint32_t)kernels[i].n_params)
            break;
        kernels[i].spill_bytes = (int32_t)get32(p + 24);
        return KT_OK;
    }
    return KT_FAIL(err, KT_EFORMAT, "notes that do not belong to its cubin");
}

kt_status kt_cache_decode(kt_arena *arena, kt_str payload, kt_cache_entry *out, kt_err *err) {
    *out = (kt_cache_entry){0};
    size_t at = 0, notes = 0;
    while (payload.n - at >= 8) { // first find the cubin, the last record
        const unsigned char *p = (const unsigned char *)payload.at + at;
        uint32_t tag = get32(p), size = get32(p + 4);
        if (size > payload.n - at - 8) return KT_FAIL(err, KT_EFORMAT, "a record cut short");
        if (tag == TAG_CUBIN) {
            out->cubin = kt_str_slice(payload, at + 8, at + 8 + size);
            notes = at;
        }
        at += 8 + (size_t)size;
        if (tag == TAG_CUBIN) break;
    }
    if (out->cubin.at == NULL || at != payload.n)
        return KT_FAIL(err, KT_EFORMAT, "an entry without a cubin at its end");
    KT_TRY(kt_cubin_read(arena, out->cubin.at, out->cubin.n, &out->info, err));
    kt_cubin_kernel *kernels = kt_arena_array(arena, (size_t)out->info.n_kernels, sizeof *kernels);
    memcpy(kernels, out->info.kernels, (size_t)out->info.n_kernels * sizeof *kernels);
    for (at = 0; at < notes;) {
        const unsigned char *p = (const unsigned char *)payload.at + at;
        uint32_t tag = get32(p), size = get32(p + 4);
        kt_str record = kt_str_slice(payload, at + 8, at + 8 + size);
        if (tag == TAG_KERNEL) KT_TRY(decode_kernel(record, kernels, out->info.n_kernels, err));
        at += 8 + (size_t)size;
    }
    out->info.kernels = kernels;
    return KT_OK;
}

// ---- folder

// Every level below the user's cache folder has to be private: whoever may rename one level chooses
// what is below it.
static void choose_folder(kt_cache *cache, const char *asked) {
    const char *base = asked != NULL ? asked : kt_os_cache_folder(&cache->arena);
    if (base == NULL) {
        cache->why_off = "there is no home folder to keep it in";
        return;
    }
    const char *const levels[] = {"", "cubin", "cubin/v1"};
    const char *folder = base;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        folder = i == 0 ? base : kt_path_join(&cache->arena, base, levels[i]);
        if (kt_os_private_folder(folder)) continue;
        cache->why_off = kt_arena_printf(&cache->arena,
            "'%s' cannot be made, or others than you own it or may write to it", folder);
        return;
    }
    cache->folder = kt_arena_copy(&cache->arena, folder, strlen(folder));
}

kt_cache *kt_cache_open(const char *folder) {
    kt_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) kt_out_of_memory(sizeof *cache);
    choose_folder(cache, folder);
    return cache;
}

void kt_cache_close(kt_cache *cache) {
    if (cache == NULL) return;
    kt_arena_deinit(&cache->arena);
    free(cache);
}

const char *kt_cache_folder(const kt_cache *cache) {
    return cache->folder;
}

const char *kt_cache_why_off(const kt_cache *cache) {
    return cache->folder == NULL ? cache->why_off : NULL;
}

// ---- entries

static char *entry_path(const kt_cache *cache, kt_arena *arena, kt_hash key) {
    char hex[65];
    kt_hash_hex(key, hex);
    return kt_arena_printf(arena, "%s/%s.ktc", cache->folder, hex);
}

static kt_status read_whole(kt_arena *arena, const char *path, kt_str *out, kt_err *err) {
    kt_status status = kt_file_read(arena, path, MAX_ENTRY_BYTES, out, err);
    // On Windows another process may hold the file for a moment.
    for (int i = 0; i < N_RETRIES && status == KT_EFILE; i++) {
        if (kt_os_stat(path).kind != KT_PATH_FILE) break;
        kt_os_sleep_us(10000);
        status = kt_file_read(arena, path, MAX_ENTRY_BYTES, out, err);
    }
    return status;
}

// The checks of a file, cheapest first. `key` is what its name says.
static kt_status check_file(
    kt_arena *arena, kt_str file, kt_hash key, kt_cache_entry *out, kt_err *err) {
    const unsigned char *p = (const unsigned char *)file.at;
    if (file.n < HEADER_BYTES) return KT_FAIL(err, KT_EFORMAT, "too short");
    if (memcmp(p, magic, sizeof magic) != 0 || get32(p + 4) != FORMAT_VERSION)
        return KT_FAIL(err, KT_EFORMAT, "another format");
    if (memcmp(p + 8, key.bytes, sizeof key.bytes) != 0)
        return KT_FAIL(err, KT_EFORMAT, "the entry of another key");
    uint64_t size = get32(p + 40) | (uint64_t)get32(p + 44) << 32;
    if (size != file.n - HEADER_BYTES) return KT_FAIL(err, KT_EFORMAT, "another length");
    kt_str payload = kt_str_slice(file, HEADER_BYTES, file.n);
    kt_hash hash = kt_hash_bytes(payload.at, payload.n);
    if (memcmp(p + 48, hash.bytes, sizeof hash.bytes) != 0)
        return KT_FAIL(err, KT_EFORMAT, "damaged");
    return kt_cache_decode(arena, payload, out, err);
}

bool kt_cache_get(kt_cache *cache, kt_hash key, int sm, kt_arena *arena, kt_cache_entry *out) {
    *out = (kt_cache_entry){0};
    if (cache->folder == NULL) return false;
    kt_arena tmp = {0};
    const char *path = entry_path(cache, &tmp, key);
    kt_path_info info = kt_os_stat(path);
    bool hit = false;
    if (info.kind == KT_PATH_FILE) {
        kt_err err;
        kt_str file;
        kt_arena_mark mark = kt_arena_get_mark(arena);
        kt_status status = read_whole(arena, path, &file, &err);
        if (status == KT_OK) status = check_file(arena, file, key, out, &err);
        hit = status == KT_OK && out->info.sm == sm;
        if (!hit) {
            kt_log_debug("'%s' is not used: %s", path,
                status == KT_OK ? "made for another architecture" : err.text);
            kt_arena_reset(arena, mark);
            *out = (kt_cache_entry){0};
        } else if (info.modified_s < (int64_t)time(NULL) - DAY_S) {
            (void)kt_os_touch(path); // a sign of use, for eviction
        }
    }
    kt_arena_deinit(&tmp);
    return hit;
}

// A full disk fails every kernel alike.
static void warn_once(kt_cache *cache, const kt_err *err) {
    if (cache->warned)
        kt_log_debug("a compiled kernel is not kept: %s", err->text);
    else
        kt_log_warn("compiled kernels are not kept: %s", err->text);
    cache->warned = true;
}

void kt_cache_put(kt_cache *cache, kt_hash key, const kt_cache_entry *entry) {
    if (cache->folder == NULL) return;
    kt_arena tmp = {0};
    kt_str payload = kt_cache_encode(&tmp, entry);
    kt_hash hash = kt_hash_bytes(payload.at, payload.n);
    kt_buf file = {0};
    kt_buf_add(&file, magic, sizeof magic);
    add32(&file, FORMAT_VERSION);
    kt_buf_add(&file, key.bytes, sizeof key.bytes);
    add32(&file, (uint32_t)payload.n);
    add32(&file, (uint32_t)((uint64_t)payload.n >> 32));
    kt_buf_add(&file, hash.bytes, sizeof hash.bytes);
    kt_buf_add(&file, payload.at, payload.n);
    kt_err err;
    const char *path = entry_path(cache, &tmp, key);
    if (file.n <= MAX_ENTRY_BYTES && kt_os_write_atomic(path, file.at, file.n, &err) != KT_OK)
        warn_once(cache, &err);
    kt_buf_deinit(&file);
    kt_arena_deinit(&tmp);
    if (cache->evicted) return;
    cache->evicted = true;
    (void)kt_cache_evict(cache, MAX_FILES, max_cache_bytes, false);
}

// ---- the compiler used last

bool kt_cache_get_tool(kt_cache *cache, kt_nvrtc_id *out) {
    *out = (kt_nvrtc_id){0};
    if (cache->folder == NULL) return false;
    kt_arena tmp = {0};
    kt_str text;
    kt_err err;
    int64_t numbers[4] = {0};
    int n = 0;
    if (kt_file_read(&tmp, kt_path_join(&tmp, cache->folder, "tool"), 256, &text, &err) == KT_OK) {
        for (kt_str rest = kt_str_trim(text); n < 4; n++) {
            ptrdiff_t space = kt_str_find(rest, ' ');
            kt_str word = space < 0 ? rest : kt_str_slice(rest, 0, (size_t)space);
            if (!kt_str_to_i64(word, &numbers[n])) break;
            rest = space < 0 ? KT_STR("") : kt_str_slice(rest, (size_t)space + 1, rest.n);
        }
    }
    kt_arena_deinit(&tmp);
    if (n != 4 || numbers[0] < 11 || numbers[0] > 99 || numbers[1] < 0 || numbers[1] > 99)
        return false;
    *out = (kt_nvrtc_id){(int)numbers[0], (int)numbers[1], numbers[2], numbers[3]};
    return true;
}

void kt_cache_put_tool(kt_cache *cache, const kt_nvrtc_id *tool) {
    kt_nvrtc_id old;
    bool same = kt_cache_get_tool(cache, &old) && old.major == tool->major &&
                old.minor == tool->minor && old.library_bytes == tool->library_bytes &&
                old.builtins_bytes == tool->builtins_bytes;
    if (cache->folder == NULL || same) return;
    kt_arena tmp = {0};
    kt_err err;
    const char *text = kt_arena_printf(&tmp, "%d %d %" PRId64 " %" PRId64, tool->major, tool->minor,
        tool->library_bytes, tool->builtins_bytes);
    const char *path = kt_path_join(&tmp, cache->folder, "tool");
    if (kt_os_write_atomic(path, text, strlen(text), &err) != KT_OK) kt_log_debug("%s", err.text);
    kt_arena_deinit(&tmp);
}

// ---- the whole folder

typedef struct file_row {
    const char *path;
    kt_str name;
    int64_t bytes, modified_s;
} file_row;

// Every file that belongs to the cache. *n_other counts what was left by writers that did not
// finish.
static file_row *list_entries(const kt_cache *cache, kt_arena *arena, int *n, int *n_other) {
    int n_names = 0;
    *n = *n_other = 0;
    kt_str *names = kt_os_list(arena, cache->folder, &n_names);
    if (n_names <= 0) return NULL;
    file_row *rows = kt_arena_array(arena, (size_t)n_names, sizeof *rows);
    for (int i = 0; i < n_names; i++) {
        const char *path = kt_path_join(arena, cache->folder, kt_str_z(arena, names[i]));
        if (kt_str_ends(names[i], KT_STR(".tmp"))) ++*n_other;
        if (!kt_str_ends(names[i], KT_STR(".ktc"))) continue;
        kt_path_info info = kt_os_stat(path);
        if (info.kind == KT_PATH_FILE)
            rows[(*n)++] = (file_row){path, names[i], info.size_bytes, info.modified_s};
    }
    return rows;
}

static kt_cache_info count(const file_row *rows, int n, int n_other) {
    kt_cache_info info = {.n_files = n, .n_other = n_other};
    for (int i = 0; i < n; i++) {
        info.bytes += rows[i].bytes;
        if (info.oldest_s == 0 || rows[i].modified_s < info.oldest_s)
            info.oldest_s = rows[i].modified_s;
    }
    return info;
}

kt_cache_info kt_cache_get_info(kt_cache *cache) {
    if (cache->folder == NULL) return (kt_cache_info){0};
    kt_arena tmp = {0};
    int n, n_other;
    const file_row *rows = list_entries(cache, &tmp, &n, &n_other);
    kt_cache_info info = count(rows, n, n_other);
    kt_arena_deinit(&tmp);
    return info;
}

static bool key_from_name(kt_str name, kt_hash *out) {
    if (name.n != 64 + 4) return false;
    for (size_t i = 0; i < 64; i++) {
        char c = name.at[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
        unsigned digit = (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
        uint8_t *byte = &out->bytes[i / 2];
        *byte = (uint8_t)(i % 2 == 0 ? digit << 4 : *byte | digit);
    }
    return true;
}

kt_cache_info kt_cache_verify(kt_cache *cache, bool remove_bad,
    void (*each)(void *ctx, const char *file, const char *why), void *ctx) {
    if (cache->folder == NULL) return (kt_cache_info){0};
    kt_arena tmp = {0};
    int n, n_other;
    const file_row *rows = list_entries(cache, &tmp, &n, &n_other);
    kt_cache_info info = count(rows, n, n_other);
    for (int i = 0; i < n; i++) {
        kt_arena one = {0};
        kt_err err;
        kt_str file;
        kt_hash key;
        kt_cache_entry entry;
        kt_status status = KT_OK;
        if (!key_from_name(rows[i].name, &key))
            status = KT_FAIL(&err, KT_EFORMAT, "not the name of an entry");
        if (status == KT_OK) status = read_whole(&one, rows[i].path, &file, &err);
        if (status == KT_OK) status = check_file(&one, file, key, &entry, &err);
        kt_arena_deinit(&one);
        if (status == KT_OK) continue;
        info.n_bad++;
        if (each != NULL) each(ctx, rows[i].path, err.text);
        if (remove_bad) (void)kt_os_remove(rows[i].path);
    }
    kt_arena_deinit(&tmp);
    return info;
}

int kt_cache_clear(kt_cache *cache) {
    if (cache->folder == NULL) return 0;
    kt_arena tmp = {0};
    int n_names = 0, n_removed = 0;
    const kt_str *names = kt_os_list(&tmp, cache->folder, &n_names);
    for (int i = 0; i < n_names; i++) {
        bool entry = kt_str_ends(names[i], KT_STR(".ktc"));
        bool ours = entry || kt_str_ends(names[i], KT_STR(".tmp")) || kt_str_is(names[i], "tool");
        if (ours && kt_os_remove(kt_path_join(&tmp, cache->folder, kt_str_z(&tmp, names[i]))))
            n_removed += entry;
    }
    kt_arena_deinit(&tmp);
    return n_removed;
}

static int oldest_first(const void *a, const void *b) {
    const file_row *x = a, *y = b;
    if (x->modified_s != y->modified_s) return x->modified_s < y->modified_s ? -1 : 1;
    return kt_str_cmp(x->name, y->name);
}

// Writers that did not finish a day ago never will.
static void sweep(const kt_cache *cache, kt_arena *tmp) {
    int n = 0;
    const kt_str *names = kt_os_list(tmp, cache->folder, &n);
    for (int i = 0; i < n; i++) {
        if (!kt_str_ends(names[i], KT_STR(".tmp"))) continue;
        const char *path = kt_path_join(tmp, cache->folder, kt_str_z(tmp, names[i]));
        if (kt_os_stat(path).modified_s < (int64_t)time(NULL) - DAY_S) (void)kt_os_remove(path);
    }
}

int kt_cache_evict(kt_cache *cache, int max_files, int64_t max_bytes, bool now) {
    if (cache->folder == NULL) return 0;
    kt_arena tmp = {0};
    sweep(cache, &tmp);
    int n, n_other, n_removed = 0;
    file_row *rows = list_entries(cache, &tmp, &n, &n_other);
    kt_cache_info info = count(rows, n, n_other);
    if (n > 0) qsort(rows, (size_t)n, sizeof *rows, oldest_first);
    for (int i = 0; i < n && (info.n_files > max_files || info.bytes > max_bytes); i++) {
        if (!now && rows[i].modified_s > (int64_t)time(NULL) - HOUR_S) break;
        if (!kt_os_remove(rows[i].path)) continue; // counted as freed only when it is
        info.n_files--;
        info.bytes -= rows[i].bytes;
        n_removed++;
    }
    kt_arena_deinit(&tmp);
    return n_removed;
}
