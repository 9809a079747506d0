#!/usr/bin/env python3
"""The reference against other people's code of the same layers: transformers' Qwen2, Llama and the tower of
Idefics2 (SigLIP with positions in buckets), and PyTorch's MultiheadAttention for the resampler.

    against_transformers.py

Needs PyTorch and `transformers` (5.23.0 was used); no test runs it. Prints relative errors, which are those of f32
sums in another order, and how far bf16 is from f32 in both; exit code 1 above LIMIT.
"""
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import Idefics2VisionConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

import checkpoint
import picture
from goldens import Stages, relative
from model import Model, sines

LIMIT = 5e-6
torch.set_grad_enabled(False)


def tensors(model, prefix):
    store = model.text.w.store
    return {n[len(prefix):]: store.plain(n) for n in store.at if n.startswith(prefix)}


def report(name, error, more=""):
    print(f"{name:32} {error:.2e}{more}")
    return error < LIMIT


def text(folder, kind):
    config = checkpoint.small()
    config.update(num_hidden_layers=4, hidden_size=256, head_dim=32, num_attention_heads=8, num_key_value_heads=2,
                  tie_word_embeddings=kind == "llama", intermediate_size=344)
    checkpoint.write(folder, config, "f32", 4, bias=kind == "qwen2")
    model = Model(folder)
    same = {k: config[k] for k in (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "max_position_embeddings")}
    other = (Qwen2ForCausalLM(Qwen2Config(**same, attn_implementation="eager")) if kind == "qwen2" else
             LlamaForCausalLM(LlamaConfig(**same, head_dim=32, attn_implementation="eager")))
    state = tensors(model, "llm.")
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    other.load_state_dict(state)
    other.eval().float()
    ids = np.random.default_rng(0).integers(0, 266, 120).tolist()
    theirs = other(torch.tensor([ids])).logits[0].numpy()
    theirs_bf16 = other.bfloat16()(torch.tensor([ids])).logits[0].float().numpy()
    ours = {m: x.numpy() for m, x in model.read(("f32", "bf16"), ids, lambda *_: None).items()}
    return report(kind, relative(ours["f32"], theirs), f"   bf16: theirs {relative(theirs_bf16, theirs):.2e}, "
                  f"ours {relative(ours['bf16'], ours['f32']):.2e}")


def tower(folder):
    config = checkpoint.small()
    config["vision_config"].update(num_hidden_layers=3, hidden_size=144, num_attention_heads=2, image_size=980)
    config["image_size"] = 112
    checkpoint.write(folder, config, "f32", 4)
    model, v = Model(folder), config["vision_config"]
    other = Idefics2VisionTransformer(Idefics2VisionConfig(
        hidden_size=144, intermediate_size=v["intermediate_size"], num_hidden_layers=3, num_attention_heads=2,
        image_size=980, patch_size=14, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6,
        attn_implementation="eager")).eval()
    other.load_state_dict(tensors(model, "vpm."))
    seen, stages = picture.Seen(picture.draw(300, 200, 2), config), Stages()
    model.look(("f32",), seen.pixels, seen.sizes, stages)
    good, at = True, 0
    for rows, cols in seen.sizes[:2]:
        to = at + rows * cols
        pixels = seen.pixels[at:to].reshape(rows, cols, 3, 14, 14).transpose(2, 0, 3, 1, 4)
        whole = torch.from_numpy(pixels.reshape(1, 3, rows * 14, cols * 14))
        theirs = other(whole, patch_attention_mask=torch.ones(1, rows, cols, dtype=torch.bool)).last_hidden_state[0]
        good &= report(f"tower, view of {rows} x {cols}", relative(stages.of["seen"]["f32"][at:to], theirs.numpy()))
        at = to
    return resampler(model, seen.sizes[0], stages.of) and good


def resampler(model, size, stages):
    g, d, n = model.text.w.store.plain, model.text.d, size[0] * size[1]
    other = torch.nn.MultiheadAttention(d, d // 128)
    other.load_state_dict({n: g(f"resampler.attn.{n}") for n in
                           ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")})

    def norm(name, x):
        return torch.nn.functional.layer_norm(x, (d,), g(f"resampler.{name}.weight"), g(f"resampler.{name}.bias"), 1e-6)
    keys = norm("ln_kv", torch.from_numpy(stages["seen"]["f32"][:n]) @ g("resampler.kv_proj.weight").t())
    query = norm("ln_q", g("resampler.query"))
    out = other(query[:, None], (keys + torch.from_numpy(sines(*size, d)))[:, None], keys[:, None])[0][:, 0]
    theirs = norm("ln_post", out) @ g("resampler.proj")
    return report("resampler", relative(stages["resampled"]["f32"][:len(theirs)], theirs.numpy()))


def main():
    with tempfile.TemporaryDirectory() as tmp:
        good = [text(Path(tmp) / "qwen2", "qwen2"), text(Path(tmp) / "llama", "llama"), tower(Path(tmp) / "tower")]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
