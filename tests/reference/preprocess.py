#!/usr/bin/env python3
"""Preprocessing compared with Pillow and with an independent Python of the model's own rules.

    preprocess.py pixels [--count N] [--seed N] [--device cpu|cuda]    pictures through the product, byte by byte
    preprocess.py dump [--count N] [--device cpu|cuda]      a few through `kotaro run --dump` itself
    preprocess.py views [--count N]             grids, sizes, position ids of many sizes
    preprocess.py decode [FOLDER]               decoding of the files in a folder, or of random JPEG and WebP files
    preprocess.py goldens FILE                  writes the goldens of tests/test_pixels.c and tests/gpu_pixels.c
    preprocess.py buckets FILE                  writes the goldens of position buckets, from PyTorch itself

Needs Pillow 10.1 to 12.x and numpy; `buckets` needs torch. Run it at the top of the tree after
`make build/tests/reference/probe`. Nothing here is imported from the program or from other scripts.

The reference of the model pins Pillow 10.1, which resizes horizontally first. From 12.2 on, pictures more than 100 times
as tall as wide that get shorter go vertically first (Image.resize does it in Python); 13.0 does it for many more shapes
and is refused here. With 12.2 such resizes are done as two calls in the old order, and counted.
"""
import argparse
import hashlib
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PROBE = os.environ.get("PROBE", "build/tests/reference/probe")
SIDE, PATCH, TABLE = 448, 14, 70


# ---- the rules of the model, in double; Python's round is half to even, int truncates

def snapped(length, step):
    return max(round(length / step) * step, step)


def fitted(size, enlarge):
    width, height = size
    if width * height > SIDE * SIDE or enlarge:
        ratio = width / height
        height = int(SIDE / math.sqrt(ratio))
        width = int(height * ratio)
    return snapped(width, PATCH), snapped(height, PATCH)


def grid_of(size, most):
    """(columns, rows) of close-ups, or None."""
    width, height = size
    wanted = min(math.ceil(width * height / (SIDE * SIDE)), most)
    if wanted <= 1:
        return None
    best, least = (1, 1), math.inf
    for n in (wanted - 1, wanted, wanted + 1):
        if n == 1 or n > most:
            continue
        for columns in range(1, n + 1):
            if n % columns == 0:
                off = abs(math.log(width / height) - math.log(columns / (n // columns)))
                if off < least:
                    best, least = (columns, n // columns), off
    return best


def layout(size, most):
    """Grid or None, size of the overview, size of the picture that tiles are cut from or None."""
    grid = grid_of(size, most)
    if grid is None:
        return None, fitted(size, True), None
    columns, rows = grid
    tile = fitted((snapped(size[0], columns) / columns, snapped(size[1], rows) / rows), True)
    return grid, fitted(size, False), (tile[0] * columns, tile[1] * rows)


def spaced(start, step, n):
    """torch.arange in f32: blocks of 16 start every 8th value anew and step in double; the rest is computed directly."""
    i = np.arange(n)
    blocked = np.float32(start + step * (i - i % 8)).astype(np.float64) + (i % 8) * step
    return np.where(i < n // 16 * 16, blocked, start + step * i).astype(np.float32)


def buckets(n):
    fraction = spaced(0.0, float(np.float32(1) / np.float32(n)), n)
    edges = spaced(1 / TABLE, 1 / TABLE, TABLE - 1)
    return np.searchsorted(edges, fraction, side="right").astype(np.int32)


def positions(width, height):
    return (buckets(height // PATCH)[:, None] * TABLE + buckets(width // PATCH)[None, :]).reshape(-1)


def first_fit(size, longest):
    """Kotaro's own first resize: shrinks to the longer side, nothing is enlarged."""
    width, height = size
    longer = max(size)
    if longest == 0 or longer <= longest:
        return size
    return max(1, round(width * longest / longer)), max(1, round(height * longest / longer))


# ---- what Pillow makes of a picture

def sha(*arrays):
    h = hashlib.sha256()
    for a in arrays:
        h.update(np.ascontiguousarray(a).tobytes())
    return h.hexdigest()


def cells_of(view):
    """[height, width, 3] bytes to patches [rows * columns, 3, 14, 14] in f16."""
    level = ((np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)).astype(np.float16)
    a = level[np.asarray(view)]
    height, width, _ = a.shape
    a = a.reshape(height // PATCH, PATCH, width // PATCH, PATCH, 3)
    return a.transpose(0, 2, 4, 1, 3).reshape(-1, 3 * PATCH * PATCH)


TURNED = 0  # resizes that this Pillow would have done the other way round


def resized(im, size, how):
    import PIL
    from PIL import Image
    global TURNED
    resample = getattr(Image.Resampling, how.upper())
    version = tuple(int(v) for v in PIL.__version__.split(".")[:2])
    if version >= (13, 0):
        sys.exit(f"Pillow {PIL.__version__} resizes in another order; use 10.1 to 12.x")
    if version >= (12, 2) and im.height > 100 * im.width and size[1] < im.height:
        TURNED += 1
        im = im.resize((size[0], im.height), resample)
    return im.resize(size, resample)


def expected(picture, longest, how, most):
    """The line that probe writes for an RGB picture, and the targets."""
    photo = picture
    small = first_fit(picture.size, longest)
    if small != picture.size:
        photo = resized(picture, small, how)
    grid, size, refined = layout(photo.size, most)
    targets = [resized(photo, size, "bicubic")]
    views = [targets[0]]
    if grid:
        big = resized(photo, refined, "bicubic")
        targets.append(big)
        wide, high = refined[0] // grid[0], refined[1] // grid[1]
        for row in range(grid[1]):
            for column in range(grid[0]):
                views.append(big.crop((column * wide, row * high, (column + 1) * wide, (row + 1) * high)))
    cells = [cells_of(v) for v in views]
    sizes = " ".join(f"{t.height} {t.width}" for t in targets)
    pixels = [np.asarray(t) for t in targets]
    return (f"{len(views)} {sum(len(c) for c in cells)} {sizes} {sha(np.asarray(photo))} {sha(*pixels)} {sha(*cells)}",
            pixels)


# ---- pictures

def noise_at(width, height, seed):
    i = np.arange(width * height * 3, dtype=np.uint64)
    x = (i * 2654435761 + seed * 668265263 + width * 40503 + height) & 0xffffffff
    x ^= x >> np.uint64(15)
    x = (x * 2246822519) & 0xffffffff
    x ^= x >> np.uint64(13)
    return (x & 0xff).astype(np.uint8).reshape(height, width, 3)


def pattern(kind, seed, width, height):
    """The same bytes as probe_write in tests/probe.c."""
    if kind == "noise":
        return noise_at(width, height, seed)
    if kind == "edges":
        small = noise_at((width + 2) // 3, (height + 2) // 3, seed)
        return (small.repeat(3, 0).repeat(3, 1)[:height, :width] >> 7) * np.uint8(255)
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    at = (x * (3 + c) + y * (5 - c) + seed * 37) // 4 % 512
    return np.where(at > 255, 511 - at, at).astype(np.uint8)


AWKWARD = [(512, 384), (512, 512), (640, 480), (1024, 768), (1280, 720), (1344, 1344), (1920, 1080), (1080, 1920),
           (4032, 3024), (3024, 4032), (1, 2000), (2000, 1), (1, 1), (2, 1), (1, 3), (300, 2000), (30, 1500), (1500, 30),
           (448, 448), (449, 448), (448, 449), (447, 449), (224, 224), (513, 512), (729, 492), (350, 700), (700, 350),
           (686, 343), (770, 256), (2048, 2048), (1333, 999), (16, 2200), (2200, 16), (897, 448), (7, 7), (13, 27)]
# Sizes whose views have 25, 49, 50 and 55 patches an axis, where the position buckets are not floor(70 i / n).
EXCEPTIONS = (25, 49, 50, 55, 58, 77, 98)


def exceptional_sizes(rng, n):
    """Random sizes that have such an axis, some of each."""
    found = {k: [] for k in EXCEPTIONS}
    for _ in range(200000):
        size = (rng.randint(40, 2200), rng.randint(40, 2200))
        if rng.random() < 0.5:
            size = (size[0], max(1, size[0] // rng.randint(2, 12)))
        if rng.random() < 0.5:
            size = size[::-1]
        grid, overview, big = layout(size, 9)
        axes = [s // PATCH for s in overview] + ([big[0] // grid[0] // PATCH, big[1] // grid[1] // PATCH] if grid else [])
        for k in EXCEPTIONS:
            if k in axes and len(found[k]) < n:
                found[k].append(size)
        if all(len(v) >= n for v in found.values()):
            break
    return [s for k in EXCEPTIONS for s in found[k]]


def random_size(rng):
    shape = rng.random()
    if shape < 0.35:
        return rng.randint(1, 2200), rng.randint(1, 2200)
    if shape < 0.7:
        return tuple(int(math.exp(rng.uniform(0, math.log(2200)))) for _ in range(2))
    if shape < 0.85:
        a, b = rng.randint(1, 40), rng.randint(500, 2200)
        return (a, b) if rng.random() < 0.5 else (b, a)
    return 14 * rng.randint(1, 150) + rng.choice([-1, 0, 1, 7]), 14 * rng.randint(1, 150) + rng.choice([-1, 0, 1, 7])


def content(rng, width, height):
    """An RGB array: patterns, uniform colours, ramps with noise, or random lines and boxes."""
    kind = rng.choice(["noise", "edges", "waves", "flat", "grain", "boxes"])
    seed = rng.getrandbits(31)
    if kind in ("noise", "edges", "waves"):
        return pattern(kind, seed, width, height)
    if kind == "flat":
        return np.full((height, width, 3), [rng.randrange(256) for _ in range(3)], np.uint8)
    g = np.random.default_rng(seed)
    if kind == "grain":
        base = np.linspace(0, 255, width)[None, :, None] * g.random((1, 1, 3)) + np.linspace(0, 80, height)[:, None, None]
        return np.clip(base + g.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    a = np.full((height, width, 3), 230, np.uint8)
    for _ in range(30):
        x, y = g.integers(0, width), g.integers(0, height)
        a[y:y + g.integers(1, 1 + max(1, height // 3)), x:x + g.integers(1, 1 + max(1, width // 3))] = g.integers(0, 256, 3)
    return a


def save(rng, path, size):
    """A picture file of a random mode. Returns the RGB picture that the reference would see, and the mode."""
    from PIL import Image
    rgb = Image.fromarray(content(rng, *size))
    mode = rng.choice(["RGB", "RGB", "RGB", "RGB", "L", "LA", "P", "RGBA", "1", "I;16", "CMYK"])
    if mode == "I;16":
        deep = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
        deep ^= np.uint16(rng.getrandbits(8))
        im = Image.fromarray(deep)
        im.save(path.with_suffix(".png"), compress_level=1)
        # Kotaro keeps the high byte of 16-bit grey, which the reference clips to white: docs/model.md says so.
        return path.with_suffix(".png"), Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB"), mode
    if mode == "CMYK":  # PNG has no such mode: a JPEG, decoded by both
        rgb.convert("CMYK").save(path.with_suffix(".jpg"), quality=95)
        im = Image.open(path.with_suffix(".jpg"))
        return path.with_suffix(".jpg"), im.convert("RGB"), mode
    im = rgb.convert(mode) if mode != "RGB" else rgb
    if mode in ("LA", "RGBA"):
        im.putalpha(Image.fromarray(content(rng, *size)[:, :, 0]))
    name = path.with_suffix(".png")
    im.save(name, compress_level=1)
    return name, Image.open(name).convert("RGB"), mode


# ---- comparing

class Probe:
    """A running probe that answers line by line."""

    def __init__(self, *args):
        home = os.environ.get("KOTARO_HOME", os.getcwd())
        self.process = subprocess.Popen([PROBE, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "KOTARO_HOME": home})

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self):
        return self.process.stdout.readline().rstrip("\n")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def make_folder(scratch):
    folder = Path(scratch) / "model"
    subprocess.run([PROBE, "folder", str(folder), "tests/data/small_tokenizer.json", "512"], check=True)
    return folder


SETTINGS = [(0, "lanczos", 9), (512, "lanczos", 9), (512, "bicubic", 9), (512, "bilinear", 9), (512, "lanczos", 1),
            (1000, "lanczos", 4), (896, "bilinear", 9)]


def compare_pixels(count, seed, device):
    import PIL
    from PIL import Image
    Image.MAX_IMAGE_PIXELS = None
    rng = random.Random(seed)
    sizes = AWKWARD + exceptional_sizes(rng, 4)
    equal, wrong, refused, modes = 0, 0, 0, {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(scratch)
        probes = {s: Probe("pixels", folder, device, *s) for s in SETTINGS}
        for i in range(count):
            fixed = i < len(sizes) * 4
            size = sizes[i // 4] if fixed else random_size(rng)
            setting = SETTINGS[i % 4] if fixed else rng.choice([SETTINGS[0]] * 3 + SETTINGS[1:])
            path, rgb, mode = save(rng, Path(scratch) / "picture", size)
            want, pixels = expected(rgb, *setting)
            got = probes[setting].ask(str(path))
            modes[mode] = modes.get(mode, 0) + 1
            if got == want:
                equal += 1
            elif got.startswith("error") and "taps" not in got and ("coefficients" in got or "at most" in got):
                refused += 1
                print(f"refused: {size} {setting}: {got}")
            else:
                wrong += 1
                print(f"DIFFERENT: {size} {mode} {setting}\n  got  {got}\n  want {want}")
                dump = Path(scratch) / "dump"
                if probes[setting].ask(f"{path}\t{dump}") == got and dump.exists():
                    a = np.frombuffer(dump.read_bytes(), np.uint8)
                    b = np.concatenate([p.reshape(-1) for p in pixels])
                    if a.size == b.size:
                        off = np.abs(a.astype(int) - b)
                        print(f"  {np.count_nonzero(off)} of {off.size} bytes differ, at most by {off.max()}")
            path.unlink()
            if (i + 1) % 500 == 0:
                print(f"# {i + 1} pairs: {equal} equal, {wrong} different, {refused} refused", flush=True)
        for p in probes.values():
            p.close()
    print(f"Pillow {PIL.__version__}, {device}: {equal} of {count} equal, {wrong} different, {refused} refused; seed {seed}; "
          f"modes {modes}; {TURNED} resizes turned")
    return wrong == 0


def compare_dumps(count, seed, device):
    """The program itself: kotaro run ... --dump, against Pillow. A process for each picture, so few of them."""
    rng = random.Random(seed)
    equal = 0
    program = os.environ.get("KOTARO", "build/kotaro")
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(scratch)
        for i in range(count):
            setting = SETTINGS[i % len(SETTINGS)]
            path, rgb, mode = save(rng, Path(scratch) / "picture", AWKWARD[i] if i < 16 else random_size(rng))
            want, pixels = expected(rgb, *setting)
            out = Path(scratch) / f"dump{i}"
            names = ("vision.photo", "vision.pixels", "vision.cells")
            command = [program, "run", "pipelines/full.yaml", str(path), "--model", str(folder), "--device", device,
                       "--max-tokens", "1", "--dump", str(out), "--set", f"image.longest={setting[0]}",
                       "--set", f"image.filter={setting[1]}", "--set", f"image.slices={setting[2]}"]
            for name in names:
                command += ["--dump-only", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode != 0:
                print(f"FAILED: {rgb.size} {setting}: {done.stdout[-300:]}")
                continue
            made = [np.load(out / f"{name}.npy") for name in names]
            # Floats are dumped as f32; the patches are f16, so nothing is lost.
            got = [sha(made[0]), sha(made[1]), sha(made[2].astype(np.float16))]
            equal += got == want.split()[-3:]
            if got != want.split()[-3:]:
                print(f"DIFFERENT: {rgb.size} {mode} {setting}")
            path.unlink()
    print(f"dumps, {device}: {equal} of {count} equal")
    return equal == count


def views_line(size, most):
    grid, overview, big = layout(size, most)
    ids = [positions(*overview)]
    tile = (0, 0)
    if grid:
        tile = (big[0] // grid[0], big[1] // grid[1])
        ids += [positions(*tile)] * (grid[0] * grid[1])
    else:
        grid = (0, 0)
    ids = np.concatenate(ids).astype(np.int32)
    return f"{overview[1]} {overview[0]} {grid[0]} {grid[1]} {tile[1]} {tile[0]} {1 + grid[0] * grid[1]} {len(ids)} {sha(ids)}"


def compare_views(count):
    rng = random.Random(3)
    equal = wrong = refused = 0
    for most in (9, 1, 4):
        sizes = AWKWARD + exceptional_sizes(rng, 3) if most == 9 else []
        while len(sizes) < (count * 8 // 10 if most == 9 else count // 10):
            sizes.append(random_size(rng) if rng.random() < 0.8 else tuple(rng.randint(1, 16384) for _ in range(2)))
        text = "".join(f"{w} {h}\n" for w, h in sizes)
        out = subprocess.run([PROBE, "views", str(SIDE), str(PATCH), str(most), str(TABLE)], input=text, text=True,
                             stdout=subprocess.PIPE, check=True).stdout.splitlines()
        assert len(out) == len(sizes)
        for size, got in zip(sizes, out):
            want = views_line(size, most)
            if got == want:
                equal += 1
            elif got.startswith("error"):
                refused += 1
                print(f"refused: {size}: {got}")
            else:
                wrong += 1
                print(f"DIFFERENT: {size}, {most} slices\n  got  {got}\n  want {want}")
    lines = subprocess.run([PROBE, "buckets", str(TABLE), "1024"], text=True, stdout=subprocess.PIPE, check=True)
    same = sum(line == " ".join(map(str, buckets(n))) for n, line in enumerate(lines.stdout.splitlines(), 1))
    print(f"views: {equal} sizes equal, {wrong} different, {refused} refused; buckets: {same} of 1024 axes equal")
    return wrong == 0 and same == 1024


def random_files(scratch, count, seed):
    """JPEG files of all samplings, qualities and kinds, and WebP files, lossy and not."""
    from PIL import Image, ImageFile
    rng = random.Random(seed)
    ImageFile.MAXBLOCK = 1 << 24  # what a JPEG is encoded into
    for i in range(count):
        size = (rng.randint(1, 700), rng.randint(1, 700))
        im = Image.fromarray(content(rng, *size)).convert(rng.choice(["RGB", "RGB", "RGB", "L", "CMYK"]))
        path = Path(scratch) / f"{i}"
        if im.mode == "RGB" and rng.random() < 0.2:
            im.save(path, "WEBP", quality=rng.randint(1, 100), lossless=rng.random() < 0.3)
        else:
            options = {"subsampling": rng.choice([0, 1, 2])} if im.mode == "RGB" else {}
            im.save(path, "JPEG", quality=rng.randint(1, 100), progressive=rng.random() < 0.3, optimize=rng.random() < 0.3,
                    restart_marker_blocks=rng.choice([0, 0, 1, 7]), **options)
        yield path


def compare_decoding(folder, count, seed):
    from PIL import Image, features
    probe = Probe("decode")
    kinds = {}
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(Path(folder).iterdir()) if folder else random_files(scratch, count, seed):
            try:
                im = Image.open(path)
                rgb = im.convert("RGB")
            except OSError:
                continue
            want = f"{rgb.width} {rgb.height} {im.getexif().get(0x0112, 1)} {sha(np.asarray(rgb))}"
            got = probe.ask(str(path))
            equal, wrong = kinds.get(f"{im.format} {im.mode}", (0, 0))
            kinds[f"{im.format} {im.mode}"] = (equal + (got == want), wrong + (got != want))
            if got != want:
                print(f"different: {path.name}: {im.format} {im.mode} {im.size}: {got[:90]}")
    probe.close()
    for kind, (equal, wrong) in sorted(kinds.items()):
        print(f"{kind}: {equal} equal, {wrong} different")
    turbo = features.version_feature("libjpeg_turbo")
    print(f"decoding: {sum(e for e, _ in kinds.values())} equal, {sum(w for _, w in kinds.values())} different; Pillow's "
          f"libjpeg-turbo is {turbo}, libwebp {features.version_module('webp')}")
    return not any(w for _, w in kinds.values())


def write_goldens(out):
    """LONGEST FILTER SLICES KIND SEED WIDTH HEIGHT: views patches sizes, 16 digits of the SHA-256 of pixels and cells."""
    from PIL import Image
    rng = random.Random(8)
    sizes = AWKWARD + exceptional_sizes(rng, 3)
    big = lambda s: s[0] * s[1] > 3000000
    cases = []
    for i, size in enumerate(sizes):
        kinds = ("noise", "edges", "waves")
        chosen = [SETTINGS[0], SETTINGS[1]] if big(size) else [SETTINGS[0], SETTINGS[1 + i % 3]]
        cases += [(s, kinds[(i + k) % 3], i, size) for k, s in enumerate(chosen)]
    while len(cases) < 240:
        size = random_size(rng)
        if size[0] * size[1] < 500000:
            cases.append((rng.choice(SETTINGS), rng.choice(("noise", "edges", "waves")), rng.randrange(10 ** 6), size))
    cases.sort(key=lambda c: SETTINGS.index(c[0]))
    lines = []
    for (longest, how, most), kind, seed, (width, height) in cases:
        line, _ = expected(Image.fromarray(pattern(kind, seed, width, height)), longest, how, most)
        *numbers, photo, pixels, cells = line.split()
        lines.append(f"{longest} {how} {most} {kind} {seed} {width} {height} {numbers[0]} {numbers[1]} "
                     f"{photo[:16]} {pixels[:16]} {cells[:16]}")
    Path(out).write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} goldens")


def write_buckets(out):
    """What PyTorch makes of every axis: n, then i:bucket where the bucket is not floor(70 i / n)."""
    import torch
    lines, same = [], 0
    edges = torch.arange(1 / TABLE, 1.0, 1 / TABLE)
    for n in range(1, 1025):
        fraction = torch.arange(0, 1 - 1e-6, 1 / torch.tensor(n))
        got = torch.bucketize(fraction, edges, right=True).numpy()
        assert len(got) == n, (n, len(got))
        same += np.array_equal(got, buckets(n))
        odd = [f"{i}:{b}" for i, b in enumerate(got) if b != 70 * i // n]
        if odd:
            lines.append(f"{n} {' '.join(odd)}")
    Path(out).write_text("\n".join(lines) + "\n")
    print(f"torch {torch.__version__}: {same} of 1024 axes equal the formula here; {len(lines)} have exceptions")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pixels", "dump", "views", "decode", "goldens", "buckets"])
    parser.add_argument("path", nargs="?")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args()
    run = {"pixels": lambda: compare_pixels(a.count or 2000, a.seed, a.device),
           "dump": lambda: compare_dumps(a.count or 20, a.seed, a.device),
           "views": lambda: compare_views(a.count or 50000),
           "decode": lambda: compare_decoding(a.path, a.count or 500, a.seed), "goldens": lambda: write_goldens(a.path) or True,
           "buckets": lambda: write_buckets(a.path) or True}
    sys.exit(0 if run[a.what]() else 1)


if __name__ == "__main__":
    main()
