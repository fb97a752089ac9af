# SPDX-License-Identifier: GPL-3.0-or-later
"""Export a model for optimum-neuron into a folder, unless that is there; prints a line `EXPORTED: ...` when it did.

Its only argument is JSON: model (folder), folder (to make), max_model_len, max_num_seqs and tensor_parallel_size. The
folder is there when the export is whole, and not before: it is written beside, and renamed at the end. Runs as the user
that serves, who alone writes where the folder is; systemd lets no two of them run at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

# What vLLM reads beside the model: where a sentence ends, how one samples, how a conversation is written.
BESIDE = "generation_config.json", "chat_template.jinja", "chat_template.json"
UNFINISHED = ".part"


def differences(folder: Path, wanted: dict) -> list[str]:
    """Say in what an export is another than the one that is wanted: the server takes it without a look."""
    found = json.loads((folder / "neuron_config.json").read_text(encoding="utf-8"))
    names = {"max_model_len": "sequence_length", "max_num_seqs": "batch_size", "tensor_parallel_size": "tp_degree"}
    return [
        f"{name} is {found.get(theirs)} in place of {wanted[name]}"
        for name, theirs in names.items()
        if found.get(theirs) != wanted[name]
    ]


def check(folder: Path, wanted: dict) -> None:
    """End where an export is not the one that is wanted."""
    try:
        wrong = differences(folder, wanted)
    except (OSError, ValueError) as error:
        wrong = [str(error)]
    if wrong:
        sys.exit(f"{folder} is not what is asked for: {'; '.join(wrong)}. Remove it, and run the role again")


def export(source: Path, folder: Path, wanted: dict) -> None:
    """Export a model into a folder that is not there."""
    from optimum.neuron import NeuronModelForCausalLM
    from optimum.neuron.utils.instance import current_instance_type
    from transformers import AutoTokenizer

    # Without it what is exported is for a trn1 wherever no device is found.
    target = current_instance_type()
    config = NeuronModelForCausalLM.get_neuron_config(
        str(source),
        instance_type=target,
        batch_size=wanted["max_num_seqs"],
        sequence_length=wanted["max_model_len"],
        tensor_parallel_size=wanted["tensor_parallel_size"],
    )
    NeuronModelForCausalLM.export(str(source), neuron_config=config).save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(source)).save_pretrained(str(folder))
    for name in BESIDE:
        if (source / name).is_file() and not (folder / name).exists():
            shutil.copyfile(source / name, folder / name)


def main(wanted: dict) -> None:
    source, folder = Path(wanted["model"]), Path(wanted["folder"])
    # What was cut off, whatever it was an export for.
    for left in folder.parent.glob(f"*{UNFINISHED}"):
        shutil.rmtree(left)
    if folder.is_dir():
        check(folder, wanted)
        return
    weights = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    free = shutil.disk_usage(folder.parent).free
    if free < weights:
        sys.exit(
            f"{folder.parent} has {free >> 20} MiB free, and an export of {source} needs at least {weights >> 20}: "
            "make room, or enlarge the volume"
        )
    beside = folder.with_name(folder.name + UNFINISHED)
    # The compiler's own files are large, and the folder for temporary ones may be small.
    os.environ["BASE_COMPILE_WORK_DIR"] = f"{beside}/work/"
    (beside / "work").mkdir(parents=True)
    try:
        export(source, beside / "model", wanted)
        check(beside / "model", wanted)
        os.sync()
        (beside / "model").rename(folder)
    finally:
        shutil.rmtree(beside)
    print(f"EXPORTED: {source} into {folder}", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
