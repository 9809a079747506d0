// Paths that a file names relative to itself.
#ifndef KT_LOADER_BESIDE_H
#define KT_LOADER_BESIDE_H

#include "runtime/base/str.h"

// `name` as seen from the folder of `file`, without "folder/.." in it; absolute names stay.
char *kt_beside(kt_arena *arena, const char *file, kt_str name);

#endif
