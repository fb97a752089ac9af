# SPDX-License-Identifier: GPL-3.0-or-later
"""Export a model for Neuron with optimum-neuron, which serves a model that was exported before.

Runs in an environment that has optimum-neuron, where there is a device: `python export.py MODEL FOLDER RANKS LENGTH
SEQUENCES`. The folder then has neuron_config.json, model.pt, the weights of each rank and the tokenizer.
"""

from __future__ import annotations

import sys

from optimum.neuron import NeuronModelForCausalLM
from transformers import AutoTokenizer


def main() -> None:
    model, folder = sys.argv[1:3]
    ranks, length, sequences = (int(argument) for argument in sys.argv[3:6])
    config = NeuronModelForCausalLM.get_neuron_config(
        model, batch_size=sequences, sequence_length=length, tensor_parallel_size=ranks
    )
    NeuronModelForCausalLM.export(model, neuron_config=config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)


if __name__ == "__main__":
    main()
