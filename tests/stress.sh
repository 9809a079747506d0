#!/bin/sh
# The first, second, third ... file call, device allocation, driver call and NVRTC call of a run fails, until a run succeeds
# (tests/stress/loop.c says what is asked of every run).
# usage: stress.sh three    every one, on the three ops of tests/data/stress
#        stress.sh tiny     a sample, on models/kotaro-tiny
# Variables: BUILD (build), STRESS_SEED (random) repeats a sample, STRESS_SAMPLES (20, of each kind), JOBS (2).
set -u
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
jobs=${JOBS:-2}
. tests/tap.sh
loop=$BUILD/emu/stress
export LIBFAIL="$BUILD/emu/libfail_files.so" LC_ALL=C.UTF-8
export ASAN_OPTIONS="protect_shadow_gap=0:verify_asan_link_order=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # we are preloaded
export UBSAN_OPTIONS="print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"

# A home with the few ops that the pipeline needs, so that a run makes few calls.
make_home() {
    home=$tmp/home
    mkdir -p "$home/ops/formats"
    for op in embed_tokens lm_head sum_parts rms_norm linear score_tokens sample unpack_f16 tile_f16; do
        cp -R "ops/$op" "$home/ops/$op"
    done
    cp ops/formats/f16.format.yaml "$home/ops/formats"
    cp -R tests/data/stress "$home/pipelines"
    chmod -R u+w "$home"
    sed -i 's/\[tiles_lut4,.*tiles_f16\]/[tiles_f16]/' "$home/ops/linear/op.yaml"
    export KOTARO_HOME="$home"
}

# walk NAME FAULT LOOP_OPTION... -- COMMAND...
walk() {
    n=$((n + 1))
    "$loop" "$@" >"$tmp/walk" 2>&1
    sed -n '/^#/p' "$tmp/walk"
    line=$(sed -n '/^\(not \)\{0,1\}ok - /p' "$tmp/walk")
    [ -n "$line" ] || sed 's/^/# /' "$tmp/walk"
    echo "${line:-not ok - $1}" | sed "s/ok - /ok $n - /"
}

three() {
    make_home
    set -- "$BUILD/kotaro" run "$home/pipelines/three.yaml" -p 3 --quiet
    # Token i is followed by 5 i + 1 modulo 64, and 22 ends an answer.
    echo '16 17' >"$tmp/answer"
    for kind in error sticky short end; do
        walk "files on the CPU, $kind" "KOTARO_FAIL=$kind:@" --answer "$tmp/answer" --work "$tmp/work" --jobs "$jobs" -- "$@" \
            --device cpu
    done
    for kind in error sticky; do
        walk "files of a dump, $kind" "KOTARO_FAIL=$kind:@" --answer "$tmp/answer" --work "$tmp/work" -- "$@" --device cpu \
            --dump "$tmp/dump"
    done
    # The loop itself must be able to fail.
    echo '16 18' >"$tmp/wrong"
    "$loop" wrong 'KOTARO_FAIL=short:@' --answer "$tmp/wrong" --work "$tmp/work" -- "$@" --device cpu >"$tmp/out" 2>"$tmp/err"
    [ $? = 1 ] && grep -q '^not ok' "$tmp/out" && grep -q 'another answer' "$tmp/out"
    result $? 'the loop sees a wrong answer'
}

tiny() {
    seed=${STRESS_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
    samples=${STRESS_SAMPLES:-20}
    echo "# STRESS_SEED=$seed"
    set -- "$BUILD/kotaro" run pipelines/full.yaml examples/scene.jpg examples/scene.jpg --greedy --max-tokens 3 --quiet
    "$@" --device cpu >"$tmp/answer" 2>"$tmp/err"
    result $? 'the answer when nothing fails'
    for kind in error sticky short end; do
        walk "files on the CPU, $kind" "KOTARO_FAIL=$kind:@" --answer "$tmp/answer" --work "$tmp/work" --jobs "$jobs" \
            --seconds 120 --sample "$samples,$seed" -- "$@" --device cpu
    done
}

"$1"
echo "1..$n"
