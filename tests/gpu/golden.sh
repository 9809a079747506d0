#!/bin/sh
# golden_test.sh on the GPU: committed goldens, random geometries, greedy tokens.
set -u
cd "$(dirname "$0")/../.."
DEVICE=cuda exec tests/golden_test.sh
