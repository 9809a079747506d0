// Fuzz targets are libFuzzer functions (cc -fsanitize=fuzzer,address) and also plain programs: with
// KT_FUZZ_PLAIN defined, a target runs once for each file named on its command line.
#ifndef KT_TESTS_FUZZ_H
#define KT_TESTS_FUZZ_H

#include "runtime/base/file.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef KT_FUZZ_PLAIN
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        kt_arena arena = {0};
        kt_err err = {0};
        kt_str bytes;
        kt_status status = kt_file_read(&arena, argv[i], 1 << 26, &bytes, &err);
        if (status == KT_OK) LLVMFuzzerTestOneInput((const uint8_t *)bytes.at, bytes.n);
        if (status != KT_OK) fprintf(stderr, "%s\n", err.text);
        kt_arena_deinit(&arena);
        if (status != KT_OK) return 1;
    }
    return 0;
}
#endif

#endif
