// What has run, and what of that nothing orders with the piece of work that runs next: that one was
// lucky to come later. Kernels look at each of their accesses (emu_set_unordered), copies and fills
// are compared here.
#include "tests/emu/driver/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RAN = 1024 }; // pieces that are remembered

typedef struct ran {
    int lane, node; // node: of a graph, else -1
    uint64_t seq;
    uint64_t launch; // the emulator's number of a kernel; 0: a copy or fill
    drv_access accesses[DRV_MAX_ACCESSES];
    int n_accesses;
} ran;

static ran past[RAN];
static uint64_t n_past;

void drv_order_ran(const drv_work *work, int node, const drv_piece *piece) {
    ran *r = &past[n_past++ % RAN];
    *r = (ran){.lane = work->lane, .node = node, .seq = work->seq};
    r->n_accesses = drv_piece_accesses(piece, r->accesses);
    if (piece->kind == DRV_WORK_KERNEL) r->launch = emu_last_launch();
}

static bool is_before(const ran *r, const drv_work *work, int node) {
    if (r->lane != work->lane) return r->seq <= work->clock.at[r->lane];
    return r->seq != work->seq || drv_graph_is_before(work->run, r->node, node);
}

static void complain(const drv_piece *piece, const uint64_t *launches, size_t n) {
    drv_access accesses[DRV_MAX_ACCESSES];
    int n_accesses = drv_piece_accesses(piece, accesses);
    char who[128], where[128];
    for (int i = 0; i < n_accesses; i++) {
        const drv_access *a = &accesses[i];
        if (!emu_has_touched(launches, n, a->at, a->bytes, a->writes, who)) continue;
        drv_memory_tell(a->at, where, sizeof where);
        drv_violation("a %s %s %s, which %s, and nothing orders the two",
            piece->kind == DRV_WORK_COPY ? "copy" : "fill", a->writes ? "writes" : "reads", where,
            who);
        return;
    }
}

size_t drv_order_look(
    const drv_work *work, int node, const drv_piece *piece, drv_access out[DRV_MOST_UNORDERED]) {
    uint64_t launches[RAN];
    size_t n_launches = 0, n = 0;
    for (uint64_t i = 0; i < RAN && i < n_past; i++) {
        const ran *r = &past[i];
        if (is_before(r, work, node)) continue;
        if (r->launch != 0) launches[n_launches++] = r->launch;
        // Those of other lanes are in their history.
        for (int a = 0; a < r->n_accesses && r->lane == work->lane; a++)
            if (n < DRV_MOST_UNORDERED) out[n++] = r->accesses[a];
    }
    if (piece->kind == DRV_WORK_KERNEL)
        emu_set_unordered_launches(launches, n_launches);
    else if (n_launches > 0)
        complain(piece, launches, n_launches);
    return n;
}
