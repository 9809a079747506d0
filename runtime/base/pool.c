#include "runtime/base/pool.h"

#include "runtime/base/os.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { MAX_WORKERS = 255, STACK_BYTES = 4 << 20, CHUNKS_PER_THREAD = 8 };

// One loop at a time. Workers sleep until a loop opens, join it while it is open, and take ranges
// off `next`. The caller does the same, closes the loop, and waits for those that joined: a worker
// that wakes up too late costs nothing.
struct kt_pool {
    kt_os_mutex *mutex; // guards the fields up to `n_active`
    kt_os_cond *opened;
    kt_os_cond *left;
    uint64_t loop; // counts the loops
    bool open, quit;
    int n_active; // workers inside the open loop
    // The loop; written before it opens.
    void (*run)(void *ctx, int64_t begin, int64_t end);
    void *ctx;
    int64_t n, chunk;
    _Atomic int64_t next;
    int n_workers;
    kt_os_thread *workers[MAX_WORKERS];
};

static void take_ranges(kt_pool *pool) {
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&pool->next, pool->chunk, memory_order_relaxed);
        if (begin >= pool->n) return;
        int64_t rest = pool->n - begin;
        pool->run(pool->ctx, begin, begin + (rest < pool->chunk ? rest : pool->chunk));
    }
}

static void work(void *ctx) {
    kt_pool *pool = ctx;
    uint64_t seen = 0;
    kt_os_mutex_lock(pool->mutex);
    for (;;) {
        while (!pool->quit && pool->loop == seen) kt_os_cond_wait(pool->opened, pool->mutex);
        if (pool->quit) break;
        seen = pool->loop;
        if (!pool->open) continue;
        pool->n_active++;
        kt_os_mutex_unlock(pool->mutex);
        take_ranges(pool);
        kt_os_mutex_lock(pool->mutex);
        pool->n_active--;
        if (pool->n_active == 0) kt_os_cond_broadcast(pool->left);
    }
    kt_os_mutex_unlock(pool->mutex);
}

kt_pool *kt_pool_open(int n_threads) {
    int n_workers = (n_threads > 0 ? n_threads : kt_os_cpu_count()) - 1;
    if (n_workers > MAX_WORKERS) n_workers = MAX_WORKERS;
    kt_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) kt_out_of_memory(sizeof *pool);
    pool->mutex = kt_os_mutex_create();
    pool->opened = kt_os_cond_create();
    pool->left = kt_os_cond_create();
    for (int i = 0; i < n_workers; i++) {
        pool->workers[i] = kt_os_thread_start(work, pool, STACK_BYTES);
        if (pool->workers[i] == NULL) break; // fewer threads are slower, not wrong
        pool->n_workers++;
    }
    return pool;
}

void kt_pool_close(kt_pool *pool) {
    if (pool == NULL) return;
    kt_os_mutex_lock(pool->mutex);
    pool->quit = true;
    kt_os_cond_broadcast(pool->opened);
    kt_os_mutex_unlock(pool->mutex);
    for (int i = 0; i < pool->n_workers; i++) kt_os_thread_join(pool->workers[i]);
    kt_os_cond_free(pool->left);
    kt_os_cond_free(pool->opened);
    kt_os_mutex_free(pool->mutex);
    free(pool);
}

int kt_pool_threads(const kt_pool *pool) {
    return pool == NULL ? 1 : pool->n_workers + 1;
}

// Long enough to be worth taking, short enough that the threads end together.
static int64_t chunk_of(const kt_pool *pool, int64_t n, int64_t grain) {
    int64_t chunk = n / ((int64_t)kt_pool_threads(pool) * CHUNKS_PER_THREAD);
    if (chunk < grain) chunk = grain;
    return chunk < 1 ? 1 : chunk;
}

void kt_pool_for(kt_pool *pool, int64_t n, int64_t grain,
    void (*run)(void *ctx, int64_t begin, int64_t end), void *ctx) {
    if (n <= 0) return;
    KT_ASSERT(n <= INT64_MAX / 2); // `next` passes n by at most one chunk per thread
    if (pool == NULL || pool->n_workers == 0 || n <= grain) {
        run(ctx, 0, n);
        return;
    }
    kt_os_mutex_lock(pool->mutex);
    KT_ASSERT(!pool->open); // a loop inside a loop
    pool->run = run;
    pool->ctx = ctx;
    pool->n = n;
    pool->chunk = chunk_of(pool, n, grain);
    atomic_store(&pool->next, 0);
    pool->open = true;
    pool->loop++;
    kt_os_cond_broadcast(pool->opened);
    kt_os_mutex_unlock(pool->mutex);

    take_ranges(pool);

    kt_os_mutex_lock(pool->mutex);
    pool->open = false;
    while (pool->n_active > 0) kt_os_cond_wait(pool->left, pool->mutex);
    kt_os_mutex_unlock(pool->mutex);
}
