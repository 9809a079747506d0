// Kernel of ops/score_tokens/op.yaml.
#include "reduce.cuh"
#include "segments.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

static constexpr float MOST = 3.402823466e+38f; // largest finite f32

// A logit (NaN as the smallest) above the complement of its id: the largest is the answer. Both
// zeros are one.
KT_DEVICE uint64_t to_key(float v, int32_t id) {
    uint32_t bits = kt_bits(v == v ? kt_add(v, 0.0f) : -MOST);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return ((uint64_t)bits << 32) | (uint32_t)~id;
}

KT_DEVICE uint64_t block_max(uint64_t v, uint64_t *scratch) {
    KT_UNROLL
    for (int32_t mask = 16; mask > 0; mask >>= 1) {
        uint64_t other = kt_shfl_xor(v, mask);
        v = other > v ? other : v;
    }
    if (kt_lane() == 0) scratch[kt_warp()] = v;
    kt_sync();
    for (int32_t i = 0; i < WARPS; i++) v = scratch[i] > v ? scratch[i] : v;
    return v;
}

// A block owns a token, a thread logits that are a block apart. Static shared memory: 96 bytes.
extern "C" __global__ void __launch_bounds__(THREADS) kt_score_tokens_block_per_token(float *logp,
    int32_t *best, const float *logits, const int32_t *next, const int32_t *segments, int32_t n,
    int32_t g, int32_t rows, int32_t room) {
    KT_SHARED(uint64_t, keys, WARPS);
    KT_SHARED(float, sums, WARPS);
    const int32_t token = (int32_t)blockIdx.x;
    if (token >= n) return;
    const kt_place place = kt_segment_find(segments, g, token);
    if (place.row < 0 || place.row >= rows || place.position < 0 || place.position >= room) return;
    const float *own = logits + (int64_t)token * KT_V;
    uint64_t key = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < KT_V; i += THREADS) {
        uint64_t other = to_key(own[i], i);
        key = other > key ? other : key;
    }
    const int32_t id = (int32_t) ~(uint32_t)block_max(key, keys);
    const float top = own[id];
    float sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < KT_V; i += THREADS) {
        float v = own[i];
        sum += v >= -MOST && v <= MOST ? kt_exp(v - top) : -MOST; // below 0: not finite
    }
    sum = kt_block_sum(sum < 0 ? -MOST : sum, sums);
    if (threadIdx.x != 0) return;
    const int32_t follows = next[token];
    const int64_t at = (int64_t)place.row * room + place.position;
    float v = follows >= 0 && follows < KT_V ? own[follows] - top - kt_log(sum) : 0;
    best[at] = id;
    logp[at] = sum > 0 ? v : -MOST;
}
