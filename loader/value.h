// A number of the YAML languages: an integer or a real.
#ifndef KT_LOADER_VALUE_H
#define KT_LOADER_VALUE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct kt_value {
    bool is_real;
    int64_t i; // when not is_real
    double r;  // always set: the value as a real
} kt_value;

static inline kt_value kt_value_int(int64_t i) {
    return (kt_value){false, i, (double)i};
}

static inline kt_value kt_value_real(double r) {
    return (kt_value){true, (int64_t)0, r};
}

#endif
