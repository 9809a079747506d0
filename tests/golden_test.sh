#!/bin/sh
# Every stage of the model against the reference (tests/reference): the committed goldens, then three models of random
# geometry, whose checkpoints and goldens are made here. Then greedy tokens against the reference, teacher-forced.
# Variables: GEOMETRY_SEEDS="S S S": these instead of random ones. KOTARO_REFERENCE=numpy|torch: what the reference runs on.
# DEVICE=cpu|cuda: what Kotaro runs on.
set -u
cd "$(dirname "$0")/.."
kotaro=${BUILD:-build}/kotaro
device=${DEVICE:-cpu}
. tests/tap.sh

verify() { # verify NAME FOLDER [OPTION...]
    name=$1 folder=$2
    shift 2
    $kotaro verify pipelines/analyze.base.yaml --golden "$folder" --device $device "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    result $? "$name"
}

verify 'bf16: every stage agrees with the committed golden' tests/golden/bf16
verify 'nf4: every stage agrees with the committed golden' tests/golden/nf4

# It must be able to fail: the last byte of the file is the upper half of the last weight of resampler.proj.
cp -R tests/golden/bf16 "$tmp/damaged"
chmod -R u+w "$tmp/damaged"
size=$(wc -c <"$tmp/damaged/model.safetensors")
printf '\277' | dd of="$tmp/damaged/model.safetensors" bs=1 seek=$((size - 1)) conv=notrunc 2>"$tmp/err"
$kotaro verify pipelines/analyze.base.yaml --golden "$tmp/damaged" --device $device >"$tmp/out" 2>"$tmp/err" </dev/null
[ $? = 1 ] && grep -q '^FAIL *resampler' "$tmp/out" && ! grep -q '^FAIL *vision' "$tmp/out"
result $? 'another weight in the resampler fails there and not before'

python=
for p in python3 /usr/bin/python3; do
    [ -z "$python" ] && $p -c 'import numpy' 2>"$tmp/err" && python=$p
done
[ -n "$python" ]
result $? 'a Python with numpy (python3-numpy)'
[ -n "$python" ] || { echo "1..$n"; exit 1; }

seeds=${GEOMETRY_SEEDS:-$(od -An -N6 -tu2 /dev/urandom)}
echo "# GEOMETRY_SEEDS=\"$(echo $seeds)\""
for seed in $seeds; do
    if what=$($python tests/reference/geometry.py "$tmp/model" "$seed" 2>"$tmp/err"); then
        verify "$what" "$tmp/model"
    else
        result 1 "seed $seed: the reference"
    fi
    rm -rf "$tmp/model"
done

seed=${seeds##* }
$python tests/reference/make_goldens.py --model models/kotaro-tiny --out "$tmp/tiny" --size 190x120 --seed "$seed" \
    >"$tmp/out" 2>"$tmp/err"
verify "kotaro-tiny, whose weights were trained, seed $seed" "$tmp/tiny" --model models/kotaro-tiny

tokens() { # tokens KIND STORAGE
    $python tests/reference/forced.py --kind "$1" --storage "$2" --prompts 3 --tokens 16 --seed "$seed" \
        --set vocab_size=1000 --device $device --kotaro "${BUILD:-build}/kotaro-run" >"$tmp/out" 2>"$tmp/err" </dev/null
    result $? "$1, $2: greedy tokens are the reference's wherever bf16 could tell, seed $seed"
    grep '^  gap' "$tmp/out" | sed 's/^/#/'
}

tokens qwen2 nf4
tokens llama bf16
tokens minicpm nf4_plain
echo "1..$n"
