#!/bin/sh
# --dump, --dump-only and kotaro verify from outside: what they print, where, and every mistake on the command line.
set -u
cd "$(dirname "$0")/.."
run=${BUILD:-build}/kotaro-run
kotaro=${BUILD:-build}/kotaro
. tests/tap.sh
scene=examples/scene.jpg
cpu='--device cpu --greedy --max-tokens 3 --set sampler.repetition_penalty=1'

# verifies NAME CODE 'TEXT IN STDOUT' OPTION...: of $tmp/dump's golden
verifies() {
    name=$1 code=$2 text=$3
    shift 3
    $kotaro verify pipelines/simple.yaml --golden "$tmp/dump" --device cpu "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
    ok=0
    [ "$got" = "$code" ] || { ok=1; echo "# exit code $got, expected $code"; }
    grep -qF -- "$text" "$tmp/out" || { ok=1; echo "# stdout lacks: $text"; }
    result $ok "$name"
}

# ---- dumps
$run pipelines/simple.yaml $scene $cpu >"$tmp/plain" 2>"$tmp/err"
$run pipelines/simple.yaml $scene $cpu --dump "$tmp/dump" >"$tmp/out" 2>"$tmp/err"
ok=$?
[ $ok = 0 ] && cmp -s "$tmp/plain" "$tmp/out" && grep -q 'tensors, .* MB, are in' "$tmp/err"
result $? 'a dump changes no answer and says how large it is'
[ -s "$tmp/dump/vision.photo.npy" ] && [ -s "$tmp/dump/prefill-l-3-.x1@0.npy" ] && [ -s "$tmp/dump/decode.logits@2.npy" ] &&
    [ ! -e "$tmp/dump/decode.logits@3.npy" ] && [ "$(find "$tmp/dump" -name '*.npy' | wc -l)" = "$(grep -c '"address"' "$tmp/dump/index.json")" ]
result $? 'files are called by their addresses, and the index has them all'
head -c 128 "$tmp/dump/vision.photo.npy" | tr -cd '[:print:]' | grep -q "^NUMPYv{'descr': '|u1', 'fortran_order': False, 'shape': ([0-9]*, 3), } *$"
result $? 'pixels are bytes, before anything is done to them'
# Addresses that the plan prints can be dumped.
$kotaro plan pipelines/simple.yaml --all --cpu >"$tmp/out" 2>"$tmp/err"
grep -q '^  prefill\[l=2\].0/0/2  .* -> q0 f16\[tokens, [0-9]*\]' "$tmp/out" && grep -q ' = prefill\[l=2\].x1' "$tmp/out"
result $? 'the plan prints what steps make, by name'
$run pipelines/simple.yaml $scene $cpu --dump "$tmp/some" --dump-only 'prefill[l=2].0/0/2.q0' --dump-only 'prefill[l=2].x1' \
    --dump-only 'decode.logits@1' --dump-only 'vision[v=*].p1' >"$tmp/out" 2>"$tmp/err" && [ "$(find "$tmp/some" -name '*.npy' | wc -l)" = 8 ] &&
    [ -s "$tmp/some/prefill-l-2-.0-0-2.q0@0.npy" ] && cmp -s "$tmp/some/prefill-l-2-.x1@0.npy" "$tmp/dump/prefill-l-2-.x1@0.npy"
result $? 'only what is asked for, and it is the same'
$run pipelines/simple.yaml $scene $cpu --dump "$tmp/some" --dump-only vision.photo@4 >"$tmp/out" 2>"$tmp/err" &&
    grep -q "warning: 'vision.photo@4' was never made" "$tmp/err" && [ "$(find "$tmp/some" -name '*.npy' | wc -l)" = 8 ]
result $? 'what is never made is told, and a former dump stays'

fails 'an unknown address' 2 "did you mean 'vision.photo'" $run pipelines/simple.yaml $scene $cpu --dump "$tmp/x" --dump-only vision.foto
[ ! -e "$tmp/x" ]
result $? 'leaves no folder behind'
fails 'addresses without a folder' 2 '--dump DIR' $run pipelines/simple.yaml $scene $cpu --dump-only vision.photo
fails 'an empty address' 2 'plan --all' $run pipelines/simple.yaml $scene $cpu --dump "$tmp/x" --dump-only ''
fails 'a dump of two pictures' 2 'one picture' $run pipelines/simple.yaml $scene $scene $cpu --dump "$tmp/x"
fails 'a file as folder' 2 'is no folder' $run pipelines/simple.yaml $scene $cpu --dump "$tmp/plain"
mkdir "$tmp/mine"
echo mine >"$tmp/mine/notes.txt"
fails 'a folder with files of the user' 2 'notes.txt' $run pipelines/simple.yaml $scene $cpu --dump "$tmp/mine"
[ "$(cat "$tmp/mine/notes.txt")" = mine ] && [ "$(ls "$tmp/mine")" = notes.txt ]
result $? 'is left as it was'
fails 'a folder that cannot be made' 2 'cannot be made' $run pipelines/simple.yaml $scene $cpu --dump "$tmp/plain/x"

# ---- goldens: the dump is one, with the text of golden.json
golden() { # golden 'MORE STAGES' [IMAGE]
    cat >"$tmp/dump/golden.json" <<END
{ "kotaro": "golden/1", "doc": "a test", "model": null, "image": "${2-$PWD/$scene}", "question": null,
  "set": {"sampler.repetition_penalty": 1}, "greedy": true, "max_tokens": 3,
  "stages": [
    {"name": "photo", "address": "vision.photo", "file": "vision.photo.npy", "kind": "exact"},
    {"name": "layer 2", "address": "prefill[l=2].x1", "file": "prefill-l-2-.x1@0.npy", "kind": "float", "relative": 1e-6, "why": "the same run"},
    {"name": "logits", "address": "decode.logits", "batch": 1, "file": "decode.logits@1.npy", "kind": "float", "relative": 0, "why": "no less"}$1
  ] }
END
}
golden ''
verifies 'a run agrees with its own dump' 0 '3 of 3 stages agree'
[ "$(grep -c '^ok ' "$tmp/out")" = 3 ] && grep -q '^ok  *logits  *decode.logits@1  *\[4, [0-9]*\] relative 0.00e+00 of 0.00e+00, .*; no less$' "$tmp/out"
result $? 'a line for each stage'
verifies 'as JSON' 0 '"passed": true, "stages": [{"name": "photo"' --format json
if command -v python3 >/dev/null; then
    python3 -c '
import json, sys
report = json.load(open(sys.argv[1], encoding="utf-8"))
assert [s["passed"] for s in report["stages"]] == [True] * 3 and report["stages"][1]["relative"] == 0
assert report["stages"][0]["different"] == 0 and report["stages"][2]["tolerance"] == 0
' "$tmp/out" 2>>"$tmp/err"
    result $? 'that a program can read'
fi
# Element 5 of the first row of logits becomes 1.0; in f32 that is 00 00 80 3f behind a header of 128 bytes.
cp "$tmp/dump/decode.logits@1.npy" "$tmp/logits.npy"
printf '\000\000\200\077' | dd of="$tmp/dump/decode.logits@1.npy" bs=1 seek=148 conv=notrunc 2>/dev/null
verifies 'one element changed' 1 '2 of 3 stages agree'
grep -q '^FAIL  *logits  *decode.logits@1 .* at \[0, 5\] (.*, golden 1); no less$' "$tmp/out" && grep -q '^ok  *layer 2 ' "$tmp/out"
result $? 'names the stage, the place and both numbers'
printf '\000\000\300\177' | dd of="$tmp/dump/decode.logits@1.npy" bs=1 seek=148 conv=notrunc 2>/dev/null
verifies 'what is no number' 1 '1 not finite, the first'
verifies 'is null in JSON' 1 '"golden": null' --format json
cp "$tmp/logits.npy" "$tmp/dump/decode.logits@1.npy"
golden ', {"name": "late", "address": "decode.logits", "batch": 9, "file": "decode.logits@1.npy", "kind": "exact"}'
verifies 'a step that never comes' 1 'the run never made it'
golden ', {"name": "other", "address": "decode.x0", "file": "decode.logits@1.npy", "kind": "exact"}'
verifies 'another shape' 1 'the golden has the shape [4, '

verify() { # verify OPTION...
    $kotaro verify "$@" --device cpu
}
golden ', {"name": "wrong", "address": "decode.logitz", "file": "decode.logits@1.npy", "kind": "exact"}'
fails 'a golden with an unknown address' 2 "did you mean 'decode.logits'" verify pipelines/simple.yaml --golden "$tmp/dump"
golden ', {"name": "wrong", "address": "decode.logits", "file": "none.npy", "kind": "exact"}'
fails 'a golden without its file' 2 'none.npy' verify pipelines/simple.yaml --golden "$tmp/dump"
head -c 200 "$tmp/logits.npy" >"$tmp/dump/decode.logits@1.npy"
golden ''
fails 'a golden whose file is cut short' 2 'cut short' verify pipelines/simple.yaml --golden "$tmp/dump"
cp "$tmp/logits.npy" "$tmp/dump/decode.logits@1.npy"
golden ', {"name": "odd", "address": "decode.logits", "file": "decode.logits@1.npy", "kind": "exakt"}'
fails 'a golden with a mistake' 2 "stage 'odd': 'kind'" verify pipelines/simple.yaml --golden "$tmp/dump"
golden '' nowhere.jpg
fails 'a golden without its picture' 2 'nowhere.jpg' verify pipelines/simple.yaml --golden "$tmp/dump"
echo '{' >"$tmp/dump/golden.json"
fails 'a golden that is no JSON' 2 'golden.json:' verify pipelines/simple.yaml --golden "$tmp/dump"
fails 'no golden.json' 2 'golden.json' verify pipelines/simple.yaml --golden "$tmp/some"
fails 'no golden' 2 '--golden DIR' verify pipelines/simple.yaml
fails 'no pipeline' 2 'one pipeline' verify --golden "$tmp/dump"
golden ''
fails 'a model that is not there' 2 "$tmp/nowhere" verify pipelines/simple.yaml --golden "$tmp/dump" --model "$tmp/nowhere"

# ---- a pipeline without a picture: its golden has a model, a question and no image
text='pipelines/score_ids.yaml --device cpu'
$run $text --model models/kotaro-tiny -p '5 6 7 8' --dump "$tmp/text" --dump-only score.logits --dump-only prompt >"$tmp/out" 2>"$tmp/err" &&
    cat >"$tmp/text/golden.json" <<END
{ "kotaro": "golden/1", "model": "$PWD/models/kotaro-tiny", "image": null, "question": "5 6 7 8", "stages": [
  {"name": "ids", "address": "prompt.chunk.ids", "file": "prompt.chunk.ids@0.npy", "kind": "exact"},
  {"name": "logits", "address": "score.logits", "file": "score.logits@0.npy", "kind": "float", "relative": 0, "why": "the same run"} ] }
END
$kotaro verify $text --golden "$tmp/text" >"$tmp/out" 2>"$tmp/err" && grep -q '^ok  *logits  *score.logits  *\[4, ' "$tmp/out"
result $? 'a text is scored as before'
sed -i 's/"golden\/1", /&"pipeline": "other.yaml", /' "$tmp/text/golden.json"
$kotaro verify $text --golden "$tmp/text" >"$tmp/out" 2>"$tmp/err" && grep -qF "was made for pipeline 'other.yaml', this is 'score_ids.yaml'" "$tmp/err"
result $? 'a golden of another pipeline is warned of'
sed -i 's/5 6 7 8/5 6 8 7/' "$tmp/text/golden.json"
$kotaro verify $text --golden "$tmp/text" >"$tmp/out" 2>"$tmp/err"
[ $? = 1 ] && grep -q '^FAIL  *ids  .* 2 of 4 differ, largest 1.00e+00 at \[2\] (8, golden 7)$' "$tmp/out" && grep -q '^0 of 2' "$tmp/out"
result $? 'another question is another golden'
fails 'a golden without a picture where one is looked at' 2 'none is given' $kotaro verify pipelines/simple.yaml --golden "$tmp/text"

echo "1..$n"
