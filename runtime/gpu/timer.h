// Times on the device: marks in a stream, read when it has passed them.
//
// A timer holds up to `cap` marks; between two marks lies what was submitted between them. One
// thread.
#ifndef KT_GPU_TIMER_H
#define KT_GPU_TIMER_H

#include "runtime/gpu/device.h"

typedef struct kt_gpu_timer kt_gpu_timer;

kt_status kt_gpu_timer_open(kt_gpu *gpu, int cap, kt_gpu_timer **out, kt_err *err) KT_MUST_CHECK;
void kt_gpu_timer_close(kt_gpu_timer *timer); // NULL is fine
void kt_gpu_timer_reset(kt_gpu_timer *timer); // forgets all marks
// Adds a mark; *index (may be NULL) is its number. Errors: EGPU; EUSAGE when all `cap` marks are
// used.
kt_status kt_gpu_timer_mark(
    kt_gpu_timer *timer, kt_cu_stream stream, int *index, kt_err *err) KT_MUST_CHECK;
// Milliseconds from mark `from` to mark `to`; waits for `to`.
kt_status kt_gpu_timer_ms(
    kt_gpu_timer *timer, int from, int to, double *ms, kt_err *err) KT_MUST_CHECK;

#endif
