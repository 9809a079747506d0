#include "ptx/cubin.h"

#include <string.h>

// Source: the ELF64 specification for headers, sections and symbols; section names, attribute
// numbers and layouts of .nv.info were read off cubins of NVRTC 12.8 and 13.0 (sm_80 to sm_120)
// made for the purpose.
enum {
    ELF_HEADER = 64,
    ELF_SECTION = 64,
    ELF_PROGRAM = 56,
    ELF_SYMBOL = 24,
    MACHINE_CUDA = 190,
    SECTION_NOTE = 7,
    SECTION_NOBITS = 8,
    SYMBOL_FUNCTION = 2,
    SYMBOL_ENTRY = 0x10, // in st_other: a kernel, not a function it calls

    INFO_BYTE = 2,  // form of an attribute: its value is the third byte
    INFO_BLOCK = 4, // its size in two bytes, then so many bytes

    INFO_MAX_THREADS = 0x05,
    INFO_EXTERNS = 0x0f,
    INFO_FRAME = 0x11,
    INFO_MIN_STACK = 0x12,
    INFO_PARAM = 0x17,
    INFO_REGISTERS = 0x2f,
    INFO_PARAM_WIDE = 0x45, // when parameters exceed 4 kB
    INFO_BARRIERS = 0x4c,

    MAX_SECTIONS = 1 << 16,
    MAX_KERNELS = 4096,
    RESERVED_SHARED = 1024, // from sm_90 on part of every kernel's shared section
};

typedef struct section {
    const char *name;
    uint32_t type, link, info;
    uint64_t at, size;
} section;

typedef struct reader {
    kt_arena *arena;
    const unsigned char *bytes;
    size_t n;
    kt_err *err;
    section *sections;
    uint32_t n_sections;
    const section *symbols, *names; // the symbol table and its names
    kt_cubin *out;
    KT_VEC(kt_cubin_kernel) kernels;
    KT_VEC(uint32_t) symbol_of; // of the kernels
    KT_VEC(uint32_t) text_of;   // their code sections
    KT_VEC(const char *) externals;
} reader;

static uint16_t get16(const unsigned char *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const unsigned char *p) {
    return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const unsigned char *p) {
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static kt_status bad(const reader *r, const char *what) {
    return KT_FAIL(r->err, KT_EFORMAT, "not a usable cubin: %s", what);
}

static bool inside(const reader *r, uint64_t at, uint64_t size) {
    return at <= r->n && size <= r->n - at;
}

// A 0-terminated text at `at` of a section of texts; NULL if it is none.
static const char *text_at(const reader *r, const section *in, uint64_t at) {
    if (in == NULL || at >= in->size) return NULL;
    const unsigned char *text = r->bytes + in->at + at;
    if (memchr(text, 0, (size_t)(in->size - at)) == NULL) return NULL;
    return (const char *)text;
}

static kt_status read_header(reader *r) {
    if (r->n < ELF_HEADER || r->n > KT_CUBIN_MAX_BYTES) return bad(r, "its size");
    const unsigned char *h = r->bytes;
    if (memcmp(h, "\177ELF\2\1\1", 7) != 0) return bad(r, "no ELF64 header");
    if (get16(h + 18) != MACHINE_CUDA) return bad(r, "code for another machine");
    r->out->abi = h[8];
    uint32_t flags = get32(h + 48);
    if (r->out->abi == 7)
        r->out->sm = (int)(flags & 0xff);
    else if (r->out->abi == 8)
        r->out->sm = (int)(flags >> 8 & 0xff);
    else
        return bad(r, "an unknown version of its format");
    if (r->out->sm < 50) return bad(r, "an unknown architecture");
    uint16_t n_programs = get16(h + 56);
    if (n_programs > 0 && (get16(h + 54) != ELF_PROGRAM ||
                              !inside(r, get64(h + 32), (uint64_t)n_programs * ELF_PROGRAM)))
        return bad(r, "program headers outside the file");
    for (uint16_t i = 0; i < n_programs; i++) {
        const unsigned char *p = r->bytes + get64(h + 32) + (uint64_t)i * ELF_PROGRAM;
        if (!inside(r, get64(p + 8), get64(p + 32))) return bad(r, "a segment outside the file");
    }
    return KT_OK;
}

static kt_status read_sections(reader *r) {
    const unsigned char *h = r->bytes;
    uint64_t table = get64(h + 40);
    r->n_sections = get16(h + 60);
    uint16_t names = get16(h + 62);
    if (r->n_sections == 0 || get16(h + 58) != ELF_SECTION ||
        !inside(r, table, (uint64_t)r->n_sections * ELF_SECTION) || names >= r->n_sections)
        return bad(r, "section headers outside the file");
    r->sections = KT_NEW_ARRAY(r->arena, section, r->n_sections);
    for (uint32_t i = 0; i < r->n_sections; i++) {
        const unsigned char *p = r->bytes + table + (uint64_t)i * ELF_SECTION;
        section *s = &r->sections[i];
        *s = (section){.type = get32(p + 4),
            .link = get32(p + 40),
            .info = get32(p + 44),
            .at = get64(p + 24),
            .size = get64(p + 32)};
        if (s->type != SECTION_NOBITS && !inside(r, s->at, s->size))
            return bad(r, "a section outside the file");
    }
    if (r->sections[names].type == SECTION_NOBITS) return bad(r, "no section names");
    for (uint32_t i = 0; i < r->n_sections; i++) {
        const unsigned char *p = r->bytes + table + (uint64_t)i * ELF_SECTION;
        r->sections[i].name = text_at(r, &r->sections[names], get32(p));
        if (r->sections[i].name == NULL) return bad(r, "a section without a name");
        if (strcmp(r->sections[i].name, ".symtab") == 0) r->symbols = &r->sections[i];
    }
    if (r->symbols == NULL || r->symbols->type == SECTION_NOBITS ||
        r->symbols->link >= r->n_sections || r->sections[r->symbols->link].type == SECTION_NOBITS)
        return bad(r, "no symbols");
    r->names = &r->sections[r->symbols->link];
    return KT_OK;
}

static const unsigned char *symbol_at(const reader *r, uint32_t index) {
    uint64_t at = (uint64_t)index * ELF_SYMBOL;
    if (at + ELF_SYMBOL > r->symbols->size) return NULL;
    return r->bytes + r->symbols->at + at;
}

static const char *keep(const reader *r, const char *text) {
    return kt_arena_copy(r->arena, text, strlen(text));
}

// A kernel is a function symbol marked as an entry; its code is the section it lies in.
static kt_status read_kernels(reader *r) {
    KT_ASSERT(r->symbols != NULL); // read_sections has found them
    uint64_t n = r->symbols->size / ELF_SYMBOL;
    for (uint32_t i = 0; i < n && i < UINT32_MAX; i++) {
        const unsigned char *s = symbol_at(r, i);
        if ((s[4] & 15) != SYMBOL_FUNCTION || (s[5] & SYMBOL_ENTRY) == 0) continue;
        uint16_t text = get16(s + 6);
        const char *name = text_at(r, r->names, get32(s));
        if (name == NULL || name[0] == 0) return bad(r, "a kernel without a name");
        if (text == 0 || text >= r->n_sections || strncmp(r->sections[text].name, ".text.", 6) != 0)
            return bad(r, "a kernel without code");
        if (r->kernels.n >= MAX_KERNELS) return bad(r, "too many kernels");
        kt_cubin_kernel kernel = {.name = keep(r, name),
            .code_bytes = (uint32_t)r->sections[text].size,
            .spill_bytes = -1};
        KT_PUSH(r->arena, &r->kernels, kernel);
        KT_PUSH(r->arena, &r->symbol_of, i);
        KT_PUSH(r->arena, &r->text_of, text);
    }
    if (r->kernels.n == 0) return bad(r, "it holds no kernel");
    return KT_OK;
}

static kt_cubin_kernel *kernel_of_symbol(const reader *r, uint32_t symbol) {
    for (size_t i = 0; i < r->kernels.n; i++)
        if (r->symbol_of.at[i] == symbol) return &r->kernels.at[i];
    return NULL;
}

static kt_cubin_kernel *kernel_of_text(const reader *r, uint32_t text) {
    for (size_t i = 0; i < r->kernels.n; i++)
        if (r->text_of.at[i] == text) return &r->kernels.at[i];
    return NULL;
}

static kt_cubin_kernel *kernel_of_name(const reader *r, const char *name) {
    for (size_t i = 0; i < r->kernels.n; i++)
        if (strcmp(r->kernels.at[i].name, name) == 0) return &r->kernels.at[i];
    return NULL;
}

static kt_status add_param(
    reader *r, kt_cubin_kernel *kernel, const unsigned char *value, bool wide) {
    uint16_t ordinal = get16(value + 4), offset = get16(value + 6);
    uint32_t size = wide ? get32(value + 8) : get32(value + 8) >> 18;
    if (ordinal >= KT_CUBIN_MAX_PARAMS || size == 0 || size > 65536)
        return bad(r, "a parameter with an impossible place or size");
    union {
        const kt_cubin_param *in;
        kt_cubin_param *out;
    } params = {.in = kernel->params}; // ours until the reader returns
    if (params.in == NULL) {
        params.out = KT_NEW_ARRAY(r->arena, kt_cubin_param, KT_CUBIN_MAX_PARAMS);
        kernel->params = params.in;
    }
    params.out[ordinal] = (kt_cubin_param){offset, size};
    if (ordinal >= kernel->n_params) kernel->n_params = ordinal + 1;
    return KT_OK;
}

static void add_externals(reader *r, const unsigned char *value, uint16_t size) {
    for (uint16_t at = 0; at + 4 <= size; at = (uint16_t)(at + 4)) {
        const unsigned char *symbol = symbol_at(r, get32(value + at));
        const char *name = symbol == NULL ? NULL : text_at(r, r->names, get32(symbol));
        bool known = name == NULL || name[0] == 0;
        for (size_t i = 0; i < r->externals.n && !known; i++)
            known = strcmp(r->externals.at[i], name) == 0;
        if (!known) KT_PUSH(r->arena, &r->externals, keep(r, name));
    }
}

// Attributes that name their kernel by its symbol: registers, frame, stack.
static void note_symbol(reader *r, int attribute, const unsigned char *value) {
    kt_cubin_kernel *kernel = kernel_of_symbol(r, get32(value));
    if (kernel == NULL) return; // a function that kernels call
    uint32_t number = get32(value + 4);
    if (attribute == INFO_REGISTERS) kernel->registers = (int)(number & 0xffff);
    if (attribute == INFO_FRAME) kernel->frame_bytes = number;
    if (attribute == INFO_MIN_STACK) kernel->stack_bytes = number;
}

static kt_status note_block(
    reader *r, kt_cubin_kernel *kernel, int attribute, const unsigned char *value, uint16_t size) {
    bool by_symbol =
        attribute == INFO_REGISTERS || attribute == INFO_FRAME || attribute == INFO_MIN_STACK;
    if (by_symbol && size >= 8) note_symbol(r, attribute, value);
    if (kernel == NULL) return KT_OK;
    if ((attribute == INFO_PARAM || attribute == INFO_PARAM_WIDE) && size >= 12)
        return add_param(r, kernel, value, attribute == INFO_PARAM_WIDE);
    if (attribute == INFO_EXTERNS) add_externals(r, value, size);
    if (attribute == INFO_MAX_THREADS && size >= 12) {
        uint64_t threads = get32(value);
        for (int i = 1; i < 3; i++) {
            uint32_t more = get32(value + (size_t)i * 4);
            if (threads > 1024 || more > 1024) return bad(r, "an impossible number of threads");
            threads *= more;
        }
        if (threads > 1024) return bad(r, "an impossible number of threads");
        kernel->max_threads = (int)threads;
    }
    return KT_OK;
}

// The attributes of one .nv.info section; `kernel` is NULL for the section of the whole file.
static kt_status read_info(reader *r, const section *s, kt_cubin_kernel *kernel) {
    if (s->type == SECTION_NOBITS) return bad(r, "attributes without bytes");
    const unsigned char *at = r->bytes + s->at;
    const unsigned char *end = at + s->size;
    while (end - at >= 4) {
        int form = at[0], attribute = at[1];
        uint16_t size = get16(at + 2);
        at += 4;
        if (form == INFO_BYTE && attribute == INFO_BARRIERS && kernel != NULL)
            kernel->barriers = size & 0xff;
        if (form != INFO_BLOCK) continue;
        if (size > end - at) return bad(r, "an attribute that runs past its section");
        KT_TRY(note_block(r, kernel, attribute, at, size));
        at += size;
    }
    return KT_OK;
}

// "Cuda compilation tools, release 13.0, V13.0.88"
static void read_tool(reader *r, const section *s) {
    static const char mark[] = ", V";
    const char *at = (const char *)r->bytes + s->at;
    for (uint64_t i = 0; i + sizeof mark < s->size; i++) {
        if (memcmp(at + i, mark, sizeof mark - 1) != 0) continue;
        size_t n = 0;
        const char *version = at + i + 2;
        while (i + 2 + n < s->size && n + 1 < sizeof r->out->tool &&
               (version[n] == 'V' || version[n] == '.' || (version[n] >= '0' && version[n] <= '9')))
            n++;
        memcpy(r->out->tool, version, n);
        return;
    }
}

static kt_status read_details(reader *r) {
    for (uint32_t i = 0; i < r->n_sections; i++) {
        const section *s = &r->sections[i];
        if (strcmp(s->name, ".nv.info") == 0) KT_TRY(read_info(r, s, NULL));
        if (strncmp(s->name, ".nv.info.", 9) == 0)
            KT_TRY(read_info(r, s, kernel_of_text(r, s->info)));
        if (strcmp(s->name, ".note.nv.tkinfo") == 0 && s->type == SECTION_NOTE) read_tool(r, s);
        if (strncmp(s->name, ".nv.shared.", 11) != 0) continue;
        kt_cubin_kernel *kernel = kernel_of_name(r, s->name + 11);
        uint64_t reserved = r->out->sm >= 90 ? RESERVED_SHARED : 0;
        if (s->size > 1 << 20) return bad(r, "impossible shared memory");
        if (kernel != NULL && s->size > reserved)
            kernel->shared_bytes = (uint32_t)(s->size - reserved);
    }
    for (size_t i = 0; i < r->kernels.n; i++) {
        const kt_cubin_kernel *kernel = &r->kernels.at[i];
        for (int p = 0; p < kernel->n_params; p++)
            if (kernel->params[p].size == 0) return bad(r, "a gap in a kernel's parameters");
    }
    return KT_OK;
}

kt_status kt_cubin_read(kt_arena *arena, const void *bytes, size_t n, kt_cubin *out, kt_err *err) {
    *out = (kt_cubin){0};
    kt_cubin found = {0};
    reader r = {.arena = arena, .bytes = bytes, .n = n, .err = err, .out = &found};
    KT_TRY(read_header(&r));
    KT_TRY(read_sections(&r));
    KT_TRY(read_kernels(&r));
    KT_TRY(read_details(&r));
    found.kernels = r.kernels.at;
    found.n_kernels = (int)r.kernels.n;
    found.externals = r.externals.at;
    found.n_externals = (int)r.externals.n;
    *out = found;
    return KT_OK;
}

const kt_cubin_kernel *kt_cubin_find(const kt_cubin *cubin, const char *kernel) {
    for (int i = 0; i < cubin->n_kernels; i++)
        if (strcmp(cubin->kernels[i].name, kernel) == 0) return &cubin->kernels[i];
    return NULL;
}

bool kt_cubin_runs_on(int sm, int device_sm) {
    return sm / 10 == device_sm / 10 && sm <= device_sm && (sm != 87 || device_sm == 87);
}
