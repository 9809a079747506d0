// What a module's source sees first: CUDA's words for a host compiler, and the table of its
// kernels.
//
// The stand-in NVRTC includes this file before the source, and ends it with
//   EMU_KERNELS_BEGIN EMU_KERNEL(kt_a, 256, 1) ... EMU_KERNELS_END
//   EMU_NOTES_BEGIN EMU_NOTE(kt_a, 256, 1) ... EMU_NOTES_END
// where the numbers are those of __launch_bounds__ (none: 0). machine.cuh comes later, and may use
// all of this. C++17 without the C++ library and without the C library's headers (but <stdint.h>,
// <stddef.h>, <stdbool.h>): __builtin_* instead.
#ifndef EMU_DEVICE_MODULE_H
#define EMU_DEVICE_MODULE_H

#include "../emu.h"
#include "note.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// Set by the emulator before the first launch.
static emu_state *emu_current;
#define threadIdx (emu_current->thread)
#define blockIdx  (emu_current->block)
#define blockDim  (emu_current->block_dim)
#define gridDim   (emu_current->grid_dim)

#if defined(__SANITIZE_THREAD__)
#define EMU_IS_CHECKED true
#else
#define EMU_IS_CHECKED false
#endif

// ---- the table

struct emu_bounds {
    int max_threads, min_blocks;
    constexpr emu_bounds(int threads = 0, int blocks = 0)
        : max_threads(threads), min_blocks(blocks) {}
};

struct emu_layout {
    int n;
    emu_param params[EMU_MAX_PARAMS];
};

template <int... i> struct emu_indices {};
template <int n, int... i> struct emu_count : emu_count<n - 1, n - 1, i...> {};
template <int... i> struct emu_count<0, i...> { typedef emu_indices<i...> type; };

// The parameter block as CUDA's ABI has it: each at its natural alignment, one after another.
template <class... P> constexpr emu_layout emu_lay_out() {
    static_assert(sizeof...(P) <= EMU_MAX_PARAMS, "too many parameters");
    emu_layout layout = {};
    const uint32_t sizes[] = {(uint32_t)sizeof(P)..., 0}, aligns[] = {(uint32_t)alignof(P)..., 1};
    uint32_t at = 0;
    for (; layout.n < (int)sizeof...(P); layout.n++) {
        at = (at + aligns[layout.n] - 1) / aligns[layout.n] * aligns[layout.n];
        layout.params[layout.n] = {at, sizes[layout.n]};
        at += sizes[layout.n];
    }
    return layout;
}

template <auto *kernel> struct emu_entry;
template <class... P, void (*kernel)(P...)> struct emu_entry<kernel> {
    static constexpr emu_layout layout = emu_lay_out<P...>();

    template <int... i>
    __attribute__((no_sanitize("thread"))) static void unpack(
        const char *block, emu_indices<i...>) {
        (void)block; // of a kernel without parameters
        kernel(*(const P *)(block + layout.params[i].offset)...);
    }
    __attribute__((no_sanitize("thread"))) static void call(const void *block) {
        unpack((const char *)block, typename emu_count<sizeof...(P)>::type());
    }
};

constexpr emu_note emu_describe(const char *name, emu_bounds bounds, const emu_layout &layout) {
    emu_note note = {};
    for (int i = 0; name[i] != 0; i++) note.name[i] = name[i]; // longer: no constant, an error
    note.max_threads = bounds.max_threads;
    note.min_blocks = bounds.min_blocks;
    note.n_params = layout.n;
    for (int i = 0; i < layout.n; i++) note.params[i] = layout.params[i];
    return note;
}

#define EMU_KERNEL(name, ...)                                                                      \
    {#name, emu_entry<name>::call, emu_entry<name>::layout.params, emu_entry<name>::layout.n,      \
        emu_bounds(__VA_ARGS__).max_threads, emu_bounds(__VA_ARGS__).min_blocks},
#define EMU_KERNELS_BEGIN static const emu_kernel emu_kernels[] = {
#define EMU_KERNELS_END                                                                            \
    }                                                                                              \
    ;                                                                                              \
    extern "C" __attribute__((visibility("default")))                                              \
    const emu_module_table emu_module = {EMU_ABI, emu_kernels,                                     \
        sizeof emu_kernels / sizeof emu_kernels[0], &emu_current, EMU_IS_CHECKED};
#define EMU_NOTE(name, ...) emu_describe(#name, emu_bounds(__VA_ARGS__), emu_entry<name>::layout),
#define EMU_NOTES_BEGIN                                                                            \
    __attribute__((section(".emu.notes"), used)) static constexpr emu_note emu_notes[] = {
#define EMU_NOTES_END                                                                              \
    }                                                                                              \
    ;

#endif
