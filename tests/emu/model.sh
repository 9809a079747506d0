#!/bin/sh
# The shipped model over the stand-ins for driver and NVRTC (tests/emu/emu.h), through the unchanged program: same text as on
# the CPU; what a step costs in driver calls; caches, drivers and cards of several kinds.
# The texts of many pictures, with the rule for near ties, are tests/gpu_equal.c's.
set -u
cd "$(dirname "$0")/../.." || exit 2
run=${BUILD:-build}/kotaro-run
. tests/tap.sh
scene=examples/scene.jpg

# on DEVICE FILE COMMAND...: stdout to $tmp/FILE, the driver's counts to $tmp/FILE.report; also fails where it complains.
on() {
    device=$1 file=$2
    shift 2
    rm -f "$tmp/$file.report"
    KOTARO_EMU_DEVICE=$device KOTARO_EMU_REPORT="$tmp/$file.report" "$@" >"$tmp/$file" 2>"$tmp/err" </dev/null || return
    [ "$(value "$file" violations)$(value "$file" leaks)" = 00 ] || return
}

value() { # value FILE NAME: of the report
    awk -v name="$2" '$1 == name { print $2 }' "$tmp/$1.report"
}

same() { # same A B: both there, not empty, equal
    [ -s "$tmp/$1" ] && cmp -s "$tmp/$1" "$tmp/$2"
}

full() {
    set -- "$run" pipelines/full.yaml $scene --greedy "$@"
    "$@"
}

# ---- a picture
$run pipelines/full.yaml $scene --greedy --quiet --device cpu >"$tmp/cpu" 2>"$tmp/err" </dev/null
result $? 'the CPU answers'
on rtx4060 first full --device cuda --verbose && same cpu first
result $? 'the first run gives the text of the CPU, leaks nothing, misuses nothing'
sed -n 's/^.*opened/# opened/p' "$tmp/err"

KOTARO_NVRTC="$tmp/nowhere" on rtx4060 second full --device cuda --verbose &&
    same cpu second && grep -q '"compiled": 0\.000' "$tmp/err"
result $? 'the second run has no NVRTC to open and needs none'

launches=$(value second graph_launches) steps=$(value second steps)
echo "# $launches graph launches, $(value second steps_submitted_ahead) of $steps steps submitted ahead;" \
    "$(value second kernels_run) kernels, $(value second blocks) blocks, $(value second switches) switches"
[ "$steps" -gt 10 ] && [ "$launches" = $((steps + 1)) ]
result $? 'a step is one graph launch'
[ "$(value second kernel_launches_between_steps)$(value second graph_changes_between_steps)" = 00 ]
result $? 'no kernel is launched and no graph changed between steps'
[ "$(value second steps_submitted_ahead)" = "$steps" ]
result $? 'each step is submitted before the one before it is done'

for seed in 2 3; do
    KOTARO_EMU_SEED=$seed on rtx4060 seed full --device cuda --quiet && same cpu seed
    result $? "another order of threads, warps, blocks and streams: seed $seed"
done
on rtx4060 plain full --device cuda --quiet --no-graph && same cpu plain &&
    [ "$(value plain graph_launches)" = 0 ] && [ "$(value plain kernel_launches)" -gt "$(value second kernel_launches)" ]
result $? 'plain launches give the text of the graph'

# ---- cards and drivers; a question is enough
ask() {
    set -- "$run" pipelines/chat.yaml --model models/kotaro-tiny --device "$1" --greedy --max-tokens 4 -p 'What is shown?'
    "$@"
}
ask cpu >"$tmp/asked" 2>"$tmp/err"
for device in h100 a100 rtx5060 rtx4060,driver=12000 rtx4060,driver=12040 rtx4060,driver=12080 \
    rtx4060,missing=cuFuncLoad+cuMemHostRegister+cuKernelGetParamInfo; do
    on "$device" answer ask cuda && same asked answer
    result $? "$device"
done

# refuses DEVICE CODE 'TEXT IN STDERR'
refuses() {
    KOTARO_EMU_DEVICE=$1 fails "$1" "$2" "$3" ask cuda
}
refuses rtx4060,count=0 3 'the driver found no NVIDIA GPU'
refuses rtx4060,missing=cuGraphLaunch 3 'lacks cuGraphLaunch'
refuses rtx4060,driver=11080 3 'is too old'
refuses rtx4060,memory=20000000 4 'close other programs'
refuses rtx4060,promised=8000000000,free=10000000 4 'close other programs that use the GPU'
KOTARO_EMU_DEVICE=rtx4060,count=0 ask auto >"$tmp/answer" 2>"$tmp/err" && same asked answer
result $? 'without a GPU the processor answers'
KOTARO_EMU_FAIL=cuGraphLaunch:2:700:sticky fails 'a GPU that is lost in a step' 3 'CUDA_ERROR_ILLEGAL_ADDRESS' ask cuda
echo "1..$n"
