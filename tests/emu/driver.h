// The stand-in for libcuda.so.1, and what a test program may ask of it.
//
// It offers the functions of KT_DRIVER_LIST (runtime/gpu/driver.h) over host memory and runs
// kernels through the emulator (emu.h). One thread of its own, "the device", does all work; what is
// submitted waits in its stream until the host waits or asks, or has been quiet for a moment, and
// is then done in an order drawn from the seed among those that streams and events allow. So what
// the host does not wait for is usually not there yet:
//
// - the destination of an asynchronous copy to the host is filled with EMU_POISON at the call;
//   a copy from pinned memory reads it when it is done, one from other memory at the call;
// - a query is answered after a little work, and is true only when everything is done;
// - device memory starts as poison, has forbidden pages around it, stays forbidden once freed, and
//   is forbidden to the host while the device rests (blocks of up to 256 MB).
//
// With one host thread the order depends on the seed alone, but for work that goes on by itself.
//
// A wrong use is told on stderr ("emu: CALL: ..."), counted as a violation, and fails as the real
// driver would or with CUDA_ERROR_INVALID_HANDLE. What is alive at the end is listed as a leak.
//
// Environment, read at cuInit:
//   KOTARO_EMU_DEVICE   a profile and changes: "rtx4060" (the default), "h100", "rtx5060", "a100"
//                       ",driver=12040" ",memory=BYTES" ",free=BYTES" ",promised=BYTES" (what
//                       cuMemGetInfo calls free, though only `free` can be had) ",sms=N" ",count=N"
//                       ",timeout=1" ",missing=cuFuncLoad+cuMemHostRegister" ",poison=0xff"
//   KOTARO_EMU_FAIL     failures, with commas between: "NAME:N" the N-th call of that function,
//                       "call:N" the N-th driver call that can fail (queries apart: how many of
//                       them there are is a matter of time), "alloc:N" the N-th allocation of
//                       device or pinned memory; then ":CODE" and ":sticky" (each later call fails
//                       too). A failing call does nothing, but one that releases something does so:
//                       the real one reports earlier trouble there. "nvrtc:..." is not ours.
//   KOTARO_EMU          how kernels are compiled: checked (the default), plain, asan
//   KOTARO_EMU_SEED     of the order of work (1); KOTARO_EMU_ORDERS as emu_options.orders (1)
//   KOTARO_EMU_SECONDS  of CPU time that a block of a kernel may take (30)
//   KOTARO_EMU_REPORT   a file to which each process adds its counts at its end, a line each:
//                       "process PID NAME", "calls.cuMemAlloc 3", "graph_launches 127", ...,
//                       "leaks 0", "violations 0"; "fired NAME" of a call that was made to fail
//   KOTARO_EMU_STRICT   set: a process with violations or leaks exits with EMU_STRICT_EXIT
//
// What copies and fills of different streams touch is compared, and what checked kernels
// (KOTARO_EMU) of different streams, or of one graph, touch: each with the other's copies, fills
// and kernels, when no event or edge orders the two. Of plain kernels the order is random.
//
// What it does not see: that one thread of the host relies on what another one has waited for, as
// all are taken for one; copies that 256 others of their stream came after, and kernels that 1024
// pieces of work came after; a host address given to a kernel where a device address is meant, as
// both are the same for pinned memory, as they are on Linux.
#ifndef EMU_DRIVER_H
#define EMU_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EMU_POISON = 0xcd, EMU_STRICT_EXIT = 97 };

typedef struct emu_driver_counts {
    uint64_t calls;
    uint64_t kernel_launches, graph_launches, copies, fills; // submitted
    uint64_t kernels_run;                                    // by the emulator, of graphs as well
    // A step is a launch of an executable graph that the host has launched before without having
    // waited for that one since.
    uint64_t steps;
    uint64_t kernel_launches_between_steps, graph_changes_between_steps;
    uint64_t steps_submitted_ahead; // while the step before it was not yet done
    uint64_t device_bytes, device_bytes_most, pinned_bytes;
    uint64_t alive;          // handles and allocations that somebody has to release
    uint64_t leaks;          // found so far: with their context, at the end
    uint64_t violations;     // wrong uses
    uint64_t failures_fired; // of KOTARO_EMU_FAIL
} emu_driver_counts;

// All exported by libcuda.so.1, to be found with dlsym.
void emu_driver_get_counts(emu_driver_counts *out);
uint64_t emu_driver_calls(const char *name); // of this function so far
// Adds failures, written as in KOTARO_EMU_FAIL and counted from now on. false: not understood.
bool emu_driver_fail(const char *failures);
// The text of the last violation or leak; "" if none. Static.
const char *emu_driver_complaint(void);
// Forgets violations and leaks so far: for tests that made them on purpose.
void emu_driver_forgive(void);
// Work that is submitted is not begun before the host waits or asks, however long it is quiet.
void emu_driver_lazy(bool lazy);

#endif
