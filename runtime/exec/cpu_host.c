#include "runtime/exec/cpu_host.h"

#include "runtime/base/f16.h"
#include "runtime/base/os.h"

#include <stdlib.h>

static void parallel_for(const kt_cpu_host *host, int64_t n, int64_t grain,
    void (*run)(void *ctx, int64_t begin, int64_t end), void *ctx) {
    kt_pool_for(host->pool, n, grain, run, ctx);
}

// ---- matrix product: blocks of weight rows, each converted to f32 once, against all rows of x

enum { TILE_M = 4, TILE_N = 4, LANES = 8, BLOCK_M = 32 };

// sum[i][j] = x row i . w row j over `stride` numbers (a multiple of LANES), TILE_N rows of x and
// TILE_M rows of w at once.
static inline __attribute__((always_inline)) void tile_body(
    const float *x, const float *w, float *sum, int64_t stride) {
    float acc[TILE_N][TILE_M][LANES] = {0};
    for (int64_t c = 0; c < stride; c += LANES)
        for (int i = 0; i < TILE_N; i++)
            for (int j = 0; j < TILE_M; j++)
                for (int l = 0; l < LANES; l++)
                    acc[i][j][l] += x[i * stride + c + l] * w[j * stride + c + l];
    for (int i = 0; i < TILE_N; i++)
        for (int j = 0; j < TILE_M; j++) {
            const float *a = acc[i][j];
            sum[i * TILE_M + j] = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
        }
}

typedef void tile_function(const float *x, const float *w, float *sum, int64_t stride);

static void tile_plain(const float *x, const float *w, float *sum, int64_t stride) {
    tile_body(x, w, sum, stride);
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2,fma"))) static void tile_avx2(
    const float *x, const float *w, float *sum, int64_t stride) {
    tile_body(x, w, sum, stride);
}

static tile_function *choose_tile(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return tile_avx2;
    return tile_plain;
}
#else
static tile_function *choose_tile(void) {
    return tile_plain;
}
#endif

typedef struct product {
    const float *x; // f32[rows, stride], rows a multiple of TILE_N, zero beyond n and k
    int64_t stride;
    const kt_cpu_product *of;
    tile_function *tile;
} product;

static void product_block(const product *p, float *w, int64_t m0) {
    const kt_cpu_product *of = p->of;
    int64_t rows = of->m - m0 < BLOCK_M ? of->m - m0 : BLOCK_M;
    memset(w, 0, sizeof(float) * (size_t)(BLOCK_M * p->stride));
    for (int64_t j = 0; j < rows; j++)
        kt_f16_to_f32_row(of->w + (m0 + j) * of->ldw, w + j * p->stride, (size_t)of->k);
    float sum[TILE_N * TILE_M];
    for (int64_t i = 0; i < of->n; i += TILE_N)
        for (int64_t j = 0; j < rows; j += TILE_M) {
            p->tile(p->x + i * p->stride, w + j * p->stride, sum, p->stride);
            for (int64_t a = 0; a < TILE_N && i + a < of->n; a++)
                for (int64_t b = 0; b < TILE_M && j + b < rows; b++)
                    of->y[(i + a) * of->ldy + m0 + j + b] = sum[a * TILE_M + b];
        }
}

static void product_run(void *ctx, int64_t begin, int64_t end) {
    const product *p = ctx;
    size_t bytes = sizeof(float) * (size_t)(BLOCK_M * p->stride);
    float *w = malloc(bytes + 1);
    if (!w) kt_out_of_memory(bytes);
    for (int64_t block = begin; block < end; block++) product_block(p, w, block * BLOCK_M);
    free(w);
}

// ---- OpenBLAS, if the system has it: worth it for many rows

enum { BLAS_ROW_MAJOR = 101, BLAS_NO_TRANS = 111, BLAS_TRANS = 112, BLAS_LEAST_ROWS = 32 };

typedef void blas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
    const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

static blas_sgemm *blas; // set once, before threads use it

static void open_blas(void) {
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.dll"};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !blas; i++) {
        kt_os_library *library = kt_os_library_open(names[i], NULL);
        if (library) blas = (blas_sgemm *)kt_os_library_function(library, "cblas_sgemm");
    }
}

typedef struct convert {
    const kt_cpu_product *of;
    float *out; // f32[m, k]
} convert;

static void convert_run(void *ctx, int64_t begin, int64_t end) {
    const convert *c = ctx;
    for (int64_t row = begin; row < end; row++)
        kt_f16_to_f32_row(c->of->w + row * c->of->ldw, c->out + row * c->of->k, (size_t)c->of->k);
}

static void product_blas(const kt_cpu_host *host, const product *p) {
    const kt_cpu_product *of = p->of;
    size_t bytes = sizeof(float) * (size_t)(of->m * of->k);
    convert c = {of, malloc(bytes + 1)};
    if (!c.out) kt_out_of_memory(bytes);
    kt_pool_for(host->pool, of->m, 16, convert_run, &c);
    blas(BLAS_ROW_MAJOR, BLAS_NO_TRANS, BLAS_TRANS, (int)of->n, (int)of->m, (int)of->k, 1.0F, p->x,
        (int)p->stride, c.out, (int)of->k, 0.0F, of->y, (int)of->ldy);
    free(c.out);
}

static void matmul(const kt_cpu_host *host, const kt_cpu_product *of) {
    if (of->n == 0 || of->m == 0) return;
    int64_t stride = (of->k + LANES - 1) / LANES * LANES;
    int64_t rows = (of->n + TILE_N - 1) / TILE_N * TILE_N;
    float *wide = calloc((size_t)(rows * stride) + 1, sizeof(float));
    if (!wide) kt_out_of_memory((size_t)(rows * stride) * sizeof(float));
    for (int64_t i = 0; i < of->n; i++)
        kt_f16_to_f32_row(of->x + i * of->ldx, wide + i * stride, (size_t)of->k);
    product p = {wide, stride, of, choose_tile()};
    if (blas && of->n >= BLAS_LEAST_ROWS && of->k > 0)
        product_blas(host, &p);
    else
        kt_pool_for(host->pool, (of->m + BLOCK_M - 1) / BLOCK_M, 1, product_run, &p);
    free(wide);
}

void kt_cpu_host_init(kt_cpu_host *host, kt_pool *pool, bool allow_blas) {
    if (allow_blas && !blas) open_blas();
    if (!allow_blas) blas = NULL;
    *host = (kt_cpu_host){
        .version = KT_CPU_VERSION,
        .parallel_for = parallel_for,
        .f16_to_f32 = kt_f16_to_f32_row,
        .f32_to_f16 = kt_f32_to_f16_row,
        .matmul = matmul,
        .pool = pool,
    };
}
