// Kernels that are wrong in one way each; tests/test_emu.c says how each must be found, and runs
// the right ones among them (kt_good_*). y has 1024 words, x 1024 that may only be read, ticket 4
// that are 0. Threads are numbered t over the block.
#include "mma.cuh"

#define T      ((int32_t)threadIdx.x)
#define B      ((int32_t)blockIdx.x)
#define N      ((int32_t)blockDim.x)
#define BLOCKS ((int32_t)gridDim.x)

// ---- barriers and shared memory

extern "C" __global__ void kt_good_reverse(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    s[T] = x[T];
    kt_sync();
    y[B * N + T] = s[N - 1 - T];
}
extern "C" __global__ void kt_no_barrier(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    s[T] = x[T];
    y[T] = s[N - 1 - T];
}
// The next round's write does not wait for the last round's reads.
extern "C" __global__ void kt_no_second_barrier(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    uint32_t sum = 0;
    for (int32_t i = 0; i < 4; i++) {
        s[T] = x[T] + (uint32_t)i;
        kt_sync();
        sum += s[N - 1 - T];
    }
    y[T] = sum;
}
extern "C" __global__ void kt_two_writers(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    s[T / 2] = 7;
    kt_sync();
    y[T] = s[T / 2];
}
extern "C" __global__ void kt_good_bytes(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint8_t, s);
    s[T] = (uint8_t)T;
    ((uint8_t *)y)[T] = (uint8_t)x[T];
    kt_sync();
    y[N + T] = s[N - 1 - T];
}
extern "C" __global__ void kt_byte_race(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint8_t, s);
    s[T] = (uint8_t)T;
    if (T % 4 == 0) y[T / 4] = *(uint32_t *)(s + T);
}
extern "C" __global__ void kt_good_warp(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    uint32_t sum = 0;
    for (int32_t i = 0; i < 3; i++) {
        s[T] = x[T] + (uint32_t)i;
        kt_sync_warp();
        sum += s[T ^ 1];
        kt_sync_warp();
    }
    y[T] = sum;
}
extern "C" __global__ void kt_no_sync_warp(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    s[T] = x[T];
    y[T] = kt_shfl_xor(s[T], 1); // orders no memory
    y[T] += s[T ^ 1];
}
extern "C" __global__ void kt_no_second_sync_warp(
    uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    uint32_t sum = 0;
    for (int32_t i = 0; i < 3; i++) {
        s[T] = x[T] + (uint32_t)i;
        kt_sync_warp();
        sum += s[T ^ 1];
    }
    y[T] = sum;
}
extern "C" __global__ void kt_barrier_in_branch(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    if (T < 32) kt_sync();
    y[T] = 1;
}
extern "C" __global__ void kt_two_barriers(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    if (T < 32)
        kt_sync();
    else
        kt_sync();
    y[T] = 1;
}
extern "C" __global__ void kt_barrier_after_return(
    uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    if (T == 5) return;
    kt_sync();
    y[T] = 1;
}
extern "C" __global__ void kt_uninitialised(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    if (T != 3) s[T] = x[T];
    kt_sync();
    y[T] = s[N - 1 - T];
}
// What the block before wrote is gone.
extern "C" __global__ void kt_last_blocks_memory(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    KT_SHARED(uint32_t, once, 1);
    if (T == 0 && kt_atomic_add(ticket, 1) == 0) *once = 1;
    s[T] = 0;
    kt_sync();
    y[B * N + T] = *once;
}
extern "C" __global__ void kt_dynamic_overflow(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    s[T + 1] = x[T];
}
extern "C" __global__ void kt_static_overflow(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED(uint16_t, s, 63);
    s[T] = (uint16_t)x[T];
}
extern "C" __global__ void kt_static_overflow_by_pointer(
    uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED(uint16_t, s, 63);
    uint16_t *from = s;
    from[T] = (uint16_t)x[T];
}
extern "C" __global__ void kt_much_shared(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED(uint32_t, s, 30000);
    s[T] = 0;
}
extern "C" __global__ void kt_atomic_and_plain(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    if (T == 0) s[0] = 0;
    kt_sync();
    kt_atomic_add(s, 1);
    if (T == 40) y[0] = s[0];
}
extern "C" __global__ void kt_good_atomic(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    if (T == 0) s[0] = 0;
    kt_sync();
    kt_atomic_add(s, x[T]);
    kt_sync();
    y[T] = s[0];
}

// ---- collectives

extern "C" __global__ void kt_good_shuffles(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    uint32_t v = kt_shfl_xor((uint32_t)T, 5);
    uint64_t w = kt_shfl_xor((uint64_t)T << 33, 1);
    float f = kt_shfl((float)T, 7);
    y[T] = v + (uint32_t)(w >> 33) * 1000 + (uint32_t)f * 1000000;
    y[N + T] = kt_ballot(T % 3 == 0);
}
extern "C" __global__ void kt_half_a_warp(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    float c[4] = {0, 0, 0, 0};
    uint32_t a[4] = {0, 0, 0, 0};
    if (kt_lane() < 16) kt_mma(c, a, 0, 0);
    y[T] = kt_bits(c[0]);
}
extern "C" __global__ void kt_two_collectives(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    if (kt_lane() < 16)
        y[T] = kt_shfl_xor(x[T], 1);
    else
        y[T] = kt_ballot(true);
}
extern "C" __global__ void kt_barrier_and_collective(
    uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    uint32_t v = x[T];
    if (kt_lane() < 16) v = kt_shfl_xor(v, 1);
    kt_sync();
    y[T] = v;
}
extern "C" __global__ void kt_wild_mask(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = kt_shfl_xor(x[T], 32);
}

// ---- asynchronous copies: 64 threads, 16 bytes each, from x to s

KT_DEVICE void copy(uint32_t *s, const uint32_t *x, int32_t stage) {
    kt_copy16(s + stage * 256 + T * 4, x + stage * 256 + T * 4, 16);
}
extern "C" __global__ void kt_good_copies(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    copy(s, x, 0);
    kt_copy_commit();
    kt_copy16(s + 256 + T * 4, x + 256 + T * 4, 4);
    kt_copy_commit();
    kt_copy_wait<1>();
    kt_sync();
    y[T] = s[255 - T];
    kt_copy_wait<0>();
    kt_sync();
    y[N + T] = s[256 + T];
}
extern "C" __global__ void kt_weak_wait(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    copy(s, x, 0);
    kt_copy_commit();
    copy(s, x, 1);
    kt_copy_commit();
    kt_copy_wait<1>();
    kt_sync();
    y[T] = s[256 + T * 4];
    kt_copy_wait<0>();
}
extern "C" __global__ void kt_no_commit(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    copy(s, x, 0);
    kt_copy_wait<0>();
    kt_sync();
    y[T] = s[255 - T];
}
extern "C" __global__ void kt_no_commit_at_end(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    copy(s, x, 0);
}
extern "C" __global__ void kt_no_wait(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    copy(s, x, 0);
    kt_copy_commit();
}
extern "C" __global__ void kt_barrier_before_wait(
    uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    copy(s, x, 0);
    kt_copy_commit();
    kt_sync();
    kt_copy_wait<0>();
    y[T] = s[255 - T];
}
extern "C" __global__ void kt_stage_too_early(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    uint32_t sum = 0;
    for (int32_t i = 0; i < 2; i++) {
        kt_copy16(s + T * 4, x + i * 256 + T * 4, 16);
        kt_copy_commit();
        kt_copy_wait<0>();
        kt_sync();
        sum += s[255 - T];
    }
    y[T] = sum;
}
extern "C" __global__ void kt_long_copy(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    kt_copy16(s + T * 4, x + T * 4, T == 9 ? 20 : 16);
    kt_copy_commit();
    kt_copy_wait<0>();
}
extern "C" __global__ void kt_copy_to_global(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    kt_copy16(y + T * 4, x + T * 4, 16);
    kt_copy_commit();
    kt_copy_wait<0>();
}
// The copy may read before or after another thread writes.
extern "C" __global__ void kt_copy_changes(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    if (T < 32) kt_copy16(s + T * 4, y + T * 4, 16);
    kt_copy_commit();
    kt_sync();
    if (T >= 32) y[(T - 32) * 4] = 1;
    kt_sync();
    kt_copy_wait<0>();
}
extern "C" __global__ void kt_copy_beyond(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    kt_copy16(s + T * 4, x + 1024 - 63 * 4 + T * 4, 16); // 0 bytes would be fine
    kt_copy_commit();
    kt_copy_wait<0>();
}

// ---- addresses

extern "C" __global__ void kt_overrun(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[1024 - N + 1 + T] = 1;
}
extern "C" __global__ void kt_overrun_read(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = x[1024 - N + 1 + T];
}
extern "C" __global__ void kt_before_begin(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T - 1] = 1;
}
extern "C" __global__ void kt_write_input(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    ((uint32_t *)x)[T] = 1;
}
extern "C" __global__ void kt_wild(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T + (1ll << 40)] = 1;
}
extern "C" __global__ void kt_null(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    uint32_t *p = ticket[0] == 0 ? 0 : y;
    p[T] = 1;
}
extern "C" __global__ void kt_misaligned_vector(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    kt_f32x4 v = kt_load4((const float *)(x + 1), T);
    y[T] = kt_bits(v.x + v.w);
}
extern "C" __global__ void kt_misaligned_word(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = *(const uint32_t *)((const uint8_t *)x + T * 2);
}
extern "C" __global__ void kt_misaligned_once(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = kt_load_once16(x + T * 2).y;
}
extern "C" __global__ void kt_misaligned_matrix(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    for (int32_t i = T; i < 512; i += N) s[i] = x[i];
    kt_sync();
    uint32_t v[4];
    kt_ldmatrix4(v, s + T * 2);
    y[T] = v[0];
}
extern "C" __global__ void kt_matrix_beyond(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t, s);
    for (int32_t i = T; i < 512; i += N) s[i] = x[i];
    kt_sync();
    uint32_t v[4];
    kt_ldmatrix4(v, s + 512 - 31 * 4 + kt_lane() * 4);
    y[T] = v[0];
}
extern "C" __global__ void kt_others_stack(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(uint32_t *, s);
    uint32_t own = x[T];
    s[T] = &own;
    kt_sync();
    y[T] = *s[N - 1 - T];
    kt_sync();
}
extern "C" __global__ void kt_wide_cast(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = (uint32_t)(int32_t)((float)x[T] * 1e8f);
}
extern "C" __global__ void kt_cast_nan(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = (uint32_t)(int32_t)kt_float(x[T] | 0x7fc00000u);
}

static uint32_t deep(volatile uint32_t *from, int32_t n) {
    volatile uint32_t kept[64];
    kept[n % 64] = from[0] + 1;
    return n == 0 ? kept[0] : deep(kept, n - 1) + kept[n % 64];
}
extern "C" __global__ void kt_deep(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    volatile uint32_t first = x[T];
    y[T] = deep(&first, 1 << 20);
}
extern "C" __global__ void kt_divide(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = x[T] / ticket[0];
}

// Never end: `ticket` is 0.
extern "C" __global__ void kt_endless(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    for (uint32_t i = 0; i < 9; i += ticket[0]) y[T] = x[T];
}
extern "C" __global__ void kt_endless_barriers(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    for (uint32_t i = 0; i < 9; i += ticket[0]) kt_sync();
    y[T] = x[T];
}

extern "C" __global__ void kt_own_array(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    uint32_t own[4] = {x[0], x[1], x[2], x[3]};
    for (int32_t i = 0; i < 4; i++) own[i] += own[x[i] % 5];
    y[T] = own[0] + own[3];
}
extern "C" __global__ void kt_shift(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = 1u << x[T];
}

// ---- races in global memory

extern "C" __global__ void kt_blocks_write_one(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = 1;
}
extern "C" __global__ void kt_threads_write_one(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T / 2] = 1;
}
extern "C" __global__ void kt_blocks_read_written(
    uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[B * N + T] = y[(BLOCKS - 1 - B) * N + T] + 1;
}
extern "C" __global__ void kt_good_global(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[B * N + T] = x[T];
    kt_sync();
    uint32_t v = y[B * N + N - 1 - T];
    kt_sync();
    y[B * N + T] = v;
}
extern "C" __global__ void kt_once_of_written(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = x[T];
    y[N + T] = kt_load_once2(y + T);
}
// The other ways of reading it do not tell what these are for.
extern "C" __global__ void kt_once_after_read(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[T] = x[T];
    uint32_t v = *(volatile uint32_t *)(y + T);
    y[N + T] = v + kt_load_once2(y + T);
}
// Whoever comes first is first: every order of the threads is another result.
extern "C" __global__ void kt_order(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    y[kt_atomic_add(ticket, 1)] = (uint32_t)(B * N + T);
}

// The last block adds what all wrote: done right, and with a step left out.
enum {
    NO_FENCE = 1,
    NO_BARRIER = 2,
    NO_SECOND_FENCE = 4,
    PLAIN_LOAD = 8,
    NO_TICKET = 16,
    TWO_LOADS = 32
};
KT_DEVICE void last_block_adds(uint32_t *y, const uint32_t *x, uint32_t *ticket, int32_t without) {
    KT_SHARED(uint32_t, before, 1);
    y[B * N + T] = x[T] + (uint32_t)B;
    if ((without & NO_FENCE) == 0) kt_fence();
    if ((without & NO_BARRIER) == 0) kt_sync();
    if (T == 0) *before = kt_atomic_add(ticket + ((without & NO_TICKET) != 0 ? B : 0), 1);
    kt_sync();
    if ((without & NO_TICKET) != 0 ? B + 1 < BLOCKS : (int32_t)*before + 1 < BLOCKS) return;
    if ((without & NO_SECOND_FENCE) == 0) kt_fence();
    if (T == 0 && (without & NO_TICKET) == 0) ticket[0] = 0;
    uint32_t sum = 0;
    for (int32_t i = 0; i < BLOCKS; i++) {
        const uint32_t *at = y + i * N + T;
        sum += (without & PLAIN_LOAD) != 0 ? *at
                                           : kt_bits(kt_load_shared_by_blocks((const float *)at));
        if ((without & TWO_LOADS) != 0) sum += *at;
    }
    y[BLOCKS * N + T] = sum;
}
extern "C" __global__ void kt_good_ticket(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    last_block_adds(y, x, ticket, 0);
}
extern "C" __global__ void kt_ticket_no_fence(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    last_block_adds(y, x, ticket, NO_FENCE);
}
extern "C" __global__ void kt_ticket_no_barrier(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    last_block_adds(y, x, ticket, NO_BARRIER);
}
extern "C" __global__ void kt_ticket_no_second_fence(
    uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    last_block_adds(y, x, ticket, NO_SECOND_FENCE);
}
extern "C" __global__ void kt_ticket_plain_load(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    last_block_adds(y, x, ticket, PLAIN_LOAD);
}
extern "C" __global__ void kt_ticket_two_loads(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    last_block_adds(y, x, ticket, TWO_LOADS);
}
extern "C" __global__ void kt_own_tickets(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    last_block_adds(y, x, ticket, NO_TICKET);
}

// ---- numbers: one warp

// y[row 16][column 8] = x as f16[16][16] times x + 128 words as f16[16][8], by ldmatrix and mma.
extern "C" __global__ void kt_good_mma(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    KT_SHARED_DYNAMIC(kt_f16, s);
    for (int32_t i = T; i < 192; i += 32) ((uint32_t *)s)[i] = x[i];
    kt_sync();
    uint32_t a[4], b[4];
    const int32_t l = kt_lane();
    kt_ldmatrix4(a, s + (l % 8 + l / 8 % 2 * 8) * 16 + l / 16 * 8);
    kt_ldmatrix4_transposed(b, s + 256 + l % 16 * 8);
    float c[4] = {0.5f, 0.5f, 0.5f, 0.5f};
    kt_mma(c, a, b[0], b[1]);
    for (int32_t i = 0; i < 4; i++) y[(l / 4 + i / 2 * 8) * 8 + l % 4 * 2 + i % 2] = kt_bits(c[i]);
}
// Words of other functions of machine.cuh.
extern "C" __global__ void kt_good_numbers(uint32_t *y, const uint32_t *x, uint32_t *ticket) {
    if (T > 0) return;
    y[0] = kt_permute(0x33221100u, 0x77665544u, 0x7052);
    y[1] = kt_and_or(0xff00ff00u, 0x0ff00ff0u, 1);
    y[2] = kt_fma_f16x2(0x3c003c01u, 0x3c003c01u, 0x00013c00u); // 1.00098^2 + 6e-8, 1 + 1
    y[3] = kt_bits(kt_min(-0.0f, 0.0f));
    y[4] = kt_bits(kt_max(-0.0f, 0.0f));
    y[5] = kt_bits(kt_max(kt_float(0x7fc00000u), 2.0f));
    y[6] = (uint32_t)kt_round(2.5f) + 10 * (uint32_t)kt_round(-3.5 + 7);
    y[7] = kt_to_f16(65520).bits;             // to infinity
    y[8] = kt_to_f16(5.9604645e-8f / 2).bits; // half the smallest: to even
    y[9] = kt_bits(kt_to_f32(kt_f16{0x8001}));
    y[10] = (uint32_t)kt_popcount(0xf0f0u);
    y[11] = kt_bits(kt_fma(1.00000012f, 1.00000012f, -1.00000024f));
    y[12] = kt_load_once8(x + 2).y;
    const float none = kt_float(0xffc12345u + x[0]); // 0
    y[14] = kt_to_f16(none).bits;
    y[15] = kt_fma_f16x2(0x7c003c00u, 0x00003c00u, 0x3c00fe01u); // infinity * 0, 1 + NaN
    y[13] = (uint32_t)sizeof(kt_u32x4) + (uint32_t)kt_ceil(2.1);
}
