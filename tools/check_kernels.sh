#!/bin/sh
# Compiles every kernel of ops/ with nvcc and prints what it uses: registers, stack, spills, shared memory.
#
#   tools/check_kernels.sh [-a "80 89"] [-v] [op ...]      all ops if none is named
#
# Every variant is compiled for every architecture, for the build dims of the manifest's cases and for
# those of MiniCPM-V 2.6 below, with every layout; for the first case also with every type, choice, tune
# value and absent input, one away from the default at a time. Warnings, spills and stack frames are errors, as
# are blocks above 99 KB of shared memory. One line a kernel and architecture: the most of all builds; -v:
# one line a build. The build of the program (and its tests) goes through NVRTC; this needs no GPU, too.
set -u
cd "$(dirname "$0")/.." || exit 2
archs="80 86 89 90 120"
verbose=0
while getopts a:v option; do
    case $option in
    a) archs=$OPTARG ;;
    v) verbose=1 ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || { echo "check_kernels: no nvcc; set NVCC" >&2; exit 2; }
tmp=$(mktemp -d) || exit 2
trap 'rm -rf "$tmp"' EXIT

# Build dims that matter: op, then name=value.
real='
attention d=1152 heads=16
attention d=3584 heads=28
layer_norm d=1152
layer_norm d=3584
rms_norm d=3584
linear k=3584 m=18944
linear k=1152 m=4304
linear k=4304 m=1152
linear k=3584 m=151666
linear_parts k=18944 m=3584
linear_parts k=588 m=1152
paged_attention qd=3584 kvh=4 hd=128
rope m=3584 hd=128
append_kv kd=512 kvh=4 hd=128
sample v=151666 words=4740
'

# Lines of -D options for one manifest: one a build.
builds() {
    awk -v real="$real" -v op="$1" '
    function trim(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }
    function macro(s) { s = toupper(s); gsub(/[.]/, "_", s); return "KT_" s }
    function list(s) { sub(/^[^[]*\[/, "", s); sub(/\].*/, "", s); gsub(/ /, "", s); return s }
    # every line of `in_` with every one of the options (separated by |)
    function times(in_, options,   a, b, i, j, n, m, out) {
        n = split(in_, a, "\n"); m = split(options, b, "|"); out = ""
        for (i = 1; i <= n; i++) for (j = 1; j <= m; j++)
            out = out (out == "" ? "" : "\n") trim(a[i] " " b[j])
        return out
    }
    function first(options,   a) { split(options, a, "|"); return a[1] }
    function each(values, name,   a, i, n, out) { # KT_NAME=value|...
        n = split(values, a, ","); out = ""
        for (i = 1; i <= n; i++) out = out (i > 1 ? "|" : "") "-D" macro(name) "=" a[i]
        return out
    }
    { line = $0; sub(/[ \t]+#.*/, "", line) }
    line ~ /^[a-z]+:/ { section = line; sub(/:.*/, "", section) }
    section == "types" && line ~ /^  / {
        name = trim(line); sub(/:.*/, "", name); v = list(line); n = split(v, a, ","); o = ""
        for (i = 1; i <= n; i++) o = o (i > 1 ? "|" : "") "-D" macro(name) "=kt_" a[i]
        general[++n_general] = o }
    section == "dims" && line ~ /^  .*: *build/ { name = trim(line); sub(/:.*/, "", name); build[name] = 1 }
    section == "params" && line ~ /type: choice/ {
        name = trim(line); sub(/:.*/, "", name); v = line; sub(/.*of: */, "", v); n = split(list(v), a, ","); o = ""
        for (i = 1; i <= n; i++)
            o = o (i > 1 ? "|" : "") "-D" macro(name) "=" i - 1 " -D" macro(name "_" a[i]) "=1"
        general[++n_general] = o }
    section == "inputs" && line ~ /\?$/ {
        name = trim(line); sub(/:.*/, "", name)
        general[++n_general] = "-D" macro("has_" name) "=1|-D" macro("has_" name) "=0" }
    section == "variants" && line ~ /^  - name:/ { variant[++n_variants] = trim(substr(line, 10)); part = "" }
    section == "variants" && line ~ /^    [a-z]+:/ { part = trim(line); sub(/:.*/, "", part) }
    section == "variants" && line ~ /^      [a-z]+:/ {
        name = trim(line); sub(/:.*/, "", name)
        if (part == "tune") tune[n_variants, ++n_tune[n_variants]] = each(list(line), name)
        if (part == "layouts") {
            v = line; sub(/.*as: */, "", v); n = split(list(v), a, ","); o = ""
            for (i = 1; i <= n; i++) o = o (i > 1 ? "|" : "") "-D" macro("layout_" name "_" a[i]) "=1"
            layout[n_variants] = layout[n_variants] == "" ? o : times(layout[n_variants], o) } }
    section == "check" && line ~ /^    - \{/ {
        v = line; gsub(/[ {}-]/, "", v); n = split(v, a, ","); o = ""
        for (i = 1; i <= n; i++) { split(a[i], p, ":"); if (p[1] in build) o = o " -D" macro(p[1]) "=" p[2] }
        if (!(o in have)) { have[o] = 1; cases[++n_cases] = trim(o) } }
    END {
        n = split(real, lines, "\n")
        for (i = 1; i <= n; i++) {
            m = split(lines[i], a, " "); if (a[1] != op) continue
            o = ""; for (j = 2; j <= m; j++) { split(a[j], p, "="); o = o " -D" macro(p[1]) "=" p[2] }
            cases[++n_cases] = trim(o) }
        for (v = 1; v <= n_variants; v++) for (c = 1; c <= n_cases; c++) {
            n = n_general; for (i = 1; i <= n; i++) option[i] = general[i]
            for (i = 1; i <= n_tune[v]; i++) option[++n] = tune[v, i]
            base = cases[c]; for (i = 1; i <= n; i++) base = base " " first(option[i])
            out = base
            for (i = 1; i <= n && c == 1; i++) {
                m = split(option[i], a, "|")
                for (j = 2; j <= m; j++) {
                    one = cases[c]; for (k = 1; k <= n; k++) one = one " " (k == i ? a[j] : first(option[k]))
                    out = out "\n" one } }
            if (layout[v] != "") out = times(out, layout[v])
            m = split(out == "" ? " " : out, a, "\n")
            for (i = 1; i <= m; i++) if (!(a[i] in seen)) { seen[a[i]] = 1; print a[i] } }
    }' "ops/$1/op.yaml"
}

[ $# -gt 0 ] || set -- $(for f in ops/*/*.cu; do basename "$f" .cu; done)
gencode=
for arch in $archs; do gencode="$gencode -gencode arch=compute_$arch,code=sm_$arch"; done
failed=0
for op in "$@"; do
    builds "$op" >"$tmp/builds"
    : >"$tmp/usage"
    while read -r defines; do
        # shellcheck disable=SC2086
        if ! "$nvcc" -std=c++17 -Werror all-warnings $gencode -fatbin -Iptx/device -Xptxas -v \
            -DKT_OP_ABI=1 $defines -o "$tmp/fatbin" "ops/$op/$op.cu" >"$tmp/log" 2>&1; then
            # a reader says by an assertion that a layout cannot hold a matrix of these sizes
            grep -q "this layout holds" "$tmp/log" && continue
            echo "FAIL $op $defines"
            cat "$tmp/log"
            failed=1
            continue
        fi
        awk -v defines="$defines" '
            /Compiling entry/ {
                name = $0; sub(/.*function ./, "", name); sub(/. for.*/, "", name)
                arch = $0; sub(/.*sm_/, "", arch); arch += 0 }
            /stack frame/ { stack = $1; spill = $5 + $9 }
            /Used [0-9]+ registers/ {
                shared = 0; if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
                registers = $0; sub(/.*Used /, "", registers)
                print name, arch, registers + 0, stack, spill, shared, defines }
        ' "$tmp/log" >>"$tmp/usage"
    done <"$tmp/builds"
    if [ $verbose = 1 ]; then
        awk '{ printf "%-40s sm_%-4s registers %3d stack %d spill %d static shared %5d ", $1, $2, $3, $4, $5, $6
               for (i = 7; i <= NF; i++) printf " %s", $i; print "" }' "$tmp/usage"
    fi
    awk '{ k = $1 " " $2; if (!(k in n)) order[++m] = k; n[k]++
           if ($3 > r[k]) r[k] = $3; if ($4 > s[k]) s[k] = $4; if ($5 > p[k]) p[k] = $5; if ($6 > h[k]) h[k] = $6 }
         END { for (i = 1; i <= m; i++) { k = order[i]; split(k, a, " ")
               bad = s[k] > 0 || p[k] > 0 || h[k] > 101376
               printf "%s%-40s sm_%-4s builds %3d registers %3d stack %d spill %d static shared %5d\n",
                   bad ? "FAIL " : "", a[1], a[2], n[k], r[k], s[k], p[k], h[k]
               if (bad) code = 1 } exit code }' "$tmp/usage" || failed=1
    [ -s "$tmp/usage" ] || { echo "FAIL $op: nothing was compiled"; failed=1; }
done
exit $failed
