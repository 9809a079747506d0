#!/usr/bin/env python3
"""Does Kotaro compute SmolLM2-135M-Instruct as PyTorch does, from the same dequantised weights of its GGUF file?

    smollm2.py --model FILE.gguf [--device cpu] [--kotaro build/kotaro-run]

1. Logits of a text of 60 tokens, all positions: the relative error ||kotaro - f32|| / ||f32||, next to that of a run
   of the reference that rounds to f16 where Kotaro does ("f16", numerics.py) and of one in bf16. Kotaro's must be below
   twice that of "f16": the roundings are the same, their places in each sum are not. The likeliest token must be the
   reference's wherever its lead is more than twice the greatest error of a logit.
2. 64 greedy tokens or more of answers to questions, the reference running over prompt and answer at once: each token is
   the reference's likeliest, or closer to it than that error.

Exit code 1 if one does not hold.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from arrays import NAME, to_numpy
from gguf_store import GgufStore
from model import Text, Weights
from numerics import rounding

TREE = Path(__file__).resolve().parent.parent.parent
TOKENS = 60
TEXT = ("The tower was built by a company that had never made anything taller than a lamp post. Its engineers drew it "
        "on paper in the winter of 1887, and when spring came, the first of 18,038 pieces of iron was bolted to "
        "another. Nobody in the city believed that it would stand for more than twenty years.")
QUESTIONS = ("What is the capital of France?", "Explain why the sky is blue, in a few sentences.")
ANSWER = 80  # tokens at most


class Kotaro:
    def __init__(self, args):
        self.args = args

    def run(self, pipeline, text, only, *more):
        """What the run prints, and the dumped tensors that `only` names, in the order of their batches."""
        with tempfile.TemporaryDirectory() as folder:
            line = [self.args.kotaro, f"pipelines/{pipeline}.yaml", "-p", text, "--model", self.args.model, "--device",
                    self.args.device, "--quiet", *more]
            if only:
                line += ["--dump", folder, "--dump-only", only]
            run = subprocess.run(line, cwd=TREE, capture_output=True, text=True, check=False)
            if run.returncode != 0:
                sys.exit(f"{' '.join(line)}\n{run.stderr}")
            files = sorted(Path(folder).glob("*.npy"))
            return run.stdout, [np.load(f) for f in files]


def read(text, mode, ids):
    r = rounding(mode)
    x = text.embed(r, ids, None)
    for i in range(text.layers):
        x = text.layer(r, i, x)
    return to_numpy(text.head(r, x))


def relative(a, b):
    return float(np.linalg.norm((a - b).astype(np.float64)) / np.linalg.norm(b.astype(np.float64)))


def lead(logits):
    top = np.sort(logits, 1)
    return top[:, -1] - top[:, -2]


def compare_logits(kotaro, text):
    _, (ids,) = kotaro.run("score", TEXT, "prompt.prompt")
    ids = [int(t) for t in ids.reshape(-1)[:TOKENS]]
    assert len(ids) == TOKENS
    _, parts = kotaro.run("score_ids", " ".join(map(str, ids)), "score.logits")
    got, want = np.concatenate(parts), read(text, "f32", ids)
    assert got.shape == want.shape, (got.shape, want.shape)
    errors = {m: relative(read(text, m, ids), want) for m in ("f16", "bf16")}
    mine, worst = relative(got, want), float(np.abs(got - want).max())
    clear = lead(want) > 2 * worst
    same = got.argmax(1) == want.argmax(1)
    print(f"logits of {TOKENS} tokens: relative error {mine:.2e} (f16 run {errors['f16']:.2e}, bf16 run "
          f"{errors['bf16']:.2e}), greatest {worst:.4f}; likeliest token equal at {same.sum()} of {TOKENS}, at "
          f"{(same & clear).sum()} of {clear.sum()} where the lead is above {2 * worst:.3f}")
    return mine < 2 * errors["f16"] and bool(same[clear].all()) and clear.sum() * 2 >= TOKENS, worst


def compare_tokens(kotaro, text, worst):
    total = same = near = 0
    for question in QUESTIONS:
        _, (prompt,) = kotaro.run("smollm2", question, "prompt.prompt", "--greedy", "--max-tokens", "1")
        prompt = [int(t) for t in prompt.reshape(-1) if t >= 0]
        out, _ = kotaro.run("ids", " ".join(map(str, prompt)), None, "--max-tokens", str(ANSWER))
        answer = [int(t) for t in out.split()]
        logits = read(text, "f32", prompt + answer)[len(prompt) - 1:-1]
        below = logits.max(1) - logits[np.arange(len(answer)), answer]
        total += len(answer)
        same += int((below == 0).sum())
        near += int((below <= 2 * worst).sum())
    print(f"greedy tokens: {same} of {total} are the reference's likeliest, {near} within {2 * worst:.3f} of it")
    return near == total and total >= 64


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kotaro", default="build/kotaro-run")
    args = parser.parse_args()
    args.model = str(Path(args.model).resolve())
    store = GgufStore(args.model)
    text = Text(store.config(), Weights(store))
    print(f"{Path(args.model).name} on {args.device}, against {NAME}")
    kotaro = Kotaro(args)
    good, worst = compare_logits(kotaro, text)
    good = compare_tokens(kotaro, text, worst) and good
    print("equal" if good else "DIFFERENT")
    sys.exit(0 if good else 1)


main()
