// Fuzz targets are libFuzzer functions (make fuzz) and, with tests/fuzz/main.c, plain programs that
// make test runs.
#ifndef KT_TESTS_FUZZ_H
#define KT_TESTS_FUZZ_H

#include "runtime/base/file.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
