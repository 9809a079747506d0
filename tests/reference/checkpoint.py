#!/usr/bin/env python3
"""Random checkpoints in the Hugging Face layout, at any geometry, in any storage. numpy only.

    checkpoint.py --out DIR [--seed 1] [--storage nf4] [--shards 1] [--set hidden_size=256]...

A geometry is the config.json that is written. Weights are drawn so that activations are lively: every
product keeps the size of what goes in, scores spread over a few units, each block adds about half of
the hidden state's size at the start, the logits have a standard deviation of 3 (tied head) or 4. The same
seed gives the same bytes on every machine that has numpy's PCG64.
"""
import argparse
import json
from pathlib import Path

import numpy as np

import prompt

STORAGE = ("bf16", "f16", "f32", "nf4", "nf4_plain", "fp4", "fp4_plain")
NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                0.7229568362236023, 1.0], np.float32)
FP4 = np.array([0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4], np.float32)
FP4 = np.concatenate([FP4, -FP4])
NOT_QUANTISED = ("out_proj", "kv_proj", "lm_head")


def to_bf16(x):
    """The upper halves, as int16."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.int16)


def dynamic_map():
    """The 8-bit book of block scales."""
    values = [0.0, 1.0]
    for e in range(7):
        bounds = np.linspace(0.1, 1.0, 2 ** e + 1, dtype=np.float32)
        middle = (bounds[:-1] + bounds[1:]) / 2 * np.float32(10.0 ** (e - 6))
        values += [*middle, *-middle]
    return np.sort(np.array(values, np.float32))


def nearest(book, x):
    order = np.argsort(book, kind="stable")
    edges = (book[order][1:] + book[order][:-1]) / 2
    return order[np.searchsorted(edges, x)].astype(np.uint8)


class Writer:
    def __init__(self, config, storage, seed):
        self.config, self.storage = config, storage
        self.rng = np.random.default_rng(seed)
        self.tensors = {}  # name -> (dtype, array)

    def put_plain(self, name, x):
        kind = self.storage if self.storage in ("bf16", "f16", "f32") else "bf16"
        self.tensors[name] = {"bf16": lambda: ("BF16", to_bf16(x)), "f16": lambda: ("F16", x.astype(np.float16)),
                              "f32": lambda: ("F32", x.astype(np.float32))}[kind]()

    def put_4bit(self, name, x):
        kind, plain = self.storage[:3], self.storage.endswith("plain")
        book = NF4 if kind == "nf4" else FP4
        flat = x.astype(np.float32).reshape(-1)
        blocks = -(-flat.size // 64)
        padded = np.zeros(blocks * 64, np.float32)
        padded[:flat.size] = flat
        padded = padded.reshape(blocks, 64)
        absmax = np.abs(padded).max(1)
        state = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": list(x.shape)}
        scale = absmax
        if not plain:
            state.update(nested_blocksize=256, nested_dtype="float32", nested_offset=float(absmax.mean()))
            scale = self.put_nested(name, absmax - np.float32(state["nested_offset"]), state["nested_offset"])
        codes = nearest(book, padded / np.maximum(scale, 1e-12)[:, None]).reshape(-1)[:flat.size]
        codes = np.concatenate([codes, np.zeros(flat.size % 2, np.uint8)])
        self.tensors[name] = ("U8", (codes[0::2] << 4 | codes[1::2]).reshape(-1, 1))
        if plain:
            self.tensors[name + ".absmax"] = ("F32", absmax)
        self.tensors[name + ".quant_map"] = ("F32", book)
        text = np.frombuffer(json.dumps(state).encode(), np.uint8)
        self.tensors[f"{name}.quant_state.bitsandbytes__{kind}"] = ("U8", text)

    def put_nested(self, name, off, offset):
        """8-bit block scales; returns what they read back as."""
        book, groups = dynamic_map(), -(-off.size // 256)
        padded = np.zeros(groups * 256, np.float32)
        padded[:off.size] = off
        outer = np.abs(padded.reshape(groups, 256)).max(1).astype(np.float32)
        each = np.repeat(outer, 256)[:off.size]
        codes = nearest(book, off / np.maximum(each, 1e-12))
        self.tensors[name + ".absmax"] = ("U8", codes)
        self.tensors[name + ".nested_absmax"] = ("F32", outer)
        self.tensors[name + ".nested_quant_map"] = ("F32", book)
        return book[codes] * each + np.float32(offset)

    def draw(self, *shape, std, mean=0.0):
        return (self.rng.standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean)).astype(np.float32)

    def linear(self, name, n, k, gain=1.0, bias=True):
        w = self.draw(n, k, std=gain / k ** 0.5)
        four = self.storage not in ("bf16", "f16", "f32") and not any(s in name for s in NOT_QUANTISED)
        (self.put_4bit if four else self.put_plain)(name + ".weight", w)
        if bias:
            self.put_plain(name + ".bias", self.draw(n, std=0.1))

    def norm(self, name, n, bias=True):
        self.put_plain(name + ".weight", self.draw(n, std=0.15, mean=1.0))
        if bias:
            self.put_plain(name + ".bias", self.draw(n, std=0.1))

    def text(self, prefix, bias):
        c = self.config
        d, heads, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        hd = c.get("head_dim", d // heads)
        # As a head it would name the token it was given, were it larger.
        std = 3 / d ** 0.5 if c["tie_word_embeddings"] else 1 / c.get("scale_emb", 1)
        self.put_plain(prefix + "model.embed_tokens.weight", self.draw(c["vocab_size"], d, std=std))
        branch = 1.0 / c["num_hidden_layers"] ** 0.5
        if "scale_depth" in c:
            branch *= c["num_hidden_layers"] ** 0.5 / c["scale_depth"]
        for i in range(c["num_hidden_layers"]):
            p = f"{prefix}model.layers.{i}."
            self.linear(p + "self_attn.q_proj", heads * hd, d, 1.3, bias)
            self.linear(p + "self_attn.k_proj", kv * hd, d, 1.3, bias)
            self.linear(p + "self_attn.v_proj", kv * hd, d, 1.0, bias)
            self.linear(p + "self_attn.o_proj", d, heads * hd, 1.5 * branch, False)
            self.linear(p + "mlp.gate_proj", c["intermediate_size"], d, 1.5, False)
            self.linear(p + "mlp.up_proj", c["intermediate_size"], d, 1.0, False)
            self.linear(p + "mlp.down_proj", d, c["intermediate_size"], 1.5 * branch, False)
            self.norm(p + "input_layernorm", d, False)
            self.norm(p + "post_attention_layernorm", d, False)
        self.norm(prefix + "model.norm", d, False)
        if not c["tie_word_embeddings"]:
            scale = d / c["dim_model_base"] if "dim_model_base" in c else 1
            self.put_plain(prefix + "lm_head.weight", self.draw(c["vocab_size"], d, std=4 * scale / d ** 0.5))

    def tower(self):
        v = self.config["vision_config"]
        dv, fv, p = v["hidden_size"], v["intermediate_size"], v["patch_size"]
        self.put_plain("vpm.embeddings.patch_embedding.weight", self.draw(dv, 3, p, p, std=1.5 / (3 * p * p) ** 0.5))
        self.put_plain("vpm.embeddings.patch_embedding.bias", self.draw(dv, std=0.1))
        places = (v["image_size"] // p) ** 2
        self.put_plain("vpm.embeddings.position_embedding.weight", self.draw(places, dv, std=0.5))
        layers = v["num_hidden_layers"] - self.config["drop_vision_last_layer"]  # a dropped one is not stored
        branch = 1.0 / layers ** 0.5
        for i in range(layers):
            q = f"vpm.encoder.layers.{i}."
            for c, gain in (("q", 1.3), ("k", 1.3), ("v", 1.0), ("out", 1.5 * branch)):
                self.linear(f"{q}self_attn.{c}_proj", dv, dv, gain)
            self.linear(q + "mlp.fc1", fv, dv, 1.5)
            self.linear(q + "mlp.fc2", dv, fv, 1.5 * branch)
            self.norm(q + "layer_norm1", dv)
            self.norm(q + "layer_norm2", dv)
        self.norm("vpm.post_layernorm", dv)

    def resampler(self):
        d, dv = self.config["hidden_size"], self.config["vision_config"]["hidden_size"]
        self.put_plain("resampler.query", self.draw(self.config["query_num"], d, std=1))
        self.linear("resampler.kv_proj", d, dv, bias=False)
        self.put_plain("resampler.attn.in_proj_weight", self.draw(3 * d, d, std=1.2 / d ** 0.5))
        self.put_plain("resampler.attn.in_proj_bias", self.draw(3 * d, std=0.1))
        self.linear("resampler.attn.out_proj", d, d)
        for name in ("ln_q", "ln_kv", "ln_post"):
            self.norm("resampler." + name, d)
        self.put_plain("resampler.proj", self.draw(d, d, std=1 / d ** 0.5))


def save(path, tensors):
    header, at = {}, 0
    for name, (dtype, x) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, x in tensors.values():
            f.write(np.ascontiguousarray(x).tobytes())


def save_shards(folder, tensors, shards):
    if shards == 1:
        return save(folder / "model.safetensors", tensors)
    names, where = list(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[len(names) * i // shards:len(names) * (i + 1) // shards]
        save(folder / file, {n: tensors[n] for n in part})
        where.update({n: file for n in part})
    total = sum(x.nbytes for _, x in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write(folder, config, storage="bf16", seed=1, shards=1, bias=True, prefix="llm."):
    """config: as in config.json; vision is written if it has vision_config."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    w = Writer(config, storage, seed)
    w.text(prefix, bias)
    if "vision_config" in config:
        w.tower()
        w.resampler()
    save_shards(folder, w.tensors, shards)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    if config["vocab_size"] >= prompt.SIZE:
        prompt.write_tokenizer(folder / "tokenizer.json")


def small():
    """Every awkward size of the real model, small: a vision head of 72, products of 72 and 80 numbers,
    seven query heads a key head, blocks of 64 that straddle rows."""
    return {
        "architectures": ["MiniCPMV"], "model_type": "minicpmv", "version": 2.6, "torch_dtype": "bfloat16",
        "hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 80, "num_attention_heads": 7,
        "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 277, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "max_position_embeddings": 2048, "tie_word_embeddings": True, "query_num": 6, "image_size": 42,
        "drop_vision_last_layer": False, "slice_config": {"max_slice_nums": 9, "patch_size": 14},
        "vision_config": {"hidden_size": 72, "intermediate_size": 104, "num_attention_heads": 1,
                          "num_hidden_layers": 2, "image_size": 140, "patch_size": 14, "layer_norm_eps": 1e-06}}


def main():
    p = argparse.ArgumentParser(description="Writes a small random checkpoint.")
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--storage", choices=STORAGE, default="bf16")
    p.add_argument("--shards", type=int, default=1)
    p.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="vision_config.KEY=JSON too")
    args = p.parse_args()
    config = small()
    for text in args.set:
        key, value = text.split("=", 1)
        *outer, key = key.split(".")
        (config[outer[0]] if outer else config)[key] = json.loads(value)
    write(args.out, config, args.storage, args.seed, args.shards)


if __name__ == "__main__":
    main()
