"""Reads answers slot by slot and scores them against the facts of a scene. Python's library only."""

import itertools
import math
import re

import objects
import questions as q

NUMBER = {w: i + 1 for i, w in enumerate(["one", "two", "three", "four", "five", "six"])}
PLACES_EN = ["at the top left", "at the top right", "at the top", "on the left", "in the centre", "on the right",
             "at the bottom left", "at the bottom right", "at the bottom", "all over the picture"]
PLACES_JA = ["左上", "右上", "左下", "右下", "画面全体", "中央", "左", "右", "上", "下"]
REFUSED = {"en": "I see nothing that I know", "ja": "知っている物は写っていません"}


def wilson(hits, n):
    """95 % interval of a share."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.96, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


class Reader:
    def __init__(self):
        known = objects.load()
        longest = lambda words: "|".join(sorted((re.escape(w) for w in words), key=len, reverse=True))
        self.en = {o["en"].lower(): i for i, o in enumerate(known)}
        self.en.update({o["plural"].lower(): i for i, o in enumerate(known)})
        self.ja = {o["ja"]: i for i, o in enumerate(known)}
        counters = longest({o["counter"] for o in known})
        self.thing_en = re.compile(r"\b(%s) (%s)(?: (%s))?(?=[,.]| and | on an? |$)" % (
            "|".join(NUMBER), longest(self.en), "|".join(PLACES_EN)))
        self.thing_ja = re.compile(r"(?:(%s)に)?(%s)が?([1-9])(?:%s)" % ("|".join(PLACES_JA), longest(self.ja), counters))

    def things(self, text, language):
        """[(object, count, place or None)] in the order told."""
        if language == "en":
            return [(self.en[n], NUMBER[c], p or None) for c, n, p in self.thing_en.findall(text.lower())]
        return [(self.ja[n], int(c), p or None) for p, n, c in self.thing_ja.findall(text)]


def aligned(said, truth):
    """Pairs the groups said with the true ones so that most slots agree; None where one side has no partner."""
    size = max(len(said), len(truth))
    said = list(said) + [None] * (size - len(said))
    truth = list(truth) + [None] * (size - len(truth))
    if size > 5:
        return list(zip(said, truth))
    worth = lambda pair: sum(a == b for a, b in zip(pair[0], pair[1])) if pair[0] and pair[1] else 0
    best = max(itertools.permutations(said), key=lambda order: sum(worth(p) for p in zip(order, truth)))
    return list(zip(best, truth))


class Tally:
    """Hits and tries per slot."""

    def __init__(self):
        self.hits, self.tries = {}, {}

    def add(self, slot, hit):
        self.tries[slot] = self.tries.get(slot, 0) + 1
        self.hits[slot] = self.hits.get(slot, 0) + bool(hit)

    def merge(self, other):
        for slot, n in other.tries.items():
            self.tries[slot] = self.tries.get(slot, 0) + n
            self.hits[slot] = self.hits.get(slot, 0) + other.hits[slot]

    def line(self, slot):
        hits, n = self.hits.get(slot, 0), self.tries.get(slot, 0)
        low, high = wilson(hits, n)
        return "%5.1f %% (%.1f to %.1f, n = %d)" % (100 * hits / max(1, n), 100 * low, 100 * high, n)


def score(reader, tally, kind, language, text, truth):
    """One answer. truth: dict with things [(object, count, English place, Japanese place)], texts {kind: text}."""
    want = [(o, c, pe if language == "en" else pj) for o, c, pe, pj in truth["things"]]
    refused = REFUSED[language] in text
    if kind in (q.SUBJECT, q.THING, q.COMPOSITION) and not want:
        tally.add("refusal", refused)
    elif kind in (q.SUBJECT, q.THING, q.CAPTION):
        for said, true in aligned(reader.things(text, language), want):
            tally.add("name", said and true and said[0] == true[0])
            if kind == q.SUBJECT:
                tally.add("count", said and true and said[1] == true[1])
                tally.add("place", said and true and said[2] == true[2])
        if kind == q.SUBJECT:
            tally.add("picture", sorted(map(str, reader.things(text, language))) == sorted(map(str, want)))
    if kind == q.COMPOSITION and want:
        tally.add("composition", text.strip() == truth["texts"][kind])
    if kind == q.COLOUR:
        for slot, said, true in zip(("colour", "light", "mood"), split(text, language), split(truth["texts"][kind], language)):
            tally.add(slot, said == true)
    if kind == q.SCENE:
        tally.add("background", text.strip() == truth["texts"][kind])
    if kind == q.MOOD:
        tally.add("mood", text.strip() == truth["texts"][kind])
    if kind == q.CAPTION:
        tally.add("short", 0 < len(text.strip()) <= 140)


def split(text, language):
    """The three sentences of a colour answer."""
    parts = re.split(r"\. |。" if language == "ja" else r"\. ", text.strip().rstrip("."))
    return (parts + ["", "", ""])[:3]
