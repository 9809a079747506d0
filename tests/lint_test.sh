#!/bin/sh
# tools/check_layers.sh passes this tree, and finds each kind of violation that is planted in a small one.
set -u
cd "$(dirname "$0")/.."
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
n=0

report() { # report ok|"not ok" NAME
    n=$((n + 1))
    echo "$1 $n - $2"
}

fresh() {
    rm -rf "$tree"/*
    mkdir -p "$tree"/runtime/base "$tree"/loader "$tree"/ptx/device "$tree"/ops/add "$tree"/tools
    : >"$tree/runtime/base/str.h"
    : >"$tree/loader/yaml.h"
    : >"$tree/ptx/device/kt.cuh"
    : >"$tree/ops/kt_cpu.h"
    printf '#include "loader/yaml.h"\n\n#include "runtime/base/str.h"\n#include <yaml.h>\n' >"$tree/loader/yaml.c"
    printf '#include "ops/kt_cpu.h"\n#include <math.h>\n' >"$tree/ops/add/add.c"
    printf '#include "kt.cuh"\n// asm would be wrong here\n' >"$tree/ops/add/add.cu"
}

# plant FILE 'TEXT' 'EXPECTED FIRST LINE'
plant() {
    fresh
    printf '%s\n' "$2" >>"$tree/$1"
    found=$(tools/check_layers.sh "$tree")
    status=$?
    if [ $status -eq 1 ] && [ "$found" = "$3" ]; then
        report ok "finds $2 in $1"
    else
        report 'not ok' "finds $2 in $1"
        echo "# exit status $status, expected: $3"
        printf '%s\n' "$found" | sed 's/^/# found: /'
    fi
}

if found=$(tools/check_layers.sh); then report ok "this tree"; else
    report 'not ok' "this tree"
    printf '%s\n' "$found" | sed 's/^/# /'
fi
fresh
if tools/check_layers.sh "$tree"; then report ok "a tree in order"; else report 'not ok' "a tree in order"; fi

plant runtime/base/str.h '#include "loader/yaml.h"' \
    "runtime/base/str.h:1: 'runtime/base' may not include 'loader/yaml.h'"
plant ops/add/add.c '#include "runtime/base/str.h"' \
    "ops/add/add.c:3: 'ops' may not include 'runtime/base/str.h'"
plant ops/add/add.c '#include <yaml.h>' "ops/add/add.c:3: 'ops' may not include <yaml.h>"
plant ops/add/add.cu '#include <cuda_fp16.h>' "ops/add/add.cu:3: 'kernel' may not include <cuda_fp16.h>"
plant ops/add/add.cu '  asm volatile("bar.sync 0;");' "ops/add/add.cu:3: asm belongs in ptx/device"
plant ops/add/add.cu '  printf("x");' "ops/add/add.cu:3: no printf in kernels"
plant tools/a.c '#include <yaml.h>' \
    "tools/a.c:1: <yaml.h> is already included by loader/yaml.c; a library belongs to one .c"
plant loader/yaml.h '#include <yaml.h>' \
    "loader/yaml.h:1: a header may not include <yaml.h>: outside libraries belong to one .c"
plant loader/yaml.c '#include <pthread.h>' \
    "loader/yaml.c:5: <pthread.h> is the operating system: only runtime/base/os_*.c"
plant loader/yaml.c '#include "yaml.h"' \
    "loader/yaml.c:5: no file 'yaml.h' (paths start at the root of the project)"
echo "1..$n"
