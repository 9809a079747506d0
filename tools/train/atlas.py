"""The sprite atlas: every drawing as 64 x 64 premultiplied RGBA, with what it shows.

build (needs the art, run once):
    python3 atlas.py --twemoji DIR_OF_PNG --names names.json --out atlas.npz
    Twemoji (CC-BY 4.0) and Noto Color Emoji (OFL, Debian fonts-noto-color-emoji) are the two colour styles,
    Symbola (free for any use, Debian fonts-symbola) is a line style. EmojiOne (Debian ruby-gemojione,
    CC-BY-SA 4.0) is the style that is never trained on: --emojione writes it to a file of its own.
load:
    Atlas(path) gives base sprites; with_variants() adds restyled drawings for training.

In the table of an atlas every sprite has: obj (index into objects.load(), or -1 for something that the
model shall not know), style, test (1: kept out of training).
"""

import argparse
import json
import os
import zlib

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

import objects

SIDE = 64
TWEMOJI, NOTO, SYMBOLA, SHAPE, EMOJIONE = range(5)
PLAIN, LINE, STICKER, FLAT = range(4)
NOTO_FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SYMBOLA_FONT = "/usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf"
EMOJIONE_DIR = "/usr/share/rubygems-integration/all/gems/gemojione-3.3.0/assets/png"
N_SHAPES = 240

# Drawings that look like a known object under another name: neither known nor unknown.
NEAR = set(
    """1f9a7 1f9ae 1f429 1f408-200d-2b1b 1f406 1face 1facf 1f9ac 1f402 1f403 1f417 1f43d 1f40f 1f42a 1f999
    1f9a3 1f400 1f9ab 1f9a6 1f9a8 1f9a1 1f983 1f423 1f426 1f54a 1f9a4 1fabf 1f995 1f9ad 1f41f 1f99f 1f4ae
    1fab7 1f940 1f33c 1f331 1fab4 1f333 2618 1f33f 1f348 1f96d 1f34f 1fad1 1f96c 1f36a 1f96e 1f95e 1f96f
    1f958 1f372 1f963 1f957 1f35a 1f362 1f367 1f368 1f967 1f375 1f376 1f37e 1f378 1f37b 1f942 1f943 1f9cb
    1f5fe 1f3d4 26f0 1f3d5 1f3e1 1f3d8 1f3da 1f3e3 1f3e4 1f3e5 1f3e6 1f3e8 1f3e9 1f3ea 1f3eb 1f3ec 1f492
    1f303 1f3d9 1f304 1f305 1f306 1f307 1f683 1f686 1f687 1f688 1f689 1f68a 1f69d 1f69e 1f68b 1f68d 1f68e
    1f690 1f694 1f696 1f698 1f699 1f6fb 1f69b 1f6fa 1f6f4 1f6a5 1f6f6 1f6a4 1f6f3 26f4 1f6e5 1f6e9 1f6eb
    1f6ec 1f570 1f311 1f312 1f313 1f314 1f315 1f316 1f317 1f318 1f31a 1f31b 1f31c 1f31d 1f320 26c5 1f324
    1f325 1f326 1f327 1f328 1f329 1f302 26f1 2728 1f38b 1f396 1f3c5 1f948 1f949 1f94e 1f3d0 1f3c9 1f3f8
    1f3d3 1f94d 26f8 1f6f7 1f97d 1f45a 1fa71 1f97e 1f97f 1f461 1fa70 1f45e 1f45d 1f45b 1f6cd 1f515 1f4e2
    1f399 1fa95 1fa98 1f4f2 1f4de 1f4df 1faab 1f5a5 1f4bd 1f4c0 1f4fd 1f4f9 1f4d4 1f4d5 1f4d7 1f4d8 1f4d9
    1f4d3 1f4d2 1f4b4 1f4b5 1f4b6 1f4b7 1f4b8 1f4e7 1f4e8 1f4e9 1f4eb 1f4ea 1f4ec 1f4ed 270f 1f58d 1f58a
    1f58b 1f58c 1f4dd 1f513 1f50f 1f510 1f5dd 2692 1f6e0 1f5e1 1f4cd 1f6cb 1f6bf 1f39f 1f98b 1f41b 1fab2
    1f997 1fab3 1fab0 1f349 1f383 1f386 1f387 1f37d 1f374 1fa72 1fa73 26d1 1fa96 1f9bd 1f9bc 1f5d1 1f3dd
    1f3d6 1f3de 1f3f5 1f3b9 2603 1f30c 1f4f0 1f5de 1f4c3 1f4c4 1f4d1 1f4dc 1f33e 1f3dc 1f301 1f309 1fabe
    1f9aa 1f990 1f3d7 1f6d6 1f6df 1f9ed 1f310 1f31f""".split()
)


def unknown_test(code):
    """A third of the unknown things is kept for testing, chosen by a hash of the code point."""
    return zlib.crc32(code.encode()) % 3 == 0


def fit(image):
    """Crops to what is drawn and scales it into the square, with a margin of one pixel."""
    box = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    image = image.crop(box)
    scale = (SIDE - 2) / max(image.size)
    size = tuple(max(1, round(v * scale)) for v in image.size)
    image = image.convert("RGBa").resize(size, Image.LANCZOS).convert("RGBA")
    out = Image.new("RGBA", (SIDE, SIDE))
    out.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return out


def noto_sprite(font, code):
    image = Image.new("RGBA", (136, 128))
    text = "".join(chr(int(c, 16)) for c in code.split("-"))
    ImageDraw.Draw(image).text((0, 0), text, font=font, embedded_color=True)
    return image if image.getbbox() else None


def symbola_sprite(font, code, missing):
    """Black ink over a white inside: what no white can reach from the border is inside."""
    mask = Image.new("L", (176, 176))
    ImageDraw.Draw(mask).text((18, 0), chr(int(code, 16)), font=font, fill=255)
    if mask.getbbox() is None or mask.tobytes() == missing:
        return None
    thick = mask.filter(ImageFilter.MaxFilter(3))
    outside = thick.point(lambda v: 255 if v > 100 else 0)
    ImageDraw.floodfill(outside, (0, 0), 128)
    inside = outside.point(lambda v: 0 if v == 128 else 255)
    alpha = ImageChops.lighter(inside, mask)
    ink = ImageChops.invert(mask)
    return Image.merge("RGBA", (ink, ink, ink, alpha))


def shape_sprite(rng):
    """A polygon, ellipse, ring or scribble in one to three colours."""
    image = Image.new("RGBA", (128, 128))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 4)):
        colour = tuple(int(v) for v in rng.integers(20, 236, 3)) + (255,)
        kind = rng.integers(5)
        if kind == 0:
            draw.polygon([tuple(p) for p in rng.integers(4, 124, (rng.integers(3, 8), 2)).tolist()], fill=colour)
        elif kind == 1:
            x, y = rng.integers(4, 60, 2)
            draw.ellipse([x, y, x + rng.integers(24, 66), y + rng.integers(24, 66)], fill=colour)
        elif kind == 2:
            x, y = rng.integers(4, 60, 2)
            draw.rectangle([x, y, x + rng.integers(16, 66), y + rng.integers(16, 66)], fill=colour)
        elif kind == 3:
            points = [tuple(p) for p in rng.integers(6, 122, (rng.integers(3, 9), 2)).tolist()]
            draw.line(points, fill=colour, width=int(rng.integers(3, 14)), joint="curve")
        else:
            angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 14)))
            radius = rng.uniform(18, 60, len(angle))
            draw.polygon([(64 + r * np.cos(a), 64 + r * np.sin(a)) for a, r in zip(angle, radius)], fill=colour)
    return image if image.getbbox() else None


class Table:
    def __init__(self):
        self.sprite, self.obj, self.style, self.test, self.code = [], [], [], [], []

    def add(self, image, obj, style, test, code):
        if image is None:
            return
        self.sprite.append(np.asarray(fit(image.convert("RGBA"))))
        self.obj.append(obj)
        self.style.append(style)
        self.test.append(test)
        self.code.append(code)

    def columns(self):
        return {
            "sprite": np.stack(self.sprite),
            "obj": np.array(self.obj, np.int16),
            "style": np.array(self.style, np.uint8),
            "test": np.array(self.test, np.uint8),
            "code": np.array(self.code),
        }

    def save(self, path):
        np.savez_compressed(path, **self.columns())
        print(path, len(self.sprite), "sprites", os.path.getsize(path), "bytes")


def build(twemoji, names, out):
    known = objects.load()
    table = Table()
    noto = ImageFont.truetype(NOTO_FONT, 109)
    symbola = ImageFont.truetype(SYMBOLA_FONT, 130)
    blank = Image.new("L", (176, 176))
    ImageDraw.Draw(blank).text((18, 0), chr(0x1FAFF), font=symbola, fill=255)
    used = set()
    for index, thing in enumerate(known):
        for code in [thing["hex"]] + thing["more"]:
            used.add(code)
            table.add(Image.open(os.path.join(twemoji, code + ".png")), index, TWEMOJI, 0, code)
            table.add(noto_sprite(noto, code), index, NOTO, 0, code)
            table.add(symbola_sprite(symbola, code, blank.tobytes()), index, SYMBOLA, 0, code)
    for entry in names:
        code = entry["hex"]
        clock = code[:4] in ("1f55", "1f56")
        if code in used or code in NEAR or clock or not os.path.exists(os.path.join(twemoji, code + ".png")):
            continue
        test = int(unknown_test(code))
        table.add(Image.open(os.path.join(twemoji, code + ".png")), -1, TWEMOJI, test, code)
        table.add(noto_sprite(noto, code), -1, NOTO, test, code)
    rng = np.random.default_rng(20251)
    for index in range(N_SHAPES):
        table.add(shape_sprite(rng), -1, SHAPE, int(index % 3 == 0), "shape%d" % index)
    table.save(out)


SHEET_COLUMNS = 20


def write_sheet(twemoji, names, folder):
    """The drawings that a test needs from a data set that Debian has not: a sheet of Twemoji and its code points."""
    codes = [o["hex"] for o in objects.load()]
    for entry in names:
        code = entry["hex"]
        clock = code[:4] in ("1f55", "1f56")
        mine = {c for o in objects.load() for c in [o["hex"]] + o["more"]}
        if code in mine or code in NEAR or clock or not unknown_test(code):
            continue
        if os.path.exists(os.path.join(twemoji, code + ".png")):
            codes.append(code)
    rows = -(-len(codes) // SHEET_COLUMNS)
    sheet = Image.new("RGBA", (SHEET_COLUMNS * SIDE, rows * SIDE))
    for i, code in enumerate(codes):
        drawn = fit(Image.open(os.path.join(twemoji, code + ".png")).convert("RGBA"))
        sheet.paste(drawn, (i % SHEET_COLUMNS * SIDE, i // SHEET_COLUMNS * SIDE))
    sheet.save(os.path.join(folder, "twemoji.png"), optimize=True)
    with open(os.path.join(folder, "twemoji.txt"), "w") as handle:
        handle.write("\n".join(codes) + "\n")


def for_tests(folder):
    """Known and never trained unknown things from the sheet, and from Noto's font where it is installed."""
    index = {o["hex"]: i for i, o in enumerate(objects.load())}
    sheet = Image.open(os.path.join(folder, "twemoji.png")).convert("RGBA")
    with open(os.path.join(folder, "twemoji.txt")) as handle:
        codes = handle.read().split()
    noto = ImageFont.truetype(NOTO_FONT, 109) if os.path.exists(NOTO_FONT) else None
    table = Table()
    for i, code in enumerate(codes):
        x, y = i % SHEET_COLUMNS * SIDE, i // SHEET_COLUMNS * SIDE
        obj = index.get(code, -1)
        table.add(sheet.crop((x, y, x + SIDE, y + SIDE)), obj, TWEMOJI, int(obj < 0), code)
        if noto:
            table.add(noto_sprite(noto, code), obj, NOTO, int(obj < 0), code)
    rng = np.random.default_rng(20251)
    for i in range(N_SHAPES):
        shape = shape_sprite(rng)
        if i % 3 == 0:
            table.add(shape, -1, SHAPE, 1, "shape%d" % i)
    return Atlas(table)


def emojione():
    """The style that is never trained on, or None where Debian's ruby-gemojione is not installed."""
    return Atlas(emojione_table()) if os.path.isdir(EMOJIONE_DIR) else None


def emojione_table():
    table = Table()
    for index, thing in enumerate(objects.load()):
        path = os.path.join(EMOJIONE_DIR, thing["hex"].upper() + ".png")
        if os.path.exists(path):
            table.add(Image.open(path).convert("RGBA"), index, EMOJIONE, 1, thing["hex"])
    return table


def variant(sprite, kind):
    """A restyled copy of a drawing: line art, a sticker's thick border, or few flat colours."""
    image = Image.fromarray(sprite, "RGBA")
    if kind == LINE:
        grey = image.convert("L")
        alpha = image.getchannel("A")
        rough = Image.composite(grey, Image.new("L", image.size, 255), alpha)
        edge = np.maximum(
            np.asarray(rough.filter(ImageFilter.FIND_EDGES), np.float32),
            np.asarray(alpha.filter(ImageFilter.FIND_EDGES), np.float32),
        )
        ink = np.clip(255 - 2.2 * edge, 0, 255).astype(np.uint8)
        return np.dstack([ink, ink, ink, np.asarray(alpha)])
    if kind == STICKER:
        small = fit_smaller(image)
        border = small.getchannel("A").filter(ImageFilter.MaxFilter(7)).filter(ImageFilter.GaussianBlur(0.7))
        # white or black is chosen by the drawing's own brightness, so that the border shows
        tone = 255 if np.asarray(small.convert("L"), np.float32).mean() < 110 else 20
        back = Image.merge("RGBA", [Image.new("L", image.size, tone)] * 3 + [border])
        return np.asarray(Image.alpha_composite(back, small))
    smooth = image.convert("RGB").filter(ImageFilter.MedianFilter(5))
    few = smooth.quantize(4, method=Image.Quantize.MEDIANCUT).convert("RGB")
    return np.dstack([np.asarray(few), np.asarray(image.getchannel("A"))])


def fit_smaller(image):
    out = Image.new("RGBA", image.size)
    out.paste(image.resize((SIDE - 8, SIDE - 8), Image.LANCZOS), (4, 4))
    return out


class Atlas:
    """Sprites and their table; pixels() packs them for the renderers."""

    def __init__(self, *parts):
        parts = [np.load(p) if isinstance(p, str) else p.columns() for p in parts]
        self.sprite = np.concatenate([p["sprite"] for p in parts])
        self.obj = np.concatenate([p["obj"] for p in parts]).astype(np.int32)
        self.style = np.concatenate([p["style"] for p in parts])
        self.test = np.concatenate([p["test"] for p in parts])
        self.code = np.concatenate([p["code"] for p in parts])
        self.variant = np.zeros(len(self.obj), np.uint8)

    def with_variants(self):
        colour = np.flatnonzero((self.style == TWEMOJI) | (self.style == NOTO))
        colour = colour[self.test[colour] == 0]
        base = len(self.sprite)
        sprites = [self.sprite]
        for kind in (LINE, STICKER, FLAT):
            sprites.append(np.stack([variant(self.sprite[i], kind) for i in colour]))
        self.sprite = np.concatenate(sprites)
        for name in ("obj", "style", "test", "code"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column] + [column[colour]] * 3))
        self.variant = np.concatenate(
            [np.zeros(base, np.uint8)] + [np.full(len(colour), k, np.uint8) for k in (LINE, STICKER, FLAT)]
        )
        return self

    def pixels(self):
        """int32 [n, 5376]: levels of 64, 32 and 16 pixels, RGBA premultiplied in the four bytes."""
        rgba = self.sprite.astype(np.float32) / 255
        rgba[..., :3] *= rgba[..., 3:]
        levels = []
        for side in (64, 32, 16):
            packed = np.round(rgba * 255).astype(np.uint32)
            word = packed[..., 0] | packed[..., 1] << 8 | packed[..., 2] << 16 | packed[..., 3] << 24
            levels.append(word.reshape(len(word), -1))
            n = len(rgba)
            rgba = rgba.reshape(n, side // 2, 2, side // 2, 2, 4).mean((2, 4))
        return np.concatenate(levels, 1).view(np.int32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--twemoji")
    parser.add_argument("--names")
    parser.add_argument("--out")
    parser.add_argument("--sheet", help="folder for the small sheet of the tests")
    parser.add_argument("--emojione")
    args = parser.parse_args()
    if args.out:
        with open(args.names, encoding="utf-8") as handle:
            build(args.twemoji, json.load(handle), args.out)
    if args.sheet:
        with open(args.names, encoding="utf-8") as handle:
            write_sheet(args.twemoji, json.load(handle), args.sheet)
    if args.emojione:
        emojione_table().save(args.emojione)
