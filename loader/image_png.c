#include "loader/image_parts.h"

#include "runtime/base/arena.h"

#ifdef KT_STB_ONLY

kt_status kt_image_read_png(kt_image_job *job) {
    return kt_image_read_stb(job);
}

#else

#include <png.h>

#include <setjmp.h> // as in image_jpeg.c
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CHUNKS = 1000, MOST_CHUNK_BYTES = 8 << 20 }; // of what surrounds the pixels

// Everything that must outlive a longjmp.
typedef struct reader {
    png_structp png;
    png_infop info, end;
    jmp_buf back;
    char text[128];
    size_t at; // bytes read so far
    bool is_cut;
    kt_image_job *job;
    png_bytep *rows;
} reader;

static void on_error(png_structp png, png_const_charp text) {
    reader *r = png_get_error_ptr(png);
    (void)snprintf(r->text, sizeof r->text, "%s", text);
    longjmp(r->back, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
    (void)png, (void)text;
}

static void on_read(png_structp png, png_bytep to, size_t n) {
    reader *r = png_get_io_ptr(png);
    if (n > r->job->source.n - r->at) {
        r->is_cut = true;
        png_error(png, "the file ends");
    }
    memcpy(to, r->job->source.at + r->at, n);
    r->at += n;
}

static void find_orientation(reader *r, png_infop info) {
    png_uint_32 n = 0;
    png_bytep exif = NULL;
    if (png_get_eXIf_1(r->png, info, &n, &exif) == 0) return;
    r->job->out->orientation = kt_image_orientation(exif, n);
}

// To 8-bit RGB: palettes looked up, grey repeated, alpha dropped, the high byte of 16 bits.
static void set_transforms(reader *r) {
    png_byte type = png_get_color_type(r->png, r->info);
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(r->png);
    if (type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(r->png);
    if (png_get_bit_depth(r->png, r->info) == 16) png_set_strip_16(r->png);
    png_set_strip_alpha(r->png); // also what tRNS makes of a palette
    if ((type & PNG_COLOR_MASK_COLOR) == 0) png_set_gray_to_rgb(r->png);
    (void)png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
}

static kt_status read_all(reader *r) {
    kt_image_job *job = r->job;
    png_set_user_limits(r->png, KT_IMAGE_MAX_SIDE, KT_IMAGE_MAX_SIDE);
    png_set_chunk_cache_max(r->png, MOST_CHUNKS);
    png_set_chunk_malloc_max(r->png, MOST_CHUNK_BYTES);
    png_set_read_fn(r->png, r, on_read);
    png_read_info(r->png, r->info);
    find_orientation(r, r->info);
    KT_TRY(kt_image_alloc(
        job, png_get_image_height(r->png, r->info), png_get_image_width(r->png, r->info)));
    set_transforms(r);

    size_t height = (size_t)job->out->height, row_bytes = 3 * (size_t)job->out->width;
    KT_ASSERT(png_get_rowbytes(r->png, r->info) == row_bytes);
    r->rows = malloc(height * sizeof *r->rows);
    if (r->rows == NULL) kt_out_of_memory(height * sizeof *r->rows);
    for (size_t y = 0; y < height; y++) r->rows[y] = job->out->rgb + y * row_bytes;
    png_read_image(r->png, r->rows);
    png_read_end(r->png, r->end); // the last checksum, and EXIF behind the pixels
    find_orientation(r, r->end);
    return KT_OK;
}

kt_status kt_image_read_png(kt_image_job *job) {
    reader *r = calloc(1, sizeof *r);
    if (r == NULL) kt_out_of_memory(sizeof *r);
    r->job = job;
    job->out->format = "PNG";
    volatile kt_status status = KT_OK;
    if (setjmp(r->back) == 0) {
        r->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, on_error, on_warning);
        r->info = r->png == NULL ? NULL : png_create_info_struct(r->png);
        r->end = r->png == NULL ? NULL : png_create_info_struct(r->png);
        if (r->info == NULL || r->end == NULL) kt_out_of_memory(sizeof *r);
        status = read_all(r);
    } else {
        status = r->is_cut ? kt_image_cut(job) : kt_image_broken(job, r->text);
    }
    png_destroy_read_struct(&r->png, &r->info, &r->end);
    free(r->rows);
    free(r);
    return status;
}

#endif
