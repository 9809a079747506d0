// Ragged batches: segments i32[g, 4] of a batch of tokens, offsets i32[views + 1] of a batch of
// views, and pages of keys and values.
#ifndef KT_DEVICE_SEGMENTS_CUH
#define KT_DEVICE_SEGMENTS_CUH

#include "kt.cuh"

enum { KT_PAGE = 16 }; // tokens of a page of keys and values

// A segment is row, start, length, first: tokens first .. first + length - 1 of the batch are
// positions start .. of a row. A length of 0 holds no token.
struct kt_place {
    int32_t row, position; // row -1: the token is in no segment
};

KT_DEVICE kt_place kt_segment_find(const int32_t *segments, int32_t g, int32_t token) {
    kt_place place = {-1, 0};
    for (int32_t i = 0; i < g; i++) {
        int32_t at = token - segments[4 * i + 3];
        if (at < 0 || at >= segments[4 * i + 2]) continue;
        place.row = segments[4 * i];
        place.position = segments[4 * i + 1] + at;
        break;
    }
    return place;
}

// The page that holds `position` of a row, or -1 if the tables have none.
KT_DEVICE int32_t kt_page_find(const int32_t *table, int32_t rows, int32_t width, int32_t pages,
    int32_t row, int32_t position) {
    if (row < 0 || row >= rows || position < 0 || position / KT_PAGE >= width) return -1;
    int32_t page = table[(int64_t)row * width + position / KT_PAGE];
    return page >= 0 && page < pages ? page : -1;
}

// The view that element `at` belongs to.
KT_DEVICE int32_t kt_view_find(const int32_t *offset, int32_t views, int32_t at) {
    int32_t view = 0;
    while (view + 1 < views && offset[view + 1] <= at) view++;
    return view;
}

#endif
