#include "tools/fabricate/words.h"

#include "loader/json.h"
#include "runtime/base/file.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_BYTES = 64 << 20 }; // of a tokenizer's file

// ---- the frame of a tokenizer.json

// Source: transformers, tokenization_qwen2.py.
static const char pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"
    " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+";

static void add_middle(kt_buf *out) {
    kt_buf_printf(out,
        "],\n\"normalizer\": {\"type\": \"NFC\"},\n\"pre_tokenizer\": {\"type\": \"Sequence\", "
        "\"pretokenizers\": [\n  {\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}, "
        "\"behavior\": \"Isolated\", \"invert\": false},\n  {\"type\": \"ByteLevel\", "
        "\"add_prefix_space\": false, \"trim_offsets\": false, \"use_regex\": false}]},\n"
        "\"post_processor\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"trim_offsets\": false, \"use_regex\": false},\n"
        "\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
        "\"trim_offsets\": false, \"use_regex\": false},\n"
        "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
        "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", \"fuse_unk\": false, "
        "\"byte_fallback\": false, \"ignore_merges\": false,\n\"vocab\": ",
        pattern);
}

static void start(kt_buf *out) {
    kt_buf_printf(out, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n"
                       "\"added_tokens\": [");
}

static void add_special(kt_buf *out, bool first, int64_t id, const char *text) {
    kt_buf_printf(out,
        "%s\n  {\"id\": %" PRId64
        ", \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
        "\"rstrip\": false, \"normalized\": false, \"special\": true}",
        first ? "" : ",", id, text);
}

// ---- from the files of a download

static void add_quoted(kt_buf *out, kt_str text) {
    kt_buf_printf(out, "\"");
    for (size_t i = 0; i < text.n; i++) {
        if (text.at[i] == '"' || text.at[i] == '\\') kt_buf_printf(out, "\\");
        kt_buf_add(out, &text.at[i], 1);
    }
    kt_buf_printf(out, "\"");
}

static void add_merges(kt_buf *out, kt_str text) {
    bool first = true;
    while (text.n > 0) {
        ptrdiff_t end = kt_str_find(text, '\n');
        kt_str line = end < 0 ? text : kt_str_slice(text, 0, (size_t)end);
        text = end < 0 ? KT_STR("") : kt_str_slice(text, (size_t)end + 1, text.n);
        if (line.n == 0 || kt_str_starts(line, KT_STR("#version"))) continue;
        kt_buf_printf(out, first ? "" : ",\n");
        add_quoted(out, line);
        first = false;
    }
}

static const char *truth(const kt_json *token, const char *key) {
    bool yes = false;
    kt_json_get_bool(kt_json_find(token, kt_str_from(key)), &yes);
    return yes ? "true" : "false";
}

// The object behind a key, as text. The whole file is no JSON that we read: "model_max_length" is
// there a number beyond 64 bits.
static kt_str object_of(kt_str text, const char *key) {
    ptrdiff_t at = kt_str_find_text(text, key);
    if (at < 0) return KT_STR("");
    text = kt_str_slice(text, (size_t)at + strlen(key), text.n);
    ptrdiff_t begin = kt_str_find(text, '{');
    int depth = 0;
    for (size_t i = begin < 0 ? text.n : (size_t)begin; i < text.n; i++) {
        if (text.at[i] == '"')
            for (i++; i < text.n && text.at[i] != '"'; i++) i += text.at[i] == '\\';
        else if (text.at[i] == '{' || text.at[i] == '}')
            depth += text.at[i] == '{' ? 1 : -1;
        if (depth == 0) return kt_str_slice(text, (size_t)begin, i + 1);
    }
    return KT_STR("");
}

static kt_status add_named(kt_arena *arena, const char *path, kt_buf *out, kt_err *err) {
    const kt_json_limits limits = {.bytes = MAX_BYTES, .depth = 16, .values = 1000000};
    const kt_json *tokens;
    kt_str text;
    KT_TRY(kt_file_read(arena, path, MAX_BYTES, &text, err));
    text = object_of(text, "\"added_tokens_decoder\":");
    if (text.n == 0) return KT_FAIL(err, KT_EFORMAT, "%s: 'added_tokens_decoder' is missing", path);
    KT_TRY(kt_json_parse(arena, text, path, limits, &tokens, err));
    for (size_t i = 0; i < tokens->n; i++) {
        const kt_json_member *token = kt_json_member_at(tokens, i);
        if (!kt_json_get_text(kt_json_find(&token->value, KT_STR("content")), &text))
            return KT_FAIL(err, KT_EFORMAT, "%s: added_tokens_decoder.%.*s has no 'content'", path,
                KT_STR_ARG(token->name));
        kt_buf_printf(
            out, "%s\n  {\"id\": %.*s, \"content\": ", i ? "," : "", KT_STR_ARG(token->name));
        add_quoted(out, text);
        kt_buf_printf(out,
            ", \"single_word\": %s, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": %s, "
            "\"special\": %s}",
            truth(&token->value, "single_word"), truth(&token->value, "lstrip"),
            truth(&token->value, "rstrip"), truth(&token->value, "normalized"),
            truth(&token->value, "special"));
    }
    return KT_OK;
}

kt_status kt_words_compose(kt_arena *arena, const char *folder, kt_buf *out, kt_err *err) {
    kt_str text;
    const char *whole = kt_path_join(arena, folder, "tokenizer.json");
    if (kt_os_stat(whole).kind == KT_PATH_FILE) {
        KT_TRY(kt_file_read(arena, whole, MAX_BYTES, &text, err));
        kt_buf_str(out, text);
        return KT_OK;
    }
    start(out);
    KT_TRY(add_named(arena, kt_path_join(arena, folder, "tokenizer_config.json"), out, err));
    add_middle(out);
    KT_TRY(kt_file_read(arena, kt_path_join(arena, folder, "vocab.json"), MAX_BYTES, &text, err));
    kt_buf_str(out, text);
    kt_buf_printf(out, ",\n\"merges\": [\n");
    KT_TRY(kt_file_read(arena, kt_path_join(arena, folder, "merges.txt"), MAX_BYTES, &text, err));
    add_merges(out, text);
    kt_buf_printf(out, "]}}\n");
    return KT_OK;
}

// ---- invented

static const char *const special[KT_WORDS_SPECIAL] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<image>", "</image>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<point>",
    "</point>", "<slice>", "</slice>", "<image_id>", "</image_id>", "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>", "<|reserved_special_token_2|>", "<|reserved_special_token_3|>",
    "<|reserved_special_token_4|>", "<|reserved_special_token_5|>"};

enum {
    N_CONSONANTS = 16,
    N_VOWELS = 5,
    N_SYLLABLES = N_CONSONANTS * N_VOWELS,
    N_SHORT = 2 * N_SYLLABLES, // entries: syllables, then the same behind a space
    N_MIDDLE = N_SYLLABLES * N_SYLLABLES,
    UNKNOWN_ID = 128244
};

static const char *syllable(int64_t i, char out[3]) {
    out[0] = "bdfghjklmnprstvz"[i / N_VOWELS % N_CONSONANTS];
    out[1] = "aeiou"[i % N_VOWELS];
    out[2] = 0;
    return out;
}

// The two parts that entry i (from 0, behind the bytes) is merged from. The space is U+0120.
static void parts_of(int64_t i, char left[16], char right[16]) {
    char a[3], b[3];
    if (i < N_SYLLABLES) {
        syllable(i, a);
        snprintf(left, 16, "%c", a[0]);
        snprintf(right, 16, "%c", a[1]);
        return;
    }
    i -= N_SYLLABLES;
    if (i < N_SYLLABLES) {
        snprintf(left, 16, "\xC4\xA0");
        snprintf(right, 16, "%s", syllable(i, b));
        return;
    }
    i -= N_SYLLABLES;
    bool longer = i >= N_MIDDLE;
    if (longer) i -= N_MIDDLE;
    int64_t head = i / N_SYLLABLES;
    snprintf(right, 16, "%s", syllable(i % N_SYLLABLES, b));
    if (longer)
        snprintf(left, 16, "\xC4\xA0%s%s", syllable(head / N_SYLLABLES, a),
            syllable(head % N_SYLLABLES, (char[3]){0}));
    else
        snprintf(left, 16, "\xC4\xA0%s", syllable(head, a));
}

// The characters for bytes in the order of GPT-2's alphabet, ids 0 to 255.
static void add_bytes(kt_buf *out) {
    int id = 0, code = 0;
    for (int b = 33; b < 256; b++) {
        if (b == 127) b = 161;
        if (b == 173) b = 174;
        char text[3] = {(char)b, 0, 0};
        if (b >= 128) {
            text[0] = (char)(0xC0 | b >> 6);
            text[1] = (char)(0x80 | (b & 63));
        }
        kt_buf_printf(out, id ? "," : "");
        add_quoted(out, kt_str_from(text));
        kt_buf_printf(out, ":%d", id++);
    }
    for (code = 256; id < 256; code++, id++) {
        char text[3] = {(char)(0xC0 | code >> 6), (char)(0x80 | (code & 63)), 0};
        kt_buf_printf(out, ",\"%s\":%d", text, id);
    }
}

void kt_words_invent(int64_t vocab, kt_buf *out) {
    char left[16], right[16];
    int64_t n = vocab - KT_WORDS_SPECIAL, most = N_SHORT + N_MIDDLE + N_MIDDLE * N_SYLLABLES;
    int64_t unknown = n > UNKNOWN_ID ? UNKNOWN_ID : n - 1;
    int64_t end = n < 256 + most ? n : 256 + most;
    start(out);
    add_special(out, true, unknown, "<unk>");
    for (int i = 0; i < KT_WORDS_SPECIAL; i++) add_special(out, false, n + i, special[i]);
    add_middle(out);
    kt_buf_printf(out, "{");
    add_bytes(out);
    for (int64_t id = 256; id < end; id++) {
        parts_of(id - 256, left, right);
        if (id == unknown)
            kt_buf_printf(out, ",\n\"<unk>\":%" PRId64, id);
        else
            kt_buf_printf(out, ",\n\"%s%s\":%" PRId64, left, right, id);
    }
    kt_buf_printf(out, "},\n\"merges\": [");
    for (int64_t id = 256, n_merges = 0; id < end; id++) {
        if (id == unknown) continue;
        parts_of(id - 256, left, right);
        kt_buf_printf(out, "%s\"%s %s\"", n_merges++ ? ",\n" : "", left, right);
    }
    kt_buf_printf(out, "]}}\n");
}

// ---- settings

void kt_words_generation(const kt_geometry *g, kt_buf *out) {
    kt_buf_printf(out,
        "{\n  \"_from_model_config\": true,\n  \"bos_token_id\": %" PRId64
        ",\n  \"eos_token_id\": %" PRId64 ",\n  \"transformers_version\": \"4.40.0\"\n}\n",
        g->vocab - 23, g->vocab - 21);
}

void kt_words_preprocessor(const kt_geometry *g, kt_buf *out) {
    kt_buf_printf(out,
        "{\n  \"image_processor_type\": \"MiniCPMVImageProcessor\",\n"
        "  \"processor_class\": \"MiniCPMVProcessor\",\n  \"max_slice_nums\": %" PRId64
        ",\n  \"scale_resolution\": %" PRId64 ",\n  \"patch_size\": %" PRId64
        ",\n  \"use_image_id\": true,\n  \"image_feature_size\": %" PRId64
        ",\n  \"slice_mode\": true,\n  \"norm_mean\": [0.5, 0.5, 0.5],\n"
        "  \"norm_std\": [0.5, 0.5, 0.5],\n  \"version\": 2.6\n}\n",
        g->max_slices, g->side, g->patch, g->queries);
}
