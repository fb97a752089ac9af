# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain greedy decoding by transformers: what a right server must answer. It uses nothing of vLLM or of the emulation.

Runs in an environment that has torch and transformers: `python greedy.py MODEL < requests.json`, where the input is a
list of {"prompt": ..., "max_tokens": ...} and the output a list of texts.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoTokenizer, LlamaForCausalLM


def main() -> None:
    folder = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    texts = []
    for request in json.load(sys.stdin):
        tokens = tokenizer(request["prompt"], return_tensors="pt").input_ids
        for _ in range(request["max_tokens"]):
            with torch.no_grad():
                best = model(tokens).logits[0, -1].argmax()
            tokens = torch.cat([tokens, best.reshape(1, 1)], dim=1)
        prompt = tokenizer.decode(tokenizer(request["prompt"]).input_ids)
        texts.append(tokenizer.decode(tokens[0])[len(prompt) :])
    json.dump(texts, sys.stdout)


if __name__ == "__main__":
    main()
