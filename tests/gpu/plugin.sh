#!/bin/sh
# The kernel half of tests/plugin_test.sh.
DEVICE=cuda exec "$(dirname "$0")/../plugin_test.sh"
