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
case ${1:-} in three | tiny) ;; *) sed -n 's/^# *//;/^usage/,/^Variables/p' "$0" >&2; exit 2 ;; esac
jobs=${JOBS:-2}
. tests/tap.sh
loop=$BUILD/emu/stress
export LIBFAIL="$BUILD/emu/libfail_files.so" LC_ALL=C.UTF-8
export ASAN_OPTIONS="protect_shadow_gap=0:verify_asan_link_order=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" # we are preloaded
[ "$BUILD" = "${BUILD%-san}" ] || export KOTARO_EMU=asan
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

# The stand-ins for driver and NVRTC from here on.
emulate() {
    mkdir -p "$tmp/store"
    export LD_LIBRARY_PATH="$BUILD/emu" KOTARO_NVRTC="$BUILD/emu" KOTARO_EMU_CXX="$PWD/tests/stress/cxx.sh"
    export STRESS_CXX_STORE="$tmp/store" KOTARO_CACHE_DIR="$tmp/cache"
}

# warm NAME FAULT COMMAND...: over the stand-ins, all kernels in the cache; cold: none.
warm() {
    name=$1 fault=$2
    shift 2
    walk "$name" "$fault" --answer "$tmp/answer" --work "$tmp/work" --jobs "$jobs" --whole "$tmp/whole" --cache "$tmp/whole" -- \
        "$@" --device cuda
}
cold() {
    name=$1 fault=$2
    shift 2
    walk "$name" "$fault" --answer "$tmp/answer" --work "$tmp/work" --jobs "$jobs" --whole "$tmp/whole" -- "$@" --device cuda
}

three() {
    make_home
    set -- "$BUILD/kotaro" run "$home/pipelines/three.yaml" -p '1 2 3' --quiet
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
    # The same over the stand-ins (tests/emu/emu.h), whose compiler compiles nothing twice here.
    emulate
    "$@" --device cuda >"$tmp/out" 2>"$tmp/err" && cmp -s "$tmp/out" "$tmp/answer"
    result $? 'the run over the stand-ins'
    mv "$tmp/cache" "$tmp/whole"
    export KOTARO_FAIL_IN=cubin # the cache's folder
    for kind in error sticky short; do
        cold "files of an empty cache, $kind" "KOTARO_FAIL=$kind:@" "$@"
    done
    unset KOTARO_FAIL_IN
    cold 'NVRTC' 'KOTARO_EMU_FAIL=nvrtc:@' "$@"
    for kind in error short end; do
        warm "files, all in the cache, $kind" "KOTARO_FAIL=$kind:@" "$@"
    done
    for fault in alloc:@ alloc:@:sticky call:@ call:@:sticky; do
        warm "driver, $fault" "KOTARO_EMU_FAIL=$fault" "$@"
    done
    for call in cuEventQuery cuMemGetInfo; do # queries are not among "call"
        warm "driver, $call:@:719:sticky" "KOTARO_EMU_FAIL=$call:@:719:sticky" "$@"
    done

    # A kernel that fails in the second step, which was submitted before the first was read: told late, by whoever asks.
    sed -i 's/^ *const int32_t row = (int32_t)blockIdx.x;/&\n    if (gen_made[row] == 1) gen_next[1 << 24] = 0;/' "$home/ops/sample/sample.cu"
    KOTARO_EMU_REPORT=$tmp/report timeout 120 "$@" --device cuda >"$tmp/out" 2>"$tmp/err"
    [ $? = 3 ] && [ "$(grep -c '^kotaro: error: .*CUDA_ERROR' "$tmp/err")" = 1 ] && grep -q 'decode' "$tmp/err" &&
        grep -q '^leaks 0' "$tmp/report" && grep -q '^violations 0' "$tmp/report" && [ ! -s "$tmp/out" ]
    result $? 'a kernel that fails in a later step'

    # The loop itself must be able to fail.
    echo '16 18' >"$tmp/wrong"
    "$loop" wrong 'KOTARO_FAIL=short:@' --answer "$tmp/wrong" --work "$tmp/work" -- "$@" --device cpu >"$tmp/out" 2>"$tmp/err"
    [ $? = 1 ] && grep -q '^not ok' "$tmp/out" && grep -q 'another answer' "$tmp/out"
    result $? 'the loop sees a wrong answer'
}

# sampled NAME FAULT OPTION... -- COMMAND...
sampled() {
    name=$1 fault=$2
    shift 2
    walk "$name" "$fault" --answer "$tmp/answer" --work "$tmp/work" --jobs "$jobs" --seconds 300 --sample "$samples,$seed" "$@"
}

# Two pictures, the second of which is read while the first is computed. A picture costs seconds over the stand-ins,
# however small.
tiny() {
    seed=${STRESS_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
    samples=${STRESS_SAMPLES:-20}
    echo "# STRESS_SEED=$seed"
    set -- "$BUILD/kotaro" run pipelines/full.yaml examples/scene.jpg examples/scene.jpg --greedy --quiet -p 'What is shown?' \
        --max-tokens 2 --set image.longest=60 --set image.slices=1 --set chunk=32 --set context=256
    "$@" --device cpu >"$tmp/answer" 2>"$tmp/err"
    result $? 'the answer when nothing fails'
    for kind in error sticky short end; do
        sampled "files on the CPU, $kind" "KOTARO_FAIL=$kind:@" -- "$@" --device cpu
    done

    emulate
    [ "$BUILD" != "${BUILD%-san}" ] || export KOTARO_EMU=plain # faster than with its checks, which are of kernels
    "$@" --device cuda >"$tmp/out" 2>"$tmp/err" && cmp -s "$tmp/out" "$tmp/answer"
    result $? 'the run over the stand-ins gives the same text'
    mv "$tmp/cache" "$tmp/whole"
    for fault in call:@ call:@:sticky alloc:@ alloc:@:sticky cuEventQuery:@:719:sticky; do
        sampled "driver, $fault" "KOTARO_EMU_FAIL=$fault" --whole "$tmp/whole" --cache "$tmp/whole" -- "$@" --device cuda
    done
    sampled NVRTC 'KOTARO_EMU_FAIL=nvrtc:@' --whole "$tmp/whole" -- "$@" --device cuda
    for kind in error sticky; do
        sampled "files, all in the cache, $kind" "KOTARO_FAIL=$kind:@" --whole "$tmp/whole" --cache "$tmp/whole" -- "$@" --device cuda
    done
    export KOTARO_FAIL_IN=cubin
    sampled "files of an empty cache" "KOTARO_FAIL=error:@" --whole "$tmp/whole" -- "$@" --device cuda
    unset KOTARO_FAIL_IN
}

"$1"
echo "1..$n"
