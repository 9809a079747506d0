#!/bin/sh
# Makes NVRTC, NVIDIA's run-time compiler, available: a CUDA toolkit's if there is one, else the pinned wheel, unpacked
# into build/nvrtc/ (libnvrtc.so.12 is then in build/nvrtc/nvidia/cuda_nvrtc/lib/). NVIDIA's licence comes with it.
# usage: fetch_nvrtc.sh [--pinned]    --pinned: the wheel in any case
set -eu
cd "$(dirname "$0")/.."
package=nvidia-cuda-nvrtc-cu12==12.8.93 # the oldest that knows sm_120, so that older drivers take its cubins
library=build/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.12
name=${package%%==*}
unpacked=build/nvrtc/$(echo "$name" | tr - _)-${package##*==}.dist-info # of another version: fetched anew
if [ -e "$library" ] && [ -d "$unpacked" ]; then exit 0; fi
if [ "${1:-}" != --pinned ]; then
    for folder in ${CUDA_PATH:+"$CUDA_PATH/lib64"} /usr/local/cuda/lib64 /usr/local/cuda-*/lib64; do
        for found in "$folder"/libnvrtc.so.1[0-9]; do
            [ ! -e "$found" ] || exit 0
        done
    done
    if ldconfig -p 2>/dev/null | grep -q 'libnvrtc\.so\.1[0-9]'; then exit 0; fi
fi
tools/setup.sh pip
echo "kotaro: fetching $package into build/nvrtc" >&2
mkdir -p build
log=build/nvrtc-fetch.log
if ! python3 -m pip download --quiet --no-deps --only-binary=:all: "$package" -d build/nvrtc-wheel >"$log" 2>&1; then
    tail -3 "$log" >&2
    echo "kotaro: $package could not be fetched" >&2
    exit 1
fi
rm -rf build/nvrtc.part
python3 -m zipfile -e build/nvrtc-wheel/*.whl build/nvrtc.part
rm -rf build/nvrtc build/nvrtc-wheel
mv build/nvrtc.part build/nvrtc
[ -e "$library" ] || { echo "kotaro: the wheel does not hold $library" >&2; exit 1; }
