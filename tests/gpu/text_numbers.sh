#!/bin/sh
# The geometries of tests/test_text.c on a GPU, against the definition of the model.
cd "$(dirname "$0")/../.." || exit 2
CMOCKA_MESSAGE_OUTPUT=tap DEVICE=cuda exec "${BUILD:-build}/tests/test_text"
