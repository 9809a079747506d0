// The operating system, in one place: files by path, folders, threads, shared libraries, time,
// terminal.
//
// The only module that knows POSIX (os_posix.c) from Windows (os_win32.c). Paths are UTF-8 with '/'
// everywhere; Windows converts at this edge. Any thread unless said otherwise.
#ifndef KT_BASE_OS_H
#define KT_BASE_OS_H

#include "runtime/base/arena.h"
#include "runtime/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// ---- files

typedef enum kt_path_kind {
    KT_PATH_NONE,
    KT_PATH_FILE,
    KT_PATH_FOLDER,
    KT_PATH_OTHER,
    KT_PATH_UNKNOWN // the system does not tell (a broken disk, a folder that may not be searched)
} kt_path_kind;

typedef struct kt_path_info {
    kt_path_kind kind;
    int64_t size_bytes;
    int64_t modified_s; // seconds since 1970
} kt_path_info;

kt_path_info kt_os_stat(const char *path); // follows links; kind NONE when there is nothing
// false if there is certainly no file; where the system does not tell, opening it says why.
bool kt_os_may_be_file(const char *path);
// A file for reading with positioned reads. Errors: EFILE with the path and the system's reason.
typedef struct kt_os_file kt_os_file;
kt_status kt_os_open(const char *path, kt_os_file **out, kt_err *err) KT_MUST_CHECK;
void kt_os_close(kt_os_file *file);
int64_t kt_os_size(const kt_os_file *file);
// Reads exactly `size` bytes at `offset`. Errors: EFILE (short read included). Several threads may
// read.
kt_status kt_os_read_at(
    kt_os_file *file, int64_t offset, void *out, size_t size, kt_err *err) KT_MUST_CHECK;
// A new file of `size` bytes for positioned writes, in place of what was there; what is never
// written is a hole that reads as zeros and takes no room where the file system has holes. Several
// threads may write. Errors: EFILE.
typedef struct kt_os_sink kt_os_sink;
kt_status kt_os_create(const char *path, int64_t size, kt_os_sink **out, kt_err *err) KT_MUST_CHECK;
kt_status kt_os_write_at(
    kt_os_sink *sink, int64_t offset, const void *bytes, size_t size, kt_err *err) KT_MUST_CHECK;
kt_status kt_os_sink_close(kt_os_sink *sink, kt_err *err); // NULL is fine
// Says that the file will be read from here to there, in this order and once. A hint: the system
// may read ahead, or not.
void kt_os_will_read(kt_os_file *file, int64_t offset, int64_t size_bytes);
FILE *kt_os_fopen(const char *path, const char *mode); // UTF-8 path; NULL on failure
bool kt_os_mkdirs(const char *path); // also parents; mode 0700 where it makes them
// A folder that only this user can write: not a link, owned by us, no group/other write. Made if
// missing.
bool kt_os_private_folder(const char *path);
// Writes a file under a temporary name in the same folder (exclusive, 0644) and renames it over
// `path`.
kt_status kt_os_write_atomic(
    const char *path, const void *bytes, size_t size, kt_err *err) KT_MUST_CHECK;
bool kt_os_remove(const char *path);
bool kt_os_touch(const char *path); // sets the time of change to now
// Names in a folder, sorted by bytes, without "." and "..". *n is -1 if it cannot be read to its
// end.
kt_str *kt_os_list(kt_arena *arena, const char *folder, int *n);
char *kt_os_absolute(kt_arena *arena, const char *path);
char *kt_os_executable(kt_arena *arena); // this program's path; NULL if unknown
char *kt_os_cache_folder(
    kt_arena *arena); // the user's cache folder for Kotaro; NULL if there is none
char *kt_os_temp_folder(kt_arena *arena);

// ---- environment, terminal, time

const char *kt_os_getenv(const char *name); // NULL if not set
bool kt_os_is_terminal(FILE *stream);
int kt_os_terminal_columns(void); // 80 if unknown
int kt_os_cpu_count(void);        // that this process may use
int64_t kt_os_memory_bytes(void); // of the machine
double kt_os_now_ms(void);        // monotonic
void kt_os_sleep_us(int64_t us);
int kt_os_pid(void);
void kt_os_random(void *out, size_t n);
// Ctrl-C sets a flag instead of ending the program; a second one ends it. *flag becomes 1.
void kt_os_catch_interrupt(volatile int *flag);
void kt_os_setup_console(void); // UTF-8 output where the system needs to be told
// Runs a program with an argument list (argv[0] looked up on PATH), output of both streams appended
// to `out` (may be NULL). Returns its exit code, or -1 if it could not be started.
int kt_os_run(const char *const *argv, kt_buf *out);

// ---- memory

// Zeroed memory in pages of the system's, of its large ones (2 MB) where it has them to give; on a
// boundary of 64 kB at least. Costs time at the first touch of each page and none before. NULL:
// there is none, as always on Windows.
void *kt_os_pages(size_t size_bytes);
void kt_os_pages_free(void *at, size_t size_bytes); // with the size asked for; NULL is fine

// ---- shared libraries

typedef struct kt_os_library kt_os_library;
// NULL if it cannot be opened; then `why` (may be NULL) gets the system's reason.
kt_os_library *kt_os_library_open(const char *path, kt_buf *why);
void kt_os_library_close(kt_os_library *library);
// The file that it came from, 0-terminated in out[n]. false if the system does not tell.
bool kt_os_library_path(kt_os_library *library, char *out, size_t n);
// A function pointer from an object pointer, which C has no cast for.
typedef void (*kt_os_function)(void);
kt_os_function kt_os_library_function(kt_os_library *library, const char *symbol);

// ---- threads

typedef struct kt_os_thread kt_os_thread;
typedef struct kt_os_mutex kt_os_mutex;
typedef struct kt_os_cond kt_os_cond;
kt_os_thread *kt_os_thread_start(void (*run)(void *ctx), void *ctx, size_t stack_bytes);
void kt_os_thread_join(kt_os_thread *thread); // also frees it
kt_os_mutex *kt_os_mutex_create(void);
void kt_os_mutex_free(kt_os_mutex *mutex);
void kt_os_mutex_lock(kt_os_mutex *mutex);
void kt_os_mutex_unlock(kt_os_mutex *mutex);
kt_os_cond *kt_os_cond_create(void);
void kt_os_cond_free(kt_os_cond *cond);
void kt_os_cond_wait(kt_os_cond *cond, kt_os_mutex *mutex);
void kt_os_cond_broadcast(kt_os_cond *cond);

#endif
