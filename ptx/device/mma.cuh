// Tensor cores and asynchronous copies: instructions that every GPU from sm_80 on has.
#ifndef KT_DEVICE_MMA_CUH
#define KT_DEVICE_MMA_CUH

#include "kt.cuh"

// c[16, 8] += a[16, 16] b[16, 8]. Lane l, g = l / 4, t = l % 4; a word holds two f16, the first
// low:
//   a[0]  row g, columns 2t, 2t+1     a[2]  row g, columns 2t+8, 2t+9     a[1], a[3]  row g+8
//   b0    rows 2t, 2t+1, column g     b1    rows 2t+8, 2t+9, column g
//   c[0]  row g, column 2t            c[1]  row g, column 2t+1            c[2], c[3]  row g+8
KT_DEVICE void kt_mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices of f16 from shared memory. Lane l names row l % 8 of matrix l / 8 (16 bytes,
// aligned to 16); v[i] holds row l / 4, columns 2 (l % 4) and the next of matrix i.
KT_DEVICE void kt_ldmatrix4(uint32_t v[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}
// The same transposed: v[i] holds rows 2 (l % 4) and the next, column l / 4 of matrix i.
KT_DEVICE void kt_ldmatrix4_transposed(uint32_t v[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

// Copies `bytes` from global to shared memory behind the thread's back and fills up with 0: 16 (or
// 8) bytes are written, `bytes` of them read. Both aligned to 16 (8). Done after kt_copy_wait.
KT_DEVICE void kt_copy16(void *shared, const void *global, int32_t bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}
KT_DEVICE void kt_copy8(void *shared, const void *global, int32_t bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}
// Closes a group of this thread's copies.
KT_DEVICE void kt_copy_commit(void) {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `newest` groups of this thread are under way; other threads' need kt_sync,
// too.
template <int newest> KT_DEVICE void kt_copy_wait(void) {
    asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory");
}

#endif
