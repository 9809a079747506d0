// Messages to stderr. Never a substitute for returning an error; results go to stdout elsewhere.
#ifndef KT_BASE_LOG_H
#define KT_BASE_LOG_H

#include "runtime/base/status.h"

typedef enum kt_log_level { KT_LOG_QUIET, KT_LOG_WARN, KT_LOG_INFO, KT_LOG_DEBUG } kt_log_level;

void kt_log_set_level(kt_log_level level); // INFO at first
kt_log_level kt_log_get_level(void);
void kt_log_error(const kt_err *err);                   // "kotaro: error: ...", with its notes
void kt_log_warn(const char *fmt, ...) KT_PRINTF(1, 2); // "kotaro: warning: ..."
void kt_log_info(const char *fmt, ...) KT_PRINTF(1, 2); // "kotaro: ..."
void kt_log_debug(const char *fmt, ...) KT_PRINTF(1, 2);
// A line that is rewritten in place, on a terminal only. NULL clears it.
void kt_log_progress(const char *fmt, ...) KT_PRINTF(1, 2);

#endif
