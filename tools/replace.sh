#!/bin/sh
# Writes standard input to a file unless the file already holds the same: what depends on it is then not made again.
# usage: ... | replace.sh FILE
set -eu
mkdir -p "$(dirname "$1")"
cat >"$1.new"
if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
