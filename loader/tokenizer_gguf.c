// The tokenizer that a GGUF file holds: tokenizer.ggml.*.
#include "loader/gguf.h"
#include "loader/tokenizer_parts.h"
#include "runtime/base/log.h"

#include <inttypes.h>

#define KEY(name) "tokenizer.ggml." name

// What a token is, by tokenizer.ggml.token_type. Source: docs/gguf.md in ggml-org/ggml.
enum {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3, // special
    TYPE_USER = 4,    // added, not special
    TYPE_UNUSED = 5,
    TYPE_BYTE = 6
};

// ---- what cuts text into pieces
//
// The file only names it. The patterns and the normal form are those of the models' own
// tokenizer.json, so that the ids are the same, but for "default", which only llama.cpp knows.
// Source: tokenizer.json of openai-community/gpt2, Qwen/Qwen2-7B, meta-llama/Meta-Llama-3-8B and
// HuggingFaceTB/SmolLM2-135M; src/llama-vocab.cpp in ggml-org/llama.cpp.

static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char llama3_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

enum { MOST_PATTERNS = 4 };

typedef struct pre_row {
    const char *name;
    bool nfc, ignore_merges;
    const char *patterns[MOST_PATTERNS]; // one after the other; NULL: no more
} pre_row;

static const pre_row pres[] = {
    {"qwen2", true, false, {qwen2_pattern}},
    {"llama-bpe", false, true, {llama3_pattern}},
    {"smollm", false, false, {"\\p{N}", kt_gpt2_pattern}},
    {"gpt-2", false, false, {kt_gpt2_pattern}},
    {"default", false, false,
        {"[\\p{P}\\$\\+<=>\\^~\\|]+", kt_gpt2_pattern, "\\p{N}+", "[0-9][0-9][0-9]"}},
};

enum { N_PRES = sizeof pres / sizeof pres[0] };

typedef struct reader {
    kt_arena *arena; // of this file
    const char *path;
    const kt_gguf *gguf;
    kt_tokenizer_made made;
    kt_err *err;
} reader;

static kt_status refuse(reader *in, const char *key, const char *expected) {
    const kt_gguf_value *value = kt_gguf_find(in->gguf, kt_str_from(key));
    return KT_FAIL(in->err, KT_EFORMAT, "%s: '%s' is %s, which is not supported; expected %s",
        in->path, key, kt_gguf_describe(in->arena, value), expected);
}

static kt_status read_pre(reader *in) {
    kt_str name = KT_STR("default"); // what llama.cpp takes when it is not said
    const kt_gguf_value *value = kt_gguf_find(in->gguf, KT_STR(KEY("pre")));
    bool text = value == NULL || kt_gguf_text(value, &name);
    if (text && kt_str_is(name, "default"))
        kt_log_warn("%s does not say how its tokenizer cuts texts ('%s'): it is done as llama.cpp "
                    "does it then, and answers may be worse; a newer file of the model says it",
            in->path, KEY("pre"));
    for (int i = 0; text && i < N_PRES; i++) {
        const pre_row *row = &pres[i];
        if (!kt_str_is(name, row->name)) continue;
        in->made.nfc = row->nfc;
        in->made.lists.ignore_merges = row->ignore_merges;
        in->made.patterns = row->patterns;
        while (in->made.n_patterns < MOST_PATTERNS && row->patterns[in->made.n_patterns])
            in->made.n_patterns++;
        return KT_OK;
    }
    kt_buf known = {0};
    for (int i = 0; i < N_PRES; i++)
        kt_buf_printf(&known, "%s%s", i == 0 ? "" : i == N_PRES - 1 ? " or " : ", ", pres[i].name);
    kt_status status = refuse(in, KEY("pre"), known.at);
    kt_buf_deinit(&known);
    return status;
}

// The model must be byte-level BPE.
static kt_status check_model(reader *in) {
    kt_str model = {"", 0};
    (void)kt_gguf_text(kt_gguf_find(in->gguf, KT_STR(KEY("model"))), &model);
    if (kt_str_is(model, "gpt2")) return KT_OK;
    return refuse(in, KEY("model"),
        "the text 'gpt2' (byte-level BPE; 'llama' is SentencePiece, 'bert' WordPiece, 't5' "
        "Unigram)");
}

// ---- tokens and merges

static kt_status want_list(
    reader *in, const char *key, kt_gguf_kind kind, int64_t most, const kt_gguf_value **out) {
    *out = kt_gguf_find(in->gguf, kt_str_from(key));
    bool good = *out != NULL && (*out)->kind == KT_GGUF_LIST && (*out)->item_kind == kind;
    if (good && (*out)->n <= most) return KT_OK;
    return refuse(in, key,
        kt_arena_printf(in->arena, "a list of at most %" PRId64 " %s", most,
            kind == KT_GGUF_TEXT ? "texts" : "numbers of i32"));
}

static kt_status read_texts(reader *in, const char *key, kt_str **out, size_t *n) {
    const kt_gguf_value *list;
    KT_TRY(want_list(in, key, KT_GGUF_TEXT, KT_BPE_ID_MAX, &list));
    kt_str *texts = KT_NEW_ARRAY(in->arena, kt_str, list->n);
    kt_gguf_walk walk = kt_gguf_items(list);
    kt_gguf_value item;
    for (*n = 0; kt_gguf_next(&walk, &item); ++*n) {
        (void)kt_gguf_text(&item, &texts[*n]);
        if (kt_utf8_valid(texts[*n])) continue;
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: '%s'[%zu] is not valid UTF-8; the file is damaged, download it again", in->path,
            key, *n);
    }
    *out = texts;
    return KT_OK;
}

// Gives each token its place: among the vocabulary, among the added tokens, or none.
static kt_status read_types(reader *in, kt_str *tokens, size_t n) {
    bool *is_added = KT_NEW_ARRAY(in->arena, bool, n);
    kt_added *added = KT_NEW_ARRAY(in->arena, kt_added, n);
    const kt_gguf_value *list = kt_gguf_find(in->gguf, KT_STR(KEY("token_type")));
    if (list != NULL) KT_TRY(want_list(in, KEY("token_type"), KT_GGUF_I32, KT_BPE_ID_MAX, &list));
    if (list != NULL && list->n != (int64_t)n) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: there are %zu tokens in '" KEY("tokens") "' and %" PRId64 " types in '" KEY(
                "token_type") "'; the file is damaged, download it again",
            in->path, n, list->n);
    }
    kt_gguf_walk walk = kt_gguf_items(list);
    kt_gguf_value item;
    for (size_t i = 0; i < n && kt_gguf_next(&walk, &item); i++) {
        kt_value type = {0};
        (void)kt_gguf_number(&item, &type);
        if (type.i < TYPE_NORMAL || type.i > TYPE_BYTE) {
            return KT_FAIL(in->err, KT_EFORMAT,
                "%s: '" KEY("token_type") "'[%zu] is %" PRId64 ", expected %d to %d", in->path, i,
                type.i, TYPE_NORMAL, TYPE_BYTE);
        }
        is_added[i] = type.i == TYPE_UNKNOWN || type.i == TYPE_CONTROL || type.i == TYPE_USER;
        if (type.i == TYPE_UNUSED) {
            tokens[i].at = NULL;
        } else if (is_added[i] && tokens[i].n > 0) {
            added[in->made.n_added++] =
                (kt_added){.text = tokens[i], .id = (int32_t)i, .special = type.i != TYPE_USER};
        }
    }
    in->made.added = added;
    in->made.lists.added = is_added;
    return KT_OK;
}

static kt_status read_all(reader *in) {
    kt_bpe_lists *lists = &in->made.lists;
    kt_str *tokens = NULL, *merges = NULL;
    size_t n = 0;
    KT_TRY(check_model(in));
    KT_TRY(read_pre(in));
    KT_TRY(read_texts(in, KEY("tokens"), &tokens, &n));
    KT_ASSERT(tokens != NULL);
    KT_TRY(read_types(in, tokens, n));
    KT_TRY(read_texts(in, KEY("merges"), &merges, &lists->n_merges));
    lists->tokens = tokens;
    lists->n_tokens = (int32_t)n;
    lists->merges = merges;
    return KT_OK;
}

kt_status kt_tokenizer_open_gguf(const char *path, kt_tokenizer **out, kt_err *err) {
    kt_arena tmp = {0};
    kt_checkpoint_file file = {.path = path};
    reader in = {.arena = &tmp, .path = path, .err = err};
    kt_stored *stored;
    int64_t n;
    kt_status status = kt_os_open(path, &file.file, err);
    if (status != KT_OK) return status;
    status = kt_gguf_read(&tmp, &file, 0, &in.gguf, &stored, &n, err);
    if (status == KT_OK) status = read_all(&in);
    if (status == KT_OK) status = kt_tokenizer_make(&in.made, path, out, err);
    kt_os_close(file.file);
    kt_arena_deinit(&tmp);
    return status;
}
