#!/bin/sh
# tools/check_layers.sh and check_machine.sh pass this tree, and find each kind of violation that is planted in a small
# one.
set -u
cd "$(dirname "$0")/.." || exit 2
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
n=0

report() { # report ok|"not ok" NAME
    n=$((n + 1))
    echo "$1 $n - $2"
}

fresh() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree"/runtime/base "$tree"/loader "$tree"/ptx/device "$tree"/ops/add "$tree"/tools \
        "$tree"/tests/emu/device
    : >"$tree/runtime/base/str.h"
    : >"$tree/loader/yaml.h"
    printf '#include "machine.cuh"\nKT_DEVICE float kt_twice(float v) {\n    return kt_add(v, v);\n}\n' \
        >"$tree/ptx/device/kt.cuh"
    cat >"$tree/ptx/device/machine.cuh" <<'END'
#define KT_DEVICE    static __device__ __forceinline__
#define KT_SHARED(type, name, n) __shared__ __align__(16) type name[n]
KT_DEVICE float kt_add(float a, float b) {
    return __fadd_rn(a, b);
}
KT_DEVICE void kt_sync(void) {
    __syncthreads();
}
END
    cat >"$tree/tests/emu/device/machine.cuh" <<'END'
#define EMU_PLACE const char *file, int line
#define KT_DEVICE static
#define KT_SHARED(type, name, n) type *name = (type *)emu_shared(#name, n)
KT_DEVICE float kt_add(float a, float b) {
    return a + b;
}
KT_DEVICE void kt_sync(EMU_PLACE) {
    emu_sync(file, line);
}
END
    printf 'KT_DEVICE void kt_mma(float c[4]) {\n    asm("mma" : "+f"(c[0]));\n}\n' >"$tree/ptx/device/mma.cuh"
    printf 'KT_DEVICE void kt_mma(float c[4], EMU_PLACE) {\n    emu_mma(c);\n}\n' >"$tree/tests/emu/device/mma.cuh"
    : >"$tree/ops/kt_cpu.h"
    printf '#include "loader/yaml.h"\n\n#include "runtime/base/str.h"\n#include <yaml.h>\n' >"$tree/loader/yaml.c"
    printf '#include "ops/kt_cpu.h"\n#include <math.h>\n' >"$tree/ops/add/add.c"
    cat >"$tree/ops/add/add.cu" <<'END'
#include "kt.cuh"
// asm would be wrong here
struct adder { // __shared__ as well
    const float *at;
    __device__ __forceinline__ float get(int32_t i) const {
        static_assert(KT_D > 1, "printf(assert) in a text");
        return kt_twice(at[i]); /* expf(1),
            atomicAdd(at, 1) */
    }
};
extern "C" __global__ void __launch_bounds__(32) kt_add_all(float *__restrict__ y, const float *x) {
    adder one = {x};
    y[threadIdx.x] = one.get(int32_t(threadIdx.x));
}
END
}

# plant FILE 'TEXT' 'ALL THAT IS FOUND'
plant() {
    fresh
    printf '%s\n' "$2" >>"$tree/$1"
    found=$($tool "$tree")
    status=$?
    what=$(printf '%s' "$2" | tr -s '\n ' '  ')
    if [ $status -eq 1 ] && [ "$found" = "$3" ]; then
        report ok "finds $what in $1"
    else
        report 'not ok' "finds $what in $1"
        echo "# exit status $status, expected: $3"
        printf '%s\n' "$found" | sed 's/^/# found: /'
    fi
}

for tool in tools/check_layers.sh tools/check_machine.sh; do
    if found=$($tool); then report ok "$tool: this tree"; else
        report 'not ok' "$tool: this tree"
        printf '%s\n' "$found" | sed 's/^/# /'
    fi
    fresh
    if $tool "$tree"; then report ok "$tool: a tree in order"; else report 'not ok' "$tool: a tree in order"; fi
done

tool=tools/check_layers.sh
plant runtime/base/str.h '#include "loader/yaml.h"' \
    "runtime/base/str.h:1: 'runtime/base' may not include 'loader/yaml.h'"
plant ops/add/add.c '#include "runtime/base/str.h"' \
    "ops/add/add.c:3: 'ops' may not include 'runtime/base/str.h'"
plant ops/add/add.c '#include <yaml.h>' "ops/add/add.c:3: 'ops' may not include <yaml.h>"
plant ops/add/add.cu '#include <cuda_fp16.h>' "ops/add/add.cu:15: 'kernel' may not include <cuda_fp16.h>"
plant tools/a.c '#include <yaml.h>' \
    "tools/a.c:1: <yaml.h> is already included by loader/yaml.c; a library belongs to one .c"
plant loader/yaml.h '#include <yaml.h>' \
    "loader/yaml.h:1: a header may not include <yaml.h>: outside libraries belong to one .c"
plant loader/yaml.c '#include <pthread.h>' \
    "loader/yaml.c:5: <pthread.h> is the operating system: only runtime/base/os_*.c"
plant loader/yaml.c '#include "yaml.h"' \
    "loader/yaml.c:5: no file 'yaml.h' (paths start at the root of the project)"

tool=tools/check_machine.sh
other='use a kt_ function of ptx/device, or add one to machine.cuh and to tests/emu/device'
# kernel 'TEXT' 'EXPECTED MESSAGE': in a kernel's file and in a shared one
kernel() {
    for place in ops/add/add.cu:15 ptx/device/kt.cuh:5; do
        plant "${place%:*}" "$1" "$place: $(printf '%s' "$2" | sed "s|^FILE:LINE|$place|")"
    done
}
kernel '  asm("bar.sync 0;");' "no 'asm' in kernels: assembly belongs in ptx/device/machine.cuh or mma.cuh"
kernel '  __asm__("bar.sync 0;");' "'__asm__' is the machine: $other"
kernel '  printf("x");' "no 'printf' in kernels: kernels have nobody to talk to: report through an output"
kernel '  assert(1);' "no 'assert' in kernels: kernels have nobody to talk to: report through an output"
kernel '  __syncthreads();' "'__syncthreads' is the machine: use kt_sync of machine.cuh"
kernel '  float v = __shfl_down_sync(~0u, x, 1);' "'__shfl_down_sync' is the machine: $other"
kernel '  __shared__ float s[4];' "'__shared__' is the machine: use KT_SHARED or KT_SHARED_DYNAMIC of machine.cuh"
kernel '__constant__ float s[4];' "'__constant__' is the machine: $other"
kernel '#if __CUDA_ARCH__ > 800' "'__CUDA_ARCH__' is the machine: $other"
kernel '  x = __builtin_expf(x);' "'__builtin_expf' is the machine: $other"
kernel '  atomicAdd(p, 1u);' "'atomicAdd' is the machine: use kt_atomic_add of machine.cuh"
kernel '  atomicCAS(p, 1u, 2u);' "'atomicCAS' is the machine: $other"
kernel '  int w = warpSize;' "no 'warpSize' in kernels: write 32, or use kt_lane and kt_warp of machine.cuh"
kernel '  long t = clock64();' "no 'clock64' in kernels: results may not depend on time"
kernel '  volatile float *p = y;' "no 'volatile' in kernels: use kt_load_shared_by_blocks of machine.cuh"
kernel '  float *p = new float[3];' \
    "no 'new' in kernels: memory is declared in the manifest: scratch, or shared of a launch"
kernel '  void *p = malloc(3);' \
    "no 'malloc' in kernels: memory is declared in the manifest: scratch, or shared of a launch"
kernel 'namespace cg = cooperative_groups;' "no 'cg' in kernels: only the functions of ptx/device
FILE:LINE: no 'cooperative_groups' in kernels: only the functions of ptx/device"
kernel '#pragma unroll' "no 'pragma' in kernels: use KT_UNROLL or KT_NO_UNROLL of machine.cuh"
kernel '  float4 v;' "'float4' is CUDA's: only the types and functions of ptx/device"
kernel '  x = tex2D(t, 1, 2);' "'tex2D' is CUDA's: only the types and functions of ptx/device"
kernel '  cudaStream_t s;' "'cudaStream_t' is CUDA's: only the types and functions of ptx/device"
kernel '  x = 2 * expf(x);' "'expf' is the C library's: use kt_exp of machine.cuh"
kernel '  x = y *sqrtf(x);' "'sqrtf' is the C library's: use kt_sqrt of machine.cuh"
kernel '  x = ::rint(x);' "'rint' is the C library's: use kt_round of machine.cuh"
kernel '  x = max(x, y);' "'max' is the C library's: use kt_max of machine.cuh"
kernel 'extern "C" __device__ float erff(float);' "extern: only a kernel, extern \"C\" __global__
FILE:LINE: 'erff' is the C library's: $other"
kernel '  x = saturate(x);' "unknown function 'saturate': $other"
kernel 'extern float table[];' 'extern: only a kernel, extern "C" __global__'
kernel '#ifdef EMU_H' "'EMU_H': a kernel may not know where it runs"

plant ptx/device/machine.cuh 'KT_DEVICE float kt_sub(
    float a, float b) {' "ptx/device/machine.cuh:9: 'KT_DEVICE float kt_sub( float a, float b)' is declared here but not in \
tests/emu/device/machine.cuh: kernels run with either"
plant tests/emu/device/machine.cuh '#define KT_ONCE' "tests/emu/device/machine.cuh:10: 'KT_ONCE' is declared here but not in \
ptx/device/machine.cuh: kernels run with either"
plant tests/emu/device/mma.cuh 'KT_DEVICE float kt_add(double a, double b) {' \
    "tests/emu/device/mma.cuh:4: 'KT_DEVICE float kt_add(double a, double b)' is declared here but not in \
ptx/device/mma.cuh: kernels run with either"
fresh
rm "$tree/tests/emu/device/mma.cuh"
found=$($tool "$tree")
if [ "$found" = "tests/emu/device/mma.cuh: missing: kernels run with ptx/device/mma.cuh or tests/emu/device/mma.cuh" ]; then
    report ok "finds a missing counterpart"
else
    report 'not ok' "finds a missing counterpart"
    echo "# found: $found"
fi
echo "1..$n"
