"""Makes examples/scene.jpg and tests/data/scenes/: pictures from seeds that training and evaluation do not use.

python3 testdata.py        (numpy and Pillow; Noto Color Emoji installed for the same picture)
"""

import json
import os

import numpy as np
from PIL import Image

import answers
import atlas as art
import evaluate
import render
import scenes

EXAMPLE_SEED, TEST_SEED = 990185, 770001
SIZES = [(240, 320), (224, 224), (320, 240), (180, 320), (224, 224), (240, 320)]
FORMATS = ["jpg", "png", "webp"]


def one_of(s, i):
    return {k: (v[i] if isinstance(v, np.ndarray) else v) for k, v in s.items()}


def write(path, value):
    with open(path, "w", encoding="utf-8") as handle:
        json.dump(value, handle, ensure_ascii=False, indent=1)
        handle.write("\n")


def example(sampler, pixels, grammar):
    folder = os.path.join(evaluate.ROOT, "examples")
    s = sampler.sample(np.random.default_rng(EXAMPLE_SEED), 1, kinds=[0, 0, 0, 0, 0, 1, 0.6], sizes=[(480, 640)])
    picture = render.numpy_picture(one_of(s, 0), pixels, 640, 480, np.random.default_rng(1))
    Image.fromarray(picture).save(os.path.join(folder, "scene.jpg"), quality=90)
    write(os.path.join(folder, "scene.json"), {"file": "scene.jpg", "seed": EXAMPLE_SEED, **evaluate.facts(s, 0, grammar)})


def tests(sampler, pixels, grammar):
    folder = os.path.join(evaluate.ROOT, "tests", "data", "scenes")
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(TEST_SEED)
    truth = {"set": "scenes", "seed": TEST_SEED, "pictures": []}
    shares = np.eye(7)[[2, 5, 6, 3, 2, 4, 5, 1, 2, 0, 6, 5]]
    for i, share in enumerate(shares):
        height, width = SIZES[i % len(SIZES)]
        s = sampler.sample(rng, 1, kinds=share, sizes=[(height, width)])
        image = Image.fromarray(render.numpy_picture(one_of(s, 0), pixels, width, height, rng))
        name = "scene-%02d.%s" % (i, FORMATS[i % 3])
        options = {"jpg": {"quality": 85}, "png": {"optimize": True}, "webp": {"quality": 85}}[FORMATS[i % 3]]
        if FORMATS[i % 3] == "png":
            image = image.quantize(96)
        image.save(os.path.join(folder, name), **options)
        truth["pictures"].append({"file": name, **evaluate.facts(s, 0, grammar)})
    write(os.path.join(folder, "truth.json"), truth)


if __name__ == "__main__":
    atlas = art.for_tests(os.path.join(evaluate.HERE, "data"))
    chosen = scenes.Sampler(atlas, "test", [art.TWEMOJI, art.NOTO], restyle=0.0)
    packed, words = atlas.pixels(), answers.Grammar()
    example(chosen, packed, words)
    tests(chosen, packed, words)
