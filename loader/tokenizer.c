#include "loader/tokenizer.h"

#include "loader/tokenizer_parts.h"
#include "runtime/base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { FLAG_ADDED = 1, FLAG_SPECIAL = 2 };

typedef struct cut_step {
    kt_cutter *cutter;
} cut_step;

typedef struct cutters {
    cut_step *at;
    size_t n, cap;
} cutters;

struct kt_tokenizer {
    kt_arena arena;
    const char *name; // of the file
    bool nfc;
    cutters cutters; // applied one after the other
    kt_bpe bpe;
    kt_added_list raw;        // found before normalising
    kt_added_list normalized; // found after
    int32_t size;
    kt_str *bytes;  // [size]
    uint8_t *flags; // [size]
    kt_table added_by_text;
};

// ---- reading the file

typedef struct reader {
    kt_tokenizer *out;
    kt_arena *tmp;
    const char *name;
    const kt_json *vocab;
    bool byte_level; // the pre-tokenizer maps bytes
    kt_err *err;
} reader;

// The text of a member, or "" for none.
static kt_str text_of(const kt_json *object, const char *name) {
    kt_str out = {"", 0};
    (void)kt_json_get_text(kt_json_find(object, kt_str_from(name)), &out);
    return out;
}

static bool is_null(const kt_json *value) {
    return value == NULL || value->kind == KT_JSON_NULL;
}

static kt_status refuse(reader *in, const char *where, const kt_json *value, const char *expected) {
    return KT_FAIL(in->err, KT_EFORMAT, "%s: %s is %s, which is not supported; expected %s",
        in->name, where, kt_json_describe(in->tmp, value), expected);
}

// Recursion here and below: the JSON reader limits the depth.
static kt_status read_normalizer(reader *in, const kt_json *value, const char *where) {
    if (is_null(value)) return KT_OK;
    kt_str type = text_of(value, "type");
    const kt_json *list = kt_json_find(value, KT_STR("normalizers"));
    if (kt_str_is(type, "Sequence") && list != NULL && list->kind == KT_JSON_LIST) {
        for (size_t i = 0; i < list->n; i++) {
            const char *inner = kt_arena_printf(in->tmp, "%s.normalizers[%zu]", where, i);
            KT_TRY(read_normalizer(in, &list->as.items[i], inner));
        }
        return KT_OK;
    }
    if (kt_str_is(type, "NFC")) {
        in->out->nfc = true;
        return KT_OK;
    }
    const char *type_at = kt_arena_printf(in->tmp, "%s.type", where);
    return refuse(in, type_at, kt_json_find(value, KT_STR("type")), "NFC, a Sequence or null");
}

static kt_status add_cutter(reader *in, kt_str pattern, bool literal, const char *where) {
    kt_cutter *cutter;
    const char *place = kt_arena_printf(in->tmp, "%s: %s", in->name, where);
    KT_TRY(kt_cutter_open(pattern, literal, place, &cutter, in->err));
    KT_PUSH(&in->out->arena, &in->out->cutters, (cut_step){cutter});
    return KT_OK;
}

static kt_status read_split(reader *in, const kt_json *value, const char *where) {
    const kt_json *pattern = kt_json_find(value, KT_STR("pattern"));
    kt_str behaviour = text_of(value, "behavior");
    bool invert = false;
    (void)kt_json_get_bool(kt_json_find(value, KT_STR("invert")), &invert);
    if (!kt_str_is(behaviour, "Isolated")) {
        return refuse(in, kt_arena_printf(in->tmp, "%s.behavior", where),
            kt_json_find(value, KT_STR("behavior")), "Isolated");
    }
    if (invert) {
        return refuse(in, kt_arena_printf(in->tmp, "%s.invert", where),
            kt_json_find(value, KT_STR("invert")), "false");
    }
    kt_str text;
    if (kt_json_get_text(kt_json_find(pattern, KT_STR("Regex")), &text))
        return add_cutter(in, text, false, where);
    if (kt_json_get_text(kt_json_find(pattern, KT_STR("String")), &text))
        return add_cutter(in, text, true, where);
    return refuse(
        in, kt_arena_printf(in->tmp, "%s.pattern", where), pattern, "a Regex or a String");
}

// Source: openai/gpt-2, src/encoder.py; the format fixes it, the file does not hold it.
const char kt_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static kt_status read_byte_level(reader *in, const kt_json *value, const char *where) {
    const kt_json *prefix = kt_json_find(value, KT_STR("add_prefix_space"));
    bool on = true; // what the reference takes when it is not said
    (void)kt_json_get_bool(prefix, &on);
    if (on)
        return refuse(in, kt_arena_printf(in->tmp, "%s.add_prefix_space", where), prefix, "false");
    bool use_regex = true;
    (void)kt_json_get_bool(kt_json_find(value, KT_STR("use_regex")), &use_regex);
    in->byte_level = true;
    return use_regex ? add_cutter(in, kt_str_from(kt_gpt2_pattern), false, where) : KT_OK;
}

static kt_status read_digits(reader *in, const kt_json *value, const char *where) {
    bool one_by_one = false;
    (void)kt_json_get_bool(kt_json_find(value, KT_STR("individual_digits")), &one_by_one);
    return add_cutter(in, one_by_one ? KT_STR("\\p{N}") : KT_STR("\\p{N}+"), false, where);
}

static kt_status read_pre_tokenizer(reader *in, const kt_json *value, const char *where);

static kt_status read_sequence(reader *in, const kt_json *value, const char *where) {
    const kt_json *list = kt_json_find(value, KT_STR("pretokenizers"));
    const char *list_at = kt_arena_printf(in->tmp, "%s.pretokenizers", where);
    if (list == NULL || list->kind != KT_JSON_LIST) return refuse(in, list_at, list, "a list");
    for (size_t i = 0; i < list->n; i++) {
        const char *inner = kt_arena_printf(in->tmp, "%s[%zu]", list_at, i);
        KT_TRY(read_pre_tokenizer(in, &list->as.items[i], inner));
    }
    return KT_OK;
}

typedef struct cut_row {
    const char *type;
    kt_status (*read)(reader *in, const kt_json *value, const char *where);
} cut_row;

static const cut_row cuts[] = {
    {"Split", read_split},
    {"ByteLevel", read_byte_level},
    {"Digits", read_digits},
    {"Sequence", read_sequence},
};

static kt_status read_pre_tokenizer(reader *in, const kt_json *value, const char *where) {
    kt_str type = text_of(value, "type");
    if (in->byte_level) {
        return KT_FAIL(in->err, KT_EFORMAT, "%s: %s comes after ByteLevel, which must be the last",
            in->name, where);
    }
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        if (kt_str_is(type, cuts[i].type)) return cuts[i].read(in, value, where);
    }
    const kt_json *found = value == NULL ? NULL : kt_json_find(value, KT_STR("type"));
    return refuse(in, kt_arena_printf(in->tmp, "%s.type", where), found,
        "Split, ByteLevel, Digits or a Sequence");
}

// ---- added tokens

static kt_status read_added(reader *in, const kt_json *value, size_t i, kt_added *out) {
    int64_t id;
    bool single = false;
    *out = (kt_added){.text = text_of(value, "content")};
    if (out->text.n == 0 || !kt_json_get_int(kt_json_find(value, KT_STR("id")), &id) || id < 0 ||
        id >= KT_BPE_ID_MAX) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: added_tokens[%zu] needs 'content' and an 'id' from 0 to %d", in->name, i,
            KT_BPE_ID_MAX - 1);
    }
    out->id = (int32_t)id;
    out->normalized = true; // what the reference takes for a token that is not special
    (void)kt_json_get_bool(kt_json_find(value, KT_STR("special")), &out->special);
    if (out->special) out->normalized = false;
    (void)kt_json_get_bool(kt_json_find(value, KT_STR("normalized")), &out->normalized);
    (void)kt_json_get_bool(kt_json_find(value, KT_STR("lstrip")), &out->lstrip);
    (void)kt_json_get_bool(kt_json_find(value, KT_STR("rstrip")), &out->rstrip);
    (void)kt_json_get_bool(kt_json_find(value, KT_STR("single_word")), &single);
    if (!single) return KT_OK;
    return KT_FAIL(in->err, KT_EFORMAT,
        "%s: added token '%.*s' has single_word, which is not supported", in->name,
        KT_STR_ARG(out->text));
}

// Enters a token into the tables by id and by text.
static kt_status enter_added(reader *in, const kt_added *added) {
    kt_tokenizer *out = in->out;
    kt_str *bytes = &out->bytes[added->id];
    if (bytes->at != NULL && !kt_str_eq(*bytes, added->text)) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: added token '%.*s' has the id %d, which is '%.*s' already", in->name,
            KT_STR_ARG(added->text), (int)added->id, KT_STR_ARG(*bytes));
    }
    int64_t before;
    if (kt_json_get_int(kt_json_find(in->vocab, added->text), &before) && before != added->id) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: added token '%.*s' has the id %d, but %" PRId64 " in model.vocab", in->name,
            KT_STR_ARG(added->text), (int)added->id, before);
    }
    if (kt_table_find(&out->added_by_text, added->text, &before)) {
        return KT_FAIL(in->err, KT_EFORMAT, "%s: added token '%.*s' is there twice", in->name,
            KT_STR_ARG(added->text));
    }
    *bytes = kt_str_copy(&out->arena, added->text);
    kt_table_set(&out->added_by_text, *bytes, added->id);
    out->flags[added->id] = (uint8_t)(FLAG_ADDED | (added->special ? FLAG_SPECIAL : 0));
    kt_added copy = *added;
    copy.text = *bytes;
    if (added->normalized && out->nfc) copy.text = kt_nfc(&out->arena, *bytes);
    if (added->normalized)
        KT_PUSH(&out->arena, &out->normalized, copy);
    else
        KT_PUSH(&out->arena, &out->raw, copy);
    return KT_OK;
}

static kt_status enter_all_added(reader *in, const kt_added *all, size_t n) {
    kt_tokenizer *out = in->out;
    out->size = out->bpe.size;
    for (size_t i = 0; i < n; i++) {
        if (all[i].id >= out->size) out->size = all[i].id + 1;
    }
    out->bytes = KT_NEW_ARRAY(&out->arena, kt_str, out->size);
    out->flags = KT_NEW_ARRAY(&out->arena, uint8_t, out->size);
    memcpy(out->bytes, out->bpe.bytes, (size_t)out->bpe.size * sizeof *out->bytes);
    kt_table_init(&out->added_by_text, &out->arena);
    for (size_t i = 0; i < n; i++) KT_TRY(enter_added(in, &all[i]));
    kt_added_sort(&out->raw);
    kt_added_sort(&out->normalized);
    return KT_OK;
}

static kt_status read_all_added(reader *in, const kt_json *list) {
    if (!is_null(list) && list->kind != KT_JSON_LIST)
        return refuse(in, "added_tokens", list, "a list");
    size_t n = is_null(list) ? 0 : list->n;
    kt_added *all = KT_NEW_ARRAY(in->tmp, kt_added, n);
    for (size_t i = 0; i < n; i++) KT_TRY(read_added(in, &list->as.items[i], i, &all[i]));
    return enter_all_added(in, all, n);
}

static kt_status read_all(reader *in, const kt_json *root) {
    if (root->kind != KT_JSON_OBJECT) return refuse(in, "the file", root, "an object");
    const kt_json *model = kt_json_find(root, KT_STR("model"));
    if (model == NULL || model->kind != KT_JSON_OBJECT)
        return refuse(in, "model", model, "an object");
    KT_TRY(read_normalizer(in, kt_json_find(root, KT_STR("normalizer")), "normalizer"));
    const kt_json *pre = kt_json_find(root, KT_STR("pre_tokenizer"));
    KT_TRY(kt_bpe_open(&in->out->arena, model, in->name, &in->out->bpe, in->err));
    in->vocab = kt_json_find(model, KT_STR("vocab"));
    KT_TRY(read_pre_tokenizer(in, pre, "pre_tokenizer"));
    if (!in->byte_level) {
        return KT_FAIL(in->err, KT_EFORMAT,
            "%s: pre_tokenizer has no ByteLevel; only byte-level BPE is supported", in->name);
    }
    const kt_json *decoder = kt_json_find(root, KT_STR("decoder"));
    if (!is_null(decoder) && !kt_str_is(text_of(decoder, "type"), "ByteLevel"))
        return refuse(in, "decoder.type", kt_json_find(decoder, KT_STR("type")), "ByteLevel");
    return read_all_added(in, kt_json_find(root, KT_STR("added_tokens")));
}

// ---- opening

kt_status kt_tokenizer_parse(kt_str json, const char *name, kt_tokenizer **out, kt_err *err) {
    enum { MAX_BYTES = 256 << 20, MAX_DEPTH = 32, MAX_VALUES = 16 << 20 };
    kt_json_limits limits = {MAX_BYTES, MAX_DEPTH, MAX_VALUES};
    kt_arena tmp = {0};
    kt_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) kt_out_of_memory(sizeof *tokenizer);
    tokenizer->name = kt_arena_copy(&tokenizer->arena, name, strlen(name));
    reader in = {.out = tokenizer, .tmp = &tmp, .name = name, .err = err};
    const kt_json *root;
    kt_status status = kt_json_parse(&tmp, json, name, limits, &root, err);
    if (status == KT_OK) status = read_all(&in, root);
    kt_arena_deinit(&tmp);
    if (status == KT_OK)
        *out = tokenizer;
    else
        kt_tokenizer_close(tokenizer);
    return status;
}

static kt_status make_all(reader *in, const kt_tokenizer_made *made) {
    kt_tokenizer *out = in->out;
    out->nfc = made->nfc;
    KT_TRY(kt_bpe_open_lists(&out->arena, &made->lists, in->name, &out->bpe, in->err));
    for (int i = 0; i < made->n_patterns; i++)
        KT_TRY(add_cutter(in, kt_str_from(made->patterns[i]), false, "tokenizer.ggml.pre"));
    return enter_all_added(in, made->added, made->n_added);
}

kt_status kt_tokenizer_make(
    const kt_tokenizer_made *made, const char *name, kt_tokenizer **out, kt_err *err) {
    kt_arena tmp = {0};
    kt_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) kt_out_of_memory(sizeof *tokenizer);
    tokenizer->name = kt_arena_copy(&tokenizer->arena, name, strlen(name));
    reader in = {.out = tokenizer, .tmp = &tmp, .name = name, .err = err};
    kt_status status = make_all(&in, made);
    kt_arena_deinit(&tmp);
    if (status == KT_OK)
        *out = tokenizer;
    else
        kt_tokenizer_close(tokenizer);
    return status;
}

kt_status kt_tokenizer_open(const char *path, kt_tokenizer **out, kt_err *err) {
    enum { MAX_BYTES = 256 << 20 };
    if (kt_str_ends(kt_str_from(path), KT_STR(".model"))) {
        return KT_FAIL(err, KT_EFORMAT,
            "'%s': SentencePiece models are not read; save a tokenizer.json with AutoTokenizer of "
            "the Python library transformers (save_pretrained)",
            path);
    }
    if (kt_str_ends(kt_str_from(path), KT_STR(".gguf")))
        return kt_tokenizer_open_gguf(path, out, err);
    kt_arena tmp = {0};
    kt_str text;
    kt_status status = kt_file_read(&tmp, path, MAX_BYTES, &text, err);
    if (status == KT_OK) status = kt_tokenizer_parse(text, path, out, err);
    kt_arena_deinit(&tmp);
    return status;
}

void kt_tokenizer_close(kt_tokenizer *tokenizer) {
    if (tokenizer == NULL) return;
    for (size_t i = 0; i < tokenizer->cutters.n; i++)
        kt_cutter_close(tokenizer->cutters.at[i].cutter);
    kt_arena_deinit(&tokenizer->arena);
    free(tokenizer);
}

// ---- tokens

const char *kt_tokenizer_name(const kt_tokenizer *tokenizer) {
    return tokenizer->name;
}

int32_t kt_tokenizer_size(const kt_tokenizer *tokenizer) {
    return tokenizer->size;
}

bool kt_tokenizer_find(const kt_tokenizer *tokenizer, kt_str token, int32_t *id) {
    int64_t found;
    if (!kt_table_find(&tokenizer->added_by_text, token, &found) &&
        !kt_table_find(&tokenizer->bpe.by_bytes, token, &found))
        return false;
    *id = (int32_t)found;
    return true;
}

static bool has_flag(const kt_tokenizer *tokenizer, int32_t id, int flag) {
    return id >= 0 && id < tokenizer->size && (tokenizer->flags[id] & flag) != 0;
}

kt_str kt_tokenizer_bytes(const kt_tokenizer *tokenizer, int32_t id) {
    kt_str none = {"", 0};
    if (id < 0 || id >= tokenizer->size || tokenizer->bytes[id].at == NULL) return none;
    return tokenizer->bytes[id];
}

bool kt_tokenizer_is_special(const kt_tokenizer *tokenizer, int32_t id) {
    return has_flag(tokenizer, id, FLAG_SPECIAL);
}

bool kt_tokenizer_is_added(const kt_tokenizer *tokenizer, int32_t id) {
    return has_flag(tokenizer, id, FLAG_ADDED);
}

// ---- encoding
//
// In this order: added tokens that are found in the raw text; normal form of what lies between;
// added tokens that are found in normalised text; cutting; merging. Source: huggingface/tokenizers,
// tokenizer/added_vocabulary.rs.

typedef struct zones {
    kt_zone *at;
    size_t n, cap;
} zones;

typedef struct encoder {
    const kt_tokenizer *tokenizer;
    kt_arena *tmp;
    kt_arena *arena; // of the ids
    kt_ids *ids;
    kt_cut_memory cut;
    kt_bpe_memory bpe;
    kt_err *err;
} encoder;

static kt_status encode_plain(encoder *in, kt_str text) {
    if (text.n == 0) return KT_OK;
    kt_ends pieces = {0};
    KT_PUSH(in->tmp, &pieces, text.n);
    const cutters *list = &in->tokenizer->cutters;
    for (size_t i = 0; i < list->n; i++) {
        kt_ends finer = {0};
        KT_TRY(
            kt_cutter_cut(list->at[i].cutter, &in->cut, in->tmp, text, &pieces, &finer, in->err));
        pieces = finer;
    }
    size_t from = 0;
    for (size_t i = 0; i < pieces.n; i++) {
        kt_str piece = kt_str_slice(text, from, pieces.at[i]);
        KT_TRY(kt_bpe_encode(&in->tokenizer->bpe, &in->bpe, piece, in->arena, in->ids, in->err));
        from = pieces.at[i];
    }
    return KT_OK;
}

static kt_str normal_form(encoder *in, kt_str text) {
    return in->tokenizer->nfc ? kt_nfc(in->tmp, text) : text;
}

// The zones that bytes from .. to of a text lie in.
static zones clip_zones(encoder *in, kt_zoned of, size_t from, size_t to) {
    zones out = {0};
    size_t at = 0;
    for (size_t i = 0; i < of.n_zones && at < to; i++) {
        size_t end = at + of.zones[i].bytes;
        size_t low = at > from ? at : from, high = end < to ? end : to;
        if (low < high) {
            kt_zone part = {high - low, of.zones[i].special};
            KT_PUSH(in->tmp, &out, part);
        }
        at = end;
    }
    return out;
}

// Brings each zone to normal form by itself. The form of the whole can differ where zones meet, and
// is made of the result later: it is the same as that of the text as it was.
static kt_zoned normalize_zones(encoder *in, kt_zoned text) {
    kt_zone *made = KT_NEW_ARRAY(in->tmp, kt_zone, text.n_zones);
    kt_buf joined = {0};
    size_t at = 0;
    for (size_t i = 0; i < text.n_zones; i++) {
        size_t end = at + text.zones[i].bytes;
        kt_str form = normal_form(in, kt_str_slice(text.text, at, end));
        kt_buf_str(&joined, form);
        made[i] = (kt_zone){form.n, text.zones[i].special};
        at = end;
    }
    kt_str copy = {kt_arena_copy(in->tmp, joined.at, joined.n), joined.n};
    kt_buf_deinit(&joined);
    return (kt_zoned){copy, made, text.n_zones};
}

// A run of text between the added tokens of the raw text.
static kt_status encode_run(encoder *in, kt_zoned text, size_t from, size_t to) {
    if (from >= to) return KT_OK;
    kt_str run = kt_str_slice(text.text, from, to);
    if (in->tokenizer->normalized.n == 0) return encode_plain(in, normal_form(in, run));
    zones parts = clip_zones(in, text, from, to);
    kt_zoned normal = normalize_zones(in, (kt_zoned){run, parts.at, parts.n});
    kt_added_matches matches = {0};
    kt_added_find(in->tmp, &in->tokenizer->normalized, normal, &matches);
    size_t done = 0;
    for (size_t i = 0; i < matches.n; i++) {
        kt_str before = kt_str_slice(normal.text, done, matches.at[i].from);
        KT_TRY(encode_plain(in, normal_form(in, before)));
        KT_PUSH(in->arena, in->ids, matches.at[i].id);
        done = matches.at[i].to;
    }
    kt_str rest = kt_str_slice(normal.text, done, normal.text.n);
    return encode_plain(in, normal_form(in, rest));
}

static kt_status encode_all(encoder *in, kt_zoned text) {
    kt_added_matches matches = {0};
    kt_added_find(in->tmp, &in->tokenizer->raw, text, &matches);
    size_t done = 0;
    for (size_t i = 0; i < matches.n; i++) {
        KT_TRY(encode_run(in, text, done, matches.at[i].from));
        KT_PUSH(in->arena, in->ids, matches.at[i].id);
        done = matches.at[i].to;
    }
    return encode_run(in, text, done, text.text.n);
}

// What can be encoded: short enough, valid UTF-8, and zones that end between characters.
static kt_status check_text(kt_zoned text, kt_err *err) {
    size_t size = text.text.n;
    if (size > KT_TOKENIZER_TEXT_MAX) {
        return KT_FAIL(err, KT_EPROMPT,
            "the text has %zu bytes, at most %d are allowed; shorten it", size,
            KT_TOKENIZER_TEXT_MAX);
    }
    size_t invalid = kt_tokenizer_invalid_at(text.text);
    if (invalid < size) {
        return KT_FAIL(err, KT_EPROMPT,
            "the text is not valid UTF-8: byte 0x%02x at %zu; save it as UTF-8",
            (unsigned char)text.text.at[invalid], invalid);
    }
    size_t at = 0;
    for (size_t i = 0; i < text.n_zones; i++) {
        at += text.zones[i].bytes;
        KT_ASSERT(at <= size);
        if (at == size || ((unsigned char)text.text.at[at] & 0xC0) != 0x80) continue;
        return KT_FAIL(err, KT_EPROMPT,
            "the parts of the text meet inside a character, at byte %zu; save them as UTF-8", at);
    }
    KT_ASSERT(at == size);
    return KT_OK;
}

kt_status kt_tokenizer_encode_zones(const kt_tokenizer *tokenizer, kt_arena *arena, kt_str text,
    const kt_zone *zone, size_t n_zones, kt_ids *ids, kt_err *err) {
    kt_zoned whole = {text, zone, n_zones};
    KT_TRY(check_text(whole, err));
    kt_arena tmp = {0};
    encoder in = {.tokenizer = tokenizer, .tmp = &tmp, .arena = arena, .ids = ids, .err = err};
    in.bpe.arena = &tmp;
    kt_status status = encode_all(&in, whole);
    kt_cut_memory_deinit(&in.cut);
    kt_arena_deinit(&tmp);
    return status;
}

kt_status kt_tokenizer_encode(const kt_tokenizer *tokenizer, kt_arena *arena, kt_str text,
    bool allow_special, kt_ids *ids, kt_err *err) {
    kt_zone whole = {text.n, allow_special};
    return kt_tokenizer_encode_zones(tokenizer, arena, text, &whole, 1, ids, err);
}
