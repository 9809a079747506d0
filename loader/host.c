#include "loader/host.h"

#include "loader/yaml.h"

#include <string.h>

// In pieces: C promises no longer literals than 4,095 bytes.
static const char picture_steps[] =
    "read_image:\n"
    "  doc: Decodes a picture, turns it upright, checks its size before anything is allocated.\n"
    "  params:\n"
    "    orientation: { type: choice, of: [exif, ignore], default: exif }\n"
    "  in:\n"
    "    file: image\n"
    "  out:\n"
    "    rgb: u8[px, 3]\n"
    "    size: i32[1, 2]\n"
    "  decides: [px]\n"
    "fit_image:\n"
    "  doc: Coefficients of the first resize; the identity where nothing changes.\n"
    "  params:\n"
    "    longest: { type: int, default: 0 }\n"
    "    filter: { type: choice, of: [lanczos, bicubic, bilinear], default: lanczos }\n"
    "  in:\n"
    "    size: i32[1, 2]\n"
    "  out:\n"
    "    to.size: i32[1, 2]\n"
    "    to.taps: i32[t]\n"
    "  decides: [px, t]\n"
    "slice_image:\n"
    "  doc: Views of one picture by the scheme of the model's 'picture', and their patches.\n"
    "  params:\n"
    "    side: { type: int, doc: pixels of the square that a view fills }\n"
    "    patch: { type: int, doc: side of a patch }\n"
    "    slices: { type: int, doc: close-up views at most }\n"
    "    table: { type: int, doc: side of the square table of position embeddings }\n"
    "    queries: { type: int, doc: image tokens of a view }\n"
    "    mean: { type: f32 }\n"
    "    std: { type: f32 }\n"
    "  in:\n"
    "    size: i32[1, 2]\n"
    "  out:\n"
    "    to.size: i32[m, 2]\n"
    "    to.taps: i32[t]\n"
    "    view.from: i32[views, 3]\n"
    "    view.size: i32[views, 2]\n"
    "    view.offset: i32[views + 1]\n"
    "    view.level: f32[3, 256]\n"
    "    position: i32[patches]\n"
    "    query.row: i32[queried]\n"
    "    query.offset: i32[views + 1]\n"
    "    grid: grid\n"
    "  decides: [m, px, t, views, patches, queried]\n";
static const char prompt_steps[] =
    "write_prompt:\n"
    "  doc: The model's 'chat', 'picture' and tokenizer turn texts into token ids, one prompt a "
    "row.\n"
    "  tokenizer: true\n"
    "  params:\n"
    "    language: { type: language, default: en }\n"
    "    mode: { type: choice, of: [branches, joint], default: branches }\n"
    "  in:\n"
    "    items: items\n"
    "    shared: text?\n"
    "    system: text?\n"
    "    grid: grid?\n"
    "  out:\n"
    "    prompt: prompt\n"
    "    stop: i32[k]?\n"
    "  decides: [r, k]\n"
    "write_text:\n"
    "  doc: Each item's text as it is to token ids, without the model's 'chat'; one prompt a row.\n"
    "  tokenizer: true\n"
    "  params:\n"
    "    before: { type: string, default: \"\", doc: markup before every text (the name of a token "
    "that begins texts) }\n"
    "    language: { type: language, default: en }\n"
    "    mode: { type: choice, of: [branches], default: branches }\n"
    "  in:\n"
    "    items: items\n"
    "    shared: text?\n"
    "  out:\n"
    "    prompt: prompt\n"
    "    stop: i32[k]?\n"
    "  decides: [r, k]\n"
    "write_ids:\n"
    "  doc: Each item's list of token ids (1 34 567); one prompt a row.\n"
    "  params:\n"
    "    vocab: { type: int, min: 1, doc: ids are below it }\n"
    "    language: { type: language, default: en }\n"
    "    mode: { type: choice, of: [branches], default: branches }\n"
    "  in:\n"
    "    items: items\n"
    "    shared: text?\n"
    "  out:\n"
    "    prompt: prompt\n"
    "    stop: i32[k]?\n"
    "  decides: [r, k]\n"
    "plan_rows:\n"
    "  doc: Longest common prefix in whole pages, pages of every row, chunks of segments, start "
    "state.\n"
    "  params:\n"
    "    max_new: { type: int }\n"
    "    seed: { type: int, default: 0 }\n"
    "  in:\n"
    "    prompt: prompt\n"
    "    items: items\n"
    "  inout:\n"
    "    table: i32[r, width]\n"
    "    gen.next: i32[r]\n"
    "    gen.segments: i32[r, 4]\n"
    "    gen.left: i32[r]\n"
    "    gen.made: i32[r]\n"
    "    gen.tokens: i32[r, most]\n"
    "    gen.seen: u32[r, words]\n"
    "    gen.rng: u32[r, 4]\n"
    "  out:\n"
    "    chunk.ids: each i32[n]\n"
    "    chunk.segments: each i32[g, 4]\n"
    "  decides: [n, g]\n"
    "plan_score:\n"
    "  doc: Pages of every row, chunks of segments of all tokens, and the token after each; rows "
    "share nothing.\n"
    "  in:\n"
    "    prompt: prompt\n"
    "  inout:\n"
    "    table: i32[r, width]\n"
    "    score.logp: f32[r, room]\n"
    "    score.best: i32[r, room]\n"
    "  out:\n"
    "    chunk.ids: each i32[n]\n"
    "    chunk.next: each i32[n]\n"
    "    chunk.segments: each i32[g, 4]\n"
    "  decides: [n, g]\n";
static const char answer_steps[] =
    "read_answers:\n"
    "  doc: Token ids to text as they come, never half a character.\n"
    "  tokenizer: true\n"
    "  params:\n"
    "    language: { type: language, default: en }\n"
    "    mode: { type: choice, of: [branches, joint], default: branches }\n"
    "  in:\n"
    "    tokens: i32[r, most]\n"
    "    made: i32[r]\n"
    "    items: items\n"
    "  out:\n"
    "    answers: answers\n"
    "read_ids:\n"
    "  doc: The token ids of each row as numbers, without the one that ended it.\n"
    "  in:\n"
    "    tokens: i32[r, most]\n"
    "    made: i32[r]\n"
    "    items: items\n"
    "  out:\n"
    "    answers: answers\n"
    "read_score:\n"
    "  doc: What score_tokens found of each text - its mean log-probability and perplexity, or the "
    "numbers of each token.\n"
    "  params:\n"
    "    show: { type: choice, of: [summary, logp, best], default: summary }\n"
    "  in:\n"
    "    prompt: prompt\n"
    "    items: items\n"
    "    logp: f32[r, room]\n"
    "    best: i32[r, room]\n"
    "  out:\n"
    "    answers: answers\n";

const char *kt_host_text(kt_arena *arena) {
    return kt_arena_printf(arena, "%s%s%s", picture_steps, prompt_steps, answer_steps);
}

static const kt_host_port *read_ports(
    kt_arena *arena, const kt_node *map, kt_diag *diag, int *n, bool *ok) {
    *n = map ? (int)map->n : 0;
    kt_host_port *out = KT_NEW_ARRAY(arena, kt_host_port, *n);
    for (int i = 0; i < *n; i++) {
        out[i].name = map->pairs[i].key;
        *ok = kt_type_parse(arena, map->pairs[i].value, NULL, 0, diag, &out[i].type) && *ok;
    }
    return out;
}

static const kt_node *part(const kt_node *map, const char *key) {
    const kt_pair *pair = kt_node_find(map, key);
    return pair ? pair->value : NULL;
}

static bool read_step(kt_arena *arena, const kt_pair *pair, kt_diag *diag, kt_host_step *out) {
    const kt_node *map = pair->value, *params = part(map, "params"),
                  *decides = part(map, "decides");
    bool ok = true;
    out->name = pair->key;
    out->doc = part(map, "doc")->text;
    if (part(map, "tokenizer")) ok = kt_schema_bool(part(map, "tokenizer"), diag, &out->tokenizer);
    out->in = read_ports(arena, part(map, "in"), diag, &out->n_in, &ok);
    out->inout = read_ports(arena, part(map, "inout"), diag, &out->n_inout, &ok);
    out->out = read_ports(arena, part(map, "out"), diag, &out->n_out, &ok);
    out->n_params = params ? (int)params->n : 0;
    kt_param *list = KT_NEW_ARRAY(arena, kt_param, out->n_params);
    for (int i = 0; i < out->n_params; i++) {
        const kt_pair *p = &params->pairs[i];
        ok = kt_param_parse(arena, p->key, p->at, p->value, diag, &list[i]) && ok;
    }
    out->params = list;
    out->n_decides = decides ? (int)decides->n : 0;
    kt_str *names = KT_NEW_ARRAY(arena, kt_str, out->n_decides);
    for (int i = 0; i < out->n_decides; i++) names[i] = decides->items[i]->text;
    out->decides = names;
    return ok;
}

const kt_host_step *kt_host_table(kt_arena *arena, int *n) {
    kt_diag diag;
    kt_diag_init(&diag, arena);
    const kt_node *root =
        kt_yaml_parse(arena, kt_str_from(kt_host_text(arena)), "(host steps)", &diag);
    KT_ASSERT(root && root->kind == KT_NODE_MAP);
    kt_host_step *steps = KT_NEW_ARRAY(arena, kt_host_step, root->n);
    bool ok = true;
    for (size_t i = 0; i < root->n; i++)
        ok = read_step(arena, &root->pairs[i], &diag, &steps[i]) && ok;
    KT_ASSERT(ok && diag.n_errors == 0);
    *n = (int)root->n;
    return steps;
}
