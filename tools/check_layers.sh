#!/bin/sh
# Checks what includes what. Prints "file:line: message" for each violation; exit status 1 if there is any.
#  - layers point one way (the table below; docs/design.md)
#  - an outside library is included by exactly one .c; operating system headers by runtime/base/os_*.c only
#  - ops/<name>/*.c see only ops/kt_*.h and the C library, kernels only ptx/device
# What kernels call is check_machine.sh's business.
# usage: check_layers.sh [ROOT]
set -eu
cd "${1:-$(dirname "$0")/..}"
folders=
for folder in runtime loader ptx ops tools; do
    [ ! -d "$folder" ] || folders="$folders $folder"
done
# shellcheck disable=SC2086
find $folders -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) | LC_ALL=C sort |
awk '
BEGIN {
    # layer, then the layers (or single headers) it may include besides itself
    allow["runtime/base"] = ""
    allow["loader"] = "runtime/base"
    allow["ptx"] = "runtime/base"
    allow["ptx/device"] = ""
    allow["runtime/gpu"] = "runtime/base ptx/cubin.h"
    allow["runtime/plan"] = "runtime/base loader"
    allow["runtime/exec"] = "runtime/base loader ptx runtime/gpu runtime/plan runtime/kotaro.h ops/kt_cpu.h"
    allow["runtime"] = "runtime/base" # kotaro.h, for programs that use the library
    allow["ops"] = "ops/kt_cpu.h ops/kt_bnb.h ops/kt_ggml.h"
    allow["kernel"] = "ptx/device"
    allow["tools"] = "runtime/kotaro.h runtime/base loader ptx runtime/gpu runtime/plan runtime/exec"

    split("assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal " \
        "stdalign stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath time uchar " \
        "wchar wctype", names, " ")
    for (i in names) c_library[names[i] ".h"] = 1
    compiler["immintrin.h"] = 1 # vector instructions, behind a test for the processor
}

function complain(text) {
    printf "%s:%d: %s\n", file, line, text
    bad = 1
}

function layer_of(path,    part, n) {
    n = split(path, part, "/")
    if (path ~ /^ops\/.*\.cuh?$/) return "kernel"
    if (part[1] == "runtime" && n > 2) return "runtime/" part[2]
    if (part[1] == "ptx" && part[2] == "device") return "ptx/device"
    return part[1]
}

function check_own(target,    from, to, list, n, i) {
    from = layer_of(file)
    if ((from == "kernel" || from == "ptx/device") && target !~ /\//) target = "ptx/device/" target
    if ((getline ignored < target) < 0) {
        complain("no file \047" target "\047 (paths start at the root of the project)")
        return
    }
    close(target)
    to = layer_of(target)
    if (from == to && from != "ops") return
    n = split(allow[from], list, " ")
    for (i = 1; i <= n; i++) {
        if (to == list[i] || target == list[i]) return
    }
    complain("\047" from "\047 may not include \047" target "\047")
}

# jpeglib.h and jerror.h are one library; so is a folder of headers.
function library_of(header) {
    sub(/\/.*/, "", header)
    if (header ~ /^j(peglib|error|config|morecfg)\.h$/) return "libjpeg"
    return header
}

function check_outside(header,    library) {
    if (header in c_library || file ~ /^runtime\/base\/os_[a-z0-9]+\.c$/) return
    if (layer_of(file) ~ /^(ops|kernel|ptx\/device)$/) {
        complain("\047" layer_of(file) "\047 may not include <" header ">")
        return
    }
    if (header in compiler && file ~ /\.c$/) return
    library = library_of(header)
    if (file ~ /\.h$/) {
        complain("a header may not include <" header ">: outside libraries belong to one .c")
    } else if (library in owner && owner[library] != file) {
        complain("<" header "> is already included by " owner[library] "; a library belongs to one .c")
    }
    owner[library] = file
    if (header ~ /^(sys\/|unistd\.h|pthread\.h|dlfcn\.h|fcntl\.h|windows\.h|threads\.h)/) {
        complain("<" header "> is the operating system: only runtime/base/os_*.c")
    }
}

{
    file = $0
    line = 0
    while ((getline text < file) > 0) {
        line++
        if (match(text, /^[ \t]*#[ \t]*include[ \t]*["<][^">]+[">]/)) {
            header = substr(text, RSTART, RLENGTH)
            own = header ~ /"$/
            sub(/^[^"<]*["<]/, "", header)
            sub(/[">]$/, "", header)
            if (own) check_own(header); else check_outside(header)
        }
    }
    close(file)
}

END { exit bad }
'
