"""The prompt as the runtime writes it, in token ids."""

import os

import questions as q
from model import QUERIES


class Prompt:
    def __init__(self, folder):
        from tokenizers import Tokenizer

        self.tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.before = self.encode("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
                                  "<image_id>0</image_id><image>")
        self.after = self.encode("</image>\n")
        self.unk = self.tok.token_to_id("<unk>")
        self.end = self.tok.token_to_id("<|im_end|>")
        self.stop = [self.end, self.tok.token_to_id("<|endoftext|>")]
        self.header = len(self.before) + QUERIES + len(self.after)

    def encode(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.tok.decode(ids, skip_special_tokens=False)

    def branch(self, shared, ask):
        """Ids after the picture: shared text, question, start of the answer."""
        text = (shared + "\n" if shared else "") + ask
        return self.encode(text + "<|im_end|>\n<|im_start|>assistant\n")

    def item(self, kind, language):
        """The branch of one of the seven pipeline questions."""
        pipeline = "full" if kind <= q.CAPTION else "simple"
        return self.branch(q.SHARED[pipeline][language], q.ASK[kind][language])

    def whole(self, branch):
        return self.before + [self.unk] * QUERIES + self.after + branch
