// The GPU runtime on a real device: memory, uploads, modules, launches, graphs, trace, timers.
// Speaks TAP.
//
// usage: gpu_runtime [--pack FILE]           the tests; kernels from the pack, else from NVRTC
//        gpu_runtime --write-pack FILE       compiles the kernels for all architectures (needs no
//        GPU)
// It starts itself as "--child WHAT ..." for what must not happen in this process.
#include "ptx/compile.h"
#include "runtime/gpu/graph.h"
#include "runtime/gpu/launch.h"
#include "runtime/gpu/memory.h"
#include "runtime/gpu/timer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
    const char *name, *text;
} source;

static const source kernels = {"tests/gpu_runtime.cu",
    "#include \"kt.cuh\"\n"
    "struct big { int a[40]; };\n"
    "extern \"C\" __global__ void kt_add_to(int *p, int n, int v) {\n"
    "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
    "    if (i < n) p[i] += v;\n"
    "}\n"
    "extern \"C\" __global__ void kt_params(int *out, char c, double d, short s, big b) {\n"
    "    if (threadIdx.x == 0) { out[0] = c; out[1] = (int)(d * 4); out[2] = s; out[3] = b.a[39]; "
    "}\n"
    "}\n"
    "extern \"C\" __global__ void kt_shared(int *out, int n) {\n"
    "    KT_SHARED_DYNAMIC(int, s);\n"
    "    for (int i = threadIdx.x; i < n; i += blockDim.x) s[i] = i;\n"
    "    kt_sync();\n"
    "    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = s[n - 1 - i];\n"
    "}\n"
    "extern \"C\" __global__ void kt_step(int *state, volatile int *mapped) {\n"
    "    if (threadIdx.x == 0) { int t = state[0] + 1; state[0] = t; state[1] = t * 7; mapped[0] = "
    "t; }\n"
    "}\n"
    "extern \"C\" __global__ void kt_wild(int *p) { p[threadIdx.x + (1ll << 40)] = 1; }\n"};

// Of a GPU alone: the stand-in for one (tests/emu) does not say what ran where.
static const source processors = {"tests/gpu_runtime_smid.cu",
    "extern \"C\" __global__ void kt_smid(int *used) {\n"
    "    unsigned id; asm volatile(\"mov.u32 %0, %%smid;\" : \"=r\"(id));\n"
    "    if (threadIdx.x == 0) used[id] = 1;\n"
    "    for (int i = 0; i < 20; i++) __nanosleep(1000);\n"
    "}\n"};

static const int archs[] = {80, 86, 89, 90, 120};
enum { N_ARCHS = sizeof archs / sizeof archs[0], N_NODES = 250, MOST_SHARED = 99 * 1024 };

static void *room(size_t n) {
    void *at = malloc(n);
    if (at == NULL) kt_out_of_memory(n);
    return at;
}

static int n_tests, n_failed;
static const char *self, *pack_path;

static void report(bool ok, const char *name, const char *fmt, ...) KT_PRINTF(3, 4);
static void report(bool ok, const char *name, const char *fmt, ...) {
    n_tests++;
    n_failed += !ok;
    (void)printf("%sok %d - %s\n", ok ? "" : "not ", n_tests, name);
    (void)printf("# ");
    va_list args;
    va_start(args, fmt);
    (void)vprintf(fmt, args);
    va_end(args);
    (void)printf("\n");
    (void)fflush(stdout);
}

// In a test: fails it with the error unless expr is KT_OK.
#define MUST(expr)                                                                                 \
    do {                                                                                           \
        if ((expr) != KT_OK) {                                                                     \
            report(false, __func__, "line %d: %s", __LINE__, err.text);                            \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            report(false, __func__, "line %d: %s", __LINE__, #cond);                               \
            return;                                                                                \
        }                                                                                          \
    } while (0)

// ---- kernels

static kt_status compile(
    kt_compiler *compiler, const source *from, int arch, kt_compile_result *out, kt_err *err) {
    static kt_arena arena; // as long as the process
    kt_options *options = KT_NEW(&arena, kt_options);
    kt_options_init(options, &arena, arch);
    const kt_compile_request request = {from->name, kt_str_from(from->text), options};
    return kt_compile(compiler, &request, 1, out, err);
}

static kt_status open_compiler(kt_compiler **out, kt_err *err) {
    const kt_compiler_options options = {.headers = kt_device_headers,
        .no_cache = true,
        .packs = &pack_path,
        .n_packs = pack_path == NULL ? 0 : 1};
    return kt_compiler_open(&options, out, err);
}

static int write_pack(const char *path) {
    kt_compiler *compiler = NULL;
    kt_err err;
    kt_arena arena = {0};
    kt_pack_item items[2 * N_ARCHS];
    kt_status status = open_compiler(&compiler, &err);
    for (int i = 0; i < 2 * N_ARCHS && status == KT_OK; i++) {
        const source *from = i < N_ARCHS ? &kernels : &processors;
        int arch = archs[i % N_ARCHS];
        kt_compile_result result;
        kt_options options;
        kt_options_init(&options, &arena, arch);
        kt_cache_inputs inputs = {.source = kt_str_from(from->text), .headers = kt_device_headers};
        inputs.options = kt_options_list(&options, &arena, arch, &inputs.n_options);
        status = compile(compiler, from, arch, &result, &err);
        if (status == KT_OK)
            items[i] = (kt_pack_item){kt_cache_key(&inputs), {result.cubin, *result.info}};
    }
    if (status == KT_OK) status = kt_pack_write(path, "test", items, 2 * N_ARCHS, &err);
    kt_compiler_close(compiler);
    kt_arena_deinit(&arena);
    if (status != KT_OK) (void)printf("%s\n", err.text);
    return status == KT_OK ? 0 : 1;
}

typedef struct rig {
    kt_gpu *gpu;
    kt_compiler *compiler;
    kt_compile_result code;
    kt_gpu_module *module;
    kt_gpu_block block; // 1 MB
} rig;

static kt_status open_rig(rig *r, const kt_gpu_options *options, kt_err *err) {
    *r = (rig){0};
    KT_TRY(kt_gpu_open(options, &r->gpu, err));
    KT_TRY(open_compiler(&r->compiler, err));
    KT_TRY(compile(r->compiler, &kernels, r->gpu->info.arch, &r->code, err));
    KT_TRY(kt_gpu_module_open(
        r->gpu, kernels.name, r->code.cubin.at, r->code.cubin.n, &r->module, err));
    KT_TRY(kt_gpu_alloc(r->gpu, "test", KT_GPU_USE_OTHER, 1 << 20, &r->block, err));
    KT_TRY(kt_gpu_fill(r->gpu, r->gpu->compute, r->block.at, 0, 1 << 20, err));
    return kt_gpu_wait(r->gpu, r->gpu->compute, err);
}

static void close_rig(rig *r) {
    kt_gpu_module_close(r->module);
    kt_gpu_close(r->gpu);
    kt_compiler_close(r->compiler);
}

static kt_status get_kernel(
    rig *r, const char *name, uint32_t shared, const kt_gpu_kernel **out, kt_err *err) {
    return kt_gpu_module_kernel(r->module, name, NULL, -1, shared, out, err);
}

// ---- memory

static void memory_goes_there_and_back(rig *r) {
    kt_err err;
    kt_gpu_block block;
    size_t n = 5 << 20;
    unsigned char *out = room(n), *in = room(n);
    int64_t before = kt_gpu_allocated_bytes(r->gpu);
    for (size_t i = 0; i < n; i++) out[i] = (unsigned char)(i * 7 + i / 251);
    MUST(kt_gpu_alloc(r->gpu, "round trip", KT_GPU_USE_OTHER, n, &block, &err));
    CHECK(kt_gpu_allocated_bytes(r->gpu) == before + (int64_t)n);
    MUST(kt_gpu_write(r->gpu, block.at, out, n, &err));
    MUST(kt_gpu_read(r->gpu, in, block.at, n, &err));
    CHECK(memcmp(in, out, n) == 0);
    kt_gpu_free(r->gpu, &block);
    CHECK(kt_gpu_allocated_bytes(r->gpu) == before && block.at == 0);
    free(out);
    free(in);
    report(true, __func__, "%zu bytes", n);
}

static void too_much_memory_is_refused(rig *r) {
    kt_err err;
    kt_gpu_block block;
    CHECK(kt_gpu_alloc(r->gpu, "the moon", KT_GPU_USE_WEIGHTS, (size_t)1 << 45, &block, &err) ==
          KT_EMEMORY);
    CHECK(strstr(err.text, "'the moon'") != NULL && strstr(err.text, "free") != NULL);
    CHECK(block.at == 0 && !r->gpu->lost);
    int64_t free_now, total;
    MUST(kt_gpu_memory(r->gpu, &free_now, &total, &err));
    // So close to the limit that only the reserve forbids it.
    CHECK(kt_gpu_alloc(r->gpu, "reserve", KT_GPU_USE_WEIGHTS, (size_t)free_now - (50 << 20), &block,
              &err) == KT_EMEMORY);
    report(true, __func__, "%" PRId64 " of %" PRId64 " MiB free", free_now >> 20, total >> 20);
}

static void uploads_arrive(rig *r) {
    kt_err err;
    kt_gpu_uploader *up;
    kt_gpu_block block;
    size_t n = 40 << 20, at = 0;
    unsigned char *want = room(n), *got = room(n);
    for (size_t i = 0; i < n; i++) want[i] = (unsigned char)(i * 13 >> 3);
    MUST(kt_gpu_alloc(r->gpu, "upload", KT_GPU_USE_WEIGHTS, n, &block, &err));
    MUST(kt_gpu_uploader_open(r->gpu, r->gpu->copy, 3 << 20, &up, &err));
    MUST(kt_gpu_uploader_put(up, block.at, want, n, &err)); // goes round the ring
    MUST(kt_gpu_uploader_wait(up, &err));
    MUST(kt_gpu_read(r->gpu, got, block.at, n, &err));
    CHECK(memcmp(want, got, n) == 0);
    for (size_t i = 0; i < n; i++) want[i] = (unsigned char)(i * 31 >> 2);
    for (size_t size = 1; at < n; size = size * 3 % 1000003 + 1) { // pieces of all sizes
        size_t piece = size < n - at ? size : n - at;
        MUST(kt_gpu_uploader_put(up, block.at + at, want + at, piece, &err));
        at += piece;
    }
    MUST(kt_gpu_uploader_wait(up, &err));
    MUST(kt_gpu_read(r->gpu, got, block.at, n, &err));
    CHECK(memcmp(want, got, n) == 0);
    kt_gpu_uploader_close(up);
    kt_gpu_free(r->gpu, &block);
    free(want);
    free(got);
    report(true, __func__, "40 MB, whole and in pieces");
}

// ---- modules and launches

static void parameters_are_compared(rig *r) {
    kt_err err;
    const kt_gpu_kernel *kernel;
    kt_gpu_param params[] = {{"out", 8}, {"c", 1}, {"d", 8}, {"s", 2}, {"b", 160}};
    MUST(kt_gpu_module_kernel(r->module, "kt_params", params, 5, 0, &kernel, &err));
    static const uint32_t offsets[] = {0, 8, 16, 24, 28};
    for (int i = 0; i < 5; i++) CHECK(kernel->param_offset[i] == offsets[i]);
    params[2].size_bytes = 4;
    CHECK(kt_gpu_module_kernel(r->module, "kt_params", params, 5, 0, &kernel, &err) == KT_EOP);
    CHECK(strstr(err.text, "kt_params") && strstr(err.text, "'d'") && strstr(err.text, "8 bytes") &&
          strstr(err.text, "passes 4"));
    params[2].size_bytes = 8;
    CHECK(kt_gpu_module_kernel(r->module, "kt_params", params, 4, 0, &kernel, &err) == KT_EOP);
    CHECK(strstr(err.text, "takes 5 parameters") != NULL);
    CHECK(kt_gpu_module_kernel(r->module, "kt_add_to", params, 4, 0, &kernel, &err) == KT_EOP);
    CHECK(kt_gpu_module_kernel(r->module, "kt_none", NULL, -1, 0, &kernel, &err) == KT_EOP);
    CHECK(strstr(err.text, "kt_none") && strstr(err.text, "kt_params"));
    CHECK(kt_gpu_module_kernel(r->module, "kt_shared", NULL, -1, 1 << 20, &kernel, &err) == KT_EOP);
    report(true, __func__, "%s", "five kinds of mistakes refused");
}

static void other_code_is_refused(rig *r) {
    kt_err err;
    kt_gpu_module *module = NULL;
    kt_compile_result other;
    int arch = r->gpu->info.arch / 10 == 8 ? 90 : 89; // another major version
    MUST(compile(r->compiler, &kernels, arch, &other, &err));
    CHECK(kt_gpu_module_open(r->gpu, "other", other.cubin.at, other.cubin.n, &module, &err) ==
          KT_ECOMPILE);
    CHECK(module == NULL && strstr(err.text, "sm_") != NULL);
    CHECK(kt_gpu_module_open(r->gpu, "cut", r->code.cubin.at, r->code.cubin.n - 100, &module,
              &err) == KT_ECOMPILE);
    CHECK(!r->gpu->lost);
    err.text[strcspn(err.text, "\n")] = 0;
    report(true, __func__, "%s", err.text);
}

static void launches_pass_parameters(rig *r) {
    kt_err err;
    const kt_gpu_kernel *kernel;
    int got[4];
    MUST(get_kernel(r, "kt_params", 0, &kernel, &err));
    unsigned char bytes[188] = {0}; // the kernel's own layout
    double d = -2.25;
    short s = -300;
    int last = 77;
    memcpy(bytes, &r->block.at, 8);
    bytes[8] = 5;
    memcpy(bytes + 16, &d, 8);
    memcpy(bytes + 24, &s, 2);
    memcpy(bytes + 184, &last, 4); // b.a[39]
    kt_launch launch = {.kernel = kernel,
        .grid = {1, 1, 1},
        .block = {32, 1, 1},
        .params = bytes,
        .params_bytes = sizeof bytes,
        .n_params = 5,
        .name = "params"};
    MUST(kt_gpu_launch(r->gpu, r->gpu->compute, &launch, &err));
    MUST(kt_gpu_read(r->gpu, got, r->block.at, sizeof got, &err));
    CHECK(got[0] == 5 && got[1] == -9 && got[2] == -300 && got[3] == 77);
    static const uint32_t packed_at[] = {0, 8, 9, 17, 19}; // without gaps
    unsigned char packed[179] = {0};
    memcpy(packed, &r->block.at, 8);
    packed[8] = 6;
    memcpy(packed + 9, &d, 8);
    memcpy(packed + 17, &s, 2);
    memcpy(packed + 175, &last, 4);
    launch.params = packed;
    launch.params_bytes = sizeof packed;
    launch.param_at = packed_at;
    MUST(kt_gpu_launch(r->gpu, r->gpu->compute, &launch, &err));
    MUST(kt_gpu_read(r->gpu, got, r->block.at, sizeof got, &err));
    CHECK(got[0] == 6 && got[1] == -9 && got[2] == -300 && got[3] == 77);
    report(true, __func__, "%d parameters, two layouts", kernel->n_params);
}

typedef struct add_params {
    kt_dptr p;
    int n, v;
} add_params;

static kt_launch add_launch(const kt_gpu_kernel *kernel, const add_params *params) {
    return (kt_launch){.kernel = kernel,
        .grid = {(uint32_t)(params->n + 127) / 128, 1, 1},
        .block = {128, 1, 1},
        .params = params,
        .params_bytes = sizeof *params,
        .n_params = 3,
        .name = "add"};
}

static void shared_memory_up_to_99_kb(rig *r) {
    kt_err err;
    const kt_gpu_kernel *kernel;
    const int n = MOST_SHARED / 4;
    MUST(get_kernel(r, "kt_shared", MOST_SHARED, &kernel, &err));
    struct {
        kt_dptr out;
        int n;
    } params = {r->block.at, n};
    kt_launch launch = {.kernel = kernel,
        .grid = {1, 1, 1},
        .block = {256, 1, 1},
        .shared_bytes = MOST_SHARED,
        .params = &params,
        .params_bytes = sizeof params,
        .n_params = 2};
    MUST(kt_gpu_launch(r->gpu, r->gpu->compute, &launch, &err));
    int *got = room((size_t)n * 4);
    MUST(kt_gpu_read(r->gpu, got, r->block.at, (size_t)n * 4, &err));
    for (int i = 0; i < n; i++) CHECK(got[i] == n - 1 - i);
    free(got);
    launch.shared_bytes++;
    CHECK(kt_gpu_launch(r->gpu, r->gpu->compute, &launch, &err) == KT_EOP);
    report(true, __func__, "%d registers", kernel->registers);
}

// ---- graphs

static kt_status build_chain(
    rig *r, const kt_gpu_kernel *kernel, int n, kt_gpu_graph **out, kt_err *err) {
    KT_TRY(kt_gpu_graph_open(r->gpu, "chain", out, err));
    for (int i = 0; i < n; i++) {
        const add_params params = {r->block.at, 1024, i};
        kt_launch launch = add_launch(kernel, &params);
        KT_TRY(kt_gpu_graph_kernel(*out, &launch, NULL, NULL, err));
    }
    return kt_gpu_graph_finish(*out, err);
}

static void a_graph_of_250_nodes(rig *r) {
    kt_err err;
    const kt_gpu_kernel *kernel;
    kt_gpu_graph *graph = NULL;
    kt_gpu_timer *timer;
    MUST(get_kernel(r, "kt_add_to", 0, &kernel, &err));
    MUST(kt_gpu_fill(r->gpu, r->gpu->compute, r->block.at, 0, 4096, &err));
    MUST(build_chain(r, kernel, N_NODES, &graph, &err));
    MUST(kt_gpu_timer_open(r->gpu, 64, &timer, &err));
    double host = 0;
    for (int i = 0; i < 21; i++) {
        MUST(kt_gpu_timer_mark(timer, r->gpu->compute, NULL, &err));
        double start = kt_os_now_ms();
        MUST(kt_gpu_graph_launch(graph, r->gpu->compute, &err));
        if (i > 0) host += kt_os_now_ms() - start;
    }
    MUST(kt_gpu_timer_mark(timer, r->gpu->compute, NULL, &err));
    double ms;
    MUST(kt_gpu_timer_ms(timer, 1, 21, &ms, &err));
    int got[1024];
    MUST(kt_gpu_read(r->gpu, got, r->block.at, sizeof got, &err));
    for (int i = 0; i < 1024; i++) CHECK(got[i] == 21 * (N_NODES * (N_NODES - 1) / 2));
    kt_graph_info info = kt_gpu_graph_info(graph);
    CHECK(info.n_nodes == N_NODES && info.n_kernels == N_NODES && info.n_copies == 0);
    kt_gpu_timer_reset(timer);
    MUST(kt_gpu_timer_mark(timer, r->gpu->compute, NULL, &err));
    double start = kt_os_now_ms();
    const add_params params = {r->block.at, 1024, 1};
    kt_launch launch = add_launch(kernel, &params);
    for (int i = 0; i < N_NODES; i++) MUST(kt_gpu_launch(r->gpu, r->gpu->compute, &launch, &err));
    double plain_host = kt_os_now_ms() - start, plain;
    MUST(kt_gpu_timer_mark(timer, r->gpu->compute, NULL, &err));
    MUST(kt_gpu_timer_ms(timer, 0, 1, &plain, &err));
    kt_gpu_timer_close(timer);
    kt_gpu_graph_close(graph);
    report(true, __func__,
        "build %.2f ms, instantiate %.2f ms, upload %.2f ms; launch call %.1f us; %.2f us a node; "
        "plain launches %.2f us each (host %.2f)",
        info.build_ms, info.instantiate_ms, info.upload_ms, host / 20 * 1e3,
        ms / 20 / N_NODES * 1e3, plain / N_NODES * 1e3, plain_host / N_NODES * 1e3);
}

// Fill and upload, a kernel behind each, a copy behind both, a download behind it.
static kt_status build_diamond(
    rig *r, const kt_gpu_pinned *in, const kt_gpu_pinned *out, kt_gpu_graph **graph, kt_err *err) {
    const kt_gpu_kernel *kernel;
    int fill, left, right, up;
    KT_TRY(get_kernel(r, "kt_add_to", 0, &kernel, err));
    const kt_dptr a = r->block.at, b = a + 4096;
    KT_TRY(kt_gpu_graph_open(r->gpu, "diamond", graph, err));
    const kt_graph_after nothing = {NULL, 0};
    KT_TRY(kt_gpu_graph_fill(*graph, b, 1, 1024, &nothing, &fill, err));
    KT_TRY(kt_gpu_graph_upload(*graph, a, in->at, 1024, &nothing, &up, err));
    const add_params pa = {a, 256, 1000}, pb = {b, 256, 5};
    kt_launch la = add_launch(kernel, &pa), lb = add_launch(kernel, &pb);
    const kt_graph_after after_up = {&up, 1}, after_fill = {&fill, 1};
    KT_TRY(kt_gpu_graph_kernel(*graph, &la, &after_up, &left, err));
    KT_TRY(kt_gpu_graph_kernel(*graph, &lb, &after_fill, &right, err));
    const int both_nodes[] = {left, right};
    const kt_graph_after both = {both_nodes, 2};
    KT_TRY(kt_gpu_graph_copy(*graph, a + 1024, b, 1024, &both, NULL, err));
    KT_TRY(kt_gpu_graph_download(*graph, out->at, a, 2048, NULL, NULL, err));
    return kt_gpu_graph_finish(*graph, err);
}

static void graphs_keep_their_order(rig *r) {
    kt_err err;
    kt_gpu_graph *graph = NULL;
    kt_gpu_pinned in, out;
    MUST(kt_gpu_pin(r->gpu, "in", 4096, &in, &err));
    MUST(kt_gpu_pin(r->gpu, "out", 4096, &out, &err));
    for (int i = 0; i < 256; i++) ((int *)in.at)[i] = i;
    MUST(build_diamond(r, &in, &out, &graph, &err));
    CHECK(kt_gpu_graph_info(graph).n_nodes == 6 && kt_gpu_graph_info(graph).n_copies == 3);
    for (int round = 0; round < 3; round++) {
        memset(out.at, 0, 2048);
        MUST(kt_gpu_graph_launch(graph, r->gpu->compute, &err));
        MUST(kt_gpu_wait(r->gpu, r->gpu->compute, &err));
        const int *got = out.at;
        int n_wrong = 0;
        for (int i = 0; i < 256; i++)
            n_wrong += got[i] != i + 1000 || got[256 + i] != 0x01010101 + 5;
        CHECK(n_wrong == 0);
    }
    kt_gpu_graph_close(graph);
    kt_gpu_unpin(r->gpu, &in);
    kt_gpu_unpin(r->gpu, &out);
    report(true, __func__, "%s", "fill, upload, two branches, copy, download");
}

// One step of a decode loop as Kotaro runs it: the state advances on the device, the host only
// launches and reads what arrives in pinned memory.
static void steps_are_one_driver_call(rig *r) {
    kt_err err;
    enum { N = 200 };
    const kt_gpu_kernel *step;
    kt_gpu_graph *graph;
    kt_gpu_pinned ring;
    MUST(get_kernel(r, "kt_step", 0, &step, &err));
    MUST(kt_gpu_pin(r->gpu, "ring", 4096, &ring, &err));
    MUST(kt_gpu_fill(r->gpu, r->gpu->compute, r->block.at, 0, 64, &err));
    const kt_dptr params[] = {r->block.at, ring.device + 64};
    kt_launch launch = {.kernel = step,
        .grid = {1, 1, 1},
        .block = {32, 1, 1},
        .params = params,
        .params_bytes = sizeof params,
        .n_params = 2,
        .name = "step"};
    MUST(kt_gpu_graph_open(r->gpu, "decode", &graph, &err));
    MUST(kt_gpu_graph_kernel(graph, &launch, NULL, NULL, &err));
    MUST(kt_gpu_graph_download(graph, ring.at, r->block.at, 8, NULL, NULL, &err));
    MUST(kt_gpu_graph_finish(graph, &err));
    FILE *trace = tmpfile();
    CHECK(trace != NULL);
    volatile int *seen = ring.at; // [0], [1]: the copy node; [16]: the kernel itself
    uint64_t before = r->gpu->driver->n_traced;
    kt_driver_trace(r->gpu->driver, trace);
    double start = kt_os_now_ms();
    kt_status status = kt_gpu_graph_launch(graph, r->gpu->compute, &err);
    for (int i = 1; i <= N && status == KT_OK;
         i++) { // the next step is submitted before this one is read
        if (i < N) status = kt_gpu_graph_launch(graph, r->gpu->compute, &err);
        double patience = kt_os_now_ms() + 2000;
        while (seen[0] < i && kt_os_now_ms() < patience) {
        }
        if (seen[0] < i || seen[16] < i)
            status = KT_FAIL(&err, KT_EGPU, "step %d: nothing seen", i);
    }
    double us = (kt_os_now_ms() - start) * 1e3 / N;
    kt_driver_trace(r->gpu->driver, NULL);
    uint64_t n_calls = r->gpu->driver->n_traced - before;
    MUST(status);
    CHECK(seen[0] == N && seen[1] == 7 * N);
    rewind(trace);
    char line[256];
    int n_launches = 0, n_lines = 0;
    while (fgets(line, sizeof line, trace) != NULL) {
        n_lines++;
        n_launches += strcmp(line, "cuGraphLaunch name=decode\n") == 0;
    }
    (void)fclose(trace);
    CHECK(n_lines == N && n_launches == N && n_calls == N);
    kt_gpu_graph_close(graph);
    kt_gpu_unpin(r->gpu, &ring);
    report(true, __func__, "%d steps, %d driver calls, %.1f us a step", N, n_lines, us);
}

static void events_order_two_streams(rig *r) {
    kt_err err;
    const kt_gpu_kernel *kernel;
    kt_cu_event event;
    bool done = false;
    MUST(get_kernel(r, "kt_add_to", 0, &kernel, &err));
    MUST(kt_gpu_event_open(r->gpu, false, &event, &err));
    int n = 1 << 18, *in = room((size_t)n * 4);
    for (int i = 0; i < n; i++) in[i] = i;
    for (int round = 0; round < 20; round++) {
        MUST(kt_gpu_upload(r->gpu, r->gpu->copy, r->block.at, in, (size_t)n * 4, &err));
        MUST(kt_gpu_event_record(r->gpu, event, r->gpu->copy, &err));
        MUST(kt_gpu_stream_after(r->gpu, r->gpu->compute, event, &err));
        const add_params params = {r->block.at, n, 3};
        kt_launch launch = add_launch(kernel, &params);
        MUST(kt_gpu_launch(r->gpu, r->gpu->compute, &launch, &err));
        MUST(kt_gpu_event_record(r->gpu, event, r->gpu->compute, &err));
        MUST(kt_gpu_stream_after(r->gpu, r->gpu->copy, event, &err));
    }
    MUST(kt_gpu_event_wait(r->gpu, event, &err));
    MUST(kt_gpu_event_done(r->gpu, event, &done, &err));
    CHECK(done);
    MUST(kt_gpu_flush(r->gpu, r->gpu->compute, &err));
    int *got = room((size_t)n * 4);
    MUST(kt_gpu_read(r->gpu, got, r->block.at, (size_t)n * 4, &err));
    for (int i = 0; i < n; i++) CHECK(got[i] == i + 3);
    kt_gpu_event_close(r->gpu, event);
    free(in);
    free(got);
    report(true, __func__, "%s", "20 rounds");
}

// ---- in processes of their own

// A kernel that writes where nothing is: the GPU is lost, and the error names what ran.
static int child_wild(bool check_each) {
    rig r;
    kt_err err;
    const kt_gpu_options options = {.check_each = check_each};
    const kt_gpu_kernel *kernel, *add;
    if (open_rig(&r, &options, &err) != KT_OK ||
        get_kernel(&r, "kt_wild", 0, &kernel, &err) != KT_OK ||
        get_kernel(&r, "kt_add_to", 0, &add, &err) != KT_OK)
        return 2;
    kt_launch launch = {.kernel = kernel,
        .grid = {2, 1, 1},
        .block = {32, 1, 1},
        .params = &r.block.at,
        .params_bytes = 8,
        .n_params = 1,
        .name = "layer 7: wild[rows]"};
    kt_status status = kt_gpu_launch(r.gpu, r.gpu->compute, &launch, &err);
    if (status == KT_OK) status = kt_gpu_wait(r.gpu, r.gpu->compute, &err);
    (void)printf("%s lost %d: %s\n", kt_status_name(status), r.gpu->lost, err.text);
    kt_err later;
    const add_params params = {r.block.at, 1, 1};
    kt_launch next = add_launch(add, &params);
    status = kt_gpu_launch(r.gpu, r.gpu->compute, &next, &later);
    (void)printf(
        "later %s, the same %d\n", kt_status_name(status), strcmp(later.text, err.text) == 0);
    close_rig(&r);
    return 0;
}

static kt_status count_sms(rig *r, int *n_used, kt_err *err) {
    const kt_gpu_kernel *kernel;
    kt_gpu_graph *graph;
    kt_gpu_module *module;
    kt_compile_result code;
    int used[1024] = {0};
    KT_TRY(compile(r->compiler, &processors, r->gpu->info.arch, &code, err));
    KT_TRY(kt_gpu_module_open(r->gpu, processors.name, code.cubin.at, code.cubin.n, &module, err));
    KT_TRY(kt_gpu_module_kernel(module, "kt_smid", NULL, -1, 0, &kernel, err));
    KT_TRY(kt_gpu_fill(r->gpu, r->gpu->compute, r->block.at, 0, sizeof used, err));
    kt_launch launch = {.kernel = kernel,
        .grid = {2000, 1, 1},
        .block = {32, 1, 1},
        .params = &r->block.at,
        .params_bytes = 8,
        .n_params = 1};
    KT_TRY(kt_gpu_launch(r->gpu, r->gpu->compute, &launch, err));
    KT_TRY(kt_gpu_graph_open(r->gpu, "sms", &graph, err)); // nodes obey the share too
    KT_TRY(kt_gpu_graph_kernel(graph, &launch, NULL, NULL, err));
    KT_TRY(kt_gpu_graph_finish(graph, err));
    KT_TRY(kt_gpu_graph_launch(graph, r->gpu->compute, err));
    KT_TRY(kt_gpu_read(r->gpu, used, r->block.at, sizeof used, err));
    kt_gpu_graph_close(graph);
    kt_gpu_module_close(module);
    *n_used = 0;
    for (int i = 0; i < 1024; i++) *n_used += used[i];
    return KT_OK;
}

static int child_green(int sms) {
    rig r;
    kt_err err;
    const kt_gpu_options options = {.green_sms = sms, .poison = true};
    int n_used = 0;
    unsigned poison = 0;
    kt_gpu_block block;
    kt_status status = open_rig(&r, &options, &err);
    if (status == KT_OK) status = count_sms(&r, &n_used, &err);
    if (status == KT_OK)
        status = kt_gpu_alloc(r.gpu, "act", KT_GPU_USE_ACTIVATIONS, 4096, &block, &err);
    if (status == KT_OK) status = kt_gpu_read(r.gpu, &poison, block.at + 100, 4, &err);
    if (status == KT_OK)
        (void)printf("asked %d, granted %d of %d, used %d, poison %x\n", sms, r.gpu->info.sm_count,
            r.gpu->info.device_sm_count, n_used, poison);
    else
        (void)printf("%s\n", err.text);
    bool fair = status == KT_OK && n_used <= r.gpu->info.sm_count && n_used > 0 &&
                r.gpu->info.sm_count >= sms && poison == 0xffffffff &&
                (sms == 0 || r.gpu->info.sm_count < r.gpu->info.device_sm_count);
    if (status == KT_OK) close_rig(&r);
    return fair ? 0 : 1;
}

static int run_child(const char *what, const char *number, kt_buf *out) {
    const char *argv[] = {self, "--child", what, number, pack_path, NULL};
    return kt_os_run(argv, out);
}

static void a_lost_gpu_is_explained(rig *r) {
    (void)r;
    kt_buf out[2] = {0};
    CHECK(run_child("wild", "0", &out[0]) == 0);
    CHECK(strstr(out[0].at, "gpu lost 1: ") != NULL);
    CHECK(strstr(out[0].at, "last submitted: layer 7: wild[rows]") != NULL);
    CHECK(strstr(out[0].at, "later gpu, the same 1") != NULL);
    CHECK(run_child("wild", "1", &out[1]) == 0);
    CHECK(strstr(out[1].at, "in layer 7: wild[rows]: kernel kt_wild, grid 2x1x1, block 32x1x1"));
    CHECK(strstr(out[1].at, "later gpu, the same 1") != NULL);
    char first[200];
    (void)snprintf(first, sizeof first, "%s", out[1].at);
    first[strcspn(first, "\n")] = 0;
    kt_buf_deinit(&out[0]);
    kt_buf_deinit(&out[1]);
    report(true, __func__, "%s", first);
}

static void a_share_of_the_gpu(rig *r) {
    if (r->gpu->driver->cuGreenCtxCreate == NULL || r->gpu->info.device_sm_count < 48 ||
        strstr(r->gpu->info.name, "stand-in") != NULL) {
        (void)printf("ok %d # SKIP a_share_of_the_gpu: needs CUDA 12.4 and 48 SMs\n", ++n_tests);
        return;
    }
    kt_buf out = {0}, whole = {0};
    int code = run_child("green", "24", &out), code_whole = run_child("green", "0", &whole);
    char text[400];
    (void)snprintf(
        text, sizeof text, "%.190s / %.190s", out.n > 0 ? out.at : "", whole.n > 0 ? whole.at : "");
    for (char *at = text; *at != 0; at++)
        if (*at == '\n') *at = ' ';
    kt_buf_deinit(&out);
    kt_buf_deinit(&whole);
    report(code == 0 && code_whole == 0, __func__, "%s", text);
}

static void run_tests(void) {
    rig r;
    kt_err err;
    kt_status status = open_rig(&r, NULL, &err);
    if (status == KT_EDRIVER) {
        err.text[strcspn(err.text, "\n")] = 0;
        (void)printf("1..1\nok 1 # SKIP %s\n", err.text);
        return;
    }
    if (status != KT_OK) {
        report(false, "open", "%s", err.text);
        return;
    }
    const kt_gpu_info *info = &r.gpu->info;
    report(true, "open",
        "%s, sm_%d, %d SMs, %d B shared, %" PRId64 " MiB, CUDA %d.%d, '%s'; library %.1f ms, "
        "cuInit %.1f ms, context %.1f ms; code from %s",
        info->name, info->arch, info->sm_count, info->shared_optin_bytes, info->total_bytes >> 20,
        info->driver_version / 1000, info->driver_version / 10 % 100, r.gpu->driver->path,
        r.gpu->driver->open_ms, r.gpu->init_ms, r.gpu->context_ms,
        kt_compile_from_name(r.code.from));
    static void (*const all_tests[])(rig * r) = {memory_goes_there_and_back,
        too_much_memory_is_refused, uploads_arrive, parameters_are_compared, other_code_is_refused,
        launches_pass_parameters, shared_memory_up_to_99_kb, a_graph_of_250_nodes,
        graphs_keep_their_order, steps_are_one_driver_call, events_order_two_streams,
        a_lost_gpu_is_explained, a_share_of_the_gpu};
    size_t n = sizeof all_tests / sizeof all_tests[0];
    for (size_t i = 0; i < n; i++) all_tests[i](&r);
    close_rig(&r);
    (void)printf("1..%d\n", (int)n + 1);
}

int main(int argc, char **argv) {
    kt_arena arena = {0};
    self = kt_os_executable(&arena);
    int code = 0;
    if (argc == 3 && strcmp(argv[1], "--write-pack") == 0) {
        code = write_pack(argv[2]);
    } else if (argc >= 4 && strcmp(argv[1], "--child") == 0) {
        int number = (int)strtol(argv[3], NULL, 10);
        pack_path = argc > 4 ? argv[4] : NULL;
        code = strcmp(argv[2], "wild") == 0 ? child_wild(number != 0) : child_green(number);
    } else {
        if (argc == 3 && strcmp(argv[1], "--pack") == 0) pack_path = argv[2];
        run_tests();
        code = n_failed > 0 ? 1 : 0;
    }
    kt_arena_deinit(&arena);
    return code;
}
