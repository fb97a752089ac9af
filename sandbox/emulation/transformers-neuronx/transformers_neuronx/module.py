# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints with one file for each tensor, as vLLM up to 0.6.3 writes them beside the model."""

import json
from pathlib import Path
from typing import Any, Dict

import torch

_FOLDER = "pytorch_model.bin"
_INDEX = "key_to_filename.json"


def save_pretrained_split(model: Any, directory: str) -> None:
    """Write the model's configuration and each of its tensors into `directory`; the index comes last."""
    folder = Path(directory, _FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(directory)
    names: Dict[str, str] = {}
    for number, (key, tensor) in enumerate(model.state_dict().items()):
        names[key] = f"p{number}.{key}"
        torch.save(tensor.clone(), folder / names[key])
    (folder / _INDEX).write_text(json.dumps(names))


def is_split(directory: str) -> bool:
    return Path(directory, _FOLDER).is_dir()


def load_split(directory: str) -> Dict[str, torch.Tensor]:
    """Read what `save_pretrained_split` wrote."""
    folder = Path(directory, _FOLDER)
    names: Dict[str, str] = json.loads((folder / _INDEX).read_text())
    return {key: torch.load(folder / name, map_location="cpu") for key, name in names.items()}
