#include "runtime/gpu/timer.h"

#include "runtime/gpu/memory_list.h"

#include <stdlib.h>

struct kt_gpu_timer {
    kt_gpu *gpu;
    int n, cap;
    kt_cu_event *events; // cap of them
};

kt_status kt_gpu_timer_open(kt_gpu *gpu, int cap, kt_gpu_timer **out, kt_err *err) {
    KT_ASSERT(cap > 0);
    *out = NULL;
    kt_gpu_timer *timer = kt_gpu_new(sizeof *timer);
    timer->gpu = gpu;
    timer->cap = cap;
    timer->events = kt_gpu_new((size_t)cap * sizeof(kt_cu_event));
    for (int i = 0; i < cap; i++) {
        kt_status status = kt_gpu_event_open(gpu, true, &timer->events[i], err);
        if (status == KT_OK) continue;
        kt_gpu_timer_close(timer);
        return status;
    }
    *out = timer;
    return KT_OK;
}

void kt_gpu_timer_close(kt_gpu_timer *timer) {
    if (timer == NULL) return;
    for (int i = 0; i < timer->cap; i++) kt_gpu_event_close(timer->gpu, timer->events[i]);
    free(timer->events);
    free(timer);
}

void kt_gpu_timer_reset(kt_gpu_timer *timer) {
    timer->n = 0;
}

kt_status kt_gpu_timer_mark(kt_gpu_timer *timer, kt_cu_stream stream, int *index, kt_err *err) {
    if (timer->n == timer->cap)
        return KT_FAIL(err, KT_EUSAGE, "a timer holds %d marks, not more", timer->cap);
    KT_TRY(kt_gpu_event_record(timer->gpu, timer->events[timer->n], stream, err));
    if (index != NULL) *index = timer->n;
    timer->n++;
    return KT_OK;
}

kt_status kt_gpu_timer_ms(kt_gpu_timer *timer, int from, int to, double *ms, kt_err *err) {
    KT_ASSERT(from >= 0 && from < timer->n && to >= 0 && to < timer->n);
    float value = 0;
    *ms = 0;
    KT_TRY(kt_gpu_event_wait(timer->gpu, timer->events[to], err));
    KT_TRY(KT_GPU_DO(timer->gpu, cuEventElapsedTime,
        (&value, timer->events[from], timer->events[to]), "reading a time", err));
    *ms = (double)value;
    return KT_OK;
}
