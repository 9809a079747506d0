// A fuzz target without libFuzzer: the seeds, then mutated seeds, for a while. `make test` runs
// every target so for a few seconds, with any compiler; `make test-san` under the sanitizers.
//
// usage: PROGRAM SECONDS SEED STATE FILE...     SEED:RUN repeats one run
// The number of the run is written to the file STATE (- for none) before it starts, so that a crash
// can be repeated. A run depends on SEED, its number and the files alone.
#include "runtime/base/os.h"
#include "tests/fuzz.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 4096, MAX_INPUT = 1 << 16, MOST_MUTATIONS = 6 };

typedef struct inputs {
    kt_str file[MAX_FILES];
    int n;
} inputs;

typedef struct mutant {
    uint8_t at[MAX_INPUT];
    size_t n;
    uint64_t random; // state of splitmix64
    const inputs *from;
} mutant;

// Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, figure 16.
static uint64_t next(mutant *m) {
    uint64_t z = m->random += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static size_t below(mutant *m, size_t n) {
    return n == 0 ? 0 : (size_t)(next(m) % n);
}

// ---- mutations

static void insert(mutant *m, size_t at, const void *bytes, size_t n) {
    if (n > MAX_INPUT - m->n) n = MAX_INPUT - m->n;
    memmove(m->at + at + n, m->at + at, m->n - at);
    memmove(m->at + at, bytes, n);
    m->n += n;
}

static void flip_bit(mutant *m) {
    if (m->n > 0) m->at[below(m, m->n)] ^= (uint8_t)(1u << below(m, 8));
}

static void set_byte(mutant *m) {
    static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff, '0', '9', '"', '{', ']', '-', ' '};
    if (m->n > 0) m->at[below(m, m->n)] = odd[below(m, sizeof odd)];
}

static void random_byte(mutant *m) {
    if (m->n > 0) m->at[below(m, m->n)] = (uint8_t)next(m);
}

static void erase(mutant *m) {
    size_t at = below(m, m->n), n = 1 + below(m, m->n - at < 64 ? m->n - at : 64);
    if (n > m->n - at) n = m->n - at;
    memmove(m->at + at, m->at + at + n, m->n - at - n);
    m->n -= n;
}

static void cut(mutant *m) {
    m->n = below(m, m->n + 1);
}

static void repeat(mutant *m) {
    uint8_t copy[256];
    size_t at = below(m, m->n), n = 1 + below(m, sizeof copy);
    if (n > m->n - at) n = m->n - at;
    memcpy(copy, m->at + at, n);
    insert(m, below(m, m->n + 1), copy, n);
}

// A stretch of another seed.
static void splice(mutant *m) {
    kt_str other = m->from->file[below(m, (size_t)m->from->n)];
    if (other.n == 0) return;
    size_t at = below(m, other.n), n = 1 + below(m, 512);
    insert(m, below(m, m->n + 1), other.at + at, n < other.n - at ? n : other.n - at);
}

// A number of one, two, four or eight bytes at a limit, either end first.
static void put_limit(mutant *m) {
    static const uint64_t limits[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff,
        0x80000000u, 0xffffffffu, 0x7fffffffffffffffu, 0xffffffffffffffffu};
    size_t width = (size_t)1 << below(m, 4);
    uint64_t value = limits[below(m, sizeof limits / sizeof *limits)];
    bool big = below(m, 2) == 0;
    if (m->n < width) return;
    size_t at = below(m, m->n - width + 1);
    for (size_t i = 0; i < width; i++)
        m->at[at + i] = (uint8_t)(value >> (8 * (big ? width - 1 - i : i)));
}

static void put_word(mutant *m) {
    static const char *const words[] = {"null", "true", "[]", "{}", "-1", "1e999",
        "9223372036854775807", "\"\"", "\\u0000", "\\ud800", "\xf0\x9f\x98\x80", ",", ":", "\n"};
    const char *word = words[below(m, sizeof words / sizeof *words)];
    insert(m, below(m, m->n + 1), word, strlen(word));
}

static void (*const mutations[])(mutant *m) = {
    flip_bit, set_byte, random_byte, erase, cut, repeat, splice, put_limit, put_word};

static void make(mutant *m, const inputs *from, uint64_t seed, uint64_t run) {
    m->from = from;
    m->random = seed * 0x100000001B3u + run;
    kt_str file = from->file[run < (uint64_t)from->n ? (size_t)run : below(m, (size_t)from->n)];
    m->n = file.n < MAX_INPUT ? file.n : MAX_INPUT;
    memcpy(m->at, file.at, m->n);
    if (run < (uint64_t)from->n) return; // first each seed as it is
    for (size_t i = 1 + below(m, MOST_MUTATIONS); i > 0; i--)
        mutations[below(m, sizeof mutations / sizeof *mutations)](m);
}

// ---- runs

static void run_one(const inputs *from, uint64_t seed, uint64_t run, FILE *state) {
    static mutant m;
    make(&m, from, seed, run);
    if (state) {
        rewind(state);
        fprintf(state, "%-20" PRIu64 "\n", run);
        fflush(state);
    }
    uint8_t *input = malloc(m.n > 0 ? m.n : 1); // no larger, so that a sanitizer sees its end
    if (!input) kt_out_of_memory(m.n);
    memcpy(input, m.at, m.n);
    LLVMFuzzerTestOneInput(input, m.n);
    free(input);
}

int main(int argc, char **argv) {
    static inputs from;
    kt_arena arena = {0};
    kt_err err = {0};
    if (argc < 5 || argc - 4 > MAX_FILES) {
        fprintf(stderr, "usage: %s SECONDS SEED[:RUN] STATE FILE...\n", argv[0]);
        return 2;
    }
    for (int i = 4; i < argc; i++) {
        if (kt_file_read(&arena, argv[i], 1 << 26, &from.file[from.n++], &err) == KT_OK) continue;
        fprintf(stderr, "%s\n", err.text);
        return 2;
    }
    char *end;
    uint64_t seed = strtoull(argv[2], &end, 10), run = 0;
    if (*end == ':') {
        run_one(&from, seed, strtoull(end + 1, NULL, 10), NULL);
        return 0;
    }
    FILE *state = strcmp(argv[3], "-") == 0 ? NULL : kt_os_fopen(argv[3], "w");
    double until = kt_os_now_ms() + 1e3 * strtod(argv[1], NULL);
    while (run < (uint64_t)from.n || kt_os_now_ms() < until) run_one(&from, seed, run++, state);
    if (state) (void)fclose(state);
    printf("%" PRIu64 " runs, %d of them seeds\n", run, from.n);
    kt_arena_deinit(&arena);
    return 0;
}
