#!/bin/sh
# Checks that kernels reach the hardware only through ptx/device/machine.cuh and mma.cuh, so that the same sources run
# on a CPU with the two files of tests/emu/device instead. Prints "file:line: message" for each violation; exit status
# 1 if there is any.
#  - ops/*/*.cu, *.cuh and the other files of ptx/device: no assembly, no CUDA builtin, no C library; what they call
#    has kt_ before it or is declared in ptx/device or in the op's folder
#  - the two files and their counterparts declare the same functions (kt_) and macros (KT_)
# usage: check_machine.sh [ROOT]
set -eu
cd "${1:-$(dirname "$0")/..}"
failed=0
folders=
for folder in ops ptx/device; do
    [ ! -d "$folder" ] || folders="$folders $folder"
done
# shellcheck disable=SC2086
sources=$(find $folders -type f \( -name '*.cu' -o -name '*.cuh' \) |
    grep -v -x -e ptx/device/machine.cuh -e ptx/device/mma.cuh | LC_ALL=C sort)

# Twice: what is declared, then what is used.
# shellcheck disable=SC2086
awk '
BEGIN {
    split("__global__ __device__ __forceinline__ __launch_bounds__ __restrict__", names, " ")
    for (i in names) mark[names[i]] = 1
    # before "(", but no call; types: casts
    split("if for while switch return sizeof alignof alignas static_assert defined operator decltype noexcept " \
        "constexpr void bool char short int long unsigned signed float double int8_t uint8_t int16_t uint16_t " \
        "int32_t uint32_t int64_t uint64_t", names, " ")
    for (i in names) plain[names[i]] = 1
    # an identifier before another one that is no type
    split("return else case new delete throw goto and or not", names, " ")
    for (i in names) no_type[names[i]] = 1

    forbid("asm", "assembly belongs in ptx/device/machine.cuh or mma.cuh")
    forbid("volatile", "use kt_load_shared_by_blocks of machine.cuh")
    forbid("warpSize", "write 32, or use kt_lane and kt_warp of machine.cuh")
    forbid("printf assert", "kernels have nobody to talk to: report through an output")
    forbid("new delete malloc free", "memory is declared in the manifest: scratch, or shared of a launch")
    forbid("clock clock64 nanosleep", "results may not depend on time")
    forbid("goto try catch throw thread_local", "not in kernels")
    forbid("std cuda nvcuda cooperative_groups cg wmma", "only the functions of ptx/device")
    forbid("_Pragma pragma", "use KT_UNROLL or KT_NO_UNROLL of machine.cuh")
    other = "use a kt_ function of ptx/device, or add one to machine.cuh and to tests/emu/device"
    instead["expf"] = instead["exp"] = "kt_exp"
    instead["exp2f"] = instead["exp2"] = "kt_exp2"
    instead["logf"] = instead["log"] = "kt_log"
    instead["powf"] = instead["pow"] = "kt_pow"
    instead["sqrtf"] = instead["sqrt"] = "kt_sqrt"
    instead["rintf"] = instead["rint"] = instead["nearbyintf"] = "kt_round"
    instead["fminf"] = instead["fmin"] = instead["min"] = "kt_min"
    instead["fmaxf"] = instead["fmax"] = instead["max"] = "kt_max"
    instead["fmaf"] = instead["fma"] = "kt_fma"
    instead["ceil"] = "kt_ceil"
    instead["sinf"] = instead["cosf"] = instead["sincosf"] = instead["__sinf"] = instead["__cosf"] = "kt_sin_cos"
    instead["__expf"] = "kt_exp"
    instead["__fmaf_rn"] = "kt_fma"
    instead["__syncthreads"] = "kt_sync"
    instead["__syncwarp"] = "kt_sync_warp"
    instead["__threadfence"] = "kt_fence"
    instead["__shfl_sync"] = "kt_shfl"
    instead["__shfl_xor_sync"] = "kt_shfl_xor"
    instead["__ballot_sync"] = "kt_ballot"
    instead["__popc"] = "kt_popcount"
    instead["__ldg"] = instead["__ldcs"] = "kt_load_once16"
    instead["__shared__"] = "KT_SHARED or KT_SHARED_DYNAMIC"
    instead["__uint_as_float"] = "kt_float"
    instead["__float_as_uint"] = "kt_bits"
    instead["atomicAdd"] = "kt_atomic_add"
    # a declaration does not make these the project\047s own
    split("exp10f expm1f log2f log10f log1pf rsqrtf rsqrt cbrtf hypotf tanf tanhf sinhf coshf asinf acosf atanf atan2f " \
        "erff erfcf tgammaf lgammaf fabsf fabs floorf floor ceilf truncf trunc roundf round lrintf fmodf fmod " \
        "copysignf ldexpf frexpf modff sin cos tan tanh abs labs llabs isnan isinf isfinite memcpy memset memmove " \
        "memcmp strlen puts exit abort qsort rand", names, " ")
    for (i in names) library[names[i]] = 1
}

function forbid(words, remedy,    list, i) {
    split(words, list, " ")
    for (i in list) forbidden[list[i]] = remedy
}

function complain(text) {
    printf "%s:%d: %s\n", FILENAME, FNR, text
    bad = 1
}

function remedy(name) {
    if (name in instead) return "use " instead[name] " of machine.cuh"
    return other
}

# Comments and texts away. `extern` may only begin a kernel.
function strip(text,    at) {
    if (in_comment) {
        at = index(text, "*/")
        if (!at) return ""
        text = substr(text, at + 2)
        in_comment = 0
    }
    gsub(/"([^"\\]|\\.)*"/, "\"\"", text)
    while (match(text, /\/[\/*]/)) {
        if (substr(text, RSTART, 2) == "//") return substr(text, 1, RSTART - 1)
        at = index(substr(text, RSTART + 2), "*/")
        if (!at) {
            in_comment = 1
            return substr(text, 1, RSTART - 1)
        }
        text = substr(text, 1, RSTART - 1) " " substr(text, RSTART + 2 + at + 1)
    }
    return text
}

function home(file) { # whose declarations it sees, besides those of ptx/device
    if (file ~ /^ptx\/device\//) return ""
    sub(/\/[^\/]*$/, "", file)
    return file
}

function known(name) {
    return (name in plain) || ("", name) in declared || (home(FILENAME), name) in declared
}

function look_at(name, called) {
    if (name ~ /^__/ || name ~ /^atomic[A-Z]/) {
        if ((name in mark) || (name == "__CUDACC_RTC__" && FILENAME == "ptx/device/types.cuh")) return
        complain("\047" name "\047 is the machine: " remedy(name))
    } else if (name ~ /^(emu|EMU)_/) {
        complain("\047" name "\047: a kernel may not know where it runs")
    } else if (name in forbidden) {
        complain("no \047" name "\047 in kernels: " forbidden[name])
    } else if (name ~ /^(tex|surf)[123]D|^(texture|surface)$|^cuda[A-Z]|^nv_|^(make_)?(u?(char|short|int|long|longlong)|float|double|half|dim)[1-4]$/) {
        complain("\047" name "\047 is CUDA\047s: only the types and functions of ptx/device")
    } else if (called && name !~ /^(kt|KT)_/ && ((name in instead) || (name in library))) {
        complain("\047" name "\047 is the C library\047s: " remedy(name))
    } else if (called && name !~ /^(kt|KT)_/ && !known(name)) {
        complain("unknown function \047" name "\047: " other)
    }
}

FNR == 1 {
    in_comment = 0
    before = ""
    if (FILENAME in read) pass = 2; else pass = 1
    read[FILENAME] = 1
}
{
    if (pass == 2 && $0 ~ /(^|[^A-Za-z0-9_])extern([^A-Za-z0-9_]|$)/ && $0 !~ /^[ \t]*(\/\/|extern "C" __global__ )/)
        complain("extern: only a kernel, extern \"C\" __global__")
    text = strip($0)
    if (text ~ /^[ \t]*#[ \t]*include/) next
    while (match(text, /[A-Za-z0-9_]+/)) {
        gap = substr(text, 1, RSTART - 1)
        pointer = gap ~ /^ [*&]+$/ && before ~ /^[A-Za-z_]/
        gsub(/[ \t]/, "", gap)
        if (gap != "") before = gap
        name = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH)
        called = text ~ /^[ \t]*\(/
        member = before ~ /(\.|->)$/
        if (name !~ /^[0-9]/) {
            # a function after its type; a variable, member or type somewhere without a call
            own = !called || pointer || (before ~ /^[A-Za-z_]/ && !(before in no_type))
            if (pass == 1 && own) declared[home(FILENAME), name] = 1
            if (pass == 2 && !member) look_at(name, called)
        }
        before = name
    }
    gsub(/[ \t]/, "", text)
    if (text != "") before = text
}
END { exit bad }
' /dev/null $sources $sources || failed=1

# Declarations of kt_ functions and KT_ macros, one a line: "line<tab>text". EMU_PLACE is the caller's place, which only
# the CPU's files take.
declarations() {
    awk '
    function put() {
        gsub(/[ \t]+/, " ", text)
        gsub(/, EMU_PLACE/, "", text)
        gsub(/\(EMU_PLACE\)/, "(void)", text)
        sub(/ ?[{;].*/, "", text)
        print line "\t" text
    }
    /^#define KT_/ && !/_CUH$/ {
        line = FNR
        text = $2
        if (text ~ /\(/) { text = $0; sub(/^#define /, "", text); sub(/\).*/, ")", text) }
        put()
    }
    /KT_DEVICE .*kt_[a-z0-9_]*\(/ && !/^#/ {
        line = FNR
        text = $0
        while (text !~ /\)/ && (getline more) > 0) text = text " " more
        put()
    }' "$1" | LC_ALL=C sort -u -t "$(printf '\t')" -k 2
}

lacks() { # FILE LINES OTHER LINES: declarations of OTHER that FILE has not
    awk -F '\t' -v file="$1" -v other="$3" '
        NR == FNR { have[$2] = 1; next }
        !($2 in have) {
            printf "%s:%d: \047%s\047 is declared here but not in %s: kernels run with either\n", other, $1, $2, file
            bad = 1
        }
        END { exit bad }' "$2" "$4"
}

if [ -d tests/emu/device ]; then
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    for name in machine.cuh mma.cuh; do
        for file in ptx/device/$name tests/emu/device/$name; do
            if [ ! -e "$file" ]; then
                echo "$file: missing: kernels run with ptx/device/$name or tests/emu/device/$name"
                failed=1
                continue 2
            fi
        done
        declarations "ptx/device/$name" >"$tmp/gpu"
        declarations "tests/emu/device/$name" >"$tmp/cpu"
        [ -s "$tmp/gpu" ] || { echo "ptx/device/$name: no declarations were found"; failed=1; }
        lacks "tests/emu/device/$name" "$tmp/cpu" "ptx/device/$name" "$tmp/gpu" || failed=1
        lacks "ptx/device/$name" "$tmp/gpu" "tests/emu/device/$name" "$tmp/cpu" || failed=1
    done
fi
exit $failed
