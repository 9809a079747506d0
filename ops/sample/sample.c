// CPU implementation of sample/op.yaml; the numbers in comments are those of its definition.
#include "ops/kt_cpu.h"

#include <float.h>
#include <math.h>

typedef struct token {
    float z;
    int32_t id;
    uint64_t w;
} token;

typedef struct settings {
    int64_t v, k, most, words, top_k;
    float temperature, penalty;
    double top_p;
    const int32_t *stop;
} settings;

// The state of one row.
typedef struct row {
    int32_t *next, *segment, *left, *made, *tokens;
    uint32_t *seen, *rng;
} row;

static float clamp(float x) {
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

static float value(const settings *s, const row *r, const float *logits, int64_t i) // 1
{
    float x = logits[i];
    if (isnan(x)) x = -FLT_MAX;
    if (r->seen[i / 32] >> (i % 32) & 1) x = x > 0 ? x / s->penalty : x * s->penalty;
    return clamp(x);
}

static int32_t greedy(const settings *s, const row *r, const float *logits) // 2
{
    int32_t best = 0;
    float top = value(s, r, logits, 0);
    for (int64_t i = 1; i < s->v; i++) {
        float x = value(s, r, logits, i);
        if (x > top) top = x, best = (int32_t)i;
    }
    return best;
}

static int compare(const void *a, const void *b) // 4
{
    const token *x = a, *y = b;
    if (x->z != y->z) return x->z > y->z ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static uint64_t weight(float z, float top) // 5
{
    static const float c[] = {1.0F / 120, 1.0F / 24, 1.0F / 6, 1.0F / 2, 1, 1};
    float y = z - top;
    if (!(y >= -28)) return 0;
    float n = rintf(y * 1.44269504F);
    float f = fmaf(n, -1.42860677e-6F, fmaf(n, -0.693145752F, y));
    float p = 1.0F / 720;
    for (int i = 0; i < 6; i++) p = fmaf(p, f, c[i]);
    return (uint64_t)ldexpf(p, (int)n + 40);
}

static uint32_t philox(const uint32_t rng[4]) // word 0 of philox4x32-10
{
    uint32_t c[4] = {rng[2], rng[3], 0, 0}, key[2] = {rng[0], rng[1]};
    for (int i = 0; i < 10; i++) {
        uint64_t a = (uint64_t)0xD2511F53U * c[0], b = (uint64_t)0xCD9E8D57U * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b,
            (uint32_t)(a >> 32) ^ c[3] ^ key[1], (uint32_t)a};
        memcpy(c, next, sizeof c);
        key[0] += 0x9E3779B9U;
        key[1] += 0xBB67AE85U;
    }
    return c[0];
}

// How many of the ordered tokens stay. 6
static int64_t keep_top_p(const token *order, int64_t n, double top_p) {
    if (top_p >= 1) return n;
    uint64_t sum = 0, before = 0;
    for (int64_t i = 0; i < n; i++) sum += order[i].w;
    uint64_t target = (uint64_t)ceil(top_p * (double)sum);
    int64_t kept = 0;
    for (; kept < n && (kept == 0 || before < target); kept++) before += order[kept].w;
    return kept;
}

static int32_t draw(const token *order, int64_t n, uint32_t u) // 7
{
    uint64_t sum = 0, below = 0;
    for (int64_t i = 0; i < n; i++) sum += order[i].w;
    uint64_t t = (sum >> 32) * u + ((sum & 0xffffffffU) * u >> 32);
    for (int64_t i = 0; i < n; i++) {
        below += order[i].w;
        if (below > t) return order[i].id;
    }
    return order[0].id; // not reached: t < sum
}

static int32_t choose(const settings *s, const row *r, const float *logits) {
    if (s->temperature == 0) return greedy(s, r, logits);
    token *order = kt_cpu_alloc(sizeof *order * (size_t)s->v);
    for (int64_t i = 0; i < s->v; i++)
        order[i] = (token){clamp(value(s, r, logits, i) / s->temperature), (int32_t)i, 0}; // 3
    qsort(order, (size_t)s->v, sizeof *order, compare);
    int64_t n = s->top_k == 0 || s->top_k > s->v ? s->v : s->top_k;
    for (int64_t i = 0; i < n; i++) order[i].w = weight(order[i].z, order[0].z);
    n = keep_top_p(order, n, s->top_p);
    int32_t id = draw(order, n, philox(r->rng));
    free(order);
    return id;
}

static void move_on(const settings *s, row *r, int32_t id) // 8
{
    int stops = 0;
    for (int64_t i = 0; i < s->k; i++) stops |= s->stop[i] >= 0 && s->stop[i] == id;
    r->rng[2]++;
    r->seen[id / 32] |= 1U << (id % 32);
    *r->next = id;
    if (*r->made < s->most) r->tokens[(*r->made)++] = id;
    *r->left = stops || *r->left <= 1 ? 0 : *r->left - 1;
    r->segment[1]++;
    if (*r->left == 0) r->segment[2] = 0;
}

static const char *run(const kt_cpu_call *call) {
    settings s = {
        .v = kt_cpu_dim(call, "v"),
        .k = kt_cpu_dim(call, "k"),
        .most = kt_cpu_dim(call, "most"),
        .words = kt_cpu_dim(call, "words"),
        .top_k = (int64_t)kt_cpu_param(call, "top_k"),
        .temperature = (float)kt_cpu_param(call, "temperature"),
        .penalty = (float)kt_cpu_param(call, "repetition_penalty"),
        .top_p = (double)(float)kt_cpu_param(call, "top_p"),
        .stop = kt_cpu_in(call, "stop")->data,
    };
    const float *logits = kt_cpu_in(call, "logits")->data;
    for (int64_t i = 0; i < kt_cpu_dim(call, "rows"); i++) {
        row r = {
            .next = (int32_t *)kt_cpu_in(call, "gen.next")->data + i,
            .segment = (int32_t *)kt_cpu_in(call, "gen.segments")->data + 4 * i,
            .left = (int32_t *)kt_cpu_in(call, "gen.left")->data + i,
            .made = (int32_t *)kt_cpu_in(call, "gen.made")->data + i,
            .tokens = (int32_t *)kt_cpu_in(call, "gen.tokens")->data + i * s.most,
            .seen = (uint32_t *)kt_cpu_in(call, "gen.seen")->data + i * s.words,
            .rng = (uint32_t *)kt_cpu_in(call, "gen.rng")->data + 4 * i,
        };
        if (r.segment[2] == 0) continue;
        move_on(&s, &r, choose(&s, &r, logits + i * s.v));
    }
    return NULL;
}

KT_CPU_OP("sample", run)
