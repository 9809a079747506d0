// The compiler options of one build of an op: architecture and KT_ macros, in one canonical order.
//
// The list is part of the key of a compiled kernel, so the same build must give the same list
// wherever it is made: macros are sorted by name, fixed options come first. Options that do not
// change the code (the compiler's own cache, reports) are added by nvrtc.c and are not part of the
// list.
#ifndef KT_PTX_OPTIONS_H
#define KT_PTX_OPTIONS_H

#include "runtime/base/arena.h"
#include "runtime/base/str.h"

enum {
    KT_OP_ABI =
        1, // what device headers, parameter packing and entry names agree on; part of every key
};

typedef struct kt_option_macro {
    const char *name;  // "KT_D"
    const char *value; // "3584"
} kt_option_macro;

typedef struct kt_options {
    kt_arena *arena;
    int arch;                       // 89
    KT_VEC(kt_option_macro) macros; // sorted by name
} kt_options;

void kt_options_init(kt_options *options, kt_arena *arena, int arch);
// Adds or replaces a macro. The name must begin with "KT_" and be an identifier; both are copied.
// Errors: EOP: not such a name, or a value with a line break.
kt_status kt_options_define(
    kt_options *options, const char *name, const char *value, kt_err *err) KT_MUST_CHECK;
// The list for `arch` (usually options->arch), in `arena`. *n gets the number.
const char **kt_options_list(const kt_options *options, kt_arena *arena, int arch, int *n);

#endif
