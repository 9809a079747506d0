// The NVIDIA driver library: our own declarations, opened at run time.
//
// KT_DRIVER_LIST names every function that Kotaro uses with the version of the interface that its
// prototype was written for; kt_driver_open resolves them through cuGetProcAddress. No NVIDIA
// header and no link dependency. The library is never unloaded. Everything above runtime/gpu uses
// device.h, memory.h, module.h, launch.h, graph.h and timer.h instead of this table. After open,
// any thread may read the table.
#ifndef KT_GPU_DRIVER_H
#define KT_GPU_DRIVER_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(_WIN32) && !defined(_WIN64)
#define KT_CU_API __stdcall
#else
#define KT_CU_API
#endif

typedef uint64_t kt_dptr; // an address on the device; 0 is none

// Handles and codes of the driver, under our names. Source: the CUDA driver API's public interface.
typedef int kt_cu_result; // 0 is success
typedef int kt_cu_device;
typedef struct kt_cu_context_s *kt_cu_context;
typedef struct kt_cu_green_s *kt_cu_green;
typedef struct kt_cu_stream_s *kt_cu_stream;
typedef struct kt_cu_event_s *kt_cu_event;
typedef struct kt_cu_library_s *kt_cu_library;
typedef struct kt_cu_kernel_s *kt_cu_kernel;
typedef struct kt_cu_function_s *kt_cu_function;
typedef struct kt_cu_graph_s *kt_cu_graph;
typedef struct kt_cu_node_s *kt_cu_node;
typedef struct kt_cu_exec_s *kt_cu_exec;
typedef struct kt_cu_desc_s *kt_cu_desc; // description of resources for a green context

enum {
    KT_CU_SUCCESS = 0,
    KT_CU_OUT_OF_MEMORY = 2,
    KT_CU_STUB_LIBRARY = 34,
    KT_CU_NOT_READY = 600,
};

// Numbers of device attributes.
enum {
    KT_CU_ATTR_MAX_THREADS_PER_BLOCK = 1,
    KT_CU_ATTR_SM_COUNT = 16,
    KT_CU_ATTR_KERNEL_TIMEOUT = 17,
    KT_CU_ATTR_CC_MAJOR = 75,
    KT_CU_ATTR_CC_MINOR = 76,
    KT_CU_ATTR_SHARED_OPTIN = 97,
};

typedef struct kt_cu_launch_config {
    unsigned grid[3], block[3];
    unsigned shared_bytes;
    kt_cu_stream stream;
    const void *attributes; // none used
    unsigned n_attributes;
} kt_cu_launch_config;

typedef struct kt_cu_kernel_node {
    void *function; // NULL when `kernel` is given
    unsigned grid[3], block[3];
    unsigned shared_bytes;
    void **params;
    void **extra;
    kt_cu_kernel kernel;
    kt_cu_context context; // NULL: the current one
} kt_cu_kernel_node;

enum { KT_CU_MEMORY_HOST = 1, KT_CU_MEMORY_DEVICE = 2 };

typedef struct kt_cu_copy_side {
    size_t x_bytes, y, z, lod;
    int type; // KT_CU_MEMORY_*
    const void *host;
    kt_dptr device;
    void *array, *reserved;
    size_t pitch, height;
} kt_cu_copy_side;

typedef struct kt_cu_copy_node {
    kt_cu_copy_side from, to;
    size_t width_bytes, height, depth;
} kt_cu_copy_node;

typedef struct kt_cu_memset_node {
    kt_dptr to;
    size_t pitch;
    unsigned value, element_bytes;
    size_t width, height;
} kt_cu_memset_node;

typedef struct kt_cu_instantiate {
    uint64_t flags;
    kt_cu_stream upload;
    kt_cu_node failed; // set on failure
    int result;
} kt_cu_instantiate;

// A share of a device; only the SM kind is used.
typedef struct kt_cu_resource {
    int type; // 1: SMs
    unsigned char internal[92];
    union {
        struct {
            unsigned sm_count, min_partition, alignment;
        } sm;
        unsigned char bytes[48];
    } of;
} kt_cu_resource;

// required (R) or optional (O), name, version of the interface, parameters
#define KT_DRIVER_LIST(X)                                                                          \
    X(R, cuInit, 2000, (unsigned flags))                                                           \
    X(R, cuDriverGetVersion, 2020, (int *version))                                                 \
    X(R, cuGetErrorName, 6000, (kt_cu_result code, const char **out))                              \
    X(R, cuGetErrorString, 6000, (kt_cu_result code, const char **out))                            \
    X(R, cuDeviceGet, 2000, (kt_cu_device * out, int ordinal))                                     \
    X(R, cuDeviceGetCount, 2000, (int *out))                                                       \
    X(R, cuDeviceGetName, 2000, (char *out, int n, kt_cu_device device))                           \
    X(R, cuDeviceGetAttribute, 2000, (int *out, int attribute, kt_cu_device device))               \
    X(R, cuDeviceTotalMem, 3020, (size_t * bytes, kt_cu_device device))                            \
    X(R, cuDevicePrimaryCtxRetain, 7000, (kt_cu_context * out, kt_cu_device device))               \
    X(R, cuDevicePrimaryCtxRelease, 11000, (kt_cu_device device))                                  \
    X(O, cuDevicePrimaryCtxSetFlags, 11000, (kt_cu_device device, unsigned flags))                 \
    X(R, cuCtxSetCurrent, 4000, (kt_cu_context context))                                           \
    X(R, cuCtxSynchronize, 2000, (void))                                                           \
    X(R, cuMemGetInfo, 3020, (size_t * free_bytes, size_t * total_bytes))                          \
    X(R, cuMemAlloc, 3020, (kt_dptr * out, size_t bytes))                                          \
    X(R, cuMemFree, 3020, (kt_dptr at))                                                            \
    X(R, cuMemHostAlloc, 2020, (void **out, size_t bytes, unsigned flags))                         \
    X(R, cuMemFreeHost, 2000, (void *at))                                                          \
    X(O, cuMemHostRegister, 6050, (void *at, size_t bytes, unsigned flags))                        \
    X(O, cuMemHostUnregister, 4000, (void *at))                                                    \
    X(R, cuMemHostGetDevicePointer, 3020, (kt_dptr * out, void *at, unsigned flags))               \
    X(R, cuMemcpyHtoDAsync, 3020,                                                                  \
        (kt_dptr to, const void *from, size_t bytes, kt_cu_stream stream))                         \
    X(R, cuMemcpyDtoHAsync, 3020, (void *to, kt_dptr from, size_t bytes, kt_cu_stream stream))     \
    X(R, cuMemsetD8Async, 3020, (kt_dptr to, unsigned char value, size_t n, kt_cu_stream stream))  \
    X(R, cuMemsetD32Async, 3020, (kt_dptr to, unsigned value, size_t n, kt_cu_stream stream))      \
    X(R, cuStreamCreate, 2000, (kt_cu_stream * out, unsigned flags))                               \
    X(R, cuStreamDestroy, 4000, (kt_cu_stream stream))                                             \
    X(R, cuStreamSynchronize, 2000, (kt_cu_stream stream))                                         \
    X(R, cuStreamQuery, 2000, (kt_cu_stream stream))                                               \
    X(R, cuStreamWaitEvent, 3020, (kt_cu_stream stream, kt_cu_event event, unsigned flags))        \
    X(R, cuEventCreate, 2000, (kt_cu_event * out, unsigned flags))                                 \
    X(R, cuEventDestroy, 4000, (kt_cu_event event))                                                \
    X(R, cuEventRecord, 2000, (kt_cu_event event, kt_cu_stream stream))                            \
    X(R, cuEventQuery, 2000, (kt_cu_event event))                                                  \
    X(R, cuEventSynchronize, 2000, (kt_cu_event event))                                            \
    X(R, cuEventElapsedTime, 2000, (float *ms, kt_cu_event from, kt_cu_event to))                  \
    X(R, cuLibraryLoadData, 12000,                                                                 \
        (kt_cu_library * out, const void *image, int *jit_options, void **jit_values,              \
            unsigned n_jit, int *options, void **values, unsigned n))                              \
    X(R, cuLibraryUnload, 12000, (kt_cu_library library))                                          \
    X(R, cuLibraryGetKernel, 12000, (kt_cu_kernel * out, kt_cu_library library, const char *name)) \
    X(R, cuKernelGetFunction, 12000, (kt_cu_function * out, kt_cu_kernel kernel))                  \
    X(R, cuKernelGetAttribute, 12000,                                                              \
        (int *out, int attribute, kt_cu_kernel kernel, kt_cu_device device))                       \
    X(R, cuKernelSetAttribute, 12000,                                                              \
        (int attribute, int value, kt_cu_kernel kernel, kt_cu_device device))                      \
    X(O, cuKernelGetParamInfo, 12040,                                                              \
        (kt_cu_kernel kernel, size_t index, size_t * offset, size_t * bytes))                      \
    X(O, cuFuncLoad, 12040, (kt_cu_function function))                                             \
    X(R, cuLaunchKernelEx, 11060,                                                                  \
        (const kt_cu_launch_config *config, kt_cu_function function, void **params, void **extra)) \
    X(R, cuGraphCreate, 10000, (kt_cu_graph * out, unsigned flags))                                \
    X(R, cuGraphDestroy, 10000, (kt_cu_graph graph))                                               \
    X(R, cuGraphAddKernelNode, 12000,                                                              \
        (kt_cu_node * out, kt_cu_graph graph, const kt_cu_node *after, size_t n,                   \
            const kt_cu_kernel_node *params))                                                      \
    X(R, cuGraphAddMemcpyNode, 10000,                                                              \
        (kt_cu_node * out, kt_cu_graph graph, const kt_cu_node *after, size_t n,                   \
            const kt_cu_copy_node *params, kt_cu_context context))                                 \
    X(R, cuGraphAddMemsetNode, 10000,                                                              \
        (kt_cu_node * out, kt_cu_graph graph, const kt_cu_node *after, size_t n,                   \
            const kt_cu_memset_node *params, kt_cu_context context))                               \
    X(R, cuGraphInstantiateWithParams, 12000,                                                      \
        (kt_cu_exec * out, kt_cu_graph graph, kt_cu_instantiate * params))                         \
    X(R, cuGraphExecDestroy, 10000, (kt_cu_exec exec))                                             \
    X(R, cuGraphUpload, 11010, (kt_cu_exec exec, kt_cu_stream stream))                             \
    X(R, cuGraphLaunch, 10000, (kt_cu_exec exec, kt_cu_stream stream))                             \
    X(O, cuDeviceGetDevResource, 12040, (kt_cu_device device, kt_cu_resource * out, int type))     \
    X(O, cuDevSmResourceSplitByCount, 12040,                                                       \
        (kt_cu_resource * out, unsigned *n_groups, const kt_cu_resource *in, kt_cu_resource *rest, \
            unsigned flags, unsigned min_count))                                                   \
    X(O, cuDevResourceGenerateDesc, 12040,                                                         \
        (kt_cu_desc * out, kt_cu_resource * resources, unsigned n))                                \
    X(O, cuGreenCtxCreate, 12040,                                                                  \
        (kt_cu_green * out, kt_cu_desc desc, kt_cu_device device, unsigned flags))                 \
    X(O, cuGreenCtxDestroy, 12040, (kt_cu_green green))                                            \
    X(O, cuGreenCtxStreamCreate, 12050,                                                            \
        (kt_cu_stream * out, kt_cu_green green, unsigned flags, int priority))                     \
    X(O, cuCtxFromGreenCtx, 12040, (kt_cu_context * out, kt_cu_green green))

// The table, and what is known about the library that filled it.
typedef struct kt_driver {
// NOLINTNEXTLINE(bugprone-macro-parentheses): a declaration
#define KT_DRIVER_FIELD(need, name, version, params) kt_cu_result(KT_CU_API *name) params;
    KT_DRIVER_LIST(KT_DRIVER_FIELD)
#undef KT_DRIVER_FIELD
    int version;             // 13000 for CUDA 13.0: what the driver can do
    double open_ms, init_ms; // opening the library and resolving; cuInit
    char path[512];          // the file, as far as the system tells
    FILE *trace;             // kt_driver_trace; NULL: off
    uint64_t n_traced;
    int n_opened; // times that kt_driver_open gave it out
} kt_driver;

// One row of the table, for tests and for `kotaro doctor`.
typedef struct kt_driver_row {
    const char *name;
    int version;
    bool required;
    size_t field; // offset of the pointer in kt_driver
} kt_driver_row;

extern const kt_driver_row kt_driver_rows[];
extern const int kt_driver_n_rows;

// Opens the driver library, resolves the table and calls cuInit. The same driver is returned to
// every caller of the process. Not to be called from two threads at once. Errors: EDRIVER: no
// library, a stub, too old, no device, mismatch after an update (each with its remedy).
kt_status kt_driver_open(kt_driver **out, kt_err *err) KT_MUST_CHECK;

// From now on each driver call writes one line: its name and its key numbers. NULL turns it off.
void kt_driver_trace(kt_driver *driver, FILE *out);

// KT_OK for 0; else EGPU (EMEMORY for 2, EDRIVER for the codes of an unfit driver, ECOMPILE for an
// image that the driver refuses) with the call, the code's name, and what we know about it. `doing`
// says what for.
kt_status kt_driver_check(
    const kt_driver *driver, kt_cu_result code, const char *call, const char *doing, kt_err *err);
// "CUDA_ERROR_ILLEGAL_ADDRESS" or "error 700".
const char *kt_driver_error_name(const kt_driver *driver, kt_cu_result code, char space[32]);
// After such a code nothing in this process works any more.
bool kt_driver_error_is_sticky(kt_cu_result code);

void kt_driver_note(kt_driver *driver, const char *call);
void kt_driver_notef(kt_driver *driver, const char *call, const char *fmt, ...) KT_PRINTF(3, 4);

// The only way to call a function of the table: KT_CU(driver, cuMemFree, (at)) gives its code.
// KT_CUF adds numbers to the line in the trace.
#define KT_CU(d, name, args)                                                                       \
    ((d)->trace != NULL ? kt_driver_note((d), #name) : (void)0, (d)->name args)
#define KT_CUF(d, name, args, ...)                                                                 \
    ((d)->trace != NULL ? kt_driver_notef((d), #name, __VA_ARGS__) : (void)0, (d)->name args)

#endif
