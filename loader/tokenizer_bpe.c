#include "loader/tokenizer_parts.h"

#include <inttypes.h>
#include <string.h>

// ---- the byte alphabet
//
// Files write each byte as a character: 33..126, 161..172 and 174..255 as themselves, the other 68,
// ascending, as U+0100.. . Source: openai/gpt-2, src/encoder.py, bytes_to_unicode.

static bool is_itself(int c) {
    return (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
}

// The byte a character stands for; -1 if none.
static int byte_of(uint32_t code) {
    if (code < 256) return is_itself((int)code) ? (int)code : -1;
    uint32_t nth = code - 256;
    for (int b = 0; b < 256; b++) {
        if (is_itself(b)) continue;
        if (nth == 0) return b;
        nth--;
    }
    return -1;
}

// The UTF-8 of the character for a byte: below U+0800, so one or two bytes.
static kt_str char_of(int b, char out[2]) {
    uint32_t code = (uint32_t)b;
    if (!is_itself(b)) {
        code = 256;
        for (int i = 0; i < b; i++) code += is_itself(i) ? 0 : 1;
    }
    if (code < 0x80) {
        out[0] = (char)code;
        return (kt_str){out, 1};
    }
    out[0] = (char)(0xC0 | (code >> 6));
    out[1] = (char)(0x80 | (code & 0x3F));
    return (kt_str){out, 2};
}

// Tables of the alphabet, made once a file: byte_of is slow.
typedef struct alphabet {
    int16_t byte[0x144]; // by character, -1: none
} alphabet;

static alphabet make_alphabet(void) {
    alphabet out;
    for (uint32_t code = 0; code < 0x144; code++) out.byte[code] = (int16_t)byte_of(code);
    return out;
}

static kt_str decode(const alphabet *table, kt_arena *arena, kt_str token) {
    char *bytes = kt_arena_alloc(arena, token.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < token.n; i++) {
        uint32_t code = (unsigned char)token.at[i];
        if (code >= 0x80) {
            // Other than two bytes is beyond the alphabet.
            if ((code & 0xE0) != 0xC0 || i + 1 >= token.n) return kt_str_copy(arena, token);
            code = (code & 0x1F) << 6 | ((unsigned char)token.at[++i] & 0x3F);
        }
        if (code >= 0x144 || table->byte[code] < 0) return kt_str_copy(arena, token);
        bytes[n++] = (char)table->byte[code];
    }
    return (kt_str){bytes, n};
}

// ---- reading the model

// A rule: `left` and `right` next to each other become `made`; lower ranks go first.
struct kt_merge {
    int32_t left, right; // left -1: an empty slot
    int32_t rank, made;
};

typedef struct reader {
    kt_arena *arena;
    const char *name;                 // of the file
    const char *vocab_at, *merges_at; // places in it
    const kt_json *vocab;             // NULL: from lists
    kt_table by_name;                 // of lists
    kt_bpe *out;
    kt_err *err;
} reader;

static bool find_token(const reader *in, kt_str name, int64_t *id) {
    return in->vocab == NULL ? kt_table_find(&in->by_name, name, id)
                             : kt_json_get_int(kt_json_find(in->vocab, name), id);
}

static kt_status read_vocab(reader *in) {
    const kt_json *vocab = in->vocab;
    int64_t size = 0;
    for (size_t i = 0; i < vocab->n; i++) {
        const kt_json_member *member = kt_json_member_at(vocab, i);
        int64_t id;
        if (!kt_json_get_int(&member->value, &id) || id < 0 || id >= KT_BPE_ID_MAX) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: model.vocab: the id of '%.*s' is %s, expected a number from 0 to %d", in->name,
                KT_STR_ARG(member->name), kt_json_describe(in->arena, &member->value),
                KT_BPE_ID_MAX - 1);
        }
        if (id >= size) size = id + 1;
    }
    in->out->size = (int32_t)size;
    in->out->bytes = KT_NEW_ARRAY(in->arena, kt_str, size);
    kt_table_init(&in->out->by_bytes, in->arena);
    alphabet table = make_alphabet();
    for (size_t i = 0; i < vocab->n; i++) {
        const kt_json_member *member = kt_json_member_at(vocab, i);
        int64_t id = member->value.as.integer;
        if (in->out->bytes[id].at != NULL) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: model.vocab: '%.*s' has the id %" PRId64 " of another token", in->name,
                KT_STR_ARG(member->name), id);
        }
        in->out->bytes[id] = decode(&table, in->arena, member->name);
        kt_table_set(&in->out->by_bytes, in->out->bytes[id], id);
    }
    return KT_OK;
}

static void read_bytes(reader *in) {
    for (int b = 0; b < 256; b++) {
        char text[2];
        int64_t id;
        bool known = find_token(in, char_of(b, text), &id);
        in->out->byte_id[b] = known ? (int32_t)id : -1;
    }
}

static struct kt_merge *slot_of(const kt_bpe *bpe, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = (size_t)((key * 0x9E3779B97F4A7C15ULL) >> 32) & (bpe->n_slots - 1);
    while (bpe->merges[at].left >= 0) {
        if (bpe->merges[at].left == left && bpe->merges[at].right == right) break;
        at = (at + 1) & (bpe->n_slots - 1);
    }
    return &bpe->merges[at];
}

// "a b"
static bool split_merge(kt_str text, kt_str *left, kt_str *right) {
    ptrdiff_t space = kt_str_find(text, ' ');
    if (space <= 0 || space != kt_str_find_last(text, ' ')) return false;
    *left = kt_str_slice(text, 0, (size_t)space);
    *right = kt_str_slice(text, (size_t)space + 1, text.n);
    return right->n > 0;
}

// A merge is written "a b" or ["a", "b"].
static bool merge_sides(const kt_json *merge, kt_str *left, kt_str *right) {
    if (merge->kind == KT_JSON_LIST) {
        return merge->n == 2 && kt_json_get_text(&merge->as.items[0], left) &&
               kt_json_get_text(&merge->as.items[1], right);
    }
    kt_str text;
    return kt_json_get_text(merge, &text) && split_merge(text, left, right);
}

static kt_status enter_merge(reader *in, kt_str left, kt_str right, size_t rank, kt_buf *joined) {
    kt_buf_clear(joined);
    kt_buf_str(joined, left);
    kt_buf_str(joined, right);
    kt_str both = {joined->at, joined->n};
    const kt_str names[3] = {left, right, both};
    int64_t ids[3];
    for (int i = 0; i < 3; i++) {
        if (find_token(in, names[i], &ids[i])) continue;
        return KT_FAIL(in->err, KT_EFORMAT, "%s: %s[%zu] ('%.*s' and '%.*s'): '%.*s' is not in %s",
            in->name, in->merges_at, rank, KT_STR_ARG(left), KT_STR_ARG(right),
            KT_STR_ARG(names[i]), in->vocab_at);
    }
    struct kt_merge *slot = slot_of(in->out, (int32_t)ids[0], (int32_t)ids[1]);
    // Of a rule that is written twice the last one counts, as in the reference.
    *slot = (struct kt_merge){(int32_t)ids[0], (int32_t)ids[1], (int32_t)rank, (int32_t)ids[2]};
    return KT_OK;
}

static kt_status read_merge(reader *in, const kt_json *merge, size_t rank, kt_buf *joined) {
    kt_str left, right;
    if (merge_sides(merge, &left, &right)) return enter_merge(in, left, right, rank, joined);
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: model.merges[%zu] is %s, expected \"a b\" or [\"a\", \"b\"]", in->name, rank,
        kt_json_describe(in->arena, merge));
}

static void make_slots(reader *in, size_t n) {
    in->out->n_slots = 16;
    while (in->out->n_slots < 2 * n) in->out->n_slots *= 2;
    in->out->merges = KT_NEW_ARRAY(in->arena, struct kt_merge, in->out->n_slots);
    for (size_t i = 0; i < in->out->n_slots; i++) in->out->merges[i].left = -1;
}

static kt_status read_merges(reader *in, const kt_json *merges) {
    if (merges == NULL || merges->kind != KT_JSON_LIST || merges->n > KT_BPE_ID_MAX) {
        return KT_FAIL(in->err, KT_EFORMAT, "%s: model.merges is %s, expected a list of at most %d",
            in->name, kt_json_describe(in->arena, merges), KT_BPE_ID_MAX);
    }
    make_slots(in, merges->n);
    kt_buf joined = {0};
    kt_status status = KT_OK;
    for (size_t i = 0; status == KT_OK && i < merges->n; i++)
        status = read_merge(in, &merges->as.items[i], i, &joined);
    kt_buf_deinit(&joined);
    return status;
}

// Settings of the model that must be absent, null or this.
typedef struct setting_row {
    const char *name;
    kt_json_kind kind; // the only value of this kind that is taken: false, 0 or ""
} setting_row;

static const setting_row settings[] = {
    {"byte_fallback", KT_JSON_BOOL},
    {"dropout", KT_JSON_REAL},
    {"continuing_subword_prefix", KT_JSON_TEXT},
    {"end_of_word_suffix", KT_JSON_TEXT},
};

static bool is_neutral(const kt_json *value, kt_json_kind kind) {
    if (value == NULL || value->kind == KT_JSON_NULL) return true;
    double real;
    if (kind == KT_JSON_REAL && kt_json_get_real(value, &real)) return real <= 0 && real >= 0;
    if (value->kind != kind) return false;
    return kind == KT_JSON_BOOL ? !value->as.truth : kind == KT_JSON_TEXT && value->as.text.n == 0;
}

static kt_status read_settings(reader *in, const kt_json *model) {
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        const kt_json *value = kt_json_find(model, kt_str_from(settings[i].name));
        if (is_neutral(value, settings[i].kind)) continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: model.%s is %s, which is not supported (byte-level BPE has none)", in->name,
            settings[i].name, kt_json_describe(in->arena, value));
    }
    const kt_json *ignore = kt_json_find(model, KT_STR("ignore_merges"));
    if (!kt_json_get_bool(ignore, &in->out->ignore_merges)) in->out->ignore_merges = false;
    in->out->unk = -1;
    kt_str unk;
    if (!kt_json_get_text(kt_json_find(model, KT_STR("unk_token")), &unk)) return KT_OK;
    int64_t id;
    if (find_token(in, unk, &id)) in->out->unk = (int32_t)id;
    return KT_OK;
}

kt_status kt_bpe_open(
    kt_arena *arena, const kt_json *model, const char *name, kt_bpe *out, kt_err *err) {
    *out = (kt_bpe){0};
    const kt_json *type = kt_json_find(model, KT_STR("type"));
    kt_str text;
    if (type != NULL && (!kt_json_get_text(type, &text) || !kt_str_is(text, "BPE"))) {
        return KT_FAIL(err, KT_EFORMAT, "%s: model.type is %s; only byte-level BPE is supported",
            name, kt_json_describe(arena, type));
    }
    reader in = {.arena = arena, .name = name, .out = out, .err = err};
    in.vocab_at = "model.vocab";
    in.merges_at = "model.merges";
    in.vocab = kt_json_find(model, KT_STR("vocab"));
    if (in.vocab == NULL || in.vocab->kind != KT_JSON_OBJECT || in.vocab->n == 0) {
        return KT_FAIL(err, KT_EFORMAT, "%s: model.vocab is %s, expected an object with tokens",
            name, kt_json_describe(arena, in.vocab));
    }
    KT_TRY(read_vocab(&in));
    read_bytes(&in);
    KT_TRY(read_settings(&in, model));
    return read_merges(&in, kt_json_find(model, KT_STR("merges")));
}

// ---- from lists

static kt_status enter_tokens(reader *in, const kt_bpe_lists *lists) {
    kt_bpe *out = in->out;
    alphabet table = make_alphabet();
    out->size = lists->n_tokens;
    out->bytes = KT_NEW_ARRAY(in->arena, kt_str, lists->n_tokens);
    kt_table_init(&out->by_bytes, in->arena);
    for (int32_t i = 0; i < lists->n_tokens; i++) {
        kt_str token = lists->tokens[i];
        int64_t before;
        if (token.at == NULL || token.n == 0) continue;
        if (kt_table_find(&in->by_name, token, &before)) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: %s[%d] is '%.*s', and so is token %" PRId64 "; the file is damaged, download "
                "it again",
                in->name, in->vocab_at, (int)i, KT_STR_ARG(token), before);
        }
        kt_table_set(&in->by_name, token, i);
        if (lists->added[i]) continue;
        out->bytes[i] = decode(&table, in->arena, token);
        kt_table_set(&out->by_bytes, out->bytes[i], i);
    }
    return KT_OK;
}

static kt_status enter_merges(reader *in, const kt_bpe_lists *lists) {
    make_slots(in, lists->n_merges);
    kt_buf joined = {0};
    kt_status status = KT_OK;
    for (size_t i = 0; status == KT_OK && i < lists->n_merges; i++) {
        kt_str left, right;
        if (split_merge(lists->merges[i], &left, &right)) {
            status = enter_merge(in, left, right, i, &joined);
            continue;
        }
        status = KT_FAIL(in->err, KT_EFORMAT, "%s: %s[%zu] is '%.*s', expected \"a b\"", in->name,
            in->merges_at, i, KT_STR_ARG(lists->merges[i]));
    }
    kt_buf_deinit(&joined);
    return status;
}

kt_status kt_bpe_open_lists(
    kt_arena *arena, const kt_bpe_lists *lists, const char *name, kt_bpe *out, kt_err *err) {
    *out = (kt_bpe){.unk = -1, .ignore_merges = lists->ignore_merges};
    kt_arena tmp = {0};
    reader in = {.arena = arena, .name = name, .out = out, .err = err};
    in.vocab_at = "tokenizer.ggml.tokens";
    in.merges_at = "tokenizer.ggml.merges";
    kt_table_init(&in.by_name, &tmp);
    kt_status status = enter_tokens(&in, lists);
    if (status == KT_OK) {
        read_bytes(&in);
        status = enter_merges(&in, lists);
    }
    kt_arena_deinit(&tmp);
    return status;
}

// ---- merging one piece
//
// The lowest rank first, of equal ranks the leftmost: a heap of neighbouring pairs over a linked
// list of symbols, so n log n for a piece of n bytes. A pair in the heap whose symbols have changed
// since is skipped. Source: Sennrich et al. 2016, section 3.2; order of ties as in
// huggingface/tokenizers, models/bpe/word.rs.

struct kt_symbol {
    int32_t id;           // -1: merged into the one before
    int32_t before, next; // indices; -1: none
};

struct kt_pair {
    int32_t rank, at; // at: index of the left symbol
    int32_t left, right, made;
};

static bool pair_less(const struct kt_pair *a, const struct kt_pair *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(kt_bpe_memory *memory, struct kt_pair pair) {
    memory->heap = kt_arena_grow(
        memory->arena, memory->heap, memory->heap_n, &memory->heap_cap, sizeof *memory->heap);
    size_t i = memory->heap_n++;
    while (i > 0 && pair_less(&pair, &memory->heap[(i - 1) / 2])) {
        memory->heap[i] = memory->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    memory->heap[i] = pair;
}

static struct kt_pair heap_pop(kt_bpe_memory *memory) {
    struct kt_pair top = memory->heap[0];
    struct kt_pair moved = memory->heap[--memory->heap_n];
    size_t i = 0, n = memory->heap_n;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && pair_less(&memory->heap[child + 1], &memory->heap[child])) child++;
        if (!pair_less(&memory->heap[child], &moved)) break;
        memory->heap[i] = memory->heap[child];
        i = child;
    }
    memory->heap[i] = moved;
    return top;
}

static void push_pair(const kt_bpe *bpe, kt_bpe_memory *memory, int32_t at) {
    if (at < 0) return;
    const struct kt_symbol *left = &memory->symbols[at];
    if (left->next < 0) return;
    int32_t right = memory->symbols[left->next].id;
    const struct kt_merge *merge = slot_of(bpe, left->id, right);
    if (merge->left < 0) return;
    heap_push(memory, (struct kt_pair){merge->rank, at, left->id, right, merge->made});
}

static void merge_all(const kt_bpe *bpe, kt_bpe_memory *memory, int32_t n) {
    memory->heap_n = 0;
    for (int32_t i = 0; i + 1 < n; i++) push_pair(bpe, memory, i);
    while (memory->heap_n > 0) {
        struct kt_pair pair = heap_pop(memory);
        struct kt_symbol *left = &memory->symbols[pair.at];
        if (left->id != pair.left || left->next < 0) continue;
        struct kt_symbol *right = &memory->symbols[left->next];
        if (right->id != pair.right) continue;
        left->id = pair.made;
        right->id = -1;
        left->next = right->next;
        if (right->next >= 0) memory->symbols[right->next].before = pair.at;
        push_pair(bpe, memory, left->before);
        push_pair(bpe, memory, pair.at);
    }
}

// One symbol for each byte. Errors: EPROMPT for a byte without a token.
static kt_status make_symbols(const kt_bpe *bpe, kt_bpe_memory *memory, kt_str piece, kt_err *err) {
    if (piece.n > memory->symbols_cap) {
        memory->symbols_cap = piece.n < 256 ? 256 : piece.n;
        memory->symbols = KT_NEW_ARRAY(memory->arena, struct kt_symbol, memory->symbols_cap);
    }
    for (size_t i = 0; i < piece.n; i++) {
        int32_t id = bpe->byte_id[(unsigned char)piece.at[i]];
        if (id < 0) id = bpe->unk;
        if (id < 0) {
            return KT_FAIL(err, KT_EPROMPT,
                "the tokenizer has no token for the byte 0x%02x of '%.*s'",
                (unsigned char)piece.at[i], (int)(piece.n < 40 ? piece.n : 40), piece.at);
        }
        int32_t at = (int32_t)i;
        memory->symbols[i] = (struct kt_symbol){id, at - 1, i + 1 < piece.n ? at + 1 : -1};
    }
    return KT_OK;
}

// ---- pieces seen before
//
// Words repeat, so the ids of a piece are looked for among those already written. One entry a slot,
// the newest wins.

enum { SEEN_SLOTS = 4096 };

struct kt_seen {
    kt_str piece;
    size_t ids, n; // where its ids are in the list
};

static struct kt_seen *seen_slot(kt_bpe_memory *memory, kt_str piece) {
    if (memory->seen == NULL)
        memory->seen = KT_NEW_ARRAY(memory->arena, struct kt_seen, SEEN_SLOTS);
    uint64_t hash = kt_str_hash(piece);
    return &memory->seen[(hash ^ hash >> 32) & (SEEN_SLOTS - 1)];
}

kt_status kt_bpe_encode(const kt_bpe *bpe, kt_bpe_memory *memory, kt_str piece, kt_arena *arena,
    kt_ids *ids, kt_err *err) {
    int64_t whole;
    if (bpe->ignore_merges && kt_table_find(&bpe->by_bytes, piece, &whole)) {
        KT_PUSH(arena, ids, (int32_t)whole);
        return KT_OK;
    }
    struct kt_seen *seen = seen_slot(memory, piece);
    if (piece.n > 0 && kt_str_eq(seen->piece, piece)) {
        for (size_t i = 0; i < seen->n; i++) {
            int32_t id = ids->at[seen->ids + i];
            KT_PUSH(arena, ids, id);
        }
        return KT_OK;
    }
    KT_TRY(make_symbols(bpe, memory, piece, err));
    merge_all(bpe, memory, (int32_t)piece.n);
    size_t from = ids->n;
    for (int32_t i = piece.n > 0 ? 0 : -1; i >= 0; i = memory->symbols[i].next)
        KT_PUSH(arena, ids, memory->symbols[i].id);
    *seen = (struct kt_seen){piece, from, ids->n - from};
    return KT_OK;
}
