// Pictures: a file or its bytes to 8-bit RGB, upright, within limits.
//
// The format is found from the content, never from the name: JPEG (libjpeg-turbo), PNG (libpng),
// WebP (libwebp) and, through stb_image, BMP, GIF and TGA. The bytes are those of Pillow's
// Image.open(...).convert('RGB'): alpha is dropped and not composited, palettes are looked
// up, grey is repeated, no colour profile and no gamma is applied. Two things differ on purpose:
// 16-bit grey PNGs keep the high byte (Pillow clips them to white), and a file that is cut short is
// an error also where Pillow accepts it (progressive JPEG, PNG without its end). Of an animation
// the first frame is taken. HEIC, AVIF, JPEG XL, PSD, TIFF and SVG are recognised and refused by
// name.
//
// With KT_STB_ONLY defined, stb_image decodes all: no libjpeg, libpng, libwebp or libexif.
// Its JPEG bytes differ from Pillow's by a few units, it lets some damaged files pass, WebP is
// refused, and orientation is 1. For pictures from people you trust: version 2.27 (Debian 12)
// writes past its tables on a damaged JPEG (later versions check; fuzz_image finds it in seconds).
// Without it, stb_image sees BMP, GIF and TGA alone.
//
// The size is known and checked before memory for pixels is allocated. A kt_image owns its pixels
// (heap); a zeroed one is empty. Any thread; one kt_image per thread.
#ifndef KT_LOADER_IMAGE_H
#define KT_LOADER_IMAGE_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kt_image_limits {
    int64_t file_bytes; // of the file; 0 means KT_IMAGE_FILE_BYTES
    int64_t pixels;     // height * width; 0 means KT_IMAGE_PIXELS
} kt_image_limits;

#define KT_IMAGE_FILE_BYTES ((int64_t)64 << 20)
#define KT_IMAGE_PIXELS     ((int64_t)4096 * 4096)

enum { KT_IMAGE_MAX_SIDE = 65535 }; // pixels, whatever the limits say

typedef struct kt_image {
    uint8_t *rgb;       // [height, width, 3], row-major, no padding
    int height, width;  // after turning
    int orientation;    // 1 .. 8 as the file's EXIF says; 1 if it says nothing. Turned if `upright`
    const char *format; // "JPEG", "PNG", ...; static text
} kt_image;

// Reads the picture at `path`. limits NULL: the defaults. upright: apply the EXIF orientation.
// Errors: EFILE (cannot be read), EIMAGE (empty, not a picture, cut short, broken, over a limit);
// the message names the path, the finding and a remedy. On error *out is empty.
kt_status kt_image_open(const char *path, const kt_image_limits *limits, bool upright,
    kt_image *out, kt_err *err) KT_MUST_CHECK;

// The bytes of a picture, and what messages call it (a path, "upload 1").
typedef struct kt_image_source {
    const uint8_t *at;
    size_t n; // bytes
    const char *name;
} kt_image_source;

// The same from memory. Errors: EIMAGE.
kt_status kt_image_decode(const kt_image_source *source, const kt_image_limits *limits,
    bool upright, kt_image *out, kt_err *err) KT_MUST_CHECK;

void kt_image_deinit(kt_image *image);

// "JPEG, PNG, WebP, BMP, GIF, TGA", as this build reads them; for help texts.
const char *kt_image_formats(void);

#endif
