// What the back ends and those who drive them share.
#include "runtime/exec/backend.h"

bool kt_loop_ended(const int32_t *until, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (until[i] != 0) return false;
    return true;
}
