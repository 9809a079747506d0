"""Tests the shipped model: draws pictures nobody has seen, asks the program, scores the answers slot by slot.

    python3 evaluate.py --n 1000 [--seed S] [--sets unseen,style,...] [--keep DIR]      render, run, score
    python3 evaluate.py render --out DIR --n 20 --seed S                                 only the pictures and truth.json
    python3 evaluate.py score DIR                                                        run and score a folder made so

Needs python3, numpy and Pillow, and build/kotaro-run (--runner). --backend torch asks reference.py instead.
The seed is drawn at test time unless given, and printed. Sets:
    unseen   pairs of objects that training never showed together; Twemoji and, where installed, Noto
    worn     the same as small JPEG files of quality 30, or blurred, or at half size
    style    drawings of a third artist that training never saw (Debian's ruby-gemojione), one object each
    nothing  backgrounds, and things that the model has never been told about
    blind    grey pictures against the truth of 'unseen': what can be guessed without seeing
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image, ImageFilter

import answers
import atlas as art
import questions as q
import render
import scenes
import score

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# (height, width), by how often: the common shapes of pictures
SIZES = [(448, 448)] * 3 + [(384, 512)] * 3 + [(512, 384)] * 2 + [(288, 512), (512, 288)] + [(341, 512)]
MIXED = [0, 0, 0.3, 0.12, 0.08, 0.3, 0.2]
KINDS = {"unseen": MIXED, "worn": MIXED, "style": [0, 0, 1, 0, 0, 0, 0], "nothing": [0.4, 0.6, 0, 0, 0, 0, 0],
         "blind": MIXED}
ITEMS = {"full": [q.SUBJECT, q.COMPOSITION, q.COLOUR, q.CAPTION], "simple": [q.THING, q.SCENE, q.MOOD]}
SLOTS = ["name", "count", "place", "picture", "refusal", "composition", "colour", "light", "mood", "background", "short"]


# ---- pictures ------------------------------------------------------------------------------------------------


def wear(image, rng):
    """One of the things that happen to pictures on their way."""
    kind = rng.integers(3)
    if kind == 0:
        data = io.BytesIO()
        image.save(data, "JPEG", quality=30)
        return Image.open(io.BytesIO(data.getvalue())).convert("RGB")
    if kind == 1:
        return image.filter(ImageFilter.GaussianBlur(1.5))
    return image.resize((image.width // 2, image.height // 2), Image.BILINEAR)


def facts(s, i, grammar):
    """What truth.json says about one scene."""
    one = scenes.take(s, np.array([i]))
    things = [[int(s["obj"][i, g]), int(s["count"][i, g]), scenes.PLACES_EN[s["place"][i, g]],
               scenes.PLACES_JA[s["place"][i, g]]] for g in range(int(s["groups"][i]))]
    return {
        "things": things,
        "names": [[art.objects.load()[t[0]][k] for k in ("en", "ja")] for t in things],
        "background": {"kind": answers.GROUND_EN[s["ground"][i]], "colours": [scenes.COLOURS[c][0] for c in (
            [s["colour1"][i]] + ([s["colour2"][i]] if s["two"][i] else []))]},
        "light": answers.BRIGHT_EN[s["bright"][i]],
        "light_from": ["no side", "left", "right", "above", "below"][s["direction"][i]],
        "mood": answers.MOOD_EN[s["bright"][i] * 3 + s["warm"][i]],
        "texts": {language: [grammar.p.join(grammar.answer(one, kind, language)[0]) for kind in range(7)]
                  for language in q.LANGUAGES},
    }


def draw(name, n, seed, folder, formats=("jpg",)):
    """Renders one set into a folder; returns its truth."""
    grammar = answers.Grammar()
    rng = np.random.default_rng([seed, sorted(KINDS).index(name)])
    if name == "style":
        atlas = art.emojione()
        if atlas is None:
            return None
        sampler = scenes.Sampler(atlas, "train", [art.EMOJIONE], restyle=0.0)
    else:
        atlas = art.for_tests(os.path.join(HERE, "data"))
        sampler = scenes.Sampler(atlas, "test", [art.TWEMOJI, art.NOTO], restyle=0.25)
    pixels = atlas.pixels()
    os.makedirs(folder, exist_ok=True)
    s = sampler.sample(rng, n, kinds=KINDS[name], sizes=SIZES)
    truth = {"set": name, "seed": seed, "pictures": []}
    for i in range(n):
        height, width = (int(v) for v in s["grid"][i])
        one = {k: (v[i] if isinstance(v, np.ndarray) else v) for k, v in s.items()}
        if name == "blind":
            image = Image.new("RGB", (width, height), (128, 128, 128))
        else:
            image = Image.fromarray(render.numpy_picture(one, pixels, width, height, rng))
        if name == "worn":
            image = wear(image, rng)
        kind = formats[i % len(formats)]
        path = "%s-%04d.%s" % (name, i, kind)
        image.save(os.path.join(folder, path), **({"quality": 88} if kind == "jpg" else {}))
        truth["pictures"].append({"file": path, **facts(s, i, grammar)})
    with open(os.path.join(folder, "truth.json"), "w", encoding="utf-8") as handle:
        json.dump(truth, handle, ensure_ascii=False, indent=1)
        handle.write("\n")
    return truth


# ---- answers -------------------------------------------------------------------------------------------------


def ask_program(args, pipeline, language, folder, files):
    """{file: [text of every item]} from the program."""
    told = {}
    for start in range(0, len(files), 200):
        some = [os.path.join(folder, f) for f in files[start : start + 200]]
        command = [args.runner, os.path.join(args.pipelines, pipeline + ".yaml"), *some, "--format", "json",
                   "--greedy", "--set", "language=" + language, *args.more]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit("%s failed (%d)\n%s" % (" ".join(command[:2]), done.returncode, done.stderr[-2000:]))
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                answer = json.loads(line)
                told[os.path.basename(answer["image"])] = [item["text"] for item in answer["items"]]
    return told


def ask_torch(args, pipeline, language, folder, files):
    import torch

    import reference

    if not hasattr(args, "reference"):
        args.reference = reference.Reference(args.model)
        args.looked = {}
    ref, told = args.reference, {f: [] for f in files}
    for start in range(0, len(files), 100):
        some = files[start : start + 100]
        if (folder, start) not in args.looked:
            rows = []
            for name in some:
                x, high, wide = reference.patches(np.asarray(reference.prepare(Image.open(os.path.join(folder, name)))))
                rows.append(ref.look(x[None], high, wide)[1][0])
            args.looked[folder, start] = ref.prefix(torch.stack(rows))
        for kind in ITEMS[pipeline]:
            texts, _ = ref.ask(args.looked[folder, start], ref.prompt.item(kind, language), most=60)
            for name, text in zip(some, texts):
                told[name].append(text)
    return told


def judge(args, truth, folder):
    """Tally per language of one set."""
    reader = score.Reader()
    files = [p["file"] for p in truth["pictures"]]
    result = {}
    for language in q.LANGUAGES:
        tally = score.Tally()
        for pipeline, kinds in ITEMS.items():
            ask = ask_torch if args.backend == "torch" else ask_program
            told = ask(args, pipeline, language, folder, files)
            for picture in truth["pictures"]:
                for kind, text in zip(kinds, told[picture["file"]]):
                    known = {"things": picture["things"], "texts": dict(enumerate(picture["texts"][language]))}
                    score.score(reader, tally, kind, language, text, known)
                    if args.verbose and kind in (q.SUBJECT,) and text.strip() != known["texts"][kind]:
                        print("  %s %s: said '%s', true '%s'" % (picture["file"], language, text, known["texts"][kind]))
        result[language] = tally
    return result


def majority(truth):
    """Shares that the commonest answer of each slot would get."""
    values = {"name": [], "count": [], "place": [], "colour": [], "light": [], "mood": [], "background": [], "refusal": []}
    for p in truth["pictures"]:
        for thing in p["things"]:
            values["name"].append(thing[0])
            values["count"].append(thing[1])
            values["place"].append(thing[2])
        parts = score.split(p["texts"]["en"][q.COLOUR], "en")
        for slot, part in zip(("colour", "light", "mood"), parts):
            values[slot].append(part)
        values["background"].append(p["texts"]["en"][q.SCENE])
        values["refusal"].append(not p["things"])
    return {k: max(v.count(x) for x in set(v)) / len(v) for k, v in values.items() if v}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="all", choices=["all", "render", "score"])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--sets", default="unseen,worn,style,nothing,blind")
    parser.add_argument("--out")
    parser.add_argument("--keep", help="folder for the pictures (default: a temporary one)")
    parser.add_argument("--runner", default=os.path.join(ROOT, "build", "kotaro-run"))
    parser.add_argument("--pipelines", default=os.path.join(ROOT, "pipelines"))
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "kotaro-tiny"))
    parser.add_argument("--backend", choices=["program", "torch"], default="program")
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--floor", default="", help="slot=share,...: exit 1 where a set but blind stays below in a language")
    parser.add_argument("--verbose", action="store_true", help="print wrong subject answers")
    parser.add_argument("more", nargs="*", help="after --: further arguments of the program")
    args = parser.parse_args()
    if args.command == "score":
        with open(os.path.join(args.folder, "truth.json"), encoding="utf-8") as handle:
            truth = json.load(handle)
        return report(args, {truth["set"]: (truth, judge(args, truth, args.folder))})
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    names = args.sets.split(",")
    if args.command == "render":
        for name in names:
            folder = args.out if len(names) == 1 else os.path.join(args.out, name)
            print(name, "not drawn: ruby-gemojione is not installed" if draw(name, args.n, seed, folder) is None else folder)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        results = {}
        for name in names:
            folder = os.path.join(args.keep or scratch, name)
            truth = draw(name, args.n, seed, folder)
            if truth is None:
                print("%-8s left out: Debian's ruby-gemojione is not installed" % name)
                continue
            results[name] = (truth, judge(args, truth, folder))
        return report(args, results)


def report(args, results):
    floors = dict(part.split("=") for part in args.floor.split(",") if part)
    numbers, low = {}, []
    for name, (truth, tallies) in results.items():
        print("\n%s, %d pictures" % (name, len(truth["pictures"])))
        usual = majority(truth)
        for slot in SLOTS:
            if not any(slot in t.tries for t in tallies.values()):
                continue
            line = "  %-12s" % slot
            for language, t in tallies.items():
                line += " %s %s  " % (language, t.line(slot))
                share = t.hits.get(slot, 0) / max(1, t.tries.get(slot, 0))
                numbers.setdefault(name, {}).setdefault(language, {})[slot] = [t.hits.get(slot, 0), t.tries.get(slot, 0)]
                if name != "blind" and slot in floors and share < float(floors[slot]):
                    low.append("%s %s %s: %.3f is below %s" % (name, language, slot, share, floors[slot]))
            print(line + ("commonest answer %.1f %%" % (100 * usual[slot]) if slot in usual else ""))
    if args.json:
        with open(args.json, "w") as handle:
            json.dump(numbers, handle, indent=1)
    for line in low:
        print("below the floor:", line)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
