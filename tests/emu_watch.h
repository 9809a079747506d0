// Where the driver is the stand-in (tests/emu/driver.h): op tests tell it which memory each kernel
// may touch, so that one element beside a tensor is found although the block goes on.
#ifndef KT_TESTS_EMU_WATCH_H
#define KT_TESTS_EMU_WATCH_H

#include "runtime/exec/op_check.h"

// NULL: the driver is another one. One in a process; used by one thread.
const kt_op_check_watch *emu_watch_find(void);

#endif
