#include "runtime/base/hash.h"

#include "runtime/base/status.h"

#include <openssl/evp.h>
#include <stdlib.h>

struct kt_hasher {
    EVP_MD_CTX *md;
};

// libcrypto can only fail here when memory is out.
static void must(int ok) {
    if (ok != 1) kt_assert_failed("libcrypto's SHA-256 works", __FILE__, __LINE__);
}

kt_hasher *kt_hasher_open(void) {
    kt_hasher *hasher = malloc(sizeof *hasher);
    must(hasher != NULL);
    hasher->md = EVP_MD_CTX_new();
    must(hasher->md != NULL);
    must(EVP_DigestInit_ex(hasher->md, EVP_sha256(), NULL));
    return hasher;
}

void kt_hasher_raw(kt_hasher *hasher, const void *bytes, size_t n) {
    if (n > 0) must(EVP_DigestUpdate(hasher->md, bytes, n));
}

void kt_hasher_field(kt_hasher *hasher, const void *bytes, size_t n) {
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)n >> (8 * i));
    kt_hasher_raw(hasher, length, sizeof length);
    kt_hasher_raw(hasher, bytes, n);
}

kt_hash kt_hasher_close(kt_hasher *hasher) {
    kt_hash out;
    unsigned int n = sizeof out.bytes;
    must(EVP_DigestFinal_ex(hasher->md, out.bytes, &n));
    EVP_MD_CTX_free(hasher->md);
    free(hasher);
    return out;
}

kt_hash kt_hash_bytes(const void *bytes, size_t n) {
    kt_hasher *hasher = kt_hasher_open();
    kt_hasher_raw(hasher, bytes, n);
    return kt_hasher_close(hasher);
}

void kt_hash_hex(kt_hash hash, char out[65]) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 32; i++) {
        out[2 * i] = digits[hash.bytes[i] >> 4];
        out[2 * i + 1] = digits[hash.bytes[i] & 15];
    }
    out[64] = 0;
}
