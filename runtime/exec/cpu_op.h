// Finds the C implementation of an op: compiled in for shipped ops, compiled by the system's C
// compiler at first use for ops from --ops (cached beside the cubins as a shared library).
#ifndef KT_EXEC_CPU_OP_H
#define KT_EXEC_CPU_OP_H

#include "loader/op.h"
#include "ops/kt_cpu.h"

// `include`: the folder that holds ops/kt_cpu.h. The result lives as long as the program. Errors:
// EOP (no C file, no compiler: with the remedy; the compiler's own messages; wrong version or
// name), ECOMPILE, EINTERRUPTED.
kt_status kt_cpu_op_find(
    const kt_op *op, const char *include, const kt_cpu_op **out, kt_err *err) KT_MUST_CHECK;

#endif
