#!/usr/bin/env python3
"""Writes tests/data/ggml.goldens: what the Python package gguf (gguf.quants, numpy) makes of blocks of noise.

    make_ggml_goldens.py OUT

A line is: type, its number, bytes and weights of a block, blocks, SHA-256 (first 16 digits) of the f32 values with
-0 as 0. Byte i of the blocks is noise(i) as below, but f16 numbers are kept finite: the highest bit of byte 1, byte 3
and the last byte's exponent (0x40) is cleared in each block. tests/test_ggml.c makes the same bytes.
"""
import hashlib
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

BLOCKS = 1000


def noise(n, seed):
    x = np.arange(n, dtype=np.uint64) * 2654435761 + seed * 40503
    x &= 0xFFFFFFFF
    x ^= x >> 15
    x = x * 2246822519 & 0xFFFFFFFF
    return (x ^ x >> 13).astype(np.uint8)


with open(sys.argv[1], "w", encoding="ascii", newline="\n") as out:
    for t in (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K):
        weights, size = GGML_QUANT_SIZES[t]
        blocks = noise(BLOCKS * size, t.value).reshape(BLOCKS, size)
        for i in (1, 3, size - 1):
            blocks[:, i] &= 0xBF
        values = dequantize(blocks, t).astype(np.float32) + np.float32(0)
        digest = hashlib.sha256(values.tobytes()).hexdigest()[:16]
        print(t.name.lower(), t.value, size, weights, BLOCKS, digest, file=out)
