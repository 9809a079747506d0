// CPU implementation of tile_bnb_k16/op.yaml: the bytes of its comment, one by one.
#include "ops/kt_bnb.h"

static const char *run(const kt_cpu_call *call) {
    return kt_bnb_tile_k16(call, 1);
}

KT_CPU_OP("tile_bnb_k16", run)
