// What the host steps that write prompts and read answers share (host_text.c, host_ids.c,
// host_score.c).
#ifndef KT_EXEC_HOST_TEXT_H
#define KT_EXEC_HOST_TEXT_H

#include "loader/rows.h"
#include "runtime/exec/request.h"

enum { KT_PAGE_TOKENS = 16 };

// Makes the outputs `prompt` and `stop` (if the step has it) and decides their sizes. Errors:
// EPROMPT (more prompts than rows), EMODEL (more stop tokens than the pipeline takes).
kt_status kt_host_give_prompts(kt_host *host, kt_prompts *prompts, kt_err *err) KT_MUST_CHECK;
// Lays the prompts out as rows of the step's `table`; max_new [prompts->n], or NULL: nothing is
// decoded (kt_rows_limits.whole). Errors: EPROMPT.
kt_status kt_host_plan_prompts(kt_host *host, const kt_prompts *prompts, const int32_t *max_new,
    kt_rows *out, kt_err *err) KT_MUST_CHECK;
// Makes the batches of `chunk.ids` and `chunk.segments` and decides their sizes.
kt_status kt_host_give_chunks(kt_host *host, const kt_rows *rows, kt_err *err) KT_MUST_CHECK;
// Inputs `tokens` i32[rows, most] and `made` i32[rows] as the sampling op left them. Errors: EOP:
// it made more than there is room for.
kt_status kt_host_get_tokens(
    kt_host *host, int32_t **ids, int32_t **counts, kt_err *err) KT_MUST_CHECK;
// Makes the output `answers`: one of each item, which gets the item's name and title.
void kt_host_give_answers(kt_host *host, kt_answers *answers);

#endif
