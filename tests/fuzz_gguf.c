// Fuzz target: the header of a GGUF file and what is made of it. What is read lies inside the file,
// every list can be walked, the config answers; a tokenizer found in it encodes.
#include "loader/config.h"
#include "loader/gguf.h"
#include "loader/tokenizer.h"
#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "tests/fuzz.h"

#include <string.h>

static void check_stored(const kt_stored *stored, int64_t n, int64_t file_bytes) {
    int64_t end = 0;
    for (int64_t i = 0; i < n; i++) {
        const kt_stored *s = &stored[i];
        int64_t bytes = s->dtype == KT_DTYPE_U8 ? 1 : kt_dtype_bytes(s->dtype);
        KT_ASSERT(s->offset >= end && s->bytes > 0 && s->bytes <= file_bytes - s->offset);
        KT_ASSERT(s->rank >= 1 && s->rank < KT_MAX_RANK && kt_gguf_type_block(s->ggml_type) > 0);
        for (int a = 0; a < s->rank; a++) bytes *= s->shape[a];
        KT_ASSERT(bytes == s->bytes);
        end = s->offset + s->bytes;
    }
}

static size_t walk(const kt_gguf_value *list) {
    kt_gguf_walk items = kt_gguf_items(list);
    kt_gguf_value item;
    kt_str text;
    size_t sum = 0;
    while (kt_gguf_next(&items, &item)) {
        if (kt_gguf_text(&item, &text) && text.n > 0) sum += (unsigned char)text.at[text.n - 1];
        if (item.kind == KT_GGUF_LIST) sum += walk(&item);
    }
    return sum;
}

static void check_keys(kt_arena *arena, const kt_gguf *gguf) {
    const kt_config *config = kt_config_from_gguf(arena, &gguf, 1);
    for (int i = 0; i < gguf->n_keys; i++) {
        const kt_gguf_key *key = &gguf->keys[i];
        kt_value number;
        kt_str text;
        kt_config_ids ids = {0};
        walk(&key->value);
        KT_ASSERT(kt_gguf_find(gguf, key->name) == &key->value);
        kt_gguf_describe(arena, &key->value);
        if (kt_config_text(config, key->name, &text)) KT_ASSERT(key->value.kind == KT_GGUF_TEXT);
        kt_config_integers(config, key->name, arena, &ids);
        bool is = kt_config_number(config, key->name, &number);
        KT_ASSERT(!is || !kt_config_no_number(config, key->name));
    }
}

static void check_tokenizer(const uint8_t *data, size_t size) {
    kt_tokenizer *tokenizer = NULL;
    kt_arena arena = {0};
    kt_err err = {0};
    kt_ids ids = {0};
    const char *path =
        kt_arena_printf(&arena, "%s/kotaro-fuzz-%d.gguf", kt_os_temp_folder(&arena), kt_os_pid());
    KT_ASSERT(kt_os_write_atomic(path, data, size, &err) == KT_OK);
    kt_status status = kt_tokenizer_open(path, &tokenizer, &err);
    KT_ASSERT(kt_os_remove(path));
    if (status == KT_OK &&
        kt_tokenizer_encode(tokenizer, &arena, KT_STR("a b 12 <x>"), true, &ids, &err) == KT_OK) {
        for (size_t i = 0; i < ids.n; i++)
            KT_ASSERT(ids.at[i] >= 0 && ids.at[i] < kt_tokenizer_size(tokenizer));
    }
    kt_tokenizer_close(tokenizer);
    kt_arena_deinit(&arena);
}

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kt_log_set_level(KT_LOG_QUIET);
    kt_arena arena = {0};
    kt_gguf_header header;
    int64_t file_bytes = (int64_t)size + 4096; // data that is not here
    kt_err err = {0};
    kt_str bytes = {(const char *)data, size};
    if (kt_gguf_parse(&arena, bytes, file_bytes, "fuzz", &header, &err) == KT_OK) {
        KT_ASSERT(!header.more);
        check_stored(header.stored, header.n, file_bytes);
        check_keys(&arena, &header.gguf);
        if (kt_gguf_find(&header.gguf, KT_STR("tokenizer.ggml.merges")))
            check_tokenizer(data, size);
    } else {
        KT_ASSERT(header.more || strncmp(err.text, "fuzz: ", 6) == 0);
    }
    kt_arena_deinit(&arena);
    return 0;
}
