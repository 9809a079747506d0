// Images of weights: what lies where, and in which order they come.
#include "runtime/exec/load_parts.h"

#include <stdlib.h>

enum {
    ALIGN = 256,         // bytes, of weights in an image
    GAP_MOST = 64 << 10, // bytes of nothing that a piece may carry along
};

static int64_t align(int64_t bytes) {
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

void kt_load_areas(const kt_plan *plan, int64_t most, kt_load_room *room) {
    int64_t work = kt_plan_work_bytes(plan), area = work / KT_LOAD_AREAS / ALIGN * ALIGN;
    if (area > most) area = most / ALIGN * ALIGN;
    if (area < align(plan->bytes.staging)) area = align(plan->bytes.staging);
    room->area_bytes = area;
    room->n_areas = 1;
    while (room->n_areas < KT_LOAD_AREAS && (room->n_areas + 1) * area <= work) room->n_areas++;
}

int64_t kt_load_bytes(const kt_plan *plan) {
    int64_t sum = 0;
    for (int i = 0; i < plan->n_layouts; i++)
        for (int p = 0; p < plan->layouts[i].n_prepares; p++) {
            const kt_prepare *prepare = &plan->layouts[i].prepares[p];
            for (int t = 0; t < prepare->n_parts; t++)
                sum += plan->tensors[prepare->part_tensors[t]].bytes;
        }
    for (int i = 0; i < plan->model->n_weights; i++)
        if (plan->vector_offset[i] >= 0) sum += plan->model->weights[i].parts[0]->bytes;
    return sum;
}

// ---- segments

static kt_load_segment from_weight(const kt_weight *weight, const kt_stored *stored) {
    kt_load_segment s = {.weight = weight, .stored = stored};
    int64_t rows = weight->rank > 0 ? weight->shape[0] : 1, bytes = stored->bytes;
    if (weight->row_from >= 0) {
        int64_t row = stored->bytes / stored->shape[0];
        s.first = weight->row_from * row;
        bytes = (weight->row_to - weight->row_from) * row;
    }
    s.row_size = bytes / rows;
    return s;
}

static void add_vectors(kt_load_list *list, const kt_plan *plan) {
    for (int i = 0; i < plan->model->n_weights; i++) {
        if (plan->vector_offset[i] < 0) continue;
        const kt_weight *weight = &plan->model->weights[i];
        kt_load_segment s = from_weight(weight, weight->parts[0]);
        s.at = plan->vector_offset[i];
        s.bytes = (int64_t)sizeof(float);
        for (int a = 0; a < weight->rank; a++) s.bytes *= weight->shape[a];
        s.widen = true;
        KT_PUSH(list->arena, &list->segments, s);
    }
}

static void add_parts(kt_load_list *list, const kt_plan *plan, const kt_load_step *step) {
    const kt_prepare *prepare = step->prepare;
    const kt_weight *weight = &plan->model->weights[prepare->weight];
    bool plain = weight->format->n_parts == 1 && weight->format->when.n == 0;
    for (int i = 0; i < prepare->n_parts; i++) {
        const kt_tensor *t = &plan->tensors[prepare->part_tensors[i]];
        kt_load_segment s = from_weight(weight, weight->parts[i]);
        s.at = step->offset + t->offset;
        s.bytes = t->bytes;
        s.row = prepare->row_from;
        s.f16 = plain && kt_dtype_is_float(s.stored->dtype);
        KT_PUSH(list->arena, &list->segments, s);
    }
    if (prepare->to_tensor < 0) return;
    const kt_tensor *to = &plan->tensors[prepare->to_tensor];
    kt_load_segment s = {
        .at = step->offset + to->offset, .bytes = to->bytes, .memory = prepare->to};
    KT_PUSH(list->arena, &list->segments, s);
}

// NOLINTNEXTLINE(bugprone-easily-swappable-parameters): as qsort wants them
static int compare_segments(const void *a, const void *b) {
    const kt_load_segment *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

// ---- images

// Cuts the segments from `first` on into pieces of at most so many bytes. What is between two
// segments comes along if it is little.
static void cut(kt_load_list *list, kt_load_image *image, size_t first, int64_t most) {
    kt_load_segment *s = list->segments.at;
    size_t i = first, n = list->segments.n;
    if (n > first) qsort(s + first, n - first, sizeof *s, compare_segments);
    image->first_chunk = (int)list->chunks.n;
    int64_t at = 0;
    while (i < n) {
        if (s[i].at > at) at = s[i].at;
        kt_load_chunk chunk = {(int)list->images.n, (int)i, 0, at, at};
        int64_t end = at + most;
        while (i < n && s[i].at < end && s[i].at - chunk.to <= GAP_MOST) {
            int64_t last = s[i].at + s[i].bytes;
            chunk.to = last < end ? last : end;
            chunk.n_segments++;
            if (last > end) break; // its rest begins the next piece
            i++;
        }
        at = chunk.to;
        if (chunk.to > chunk.from) KT_PUSH(list->arena, &list->chunks, chunk);
    }
    image->n_chunks = (int)list->chunks.n - image->first_chunk;
    KT_PUSH(list->arena, &list->images, *image);
}

// ---- steps

static kt_load_step step_of(
    const kt_plan *plan, const kt_layout *layout, const kt_prepare *prepare) {
    kt_load_step step = {.layout = layout, .prepare = prepare};
    const kt_weight *weight = &plan->model->weights[prepare->weight];
    int64_t largest = -1;
    for (int i = 0; i < prepare->n_parts; i++) {
        kt_load_segment s = from_weight(weight, weight->parts[i]);
        if (s.stored->bytes <= largest) continue;
        largest = s.stored->bytes;
        step.file = s.stored->file;
        step.file_offset = s.stored->offset + s.first + prepare->row_from * s.row_size;
    }
    return step;
}

static int compare_steps(const void *a, const void *b) {
    const kt_load_step *x = a, *y = b;
    bool in_host = x->layout->host_memory;
    if (in_host != y->layout->host_memory) return in_host ? 1 : -1;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    if (x->file_offset != y->file_offset) return x->file_offset < y->file_offset ? -1 : 1;
    return x->prepare < y->prepare ? -1 : x->prepare > y->prepare;
}

static void add_steps(kt_load_list *list, const kt_plan *plan) {
    for (int i = 0; i < plan->n_layouts; i++)
        for (int p = 0; p < plan->layouts[i].n_prepares; p++) {
            kt_load_step step = step_of(plan, &plan->layouts[i], &plan->layouts[i].prepares[p]);
            KT_PUSH(list->arena, &list->steps, step);
        }
    if (list->steps.n > 0)
        qsort(list->steps.at, list->steps.n, sizeof *list->steps.at, compare_steps);
}

static void add_area(
    kt_load_list *list, const kt_plan *plan, const kt_load_room *room, kt_load_image *image) {
    size_t first = list->segments.n, next = (size_t)image->first_step;
    int64_t at = 0;
    while (next < list->steps.n) {
        kt_load_step *step = &list->steps.at[next];
        if (at > 0 && at + step->prepare->staging_bytes > room->area_bytes) break;
        step->offset = at;
        at = align(at + step->prepare->staging_bytes);
        add_parts(list, plan, step);
        next++;
    }
    image->n_steps = (int)next - image->first_step;
    image->area = image->n_before % room->n_areas;
    cut(list, image, first, room->slot_bytes);
}

void kt_load_list_make(kt_load_list *list, const kt_plan *plan, const kt_load_room *room) {
    kt_load_image vectors = {.place = KT_LOAD_VECTORS};
    add_vectors(list, plan);
    cut(list, &vectors, 0, room->slot_bytes);
    add_steps(list, plan);
    int n_areas = 0;
    for (int done = 0; done < (int)list->steps.n; n_areas++) {
        kt_load_image image = {.place = KT_LOAD_AREA, .n_before = n_areas, .first_step = done};
        add_area(list, plan, room, &image);
        done += image.n_steps;
    }
}
