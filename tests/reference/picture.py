"""From a picture to patches, as the published image processor does it: sizes, Pillow's bicubic, cutting.

numpy only. Sizes are computed in double with Python's rounding; see docs/model.md.
"""
import math
import struct
import zlib

import numpy as np

BITS = 22  # of the resize coefficients' fraction


def cubic(t):
    t = abs(t)
    if t < 1:
        return (1.5 * t - 2.5) * t * t + 1
    return -0.5 * (((t - 5) * t + 8) * t - 4) if t < 2 else 0.0


def taps(old, new):
    """For each new sample: first old one, and the fixed-point weights."""
    scale = old / new
    wide = max(scale, 1.0)
    for i in range(new):
        centre = (i + 0.5) * scale
        low = max(0, int(centre - 2 * wide + 0.5))
        high = min(old, int(centre + 2 * wide + 0.5))
        w = [cubic((x - centre + 0.5) * (1 / wide)) for x in range(low, high)]
        total = sum(w)
        yield low, np.array([int(v / total * (1 << BITS) + (-0.5 if v < 0 else 0.5)) for v in w], np.int64)


def resize_across(a, new):
    if a.shape[1] == new:
        return a
    out = np.empty((a.shape[0], new, 3), np.uint8)
    for i, (low, k) in enumerate(taps(a.shape[1], new)):
        s = (a[:, low:low + len(k)].astype(np.int64) * k[None, :, None]).sum(1)
        out[:, i] = np.clip((s + (1 << (BITS - 1))) >> BITS, 0, 255)
    return out


def resize(a, width, height):
    """u8 [h, w, 3]; across first."""
    return resize_across(resize_across(a, width).transpose(1, 0, 2), height).transpose(1, 0, 2)


class Slicer:
    def __init__(self, side, patch, most):
        self.side, self.patch, self.most = side, patch, most

    def fit(self, w, h, enlarge):
        if w * h > self.side ** 2 or enlarge:
            r = w / h
            h = int(self.side / math.sqrt(r))
            w = int(h * r)
        return tuple(max(round(x / self.patch) * self.patch, self.patch) for x in (w, h))

    def grid(self, w, h):
        n = min(math.ceil(w * h / self.side ** 2), self.most)
        if n <= 1:
            return None
        best, least = (1, 1), math.inf
        for count in (n - 1, n, n + 1):
            if count == 1 or count > self.most:
                continue
            for cols in range(1, count + 1):
                if count % cols == 0:
                    off = abs(math.log(w / h) - math.log(cols / (count // cols)))
                    if off < least:
                        best, least = (cols, count // cols), off
        return best

    def refined(self, w, h, cols, rows):
        w, h = max(round(w / cols) * cols, cols), max(round(h / rows) * rows, rows)
        tw, th = self.fit(w / cols, h / rows, True)
        return tw * cols, th * rows

    def cut(self, rgb):
        """(targets: the resized pictures, views: cut from them, grid (cols, rows) or None)"""
        h, w = rgb.shape[:2]
        grid = self.grid(w, h)
        first = resize(rgb, *self.fit(w, h, grid is None))
        if grid is None:
            return [first], [first], None
        cols, rows = grid
        big = resize(rgb, *self.refined(w, h, cols, rows))
        th, tw = big.shape[0] // rows, big.shape[1] // cols
        tiles = [big[y * th:(y + 1) * th, x * tw:(x + 1) * tw] for y in range(rows) for x in range(cols)]
        return [first, big], [first] + tiles, grid


def patches(view, p, mean, std):
    """f32 [patches, 3 * p * p]: (channel, row, column) inside a patch; mean and std of each channel, on 0 .. 1."""
    rows, cols = view.shape[0] // p, view.shape[1] // p
    cells = view.reshape(rows, p, cols, p, 3).transpose(0, 2, 4, 1, 3)
    mean, std = (np.array(x, np.float32).reshape(3, 1, 1) for x in (mean, std))
    return ((cells / np.float32(255) - mean) / std).astype(np.float32).reshape(rows * cols, 3 * p * p)


class Seen:
    """What the model is given of one picture; settings: preprocessor_config.json."""

    def __init__(self, rgb, config, settings=None):
        patch = config["vision_config"]["patch_size"]
        slices = config.get("slice_config", {})
        slicer = Slicer(slices.get("scale_resolution", config["image_size"]), patch, slices.get("max_slice_nums", 9))
        targets, views, self.grid = slicer.cut(rgb)
        self.targets = np.concatenate([t.reshape(-1, 3) for t in targets])  # u8 [pixels, 3]
        mean, std = ((settings or {}).get(k, [0.5] * 3) for k in ("norm_mean", "norm_std"))
        self.pixels = np.concatenate([patches(v, patch, mean, std) for v in views])
        self.sizes = [(v.shape[0] // patch, v.shape[1] // patch) for v in views]


def draw(width, height, seed):
    """A picture with edges, gradients and grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([127 + 90 * np.sin(x / (5 + 9 * c) + seed) * np.cos(y / (8 + 5 * c)) for c in range(3)], 2)
    for _ in range(6):
        x0, y0 = rng.integers(0, width), rng.integers(0, height)
        rgb[y0:y0 + height // 3 + 1, x0:x0 + width // 4 + 1] = rng.integers(0, 256, 3)
    return np.clip(rgb + rng.normal(0, 12, rgb.shape), 0, 255).astype(np.uint8)


def write_png(path, rgb):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    h, w = rgb.shape[:2]
    lines = np.concatenate([np.zeros((h, 1), np.uint8), rgb.reshape(h, -1)], 1).tobytes()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b""))
