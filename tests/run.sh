#!/bin/sh
# Runs test programs and shell tests, which all speak TAP, and adds up their results. The last line is
# "N passed, N failed, N skipped"; the exit status is 1 if anything failed.
# usage: run.sh [--gpu] PROGRAM...    --gpu: all are skipped where there is no NVIDIA GPU
# Variables: BUILD (build), TEST_SECONDS (per program, 900). Each program's output is kept in $BUILD/tests/*.log.
set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
export BUILD
logs=$BUILD/tests
mkdir -p "$logs" "$BUILD/test-cache"
chmod 700 "$BUILD/test-cache"
export CMOCKA_MESSAGE_OUTPUT=tap LC_ALL=C.UTF-8
export KOTARO_CACHE_DIR="$PWD/$BUILD/test-cache" # never the user's
export ASAN_OPTIONS="protect_shadow_gap=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"

no_gpu=
if [ "${1:-}" = --gpu ]; then
    shift
    if [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ]; then no_gpu='no /dev/nvidiactl'; fi
fi

# Reads one program's TAP and its exit status; prints "passed failed skipped". Tests that were planned but not
# reported (a crash) have failed, and so has a program that ends badly without saying why.
count() {
    awk -v status="$2" '
        /^1\.\.[0-9]+/ { split($1, plan, "[.][.]"); planned += plan[2]; next }
        /^(not )?ok / && / # SKIP/ { skipped++; next } # cmocka writes "not ok N # SKIP name"
        /^ok / { passed++; next }
        /^not ok / { failed++ }
        END {
            lost = planned - passed - failed - skipped
            if (lost > 0) failed += lost
            if (status != 0 && !failed) failed++
            if (status == 0 && passed + failed + skipped == 0) failed++
            print passed + 0, failed + 0, skipped + 0
        }' "$1"
}

passed=0 failed=0 skipped=0
for program; do
    name=$(basename "$program" .sh)
    if [ -n "$no_gpu" ]; then
        echo "$name: skipped: no NVIDIA GPU ($no_gpu)"
        skipped=$((skipped + 1))
        continue
    fi
    log=$logs/$name.log
    status=0
    timeout -k 10 "${TEST_SECONDS:-900}" "./$program" >"$log" 2>&1 </dev/null || status=$?
    counts=$(count "$log" "$status")
    read -r p f s <<EOT
$counts
EOT
    echo "$name: $p passed, $f failed, $s skipped"
    if [ "$f" -gt 0 ]; then
        [ "$status" != 124 ] || echo "    it ran longer than ${TEST_SECONDS:-900} s"
        # What failed, with the lines that say why; a crash says it at the end.
        if grep -q '^not ok' "$log"; then
            grep -v -e '^ok ' -e ' # SKIP' -e '^1\.\.' "$log" | head -60 | sed 's/^/    /'
        fi
        if [ "$status" -ge 124 ] || ! grep -q '^not ok' "$log"; then
            echo "    exit status $status; the end of $log:"
            tail -25 "$log" | sed 's/^/    /'
        fi
    fi
    grep ' # SKIP' "$log" | sed 's/^[^#]*# SKIP/    skipped:/'
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
summary="$passed passed, $failed failed, $skipped skipped"
echo "$summary" >"$logs/summary"
echo "$summary"
[ "$failed" = 0 ]
