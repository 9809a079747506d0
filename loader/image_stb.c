#include "loader/image_parts.h"

#include <stdlib.h>
#include <string.h>

// The formats of stb_image that are let in. Not HDR and PIC, which nobody sends, nor PNM, whose
// 16-bit files version 2.27 reads past the end of its memory, nor PSD.
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STBI_ONLY_TGA
#ifdef KT_STB_ONLY
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#endif
#define STBI_MAX_DIMENSIONS KT_IMAGE_MAX_SIDE
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-function" // reported at the end of the file
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wundef"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#endif
#include <stb/stb_image.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

// stb_image takes zeros, or whatever was there, for bytes past the end. Reading through callbacks
// shows that it wanted them: into its own buffer it asks for more than it needs, and nothing more
// is the end; into any other place it asks for exactly what it needs.
typedef struct stream {
    const uint8_t *at;
    size_t n, pos;
    const char *buffer; // stb_image's own: the first place that it reads into
    bool is_cut;        // more was needed than there is
} stream;

static int on_read(void *user, char *to, int size) {
    stream *s = user;
    size_t n = (size_t)size;
    if (n > s->n - s->pos) n = s->n - s->pos;
    if (s->buffer == NULL) s->buffer = to;
    if (size > 0 && n < (to == s->buffer ? 1 : (size_t)size)) s->is_cut = true;
    memcpy(to, s->at + s->pos, n);
    s->pos += n;
    return (int)n;
}

static void on_skip(void *user, int n) // n < 0 goes back
{
    stream *s = user;
    int64_t to = (int64_t)s->pos + n;
    if (to > (int64_t)s->n) s->is_cut = true;
    s->pos = to < 0 ? 0 : to > (int64_t)s->n ? s->n : (size_t)to;
}

static int on_end(void *user) {
    const stream *s = user;
    return s->pos >= s->n;
}

static const stbi_io_callbacks stream_calls = {on_read, on_skip, on_end};

static kt_status fail(kt_image_job *job, const stream *s) {
    const kt_image *out = job->out;
    if (s->is_cut) return kt_image_cut(job);
    const char *why = stbi_failure_reason();
    return KT_FAIL(job->err, KT_EIMAGE,
        "'%s' is a broken %s, or of a kind that is not supported: %s; save it as PNG or JPEG",
        job->source.name, out->format, why == NULL ? "no reason given" : why);
}

kt_status kt_image_read_stb(kt_image_job *job) {
    int width = 0, height = 0, channels = 0;
    stream s = {job->source.at, job->source.n, 0, NULL, false};
    if (!stbi_info_from_callbacks(&stream_calls, &s, &width, &height, &channels))
        return fail(job, &s);
    KT_TRY(kt_image_alloc(job, height, width));

    s = (stream){job->source.at, job->source.n, 0, NULL, false};
    int new_width = 0, new_height = 0;
    uint8_t *rgb =
        stbi_load_from_callbacks(&stream_calls, &s, &new_width, &new_height, &channels, 3);
    if (rgb == NULL || s.is_cut || new_width != width || new_height != height) {
        stbi_image_free(rgb);
        return fail(job, &s);
    }
    memcpy(job->out->rgb, rgb, 3 * (size_t)width * (size_t)height);
    stbi_image_free(rgb);
    return KT_OK;
}
