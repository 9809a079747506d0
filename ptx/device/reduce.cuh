// Sums and maxima over a warp or a block, in an order that never changes.
#ifndef KT_DEVICE_REDUCE_CUH
#define KT_DEVICE_REDUCE_CUH

#include "kt.cuh"

// Of the 32 lanes, in every lane.
KT_DEVICE float kt_warp_sum(float v) {
    KT_UNROLL
    for (int32_t mask = 16; mask > 0; mask >>= 1) v += kt_shfl_xor(v, mask);
    return v;
}
KT_DEVICE float kt_warp_max(float v) {
    KT_UNROLL
    for (int32_t mask = 16; mask > 0; mask >>= 1) v = kt_max(v, kt_shfl_xor(v, mask));
    return v;
}

// Of the block's threads (a multiple of 32), in every thread. `scratch`: one float a warp, which
// other uses must be done with; a later use by another call needs no barrier if it is another
// place.
KT_DEVICE float kt_block_sum(float v, float *scratch) {
    v = kt_warp_sum(v);
    if (kt_lane() == 0) scratch[kt_warp()] = v;
    kt_sync();
    float sum = 0;
    for (int32_t i = 0; i < (int32_t)(blockDim.x / 32); i++) sum += scratch[i];
    return sum;
}

#endif
