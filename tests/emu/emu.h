// Kernels on the CPU: what passes between a module (kernels compiled for the host by the stand-in
// NVRTC), the emulator that runs them, and the stand-in driver that is asked to.
//
//   nvrtc/    libnvrtc.so.13: compiles the source as C++ with device/ instead of ptx/device's
//             machine.cuh and mma.cuh, and returns the module in an ELF file for the GPU asked for
//   driver/   libcuda.so.1, with the emulator of core/ in it: memory, modules, streams, graphs
//   core/     fibres, barriers, warps, asynchronous copies, shared memory, races, bounds
//   device/   machine.cuh and mma.cuh for the host, module.h (the kernels' table)
//
// C11 and C++17. One launch runs at a time in a process (the driver holds its lock), block after
// block in an order drawn from a seed.
#ifndef EMU_H
#define EMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- a module, as the compiled kernels see it

typedef struct emu_dim3 {
    uint32_t x, y, z;
} emu_dim3;

// What the running thread is; the emulator changes it whenever it switches.
typedef struct emu_state {
    emu_dim3 thread, block, block_dim, grid_dim;
} emu_state;

typedef struct emu_param {
    uint32_t offset, size; // bytes in the parameter block
} emu_param;

typedef struct emu_kernel {
    const char *name;
    void (*call)(const void *params); // unpacks the block and runs one thread's part
    const emu_param *params;
    int n_params;
    int max_threads, min_blocks; // of __launch_bounds__; 0: not given
} emu_kernel;

enum { EMU_ABI = 1 };

// The one object that a module exports: `emu_module`. The emulator sets *state before the first
// launch. A module calls the functions below (undefined in it, in libcuda.so.1) and imports no
// data.
typedef struct emu_module_table {
    int abi; // EMU_ABI
    const emu_kernel *kernels;
    int n_kernels;
    emu_state **state;
    bool checked; // compiled with calls for every access
} emu_module_table;

// ---- what kernels call, through device/machine.cuh and device/mma.cuh
//
// `file` and `line` are of the kernel's call: threads that must meet must do so at one place. In
// checked modules the compiler calls the emulator for every access, too (__tsan_*, core/access.c),
// and for every misaligned one (__ubsan_handle_*).

// All threads of the block.
void emu_sync(const char *file, int line);

// All 32 lanes of a warp, each with its own part. Lanes that call something else, or exit, or wait
// at a barrier instead, are an error.
void emu_sync_warp(const char *file, int line);
uint64_t emu_shuffle(uint64_t v, int lane, const char *file, int line); // v of that lane
uint64_t emu_shuffle_xor(uint64_t v, int mask, const char *file, int line);
uint32_t emu_ballot(bool v, const char *file, int line);
void emu_mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, const char *file, int line);
void emu_ldmatrix(uint32_t v[4], const void *row, bool transposed, const char *file, int line);
// Two f16 each: a b + c, rounded once.
uint32_t emu_fma_f16x2(uint32_t a, uint32_t b, uint32_t c);

// Shared memory of the block, new and poisoned in each. `key`: the address of a static of the
// declaration, so that all threads get the same array; exact size, forbidden memory around it.
void *emu_shared(const void *key, size_t bytes, size_t align);
void *emu_shared_dynamic(void); // of the launch's size, aligned to 16 and no more

// cp.async: recorded now, done when waited for; between, nobody may touch the destination.
void emu_copy(void *shared, const void *global, int size, int bytes);
void emu_copy_commit(void);
void emu_copy_wait(int newest);

void emu_fence(void);
uint32_t emu_atomic_add(uint32_t *at, uint32_t v); // global or shared
// Loads that are made to see what other blocks of the launch wrote, and loads that must not.
void emu_load_shared_by_blocks(const void *at, size_t bytes, void *out);
void emu_load_once(const void *at, size_t bytes, void *out);

// The kernel is wrong: says so with thread and block, ends the launch. Does not return.
void emu_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

// ---- what the driver calls

// Memory that kernels may touch: device allocations, mapped host memory. Accesses elsewhere (but to
// the thread's stack, the module's constants, the block's shared memory) are errors.
void emu_map_add(const void *at, size_t bytes, const char *what);
void emu_map_remove(const void *at);

// Narrows device memory while op tests run: with n > 0 kernels may read the regions only and write
// those that are marked. n = 0: everything that is mapped again. Addresses as kernels see them.
// Exported by libcuda.so.1 for test programs.
typedef struct emu_region {
    uint64_t at, bytes;
    bool writable;
} emu_region;
void emu_watch(const emu_region *regions, size_t n);

// What copies of other streams touch that nothing orders with the next launches: kernels must not
// touch what those write, nor write what they only read (`writable` false). Checked modules only.
void emu_set_unordered(const emu_region *regions, size_t n);

// The same with earlier launches, by their numbers: the next one must not touch what they wrote,
// nor write what they read (of several readers, the last one is known). Checked modules only.
void emu_set_unordered_launches(const uint64_t *numbers, size_t n);
uint64_t emu_last_launch(void); // its number, from 1
// Whether one of these launches wrote the bytes, or if `writes` touched them; `who`: "kt_x wrote".
// For what is no kernel. false for memory that is not mapped.
bool emu_has_touched(
    const uint64_t *numbers, size_t n, uint64_t at, uint64_t bytes, bool writes, char who[128]);

typedef struct emu_launch {
    const emu_module_table *module; // that has the kernel; already loaded, *state perhaps not set
    const emu_kernel *kernel;
    emu_dim3 grid, block;
    uint32_t shared_bytes; // dynamic
    uint32_t shared_limit; // bytes a block may have in all, static and dynamic
    const void *params;    // the packed block
    const void *file;      // the module's, for places in messages; NULL: as the loader knows it
    size_t file_bytes;
} emu_launch;

typedef struct emu_options {
    uint64_t seed; // of the order of threads, warps and blocks
    int orders;    // 2 or more: each launch is run again from the same memory in other orders, and
                   // must write the same bytes (checked modules only)
    int seconds;   // of CPU time that a block may take before it is said not to end; 0: 30
} emu_options;
void emu_configure(const emu_options *options);

// Runs a launch to its end. false: the kernel is wrong; `why` (kernel, block, thread, place, what)
// is in static storage until the next call.
bool emu_run(const emu_launch *launch, const char **why);

typedef struct emu_counts {
    uint64_t launches, blocks, switches, races_checked;
} emu_counts;
emu_counts emu_get_counts(void);

#ifdef __cplusplus
}
#endif
#endif
