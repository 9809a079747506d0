// A pool of worker threads that run one loop at a time.
#ifndef KT_BASE_POOL_H
#define KT_BASE_POOL_H

#include <stdint.h>

typedef struct kt_pool kt_pool;

kt_pool *kt_pool_open(
    int n_threads);                // 0: as many as the process has CPUs; the caller is one of them
void kt_pool_close(kt_pool *pool); // NULL is fine
int kt_pool_threads(const kt_pool *pool);
// Calls run(ctx, begin, end) on disjoint ranges that cover 0 .. n, at least `grain` long where
// possible. Returns when all are done. Not to be nested. A NULL pool runs on the caller alone.
void kt_pool_for(kt_pool *pool, int64_t n, int64_t grain,
    void (*run)(void *ctx, int64_t begin, int64_t end), void *ctx);

#endif
