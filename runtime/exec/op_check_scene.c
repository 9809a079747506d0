// Values of op tests that depend on each other: segments and page tables, ragged offsets and grids,
// pictures and their views, resize tables, a sampler's state.
#include "runtime/exec/op_check_parts.h"

#include "loader/resize.h"
#include "runtime/base/f16.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 16, FAR = 4096, LISTED = 4096 };

// Made once for a test, when first asked for.
struct kt_check_scene {
    int32_t *segments, *table;
    int32_t *offsets[8]; // of the totals, by dim
    int total_dims[8];
    int n_offsets;
    int32_t *grids;              // [views, 2]
    int32_t *target, *from;      // pictures [m, 2]; views [views, 3]
    int32_t *source, *to, *taps; // a resize: [1, 2], [m, 2], [t]
};

static int dim_named(const kt_check_data *data, const char *name) {
    return kt_op_dim_find(data->of->op, kt_str_from(name));
}

// The value of a dim by its name; `none` if the op has no such dim.
static int64_t size(const kt_check_data *data, const char *name, int64_t none) {
    int dim = dim_named(data, name);
    return dim >= 0 ? data->of->dims[dim] : none;
}

static void set_size(kt_check_data *data, const char *name, int64_t value) {
    int dim = dim_named(data, name);
    if (dim >= 0) data->of->dims[dim] = value;
}

static bool uses(const kt_check_data *data, const char *word) {
    return kt_check_uses(data->of->op, word);
}

static int32_t *ints(kt_check_data *data, int64_t n) {
    return KT_NEW_ARRAY(data->arena, int32_t, n + 1);
}

static int64_t pick(kt_check_data *data, int64_t low, int64_t high) {
    return kt_random_pick(&data->random, low, high);
}

static bool coin(kt_check_data *data, int of) {
    return pick(data, 1, of) == 1;
}

static int32_t *permutation(kt_check_data *data, int64_t n) {
    int32_t *out = ints(data, n);
    for (int64_t i = 0; i < n; i++) out[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = pick(data, 0, i);
        int32_t t = out[i];
        out[i] = out[k];
        out[k] = t;
    }
    return out;
}

static int compare_ints(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

// The part that is to be empty; -1: chance decides.
static int64_t empty_part(const kt_check_data *data, int64_t parts) {
    kt_check_form form = data->of->form;
    if (parts == 0 || form == KT_FORM_ANY || form == KT_FORM_SHARED) return -1;
    return form == KT_FORM_EMPTY_FIRST ? 0 : form == KT_FORM_EMPTY_LAST ? parts - 1 : parts / 2;
}

// parts + 1 rising numbers from 0 to total: equal neighbours are empty parts.
static int32_t *cuts(kt_check_data *data, int64_t total, int64_t parts) {
    int32_t *out = ints(data, parts + 1);
    for (int64_t i = 1; i < parts; i++)
        out[i] = coin(data, 4) && i > 1 ? out[i - 1] : (int32_t)pick(data, 0, total);
    if (parts > 0) out[parts] = (int32_t)total;
    qsort(out, (size_t)parts + 1, sizeof *out, compare_ints);
    int64_t empty = empty_part(data, parts);
    if (empty >= 0 && empty + 1 < parts) out[empty + 1] = out[empty];
    if (empty > 0 && empty + 1 == parts) out[empty] = out[parts];
    return out;
}

// ---- segments and pages

// Lengths and places in the batch; some tokens may be in no segment, some segments empty.
static void make_lengths(kt_check_data *data, int32_t *segments, int64_t n, int64_t g) {
    int64_t empty = empty_part(data, g);
    if (n == g && coin(data, 2)) { // a decode step
        for (int64_t i = 0; i < g; i++) {
            segments[4 * i + 2] = i == empty || coin(data, 8) ? 0 : 1;
            segments[4 * i + 3] = (int32_t)i;
        }
        return;
    }
    int64_t covered = coin(data, 4) ? pick(data, 0, n) : n, base = pick(data, 0, n - covered);
    int32_t *at = cuts(data, covered, g);
    for (int64_t i = 0; i < g; i++) {
        segments[4 * i + 2] = at[i + 1] - at[i];
        segments[4 * i + 3] = (int32_t)base + at[i];
    }
}

typedef struct pages {
    int32_t *order;                        // a permutation of the pool
    int64_t n, next, shared, width, later; // later: pages that rows still to come need at least
    int32_t *table;
} pages;

static int64_t pages_of(int64_t tokens) {
    return (tokens + PAGE - 1) / PAGE;
}

// Where a row of `tokens` new tokens starts, and its pages: those it writes are its own, those
// before may be shared with other rows. Returns how many tokens have room.
static int64_t place_row(
    kt_check_data *data, pages *p, int64_t row, int64_t tokens, int64_t *start) {
    int64_t room = p->n - p->next - p->later, cap = p->width * PAGE;
    if (tokens > cap) tokens = cap;
    if (pages_of(tokens) > room) tokens = room > 0 ? room * PAGE : 0;
    int64_t behind = data->of->form == KT_FORM_SHARED ? p->shared * PAGE : 0;
    *start = pick(data, behind < cap - tokens ? behind : cap - tokens, cap - tokens);
    if (coin(data, 3)) *start = *start / PAGE * PAGE;
    if (pages_of(*start + tokens) - *start / PAGE > room) *start = *start / PAGE * PAGE;
    int64_t first = *start / PAGE, end = tokens > 0 ? pages_of(*start + tokens) : first;
    int64_t own = end - first;
    for (int64_t j = 0; j < p->width; j++) {
        int32_t *entry = &p->table[row * p->width + j];
        *entry = coin(data, 2) && p->n > 0 ? (int32_t)pick(data, 0, p->n - 1) : 0;
        bool mine = j >= first && j < end;
        if (mine || (j < first && j >= p->shared && p->n - p->next - p->later > own)) {
            *entry = p->order[p->next++];
            own -= mine;
        } else if (j < first && j < p->shared) {
            *entry = p->order[j];
        }
    }
    return tokens;
}

static void make_segments(kt_check_data *data) {
    kt_check_scene *scene = data->scene;
    int64_t n = size(data, "n", 0), g = size(data, "g", 0), rows = size(data, "rows", g);
    bool paged = uses(data, "pages");
    pages p = {.n = size(data, "pages", 0), .width = size(data, "width", 0)};
    scene->segments = ints(data, 4 * g);
    scene->table = p.table = ints(data, rows * p.width);
    make_lengths(data, scene->segments, n, g);
    p.order = permutation(data, p.n);
    int64_t least = data->of->form == KT_FORM_SHARED && p.n > 3 && p.width > 1;
    p.shared = p.next = pick(data, least, p.n / 3 < p.width ? p.n / 3 : p.width);
    int32_t *order = permutation(data, rows);
    int64_t *tokens = KT_NEW_ARRAY(data->arena, int64_t, rows + 1);
    int64_t *at = KT_NEW_ARRAY(data->arena, int64_t, rows + 1);
    for (int64_t i = 0; i < g && rows > 0; i++)
        tokens[order[i % rows]] += scene->segments[4 * i + 2];
    for (int64_t r = 0; r < rows; r++) p.later += pages_of(tokens[r]);
    for (int64_t r = 0; r < rows; r++) {
        p.later -= pages_of(tokens[r]);
        at[r] = pick(data, 0, FAR);
        if (paged) tokens[r] = place_row(data, &p, r, tokens[r], &at[r]);
    }
    for (int64_t i = 0; i < g; i++) {
        int32_t *segment = &scene->segments[4 * i];
        if (rows == 0) {
            segment[2] = 0;
            continue;
        }
        int64_t r = order[i % rows];
        if (segment[2] > tokens[r]) segment[2] = (int32_t)tokens[r];
        tokens[r] -= segment[2];
        segment[0] = (int32_t)r;
        segment[1] = (int32_t)at[r];
        at[r] += segment[2];
    }
}

// ---- ragged offsets and grids

// "q_offset" counts in dim nq, "offset" in dim n.
static int total_dim(const kt_check_data *data, kt_str port) {
    ptrdiff_t cut = kt_str_find(port, '_');
    char name[64] = "n";
    if (cut > 0 && cut < 60) {
        memcpy(name + 1, port.at, (size_t)cut);
        name[cut + 1] = 0;
    }
    int dim = dim_named(data, name);
    return dim >= 0 ? dim : dim_named(data, "n");
}

static int32_t *offsets(kt_check_data *data, int dim) {
    kt_check_scene *scene = data->scene;
    for (int i = 0; i < scene->n_offsets; i++)
        if (scene->total_dims[i] == dim) return scene->offsets[i];
    KT_ASSERT(scene->n_offsets < 8);
    int32_t *made = cuts(data, dim >= 0 ? data->of->dims[dim] : 0, size(data, "views", 0));
    scene->total_dims[scene->n_offsets] = dim;
    scene->offsets[scene->n_offsets++] = made;
    return made;
}

// Two factors of n.
static void factor(kt_check_data *data, int32_t n, int32_t out[2]) {
    int32_t height = n > 0 ? (int32_t)pick(data, 1, n) : 0;
    while (height > 1 && n % height != 0) height--;
    out[0] = height;
    out[1] = height > 0 ? n / height : 0;
    if (height > 0 && coin(data, 2)) {
        out[0] = out[1];
        out[1] = height;
    }
}

static int32_t *grids(kt_check_data *data) {
    kt_check_scene *scene = data->scene;
    if (scene->grids) return scene->grids;
    int64_t views = size(data, "views", 0);
    int32_t *at = offsets(data, dim_named(data, "n"));
    scene->grids = ints(data, 2 * views);
    for (int64_t i = 0; i < views; i++) factor(data, at[i + 1] - at[i], scene->grids + 2 * i);
    return scene->grids;
}

static void no_views_no_rows(kt_check_data *data, const char *word) {
    const kt_op *op = data->of->op;
    if (!uses(data, word) || size(data, "views", 1) > 0) return;
    for (int i = 0; i < op->n_ports; i++) {
        const kt_given *generator = kt_check_generator(op, i);
        if (!generator || !kt_str_is(generator->value->text, word)) continue;
        int dim = total_dim(data, op->ports[i].name);
        if (dim >= 0) data->of->dims[dim] = 0;
    }
    set_size(data, "n", 0);
}

// ---- pictures: views cut out of them, or resized

static void make_pictures(kt_check_data *data) {
    kt_check_scene *scene = data->scene;
    if (size(data, "m", 0) == 0 && size(data, "views", 0) > 0) set_size(data, "m", 1);
    int64_t m = size(data, "m", 0), views = size(data, "views", 0), p = size(data, "p", 1);
    int32_t *grid = grids(data);
    scene->target = ints(data, 2 * m);
    scene->from = ints(data, 3 * views);
    for (int64_t i = 0; i < m; i++)
        for (int k = 0; k < 2; k++) scene->target[2 * i + k] = (int32_t)pick(data, 1, 20);
    for (int64_t v = 0; v < views; v++) {
        int64_t picture = pick(data, 0, m - 1);
        scene->from[3 * v] = (int32_t)picture;
        for (int k = 0; k < 2; k++) {
            int32_t *from = &scene->from[3 * v + 1 + k], *have = &scene->target[2 * picture + k];
            *from = (int32_t)pick(data, 0, 9);
            int32_t need = *from + grid[2 * v + k] * (int32_t)p;
            if (*have < need) *have = need + (int32_t)pick(data, 0, 3);
        }
    }
    int64_t pixels = 0;
    for (int64_t i = 0; i < m; i++)
        pixels += (int64_t)scene->target[2 * i] * scene->target[2 * i + 1];
    set_size(data, "px", pixels);
}

// A rectangle of about `pixels`, at least 1 x 1.
static int64_t rectangle(kt_check_data *data, int64_t pixels, int32_t out[2]) {
    int64_t side = (int64_t)sqrt((double)pixels);
    int64_t height = pick(data, side / 3 > 0 ? side / 3 : 1, 2 * side > 0 ? 2 * side : 1);
    int64_t width = pixels / height > 0 ? pixels / height : 1;
    out[0] = (int32_t)height;
    out[1] = (int32_t)width;
    return height * width;
}

static void make_resize(kt_check_data *data) {
    kt_check_scene *scene = data->scene;
    int64_t m = size(data, "m", 0), out = size(data, "out", 0);
    scene->source = ints(data, 2);
    scene->to = ints(data, 2 * m);
    set_size(data, "px", rectangle(data, size(data, "px", 1), scene->source));
    int32_t *part = cuts(data, out, m);
    int64_t pixels = 0;
    for (int64_t i = 0; i < m; i++) {
        pixels += rectangle(data, part[i + 1] - part[i], scene->to + 2 * i);
        if (!coin(data, 5)) continue; // the picture as it is
        pixels -= (int64_t)scene->to[2 * i] * scene->to[2 * i + 1];
        memcpy(scene->to + 2 * i, scene->source, 2 * sizeof(int32_t));
        pixels += (int64_t)scene->to[2 * i] * scene->to[2 * i + 1];
    }
    set_size(data, "out", pixels);
    kt_resize_job job = {.filter = (kt_resize_filter)pick(data, 0, KT_RESIZE_COUNT - 1),
        .height = scene->source[0],
        .width = scene->source[1],
        .n_targets = (int)m,
        .to = (const int32_t(*)[2])scene->to};
    int64_t n = 0;
    kt_err err;
    if (kt_resize_count(&job, &n, &err) != KT_OK) n = 0;
    scene->taps = ints(data, n);
    if (n > 0) kt_resize_taps(&job, scene->taps);
    set_size(data, "t", n);
}

// ---- filling ports

static kt_str member(kt_str port) {
    ptrdiff_t dot = kt_str_find_last(port, '.');
    return dot >= 0 ? kt_str_slice(port, (size_t)dot + 1, port.n) : port;
}

static void copy_ints(kt_check_tensor *t, const int32_t *from) {
    if (t->bytes > 0) memcpy(t->at, from, (size_t)t->bytes);
}

static void fill_ragged(kt_check_data *data, int port) {
    if (!data->scene->segments) make_segments(data);
    copy_ints(&data->ports[port], data->scene->segments);
}

static void fill_pages(kt_check_data *data, int port) {
    if (!data->scene->segments) make_segments(data);
    copy_ints(&data->ports[port], data->scene->table);
}

static void fill_offsets(kt_check_data *data, int port) {
    int dim = total_dim(data, data->of->op->ports[port].name);
    copy_ints(&data->ports[port], offsets(data, dim));
}

static void fill_grids(kt_check_data *data, int port) {
    copy_ints(&data->ports[port], grids(data));
}

// Rows of a table, some outside of it; below 0 rows of the pictures where there are any.
static void fill_rows_of(kt_check_data *data, int port, int64_t below) {
    kt_check_tensor *t = &data->ports[port];
    int64_t v = size(data, "v", 1);
    for (int64_t i = 0; i < t->n; i++) {
        int64_t id = pick(data, 0, v - 1);
        if (below > 0 && coin(data, 2)) id = -pick(data, 1, below);
        int64_t off = coin(data, 2) ? pick(data, 0, 1000000) : 0; // often the very next
        if (coin(data, 10)) id = coin(data, 2) ? v + off : -1 - below - off;
        ((int32_t *)t->at)[i] = (int32_t)id;
    }
}

static void fill_ids(kt_check_data *data, int port) {
    fill_rows_of(data, port, 0);
}

static void fill_image_ids(kt_check_data *data, int port) {
    fill_rows_of(data, port, size(data, "m", 0));
}

static void fill_stops(kt_check_data *data, int port) {
    kt_check_tensor *t = &data->ports[port];
    for (int64_t i = 0; i < t->n; i++)
        ((int32_t *)t->at)[i] = coin(data, 3) ? -1 : (int32_t)pick(data, 0, size(data, "v", 1) - 1);
}

static void fill_permutation(kt_check_data *data, int port) {
    copy_ints(&data->ports[port], permutation(data, data->ports[port].n));
}

// Logits with ties, in some rows all so high or low that exp alone cannot be, and now and then what
// a broken model makes.
static void fill_logits(kt_check_data *data, int port) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0, -0.0F};
    kt_check_tensor *t = &data->ports[port];
    int64_t v = size(data, "v", 1);
    float *at = t->at;
    for (int64_t row = 0; row + v <= t->n; row += v) {
        bool broken = coin(data, 3);
        float shift = coin(data, 3) ? (coin(data, 2) ? 200.0F : -200.0F) : 0;
        // About as many equal ones at the top as a sampler may list.
        int64_t equal = v > LISTED + 2 && coin(data, 3) ? LISTED + pick(data, -1, 2) : 0;
        for (int64_t i = row; i < row + v; i++) {
            at[i] = at[i] * 4 + shift;
            if (coin(data, 8)) at[i] = at[pick(data, row, i)];
            if (broken && coin(data, 50)) at[i] = odd[pick(data, 0, 4)];
        }
        for (int64_t i = row; i < row + equal; i++) at[i] = shift + 40;
    }
}

static void fill_sampler(kt_check_data *data, int port) {
    kt_check_tensor *t = &data->ports[port];
    kt_str name = member(data->of->op->ports[port].name);
    int64_t v = size(data, "v", 1), most = size(data, "most", 1);
    int32_t *at = t->at;
    for (int64_t i = 0; i < t->n; i++) {
        if (kt_str_is(name, "next")) at[i] = (int32_t)pick(data, 0, v - 1);
        if (kt_str_is(name, "left")) at[i] = (int32_t)pick(data, 0, 3);
        if (kt_str_is(name, "made")) at[i] = (int32_t)pick(data, 0, most);
        if (kt_str_is(name, "tokens")) at[i] = -1;
        if (kt_str_is(name, "seen") && coin(data, 2)) at[i] = 0; // else random bits
    }
    for (int64_t i = 0; kt_str_is(name, "segments") && i + 4 <= t->n; i += 4) {
        at[i] = at[i + 3] = (int32_t)(i / 4);
        at[i + 1] = (int32_t)pick(data, 0, FAR);
        at[i + 2] = coin(data, 4) ? 0 : 1;
    }
}

// Queries of some tests are so long that exp of their scores is no f32.
static void fill_long(kt_check_data *data, int port) {
    kt_check_tensor *t = &data->ports[port];
    KT_ASSERT(t->dtype == KT_DTYPE_F16);
    if (coin(data, 2)) return;
    uint16_t *at = t->at;
    for (int64_t i = 0; i < t->n; i++) at[i] = kt_f32_to_f16(64 * kt_f16_to_f32(at[i]));
}

static void fill_nothing(kt_check_data *data, int port) {
    (void)data, (void)port;
}

// Any bytes, but no f16 number of a block is beyond 2: those lie in bytes 0 to 3 or the last two.
static void fill_ggml(kt_check_data *data, int port) {
    kt_check_tensor *t = &data->ports[port];
    int64_t bytes = t->rank > 0 ? t->shape[t->rank - 1] : 0;
    for (int64_t i = 0; bytes > 3 && i + bytes <= t->n; i += bytes) {
        uint8_t *block = (uint8_t *)t->at + i;
        block[1] &= 0xbf; // the highest bit of the exponent
        block[3] &= 0xbf;
        block[bytes - 1] &= 0xbf;
    }
}

static void fill_queries(kt_check_data *data, int port) {
    kt_check_tensor *t = &data->ports[port];
    bool row = kt_str_is(member(data->of->op->ports[port].name), "row");
    int64_t queries = size(data, "queries", 1);
    for (int64_t i = 0; i < t->n; i++)
        ((int32_t *)t->at)[i] = (int32_t)(row ? i % (queries > 0 ? queries : 1) : i * queries);
}

static void fill_patches(kt_check_data *data, int port) {
    kt_str name = member(data->of->op->ports[port].name);
    const kt_check_scene *scene = data->scene;
    if (kt_str_is(name, "target")) copy_ints(&data->ports[port], scene->target);
    if (kt_str_is(name, "from")) copy_ints(&data->ports[port], scene->from);
    if (kt_str_is(name, "size")) copy_ints(&data->ports[port], scene->grids);
    if (kt_str_is(name, "offset"))
        copy_ints(&data->ports[port], offsets(data, dim_named(data, "n")));
}

static void fill_resize(kt_check_data *data, int port) {
    kt_str name = data->of->op->ports[port].name;
    const kt_check_scene *scene = data->scene;
    bool taps = kt_str_is(member(name), "taps"), from = kt_str_find(name, '.') < 0;
    copy_ints(&data->ports[port], taps ? scene->taps : from ? scene->source : scene->to);
}

// ---- the table

static void dims_offsets(kt_check_data *data) {
    no_views_no_rows(data, "offsets");
}
static void dims_queries(kt_check_data *data) {
    set_size(data, "m", size(data, "views", 0) * size(data, "queries", 0));
}
static void dims_patches(kt_check_data *data) {
    if (size(data, "views", 0) == 0) set_size(data, "n", 0);
    make_pictures(data);
}
static void dims_rows(kt_check_data *data) {
    set_size(data, "rows", size(data, "n", 0));
}

typedef struct generator {
    const char *word;
    void (*dims)(kt_check_data *data); // sizes that follow from others; NULL: none
    void (*fill)(kt_check_data *data, int port);
} generator;

static const generator generators[] = {
    {"ragged", NULL, fill_ragged},             // segments of n tokens over rows
    {"pages", NULL, fill_pages},               // page table: permuted, shared prefixes
    {"offsets", dims_offsets, fill_offsets},   // ragged, with empty views
    {"grids", NULL, fill_grids},               // rows and columns of each view's patches
    {"ids", NULL, fill_ids},                   // rows of a table of v, some outside
    {"image_ids", NULL, fill_image_ids},       // the same, below 0 rows of m pictures
    {"stops", NULL, fill_stops},               // token ids, padded with -1
    {"sampler", NULL, fill_sampler},           // state of rows: running, stopped, full
    {"logits", NULL, fill_logits},             // ties, NaN, infinities
    {"long", NULL, fill_long},                 // f16; now and then 64 times as large
    {"bytes", NULL, fill_nothing},             // any bytes
    {"ggml", NULL, fill_ggml},                 // blocks of GGML's types, [.., bytes of a block]
    {"rows", dims_rows, fill_permutation},     // places of n rows in a layout
    {"queries", dims_queries, fill_queries},   // the same queries for each view
    {"views", dims_patches, fill_patches},     // pictures and the views cut out of them
    {"resize_plan", make_resize, fill_resize}, // sizes and tables, loader/resize.h
};
enum { N_GENERATORS = sizeof generators / sizeof generators[0] };

const kt_str *kt_check_words(kt_arena *arena, int *n) {
    kt_str *words = KT_NEW_ARRAY(arena, kt_str, N_GENERATORS);
    for (int i = 0; i < N_GENERATORS; i++) words[i] = kt_str_from(generators[i].word);
    *n = N_GENERATORS;
    return words;
}

void kt_check_scene_dims(kt_check_data *data) {
    data->scene = KT_NEW(data->arena, kt_check_scene);
    for (int i = 0; i < N_GENERATORS; i++)
        if (generators[i].dims && uses(data, generators[i].word)) generators[i].dims(data);
}

void kt_check_scene_fill(kt_check_data *data, int port, kt_str word) {
    for (int i = 0; i < N_GENERATORS; i++)
        if (kt_str_is(word, generators[i].word)) generators[i].fill(data, port);
}
