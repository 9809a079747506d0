"""kotaro-tiny in plain PyTorch: MiniCPM-V 2.6's architecture in small, over one flat vector of weights.

Weights live in three flat vectors: `master` (f32, what the optimiser moves), `work` (bf16, what is computed with
and what the file holds) and the gradient of `work`. The NF4 weights come first, so that quantising them in training
is one operation. Names are those of the checkpoint.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

VISION = dict(width=288, heads=4, layers=5, mlp=1152, places=32, eps=1e-6)
TEXT = dict(width=256, heads=2, kv_heads=1, head=128, layers=4, mlp=640, vocabulary=1280, theta=1e6, eps=1e-6)
QUERIES = 64
PATCH = 14
SIDE = 224
CONTEXT = 4096

NF4 = torch.tensor([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                    0.7229568362236023, 1.0])

VIT_NAMES = ["layer_norm1.weight", "layer_norm1.bias", "self_attn.q_proj.weight", "self_attn.q_proj.bias",
             "self_attn.k_proj.weight", "self_attn.k_proj.bias", "self_attn.v_proj.weight", "self_attn.v_proj.bias",
             "self_attn.out_proj.weight", "self_attn.out_proj.bias", "layer_norm2.weight", "layer_norm2.bias",
             "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"]
DEC_NAMES = ["input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.q_proj.bias", "self_attn.k_proj.weight",
             "self_attn.k_proj.bias", "self_attn.v_proj.weight", "self_attn.v_proj.bias", "self_attn.o_proj.weight",
             "post_attention_layernorm.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"]


def vit(layer, name):
    return "vpm.encoder.layers.%d.%s" % (layer, name)


def dec(layer, name):
    return "llm.model.layers.%d.%s" % (layer, name)


def shapes():
    """name -> shape, in file order; quantised() says which are NF4."""
    v, t = VISION, TEXT
    out = {"vpm.embeddings.patch_embedding.weight": (v["width"], 3, PATCH, PATCH),
           "vpm.embeddings.patch_embedding.bias": (v["width"],),
           "vpm.embeddings.position_embedding.weight": (v["places"] ** 2, v["width"])}
    for i in range(v["layers"]):
        for name in VIT_NAMES:
            if "fc1" in name:
                shape = (v["mlp"], v["width"])
            elif "fc2" in name:
                shape = (v["width"], v["mlp"])
            else:
                shape = (v["width"], v["width"])
            out[vit(i, name)] = shape if "proj.weight" in name or "fc" in name and "weight" in name else shape[:1]
    out["vpm.post_layernorm.weight"] = out["vpm.post_layernorm.bias"] = (v["width"],)
    d = t["width"]
    out["resampler.query"] = (QUERIES, d)
    out["resampler.kv_proj.weight"] = (d, v["width"])
    out["resampler.attn.in_proj_weight"], out["resampler.attn.in_proj_bias"] = (3 * d, d), (3 * d,)
    out["resampler.attn.out_proj.weight"], out["resampler.attn.out_proj.bias"] = (d, d), (d,)
    for name in ("ln_q", "ln_kv", "ln_post"):
        out["resampler.%s.weight" % name] = out["resampler.%s.bias" % name] = (d,)
    out["resampler.proj"] = (d, d)
    out["llm.model.embed_tokens.weight"] = (t["vocabulary"], d)
    rows = {"q": t["heads"] * t["head"], "k": t["kv_heads"] * t["head"], "v": t["kv_heads"] * t["head"]}
    for i in range(t["layers"]):
        for name in DEC_NAMES:
            if "norm" in name:
                shape = (d,)
            elif "o_proj" in name:
                shape = (d, rows["q"])
            elif "mlp" in name:
                shape = (d, t["mlp"]) if "down" in name else (t["mlp"], d)
            else:
                shape = (rows[name.split(".")[1][0]], d) if "weight" in name else (rows[name.split(".")[1][0]],)
            out[dec(i, name)] = shape
    out["llm.model.norm.weight"] = (d,)
    out["llm.lm_head.weight"] = (t["vocabulary"], d)
    return out


def quantised(name):
    """The linear layers of the int4 checkpoint: all but out_proj, kv_proj, lm_head and what is no linear layer."""
    if not name.endswith(".weight") or "norm" in name or "embed" in name or "lm_head" in name:
        return False
    return ("vpm.encoder" in name or "llm.model.layers" in name) and "out_proj" not in name


def sincos(x, y, width, base):
    """[n, width]: sin and cos of the column in the first half, of the row in the second."""
    omega = 1.0 / base ** (torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    a, b = x[:, None].float() * omega, y[:, None].float() * omega
    return torch.cat([a.sin(), a.cos(), b.sin(), b.cos()], 1)


def initial(seed):
    gen = torch.Generator().manual_seed(seed)
    normal = lambda shape, std: torch.randn(shape, generator=gen) * std
    out = {}
    for name, shape in shapes().items():
        if "norm" in name or ".ln_" in name:
            out[name] = torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
        elif name.endswith("bias") or name == "resampler.attn.in_proj_bias":
            out[name] = torch.zeros(shape)
        elif "position_embedding" in name:
            n = VISION["places"]
            at = torch.arange(n * n)
            out[name] = sincos(at % n * (16 / n), at // n * (16 / n), shape[1], 300.0)
        elif name == "resampler.query":
            cell = torch.arange(QUERIES)
            side = int(math.sqrt(QUERIES))
            step = 16 / side
            out[name] = sincos((cell % side + 0.5) * step - 0.5, (cell // side + 0.5) * step - 0.5, shape[1], 1e4)
            out[name] = out[name] + normal(shape, 0.1)
        elif name == "resampler.attn.in_proj_weight":
            d = shape[1]
            turn = torch.linalg.qr(torch.randn(d, d, generator=gen))[0]
            out[name] = torch.cat([turn, turn, normal((d, d), d ** -0.5)])
        elif "embed_tokens" in name:
            out[name] = normal(shape, 0.4)
        elif "lm_head" in name:
            out[name] = normal(shape, 0.02)
        else:
            fan = math.prod(shape[1:])
            std = fan ** -0.5
            if "fc2" in name or "out_proj" in name or "o_proj" in name or "down_proj" in name:
                std *= 0.4
            out[name] = normal(shape, std)
    return out


class Weights:
    """Flat vectors and named views of them."""

    def __init__(self, device, seed=1):
        shape = shapes()
        order = [n for n in shape if quantised(n)] + [n for n in shape if not quantised(n)]
        self.n_nf4 = sum(math.prod(shape[n]) for n in order if quantised(n))
        total = sum(math.prod(s) for s in shape.values())
        self.master = torch.zeros(total, device=device)
        self.work = torch.zeros(total, device=device, dtype=torch.bfloat16)
        self.grad = torch.zeros(total, device=device, dtype=torch.bfloat16)
        self.span, self.view, start = {}, {}, 0
        values = initial(seed)
        for name in order:
            end = start + math.prod(shape[name])
            self.span[name] = (start, end)
            self.master[start:end] = values[name].flatten().to(device)
            leaf = self.work[start:end].view(shape[name]).detach().requires_grad_()
            leaf.grad = self.grad[start:end].view(shape[name])
            self.view[name] = leaf
            start = end
        self.refresh(False)

    @torch.no_grad()
    def refresh(self, quantise):
        """work := master, with the NF4 weights rounded to what the file can hold."""
        self.work.copy_(self.master)
        if quantise:
            self.work[: self.n_nf4] = fake_nf4(self.master[: self.n_nf4]).to(torch.bfloat16)


def fake_nf4(flat):
    block = flat.view(-1, 64)
    scale = block.abs().amax(1, keepdim=True).clamp(min=1e-8)
    book = NF4.to(flat.device)
    code = torch.bucketize(block / scale, (book[1:] + book[:-1]) / 2)
    return (book[code] * scale).flatten()


# ---- vision --------------------------------------------------------------------------------------------------


def buckets(n, places):
    """Row of the position table for each of n patches of one axis (the reference's float32 arithmetic)."""

    def arange(start, step, count):
        i = np.arange(count)
        j = i // 8 * 8
        plain = np.float32(start + step * i)
        vector = np.float32(np.float64(np.float32(start + step * j)) + (i - j) * step)
        return np.where(i < count // 16 * 16, vector, plain)

    fraction = arange(0.0, float(np.float32(1 / n)), n)
    edge = arange(1 / places, 1 / places, places - 1)
    return (edge[None, :] <= fraction[:, None]).sum(1)


def positions(rows, columns):
    """Table row of every patch of a grid, row-major."""
    places = VISION["places"]
    return (buckets(rows, places)[:, None] * places + buckets(columns, places)[None, :]).reshape(-1)


def key_positions(rows, columns):
    """f32 [rows * columns, width]: what is added to the resampler's keys."""
    at = torch.arange(rows * columns)
    return sincos(at % columns, at // columns, TEXT["width"], 1e4)


def vit_layer(x, n1w, n1b, qw, qb, kw, kb, vw, vb, ow, ob, n2w, n2b, w1, b1, w2, b2):
    n, l, d = x.shape
    heads = VISION["heads"]
    h = F.layer_norm(x, (d,), n1w, n1b, VISION["eps"])
    q, k, v = (F.linear(h, w, b).view(n, l, heads, -1).transpose(1, 2) for w, b in ((qw, qb), (kw, kb), (vw, vb)))
    o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, l, d)
    x = x + F.linear(o, ow, ob)
    h = F.layer_norm(x, (d,), n2w, n2b, VISION["eps"])
    return x + F.linear(F.gelu(F.linear(h, w1, b1), approximate="tanh"), w2, b2)


def embed_patches(patches, table_rows, weight, bias, table):
    return F.linear(patches, weight.flatten(1), bias) + table[table_rows]


def resample(x, key_pos, query, kv, in_w, in_b, out_w, out_b, qw, qb, kw, kb, pw, pb, proj):
    n, l, _ = x.shape
    d = query.shape[1]
    heads = d // 128
    k0 = F.layer_norm(F.linear(x, kv), (d,), kw, kb, 1e-6)
    q0 = F.layer_norm(query, (d,), qw, qb, 1e-6)
    q = F.linear(q0, in_w[:d], in_b[:d]).view(1, -1, heads, 128).transpose(1, 2).expand(n, -1, -1, -1)
    k = F.linear(k0 + key_pos, in_w[d : 2 * d], in_b[d : 2 * d]).view(n, l, heads, 128).transpose(1, 2)
    v = F.linear(k0, in_w[2 * d :], in_b[2 * d :]).view(n, l, heads, 128).transpose(1, 2)
    o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, d)
    o = F.layer_norm(F.linear(o, out_w, out_b), (d,), pw, pb, 1e-6)
    return o @ proj


# ---- text ----------------------------------------------------------------------------------------------------


def rope(count, first=0):
    """cos and sin f32 [count, 64]."""
    half = TEXT["head"] // 2
    inverse = TEXT["theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = (torch.arange(count, dtype=torch.float64) + first)[:, None] * inverse
    return angle.cos().float(), angle.sin().float()


def turn(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def dec_layer(x, cos, sin, mask, past_k, past_v, n1, qw, qb, kw, kb, vw, vb, ow, n2, gate, up, down):
    """One decoder layer; past_k and past_v (or None) come before this call's keys. Returns x and keys, values."""
    n, l, d = x.shape
    t = TEXT
    h = F.rms_norm(x, (d,), n1, t["eps"])
    q = F.linear(h, qw, qb).view(n, l, t["heads"], t["head"]).transpose(1, 2)
    k = F.linear(h, kw, kb).view(n, l, t["kv_heads"], t["head"]).transpose(1, 2)
    v = F.linear(h, vw, vb).view(n, l, t["kv_heads"], t["head"]).transpose(1, 2)
    q, k = turn(q, cos, sin).to(x.dtype), turn(k, cos, sin).to(x.dtype)
    if past_k is not None:
        k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    group = t["heads"] // t["kv_heads"]
    keys, values = k.expand(-1, group, -1, -1), v.expand(-1, group, -1, -1)
    o = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).transpose(1, 2).reshape(n, l, -1)
    x = x + F.linear(o, ow)
    h = F.rms_norm(x, (d,), n2, t["eps"])
    return x + F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), down), k, v


class Model:
    """The functions above over a dict of weights. compile=True compiles the blocks."""

    def __init__(self, weights, compile=False):
        self.w = weights
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compile else (lambda f: f)
        self.vit_layer, self.dec_layer, self.resample = wrap(vit_layer), wrap(dec_layer), wrap(resample)

    def vision(self, patches, table_rows):
        """[n, l, 588], int [n, l] -> [n, l, width] after the last norm."""
        w = self.w
        return self.layers(embed_patches(patches, table_rows, w["vpm.embeddings.patch_embedding.weight"],
                                         w["vpm.embeddings.patch_embedding.bias"],
                                         w["vpm.embeddings.position_embedding.weight"]))

    def layers(self, x):
        w = self.w
        for i in range(VISION["layers"]):
            x = self.vit_layer(x, *[w[vit(i, name)] for name in VIT_NAMES])
        return F.layer_norm(x, (x.shape[-1],), w["vpm.post_layernorm.weight"], w["vpm.post_layernorm.bias"], VISION["eps"])

    def rows(self, seen, key_pos):
        w = self.w
        names = ["query", "kv_proj.weight", "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight",
                 "attn.out_proj.bias", "ln_q.weight", "ln_q.bias", "ln_kv.weight", "ln_kv.bias", "ln_post.weight",
                 "ln_post.bias", "proj"]
        return self.resample(seen, key_pos, *[w["resampler." + n] for n in names])

    def decoder(self, x, cos, sin, mask, past=None):
        """[n, l, width] -> the same after the last norm, and keys and values of every layer."""
        w, kept = self.w, []
        for i in range(TEXT["layers"]):
            k, v = past[i] if past else (None, None)
            x, k, v = self.dec_layer(x, cos, sin, mask, k, v, *[w[dec(i, name)] for name in DEC_NAMES])
            kept.append((k, v))
        return F.rms_norm(x, (x.shape[-1],), w["llm.model.norm.weight"], TEXT["eps"]), kept

    def embed(self, ids):
        return self.w["llm.model.embed_tokens.weight"][ids]

    def logits(self, x):
        return F.linear(x, self.w["llm.lm_head.weight"])

    @torch.no_grad()
    def prefix(self, rows, header):
        """Keys and values of what comes before every question: header (ids before, ids after) the picture's rows."""
        n, device = rows.shape[0], rows.device
        before, after = (self.embed(torch.tensor(h, device=device))[None].expand(n, -1, -1) for h in header)
        x = torch.cat([before, rows, after], 1)
        length = x.shape[1]
        cos, sin = (a.to(device) for a in rope(length))
        return self.decoder(x, cos, sin, torch.ones(length, length, dtype=torch.bool, device=device).tril())[1]

    @torch.no_grad()
    def generate(self, past, branch, stop, most=64, penalty=1.0):
        """Greedy answers to one question (branch: its ids) after the prefix of n pictures. Returns a list of n lists of
        ids, and the first step's logits."""
        n, first_at, device = past[0][0].shape[0], past[0][0].shape[2], past[0][0].device
        x = self.embed(torch.tensor(branch, device=device))[None].expand(n, -1, -1)
        length = first_at + x.shape[1]
        cos, sin = (a.to(device) for a in rope(length + most))
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()[first_at:]
        x, past = self.decoder(x, cos[first_at:length], sin[first_at:length], causal, past)
        logits = self.logits(x[:, -1]).float()
        first = logits
        out = torch.full((n, most), stop[0], device=device, dtype=torch.long)
        seen = torch.zeros_like(logits, dtype=torch.bool)
        done = torch.zeros(n, dtype=torch.bool, device=device)
        for step in range(most):
            if penalty != 1.0:
                less = torch.where(logits > 0, logits / penalty, logits * penalty)
                logits = torch.where(seen, less, logits)
            token = logits.argmax(-1)
            out[:, step] = torch.where(done, out[:, step], token)
            done |= (token == stop[0]) | (token == stop[1])
            seen.scatter_(1, token[:, None], True)
            if done.all():
                break
            at = length + step
            x, past = self.decoder(self.embed(token)[:, None], cos[at : at + 1], sin[at : at + 1], None, past)
            logits = self.logits(x[:, -1]).float()
        answers = []
        for line in out.tolist():
            ends = [line.index(s) for s in stop if s in line]
            answers.append(line[: min(ends)] if ends else line)
        return answers, first
