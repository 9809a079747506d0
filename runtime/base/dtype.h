// The closed set of element types.
#ifndef KT_BASE_DTYPE_H
#define KT_BASE_DTYPE_H

#include "runtime/base/str.h"

// name, bytes
#define KT_DTYPE_LIST(X)                                                                           \
    X(F32, "f32", 4)                                                                               \
    X(F16, "f16", 2)                                                                               \
    X(BF16, "bf16", 2)                                                                             \
    X(F8E4M3, "f8e4m3", 1)                                                                         \
    X(F8E5M2, "f8e5m2", 1)                                                                         \
    X(I64, "i64", 8)                                                                               \
    X(I32, "i32", 4)                                                                               \
    X(I16, "i16", 2)                                                                               \
    X(I8, "i8", 1)                                                                                 \
    X(U32, "u32", 4)                                                                               \
    X(U16, "u16", 2)                                                                               \
    X(U8, "u8", 1)

typedef enum kt_dtype {
#define KT_DTYPE_ENUM(code, name, bytes) KT_DTYPE_##code,
    KT_DTYPE_LIST(KT_DTYPE_ENUM)
#undef KT_DTYPE_ENUM
        KT_DTYPE_COUNT
} kt_dtype;

const char *kt_dtype_name(kt_dtype dtype);
int kt_dtype_bytes(kt_dtype dtype);
bool kt_dtype_is_float(kt_dtype dtype); // f32, f16 or bf16: what checkpoints hold numbers in
bool kt_dtype_find(kt_str name, kt_dtype *out);

enum { KT_MAX_RANK = 6 };

#endif
