#include "loader/image_parts.h"

#include "runtime/base/arena.h"

#ifdef KT_STB_ONLY

kt_status kt_image_read_jpeg(kt_image_job *job) {
    return kt_image_read_stb(job);
}

#else

#include <setjmp.h> // the only way out of libjpeg's and libpng's error handlers; both decoders keep it to themselves
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum {
    MOST_SCANS = 500
}; // a small progressive file can ask for any number of passes over a large picture

// Everything that must outlive a longjmp.
typedef struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    char text[JMSG_LENGTH_MAX]; // what went wrong
    bool is_cut;                // the data ended early
    kt_image_job *job;
    uint8_t *cmyk; // one row of 4 bytes a pixel
} reader;

static reader *reader_of(j_common_ptr jpeg) {
    return (reader *)jpeg->client_data;
}

static void on_error(j_common_ptr jpeg) {
    reader *r = reader_of(jpeg);
    jpeg->err->format_message(jpeg, r->text);
    longjmp(r->back, 1);
}

// libjpeg repairs what it can and warns. Lost pixel data is an error here; oddities around them are
// not.
static void on_message(j_common_ptr jpeg, int level) {
    if (level >= 0) return;
    reader *r = reader_of(jpeg);
    switch (jpeg->err->msg_code) {
    case JWRN_JPEG_EOF:
        r->is_cut = true;
        break;
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
        break;
    default:
        return;
    }
    on_error(jpeg);
}

static void on_progress(j_common_ptr jpeg) {
    reader *r = reader_of(jpeg);
    if (!jpeg->is_decompressor || r->jpeg.input_scan_number <= MOST_SCANS) return;
    (void)snprintf(r->text, sizeof r->text, "more than %d scans", MOST_SCANS);
    longjmp(r->back, 1);
}

static void find_orientation(reader *r) {
    static const char mark[] = "Exif\0"; // and the 0 that ends the string
    for (jpeg_saved_marker_ptr m = r->jpeg.marker_list; m != NULL; m = m->next) {
        if (m->marker != JPEG_APP0 + 1 || m->data_length < sizeof mark) continue;
        if (memcmp(m->data, mark, sizeof mark) != 0) continue;
        r->job->out->orientation = kt_image_orientation(m->data, m->data_length);
        return;
    }
}

static uint8_t mul_255(int a, int b) // a * b / 255, rounded
{
    int v = a * b + 128;
    return (uint8_t)((v + (v >> 8)) >> 8);
}

// Stored CMYK is inverted, as Adobe writes it, with or without its marker.
// Source: python-pillow, src/libImaging/Convert.c, cmyk2rgb; JpegImagePlugin.py, rawmode "CMYK;I".
static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, size_t n) {
    for (size_t i = 0; i < n; i++, cmyk += 4, rgb += 3)
        for (int c = 0; c < 3; c++) {
            rgb[c] = (uint8_t)(cmyk[3] - mul_255(255 - cmyk[c], cmyk[3]));
        }
}

// Whether every coefficient came in full precision. A progressive file that lost its last scans but
// has an end mark passes without a warning; what it shows is a draft.
static bool is_refined(const struct jpeg_decompress_struct *jpeg) {
    if (!jpeg->progressive_mode || jpeg->coef_bits == NULL) return true;
    for (int c = 0; c < jpeg->num_components; c++)
        for (int i = 0; i < DCTSIZE2; i++)
            if (jpeg->coef_bits[c][i] != 0) return false;
    return true;
}

static kt_status read_pixels(reader *r) {
    struct jpeg_decompress_struct *jpeg = &r->jpeg;
    kt_image *out = r->job->out;
    size_t width = (size_t)out->width;
    bool is_cmyk = jpeg->out_color_space == JCS_CMYK;
    if (is_cmyk) {
        r->cmyk = malloc(4 * width);
        if (r->cmyk == NULL) kt_out_of_memory(4 * width);
    }
    jpeg_start_decompress(jpeg); // reads all scans of a progressive file
    if (!is_refined(jpeg)) {
        r->is_cut = true;
        ERREXIT(jpeg, JERR_EMPTY_IMAGE); // the way out; the message is that of a cut file
    }
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *row = out->rgb + 3 * width * jpeg->output_scanline;
        JSAMPROW into = is_cmyk ? r->cmyk : row;
        jpeg_read_scanlines(jpeg, &into, 1);
        if (is_cmyk) cmyk_to_rgb(r->cmyk, row, width);
    }
    jpeg_finish_decompress(jpeg); // reads to the end mark: a missing one is a cut file
    return KT_OK;
}

static kt_status read_all(reader *r) {
    struct jpeg_decompress_struct *jpeg = &r->jpeg;
    kt_image_job *job = r->job;
    jpeg_mem_src(jpeg, job->source.at, (unsigned long)job->source.n);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    find_orientation(r);
    if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
        return KT_FAIL(job->err, KT_EIMAGE,
            "'%s' is a JPEG with %d components; pictures have 1, 3 or 4; save it as RGB",
            job->source.name, jpeg->num_components);
    KT_TRY(kt_image_alloc(job, jpeg->image_height, jpeg->image_width));
    // Defaults stay: the accurate integer transform and smooth chroma, as Pillow has them.
    jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_RGB;
    return read_pixels(r);
}

kt_status kt_image_read_jpeg(kt_image_job *job) {
    reader *r = calloc(1, sizeof *r);
    if (r == NULL) kt_out_of_memory(sizeof *r);
    r->job = job;
    job->out->format = "JPEG";
    r->jpeg.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;
    r->jpeg.client_data = r;
    r->progress.progress_monitor = on_progress;
    volatile kt_status status = KT_OK;
    if (setjmp(r->back) == 0) {
        jpeg_create_decompress(&r->jpeg);
        r->jpeg.progress = &r->progress;
        status = read_all(r);
    } else {
        status = r->is_cut ? kt_image_cut(job) : kt_image_broken(job, r->text);
    }
    jpeg_destroy_decompress(&r->jpeg);
    free(r->cmyk);
    free(r);
    return status;
}

#endif
