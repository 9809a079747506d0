#!/bin/sh
# What a decode step costs with 4 rows against 1 row, on the device at hand: medians over pictures of one run each.
# usage: tools/bench_rows.sh [PICTURE] [RUNS] [TOKENS]       KOTARO_RUN: the program (build/kotaro-run)
set -eu
picture=${1:-examples/scene.jpg}
runs=${2:-30}
tokens=${3:-12}
run=${KOTARO_RUN:-build/kotaro-run}
pictures=$(i=0; while [ $i -lt "$runs" ]; do echo "$picture"; i=$((i + 1)); done)
question='What are its colours, its light and its mood?'
rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT

# Four times the same question, so that every row makes the same number of tokens as the one alone.
cat >"$rows/four.yaml" <<END
kotaro: pipeline/1
name: four
doc: One question four times.
extends: $PWD/pipelines/full.yaml
items:
  - { name: a, ask: "$question" }
  - { name: b, ask: "$question" }
  - { name: c, ask: "$question" }
  - { name: d, ask: "$question" }
END
median() { # of the decode times of a JSON stream, the first (cold) picture left out
    sed -n 's/.*"decode": \([0-9.]*\).*/\1/p' | tail -n +2 | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}
for device in ${DEVICE:-cuda}; do
    # shellcheck disable=SC2086
    one=$($run pipelines/full.yaml $pictures -p "$question" --device "$device" --greedy --max-tokens "$tokens" --format json --quiet | median)
    # shellcheck disable=SC2086
    four=$($run "$rows/four.yaml" $pictures --device "$device" --greedy --max-tokens "$tokens" --format json --quiet --model models/kotaro-tiny | median)
    echo "$device, $tokens steps: 1 row $one ms, 4 rows $four ms: $(echo "$four $one" | awk '{ printf "%.2f", $1 / $2 }') steps"
done
