// Writes the ELF file around a module (tests/emu/image.h). What a real one tells and this cannot
// know stays 0 or is left out: registers, frames, code sizes, static shared memory, the tool.
#ifndef EMU_NVRTC_ELF_H
#define EMU_NVRTC_ELF_H

#include "tests/emu/nvrtc/text.h"

// false: the module has no kernels (no section .emu.notes of device/module.h).
EMU_INTERNAL bool elf_write(const text *module, int sm, emu_mode mode, uint64_t stamp, text *out);

#endif
