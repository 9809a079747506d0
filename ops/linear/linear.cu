// Kernels of ops/linear/op.yaml.
#include "matmul.cuh"

typedef KT_READER_W<KT_M, KT_K> reader;

KT_DEVICE float act(float v) {
#if KT_ACT_GELU_TANH
    float u = 0.797884561f * kt_fma(0.044715f * v * v, v, v); // sqrt(2 / pi) (v + 0.044715 v^3)
    return v / (1.0f + kt_exp(-2.0f * u));                    // v / 2 (1 + tanh u)
#else
    return v;
#endif
}

struct sink {
    KT_Y *y;
    const float *b;

    __device__ __forceinline__ void put(int32_t row, int32_t m, float v) const {
#if KT_HAS_B
        v += b[m];
#endif
        kt_put(y + (int64_t)row * KT_M + m, act(v));
    }
};

// A block owns 64 outputs of all rows (n <= 8). Shared memory: 33792 bytes of tables (later sums),
// then 1024 bytes for each 64 inputs up to 2048. x is aligned to 16 bytes.
extern "C" __global__ void __launch_bounds__(256, 1)
    kt_linear_rows(KT_Y *y, const kt_f16 *x, const float *b, const uint8_t *w, int32_t n) {
    KT_SHARED_DYNAMIC(unsigned char, shared);
    sink out = {y, b};
    kt_matmul_rows(reader(w), x, n, (int32_t)blockIdx.x, 0, (KT_K + 63) / 64, shared, out);
}

// With one group of columns there is no loop, and the compiler stops at 128 registers and spills a
// few unless told that one block on a multiprocessor is enough; else it is left to choose.
enum { TILES_BLOCKS = KT_K <= 64 ? 1 : 0 };

// A block owns 128 rows x 128 outputs. Shared memory: 33792 bytes of tables, 3 stages of 16384.
extern "C" __global__ void __launch_bounds__(256, TILES_BLOCKS)
    kt_linear_tiles(KT_Y *y, const kt_f16 *x, const float *b, const uint8_t *w, int32_t n) {
    KT_SHARED_DYNAMIC(unsigned char, shared);
    sink out = {y, b};
    kt_matmul_tiles(reader(w), x, n, (int32_t)blockIdx.x * 128, (int32_t)blockIdx.y * 128, 0,
        (KT_K + 63) / 64, shared, out);
}
