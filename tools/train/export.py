"""Writes a checkpoint folder in the layout of MiniCPM-V 2.6 int4: NF4 with double quantisation, the rest BF16.

python3 export.py OUT_DIR [--weights weights.npy]     without weights: random ones
"""

import argparse
import json
import os

import numpy as np
import torch

import model as m
import objects

BLOCK, NESTED = 64, 256


def dynamic_map():
    """The signed 8-bit dynamic map of bitsandbytes, in float32."""
    values = [0.0, 1.0]
    for e in range(7):
        edge = torch.linspace(0.1, 1.0, 2 ** e + 1, dtype=torch.float32)
        middle = (edge[:-1] + edge[1:]) / 2
        scaled = (10.0 ** (e - 6)) * middle
        values += scaled.tolist() + (-scaled).tolist()
    values.sort()
    assert len(values) == 256
    return torch.tensor(values, dtype=torch.float32)


def nearest(book, x):
    return torch.bucketize(x, (book[1:] + book[:-1]) / 2)


def quantise(weight):
    """f32 [N, K] -> the six tensors of one NF4 linear layer, by suffix."""
    flat = weight.float().flatten()
    count = flat.numel()
    pad = -count % BLOCK
    block = torch.cat([flat, flat.new_zeros(pad)]).view(-1, BLOCK)
    absmax = block.abs().amax(1)
    offset = absmax.mean()
    book = dynamic_map()
    centred = absmax - offset
    fill = -len(centred) % NESTED
    group = torch.cat([centred, centred.new_zeros(fill)]).view(-1, NESTED)
    nested = group.abs().amax(1).clamp(min=1e-12)
    code8 = nearest(book, group / nested[:, None]).flatten()[: len(absmax)]
    scale = book[code8] * nested.repeat_interleave(NESTED)[: len(absmax)] + offset
    code4 = nearest(m.NF4, block / scale.clamp(min=1e-12)[:, None]).flatten()[: count + count % 2].to(torch.uint8)
    packed = (code4[0::2] << 4) | code4[1::2]
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": list(weight.shape),
             "nested_blocksize": NESTED, "nested_dtype": "float32", "nested_offset": float(offset)}
    text = json.dumps(state).encode()
    return {
        "": packed[:, None].contiguous(),
        ".absmax": code8.to(torch.uint8),
        ".quant_map": m.NF4.clone(),
        ".nested_absmax": nested,
        ".nested_quant_map": book,
        ".quant_state.bitsandbytes__nf4": torch.tensor(list(text), dtype=torch.uint8),
    }


def dequantise(part):
    """The six tensors back to bf16 [N, K], as the runtime does it."""
    state = json.loads(bytes(part[".quant_state.bitsandbytes__nf4"].tolist()))
    n = int(np.prod(state["shape"]))
    absmax = part[".absmax"].long()
    scale = part[".nested_quant_map"][absmax]
    scale = scale * part[".nested_absmax"].repeat_interleave(state["nested_blocksize"])[: len(absmax)]
    scale = scale + torch.tensor(state["nested_offset"], dtype=torch.float32)
    packed = part[""].flatten()
    code = torch.stack([packed >> 4, packed & 15], 1).flatten()[:n].long()
    value = part[".quant_map"][code] * scale.repeat_interleave(state["blocksize"])[:n]
    return value.to(torch.bfloat16).view(state["shape"])


def tensors(weights):
    """Checkpoint tensors of a dict of f32 weights."""
    out = {}
    for name, shape in m.shapes().items():
        value = weights[name].float().cpu().view(shape)
        if m.quantised(name):
            for suffix, part in quantise(value).items():
                out[name + suffix] = part
        else:
            out[name] = value.to(torch.bfloat16).contiguous()
    return out


def load(folder):
    """A checkpoint folder as a dict of bf16 weights."""
    from safetensors.torch import load_file

    stored = load_file(os.path.join(folder, "model.safetensors"))
    suffixes = ["", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4"]
    out = {}
    for name in m.shapes():
        if name + ".absmax" in stored:
            out[name] = dequantise({s: stored[name + s] for s in suffixes})
        else:
            out[name] = stored[name]
    return out


NOTICE = ("a demonstration; it knows 301 drawn objects and says so where it does not know. "
          "For photographs give a MiniCPM-V 2.6 folder with --model")


def configs():
    v, t = m.VISION, m.TEXT
    config = {
        "architectures": ["MiniCPMV"], "model_type": "minicpmv", "version": 2.6, "torch_dtype": "bfloat16",
        "name": "kotaro-tiny", "notice": NOTICE, "hidden_size": t["width"], "num_hidden_layers": t["layers"],
        "intermediate_size": t["mlp"], "num_attention_heads": t["heads"], "num_key_value_heads": t["kv_heads"],
        "hidden_act": "silu", "vocab_size": t["vocabulary"], "rms_norm_eps": t["eps"], "rope_theta": t["theta"],
        "max_position_embeddings": CONTEXT, "tie_word_embeddings": False, "use_sliding_window": False,
        "query_num": m.QUERIES, "image_size": m.SIDE, "patch_size": m.PATCH, "batch_vision_input": True,
        "drop_vision_last_layer": False, "slice_mode": True, "use_image_id": True, "vision_batch_size": 16,
        "slice_config": {"max_slice_nums": 1, "patch_size": m.PATCH, "scale_resolution": m.SIDE, "model_type": "minicpmv"},
        "vision_config": {"model_type": "siglip", "hidden_size": v["width"], "intermediate_size": v["mlp"],
                          "num_attention_heads": v["heads"], "num_hidden_layers": v["layers"],
                          "image_size": v["places"] * m.PATCH, "patch_size": m.PATCH, "num_channels": 3,
                          "layer_norm_eps": v["eps"], "hidden_act": "gelu_pytorch_tanh"},
        "quantization_config": {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True, "bnb_4bit_quant_storage": "uint8", "bnb_4bit_compute_dtype": "bfloat16",
            "llm_int8_skip_modules": ["out_proj", "kv_proj", "lm_head"], "llm_int8_threshold": 6.0},
    }
    preprocessor = {"image_processor_type": "MiniCPMVImageProcessor", "max_slice_nums": 1, "scale_resolution": m.SIDE,
                    "patch_size": m.PATCH, "use_image_id": True, "image_feature_size": m.QUERIES, "slice_mode": True,
                    "norm_mean": [0.5, 0.5, 0.5], "norm_std": [0.5, 0.5, 0.5], "version": 2.6}
    return config, preprocessor


CONTEXT = m.CONTEXT


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as handle:
        json.dump(value, handle, ensure_ascii=False, indent=1 if name == "vocabulary.json" else 2)
        handle.write("\n")


def write(folder, weights):
    from safetensors.torch import save_file
    from tokenizers import Tokenizer

    os.makedirs(folder, exist_ok=True)
    save_file(tensors(weights), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    config, preprocessor = configs()
    ids = {t: tok.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")}
    config["bos_token_id"], config["eos_token_id"] = ids["<|im_start|>"], ids["<|im_end|>"]
    write_json(folder, "config.json", config)
    write_json(folder, "preprocessor_config.json", preprocessor)
    write_json(folder, "generation_config.json", {
        "bos_token_id": ids["<|im_start|>"], "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"], "do_sample": False})
    write_json(folder, "vocabulary.json", [{k: o[k] for k in ("hex", "en", "ja")} for o in objects.load()])


def from_flat(path):
    """Master weights saved by train.py (f32 or f16 flat vector in one or more .npy parts)."""
    flat = torch.from_numpy(np.concatenate([np.load(p) for p in path])).float()
    out, start = {}, 0
    shape = m.shapes()
    for name in [n for n in shape if m.quantised(n)] + [n for n in shape if not m.quantised(n)]:
        end = start + int(np.prod(shape[name]))
        out[name] = flat[start:end].view(shape[name])
        start = end
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--weights", nargs="*")
    args = parser.parse_args()
    values = from_flat(args.weights) if args.weights else m.initial(7)
    write(args.folder, values)
    back = load(args.folder)
    for name, value in values.items():
        error = (back[name].float() - value.float()).norm() / value.float().norm().clamp(min=1e-9)
        if error > (0.12 if m.quantised(name) else 0.005):
            print("large error", name, float(error))
    print(sum(v.numel() for v in values.values()), "weights,",
          os.path.getsize(os.path.join(args.folder, "model.safetensors")), "bytes")
