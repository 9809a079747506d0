// SHA-256 over length-prefixed fields: what names a compiled kernel. Any thread. Source: FIPS
// 180-4, through libcrypto.
#ifndef KT_BASE_HASH_H
#define KT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct kt_hash {
    uint8_t bytes[32];
} kt_hash;

typedef struct kt_hasher kt_hasher;
kt_hasher *kt_hasher_open(void);
void kt_hasher_raw(kt_hasher *hasher, const void *bytes, size_t n);
void kt_hasher_field(
    kt_hasher *hasher, const void *bytes, size_t n); // its length as 8 bytes little-endian, then it
kt_hash kt_hasher_close(kt_hasher *hasher);          // frees the hasher
kt_hash kt_hash_bytes(const void *bytes, size_t n);
void kt_hash_hex(kt_hash hash, char out[65]);

#endif
