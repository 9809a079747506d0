"""Pictures of scenes, computed point by point: one formula, for NumPy (any size) and for PyTorch (patches).

The formula (p: point in shorter sides, f: in fractions of the picture):
    ground colour from kind, colours, pattern and waves; every drawn thing over it, bilinear from the level of the
    sprite that fits its size, bent, recoloured; times the light's slope; plus noise.
The two versions agree to rounding (selftest.py); noise is drawn anew by each.
"""

import numpy as np

import scenes

LEVEL_SIDE = (64, 32, 16)
LEVEL_START = (0, 4096, 5120)
TAU = 6.283185307


def levels(s, short_pixels):
    """int [n, M]: which level of the sprite to read when the shorter side has that many pixels."""
    # a sprite of `size` shorter sides has size * short_pixels pixels
    size = 1 / np.sqrt(np.abs(np.linalg.det(s["matrix"])))
    lod = np.log2(64 / (size * short_pixels)) + s["soft"] + 0.3
    return np.clip(np.floor(lod), 0, 2).astype(np.int32)


# ---- NumPy ---------------------------------------------------------------------------------------------------


def ground_numpy(s, fx, fy, px, py):
    kind, pat, waves = s["ground"], s["pattern"], s["waves"]
    c1, c2 = s["colour"][0], s["colour"][1]
    a = pat[0] * px + pat[1] * py
    b = -pat[1] * px + pat[0] * py
    tone = np.ones_like(fx)
    if kind == scenes.FADE:
        mix = fy
    elif kind == scenes.STRIPES:
        mix = np.clip(np.sin(TAU * (pat[2] * a + pat[3])) * 8 + 0.5, 0, 1)
    elif kind == scenes.CHECKS:
        wave = np.sin(TAU * (pat[2] * a + pat[3])) * np.sin(TAU * (pat[2] * b + pat[4]))
        mix = np.clip(wave * 12 + 0.5, 0, 1)
    elif kind == scenes.DOTS:
        u = (pat[2] * a + pat[3]) % 1 - 0.5
        v = (pat[2] * b + pat[4]) % 1 - 0.5
        mix = np.clip((pat[5] - np.sqrt(u * u + v * v)) * 10 + 0.5, 0, 1)
    else:
        total = sum(np.sin(w[0] * px + w[1] * py + w[2]) for w in waves)
        mix = np.clip(0.5 + 0.45 * total, 0, 1) if kind == scenes.BLURRED else np.zeros_like(fx)
        if kind == scenes.GRAINY:
            tone = 1 + pat[6] * total * 0.6
    return (c1 + (c2 - c1) * mix[..., None]) * tone[..., None]


def sample_numpy(pixels, sprite, level, u, v):
    side, start = LEVEL_SIDE[level], LEVEL_START[level]
    x = np.clip((u + 0.5) * side - 0.5, 0, side - 1)
    y = np.clip((v + 0.5) * side - 0.5, 0, side - 1)
    x0, y0 = np.minimum(x.astype(np.int32), side - 2), np.minimum(y.astype(np.int32), side - 2)
    tx, ty = (x - x0)[..., None], (y - y0)[..., None]
    table = pixels[sprite, start : start + side * side].view(np.uint8).reshape(side * side, 4).astype(np.float32) / 255
    at = y0 * side + x0
    top = table[at] * (1 - tx) + table[at + 1] * tx
    low = table[at + side] * (1 - tx) + table[at + side + 1] * tx
    return top * (1 - ty) + low * ty


def numpy_picture(s, pixels, width, height, rng=None):
    """One scene (arrays without the batch axis) as uint8 [height, width, 3]."""
    fx, fy = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    fx, fy = fx.astype(np.float32), fy.astype(np.float32)
    short = min(width, height)
    ext = np.array([width / short, height / short], np.float32)
    px, py = fx * ext[0], fy * ext[1]
    out = ground_numpy(s, fx, fy, px, py)
    level = levels({k: s[k][None] for k in ("matrix", "soft")}, short)[0]
    for m in range(scenes.M):
        if s["sprite"][m] < 0:
            continue
        dx, dy = px - s["centre"][m, 0] * ext[0], py - s["centre"][m, 1] * ext[1]
        a = s["matrix"][m]
        u, v = a[0, 0] * dx + a[0, 1] * dy, a[1, 0] * dx + a[1, 1] * dy
        bend = s["bend"][m]
        u = u + bend[0] * np.sin(bend[1] * v + bend[2])
        inside = (np.abs(u) < 0.5) & (np.abs(v) < 0.5)
        rgba = sample_numpy(pixels, s["sprite"][m], level[m], u[inside], v[inside])
        alpha = rgba[:, 3:]
        colour = s["recolour"][m]
        rgb = np.clip(rgba[:, :3] @ colour[:, :3].T + alpha * colour[:, 3], 0, alpha)
        out[inside] = rgb + (1 - alpha) * out[inside]
    out *= light(s["light"], fx, fy, np)[..., None]
    if rng is not None:
        out = out + s["noise"][0] * rng.standard_normal(out.shape)
        blocks = rng.standard_normal(((height + 7) // 8, (width + 7) // 8, 1)).repeat(8, 0).repeat(8, 1)
        out = out + s["noise"][1] * blocks[:height, :width]
    return np.clip(np.round(out * 255), 0, 255).astype(np.uint8)


def light(slope, fx, fy, lib):
    """1 at the side that the light comes from, less on the other side."""
    x, y = slope[..., 0], slope[..., 1]
    dark = lib.where(x > 0, x * fx, -x * (1 - fx)) + lib.where(y > 0, y * fy, -y * (1 - fy))
    return slope[..., 2] * (1 - dark)


# ---- PyTorch -------------------------------------------------------------------------------------------------


def torch_inputs(s, device, short=None):
    """The drawing arrays on the device; short: pixels of the shorter side of each scene (default 14 a patch)."""
    import torch

    put = {k: s[k] for k in scenes.DRAWING}
    short_pixels = s["grid"].min(1)[:, None] * 14 if short is None else short
    level = levels(s, short_pixels)
    put["side"] = np.array(LEVEL_SIDE, np.int32)[level]
    put["start"] = np.array(LEVEL_START, np.int32)[level]
    return {k: torch.from_numpy(np.ascontiguousarray(v)).to(device, non_blocking=True) for k, v in put.items()}


def torch_patches(d, pixels, n_patches):
    """[n, n_patches, 588] in -1 .. 1: the scenes cut into patches, channel-major inside a patch."""
    import torch

    dev = d["grid"].device
    n = d["grid"].shape[0]
    wide = d["grid"][:, 1].view(n, 1, 1)
    high = d["grid"][:, 0].view(n, 1, 1)
    patch = torch.arange(n_patches, device=dev).view(1, -1, 1)
    dot = torch.arange(196, device=dev).view(1, 1, -1)
    fx = ((patch % wide) * 14 + dot % 14 + 0.5) / (wide * 14)
    fy = ((patch // wide) * 14 + dot // 14 + 0.5) / (high * 14)
    one = lambda name, *at: d[name][(slice(None),) + at].view(n, 1, 1)
    ex, ey = one("extent", 0), one("extent", 1)
    px, py = fx * ex, fy * ey
    kind = one("ground")
    pat = [one("pattern", i) for i in range(8)]
    a = pat[0] * px + pat[1] * py
    b = pat[0] * py - pat[1] * px
    sa, sb = torch.sin(TAU * (pat[2] * a + pat[3])), torch.sin(TAU * (pat[2] * b + pat[4]))
    u = torch.remainder(pat[2] * a + pat[3], 1.0) - 0.5
    v = torch.remainder(pat[2] * b + pat[4], 1.0) - 0.5
    total = 0
    for i in range(6):
        total = total + torch.sin(one("waves", i, 0) * px + one("waves", i, 1) * py + one("waves", i, 2))
    mix = torch.where(kind == scenes.FADE, fy, torch.zeros_like(fx))
    mix = torch.where(kind == scenes.STRIPES, (sa * 8 + 0.5).clamp(0, 1), mix)
    mix = torch.where(kind == scenes.CHECKS, (sa * sb * 12 + 0.5).clamp(0, 1), mix)
    mix = torch.where(kind == scenes.DOTS, ((pat[5] - torch.sqrt(u * u + v * v)) * 10 + 0.5).clamp(0, 1), mix)
    mix = torch.where(kind == scenes.BLURRED, (0.5 + 0.45 * total).clamp(0, 1), mix)
    tone = torch.where(kind == scenes.GRAINY, 1 + pat[6] * total * 0.6, torch.ones_like(total))
    out = [(one("colour", 0, c) * (1 - mix) + one("colour", 1, c) * mix) * tone for c in range(3)]
    for m in range(scenes.M):
        out = draw_torch(d, pixels, m, px, py, ex, ey, out, one)
    slope = torch.stack([d["light"][:, i].view(n, 1, 1) for i in range(3)], -1)
    shade = light(slope, fx, fy, torch)
    block = ((patch // wide) * 14 + dot // 14) // 8 * 64 + ((patch % wide) * 14 + dot % 14) // 8
    rough = torch.sin(block * 12.9898 + one("pattern", 3) * 78.233) * 43758.5453
    rough = (rough - torch.floor(rough) - 0.5) * 3.46 * one("noise", 1)
    grain = one("noise", 0)
    done = []
    for c in range(3):
        value = out[c] * shade + rough + grain * torch.randn(fx.shape, device=dev)
        done.append((value.clamp(0, 1) * 2 - 1).to(torch.bfloat16))
    return torch.cat(done, -1)


def draw_torch(d, pixels, m, px, py, ex, ey, out, one):
    import torch

    dx, dy = px - one("centre", m, 0) * ex, py - one("centre", m, 1) * ey
    u = one("matrix", m, 0, 0) * dx + one("matrix", m, 0, 1) * dy
    v = one("matrix", m, 1, 0) * dx + one("matrix", m, 1, 1) * dy
    u = u + one("bend", m, 0) * torch.sin(one("bend", m, 1) * v + one("bend", m, 2))
    sprite = one("sprite", m)
    inside = (u.abs() < 0.5) & (v.abs() < 0.5) & (sprite >= 0)
    side = one("side", m)
    x = torch.minimum(((u + 0.5) * side - 0.5).clamp(min=0), side - 1.0)
    y = torch.minimum(((v + 0.5) * side - 0.5).clamp(min=0), side - 1.0)
    x0, y0 = torch.minimum(x.int(), side - 2), torch.minimum(y.int(), side - 2)
    tx, ty = x - x0, y - y0
    at = sprite.clamp(min=0) * 5376 + one("start", m) + y0 * side + x0
    at = torch.where(inside, at, torch.zeros_like(at))
    words = [pixels[at], pixels[at + 1], pixels[at + torch.where(inside, side, 0)],
             pixels[at + torch.where(inside, side, 0) + 1]]
    weight = [(1 - tx) * (1 - ty), tx * (1 - ty), (1 - tx) * ty, tx * ty]
    rgba = []
    for c in range(4):
        value = 0
        for word, w in zip(words, weight):
            value = value + ((word >> (8 * c)) & 255) * w
        rgba.append(value / 255)
    alpha = torch.where(inside, rgba[3], torch.zeros_like(rgba[3]))
    result = []
    for c in range(3):
        col = [one("recolour", m, c, i) for i in range(4)]
        value = col[0] * rgba[0] + col[1] * rgba[1] + col[2] * rgba[2] + col[3] * rgba[3]
        value = torch.minimum(value.clamp(min=0), alpha)
        result.append(torch.where(inside, value, torch.zeros_like(value)) + (1 - alpha) * out[c])
    return result


def cover_numpy(s, n_patches):
    """int [n, n_patches]: slot 0..M-1 of the topmost drawn thing over each patch's centre, -1 for none."""
    wide, high = s["grid"][:, 1:2], s["grid"][:, :1]
    patch = np.arange(n_patches)
    fx = (patch % wide + 0.5) / wide
    fy = (patch // wide + 0.5) / high
    cover = np.full(fx.shape, -1, np.int8)
    for m in range(scenes.M):
        dx = (fx - s["centre"][:, m, :1]) * s["extent"][:, :1]
        dy = (fy - s["centre"][:, m, 1:]) * s["extent"][:, 1:]
        a = s["matrix"][:, m]
        u = a[:, 0, 0, None] * dx + a[:, 0, 1, None] * dy
        v = a[:, 1, 0, None] * dx + a[:, 1, 1, None] * dy
        over = (u * u + v * v < 0.21) & (s["sprite"][:, m, None] >= 0)
        cover[over] = m
    return cover
