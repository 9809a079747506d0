// Collectives of a warp. The last lane to arrive computes for all.
#include "tests/emu/core/core.h"

#include <string.h>

static uint32_t own_lane(void) {
    return emu.fibre->index % EMU_WARP;
}

void emu_sync_warp(const char *file, int line) {
    emu_warp *warp = emu.fibre->warp;
    if (emu_collect("sync_warp", file, line)) {
        // Orders memory: all that the lanes did before is below the new base.
        uint32_t most = 0;
        const emu_fibre *first = &emu.fibres[(size_t)emu.fibre->index / EMU_WARP * EMU_WARP];
        for (int i = 0; i < EMU_WARP; i++) most = first[i].sub > most ? first[i].sub : most;
        if (most >= EMU_MAX_SUB)
            emu_fail("more than %d barriers of a warp between two of its block", EMU_MAX_SUB);
        warp->base = most + 1;
        emu.fibre->sub = warp->base;
        emu_stamp_now();
        emu_collected();
        return;
    }
    emu.fibre->sub = warp->base;
    emu_stamp_now();
}

static uint64_t shuffle(const char *what, uint64_t v, int from, const char *file, int line) {
    emu_warp *warp = emu.fibre->warp;
    uint32_t lane = own_lane();
    warp->in.lanes.v[lane] = v;
    warp->in.lanes.from[lane] = from;
    if (emu_collect(what, file, line)) {
        for (uint32_t i = 0; i < EMU_WARP; i++)
            warp->out.v[i] = warp->in.lanes.v[warp->in.lanes.from[i]];
        emu_collected();
    }
    return warp->out.v[lane];
}

uint64_t emu_shuffle(uint64_t v, int lane, const char *file, int line) {
    return shuffle("shfl", v, lane & (EMU_WARP - 1), file, line);
}

uint64_t emu_shuffle_xor(uint64_t v, int mask, const char *file, int line) {
    if (mask < 0 || mask >= EMU_WARP) emu_fail("shfl_xor with the mask %d", mask);
    return shuffle("shfl_xor", v, (int)own_lane() ^ mask, file, line);
}

uint32_t emu_ballot(bool v, const char *file, int line) {
    emu_warp *warp = emu.fibre->warp;
    uint32_t lane = own_lane();
    warp->in.lanes.v[lane] = v;
    if (emu_collect("ballot", file, line)) {
        uint32_t bits = 0;
        for (uint32_t i = 0; i < EMU_WARP; i++) bits |= (uint32_t)warp->in.lanes.v[i] << i;
        for (uint32_t i = 0; i < EMU_WARP; i++) warp->out.v[i] = bits;
        emu_collected();
    }
    return (uint32_t)warp->out.v[lane];
}

void emu_mma(
    float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, const char *file, int line) {
    emu_warp *warp = emu.fibre->warp;
    uint32_t lane = own_lane();
    memcpy(warp->in.mma.c[lane], c, sizeof warp->in.mma.c[lane]);
    memcpy(warp->in.mma.a[lane], a, sizeof warp->in.mma.a[lane]);
    warp->in.mma.b[lane][0] = b0;
    warp->in.mma.b[lane][1] = b1;
    if (emu_collect("mma", file, line)) {
        emu_mma_compute(warp);
        emu_collected();
    }
    memcpy(c, warp->out.c[lane], sizeof warp->out.c[lane]);
}

// Matrix i of lane l's four: lanes 8 i .. 8 i + 7 name its rows.
static void move_matrices(emu_warp *warp, bool transposed) {
    uint16_t rows[EMU_WARP][8];
    for (int l = 0; l < EMU_WARP; l++) memcpy(rows[l], warp->in.row[l], sizeof rows[l]);
    for (int l = 0; l < EMU_WARP; l++) {
        for (int i = 0; i < 4; i++) {
            const uint16_t(*m)[8] = (const uint16_t(*)[8])rows + (size_t)8 * (size_t)i;
            int r = l / 4, c = l % 4 * 2;
            uint32_t low = transposed ? m[c][r] : m[r][c];
            uint32_t high = transposed ? m[c + 1][r] : m[r][c + 1];
            warp->out.matrix[l][i] = low | high << 16;
        }
    }
}

void emu_ldmatrix(uint32_t v[4], const void *row, bool transposed, const char *file, int line) {
    emu_warp *warp = emu.fibre->warp;
    uint32_t lane = own_lane();
    const void *pc = __builtin_return_address(0);
    emu_aligned(row, 16, pc);
    size_t offset = emu_shared_offset(row);
    if (offset == SIZE_MAX || !emu_shared_has(offset, 16))
        emu_fail_at(
            pc, "ldmatrix of 16 bytes at %p, which are not in one array of shared memory", row);
    emu_access(row, 16, EMU_READ, pc);
    warp->in.row[lane] = row;
    const char *what = transposed ? "ldmatrix (transposed)" : "ldmatrix";
    if (emu_collect(what, file, line)) {
        move_matrices(warp, transposed);
        emu_collected();
    }
    memcpy(v, warp->out.matrix[lane], sizeof warp->out.matrix[lane]);
}
