// GGML's blocks: ops/kt_ggml.h against tests/data/ggml.goldens, in f32 and exactly; then the op
// that unpacks them.
#include "ops/kt_ggml.h"

#include "runtime/base/f16.h"
#include "runtime/base/hash.h"
#include "runtime/base/pool.h"
#include "tests/util.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

const kt_cpu_op *kt_cpu_query_unpack_gguf(int host_version); // as the program links it

static void run_on_pool(const kt_cpu_host *host, int64_t n, int64_t grain,
    void (*loop)(void *ctx, int64_t begin, int64_t end), void *ctx) {
    kt_pool_for(host->pool, n, grain, loop, ctx);
}

// The blocks of tests/reference/make_ggml_goldens.py.
static uint8_t *make_blocks(int type, int n, int bytes) {
    uint8_t *blocks = malloc((size_t)n * (size_t)bytes);
    assert_non_null(blocks);
    for (int i = 0; i < n * bytes; i++) {
        uint32_t x = (uint32_t)i * 2654435761u + (uint32_t)type * 40503u;
        x ^= x >> 15;
        x *= 2246822519u;
        blocks[i] = (uint8_t)(x ^ x >> 13);
    }
    for (int i = 0; i < n; i++) {
        uint8_t *block = blocks + (size_t)i * (size_t)bytes;
        block[1] &= 0xbf;
        block[3] &= 0xbf;
        block[bytes - 1] &= 0xbf;
    }
    return blocks;
}

static void unpack(const kt_cpu_host *host, uint8_t *blocks, int n, int bytes, uint16_t *rows) {
    int64_t weights = kt_ggml_weights(bytes);
    const kt_cpu_tensor tensors[] = {
        {"blocks", "u8", blocks, 3, {n, 1, bytes}}, {"rows", "f16", rows, 2, {n, weights}}};
    const kt_cpu_number dims[] = {
        {"n", n, NULL}, {"k", (double)weights, NULL}, {"b", 1, NULL}, {"bytes", bytes, NULL}};
    kt_cpu_call call = {host, tensors, 2, dims, 4, NULL, 0};
    assert_null(kt_cpu_query_unpack_gguf(KT_CPU_VERSION)->run(&call));
}

// One line of the goldens.
static void check_type(const char *name, int type, int bytes, int n, const char *wanted) {
    kt_pool *pool = kt_pool_open(2);
    kt_cpu_host host = {
        KT_CPU_VERSION, run_on_pool, kt_f16_to_f32_row, kt_f32_to_f16_row, NULL, pool};
    int weights = (int)kt_ggml_weights(bytes);
    size_t all = (size_t)n * (size_t)weights;
    uint8_t *blocks = make_blocks(type, n, bytes);
    float *values = calloc(all, sizeof *values);
    uint16_t *rounded = malloc(all * sizeof *rounded), *rows = malloc(all * sizeof *rows);
    assert_true(values && rounded && rows);
    for (int b = 0; b < n; b++) {
        kt_ggml_block block;
        kt_ggml_decode(&host, blocks + (size_t)b * (size_t)bytes, bytes, &block);
        for (int i = 0; i < weights; i++) {
            float *value = &values[(size_t)b * (size_t)weights + (size_t)i];
            *value = (float)block.code[i] * block.scale[i / 16] + block.min[i / 16];
        }
    }
    kt_f32_to_f16_row(values, rounded, all);
    unpack(&host, blocks, n, bytes, rows);
    assert_memory_equal(rows, rounded, all * sizeof *rows);
    for (size_t i = 0; i < all; i++) values[i] += 0.0F; // -0 is 0
    char hex[65];
    kt_hash_hex(kt_hash_bytes(values, all * sizeof *values), hex);
    if (strncmp(hex, wanted, 16) != 0) fail_msg("%s: other values than gguf.quants has", name);
    kt_pool_close(pool);
    free(blocks);
    free(values);
    free(rounded);
    free(rows);
}

static void blocks_mean_what_gguf_says(void **state) {
    (void)state;
    FILE *file = fopen("tests/data/ggml.goldens", "rb");
    assert_non_null(file);
    char name[16], wanted[32];
    int n_types = 0;
    while (fscanf(file, "%15s", name) == 1) {
        int type = test_next_int(file), bytes = test_next_int(file), weights = test_next_int(file);
        int n = test_next_int(file);
        assert_int_equal(fscanf(file, "%31s", wanted), 1);
        assert_int_equal(weights, kt_ggml_weights(bytes));
        check_type(name, type, bytes, n, wanted);
        n_types++;
    }
    (void)fclose(file);
    assert_int_equal(n_types, 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks_mean_what_gguf_says)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
