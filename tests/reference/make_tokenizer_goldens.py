#!/usr/bin/env python3
"""Goldens for tests/test_tokenizer.c, made with the Python library 'tokenizers'.

  small FOLDER                  trains FOLDER/small_tokenizer.json on the sentences below and writes its goldens
  compose FOLDER OUT            a tokenizer.json from a Qwen2-type FOLDER (vocab.json, merges.txt, tokenizer_config.json)
  goldens TOKENIZER OUT N       goldens of any tokenizer.json: the fixed texts below and N random ones
  points TOKENIZER OUT          goldens of "a" + c + "b" for every code point c

A golden is a line: s or p (special tokens are found, or plain text), the UTF-8 of the text in hex, the ids.
Characters that Unicode 14, the version of Debian 12's PCRE2, does not have are left out: the library knows newer ones,
and letters among them are cut differently. Run it with a Python that has Unicode 14 (3.11).
"""
import json
import random
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")

CORPUS = [
    "Look at the picture carefully and answer briefly.",
    "What is shown, how many, and where? Two apples are at the top left.",
    "How is the picture composed? The picture's centre is empty.",
    "You are a helpful assistant. I'll do what I can; they've seen it.",
    "画像をよく見て、日本語で簡潔に答えてください。",
    "何が、いくつ、どこに写っていますか。左上にりんごが二つあります。",
    "構図はどうなっていますか。色、光、雰囲気はどうですか。",
    "user\nassistant\nsystem\n1. 2. 3.\n",
    "カメラとガラスのコップが机の上にあります。",
    "aaaaaaaa baaad zzzz nnnnn ののののの",
]

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<image>", "</image>", "<slice>", "</slice>", "<unk>"]

FIXED = [
    "", " ", "  ", "\n", "\r\n", "\n\n \n", "a", "!", "Hi!", "Hello world", " Hello world", "hello  world   !",
    "I'll they've HE'S it'ſ 'S 'LL 'x", "12345 ٣٤٥ ⅷ ½ 一二三", "a\u3000b\u00a0c\u2003d\u180ee\u200bf\u0085g",
    "tabs\tand\t\tmore", "trailing spaces   ", "   leading", "line one\nline two\r\nline three\r",
    "画像をよく見て、日本語で簡潔に答えてください。", "か\u3099", "が", "ハ\u309aン", "e\u0301le\u0300ve", "\u0301a", "A\u030a\u0323",
    "\u1112\u1161\u11ab", "\ufb01 \u2126 \u212b \uff21 ﾃｽﾄ", "👨\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈 🇯🇵 👍🏽 1️⃣", "😀😀😀",
    "<|im_start|>user\nHi<|im_end|>\n", "<|im_start", "<<|im_end|>>", "<|im_start|><|im_start|>", "a<image>b</image>c",
    "<image><|im_end|", "x <unk> y", "<|endoftext|", "<IMAGE>", "が<image>か\u3099<unk>\u3099", "\u0000", "a\u0000b",
    "اَلْعَرَبِيَّةُ", "हिन्दी में", "Ελληνικά", "русский ёж", "ภาษาไทย", "中文字符", "한국어", "Zażółć gęślą jaźń", "\U0010ffff\ufffd\ufeff",
    "def f(x):\n    return x ** 2  # comment\n\n\n", "https://example.org/?a=1&b=%E3%81%82", "===---+++***", "a" * 1000, " " * 300,
    "の" * 200, "ab" * 500 + "!", "\n" * 50 + "x", "\t \t \n x", "TAG_STRIP  TAG_LEFT <cat> TAG_RIGHT  x", "ねこ\u3099ねこ <cat><cat> cat",
    "x  TAG_LEFT y \n TAG_STRIP\t z", "\u3000TAG_STRIP", " \u00a0\u2003TAG_LEFT", "aaa", "aaaaa", "zzz", "baaab",
]


def pools():
    yield lambda r: r.choice(["the ", "picture", "What's", "I've", "DON'T", "'re", "e.g.", "café", "naïve", "x1y2"])
    yield lambda r: "".join(chr(r.randrange(0x3041, 0x3097)) for _ in range(r.randrange(1, 6)))
    yield lambda r: "".join(chr(r.randrange(0x30A1, 0x30FB)) for _ in range(r.randrange(1, 6)))
    yield lambda r: "".join(chr(r.randrange(0x4E00, 0x9FA6)) for _ in range(r.randrange(1, 5)))
    yield lambda r: r.choice("かきくけこはひふへほウカキハヒ") + r.choice(["\u3099", "\u309a"])
    yield lambda r: r.choice("aeiouncAEO") + "".join(chr(r.randrange(0x300, 0x370)) for _ in range(r.randrange(1, 4)))
    yield lambda r: r.choice([" ", "  ", "\n", "\r\n", "\t", "\u3000", "\u00a0", "\u2009", "\n\n", " \n ", "\u2028", "\u180e"])
    yield lambda r: r.choice("、。「」！？・…ー～.,!?;:-()[]{}<>|/\\\"'`@#$%^&*+=_")
    yield lambda r: "".join(r.choice("0123456789") for _ in range(r.randrange(1, 8)))
    yield lambda r: r.choice(["👨\u200d👩\u200d👧", "🏳️\u200d🌈", "🇯🇵", "👍🏽", "1️⃣", "🧑\u200d🚀", "😀", "❤️", "🏴\U000e0067\U000e0062\U000e007f"])
    yield lambda r: r.choice(SPECIAL + ["<|im_", "end|>", "<ima", "ge>", "<|", "|>", "<", "<image_id>", "</image_id>", "<|reserved_special_token_3|>"])
    yield lambda r: chr(r.choice([r.randrange(0x80, 0x800), r.randrange(0x800, 0xD800), r.randrange(0xE000, 0x10000),
                                  r.randrange(0x10000, 0x20000)]))
    yield lambda r: "".join(chr(r.randrange(0xAC00, 0xD7A4)) for _ in range(2)) + chr(r.randrange(0x1100, 0x1113)) + chr(r.randrange(0x1161, 0x1176))
    yield lambda r: r.choice(["ｶﾞ", "①", "㍿", "ﬁ", "ſ", "K", "Å", "İ", "ß", "ǆ"])
    yield lambda r: r.choice("abcxyz") * r.randrange(1, 60)


def random_texts(n, seed=1):
    r = random.Random(seed)
    makers = list(pools())
    for _ in range(n):
        yield "".join(r.choice(makers)(r) for _ in range(r.randrange(1, 14)))


def is_old(text):
    return all(unicodedata.category(c) != "Cn" for c in text)


def write_goldens(tokenizer, texts, out):
    texts = [text for text in texts if is_old(text)]
    with open(out, "w") as file:
        for special in (True, False):
            tokenizer.encode_special_tokens = not special
            for text in texts:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                file.write(f"{'s' if special else 'p'}\t{text.encode().hex()}\t{' '.join(map(str, ids))}\n")


def qwen_parts(tokenizer):
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()


def make_small(folder):
    tokenizer = Tokenizer(models.BPE())
    qwen_parts(tokenizer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=480, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([
        AddedToken("<cat>", normalized=True), AddedToken("ねご", normalized=True),
        AddedToken("TAG_STRIP", normalized=False, lstrip=True, rstrip=True),
        AddedToken("TAG_LEFT", normalized=False, lstrip=True), AddedToken("TAG_RIGHT", normalized=True, rstrip=True)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<image_id>", "</image_id>")])
    tokenizer.save(f"{folder}/small_tokenizer.json")
    tokenizer = Tokenizer.from_file(f"{folder}/small_tokenizer.json")
    write_goldens(tokenizer, FIXED + list(random_texts(300)), f"{folder}/small_tokenizer.goldens")


def compose(folder, out):
    merges = [line for line in open(f"{folder}/merges.txt", encoding="utf-8").read().split("\n") if line]
    if merges[0].startswith("#version"):
        merges = merges[1:]
    vocab = json.load(open(f"{folder}/vocab.json", encoding="utf-8"))
    config = json.load(open(f"{folder}/tokenizer_config.json", encoding="utf-8"))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges]))
    qwen_parts(tokenizer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [{"id": int(i), **t} for i, t in config["added_tokens_decoder"].items()]
    json.dump(document, open(out, "w", encoding="utf-8"), ensure_ascii=False, indent=2)


def main():
    verb, args = sys.argv[1], sys.argv[2:]
    if verb == "small":
        make_small(args[0])
    elif verb == "compose":
        compose(*args)
    elif verb == "goldens":
        write_goldens(Tokenizer.from_file(args[0]), FIXED + list(random_texts(int(args[2]))), args[1])
    elif verb == "points":
        points = (c for c in range(0x110000) if not 0xD800 <= c < 0xE000)
        write_goldens(Tokenizer.from_file(args[0]), [f"a{chr(c)}b" for c in points], args[1])
    else:
        sys.exit(__doc__)


main()
