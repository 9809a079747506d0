#!/bin/sh
# The program from outside: what it prints where, its exit codes, and one clear line for every kind of bad input.
set -u
cd "$(dirname "$0")/.."
run=${BUILD:-build}/kotaro-run
kotaro=${BUILD:-build}/kotaro
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
n=0
scene=examples/scene.jpg
model=models/kotaro-tiny

result() { # result STATUS NAME
    n=$((n + 1))
    if [ "$1" = 0 ]; then
        echo "ok $n - $2"
    else
        echo "not ok $n - $2"
        sed 's/^/# stdout: /' "$tmp/out" | head -5
        sed 's/^/# stderr: /' "$tmp/err" | head -12
    fi
}

# fails NAME CODE 'TEXT IN STDERR' COMMAND...: that exit code, that text, nothing on stdout, no crash.
fails() {
    name=$1 code=$2 text=$3
    shift 3
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
    ok=0
    [ "$got" = "$code" ] || { ok=1; echo "# exit code $got, expected $code"; }
    grep -qF -- "$text" "$tmp/err" || { ok=1; echo "# stderr lacks: $text"; }
    [ ! -s "$tmp/out" ] || { ok=1; echo "# stdout is not empty"; }
    result $ok "$name"
}

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
works 'check' ': ok' $kotaro check pipelines/full.yaml
works 'explain names the origin of a line' 'chat_text.yaml:' $kotaro explain pipelines/full.yaml
works 'plan needs no GPU' 'kt_sample_block_per_row' $kotaro plan pipelines/full.yaml --arch 89 --sms 24 --memory 8G
works 'ops show prints the prototype' 'kt_rms_norm_block_per_row' $kotaro ops show rms_norm
works 'cache info' 'kernels' $kotaro cache info

$run pipelines/simple.yaml $scene $cpu --seed 7 --set sampler.temperature=0.9 >"$tmp/a" 2>/dev/null
$run pipelines/simple.yaml $scene $cpu --seed 7 --set sampler.temperature=0.9 >"$tmp/b" 2>/dev/null
ok=1
[ -s "$tmp/a" ] && cmp -s "$tmp/a" "$tmp/b" && ok=0
result $ok 'the same seed gives the same text'

# ---- pictures: exit code 1, and the run goes on
: >"$tmp/empty.jpg"
head -c 3000 $scene >"$tmp/cut.jpg"
printf 'hello, I am no picture at all, whatever my name says' >"$tmp/text.png"
# A PNG header that claims 60000 x 60000 pixels.
printf '\211PNG\r\n\032\n\000\000\000\rIHDR\000\000\352\140\000\000\352\140\010\002\000\000\000' >"$tmp/huge.png"
printf '\000\000\000\000\000\000\000\000IDAT' >>"$tmp/huge.png"
fails 'a missing picture' 1 "$tmp/none.jpg" $run pipelines/simple.yaml "$tmp/none.jpg" $cpu
fails 'an empty picture' 1 'empty' $run pipelines/simple.yaml "$tmp/empty.jpg" $cpu
fails 'a picture that is cut short' 1 'cut.jpg' $run pipelines/simple.yaml "$tmp/cut.jpg" $cpu
fails 'a file that is no picture' 1 'text.png' $run pipelines/simple.yaml "$tmp/text.png" $cpu
fails 'a picture with too many pixels' 1 '60000' $run pipelines/simple.yaml "$tmp/huge.png" $cpu
fails 'a folder as picture' 1 "$tmp" $run pipelines/simple.yaml "$tmp" $cpu
fails 'no picture' 2 'picture' $run pipelines/simple.yaml $cpu
$run pipelines/simple.yaml "$tmp/none.jpg" $scene $cpu --format json >"$tmp/out" 2>"$tmp/err"
got=$?
ok=1
[ $got = 1 ] && [ "$(wc -l <"$tmp/out")" = 2 ] && grep -q '"error": {"code": "file"' "$tmp/out" &&
    grep -q '"items"' "$tmp/out" && ok=0
result $ok 'the run goes on after a picture that fails'

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
rm "$tmp/model/tokenizer.json"
fails 'a missing tokenizer' 2 'tokenizer.json' $run pipelines/full.yaml $scene $cpu --model "$tmp/model"

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
fails 'no arguments' 2 'PIPELINE' $run

# ---- device and memory: exit codes 3 and 4
if [ ! -e /dev/nvidiactl ]; then
    fails 'no GPU with --device cuda' 3 'GPU' $run pipelines/full.yaml $scene --device cuda
fi
fails 'too little memory' 4 '--memory-limit' $run pipelines/full.yaml $scene $cpu --memory-limit 8M
works 'enough memory' 'Caption: ' $run pipelines/full.yaml $scene $cpu --memory-limit 2G

echo "1..$n"
