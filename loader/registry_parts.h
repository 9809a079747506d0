// Inside of the registry: registry.c (finding and reading), registry_check.c (formats against
// prepare ops). Nobody else includes this.
#ifndef KT_LOADER_REGISTRY_PARTS_H
#define KT_LOADER_REGISTRY_PARTS_H

#include "loader/registry.h"

typedef enum kt_registry_state {
    KT_REGISTRY_UNREAD,
    KT_REGISTRY_READING,
    KT_REGISTRY_READ,
    KT_REGISTRY_BAD
} kt_registry_state;

typedef struct kt_registry_entry {
    kt_str name;
    const char *folder;
    int from; // 0: installed; 1 and up: the --ops folders
    kt_registry_state state;
    const kt_op *op;
} kt_registry_entry;

typedef struct kt_registry_file { // of a format
    kt_str name;
    const char *path;
    int from;
} kt_registry_file;

struct kt_registry {
    kt_arena *arena;
    KT_VEC(kt_registry_entry) entries; // sorted by name once all folders were listed
    KT_VEC(kt_registry_file) files;
    KT_VEC(const kt_format *) formats; // those with more marks first, then by name
    KT_VEC(const kt_op *) prepares;
    KT_VEC(const char *) skipped; // folders without an op.yaml
    int depth;                    // of bodies that are being read
};

// Every prepare op fits its format, every format can be prepared to rows_f16. Reports.
bool kt_registry_check(const kt_registry *registry, kt_diag *diag);
// Every layout that a variant names is made by a prepare op. Reports.
bool kt_registry_check_layouts(const kt_registry *registry, const kt_op *op, kt_diag *diag);

#endif
