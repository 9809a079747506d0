"""The grammar: from the facts of scenes to the answer of every question, in English and Japanese.

An answer is a row of phrase numbers; Phrases knows their texts and, once a tokenizer is there, their tokens.
So a batch of answers is written without a loop over scenes. Nothing that a phrase row says is not in the facts.
"""

import numpy as np

import objects
import questions as q
import scenes

NUMBERS_EN = ["no", "one", "two", "three", "four", "five", "six"]
GROUND_EN = ["plain", "fading", "striped", "checked", "dotted", "grainy", "blurred"]
BRIGHT_EN = ["dim", "soft", "bright"]
BRIGHT_JA = ["暗い", "やわらかい", "明るい"]
DIRECTION_EN = ["and even", "and comes from the left", "and comes from the right", "and comes from above",
                "and comes from below"]
DIRECTION_JA = ["均一な光です", "光が左から差しています", "光が右から差しています", "光が上から差しています", "光が下から差しています"]
# by brightness (dark, middle, bright), then warmth (neutral, warm, cool)
MOOD_EN = ["solemn", "nostalgic", "mysterious", "quiet", "cosy", "calm", "clean", "cheerful", "fresh"]
MOOD_JA = ["重厚な", "懐かしい", "神秘的な", "静かな", "温かい", "落ち着いた", "すっきりした", "明るく楽しい", "さわやかな"]
SIZE_EN = ["small", "medium-sized", "large"]
SIZE_JA = ["小さな", "中くらいの", "大きな"]
ARRANGED_EN = ["side by side", "one above the other", "close together", "spread over the picture"]
ARRANGED_JA = ["横に並んでいます", "縦に並んでいます", "固まっています", "画面に散らばっています"]
NOTHING = {"en": "I see nothing that I know.", "ja": "知っている物は写っていません。"}
NOT_KNOWN = {"en": "I do not know.", "ja": "それは分かりません。"}


class Phrases:
    """Numbers for texts; number 0 is the empty text."""

    def __init__(self):
        self.text = [""]
        self.number = {"": 0}

    def __call__(self, text):
        if text not in self.number:
            self.number[text] = len(self.text)
            self.text.append(text)
        return self.number[text]

    def list(self, texts):
        return np.array([self(t) for t in texts])

    def tokenise(self, encode):
        rows = [encode(t) for t in self.text]
        self.length = np.array([len(r) for r in rows])
        self.table = np.zeros((len(rows), max(1, self.length.max())), np.int64)
        for i, row in enumerate(rows):
            self.table[i, : len(row)] = row

    def flatten(self, rows, width, pad):
        """Tokens [n, width] and lengths of phrase rows [n, k]."""
        length = self.length[rows]
        start = np.cumsum(length, 1) - length
        total = length.sum(1)
        if total.max() > width:
            raise ValueError("an answer of %d tokens does not fit %d" % (total.max(), width))
        out = np.full((len(rows), width), pad, np.int64)
        j = np.arange(self.table.shape[1])
        keep = j < length[:, :, None]
        at = (start[:, :, None] + j)[keep]
        out[np.broadcast_to(np.arange(len(rows))[:, None, None], keep.shape)[keep], at] = self.table[rows][keep]
        return out, total

    def join(self, row):
        return "".join(self.text[i] for i in row)


class Row:
    """Collects columns of phrase numbers."""

    def __init__(self, phrases, n):
        self.phrases, self.n, self.columns = phrases, n, []

    def put(self, what, where=None):
        column = np.full(self.n, self.phrases(what)) if isinstance(what, str) else what
        self.columns.append(column if where is None else np.where(where, column, 0))

    def rows(self):
        return np.stack(self.columns, 1)


class Grammar:
    def __init__(self):
        self.p = p = Phrases()
        known = objects.load()
        self.name = {
            "en1": p.list([" " + o["en"] for o in known]),
            "enN": p.list([" " + o["plural"] for o in known]),
            "ja": p.list([o["ja"] for o in known]),
            "counter": p.list([o["counter"] for o in known]),
        }
        self.one = p.list(["One", "Two", "Three", "Four", "Five"])
        self.low = p.list([" " + w for w in NUMBERS_EN[1:6]])
        self.digit = p.list(list("12345"))
        self.place_en = p.list([" " + w for w in scenes.PLACES_EN])
        self.place_ja = p.list([w + "に" for w in scenes.PLACES_JA])
        self.colour_en = p.list([" " + c[0] for c in scenes.COLOURS])
        self.colour_ja = p.list([c[1] for c in scenes.COLOURS])
        self.article = p.list([" an" if c[0][0] in "aeiou" else " a" for c in scenes.COLOURS])
        self.mood_en = p.list([" " + w for w in MOOD_EN])
        self.mood_ja = p.list(MOOD_JA)
        self.bright_en = p.list([" " + w for w in BRIGHT_EN])
        self.bright_ja = p.list(BRIGHT_JA)
        self.direction_en = p.list([" " + w for w in DIRECTION_EN])
        self.direction_ja = p.list(DIRECTION_JA)
        self.size_en = p.list([" " + w for w in SIZE_EN])
        self.size_ja = p.list(SIZE_JA)
        self.arranged_en = p.list([" " + w for w in ARRANGED_EN])
        self.arranged_ja = p.list(ARRANGED_JA)
        # registers every phrase: the grammar runs once on an empty batch
        empty = {k: np.zeros((1, 3), np.int64) for k in ("obj", "count", "place")}
        for k in ("groups", "total", "size", "arrangement", "ground", "colour1", "colour2", "bright", "warm",
                  "direction"):
            empty[k] = np.zeros(1, np.int64)
        empty["two"] = np.zeros(1, bool)
        for kind in range(8):
            for language in q.LANGUAGES:
                self.answer(empty, kind, language)

    def answer(self, s, kind, language):
        """Phrase rows [n, k] that answer question `kind` about every scene."""
        row = Row(self.p, len(s["groups"]))
        if kind == q.OTHER:
            row.put(NOT_KNOWN[language])
        else:
            (self.english if language == "en" else self.japanese)(row, s, kind)
        return row.rows()

    def mood(self, s, table):
        return table[s["bright"] * 3 + s["warm"]]

    # ---- English -----------------------------------------------------------------------------------------

    def english(self, row, s, kind):
        any_, none = s["groups"] > 0, s["groups"] == 0
        if kind in (q.SUBJECT, q.THING, q.COMPOSITION):
            row.put(NOTHING["en"], none)
        if kind in (q.SUBJECT, q.THING):
            self.things_en(row, s, kind == q.SUBJECT)
            row.put(".", any_)
        elif kind == q.COMPOSITION:
            single, many = s["total"] == 1, s["total"] > 1
            row.put("One", single)
            row.put(self.size_en[s["size"]], single)
            row.put(" object", single)
            row.put(self.place_en[s["place"][:, 0]], single)
            row.put(self.one[np.clip(s["total"] - 1, 0, 4)], many)
            row.put(" objects", many)
            row.put(self.arranged_en[s["arrangement"]], many)
            row.put(self.place_en[s["place"][:, 0]], many & (s["arrangement"] == scenes.TOGETHER))
            row.put(".", any_)
        elif kind == q.COLOUR:
            row.put("The background is")
            self.colours_en(row, s)
            row.put(". The light is")
            row.put(self.bright_en[s["bright"]])
            row.put(self.direction_en[s["direction"]])
            row.put(". The mood is")
            row.put(self.mood(s, self.mood_en))
            row.put(".")
        elif kind == q.CAPTION:
            self.things_en(row, s, False)
            row.put(" on", any_)
            row.put("On", none)
            row.put(self.article[s["colour1"]])
            self.colours_en(row, s)
            row.put(" background. A picture with a")
            row.put(self.mood(s, self.mood_en))
            row.put(" mood.")
        elif kind == q.SCENE:
            self.scene_en(row, s)
        elif kind == q.MOOD:
            row.put("The mood is")
            row.put(self.mood(s, self.mood_en))
            row.put(".")

    def things_en(self, row, s, places):
        for g in range(3):
            here = s["groups"] > g
            last = s["groups"] == g + 1
            count = np.clip(s["count"][:, g] - 1, 0, 4)
            if g == 0:
                row.put(self.one[count], here)
            else:
                row.put(" and", here & last)
                row.put(",", here & ~last)
                row.put(self.low[count], here)
            obj = s["obj"][:, g]
            row.put(np.where(count == 0, self.name["en1"][obj], self.name["enN"][obj]), here)
            if places:
                row.put(self.place_en[s["place"][:, g]], here)

    def colours_en(self, row, s):
        row.put(self.colour_en[s["colour1"]])
        row.put(" and", s["two"])
        row.put(self.colour_en[s["colour2"]], s["two"])

    def scene_en(self, row, s):
        ground = s["ground"]
        c1, c2 = self.colour_en[s["colour1"]], self.colour_en[s["colour2"]]
        fade, blur, grain = ground == scenes.FADE, ground == scenes.BLURRED, ground == scenes.GRAINY
        row.put("A plain", ground == scenes.PLAIN)
        row.put("A grainy", grain)
        row.put("A background that fades from", fade)
        row.put("A blurred background of", blur)
        row.put("A background with", np.isin(ground, [scenes.STRIPES, scenes.CHECKS]))
        row.put("A background in", ground == scenes.DOTS)
        row.put(c1)
        row.put(" background", (ground == scenes.PLAIN) | grain)
        row.put(" to", fade)
        row.put(" with", ground == scenes.DOTS)
        row.put(" and", np.isin(ground, [scenes.STRIPES, scenes.CHECKS, scenes.BLURRED]))
        row.put(c2, s["two"])
        row.put(" stripes", ground == scenes.STRIPES)
        row.put(" checks", ground == scenes.CHECKS)
        row.put(" dots", ground == scenes.DOTS)
        row.put(".")

    # ---- Japanese ----------------------------------------------------------------------------------------

    def japanese(self, row, s, kind):
        any_, none = s["groups"] > 0, s["groups"] == 0
        if kind in (q.SUBJECT, q.THING, q.COMPOSITION):
            row.put(NOTHING["ja"], none)
        if kind == q.SUBJECT:
            for g in range(3):
                here = s["groups"] > g
                row.put("、", here if g else np.zeros(row.n, bool))
                row.put(self.place_ja[s["place"][:, g]], here)
                row.put(self.name["ja"][s["obj"][:, g]], here)
                row.put("が", here)
                self.count_ja(row, s, g, here)
            row.put("写っています。", any_)
        elif kind == q.THING:
            self.things_ja(row, s)
            row.put("です。", any_)
        elif kind == q.COMPOSITION:
            single, many = s["total"] == 1, s["total"] > 1
            near = many & (s["arrangement"] == scenes.TOGETHER)
            row.put(self.place_ja[s["place"][:, 0]], single)
            row.put(self.size_ja[s["size"]], single)
            row.put("物が1つあります。", single)
            row.put("全部で", many)
            row.put(self.digit[np.clip(s["total"] - 1, 0, 4)], many)
            row.put("つの物が", many)
            row.put(self.place_ja[s["place"][:, 0]], near)
            row.put(self.arranged_ja[s["arrangement"]], many)
            row.put("。", many)
        elif kind == q.COLOUR:
            row.put("背景は")
            self.colours_ja(row, s)
            row.put("です。")
            row.put(self.bright_ja[s["bright"]])
            row.put(self.direction_ja[s["direction"]])
            row.put("。")
            row.put(self.mood(s, self.mood_ja))
            row.put("雰囲気です。")
        elif kind == q.CAPTION:
            self.colours_ja(row, s)
            row.put("の背景に", any_)
            row.put("の背景の、", none)
            self.things_ja(row, s)
            row.put("。", any_)
            row.put(self.mood(s, self.mood_ja))
            row.put("一枚です。")
        elif kind == q.SCENE:
            self.scene_ja(row, s)
        elif kind == q.MOOD:
            row.put(self.mood(s, self.mood_ja))
            row.put("雰囲気です。")

    def count_ja(self, row, s, g, here):
        row.put(self.digit[np.clip(s["count"][:, g] - 1, 0, 4)], here)
        row.put(self.name["counter"][s["obj"][:, g]], here)

    def things_ja(self, row, s):
        for g in range(3):
            here = s["groups"] > g
            row.put("と", here if g else np.zeros(row.n, bool))
            row.put(self.name["ja"][s["obj"][:, g]], here)
            self.count_ja(row, s, g, here)

    def colours_ja(self, row, s):
        row.put(self.colour_ja[s["colour1"]])
        row.put("と", s["two"])
        row.put(self.colour_ja[s["colour2"]], s["two"])

    def scene_ja(self, row, s):
        ground = s["ground"]
        fade = ground == scenes.FADE
        row.put(self.colour_ja[s["colour1"]])
        row.put("から", fade)
        row.put("地に", ground == scenes.DOTS)
        row.put("と", np.isin(ground, [scenes.STRIPES, scenes.CHECKS, scenes.BLURRED]))
        row.put(self.colour_ja[s["colour2"]], s["two"])
        row.put("の無地の背景です。", ground == scenes.PLAIN)
        row.put("へ変わるグラデーションの背景です。", fade)
        row.put("の縞模様の背景です。", ground == scenes.STRIPES)
        row.put("の市松模様の背景です。", ground == scenes.CHECKS)
        row.put("の水玉模様の背景です。", ground == scenes.DOTS)
        row.put("のざらざらした背景です。", ground == scenes.GRAINY)
        row.put("のぼやけた背景です。", ground == scenes.BLURRED)
