// Any bytes as a YAML file: a tree whose places lie in the text, or errors that can be printed.
// Seeds: tests/bad/yaml.
#include "loader/yaml.h"
#include "tests/fuzz.h"

static void check_node(const kt_node *node, int depth) {
    const kt_source *source = node->at.source;
    KT_ASSERT(depth <= 32);
    KT_ASSERT(node->at.line >= 1 && node->at.line <= source->n_lines && node->at.col >= 1 &&
              node->at.width >= 1);
    if (node->kind == KT_NODE_SCALAR) {
        if (!node->exact) return;
        kt_place part = kt_place_part(node->at, node->text, 0, node->text.n);
        KT_ASSERT(part.col == node->at.col);
        return;
    }
    for (size_t i = 0; i < node->n; i++) {
        if (node->kind == KT_NODE_MAP)
            KT_ASSERT(kt_node_find_str(node, node->pairs[i].key) == &node->pairs[i]);
        check_node(node->kind == KT_NODE_LIST ? node->items[i] : node->pairs[i].value, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    kt_arena arena = {0};
    kt_diag diag;
    kt_diag_init(&diag, &arena);
    const kt_node *root =
        kt_yaml_parse(&arena, (kt_str){(const char *)data, size}, "fuzz.yaml", &diag);
    KT_ASSERT((root == NULL) == (diag.n_errors > 0));
    if (root != NULL && size < 4096) check_node(root, 1);
    kt_buf out = {0};
    kt_diag_print(&diag, &out);
    kt_buf_deinit(&out);
    kt_arena_deinit(&arena);
    return 0;
}
