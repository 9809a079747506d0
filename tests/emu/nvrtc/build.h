// Runs the host's C++ compiler over a converted source: $KOTARO_EMU_CXX, else g++ (it must
// know GCC's flags).
//
// Everything lies in a folder of its own below $TMPDIR (else /tmp), which is gone when build_run
// returns, whatever happened. No shell. The compiler and what it starts are one process group, all
// dead when build_run returns.
#ifndef EMU_NVRTC_BUILD_H
#define EMU_NVRTC_BUILD_H

#include "tests/emu/nvrtc/text.h"

typedef struct build_file {
    const char *name;
    text converted;
} build_file;

typedef struct build {
    emu_mode mode;
    int sm;
    const char *const *defines; // "-DKT_M=64"
    int n_defines;
    const build_file *files; // the source first
    int n_files;
    int (*stop)(void *payload, void *reserved); // may be NULL; asked every few milliseconds
    void *payload;
} build;

typedef enum build_result { BUILD_DONE, BUILD_FAILED, BUILD_STOPPED } build_result;

// BUILD_DONE: `module` is the shared object. `log` gets the compiler's messages in NVRTC's form.
EMU_INTERNAL build_result build_run(const build *what, text *module, text *log);

#endif
