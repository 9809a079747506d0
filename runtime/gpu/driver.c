#include "runtime/gpu/driver.h"

#include "runtime/base/os.h"

#include <string.h>

#define ROW_R                            true
#define ROW_O                            false
#define ROW(need, name, version, params) {#name, version, ROW_##need, offsetof(kt_driver, name)},
const kt_driver_row kt_driver_rows[] = {KT_DRIVER_LIST(ROW)};
#undef ROW
const int kt_driver_n_rows = (int)(sizeof kt_driver_rows / sizeof kt_driver_rows[0]);

enum {
    OLDEST_VERSION = 12000, // CUDA 12.0: kernels without a context, cuGetProcAddress with a status
};

typedef kt_cu_result(KT_CU_API *get_address)(
    const char *name, void **out, int version, uint64_t flags, int *status);
typedef kt_cu_result(KT_CU_API *get_version)(int *version);

// What we know about a code beyond the driver's own name, and the status it becomes.
typedef struct known_code {
    kt_cu_result code;
    kt_status status;
    const char *text;
} known_code;

static const known_code known_codes[] = {
    {2, KT_EMEMORY,
        "the GPU has no memory left; close other programs that use it (a browser, a game, another "
        "model)"},
    {3, KT_EDRIVER, "the driver is not initialised"},
    {34, KT_EDRIVER,
        "this file is the CUDA toolkit's stand-in for linking, not a driver; take its folder out "
        "of LD_LIBRARY_PATH and install the NVIDIA driver"},
    {46, KT_EDRIVER, "the device is in use by another process or cannot be used now"},
    {100, KT_EDRIVER,
        "the driver found no NVIDIA GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES and, in a "
        "container, that GPUs are passed in"},
    {101, KT_EDRIVER, "there is no such device"},
    {200, KT_ECOMPILE, "the driver does not accept the compiled code"},
    {209, KT_ECOMPILE, "the compiled code is for another GPU architecture"},
    {218, KT_ECOMPILE, "the driver does not accept the PTX"},
    {222, KT_ECOMPILE, "the code was made by a compiler newer than the driver; update the driver"},
    {300, KT_ECOMPILE, "the driver does not accept the compiled code"},
    {700, KT_EGPU, "a kernel read or wrote outside its memory"},
    {701, KT_EGPU, "the kernel needs more registers or shared memory than the GPU gives a block"},
    {702, KT_EGPU, "a kernel ran longer than the system allows"},
    {716, KT_EGPU, "a kernel used a misaligned address"},
    {719, KT_EGPU, "a kernel failed"},
    {802, KT_EDRIVER, "the system is not ready to run CUDA work yet"},
    {803, KT_EDRIVER,
        "the driver's library and its kernel module are of different versions: restart the machine "
        "after a driver update"},
    {804, KT_EDRIVER,
        "a forward-compatibility package is installed that this GPU does not support; remove it "
        "(cuda-compat) so that the driver's own library is used"},
    {999, KT_EGPU,
        "the driver gives no reason; usual causes are a machine back from sleep (restart, or "
        "reload the driver) and a container without the right devices"},
};

// The driver belongs to the process: one table, never unloaded.
static kt_driver process_driver;
static bool process_driver_open;

static const known_code *find_code(kt_cu_result code) {
    for (size_t i = 0; i < sizeof known_codes / sizeof known_codes[0]; i++)
        if (known_codes[i].code == code) return &known_codes[i];
    return NULL;
}

const char *kt_driver_error_name(const kt_driver *driver, kt_cu_result code, char space[32]) {
    const char *name = NULL;
    if (driver != NULL && driver->cuGetErrorName != NULL &&
        driver->cuGetErrorName(code, &name) == KT_CU_SUCCESS && name != NULL)
        return name;
    (void)snprintf(space, 32, "error %d", code);
    return space;
}

bool kt_driver_error_is_sticky(kt_cu_result code) {
    switch (code) {
    case 4:   // the driver shuts down
    case 214: // uncorrectable memory error
    case 220: // NVLink
    case 700:
    case 702:
    case 709: // context destroyed
    case 710:
    case 714:
    case 715:
    case 716:
    case 717:
    case 718:
    case 719:
    case 721:
    case 810:
    case 999:
        return true;
    default:
        return false;
    }
}

kt_status kt_driver_check(
    const kt_driver *driver, kt_cu_result code, const char *call, const char *doing, kt_err *err) {
    if (code == KT_CU_SUCCESS) return KT_OK;
    char space[32];
    const char *name = kt_driver_error_name(driver, code, space);
    const known_code *known = find_code(code);
    kt_status status = known == NULL ? KT_EGPU : known->status;
    kt_err_set(err, status, "%s failed: %s (%s, code %d)", doing, name, call, code);
    if (known != NULL) {
        kt_err_note(err, "%s", known->text);
    } else {
        const char *text = NULL;
        if (driver->cuGetErrorString(code, &text) == KT_CU_SUCCESS && text != NULL)
            kt_err_note(err, "%s", text);
    }
    return status;
}

void kt_driver_trace(kt_driver *driver, FILE *out) {
    driver->trace = out;
}

void kt_driver_note(kt_driver *driver, const char *call) {
    driver->n_traced++;
    (void)fprintf(driver->trace, "%s\n", call);
}

void kt_driver_notef(kt_driver *driver, const char *call, const char *fmt, ...) {
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    driver->n_traced++;
    (void)fprintf(driver->trace, "%s %s\n", call, text);
}

// Fills the table through cuGetProcAddress, by base name and the version that our prototype was
// written for.
static kt_status resolve(kt_driver *driver, get_address find, kt_err *err) {
    for (int i = 0; i < kt_driver_n_rows; i++) {
        const kt_driver_row *row = &kt_driver_rows[i];
        void *at = NULL;
        int found = 0;
        kt_cu_result code = find(row->name, &at, row->version, 0, &found);
        if (code != KT_CU_SUCCESS || found != 0) at = NULL;
        if (at == NULL && row->required)
            return KT_FAIL(err, KT_EDRIVER,
                "the driver '%s' lacks %s (interface %d.%d); it offers CUDA %d.%d\nnote: install a "
                "newer NVIDIA driver (525 or later on Linux, 528 on Windows)",
                driver->path, row->name, row->version / 1000, row->version / 10 % 100,
                driver->version / 1000, driver->version / 10 % 100);
        _Static_assert(sizeof at == sizeof driver->cuInit, "as large as a function's address");
        memcpy((char *)driver + row->field, &at, sizeof at);
    }
    return KT_OK;
}

// Opens one candidate up to and including cuInit. *stub is set when the file is the toolkit's
// stand-in.
static kt_status open_library(
    kt_driver *driver, kt_os_library *library, const char *asked, bool *stub, kt_err *err) {
    if (!kt_os_library_path(library, driver->path, sizeof driver->path))
        (void)snprintf(driver->path, sizeof driver->path, "%s", asked);
    get_version version = (get_version)kt_os_library_function(library, "cuDriverGetVersion");
    if (version == NULL)
        return KT_FAIL(err, KT_EDRIVER, "'%s' is not an NVIDIA driver library", driver->path);
    kt_cu_result code = version(&driver->version);
    *stub = code == KT_CU_STUB_LIBRARY;
    get_address find = (get_address)kt_os_library_function(library, "cuGetProcAddress_v2");
    if (!*stub && (code != KT_CU_SUCCESS || find == NULL || driver->version < OLDEST_VERSION))
        return KT_FAIL(err, KT_EDRIVER,
            "the NVIDIA driver '%s' is too old (CUDA %d.%d, Kotaro needs 12.0)\nnote: install "
            "driver 525 or later (Windows: 528)",
            driver->path, driver->version / 1000, driver->version / 10 % 100);
    if (!*stub) KT_TRY(resolve(driver, find, err));
    double start = kt_os_now_ms();
    if (!*stub) code = KT_CUF(driver, cuInit, (0), "flags=0");
    driver->init_ms = kt_os_now_ms() - start;
    *stub = code == KT_CU_STUB_LIBRARY;
    if (code == KT_CU_SUCCESS) return KT_OK;
    char what[600];
    (void)snprintf(what, sizeof what, "starting the NVIDIA driver '%s'", driver->path);
    kt_err told;
    (void)kt_driver_check(driver, code, "cuInit", what, &told);
    return KT_FAIL(err, KT_EDRIVER, "%s", told.text);
}

// Where the library may be. The plain name first: only it follows the system's own configuration.
static const char *const candidates[] = {
#ifdef _WIN32
    "nvcuda.dll", // os_win32.c looks for a bare name in System32 only
#else
    "libcuda.so.1",
    "/usr/lib/wsl/lib/libcuda.so.1",
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1", // behind a stub that comes first
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
#endif
};

static kt_status open_any(kt_driver *driver, kt_err *err) {
    const char *const *names = candidates;
    size_t n = sizeof candidates / sizeof candidates[0];
#ifdef KT_TEST_DRIVER
    const char *test = kt_os_getenv("KOTARO_TEST_DRIVER");
    if (test != NULL) {
        names = &test;
        n = 1;
    }
#endif
    FILE *trace = driver->trace;
    kt_buf why = {0};
    kt_status status = KT_EDRIVER;
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        double start = kt_os_now_ms();
        kt_buf reason = {0};
        kt_os_library *library = kt_os_library_open(names[i], &reason);
        if (library == NULL && i == 0) kt_buf_printf(&why, "%s", reason.n > 0 ? reason.at : "");
        kt_buf_deinit(&reason);
        if (library == NULL) continue;
        *driver = (kt_driver){.trace = trace};
        bool stub = false;
        kt_err now;
        status = open_library(driver, library, names[i], &stub, &now);
        driver->open_ms = kt_os_now_ms() - start - driver->init_ms;
        if (status == KT_OK) break;
        if (!found) *err = now; // the first library's trouble is the one to tell
        found = true;
        if (!stub) break;
    }
    if (status != KT_OK && !found)
        kt_err_set(err, KT_EDRIVER,
            "no NVIDIA driver on this machine: %s\nnote: install the NVIDIA driver, or run on the "
            "processor with --device cpu",
            why.n > 0 ? why.at : "its library cannot be opened");
    kt_buf_deinit(&why);
    return status;
}

kt_status kt_driver_open(kt_driver **out, kt_err *err) {
    *out = NULL;
    if (!process_driver_open) KT_TRY(open_any(&process_driver, err));
    process_driver_open = true;
    process_driver.n_opened++;
    *out = &process_driver;
    return KT_OK;
}
