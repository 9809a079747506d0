#include "runtime/base/os.h"
#ifdef _WIN32

#include "runtime/base/file.h"

#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <winioctl.h>

#include <bcrypt.h>
#include <fcntl.h>
#include <io.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

// ---- text: UTF-8 inside, UTF-16 at this edge

static void *new_zeroed(size_t size) {
    void *out = calloc(1, size);
    if (out == NULL) kt_out_of_memory(size);
    return out;
}

// UTF-16 on the heap; NULL if the text is not UTF-8.
static wchar_t *wide(const char *text) {
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0);
    if (n <= 0) return NULL;
    wchar_t *out = new_zeroed((size_t)n * sizeof *out);
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, out, n);
    return out;
}

// A path with '\', absolute and marked as long where the old limit would cut it.
static wchar_t *wide_path(const char *path) {
    wchar_t *given = wide(path);
    if (given == NULL) return NULL;
    for (wchar_t *at = given; *at != 0; at++) {
        if (*at == L'/') *at = L'\\';
    }
    if (wcslen(given) < 240 || wcsncmp(given, L"\\\\", 2) == 0) return given;
    DWORD n = GetFullPathNameW(given, 0, NULL, NULL);
    wchar_t *out = new_zeroed(((size_t)n + 5) * sizeof *out);
    memcpy(out, L"\\\\?\\", 4 * sizeof *out);
    GetFullPathNameW(given, n, out + 4, NULL);
    free(given);
    return out;
}

static char *narrow(kt_arena *arena, const wchar_t *text) {
    int n = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
    char *out = kt_arena_alloc(arena, n <= 0 ? 1 : (size_t)n);
    if (n > 0) WideCharToMultiByte(CP_UTF8, 0, text, -1, out, n, NULL, NULL);
    return out;
}

static char *narrow_path(kt_arena *arena, const wchar_t *path) {
    char *out = narrow(arena, path);
    for (char *at = out; *at != 0; at++) {
        if (*at == '\\') *at = '/';
    }
    return out;
}

// The system's sentence for an error code, without its line end.
static const char *reason_of(DWORD code, char *text, size_t size) {
    wchar_t sentence[256];
    DWORD flags = FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS;
    DWORD n =
        FormatMessageW(flags, NULL, code, 0, sentence, sizeof sentence / sizeof *sentence, NULL);
    while (n > 0 && (sentence[n - 1] < 32 || sentence[n - 1] == L'.')) sentence[--n] = 0;
    int bytes =
        n == 0 ? 0 : WideCharToMultiByte(CP_UTF8, 0, sentence, -1, text, (int)size, NULL, NULL);
    if (bytes <= 0) snprintf(text, size, "system error %lu", (unsigned long)code);
    return text;
}

static kt_status fail(kt_err *err, const char *verb, const char *path, DWORD code) {
    char reason[512];
    return KT_FAIL(
        err, KT_EFILE, "cannot %s '%s': %s", verb, path, reason_of(code, reason, sizeof reason));
}

// ---- files

enum { BUSY_TRIES = 3, BUSY_WAIT_MS = 10, MAX_TRANSFER = 1 << 30 };

struct kt_os_file {
    HANDLE handle;
    int64_t size;
    char path[]; // for messages
};

static bool is_busy(DWORD code) {
    return code == ERROR_ACCESS_DENIED || code == ERROR_SHARING_VIOLATION;
}

// Opens what is there, sharing everything; another process may be replacing the file just now.
static HANDLE open_existing(const char *path, DWORD access, DWORD flags) {
    wchar_t *name = wide_path(path);
    if (name == NULL) {
        SetLastError(ERROR_NO_UNICODE_TRANSLATION);
        return INVALID_HANDLE_VALUE;
    }
    const DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    HANDLE handle = INVALID_HANDLE_VALUE;
    DWORD code = 0;
    for (int i = 0; i < BUSY_TRIES; i++) {
        if (i > 0) Sleep(BUSY_WAIT_MS);
        handle = CreateFileW(name, access, share, NULL, OPEN_EXISTING, flags, NULL);
        code = GetLastError();
        if (handle != INVALID_HANDLE_VALUE || !is_busy(code)) break;
    }
    free(name);
    SetLastError(code);
    return handle;
}

static int64_t wide_int(DWORD high, DWORD low) {
    return (int64_t)(((uint64_t)high << 32) | low);
}

// FILETIME counts 100 ns from 1601; 1970 is 11644473600 s later.
static int64_t unix_seconds(FILETIME time) {
    return wide_int(time.dwHighDateTime, time.dwLowDateTime) / 10000000 - 11644473600;
}

// No file or folder is at a path: the code of an attempt to open it.
static bool means_nothing(DWORD code) {
    return code == ERROR_FILE_NOT_FOUND || code == ERROR_PATH_NOT_FOUND ||
           code == ERROR_INVALID_NAME || code == ERROR_BAD_PATHNAME || code == ERROR_BAD_NETPATH ||
           code == ERROR_BAD_NET_NAME || code == ERROR_DIRECTORY || code == ERROR_INVALID_DRIVE ||
           code == ERROR_NOT_READY || code == ERROR_FILENAME_EXCED_RANGE;
}

kt_path_info kt_os_stat(const char *path) {
    kt_path_info info = {.kind = KT_PATH_NONE};
    HANDLE handle = open_existing(path, FILE_READ_ATTRIBUTES, FILE_FLAG_BACKUP_SEMANTICS);
    if (handle == INVALID_HANDLE_VALUE) {
        if (!means_nothing(GetLastError())) info.kind = KT_PATH_UNKNOWN;
        return info;
    }
    BY_HANDLE_FILE_INFORMATION found;
    if (GetFileType(handle) != FILE_TYPE_DISK) {
        info.kind = KT_PATH_OTHER;
    } else if (GetFileInformationByHandle(handle, &found)) {
        bool folder = (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
        info.kind = folder ? KT_PATH_FOLDER : KT_PATH_FILE;
        info.size_bytes = wide_int(found.nFileSizeHigh, found.nFileSizeLow);
        info.modified_s = unix_seconds(found.ftLastWriteTime);
    }
    CloseHandle(handle);
    return info;
}

bool kt_os_may_be_file(const char *path) {
    kt_path_kind kind = kt_os_stat(path).kind;
    return kind == KT_PATH_FILE || kind == KT_PATH_UNKNOWN;
}

kt_status kt_os_open(const char *path, kt_os_file **out, kt_err *err) {
    *out = NULL;
    HANDLE handle =
        open_existing(path, GENERIC_READ, FILE_FLAG_SEQUENTIAL_SCAN | FILE_FLAG_OVERLAPPED);
    if (handle == INVALID_HANDLE_VALUE) return fail(err, "open", path, GetLastError());
    LARGE_INTEGER size;
    if (GetFileType(handle) != FILE_TYPE_DISK || !GetFileSizeEx(handle, &size)) {
        CloseHandle(handle);
        return KT_FAIL(err, KT_EFILE, "cannot open '%s': it is not a file", path);
    }
    size_t n = strlen(path) + 1;
    kt_os_file *file = new_zeroed(sizeof *file + n);
    file->handle = handle;
    file->size = size.QuadPart;
    memcpy(file->path, path, n);
    *out = file;
    return KT_OK;
}

void kt_os_close(kt_os_file *file) {
    if (file == NULL) return;
    CloseHandle(file->handle);
    free(file);
}

int64_t kt_os_size(const kt_os_file *file) {
    return file->size;
}

// One read at an offset. 0 at the end of the file. The handle is an overlapped one, so that the
// reads of several threads do not wait for each other.
static bool read_once(kt_os_file *file, uint64_t from, void *to, DWORD want, DWORD *n) {
    OVERLAPPED place = {0};
    place.Offset = (DWORD)(from & 0xffffffffU);
    place.OffsetHigh = (DWORD)(from >> 32);
    place.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (place.hEvent == NULL) return false;
    *n = 0;
    bool begun = ReadFile(file->handle, to, want, NULL, &place) != 0;
    bool done = (begun || GetLastError() == ERROR_IO_PENDING) &&
                GetOverlappedResult(file->handle, &place, n, TRUE) != 0;
    DWORD code = done ? 0 : GetLastError();
    CloseHandle(place.hEvent);
    SetLastError(code);
    return done || code == ERROR_HANDLE_EOF;
}

kt_status kt_os_read_at(kt_os_file *file, int64_t offset, void *out, size_t size, kt_err *err) {
    char *to = out;
    for (size_t done = 0; done < size;) {
        size_t rest = size - done;
        DWORD want = rest > MAX_TRANSFER ? MAX_TRANSFER : (DWORD)rest;
        DWORD n = 0;
        if (!read_once(file, (uint64_t)offset + done, to + done, want, &n))
            return fail(err, "read", file->path, GetLastError());
        if (n == 0) {
            return KT_FAIL(err, KT_EFILE, "cannot read '%s': it ends %zu bytes too early",
                file->path, size - done);
        }
        done += n;
    }
    return KT_OK;
}

struct kt_os_sink {
    HANDLE handle;
    char path[]; // for messages
};

kt_status kt_os_create(const char *path, int64_t size, kt_os_sink **out, kt_err *err) {
    *out = NULL;
    wchar_t *name = wide_path(path);
    HANDLE handle = name == NULL ? INVALID_HANDLE_VALUE
                                 : CreateFileW(name, GENERIC_WRITE, FILE_SHARE_READ, NULL,
                                       CREATE_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
    DWORD code = name == NULL ? ERROR_NO_UNICODE_TRANSLATION : GetLastError();
    free(name);
    if (handle == INVALID_HANDLE_VALUE) return fail(err, "create", path, code);
    DWORD n_out = 0; // where the file system refuses, holes take room: no error
    DeviceIoControl(handle, FSCTL_SET_SPARSE, NULL, 0, NULL, 0, &n_out, NULL);
    LARGE_INTEGER end = {.QuadPart = size};
    if (!SetFilePointerEx(handle, end, NULL, FILE_BEGIN) || !SetEndOfFile(handle)) {
        code = GetLastError();
        CloseHandle(handle);
        return fail(err, "create", path, code);
    }
    size_t n = strlen(path) + 1;
    kt_os_sink *sink = new_zeroed(sizeof *sink + n);
    sink->handle = handle;
    memcpy(sink->path, path, n);
    *out = sink;
    return KT_OK;
}

kt_status kt_os_write_at(
    kt_os_sink *sink, int64_t offset, const void *bytes, size_t size, kt_err *err) {
    const char *from = bytes;
    for (size_t done = 0; done < size;) {
        uint64_t to = (uint64_t)offset + done;
        OVERLAPPED place = {0}; // on a handle opened for waiting, this only carries the offset
        place.Offset = (DWORD)(to & 0xffffffffU);
        place.OffsetHigh = (DWORD)(to >> 32);
        size_t rest = size - done;
        DWORD n = 0;
        if (!WriteFile(sink->handle, from + done, rest > MAX_TRANSFER ? MAX_TRANSFER : (DWORD)rest,
                &n, &place)) {
            return fail(err, "write", sink->path, GetLastError());
        }
        done += n;
    }
    return KT_OK;
}

kt_status kt_os_sink_close(kt_os_sink *sink, kt_err *err) {
    if (sink == NULL) return KT_OK;
    kt_status status = KT_OK;
    if (!CloseHandle(sink->handle)) status = fail(err, "write", sink->path, GetLastError());
    free(sink);
    return status;
}

void kt_os_will_read(kt_os_file *file, int64_t offset, int64_t size_bytes) {
    (void)file, (void)offset, (void)size_bytes; // the cache manager finds out by itself
}

// Always binary: line ends are ours.
FILE *kt_os_fopen(const char *path, const char *mode) {
    char binary[16];
    snprintf(binary, sizeof binary, "%s%s", mode, strchr(mode, 'b') == NULL ? "b" : "");
    wchar_t *name = wide_path(path), *how = wide(binary);
    FILE *file = name == NULL || how == NULL ? NULL : _wfopen(name, how);
    free(name);
    free(how);
    return file;
}

bool kt_os_mkdirs(const char *path) {
    if (path[0] == 0) return false;
    size_t n = strlen(path);
    char *part = new_zeroed(n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\\' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        wchar_t *name = wide_path(part);
        if (name != NULL) CreateDirectoryW(name, NULL); // fails on "C:" and on what is there
        free(name);
    }
    free(part);
    return kt_os_stat(path).kind == KT_PATH_FOLDER;
}

// The profile's access list keeps others out; what is left to refuse is a link to elsewhere.
bool kt_os_private_folder(const char *path) {
    if (!kt_os_mkdirs(path)) return false;
    wchar_t *name = wide_path(path);
    DWORD have = name == NULL ? INVALID_FILE_ATTRIBUTES : GetFileAttributesW(name);
    free(name);
    if (have == INVALID_FILE_ATTRIBUTES) return false;
    return (have & FILE_ATTRIBUTE_DIRECTORY) != 0 && (have & FILE_ATTRIBUTE_REPARSE_POINT) == 0;
}

static DWORD write_new(const wchar_t *name, const char *bytes, size_t size) {
    HANDLE handle =
        CreateFileW(name, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    if (handle == INVALID_HANDLE_VALUE) return GetLastError();
    DWORD code = 0;
    for (size_t done = 0; done < size && code == 0;) {
        size_t rest = size - done;
        DWORD n = rest > MAX_TRANSFER ? MAX_TRANSFER : (DWORD)rest;
        if (!WriteFile(handle, bytes + done, n, &n, NULL)) code = GetLastError();
        done += n;
    }
    if (!CloseHandle(handle) && code == 0) code = GetLastError();
    if (code != 0) DeleteFileW(name);
    return code;
}

static bool holds(const char *path, const void *bytes, size_t size) {
    kt_arena tmp = {0};
    kt_err ignored;
    kt_str found;
    bool same = kt_file_read(&tmp, path, (int64_t)size, &found, &ignored) == KT_OK &&
                kt_str_eq(found, (kt_str){bytes, size});
    kt_arena_deinit(&tmp);
    return same;
}

kt_status kt_os_write_atomic(const char *path, const void *bytes, size_t size, kt_err *err) {
    kt_arena tmp = {0};
    uint64_t salt;
    kt_os_random(&salt, sizeof salt);
    wchar_t *to = wide_path(path);
    wchar_t *temp =
        wide_path(kt_arena_printf(&tmp, "%s.%016llx.tmp", path, (unsigned long long)salt));
    kt_arena_deinit(&tmp);
    bool named = to != NULL && temp != NULL;
    DWORD code = named ? write_new(temp, bytes, size) : ERROR_NO_UNICODE_TRANSLATION;
    if (code == 0) {
        for (int i = 0; i < BUSY_TRIES; i++) {
            if (i > 0) Sleep(BUSY_WAIT_MS);
            code = MoveFileExW(temp, to, MOVEFILE_REPLACE_EXISTING) ? 0 : GetLastError();
            if (!is_busy(code)) break;
        }
        if (code != 0) DeleteFileW(temp);
    }
    free(temp);
    free(to);
    // A reader keeps the target open; that is no loss if it already says the same.
    if (is_busy(code) && holds(path, bytes, size)) code = 0;
    return code == 0 ? KT_OK : fail(err, "write", path, code);
}

bool kt_os_remove(const char *path) {
    wchar_t *name = wide_path(path);
    bool ok = name != NULL && (DeleteFileW(name) || RemoveDirectoryW(name));
    free(name);
    return ok;
}

bool kt_os_touch(const char *path) {
    HANDLE handle = open_existing(path, FILE_WRITE_ATTRIBUTES, FILE_FLAG_BACKUP_SEMANTICS);
    if (handle == INVALID_HANDLE_VALUE) return false;
    FILETIME now;
    GetSystemTimeAsFileTime(&now);
    bool ok = SetFileTime(handle, NULL, NULL, &now);
    CloseHandle(handle);
    return ok;
}

static int by_bytes(const void *a, const void *b) {
    return kt_str_cmp(*(const kt_str *)a, *(const kt_str *)b);
}

kt_str *kt_os_list(kt_arena *arena, const char *folder, int *n) {
    *n = -1;
    wchar_t *pattern = wide_path(kt_arena_printf(arena, "%s/*", folder));
    if (pattern == NULL) return NULL;
    WIN32_FIND_DATAW entry;
    HANDLE search = FindFirstFileW(pattern, &entry);
    free(pattern);
    if (search == INVALID_HANDLE_VALUE) return NULL;
    KT_VEC(kt_str) names = {0};
    do {
        kt_str name = kt_str_from(narrow(arena, entry.cFileName));
        if (!kt_str_is(name, ".") && !kt_str_is(name, "..")) KT_PUSH(arena, &names, name);
    } while (FindNextFileW(search, &entry));
    bool whole = GetLastError() == ERROR_NO_MORE_FILES;
    FindClose(search);
    if (!whole) return NULL;
    if (names.n > 1) qsort(names.at, names.n, sizeof *names.at, by_bytes);
    *n = (int)names.n;
    return names.at;
}

char *kt_os_absolute(kt_arena *arena, const char *path) {
    wchar_t *given = wide(path[0] == 0 ? "." : path);
    DWORD n = given == NULL ? 0 : GetFullPathNameW(given, 0, NULL, NULL);
    if (n == 0) {
        free(given);
        return kt_arena_copy(arena, path, strlen(path));
    }
    wchar_t *full = new_zeroed((size_t)n * sizeof *full);
    GetFullPathNameW(given, n, full, NULL);
    char *out = narrow_path(arena, full);
    free(full);
    free(given);
    return out;
}

char *kt_os_executable(kt_arena *arena) {
    enum { MAX_CHARS = 32768 }; // the system's own limit for a path
    wchar_t *path = new_zeroed(MAX_CHARS * sizeof *path);
    DWORD n = GetModuleFileNameW(NULL, path, MAX_CHARS);
    char *out = n > 0 && n < MAX_CHARS ? narrow_path(arena, path) : NULL;
    free(path);
    return out;
}

static char *slashes(kt_arena *arena, const char *path) {
    char *out = kt_arena_copy(arena, path, strlen(path));
    for (char *at = out; *at != 0; at++) {
        if (*at == '\\') *at = '/';
    }
    return out;
}

char *kt_os_cache_folder(kt_arena *arena) {
    const char *own = kt_os_getenv("KOTARO_CACHE_DIR");
    if (own != NULL && own[0] != 0) return kt_os_absolute(arena, own);
    const char *local = kt_os_getenv("LOCALAPPDATA");
    if (local == NULL || !kt_path_is_absolute(local)) return NULL;
    return kt_path_join(arena, slashes(arena, local), "kotaro/cache");
}

char *kt_os_temp_folder(kt_arena *arena) {
    wchar_t path[MAX_PATH + 1];
    DWORD n = GetTempPathW(MAX_PATH + 1, path);
    if (n == 0 || n > MAX_PATH) return kt_arena_copy(arena, ".", 1);
    while (n > 1 && path[n - 1] == L'\\') path[--n] = 0;
    return narrow_path(arena, path);
}

// ---- environment, terminal, time

// Values read so far. They are kept to the end, since callers hold on to them as they do to
// getenv's.
typedef struct env_value {
    struct env_value *before;
    char *name, *value;
} env_value;

static SRWLOCK env_lock = SRWLOCK_INIT;
static env_value *env_values;
static kt_arena env_arena;

static const char *keep_value(const char *name, const wchar_t *found) {
    kt_arena tmp = {0};
    const char *value = narrow(&tmp, found);
    const env_value *known = env_values;
    while (known != NULL && (strcmp(known->name, name) != 0 || strcmp(known->value, value) != 0))
        known = known->before;
    if (known == NULL) {
        env_value *added = KT_NEW(&env_arena, env_value);
        added->name = kt_arena_copy(&env_arena, name, strlen(name));
        added->value = kt_arena_copy(&env_arena, value, strlen(value));
        added->before = env_values;
        env_values = added;
        known = added;
    }
    kt_arena_deinit(&tmp);
    return known->value;
}

const char *kt_os_getenv(const char *name) {
    wchar_t *key = wide(name);
    if (key == NULL) return NULL;
    const char *out = NULL;
    AcquireSRWLockExclusive(&env_lock);
    const wchar_t *found = _wgetenv(key);
    if (found != NULL) out = keep_value(name, found);
    ReleaseSRWLockExclusive(&env_lock);
    free(key);
    return out;
}

bool kt_os_is_terminal(FILE *stream) {
    return _isatty(_fileno(stream)) != 0;
}

int kt_os_terminal_columns(void) {
    CONSOLE_SCREEN_BUFFER_INFO info;
    if (!GetConsoleScreenBufferInfo(GetStdHandle(STD_ERROR_HANDLE), &info)) return 80;
    int columns = info.srWindow.Right - info.srWindow.Left + 1;
    return columns > 0 ? columns : 80;
}

int kt_os_cpu_count(void) {
    DWORD_PTR mine, all;
    int count = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all)) {
        for (; mine != 0; mine &= mine - 1) count++;
    }
    return count > 0 ? count : 1;
}

int64_t kt_os_memory_bytes(void) {
    MEMORYSTATUSEX status = {.dwLength = sizeof status};
    return GlobalMemoryStatusEx(&status) ? (int64_t)status.ullTotalPhys : 0;
}

double kt_os_now_ms(void) {
    LARGE_INTEGER per_second, now;
    QueryPerformanceFrequency(&per_second); // these two cannot fail since Windows XP
    QueryPerformanceCounter(&now);
    return (double)now.QuadPart * 1e3 / (double)per_second.QuadPart;
}

void kt_os_sleep_us(int64_t us) {
    if (us > 0) Sleep((DWORD)((us + 999) / 1000));
}

int kt_os_pid(void) {
    return (int)GetCurrentProcessId();
}

void kt_os_random(void *out, size_t n) {
    NTSTATUS status = BCryptGenRandom(NULL, out, (ULONG)n, BCRYPT_USE_SYSTEM_PREFERRED_RNG);
    KT_ASSERT(status == 0);
}

static volatile int *interrupt_flag; // the handler runs in a thread of the system's

static BOOL WINAPI on_interrupt(DWORD event) {
    if (event != CTRL_C_EVENT || interrupt_flag == NULL || *interrupt_flag != 0) return FALSE;
    *interrupt_flag = 1;
    return TRUE;
}

void kt_os_catch_interrupt(volatile int *flag) {
    interrupt_flag = flag;
    SetConsoleCtrlHandler(on_interrupt, TRUE);
}

static UINT console_page;

static void restore_console(void) {
    SetConsoleOutputCP(console_page);
}

void kt_os_setup_console(void) {
    _setmode(_fileno(stdout), _O_BINARY);
    _setmode(_fileno(stderr), _O_BINARY);
    HANDLE console = GetStdHandle(STD_ERROR_HANDLE);
    DWORD mode;
    // The progress line uses an escape sequence.
    if (GetConsoleMode(console, &mode)) SetConsoleMode(console, mode | 4 /* VT processing */);
    console_page = GetConsoleOutputCP();
    if (console_page == 0 || console_page == CP_UTF8) return;
    if (SetConsoleOutputCP(CP_UTF8)) atexit(restore_console);
}

// ---- programs

// Quotes one argument so that the program's own splitting gives it back: backslashes count only
// before a quote. source: Microsoft Learn, "Parsing C command-line arguments"
static void add_argument(kt_buf *line, const char *arg) {
    if (line->n > 0) kt_buf_add(line, " ", 1);
    kt_buf_add(line, "\"", 1);
    size_t backslashes = 0;
    for (const char *at = arg; *at != 0; at++) {
        size_t extra = *at == '"' ? backslashes + 1 : 0;
        for (; extra > 0; extra--) kt_buf_add(line, "\\", 1);
        backslashes = *at == '\\' ? backslashes + 1 : 0;
        kt_buf_add(line, at, 1);
    }
    for (; backslashes > 0; backslashes--) kt_buf_add(line, "\\", 1);
    kt_buf_add(line, "\"", 1);
}

static void drain(HANDLE pipe, kt_buf *out) {
    char part[4096];
    DWORD n;
    while (ReadFile(pipe, part, sizeof part, &n, NULL) && n > 0) {
        if (out != NULL) kt_buf_add(out, part, n);
    }
}

static int wait_for(HANDLE process) {
    DWORD code;
    WaitForSingleObject(process, INFINITE);
    return GetExitCodeProcess(process, &code) ? (int)code : -1;
}

int kt_os_run(const char *const *argv, kt_buf *out) {
    kt_buf line = {0};
    for (int i = 0; argv[i] != NULL; i++) add_argument(&line, argv[i]);
    wchar_t *command = wide(line.at);
    kt_buf_deinit(&line);
    SECURITY_ATTRIBUTES inherit = {.nLength = sizeof inherit, .bInheritHandle = TRUE};
    HANDLE read_end, write_end;
    if (command == NULL || !CreatePipe(&read_end, &write_end, &inherit, 0)) {
        free(command);
        return -1;
    }
    SetHandleInformation(read_end, HANDLE_FLAG_INHERIT, 0);
    HANDLE nothing =
        CreateFileW(L"NUL", GENERIC_READ, FILE_SHARE_READ, &inherit, OPEN_EXISTING, 0, NULL);
    STARTUPINFOW start = {.cb = sizeof start,
        .dwFlags = STARTF_USESTDHANDLES,
        .hStdInput = nothing,
        .hStdOutput = write_end,
        .hStdError = write_end};
    PROCESS_INFORMATION child;
    BOOL started = CreateProcessW(
        NULL, command, NULL, NULL, TRUE, CREATE_NO_WINDOW, NULL, NULL, &start, &child);
    CloseHandle(write_end);
    CloseHandle(nothing);
    free(command);
    int code = -1;
    if (started) {
        drain(read_end, out);
        code = wait_for(child.hProcess);
        CloseHandle(child.hThread);
        CloseHandle(child.hProcess);
    }
    CloseHandle(read_end);
    return code;
}

// ---- memory

// Large pages take a right that programs seldom have, and little can be pinned: the driver's own
// way is the tried one here.
void *kt_os_pages(size_t size_bytes) {
    (void)size_bytes;
    return NULL;
}

void kt_os_pages_free(void *at, size_t size_bytes) {
    (void)at, (void)size_bytes;
}

// ---- shared libraries

// A bare name is looked up in the system's folders, never in the current one; a path brings its own
// folder, so that a library finds those it needs beside it.
kt_os_library *kt_os_library_open(const char *path, kt_buf *why) {
    kt_arena tmp = {0};
    bool bare = strchr(path, '/') == NULL && strchr(path, '\\') == NULL;
    wchar_t *name = wide_path(bare ? path : kt_os_absolute(&tmp, path));
    kt_arena_deinit(&tmp);
    DWORD flags = LOAD_LIBRARY_SEARCH_DEFAULT_DIRS | (bare ? 0 : LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR);
    SetLastError(ERROR_NO_UNICODE_TRANSLATION);
    HMODULE module = name == NULL ? NULL : LoadLibraryExW(name, NULL, flags);
    DWORD code = GetLastError();
    free(name);
    if (module == NULL && why != NULL) {
        char reason[512];
        kt_buf_printf(why, "%s: %s", path, reason_of(code, reason, sizeof reason));
    }
    return (kt_os_library *)(void *)module;
}

kt_os_function kt_os_library_function(kt_os_library *library, const char *symbol) {
    FARPROC found = GetProcAddress((HMODULE)(void *)library, symbol);
    kt_os_function function;
    _Static_assert(sizeof function == sizeof found, "both are function pointers");
    memcpy(&function, &found, sizeof function);
    return function;
}

void kt_os_library_close(kt_os_library *library) {
    if (library != NULL) FreeLibrary((HMODULE)(void *)library);
}

bool kt_os_library_path(kt_os_library *library, char *out, size_t n) {
    out[0] = 0;
    wchar_t path[MAX_PATH]; // a longer one is cut, which the count tells
    DWORD have = GetModuleFileNameW((HMODULE)(void *)library, path, MAX_PATH);
    if (have == 0 || have >= MAX_PATH) return false;
    kt_arena tmp = {0};
    int printed = snprintf(out, n, "%s", narrow_path(&tmp, path));
    kt_arena_deinit(&tmp);
    return printed > 0;
}

// ---- threads

struct kt_os_thread {
    HANDLE handle;
    void (*run)(void *ctx);
    void *ctx;
};

struct kt_os_mutex {
    SRWLOCK native;
};

struct kt_os_cond {
    CONDITION_VARIABLE native;
};

static DWORD WINAPI enter_thread(void *arg) {
    const kt_os_thread *thread = arg;
    thread->run(thread->ctx);
    return 0;
}

kt_os_thread *kt_os_thread_start(void (*run)(void *ctx), void *ctx, size_t stack_bytes) {
    kt_os_thread *thread = new_zeroed(sizeof *thread);
    thread->run = run;
    thread->ctx = ctx;
    thread->handle = CreateThread(
        NULL, stack_bytes, enter_thread, thread, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (thread->handle != NULL) return thread;
    free(thread);
    return NULL;
}

void kt_os_thread_join(kt_os_thread *thread) {
    if (thread == NULL) return;
    WaitForSingleObject(thread->handle, INFINITE);
    CloseHandle(thread->handle);
    free(thread);
}

kt_os_mutex *kt_os_mutex_create(void) {
    kt_os_mutex *mutex = new_zeroed(sizeof *mutex);
    InitializeSRWLock(&mutex->native);
    return mutex;
}

void kt_os_mutex_free(kt_os_mutex *mutex) {
    free(mutex);
}

void kt_os_mutex_lock(kt_os_mutex *mutex) {
    AcquireSRWLockExclusive(&mutex->native);
}

void kt_os_mutex_unlock(kt_os_mutex *mutex) {
    ReleaseSRWLockExclusive(&mutex->native);
}

kt_os_cond *kt_os_cond_create(void) {
    kt_os_cond *cond = new_zeroed(sizeof *cond);
    InitializeConditionVariable(&cond->native);
    return cond;
}

void kt_os_cond_free(kt_os_cond *cond) {
    free(cond);
}

void kt_os_cond_wait(kt_os_cond *cond, kt_os_mutex *mutex) {
    SleepConditionVariableSRW(&cond->native, &mutex->native, INFINITE, 0);
}

void kt_os_cond_broadcast(kt_os_cond *cond) {
    WakeAllConditionVariable(&cond->native);
}

#endif
