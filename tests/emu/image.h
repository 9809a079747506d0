// What the stand-in NVRTC gives and the stand-in driver loads: an ELF file that looks like a GPU's
// to whoever reads its kernels, with the module for the host in a section of it.
//
//   .emu.module   a shared object: emu_module of device/module.h, and undefined emu_* functions
//   .emu.origin   the mode, and a stamp of what the module was compiled with besides its source
//
// The runtime keeps compiled kernels by their source and the library's size, so it may offer a
// module of another mode, or one made with an older device/machine.cuh. The driver refuses those
// as it refuses damaged code, and the runtime compiles again. Both libraries link image.c.
#ifndef EMU_IMAGE_H
#define EMU_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EMU_INTERNAL
#else
#define EMU_INTERNAL __attribute__((visibility("hidden")))
#endif

// How kernels are compiled: the value of KOTARO_EMU.
typedef enum emu_mode {
    EMU_CHECKED, // every access goes through the emulator
    EMU_PLAIN,   // fast
    EMU_ASAN,    // for processes that have the sanitizers in them
    EMU_N_MODES
} emu_mode;

// Flags of the compiler: of every mode, then of one. Both end with NULL.
EMU_INTERNAL extern const char *const emu_flags[];
typedef struct emu_mode_row {
    const char *name;
    const char *flags[12];
} emu_mode_row;
EMU_INTERNAL extern const emu_mode_row emu_modes[EMU_N_MODES];

// The mode that KOTARO_EMU asks for (unset: checked). false: `why` (static) says what is wrong with
// it: an unknown name, or asan in a process without the sanitizers.
EMU_INTERNAL bool emu_mode_get(emu_mode *out, const char **why);

enum { EMU_MAX_PATH = 4096 };
// The folder of the library that calls: device/ and emu.h are in it. false: too long.
EMU_INTERNAL bool emu_own_folder(char out[EMU_MAX_PATH]);
// Of the device headers beside the library, and the flags. 0: they cannot be read.
EMU_INTERNAL uint64_t emu_stamp(emu_mode mode);

typedef struct emu_origin { // section .emu.origin
    char mode[16];
    uint64_t stamp;
} emu_origin;

typedef struct emu_image {
    int sm; // 89
    emu_origin origin;
    const void *module; // a shared object, inside the image; not aligned
    size_t module_bytes;
    size_t bytes; // of the whole file
} emu_image;
// Takes no length, as the driver is given none: kt_cubin_read has been through the file before.
// false: not made by the stand-in, or damaged; `why` is static.
EMU_INTERNAL bool emu_image_read(const void *bytes, emu_image *out, const char **why);
// Was the image made in this process's mode, with the device headers that are there now?
EMU_INTERNAL bool emu_image_is_current(const emu_image *image, const char **why);

#endif
