#!/bin/sh
# Every check that needs no running: format, tidy, headers alone, layers, compilation for Windows, `kotaro check`.
# usage: FLAGS="compiler flags" lint.sh [STEP...]     (make lint)
set -u
cd "$(dirname "$0")/.." || exit 2
FLAGS=${FLAGS:--std=c11 -I.}
JOBS=${JOBS:-2}
[ $# -gt 0 ] || set -- format tidy headers layers windows manifests

format() {
    tools/files.sh c | xargs clang-format-14 --dry-run -Werror
}

# The slow one. A file that passed is passed over until it, any header or the settings change.
tidy() {
    mkdir -p build/tidy
    newest=$(tools/files.sh headers | xargs ls -t .clang-tidy | head -1)
    export FLAGS
    { tools/files.sh host; tools/files.sh emu; } | while read -r file; do
        passed=build/tidy/$(echo "$file" | tr / -)
        if [ "$passed" -nt "$file" ] && [ "$passed" -nt "$newest" ]; then continue; fi
        echo "$file $passed"
    done | xargs -P "$JOBS" -L 1 sh -c '
        case $1 in tests/emu/* | tests/stress/*) FLAGS="$FLAGS -D_GNU_SOURCE" ;; esac
        clang-tidy-14 --quiet "$1" -- $FLAGS >"$2.log" 2>&1 && mv "$2.log" "$2" && touch "$2" && exit
        grep -v "warnings generated" "$2.log"
        exit 1' tidy
}

headers() {
    bad=0
    for header in $(tools/files.sh headers); do
        printf '#include "%s"\ntypedef int kt_not_empty;\n' "$header" |
            ${CC:-gcc} $FLAGS -fsyntax-only -x c - || { echo "$header does not compile alone"; bad=1; }
    done
    for header in $(tools/files.sh module); do
        printf '#include "%s"\n' "$header" |
            ${CXX:-g++} -std=c++17 -I. -fsyntax-only -x c++ - || { echo "$header does not compile alone"; bad=1; }
    done
    return $bad
}

layers() {
    tools/check_layers.sh && tools/check_machine.sh
}

# Objects only: Debian has none of the libraries for Windows, but their headers serve. They are copied so that the
# compiler sees them and no other header of this system.
windows() {
    rm -rf build/win-include
    mkdir -p build/win-include
    for folder in /usr/include "/usr/include/$(gcc -dumpmachine)"; do
        for name in yaml.h 'jansson*.h' jpeglib.h jconfig.h jmorecfg.h jerror.h png.h pngconf.h pnglibconf.h zlib.h \
            zconf.h webp libexif pcre2.h utf8proc.h openssl stb cmocka.h; do
            for found in "$folder"/$name; do
                [ ! -e "$found" ] || cp -rL "$found" build/win-include/
            done
        done
    done
    tools/files.sh host |
        xargs -P "$JOBS" -I{} x86_64-w64-mingw32-gcc $FLAGS -O1 -D_WIN32_WINNT=0x0A00 -D__USE_MINGW_ANSI_STDIO=1 \
            -isystem build/win-include -c {} -o /dev/null
}

manifests() {
    bad=0
    for file in pipelines/*.yaml ops/*/op.yaml ops/formats/*.yaml; do
        question=
        case $file in *.base.yaml) question="-p Question" ;; esac # a base asks nothing itself
        build/kotaro check "$file" $question >build/check.log 2>&1 || { cat build/check.log; bad=1; }
    done
    return $bad
}

failed=
for step; do
    if $step; then echo "lint: $step: ok"; else
        echo "lint: $step: failed"
        failed="$failed $step"
    fi
done
[ -z "$failed" ] || { echo "lint: failed:$failed"; exit 1; }
