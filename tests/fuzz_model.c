// Any bytes as one file of a model folder: a model, or errors that can be printed. The first byte
// chooses the file; the others are those of a small fabricated model. Of model.safetensors the next
// four bytes say how much data follows, the rest is its header. Seeds: tests/data/fuzz/model. Run
// it at the top of the tree.
#include "loader/model.h"
#include "runtime/base/os.h"
#include "tests/fabricate.h"
#include "tests/fuzz.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { N_FILES = 5, SHARDS = 4 };

static const char *const names[N_FILES] = {"config.json", "preprocessor_config.json",
    "generation_config.json", "model.safetensors.index.json", "model.safetensors"};

typedef struct shared {
    kt_arena arena;
    kt_registry *registry;
    const char *folder;
    kt_str usual[N_FILES]; // NULL at: the folder has none
    int changed;           // the file that the last run wrote; -1: none
} shared;

static void write_file(const shared *s, int which, kt_str bytes) {
    kt_arena arena = {0};
    kt_err err = {0};
    const char *path = kt_path_join(&arena, s->folder, names[which]);
    if (bytes.at)
        KT_ASSERT(kt_os_write_atomic(path, bytes.at, bytes.n, &err) == KT_OK);
    else
        kt_os_remove(path);
    kt_arena_deinit(&arena);
}

static void remove_folder(void);

static shared *open_shared(void) {
    static shared s;
    kt_diag diag;
    kt_err err = {0};
    if (s.registry) return &s;
    kt_diag_init(&diag, &s.arena);
    s.registry = kt_registry_open(&s.arena, "ops", NULL, 0, &diag);
    KT_ASSERT(s.registry);
    uint64_t id;
    kt_os_random(&id, sizeof id);
    s.folder =
        kt_arena_printf(&s.arena, "%s/kotaro-fuzz-%016" PRIx64, kt_os_temp_folder(&s.arena), id);
    KT_ASSERT(kt_os_private_folder(s.folder));
    fake_model model = fake_vision;
    model.layers = model.vis_layers = 1;
    fabricate(s.folder, &model);
    for (int i = 0; i < N_FILES; i++) {
        const char *path = kt_path_join(&s.arena, s.folder, names[i]);
        if (kt_file_read(&s.arena, path, 1 << 26, &s.usual[i], &err) != KT_OK)
            s.usual[i] = (kt_str){NULL, 0};
    }
    s.changed = -1;
    (void)atexit(remove_folder);
    return &s;
}

static void remove_folder(void) {
    shared *s = open_shared();
    for (int i = 0; i < N_FILES; i++) write_file(s, i, (kt_str){NULL, 0});
    kt_os_remove(s->folder);
}

// Eight bytes of length, the header, zeros.
static kt_str make_shard(kt_arena *arena, const uint8_t *data, size_t size) {
    uint32_t zeros = 0;
    memcpy(&zeros, data, size < sizeof zeros ? size : sizeof zeros);
    zeros %= 1 << 16;
    size_t n = size < sizeof zeros ? 0 : size - sizeof zeros;
    char *out = kt_arena_alloc(arena, 8 + n + zeros + 1);
    for (int i = 0; i < 8; i++) out[i] = (char)((uint64_t)n >> (8 * i));
    if (n > 0) memcpy(out + 8, data + sizeof zeros, n);
    return (kt_str){out, 8 + n + zeros};
}

static void put_input(shared *s, kt_arena *arena, const uint8_t *data, size_t size) {
    int which = data[0] % N_FILES;
    kt_str bytes = {(const char *)data + 1, size - 1};
    if (which == SHARDS) bytes = make_shard(arena, data + 1, size - 1);
    if (s->changed >= 0 && s->changed != which) write_file(s, s->changed, s->usual[s->changed]);
    write_file(s, which, bytes);
    s->changed = which;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const files[] = {"pipelines/minicpm_v.model.yaml"};
    if (size == 0) return 0;
    shared *s = open_shared();
    kt_arena arena = {0};
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    kt_err err = {0};
    kt_model model = {0};
    kt_buf out = {0};
    put_input(s, &arena, data, size);
    kt_status status = kt_model_open(&arena, s->registry, files, 1, s->folder, &model, &diag, &err);
    if (status == KT_OK) {
        for (int i = 0; i < model.n_weights; i++)
            KT_ASSERT(diag.n_errors > 0 || model.weights[i].parts);
        kt_model_close(&model);
    } else {
        KT_ASSERT(err.text[0] != '\0');
    }
    kt_diag_print(&diag, &out);
    kt_buf_deinit(&out);
    kt_arena_deinit(&arena);
    return 0;
}
