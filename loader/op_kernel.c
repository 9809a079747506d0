// The rule from a contract to a kernel: its name, its parameters, its prototype.
#include "loader/op.h"

#include <string.h>

static const char *const c_types[] = {
    // In the order of kt_dtype; the device's names for element types (ptx/device/kt.cuh).
    "float",
    "kt_f16",
    "kt_bf16",
    "uint8_t",
    "uint8_t",
    "int64_t",
    "int32_t",
    "int16_t",
    "int8_t",
    "uint32_t",
    "uint16_t",
    "uint8_t",
};
_Static_assert(
    sizeof c_types / sizeof c_types[0] == KT_DTYPE_COUNT, "one name for each element type");

static int count_args(const kt_op *op, const kt_variant *v) {
    return op->n_ports + v->n_layouts + v->n_scratch + v->n_counters + op->n_dims + op->n_params;
}

static bool in_port_turn(const kt_op_port *port, int turn) {
    if (turn == 0) return port->kind == KT_PORT_OUTPUT;
    if (turn == 1) return port->kind == KT_PORT_INOUT;
    return port->kind == KT_PORT_INPUT && port->type.base != KT_BASE_LINEAR;
}

kt_arg *kt_op_args(kt_arena *arena, const kt_op *op, const kt_variant *variant, int *n) {
    kt_arg *args = KT_NEW_ARRAY(arena, kt_arg, count_args(op, variant));
    int at = 0;
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < op->n_ports; i++) {
            if (in_port_turn(&op->ports[i], turn))
                args[at++] = (kt_arg){KT_ARG_PORT, i, 8, op->ports[i].name};
        }
    }
    for (int i = 0; i < variant->n_layouts; i++)
        args[at++] = (kt_arg){KT_ARG_LAYOUT, i, 8, variant->layouts[i].name};
    for (int i = 0; i < variant->n_scratch; i++)
        args[at++] = (kt_arg){KT_ARG_SCRATCH, i, 8, variant->scratch[i].name};
    for (int i = 0; i < variant->n_counters; i++)
        args[at++] = (kt_arg){KT_ARG_COUNTER, i, 8, variant->counters[i].name};
    for (int i = 0; i < op->n_dims; i++) {
        if (op->dims[i].binding == KT_BINDING_PLAN)
            args[at++] = (kt_arg){KT_ARG_DIM, i, 4, op->dims[i].name};
    }
    for (int i = 0; i < op->n_params; i++) {
        if (op->params[i].kind != KT_PARAM_CHOICE)
            args[at++] = (kt_arg){KT_ARG_PARAM, i, 4, op->params[i].name};
    }
    *n = at;
    return args;
}

char *kt_op_kernel_name(
    kt_arena *arena, const kt_op *op, const kt_variant *variant, const kt_op_launch *launch) {
    return kt_arena_printf(arena, "kt_%.*s_%.*s%s%.*s", KT_STR_ARG(op->name),
        KT_STR_ARG(variant->name), launch->name.n > 0 ? "_" : "", KT_STR_ARG(launch->name));
}

static void print_identifier(kt_str name, kt_buf *out) {
    for (size_t i = 0; i < name.n; i++)
        kt_buf_printf(out, "%c", name.at[i] == '.' ? '_' : name.at[i]);
}

static void print_pointer(const kt_type *type, bool written, kt_str name, kt_buf *out) {
    kt_buf_printf(out, "%s", written ? "" : "const ");
    if (type->base == KT_BASE_VAR) {
        kt_buf_printf(out, "KT_");
        for (size_t i = 0; i < type->var.n; i++) {
            char c = type->var.at[i];
            kt_buf_printf(out, "%c", c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
        }
    } else {
        kt_buf_printf(out, "%s", c_types[type->dtype]);
    }
    kt_buf_printf(out, " *");
    print_identifier(name, out);
}

static void print_arg(const kt_op *op, const kt_variant *v, const kt_arg *arg, kt_buf *out) {
    switch (arg->kind) {
    case KT_ARG_PORT: {
        const kt_op_port *port = &op->ports[arg->index];
        print_pointer(&port->type, port->kind != KT_PORT_INPUT, port->name, out);
        return;
    }
    case KT_ARG_LAYOUT:
        kt_buf_printf(out, "const uint8_t *");
        print_identifier(arg->name, out);
        return;
    case KT_ARG_SCRATCH:
        print_pointer(&v->scratch[arg->index].type, true, arg->name, out);
        return;
    case KT_ARG_COUNTER:
        print_pointer(&v->counters[arg->index].type, true, arg->name, out);
        return;
    case KT_ARG_DIM:
        kt_buf_printf(out, "int32_t %.*s", KT_STR_ARG(arg->name));
        return;
    case KT_ARG_PARAM:
        kt_buf_printf(out, "%s %.*s",
            op->params[arg->index].kind == KT_PARAM_F32 ? "float" : "int32_t",
            KT_STR_ARG(arg->name));
        return;
    }
}

void kt_op_print_prototype(const kt_op *op, const kt_variant *variant, kt_buf *out) {
    kt_arena arena = {0};
    int n;
    const kt_arg *args = kt_op_args(&arena, op, variant, &n);
    for (int i = 0; i < variant->n_launches; i++) {
        kt_buf_printf(out, "extern \"C\" __global__ void %s(",
            kt_op_kernel_name(&arena, op, variant, &variant->launches[i]));
        for (int k = 0; k < n; k++) {
            if (k > 0) kt_buf_printf(out, ", ");
            print_arg(op, variant, &args[k], out);
        }
        kt_buf_printf(out, ");\n");
    }
    kt_arena_deinit(&arena);
}
