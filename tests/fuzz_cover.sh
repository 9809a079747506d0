#!/bin/sh
# Lines that a fuzz target reaches with its seeds and with what `make fuzz` has kept, by clang's coverage.
# usage: fuzz_cover.sh TARGET SOURCE...      fuzz_cover.sh json loader/json.c
# Variables: CORPUS (build-fuzz/fuzz/TARGET).
set -eu
cd "$(dirname "$0")/.."
name=$1
shift
out=build-cov
corpus=${CORPUS:-build-fuzz/fuzz/$name}
make -s B=$out CC=clang-14 CFLAGS="-w" SANITIZE="-fprofile-instr-generate -fcoverage-mapping" $out/tests/plain_"$name" >/dev/null
tests/fuzz_seeds.sh "$name" "$out/seeds"
if [ -d "$corpus" ]; then find "$corpus" -type f | head -3000 | while read -r file; do cp "$file" "$out/seeds/"; done; fi
LLVM_PROFILE_FILE=$out/$name.profraw $out/tests/plain_"$name" 0 1 - "$out"/seeds/*
llvm-profdata-14 merge -o "$out/$name.profdata" "$out/$name.profraw"
llvm-cov-14 report $out/tests/plain_"$name" -instr-profile="$out/$name.profdata" "$@" |
    awk '/\.c / || /^TOTAL/ { printf "%-28s %5d lines, %s reached\n", $1, $8, $10 }'
