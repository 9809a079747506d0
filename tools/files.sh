#!/bin/sh
# Lists source files, one a line. usage: files.sh c|host|headers|kernels
#   c: all C files and headers   host: C files that are compiled   headers: C headers   kernels: CUDA sources
set -eu
cd "$(dirname "$0")/.."
find_names() { find runtime loader ptx ops tools tests -type f "$@" -not -path '*/bad/*' | LC_ALL=C sort; }
case $1 in
c) find_names \( -name '*.c' -o -name '*.h' \) ;;
host) find_names -name '*.c' ;;
headers) find_names -name '*.h' ;;
kernels) find_names \( -name '*.cu' -o -name '*.cuh' \) ;;
esac
