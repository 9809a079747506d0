#!/usr/bin/env python3
"""Makes tests/data/images: pictures, and what Pillow makes of them.

    make_image_goldens.py GO_SRC OUT      writes everything
    make_image_goldens.py --check OUT     compares decode.txt and resize.txt with this Pillow

GO_SRC is the src folder of Go 1.19 (Debian package golang-1.19-src: usr/share/go-1.19/src), whose image tests
supply most files. Needs Pillow 10.1 to 12.1 and numpy; the tests themselves need neither. Pillow 9.4 resizes
these sizes the same way; later ones change the order of passes for some.

decode.txt   name format width height orientation sha256 of RGB as stored, of RGB upright; 32 digits
             name error reason; reason is cut or broken
resize.txt   filter pattern width height new_width new_height sha256, first 16 digits
slices.txt   side patch slices width height: overview, grid and tile, by a straightforward reference
"""
import hashlib
import io
import math
import random
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
import PIL

JPEGS = """video-001.221212.jpeg video-001.cmyk.jpeg video-001.rgb.jpeg
video-001.progressive.truncated.jpeg video-001.separate.dc.progression.jpeg
video-005.gray.q50.2x2.jpeg video-005.gray.q50.2x2.progressive.jpeg""".split()
JPEGS += [f"video-001.q50.{s}{p}.jpeg" for s in "410 411 420 422 440 444".split() for p in ("", ".progressive")]
GIFS = ["video-001.5bpp.gif"]
INVALID = {"invalid-crc32.png": "broken", "invalid-noend.png": "cut",
           "invalid-trunc.png": "cut", "invalid-zlib.png": "broken"}
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC,
           "bilinear": Image.Resampling.BILINEAR}


def sha(data):
    return hashlib.sha256(data).hexdigest()[:32]


# ---- pictures of our own

def noise(width, height):
    """A byte for each index; the C test has the same function."""
    i = np.arange(width * height * 3, dtype=np.uint64)
    x = (i * 2654435761 + width * 40503 + height) & 0xffffffff
    x ^= x >> np.uint64(15)
    x = (x * 2246822519) & 0xffffffff
    x ^= x >> np.uint64(13)
    return (x & 0xff).astype(np.uint8).reshape(height, width, 3)


def edges(width, height):
    """Blocks of 3 x 3 pixels, each channel 0 or 255: filters overshoot here, so the middle clamp matters."""
    return (noise((width + 2) // 3, (height + 2) // 3).repeat(3, 0).repeat(3, 1)[:height, :width] >> 7) * np.uint8(255)


PATTERNS = {"noise": noise, "edges": edges}


def scene(width=24, height=17):
    y, x = np.mgrid[0:height, 0:width]
    a = np.stack([x * 10 % 256, y * 14 % 256, (x * y) % 256], 2).astype(np.uint8)
    a[2:6, 3:9] = (250, 20, 30)
    return Image.fromarray(a)


def exif(orientation, byte_order="<"):
    mark = b"II*\0" if byte_order == "<" else b"MM\0*"
    return (b"Exif\0\0" + mark + struct.pack(byte_order + "I", 8) + struct.pack(byte_order + "H", 1) +
            struct.pack(byte_order + "HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(byte_order + "I", 0))


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with_late_exif(plain, orientation):
    """eXIf behind the pixels, which the format allows."""
    end = plain.rindex(b"\0\0\0\0IEND")
    return plain[:end] + png_chunk(b"eXIf", exif(orientation)[6:]) + plain[end:]


def write_own(out):
    im = scene()
    for o in range(1, 9):
        im.save(out / f"own-exif-{o}.jpeg", quality=90, exif=exif(o, "<" if o % 2 else ">"))
    im.save(out / "own-exif-6.png", exif=exif(6))
    buf = io.BytesIO()
    im.save(buf, "PNG")
    (out / "own-exif-late-8.png").write_bytes(png_with_late_exif(buf.getvalue(), 8))
    im.save(out / "own-exif-3.webp", quality=80, exif=exif(3))
    im.save(out / "own-lossy.webp", quality=70)
    im.save(out / "own-lossless.webp", lossless=True)
    see = im.convert("RGBA")
    see.putalpha(Image.fromarray(noise(24, 17)[:, :, 0]))
    see.save(out / "own-alpha.png")
    see.save(out / "own-alpha-lossy.webp", quality=80)
    see.save(out / "own-alpha-lossless.webp", lossless=True, exact=True)
    frames = [im, im.transpose(Image.Transpose.ROTATE_180), im]
    frames[0].save(out / "own-animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(out / "own-animated.png", save_all=True, append_images=frames[1:])
    im.save(out / "own.bmp")
    im.convert("P").save(out / "own-palette.bmp")
    im.convert("L").save(out / "own-grey.bmp")
    im.save(out / "own.gif")
    im.save(out / "own.tga")
    im.save(out / "own-rle.tga", compression="tga_rle")
    im.convert("1").save(out / "own-bit.png")
    im.convert("P").save(out / "own-palette.png", transparency=0)
    im.convert("L").save(out / "own-grey-alpha.png", transparency=7)
    Image.fromarray(noise(20, 15)).convert("CMYK").save(out / "own-cmyk.jpeg", quality=95)
    cmyk = (out / "own-cmyk.jpeg").read_bytes()
    adobe = cmyk.index(b"\xff\xee\0\x0eAdobe")
    (out / "own-ycck.jpeg").write_bytes(cmyk[:adobe + 15] + b"\2" + cmyk[adobe + 16:])
    (out / "own-cmyk-unmarked.jpeg").write_bytes(cmyk[:adobe] + cmyk[adobe + 16:])
    Image.fromarray(noise(33, 1)).save(out / "own-33x1.png")
    Image.fromarray(noise(1, 1)).save(out / "own-1x1.jpeg")
    Image.fromarray(noise(17, 3)).save(out / "own-17x3.jpeg", restart_marker_blocks=1)
    whole = (out / "video-001.q50.420.jpeg").read_bytes()
    (out / "own-cut-20.jpeg").write_bytes(whole[:-20])
    (out / "own-cut-half.jpeg").write_bytes(whole[:len(whole) // 2])
    (out / "own-cut-header.jpeg").write_bytes(whole[:100])
    for name in ("own-lossy.webp", "own-lossless.webp", "own.bmp", "own-palette.bmp", "own.tga", "own-rle.tga", "own.gif",
                 "own-alpha.png"):
        data = (out / name).read_bytes()
        (out / ("own-cut-" + name.removeprefix("own-"))).write_bytes(data[:len(data) - len(data) // 4])


# ---- what Pillow makes of them

def to_rgb(im):
    """convert('RGB'), but the high byte of 16-bit grey, which Pillow clips to white."""
    if im.mode.startswith("I"):
        high = (np.asarray(im).astype(np.int64) >> 8).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    return im.convert("RGB")


def decode_line(path):
    im = Image.open(path)  # the first frame, if there are several
    orientation = im.getexif().get(0x0112, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    stored = to_rgb(im)
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    upright = stored if turned is None else stored.transpose(Image.Transpose(turned))
    reference = ImageOps.exif_transpose(im)
    assert reference.size == upright.size
    if not im.mode.startswith("I"):
        assert sha(to_rgb(reference).tobytes()) == sha(upright.tobytes()), path
    kind = im.format
    kind = {"WEBP": "WebP", "MPO": "JPEG"}.get(kind, kind)
    return (f"{path.name} {kind} {stored.width} {stored.height} {orientation} {sha(stored.tobytes())} "
            f"{sha(upright.tobytes())}")


def decode_lines(out):
    lines = []
    for path in sorted(out.iterdir()):
        if path.suffix in (".txt", ".md"):
            continue
        if path.name in INVALID:
            lines.append(f"{path.name} error {INVALID[path.name]}")
        elif "-cut-" in path.name or "truncated" in path.name:
            lines.append(f"{path.name} error cut")
        else:
            lines.append(decode_line(path))
    return lines


SIZES = [(1, 1, 1, 1), (1, 1, 5, 4), (2, 3, 1, 1), (1, 7, 13, 21), (7, 1, 3, 1), (13, 17, 7, 11), (17, 13, 17, 13),
         (17, 13, 17, 40), (17, 13, 40, 13), (100, 100, 100, 57), (100, 100, 57, 100), (64, 48, 32, 24), (64, 48, 128, 96),
         (37, 501, 448, 448), (501, 37, 98, 14), (200, 150, 516, 392), (640, 427, 560, 378), (1, 300, 14, 280),
         (300, 1, 280, 14), (3, 90, 14, 84), (512, 384, 518, 392), (512, 512, 448, 448), (512, 512, 630, 644),
         (401, 299, 512, 382), (777, 333, 512, 219), (256, 256, 255, 257), (99, 101, 98, 98), (1000, 2, 100, 2),
         (2, 1000, 2, 100), (333, 444, 14, 14), (14, 14, 333, 444), (5, 5, 4, 6), (6, 4, 5, 5)]


def resize_sizes():
    rng = random.Random(20)
    sizes = list(SIZES)
    while len(sizes) < 72:
        sizes.append(tuple(rng.randint(1, 220) for _ in range(4)))
    # Pillow 13 goes down first for tall pictures that shrink a lot; 12.2 those 100 times as tall as wide; until 12.1 across is first.
    return sizes


def resize_lines():
    lines = []
    for w, h, new_w, new_h in resize_sizes():
        for pattern, make in PATTERNS.items():
            im = Image.fromarray(make(w, h))
            for name, resample in FILTERS.items():
                got = im.resize((new_w, new_h), resample)
                lines.append(f"{name} {pattern} {w} {h} {new_w} {new_h} {sha(got.tobytes())[:16]}")
    return lines


# ---- sizes of views, as the model's own processor computes them

def snap(length, step):
    return max(round(length / step) * step, step)


def best_size(size, side, patch, upscale):
    width, height = size
    if width * height > side * side or upscale:
        r = width / height
        height = int(side / math.sqrt(r))
        width = int(height * r)
    return snap(width, patch), snap(height, patch)


def best_grid(width, height, most, side):
    multiple = min(math.ceil(width * height / (side * side)), most)
    if multiple <= 1:
        return None
    candidates = []
    for n in (multiple - 1, multiple, multiple + 1):
        if n != 1 and n <= most:
            candidates += [(m, n // m) for m in range(1, n + 1) if n % m == 0]
    wanted = math.log(width / height)
    best, least = (1, 1), float("inf")
    for grid in candidates:
        error = abs(wanted - math.log(grid[0] / grid[1]))
        if error < least:
            best, least = grid, error
    return best


def slice_line(width, height, side, patch, most):
    grid = best_grid(width, height, most, side)
    overview = best_size((width, height), side, patch, grid is None)
    tile = (0, 0)
    if grid:
        rw, rh = snap(width, grid[0]), snap(height, grid[1])
        tile = best_size((rw / grid[0], rh / grid[1]), side, patch, True)
    cols, rows = grid or (0, 0)
    return f"{side} {patch} {most} {width} {height} {overview[0]} {overview[1]} {cols} {rows} {tile[0]} {tile[1]}"


def slice_lines():
    rng = random.Random(21)
    cases = [(w, h, 448, 14, 9) for w, h in [
        (512, 384), (512, 512), (640, 480), (1024, 768), (1280, 720), (1344, 1344), (1920, 1080), (1080, 1920),
        (4032, 3024), (3024, 4032), (224, 224), (1, 1), (1, 2000), (2000, 1), (300, 2000), (30, 1500), (1500, 30),
        (513, 512), (729, 492), (448, 448), (449, 448), (448, 449), (896, 448), (448, 896), (897, 448), (50, 4100),
        (350, 700), (700, 350), (686, 343), (770, 256), (256, 770), (16, 16384), (16384, 16), (4096, 4096)]]
    cases += [(7 + 14 * k, 21 + 14 * j, 448, 14, 9) for k in range(0, 60, 7) for j in range(0, 60, 11)]
    while len(cases) < 700:
        most = rng.choice([1, 1, 2, 3, 4, 6, 9, 9, 9, 9, 12])
        w, h = int(math.exp(rng.uniform(0, 8.3))), int(math.exp(rng.uniform(0, 8.3)))
        side, patch = rng.choice([(448, 14), (448, 14), (448, 14), (224, 14), (336, 14), (96, 16), (64, 8)])
        cases.append((w, h, side, patch, most))
    return [slice_line(*c) for c in cases]


def main():
    if sys.argv[1] == "--check":
        out = Path(sys.argv[2])
        for name, lines in (("decode.txt", decode_lines(out)), ("resize.txt", resize_lines())):
            same = (out / name).read_text().splitlines() == lines
            print(f"Pillow {PIL.__version__}: {name} {'equal' if same else 'DIFFERENT'} ({len(lines)} lines)")
        return
    src, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name in JPEGS + GIFS:
        shutil.copyfile(src / "image/testdata" / name, out / name)
    png = src / "image/png/testdata"
    for path in [*png.glob("pngsuite/*.png"), *png.glob("gray-gradient*.png"), *png.glob("invalid-*.png")]:
        shutil.copyfile(path, out / path.name)
    write_own(out)
    (out / "decode.txt").write_text("\n".join(decode_lines(out)) + "\n")
    (out / "resize.txt").write_text("\n".join(resize_lines()) + "\n")
    (out / "slices.txt").write_text("\n".join(slice_lines()) + "\n")


main()
