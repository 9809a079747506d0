// What to do about a plan that needs more memory than there is: settings that would do, found by
// planning again with smaller ones.
#ifndef KT_EXEC_FIT_H
#define KT_EXEC_FIT_H

#include "runtime/exec/session.h"

// Adds to *err, which says that the session's plan does not fit the target, a note for every single
// smaller setting with which it would; or for all of them together; or that none helps. The
// pipeline's settings are as before afterwards. Takes as long as some plans do (tens of
// milliseconds each).
void kt_fit_notes(kt_session *session, const kt_target *target, kt_err *err);

#endif
