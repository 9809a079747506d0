// Between image.c and the decoders: what one decoder is given and must give back. Not for other
// modules.
//
// A decoder finds height and width, calls kt_image_alloc (which checks the limits) and fills
// out->rgb. It sets out->orientation if the file has EXIF. On failure it writes the message with
// KT_FAIL and may leave pixels in *out; image.c releases them.
#ifndef KT_LOADER_IMAGE_PARTS_H
#define KT_LOADER_IMAGE_PARTS_H

#include "loader/image.h"

typedef struct kt_image_job {
    kt_image_source source;
    kt_image_limits limits; // no zeros
    kt_image *out;
    kt_err *err;
} kt_image_job;

// Checks height x width against the limits and allocates zeroed pixels. Errors: EIMAGE.
kt_status kt_image_alloc(kt_image_job *job, int64_t height, int64_t width) KT_MUST_CHECK;

// Say that the file ends too early, or what is wrong with it (`why` may be NULL). Always EIMAGE.
kt_status kt_image_cut(kt_image_job *job);
kt_status kt_image_broken(kt_image_job *job, const char *why);

kt_status kt_image_read_jpeg(kt_image_job *job) KT_MUST_CHECK; // image_jpeg.c
kt_status kt_image_read_png(kt_image_job *job) KT_MUST_CHECK;  // image_png.c
kt_status kt_image_read_webp(kt_image_job *job) KT_MUST_CHECK; // image_webp.c
kt_status kt_image_read_stb(kt_image_job *job) KT_MUST_CHECK;  // image_stb.c

// Orientation 1 .. 8 of an EXIF block (with or without "Exif\0\0" in front); 1 if it has none.
// image_exif.c
int kt_image_orientation(const uint8_t *exif, size_t n);

#endif
