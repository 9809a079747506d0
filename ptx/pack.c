#include "ptx/pack.h"

#include "runtime/base/file.h"
#include "runtime/base/log.h"

#include <stdlib.h>
#include <string.h>

// A pack file: magic and version (8 bytes), number of items (4), 0 (4), the tool's version (32,
// 0-padded), SHA-256 of the index (32); then the index, 80 bytes an item in order of keys: key
// (32), offset (8), size (8), SHA-256 of the payload (32); then the payloads (kt_cache_encode).
// Numbers little-endian.
enum {
    FORMAT_VERSION = 1,
    HEADER_BYTES = 80,
    ROW_BYTES = 80,
    MAX_ITEMS = 100000,
    MAX_PAYLOAD = 64 << 20,
};

static const char magic[4] = {'K', 'T', 'P', '1'};

// Architectures that packs are made for, and that code may come from for a later minor version. 87
// is a board of its own.
static const int archs[] = {121, 120, 110, 103, 100, 90, 89, 88, 86, 80};

typedef struct pack_file {
    struct pack_file *next;
    const char *path;
    kt_os_file *file;
    int n;
    unsigned char *index; // n rows, in the pack's arena
} pack_file;

struct kt_pack {
    kt_arena arena;
    pack_file *files;
};

static void add_number(kt_buf *buf, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)(value >> 8 * i);
        kt_buf_add(buf, &byte, 1);
    }
}

static uint64_t get_number(const unsigned char *p, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)p[i] << 8 * i;
    return value;
}

static int by_key(const void *a, const void *b) {
    const kt_pack_item *const *x = a, *const *y = b;
    return memcmp((*x)->key.bytes, (*y)->key.bytes, sizeof(kt_hash));
}

kt_status kt_pack_write(
    const char *path, const char *tool, const kt_pack_item *items, int n, kt_err *err) {
    kt_arena tmp = {0};
    const kt_pack_item **sorted = KT_NEW_ARRAY(&tmp, const kt_pack_item *, n + 1);
    int n_kept = 0;
    for (int i = 0; i < n; i++) sorted[i] = &items[i];
    qsort(sorted, (size_t)n, sizeof(const kt_pack_item *), by_key);
    for (int i = 0; i < n; i++)
        if (n_kept == 0 || by_key(&sorted[n_kept - 1], &sorted[i]) != 0)
            sorted[n_kept++] = sorted[i];
    kt_buf index = {0}, bodies = {0}, file = {0};
    uint64_t start = HEADER_BYTES + (uint64_t)n_kept * ROW_BYTES;
    for (int i = 0; i < n_kept; i++) {
        kt_str payload = kt_cache_encode(&tmp, &sorted[i]->entry);
        kt_hash hash = kt_hash_bytes(payload.at, payload.n);
        kt_buf_add(&index, sorted[i]->key.bytes, sizeof(kt_hash));
        add_number(&index, start + bodies.n, 8);
        add_number(&index, payload.n, 8);
        kt_buf_add(&index, hash.bytes, sizeof hash.bytes);
        kt_buf_add(&bodies, payload.at, payload.n);
    }
    char text[32] = {0};
    (void)snprintf(text, sizeof text, "%s", tool);
    kt_hash hash = kt_hash_bytes(index.at, index.n);
    kt_buf_add(&file, magic, sizeof magic);
    add_number(&file, FORMAT_VERSION, 4);
    add_number(&file, (uint64_t)n_kept, 8);
    kt_buf_add(&file, text, sizeof text);
    kt_buf_add(&file, hash.bytes, sizeof hash.bytes);
    kt_buf_add(&file, index.at, index.n);
    kt_buf_add(&file, bodies.at, bodies.n);
    kt_status status = kt_os_write_atomic(path, file.at, file.n, err);
    kt_buf_deinit(&index);
    kt_buf_deinit(&bodies);
    kt_buf_deinit(&file);
    kt_arena_deinit(&tmp);
    return status;
}

static kt_status damaged(const char *path, const char *what, kt_err *err) {
    return KT_FAIL(err, KT_EFORMAT, "'%s' is not a usable pack of kernels: %s", path, what);
}

static kt_status read_index(kt_pack *pack, pack_file *one, kt_err *err) {
    unsigned char head[HEADER_BYTES];
    int64_t size = kt_os_size(one->file);
    if (size < HEADER_BYTES) return damaged(one->path, "too short", err);
    KT_TRY(kt_os_read_at(one->file, 0, head, sizeof head, err));
    if (memcmp(head, magic, sizeof magic) != 0 || get_number(head + 4, 4) != FORMAT_VERSION)
        return damaged(one->path, "another format", err);
    uint64_t n = get_number(head + 8, 8);
    if (n > MAX_ITEMS || HEADER_BYTES + n * ROW_BYTES > (uint64_t)size)
        return damaged(one->path, "its index is cut short", err);
    one->n = (int)n;
    one->index = kt_arena_alloc(&pack->arena, (size_t)n * ROW_BYTES);
    if (n > 0)
        KT_TRY(kt_os_read_at(one->file, HEADER_BYTES, one->index, (size_t)n * ROW_BYTES, err));
    kt_hash hash = kt_hash_bytes(one->index, (size_t)n * ROW_BYTES);
    if (memcmp(hash.bytes, head + 48, sizeof hash.bytes) != 0)
        return damaged(one->path, "its index is damaged", err);
    return KT_OK;
}

static kt_status open_file(kt_pack *pack, const char *path, kt_err *err) {
    pack_file *one = KT_NEW(&pack->arena, pack_file);
    one->path = kt_arena_copy(&pack->arena, path, strlen(path));
    KT_TRY(kt_os_open(path, &one->file, err));
    one->next = pack->files;
    pack->files = one;
    return read_index(pack, one, err);
}

static kt_status open_all(kt_pack *pack, const char *path, kt_err *err) {
    if (kt_os_stat(path).kind != KT_PATH_FOLDER) return open_file(pack, path, err);
    int n = 0;
    const kt_str *names = kt_os_list(&pack->arena, path, &n);
    if (n < 0) return KT_FAIL(err, KT_EFILE, "'%s' cannot be read", path);
    for (int i = n - 1; i >= 0; i--) { // the list is built from its end
        if (!kt_str_ends(names[i], KT_STR(".ktpack"))) continue;
        const char *name = kt_str_z(&pack->arena, names[i]);
        KT_TRY(open_file(pack, kt_path_join(&pack->arena, path, name), err));
    }
    return KT_OK;
}

kt_status kt_pack_open(const char *path, kt_pack **out, kt_err *err) {
    *out = NULL;
    kt_pack *pack = calloc(1, sizeof *pack);
    if (pack == NULL) kt_out_of_memory(sizeof *pack);
    kt_status status = open_all(pack, path, err);
    if (status != KT_OK) {
        kt_pack_close(pack);
        return status;
    }
    *out = pack;
    return KT_OK;
}

void kt_pack_close(kt_pack *pack) {
    if (pack == NULL) return;
    for (pack_file *one = pack->files; one != NULL; one = one->next) kt_os_close(one->file);
    kt_arena_deinit(&pack->arena);
    free(pack);
}

int kt_pack_count(const kt_pack *pack) {
    int n = 0;
    for (const pack_file *one = pack->files; one != NULL; one = one->next) n += one->n;
    return n;
}

static kt_status read_item(
    const pack_file *one, int row, kt_arena *arena, kt_cache_entry *out, kt_err *err) {
    const unsigned char *p = one->index + (size_t)row * ROW_BYTES;
    uint64_t at = get_number(p + 32, 8), size = get_number(p + 40, 8);
    uint64_t all = (uint64_t)kt_os_size(one->file);
    if (size > MAX_PAYLOAD || at > all || size > all - at)
        return damaged(one->path, "an item outside the file", err);
    char *payload = kt_arena_alloc(arena, (size_t)size);
    KT_TRY(kt_os_read_at(one->file, (int64_t)at, payload, (size_t)size, err));
    kt_hash hash = kt_hash_bytes(payload, (size_t)size);
    if (memcmp(hash.bytes, p + 48, sizeof hash.bytes) != 0)
        return damaged(one->path, "an item is damaged", err);
    return kt_cache_decode(arena, (kt_str){payload, (size_t)size}, out, err);
}

static int find_row(const pack_file *one, kt_hash key) {
    int low = 0, high = one->n;
    while (low < high) {
        int middle = low + (high - low) / 2;
        int order = memcmp(one->index + (size_t)middle * ROW_BYTES, key.bytes, sizeof key.bytes);
        if (order == 0) return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

static bool find_key(
    const kt_pack *pack, kt_hash key, int arch, kt_arena *arena, kt_cache_entry *out) {
    for (const pack_file *one = pack->files; one != NULL; one = one->next) {
        int row = find_row(one, key);
        if (row < 0) continue;
        kt_err err;
        kt_arena_mark mark = kt_arena_get_mark(arena);
        kt_status status = read_item(one, row, arena, out, &err);
        if (status == KT_OK && out->info.sm == arch) return true;
        kt_log_warn("'%s': a kernel is not used: %s", one->path,
            status == KT_OK ? "made for another architecture" : err.text);
        kt_arena_reset(arena, mark);
        *out = (kt_cache_entry){0};
    }
    return false;
}

bool kt_pack_find(const kt_pack *pack, kt_str source, const kt_device_header *headers,
    const kt_options *options, kt_arena *arena, kt_cache_entry *out) {
    *out = (kt_cache_entry){0};
    int want = options->arch;
    // The exact architecture, then lower minors; -1 stands for the first.
    for (int i = -1; i < (int)(sizeof archs / sizeof archs[0]); i++) {
        int arch = i < 0 ? want : archs[i];
        bool lower = arch < want && kt_cubin_runs_on(arch, want);
        if (i >= 0 && !lower) continue;
        kt_arena tmp = {0};
        kt_cache_inputs inputs = {.source = source, .headers = headers};
        inputs.options = kt_options_list(options, &tmp, arch, &inputs.n_options);
        kt_hash key = kt_cache_key(&inputs);
        kt_arena_deinit(&tmp);
        if (find_key(pack, key, arch, arena, out)) return true;
    }
    return false;
}
