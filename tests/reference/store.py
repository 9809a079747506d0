"""Checkpoint folders as Hugging Face lays them out: reading, and the 4-bit formats of bitsandbytes.

A tensor is read when it is asked for, so a checkpoint may be larger than memory.
"""
import json
from pathlib import Path

import numpy as np

from arrays import torch

WIDTH = {"F32": np.float32, "F16": np.float16, "BF16": np.int16, "U8": np.uint8, "I32": np.int32}
MARKS = {"bitsandbytes__nf4": "nf4", "bitsandbytes__fp4": "fp4"}


def read_header(path):
    """Name -> (dtype, shape, where in the file), of one safetensors file."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(length))
    return {name: (t["dtype"], t["shape"], 8 + length + t["data_offsets"][0])
            for name, t in header.items() if name != "__metadata__"}


class Store:
    def __init__(self, folder, device="cpu"):
        self.folder, self.device = Path(folder), device
        index = self.folder / "model.safetensors.index.json"
        names = {"model.safetensors"}
        if index.exists():
            names = set(json.loads(index.read_text())["weight_map"].values())
        self.at = {}
        for name in sorted(names):
            path = self.folder / name
            for tensor, place in read_header(path).items():
                self.at[tensor] = (path, *place)

    def __contains__(self, name):
        return name in self.at

    def raw(self, name):
        """The numbers as stored; bf16 as int16."""
        path, dtype, shape, offset = self.at[name]
        count = int(np.prod(shape, dtype=np.int64))
        with open(path, "rb") as f:
            f.seek(offset)
            return np.fromfile(f, WIDTH[dtype], count).reshape(shape), dtype

    def plain(self, name):
        """f32, on the device."""
        array, dtype = self.raw(name)
        x = torch.from_numpy(array).to(self.device)
        return (x.view(torch.bfloat16) if dtype == "BF16" else x).float()

    def state(self, name):
        """The JSON text of a 4-bit weight, or None."""
        for mark in MARKS:
            key = f"{name}.quant_state.{mark}"
            if key in self.at:
                return json.loads(self.raw(key)[0].tobytes())
        return None

    def dequantise(self, name, state, parts=lambda x: x):
        """Code book times block scale in f32, not rounded: bitsandbytes rounds to state["dtype"] after this,
        Kotaro does not. `parts` is applied to the book and the scales before."""
        rows, columns = state["shape"]
        size = rows * columns
        codes = torch.from_numpy(self.raw(name)[0].reshape(-1)).to(self.device)
        book, scale = parts(self.plain(f"{name}.quant_map")), parts(self.scales(name, state))
        halves = torch.cat([(codes // 16).reshape(-1, 1), (codes % 16).reshape(-1, 1)], 1).reshape(-1)
        weights = book[halves.long()]
        del halves, codes
        blocks = -(-size // state["blocksize"])
        whole = scale[:blocks].reshape(-1, 1).repeat_interleave(state["blocksize"], 1).reshape(-1)
        return (weights[:size] * whole[:size]).reshape(rows, columns)

    def scales(self, name, state):
        absmax = self.raw(f"{name}.absmax")[0].reshape(-1)
        if f"{name}.nested_absmax" not in self.at:
            return torch.from_numpy(absmax).to(self.device)
        codes = torch.from_numpy(absmax).to(self.device).long()
        nested = self.plain(f"{name}.nested_absmax").reshape(-1, 1)
        group = nested.repeat_interleave(state["nested_blocksize"], 1).reshape(-1)[:len(absmax)]
        return self.plain(f"{name}.nested_quant_map")[codes] * group + float(np.float32(state["nested_offset"]))
