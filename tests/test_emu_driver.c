// The stand-in driver's checks of memory, streams, contexts, profiles and failures: each is shown
// with a use that it must find. Launches and graphs: test_emu_launch.c. Long: a case a misuse.
#include "runtime/base/os.h"
#include "runtime/gpu/memory.h"
#include "tests/emu_child.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define D emu_d

enum {
    NOT_READY = KT_CU_NOT_READY,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    DESTROYED_CONTEXT = 709,
    NOT_FOUND = 500,
    PINNED_ALREADY = 712,
    NOT_PINNED = 713,
    BYTES = 4096,
};

static kt_cu_stream new_stream(void) {
    kt_cu_stream stream;
    GOOD(D->cuStreamCreate(&stream, 1));
    return stream;
}

static kt_cu_event new_event(unsigned flags) {
    kt_cu_event event;
    GOOD(D->cuEventCreate(&event, flags));
    return event;
}

static kt_dptr new_memory(size_t bytes) {
    kt_dptr at;
    GOOD(D->cuMemAlloc(&at, bytes));
    return at;
}

static void *new_pinned(size_t bytes) {
    void *at;
    GOOD(D->cuMemHostAlloc(&at, bytes, 3));
    return at;
}

static bool all_are(const void *at, size_t n, int value) {
    const unsigned char *bytes = at;
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != (unsigned char)value) return false;
    return true;
}

// A handle where another kind is meant.
static kt_cu_stream as_stream(const void *handle) {
    union {
        const void *in;
        kt_cu_stream out;
    } turn = {.in = handle};
    return turn.out;
}

// ---- handles and contexts

static void handles_are_checked(void) {
    emu_child_open();
    kt_cu_stream stream = new_stream(), other = new_stream();
    kt_cu_event event = new_event(2);
    WRONG(D->cuStreamSynchronize(as_stream(event)), INVALID_HANDLE, "is a event, not a stream");
    WRONG(D->cuEventRecord(NULL, stream), INVALID_HANDLE, "NULL is no event");
    WRONG(D->cuStreamQuery(as_stream("a text")), INVALID_HANDLE, "no handle");
    GOOD(D->cuStreamDestroy(stream));
    WRONG(D->cuStreamSynchronize(stream), INVALID_HANDLE, "exists no more");
    WRONG(D->cuStreamDestroy(stream), INVALID_HANDLE, "exists no more");
    stream = new_stream(); // may have the place of the old one, but not its handle
    GOOD(D->cuStreamSynchronize(stream));
    GOOD(D->cuStreamDestroy(stream));
    GOOD(D->cuStreamDestroy(other));
    GOOD(D->cuEventDestroy(event));
    WRONG(D->cuEventDestroy(event), INVALID_HANDLE, "exists no more");
    MUST(EMU_COUNT(alive) == 1); // the context
    emu_child_close();
    MUST(EMU_COUNT(alive) == 0);
}

static void nothing_works_without_a_context(void) {
    kt_cu_stream stream;
    kt_dptr at;
    emu_child_driver();
    WRONG(D->cuMemAlloc(&at, 16), INVALID_CONTEXT, "no context is current");
    WRONG(D->cuStreamCreate(&stream, 1), INVALID_CONTEXT, "no context is current");
    WRONG(D->cuDevicePrimaryCtxRelease(0), INVALID_CONTEXT, "not retained");
    kt_cu_context context;
    WRONG(D->cuDevicePrimaryCtxRetain(&context, 1), INVALID_DEVICE, "no device 1");
    GOOD(D->cuDevicePrimaryCtxRetain(&context, 0));
    GOOD(D->cuDevicePrimaryCtxRetain(&context, 0));
    GOOD(D->cuCtxSetCurrent(context));
    GOOD(D->cuDevicePrimaryCtxRelease(0));
    GOOD(D->cuCtxSynchronize()); // retained once more
    GOOD(D->cuDevicePrimaryCtxRelease(0));
    WRONG(D->cuCtxSetCurrent(context), INVALID_CONTEXT, "exists no more");
}

static void attach(void *ctx) {
    (void)ctx;
    WRONG(D->cuCtxSynchronize(), INVALID_CONTEXT, "no context is current");
}

static void release(void *ctx) {
    (void)ctx;
    GOOD(D->cuDevicePrimaryCtxRelease(0));
}

// What is current here, another thread releases.
static void a_context_goes_for_all_threads(void) {
    emu_child_open();
    kt_os_thread *thread = kt_os_thread_start(release, NULL, 1 << 20);
    MUST(thread != NULL);
    kt_os_thread_join(thread);
    kt_dptr at;
    WRONG(D->cuMemAlloc(&at, 16), DESTROYED_CONTEXT, "exists no more");
    GOOD(D->cuCtxSetCurrent(NULL));
}

static void a_context_belongs_to_a_thread(void) {
    emu_child_open();
    kt_os_thread *thread = kt_os_thread_start(attach, NULL, 1 << 20);
    MUST(thread != NULL);
    kt_os_thread_join(thread);
    GOOD(D->cuCtxSynchronize());
    emu_child_close();
}

static void what_is_left_is_listed(void) {
    emu_child_open();
    (void)new_stream();
    (void)new_event(0);
    (void)new_memory(100);
    MUST(EMU_COUNT(leaks) == 0);
}

static void what_a_context_leaves_is_listed(void) {
    emu_child_open();
    (void)new_stream();
    (void)new_memory(100);
    emu_child_close();
    MUST(EMU_COUNT(leaks) == 2 && EMU_COUNT(alive) == 0);
    MUST(EMU_COUNT(device_bytes) == 0);
}

static void a_call_before_init_fails(void) {
    kt_driver driver = {0};
    kt_os_library *library = kt_os_library_open("libcuda.so.1", NULL);
    MUST(library != NULL);
    int (*find)(const char *, void **, int, uint64_t, int *) = (int (*)(const char *, void **, int,
        uint64_t, int *))kt_os_library_function(library, "cuGetProcAddress_v2");
    void *at;
    int n, status;
    MUST(find("cuDeviceGetCount", &at, 2000, 0, &status) == 0 && status == 0);
    memcpy(&driver.cuDeviceGetCount, &at, sizeof at);
    MUST(driver.cuDeviceGetCount(&n) == NOT_INITIALIZED);
    MUST(find("cuMemFree", &at, 2000, 0, &status) == NOT_FOUND && status == 2); // 3020 is ours
    MUST(find("cuNothing", &at, 13000, 0, &status) == NOT_FOUND && status == 1 && at == NULL);
    emu_child_open();
    emu_child_close();
}

// ---- memory

static void memory_is_accounted_for(void) {
    emu_child_open();
    size_t free_now, total, later;
    GOOD(D->cuMemGetInfo(&free_now, &total));
    MUST(free_now == (size_t)100 << 20 && total == (size_t)200 << 20);
    kt_dptr a = new_memory((size_t)60 << 20), b, c;
    GOOD(D->cuMemGetInfo(&later, &total));
    MUST(later == (size_t)40 << 20 && a % 256 == 0);
    CODE(D->cuMemAlloc(&b, ((size_t)40 << 20) + 1), OUT_OF_MEMORY);
    b = new_memory((size_t)40 << 20);
    CODE(D->cuMemAlloc(&c, 1), OUT_OF_MEMORY);
    WRONG(D->cuMemAlloc(&c, 0), INVALID_VALUE, "0 bytes");
    GOOD(D->cuMemFree(a));
    GOOD(D->cuMemFree(b));
    GOOD(D->cuMemGetInfo(&later, &total));
    MUST(later == free_now && EMU_COUNT(device_bytes_most) == (size_t)100 << 20);
    emu_child_close();
}

// The driver promises 120 MB and has 50: three times 15 fit.
static void less_memory_than_promised(void) {
    kt_gpu *gpu;
    kt_gpu_block block, second;
    kt_err err;
    emu_child_driver();
    MUST(kt_gpu_open(NULL, &gpu, &err) == KT_OK);
    MUST(kt_gpu_alloc(gpu, "first", KT_GPU_USE_OTHER, 15 << 20, &block, &err) == KT_OK);
    int64_t free_now, total;
    MUST(kt_gpu_memory(gpu, &free_now, &total, &err) == KT_OK && free_now > 100 << 20);
    MUST(kt_gpu_alloc(gpu, "second", KT_GPU_USE_OTHER, 15 << 20, &second, &err) == KT_OK);
    MUST(kt_gpu_alloc(gpu, "third", KT_GPU_USE_OTHER, 15 << 20, &second, &err) == KT_OK);
    MUST(kt_gpu_alloc(gpu, "fourth", KT_GPU_USE_OTHER, 15 << 20, &second, &err) == KT_EMEMORY);
    MUST(strstr(err.text, "fourth") != NULL);
    kt_gpu_close(gpu);
}

static void a_large_card_costs_nothing(void) {
    emu_child_open();
    kt_dptr at = new_memory((size_t)70 << 30);
    kt_cu_stream stream = new_stream();
    unsigned char got[16];
    GOOD(D->cuMemsetD8Async(at + ((size_t)69 << 30), 7, 16, stream));
    GOOD(D->cuMemcpyDtoHAsync(got, at + ((size_t)69 << 30) - 8, 16, stream));
    GOOD(D->cuStreamSynchronize(stream));
    MUST(all_are(got, 8, EMU_POISON) && all_are(got + 8, 8, 7));
    GOOD(D->cuStreamDestroy(stream));
    GOOD(D->cuMemFree(at));
    emu_child_close();
}

static void device_memory_is_checked(void) {
    emu_child_open();
    kt_cu_stream s = new_stream();
    kt_dptr at = new_memory(1000);
    char bytes[1000];
    memset(bytes, 3, sizeof bytes);
    GOOD(D->cuMemcpyHtoDAsync(at, bytes, 1000, s));
    WRONG(D->cuMemcpyHtoDAsync(at + 1, bytes, 1000, s), INVALID_VALUE, "byte 1 of device memory");
    WRONG(D->cuMemcpyDtoHAsync(bytes, at + 1000, 1, s), INVALID_VALUE, "behind the end of device");
    WRONG(D->cuMemsetD8Async(at, 0, 1001, s), INVALID_VALUE, "byte 0 of device memory");
    WRONG(D->cuMemsetD32Async(at + 2, 0, 4, s), INVALID_VALUE, "not aligned to 4");
    WRONG(D->cuMemcpyDtoHAsync(bytes, (kt_dptr)(uintptr_t)bytes, 4, s), INVALID_VALUE,
        "does not know");
    void *wrong;
    memcpy(&wrong, &at, sizeof wrong);
    WRONG(D->cuMemcpyHtoDAsync(at, wrong, 4, s), INVALID_VALUE, "from");
    WRONG(D->cuMemcpyDtoHAsync(wrong, at, 4, s), INVALID_VALUE, "to");
    WRONG(D->cuMemFree(at + 256), INVALID_VALUE, "not what such a call gave");
    GOOD(D->cuMemFree(at));
    WRONG(D->cuMemcpyDtoHAsync(bytes, at, 4, s), INVALID_VALUE, "which was freed");
    WRONG(D->cuMemFree(at), INVALID_VALUE, "which was freed");
    kt_dptr again = new_memory(1000); // never at the same place
    MUST(again != at);
    GOOD(D->cuMemFree(again));
    GOOD(D->cuStreamDestroy(s));
    emu_child_close();
}

static volatile char *host_view(kt_dptr at) {
    volatile char *out;
    memcpy(&out, &at, sizeof out);
    return out;
}

static void the_host_cannot_read_device_memory(void) {
    emu_child_open();
    kt_cu_stream s = new_stream();
    kt_dptr at = new_memory(1000);
    GOOD(D->cuMemsetD8Async(at, 1, 1000, s));
    GOOD(D->cuStreamSynchronize(s));
    // It rests soon; on a busy machine not at once.
    for (int i = 0; i < 100000 && host_view(at)[0] >= 0; i++) kt_os_sleep_us(100);
    (void)printf("survived\n");
}

static void nobody_reads_behind_pinned_memory(void) {
    emu_child_open();
    char *at = new_pinned(1024);
    at[1023] = 1;
    ((volatile char *)at)[1024] = 1;
    (void)printf("survived\n");
}

static void pinned_memory_is_checked(void) {
    emu_child_open();
    char *own = new_pinned(BYTES), *pages = malloc(BYTES);
    kt_cu_stream s = new_stream();
    kt_dptr device, at = new_memory(BYTES);
    MUST(pages != NULL && all_are(own, BYTES, EMU_POISON));
    GOOD(D->cuMemHostGetDevicePointer(&device, own + 16, 0));
    WRONG(D->cuMemHostGetDevicePointer(&device, pages, 0), INVALID_VALUE, "is not pinned memory");
    GOOD(D->cuMemHostRegister(pages, BYTES, 3));
    GOOD(D->cuMemHostGetDevicePointer(&device, pages, 0));
    WRONG(D->cuMemHostRegister(pages + 8, 8, 3), PINNED_ALREADY, "is pinned already");
    void *wrong;
    memcpy(&wrong, &at, sizeof wrong);
    WRONG(D->cuMemHostRegister(wrong, 16, 3), INVALID_VALUE, "no host memory");
    WRONG(D->cuMemHostUnregister(own), NOT_PINNED, "not what such a call gave");
    WRONG(D->cuMemFreeHost(pages), INVALID_VALUE, "not what such a call gave");
    GOOD(D->cuMemcpyHtoDAsync(at, pages, BYTES, s));
    WRONG(D->cuMemHostUnregister(pages), 0, "still used by work that is pending");
    GOOD(D->cuMemcpyHtoDAsync(at, own, BYTES, s));
    WRONG(D->cuMemFreeHost(own), 0, "still used by work that is pending");
    free(pages);
    GOOD(D->cuMemFree(at));
    GOOD(D->cuStreamDestroy(s));
    emu_child_close();
}

// ---- streams

static void a_missing_wait_shows(void) {
    emu_child_open();
    kt_cu_stream s = new_stream();
    kt_dptr at = new_memory(BYTES);
    unsigned char *pinned = new_pinned(BYTES), host[64];
    memset(pinned, 1, BYTES);
    memset(host, 2, sizeof host);
    GOOD(D->cuMemsetD8Async(at, 9, BYTES, s));
    GOOD(D->cuMemcpyDtoHAsync(host, at, sizeof host, s));
    MUST(all_are(host, sizeof host, EMU_POISON));
    GOOD(D->cuStreamSynchronize(s));
    MUST(all_are(host, sizeof host, 9));
    // From pinned memory when it is done, from other memory at the call.
    GOOD(D->cuMemcpyHtoDAsync(at, pinned, 64, s));
    GOOD(D->cuMemcpyHtoDAsync(at + 64, host, 64, s));
    memset(pinned, 5, 64);
    memset(host, 6, sizeof host);
    GOOD(D->cuMemcpyDtoHAsync(pinned + 64, at, 128, s));
    GOOD(D->cuStreamSynchronize(s));
    MUST(all_are(pinned + 64, 64, 5) && all_are(pinned + 128, 64, 9));
    // Freeing device memory waits for what is pending.
    GOOD(D->cuMemcpyDtoHAsync(pinned, at, 64, s));
    GOOD(D->cuMemFree(at));
    MUST(all_are(pinned, 64, 5));
    GOOD(D->cuMemFreeHost(pinned));
    GOOD(D->cuStreamDestroy(s));
    emu_child_close();
}

static void queries_are_honest(void) {
    emu_child_open();
    kt_cu_stream s = new_stream();
    kt_dptr at = new_memory(BYTES);
    kt_cu_event event = new_event(2);
    int n_asked = 0, code;
    GOOD(D->cuEventQuery(event)); // never recorded
    for (int i = 0; i < 20; i++) GOOD(D->cuMemsetD8Async(at, 1, BYTES, s));
    GOOD(D->cuEventRecord(event, s));
    for (code = NOT_READY; code == NOT_READY; n_asked++) code = D->cuEventQuery(event);
    MUST(code == 0 && n_asked > 3); // 20 works, two at a time at most
    GOOD(D->cuMemsetD8Async(at, 1, BYTES, s));
    GOOD(D->cuStreamSynchronize(s));
    GOOD(D->cuStreamQuery(s)); // known to be done
    GOOD(D->cuEventQuery(event));
    GOOD(D->cuEventDestroy(event));
    GOOD(D->cuStreamDestroy(s));
    GOOD(D->cuMemFree(at));
    emu_child_close();
}

// Two fills of one place: which is last, when nothing says so?
static int last_of_two(kt_cu_stream a, kt_cu_stream b, kt_cu_event order, kt_dptr at) {
    unsigned char got;
    GOOD(D->cuMemsetD8Async(at, 1, 1, a));
    if (order != NULL) {
        GOOD(D->cuEventRecord(order, a));
        GOOD(D->cuStreamWaitEvent(b, order, 0));
    }
    GOOD(D->cuMemsetD8Async(at, 2, 1, b));
    GOOD(D->cuCtxSynchronize());
    GOOD(D->cuMemcpyDtoHAsync(&got, at, 1, a));
    GOOD(D->cuStreamSynchronize(a));
    return got;
}

static void missing_order_is_found(void) {
    emu_child_open();
    kt_cu_stream a = new_stream(), b = new_stream();
    kt_cu_event order = new_event(2);
    kt_dptr at = new_memory(BYTES);
    for (int i = 0; i < 50; i++) MUST(last_of_two(a, b, order, at) == 2);
    MUST(EMU_COUNT(violations) == 0);
    int n_first = 0;
    for (int i = 0; i < 50; i++) {
        n_first += last_of_two(a, b, NULL, at) == 1;
        WRONG(0, 0, "no event orders them");
    }
    MUST(n_first > 5 && n_first < 45); // both happen
    // However many there were since.
    GOOD(D->cuMemsetD8Async(at, 1, 1, a));
    for (int i = 0; i < 200; i++) GOOD(D->cuMemsetD8Async(at + 16, 1, 1, a));
    WRONG(D->cuMemsetD8Async(at, 2, 1, b), 0, "no event orders them");
    GOOD(D->cuCtxSynchronize());
    // Reading twice needs no order, and other bytes neither.
    unsigned char got[8];
    GOOD(D->cuMemcpyDtoHAsync(got, at, 4, a));
    GOOD(D->cuMemcpyDtoHAsync(got + 4, at, 4, b));
    GOOD(D->cuMemsetD8Async(at + 8, 0, 4, a));
    GOOD(D->cuMemsetD8Async(at + 12, 0, 4, b));
    MUST(EMU_COUNT(violations) == 0);
    // What the host has waited for is before all that it submits then.
    GOOD(D->cuStreamSynchronize(a));
    GOOD(D->cuMemsetD8Async(at + 8, 0, 4, b));
    MUST(EMU_COUNT(violations) == 0);
    GOOD(D->cuEventDestroy(order));
    GOOD(D->cuStreamDestroy(a));
    GOOD(D->cuStreamDestroy(b));
    GOOD(D->cuMemFree(at));
    emu_child_close();
}

// An event orders what was recorded, not what came to the stream later.
static void an_event_holds_its_moment(void) {
    emu_child_open();
    kt_cu_stream a = new_stream(), b = new_stream();
    kt_cu_event event = new_event(2);
    kt_dptr at = new_memory(BYTES);
    GOOD(D->cuEventRecord(event, a));
    GOOD(D->cuMemsetD8Async(at, 1, 1, a));
    GOOD(D->cuStreamWaitEvent(b, event, 0));
    WRONG(D->cuMemsetD8Async(at, 2, 1, b), 0, "no event orders them");
    GOOD(D->cuCtxSynchronize());
    GOOD(D->cuEventDestroy(event));
    GOOD(D->cuStreamDestroy(a));
    GOOD(D->cuStreamDestroy(b));
    GOOD(D->cuMemFree(at));
    emu_child_close();
}

static void stream_0_waits_for_the_others(void) {
    emu_child_open();
    kt_cu_stream blocking, free_one = new_stream();
    GOOD(D->cuStreamCreate(&blocking, 0));
    kt_dptr at = new_memory(BYTES);
    unsigned char got[3];
    GOOD(D->cuMemsetD8Async(at, 1, 3, blocking));
    GOOD(D->cuMemsetD8Async(at + 1, 2, 2, NULL));
    GOOD(D->cuMemsetD8Async(at + 2, 3, 1, blocking));
    MUST(EMU_COUNT(violations) == 0);
    WRONG(D->cuMemcpyDtoHAsync(got, at, 3, free_one), 0, "no event orders them");
    GOOD(D->cuCtxSynchronize());
    GOOD(D->cuMemcpyDtoHAsync(got, at, 3, free_one));
    GOOD(D->cuStreamSynchronize(free_one));
    MUST(got[0] == 1 && got[1] == 2 && got[2] == 3);
    GOOD(D->cuStreamDestroy(blocking));
    GOOD(D->cuStreamDestroy(free_one));
    GOOD(D->cuMemFree(at));
    emu_child_close();
}

static void times_are_measured(void) {
    emu_child_open();
    kt_cu_stream s = new_stream();
    kt_cu_event a = new_event(0), b = new_event(0), untimed = new_event(2);
    float ms = -1;
    WRONG(D->cuEventElapsedTime(&ms, a, b), INVALID_HANDLE, "never recorded");
    GOOD(D->cuEventRecord(a, s));
    GOOD(D->cuEventRecord(b, s));
    GOOD(D->cuEventRecord(untimed, s));
    CODE(D->cuEventElapsedTime(&ms, a, b), NOT_READY);
    GOOD(D->cuEventSynchronize(untimed));
    GOOD(D->cuEventElapsedTime(&ms, a, b));
    MUST(ms >= 0 && ms < 1000);
    WRONG(D->cuEventElapsedTime(&ms, a, untimed), INVALID_HANDLE, "not timed");
    GOOD(D->cuEventDestroy(a));
    GOOD(D->cuEventDestroy(b));
    GOOD(D->cuEventDestroy(untimed));
    GOOD(D->cuStreamDestroy(s));
    emu_child_close();
}

// Nobody waits or asks: after a moment it is done nevertheless, and a picture of it arrives.
static void work_goes_on_by_itself(void) {
    emu_child_open();
    emu_ctl.lazy(false);
    kt_cu_stream s = new_stream();
    kt_dptr at = new_memory(BYTES);
    volatile unsigned char *pinned = new_pinned(BYTES);
    GOOD(D->cuMemsetD8Async(at, 9, BYTES, s));
    union {
        volatile unsigned char *in;
        void *out;
    } lend = {.in = pinned};
    GOOD(D->cuMemcpyDtoHAsync(lend.out, at, BYTES, s));
    for (int i = 0; i < 200000 && pinned[BYTES - 1] != 9; i++) kt_os_sleep_us(100);
    MUST(pinned[0] == 9 && pinned[BYTES - 1] == 9);
    GOOD(D->cuMemFreeHost(lend.out));
    GOOD(D->cuMemFree(at));
    GOOD(D->cuStreamDestroy(s));
    emu_child_close();
}

typedef struct worker {
    kt_cu_context context;
    int number;
    kt_os_thread *thread;
} worker;

static void copy_round(void *ctx) {
    const worker *w = ctx;
    GOOD(D->cuCtxSetCurrent(w->context));
    kt_cu_stream s = new_stream();
    kt_dptr at = new_memory(BYTES);
    unsigned char got[BYTES];
    for (int i = 0; i < 100; i++) {
        int value = (w->number * 31 + i) & 127;
        GOOD(D->cuMemsetD8Async(at, (unsigned char)value, BYTES, s));
        GOOD(D->cuMemcpyDtoHAsync(got, at, BYTES, s));
        GOOD(D->cuStreamSynchronize(s));
        MUST(all_are(got, BYTES, value));
    }
    GOOD(D->cuStreamDestroy(s));
    GOOD(D->cuMemFree(at));
}

static void threads_work_side_by_side(void) {
    emu_child_open();
    worker workers[4];
    for (int i = 0; i < 4; i++) {
        workers[i].number = i;
        GOOD(D->cuDevicePrimaryCtxRetain(&workers[i].context, 0));
        GOOD(D->cuDevicePrimaryCtxRelease(0));
        workers[i].thread = kt_os_thread_start(copy_round, &workers[i], 1 << 20);
        MUST(workers[i].thread != NULL);
    }
    for (int i = 0; i < 4; i++) kt_os_thread_join(workers[i].thread);
    emu_child_close();
}

static void there_are_enough_streams(void) {
    emu_child_open();
    kt_cu_stream streams[64], more;
    for (int i = 0; i < 64; i++) streams[i] = new_stream();
    WRONG(D->cuStreamCreate(&more, 1), OUT_OF_MEMORY, "no more than 64");
    for (int i = 0; i < 64; i++) GOOD(D->cuStreamDestroy(streams[i]));
    for (int i = 0; i < 200; i++) GOOD(D->cuStreamDestroy(new_stream()));
    emu_child_close();
}

// ---- devices

static int attribute(int number) {
    int value = -1;
    GOOD(D->cuDeviceGetAttribute(&value, number, 0));
    return value;
}

static void the_usual_device(void) {
    emu_child_open();
    MUST(attribute(KT_CU_ATTR_CC_MAJOR) == 8 && attribute(KT_CU_ATTR_CC_MINOR) == 9);
    MUST(attribute(KT_CU_ATTR_SM_COUNT) == 24 && attribute(KT_CU_ATTR_KERNEL_TIMEOUT) == 0);
    MUST(attribute(KT_CU_ATTR_SHARED_OPTIN) == 99 * 1024);
    int value;
    WRONG(D->cuDeviceGetAttribute(&value, 12345, 0), INVALID_VALUE, "attribute 12345");
    MUST(D->version == 13000);
    emu_child_close();
}

static void other_devices(void) {
    emu_child_open();
    MUST(attribute(KT_CU_ATTR_CC_MAJOR) == 9 && attribute(KT_CU_ATTR_SM_COUNT) == 100);
    MUST(attribute(KT_CU_ATTR_SHARED_OPTIN) == 227 * 1024);
    MUST(attribute(KT_CU_ATTR_KERNEL_TIMEOUT) == 1);
    size_t total;
    GOOD(D->cuDeviceTotalMem(&total, 0));
    MUST(total > (size_t)75 << 30);
    emu_child_close();
}

static void no_device(void) {
    kt_gpu *gpu;
    kt_err err;
    MUST(kt_gpu_open(NULL, &gpu, &err) == KT_EDRIVER);
    MUST(strstr(err.text, "found no NVIDIA GPU") != NULL);
}

static void a_driver_of_12_0(void) {
    kt_gpu *gpu;
    kt_err err;
    emu_child_driver();
    MUST(D->version == 12000 && D->cuFuncLoad == NULL && D->cuKernelGetParamInfo == NULL);
    MUST(D->cuGreenCtxCreate == NULL && D->cuMemHostRegister != NULL);
    MUST(kt_gpu_open(NULL, &gpu, &err) == KT_OK);
    kt_gpu_pinned pinned;
    MUST(kt_gpu_pin(gpu, "ring", 4 << 20, &pinned, &err) == KT_OK);
    kt_gpu_close(gpu);
    const kt_gpu_options options = {.green_sms = 8};
    MUST(kt_gpu_open(&options, &gpu, &err) == KT_EDRIVER && strstr(err.text, "12.5") != NULL);
}

static void a_driver_of_12_4(void) {
    emu_child_open();
    MUST(D->version == 12040 && D->cuFuncLoad != NULL && D->cuGreenCtxCreate != NULL);
    MUST(D->cuGreenCtxStreamCreate == NULL);
    emu_child_close();
}

static void a_driver_that_is_too_old(void) {
    kt_gpu *gpu;
    kt_err err;
    MUST(kt_gpu_open(NULL, &gpu, &err) == KT_EDRIVER && strstr(err.text, "too old") != NULL);
}

static void functions_may_be_missing(void) {
    kt_gpu *gpu;
    kt_err err;
    emu_child_driver();
    MUST(D->cuFuncLoad == NULL && D->cuMemHostRegister == NULL && D->cuMemHostUnregister != NULL);
    MUST(kt_gpu_open(NULL, &gpu, &err) == KT_OK);
    kt_gpu_pinned pinned; // the driver's own allocation instead
    MUST(kt_gpu_pin(gpu, "ring", 4 << 20, &pinned, &err) == KT_OK);
    MUST(emu_ctl.calls("cuMemHostAlloc") == 1);
    kt_gpu_close(gpu);
}

static void a_required_function_is_missing(void) {
    kt_gpu *gpu;
    kt_err err;
    MUST(kt_gpu_open(NULL, &gpu, &err) == KT_EDRIVER);
    MUST(strstr(err.text, "lacks cuGraphLaunch") != NULL);
}

static void open_gpu(void *ctx) {
    kt_err err;
    kt_gpu_block block;
    MUST(kt_gpu_open(NULL, (kt_gpu **)ctx, &err) == KT_OK);
    MUST(kt_gpu_alloc(*(kt_gpu **)ctx, "block", KT_GPU_USE_OTHER, 100, &block, &err) == KT_OK);
}

// As a run that fails before its first launch does.
static void a_gpu_is_closed_by_another_thread(void) {
    kt_gpu *gpu = NULL;
    emu_child_driver();
    kt_os_thread *thread = kt_os_thread_start(open_gpu, &gpu, 1 << 20);
    MUST(thread != NULL);
    kt_os_thread_join(thread);
    kt_gpu_close(gpu);
    MUST(EMU_COUNT(violations) == 0 && EMU_COUNT(alive) == 0 && EMU_COUNT(leaks) == 0);
}

// ---- shares of a device

static void shares_of_a_device(void) {
    emu_child_open();
    kt_cu_resource all, part, rest;
    kt_cu_desc desc;
    kt_cu_green green;
    kt_cu_context context;
    kt_cu_stream stream;
    unsigned n = 1;
    GOOD(D->cuDeviceGetDevResource(0, &all, 1));
    MUST(all.of.sm.sm_count == 132);
    kt_cu_event event = new_event(2); // of the primary context
    GOOD(D->cuDevSmResourceSplitByCount(&part, &n, &all, &rest, 0, 20));
    MUST(n == 1 && part.of.sm.sm_count == 24 && rest.of.sm.sm_count == 108); // eights
    GOOD(D->cuDevResourceGenerateDesc(&desc, &part, 1));
    WRONG(D->cuGreenCtxCreate(&green, desc, 0, 0), INVALID_VALUE, "flags 0");
    GOOD(D->cuGreenCtxCreate(&green, desc, 0, 1));
    GOOD(D->cuCtxFromGreenCtx(&context, green));
    GOOD(D->cuCtxSetCurrent(context));
    WRONG(D->cuGreenCtxStreamCreate(&stream, green, 0, 0), INVALID_VALUE, "flags 0");
    GOOD(D->cuGreenCtxStreamCreate(&stream, green, 1, 0));
    kt_dptr at = new_memory(BYTES);
    GOOD(D->cuMemsetD8Async(at, 1, BYTES, stream));
    GOOD(D->cuStreamSynchronize(stream));
    WRONG(D->cuEventRecord(event, stream), INVALID_HANDLE, "of different contexts");
    GOOD(D->cuStreamWaitEvent(stream, event, 0));
    GOOD(D->cuEventDestroy(event));
    GOOD(D->cuMemFree(at));
    GOOD(D->cuStreamDestroy(stream));
    GOOD(D->cuGreenCtxDestroy(green));
    WRONG(D->cuGreenCtxDestroy(green), INVALID_HANDLE, "exists no more");
    WRONG(D->cuCtxSetCurrent(context), INVALID_CONTEXT, "exists no more");
    kt_cu_resource both[2] = {all, part};
    WRONG(D->cuDevResourceGenerateDesc(&desc, both, 2), INVALID_VALUE, "156 SMs");
    emu_child_close();
}

// ---- failures

static void calls_fail_when_told(void) {
    emu_child_open();
    kt_dptr a = new_memory(16), b; // the first of three; "cuMemAlloc:2"
    CODE(D->cuMemAlloc(&b, 16), OUT_OF_MEMORY);
    b = new_memory(16);
    MUST(EMU_COUNT(failures_fired) == 1 && EMU_COUNT(alive) == 3);
    MUST(emu_ctl.fail("cuMemFree:1:999,alloc:2,call:4:304"));
    CODE(D->cuMemFree(a), 999); // but it is freed
    MUST(EMU_COUNT(alive) == 2);
    void *host = new_pinned(16), *second;
    CODE(D->cuMemHostAlloc(&second, 16, 0), OUT_OF_MEMORY);
    CODE(D->cuMemFree(b), 304); // the fourth call
    MUST(EMU_COUNT(failures_fired) == 4 && EMU_COUNT(violations) == 0);
    MUST(!emu_ctl.fail("cuNothing:1") && !emu_ctl.fail("call:0") && !emu_ctl.fail("call:x"));
    MUST(!emu_ctl.fail("call:1:2:3:4") && emu_ctl.fail("nvrtc:1"));
    GOOD(D->cuMemFreeHost(host));
    emu_child_close();
}

static void some_failures_stay(void) {
    emu_child_open();
    kt_cu_stream s = new_stream();
    kt_dptr at = new_memory(16), more;
    MUST(emu_ctl.fail("cuStreamSynchronize:2:sticky"));
    GOOD(D->cuStreamSynchronize(s));
    CODE(D->cuStreamSynchronize(s), 719);
    CODE(D->cuMemAlloc(&more, 16), 719);
    CODE(D->cuCtxSynchronize(), 719);
    CODE(D->cuEventQuery(NULL), 719);
    CODE(D->cuStreamDestroy(s), 719);
    CODE(D->cuMemFree(at), 719);
    CODE(D->cuDevicePrimaryCtxRelease(0), 719);
    MUST(EMU_COUNT(alive) == 0);
}

static void the_first_call_fails(void) {
    kt_gpu *gpu;
    kt_err err;
    MUST(kt_gpu_open(NULL, &gpu, &err) != KT_OK && strstr(err.text, "999") != NULL);
}

// ---- all

static const emu_child_case cases[] = {
    {"handles_are_checked", handles_are_checked, {NULL}, 0, {NULL}},
    {"nothing_works_without_a_context", nothing_works_without_a_context, {NULL}, 0, {NULL}},
    {"a_context_belongs_to_a_thread", a_context_belongs_to_a_thread, {NULL}, 0, {NULL}},
    {"a_context_goes_for_all_threads", a_context_goes_for_all_threads, {NULL}, 0, {NULL}},
    {"what_is_left_is_listed", what_is_left_is_listed, {NULL}, EMU_STRICT_EXIT,
        {"never released: stream", "never released: device memory 1 (100 bytes)", "4 leaks"}},
    {"what_a_context_leaves_is_listed", what_a_context_leaves_is_listed, {NULL}, EMU_STRICT_EXIT,
        {"at the end of its context", "device memory 1 (100 bytes)", "2 leaks"}},
    {"a_call_before_init_fails", a_call_before_init_fails, {NULL}, 0, {NULL}},
    {"memory_is_accounted_for", memory_is_accounted_for,
        {"KOTARO_EMU_DEVICE=memory=209715200,free=104857600"}, 0, {NULL}},
    {"less_memory_than_promised", less_memory_than_promised,
        {"KOTARO_EMU_DEVICE=free=52428800,promised=125829120"}, 0, {NULL}},
    {"a_large_card_costs_nothing", a_large_card_costs_nothing, {"KOTARO_EMU_DEVICE=h100"}, 0,
        {NULL}},
    {"device_memory_is_checked", device_memory_is_checked, {NULL}, 0, {NULL}},
    {"the_host_cannot_read_device_memory", the_host_cannot_read_device_memory, {NULL},
        EMU_CHILD_CRASH, {NULL}},
    {"nobody_reads_behind_pinned_memory", nobody_reads_behind_pinned_memory, {NULL},
        EMU_CHILD_CRASH, {NULL}},
    {"pinned_memory_is_checked", pinned_memory_is_checked, {NULL}, 0, {NULL}},
    {"a_missing_wait_shows", a_missing_wait_shows, {NULL}, 0, {NULL}},
    {"queries_are_honest", queries_are_honest, {NULL}, 0, {NULL}},
    {"missing_order_is_found", missing_order_is_found, {NULL}, 0, {NULL}},
    {"missing_order_is_found_2", missing_order_is_found, {"KOTARO_EMU_SEED=2"}, 0, {NULL}},
    {"an_event_holds_its_moment", an_event_holds_its_moment, {NULL}, 0, {NULL}},
    {"stream_0_waits_for_the_others", stream_0_waits_for_the_others, {NULL}, 0, {NULL}},
    {"times_are_measured", times_are_measured, {NULL}, 0, {NULL}},
    {"work_goes_on_by_itself", work_goes_on_by_itself, {NULL}, 0, {NULL}},
    {"threads_work_side_by_side", threads_work_side_by_side, {NULL}, 0, {NULL}},
    {"there_are_enough_streams", there_are_enough_streams, {NULL}, 0, {NULL}},
    {"the_usual_device", the_usual_device, {NULL}, 0, {NULL}},
    {"other_devices", other_devices, {"KOTARO_EMU_DEVICE=h100,sms=100,timeout=1"}, 0, {NULL}},
    {"no_device", no_device, {"KOTARO_EMU_DEVICE=count=0"}, 0, {NULL}},
    {"a_driver_of_12_0", a_driver_of_12_0, {"KOTARO_EMU_DEVICE=driver=12000"}, 0, {NULL}},
    {"a_driver_of_12_4", a_driver_of_12_4, {"KOTARO_EMU_DEVICE=rtx4060,driver=12040"}, 0, {NULL}},
    {"a_driver_that_is_too_old", a_driver_that_is_too_old, {"KOTARO_EMU_DEVICE=driver=11080"}, 0,
        {NULL}},
    {"functions_may_be_missing", functions_may_be_missing,
        {"KOTARO_EMU_DEVICE=missing=cuFuncLoad+cuMemHostRegister"}, 0, {NULL}},
    {"a_required_function_is_missing", a_required_function_is_missing,
        {"KOTARO_EMU_DEVICE=missing=cuGraphLaunch"}, 0, {NULL}},
    {"an_unknown_device_is_refused", no_device, {"KOTARO_EMU_DEVICE=gtx"}, EMU_STRICT_EXIT,
        {"KOTARO_EMU_DEVICE=gtx is not understood"}},
    {"an_unknown_failure_is_refused", no_device, {"KOTARO_EMU_FAIL=cuMemAloc:1"}, EMU_STRICT_EXIT,
        {"KOTARO_EMU_FAIL=cuMemAloc:1 is not understood: NAME:N of a function"}},
    {"an_unknown_mode_is_refused", no_device, {"KOTARO_EMU=chekced"}, EMU_STRICT_EXIT,
        {"KOTARO_EMU=chekced is not understood: it is one of checked, plain, asan"}},
    {"a_seed_is_a_number", no_device, {"KOTARO_EMU_SEED=1x"}, EMU_STRICT_EXIT,
        {"KOTARO_EMU_SEED=1x is not understood: it is a number"}},
    {"orders_are_a_number", no_device, {"KOTARO_EMU_ORDERS=-3"}, EMU_STRICT_EXIT,
        {"KOTARO_EMU_ORDERS=-3 is not understood"}},
    {"a_card_has_processors", no_device, {"KOTARO_EMU_DEVICE=a100,sms=0"}, EMU_STRICT_EXIT,
        {"KOTARO_EMU_DEVICE=a100,sms=0 is not understood"}},
    {"a_gpu_is_closed_by_another_thread", a_gpu_is_closed_by_another_thread, {NULL}, 0, {NULL}},
    {"shares_of_a_device", shares_of_a_device, {"KOTARO_EMU_DEVICE=h100"}, 0, {NULL}},
    {"calls_fail_when_told", calls_fail_when_told, {"KOTARO_EMU_FAIL=cuMemAlloc:2"}, 0, {NULL}},
    {"some_failures_stay", some_failures_stay, {NULL}, 0, {NULL}},
    {"the_first_call_fails", the_first_call_fails, {"KOTARO_EMU_FAIL=call:1:999"}, 0, {NULL}},
};

int main(int argc, char **argv) {
    return emu_child_main(argc, argv, "emu_driver", cases, (int)(sizeof cases / sizeof cases[0]));
}
