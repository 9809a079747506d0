#!/usr/bin/env python3
"""The model at full size: a fabricated checkpoint, the reference on a GPU, `kotaro verify` against it.

    full.py --work DIR [--model int4|bf16] [--device cuda] [--cpu] [--config FILE] [--seed 1] [--size 512x384]

DIR gets model/ (build/fabricate; kept and used again if it is there) and golden/. The reference reads one layer at
a time, so it needs some 7 GB of device memory. --cpu also runs Kotaro on the CPU and compares the first
and the last vision block and decoder layer. --config FILE: other sizes (tests at a small size).
Needs PyTorch. Exit code 1 if a stage disagrees.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import goldens
import make_goldens
import picture

TREE = Path(__file__).resolve().parent.parent.parent
BUILD = os.environ.get("BUILD", "build")


def timed(what, run):
    begin = time.monotonic()
    result = run()
    print(f"== {what}: {time.monotonic() - begin:.1f} s", flush=True)
    return result


def call(*line):
    return subprocess.run([str(x) for x in line], cwd=TREE).returncode


def fabricate(args, folder):
    if (folder / "config.json").exists():
        return 0
    line = [f"{BUILD}/fabricate", "--model", args.model, "--out", folder, "--seed", args.seed]
    return call(*line, *(["--config", args.config] if args.config else []))


def verify(args, golden, folder, device):
    return call(f"{BUILD}/kotaro", "verify", "pipelines/analyze.base.yaml", "--golden", golden, "--model", folder,
                "--device", device)


def ends_only(golden, out):
    """A golden folder with the first and last block and layer, and what is around them."""
    out.mkdir(exist_ok=True)
    head = json.loads((golden / "golden.json").read_text())
    last = {kind: max(int(s["name"].split()[-1]) for s in head["stages"] if s["name"].startswith(kind))
            for kind in ("vision block", "decoder layer")}
    kept = [s for s in head["stages"] if s["name"].rsplit(" ", 1)[0] not in last
            or int(s["name"].split()[-1]) in (0, last[s["name"].rsplit(" ", 1)[0]])]
    for file in [s["file"] for s in kept] + [head["image"]]:
        (out / file).unlink(missing_ok=True)
        os.link(golden / file, out / file)
    (out / "golden.json").write_text(json.dumps({**head, "stages": kept}, indent=1))


def main():
    p = argparse.ArgumentParser(description="Full size: reference and Kotaro, stage by stage.")
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--model", choices=("int4", "bf16"), default="int4")
    p.add_argument("--device", default="cuda", help="of the reference and of Kotaro")
    p.add_argument("--cpu", action="store_true")
    p.add_argument("--config", type=Path)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--size", default="512x384")
    p.add_argument("--question", default="What?")
    args = p.parse_args()
    work = args.work.resolve()
    model, golden = work / "model", work / "golden"
    work.mkdir(parents=True, exist_ok=True)
    if timed("checkpoint", lambda: fabricate(args, model)) != 0:
        sys.exit("no checkpoint")
    width, height = map(int, args.size.split("x"))
    rgb = picture.draw(width, height, args.seed)
    table = timed("reference", lambda: goldens.make(golden, model, rgb, args.question, tokens=1, device=args.device))
    make_goldens.show(table)
    bad = timed(f"Kotaro on {args.device}", lambda: verify(args, golden, model, args.device))
    if args.cpu:
        ends_only(golden, work / "golden-cpu")
        bad |= timed("Kotaro on cpu", lambda: verify(args, work / "golden-cpu", model, "cpu"))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
