#!/bin/sh
# What the GPU makes is what the CPU makes, stage by stage and layer by layer: a dump of the CPU is the golden of the GPU.
# DEVICE=cpu compares the CPU with itself.
set -u
cd "$(dirname "$0")/../.."
device=${DEVICE:-cuda}
run=${BUILD:-build}/kotaro-run
kotaro=${BUILD:-build}/kotaro
. tests/tap.sh
# Both round to f16 at the same places and sum in other orders, so a value may be rounded to either side: by 2^-11 at most, in
# the norm 2^-11 / sqrt 3 = 2.8e-4. A layer has eight such places (norm, q, k, v, what attention sees, norm, the product inside,
# weights of the scores on the GPU), and 11 layers stand behind each other at most (5 of vision, resampler, 4 of text, head):
# sqrt(2 * 8 * 11) * 2.8e-4 = 3.7e-3 where all of them differ. CPU implementations compiled with -ffast-math and FMA, which is
# another order of sums and nothing else, differ by 9.7e-4 at most on four pictures.
tolerance=4e-3

# golden DUMP IMAGE: DUMP/golden.json from its index.json. Bytes and ids, and what the host makes, are exact.
golden() {
    awk -v image="$2" -v tolerance=$tolerance -F'"' '
    BEGIN {
        printf "{\"kotaro\": \"golden/1\", \"doc\": \"a dump of the CPU\", \"model\": null, \"image\": \"%s\", ", image
        printf "\"question\": null, \"set\": {\"sampler.repetition_penalty\": 1}, \"greedy\": true, \"max_tokens\": 3, "
        printf "\"stages\": ["
    }
    /^  {"address"/ {
        split($4, address, "@")
        printf "%s\n{\"name\": \"%s\", \"address\": \"%s\", \"batch\": %d, \"file\": \"%s\", ", comma, $4, address[1], address[2], $8
        if ($12 != "f32" || address[1] ~ /^image\./) printf "\"kind\": \"exact\"}"
        else printf "\"kind\": \"float\", \"relative\": %s, \"why\": \"f16 rounded to either side, 8 times a layer, 11 layers\"}", tolerance
        comma = ","
    }
    END { printf "\n]}\n" }' "$1/index.json" >"$1/golden.json"
}

# Four items are four rows of a step: none is idle, and with three tokens none has ended.
$run pipelines/full.yaml examples/scene.jpg --greedy --max-tokens 3 --set sampler.repetition_penalty=1 --quiet --device cpu \
    --dump "$tmp/cpu" >"$tmp/out" 2>"$tmp/err" && golden "$tmp/cpu" "$PWD/examples/scene.jpg"
result $? 'a dump of the CPU'
$kotaro verify pipelines/full.yaml --golden "$tmp/cpu" --device "$device" --quiet >"$tmp/all" 2>"$tmp/err"
ok=$?
grep '^FAIL' "$tmp/all" >"$tmp/out"
tail -n 1 "$tmp/all" | sed 's/^/# /'
sed -n 's/^.* relative \([^ ]*\) of .*$/\1/p' "$tmp/all" | sort -g | tail -n 1 | sed 's/^/# the largest relative error: /'
[ $ok = 0 ] && [ "$(grep -c '^ok' "$tmp/all")" -gt 50 ]
result $? "every stage and layer on $device is the CPU's"
echo "1..$n"
