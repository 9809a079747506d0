#!/bin/sh
# The program from outside: what it prints where, its exit codes, and one clear line for every kind of bad input.
set -u
cd "$(dirname "$0")/.."
run=${BUILD:-build}/kotaro-run
kotaro=${BUILD:-build}/kotaro
. tests/tap.sh
scene=examples/scene.jpg
model=models/kotaro-tiny

# works NAME 'TEXT IN STDOUT' COMMAND...
works() {
    name=$1 text=$2
    shift 2
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
    ok=0
    [ "$got" = 0 ] || { ok=1; echo "# exit code $got"; }
    grep -qF -- "$text" "$tmp/out" || { ok=1; echo "# stdout lacks: $text"; }
    result $ok "$name"
}

copy_model() { # a fresh copy to damage
    rm -rf "$tmp/model"
    cp -R $model "$tmp/model"
    chmod -R u+w "$tmp/model"
}

cpu="--device cpu --greedy"

# ---- what works
works 'full.yaml gives four items' 'Caption: ' $run pipelines/full.yaml $scene $cpu
ok=1
[ "$(grep -c '^[A-Z][a-z ]*: ' "$tmp/out")" = 4 ] && ok=0
result $ok 'each on a line of its own'
works 'simple.yaml gives three, no rebuild' 'Mood: ' $run pipelines/simple.yaml $scene $cpu
works 'a pipeline of our own, no rebuild' ': ' $run pipelines/tags.yaml $scene $cpu
works 'Japanese' '被写体: ' $run pipelines/full.yaml $scene $cpu --set language=ja
works 'a free question' '' $run pipelines/full.yaml $scene $cpu -p 'What is shown?' --max-tokens 8
works 'JSON' '"finish": "stop"' $run pipelines/simple.yaml $scene $cpu --format json
works 'the token cap ends items by length' '"finish": "length"' $run pipelines/simple.yaml $scene $cpu --format json --max-tokens 2
works 'several pictures are one run' '== examples/scene.jpg' $run pipelines/simple.yaml $scene $scene $cpu
works 'help' 'usage: ' $run --help
works 'a version' 'kotaro ' $kotaro --version
works 'a version, under the other name' 'kotaro ' $run --version
works 'check' ': ok' $kotaro check pipelines/full.yaml
works 'explain names the origin of a line' 'chat_text.yaml:' $kotaro explain pipelines/full.yaml
works 'plan needs no GPU' 'kt_sample_block_per_row' $kotaro plan pipelines/full.yaml --arch 89 --sms 24 --memory 8G
works 'plan prints a host step whose outputs a pipeline leaves out' 'score_tokens' $kotaro plan pipelines/score.yaml --model $model
works 'ops show prints the prototype' 'kt_rms_norm_block_per_row' $kotaro ops show rms_norm
works 'cache info' 'kernels' $kotaro cache info

# Draws, not the likeliest token: hot enough that two seeds never agree.
draw() { # draw FILE OPTION...
    file=$1
    shift
    $run pipelines/simple.yaml $scene --device cpu --max-tokens 12 --set sampler.temperature=8 --set sampler.top_k=0 \
        --set sampler.top_p=1 "$@" >"$tmp/$file" 2>"$tmp/err" </dev/null
}
draw a --seed 7
draw b --seed 7
draw c --seed 8
draw d --seed 8 --seed 7
ok=1
[ -s "$tmp/a" ] && cmp -s "$tmp/a" "$tmp/b" && ok=0
result $ok 'the same seed gives the same text'
ok=1
[ -s "$tmp/c" ] && ! cmp -s "$tmp/a" "$tmp/c" && ok=0
result $ok 'another seed another one'
ok=1
cmp -s "$tmp/a" "$tmp/d" && ok=0
result $ok 'of two seeds the last one holds'

# ---- from elsewhere, and under other names
root=$PWD
away() { (cd "$tmp" && "$root/$run" "$@" --device cpu --max-tokens 3); }
works 'pipelines and models are found from any folder' ': ' away pipelines/simple.yaml "$root/$scene"
works 'a name after --' '== ' $run --max-tokens 3 $cpu pipelines/simple.yaml $scene -- $scene
works 'a value behind =' ': ' $run pipelines/simple.yaml $scene --device=cpu --max-tokens=3
works 'an empty folder of ops is no mistake' ': ' $run pipelines/simple.yaml $scene $cpu --max-tokens 3 --ops "$tmp"
works 'a pipeline without items takes -p' '' $run pipelines/analyze.base.yaml $scene $cpu --max-tokens 3 -p 'What is shown?'
works 'shared text from the command line' ': ' $run pipelines/simple.yaml $scene $cpu --max-tokens 3 --set 'shared=Be brief.'
works 'one prompt for all items' 'Mood: ' $run pipelines/simple.yaml $scene $cpu --max-tokens 3 --set mode=joint
works 'check takes the folder of an op' 'ops/linear: ok' $kotaro check ops/linear
works 'the profile goes to stderr' ': ' $run pipelines/simple.yaml $scene $cpu --max-tokens 3 --profile
ok=1
grep -q '^  all ops, all pictures ' "$tmp/err" && grep -q 'of reads' "$tmp/err" && grep -q '^    sample ' "$tmp/err" &&
    ! grep -q 'all ops' "$tmp/out" && ok=0
result $ok 'with a total and the share of what this machine reads'

# ---- where results go
if [ -c /dev/full ]; then
    $run pipelines/simple.yaml $scene $scene $cpu --max-tokens 3 >/dev/full 2>"$tmp/err"
    got=$?
    ok=1
    [ $got = 2 ] && [ "$(grep -c 'cannot be written' "$tmp/err")" = 1 ] && ok=0
    result $ok 'results that cannot be written end the run'
    $kotaro explain pipelines/simple.yaml >/dev/full 2>"$tmp/err"
    got=$?
    ok=1
    [ $got = 2 ] && grep -q 'cannot be written' "$tmp/err" && ok=0
    result $ok 'so it is with other commands'
fi
$run pipelines/simple.yaml $scene $scene $scene $cpu --max-tokens 3 2>"$tmp/err" | head -1 >"$tmp/out"
ok=1
grep -q '^== ' "$tmp/out" && ! grep -q -e bug -e Sanitizer "$tmp/err" && ok=0
result $ok 'a reader that goes away is no crash'

# ---- Ctrl-C: exit code 130, soon, and nothing on stdout that is not whole
interrupt() { # interrupt SECONDS: while it is loading, or running
    # Background jobs of a script ignore Ctrl-C; timeout starts no such job.
    # In the foreground it sends one signal; else one to the program and one to its group, and the second ends it at once.
    timeout --foreground --preserve-status -s INT "$1" $run pipelines/full.yaml $scene $scene $scene $scene $scene $scene --device cpu --format json \
        --set sampler.temperature=8 --set sampler.top_k=0 --set sampler.top_p=1 >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
}
for seconds in 0.03 0.3 0.9; do
    interrupt $seconds
    ok=1
    # No message where the signal came before the program's first line.
    [ "$got" = 130 ] && { grep -q 'error: interrupted' "$tmp/err" || [ ! -s "$tmp/err" ]; } && ! grep -qv '}$' "$tmp/out" && ok=0
    [ "$got" != 0 ] || ok=0 # a machine that is done by then
    result $ok "interrupted after $seconds s"
done

# ---- pictures: exit code 1, and the run goes on
: >"$tmp/empty.jpg"
head -c 3000 $scene >"$tmp/cut.jpg"
printf 'hello, I am no picture at all, whatever my name says' >"$tmp/text.png"
# A PNG header that claims 60000 x 60000 pixels.
printf '\211PNG\r\n\032\n\000\000\000\rIHDR\000\000\352\140\000\000\352\140\010\002\000\000\000\017\260\342\025' >"$tmp/huge.png"
printf '\000\000\000\000IDAT\065\257\006\036' >>"$tmp/huge.png"
fails 'a missing picture' 1 "$tmp/none.jpg" $run pipelines/simple.yaml "$tmp/none.jpg" $cpu
fails 'an empty picture' 1 'empty' $run pipelines/simple.yaml "$tmp/empty.jpg" $cpu
fails 'a picture that is cut short' 1 'cut.jpg' $run pipelines/simple.yaml "$tmp/cut.jpg" $cpu
fails 'a file that is no picture' 1 'text.png' $run pipelines/simple.yaml "$tmp/text.png" $cpu
fails 'a picture with too many pixels' 1 '60000' $run pipelines/simple.yaml "$tmp/huge.png" $cpu
fails 'a limit of pixels' 1 'limit is 5000; make it smaller, or raise' $run pipelines/simple.yaml $scene $cpu --set image.pixels=5000
works 'a higher limit of pixels' ': ' $run pipelines/simple.yaml $scene $cpu --max-tokens 3 --set image.pixels=134217728
fails 'a folder as picture' 1 "$tmp" $run pipelines/simple.yaml "$tmp" $cpu
fails 'a picture without a name' 1 "''" $run pipelines/simple.yaml '' $cpu
fails 'no picture' 2 'none is given' $run pipelines/simple.yaml $cpu
fails 'a prompt that is too long' 1 "'context'" $run pipelines/simple.yaml $scene $cpu -p "$(yes word | head -5000 | tr '\n' ' ')"
grep -qF "$scene" "$tmp/err"
result $? 'says which picture it was'
$run pipelines/simple.yaml "$tmp/none.jpg" $scene $cpu --format json >"$tmp/out" 2>"$tmp/err"
got=$?
ok=1
[ $got = 1 ] && [ "$(wc -l <"$tmp/out")" = 2 ] && grep -q '"error": {"code": "file"' "$tmp/out" &&
    grep -q '"items"' "$tmp/out" && ok=0
result $ok 'the run goes on after a picture that fails'
name=$(printf '%s/caf\351 "x".jpg' "$tmp")
cp $scene "$name"
$run pipelines/simple.yaml "$name" "$name.none" $cpu --max-tokens 3 --format json >"$tmp/out" 2>"$tmp/err"
if command -v python3 >/dev/null; then
    python3 -c '
import json, sys
good, bad = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
assert good["image"].endswith("caf\ufffd \"x\".jpg") and good["finish"] in ("stop", "length")
assert list(good) == ["image", "pipeline", "model", "device", "items", "tokens", "finish", "ms"]
assert list(good["ms"]) == ["load", "prepare", "image", "vision", "prefill", "decode", "total"]
assert [list(i) for i in good["items"]] == [["name", "title", "text", "finish"]] * 3
assert list(bad) == ["image", "error"] and bad["error"]["code"] == "file"
' "$tmp/out" 2>>"$tmp/err"
    result $? 'JSON lines have the keys that they promise, whatever the names of files'
fi

# ---- models: exit code 2
fails 'a missing model folder' 2 "$tmp/nowhere" $run pipelines/full.yaml $scene $cpu --model "$tmp/nowhere"
copy_model
head -c 100000 $model/model.safetensors >"$tmp/model/model.safetensors"
fails 'a truncated safetensors' 2 'model.safetensors' $run pipelines/full.yaml $scene $cpu --model "$tmp/model"
copy_model
sed 's/llm\.model\.norm\.weight/llm.model.norn.weight/' $model/model.safetensors >"$tmp/model/model.safetensors"
fails 'a missing tensor' 2 'model.norm.weight' $run pipelines/full.yaml $scene $cpu --model "$tmp/model"
copy_model
sed 's/"hidden_size": *\([0-9]*\)/"hidden_size": 384/' $model/config.json >"$tmp/model/config.json"
fails 'a wrong shape' 2 'tensor' $run pipelines/full.yaml $scene $cpu --model "$tmp/model"
copy_model
printf '{ "hidden_size": ' >"$tmp/model/config.json"
fails 'a broken config.json' 2 'config.json' $run pipelines/full.yaml $scene $cpu --model "$tmp/model"
copy_model
sed 's/"id": 1273/"id": 5000/' $model/tokenizer.json >"$tmp/model/tokenizer.json"
fails 'a token beyond the vocabulary' 2 'ids up to 5000' $run pipelines/full.yaml $scene $cpu --model "$tmp/model"
copy_model
rm "$tmp/model/tokenizer.json"
fails 'a missing tokenizer' 2 'tokenizer.json' $run pipelines/full.yaml $scene $cpu --model "$tmp/model"
if mkfifo "$tmp/model/tokenizer.json" 2>/dev/null; then # to open it would wait for somebody who writes
    fails 'a pipe as tokenizer' 2 'it is not a file' timeout 20 $run pipelines/full.yaml $scene $cpu --model "$tmp/model"
    fails 'a pipe as pipeline' 2 'it is not a file' timeout 20 $run "$tmp/model/tokenizer.json" $scene $cpu
fi

# ---- pipelines and use: exit code 2
sed 's/host: read_image/op: read_imago/' pipelines/analyze.base.yaml >"$tmp/bad.yaml"
sed -i "s|extends: chat_text.yaml|extends: $PWD/pipelines/chat_text.yaml|; s|- minicpm_v.model.yaml|- $PWD/pipelines/minicpm_v.model.yaml|" "$tmp/bad.yaml"
sed "s|extends: analyze.base.yaml|extends: $tmp/bad.yaml|" pipelines/full.yaml >"$tmp/full.yaml"
fails 'an unknown op' 2 "unknown op 'read_imago'" $run "$tmp/full.yaml" $scene $cpu --model $model
fails 'a missing pipeline' 2 'nowhere.yaml' $run nowhere.yaml $scene $cpu
fails 'an unknown parameter' 2 'sampler.temperature' $run pipelines/full.yaml $scene $cpu --set sampler.temprature=1
fails 'a value out of range' 2 'maximum' $run pipelines/full.yaml $scene $cpu --set sampler.top_p=7
fails 'an unknown language' 2 'en, ja' $run pipelines/full.yaml $scene $cpu --set language=fr
fails 'an unknown option' 2 '--greedy' $run pipelines/full.yaml $scene --greed
fails 'an unknown command' 2 "did you mean 'check'" $kotaro chek
{
    printf 'kotaro: pipeline/1\nname: nine\ndoc: More items than rows.\nextends: %s/pipelines/analyze.base.yaml\nitems:\n' "$PWD"
    for i in 1 2 3 4 5 6 7 8 9; do printf '  - { name: item%s, ask: What is shown? }\n' $i; done
} >"$tmp/nine.yaml"
fails 'an option without its value' 2 'needs a value' $run pipelines/full.yaml $scene --seed
fails 'a switch with a value' 2 'takes no value' $run pipelines/full.yaml $scene --greedy=1
fails 'a number that is none' 2 'whole number' $run pipelines/full.yaml $scene --max-tokens 1e9
fails 'a format that is none' 2 'text or json' $run pipelines/full.yaml $scene --format xml
fails 'a question that is not UTF-8' 2 'UTF-8' $run pipelines/full.yaml $scene $cpu -p "$(printf 'a\377')"
fails 'a pipeline without items' 2 '-p TEXT' $run pipelines/analyze.base.yaml $scene $cpu
fails 'a pipeline without a model' 2 '--model DIR' $run pipelines/chat_text.yaml $cpu -p Why?
fails 'a missing folder of ops' 2 "$tmp/nowhere" $run pipelines/simple.yaml $scene $cpu --ops "$tmp/nowhere"
fails 'a picture as pipeline' 2 'scene.jpg:1' $run $scene pipelines/simple.yaml $cpu
fails 'a model file as pipeline' 2 'a pipeline is expected' $run pipelines/qwen2.model.yaml $scene $cpu
fails 'a wrong KOTARO_HOME' 2 "KOTARO_HOME is '$tmp'" env KOTARO_HOME="$tmp" $run pipelines/simple.yaml $scene $cpu
fails 'too many items' 2 "dim 'rows'" $run "$tmp/nine.yaml" $scene $cpu
printf 'kotaro: pipeline/1\nname: mute\ndoc: No answers.\nextends: %s/pipelines/simple.yaml\nresult: vision.rows\n' "$PWD" >"$tmp/mute.yaml"
fails 'a result that cannot be printed' 2 'mute.yaml:5:9' $run "$tmp/mute.yaml" $scene $cpu
printf 'kotaro: op/1\nname: mute\n' >"$tmp/mute.op.yaml"
fails 'a manifest with another name' 2 "is called 'op.yaml'" $kotaro check "$tmp/mute.op.yaml"
fails 'check of a model folder' 2 '--model models/kotaro-tiny' $kotaro check $model
fails 'check of weights' 2 'holds weights' $kotaro check $model/model.safetensors
fails 'a pack in no folder, before anything is compiled' 2 "no folder '$tmp/none'" $kotaro warm pipelines/simple.yaml --arch 89 --export "$tmp/none/a.ktpack"
fails 'an empty question' 2 'the question is empty' $run pipelines/simple.yaml $scene $cpu -p ""
mkdir "$tmp/no_context"
ln -s "$PWD/$model"/* "$tmp/no_context/"
rm "$tmp/no_context/config.json"
sed 's/"max_position_embeddings": *[0-9]*/"max_position_embeddings": 0/' $model/config.json >"$tmp/no_context/config.json"
fails 'a model without a context' 2 'ctx >= 16' $run pipelines/simple.yaml $scene $cpu --model "$tmp/no_context"
fails 'no arguments' 2 'PIPELINE' $run

# ---- device and memory: exit codes 3 and 4
if [ ! -e /dev/nvidiactl ]; then
    fails 'no GPU with --device cuda' 3 '--device cpu' $run pipelines/full.yaml $scene --device cuda
fi
fails 'too little memory' 4 'may be used' $run pipelines/full.yaml $scene $cpu --memory-limit 8M
fails 'too little memory, and what would do' 4 'with --set context=2048 it needs' $kotaro plan pipelines/full.yaml --memory 125M
fails 'too little memory whatever is set' 4 'no smaller setting is enough' $kotaro plan pipelines/full.yaml --memory 30M
works 'enough memory' 'Caption: ' $run pipelines/full.yaml $scene $cpu --memory-limit 2G

echo "1..$n"
