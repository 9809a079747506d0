// What a module says of a kernel to those who do not load it: section ".emu.notes" has one of these
// for each, without relocations. C11 and C++17.
#ifndef EMU_DEVICE_NOTE_H
#define EMU_DEVICE_NOTE_H

#include "../emu.h"

enum { EMU_MAX_PARAMS = 64, EMU_MAX_NAME = 128 };

typedef struct emu_note {
    char name[EMU_MAX_NAME];
    int32_t max_threads, min_blocks, n_params;
    emu_param params[EMU_MAX_PARAMS];
} emu_note;

#endif
