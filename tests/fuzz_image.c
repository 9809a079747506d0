// Any bytes as a picture: pixels that can all be read, or an error. Seeds: tests/data/images.
#include "loader/image.h"
#include "tests/fuzz.h"

static volatile unsigned int sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    // Small limits, so that time goes into parsing.
    static const kt_image_limits limits = {.file_bytes = 1 << 20, .pixels = 1 << 18};
    kt_image image;
    kt_err err = {0};
    kt_image_source source = {data, size, "fuzz"};
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
