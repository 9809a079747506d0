#!/bin/sh
# Makes sure that the packages are there that a step needs. As root (or with a sudo that asks nothing) on Debian they
# are installed; otherwise this prints the one line to run, and stops.
# usage: setup.sh build|test|lint|fuzz|pip|eval
set -eu
CC=${CC:-gcc}

# package, then what shows that it is there: header:, library:, command:, runtime:, module:, file:
build='
gcc              command:gcc
libc6-dev        header:stdio.h
libyaml-dev      header:yaml.h                library:libyaml.a
libjansson-dev   header:jansson.h             library:libjansson.a
libpcre2-dev     header:pcre2.h               library:libpcre2-8.a
libutf8proc-dev  header:utf8proc.h            library:libutf8proc.a
libjpeg62-turbo-dev header:jpeglib.h          library:libjpeg.a
libpng-dev       header:png.h                 library:libpng16.a
zlib1g-dev       header:zlib.h                library:libz.a
libwebp-dev      header:webp/demux.h          library:libwebpdemux.a
libexif-dev      header:libexif/exif-data.h   library:libexif.a
libssl-dev       header:openssl/evp.h         library:libcrypto.a
libstb-dev       header:stb/stb_image.h'
test='
libcmocka-dev    header:cmocka.h
g++              command:g++
python3-numpy    file:/usr/lib/python3/dist-packages/numpy'
lint='
clang-format-14  command:clang-format-14
clang-tidy-14    command:clang-tidy-14
gcc-mingw-w64-x86-64 command:x86_64-w64-mingw32-gcc
libcmocka-dev    header:cmocka.h'
fuzz='
clang-14         command:clang-14
libclang-rt-14-dev runtime:clang-14'
pip='
python3-pip      module:pip'
eval='
python3-numpy    file:/usr/lib/python3/dist-packages/numpy
python3-pil      file:/usr/lib/python3/dist-packages/PIL
fonts-noto-color-emoji file:/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf
ruby-gemojione   file:/usr/share/doc/ruby-gemojione'

there() {
    case $1 in
    command:*) command -v "${1#*:}" >/dev/null ;;
    # The second line is for headers that need <stdio.h> or a width (jpeglib.h, pcre2.h) before them.
    header:*) printf '#include <stdio.h>\n#define PCRE2_CODE_UNIT_WIDTH 8\n#include <%s>\n' "${1#*:}" |
        "$CC" -E -x c - >/dev/null 2>&1 ;;
    library:*) case $("$CC" -print-file-name="${1#*:}" 2>/dev/null) in /*) ;; *) return 1 ;; esac ;;
    runtime:*) ls "$("${1#*:}" -print-runtime-dir 2>/dev/null)"/libclang_rt.fuzzer-*.a >/dev/null 2>&1 ;;
    file:*) [ -e "${1#*:}" ] ;;
    module:*) python3 -c "import ${1#*:}" 2>/dev/null ;;
    esac
}

case $1 in
build) list=$build ;;
test) list=$test ;;
lint) list=$lint ;;
fuzz) list=$fuzz ;;
pip) list=$pip ;;
eval) list=$eval ;;
*) echo "usage: setup.sh build|test|lint|fuzz|pip|eval" >&2; exit 2 ;;
esac

missing=$(printf '%s\n' "$list" | while read -r package signs; do
    for sign in $signs; do
        if ! there "$sign"; then echo "$package"; break; fi
    done
done | tr '\n' ' ')
[ -n "$missing" ] || exit 0

line="apt-get update && apt-get install -y --no-install-recommends $missing"
as_root=
if [ "$(id -u)" != 0 ]; then as_root='sudo -n'; fi
if ! command -v apt-get >/dev/null; then
    echo "kotaro: missing here, by their Debian names: $missing" >&2
    exit 1
fi
if ! $as_root true 2>/dev/null; then
    echo "kotaro: packages are missing; as root run:  $line" >&2
    exit 1
fi
echo "kotaro: installing $missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! $as_root env DEBIAN_FRONTEND=noninteractive sh -c "$line" >"$log" 2>&1; then
    tail -15 "$log" >&2
    echo "kotaro: the packages could not be installed; the command was:  $line" >&2
    exit 1
fi
