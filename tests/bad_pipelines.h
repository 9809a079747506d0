// What is said about a wrong pipeline or model file: reading, items, model, plans for both targets.
#ifndef KT_TESTS_BAD_PIPELINES_H
#define KT_TESTS_BAD_PIPELINES_H

#include "loader/diag.h"

// Ops come from ops/ and tests/data/bad_ops; the model is a fabricated one. Failures that are no
// diagnostics (a folder that no source recognises) become one without a place.
void bad_pipeline(kt_arena *arena, const char *path, kt_diag *diag);
void bad_model(kt_arena *arena, const char *path, kt_diag *diag);

#endif
