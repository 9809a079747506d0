"""Text models of one GGUF file, as store.Store gives those of a folder: weights by their Hugging Face names.

Reads the types that SmolLM2's files hold: F32, F16, Q4_0, Q4_1, Q8_0. Rows of llama files' q and k are put back in the
order of Hugging Face: row h * hd + 2 j + p of the file is row h * hd + p * hd / 2 + j.
"""
import struct
from pathlib import Path

import numpy as np

from arrays import torch

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
           "lm_head.weight": "output.weight"}


def halves(blocks, first):
    """The f16 at byte `first` of every block, as f32 column."""
    return np.ascontiguousarray(blocks[:, first:first + 2]).view(np.float16).astype(np.float32)


def nibbles(blocks):
    """16 bytes hold numbers 0 .. 15 in their low halves and 16 .. 31 in their high ones."""
    return np.concatenate([blocks & 15, blocks >> 4], 1).astype(np.float32)


# type: (bytes of a block, numbers of a block, how to read blocks [n, bytes] as f32 [n, numbers])
TYPES = {
    0: (4, 1, lambda b: b.view(np.float32)),
    1: (2, 1, lambda b: b.view(np.float16).astype(np.float32)),
    2: (18, 32, lambda b: halves(b, 0) * (nibbles(b[:, 2:]) - 8)),
    3: (20, 32, lambda b: halves(b, 0) * nibbles(b[:, 4:]) + halves(b, 2)),
    8: (34, 32, lambda b: halves(b, 0) * np.ascontiguousarray(b[:, 2:]).view(np.int8).astype(np.float32)),
}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def one(self, code):
        value, = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        n = self.one("Q")
        self.at += n
        return bytes(self.data[self.at - n:self.at]).decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, n = self.one("I"), self.one("Q")
            return [self.value(inner) for _ in range(n)]
        return self.one(SCALARS[kind])


class GgufStore:
    device = "cpu"

    def __init__(self, path):
        self.data = np.memmap(Path(path), np.uint8, "r")
        r = Reader(self.data)
        assert bytes(self.data[:4]) == b"GGUF", "no GGUF file"
        r.at = 8
        n_tensors, n_keys = r.one("Q"), r.one("Q")
        self.keys = {}
        for _ in range(n_keys):
            key = r.text()
            self.keys[key] = r.value(r.one("I"))
        self.tensors = {}
        for _ in range(n_tensors):
            name, rank = r.text(), r.one("I")
            shape = [r.one("Q") for _ in range(rank)][::-1]  # the file has the fastest first
            self.tensors[name] = (shape, r.one("I"), r.one("Q"))
        align = self.keys.get("general.alignment", 32)
        self.start = -(-r.at // align) * align
        self.arch = self.keys["general.architecture"]

    def config(self):
        k, a = self.keys, self.arch + "."
        return {"hidden_size": k[a + "embedding_length"], "num_hidden_layers": k[a + "block_count"],
                "num_attention_heads": k[a + "attention.head_count"],
                "num_key_value_heads": k[a + "attention.head_count_kv"], "rope_theta": k[a + "rope.freq_base"],
                "rms_norm_eps": k[a + "attention.layer_norm_rms_epsilon"]}

    def name_of(self, name):
        if name in OUTSIDE:
            return OUTSIDE[name]
        layer, _, rest = name.partition("model.layers.")[2].partition(".")
        stem, _, end = rest.rpartition(".")
        return f"blk.{layer}.{LAYER[stem]}.{end}" if stem in LAYER else name

    def __contains__(self, name):
        return self.name_of(name) in self.tensors

    def state(self, name):
        return None

    def plain(self, name):
        """f32, dequantised."""
        own = self.name_of(name)
        shape, kind, offset = self.tensors[own]
        size, numbers, read = TYPES[kind]
        n = int(np.prod(shape)) // numbers
        blocks = np.array(self.data[self.start + offset:self.start + offset + n * size]).reshape(n, size)
        x = np.ascontiguousarray(read(blocks), np.float32).reshape(shape)
        if self.arch == "llama" and (".attn_q." in own or ".attn_k." in own):
            hd = self.keys["llama.embedding_length"] // self.keys["llama.attention.head_count"]
            x = x.reshape(-1, hd // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        return torch.from_numpy(np.ascontiguousarray(x))
