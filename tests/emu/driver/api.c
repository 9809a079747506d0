// Entry points' common part: the lock, counts, injected failures, and how functions are found.
#include "tests/emu/driver/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

drv_all drv = {.lock = PTHREAD_MUTEX_INITIALIZER};
_Thread_local const char *drv_call_name = "?";
_Thread_local drv_context *drv_current_context;
_Thread_local void *drv_current_handle;

#define NAME(need, name, version, params) #name,
const char *const drv_call_names[DRV_N_CALLS] = {KT_DRIVER_LIST(NAME)};
#undef NAME

typedef void (*function)(void);
typedef struct entry {
    const char *name;
    int version;
    function at;
} entry;
#define ENTRY(need, name, version, params) {#name, version, (function)drv_api_##name},
static const entry entries[DRV_N_CALLS] = {KT_DRIVER_LIST(ENTRY)};
#undef ENTRY

void *drv_new(size_t bytes) {
    void *at = calloc(1, bytes > 0 ? bytes : 1);
    if (at == NULL) abort();
    return at;
}

uint64_t drv_now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static uint64_t random_state;

// Source: Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014), SplitMix64.
uint64_t drv_random(void) {
    uint64_t z = random_state += 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

// ---- injected failures

typedef enum failure_kind { OF_NAME, OF_CALL, OF_ALLOC } failure_kind;
typedef struct failure {
    failure_kind kind;
    int call; // OF_NAME
    uint64_t left;
    int code; // -1: the usual one of the function
    bool sticky;
} failure;

enum { MAX_FAILURES = 32 };
static failure failures[MAX_FAILURES];
static int n_failures;

static int find_call(const char *name, size_t n) {
    for (int i = 0; i < DRV_N_CALLS; i++)
        if (strlen(drv_call_names[i]) == n && memcmp(drv_call_names[i], name, n) == 0) return i;
    return -1;
}

static bool parse_failure(const char *text, size_t n, failure *out) {
    char field[4][48] = {{0}};
    int n_fields = 0;
    for (size_t i = 0, k = 0; i <= n; i++) {
        if (i == n || text[i] == ':') {
            n_fields++;
            k = 0;
        } else if (n_fields > 3 || k + 1 >= sizeof field[0]) {
            return false;
        } else {
            field[n_fields][k++] = text[i];
        }
    }
    *out = (failure){.call = -1, .code = -1};
    if (strcmp(field[0], "call") == 0) {
        out->kind = OF_CALL;
    } else if (strcmp(field[0], "alloc") == 0) {
        out->kind = OF_ALLOC;
    } else {
        out->call = find_call(field[0], strlen(field[0]));
        if (out->call < 0) return false;
    }
    char *end = NULL;
    out->left = strtoull(field[1], &end, 10);
    if (n_fields < 2 || n_fields > 4 || *end != 0 || out->left == 0) return false;
    for (int i = 2; i < n_fields; i++) {
        if (strcmp(field[i], "sticky") == 0) {
            out->sticky = true;
            continue;
        }
        out->code = (int)strtol(field[i], &end, 10);
        if (*end != 0 || out->code <= 0) return false;
    }
    return true;
}

static bool add_failures(const char *text) {
    while (*text != 0) {
        size_t n = strcspn(text, ",");
        failure one;
        if (n > 0 && strncmp(text, "nvrtc", 5) != 0) {
            if (n_failures == MAX_FAILURES || !parse_failure(text, n, &one)) return false;
            failures[n_failures++] = one;
        }
        text += n + (text[n] == ',');
    }
    return true;
}

bool emu_driver_fail(const char *text) {
    (void)pthread_mutex_lock(&drv.lock);
    bool ok = add_failures(text);
    (void)pthread_mutex_unlock(&drv.lock);
    return ok;
}

// Out of memory where something is made, else a trouble that is nobody's fault.
static int usual_code(drv_call call, unsigned flags) {
    const char *name = drv_call_names[call];
    bool makes = (flags & DRV_ALLOCATES) != 0 || strstr(name, "Create") != NULL ||
                 strstr(name, "Load") != NULL || strstr(name, "Instantiate") != NULL ||
                 strstr(name, "Retain") != NULL || strstr(name, "Upload") != NULL;
    return makes ? KT_CU_OUT_OF_MEMORY : DRV_OPERATING_SYSTEM;
}

static kt_cu_result inject(drv_call call, unsigned flags) {
    kt_cu_result code = KT_CU_SUCCESS;
    drv.calls_that_can_fail += (flags & DRV_ASKS) == 0;
    drv.allocations += (flags & DRV_ALLOCATES) != 0;
    for (int i = 0; i < n_failures; i++) {
        failure *one = &failures[i];
        bool counts = one->kind == OF_NAME   ? one->call == (int)call
                      : one->kind == OF_CALL ? (flags & DRV_ASKS) == 0
                                             : (flags & DRV_ALLOCATES) != 0;
        if (!counts || one->left == 0 || --one->left > 0) continue;
        drv.counts.failures_fired++;
        drv.fired = drv_call_names[call];
        code = one->code > 0 ? one->code
               : one->sticky ? DRV_LAUNCH_FAILED
                             : usual_code(call, flags);
        if (!one->sticky) continue;
        drv.sticky = code;
        drv_drop_all();
    }
    return code;
}

// ---- in and out

kt_cu_result drv_enter(drv_call call, unsigned flags) {
    (void)pthread_mutex_lock(&drv.lock);
    if (drv.pid == 0) { // also where cuInit is made to fail
        drv.pid = (int)getpid();
        (void)atexit(drv_report_at_exit);
    }
    drv_call_name = drv_call_names[call];
    drv.calls[call]++;
    drv.counts.calls++;
    kt_cu_result code = inject(call, flags);
    if ((flags & DRV_BEFORE_INIT) != 0) return code;
    if (!drv.initialised) return DRV_NOT_INITIALIZED;
    if (code != KT_CU_SUCCESS) return code;
    if (drv.sticky != KT_CU_SUCCESS && (flags & DRV_LATE) == 0) return drv.sticky;
    if ((flags & DRV_CURRENT) == 0) return KT_CU_SUCCESS;
    if (drv_current_context == NULL) {
        drv_violation("no context is current on this thread");
        return DRV_INVALID_CONTEXT;
    }
    if (drv_handle_peek(DRV_CONTEXT, drv_current_handle) == NULL) { // another thread released it
        drv_violation("the context that is current on this thread exists no more");
        return DRV_DESTROYED_CONTEXT;
    }
    return KT_CU_SUCCESS;
}

kt_cu_result drv_leave(kt_cu_result code) {
    drv.last_call_ns = drv_now_ns();
    (void)pthread_mutex_unlock(&drv.lock);
    return code;
}

void drv_get_lost(kt_cu_result code, const char *why) {
    if (drv.sticky != KT_CU_SUCCESS) return;
    drv.sticky = code;
    (void)fprintf(stderr, "emu: the device is lost (error %d): %s\n", code, why);
}

// ---- finding functions

enum { FOUND = 0, NO_SYMBOL = 1, NO_VERSION = 2 };

// NOLINTBEGIN(readability-identifier-naming): the driver's names
__attribute__((visibility("default"))) kt_cu_result cuGetProcAddress_v2(
    const char *name, void **out, int version, uint64_t flags, int *status);
kt_cu_result cuGetProcAddress_v2(
    const char *name, void **out, int version, uint64_t flags, int *status) {
    (void)flags;
    *out = NULL;
    if (status != NULL) *status = NO_SYMBOL;
    drv_profile profile;
    drv_profile_read(getenv("KOTARO_EMU_DEVICE"), &profile);
    int call = find_call(name, strlen(name));
    if (call < 0 || entries[call].version > profile.driver || drv_profile_lacks(&profile, name))
        return DRV_NOT_FOUND;
    if (version < entries[call].version) {
        if (status != NULL) *status = NO_VERSION;
        return DRV_NOT_FOUND;
    }
    if (status != NULL) *status = FOUND;
    memcpy(out, &entries[call].at, sizeof *out);
    return KT_CU_SUCCESS;
}

__attribute__((visibility("default"))) kt_cu_result cuDriverGetVersion(int *version);
kt_cu_result cuDriverGetVersion(int *version) {
    drv_profile profile;
    drv_profile_read(getenv("KOTARO_EMU_DEVICE"), &profile);
    *version = profile.driver;
    return KT_CU_SUCCESS;
}

// NOLINTEND(readability-identifier-naming)

kt_cu_result drv_api_cuDriverGetVersion(int *version) {
    return cuDriverGetVersion(version);
}

// ---- starting

static void refuse(const char *variable, const char *expected) {
    (void)fprintf(stderr, "emu: %s=%s is not understood: %s (tests/emu/driver.h)\n", variable,
        getenv(variable), expected);
    _exit(EMU_STRICT_EXIT);
}

static uint64_t number_of(const char *variable, uint64_t otherwise, uint64_t most) {
    const char *text = getenv(variable);
    if (text == NULL || *text == 0) return otherwise;
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 0);
    if (*text < '0' || *text > '9' || *end != 0 || errno != 0 || number > most)
        refuse(variable, "it is a number");
    return number;
}

static void check_mode(void) {
    const char *mode = getenv("KOTARO_EMU");
    if (mode == NULL || *mode == 0 || strcmp(mode, "checked") == 0) return;
    if (strcmp(mode, "plain") != 0 && strcmp(mode, "asan") != 0)
        refuse("KOTARO_EMU", "it is one of checked, plain, asan");
}

static kt_cu_result start(void) {
    if (drv.initialised) return KT_CU_SUCCESS;
    drv_profile_read(getenv("KOTARO_EMU_DEVICE"), &drv.profile);
    if (drv.profile.count == 0) return DRV_NO_DEVICE;
    check_mode();
    random_state = number_of("KOTARO_EMU_SEED", 1, UINT64_MAX);
    const emu_options options = {random_state, (int)number_of("KOTARO_EMU_ORDERS", 1, 1000),
        (int)number_of("KOTARO_EMU_SECONDS", 0, 1000000)};
    emu_configure(&options);
    drv.initialised = true;
    return KT_CU_SUCCESS;
}

// Before the first call, so that it can fail as well.
__attribute__((constructor)) static void read_failures(void) {
    const char *text = getenv("KOTARO_EMU_FAIL");
    if (text == NULL || add_failures(text)) return;
    refuse("KOTARO_EMU_FAIL", "NAME:N of a function that the runtime uses, call:N or alloc:N");
}

kt_cu_result drv_api_cuInit(unsigned flags) {
    (void)flags;
    DRV_DO(cuInit, DRV_BEFORE_INIT, start());
}

// ---- codes

typedef struct code_row {
    kt_cu_result code;
    const char *name, *text;
} code_row;

static const code_row codes[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {DRV_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {KT_CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {DRV_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {DRV_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {DRV_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {DRV_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {DRV_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {DRV_NO_BINARY, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image for the device"},
    {DRV_OPERATING_SYSTEM, "CUDA_ERROR_OPERATING_SYSTEM", "a call of the system failed"},
    {DRV_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {DRV_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {KT_CU_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {DRV_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was made"},
    {DRV_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested"},
    {DRV_DESTROYED_CONTEXT, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {DRV_REGISTERED_ALREADY, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "registered already"},
    {DRV_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "not registered"},
    {DRV_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "a kernel failed"},
    {DRV_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static const code_row *find_code(kt_cu_result code) {
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i].code == code) return &codes[i];
    return NULL;
}

kt_cu_result drv_api_cuGetErrorName(kt_cu_result code, const char **out) {
    const code_row *row = find_code(code);
    *out = row == NULL ? NULL : row->name;
    return row == NULL ? DRV_INVALID_VALUE : KT_CU_SUCCESS;
}

kt_cu_result drv_api_cuGetErrorString(kt_cu_result code, const char **out) {
    const code_row *row = find_code(code);
    *out = row == NULL ? NULL : row->text;
    return row == NULL ? DRV_INVALID_VALUE : KT_CU_SUCCESS;
}
