#include "runtime/exec/times.h"

#include "runtime/base/log.h"
#include "runtime/gpu/memory.h"

#include <inttypes.h>

static bool is_verbose(void) {
    return kt_log_get_level() >= KT_LOG_DEBUG;
}

// From this size on a plan is said without being asked for: a card may hold it or not.
enum { SAID_FROM_MB = 1000 };

void kt_times_planned(const kt_session *s) {
    kt_buf out = {0};
    bool large = kt_plan_target_bytes(s->plan) >= SAID_FROM_MB * (int64_t)1000000;
    if (!large && !is_verbose()) return;
    kt_plan_print_sum(s->plan, &out);
    if (large)
        kt_log_info("%s", out.at);
    else
        kt_log_debug("%s", out.at);
    kt_buf_deinit(&out);
}

// ---- memory of the device

typedef struct device_memory {
    int64_t plan, beside, before, free_now;
} device_memory;

// By the plan; what modules and graphs took; what was taken before (contexts, other programs).
static bool measure(const kt_session *s, device_memory *out) {
    int64_t free_now = 0, total = 0;
    kt_err err;
    if (!s->gpu || kt_gpu_memory(s->gpu, &free_now, &total, &err) != KT_OK) return false;
    out->plan = kt_gpu_allocated_bytes(s->gpu);
    out->beside = s->free_bytes - free_now - out->plan;
    out->before = total - s->free_bytes;
    out->free_now = free_now;
    return true;
}

static double mb(int64_t bytes) {
    return (double)bytes / 1e6;
}

// ---- as text

void kt_session_print_times(const kt_session *s, kt_buf *out) {
    kt_buf_printf(out, "opened in %.0f ms on %s\n", s->open_ms, s->device_name);
    kt_buf_printf(out, "  files and settings %.0f ms", s->files_ms);
    if (s->gpu)
        kt_buf_printf(out, ", beside driver %.0f ms and context %.0f ms, waited for them %.0f ms",
            s->gpu->init_ms, s->gpu->context_ms, s->device_wait_ms);
    kt_buf_printf(out, "\n  plan %.0f ms, waited for the tokenizer %.0f ms", s->plan_ms,
        s->tokenizer_wait_ms);
    if (s->gpu) {
        kt_cuda_times t = kt_cuda_backend_times(s->backend);
        kt_buf_printf(out,
            ", kernels %.0f ms (%d: %d compiled, %d cached, %d packed), loading them %.0f ms, "
            "memory %.0f ms, graphs %.0f ms",
            t.compile_ms, t.n_builds, t.n_compiled, t.n_cached, t.n_packed, t.load_modules_ms,
            t.memory_ms, t.graph_ms);
    }
    kt_buf_printf(out, "\n  ");
    device_memory m;
    if (measure(s, &m))
        kt_buf_printf(out,
            "device memory %.1f MB by the plan, %.1f MB beside (modules, graphs), %.1f MB before "
            "(context, others), %.1f MB free\n  ",
            mb(m.plan), mb(m.beside), mb(m.before), mb(m.free_now));
    kt_load_stats_print(&s->load, out);
    kt_buf_printf(out, "\n");
    if (s->load.n_rounded > 0)
        kt_buf_printf(out, "  %" PRId64 " weights are below f16's normal range and lost digits\n",
            s->load.n_rounded);
}

// ---- as JSON

static void print_json(const kt_session *s, kt_buf *out) {
    const kt_load_stats *l = &s->load;
    device_memory m = {0};
    kt_cuda_times t = {0};
    if (s->gpu) t = kt_cuda_backend_times(s->backend);
    (void)measure(s, &m);
    const struct {
        const char *name;
        double value;
    } rows[] = {{"clock", kt_os_now_ms()}, {"open", s->open_ms}, {"files", s->files_ms},
        {"driver", s->gpu ? s->gpu->init_ms : 0}, {"context", s->gpu ? s->gpu->context_ms : 0},
        {"device_wait", s->device_wait_ms}, {"plan", s->plan_ms},
        {"tokenizer_wait", s->tokenizer_wait_ms}, {"kernels", t.compile_ms},
        {"modules", t.load_modules_ms}, {"memory", t.memory_ms}, {"graphs", t.graph_ms},
        {"weights", l->ms}, {"read", l->n_readers > 0 ? l->read_ms / l->n_readers : l->read_ms},
        {"upload", l->times.upload_ms}, {"prepare", l->times.prepare_ms}, {"pin", l->times.pin_ms},
        {"waited", l->waited_ms}, {"readers", l->n_readers}, {"compiled", t.n_compiled},
        {"weight_mb", mb(l->bytes)}, {"upload_mb", mb(l->upload_bytes)}, {"plan_mb", mb(m.plan)},
        {"beside_mb", mb(m.beside)}, {"before_mb", mb(m.before)}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        kt_buf_printf(out, "%s\"%s\": %.3f", i ? ", " : "{", rows[i].name, rows[i].value);
    kt_buf_printf(out, "}");
}

void kt_times_opened(const kt_session *s) {
    const kt_load_stats *l = &s->load;
    if (l->n_faint > 0)
        kt_log_warn("%d %s such small numbers that f16 cannot hold them as exactly as the file "
                    "does: '%.*s' has none above %g",
            l->n_faint, l->n_faint == 1 ? "tensor has" : "tensors have", KT_STR_ARG(l->faint->name),
            l->faint_largest);
    if (!is_verbose()) return;
    kt_buf out = {0}, json = {0};
    print_json(s, &json); // first: it has the time
    kt_session_print_times(s, &out);
    fputs(out.at, stderr);
    kt_log_debug("opened %s", json.at);
    kt_buf_deinit(&out);
    kt_buf_deinit(&json);
}
