// The stand-in driver's checks of modules, launches and graphs, and its counts: each is shown with
// a use that it must find. The rest: test_emu_driver.c. Long, as the cases share what they open.
#include "runtime/base/os.h"
#include "tests/emu_child.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define D emu_d

enum {
    INVALID_VALUE = 1,
    INVALID_IMAGE = 200,
    NO_BINARY = 209,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    OUT_OF_RESOURCES = 701,
    NOT_SUPPORTED = 801,
    ATTR_MAX_THREADS = 0,
    ATTR_MAX_DYNAMIC = 8,
};

// What most cases need.
typedef struct rig {
    kt_cu_stream s;
    kt_dptr at; // 64 ints, 0
    kt_cu_library library;
} rig;

static rig open_rig(int sm) {
    rig r;
    emu_child_open();
    GOOD(D->cuStreamCreate(&r.s, 1));
    GOOD(D->cuMemAlloc(&r.at, 256));
    GOOD(D->cuMemsetD32Async(r.at, 0, 64, r.s));
    GOOD(D->cuStreamSynchronize(r.s));
    r.library = emu_child_library(sm);
    return r;
}

static void close_rig(rig *r) {
    GOOD(D->cuStreamSynchronize(r->s));
    GOOD(D->cuLibraryUnload(r->library));
    GOOD(D->cuMemFree(r->at));
    GOOD(D->cuStreamDestroy(r->s));
    emu_child_close();
}

static int value_at(const rig *r, int index) {
    int got = -1;
    GOOD(D->cuMemcpyDtoHAsync(&got, r->at + 4 * (uint64_t)index, 4, r->s));
    GOOD(D->cuStreamSynchronize(r->s));
    return got;
}

// ---- modules

static void images_are_looked_at(void) {
    emu_child_open();
    kt_cu_library library;
    int option = 1;
    void *value = NULL;
    CODE(D->cuLibraryLoadData(&library, emu_child_image(90, NULL), NULL, NULL, 0, NULL, NULL, 0),
        NO_BINARY);
    CODE(D->cuLibraryLoadData(&library, emu_child_image(120, NULL), NULL, NULL, 0, NULL, NULL, 0),
        NO_BINARY);
    unsigned char garbage[256] = "no image";
    CODE(D->cuLibraryLoadData(&library, garbage, NULL, NULL, 0, NULL, NULL, 0), INVALID_IMAGE);
    WRONG(D->cuLibraryLoadData(
              &library, emu_child_image(89, NULL), &option, &value, 1, NULL, NULL, 0),
        INVALID_VALUE, "takes no options");
    // An older minor version of the same major one runs.
    GOOD(D->cuLibraryLoadData(&library, emu_child_image(86, NULL), NULL, NULL, 0, NULL, NULL, 0));
    GOOD(D->cuLibraryUnload(library));
    WRONG(D->cuLibraryUnload(library), INVALID_HANDLE, "exists no more");
    emu_child_close();
}

// The two share a cache: the second gets what the first one compiled, for another mode.
static void the_first_of_two_modes(void) {
    emu_child_driver();
    (void)emu_child_image(89, "shared");
}

static void the_second_of_two_modes(void) {
    emu_child_open();
    kt_cu_library library;
    CODE(
        D->cuLibraryLoadData(&library, emu_child_image(89, "shared"), NULL, NULL, 0, NULL, NULL, 0),
        INVALID_IMAGE);
    emu_child_close();
}

// Loaded again and again, a module is the one that was asked for.
static void modules_do_not_mix(void) {
    rig r = open_rig(89);
    kt_cu_library old = emu_child_library(86);
    kt_cu_function a = emu_child_function(r.library, "kt_plus");
    for (int i = 0; i < 30; i++) {
        kt_cu_library again = emu_child_library(i % 2 == 0 ? 89 : 86);
        kt_cu_function b = emu_child_function(again, "kt_plus");
        int one = 1;
        void *params[] = {&r.at, &one};
        GOOD(emu_child_launch(r.s, a, 1, 1, params));
        GOOD(emu_child_launch(r.s, b, 1, 1, params));
        GOOD(D->cuStreamSynchronize(r.s));
        GOOD(D->cuLibraryUnload(again));
        WRONG(emu_child_launch(r.s, b, 1, 1, params), INVALID_HANDLE, "exists no more");
    }
    MUST(value_at(&r, 0) == 60);
    GOOD(D->cuLibraryUnload(old));
    close_rig(&r);
}

static void kernels_have_limits(void) {
    rig r = open_rig(89);
    kt_cu_kernel kernel, small = emu_child_kernel(r.library, "kt_small");
    int value;
    size_t offset, bytes;
    CODE(D->cuLibraryGetKernel(&kernel, r.library, "kt_none"), NOT_FOUND);
    kernel = emu_child_kernel(r.library, "kt_fill");
    GOOD(D->cuKernelGetAttribute(&value, ATTR_MAX_THREADS, kernel, 0));
    MUST(value == 1024);
    GOOD(D->cuKernelGetAttribute(&value, ATTR_MAX_THREADS, small, 0));
    MUST(value == 64);
    GOOD(D->cuKernelGetParamInfo(kernel, 2, &offset, &bytes));
    MUST(offset == 12 && bytes == 4);
    CODE(D->cuKernelGetParamInfo(kernel, 3, &offset, &bytes), INVALID_VALUE);
    GOOD(D->cuKernelSetAttribute(ATTR_MAX_DYNAMIC, 99 * 1024, kernel, 0));
    GOOD(D->cuKernelGetAttribute(&value, ATTR_MAX_DYNAMIC, kernel, 0));
    MUST(value == 99 * 1024);
    WRONG(D->cuKernelSetAttribute(ATTR_MAX_DYNAMIC, 99 * 1024 + 1, kernel, 0), INVALID_VALUE,
        "at most 101376 bytes");
    close_rig(&r);
}

static void a_large_device_gives_more(void) {
    rig r = open_rig(90);
    kt_cu_kernel kernel = emu_child_kernel(r.library, "kt_fill");
    GOOD(D->cuKernelSetAttribute(ATTR_MAX_DYNAMIC, 227 * 1024, kernel, 0));
    WRONG(D->cuKernelSetAttribute(ATTR_MAX_DYNAMIC, 227 * 1024 + 1, kernel, 0), INVALID_VALUE,
        "at most 232448 bytes");
    close_rig(&r);
}

// ---- launches

typedef struct shape {
    unsigned grid[3], block[3], shared;
    int code;
    const char *complaint;
} shape;

static void launches_are_looked_at(void) {
    static const shape shapes[] = {
        {{0, 1, 1}, {32, 1, 1}, 0, INVALID_VALUE, "no extent"},
        {{1, 1, 1}, {32, 0, 1}, 0, INVALID_VALUE, "no extent"},
        {{1, 65536, 1}, {32, 1, 1}, 0, INVALID_VALUE, "a grid larger"},
        {{1, 1, 65536}, {32, 1, 1}, 0, INVALID_VALUE, "a grid larger"},
        {{1U << 31, 1, 1}, {32, 1, 1}, 0, INVALID_VALUE, "a grid larger"},
        {{1, 1, 1}, {1025, 1, 1}, 0, INVALID_VALUE, "a block larger"},
        {{1, 1, 1}, {32, 32, 2}, 0, INVALID_VALUE, "a block larger"},
        {{1, 1, 1}, {1, 1, 65}, 0, INVALID_VALUE, "a block larger"},
        {{1, 1, 1}, {65, 1, 1}, 0, OUT_OF_RESOURCES, "__launch_bounds__"},
        {{1, 1, 1}, {64, 1, 1}, 48 * 1024 + 1, INVALID_VALUE, "more shared memory"},
        {{1, 1, 1}, {64, 1, 1}, 48 * 1024, 0, ""},
        {{3, 2, 2}, {4, 4, 4}, 0, 0, ""},
    };
    rig r = open_rig(89);
    kt_cu_function small = emu_child_function(r.library, "kt_small");
    void *params[] = {&r.at}, *none[] = {NULL};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        kt_cu_launch_config config = {.shared_bytes = shapes[i].shared, .stream = r.s};
        memcpy(config.grid, shapes[i].grid, sizeof config.grid);
        memcpy(config.block, shapes[i].block, sizeof config.block);
        WRONG(
            D->cuLaunchKernelEx(&config, small, params, NULL), shapes[i].code, shapes[i].complaint);
    }
    WRONG(emu_child_launch(r.s, small, 1, 1, none), INVALID_VALUE, "parameters are missing");
    const kt_cu_launch_config config = {.grid = {1, 1, 1}, .block = {1, 1, 1}, .stream = r.s};
    WRONG(D->cuLaunchKernelEx(&config, small, params, params), NOT_SUPPORTED, "one by one");
    MUST(EMU_COUNT(kernel_launches) == 2);
    MUST(value_at(&r, 0) == 1 && EMU_COUNT(kernels_run) == 2);
    close_rig(&r);
}

static void shared_memory_needs_leave(void) {
    rig r = open_rig(89);
    kt_cu_function function = emu_child_function(r.library, "kt_shared_dynamic");
    kt_cu_kernel kernel = emu_child_kernel(r.library, "kt_shared_dynamic");
    int n = 60 * 256; // ints of 60 kB
    void *params[] = {&r.at, &n};
    const kt_cu_launch_config config = {
        .grid = {1, 1, 1}, .block = {32, 1, 1}, .shared_bytes = 60 * 1024, .stream = r.s};
    WRONG(D->cuLaunchKernelEx(&config, function, params, NULL), INVALID_VALUE,
        "more shared memory than the kernel was given");
    GOOD(D->cuKernelSetAttribute(ATTR_MAX_DYNAMIC, 60 * 1024, kernel, 0));
    GOOD(D->cuLaunchKernelEx(&config, function, params, NULL));
    MUST(value_at(&r, 0) == n - 1);
    close_rig(&r);
}

// Parameters are taken at the call.
static void parameters_are_copied(void) {
    rig r = open_rig(89);
    kt_cu_function plus = emu_child_function(r.library, "kt_plus");
    int v = 5;
    kt_dptr to = r.at;
    void *params[] = {&to, &v};
    GOOD(emu_child_launch(r.s, plus, 1, 1, params));
    v = 100;
    to = 0;
    MUST(value_at(&r, 0) == 5);
    close_rig(&r);
}

static void a_pending_library_stays(void) {
    rig r = open_rig(89);
    kt_cu_library second = emu_child_library(89);
    int v = 5;
    void *params[] = {&r.at, &v};
    GOOD(emu_child_launch(r.s, emu_child_function(second, "kt_plus"), 1, 1, params));
    WRONG(D->cuLibraryUnload(second), 0, "is still pending");
    MUST(value_at(&r, 0) == 5);
    close_rig(&r);
}

// A kernel that is given pinned memory which is then freed.
static void a_kernel_uses_pinned_memory(void) {
    rig r = open_rig(89);
    int *pinned, n = 8, v = 3;
    kt_dptr device;
    void *got;
    GOOD(D->cuMemHostAlloc(&got, 64, 2));
    pinned = got;
    GOOD(D->cuMemHostGetDevicePointer(&device, pinned, 0));
    void *params[] = {&device, &n, &v};
    GOOD(emu_child_launch(r.s, emu_child_function(r.library, "kt_fill"), 1, 32, params));
    GOOD(D->cuStreamSynchronize(r.s));
    MUST(pinned[0] == 3 && pinned[7] == 3 && pinned[8] != 3);
    GOOD(emu_child_launch(r.s, emu_child_function(r.library, "kt_fill"), 1, 32, params));
    WRONG(D->cuMemFreeHost(pinned), 0, "still used by work that is pending: kt_fill");
    close_rig(&r);
}

static void a_wild_kernel_loses_the_device(void) {
    rig r = open_rig(89);
    kt_dptr more;
    void *none[] = {NULL};
    kt_cu_function wild = emu_child_function(r.library, "kt_wild");
    GOOD(emu_child_launch(r.s, wild, 1, 32, none));
    CODE(D->cuStreamSynchronize(r.s), ILLEGAL_ADDRESS);
    CODE(D->cuMemAlloc(&more, 16), ILLEGAL_ADDRESS);
    CODE(emu_child_launch(r.s, wild, 1, 32, none), ILLEGAL_ADDRESS);
    MUST(EMU_COUNT(alive) == 4);
}

static void what_is_released_late_is_released(void) {
    rig r = open_rig(89);
    void *none[] = {NULL};
    GOOD(emu_child_launch(r.s, emu_child_function(r.library, "kt_wild"), 1, 32, none));
    for (int i = 0; i < 5; i++) GOOD(D->cuMemsetD8Async(r.at, 0, 4, r.s));
    CODE(D->cuCtxSynchronize(), ILLEGAL_ADDRESS);
    CODE(D->cuLibraryUnload(r.library), ILLEGAL_ADDRESS);
    CODE(D->cuMemFree(r.at), ILLEGAL_ADDRESS);
    CODE(D->cuStreamDestroy(r.s), ILLEGAL_ADDRESS);
    CODE(D->cuDevicePrimaryCtxRelease(0), ILLEGAL_ADDRESS);
    MUST(EMU_COUNT(alive) == 0);
}

// Freed memory in a kernel's hands.
static void a_kernel_uses_freed_memory(void) {
    rig r = open_rig(89);
    kt_dptr at;
    int n = 4, v = 1;
    GOOD(D->cuMemAlloc(&at, 64));
    GOOD(D->cuMemFree(at));
    void *params[] = {&at, &n, &v};
    GOOD(emu_child_launch(r.s, emu_child_function(r.library, "kt_fill"), 1, 32, params));
    CODE(D->cuStreamSynchronize(r.s), ILLEGAL_ADDRESS);
    CODE(D->cuLibraryUnload(r.library), ILLEGAL_ADDRESS);
    CODE(D->cuMemFree(r.at), ILLEGAL_ADDRESS);
    CODE(D->cuStreamDestroy(r.s), ILLEGAL_ADDRESS);
    CODE(D->cuDevicePrimaryCtxRelease(0), ILLEGAL_ADDRESS);
}

// Kernels of two streams that nothing orders are run in both orders.
static void missing_order_of_kernels_shows(void) {
    rig r = open_rig(89);
    kt_cu_stream other;
    kt_cu_event event;
    GOOD(D->cuStreamCreate(&other, 1));
    GOOD(D->cuEventCreate(&event, 2));
    kt_cu_function plus = emu_child_function(r.library, "kt_plus");
    kt_cu_function times = emu_child_function(r.library, "kt_times");
    int n_first = 0, three = 3;
    void *params[] = {&r.at, &three};
    for (int i = 0; i < 60; i++) {
        GOOD(D->cuMemsetD32Async(r.at, 1, 1, r.s));
        GOOD(D->cuStreamSynchronize(r.s));
        GOOD(emu_child_launch(r.s, plus, 1, 1, params));
        if (i >= 30) {
            GOOD(D->cuEventRecord(event, r.s));
            GOOD(D->cuStreamWaitEvent(other, event, 0));
        }
        GOOD(emu_child_launch(other, times, 1, 1, params));
        GOOD(D->cuCtxSynchronize());
        int got = value_at(&r, 0);
        MUST(got == 12 || (got == 6 && i < 30)); // (1 + 3) * 3, 1 * 3 + 3
        n_first += got == 6;
    }
    MUST(n_first > 3 && n_first < 27);
    GOOD(D->cuEventDestroy(event));
    GOOD(D->cuStreamDestroy(other));
    close_rig(&r);
}

// Ends a case that has lost the device.
static void leave_rig(rig *r) {
    (void)D->cuLibraryUnload(r->library);
    (void)D->cuMemFree(r->at);
    (void)D->cuStreamDestroy(r->s);
    (void)D->cuCtxSetCurrent(NULL);
    (void)D->cuDevicePrimaryCtxRelease(0);
}

// And checked kernels notice, if one of them writes: found whichever comes first.
static void kernels_of_two_streams(bool writes, bool ordered) {
    rig r = open_rig(89);
    kt_cu_stream other;
    kt_cu_event event;
    kt_dptr to, apart;
    int n = 4;
    GOOD(D->cuStreamCreate(&other, 1));
    GOOD(D->cuEventCreate(&event, 2));
    GOOD(D->cuMemAlloc(&to, 256));
    apart = to + 16;
    void *first[] = {&to, &r.at, &n}, *second[] = {writes ? &r.at : &apart, &r.at, &n};
    kt_cu_function copy = emu_child_function(r.library, "kt_copy");
    GOOD(emu_child_launch(r.s, copy, 1, 1, first));
    GOOD(D->cuEventRecord(event, r.s));
    if (ordered) GOOD(D->cuStreamWaitEvent(other, event, 0));
    GOOD(emu_child_launch(other, copy, 1, 1, second));
    MUST((D->cuCtxSynchronize() == 0) == (ordered || !writes));
    (void)D->cuMemFree(to);
    (void)D->cuEventDestroy(event);
    (void)D->cuStreamDestroy(other);
    leave_rig(&r);
}

static void kernels_that_touch_the_same(void) {
    kernels_of_two_streams(true, false);
}
static void kernels_that_wait(void) {
    kernels_of_two_streams(true, true);
}
static void kernels_that_read_the_same(void) {
    kernels_of_two_streams(false, false);
}

// A copy that is submitted when the kernel has run.
static void a_copy_after_a_kernel(void) {
    rig r = open_rig(89);
    kt_cu_stream other;
    kt_cu_event event;
    int v = 3, got = 0;
    void *params[] = {&r.at, &v};
    GOOD(D->cuStreamCreate(&other, 1));
    GOOD(D->cuEventCreate(&event, 2));
    GOOD(emu_child_launch(r.s, emu_child_function(r.library, "kt_plus"), 1, 1, params));
    GOOD(D->cuMemcpyDtoHAsync(&got, r.at + 4, 4, r.s));
    GOOD(D->cuEventRecord(event, r.s));
    emu_ctl.lazy(false);
    while (EMU_COUNT(kernels_run) == 0) kt_os_sleep_us(100);
    emu_ctl.lazy(true);
    GOOD(D->cuMemsetD8Async(r.at + 8, 0, 4, other)); // beside it
    GOOD(D->cuMemsetD8Async(r.at, 0, 4, other));
    (void)D->cuStreamSynchronize(other);
    WRONG(0, 0, "which kt_plus wrote, and nothing orders the two");
    GOOD(D->cuCtxSynchronize());
    GOOD(D->cuMemsetD8Async(r.at, 0, 4, other));
    GOOD(D->cuStreamSynchronize(other));
    GOOD(D->cuEventDestroy(event));
    GOOD(D->cuStreamDestroy(other));
    close_rig(&r);
}

// A kernel and a copy that nothing orders: found whichever comes first.
static void a_kernel_beside_a_copy(bool writes, bool ordered) {
    rig r = open_rig(89);
    kt_cu_stream other;
    kt_cu_event event;
    kt_dptr from;
    int n = 4, host[4];
    GOOD(D->cuStreamCreate(&other, 1));
    GOOD(D->cuEventCreate(&event, 2));
    GOOD(D->cuMemAlloc(&from, 256));
    GOOD(D->cuMemsetD32Async(from, 5, 64, r.s));
    GOOD(D->cuStreamSynchronize(r.s));
    // The copy touches ints 2 and 3 of `from`; the kernel ints 0 to 3 of it.
    if (writes)
        GOOD(D->cuMemcpyDtoHAsync(host, from + 8, 8, other));
    else
        GOOD(D->cuMemsetD8Async(from + 8, 5, 8, other));
    GOOD(D->cuMemsetD8Async(from + 16, 5, 8, other)); // beside it
    if (ordered) {
        GOOD(D->cuEventRecord(event, other));
        GOOD(D->cuStreamWaitEvent(r.s, event, 0));
    }
    kt_dptr to = writes ? from : r.at, source = writes ? r.at : from;
    void *params[] = {&to, &source, &n};
    GOOD(emu_child_launch(r.s, emu_child_function(r.library, "kt_copy"), 1, 1, params));
    int code = D->cuCtxSynchronize();
    MUST(ordered == (code == 0));
    (void)D->cuMemFree(from);
    (void)D->cuEventDestroy(event);
    (void)D->cuStreamDestroy(other);
    leave_rig(&r);
}

static void a_kernel_reads_what_is_written(void) {
    a_kernel_beside_a_copy(false, false);
}
static void a_kernel_writes_what_is_read(void) {
    a_kernel_beside_a_copy(true, false);
}
static void a_kernel_waits_for_a_copy(void) {
    a_kernel_beside_a_copy(false, true);
}
static void a_kernel_waits_for_a_reader(void) {
    a_kernel_beside_a_copy(true, true);
}

// ---- graphs

static kt_cu_node add_kernel(
    kt_cu_graph graph, const kt_cu_node *after, size_t n, kt_cu_function function, void **params) {
    kt_cu_node node;
    const kt_cu_kernel_node config = {
        .function = function, .grid = {1, 1, 1}, .block = {1, 1, 1}, .params = params};
    GOOD(D->cuGraphAddKernelNode(&node, graph, after, n, &config));
    return node;
}

static kt_cu_exec make_exec(kt_cu_graph graph) {
    kt_cu_exec exec;
    kt_cu_instantiate params = {0};
    GOOD(D->cuGraphInstantiateWithParams(&exec, graph, &params));
    return exec;
}

static kt_cu_copy_node copy_of(kt_dptr from, void *to, size_t bytes) {
    return (kt_cu_copy_node){.from = {.type = KT_CU_MEMORY_DEVICE, .device = from},
        .to = {.type = KT_CU_MEMORY_HOST, .host = to},
        .width_bytes = bytes,
        .height = 1,
        .depth = 1};
}

static void graphs_are_looked_at(void) {
    rig r = open_rig(89);
    kt_cu_graph graph, other;
    kt_cu_exec exec;
    kt_cu_node node, wrong;
    int v = 1, host = 0;
    void *params[] = {&r.at, &v};
    kt_cu_function plus = emu_child_function(r.library, "kt_plus");
    GOOD(D->cuGraphCreate(&graph, 0));
    GOOD(D->cuGraphCreate(&other, 0));
    node = add_kernel(graph, NULL, 0, plus, params);
    const kt_cu_node twice[] = {node, node};
    const kt_cu_memset_node fill = {
        .to = r.at, .element_bytes = 1, .width = 4, .height = 1, .pitch = 4};
    WRONG(D->cuGraphAddMemsetNode(&wrong, other, &node, 1, &fill, NULL), INVALID_VALUE,
        "a node of another graph");
    WRONG(D->cuGraphAddMemsetNode(&wrong, graph, twice, 2, &fill, NULL), INVALID_VALUE,
        "named twice");
    kt_cu_memset_node long_fill = fill;
    long_fill.width = 300;
    WRONG(D->cuGraphAddMemsetNode(&wrong, graph, NULL, 0, &long_fill, NULL), INVALID_VALUE,
        "of device memory");
    kt_cu_copy_node copy = copy_of(r.at + 254, &host, 4);
    WRONG(D->cuGraphAddMemcpyNode(&wrong, graph, NULL, 0, &copy, NULL), INVALID_VALUE,
        "of device memory");
    copy = copy_of(r.at, &host, 4);
    copy.height = 2;
    WRONG(D->cuGraphAddMemcpyNode(&wrong, graph, NULL, 0, &copy, NULL), INVALID_VALUE, "rows");
    const kt_cu_kernel_node large = {
        .function = plus, .grid = {1, 1, 1}, .block = {2000, 1, 1}, .params = params};
    WRONG(D->cuGraphAddKernelNode(&wrong, graph, NULL, 0, &large), INVALID_VALUE, "a block larger");
    exec = make_exec(graph);
    GOOD(D->cuGraphDestroy(graph)); // the executable one lives on
    WRONG(D->cuGraphDestroy(graph), INVALID_HANDLE, "exists no more");
    GOOD(D->cuGraphLaunch(exec, r.s));
    MUST(value_at(&r, 0) == 1);
    GOOD(D->cuGraphExecDestroy(exec));
    WRONG(D->cuGraphLaunch(exec, r.s), INVALID_HANDLE, "exists no more");
    GOOD(D->cuGraphDestroy(other));
    close_rig(&r);
}

// A graph keeps its parameters, its memory must be there, and it may be destroyed while pending.
static void graphs_hold_what_they_were_given(void) {
    rig r = open_rig(89);
    kt_cu_graph graph;
    kt_dptr own;
    int v = 7;
    GOOD(D->cuMemAlloc(&own, 64));
    void *params[] = {&r.at, &v};
    kt_cu_function plus = emu_child_function(r.library, "kt_plus");
    GOOD(D->cuGraphCreate(&graph, 0));
    (void)add_kernel(graph, NULL, 0, plus, params);
    v = 100;
    kt_cu_exec exec = make_exec(graph);
    GOOD(D->cuGraphLaunch(exec, r.s));
    GOOD(D->cuGraphLaunch(exec, r.s));
    GOOD(D->cuGraphExecDestroy(exec));
    MUST(value_at(&r, 0) == 14);
    const kt_cu_memset_node fill = {.to = own, .element_bytes = 4, .width = 16, .height = 1};
    kt_cu_node node;
    GOOD(D->cuGraphAddMemsetNode(&node, graph, NULL, 0, &fill, NULL));
    exec = make_exec(graph);
    GOOD(D->cuGraphLaunch(exec, r.s));
    GOOD(D->cuMemFree(own));
    WRONG(D->cuGraphLaunch(exec, r.s), INVALID_VALUE, "which was freed");
    GOOD(D->cuGraphExecDestroy(exec));
    GOOD(D->cuGraphDestroy(graph));
    close_rig(&r);
}

// (1 + 3) * 3 where an edge says so; either order where none does.
static void edges_order_nodes(void) {
    rig r = open_rig(89);
    kt_cu_function plus = emu_child_function(r.library, "kt_plus");
    kt_cu_function times = emu_child_function(r.library, "kt_times");
    int three = 3, n_first = 0;
    void *params[] = {&r.at, &three};
    for (int edge = 0; edge < 2; edge++) {
        kt_cu_graph graph;
        GOOD(D->cuGraphCreate(&graph, 0));
        kt_cu_node node = add_kernel(graph, NULL, 0, plus, params);
        (void)add_kernel(graph, &node, (size_t)edge, times, params);
        kt_cu_exec exec = make_exec(graph);
        for (int i = 0; i < 30; i++) {
            GOOD(D->cuMemsetD32Async(r.at, 1, 1, r.s));
            GOOD(D->cuGraphLaunch(exec, r.s));
            int got = value_at(&r, 0);
            MUST(got == 12 || (got == 6 && edge == 0));
            n_first += got == 6;
        }
        GOOD(D->cuGraphExecDestroy(exec));
        GOOD(D->cuGraphDestroy(graph));
    }
    MUST(n_first > 5 && n_first < 25);
    close_rig(&r);
}

// A kernel beside a kernel, a fill or neither, without an edge; the last node comes after all.
static void nodes_without_an_edge(int beside) {
    rig r = open_rig(89);
    kt_cu_graph graph;
    kt_cu_node nodes[3];
    int three = 3;
    kt_dptr apart = r.at + 8;
    void *params[] = {&r.at, &three}, *others[] = {beside == 0 ? &apart : &r.at, &three};
    const kt_cu_memset_node fill = {.to = r.at, .element_bytes = 4, .width = 1, .height = 1};
    kt_cu_function plus = emu_child_function(r.library, "kt_plus");
    GOOD(D->cuGraphCreate(&graph, 0));
    nodes[0] = add_kernel(graph, NULL, 0, plus, params);
    if (beside == 2)
        GOOD(D->cuGraphAddMemsetNode(&nodes[1], graph, NULL, 0, &fill, NULL));
    else
        nodes[1] = add_kernel(graph, NULL, 0, plus, others);
    nodes[2] = add_kernel(graph, nodes, 2, plus, params);
    kt_cu_exec exec = make_exec(graph);
    int code = D->cuGraphLaunch(exec, r.s);
    for (int i = 0; i < 2 && code == 0; i++) code = D->cuGraphLaunch(exec, r.s);
    if (code == 0) code = D->cuStreamSynchronize(r.s);
    bool found = code != 0 || EMU_COUNT(violations) > 0;
    MUST(found == (beside != 0));
    emu_ctl.forgive();
    (void)D->cuGraphExecDestroy(exec);
    (void)D->cuGraphDestroy(graph);
    leave_rig(&r);
}

static void nodes_that_touch_other_memory(void) {
    nodes_without_an_edge(0);
}
static void kernels_without_an_edge(void) {
    nodes_without_an_edge(1);
}
static void a_fill_without_an_edge(void) {
    nodes_without_an_edge(2);
}

static void a_graph_runs_once_at_a_time(void) {
    rig r = open_rig(89);
    kt_cu_stream other;
    kt_cu_event event;
    kt_cu_graph graph;
    int one = 1;
    void *params[] = {&r.at, &one};
    GOOD(D->cuStreamCreate(&other, 1));
    GOOD(D->cuEventCreate(&event, 2));
    GOOD(D->cuGraphCreate(&graph, 0));
    (void)add_kernel(graph, NULL, 0, emu_child_function(r.library, "kt_plus"), params);
    kt_cu_exec exec = make_exec(graph);
    GOOD(D->cuGraphLaunch(exec, r.s));
    GOOD(D->cuEventRecord(event, r.s));
    GOOD(D->cuStreamWaitEvent(other, event, 0));
    GOOD(D->cuGraphLaunch(exec, other));
    MUST(EMU_COUNT(violations) == 0);
    WRONG(D->cuGraphLaunch(exec, r.s), 0, "is pending in another stream");
    GOOD(D->cuCtxSynchronize());
    MUST(value_at(&r, 0) == 3);
    GOOD(D->cuGraphExecDestroy(exec));
    GOOD(D->cuGraphDestroy(graph));
    GOOD(D->cuEventDestroy(event));
    GOOD(D->cuStreamDestroy(other));
    close_rig(&r);
}

// A copy in a graph and one in another stream.
static void graphs_are_compared_with_other_streams(void) {
    rig r = open_rig(89);
    kt_cu_stream other;
    kt_cu_graph graph;
    kt_cu_node node;
    GOOD(D->cuStreamCreate(&other, 1));
    GOOD(D->cuGraphCreate(&graph, 0));
    const kt_cu_memset_node fill = {.to = r.at, .element_bytes = 4, .width = 4, .height = 1};
    GOOD(D->cuGraphAddMemsetNode(&node, graph, NULL, 0, &fill, NULL));
    kt_cu_exec exec = make_exec(graph);
    GOOD(D->cuGraphLaunch(exec, r.s));
    WRONG(D->cuMemsetD8Async(r.at + 8, 0, 1, other), 0, "no event orders them");
    GOOD(D->cuMemsetD8Async(r.at + 16, 0, 1, other));
    MUST(EMU_COUNT(violations) == 0);
    GOOD(D->cuCtxSynchronize());
    GOOD(D->cuGraphExecDestroy(exec));
    GOOD(D->cuGraphDestroy(graph));
    GOOD(D->cuStreamDestroy(other));
    close_rig(&r);
}

static void nodes_are_compared(void) {
    rig r = open_rig(89);
    kt_cu_graph graph;
    kt_cu_node nodes[3];
    kt_cu_exec exec;
    kt_cu_instantiate params = {0};
    const kt_cu_memset_node fill = {.to = r.at, .element_bytes = 4, .width = 4, .height = 1};
    for (int ordered = 0; ordered < 2; ordered++) {
        GOOD(D->cuGraphCreate(&graph, 0));
        GOOD(D->cuGraphAddMemsetNode(&nodes[0], graph, NULL, 0, &fill, NULL));
        int v = 1;
        void *arguments[] = {&r.at, &v};
        nodes[1] = add_kernel(graph, nodes, 1, emu_child_function(r.library, "kt_plus"), arguments);
        GOOD(D->cuGraphAddMemsetNode(
            &nodes[2], graph, nodes + 1, (size_t)ordered, &fill, NULL)); // after both
        if (ordered == 0)
            WRONG(D->cuGraphInstantiateWithParams(&exec, graph, &params), 0, "no edge orders them");
        else
            GOOD(D->cuGraphInstantiateWithParams(&exec, graph, &params));
        GOOD(D->cuGraphExecDestroy(exec));
        GOOD(D->cuGraphDestroy(graph));
    }
    MUST(EMU_COUNT(violations) == 0);
    close_rig(&r);
}

// ---- counts

typedef enum loop_kind { GOOD_LOOP, LAUNCHES_BETWEEN, CHANGES_BETWEEN, WAITS } loop_kind;

// As a decode loop: the next step is submitted, then the one before is seen to be there.
static void run_loop(const rig *r, loop_kind kind, volatile int *seen, kt_cu_exec exec) {
    enum { N = 20 };
    int one = 0;
    kt_dptr at = r->at;
    void *params[] = {&at, &one};
    kt_cu_function plus = emu_child_function(r->library, "kt_plus");
    seen[0] = 0;
    for (int i = 0; i < N; i++) {
        GOOD(D->cuGraphLaunch(exec, r->s));
        if (kind == LAUNCHES_BETWEEN) GOOD(emu_child_launch(r->s, plus, 1, 1, params));
        if (kind == CHANGES_BETWEEN) {
            kt_cu_graph graph;
            GOOD(D->cuGraphCreate(&graph, 0));
            GOOD(D->cuGraphDestroy(graph));
        }
        int want = kind == WAITS ? i + 1 : i; // ahead by one, or not
        if (kind == WAITS) emu_ctl.lazy(false);
        for (int k = 0; kind == WAITS && k < 200000 && seen[0] < want; k++) kt_os_sleep_us(100);
        if (kind == WAITS) MUST(seen[0] == want);
    }
    GOOD(D->cuStreamSynchronize(r->s));
    MUST(seen[0] == N);
}

static void steps_are_counted(void) {
    rig r = open_rig(89);
    kt_cu_graph graph;
    kt_cu_node node;
    void *pinned;
    int one = 1;
    void *params[] = {&r.at, &one};
    GOOD(D->cuMemHostAlloc(&pinned, 64, 2));
    GOOD(D->cuGraphCreate(&graph, 0));
    node = add_kernel(graph, NULL, 0, emu_child_function(r.library, "kt_plus"), params);
    kt_cu_copy_node copy = copy_of(r.at, pinned, 4);
    GOOD(D->cuGraphAddMemcpyNode(&node, graph, &node, 1, &copy, NULL));
    kt_cu_exec exec = make_exec(graph);
    static const struct {
        loop_kind kind;
        uint64_t launches, changes, ahead_least, ahead_most;
    } rows[] = {
        {GOOD_LOOP, 0, 0, 19, 19}, {LAUNCHES_BETWEEN, 19, 0, 19, 19},
        {CHANGES_BETWEEN, 0, 19, 19, 19},
        {WAITS, 0, 0, 0, 0}, // each step was done before the next was submitted
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        emu_driver_counts before, after;
        emu_ctl.get_counts(&before);
        GOOD(D->cuMemsetD32Async(r.at, 0, 1, r.s));
        run_loop(&r, rows[i].kind, pinned, exec);
        emu_ctl.get_counts(&after);
        MUST(after.graph_launches - before.graph_launches == 20);
        MUST(after.steps - before.steps == 19);
        MUST(after.kernel_launches_between_steps - before.kernel_launches_between_steps ==
             rows[i].launches);
        MUST(after.graph_changes_between_steps - before.graph_changes_between_steps ==
             rows[i].changes);
        uint64_t ahead = after.steps_submitted_ahead - before.steps_submitted_ahead;
        MUST(ahead >= rows[i].ahead_least && ahead <= rows[i].ahead_most);
    }
    GOOD(D->cuGraphExecDestroy(exec));
    GOOD(D->cuGraphDestroy(graph));
    GOOD(D->cuMemFreeHost(pinned));
    close_rig(&r);
}

// What the process before wrote at its end.
static void the_report_is_written(void) {
    emu_child_driver();
    char path[600], line[200];
    (void)snprintf(path, sizeof path, "%s/report", kt_os_getenv("EMU_CHILD_FOLDER"));
    FILE *file = fopen(path, "r");
    MUST(file != NULL);
    int n_found = 0;
    static const char *const want[] = {"process ", "calls.cuGraphLaunch 80\n", "steps 76\n",
        "kernel_launches_between_steps 19\n", "leaks 0\n", "violations 0\n"};
    while (fgets(line, sizeof line, file) != NULL)
        for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
            n_found += strncmp(line, want[i], strlen(want[i])) == 0;
    (void)fclose(file);
    MUST(n_found == (int)(sizeof want / sizeof want[0]));
}

// ---- all

// The sanitizers end a process where kernels go wrong: such cases need the checked mode.
static const emu_child_case cases[] = {
    {"images_are_looked_at", images_are_looked_at, {NULL}, 0,
        {"an image is refused: no ELF file for a GPU"}},
    {"the_first_of_two_modes", the_first_of_two_modes, {"KOTARO_EMU=plain"}, 0, {NULL}},
    {"the_second_of_two_modes", the_second_of_two_modes, {"KOTARO_EMU=checked"}, 0,
        {"a module of another mode"}},
    {"modules_do_not_mix", modules_do_not_mix, {NULL}, 0, {NULL}},
    {"kernels_have_limits", kernels_have_limits, {NULL}, 0, {NULL}},
    {"a_large_device_gives_more", a_large_device_gives_more, {"KOTARO_EMU_DEVICE=h100"}, 0, {NULL}},
    {"launches_are_looked_at", launches_are_looked_at, {NULL}, 0, {NULL}},
    {"shared_memory_needs_leave", shared_memory_needs_leave, {NULL}, 0, {NULL}},
    {"parameters_are_copied", parameters_are_copied, {NULL}, 0, {NULL}},
    {"a_pending_library_stays", a_pending_library_stays, {NULL}, 0, {NULL}},
    {"a_kernel_uses_pinned_memory", a_kernel_uses_pinned_memory, {NULL}, 0, {NULL}},
    {"a_wild_kernel_loses_the_device", a_wild_kernel_loses_the_device, {"KOTARO_EMU=checked"},
        EMU_STRICT_EXIT, {"emu: the device is lost (error 700)", "kt_wild", "4 leaks"}},
    {"what_is_released_late_is_released", what_is_released_late_is_released, {"KOTARO_EMU=checked"},
        0, {NULL}},
    {"a_kernel_uses_freed_memory", a_kernel_uses_freed_memory, {"KOTARO_EMU=checked"}, 0,
        {"emu: the device is lost (error 700)", "kt_fill"}},
    {"missing_order_of_kernels_shows", missing_order_of_kernels_shows, {"KOTARO_EMU=plain"}, 0,
        {NULL}},
    {"kernels_that_touch_the_same", kernels_that_touch_the_same, {"KOTARO_EMU=checked"}, 0,
        {", and no event or edge orders the two"}},
    {"kernels_that_touch_the_same_2", kernels_that_touch_the_same,
        {"KOTARO_EMU=checked", "KOTARO_EMU_SEED=2"}, 0, {", and no event or edge orders the two"}},
    {"kernels_that_wait", kernels_that_wait, {"KOTARO_EMU=checked"}, 0, {NULL}},
    {"kernels_that_read_the_same", kernels_that_read_the_same, {"KOTARO_EMU=checked"}, 0, {NULL}},
    {"a_copy_after_a_kernel", a_copy_after_a_kernel, {"KOTARO_EMU=checked"}, 0, {NULL}},
    {"a_kernel_reads_what_is_written", a_kernel_reads_what_is_written, {"KOTARO_EMU=checked"}, 0,
        {"kt_copy", "where a copy or fill of another stream writes"}},
    {"a_kernel_reads_what_is_written_2", a_kernel_reads_what_is_written,
        {"KOTARO_EMU=checked", "KOTARO_EMU_SEED=2"}, 0,
        {"kt_copy", "where a copy or fill of another stream writes"}},
    {"a_kernel_writes_what_is_read", a_kernel_writes_what_is_read, {"KOTARO_EMU=checked"}, 0,
        {"kt_copy", "where a copy of another stream reads"}},
    {"a_kernel_waits_for_a_copy", a_kernel_waits_for_a_copy, {NULL}, 0, {NULL}},
    {"a_kernel_waits_for_a_reader", a_kernel_waits_for_a_reader, {NULL}, 0, {NULL}},
    {"graphs_are_looked_at", graphs_are_looked_at, {NULL}, 0, {NULL}},
    {"graphs_hold_what_they_were_given", graphs_hold_what_they_were_given, {NULL}, 0, {NULL}},
    {"edges_order_nodes", edges_order_nodes, {"KOTARO_EMU=plain"}, 0, {NULL}},
    {"nodes_that_touch_other_memory", nodes_that_touch_other_memory, {"KOTARO_EMU=checked"}, 0,
        {NULL}},
    {"kernels_without_an_edge", kernels_without_an_edge, {"KOTARO_EMU=checked"}, 0,
        {"and no event or edge orders the two"}},
    {"a_fill_without_an_edge", a_fill_without_an_edge, {"KOTARO_EMU=checked"}, 0,
        {"orders the two"}},
    {"a_graph_runs_once_at_a_time", a_graph_runs_once_at_a_time, {NULL}, 0, {NULL}},
    {"graphs_are_compared_with_other_streams", graphs_are_compared_with_other_streams, {NULL}, 0,
        {NULL}},
    {"nodes_are_compared", nodes_are_compared, {NULL}, 0, {NULL}},
    {"steps_are_counted", steps_are_counted, {"KOTARO_EMU_REPORT"}, 0, {NULL}},
    {"the_report_is_written", the_report_is_written, {NULL}, 0, {NULL}},
};

int main(int argc, char **argv) {
    return emu_child_main(argc, argv, "emu_launch", cases, (int)(sizeof cases / sizeof cases[0]));
}
