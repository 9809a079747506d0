#include "loader/yaml.h"

#include "runtime/base/file.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum {
    MAX_BYTES = 4 * 1024 * 1024,
    MAX_DEPTH = 32,
    MAX_NODES = 100000,
    HASHED_KEYS = 16 // from here on a map's keys are looked up in a table while it is read
};

// A map or list that is being read.
typedef struct frame {
    kt_node *node;
    bool flow;
    bool told; // a missing value was reported here: one message says how to fix them all
    bool has_key;
    kt_pair pair; // the key that waits for its value
    KT_VEC(const kt_node *) items;
    KT_VEC(kt_pair) pairs;
    kt_table seen; // keys of the first n_seen pairs
    size_t n_seen;
} frame;

typedef struct reader {
    kt_arena *arena;
    kt_diag *diag;
    const kt_source *source;
    frame stack[MAX_DEPTH];
    int depth;
    int n_nodes;
    const kt_node *root;
    bool stop;
    int line; // a place in the text that only moves by small steps: line, column and byte of the
              // newest mark
    size_t col, byte;
} reader;

// ---- the text and its lines

// Bytes of the line break at text[i], as libyaml counts lines; 0 if there is none.
static size_t break_bytes(kt_str text, size_t i) {
    const unsigned char *p = (const unsigned char *)text.at + i;
    size_t left = text.n - i;
    if (p[0] == '\r') return left > 1 && p[1] == '\n' ? 2 : 1;
    if (p[0] == '\n') return 1;
    if (left > 1 && p[0] == 0xc2 && p[1] == 0x85) return 2;
    if (left > 2 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9)) return 3;
    return 0;
}

static const kt_source *make_source(kt_arena *arena, kt_str text, const char *shown) {
    KT_VEC(size_t) starts = {0};
    KT_PUSH(arena, &starts, 0);
    for (size_t i = 0; i < text.n;) {
        size_t n = break_bytes(text, i);
        i += n == 0 ? 1 : n;
        if (n > 0) KT_PUSH(arena, &starts, i);
    }
    kt_source *source = KT_NEW(arena, kt_source);
    *source =
        (kt_source){kt_arena_copy(arena, shown, strlen(shown)), text, starts.at, (int)starts.n};
    return source;
}

static int column_of(kt_str text, size_t line_start, size_t byte) {
    return (int)kt_utf8_count(kt_str_slice(text, line_start, byte)) + 1;
}

// Refuses what libyaml would refuse without a place, or take too long over: control characters,
// text that is not UTF-8, directives (libyaml compares each with all others).
static bool check_line(const kt_source *source, int line, kt_diag *diag) {
    size_t from = source->line_starts[line];
    size_t to = line + 1 == source->n_lines ? source->text.n : source->line_starts[line + 1];
    kt_str text = kt_str_slice(source->text, from, to);
    kt_place at = {source, line + 1, 1, 1};
    if (text.n > 0 && text.at[0] == '%')
        return kt_diag_error(diag, KT_RULE_YAML, at,
            "a line that starts with '%%' is a directive, which is not used here");
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.at[i];
        if (c >= 0x20 && c != 0x7f) continue;
        if (c == '\t' || c == '\n' || c == '\r') continue;
        at.col = column_of(source->text, from, from + i);
        return kt_diag_error(
            diag, KT_RULE_YAML, at, "the file holds a control character (byte %d)", c);
    }
    if (kt_utf8_valid(text)) return true;
    size_t bad = 0;
    while (bad < text.n) {
        unsigned char lead = (unsigned char)text.at[bad];
        size_t n = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
        if (n > text.n - bad || !kt_utf8_valid(kt_str_slice(text, bad, bad + n))) break;
        bad += n;
    }
    at.col = (int)bad + 1;
    kt_diag_error(diag, KT_RULE_YAML, at, "the file is not UTF-8 text");
    kt_diag_note(diag, "save it as UTF-8");
    return false;
}

static bool check_text(const kt_source *source, kt_diag *diag) {
    for (int i = 0; i < source->n_lines; i++) {
        if (!check_line(source, i, diag)) return false;
    }
    return true;
}

// ---- marks

static kt_place place_of(const reader *r, yaml_mark_t mark) {
    return (kt_place){r->source, (int)mark.line + 1, (int)mark.column + 1, 1};
}

static bool is_continuation(kt_str text, size_t i) {
    return ((unsigned char)text.at[i] & 0xc0U) == 0x80U;
}

// The byte at a mark. Marks come in the order of the text, so that all calls together read it about
// once, even where the file is a single long line.
static size_t byte_of(reader *r, yaml_mark_t mark) {
    kt_str text = r->source->text;
    if ((int)mark.line >= r->source->n_lines) return text.n;
    if ((int)mark.line != r->line) {
        r->line = (int)mark.line;
        r->col = 0;
        r->byte = r->source->line_starts[mark.line];
    }
    while (r->col < mark.column && r->byte < text.n) {
        r->byte++;
        while (r->byte < text.n && is_continuation(text, r->byte)) r->byte++;
        r->col++;
    }
    while (r->col > mark.column) {
        r->byte--;
        while (is_continuation(text, r->byte)) r->byte--;
        r->col--;
    }
    return r->byte;
}

static bool stands_at(kt_str text, size_t byte, kt_str part) {
    return byte <= text.n && part.n <= text.n - byte &&
           kt_str_eq(kt_str_slice(text, byte, byte + part.n), part);
}

// ---- building the tree

static bool give_up(reader *r, kt_rule rule, kt_place at, const char *message) {
    r->stop = true;
    return kt_diag_error(r->diag, rule, at, "%s", message);
}

static kt_node *new_node(reader *r, kt_node_kind kind, yaml_mark_t start) {
    kt_node *node = KT_NEW(r->arena, kt_node);
    node->kind = kind;
    node->at = place_of(r, start);
    node->flow = r->depth > 0 && r->stack[r->depth - 1].flow;
    if (++r->n_nodes > MAX_NODES)
        give_up(r, KT_RULE_LIMIT, node->at, "the file has more than 100,000 values");
    return node;
}

static void refuse_anchor(reader *r, kt_place at) {
    kt_diag_error(r->diag, KT_RULE_YAML, at, "anchors and aliases (& and *) are not used here");
    kt_diag_note(
        r->diag, "write the value out, or put quotes around a text that starts with & or *");
}

static void refuse_marks(
    reader *r, kt_place at, const yaml_char_t *anchor, const yaml_char_t *tag) {
    if (anchor != NULL) refuse_anchor(r, at);
    if (tag == NULL) return;
    kt_diag_error(r->diag, KT_RULE_YAML, at, "tags (!) are not used here");
    kt_diag_note(r->diag, "put quotes around a text that starts with !");
}

static void add_value(reader *r, const kt_node *node) {
    if (r->depth == 0) {
        r->root = node;
        return;
    }
    frame *top = &r->stack[r->depth - 1];
    if (top->node->kind == KT_NODE_LIST) {
        KT_PUSH(r->arena, &top->items, node); // NOLINT(bugprone-sizeof-expression): pointers
        return;
    }
    top->pair.value = node;
    KT_PUSH(r->arena, &top->pairs, top->pair);
    top->has_key = false;
}

static bool wants_key(const reader *r) {
    return r->depth > 0 && r->stack[r->depth - 1].node->kind == KT_NODE_MAP &&
           !r->stack[r->depth - 1].has_key;
}

static const kt_pair *find_earlier(frame *top, kt_str key) {
    int64_t at;
    if (top->pairs.n < HASHED_KEYS) {
        for (size_t i = 0; i < top->pairs.n; i++) {
            if (kt_str_eq(top->pairs.at[i].key, key)) return &top->pairs.at[i];
        }
        return NULL;
    }
    for (; top->n_seen < top->pairs.n; top->n_seen++) {
        kt_str name = top->pairs.at[top->n_seen].key;
        if (!kt_table_find(&top->seen, name, &at))
            kt_table_set(&top->seen, name, (int64_t)top->n_seen);
    }
    return kt_table_find(&top->seen, key, &at) ? &top->pairs.at[at] : NULL;
}

static void take_key(reader *r, const kt_node *node) {
    frame *top = &r->stack[r->depth - 1];
    kt_str key = node->text;
    if (key.n == 0 && !node->quoted) {
        kt_diag_error(r->diag, KT_RULE_YAML, node->at, "a key is missing before ':'");
    } else if (kt_str_is(key, "<<") && !node->quoted) {
        kt_diag_error(r->diag, KT_RULE_YAML, node->at, "merge keys (<<) are not used here");
        kt_diag_note(r->diag, "write the keys out");
    } else {
        const kt_pair *earlier = find_earlier(top, key);
        if (earlier != NULL) {
            kt_diag_error(r->diag, KT_RULE_KEY, node->at, "key '%.*s' is given twice in one map",
                KT_STR_ARG(key));
            kt_diag_note_at(r->diag, earlier->at, "it is given first");
        }
    }
    top->pair = (kt_pair){.key = key, .at = node->at};
    top->has_key = true;
}

static void refuse_empty(reader *r, const kt_node *node) {
    frame *top = r->depth > 0 ? &r->stack[r->depth - 1] : NULL;
    if (top != NULL && top->told) return;
    if (top == NULL) {
        kt_diag_error(r->diag, KT_RULE_YAML, node->at, "the file has no content");
    } else if (top->node->kind == KT_NODE_LIST) {
        kt_diag_error(r->diag, KT_RULE_YAML, node->at, "an entry of this list has no value");
    } else {
        kt_diag_error(r->diag, KT_RULE_YAML, top->pair.at, "key '%.*s' has no value",
            KT_STR_ARG(top->pair.key));
    }
    if (top == NULL || !top->flow) return;
    top->told = true;
    kt_diag_note(r->diag,
        "inside { } and [ ] a comma starts the next entry: put quotes around a type, "
        "expression or text that holds one, or write one key a line");
}

static void read_scalar(reader *r, const yaml_event_t *event) {
    kt_node *node = new_node(r, KT_NODE_SCALAR, event->start_mark);
    const char *value = (const char *)event->data.scalar.value;
    node->text = (kt_str){
        kt_arena_copy(r->arena, value, event->data.scalar.length), event->data.scalar.length};
    yaml_scalar_style_t style = event->data.scalar.style;
    node->quoted = style != YAML_PLAIN_SCALAR_STYLE;
    refuse_marks(r, node->at, event->data.scalar.anchor, event->data.scalar.tag);
    bool marked = event->data.scalar.anchor != NULL || event->data.scalar.tag != NULL;
    bool block = style == YAML_LITERAL_SCALAR_STYLE || style == YAML_FOLDED_SCALAR_STYLE;
    size_t quote = node->quoted ? 1 : 0;
    size_t byte = byte_of(r, event->start_mark);
    bool one_line = event->start_mark.line == event->end_mark.line && !block && !marked;
    if (one_line && stands_at(r->source->text, byte + quote, node->text)) {
        size_t width = kt_utf8_count(node->text);
        node->exact = true;
        node->at.col += (int)quote;
        node->at.width = width == 0 ? 1 : (int)width;
    }
    if (wants_key(r)) {
        take_key(r, node);
        return;
    }
    if (node->text.n == 0 && !node->quoted && !marked) refuse_empty(r, node);
    add_value(r, node);
}

static void open_frame(reader *r, kt_node_kind kind, const yaml_event_t *event, bool flow) {
    kt_place at = place_of(r, event->start_mark);
    if (wants_key(r)) {
        give_up(r, KT_RULE_YAML, at, "a key is a word, not a list or a map");
        return;
    }
    if (r->depth == MAX_DEPTH) {
        give_up(r, KT_RULE_LIMIT, at, "lists and maps are nested deeper than 32");
        return;
    }
    kt_node *node = new_node(r, kind, event->start_mark);
    frame *top = &r->stack[r->depth++];
    *top = (frame){.node = node, .flow = flow};
    kt_table_init(&top->seen, r->arena);
}

static void close_frame(reader *r) {
    frame *top = &r->stack[--r->depth];
    top->node->items = top->items.at;
    top->node->pairs = top->pairs.at;
    top->node->n = top->node->kind == KT_NODE_LIST ? top->items.n : top->pairs.n;
    add_value(r, top->node);
}

static void read_event(reader *r, const yaml_event_t *event) {
    kt_place at = place_of(r, event->start_mark);
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (r->root != NULL)
            give_up(r, KT_RULE_YAML, at, "a second document starts here; a file holds one");
        break;
    case YAML_SCALAR_EVENT:
        read_scalar(r, event);
        break;
    case YAML_SEQUENCE_START_EVENT:
        refuse_marks(r, at, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        open_frame(
            r, KT_NODE_LIST, event, event->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE);
        break;
    case YAML_MAPPING_START_EVENT:
        refuse_marks(r, at, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        open_frame(
            r, KT_NODE_MAP, event, event->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE);
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        close_frame(r);
        break;
    case YAML_ALIAS_EVENT:
        refuse_anchor(r, at);
        if (wants_key(r))
            r->stop = true;
        else
            add_value(r, new_node(r, KT_NODE_SCALAR, event->start_mark));
        break;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
}

// ---- libyaml's own complaints, in our words

typedef struct complaint {
    const char *problem; // how libyaml's text starts
    bool at_context;     // the place that helps is where the construct began
    const char *message;
    const char *note; // may be NULL
} complaint;

static const char commas[] =
    "inside { } put quotes around a type, expression or text with commas or brackets, "
    "or write one key a line";

static const complaint complaints[] = {
    {"did not find expected ',' or '}'", false, "',' or '}' is expected here", commas},
    {"did not find expected ',' or ']'", false, "',' or ']' is expected here",
        "is a ']' missing? Put quotes around an entry that holds brackets or ': '"},
    {"mapping values are not allowed", false, "a ':' cannot stand here",
        "put quotes around a text that holds ': ', and check the indentation of this line"},
    {"could not find expected ':'", true, "this line is no 'key: value'",
        "is the ':' or the blank after it missing?"},
    {"did not find expected key", false, "a key is expected here",
        "is the indentation of this line that of the keys above it? A text that starts with a "
        "quote must end with it"},
    {"did not find expected '-' indicator", false, "an entry '- ...' is expected here",
        "are the entries of this list indented alike?"},
    {"block sequence entries are not allowed", false, "'- ' cannot start a list here",
        "start it on a line of its own"},
    {"block mapping values are not allowed", false, "a key cannot stand here", NULL},
    {"found character that cannot start any token", false, "no value starts with this character",
        "put quotes around the text"},
    {"found unexpected end of stream", true, "this quote is never closed", NULL},
    {"found unexpected document indicator", true, "this quote is never closed", NULL},
    {"found a tab character", false, "a tab cannot indent a line", "use blanks"},
    {"found unknown escape character", false, "unknown escape in a text with double quotes",
        "write \\\\ for a backslash, or use single quotes"},
    {"did not find expected alphabetic or numeric character", false,
        "anchors and aliases (& and *) are not used here",
        "put quotes around a text that starts with & or *"},
    {"did not find expected <document start>", false, "this does not belong to the document",
        "is the indentation of this line that of the keys above it?"},
    {"did not find expected node content", false, "a value is missing here", commas},
};

static kt_place place_of_byte(const kt_source *source, size_t byte) {
    int line = source->n_lines;
    while (line > 1 && source->line_starts[line - 1] > byte) line--;
    size_t start = source->line_starts[line - 1];
    size_t end = byte < source->text.n ? byte : source->text.n;
    return (kt_place){source, line, column_of(source->text, start, end), 1};
}

static char char_at(reader *r, yaml_mark_t mark) {
    size_t byte = byte_of(r, mark);
    if (byte >= r->source->text.n) return 0;
    return r->source->text.at[byte];
}

static void report_problem(reader *r, const yaml_parser_t *parser) {
    const char *problem = parser->problem == NULL ? "no reason given" : parser->problem;
    if (parser->error == YAML_MEMORY_ERROR) kt_out_of_memory(r->source->text.n);
    if (parser->error == YAML_READER_ERROR) {
        kt_diag_error(r->diag, KT_RULE_YAML, place_of_byte(r->source, parser->problem_offset),
            "the file holds a character that YAML does not allow");
        return;
    }
    char bad = char_at(r, parser->problem_mark);
    if (strncmp(problem, "found character that cannot start", 33) == 0 && bad != '\t') {
        kt_diag_error(r->diag, KT_RULE_YAML, place_of(r, parser->problem_mark),
            "'%c' cannot start a value", bad);
        kt_diag_note(r->diag, "put quotes around the text");
        return;
    }
    if (strncmp(problem, "did not find expected key", 25) == 0 && bad == '-') {
        kt_diag_error(r->diag, KT_RULE_YAML, place_of(r, parser->problem_mark),
            "a list cannot start among keys");
        kt_diag_note(r->diag, "it belongs below a key, 'steps:' for one");
        return;
    }
    for (size_t i = 0; i < sizeof complaints / sizeof complaints[0]; i++) {
        const complaint *row = &complaints[i];
        if (strncmp(problem, row->problem, strlen(row->problem)) != 0) continue;
        yaml_mark_t mark = row->at_context ? parser->context_mark : parser->problem_mark;
        bool tab = row->note != NULL && !row->at_context && char_at(r, mark) == '\t';
        kt_diag_error(r->diag, KT_RULE_YAML, place_of(r, mark), "%s",
            tab ? "a tab cannot indent a line" : row->message);
        if (row->note != NULL) kt_diag_note(r->diag, "%s", tab ? "use blanks" : row->note);
        return;
    }
    kt_diag_error(r->diag, KT_RULE_YAML, place_of(r, parser->problem_mark),
        "this cannot be read: %s", problem);
}

static void read_events(reader *r, yaml_parser_t *parser) {
    bool end = false;
    while (!end && !r->stop) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            report_problem(r, parser);
            return;
        }
        end = event.type == YAML_STREAM_END_EVENT;
        read_event(r, &event);
        yaml_event_delete(&event);
    }
}

// ---- public

const kt_node *kt_yaml_parse(kt_arena *arena, kt_str text, const char *shown, kt_diag *diag) {
    int errors = diag->n_errors;
    if (text.n >= 3 && memcmp(text.at, "\xef\xbb\xbf", 3) == 0)
        text = kt_str_slice(text, 3, text.n);
    if (text.n > MAX_BYTES) {
        kt_diag_error(diag, KT_RULE_LIMIT, (kt_place){0}, "'%s' is larger than 4 MiB", shown);
        return NULL;
    }
    const kt_source *source = make_source(arena, text, shown);
    if (!check_text(source, diag)) return NULL;
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) kt_out_of_memory(sizeof parser);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.at, text.n);
    reader *r = KT_NEW(arena, reader);
    r->arena = arena;
    r->diag = diag;
    r->source = source;
    read_events(r, &parser);
    yaml_parser_delete(&parser);
    if (diag->n_errors != errors) return NULL;
    if (r->root == NULL)
        kt_diag_error(diag, KT_RULE_YAML, (kt_place){source, 1, 1, 1}, "the file has no content");
    return r->root;
}

const kt_node *kt_yaml_open(kt_arena *arena, const char *path, const char *shown, kt_diag *diag) {
    kt_str text;
    kt_err err;
    // One byte more than allowed, and a byte order mark: the parser says what is wrong.
    if (kt_file_read(arena, path, MAX_BYTES + 4, &text, &err) != KT_OK) {
        kt_diag_error(diag, KT_RULE_FILE, (kt_place){0}, "%s", err.text);
        return NULL;
    }
    return kt_yaml_parse(arena, text, shown, diag);
}

const kt_pair *kt_node_find_str(const kt_node *map, kt_str key) {
    if (map == NULL || map->kind != KT_NODE_MAP) return NULL;
    for (size_t i = 0; i < map->n; i++) {
        if (kt_str_eq(map->pairs[i].key, key)) return &map->pairs[i];
    }
    return NULL;
}

const kt_pair *kt_node_find(const kt_node *map, const char *key) {
    return kt_node_find_str(map, kt_str_from(key));
}

const char *kt_node_kind_name(const kt_node *node) {
    switch (node->kind) {
    case KT_NODE_SCALAR:
        return "a text";
    case KT_NODE_LIST:
        return "a list";
    case KT_NODE_MAP:
        return "a map";
    }
    return "";
}
