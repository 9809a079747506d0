// The types of kernels' numbers.
#ifndef KT_DEVICE_TYPES_CUH
#define KT_DEVICE_TYPES_CUH

#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

// KT_<type variable> is one of these names

struct kt_f16 {
    uint16_t bits;
};
struct kt_bf16 {
    uint16_t bits;
};
typedef float kt_f32;
typedef int32_t kt_i32;
typedef uint32_t kt_u32;
typedef uint8_t kt_u8;
typedef int8_t kt_i8;

struct alignas(16) kt_u32x4 { // 16 bytes, moved at once
    uint32_t x, y, z, w;
};
struct alignas(8) kt_u32x2 {
    uint32_t x, y;
};
struct alignas(16) kt_f32x4 {
    float x, y, z, w;
};

#endif
