// What the program offers to CPU implementations: threads, conversions, matrix products.
#ifndef KT_EXEC_CPU_HOST_H
#define KT_EXEC_CPU_HOST_H

#include "ops/kt_cpu.h"
#include "runtime/base/pool.h"

#include <stdbool.h>

// The pool is lent and must outlive the host. Opens OpenBLAS if the system has it and `allow_blas`.
void kt_cpu_host_init(kt_cpu_host *host, kt_pool *pool, bool allow_blas);

#endif
