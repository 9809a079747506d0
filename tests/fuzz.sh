#!/bin/sh
# Runs fuzz targets built with libFuzzer for a while each. What they find is written to $BUILD/fuzz/ and named; what was
# interesting is kept in $BUILD/fuzz/NAME/ and is where the next run starts. Exit status 1 if anything was found.
# usage: fuzz.sh PROGRAM...
# Variables: BUILD (build-fuzz), FUZZ_SECONDS (20, for each target).
set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build-fuzz}
seconds=${FUZZ_SECONDS:-20}
export ASAN_OPTIONS="allocator_may_return_null=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"

found=0
for program; do
    name=$(basename "$program")
    name=${name#fuzz_}
    corpus=$BUILD/fuzz/$name start=$BUILD/fuzz/seeds/$name log=$BUILD/fuzz/$name.log
    mkdir -p "$corpus"
    tests/fuzz_seeds.sh "$name" "$start"
    words=
    case $name in json | model | safetensors | tokenizer) words=-dict=tests/data/fuzz/json.dict ;; esac
    # shellcheck disable=SC2086 # no word where there is no dictionary
    if "./$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=65536 -print_final_stats=1 \
        $words -artifact_prefix="$BUILD/fuzz/$name-" "$corpus" "$start" >"$log" 2>&1 </dev/null; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz_$name: $runs runs in $seconds s, nothing found"
    else
        found=$((found + 1))
        echo "fuzz_$name: FOUND; see $log"
        grep -E 'ERROR|runtime error|assert|SUMMARY|Test unit written' "$log" | head -8 | sed 's/^/    /'
    fi
done
[ "$found" = 0 ]
