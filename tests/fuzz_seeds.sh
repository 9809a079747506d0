#!/bin/sh
# Copies the files that a fuzz target starts from to an empty folder. usage: fuzz_seeds.sh TARGET FOLDER
set -eu
cd "$(dirname "$0")/.."
files() {
    case $1 in
    gguf) find tests/data/gguf -name '*.gguf' ;;
    image) find tests/data/images -type f -size -64k ! -name '*.txt' ! -name '*.md' ;;
    json) find tests/data models -name '*.json' -size -64k ;;
    op) find ops tests/bad/ops tests/bad/formats -name '*.yaml' ;;
    pipeline) find pipelines tests/bad/pipeline tests/data/pipelines -name '*.yaml' ;;
    yaml) find pipelines ops tests/bad -name '*.yaml' ;;
    esac
    if [ -d "tests/data/fuzz/$1" ]; then find "tests/data/fuzz/$1" -type f; fi
}
rm -rf "$2"
mkdir -p "$2"
files "$1" | LC_ALL=C sort -u | while read -r file; do cp "$file" "$2/$(echo "$file" | tr / _)"; done
# Something to start from where there is nothing.
if [ -z "$(ls "$2")" ]; then printf 'a' >"$2/a"; fi
