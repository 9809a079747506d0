// Fuzzing of the picture decoders, and a plain program that decodes the files it is given.
//
//     clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_image.c ... && ./fuzz_image
//     CORPUS tests/data/images cc -DKT_FUZZ_FILES -I. tests/fuzz_image.c ... && ./fuzz_image
//     FILE...
#include "loader/image.h"

#include "runtime/base/status.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// libFuzzer's name. NOLINTNEXTLINE(readability-identifier-naming)
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static volatile unsigned int sink;

// Small limits, so that time goes into parsing. Every pixel is read: all of them must have been
// allocated, and (under MemorySanitizer) written.
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    static const kt_image_limits limits = {.file_bytes = 1 << 20, .pixels = 1 << 18};
    kt_image image;
    kt_err err = {0};
    kt_image_source source = {bytes, n, "input"};
    kt_status status = kt_image_decode(&source, &limits, true, &image, &err);
    KT_ASSERT((status == KT_OK) == (image.rgb != NULL));
    KT_ASSERT(status == KT_OK || (status == KT_EIMAGE && err.text[0] != '\0'));
    if (status == KT_OK) {
        int64_t pixels = (int64_t)image.height * image.width;
        KT_ASSERT(pixels >= 1 && pixels <= limits.pixels);
        unsigned int sum = 0;
        for (int64_t i = 0; i < 3 * pixels; i++) sum += image.rgb[i];
        sink = sum;
    }
    kt_image_deinit(&image);
    return 0;
}

#ifdef KT_FUZZ_FILES

int main(int argc, char **argv) {
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        kt_image image;
        kt_err err = {0};
        if (kt_image_open(argv[i], NULL, true, &image, &err) != KT_OK) {
            (void)printf("%s\n", err.text);
            failed = 1;
            continue;
        }
        (void)printf("%s: %s, %d x %d, orientation %d\n", argv[i], image.format, image.width,
            image.height, image.orientation);
        kt_image_deinit(&image);
    }
    return failed;
}

#endif
