// The C interface of an op's CPU implementation. This header includes only the C library.
//
// ops/<name>/<name>.c defines one function that computes the op, and exports it:
//
//     static const char *run(const kt_cpu_call *call)
//     {
//         const float *x = kt_cpu_in(call, "x")->data;        // f32[n, d]
//         int64_t n = kt_cpu_dim(call, "n"), d = kt_cpu_dim(call, "d");
//         float eps = (float)kt_cpu_param(call, "eps");
//         ...
//         return NULL;                                        // or a message: the run fails
//     }
//     KT_CPU_OP("rms_norm", run)
//
// Names are those of op.yaml, groups included ("w.gate"). Asking for a name that the manifest does
// not have is a bug in the op and ends the program with a message. Tensors are contiguous and
// row-major, in the types of the contract. A logical weight `linear[n, k]` arrives as rows of f16
// [n, k], whatever its storage format is. An input that may be absent and is absent has data ==
// NULL.
//
// The function may use several threads through call->host->parallel_for, must not keep pointers
// after it returns, and must write every element of its outputs.
#ifndef KT_CPU_H
#define KT_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KT_CPU_VERSION 1

enum { KT_CPU_MAX_RANK = 6 };

typedef struct kt_cpu_tensor {
    const char *name;  // as in op.yaml
    const char *dtype; // "f32", "f16", ...
    void *data;        // NULL: absent
    int rank;
    int64_t shape[KT_CPU_MAX_RANK];
} kt_cpu_tensor;

typedef struct kt_cpu_number {
    const char *name;
    double value;     // f32 parameters and integers; a choice: the index of the chosen word
    const char *text; // a choice: the chosen word; else NULL
} kt_cpu_number;

// y[n, m] = x[n, k] w[m, k]^T, summed in f32. Rows lie ldx, ldw and ldy elements apart.
typedef struct kt_cpu_product {
    const uint16_t *x, *w; // f16
    float *y;
    int64_t n, m, k, ldx, ldw, ldy;
} kt_cpu_product;

// What the program offers to an implementation.
typedef struct kt_cpu_host {
    int version; // KT_CPU_VERSION of the program
    // run(ctx, begin, end) over 0 .. n on several threads; returns when all is done. Not to be
    // nested.
    void (*parallel_for)(const struct kt_cpu_host *host, int64_t n, int64_t grain,
        void (*run)(void *ctx, int64_t begin, int64_t end), void *ctx);
    void (*f16_to_f32)(const uint16_t *in, float *out, size_t n);
    void (*f32_to_f16)(const float *in, uint16_t *out, size_t n); // nearest even
    // Uses several threads: not inside parallel_for.
    void (*matmul)(const struct kt_cpu_host *host, const kt_cpu_product *product);
    void *pool; // the program's own
} kt_cpu_host;

typedef struct kt_cpu_call {
    const kt_cpu_host *host;
    const kt_cpu_tensor *tensors; // inputs, inout, outputs
    int n_tensors;
    const kt_cpu_number *dims;
    int n_dims;
    const kt_cpu_number *params;
    int n_params;
} kt_cpu_call;

typedef struct kt_cpu_op {
    int version; // KT_CPU_VERSION it was compiled with
    const char *name;
    const char *(*run)(const kt_cpu_call *call);
} kt_cpu_op;

// The one exported function: given the highest version that the program knows, the op, or NULL if
// it needs a newer program.
typedef const kt_cpu_op *(*kt_cpu_query_function)(int host_version);

// A row of the generated table of shipped ops; ends with a NULL name.
typedef struct kt_cpu_shipped {
    const char *name;
    kt_cpu_query_function query;
} kt_cpu_shipped;

#if defined(_WIN32)
#define KT_CPU_EXPORT __declspec(dllexport)
#else
#define KT_CPU_EXPORT __attribute__((visibility("default")))
#endif

#define KT_CPU_OP(op_name, function)                                                               \
    KT_CPU_EXPORT const kt_cpu_op *kt_cpu_query(int host_version);                                 \
    KT_CPU_EXPORT const kt_cpu_op *kt_cpu_query(int host_version) {                                \
        static const kt_cpu_op op = {KT_CPU_VERSION, op_name, function};                           \
        return host_version >= KT_CPU_VERSION ? &op : NULL;                                        \
    }

static inline void kt_cpu_unknown(const char *what, const char *name) {
#ifdef __BASE_FILE__ // the file that is compiled
    const char *file = __BASE_FILE__;
#else
    const char *file = "an op's C file";
#endif
    fprintf(stderr, "kotaro: bug in %s: its manifest has no %s '%s'\n", file, what, name);
    abort();
}

static inline const kt_cpu_tensor *kt_cpu_in(const kt_cpu_call *call, const char *name) {
    for (int i = 0; i < call->n_tensors; i++)
        if (strcmp(call->tensors[i].name, name) == 0) return &call->tensors[i];
    kt_cpu_unknown("tensor", name);
    return NULL;
}

static inline const kt_cpu_number *kt_cpu_number_of(
    const kt_cpu_number *list, int n, const char *what, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0) return &list[i];
    kt_cpu_unknown(what, name);
    return NULL;
}

static inline int64_t kt_cpu_dim(const kt_cpu_call *call, const char *name) {
    return (int64_t)kt_cpu_number_of(call->dims, call->n_dims, "dim", name)->value;
}

static inline double kt_cpu_param(const kt_cpu_call *call, const char *name) {
    return kt_cpu_number_of(call->params, call->n_params, "parameter", name)->value;
}

// Memory from the heap, to be freed. Ends the program with a message if there is none: what an
// implementation takes is small, and a thread of parallel_for has nobody to tell.
static inline void *kt_cpu_alloc(size_t bytes) {
    void *out = malloc(bytes + 1);
    if (out) return out;
    fprintf(stderr, "kotaro: out of memory: %llu bytes for an op\n", (unsigned long long)bytes);
    abort();
}

// Sum of a[i] * b[i], in eight running sums that are added at the end.
static inline float kt_cpu_dot(const float *a, const float *b, int64_t n) {
    float sum[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sum[0] += a[i] * b[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

static inline const char *kt_cpu_choice(const kt_cpu_call *call, const char *name) {
    return kt_cpu_number_of(call->params, call->n_params, "parameter", name)->text;
}

#endif
