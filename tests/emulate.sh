#!/bin/sh
# Runs a command over the stand-ins for driver and NVRTC: a GPU without one. `make emu` builds them.
# usage: tests/emulate.sh COMMAND...      tests/emulate.sh build/kotaro ops check rms_norm --device cuda
# Variables: BUILD (build); KOTARO_EMU=plain: faster, without the detectors; more in tests/emu/driver.h.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
case ${BUILD:=build} in /*) ;; *) BUILD=$root/$BUILD ;; esac
[ -e "$BUILD/emu/libcuda.so.1" ] || { echo "emulate.sh: no stand-ins in '$BUILD/emu': make emu" >&2; exit 2; }
# What a kernel is compiled to depends on the stand-ins and on the mode, too.
made_by=$(cat "$BUILD"/emu/*.so* "$BUILD"/emu/device/* "$BUILD/emu/emu.h" | cksum | cut -d ' ' -f 1)
KOTARO_CACHE_DIR=${KOTARO_CACHE_DIR:-$BUILD/emu/cache-$made_by${KOTARO_EMU:+-$KOTARO_EMU}}
mkdir -p "$KOTARO_CACHE_DIR"
chmod 700 "$KOTARO_CACHE_DIR"
export KOTARO_CACHE_DIR KOTARO_NVRTC="$BUILD/emu" LD_LIBRARY_PATH="$BUILD/emu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$@"
