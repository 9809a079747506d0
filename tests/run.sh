#!/bin/sh
# Runs test programs and shell tests, which all speak TAP, and adds up their results. The last line is
# "N passed, N failed, N skipped"; the exit status is 1 if anything failed.
# usage: run.sh [--gpu] PROGRAM... [--beside PROGRAM... --emu PROGRAM...]
#   --gpu     all are skipped where there is no NVIDIA GPU
#   --beside  those after it need one processor and no GPU: they run several at a time, as do
#   --emu     those that run over the stand-ins for driver and NVRTC (tests/emu/emu.h)
# gpu_ops:1/2 is the first half of its ops.
# Variables: BUILD (build), TEST_SECONDS (per program, 1800), JOBS (processors). Each program's output is kept in $BUILD/tests/*.log.
set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
export BUILD
logs=$BUILD/tests
export CMOCKA_MESSAGE_OUTPUT=tap LC_ALL=C.UTF-8
export ASAN_OPTIONS="protect_shadow_gap=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"

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

# Runs a program and says how it went; its counts go to $logs/NAME.count.
one() { # one PREFIX PROGRAM[:SHARD]; PREFIX emu.: where something must be run, not only skipped
    program=${2%%:*}
    name=$1$(basename "$program" .sh)
    case $2 in *:*)
        KOTARO_SHARD=${2#*:}
        export KOTARO_SHARD
        name=$name.${KOTARO_SHARD%/*}
        ;;
    esac
    log=$logs/$name.log
    status=0
    over=
    if [ "$1" = emu. ]; then
        unset KOTARO_CACHE_DIR
        export KOTARO_EMU_STRICT=1 # what the driver complains of fails, whatever the test looks at
        case $program in */gpu_ops) # each launch in two orders, which must write the same bytes
            KOTARO_EMU_ORDERS=${KOTARO_EMU_ORDERS:-2}
            export KOTARO_EMU_ORDERS
            ;;
        esac
        over=tests/emulate.sh
    fi
    timeout -k 10 "${TEST_SECONDS:-1800}" $over "./$program" >"$log" 2>&1 </dev/null || status=$?
    counts=$(count "$log" "$status")
    case $1$counts in 'emu.0 0 '*)
        echo 'not ok - nothing was run over the stand-ins' >>"$log"
        counts="0 1 ${counts##* }"
        ;;
    esac
    echo "$counts" >"$logs/$name.count"
    read -r p f s <<EOT
$counts
EOT
    echo "$name: $p passed, $f failed, $s skipped"
    if [ "$f" -gt 0 ]; then
        [ "$status" != 124 ] || echo "    it ran longer than ${TEST_SECONDS:-1800} s"
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
}

if [ "${1:-}" = --one ]; then
    text=$(one "${2#beside}" "$3") # at once: others write, too
    echo "$text"
    exit 0
fi

cache() { # never the user's
    mkdir -p "$1"
    chmod 700 "$1"
    export KOTARO_CACHE_DIR="$PWD/$1"
}

no_gpu=
if [ "${1:-}" = --gpu ]; then
    shift
    if [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ]; then no_gpu='no /dev/nvidiactl'; fi
fi
mkdir -p "$logs"
rm -f "$logs"/*.count
cache "$BUILD/test-cache"
kind=
for program; do
    case $program in
    --beside | --emu) kind=$program ;;
    *)
        if [ -n "$no_gpu" ]; then
            echo "$(basename "$program" .sh): skipped: no NVIDIA GPU ($no_gpu)"
            echo "0 0 1" >"$logs/$(basename "$program" .sh).count"
        elif [ -z "$kind" ]; then
            one '' "$program"
        fi
        ;;
    esac
done
kind=
for program; do
    case $program in
    --beside) kind=beside ;;
    --emu) kind=emu. ;;
    *) case $kind in beside | emu.) echo "$kind $program" ;; esac ;;
    esac
done | xargs -r -P "${JOBS:-$(nproc)}" -n 2 "$0" --one
summary=$(cat "$logs"/*.count | awk '{ p += $1; f += $2; s += $3 } END { print p + 0 " passed, " f + 0 " failed, " s + 0 " skipped" }')
echo "$summary" >"$logs/summary"
echo "$summary"
case $summary in *' 0 failed,'*) ;; *) exit 1 ;; esac
