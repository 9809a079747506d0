"""Trains the byte-level BPE of kotaro-tiny and writes it as tokenizer.json (same form as Qwen2's).

python3 tokenizer.py OUT_DIR      needs the `tokenizers` package
"""

import json
import os
import sys

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import answers
import questions as q

VOCABULARY = 1280
SPECIAL = ["<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "</image>", "<image_id>", "</image_id>",
           "<slice>", "</slice>"]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def texts():
    """What it is trained on, every text repeated by its weight."""
    grammar = answers.Grammar()
    names = np.concatenate([grammar.name[k] for k in ("en1", "ja", "enN")])
    names = set(names.tolist())
    for i, text in enumerate(grammar.p.text):
        yield from [text] * (24 if i in names else 40)
    for language in q.LANGUAGES:
        fixed = [ask[language] for ask in q.ASK] + [q.SHARED[p][language] for p in q.SHARED]
        yield from fixed * 60
        for more in q.OTHER_WORDS:
            yield from more[language] * 4
        yield from q.others(language)
    yield from ["system\nYou are a helpful assistant.", "user\n", "assistant\n"] * 60


def train():
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - len(SPECIAL), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), min_frequency=1)
    tok.train_from_iterator(texts(), trainer)
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    return tok


def write(folder):
    os.makedirs(folder, exist_ok=True)
    tok = train()
    path = os.path.join(folder, "tokenizer.json")
    tok.save(path)
    config = {
        "tokenizer_class": "Qwen2TokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "additional_special_tokens": SPECIAL[4:],
        "added_tokens_decoder": {
            str(tok.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                      "single_word": False, "special": True}
            for t in SPECIAL
        },
        "chat_template": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
                         "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
                         "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
                         "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    }
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as handle:
        json.dump(config, handle, ensure_ascii=False, indent=2)
        handle.write("\n")
    return tok


if __name__ == "__main__":
    tok = write(sys.argv[1])
    grammar = answers.Grammar()
    length = [len(tok.encode(t, add_special_tokens=False).ids) for t in grammar.p.text]
    print(tok.get_vocab_size(), "tokens; names take", np.mean([length[i] for i in grammar.name["en1"]]),
          np.mean([length[i] for i in grammar.name["ja"]]), "longest phrase", max(length))
