// Packs: kernels compiled ahead of time, in one file that ships with the program.
//
// A pack is looked up without knowing any compiler: its keys hold op ABI, source, headers and
// options (which name the architecture), and it notes which compiler made it. A kernel for a lower
// minor version of the same architecture serves when the exact one is missing. An edited op has
// another key and is simply not found. Reading is safe from several threads.
#ifndef KT_PTX_PACK_H
#define KT_PTX_PACK_H

#include "ptx/cache.h"
#include "ptx/options.h"

typedef struct kt_pack_item {
    kt_hash key; // kt_cache_key with tool NULL
    kt_cache_entry entry;
} kt_pack_item;

// Writes a pack (items in any order; equal keys once). `tool` is the compiler's version, "12.8.93".
// Errors: EFILE.
kt_status kt_pack_write(const char *path, const char *tool, const kt_pack_item *items, int n,
    kt_err *err) KT_MUST_CHECK;

typedef struct kt_pack kt_pack;
// `path` is a pack file, or a folder whose *.ktpack files are all opened. Errors: EFILE, EFORMAT.
kt_status kt_pack_open(const char *path, kt_pack **out, kt_err *err) KT_MUST_CHECK;
void kt_pack_close(kt_pack *pack); // NULL is fine
int kt_pack_count(const kt_pack *pack);

// Looks for the kernel of (source, headers, options) for options->arch, then for lower minors of
// the same major (never 87). false: not there, or damaged (logged). The entry points into the
// arena.
bool kt_pack_find(const kt_pack *pack, kt_str source, const kt_device_header *headers,
    const kt_options *options, kt_arena *arena, kt_cache_entry *out);

#endif
