// Compiled kernels on disk: one file per kernel, named by its key, which checks itself.
//
// The folder is private to the user (or the cache is off, said once). Files are written under
// another name and renamed, so several processes may share the folder without locks. An entry that
// fails any check is a miss, never an error. One thread at a time per kt_cache (compile.c holds a
// mutex).
#ifndef KT_PTX_CACHE_H
#define KT_PTX_CACHE_H

#include "ptx/cubin.h"
#include "ptx/device_headers.h"
#include "ptx/nvrtc.h"
#include "ptx/options.h"
#include "runtime/base/hash.h"

// Everything that a kernel's code depends on.
typedef struct kt_cache_inputs {
    kt_str source;
    const kt_device_header *headers; // any order; NULL: none
    const char *const *options;
    int n_options;
    const kt_nvrtc_id *tool; // NULL in the key of a pack, which notes the tool instead
} kt_cache_inputs;

// SHA-256 over length-prefixed fields: "KTC1" (a pack: "KTP1"), op ABI, source, headers by name
// (name, text), options, tool.
kt_hash kt_cache_key(const kt_cache_inputs *inputs);

// A kernel's code with what is known about it; also what a pack holds.
typedef struct kt_cache_entry {
    kt_str cubin;
    kt_cubin info; // of the cubin, with spill bytes
} kt_cache_entry;

// The bytes behind an entry's header: what is known about the kernels, then the cubin.
kt_str kt_cache_encode(kt_arena *arena, const kt_cache_entry *entry);
// Errors: EFORMAT. The cubin points into `payload`.
kt_status kt_cache_decode(
    kt_arena *arena, kt_str payload, kt_cache_entry *out, kt_err *err) KT_MUST_CHECK;

typedef struct kt_cache kt_cache;
// `folder` NULL: KOTARO_CACHE_DIR or the user's cache folder. Never fails: a cache that cannot be
// used is off, and kt_cache_why_off says why.
kt_cache *kt_cache_open(const char *folder);
void kt_cache_close(kt_cache *cache);                // NULL is fine
const char *kt_cache_folder(const kt_cache *cache);  // of the entries; NULL if off
const char *kt_cache_why_off(const kt_cache *cache); // NULL if on

// false: a miss. `sm` is the architecture wanted.
bool kt_cache_get(kt_cache *cache, kt_hash key, int sm, kt_arena *arena, kt_cache_entry *out);
// Writes an entry; evicts old ones after the first write of the process. Failure is only logged.
void kt_cache_put(kt_cache *cache, kt_hash key, const kt_cache_entry *entry);

// The compiler used last on this machine, so that keys can be made when it is no longer there.
bool kt_cache_get_tool(kt_cache *cache, kt_nvrtc_id *out);
void kt_cache_put_tool(kt_cache *cache, const kt_nvrtc_id *tool);

typedef struct kt_cache_info {
    int n_files; // entries
    int64_t bytes;
    int n_bad;        // damaged or foreign (kt_cache_verify)
    int n_other;      // left-over temporary files
    int64_t oldest_s; // seconds since 1970; 0: none
} kt_cache_info;

kt_cache_info kt_cache_get_info(kt_cache *cache);
// Checks every entry as kt_cache_get does; `remove_bad` deletes what fails. `each` (may be NULL) is
// told every failure.
kt_cache_info kt_cache_verify(kt_cache *cache, bool remove_bad,
    void (*each)(void *ctx, const char *file, const char *why), void *ctx);
int kt_cache_clear(kt_cache *cache); // returns the number of entries deleted
// Deletes oldest first until at most max_files and max_bytes are left; nothing younger than an
// hour, unless `now` is set.
int kt_cache_evict(kt_cache *cache, int max_files, int64_t max_bytes, bool now);

#endif
