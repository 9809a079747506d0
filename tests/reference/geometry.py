#!/usr/bin/env python3
"""Models of random geometry, each with a random picture, from the reference to `kotaro verify`.

    geometry.py OUT SEED     writes one checkpoint with its golden to OUT and says what it is

The seed decides everything: layers, heads, groups, widths, vocabulary, queries, patches, the table of
places, tied or not, biases, storage, shards, the picture's size (1 to 4 views), the question and how many
tokens are prefilled at a time. Where the real model's value would hide a mistake (an epsilon of 1e-6, pixels
of mean and deviation 0.5) others are drawn.
"""
import json
import random
import sys
from pathlib import Path

import checkpoint
import goldens
import picture

QUESTIONS = ("What?", "How many birds, and where are they?", "Name 3 colours.", "?")


def draw_config(rng):
    patch = rng.choice((8, 14, 14, 16))
    kv = rng.randint(1, 3)
    heads, vis_heads = kv * rng.choice((1, 2, 3, 4, 7)), rng.randint(1, 3)
    config = checkpoint.small()
    config.update({
        "hidden_size": 128 * rng.randint(1, 3), "num_hidden_layers": rng.randint(1, 4),
        "intermediate_size": 8 * rng.randint(11, 60), "num_attention_heads": heads, "num_key_value_heads": kv,
        "head_dim": 16 * rng.randint(1, 6), "vocab_size": rng.randint(266, 700),
        "rope_theta": rng.choice((1e4, 1e5, 1e6)), "rms_norm_eps": rng.choice((1e-6, 1e-2)),
        "tie_word_embeddings": rng.random() < 0.4, "query_num": rng.randint(1, 20),
        "image_size": patch * rng.randint(3, 7), "drop_vision_last_layer": rng.random() < 0.2,
        "slice_config": {"max_slice_nums": rng.randint(1, 9), "patch_size": patch}})
    places = rng.randint(4, 20)
    config["vision_config"] = {
        "hidden_size": vis_heads * rng.choice((48, 64, 72, 80)), "intermediate_size": 8 * rng.randint(11, 40),
        "num_attention_heads": vis_heads, "num_hidden_layers": rng.randint(2, 4), "image_size": places * patch,
        "patch_size": patch, "layer_norm_eps": rng.choice((1e-6, 1e-2))}
    return config


def draw_size(rng, config):
    """A picture of 1 to 4 views."""
    side = config["image_size"]
    slicer = picture.Slicer(side, config["vision_config"]["patch_size"], config["slice_config"]["max_slice_nums"])
    while True:
        width, height = rng.randint(5, 3 * side), rng.randint(5, 3 * side)
        cols, rows = slicer.grid(width, height) or (0, 0)
        if cols * rows <= 3:
            return width, height


def make(out, seed):
    rng = random.Random(seed)
    config = draw_config(rng)
    storage, shards = rng.choice(checkpoint.STORAGE), rng.choice((1, 1, 2, 3))
    bias, prefix = rng.random() < 0.5, rng.choice(("llm.", ""))
    checkpoint.write(out, config, storage, seed, shards, bias, prefix)
    if rng.random() < 0.5:
        levels = {k: [round(rng.uniform(0.2, 0.6), 3)] * 3 for k in ("norm_mean", "norm_std")}
        (out / "preprocessor_config.json").write_text(json.dumps(levels))
    size, question = draw_size(rng, config), rng.choice(QUESTIONS)
    chunk = rng.choice((16, 23, 48, 512))
    goldens.make(out, out, picture.draw(*size, seed), question, chunk=chunk)
    v = config["vision_config"]
    print(f"seed {seed}: {storage}, {shards} files, {config['num_hidden_layers']} layers of {config['hidden_size']}, "
          f"{config['num_attention_heads']}/{config['num_key_value_heads']} heads of {config['head_dim']}, "
          f"{'with' if bias else 'no'} biases, {'tied' if config['tie_word_embeddings'] else 'own'} head of "
          f"{config['vocab_size']}; tower {v['num_hidden_layers']} x {v['hidden_size']}, patch {v['patch_size']}, "
          f"side {config['image_size']}, {config['query_num']} queries; picture {size[0]}x{size[1]}, "
          f"chunks of {chunk}")


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
