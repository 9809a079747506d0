#include "tests/emu/image.h"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The machine's own instructions: f16 conversions and fma in one each. A GPU's compiler may join
// a * b + c into one rounding; here it has two. Freestanding and without libraries: what a module
// calls is open until the driver loads it.
const char *const emu_flags[] = {
    "-x",
    "c++",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-pipe",
    "-nostdlib",
    "-ffreestanding",
    "-march=native",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    "-fvisibility=hidden",
    "-fno-lto",
    "-fdiagnostics-color=never",
    "-ftrack-macro-expansion=0", // messages name the line of the source
    "-frandom-seed=kotaro",
    "-Wno-unknown-pragmas",
    NULL,
};

// Frame pointers and tables for unwinding are for the sanitizers' reports.
const emu_mode_row emu_modes[EMU_N_MODES] = {
    [EMU_CHECKED] = {"checked",
        {"-O1", "-g1", "-fsanitize=thread,alignment,bounds,shift,float-cast-overflow", "-fno-plt",
            "--param=tsan-instrument-func-entry-exit=0", "-fno-asynchronous-unwind-tables", NULL}},
    [EMU_PLAIN] = {"plain", {"-O2", "-g1", "-fno-plt", "-fno-asynchronous-unwind-tables",
                                "-fno-tree-loop-distribute-patterns", NULL}},
    [EMU_ASAN] = {"asan", {"-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize=vptr",
                              "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", NULL}},
};

bool emu_mode_get(emu_mode *out, const char **why) {
    const char *name = getenv("KOTARO_EMU");
    *out = EMU_CHECKED;
    if (name == NULL || name[0] == 0) return true;
    for (int i = 0; i < EMU_N_MODES; i++) {
        if (strcmp(name, emu_modes[i].name) != 0) continue;
        *out = (emu_mode)i;
        if (i != EMU_ASAN || dlsym(RTLD_DEFAULT, "__asan_init") != NULL) return true;
        *why = "KOTARO_EMU is 'asan', but this program was not built with SAN=1: such kernels do "
               "not load into it";
        return false;
    }
    *why = "KOTARO_EMU is none of checked, plain, asan";
    return false;
}

// ---- what modules are made with

bool emu_own_folder(char out[EMU_MAX_PATH]) {
    Dl_info info;
    if (dladdr(&emu_modes, &info) == 0 || info.dli_fname == NULL) return false;
    char *path = realpath(info.dli_fname, NULL);
    if (path == NULL) return false;
    *strrchr(path, '/') = 0;
    int n = snprintf(out, EMU_MAX_PATH, "%s", path);
    free(path);
    return n >= 0 && n < EMU_MAX_PATH;
}

static uint64_t add_bytes(uint64_t sum, const void *bytes, size_t n) { // FNV-1a
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++) sum = (sum ^ at[i]) * 0x100000001b3;
    return sum;
}

static uint64_t add_flags(uint64_t sum, const char *const *flags) {
    for (int i = 0; flags[i] != NULL; i++) sum = add_bytes(sum, flags[i], strlen(flags[i]) + 1);
    return sum;
}

static bool add_file(uint64_t *sum, const char *path) {
    char bytes[8192];
    FILE *file = fopen(path, "rb");
    if (file == NULL) return false;
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, file)) > 0) *sum = add_bytes(*sum, bytes, n);
    bool whole = ferror(file) == 0;
    fclose(file);
    return whole;
}

// The sum of each file by itself, all added up: the order of a folder says nothing.
uint64_t emu_stamp(emu_mode mode) {
    const uint64_t start = 0xcbf29ce484222325;
    char folder[EMU_MAX_PATH - 512], own[EMU_MAX_PATH], path[EMU_MAX_PATH];
    if (!emu_own_folder(own)) return 0;
    int length = snprintf(folder, sizeof folder, "%s/device", own);
    if (length < 0 || length >= (int)sizeof folder) return 0;
    uint64_t total = start;
    total = add_flags(add_flags(total, emu_flags), emu_modes[mode].flags);
    DIR *list = opendir(folder);
    if (list == NULL) return 0;
    bool good = true;
    for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
        if (entry->d_name[0] == '.') continue;
        uint64_t sum = add_bytes(start, entry->d_name, strlen(entry->d_name));
        int n = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        good = good && n > 0 && n < (int)sizeof path && add_file(&sum, path);
        total += sum;
    }
    closedir(list);
    uint64_t sum = start;
    int n = snprintf(path, sizeof path, "%.*s/../emu.h", length, folder);
    good = good && n > 0 && n < (int)sizeof path && add_file(&sum, path);
    total += sum;
    return !good ? 0 : total != 0 ? total : 1;
}

// ---- the file

bool emu_image_read(const void *bytes, emu_image *out, const char **why) {
    *out = (emu_image){0};
    const unsigned char *start = bytes;
    Elf64_Ehdr header;
    memcpy(&header, start, sizeof header);
    *why = "no ELF file for a GPU";
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != EM_CUDA) return false;
    *why = "not made by the stand-in NVRTC";
    if (header.e_shentsize != sizeof(Elf64_Shdr) || header.e_shstrndx >= header.e_shnum)
        return false;
    out->sm = (int)(header.e_flags >> 8 & 0xff);
    out->bytes = header.e_shoff + (size_t)header.e_shnum * sizeof(Elf64_Shdr);
    Elf64_Shdr names, section;
    const unsigned char *table = start + header.e_shoff;
    memcpy(&names, table + header.e_shstrndx * sizeof names, sizeof names);
    bool has_origin = false;
    for (uint16_t i = 0; i < header.e_shnum; i++) {
        memcpy(&section, table + i * sizeof section, sizeof section);
        if (section.sh_name >= names.sh_size || section.sh_offset > out->bytes ||
            section.sh_size > out->bytes - section.sh_offset)
            return false;
        const char *name = (const char *)start + names.sh_offset + section.sh_name;
        if (strcmp(name, ".emu.module") == 0) {
            out->module = start + section.sh_offset;
            out->module_bytes = section.sh_size;
        }
        if (strcmp(name, ".emu.origin") == 0 && section.sh_size == sizeof out->origin) {
            memcpy(&out->origin, start + section.sh_offset, sizeof out->origin);
            has_origin = memchr(out->origin.mode, 0, sizeof out->origin.mode) != NULL;
        }
    }
    return out->module_bytes > 0 && has_origin;
}

bool emu_image_is_current(const emu_image *image, const char **why) {
    emu_mode mode;
    if (!emu_mode_get(&mode, why)) return false;
    *why = "a module of another mode than KOTARO_EMU says";
    if (strcmp(image->origin.mode, emu_modes[mode].name) != 0) return false;
    *why = "a module that was made with other device headers than those beside the library";
    return image->origin.stamp == emu_stamp(mode) && image->origin.stamp != 0;
}
