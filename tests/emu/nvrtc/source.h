// Reads CUDA source for the host's compiler: finds the kernels, and says what may not be in it.
//
// The text stays as it is but for one preprocessor line before each kernel, so that #if keeps
// working; messages keep their lines. Kernels must be written out, not made by a macro.
#ifndef EMU_NVRTC_SOURCE_H
#define EMU_NVRTC_SOURCE_H

#include "tests/emu/nvrtc/text.h"

// Appends the source to `out`, then the table of its kernels (device/module.h). false: `log` says
// with file and line what kernels may not have: asm, words of CUDA that are not in kt.cuh, headers
// of the system.
EMU_INTERNAL bool source_convert(const char *name, const char *source, text *out, text *log);
// The same for a header, which must have no kernel.
EMU_INTERNAL bool source_convert_header(const char *name, const char *source, text *out, text *log);

#endif
