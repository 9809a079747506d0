// Paths that a file names relative to itself.
#ifndef KT_LOADER_BESIDE_H
#define KT_LOADER_BESIDE_H

#include "loader/diag.h"

// `name` as seen from the folder of `file`, without "folder/.." in it; absolute names stay.
char *kt_beside(kt_arena *arena, const char *file, kt_str name);
// Reports at `at` that there is no such file `path` to extend or include, and where it is looked
// for; false.
bool kt_beside_missing(kt_diag *diag, kt_place at, const char *path, const char *what);

#endif
