// Host steps that read a picture and decide how it is cut.
#include "loader/picture.h"
#include "loader/resize.h"
#include "runtime/exec/request.h"

#include <inttypes.h>

kt_status kt_host_read_image(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    if (!r->image_path)
        return KT_FAIL(err, KT_EUSAGE, "this pipeline looks at a picture; name one after it");
    kt_image_limits limits = {.pixels = kt_host_max(host, "px")};
    bool upright = kt_str_is(kt_host_word(host, "orientation"), "exif");
    KT_TRY(kt_image_open(r->image_path, &limits, upright, &r->image, err));
    int64_t pixels = (int64_t)r->image.height * r->image.width;
    KT_TRY(kt_host_decide(host, "px", pixels, KT_EIMAGE, err));
    int32_t *size = KT_NEW_ARRAY(&r->arena, int32_t, 2);
    size[0] = r->image.height;
    size[1] = r->image.width;
    kt_host_give(host, kt_host_out(host, "size"), size, 2 * (int64_t)sizeof *size);
    kt_host_give(host, kt_host_out(host, "rgb"), r->image.rgb, 3 * pixels);
    return KT_OK;
}

// The sizes and coefficient tables of a resize, as outputs `to.size` and `to.taps` and dims `px`
// and `t`.
static kt_status give_resize(kt_host *host, const kt_resize_job *job, kt_err *err) {
    kt_arena *arena = &host->request->arena;
    int64_t n = 0, pixels = 0;
    KT_TRY(kt_resize_count(job, &n, err));
    for (int i = 0; i < job->n_targets; i++) pixels += (int64_t)job->to[i][0] * job->to[i][1];
    KT_TRY(kt_host_decide(host, "px", pixels, KT_EIMAGE, err));
    KT_TRY(kt_host_decide(host, "t", n, KT_EIMAGE, err));
    int32_t *taps = KT_NEW_ARRAY(arena, int32_t, n);
    kt_resize_taps(job, taps);
    kt_host_give(host, kt_host_out(host, "to.taps"), taps, n * (int64_t)sizeof *taps);
    kt_host_give(
        host, kt_host_out(host, "to.size"), job->to, job->n_targets * (int64_t)sizeof job->to[0]);
    return KT_OK;
}

kt_status kt_host_fit_image(kt_host *host, kt_err *err) {
    const int32_t *size = kt_host_data(host, kt_host_in(host, "size"));
    int32_t(*to)[2] = kt_arena_alloc(&host->request->arena, sizeof *to);
    int height, width;
    kt_picture_fit((int)kt_host_number(host, "longest"), size[0], size[1], &height, &width);
    (*to)[0] = height;
    (*to)[1] = width;
    kt_resize_job job = {
        .height = size[0], .width = size[1], .n_targets = 1, .to = (const int32_t(*)[2])to};
    KT_ASSERT(kt_resize_filter_find(kt_host_word(host, "filter"), &job.filter));
    return give_resize(host, &job, err);
}

static kt_status read_params(const kt_host *host, kt_picture_params *out, kt_err *err) {
    kt_str scheme = host->request->context->markup.scheme;
    if (!kt_picture_scheme_find(scheme, &out->scheme))
        return KT_FAIL(err, KT_EMODEL, "the model file's 'picture' has the unknown scheme '%.*s'",
            KT_STR_ARG(scheme));
    out->side = (int)kt_host_number(host, "side");
    out->patch = (int)kt_host_number(host, "patch");
    out->slices = (int)kt_host_number(host, "slices");
    out->table = (int)kt_host_number(host, "table");
    out->queries = (int)kt_host_number(host, "queries");
    for (int i = 0; i < 3; i++) {
        out->mean[i] = (float)kt_host_real(host, "mean");
        out->std[i] = (float)kt_host_real(host, "std");
    }
    return KT_OK;
}

static void give_i32(kt_host *host, const char *port, const int32_t *data, int64_t n) {
    kt_host_give(host, kt_host_out(host, port), data, n * (int64_t)sizeof *data);
}

kt_status kt_host_slice_image(kt_host *host, kt_err *err) {
    kt_request *r = host->request;
    const int32_t *size = kt_host_data(host, kt_host_in(host, "size"));
    kt_picture_params params;
    kt_picture_views views;
    KT_TRY(read_params(host, &params, err));
    KT_TRY(kt_picture_slice(&params, size[0], size[1], &r->arena, &views, err));
    kt_resize_job job = {.filter = KT_RESIZE_BICUBIC,
        .height = size[0],
        .width = size[1],
        .n_targets = views.n_targets,
        .to = (const int32_t(*)[2])views.target};
    KT_TRY(kt_host_decide(host, "m", views.n_targets, KT_EIMAGE, err));
    KT_TRY(kt_host_decide(host, "views", views.n_views, KT_EIMAGE, err));
    KT_TRY(kt_host_decide(host, "patches", views.n_patches, KT_EIMAGE, err));
    KT_TRY(kt_host_decide(host, "queried", views.n_queried, KT_EIMAGE, err));
    KT_TRY(give_resize(host, &job, err));
    give_i32(host, "view.from", views.from[0], 3 * (int64_t)views.n_views);
    give_i32(host, "view.size", views.size[0], 2 * (int64_t)views.n_views);
    give_i32(host, "view.offset", views.offset, views.n_views + 1);
    kt_host_give(
        host, kt_host_out(host, "view.level"), views.level, (int64_t)sizeof(float) * 3 * 256);
    give_i32(host, "position", views.position, views.n_patches);
    give_i32(host, "query.row", views.query_row, views.n_queried);
    give_i32(host, "query.offset", views.query_offset, views.n_views + 1);
    kt_picture_grid *grid = KT_NEW(&r->arena, kt_picture_grid);
    *grid = (kt_picture_grid){views.grid_cols, views.grid_rows, params.queries, 0};
    r->objects[kt_host_out(host, "grid")] = grid;
    return KT_OK;
}
