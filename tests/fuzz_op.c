// Any bytes as a manifest or a format: an op whose kernels can be named, or errors that can be
// printed. Seeds: ops/*/op.yaml, tests/bad/ops.
#include "loader/op.h"
#include "tests/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kt_arena arena = {0};
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    kt_buf out = {0};
    const kt_node *root =
        kt_yaml_parse(&arena, (kt_str){(const char *)data, size}, "fuzz.yaml", &diag);
    const kt_op *op = root == NULL ? NULL : kt_op_read(&arena, root, "ops/x", true, &diag);
    KT_ASSERT((op == NULL) == (diag.n_errors > 0));
    for (int i = 0; op != NULL && i < op->n_variants; i++)
        kt_op_print_prototype(op, &op->variants[i], &out);
    kt_diag_print(&diag, &out);
    kt_buf_deinit(&out);
    kt_arena_deinit(&arena);
    return 0;
}
