#!/bin/sh
# Lists source files, one a line. usage: files.sh c|host|emu|headers|module|kernels
#   c: all C files and headers   host: C files that are compiled, also for Windows   emu: those for Linux alone
#   headers: C headers   module: C++ headers (of kernels on the CPU)   kernels: CUDA sources
set -eu
cd "$(dirname "$0")/.."
find_names() { find runtime loader ptx ops tools tests -type f "$@" -not -path '*/bad/*' | LC_ALL=C sort; }
case $1 in
c) find_names \( -name '*.c' -o -name '*.h' \) ;;
host) find_names -name '*.c' -not -path 'tests/emu/*' -not -path 'tests/stress/*' ;;
emu) find_names -name '*.c' \( -path 'tests/emu/*' -o -path 'tests/stress/*' \) ;;
headers) find_names -name '*.h' -not -path 'tests/emu/device/module.h' ;;
module) find_names -path 'tests/emu/device/module.h' ;;
kernels) find_names \( -name '*.cu' -o -name '*.cuh' \) ;;
esac
