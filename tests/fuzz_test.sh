#!/bin/sh
# Every fuzz target for a few seconds without libFuzzer: its seeds, then mutated seeds (tests/fuzz/main.c).
# Variables: BUILD (build), FUZZ_TEST_SECONDS (2, for each target), KOTARO_SEED (random) repeats a run.
set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
. tests/tap.sh
seconds=${FUZZ_TEST_SECONDS:-2}
seed=${KOTARO_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
export ASAN_OPTIONS="allocator_may_return_null=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
echo "# seed $seed"
for source in tests/fuzz_*.c; do
    name=$(basename "$source" .c)
    name=${name#fuzz_}
    tests/fuzz_seeds.sh "$name" "$tmp/seeds"
    KOTARO_SEED=$seed timeout -k 5 $((seconds + 120)) "$BUILD/tests/plain_$name" "$seconds" "$seed" "$tmp/state" "$tmp"/seeds/* \
        >"$tmp/out" 2>&1 </dev/null
    got=$?
    echo "# fuzz_$name: $(tail -1 "$tmp/out")"
    if [ "$got" != 0 ]; then
        tail -40 "$tmp/out" | sed 's/^/# /'
        run=$(tr -d ' ' <"$tmp/state")
        # The input depends on the seeds too, which only this tree has.
        echo "# exit status $got. Repeat: tests/fuzz_seeds.sh $name S; $BUILD/tests/plain_$name 0 $seed:$run - S/*"
    fi
    result "$got" "fuzz_$name: $seconds s of seeds and mutated seeds"
    rm -f "$tmp/state"
done
echo "1..$n"
