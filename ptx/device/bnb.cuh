// 4-bit weights as bitsandbytes stores them: W[n, k] flattened, two codes a byte, the first in the
// high half; blocks of 64 numbers with an 8-bit scale code, spans of 256 blocks with a scale of
// scales.
#ifndef KT_DEVICE_BNB_CUH
#define KT_DEVICE_BNB_CUH

#include "kt.cuh"

KT_DEVICE int32_t kt_bnb_code(const uint8_t *codes, int64_t at) {
    return at % 2 == 0 ? codes[at / 2] >> 4 : codes[at / 2] & 15;
}

// Codes `at` (even) and at + 1 in one byte as tiles hold them: the even one in the low half.
KT_DEVICE uint8_t kt_bnb_pair(const uint8_t *codes, int64_t at) {
    uint8_t byte = codes[at / 2];
    return (uint8_t)(byte >> 4 | byte << 4);
}

// Of block `block`: two roundings, as bitsandbytes does it.
KT_DEVICE float kt_bnb_scale(int64_t block, const uint8_t *absmax, const float *nested_absmax,
    const float *nested_map, float offset) {
    return kt_add(kt_mul(nested_map[absmax[block]], nested_absmax[block / 256]), offset);
}

#endif
