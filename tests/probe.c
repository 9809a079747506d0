#include "tests/probe.h"

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "tests/fabricate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// ---- the model

// Room for ten views in every prompt: the fabricated config says 512.
static kt_status raise_context(kt_arena *arena, const char *folder, kt_err *err) {
    static const char key[] = "\"max_position_embeddings\": ";
    const char *path = kt_path_join(arena, folder, "config.json");
    kt_str text;
    KT_TRY(kt_file_read(arena, path, 1 << 20, &text, err));
    ptrdiff_t at = kt_str_find_text(text, key);
    KT_ASSERT(at >= 0);
    size_t from = (size_t)at + strlen(key), to = from;
    while (text.at[to] >= '0' && text.at[to] <= '9') to++;
    kt_str head = kt_str_slice(text, 0, from), tail = kt_str_slice(text, to, text.n);
    char *out = kt_arena_printf(arena, "%.*s8192%.*s", KT_STR_ARG(head), KT_STR_ARG(tail));
    return kt_os_write_atomic(path, out, strlen(out), err);
}

kt_status probe_folder(const char *folder, const char *tokenizer, int vocab, kt_err *err) {
    fake_model model = fake_vision;
    model.vocab = vocab;
    model.layers = model.vis_layers = 1;
    model.places = 70;
    model.side = 448;
    model.queries = 64;
    model.max_slices = 9;
    kt_arena arena = {0};
    kt_str bytes;
    fabricate(folder, &model);
    kt_status status = raise_context(&arena, folder, err);
    if (status == KT_OK) status = kt_file_read(&arena, tokenizer, 1 << 26, &bytes, err);
    const char *to = kt_path_join(&arena, folder, "tokenizer.json");
    if (status == KT_OK) status = kt_os_write_atomic(to, bytes.at, bytes.n, err);
    kt_arena_deinit(&arena);
    return status;
}

kt_status probe_open(const probe_settings *settings, kt_session **out, kt_err *err) {
    char longest[16], slices[16];
    snprintf(longest, sizeof longest, "%d", settings->longest);
    snprintf(slices, sizeof slices, "%d", settings->slices);
    const kt_setting list[] = {{"image.longest", longest}, {"image.slices", slices},
        {"image.filter", settings->filter}, {"mode", settings->joint ? "joint" : "branches"},
        {"image.orientation", "ignore"}};
    kt_options_run options = {.pipeline = "pipelines/full.yaml",
        .model = settings->folder,
        .settings = list,
        .n_settings = sizeof list / sizeof *list,
        .device = settings->device,
        .max_tokens = 1};
    return kt_session_open(&options, out, NULL, err);
}

// ---- running

int probe_find(const kt_session *session, const char *name) {
    const kt_plan *plan = session->plan;
    for (int i = 0; i < plan->n_names; i++)
        if (kt_str_is(plan->names[i].name, name)) return plan->names[i].tensor;
    KT_ASSERT(false && "the pipeline has a tensor of this name");
    return -1;
}

static kt_status put_outputs(
    kt_session *s, const kt_request *r, const kt_host_call *call, kt_err *err) {
    for (int i = 0; i < call->step->n_out; i++) {
        int t = call->out[i];
        if (t < 0 || s->plan->tensors[t].home == KT_HOME_HOST || !r->blobs[t].data) continue;
        KT_TRY(s->backend->table->put(
            s->backend, t, r->slot, r->blobs[t].data, r->blobs[t].bytes, err));
    }
    return KT_OK;
}

static bool makes(const kt_plan_step *step, int tensor) {
    int n = step->host ? step->host->step->n_out : step->call->op->n_ports;
    const int *list = step->host ? step->host->out : step->call->ports;
    for (int i = 0; i < n; i++)
        if (list[i] == tensor) return true;
    return false;
}

static kt_status run_step(probe *p, const kt_plan_step *step, kt_err *err) {
    kt_session *s = p->session;
    kt_request *r = p->request;
    if (step->call) return s->backend->table->run(s->backend, step, 1, r->values, r->slot, err);
    bool reads_file = kt_str_is(step->host->step->name, "read_image");
    if (reads_file && !r->image_path) return KT_OK; // the caller has given a size
    KT_TRY(kt_host_run(r, step->host, err));
    return put_outputs(s, r, step->host, err);
}

void probe_start(probe *p, kt_session *session, const char *picture) {
    *p = (probe){.session = session, .request = kt_request_open(&session->context, picture, 0)};
}

void probe_size(probe *p, int height, int width) {
    int32_t *size = KT_NEW_ARRAY(&p->request->arena, int32_t, 2);
    size[0] = height;
    size[1] = width;
    p->request->blobs[probe_find(p->session, "image.size")] = (kt_blob){size, 8};
}

kt_status probe_run(probe *p, const char *until, kt_err *err) {
    const kt_plan *plan = p->session->plan;
    int last = probe_find(p->session, until);
    for (; p->stage < plan->n_stages; p->stage++, p->step = 0) {
        const kt_step_list *list = &plan->stages[p->stage].lists[0];
        while (p->step < list->n_steps) {
            const kt_plan_step *step = &list->steps[p->step++];
            KT_TRY(run_step(p, step, err));
            if (makes(step, last)) return KT_OK;
        }
    }
    KT_ASSERT(false && "some step makes the tensor");
    return KT_OK;
}

void probe_end(probe *p) {
    kt_err ignored; // the device may still read what belongs to the request
    (void)p->session->backend->table->wait(p->session->backend, &ignored);
    kt_request_close(p->request);
    p->request = NULL;
}

kt_status probe_get(probe *p, const char *name, probe_tensor *out, kt_err *err) {
    int t = probe_find(p->session, name);
    const kt_request *r = p->request;
    kt_backend *b = p->session->backend;
    int64_t bytes = kt_tensor_bytes(&p->session->plan->tensors[t], r->values);
    void *data = kt_arena_alloc(&p->request->arena, (size_t)bytes);
    KT_TRY(b->table->get(b, t, r->slot, data, bytes, err));
    *out = (probe_tensor){data, bytes};
    return KT_OK;
}

// ---- pictures

static kt_status hash_of(probe *p, const char *name, char hex[65], kt_err *err) {
    probe_tensor t;
    KT_TRY(probe_run(p, name, err));
    KT_TRY(probe_get(p, name, &t, err));
    kt_hash_hex(kt_hash_bytes(t.data, (size_t)t.bytes), hex);
    return KT_OK;
}

static kt_status cut(probe *p, const char *dump, probe_picture *out, kt_err *err) {
    probe_tensor t;
    *out = (probe_picture){0};
    KT_TRY(hash_of(p, "vision.photo", out->photo, err));
    KT_TRY(hash_of(p, "vision.pixels", out->pixels, err));
    if (dump) {
        KT_TRY(probe_get(p, "vision.pixels", &t, err));
        KT_TRY(kt_os_write_atomic(dump, t.data, (size_t)t.bytes, err));
    }
    KT_TRY(hash_of(p, "vision.cells", out->cells, err));
    KT_TRY(probe_get(p, "image.cut.size", &t, err));
    out->targets = t.bytes / 8;
    memcpy(out->target, t.data, (size_t)t.bytes);
    KT_TRY(probe_get(p, "image.view.offset", &t, err));
    out->views = t.bytes / 4 - 1;
    out->patches = ((const int32_t *)t.data)[out->views];
    return KT_OK;
}

kt_status probe_pixels(
    kt_session *session, const char *path, const char *dump, probe_picture *out, kt_err *err) {
    probe p;
    probe_start(&p, session, path);
    kt_status status = cut(&p, dump, out, err);
    probe_end(&p);
    return status;
}

// ---- patterns

static uint8_t noise_at(const probe_pattern *p, int width, int height, int64_t i) {
    uint32_t x = (uint32_t)i * 2654435761u + p->seed * 668265263u + (uint32_t)width * 40503u +
                 (uint32_t)height;
    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    return (uint8_t)x;
}

static uint8_t noise(const probe_pattern *p, int x, int y, int channel) {
    return noise_at(p, p->width, p->height, ((int64_t)y * p->width + x) * 3 + channel);
}

static uint8_t edges(const probe_pattern *p, int x, int y, int channel) {
    int wide = (p->width + 2) / 3, high = (p->height + 2) / 3;
    int64_t cell = ((int64_t)(y / 3) * wide + x / 3) * 3 + channel;
    return noise_at(p, wide, high, cell) >> 7 ? 255 : 0;
}

static uint8_t waves(const probe_pattern *p, int x, int y, int channel) {
    uint32_t at = (uint32_t)x * (3u + (uint32_t)channel) + (uint32_t)y * (5u - (uint32_t)channel) +
                  p->seed * 37u;
    at = at / 4 & 511u;
    return (uint8_t)(at > 255 ? 511 - at : at);
}

typedef struct kind_row {
    const char *name;
    uint8_t (*at)(const probe_pattern *p, int x, int y, int channel);
} kind_row;

static const kind_row kinds[] = {{"noise", noise}, {"edges", edges}, {"waves", waves}};

kt_status probe_write(const char *path, const probe_pattern *p, kt_err *err) {
    uint8_t (*at)(const probe_pattern *p, int x, int y, int channel) = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(p->kind, kinds[i].name) == 0) at = kinds[i].at;
    if (!at) return KT_FAIL(err, KT_EUSAGE, "no pattern '%s'", p->kind);
    // Uncompressed true colour, 24 bit, the first row on top, blue before red.
    const uint8_t head[18] = {[2] = 2,
        [12] = (uint8_t)p->width,
        [13] = (uint8_t)(p->width >> 8),
        [14] = (uint8_t)p->height,
        [15] = (uint8_t)(p->height >> 8),
        [16] = 24,
        [17] = 0x20};
    size_t bytes = sizeof head + 3 * (size_t)p->width * (size_t)p->height;
    uint8_t *file = malloc(bytes), *to = file + sizeof head;
    if (!file) kt_out_of_memory(bytes);
    memcpy(file, head, sizeof head);
    for (int y = 0; y < p->height; y++)
        for (int x = 0; x < p->width; x++, to += 3)
            for (int c = 0; c < 3; c++) to[2 - c] = at(p, x, y, c);
    kt_status status = kt_os_write_atomic(path, file, bytes, err);
    free(file);
    return status;
}

// ---- prompts

enum { MOST_FIELDS = 16 };

static void unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        char c = *from;
        if (c == '\\') {
            c = *++from;
            if (c == 'n') c = '\n';
            if (c == 't') c = '\t';
            if (c == 'r') c = '\r';
        }
        *to++ = c;
    }
    *to = '\0';
}

static int split_fields(char *text, char **fields) {
    int n = 0;
    while (text && n < MOST_FIELDS) {
        char *next = strchr(text, '\t');
        if (next) *next++ = '\0';
        unescape(text);
        fields[n++] = text;
        text = next;
    }
    return n;
}

static kt_status write_prompts(kt_session *s, int width, int height, kt_buf *out, kt_err *err) {
    probe p;
    probe_start(&p, s, NULL);
    if (width > 0)
        probe_size(&p, height, width);
    else
        while (!kt_str_is(s->plan->stages[p.stage].name, "prompt")) p.stage++;
    kt_status status = probe_run(&p, "prompt.prompt", err);
    const kt_prompts *prompts = status == KT_OK ? kt_request_prompts(p.request) : NULL;
    for (int i = 0; prompts && i < prompts->n; i++) {
        for (int64_t k = 0; k < prompts->at[i].n; k++)
            kt_buf_printf(out, "%s%" PRId32, k ? " " : "", prompts->at[i].ids[k]);
        kt_buf_printf(out, "\n");
    }
    probe_end(&p);
    return status;
}

kt_status probe_prompts(kt_session *session, char *line, kt_buf *out, kt_err *err) {
    char *fields[MOST_FIELDS];
    kt_pipe_item items[MOST_FIELDS];
    int n = split_fields(line, fields);
    if (n < 4) return KT_FAIL(err, KT_EUSAGE, "expected width, height, shared text and questions");
    session->context.shared = kt_str_from(fields[2]);
    session->context.items = items;
    session->context.n_items = n - 3;
    for (int i = 3; i < n; i++)
        items[i - 3] = (kt_pipe_item){KT_STR("item"), KT_STR("item"), kt_str_from(fields[i]), -1};
    int width = (int)strtol(fields[0], NULL, 10), height = (int)strtol(fields[1], NULL, 10);
    return write_prompts(session, width, height, out, err);
}

// ---- goldens

typedef struct golden {
    int longest, slices, width, height, views, patches;
    uint32_t seed;
    char filter[16], kind[16], photo[17], pixels[17], cells[17];
} golden;

static bool next_number(FILE *file, int *out) {
    char word[16], *end = NULL;
    if (fscanf(file, "%15s", word) != 1) return false;
    *out = (int)strtol(word, &end, 10);
    return *end == '\0';
}

static bool read_golden(FILE *file, golden *g) {
    int seed;
    bool ok = next_number(file, &g->longest) && fscanf(file, "%15s", g->filter) == 1 &&
              next_number(file, &g->slices) && fscanf(file, "%15s", g->kind) == 1 &&
              next_number(file, &seed) && next_number(file, &g->width) &&
              next_number(file, &g->height) && next_number(file, &g->views) &&
              next_number(file, &g->patches) &&
              fscanf(file, "%16s %16s %16s", g->photo, g->pixels, g->cells) == 3;
    g->seed = ok ? (uint32_t)seed : 0;
    return ok;
}

static bool is_equal(const golden *g, const probe_picture *p) {
    return g->views == p->views && g->patches == p->patches &&
           memcmp(g->photo, p->photo, 16) == 0 && memcmp(g->pixels, p->pixels, 16) == 0 &&
           memcmp(g->cells, p->cells, 16) == 0;
}

// A session for the settings of the line, the last one if they are the same.
static kt_status session_for(
    const golden *g, probe_settings *now, kt_session **session, kt_err *err) {
    bool same = *session && now->longest == g->longest && now->slices == g->slices &&
                strcmp(now->filter, g->filter) == 0;
    if (same) return KT_OK;
    kt_session_close(*session);
    *session = NULL;
    now->longest = g->longest;
    now->slices = g->slices;
    now->filter = strcmp(g->filter, "lanczos") == 0   ? "lanczos"
                  : strcmp(g->filter, "bicubic") == 0 ? "bicubic"
                                                      : "bilinear";
    return probe_open(now, session, err);
}

static kt_status run_goldens(FILE *file, const char *folder, kt_device device, kt_session **session,
    probe_score *out, kt_err *err) {
    kt_arena arena = {0};
    golden g;
    probe_settings now = {.folder = folder, .device = device};
    const char *path = kt_path_join(&arena, folder, "picture.tga");
    kt_status status = KT_OK;
    while (status == KT_OK && read_golden(file, &g)) {
        probe_pattern pattern = {g.kind, g.seed, g.width, g.height};
        probe_picture made;
        status = session_for(&g, &now, session, err);
        if (status == KT_OK) status = probe_write(path, &pattern, err);
        if (status == KT_OK) status = probe_pixels(*session, path, NULL, &made, err);
        if (status != KT_OK) break;
        out->n++;
        if (is_equal(&g, &made))
            out->equal++;
        else
            printf("# %d x %d %s %" PRIu32
                   ", longest %d %s, %d slices: other bytes than Pillow's\n",
                g.width, g.height, g.kind, g.seed, g.longest, g.filter, g.slices);
    }
    kt_arena_deinit(&arena);
    return status;
}

kt_status probe_goldens(kt_device device, const char *folder, probe_score *out, kt_err *err) {
    *out = (probe_score){0};
    FILE *file = kt_os_fopen("tests/data/pixels.txt", "r");
    if (!file) return KT_FAIL(err, KT_EFILE, "no tests/data/pixels.txt here");
    kt_session *session = NULL;
    kt_status status = probe_folder(folder, "tests/data/small_tokenizer.json", 512, err);
    if (status == KT_OK) status = run_goldens(file, folder, device, &session, out, err);
    kt_session_close(session);
    (void)fclose(file);
    return status;
}
