// Kernel of ops/sample/op.yaml, whose comments define every step.
//
// Nothing is sorted: the order of the tokens is that of integer keys, equal keys have equal
// weights, and weights are integers, so a place in the order is found digit by digit from
// histograms of counts or of weights, whatever order they are added in.
#include "kt.cuh"

enum { THREADS = 1024, WARPS = 32, BINS = 2048, LISTED = 4096 };

static constexpr float MOST = 3.402823466e+38f; // largest finite f32

KT_DEVICE float clamp(float v) {
    return kt_min(kt_max(v, -MOST), MOST);
}

// An integer with the order of the numbers; both zeros are one.
KT_DEVICE uint32_t to_key(float v) {
    uint32_t bits = kt_bits(kt_add(v, 0.0f));
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
KT_DEVICE float from_key(uint32_t key) {
    return kt_float(key >> 31 ? key ^ 0x80000000u : ~key);
}

// exp(z - highest) in units of 2^-40.
KT_DEVICE uint64_t weight_of(uint32_t key, float highest) {
    float y = kt_add(from_key(key), -highest);
    if (!(y >= -28.0f)) return 0;
    float n = kt_round(kt_mul(y, 1.44269504f));
    float f = kt_fma(n, -1.42860677e-6f, kt_fma(n, -0.693145752f, y));
    float p = kt_fma(1.0f / 720, f, 1.0f / 120);
    p = kt_fma(p, f, 1.0f / 24);
    p = kt_fma(p, f, 1.0f / 6);
    p = kt_fma(p, f, 0.5f);
    p = kt_fma(p, f, 1.0f);
    p = kt_fma(p, f, 1.0f);
    return (uint64_t)kt_mul(p, kt_float((uint32_t)((int32_t)n + 40 + 127) << 23));
}

// Word 0 of philox4x32-10. source: Salmon et al. 2011, section 4
KT_DEVICE uint32_t philox(const uint32_t *rng) {
    uint32_t k0 = rng[0], k1 = rng[1], c0 = rng[2], c1 = rng[3], c2 = 0, c3 = 0;
    for (int32_t i = 0; i < 10; i++) {
        uint64_t p = (uint64_t)0xd2511f53u * c0, q = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(q >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)q;
        c2 = (uint32_t)(p >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return c0;
}

struct found {
    uint32_t key;
    uint32_t padding;
    uint64_t before; // count or weight of all higher keys
    uint64_t own;    // of all tokens with this key
};

struct work { // shared memory of the block
    uint32_t bins[3 * BINS];
    uint32_t listed[LISTED];
};

struct small { // static shared memory
    found at;
    uint64_t sums[WARPS];
    uint32_t counts[WARPS];
    uint32_t n_listed;
    int32_t id;
};

// Keys under consideration: all of the row, or those that top-k left.
struct list {
    const uint32_t *keys;
    int32_t n;
    float highest;
};

KT_DEVICE uint32_t block_max(uint32_t v, small *shared) {
    KT_UNROLL
    for (int32_t mask = 16; mask > 0; mask >>= 1) {
        uint32_t other = kt_shfl_xor(v, mask);
        v = other > v ? other : v;
    }
    if (kt_lane() == 0) shared->counts[kt_warp()] = v;
    kt_sync();
    for (int32_t i = 0; i < WARPS; i++) v = shared->counts[i] > v ? shared->counts[i] : v;
    kt_sync();
    return v;
}

KT_DEVICE uint64_t block_sum(uint64_t v, small *shared) {
    KT_UNROLL
    for (int32_t mask = 16; mask > 0; mask >>= 1) v += kt_shfl_xor(v, mask);
    if (kt_lane() == 0) shared->sums[kt_warp()] = v;
    kt_sync();
    v = 0;
    for (int32_t i = 0; i < WARPS; i++) v += shared->sums[i];
    kt_sync();
    return v;
}

// A bin holds a count, or a weight in three words of 14 bits, so that 2^18 weights fit.
template <bool weights> KT_DEVICE uint64_t bin_value(const uint32_t *bins, int32_t bin) {
    if (!weights) return bins[bin];
    return bins[bin] + ((uint64_t)bins[BINS + bin] << 14) + ((uint64_t)bins[2 * BINS + bin] << 28);
}

// The first warp: the highest bin at which the sum from the top reaches `target`.
template <bool weights>
KT_DEVICE void find_bin(const uint32_t *bins, uint64_t target, small *shared, int32_t shift) {
    constexpr int32_t each = BINS / 32;
    const int32_t highest = BINS - 1 - kt_lane() * each;
    uint64_t own = 0, before = 0;
    for (int32_t i = 0; i < each; i++) own += bin_value<weights>(bins, highest - i);
    shared->sums[kt_lane()] = own;
    kt_sync_warp();
    for (int32_t i = 0; i < kt_lane(); i++) before += shared->sums[i];
    if (before >= target || before + own < target) return;
    for (int32_t i = 0; i < each; i++) {
        uint64_t value = bin_value<weights>(bins, highest - i);
        if (before + value >= target) {
            shared->at.key |= (uint32_t)(highest - i) << shift;
            shared->at.before += before;
            shared->at.own = value;
            return;
        }
        before += value;
    }
}

// The highest key at which the count (weight) of the tokens from the top reaches `target`, which is
// at least 1 and at most that of all. Digits of 11, 11 and 10 bits.
template <bool weights>
KT_DEVICE found descend(const list &from, uint64_t target, work *big, small *shared) {
    if (threadIdx.x == 0) {
        shared->at.key = 0;
        shared->at.before = shared->at.own = 0;
    }
    KT_NO_UNROLL
    for (int32_t level = 0; level < 3; level++) {
        const int32_t shift = level == 0 ? 21 : level == 1 ? 10 : 0;
        const int32_t above = level == 0 ? 0 : level == 1 ? 21 : 10; // bits that are settled
        for (int32_t i = (int32_t)threadIdx.x; i < (weights ? 3 : 1) * BINS; i += THREADS)
            big->bins[i] = 0;
        kt_sync();
        const uint32_t settled = shared->at.key;
        const uint64_t rest = target - shared->at.before;
        for (int32_t i = (int32_t)threadIdx.x; i < from.n; i += THREADS) {
            uint32_t key = from.keys[i];
            if (level > 0 && key >> above != settled >> above) continue;
            uint32_t bin = key >> shift & (level == 2 ? 1023 : 2047);
            if (!weights) {
                kt_atomic_add(big->bins + bin, 1);
                continue;
            }
            uint64_t w = weight_of(key, from.highest);
            if (w == 0) continue;
            kt_atomic_add(big->bins + bin, (uint32_t)w & 0x3fff);
            kt_atomic_add(big->bins + BINS + bin, (uint32_t)(w >> 14) & 0x3fff);
            kt_atomic_add(big->bins + 2 * BINS + bin, (uint32_t)(w >> 28));
        }
        kt_sync();
        if (kt_warp() == 0) find_bin<weights>(big->bins, rest, shared, shift);
        kt_sync();
    }
    found at = {shared->at.key, 0, shared->at.before, shared->at.own};
    kt_sync();
    return at;
}

// The id of the number-th token (from 0) with this key, in order of ids. A warp looks through a
// range.
KT_DEVICE int32_t pick(const uint32_t *keys, uint32_t key, uint32_t number, small *shared) {
    constexpr int32_t range = (int32_t)kt_align_up(kt_ceil_div(KT_V, WARPS), 32);
    const int32_t first = kt_warp() * range, end = kt_min(first + range, KT_V);
    uint32_t count = 0, before = 0;
    for (int32_t i = first; i < end; i += 32) {
        int32_t id = i + kt_lane();
        count += (uint32_t)kt_popcount(kt_ballot(id < KT_V && keys[id] == key));
    }
    if (kt_lane() == 0) shared->counts[kt_warp()] = count;
    if (threadIdx.x == 0) shared->id = 0;
    kt_sync();
    for (int32_t i = 0; i < kt_warp(); i++) before += shared->counts[i];
    if (number >= before && number - before < count) {
        for (int32_t i = first; i < end; i += 32) {
            int32_t id = i + kt_lane();
            uint32_t hits = kt_ballot(id < KT_V && keys[id] == key);
            uint32_t rank = before + (uint32_t)kt_popcount(hits & ((1u << kt_lane()) - 1));
            if ((hits >> kt_lane() & 1) != 0 && rank == number) shared->id = id;
            before += (uint32_t)kt_popcount(hits);
        }
    }
    kt_sync();
    return shared->id;
}

// Steps 4 to 7: the id drawn from a row's keys.
KT_DEVICE int32_t draw(const uint32_t *keys, uint32_t top, uint32_t random, int32_t top_k,
    float top_p, work *big, small *shared) {
    list kept = {keys, KT_V, from_key(top)};
    uint64_t sum = 0;
    uint32_t least = 0; // lower keys are out
    uint64_t n_least = 0;
    if (top_k > 0 && top_k < KT_V) {
        found at = descend<false>(kept, (uint64_t)top_k, big, shared);
        least = at.key;
        n_least = (uint64_t)top_k - at.before;
        if (at.before + at.own <= LISTED) {
            if (threadIdx.x == 0) shared->n_listed = 0;
            kt_sync();
            for (int32_t i = (int32_t)threadIdx.x; i < KT_V; i += THREADS)
                if (keys[i] >= least) big->listed[kt_atomic_add(&shared->n_listed, 1)] = keys[i];
            kt_sync();
            kept.keys = big->listed;
            kept.n = (int32_t)shared->n_listed;
        }
    }
    for (int32_t i = (int32_t)threadIdx.x; i < kept.n; i += THREADS)
        if (kept.keys[i] > least || n_least == 0) sum += weight_of(kept.keys[i], kept.highest);
    sum = block_sum(sum, shared);
    if (n_least > 0) sum += n_least * weight_of(least, kept.highest);

    if (top_p < 1) {
        uint64_t target = (uint64_t)kt_ceil(kt_mul((double)top_p, (double)sum));
        if (target == 0) target = 1;
        found at = descend<true>(kept, target, big, shared);
        uint64_t w = weight_of(at.key, kept.highest);
        sum = at.before + (target - at.before + w - 1) / w * w;
    }
    uint64_t target = (sum >> 32) * random + ((sum & 0xffffffffu) * random >> 32);
    found at = descend<true>(kept, target + 1, big, shared);
    uint64_t w = weight_of(at.key, kept.highest);
    return pick(keys, at.key, (uint32_t)((target - at.before) / w), shared);
}

// A block owns a row. Shared memory: 3 x 2048 words of bins, 4096 words of listed keys.
extern "C" __global__ void __launch_bounds__(1024)
    kt_sample_block_per_row(int32_t *gen_next, int32_t *gen_segments, int32_t *gen_left,
        int32_t *gen_made, int32_t *gen_tokens, uint32_t *gen_seen, uint32_t *gen_rng,
        const float *logits, const int32_t *stop, uint32_t *keys, int32_t rows, int32_t k,
        int32_t most, float temperature, int32_t top_k, float top_p, float repetition_penalty) {
    KT_SHARED_DYNAMIC(work, big);
    KT_SHARED(small, shared, 1);
    const int32_t row = (int32_t)blockIdx.x;
    if (row >= rows || gen_segments[4 * row + 2] == 0) return;
    logits += (int64_t)row * KT_V;
    keys += (int64_t)row * KT_V;
    uint32_t *seen = gen_seen + (int64_t)row * KT_WORDS, *rng = gen_rng + 4 * row;

    uint32_t top = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < KT_V; i += THREADS) {
        float x = logits[i];
        if (x != x) x = -MOST;
        if (seen[i / 32] >> (i % 32) & 1)
            x = x > 0 ? kt_div(x, repetition_penalty) : kt_mul(x, repetition_penalty);
        x = clamp(x);
        if (temperature > 0) x = clamp(kt_div(x, temperature));
        keys[i] = to_key(x);
        top = keys[i] > top ? keys[i] : top;
    }
    top = block_max(top, shared); // and every key is in place
    int32_t id = temperature > 0 ? draw(keys, top, philox(rng), top_k, top_p, big, shared)
                                 : pick(keys, top, 0, shared);
    if (threadIdx.x > 0) return;

    bool stops = false;
    for (int32_t i = 0; i < k; i++) stops = stops || (stop[i] >= 0 && stop[i] == id);
    int32_t made = gen_made[row], left = stops ? 0 : kt_max(gen_left[row] - 1, 0);
    rng[2] += 1;
    seen[id / 32] |= 1u << (id % 32);
    gen_next[row] = id;
    if (made >= 0 && made < most) {
        gen_tokens[(int64_t)row * most + made] = id;
        gen_made[row] = made + 1;
    }
    gen_left[row] = left;
    gen_segments[4 * row + 1] += 1;
    if (left == 0) gen_segments[4 * row + 2] = 0;
}
