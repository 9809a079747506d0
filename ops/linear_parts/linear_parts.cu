// Kernels of ops/linear_parts/op.yaml.
#include "matmul.cuh"

typedef KT_READER_W<KT_M, KT_K> reader;

struct sink {
    float *part; // f32[n, m] of this range of the inputs
    const float *b;
    float scale;
    bool first;

    __device__ __forceinline__ void put(int32_t row, int32_t m, float v) const {
        v *= scale;
#if KT_HAS_B
        if (first) v += b[m];
#endif
        part[(int64_t)row * KT_M + m] = v;
    }
};

// Part p sums the groups of 64 inputs from g p / s to g (p + 1) / s, g of them in all.
KT_DEVICE int32_t range(int32_t p, int32_t s) {
    return (int32_t)((int64_t)((KT_K + 63) / 64) * p / s);
}

// A block owns 64 outputs of all rows (n <= 8) in one part. Shared memory: 33792 bytes of tables
// (later sums), then 1024 bytes for each 64 inputs of the part up to 2048. x is aligned to 16
// bytes.
extern "C" __global__ void __launch_bounds__(256, 1) kt_linear_parts_rows(float *part,
    const kt_f16 *x, const float *b, const uint8_t *w, int32_t n, int32_t s, float scale) {
    KT_SHARED_DYNAMIC(unsigned char, shared);
    int32_t p = (int32_t)blockIdx.y;
    sink out = {part + (int64_t)p * n * KT_M, b, scale, p == 0};
    kt_matmul_rows(reader(w), x, n, (int32_t)blockIdx.x, range(p, s), range(p + 1, s), shared, out);
}

// A block owns 128 rows x 128 outputs in one part. Shared memory: 33792 bytes of tables, 3 stages
// of 16384.
extern "C" __global__ void __launch_bounds__(256) kt_linear_parts_tiles(float *part,
    const kt_f16 *x, const float *b, const uint8_t *w, int32_t n, int32_t s, float scale) {
    KT_SHARED_DYNAMIC(unsigned char, shared);
    int32_t p = (int32_t)blockIdx.z;
    sink out = {part + (int64_t)p * n * KT_M, b, scale, p == 0};
    kt_matmul_tiles(reader(w), x, n, (int32_t)blockIdx.x * 128, (int32_t)blockIdx.y * 128,
        range(p, s), range(p + 1, s), shared, out);
}
