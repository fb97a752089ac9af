# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the sandbox's model: a tiny Llama with random weights and a tokenizer, from nothing but this file.

`python -m sandbox.model FOLDER` writes the same bytes on every machine. The text it generates is real English words in
no sensible order: what matters is that a right server answers exactly what plain greedy decoding of it answers.
"""

from __future__ import annotations

import argparse
import array
import hashlib
import json
import math
import random
import struct
import sys
from pathlib import Path
from typing import Any

SEED = 20261122
HIDDEN = 128
LAYERS = 2
# 32 heads, so that every degree of tensor parallelism up to a trn1.32xlarge divides them.
HEADS = 32
INTERMEDIATE = 256
CONTEXT = 4096
NAME = "neuronops-tiny-llama"

WORDS = """
the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word but not
what all were we when your can said there use an each which she do how their if will up other about out many then them
these so some her would make like him into time has look two more write go see number no way could people my than
first water been call who oil its now find long down day did get come made may part over new sound take only little
work know place year live me back give most very after thing our just name good sentence man think say great where
help through much before line right too mean old any same tell boy follow came want show also around form three small
set put end does another well large must big even such because turn here why ask went men read need land different
home us move try kind hand picture again change off play spell air away animal house point page letter mother answer
found study still learn should America world high every near add food between own below country plant last school
father keep tree never start city earth eye light thought head under story saw left few while along might
""".split()  # noqa: SIM905 - a list of so many strings is no reading

# Pieces that are no words: the generated text never uses them, so that it stays readable and never ends early.
_SPECIAL = ["<unk>", "<s>", "</s>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = [*_SPECIAL, *_BYTES, "▁", *(f"▁{word}" for word in dict.fromkeys(WORDS))]
_FIRST_WORD = PIECES.index("▁the")

_CHAT = "{% for message in messages %}{{ message['role'] }} said {{ message['content'] }}\n{% endfor %}assistant said"


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": CONTEXT,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": len(PIECES),
    }


def _tokenizer() -> dict[str, Any]:
    """Whole words where it knows them, bytes elsewhere: any prompt can be encoded."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": piece,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, piece in enumerate(_SPECIAL)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "byte_fallback": True,
            "vocab": [[piece, -float(number) / 100] for number, piece in enumerate(PIECES)],
        },
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "chat_template": _CHAT,
    }


def _tensors() -> dict[str, tuple[list[int], array.array[float]]]:
    """Uniform random weights, wide enough that the best token leads clearly; drawn in a fixed order."""
    generator = random.Random(SEED)  # noqa: S311 - the same weights each time are the point

    def matrix(rows: int, columns: int, gain: float = 1.0) -> tuple[list[int], array.array[float]]:
        width = gain * math.sqrt(3 / columns)
        return [rows, columns], array.array("f", (generator.uniform(-width, width) for _ in range(rows * columns)))

    def ones() -> tuple[list[int], array.array[float]]:
        return [HIDDEN], array.array("f", [1.0] * HIDDEN)

    tensors = {"model.embed_tokens.weight": matrix(len(PIECES), HIDDEN, gain=math.sqrt(HIDDEN))}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{prefix}.self_attn.{name}.weight"] = matrix(HIDDEN, HIDDEN, gain=2)
        tensors[f"{prefix}.mlp.gate_proj.weight"] = matrix(INTERMEDIATE, HIDDEN, gain=2)
        tensors[f"{prefix}.mlp.up_proj.weight"] = matrix(INTERMEDIATE, HIDDEN, gain=2)
        tensors[f"{prefix}.mlp.down_proj.weight"] = matrix(HIDDEN, INTERMEDIATE, gain=2)
        tensors[f"{prefix}.input_layernorm.weight"] = ones()
        tensors[f"{prefix}.post_attention_layernorm.weight"] = ones()
    tensors["model.norm.weight"] = ones()
    shape, head = matrix(len(PIECES), HIDDEN, gain=4)
    head[: _FIRST_WORD * HIDDEN] = array.array("f", bytes(4 * _FIRST_WORD * HIDDEN))
    tensors["lm_head.weight"] = shape, head
    return tensors


def _safetensors() -> bytes:
    """The format is a length, a JSON header and the tensors one after another, all little-endian."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, (shape, values) in _tensors().items():
        if sys.byteorder == "big":
            values.byteswap()
        start = len(body)
        body += values.tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(body)]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + bytes(body)


def write(folder: Path) -> str:
    """Write the model into `folder` and return the SHA-256 of its weights; what is there and right stays untouched."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = _safetensors()
    files = {
        "config.json": json.dumps(_config(), indent=2).encode(),
        "generation_config.json": json.dumps({"bos_token_id": 1, "eos_token_id": 2}).encode(),
        "tokenizer.json": json.dumps(_tokenizer(), ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(_tokenizer_config(), indent=2).encode(),
        "model.safetensors": weights,
    }
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
    return hashlib.sha256(weights).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the sandbox's tiny Llama model.")
    parser.add_argument("folder", type=Path)
    print(write(parser.parse_args().folder))


if __name__ == "__main__":
    main()
