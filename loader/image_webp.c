#include "loader/image_parts.h"

#ifdef KT_STB_ONLY

kt_status kt_image_read_webp(kt_image_job *job) {
    job->out->format = "WebP";
    return KT_FAIL(job->err, KT_EIMAGE,
        "'%s' is a WebP, which this build cannot read; save it as PNG or JPEG", job->source.name);
}

#else

#include <webp/decode.h>
#include <webp/demux.h>

#include <stdlib.h>
#include <string.h>

static void find_orientation(kt_image_job *job, WebPDemuxer *demux) {
    WebPChunkIterator chunk;
    memset(&chunk, 0, sizeof chunk);
    if (WebPDemuxGetChunk(demux, "EXIF", 1, &chunk))
        job->out->orientation = kt_image_orientation(chunk.chunk.bytes, chunk.chunk.size);
    WebPDemuxReleaseChunkIterator(&chunk);
}

// The first frame, placed on a canvas of zeros where it does not cover it.
static kt_status read_frame(kt_image_job *job, const WebPIterator *frame) {
    const kt_image *out = job->out;
    int width = 0, height = 0;
    if (!frame->complete) return kt_image_cut(job);
    if (!WebPGetInfo(frame->fragment.bytes, frame->fragment.size, &width, &height))
        return kt_image_broken(job, NULL);
    if (frame->x_offset < 0 || frame->y_offset < 0 || width > out->width - frame->x_offset ||
        height > out->height - frame->y_offset)
        return kt_image_broken(job, NULL);
    size_t stride = 3 * (size_t)out->width;
    size_t from = (size_t)frame->y_offset * stride + 3 * (size_t)frame->x_offset;
    size_t size = stride * (size_t)out->height - from;
    if (WebPDecodeRGBInto(frame->fragment.bytes, frame->fragment.size, out->rgb + from, size,
            (int)stride) == NULL)
        return kt_image_broken(job, NULL);
    return KT_OK;
}

kt_status kt_image_read_webp(kt_image_job *job) {
    job->out->format = "WebP";
    WebPData data = {job->source.at, job->source.n};
    WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
    WebPDemuxer *demux = WebPDemuxPartial(&data, &state);
    if (demux == NULL || state == WEBP_DEMUX_PARSE_ERROR) {
        WebPDemuxDelete(demux);
        return kt_image_broken(job, NULL);
    }
    WebPIterator frame;
    memset(&frame, 0, sizeof frame);
    kt_status status = KT_OK;
    if (state != WEBP_DEMUX_DONE || !WebPDemuxGetFrame(demux, 1, &frame))
        status = kt_image_cut(job);
    else
        status = kt_image_alloc(job, WebPDemuxGetI(demux, WEBP_FF_CANVAS_HEIGHT),
            WebPDemuxGetI(demux, WEBP_FF_CANVAS_WIDTH));
    if (status == KT_OK) {
        find_orientation(job, demux);
        status = read_frame(job, &frame);
    }
    WebPDemuxReleaseIterator(&frame);
    WebPDemuxDelete(demux);
    return status;
}

#endif
