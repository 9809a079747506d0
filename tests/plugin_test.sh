#!/bin/sh
# Ops are plug-ins: the unchanged program runs edited ops, new ops and new pipelines, and refuses broken ones where they
# are broken. DEVICE=cpu (default) runs their C files; DEVICE=cuda their kernels. Kernels are compiled in both cases.
set -u
cd "$(dirname "$0")/.."
DEVICE=${DEVICE:-cpu}
run=${BUILD:-build}/kotaro-run
kotaro=${BUILD:-build}/kotaro
. tests/tap.sh
scene=examples/scene.jpg
hash=$(sha256sum "$kotaro" | cut -d' ' -f1)
echo "# $kotaro $hash"

analyse() { # analyse OPTION...: stdout and stderr to files, the exit code in $got
    $run "$@" --device "$DEVICE" --greedy >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
}

# warm OPTION...: compiles for two architectures, which needs no GPU.
warm() {
    $kotaro warm "$@" --arch 89,90 >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
}

copy_op() { # a fresh copy of a shipped op in $tmp/ops
    rm -rf "$tmp/ops"
    mkdir -p "$tmp/ops"
    cp -R "ops/$1" "$tmp/ops/$1"
    chmod -R u+w "$tmp/ops"
}

analyse pipelines/simple.yaml $scene
cp "$tmp/out" "$tmp/shipped"
result "$got" 'the shipped ops run'

# ---- a copy of a shipped op, elsewhere
copy_op sum_parts
analyse pipelines/simple.yaml $scene --ops "$tmp/ops"
ok=1
[ "$got" = 0 ] && cmp -s "$tmp/out" "$tmp/shipped" && grep -q "sum_parts" "$tmp/err" && ok=0
result $ok 'a copy gives the same text, and stderr says that it replaces the shipped op'

# Its partial sums are lost: another model, so other text.
sed -i 's/float sum = x\[i\];/float sum = 0.25F * x[i];/' "$tmp/ops/sum_parts/sum_parts.c"
sed -i 's/float sum = x\[at\];/float sum = 0.25f * x[at];/' "$tmp/ops/sum_parts/sum_parts.cu"
analyse pipelines/simple.yaml $scene --ops "$tmp/ops"
ok=1
[ "$got" = 0 ] && ! cmp -s "$tmp/out" "$tmp/shipped" && ok=0
result $ok 'an edited op changes the text'

# ---- broken edits
copy_op sum_parts
sed -i 's/float sum = x\[at\];/flaot sum = x[at];/' "$tmp/ops/sum_parts/sum_parts.cu"
line=$(grep -n flaot "$tmp/ops/sum_parts/sum_parts.cu" | cut -d: -f1)
if [ "$DEVICE" = cuda ]; then analyse pipelines/simple.yaml $scene --ops "$tmp/ops"; else warm pipelines/simple.yaml --ops "$tmp/ops"; fi
ok=1
[ "$got" = 2 ] && grep -q "sum_parts.cu($line)" "$tmp/err" && grep -q flaot "$tmp/err" && ok=0
result $ok 'a kernel that does not compile: the compiler'"'"'s error with file and line'

if [ "$DEVICE" = cpu ]; then
    copy_op sum_parts
    sed -i 's/float sum = x\[i\];/flaot sum = x[i];/' "$tmp/ops/sum_parts/sum_parts.c"
    line=$(grep -n flaot "$tmp/ops/sum_parts/sum_parts.c" | cut -d: -f1)
    analyse pipelines/simple.yaml $scene --ops "$tmp/ops"
    ok=1
    [ "$got" = 2 ] && grep -q "sum_parts.c:$line" "$tmp/err" && ok=0
    result $ok 'a C file that does not compile: the compiler'"'"'s error with file and line'
fi

copy_op sum_parts
sed -i 's/, int32_t n, int32_t s)/, int32_t n)/; s/p < s; p++/p < 1; p++/' "$tmp/ops/sum_parts/sum_parts.cu"
if [ "$DEVICE" = cuda ]; then analyse pipelines/simple.yaml $scene --ops "$tmp/ops"; else warm pipelines/simple.yaml --ops "$tmp/ops"; fi
ok=1
[ "$got" = 2 ] && grep -q "kt_sum_parts_flat" "$tmp/err" && grep -q "'s'" "$tmp/err" && ok=0
result $ok 'a kernel whose parameters are not the manifest'"'"'s is refused, naming kernel and parameter'

copy_op sum_parts
sed -i 's/^name: sum_parts/name: sum_part/' "$tmp/ops/sum_parts/op.yaml"
analyse pipelines/simple.yaml $scene --ops "$tmp/ops"
ok=1
[ "$got" = 2 ] && grep -q "op.yaml:2:" "$tmp/err" && ok=0
result $ok 'an op whose name is not its folder'"'"'s is refused with file and line'

# ---- a new op and a pipeline that uses it
rm -rf "$tmp/ops"
mkdir -p "$tmp/ops/scale_logits"
cat >"$tmp/ops/scale_logits/op.yaml" <<'END'
kotaro: op/1
name: scale_logits
doc: y = x * factor.
dims:
  n: plan, rows
  v: build, vocabulary
params:
  factor: { type: f32, default: 1 }
inputs:
  x: f32[n, v]
outputs:
  y: f32[n, v]
variants:
  - name: flat
    launch:
      grid: ceil_div(n * v, 256)
      block: 256
check:
  tolerance: { f32: 1e-6 }
  cases:
    - { n: 3, v: 1000 }
END
cat >"$tmp/ops/scale_logits/scale_logits.c" <<'END'
#include "ops/kt_cpu.h"

static const char *run(const kt_cpu_call *call)
{
    int64_t size = kt_cpu_dim(call, "n") * kt_cpu_dim(call, "v");
    const float *x = kt_cpu_in(call, "x")->data;
    float *y = kt_cpu_in(call, "y")->data, factor = (float)kt_cpu_param(call, "factor");
    for (int64_t i = 0; i < size; i++) y[i] = x[i] * factor;
    return NULL;
}

KT_CPU_OP("scale_logits", run)
END
cat >"$tmp/ops/scale_logits/scale_logits.cu" <<'END'
#include "kt.cuh"

extern "C" __global__ void __launch_bounds__(256)
kt_scale_logits_flat(float *y, const float *x, int32_t n, float factor)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i < (int64_t)n * KT_V) y[i] = x[i] * factor;
}
END
pipeline() { # pipeline FACTOR
    cat >"$tmp/scaled.yaml" <<END
kotaro: pipeline/1
name: scaled
doc: simple.yaml with an op of our own before the sampler.
extends: $PWD/pipelines/simple.yaml
replace:
  decode.choose:
    - { op: scale_logits, in: { x: logits }, out: { y: scaled }, params: { factor: $1 } }
    - { id: choose, op: sample, in: { logits: scaled, stop: prompt.stop }, inout: { gen: gen }, params: sampler }
END
}
pipeline 2
analyse "$tmp/scaled.yaml" $scene --ops "$tmp/ops" --model models/kotaro-tiny
ok=1
[ "$got" = 0 ] && [ "$(cat "$tmp/out")" = "$(cat "$tmp/shipped")" ] && ok=0
result $ok 'a new op runs: scaling logits by 2 leaves greedy text as it is'
pipeline -1
analyse "$tmp/scaled.yaml" $scene --ops "$tmp/ops" --model models/kotaro-tiny --max-tokens 8
ok=1
[ "$got" = 0 ] && [ "$(cat "$tmp/out")" != "$(cat "$tmp/shipped")" ] && ok=0
result $ok 'by -1 does not'
warm "$tmp/scaled.yaml" --ops "$tmp/ops" --model models/kotaro-tiny
result "$got" 'its kernel compiles for cards that are not here'

ok=1
[ "$(sha256sum "$kotaro" | cut -d' ' -f1)" = "$hash" ] && ok=0
result $ok 'the program is the same file as before'
# ---- the example of docs/ops.md, as it stands there
rm -rf "$tmp/ops"
mkdir -p "$tmp/ops/scale"
awk '/^```/ { inside = $0 == "```c"; n += inside; next } inside && n == 1' docs/ops.md >"$tmp/ops/scale/scale.cu"
awk '/^```/ { inside = $0 == "```c"; n += inside; next } inside && n == 2' docs/ops.md >"$tmp/ops/scale/scale.c"
cat >"$tmp/ops/scale/op.yaml" <<'END'
kotaro: op/1
name: scale
doc: Every number times a factor.
dims:
  n: plan, numbers
params:
  factor: { type: f32, default: 1 }
inputs:
  x: f32[n]
outputs:
  y: f32[n]
variants:
  - name: flat
    tune:
      threads: [256]
    launch:
      grid: ceil_div(n, threads)
      block: threads
check:
  tolerance: { f32: 0 }
  cases:
    - { n: 3 }
END
$kotaro ops check scale --ops "$tmp/ops" --device cpu >"$tmp/out" 2>"$tmp/err" </dev/null
result $? 'the C file of docs/ops.md is an op'
cat >"$tmp/scaled.yaml" <<END
kotaro: pipeline/1
name: scaled
doc: The embedding, once more scaled by 1.
extends: $PWD/pipelines/simple.yaml
replace:
  prefill.embed:
    - { op: embed_tokens, in: { table: embed, ids: chunk.ids, image: vision.rows }, out: { x: e, part: p0 }, dims: { s: 1 } }
    - { op: scale, in: { x: e }, out: { y: x0 } }
END
sed -i -e 's/^  n: plan.*/&\n  d: build, columns/' -e 's/f32\[n\]/f32[n, d]/' -e 's/n: 3/n: 3, d: 1/' "$tmp/ops/scale/op.yaml"
warm "$tmp/scaled.yaml" --ops "$tmp/ops"
result "$got" 'the kernel of docs/ops.md compiles and takes what its manifest says'

echo "1..$n"
