#include "loader/image_parts.h"

#ifdef KT_STB_ONLY

int kt_image_orientation(const uint8_t *exif, size_t n) {
    (void)exif, (void)n;
    return 1;
}

#else

#include <libexif/exif-data.h>

#include <stdlib.h>
#include <string.h>

enum {
    EXIF_MARK = 6,
    EXIF_MOST = 65533
}; // bytes; a JPEG segment holds no more, and neither does libexif

static const uint8_t exif_mark[EXIF_MARK] = {'E', 'x', 'i', 'f', 0, 0};

static int orientation_of(ExifData *data) {
    ExifEntry *entry = exif_content_get_entry(data->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
    if (entry == NULL || entry->format != EXIF_FORMAT_SHORT || entry->size < 2) return 1;
    int value = exif_get_short(entry->data, exif_data_get_byte_order(data));
    return value >= 1 && value <= 8 ? value : 1;
}

int kt_image_orientation(const uint8_t *exif, size_t n) {
    if (n > EXIF_MARK && memcmp(exif, exif_mark, EXIF_MARK) == 0) {
        exif += EXIF_MARK;
        n -= EXIF_MARK;
    }
    if (n < 8) return 1;
    if (n > EXIF_MOST - EXIF_MARK) n = EXIF_MOST - EXIF_MARK;

    // libexif wants the mark in front; PNG and WebP store the block without it.
    uint8_t *block = malloc(EXIF_MARK + n);
    if (block == NULL) return 1;
    memcpy(block, exif_mark, EXIF_MARK);
    memcpy(block + EXIF_MARK, exif, n);
    int orientation = 1;
    ExifData *data = exif_data_new();
    if (data != NULL) {
        exif_data_unset_option(data, EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
        exif_data_load_data(data, block, (unsigned int)(EXIF_MARK + n));
        orientation = orientation_of(data);
        exif_data_unref(data);
    }
    free(block);
    return orientation;
}

#endif
