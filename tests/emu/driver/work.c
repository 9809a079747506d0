// Copies and fills: looked at when they are submitted, and carried out.
#include "tests/emu/driver/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TAKEN_MOST = 16 << 20 }; // a larger copy from memory that is not pinned waits instead

static void *address(uint64_t at) {
    void *out;
    memcpy(&out, &at, sizeof out);
    return out;
}

static bool on_device(uint64_t at, uint64_t bytes) {
    return drv_memory_has(DRV_DEVICE_MEMORY, at, bytes) ||
           drv_memory_has(DRV_PINNED_MEMORY, at, bytes);
}

static kt_cu_result outside(const char *what, uint64_t at, uint64_t bytes) {
    char where[128];
    drv_memory_tell(at, where, sizeof where);
    drv_violation("%s 0x%" PRIx64 ", %" PRIu64 " bytes: %s", what, at, bytes, where);
    return DRV_INVALID_VALUE;
}

kt_cu_result drv_copy_check(const drv_copy_work *copy) {
    const struct {
        const char *what;
        uint64_t at;
        bool host;
    } sides[] = {{"to", copy->to, copy->to_host}, {"from", copy->from, copy->from_host}};
    for (int i = 0; i < 2; i++) {
        bool good = sides[i].host
                        ? sides[i].at != 0 && !drv_memory_touches_device(sides[i].at, copy->bytes)
                        : on_device(sides[i].at, copy->bytes);
        if (!good) return outside(sides[i].what, sides[i].at, copy->bytes);
    }
    return KT_CU_SUCCESS;
}

kt_cu_result drv_fill_check(const drv_fill_work *fill) {
    if (fill->to % fill->element_bytes != 0) {
        drv_violation("0x%" PRIx64 " is not aligned to %u", fill->to, fill->element_bytes);
        return DRV_INVALID_VALUE;
    }
    uint64_t bytes = (uint64_t)fill->n * fill->element_bytes;
    return on_device(fill->to, bytes) ? KT_CU_SUCCESS : outside("to", fill->to, bytes);
}

int drv_piece_accesses(const drv_piece *piece, drv_access out[DRV_MAX_ACCESSES]) {
    switch (piece->kind) {
    case DRV_WORK_COPY:
        out[0] = (drv_access){piece->of.copy.to, piece->of.copy.bytes, true};
        out[1] = (drv_access){piece->of.copy.from, piece->of.copy.bytes, false};
        return piece->of.copy.taken != NULL ? 1 : 2;
    case DRV_WORK_FILL:
        out[0] = (drv_access){
            piece->of.fill.to, (uint64_t)piece->of.fill.n * piece->of.fill.element_bytes, true};
        return 1;
    case DRV_WORK_KERNEL:
    case DRV_WORK_RECORD:
    case DRV_WORK_GRAPH:
        break;
    }
    return 0;
}

const drv_access *drv_clash(const drv_access *a, int n_a, const drv_access *b, int n_b) {
    for (int i = 0; i < n_a; i++)
        for (int k = 0; k < n_b; k++)
            if (a[i].at < b[k].at + b[k].bytes && b[k].at < a[i].at + a[i].bytes &&
                (a[i].writes || b[k].writes))
                return &b[k];
    return NULL;
}

bool drv_piece_uses(const drv_piece *piece, uint64_t at, uint64_t bytes) {
    drv_access accesses[DRV_MAX_ACCESSES];
    int n = drv_piece_accesses(piece, accesses);
    for (int i = 0; i < n; i++)
        if (accesses[i].at < at + bytes && at < accesses[i].at + accesses[i].bytes) return true;
    if (piece->kind != DRV_WORK_KERNEL) return false;
    const drv_kernel_work *work = piece->of.kernel;
    for (size_t i = 0; i + 8 <= work->params_bytes; i += 8) {
        uint64_t word;
        memcpy(&word, work->params + i, sizeof word);
        if (word >= at && word - at < bytes) return true;
    }
    return false;
}

static void fill(const drv_fill_work *f) {
    char *to = address(f->to);
    if (f->element_bytes == 1) {
        memset(to, (int)f->value, f->n);
        return;
    }
    for (size_t i = 0; i < f->n; i++)
        memcpy(to + i * f->element_bytes, &f->value, f->element_bytes);
}

// The emulator says in words what is wrong: only whether it was an address matters for the code.
static kt_cu_result code_of(const char *why) {
    static const char *const memory[] = {"no memory is there", "behind the end of", "in front of"};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        if (strstr(why, memory[i]) != NULL) return DRV_ILLEGAL_ADDRESS;
    return DRV_LAUNCH_FAILED;
}

const char *drv_piece_run(const drv_piece *piece, kt_cu_result *code) {
    const char *why = NULL;
    switch (piece->kind) {
    case DRV_WORK_COPY: {
        const drv_copy_work *c = &piece->of.copy;
        memmove(address(c->to), c->taken != NULL ? c->taken : address(c->from), c->bytes);
        return NULL;
    }
    case DRV_WORK_FILL:
        fill(&piece->of.fill);
        return NULL;
    case DRV_WORK_KERNEL:
        drv.counts.kernels_run++; // by this thread alone
        if (emu_run(&piece->of.kernel->launch, &why)) return NULL;
        *code = code_of(why);
        return why;
    case DRV_WORK_RECORD:
    case DRV_WORK_GRAPH:
        break;
    }
    abort();
}

void drv_piece_free(drv_piece *piece) {
    if (piece->kind == DRV_WORK_KERNEL) free(piece->of.kernel);
    if (piece->kind == DRV_WORK_COPY) free(piece->of.copy.taken);
}

// ---- entry points

static void submit(drv_stream *stream, const drv_piece *piece, const char *name) {
    drv_work *work = drv_work_new(piece->kind, name);
    work->piece = *piece;
    work->accesses = drv_new(DRV_MAX_ACCESSES * sizeof *work->accesses);
    work->n_accesses = drv_piece_accesses(piece, work->accesses);
    drv_submit(stream, work);
}

static kt_cu_result upload(kt_dptr to, const void *from, size_t bytes, kt_cu_stream handle) {
    drv_stream *stream = drv_stream_find(handle);
    if (stream == NULL) return DRV_INVALID_HANDLE;
    drv_piece piece = {.kind = DRV_WORK_COPY};
    drv_copy_work *copy = &piece.of.copy;
    *copy = (drv_copy_work){
        .to = to, .from = (uint64_t)(uintptr_t)from, .bytes = bytes, .from_host = true};
    kt_cu_result code = drv_copy_check(copy);
    if (code != KT_CU_SUCCESS) return code;
    drv.counts.copies++;
    bool pinned = drv_memory_has(DRV_PINNED_MEMORY, copy->from, bytes);
    if (!pinned && bytes <= TAKEN_MOST) {
        copy->taken = drv_new(bytes);
        memcpy(copy->taken, from, bytes);
    }
    char name[96];
    (void)snprintf(name, sizeof name, "copy of %zu bytes to the device", bytes);
    submit(stream, &piece, name);
    if (pinned || copy->taken != NULL) return KT_CU_SUCCESS;
    drv_clock clock = *drv_lane_clock(stream->lane);
    return drv_wait_for(&clock);
}

kt_cu_result drv_api_cuMemcpyHtoDAsync(
    kt_dptr to, const void *from, size_t bytes, kt_cu_stream stream) {
    DRV_DO(cuMemcpyHtoDAsync, DRV_CURRENT, upload(to, from, bytes, stream));
}

typedef struct user {
    uint64_t at, bytes;
    bool found;
} user;

static void look_for_use(const drv_work *work, void *ctx) {
    user *u = ctx;
    u->found =
        u->found || (work->kind == DRV_WORK_GRAPH ? drv_graph_run_uses(work->run, u->at, u->bytes)
                                                  : drv_piece_uses(&work->piece, u->at, u->bytes));
}

// Unless work that is pending has to do with it, which may be on purpose.
static void poison(void *to, size_t bytes) {
    user u = {.at = (uint64_t)(uintptr_t)to, .bytes = bytes};
    drv_each_pending(look_for_use, &u);
    if (!u.found) memset(to, (int)drv.profile.poison, bytes);
}

static kt_cu_result download(void *to, kt_dptr from, size_t bytes, kt_cu_stream handle) {
    drv_stream *stream = drv_stream_find(handle);
    if (stream == NULL) return DRV_INVALID_HANDLE;
    drv_piece piece = {.kind = DRV_WORK_COPY};
    piece.of.copy = (drv_copy_work){
        .to = (uint64_t)(uintptr_t)to, .from = from, .bytes = bytes, .to_host = true};
    kt_cu_result code = drv_copy_check(&piece.of.copy);
    if (code != KT_CU_SUCCESS) return code;
    drv.counts.copies++;
    poison(to, bytes);
    char name[96];
    (void)snprintf(name, sizeof name, "copy of %zu bytes from the device", bytes);
    submit(stream, &piece, name);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemcpyDtoHAsync(void *to, kt_dptr from, size_t bytes, kt_cu_stream stream) {
    DRV_DO(cuMemcpyDtoHAsync, DRV_CURRENT, download(to, from, bytes, stream));
}

static kt_cu_result submit_fill(const drv_fill_work *f, kt_cu_stream handle) {
    drv_stream *stream = drv_stream_find(handle);
    if (stream == NULL) return DRV_INVALID_HANDLE;
    kt_cu_result code = drv_fill_check(f);
    if (code != KT_CU_SUCCESS) return code;
    drv.counts.fills++;
    drv_piece piece = {.kind = DRV_WORK_FILL, .of.fill = *f};
    char name[96];
    (void)snprintf(name, sizeof name, "fill of %zu bytes", f->n * f->element_bytes);
    submit(stream, &piece, name);
    return KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuMemsetD8Async(
    kt_dptr to, unsigned char value, size_t n, kt_cu_stream stream) {
    const drv_fill_work f = {to, n, value, 1};
    DRV_DO(cuMemsetD8Async, DRV_CURRENT, submit_fill(&f, stream));
}

kt_cu_result drv_api_cuMemsetD32Async(kt_dptr to, unsigned value, size_t n, kt_cu_stream stream) {
    const drv_fill_work f = {to, n, value, 4};
    DRV_DO(cuMemsetD32Async, DRV_CURRENT, submit_fill(&f, stream));
}
