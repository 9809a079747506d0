#!/bin/sh
# dist/kotaro/: what a user needs and nothing to build, and dist/kotaro-<system>-<machine>.tar.gz. Kernels of the shipped
# pipelines are compiled ahead by one pinned NVRTC, so that nothing is compiled on the user's machine. (make dist)
set -eu
cd "$(dirname "$0")/.."
out=dist/kotaro
archs=80,86,89,90,120
pipelines='pipelines/full.yaml pipelines/simple.yaml pipelines/tags.yaml pipelines/chat.yaml pipelines/ids.yaml
    pipelines/score.yaml pipelines/score_ids.yaml'
rm -rf dist
mkdir -p $out/licences $out/models $out/cubins

strip -o $out/kotaro build/kotaro
ln $out/kotaro $out/kotaro-run
cp -R pipelines examples docs README.md LICENSE $out/
cp -R models/kotaro-tiny $out/models/
# The whole of every op: sources too, which a user may edit and which name the kernels in the pack.
find ops -type f \( -name '*.yaml' -o -name '*.cu' -o -name '*.c' -o -name '*.h' \) | while read -r file; do
    mkdir -p "$out/$(dirname "$file")"
    cp "$file" "$out/$file"
done

# What is linked statically, in Debian's words.
for package in libyaml-dev libjansson-dev libpcre2-dev libutf8proc-dev libjpeg62-turbo-dev libpng-dev zlib1g-dev \
    libwebp-dev libexif-dev libssl-dev libstb-dev; do
    cp "/usr/share/doc/$package/copyright" "$out/licences/$package.txt"
done

# Kernels are for one model's sizes: those of the model that ships, and of MiniCPM-V 2.6, whose headers are enough.
sparse=$(mktemp -d)
trap 'rm -rf "$sparse"' EXIT
models='--model models/kotaro-tiny'
for model in int4 bf16 gguf-q4_k_m; do
    build/fabricate --model $model --sparse --out "$sparse/$model" >/dev/null
    models="$models --model $sparse/$model"
done
KOTARO_NVRTC=build/nvrtc/nvidia/cuda_nvrtc/lib build/kotaro warm --arch $archs $models \
    --export $out/cubins/kotaro.ktpack $pipelines
ls -l $out/cubins
chmod -R u=rwX,go=rX dist

# What was packed is found again without a compiler, for small and large cards, and the C library is all that is needed.
rm -rf build/dist-cache
for sms in 24 132; do
    KOTARO_NVRTC=/nowhere KOTARO_CACHE_DIR=$PWD/build/dist-cache $out/kotaro warm --arch $archs --sms $sms $models \
        $pipelines
done
others=$(objdump -p $out/kotaro | awk '$1 == "NEEDED" && $2 !~ /^lib[cm]\.so|^ld-linux/ { print $2 }')
[ -z "$others" ] || { echo "dist: the program needs" $others; exit 1; }

archive=dist/kotaro-$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m).tar.gz
tar -C dist --owner=0 --group=0 --sort=name -czf "$archive" kotaro
ls -lh "$archive"
