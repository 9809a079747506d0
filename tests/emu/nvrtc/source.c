#include "tests/emu/nvrtc/source.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KERNELS = 256 };

typedef struct kernel {
    text name, bounds; // bounds: what is inside __launch_bounds__(...)
} kernel;

typedef struct reader {
    const char *name; // of the file
    const char *at;
    int line;
    bool in_directive, line_is_empty; // no token yet in this line
    text *out;                        // NULL: nothing is copied
    text *log;
    bool failed;
    kernel kernels[MAX_KERNELS];
    int n_kernels;
} reader;

// Words with two underscores that kernels and headers may use. All others are CUDA's way to the
// machine, or the compiler's own.
static const char *const allowed_words[] = {
    "__global__",
    "__device__",
    "__host__",
    "__forceinline__",
    "__launch_bounds__",
    "__align__",
    "__restrict__",
    "__CUDA_ARCH__",
    "__CUDACC_RTC__",
    "__FILE__",
    "__LINE__",
};
// What those who know CUDA write first.
static const struct {
    const char *word, *ours;
} remedies[] = {
    {"__syncthreads", "kt_sync"},
    {"__syncwarp", "kt_sync_warp"},
    {"__shared__", "KT_SHARED, KT_SHARED_DYNAMIC"},
    {"__shfl_sync", "kt_shfl"},
    {"__shfl_xor_sync", "kt_shfl_xor"},
    {"__ballot_sync", "kt_ballot"},
    {"__popc", "kt_popcount"},
    {"__threadfence", "kt_fence"},
    {"__float_as_uint", "kt_bits"},
    {"__uint_as_float", "kt_float"},
    {"__float2half", "kt_to_f16"},
    {"__half2float", "kt_to_f32"},
};
static const char *const allowed_headers[] = {"<stdint.h>", "<stddef.h>"};

static void fail(reader *r, const char *what, size_t n, const char *why) {
    text_print(r->log, "%s(%d): error: '%.*s'%s\n", r->name, r->line, (int)n, what, why);
    r->failed = true;
}

// Copies n bytes and counts the lines.
static void pass(reader *r, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (r->at[i] != '\n') continue;
        r->line++;
        r->line_is_empty = true;
    }
    if (r->out != NULL) text_add(r->out, r->at, n);
    r->at += n;
}

static size_t until(const char *at, const char *end) {
    const char *found = strstr(at, end);
    return found == NULL ? strlen(at) : (size_t)(found - at) + strlen(end);
}

static size_t quoted(const char *at) {
    size_t n = 1;
    while (at[n] != 0 && at[n] != at[0] && at[n] != '\n') n += at[n] == '\\' && at[n + 1] ? 2 : 1;
    return at[n] == at[0] ? n + 1 : n;
}

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

static size_t word(const char *at) {
    size_t n = 0;
    while (is_word(at[n])) n++;
    return n;
}

static bool is(const char *at, size_t n, const char *what) {
    return n == strlen(what) && memcmp(at, what, n) == 0;
}

static void check_include(reader *r) {
    const char *at = r->at + strspn(r->at, " \t");
    size_t n = until(at, ">");
    if (at[0] != '<') return;
    for (size_t i = 0; i < sizeof allowed_headers / sizeof allowed_headers[0]; i++)
        if (is(at, n, allowed_headers[i])) return;
    n = strcspn(at, "\n");
    fail(r, at, n, ": cannot open source file: kernels include headers of ptx/device only");
}

static void check_word(reader *r, const char *at, size_t n) {
    static const char why[] =
        ": kernels reach the machine only through kt.cuh (machine.cuh, mma.cuh)";
    if (is(at, n, "asm")) fail(r, at, n, why);
    if (n < 3 || at[0] != '_' || at[1] != '_') return;
    for (size_t i = 0; i < sizeof allowed_words / sizeof allowed_words[0]; i++)
        if (is(at, n, allowed_words[i])) return;
    char with_remedy[160];
    for (size_t i = 0; i < sizeof remedies / sizeof remedies[0]; i++) {
        if (!is(at, n, remedies[i].word)) continue;
        (void)snprintf(with_remedy, sizeof with_remedy, "%s: %s", why, remedies[i].ours);
        fail(r, at, n, with_remedy);
        return;
    }
    fail(r, at, n, why);
}

// One token, comment or stretch of space. *n: bytes of a word or sign at *at; 0 for space and
// comments.
static const char *next(reader *r, size_t *n) {
    const char *at = r->at;
    *n = 0;
    if (at[0] == '\n') {
        r->in_directive = false;
        pass(r, 1);
    } else if (at[0] == '\\' && at[1] == '\n') {
        pass(r, 2);
    } else if (isspace((unsigned char)at[0])) {
        pass(r, 1);
    } else if (at[0] == '/' && at[1] == '/') {
        pass(r, strcspn(at, "\n"));
    } else if (at[0] == '/' && at[1] == '*') {
        pass(r, until(at + 2, "*/") + 2);
    } else {
        if (at[0] == '#' && r->line_is_empty) r->in_directive = true;
        r->line_is_empty = false;
        *n = at[0] == '"' || at[0] == '\'' ? quoted(at) : is_word(at[0]) ? word(at) : 1;
        if (isdigit((unsigned char)at[0])) // 1'000 is one number
            while (at[*n] == '\'' && is_word(at[*n + 1])) *n += 1 + word(at + *n + 1);
        check_word(r, at, *n);
        pass(r, *n);
        if (r->in_directive && is(at, *n, "include")) check_include(r);
    }
    return at;
}

static const char *next_token(reader *r, size_t *n) {
    const char *at = r->at;
    *n = 0;
    while (*r->at != 0 && *n == 0) at = next(r, n);
    return at;
}

// What is between the parentheses that follow, without comments.
static void read_bounds(reader *r, text *bounds) {
    int depth = 0;
    do {
        size_t n;
        const char *at = next_token(r, &n);
        if (n == 0) return;
        if (is(at, n, ")")) depth--;
        if (depth > 0) text_print(bounds, "%.*s ", (int)n, at);
        if (is(at, n, "(")) depth++;
    } while (depth > 0);
}

// From behind __global__ to the parenthesis of the parameters.
static void read_kernel(reader *r) {
    if (r->n_kernels == MAX_KERNELS) {
        fail(r, "__global__", 10, ": too many kernels");
        return;
    }
    kernel *k = &r->kernels[r->n_kernels++];
    const char *name = "";
    size_t n_name = 0, n;
    for (;;) {
        const char *at = next_token(r, &n);
        if (n == 0 || is(at, n, "(") || is(at, n, ";") || is(at, n, "{")) break;
        if (is(at, n, "__launch_bounds__")) {
            read_bounds(r, &k->bounds);
            continue;
        }
        name = at;
        n_name = n;
    }
    text_add(&k->name, name, n_name);
    if (n_name == 0 || !is_word(name[0]))
        fail(r, "__global__", 10, " without the name of a kernel");
}

static void print_line_mark(text *out, int line, const char *name) {
    text_print(out, "\n#line %d \"", line);
    for (const char *c = name; *c != 0; c++)
        text_print(out, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    text_print(out, "\"\n");
}

static void convert(reader *r) {
    print_line_mark(r->out, 1, r->name);
    while (*r->at != 0) {
        size_t n = word(r->at);
        if (!is(r->at, n, "__global__")) {
            (void)next(r, &n);
            continue;
        }
        if (r->in_directive) {
            fail(r, r->at, n, " in a macro: kernels are written out");
            return;
        }
        text_print(r->out, "\n#define EMU_HAS_%d", r->n_kernels);
        print_line_mark(r->out, r->line, r->name);
        (void)next(r, &n);
        read_kernel(r);
    }
}

// A kernel that is declared before it is defined, or that has one definition on either side of an
// #else, has two marks and one line of the table.
static bool is_first(const reader *r, int i) {
    for (int j = 0; j < i; j++)
        if (strcmp(r->kernels[j].name.at, r->kernels[i].name.at) == 0) return false;
    return true;
}

static void print_rows(const reader *r, const char *macro) {
    text_print(r->out, "%sS_BEGIN\n", macro);
    for (int i = 0; i < r->n_kernels; i++) {
        const kernel *k = &r->kernels[i];
        if (!is_first(r, i)) continue;
        const char *start = "#if";
        for (int j = i; j < r->n_kernels; j++) {
            const kernel *other = &r->kernels[j];
            if (strcmp(other->name.at, k->name.at) != 0) continue;
            text_print(r->out, "%s defined(EMU_HAS_%d)\n%s(%s%s%s)\n", start, j, macro, k->name.at,
                other->bounds.n > 0 ? ", " : "", other->bounds.n > 0 ? other->bounds.at : "");
            start = "#elif";
        }
        text_print(r->out, "#endif\n");
    }
    print_line_mark(r->out, r->line, r->name); // something left open shows here
    text_print(r->out, "%sS_END\n", macro);
}

static bool finish(reader *r) {
    for (int i = 0; i < r->n_kernels; i++) {
        text_free(&r->kernels[i].name);
        text_free(&r->kernels[i].bounds);
    }
    bool good = !r->failed;
    free(r);
    return good;
}

static reader *begin(const char *name, const char *source, text *out, text *log) {
    reader *r = take(sizeof *r);
    *r = (reader){
        .name = name, .at = source, .line = 1, .line_is_empty = true, .out = out, .log = log};
    convert(r);
    return r;
}

bool source_convert(const char *name, const char *source, text *out, text *log) {
    reader *r = begin(name, source, out, log);
    text_print(out, "\n");
    print_rows(r, "EMU_KERNEL");
    print_rows(r, "EMU_NOTE");
    return finish(r);
}

bool source_convert_header(const char *name, const char *source, text *out, text *log) {
    reader *r = begin(name, source, out, log);
    if (r->n_kernels > 0) fail(r, "__global__", 10, " in a header");
    return finish(r);
}
