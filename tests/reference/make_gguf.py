#!/usr/bin/env python3
"""A small GGUF file for tests/test_gguf.c and a start for tests/fuzz_gguf.c, written by the Python library 'gguf'.

  make_gguf.py OUT
"""
import sys

import gguf
import numpy as np


def main():
    random = np.random.default_rng(1)
    tokens = ["a", "b", "c", "Ġ", "1", "2", "ab", "Ġab", "<x>", "<y>", "[PAD10]"]
    writer = gguf.GGUFWriter(sys.argv[1], "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 8 + [3, 4, 5])
    writer.add_token_merges(["a b", "Ġ ab"])
    writer.add_eos_token_id(8)
    writer.add_array("test.reals", [0.5, 0.5, 0.5])
    writer.add_bool("test.truth", True)
    writer.add_tensor("one", random.standard_normal((2, 3)).astype(np.float32))
    writer.add_tensor("two", random.standard_normal((4, 2, 5)).astype(np.float16))
    for name, kind, columns, size in [("q8", gguf.GGMLQuantizationType.Q8_0, 64, 68), ("q4", gguf.GGMLQuantizationType.Q4_K, 256, 144)]:
        blocks = random.integers(0, 256, (3, size), dtype=np.uint8)
        writer.add_tensor(name, blocks, raw_shape=(3, size), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
