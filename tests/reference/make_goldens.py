#!/usr/bin/env python3
"""Writes a golden folder for `kotaro verify`, and prints the reference's own errors by stage.

    make_goldens.py --committed               tests/golden/bf16 and tests/golden/nf4, with their checkpoints
    make_goldens.py --model DIR --out DIR [--size WxH] [--seed N] [--question TEXT] [--tokens N] [--device cuda]

--model is a checkpoint of checkpoint.py (its tokenizer has one token a byte).
"""
import argparse
from pathlib import Path

import checkpoint
import goldens
import picture

TREE = Path(__file__).resolve().parent.parent


def show(table):
    print(f"{'stage':20} {'as CPU':>9} {'as GPU':>9} {'bf16':>9}   the reference's relative error against f32")
    for name, cpu, gpu, bf16 in table:
        print(f"{name:20} {cpu:9.2e} {gpu:9.2e} {bf16:9.2e}")


def committed():
    for storage, size, seed in (("bf16", (61, 47), 3), ("nf4", (77, 34), 8)):
        folder = TREE / "golden" / storage
        checkpoint.write(folder, checkpoint.small(), storage, seed)
        print(f"== {storage}")
        show(goldens.make(folder, folder, picture.draw(*size, seed), "What?", rows=16))


def main():
    p = argparse.ArgumentParser(description="Writes a golden folder.")
    p.add_argument("--committed", action="store_true")
    p.add_argument("--model", type=Path)
    p.add_argument("--out", type=Path)
    p.add_argument("--size", default="61x47")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--question", default="What?")
    p.add_argument("--tokens", type=int, default=3)
    p.add_argument("--device", default="cpu")
    args = p.parse_args()
    if args.committed:
        return committed()
    if not args.model or not args.out:
        p.error("--model and --out, or --committed")
    width, height = map(int, args.size.split("x"))
    show(goldens.make(args.out, args.model, picture.draw(width, height, args.seed), args.question, args.tokens,
                      device=args.device))


if __name__ == "__main__":
    main()
