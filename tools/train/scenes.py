"""Scenes: sample(rng, n, ...) draws n scenes as one dict of arrays; the picture and every answer come from it.

Lengths are in units of the picture's shorter side for objects and in fractions of each side for centres.
Facts (what answers say):      groups int [n]; obj, count, place int [n, 3] (place 0..8 row-major, 9: all over);
                               total int [n]; size 0..2 (only for one object); arrangement int [n];
                               ground kind, colour1, colour2; bright 0..2; warm 0..2; direction 0..4
Drawing (what renderers use):  see DRAWING below.
"""

import zlib

import numpy as np

import atlas as art

M = 5  # drawn things in a scene at most
LEFT_OUT = 12  # one pair of objects in so many is never shown together in training

# Patch grids (rows, columns) that a picture of common shape gets at 224 * 224 pixels of area, by patch count.
GRIDS = {
    256: [(16, 16)],
    252: [(14, 18), (18, 14)] * 3 + [(12, 21), (21, 12)] * 2 + [(9, 28), (28, 9)],
    260: [(13, 20), (20, 13)],
}

PLACES_EN = ["at the top left", "at the top", "at the top right", "on the left", "in the centre", "on the right",
             "at the bottom left", "at the bottom", "at the bottom right", "all over the picture"]
PLACES_JA = ["左上", "上", "右上", "左", "中央", "右", "左下", "下", "右下", "画面全体"]

# name, Japanese noun, hue range (degrees), saturation range, value range, warmth (0 neutral, 1 warm, 2 cool),
# brightness (0 dark, 1 middle, 2 bright)
COLOURS = [
    ("white", "白", (0, 360), (0.0, 0.03), (0.95, 1.0), 0, 2),
    ("grey", "灰色", (0, 360), (0.0, 0.04), (0.46, 0.60), 0, 1),
    ("black", "黒", (0, 360), (0.0, 0.10), (0.03, 0.11), 0, 0),
    ("red", "赤", (353, 364), (0.78, 0.92), (0.70, 0.86), 1, 1),
    ("orange", "オレンジ色", (22, 31), (0.82, 0.96), (0.93, 1.0), 1, 2),
    ("yellow", "黄色", (49, 57), (0.65, 0.90), (0.94, 1.0), 1, 2),
    ("green", "緑", (105, 145), (0.50, 0.80), (0.45, 0.66), 2, 1),
    ("light blue", "水色", (190, 205), (0.30, 0.50), (0.92, 1.0), 2, 2),
    ("blue", "青", (216, 230), (0.72, 0.92), (0.60, 0.86), 2, 1),
    ("purple", "紫", (270, 288), (0.48, 0.70), (0.48, 0.66), 2, 1),
    ("pink", "ピンク", (332, 346), (0.25, 0.42), (0.95, 1.0), 1, 2),
    ("brown", "茶色", (18, 30), (0.52, 0.70), (0.34, 0.46), 1, 0),
    ("beige", "ベージュ", (34, 44), (0.16, 0.28), (0.88, 0.95), 1, 2),
]
PLAIN, FADE, STRIPES, CHECKS, DOTS, GRAINY, BLURRED = range(7)
GROUND_SHARE = np.array([0.34, 0.14, 0.09, 0.08, 0.09, 0.13, 0.13])
SMALL, MEDIUM, LARGE = range(3)
ROW, COLUMN, TOGETHER, SPREAD = range(4)

# Drawing arrays: sprite int [n, M] (-1: none), matrix f32 [n, M, 2, 2] and centre f32 [n, M, 2] (fractions):
# sprite coordinate u = matrix @ (point - centre * extent), u in -0.5 .. 0.5; bend f32 [n, M, 3];
# recolour f32 [n, M, 3, 4] (on premultiplied RGB and alpha); soft f32 [n, M] levels of blur; extent f32 [n, 2]
# (width, height in shorter sides); colour f32 [n, 2, 3]; pattern f32 [n, 8]; waves f32 [n, 6, 3];
# light f32 [n, 3] (x slope, y slope, exposure); noise f32 [n, 2] (per pixel, per 8-pixel block); grid int [n, 2]
DRAWING = ["sprite", "matrix", "centre", "bend", "recolour", "soft", "extent", "colour", "ground", "pattern",
           "waves", "light", "noise", "grid"]


def left_out(a, b):
    """True for pairs of objects that training never shows in one picture."""
    low, high = min(a, b), max(a, b)
    return zlib.crc32(b"%d %d" % (low, high)) % LEFT_OUT == 0


def left_out_table(n):
    table = np.zeros((n, n), bool)
    for a in range(n):
        for b in range(a + 1, n):
            table[a, b] = table[b, a] = left_out(a, b)
    return table


def hsv_to_rgb(h, s, v):
    k = (np.array([5.0, 3.0, 1.0]) + h[..., None] / 60.0) % 6.0
    return v[..., None] * (1 - s[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def draw_colour(rng, index):
    low = np.array([[c[2][0], c[3][0], c[4][0]] for c in COLOURS])[index]
    high = np.array([[c[2][1], c[3][1], c[4][1]] for c in COLOURS])[index]
    value = low + (high - low) * rng.random(low.shape)
    return hsv_to_rgb(value[..., 0] % 360, value[..., 1], value[..., 2])


class Sampler:
    """Draws scenes with the sprites of an atlas. split: 'train' or 'test' (pairs left out, unknown things kept)."""

    def __init__(self, atlas, split="train", styles=None, restyle=1.0):
        self.restyle = restyle
        self.split = split
        known = atlas.obj >= 0
        if styles is not None:
            known &= np.isin(atlas.style, styles)
        self.n_objects = int(atlas.obj.max()) + 1
        wanted = 1 if split == "test" else 0
        self.unknown = np.flatnonzero((atlas.obj < 0) & (atlas.test == wanted) & (atlas.variant == 0))
        if split == "train":
            self.unknown = np.flatnonzero((atlas.obj < 0) & (atlas.test == 0))
        self.line = (atlas.variant == art.LINE) | (atlas.style == art.SYMBOLA)
        self.by_object(atlas, known)
        self.pairs = left_out_table(self.n_objects)

    def by_object(self, atlas, known):
        """Rows of candidate sprites per object: plain drawings first, restyled ones behind."""
        self.plain, self.other = [], []
        for obj in range(self.n_objects):
            mine = np.flatnonzero(known & (atlas.obj == obj))
            plain = mine[(atlas.variant[mine] == 0) & (atlas.style[mine] != art.SYMBOLA)]
            self.plain.append(plain)
            self.other.append(np.setdiff1d(mine, plain))
        self.have = np.flatnonzero([len(p) > 0 for p in self.plain])
        width = max(len(p) for p in self.plain)
        self.plain_table = np.stack([np.resize(p, width * 4) if len(p) else np.full(width * 4, -1) for p in self.plain])
        width = max(1, max(len(p) for p in self.other))
        self.other_table = np.stack(
            [np.resize(p if len(p) else q, width * 4) if len(p) or len(q) else np.full(width * 4, -1)
             for p, q in zip(self.other, self.plain)])

    # ---- facts -------------------------------------------------------------------------------------------

    def objects(self, rng, n):
        """Three different objects a scene; left-out pairs never in training, always the first two in a test."""
        obj = self.have[rng.integers(0, len(self.have), (n, 3))]
        for _ in range(400):
            a, b, c = obj.T
            if self.split == "train":
                bad2 = (a == b) | self.pairs[a, b]
                bad3 = (c == a) | (c == b) | self.pairs[a, c] | self.pairs[b, c]
            else:
                bad2 = (a == b) | ~self.pairs[a, b]
                bad3 = (c == a) | (c == b)
            if not bad2.any() and not bad3.any():
                break
            obj[bad2, 1] = self.have[rng.integers(0, len(self.have), bad2.sum())]
            obj[bad3, 2] = self.have[rng.integers(0, len(self.have), bad3.sum())]
        return obj

    def sample(self, rng, n, patches=256, kinds=None, sizes=None):
        """sizes: (height, width) to draw from instead of the patch grids; kinds: shares of (nothing, unknown, one, one repeated together, one repeated all over, two, three)."""
        share = np.array(kinds if kinds is not None else [0.06, 0.21, 0.26, 0.10, 0.05, 0.21, 0.11])
        kind = rng.choice(7, n, p=share / share.sum())
        s = {"kind": kind, "n": n}
        grids = np.array(sizes if sizes is not None else GRIDS[patches])
        s["grid"] = grids[rng.integers(0, len(grids), n)].astype(np.int32)
        side = s["grid"][:, ::-1].astype(np.float32)
        s["extent"] = side / side.min(1, keepdims=True)
        s["groups"] = np.array([0, 0, 1, 1, 1, 2, 3])[kind]
        s["obj"] = self.objects(rng, n)
        count = np.ones((n, 3), np.int64)
        count[kind == 3, 0] = rng.integers(2, 4, (kind == 3).sum())
        count[kind == 4, 0] = rng.integers(3, 6, (kind == 4).sum())
        two = np.flatnonzero(kind == 5)
        count[two, 0] = np.where(rng.random(len(two)) < 0.35, rng.integers(2, 4, len(two)), 1)
        count[two, 1] = np.where(rng.random(len(two)) < 0.30, 2, 1)
        three = np.flatnonzero(kind == 6)
        count[three, rng.integers(0, 3, len(three))] += rng.random(len(three)) < 0.3
        s["count"] = np.where(np.arange(3) < s["groups"][:, None], count, 0)
        s["total"] = s["count"].sum(1)
        order = rng.random((n, 9)).argsort(1)
        centre = rng.random(n) < 0.35
        order[(kind == 2) & centre, 0] = 4
        place = order[:, :3].copy()
        for g in (2, 3):  # groups are told in reading order
            rows = s["groups"] == g
            place[rows, :g] = np.sort(place[rows, :g], 1)
        place[kind == 4, 0] = 9
        s["place"] = place
        self.put(rng, s, order)
        self.dress(rng, s)
        ground(rng, s)
        s["noise"] = np.where(rng.random((n, 2)) < 0.4, rng.random((n, 2)) * [0.06, 0.04], 0).astype(np.float32)
        if self.restyle == 0:
            s["noise"] *= 0.3
        return s

    # ---- where things are --------------------------------------------------------------------------------

    def put(self, rng, s, order):
        n, kind = s["n"], s["kind"]
        slot_group = np.full((n, M), -1)
        slot_k = np.zeros((n, M), np.int64)
        used = np.zeros(n, np.int64)
        for g in range(3):
            for k in range(5):
                rows = np.flatnonzero((g < s["groups"]) & (k < s["count"][:, g]) & (used < M))
                slot_group[rows, used[rows]] = g
                slot_k[rows, used[rows]] = k
                used[rows] += 1
        unknown = np.flatnonzero(kind == 1)
        n_unknown = rng.integers(1, 4, len(unknown))
        slot_group[unknown] = np.where(np.arange(M) < n_unknown[:, None], 3, -1)
        cell = np.where(slot_group >= 0, np.take_along_axis(
            np.concatenate([s["place"], np.zeros((n, 1), np.int64)], 1), np.clip(slot_group, 0, 3), 1), 0)
        own = (kind[:, None] == 4) | (slot_group == 3)  # these take a cell of their own for every thing
        cells = self.spread_cells(rng, n, order)
        cell = np.where(own, cells, cell)
        # sizes in shorter sides
        single = kind == 2
        size_word = rng.integers(0, 3, n)
        low = np.array([0.21, 0.33, 0.50])[size_word]
        high = np.array([0.27, 0.43, 0.60])[size_word]
        high = np.where((size_word == LARGE) & (s["place"][:, 0] == 4), 0.85, high)
        base = low + (high - low) * rng.random(n)
        many = s["count"].max(1) > 1
        base = np.where(single, base, np.where(many & (kind != 4), rng.uniform(0.18, 0.23, n), rng.uniform(0.23, 0.32, n)))
        base = np.where(kind == 1, rng.uniform(0.22, 0.5, n), base)
        s["size"] = np.where(single, size_word, np.where(base < 0.27, SMALL, MEDIUM))
        size = base[:, None] * rng.uniform(0.94, 1.06, (n, M))
        ext = s["extent"][:, None, :]
        row, col = cell // 3, cell % 3
        loose = single[:, None, None]
        mid = np.stack([col, row], -1)
        near = np.where(loose, 0.14 + 0.15 * rng.random((n, M, 2)), 0.155 + 0.05 * rng.random((n, M, 2)))
        centre = np.where(mid == 1, 0.5 + np.where(loose, 0.07, 0.035) * rng.uniform(-1, 1, (n, M, 2)),
                          np.where(mid == 0, near, 1 - near))
        # one group keeps one centre; its things stand beside each other or in a triangle
        first = np.argmax(slot_group[:, :, None] == slot_group[:, None, :], 2)
        grouped = (slot_group >= 0) & (slot_group < 3) & ~own
        shared = np.take_along_axis(centre, first[:, :, None].repeat(2, 2), 1)
        centre = np.where(grouped[:, :, None], shared, centre)
        amount = np.where(grouped, np.take_along_axis(np.concatenate([s["count"], s["count"][:, :1]], 1),
                                                      np.clip(slot_group, 0, 3), 1), 1)
        pair = np.array([[-0.52, 0.0], [0.52, 0.0], [0, 0]])
        three = np.array([[-0.52, 0.46], [0.52, 0.46], [0.0, -0.46]])
        offset = np.where((amount == 2)[:, :, None], pair[np.clip(slot_k, 0, 2)],
                          np.where((amount == 3)[:, :, None], three[np.clip(slot_k, 0, 2)], 0))
        half = np.where(amount == 1, 0.5, 1.04) * size
        half = np.stack([half, np.where(amount == 3, 0.96, 0.5) * size], -1) / ext
        centre = np.clip(centre, np.minimum(half, 0.5), np.maximum(1 - half, 0.5))
        s["centre"] = (centre + offset * size[:, :, None] / ext).astype(np.float32)
        s["slot_group"], s["slot_size"] = slot_group, size
        self.arrange(s, cell, slot_group)

    @staticmethod
    def spread_cells(rng, n, order):
        """Five different cells a scene, not all in one row or column."""
        cells = order[:, :M].copy()
        for _ in range(20):
            row, col = cells[:, :3] // 3, cells[:, :3] % 3
            bad = (row.min(1) == row.max(1)) | (col.min(1) == col.max(1))
            if not bad.any():
                break
            cells[bad] = rng.random((bad.sum(), 9)).argsort(1)[:, :M]
        return cells

    @staticmethod
    def arrange(s, cell, slot_group):
        inside = (slot_group >= 0) & (slot_group < 3)
        row, col = cell // 3, cell % 3
        low_r, high_r = np.where(inside, row, 9).min(1), np.where(inside, row, -1).max(1)
        low_c, high_c = np.where(inside, col, 9).min(1), np.where(inside, col, -1).max(1)
        same_r, same_c = low_r == high_r, low_c == high_c
        s["arrangement"] = np.where(same_r & same_c, TOGETHER, np.where(same_r, ROW, np.where(same_c, COLUMN, SPREAD)))

    # ---- how things look ---------------------------------------------------------------------------------

    def dress(self, rng, s):
        n = s["n"]
        group = s["slot_group"]
        obj = np.take_along_axis(np.concatenate([s["obj"], s["obj"][:, :1]], 1), np.clip(group, 0, 3), 1)
        pick = rng.integers(0, 1 << 30, (n, M))
        other = rng.random((n, 3)) < 0.45 * self.restyle
        alike = rng.integers(0, 1 << 30, (n, 3))  # things of one group mostly share a drawing
        pick = np.where(rng.random((n, M)) < 0.8, np.take_along_axis(alike, np.clip(group, 0, 2), 1), pick)
        other = np.take_along_axis(other, np.clip(group, 0, 2), 1)
        sprite = np.where(other, self.other_table[obj, pick % self.other_table.shape[1]],
                          self.plain_table[obj, pick % self.plain_table.shape[1]])
        if len(self.unknown):
            sprite = np.where(group == 3, self.unknown[pick % len(self.unknown)], sprite)
        sprite = np.where(group >= 0, sprite, -1)
        s["sprite"] = sprite.astype(np.int32)
        strong = self.restyle * (rng.random((n, M)) < 0.6)
        turn = np.deg2rad(rng.normal(0, 5, (n, M)) + strong * rng.uniform(-22, 22, (n, M)))
        flip = np.where(rng.random((n, M)) < 0.5, -1.0, 1.0)
        wide = np.exp(strong * rng.uniform(-0.18, 0.18, (n, M)))
        skew = strong * rng.uniform(-0.18, 0.18, (n, M))
        cos, sin = np.cos(turn), np.sin(turn)
        scale = 1 / s["slot_size"]
        matrix = np.empty((n, M, 2, 2))
        matrix[..., 0, 0] = flip * (cos + skew * sin) * scale * wide
        matrix[..., 0, 1] = flip * (-sin + skew * cos) * scale * wide
        matrix[..., 1, 0] = sin * scale / wide
        matrix[..., 1, 1] = cos * scale / wide
        s["matrix"] = matrix.astype(np.float32)
        bend = np.stack([strong * rng.uniform(-0.05, 0.05, (n, M)), rng.uniform(3, 9, (n, M)),
                         rng.uniform(0, 6.28, (n, M))], -1)
        s["bend"] = bend.astype(np.float32)
        s["soft"] = (rng.random((n, M)) * np.where(rng.random((n, M)) < 0.3, 1.4, 0.4) * max(self.restyle, 0.3)).astype(np.float32)
        s["recolour"] = self.recolour(rng, n, sprite)

    def recolour(self, rng, n, sprite):
        """Hue turned, saturation and contrast changed, tinted, grey; line drawings get ink and paper colours."""
        shape = (n, M)
        r = self.restyle
        mode = rng.choice(5, shape, p=[1 - 0.62 * r, 0.30 * r, 0.14 * r, 0.10 * r, 0.08 * r])
        hue = np.where(mode == 1, rng.uniform(-0.35, 0.35, shape), np.where(mode == 2, rng.uniform(-3.14, 3.14, shape), 0))
        sat = np.where(mode == 1, rng.uniform(0.6, 1.4, shape), np.where(mode == 3, rng.uniform(0, 0.15, shape), 1))
        contrast = 1 + np.where(mode > 0, rng.uniform(-0.3, 0.25, shape), rng.uniform(-0.05, 0.05, shape))
        bright = np.where(mode > 0, rng.uniform(-0.12, 0.12, shape), 0)
        cos, sin = np.cos(hue) * sat, np.sin(hue) * sat
        to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
        from_yiq = np.linalg.inv(to_yiq)
        turn = np.zeros(shape + (3, 3))
        turn[..., 0, 0] = 1
        turn[..., 1, 1], turn[..., 1, 2], turn[..., 2, 1], turn[..., 2, 2] = cos, -sin, sin, cos
        matrix = from_yiq @ turn @ to_yiq
        matrix = matrix * contrast[..., None, None]
        shift = (0.5 * (1 - contrast) + bright)[..., None] * np.ones(3)
        tint = (mode == 4) | ((sprite >= 0) & self.line[np.clip(sprite, 0, None)])
        ink = rng.uniform(0, 0.45, shape + (3,)) * rng.uniform(0, 1, shape + (1,))
        paper = 1 - rng.uniform(0, 0.75, shape + (3,)) * rng.uniform(0, 1, shape + (1,))
        swap = rng.random(shape + (1,)) < 0.12
        ink, paper = np.where(swap, paper, ink), np.where(swap, ink, paper)
        lum = np.array([0.299, 0.587, 0.114])
        tinted = (paper - ink)[..., :, None] * lum
        matrix = np.where(tint[..., None, None], tinted, matrix)
        shift = np.where(tint[..., None], ink, shift)
        return np.concatenate([matrix, shift[..., None]], -1).astype(np.float32)


def ground(rng, s):
    """Background, light and what words say about them."""
    n = s["n"]
    kind = rng.choice(7, n, p=GROUND_SHARE / GROUND_SHARE.sum())
    two = np.isin(kind, [FADE, STRIPES, CHECKS, DOTS, BLURRED])
    c1 = rng.integers(0, len(COLOURS), n)
    c2 = (c1 + rng.integers(1, len(COLOURS), n)) % len(COLOURS)
    for _ in range(20):  # two colours that are hard to tell apart do not go together
        bad = two & confusable(c1, c2)
        if not bad.any():
            break
        c2[bad] = (c1[bad] + rng.integers(1, len(COLOURS), bad.sum())) % len(COLOURS)
    even = np.isin(kind, [STRIPES, CHECKS, BLURRED])  # neither colour is the first: told in the list's order
    c1, c2 = np.where(even, np.minimum(c1, c2), c1), np.where(even, np.maximum(c1, c2), c2)
    rgb = np.stack([draw_colour(rng, c1), draw_colour(rng, c2)], 1)
    level = np.array([c[6] for c in COLOURS])
    level = np.where(two, level[c1] + level[c2], 2 * level[c1])
    s["ground"], s["colour1"], s["colour2"], s["two"] = kind.astype(np.int32), c1, c2, two
    s["colour"] = rgb.astype(np.float32)
    s["bright"] = np.where(level > 2, 2, np.where(level < 2, 0, 1))
    s["warm"] = np.array([c[5] for c in COLOURS])[c1]
    # a fade runs from top to bottom: light from above or below would not be told from it
    direction = np.where(rng.random(n) < 0.45, np.where(kind == FADE, rng.integers(1, 3, n), rng.integers(1, 5, n)), 0)
    s["direction"] = direction
    depth = rng.uniform(0.38, 0.55, n)
    slope = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])[direction] * depth[:, None]
    s["light"] = np.concatenate([slope, np.ones((n, 1))], 1).astype(np.float32)
    angle = rng.choice(4, n) * np.pi / 4 + rng.normal(0, 0.06, n)
    pattern = np.stack([np.cos(angle), np.sin(angle), rng.uniform(2.5, 6.5, n), rng.random(n), rng.random(n),
                        rng.uniform(0.26, 0.34, n), rng.uniform(0.05, 0.12, n), rng.uniform(0.0, 0.05, n)], 1)
    s["pattern"] = pattern.astype(np.float32)
    freq = np.where((kind == BLURRED)[:, None, None], rng.uniform(-6, 6, (n, 6, 2)), rng.uniform(-45, 45, (n, 6, 2)))
    s["waves"] = np.concatenate([freq, rng.uniform(0, 6.28, (n, 6, 1))], 2).astype(np.float32)


def confusable(a, b):
    """Neighbours in brightness and hue: white with beige, pink with beige, red with orange, and so on."""
    names = [c[0] for c in COLOURS]
    close = [("white", "beige"), ("pink", "beige"), ("red", "orange"), ("orange", "yellow"), ("blue", "purple"),
             ("black", "brown"), ("white", "pink"), ("white", "light blue"), ("red", "brown"), ("orange", "brown"),
             ("yellow", "beige"), ("light blue", "blue"), ("grey", "brown"), ("pink", "purple"), ("red", "pink")]
    table = np.zeros((len(names), len(names)), bool)
    for one, other in close:
        i, j = names.index(one), names.index(other)
        table[i, j] = table[j, i] = True
    return table[a, b] | (a == b)


def take(s, index):
    """One part of a batch of scenes."""
    return {k: (v[index] if isinstance(v, np.ndarray) else v) for k, v in s.items()}
