"""MiniCPM-V 2.6 in plain PyTorch: SigLIP tower on ragged views, resampler, Qwen2 decoder.

Also text models of the Llama kind (no biases, tied head) and the scales of MiniCPM-2.4B (scale_emb,
scale_depth, dim_model_base). Written from a description of the architecture; nothing is imported but
arrays (PyTorch) and numpy. Each function takes r, the rounding of the run (numerics.py).

Several runs (f32, bf16, cpu, gpu) go side by side, layer by layer, so each weight is read once and a
checkpoint may be larger than memory. `see(mode, stage, x)` gets every stage:

    pixels          [patches, 3 * p * p], normalised; (channel, row, column) inside a patch
    patches         [patches, dv]     patch embedding with its position row
    vision I        [patches, dv]     after block I
    seen            [patches, dv]     after the last norm
    resampled       [views * queries, d]
    embedded        [tokens, d]
    decoder I       [tokens, d]       after layer I
    logits          [tokens, vocab]
"""
import json
import math
from pathlib import Path

import numpy as np

from arrays import torch
from numerics import rounding, to_f16
from store import Store


class Weights:
    """Matrices and vectors by name. Those of one prefix are kept until another is asked for."""

    def __init__(self, store):
        self.store, self.prefix, self.kept = store, None, {}

    def turn_to(self, prefix):
        if prefix != self.prefix:
            self.prefix, self.kept = prefix, {}

    def keep(self, key, make):
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def plain(self, name):
        return self.keep(name, lambda: self.store.plain(name))

    def matrix(self, r, name):
        """As the run holds it. 4-bit weights: bf16 rounds them to the dtype in their JSON, as bitsandbytes
        does; f32 does not, since Kotaro does not."""
        state = self.keep((name, "state"), lambda: self.store.state(name))
        if not state:
            return r("matrix", self.plain(name))
        if r.mode == "gpu":
            return self.keep((name, "gpu"), lambda: self.store.dequantise(name, state, to_f16))
        w = self.keep(name, lambda: self.store.dequantise(name, state))
        return to_f16(w) if r.mode == "bf16" and state["dtype"] == "float16" else r("matrix", w)

    def rows(self, r, name, ids):
        """Rows of a matrix that is stored plainly."""
        return r("matrix", self.plain(name)[torch.from_numpy(ids).to(self.store.device)])

    def vector(self, r, name):
        return r("vector", self.plain(name)) if name in self.store else None


def product(x, w, b=None):
    y = x @ w.t()
    return y if b is None else y + b


def layer_norm(r, x, w, b, eps):
    mean = torch.mean(x, -1, True)
    off = x - mean
    scale = 1 / torch.sqrt(torch.mean(off * off, -1, True) + eps)
    return r("normed", off * scale * w + b)


def rms_norm(r, x, w, eps):
    scale = 1 / torch.sqrt(torch.mean(x * x, -1, True) + eps)
    return r("normed", r("normed early", x * scale) * w)


def split_heads(x, heads):
    """[n, heads * hd] -> [heads, n, hd]"""
    return x.reshape(x.shape[0], heads, -1).transpose(0, 1)


def join_heads(x):
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


# ---- vision tower

def buckets(n, table):
    """Position of each of n patches of an axis among `table` buckets: the f32 arithmetic of the published
    model, where an arange is computed in runs of 8."""
    def arange(count, start, step):
        i = np.arange(count)
        m = count // 16 * 16
        j = i // 8 * 8
        first = np.float32(start + step * j).astype(np.float64)
        return np.where(i < m, np.float32(first + (i - j) * step), np.float32(start + step * i))
    fractions = arange(n, 0.0, float(np.float32(1 / n)))
    bounds = arange(table - 1, 1 / table, 1 / table)
    return np.searchsorted(bounds, fractions, side="right")


class Vision:
    def __init__(self, config, weights):
        v = config["vision_config"]
        self.w, self.dv, self.heads = weights, v["hidden_size"], v["num_attention_heads"]
        self.layers = v["num_hidden_layers"] - bool(config.get("drop_vision_last_layer", True))
        self.eps = v.get("layer_norm_eps", 1e-6)
        self.table = v["image_size"] // v["patch_size"]

    def embed(self, r, pixels, sizes):
        """pixels [n, 3 p p] of all views, sizes [(rows, columns)] of each."""
        self.w.turn_to("vpm.embeddings")
        kernel = self.w.matrix(r, "vpm.embeddings.patch_embedding.weight").reshape(self.dv, -1)
        x = r("patch", product(r("pixel", pixels), kernel, self.w.vector(r, "vpm.embeddings.patch_embedding.bias")))
        ids = np.concatenate([(buckets(rows, self.table)[:, None] * self.table + buckets(cols, self.table)).ravel()
                              for rows, cols in sizes])
        return r("patch", x + self.w.rows(r, "vpm.embeddings.position_embedding.weight", ids))

    def attend(self, r, q, k, v):
        """[n, dv] of one view: all see all."""
        q, k, v = (split_heads(t, self.heads) for t in (q, k, v))
        score = r("score", r("score", q @ k.transpose(1, 2)) * q.shape[-1] ** -0.5)
        p = r("probability", torch.softmax(score, -1))
        return r("attended", join_heads(p @ v))

    def block(self, r, i, x, sizes):
        p = f"vpm.encoder.layers.{i}."
        self.w.turn_to(p)
        w = self.w
        h = layer_norm(r, x, w.vector(r, p + "layer_norm1.weight"), w.vector(r, p + "layer_norm1.bias"), self.eps)
        q, k, v = (r("linear", product(h, w.matrix(r, f"{p}self_attn.{c}_proj.weight"),
                                       w.vector(r, f"{p}self_attn.{c}_proj.bias"))) for c in "qkv")
        parts, at = [], 0
        for rows, cols in sizes:
            to = at + rows * cols
            parts.append(self.attend(r, q[at:to], k[at:to], v[at:to]))
            at = to
        a = product(torch.cat(parts), w.matrix(r, p + "self_attn.out_proj.weight"),
                    w.vector(r, p + "self_attn.out_proj.bias"))
        x = r("residual", x + r("branch", a))
        h = layer_norm(r, x, w.vector(r, p + "layer_norm2.weight"), w.vector(r, p + "layer_norm2.bias"), self.eps)
        h = r("inner", product(h, w.matrix(r, p + "mlp.fc1.weight"), w.vector(r, p + "mlp.fc1.bias")))
        h = product(r("product", gelu_tanh(h)), w.matrix(r, p + "mlp.fc2.weight"), w.vector(r, p + "mlp.fc2.bias"))
        return r("residual", x + r("branch", h))

    def last_norm(self, r, x):
        self.w.turn_to("vpm.post")
        return layer_norm(r, x, self.w.vector(r, "vpm.post_layernorm.weight"),
                          self.w.vector(r, "vpm.post_layernorm.bias"), self.eps)


# ---- resampler

def sines(rows, cols, d):
    """[rows * cols, d] f32: sine of the column, cosine of the column, sine of the row, cosine of the row."""
    quarter = d // 4
    omega = (1 / 10000 ** (np.arange(quarter, dtype=np.float32) / np.float32(quarter))).astype(np.float32)
    y, x = np.mgrid[0:rows, 0:cols]
    axes = [(t.reshape(-1, 1).astype(np.float32) * omega) for t in (x, y)]
    return np.concatenate([f(t) for t in axes for f in (np.sin, np.cos)], 1).astype(np.float32)


class Resampler:
    def __init__(self, config, weights):
        self.w, self.d = weights, config["hidden_size"]
        self.heads, self.eps = self.d // 128, 1e-6

    def norm(self, r, name, x):
        return layer_norm(r, x, self.w.vector(r, f"resampler.{name}.weight"),
                          self.w.vector(r, f"resampler.{name}.bias"), self.eps)

    def queries(self, r, in_w, in_b):
        q = self.norm(r, "ln_q", self.w.matrix(r, "resampler.query"))
        q = r("linear", product(q, in_w[:self.d], in_b[:self.d]))
        return r("scaled query", q * (self.d // self.heads) ** -0.5)

    def run(self, r, x, sizes):
        self.w.turn_to("resampler")
        d = self.d
        in_w = self.w.matrix(r, "resampler.attn.in_proj_weight")
        in_b = self.w.vector(r, "resampler.attn.in_proj_bias")
        q = split_heads(self.queries(r, in_w, in_b), self.heads)
        base = self.norm(r, "ln_kv", r("linear", product(x, self.w.matrix(r, "resampler.kv_proj.weight"))))
        out, at = [], 0
        for rows, cols in sizes:
            view = base[at:at + rows * cols]
            at += rows * cols
            place = r("table", torch.from_numpy(sines(rows, cols, d)).to(self.w.store.device))
            k = r("linear", product(r("placed", view + place), in_w[d:2 * d], in_b[d:2 * d]))
            v = r("linear", product(view, in_w[2 * d:], in_b[2 * d:]))
            p = torch.softmax(r("score", q @ split_heads(k, self.heads).transpose(1, 2)), -1)
            out.append(r("attended", join_heads(r("probability", p) @ split_heads(v, self.heads))))
        o = r("linear", product(torch.cat(out), self.w.matrix(r, "resampler.attn.out_proj.weight"),
                                self.w.vector(r, "resampler.attn.out_proj.bias")))
        return r("linear", self.norm(r, "ln_post", o) @ self.w.matrix(r, "resampler.proj"))


# ---- text model

class Text:
    def __init__(self, config, weights):
        self.w = weights
        self.d, self.layers = config["hidden_size"], config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads", self.heads)
        self.hd = config.get("head_dim") or self.d // self.heads
        self.theta, self.eps = config.get("rope_theta", 10000.0), config["rms_norm_eps"]
        self.scale_emb = config.get("scale_emb", 1)
        depth = config.get("scale_depth")
        self.scale_branch = depth / math.sqrt(self.layers) if depth else 1
        base = config.get("dim_model_base")
        self.scale_head = base / self.d if base else 1
        self.prefix = "llm." if "llm.model.norm.weight" in weights.store else ""

    def embed(self, r, ids, picture):
        """ids: -1 - i is row i of `picture`."""
        self.w.turn_to("embed")
        ids = np.asarray(ids)
        rows = self.w.rows(r, self.prefix + "model.embed_tokens.weight", np.maximum(ids, 0))
        x = r("embedding", rows * self.scale_emb)
        if picture is None:
            return x
        device = self.w.store.device
        rows = picture[torch.from_numpy(np.maximum(-1 - ids, 0)).to(device)]
        return torch.where(torch.from_numpy((ids < 0)[:, None]).to(device), rows, x)

    def turns(self, r, n):
        """Cosines and sines [n, hd] of positions 0 .. n - 1."""
        inverse = (1 / self.theta ** (np.arange(0, self.hd, 2, dtype=np.float32) / np.float32(self.hd)))
        angle = np.arange(n, dtype=np.float32)[:, None] * inverse.astype(np.float32)
        angle = np.concatenate([angle, angle], 1)
        return [r("angle", torch.from_numpy(f(angle).astype(np.float32)).to(self.w.store.device))
                for f in (np.cos, np.sin)]

    def rotate(self, r, x, turns):
        """x [heads, n, hd]; number j turns with number j + hd / 2."""
        half = self.hd // 2
        other = torch.cat([-x[:, :, half:], x[:, :, :half]], 2)
        return r("rotated", r("rotated early", x * turns[0]) + r("rotated early", other * turns[1]))

    def attend(self, r, q, k, v):
        n = q.shape[1]
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, 0) for t in (k, v))
        score = r("score", r("score", q @ k.transpose(1, 2)) * self.hd ** -0.5)
        later = torch.from_numpy(np.triu(np.full((n, n), -np.inf, np.float32), 1)).to(self.w.store.device)
        p = r("probability", torch.softmax(score + later, -1))
        return r("attended", join_heads(p @ v))

    def layer(self, r, i, x):
        p = f"{self.prefix}model.layers.{i}."
        self.w.turn_to(p)
        w = self.w
        h = rms_norm(r, x, w.vector(r, p + "input_layernorm.weight"), self.eps)
        q, k, v = (r("linear", product(h, w.matrix(r, f"{p}self_attn.{c}_proj.weight"),
                                       w.vector(r, f"{p}self_attn.{c}_proj.bias"))) for c in "qkv")
        turns = self.turns(r, x.shape[0])
        q = self.rotate(r, split_heads(q, self.heads), turns)
        k = self.rotate(r, split_heads(k, self.kv_heads), turns)
        a = self.attend(r, q, k, split_heads(v, self.kv_heads))
        a = r("branch", product(a, w.matrix(r, p + "self_attn.o_proj.weight")))
        x = r("residual", x + a * self.scale_branch)
        h = rms_norm(r, x, w.vector(r, p + "post_attention_layernorm.weight"), self.eps)
        gate = r("inner", product(h, w.matrix(r, p + "mlp.gate_proj.weight")))
        up = r("inner", product(h, w.matrix(r, p + "mlp.up_proj.weight")))
        # Kotaro keeps a sixteenth of the product, which moves the end of f16's range; bf16 does not mind.
        h = r("product", r("active", gate * torch.sigmoid(gate)) * up * 0.0625) * 16
        h = r("branch", product(h, w.matrix(r, p + "mlp.down_proj.weight")))
        return r("residual", x + h * self.scale_branch)

    def head(self, r, x):
        self.w.turn_to("head")
        h = rms_norm(r, x, self.w.vector(r, self.prefix + "model.norm.weight"), self.eps)
        name = self.prefix + "lm_head.weight"
        if name not in self.w.store:
            name = self.prefix + "model.embed_tokens.weight"
        return r("logit", product(r("head input", h * self.scale_head), self.w.matrix(r, name)))


class Model:
    def __init__(self, folder, device="cpu"):
        self.config = json.loads((Path(folder) / "config.json").read_text())
        weights = Weights(Store(folder, device))
        self.device = device
        self.text = Text(self.config, weights)
        if "vision_config" in self.config:
            self.vision, self.resampler = Vision(self.config, weights), Resampler(self.config, weights)

    def look(self, modes, pixels, sizes, see):
        """The picture's rows of each mode. pixels: f32 numpy [patches, 3 p p]."""
        runs = {m: rounding(m) for m in modes}
        pixels = torch.from_numpy(pixels).to(self.device)
        x = {}
        for m, r in runs.items():
            see(m, "pixels", r("pixel", pixels))
            x[m] = self.vision.embed(r, pixels, sizes)
            see(m, "patches", x[m])
        for i in range(self.vision.layers):
            for m, r in runs.items():
                x[m] = self.vision.block(r, i, x[m], sizes)
                see(m, f"vision {i}", x[m])
        for m, r in runs.items():
            x[m] = self.vision.last_norm(r, x[m])
            see(m, "seen", x[m])
        for m, r in runs.items():
            x[m] = self.resampler.run(r, x[m], sizes)
            see(m, "resampled", x[m])
        return x

    def read(self, modes, ids, see, picture=None, rows=None):
        """Logits of each mode for all tokens, or for those of the slice `rows`."""
        runs = {m: rounding(m) for m in modes}
        x = {}
        for m, r in runs.items():
            x[m] = self.text.embed(r, ids, picture and picture[m])
            see(m, "embedded", x[m])
        for i in range(self.text.layers):
            for m, r in runs.items():
                x[m] = self.text.layer(r, i, x[m])
                see(m, f"decoder {i}", x[m])
        for m, r in runs.items():
            x[m] = self.text.head(r, x[m] if rows is None else x[m][rows])
            see(m, "logits", x[m])
        return x
