#!/bin/sh
# A storage format in files alone: a format, the op that unpacks it and a checkpoint stored so, which the unchanged program
# loads. The checkpoint is the shipped model's in another form of the same numbers, so the answer is the same, byte by byte.
# DEVICE=cpu (default) runs the op's C file; DEVICE=cuda its kernel. The kernel is compiled in both cases.
set -u
cd "$(dirname "$0")/.."
DEVICE=${DEVICE:-cpu}
run=${BUILD:-build}/kotaro-run
kotaro=${BUILD:-build}/kotaro
. tests/tap.sh
scene=examples/scene.jpg
hash=$(sha256sum "$kotaro" | cut -d' ' -f1)
echo "# $kotaro before: $hash"

analyse() { # analyse OPTION...: stdout and stderr to files, the exit code in $got
    $run pipelines/simple.yaml $scene "$@" --device "$DEVICE" --greedy --max-tokens 24 >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
}

# ---- the format: 4-bit codes with all bits turned, the first of a pair in the low half, and an f32 scale for each
# block of 64; the code book is in the op
mkdir -p "$tmp/ops/formats" "$tmp/ops/unpack_turned"
cat >"$tmp/ops/formats/turned.format.yaml" <<'END'
kotaro: format/1
name: turned
doc: Turned 4-bit codes, the first of two in the low half of a byte, and a scale for each 64 along the flattened matrix.
when: $name.scales
require:
  - k % 2 == 0
parts:
  codes:
    tensor: $name
    type: u8[n, k / 2]
  scales:
    tensor: $name.scales
    type: f32[ceil_div(n * k, 64)]
END
cat >"$tmp/ops/unpack_turned/op.yaml" <<'END'
kotaro: op/1
name: unpack_turned
doc: Turned codes to rows of f16 - book[15 - code] * scale.
prepare: { format: turned, layout: rows_f16 }
dims:
  n: plan, rows
  k: plan, columns
  c: plan, bytes of a row
  b: plan, blocks
inputs:
  codes: u8[n, c]
  scales: f32[b]
outputs:
  rows: f16[n, k]
require:
  - k == 2 * c
  - b == ceil_div(n * k, 64)
variants:
  - name: flat
    launch:
      grid: ceil_div(n * k, 256)
      block: 256
check:
  tolerance: { f16: 1e-3 }
  cases:
    - { n: 5, k: 72, c: 36, b: 6 }
END
book="-1.0F, -0.6961928009986877F, -0.5250730514526367F, -0.39491748809814453F, -0.28444138169288635F,
    -0.18477343022823334F, -0.09105003625154495F, 0.0F, 0.07958029955625534F, 0.16093020141124725F,
    0.24611230194568634F, 0.33791524171829224F, 0.44070982933044434F, 0.5626170039176941F,
    0.7229568362236023F, 1.0F"
cat >"$tmp/ops/unpack_turned/unpack_turned.c" <<END
#include "ops/kt_cpu.h"

static const float book[16] = {$book};

static const char *run(const kt_cpu_call *call)
{
    const uint8_t *codes = kt_cpu_in(call, "codes")->data;
    const float *scales = kt_cpu_in(call, "scales")->data;
    uint16_t *rows = kt_cpu_in(call, "rows")->data;
    int64_t size = kt_cpu_dim(call, "n") * kt_cpu_dim(call, "k");
    for (int64_t i = 0; i < size; i++) {
        int code = 15 - (codes[i / 2] >> (i % 2 * 4) & 15);
        float value = book[code] * scales[i / 64];
        call->host->f32_to_f16(&value, &rows[i], 1);
    }
    return NULL;
}

KT_CPU_OP("unpack_turned", run)
END
cat >"$tmp/ops/unpack_turned/unpack_turned.cu" <<END
#include "kt.cuh"

extern "C" __global__ void __launch_bounds__(256) kt_unpack_turned_flat(
    kt_f16 *rows, const uint8_t *codes, const float *scales, int32_t n, int32_t k, int32_t c, int32_t b)
{
    const float book[16] = {$book};
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= (int64_t)n * k) return;
    int32_t code = 15 - (codes[i / 2] >> (i % 2 * 4) & 15);
    float value = 0;
    KT_UNROLL
    for (int32_t j = 0; j < 16; j++) value = code == j ? book[j] : value;
    rows[i] = kt_to_f16(kt_mul(value, scales[i / 64]));
}
END

# ---- the checkpoint: every NF4 weight of the shipped one, so stored
cp -R models/kotaro-tiny "$tmp/model"
chmod -R u+w "$tmp/model"
python3 - "$tmp/model/model.safetensors" >"$tmp/out" 2>"$tmp/err" <<'END'
import array, json, struct, sys
path = sys.argv[1]
data = open(path, "rb").read()
length = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + length])
header.pop("__metadata__", None)
start = 8 + length
stored = {name: data[start + t["data_offsets"][0]:start + t["data_offsets"][1]] for name, t in header.items()}
f32 = lambda bytes_: array.array("f", bytes_)
turn = bytes(255 - (b >> 4 | (b & 15) << 4) for b in range(256))
mark = ".quant_state.bitsandbytes__nf4"
out, made = {}, 0
for name, t in header.items():
    base = name.split(".weight")[0] + ".weight"
    if base + mark not in header:
        out[name] = (t["dtype"], t["shape"], stored[name])
    elif name == base:
        state = json.loads(stored[base + mark])
        book, scale_book = f32(stored[base + ".quant_map"]), f32(stored[base + ".nested_quant_map"])
        nested, codes = f32(stored[base + ".nested_absmax"]), stored[base + ".absmax"]
        assert state["blocksize"] == 64 and state["nested_blocksize"] == 256 and len(book) == 16
        offset = f32([state["nested_offset"]])[0]
        products = array.array("f", (scale_book[c] * nested[i // 256] for i, c in enumerate(codes)))
        scales = array.array("f", (p + offset for p in products))
        n, k = state["shape"]
        out[name] = ("U8", [n, k // 2], stored[name].translate(turn))
        out[name + ".scales"] = ("F32", [len(scales)], scales.tobytes())
        made += 1
table, at = {}, 0
for name, (dtype, shape, bytes_) in out.items():
    table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(bytes_)]}
    at += len(bytes_)
text = json.dumps(table).encode()
with open(path, "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for _, _, bytes_ in out.values():
        file.write(bytes_)
print(made, "weights stored anew")
assert made > 20
END
result $? 'a checkpoint in the format is written'
sed 's/^/# /' "$tmp/out"

# ---- the program
analyse --model models/kotaro-tiny
cp "$tmp/out" "$tmp/plain"
ok=1
[ "$got" = 0 ] && [ -s "$tmp/plain" ] && ok=0
result $ok 'the shipped checkpoint is answered from'

analyse --model "$tmp/model"
ok=1
[ "$got" = 2 ] && grep -q "error: .*weight" "$tmp/err" && ok=0
result $ok 'without the format, its checkpoint is refused'

analyse --model "$tmp/model" --ops "$tmp/ops"
ok=1
[ "$got" = 0 ] && cmp -s "$tmp/out" "$tmp/plain" && ok=0
result $ok 'with the format, the answer is the same'

$kotaro plan pipelines/simple.yaml --model "$tmp/model" --ops "$tmp/ops" >"$tmp/out" 2>"$tmp/err" </dev/null
ok=1
grep -q 'weights of turned as tiles_f16' "$tmp/out" && ok=0
result $ok 'a plan for a GPU makes tiles of it'

# Another book is another model: the op's numbers are what the weights are made of.
sed -i 's/0\.0F, 0\.07958029955625534F/0.9F, 0.07958029955625534F/' "$tmp/ops/unpack_turned/unpack_turned.c" \
    "$tmp/ops/unpack_turned/unpack_turned.cu"
analyse --model "$tmp/model" --ops "$tmp/ops"
ok=1
[ "$got" = 0 ] && ! cmp -s "$tmp/out" "$tmp/plain" && ok=0
result $ok 'with another code book in the op it is not'

$kotaro ops check unpack_turned --ops "$tmp/ops" --device "$DEVICE" >"$tmp/out" 2>"$tmp/err" </dev/null
result $? 'the op is an op'
$kotaro warm pipelines/simple.yaml --model "$tmp/model" --ops "$tmp/ops" --arch 89 >"$tmp/out" 2>"$tmp/err" </dev/null
result $? 'its kernel compiles'

after=$(sha256sum "$kotaro" | cut -d' ' -f1)
echo "# $kotaro after:  $after"
[ "$after" = "$hash" ]
result $? 'the program is the same file as before'
echo "1..$n"
