"""The formula of render.py as one Triton kernel: a block of points of one scene at a time, straight into patches.

pack() makes one row of numbers per scene on the CPU; paint() draws. TRITON_INTERPRET=1 runs it without a GPU.
"""

import numpy as np
import torch
import triton
import triton.language as tl

import render
import scenes

HEAD, EACH = 44, 24
ROW = HEAD + EACH * scenes.M


def pack(s):
    """f32 [n, ROW]: rows, columns, extent, ground, colours, pattern, waves, light, noise; then every drawn thing."""
    n = len(s["grid"])
    level = render.levels(s, s["grid"].min(1)[:, None] * 14)
    out = np.zeros((n, ROW), np.float32)
    out[:, 0:2] = s["grid"]
    out[:, 2:4] = s["extent"]
    out[:, 4] = s["ground"]
    out[:, 5:11] = s["colour"].reshape(n, 6)
    out[:, 11:19] = s["pattern"]
    out[:, 19:37] = s["waves"].reshape(n, 18)
    out[:, 37:40] = s["light"]
    out[:, 40:42] = s["noise"]
    things = out[:, HEAD:].reshape(n, scenes.M, EACH)
    things[:, :, 0] = s["sprite"]
    things[:, :, 1] = np.array(render.LEVEL_SIDE)[level]
    things[:, :, 2] = np.array(render.LEVEL_START)[level]
    things[:, :, 3:5] = s["centre"]
    things[:, :, 5:9] = s["matrix"].reshape(n, scenes.M, 4)
    things[:, :, 9:12] = s["bend"]
    things[:, :, 12:24] = s["recolour"].reshape(n, scenes.M, 12)
    return out


@triton.jit
def texel(pixels, at, inside, weight, r, g, b, a):
    word = tl.load(pixels + at, mask=inside, other=0)
    r += (word & 255).to(tl.float32) * weight
    g += ((word >> 8) & 255).to(tl.float32) * weight
    b += ((word >> 16) & 255).to(tl.float32) * weight
    a += ((word >> 24) & 255).to(tl.float32) * weight
    return r, g, b, a


@triton.jit
def mixed(t, r, g, b, a, other):
    value = tl.load(t) * r + tl.load(t + 1) * g + tl.load(t + 2) * b + tl.load(t + 3) * a
    value = tl.minimum(tl.maximum(value, 0.0), a)
    return value + (1 - a) * other


@triton.jit
def clamp01(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit(do_not_specialize=["seed"])
def paint_kernel(numbers, pixels, out, seed, points, ROW: tl.constexpr, HEAD: tl.constexpr, EACH: tl.constexpr,
                 M: tl.constexpr, BLOCK: tl.constexpr):
    scene = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = at < points
    p = numbers + scene * ROW
    high, wide = tl.load(p).to(tl.int32), tl.load(p + 1).to(tl.int32)
    ex, ey = tl.load(p + 2), tl.load(p + 3)
    kind = tl.load(p + 4).to(tl.int32)
    patch, dot = at // 196, at % 196
    column, row = (patch % wide) * 14 + dot % 14, (patch // wide) * 14 + dot // 14
    fx = (column.to(tl.float32) + 0.5) / (wide * 14).to(tl.float32)
    fy = (row.to(tl.float32) + 0.5) / (high * 14).to(tl.float32)
    px, py = fx * ex, fy * ey
    # ground
    q = p + 11
    a = tl.load(q) * px + tl.load(q + 1) * py
    b = tl.load(q) * py - tl.load(q + 1) * px
    freq = tl.load(q + 2)
    ua, ub = freq * a + tl.load(q + 3), freq * b + tl.load(q + 4)
    mix = tl.zeros_like(fx)
    tone = tl.zeros_like(fx) + 1.0
    if kind == 1:
        mix = fy
    elif kind == 2:
        mix = clamp01(tl.sin(6.283185307 * ua) * 8 + 0.5)
    elif kind == 3:
        mix = clamp01(tl.sin(6.283185307 * ua) * tl.sin(6.283185307 * ub) * 12 + 0.5)
    elif kind == 4:
        u = ua - tl.floor(ua) - 0.5
        v = ub - tl.floor(ub) - 0.5
        mix = clamp01((tl.load(q + 5) - tl.sqrt(u * u + v * v)) * 10 + 0.5)
    elif kind >= 5:
        total = tl.zeros_like(fx)
        for i in tl.static_range(6):
            w = p + 19 + 3 * i
            total += tl.sin(tl.load(w) * px + tl.load(w + 1) * py + tl.load(w + 2))
        if kind == 6:
            mix = clamp01(0.5 + 0.45 * total)
        else:
            tone = 1 + tl.load(q + 6) * total * 0.6
    c = p + 5
    red = (tl.load(c) * (1 - mix) + tl.load(c + 3) * mix) * tone
    green = (tl.load(c + 1) * (1 - mix) + tl.load(c + 4) * mix) * tone
    blue = (tl.load(c + 2) * (1 - mix) + tl.load(c + 5) * mix) * tone
    # drawn things
    for m in tl.static_range(M):
        t = p + HEAD + m * EACH
        sprite = tl.load(t).to(tl.int32)
        if sprite >= 0:
            dx, dy = px - tl.load(t + 3) * ex, py - tl.load(t + 4) * ey
            u = tl.load(t + 5) * dx + tl.load(t + 6) * dy
            v = tl.load(t + 7) * dx + tl.load(t + 8) * dy
            u += tl.load(t + 9) * tl.sin(tl.load(t + 10) * v + tl.load(t + 11))
            inside = live & (tl.abs(u) < 0.5) & (tl.abs(v) < 0.5)
            side = tl.load(t + 1)
            x = tl.minimum(tl.maximum((u + 0.5) * side - 0.5, 0.0), side - 1)
            y = tl.minimum(tl.maximum((v + 0.5) * side - 0.5, 0.0), side - 1)
            step = side.to(tl.int32)
            x0, y0 = tl.minimum(x.to(tl.int32), step - 2), tl.minimum(y.to(tl.int32), step - 2)
            tx, ty = x - x0, y - y0
            first = sprite * 5376 + tl.load(t + 2).to(tl.int32) + y0 * step + x0
            r, g, b2, al = tl.zeros_like(fx), tl.zeros_like(fx), tl.zeros_like(fx), tl.zeros_like(fx)
            r, g, b2, al = texel(pixels, first, inside, (1 - tx) * (1 - ty), r, g, b2, al)
            r, g, b2, al = texel(pixels, first + 1, inside, tx * (1 - ty), r, g, b2, al)
            r, g, b2, al = texel(pixels, first + step, inside, (1 - tx) * ty, r, g, b2, al)
            r, g, b2, al = texel(pixels, first + step + 1, inside, tx * ty, r, g, b2, al)
            r, g, b2, al = r / 255, g / 255, b2 / 255, al / 255
            red, green, blue = (mixed(t + 12, r, g, b2, al, red), mixed(t + 16, r, g, b2, al, green),
                                mixed(t + 20, r, g, b2, al, blue))
    # light and noise
    sx, sy = tl.load(p + 37), tl.load(p + 38)
    dark = tl.where(sx > 0, sx * fx, -sx * (1 - fx)) + tl.where(sy > 0, sy * fy, -sy * (1 - fy))
    shade = tl.load(p + 39) * (1 - dark)
    block = (row // 8 * 64 + column // 8).to(tl.float32)
    rough = tl.sin(block * 12.9898 + tl.load(p + 14) * 78.233) * 43758.5453
    rough = (rough - tl.floor(rough) - 0.5) * 3.46 * tl.load(p + 41)
    n1, n2, n3, _ = tl.randn4x(seed, scene * points + at)
    grain = tl.load(p + 40)
    o = out + (scene * points + patch * 196).to(tl.int64) * 3 + dot
    tl.store(o, (clamp01(red * shade + rough + grain * n1) * 2 - 1).to(tl.bfloat16), mask=live)
    tl.store(o + 196, (clamp01(green * shade + rough + grain * n2) * 2 - 1).to(tl.bfloat16), mask=live)
    tl.store(o + 392, (clamp01(blue * shade + rough + grain * n3) * 2 - 1).to(tl.bfloat16), mask=live)


def paint(numbers, pixels, n_patches, seed):
    """numbers f32 [n, ROW], pixels int32 -> bf16 [n, n_patches, 588] in -1 .. 1."""
    n = len(numbers)
    out = torch.empty(n, n_patches, 588, device=numbers.device, dtype=torch.bfloat16)
    block = 256
    points = n_patches * 196
    paint_kernel[(n, triton.cdiv(points, block))](numbers, pixels, out, seed, points, ROW, HEAD, EACH, scenes.M, block)
    return out
