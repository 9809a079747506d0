#!/bin/sh
# The program on a GPU: the first run compiles, the second opens no NVRTC; graph replay and plain launches give the same text,
# and the CPU's; a step is one driver call; several pictures give what each gives alone.
set -u
cd "$(dirname "$0")/../.."
run=${BUILD:-build}/kotaro-run
. tests/tap.sh
scene=examples/scene.jpg

full() { # full OUT OPTION...
    out=$1
    shift
    $run pipelines/full.yaml $scene --greedy "$@" >"$tmp/$out" 2>"$tmp/err" </dev/null
}

same() { # same A B: both there, not empty, equal
    [ -s "$tmp/$1" ] && cmp -s "$tmp/$1" "$tmp/$2"
}

mkdir -m 700 "$tmp/cache"
export KOTARO_CACHE_DIR="$tmp/cache"
full first --device cuda --verbose
result $? 'the first run, with an empty cache'
sed -n 's/^opened/# opened/p' "$tmp/err"

KOTARO_NVRTC="$tmp/nowhere" full second --device cuda --verbose
ok=$?
sed -n 's/^opened/# opened/p' "$tmp/err"
[ $ok = 0 ] && same first second && grep -q ' 0 compiled' "$tmp/err"
result $? 'the second run has no NVRTC to open and needs none'

full cpu --device cpu && same first cpu
result $? 'the text is the CPU'"'"'s'
full plain --device cuda --no-graph && same first plain
result $? 'plain launches give the text of the graph'
full checked --device cuda --check-each && same first checked
result $? 'so do launches that are checked one by one'

full traced --device cuda --trace "$tmp/trace"
ok=$?
# From the first replay to the last there is nothing but replays.
between=$(sed -n '/cuGraphLaunch/,$p' "$tmp/trace" | awk '/cuGraphLaunch/ { others += held; held = 0; n++; next } { held++ } END { print n + 0, others + 0 }')
echo "# graph launches and other driver calls between them: $between"
[ $ok = 0 ] && same first traced && [ "${between#* }" = 0 ] && [ "${between% *}" -gt 10 ]
result $? 'a step is one graph launch and no other driver call'

$run pipelines/simple.yaml tests/data/scenes/*.jpg tests/data/scenes/*.png --device cuda --greedy --format json --quiet >"$tmp/many" 2>"$tmp/err"
for picture in tests/data/scenes/*.jpg tests/data/scenes/*.png; do
    $run pipelines/simple.yaml "$picture" --device cuda --greedy --format json --quiet
done >"$tmp/alone" 2>>"$tmp/err"
for file in many alone; do sed 's/"ms": .*//' "$tmp/$file" >"$tmp/$file.text"; done
same many.text alone.text
result $? 'several pictures in one run give what each gives alone'
echo "1..$n"
