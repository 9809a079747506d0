#!/bin/sh
# Text pipelines on a GPU: tests/text_test.sh there, and its numbers against the CPU's.
DEVICE=cuda exec "$(dirname "$0")/../text_test.sh"
