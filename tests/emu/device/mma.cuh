// ptx/device/mma.cuh for a CPU: tensor cores and asynchronous copies on the emulator. What operands
// mean is said there.
#ifndef KT_DEVICE_MMA_CUH
#define KT_DEVICE_MMA_CUH

#include "kt.cuh"

KT_DEVICE void kt_mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, EMU_PLACE) {
    emu_mma(c, a, b0, b1, file, line);
}

KT_DEVICE void kt_ldmatrix4(uint32_t v[4], const void *row, EMU_PLACE) {
    emu_ldmatrix(v, row, false, file, line);
}
KT_DEVICE void kt_ldmatrix4_transposed(uint32_t v[4], const void *row, EMU_PLACE) {
    emu_ldmatrix(v, row, true, file, line);
}

KT_DEVICE void kt_copy16(void *shared, const void *global, int32_t bytes) {
    emu_copy(shared, global, 16, bytes);
}
KT_DEVICE void kt_copy8(void *shared, const void *global, int32_t bytes) {
    emu_copy(shared, global, 8, bytes);
}
KT_DEVICE void kt_copy_commit(void) {
    emu_copy_commit();
}
template <int newest> KT_DEVICE void kt_copy_wait(void) {
    emu_copy_wait(newest);
}

#endif
