// What opening a session says on stderr: memory before it is taken, times when all is ready.
#ifndef KT_EXEC_TIMES_H
#define KT_EXEC_TIMES_H

#include "runtime/exec/session.h"

// When the plan is there, before memory is taken: its sum, from 1 GB on or with --verbose.
void kt_times_planned(const kt_session *session);
// When all is ready: a warning about weights that f16 holds badly; with --verbose the times, as a
// table and as one line of JSON ("opened {...}", for programs that measure).
void kt_times_opened(const kt_session *session);

#endif
