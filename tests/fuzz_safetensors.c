// Any bytes as the header of a safetensors file. What is accepted must cover the data exactly.
#include "loader/safetensors.h"
#include "tests/fuzz.h"

#include <string.h>

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4) return 0;
    uint32_t data_bytes;
    memcpy(&data_bytes, data, sizeof data_bytes);
    kt_str header = {(const char *)data + 4, size - 4};
    int64_t file_bytes = 8 + (int64_t)header.n + data_bytes % 4096;
    kt_arena arena = {0};
    kt_err err = {0};
    kt_stored *stored = NULL;
    int64_t n = 0;
    if (kt_safetensors_parse(&arena, header, "fuzz", file_bytes, &stored, &n, &err) == KT_OK) {
        int64_t at = 8 + (int64_t)header.n;
        for (int64_t i = 0; i < n; i++) {
            int64_t bytes = kt_dtype_bytes(stored[i].dtype);
            for (int d = 0; d < stored[i].rank; d++) bytes *= stored[i].shape[d];
            KT_ASSERT(stored[i].offset == at && stored[i].bytes == bytes);
            at += bytes;
        }
        KT_ASSERT(at == file_bytes);
    } else {
        KT_ASSERT(strncmp(err.text, "fuzz", 4) == 0);
    }
    kt_arena_deinit(&arena);
    return 0;
}
