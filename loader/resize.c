#include "loader/resize.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT                                                                           \
    OFF // a fused multiply-add would change weights; GCC does not fuse under -std=c11
#endif

enum { PRECISION_BITS = 22, OFFSETS = 4, MOST_INTS = INT32_MAX / 4 };

static const double pi = 3.14159265358979323846;

static double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= pi;
    return sin(x) / x;
}

static double lanczos(double x) {
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

static double bilinear(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

typedef struct filter_row {
    const char *name;
    double (*weight)(double x);
    double support; // the weight is 0 at and beyond this distance
} filter_row;

static const filter_row filters[KT_RESIZE_COUNT] = {
    [KT_RESIZE_LANCZOS] = {"lanczos", lanczos, 3.0},
    [KT_RESIZE_BICUBIC] = {"bicubic", bicubic, 2.0},
    [KT_RESIZE_BILINEAR] = {"bilinear", bilinear, 1.0},
};

bool kt_resize_filter_find(kt_str name, kt_resize_filter *out) {
    for (int i = 0; i < KT_RESIZE_COUNT; i++) {
        if (!kt_str_is(name, filters[i].name)) continue;
        *out = (kt_resize_filter)i;
        return true;
    }
    return false;
}

// The longest window of an axis from n to m pixels.
static int most_taps(const filter_row *filter, int n, int m) {
    if (n == m) return 1;
    double scale = (double)n / m;
    double taps = 2.0 * ceil(filter->support * fmax(scale, 1.0)) + 1.0;
    return taps < n ? (int)taps : n;
}

static int64_t axis_ints(const filter_row *filter, int n, int m) {
    return (int64_t)m * (2 + most_taps(filter, n, m));
}

kt_status kt_resize_count(const kt_resize_job *job, int64_t *n_ints, kt_err *err) {
    const filter_row *filter = &filters[job->filter];
    int64_t ints = (int64_t)OFFSETS * job->n_targets;
    for (int i = 0; i < job->n_targets; i++)
        ints += axis_ints(filter, job->width, job->to[i][1]) +
                axis_ints(filter, job->height, job->to[i][0]);
    if (ints > MOST_INTS)
        return KT_FAIL(err, KT_EIMAGE,
            "resizing a picture of %d x %d pixels needs %" PRId64
            " coefficients, more than %d; crop it",
            job->width, job->height, ints, (int)MOST_INTS);
    *n_ints = ints;
    return KT_OK;
}

// Weights of one output index, normalised over the part of the window that lies inside 0 .. n.
static void fill_window(const filter_row *filter, double centre, double scale, int n,
    int32_t *first, int32_t *count, int32_t *weight) {
    double stretch = fmax(scale, 1.0), reach = filter->support * stretch, shrink = 1.0 / stretch;
    int from = (int)(centre - reach + 0.5), to = (int)(centre + reach + 0.5);
    if (from < 0) from = 0;
    if (to > n) to = n;
    double sum = 0.0;
    for (int x = from; x < to; x++) sum += filter->weight((x - centre + 0.5) * shrink);
    for (int x = from; x < to; x++) {
        double w = filter->weight((x - centre + 0.5) * shrink);
        if (sum != 0.0) w /= sum;
        double fixed = w * (1 << PRECISION_BITS);
        weight[x - from] = (int32_t)(w < 0.0 ? fixed - 0.5 : fixed + 0.5);
    }
    *first = from;
    *count = to - from;
}

// One axis from n to m pixels. Returns the ints written.
static int64_t fill_axis(const filter_row *filter, int n, int m, int32_t *table) {
    int taps = most_taps(filter, n, m);
    int32_t *first = table, *count = table + m, *weight = table + 2 * (int64_t)m;
    memset(weight, 0, (size_t)m * (size_t)taps * sizeof *weight);
    double scale = (double)n / m;
    for (int i = 0; i < m; i++) {
        if (n == m) {
            first[i] = i;
            count[i] = 1;
            weight[i] = 1 << PRECISION_BITS;
            continue;
        }
        fill_window(
            filter, (i + 0.5) * scale, scale, n, &first[i], &count[i], weight + (int64_t)i * taps);
    }
    return axis_ints(filter, n, m);
}

void kt_resize_taps(const kt_resize_job *job, int32_t *taps) {
    const filter_row *filter = &filters[job->filter];
    int64_t at = (int64_t)OFFSETS * job->n_targets;
    for (int i = 0; i < job->n_targets; i++) {
        int height = job->to[i][0], width = job->to[i][1];
        int32_t *offset = taps + (int64_t)OFFSETS * i;
        offset[0] = (int32_t)at;
        offset[2] = most_taps(filter, job->width, width);
        at += fill_axis(filter, job->width, width, taps + at);
        offset[1] = (int32_t)at;
        offset[3] = most_taps(filter, job->height, height);
        at += fill_axis(filter, job->height, height, taps + at);
    }
}
