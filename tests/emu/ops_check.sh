#!/bin/sh
# An op of a user's own over the stand-ins: `kotaro ops check` finds what is wrong with its kernel, and where.
set -u
cd "$(dirname "$0")/../.." || exit 2
kotaro=${BUILD:-build}/kotaro
. tests/tap.sh

mkdir -p "$tmp/good/row_max" "$tmp/wrong/row_max"
cat >"$tmp/good/row_max/op.yaml" <<'END'
kotaro: op/1
name: row_max
doc: The greatest number of each row.
dims:
  n: plan, rows
  d: plan, columns
inputs:
  x: f32[n, d]
outputs:
  y: f32[n]
require:
  - n >= 1 and d >= 1
variants:
  - name: block
    launch:
      grid: n
      block: 64
      shared: 8
check:
  tolerance: { f32: 0 }
  cases:
    - { n: 3, d: 37 }
END
cat >"$tmp/good/row_max/row_max.cu" <<'END'
#include "reduce.cuh"

extern "C" __global__ void kt_row_max_block(float *y, const float *x, int32_t n, int32_t d) {
    KT_SHARED_DYNAMIC(float, part);
    int32_t row = (int32_t)blockIdx.x;
    float most = x[row * d];
    for (int32_t i = (int32_t)threadIdx.x; i < d; i += 64)
        most = kt_max(most, x[row * d + i]);
    most = kt_warp_max(most);
    if (kt_lane() == 0) part[kt_warp()] = most;
    kt_sync();
    if (threadIdx.x == 0) y[row] = kt_max(most, part[1]);
}
END
cat >"$tmp/good/row_max/row_max.c" <<'END'
#include "ops/kt_cpu.h"

static const char *run(const kt_cpu_call *call) {
    const float *x = kt_cpu_in(call, "x")->data;
    float *y = kt_cpu_in(call, "y")->data;
    int64_t n = kt_cpu_dim(call, "n"), d = kt_cpu_dim(call, "d");
    for (int64_t i = 0; i < n * d; i++)
        if (i % d == 0 || x[i] > y[i / d]) y[i / d] = x[i];
    return NULL;
}
KT_CPU_OP("row_max", run)
END

check() { # check FOLDER
    "$kotaro" ops check row_max --ops "$tmp/$1" --device cuda --seed 1 >"$tmp/out" 2>"$tmp/err" </dev/null
}

# finds NAME 'PATTERN IN STDERR' SED-COMMAND: of the kernel
finds() {
    cp "$tmp/good/row_max"/* "$tmp/wrong/row_max"
    sed "$3" "$tmp/good/row_max/row_max.cu" >"$tmp/wrong/row_max/row_max.cu"
    if cmp -s "$tmp/good/row_max/row_max.cu" "$tmp/wrong/row_max/row_max.cu" || check wrong; then
        result 1 "$1"
        return
    fi
    grep -q -e "$2" -e Sanitizer "$tmp/err"
    result $? "$1"
}

check good && grep -q ' 0 failed' "$tmp/out"
result $? 'a right op passes'
if [ "${KOTARO_EMU:-checked}" = checked ]; then
    finds 'a row behind the end of a tensor is written' 'row_max.cu:12: .*4 bytes behind the end of a tensor of' 's/y\[row\]/y[row + 1]/'
    finds 'a number behind the end of a tensor is read' 'row_max.cu:8: .*4 bytes behind the end of a tensor of' 's/row \* d + i\]/row * d + i + 1]/'
    finds 'an input is written' 'row_max.cu:12: .*of an input' 's/y\[row\]/((float *)x)[row]/'
    finds 'a barrier is missing' 'row_max.cu:1[0-2]: .*uninitialised' '/kt_sync/d'
fi
KOTARO_EMU_SECONDS=1 finds 'a loop that never ends' 'row_max.cu:[78]: its block has run for 1 seconds' 's/i += 64/i += 64 * (d - d)/'
! grep -q check-each "$tmp/err"
result $? 'no option is named that the command does not have'
mkdir "$tmp/name" && cp -R "$tmp/good/row_max" "$tmp/name"
sed -i 's/"x")/"w")/' "$tmp/name/row_max/row_max.c"
check name
grep -q "bug in .*row_max.c: its manifest has no tensor 'w'" "$tmp/err"
result $? 'a wrong name in a C implementation is told with its file'
sed 's/kt_sync();/__syncthreads();/' "$tmp/good/row_max/row_max.cu" >"$tmp/wrong/row_max/row_max.cu"
check wrong
[ "$(grep -c "row_max.cu(11): error: '__syncthreads': .*: kt_sync$" "$tmp/out")" = 1 ] && grep -q '^    the same$' "$tmp/out"
result $? 'a function of CUDA is told once, with that to take instead'
echo "1..$n"
