// Counts the library's calls, and fails those that KOTARO_EMU_FAIL names. Any thread.
//
// KOTARO_EMU_FAIL, rules separated by commas: "nvrtc:5" the fifth call of the library that can fail
// does so, with an internal error, and has no effect; "nvrtc:5:out-of-memory"; instead of nvrtc the
// name of a function counts its calls alone: "nvrtcCompileProgram:2". Read at every call, so a
// program may set it. Rules that do not begin with "nvrtc" are the driver's.
// KOTARO_EMU_REPORT=FILE: at exit FILE.nvrtc gets a line "nvrtcCompileProgram 12" per function,
// "calls_that_can_fail 31", and "fired nvrtcGetCUBIN" if a rule made that fail.
#ifndef EMU_NVRTC_COUNT_H
#define EMU_NVRTC_COUNT_H

#include "tests/emu/image.h"

// Source: the names and numbers of NVRTC's public interface.
typedef enum nvrtc_result {
    NVRTC_OK = 0,
    NVRTC_OUT_OF_MEMORY = 1,
    NVRTC_INVALID_INPUT = 3,
    NVRTC_INVALID_PROGRAM = 4,
    NVRTC_INVALID_OPTION = 5,
    NVRTC_COMPILATION = 6,
    NVRTC_BUILTINS = 7,
    NVRTC_INTERNAL = 11,
    NVRTC_CANCELLED = 16,
} nvrtc_result;

typedef enum function {
    VERSION,
    CREATE,
    COMPILE,
    LOG_SIZE,
    LOG,
    CUBIN_SIZE,
    CUBIN,
    PTX_SIZE,
    PTX,
    SET_FLOW,
    DESTROY, // counted, never failed: it would leak
    N_FUNCTIONS
} function;

EMU_INTERNAL nvrtc_result count_call(function which);

#endif
