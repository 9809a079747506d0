// Kernel of ops/unpack_bnb_plain/op.yaml.
#include "bnb.cuh"

// As kt_bnb_unpack says.
extern "C" __global__ void __launch_bounds__(256)
    kt_unpack_bnb_plain_flat(kt_f16 *rows, const uint8_t *codes, const float *absmax,
        const float *map, int32_t n, int32_t k, int32_t c, int32_t b) {
    kt_bnb_plain scales = {absmax};
    kt_bnb_unpack(rows, codes, map, n, k, b, scales);
}
