#!/bin/sh
# Process start to ready over a model folder whose files are in memory: a table of medians and one line of JSON.
# usage: tools/bench_load.sh MODEL [RUNS]      BUILD: build; PIPELINE: pipelines/full.yaml; PICTURE: examples/scene.jpg; DEVICE: auto
set -eu
model=${1:-}
runs=${2:-5}
build=${BUILD:-build}
if [ ! -d "$model" ]; then
    echo "bench_load.sh: '$model' is no model folder; give one: make bench-load MODEL=DIR" >&2
    exit 2
fi
exec "$build/bench_load" "$runs" "$model" "$build/kotaro-run" "${PIPELINE:-pipelines/full.yaml}" "${PICTURE:-examples/scene.jpg}" \
    --model "$model" --device "${DEVICE:-auto}" --greedy --max-tokens 1 --verbose
