// CPU implementation of unpack_bnb_plain/op.yaml.
#include "ops/kt_bnb.h"

static const char *run(const kt_cpu_call *call) {
    return kt_bnb_unpack(call, 0);
}

KT_CPU_OP("unpack_bnb_plain", run)
