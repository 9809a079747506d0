// Finds ops and formats: the installed ops/ folder, then each --ops DIR (folders of ops, and
// formats/ in it). A folder in --ops with a shipped op's name replaces it (one line on stderr); the
// same name in two --ops folders is an error. Manifests are read when first asked for.
#ifndef KT_LOADER_REGISTRY_H
#define KT_LOADER_REGISTRY_H

#include "loader/format.h"
#include "loader/op.h"

typedef struct kt_registry kt_registry;

// `folders`: --ops folders. Formats and prepare ops are read at once and checked against each other
// (every format has an op that prepares it to rows_f16; parts match inputs; values match params).
// NULL after reporting to diag.
kt_registry *kt_registry_open(kt_arena *arena, const char *installed, const char *const *folders,
    int n_folders, kt_diag *diag);
// NULL after reporting at `at` an unknown name (with suggestions), or the manifest's own mistakes.
const kt_op *kt_registry_op(kt_registry *registry, kt_ref name, kt_diag *diag);
// Reads every op; for `kotaro ops list` and `kotaro check`. Sorted by name.
const kt_op *const *kt_registry_all(kt_registry *registry, int *n, kt_diag *diag);
int kt_registry_formats(const kt_registry *registry, const kt_format *const **out);
const kt_format *kt_registry_format(const kt_registry *registry, kt_str name); // NULL if unknown
// The op that prepares a format to a layout ("rows_f16" included); NULL if there is none.
const kt_op *kt_registry_prepare(const kt_registry *registry, kt_str format, kt_str layout);
bool kt_registry_layout_known(const kt_registry *registry, kt_str layout);

#endif
