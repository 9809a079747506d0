// Kernel of ops/unpack_bnb/op.yaml.
#include "bnb.cuh"

// As kt_bnb_unpack says.
extern "C" __global__ void __launch_bounds__(256) kt_unpack_bnb_flat(kt_f16 *rows,
    const uint8_t *codes, const uint8_t *absmax, const float *map, const float *nested_absmax,
    const float *nested_map, int32_t n, int32_t k, int32_t c, int32_t b, int32_t b2, float offset) {
    kt_bnb_nested scales = {absmax, nested_absmax, nested_map, offset};
    kt_bnb_unpack(rows, codes, map, n, k, b, scales);
}
