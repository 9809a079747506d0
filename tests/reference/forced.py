#!/usr/bin/env python3
"""Does Kotaro choose the tokens that the reference chooses?

    forced.py [--storage bf16 nf4] [--kind qwen2] [--prompts 20] [--tokens 64] [--seed 1] [--device cpu]
              [--kotaro build/kotaro-run] [--set hidden_size=256]... [--model DIR]

For each storage a random text model is written; --model takes a folder that is there (its text model). Kinds:
qwen2; llama, without biases and with a tied head; minicpm, without biases, with scaled embeddings, branches
and logits. Each prompt is 8 to 40 random ids. Kotaro decodes greedily on ids alone; the reference then runs over
prompt and answer at once, in f32 and in bf16. Kotaro's token must be the f32 run's likeliest at every
position where that run's gap between its two likeliest exceeds the noise of bf16: the 99th percentile, over
all positions, of the larger of |bf16 - f32| of these two logits. (The larger one at the position itself is
often small by chance; its count is printed too.) At least half of all positions must be such.
Exit code 1 if a token differs there or too few positions count.
"""
import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import checkpoint
from arrays import NAME, to_numpy
from model import Model

KINDS = {  # pipeline, biases, settings
    "qwen2": ("pipelines/ids.yaml", True, {}),
    "llama": ("pipelines/ids.yaml", False, {"tie_word_embeddings": True, "rope_theta": 1e5}),
    "minicpm": ("pipelines/minicpm_ids.yaml", False, {
        "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 32, "rope_theta": 1e4, "rms_norm_eps": 1e-5,
        "num_attention_heads": 6, "num_key_value_heads": 6}),
}
TREE = Path(__file__).resolve().parent.parent.parent


def text_config(more):
    config = {k: v for k, v in checkpoint.small().items() if k not in ("vision_config", "query_num", "slice_config")}
    config.update(num_hidden_layers=4, hidden_size=256, intermediate_size=344, num_attention_heads=7, head_dim=48,
                  vocab_size=4000, tie_word_embeddings=False)
    config.update(more)
    return config


def decode(args, model, prompt):
    line = [args.kotaro, KINDS[args.kind][0], "--model", str(model), "--device", args.device, "--greedy",
            "--max-tokens", str(args.tokens), "-p", " ".join(map(str, prompt)), "--set",
            "sampler.repetition_penalty=1"]
    run = subprocess.run(line, cwd=TREE, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(line)}\n{run.stderr}")
    return [int(t) for t in run.stdout.split() if t.lstrip("-").isdigit()]


class Count:
    def __init__(self):
        self.gap, self.noise, self.same, self.bf16_same, self.error = [], [], [], [], []

    def add(self, f32, bf16, tokens):
        """Logits [tokens, vocab] and what Kotaro chose."""
        order = np.argsort(-f32, 1, kind="stable")[:, :2]
        top = np.take_along_axis(f32, order, 1)
        off = np.abs(np.take_along_axis(bf16, order, 1) - top).max(1)
        self.gap += list(top[:, 0] - top[:, 1])
        self.noise += list(off)
        self.same += list(order[:, 0] == np.array(tokens))
        self.bf16_same += list(order[:, 0] == bf16.argmax(1))
        self.error.append(np.linalg.norm(bf16 - f32) / np.linalg.norm(f32))

    def report(self, name):
        gap, noise = np.array(self.gap), np.array(self.noise)
        same, bf16_same = np.array(self.same), np.array(self.bf16_same)
        limit = np.quantile(noise, 0.99)
        clear, own = gap > limit, gap > noise
        worst = gap[~same].max() if (~same).any() else 0
        print(f"{name}: {len(gap)} positions; bf16 noise of the two likeliest {limit:.3f} (99 %), of all logits "
              f"{np.mean(self.error):.1e} relative")
        print(f"  gap above it: {clear.sum()} ({clear.mean():.0%}); of these Kotaro agrees at {(same & clear).sum()}, "
              f"the reference's bf16 run at {(bf16_same & clear).sum()}")
        print(f"  gap above the position's own noise: {own.sum()}; Kotaro agrees at {(same & own).sum()}")
        print(f"  all positions: Kotaro agrees at {same.sum()}, the bf16 run at {bf16_same.sum()}; the largest gap "
              f"where Kotaro differs is {worst:.4f}", flush=True)
        return bool((same | ~clear).all() and clear.mean() >= 0.5)


def compare(args, folder, name):
    model, rng, count = Model(folder, args.reference_device), random.Random(args.seed), Count()
    vocab = model.config["vocab_size"]
    for _ in range(args.prompts):
        prompt = [rng.randrange(vocab) for _ in range(rng.randint(8, 40))]
        made = decode(args, folder, prompt)
        if len(made) != args.tokens:
            sys.exit(f"{len(made)} tokens were decoded, {args.tokens} expected: {made}")
        logits = model.read(("f32", "bf16"), prompt + made[:-1], lambda *_: None, rows=slice(len(prompt) - 1, None))
        count.add(to_numpy(logits["f32"]), to_numpy(logits["bf16"]), made)
    return count.report(name)


def main():
    p = argparse.ArgumentParser(description="Teacher-forced comparison of greedy tokens.")
    p.add_argument("--storage", nargs="+", choices=checkpoint.STORAGE, default=["bf16", "nf4"])
    p.add_argument("--kind", choices=KINDS, default="qwen2")
    p.add_argument("--prompts", type=int, default=20)
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cpu", help="Kotaro's")
    p.add_argument("--reference-device", default="cpu")
    p.add_argument("--kotaro", default="build/kotaro-run")
    p.add_argument("--model", type=Path)
    p.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    args = p.parse_args()
    print(f"reference on {NAME}, Kotaro on {args.device}, seed {args.seed}: {args.prompts} prompts x {args.tokens} tokens")
    if args.model:
        sys.exit(0 if compare(args, args.model, str(args.model)) else 1)
    good = True
    for storage in args.storage:
        with tempfile.TemporaryDirectory() as tmp:
            _, bias, more = KINDS[args.kind]
            config = text_config({**more, **{k: json.loads(v) for k, v in (s.split("=", 1) for s in args.set)}})
            checkpoint.write(tmp, config, storage, args.seed, bias=bias)
            good = compare(args, Path(tmp), f"{args.kind}, {storage}") and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
