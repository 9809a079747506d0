// Prompts as rows of one batch: shared prefix, pages of the KV pool, prefill chunks, and the state
// decoding starts from.
//
// Plain arithmetic on the host. All rows share the pages of their longest common prefix, in whole
// pages; at least one token of each row stays outside. The prefix is computed once, as row 0; every
// other page belongs to one row, so no page is written by two. A segment is {row, start, length,
// first}: `length` tokens of `row` from position `start`, which are tokens first .. first + length
// - 1 of the chunk. A segment's tokens may attend to all earlier ones of its row, also those of the
// same chunk: a layer stores the keys of a whole chunk before it attends.
#ifndef KT_LOADER_ROWS_H
#define KT_LOADER_ROWS_H

#include "loader/chat.h"

typedef struct kt_rows_limits {
    int page_tokens; // 16
    int64_t pages;   // of the pool
    int64_t context; // highest number of tokens of one row that the model can take
    int rows; // of the batch, at least the number of prompts; the rest are stopped from the start
    int64_t width;          // of the page table
    int64_t chunk_tokens;   // of one prefill chunk at most
    int64_t chunk_segments; // of one prefill chunk at most
    bool whole; // nothing is decoded: chunks hold all of each prompt, and no prefix is shared
    const int32_t *page_order; // [pages] which page is handed out when, or NULL: 0, 1, 2, ...
} kt_rows_limits;

typedef struct kt_chunk {
    int32_t *ids; // [n]
    int64_t n;
    int32_t *segments; // [g, 4]
    int64_t g;
} kt_chunk;

typedef struct kt_rows {
    int rows;
    int64_t prefix;   // tokens shared by all rows, a multiple of page_tokens
    int64_t pages;    // in use
    int32_t *table;   // [rows, width]; 0 where a row has no page
    kt_chunk *chunks; // all of each prompt but its last token (`whole`: with it)
    int64_t n_chunks;
    int32_t *next;     // [rows] the token to feed first: the prompt's last
    int32_t *segments; // [rows, 4] row, position of that token, 1 (0: stopped), row
    int32_t *left;     // [rows] max_new
    int32_t *made;     // [rows] 0
} kt_rows;

// max_new: [n], new tokens of each prompt, at least 1 (`whole`: 0). Errors: EPROMPT with the
// numbers and a remedy when a row is longer than the context or the table, or the pages do not
// suffice.
kt_status kt_rows_plan(kt_arena *arena, const kt_prompt *prompts, const int32_t *max_new, int n,
    const kt_rows_limits *limits, kt_rows *out, kt_err *err) KT_MUST_CHECK;

#endif
