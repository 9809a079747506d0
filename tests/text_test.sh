#!/bin/sh
# Text pipelines from outside: questions in words and lists of token ids, a system message, stdin, scores, and what is
# said when something is wrong. tests/test_text.c has the numbers. DEVICE=cuda: on a GPU, and what it computes is compared
# with the CPU's.
set -u
cd "$(dirname "$0")/.." || exit 2
device=${DEVICE:-cpu}
run=${BUILD:-build}/kotaro-run
. tests/tap.sh
scene=examples/scene.jpg
model=models/kotaro-tiny
usual="--device $device --quiet --model $model"

# prints NAME 'PATTERN OF STDOUT' COMMAND...
prints() {
    name=$1 pattern=$2
    shift 2
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    got=$?
    ok=0
    [ "$got" = 0 ] || { ok=1; echo "# exit code $got"; }
    grep -qE -- "$pattern" "$tmp/out" || { ok=1; echo "# stdout lacks: $pattern"; }
    result $ok "$name"
}

same() { # same FILE FILE NAME
    ok=0
    [ -s "$1" ] && cmp -s "$1" "$2" || ok=1
    result $ok "$3"
}

# ---- questions in words, no picture
prints 'a question' . $run pipelines/chat.yaml $usual --greedy --max-tokens 12 -p 'What is shown?'
cp "$tmp/out" "$tmp/asked"
printf 'What is shown?\n' | $run pipelines/chat.yaml $usual --greedy --max-tokens 12 -p - >"$tmp/out" 2>"$tmp/err"
same "$tmp/asked" "$tmp/out" 'the same from stdin'
printf 'What is\nshown,\n\nand where?' >"$tmp/lines"
$run pipelines/chat.yaml $usual --greedy --max-tokens 12 -p - <"$tmp/lines" >"$tmp/out" 2>"$tmp/err"
$run pipelines/chat.yaml $usual --greedy --max-tokens 12 -p "$(cat "$tmp/lines")" >"$tmp/asked" 2>>"$tmp/err" </dev/null
same "$tmp/asked" "$tmp/out" 'several lines, from stdin and as they are'
prints 'JSON' '"image": null.*"finish"' $run pipelines/chat.yaml $usual --greedy --max-tokens 3 -p Why --format json

# prompt_of FILE OPTION...: the ids of a prompt, as numbers
prompt_of() {
    file=$1
    shift
    rm -rf "$tmp/dump"
    $run "$@" $usual --max-tokens 1 --dump "$tmp/dump" --dump-only prompt.prompt >"$tmp/out" 2>"$tmp/err" </dev/null
    tail -c +129 "$tmp/dump/prompt.prompt.npy" | od -An -v -t d4 | tr -s ' \n' ' ' | sed 's/^ //; s/ $//' >"$file"
}
prompt_of "$tmp/own" pipelines/chat.yaml -p Why
prompt_of "$tmp/said" pipelines/chat.yaml -p Why --set 'system=You are a helpful assistant.'
same "$tmp/own" "$tmp/said" "without a system message the model's own is used"
prompt_of "$tmp/said" pipelines/chat.yaml -p Why --set 'system=Be brief.'
ok=1
[ -s "$tmp/said" ] && ! cmp -s "$tmp/own" "$tmp/said" && ok=0
result $ok 'another one changes the prompt'

# ---- token ids
prints 'ids in, ids out' '^[0-9]+( [0-9]+){11}$' $run pipelines/ids.yaml $usual --max-tokens 12 -p '1 34, 567'
cp "$tmp/out" "$tmp/ids"
$run pipelines/ids.yaml $usual --max-tokens 12 --set 'shared=1 34' -p 567 >"$tmp/out" 2>"$tmp/err" </dev/null
same "$tmp/ids" "$tmp/out" 'shared ids come before those of every item'
mkdir "$tmp/model"
ln -s "$PWD/$model"/* "$tmp/model/"
rm "$tmp/model/tokenizer.json" "$tmp/model/tokenizer_config.json"
$run pipelines/ids.yaml --device $device --quiet --model "$tmp/model" --max-tokens 12 -p '1 34, 567' >"$tmp/out" 2>"$tmp/err" </dev/null
same "$tmp/ids" "$tmp/out" 'without a tokenizer'
$run pipelines/chat.yaml $usual --greedy --max-tokens 12 -p Why >"$tmp/asked" 2>"$tmp/err" </dev/null
$run pipelines/ids.yaml $usual --max-tokens 12 -p "$(cat "$tmp/own")" >"$tmp/ids" 2>"$tmp/err" </dev/null
$run pipelines/chat.yaml $usual --greedy --max-tokens 12 -p Why --format json 2>"$tmp/err" </dev/null |
    sed 's/.*"completion": \([0-9]*\).*/\1/' >"$tmp/out"
ok=1
made=$(wc -w <"$tmp/ids") told=$(cat "$tmp/out")
{ [ "$made" = "$told" ] || [ "$((made + 1))" = "$told" ]; } && [ "$made" -gt 0 ] && ok=0 # the last one may be a stop token
result $ok 'a prompt as ids gives as many tokens as the text'

# ---- scores
prints 'perplexity' '^[0-9]+ tokens, mean log-probability -[0-9.]+, perplexity [0-9.e+]+$' $run pipelines/score.yaml $usual -p 'A red cat sits on a chair.'
$run pipelines/score_ids.yaml $usual --set show=logp -p "$(cat "$tmp/own")" >"$tmp/whole" 2>"$tmp/err" </dev/null
$run pipelines/score_ids.yaml $usual --set show=logp --set chunk=5 -p "$(cat "$tmp/own")" >"$tmp/parts" 2>"$tmp/err" </dev/null
ok=1
[ "$(wc -w <"$tmp/whole")" = $(($(wc -w <"$tmp/own") - 1)) ] && ok=0
result $ok 'each token but the first has its log-probability'
ok=1 # sums of other lengths: the last digits may differ
paste -d' ' "$tmp/whole" "$tmp/parts" | awk '{ n = NF / 2
    for (i = 1; i <= n; i++) if ($i - $(i + n) > 0.01 || $(i + n) - $i > 0.01) exit 1
    exit n == 0 }' && ok=0
result $ok 'in chunks as in one'
$run pipelines/score_ids.yaml $usual --set show=best -p "$(cat "$tmp/own")" >"$tmp/out" 2>"$tmp/err" </dev/null
ok=1
[ "$(awk '{ print $NF }' "$tmp/out")" = "$(awk '{ print $1 }' "$tmp/ids")" ] && ok=0
result $ok 'the likeliest id after the last token is what decoding chooses'
prompt_of "$tmp/plain" pipelines/score.yaml -p 'A red cat.'
prompt_of "$tmp/marked" pipelines/score.yaml -p 'A red cat.' --set 'before=<|im_start|>'
ok=1
[ "$(cut -d' ' -f2- "$tmp/marked")" = "$(cat "$tmp/plain")" ] && ok=0
result $ok 'markup before a text is a token'
prompt_of "$tmp/marked" pipelines/score.yaml -p '<|im_start|>A red cat.'
ok=1
[ "$(cut -d' ' -f2- "$tmp/marked")" != "$(cat "$tmp/plain")" ] && ok=0
result $ok 'in the text it is not'
prints 'one token has no score' '^1 tokens$' $run pipelines/score_ids.yaml $usual -p 7
{
    printf 'kotaro: pipeline/1\nname: two\ndoc: Two lists.\nextends: %s/pipelines/score_ids.yaml\n' "$PWD"
    printf 'items:\n  - { name: one, ask: "%s" }\n  - { name: two, ask: "%s 5 6" }\n' "$(cat "$tmp/own")" "$(cat "$tmp/own")"
} >"$tmp/two.yaml"
$run "$tmp/two.yaml" $usual --set show=logp >"$tmp/out" 2>"$tmp/err" </dev/null
ok=1
sed -n 's/^one: //p' "$tmp/out" >"$tmp/one"
paste -d' ' "$tmp/one" "$tmp/whole" | awk '{ n = NF / 2
    for (i = 1; i <= n; i++) if ($i - $(i + n) > 0.01 || $(i + n) - $i > 0.01) exit 1
    exit n == 0 }' && [ "$(sed -n 's/^two: //p' "$tmp/out" | wc -w)" = $(($(wc -w <"$tmp/own") + 1)) ] && ok=0
result $ok 'several texts share nothing'

# Scores of MiniCPM's kind: the tiny model's weights, and scales as that has them.
mkdir "$tmp/minicpm"
ln -s "$PWD/$model"/* "$tmp/minicpm/"
rm "$tmp/minicpm/config.json"
sed 's/^{/{ "scale_emb": 1.5, "scale_depth": 1.1, "dim_model_base": 96,/' $model/config.json >"$tmp/minicpm/config.json"
printf 'kotaro: pipeline/1\nname: scaled\ndoc: Scaled.\nextends: %s/pipelines/score_ids.yaml\ninclude: [%s/pipelines/minicpm.model.yaml]\n' "$PWD" "$PWD" >"$tmp/scaled.yaml"

# near FILE FILE NAME: as many numbers, none apart by more than 0.05. Logits are a few units and activations f16, whose
# roundings the two devices make in other places: tests/test_text.c derives 0.027 against exact arithmetic, twice that.
near() {
    ok=1
    paste -d' ' "$1" "$2" | awk '{ n = NF / 2
        for (i = 1; i <= n; i++) if ($i - $(i + n) > 0.05 || $(i + n) - $i > 0.05) exit 1
        exit n == 0 || n != int(n) }' && ok=0
    result $ok "$3"
}
scaled() { # scaled FILE DEVICE
    $run "$tmp/scaled.yaml" --device "$2" --quiet --model "$tmp/minicpm" --set show=logp -p "$(cat "$tmp/own")" >"$1" 2>"$tmp/err" </dev/null
}
fails 'a pipeline that would leave the scales out' 2 'scaling == 1: scaling = 1.5' $run pipelines/score_ids.yaml --device "$device" --model "$tmp/minicpm" -p '1 2'
cp -R "$tmp/minicpm" "$tmp/gelu"
sed 's/"hidden_act": *"silu"/"hidden_act": "gelu_pytorch_tanh"/' $model/config.json >"$tmp/gelu/config.json"
fails 'a model with another activation' 2 "'hidden_act' is the text 'gelu_pytorch_tanh', this model file is for silu" $run pipelines/score_ids.yaml --device "$device" --model "$tmp/gelu" -p '1 2'
scaled "$tmp/scaled" "$device"
ok=1
[ "$(wc -w <"$tmp/scaled")" = "$(wc -w <"$tmp/whole")" ] && ! cmp -s "$tmp/scaled" "$tmp/whole" && ok=0
result $ok 'scales in config.json are used by the model file that names them'
if [ "$device" != cpu ]; then
    scaled "$tmp/exact" cpu
    near "$tmp/scaled" "$tmp/exact" "with them, scores are the CPU's"
    $run pipelines/score_ids.yaml --device cpu --quiet --model $model --set show=logp -p "$(cat "$tmp/own")" >"$tmp/exact" 2>"$tmp/err" </dev/null
    near "$tmp/whole" "$tmp/exact" "and without"
    $run pipelines/ids.yaml --device cpu --quiet --model $model --max-tokens 12 -p "$(cat "$tmp/own")" >"$tmp/exact" 2>"$tmp/err" </dev/null
    same "$tmp/ids" "$tmp/exact" "decoded ids are the CPU's"
fi

# ---- what needs no question
prints 'a plan without a question' 'kt_score_tokens_block_per_token' ${BUILD:-build}/kotaro plan pipelines/score_ids.yaml --model $model --arch 89 --sms 24
prints 'a check without a question' ': ok' ${BUILD:-build}/kotaro check pipelines/chat.yaml --model $model

# ---- what is wrong
fails 'a picture for a text pipeline' 2 'looks at no picture' $run pipelines/chat.yaml $scene $usual -p Why
fails 'no question' 2 '-p TEXT' $run pipelines/chat.yaml $usual
fails 'an empty question' 2 'empty' $run pipelines/chat.yaml $usual -p ' '
fails 'nothing on stdin' 2 'stdin holds no text' $run pipelines/chat.yaml $usual -p -
zero_byte() { printf 'a\0b' | "$@"; }
fails 'a zero byte on stdin' 2 'zero byte' zero_byte $run pipelines/chat.yaml $usual -p -
fails 'a prompt that is too long' 1 "'context'" $run pipelines/chat.yaml $usual -p "$(yes word | head -9000 | tr '\n' ' ')"
fails 'a text to score that is too long' 1 "'context'" $run pipelines/score.yaml $usual -p "$(yes word | head -9000 | tr '\n' ' ')"
fails 'a word among ids' 1 "'two' at character 3 is no token id" $run pipelines/ids.yaml $usual -p '1 two 3'
fails 'an id beyond the vocabulary' 1 'ids of this model are 0 to 1279' $run pipelines/ids.yaml $usual -p '1 1280'
fails 'a negative id' 1 'token id -1' $run pipelines/ids.yaml $usual -p -1
fails 'ids in one prompt' 2 "cannot be 'joint'" $run pipelines/ids.yaml $usual -p 1 --set mode=joint
fails 'words without a tokenizer' 2 'tokenizer.json' $run pipelines/chat.yaml --device $device --model "$tmp/model" -p Why
rm "$tmp/model/generation_config.json"
printf '{"eos_token_id": 5000}' >"$tmp/model/generation_config.json"
fails 'a stop token beyond the vocabulary' 2 'token 5000 ends an answer' $run pipelines/ids.yaml --device $device --model "$tmp/model" -p 1

# ---- model files that extend others, by YAML alone
{
    printf 'kotaro: model/1\nname: other\ndoc: Other markup.\ninclude: [%s/pipelines/text.model.yaml]\n' "$PWD"
    printf 'chat:\n  default_system: Be brief.\n'
} >"$tmp/other.model.yaml"
printf 'kotaro: pipeline/1\nname: other\ndoc: chat with it.\nextends: %s/pipelines/chat.yaml\ninclude: [other.model.yaml]\n' "$PWD" >"$tmp/other.yaml"
prompt_of "$tmp/got" "$tmp/other.yaml" -p Why
same "$tmp/said" "$tmp/got" 'a model file may change one line of the chat of another'
{
    printf 'kotaro: model/1\nname: a\ndoc: A constant again.\ninclude: [%s/pipelines/text.model.yaml]\n' "$PWD"
    printf 'constants: { embed_scale: 0.5 }\n'
} >"$tmp/other.model.yaml"
$run "$tmp/other.yaml" $usual --greedy --max-tokens 4 -p Why >"$tmp/out" 2>"$tmp/err" </dev/null
result $? 'and define a constant again'
printf 'kotaro: model/1\nname: b\ndoc: It too.\nconstants: { embed_scale: 2 }\n' >"$tmp/b.model.yaml"
printf 'include: [other.model.yaml, b.model.yaml]\n' >>"$tmp/other.yaml"
sed -i '/^include: \[other.model.yaml\]$/d' "$tmp/other.yaml"
fails 'but not two that do not include each other' 2 "'embed_scale' is defined twice" $run "$tmp/other.yaml" $usual -p Why

echo "1..$n"
