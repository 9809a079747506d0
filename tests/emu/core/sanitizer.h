// What the address sanitizer must be told, in processes that have it: elsewhere these are NULL.
#ifndef EMU_CORE_SANITIZER_H
#define EMU_CORE_SANITIZER_H

#include <stddef.h>

#define EMU_WEAK(name) __asm__(name) __attribute__((weak))

void emu_asan_poison(const volatile void *at, size_t n) EMU_WEAK("__asan_poison_memory_region");
void emu_asan_unpoison(const volatile void *at, size_t n) EMU_WEAK("__asan_unpoison_memory_region");
void emu_asan_switch(void **fake, const void *bottom, size_t size)
    EMU_WEAK("__sanitizer_start_switch_fiber");
void emu_asan_switched(void *fake, const void **bottom, size_t *size)
    EMU_WEAK("__sanitizer_finish_switch_fiber");

#endif
