"""Prompts as token ids: the chat template of MiniCPM-V 2.6, a tokenizer for ASCII, and one of single bytes."""
import json
import re

MARKUP = ["<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "</image>", "<image_id>",
          "</image_id>", "<slice>", "</slice>"]
SIZE = 256 + len(MARKUP)
STOP = ("<|im_end|>", "<|endoftext|>")


def byte_names():
    """The character that stands for each byte in a byte-level vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, n = {}, 0
    for b in range(256):
        if b in shown:
            names[b] = chr(b)
        else:
            names[b] = chr(256 + n)
            n += 1
    return names


def write_tokenizer(path):
    """Of single bytes: id 0 .. 255 is that byte, behind them the markup."""
    split = {"type": "Split", "pattern": {"Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
                                          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"},
             "behavior": "Isolated", "invert": False}
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    path.write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=256 + i, content=t, **flags) for i, t in enumerate(MARKUP)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, cut]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {name: b for b, name in byte_names().items()}, "merges": []}}))


class Tokenizer:
    """A byte-level BPE tokenizer.json of the Qwen2 kind. ASCII text only, which is what the tests ask in."""

    PIECES = re.compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*"
                        r"|\s*[\r\n]+|\s+(?!\S)|\s+")

    def __init__(self, path):
        whole = json.loads(path.read_text())
        self.vocab = whole["model"]["vocab"]
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in whole["model"]["merges"]]
        self.rank = {pair: i for i, pair in enumerate(merges)}
        self.added = {t["content"]: t["id"] for t in whole["added_tokens"]}
        self.marks = re.compile("(" + "|".join(map(re.escape, sorted(self.added, key=len, reverse=True))) + ")")
        self.names = byte_names()

    def merge(self, parts):
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda i: self.rank.get((parts[i], parts[i + 1]), len(self.rank)))
            if (parts[best], parts[best + 1]) not in self.rank:
                break
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        return [self.vocab[p] for p in parts]

    def encode(self, text):
        """Ids of text with markup in it."""
        assert text.isascii()
        ids = []
        for i, piece in enumerate(self.marks.split(text)):
            if i % 2:
                ids.append(self.added[piece])
                continue
            for word in self.PIECES.findall(piece):
                ids += self.merge([self.names[b] for b in word.encode()])
        return ids


def picture_text(grid):
    """What stands for a picture; <unk> for the queries of a view."""
    text = "<image_id>0</image_id><image><unk></image>"
    if grid:
        text += "\n".join("<slice><unk></slice>" * grid[0] for _ in range(grid[1]))
    return text


def write_prompt(tokenizer, question, grid, queries, picture=True):
    """Ids; row i of the picture's features is id -1 - i."""
    before = picture_text(grid) + "\n" if picture else ""
    text = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            f"{before}{question}<|im_end|>\n<|im_start|>assistant\n")
    ids, row = [], 0
    for i in tokenizer.encode(text):
        if picture and i == tokenizer.added["<unk>"]:
            ids += range(-1 - row, -1 - row - queries, -1)
            row += queries
        else:
            ids.append(i)
    return ids
