# Sourced by shell tests at the top of the tree: results as TAP, and a folder $tmp that goes at the end. A test writes
# what it sees to $tmp/out and $tmp/err; where it fails, their ends are shown.
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n=0

result() { # result STATUS NAME
    n=$((n + 1))
    if [ "$1" = 0 ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
        for stream in out err; do
            [ ! -s "$tmp/$stream" ] || tail -n 12 "$tmp/$stream" | sed "s/^/# std$stream: /"
        done
    fi
}

# fails NAME CODE 'TEXT IN STDERR' COMMAND...: that exit code, that text, nothing on stdout, no crash.
fails() {
    name=$1 code=$2 text=$3
    shift 3
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
    ok=0
    ! grep -q -e 'kotaro: bug' -e Sanitizer "$tmp/err" || { ok=1; echo "# it crashed"; }
    [ "$got" = "$code" ] || { ok=1; echo "# exit code $got, expected $code"; }
    grep -qF -- "$text" "$tmp/err" || { ok=1; echo "# stderr lacks: $text"; }
    [ ! -s "$tmp/out" ] || { ok=1; echo "# stdout is not empty"; }
    result $ok "$name"
}
