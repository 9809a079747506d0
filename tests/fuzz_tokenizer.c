// The first byte chooses: the rest is a tokenizer.json, or a text for the small tokenizer (run it
// beside tests/). A text that is encoded must come back, and a user's zone must never yield a
// special token.
#include "loader/detokenizer.h"
#include "tests/fuzz.h"

#include <string.h>

static void fuzz_file(kt_str json) {
    kt_tokenizer *tokenizer = NULL;
    kt_err err = {0};
    if (kt_tokenizer_parse(json, "fuzz", &tokenizer, &err) != KT_OK) {
        KT_ASSERT(strncmp(err.text, "fuzz", 4) == 0);
        return;
    }
    kt_arena arena = {0};
    kt_ids ids = {0};
    kt_str text = KT_STR("ab a<b> \n\xE3\x81\x8B\xE3\x82\x99 1 ab");
    if (kt_tokenizer_encode(tokenizer, &arena, text, true, &ids, &err) == KT_OK) {
        for (size_t i = 0; i < ids.n; i++)
            KT_ASSERT(ids.at[i] >= 0 && ids.at[i] < kt_tokenizer_size(tokenizer));
    }
    kt_arena_deinit(&arena);
    kt_tokenizer_close(tokenizer);
}

static kt_tokenizer *small_tokenizer(void) {
    static kt_tokenizer *small; // for the life of the program
    kt_err err = {0};
    if (small == NULL)
        KT_ASSERT(kt_tokenizer_open("tests/data/small_tokenizer.json", &small, &err) == KT_OK);
    return small;
}

// Zones that alternate, cut at the bytes below 4, which are left out of the text.
static kt_str cut_zones(kt_arena *arena, kt_str in, kt_zone *zones, size_t *n_zones) {
    char *out = kt_arena_alloc(arena, in.n + 1);
    size_t n = 0;
    *n_zones = 1;
    zones[0] = (kt_zone){0, false};
    for (size_t i = 0; i < in.n; i++) {
        if ((unsigned char)in.at[i] < 4) {
            zones[*n_zones] = (kt_zone){0, !zones[*n_zones - 1].special};
            ++*n_zones;
            continue;
        }
        out[n++] = in.at[i];
        zones[*n_zones - 1].bytes++;
    }
    return (kt_str){out, n};
}

static void check_back(const kt_tokenizer *tokenizer, kt_arena *arena, kt_str text) {
    kt_ids ids = {0}, again = {0};
    kt_err err = {0};
    if (kt_tokenizer_encode(tokenizer, arena, text, false, &ids, &err) != KT_OK) return;
    kt_buf back = {0};
    kt_detokenizer detokenizer;
    kt_detokenizer_init(&detokenizer, tokenizer, true);
    bool added = false;
    for (size_t i = 0; i < ids.n; i++) {
        KT_ASSERT(!kt_tokenizer_is_special(tokenizer, ids.at[i]));
        added = added || kt_tokenizer_is_added(tokenizer, ids.at[i]);
        kt_detokenizer_push(&detokenizer, ids.at[i], &back);
    }
    kt_detokenizer_flush(&detokenizer, &back);
    // The text that comes back is in normal form, so it is stable; but a token that strips white
    // space beside it can bring together what makes another one.
    kt_str form = {back.n > 0 ? back.at : "", back.n};
    KT_ASSERT(kt_utf8_valid(form));
    KT_ASSERT(kt_tokenizer_encode(tokenizer, arena, form, false, &again, &err) == KT_OK);
    KT_ASSERT(added || again.n == ids.n);
    KT_ASSERT(added || ids.n == 0 || memcmp(again.at, ids.at, ids.n * sizeof *ids.at) == 0);
    kt_buf_deinit(&back);
}

static void fuzz_text(kt_str bytes) {
    const kt_tokenizer *tokenizer = small_tokenizer();
    kt_arena arena = {0};
    kt_zone *zones = KT_NEW_ARRAY(&arena, kt_zone, bytes.n + 1);
    size_t n_zones;
    kt_str text = cut_zones(&arena, bytes, zones, &n_zones);
    kt_ids ids = {0};
    kt_err err = {0};
    kt_status status =
        kt_tokenizer_encode_zones(tokenizer, &arena, text, zones, n_zones, &ids, &err);
    bool whole = true; // no zone ends inside a character
    size_t at = 0;
    for (size_t i = 0; i + 1 < n_zones; i++) {
        at += zones[i].bytes;
        whole = whole && (at == text.n || ((unsigned char)text.at[at] & 0xC0) != 0x80);
    }
    KT_ASSERT((status == KT_OK) == (kt_utf8_valid(text) && whole));
    check_back(tokenizer, &arena, text);
    kt_arena_deinit(&arena);
}

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    kt_str rest = {(const char *)data + 1, size - 1};
    if (data[0] % 2 == 0)
        fuzz_text(rest);
    else
        fuzz_file(rest);
    return 0;
}
