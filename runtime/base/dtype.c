#include "runtime/base/dtype.h"

typedef struct dtype_row {
    const char *name;
    int bytes;
} dtype_row;

static const dtype_row rows[] = {
#define DTYPE_ROW(code, name, bytes) {name, bytes},
    KT_DTYPE_LIST(DTYPE_ROW)
#undef DTYPE_ROW
};

static const dtype_row *row_of(kt_dtype dtype) {
    KT_ASSERT((int)dtype >= 0 && dtype < KT_DTYPE_COUNT);
    return &rows[dtype];
}

const char *kt_dtype_name(kt_dtype dtype) {
    return row_of(dtype)->name;
}

int kt_dtype_bytes(kt_dtype dtype) {
    return row_of(dtype)->bytes;
}

bool kt_dtype_is_float(kt_dtype dtype) {
    return dtype == KT_DTYPE_F32 || dtype == KT_DTYPE_F16 || dtype == KT_DTYPE_BF16;
}

bool kt_dtype_find(kt_str name, kt_dtype *out) {
    for (int i = 0; i < KT_DTYPE_COUNT; i++) {
        if (!kt_str_is(name, rows[i].name)) continue;
        *out = (kt_dtype)i;
        return true;
    }
    return false;
}
