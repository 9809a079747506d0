#include "loader/image.h"
#include "loader/image_parts.h"

#include "runtime/base/os.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct image_kind {
    const char *name;
    size_t at;        // byte where the mark stands
    const char *mark; // the bytes that tell the format
    size_t mark_bytes;
    kt_status (*read)(kt_image_job *job); // NULL: recognised, but not read
} image_kind;

#define MARK(literal) literal, sizeof(literal) - 1

static const image_kind kinds[] = {
    {"JPEG", 0, MARK("\xff\xd8\xff"), kt_image_read_jpeg},
    {"PNG", 0, MARK("\x89PNG\r\n\x1a\n"), kt_image_read_png},
    {"WebP", 8, MARK("WEBPVP8"), kt_image_read_webp},
    {"BMP", 0, MARK("BM"), kt_image_read_stb},
    {"GIF", 0, MARK("GIF87a"), kt_image_read_stb},
    {"GIF", 0, MARK("GIF89a"), kt_image_read_stb},
    {"HEIC", 4, MARK("ftypheic"), NULL},
    {"HEIC", 4, MARK("ftypheix"), NULL},
    {"HEIC", 4, MARK("ftyphevc"), NULL},
    {"HEIC", 4, MARK("ftypheim"), NULL},
    {"HEIC", 4, MARK("ftypheis"), NULL},
    {"HEIC", 4, MARK("ftypmif1"), NULL},
    {"HEIC", 4, MARK("ftypmsf1"), NULL},
    {"AVIF", 4, MARK("ftypavif"), NULL},
    {"AVIF", 4, MARK("ftypavis"), NULL},
    {"JPEG XL", 0, MARK("\xff\x0a"), NULL},
    {"JPEG XL", 4, MARK("JXL \r\n\x87\n"), NULL},
    {"JPEG 2000", 4, MARK("jP  \r\n\x87\n"), NULL},
    {"JPEG 2000", 0, MARK("\xff\x4f\xff\x51"), NULL},
    {"PSD", 0, MARK("8BPS"), NULL},
    {"TIFF", 0, MARK("II*\0"), NULL},
    {"TIFF", 0, MARK("MM\0*"), NULL},
    {"ICO", 0, MARK("\0\0\1\0"), NULL},
    {"SVG", 0, MARK("<svg"), NULL},
    {"PNM", 0, MARK("P5\n"), NULL},
    {"PNM", 0, MARK("P6\n"), NULL},
    {"PDF", 0, MARK("%PDF-"), NULL},
    {"MP4 video", 4, MARK("ftyp"), NULL},
};

static const image_kind tga = {"TGA", 0, "", 0, kt_image_read_stb};

const char *kt_image_formats(void) {
#ifdef KT_STB_ONLY
    return "JPEG, PNG, BMP, GIF, TGA";
#else
    return "JPEG, PNG, WebP, BMP, GIF, TGA";
#endif
}

static int u16_at(const uint8_t *p) {
    return p[0] | p[1] << 8;
}

// TGA has no mark: its header must make sense field by field.
static bool is_tga(const kt_image_source *source) {
    const uint8_t *p = source->at;
    if (source->n < 18) return false;
    bool has_map = p[1] == 1;
    int type = p[2] & 7, bits = p[16];
    if (p[1] > 1 || (p[2] & ~8) != type || type < 1 || type > 3 || has_map != (type == 1))
        return false;
    if (has_map ? u16_at(p + 5) == 0 : u16_at(p + 3) + u16_at(p + 5) + p[7] != 0) return false;
    if (u16_at(p + 12) == 0 || u16_at(p + 14) == 0 || (p[17] & 0xc0) != 0) return false;
    if (type == 2) return bits == 15 || bits == 16 || bits == 24 || bits == 32;
    return bits == 8 || bits == 16;
}

static const image_kind *find_kind(const kt_image_source *source) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const image_kind *kind = &kinds[i];
        if (source->n < kind->at + kind->mark_bytes) continue;
        if (memcmp(source->at + kind->at, kind->mark, kind->mark_bytes) == 0) return kind;
    }
    return is_tga(source) ? &tga : NULL;
}

static kt_status fail_unknown(const kt_image_source *source, kt_err *err) {
    char bytes[3 * 8 + 1] = "", text[8 + 1] = "";
    size_t n = source->n < 8 ? source->n : 8;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = source->at[i];
        (void)snprintf(bytes + 3 * i, 4, " %02x", (unsigned int)c);
        if (c < 0x20 || c >= 0x7f) c = '.';
        text[i] = (char)c;
    }
    return KT_FAIL(err, KT_EIMAGE,
        "'%s' is not a picture: its %zu bytes begin with%s (\"%s\"); give a picture in one of %s",
        source->name, source->n, bytes, text, kt_image_formats());
}

kt_status kt_image_alloc(kt_image_job *job, int64_t height, int64_t width) {
    const char *name = job->source.name;
    if (height < 1 || width < 1)
        return KT_FAIL(job->err, KT_EIMAGE,
            "'%s' is a %s of %" PRId64 " x %" PRId64 " pixels; there is nothing to see", name,
            job->out->format, width, height);
    if (height > KT_IMAGE_MAX_SIDE || width > KT_IMAGE_MAX_SIDE)
        return KT_FAIL(job->err, KT_EIMAGE,
            "'%s' is %" PRId64 " x %" PRId64
            " pixels, but no side may be longer than %d; make it smaller",
            name, width, height, KT_IMAGE_MAX_SIDE);
    int64_t pixels = height * width; // below 2^32
    if (pixels > job->limits.pixels)
        return KT_FAIL(job->err, KT_EIMAGE,
            "'%s' is %" PRId64 " x %" PRId64 " = %" PRId64 " pixels, but the limit is %" PRId64
            "; make it smaller, or raise the pipeline's limit (--set image.pixels=N)",
            name, width, height, pixels, job->limits.pixels);
    size_t bytes = 3 * (size_t)pixels;
    free(job->out->rgb);
    job->out->rgb = calloc(bytes, 1);
    if (job->out->rgb == NULL) kt_out_of_memory(bytes);
    job->out->height = (int)height;
    job->out->width = (int)width;
    return KT_OK;
}

kt_status kt_image_cut(kt_image_job *job) {
    return KT_FAIL(job->err, KT_EIMAGE,
        "'%s' is cut short: its %s data ends after %zu bytes, before the picture is complete; get "
        "the file again",
        job->source.name, job->out->format, job->source.n);
}

kt_status kt_image_broken(kt_image_job *job, const char *why) {
    return KT_FAIL(job->err, KT_EIMAGE,
        "'%s' is a broken %s%s%s; get the file again or save it anew", job->source.name,
        job->out->format, why ? ": " : "", why ? why : "");
}

// Where the upright picture's pixel (y, x) comes from: start + y * step_y + x * step_x, in pixels.
typedef struct turn {
    int height, width; // upright
    ptrdiff_t start, step_y, step_x;
} turn;

// Orientations: 2 flip left-right, 3 rotate 180, 4 flip top-bottom, 5 transpose, 6 rotate 90
// clockwise, 7 transverse, 8 rotate 90 counter-clockwise. Source: EXIF 2.3, tag 0x0112.
static turn turn_of(const kt_image *image) {
    int h = image->height, w = image->width, o = image->orientation;
    ptrdiff_t last_row = (ptrdiff_t)(h - 1) * w, last_col = w - 1;
    bool from_bottom = o == 3 || o == 4 || o == 6 || o == 7; // of the stored rows
    bool from_right = o == 2 || o == 3 || o == 7 || o == 8;  // of the stored columns
    ptrdiff_t row_step = from_bottom ? -(ptrdiff_t)w : w, col_step = from_right ? -1 : 1;
    ptrdiff_t start = (from_bottom ? last_row : 0) + (from_right ? last_col : 0);
    if (o >= 5) return (turn){w, h, start, col_step, row_step};
    return (turn){h, w, start, row_step, col_step};
}

static void turn_tile(const turn *t, const uint8_t *in, uint8_t *out, int top, int left) {
    enum { SIDE = 32 }; // so that the strided side stays in the cache
    int bottom = top + SIDE < t->height ? top + SIDE : t->height;
    int right = left + SIDE < t->width ? left + SIDE : t->width;
    for (int y = top; y < bottom; y++) {
        const uint8_t *from = in + 3 * (t->start + y * t->step_y + left * t->step_x);
        uint8_t *to = out + 3 * ((size_t)y * (size_t)t->width + (size_t)left);
        for (int x = left; x < right; x++, from += 3 * t->step_x, to += 3) {
            to[0] = from[0];
            to[1] = from[1];
            to[2] = from[2];
        }
    }
}

static void make_upright(kt_image *image) {
    if (image->orientation < 2 || image->orientation > 8) return;
    turn t = turn_of(image);
    size_t bytes = 3 * (size_t)image->height * (size_t)image->width;
    uint8_t *out = malloc(bytes);
    if (out == NULL) kt_out_of_memory(bytes);
    for (int y = 0; y < t.height; y += 32)
        for (int x = 0; x < t.width; x += 32) turn_tile(&t, image->rgb, out, y, x);
    free(image->rgb);
    image->rgb = out;
    image->height = t.height;
    image->width = t.width;
}

static kt_image_limits limits_of(const kt_image_limits *limits) {
    kt_image_limits l = limits == NULL ? (kt_image_limits){0} : *limits;
    if (l.file_bytes <= 0) l.file_bytes = KT_IMAGE_FILE_BYTES;
    if (l.pixels <= 0) l.pixels = KT_IMAGE_PIXELS;
    return l;
}

static kt_status check_bytes(
    const char *name, int64_t bytes, const kt_image_limits *l, kt_err *err) {
    if (bytes == 0)
        return KT_FAIL(err, KT_EIMAGE, "'%s' is empty (0 bytes); get the file again", name);
    if (bytes > l->file_bytes)
        return KT_FAIL(err, KT_EIMAGE,
            "'%s' has %" PRId64 " bytes, but the limit is %" PRId64 "; save the picture smaller",
            name, bytes, l->file_bytes);
    return KT_OK;
}

kt_status kt_image_decode(const kt_image_source *source, const kt_image_limits *limits,
    bool upright, kt_image *out, kt_err *err) {
    memset(out, 0, sizeof *out);
    out->orientation = 1;
    kt_image_job job = {*source, limits_of(limits), out, err};
    KT_TRY(check_bytes(source->name, (int64_t)source->n, &job.limits, err));
    const image_kind *kind = find_kind(source);
    if (kind == NULL) return fail_unknown(source, err);
    if (kind->read == NULL)
        return KT_FAIL(err, KT_EIMAGE,
            "'%s' is a file of type %s, which is not read; save it as PNG or JPEG", source->name,
            kind->name);
    out->format = kind->name;
    kt_status status = kind->read(&job);
    if (status != KT_OK) {
        kt_image_deinit(out);
        return status;
    }
    if (upright) make_upright(out);
    return KT_OK;
}

kt_status kt_image_open(
    const char *path, const kt_image_limits *limits, bool upright, kt_image *out, kt_err *err) {
    memset(out, 0, sizeof *out);
    kt_path_info info = kt_os_stat(path);
    if (info.kind == KT_PATH_NONE)
        return KT_FAIL(err, KT_EFILE, "there is no picture '%s'; check the path", path);
    if (info.kind == KT_PATH_FOLDER || info.kind == KT_PATH_OTHER)
        return KT_FAIL(err, KT_EFILE, "'%s' is %s; give the path of a picture", path,
            info.kind == KT_PATH_FOLDER ? "a folder" : "no regular file");
    kt_os_file *file = NULL;
    KT_TRY(kt_os_open(path, &file, err));

    kt_image_limits checked = limits_of(limits);
    int64_t size = kt_os_size(file);
    uint8_t *bytes = NULL;
    kt_status status = check_bytes(path, size, &checked, err);
    if (status == KT_OK) {
        bytes = malloc((size_t)size);
        if (bytes == NULL) kt_out_of_memory((size_t)size);
        status = kt_os_read_at(file, 0, bytes, (size_t)size, err);
    }
    if (status == KT_OK) {
        kt_image_source source = {bytes, (size_t)size, path};
        status = kt_image_decode(&source, limits, upright, out, err);
    }
    free(bytes);
    kt_os_close(file);
    return status;
}

void kt_image_deinit(kt_image *image) {
    free(image->rgb);
    memset(image, 0, sizeof *image);
}
