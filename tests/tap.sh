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
