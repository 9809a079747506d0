#include "loader/picture.h"

#include "loader/image.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF // sizes and buckets sit on ties; GCC does not fuse under -std=c11
#endif

enum { MOST_PIXELS = INT32_MAX / 3 }; // so that byte indices fit 32 bits

void kt_picture_fit(int longest, int height, int width, int *out_height, int *out_width) {
    *out_height = height;
    *out_width = width;
    int longer = height > width ? height : width;
    if (longest <= 0 || longer <= longest) return;
    double h = rint((double)height * longest / longer), w = rint((double)width * longest / longer);
    *out_height = h < 1.0 ? 1 : (int)h;
    *out_width = w < 1.0 ? 1 : (int)w;
}

typedef struct size {
    double height, width; // pixels; the reference computes some of them as fractions
} size;

typedef struct grid {
    int cols, rows; // 0 and 0: no close-ups
} grid;

// length in whole steps, at least one. Python: max(round(length / step) * step, step)
static double snap(double length, double step) {
    double steps = rint(length / step); // half to even
    return steps < 1.0 ? step : steps * step;
}

// The size that is resized to: area near side * side, aspect kept, whole patches.
static size fit_side(const kt_picture_params *p, size s, bool may_enlarge) {
    double side = p->side;
    if (s.width * s.height > side * side || may_enlarge) {
        double ratio = s.width / s.height;
        s.height = trunc(side / sqrt(ratio));
        s.width = trunc(s.height * ratio); // of the truncated height
    }
    return (size){snap(s.height, p->patch), snap(s.width, p->patch)};
}

// The grid of close-ups whose aspect is nearest; of equals the first.
static grid find_grid(const kt_picture_params *p, size s) {
    double side = p->side, wanted = ceil(s.width * s.height / (side * side));
    int many = wanted < p->slices ? (int)wanted : p->slices;
    if (many <= 1) return (grid){0, 0};
    grid best = {1, 1};
    double least = HUGE_VAL, aspect = log(s.width / s.height);
    for (int n = many - 1; n <= many + 1; n++) {
        if (n == 1 || n > p->slices) continue;
        for (int cols = 1; cols <= n; cols++) {
            if (n % cols != 0) continue;
            int rows = n / cols;
            double off = fabs(aspect - log((double)cols / rows));
            if (off < least) {
                least = off;
                best = (grid){cols, rows};
            }
        }
    }
    return best;
}

// Size of one tile of the picture that close-ups are cut from.
static size fit_tile(const kt_picture_params *p, size s, grid g) {
    double width = snap(s.width, g.cols) / g.cols, height = snap(s.height, g.rows) / g.rows;
    return fit_side(p, (size){height, width}, true);
}

// What a scheme decides; the rest follows.
typedef struct layout {
    size overview, tile;
    grid g;
    bool is_bucketed;
} layout;

// Source: openbmb/MiniCPM-V-2_6, image_processing_minicpmv.py, get_sliced_images.
static kt_status lay_out_minicpm_v(const kt_picture_params *p, size s, layout *out, kt_err *err) {
    (void)err;
    grid g = find_grid(p, s);
    bool is_cut = g.cols > 0;
    *out = (layout){.g = g, .overview = fit_side(p, s, !is_cut), .is_bucketed = true};
    if (is_cut) out->tile = fit_tile(p, s, g);
    return KT_OK;
}

static kt_status lay_out_whole(const kt_picture_params *p, size s, layout *out, kt_err *err) {
    (void)s;
    if (p->side % p->patch != 0 || p->side / p->patch != p->table)
        return KT_FAIL(err, KT_EMODEL,
            "scheme 'whole' needs side / patch positions an axis, but side is %d, patch %d and "
            "table %d",
            p->side, p->patch, p->table);
    *out = (layout){.overview = {p->side, p->side}};
    return KT_OK;
}

typedef struct scheme_row {
    const char *name;
    kt_status (*lay_out)(const kt_picture_params *p, size s, layout *out, kt_err *err);
} scheme_row;

static const scheme_row schemes[KT_PICTURE_SCHEME_COUNT] = {
    [KT_PICTURE_MINICPM_V] = {"minicpm_v", lay_out_minicpm_v},
    [KT_PICTURE_WHOLE] = {"whole", lay_out_whole},
};

const char *kt_picture_scheme_name(kt_picture_scheme scheme) {
    return schemes[scheme].name;
}

bool kt_picture_scheme_find(kt_str name, kt_picture_scheme *out) {
    for (int i = 0; i < KT_PICTURE_SCHEME_COUNT; i++) {
        if (!kt_str_is(name, schemes[i].name)) continue;
        *out = (kt_picture_scheme)i;
        return true;
    }
    return false;
}

// Element i of torch.arange(start, ..., step) with n elements, in f32. Blocks of 16 start every 8th
// value anew and add the step in double. Source: pytorch 2.1,
// aten/src/ATen/native/cpu/RangeFactoriesKernel.cpp with cpu/vec/vec_base.h,
// Vectorized<float>::arange.
static float arange_at(double start, double step, int n, int i) {
    if (i >= n / 16 * 16) return (float)(start + step * i);
    int block = i / 8 * 8;
    return (float)((double)(float)(start + step * block) + (i - block) * step);
}

// Both sequences rise, so one walk along them suffices.
void kt_picture_buckets(int n, int table, int32_t *out) {
    double step = (double)(1.0f / (float)n), width = 1.0 / table;
    int bucket = 0;
    for (int i = 0; i < n; i++) {
        float fraction = arange_at(0.0, step, n, i);
        while (bucket < table - 1 && arange_at(width, width, table - 1, bucket) <= fraction)
            bucket++;
        out[i] = bucket;
    }
}

static void fill_axis(const layout *l, int n, int table, int32_t *out) {
    if (l->is_bucketed) {
        kt_picture_buckets(n, table, out);
        return;
    }
    for (int i = 0; i < n; i++) out[i] = i;
}

static void fill_positions(
    const kt_picture_params *p, const layout *l, kt_arena *arena, kt_picture_views *v) {
    v->position = KT_NEW_ARRAY(arena, int32_t, v->n_patches);
    for (int i = 0; i < v->n_views; i++) {
        int rows = v->size[i][0], cols = v->size[i][1];
        int32_t *of_row = KT_NEW_ARRAY(arena, int32_t, rows);
        int32_t *of_col = KT_NEW_ARRAY(arena, int32_t, cols);
        fill_axis(l, rows, p->table, of_row);
        fill_axis(l, cols, p->table, of_col);
        int32_t *to = v->position + v->offset[i];
        for (int y = 0; y < rows; y++)
            for (int x = 0; x < cols; x++) *to++ = of_row[y] * p->table + of_col[x];
    }
}

static void fill_levels(const kt_picture_params *p, kt_arena *arena, kt_picture_views *v) {
    v->level = kt_arena_array(arena, 3, sizeof *v->level);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 256; i++) v->level[c][i] = ((float)i / 255.0f - p->mean[c]) / p->std[c];
}

static void fill_queries(const kt_picture_params *p, kt_arena *arena, kt_picture_views *v) {
    v->n_queried = (int64_t)v->n_views * p->queries;
    v->query_row = KT_NEW_ARRAY(arena, int32_t, v->n_queried);
    v->query_offset = KT_NEW_ARRAY(arena, int32_t, v->n_views + 1);
    for (int64_t i = 0; i < v->n_queried; i++) v->query_row[i] = (int32_t)(i % p->queries);
    for (int i = 0; i <= v->n_views; i++) v->query_offset[i] = i * p->queries;
}

// View i: its corner in a target and its patches, which follow those of the views before it.
static void put_view(
    const kt_picture_params *p, kt_picture_views *v, int i, const int32_t from[3], size s) {
    int32_t rows = (int32_t)s.height / p->patch, cols = (int32_t)s.width / p->patch;
    v->from[i][0] = from[0];
    v->from[i][1] = from[1];
    v->from[i][2] = from[2];
    v->size[i][0] = rows;
    v->size[i][1] = cols;
    v->offset[i + 1] = v->offset[i] + rows * cols;
}

static void fill_views(
    const kt_picture_params *p, const layout *l, kt_arena *arena, kt_picture_views *v) {
    v->n_views = 1 + l->g.cols * l->g.rows;
    v->from = kt_arena_array(arena, (size_t)v->n_views, sizeof *v->from);
    v->size = kt_arena_array(arena, (size_t)v->n_views, sizeof *v->size);
    v->offset = KT_NEW_ARRAY(arena, int32_t, v->n_views + 1);
    put_view(p, v, 0, (const int32_t[3]){0, 0, 0}, l->overview);
    for (int i = 1; i < v->n_views; i++) {
        int32_t row = (i - 1) / l->g.cols, col = (i - 1) % l->g.cols;
        const int32_t from[3] = {1, row * (int32_t)l->tile.height, col * (int32_t)l->tile.width};
        put_view(p, v, i, from, l->tile);
    }
    v->n_patches = v->offset[v->n_views];
}

static void fill_targets(const layout *l, kt_arena *arena, kt_picture_views *v) {
    v->n_targets = l->g.cols > 0 ? 2 : 1;
    v->target = kt_arena_array(arena, (size_t)v->n_targets, sizeof *v->target);
    v->target[0][0] = (int32_t)l->overview.height;
    v->target[0][1] = (int32_t)l->overview.width;
    if (v->n_targets == 1) return;
    v->target[1][0] = (int32_t)l->tile.height * l->g.rows;
    v->target[1][1] = (int32_t)l->tile.width * l->g.cols;
}

static kt_status check_params(const kt_picture_params *p, kt_err *err) {
    bool is_sane = p->side >= 1 && p->side <= KT_IMAGE_MAX_SIDE && p->patch >= 1 &&
                   p->patch <= p->side && p->slices >= 1 && p->slices <= 1024 && p->table >= 1 &&
                   p->table <= 4096 && p->queries >= 0 && p->queries <= 65536;
    if (!is_sane)
        return KT_FAIL(err, KT_EMODEL,
            "a picture cannot be cut with side %d, patch %d, slices %d, table %d and queries %d",
            p->side, p->patch, p->slices, p->table, p->queries);
    for (int c = 0; c < 3; c++)
        if (!(p->std[c] > 0.0f))
            return KT_FAIL(err, KT_EMODEL,
                "the standard deviation of channel %d is %g, not above 0", c, (double)p->std[c]);
    return KT_OK;
}

kt_status kt_picture_slice(const kt_picture_params *params, int height, int width, kt_arena *arena,
    kt_picture_views *out, kt_err *err) {
    *out = (kt_picture_views){0};
    KT_TRY(check_params(params, err));
    if (height < 1 || width < 1 || height > KT_IMAGE_MAX_SIDE || width > KT_IMAGE_MAX_SIDE)
        return KT_FAIL(err, KT_EIMAGE,
            "a picture of %d x %d pixels cannot be cut into views; sides are 1 to %d", width,
            height, KT_IMAGE_MAX_SIDE);

    layout l = {0};
    size s = {height, width};
    KT_TRY(schemes[params->scheme].lay_out(params, s, &l, err));
    double pixels =
        l.overview.height * l.overview.width + l.tile.height * l.tile.width * l.g.cols * l.g.rows;
    if (pixels > MOST_PIXELS)
        return KT_FAIL(err, KT_EIMAGE,
            "a picture of %d x %d pixels is too long and thin: its views would have %.0f pixels; "
            "crop it",
            width, height, pixels);
    out->n_pixels = (int64_t)pixels;
    out->grid_cols = l.g.cols;
    out->grid_rows = l.g.rows;
    fill_targets(&l, arena, out);
    fill_views(params, &l, arena, out);
    fill_positions(params, &l, arena, out);
    fill_queries(params, arena, out);
    fill_levels(params, arena, out);
    return KT_OK;
}
