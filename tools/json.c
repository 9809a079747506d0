// What --format json prints.
#include "tools/command.h"

#include <inttypes.h>

// Bytes of the character that begins at text.at[i]; 0 if none does.
static size_t character(kt_str text, size_t i) {
    for (size_t n = 1; n <= 4 && i + n <= text.n; n++)
        if (kt_utf8_valid(kt_str_slice(text, i, i + n))) return n;
    return 0;
}

void kt_json_text(kt_buf *out, kt_str text) {
    static const char *const short_forms[] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r"};
    kt_buf_add(out, "\"", 1);
    for (size_t i = 0; i < text.n;) {
        unsigned char c = (unsigned char)text.at[i];
        size_t n = c < 0x80 ? 1 : character(text, i);
        if (n == 0)
            kt_buf_printf(out, "\\ufffd");
        else if (c == '"' || c == '\\')
            kt_buf_printf(out, "\\%c", c);
        else if (c < sizeof short_forms / sizeof short_forms[0] && short_forms[c])
            kt_buf_printf(out, "%s", short_forms[c]);
        else if (c < 0x20 || c == 0x7f)
            kt_buf_printf(out, "\\u%04x", (unsigned)c);
        else
            kt_buf_add(out, text.at + i, n);
        i += n > 0 ? n : 1;
    }
    kt_buf_add(out, "\"", 1);
}

static void add_items(kt_buf *out, const kt_result *result, bool *cut) {
    for (int i = 0; i < result->n_items; i++) {
        const kt_result_item *item = &result->items[i];
        kt_buf_printf(out, "%s{\"name\": ", i > 0 ? ", " : "");
        kt_json_text(out, item->name);
        kt_buf_printf(out, ", \"title\": ");
        kt_json_text(out, item->title);
        kt_buf_printf(out, ", \"text\": ");
        kt_json_text(out, item->text);
        kt_buf_printf(out, ", \"finish\": \"%s\"}", item->cut ? "length" : "stop");
        *cut = *cut || item->cut;
    }
}

static void add_field(kt_buf *out, const char *name, const char *text) {
    kt_buf_printf(out, "\"%s\": ", name);
    if (text)
        kt_json_text(out, kt_str_from(text));
    else
        kt_buf_printf(out, "null");
    kt_buf_printf(out, ", ");
}

void kt_json_result(kt_buf *out, const kt_result *result) {
    bool cut = false;
    const kt_result_ms *ms = &result->ms;
    kt_buf_printf(out, "{");
    add_field(out, "image", result->image);
    add_field(out, "pipeline", result->pipeline);
    add_field(out, "model", result->model);
    add_field(out, "device", result->device);
    kt_buf_printf(out, "\"items\": [");
    add_items(out, result, &cut);
    kt_buf_printf(out,
        "], \"tokens\": {\"prompt\": %" PRId64 ", \"completion\": %" PRId64
        "}, \"finish\": \"%s\", ",
        result->prompt_tokens, result->completion_tokens, cut ? "length" : "stop");
    kt_buf_printf(out,
        "\"ms\": {\"load\": %.2f, \"prepare\": %.2f, \"image\": %.2f, \"vision\": %.2f, "
        "\"prefill\": %.2f, \"decode\": %.2f, \"total\": %.2f}}\n",
        ms->load, ms->prepare, ms->image, ms->vision, ms->prefill, ms->decode, ms->total);
}

void kt_json_failure(kt_buf *out, const char *image, const kt_err *err) {
    const char *text = err->text[0] ? err->text : kt_status_text(err->code);
    kt_buf_printf(out, "{");
    add_field(out, "image", image);
    kt_buf_printf(out, "\"error\": {\"code\": \"%s\", \"message\": ", kt_status_name(err->code));
    kt_json_text(out, kt_str_from(text));
    kt_buf_printf(out, "}}\n");
}
