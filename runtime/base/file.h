// Whole files and paths, on top of os.h.
#ifndef KT_BASE_FILE_H
#define KT_BASE_FILE_H

#include "runtime/base/os.h"

// Reads a whole file into the arena (a 0 byte follows). Errors: EFILE; ELIMIT-like EFORMAT if
// larger than max_bytes.
kt_status kt_file_read(
    kt_arena *arena, const char *path, int64_t max_bytes, kt_str *out, kt_err *err) KT_MUST_CHECK;
char *kt_path_join(kt_arena *arena, const char *folder, const char *name); // absolute names win
char *kt_path_folder(kt_arena *arena, const char *path);                   // "." if it has none
const char *kt_path_name(const char *path);                                // after the last '/'
bool kt_path_is_absolute(const char *path);

#endif
