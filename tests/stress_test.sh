#!/bin/sh
# Every failure of a run of three ops: tests/stress.sh.
set -u
cd "$(dirname "$0")/.." || exit 2
exec tests/stress.sh three
