#include "tests/emu/nvrtc/elf.h"
#include "tests/emu/device/note.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

// Attributes of .nv.info. Source: ptx/cubin.c.
enum {
    INFO_BLOCK = 4,
    INFO_MAX_THREADS = 0x05,
    INFO_PARAM = 0x17,
    INFO_PARAM_WIDE = 0x45,
    NARROW = 1 << 14, // bytes of a parameter that INFO_PARAM can tell
    SYMBOL_ENTRY = 0x10,
    ABI_13 = 8,
    MAX_KERNELS = 256,
    // Sections before the kernels'
    NAMES = 1,
    STRINGS,
    SYMBOLS,
    TOOL,
    MODULE,
    ORIGIN,
    N_FIXED,
    MAX_SECTIONS = N_FIXED + 2 * MAX_KERNELS,
};

typedef struct writer {
    text *out;
    text names, strings, symbols;
    Elf64_Shdr sections[MAX_SECTIONS];
    int n_sections;
} writer;

// ---- the module's notes

// The bytes of a section of a host's shared object; NULL: not there.
static const char *find_section(const text *module, const char *wanted, size_t *n) {
    Elf64_Ehdr header;
    Elf64_Shdr names, section;
    if (module->n < sizeof header) return NULL;
    memcpy(&header, module->at, sizeof header);
    if (header.e_shoff + (size_t)header.e_shnum * sizeof section > module->n) return NULL;
    const char *table = module->at + header.e_shoff;
    memcpy(&names, table + header.e_shstrndx * sizeof names, sizeof names);
    for (int i = 0; i < header.e_shnum; i++) {
        memcpy(&section, table + (size_t)i * sizeof section, sizeof section);
        if (strcmp(module->at + names.sh_offset + section.sh_name, wanted) != 0) continue;
        *n = section.sh_size;
        return module->at + section.sh_offset;
    }
    return NULL;
}

// ---- the file

static void align(text *to, size_t to_bytes) {
    static const char zeros[16];
    text_add(to, zeros, (to_bytes - to->n % to_bytes) % to_bytes);
}

static uint32_t add_string(text *to, const char *a, const char *b) {
    size_t at = to->n;
    text_print(to, "%s%s", a, b);
    text_add(to, "", 1);
    return (uint32_t)at;
}

static Elf64_Shdr *add_section(
    writer *w, const char *name, const char *of, uint32_t type, const void *bytes, size_t n) {
    align(w->out, 16);
    Elf64_Shdr *section = &w->sections[w->n_sections++];
    *section = (Elf64_Shdr){.sh_name = add_string(&w->names, name, of),
        .sh_type = type,
        .sh_offset = w->out->n,
        .sh_size = n,
        .sh_addralign = 16};
    text_add(w->out, bytes, n);
    return section;
}

static void add_attribute(text *to, int attribute, const void *value, uint16_t n) {
    const unsigned char head[4] = {
        INFO_BLOCK, (unsigned char)attribute, (unsigned char)(n & 255), (unsigned char)(n >> 8)};
    text_add(to, head, sizeof head);
    text_add(to, value, n);
}

static void add_kernel(writer *w, const emu_note *note) {
    text info = {0};
    for (int i = 0; i < note->n_params; i++) {
        const emu_param *p = &note->params[i];
        bool narrow = p->size < NARROW;
        const uint32_t value[3] = {
            0, (uint32_t)i | p->offset << 16, narrow ? p->size << 18 : p->size};
        add_attribute(&info, narrow ? INFO_PARAM : INFO_PARAM_WIDE, value, sizeof value);
    }
    const uint32_t threads[3] = {(uint32_t)note->max_threads, 1, 1};
    if (note->max_threads > 0) add_attribute(&info, INFO_MAX_THREADS, threads, sizeof threads);
    int code = w->n_sections;
    (void)add_section(w, ".text.", note->name, SHT_PROGBITS, "", 0);
    add_section(w, ".nv.info.", note->name, SHT_PROGBITS, info.at, info.n)->sh_info =
        (uint32_t)code;
    text_free(&info);
}

static void add_symbol(writer *w, const emu_note *note, int code) {
    const Elf64_Sym symbol = {.st_name = add_string(&w->strings, note->name, ""),
        .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
        .st_other = SYMBOL_ENTRY,
        .st_shndx = (uint16_t)code};
    text_add(&w->symbols, &symbol, sizeof symbol);
}

static void add_header(writer *w, int sm) {
    align(w->out, 16);
    Elf64_Ehdr header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                             EV_CURRENT, 0x41, ABI_13},
        .e_type = ET_EXEC,
        .e_machine = EM_CUDA,
        .e_version = EV_CURRENT,
        .e_shoff = w->out->n,
        .e_flags = (uint32_t)sm << 8,
        .e_ehsize = sizeof header,
        .e_shentsize = sizeof(Elf64_Shdr),
        .e_shnum = (uint16_t)w->n_sections,
        .e_shstrndx = NAMES};
    memcpy(w->out->at, &header, sizeof header);
    text_add(w->out, w->sections, (size_t)w->n_sections * sizeof w->sections[0]);
}

// Symbols and texts come first in the table and last in the file: they are known at the end.
static void place(writer *w, int index, const text *bytes) {
    align(w->out, 16);
    w->sections[index].sh_offset = w->out->n;
    w->sections[index].sh_size = bytes->n;
    text_add(w->out, bytes->at, bytes->n);
}

static void add_fixed(writer *w, const text *module, emu_mode mode, uint64_t stamp) {
    static const Elf64_Sym no_symbol;
    static const char tool[] = "Kotaro's stand-in for NVRTC: code for the CPU, for tests only";
    emu_origin origin = {.stamp = stamp};
    memcpy(origin.mode, emu_modes[mode].name, strlen(emu_modes[mode].name));
    w->n_sections = 1; // the first is empty
    text_add(&w->names, "", 1);
    text_add(&w->strings, "", 1);
    text_add(&w->symbols, &no_symbol, sizeof no_symbol);
    (void)add_section(w, ".shstrtab", "", SHT_STRTAB, "", 0);
    (void)add_section(w, ".strtab", "", SHT_STRTAB, "", 0);
    Elf64_Shdr *symbols = add_section(w, ".symtab", "", SHT_SYMTAB, "", 0);
    symbols->sh_link = STRINGS;
    symbols->sh_entsize = sizeof(Elf64_Sym);
    symbols->sh_info = 1;
    (void)add_section(w, ".note.nv.tkinfo", "", SHT_NOTE, tool, sizeof tool);
    (void)add_section(w, ".emu.module", "", SHT_PROGBITS, module->at, module->n);
    (void)add_section(w, ".emu.origin", "", SHT_PROGBITS, &origin, sizeof origin);
}

bool elf_write(const text *module, int sm, emu_mode mode, uint64_t stamp, text *out) {
    size_t bytes = 0;
    const char *notes = find_section(module, ".emu.notes", &bytes);
    size_t n = bytes / sizeof(emu_note);
    if (notes == NULL || n == 0 || n > MAX_KERNELS) return false;
    static const Elf64_Ehdr room;
    writer *w = take(sizeof *w);
    w->out = out;
    text_add(out, &room, sizeof room);
    add_fixed(w, module, mode, stamp);
    for (size_t i = 0; i < n; i++) {
        emu_note note;
        memcpy(&note, notes + i * sizeof note, sizeof note);
        add_symbol(w, &note, w->n_sections);
        add_kernel(w, &note);
    }
    place(w, SYMBOLS, &w->symbols);
    place(w, STRINGS, &w->strings);
    place(w, NAMES, &w->names);
    add_header(w, sm);
    text_free(&w->names);
    text_free(&w->strings);
    text_free(&w->symbols);
    free(w);
    return true;
}
