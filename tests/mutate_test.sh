#!/bin/sh
# The mutation proof (tests/mutate.py) with a few bugs: it does not rot. `make mutate` is the whole of it.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/tap.sh
if [ "${KOTARO_EMU:-checked}" != checked ]; then
    echo '1..1'
    echo 'ok 1 - bugs in kernels are noticed # SKIP races are noticed in checked kernels alone'
    exit 0
fi

tests/mutate.py --fast >"$tmp/out" 2>"$tmp/err"
result $? 'bugs in kernels are noticed'

# What is no bug must be missed, or the proof would prove nothing.
cat >"$tmp/none.txt" <<'END'
[no-bug]
kind: none
file: ops/sum_parts/sum_parts.cu
ops: sum_parts
-        y[at] = sum;
+        y[at] = sum + 0;
END
tests/mutate.py --data "$tmp/none.txt" --count 0 >"$tmp/out" 2>"$tmp/err"
got=$?
[ "$got" = 1 ] && grep -q '^missed: no-bug' "$tmp/out"
result $? 'and what is no bug is missed'
echo "1..$n"
