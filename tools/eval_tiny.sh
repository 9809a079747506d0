#!/bin/sh
# Is the shipped model still right? Draws pictures nobody has seen (the seed is printed), asks build/kotaro-run, and fails where
# a share falls below its floor. The floors leave room for small numbers; the model card has the shares of 1,000 pictures.
# usage: eval_tiny.sh [PICTURES A SET]       PYTHON: a python3 with numpy and Pillow; EVAL: further arguments (-- --device cuda)
set -eu
cd "$(dirname "$0")/.."
n=${1:-40}
can() { "$1" -c 'import numpy, PIL' 2>/dev/null; }
python=${PYTHON:-python3}
if ! can "$python"; then
    python=/usr/bin/python3 # what Debian's packages are for
    can $python || tools/setup.sh eval
fi
# ask SETS [FLOORS]
ask() {
    # shellcheck disable=SC2086
    "$python" tools/train/evaluate.py --n "$n" --sets "$1" ${2:+--floor "$2"} ${EVAL:-}
}
ask unseen,worn name=0.9,count=0.9,place=0.9
ask nothing refusal=0.8
ask style name=0.5
ask blind # what can be guessed without seeing
