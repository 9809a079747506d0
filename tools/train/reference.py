"""Runs models/kotaro-tiny in plain PyTorch on one picture and writes every intermediate result.

python3 reference.py PICTURE --model models/kotaro-tiny --out DIR [--dtype float32|bfloat16]
Writes resized.npy (uint8 h,w,3), patches.npy (f32 n,588: channel, row, column), positions.npy, seen.npy (vision output),
rows.npy (resampler output), and per language and item: ids.npy, logits.npy (first step), all texts in answers.json.
"""

import argparse
import json
import math
import os

import numpy as np
import torch
from PIL import Image

import export
import model as m
import questions as q
from prompt import Prompt


def half_even(x):
    return int(round(x))


def target_size(width, height):
    """The size of the one view: about 224 * 224 pixels, sides multiples of 14."""
    ratio = width / height
    h = int(m.SIDE / math.sqrt(ratio))
    w = int(h * ratio)
    return tuple(max(half_even(v / m.PATCH) * m.PATCH, m.PATCH) for v in (w, h))


def fit(width, height, longest=512):
    """First resize: the longer side is at most `longest`."""
    if max(width, height) <= longest:
        return width, height
    scale = longest / max(width, height)
    return max(1, half_even(width * scale)), max(1, half_even(height * scale))


def prepare(image, longest=512):
    image = image.convert("RGB")
    size = fit(*image.size, longest=longest)
    if size != image.size:
        image = image.resize(size, Image.LANCZOS)
    size = target_size(*image.size)
    return image.resize(size, Image.BICUBIC) if size != image.size else image


def patches(pixels):
    """uint8 [h, w, 3] -> f32 [n, 588] and the grid."""
    rows, columns = pixels.shape[0] // m.PATCH, pixels.shape[1] // m.PATCH
    x = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    x = x.reshape(rows, m.PATCH, columns, m.PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
    return x, rows, columns


class Reference:
    def __init__(self, folder, dtype=torch.float32, device="cpu"):
        self.device, self.dtype = device, dtype
        self.net = m.Model({k: v.to(device, dtype) for k, v in export.load(folder).items()})
        self.prompt = Prompt(folder)

    @torch.no_grad()
    def look(self, x, rows, columns):
        """f32 patches [b, n, 588] of one grid -> vision output and resampler rows."""
        table = torch.from_numpy(m.positions(rows, columns)).to(self.device)
        seen = self.net.vision(torch.as_tensor(x).to(self.device, self.dtype), table[None].expand(len(x), -1))
        key = m.key_positions(rows, columns).to(self.device, self.dtype)
        return seen, self.net.rows(seen, key)

    def prefix(self, rows):
        return self.net.prefix(rows, (self.prompt.before, self.prompt.after))

    def ask(self, past, branch, most=64, penalty=1.0):
        answers, first = self.net.generate(past, branch, self.prompt.stop, most, penalty)
        return [self.prompt.decode(a) for a in answers], first


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("picture")
    parser.add_argument("--model", default="models/kotaro-tiny")
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    ref = Reference(args.model, getattr(torch, args.dtype))
    save = lambda name, value: np.save(os.path.join(args.out, name + ".npy"), value)
    pixels = np.asarray(prepare(Image.open(args.picture)))
    x, rows, columns = patches(pixels)
    seen, row = ref.look(x[None], rows, columns)
    save("resized", pixels)
    save("patches", x)
    save("positions", m.positions(rows, columns).astype(np.int32))
    save("seen", seen[0].float().numpy())
    save("rows", row[0].float().numpy())
    past = ref.prefix(row)
    result = {"picture": os.path.basename(args.picture), "grid": [rows, columns], "items": []}
    for kind in range(q.OTHER):
        for language in q.LANGUAGES:
            branch = ref.prompt.item(kind, language)
            (text,), first = ref.ask(past, branch)
            name = "%s.%s" % (q.NAMES[kind], language)
            save(name + ".ids", np.array(ref.prompt.whole(branch), np.int32))
            save(name + ".logits", first[0].float().numpy())
            result["items"].append({"item": q.NAMES[kind], "language": language, "text": text})
    with open(os.path.join(args.out, "answers.json"), "w", encoding="utf-8") as handle:
        json.dump(result, handle, ensure_ascii=False, indent=1)
    print(json.dumps(result, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
