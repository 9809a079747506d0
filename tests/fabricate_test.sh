#!/bin/sh
# build/fabricate: checkpoints have the sizes and names of the downloads, their bytes come from the seed alone, and the
# program reads and runs them.
set -u
cd "$(dirname "$0")/.."
fabricate=${BUILD:-build}/fabricate
kotaro=${BUILD:-build}/kotaro
. tests/tap.sh
small="--config tests/damage/config.json"

bytes() { # bytes NAME FILE SIZE
    got=$(wc -c <"$2")
    [ "$got" = "$3" ] || echo "# $2 has $got bytes, expected $3"
    [ "$got" = "$3" ]
    result $? "$1"
}

make_sparse() { # make_sparse MODEL: headers and small tensors; the rest are holes
    $fabricate --model "$1" --sparse --out "$tmp/$1" >"$tmp/out" 2>"$tmp/err"
    result $? "$1, sparse"
}

# plan_shows MODEL TEXT...: the plan of the picture pipeline for a card that is not here has these lines
plan_shows() {
    model=$1
    shift
    $kotaro plan pipelines/full.yaml --arch 89 --sms 24 --model "$tmp/$model" >"$tmp/out" 2>"$tmp/err"
    result $? "$model: planned"
    for text; do
        grep -qF "$text" "$tmp/out"
        result $? "$model: $text"
    done
}

# ---- the downloads: sizes of openbmb/MiniCPM-V-2_6-int4 and MiniCPM-V-2_6 (the index and the sums are the hub's to the byte)
make_sparse int4
bytes 'the index of int4' "$tmp/int4/model.safetensors.index.json" 233389
[ "$(grep -c '": "model-0000[12]-of-00002.safetensors"' "$tmp/int4/model.safetensors.index.json")" = 2444 ]
result $? 'int4 has 2444 tensors in 2 files'
[ "$(grep -c 'quant_state.bitsandbytes__nf4' "$tmp/int4/model.safetensors.index.json")" = 331 ]
result $? '331 of its matrices are 4-bit'
bytes 'int4, first file: 4.45 GB' "$tmp/int4/model-00001-of-00002.safetensors" 4454412288
bytes 'int4, second file: 1.50 GB' "$tmp/int4/model-00002-of-00002.safetensors" 1503366775
plan_shows int4 'weights of bnb_nf4 as tiles_lut4'
make_sparse bf16
[ "$(grep -c '": "model-0000[1-4]-of-00004.safetensors"' "$tmp/bf16/model.safetensors.index.json")" = 789 ]
result $? 'bf16 has 789 tensors in 4 files'
grep -q '"total_size": 16198350304$' "$tmp/bf16/model.safetensors.index.json"
result $? 'bf16 has 16,198,350,304 bytes'
plan_shows bf16 'weights of f16 as tiles_f16'

# GGUF: the sum of the text model's tensors is what llama.cpp logs for the real file, 4458.57 MiB; the rest is the header.
make_sparse gguf-q4_k_m
grep -q '^ggml-model-Q4_K_M.gguf: .* 339 tensors$' "$tmp/out" && grep -q '^mmproj-model-f16.gguf: .* 455 tensors$' "$tmp/out"
result $? 'gguf has 339 and 455 tensors'
$kotaro plan pipelines/full.yaml --arch 89 --sms 24 --model "$tmp/gguf-q4_k_m" >"$tmp/out" 2>"$tmp/err"
result $? 'gguf: planned'
# MB of the text model's matrices: 168 in Q4_K and the embedding, 29 in Q6_K; 4458.57 MiB less 141 vectors of f32.
stored=$(sed -n 's/.*weights of gguf_q[46]_k .*(\([0-9.]*\) MB stored).*/\1/p' "$tmp/out" | awk '{ sum += $1 } END { print sum }')
awk -v got="$stored" 'BEGIN { want = 4458.57 * 1.048576 - 1.0
    exit !(got > want - 1 && got < want + 1) }' || { echo "# $stored MB"; false; }
result $? 'gguf: 4458.57 MiB of tensors'

# ---- the bytes
make_small() { # make_small NAME OPTION...
    name=$1
    shift
    $fabricate $small --out "$tmp/$name" "$@" >"$tmp/out" 2>"$tmp/err" || result 1 "$name"
}
make_small one --seed 7 --threads 1
make_small three --seed 7 --threads 3
make_small other --seed 8
make_small parts --seed 7 --shard 500000
make_small holes --seed 7 --sparse
cmp -s "$tmp/one/model.safetensors" "$tmp/three/model.safetensors"
result $? 'the bytes do not depend on the number of threads'
! cmp -s "$tmp/one/model.safetensors" "$tmp/other/model.safetensors"
result $? 'another seed gives other bytes'
[ "$(cat "$tmp"/parts/model-*.safetensors | wc -c)" -gt 1000000 ] && [ ! -e "$tmp/parts/model.safetensors" ]
result $? 'a limit splits the file'
# Every tensor of this model is small, so that nothing is left a hole.
cmp -s "$tmp/one/config.json" "$tmp/holes/config.json" && cmp -n 22032 "$tmp/one/model.safetensors" "$tmp/holes/model.safetensors"
result $? 'a sparse file has the same header'

# ---- answers
answer() { # answer NAME: stdout to NAME.txt
    $kotaro run pipelines/simple.yaml examples/scene.jpg --device cpu --greedy --max-tokens 12 --model "$tmp/$1" \
        >"$tmp/$1.txt" 2>"$tmp/err" </dev/null
    result $? "$1: answers"
}
answer one
answer parts
answer other
cmp -s "$tmp/one.txt" "$tmp/parts.txt"
result $? 'one file or several: the same answer'
! cmp -s "$tmp/one.txt" "$tmp/other.txt"
result $? 'another seed: another answer'

for mix in gguf-q4_k_m gguf-q4_0; do # all weights of this model are small: rows of 128 stay f16 beside Q4_K
    make_small $mix --model $mix --seed 7
    answer $mix
    make_small $mix-3 --model $mix --seed 7 --threads 3
    cmp -s "$tmp/$mix"/ggml*.gguf "$tmp/$mix-3"/ggml*.gguf
    result $? "$mix: the bytes do not depend on the number of threads"
done

# ---- refused
$fabricate --model f64 --out "$tmp/no" >"$tmp/out" 2>"$tmp/err"
[ $? = 2 ] && grep -q 'int4, bf16, gguf-q4_k_m' "$tmp/err"
result $? 'an unknown model is refused'
printf '{"hidden_size": 0}\n' >"$tmp/bad.json"
$fabricate --config "$tmp/bad.json" --out "$tmp/no" >"$tmp/out" 2>"$tmp/err"
[ $? = 2 ] && grep -q "'hidden_size' is 0, expected an integer from 1" "$tmp/err"
result $? 'sizes that no model has are refused'

echo "1..$n"
